"""The nouns of muster: frozen values without I/O and without imports of ours.

Terms are those of docs/terms.md, one class each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import TypeAlias
from urllib.parse import quote, unquote

import orjson

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
JsonObject: TypeAlias = dict[str, Json]

_KEY_SAFE = " !$&'()*+,;=:@-._~[]"


@lru_cache(maxsize=65536)  # account names come back for each of ten thousand deployments
def _quoted(part: str) -> str:
    return quote(part, safe=_KEY_SAFE)


@lru_cache(maxsize=16384)
def _quoted_within(parts: tuple[str, ...]) -> str:
    return "".join([f"/{_quoted(part)}" for part in parts])


class Recovery(StrEnum):
    """How a kind comes back after it was lost."""

    RESTORED = "restored"  # same identity
    RECREATED = "recreated"  # new id, carried through the IdMap
    COPIED = "copied"  # server-side, from the source region
    REBUILT = "rebuilt"  # hours: retraining
    RECORDED = "recorded"  # history only
    LOST = "lost"  # Azure cannot bring it back


class GapReason(StrEnum):
    """Why something could not be read."""

    DENIED = "denied"
    THROTTLED = "throttled"
    UNREACHABLE = "unreachable"
    REGION_DOWN = "region-down"
    DAMAGED = "damaged-answer"
    UNSUPPORTED = "unsupported"
    FAILED = "failed"


class ChangeType(StrEnum):
    """What happened to a resource between two states."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """A resource's name in the estate, the same in every snapshot: kind / path of names.

    `path` runs from the outside in: subscription id, resource group, account, (project,) own name.
    Names of Azure Resource Manager are lower-case here, since ARM compares them without case; the
    body keeps the name as Azure spells it.
    """

    kind: str
    path: tuple[str, ...]

    @property
    def name(self) -> str:
        """The resource's own name, the last of the path."""
        return self.path[-1]

    @property
    def subscription(self) -> str:
        """The subscription's id, the first of the path."""
        return self.path[0]

    @property
    def within(self) -> tuple[str, ...]:
        """The names of what holds the resource, outermost first."""
        return self.path[:-1]

    def __str__(self) -> str:
        text = self.kind + _quoted_within(self.path[:-1])
        if self.path:
            text += "/" + _quoted(self.path[-1])
        # parse() takes white space off the end, which a user may have typed.
        bare = text.rstrip(" ")
        return bare + "%20" * (len(text) - len(bare))

    @classmethod
    def parse(cls, text: str) -> Key:
        """Read back what `str(key)` wrote. Raises ValueError when there is no name."""
        kind, *path = text.strip().split("/")
        if not kind or not path or not all(path):
            message = f"not a key: {text!r} (expected kind/name/…/name)"
            raise ValueError(message)
        return cls(kind, tuple(unquote(part) for part in path))


@dataclass(frozen=True, slots=True, order=True)
class Payload:
    """Bytes known by their SHA-256: training files, result files, model artifacts, golden data."""

    name: str  # its role beside the resource: "content", "result:0"
    sha256: str  # 64 lower-case hex digits
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Resource:
    """One thing as it was when read: key, canonical body, digests of its payloads."""

    key: Key
    id: str  # the ARM id, or the data plane's id, as read
    body: JsonObject
    payloads: tuple[Payload, ...] = ()

    def document(self) -> JsonObject:
        """What the ledger keeps of it, as JSON."""
        document: JsonObject = {
            "kind": self.key.kind,
            "key": str(self.key),
            "id": self.id,
            "body": self.body,
        }
        if self.payloads:
            document["payloads"] = [
                {"name": p.name, "sha256": p.sha256, "size": p.size} for p in self.payloads
            ]
        return document

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Resource:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        key, id_, body = document.get("key"), document.get("id"), document.get("body")
        payloads = document.get("payloads", [])
        if not isinstance(key, str) or not isinstance(id_, str) or not isinstance(body, dict):
            message = "not a resource document: key, id and body are needed"
            raise ValueError(message)
        if not isinstance(payloads, list):
            message = f"not a resource document: payloads of {key} is not a list"
            raise ValueError(message)
        found: list[Payload] = []
        for item in payloads:
            match item:
                case {"name": str(name), "sha256": str(sha256), "size": int(size)}:
                    found.append(Payload(name, sha256, size))
                case _:
                    message = f"not a resource document: damaged payload of {key}"
                    raise ValueError(message)
        return cls(Key.parse(key), id_, body, tuple(found))


