"""What the newest commit holds, remembered beside it: what did not change is not made again.

A snapshot is looked at in small groups of neighbours. A group whose compact form has the digest it
had last time has the documents it had last time, so they are neither written out nor hashed. The
memory is a help and never the truth: it counts only for the very commit it was written after, whole
and by the same rules of writing, and without it every document is made and compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Final, Self

import orjson

from snapshots.ledger.documents import blob_id
from snapshots.ledger.paths import path_of
from snapshots.model import Key, Resource, pretty

MEMORY: Final = "muster.memory"
_GROUP: Final = 12  # resources: a change makes its whole group be written out and compared
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
        told, _, body = data.partition(b"\n")
        if told != _sum(body):
            return None
        found = orjson.loads(body)
        if found["form"] != _form() or found["commit"] != commit:
            return None
        return cls(commit, found["groups"], found["rest"])

    def write(self, folder: Path) -> None:
        """Remember. A failure is no failure of the ledger: nothing is remembered then.

        A write that a power cut tore does not have its digest, so it is not synced.
        """
        body = orjson.dumps(
            {"form": _form(), "commit": self.commit, "groups": self.groups, "rest": self.rest}
        )
        draft = folder / f"{MEMORY}.new"
        with suppress(OSError):
            draft.write_bytes(_sum(body) + b"\n" + body)
            draft.replace(folder / MEMORY)

    def files(self) -> dict[str, str]:
        """Give path -> blob id of the whole tree."""
        return documents("\n".join(self.groups.values())) | dict(self.rest)

    def without(self, digests: Container[str]) -> dict[str, str]:
        """Give path -> blob id of what is not in one of these groups."""
        lines = [text for digest, text in self.groups.items() if digest not in digests]
        return documents("\n".join(lines)) | dict(self.rest)


def documents(lines: str) -> dict[str, str]:
    """Give path -> blob id of lines."""
    return {line[41:]: line[:40] for line in lines.split("\n")} if lines else {}


def grouped(resources: Iterable[Resource]) -> Iterator[Group]:
    """Cut a snapshot into groups: what comes or goes moves only its own resource group's."""
    group: list[Resource] = []
    last: tuple[str, ...] = ()
    for resource in resources:
        here = resource.key.path[:2]
        if group and (len(group) == _GROUP or here != last):
            yield _group(group)
            group = []
        group.append(resource)
        last = here
    if group:
        yield _group(group)


def _group(resources: list[Resource]) -> Group:
    # Keys in another order give another digest, which costs a comparison and hides nothing.
    form = orjson.dumps([(r.key.kind, r.key.path, r.id, r.body, r.payloads) for r in resources])
    return Group(hashlib.sha256(form).hexdigest(), resources)


def _sum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()


@cache
def _form() -> str:
    """What a document looks like and where it lies, as this version of muster has it."""
    return f"1 {path_of(_SAMPLE.key)} {blob_id(pretty(_SAMPLE.document()))}"
