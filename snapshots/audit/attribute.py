"""Say who made a change: join it with Azure's records by resource, time and correlation id."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Final, assert_never

import orjson

from snapshots.audit.records import (
    LAG,
    SKEW,
    Act,
    Records,
    ResourceChange,
    client_name,
    principal_id,
    principal_kind,
)
from snapshots.audit.report_model import Attribution, Confidence, PrincipalKind
from snapshots.cloud.place import Plane
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Kind
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    canonical,
)
from snapshots.secrets import Fingerprints

# Kinds of which Resource Graph keeps changes: top-level resources only (supported-tables-resources
# lists accounts; deployments, content filters, projects and connections are not there).
COVERED: Final = frozenset({"account"})
_PLATFORM_KINDS: Final = {
    "User": PrincipalKind.USER,
    "Application": PrincipalKind.SERVICE_PRINCIPAL,
    "ManagedIdentity": PrincipalKind.MANAGED_IDENTITY,
}
# What Azure writes into an account when one of its projects comes or goes.
OF_PROJECTS: Final = ("/properties/associatedProjects", "/properties/defaultProject")
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
_STEP: Final = re.compile(r"\[(\d+)\]|([^.\[\]]+)")


class _Near(IntEnum):
    """How near an act is to a resource."""

    ABOVE = 1  # what holds the resource was deleted
    INSIDE = 2  # a part that we keep within the resource: an item of a blocklist
    TAGS = 3  # its tags, written at their own place
    SAME = 4


@dataclass(frozen=True, slots=True)
class Window:
    """When a change must have happened: after it was last seen as before, until it was seen."""

    after: datetime | None  # None: nobody knows
    until: datetime

    def may_hold(self, begun: datetime, ended: datetime) -> bool:
        """Whether something between `begun` and `ended` can have caused the change."""
        return (self.after is None or ended >= self.after - SKEW) and begun <= self.until + SKEW


@dataclass(frozen=True, slots=True)
class Told:
    """Who made a change, as a whole and for each property where the sources tell."""

    whole: Attribution
    paths: Mapping[str, Attribution]
    acts: tuple[Act, ...] = ()  # everything that may have had a part in it
    settled: bool = True  # whether a later record could still tell more


@dataclass(frozen=True, slots=True)
class _Candidate:
    act: Act
    near: _Near


def attribute(
    change: Change,
    window: Window,
    records: Records,
    acts: Sequence[Act],
    *,
    now: datetime,
    fingerprints: Fingerprints | None = None,
) -> Told:
    """Join one change with the records; honest when they do not tell.

    `acts` are those of `records`, grouped once. Failed acts changed nothing and are left out.
    """
    kind = BY_NAME.get(change.key.kind)
    ids = _ids(change)
    candidates = [
        _Candidate(act, near)
        for act in acts
        if act.outcome != "failed"
        and window.may_hold(act.begun, act.ended)
        and (near := _near(act, ids, kind)) is not None
        and (near is not _Near.ABOVE or change.type is ChangeType.REMOVED)
    ]
    rows = [
        row
        for row in records.changes.values()
        if row.resource in ids and window.may_hold(row.at, row.at)
    ]
    projects = [
        act
        for act in acts
        if act.outcome != "failed"
        and window.may_hold(act.begun, act.ended)
        and change.key.kind == "account"
        and act.resource.rpartition("/")[0] in {f"{id_}/projects" for id_ in ids}
    ]
    settled = now >= window.until + LAG
    told = (*(candidate.act for candidate in candidates), *projects)
    whole: Attribution | None = None
    paths: dict[str, Attribution] = {}
    match change.type:
        case ChangeType.REMOVED:
            whole = _removal(candidates, rows)
        case ChangeType.ADDED:
            whole = _creation(candidates, rows)
            if (other := _later_hand(candidates, rows, whole)) is not None:
                paths = {"": other}
        case ChangeType.CHANGED:
            paths = _by_path(change, kind, candidates, rows, fingerprints, projects)
            whole = _together(paths)
        case ChangeType.UNKNOWN:
            pass
        case _:
            assert_never(change.type)
    if whole is None:
        return Told(
            Attribution(reasons=_why_not(change, kind, window, records, settled=settled)),
            paths,
            told,
            settled,
        )
    # Resource Graph is early and never tells the address: the Activity Log's record may follow.
    certain = whole.confidence is Confidence.HIGH and whole.complete
    return Told(whole, paths, told, settled or certain)


# ------------------------------------------------------------------------------- candidates


def _ids(change: Change) -> frozenset[str]:
    found: set[str] = set()
    for resource in (change.before, change.after):
        if resource is not None:
            found.add(arm_id(change.key, resource.id).rstrip("/"))
    return frozenset(found - {""})


def arm_id(key: Key, id_: str) -> str:
    """Give a resource's ARM id in lower case.

    What lives in a data plane has none: its id is made up from the account and project that hold
    it, so that their deletion is found. "" for what no account holds.
    """
    if id_.startswith("/"):
        return id_.lower()
    kind = BY_NAME.get(key.kind)
    if kind is None or kind.plane is Plane.ARM or len(key.path) < 4:
        return ""
    subscription, group, account = key.path[:3]
    place = (
        f"/subscriptions/{subscription}/resourcegroups/{group}/providers/"
        f"microsoft.cognitiveservices/accounts/{account}"
    )
    if kind.parent == "project" and len(key.path) > 4:
        place += f"/projects/{key.path[3]}"
    # No write of the control plane has such a name: only what is above can be meant.
    return f"{place}/:data:/{key.kind}".lower()


def _near(act: Act, ids: frozenset[str], kind: Kind | None) -> _Near | None:
    if act.resource in ids:
        return _Near.TAGS if act.tags else _Near.SAME
    for id_ in ids:
        if act.resource.startswith(id_ + "/") and kind is not None:
            rest = act.resource[len(id_) :]
            for fold in kind.folds:
                below = fold.location.path.removeprefix("{id}").lower()
                if below.startswith("/") and (rest + "/").startswith(below + "/"):
                    return _Near.INSIDE
        if act.deletes and id_.startswith(act.resource + "/"):
            return _Near.ABOVE
    return None


def _removal(
    candidates: Sequence[_Candidate], rows: Sequence[ResourceChange]
) -> Attribution | None:
    deletes = [c for c in candidates if c.act.deletes and c.near is not _Near.INSIDE]
    own = [c for c in deletes if c.near is _Near.SAME]
    if own:
        act = own[-1].act
        return _of(act, rows, _sure(act), ("it is the delete of this resource",))
    if deletes:
        # The one above that was nearest: an account rather than its group.
        act = max(deletes, key=lambda c: (len(c.act.resource), c.act.ended)).act
        reason = f"it went with what held it: {act.resource.rsplit('/', 1)[-1]} was deleted"
        return _of(act, rows, _at_most(_sure(act), Confidence.MEDIUM), (reason,))
    for row in rows:
        if row.type == "Delete":
            return _of_row(row, ("Resource Graph recorded the deletion",))
    return None


def _creation(
    candidates: Sequence[_Candidate], rows: Sequence[ResourceChange]
) -> Attribution | None:
    writes = [c.act for c in candidates if c.near is _Near.SAME and not c.act.deletes]
    lasting = writes
    for candidate in candidates:
        if candidate.near is _Near.SAME and candidate.act.deletes:
            later = [act for act in writes if act.begun > candidate.act.ended]
            lasting = later or lasting
    made = [act for act in lasting if not act.acts] or lasting
    if made:
        act = made[0]
        reason = (
            "it is the only write of this resource in that time"
            if len(writes) == 1
            else "it is the first write of this resource in that time"
        )
        return _of(act, rows, _sure(act), (reason,))
    for row in rows:
        if row.type == "Create":
            return _of_row(row, ("Resource Graph recorded the creation",))
    return None


def _later_hand(
    candidates: Sequence[_Candidate], rows: Sequence[ResourceChange], maker: Attribution | None
) -> Attribution | None:
    """Give who else wrote to a new resource before it was first read, the last of them."""
    if maker is None or maker.when is None:
        return None
    for candidate in reversed(candidates):
        act = candidate.act
        if act.deletes or act.acts or act.begun <= maker.when or candidate.near is _Near.ABOVE:
            continue
        reason = "it wrote to the new resource before that was first read"
        told = _of(act, rows, _at_most(_sure(act), Confidence.MEDIUM), (reason,))
        if told.who != maker.who:
            return told
    return None


# ------------------------------------------------------------------------------- properties


def _by_path(
    change: Change,
    kind: Kind | None,
    candidates: Sequence[_Candidate],
    rows: Sequence[ResourceChange],
    fingerprints: Fingerprints | None,
    projects: Sequence[Act],
) -> dict[str, Attribution]:
    bodies: dict[int, JsonObject | None] = {}
    for candidate in candidates:
        bodies[id(candidate.act)] = _asked(candidate, kind, fingerprints)
    writes = [
        c
        for c in candidates
        if c.near is not _Near.ABOVE and (not c.act.deletes or c.near is _Near.INSIDE)
    ]
    found: dict[str, Attribution] = {}
    for path in change.paths:
        if projects and path.path.startswith(OF_PROJECTS):
            act = projects[-1]
            reason = "Azure keeps the account's list of projects: it is the last write of one"
            found[path.path] = _of(act, rows, _at_most(_sure(act), Confidence.MEDIUM), (reason,))
            continue
        told = _by_graph(path, rows, candidates) or _by_item(path, change, kind, writes, rows)
        if told is None:
            told = _by_body(path, writes, bodies, rows)
        if told is not None:
            found[path.path] = told
    return found


def _by_graph(
    path: PathChange, rows: Sequence[ResourceChange], candidates: Sequence[_Candidate]
) -> Attribution | None:
    """Resource Graph names the property: the newest row whose new value is what is there."""
    wanted = _shape_of(path.path)
    for row in sorted(rows, key=lambda r: r.at, reverse=True):
        for name, (_, now) in row.changes.items():
            shape = _shape_of_graph(name)
            if shape != wanted and shape[: len(wanted)] != wanted:
                continue
            if shape == wanted and not _says(now, path.after):
                continue
            reason = f"Resource Graph recorded this property's change ({name})"
            for candidate in candidates:
                if candidate.act.correlation_id == row.correlation_id:
                    reasons = (reason, "the Activity Log has the same correlation id")
                    return _of(candidate.act, rows, Confidence.HIGH, reasons)
            return _of_row(row, (reason,), Confidence.HIGH)
    return None


def _by_item(
    path: PathChange,
    change: Change,
    kind: Kind | None,
    writes: Sequence[_Candidate],
    rows: Sequence[ResourceChange],
) -> Attribution | None:
    """An item that has its own id in Azure and is kept within its holder: a blocklist's words."""
    tokens = path.path.split("/")[1:]
    if kind is None or len(tokens) < 2 or not any(f.into == tokens[0] for f in kind.folds):
        return None
    side = change.before if isinstance(path.after, Missing) else change.after
    items = side.body.get(tokens[0]) if side is not None else None
    if not isinstance(items, list) or not tokens[1].isdigit() or int(tokens[1]) >= len(items):
        return None
    item = items[int(tokens[1])]
    name = str(item.get("name") or "").lower() if isinstance(item, dict) else ""
    gone = isinstance(path.after, Missing) and len(tokens) == 2
    for candidate in reversed(writes):
        act = candidate.act
        if candidate.near is _Near.INSIDE and act.resource.rsplit("/", 1)[-1] == name:
            if gone != act.deletes and not act.acts:
                continue
            return _of(act, rows, _sure(act), (f"it is the last write of the item {name!r}",))
    return None


