"""Read YAML that people write, so that every mistake is named with its file, line and remedy."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time

import yaml

from snapshots.audit.texts import sound
from snapshots.errors import InputError
from snapshots.model import Json

_MAX_NODES = 200_000


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document and where it stands."""

    file: str
    name: str  # how people name it: changes[2].who
    yaml: yaml.Node

    @property
    def line(self) -> int:
        """Its line, from 1."""
        return int(self.yaml.start_mark.line) + 1

    @property
    def where(self) -> str:
        """File, line, column and name."""
        column = int(self.yaml.start_mark.column) + 1
        return f"{self.file}:{self.line}:{column} {self.name}".rstrip()

    def fail(self, what: str, remedy: str) -> InputError:
        """Make the error that says what is wrong here."""
        return InputError(what, where=self.where, remedy=remedy)

    # ---- shapes

    def fields(self, known: tuple[str, ...], needed: tuple[str, ...] = ()) -> dict[str, Node]:
        """Give the fields of an object. Raises InputError for an unknown or a missing one."""
        if not isinstance(self.yaml, yaml.MappingNode):
            raise self.fail(
                f"{self.name or 'the document'} is no object",
                f"write fields: {', '.join(needed or known)}",
            )
        found: dict[str, Node] = {}
        for key, value in self.yaml.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            place = Node(self.file, f"{self.name}.{name}".lstrip("."), value)
            at_key = Node(self.file, place.name, key)
            if name not in known:
                near = difflib.get_close_matches(name, known, 1, 0.6)
                hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"
                raise at_key.fail(f"{name} is not known here", hint)
            if name in found:
                raise at_key.fail(f"{name} is there twice", "keep one of them")
            found[name] = place
        for name in needed:
            if name not in found:
                raise self.fail(f"{name} is missing", f"add {name}: …")
        return found

    def items(self) -> list[Node]:
        """Give the items of a list; a single value stands for a list of one."""
        if isinstance(self.yaml, yaml.SequenceNode):
            return [
                Node(self.file, f"{self.name}[{number}]", item)
                for number, item in enumerate(self.yaml.value, 1)
            ]
        return [self]

    def entries(self) -> Iterator[tuple[Node, Node]]:
        """Give key and value of an object whose names are free."""
        if not isinstance(self.yaml, yaml.MappingNode):
            raise self.fail(f"{self.name} is no object", "write name: value, one a line")
        for key, value in self.yaml.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            yield Node(self.file, self.name, key), Node(self.file, f"{self.name}.{name}", value)

    # ---- values

    def json(self) -> Json:
        """Give the value as JSON. Times become texts."""
        return _json(self)

    def text(self) -> str:
        """Give a text that is not empty."""
        if not isinstance(self.yaml, yaml.ScalarNode) or not str(self.yaml.value).strip():
            raise self.fail(f"{self.name} is no text", f"write {_last(self.name)}: some words")
        return _words(self).strip()

    def texts(self) -> tuple[str, ...]:
        """Give a list of texts; one text stands for a list of one."""
        return tuple(item.text() for item in self.items())

    def flag(self) -> bool:
        """Give true or false."""
        value = _json(self)
        if not isinstance(value, bool):
            raise self.fail(f"{self.name} is neither true nor false", "write true or false")
        return value

    def number(self) -> float:
        """Give a number."""
        value = _json(self)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.fail(f"{self.name} is no number", f"write {_last(self.name)}: 3")
        return float(value)

    def one_of(self, words: tuple[str, ...]) -> str:
        """Give one of some words."""
        found = self.text()
        if found not in words:
            near = difflib.get_close_matches(found, words, 1)
            hint = f"did you mean {near[0]}?" if near else f"write one of {', '.join(words)}"
            raise self.fail(f"{self.name} is {found!r}", hint)
        return found

    def moment(self, *, end: bool = False) -> datetime:
        """Give a time, in UTC when it names no zone; a date means its beginning, or its end."""
        return moment(self, end=end)


def moment(node: Node, *, end: bool = False) -> datetime:
    """Read 2026-11-22 or 2026-11-22T10:00Z. Raises InputError."""
    words = node.text()
    try:
        if len(words) == 10:
            day = date.fromisoformat(words)
            return datetime.combine(day, time.max if end else time.min, UTC)
        found = datetime.fromisoformat(words)
    except ValueError as wrong:
        raise node.fail(
            f"{node.name} is no time: {words!r}", "write 2026-11-22 or 2026-11-22T10:00Z"
        ) from wrong
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def read(file: str, data: bytes) -> Node | None:
    """Read one document; None when it is empty. Raises InputError with file, line and column."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = data.count(b"\n", 0, wrong.start) + 1
        raise InputError(
            "the file is not UTF-8", where=f"{file}:{line}", remedy="save it as UTF-8"
        ) from wrong
    try:
        loader = yaml.SafeLoader(text)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as wrong:
        mark = wrong.problem_mark or wrong.context_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise InputError(
            f"the file is not YAML: {wrong.problem or wrong.context}",
            where=place,
            remedy="check the indentation and the quotes at this place",
        ) from wrong
    except (yaml.YAMLError, RecursionError, ValueError) as wrong:
        raise InputError(
            f"the file is not YAML: {str(wrong).splitlines()[0]}",
            where=file,
            remedy="check it with a YAML editor",
        ) from wrong
    if root is None or (isinstance(root, yaml.ScalarNode) and root.tag.endswith(":null")):
        return None
    node = Node(file, "", root)
    _count(node)
    return node


def _count(root: Node) -> None:
    """Refuse anchors that blow up, and anchors that lead back to themselves."""
    budget = _MAX_NODES
    stack: list[tuple[yaml.Node, int]] = [(root.yaml, 0)]
    while stack:
        node, depth = stack.pop()
        budget -= 1
        if budget < 0 or depth > 60:
            raise root.fail("the document is too large or too deep", "split it; avoid anchors")
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                stack += [(key, depth + 1), (value, depth + 1)]
        elif isinstance(node, yaml.SequenceNode):
            stack += [(item, depth + 1) for item in node.value]


def _json(node: Node) -> Json:
    found = node.yaml
    if isinstance(found, yaml.MappingNode):
        return {
            _words(Node(node.file, node.name, key))
            if isinstance(key, yaml.ScalarNode)
            else "?": _json(Node(node.file, node.name, value))
            for key, value in found.value
        }
    if isinstance(found, yaml.SequenceNode):
        return [_json(Node(node.file, node.name, item)) for item in found.value]
    words = _words(node)
    match found.tag.rsplit(":", 1)[-1]:
        case "null":
            return None
        case "bool":
            return words.lower() in {"true", "yes", "on"}
        case "int":
            return _number(node, words, int)
        case "float":
            return _number(node, words, float)
        case _:
            return words


def _words(node: Node) -> str:
    words = str(node.yaml.value)
    if sound(words) != words:
        raise node.fail(
            f"{node.name} holds half of a surrogate pair",
            r'write the whole character, like "\U0001F600"',
        )
    return words


def _number(node: Node, words: str, kind: type[int | float]) -> int | float:
    try:
        value = kind(words.replace("_", ""))
    except ValueError:
        value = math.inf
    if not math.isfinite(value):
        raise node.fail(f"{words!r} is no number that JSON knows", "write it plainly, like 3")
    return value


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1] or "it"
