"""Take the estate's state and keep it: ledger first, then manifest and bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from muster.verbs import Tell, untold
from muster.wiring import Wiring
from snapshots.bundles import keep_bundle

if TYPE_CHECKING:
    from snapshots.cloud import BucketView, Cloud
    from snapshots.ledger import Kept, Ledger
    from snapshots.model import Snapshot
    from snapshots.take import Progress, TakeOptions
    from snapshots.vault import Vault

_MENDED = 20  # snapshots that are looked at for a missing manifest


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is kept, and what is worth telling about it."""

    snapshot: Snapshot
    kept: Kept
    bundle: str
    warnings: tuple[str, ...]


def keep_snapshot(
    wiring: Wiring,
    *,
    tell: Tell = untold,
    content: bool | None = None,
    reference: bool | None = None,
) -> Taken:
    """Take and keep one snapshot: ledger first, then manifest and bundle into the vault.

    Raises DeniedError or UnreachableError when nobody could be signed in.
    """
    from muster import __version__
    from snapshots.take import refuse_nothing, take

    ledger, vault, previous = open_stores(wiring)
    fingerprints = wiring.fingerprints()
    options = chosen_options(wiring, content=content, reference=reference)
    cloud = wiring.cloud()
    snapshot = take(
        wiring.settings.estate.name,
        wiring.scopes(),
        cloud,
        fingerprints=fingerprints,
        clock=wiring.clock,
        version=__version__,
        previous=previous,
        payloads=vault,
        progress=progress_teller(tell, cloud.budget.view),
        options=options,
        confirm=True,
    )
    refuse_nothing(snapshot)
    tell(f"keeping {len(snapshot.resources)} resources", None)
    return keep(ledger, vault, snapshot, begun=read_at(cloud, snapshot))


def open_stores(wiring: Wiring) -> tuple[Ledger, Vault, Snapshot | None]:
    """Give ledger and vault ready for a snapshot, and the snapshot before, when there is one.

    A ledger that is lost is made again from the vault (`Wiring.ledger`): a new one would part from
    its history.
    """
    vault = wiring.vault()
    ledger = wiring.ledger(create=True)
    first = not ledger.tip()
    if first:  # later a missing vault is a mistyped name, and must not become a second one
        vault.prepare()
    previous = None if first else ledger.load()
    _mend_manifests(ledger, vault)
    return ledger, vault, previous


def chosen_options(wiring: Wiring, *, content: bool | None, reference: bool | None) -> TakeOptions:
    """Give the options of the configuration; None leaves one as it is there."""
    options = wiring.take_options()
    return replace(
        options,
        payloads=options.payloads if content is None else content,
        reference=options.reference if reference is None else reference,
    )


def keep(
    ledger: Ledger, vault: Vault, snapshot: Snapshot, *, begun: datetime | None, run: str = ""
) -> Taken:
    """Keep a snapshot: ledger first, then manifest and bundle into the vault.

    `begun` is when its reading began by Azure's clock. One with the name of a `run` is committed
    once, however often this is repeated.
    """
    trailers = {"Read-At": begun.isoformat()} if begun else {}
    kept = ledger.commit(snapshot, trailers=trailers, run=run)
    warnings = [kept.pushed.warning] if kept.pushed is not None and not kept.pushed else []
    if not (run and kept.snapshot in vault.manifests()):
        _keep_manifest(ledger, vault, snapshot, kept, whole=bool(run))
    stem = f"{kept.snapshot}-{kept.commit[:12]}."
    there = [name for name in vault.bundles() if name.startswith(stem)] if run else []
    bundle = there[0] if there else keep_bundle(ledger, vault, kept)
    return Taken(replace(snapshot, id=kept.commit), kept, bundle, tuple(warnings))


def read_at(cloud: Cloud, snapshot: Snapshot) -> datetime | None:
    """Say when reading began by Azure's clock: audits hold Azure's records against it."""
    now = cloud.server_time()
    return now - timedelta(seconds=snapshot.seconds) if now else None


def progress_teller(
    tell: Tell, budget: Callable[[], tuple[BucketView, ...]]
) -> Callable[[Progress], None]:
    """Put the progress of a reading, and the tightest budget, into words."""

    def heard(progress: Progress) -> None:
        words = f"{progress.kind}: {progress.done} of {progress.total} listings, "
        words += f"{progress.calls} calls"
        tightest = min(budget(), key=lambda v: v.remaining / max(v.capacity, 1), default=None)
        if tightest is not None:
            words += f", budget {tightest.remaining} of {tightest.capacity}"
        tell(words, progress.done / progress.total if progress.total else None)

    return heard


def _keep_manifest(
    ledger: Ledger, vault: Vault, snapshot: Snapshot, kept: Kept, *, whole: bool
) -> None:
    """Name every payload the kept tree needs, those of stale documents too."""
    from snapshots.vault import Manifest

    found = ledger.load(kept.commit) if kept.stale or whole else snapshot
    resources = {**found.stale, **found.resources}
    vault.keep_manifest(Manifest.of(replace(found, id=kept.snapshot, resources=resources)))


def _mend_manifests(ledger: Ledger, vault: Vault) -> None:
    """Write the manifests that are missing because a crash came between commit and manifest.

    Before anything new is kept, so that crashes in a row leave none without; of the newest
    snapshots only, because two at once may each have left one.
    """
    from snapshots.vault import Manifest

    if not ledger.tip():
        return
    there = frozenset(vault.manifests())
    for entry in list(ledger.log(_MENDED)):
        if entry.snapshot and entry.snapshot not in there:
            found = ledger.load(entry.commit)
            resources = {**found.stale, **found.resources}
            found = replace(found, id=entry.snapshot, resources=resources)
            vault.keep_manifest(Manifest.of(found))
