"""Keep the standby in step with the primary, fine-tuned models and all."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Event as Stop

from prefect import flow
from prefect.client.schemas.objects import State

from flows.telling import Event, Outcome, Teller, concluded, tell
from flows.turns import in_task, one_writer, seen_through
from flows.wired import shielded, wired
from flows.words import replication_markdown
from muster.invocation import Exit
from muster.verbs.ready import chosen_pairs
from muster.verbs.replicate import PairResult, document, exit_code, prepare_pair, run_pair
from muster.verbs.restore import step_words
from muster.wiring import Wiring
from snapshots.apply import Happened
from snapshots.model import JsonObject


@flow(name="replicate-models", timeout_seconds=24 * 3600)
def replicate_models(
    config: str = "",
    pair: list[str] | None = None,
    apply: bool = False,
    retrain: bool = False,
    keep_going: bool = False,
    from_snapshot: str | None = None,
) -> State[JsonObject]:
    """Keep the standby in step with the primary: configuration, files, agents, deployments, models.

    A standby that is not in step ends the run as Findings, what could not be read as Incomplete.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        pair: Only these pairs of regions, PRIMARY or PRIMARY:STANDBY (empty: every one).
        apply: Do it; without, only say what would be done.
        retrain: Train a model again when no better way is left (hours, billed as training).
        keep_going: Do what can be done though a gate did not open.
        from_snapshot: Replicate a kept state instead of the primary as it is now.
    """
    wanted = _Wanted(tuple(pair or ()), apply, retrain, keep_going, from_snapshot)
    return concluded("replicate", lambda: _replicate(config, wanted))


@dataclass(frozen=True, slots=True)
class _Wanted:
    pairs: tuple[str, ...]
    apply: bool
    retrain: bool
    keep_going: bool
    from_snapshot: str | None


def _replicate(config: str, wanted: _Wanted) -> Outcome:
    with wired(config) as wiring, one_writer(wiring), Teller("replicate") as teller:
        # Not tried again by Prefect: the record is what it goes on from (`muster resume`).
        return in_task(
            "bring in step", lambda: seen_through(lambda stop: _pairs(wiring, wanted, stop, teller))
        )


def _pairs(wiring: Wiring, wanted: _Wanted, stop: Stop, teller: Teller) -> Outcome:
    """Look at each pair and, when asked, do what is missing; when cancelled, the steps in hand."""

    def heard(happened: Happened) -> None:
        teller(step_words(happened), happened.done / max(happened.total, 1))

    def begun(record: str) -> None:
        teller.say(f"record {record}: `muster resume {record}` goes on, should this run end")

    results: list[PairResult] = []
    with shielded(wiring.environment):
        for pair in chosen_pairs(wiring.settings.estate.pairs, wanted.pairs):
            replicator, found = prepare_pair(
                wiring,
                pair,
                retrain=wanted.retrain,
                from_snapshot=wanted.from_snapshot,
                say=teller.say,
            )
            if wanted.apply and not stop.is_set():  # also with nothing to do: it was in step today
                found = run_pair(
                    wiring,
                    replicator,
                    found,
                    keep_going=wanted.keep_going,
                    stop=stop,
                    tell=heard,
                    begun=begun,
                )
            results.append(found)
    outcome = _outcome(wiring.settings.estate.name, results)
    if stop.is_set():  # the run is being cancelled: nobody else will tell
        tell(outcome)
    return outcome


def _outcome(estate: str, results: list[PairResult]) -> Outcome:
    code, shown = exit_code(results), document(results)
    behind = [r for r in results if not r.complete]
    words = f"{len(results) - len(behind)} of {len(results)} standbys in step"
    if any(r.closed for r in results):
        words = f"a gate did not open, and nothing was changed; {words}"
    stopped = [r for r in results if r.stopped]
    if stopped:
        words += f"; stopped: `muster resume {stopped[-1].record}` goes on"
    facts = {"pairs": [f"{r.pair.primary}:{r.pair.standby}" for r in behind]}
    if not behind:
        events = [Event("muster.replication.done")]
    elif stopped:
        facts["records"] = [r.record for r in stopped]
        events = [Event("muster.replication.stopped", "high", payload=facts)]
    else:
        bad = code != Exit.CLEAN
        events = [Event("muster.replication.behind", "high" if bad else "low", payload=facts)]
    return Outcome(
        "replicate", estate, code, words, shown, replication_markdown(shown), events=events
    )
