"""`muster audit`: live state against the approved baseline."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.commands.moments import MOMENT
from muster.invocation import Command, Exit, Invocation, described
from muster.via import AUDIT, via
from muster.wiring import Wiring
from snapshots.errors import InputError

if TYPE_CHECKING:
    from snapshots.audit.report_model import AuditReport
    from snapshots.audit.run import Wishes

FORMATS = ("text", "md", "html", "json", "sarif", "junit", "csv")
SEVERITIES = ("info", "low", "medium", "high", "critical")


@via(AUDIT)
@described(
    "muster audit",
    "muster audit --fail-on high --format json",
    "muster audit --format html --format sarif --output reports",
    "muster audit --scope rg-ai-prod --since 2h",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS, Exit.INCOMPLETE),
)
@click.command("audit", cls=Command)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="NAME",
    help="Only a subscription, group, account (or a pattern over keys); may be repeated.",
)
@click.option("--since", type=MOMENT, help="Only what changed since then: 2026-11-22, or 2h (ago).")
@click.option(
    "--fail-on",
    type=click.Choice(SEVERITIES),
    help="Exit with 2 only for findings as bad as this or worse (default: any).",
)
@click.option(
    "--format",
    "formats",
    type=click.Choice(FORMATS),
    multiple=True,
    help="How to write the report; several at once need --output.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write the reports as files into this folder.",
)
@click.option("--sweep", is_flag=True, help="Read everything, whatever the Activity Log says.")
@click.pass_obj
def command(
    invocation: Invocation,
    scopes: tuple[str, ...],
    since: datetime | None,
    fail_on: str | None,
    formats: tuple[str, ...],
    output: Path | None,
    sweep: bool,
) -> int:
    """Say what differs from the baseline: who, when, planned or not, how bad.

    After a full read, only accounts that the Activity Log says were touched are read again; a
    sweep reads everything, each [audit] sweep and whenever the log has a hole. Findings and gaps
    together exit with 3: what was not read may be worse.
    """
    from muster.report import audit_json
    from muster.report.audit_formats import ReportFormat, write, write_all
    from muster.report.audit_text import lines
    from muster.verbs.audit import exit_code
    from snapshots.audit.report_model import Severity
    from snapshots.audit.run import Wishes

    chosen = tuple(dict.fromkeys(formats or (invocation.format,)))
    if len(chosen) > 1 and output is None:
        raise InputError(
            "several formats cannot share one output",
            where="--format",
            remedy="name a folder with --output DIR",
        )
    wanted = [ReportFormat(name) for name in chosen]
    least = Severity(fail_on) if fail_on else Severity.INFO
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        report = run_audit(wiring, invocation, Wishes(scope=scopes, since=since, sweep=sweep))
    invocation.observe("audit", lambda: json.loads(audit_json.write(report)))
    if output is not None:
        for file in write_all(report, wanted, output, least=least):
            invocation.say(f"wrote {file}")
    elif chosen == ("text",):
        invocation.show(*lines(report))
    else:
        invocation.write(write(report, wanted[0], least=least))
    if output is not None or chosen != ("text",):
        for warning in report.warnings:
            invocation.warn(warning)
    return exit_code(report, least)


def run_audit(wiring: Wiring, invocation: Invocation, wishes: Wishes) -> AuditReport:
    """Run one audit, saying on stderr how far it is."""
    from muster.report.progress import ProgressLine
    from muster.verbs import audit as verb

    with ProgressLine(invocation) as line:
        return verb.run_audit(wiring, wishes, tell=line.tell)
