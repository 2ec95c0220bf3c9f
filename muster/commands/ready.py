"""`muster ready`: say whether a recovery would work today, touching nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.settings import PairSettings
from muster.wiring import Wiring, mapping_of
from snapshots.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from snapshots.model import JsonObject
    from snapshots.ready import Check, Readiness


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
    from snapshots.ready import Objectives, Pair, State, ready

    settings = invocation.settings()
    pairs = chosen_pairs(settings.estate.pairs, chosen)
    with Wiring(settings, invocation.environment) as wiring, ProgressLine(invocation) as line:
        found = ready(
            [Pair(pair.primary, pair.standby, mapping_of(pair)) for pair in pairs],
            subscriptions_of(pairs, [scope.subscription for scope in settings.estate.scopes]),
            wiring.cloud(),
            wiring.ledger(),
            wiring.vault(),
            clock=wiring.clock,
            objectives=Objectives(
                settings.objectives.rto, settings.objectives.rpo, settings.objectives.horizon
            ),
            whole_estate=not chosen,
            progress=line.tell,
        )
    if invocation.json:
        invocation.emit(document(found))
    else:
        _show(invocation, found, everything=everything)
    bad = {State.NOT_MET, State.NOT_KNOWN} | ({State.AT_RISK} if strict else set())
    return Exit.FINDINGS if found.state in bad else Exit.CLEAN


def chosen_pairs(pairs: Sequence[PairSettings], chosen: Sequence[str]) -> list[PairSettings]:
    """Give the pairs that were asked for, all when none was. Raises InputError."""
    known = ", ".join(f"{p.primary}:{p.standby}" for p in pairs) or "none"
    if not pairs:
        raise InputError(
            "no standby region is named",
            where="estate.pair",
            remedy="add [[estate.pair]] with primary and standby to muster.toml",
        )
    found: list[PairSettings] = []
    for words in chosen:
        primary, _, standby = words.lower().replace("->", ":").replace(" ", "").partition(":")
        fits = [p for p in pairs if p.primary == primary and standby in ("", p.standby)]
        if not fits:
            raise InputError(
                f"there is no pair {words!r}", where="--pair", remedy=f"known pairs: {known}"
            )
        found += [pair for pair in fits if pair not in found]
    return found or list(pairs)


def subscriptions_of(pairs: Sequence[PairSettings], scopes: Sequence[str]) -> list[str]:
    """Give the subscriptions of the estate: those looked at and those of the standbys."""
    named = {to.subscription for pair in pairs for to in pair.accounts.values() if to.subscription}
    return sorted({s.lower() for s in (*scopes, *named)})


def document(found: Readiness) -> JsonObject:
    """Give a readiness as JSON."""
    from muster.report import documents
    from muster.report.terminal import iso
    from snapshots.model import Json

    checks: list[Json] = [
        {
            "name": c.name,
            "subject": c.subject,
            "objective": c.promise.value,
            "state": c.state.value,
            "detail": c.detail,
            "date": iso(c.date) if c.date else None,
            "remedy": c.remedy,
        }
        for c in found.checks
    ]
    return {
        "schema": documents.schema("ready"),
        "verdict": found.state.value,
        "at": iso(found.at),
        "snapshot": found.snapshot,
        "objectives": [
            {
                "name": o.name.value,
                "promised_seconds": o.promised.total_seconds() if o.promised else None,
                "state": o.state.value,
                "date": iso(o.date) if o.date else None,
                "detail": o.detail,
            }
            for o in found.objectives
        ],
        "counts": {state.value: number for state, number in found.counts.items()},
        "checks": checks,
    }


_STYLES = {"met": "green", "at risk": "yellow", "not known": "magenta", "not met": "red"}


def _show(invocation: Invocation, found: Readiness, *, everything: bool) -> None:
    from muster.report.terminal import moment, plural, span, table, text
    from snapshots.ready import State

    shown = [c for c in found.checks if everything or c.state is not State.MET]
    if shown:
        rows = [(c.state.value, c.name, c.subject, _told(c)) for c in shown]
        invocation.show(table(["", "check", "of", "found"], rows))
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


def _told(check: Check) -> str:
    from muster.report.terminal import moment

    return check.detail + (f" [{moment(check.date)}]" if check.date else "")
