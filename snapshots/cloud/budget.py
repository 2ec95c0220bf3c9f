"""How many requests Azure lets us send, and when the next one may leave.

Azure Resource Manager keeps a token bucket for each region, subscription, principal and type of
operation (azure-docs, request-limits-and-throttling.md: 250 reads and 25 a second). Its answers say
what is left. A `TokenBucket` holds a *lower bound* of what is left there:

- `sent - 1` when a request leaves, although Azure has not seen it yet;
- `+ refill` as time passes, but never above `capacity - in flight`: a bucket that is full gains
  nothing, and it is full for longer than we think while our requests are under way;
- up, when an answer proves there is more: what it says, less every request that may have been
  counted after it;
- down, when an answer proves there is less than the bound ever was while it was under way: then
  somebody else drinks from the same bucket, or it refills slower than believed.

As long as nobody else drinks, the bound never exceeds the truth, so not one request is refused.
"""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import Protocol

from snapshots.clock import Clock
from snapshots.cloud.place import Limits, Place, Plane

# An account's hosts differ after its subdomain: x.openai.azure.com, x.services.ai.azure.com.
_OF_ACCOUNTS = frozenset({Plane.OPENAI, Plane.FOUNDRY})


class Operation(StrEnum):
    """The type of operation a request is charged as."""

    READ = "reads"
    WRITE = "writes"
    DELETE = "deletes"


@dataclass(frozen=True, slots=True)
class BucketView:
    """What is left of one bucket, for people."""

    name: str  # "subscription <id> reads", "endpoint https://…"
    remaining: int
    capacity: int
    per_second: float
    closed_for: float  # seconds until Azure lets us in again, 0 when it does


@dataclass(slots=True)
class Passage:
    """One request under way, as a bucket sees it."""

    sent_at: float
    answered_before: int  # answers the bucket had seen when this request left
    low: float  # the least the bucket's bound was since


class Bucket(Protocol):
    """Something that says when a request may leave."""

    def wait(self, now: float) -> float:
        """Seconds until a request may leave; 0 when it may leave now."""
        ...

    def leave(self, now: float) -> Passage:
        """Note that a request leaves."""
        ...

    def back(self, passage: Passage, now: float, remaining: int | None) -> None:
        """Note that it is over; `remaining` is what the answer says is left."""
        ...

    def close(self, until: float) -> None:
        """Let nothing through until then."""
        ...

    def view(self, now: float) -> BucketView:
        """What is left, for people."""
        ...


