"""What Azure wrote down of changes: the Activity Log and Resource Graph's resource changes.

The Activity Log holds a start and an end of every write of the control plane, seen after 3 to 20
minutes, for 90 days; its filter takes `eventTimestamp ge|le` and at most one of four properties
(Microsoft.Insights 2015-04-01, activityLogs_API). Resource changes are there within 5 minutes, for
14 days, of top-level types only (supported-tables-resources). Neither sees the data plane.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import orjson

from snapshots.audit.report_model import PrincipalKind
from snapshots.cloud.place import Place, Plane
from snapshots.cloud.scrub import scrub
from snapshots.errors import CloudError
from snapshots.model import Json, JsonObject, digest

LAG: Final = timedelta(minutes=20)  # activity-log.md: 3 to 20 minutes until an event can be seen
KEPT: Final = timedelta(days=90)
CHANGES_KEPT: Final = timedelta(days=14)
SKEW: Final = timedelta(minutes=2)  # between Azure's clocks and what we noted of them

_TAGS: Final = "/providers/microsoft.resources/tags/default"
_VERSION: Final = {"api-version": "2015-04-01"}
_OBJECT_ID: Final = "http://schemas.microsoft.com/identity/claims/objectidentifier"
_UPN: Final = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"
_UPNS: Final = (_UPN, "http://schemas.microsoft.com/identity/claims/upn", "upn")
# Client ids that Microsoft publishes.
_CLIENTS: Final = {
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46": "Azure CLI",
    "c44b4083-3bb0-49c1-b47d-974e53cbdf3c": "Azure Portal",
    "1950a258-227b-4e31-a9cf-717495945fc2": "Azure PowerShell",
}
# What is kept of an event: no token, no body. The rest of the claims is about the session.
_CLAIMS: Final = frozenset(
    {"appid", "appidacr", "name", "app_displayname", "ipaddr", "idtyp", "oid", "xms_mirid", "upn"}
    | {_OBJECT_ID, *_UPNS}
)


class Cloud(Protocol):
    """What the records are asked through."""

    def list(
        self, place: Place, path: str, *, params: Mapping[str, str] | None = None, kind: str
    ) -> Iterator[JsonObject]:
        """Give the items of all pages."""
        ...

    def query(self, query: str, subscriptions: Iterable[str], *, kind: str) -> Iterator[JsonObject]:
        """Give the rows of a Resource Graph query."""
        ...


@dataclass(frozen=True, slots=True)
class Event:
    """One record of the Activity Log, as far as it is used."""

    id: str
    resource: str  # lower-case ARM id
    operation: str
    status: str  # Started, Accepted, Succeeded, Failed, …
    at: datetime
    seen_from: datetime  # when it could be queried
    correlation_id: str
    caller: str
    claims: Mapping[str, str]
    address: str
    method: str
    description: str
    body: JsonObject | None  # of the request, where the log carries it
    kept: JsonObject  # what is archived
    category: str = ""  # Administrative, Policy, ResourceHealth, …

    @property
    def platform(self) -> bool:
        """Whether nobody called: Azure did it by itself."""
        return not self.caller and not self.claims

    @property
    def writes(self) -> bool:
        """Whether it may have changed something: not a read in disguise.

        Only the category Administrative tells of writes. The others name the same resources, some
        without a caller: health, advice, alerts, and what a policy found.
        """
        if self.category.lower() not in {"", "administrative"}:
            return False
        last = self.operation.lower().rsplit("/", 2)[-2:]
        if last[-1:] == ["action"]:
            return not (last[0].startswith(("list", "get", "check", "validate", "query")))
        return last[-1:] != ["read"]


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that somebody did to one resource: the events of one operation, together.

    Tags can be written at a place of their own below a resource, which is then the one that is
    meant (`resource`), and nothing of it but its tags (`tags`).
    """

    resource: str
    operation: str
    correlation_id: str
    begun: datetime
    ended: datetime
    outcome: str  # succeeded, accepted, started, failed
    events: tuple[Event, ...]
    tags: bool = False

    @property
    def first(self) -> Event:
        """The event that says most of who called."""
        return max(self.events, key=lambda e: (bool(e.caller), len(e.claims), e.body is not None))

    @property
    def body(self) -> JsonObject | None:
        """What was asked for, where the log carries it."""
        return next((e.body for e in self.events if e.body is not None), None)

    @property
    def method(self) -> str:
        """The HTTP method, "" when unknown."""
        return next((e.method for e in self.events if e.method), "")

    @property
    def deletes(self) -> bool:
        """Whether it deletes."""
        return not self.tags and self.operation.lower().endswith("/delete")

    @property
    def acts(self) -> bool:
        """Whether it is an action, whose effect its name does not tell."""
        return self.operation.lower().endswith("/action")


@dataclass(frozen=True, slots=True)
class ResourceChange:
    """One row of resourcechanges."""

    id: str
    resource: str  # lower-case ARM id
    type: str  # Create, Update, Delete
    at: datetime
    correlation_id: str
    by: str
    by_type: str
    client: str
    operation: str
    changes: Mapping[str, tuple[str | None, str | None]]  # properties.a[0].b -> before, after


