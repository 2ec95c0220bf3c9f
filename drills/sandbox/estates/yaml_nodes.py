"""YAML with places: every value knows its file and line, so that a mistake can be shown."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


class EstateError(Exception):
    """An estate file cannot be used: the message says where, what, and what to do."""

    def __init__(self, file: str, line: int, what: str, remedy: str) -> None:
        super().__init__(f"{file}:{line}: {what}; {remedy}")
        self.file, self.line, self.what, self.remedy = file, line, what, remedy


@dataclass(frozen=True, slots=True)
class Node:
    """One value of the file: a table, a list or a single value."""

    file: str
    line: int
    label: str  # "accounts[2].deployments[0]": where it stands
    scalar: Any = None
    fields: dict[str, Node] | None = None
    items: list[Node] = field(default_factory=list)
    listed: bool = False

    def error(self, what: str, remedy: str) -> EstateError:
        """A mistake at this place."""
        where = f" (at {self.label})" if self.label else ""
        return EstateError(self.file, self.line, what + where, remedy)

    def check(self, required: Iterable[str], optional: Iterable[str] = ()) -> Node:
        """Refuse fields that nobody knows and the lack of those that are needed."""
        known = [*required, *optional]
        if self.fields is None:
            raise self.error("a table is expected here", f"give the fields {', '.join(known)}")
        for name, node in self.fields.items():
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(known)}"
                raise node.error(f"unknown field '{name}'", hint)
        for name in required:
            if name not in self.fields:
                raise self.error(f"'{name}' is missing", f"add '{name}: …'")
        return self

    def has(self, name: str) -> bool:
        """Whether a field is there and not null."""
        node = (self.fields or {}).get(name)
        return node is not None and (
            node.scalar is not None or node.fields is not None or node.listed
        )

    def at(self, name: str) -> Node:
        """A field's node, or this one when the field is absent."""
        return (self.fields or {}).get(name, self)

    def text(self, name: str, default: str = "") -> str:
        """A field as text."""
        if not self.has(name):
            return default
        value = self.at(name).scalar
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise self.at(name).error(f"'{name}' must be text", "put it in quotes")
        return str(value)

    def whole(self, name: str, default: int) -> int:
        """A field as a whole number."""
        if not self.has(name):
            return default
        value = self.at(name).scalar
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.at(name).error(f"'{name}' must be a whole number", "write digits only")
        return value

    def yes(self, name: str, *, default: bool = False) -> bool:
        """A field as true or false."""
        if not self.has(name):
            return default
        value = self.at(name).scalar
        if not isinstance(value, bool):
            raise self.at(name).error(f"'{name}' must be true or false", "write true or false")
        return value

    def each(self, name: str) -> list[Node]:
        """A field's elements; none when it is absent."""
        if not self.has(name):
            return []
        node = self.at(name)
        if not node.listed:
            raise node.error(f"'{name}' must be a list", "start each element with '- '")
        return node.items

    def choice(self, name: str, allowed: Iterable[str], default: str = "") -> str:
        """A field as one of several words."""
        value = self.text(name, default)
        known = list(allowed)
        if value not in known:
            raise self.at(name).error(
                f"'{name}' cannot be '{value}'", f"choose one of {', '.join(known)}"
            )
        return value

    def table(self, name: str) -> dict[str, Any]:
        """A field as plain data (a table); {} when it is absent."""
        if not self.has(name):
            return {}
        node = self.at(name)
        if node.fields is None:
            raise node.error(f"'{name}' must be a table", "write 'key: value' lines below it")
        value = node.plain()
        return value if isinstance(value, dict) else {}

    def plain(self) -> Any:
        """The value as plain data."""
        if self.fields is not None:
            return {name: node.plain() for name, node in self.fields.items()}
        if self.listed:
            return [node.plain() for node in self.items]
        return self.scalar


def read_yaml(path: Path) -> Node:
    """Read a file into nodes. Raises EstateError."""
    file = str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise EstateError(
            file, 0, f"the estate file cannot be read: {error.strerror}",
            "name demo, empty or the path of a YAML file",
        ) from None  # fmt: skip
    except UnicodeDecodeError:
        raise EstateError(
            file, 0, "the estate file is not UTF-8 text", "save it as UTF-8"
        ) from None
    loader = yaml.CSafeLoader(text) if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise EstateError(file, 1, "the estate file is empty", "see estates/demo.yaml")
        return _convert(root, loader, file, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = mark.line + 1 if mark is not None else 0
        raise EstateError(file, line, f"not valid YAML: {error.problem}", "mend the line") from None
    except yaml.YAMLError as error:
        raise EstateError(file, 0, f"not valid YAML: {error}", "mend the file") from None
    finally:
        loader.dispose()


def _convert(node: yaml.Node, loader: Any, file: str, label: str) -> Node:
    line = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # merge keys ("<<: *defaults")
        fields: dict[str, Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in fields and key.start_mark.line > fields[name].line:
                raise EstateError(
                    file, key.start_mark.line + 1, f"'{name}' is given twice", "keep one of them"
                )
            fields[name] = _convert(value, loader, file, f"{label}.{name}" if label else name)
        return Node(file, line, label, fields=fields)
    if isinstance(node, yaml.SequenceNode):
        items = [
            _convert(item, loader, file, f"{label}[{index}]")
            for index, item in enumerate(node.value)
        ]
        return Node(file, line, label, items=items, listed=True)
    return Node(file, line, label, scalar=loader.construct_object(node))
