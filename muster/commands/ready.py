"""`muster ready`: say whether a recovery would work today, touching nothing."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.via import READY, via
from muster.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snapshots.ready import Check, Readiness


@via(READY)
@described(
    "muster ready",
    "muster ready --pair swedencentral:eastus2",
    "muster ready --strict --format json --quiet",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("ready", cls=Command)
@click.option(
    "--pair",
    "chosen",
    multiple=True,
    metavar="PRIMARY[:STANDBY]",
    help="Only this pair of regions (may be repeated); default: every one, and the whole estate.",
)
@click.option("--all", "everything", is_flag=True, help="Show also the checks that are met.")
@click.option("--strict", is_flag=True, help='Exit 2 also for "at risk".')
@click.pass_obj
def command(invocation: Invocation, chosen: tuple[str, ...], everything: bool, strict: bool) -> int:
    """Say whether a recovery would work today, touching nothing.

    Reads the newest snapshot and asks Azure what would stop its restore in the standby region:
    models, quota, capacity, names, keys, permissions, networks, the age of what is kept, replicas,
    clocks that run out. Exit code 2: an objective is not met, or it is not known whether it is.
    """
    from muster.report.progress import ProgressLine
    from muster.verbs.ready import assess, document, exit_code

    with (
        Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring,
        ProgressLine(invocation) as line,
    ):
        found = assess(wiring, chosen, tell=line.tell)
    invocation.observe("ready", partial(document, found))
    if invocation.json:
        invocation.emit(document(found))
    else:
        _show(invocation, found, everything=everything)
    return exit_code(found, strict=strict)


_NAMED = 3  # subjects in a row
_STYLES = {"met": "green", "at risk": "yellow", "not known": "magenta", "not met": "red"}


def _show(invocation: Invocation, found: Readiness, *, everything: bool) -> None:
    from muster.report.terminal import moment, plural, span, table, text
    from snapshots.ready import State

    shown = [c for c in found.checks if everything or c.state is not State.MET]
    if shown:
        invocation.show(table(["", "check", "of", "found"], _rows(shown, apart=everything)))
    remedies: dict[str, list[str]] = {}
    for check in shown:
        if check.remedy and check.state is not State.MET:
            remedies.setdefault(check.remedy, []).append(check.name)
    for remedy, names in remedies.items():
        invocation.show(text(f"next, for {', '.join(sorted(set(names)))}: {remedy}"))
    hidden = len(found.checks) - len(shown)
    if hidden:
        invocation.show(text(f"{plural(hidden, 'check')} more: met (--all shows them)"))
    for judged in found.objectives:
        promised = f" ({span(judged.promised.total_seconds())})" if judged.promised else ""
        date = f" until {moment(judged.date)}" if judged.date else ""
        words = (
            f"{judged.name.value.upper()}{promised}: {judged.state.value}{date}; {judged.detail}"
        )
        invocation.show(text(words, f"bold {_STYLES[judged.state.value]}"))


def _rows(checks: Sequence[Check], *, apart: bool) -> list[tuple[str, str, str, str]]:
    """Give a row a check; of many that found the same, one row, unless they are wanted `apart`."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for number, check in enumerate(checks):
        same = (check.state.value, check.name, _told(check))
        alike.setdefault((*same, str(number)) if apart else same, []).append(_named(check.subject))
    rows = []
    for (state, name, told, *_), subjects in alike.items():
        if len(subjects) > _NAMED:
            subjects[_NAMED - 1 :] = [f"and {len(subjects) - _NAMED + 1} more (--all names them)"]
        rows.append((state, name, "\n".join(subjects), told))
    return rows


def _named(subject: str) -> str:
    """Name a subject in a few words: its kind, its own name, and what it is in."""
    from snapshots.kinds import BY_NAME
    from snapshots.model import Key

    try:
        key = Key.parse(subject)
    except ValueError:
        return subject
    if key.kind not in BY_NAME or len(key.path) < 3:
        return subject
    inside = f" in {key.path[2]}" if len(key.path) > 3 else f" in {key.path[1]}"
    return f"{key.kind} {key.name}{inside}"


def _told(check: Check) -> str:
    from muster.report.terminal import moment

    return check.detail + (f" [{moment(check.date)}]" if check.date else "")
