"""Prove that what was kept is whole: every byte of the ledger, payloads, and a reconstruction."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from snapshots.errors import InputError, MusterError, NotFoundError
from snapshots.ledger.bundled import forget
from snapshots.ledger.ledger import Ledger
from snapshots.model import Snapshot, canonical
from snapshots.vault import Manifest, Vault, bundle_chain

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, order=True)
class Damage:
    """One thing that is not what it should be, and the snapshots it hurts."""

    store: str  # "ledger", "vault" or "reconstruction"
    path: str
    problem: str
    detail: str  # one line for people
    snapshots: tuple[str, ...] = ()  # Snapshot-Ids
    keys: tuple[str, ...] = ()  # the resources that hold it, where known


@dataclass(frozen=True, slots=True)
class Verification:
    """What was looked at and what was found. Whole when there is no damage."""

    damages: tuple[Damage, ...]
    sample: float  # the part of the payloads that was re-hashed, 0 to 1
    seed: int
    objects: int  # objects of the vault that were read and re-hashed
    snapshots: int  # snapshots in the ledger
    reconstructed: str  # the Snapshot-Id that was rebuilt from the vault alone; "" when none was
    bundle: str  # the bundle it was rebuilt from
    resources: int  # how many resources of it were compared
    behind: int  # snapshots of the ledger that are newer than the bundle
    at: datetime

    @property
    def whole(self) -> bool:
        """Whether nothing is damaged and the reconstruction was done."""
        return not self.damages


def verify(
    ledger: Ledger,
    vault: Vault,
    *,
    now: datetime,
    sample: float = 1.0,
    seed: int = 0,
    progress: Progress = lambda _what, _done, _of: None,
) -> Verification:
    """Re-hash payloads, check every document, rebuild a snapshot from the vault and compare.

    A check that could not run is damage, not silence. Raises only for a bad `sample`, and when a
    store is out of reach altogether.
    """
    if not 0.0 <= sample <= 1.0:
        raise InputError(f"a sample is a part from 0 to 1, not {sample}", remedy="say 0% to 100%")
    damages: list[Damage] = []
    progress("ledger", 0, 1)
    damages += _ledger(ledger)
    progress("ledger", 1, 1)
    counted = 0

    def heard(done: int, of: int) -> None:
        nonlocal counted
        counted = done
        progress("vault", done, of)

    bundles = vault.bundles()
    damages += [
        Damage(
            "vault",
            d.path,
            d.problem.value,
            d.detail,
            d.snapshots or _bundled(d.path, bundles),
            d.keys,
        )
        for d in vault.check(sample, seed, heard)
    ]
    if any(damage.path in {f"ledger/{name}" for name in bundles} for damage in damages):
        forget(ledger.path)  # nothing more is put upon a bundle that cannot be read
    progress("reconstruction", 0, 1)
    rebuilt = _rebuild(ledger, vault)
    progress("reconstruction", 1, 1)
    return Verification(
        damages=tuple(sorted(damages + rebuilt.damages)),
        sample=sample,
        seed=seed,
        objects=counted,
        snapshots=rebuilt.snapshots,
        reconstructed=rebuilt.snapshot,
        bundle=rebuilt.bundle,
        resources=rebuilt.resources,
        behind=rebuilt.behind,
        at=now.astimezone(UTC),
    )


def _bundled(path: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """Give the snapshots that a bundle is needed for, should the ledger itself be lost."""
    folder, _, damaged = path.removeprefix("sums/").rpartition("/")
    if folder != "ledger":
        return ()
    every = {*names, damaged}  # it may be missing
    hurt = [name for name in every if damaged in bundle_chain(name, every)]
    # <time>-<random>-<commit>.bundle
    return tuple(sorted({"-".join(name.split("-")[:2]) for name in hurt}))


def _ledger(ledger: Ledger) -> Iterator[Damage]:
    for found in ledger.check():
        hurt = tuple(sorted(set(found.snapshots))) or tuple(c[:12] for c in found.commits)
        yield Damage("ledger", found.path or found.object, "damaged", found.what, hurt)


@dataclass(slots=True)
class _Rebuilt:
    damages: list[Damage]
    snapshots: int = 0
    snapshot: str = ""
    bundle: str = ""
    resources: int = 0
    behind: int = 0


def _rebuild(ledger: Ledger, vault: Vault) -> _Rebuilt:
    """Make a ledger from the vault's newest bundle, and hold its newest snapshot to ours."""
    result = _Rebuilt([])
    try:
        newest = [entry.snapshot for entry in ledger.log() if entry.snapshot]
    except MusterError as error:
        # Which snapshots there were, only the vault can tell now.
        known = vault.manifests()
        broken = _broken("ledger", "the history cannot be read", error)
        result.damages.append(replace(broken, snapshots=known))
        return result
    result.snapshots = len(newest)
    names = vault.bundles()
    if not newest:
        if known := vault.manifests():
            detail = "the ledger holds no snapshot, and the vault has the manifests of some"
            result.damages.append(Damage("ledger", "live", "missing", detail, known))
        return result  # else nothing was kept yet
    if not names:
        detail = "the vault keeps no bundle of the ledger: it could not be rebuilt from the vault"
        result.damages.append(Damage("reconstruction", "ledger/", "missing", detail, tuple(newest)))
        return result
    result.bundle = names[-1]
    with tempfile.TemporaryDirectory(prefix="muster-verify-") as folder:
        file = Path(folder) / "ledger.bundle"
        try:
            vault.fetch_bundle(file, result.bundle)
            with Ledger.from_bundle(file, Path(folder) / "ledger.git") as copy:
                _compare(copy, ledger, vault, newest, result)
        except MusterError as error:
            path = f"ledger/{result.bundle}"
            broken = _broken(path, "it cannot be rebuilt", error)
            result.damages.append(replace(broken, snapshots=_bundled(path, names)))
    return result


