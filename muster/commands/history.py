"""`muster history`: the life of one resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring

if TYPE_CHECKING:
    from snapshots.audit.history import Step
    from snapshots.ledger import Ledger
    from snapshots.model import JsonObject, Key


@described(
    "muster history aoai-prod/chat",
    "muster history deployment/aoai-prod/chat --limit 5 --format json",
)
@click.command("history", cls=Command)
@click.argument("key")
@click.option("--limit", type=click.IntRange(1, 10**9), help="Only the newest so many changes.")
@click.pass_obj
def command(invocation: Invocation, key: str, limit: int | None) -> int:
    """Tell every change of one resource: what, when, by whom, and when it was approved.

    KEY is a key of `muster show`, or enough of its end. It may be gone by now.
    """
    from muster.report import documents
    from muster.report.audit_text import text, value, who_words
    from muster.report.terminal import moment
    from snapshots.audit.history import history
    from snapshots.model import ChangeType

    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger = wiring.ledger()
        found = find(ledger, key)
        steps = history(ledger, found)[: limit or None]
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("history"),
                "key": str(found),
                "changes": [step_document(step) for step in steps],
            }
        )
        return Exit.CLEAN
    invocation.show(text(str(found), "bold"))
    for step in steps:
        if step.branch == "baseline":
            why = f": {step.reason}" if step.reason else ""
            ticket = f" ({step.ticket})" if step.ticket else ""
            head = f"{moment(step.at)}  {step.commit[:12]}  approved by {step.attribution.who}"
            invocation.show(text(f"{head}{ticket}{why}", "green"))
        else:
            head = f"{moment(step.at)}  {step.commit[:12]}  {step.change.value}"
            invocation.show(text(head, "bold"), text(f"    by: {who_words(step.attribution)}"))
        if step.change is ChangeType.CHANGED:
            for path, who in step.paths:
                line = f"    {path.path or '/'}: {value(path.before)} -> {value(path.after)}"
                other = who is not None and who.who not in ("", step.attribution.who)
                invocation.show(text(line + (f"  by {who.who}" if who and other else "")))
    return Exit.CLEAN


def find(ledger: Ledger, words: str) -> Key:
    """Give the key that is meant: of live, else of the baseline, else one that was once."""
    from snapshots.errors import NotFoundError
    from snapshots.ledger import BASELINE, LIVE
    from snapshots.model import Key

    try:
        return ledger.find(LIVE, words)
    except NotFoundError:
        if ledger.tip(BASELINE):
            try:
                return ledger.find(BASELINE, words)
            except NotFoundError:
                pass
        try:
            key = Key.parse(words)
        except ValueError:
            key = None
        if key is not None and next(ledger.history(key), None) is not None:
            return key
        raise


def step_document(step: Step) -> JsonObject:
    """Give one change for machines."""
    from muster.report import documents
    from muster.report.terminal import iso
    from snapshots.audit.archive import attribution_document

    return {
        "branch": step.branch,
        "commit": step.commit,
        "at": iso(step.at),
        "change": step.change.value,
        "paths": [
            {
                **documents.path(path),
                "attribution": None if who is None else attribution_document(who),
            }
            for path, who in step.paths
        ],
        "attribution": attribution_document(step.attribution),
        "subject": step.subject,
        "ticket": step.ticket or None,
        "reason": step.reason or None,
    }
