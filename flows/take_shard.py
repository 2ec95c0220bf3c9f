"""Read one shard of a snapshot for the run that ordered it."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.telling import Outcome, Teller, concluded
from flows.turns import passing
from flows.wired import wired
from muster.invocation import Exit
from muster.verbs.shards import read_shard
from snapshots.model import JsonObject


@flow(name="take-shard", timeout_seconds=6 * 3600)
def take_shard(run: str, number: int, config: str = "") -> State[JsonObject]:
    """Read one shard of a snapshot and leave its capture in the vault; take-snapshot starts these.

    A shard that is read already is not read again, so a run of this may be repeated at will.

    Args:
        run: The run of take-snapshot that ordered it.
        number: Which shard, from 0.
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
    """
    return concluded("shard", lambda: read_and_keep(run, number, config))


@task(
    name="read and keep",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def read_and_keep(run: str, number: int, config: str) -> Outcome:
    """Read one shard. Idempotent: the first capture counts."""
    with wired(config) as wiring, Teller("shard") as tell:
        read = read_shard(wiring, run, number, tell=tell)
        estate = wiring.settings.estate.name
    words = f"{read.shard}: {read.resources} resources, {read.gaps} gaps, {read.calls} calls"
    document: JsonObject = {
        "run": read.run,
        "shard": read.shard,
        "resources": read.resources,
        "gaps": read.gaps,
        "calls": read.calls,
        "seconds": round(read.seconds, 3),
        "first": read.first,
    }
    # Gaps are told by the snapshot: a capture that has some is a capture.
    return Outcome("shard", estate, Exit.CLEAN, words, document, f"**{words}**")
