"""Say what differs between two states: added, removed, changed or unknown, with the paths."""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from deepdiff import DeepDiff

from snapshots.errors import InputError
from snapshots.kinds.fields import Pattern
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Gap,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Resource,
    Snapshot,
    canonical,
)

Identity: TypeAlias = Callable[[str], Mapping[str, tuple[str, ...]]]
Path: TypeAlias = tuple[str | int, ...]
_Lists: TypeAlias = Mapping[Path, tuple[str, ...]]

_INDEX = re.compile(r"0|[1-9][0-9]*")


def _nothing(_: str) -> Mapping[str, tuple[str, ...]]:
    return {}


def compare(
    before: Snapshot, after: Snapshot, identity: Identity = _nothing, *, ids: bool = False
) -> Iterator[Change]:
    """Give every difference from `before` to `after`, sorted by key.

    `identity` gives, for a kind, the lists whose order means nothing: pattern of the list
    (`properties.contentFilters[]`) -> the fields that tell its items apart (none: the whole item).
    A resource that a gap hides on either side is UNKNOWN, never removed or added; reference data is
    never compared. The same id under another key of the same kind is one CHANGED with
    `renamed_from`. The order of a list with identity is no change.

    A path is an RFC 6901 pointer into the body; where something was removed, its list indexes are
    those of `before`, else those of `after`. Payloads that differ come as `/payloads/<name>`, each
    an object of sha256 and size. With `ids`, an id that differs under the same key comes as `/id`:
    the resource was deleted and made again. No I/O, and nothing is kept between two changes.
    """
    known = {*before.resources, *after.resources, *before.stale, *after.stale}
    one_side = [key for key in known if (key in before.resources) != (key in after.resources)]
    renamed = _renamed(before, after, one_side)
    moved = set(renamed.values())
    for key in sorted(known, key=_order):
        old, new = before.resources.get(key), after.resources.get(key)
        if key in moved:
            continue  # told where it is now
        if key in renamed and new is not None:
            source = before.resources[renamed[key]]
            paths = tuple(_paths(source, new, identity, ids=ids))
            yield Change(ChangeType.CHANGED, key, source, new, paths, renamed_from=renamed[key])
        elif old is not None and new is not None:
            if _equal(old, new, ids=ids):
                continue
            if paths := tuple(_paths(old, new, identity, ids=ids)):
                yield Change(ChangeType.CHANGED, key, old, new, paths)
        elif (gap := _gap(before, after, key)) is not None or (old is None and new is None):
            yield Change(
                ChangeType.UNKNOWN,
                key,
                old or before.stale.get(key),
                new or after.stale.get(key),
                gap=gap,
            )
        elif new is not None:
            yield Change(ChangeType.ADDED, key, after=new)
        else:
            yield Change(ChangeType.REMOVED, key, before=old)


def _order(key: Key) -> tuple[str, tuple[str, ...]]:
    return key.kind, key.path


def _gap(before: Snapshot, after: Snapshot, key: Key) -> Gap | None:
    """Give the gap that hides `key` on the side where it was not seen."""
    found = after.hidden(key) if key not in after.resources else None
    if found is None and key not in before.resources:
        found = before.hidden(key)
    return found


def _renamed(before: Snapshot, after: Snapshot, keys: Iterable[Key]) -> dict[Key, Key]:
    """Give new key -> old key where one id, and only one resource on each side, moved."""
    gone: dict[tuple[str, str], list[Key]] = {}
    come: dict[tuple[str, str], list[Key]] = {}
    for key in keys:
        if (old := before.resources.get(key)) is not None and old.id:
            if key not in after.stale and after.hidden(key) is None:
                gone.setdefault((key.kind, old.id), []).append(key)
        elif (new := after.resources.get(key)) is not None and new.id:  # noqa: SIM102 - as above
            if key not in before.stale and before.hidden(key) is None:
                come.setdefault((key.kind, new.id), []).append(key)
    return {
        come[same][0]: gone[same][0]
        for same in gone.keys() & come.keys()
        if len(gone[same]) == len(come[same]) == 1
    }


def _equal(old: Resource, new: Resource, *, ids: bool) -> bool:
    if old is new:
        return True
    if ids and not _same_id(old.id, new.id):
        return False
    return old.payloads == new.payloads and canonical(old.body) == canonical(new.body)


def _same_id(old: str, new: str) -> bool:
    # Azure Resource Manager compares its ids without case and answers in changing case; those of
    # the data plane have no leading slash and mean their case.
    return old == new or (old.startswith("/") and old.lower() == new.lower())


