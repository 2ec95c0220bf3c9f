"""What every vault promises, and the part of it that does not depend on where the vault is."""

from __future__ import annotations

import glob
import hashlib
import hmac
import math
import os
import random
import re
import secrets
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import IO, ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import orjson

from snapshots.clock import Clock
from snapshots.errors import (
    ConcurrentError,
    DamagedStoreError,
    InputError,
    MusterError,
    NotFoundError,
    RefusedError,
    SettingsError,
)
from snapshots.model import Json, JsonObject, Payload, Snapshot, canonical, digest, pretty

BLOCK = 8 * 1024 * 1024  # bytes; the unit in which payloads travel
PAYLOADS = "payloads/sha256/"
MANIFESTS = "manifests/"
LEDGER = "ledger/"
SUMS = "sums/"
INCOMING = "incoming/"
SHARDS = "shards/"  # captures of sharded snapshots: documents, but not for good
FINGERPRINT = "keys/fingerprint"
CONDEMNED = "prune/condemned.json"
_RESERVED = frozenset({"payloads", "manifests", "ledger", "sums", "incoming", "keys", "prune"})

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SNAPSHOT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=@+-]*")
_BUNDLE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,150}\.bundle")
_UPON = re.compile(r".+\.on-([0-9a-f]{4,40})\.bundle")  # what is new since a whole one
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_KEY_FORMAT = "muster-fingerprint-key/1"
_MANIFEST_FORMAT = "muster-manifest/1"

Block: TypeAlias = bytes | bytearray
_Wanted: TypeAlias = tuple[str, str, int]  # path, digest it must have, size


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a vault as a listing shows it."""

    path: str
    size: int  # bytes
    modified: datetime  # aware, UTC; by the clock of whoever keeps the object
    etag: str  # differs after every write and every touch; not that of a Document


@dataclass(frozen=True, slots=True)
class Document:
    """A small object that was read whole, and the etag that `replace_document` wants."""

    path: str
    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One payload that a snapshot needs, and the resources that hold it."""

    sha256: str
    size: int
    keys: tuple[str, ...]  # str(Key), sorted


@dataclass(frozen=True, slots=True)
class Manifest:
    """Every payload of one snapshot, by digest."""

    snapshot: str  # the id of the snapshot
    payloads: tuple[ManifestEntry, ...]  # sorted by digest, each digest once

    @classmethod
    def of(cls, snapshot: Snapshot) -> Manifest:
        """Name every payload of a snapshot that has its id."""
        sizes: dict[str, int] = {}
        keys: dict[str, set[str]] = {}
        for key, resource in snapshot.resources.items():
            for payload in resource.payloads:
                sizes[payload.sha256] = payload.size
                keys.setdefault(payload.sha256, set()).add(str(key))
        return cls(
            snapshot.id,
            tuple(ManifestEntry(d, sizes[d], tuple(sorted(keys[d]))) for d in sorted(sizes)),
        )

    def document(self) -> JsonObject:
        """What the vault keeps of it; `sha256` is that of the rest, in canonical form."""
        body: JsonObject = {
            "format": _MANIFEST_FORMAT,
            "snapshot": self.snapshot,
            "payloads": [
                {"sha256": entry.sha256, "size": entry.size, "keys": list(entry.keys)}
                for entry in self.payloads
            ],
        }
        return {**body, "sha256": digest(canonical(body))}

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Manifest:
        """Read back what `document()` wrote. Raises ValueError when it is not that, to the bit."""
        body = {name: value for name, value in document.items() if name != "sha256"}
        if document.get("sha256") != digest(canonical(body)):
            message = "the manifest does not match its own digest"
            raise ValueError(message)
        match body:
            case {"format": str(form), "snapshot": str(snapshot), "payloads": list(payloads)}:
                if form != _MANIFEST_FORMAT:
                    message = f"the manifest has format {form[:40]!r}, not {_MANIFEST_FORMAT!r}"
                    raise ValueError(message)
                return cls(snapshot, tuple(_entry(payload) for payload in payloads))
            case _:
                message = "not a manifest: format, snapshot and payloads are needed"
                raise ValueError(message)


def _entry(document: Json) -> ManifestEntry:
    match document:
        case {"sha256": str(sha256), "size": int(size), "keys": list(keys)}:
            if _DIGEST.fullmatch(sha256):
                return ManifestEntry(sha256, size, tuple(str(key) for key in keys))
        case _:
            pass
    message = "the manifest has an entry that is not a payload"
    raise ValueError(message)


class Problem(StrEnum):
    """What is wrong with an object of the vault."""

    MISSING = "missing"
    SIZE = "wrong-size"
    DIGEST = "wrong-digest"
    UNREADABLE = "unreadable"  # a check that could not run is not passed
    MANIFEST = "damaged-manifest"
    STRANGER = "stranger"  # an object under payloads/ that is no payload


@dataclass(frozen=True, slots=True)
class Damage:
    """One object that is not what it should be, and the snapshots it hurts."""

    path: str
    problem: Problem
    detail: str  # one line for people
    snapshots: tuple[str, ...] = ()  # ids, sorted; empty: no manifest names it
    keys: tuple[str, ...] = ()  # the resources that hold it, sorted


