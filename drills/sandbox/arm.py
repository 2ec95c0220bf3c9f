"""Azure Resource Manager: one engine for every resource type, and a table of what is special.

A type without a `Behaviour` of its own is kept as it is sent (the generic store). Everything that
is the same for all types stands here once: who may, locks, parents, etags, systemData, long
operations, paging, logs.
"""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from drills.sandbox.clock import wire_time
from drills.sandbox.ids import ResourceId, parse_id, region_name
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

OPERATIONS = "operations"
SKIP_TOKEN = re.compile(r"[0-9]{1,9}(-[0-9]{1,12})?")


@dataclass(slots=True)
class Record:
    """A resource as it is kept: the id as spelled at creation, the wire body, and what is hidden.

    `body` holds what a GET shows (without id, name, type, etag and systemData, which the engine
    adds); `hidden` holds keys, secrets and bookkeeping that never travel.
    """

    id: str
    type: str
    name: str
    body: Body
    hidden: Body = field(default_factory=dict)
    etag: str = ""
    system: Body = field(default_factory=dict)

    @property
    def rid(self) -> ResourceId:
        """The id, taken apart."""
        return parse_id(self.id)

    @property
    def properties(self) -> Body:
        """`body["properties"]`, created when missing."""
        found = self.body.setdefault("properties", {})
        return found if isinstance(found, dict) else {}

    def keep(self) -> Body:
        """What the store holds."""
        return {
            "id": self.id,
            "type": self.type,
            "name": self.name,
            "body": self.body,
            "hidden": self.hidden,
            "etag": self.etag,
            "system": self.system,
        }

    @classmethod
    def read(cls, kept: Body) -> Record:
        """A copy that may be changed and saved again."""
        return cls(**copy.deepcopy(kept))

    @classmethod
    def peek(cls, kept: Body) -> Record:
        """The stored resource itself, to be looked at only: nothing is copied."""
        return cls(**kept)


@dataclass(slots=True)
class LongOperation:
    """How a write goes on after its answer.

    `style`: "async" (Azure-AsyncOperation), "location" (202 and Location), "both", or "resource"
    (no header: the client polls the resource until provisioningState is terminal).
    """

    seconds: float
    style: str = "async"
    state: str = "Accepted"  # provisioningState while it runs
    retry_after: bool = True


@dataclass(slots=True)
class Write:
    """A PUT or PATCH on its way: `body` is the request's own, to be changed freely."""

    world: World
    call: Call
    rid: ResourceId
    body: Body
    existing: Record | None
    patch: bool
    status: int | None = None  # overrides 201/200
    headers: dict[str, str] = field(default_factory=dict)
    operation: LongOperation | None = None
    hidden: Body = field(default_factory=dict)  # merged into the record's hidden part


