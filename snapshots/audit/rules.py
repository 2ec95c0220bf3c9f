"""Rule packs: how bad a change is, told by YAML, each rule with examples that fire and do not."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from importlib.resources import files
from pathlib import Path
from typing import TypeAlias

from snapshots.audit.documents import Node, read
from snapshots.audit.report_model import Direction, RuleHit, Severity
from snapshots.compare import compare, differences
from snapshots.errors import InputError
from snapshots.kinds import BY_NAME
from snapshots.kinds.fields import Name, Pattern, Wild
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Resource,
    Snapshot,
    canonical,
)

BUILTIN = "builtin"
_CHANGES = tuple(type_.value for type_ in ChangeType)
_EPOCH = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


@dataclass(frozen=True, slots=True)
class Test:
    """One question about the properties of a change.

    `path` is a field pattern. A value that is an object or list, and that came or went as a whole,
    is looked into: `properties.a.b` is asked also when `/properties/a` is what changed.
    """

    path: Pattern
    was: tuple[Json, ...] | None = None  # before is one of these (null: not there)
    becomes: tuple[Json, ...] | None = None  # after is one of these
    order: tuple[Json, ...] = ()  # from the strongest to the weakest
    goes: str = ""  # weaker, stronger, up, down
    appears: bool = False
    vanishes: bool = False
    changes: bool = False  # it is there on both sides

    def holds(self, before: Json | Missing, after: Json | Missing) -> bool:
        """Whether the answer is yes for a property that differs."""
        if self.was is not None and not _among(before, self.was):
            return False
        if self.becomes is not None and not _among(after, self.becomes):
            return False
        if self.appears and not isinstance(before, Missing):
            return False
        if self.vanishes and not isinstance(after, Missing):
            return False
        if self.changes and (isinstance(before, Missing) or isinstance(after, Missing)):
            return False
        match self.goes:
            case "":
                return True
            case "up" | "down":
                if not (_is_number(before) and _is_number(after)):
                    return False
                return (after > before) == (self.goes == "up")  # type: ignore[operator]
            case _:
                places = [_place(value, self.order) for value in (before, after)]
                if places[0] < 0 or places[1] < 0 or places[0] == places[1]:
                    return False
                return (places[1] > places[0]) == (self.goes == "weaker")


@dataclass(frozen=True, slots=True)
class Example:
    """A state before and after, and whether the rule must fire."""

    fires: bool
    before: JsonObject | None
    after: JsonObject | None
    where: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class Rule:
    """What makes a change this bad."""

    id: str  # pack/name
    title: str
    why: str
    severity: Severity
    direction: Direction
    kinds: tuple[str, ...]  # empty: every kind
    changes: tuple[ChangeType, ...]
    any_of: tuple[Test, ...]  # empty: the change of the resource alone will do
    body: tuple[tuple[Pattern, tuple[Json, ...]], ...] = ()  # what the resource must hold
    named: re.Pattern[str] | None = None
    examples: tuple[Example, ...] = ()
    where: str = ""

    def judge(self, change: Change) -> RuleHit | None:
        """Give what the rule says of a change, None when nothing."""
        if change.type not in self.changes or (self.kinds and change.key.kind not in self.kinds):
            return None
        if self.named is not None and not self.named.search(change.key.name):
            return None
        resource = change.after or change.before
        if self.body and (resource is None or not self._holds(resource.body)):
            return None
        if not self.any_of:
            return self._hit(())
        found = [path for path in _leaves(change) if self._fires(path)]
        return self._hit(tuple(sorted({path.path for path in found}))) if found else None

    def _holds(self, body: JsonObject) -> bool:
        return all(
            any(_among(value, wanted) for _, value in pattern.find(body))
            or (None in wanted and not any(True for _ in pattern.find(body)))
            for pattern, wanted in self.body
        )

    def _fires(self, path: PathChange) -> bool:
        return any(
            covers(test.path, path.path) and test.holds(path.before, path.after)
            for test in self.any_of
        )

    def _hit(self, paths: tuple[str, ...]) -> RuleHit:
        return RuleHit(self.id, self.title, self.severity, self.direction, self.why, paths)


@dataclass(frozen=True, slots=True)
class StateRule:
    """Something in live state that will hurt, although nobody changed it."""

    id: str
    title: str
    why: str
    severity: Severity
    check: str  # retirement, idle
    days: float


@dataclass(frozen=True, slots=True)
class Pack:
    """Rules that belong together."""

    name: str
    rules: tuple[Rule, ...]
    states: tuple[StateRule, ...] = ()
    defaults: Mapping[ChangeType, Severity] = field(default_factory=dict)


Judge: TypeAlias = Callable[[Change], tuple[RuleHit, ...]]


def load_packs(names: Iterable[str], folder: Path) -> tuple[Pack, ...]:
    """Read rule packs: `builtin`, or files relative to `folder`. Each proves its own examples.

    Raises InputError with file, line and remedy for a pack that is wrong, or whose rule does not
    do what its examples say.
    """
    packs: list[Pack] = []
    for name in names:
        if name == BUILTIN:
            data = files("snapshots.audit").joinpath("rules/builtin.yaml").read_bytes()
            packs.append(parse_pack("builtin.yaml", data))
            continue
        file = folder / name
        try:
            data = file.read_bytes()
        except OSError as missing:
            raise InputError(
                f"the rule pack {name!r} cannot be read: {missing.strerror}",
                where=str(file),
                remedy="correct [audit] rules: builtin, or a file beside muster.toml",
            ) from missing
        packs.append(parse_pack(str(file), data))
    seen: dict[str, str] = {}
    for pack in packs:
        if pack.name in seen:
            raise InputError(
                f"two rule packs are called {pack.name!r}",
                where="[audit] rules",
                remedy="give each its own `pack:` name, and name each once",
            )
        seen[pack.name] = pack.name
    for pack in packs:
        prove(pack)
    return tuple(packs)


def prove(pack: Pack) -> None:
    """Hold every rule to its examples. Raises InputError for the first that fails."""
    for rule in pack.rules:
        for example in rule.examples:
            hit = rule.judge(_example_change(rule, example))
            if (hit is not None) != example.fires:
                done = "fires" if hit is not None else "does not fire"
                raise InputError(
                    f"the rule {rule.id} {done} on an example that says otherwise",
                    where=example.where,
                    remedy="correct the rule or the example",
                )


def severity_of(change: Change, hits: Sequence[RuleHit], packs: Sequence[Pack]) -> Severity:
    """Give the severity of a finding: the worst rule's, else the packs' default for the change."""
    if hits:
        return max((hit.severity for hit in hits), key=lambda severity: severity.rank)
    found = [pack.defaults[change.type] for pack in packs if change.type in pack.defaults]
    return found[-1] if found else Severity.LOW


def judge(change: Change, packs: Sequence[Pack]) -> tuple[RuleHit, ...]:
    """Give what all rules say of a change, worst first."""
    hits = [hit for pack in packs for rule in pack.rules if (hit := rule.judge(change))]
    return tuple(sorted(hits, key=lambda hit: (-hit.severity.rank, hit.id)))


# ---------------------------------------------------------------------------------- patterns


def covers(pattern: Pattern, pointer: str) -> bool:
    """Whether a field pattern names the place that an RFC 6901 pointer names."""
    tokens = [t.replace("~1", "/").replace("~0", "~") for t in pointer.split("/")[1:]]
    return _match(pattern.steps, tokens)


def _match(steps: Sequence[Name | Wild], tokens: Sequence[str]) -> bool:
    if not steps:
        return not tokens
    first, rest = steps[0], steps[1:]
    if first is Wild.DEEP:
        return any(_match(rest, tokens[at:]) for at in range(len(tokens) + 1))
    if not tokens:
        return False
    match first:
        case Name(text):
            fits = tokens[0] == text
        case Wild.EACH:
            fits = tokens[0].isdigit()
        case _:
            fits = True
    return fits and _match(rest, tokens[1:])


def _leaves(change: Change) -> list[PathChange]:
    """Give what differs: the changed places themselves, and what is inside what came or went."""
    paths: Iterable[PathChange]
    match change.type:
        case ChangeType.CHANGED:
            paths = change.paths
        case ChangeType.ADDED if change.after is not None:
            paths = differences({}, change.after.body)
        case ChangeType.REMOVED if change.before is not None:
            paths = differences(change.before.body, {})
        case _:
            paths = ()
    found: list[PathChange] = []
    for path in paths:
        found.append(path)
        found += _inside(path)
    return found


def _inside(path: PathChange) -> Iterable[PathChange]:
    for value, came in ((path.before, False), (path.after, True)):
        other = path.after if not came else path.before
        if not isinstance(value, dict | list) or isinstance(other, dict | list):
            continue
        entries = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in entries:
            token = str(name).replace("~", "~0").replace("/", "~1")
            before, after = (MISSING, inner) if came else (inner, MISSING)
            below = PathChange(f"{path.path}/{token}", before, after)
            yield below
            yield from _inside(below)


def _among(value: Json | Missing, wanted: Sequence[Json]) -> bool:
    if isinstance(value, Missing):
        return None in wanted
    if isinstance(value, str):
        return any(isinstance(w, str) and w.lower() == value.lower() for w in wanted)
    return any(canonical(value) == canonical(w) for w in wanted)


def _place(value: Json | Missing, order: Sequence[Json]) -> int:
    for index, step in enumerate(order):
        if _among(value, (step,)):
            return index
    return -1


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---------------------------------------------------------------------------------- reading


def parse_pack(file: str, data: bytes) -> Pack:
    """Read one pack. Raises InputError with file, line and remedy."""
    root = read(file, data)
    if root is None:
        raise InputError("the rule pack is empty", where=file, remedy="see docs/rules.md")
    top = root.fields(("pack", "rules", "states", "defaults"), ("pack",))
    name = top["pack"].text()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,39}", name):
        raise top["pack"].fail(f"{name!r} is no name of a pack", "use small letters and dashes")
    rules = [_rule(name, node) for node in top["rules"].items()] if "rules" in top else []
    states = [_state(name, node) for node in top["states"].items()] if "states" in top else []
    ids = [rule.id for rule in rules] + [state.id for state in states]
    for rule in rules:
        if ids.count(rule.id) > 1:
            raise InputError(
                f"two rules are called {rule.id}", where=rule.where, remedy="rename one"
            )
    defaults: dict[ChangeType, Severity] = {}
    if "defaults" in top:
        for key, value in top["defaults"].fields(_CHANGES).items():
            defaults[ChangeType(key)] = _severity(value)
    return Pack(name, tuple(rules), tuple(states), defaults)


def _severity(node: Node) -> Severity:
    return Severity(node.one_of(tuple(s.value for s in Severity)))


def _rule(pack: str, node: Node) -> Rule:
    known = ("id", "title", "why", "severity", "direction", "kinds", "changes", "any", "body")
    found = node.fields(
        (*known, "named", "examples"), ("id", "title", "why", "severity", "examples")
    )
    name = found["id"].text()
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,79}", name):
        raise found["id"].fail(f"{name!r} is no name of a rule", "use small letters and dashes")
    listed = found["kinds"].items() if "kinds" in found else []
    kinds = [item.one_of(tuple(BY_NAME)) for item in listed]
    changes = (
        tuple(ChangeType(item.one_of(_CHANGES)) for item in found["changes"].items())
        if "changes" in found
        else (ChangeType.ADDED, ChangeType.CHANGED, ChangeType.REMOVED)
    )
    directions = tuple(d.value for d in Direction)
    direction = found["direction"].one_of(directions) if "direction" in found else "neutral"
    named = None
    if "named" in found:
        try:
            named = re.compile(found["named"].text())
        except re.error as wrong:
            raise found["named"].fail(
                f"not a regular expression: {wrong}", "see the syntax of Python's re"
            ) from wrong
    body: list[tuple[Pattern, tuple[Json, ...]]] = []
    for key, value in found["body"].entries() if "body" in found else []:
        body.append((_pattern(key), tuple(item.json() for item in value.items())))
    tests = tuple(_test(item) for item in found["any"].items()) if "any" in found else ()
    examples = tuple(_example(item) for item in found["examples"].items())
    if {example.fires for example in examples} != {True, False}:
        raise found["examples"].fail(
            "a rule needs an example that fires and one that does not",
            "add examples with fires: true and with fires: false",
        )
    return Rule(
        f"{pack}/{name}",
        found["title"].text(),
        found["why"].text(),
        _severity(found["severity"]),
        Direction(direction),
        tuple(kinds),
        changes,
        tests,
        tuple(body),
        named,
        examples,
        node.where,
    )


def _pattern(node: Node) -> Pattern:
    try:
        return Pattern.parse(node.text())
    except ValueError as wrong:
        raise node.fail(str(wrong), "write properties.list[].field") from wrong


def _test(node: Node) -> Test:
    known = ("path", "was", "becomes", "order", "goes", "appears", "vanishes", "changes")
    found = node.fields(known, ("path",))
    goes = found["goes"].one_of(("weaker", "stronger", "up", "down")) if "goes" in found else ""
    order = tuple(item.json() for item in found["order"].items()) if "order" in found else ()
    if goes in {"weaker", "stronger"} and len(order) < 2:
        raise node.fail(f"goes: {goes} needs an order", "add order: [strongest, …, weakest]")
    if order and goes not in {"weaker", "stronger"}:
        raise node.fail("order alone tests nothing", "add goes: weaker or goes: stronger")
    return Test(
        _pattern(found["path"]),
        tuple(i.json() for i in found["was"].items()) if "was" in found else None,
        tuple(i.json() for i in found["becomes"].items()) if "becomes" in found else None,
        order,
        goes,
        found["appears"].flag() if "appears" in found else False,
        found["vanishes"].flag() if "vanishes" in found else False,
        found["changes"].flag() if "changes" in found else False,
    )


def _example(node: Node) -> Example:
    found = node.fields(("fires", "before", "after", "name"), ("fires",))
    states: list[JsonObject | None] = []
    for side in ("before", "after"):
        value = found[side].json() if side in found else None
        if value is not None and not isinstance(value, dict):
            raise found[side].fail(f"{side} is no body", "write the properties of the resource")
        states.append(value)
    if states == [None, None]:
        raise node.fail("an example needs a state", "add before:, after:, or both")
    name = found["name"].text() if "name" in found else "example"
    return Example(found["fires"].flag(), states[0], states[1], node.where, name)


def _state(pack: str, node: Node) -> StateRule:
    found = node.fields(
        ("id", "title", "why", "severity", "check", "days"),
        ("id", "title", "why", "severity", "check", "days"),
    )
    return StateRule(
        f"{pack}/{found['id'].text()}",
        found["title"].text(),
        found["why"].text(),
        _severity(found["severity"]),
        found["check"].one_of(("retirement", "idle")),
        found["days"].number(),
    )


def _example_change(rule: Rule, example: Example) -> Change:
    kind = rule.kinds[0] if rule.kinds else "resource-group"
    key = Key(kind, ("subscription", "group", example.name))

    def state(body: JsonObject | None) -> Snapshot:
        resources = {} if body is None else {key: Resource(key, "/example", body)}
        return Snapshot("", _EPOCH, "", resources)

    for change in compare(state(example.before), state(example.after), list_identity):
        return change
    raise InputError(
        f"an example of {rule.id} has nothing that differs",
        where=example.where,
        remedy="let before and after differ",
    )


def list_identity(kind: str) -> Mapping[str, tuple[str, ...]]:
    """Give the lists of a kind whose order means nothing, and what tells their items apart."""
    found = BY_NAME.get(kind)
    if found is None:
        return {}
    return {f"{items.path}[]": items.by for items in found.fields.items}
