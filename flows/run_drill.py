"""Rehearse: gate, steps, checks, and whatever happens clean-up, proof and evidence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from threading import Event as Stop
from typing import Annotated, Any

from prefect import flow
from prefect.client.schemas.objects import FlowRun, State
from pydantic import Field

from drills.model import Drill, Mode
from drills.run import Options, settle
from drills.run import run as run_script
from drills.script import find
from flows.asking import FlowApprover, ask
from flows.telling import Event, Outcome, Teller, concluded, tell
from flows.turns import in_task, seen_through
from flows.wired import shielded, wired
from flows.words import drill_markdown
from muster.drilling import equipment, own_scripts
from muster.invocation import Exit
from muster.verbs.approval import Answer, Decided, write_down
from muster.verbs.drill import document_of, exit_code, given_of, read_drill
from muster.wiring import Wiring
from snapshots.model import JsonObject, digest

Minutes = Annotated[float, Field(gt=0, le=7 * 24 * 60)]


class DrillMode(StrEnum):
    """How a drill is run."""

    DRY_RUN = "dry-run"
    REAL = "real"


def clean_up(flow: object, flow_run: FlowRun, state: State[Any]) -> None:
    """Clean up after a drill that was killed, and write its evidence: interrupted.

    Prefect's runner calls it by these very names, in a process of its own.
    """
    del flow, state
    with wired(str((flow_run.parameters or {}).get("config") or "")) as wiring:
        settle(equipment(wiring))


@flow(
    name="run-drill",
    timeout_seconds=10 * 24 * 3600,
    on_cancellation=[clean_up],
    on_crashed=[clean_up],
)
def run_drill(
    drill: str,
    config: str = "",
    mode: DrillMode = DrillMode.DRY_RUN,
    snapshot: str = "",
    seed: int = 0,
    keep: bool = False,
    sandbox: str = "",
    set: list[str] | None = None,  # noqa: A002  the option's own name
    decide_minutes: Minutes = 240,
) -> State[JsonObject]:
    """Run a drill. A real one waits for a person's decision first; both are in its evidence.

    Cancelling it ends it at the next step, cleans up and writes the evidence. A verdict other than
    passed ends the run as Findings.

    Args:
        drill: The name of a script (muster drill list).
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        mode: dry-run changes nothing, every read-only check is real; real does it all.
        snapshot: Which snapshot (empty: the newest; live: as it is now).
        seed: Makes chance repeat.
        keep: Leave what it made, to look at it, until the next drill starts.
        set: Values of the script's parameters, each as NAME=VALUE.
        sandbox: The ready file of the sandbox that the configuration names, for faults.
        decide_minutes: How long a real drill waits for the decision; then nothing is done.
    """
    options = Options(mode=Mode(mode.value), seed=seed, keep=keep, snapshot=snapshot)
    ready = Path(sandbox).expanduser() if sandbox else None
    asked = _Asked(drill, tuple(set or ()), ready, decide_minutes)
    return concluded("drill", lambda: _drill(config, asked, options))


@dataclass(frozen=True, slots=True)
class _Asked:
    name: str
    given: tuple[str, ...]
    sandbox: Path | None
    minutes: float


def _drill(config: str, asked: _Asked, options: Options) -> Outcome:
    with wired(config) as wiring, Teller("drill") as teller:
        script = read_drill(find(asked.name, own_scripts(wiring)), given_of(asked.given))
        decided: Decided | None = None
        if options.mode is Mode.REAL:
            decided = ask(
                wiring,
                "drill",
                f"{script.name} in {wiring.settings.estate.name}",
                _question(script, options),
                subject={
                    "drill": script.name,
                    "script_sha256": digest(script.text.encode()),
                    "snapshot": options.snapshot,
                    "seed": options.seed,
                    "set": list(asked.given),
                },
                minutes=asked.minutes,
                allowed=script.approvers,
            )
            if decided.answer is not Answer.APPROVED:
                return _not_allowed(wiring, script, decided)
            options = replace(options, approvals=(decided.line,))

        def work(stop: Stop) -> Outcome:
            return _run(wiring, script, options, asked, decided, stop, teller)

        # Not tried again by Prefect: every run of a drill is a drill of its own, with evidence.
        return in_task(script.name, lambda: seen_through(work))


def _run(
    wiring: Wiring,
    script: Drill,
    options: Options,
    asked: _Asked,
    decided: Decided | None,
    stop: Stop,
    teller: Teller,
) -> Outcome:
    with shielded(wiring.environment):
        at_hand = replace(
            equipment(wiring, sandbox=asked.sandbox, primary=script.scope.primary, tell=teller.say),
            approver=FlowApprover(wiring, script.name, stop, minutes=asked.minutes),
            stopping=stop,
        )
        ran = run_script(script, at_hand, options)
        if decided is not None:
            write_down(wiring, replace(decided, became=ran.evidence.id))
    shown = document_of(ran)
    code = exit_code(ran)
    verdict = str(shown["verdict"])
    facts: JsonObject = {
        name: shown[name] for name in ("drill", "mode", "verdict", "rto_seconds", "reasons")
    }
    facts["evidence"] = ran.evidence.id
    words = f"{script.name}: {verdict}, evidence {ran.evidence.id}"
    cleaned = ran.result.clean_up.state.value
    events = [Event(f"muster.drill.{_word(code)}", _severity(code), verdict, facts)]
    if cleaned not in {"clean", "kept"}:
        events.append(Event("muster.drill.left-over", "critical", cleaned, facts))
    outcome = Outcome(
        "drill",
        wiring.settings.estate.name,
        code,
        words,
        shown,
        drill_markdown(ran.evidence.document, decided.line if decided else ""),
        events=events,
    )
    if code == Exit.INTERRUPTED:  # the run is being cancelled: nobody else will tell
        tell(outcome)
    return outcome


def _word(code: int) -> str:
    return {0: "passed", 130: "interrupted"}.get(code, "failed")


def _severity(code: int) -> str:
    return {0: "info", 130: "medium"}.get(code, "high")


def _question(script: Drill, options: Options) -> str:
    return "\n".join(
        [
            f"# {script.title}",
            "",
            script.about,
            "",
            f"- blast radius: {script.blast_radius}",
            f"- cost ceiling: {script.cost_ceiling:g} US dollars",
            f"- at most {script.limit / 60:g} minutes",
            f"- snapshot: {options.snapshot or 'the newest'}",
            f"- who may approve: {', '.join(script.approvers) or 'anybody'}",
            "",
            "```yaml",
            script.text.replace("```", "'''"),
            "```",
        ]
    )


def _not_allowed(wiring: Wiring, script: Drill, decided: Decided) -> Outcome:
    estate = wiring.settings.estate.name
    words = f"{decided.line}; nothing was done"
    shown: JsonObject = {"schema": "muster/drill/1", "drill": script.name, "mode": "real"}
    return Outcome("drill", estate, Exit.ERROR, words, shown, f"# {script.title}\n\n{words}")
