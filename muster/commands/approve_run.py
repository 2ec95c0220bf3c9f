"""`muster approve-run`: decide about a restore or a drill that waits in Prefect."""

from __future__ import annotations

import getpass
import socket

import click

from muster.invocation import Command, Exit, Invocation, described, safe, safe_lines
from muster.prefect_api import Run, Server
from snapshots.errors import InputError, RefusedError
from snapshots.model import Json, JsonObject


@described(
    "muster approve-run                        what waits",
    "muster approve-run 3f9c --approve --reason 'rehearsed on Monday, CHG-4711'",
    "muster approve-run 3f9c --reject --reason 'not in the freeze'",
)
@click.command("approve-run", cls=Command)
@click.argument("run", default="")
@click.option("--approve", "answer", flag_value="approve", help="Let it go on.")
@click.option("--reject", "answer", flag_value="reject", help="End it; nothing is done.")
@click.option("--reason", default="", metavar="TEXT", help="Why; kept with the evidence.")
@click.option("--who", default="", metavar="NAME", help="Your name (default: your login here).")
@click.option(
    "--steps",
    type=int,
    metavar="N",
    help="The number of steps, for a plan of more than [restore] max_steps.",
)
@click.pass_obj
def command(
    invocation: Invocation, run: str, answer: str | None, reason: str, who: str, steps: int | None
) -> int:
    """Decide about RUN, a restore or a real drill that waits in Prefect for a person.

    Without RUN: list what waits. Without an answer: show what is asked. RUN is an id, the beginning
    of one, or a name. The decision, with who and why, is kept on the ledger's evidence branch
    before anything is done.
    """
    server = Server.of(invocation.environment)
    if not run:
        if answer:
            message = "--approve and --reject need a RUN: see `muster approve-run`"
            raise click.UsageError(message, click.get_current_context())
        return _list(invocation, server)
    found = server.find(run)
    if found.type != "PAUSED":
        raise RefusedError(
            f"this run does not wait for a decision: it is {found.state.lower() or 'not begun'}",
            where=server.page(found.id),
            remedy="`muster approve-run` lists those that wait",
        )
    schema, question = server.form(found)
    if answer is None:
        return _show(invocation, server, found, question)
    given = _answer(schema, answer, reason.strip(), who.strip() or _login(), steps)
    server.answer(found, given)
    done = "approved" if answer == "approve" else "rejected"
    if invocation.json:
        invocation.emit(
            {
                "schema": "muster/approve-run/1",
                "waiting": [],
                "run": found.id,
                "answer": done,
                "who": given["who"],
                "reason": given["reason"],
            }
        )
    else:
        invocation.show(safe(f"{done} by {given['who']}: {found.name} ({found.id})"))
        invocation.say(f"see {server.page(found.id)}")
    return Exit.CLEAN


def _list(invocation: Invocation, server: Server) -> int:
    from muster.report.terminal import table

    there = server.waiting()
    if invocation.json:
        waiting: list[Json] = [
            {"run": r.id, "name": r.name, "page": server.page(r.id)} for r in there
        ]
        invocation.emit(
            {
                "schema": "muster/approve-run/1",
                "waiting": waiting,
                "run": None,
                "answer": None,
                "who": None,
                "reason": None,
            }
        )
    elif there:
        rows = [(r.id, safe(r.name), server.page(r.id)) for r in there]
        invocation.show(table(["run", "name", "page"], rows))
        invocation.say("next: muster approve-run RUN, to see what is asked")
    else:
        invocation.show("nothing waits for a decision")
    return Exit.CLEAN


def _show(invocation: Invocation, server: Server, run: Run, question: str) -> int:
    if invocation.json:
        invocation.emit(
            {
                "schema": "muster/approve-run/1",
                "waiting": [
                    {
                        "run": run.id,
                        "name": run.name,
                        "page": server.page(run.id),
                        "question": question,
                    }
                ],
                "run": run.id,
                "answer": None,
                "who": None,
                "reason": None,
            }
        )
        return Exit.CLEAN
    from rich.markdown import Markdown

    invocation.show(Markdown(safe_lines(question), hyperlinks=False))
    invocation.say(f"next: muster approve-run {run.id} --approve|--reject --reason TEXT")
    return Exit.CLEAN


def _answer(
    schema: JsonObject, answer: str, reason: str, who: str, steps: int | None
) -> JsonObject:
    if not reason:
        raise InputError(
            "a decision needs a reason", remedy="add --reason TEXT; it is kept with the evidence"
        )
    given: JsonObject = {"decision": answer, "who": who, "reason": reason}
    wanted = schema.get("properties")
    if isinstance(wanted, dict) and "steps" in wanted:
        if steps is None and answer == "approve":
            raise InputError(
                "this plan is larger than [restore] max_steps: its number of steps must be said",
                remedy="look at it (`muster approve-run RUN`), then add --steps N",
            )
        given["steps"] = steps or 0
    elif steps is not None:
        raise InputError("this run asks for no number of steps", remedy="leave out --steps")
    return given


def _login() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        raise InputError("nobody knows who you are here", remedy="add --who NAME") from None
