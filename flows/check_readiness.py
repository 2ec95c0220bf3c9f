"""Could we recover right now? Answered without touching anything."""

from __future__ import annotations

from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State

from flows.telling import Event, Outcome, Teller, concluded
from flows.turns import passing
from flows.wired import wired
from flows.words import readiness_markdown
from muster.invocation import Exit
from muster.verbs.ready import assess, document, exit_code, last_verdict
from snapshots.model import JsonObject
from snapshots.ready import Readiness


@flow(name="check-readiness", timeout_seconds=2 * 3600)
def check_readiness(
    config: str = "",
    pair: list[str] | None = None,
    everything: bool = False,
    strict: bool = False,
) -> State[JsonObject]:
    """Say whether a recovery would work today, touching nothing.

    An objective that is not met, or not known to be, ends the run as Findings.

    Args:
        config: The muster.toml on the worker (empty: MUSTER_CONFIG, or muster.toml where it runs).
        pair: Only these pairs of regions, PRIMARY or PRIMARY:STANDBY (empty: every one).
        everything: Show also the checks that are met.
        strict: Fail the run also for "at risk".
    """
    pairs = tuple(pair or ())
    return concluded(
        "ready", lambda: judge_readiness(config, pairs, strict=strict, everything=everything)
    )


@task(
    name="judge readiness",
    retries=2,
    retry_delay_seconds=[30, 120],
    retry_condition_fn=passing,
    cache_policy=NO_CACHE,
)
def judge_readiness(
    config: str, pairs: tuple[str, ...], *, strict: bool, everything: bool
) -> Outcome:
    """Judge once. Idempotent: it reads."""
    with wired(config) as wiring, Teller("ready") as tell:
        before = last_verdict(wiring, pairs)
        found = assess(wiring, pairs, tell=tell)
        code = exit_code(found, strict=strict)
        return Outcome(
            "ready",
            wiring.settings.estate.name,
            code,
            f"readiness: {found.state.value}",
            document(found),
            readiness_markdown(document(found), everything=everything),
            rows=[
                {
                    "state": c.state.value,
                    "check": c.name,
                    "of": c.subject,
                    "found": c.detail,
                    "next": c.remedy,
                }
                for c in found.checks
            ],
            events=_events(found, before, lost=code != Exit.CLEAN, strict=strict),
        )


def _events(found: Readiness, before: str, *, lost: bool, strict: bool) -> list[Event]:
    facts = {
        "verdict": found.state.value,
        "before": before,
        "objectives": {o.name.value: o.state.value for o in found.objectives},
    }
    severity = "critical" if found.state.value == "not met" else "high" if lost else "info"
    events = [Event("muster.readiness.judged", severity, found.state.value, facts)]
    was_lost = before in {"not met", "not known", *(("at risk",) if strict else ())}
    if lost and not was_lost:
        events.append(Event("muster.readiness.lost", severity, found.state.value, facts))
    if not lost and was_lost:
        events.append(Event("muster.readiness.regained", "info", found.state.value, facts))
    return events