def _compare(
    copy: Ledger, ledger: Ledger, vault: Vault, newest: list[str], result: _Rebuilt
) -> None:
    theirs = next((entry for entry in copy.log() if entry.snapshot), None)
    if theirs is None:
        detail = "the bundle holds no snapshot"
        result.damages.append(Damage("reconstruction", f"ledger/{result.bundle}", "empty", detail))
        return
    result.snapshot = theirs.snapshot
    hurt = (theirs.snapshot,)
    result.behind = newest.index(theirs.snapshot) if theirs.snapshot in newest else 0
    rebuilt = copy.load(theirs.commit)
    try:
        ours: Snapshot | None = ledger.load(theirs.snapshot)
    except NotFoundError:  # pruned here since; the bundle is older
        ours = None
    result.resources = len(rebuilt.resources)
    if ours is not None:
        for key in sorted({*rebuilt.resources, *ours.resources}):
            before, after = ours.resources.get(key), rebuilt.resources.get(key)
            same = (
                before is not None
                and after is not None
                and canonical(before.document()) == canonical(after.document())
            )
            if not same:
                detail = "the rebuilt resource is not what the ledger has"
                result.damages.append(
                    Damage("reconstruction", str(key), "differs", detail, hurt, (str(key),))
                )
    result.damages += _payloads(rebuilt, theirs.snapshot, vault)
    # A snapshot that is being kept has a manifest before it is in a bundle, and a pruned one none.
    bundled = [entry.snapshot for entry in copy.log() if entry.snapshot != theirs.snapshot]
    result.damages += _manifests([s for s in bundled if s in newest], vault)


def _manifests(snapshots: list[str], vault: Vault) -> Iterator[Damage]:
    """Say which older snapshots have no manifest, so that a prune would take their payloads."""
    there = frozenset(vault.manifests())
    for snapshot in snapshots:
        if snapshot not in there:
            detail = "the vault has no manifest of the snapshot"
            path = f"manifests/{snapshot}.json"
            yield Damage("reconstruction", path, "missing", detail, (snapshot,))


def _payloads(rebuilt: Snapshot, snapshot: str, vault: Vault) -> Iterator[Damage]:
    """Hold what the documents name to the manifest and to what the vault has."""
    named = {**rebuilt.resources, **rebuilt.stale}
    wanted = Manifest.of(replace(rebuilt, id=snapshot, resources=named))
    try:
        manifest = vault.manifest(snapshot)
    except NotFoundError:
        detail = "the vault has no manifest of the snapshot"
        path = f"manifests/{snapshot}.json"
        yield Damage("reconstruction", path, "missing", detail, (snapshot,))
    except MusterError:
        pass  # a damaged manifest was told by the vault's own check
    else:
        if manifest != wanted:
            detail = "the manifest does not name what the snapshot's resources name"
            path = f"manifests/{snapshot}.json"
            yield Damage("reconstruction", path, "differs", detail, (snapshot,))
    known = vault.known()
    for entry in wanted.payloads:
        if entry.sha256 not in known:
            detail = "a resource names this payload, and the vault does not have it"
            path = f"payloads/sha256/{entry.sha256}"
            yield Damage("reconstruction", path, "missing", detail, (snapshot,), entry.keys)


def _broken(path: str, what: str, error: MusterError) -> Damage:
    return Damage("reconstruction", path, "unreadable", f"{what}: {error.what}")
