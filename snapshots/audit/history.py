"""The life of one resource: every change of it with its author, and who set each property last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Final

from snapshots.audit.archive import Story, load_stories, newest_for
from snapshots.audit.incremental import READ_AT
from snapshots.audit.report_model import Attribution
from snapshots.audit.rules import list_identity
from snapshots.compare import compare
from snapshots.ledger import BASELINE, LIVE, Entry, Ledger
from snapshots.model import (
    Change,
    ChangeType,
    Json,
    Key,
    PathChange,
    Resource,
    Snapshot,
    canonical,
    digest,
)

_EPOCH: Final = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
_NOBODY: Final = Attribution(reasons=("unattributed: no audit looked at this change",))
_FIRST: Final = Attribution(reasons=("it was there already when muster first read it",))


@dataclass(frozen=True, slots=True)
class Step:
    """One change in the life of a resource, as live or the baseline shows it."""

    branch: str  # live, baseline
    commit: str
    at: datetime  # when the state was read, or approved
    change: ChangeType
    paths: tuple[tuple[PathChange, Attribution | None], ...]
    attribution: Attribution
    subject: str  # of the commit
    ticket: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Blame:
    """One property and who set it last."""

    path: str
    value: Json
    attribution: Attribution
    at: datetime  # first read with this value
    commit: str


def history(ledger: Ledger, key: Key) -> tuple[Step, ...]:
    """Give every change of a resource, newest first.

    Those of live come with their author, those of the baseline with who approved them. Nothing for
    a key that never was.
    """
    stories = load_stories(ledger, key).get(key, [])
    steps = [*_live(ledger, key, stories), *_baseline(ledger, key)]
    return tuple(sorted(steps, key=lambda step: (step.at, step.branch), reverse=True))


def blame(ledger: Ledger, key: Key) -> tuple[Blame, ...]:
    """Give each property of a resource as it is in live, with who set it last.

    Raises NotFoundError when live has no such resource.
    """
    resource = ledger.read(LIVE, key)
    steps = [step for step in history(ledger, key) if step.branch == LIVE]
    found: list[Blame] = []
    for path, value in _leaves(resource.body, ""):
        setter = next((s for s in steps if _sets(s, path)), steps[-1] if steps else None)
        if setter is None:  # pragma: no cover - what is in live has a history there
            continue
        own = next(
            (who for change, who in setter.paths if _overlap(change.path, path) and who), None
        )
        found.append(Blame(path, value, own or setter.attribution, setter.at, setter.commit))
    return tuple(found)


def _live(ledger: Ledger, key: Key, stories: Sequence[Story]) -> Iterator[Step]:
    entries = list(ledger.history(key))
    # Two reads within one of Azure's seconds may be noted the wrong way round: commits are not.
    order = list(accumulate((_read_at(entry) for entry, _ in reversed(entries)), _later))[::-1]
    for index, (entry, resource) in enumerate(entries):
        older = entries[index + 1][1] if index + 1 < len(entries) else None
        at = order[index]
        for change in compare(_alone(key, older), _alone(key, resource), list_identity, ids=True):
            story = _story_of(stories, change, at)
            who = story.attribution if story is not None else _NOBODY
            if story is None and older is None and not entry.parents:
                who = _FIRST
            yield Step(
                LIVE,
                entry.commit,
                at,
                change.type,
                tuple((path, _author(story, path)) for path in change.paths),
                who,
                entry.subject,
            )


def _baseline(ledger: Ledger, key: Key) -> Iterator[Step]:
    entries = list(ledger.history(key, ref=BASELINE))
    for index, (entry, resource) in enumerate(entries):
        older = entries[index + 1][1] if index + 1 < len(entries) else None
        for change in compare(_alone(key, older), _alone(key, resource), list_identity, ids=True):
            yield Step(
                BASELINE,
                entry.commit,
                entry.when,
                change.type,
                tuple((path, None) for path in change.paths),
                Attribution(who=entry.trailers.get("Approved-By", entry.author), when=entry.when),
                entry.subject,
                entry.trailers.get("Ticket", ""),
                entry.trailers.get("Reason", ""),
            )


def _story_of(stories: Sequence[Story], change: Change, at: datetime) -> Story | None:
    """Give the story of a change of live: the same properties, brought to that, at that time."""
    names = {path.path for path in change.paths}
    fitting = [
        story
        for story in stories
        if story.change is change.type
        and (change.type is not ChangeType.CHANGED or {p.change.path for p in story.paths} == names)
    ]
    after = "" if change.after is None else digest(canonical(change.after.body))
    same = [story for story in fitting if story.body_digest == after]
    return min(same or fitting, key=lambda s: abs((s.until - at).total_seconds()), default=None)


def _author(story: Story | None, path: PathChange) -> Attribution | None:
    if story is None:
        return None
    told = newest_for([story], path)
    return told[1] if told is not None else None


def _sets(step: Step, path: str) -> bool:
    return step.change is not ChangeType.CHANGED or any(
        _overlap(change.path, path) for change, _ in step.paths
    )


def _overlap(one: str, two: str) -> bool:
    return one == two or one.startswith(two + "/") or two.startswith(one + "/")


def _leaves(value: Json, at: str) -> Iterator[tuple[str, Json]]:
    if isinstance(value, dict) and value:
        for name in sorted(value):
            token = name.replace("~", "~0").replace("/", "~1")
            yield from _leaves(value[name], f"{at}/{token}")
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(item, f"{at}/{index}")
    else:
        yield at, value


def _read_at(entry: Entry) -> datetime:
    try:
        return datetime.fromisoformat(entry.trailers.get(READ_AT, ""))
    except ValueError:
        return entry.taken_at


def _later(before: datetime, at: datetime) -> datetime:
    return max(at, before + timedelta(microseconds=1))


def _alone(key: Key, resource: Resource | None) -> Snapshot:
    return Snapshot("", _EPOCH, "", {} if resource is None else {key: resource})
