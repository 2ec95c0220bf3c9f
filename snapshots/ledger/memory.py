"""What the newest commit holds, remembered beside it: what did not change is not made again.

A snapshot is looked at in small groups of neighbours. A group whose compact form has the digest it
had last time has the documents it had last time, so they are neither written out nor hashed. The
memory is a help and never the truth: it counts only for the very commit it was written after, whole
and by the same rules of writing, and without it every document is made and compared.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from io import FileIO
from itertools import accumulate
from pathlib import Path
from typing import Final, Self, TypeAlias

import orjson
from blake3 import blake3

from snapshots.ledger.documents import blob_id
from snapshots.ledger.paths import path_of
from snapshots.model import Key, Resource, pretty

MEMORY: Final = "muster.memory"
_DIGEST: Final = 32  # bytes
_LAST: Final = 32  # bytes
_GROUP: Final = 12  # resources: a change makes each of its group be looked at by itself
_SAMPLE: Final = Resource(
    Key("Kind", ("Sub", "a b", "é")), "/Id", {"b": [1, 2.5, None], "a": {"é": True}}
)


Buffer: TypeAlias = "bytes | memoryview"


@dataclass(slots=True)
class Group:
    """Neighbours in a snapshot, and the digest of all that their documents are made from."""

    digest: bytes
    resources: list[Resource]


@dataclass(frozen=True, slots=True)
class Documents:
    """Some documents of a commit: path -> blob id, and mark -> line."""

    files: Mapping[str, str] = field(default_factory=dict)
    lines: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, text: Buffer) -> Self:
        """Read lines `<blob id> <mark> <path>`."""
        lines = str(text, "utf-8").split("\n") if len(text) else []
        return cls({line[82:]: line[:40] for line in lines}, {line[41:81]: line for line in lines})


@dataclass(slots=True)
class Memory:
    """What a commit's tree holds: documents by group, and all other files, path -> blob id.

    A group's lines are `<blob id> <mark> <path>`, one for each document, as bytes. Its digest tells
    that none of them changed, the marks which of them did.
    """

    commit: str
    groups: Mapping[bytes, Buffer]  # digest -> lines, in the order of the snapshot
    rest: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, commit: str) -> Self | None:
        """Give what is remembered of `commit`; None when it is nothing that can be relied on."""
        try:
            data = memoryview((folder / MEMORY).read_bytes())
        except OSError:
            return None
        body, last = data[:-_LAST], bytes(data[-_LAST:])
        if last != _last(_sum(body), commit):
            return None
        # A megabyte of paths that hardly any commit looks at: it is not made into objects.
        size = int.from_bytes(body[:8], "big")
        head = orjson.loads(body[8 : 8 + size])
        if head["form"] != _form():
            return None
        sizes: list[int] = head["sizes"]
        start = 8 + size
        digests = bytes(body[start : start + _DIGEST * len(sizes)])
        ends = list(accumulate(sizes, initial=start + len(digests)))
        groups = {
            digests[_DIGEST * n : _DIGEST * (n + 1)]: body[ends[n] : ends[n + 1]]
            for n in range(len(sizes))
        }
        return cls(commit, groups, head["rest"])

    def files(self) -> dict[str, str]:
        """Give path -> blob id of the whole tree."""
        return {**self.without(()).files, **self.rest}

    def without(self, digests: Container[bytes]) -> Documents:
        """Give the documents of all groups but these."""
        lines = [text for digest, text in self.groups.items() if digest not in digests]
        return Documents.read(b"\n".join(lines))


class Neighbours:
    """The documents that a changed group most likely had before.

    It is a guess by order that saves waiting for all other groups: what it gives is true of the
    commit, yet a path that is not in it may be elsewhere.
    """

    def __init__(self, memory: Memory) -> None:
        self._groups = list(memory.groups.values())
        self._places = {digest: place for place, digest in enumerate(memory.groups)}
        self._at = -1

    def same(self, digest: bytes) -> Buffer | None:
        """Give the lines of a group that is as it was; None for another."""
        place = self._places.get(digest)
        if place is None:
            return None
        self._at = place
        return self._groups[place]

    def next(self) -> Documents:
        """Give the documents of the group that stood behind the last one."""
        self._at += 1
        return Documents.read(self._groups[self._at] if self._at < len(self._groups) else b"")


class Draft:
    """What is to be remembered of a commit, written down while Git still makes it.

    It is written over what was remembered before, which saves the file system a new file; without
    its last line it is no memory, and a write that a power cut tore does not have its digest. A
    failure is no failure of the ledger: nothing is remembered then.
    """

    def __init__(
        self, folder: Path, groups: Mapping[bytes, Buffer], rest: Mapping[str, str]
    ) -> None:
        sizes = [len(memoryview(lines)) for lines in groups.values()]
        self._file: FileIO | None = None
        try:
            head = orjson.dumps({"form": _form(), "rest": rest, "sizes": sizes})
        except TypeError:  # somebody's own file has a path that is no text: nothing is remembered
            self._sum = b""
            return
        body = b"".join([len(head).to_bytes(8, "big"), head, *groups, *groups.values()])
        self._sum = _sum(body)
        with suppress(OSError):
            self._file = FileIO(os.open(folder / MEMORY, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            _write(self._file, body)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def of(self, commit: str) -> None:
        """Say which commit it is: only now is it the memory."""
        if self._file is not None:
            with suppress(OSError):
                _write(self._file, _last(self._sum, commit))
                self._file.truncate()


def marked(resource: Resource) -> str:
    """Give a digest of all that its document is made from, as long as Git's own."""
    form = orjson.dumps(
        (resource.key.kind, resource.key.path, resource.id, resource.body, resource.payloads)
    )
    return blake3(form).hexdigest(20)


def grouped(resources: Iterable[Resource]) -> Iterator[Group]:
    """Cut a snapshot into groups: what comes or goes moves only its own resource group's."""
    every = list(resources)
    start = 0
    while start < len(every):
        stop = min(start + _GROUP, len(every))
        here = every[start].key.path[:2]
        while every[stop - 1].key.path[:2] != here:
            stop -= 1
        group = every[start:stop]
        start = stop
        # One JSON of all that their documents are made from. Names of a body in another order
        # give another digest, which costs a comparison and hides nothing.
        form = orjson.dumps([(r.key.kind, r.key.path, r.id, r.body, r.payloads) for r in group])
        yield Group(blake3(form).digest(), group)


def _sum(body: Buffer) -> bytes:
    return blake3(body).digest()


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: one write may take less than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _last(body_sum: bytes, commit: str) -> bytes:
    """Give the end of the file: it holds for these bytes and this commit only."""
    return blake3(body_sum + commit.encode()).digest()


@cache
def _form() -> str:
    """What a document looks like and where it lies, as this version of muster has it."""
    return f"4 {path_of(_SAMPLE.key)} {blob_id(pretty(_SAMPLE.document()))}"
