"""`muster replicate`: keep the standby in step with the primary."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.settings import PairSettings
from muster.verbs.ready import chosen_pairs
from muster.verbs.replicate import PairResult, document, exit_code, replicator_for, source_of
from muster.wiring import Wiring

if TYPE_CHECKING:
    from snapshots.replicate import Replicated, Replicating


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
        invocation.emit(document(results))
    return exit_code(results)


def _one(
    invocation: Invocation,
    wiring: Wiring,
    pair: PairSettings,
    *,
    act: bool,
    yes: bool,
    retrain: bool,
    from_snapshot: str | None,
) -> PairResult:
    from muster.report.progress import ProgressLine

    with ProgressLine(invocation) as line:
        line.tell(f"looking at {pair.primary} and {pair.standby}")
        replicator = replicator_for(wiring, pair, retrain=retrain, say=line.tell)
        source = source_of(wiring, pair, from_snapshot)
        made = replicator.prepare(source)
    ours = tuple(gap for gap in source.gaps) + made.prepared.target.gaps
    if not invocation.json:
        _show(invocation, pair, made)
    for gap in ours:
        invocation.warn(f"unread: {gap.key}: {gap.detail}")
    result = PairResult(pair, made, None, len(ours))
    if not act or made.is_empty:
        return result
    question = f"bring {pair.standby} in step with {pair.primary} "
    question += f"({len(made.prepared.plan.steps) + len(made.steps)} steps)?"
    if not invocation.confirm(question, yes=yes):
        return PairResult(pair, made, None, len(ours), refused=True)
    with ProgressLine(invocation) as line:
        done = replicator.run(made, wiring.records())
    if not invocation.json:
        _show_done(invocation, pair, done)
    return PairResult(pair, made, done, len(ours))


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
