"""`muster drill`: list, show, run, rehearse and check drills."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.commands.drill_record import record
from muster.invocation import Command, Exit, Invocation, described, safe, shared_options
from muster.verbs.drill import SCHEMA, document_of, exit_code, given_of, read_drill
from muster.via import DRILL, via
from muster.wiring import Wiring
from snapshots.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from snapshots.model import Json, JsonObject

_SET = click.option(
    "--set",
    "set_",
    multiple=True,
    metavar="NAME=VALUE",
    help="Give a parameter of the script another value; may be repeated.",
)


@click.group("drill", params=list(shared_options()), no_args_is_help=True)
def command() -> None:
    """Rehearse a failover or a restore, check what came of it, and keep the evidence."""


@described("muster drill list", "muster drill list --format json")
@click.command("list", cls=Command)
@click.pass_obj
def list_(invocation: Invocation) -> int:
    """List the drills that there are, and how each went last."""
    from drills.evidence import EvidenceBook
    from drills.script import available
    from muster.drilling import own_scripts

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        last: dict[str, JsonObject] = {}
        try:
            for evidence in EvidenceBook(wiring.ledger(), None).all():
                last[str(evidence.document.get("drill"))] = evidence.document
        except NotFoundError:
            pass  # no ledger yet: no drill was run
        rows: list[Json] = []
        for name, file in sorted(available(own_scripts(wiring)).items()):
            rows.append(_listed(name, file, last.get(name)))
    if invocation.json:
        invocation.emit({"schema": SCHEMA, "drills": rows})
        return Exit.CLEAN
    for row in rows:
        if isinstance(row, dict):
            words = row["error"] or row["title"]
            ran = f"  [{row['mode']}: {row['verdict']}, {row['last']}]" if row["last"] else ""
            invocation.show(safe(f"{row['name']:<32} {words}{ran}"))
    return Exit.CLEAN


def _listed(name: str, file: Path, last: Mapping[str, Json] | None) -> JsonObject:
    title, error = "", ""
    try:
        title = read_drill(file).title
    except InputError as broken:
        error = f"{broken.what} ({broken.where})"
    return {
        "name": name,
        "title": title,
        "error": error,
        "last": str(last.get("id")) if last else None,
        "mode": last.get("mode") if last else None,
        "verdict": last.get("verdict") if last else None,
        "rto_seconds": last.get("rto_seconds") if last else None,
    }


@described("muster drill show vault-reconstruction", "muster drill show last")
@click.command("show", cls=Command)
@click.argument("name")
@click.pass_obj
def show(invocation: Invocation, name: str) -> int:
    """Show a script by its name, or an evidence by its id ("last": the newest)."""
    from drills.evidence import EvidenceBook
    from drills.script import available
    from muster.drilling import own_scripts

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        known = available(own_scripts(wiring))
        if name in known:
            drill = read_drill(known[name])
            if invocation.json:
                invocation.emit(
                    {
                        "schema": SCHEMA,
                        "name": drill.name,
                        "title": drill.title,
                        "file": str(drill.file),
                        "text": drill.text,
                    }
                )
            else:
                invocation.show(*(safe(line) for line in drill.text.splitlines()))
            return Exit.CLEAN
        document = EvidenceBook(wiring.ledger(), None).find(name).document
    if invocation.json:
        invocation.emit({"schema": SCHEMA, "evidence": document})
    else:
        _tell(invocation, document)
    return Exit.CLEAN


@via(DRILL)
@described(
    "muster drill run vault-reconstruction",
    "muster drill run region-failover --dry-run",
    "muster drill run restore-one-resource --set what=deployment/care-chat",
    "muster drill run soft-delete-rescue --keep      look at what it made; the next run cleans",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("run", cls=Command)
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Change nothing; every read-only check is real.")
@click.option("--keep", is_flag=True, help="Leave what it made, until the next drill starts.")
@click.option("--snapshot", default="", help="Which snapshot (default: the newest; live: as is).")
@click.option("--seed", type=int, default=0, help="Makes chance repeat.")
@click.option("--approver", default="", metavar="NAME", help="Who you are, when asked.")
@click.option("--yes", is_flag=True, help="Say yes where approval is asked.")
@_SET
@click.option(
    "--sandbox",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The ready file of the sandbox that the configuration names: faults work there.",
)
@click.pass_obj
def run(
    invocation: Invocation,
    name: str,
    dry_run: bool,
    keep: bool,
    snapshot: str,
    seed: int,
    approver: str,
    yes: bool,
    set_: tuple[str, ...],
    sandbox: Path | None,
) -> int:
    """Run a drill: gate, steps, checks, and whatever happens clean-up, proof and evidence.

    A file called `stop` in the folder of run journals (beside the ledger) is the stop switch.
    """
    from drills.model import Mode
    from drills.run import Options
    from drills.run import run as run_drill
    from drills.script import find
    from muster.drilling import equipment, own_scripts

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        drill = read_drill(find(name, own_scripts(wiring)), given_of(set_))
        ran = run_drill(
            drill,
            equipment(
                wiring,
                invocation=invocation,
                approver=approver,
                yes=yes,
                sandbox=sandbox,
                primary=drill.scope.primary,
                tell=invocation.say,
            ),
            Options(
                mode=Mode.DRY_RUN if dry_run else Mode.REAL, seed=seed, keep=keep, snapshot=snapshot
            ),
        )
    if invocation.json:
        invocation.emit(document_of(ran))
    else:
        _tell(invocation, ran.evidence.document)
    return exit_code(ran)


def _inner(step: Mapping[str, Json]) -> list[JsonObject]:
    value = step.get("steps")
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _lost(step: Mapping[str, Json]) -> list[Json]:
    found = step.get("found")
    value = found.get("cannot_come_back") if isinstance(found, dict) else None
    return value if isinstance(value, list) else []


def _tell(invocation: Invocation, document: Mapping[str, Json]) -> None:
    def rows(name: str) -> list[JsonObject]:
        value = document.get(name)
        return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []

    def took(value: Json, promised: Json = None) -> str:
        words = f"{value:.1f} s" if isinstance(value, int | float) else "not measured"
        return words + (
            f" (promised {promised:.0f} s)" if isinstance(promised, int | float) else ""
        )

    lines = [f"{document.get('title')}: {document.get('verdict')} ({document.get('mode')})"]
    for name in ("reasons", "findings"):
        value = document.get(name)
        lines += [f"  {reason}" for reason in value] if isinstance(value, list) else []
    promised = document.get("objective")
    limits = promised if isinstance(promised, dict) else {}
    rto, rpo = document.get("rto_seconds"), document.get("rpo_seconds")
    lines.append(f"RTO {took(rto, limits.get('rto_seconds'))}")
    lines.append(f"RPO {took(rpo, limits.get('rpo_seconds'))}")
    estimate = document.get("estimate")
    if isinstance(estimate, dict):
        lines.append(
            f"rehearsed: {took(estimate.get('p50'))} in the middle, nine in ten below "
            f"{took(estimate.get('p90'))}, {estimate.get('runs')} runs"
        )
    rehearsal = document.get("rehearsal")
    if isinstance(rehearsal, dict):
        verdicts, times = rehearsal.get("verdicts"), rehearsal.get("rto")
        counts = verdicts.items() if isinstance(verdicts, dict) else ()
        lines.append("rehearsals: " + ", ".join(f"{n} {word}" for word, n in counts if n))
        if isinstance(times, dict):
            each = (f"{name} {took(times.get(name))}" for name in ("min", "p50", "p90", "max"))
            lines.append("  RTO " + ", ".join(each))
    phases = document.get("phases")
    if isinstance(phases, dict) and phases:
        told = ", ".join(f"{name} after {took(at)}" for name, at in phases.items())
        lines.append(f"after the loss: {told}")
    for step in rows("steps"):
        for inner, before in ((step, ""), *((i, "  ") for i in _inner(step))):
            seconds = inner["seconds"]
            lines.append(f"  step  {inner['state']:<8} {seconds:>9} s  {before}{inner['name']}")
            if inner["detail"]:
                lines.append(f"        {before}{inner['detail']}")
            lines += [f"        cannot come back: {text}" for text in _lost(inner)[:8]]
    for name in ("gate", "checks"):
        for c in rows(name):
            word = "gate " if name == "gate" else "check"
            broken = f"broken copy: {c['negative_control']:<8}"
            lines.append(f"  {word} {c['state']:<8} {broken} {c['name']}")
            if c["state"] != "passed" and c["detail"]:
                lines.append(f"        {c['detail']}")
    clean = document.get("cleanup")
    if isinstance(clean, dict):
        lines.append(f"clean-up: {clean.get('state')}")
        for name in ("left", "kept", "proof"):
            value = clean.get(name)
            lines += [f"  {name}: {text}" for text in value] if isinstance(value, list) else []
    lines.append(f"evidence: {document.get('id')}  {document.get('hash')}")
    invocation.show(*(safe(line) for line in lines))


@described(
    "muster drill rehearse region-failover --seeds 50",
    "muster drill rehearse region-failover --from 29b4f1fd --seeds 50 --seed 7 --fault-rate 0.05",
    "muster drill rehearse soft-delete-rescue --estate demo    the sandbox's own estate",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("rehearse", cls=Command)
@click.argument("name")
@click.option(
    "--from",
    "snapshot",
    default="",
    metavar="SNAPSHOT",
    help="What the twin is made of (default: the newest snapshot).",
)
@click.option(
    "--seeds",
    "--runs",
    "runs",
    type=click.IntRange(1, 1000),
    default=5,
    show_default=True,
    help="How often, each time with the next seed.",
)
@click.option("--seed", type=int, default=1, show_default=True, help="The first of the seeds.")
@click.option(
    "--fault-rate",
    type=click.FloatRange(0, 0.5),
    default=0.02,
    show_default=True,
    help="The share of requests that fail for a moment.",
)
@click.option(
    "--time-scale",
    type=click.FloatRange(1, 1000),
    default=30.0,
    show_default=True,
    help="Seconds of the twin in a real one.",
)
@click.option(
    "--set", "set_", multiple=True, metavar="NAME=VALUE", help="A parameter of the script."
)
@click.option(
    "--estate",
    default="",
    help="Rehearse in an estate of the sandbox instead of a snapshot: demo, or a file.",
)
@click.pass_obj
def rehearse(
    invocation: Invocation,
    name: str,
    snapshot: str,
    runs: int,
    seed: int,
    fault_rate: float,
    time_scale: float,
    set_: tuple[str, ...],
    estate: str,
) -> int:
    """Run a drill many times in a twin of the estate, with faults: how long, and what fails.

    A snapshot is applied to a sandbox of its own, and each run begins from there with another seed
    of faults. Nothing of the real estate is called. Times are the twin's. The distribution of the
    recovery time and the steps that failed are kept as evidence.
    """
    from drills.script import find
    from muster.drilling import own_scripts
    from muster.rehearsal import Plan
    from muster.rehearsal import rehearse as run_all

    if snapshot and estate:
        raise click.UsageError("--from and --estate exclude each other")
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        drill = read_drill(find(name, own_scripts(wiring)), given_of(set_))
        plan = Plan(
            runs=runs,
            seed=seed,
            fault_rate=fault_rate,
            time_scale=time_scale,
            estate=estate,
            snapshot=snapshot,
        )
        found = run_all(drill, plan, wiring, invocation)
    if invocation.json:
        invocation.emit({"schema": SCHEMA, **found.document()})
    else:
        invocation.show(*(safe(line) for line in found.lines()))
    if found.interrupted:
        return Exit.INTERRUPTED
    return Exit.CLEAN if found.all_passed else Exit.FINDINGS


@described(
    "muster drill check last",
    "muster drill check 20261122T193000Z-1a2b3c",
    "muster drill check ./evidence.json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("check", cls=Command)
@click.argument("evidence")
@click.pass_obj
def check(invocation: Invocation, evidence: str) -> int:
    """Verify an evidence: hash, chain, copies, signature, and the verdict from what was recorded.

    EVIDENCE is an id, the beginning of one, "last", or a file. Where there is no ledger, the vault
    alone is asked.
    """
    from drills.evidence import EvidenceBook, GitSigner, check_in_vault, opened

    file, data = Path(evidence), b""
    if evidence.endswith(".json") or file.is_file():
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(
                f"the evidence cannot be read: {error.strerror}", where=str(file)
            ) from error
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        if not wiring.settings.ledger.path.exists():  # who checks evidence makes no ledger
            invocation.warn("there is no ledger here: only the vault's copies are compared")
            signer = GitSigner(wiring.settings.file.parent)
            checked = check_in_vault(wiring.vault(), evidence, signer, data)
        else:
            ledger = wiring.ledger()
            book = EvidenceBook(ledger, wiring.vault())
            found = opened(data, str(file)) if data else book.find(evidence)
            checked = book.check(found, GitSigner(ledger.path), data)
    if invocation.json:
        invocation.emit(
            {
                "schema": SCHEMA,
                "evidence": checked.evidence.id,
                "whole": checked.whole,
                "verdict": checked.verdict,
                "reasons": list(checked.reasons),
                "signed_by": checked.signed_by,
                "signature": checked.seal.state.value,
                "problems": list(checked.problems),
            }
        )
    else:
        words = "whole" if checked.whole else "NOT WHOLE"
        invocation.show(safe(f"{checked.evidence.id}: {words}; the verdict is {checked.verdict}"))
        invocation.show(safe(f"  signature: {checked.seal.words()}"))
        invocation.show(*(safe(f"  {problem}") for problem in checked.problems))
    return Exit.CLEAN if checked.whole else Exit.FINDINGS


@described(
    "muster drill clean",
    "muster drill clean 20261122T193000Z-1a2b3c      also a failover that was kept",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("clean", cls=Command)
@click.argument("run", default="")
@click.option(
    "--sandbox",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The ready file of the sandbox that the configuration names.",
)
@click.pass_obj
def clean(invocation: Invocation, run: str, sandbox: Path | None) -> int:
    """Clean up what drills left that did not end, or were run with --keep.

    Resource groups of drills whose time is over are deleted, too, wherever the drill ran.

    The next `muster drill run` does it, too, but for failovers that were kept: those stay until
    RUN names them (an id, or the beginning of one).
    """
    from drills.run import settle, sweep_expired, unsettled
    from muster.drilling import equipment

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        tools = equipment(wiring, sandbox=sandbox, tell=invocation.say)
        if run and not any(id_.startswith(run) for id_ in unsettled(tools)):
            raise NotFoundError(
                f"no run called {run!r} is waiting for its clean-up",
                where=str(tools.state),
                remedy=f"waiting: {', '.join(unsettled(tools)) or 'none'}",
            )
        before = unsettled(tools)
        settle(tools, also=run)
        swept = sweep_expired(tools)
        left = [*unsettled(tools), *swept.left]
    cleaned: list[Json] = [id_ for id_ in before if id_ not in left]
    cleaned += swept.removed
    if invocation.json:
        invocation.emit({"schema": SCHEMA, "cleaned": cleaned, "left": list(left)})
    else:
        invocation.show(*(safe(f"cleaned up: {id_}") for id_ in cleaned))
        invocation.show(*(safe(f"still there (kept, running or not cleaned): {i}") for i in left))
        if not cleaned and not left:
            invocation.show("nothing was left behind")
    return Exit.FINDINGS if left else Exit.CLEAN


@described(
    "muster drill approve 20261122T193000Z-1a2b3c --approver 'Anna Lindqvist'",
    "muster drill approve last --approver 'Bo Chen' --no",
    exits=(Exit.CLEAN, Exit.ERROR),
)
@click.command("approve", cls=Command)
@click.argument("run")
@click.option("--approver", required=True, metavar="NAME", help="Who you are.")
@click.option("--yes", is_flag=True, help="Say yes without being asked.")
@click.option("--no", is_flag=True, help="Say no: the drill ends and cleans up.")
@click.pass_obj
def approve(invocation: Invocation, run: str, approver: str, yes: bool, no: bool) -> int:
    """Answer a drill that waits for approval.

    RUN is its id, the beginning of one, or "last". Run it on the machine on which the drill runs.
    """
    from drills.journal import answer, read, unfinished
    from muster.drilling import state_folder

    if yes and no:
        raise click.UsageError("--yes and --no exclude each other")
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        waiting = list(unfinished(state_folder(wiring)))
        fitting = [p for p in waiting if p.stem.startswith(run)] if run != "last" else waiting[-1:]
        if len(fitting) != 1:
            raise NotFoundError(
                f"{'more than one' if fitting else 'no'} drill called {run!r} waits",
                where=str(state_folder(wiring)),
                remedy=f"running: {', '.join(p.stem for p in waiting) or 'none'}",
            )
        path = fitting[0]
        asked = read(path).facts.get("asked")
        question = str(asked.get("question") or "") if isinstance(asked, dict) else ""
        number = asked.get("number") if isinstance(asked, dict) else None
        if not question or not isinstance(number, int):
            raise NotFoundError("that drill asks nothing yet", where=str(path))
        invocation.say(f"{path.stem} asks: {question}")
        said = not no and invocation.confirm(question, yes=yes)
        answer(path, approver.strip(), question=number, yes=said)
    if invocation.json:
        invocation.emit({"schema": SCHEMA, "run": path.stem, "approver": approver, "yes": said})
    else:
        invocation.show(safe(f"{approver} said {'yes' if said else 'no'} to {path.stem}"))
    return Exit.CLEAN


for _sub in (list_, show, run, rehearse, record, check, clean, approve):
    command.add_command(_sub)
