"""Token buckets as Azure Resource Manager keeps them, and the headers that tell of them.

Documented sizes (learn.microsoft.com, request limits and throttling): per subscription, principal
and operation type 250 reads with 25 a second, 200 writes and 200 deletes with 10 a second; over
all principals of a subscription 15 times that.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from drills.sandbox.faults import subscription_of
from drills.sandbox.wire import Answer, ArmError, Call
from drills.sandbox.world import World

_KIND = {"GET": "reads", "HEAD": "reads", "DELETE": "deletes"}
_GLOBAL = 15


@dataclass(slots=True)
class _Bucket:
    capacity: float
    refill: float  # tokens per second
    level: float
    at: float

    def fill(self, now: float) -> None:
        self.level = min(self.capacity, self.level + max(0.0, now - self.at) * self.refill)
        self.at = now


class Throttle:
    """Buckets per subscription, principal and operation type.

    They refill by real time: what they protect is the server, and a client waits in real time
    whatever the sandbox's calendar says. They are not kept through a restart.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._buckets: dict[tuple[str, ...], _Bucket] = {}
        self.now = time.monotonic

    def forget(self) -> None:
        """Start again with full buckets (after the sizes were changed)."""
        self._buckets.clear()

    def _bucket(self, name: tuple[str, ...], capacity: float, refill: float) -> _Bucket:
        now = self.now()
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(capacity, refill, capacity, now)
        bucket.fill(now)
        return bucket

    def charge(self, call: Call) -> dict[str, str]:
        """Take a token for an ARM call and return the rate-limit headers. Raises ArmError 429."""
        kind = _KIND.get(call.method, "writes")
        subscription = subscription_of(call.path)
        scope = "subscription" if subscription else "tenant"
        who = call.caller.oid if call.caller else ""
        sizes = self.world.setting("buckets")
        capacity, refill = (float(x) for x in sizes[kind])
        own = self._bucket((subscription, who, kind), capacity, refill)
        shared = self._bucket((subscription, "*", kind), capacity * _GLOBAL, refill * _GLOBAL)
        name = f"x-ms-ratelimit-remaining-{scope}"
        if not self.world.setting("throttle"):
            full = {f"{name}-{kind}": str(int(capacity) - 1)}
            if subscription:
                full[f"{name}-global-{kind}"] = str(int(capacity * _GLOBAL) - 1)
            return full
        short = own if own.level < 1 else shared if shared.level < 1 else None
        if short is not None:
            wait = max(1, math.ceil((1 - short.level) / short.refill))
            raise ArmError(
                429,
                "SubscriptionRequestsThrottled",
                f"Number of '{kind}' requests for subscription '{subscription}' actor "
                f"'{who}' exceeded. Please try again after '{wait}' seconds after additional "
                "tokens are available. Refer to https://aka.ms/arm-throttling for additional "
                "information.",
                headers={"retry-after": str(wait), f"{name}-{kind}": "0"},
                gateway=True,
            )
        own.level -= 1
        shared.level -= 1
        headers = {f"{name}-{kind}": str(int(own.level))}
        if subscription:
            headers[f"x-ms-ratelimit-remaining-subscription-global-{kind}"] = str(int(shared.level))
        return headers

    def charge_data(self, call: Call, account: str) -> Answer | None:
        """Take a token of an account's data plane; the 429 answer when there is none left."""
        capacity, refill = (float(x) for x in self.world.setting("data_bucket") or (30, 30.0))
        if not self.world.setting("throttle"):
            return None
        bucket = self._bucket(("data", account.lower()), capacity, refill)
        if bucket.level >= 1:
            bucket.level -= 1
            return None
        wait = max(0.05, (1 - bucket.level) / bucket.refill)
        return Answer(
            429,
            {
                "error": {
                    "code": "429",
                    "message": "Requests to this operation have exceeded the call rate limit of "
                    f"the resource. Please retry after {math.ceil(wait)} seconds.",
                }
            },
            {"retry-after": str(math.ceil(wait)), "retry-after-ms": str(int(wait * 1000) + 1)},
        )
