"""What audits remember on the ledger's evidence branch: stories, the state of reading, decisions.

Azure forgets resource changes after 14 days and the Activity Log after 90: what was learned of a
change is kept here as its story.

    audits/state.json            how far the estate and the log were read
    audits/latest.json           the newest report; its history is the history of audits
    stories/<key>/<when>.json    one change of live state, who made it, and the records of it
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import orjson

from snapshots.audit.report_model import Attribution, Confidence, PrincipalKind
from snapshots.audit.texts import sound_document
from snapshots.errors import DamagedStoreError
from snapshots.ledger import EVIDENCE, Ledger
from snapshots.model import MISSING, ChangeType, Json, JsonObject, Key, Missing, PathChange, pretty

STATE = "audits/state.json"
LATEST = "audits/latest.json"
STORIES = "stories/"


@dataclass(frozen=True, slots=True)
class StoryPath:
    """One property of a story, and who changed it where the sources told."""

    change: PathChange
    attribution: Attribution | None = None


@dataclass(frozen=True, slots=True)
class Story:
    """One change of live state between two reads, and who made it."""

    key: Key
    change: ChangeType
    after: datetime | None  # last read as it was before
    until: datetime  # first read as it is
    paths: tuple[StoryPath, ...]
    attribution: Attribution
    events: tuple[JsonObject, ...] = ()  # what is kept of Azure's records
    resource_id: str = ""
    settled: bool = True  # no record can come any more
    body_digest: str = ""  # of the body as it was from then on, "" when it was removed

    @property
    def file(self) -> str:
        """Where the evidence branch keeps it."""
        return f"{folder_of(self.key)}{self.until.astimezone(UTC):%Y%m%dT%H%M%S%f}.json"

    @property
    def open(self) -> bool:
        """Whether a later look at the records may tell more."""
        told = self.attribution
        weak = told.confidence is not Confidence.HIGH or not told.complete
        missing = any(
            p.attribution is None or p.attribution.confidence is Confidence.NONE for p in self.paths
        )
        return not self.settled and (weak or missing)


@dataclass(frozen=True, slots=True)
class State:
    """How far the estate and the Activity Log were read."""

    live: str = ""  # the commit this is about
    swept_at: datetime | None = None  # Azure's clock: the last time everything was read
    base_at: datetime | None = None  # the full read that incremental reads build on
    read_at: Mapping[str, datetime] = field(default_factory=dict)  # account key -> last read
    seen: frozenset[str] = frozenset()  # recent events that led to a read already
    version: str = ""
    records: Mapping[str, int] = field(default_factory=dict)  # muster's own, with bytes looked at
    owed: frozenset[str] = frozenset()  # accounts muster wrote to, and did not read since

    def read_of(self, top: str) -> datetime | None:
        """Give when an account, or what else a subscription lists, was last read with all in it."""
        return self.read_at.get(top, self.swept_at)

    def document(self) -> JsonObject:
        """Give it as JSON."""
        return {
            "schema": "muster/audit-state/1",
            "live": self.live,
            "swept_at": _iso(self.swept_at),
            "base_at": _iso(self.base_at),
            "read_at": {key: _iso(at) for key, at in sorted(self.read_at.items())},
            "seen": [*sorted(self.seen)],
            "version": self.version,
            "records": dict(sorted(self.records.items())),
            "owed": [*sorted(self.owed)],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> State:
        """Read back what `document()` wrote; what is damaged is as if it were not there."""
        read_at, seen = document.get("read_at"), document.get("seen")
        records, owed = document.get("records"), document.get("owed")
        times = {
            key: found
            for key, at in (read_at.items() if isinstance(read_at, dict) else ())
            if (found := _time(at)) is not None
        }
        return cls(
            str(document.get("live") or ""),
            _time(document.get("swept_at")),
            _time(document.get("base_at")),
            times,
            frozenset(str(s) for s in seen) if isinstance(seen, list) else frozenset(),
            str(document.get("version") or ""),
            {id_: size for id_, size in records.items() if isinstance(size, int)}
            if isinstance(records, dict)
            else {},
            frozenset(str(path) for path in owed) if isinstance(owed, list) else frozenset(),
        )


def load_state(ledger: Ledger) -> State:
    """Give the state of reading; an empty one when there is none."""
    document = _read(ledger, STATE)
    return State.from_document(document) if document is not None else State()


def load_latest(ledger: Ledger) -> JsonObject | None:
    """Give the newest report as JSON, None when there was no audit yet."""
    return _read(ledger, LATEST)


def load_stories(ledger: Ledger, key: Key | None = None) -> dict[Key, list[Story]]:
    """Give the stories of all keys, or of one, oldest first."""
    found: dict[Key, list[Story]] = {}
    if not ledger.tip(EVIDENCE):
        return found
    for path, content in ledger.files(EVIDENCE, folder_of(key) if key else STORIES):
        story = story_in(path, content)
        if key is None or story.key == key:
            found.setdefault(story.key, []).append(story)
    for stories in found.values():
        stories.sort(key=lambda story: story.until)
    return found


def folder_of(key: Key) -> str:
    """Give the folder of a key's stories: a hash, since a path in the ledger is short."""
    return f"{STORIES}{hashlib.sha256(str(key).encode()).hexdigest()[:16]}/"


