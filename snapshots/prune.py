"""Let old snapshots go by retention, in the ledger and the vault together."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from snapshots.errors import NotFoundError
from snapshots.ledger.entries import BASELINE, PrunePlan, Retention
from snapshots.ledger.ledger import Ledger
from snapshots.model import Snapshot
from snapshots.vault import Sweep, Vault

GRACE = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Pruned:
    """What retention keeps and lets go, in both stores; `applied` tells whether it was done."""

    plan: PrunePlan
    sweep: Sweep

    @property
    def applied(self) -> bool:
        """Whether anything was touched."""
        return self.plan.applied or self.sweep.applied


def prune(
    ledger: Ledger,
    vault: Vault,
    policy: Retention,
    *,
    keep_bundles: int = 10,
    grace: timedelta = GRACE,
    apply: bool = False,
) -> Pruned:
    """Say what would go; with `apply`, let it go. Baseline and evidence are never touched.

    The ledger goes first: a crash in between leaves payloads too many, never too few. The vault
    keeps every payload that a kept snapshot or the baseline names, also where a manifest is
    missing, and gives what it condemns a grace period.
    """
    plan = ledger.prune(policy, apply=apply)
    kept = {decision.entry.snapshot for decision in plan.kept}
    dropped = {decision.entry.snapshot for decision in plan.dropped} - kept - {""}
    manifests = set(vault.manifests())
    sweep = vault.prune(
        frozenset(_needed(ledger, plan, manifests)),
        drop_manifests=sorted(dropped & manifests),
        keep_bundles=keep_bundles,
        grace=grace,
        apply=apply,
    )
    return Pruned(plan, sweep)


def _needed(ledger: Ledger, plan: PrunePlan, manifests: set[str]) -> set[str]:
    """Give the digests that are needed and that no kept manifest may name."""
    needed: set[str] = set()
    for decision in plan.kept:
        if decision.entry.snapshot not in manifests:
            commit = plan.commits.get(decision.entry.commit, decision.entry.commit)
            needed |= _digests(ledger.load(commit))
    with suppress(NotFoundError):  # nothing was approved yet
        needed |= _digests(ledger.load(BASELINE))
    return needed


def _digests(snapshot: Snapshot) -> set[str]:
    return {
        payload.sha256
        for resources in (snapshot.resources, snapshot.stale)
        for resource in resources.values()
        for payload in resource.payloads
    }
