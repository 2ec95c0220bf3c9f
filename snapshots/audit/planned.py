"""What is planned: change records and change windows, YAML files under changes/ on the baseline."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from snapshots.audit.documents import Node, read
from snapshots.audit.report_model import Attribution
from snapshots.audit.rules import covers
from snapshots.errors import InputError
from snapshots.kinds.fields import Pattern
from snapshots.ledger import BASELINE, Ledger
from snapshots.model import ChangeType, Json, Key

FOLDER: Final = "changes/"
_RECORD: Final = (
    "id",
    "what",
    "paths",
    "window",
    "from",
    "until",
    "who",
    "ticket",
    "reason",
    "expected",
    "change",
)
_WINDOW: Final = ("name", "kind", "schedule", "duration", "timezone", "what", "who")
_DURATION: Final = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?")


@dataclass(frozen=True, slots=True)
class Target:
    """Which resources something is about: patterns over keys or ids, without case."""

    patterns: tuple[str, ...]  # empty: all

    def holds(self, key: Key, resource_id: str) -> bool:
        """Whether it is about this resource."""
        if not self.patterns:
            return True
        full, id_ = str(key).lower(), resource_id.lower()
        for raw in self.patterns:
            pattern = raw.lower()
            if fnmatch.fnmatchcase(full, pattern) or (id_ and fnmatch.fnmatchcase(id_, pattern)):
                return True
            if "*" in pattern or pattern.startswith("/"):
                continue
            # The end of a key will do: deployment/aoai-prod/chat, aoai-prod/chat.
            kind, _, rest = pattern.partition("/")
            path = "/".join(key.path).lower()
            if kind == key.kind and rest and (path == rest or path.endswith("/" + rest)):
                return True
            if "/" in pattern and path.endswith("/" + pattern):
                return True
        return False


@dataclass(frozen=True, slots=True)
class People:
    """Who is meant: user names, object ids, `appid:…`, `oid:…`."""

    names: tuple[str, ...]

    def holds(self, who: Attribution) -> bool:
        """Whether somebody is among them."""
        mine = {
            who.who.lower(),
            who.principal_id.lower(),
            f"oid:{who.principal_id.lower()}",
            who.app_id.lower(),
            f"appid:{who.app_id.lower()}",
        } - {"", "oid:", "appid:"}
        return any(name.lower() in mine for name in self.names)


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One planned change: what, when, who, and what it should come to."""

    id: str
    what: Target
    where: str  # file and line
    paths: tuple[Pattern, ...] = ()  # empty: any property
    begins: datetime | None = None
    ends: datetime | None = None
    who: People | None = None
    ticket: str = ""
    reason: str = ""
    expected: tuple[tuple[Pattern, Json], ...] = ()
    change: tuple[ChangeType, ...] = ()  # empty: any

    def timely(self, earliest: datetime | None, latest: datetime) -> bool | None:
        """Whether what happened between two moments was in time; None when nobody can tell."""
        if self.begins is None and self.ends is None:
            return True
        begins = self.begins or datetime.min.replace(tzinfo=UTC)
        ends = self.ends or datetime.max.replace(tzinfo=UTC)
        if latest < begins or (earliest is not None and earliest > ends):
            return False
        if earliest is not None and earliest >= begins and latest <= ends:
            return True
        return None


@dataclass(frozen=True, slots=True)
class ChangeWindow:
    """A time that comes again, in which changes are allowed, or denied."""

    name: str
    allow: bool
    schedule: str  # cron, five fields
    duration: timedelta
    zone: ZoneInfo
    what: Target
    where: str
    who: People | None = None

    def open(self, moment: datetime) -> bool:
        """Whether the window is open at a moment."""
        at = moment.astimezone(self.zone)
        start = (moment - self.duration).astimezone(self.zone)
        # The iterator gives what comes after its start: one minute earlier includes the start.
        found = CronSim(self.schedule, start - timedelta(minutes=1))
        for fires in found:
            begins = fires.astimezone(UTC)
            if begins > at.astimezone(UTC):
                return False
            if at.astimezone(UTC) < begins + self.duration:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Plans:
    """Everything that is planned."""

    records: tuple[ChangeRecord, ...] = ()
    windows: tuple[ChangeWindow, ...] = ()

    def about(self, key: Key, resource_id: str) -> tuple[ChangeRecord, ...]:
        """Give the records about a resource."""
        return tuple(r for r in self.records if r.what.holds(key, resource_id))

    def denied(self, key: Key, resource_id: str, moment: datetime) -> ChangeWindow | None:
        """Give a deny window that is open for a resource."""
        return next(
            (
                w
                for w in self.windows
                if not w.allow and w.what.holds(key, resource_id) and w.open(moment)
            ),
            None,
        )

    def allowed(self, key: Key, resource_id: str, moment: datetime) -> tuple[ChangeWindow, ...]:
        """Give the allow windows that are open for a resource."""
        return tuple(w for w in self.allow_windows(key, resource_id) if w.open(moment))

    def allow_windows(self, key: Key, resource_id: str) -> tuple[ChangeWindow, ...]:
        """Give the allow windows that are about a resource, open or not."""
        return tuple(w for w in self.windows if w.allow and w.what.holds(key, resource_id))


def load_plans(ledger: Ledger) -> Plans:
    """Read every changes/*.yaml of the baseline. Raises InputError with file, line and remedy."""
    if not ledger.tip(BASELINE):
        return Plans()
    return parse_plans(ledger.files(BASELINE, FOLDER))


