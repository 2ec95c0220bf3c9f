"""The verdict, from what was recorded alone: anybody can come to it again from the evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from drills.model import CheckState, CleanUpState, Control, DrillStepState, Mode, Verdict
from snapshots.model import Json, JsonObject

SLOWER = 1.5  # times the median of earlier drills: a finding
_FEW = 2  # earlier drills that a trend needs


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and its reasons."""

    verdict: Verdict
    reasons: tuple[str, ...]


# What of a run its verdict follows from, and what people want to see of it.
RUN = (
    "verdict",
    "reasons",
    "interrupted",
    "mode",
    "gate",
    "steps",
    "checks",
    "cleanup",
    "rto_seconds",
    "rpo_seconds",
    "phases",
    "calls",
)
_RANGES = 8  # of a histogram


def judge(document: Mapping[str, Json]) -> Judgement:
    """Judge the document of an evidence (without believing the verdict that stands in it)."""
    rehearsal = document.get("rehearsal")
    if isinstance(rehearsal, dict):
        return _judge_rehearsal(document, rehearsal)
    mode = _text(document, "mode")
    failed: list[str] = []
    unproved: list[str] = []
    gate = _objects(document, "gate")
    for check in gate:
        _weigh(check, "before the drill, ", failed, unproved)
    steps = [s for step in _objects(document, "steps") for s in _with_inner(step)]
    for step in steps:
        state = _text(step, "state")
        if state == DrillStepState.FAILED:
            failed.append(f"step {_text(step, 'name')}: {_text(step, 'detail') or 'failed'}")
        elif state != DrillStepState.DONE and not left_out(step):
            unproved.append(f"step {_text(step, 'name')} was not done")
    checks = _objects(document, "checks")
    # What a dry run left undone may be just what a check misses: that is not shown, and no failure.
    undone = mode == Mode.DRY_RUN and any(_text(s, "state") != DrillStepState.DONE for s in steps)
    for check in checks:
        _weigh(check, "as it is now, " if undone else "", unproved if undone else failed, unproved)
    if not checks:
        unproved.append("no check was made: nothing shows that it works")
    clean_up = document.get("cleanup")
    state = _text(clean_up, "state") if isinstance(clean_up, dict) else ""
    if state == CleanUpState.LEFT:
        failed.append("something of the drill is left behind")
    elif state != CleanUpState.CLEAN:
        unproved.append("it is not shown that nothing is left behind")
    if mode == Mode.DRY_RUN:
        unproved.append("a dry run changes nothing, and so proves nothing about the way back")
    else:
        _weigh_objective(document, failed, unproved)
    if document.get("interrupted") is True:
        return Judgement(Verdict.INTERRUPTED, ("the drill was interrupted", *failed))
    if failed:
        return Judgement(Verdict.FAILED, tuple(failed))
    if unproved:
        return Judgement(Verdict.NOT_PROVED, tuple(unproved))
    return Judgement(Verdict.PASSED, ())


def left_out(step: Mapping[str, Json]) -> bool:
    """Whether a step was left out because there is no sandbox that it could break."""
    inputs = step.get("inputs")
    skipped = _text(step, "state") == DrillStepState.SKIPPED
    return skipped and isinstance(inputs, dict) and inputs.get("if_sandbox") is True


def judge_run(document: Mapping[str, Json], run: JsonObject) -> Judgement:
    """Judge one run of a rehearsal, by the objective of the whole."""
    return judge({**run, "mode": Mode.REHEARSAL.value, "objective": document.get("objective")})


def _judge_rehearsal(document: Mapping[str, Json], rehearsal: JsonObject) -> Judgement:
    """A rehearsal is as good as its worst run, and as whole as the runs it wanted."""
    runs = _objects(rehearsal, "runs")
    counts: dict[Verdict, int] = {}
    why: dict[Verdict, list[str]] = {}
    for run in runs:
        found = judge_run(document, run)
        counts[found.verdict] = counts.get(found.verdict, 0) + 1
        why.setdefault(found.verdict, []).extend(found.reasons)
    errors = rehearsal.get("errors")
    told = [str(error) for error in errors] if isinstance(errors, list) else []
    wanted = _number(rehearsal.get("runs_wanted"))
    reasons = [
        f"{count} of {len(runs)} runs: {verdict.value}"
        for verdict, count in sorted(counts.items())
        if verdict is not Verdict.PASSED
    ]
    for verdict in (Verdict.FAILED, Verdict.NOT_PROVED, Verdict.INTERRUPTED):
        reasons += list(dict.fromkeys(why.get(verdict, [])))[:10]
    if document.get("interrupted") is True:
        return Judgement(Verdict.INTERRUPTED, ("the rehearsal was interrupted", *reasons))
    if Verdict.FAILED in counts or Verdict.INTERRUPTED in counts:
        return Judgement(Verdict.FAILED, (*reasons, *told))
    if told or Verdict.NOT_PROVED in counts or not runs or wanted != len(runs):
        short = () if wanted == len(runs) else (f"{len(runs)} of {wanted or 0:.0f} runs were made",)
        return Judgement(Verdict.NOT_PROVED, (*reasons, *told, *short))
    return Judgement(Verdict.PASSED, ())


