"""Take the estate's state and keep it."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.telling import Event, Outcome, Teller, concluded
from flows.turns import one_writer, passing
from flows.wired import wired
from flows.words import snapshot_markdown
from muster.invocation import Exit
from muster.report import snapshot as report
from muster.verbs.snapshot import Taken, keep_snapshot
from snapshots.model import JsonObject


@flow(name="take-snapshot", timeout_seconds=6 * 3600)
def take_snapshot(
    config: str = "", content: bool | None = None, reference: bool | None = None
) -> State[JsonObject]:
    """Take the estate's state and keep it: one commit in the ledger, payloads in the vault.

    What could not be read is a gap: it is named, the rest is kept, and the run ends Incomplete.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        content: The bytes of files, too (empty: as the configuration says).
        reference: Catalogue, quota and capacity, too (empty: as the configuration says).
    """
    return concluded("snapshot", lambda: take_and_keep(config, content, reference))


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