@dataclass(frozen=True, slots=True)
class VaultFacts:
    """What a vault says about itself; None where it does not say."""

    location: str  # never with a secret
    kind: str  # "blob" or "folder"
    reachable: bool
    problem: str = ""  # why not, when it is not reachable
    remedy: str = ""
    region: str | None = None
    region_independent: bool | None = None  # a copy is in another region
    redundancy: str | None = None  # of a storage account, as Azure names it: Standard_RAGZRS
    versioning: bool | None = None
    soft_delete_days: int | None = None  # 0: switched off
    immutability_policy: bool | None = None
    legal_hold: bool | None = None
    free_bytes: int | None = None
    clock_skew_seconds: float | None = None  # its clock minus ours


@dataclass(frozen=True, slots=True)
class Sweep:
    """What `prune` removed, or would remove when dry."""

    applied: bool
    kept: int  # payloads that are named or were asked to be kept
    condemned: tuple[str, ...]  # digests marked now; a later sweep removes them
    removed: tuple[str, ...]  # digests
    removed_bytes: int
    protected: tuple[str, ...]  # paths that immutability, a hold or a late use kept
    manifests: tuple[str, ...]  # ids of snapshots whose manifest goes
    bundles: tuple[str, ...]  # names
    leftovers: tuple[str, ...]  # paths below incoming/


@runtime_checkable
class Vault(Protocol):
    """The Blob container (or folder) that keeps payloads, written once, found by digest."""

    @property
    def location(self) -> str:
        """Where the vault is, for people; never with a secret."""
        ...

    def prepare(self) -> None:
        """Make the container or folder when it is missing."""
        ...

    def has(self, sha256: str) -> bool:
        """Tell whether the payload is kept, so that nobody has to fetch it again."""
        ...

    def known(self) -> frozenset[str]:
        """Give the digests of all payloads that are kept, by one listing."""
        ...

    def keep(
        self,
        chunks: Iterable[Block],
        *,
        sha256: str | None = None,
        size: int | None = None,
        name: str = "content",
    ) -> Payload:
        """Keep the bytes of an iterable of any chunk size."""
        ...

    def keep_file(self, path: Path, *, name: str = "content") -> Payload:
        """Keep a file; nothing is sent when its digest is known."""
        ...

    def read(self, sha256: str) -> Iterator[bytes]:
        """Give the bytes; the last of them only once the digest is proved."""
        ...

    def copy_to(self, sha256: str, path: Path) -> None:
        """Write the payload to a file that is there whole and proved, or not at all."""
        ...

    def size(self, sha256: str) -> int:
        """Give the payload's size in bytes."""
        ...

    def keep_manifest(self, manifest: Manifest) -> None:
        """Keep the manifest of a snapshot, once."""
        ...

    def manifests(self) -> tuple[str, ...]:
        """Give the ids of the snapshots that have a manifest, sorted."""
        ...

    def manifest(self, snapshot: str) -> Manifest:
        """Read the manifest of a snapshot."""
        ...

    def keep_bundle(self, path: Path, name: str) -> None:
        """Keep a Git bundle of the ledger under `ledger/<name>`, once."""
        ...

    def bundles(self) -> tuple[str, ...]:
        """Give the names of the bundles, oldest first (names begin with their time)."""
        ...

    def fetch_bundle(self, path: Path, name: str | None = None) -> str:
        """Write a bundle, the newest unless named, to a file; give its name."""
        ...

    def keep_document(self, path: str, data: bytes) -> None:
        """Keep a small document, once."""
        ...

    def read_document(self, path: str) -> Document:
        """Read a small document with its etag."""
        ...

    def replace_document(self, path: str, data: bytes, etag: str | None) -> str:
        """Replace a document if it is still as it was; give the new etag."""
        ...

    def documents(self, prefix: str = "") -> tuple[str, ...]:
        """Give the paths of the documents that begin with `prefix`, sorted."""
        ...

    def check(
        self,
        sample: float = 1.0,
        seed: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Damage]:
        """Look for damage."""
        ...

    def prune(
        self,
        keep: AbstractSet[str] = frozenset(),
        *,
        drop_manifests: Collection[str] = (),
        keep_bundles: int = 10,
        grace: timedelta = timedelta(days=7),
        apply: bool = False,
    ) -> Sweep:
        """Remove what no snapshot names."""
        ...

    def fingerprint_key(self) -> bytes:
        """Give the 32 bytes that key the fingerprints of secrets."""
        ...

    def facts(self) -> VaultFacts:
        """Say what doctor wants to know; never raises for a vault that is out of reach."""
        ...

    def close(self) -> None:
        """Let go of connections and threads."""
        ...


