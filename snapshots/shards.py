"""A snapshot in pieces: an order, the captures that workers pack into the vault, and their sum."""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

import orjson

from snapshots.errors import ConcurrentError, DamagedStoreError, InputError
from snapshots.kinds import KINDS, descendants
from snapshots.kinds.base import SUBSCRIPTION, Kind
from snapshots.model import (
    CallCount,
    Gap,
    GapReason,
    Json,
    JsonObject,
    Key,
    Resource,
    Snapshot,
    canonical,
)
from snapshots.secrets import Fingerprints
from snapshots.take import Cloud, Now, Payloads, Progress, Scope, TakeOptions, take

FORMAT: Final = 1
FOLDER: Final = "shards"
_RUN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,63}")
_MOST: Final = 256  # shards of one snapshot
# Azure's cap on all principals of one subscription together: 15 times that of one.
# https://learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
MOST_PARTS: Final = 15


class Documents(Protocol):
    """Where orders and captures are kept: what sharding asks of the vault."""

    @property
    def location(self) -> str:
        """The vault's address, for messages."""
        ...

    def keep_document(self, path: str, data: bytes) -> None:
        """Keep a document once. Raises ConcurrentError when other bytes are there."""
        ...

    def read_document(self, path: str) -> _Held:
        """Read a document. Raises NotFoundError."""
        ...

    def documents(self, prefix: str = "") -> tuple[str, ...]:
        """List documents."""
        ...


class _Held(Protocol):
    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Shard:
    """What one worker reads: some subscriptions, and of each one part of its accounts.

    With `parts` over 1 the accounts of each subscription are dealt out by their names, so that
    several principals, each with a budget of its own, share one subscription. What hangs on the
    subscription itself (groups, role assignments, locks, reference data) belongs to part 0.
    """

    number: int
    subscriptions: tuple[str, ...]
    part: int = 0
    parts: int = 1

    @property
    def name(self) -> str:
        """A name for people and for files: "shard-003"."""
        return f"shard-{self.number:03d}"

    def has(self, key: Key) -> bool:
        """Whether this shard reads the account `key`, with all that lies below it."""
        if self.parts == 1:
            return True
        name = "/".join(key.path[:3]).encode()
        return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") % self.parts == self.part


@dataclass(frozen=True, slots=True)
class Order:
    """One sharded snapshot: who reads what, how, and which files are known already."""

    run: str  # tells this snapshot from every other: letters, digits, dashes
    estate: str
    version: str
    scopes: tuple[Scope, ...]
    shards: tuple[Shard, ...]
    options: TakeOptions = field(default_factory=TakeOptions)
    earlier: tuple[Resource, ...] = ()  # of the snapshot before: `worth_knowing`

    def shard(self, number: int) -> Shard:
        """Give a shard. Raises InputError."""
        for shard in self.shards:
            if shard.number == number:
                return shard
        raise InputError(
            f"run {self.run} has no shard {number}",
            where="shard",
            remedy=f"its shards are 0 to {len(self.shards) - 1}",
        )


@dataclass(frozen=True, slots=True)
class Capture:
    """What one worker read of one shard."""

    run: str
    number: int
    snapshot: Snapshot
    read_at: datetime | None = None  # when reading began, by Azure's clock


