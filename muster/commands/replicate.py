"""`muster replicate`: keep the standby in step with the primary."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from muster.commands.restoring import stopping
from muster.invocation import Command, Exit, Invocation, described
from muster.settings import PairSettings
from muster.verbs.ready import chosen_pairs
from muster.verbs.replicate import PairResult, document, exit_code, prepare_pair, run_pair
from muster.verbs.restore import teller
from muster.via import REPLICATE, via
from muster.wiring import Wiring

if TYPE_CHECKING:
    from snapshots.replicate import Replicated, Replicating


@via(REPLICATE)
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
    "--keep-going",
    is_flag=True,
    help="Do what can be done though a gate did not open; what that gate is about will fail.",
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
    keep_going: bool,
    from_snapshot: str | None,
) -> int:
    """Keep the standby in step with the primary.

    Takes the primary, maps it by the pair, compares it with the standby and brings over what is
    missing: configuration, files, agents, deployments and fine-tuned models, each of which has to
    answer as its source before it counts. Dry by default: --apply acts, and asks first. A gate that
    does not open (quota, a retired model, a permission …) ends it before anything is changed.
    """
    settings = invocation.settings()
    chosen = chosen_pairs(settings.estate.pairs, pairs)
    with Wiring(settings, invocation.environment, tell=invocation.warn) as wiring:
        results = [
            _one(
                invocation,
                wiring,
                pair,
                act=act,
                yes=yes,
                retrain=retrain,
                keep_going=keep_going,
                from_snapshot=from_snapshot,
            )
            for pair in chosen
        ]
    invocation.observe("replicate", lambda: document(results))
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
    keep_going: bool,
    from_snapshot: str | None,
) -> PairResult:
    from muster.report.plan import gate_lines
    from muster.report.progress import ProgressLine

    with ProgressLine(invocation) as line:
        replicator, result = prepare_pair(
            wiring, pair, retrain=retrain, from_snapshot=from_snapshot, say=line.tell
        )
    made = result.made
    if not invocation.json:
        _show(invocation, pair, made, act=act)
        invocation.show(*gate_lines(result.gates))
    for gap in (*made.source.gaps, *made.prepared.target.gaps):
        invocation.warn(f"unread: {gap.key}: {gap.detail}")
    if not act:
        return result
    if made.is_empty:
        return run_pair(wiring, replicator, result)  # it was in step today: `ready` asks when
    question = f"bring {pair.standby} in step with {pair.primary} "
    question += f"({len(made.prepared.plan.steps)} steps)?"
    closed = [gate for gate in result.gates if not gate.passed]
    stopped = closed and not keep_going
    if not stopped and not invocation.confirm(question, yes=yes):
        invocation.warn("nothing was changed")
        return replace(result, refused=True)
    with ProgressLine(invocation) as line, stopping(invocation) as stop:
        result = run_pair(
            wiring, replicator, result, keep_going=keep_going, stop=stop, tell=teller(line.tell)
        )
    if result.closed:
        invocation.warn(
            f"{pair.standby}: {len(closed)} of {len(result.gates)} gates did not open, and nothing "
            "was changed; --keep-going does what can be done"
        )
    if result.done is not None and not invocation.json:
        _show_done(invocation, pair, result.done)
    return result


def _show(invocation: Invocation, pair: PairSettings, made: Replicating, *, act: bool) -> None:
    from muster.report.plan import step_lines
    from muster.report.terminal import plural, span, table, text
    from snapshots.replicate import LEFT, costs

    plan = made.prepared.plan
    invocation.show(text(f"{pair.primary} -> {pair.standby}", "bold"))
    if plan.steps:
        invocation.show(*step_lines(plan))
        path = span(plan.seconds)
        invocation.show(
            text(f"{plural(len(plan.steps), 'step')}, about {path} (marked * is the critical path)")
        )
    else:
        invocation.show(text("in step: nothing to do", "green"))
    for choice in made.choices:
        name = choice.model.target.name
        if choice.way is None:
            invocation.show(text(f"{name}: no way is left", "bold red"))
        elif not choice.done:
            price = f", billed as {choice.price}" if choice.price else ""
            words = f"{name}: goes by {choice.way.value}: {choice.takes}{price}"
            invocation.show(text(words, "cyan"))
        for refused in choice.refused:
            invocation.show(text(f"    not by {refused}"))
    for lost in plan.not_restorable:
        invocation.show(text(f"not brought over: {lost.key}: {lost.sentence}", "yellow"))
    for kind, count in sorted(made.left.items()):
        invocation.show(text(f"left out: {plural(count, kind)}: {LEFT[kind]}"))
    if made.choices:
        rows = [
            (
                "chosen" if cost.chosen else "",
                cost.policy,
                f"{cost.hosting_hours}",
                f"{cost.calls}",
                cost.means,
            )
            for cost in costs(made)
        ]
        names = ["", "policy", "hosting hours a month", "calls a month", "what it means"]
        invocation.show(
            table(names, rows, title=f"{plural(len(made.choices), 'fine-tuned model')}")
        )
    if plan.steps and not act:
        invocation.say("nothing was changed: --apply does it")


def _show_done(invocation: Invocation, pair: PairSettings, done: Replicated) -> None:
    from muster.report.plan import outcome_lines
    from muster.report.terminal import plural, span, text

    for replica in done.known.replicas:
        proof = replica.proof
        told = f"{proof.same} of {proof.prompts} alike" if proof else replica.detail
        words = f"{replica.target.name}: {replica.state.value} by {replica.way.value}, {told}"
        invocation.show(text(f"{words}, {span(replica.lag.total_seconds())} after its source"))
    restored = done.restored
    if restored is not None:
        invocation.show(
            *outcome_lines(
                restored.record,
                restored.remaining,
                stopped=restored.stopped,
                seconds=done.seconds,
                calls=done.calls,
            )
        )
    words = "in step" if done.complete else "not in step"
    style = "bold green" if done.complete else "bold red"
    told = f"{pair.standby} is {words}; {plural(done.calls, 'call')} in {span(done.seconds)}"
    invocation.show(text(told, style))
