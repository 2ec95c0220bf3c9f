"""Say what differs from the baseline: who, when, planned or not, how bad."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from orjson import loads
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.telling import Event, Outcome, Teller, concluded
from flows.turns import one_writer, passing
from flows.wired import wired
from flows.words import severity_of
from muster.report.audit_formats import ReportFormat, write, write_all
from muster.verbs.audit import exit_code, run_audit
from snapshots.audit.report_model import AuditReport, Severity
from snapshots.audit.run import Wishes
from snapshots.model import JsonObject


class FailOn(StrEnum):
    """How bad a finding must be to fail the run."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


@flow(name="audit-changes", timeout_seconds=6 * 3600)
def audit_changes(
    config: str = "",
    scope: list[str] | None = None,
    since: datetime | None = None,
    fail_on: FailOn = FailOn.INFO,
    sweep: bool = False,
    formats: list[ReportFormat] | None = None,
    output: str = "",
) -> State[JsonObject]:
    """Say what differs from the baseline: who, when, planned or not, how bad.

    Findings end the run as Findings, what could not be read as Incomplete.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        scope: Only these subscriptions, groups, accounts or patterns over keys (empty: all).
        since: Only what changed since then.
        fail_on: Only findings as bad as this, or worse, fail the run.
        sweep: Read everything, whatever the Activity Log says.
        formats: How the reports in `output` are written (empty: as HTML).
        output: A folder on the worker that the reports are written to (empty: none).
    """
    wishes = Wishes(scope=tuple(scope or ()), since=since, sweep=sweep)
    files = Files(output, tuple(formats or (ReportFormat.HTML,)))
    return concluded(
        "audit", lambda: audit_and_keep(config, wishes, Severity(fail_on.value), files)
    )


@dataclass(frozen=True, slots=True)
class Files:
    """Which reports are written besides, and where: "" for none."""

    folder: str
    formats: tuple[ReportFormat, ...]


@task(
    name="audit",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def audit_and_keep(config: str, wishes: Wishes, least: Severity, files: Files) -> Outcome:
    """Audit once. Idempotent: it reads, and keeps what it read."""
    with wired(config) as wiring, one_writer(wiring), Teller("audit") as tell:
        report = run_audit(wiring, wishes, tell=tell)
        if files.folder:
            folder = Path(files.folder).expanduser()
            for file in write_all(report, files.formats, folder, least=least):
                tell.say(f"wrote {file}")
        return _outcome(report, least)


def _outcome(report: AuditReport, least: Severity) -> Outcome:
    counting, code = report.counting(least), exit_code(report, least)
    events = [] if report.findings or report.gaps else [Event("muster.audit.clean")]
    for class_ in dict.fromkeys(finding.class_ for finding in report.counting()):
        found = [f for f in report.counting() if f.class_ is class_]
        worst = max((f.severity for f in found), key=lambda severity: severity.rank)
        facts = {"findings": len(found), "first": str(found[0].key), "id": found[0].id}
        events.append(Event("muster.drift.found", severity_of(worst.value), class_.value, facts))
    if report.incomplete:
        events.append(Event("muster.audit.incomplete", "high", payload={"gaps": len(report.gaps)}))
    words = f"{len(report.findings)} findings ({len(counting)} fail the run), "
    words += f"{len(report.gaps)} gaps"
    if not report.baseline:
        words = f"nothing is approved yet; {words}"
    return Outcome(
        "audit",
        report.estate,
        code,
        words,
        loads(write(report, ReportFormat.JSON, least=least)),
        write(report, ReportFormat.MARKDOWN, least=least).decode(),
        rows=[
            {
                "severity": f.severity.value,
                "class": f.class_.value,
                "change": f.change.value,
                "what": str(f.key),
                "who": f.attribution.who,
                "id": f.id,
            }
            for f in report.findings
        ],
        events=events,
    )
