"""Turn what Azure sends into what is compared: field patterns, and the tables that name noise.

A pattern is dotted: `properties.contentFilters[].severityThreshold`. `*` is any property of one
object, `[]` any element of a list, `**` any depth. A property whose name holds a dot, a bracket or
a star is written in quotes: `tags.'cost.centre'`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeAlias

from snapshots.model import Json, JsonObject, canonical
from snapshots.secrets import Fingerprints

_STEP = re.compile(r"'(?P<quoted>(?:[^']|'')*)'|(?P<plain>[^.\[\]'*]+)|(?P<star>\*\*?)")


class Wild(StrEnum):
    """A step of a pattern that is not a name."""

    ANY = "*"  # any property
    EACH = "[]"  # any element
    DEEP = "**"  # any depth, also none


@dataclass(frozen=True, slots=True)
class Name:
    """A step of a pattern: the property with this name."""

    text: str


Step: TypeAlias = Name | Wild


@dataclass(frozen=True, slots=True)
class Pattern:
    """Where something is in a body."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Read a pattern. Raises ValueError, saying where, when it is not one."""
        steps: list[Step] = []
        at, expect = 0, True
        while at < len(text):
            if text.startswith("[]", at):
                if expect and steps:
                    break
                steps.append(Wild.EACH)
                at, expect = at + 2, False
                continue
            if not expect:
                if text[at] != ".":
                    break
                at, expect = at + 1, True
                continue
            found = _STEP.match(text, at)
            if not found:
                break
            if (quoted := found["quoted"]) is not None:
                steps.append(Name(quoted.replace("''", "'")))
            elif found["plain"]:
                steps.append(Name(found["plain"]))
            else:
                steps.append(Wild(found["star"]))
            at, expect = found.end(), False
        if expect or at < len(text):
            message = f"not a field pattern: {text!r} (wrong at character {at + 1})"
            raise ValueError(message)
        return cls(tuple(steps))

    def __str__(self) -> str:
        parts: list[str] = []
        for step in self.steps:
            match step:
                case Wild.EACH:
                    parts.append("[]")
                case Wild():
                    parts.append(("." if parts else "") + step.value)
                case Name(text):
                    shown = text if _plain(text) else "'" + text.replace("'", "''") + "'"
                    parts.append(("." if parts else "") + shown)
        return "".join(parts)

    def find(self, body: Json) -> Iterator[tuple[tuple[str | int, ...], Json]]:
        """Give every place of `body` that the pattern names, with what is there."""
        yield from _find(self.steps, body, ())


Path: TypeAlias = tuple[str | int, ...]


def _plain(text: str) -> bool:
    return bool(text) and not set(text) & set(".[]'*")


def _find(steps: tuple[Step, ...], value: Json, at: Path) -> Iterator[tuple[Path, Json]]:
    if not steps:
        yield at, value
        return
    first, rest = steps[0], steps[1:]
    match first, value:
        case Name(text), dict() if text in value:
            yield from _find(rest, value[text], (*at, text))
        case Wild.ANY, dict():
            for key, inner in value.items():
                yield from _find(rest, inner, (*at, key))
        case Wild.EACH, list():
            for index, inner in enumerate(value):
                yield from _find(rest, inner, (*at, index))
        case Wild.DEEP, _:
            yield from _find(rest, value, at)
            if isinstance(value, dict):
                for key, inner in value.items():
                    yield from _find(steps, inner, (*at, key))
            elif isinstance(value, list):
                for index, inner in enumerate(value):
                    yield from _find(steps, inner, (*at, index))
        case _:
            return


