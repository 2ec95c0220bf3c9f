"""Plans and what came of them, for people and for machines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from muster.report import documents
from muster.report.terminal import change_lines, iso, plural, span, table, text
from snapshots.apply import counts, left_behind
from snapshots.gates import GateResult
from snapshots.model import Change, Json, JsonObject, Missing, canonical
from snapshots.steps import Plan, Record, Step, StepState

if TYPE_CHECKING:
    from rich.console import RenderableType

_SIGNS = {
    "create": ("+", "green"),
    "update": ("~", "yellow"),
    "delete": ("-", "red"),
    "copy": ("»", "cyan"),
    "rebuild": ("*", "magenta"),
    "switch": ("^", "blue"),
}
_MOST = 400  # lines of steps for people; --format json has them all


def document(
    name: str,
    plan: Plan,
    *,
    record: Record | None = None,
    remaining: Sequence[Change] = (),
    gates: Sequence[GateResult] = (),
    seconds: float | None = None,
    calls: int | None = None,
) -> JsonObject:
    """Give the document of `plan`, `restore`, `replicate`, `resume` and `undo`.

    `record` is None while nothing was done: then every step waits, and seconds and calls are what
    is expected.
    """
    steps = record.plan.steps if record is not None else plan.steps
    return {
        "schema": documents.schema(name),
        "estate": plan.estate,
        "snapshot": plan.snapshot,
        "target": plan.target,
        "applied": record is not None,
        "record": record.id if record is not None else None,
        "steps": [_step(step, record) for step in steps],
        "critical_path": list(plan.critical_path),
        "critical_path_seconds": plan.critical_path_seconds,
        "expected_seconds": plan.seconds,
        "expected_calls": plan.calls,
        "seconds": plan.seconds if seconds is None else round(seconds, 3),
        "calls": plan.calls if calls is None else calls,
        "substitutions": [
            {
                "key": str(s.key),
                "path": s.path,
                "before": s.before,
                "after": s.after,
                "why": s.why,
            }
            for s in plan.substitutions
        ],
        "ids": _ids(record),
        "not_restorable": [
            {
                "key": str(n.key),
                "recovery": n.recovery.value,
                "sentence": n.sentence,
                "source": n.source,
            }
            for n in plan.not_restorable
        ],
        "conflicts": [
            {
                "key": str(c.key),
                "path": c.path,
                "keep": c.keep.value,
                "baseline": _side(c.baseline),
                "live": _side(c.live),
                "target": _side(c.target),
            }
            for c in plan.conflicts
        ],
        "extra": [str(key) for key in plan.extra],
        "gaps": documents.gaps(set(plan.unknown)),
        "gates": [
            {
                "name": gate.name,
                "subject": gate.subject,
                "passed": gate.passed,
                "detail": gate.detail,
                "remedy": gate.remedy,
            }
            for gate in gates
        ],
        "remaining_changes": [documents.change(change) for change in remaining],
    }


def _side(value: Json | Missing) -> JsonObject:
    """A property on one side: null is a value, so what is not there is said apart."""
    if isinstance(value, Missing):
        return {"there": False, "value": None}
    return {"there": True, "value": value}


def _ids(record: Record | None) -> Json:
    return dict(sorted(record.ids.old.items())) if record is not None else {}


def _step(step: Step, record: Record | None) -> JsonObject:
    last = record.last(step.id) if record is not None else None
    return {
        "id": step.id,
        "action": step.action.value,
        "key": str(step.key),
        "source": str(step.source) if step.source is not None else None,
        "target": step.target,
        "needs": list(step.needs),
        "serial": step.serial,
        "state": (last.state if last is not None else StepState.WAITING).value,
        "seconds": round(last.seconds, 3) if last is not None else step.seconds,
        "expected_seconds": step.seconds,
        "expected_calls": step.calls,
        "undo": step.undo.value if step.undo is not None else None,
        "undo_leaves": left_behind(step) or None,
        "paths": [documents.path(path) for path in step.paths],
        "payloads": [{"sha256": p.sha256, "size": p.size} for p in step.payloads],
        "questions": [
            {"path": q.path, "what": q.what, "answer": q.answer or None} for q in step.questions
        ],
        "note": step.note,
        "id_in_target": last.id if last is not None and last.id else None,
        "at": iso(last.at) if last is not None else None,
        "error": last.error if last is not None and last.error else None,
        "remedy": last.remedy if last is not None and last.remedy else None,
    }


def plan_lines(plan: Plan) -> list[RenderableType]:
    """Write a plan for people: steps, critical path, substitutions, what cannot come back."""
    lines: list[RenderableType] = [text(f"to {plan.target}  from snapshot {plan.snapshot[:12]}")]
    if plan.is_empty:
        lines.append(text("nothing to do: the target is as the snapshot says", "bold"))
    lines += step_lines(plan)
    if plan.substitutions:
        rows = [(str(s.key), s.path, s.before, s.after, s.why) for s in plan.substitutions]
        lines.append(
            table(
                ("resource", "where", "before", "after", "why"), rows, title="different on purpose"
            )
        )
    if plan.not_restorable:
        rows3 = [(str(n.key), n.recovery.value, n.sentence) for n in plan.not_restorable]
        lines.append(table(("resource", "recovery", "why"), rows3, title="does not come back"))
    if plan.conflicts:
        rows4 = [
            (str(c.key), c.path, _shown(c.baseline), _shown(c.live), _shown(c.target), c.keep.value)
            for c in plan.conflicts
        ]
        heads = ("resource", "where", "snapshot (baseline)", "newest (live)", "target", "taken")
        lines.append(table(heads, rows4, title="changed on two sides since (--on-conflict)"))
    if plan.extra:
        what = plural(len(plan.extra), "resource")
        lines.append(
            text(f"{what} of the target not in the snapshot: left there (--prune deletes)")
        )
        lines += [text(f"  {key}") for key in plan.extra[:20]]
    for gap in plan.unknown:
        lines.append(text(f"UNKNOWN {gap.key}: {gap.detail}; nothing is done there", "bold red"))
    silent = [step for step in plan.steps if any(not q.answer for q in step.questions)]
    if silent:
        what = plural(len(silent), "step")
        lines.append(
            text(
                f"NO SECRET for {what}: blocked, with what needs them, until [restore.secrets] "
                "names one (then `muster resume`)",
                "bold red",
            )
        )
    if not plan.is_empty:
        lines.append(
            text(
                f"{plural(len(plan.steps), 'step')}, critical path "
                f"{span(plan.critical_path_seconds)} (marked *), about {span(plan.seconds)} and "
                f"{plural(plan.calls, 'call')} in all",
                "bold",
            )
        )
    return lines


def _shown(value: Json | Missing) -> str:
    if isinstance(value, Missing):
        return "-"
    return canonical(value).decode()[:60]


def step_lines(plan: Plan) -> list[RenderableType]:
    """Write the steps of a plan, one after the other, those of the critical path marked."""
    lines: list[RenderableType] = []
    critical = set(plan.critical_path)
    for step in plan.steps[:_MOST]:
        sign, style = _SIGNS[step.action.value]
        marks = " *" if step.id in critical else ""
        needs = f"  after {', '.join(step.needs[:6])}" if step.needs else ""
        more = "…" if len(step.needs) > 6 else ""
        head = f"{sign} {step.id:>5} {step.action.value:<6} {step.key}"
        lines.append(text(f"{head}  {span(step.seconds)}{needs}{more}{marks}", style))
        if step.note:
            lines.append(text(f"          {step.note}"))
        for path in step.paths[:12]:
            where = path.path or "/"
            lines.append(text(f"          {where}"))
        lines += [
            text(
                f"          needs {q.what}: " + (q.answer or "NO ANSWER ([restore.secrets])"),
                "" if q.answer else "bold red",
            )
            for q in step.questions
        ]
    if len(plan.steps) > _MOST:
        lines.append(text(f"… and {len(plan.steps) - _MOST} more (--format json has them all)"))
    return lines


def gate_lines(gates: Iterable[GateResult]) -> list[RenderableType]:
    """Write the gates that did not open."""
    lines: list[RenderableType] = []
    for gate in gates:
        if not gate.passed:
            lines.append(text(f"STOPPED by {gate.name}: {gate.subject}: {gate.detail}", "bold red"))
            if gate.remedy:
                lines.append(text(f"    next: {gate.remedy}"))
    return lines


def outcome_lines(
    record: Record, remaining: Sequence[Change], *, stopped: bool, seconds: float, calls: int
) -> list[RenderableType]:
    """Write what came of a plan: what is done, what is not, and how to go on."""
    tally = counts(record)
    told = ", ".join(f"{number} {state.value}" for state, number in tally.items())
    lines: list[RenderableType] = [
        text(f"record {record.id}: {told or 'no steps'}; {span(seconds)}, {plural(calls, 'call')}")
    ]
    failed = False
    for step in record.plan.steps:
        last = record.last(step.id)
        if last is not None and last.state in {StepState.FAILED, StepState.BLOCKED}:
            failed = True
            lines.append(text(f"{last.state.value} {step.id} {step.key}: {last.error}", "bold red"))
            if last.remedy:
                lines.append(text(f"    next: {last.remedy}"))
    if remaining:
        lines.append(text(f"{plural(len(remaining), 'change')} left:", "bold red"))
        for change in remaining:
            lines.extend(change_lines(change))
    if stopped:
        lines.append(text(f"STOPPED: go on with `muster resume {record.id}`", "bold red"))
    elif failed or remaining:
        lines.append(
            text(f"go on with `muster resume {record.id}`, or back with `muster undo {record.id}`")
        )
    else:
        lines.append(text("no change left: the target is as the snapshot says", "bold green"))
    return lines
