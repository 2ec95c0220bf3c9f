"""`muster drill record`: golden data sets from living deployments."""

from __future__ import annotations

from pathlib import Path

import click

from muster.invocation import Command, Exit, Invocation, described, safe
from muster.verbs.drill import SCHEMA
from muster.wiring import Wiring


@described(
    "muster drill record questions.txt aoai-claims-swc/gpt4o --dry-run",
    "muster drill record questions.txt aoai-claims-swc/gpt4o --embeddings embed-large",
    "muster drill record questions.jsonl 'deployment/*/aoai-claims-*/gpt4o*' --name claims --yes",
    "muster drill record texts.txt aoai-claims-swc/embed-large --name claims-vectors",
    "muster drill record ledger:claims aoai-claims-swc/gpt4o --replace --yes",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("record", cls=Command)
@click.argument("questions")
@click.argument("deployments", nargs=-1, metavar="[DEPLOYMENT]...")
@click.option("--name", default="", help="What the set is called (default: as the file).")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    help="Where NAME.jsonl is written (default: golden/ beside the configuration).",
)
@click.option(
    "--embeddings",
    default="",
    metavar="DEPLOYMENT",
    help="Of the same account: compares answers that are not always the same.",
)
@click.option(
    "--judge", default="", metavar="DEPLOYMENT", help="Of the same account: rules on rubrics."
)
@click.option(
    "--base",
    default="",
    metavar="DEPLOYMENT",
    help="The base model of a fine-tuned one: its answers are kept beside.",
)
@click.option(
    "--times",
    type=click.IntRange(1, 100),
    default=3,
    show_default=True,
    help="How often each question is asked, to see what is steady.",
)
@click.option("--replace", is_flag=True, help="Take the place of a set of that name.")
@click.option("--dry-run", is_flag=True, help="Only say what would be asked, and what it takes.")
@click.option("--yes", is_flag=True, help="Do not ask before spending.")
@click.pass_obj
def record(
    invocation: Invocation,
    questions: str,
    deployments: tuple[str, ...],
    name: str,
    folder: Path | None,
    embeddings: str,
    judge: str,
    base: str,
    times: int,
    replace: bool,
    dry_run: bool,
    yes: bool,
) -> int:
    """Record golden data sets: ask deployments, and keep what they answer as what is expected.

    QUESTIONS is a text file with a question a line, JSONL of the format in docs/checks.md (`id`
    and `expect` may be left out), or a set: ledger:NAME, sha256:…, a shipped one. DEPLOYMENT is a
    key, the end of one, or a glob of keys: each gets a set of its own.

    An answer that is always the same is expected exactly, one that varies by similarity, what is
    stopped or declined as such, an embedding as a vector. Then the set is tried: its source must
    pass it, and a broken copy must not. Only then is it kept, in the vault by its digest, in the
    ledger by its name, and as a file. Nothing of Azure is changed; what is said first is spent.
    """
    from muster.verbs import record as recording

    chosen = recording.Chosen(deployments, name.strip(), folder, embeddings, judge, base, times)
    with Wiring(invocation.settings(), invocation.environment) as wiring:
        context = recording.context_of(wiring)
        sets = recording.wanted(questions, chosen, context)
        if not replace and not dry_run:
            recording.refuse_to_replace(sets)
        cost = recording.total(sets, chosen)
        for each in sets:
            golden = each.draft.golden
            invocation.say(f"{golden.name}: {len(golden.cases)} questions to {each.source.key}")
            for place in each.replaces:
                invocation.say(f"  takes the place of {place}")
        invocation.say(f"it takes {cost.words()}")
        went = not dry_run and invocation.confirm("Ask them?", yes=yes)
        kept = (
            recording.record_all(sets, chosen, context, invocation.say)
            if went
            else tuple(recording.Kept(each) for each in sets)
        )
    if invocation.json:
        invocation.emit(
            {
                "schema": SCHEMA,
                "recorded": went,
                "cost": cost.document(),
                "sets": [each.document() for each in kept],
            }
        )
    elif not went:
        invocation.show(f"nothing was asked: {cost.words()}")
    for ended in kept:
        if ended.error:
            name = ended.wanted.draft.golden.name
            invocation.warn(f"{name} was not recorded: {ended.error}")
        if ended.recorded is not None and not invocation.json:
            golden = ended.recorded.golden
            kinds = ", ".join(f"{n} {k}" for k, n in recording.kinds_of(ended.recorded).items())
            invocation.show(
                safe(f"{golden.name}: {kinds}; its source passes, a broken copy fails"),
                safe(f"  {ended.wanted.file}"),
                f"  sha256:{golden.digest}",
            )
    if dry_run:
        return Exit.CLEAN
    return Exit.FINDINGS if not went or any(ended.error for ended in kept) else Exit.CLEAN