def _by_body(
    path: PathChange,
    writes: Sequence[_Candidate],
    bodies: Mapping[int, JsonObject | None],
    rows: Sequence[ResourceChange],
) -> Attribution | None:
    """What was asked for: the first write of those that, to the end, asked for what is there."""
    about = {_Near.SAME, _Near.TAGS} if _of_tags(path) else {_Near.SAME}
    own = [c.act for c in writes if c.near in about]
    if not own:
        inside = [c.act for c in writes if c.near is _Near.INSIDE]
        if not inside:
            return None
        act = inside[-1]
        why = "it is the last write of a part of this resource"
        return _of(act, rows, _at_most(_sure(act), Confidence.MEDIUM), (why,))
    real = [act for act in own if not act.acts] or own
    if len(real) == 1:
        act = real[0]
        reason = "it is the only write of this resource in that time"
        return _of(act, rows, _sure(act), (reason,))
    chosen: Act | None = None
    silent_after = False
    for act in reversed(real):
        said = _statement(path, act, bodies.get(id(act)))
        if said is None:
            silent_after = silent_after or chosen is None
            continue
        if not said:
            break
        chosen = act
    if chosen is not None:
        reasons = ["its request asked for the value that is there"]
        sure = _sure(chosen)
        if silent_after:
            reasons.append("a later write does not say what it asked for")
            sure = _at_most(sure, Confidence.MEDIUM)
        return _of(chosen, rows, sure, tuple(reasons))
    act = real[-1]
    reason = f"it is the last of {len(real)} writes in that time; none shows this property"
    return _of(act, rows, _at_most(_sure(act), Confidence.MEDIUM), (reason,))


