"""What all checks share: how an answer becomes an outcome, and when it is not one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from drills.checks.settings import Settings
from drills.model import (
    Check,
    CheckContext,
    CheckDeclaration,
    CheckOutcome,
    CheckState,
    Control,
)
from snapshots.cloud import scrub
from snapshots.errors import CloudError, ConflictError, MissingError, MusterError
from snapshots.model import Json

_LONGEST = 300  # characters of a text in an outcome: evidence is for reading


@dataclass(frozen=True, slots=True)
class Judged:
    """What a judge says of an expected and an observed side."""

    state: CheckState
    expected: Json
    observed: Json
    detail: str = ""

    @property
    def passed(self) -> bool:
        """Whether it passed."""
        return self.state is CheckState.PASSED


def verdict(ok: bool, expected: Json, observed: Json, detail: str = "") -> Judged:
    """Give a passed or failed judgement; `detail` is kept for a failed one."""
    state = CheckState.PASSED if ok else CheckState.FAILED
    return Judged(state, expected, observed, "" if ok else detail)


def not_run(why: str, expected: Json = None) -> Judged:
    """Give the judgement of a check that could not run."""
    return Judged(CheckState.NOT_RUN, expected, None, why)


def both_fail(first: Judged, second: Judged) -> Judged:
    """Give what two broken copies came to: failed only when each of them was found out."""
    for judged in (first, second):
        if judged.state is not CheckState.FAILED:
            return judged
    return replace(first, detail=f"{first.detail}; {second.detail}")


def tidy(value: Json) -> Json:
    """Give a value without secrets, its texts cut to what people read."""
    match value:
        case str():
            clean = scrub(value)
            return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 1] + "…"
        case list():
            return [tidy(item) for item in value]
        case dict():
            return {scrub(name): tidy(item) for name, item in value.items()}
        case float():
            return round(value, 6)
        case _:
            return value


def of_error(error: MusterError, *, broken: bool) -> Judged:
    """Give what an error says about the question.

    What is not there, is paused or refuses the question as put is an answer: failed. An endpoint
    that is silent, denies, throttles or is down is none: not run. On a broken copy nothing but the
    judge may fail, so an error never counts there.
    """
    told = error.what + (f" ({error.where})" if error.where else "")
    answer = isinstance(error, MissingError | ConflictError)
    if isinstance(error, CloudError) and error.status == 400:
        answer = True
    if answer and not broken:
        return Judged(CheckState.FAILED, None, None, told)
    return not_run(told)


class AskedCheck(ABC):
    """A check as the library makes it: `ask` answers for the target, or for a broken copy of it.

    The clean and the broken question go through the same code to the same judge; only one side is
    replaced. `settings` of the declaration are read once, in `__init__`.
    """

    KNOWN_AS = ""  # the name in scripts
    ABOUT = ""  # one sentence for `muster drill list` and docs/checks.md

    def __init__(self, declaration: CheckDeclaration) -> None:
        self.declaration = declaration
        settings = Settings(declaration)
        self.read(settings)
        settings.done()

    @property
    def name(self) -> str:
        """What the library calls it."""
        return self.KNOWN_AS

    @abstractmethod
    def read(self, settings: Settings) -> None:
        """Read the settings. Raises InputError."""

    @abstractmethod
    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Ask the target, or a broken copy. A MusterError that leaves is judged by `of_error`."""

    def run(self, context: CheckContext) -> CheckOutcome:
        """Ask."""
        return self._outcome(context, broken=False)

    def control(self, context: CheckContext) -> CheckOutcome:
        """Ask the same of a broken copy."""
        return self._outcome(context, broken=True)

    def _outcome(self, context: CheckContext, *, broken: bool) -> CheckOutcome:
        begun = context.clock.now()
        try:
            judged = self.ask(context, broken=broken)
        except MusterError as error:
            judged = of_error(error, broken=broken)
        return CheckOutcome(
            name=self.declaration.title,
            subject=self.declaration.subject,
            state=judged.state,
            expected=tidy(judged.expected),
            observed=tidy(judged.observed),
            detail=str(tidy(judged.detail)),
            seconds=max(0.0, (context.clock.now() - begun).total_seconds()),
        )


def prove(check: Check, context: CheckContext) -> CheckOutcome:
    """Run a check and its negative control, and give the outcome with what the control came to.

    `negative_control` is FAILED as it must be, PASSED when the control did not fail (the check
    proves nothing), NOT_RUN when it could not run. A check that could not run needs no control.
    """
    outcome = check.run(context)
    if outcome.state is CheckState.NOT_RUN:
        return outcome
    try:
        broken = check.control(context)
    except MusterError as error:
        return replace(outcome, control_detail=str(tidy(error.what)))
    control = {
        CheckState.FAILED: Control.FAILED,
        CheckState.PASSED: Control.PASSED,
        CheckState.NOT_RUN: Control.NOT_RUN,
    }[broken.state]
    detail = broken.detail
    if control is Control.PASSED:
        detail = f"did not fail on a broken copy: {broken.detail or 'it saw nothing wrong'}"
    return replace(
        outcome,
        negative_control=control,
        control_detail=detail,
        seconds=outcome.seconds + broken.seconds,
    )
