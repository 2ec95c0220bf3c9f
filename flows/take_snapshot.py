"""Take the estate's state and keep it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from pydantic import Field

from flows.sharding import gather
from flows.telling import Event, Outcome, Teller, concluded
from flows.turns import one_writer, passing
from flows.wired import wired
from flows.words import snapshot_markdown
from muster.invocation import Exit
from muster.report import snapshot as report
from muster.verbs.shards import commit_shards, order_snapshot
from muster.verbs.snapshot import Taken, keep_snapshot
from snapshots.model import JsonObject
from snapshots.shards import MOST_PARTS

# Annotated, so that Prefect's form for a run holds them to their limits.
Groups = Annotated[int, Field(ge=1, le=256)]
Parts = Annotated[int, Field(ge=1, le=MOST_PARTS)]
Seconds = Annotated[float, Field(gt=0, le=24 * 3600)]


@flow(name="take-snapshot", timeout_seconds=6 * 3600)
def take_snapshot(
    config: str = "",
    content: bool | None = None,
    reference: bool | None = None,
    groups: Groups = 1,
    parts: Parts = 1,
    start: Seconds = 600.0,
    silence: Seconds = 120.0,
) -> State[JsonObject]:
    """Take the estate's state and keep it: one commit in the ledger, payloads in the vault.

    What could not be read is a gap: it is named, the rest is kept, and the run ends Incomplete.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        content: The bytes of files, too (empty: as the configuration says).
        reference: Catalogue, quota and capacity, too (empty: as the configuration says).
        groups: Into how many groups of subscriptions the work is cut for several workers.
        parts: Into how many parts the accounts of each subscription are cut: one for each worker
            that has a principal, and so a budget, of its own.
        start: Seconds until a shard that no worker begins is read by this run itself.
        silence: Seconds without a sign of life until a worker's shard is taken again.
    """
    if groups * parts == 1:
        return concluded("snapshot", lambda: take_and_keep(config, content, reference))
    run = str(flow_run.id)
    return concluded(
        "snapshot",
        lambda: take_in_shards(config, run, Cut(groups, parts, start, silence), content, reference),
    )


@task(
    name="take and keep",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def take_and_keep(config: str, content: bool | None, reference: bool | None) -> Outcome:
    """Take and keep one snapshot. Idempotent: what is kept already is not kept twice."""
    with wired(config) as wiring, one_writer(wiring), Teller("snapshot") as tell:
        taken = keep_snapshot(wiring, tell=tell, content=content, reference=reference)
    return _outcome(taken)


@dataclass(frozen=True, slots=True)
class Cut:
    """How a snapshot is cut into shards, and how long its workers are waited for (seconds)."""

    groups: int
    parts: int
    start: float
    silence: float


@task(
    name="order, gather and commit",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def take_in_shards(
    config: str, run: str, cut: Cut, content: bool | None, reference: bool | None
) -> Outcome:
    """Have workers read the estate in shards; join what they read. Idempotent by its run's name."""
    with wired(config) as wiring, Teller("snapshot") as tell:
        order = order_snapshot(
            wiring, run, groups=cut.groups, parts=cut.parts, content=content, reference=reference
        )
        tell.say(f"{len(order.shards)} shards are ordered")
        lost = gather(wiring, order, config=config, start=cut.start, silence=cut.silence)
        with one_writer(wiring):
            taken = commit_shards(wiring, run, lost=lost, tell=tell)
    return _outcome(taken)


def _outcome(taken: Taken) -> Outcome:
    snapshot, gaps = taken.snapshot, len(taken.snapshot.gaps)
    document = report.document(snapshot, taken.kept, taken.bundle, taken.warnings)
    words = f"snapshot {taken.kept.commit[:12]}: {len(snapshot.resources)} resources, {gaps} gaps"
    facts = {"snapshot": taken.kept.commit, "resources": len(snapshot.resources), "gaps": gaps}
    events = [Event("muster.snapshot.taken", payload=facts)]
    if gaps:
        events.append(Event("muster.snapshot.incomplete", "high", payload=facts))
    return Outcome(
        "snapshot",
        snapshot.estate,
        Exit.INCOMPLETE if gaps else Exit.CLEAN,
        words,
        document,
        snapshot_markdown(document),
        events=events,
    )