def _statement(path: PathChange, act: Act, body: JsonObject | None) -> bool | None:
    """Whether a request asked for what is there: yes, for something else, or it does not say."""
    if body is None:
        return None
    asked = _look_up(body, path.path)
    if isinstance(asked, Missing):
        if isinstance(path.after, Missing):
            return True if act.method == "PUT" or _replaces_tags(act) else None
        return None  # a server's default may have filled it
    if isinstance(path.after, Missing):
        return asked is None or asked in ("", [], {})
    return _alike(asked, path.after)


def _of_tags(path: PathChange) -> bool:
    return path.path == "/tags" or path.path.startswith("/tags/")


def _replaces_tags(act: Act) -> bool:
    """Whether what a write of tags does not name is gone after it (2021-04-01, Tags)."""
    if not act.tags:
        return False
    body = act.body or {}
    return act.operation.lower().endswith("/delete") or body.get("operation") == "Replace"


def _alike(asked: Json, there: Json) -> bool:
    if canonical(asked) == canonical(there):
        return True
    if isinstance(asked, str) and isinstance(there, str):
        return asked.lower() == there.lower()
    if isinstance(asked, dict) and isinstance(there, dict):
        # The server adds fields of its own to what was asked for.
        return all(name in there and _alike(value, there[name]) for name, value in asked.items())
    if isinstance(asked, list) and isinstance(there, list) and len(asked) == len(there):
        return all(_alike(a, b) for a, b in zip(asked, there, strict=True))
    return False


