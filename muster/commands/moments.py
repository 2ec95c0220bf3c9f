"""Moments as people type them: a date, a time, or how long ago."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta

import click

from muster.settings import duration
from snapshots.clock import Clock, SystemClock

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def read_moment(text: str, clock: Clock) -> datetime:
    """Read 2026-11-22 (its end), 2026-11-22T10:00Z, "now", or 2h (ago). Raises ValueError.

    Without a zone a time is UTC.
    """
    words = text.strip()
    if words.lower() == "now":
        return clock.now()
    ago = words.lower().removesuffix(" ago").strip()
    try:
        return clock.now() - duration(ago)
    except ValueError:
        pass
    if _DATE.fullmatch(words):
        day = datetime.fromisoformat(words).date()
        return datetime.combine(day, time.max, UTC).replace(microsecond=0) + timedelta(
            microseconds=999999
        )
    found = datetime.fromisoformat(words)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


class MomentType(click.ParamType[datetime]):
    """A moment on the command line."""

    name = "when"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read what was typed; what is wrong becomes a usage error."""
        if isinstance(value, datetime):
            return value
        try:
            return read_moment(str(value), SystemClock())
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no moment: write 2026-11-22, 2026-11-22T10:00Z or 2h (ago)",
                param,
                ctx,
            )


MOMENT = MomentType()
