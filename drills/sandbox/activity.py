"""What is written down of changes: the Activity Log and the resource changes.

The Activity Log holds a start and an end record of every control plane write, seen after 3 to 20
minutes of the sandbox's clock, for 90 days. Resource changes are kept for 14 days, and only of the
types that Azure Resource Graph covers: accounts and commitment plans, not their deployments,
content filters, projects or connections (learn.microsoft.com, supported tables).
"""

from __future__ import annotations

import copy
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

import orjson

from drills.sandbox.clock import parse_time, wire_time
from drills.sandbox.ids import ResourceId, parse_id
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

if TYPE_CHECKING:
    from drills.sandbox.arm import Arm, Record

DAY = 86_400.0
LOG_DAYS = 90
CHANGE_DAYS = 14
PAGE = 200
_TICKS_1970 = 621_355_968_000_000_000  # 100 ns since the year 1
_OBJECT_ID = "http://schemas.microsoft.com/identity/claims/objectidentifier"
_TENANT_ID = "http://schemas.microsoft.com/identity/claims/tenantid"
_UPN = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/upn"
_NAME = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/name"
_METHODS = "http://schemas.microsoft.com/claims/authnmethodsreferences"
# Client ids as published; other clients are named by their id.
_CLIENTS = {
    "04b07795-8ddb-461a-bbee-02f9e1bf7b46": "Azure CLI",
    "c44b4083-3bb0-49c1-b47d-974e53cbdf3c": "Azure Portal",
    "1950a258-227b-4e31-a9cf-717495945fc2": "Azure PowerShell",
}
_SECRET = re.compile(r"key|secret|password|token|credential|connectionstring|sas", re.IGNORECASE)
SELECTABLE = {
    "authorization",
    "claims",
    "correlationid",
    "description",
    "eventdataid",
    "eventname",
    "eventtimestamp",
    "httprequest",
    "level",
    "operationid",
    "operationname",
    "properties",
    "resourcegroupname",
    "resourceprovidername",
    "resourceid",
    "status",
    "submissiontimestamp",
    "substatus",
    "subscriptionid",
}


