"""`muster doctor`: check access, permissions, tools and stores."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from typing import TYPE_CHECKING, Final

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring
from snapshots.errors import MusterError

if TYPE_CHECKING:
    from snapshots.permissions import Need, Verb

_GIT: Final = (2, 36)  # docs/ledger.md
_MOST_SKEW: Final = 60.0  # seconds; Azure refuses signatures that are more than 15 minutes off
_VERBS: Final = ("snapshot", "audit", "ready", "restore", "replicate")


class State(StrEnum):
    """What came of a check. What could not run is not passed."""

    PASSED = "passed"
    WARNING = "warning"  # works, and should be better
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Check:
    """One question, its answer, and what to do."""

    name: str
    subject: str
    state: State
    detail: str
    remedy: str = ""
    missing: tuple[Need, ...] = ()  # permissions


@described(
    "muster doctor",
    "muster doctor --verb snapshot,audit,restore",
    "muster doctor --format json",
)
@click.command("doctor", cls=Command)
@click.option(
    "--verb",
    "verbs",
    default="snapshot,audit",
    show_default=True,
    metavar="VERB[,VERB…]",
    help=f"Whose permissions are checked: {', '.join(_VERBS)}, or all.",
)
@click.pass_obj
def command(invocation: Invocation, verbs: str) -> int:
    """Check access, permissions, tools and stores, and say exactly what is missing.

    Permissions are asked from Azure for each scope; what is missing is listed with the role file
    that grants it. Exit code 1: something that is needed is missing.
    """
    from muster.report import documents
    from muster.report.terminal import table, text

    chosen = _verbs(verbs)
    settings = invocation.settings()
    with Wiring(settings, invocation.environment) as wiring:
        found = [
            Check("configuration", str(settings.file), State.PASSED, "read and checked"),
            *_git(),
            *_ledger(wiring),
            *_vault(wiring),
            *_azure(wiring, chosen),
            *_prefect(),
            *_prefect_server(wiring),
        ]
    failed = [check for check in found if check.state is State.FAILED]
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("doctor"),
                "verdict": "failed" if failed else "passed",
                "verbs": [verb.value for verb in chosen],
                "checks": [
                    {
                        "name": c.name,
                        "subject": c.subject,
                        "state": c.state.value,
                        "detail": c.detail,
                        "remedy": c.remedy,
                        "missing": [
                            {"action": n.action, "data": n.data, "why": n.why} for n in c.missing
                        ],
                    }
                    for c in found
                ],
            }
        )
    else:
        rows = [(c.state.value, c.name, c.subject, c.detail) for c in found]
        invocation.show(table(["", "check", "of", "found"], rows))
        for check in found:
            if check.remedy and check.state is not State.PASSED:
                style = "red" if check.state is State.FAILED else "yellow"
                invocation.show(text(f"{check.name}, {check.subject}: {check.remedy}", style))
                for need in check.missing:
                    what = "data action" if need.data else "action"
                    invocation.show(text(f"  missing {what} {need.action}: {need.why}"))
        verdict = f"{len(failed)} failed" if failed else "all that is needed is there"
        invocation.show(text(verdict, "bold red" if failed else "bold green"))
    return Exit.ERROR if failed else Exit.CLEAN


def _verbs(words: str) -> list[Verb]:
    from snapshots.permissions import Verb

    asked = [word.strip().lower() for word in words.split(",") if word.strip()]
    if asked == ["all"]:
        return list(Verb)
    try:
        return list(dict.fromkeys(Verb(word) for word in asked)) or [Verb.SNAPSHOT]
    except ValueError:
        message = f"--verb takes {', '.join(_VERBS)} or all, separated by commas, not {words!r}"
        raise click.UsageError(message, click.get_current_context()) from None


def _git() -> Iterator[Check]:
    least = ".".join(map(str, _GIT))
    remedy = f"install Git {least} or newer"
    try:
        ran = subprocess.run(["git", "--version"], capture_output=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Check("git", "git", State.FAILED, f"cannot be run: {error}", remedy)
        return
    words = ran.stdout.decode("utf-8", "replace").strip()
    match = re.search(r"(\d+)\.(\d+)", words)
    good = match is not None and (int(match[1]), int(match[2])) >= _GIT
    state = State.PASSED if good else State.FAILED
    yield Check("git", "git", state, words or "no version", "" if good else remedy)


def _ledger(wiring: Wiring) -> Iterator[Check]:
    from muster.report.terminal import moment

    path = str(wiring.settings.ledger.path)
    if not wiring.settings.ledger.path.exists():
        yield _no_ledger(wiring, path)
        return
    try:
        ledger = wiring.ledger()
        newest = next(ledger.log(1), None)
    except MusterError as error:
        yield Check("ledger", path, State.FAILED, error.what, error.remedy)
        return
    told = f"last snapshot {moment(newest.taken_at)}" if newest else "empty"
    yield Check("ledger", path, State.PASSED, told)
    if wiring.settings.ledger.remote:
        yield Check("ledger remote", ledger.remote, State.PASSED, "gets every commit")
    else:
        yield Check(
            "ledger remote",
            path,
            State.WARNING,
            "none: the history is on this machine, and bundled in the vault",
            'set [ledger] remote = "…"',
        )


def _no_ledger(wiring: Wiring, path: str) -> Check:
    """Say what a lost ledger would come back from; doctor itself makes nothing."""
    try:
        bundles = wiring.vault().bundles()
    except MusterError:
        bundles = ()  # the vault's own check says why
    remedy = (
        "the next command makes it again from there" if bundles else "`muster snapshot` makes it"
    )
    told = f"not here; the vault has {len(bundles)} bundles of it" if bundles else "not there yet"
    return Check("ledger", path, State.WARNING, told, remedy)


def _vault(wiring: Wiring) -> Iterator[Check]:
    from muster.report.terminal import size

    try:
        facts = wiring.vault().facts()
    except MusterError as error:
        yield Check("vault", wiring.settings.vault.url, State.FAILED, error.what, error.remedy)
        return
    if not facts.reachable:
        yield Check("vault", facts.location, State.FAILED, facts.problem, facts.remedy)
        return
    told = [facts.kind, "reachable"]
    if facts.redundancy:
        told.append(facts.redundancy)
    if facts.region:
        told.append(f"in {facts.region}")
    if facts.free_bytes is not None:
        told.append(f"{size(facts.free_bytes)} free")
    yield Check("vault", facts.location, State.PASSED, ", ".join(told))
    if facts.region_independent is False:
        yield Check(
            "vault redundancy",
            facts.location,
            State.WARNING,
            "no copy in another region",
            "use a geo-redundant storage account, or one in the standby region",
        )
    kept = facts.immutability_policy or facts.legal_hold
    if facts.kind == "blob":
        yield Check(
            "vault immutability",
            facts.location,
            State.PASSED if kept else State.WARNING,
            _yes_no("immutability", facts.immutability_policy)
            + ", "
            + _yes_no("legal hold", facts.legal_hold)
            + ", "
            + _yes_no("versioning", facts.versioning)
            + f", soft delete {facts.soft_delete_days or 0} days",
            "" if kept else "set an immutability policy on the container",
        )
    if facts.clock_skew_seconds is not None:
        yield _skew("vault clock", facts.location, facts.clock_skew_seconds)
    try:
        wiring.fingerprints()
    except MusterError as error:
        yield Check("fingerprint key", facts.location, State.FAILED, error.what, error.remedy)
    else:
        where = wiring.settings.secrets.fingerprint_key_file or facts.location
        yield Check("fingerprint key", str(where), State.PASSED, "there")


def _yes_no(name: str, found: bool | None) -> str:
    return f"{name} {'not known' if found is None else 'on' if found else 'off'}"


def _skew(name: str, subject: str, seconds: float) -> Check:
    good = abs(seconds) <= _MOST_SKEW
    return Check(
        name,
        subject,
        State.PASSED if good else State.FAILED,
        f"{seconds:+.1f} s from ours",
        "" if good else "set this machine's clock: signatures and histories depend on it",
    )


def _azure(wiring: Wiring, verbs: list[Verb]) -> Iterator[Check]:
    from snapshots.cloud.place import Place, Plane

    where = wiring.settings.estate.cloud
    try:
        cloud = wiring.cloud()
        asked = wiring.clock.now()
        rows = cloud.list(
            Place(Plane.ARM),
            "/subscriptions",
            params={"api-version": "2022-12-01"},
            kind="subscription",
        )
        visible = {str(row.get("subscriptionId", "")).lower() for row in rows}
    except MusterError as error:
        yield Check("credentials", where, State.FAILED, error.what, error.remedy)
        return
    kind = wiring.settings.credential.kind.value
    yield Check("credentials", where, State.PASSED, f"signed in ({kind})")
    told = cloud.server_time()
    if told is not None:
        yield _skew("Azure's clock", where, (told - asked).total_seconds())
    for scope in wiring.settings.estate.scopes:
        if scope.subscription not in visible:
            yield Check(
                "scope",
                scope.subscription,
                State.FAILED,
                "this identity does not see the subscription",
                "grant it docs/roles/reader.json there, or correct [[estate.scope]]",
            )
            continue
        base = f"/subscriptions/{scope.subscription}"
        for place in [f"{base}/resourceGroups/{g}" for g in scope.resource_groups] or [base]:
            yield from _permissions(wiring, place, verbs)


def _permissions(wiring: Wiring, scope: str, verbs: list[Verb]) -> Iterator[Check]:
    from snapshots.permissions import missing, needs, role_for

    try:
        granted = wiring.cloud().permissions(scope)
    except MusterError as error:
        yield Check("permissions", scope, State.FAILED, error.what, error.remedy)
        return
    for verb in verbs:
        lacking = missing(verb, granted)
        name = f"permissions for {verb.value}"
        if not lacking:
            yield Check(name, scope, State.PASSED, f"all {len(needs(verb))} are there")
            continue
        yield Check(
            name,
            scope,
            State.FAILED,
            f"{len(lacking)} of {len(needs(verb))} are missing",
            f"grant the role of docs/roles/{role_for(verb).value}.json at {scope}",
            lacking,
        )


def _prefect() -> Iterator[Check]:
    """Prefect is only wanted for schedules; importing it would take longer than all the rest."""
    remedy = "only schedules need it: install the project's locked requirements"
    try:
        yield Check("prefect", "prefect", State.PASSED, metadata.version("prefect"))
    except metadata.PackageNotFoundError:
        yield Check("prefect", "prefect", State.WARNING, "is not installed", remedy)


def _prefect_server(wiring: Wiring) -> Iterator[Check]:
    """Ask the server for its deployments and workers; that there is none is only a warning."""
    from muster.prefect_api import Server
    from muster.via import NAMES

    try:
        server = Server.of(wiring.environment)
        version = server.version()
        there = {str(found.get("id")): found for found in server.deployments()}
        pools = sorted({str(found.get("work_pool_name") or "") for found in there.values()} - {""})
        states = {pool: str(server.pool(pool).get("status", "")) for pool in pools}
        names = server.names(there.values())
    except MusterError as error:
        where = wiring.environment.prefect_url or "PREFECT_API_URL"
        yield Check("prefect server", where, State.WARNING, error.what, error.remedy)
        return
    yield Check("prefect server", server.url, State.PASSED, f"answers, version {version}")
    missing = sorted(set(NAMES) - names)
    deploy = "make them: `make up`, or `python -m flows.prepare_server` (docs/schedule.md)"
    yield Check(
        "prefect deployments",
        server.url,
        State.WARNING if missing else State.PASSED,
        f"not there: {', '.join(missing)}" if missing else f"all {len(NAMES)} are there",
        deploy if missing else "",
    )
    for pool, state in states.items():
        ready = state == "READY"
        yield Check(
            "prefect workers",
            pool,
            State.PASSED if ready else State.WARNING,
            "a worker is there" if ready else f"no worker is there ({state.lower() or 'no state'})",
            "" if ready else f"`make up`, or `prefect worker start --pool {pool}`",
        )
