"""Make a ledger's folder, and clear it of what killed processes left."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from snapshots.errors import DamagedStoreError, StoreError
from snapshots.ledger.entries import LIVE
from snapshots.ledger.plumbing import Git

LOCK = "muster.lock"
DEAD = 5.0  # seconds after which a Git lock file that nobody's process explains is dead


def make(folder: Path, executable: str, fill: Callable[[Git], None] | None = None) -> None:
    """Make a bare repository, whole or not at all: two may try at once, and one may be killed."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as denied:
        raise StoreError(
            f"the ledger cannot be created: {denied.strerror}", where=str(folder)
        ) from denied
    try:
        git_ = Git(draft, executable)
        git_.text("init", "--quiet", "--bare", f"--initial-branch={LIVE}", "--template=")
        if fill:
            fill(git_)
        draft.chmod(0o755)
        with suppress(OSError):  # another was quicker: theirs is as good
            draft.rename(folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def cure_locks_of_the_dead(folder: Path) -> None:
    """Remove Git lock files that no living process can still need.

    Our own writers hold the ledger's lock while they live, and a push by somebody else holds these
    for milliseconds.
    """
    limit = time.time() - DEAD
    places = [folder.glob("*.lock"), (folder / "refs").rglob("*.lock")]
    places += [(folder / "objects" / "info").rglob("*.lock")]
    for place in places:
        for lock in place:
            if lock.name == LOCK:
                continue
            with suppress(OSError):
                if lock.stat().st_mtime < limit:
                    lock.unlink()


def broken(folder: Path, reason: str) -> DamagedStoreError:
    """Give the error for a ledger that cannot be opened."""
    return DamagedStoreError(
        f"the ledger is damaged: {reason}",
        where=str(folder),
        remedy="move it aside: the next command makes it again from the vault's bundles; what is "
        "newer than they are is lost, unless the remote or the folder that was moved has it",
    )


def sweep(folder: Path) -> None:
    """Remove what killed processes left. Only under the lock: then none of ours runs."""
    now = time.time()  # ages of files are the file system's matter, not the Clock's
    objects = folder / "objects"
    loose = list(folder.glob("fast_import_crash_*"))
    for pattern in ("pack/tmp_*", "pack/.tmp-*", "[0-9a-f][0-9a-f]/tmp_obj_*", "tmp_objdir-*"):
        loose += objects.glob(pattern)
    for keep in (objects / "pack").glob("*.keep"):
        with suppress(OSError):
            if keep.read_bytes().strip() == b"fast-import":
                loose.append(keep)
    for leftover in loose:
        with suppress(OSError):  # somebody's own `git push` may have finished with it
            age = now - leftover.stat().st_mtime
            if age > DEAD or leftover.suffix == ".keep" or "crash" in leftover.name:
                if leftover.is_dir():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()
    cure_locks_of_the_dead(folder)
