"""`muster snapshot`: take the estate's state and keep it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring
from snapshots.errors import MusterError

if TYPE_CHECKING:
    from snapshots.cloud import BucketView, Cloud
    from snapshots.ledger import Kept, Ledger
    from snapshots.model import Snapshot
    from snapshots.take import Progress
    from snapshots.vault import Vault


_MENDED = 20  # snapshots that are looked at for a missing manifest


@described(
    "muster snapshot",
    "muster snapshot --format json --quiet",
    "muster snapshot --no-content        configuration only, no bytes of files",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.INCOMPLETE),
)
@click.command("snapshot", cls=Command)
@click.option(
    "--content/--no-content", default=None, help="The bytes of files, or only their names."
)
@click.option(
    "--reference/--no-reference", default=None, help="Also catalogue, quota and capacity."
)
@click.pass_obj
def command(invocation: Invocation, content: bool | None, reference: bool | None) -> int:
    """Take the estate's state and keep it.

    One commit in the ledger, payloads in the vault, each byte once. What could not be read is a
    gap: it is named, the rest is kept, and the exit code is 3.
    """
    from muster.report import snapshot as report

    with Wiring(invocation.settings(), invocation.environment) as wiring:
        kept = keep_snapshot(wiring, invocation, content=content, reference=reference)
    for warning in kept.warnings:
        invocation.warn(warning)
    if invocation.json:
        invocation.emit(report.document(kept.snapshot, kept.kept, kept.bundle, kept.warnings))
    else:
        invocation.show(*report.lines(kept.snapshot, kept.kept))
    return Exit.INCOMPLETE if kept.snapshot.gaps else Exit.CLEAN


@dataclass(frozen=True, slots=True)
class Taken:
    """A snapshot that is kept, and what is worth telling about it."""

    snapshot: Snapshot
    kept: Kept
    bundle: str
    warnings: tuple[str, ...]


def keep_snapshot(
    wiring: Wiring,
    invocation: Invocation,
    *,
    content: bool | None = None,
    reference: bool | None = None,
) -> Taken:
    """Take and keep one snapshot: ledger first, then manifest and bundle into the vault."""
    from muster import __version__
    from muster.report.progress import ProgressLine
    from snapshots.take import take

    ledger, vault = wiring.ledger(create=True), wiring.vault()
    first = not ledger.tip()
    if first:  # later a missing vault is a mistyped name, and must not become a second one
        vault.prepare()
    fingerprints = wiring.fingerprints()
    previous = None if first else ledger.load()
    _mend_manifests(ledger, vault)
    options = wiring.take_options()
    options = replace(
        options,
        payloads=options.payloads if content is None else content,
        reference=options.reference if reference is None else reference,
    )
    cloud = wiring.cloud()
    with ProgressLine(invocation) as line:
        snapshot = take(
            wiring.settings.estate.name,
            wiring.scopes(),
            cloud,
            fingerprints=fingerprints,
            clock=wiring.clock,
            version=__version__,
            previous=previous,
            payloads=vault,
            progress=_teller(line.tell, cloud.budget.view),
            options=options,
        )
        line.tell(f"keeping {len(snapshot.resources)} resources")
        kept = ledger.commit(snapshot, trailers=_read_at(cloud, snapshot))
        warnings = [kept.pushed.warning] if kept.pushed is not None and not kept.pushed else []
        _keep_manifest(ledger, vault, snapshot, kept)
        bundle = _keep_bundle(ledger, vault, kept)
    return Taken(replace(snapshot, id=kept.commit), kept, bundle, tuple(warnings))


def _read_at(cloud: Cloud, snapshot: Snapshot) -> dict[str, str]:
    """Say when reading began by Azure's clock: audits hold Azure's records against it."""
    now = cloud.server_time()
    return {"Read-At": (now - timedelta(seconds=snapshot.seconds)).isoformat()} if now else {}


def _teller(
    tell: Callable[[str], None], budget: Callable[[], tuple[BucketView, ...]]
) -> Callable[[Progress], None]:
    def heard(progress: Progress) -> None:
        words = f"{progress.kind}: {progress.done} of {progress.total} listings, "
        words += f"{progress.calls} calls"
        tightest = min(budget(), key=lambda v: v.remaining / max(v.capacity, 1), default=None)
        if tightest is not None:
            words += f", budget {tightest.remaining} of {tightest.capacity}"
        tell(words)

    return heard


def _keep_manifest(ledger: Ledger, vault: Vault, snapshot: Snapshot, kept: Kept) -> None:
    """Name every payload the kept tree needs, those of stale documents too."""
    from snapshots.vault import Manifest

    whole = ledger.load(kept.commit) if kept.stale else snapshot
    resources = {**whole.stale, **whole.resources}
    vault.keep_manifest(Manifest.of(replace(whole, id=kept.snapshot, resources=resources)))


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


def _keep_bundle(ledger: Ledger, vault: Vault, kept: Kept) -> str:
    name = f"{kept.snapshot}-{kept.commit[:12]}.bundle"
    with tempfile.TemporaryDirectory(prefix="muster-bundle-") as folder:
        file = Path(folder) / name
        ledger.bundle(file)
        try:
            vault.keep_bundle(file, name)
        except MusterError as error:
            raise type(error)(
                f"the snapshot is kept, but its bundle is not in the vault: {error.what}",
                where=error.where,
                remedy="run `muster snapshot` again once the vault answers",
            ) from error
    return name
