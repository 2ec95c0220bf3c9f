"""A plan that is only shown ends alike for the command and for the flow, and a record is told."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from muster.invocation import Exit
from muster.verbs.restore import planned_code, whereabouts
from snapshots.gates import GateResult
from snapshots.model import Gap, GapReason, Key
from snapshots.steps import Action, Outcome, Plan, Record, Step, StepState

NOW = datetime(2026, 11, 22, 9, 12, tzinfo=UTC)
PLAN = Plan(estate="contoso", snapshot="abc", target="same", made_at=NOW, version="1")
UNREAD = Gap(Key("account", ("s",)), GapReason.DENIED, "403")
CLOSED = GateResult("quota", "gpt-4o", passed=False, detail="none is left")
OPEN = GateResult("quota", "gpt-4o", passed=True, detail="enough")


@pytest.mark.parametrize(
    ("unknown", "gates", "apply", "code"),
    [
        ((), (), False, Exit.CLEAN),
        ((), (OPEN,), True, Exit.CLEAN),
        ((), (CLOSED, OPEN), False, Exit.FINDINGS),
        ((), (CLOSED,), True, Exit.ERROR),
        ((UNREAD,), (OPEN,), False, Exit.INCOMPLETE),
        ((UNREAD,), (CLOSED,), False, Exit.INCOMPLETE),
        ((UNREAD,), (OPEN,), True, Exit.FINDINGS),
        ((UNREAD,), (CLOSED,), True, Exit.ERROR),
    ],
)
def test_a_plan_that_is_not_carried_out_is_clean_only_when_nothing_is_in_its_way(
    unknown: tuple[Gap, ...], gates: tuple[GateResult, ...], apply: bool, code: int
) -> None:
    assert planned_code(replace(PLAN, unknown=unknown), gates, apply=apply) == code


def recorded(*states: StepState) -> Record:
    key = Key("deployment", ("s", "g", "a", "d"))
    steps = tuple(
        Step(id=f"s{n}", action=Action.CREATE, key=key, target="") for n in range(len(states))
    )
    outcomes = tuple(
        Outcome(step=step.id, state=state, at=NOW)
        for step, state in zip(steps, states, strict=True)
        if state is not StepState.WAITING
    )
    return Record(
        id="20261122T091200Z-abcdef",
        plan=replace(PLAN, steps=steps),
        started_at=NOW,
        outcomes=outcomes,
    )


def test_a_record_that_was_left_says_how_far_it_is_and_what_goes_on() -> None:
    said = whereabouts(recorded(StepState.DONE, StepState.BEGUN, StepState.WAITING))
    assert said.startswith("1 of 3 steps are done, 1 begun")
    assert "muster resume 20261122T091200Z-abcdef" in said
    assert "muster undo 20261122T091200Z-abcdef" in said


def test_a_record_that_is_done_needs_no_resuming() -> None:
    said = whereabouts(recorded(StepState.DONE, StepState.ADOPTED))
    assert "resume" not in said
    assert "muster undo" in said
