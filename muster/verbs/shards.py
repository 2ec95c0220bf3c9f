"""Take a snapshot in shards: order it, read one shard of it anywhere, commit it once."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from threading import Event, Thread
from typing import Final

from muster.verbs import Tell, untold
from muster.verbs.snapshot import (
    Taken,
    chosen_options,
    keep,
    open_stores,
    progress_teller,
    read_at,
)
from muster.wiring import Wiring
from snapshots.errors import InputError, MusterError, NotFoundError
from snapshots.kinds.fields import location
from snapshots.model import Snapshot
from snapshots.shards import (
    Capture,
    Order,
    beat_path,
    captured,
    deal,
    join,
    keep_capture,
    keep_order,
    read_capture,
    read_order,
    take_shard,
    worth_knowing,
)
from snapshots.vault import Vault

BEAT: Final = 5.0  # seconds between two signs of life of a worker


@dataclass(frozen=True, slots=True)
class ShardRead:
    """What one worker did for one shard."""

    run: str
    shard: str
    resources: int
    gaps: int
    calls: int
    seconds: float
    first: bool  # False when the vault had a capture of this shard already


def order_snapshot(
    wiring: Wiring,
    run: str,
    *,
    groups: int = 1,
    parts: int = 1,
    content: bool | None = None,
    reference: bool | None = None,
) -> Order:
    """Write down into the vault who is to read what; for a run that is ordered, give its order.

    A worker needs the vault and the cloud, not the ledger: the order names the files whose bytes
    are known. Raises InputError.
    """
    from muster import __version__

    _, vault, previous = open_stores(wiring)
    try:
        return read_order(vault, run)
    except NotFoundError:
        pass
    scopes = wiring.scopes()
    options = chosen_options(wiring, content=content, reference=reference)
    order = Order(
        run,
        wiring.settings.estate.name,
        __version__,
        scopes,
        deal(scopes, groups=groups, parts=parts),
        replace(options, reference_regions=_regions(previous, options.reference_regions)),
        worth_knowing(previous),
    )
    keep_order(vault, order)
    return order


def read_shard(wiring: Wiring, run: str, number: int, *, tell: Tell = untold) -> ShardRead:
    """Read one shard and keep its capture in the vault; one that is there already stays."""
    vault = wiring.vault()
    order = read_order(vault, run)
    shard = order.shard(number)
    if order.estate != wiring.settings.estate.name:
        raise InputError(
            f"run {run} is of the estate {order.estate}",
            where="estate.name",
            remedy=f"this configuration is of {wiring.settings.estate.name}: use the other one",
        )
    if number in captured(vault, order):
        return _told(read_capture(vault, run, number), shard.name, first=False)
    cloud = wiring.cloud()
    with _beating(vault, run, number):
        snapshot = take_shard(
            order,
            number,
            cloud,
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            payloads=vault,
            progress=progress_teller(tell, cloud.budget.view),
        )
        capture = Capture(run, number, snapshot, read_at(cloud, snapshot))
        first = keep_capture(vault, capture)
    return _told(capture, shard.name, first=first)


@contextmanager
def _beating(vault: Vault, run: str, number: int) -> Iterator[None]:
    """Let the committer see in the vault that this worker lives, by a mark that keeps changing."""
    path, done = beat_path(run, number), Event()
    who = secrets.token_hex(4)

    def beat() -> None:
        count = 0
        while True:
            # A beat that fails is one beat less: the reading goes on, and the first capture counts.
            with suppress(MusterError):
                try:
                    etag = vault.read_document(path).etag
                except NotFoundError:
                    etag = None
                vault.replace_document(path, f"{who} {count}\n".encode(), etag)
            count += 1
            if done.wait(BEAT):
                return

    thread = Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(BEAT)


def last_beat(wiring: Wiring, run: str, number: int) -> bytes:
    """Give the mark of the worker that reads a shard: it changes while the worker lives."""
    try:
        return wiring.vault().read_document(beat_path(run, number)).data
    except NotFoundError:
        return b""


def missing_shards(wiring: Wiring, run: str) -> tuple[int, ...]:
    """Give the numbers of the shards that have no capture yet."""
    vault = wiring.vault()
    order = read_order(vault, run)
    there = captured(vault, order)
    return tuple(shard.number for shard in order.shards if shard.number not in there)


def commit_shards(
    wiring: Wiring, run: str, *, lost: Mapping[int, str] | None = None, tell: Tell = untold
) -> Taken:
    """Join the captures of a run into one commit; again, and nothing is committed twice.

    A shard without a capture becomes a Gap that says why (`lost`, by number). Raises InputError
    when no shard was read at all.
    """
    ledger, vault, _ = open_stores(wiring)
    order = read_order(vault, run)
    there = sorted(captured(vault, order))
    if not there:
        raise InputError(
            f"no shard of run {run} was read",
            where=vault.location,
            remedy="start workers, then read its shards again",
        )
    tell(f"joining {len(there)} of {len(order.shards)} shards", None)
    snapshot, began = join(
        order,
        (read_capture(vault, run, number) for number in there),
        clock=wiring.clock,
        lost=lost,
    )
    return keep(ledger, vault, snapshot, begun=began, run=run)


def _regions(previous: Snapshot | None, more: tuple[str, ...]) -> tuple[str, ...]:
    """Give the regions whose catalogue every subscription is asked for: those of all accounts.

    One reader sees all accounts; a worker sees those of its own subscriptions only.
    """
    found = set(more)
    for key, resource in (previous.resources if previous else {}).items():
        where = resource.body.get("location")
        if key.kind == "account" and isinstance(where, str):
            found.add(location(where))
    return tuple(sorted(found))


def _told(capture: Capture, name: str, *, first: bool) -> ShardRead:
    snapshot = capture.snapshot
    return ShardRead(
        capture.run,
        name,
        len(snapshot.resources),
        len(snapshot.gaps),
        snapshot.calls.made,
        snapshot.seconds,
        first,
    )
