"""Markers of work that nothing else may get in the way of: a drill or a failover that runs.

Whoever runs one holds a marker meanwhile, and a revert is refused as long as one is held:

    with wiring.busy().hold("drill standby-loss", expires=timedelta(hours=2)):
        ...

A marker is a file beside the ledger, locked by its owner, and a line in the vault for other hosts.
The lock goes with the process, so on one host a crashed owner blocks nobody. From another host
nobody can see whether the owner lives: there the marker counts until it expires.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import orjson

from snapshots.clock import Clock
from snapshots.errors import ConcurrentError, MusterError, NotFoundError
from snapshots.model import Json, JsonObject
from snapshots.records import Documents

EXPIRES: Final = timedelta(hours=6)
SHARED: Final = "busy/markers.json"  # in the vault
_TRIES: Final = 8  # writers of the one document that beat each other


@dataclass(frozen=True, slots=True)
class Holder:
    """Who works on what, since when, and until when it counts at most."""

    id: str
    what: str
    host: str
    pid: int
    since: datetime
    until: datetime

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{self.what} (process {self.pid} on {self.host}, since {self.since:%Y-%m-%d %H:%M}Z)"
        )

    def document(self) -> JsonObject:
        """Give it as JSON: `from_document` reads it back."""
        return {
            "id": self.id,
            "what": self.what,
            "host": self.host,
            "pid": self.pid,
            "since": self.since.isoformat(),
            "until": self.until.isoformat(),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Holder:
        """Read back what `document()` wrote. Raises KeyError, TypeError or ValueError."""
        pid = document["pid"]
        if not isinstance(pid, int):
            raise ValueError("its process is no number")
        return cls(
            str(document["id"]),
            str(document["what"]),
            str(document["host"]),
            pid,
            _time(document["since"]),
            _time(document["until"]),
        )


class Busy:
    """The markers of one estate: a folder beside its ledger, and a document in its vault."""

    def __init__(
        self, folder: Path, *, clock: Clock, vault: Documents | None = None, host: str = ""
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._vault = vault
        self._host = host or socket.gethostname() or "unknown"

    @contextmanager
    def hold(self, what: str, *, expires: timedelta = EXPIRES) -> Iterator[Holder]:
        """Hold a marker for the time of a block; `what` is words for people.

        `expires` bounds how long it counts where nobody can see whether this process lives. A
        vault that does not answer stops no failover: then only this host knows of the marker.
        """
        now = self._clock.now().astimezone(UTC)
        holder = Holder(
            f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
            " ".join(what.split()),
            self._host,
            os.getpid(),
            now,
            now + expires,
        )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidy()
        path = self._folder / f"{holder.id}.json"
        fresh = path.with_suffix(".new")
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            # Locked and whole before it has its name: nobody sees one that looks abandoned.
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.write(descriptor, orjson.dumps(holder.document()))
            os.fsync(descriptor)
            fresh.rename(path)
            self._share(lambda known: [*known, holder])
            yield holder
        finally:
            path.unlink(missing_ok=True)
            fresh.unlink(missing_ok=True)
            os.close(descriptor)
            self._share(lambda known: [other for other in known if other.id != holder.id])

    def holders(self) -> tuple[Holder, ...]:
        """Give the markers that count now, oldest first. Raises StoreError when nobody can tell."""
        now = self._clock.now()
        found: dict[str, Holder] = {}
        own: set[str] = set()
        for _, holder, locked in self._files():
            own.add(holder.id)
            if locked or (holder.host != self._host and now < holder.until):
                found[holder.id] = holder
        for holder in self._shared()[0]:
            if holder.id in own or now >= holder.until:
                continue
            if holder.host != self._host or _lives(holder.pid):
                found[holder.id] = holder
        return tuple(sorted(found.values(), key=lambda holder: (holder.since, holder.id)))

    def _files(self) -> Iterator[tuple[Path, Holder, bool]]:
        for path in sorted(self._folder.glob("*.json")):
            try:
                with path.open("rb") as file:
                    locked = _locked(file.fileno())
                    holder = Holder.from_document(orjson.loads(file.read()))
            except FileNotFoundError:
                continue  # it was let go this moment
            except (KeyError, TypeError, ValueError):
                continue  # no marker of ours
            yield path, holder, locked

    def _tidy(self) -> None:
        """Remove what crashed owners left behind."""
        now = self._clock.now()
        for path, holder, locked in self._files():
            if not locked and (holder.host == self._host or now >= holder.until):
                path.unlink(missing_ok=True)

    def _share(self, change: Callable[[Sequence[Holder]], list[Holder]]) -> None:
        if self._vault is None:
            return
        try:
            for _ in range(_TRIES):
                known, etag = self._shared()
                kept = change([h for h in known if self._clock.now() < h.until])
                if etag is None and not kept:
                    return
                document: JsonObject = {
                    "schema": "muster/busy/1",
                    "markers": [h.document() for h in kept],
                }
                try:
                    self._vault.replace_document(SHARED, orjson.dumps(document), etag)
                except ConcurrentError:
                    continue
                return
        except MusterError:
            return  # the file beside the ledger is the one that counts here

    def _shared(self) -> tuple[list[Holder], str | None]:
        if self._vault is None:
            return [], None
        try:
            found = self._vault.read_document(SHARED)
        except NotFoundError:
            return [], None
        holders: list[Holder] = []
        try:
            listed = orjson.loads(found.data)["markers"]
            holders.extend(Holder.from_document(entry) for entry in listed)
        except (KeyError, TypeError, ValueError):
            pass  # what can be read of it counts
        return holders, found.etag


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(descriptor, fcntl.LOCK_UN)
    return False


def _lives(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _time(text: Json) -> datetime:
    found = datetime.fromisoformat(str(text))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
