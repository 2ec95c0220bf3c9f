"""What the newest commit holds, remembered beside it: what did not change is not made again.

A snapshot is looked at in small groups of neighbours. A group whose compact form has the digest it
had last time has the documents it had last time, so they are neither written out nor hashed. The
memory is a help and never the truth: it counts only for the very commit it was written after, whole
and by the same rules of writing, and without it every document is made and compared.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from io import FileIO
from itertools import takewhile
from pathlib import Path
from typing import Final, Self

import orjson

from snapshots.ledger.documents import blob_id
from snapshots.ledger.paths import path_of
from snapshots.model import Key, Resource, pretty

MEMORY: Final = "muster.memory"
_GROUP: Final = 6  # resources: a change makes its whole group be written out and compared
_SAMPLE: Final = Resource(
    Key("Kind", ("Sub", "a b", "é")), "/Id", {"b": [1, 2.5, None], "a": {"é": True}}
)


@dataclass(slots=True)
class Group:
    """Neighbours in a snapshot, and the digest of all that their documents are made from."""

    digest: str
    resources: list[Resource]


@dataclass(slots=True)
class Memory:
    """What a commit's tree holds: documents by group, and all other files, path -> blob id."""

    commit: str
    groups: Mapping[str, str]  # digest -> a line `<blob id> <path>` for each document
    rest: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path, commit: str) -> Self | None:
        """Give what is remembered of `commit`; None when it is nothing that can be relied on."""
        try:
            data = (folder / MEMORY).read_bytes()
        except OSError:
            return None
        body, _, last = data.rpartition(b"\n")
        if last != _last(_sum(body), commit):
            return None
        found = orjson.loads(body)
        if found["form"] != _form():
            return None
        return cls(commit, found["groups"], found["rest"])

    def files(self) -> dict[str, str]:
        """Give path -> blob id of the whole tree."""
        return documents("\n".join(self.groups.values())) | dict(self.rest)

    def without(self, digests: Container[str]) -> dict[str, str]:
        """Give path -> blob id of what is not in one of these groups."""
        lines = [text for digest, text in self.groups.items() if digest not in digests]
        return documents("\n".join(lines)) | dict(self.rest)


class Draft:
    """What is to be remembered of a commit, written down while Git still makes it.

    It is written over what was remembered before, which saves the file system a new file; without
    its last line it is no memory, and a write that a power cut tore does not have its digest. A
    failure is no failure of the ledger: nothing is remembered then.
    """

    def __init__(self, folder: Path, groups: Mapping[str, str], rest: Mapping[str, str]) -> None:
        body = orjson.dumps({"form": _form(), "groups": groups, "rest": rest})
        self._sum = _sum(body)
        self._file: FileIO | None = None
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
                _write(self._file, b"\n" + _last(self._sum, commit))
                self._file.truncate()


def documents(lines: str) -> dict[str, str]:
    """Give path -> blob id of lines."""
    return {line[41:]: line[:40] for line in lines.split("\n")} if lines else {}


def grouped(resources: Iterable[Resource]) -> Iterator[Group]:
    """Cut a snapshot into groups: what comes or goes moves only its own resource group's."""
    every = list(resources)
    start = 0
    while start < len(every):
        group = every[start : start + _GROUP]
        here = group[0].key.path[:2]
        if group[-1].key.path[:2] != here:
            same = len(list(takewhile(here.__eq__, (item.key.path[:2] for item in group))))
            group = group[:same]
        start += len(group)
        yield Group(_digest(group), group)


def _digest(group: list[Resource]) -> str:
    """Give a digest of all that the documents are made from: of their marks, if all have one."""
    marks = [resource.mark for resource in group]
    if all(marks):
        return hashlib.sha256(b"".join(marks)).hexdigest()
    # Keys in another order give another digest, which costs a comparison and hides nothing.
    form = [(r.key.kind, r.key.path, r.id, r.body, r.payloads) for r in group]
    return hashlib.sha256(orjson.dumps(form)).hexdigest()


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).digest()


def _write(file: FileIO, data: bytes) -> None:
    """Write all of it: one write may take less than it was given."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _last(body_sum: bytes, commit: str) -> bytes:
    """Give the last line of the file: it holds for these bytes and this commit only."""
    return hashlib.sha256(body_sum + commit.encode()).hexdigest().encode()


@cache
def _form() -> str:
    """What a document looks like and where it lies, as this version of muster has it."""
    return f"2 {path_of(_SAMPLE.key)} {blob_id(pretty(_SAMPLE.document()))}"