@dataclass(slots=True)
class Records:
    """What Azure's records told for one audit, and what they could not tell."""

    events: dict[str, Event] = field(default_factory=dict)
    changes: dict[str, ResourceChange] = field(default_factory=dict)
    holes: list[str] = field(default_factory=list)
    read_from: dict[str, datetime] = field(default_factory=dict)  # subscription -> since when

    def read_log(
        self,
        cloud: Cloud,
        subscription: str,
        since: datetime,
        now: datetime,
        *,
        resource: str = "",
    ) -> bool:
        """Read a subscription's log from `since` on, or one resource's; say whether it answered.

        What is older than 90 days is gone: that is a hole, and so is an answer that failed.
        """
        oldest = now - KEPT + timedelta(hours=1)
        if since < oldest:
            if not resource:
                self._hole(
                    f"the Activity Log of {subscription} begins {oldest:%Y-%m-%d}: older records "
                    "are gone"
                )
            since = oldest
        filter_ = f"eventTimestamp ge '{_wire(since)}'"
        if resource:
            filter_ += f" and resourceUri eq '{resource}'"
        path = (
            f"/subscriptions/{subscription}/providers/microsoft.insights/eventtypes/management"
            "/values"
        )
        place = Place(Plane.ARM, "", subscription)
        try:
            for item in cloud.list(
                place, path, params={**_VERSION, "$filter": filter_}, kind="activity-log"
            ):
                event = event_in(item)
                if event is not None:
                    self.events[event.id] = event
        except CloudError as error:
            self._hole(
                f"the Activity Log of {subscription} could not be read: "
                + scrub(" ".join(error.what.split()))[:300]
            )
            return False
        if not resource:
            known = self.read_from.get(subscription)
            self.read_from[subscription] = since if known is None else min(known, since)
        return True

    def read_changes(
        self, cloud: Cloud, resources: Sequence[str], since: datetime, now: datetime
    ) -> bool:
        """Ask Resource Graph for the changes of some resources; say whether it answered."""
        since = max(since, now - CHANGES_KEPT)
        subscriptions = sorted({r.split("/")[2] for r in resources if r.count("/") > 2})
        for start in range(0, len(resources), 100):
            wanted = ", ".join(f"'{_quoted(r)}'" for r in resources[start : start + 100])
            query = (
                "resourcechanges "
                "| extend at = todatetime(properties.changeAttributes.timestamp) "
                f"| where at >= todatetime('{_wire(since)}') "
                f"| where properties.targetResourceId in~ ({wanted}) "
                "| project id, properties"
            )
            try:
                for row in cloud.query(query, subscriptions, kind="resource-changes"):
                    found = change_in(row)
                    if found is not None:
                        self.changes[found.id] = found
            except CloudError as error:
                self._hole(
                    "Resource Graph's resource changes could not be read: "
                    + scrub(" ".join(error.what.split()))[:300]
                )
                return False
        return True

    def acts(self) -> list[Act]:
        """Give what was done, oldest first: events of one operation on one resource together."""
        groups: dict[tuple[str, str, str], list[Event]] = {}
        for event in self.events.values():
            if event.writes:
                same = (event.resource, event.operation.lower(), event.correlation_id)
                groups.setdefault(same, []).append(event)
        found: list[Act] = []
        for events in groups.values():
            events.sort(key=lambda e: (e.at, e.id))
            statuses = {e.status.lower() for e in events}
            outcome = next(
                (s for s in ("failed", "succeeded", "accepted") if s in statuses), "started"
            )
            if outcome == "failed" and "succeeded" in statuses:
                outcome = "succeeded"  # a step of it failed and was repeated
            first = events[0]
            found.append(
                Act(
                    first.resource.removesuffix(_TAGS),
                    first.operation,
                    first.correlation_id,
                    first.at,
                    events[-1].at,
                    outcome,
                    tuple(events),
                    tags=first.resource.endswith(_TAGS),
                )
            )
        return sorted(found, key=lambda act: (act.ended, act.begun, act.resource))

    def newest(self) -> datetime | None:
        """Give the time of the newest event."""
        return max((e.at for e in self.events.values()), default=None)

    def _hole(self, words: str) -> None:
        if words not in self.holes:
            self.holes.append(words)


# ------------------------------------------------------------------------------- one record


