"""The index of everything that proves something."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from muster.report import audit_words as words
from muster.report.site_model import (
    Applied,
    Drift,
    Drills,
    EvidenceRow,
    EvidenceView,
    Level,
    Part,
    RunRow,
    before,
    see,
    when,
    worst,
)
from muster.report.site_reading import Reading, json_files, text_of, time_of
from snapshots.apply import to_undo
from snapshots.clock import Clock
from snapshots.errors import MusterError
from snapshots.ledger import EVIDENCE
from snapshots.records import Records
from snapshots.steps import StepState

RECORDS = 50  # that are read
INDEX = 2_000  # rows of the index of evidence


def evidence_of(
    reading: Reading,
    runs: Sequence[RunRow],
    drills: Drills,
    drift: Drift,
    records: Sequence[Applied],
) -> EvidenceView:
    """List all that proves something, newest first; `records` are ids of what was applied."""
    rows: list[EvidenceRow] = [
        EvidenceRow(
            run.at,
            "drill",
            run.id,
            run.level,
            run.verdict if not run.problems else f"{run.verdict}, DOES NOT HOLD",
            run.page,
            run.hash,
            f"muster drill check {run.id}",
            run.signature,
        )
        for run in runs
    ]
    level = Level.BAD if any(run.problems for run in runs) else Level.GOOD
    verified: list[tuple[datetime, str]] = []
    for path, document in json_files(reading, EVIDENCE, "verifications/"):
        at, verdict = time_of(document.get("at")), text_of(document, "verdict")
        if at is not None:
            verified.append((at, verdict))
        rows.append(
            EvidenceRow(
                at,
                "verification",
                path.rsplit("/", 1)[-1].removesuffix(".json"),
                Level.GOOD if verdict == "whole" else Level.BAD,
                verdict,
                "",
                "",
                f"git --git-dir=LEDGER show evidence:{path}",
            )
        )
    level = worst([level, _verified(reading, verified)])
    signed = sum(run.signature.level is Level.GOOD for run in runs)
    if runs and not signed:  # whole, and anybody who can write here could have made it so
        level = worst([level, Level.NOTE])
    rows += [
        EvidenceRow(
            audit.at,
            "audit",
            audit.id,
            Level.NOTE,
            f"{words.plural(audit.findings, 'finding')}, {words.plural(audit.gaps, 'gap')}",
            "drift.html",
            audit.commit,
            f"git --git-dir=LEDGER show {audit.commit[:12]}:audits/latest.json",
        )
        for audit in drift.audits
    ]
    rows += [
        EvidenceRow(
            decision.at,
            "decision",
            decision.what,
            Level.NOTE,
            f"by {decision.by}",
            "drift.html#decisions",
            decision.commit,
            f"git --git-dir=LEDGER show {decision.commit[:12]}",
        )
        for decision in drift.decisions
    ]
    for record in records:
        state = f"to {record.target}: {record.done:,} of {words.plural(record.steps, 'step')} done"
        if record.taken_back:
            state = f"to {record.target}: taken back"
        elif not record.finished:
            state += ", not finished"
            reading.problem(
                Level.RISK,
                f"What was begun {before(record.at, reading.now)} was not finished: {state}",
                "evidence.html",
                f"`muster resume {record.id}`, or `muster undo {record.id}`",
                5,
            )
        rows.append(
            EvidenceRow(
                record.at,
                "record",
                see(record.id, 120),
                Level.NOTE if record.finished or record.taken_back else Level.RISK,
                see(state, 200),
                "",
                "",
                "",
            )
        )
    rows.sort(key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.kind, r.id), reverse=True)
    if reading.troubles:
        level = worst([level, Level.UNKNOWN])
    headline = (
        f"{words.plural(len(runs), 'run')} of drills in one chain, "
        f"{signed or 'none'} with a signature that was verified; "
        if runs
        else "No drill was run; "
    ) + words.plural(len(verified), "verification")
    if any(run.problems for run in runs):
        headline = "Some evidence does not hold"
    elif reading.troubles:
        headline += f"; {words.plural(len(reading.troubles), 'thing')} could not be read"
    return EvidenceView(
        Part(level, headline, drills.part.sources),
        tuple(rows[:INDEX]),
        max(0, len(rows) - INDEX),
        tuple(sorted(reading.sources.values(), key=lambda s: s.anchor)),
        tuple(reading.troubles),
    )


def _verified(reading: Reading, found: list[tuple[datetime, str]]) -> Level:
    remedy = "run `muster verify`"
    if not found:
        reading.problem(
            Level.UNKNOWN,
            "Whether what was kept is whole is not known: it was never verified",
            "evidence.html",
            remedy,
            4,
        )
        return Level.UNKNOWN
    at, verdict = max(found)
    if verdict != "whole":
        reading.problem(
            Level.BAD,
            f"The last verification found what was kept {verdict or 'damaged'} ({when(at)})",
            "evidence.html",
            f"{remedy} and follow what it says",
            8,
        )
        return Level.BAD
    return Level.GOOD


def applied_in(folder: Path, clock: Clock) -> tuple[list[Applied], list[str]]:
    """Give the newest records beside the ledger, newest first, and what could not be read."""
    found: list[Applied] = []
    troubles: list[str] = []
    kept = Records(folder, clock=clock)
    for id_ in reversed(kept.all()[-RECORDS:]):
        try:
            record = kept.read(id_)
        except MusterError as error:
            troubles.append(f"record {id_}: {error.what}")
            continue
        states = [record.state(step.id) for step in record.plan.steps]
        found.append(
            Applied(
                record.id,
                record.plan.target,
                record.started_at,
                record.finished_at is not None,
                len(states),
                sum(state in (StepState.DONE, StepState.ADOPTED) for state in states),
                taken_back=StepState.UNDONE in states and not to_undo(record),
            )
        )
    return found, troubles
