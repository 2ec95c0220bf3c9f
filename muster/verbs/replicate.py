"""Keep the standby of each pair in step with its primary, as one configuration says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from muster.invocation import Exit
from muster.settings import PairSettings
from muster.verbs.restore import cloud_for
from muster.wiring import Wiring, mapping_of

if TYPE_CHECKING:
    from threading import Event

    from snapshots.apply import Happened
    from snapshots.gates import GateResult
    from snapshots.model import Json, JsonObject, Snapshot
    from snapshots.replicate import Replicated, Replicating, Replicator
    from snapshots.restore import Tools
    from snapshots.steps import Plan, Record, Step


@dataclass(frozen=True, slots=True)
class PairResult:
    """What replication found and did for one pair."""

    pair: PairSettings
    made: Replicating
    done: Replicated | None
    gaps: int
    refused: bool = False  # by who was asked
    gates: tuple[GateResult, ...] = ()
    closed: bool = False  # a gate did not open, and nothing was done

    @property
    def complete(self) -> bool:
        """Whether the standby is in step now."""
        if self.done is not None:
            return self.done.complete
        return self.made.is_empty and all(c.way is not None for c in self.made.choices)

    @property
    def record(self) -> str:
        """The record of what was done, "" without one."""
        restored = self.done.restored if self.done is not None else None
        return restored.record.id if restored is not None else ""

    @property
    def stopped(self) -> bool:
        """Whether somebody ended it before it was done."""
        restored = self.done.restored if self.done is not None else None
        return restored is not None and restored.stopped


def replicator_for(
    wiring: Wiring,
    pair: PairSettings,
    *,
    retrain: bool = False,
    say: Callable[[str], None] = lambda _words: None,
) -> Replicator:
    """Give what keeps a pair in step, wired."""
    from dataclasses import replace

    from snapshots.replicate import KeepAlive, Policy, Replicator, Warmth
    from snapshots.replication import CopyWay

    chosen = pair.replicate
    tools = wiring.restore_tools()
    standby = wiring.cloud_of(pair.tenant)
    elsewhere = standby is not wiring.cloud()
    return Replicator(
        pair.primary,
        pair.standby,
        mapping_of(pair),
        Policy(
            Warmth(chosen.deployments),
            tuple(CopyWay(way) for way in chosen.fine_tuned),
            KeepAlive(chosen.keep_alive),
            chosen.prompts,
            retrain,
        ),
        replace(tools, cloud=standby),
        wiring.ledger(),
        wiring.vault().read,
        secrets=wiring.settings.restore.secrets,
        source_cloud=wiring.cloud() if elsewhere else None,
        auxiliary=wiring.bearer if elsewhere else None,
        say=say,
    )


def tools_for(wiring: Wiring, record: Record) -> Tools:
    """Give what goes on with a record, or takes it back: for a replication its models, too."""
    from dataclasses import replace

    tools = wiring.restore_tools()
    if not record.plan.replica:
        return replace(tools, cloud=cloud_for(wiring, record.plan.mapping))
    regions = dict(record.plan.mapping.regions)
    for pair in wiring.settings.estate.pairs:
        if regions.get(pair.primary) == pair.standby:
            worker = replicator_for(wiring, pair).worker
            return replace(tools, cloud=worker.cloud, models=worker)
    return tools


def source_of(wiring: Wiring, pair: PairSettings, from_snapshot: str | None) -> Snapshot:
    """Give the primary: as it is now, or as a snapshot keeps it."""
    from dataclasses import replace

    from muster import __version__
    from snapshots.take import Scope, take

    ledger = wiring.ledger()
    if from_snapshot is not None:
        return ledger.load(ledger.resolve(from_snapshot))
    scopes = [
        Scope(s.subscription, s.resource_groups, s.accounts, (pair.primary,))
        for s in wiring.settings.estate.scopes
    ]
    return take(
        wiring.settings.estate.name,
        scopes,
        wiring.cloud(),
        fingerprints=wiring.fingerprints(),
        clock=wiring.clock,
        version=__version__,
        previous=ledger.load() if ledger.tip() else None,
        payloads=wiring.vault(),
        options=replace(wiring.take_options(), reference=False),
    )


def prepare_pair(
    wiring: Wiring,
    pair: PairSettings,
    *,
    retrain: bool = False,
    from_snapshot: str | None = None,
    say: Callable[[str], None] = lambda _words: None,
) -> tuple[Replicator, PairResult]:
    """Look at both regions of a pair; give what would be done, and what does it."""
    say(f"looking at {pair.primary} and {pair.standby}")
    replicator = replicator_for(wiring, pair, retrain=retrain, say=say)
    source = source_of(wiring, pair, from_snapshot)
    made = replicator.prepare(source)
    gaps = tuple(source.gaps) + tuple(made.prepared.target.gaps)
    say(f"asking what would stop {len(made.prepared.plan.steps)} steps")
    return replicator, PairResult(pair, made, None, len(gaps), gates=replicator.gates(made))


def run_pair(
    wiring: Wiring,
    replicator: Replicator,
    found: PairResult,
    *,
    keep_going: bool = False,
    stop: Event | None = None,
    tell: Callable[[Happened], None] | None = None,
    begun: Callable[[str], None] | None = None,
) -> PairResult:
    """Do what was prepared for a pair; nothing when a gate did not open, but for `keep_going`.

    `begun` hears the id of the record before the first step.
    """
    from dataclasses import replace

    if any(not gate.passed for gate in found.gates) and not keep_going:
        return replace(found, closed=True)
    records = wiring.records()
    if begun is not None:
        records = records.announcing(begun)
    done = replicator.run(found.made, records, stop=stop, tell=tell)
    return replace(found, done=done)


def exit_code(results: Sequence[PairResult]) -> int:
    """Give the exit code: 1 when a gate did not open, 3 for what was unread, 2 when not in step."""
    if any(result.closed or result.refused for result in results):
        return Exit.ERROR
    if any(result.gaps for result in results):
        return Exit.INCOMPLETE
    acted = [result for result in results if result.done is not None]
    if any(not result.complete for result in acted):
        return Exit.FINDINGS
    if any(choice.way is None for result in results for choice in result.made.choices):
        return Exit.FINDINGS
    return Exit.CLEAN


def document(results: Sequence[PairResult]) -> JsonObject:
    """Give the outcome for all pairs as JSON."""
    from muster.report import documents

    shown: list[Json] = [_document(result) for result in results]
    steps = [step for result in results for step in _steps(result)]
    return {
        "schema": documents.schema("replicate"),
        "applied": any(result.done is not None and result.record for result in results),
        "complete": all(result.complete for result in results),
        "steps": list(steps),
        "critical_path_seconds": max(
            (r.made.prepared.plan.critical_path_seconds for r in results), default=0.0
        ),
        "seconds": sum(r.done.seconds if r.done else r.made.prepared.plan.seconds for r in results),
        "calls": sum(r.done.calls if r.done else r.made.prepared.plan.calls for r in results),
        "not_restorable": [n for r in results for n in _not_restorable(r)],
        "remaining_changes": [c for r in results for c in _remaining(r)],
        "record": next((r.record for r in results if r.record), None),
        "gates": [g for r in results for g in _gates(r)],
        "pairs": shown,
    }


def plan_of(result: PairResult) -> tuple[Plan, Record | None]:
    """Give the plan as it was carried out, with its record; before, as it is meant."""
    restored = result.done.restored if result.done is not None else None
    if restored is not None:
        return restored.record.plan, restored.record
    return result.made.prepared.plan, None


def _step(step: Step, record: Record | None) -> JsonObject:
    outcome = record.last(step.id) if record is not None else None
    return {
        "id": step.id,
        "action": step.action.value,
        "key": str(step.key),
        "target": step.target,
        "needs": list(step.needs),
        "state": outcome.state.value if outcome else "waiting",
        "seconds": round(outcome.seconds, 3) if outcome else step.seconds,
        "note": step.note,
        "error": outcome.error if outcome else "",
        "model": step.work.model if step.work is not None else None,
        "way": step.work.way if step.work is not None else None,
    }


def _steps(result: PairResult) -> list[JsonObject]:
    plan, record = plan_of(result)
    return [_step(step, record) for step in plan.steps]


def _gates(result: PairResult) -> list[JsonObject]:
    return [
        {
            "name": gate.name,
            "subject": gate.subject,
            "passed": gate.passed,
            "detail": gate.detail,
            "remedy": gate.remedy,
        }
        for gate in result.gates
    ]


def _not_restorable(result: PairResult) -> list[JsonObject]:
    return [
        {
            "key": str(n.key),
            "recovery": n.recovery.value,
            "sentence": n.sentence,
            "source": n.source,
        }
        for n in result.made.prepared.plan.not_restorable
    ]


def _remaining(result: PairResult) -> list[JsonObject]:
    from muster.report import documents

    restored = result.done.restored if result.done is not None else None
    return [documents.change(c) for c in restored.remaining] if restored is not None else []


def _document(result: PairResult) -> JsonObject:
    from snapshots.replicate import LEFT, costs

    made, known = result.made, result.done.known if result.done else result.made.known
    known_costs = costs(made)
    chosen = next(cost for cost in known_costs if cost.chosen)
    return {
        "primary": made.primary,
        "standby": made.standby,
        "complete": result.complete,
        "record": result.record or None,
        "steps": len(made.prepared.plan.steps),
        "models": [
            {
                **replica.document(),
                "lag_seconds": replica.lag.total_seconds(),
                "deadline": replica.deadline.isoformat() if replica.deadline else None,
            }
            for replica in known.replicas
        ],
        "choices": [
            {
                "source": str(choice.model.deployment.key),
                "model": choice.model.name,
                "way": choice.way.value if choice.way else None,
                "done": choice.done,
                "takes": choice.takes,
                "price": choice.price,
                "refused": list(choice.refused),
            }
            for choice in made.choices
        ],
        "cost": {
            "hosting_hours_a_month": chosen.hosting_hours,
            "calls_a_month": chosen.calls,
            "policies": [
                {
                    "policy": cost.policy,
                    "chosen": cost.chosen,
                    "hosting_hours_a_month": cost.hosting_hours,
                    "calls_a_month": cost.calls,
                    "means": cost.means,
                }
                for cost in known_costs
            ],
        },
        "left": [
            {"kind": kind, "count": count, "why": LEFT[kind]}
            for kind, count in sorted(made.left.items())
        ],
    }
