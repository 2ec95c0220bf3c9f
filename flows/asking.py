"""Ask a person and wait, but not for ever: a typed decision, by the UI or `muster approve-run`."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from enum import StrEnum
from threading import Event as Stop
from threading import Thread
from typing import Annotated

from prefect.exceptions import FlowPauseTimeout
from prefect.flow_runs import pause_flow_run
from prefect.input import RunInput
from prefect.logging import get_run_logger
from prefect.runtime import flow_run as this_run
from pydantic import Field, StringConstraints

from flows.telling import Event, send
from flows.wired import VerbError
from muster.verbs.approval import Answer, Decided, write_down
from muster.wiring import Wiring
from snapshots.errors import MusterError, RefusedError
from snapshots.model import JsonObject

_LOOK = 0.5  # seconds between two looks at whether a drill was stopped
_POLL = 5  # seconds between two looks at whether somebody decided
Words = Annotated[str, StringConstraints(strip_whitespace=True, min_length=2, max_length=500)]


class Verdict(StrEnum):
    """The two answers."""

    APPROVE = "approve"
    REJECT = "reject"


class Decision(RunInput):
    """Whether the run goes on. Every field is required: resuming with nothing decides nothing."""

    decision: Verdict = Field(description="approve: it goes on. reject: it ends, nothing is done.")
    who: Words = Field(description="Your name, as your organisation knows it.")
    reason: Words = Field(description="Why; it is kept with the evidence.")


class LargeDecision(Decision):
    """The same, for a plan of more steps than [restore] max_steps."""

    steps: int = Field(description="The number of steps of the plan, as shown above.")


def ask(
    wiring: Wiring,
    verb: str,
    what: str,
    markdown: str,
    *,
    subject: JsonObject,
    minutes: float,
    allowed: Sequence[str] = (),
    steps: int | None = None,
) -> Decided:
    """Pause this run until somebody decides, at most `minutes`; give what was decided.

    `steps`, when given, must be typed by who approves. The decision is written down before it is
    given. Raises VerbError when it cannot be: nothing is done that nobody can prove was allowed.
    """
    asked = datetime.now(UTC)
    run = str(this_run.id or "")

    def come_to(answer: Answer, who: str, reason: str) -> Decided:
        decided = Decided(
            answer=answer,
            who=who,
            reason=reason,
            at=datetime.now(UTC),
            asked_at=asked,
            verb=verb,
            what=what,
            subject=subject,
            run=run,
        )
        get_run_logger().info("%s", decided.line)
        write_down(wiring, decided)
        severity = "info" if answer is Answer.APPROVED else "medium"
        facts = {"who": who, "reason": reason}
        event = Event(f"muster.approval.{answer.value}", severity, verb, facts)
        send(event, wiring.settings.estate.name, decided.line)
        return decided

    send(
        Event("muster.approval.asked", "high", verb, {"what": what, "minutes": minutes}),
        wiring.settings.estate.name,
        f"a {verb} waits for a decision: {what}",
    )
    get_run_logger().info("waiting %g minutes for: muster approve-run %s", minutes, run)
    try:
        answer, who, reason = _answered(markdown, minutes, allowed, steps)
    except Exception:
        raise
    except BaseException:  # the run is being cancelled: who looks for the decision finds that
        come_to(Answer.WITHDRAWN, "", "the run was ended while it waited")
        raise
    return come_to(answer, who, reason)


def _answered(
    markdown: str, minutes: float, allowed: Sequence[str], steps: int | None
) -> tuple[Answer, str, str]:
    form = (Decision if steps is None else LargeDecision).with_initial_data(description=markdown)
    seconds = max(round(minutes * 60), 1)
    begun = time.monotonic()
    try:
        found = pause_flow_run(
            wait_for_input=form, timeout=seconds, poll_interval=min(_POLL, max(seconds // 4, 1))
        )
    except FlowPauseTimeout:
        return Answer.EXPIRED, "", f"nobody decided in {minutes:g} minutes"
    except MusterError:
        raise
    except Exception as error:  # noqa: BLE001  whatever Prefect's client raises
        waited = time.monotonic() - begun
        raise VerbError(
            f"nobody could be asked, or no answer came through ({type(error).__name__})",
            where=f"after {waited:.0f} s",
            remedy="see that Prefect's server answers, and start it again; nothing was done",
        ) from None
    if found.decision is not Verdict.APPROVE:
        return Answer.REJECTED, found.who, found.reason
    if allowed and found.who not in allowed:
        return Answer.REJECTED, found.who, f"none of those who may approve: {', '.join(allowed)}"
    if steps is not None and (not isinstance(found, LargeDecision) or found.steps != steps):
        return (
            Answer.REJECTED,
            found.who,
            f"the plan has {steps} steps, and another number was given",
        )
    return Answer.APPROVED, found.who, found.reason


class FlowApprover:
    """Asks whoever looks at Prefect, when a step of a drill wants to know."""

    def __init__(self, wiring: Wiring, drill: str, stop: Stop, *, minutes: float) -> None:
        self._wiring = wiring
        self._drill = drill
        self._stop = stop
        self._minutes = minutes

    @property
    def name(self) -> str:
        """Whom a step turns to: whoever looks at Prefect."""
        return "Prefect"

    def ask(self, question: str, allowed: Sequence[str]) -> str:
        """Give who said yes. Raises RefusedError for a no, or when nobody answered in time."""
        found: Future[Decided] = Future()

        def work() -> None:
            try:
                found.set_result(self._asked(question, allowed))
            except BaseException as error:  # noqa: BLE001  it is raised where it is waited for
                found.set_exception(error)

        # A daemon: a drill that is stopped does not wait for an answer any more.
        context = contextvars.copy_context()
        Thread(target=context.run, args=(work,), name="asking", daemon=True).start()
        while not found.done():
            if self._stop.wait(_LOOK):
                raise RefusedError("the drill was stopped before anybody answered")
        decided = found.result()
        if decided.answer is not Answer.APPROVED:
            raise RefusedError(decided.line)
        return decided.who

    def _asked(self, question: str, allowed: Sequence[str]) -> Decided:
        return ask(
            self._wiring,
            "drill",
            f"{self._drill}: {question}",
            f"# {self._drill}\n\n{question}",
            subject={"drill": self._drill, "question": question},
            minutes=self._minutes,
            allowed=allowed,
        )