class Behaviour:
    """What is special about one resource type. The plain class is the generic store."""

    type: str = ""
    system_data = True  # whether answers carry systemData
    etag = True  # whether answers carry an etag
    tracked = False  # whether `location` is required, as for top-level resources
    patchable = True
    parent_required = True
    create_status = 201
    update_status = 200
    deletable = True  # whether the API has a call to delete one
    delete_status = 200  # 204 when nothing was there, always
    delete_operation: LongOperation | None = None

    def prepare(self, write: Write) -> Body:
        """Check the request and say what the resource's body becomes. Raises ArmError.

        `write.body` is complete here (a PATCH has been merged). Read-only properties are filled by
        this method; what a client sends for them is ignored, as the ARM contract asks.
        """
        properties = write.body.setdefault("properties", {})
        if isinstance(properties, dict):
            properties["provisioningState"] = "Succeeded"
        return write.body

    def saved(self, write: Write, record: Record) -> None:
        """Called after the resource was stored, inside the same transaction."""

    def completed(self, world: World, record: Record) -> None:
        """Called when a long operation on the resource has succeeded; may change the record."""
        record.properties["provisioningState"] = "Succeeded"

    def failed(self, world: World, record: Record) -> None:
        """Called when a long operation on the resource has failed; may change the record."""
        record.properties["provisioningState"] = "Failed"

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse with ArmError, or let it go."""

    def leaving(self, world: World, record: Record) -> None:
        """Called before the resource and its children are removed, for whatever reason."""

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """Called after the resource and its children were removed."""

    def view(self, world: World, record: Record) -> Body:
        """What GET and lists show: id, name, type first, then the body."""
        shown: Body = {"id": record.id, "name": record.name, "type": record.type}
        if self.etag:
            shown["etag"] = record.etag
        shown.update(record.body)
        if self.system_data:
            shown["systemData"] = record.system
        return shown

    def shown_in_list(self, world: World, record: Record) -> Any:
        """What a list shows of one resource; may be ready bytes (orjson.Fragment)."""
        return self.view(world, record)

    def list_extra(self, world: World, call: Call, parent: str) -> Iterable[Record]:
        """Records that a list shows beside the stored ones (system-managed ones, for example)."""
        return ()

    def listing(self, world: World, call: Call, rid: ResourceId) -> Answer | None:
        """The whole answer to a listing, where it is unlike others; None for the usual one."""
        return None

    def listed(self, world: World, call: Call, records: list[Record]) -> list[Record]:
        """Choose among the records of a list by the call's own query parameters."""
        return records

    def find_extra(self, world: World, rid: ResourceId) -> Record | None:
        """A record that GET shows although it is not stored."""
        return None

    def post(
        self, world: World, call: Call, rid: ResourceId, action: str, record: Record
    ) -> Answer:
        """An action on the resource (listKeys, …). The plain class knows none."""
        raise ArmError(
            404,
            "InvalidResourceType",
            f"The action '{action}' is not supported on resources of type '{self.type}' "
            "by this sandbox.",
            gateway=True,
        )


Route = Callable[[World, Call, dict[str, str]], Answer]