def keep(
    ledger: Ledger,
    state: State,
    stories: Iterable[Story],
    report: JsonObject | None,
    message: str,
    trailers: Mapping[str, str],
) -> str:
    """Keep what an audit learned, as one commit on the evidence branch; give the commit."""
    files: dict[str, bytes | None] = {STATE: pretty(sound_document(state.document()))}
    for story in stories:
        files[story.file] = pretty(sound_document(story_document(story)))
    if report is not None:
        files[LATEST] = pretty(report)
    return ledger.put(EVIDENCE, files, message, trailers)


# ------------------------------------------------------------------------------- documents


def story_document(story: Story) -> JsonObject:
    """Give a story as JSON."""
    return {
        "schema": "muster/story/1",
        "key": str(story.key),
        "change": story.change.value,
        "after": _iso(story.after),
        "until": _iso(story.until),
        "resource_id": story.resource_id,
        "settled": story.settled,
        "body_digest": story.body_digest,
        "paths": [
            {
                **path_document(path.change),
                "attribution": None
                if path.attribution is None
                else attribution_document(path.attribution),
            }
            for path in story.paths
        ],
        "attribution": attribution_document(story.attribution),
        "events": list(story.events),
    }


def story_in(path: str, content: bytes) -> Story:
    """Read a story. Raises DamagedStoreError."""
    try:
        document = orjson.loads(content)
        until = _time(document["until"])
        if until is None:
            raise ValueError("it says no time")  # noqa: TRY301 - one place says what is hurt
        return Story(
            Key.parse(document["key"]),
            ChangeType(document["change"]),
            _time(document.get("after")),
            until,
            tuple(
                StoryPath(
                    path_in(entry),
                    attribution_in(entry["attribution"]) if entry.get("attribution") else None,
                )
                for entry in document["paths"]
            ),
            attribution_in(document["attribution"]),
            tuple(document.get("events", ())),
            str(document.get("resource_id") or ""),
            bool(document.get("settled", True)),
            str(document.get("body_digest") or ""),
        )
    except (KeyError, TypeError, ValueError) as wrong:
        raise DamagedStoreError(
            f"{path} on the evidence branch cannot be read: {wrong}",
            remedy="run `muster verify`; evidence is not meant to be edited",
        ) from wrong


def path_document(change: PathChange) -> JsonObject:
    """Give a property's change; what is not there has no `before` or `after`."""
    document: JsonObject = {"path": change.path}
    if not isinstance(change.before, Missing):
        document["before"] = change.before
    if not isinstance(change.after, Missing):
        document["after"] = change.after
    return document


def path_in(document: Mapping[str, Json]) -> PathChange:
    """Read back what `path_document` wrote."""
    return PathChange(
        str(document["path"]), document.get("before", MISSING), document.get("after", MISSING)
    )


def attribution_document(found: Attribution) -> JsonObject:
    """Give an attribution as JSON; what is not known is null."""
    return {
        "who": found.who or None,
        "principal_kind": found.principal_kind.value,
        "principal_id": found.principal_id or None,
        "app_id": found.app_id or None,
        "client": found.client or None,
        "address": found.address or None,
        "when": _iso(found.when),
        "operation": found.operation or None,
        "correlation_id": found.correlation_id or None,
        "events": list(found.events),
        "confidence": found.confidence.value,
        "reasons": list(found.reasons),
    }


def attribution_in(document: Mapping[str, Json]) -> Attribution:
    """Read back what `attribution_document` wrote. Raises ValueError."""

    def text(name: str) -> str:
        return str(document.get(name) or "")

    events, reasons = document.get("events"), document.get("reasons")
    return Attribution(
        who=text("who"),
        principal_kind=PrincipalKind(text("principal_kind") or "unknown"),
        principal_id=text("principal_id"),
        app_id=text("app_id"),
        client=text("client"),
        address=text("address"),
        when=_time(document.get("when")),
        operation=text("operation"),
        correlation_id=text("correlation_id"),
        events=tuple(str(e) for e in events) if isinstance(events, list) else (),
        confidence=Confidence(text("confidence") or "none"),
        reasons=tuple(str(r) for r in reasons) if isinstance(reasons, list) else (),
    )


def newest_for(
    stories: Sequence[Story], path: PathChange
) -> tuple[Story, Attribution | None] | None:
    """Give the story that brought a property to what it is, and who that was.

    A resource that was made anew has every property from that moment.
    """
    for story in reversed(stories):
        if story.change is ChangeType.ADDED:
            return story, None
        for step in story.paths:
            mine, theirs = step.change.path, path.path
            if mine == theirs or mine.startswith(theirs + "/") or theirs.startswith(mine + "/"):
                return story, step.attribution
    return None


def _read(ledger: Ledger, path: str) -> JsonObject | None:
    if not ledger.tip(EVIDENCE):
        return None
    for name, content in ledger.files(EVIDENCE, path):
        if name == path:
            try:
                document = orjson.loads(content)
            except orjson.JSONDecodeError:
                return None
            return document if isinstance(document, dict) else None
    return None


def _iso(when: datetime | None) -> str | None:
    return None if when is None else when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _time(text: Json) -> datetime | None:
    if not isinstance(text, str) or not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
