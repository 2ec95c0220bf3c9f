"""`muster init`: write a configuration from what is there."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Invocation, described, safe
from muster.settings import (
    FILE_NAME,
    AccountTarget,
    CredentialKind,
    CredentialSettings,
    EstateSettings,
    LedgerSettings,
    ObjectiveSettings,
    PairSettings,
    ScopeSettings,
    Settings,
    VaultSettings,
    duration,
    parse,
    quote,
    render,
    write_private,
)
from muster.wiring import Wiring
from snapshots.errors import InputError, NotFoundError, RefusedError

if TYPE_CHECKING:
    from snapshots.survey import SeenAccount, Survey

PRINCIPAL_FILE = "principal.toml"


@dataclass(frozen=True, slots=True)
class ReadySandbox:
    """What a sandbox's ready file says that a configuration needs."""

    url: str
    ca: Path
    tenant: str
    subscriptions: tuple[str, ...]
    client_id: str
    client_secret: str
    principal: str


@described(
    "muster init",
    "muster init --subscription 00000000-0000-0000-0000-000000000000 --vault azblob://acc/vault",
    "muster init --cloud AzureChinaCloud --config china/muster.toml",
    "muster init --sandbox ready.json --config demo/muster.toml",
)
@click.command("init", cls=Command)
@click.option(
    "--sandbox",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="READY_FILE",
    help="Set up for a sandbox that serves, by its ready file.",
)
@click.option(
    "--principal", default="", help="Who to be in the sandbox (default: muster or owner)."
)
@click.option("--name", default="", help="The estate's name.")
@click.option("--cloud", default="AzureCloud", show_default=True, help="Which Azure.")
@click.option("--tenant", default="", help="The tenant to sign in to.")
@click.option(
    "--subscription",
    "subscriptions",
    multiple=True,
    help="Only this subscription (may be repeated); default: all that are visible.",
)
@click.option("--vault", default="vault", show_default=True, help="A folder, or azblob://….")
@click.option("--force", is_flag=True, help="Replace a configuration that is there.")
@click.pass_obj
def command(
    invocation: Invocation,
    sandbox: Path | None,
    principal: str,
    name: str,
    cloud: str,
    tenant: str,
    subscriptions: tuple[str, ...],
    vault: str,
    force: bool,
) -> int:
    """Write a configuration from what is there.

    Looks at the subscriptions, the groups with AI accounts and their regions, suggests which
    region stands by for which, and writes a commented muster.toml. Ledger and vault are made beside
    it when the vault is a folder; with a container the first snapshot makes the ledger.
    """
    file = (invocation.config_file or Path(FILE_NAME)).absolute()
    if file.is_dir():
        file /= FILE_NAME
    if file.exists() and not force:
        raise RefusedError(
            "there is a configuration already", where=str(file), remedy="say --force to replace it"
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = Settings(
        file=file,
        estate=EstateSettings(name or "my-estate", (), cloud.rstrip("/"), tenant),
        ledger=LedgerSettings(file.parent / "ledger.git"),
        vault=VaultSettings(vault if "://" in vault else str(file.parent / vault)),
        objectives=ObjectiveSettings(duration("1h"), duration("1h")),
    )
    with ExitStack() as written:
        if sandbox is not None:
            ready = read_ready(sandbox, principal)
            secret_file = file.parent / PRINCIPAL_FILE
            if not secret_file.exists():
                written.callback(secret_file.unlink, missing_ok=True)  # unless all goes well
            write_private(
                secret_file,
                f"# {ready.principal} of the sandbox. Readable by you only; never in Git.\n"
                f"client_id = {quote(ready.client_id)}\n"
                f"client_secret = {quote(ready.client_secret)}\n"
                f"tenant = {quote(ready.tenant)}\n",
            )
            draft = replace(
                draft,
                estate=EstateSettings(
                    name or "sandbox", (), ready.url, ready.tenant, ready.ca, draft.estate.pairs
                ),
                credential=CredentialSettings(CredentialKind.ENVIRONMENT, secret_file=secret_file),
            )
            subscriptions = subscriptions or ready.subscriptions
        settings, found = _look(draft, invocation, tuple(s.lower() for s in subscriptions))
        text = _commented(settings, found)
        parse(text, file)  # what we write must be what we read
        write_private(file, text)
        written.pop_all()
    _make_stores(parse(text, file), invocation)
    _tell(invocation, settings, found)
    return 0


def _make_stores(settings: Settings, invocation: Invocation) -> None:
    """Make ledger and vault where the vault is a folder.

    A container may not be there yet, or may have the estate's ledger: the first snapshot asks it.
    """
    if "://" in settings.vault.url:
        return
    with Wiring(settings, invocation.environment, tell=invocation.warn) as wiring:
        wiring.ledger(create=True)
        wiring.vault().prepare()


def _look(
    draft: Settings, invocation: Invocation, subscriptions: tuple[str, ...]
) -> tuple[Settings, Survey]:
    """Ask Azure what there is, and fill scopes and pairs."""
    from snapshots.survey import suggest_pairs, survey

    with Wiring(draft, invocation.environment) as wiring:
        invocation.say("looking at what is there …")
        found = survey(wiring.cloud(), subscriptions)
    if not found.subscriptions:
        raise NotFoundError(
            "no subscription is visible to this identity",
            where=draft.estate.cloud,
            remedy="sign in as somebody with the role of docs/roles/reader.json, or name --tenant",
        )
    scopes = tuple(ScopeSettings(s.id) for s in found.subscriptions)
    pairs = tuple(
        PairSettings(
            pair.primary,
            pair.standby,
            {a.name.lower(): _target(a, b) for a, b in pair.accounts},
        )
        for pair in suggest_pairs(found.accounts)
    )
    estate = replace(draft.estate, scopes=scopes, pairs=pairs)
    return replace(draft, estate=estate), found


def _target(primary: SeenAccount, standby: SeenAccount) -> AccountTarget:
    return AccountTarget(
        standby.name,
        standby.resource_group if standby.resource_group != primary.resource_group else "",
        standby.subscription if standby.subscription != primary.subscription else "",
    )


_HEAD = """\
# What muster protects, and where it keeps it. Every setting: docs/snapshot.md.
# No secret belongs into this file: they come from the environment, from a managed identity or
# from a file that [credential] names. Paths are relative to this file.
"""
_NOTES = {
    "[[estate.scope]]": "What is looked at. resource_groups = [...] and accounts = [...] limit it.",
    "[[estate.pair]]": "Suggested from names and regions: check it before you rely on it.",
    "[ledger]": "Git keeps the state. A remote gets every commit too.",
    "[vault]": "Blob (azblob://account/container) or a folder keeps payloads, by digest.",
    "[objectives]": "What was promised: time to recover, and age of what comes back.",
    "[audit]": "How changes are judged. trusted = pipelines that may change things with a record.",
    "[snapshot]": "content = the bytes of files; threads_data = conversations of people (off).",
    "[retention]": "How many snapshots are kept: the newest of each hour, day, week and month.",
    "[credential]": "default, environment, managed-identity or cli.",
}


def _commented(settings: Settings, found: Survey) -> str:
    """Write the settings with a word on each section and on what was seen."""
    names = {s.id: s.name for s in found.subscriptions}
    groups: dict[str, set[str]] = {}
    for account in found.accounts:
        groups.setdefault(account.subscription, set()).add(account.resource_group)
    lines = [_HEAD.rstrip(), ""]
    told: set[str] = set()
    for line in render(settings).splitlines():
        if line in _NOTES and line not in told:
            told.add(line)
            lines.append(f"# {_NOTES[line]}")
        lines.append(line)
        if line.startswith("subscription = "):
            id_ = line.split('"')[1]
            count = sum(account.subscription == id_ for account in found.accounts)
            seen = ", ".join(sorted(groups.get(id_, ()))) or "none"
            lines.append(safe(f"# {names.get(id_, '')}: {count} AI accounts in groups: {seen}"))
    return "\n".join(lines) + "\n"


def _tell(invocation: Invocation, settings: Settings, found: Survey) -> None:
    from collections import Counter

    from muster.report import documents
    from muster.report.terminal import table, text

    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("init"),
                "config": str(settings.file),
                "ledger": str(settings.ledger.path),
                "vault": settings.vault.url,
                "subscriptions": [{"id": s.id, "name": s.name} for s in found.subscriptions],
                "accounts": len(found.accounts),
                "pairs": [
                    {"primary": p.primary, "standby": p.standby, "accounts": len(p.accounts)}
                    for p in settings.estate.pairs
                ],
            }
        )
        return
    rows = []
    for subscription in found.subscriptions:
        own = [a for a in found.accounts if a.subscription == subscription.id]
        for region, count in sorted(Counter(a.region for a in own).items()) or [("", 0)]:
            rows.append((subscription.name, subscription.id, region, str(count)))
    invocation.show(
        table(["subscription", "id", "region", "AI accounts"], rows, right=["AI accounts"]),
        *(
            text(f"pair: {p.primary} -> {p.standby}, {len(p.accounts)} accounts (a suggestion)")
            for p in settings.estate.pairs
        ),
        text(f"wrote {settings.file}", "bold"),
        text("next: muster doctor, then muster snapshot"),
    )