class Arm:
    """The resource engine."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.behaviours: dict[str, Behaviour] = {}
        self.strict: set[str] = set()  # namespaces whose unknown types are refused
        self._routes: list[tuple[str, re.Pattern[str], str, Route]] = []
        self._generic = Behaviour()
        self.noise = random.Random(world.seed)
        world.on("arm.operation", _operation_due)

    # -- tables -------------------------------------------------------------------------------

    def add(self, behaviour: Behaviour) -> None:
        """Register what is special about a type."""
        self.behaviours[behaviour.type.lower()] = behaviour

    def route(self, method: str, template: str, action: str, handler: Route) -> None:
        """Register a path that is no plain resource: `/subscriptions/{subscription}/…/{name}`.

        `action` is the RBAC action that is asked for before the handler is called ("" for none);
        the scope is the path before its last "/providers/".
        """
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template.rstrip("/"))
        self._routes.append((method, re.compile(f"^{pattern}/?$", re.IGNORECASE), action, handler))

    def behaviour(self, rid: ResourceId) -> Behaviour:
        """The behaviour of a type. Raises ArmError for an unknown type of a strict namespace."""
        found = self.behaviours.get(rid.type.lower())
        if found is not None:
            return found
        if rid.namespace.lower() in self.strict:
            raise ArmError(
                404,
                "InvalidResourceType",
                f"The resource type '{'/'.join(rid.types)}' could not be found in the namespace "
                f"'{rid.namespace}' for api version. It is not supported by this sandbox.",
                gateway=True,
            )
        return self._generic

    # -- records --------------------------------------------------------------------------------

    @staticmethod
    def space(parent: str, type_: str) -> str:
        """Where the children of one type below one parent are kept."""
        return f"arm:{parent.lower()}|{type_.lower()}"

    def find(self, id_: str | ResourceId) -> Record | None:
        """The resource by id, without case; also system-made ones. None when there is none."""
        rid = parse_id(id_) if isinstance(id_, str) else id_
        kept = self.world.store.get(self.space(rid.parent, rid.type), rid.key)
        if kept is not None:
            return Record.read(kept)
        behaviour = self.behaviours.get(rid.type.lower())
        return behaviour.find_extra(self.world, rid) if behaviour else None

    def save(self, record: Record) -> Record:
        """Store a record under a new etag."""
        rid = record.rid
        record.etag = f'"{self.world.guid()}"'
        self.world.store.put(self.space(rid.parent, rid.type), rid.key, record.keep())
        return record

    def drop(self, record: Record) -> None:
        """Remove a record and everything below it (children and extension resources)."""
        rid = record.rid
        behaviour = self.behaviours.get(rid.type.lower())
        if behaviour is not None:
            behaviour.leaving(self.world, record)
        self.world.store.remove(self.space(rid.parent, rid.type), rid.key)
        for space in self.world.store.spaces():
            if space.startswith((f"arm:{rid.key}|", f"arm:{rid.key}/")):
                for key, _ in self.world.store.items(space):
                    self.world.store.remove(space, key)

    def children(self, parent: str, type_: str, *, copied: bool = True) -> list[Record]:
        """The stored resources of a type directly below a parent, in creation order.

        `copied` False: not to be changed.
        """
        make = Record.read if copied else Record.peek
        return [make(b) for _, b in self.world.store.items(self.space(parent, type_))]

    def below(self, scope: str, type_: str | None = None, *, copied: bool = True) -> list[Record]:
        """Every stored resource at or below a scope, of one type or of all."""
        make = Record.read if copied else Record.peek
        prefix, wanted = f"arm:{scope.lower()}", None if type_ is None else type_.lower()
        found: list[Record] = []
        for space in self.world.store.spaces():
            if not space.startswith("arm:"):
                continue
            parent, _, kind = space.partition("|")
            if (parent == prefix or parent.startswith(prefix + "/")) and (
                wanted is None or kind == wanted
            ):
                found.extend(make(body) for _, body in self.world.store.items(space))
        return found

    def region_of(self, id_: str) -> str:
        """The region of a resource: its own location, else its nearest parent's, else ""."""
        try:
            rid = parse_id(id_)
        except ValueError:
            return ""
        if rid.collection:
            return self.region_of(rid.parent) if "/providers/" in rid.parent.lower() else ""
        kept = self.world.store.get(self.space(rid.parent, rid.type), rid.key)
        if kept is not None and kept["body"].get("location"):
            return region_name(str(kept["body"]["location"]))
        return self.region_of(rid.parent) if "/providers/" in rid.parent.lower() else ""

    # -- requests -------------------------------------------------------------------------------

    def handle(self, call: Call) -> Answer:
        """Answer one ARM request. Raises ArmError."""
        path = "/" + call.path.strip("/")
        known = path.lower().startswith(("/subscriptions", "/providers", "/tenants"))
        if known and not call.parameter("api-version"):
            raise ArmError(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
                gateway=True,
            )
        for method, pattern, action, handler in self._routes:
            if method == call.method and (match := pattern.match(path)):
                call.target, call.operation = path, action
                if action:
                    at = path.lower().rfind("/providers/")
                    self.world.access.check(call, action, path[:at] if at > 0 else path)
                return handler(self.world, call, match.groupdict())
        try:
            rid = parse_id(path)
        except ValueError:
            raise unsupported(call) from None
        call.target = path
        self._require_scope(rid)
        match call.method, rid.collection:
            case ("GET", True):
                return self.listing(call, rid)
            case ("GET" | "HEAD", False):
                return self._get(call, rid)
            case ("PUT", False):
                return self._write(call, rid, patch=False)
            case ("PATCH", False):
                return self._write(call, rid, patch=True)
            case ("DELETE", False):
                return self._delete(call, rid)
            case ("POST", True) if len(rid.types) > 1:
                return self._action(call, rid)
            case _:
                raise unsupported(call)

    def _require_scope(self, rid: ResourceId) -> None:
        subscription = rid.subscription
        if subscription and self.world.store.get("subscriptions", subscription.lower()) is None:
            raise ArmError(
                404,
                "SubscriptionNotFound",
                f"The subscription '{subscription}' could not be found.",
                gateway=True,
            )
        group = rid.group
        if group and self.world.store.get("groups", f"{subscription}/{group}".lower()) is None:
            raise ArmError(
                404,
                "ResourceGroupNotFound",
                f"Resource group '{group}' could not be found.",
                gateway=True,
            )

    def _authorize(self, call: Call, rid: ResourceId, verb: str, scope: str) -> None:
        call.operation = f"{rid.type}/{verb}"
        self.world.access.check(call, call.operation, scope)

    def _get(self, call: Call, rid: ResourceId) -> Answer:
        self._authorize(call, rid, "read", rid.text)
        behaviour = self.behaviour(rid)
        record = self.find(rid)
        if record is None:
            raise self.missing(rid)
        answer = Answer(200, None if call.method == "HEAD" else behaviour.view(self.world, record))
        if call.method == "HEAD":
            answer.status = 204
        if behaviour.etag and record.etag:
            answer.headers["etag"] = record.etag
        return answer

    def missing(self, rid: ResourceId) -> ArmError:
        """The 404 for a resource: of itself, or of its parent."""
        if len(rid.types) > 1 and self.find(rid.parent) is None:
            parent = parse_id(rid.parent)
            return ArmError(
                404,
                "ParentResourceNotFound",
                f"Failed to perform '{'read'}' on resource(s) of type '{'/'.join(rid.types)}', "
                f"because the parent resource '{parent.text}' could not be found.",
                gateway=True,
            )
        group = f" under resource group '{rid.group}'" if rid.group else ""
        named = "/".join((rid.namespace, *sum(zip(rid.types, rid.names, strict=True), ())))
        return ArmError(
            404,
            "ResourceNotFound",
            f"The Resource '{named}'{group} was not found. For more details please go to "
            "https://aka.ms/ARMResourceNotFoundFix",
            gateway=True,
        )

    def listing(self, call: Call, rid: ResourceId) -> Answer:
        """Answer a listing: below a parent, a resource group, or a whole subscription."""
        self._authorize(call, rid, "read", rid.parent or "/")
        behaviour = self.behaviour(rid)
        if len(rid.types) > 1 and self.find(rid.parent) is None:
            raise self.missing(rid)
        special = behaviour.listing(self.world, call, rid)
        if special is not None:
            return special
        if (
            len(rid.types) == 1
            and rid.subscription
            and not rid.group
            and "/providers/" not in (rid.scope.lower())
        ):
            records = self.below(f"/subscriptions/{rid.subscription}", rid.type, copied=False)
        else:
            space = self.space(rid.parent, rid.type)
            records = [Record.peek(kept) for _, kept in self.world.store.items(space)]
        records.extend(behaviour.list_extra(self.world, call, rid.parent))
        records = behaviour.listed(self.world, call, records)
        show = behaviour.view if self.world.setting("shuffle") else behaviour.shown_in_list
        return self.page(call, [show(self.world, record) for record in records])

    def page(self, call: Call, values: list[Body], *, size: int | None = None) -> Answer:
        """One page of a list, with a nextLink when there is more.

        Page size: `size`, else the setting page_size, else everything at once. `$skiptoken` is
        opaque to clients. The settings empty_pages and relative_next make awkward but legal pages.
        """
        size = size or int(self.world.setting("page_size") or 0)
        token = call.parameter("$skiptoken")
        if token and not SKIP_TOKEN.fullmatch(token):
            raise ArmError(400, "InvalidSkipToken", "The provided skip token is not valid.")
        at, _, order = (token or "0").partition("-")
        start = int(at)
        if self.world.setting("shuffle"):
            # The token carries the order, so that the pages of one listing are cut from one list.
            order = order or str(self.noise.getrandbits(32))
            random.Random(order).shuffle(values := disturb(values, self.noise))
            order = f"-{order}"
        else:
            order = ""
        if self.world.setting("empty_pages") and not token:
            return Answer(200, {"value": [], "nextLink": self.next_link(call, f"0{order}")})
        if not size or start + size >= len(values):
            return Answer(200, {"value": values[start:]})
        body = {
            "value": values[start : start + size],
            "nextLink": self.next_link(call, f"{start + size}{order}"),
        }
        return Answer(200, body)

    def next_link(self, call: Call, token: str) -> str:
        """The link to the next page: the same call with a skip token."""
        query = [(k, v) for k, v in call.query.items() if k.lower() != "$skiptoken"]
        query.append(("$skiptoken", token))
        path = f"{quote(call.path)}?{urlencode(query, safe='$')}"
        return path if self.world.setting("relative_next") else call.base + path

    def _write(self, call: Call, rid: ResourceId, *, patch: bool) -> Answer:
        self._authorize(call, rid, "write", rid.text)
        behaviour = self.behaviour(rid)
        body = copy.deepcopy(call.json())
        _require_form(body)
        self.world.access.check_locks(call, rid.text, delete=False)
        existing = self.find(rid)
        if behaviour.parent_required and len(rid.types) > 1 and self.find(rid.parent) is None:
            raise self.missing(rid)
        self._check_match(call, existing)
        if patch:
            if existing is None or not behaviour.patchable:
                raise self.missing(rid) if existing is None else unsupported(call)
            body = merge(copy.deepcopy(existing.body), body)
        write = Write(self.world, call, rid, body, existing, patch)
        for read_only in ("id", "name", "type", "etag", "systemData"):
            write.body.pop(read_only, None)
        new_body = behaviour.prepare(write)
        now, caller = wire_time(call.now), call.caller
        by = caller.label if caller else ""
        by_type = "User" if caller and caller.kind == "User" else "Application"
        system = {"createdBy": by, "createdByType": by_type, "createdAt": now}
        if existing is not None and existing.system:
            system = {k: existing.system[k] for k in system if k in existing.system}
        system |= {"lastModifiedBy": by, "lastModifiedByType": by_type, "lastModifiedAt": now}
        record = Record(
            id=existing.id if existing else rid.text,
            type=rid.type if not behaviour.type else behaviour.type,
            name=existing.name if existing else rid.name,
            body=new_body,
            hidden={**(existing.hidden if existing else {}), **write.hidden},
            system=system,
        )
        status = write.status or (behaviour.update_status if existing else behaviour.create_status)
        headers = dict(write.headers)
        if write.operation is not None and write.operation.seconds > 0:
            record.properties["provisioningState"] = write.operation.state
            location = str(new_body.get("location") or "")
            headers |= self.start(call, record.id, write.operation, location=location)
            if patch and write.operation.style in ("location", "both"):
                status = 202
        self.save(record)
        behaviour.saved(write, record)
        fresh = self.find(rid) or record
        self.world.activity.changed(call, before=existing, after=fresh)
        if behaviour.etag:
            headers["etag"] = fresh.etag
        return Answer(status, behaviour.view(self.world, fresh), headers)

    @staticmethod
    def _check_match(call: Call, existing: Record | None) -> None:
        wanted, unwanted = call.headers.get("if-match"), call.headers.get("if-none-match")
        broken = (
            wanted is not None
            and (existing is None or (wanted != "*" and wanted.strip() != existing.etag))
        ) or (unwanted == "*" and existing is not None)
        if broken:
            raise ArmError(
                412,
                "PreconditionFailed",
                "The condition specified using HTTP conditional header(s) is not met.",
            )

    def _delete(self, call: Call, rid: ResourceId) -> Answer:
        self._authorize(call, rid, "delete", rid.text)
        behaviour = self.behaviour(rid)
        self.world.access.check_locks(call, rid.text, delete=True)
        if not behaviour.deletable:
            raise ArmError(
                405,
                "HttpMethodNotAllowed",
                f"The resource type '{rid.type}' does not support the http method 'DELETE'.",
            )
        record = self.find(rid)
        if record is None:
            return Answer(204)
        self._check_match(call, record)
        behaviour.before_delete(self.world, call, record)
        self.drop(record)
        behaviour.deleted(self.world, call, record)
        self.world.activity.changed(call, before=record, after=None)
        operation = behaviour.delete_operation
        if operation is not None and operation.seconds > 0:
            return Answer(202, None, self.start(call, record.id, operation))
        return Answer(behaviour.delete_status)

    def _action(self, call: Call, rid: ResourceId) -> Answer:
        action = rid.types[-1]
        owner = parse_id(rid.parent)
        behaviour = self.behaviour(owner)
        call.operation = f"{owner.type}/{action}/action"
        self.world.access.check(call, call.operation, owner.text)
        # A ReadOnly lock stops actions too (listKeys, for one): to ARM a POST is a write. A
        # CanNotDelete lock stops the method DELETE only.
        self.world.access.check_locks(call, owner.text, delete=False)
        record = self.find(owner)
        if record is None:
            raise self.missing(owner)
        return behaviour.post(self.world, call, owner, action, record)

    # -- long operations ------------------------------------------------------------------------

    def start(
        self,
        call: Call,
        id_: str,
        operation: LongOperation,
        *,
        result: Body | None = None,
        location: str = "",
    ) -> dict[str, str]:
        """Begin a long operation on a resource and return the headers that say so.

        `result` is what the Location URL answers at the end (default: the resource, 200; or 204
        when it is gone). `location` is the resource's own, as it is spelled there (recorded so);
        without it the region of the resource or its parent is looked up.
        """
        rid = parse_id(id_)
        guid = self.world.guid()
        location = location.replace(" ", "") or self.region_of(id_) or call.region or "global"
        namespace = rid.namespace
        root = (
            f"/subscriptions/{rid.subscription}/providers/{namespace}/locations/{location}"
            f"/operationResults/{guid}"
        )
        seconds, outcome = self.world.faults.operation(call, id_, operation.seconds)
        self.world.store.put(
            OPERATIONS,
            guid,
            {
                "id": root,
                "name": guid,
                "status": "InProgress",
                "startTime": wire_time(call.now, fraction=0),
                "resource": id_,
                "outcome": outcome,
                "seconds": seconds,
                "began": call.now.timestamp(),
                "result": result,
                "correlation": call.correlation_id,
                "call": self.world.activity.begun(call),
            },
        )
        if outcome != "stuck":
            self.world.after(seconds, "arm.operation", {"operation": guid})
        url = f"{call.base}{root}?api-version={call.parameter('api-version') or '2017-04-18'}"
        url += f"&t={int(call.now.timestamp() * 1e7)}&s={self.world.hex(16)}"
        headers: dict[str, str] = {}
        if operation.style in ("async", "both"):
            headers["azure-asyncoperation"] = url
        if operation.style in ("location", "both"):
            headers["location"] = url + "&kind=location"
        if operation.retry_after and headers:
            headers["retry-after"] = str(self.world.setting("retry_after"))
        return headers

    def poll(self, call: Call, guid: str) -> Answer:
        """Answer a poll of a running or ended operation."""
        found = self.world.store.get(OPERATIONS, guid.lower())
        if found is None:
            raise ArmError(404, "OperationNotFound", f"The operation '{guid}' could not be found.")
        running = found["status"] not in ("Succeeded", "Failed", "Canceled")
        waiting = {"retry-after": str(self.world.setting("retry_after"))} if running else {}
        if call.parameter("kind") == "location":
            if running:
                return Answer(
                    202, None, {"location": f"{call.base}{call.path}?{_query(call)}"} | waiting
                )
            if found["status"] != "Succeeded":
                error = found.get("error", {})
                raise ArmError(409, error.get("code", "Failed"), error.get("message", "Failed"))
            if found.get("result") is not None:
                return Answer(200, found["result"])
            record = self.find(found["resource"])
            if record is None:
                return Answer(204)
            return Answer(200, self.behaviour(record.rid).view(self.world, record))
        body: Body = {k: found[k] for k in ("id", "name", "status", "startTime")}
        if running:
            spent = call.now.timestamp() - found["began"]
            body["percentComplete"] = max(0, min(99, int(100 * spent / (found["seconds"] or 1))))
        else:
            body["endTime"] = found["endTime"]
        if found.get("error"):
            body["error"] = found["error"]
        return Answer(200, body, waiting)


