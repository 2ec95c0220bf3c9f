"""How many requests were sent, for what, and how many would have been enough."""

from __future__ import annotations

from collections import Counter
from threading import Lock

from snapshots.model import CallCount


class CallCounter:
    """Counts every request that goes out, tries and polls included, by kind."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._made: Counter[str] = Counter()
        self._expected: Counter[str] = Counter()
        self._throttled = 0
        self._retried = 0

    def expect(self, kind: str, number: int = 1) -> None:
        """Add to the floor: the least number of calls the API allows for what was found."""
        with self._lock:
            self._expected[kind] += number

    def sent(self, kind: str, *, again: bool) -> None:
        """Count a request that is about to leave; `again` for a second or later try."""
        with self._lock:
            self._made[kind] += 1
            self._retried += again

    def throttled(self) -> None:
        """Count an answer 429."""
        with self._lock:
            self._throttled += 1

    def floor(self) -> dict[str, int]:
        """The floor by kind."""
        with self._lock:
            return dict(sorted(self._expected.items()))

    def snapshot(self) -> CallCount:
        """The counts so far."""
        with self._lock:
            return CallCount(
                made=self._made.total(),
                floor=self._expected.total(),
                throttled=self._throttled,
                retried=self._retried,
                by_kind=dict(sorted(self._made.items())),
            )