def canonical(value: object) -> bytes:
    """The one byte form that decides equality: UTF-8 JSON, keys sorted, no white space."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def pretty(value: object) -> bytes:
    """The form people read in the ledger: sorted keys, two spaces, LF, final newline."""
    return orjson.dumps(
        value, option=orjson.OPT_SORT_KEYS | orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
    )


def digest(data: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


@dataclass(frozen=True, slots=True, order=True)
class Gap:
    """Something that could not be read, and why. Never treated as absent.

    `key` names one resource, or, when `listing` is true, a whole listing: then its path is what
    holds the listed (subscription; subscription, group, account; …) and `hides` names every kind
    that could not be seen because of it, the listed one and its descendants.
    """

    key: Key
    reason: GapReason
    detail: str  # one line for people: never a secret
    listing: bool = False
    hides: tuple[str, ...] = ()
    status: int | None = None  # HTTP status, when there was an answer
    code: str | None = None  # Azure's error code, when there was one

    def covers(self, key: Key) -> bool:
        """Whether this gap may hide the resource called `key`."""
        if not self.listing:
            return key == self.key
        return key.kind in self.hides and key.path[: len(self.key.path)] == self.key.path

    def document(self) -> JsonObject:
        """What the ledger's gaps.json keeps of it."""
        return {
            "key": str(self.key),
            "reason": self.reason.value,
            "detail": self.detail,
            "listing": self.listing,
            "hides": list(self.hides),
            "status": self.status,
            "code": self.code,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Gap:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        match document:
            case {"key": str(key), "reason": str(reason), "detail": str(detail)}:
                hides, status, code = (document.get(k) for k in ("hides", "status", "code"))
                return cls(
                    Key.parse(key),
                    GapReason(reason),
                    detail,
                    listing=bool(document.get("listing", False)),
                    hides=tuple(str(h) for h in hides) if isinstance(hides, list) else (),
                    status=status if isinstance(status, int) else None,
                    code=code if isinstance(code, str) else None,
                )
            case _:
                message = "not a gap document: key, reason and detail are needed"
                raise ValueError(message)


@dataclass(frozen=True, slots=True)
class CallCount:
    """How many requests a piece of work sent, and how many would have been enough."""

    made: int = 0
    floor: int = 0  # the least the API allows for what was found
    throttled: int = 0  # answers 429
    retried: int = 0
    by_kind: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an estate at one moment: resources, gaps, when, by which version."""

    estate: str
    taken_at: datetime  # aware, UTC
    version: str  # of muster
    resources: Mapping[Key, Resource]
    gaps: tuple[Gap, ...] = ()
    reference: Mapping[str, Json] = field(default_factory=dict)  # path below reference/ -> JSON
    calls: CallCount = field(default_factory=CallCount)
    seconds: float = 0.0
    id: str = ""  # the commit that keeps it, once it is kept
    # What a gap hid, as it was last read: known once, not known now.
    stale: Mapping[Key, Resource] = field(default_factory=dict)

    def hidden(self, key: Key) -> Gap | None:
        """The gap that may hide `key`, if there is one."""
        return next((gap for gap in self.gaps if gap.covers(key)), None)


@dataclass(frozen=True, slots=True)
class PathChange:
    """One property that differs, by its RFC 6901 pointer into the document's body.

    `before` or `after` is `MISSING` where the property is not there (null is a value).
    """

    path: str
    before: Json | Missing
    after: Json | Missing


class Missing:
    """The type of MISSING: a property that is not there, as opposed to one that is null."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING = Missing()


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two states: added, removed, changed or unknown, with the paths."""

    type: ChangeType
    key: Key
    before: Resource | None = None
    after: Resource | None = None
    paths: Sequence[PathChange] = ()
    gap: Gap | None = None  # why, when the type is unknown
    renamed_from: Key | None = None  # the same id was there under this key
