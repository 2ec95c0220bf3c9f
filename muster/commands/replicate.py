"""`muster replicate`: keep the standby in step with the primary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from muster.commands.ready import chosen_pairs
from muster.invocation import Command, Exit, Invocation, described
from muster.settings import PairSettings
from muster.wiring import Wiring, mapping_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from snapshots.model import Json, JsonObject, Snapshot
    from snapshots.replicate import ModelStep, Replicated, Replicating, Replicator
    from snapshots.steps import Record, Step


@described(
    "muster replicate",
    "muster replicate --apply",
    "muster replicate --pair swedencentral:eastus2 --apply --yes --format json",
    "muster replicate --retrain --apply     hours, and billed as training",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS, Exit.INCOMPLETE),
)
@click.command("replicate", cls=Command)
@click.option(
    "--pair",
    "pairs",
    multiple=True,
    metavar="PRIMARY[:STANDBY]",
    help="Only this pair of regions (may be repeated); default: every one.",
)
@click.option("--apply", "act", is_flag=True, help="Do it; without, only say what would be done.")
@click.option("--yes", is_flag=True, help="Ask nothing.")
@click.option(
    "--retrain",
    is_flag=True,
    help="Train a model again from the vault's files when no better way is left (hours).",
)
@click.option(
    "--from-snapshot",
    metavar="SNAPSHOT",
    help="Replicate a kept state instead of the primary as it is now.",
)
@click.pass_obj
def command(
    invocation: Invocation,
    pairs: tuple[str, ...],
    act: bool,
    yes: bool,
    retrain: bool,
    from_snapshot: str | None,
) -> int:
    """Keep the standby in step with the primary.

    Takes the primary, maps it by the pair, compares it with the standby and brings over what is
    missing: configuration, files, agents, deployments and fine-tuned models, each of which has to
    answer as its source before it counts. Dry by default: --apply acts, and asks first.
    """
    from muster.report import documents

    settings = invocation.settings()
    chosen = chosen_pairs(settings.estate.pairs, pairs)
    with Wiring(settings, invocation.environment) as wiring:
        results = [
            _one(
                invocation,
                wiring,
                pair,
                act=act,
                yes=yes,
                retrain=retrain,
                from_snapshot=from_snapshot,
            )
            for pair in chosen
        ]
    if invocation.json:
        shown: list[Json] = [_document(result) for result in results]
        steps = [step for result in results for step in _steps(result)]
        invocation.emit(
            {
                "schema": documents.schema("replicate"),
                "applied": any(result.done is not None for result in results),
                "complete": all(result.complete for result in results),
                "steps": list(steps),
                "critical_path_seconds": max(
                    (r.made.prepared.plan.critical_path_seconds for r in results), default=0.0
                ),
                "seconds": sum(
                    r.done.seconds if r.done else r.made.prepared.plan.seconds for r in results
                ),
                "calls": sum(
                    r.done.calls if r.done else r.made.prepared.plan.calls for r in results
                ),
                "not_restorable": [n for r in results for n in _not_restorable(r)],
                "remaining_changes": [c for r in results for c in _remaining(r)],
                "record": next((r.record for r in results if r.record), None),
                "pairs": shown,
            }
        )
    if any(result.gaps for result in results):
        return Exit.INCOMPLETE
    acted = [result for result in results if result.done is not None]
    if any(not result.complete for result in acted):
        return Exit.FINDINGS
    if any(choice.way is None for result in results for choice in result.made.choices):
        return Exit.FINDINGS
    return Exit.CLEAN


@dataclass(frozen=True, slots=True)
class _Result:
    pair: PairSettings
    made: Replicating
    done: Replicated | None
    gaps: int
    refused: bool = False

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


def _one(
    invocation: Invocation,
    wiring: Wiring,
    pair: PairSettings,
    *,
    act: bool,
    yes: bool,
    retrain: bool,
    from_snapshot: str | None,
) -> _Result:
    from muster.report.progress import ProgressLine

    with ProgressLine(invocation) as line:
        line.tell(f"looking at {pair.primary} and {pair.standby}")
        replicator = replicator_for(wiring, pair, retrain=retrain, say=line.tell)
        source = _source(wiring, pair, from_snapshot)
        made = replicator.prepare(source)
    ours = tuple(gap for gap in source.gaps) + made.prepared.target.gaps
    if not invocation.json:
        _show(invocation, pair, made)
    for gap in ours:
        invocation.warn(f"unread: {gap.key}: {gap.detail}")
    result = _Result(pair, made, None, len(ours))
    if not act or made.is_empty:
        return result
    question = f"bring {pair.standby} in step with {pair.primary} "
    question += f"({len(made.prepared.plan.steps) + len(made.steps)} steps)?"
    if not invocation.confirm(question, yes=yes):
        return _Result(pair, made, None, len(ours), refused=True)
    with ProgressLine(invocation) as line:
        done = replicator.run(made, wiring.records())
    if not invocation.json:
        _show_done(invocation, pair, done)
    return _Result(pair, made, done, len(ours))


def replicator_for(
    wiring: Wiring,
    pair: PairSettings,
    *,
    retrain: bool = False,
    say: Callable[[str], None] = lambda _words: None,
) -> Replicator:
    """Give what keeps a pair in step, wired."""
    from snapshots.replicate import KeepAlive, Policy, Replicator, Warmth
    from snapshots.replication import CopyWay

    chosen = pair.replicate
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
        wiring.restore_tools(),
        wiring.ledger(),
        wiring.vault().read,
        secrets=wiring.settings.restore.secrets,
        say=say,
    )


def _source(wiring: Wiring, pair: PairSettings, from_snapshot: str | None) -> Snapshot:
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


# ------------------------------------------------------------------------------------ words


def _step(step: Step, record: Record | None) -> JsonObject:
    outcome = record.last(step.id) if record is not None else None
    return {
        "id": step.id,
        "action": step.action.value,
        "key": str(step.key),
        "target": step.target,
        "needs": list(step.needs),
        "state": outcome.state.value if outcome else "waiting",
        "seconds": outcome.seconds if outcome else step.seconds,
        "note": step.note,
        "error": outcome.error if outcome else "",
    }


def _model_step(step: ModelStep) -> JsonObject:
    return {
        "id": step.id,
        "action": step.action.value,
        "key": str(step.key),
        "target": step.target,
        "needs": list(step.needs),
        "state": step.state,
        "seconds": step.took if step.state in {"done", "failed"} else step.seconds,
        "note": step.note,
        "error": step.error,
    }


def _steps(result: _Result) -> list[JsonObject]:
    done = result.done
    record = done.restored.record if done is not None and done.restored is not None else None
    plan = record.plan if record is not None else result.made.prepared.plan
    models = done.steps if done is not None else result.made.steps
    return [*(_step(s, record) for s in plan.steps), *(_model_step(s) for s in models)]


def _not_restorable(result: _Result) -> list[JsonObject]:
    return [
        {
            "key": str(n.key),
            "recovery": n.recovery.value,
            "sentence": n.sentence,
            "source": n.source,
        }
        for n in result.made.prepared.plan.not_restorable
    ]


def _remaining(result: _Result) -> list[JsonObject]:
    from muster.report import documents

    restored = result.done.restored if result.done is not None else None
    return [documents.change(c) for c in restored.remaining] if restored is not None else []


def _document(result: _Result) -> JsonObject:
    from snapshots.replicate import hosting

    made, known = result.made, result.done.known if result.done else result.made.known
    hours, calls = hosting(made)
    return {
        "primary": made.primary,
        "standby": made.standby,
        "complete": result.complete,
        "record": result.record or None,
        "steps": len(made.prepared.plan.steps) + len(made.steps),
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
                "refused": list(choice.refused),
            }
            for choice in made.choices
        ],
        "cost": {"hosting_hours_a_month": hours, "calls_a_month": calls},
    }


def _show(invocation: Invocation, pair: PairSettings, made: Replicating) -> None:
    from muster.report.terminal import plural, span, table, text
    from snapshots.replicate import hosting

    plan = made.prepared.plan
    invocation.show(text(f"{pair.primary} -> {pair.standby}", "bold"))
    rows = [(s.id, s.action.value, str(s.key), s.note) for s in plan.steps]
    rows += [(m.id, m.action.value, str(m.key), m.note) for m in made.steps]
    if rows:
        invocation.show(table(["step", "action", "of", "note"], rows))
        path = span(plan.critical_path_seconds + sum(s.seconds for s in made.steps))
        invocation.show(text(f"{plural(len(rows), 'step')}, about {path}; --apply does them"))
    else:
        invocation.show(text("in step: nothing to do", "green"))
    for choice in made.choices:
        if choice.way is None:
            words = f"{choice.model.target.name}: no way is left; " + "; ".join(choice.refused)
            invocation.show(text(words, "red"))
    for lost in plan.not_restorable:
        invocation.show(text(f"not brought over: {lost.key}: {lost.sentence}", "yellow"))
    hours, calls = hosting(made)
    if hours:
        invocation.show(
            text(
                f"the policy (deployments = {made.policy.deployments}, keep_alive = "
                f"{made.policy.keep_alive}) costs {hours} hosting hours a month for fine-tuned "
                f"models and {calls} calls; cold with a copied checkpoint costs none, and a "
                "deployment at the failover"
            )
        )


def _show_done(invocation: Invocation, pair: PairSettings, done: Replicated) -> None:
    from muster.report.terminal import change_lines, plural, span, table, text

    for replica in done.known.replicas:
        proof = replica.proof
        told = f"{proof.same} of {proof.prompts} alike" if proof else replica.detail
        words = f"{replica.target.name}: {replica.state.value} by {replica.way.value}, {told}"
        invocation.show(text(f"{words}, {span(replica.lag.total_seconds())} after its source"))
    failed = [step for step in done.steps if step.state != "done"]
    if failed:
        rows = [(s.id, s.state, str(s.key), s.error) for s in failed]
        invocation.show(table(["step", "state", "of", "why"], rows))
    restored = done.restored
    if restored is not None:
        for change in restored.remaining:
            invocation.show(*change_lines(change))
        for outcome in restored.record.outcomes:
            if outcome.error:
                invocation.show(text(f"{outcome.step}: {outcome.error}", "red"))
    words = "in step" if done.complete else "not in step"
    style = "bold green" if done.complete else "bold red"
    told = f"{pair.standby} is {words}; {plural(done.calls, 'call')} in {span(done.seconds)}"
    invocation.show(text(told, style))
