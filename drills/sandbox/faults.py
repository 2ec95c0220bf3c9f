"""What is broken on purpose: outages, latency, errors, stuck operations, damaged answers.

A fault is an item of the space "faults"; the control API adds and removes them. Its fields:

- `kind`: outage | latency | error | throttle | operation | damage | deny
- where it applies (all that are given must match): `region`, `path` (regular expression on the
  path), `method`, `principal` (name, client id or object id), `plane` (arm | data)
- `mode`: outage: refused | hanging | 503; operation: fail | stuck | slow; damage: cut | corrupt
- `rate`: 0 to 1, the share of requests it hits (default 1), from the seeded stream
- `seconds`: latency, or how long a hanging outage hangs before it drops the connection
- `status`, `code`, `message`, `retry_after`: error answers; `times`: ends after so many hits
"""

from __future__ import annotations

import asyncio
import random
import re
from dataclasses import dataclass, field
from typing import Any

from drills.sandbox.ids import region_name, segment_after
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

KINDS = ("outage", "latency", "error", "throttle", "operation", "damage", "deny")
MODES = {
    "outage": ("refused", "hanging", "503"),
    "operation": ("fail", "stuck", "slow"),
    "damage": ("cut", "corrupt"),
}
_FIELDS = {
    "kind",
    "region",
    "path",
    "method",
    "principal",
    "plane",
    "mode",
    "rate",
    "seconds",
    "status",
    "code",
    "message",
    "retry_after",
    "times",
    "id",
}