class Activity:
    """Writes the logs; the engine calls it, the log endpoints read them."""

    def __init__(self, world: World) -> None:
        self.world = world

    def register(self, arm: Arm) -> None:
        """Teach the engine the log's endpoint."""
        arm.route(
            "GET",
            "/subscriptions/{subscription}/providers/microsoft.insights/eventtypes/management/values",
            "Microsoft.Insights/eventtypes/values/read",
            self._values,
        )
        arm.route(
            "GET",
            "/providers/microsoft.insights/eventcategories",
            "",
            lambda _w, _c, _n: Answer(
                200,
                {
                    "value": [
                        {"value": name, "localizedValue": name}
                        for name in ("Administrative", "Security", "ServiceHealth", "Policy")
                    ]
                },
            ),
        )

    # -- writing --------------------------------------------------------------------------------

    def _visible(self, at: float, setting: str) -> float:
        low, high = self.world.setting(setting)
        return at + self.world.between(float(low), float(high))

    def finished(self, call: Call, answer: Answer, *, code: str = "", message: str = "") -> None:
        """Note the start and the end of a control plane write.

        Reads are not captured. A refused write has a failed end; one that goes on as a long
        operation ends as Accepted, and `operation_ended` adds the real end.
        """
        if call.method in ("GET", "HEAD") or not call.operation or call.caller is None:
            return
        rid = _subject(call.target)
        if rid is None or not rid[0]:
            return
        if call.operation.endswith("/read") or call.method not in (
            "PUT",
            "PATCH",
            "POST",
            "DELETE",
        ):
            return
        subscription, resource = rid
        failed = answer.status >= 400
        if answer.status in (401, 429) or answer.status >= 500:
            return  # never reached the provider, or the platform broke: no record
        going_on = answer.status == 202 or "azure-asyncoperation" in answer.headers
        status = "Failed" if failed else "Accepted" if going_on else "Succeeded"
        properties: Body = {"statusCode": _phrase(answer.status), "serviceRequestId": call.id}
        if call.method in ("PUT", "PATCH") and call.body:
            properties["requestbody"] = orjson.dumps(_hide(_json(call))).decode()
        if failed:
            properties["statusMessage"] = orjson.dumps(
                {"error": {"code": code, "message": message}}
            ).decode()
        base = self._event(call, subscription, resource)
        start = {**base, "eventDataId": self.world.guid()}
        start |= {
            "eventName": _pair("BeginRequest", "Begin request"),
            "status": _pair("Started"),
            "subStatus": _pair(""),
            "properties": {"serviceRequestId": call.id},
        }
        end = {**base, "eventDataId": self.world.guid()}
        end |= {
            "eventName": _pair("EndRequest", "End request"),
            "status": _pair(status),
            "subStatus": _pair(
                _phrase(answer.status),
                f"{_phrase(answer.status)} (HTTP Status Code: {answer.status})",
            ),
            "properties": properties,
            "level": "Error" if failed else "Informational",
        }
        self._append(subscription, call.now, start)
        self._append(subscription, call.now, end)

    def _event(self, call: Call, subscription: str, resource: str) -> Body:
        caller = call.caller
        claims = {} if caller is None else dict(caller.claims)
        shown: Body = {k: str(v) for k, v in claims.items() if isinstance(v, str | int)}
        if caller is not None:
            shown[_OBJECT_ID] = caller.oid
            shown[_TENANT_ID] = caller.tenant
            if caller.upn:
                shown[_UPN] = caller.upn
                shown[_NAME] = caller.upn
                shown[_METHODS] = "pwd,mfa"
        try:
            parsed = parse_id(resource)
            namespace, kind, group = parsed.namespace, parsed.type, parsed.group
        except ValueError:
            namespace, kind = (
                "Microsoft.Resources",
                "Microsoft.Resources/subscriptions/resourceGroups",
            )
            group = resource.split("/")[4] if resource.count("/") >= 4 else ""
        event: Body = {
            "authorization": {
                "action": call.operation,
                "scope": resource,
                "role": "",
            },
            "caller": (caller.upn or caller.oid or caller.name) if caller else "",
            "category": _pair("Administrative"),
            "channels": "Operation",
            "claims": shown,
            "correlationId": call.correlation_id,
            "description": "",
            "httpRequest": {
                "clientRequestId": call.headers.get("x-ms-client-request-id") or call.id,
                "clientIpAddress": call.client,
                "method": call.method,
            },
            "level": "Informational",
            "operationId": call.correlation_id,
            "operationName": _pair(call.operation),
            "resourceGroupName": group,
            "resourceId": resource,
            "resourceProviderName": _pair(namespace),
            "resourceType": _pair(kind),
            "subscriptionId": subscription,
            "tenantId": self.world.identity.tenant,
        }
        return event

    def _append(self, subscription: str, now: datetime, event: Body) -> None:
        at = now.timestamp()
        visible = self._visible(at, "activity_delay")
        event["eventTimestamp"] = wire_time(now)
        event["submissionTimestamp"] = wire_time(datetime.fromtimestamp(visible, now.tzinfo))
        ticks = int(at * 1e7) + _TICKS_1970
        event["id"] = f"{event['resourceId']}/events/{event['eventDataId']}/ticks/{ticks}"
        self.world.store.append_event(f"activity:{subscription.lower()}", at, visible, event)

    def operation_ended(self, operation: Body) -> None:
        """Note the real end of a long operation."""
        call = operation.get("call")
        if not call:
            return
        subject = _subject(call["target"])
        if subject is None or not subject[0]:
            return
        failed = operation["status"] == "Failed"
        event = copy.deepcopy(call["event"])
        event |= {
            "eventDataId": self.world.guid(),
            "eventName": _pair("EndRequest", "End request"),
            "status": _pair("Failed" if failed else "Succeeded"),
            "subStatus": _pair(""),
            "properties": {"serviceRequestId": operation["name"]},
            "level": "Error" if failed else "Informational",
        }
        if failed:
            event["properties"]["statusMessage"] = orjson.dumps(
                {"error": operation.get("error")}
            ).decode()
        self._append(subject[0], self.world.clock.now(), event)

    def begun(self, call: Call) -> Body | None:
        """What `operation_ended` needs later of a call that starts a long operation."""
        subject = _subject(call.target)
        if subject is None or call.caller is None:
            return None
        return {"target": call.target, "event": self._event(call, *subject)}

    def platform(self, resource: str, operation: str, description: str) -> None:
        """Note something that the platform did by itself: no caller, no claims."""
        parsed = parse_id(resource)
        event: Body = {
            "authorization": {"action": operation, "scope": resource},
            "category": _pair("Administrative"),
            "channels": "Operation",
            "claims": {},
            "correlationId": self.world.guid(),
            "description": description,
            "eventDataId": self.world.guid(),
            "eventName": _pair("EndRequest", "End request"),
            "level": "Informational",
            "operationId": self.world.guid(),
            "operationName": _pair(operation),
            "properties": {"message": description},
            "resourceGroupName": parsed.group,
            "resourceId": resource,
            "resourceProviderName": _pair(parsed.namespace),
            "resourceType": _pair(parsed.type),
            "status": _pair("Succeeded"),
            "subStatus": _pair(""),
            "subscriptionId": parsed.subscription,
            "tenantId": self.world.identity.tenant,
        }
        self._append(parsed.subscription, self.world.clock.now(), event)

    def changed(self, call: Call, *, before: Record | None, after: Record | None) -> None:
        """Note that a resource was created, changed or deleted (for resourcechanges)."""
        record = after or before
        if record is None:
            return
        try:
            rid = record.rid
        except ValueError:
            return  # resource groups: resourcecontainerchanges, which the sandbox does not play
        if not covered(rid, record.body) or (call.caller and call.caller.via == "platform"):
            return
        changes = {} if before is None or after is None else _differences(before, after)
        if before is not None and after is not None and not changes:
            return
        caller, now = call.caller, call.now
        kinds = {"User": "User", "ManagedIdentity": "ManagedIdentity"}
        client = str(caller.claims.get("appid", "")) if caller else ""
        guid = self.world.guid()
        properties: Body = {
            "targetResourceId": record.id.lower(),
            "targetResourceType": rid.type.lower(),
            "changeType": "Create" if before is None else "Delete" if after is None else "Update",
            "changeAttributes": {
                "previousResourceSnapshotId": self.world.hex(32) if before else None,
                "newResourceSnapshotId": self.world.hex(32) if after else None,
                "correlationId": call.correlation_id,
                "timestamp": wire_time(now),
                "changesCount": len(changes),
                "changedBy": (caller.upn or caller.appid) if caller else "System",
                "changedByType": kinds.get(caller.kind, "Application") if caller else "Unknown",
                "clientType": _CLIENTS.get(client, client or "Unknown"),
                "operation": call.operation,
            },
            "changes": changes,
        }
        at = now.timestamp()
        self.world.store.append_event(
            "changes",
            at,
            self._visible(at, "graph_delay"),
            {
                "id": f"{record.id.lower()}/providers/microsoft.resources/changes/{guid}",
                "name": guid,
                "type": "microsoft.resources/changes",
                "tenantId": self.world.identity.tenant,
                "kind": "",
                "location": "",
                "resourceGroup": rid.group.lower(),
                "subscriptionId": rid.subscription,
                "properties": properties,
            },
        )

    # -- reading --------------------------------------------------------------------------------

    def _values(self, world: World, call: Call, names: dict[str, str]) -> Answer:
        now = call.now.timestamp()
        since, until, field, wanted = _filter(call.parameter("$filter"), now)
        if since < now - LOG_DAYS * DAY - 3600:
            raise ArmError(
                400,
                "BadRequest",
                f"The start time cannot be more than {LOG_DAYS} days in the past.",
            )
        select = [s.strip() for s in call.parameter("$select").split(",") if s.strip()]
        for name in select:
            if name.lower() not in SELECTABLE:
                raise ArmError(400, "BadRequest", f"The $select property '{name}' is not allowed.")
        subscription = names["subscription"].lower()
        events = [
            event
            for _, event in world.store.events(f"activity:{subscription}", since, until, now)
            if _fits(event, field, wanted)
        ]
        if select:
            keep = {name.lower() for name in select}
            events = [{k: v for k, v in event.items() if k.lower() in keep} for event in events]
        return world.arm.page(call, events, size=int(world.setting("page_size") or PAGE))

    def changes(self, now: float) -> list[Body]:
        """The resource changes that can be seen at `now`, newest first, of the last 14 days."""
        return [e for _, e in self.world.store.events("changes", now - CHANGE_DAYS * DAY, now, now)]


