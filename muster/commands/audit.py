"""`muster audit`: live state against the approved baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.commands.moments import MOMENT
from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring
from snapshots.errors import InputError

if TYPE_CHECKING:
    from snapshots.audit.report_model import AuditReport, Severity
    from snapshots.audit.run import Policy, Wishes
    from snapshots.ledger import Ledger
    from snapshots.model import Snapshot
    from snapshots.take import Progress
    from snapshots.vault import Vault

FORMATS = ("text", "md", "html", "json", "sarif", "junit", "csv")
SEVERITIES = ("info", "low", "medium", "high", "critical")


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
    from muster.report.audit_formats import ReportFormat, write, write_all
    from muster.report.audit_text import lines
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
    with Wiring(invocation.settings(), invocation.environment) as wiring:
        report = run_audit(wiring, invocation, Wishes(scope=scopes, since=since, sweep=sweep))
    if output is not None:
        for file in write_all(report, wanted, output, least=least):
            invocation.say(f"wrote {file}")
    elif chosen == ("text",):
        invocation.show(*lines(report))
    else:
        click.echo(write(report, wanted[0], least=least), nl=False)
    if output is not None or chosen != ("text",):
        for warning in report.warnings:
            invocation.warn(warning)
    return exit_code(report, least)


def exit_code(report: AuditReport, least: Severity) -> int:
    """Give the exit code: 3 beats 2, since what was not read may be worse than what was found."""
    if report.incomplete:
        return Exit.INCOMPLETE
    if not report.baseline:
        return Exit.FINDINGS  # nothing is approved: that is not clean
    return Exit.FINDINGS if report.counting(least) else Exit.CLEAN


def run_audit(wiring: Wiring, invocation: Invocation, wishes: Wishes) -> AuditReport:
    """Run one audit with everything a configuration names."""
    from muster import __version__
    from muster.report.progress import ProgressLine
    from snapshots.audit.run import audit

    ledger, vault = wiring.ledger(create=True), wiring.vault()
    if not ledger.tip():
        vault.prepare()  # later a missing vault is a mistyped name
    with ProgressLine(invocation) as line:
        return audit(
            wiring.settings.estate.name,
            wiring.scopes(),
            wiring.cloud(),
            ledger,
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            version=__version__,
            policy=policy_of(wiring),
            wishes=wishes,
            payloads=vault,
            options=wiring.take_options(),
            keeper=keeper_of(ledger, vault),
            progress=_teller(line.tell),
        )


def policy_of(wiring: Wiring) -> Policy:
    """Give [audit] of muster.toml as the audit understands it."""
    from snapshots.audit.run import Policy

    chosen = wiring.settings.audit
    return Policy(
        rules=chosen.rules,
        folder=wiring.settings.file.parent,
        trusted=chosen.trusted,
        interval=chosen.sweep,
    )


def keeper_of(ledger: Ledger, vault: Vault) -> Callable[[Snapshot, Mapping[str, str]], str]:
    """Keep live state in the ledger, and name its payloads in the vault."""
    from snapshots.vault import Manifest

    def keep(snapshot: Snapshot, trailers: Mapping[str, str]) -> str:
        kept = ledger.commit(snapshot, trailers=trailers)
        whole = ledger.load(kept.commit) if kept.stale else snapshot
        resources = {**whole.stale, **whole.resources}
        vault.keep_manifest(Manifest.of(replace(whole, id=kept.snapshot, resources=resources)))
        return kept.commit

    return keep


def _teller(tell: Callable[[str], None]) -> Callable[[Progress], None]:
    def heard(progress: Progress) -> None:
        tell(
            f"{progress.kind}: {progress.done} of {progress.total} listings, {progress.calls} calls"
        )

    return heard