def _paths(old: Resource, new: Resource, identity: Identity, *, ids: bool) -> Iterator[PathChange]:
    if ids and not _same_id(old.id, new.id):
        yield PathChange("/id", old.id, new.id)
    yield from differences(old.body, new.body, identity(new.key.kind))
    if old.payloads != new.payloads:
        left, right = _payloads(old), _payloads(new)
        for name in sorted(left.keys() | right.keys()):
            was, now = left.get(name, MISSING), right.get(name, MISSING)
            if was != now:
                yield PathChange(_pointer(("payloads", name)), was, now)


def _payloads(resource: Resource) -> dict[str, Json | Missing]:
    return {p.name: {"sha256": p.sha256, "size": p.size} for p in resource.payloads}


def body_paths(change: Change) -> tuple[PathChange, ...]:
    """Give the paths of a change that lie in the body: not payloads, not the id."""
    about: set[str] = set()
    for resource in (change.before, change.after):
        if resource is not None and "payloads" not in resource.body:
            about |= {_pointer(("payloads", payload.name)) for payload in resource.payloads}
    if change.before is not None and change.after is not None:
        same = change.before.body.get("id") == change.after.body.get("id")
        about |= {"/id"} if same else set()
    return tuple(path for path in change.paths if path.path not in about)


def place_of(path: PathChange, change: Change, lists: Mapping[str, tuple[str, ...]]) -> str:
    """Name a changed property so that it means the same when items come and go around it.

    An item of a list with identity is called by that, not by its index. Gives "" for what lies in
    a list whose items nothing tells apart.
    """
    side = change.before if isinstance(path.after, Missing) else change.after
    body: JsonObject = side.body if side is not None else {}
    known = _found(body, lists)
    value: Json = body
    at: list[str | int] = []
    named: list[str] = []
    for token in _tokens(path.path):
        match value:
            case dict():
                at.append(token)
                named.append(token)
                value = value.get(token)
            case list():
                fields = known.get(tuple(at))
                if fields is None or not token.isdigit() or int(token) >= len(value):
                    return ""
                at.append(int(token))
                value = value[int(token)]
                named.append(f"[{_identity(value, fields).decode()}]")
            case _:
                at.append(token)
                named.append(token)
    return _pointer(tuple(named))


# ------------------------------------------------------------------------------------ bodies


@dataclass(frozen=True, slots=True)
class _Delta:
    """One difference with the place of what holds it on both sides."""

    before: Path
    after: Path
    was: Json | Missing
    now: Json | Missing

    @property
    def change(self) -> PathChange:
        path = self.before if isinstance(self.now, Missing) else self.after
        return PathChange(_pointer(path), self.was, self.now)


def differences(
    before: JsonObject, after: JsonObject, lists: Mapping[str, tuple[str, ...]] | None = None
) -> list[PathChange]:
    """Give what differs between two bodies, property by property, sorted by path.

    `lists` is the identity table of the kind, as for `compare`.
    """
    return [delta.change for delta in _deltas(before, after, lists or {})]


def undo(
    before: JsonObject,
    after: JsonObject,
    chosen: Iterable[PathChange],
    lists: Mapping[str, tuple[str, ...]] | None = None,
) -> JsonObject:
    """Give `after` with the chosen differences from `before` taken back, and no other.

    This is a revert of single properties. Right also where lists were reordered. Raises InputError
    when one of them is not a difference between the two.
    """
    deltas = {_identified(delta.change): delta for delta in _deltas(before, after, lists or {})}
    edits: list[_Delta] = []
    for change in chosen:
        delta = deltas.get(_identified(change))
        if delta is None:
            raise InputError(
                f"{change.path or '/'} is not what differs any more",
                remedy="run `muster audit` again: the resource changed meanwhile",
            )
        edits.append(delta)
    result = copy.deepcopy(after)
    # Everything is looked up before anything moves; then each list is edited once.
    places = [(delta, _at(result, delta.after[:-1])) for delta in edits]
    inserts: dict[int, tuple[list[Json], list[tuple[int, Json]]]] = {}
    drops: dict[int, tuple[list[Json], list[int]]] = {}
    for delta, holder in places:
        last = delta.before[-1] if isinstance(delta.now, Missing) else delta.after[-1]
        value = copy.deepcopy(delta.was)
        if isinstance(holder, dict) and isinstance(last, str):
            if isinstance(value, Missing):
                del holder[last]
            else:
                holder[last] = value
        elif isinstance(holder, list) and isinstance(last, int):
            if isinstance(value, Missing):
                drops.setdefault(id(holder), (holder, []))[1].append(last)
            elif isinstance(delta.now, Missing):
                inserts.setdefault(id(holder), (holder, []))[1].append((last, value))
            else:
                holder[last] = value
    for items, indexes in drops.values():
        for index in sorted(indexes, reverse=True):
            del items[index]
    for items, values in inserts.values():
        for index, value in sorted(values, key=lambda pair: pair[0]):
            items.insert(index, value)
    return result


