"""Prove that what was kept is whole."""

from __future__ import annotations

from typing import Annotated

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from pydantic import Field

from flows.telling import Event, Outcome, Teller, concluded
from flows.turns import passing
from flows.wired import wired
from flows.words import dicts, verification_markdown
from muster.invocation import Exit
from muster.verbs.verify import document
from muster.verbs.verify import verify_stores as verify
from snapshots.model import JsonObject


@flow(name="verify-stores", timeout_seconds=24 * 3600)
def verify_stores(
    config: str = "",
    sample: Annotated[float, Field(ge=0, le=100)] = 100.0,
    seed: int = 0,
) -> State[JsonObject]:
    """Prove that what was kept is whole: ledger, manifests, payloads, a snapshot rebuilt.

    Damage ends the run as Findings.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        sample: How many percent of the payloads are read and re-hashed (all must be there).
        seed: Which of them, repeatably.
    """
    return concluded("verify", lambda: prove_whole(config, sample / 100, seed))


@task(
    name="prove whole",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def prove_whole(config: str, sample: float, seed: int) -> Outcome:
    """Verify once. Idempotent: it reads, and notes that it did."""
    with wired(config) as wiring, Teller("verify") as tell:
        found, warning = verify(wiring, sample=sample, seed=seed, tell=tell)
        if warning:
            tell.say(warning)
        shown = document(found)
        hurt = shown["hurt"]
        facts = {"damages": len(found.damages), "hurt": hurt}
        good = Event("muster.stores.whole", payload={"snapshots": found.snapshots})
        bad = Event("muster.stores.damaged", "critical", payload=facts)
        words = f"{found.snapshots} snapshots, {found.objects} objects re-hashed: "
        return Outcome(
            "verify",
            wiring.settings.estate.name,
            Exit.CLEAN if found.whole else Exit.FINDINGS,
            words + ("whole" if found.whole else f"{len(found.damages)} damaged"),
            shown,
            verification_markdown(shown),
            rows=[
                {name: str(d[name]) for name in ("store", "path", "problem", "detail")}
                for d in dicts(shown["damages"])
            ],
            events=[good if found.whole else bad],
        )