class TokenBucket:
    """A token bucket of Azure's, seen from outside. Not thread-safe: `Budget` locks."""

    _SETTLE = 2.0  # seconds over which the refill is measured
    _UNMEASURED = 0.4
    _WEIGHT = 0.3  # of a new measurement of the refill

    def __init__(self, name: str, capacity: float, per_second: float, now: float) -> None:
        self.name = name
        self.capacity = capacity
        self.per_second = per_second
        self._documented = per_second
        self._latency = 0.0  # usual seconds from leaving to the answer
        self._held_back = False  # a request waited for us, since the bucket was seen full
        self._full_since = now
        self._lessons = 0  # how often the refill was measured
        self._level = capacity
        self._at = now
        self._known = False  # an answer has told what is left, since the last refusal
        self._measured = False  # an answer has ever told it
        self._trial_since: float | None = None
        self._closed_until = -math.inf
        self._reserve_share = 0.04
        self._passages: dict[int, Passage] = {}
        self._answered = 0
        self._anchor: tuple[float, int, int] | None = None  # when, remaining, answers before

    @property
    def reserve(self) -> float:
        """Tokens that are left alone: the room for what we cannot know.

        While answers are under way the bound grows by a refill that is believed, not seen; the
        more so before it was measured.
        """
        believed = self.per_second * self._latency * (0.6 if self._lessons < 3 else 0.1)
        asked = max(1.0, self._reserve_share * self.capacity) + believed
        return min(asked, self.capacity / 2)

    def _advance(self, now: float) -> None:
        # What is documented holds for most subscriptions; count on the smaller part of it until
        # the refill was measured. What answers prove to be there is used in any case.
        sure = self.per_second if self._lessons else self._UNMEASURED * self.per_second
        gained = max(0.0, now - self._at) * sure
        self._at = max(self._at, now)
        ceiling = self.capacity - len(self._passages)
        if self._level < ceiling:
            self._level = min(ceiling, self._level + gained)

    def wait(self, now: float) -> float:
        """Seconds until a request may leave; 0 when it may leave now."""
        self._advance(now)
        if now < self._closed_until:
            return self._closed_until - now
        if not self._known and self._passages:
            # Nobody has told yet what is left: send one, and more only when it takes long.
            since = self._trial_since if self._trial_since is not None else now
            allowed = 1 + int(now - since)
            if len(self._passages) >= allowed:
                return min(0.05, max(0.005, since + allowed - now))
        # An unknown or just reopened bucket gets its single trial even when the bound says no.
        if not self._known and not self._passages:
            return 0.0
        ceiling = self.capacity - len(self._passages)
        # A bucket that was never seen to hold more than its reserve is used one by one.
        missing = min(self.reserve + 1, self.capacity) - self._level
        if missing <= 1e-9:
            return 0.0
        self._held_back = True
        if self._level >= ceiling:
            return 0.02  # only an answer can help
        return max(0.002, missing / max(self.per_second, 0.01))

    def leave(self, now: float) -> Passage:
        """Note that a request leaves."""
        self._advance(now)
        self._level -= 1
        if not self._known and not self._passages:
            self._trial_since = now
        passage = Passage(now, self._answered, self._level)
        for other in self._passages.values():
            other.low = min(other.low, self._level)
        self._passages[id(passage)] = passage
        return passage

    def back(self, passage: Passage, now: float, remaining: int | None) -> None:
        """Note that it is over; `remaining` is what the answer says is left."""
        self._advance(now)
        if self._passages.pop(id(passage), None) is None:
            return
        took = max(0.0, now - passage.sent_at)
        self._latency += 0.1 * (took - self._latency) if self._answered else took
        overlapping = len(self._passages) + self._answered - passage.answered_before
        self._answered += 1
        if remaining is None:
            return
        # What this very request took belongs to the bucket too, hence one more.
        self.capacity = max(self.capacity, remaining + 1.0) if self._measured else remaining + 1.0
        self._known = self._measured = True
        if passage.low > remaining:
            less = passage.low - remaining
            self._level -= less
            for other in self._passages.values():
                other.low -= less
        proven = min(remaining - overlapping, self.capacity - len(self._passages))
        self._level = max(self._level, proven)
        self._learn(now, remaining)

    def without_header(self) -> None:
        """Azure says nothing about this bucket: go by what is documented."""
        self._known = True

    def _learn(self, now: float, remaining: int) -> None:
        """Measure the net refill, other clients' use included, between two answers."""
        if remaining >= self.capacity - max(2.0, 0.1 * self.capacity):
            # A full bucket does not show how fast it refills; but when it stays full although
            # requests waited for us, it refills faster than we believed.
            self._anchor = None
            if self._held_back and now - self._full_since > max(1.0, 2 * self._latency):
                self._lessons += 1
                if self._lessons > 1:
                    self.per_second *= 1.25
                self._full_since = now
                self._held_back = False
            return
        self._full_since = now
        self._held_back = False
        if self._anchor is None:
            self._anchor = (now, remaining, self._answered)
            return
        since, before, answered = self._anchor
        elapsed = now - since
        if elapsed < max(self._SETTLE, 6 * self._latency):
            return
        seen = (remaining - before + self._answered - answered) / elapsed
        seen = min(max(seen, 0.02 * self._documented), 1e4)
        self._lessons += 1
        self.per_second += max(self._WEIGHT, 1 / self._lessons) * (seen - self.per_second)
        self._anchor = (now, remaining, self._answered)

    def close(self, until: float) -> None:
        """Let nothing through until then."""
        self._closed_until = max(self._closed_until, until)
        self._level = min(self._level, 0.0)
        self._anchor = None
        self._known = False  # after it opens: one first, then what its answer says
        self._trial_since = None
        # Refused although the bound allowed it: leave more room for those we cannot see.
        self._reserve_share = min(0.25, self._reserve_share * 1.5)

    def view(self, now: float) -> BucketView:
        """What is left, for people."""
        self._advance(now)
        return BucketView(
            self.name,
            max(0, math.floor(self._level)),
            math.floor(self.capacity),
            self.per_second,
            max(0.0, self._closed_until - now),
        )


class WindowBucket:
    """At most so many requests in any window of time, counted where they arrive.

    A place in the window is free again one window after the answer came (less the fastest way
    there and back ever seen), for only then it is certain that the request left Azure's window.
    """

    def __init__(self, name: str, most: int, window: float) -> None:
        self.name = name
        self.most = max(1, most)
        self.window = window
        self._flying = 0
        self._left: deque[float] = deque()  # when each answered request frees its place
        self._fastest = math.inf
        self._closed_until = -math.inf

    def _forget(self, now: float) -> None:
        while self._left and self._left[0] <= now:
            self._left.popleft()

    def wait(self, now: float) -> float:
        """Seconds until a request may leave; 0 when it may leave now."""
        self._forget(now)
        if now < self._closed_until:
            return self._closed_until - now
        if self._flying + len(self._left) < self.most:
            return 0.0
        if self._left:
            return max(0.001, self._left[0] - now)
        return 0.02

    def leave(self, now: float) -> Passage:
        """Note that a request leaves."""
        self._forget(now)
        self._flying += 1
        return Passage(now, 0, 0.0)

    def back(self, passage: Passage, now: float, remaining: int | None) -> None:
        """Note that it is over; `remaining` is what the answer says is left."""
        del remaining
        self._flying -= 1
        self._fastest = min(self._fastest, now - passage.sent_at)
        free_at = now + self.window - 0.9 * self._fastest
        if self._left and free_at < self._left[-1]:
            free_at = self._left[-1]
        self._left.append(free_at)

    def close(self, until: float) -> None:
        """Let nothing through until then."""
        self._closed_until = max(self._closed_until, until)

    def view(self, now: float) -> BucketView:
        """What is left, for people."""
        self._forget(now)
        return BucketView(
            self.name,
            max(0, self.most - self._flying - len(self._left)),
            self.most,
            self.most / self.window,
            max(0.0, self._closed_until - now),
        )