def deal(scopes: Sequence[Scope], *, groups: int = 1, parts: int = 1) -> tuple[Shard, ...]:
    """Cut an estate into shards: subscriptions into `groups`, the accounts of each into `parts`.

    Groups are for workers that share a principal (Azure counts each subscription by itself), parts
    for workers that have one each. Never more groups than subscriptions. Raises InputError.
    """
    subscriptions = sorted({scope.subscription for scope in scopes})
    if not subscriptions:
        raise InputError("nothing to look at: no scope", where="estate.scope")
    if groups < 1 or parts < 1:
        raise InputError(
            "a snapshot has at least one group and one part",
            where="groups, parts",
            remedy="give whole numbers of 1 or more",
        )
    if parts > MOST_PARTS:
        raise InputError(
            f"{parts} parts are more than Azure serves",
            where="parts",
            remedy=f"at most {MOST_PARTS}: all principals of a subscription share 15 times the"
            " budget of one",
        )
    groups = min(groups, len(subscriptions))
    if groups * parts > _MOST:
        raise InputError(
            f"{groups * parts} shards are too many", where="groups", remedy=f"at most {_MOST}"
        )
    dealt = [tuple(subscriptions[group::groups]) for group in range(groups)]
    return tuple(
        Shard(number, dealt[number // parts], number % parts, parts)
        for number in range(groups * parts)
    )


def worth_knowing(previous: Snapshot | None, kinds: Sequence[Kind] = KINDS) -> tuple[Resource, ...]:
    """Give what workers need of the snapshot before: whose bytes are known, and what may vanish."""
    if previous is None:
        return ()
    listed = {kind.name for kind in kinds if kind.parent == SUBSCRIPTION and not kind.attached}
    known = {**previous.stale, **previous.resources}
    return tuple(
        resource for key, resource in known.items() if resource.payloads or key.kind in listed
    )


def take_shard(
    order: Order,
    number: int,
    cloud: Cloud,
    *,
    fingerprints: Fingerprints,
    clock: Now,
    payloads: Payloads | None = None,
    progress: Callable[[Progress], None] | None = None,
    kinds: Sequence[Kind] = KINDS,
) -> Snapshot:
    """Read what a shard is asked to read; what cannot be read is a Gap, as in `take`."""
    shard = order.shard(number)
    tops = _holders(kinds)
    first = shard.part == 0
    before = Snapshot(order.estate, clock.now(), order.version, {r.key: r for r in order.earlier})
    read = take(
        order.estate,
        [scope for scope in order.scopes if scope.subscription in shard.subscriptions],
        cloud,
        fingerprints=fingerprints,
        clock=clock,
        version=order.version,
        previous=before if order.earlier else None,
        payloads=payloads,
        progress=progress,
        options=order.options if first else replace(order.options, reference=False),
        kinds=[k for k in kinds if first or k.parent != SUBSCRIPTION or k.name in tops],
        descend=lambda resource: shard.has(resource.key),
        confirm=first,
    )
    if shard.parts == 1:
        return read
    below = frozenset(name for top in tops for name in descendants(top, kinds))
    return replace(
        read,
        resources={
            key: resource
            for key, resource in read.resources.items()
            if (shard.has(key) if key.kind in below else first)
        },
    )


def join(
    order: Order,
    captures: Iterable[Capture],
    *,
    clock: Now,
    lost: Mapping[int, str] | None = None,
    kinds: Sequence[Kind] = KINDS,
) -> tuple[Snapshot, datetime | None]:
    """Make one snapshot of the captures; give it, and when its reading began by Azure's clock.

    A shard without a capture is a Gap over all that its subscriptions hold, never an absence;
    `lost` says why, by number. Raises InputError for a capture of another run.
    """
    found: dict[int, Capture] = {}
    for capture in captures:
        if capture.run != order.run:
            raise InputError(f"a capture of run {capture.run} is not one of run {order.run}")
        found.setdefault(order.shard(capture.number).number, capture)
    resources: dict[Key, Resource] = {}
    gaps: set[Gap] = set()
    reference: dict[str, Json] = {}
    for _, capture in sorted(found.items()):
        resources.update(capture.snapshot.resources)
        gaps.update(capture.snapshot.gaps)
        reference.update(capture.snapshot.reference)
    for shard in order.shards:
        if shard.number not in found:
            gaps.update(_unread(shard, (lost or {}).get(shard.number, ""), kinds))
    taken = [capture.snapshot for capture in found.values()]
    began = min((s.taken_at for s in taken), default=clock.now())
    ended = max((s.taken_at.timestamp() + s.seconds for s in taken), default=began.timestamp())
    by_azure = [c.read_at for c in found.values() if c.read_at is not None]
    return (
        Snapshot(
            estate=order.estate,
            taken_at=began,
            version=order.version,
            resources=dict(sorted(resources.items())),
            gaps=tuple(sorted(gaps, key=lambda gap: (gap.key, gap.reason.value, gap.listing))),
            reference=dict(sorted(reference.items())),
            calls=_sum(s.calls for s in taken),
            seconds=ended - began.timestamp(),
        ),
        # Audits need a lower bound: one unknown beginning makes the whole unknown.
        min(by_azure) if len(by_azure) == len(order.shards) else None,
    )


def _holders(kinds: Sequence[Kind]) -> frozenset[str]:
    """Give the kinds that a subscription lists and that hold others."""
    parents = {kind.parent for kind in kinds}
    return frozenset(
        kind.name for kind in kinds if kind.parent == SUBSCRIPTION and kind.name in parents
    )


def _unread(shard: Shard, why: str, kinds: Sequence[Kind]) -> list[Gap]:
    tops = _holders(kinds)
    seen = [
        kind.name
        for kind in kinds
        if kind.parent == SUBSCRIPTION and (shard.part == 0 or kind.name in tops)
    ]
    hides = tuple(sorted({name for top in seen for name in descendants(top, kinds)}))
    detail = f"{shard.name} was not read" + (f": {why}" if why else "")
    return [
        Gap(Key(seen[0], (name,)), GapReason.UNREACHABLE, detail, listing=True, hides=hides)
        for name in shard.subscriptions
    ]


def _sum(counts: Iterable[CallCount]) -> CallCount:
    whole = CallCount()
    for count in counts:
        whole = CallCount(
            whole.made + count.made,
            whole.floor + count.floor,
            whole.throttled + count.throttled,
            whole.retried + count.retried,
            {
                kind: whole.by_kind.get(kind, 0) + count.by_kind.get(kind, 0)
                for kind in sorted({*whole.by_kind, *count.by_kind})
            },
        )
    return whole


# ---- in the vault ---------------------------------------------------------------------------


def keep_order(vault: Documents, order: Order) -> None:
    """Keep an order, once. Raises InputError for a bad name, ConcurrentError for a used one."""
    if not _RUN.fullmatch(order.run):
        raise InputError(
            f"not a name for a run: {order.run!r}",
            where="run",
            remedy="use letters, digits and dashes, at most 64",
        )
    vault.keep_document(_path(order.run, "order"), _packed(_order_document(order)))


def read_order(vault: Documents, run: str) -> Order:
    """Read an order. Raises NotFoundError, DamagedStoreError."""
    if not _RUN.fullmatch(run):
        raise InputError(f"not a name of a run: {run!r}", where="run")
    path = _path(run, "order")
    document = _unpacked(vault, path)
    try:
        return _order(document)
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise _damaged(vault, path) from error


def keep_capture(vault: Documents, capture: Capture) -> bool:
    """Keep a capture; False when the shard has one already, which stays: the first one counts."""
    path = _path(capture.run, f"shard-{capture.number:03d}")
    try:
        vault.keep_document(path, _packed(_capture_document(capture)))
    except ConcurrentError:
        read_capture(vault, capture.run, capture.number)  # whole, or this says what is wrong
        return False
    return True


def read_capture(vault: Documents, run: str, number: int) -> Capture:
    """Read a capture. Raises NotFoundError, DamagedStoreError."""
    path = _path(run, f"shard-{number:03d}")
    document = _unpacked(vault, path)
    try:
        return _capture(document)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged(vault, path) from error


def captured(vault: Documents, order: Order) -> frozenset[int]:
    """Give the numbers of the shards that have a capture in the vault."""
    there = frozenset(vault.documents(f"{FOLDER}/{order.run}/"))
    return frozenset(s.number for s in order.shards if _path(order.run, s.name) in there)


def beat_path(run: str, number: int) -> str:
    """Where the worker of a shard leaves its signs of life."""
    return f"{FOLDER}/{run}/shard-{number:03d}.beat"


def _path(run: str, name: str) -> str:
    return f"{FOLDER}/{run}/{name}.json.gz"


def _packed(document: JsonObject) -> bytes:
    # No time of packing: the same capture has the same bytes.
    return gzip.compress(canonical(document), compresslevel=6, mtime=0)


def _unpacked(vault: Documents, path: str) -> JsonObject:
    data = vault.read_document(path).data
    try:
        document = orjson.loads(gzip.decompress(data))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise _damaged(vault, path) from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _damaged(vault, path)
    return document


def _damaged(vault: Documents, path: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"{path} cannot be read",
        where=vault.location,
        remedy="take the snapshot again: a new run uses new names",
    )


def _order_document(order: Order) -> JsonObject:
    options = order.options
    return {
        "format": FORMAT,
        "run": order.run,
        "estate": order.estate,
        "version": order.version,
        "scopes": [
            {
                "subscription": scope.subscription,
                "resource_groups": list(scope.resource_groups),
                "accounts": list(scope.accounts),
                "regions": list(scope.regions),
            }
            for scope in order.scopes
        ],
        "shards": [
            {
                "number": shard.number,
                "subscriptions": list(shard.subscriptions),
                "part": shard.part,
                "parts": shard.parts,
            }
            for shard in order.shards
        ],
        "options": {
            "threads": options.threads,
            "conversations": options.conversations,
            "reference": options.reference,
            "capacities": options.capacities,
            "payloads": options.payloads,
            "reference_regions": list(options.reference_regions),
        },
        # Of the bodies only the region is needed, to know what is in scope.
        "earlier": [
            replace(
                resource,
                body={k: v for k, v in resource.body.items() if k == "location"},
            ).document()
            for resource in order.earlier
        ],
    }


def _order(document: JsonObject) -> Order:
    options = _object(document["options"])
    return Order(
        _text(document["run"]),
        _text(document["estate"]),
        _text(document["version"]),
        tuple(
            Scope(
                _text(item["subscription"]),
                _texts(item["resource_groups"]),
                _texts(item["accounts"]),
                _texts(item["regions"]),
            )
            for item in _objects(document["scopes"])
        ),
        tuple(
            Shard(
                _number(item["number"]),
                _texts(item["subscriptions"]),
                _number(item["part"]),
                _number(item["parts"]),
            )
            for item in _objects(document["shards"])
        ),
        TakeOptions(
            threads=_number(options["threads"]),
            conversations=options["conversations"] is True,
            reference=options["reference"] is True,
            capacities=options["capacities"] is True,
            payloads=options["payloads"] is True,
            reference_regions=_texts(options["reference_regions"]),
        ),
        tuple(Resource.from_document(item) for item in _objects(document["earlier"])),
    )


def _capture_document(capture: Capture) -> JsonObject:
    snapshot = capture.snapshot
    return {
        "format": FORMAT,
        "run": capture.run,
        "number": capture.number,
        "read_at": capture.read_at.isoformat() if capture.read_at else None,
        "estate": snapshot.estate,
        "taken_at": snapshot.taken_at.isoformat(),
        "version": snapshot.version,
        "seconds": snapshot.seconds,
        "calls": {
            "made": snapshot.calls.made,
            "floor": snapshot.calls.floor,
            "throttled": snapshot.calls.throttled,
            "retried": snapshot.calls.retried,
            "by_kind": dict(snapshot.calls.by_kind),
        },
        "resources": [resource.document() for _, resource in sorted(snapshot.resources.items())],
        "gaps": [gap.document() for gap in snapshot.gaps],
        "reference": dict(snapshot.reference),
    }


def _capture(document: JsonObject) -> Capture:
    calls = _object(document["calls"])
    read_at = document["read_at"]
    seconds = document["seconds"]
    if not isinstance(seconds, int | float):
        message = "seconds is not a number"
        raise TypeError(message)
    resources = [Resource.from_document(item) for item in _objects(document["resources"])]
    return Capture(
        _text(document["run"]),
        _number(document["number"]),
        Snapshot(
            estate=_text(document["estate"]),
            taken_at=datetime.fromisoformat(_text(document["taken_at"])),
            version=_text(document["version"]),
            resources={resource.key: resource for resource in resources},
            gaps=tuple(Gap.from_document(item) for item in _objects(document["gaps"])),
            reference=_object(document["reference"]),
            calls=CallCount(
                _number(calls["made"]),
                _number(calls["floor"]),
                _number(calls["throttled"]),
                _number(calls["retried"]),
                {kind: _number(n) for kind, n in _object(calls["by_kind"]).items()},
            ),
            seconds=float(seconds),
        ),
        datetime.fromisoformat(_text(read_at)) if read_at is not None else None,
    )


def _text(value: Json) -> str:
    if not isinstance(value, str):
        message = "not a text"
        raise TypeError(message)
    return value


def _number(value: Json) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        message = "not a whole number"
        raise TypeError(message)
    return value


def _texts(value: Json) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _list(value: Json) -> Sequence[Json]:
    if not isinstance(value, list):
        message = "not a list"
        raise TypeError(message)
    return value


def _object(value: Json) -> JsonObject:
    if not isinstance(value, dict):
        message = "not an object"
        raise TypeError(message)
    return value


def _objects(value: Json) -> list[JsonObject]:
    return [_object(item) for item in _list(value)]
