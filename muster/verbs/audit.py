"""Audit live state against the approved baseline with everything one configuration names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from muster.invocation import Exit
from muster.verbs import Tell, untold
from muster.wiring import Wiring

if TYPE_CHECKING:
    from snapshots.audit.report_model import AuditReport, Severity
    from snapshots.audit.run import Policy, Wishes
    from snapshots.ledger import Ledger
    from snapshots.model import Snapshot
    from snapshots.take import Progress
    from snapshots.vault import Vault


def run_audit(wiring: Wiring, wishes: Wishes, *, tell: Tell = untold) -> AuditReport:
    """Run one audit with everything a configuration names."""
    from muster import __version__
    from snapshots.audit.run import audit

    ledger, vault = wiring.ledger(create=True), wiring.vault()
    if not ledger.tip():
        vault.prepare()  # later a missing vault is a mistyped name
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
        writes=wiring.records(),
        progress=_teller(tell),
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


def _teller(tell: Tell) -> Callable[[Progress], None]:
    def heard(progress: Progress) -> None:
        words = f"{progress.kind}: {progress.done} of {progress.total} listings, "
        part = progress.done / progress.total if progress.total else None
        tell(f"{words}{progress.calls} calls", part)

    return heard


def exit_code(report: AuditReport, least: Severity) -> int:
    """Give the exit code: 3 beats 2, since what was not read may be worse than what was found."""
    if report.incomplete:
        return Exit.INCOMPLETE
    if not report.baseline:
        return Exit.FINDINGS  # nothing is approved: that is not clean
    return Exit.FINDINGS if report.counting(least) else Exit.CLEAN
