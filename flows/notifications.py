"""Who hears of what: a file of channels and routes, as Prefect's blocks and automations."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import quote, urlencode

import yaml
from prefect.blocks.core import Block
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    MicrosoftTeamsWebhook,
    SendgridEmail,
    SlackWebhook,
)
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

from muster.settings import duration, read_reference
from snapshots.errors import InputError

_OURS = "muster: "  # how the names of our automations begin
_EVENTS = ("muster.", "prefect.flow-run.")
SUBJECT = "muster: {{ event.event }} ({{ event.resource['prefect.resource.name'] }})"
BODY = """{{ event.payload.words or event.event }}

severity {{ event.resource['muster.severity'] or 'none' }}, class \
{{ event.resource['muster.class'] or 'none' }}, {{ event.occurred }}
{% if flow_run %}{{ flow_run.name }}: {{ flow_run | ui_url }}{% endif %}"""
SILENCE = """Nothing like {{ automation.description }} was heard in the time that was promised.
Look whether the server, its schedules and a worker run, and whether the runs end."""


class Severity(StrEnum):
    """How bad it is."""

    INFO = "info"
    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Address = Annotated[str, Field(pattern=r"^[^@\s,;<>]+@[^@\s,;<>]+$")]


class Hook(_Strict):
    """A channel with an address of its own: Teams, Slack, any webhook."""

    kind: Literal["teams", "slack", "webhook"]
    url: str  # a reference: env:NAME or file:PATH


class Mail(_Strict):
    """A channel by SendGrid."""

    kind: Literal["email"]
    api_key: str  # a reference
    sender: Address
    recipients: Annotated[list[Address], Field(min_length=1)]


class Security(StrEnum):
    """How a mail server is spoken to."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"  # on this machine, or inside a network that is trusted


class Smtp(_Strict):
    """A channel by any mail server."""

    kind: Literal["smtp"]
    host: Annotated[str, Field(pattern=r"^[A-Za-z0-9.-]+$")]
    port: Annotated[int, Field(ge=1, le=65535)] = 587
    security: Security = Security.STARTTLS
    user: str = ""
    password: str = ""  # a reference
    sender: Address
    recipients: Annotated[list[Address], Field(min_length=1)]


Channel = Annotated[Hook | Mail | Smtp, Field(discriminator="kind")]
Silence = Annotated[timedelta, BeforeValidator(lambda text: duration(str(text)))]


