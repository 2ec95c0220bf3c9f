"""Keep the standby in step with the primary, fine-tuned models and all."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.telling import Event, Outcome, Teller, concluded
from flows.turns import one_writer
from flows.wired import wired
from flows.words import replication_markdown
from muster.invocation import Exit
from muster.verbs.ready import chosen_pairs
from muster.verbs.replicate import PairResult, document, exit_code, prepare_pair, run_pair
from snapshots.model import JsonObject


@flow(name="replicate-models", timeout_seconds=24 * 3600)
def replicate_models(
    config: str = "",
    pair: list[str] | None = None,
    apply: bool = False,
    retrain: bool = False,
    from_snapshot: str | None = None,
) -> State[JsonObject]:
    """Keep the standby in step with the primary: configuration, files, agents, deployments, models.

    A standby that is not in step ends the run as Findings, what could not be read as Incomplete.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        pair: Only these pairs of regions, PRIMARY or PRIMARY:STANDBY (empty: every one).
        apply: Do it; without, only say what would be done.
        retrain: Train a model again when no better way is left (hours, billed as training).
        from_snapshot: Replicate a kept state instead of the primary as it is now.
    """
    return concluded(
        "replicate",
        lambda: bring_in_step(
            config, tuple(pair or ()), apply=apply, retrain=retrain, from_snapshot=from_snapshot
        ),
    )


# Not tried again by Prefect: what it changed is in its own record, and the next run goes on there.
@task(name="bring in step", cache_policy=NO_CACHE)
def bring_in_step(
    config: str,
    pairs: tuple[str, ...],
    *,
    apply: bool,
    retrain: bool,
    from_snapshot: str | None,
) -> Outcome:
    """Look at each pair and, with `apply`, do what is missing."""
    with wired(config) as wiring, one_writer(wiring), Teller("replicate") as tell:
        results: list[PairResult] = []
        for pair in chosen_pairs(wiring.settings.estate.pairs, pairs):
            replicator, found = prepare_pair(
                wiring, pair, retrain=retrain, from_snapshot=from_snapshot, say=tell.say
            )
            if apply and not found.made.is_empty:
                found = run_pair(wiring, replicator, found)
            results.append(found)
        return _outcome(wiring.settings.estate.name, results)


def _outcome(estate: str, results: list[PairResult]) -> Outcome:
    code, shown = exit_code(results), document(results)
    behind = [r for r in results if not r.complete]
    words = f"{len(results) - len(behind)} of {len(results)} standbys in step"
    facts = {"pairs": [f"{r.pair.primary}:{r.pair.standby}" for r in behind]}
    if not behind:
        events = [Event("muster.replication.done")]
    else:
        bad = code != Exit.CLEAN
        events = [Event("muster.replication.behind", "high" if bad else "low", payload=facts)]
    return Outcome(
        "replicate", estate, code, words, shown, replication_markdown(shown), events=events
    )