def covered(rid: ResourceId, body: Body) -> bool:
    """Whether Resource Graph holds a type: top-level resources with a location."""
    return len(rid.types) == 1 and "location" in body and "/providers/" not in rid.scope.lower()


def _subject(target: str) -> tuple[str, str] | None:
    parts = target.strip("/").split("/")
    if len(parts) < 2 or parts[0].lower() != "subscriptions":
        return None
    try:
        rid = parse_id(target)
    except ValueError:
        return parts[1], target
    # An action (…/listKeys) is about the resource before it.
    return parts[1], rid.parent if rid.collection and len(rid.types) > 1 else target


_TERM = re.compile(
    r"^(?:(?P<time>eventTimestamp)\s+(?P<op>ge|le)\s+'?(?P<when>[^']+?)'?"
    r"|(?P<field>resourceGroupName|resourceUri|resourceProvider|resourceId|correlationId|eventChannels)"
    r"\s+eq\s+'(?P<value>[^']*)')$",
    re.IGNORECASE,
)


def _filter(text: str, now: float) -> tuple[float, float, str, str]:
    since, until, field, wanted = 0.0, now, "", ""
    if not text.strip():
        raise ArmError(400, "BadRequest", "The $filter parameter is required (eventTimestamp ge).")
    for term in re.split(r"\s+and\s+", text.strip(), flags=re.IGNORECASE):
        match = _TERM.match(term.strip())
        if match is None:
            raise ArmError(
                400,
                "BadRequest",
                f"The $filter clause '{term.strip()}' is not supported. Only eventTimestamp with "
                "ge and le, and one of resourceGroupName, resourceUri, resourceProvider and "
                "correlationId with eq are allowed.",
            )
        if match["time"]:
            try:
                when = parse_time(match["when"]).timestamp()
            except ValueError:
                raise ArmError(
                    400, "BadRequest", f"'{match['when']}' is not a valid time."
                ) from None
            if match["op"].lower() == "ge":
                since = when
            else:
                until = when
        elif match["field"].lower() == "eventchannels":
            continue
        elif field:
            raise ArmError(
                400, "BadRequest", "Only one property beside eventTimestamp may be filtered on."
            )
        else:
            field, wanted = match["field"].lower(), match["value"]
    if not since:
        raise ArmError(400, "BadRequest", "The $filter must hold eventTimestamp ge.")
    return since, until, field, wanted


