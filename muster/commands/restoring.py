"""What `plan`, `restore`, `resume` and `undo` share: options, approval, stopping."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, TypeVar

import click

from muster.invocation import Exit, Invocation
from snapshots.errors import InputError

if TYPE_CHECKING:
    from snapshots.steps import Plan

_F = TypeVar("_F", bound=Callable[..., object])


def target_options(function: _F) -> _F:
    """Add the options that say what is restored, and where to."""
    for option in reversed(
        (
            click.argument("snapshot", default="latest"),
            click.option(
                "--to",
                "to",
                default="same",
                metavar="same|standby|SCOPE",
                help="same: in place. standby: the pair's other region. SCOPE: a subscription id, "
                "or SUBSCRIPTION/GROUP.",
            ),
            click.option(
                "--pair", metavar="REGION", help="Which pair --to standby means: its primary."
            ),
            click.option(
                "--only",
                multiple=True,
                metavar="KEY",
                help="A key, the end of one, or a glob; repeatable. What it needs and the target "
                "has not comes along.",
            ),
            click.option(
                "--prune", is_flag=True, help="Delete from the target what the snapshot has not."
            ),
            click.option(
                "--on-conflict",
                type=click.Choice(["baseline", "live", "target"]),
                default="baseline",
                show_default=True,
                help="Which value a property gets that was changed since SNAPSHOT, both in the "
                "newest snapshot (live) and, otherwise, in the target. Each is listed.",
            ),
            click.option(
                "--retrain",
                is_flag=True,
                help="Train fine-tuned models again whose weights are nowhere: hours, billed by "
                "the token. The plan shows what it takes.",
            ),
            click.option(
                "--declare-down",
                multiple=True,
                metavar="REGION",
                help="Send nothing to this region, whatever happens; repeatable.",
            ),
        )
    ):
        function = option(function)
    return function


def approved(
    invocation: Invocation, plan: Plan, *, yes: bool, approve: int | None, most: int
) -> bool:
    """Ask before something is changed; above the blast radius the number must be given.

    Raises InputError when it is not: --yes alone is not enough there.
    """
    steps = len(plan.steps)
    if steps > most and approve != steps:
        if not invocation.json and not yes and _interactive():
            typed = click.prompt(
                f"this does {steps} steps, more than [restore] max_steps = {most}; type the "
                "number to go on",
                default="",
                show_default=False,
                err=True,
            )
            return str(typed).strip() == str(steps)
        raise InputError(
            f"this does {steps} steps, more than [restore] max_steps = {most} allows",
            where=f"plan to {plan.target}",
            remedy=f"look at the plan, then add --approve {steps}",
        )
    deletes = sum(1 for step in plan.steps if step.action.value == "delete")
    loses = f", {deletes} of them deletions" if deletes else ""
    return invocation.confirm(f"do {steps} steps in {plan.target}{loses}?", yes=yes)


def _interactive() -> bool:
    return sys.stdin.isatty()


@contextmanager
def stopping(invocation: Invocation) -> Iterator[Event]:
    """Let Ctrl-C and SIGTERM end a run after the steps in hand; a second one ends it at once.

    At once means as kill -9 does: the record is ahead of every call, so nothing is lost by it, and
    nobody waits for an answer of Azure.
    """
    stop = Event()

    def heard(number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            invocation.warn("left at once: `muster resume last` finds out what became of it")
            sys.stdout.flush()
            os._exit(Exit.INTERRUPTED)
        stop.set()
        invocation.warn(
            f"{signal.Signals(number).name}: seeing the steps in hand through; again to leave "
            "them (`muster resume` finds out what became of them)"
        )

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, heard)
    except ValueError:  # not the main thread: somebody else hears signals
        yield stop
        return
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