class Gate:
    """No count, only open or closed: a resource provider that asked us to wait."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._closed_until = -math.inf

    def wait(self, now: float) -> float:
        """Seconds until a request may leave; 0 when it may leave now."""
        return max(0.0, self._closed_until - now)

    def leave(self, now: float) -> Passage:
        """Note that a request leaves."""
        return Passage(now, 0, 0.0)

    def back(self, passage: Passage, now: float, remaining: int | None) -> None:
        """Nothing to count."""

    def close(self, until: float) -> None:
        """Let nothing through until then."""
        self._closed_until = max(self._closed_until, until)

    def view(self, now: float) -> BucketView:
        """What is left, for people."""
        return BucketView(self.name, 0, 0, 0.0, max(0.0, self._closed_until - now))


@dataclass(frozen=True, slots=True)
class Charge:
    """Who pays for a request."""

    place: Place
    operation: Operation
    provider: str = ""  # "microsoft.cognitiveservices", "" where the path names none
    graph: bool = False  # a Resource Graph query

    @property
    def within(self) -> str:
        """The subscription, or "tenant" for what belongs to none."""
        return self.place.subscription.lower() or "tenant"


@dataclass(slots=True)
class Ticket:
    """The leave to send one request; give it back with `Budget.back`."""

    charge: Charge
    passages: Sequence[tuple[Bucket, Passage]] = field(default_factory=list)


_REMAINING = re.compile(
    r"x-ms-ratelimit-remaining-(subscription|tenant)-(global-)?(reads|writes|deletes)\Z"
)
# The cap over all principals is 15 times the bucket of one:
# learn.microsoft.com/azure/azure-resource-manager/management/request-limits-and-throttling
_GLOBAL = 15
# Resource Graph: 15 queries in 5 seconds for each user (learn.microsoft.com, "Guidance for
# throttled requests in Azure Resource Graph").
_GRAPH_MOST, _GRAPH_WINDOW = 15, 5.0


class Budget:
    """What Azure lets us send, for each subscription and type of operation. Thread-safe."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self._clock = clock
        self._limits = limits
        self._lock = Lock()
        self._buckets: dict[tuple[str, ...], Bucket] = {}

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def enter(self, charge: Charge, now: float | None = None) -> Ticket | float:
        """A ticket when the request may leave now, else the seconds to wait before asking again."""
        at = self._now() if now is None else now
        with self._lock:
            buckets = self._paying(charge, at)
            wait = max(bucket.wait(at) for bucket in buckets)
            if wait > 0:
                return wait
            return Ticket(charge, [(bucket, bucket.leave(at)) for bucket in buckets])

    def closed_for(self, charge: Charge) -> float:
        """Seconds for which Azure told everybody to stay away; 0 when it did not."""
        at = self._now()
        with self._lock:
            return max(bucket.view(at).closed_for for bucket in self._paying(charge, at))

    def back(
        self,
        ticket: Ticket,
        status: int | None,
        headers: Mapping[str, str],
        retry_after: float | None,
        now: float | None = None,
    ) -> None:
        """Take the ticket back, with what the answer says (`status` None: no answer)."""
        at = self._now() if now is None else now
        told = {
            (found.group(1), bool(found.group(2)), found.group(3)): int(value)
            for name, value in headers.items()
            if (found := _REMAINING.match(name)) and value.strip().isdigit()
        }
        charge = ticket.charge
        scope = "tenant" if charge.within == "tenant" else "subscription"
        own = told.get((scope, False, charge.operation.value))
        over_all = told.get((scope, True, charge.operation.value))
        with self._lock:
            for bucket, passage in ticket.passages:
                if bucket is self._buckets.get(("arm", charge.within, charge.operation.value)):
                    bucket.back(passage, at, own)
                    answered = status is not None and status < 500 and status != 429
                    if answered and own is None and isinstance(bucket, TokenBucket):
                        bucket.without_header()
                elif isinstance(bucket, TokenBucket):
                    bucket.back(passage, at, over_all)
                else:
                    bucket.back(passage, at, None)
            if over_all is not None:
                self._over_all(charge, over_all, at)
            if status == 429 and retry_after is not None:
                self._close(charge, own, at + retry_after, at)
            if charge.graph and headers.get("x-ms-user-quota-remaining", "").strip() == "0":
                seconds = _clock_span(headers.get("x-ms-user-quota-resets-after", ""))
                self._window_of_graph().close(at + seconds)

    def _close(self, charge: Charge, own: int | None, until: float, now: float) -> None:
        if charge.graph:
            self._window_of_graph().close(until)
        elif charge.place.plane is not Plane.ARM:
            self._endpoint(charge).close(until)
        elif own:
            # The subscription's bucket is not empty, so it is the provider that refused; providers
            # throttle for each subscription and region (azure-docs).
            self._provider(charge).close(until)
        else:
            self._arm(charge, now).close(until)

    def _paying(self, charge: Charge, now: float) -> list[Bucket]:
        if charge.graph:
            return [self._window_of_graph()]
        if charge.place.plane is not Plane.ARM:
            return [self._endpoint(charge)]
        buckets: list[Bucket] = [self._arm(charge, now)]
        if charge.provider:
            buckets.append(self._provider(charge))
        shared = self._buckets.get(("global", charge.within, charge.operation.value))
        if shared is not None:
            buckets.append(shared)
        return buckets

    def _arm(self, charge: Charge, now: float) -> Bucket:
        key = ("arm", charge.within, charge.operation.value)
        found = self._buckets.get(key)
        if found is None:
            capacity, per_second = self._documented(charge.operation)
            name = f"{charge.within} {charge.operation.value}"
            found = self._buckets[key] = TokenBucket(name, capacity, per_second, now)
        return found

    def _over_all(self, charge: Charge, remaining: int, now: float) -> None:
        """Keep the bucket of all principals together, once an answer has named it."""
        key = ("global", charge.within, charge.operation.value)
        if key not in self._buckets:
            _, per_second = self._documented(charge.operation)
            name = f"{charge.within} {charge.operation.value}, all principals"
            bucket = TokenBucket(name, remaining + 1.0, _GLOBAL * per_second, now)
            bucket.without_header()
            self._buckets[key] = bucket

    def _documented(self, operation: Operation) -> tuple[float, float]:
        match operation:
            case Operation.READ:
                return self._limits.reads
            case Operation.WRITE:
                return self._limits.writes
            case Operation.DELETE:
                return self._limits.deletes

    def _provider(self, charge: Charge) -> Bucket:
        region = charge.place.region.replace(" ", "").lower()
        key = ("provider", charge.within, charge.provider, region)
        if key not in self._buckets:
            self._buckets[key] = Gate(" ".join(part for part in key[1:] if part))
        return self._buckets[key]

    def _endpoint(self, charge: Charge) -> Bucket:
        # A project shares the limit of its account, and an account has several hosts.
        base = charge.place.base.lower().partition("/api/projects/")[0]
        host = base.partition("//")[2].rstrip("/")
        if charge.place.plane in _OF_ACCOUNTS:
            before, slash, last = host.rpartition("/")
            host = f"{before}{slash}{last.partition('.')[0]}"
        key = ("endpoint", host)
        if key not in self._buckets:
            most = max(1, int(self._limits.endpoint_per_second))
            self._buckets[key] = WindowBucket(f"endpoint {host}", most, 1.0)
        return self._buckets[key]

    def _window_of_graph(self) -> Bucket:
        key = ("graph",)
        if key not in self._buckets:
            self._buckets[key] = WindowBucket("resource graph", _GRAPH_MOST, _GRAPH_WINDOW)
        return self._buckets[key]

    def view(self) -> tuple[BucketView, ...]:
        """Every bucket that was used, for progress and reports."""
        at = self._now()
        with self._lock:
            return tuple(
                bucket.view(at)
                for bucket in self._buckets.values()
                if not isinstance(bucket, Gate) or bucket.view(at).closed_for > 0
            )

    def remaining(self, subscription: str, operation: Operation = Operation.READ) -> int | None:
        """What is left in a subscription's bucket, or None when it was never used."""
        at = self._now()
        with self._lock:
            key = ("arm", subscription.lower() or "tenant", operation.value)
            bucket = self._buckets.get(key)
            return None if bucket is None else bucket.view(at).remaining


def _clock_span(text: str) -> float:
    """Seconds in "hh:mm:ss"; 5 where the text is not that."""
    parts = text.strip().split(":")
    if len(parts) == 3 and all(part.isdigit() for part in parts):
        hours, minutes, seconds = (int(part) for part in parts)
        return hours * 3600.0 + minutes * 60.0 + seconds
    return 5.0