def parse_plans(documents: Iterable[tuple[str, bytes]]) -> Plans:
    """Read change records and windows. Raises InputError with file, line and remedy."""
    records: list[ChangeRecord] = []
    windows: list[ChangeWindow] = []
    for file, data in documents:
        if not file.endswith((".yaml", ".yml")):
            continue
        root = read(file, data)
        if root is None:
            continue
        found, open_ = _document(root)
        records += found
        windows += open_
    seen: dict[str, str] = {}
    for record in records:
        if record.id in seen:
            raise InputError(
                f"two change records are called {record.id!r}",
                where=f"{record.where} and {seen[record.id]}",
                remedy="give each change an id of its own",
            )
        seen[record.id] = record.where
    return Plans(tuple(records), tuple(windows))


def _document(root: Node) -> tuple[list[ChangeRecord], list[ChangeWindow]]:
    import yaml

    if isinstance(root.yaml, yaml.SequenceNode):
        return [_record(item) for item in root.items()], []
    names = {
        str(key.value)
        for key, _ in (root.yaml.value if isinstance(root.yaml, yaml.MappingNode) else ())
    }
    if "changes" not in names and "windows" not in names:
        if "schedule" in names:
            return [], [_window(root)]
        return [_record(root)], []
    top = root.fields(("changes", "windows"))
    records = [_record(item) for item in top["changes"].items()] if "changes" in top else []
    windows = [_window(item) for item in top["windows"].items()] if "windows" in top else []
    return records, windows


def _record(node: Node) -> ChangeRecord:
    found = node.fields(_RECORD, ("id", "what"))
    begins = ends = None
    times = found
    if "window" in found:
        if "from" in found or "until" in found:
            raise found["window"].fail("the window is there twice", "write window: or from/until")
        times = found["window"].fields(("from", "until"), ("from", "until"))
    if "from" in times:
        begins = times["from"].moment()
    if "until" in times:
        ends = times["until"].moment(end=True)
    if begins is not None and ends is not None and ends <= begins:
        raise times["until"].fail("the window ends before it begins", "exchange the two")
    paths = [pattern_of(item) for item in (found["paths"].items() if "paths" in found else ())]
    expected: list[tuple[Pattern, Json]] = []
    for name, value in found["expected"].entries() if "expected" in found else ():
        expected.append((pattern_of(name), value.json()))
    types = tuple(type_.value for type_ in ChangeType if type_ is not ChangeType.UNKNOWN)
    return ChangeRecord(
        id=found["id"].text(),
        what=Target(found["what"].texts()),
        where=node.where,
        paths=tuple(paths),
        begins=begins,
        ends=ends,
        who=People(found["who"].texts()) if "who" in found else None,
        ticket=found["ticket"].text() if "ticket" in found else "",
        reason=found["reason"].text() if "reason" in found else "",
        expected=tuple(expected),
        change=tuple(ChangeType(item.one_of(types)) for item in found["change"].items())
        if "change" in found
        else (),
    )


def _window(node: Node) -> ChangeWindow:
    found = node.fields(_WINDOW, ("name", "kind", "schedule", "duration"))
    schedule = found["schedule"].text()
    if len(schedule.split()) != 5:
        raise found["schedule"].fail(
            f"{schedule!r} is no schedule of five fields", 'write schedule: "0 20 * * 6"'
        )
    zone_name = found["timezone"].text() if "timezone" in found else "UTC"
    try:
        zone = ZoneInfo(zone_name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as wrong:
        raise found["timezone"].fail(
            f"there is no time zone {zone_name!r}", "write one like Europe/Stockholm"
        ) from wrong
    try:
        CronSim(schedule, datetime.now(zone))
    except CronSimError as wrong:
        raise found["schedule"].fail(
            f"{schedule!r} is no schedule: {wrong}", 'write schedule: "0 20 * * 6"'
        ) from wrong
    return ChangeWindow(
        name=found["name"].text(),
        allow=found["kind"].one_of(("allow", "deny")) == "allow",
        schedule=schedule,
        duration=_span(found["duration"]),
        zone=zone,
        what=Target(found["what"].texts() if "what" in found else ()),
        where=node.where,
        who=People(found["who"].texts()) if "who" in found else None,
    )


def pattern_of(node: Node) -> Pattern:
    """Read properties.a.b or /properties/a/b. Raises InputError."""
    return path_pattern(node.text(), node)


def path_pattern(text: str, node: Node | None = None) -> Pattern:
    """Read a field pattern, or an RFC 6901 pointer as one. Raises InputError."""
    if text.startswith("/"):
        tokens = [t.replace("~1", "/").replace("~0", "~") for t in text.split("/")[1:]]
        dotted = ""
        for token in tokens:
            if token.isdigit():
                dotted += "[]"
            else:
                dotted += ("." if dotted else "") + "'" + token.replace("'", "''") + "'"
        text = dotted
    try:
        return Pattern.parse(text)
    except ValueError as wrong:
        if node is None:
            raise InputError(str(wrong), remedy="write properties.list[].field") from wrong
        raise node.fail(str(wrong), "write properties.list[].field") from wrong


def touches(patterns: Sequence[Pattern], pointer: str) -> bool:
    """Whether one of the patterns names a place, or what holds it."""
    parts = pointer.split("/")
    return any(
        covers(pattern, "/".join(parts[:length]))
        for pattern in patterns
        for length in range(2, len(parts) + 1)
    )


def _span(node: Node) -> timedelta:
    match = _DURATION.fullmatch(node.text())
    if match is None or not any(match.groups()):
        raise node.fail(f"{node.text()!r} is no duration", "write 30m, 4h, 1d or 1h30m")
    weeks, days, hours, minutes = (min(int(part or 0), 10**6) for part in match.groups())
    span = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes)
    if not timedelta(0) < span <= timedelta(days=366):
        raise node.fail("a window lasts more than nothing and at most a year", "write 4h")
    return span
