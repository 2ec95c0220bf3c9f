"""A vault in a folder: the embedded default."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from io import FileIO
from pathlib import Path
from typing import ClassVar

from filelock import FileLock, Timeout

from snapshots.clock import Clock
from snapshots.errors import LockedError, StoreError
from snapshots.model import digest
from snapshots.vault.base import (
    BLOCK,
    INCOMING,
    Block,
    Document,
    Entry,
    StoredVault,
    VaultFacts,
    in_blocks,
)

_LEFTOVER = timedelta(days=1)  # older than any transfer that is still under way
_LOCK_PATIENCE = 30.0  # seconds; a replacement takes milliseconds
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class FolderVault(StoredVault):
    """A vault whose objects are read-only files below one folder, open to its owner only.

    Whatever appears under its name is whole and on disk: it is written under incoming/, synced, and
    linked to its place, which fails where something is. Symbolic links inside are refused.
    """

    kind: ClassVar[str] = "folder"

    def __init__(self, root: Path, clock: Clock, *, fingerprint_file: Path | None = None) -> None:
        super().__init__(clock, fingerprint_file=fingerprint_file)
        self._root = root.absolute()
        self._tidied = False

    @property
    def location(self) -> str:
        """The folder."""
        return str(self._root)

    def prepare(self) -> None:
        """Make the folder; every write does it, too."""
        self._folder("")

    def close(self) -> None:
        """Nothing to let go of."""

    def facts(self) -> VaultFacts:
        """Say what doctor wants to know: free space, and whether the folder can be used."""
        there = self._root
        while not there.exists() and there != there.parent:
            there = there.parent
        try:
            free = shutil.disk_usage(there).free
        except OSError as error:
            return self._unreachable(error.strerror or "unreadable")
        if not there.is_dir():
            return self._unreachable(f"{there} is not a folder")
        if not os.access(there, os.R_OK | os.W_OK | os.X_OK):
            return self._unreachable(f"{there} cannot be written")
        return VaultFacts(
            self.location,
            self.kind,
            reachable=True,
            region_independent=False,
            versioning=False,
            soft_delete_days=0,
            immutability_policy=False,
            legal_hold=False,
            free_bytes=free,
            clock_skew_seconds=0.0,
        )

    def _unreachable(self, problem: str) -> VaultFacts:
        return VaultFacts(
            self.location,
            self.kind,
            reachable=False,
            problem=problem,
            remedy="check vault.url and the permissions of the folder",
        )

    # ---- moving bytes ----

    def _upload(self, chunks: Iterator[Block], path: str | None, seal: Callable[[], str]) -> bool:
        del path  # the bytes are written before their name is needed
        self._tidy()
        temporary = self._folder(INCOMING) / f"{secrets.token_hex(16)}.part"
        try:
            with self._doing("write to"):
                file = FileIO(temporary, "xb", opener=_private)
            with file:
                for block in in_blocks(chunks):  # what the source raises is not ours to translate
                    with self._doing("write to"):
                        _write(file, block)
                target = seal()
                with self._doing("write to"):
                    os.fsync(file.fileno())
            with self._doing("write to"):
                temporary.chmod(stat.S_IRUSR)
                return self._publish(temporary, target)
        finally:
            _unlink(temporary)

    def _publish(self, temporary: Path, path: str) -> bool:
        """Link a finished file to its place; False when something is there."""
        target = self._place(path, make=True)
        try:
            os.link(temporary, target, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES}:
                raise
            # A file system without hard links: one writer at a time instead.
            with self._lock():
                if target.exists():
                    return False
                temporary.rename(target)
        _sync(target.parent)
        return True

    def _open(self, path: str) -> Iterator[bytes] | None:
        target = self._place(path)
        with self._doing("read from"):
            try:
                descriptor = os.open(target, os.O_RDONLY | _NO_FOLLOW)
            except FileNotFoundError:
                return None
        return self._blocks(descriptor)

    def _blocks(self, descriptor: int) -> Iterator[bytes]:
        with open(descriptor, "rb", buffering=0) as file:
            while True:
                with self._doing("read from"):
                    block = file.read(BLOCK)
                if not block:
                    return
                yield block

    def _get(self, path: str) -> Document | None:
        stream = self._open(path)
        if stream is None:
            return None
        data = b"".join(stream)
        return Document(path, data, digest(data))

    def _create(self, path: str, data: bytes) -> bool:
        return self._upload(iter([data]), path, lambda: path)

    def _replace(self, path: str, data: bytes, etag: str | None) -> str | None:
        if etag is None:
            return digest(data) if self._create(path, data) else None
        temporary = self._folder(INCOMING) / f"{secrets.token_hex(16)}.part"
        with self._lock():
            now = self._get(path)
            if now is None or now.etag != etag:
                return None
            try:
                with self._doing("write to"):
                    with FileIO(temporary, "xb", opener=_private) as file:
                        _write(file, data)
                        os.fsync(file.fileno())
                    temporary.chmod(stat.S_IRUSR)
                    target = self._place(path)
                    temporary.replace(target)
                    _sync(target.parent)
            finally:
                _unlink(temporary)
        return digest(data)

    def _delete(self, path: str, etag: str | None = None) -> bool:
        target = self._place(path)
        if etag is None:
            try:
                target.unlink()
            except FileNotFoundError:
                return True
            except OSError:
                return False
            return True
        # Taken aside first, so that a touch after this look cannot be missed.
        aside = self._folder(INCOMING) / f"{secrets.token_hex(16)}.condemned"
        try:
            target.rename(aside)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        if _etag(aside.lstat()) != etag:
            with suppress(FileExistsError):  # kept again meanwhile: the same bytes
                os.link(aside, target, follow_symlinks=False)
            _unlink(aside)
            return False
        _unlink(aside)
        return True

    def _touch(self, path: str) -> bool:
        target = self._place(path)
        moment = self._clock.now().timestamp()
        with self._doing("write to"):
            try:
                # Never backwards, and never the same: the time is the etag.
                latest = max(int(moment * 1e9), target.lstat().st_mtime_ns + 1)
                os.utime(target, ns=(latest, latest), follow_symlinks=False)
            except FileNotFoundError:
                return False
        return True

    def _stat(self, path: str) -> Entry | None:
        target = self._place(path)
        with self._doing("read from"):
            try:
                found = target.lstat()
            except (FileNotFoundError, NotADirectoryError):
                return None
        return _entry(path, found) if stat.S_ISREG(found.st_mode) else None

    def _list(self, prefix: str) -> Iterator[Entry]:
        folder = prefix.rpartition("/")[0]
        for path, found in self._walk(self._root / folder, f"{folder}/" if folder else ""):
            if path.startswith(prefix):
                yield _entry(path, found)

    def _walk(self, folder: Path, prefix: str) -> Iterator[tuple[str, os.stat_result]]:
        with self._doing("read from"):
            try:
                with os.scandir(folder) as listing:
                    # Sorted as the whole paths sort: a folder counts with its slash.
                    items = sorted(
                        listing,
                        key=lambda i: f"{i.name}/" if i.is_dir(follow_symlinks=False) else i.name,
                    )
            except (FileNotFoundError, NotADirectoryError):
                return
        for item in items:
            if item.name == ".lock":
                continue
            if item.is_dir(follow_symlinks=False):
                yield from self._walk(folder / item.name, f"{prefix}{item.name}/")
            elif item.is_file(follow_symlinks=False):
                try:
                    found = item.stat(follow_symlinks=False)
                except FileNotFoundError:  # gone since it was listed
                    continue
                yield f"{prefix}{item.name}", found

    # ---- the folder itself ----

    def _place(self, path: str, *, make: bool = False) -> Path:
        """Give the file of a path; no part of it may be a symbolic link, which could lead out."""
        folder, _, name = path.rpartition("/")
        if make:
            return self._folder(folder) / name
        place = self._root
        for part in folder.split("/"):
            place /= part
            if place.is_symlink():
                raise self._link(place)
        return place / name

    def _folder(self, path: str) -> Path:
        place = self._root
        with self._doing("make a folder of"):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            for part in path.strip("/").split("/"):
                if not part:
                    continue
                place /= part
                with suppress(FileExistsError):
                    place.mkdir(mode=0o700)
                    _sync(place.parent)
                if place.is_symlink():
                    raise self._link(place)
        return place

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot {what} the vault: {error.strerror or type(error).__name__}",
                where=str(error.filename or self._root),
                remedy="check the permissions and the free space",
            ) from None

    def _link(self, place: Path) -> StoreError:
        return StoreError(
            "a folder of the vault is a symbolic link, which could lead anywhere",
            where=str(place),
            remedy="replace it by the folder itself",
        )

    @contextmanager
    def _lock(self) -> Iterator[None]:
        self._folder("")
        try:
            with FileLock(self._root / ".lock", timeout=_LOCK_PATIENCE, mode=0o600):
                yield
        except Timeout:
            raise LockedError(
                "somebody else is writing to the vault",
                where=self.location,
                remedy="wait for the other muster to end; the lock goes with its process",
            ) from None

    def _tidy(self) -> None:
        """Remove what a killed writer left; once for every open vault."""
        if self._tidied:
            return
        self._tidied = True
        # Ages of files are the file system's matter: by a Clock that runs ahead, a transfer that is
        # under way would look like a leftover.
        now = datetime.fromtimestamp(time.time(), UTC)
        for entry in self._list(INCOMING):
            if now - entry.modified >= _LEFTOVER:
                _unlink(self._root / entry.path)


def _entry(path: str, found: os.stat_result) -> Entry:
    modified = datetime.fromtimestamp(found.st_mtime_ns / 1e9, UTC)
    return Entry(path, found.st_size, modified, _etag(found))


def _etag(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns}-{found.st_ino}-{found.st_size}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_FOLLOW, 0o600)


def _write(file: FileIO, block: Block) -> None:
    """Write all of it: one write may take less than it was given."""
    rest = memoryview(block)
    while rest:
        rest = rest[file.write(rest) :]


def _unlink(path: Path) -> None:
    with suppress(OSError):
        path.unlink()


def _sync(folder: Path) -> None:
    """Bring a new name to disk, where the system can do that for folders."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