def _require_form(body: Body) -> None:
    """Refuse what no resource of any type may look like (ARM's own check, before the provider)."""
    wrong = next(
        (n for n in ("properties", "sku", "identity", "tags", "plan") if _odd(body.get(n), dict)),
        "",
    )
    tags = body.get("tags") or {}
    if not wrong and any(_odd(value, str) for value in tags.values()):
        wrong = "tags"
    wrong = wrong or next((n for n in ("location", "kind") if _odd(body.get(n), str)), "")
    if wrong:
        raise ArmError(
            400,
            "InvalidRequestContent",
            "The request content was invalid and could not be deserialized: the value of "
            f"'{wrong}' is of another type than a resource may have there.",
            gateway=True,
        )


def _odd(value: object, kind: type) -> bool:
    return value is not None and not isinstance(value, kind)


def disturb(values: list[Body], noise: random.Random) -> list[Body]:
    """The same items as the service might also give them: other case, other emptiness."""
    return [_disturbed(value, noise) for value in values]


def _disturbed(value: Any, noise: random.Random) -> Any:
    if isinstance(value, list):
        inner = [_disturbed(item, noise) for item in value]
        if inner and all(isinstance(item, dict) for item in inner):
            noise.shuffle(inner)
        return inner
    if not isinstance(value, dict):
        return value
    keys = list(value)
    noise.shuffle(keys)
    shown = {key: _disturbed(value[key], noise) for key in keys}
    identity, location = shown.get("id"), shown.get("location")
    if isinstance(identity, str) and "/resourceGroups/" in identity and noise.random() < 0.5:
        shown["id"] = identity.replace("/resourceGroups/", "/resourcegroups/")
    if isinstance(location, str) and location and noise.random() < 0.5:
        shown["location"] = location.upper()
    if shown.get("tags") in (None, {}) and "properties" in shown and noise.random() < 0.5:
        shown["tags"] = {} if noise.random() < 0.5 else None
    return shown


