"""What every part of the site reads with: stores that may fail, documents that may be damaged."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import orjson

from muster.report import audit_words as words
from muster.report.site_model import Level, Problem, Source, see
from snapshots.errors import MusterError
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Comeback
from snapshots.ledger import Ledger
from snapshots.model import Json, JsonObject, Key, Recovery, Resource, Snapshot
from snapshots.vault import Vault

BACK = (Recovery.RESTORED, Recovery.RECREATED, Recovery.COPIED, Recovery.REBUILT)


_T = TypeVar("_T")


POINTS = 90  # of a chart


@dataclass(frozen=True, slots=True)
class Promises:
    """What was promised, and the pairs that are configured."""

    rto: timedelta | None = None
    rpo: timedelta | None = None
    pairs: tuple[tuple[str, str], ...] = ()  # primary, standby
    threads_read: bool = True  # whether conversations are looked at


@dataclass(slots=True)
class Reading:
    """What is read once and used by several pages, and what could not be read."""

    ledger: Ledger | None
    vault: Vault | None
    now: datetime
    promises: Promises
    troubles: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    sources: dict[str, Source] = field(default_factory=dict)

    def attempt(self, what: str, work: Callable[[], _T], instead: _T) -> _T:
        """Do it; what cannot be read is told and never taken for absent."""
        try:
            return work()
        except MusterError as error:
            self.troubles.append(see(f"{what}: {error.what}" + _at(error)))
            return instead

    def source(
        self, kind: str, name: str, ref: str, at: datetime | None, command: str = ""
    ) -> Source:
        """Note where figures come from."""
        anchor = "s-" + re.sub(r"[^a-z0-9]+", "-", f"{kind}-{ref or name}".lower()).strip("-")[:80]
        found = Source(anchor, see(name, 200), see(ref, 200), at, see(command, 300))
        return self.sources.setdefault(anchor, found)

    def problem(
        self, level: Level, text: str, page: str, remedy: str = "", weight: int = 0
    ) -> None:
        """Note something that needs a person."""
        self.problems.append(Problem(level, see(text), page, see(remedy), weight))

    def tip(self, branch: str) -> str:
        """Give where a branch stands, "" when there is no ledger or no branch."""
        return self.ledger.tip(branch) if self.ledger is not None else ""


def _at(error: MusterError) -> str:
    return f" ({error.where})" if error.where else ""


def comeback_of(resource: Resource) -> Comeback:
    """Say how a resource comes back; one of an unknown kind is only recorded."""
    kind = BY_NAME.get(resource.key.kind)
    if kind is None:
        return Comeback(Recovery.RECORDED, "a kind this version does not know", "")
    return kind.recovery(resource)


def everything_of(state: Snapshot) -> dict[Key, tuple[Resource, bool]]:
    """Give all resources, and whether each was not read now."""
    return {
        **{key: (r, False) for key, r in state.resources.items()},
        **{key: (r, True) for key, r in state.stale.items()},
    }


def size(count: int) -> str:
    """Write a number of bytes for people."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def json_files(reading: Reading, branch: str, prefix: str) -> list[tuple[str, JsonObject]]:
    """Give the JSON documents below a folder of a branch; damaged ones are troubles."""
    ledger = reading.ledger
    if ledger is None or not ledger.tip(branch):
        return []
    nothing: list[tuple[str, bytes]] = []
    files = reading.attempt(
        f"{branch}:{prefix}", lambda: list(ledger.files(branch, prefix)), nothing
    )
    found: list[tuple[str, JsonObject]] = []
    for path, content in files:
        if not path.endswith(".json"):
            continue
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError:
            document = None
        if isinstance(document, dict):
            found.append((path, document))
        else:
            reading.troubles.append(see(f"{branch}:{path} is no JSON object"))
    return found


def text_of(document: Mapping[str, Json], name: str) -> str:
    """Give a text of a document, "" where there is none."""
    value = document.get(name)
    return see(value) if isinstance(value, str) else ""


def number_of(document: Mapping[str, Json], name: str) -> float | None:
    """Give a number of a document, None where there is none."""
    value = document.get(name)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def rows_of(document: Mapping[str, Json], name: str) -> list[JsonObject]:
    """Give the objects of a list."""
    value = document.get(name)
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def texts_of(document: Mapping[str, Json], name: str) -> tuple[str, ...]:
    """Give the texts of a list."""
    value = document.get(name)
    return tuple(see(v) for v in value) if isinstance(value, list) else ()


def time_of(value: Json) -> datetime | None:
    """Read a time as documents write it; None where it is none."""
    if not isinstance(value, str) or not value:
        return None
    try:
        found = datetime.fromisoformat(value)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def time_in(text: str) -> datetime | None:
    """Read the time that an id begins with: 20261122T101500Z."""
    try:
        return datetime.strptime(text[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def see_lines(text: object, limit: int = 20_000) -> str:
    """Make a text of several lines printable and of bounded length."""
    return words.cut(words.visible(str(text), lines=True), limit)
