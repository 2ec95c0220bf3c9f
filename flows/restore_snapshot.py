"""Bring a snapshot back: a single resource or a whole estate, in place or elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from threading import Event as Stop
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from pydantic import Field

from flows.asking import ask
from flows.telling import Event, Outcome, Teller, concluded, has_told, say_after, tell
from flows.turns import in_task, seen_through
from flows.wired import shielded, wired
from flows.words import plan_markdown
from muster.invocation import Exit
from muster.report.plan import document
from muster.verbs.approval import Answer, Decided, became_of, digest_of, write_down
from muster.verbs.restore import (
    cloud_for,
    planned_code,
    refused,
    request_for,
    save_plan,
    step_words,
    whereabouts,
)
from muster.verbs.restore import declare_down as send_nothing
from muster.wiring import Wiring
from snapshots.apply import Happened
from snapshots.gates import GateResult
from snapshots.model import JsonObject
from snapshots.restore import Prepared, Restored, Tools, execute, gates, prepare

Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]


class OnConflict(StrEnum):
    """Whose value counts where both sides were changed."""

    BASELINE = "baseline"
    LIVE = "live"
    TARGET = "target"


def say_what_stands(flow: object, flow_run: FlowRun, state: State[Any]) -> None:
    """Say which record a restore that was cancelled or killed has left, and what goes on with it.

    Prefect's runner calls it by these very names, in a process of its own.
    """
    del flow, state
    with wired(str((flow_run.parameters or {}).get("config") or "")) as wiring:
        record = became_of(wiring, str(flow_run.id))
        if record and not has_told(flow_run, "restore"):
            facts = {"record": record}
            event = Event("muster.restore.stopped", "high", payload=facts)
            found = wiring.records().read(record)
            say_after(flow_run, event, wiring.settings.estate.name, whereabouts(found))


@flow(
    name="restore-snapshot",
    timeout_seconds=10 * 24 * 3600,
    on_cancellation=[say_what_stands],
    on_crashed=[say_what_stands],
)
def restore_snapshot(
    config: str = "",
    snapshot: str = "latest",
    to: str = "same",
    pair: str | None = None,
    only: list[str] | None = None,
    prune: bool = False,
    on_conflict: OnConflict = OnConflict.BASELINE,
    retrain: bool = False,
    declare_down: list[str] | None = None,
    save: str = "",
    apply: bool = False,
    decide_minutes: Minutes = 240,
) -> State[JsonObject]:
    """Show what a restore would do and, with apply, wait for a person's decision and do it.

    What was decided, by whom and why, is written on the evidence branch before anything is done.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        snapshot: Which snapshot: latest, an id or the beginning of one, a date, a tag.
        to: same (in place), standby (the pair's other region), SUBSCRIPTION or SUBSCRIPTION/GROUP.
        pair: Which pair "standby" means, by its primary region.
        only: Only these: keys, ends of keys or globs. What they need comes along.
        prune: Delete from the target what the snapshot has not.
        on_conflict: Which value a property gets that was changed since the snapshot, both in the
            newest snapshot (live) and in the target.
        retrain: Train fine-tuned models again whose weights are nowhere (hours, billed).
        declare_down: Send nothing to these regions, whatever happens.
        save: Write the plan to this file on the worker, too (empty: nowhere).
        apply: Do it, after a decision; without, only the plan is shown.
        decide_minutes: How long it waits for the decision; then nothing is done.
    """
    wanted = _Wanted(
        snapshot,
        to,
        pair,
        tuple(only or ()),
        prune,
        on_conflict.value,
        retrain,
        tuple(declare_down or ()),
        save,
    )
    return concluded("restore", lambda: _restore(config, wanted, apply, decide_minutes))


@dataclass(frozen=True, slots=True)
class _Wanted:
    snapshot: str
    to: str
    pair: str | None
    only: tuple[str, ...]
    prune: bool
    on_conflict: str
    retrain: bool
    down: tuple[str, ...]
    save: str


@dataclass(frozen=True, slots=True)
class _Planned:
    prepared: Prepared
    tools: Tools
    gates: tuple[GateResult, ...]


def _restore(config: str, wanted: _Wanted, apply: bool, minutes: float) -> Outcome:
    with wired(config) as wiring, Teller("restore") as teller:
        planned = in_task("plan", lambda: _plan(wiring, wanted, teller), again=True)
        plan = planned.prepared.plan
        if not apply or plan.is_empty or refused(planned.gates):
            return _only_planned(wiring, planned, apply=apply)
        steps, most = len(plan.steps), wiring.settings.restore.max_steps
        decided = ask(
            wiring,
            "restore",
            f"{steps} steps in {plan.target}",
            plan_markdown(_document(planned)),
            subject={
                "snapshot": plan.snapshot,
                "target": plan.target,
                "steps": steps,
                "plan_sha256": digest_of(plan.document()),
            },
            minutes=minutes,
            steps=steps if steps > most else None,
        )
        if decided.answer is not Answer.APPROVED:
            return _not_allowed(wiring, planned, decided)
        # Not tried again by Prefect: the record is what a restore goes on from (`muster resume`).
        return in_task(
            "apply",
            lambda: seen_through(lambda stop: _apply(wiring, planned, decided, stop, teller)),
        )


def _plan(wiring: Wiring, wanted: _Wanted, teller: Teller) -> _Planned:
    with shielded(wiring.environment):
        send_nothing(wiring, wanted.down)
        request = request_for(
            wiring,
            wanted.snapshot,
            wanted.to,
            wanted.pair,
            wanted.only,
            wanted.prune,
            wanted.on_conflict,
            wanted.retrain,
        )
        if request.snapshot.gaps:
            gaps = len(request.snapshot.gaps)
            teller.say(f"the snapshot has {gaps} gaps: what they hid is not restored")
        tools = wiring.restore_tools(
            lambda p: teller(f"looking: {p.kind}, {p.done} of {p.total} listings")
        )
        tools = replace(tools, cloud=cloud_for(wiring, request.mapping))
        prepared = prepare(request, tools)
        save_plan(prepared.plan, wanted.save or None)
        return _Planned(prepared, tools, gates(prepared, tools))


def _apply(
    wiring: Wiring, planned: _Planned, decided: Decided, stop: Stop, teller: Teller
) -> Outcome:
    """Do what was approved: all of it or, when cancelled, the steps in hand."""

    def heard(happened: Happened) -> None:
        teller(step_words(happened), happened.done / max(happened.total, 1))

    def begun(record: str) -> None:
        # Before the first step: whatever becomes of this process, the record can be found.
        write_down(wiring, replace(decided, became=record))
        teller.say(f"record {record}: `muster resume {record}` goes on, should this run end")

    with shielded(wiring.environment):
        records = wiring.records().announcing(begun)
        done = execute(planned.prepared, planned.tools, records, stop=stop, tell=heard)
    outcome = _done(wiring, planned, decided, done)
    if stop.is_set():  # the run is being cancelled: nobody else will tell
        tell(outcome)
    return outcome


def _document(planned: _Planned) -> JsonObject:
    return document("restore", planned.prepared.plan, gates=planned.gates)


def _only_planned(wiring: Wiring, planned: _Planned, *, apply: bool) -> Outcome:
    plan, closed = planned.prepared.plan, refused(planned.gates)
    words = f"{len(plan.steps)} steps in {plan.target}; nothing was changed"
    if closed:
        words = f"a gate did not open: nothing was changed in {plan.target}"
    elif plan.is_empty:
        words = f"nothing to do in {plan.target}"
    if plan.unknown:
        words += "; not everything could be read"
    code = planned_code(plan, planned.gates, apply=apply)
    shown = _document(planned)
    events = [Event("muster.restore.refused", "high")] if apply and closed else []
    estate = wiring.settings.estate.name
    return Outcome("restore", estate, code, words, shown, plan_markdown(shown), events=events)


def _not_allowed(wiring: Wiring, planned: _Planned, decided: Decided) -> Outcome:
    shown = _document(planned)
    return Outcome(
        "restore",
        wiring.settings.estate.name,
        Exit.ERROR,
        f"{decided.line}; nothing was changed",
        shown,
        plan_markdown(shown, decided.line),
    )


def _done(wiring: Wiring, planned: _Planned, decided: Decided, done: Restored) -> Outcome:
    shown = document(
        "restore",
        done.record.plan,
        record=done.record,
        remaining=done.remaining,
        gates=planned.gates,
        seconds=done.seconds,
        calls=done.calls,
    )
    facts = {"record": done.record.id, "remaining": len(done.remaining), "who": decided.who}
    if done.stopped:
        words = f"stopped; `muster resume {done.record.id}` goes on"
        code, event = Exit.INTERRUPTED, Event("muster.restore.stopped", "high", payload=facts)
    elif done.complete:
        words = f"restored: {len(done.record.plan.steps)} steps, no change is left"
        code, event = Exit.CLEAN, Event("muster.restore.done", payload=facts)
    else:
        words = f"{len(done.remaining)} changes are left; record {done.record.id}"
        code, event = Exit.FINDINGS, Event("muster.restore.failed", "critical", payload=facts)
    estate = wiring.settings.estate.name
    told = plan_markdown(shown, decided.line)
    return Outcome("restore", estate, code, words, shown, told, events=[event])