def event_in(item: JsonObject) -> Event | None:
    """Read a record of the Activity Log; None when it is none that could matter.

    The schema "isn't strictly enforced" (activity-log-schema.md): nothing is taken for granted.
    """
    at = _time(item.get("eventTimestamp"))
    resource = str(item.get("resourceId") or item.get("resourceUri") or "").lower().rstrip("/")
    if at is None or not resource:
        return None
    claims_in = item.get("claims")
    claims = (
        {k: str(v) for k, v in claims_in.items() if v is not None}
        if isinstance(claims_in, dict)
        else {}
    )
    request = item.get("httpRequest")
    request = request if isinstance(request, dict) else {}
    properties = item.get("properties")
    properties = properties if isinstance(properties, dict) else {}
    body = _body(properties)
    operation = _value(item.get("operationName"))
    status = _value(item.get("status"))
    identifier = str(item.get("eventDataId") or item.get("id") or "")
    if not identifier:
        identifier = digest(orjson.dumps(item, option=orjson.OPT_SORT_KEYS))[:32]
    caller = str(item.get("caller") or "")
    address = str(request.get("clientIpAddress") or claims.get("ipaddr") or "")
    kept: JsonObject = {
        "eventDataId": identifier,
        "eventTimestamp": str(item.get("eventTimestamp")),
        "submissionTimestamp": str(item.get("submissionTimestamp") or ""),
        "correlationId": str(item.get("correlationId") or ""),
        "operationName": operation,
        "status": status,
        "subStatus": _value(item.get("subStatus")),
        "resourceId": str(item.get("resourceId") or ""),
        "caller": caller,
        "claims": {k: scrub(v) for k, v in sorted(claims.items()) if k in _CLAIMS},
        "clientIpAddress": address,
        "method": str(request.get("method") or ""),
        "description": scrub(str(item.get("description") or ""))[:500],
    }
    if body is not None:
        # The body itself may hold what nobody should keep; its digest proves which it was.
        kept["requestBodySha256"] = digest(orjson.dumps(body, option=orjson.OPT_SORT_KEYS))
    return Event(
        id=identifier,
        resource=resource,
        operation=operation,
        status=status,
        at=at,
        seen_from=_time(item.get("submissionTimestamp")) or at,
        correlation_id=str(item.get("correlationId") or ""),
        caller=caller,
        claims=claims,
        address=address,
        method=str(request.get("method") or "").upper(),
        description=scrub(str(item.get("description") or ""))[:500],
        body=body,
        kept=kept,
        category=_value(item.get("category")),
    )


def change_in(row: JsonObject) -> ResourceChange | None:
    """Read a row of resourcechanges; None when it is damaged."""
    properties = row.get("properties")
    if not isinstance(properties, dict):
        return None
    about = properties.get("changeAttributes")
    about = about if isinstance(about, dict) else {}
    at = _time(about.get("timestamp"))
    resource = str(properties.get("targetResourceId") or "").lower()
    if at is None or not resource:
        return None
    changes: dict[str, tuple[str | None, str | None]] = {}
    listed = properties.get("changes")
    for path, entry in listed.items() if isinstance(listed, dict) else ():
        if isinstance(entry, dict):
            was, now = entry.get("previousValue"), entry.get("newValue")
            changes[path] = (
                None if was is None else str(was),
                None if now is None else str(now),
            )
    return ResourceChange(
        id=str(row.get("id") or ""),
        resource=resource,
        type=str(properties.get("changeType") or ""),
        at=at,
        correlation_id=str(about.get("correlationId") or ""),
        by=str(about.get("changedBy") or ""),
        by_type=str(about.get("changedByType") or ""),
        client=str(about.get("clientType") or ""),
        operation=str(about.get("operation") or ""),
        changes=changes,
    )


def principal_kind(event: Event) -> PrincipalKind:
    """Say what kind of principal called, from the token's claims."""
    if event.platform:
        return PrincipalKind.PLATFORM
    claims = event.claims
    if "xms_mirid" in claims:
        return PrincipalKind.MANAGED_IDENTITY
    if claims.get("idtyp") == "user" or any(claims.get(name) for name in _UPNS):
        return PrincipalKind.USER
    if "@" in event.caller:
        return PrincipalKind.USER
    if claims.get("idtyp") == "app" or claims.get("appid"):
        return PrincipalKind.SERVICE_PRINCIPAL
    # Without claims a caller that is no user name is an application: azure-docs #9736.
    return PrincipalKind.SERVICE_PRINCIPAL if event.caller else PrincipalKind.UNKNOWN


def principal_id(event: Event) -> str:
    """Give the caller's object id, "" when the claims do not tell."""
    return event.claims.get(_OBJECT_ID) or event.claims.get("oid") or ""


def client_name(app_id: str, told: str = "") -> str:
    """Give the name of the program that acted, where it is known."""
    if told and told.lower() not in {"unknown", app_id.lower()}:
        return told
    return _CLIENTS.get(app_id.lower(), "")


def _body(properties: Mapping[str, Json]) -> JsonObject | None:
    for name in ("requestbody", "requestBody"):
        text = properties.get(name)
        if isinstance(text, str) and text:
            try:
                found = orjson.loads(text)
            except orjson.JSONDecodeError:
                return None  # it was cut
            return found if isinstance(found, dict) else None
    return None


def _value(pair: Json) -> str:
    if isinstance(pair, dict):
        return str(pair.get("value") or pair.get("localizedValue") or "")
    return str(pair or "")


def _time(text: Json) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.fromisoformat(_short(text))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _short(text: str) -> str:
    """Azure writes seven digits of a second; Python reads six."""
    head, dot, tail = text.partition(".")
    if not dot:
        return text
    digits = "".join(c for c in tail if c.isdigit())
    zone = tail.lstrip("0123456789")
    return f"{head}.{digits[:6]:0<6}{zone}"


def _wire(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%f") + "Z"


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace("'", "\\'")