@dataclass(slots=True)
class Damaged:
    """What goes out instead of a whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    cut: bool


@dataclass(slots=True)
class Plan:
    """What the faults do to one request."""

    delay: float = 0.0
    hang: float = 0.0
    refused: bool = False
    answer: Answer | None = None
    mode: str = ""  # of damage
    label: str = ""
    noise: random.Random = field(default_factory=random.Random)

    async def before(self, scope: Any) -> None:
        """Wait, hang, or drop the connection."""
        if self.delay:
            await asyncio.sleep(self.delay)
        if not self.refused:
            return
        if self.hang:
            await asyncio.sleep(self.hang)
        transport = scope.get("extensions", {}).get("sandbox.transport")
        if transport is not None:
            transport.abort()

    def damage(
        self, scope: Any, status: int, headers: dict[str, str], body: bytes
    ) -> Damaged | None:
        """The damaged form of an answer, when damage was planned and there is a body."""
        if not self.mode or len(body) < 2 or status >= 300:
            return None
        if self.mode == "cut":
            return Damaged(status, headers, body[: self.noise.randrange(1, len(body))], cut=True)
        spoiled = bytearray(body)
        at = self.noise.randrange(len(spoiled))
        spoiled[at : at + 1] = b"\x00"
        return Damaged(status, headers, bytes(spoiled), cut=False)


class Faults:
    """The faults that are declared at the moment."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._noise = random.Random(world.seed)
        self._patterns: dict[str, re.Pattern[str]] = {}

    # -- declaring ------------------------------------------------------------------------------

    def add(self, fault: Body) -> Body:
        """Declare a fault. Raises ArmError 400 saying what is wrong with it."""
        unknown = set(fault) - _FIELDS
        kind = fault.get("kind")
        problem = ""
        if unknown:
            problem = f"unknown fields {sorted(unknown)}; known are {sorted(_FIELDS)}"
        elif kind not in KINDS:
            problem = f"kind must be one of {', '.join(KINDS)}, not {kind!r}"
        elif kind in MODES and fault.setdefault("mode", MODES[kind][0]) not in MODES[kind]:
            problem = f"mode of {kind} must be one of {', '.join(MODES[kind])}"
        elif (
            isinstance(fault.get("rate"), bool)
            or not isinstance(fault.get("rate", 1), int | float)
            or not 0 <= fault.get("rate", 1) <= 1
        ):
            problem = "rate must be a number from 0 to 1"
        elif kind == "latency" and "seconds" not in fault:
            problem = "latency needs seconds"
        elif wrong := _wrong_field(fault):
            problem = wrong
        elif kind == "deny" and not fault.get("principal") and not fault.get("region"):
            problem = "deny needs a principal, a region or both"
        else:
            try:
                re.compile(str(fault.get("path", "")))
            except re.error as error:
                problem = f"path is no regular expression: {error}"
        if problem:
            raise ArmError(400, "BadFault", problem)
        id_ = str(fault.get("id") or self.world.hex(8))
        return self.world.store.put("faults", id_, {**fault, "id": id_, "hits": 0})

    def remove(self, id_: str) -> bool:
        """End a fault; False when there is none by that id."""
        return self.world.store.remove("faults", id_) is not None

    # -- applying -------------------------------------------------------------------------------

    def place(self, call: Call) -> tuple[str, str]:
        """The region that serves a call ("" for a global answer) and the plane: arm | data."""
        from drills.sandbox.app import place_of

        return place_of(self.world, call)

    def _principal(self, call: Call) -> set[str]:
        try:
            caller = call.caller or self.world.identity.caller(call)
        except ArmError:
            return set()
        return {x.lower() for x in (caller.oid, caller.appid, caller.name, caller.upn) if x}

    def _matches(self, fault: Body, call: Call, region: str, plane: str) -> bool:
        if fault.get("region") and region_name(fault["region"]) != region:
            return False
        if fault.get("plane") and fault["plane"] != plane:
            return False
        if fault.get("method") and fault["method"].upper() != call.method:
            return False
        pattern = fault.get("path")
        if pattern:
            compiled = self._patterns.setdefault(pattern, re.compile(pattern, re.IGNORECASE))
            if not compiled.search(call.path):
                return False
        return not fault.get("principal") or fault["principal"].lower() in self._principal(call)

    def _hits(self, fault: Body) -> bool:
        if self._noise.random() >= fault.get("rate", 1):
            return False
        if fault.get("times") is not None and fault["hits"] >= fault["times"]:
            return False
        own = not self.world.store.in_transaction
        if own:
            self.world.store.begin()
        self.world.store.put("faults", fault["id"], {**fault, "hits": fault["hits"] + 1})
        if own:
            self.world.store.commit()
        return True

    def plan(self, call: Call) -> Plan | None:
        """What is to happen to a request; None when nothing is declared."""
        if not self.world.store.count("faults"):
            return None
        region, plane = self.place(call)
        call.region = region
        if plane == "identity":
            region = ""
        plan = Plan(noise=self._noise)
        for _, fault in self.world.store.items("faults"):
            if fault["kind"] == "operation" or not self._matches(fault, call, region, plane):
                continue
            if fault["kind"] == "outage" and not (fault.get("region") or fault.get("path")):
                pass  # an outage without a place hits everything, identity too
            elif plane == "identity" and not fault.get("path"):
                continue
            if not self._hits(fault):
                continue
            self._apply(plan, fault, call, region)
        return plan

    def _apply(self, plan: Plan, fault: Body, call: Call, region: str) -> None:
        message = fault.get("message")
        match fault["kind"], fault.get("mode"):
            case "latency", _:
                plan.delay += float(fault["seconds"])
            case "outage", "503":
                plan.answer = ArmError(
                    int(fault.get("status", 503)),
                    fault.get("code", "ServiceUnavailable"),
                    message or f"The service in region '{region}' is currently unavailable.",
                ).answer()
            case "outage", mode:
                plan.refused = True
                plan.hang = float(fault.get("seconds", 600.0)) if mode == "hanging" else 0.0
            case "error", _:
                status = int(fault.get("status", 500))
                plan.answer = ArmError(
                    status,
                    fault.get("code", "InternalServerError"),
                    message or "Encountered internal server error.",
                ).answer()
            case "throttle", _:
                plan.answer = ArmError(
                    429,
                    fault.get("code", "TooManyRequests"),
                    message or "The request was throttled.",
                    headers={"retry-after": str(fault.get("retry_after", 1))},
                ).answer()
            case "deny", _:
                plan.answer = ArmError(
                    403,
                    fault.get("code", "TrafficDenied"),
                    message or f"Traffic to region '{region}' is denied.",
                ).answer()
            case "damage", mode:
                plan.mode = str(mode)
            case _:  # "operation" is asked for by the engine, not here
                pass
        if plan.answer is not None and fault.get("retry_after") is not None:
            plan.answer.headers["retry-after"] = str(fault["retry_after"])
        plan.label = f"{plan.label},{fault['kind']}".strip(",")

    def operation(self, call: Call, id_: str, seconds: float) -> tuple[float, Body | str | None]:
        """How long a new long operation takes and how it ends.

        The outcome is None (success), "stuck" (never ends), or an error object it fails with.
        """
        region = self.world.arm.region_of(id_)
        for _, fault in self.world.store.items("faults"):
            if fault["kind"] != "operation" or not self._matches(fault, call, region, "arm"):
                continue
            if not self._hits(fault):
                continue
            match fault["mode"]:
                case "stuck":
                    return seconds, "stuck"
                case "slow":
                    seconds += float(fault.get("seconds", 60.0))
                case _:
                    return seconds, {
                        "code": fault.get("code", "InternalServerError"),
                        "message": fault.get("message", "The operation failed."),
                    }
        return seconds, None


def _wrong_field(fault: Body) -> str:
    """What is wrong with a field's value, or ""."""
    for name in ("region", "path", "method", "principal", "plane", "code", "message", "id"):
        if fault.get(name) is not None and not isinstance(fault[name], str):
            return f"{name} must be text, not {fault[name]!r}"
    if fault.get("plane") not in (None, "arm", "data"):
        return f"plane must be arm or data, not {fault['plane']!r}"
    for name in ("seconds", "retry_after"):
        value = fault.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
            return f"{name} must be a number of seconds, not {value!r}"
    for name, low, high in (("status", 400, 599), ("times", 0, 1_000_000_000)):
        value = fault.get(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            return f"{name} must be a whole number from {low} to {high}, not {value!r}"
    return ""


def subscription_of(path: str) -> str:
    """The subscription a path names, lower case, or ""."""
    return segment_after(path, "subscriptions").lower()