def _together(paths: Mapping[str, Attribution]) -> Attribution | None:
    """Give the attribution of a whole change: the newest of its properties'."""
    told = list(paths.values())
    if not told:
        return None
    newest = max(told, key=lambda a: (a.when is not None, a.when or _LONG_AGO))
    others = {(a.who, a.correlation_id) for a in told} - {(newest.who, newest.correlation_id)}
    if not others:
        return newest
    words = f"{len(others) + 1} operations made this change together: see each property"
    return replace(newest, reasons=(*newest.reasons, words))


# ------------------------------------------------------------------------------- values


def _shaped(body: JsonObject, kind: Kind | None, fingerprints: Fingerprints | None) -> JsonObject:
    """Give a request's body in the form that resources are compared in."""
    if kind is None or fingerprints is None:
        return body
    try:
        return kind.canonical(body, fingerprints)
    except (AttributeError, KeyError, TypeError, ValueError):
        return body  # a request may be anything: then it is compared as it came


def _asked(
    candidate: _Candidate, kind: Kind | None, fingerprints: Fingerprints | None
) -> JsonObject | None:
    """Give what a write asked for, in the form that resources are compared in."""
    act = candidate.act
    body = act.body
    if not act.tags:
        return None if body is None else _shaped(body, kind, fingerprints)
    if act.operation.lower().endswith("/delete"):
        return {}
    properties = body.get("properties") if body is not None else None
    tags = properties.get("tags") if isinstance(properties, dict) else None
    if body is None or not isinstance(tags, dict):
        return None
    shaped = _shaped({"tags": tags}, kind, fingerprints)
    there = shaped.get("tags")
    if body.get("operation") == "Delete" and isinstance(there, dict):
        return {"tags": dict.fromkeys(there)}
    return shaped


def _look_up(body: JsonObject, pointer: str) -> Json | Missing:
    place: Json = body
    for raw in pointer.split("/")[1:]:
        token = raw.replace("~1", "/").replace("~0", "~")
        if isinstance(place, dict) and token in place:
            place = place[token]
        elif isinstance(place, list) and token.isdigit() and int(token) < len(place):
            place = place[int(token)]
        else:
            return MISSING
    return place


