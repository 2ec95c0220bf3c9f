"""The control API under /_sandbox: faults, the clock, the journal, settings, dump and load.

Every request needs the header `authorization: Bearer <token>` with the token of the ready file.

    GET    /_sandbox                    what there is: time, estate, faults, settings
    GET    /_sandbox/journal?after=N    requests: seq, time, method, path, status, region, caller, …
    DELETE /_sandbox/journal
    GET    /_sandbox/faults             POST one (see faults.py), DELETE all, DELETE /faults/{id}
    GET    /_sandbox/clock              POST {"freeze": true | false, "advance": 60, "scale": 10}
    GET    /_sandbox/settings           PUT {"page_size": 3, "buckets": {"reads": [50, 25]}, …}
    POST   /_sandbox/account            {"id": ARM id, "hidden": {"key_revoked": true}}
    POST   /_sandbox/revoke             {"principal": name}: its old tokens meet a challenge
    PUT    /_sandbox/quota              {"subscription", "region", "usage", "limit"}
    PUT    /_sandbox/capacity           {"region", "sku", "available", "model"?}: provisioned units
    GET    /_sandbox/dump               POST /_sandbox/load takes it back; POST /_sandbox/reset
"""

from __future__ import annotations

import base64
import hmac
import math
import secrets
import time
from collections.abc import Callable
from typing import Any

from drills.sandbox.clock import wire_time
from drills.sandbox.dataplane import contents
from drills.sandbox.estates import EstateError
from drills.sandbox.providers.cognitive_quota import set_capacity, set_quota
from drills.sandbox.store import StateError
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import DEFAULTS, World

PREFIX = "/_sandbox"
_FAR = 100 * 366 * 86400.0


