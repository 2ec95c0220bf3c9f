"""The sandbox's own clock: it can be frozen, advanced and scaled, and survives a restart."""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SandboxClock:
    """Time as the sandbox tells it.

    `scale` is how many sandbox seconds pass in one real second. The clock never runs backwards.
    """

    __slots__ = ("_anchor_real", "_anchor_time", "frozen", "scale")

    def __init__(self, start: float | None = None, scale: float = 1.0) -> None:
        self._anchor_real = time.monotonic()
        self._anchor_time = time.time() if start is None else start
        self.scale = scale
        self.frozen = False

    def timestamp(self) -> float:
        """Seconds since 1970, UTC."""
        if self.frozen:
            return self._anchor_time
        return self._anchor_time + (time.monotonic() - self._anchor_real) * self.scale

    def now(self) -> datetime:
        """The time as an aware datetime, UTC."""
        return datetime.fromtimestamp(self.timestamp(), UTC)

    def _settle(self) -> None:
        self._anchor_time = self.timestamp()
        self._anchor_real = time.monotonic()

    def freeze(self) -> None:
        """Stop the clock where it is."""
        self._settle()
        self.frozen = True

    def resume(self) -> None:
        """Let a frozen clock run on."""
        self._settle()
        self.frozen = False

    def put(self, moment: float, *, scale: float, frozen: bool) -> None:
        """Begin again at a moment (seconds since 1970): another world, which has its own time."""
        self._anchor_time, self._anchor_real = moment, time.monotonic()
        self.scale, self.frozen = scale, frozen

    def advance(self, seconds: float) -> None:
        """Move the clock forward. Raises ValueError for a negative number."""
        if seconds < 0:
            message = "the sandbox's clock does not run backwards"
            raise ValueError(message)
        self._settle()
        self._anchor_time += seconds

    def set_scale(self, scale: float) -> None:
        """Change how fast time passes. Raises ValueError unless positive."""
        if scale <= 0:
            message = "the time scale must be positive"
            raise ValueError(message)
        self._settle()
        self.scale = scale


def wire_time(moment: datetime, *, fraction: int = 7) -> str:
    """A time as ARM writes it: `2025-10-28T14:48:25.3936328Z` (7 digits), or whole seconds (0)."""
    moment = moment.astimezone(UTC)
    whole = moment.strftime("%Y-%m-%dT%H:%M:%S")
    if not fraction:
        return whole + "Z"
    digits = f"{moment.microsecond:06d}0000000"[:fraction]
    return f"{whole}.{digits}Z"


def parse_time(text: str) -> datetime:
    """Read a wire time back. Raises ValueError when it is none."""
    text = text.strip().replace("Z", "+00:00")
    head, dot, tail = text.partition(".")
    if dot:
        digits = ""
        while tail and tail[0].isdigit():
            digits, tail = digits + tail[0], tail[1:]
        text = f"{head}.{digits[:6]:0<6}{tail}"
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