def _shape_of(pointer: str) -> tuple[str, ...]:
    """Give a pointer's names, without the places in lists: Azure's order is not ours."""
    tokens = pointer.split("/")[1:]
    return tuple(t.replace("~1", "/").replace("~0", "~").lower() for t in tokens if not t.isdigit())


def _shape_of_graph(name: str) -> tuple[str, ...]:
    return tuple(part.lower() for _, part in _STEP.findall(name) if part)


def _says(told: str | None, value: Json | Missing) -> bool:
    if isinstance(value, Missing) or value is None:
        return told is None
    if told is None:
        return False
    if isinstance(value, str):
        return told.lower() == value.lower()
    return told.lower() == orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode().lower()


# ------------------------------------------------------------------------------- words


def _sure(act: Act) -> Confidence:
    if act.outcome == "started":
        return Confidence.LOW
    return Confidence.MEDIUM if act.acts else Confidence.HIGH


def _at_most(sure: Confidence, limit: Confidence) -> Confidence:
    order = [Confidence.NONE, Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH]
    return order[min(order.index(sure), order.index(limit))]


def _of(
    act: Act, rows: Iterable[ResourceChange], sure: Confidence, reasons: tuple[str, ...]
) -> Attribution:
    event = act.first
    kind = principal_kind(event)
    app = event.claims.get("appid", "")
    row = next((r for r in rows if r.correlation_id == act.correlation_id), None)
    told = [*reasons]
    if act.outcome == "started":
        told.append("the log has its start and not its end")
    if act.acts:
        told.append("it is an action: what it changed is not in the log")
    identity = event.claims.get("xms_mirid", "")
    if "/policyassignments/" in identity.lower():
        name = identity.rsplit("/", 1)[-1]
        told.append(f"Azure Policy did it: the identity is that of the assignment {name}")
    if kind is PrincipalKind.PLATFORM and event.description:
        told.append(f"Azure says: {event.description}")
    name = event.claims.get("app_displayname", "")
    return Attribution(
        who=event.caller or ("Azure" if kind is PrincipalKind.PLATFORM else ""),
        principal_kind=kind,
        principal_id=principal_id(event),
        app_id=app,
        client=client_name(app, row.client if row is not None else "") or name,
        address=event.address,
        when=act.ended if act.outcome == "succeeded" and act.deletes else act.begun,
        operation=act.operation,
        correlation_id=act.correlation_id,
        events=(*(e.id for e in act.events), *((row.id,) if row is not None else ())),
        confidence=sure,
        reasons=tuple(told),
    )


def _of_row(
    row: ResourceChange, reasons: tuple[str, ...], sure: Confidence = Confidence.MEDIUM
) -> Attribution:
    kind = _PLATFORM_KINDS.get(row.by_type, PrincipalKind.UNKNOWN)
    if row.by == "System":
        kind = PrincipalKind.PLATFORM
    application = kind in {PrincipalKind.SERVICE_PRINCIPAL, PrincipalKind.MANAGED_IDENTITY}
    return Attribution(
        who="Azure" if row.by == "System" else row.by,
        principal_kind=kind,
        app_id=row.by if application else "",
        client=client_name("", row.client),
        when=row.at,
        operation=row.operation,
        correlation_id=row.correlation_id,
        events=(row.id,),
        confidence=sure,
        reasons=(*reasons, "the Activity Log has no record of it yet"),
    )


def _why_not(
    change: Change, kind: Kind | None, window: Window, records: Records, *, settled: bool
) -> tuple[str, ...]:
    if change.type is ChangeType.UNKNOWN:
        return ("unattributed: it could not be read, so nobody knows whether it changed",)
    if kind is not None and kind.plane is not Plane.ARM:
        words = (
            "unattributed: it was changed through the data plane, which the Activity Log does not "
            "see; a diagnostic setting of the account would"
        )
        return (words,)
    since = f"since {window.after:%Y-%m-%d %H:%M:%SZ}" if window.after else "so far"
    reasons = [f"unattributed: no write of it was recorded {since}"]
    reasons += records.holes
    if not settled:
        minutes = int(LAG / timedelta(minutes=1))
        reasons.append(
            f"a record may still come: Azure takes up to {minutes} minutes, and the next audit "
            "looks again"
        )
    return tuple(reasons)