def patch(body: JsonObject, paths: Iterable[PathChange]) -> JsonObject:
    """Give `body` with the changes made: `before` becomes `after` of what compare was given.

    Raises InputError when a place is not there or does not hold what the change says was before:
    the body is not the one that was compared, or its lists have another order (then use `undo`).
    """
    result = copy.deepcopy(body)
    changes = [(_tokens(change.path), change) for change in paths]
    removed = [pair for pair in changes if isinstance(pair[1].after, Missing)]
    others = [pair for pair in changes if not isinstance(pair[1].after, Missing)]
    # Removals speak of the indexes before, from the last to the first; then the rest speaks of
    # those after, from the first to the last.
    for path, change in sorted(removed, key=lambda pair: _position(pair[0]), reverse=True):
        holder, last = _holder(result, path, change)
        if isinstance(holder, dict):
            _expect(holder.get(str(last), MISSING), change)
            del holder[str(last)]
        else:
            index = _index(last, len(holder) - 1, change)
            _expect(holder[index], change)
            del holder[index]
    for path, change in sorted(others, key=lambda pair: _position(pair[0])):
        holder, last = _holder(result, path, change)
        value = change.after
        if isinstance(value, Missing):  # pragma: no cover - those are the removed ones
            continue
        value = copy.deepcopy(value)
        if isinstance(holder, dict):
            _expect(holder.get(str(last), MISSING), change)
            holder[str(last)] = value
        elif isinstance(change.before, Missing):
            holder.insert(_index(last, len(holder), change), value)
        else:
            index = _index(last, len(holder) - 1, change)
            _expect(holder[index], change)
            holder[index] = value
    return result


def _identified(change: PathChange) -> tuple[str, bool, bytes, bool, bytes]:
    gone, come = isinstance(change.before, Missing), isinstance(change.after, Missing)
    return (
        change.path,
        gone,
        b"" if gone else canonical(change.before),
        come,
        b"" if come else canonical(change.after),
    )


def _expect(found: Json | Missing, change: PathChange) -> None:
    was = change.before
    if isinstance(found, Missing) or isinstance(was, Missing):
        fits = isinstance(found, Missing) and isinstance(was, Missing)
    else:
        fits = canonical(found) == canonical(was)
    if not fits:
        raise InputError(
            f"{change.path} does not hold what was reported",
            remedy="compare again: the resource changed meanwhile",
        )


def _holder(
    body: JsonObject, path: Sequence[str], change: PathChange
) -> tuple[JsonObject | list[Json], str]:
    if not path:
        raise InputError("a change of a whole body cannot be patched")
    place: Json = body
    for token in path[:-1]:
        if isinstance(place, dict) and token in place:
            place = place[token]
        elif isinstance(place, list):
            place = place[_index(token, len(place) - 1, change)]
        else:
            place = None
    if isinstance(place, dict | list):
        return place, path[-1]
    raise InputError(f"{change.path} is not there", remedy="compare again")


def _index(token: str, limit: int, change: PathChange) -> int:
    if not _INDEX.fullmatch(token) or int(token) > limit:
        raise InputError(f"{change.path} is not there", remedy="compare again")
    return int(token)


def _at(body: Json, path: Path) -> Json:
    for step in path:
        match body, step:
            case dict(), str():
                body = body[step]
            case list(), int():
                body = body[step]
            case _:
                raise InputError(f"{_pointer(path)} is not there", remedy="compare again")
    return body


