"""The clock everybody asks, so that a test can own time."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """now and sleep."""

    def now(self) -> datetime:
        """Tell the moment, aware, in UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Come back after that many seconds (at once for zero or less)."""
        ...


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """Tell the moment, aware, in UTC."""
        return datetime.now(UTC)

    def sleep(self, seconds: float) -> None:
        """Come back after that many seconds (at once for zero or less)."""
        if seconds > 0:
            time.sleep(seconds)
