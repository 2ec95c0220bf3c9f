"""Keep the ledger in the vault as Git bundles: now and then a whole one, else what is new."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from snapshots.clock import Clock
from snapshots.errors import DamagedStoreError, MusterError
from snapshots.ledger import Kept, Ledger
from snapshots.ledger.bundled import Bundled
from snapshots.vault import Vault

UPON_ONE: Final = 24  # bundles upon a whole one; docs/decisions/0016 has the measurement


def keep_bundle(ledger: Ledger, vault: Vault, kept: Kept, *, upon_one: int = UPON_ONE) -> str:
    """Bring what the ledger has since the last bundle into the vault; give the bundle's name.

    A whole bundle is written when there is none to build upon: the first time, after `upon_one`
    others, after a prune, and where the vault or the memory of the last one is not as it was left.
    Raises what the vault raises, saying that the snapshot itself is kept.
    """
    name = f"{kept.snapshot}-{kept.commit[:12]}.bundle"
    with tempfile.TemporaryDirectory(prefix="muster-bundle-") as folder:
        file = Path(folder) / name
        try:
            before = Bundled.read(ledger.path)
            if before and not frozenset(before.chain) <= frozenset(vault.bundles()):
                before = None
            if before and (len(before.chain) > upon_one or not _upon(before.chain[0])):
                before = None
            tips = ledger.tips()  # before the bundle: what comes meanwhile is in the next, too
            if before and not _written(ledger, file, before):
                before = None
            if before:
                name = f"{name.removesuffix('.bundle')}.on-{_upon(before.chain[0])}.bundle"
            else:
                ledger.bundle(file)
            vault.keep_bundle(file, name)
        except MusterError as error:
            raise type(error)(
                f"the snapshot is kept, but its bundle is not in the vault: {error.what}",
                where=error.where,
                remedy="run `muster snapshot` again once the vault answers",
            ) from error
    Bundled((*before.chain, name) if before else (name,), tips).write(ledger.path)
    return name


def ledger_from(
    vault: Vault, path: Path, *, estate: str, remote: str, clock: Clock, version: str
) -> str:
    """Make the lost ledger of an estate again from the vault's newest bundle; give its name.

    Nothing is made, and "" is given, where the vault has none, or one of another estate.
    """
    if not vault.bundles():
        return ""
    with tempfile.TemporaryDirectory(prefix="muster-bundle-") as folder:
        file = Path(folder) / "ledger.bundle"
        name = vault.fetch_bundle(file)
        with Ledger.from_bundle(file, Path(folder) / "ledger.git") as found:
            newest = next(found.log(1), None)
        if newest is None or newest.trailers.get("Estate", "") != estate:
            return ""
        Ledger.from_bundle(file, path, remote=remote, clock=clock, version=version).close()
    return name


def _written(ledger: Ledger, file: Path, before: Bundled) -> bool:
    try:
        ledger.bundle(file, since=before.tips.values())
    except DamagedStoreError:  # nothing is new, or what was bundled was pruned or rewritten
        return False
    return True


def _upon(whole: str) -> str:
    """Give what the names of bundles upon a whole one end in: its commit, or nothing."""
    return whole.removesuffix(".bundle").rpartition("-")[2]