def _fits(event: Body, field: str, wanted: str) -> bool:
    wanted = wanted.lower().rstrip("/")
    match field:
        case "":
            return True
        case "resourcegroupname":
            return str(event["resourceGroupName"]).lower() == wanted
        case "resourceuri" | "resourceid":
            resource = str(event["resourceId"]).lower()
            return resource == wanted or resource.startswith(wanted + "/")
        case "resourceprovider":
            return str(event["resourceProviderName"]["value"]).lower() == wanted
        case _:
            return str(event["correlationId"]).lower() == wanted


def _pair(value: str, localized: str = "") -> Body:
    return {"value": value, "localizedValue": localized or value}


_PHRASES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "NoContent",
    400: "BadRequest",
    403: "Forbidden",
    404: "NotFound",
    409: "Conflict",
    412: "PreconditionFailed",
}


def _phrase(status: int) -> str:
    return _PHRASES.get(status, str(status))


def _json(call: Call) -> Any:
    try:
        return call.json()
    except ArmError:
        return {}


def _hide(value: Any, name: str = "") -> Any:
    """A request body as the log keeps it: without what looks like a secret."""
    if name.lower() == "credentials":
        return "*****" if value else value  # names inside are the customer's: keys: {"crm": "…"}
    if isinstance(value, dict):
        return {k: _hide(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [_hide(v, name) for v in value]
    return "*****" if isinstance(value, str) and _SECRET.search(name) else value


def _flatten(value: Any, path: str, out: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            _flatten(inner, f"{path}.{key}" if path else key, out)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _flatten(inner, f"{path}[{index}]", out)
    else:
        out[path] = value


_NOISE = re.compile(r"^properties\.(provisioningState|callRateLimit|endpoints?|capabilities)\b")


def _differences(before: Record, after: Record) -> Body:
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    _flatten(before.body, "", old)
    _flatten(after.body, "", new)
    changes: Body = {}
    for path in sorted({*old, *new}):
        if old.get(path) == new.get(path) or _NOISE.match(path):
            continue
        entry: Body = {"changeCategory": "User", "propertyChangeType": "Update"}
        if path not in new:
            entry["propertyChangeType"] = "Remove"
        elif path not in old:
            entry["propertyChangeType"] = "Insert"
        for label, values in (("previousValue", old), ("newValue", new)):
            if path in values:
                shown = values[path]
                entry[label] = shown if isinstance(shown, str) else orjson.dumps(shown).decode()
        changes[path] = entry
    return changes