def distribution(runs: Sequence[Json]) -> JsonObject:
    """Count the verdicts of some runs, their recovery times and the steps that failed."""
    verdicts: dict[str, int] = {verdict.value: 0 for verdict in Verdict}
    times: list[float] = []
    failing: dict[str, int] = {}
    for run in runs:
        if not isinstance(run, dict):
            continue
        verdict = _text(run, "verdict")
        verdicts[verdict] = verdicts.get(verdict, 0) + 1
        took = _number(run.get("rto_seconds"))
        if took is not None:
            times.append(took)
        names = {
            _text(step, "name")
            for outer in _objects(run, "steps")
            for step in _with_inner(outer)
            if _text(step, "state") == DrillStepState.FAILED
        }
        for name in sorted(names):
            failing[name] = failing.get(name, 0) + 1
    shares = (("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("max", 1.0))
    counted: JsonObject = dict(verdicts)
    return {
        "verdicts": counted,
        "rto": {name: round(quantile(times, share), 3) for name, share in shares}
        if times
        else None,
        "histogram": _histogram(times),
        "failing_steps": dict(failing),
    }


def _histogram(times: Sequence[float]) -> list[Json]:
    if not times:
        return []
    low, high = min(times), max(times)
    width = (high - low) / _RANGES or 1.0
    counts = [0] * _RANGES
    for took in times:
        counts[min(int((took - low) / width), _RANGES - 1)] += 1
    return [
        {
            "from": round(low + at * width, 3),
            "to": round(low + (at + 1) * width, 3),
            "runs": count,
        }
        for at, count in enumerate(counts)
    ]


def _weigh(check: JsonObject, when: str, failed: list[str], unproved: list[str]) -> None:
    name = f"{when}check {_text(check, 'name')}"
    subject = _text(check, "subject")
    name += f" of {subject}" if subject else ""
    state, control = _text(check, "state"), _text(check, "negative_control")
    detail = _text(check, "detail")
    if state == CheckState.FAILED:
        failed.append(f"{name} failed" + (f": {detail}" if detail else ""))
        return
    if state != CheckState.PASSED:
        unproved.append(f"{name} could not run" + (f": {detail}" if detail else ""))
    if control == Control.PASSED:
        unproved.append(f"{name} passes on a broken copy, too: it proves nothing")
    elif control != Control.FAILED:
        unproved.append(f"{name} was not tried on a broken copy")


def _weigh_objective(document: Mapping[str, Json], failed: list[str], unproved: list[str]) -> None:
    promised = document.get("objective")
    if not isinstance(promised, dict):
        unproved.append("no objective is recorded")
        return
    for word in ("rto", "rpo"):
        limit, took = (
            _number(promised.get(f"{word}_seconds")),
            _number(document.get(f"{word}_seconds")),
        )
        if limit is None:
            continue
        if took is None:
            unproved.append(f"the {word.upper()} could not be measured")
        elif took > limit:
            failed.append(f"the {word.upper()} was {took:.0f} s, {limit:.0f} s are promised")


def compared(rto: float | None, earlier: Sequence[float]) -> tuple[str, ...]:
    """Say whether a drill was much slower than those before it (same script, same mode)."""
    if rto is None or len(earlier) < _FEW:
        return ()
    usual = median(earlier)
    if usual > 0 and rto > SLOWER * usual and rto - usual > 1.0:
        return (
            (
                f"regression: {rto:.1f} s, {rto / usual:.1f} times the median of the last "
                f"{len(earlier)} drills ({usual:.1f} s)"
            ),
        )
    return ()


def median(values: Sequence[float]) -> float:
    """Give the middle of some numbers. Raises ValueError without any."""
    return quantile(values, 0.5)


def quantile(values: Sequence[float], share: float) -> float:
    """Give the value below which `share` of the numbers lie, between neighbours linearly."""
    if not values:
        message = "no values"
        raise ValueError(message)
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def _with_inner(step: JsonObject) -> list[JsonObject]:
    return [step, *(i for inner in _objects(step, "steps") for i in _with_inner(inner))]


def _objects(document: Mapping[str, Json], name: str) -> list[JsonObject]:
    value = document.get(name)
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