def _query(call: Call) -> str:
    return urlencode(list(call.query.items()), safe="$")


def _operation_due(world: World, body: Body) -> None:
    operation = world.store.get(OPERATIONS, body["operation"])
    if operation is None or operation["status"] != "InProgress":
        return
    ended = {**operation, "endTime": wire_time(world.clock.now(), fraction=0)}
    outcome = operation["outcome"]
    record = world.arm.find(operation["resource"])
    if isinstance(outcome, dict):
        ended |= {"status": "Failed", "error": outcome}
        if record is not None:
            world.arm.behaviour(record.rid).failed(world, record)
            world.arm.save(record)
    else:
        ended["status"] = "Succeeded"
        if record is not None:
            world.arm.behaviour(record.rid).completed(world, record)
            world.arm.save(record)
    world.store.put(OPERATIONS, body["operation"], ended)
    world.activity.operation_ended(ended)


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch (RFC 7396), as ARM's PATCH does it."""
    if not isinstance(patch, dict):
        return patch
    if not isinstance(target, dict):
        target = {}
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        else:
            target[key] = merge(target.get(key), value)
    return target


def unsupported(call: Call) -> ArmError:
    """The loud answer to what the sandbox does not play."""
    return ArmError(
        501,
        "SandboxUnsupported",
        f"This sandbox does not play {call.method} {call.path}.",
        gateway=True,
    )


def query_pairs(text: str) -> dict[str, str]:
    """A query string as a table; the last value wins."""
    return dict(parse_qsl(text, keep_blank_values=True))