class Route(_Strict):
    """Which events go where."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    events: Annotated[list[str], Field(min_length=1)]
    to: Annotated[list[str], Field(min_length=1)]
    severity: list[Severity] = Field(default=[])  # empty: any
    class_: list[str] = Field(default=[], alias="class")  # empty: any
    silent_for: Silence | None = None  # notify when none of the events came for that long


class Notifications(_Strict):
    """A file of channels and routes."""

    channels: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")], Channel]
    routes: list[Route]


def read(file: Path) -> Notifications:
    """Read the file and check that it fits together. Raises InputError."""
    try:
        found = Notifications.model_validate(yaml.safe_load(file.read_text("utf-8")))
    except OSError as error:
        raise InputError(
            f"the notifications cannot be read: {error.strerror}", where=str(file)
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"this is no YAML: {error}", where=str(file)) from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"{place or 'the file'}: {first['msg'].lower()}",
            where=str(file),
            remedy="see deploy/notifications.yaml and docs/prefect-notifications.md",
        ) from None
    names = [route.name for route in found.routes]
    for route in found.routes:
        where = f"{file}, route {route.name!r}"
        unknown = [name for name in route.to if name not in found.channels]
        if unknown:
            known = ", ".join(found.channels) or "none"
            raise InputError(
                f"there is no channel {unknown[0]!r}", where=where, remedy=f"known: {known}"
            )
        strange = [name for name in route.events if not name.startswith(_EVENTS)]
        if strange:
            raise InputError(
                f"{strange[0]!r} is no event of muster or of its runs",
                where=where,
                remedy="the events are listed in docs/prefect-notifications.md",
            )
        if names.count(route.name) > 1:
            raise InputError("two routes have this name", where=where, remedy="rename one")
    return found


def block_of(channel: Hook | Mail | Smtp, name: str, folder: Path) -> Block:
    """Make the block of a channel; what it holds is read now. Raises SettingsError, InputError."""
    where = f"channel {name}"
    try:
        if isinstance(channel, Mail):
            return SendgridEmail(
                api_key=SecretStr(read_reference(channel.api_key, folder, where)),
                sender_email=channel.sender,
                to_emails=channel.recipients,
            )
        if isinstance(channel, Smtp):
            # Of the blocks that every Prefect server knows, the one that takes any of Apprise's
            # addresses; it asks nothing of Slack.
            return SlackWebhook(url=SecretStr(_mail_address(channel, folder, where)))
        url = SecretStr(read_reference(channel.url, folder, where))
        match channel.kind:
            case "teams":
                return MicrosoftTeamsWebhook(url=url)
            case "slack":
                return SlackWebhook(url=url)
            case "webhook":
                return CustomWebhookNotificationBlock(
                    name=name,
                    url="{{address}}",
                    json_data={"subject": "{{subject}}", "body": "{{body}}", "channel": "{{name}}"},
                    headers=None,
                    cookies=None,
                    secrets={"address": url.get_secret_value()},  # type: ignore[arg-type]
                )
    except (ValueError, TypeError):
        raise InputError(
            f"what the {channel.kind} channel is given is no address of that kind",
            where=where,
            remedy="see docs/prefect-notifications.md for what each kind takes",
        ) from None


def _mail_address(channel: Smtp, folder: Path, where: str) -> str:
    """Give what Apprise calls an address of mail: server, who sends, who gets it."""
    if bool(channel.user) != bool(channel.password):
        raise InputError(
            "a user and a password go together",
            where=where,
            remedy='write both, the password as "env:NAME" or "file:PATH", or none',
        )
    who = ""
    if channel.user:
        secret = read_reference(channel.password, folder, where)
        who = f"{quote(channel.user, safe='')}:{quote(secret, safe='')}@"
    mode = {Security.STARTTLS: "starttls", Security.TLS: "ssl", Security.NONE: "insecure"}
    scheme = "mailto" if channel.security is Security.NONE else "mailtos"
    more = urlencode(
        {
            "smtp": channel.host,
            "mode": mode[channel.security],
            "from": channel.sender,
            "to": ",".join(channel.recipients),
            "format": "text",
        }
    )
    return f"{scheme}://{who}{channel.host}:{channel.port}/?{more}"


def automation_of(route: Route, blocks: dict[str, Any]) -> AutomationCore:
    """Make the automation of a route; `blocks` gives the id of each channel's block."""
    silent = route.silent_for is not None
    match: dict[str, Any] = {}
    if route.severity:
        match["muster.severity"] = [severity.value for severity in route.severity]
    if route.class_:
        match["muster.class"] = list(route.class_)
    tagged = any(name.startswith("prefect.") for name in route.events)
    about = {"prefect.resource.id": "prefect.tag.muster", "prefect.resource.role": "tag"}
    trigger = EventTrigger(
        expect=set(route.events),
        after=set(route.events) if silent else set(),
        match=match,
        match_related=about if tagged else {},  # type: ignore[arg-type]
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive if silent else Posture.Reactive,
        threshold=1,
        within=route.silent_for or timedelta(0),
    )
    return AutomationCore(
        name=f"{_OURS}{route.name}",
        description=", ".join(route.events),
        tags=["muster"],
        trigger=trigger,
        actions=[
            SendNotification(
                block_document_id=blocks[name],
                subject=f"muster: {route.name}" if silent else SUBJECT,
                body=SILENCE if silent else BODY,
            )
            for name in route.to
        ],
    )


def apply(
    found: Notifications, folder: Path, client: SyncPrefectClient, *, say: Any = print
) -> None:
    """Make or replace the blocks and automations, and take away those of routes that are gone.

    Only what begins with "muster: " is taken away. A channel whose secret is not there is an error
    before anything is changed.
    """
    made = {
        name: block_of(c, name, folder) for name, c in found.channels.items() if _used(found, name)
    }
    ids = {name: block.save(f"muster-{name}", overwrite=True) for name, block in made.items()}
    there = {a.name: a for a in client.read_automations() if a.name.startswith(_OURS)}
    for route in found.routes:
        wanted = automation_of(route, ids)
        before = there.pop(wanted.name, None)
        if before is None:
            client.create_automation(wanted)
        else:
            client.update_automation(before.id, wanted)
        say(f"automation {wanted.name}")
    for gone in there.values():
        client.delete_automation(gone.id)
        say(f"took away {gone.name}")


def _used(found: Notifications, name: str) -> bool:
    return any(name in route.to for route in found.routes)
