"""The nouns of the ledger: what a commit says, what was kept, pushed, pruned or found damaged."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

LIVE, BASELINE, EVIDENCE = "live", "baseline", "evidence"

_ID_TIME = re.compile(r"([0-9]{8}T[0-9]{6})([0-9]{3})Z-")
_TRAILER = re.compile(r"([A-Za-z][A-Za-z0-9-]*): (.*)")


@dataclass(frozen=True, slots=True)
class Entry:
    """One commit of the ledger and what its trailers say."""

    commit: str  # 40 hexadecimal digits
    tree: str
    parents: tuple[str, ...]
    when: datetime  # aware, UTC: the commit's own time
    author: str
    subject: str
    message: str
    trailers: Mapping[str, str] = field(default_factory=dict)

    @property
    def snapshot(self) -> str:
        """The snapshot's id; empty on a commit that keeps none."""
        return self.trailers.get("Snapshot-Id", "")

    @property
    def taken_at(self) -> datetime:
        """When the state was read: the trailer Taken-At, or the commit's time."""
        try:
            taken = datetime.fromisoformat(self.trailers.get("Taken-At", ""))
        except ValueError:
            return self.when
        return taken.astimezone(UTC) if taken.tzinfo else taken.replace(tzinfo=UTC)

    @property
    def kept_at(self) -> datetime:
        """When it was written, to the microsecond: Git's own times are whole seconds.

        Commits without the trailer Kept-At have the milliseconds of their snapshot id, others
        their second.
        """
        try:
            kept = datetime.fromisoformat(self.trailers.get("Kept-At", ""))
        except ValueError:
            found = _ID_TIME.match(self.snapshot)
            if not found:
                return self.when
            kept = datetime.strptime(f"{found[1]}.{found[2]}+0000", "%Y%m%dT%H%M%S.%f%z")
        return kept.astimezone(UTC) if kept.tzinfo else kept.replace(tzinfo=UTC)

    def number(self, trailer: str) -> float:
        """Give a trailer's number (`3`, `12.5`, `7.2 s`), 0 when it has none."""
        found = re.match(r"[0-9]+(?:\.[0-9]+)?", self.trailers.get(trailer, ""))
        return float(found.group()) if found else 0.0


def trailers_of(message: str) -> dict[str, str]:
    """Give the trailers of a commit message: the last paragraph, when it holds nothing else."""
    last = message.rstrip("\n").rsplit("\n\n", 1)
    if len(last) < 2:
        return {}
    found = [_TRAILER.fullmatch(line) for line in last[1].split("\n")]
    return {line.group(1): line.group(2).strip() for line in found if line}


def message_of(subject: str, trailers: Mapping[str, str]) -> str:
    """Give a commit message: the text, an empty line, a trailer a line."""
    text = subject.strip().replace("\0", "") or "muster"
    lines = [f"{name}: {' '.join(value.split())}" for name, value in trailers.items()]
    return "\n\n".join([text, "\n".join(lines)] if lines else [text]) + "\n"


@dataclass(frozen=True, slots=True)
class Pushed:
    """What came of sending the branches to the remote. Falsy when something did not arrive."""

    refs: tuple[str, ...] = ()  # what was sent
    warning: str = ""  # why something was not, without any secret; the next commit tries again

    def __bool__(self) -> bool:
        return not self.warning


@dataclass(frozen=True, slots=True)
class Kept:
    """What keeping a snapshot did."""

    commit: str
    tree: str
    snapshot: str  # the Snapshot-Id
    written: int  # documents that are new or changed
    removed: int
    unchanged: int
    stale: int  # documents that stay because a gap hides them
    seconds: float
    pushed: Pushed | None = None  # None without a remote


@dataclass(frozen=True, slots=True)
class Damage:
    """Something in the ledger that is missing, changed or not what it should be."""

    what: str
    object: str = ""  # the id of the damaged object, when one is known
    path: str = ""
    commits: tuple[str, ...] = ()  # the commits it hurts
    snapshots: tuple[str, ...] = ()  # the same as snapshot ids, where they have one


@dataclass(frozen=True, slots=True)
class Retention:
    """How many snapshots to keep: the newest of each hour, day, week and month (UTC)."""

    hourly: int = 48
    daily: int = 31
    weekly: int = 26
    monthly: int = 60


@dataclass(frozen=True, slots=True)
class Decision:
    """One snapshot of a prune plan, and why it is kept or dropped."""

    entry: Entry
    keep: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What retention keeps and drops, newest first; `applied` tells whether it was done."""

    decisions: tuple[Decision, ...]
    applied: bool = False
    commits: Mapping[str, str] = field(default_factory=dict)  # old commit -> new commit

    @property
    def kept(self) -> tuple[Decision, ...]:
        """What stays."""
        return tuple(decision for decision in self.decisions if decision.keep)

    @property
    def dropped(self) -> tuple[Decision, ...]:
        """What goes."""
        return tuple(decision for decision in self.decisions if not decision.keep)
