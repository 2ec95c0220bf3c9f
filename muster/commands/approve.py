"""`muster approve`: take findings, or the whole state, into the baseline."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring
from snapshots.errors import InputError

if TYPE_CHECKING:
    from snapshots.audit.report_model import Severity
    from snapshots.model import JsonObject


@described(
    "muster approve --all --reason 'first baseline'",
    "muster approve 3edebff5988f --reason 'agreed' --ticket CHG-1042",
    "muster approve 3edebff5988f --path /sku/capacity --reason 'load test' --expires 7d",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("approve", cls=Command)
@click.argument("findings", nargs=-1, metavar="[FINDING]…")
@click.option("--all", "everything", is_flag=True, help="Every finding; first: the whole state.")
@click.option("--reason", required=True, metavar="TEXT", help="Why it is right as it is.")
@click.option("--ticket", default="", metavar="ID", help="The change it belongs to.")
@click.option("--expires", metavar="WHEN", help="30d or 2026-12-24: then it is a finding again.")
@click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="POINTER",
    help="Only this property (/sku/capacity); may be repeated.",
)
@click.option("--by", metavar="NAME", help="Who approves (default: git's user.email).")
@click.option("--incomplete", is_flag=True, help="With --all: approve what was read, gaps or not.")
@click.pass_obj
def command(
    invocation: Invocation,
    findings: tuple[str, ...],
    everything: bool,
    reason: str,
    ticket: str,
    expires: str | None,
    paths: tuple[str, ...],
    by: str | None,
    incomplete: bool,
) -> int:
    """Take findings into the baseline: one commit, with who, why, ticket and expiry.

    What is approved is what the newest audit reported, property by property. A severity in
    [audit] four_eyes needs two people: the first approval waits, and the exit code is 2.
    """
    from muster.commands.deciding import chosen, decider, reported, until
    from muster.report.audit_text import text
    from muster.report.terminal import plural
    from snapshots.audit.approve import Approval, approve, approve_all
    from snapshots.audit.run import approved_state
    from snapshots.ledger import LIVE
    from snapshots.model import ChangeType

    if everything == bool(findings):
        raise InputError(
            "say which findings are approved",
            remedy="name findings, or --all for all of them (never both)",
        )
    with Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring:
        ledger, now = wiring.ledger(), wiring.clock.now()
        approval = Approval(decider(by), reason, ticket, until(expires, now))
        if everything and approved_state(ledger) is None:
            if paths or expires:
                raise InputError(
                    "the first baseline is a whole state: it has no --path and no --expires",
                    remedy="leave them out",
                )
            commit = approve_all(ledger, ledger.resolve(LIVE), approval, now, gaps=incomplete)
            count = sum(1 for _ in ledger.keys(commit))
            if invocation.json:
                invocation.emit(_document(commit, [], [], approval.by, count))
            else:
                invocation.show(
                    text(
                        f"baseline {commit[:12]}: {plural(count, 'resource')} approved by "
                        f"{approval.by}"
                    )
                )
            return Exit.CLEAN
        known = reported(ledger, now)
        if everything:
            picked = tuple(f for f in known if f.counted and f.change is not ChangeType.UNKNOWN)
            if not picked:
                if invocation.json:
                    invocation.emit(_document(ledger.tip("baseline"), [], [], approval.by, None))
                else:
                    invocation.show(text("nothing to approve: the newest audit has no finding"))
                return Exit.CLEAN
        else:
            picked = chosen(known, findings)
        eyes = tuple(_severity(word) for word in wiring.settings.audit.four_eyes)
        done = approve(ledger, picked, approval, now, four_eyes=eyes, paths=paths)
    if invocation.json:
        invocation.emit(
            _document(done.commit, list(done.approved), list(done.waiting), approval.by, None)
        )
    else:
        if done.approved:
            names = " ".join(done.approved)
            invocation.show(text(f"baseline {done.commit[:12]}: approved {names} by {approval.by}"))
        for name in done.waiting:
            invocation.show(
                text(f"{name} waits for a second person: `muster approve {name} …`", "yellow")
            )
    return Exit.FINDINGS if done.waiting else Exit.CLEAN


def _severity(word: str) -> Severity:
    from snapshots.audit.report_model import Severity

    try:
        return Severity(word.lower())
    except ValueError as wrong:
        raise InputError(
            f"{word!r} is no severity",
            where="[audit] four_eyes",
            remedy=f"write one of {', '.join(s.value for s in Severity)}",
        ) from wrong


def _document(
    commit: str, approved: list[str], waiting: list[str], by: str, resources: int | None
) -> JsonObject:
    return {
        "schema": "muster/approve/1",
        "baseline": commit,
        "approved": [*approved],
        "waiting": [*waiting],
        "by": by,
        "resources": resources,
    }