class Control:
    """Answers the control API. It is not subject to faults, throttling or the journal."""

    def __init__(self, world: World) -> None:
        self.world = world
        token = world.store.meta("control-token")
        if token is None:
            token = secrets.token_urlsafe(24)
            world.store.set_meta("control-token", token)
        self.token = str(token)
        self._scale = world.clock.scale
        self.reload: Callable[[], None] | None = None  # loads the estate again, set by serve

    def owns(self, call: Call) -> bool:
        """Whether a call is for the control API."""
        return call.path == PREFIX or call.path.startswith(PREFIX + "/")

    def handle(self, call: Call) -> Answer:
        """Answer a control request; errors have ARM's shape."""
        try:
            given = call.headers.get("authorization", "").removeprefix("Bearer ")
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return ArmError(
                    401, "Unauthorized", "The control API needs the token of the ready file."
                ).answer()
            return self._handle(call)
        except ArmError as error:
            if self.world.store.in_transaction:
                self.world.store.rollback()
            return error.answer()

    def _handle(self, call: Call) -> Answer:
        world, store = self.world, self.world.store
        parts = call.path.removeprefix(PREFIX).strip("/").split("/")
        match call.method, parts:
            case "GET", [""]:
                return Answer(200, self._about())
            case "GET", ["journal"]:
                after, limit = call.parameter("after", "0"), call.parameter("limit", "100000")
                if not (after.isdigit() and limit.isdigit()):
                    raise ArmError(400, "BadRequest", "after and limit must be whole numbers")
                return Answer(200, {"value": list(store.read_journal(int(after), int(limit)))})
            case "DELETE", ["journal"]:
                store.clear_journal()
                return Answer(204)
            case "GET", ["faults"]:
                return Answer(200, {"value": [body for _, body in store.items("faults")]})
            case "POST", ["faults"]:
                return Answer(201, world.faults.add(dict(call.json())))
            case "DELETE", ["faults"]:
                for id_, _ in store.items("faults"):
                    store.remove("faults", id_)
                return Answer(204)
            case "DELETE", ["faults", id_]:
                return Answer(204 if world.faults.remove(id_) else 404)
            case "GET", ["clock"]:
                return Answer(200, self._clock())
            case "POST", ["clock"]:
                self._set_clock(call.json())
                return Answer(200, self._clock())
            case "GET", ["settings"]:
                return Answer(200, {name: world.setting(name) for name in sorted(DEFAULTS)})
            case "PUT" | "PATCH", ["settings"]:
                self._set(call.json())
                return Answer(200, {name: world.setting(name) for name in sorted(DEFAULTS)})
            case "POST", ["account"]:
                return self._account(call.json())
            case "POST", ["revoke"]:
                who = call.json().get("principal")
                if not isinstance(who, str) or not world.identity.revoke(who):
                    raise ArmError(400, "BadRequest", f"there is no principal {who!r} to revoke")
                return Answer(204)
            case "PUT", ["quota" | "capacity" as what]:
                return self._offer(what, call.json())
            case "GET", ["dump"]:
                keep_clock(world)
                return Answer(200, {**store.dump(), "files": contents.dump(world)})
            case "POST", ["load"]:
                self._load(call.json())
                return Answer(200, self._about())
            case "POST", ["reset"]:
                self._reset()
                return Answer(200, self._about())
            case _:
                raise ArmError(404, "NotFound", f"the control API has no {call.method} {call.path}")

    def _load(self, dumped: Body) -> None:
        """Become what was dumped: resources, contents, settings, logs and the time of it."""
        world = self.world
        files, clock = dumped.get("files", {}), (dumped.get("meta") or {}).get("clock") or {}
        try:
            known = {str(k): base64.b64decode(v, validate=True) for k, v in files.items()}
            time_of_it = float(clock.get("time", world.clock.timestamp()))
            scale = float(clock.get("scale", world.clock.scale))
            world.store.load(dumped)
        except (StateError, AttributeError, TypeError, ValueError) as error:
            raise ArmError(400, "BadDump", f"nothing was loaded: {error}") from None
        for content in known.values():
            contents.keep(world, content)
        world.clock.put(time_of_it, scale=scale, frozen=bool(clock.get("frozen")))
        world.throttle.forget()
        world.identity.forget()
        world.held.clear()
        keep_clock(world)

    def _reset(self) -> None:
        """Load the estate again: no faults, full buckets, empty journal, the time of day."""
        world, store = self.world, self.world.store
        store.reset()
        store.set_meta("chance", 0)  # the same ids again: ready files stay true
        for name in DEFAULTS:
            store.set_meta(f"setting-{name}", None)
        store.clear_journal()
        world.throttle.forget()
        world.identity.forget()
        world.held.clear()
        world.clock.put(time.time(), scale=self._scale, frozen=False)
        keep_clock(world)
        if self.reload is not None:
            try:
                self.reload()
            except EstateError as error:
                raise ArmError(409, "BadEstate", f"the estate cannot be loaded: {error}") from None

    def _about(self) -> Body:
        world = self.world
        return {
            "time": wire_time(world.clock.now()),
            "estate": world.store.meta("estate"),
            "tenant": world.identity.tenant,
            "subscriptions": [s["subscriptionId"] for _, s in world.store.items("subscriptions")],
            "faults": [body for _, body in world.store.items("faults")],
            "next_timer": None if world.store.next_due == float("inf") else world.store.next_due,
        }

    def _clock(self) -> Body:
        clock = self.world.clock
        return {"now": wire_time(clock.now()), "frozen": clock.frozen, "scale": clock.scale}

    def _set_clock(self, wanted: Body) -> None:
        clock = self.world.clock
        unknown = set(wanted) - {"freeze", "advance", "scale"}
        if unknown:
            raise ArmError(400, "BadClock", f"unknown: {sorted(unknown)}")
        try:
            if wanted.get("freeze") is True:
                clock.freeze()
            elif wanted.get("freeze") is False:
                clock.resume()
            if "scale" in wanted:
                clock.set_scale(_number(wanted["scale"]))
            if "advance" in wanted:
                self._advance(_number(wanted["advance"]))
        except (TypeError, ValueError) as error:
            raise ArmError(400, "BadClock", str(error)) from None
        keep_clock(self.world)

    def _advance(self, seconds: float) -> None:
        """Move the clock from timer to timer, so that what happens sees its own time."""
        world = self.world
        frozen = world.clock.frozen
        world.clock.freeze()
        target = world.clock.timestamp() + seconds
        if seconds < 0:
            world.clock.advance(seconds)
        while world.store.next_due <= target:
            world.clock.advance(max(0.0, world.store.next_due - world.clock.timestamp()))
            world.run_due()
        world.clock.advance(max(0.0, target - world.clock.timestamp()))
        if not frozen:
            world.clock.resume()

    def _set(self, wanted: Body) -> None:
        unknown = set(wanted) - set(DEFAULTS)
        if unknown:
            raise ArmError(
                400, "BadSetting", f"unknown: {sorted(unknown)}; known are {sorted(DEFAULTS)}"
            )
        for name, given in wanted.items():
            default, value = DEFAULTS[name], given
            if value is not None and not _fits(default, value):
                raise ArmError(
                    400,
                    "BadSetting",
                    f"{name} must be like {default!r} (its default), not {value!r}",
                )
            if value is not None and isinstance(default, dict):
                if not isinstance(value, dict) or set(value) - set(default):
                    raise ArmError(400, "BadSetting", f"{name} must hold some of {sorted(default)}")
                value = {**default, **(self.world.store.meta(f"setting-{name}") or {}), **value}
            self.world.store.set_meta(f"setting-{name}", value)
        if "buckets" in wanted or "throttle" in wanted or "data_bucket" in wanted:
            self.world.throttle.forget()

    def _offer(self, what: str, wanted: Body) -> Answer:
        """Give a subscription another quota, or a region other provisioned capacity."""
        try:
            if what == "quota":
                set_quota(
                    self.world,
                    str(wanted["subscription"]),
                    str(wanted["region"]),
                    str(wanted["usage"]),
                    int(wanted["limit"]),
                )
            else:
                set_capacity(
                    self.world,
                    str(wanted["region"]),
                    str(wanted["sku"]),
                    int(wanted["available"]),
                    str(wanted.get("model", "*")),
                )
        except (KeyError, TypeError, ValueError) as error:
            raise ArmError(400, "BadRequest", f"{what}: missing or wrong: {error}") from None
        return Answer(200, wanted)

    def _account(self, wanted: Body) -> Answer:
        record = self.world.arm.find(str(wanted.get("id", "")))
        if record is None or not isinstance(wanted.get("hidden"), dict):
            raise ArmError(400, "BadRequest", "id must name a resource and hidden be an object")
        record.hidden.update(wanted["hidden"])
        self.world.store.begin()
        self.world.arm.save(record)
        self.world.store.commit()
        return Answer(200, {"id": record.id})


def _number(value: Any) -> float:
    """A finite number. Raises TypeError or ValueError."""
    number = float(value)
    if isinstance(value, bool) or not math.isfinite(number) or abs(number) > _FAR:
        raise ValueError(f"{value!r} is not a number of seconds below a century, or a scale")
    return number


def _fits(default: object, value: object) -> bool:
    """Whether a setting's value is of the form of its default; numbers are at least 0."""
    match default:
        case bool():
            return isinstance(value, bool)
        case int() | float():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return number and math.isfinite(value) and value >= 0  # type: ignore[operator,arg-type]
        case list():
            same = isinstance(value, list) and len(value) == len(default)
            return same and all(_fits(a, b) for a, b in zip(default, value, strict=True))  # type: ignore[call-overload]
        case dict():
            return isinstance(value, dict) and all(
                name in default and _fits(default[name], inner) for name, inner in value.items()
            )
        case _:
            return True


def keep_clock(world: World) -> None:
    """Write the clock down, so that a restart goes on where it was."""
    world.store.set_meta(
        "clock",
        {
            "time": world.clock.timestamp(),
            "scale": world.clock.scale,
            "frozen": world.clock.frozen,
            "ahead": world.clock.timestamp() - time.time(),
        },
    )