def pointer(path: Iterable[str | int]) -> str:
    """Give a path as an RFC 6901 pointer."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def replaced(body: JsonObject, pattern: Pattern, by: Callable[[Json], Json]) -> JsonObject:
    """Give a copy of `body` with what `pattern` names replaced by what `by` makes of it."""
    result = _replaced(pattern.steps, body, by)
    return result if isinstance(result, dict) else body


def _replaced(steps: tuple[Step, ...], value: Json, by: Callable[[Json], Json]) -> Json:
    if not steps:
        return by(value)
    first, rest = steps[0], steps[1:]
    match first, value:
        case Name(text), dict() if text in value:
            return {**value, text: _replaced(rest, value[text], by)}
        case Wild.ANY, dict():
            return {key: _replaced(rest, inner, by) for key, inner in value.items()}
        case Wild.EACH, list():
            return [_replaced(rest, inner, by) for inner in value]
        case Wild.DEEP, _:
            here = _replaced(rest, value, by)
            if isinstance(here, dict):
                return {key: _replaced(steps, inner, by) for key, inner in here.items()}
            if isinstance(here, list):
                return [_replaced(steps, inner, by) for inner in here]
            return here
        case _:
            return value


@dataclass(frozen=True, slots=True)
class Default:
    """A value that means the same as its absence."""

    path: str
    value: Json


@dataclass(frozen=True, slots=True)
class Items:
    """A list whose order means nothing, and what tells its items apart.

    Without `by` it is a set: items are ordered by their canonical bytes.
    """

    path: str
    by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """What is noise, what is secret and what is equal in the bodies of a kind. All are patterns."""

    volatile: tuple[str, ...] = ()  # dropped: the server sets it and it says nothing
    read_only: tuple[str, ...] = ()  # recorded, and not sent back
    secret: tuple[str, ...] = ()  # replaced by a keyed fingerprint
    items: tuple[Items, ...] = ()
    defaults: tuple[Default, ...] = ()
    case_insensitive: tuple[str, ...] = ()  # values, lower-cased
    case_insensitive_names: tuple[str, ...] = ()  # objects whose property names are lower-cased
    locations: tuple[str, ...] = ()  # "East US 2" is "eastus2"
    verbatim: tuple[str, ...] = ()  # somebody's own JSON: null is a value in it

    def __add__(self, other: Fields) -> Fields:
        """Give both tables as one."""
        return Fields(
            volatile=self.volatile + other.volatile,
            read_only=self.read_only + other.read_only,
            secret=self.secret + other.secret,
            items=self.items + other.items,
            defaults=self.defaults + other.defaults,
            case_insensitive=self.case_insensitive + other.case_insensitive,
            case_insensitive_names=self.case_insensitive_names + other.case_insensitive_names,
            locations=self.locations + other.locations,
            verbatim=self.verbatim + other.verbatim,
        )

    def patterns(self) -> Iterator[str]:
        """Give every pattern of the table."""
        yield from self.volatile
        yield from self.read_only
        yield from self.secret
        yield from (item.path for item in self.items)
        yield from (default.path for default in self.defaults)
        yield from self.case_insensitive
        yield from self.case_insensitive_names
        yield from self.locations
        yield from self.verbatim


@dataclass(slots=True)
class _Node:
    """What the table says of one place, and the places below."""

    names: dict[str, _Node] = field(default_factory=dict)
    any: _Node | None = None
    each: _Node | None = None
    deep: _Node | None = None
    drop: bool = False
    secret: bool = False
    lower: bool = False
    lower_names: bool = False
    location: bool = False
    verbatim: bool = False
    items: tuple[str, ...] | None = None
    defaults: list[bytes] = field(default_factory=list)


class Normaliser:
    """Turn a wire body into its canonical form, by one table, in one pass."""

    __slots__ = ("_root",)

    def __init__(self, fields: Fields) -> None:
        self._root = _Node()
        for text in fields.volatile:
            self._at(text).drop = True
        for text in fields.secret:
            self._at(text).secret = True
        for text in fields.case_insensitive:
            self._at(text).lower = True
        for text in fields.case_insensitive_names:
            self._at(text).lower_names = True
        for text in fields.locations:
            self._at(text).location = True
        for text in fields.verbatim:
            self._at(text).verbatim = True
        for item in fields.items:
            self._at(item.path).items = item.by
        for default in fields.defaults:
            self._at(default.path).defaults.append(canonical(default.value))

    def _at(self, text: str) -> _Node:
        node = self._root
        for step in Pattern.parse(text).steps:
            match step:
                case Name(name):
                    node = node.names.setdefault(name, _Node())
                case Wild.ANY:
                    node.any = node.any or _Node()
                    node = node.any
                case Wild.EACH:
                    node.each = node.each or _Node()
                    node = node.each
                case Wild.DEEP:
                    node.deep = node.deep or _Node()
                    node = node.deep
        return node

    def __call__(self, body: Mapping[str, Json], fingerprints: Fingerprints) -> JsonObject:
        """Give the canonical body: no noise, no secret, no accident of order or case."""
        result = _walk(dict(body), "", _closed((self._root,)), fingerprints)
        return result if isinstance(result, dict) else {}


_DROPPED: Final = object()


def _closed(nodes: tuple[_Node, ...]) -> tuple[_Node, ...]:
    """Add what `**` reaches without a step."""
    if all(node.deep is None for node in nodes):
        return nodes
    found = list(nodes)
    for node in found:
        if node.deep is not None and node.deep not in found:
            found.append(node.deep)
    return tuple(found)


def _below(nodes: tuple[_Node, ...], name: str | None) -> tuple[_Node, ...]:
    """Give the nodes for a property (or, without a name, an element) of what `nodes` stand for."""
    found: list[_Node] = []
    for node in nodes:
        if name is None:
            if node.each is not None:
                found.append(node.each)
        else:
            if name in node.names:
                found.append(node.names[name])
            if node.any is not None:
                found.append(node.any)
        if node.deep is not None:
            # `**` goes on: stand at the same place one level down.
            found.append(_Node(deep=node.deep))
    return _closed(tuple(found)) if found else ()


def _walk(value: Json, name: str, nodes: tuple[_Node, ...], prints: Fingerprints) -> Json | object:
    if any(node.drop for node in nodes) or value is None:
        return _DROPPED
    if any(node.secret for node in nodes):
        return _fingerprint(value, prints)
    if any(node.verbatim for node in nodes):
        return _guarded(value, name, prints)
    result: Json
    if isinstance(value, dict):
        lower = any(node.lower_names for node in nodes)
        result = {}
        for key, inner in value.items():
            kept = _walk(inner, key, _below(nodes, key), prints)
            if kept is not _DROPPED:
                result[key.lower() if lower else key] = kept  # type: ignore[assignment]
    elif isinstance(value, list):
        below = _below(nodes, None)
        items: list[Json] = []
        for inner in value:
            kept = None if inner is None else _walk(inner, name, below, prints)
            if kept is not _DROPPED:
                items.append(kept)  # type: ignore[arg-type]
        for node in nodes:
            if node.items is not None:
                items = _ordered(items, node.items)
        result = items
    elif isinstance(value, str):
        if any(node.location for node in nodes):
            result = location(value)
        else:
            guarded = prints.guard(name, value)
            changed = guarded != value
            result = guarded.lower() if not changed and _lower(nodes) else guarded
    else:
        result = value
    for node in nodes:
        if node.defaults and canonical(result) in node.defaults:
            return _DROPPED
    return result


def _lower(nodes: Sequence[_Node]) -> bool:
    return any(node.lower for node in nodes)


def _fingerprint(value: Json, prints: Fingerprints) -> Json:
    """Hide a declared secret whole; of an object, every member but the one that names its type."""
    if isinstance(value, str):
        return prints.of(value) if value else value
    if isinstance(value, dict):
        return {
            key: inner if key in {"type", "credentialsType"} else _fingerprint(inner, prints)
            for key, inner in value.items()
            if inner is not None
        }
    if isinstance(value, bool):
        return value
    return prints.of(canonical(value))


def _guarded(value: Json, name: str, prints: Fingerprints) -> Json:
    """Keep somebody's own JSON as it is, but for what looks like a secret in it."""
    if isinstance(value, str):
        return prints.guard(name, value)
    if isinstance(value, dict):
        return {key: _guarded(inner, key, prints) for key, inner in value.items()}
    if isinstance(value, list):
        return [_guarded(inner, name, prints) for inner in value]
    return value


def _ordered(items: list[Json], by: tuple[str, ...]) -> list[Json]:
    """Order a list by what identifies its items, then by their bytes, so that no tie is left."""
    return sorted(items, key=lambda item: (_identity(item, by), canonical(item)))


def _identity(item: Json, by: tuple[str, ...]) -> bytes:
    if not by or not isinstance(item, dict):
        return b""
    return canonical([_sortable(item.get(name, "")) for name in by])


def _sortable(value: Json) -> str:
    """Case never tells two items of Azure apart, and version 10 comes after version 9."""
    text = str(value).lower()
    return text.zfill(20) if text.isdecimal() else text


def location(text: str) -> str:
    """Give a region's one spelling: Azure echoes "East US 2", "EASTUS2" and "eastus2" alike."""
    return text.replace(" ", "").lower()
