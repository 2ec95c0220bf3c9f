"""A log of runs for machines: one JSON object a line, off unless MUSTER_LOG says where.

MUSTER_LOG is a file that lines are added to, or "stderr". Every line has `time` (UTC), `severity`,
`event`, `run` (the same for all lines of one run), `command`, and what belongs to the event. What
looks like a secret is taken out before it is written; a log that cannot be written is a warning,
once, and stops nothing.
"""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from snapshots.model import Json, canonical

SEVERITIES: Final = ("DEBUG", "INFO", "WARN", "ERROR")  # OpenTelemetry's names


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class RunLog:
    """Where the events of one run go: nowhere, a file, or stderr."""

    target: str = ""  # MUSTER_LOG
    scrub: Callable[[str], str] = str
    now: Callable[[], datetime] = _now
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    command: str = ""
    trouble: str = ""  # why it could not be written, once it could not

    def write(
        self, event: str, facts: Mapping[str, Json] | None = None, *, severity: str = "INFO"
    ) -> None:
        """Add one line, whole or not at all."""
        if not self.target or self.trouble:
            return
        line = (
            canonical(
                {
                    **self._clean(facts or {}),
                    "time": self.now().isoformat(timespec="milliseconds"),
                    "severity": severity,
                    "event": event,
                    "run": self.run,
                    "command": self.command,
                }
            )
            + b"\n"
        )
        try:
            if self.target == "stderr":
                sys.stderr.write(line.decode())
                sys.stderr.flush()
            else:
                # One write to a file opened for appending: runs at the same time do not mix lines.
                with Path(self.target).open("ab", buffering=0) as stream:
                    stream.write(line)
        except OSError as error:
            self.trouble = (error.strerror or type(error).__name__).lower()

    def _clean(self, facts: Mapping[str, Json]) -> dict[str, Json]:
        return {name: self._cleaned(value) for name, value in facts.items()}

    def _cleaned(self, value: Json) -> Json:
        match value:
            case str():
                # A lone surrogate is no UTF-8; a log must take every text.
                return self.scrub(value).encode("utf-8", "replace").decode()
            case list():
                return [self._cleaned(item) for item in value]
            case dict():
                return self._clean(value)
            case _:
                return value