def _pointer(path: Path) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _tokens(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise InputError(f"not an RFC 6901 pointer: {pointer!r}")
    parts = pointer.split("/")[1:]
    return [part.replace("~1", "/").replace("~0", "~") for part in parts]


def _position(path: Iterable[str | int]) -> list[tuple[int, int, str]]:
    """Give what paths are sorted by: indexes as numbers, before names."""
    return [
        (0, int(step), "") if _INDEX.fullmatch(str(step)) else (1, 0, str(step)) for step in path
    ]


# ---------------------------------------------------------------------------------- DeepDiff


class _Items(dict[str, Json]):
    """A list on one side, as DeepDiff sees it: its items by a label that both sides share.

    DeepDiff pairs the items of two lists by position or by likeness; here they were paired before,
    by identity, so it only ever sees objects.
    """

    def __init__(self) -> None:
        super().__init__()
        self.places: dict[str, tuple[int | None, int | None]] = {}


def _deltas(
    before: JsonObject, after: JsonObject, lists: Mapping[str, tuple[str, ...]]
) -> list[_Delta]:
    left, right = _pair(before, after, (), (), _found(before, lists), _found(after, lists))
    # The tree view gives steps, where text paths break on quotes and brackets in names. A
    # threshold above 0 would report a changed object whole as soon as few of its names are shared,
    # and private names (`__x`) would be left out.
    found = DeepDiff(
        left,
        right,
        view="tree",
        threshold_to_diff_deeper=0,
        ignore_private_variables=False,
        verbose_level=2,
    )
    deltas: list[_Delta] = []
    for levels in found.values():
        for level in levels:
            steps = level.path(output_format="list")
            deltas.append(_delta(left, right, [str(step) for step in steps]))
    return sorted(deltas, key=lambda d: (_position(d.change.path.split("/")), d.before))


def _delta(left: Json, right: Json, steps: Sequence[str]) -> _Delta:
    """Walk both sides along DeepDiff's steps and note where that is in the real bodies."""
    before: list[str | int] = []
    after: list[str | int] = []
    was: Json | Missing = left
    now: Json | Missing = right
    for step in steps:
        here, there = was, now
        if isinstance(here, _Items) and isinstance(there, _Items):
            old, new = here.places[step]
            # What is on one side only has its index there, and no place on the other.
            before.append(old if old is not None else -1)
            after.append(new if new is not None else -1)
        else:
            before.append(step)
            after.append(step)
        was = here.get(step, MISSING) if isinstance(here, dict) else MISSING
        now = there.get(step, MISSING) if isinstance(there, dict) else MISSING
    return _Delta(tuple(before), tuple(after), was, now)


def _found(body: JsonObject, lists: Mapping[str, tuple[str, ...]]) -> _Lists:
    """Give the path of every list in `body` that the identity table names."""
    return {
        path: fields
        for text, fields in lists.items()
        for path, value in _pattern(text.removesuffix("[]")).find(body)
        if isinstance(value, list)
    }


@lru_cache(maxsize=1024)
def _pattern(text: str) -> Pattern:
    return Pattern.parse(text)


def _pair(
    before: Json, after: Json, here: Path, there: Path, left: _Lists, right: _Lists
) -> tuple[Json, Json]:
    """Give what differs of both sides, with every list that is on both as labelled items.

    What is equal is left out: DeepDiff's time goes by what it is shown.
    """
    if isinstance(before, dict) and isinstance(after, dict):
        old, new = dict(before), dict(after)
        for name in before.keys() & after.keys():
            if canonical(before[name]) == canonical(after[name]):
                del old[name], new[name]
                continue
            old[name], new[name] = _pair(
                before[name], after[name], (*here, name), (*there, name), left, right
            )
        return old, new
    if isinstance(before, list) and isinstance(after, list):
        olds, news = _Items(), _Items()
        fields = right.get(there, left.get(here))
        pairs = (
            _aligned(before, after)
            if fields is None
            else _matched(
                [_identity(i, fields) for i in before], [_identity(i, fields) for i in after]
            )
        )
        places: dict[str, tuple[int | None, int | None]] = {}
        for number, (old_at, new_at) in enumerate(pairs):
            label = str(number)
            places[label] = (old_at, new_at)
            if old_at is not None and new_at is not None:
                was, now = before[old_at], after[new_at]
                if canonical(was) != canonical(now):
                    olds[label], news[label] = _pair(
                        was, now, (*here, old_at), (*there, new_at), left, right
                    )
            elif old_at is not None:
                olds[label] = before[old_at]
            elif new_at is not None:
                news[label] = after[new_at]
        olds.places = news.places = places
        return olds, news
    return before, after


def _identity(item: Json, fields: tuple[str, ...]) -> bytes:
    if not fields or not isinstance(item, dict):
        return canonical(item)
    # Case never tells two items of Azure apart.
    return canonical([str(item.get(name, "")).lower() for name in fields])


def _matched(
    before: Sequence[bytes], after: Sequence[bytes]
) -> list[tuple[int | None, int | None]]:
    """Pair items of the same identity, twins in their order; then what is on one side only."""
    waiting: dict[bytes, list[int]] = {}
    for index, name in enumerate(before):
        waiting.setdefault(name, []).append(index)
    for indexes in waiting.values():
        indexes.reverse()
    pairs: list[tuple[int | None, int | None]] = []
    for index, name in enumerate(after):
        pairs.append((waiting[name].pop() if waiting.get(name) else None, index))
    left = sorted(index for indexes in waiting.values() for index in indexes)
    return pairs + [(index, None) for index in left]


def _aligned(before: list[Json], after: list[Json]) -> list[tuple[int | None, int | None]]:
    """Pair items whose order counts: equal ones first, then what stands in the same place."""
    left, right = [canonical(item) for item in before], [canonical(item) for item in after]
    pairs: list[tuple[int | None, int | None]] = []
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for _, start, end, first, last in matcher.get_opcodes():
        common = min(end - start, last - first)
        pairs += [(start + n, first + n) for n in range(common)]
        pairs += [(index, None) for index in range(start + common, end)]
        pairs += [(None, index) for index in range(first + common, last)]
    return pairs