def read_ready(file: Path, principal: str = "") -> ReadySandbox:
    """Read a sandbox's ready file. Raises InputError; nothing of the file is quoted."""
    remedy = "start one with `muster sandbox --ready-file FILE` and name that file"
    try:
        document = json.loads(file.read_text("utf-8"))
        people = list(document["principals"])
        found = ReadySandbox(
            url=str(document["url"]),
            ca=Path(str(document["ca"])),
            tenant=str(document["tenant"]),
            subscriptions=tuple(str(s["id"]).lower() for s in document["subscriptions"]),
            client_id="",
            client_secret="",
            principal="",
        )
        names = {str(p["name"]).lower(): p for p in reversed(people) if p.get("secret")}
        roles = {str(p["role"]).lower(): p for p in reversed(people) if p.get("secret")}
        wanted = [principal.lower()] if principal else ["muster", "owner", "contributor"]
        chosen = next((d[w] for w in wanted for d in (names, roles) if w in d), None)
        if chosen is not None:
            found = replace(
                found,
                client_id=str(chosen["client_id"]),
                client_secret=str(chosen["secret"]),
                principal=str(chosen["name"]),
            )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise InputError(
            "this is no ready file of a sandbox", where=str(file), remedy=remedy
        ) from None
    if not found.client_id:
        raise InputError(
            f"the sandbox has no principal {principal!r}" if principal else "nobody to sign in as",
            where=str(file),
            remedy=f"choose one of {', '.join(sorted(names))}",
        )
    return found
