"""The ASGI application: one request in, one transaction, one answer out."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from email.utils import format_datetime
from typing import Any
from urllib.parse import unquote

from drills.sandbox.access import Access
from drills.sandbox.activity import Activity
from drills.sandbox.arm import Arm, query_pairs
from drills.sandbox.control import Control
from drills.sandbox.dataplane import DataPlane
from drills.sandbox.faults import Faults
from drills.sandbox.graph import Graph
from drills.sandbox.identity import Identity
from drills.sandbox.ids import region_name, segment_after
from drills.sandbox.providers import register_all
from drills.sandbox.throttle import Throttle
from drills.sandbox.wire import Answer, ArmError, Call
from drills.sandbox.world import World

_log = logging.getLogger(__name__)
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HOSTED = re.compile(
    r"^(?P<name>[a-z0-9-]+)\.(?P<suffix>openai|cognitiveservices|services\.ai|api)"
    r"\.(?:azure\.com|cognitive\.microsoft\.com|localhost)(?::\d+)?$",
    re.IGNORECASE,
)
_PREFIXED = re.compile(
    r"^/dp/(?P<name>[a-z0-9-]+)\.(?P<suffix>openai|cognitiveservices|services\.ai|api)(?P<rest>/.*)?$",
    re.IGNORECASE,
)


class Sandbox:
    """The whole sandbox as an ASGI application."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.faults = Faults(world)
        world.access = Access(world)
        world.activity = Activity(world)
        world.throttle = Throttle(world)
        world.identity = Identity(world)
        world.arm = Arm(world)
        world.access.register(world.arm)
        world.activity.register(world.arm)
        Graph(world).register(world.arm)
        self.control = Control(world)
        self.data = DataPlane(world)
        register_all(world)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection's request (or the server's start and stop)."""
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["type"] != "http":
            return
        call = await self._read(scope, receive)
        if call is None:
            return
        plan = None if self.control.owns(call) else self.world.faults.plan(call)
        if plan is not None:
            await plan.before(scope)
            if plan.refused:
                self._note(call, 0, plan.label)
                return
        answer = plan.answer if plan is not None and plan.answer is not None else None
        if answer is None:
            answer = await self._answer(call)
        else:
            self._note(call, answer.status, plan.label if plan is not None else "")
        await self._write(call, answer, scope, send, plan)

    async def _answer(self, call: Call) -> Answer:
        """Process a call; the write of a deployment holds its account until it is answered.

        What comes to the same account meanwhile meets RequestConflict, as overlapping writes do.
        """
        answer = self.process(call)
        seconds = float(self.world.setting("write_seconds")) if call.holds else 0.0
        if seconds > 0 and answer.status < 300:
            self.world.held.add(call.holds)
            try:
                await asyncio.sleep(seconds)
            finally:
                self.world.held.discard(call.holds)
        return answer

    async def _read(self, scope: Scope, receive: Receive) -> Call | None:
        chunks: list[bytes] = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            chunks.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
        raw = scope.get("raw_path", b"").decode("latin-1").partition("?")[0]
        host = headers.get("host") or "localhost"
        client = scope.get("client") or ("", 0)
        return Call(
            method=scope["method"],
            path=unquote(raw) if raw else scope["path"],
            query=query_pairs(scope["query_string"].decode("latin-1")),
            headers=headers,
            body=b"".join(chunks),
            base=f"{scope['scheme']}://{host}",
            client=client[0],
            id=self.world.request_id(),
            correlation_id=headers.get("x-ms-correlation-request-id") or self.world.request_id(),
            now=self.world.clock.now(),
            raw_path=raw,
        )

    def process(self, call: Call) -> Answer:
        """Answer a call in one transaction: all of its changes, or none."""
        store = self.world.store
        if self.control.owns(call):
            return self.control.handle(call)
        self.world.run_due()
        call.now = self.world.clock.now()
        code = message = ""
        store.begin()
        try:
            answer = self._dispatch(call)
        except ArmError as error:
            store.rollback()
            store.begin()
            answer, code, message = error.answer(), error.code, error.message
        except Exception as error:  # noqa: BLE001  the boundary: nobody above could answer
            store.rollback()
            _log.error(
                "%s %s could not be answered: %r",
                call.method,
                call.path,
                error,
                exc_info=_log.isEnabledFor(logging.DEBUG),
            )
            store.begin()
            answer = ArmError(
                500, "InternalServerError", f"The sandbox itself failed: {type(error).__name__}."
            ).answer()
            code, message = "InternalServerError", "The sandbox itself failed."
        except BaseException:
            store.rollback()
            raise
        if locate(call) is None:  # the Activity Log does not see the data plane
            self.world.activity.finished(call, answer, code=code, message=message)
        self._journal(call, answer.status, "")
        store.commit()
        self.world.run_due()
        return answer

    def _note(self, call: Call, status: int, fault: str) -> None:
        self.world.store.begin()
        self._journal(call, status, fault)
        self.world.store.commit()

    def _journal(self, call: Call, status: int, fault: str) -> None:
        caller = call.caller
        entry = {
            "time": call.now.isoformat(),
            "method": call.method,
            "path": call.path,
            "query": {k: v for k, v in call.query.items() if k.lower() not in ("sig", "s")},
            "status": status,
            "region": call.region,
            "target": call.target,
            "operation": call.operation,
            "caller": caller.label if caller else "",
            "name": caller.name if caller else "",
            "oid": caller.oid if caller else "",
            "via": caller.via if caller else "",
            "client": call.client,
            "correlation": call.correlation_id,
            "agent": call.headers.get("user-agent", ""),
        }
        if fault:
            entry["fault"] = fault
        self.world.store.journal(call.now.timestamp(), entry)

    def _dispatch(self, call: Call) -> Answer:
        world = self.world
        found = world.identity.handle(call)
        if found is not None:
            return found
        place = locate(call)
        if place is not None:
            return self.data.handle(call, *place)
        call.caller = world.identity.caller(call)
        world.identity.require_arm(call)
        headers = world.throttle.charge(call)
        if call.method not in ("GET", "HEAD"):
            headers["x-ms-operation-identifier"] = (
                f"tenantId={call.caller.tenant},objectId={call.caller.oid}/westus2/{call.id}"
            )
        try:
            answer = world.arm.handle(call)
        except ArmError as error:
            error.headers = {**headers, **error.headers}
            raise
        answer.headers = {**headers, **answer.headers}
        return answer

    async def _write(self, call: Call, answer: Answer, scope: Scope, send: Send, plan: Any) -> None:
        body = answer.payload()
        headers = {
            "date": format_datetime(call.now, usegmt=True),  # by the sandbox's own clock
            "cache-control": "no-cache",
            "pragma": "no-cache",
            "expires": "-1",
            "x-content-type-options": "nosniff",
            "strict-transport-security": "max-age=31536000; includeSubDomains",
            "x-ms-request-id": call.id,
            "x-ms-correlation-request-id": call.correlation_id,
            "x-ms-routing-request-id": f"WESTUS2:{call.now:%Y%m%dT%H%M%SZ}:{call.id}",
            "x-msedge-ref": f"Ref A: {call.id.replace('-', '').upper()} Ref B: LOCAL Ref C: "
            f"{call.now:%Y-%m-%dT%H:%M:%SZ}",
        }
        if call.headers.get("x-ms-return-client-request-id", "").lower() == "true":
            headers["x-ms-client-request-id"] = call.headers.get("x-ms-client-request-id", "")
        if body or answer.body is not None:
            headers["content-type"] = answer.media_type
        if answer.status != 204:
            headers["content-length"] = str(len(body))
        headers |= {k.lower(): v for k, v in answer.headers.items()}
        if plan is not None and (damaged := plan.damage(scope, answer.status, headers, body)):
            if damaged.cut:
                await self._cut(scope, send, damaged)
                return
            headers, body = damaged.headers, damaged.body
        await send(
            {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
            }
        )
        if call.method == "HEAD":
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _cut(self, scope: Scope, send: Send, damaged: Any) -> None:
        """Send a part of the body, then drop the connection."""
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in damaged.headers.items()]
        await send({"type": "http.response.start", "status": damaged.status, "headers": headers})
        await send({"type": "http.response.body", "body": damaged.body, "more_body": True})
        await asyncio.sleep(0)
        transport = scope.get("extensions", {}).get("sandbox.transport")
        if transport is not None:
            transport.abort()


def locate(call: Call) -> tuple[str, str, str] | None:
    """The data plane a call is for: subdomain or region, suffix and path; None for ARM."""
    match = _PREFIXED.match(call.path)
    if match:
        return match["name"].lower(), match["suffix"].lower(), match["rest"] or "/"
    match = _HOSTED.match(call.headers.get("host", ""))
    if match:
        return match["name"].lower(), match["suffix"].lower(), call.path
    return None


def account_named(world: World, subdomain: str) -> str:
    """The ARM id of the account with a custom subdomain, or ""."""
    wanted = subdomain.lower()
    for space in world.store.spaces():
        if not space.endswith("|microsoft.cognitiveservices/accounts"):
            continue
        for _, kept in world.store.items(space):
            properties = kept["body"].get("properties") or {}
            if str(properties.get("customSubDomainName") or "").lower() == wanted:
                return str(kept["id"])
    return ""


def place_of(world: World, call: Call) -> tuple[str, str]:
    """The region that serves a call ("" for a global answer) and its plane: arm, data, identity.

    A path that names a location, or a resource that has one, is served there; listings over
    several regions are global.
    """
    place = locate(call)
    if place is not None:
        name, suffix, _ = place
        if suffix == "api":
            return region_name(name), "data"
        account = account_named(world, name)
        return (world.arm.region_of(account) if account else ""), "data"
    if not call.path.lower().startswith(("/subscriptions", "/providers", "/tenants")):
        return "", "identity"
    location = segment_after(call.path, "locations")
    if location:
        return region_name(location), "arm"
    region = world.arm.region_of(call.path)
    if not region and call.method == "PUT":
        try:
            sent = call.json().get("location")
        except ArmError:
            sent = None
        region = region_name(sent) if isinstance(sent, str) else ""
    return region, "arm"