class StoredVault(ABC):
    """A vault over a store of objects; see `Vault` for the promises, here are the obligations.

    A subclass moves bytes (`_upload`, `_open`, `_get`, `_create`, `_replace`, `_delete`, `_touch`,
    `_stat`, `_list`); paths that reach it are checked. It may be used by several threads.
    """

    kind: ClassVar[str]

    def __init__(self, clock: Clock, *, fingerprint_file: Path | None = None) -> None:
        self._clock = clock
        self._fingerprint_file = fingerprint_file
        self._growing: set[str] = set()  # documents that are known to have no sum

    @property
    @abstractmethod
    def location(self) -> str:
        """Where the vault is, for people; never with a secret."""

    @abstractmethod
    def prepare(self) -> None:
        """Make the container or folder when it is missing.

        No write makes a container: a mistyped name would silently become a second vault.
        """

    @abstractmethod
    def facts(self) -> VaultFacts:
        """Say what doctor wants to know; never raises for a vault that is out of reach."""

    @abstractmethod
    def close(self) -> None:
        """Let go of connections and threads."""

    @abstractmethod
    def _upload(self, chunks: Iterator[Block], path: str | None, seal: Callable[[], str]) -> bool:
        """Create an object from chunks of any size; False when it is there already.

        `seal` is called once, after the last chunk and before anything can be seen; what it
        raises leaves nothing behind; it gives the path, which is `path` where that is known ahead.
        """

    @abstractmethod
    def _open(self, path: str) -> Iterator[bytes] | None:
        """Stream an object in blocks of at most BLOCK bytes; None when it is missing."""

    @abstractmethod
    def _get(self, path: str) -> Document | None:
        """Read a small object whole."""

    @abstractmethod
    def _create(self, path: str, data: bytes) -> bool:
        """Create a small object, durable on return; False when it is there already."""

    @abstractmethod
    def _replace(self, path: str, data: bytes, etag: str | None) -> str | None:
        """Write where `etag` is still true (None: where nothing is); None when it is not."""

    @abstractmethod
    def _delete(self, path: str, etag: str | None = None) -> bool:
        """Delete unless changed since `etag`; False when the store refuses. Missing is deleted."""

    @abstractmethod
    def _touch(self, path: str) -> bool:
        """Give the object a new etag and time; False when it is missing."""

    @abstractmethod
    def _stat(self, path: str) -> Entry | None:
        """Look at one object."""

    @abstractmethod
    def _list(self, prefix: str) -> Iterator[Entry]:
        """Give all objects whose path begins with `prefix`, in order of paths."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.location}>"

    # ---- payloads ----

    def has(self, sha256: str) -> bool:
        """Tell whether the payload is kept and not about to be pruned; one or two calls."""
        path = payload_path(sha256)
        return self._stat(path) is not None and sha256 not in self._condemned()[0]

    def known(self) -> frozenset[str]:
        """Give the digests of all payloads that are kept and not about to be pruned."""
        condemned, _ = self._condemned()
        found = (_digest_of(entry.path) for entry in self._list(PAYLOADS))
        return frozenset(d for d in found if d is not None and d not in condemned)

    def keep(
        self,
        chunks: Iterable[Block],
        *,
        sha256: str | None = None,
        size: int | None = None,
        name: str = "content",
    ) -> Payload:
        """Keep the bytes of an iterable of any chunk size, in blocks, never whole in memory.

        With `sha256` the bytes go straight to their place, and `chunks` is not consumed when the
        payload is kept already. `name` is the role in the Payload that is given back. Raises
        DamagedStoreError, with nothing kept, when the bytes do not match `sha256` or `size`; what
        `chunks` raises comes through, with nothing kept. Any number of writers of the same bytes
        succeed; one object results.
        """
        path = None if sha256 is None else payload_path(sha256)
        if sha256 is not None and path is not None:
            there = self._stat(path)
            if there is not None and self._still(sha256, there.size, size):
                return Payload(name, sha256, there.size)
        measure = _Measure()

        def seal() -> str:
            found = measure.digest()
            if sha256 is not None and found != sha256:
                raise DamagedStoreError(
                    f"the bytes have SHA-256 {found}, not {sha256} as expected; nothing was kept",
                    where=self.location,
                    remedy="fetch the bytes again; when it persists, the source is damaged",
                )
            if size is not None and measure.size != size:
                raise DamagedStoreError(
                    f"{measure.size} bytes came, not {size} as expected; nothing was kept",
                    where=self.location,
                    remedy="fetch the bytes again; the transfer was cut",
                )
            return payload_path(found)

        created = self._upload(measure.through(chunks), path, seal)
        found = measure.digest()
        if not created:
            there = self._stat(payload_path(found))
            if there is None or not self._still(found, there.size, measure.size):
                # It was pruned between the two looks; rare, and the caller has the bytes no more.
                raise ConcurrentError(
                    f"payload {found} was pruned while it was kept",
                    where=self.location,
                    remedy="run this again",
                )
        return Payload(name, found, measure.size)

    def _still(self, sha256: str, found: int, size: int | None) -> bool:
        """Make sure that a payload that is there stays; False when a prune took it just now."""
        if size is not None and found != size:
            raise DamagedStoreError(
                f"payload {sha256} is kept with {found} bytes, not {size}",
                where=f"{self.location}/{payload_path(sha256)}",
                remedy="run `muster verify`, delete the damaged object and take a snapshot",
            )
        return sha256 not in self._condemned()[0] or self._touch(payload_path(sha256))

    def keep_file(self, path: Path, *, name: str = "content") -> Payload:
        """Keep a file, read twice: once for its digest, and again only when it is not kept yet."""
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                size = file.tell()
                file.seek(0)
                return self.keep(file_blocks(file), sha256=sha256, size=size, name=name)
        except OSError as error:
            raise InputError(
                f"cannot read the file: {error.strerror}",
                where=str(path),
                remedy="check the path and its permissions",
            ) from None

    def read(self, sha256: str) -> Iterator[bytes]:
        """Give the bytes in blocks; the last of them only once the digest is proved.

        Raises DamagedStoreError for a payload that is missing, and, before the last block, for one
        that does not match its digest: who writes the blocks on must not treat them as complete
        until the iteration has ended by itself.
        """
        path = payload_path(sha256)
        return self._proved(path, sha256)

    def _proved(self, path: str, sha256: str) -> Iterator[bytes]:
        stream = self._open(path)
        if stream is None:
            raise self._missing(path)
        hasher = hashlib.sha256()
        held: bytes | None = None
        for block in stream:
            hasher.update(block)
            if held is not None:
                yield held
            held = block
        if hasher.hexdigest() != sha256:
            raise DamagedStoreError(
                f"the bytes have SHA-256 {hasher.hexdigest()}, not {sha256}",
                where=f"{self.location}/{path}",
                remedy="run `muster verify` to see which snapshots this hurts; delete the object "
                "and take a snapshot while the source still exists, or restore a soft-deleted "
                "version",
            )
        if held is not None:
            yield held

    def copy_to(self, sha256: str, path: Path) -> None:
        """Write the payload to a file that is there whole and proved, or not at all.

        A file at `path` is replaced. Raises as `read`; InputError where `path` cannot be written.
        """
        self._copy(self.read(sha256), path)

    def _copy(self, blocks: Iterable[bytes], path: Path) -> None:
        temporary: str | None = None
        failure: OSError | None = None
        try:
            descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
            with open(descriptor, "wb") as file:  # noqa: PTH123  a descriptor, not a path
                file.writelines(blocks)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
            temporary = None
        except OSError as error:
            failure = error
        finally:
            if temporary is not None:
                with suppress(OSError):
                    Path(temporary).unlink()
        if failure is not None:
            raise InputError(
                f"cannot write the file: {failure.strerror}",
                where=str(path),
                remedy="check the folder, its permissions and the free space",
            )

    def size(self, sha256: str) -> int:
        """Give the payload's size in bytes. Raises DamagedStoreError when it is missing."""
        path = payload_path(sha256)
        there = self._stat(path)
        if there is None:
            raise self._missing(path)
        return there.size

    def _missing(self, path: str) -> DamagedStoreError:
        return DamagedStoreError(
            "the object is missing",
            where=f"{self.location}/{path}",
            remedy="run `muster verify` to see which snapshots this hurts; restore a soft-deleted "
            "version, or take a snapshot while the source still exists",
        )

    # ---- manifests ----

    def keep_manifest(self, manifest: Manifest) -> None:
        """Keep the manifest of a snapshot, once; again with the same content does nothing.

        Raises ConcurrentError when the snapshot has another manifest.
        """
        path = _manifest_path(manifest.snapshot)
        self._once(path, pretty(manifest.document()))

    def manifests(self) -> tuple[str, ...]:
        """Give the ids of the snapshots that have a manifest, sorted."""
        names = (entry.path.removeprefix(MANIFESTS) for entry in self._list(MANIFESTS))
        return tuple(
            sorted(
                name.removesuffix(".json")
                for name in names
                if name.endswith(".json") and _SNAPSHOT.fullmatch(name.removesuffix(".json"))
            )
        )

    def manifest(self, snapshot: str) -> Manifest:
        """Read the manifest of a snapshot. Raises NotFoundError, DamagedStoreError."""
        path = _manifest_path(snapshot)
        found = self._get(path)
        if found is None:
            raise NotFoundError(
                f"snapshot {snapshot} has no manifest in the vault",
                where=self.location,
                remedy="run `muster log` for the snapshots that there are",
            )
        try:
            manifest = Manifest.from_document(orjson.loads(found.data))
            if manifest.snapshot == snapshot:
                return manifest
            problem = "it is that of another snapshot"
        except orjson.JSONDecodeError:
            problem = "it is not JSON"
        except (ValueError, AttributeError) as error:
            problem = str(error)
        raise DamagedStoreError(
            f"the manifest of snapshot {snapshot} is damaged: {problem}",
            where=f"{self.location}/{path}",
            remedy="delete it and run `muster verify`: it can be written again from the ledger",
        )

    # ---- bundles of the ledger ----

    def keep_bundle(self, path: Path, name: str) -> None:
        """Keep a Git bundle of the ledger under `ledger/<name>`, once.

        `name` begins with the time and ends with `.bundle`, `<time>-<commit>.bundle`. Raises
        ConcurrentError when another bundle has that name, InputError for a bad name or file.
        """
        target = _bundle_path(name)
        try:
            with path.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                file.seek(0)
                measure = _Measure()

                def seal() -> str:
                    if measure.digest() != sha256:
                        raise InputError("the bundle changed while it was read", where=str(path))
                    return target

                created = self._upload(measure.through(file_blocks(file)), target, seal)
        except OSError as error:
            raise InputError(
                f"cannot read the bundle: {error.strerror}",
                where=str(path),
                remedy="check the path and its permissions",
            ) from None
        if not created and self._hash(target) != sha256:
            raise ConcurrentError(
                f"another bundle is kept as {name}",
                where=self.location,
                remedy="name it by its time and commit",
            )
        self._once(SUMS + target, _line(sha256))

    def bundles(self) -> tuple[str, ...]:
        """Give the names of the bundles, oldest first (names begin with their time)."""
        names = (entry.path.removeprefix(LEDGER) for entry in self._list(LEDGER))
        return tuple(sorted(name for name in names if _BUNDLE.fullmatch(name)))

    def fetch_bundle(self, path: Path, name: str | None = None) -> str:
        """Write a bundle, the newest unless named, to a file; give its name.

        For one that builds upon a whole one, that is the whole one, and beside it `<path>.1`,
        `<path>.2`, … are what came since, which `Ledger.from_bundle` takes, too. Each file is
        proved by the sum that is kept beside it. Raises NotFoundError, DamagedStoreError.
        """
        names = self.bundles()
        for one in reversed(names) if name is None else (name,):
            # One whose writer was killed before its sum cannot be proved; there is an older one,
            # and what came after it holds what it held.
            sums = {part: self._sum_of(part) for part in bundle_chain(one, names)}
            if sums.get(one) is None:
                continue
            for old in path.parent.glob(f"{glob.escape(path.name)}.[0-9]*"):
                old.unlink()
            proved = [(part, kept) for part, kept in sums.items() if kept is not None]
            for number, (part, kept) in enumerate(proved):
                target = path.with_name(f"{path.name}.{number}") if number else path
                self._copy(self._proved(_bundle_path(part), kept), target)
            return one
        raise NotFoundError(
            "the vault has no bundle of the ledger" if name is None else f"no bundle {name}",
            where=self.location,
            remedy="take a snapshot, which keeps one, or name another vault or bundle",
        )

    def _sum_of(self, name: str) -> str | None:
        kept = self._get(SUMS + _bundle_path(name))
        return None if kept is None else kept.data.decode("ascii", "replace").strip()

    # ---- documents: evidence, Records, packed shards ----

    def keep_document(self, path: str, data: bytes) -> None:
        """Keep a small document, once; again with the same bytes does nothing.

        Its sum is kept beside it, so that `check` finds it damaged or missing. Raises
        ConcurrentError when other bytes are there, InputError for a bad path.
        """
        _document_path(path)
        self._once(path, data)
        # The sum comes second: after a kill in between, a document without a sum is merely not
        # proved; a sum without its document would look like a loss.
        self._once(SUMS + path, _line(digest(data)))

    def read_document(self, path: str) -> Document:
        """Read a small document with its etag. Raises NotFoundError."""
        _document_path(path)
        found = self._get(path)
        if found is None:
            raise NotFoundError(
                f"the vault has no document {path}",
                where=self.location,
                remedy="check the path; documents() lists what there is",
            )
        return found

    def replace_document(self, path: str, data: bytes, etag: str | None) -> str:
        """Replace a document if it is still as it was; give the new etag.

        `etag` is that of `read_document` or of the last replacement; None when the document must
        not exist yet. Raises ConcurrentError when somebody wrote first, RefusedError for a document
        that `keep_document` keeps. What grows this way proves itself (a chain of hashes): no sum is
        kept beside it.
        """
        _document_path(path)
        if path not in self._growing:
            if self._stat(SUMS + path) is not None:
                raise RefusedError(
                    f"document {path} was kept for good",
                    where=self.location,
                    remedy="keep another document: what the vault keeps is never overwritten",
                )
            self._growing.add(path)
        written = self._replace(path, data, etag)
        if written is None:
            now = self._get(path)
            # An answer that got lost on its way makes a repeated write look beaten by itself.
            if now is not None and now.data == data:
                return now.etag
            raise ConcurrentError(
                f"document {path} was written by somebody else",
                where=self.location,
                remedy="read it again and repeat the change",
            )
        return written

    def documents(self, prefix: str = "") -> tuple[str, ...]:
        """Give the paths of the documents that begin with `prefix`, sorted."""
        if prefix:
            _document_path(prefix.rstrip("/"))
        return tuple(
            sorted(
                entry.path
                for entry in self._list(prefix)
                if entry.path.partition("/")[0] not in _RESERVED
            )
        )

    def _once(self, path: str, data: bytes) -> None:
        if self._create(path, data):
            return
        found = self._get(path)
        if found is None or found.data != data:
            raise ConcurrentError(
                f"{path} is kept already, with other content",
                where=self.location,
                remedy="choose another name: what the vault keeps is never overwritten",
            )

    # ---- the key of the fingerprints ----

    def fingerprint_key(self) -> bytes:
        """Give the 32 bytes that key the fingerprints of secrets; made once, never shown.

        Kept in the vault, or in the file that the settings name. Raises SettingsError,
        DamagedStoreError.
        """
        if self._fingerprint_file is not None:
            return _key_of_file(self._fingerprint_file)
        found = self._get(FINGERPRINT)
        if found is None:
            self._create(FINGERPRINT, _key_text(secrets.token_bytes(32)))
            found = self._get(FINGERPRINT)
            if found is not None:  # a bit that flips would make every secret look rotated
                self._once(SUMS + FINGERPRINT, _line(digest(found.data)))
        key = None if found is None else _key_in(found.data)
        if key is None:
            raise DamagedStoreError(
                "the key of the fingerprints is damaged",
                where=f"{self.location}/{FINGERPRINT}",
                remedy="restore it from a soft-deleted version or a copy; a new key makes every "
                "secret look rotated once",
            )
        return key

    # ---- damage ----

    def check(
        self,
        sample: float = 1.0,
        seed: int = 0,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Iterator[Damage]:
        """Look for damage: everything named must exist with its size, a sample is read and hashed.

        `sample` is the part of the payloads that is read, 0 to 1, chosen by `seed`; manifests,
        bundles and documents with a sum are read always. `on_progress` hears (done, of) in objects
        read. Raises when the vault is out of reach, InputError for a bad `sample`.
        """
        if not 0.0 <= sample <= 1.0:
            raise InputError(f"a sample is a part from 0 to 1, not {sample}")
        return self._check(sample, seed, on_progress or (lambda _done, _of: None))

    def _check(
        self, sample: float, seed: int, on_progress: Callable[[int, int], None]
    ) -> Iterator[Damage]:
        named: dict[str, _Named] = {}
        for snapshot in self.manifests():
            try:
                manifest = self.manifest(snapshot)
            except DamagedStoreError as error:
                yield Damage(
                    _manifest_path(snapshot), Problem.MANIFEST, error.what, snapshots=(snapshot,)
                )
                continue
            except NotFoundError:  # dropped by a prune since it was listed
                continue
            for entry in manifest.payloads:
                use = named.setdefault(entry.sha256, _Named(entry.size))
                use.snapshots.add(snapshot)
                use.keys.update(entry.keys)
        # The listing comes after the manifests: a snapshot keeps its payloads first.
        sizes: dict[str, int] = {}
        for found in self._list(PAYLOADS):
            sha256 = _digest_of(found.path)
            if sha256 is None:
                yield Damage(found.path, Problem.STRANGER, "it is not named like a payload")
            else:
                sizes[sha256] = found.size
        for sha256, use in sorted(named.items()):
            if sha256 not in sizes:
                yield use.damage(sha256, Problem.MISSING, "a manifest names it, but it is missing")
            elif sizes[sha256] != use.size:
                yield use.damage(
                    sha256, Problem.SIZE, f"it has {sizes[sha256]} bytes, not {use.size}"
                )
        chosen = [d for d in sorted(sizes) if d not in named or sizes[d] == named[d].size]
        if sample < 1.0:
            chosen = random.Random(seed).sample(chosen, math.ceil(len(chosen) * sample))
        yield from self._hashed(
            [
                *((payload_path(d), d, sizes[d]) for d in chosen),
                *self._summed(),
            ],
            named,
            on_progress,
        )

    def _summed(self) -> Iterator[_Wanted]:
        for entry in self._list(SUMS):
            path = entry.path.removeprefix(SUMS)
            there = self._stat(path)
            kept = self._get(entry.path)
            if kept is None:
                continue  # pruned since it was listed; a prune takes the sum first
            sha256 = kept.data.decode("ascii", "replace").strip()
            yield path, sha256, 0 if there is None else there.size

    def _hash(self, path: str) -> str | None:
        """Read an object for its SHA-256; None when it is missing."""
        stream = self._open(path)
        if stream is None:
            return None
        hasher = hashlib.sha256()
        for block in stream:
            hasher.update(block)
        return hasher.hexdigest()

    def _hashed(
        self,
        wanted: list[_Wanted],
        named: Mapping[str, _Named],
        on_progress: Callable[[int, int], None],
    ) -> Iterator[Damage]:
        """Hash objects: small ones four at a time; large ones alone, they come in parallel."""

        def problem(item: _Wanted) -> tuple[str, Problem, str] | None:
            path, sha256, _ = item
            try:
                found = self._hash(path)
            except MusterError as error:
                return path, Problem.UNREADABLE, error.what
            if found is None:
                return path, Problem.MISSING, "it is missing"
            if found != sha256:
                return path, Problem.DIGEST, f"its bytes have SHA-256 {found}"
            return None

        small = iter([item for item in wanted if item[2] <= BLOCK])
        large = [item for item in wanted if item[2] > BLOCK]
        done = 0
        on_progress(0, len(wanted))
        with ThreadPoolExecutor(4, "vault-check") as pool:
            waiting = [pool.submit(problem, item) for item in islice(small, 8)]
            while waiting:
                found = waiting.pop(0).result()
                waiting.extend(pool.submit(problem, item) for item in islice(small, 1))
                done += 1
                on_progress(done, len(wanted))
                if found is not None:
                    yield _damage(found, named)
        for item in large:
            found = problem(item)
            done += 1
            on_progress(done, len(wanted))
            if found is not None:
                yield _damage(found, named)

    # ---- prune ----

    def prune(
        self,
        keep: AbstractSet[str] = frozenset(),
        *,
        drop_manifests: Collection[str] = (),
        keep_bundles: int = 10,
        grace: timedelta = timedelta(days=7),
        apply: bool = False,
    ) -> Sweep:
        """Remove what no snapshot names, in two sweeps that are at least `grace` apart.

        A payload is removed when no manifest (save the dropped ones) names it, it is not in `keep`,
        and an earlier sweep condemned it at least `grace` ago; meanwhile it does not count as
        known, and keeping it again reprieves it. So a snapshot that runs for less than `grace`
        never loses a payload to a prune. Dry unless `apply`. What is immutable or held stays and is
        reported. Raises DamagedStoreError, with nothing removed, when a manifest cannot be read:
        what it names is not known.
        """
        if grace < timedelta(0) or keep_bundles < 1:
            raise InputError("a prune needs a grace of 0 or more and keeps at least one bundle")
        now = self._clock.now()
        ids = self.manifests()
        dropped = tuple(sorted(set(ids) & set(drop_manifests)))
        protected: list[str] = []
        named = set(keep)
        for snapshot in ids:
            if snapshot not in dropped:
                named.update(entry.sha256 for entry in self.manifest(snapshot).payloads)
        marks, etag = self._condemned()
        payloads = {
            sha256: entry
            for entry in self._list(PAYLOADS)
            if (sha256 := _digest_of(entry.path)) is not None
        }
        unnamed = {d: entry for d, entry in payloads.items() if d not in named}
        due = {
            d: entry
            for d, entry in unnamed.items()
            if d in marks and marks[d].etag == entry.etag and now - marks[d].since >= grace
        }
        fresh = {
            d: entry
            for d, entry in unnamed.items()
            if d not in due
            and (d not in marks or marks[d].etag != entry.etag)
            and now - entry.modified >= grace
        }
        names = self.bundles()
        kept = {part for name in names[-keep_bundles:] for part in bundle_chain(name, names)}
        bundles = tuple(name for name in names if name not in kept)
        leftovers = tuple(
            entry.path
            # Captures of shards have done their service once they are joined; their sums go first,
            # because a sum without its document would look like a loss.
            for place in (INCOMING, SUMS + SHARDS, SHARDS)
            for entry in self._list(place)
            if now - entry.modified >= max(grace, timedelta(days=1))
        )
        removed = dict(due)
        if apply:
            # Marks of what goes now stay until the next sweep: a writer that still saw the
            # payload finds the mark, touches it, learns that it is gone, and sends it again.
            after = {
                d: mark
                for d, mark in marks.items()
                if d in unnamed and unnamed[d].etag == mark.etag
            }
            after |= {d: _Mark(now, entry.etag) for d, entry in fresh.items()}
            if (after or marks) and self._replace(CONDEMNED, _marks(after), etag) is None:
                raise ConcurrentError(
                    "another prune is running",
                    where=self.location,
                    remedy="wait for it to end and run this again",
                )
            for snapshot in dropped:
                if not self._delete(_manifest_path(snapshot)):
                    protected.append(_manifest_path(snapshot))
                    still = {entry.sha256 for entry in self.manifest(snapshot).payloads}
                    removed = {d: entry for d, entry in removed.items() if d not in still}
            for sha256, entry in list(removed.items()):
                if not self._delete(entry.path, entry.etag):
                    protected.append(entry.path)
                    del removed[sha256]
            for name in bundles:
                for path in (SUMS + _bundle_path(name), _bundle_path(name)):
                    if not self._delete(path):
                        protected.append(path)
                        break
            protected.extend(path for path in leftovers if not self._delete(path))
        return Sweep(
            applied=apply,
            kept=len(payloads) - len(unnamed),
            condemned=tuple(sorted(fresh)),
            removed=tuple(sorted(removed)),
            removed_bytes=sum(entry.size for entry in removed.values()),
            protected=tuple(sorted(protected)),
            manifests=dropped,
            bundles=bundles,
            leftovers=leftovers,
        )

    def _condemned(self) -> tuple[dict[str, _Mark], str | None]:
        found = self._get(CONDEMNED)
        if found is None:
            return {}, None
        marks: dict[str, _Mark] = {}
        try:
            for sha256, mark in orjson.loads(found.data)["condemned"].items():
                marks[sha256] = _Mark(datetime.fromisoformat(mark["since"]), str(mark["etag"]))
        except (ValueError, KeyError, TypeError, AttributeError):
            # Marks can be lost without harm: the next sweep condemns anew, with a new grace.
            return {}, found.etag
        return marks, found.etag


@dataclass(frozen=True, slots=True)
class _Mark:
    """Since when a payload is condemned, and the etag it had: another etag is a reprieve."""

    since: datetime
    etag: str


@dataclass(slots=True)
class _Named:
    """Who names a payload."""

    size: int
    snapshots: set[str] = field(default_factory=set)
    keys: set[str] = field(default_factory=set)

    def damage(self, sha256: str, problem: Problem, detail: str) -> Damage:
        return Damage(
            payload_path(sha256),
            problem,
            detail,
            tuple(sorted(self.snapshots)),
            tuple(sorted(self.keys)),
        )


class _Measure:
    """The digest and size of what passed through."""

    def __init__(self) -> None:
        self._hasher = hashlib.sha256()
        self.size = 0

    def through(self, chunks: Iterable[Block]) -> Iterator[Block]:
        for chunk in chunks:
            self._hasher.update(chunk)
            self.size += len(chunk)
            yield chunk

    def digest(self) -> str:
        return self._hasher.hexdigest()


def in_blocks(chunks: Iterable[Block], size: int = BLOCK) -> Iterator[Block]:
    """Cut and join chunks of any size into blocks of `size` bytes, the last one shorter."""
    held = bytearray()
    for chunk in chunks:
        if not held and len(chunk) == size and isinstance(chunk, bytes):
            yield chunk  # nothing to join: no copy; a buffer could be used again by its owner
            continue
        with memoryview(chunk) as view:  # let go of before the source goes on
            start = 0
            while start < len(chunk):
                end = min(start + size - len(held), len(chunk))
                held += view[start:end]
                start = end
                if len(held) == size:
                    yield held
                    held = bytearray()
    if held:
        yield held


def file_blocks(file: IO[bytes]) -> Iterator[bytes]:
    """Read an open file to its end, in blocks."""
    while block := file.read(BLOCK):
        yield block


def in_order(futures: Iterator[Future[bytes]], ahead: int) -> Iterator[bytes]:
    """Give results in order while `ahead` of them are under way; none is begun after the end."""
    waiting: list[Future[bytes]] = list(islice(futures, ahead))
    try:
        while waiting:
            result = waiting.pop(0).result()
            waiting.extend(islice(futures, 1))
            yield result
    finally:
        for future in waiting:
            future.cancel()


def payload_path(sha256: str) -> str:
    """Give a payload's place in the vault. Raises InputError for what is no SHA-256."""
    if not _DIGEST.fullmatch(sha256):
        raise InputError(
            f"not a SHA-256: {sha256[:80]!r}", remedy="give 64 lower-case hexadecimal digits"
        )
    return f"{PAYLOADS}{sha256[:2]}/{sha256}"


def _digest_of(path: str) -> str | None:
    sha256 = path.rpartition("/")[2]
    return sha256 if _DIGEST.fullmatch(sha256) and payload_path(sha256) == path else None


def _manifest_path(snapshot: str) -> str:
    if not _SNAPSHOT.fullmatch(snapshot) or ".." in snapshot:
        raise InputError(
            f"not a snapshot id: {snapshot[:80]!r}", remedy="give an id as `muster log` shows it"
        )
    return f"{MANIFESTS}{snapshot}.json"


def _bundle_path(name: str) -> str:
    if not _BUNDLE.fullmatch(name):
        raise InputError(f"not a bundle's name: {name[:80]!r}", remedy="<time>-<commit>.bundle")
    return LEDGER + name


def bundle_chain(name: str, names: Iterable[str]) -> tuple[str, ...]:
    """Give the bundles that are needed to read `name`, in order, itself the last.

    `<snapshot>-<commit>.bundle` holds everything; `<snapshot>-<commit>.on-<commit of that>.bundle`
    holds what came since, and since the others upon it.
    """
    upon = _UPON.fullmatch(name)
    if not upon:
        return (name,)
    every = sorted(names)
    whole = [n for n in every if n.endswith(f"-{upon[1]}.bundle") and not _UPON.fullmatch(n)]
    parts = [n for n in every if n.endswith(f".on-{upon[1]}.bundle") and n < name]
    return (*whole[-1:], *parts, name)


def _document_path(path: str) -> None:
    """Refuse what is no path of a document, on any file system."""
    segments = path.split("/")
    if (
        len(path) > 400
        or segments[0].lower() in _RESERVED
        or not all(
            _SEGMENT.fullmatch(s) and not s.endswith(".") and not _DEVICES.fullmatch(s)
            for s in segments
        )
    ):
        raise InputError(
            f"not a document's path: {path[:120]!r}",
            remedy="use letters, digits and ._=@+- between slashes, and no reserved folder: "
            + ", ".join(sorted(_RESERVED)),
        )


def _line(sha256: str) -> bytes:
    return f"{sha256}\n".encode()


def _damage(found: tuple[str, Problem, str], named: Mapping[str, _Named]) -> Damage:
    path, problem, detail = found
    use = named.get(_digest_of(path) or "")
    if use is None:
        return Damage(path, problem, detail)
    return Damage(path, problem, detail, tuple(sorted(use.snapshots)), tuple(sorted(use.keys)))


def _marks(marks: Mapping[str, _Mark]) -> bytes:
    return pretty(
        {
            "condemned": {
                sha256: {"since": mark.since.astimezone(UTC).isoformat(), "etag": mark.etag}
                for sha256, mark in marks.items()
            }
        }
    )


def _key_text(key: bytes) -> bytes:
    return f"{_KEY_FORMAT} {key.hex()} {digest(key)[:16]}\n".encode()


def _key_in(data: bytes) -> bytes | None:
    """Read back what `_key_text` wrote; None when a bit of it changed."""
    try:
        form, text, proof = data.decode("ascii").split()
        key = bytes.fromhex(text)
    except ValueError:
        return None
    whole = form == _KEY_FORMAT and len(key) == 32 and hmac.compare_digest(digest(key)[:16], proof)
    return key if whole else None


def _key_of_file(path: Path) -> bytes:
    remedy = "write 64 hexadecimal digits into it, once: openssl rand -hex 32"
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(
            f"the file with the key of the fingerprints cannot be read: {reason}",
            where=str(path),
            remedy=remedy,
        ) from None
    if not _DIGEST.fullmatch(text.lower()):
        raise SettingsError(
            "the file with the key of the fingerprints does not hold a key",
            where=str(path),
            remedy=remedy,
        )
    return bytes.fromhex(text)
