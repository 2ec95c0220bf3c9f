"""Where each key of a TOML text stands, since tomllib tells values without their places."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

Path = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_SCALAR_END = re.compile(r"[,\]}#\r\n]")
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([btnfre"\\]))')
_ESCAPED = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b", '"': '"'}


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in a text: line and column, both counted from 1."""

    line: int
    column: int


def index(text: str) -> dict[Path, Position]:
    """Say where every table, key and list item of a **valid** TOML text stands.

    A path is the way down from the top: names of tables and keys, numbers of list items. The
    text has been accepted by tomllib before: what is not TOML gives an incomplete answer here,
    never an exception.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.found


@dataclass(slots=True)
class _Scanner:
    text: str
    at: int = 0
    found: dict[Path, Position] = field(default_factory=dict)
    lists: dict[Path, int] = field(default_factory=dict)  # [[name]] -> how many were seen
    line: int = 1
    line_start: int = 0
    counted_to: int = 0

    def position(self) -> Position:
        newlines = self.text.count("\n", self.counted_to, self.at)
        if newlines:
            self.line += newlines
            self.line_start = self.text.rindex("\n", self.counted_to, self.at) + 1
        self.counted_to = self.at
        return Position(self.line, self.at - self.line_start + 1)

    def note(self, path: Path, position: Position) -> None:
        """Keep the first place of every part of the way down."""
        for length in range(1, len(path) + 1):
            self.found.setdefault(path[:length], position)

    def peek(self, what: str) -> bool:
        return self.text.startswith(what, self.at)

    def blank(self, *, newlines: bool) -> None:
        """Pass white space, and comments and line ends where they may stand."""
        spaces = " \t\r\n" if newlines else " \t"
        while self.at < len(self.text):
            if self.text[self.at] in spaces:
                self.at += 1
            elif newlines and self.text[self.at] == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            else:
                return

    def document(self) -> None:
        table: Path = ()
        while True:
            self.blank(newlines=True)
            if self.at >= len(self.text):
                return
            before = self.at
            if self.peek("["):
                table = self.header()
            else:
                self.pair(table)
            if self.at == before:  # not TOML after all: do not stand still
                return

    def header(self) -> Path:
        where = self.position()
        several = self.peek("[[")
        self.at += 2 if several else 1
        names = self.names()
        path: Path = ()
        for number, name in enumerate(names):
            path = (*path, name)
            last = number == len(names) - 1
            if last and several:
                self.lists[path] = self.lists.get(path, 0) + 1
            if path in self.lists:
                self.note(path, where)
                path = (*path, self.lists[path] - 1)
        self.note(path, where)
        self.blank(newlines=False)
        self.at += 2 if several else 1
        return path

    def names(self) -> tuple[str, ...]:
        """Read a dotted key."""
        names: list[str] = []
        while True:
            self.blank(newlines=False)
            if self.peek('"') or self.peek("'"):
                names.append(self.string())
            else:
                match = _BARE.match(self.text, self.at)
                if match is None:
                    break
                names.append(match.group())
                self.at = match.end()
            self.blank(newlines=False)
            if not self.peek("."):
                break
            self.at += 1
        return tuple(names)

    def pair(self, table: Path) -> None:
        where = self.position()
        path: Path = (*table, *self.names())
        self.note(path, where)
        self.blank(newlines=False)
        if self.peek("="):
            self.at += 1
            self.value(path)

    def value(self, path: Path) -> None:
        self.blank(newlines=False)
        if self.peek('"') or self.peek("'"):
            self.string()
        elif self.peek("["):
            self.array(path)
        elif self.peek("{"):
            self.inline_table(path)
        else:
            match = _SCALAR_END.search(self.text, self.at)
            self.at = len(self.text) if match is None else match.start()

    def array(self, path: Path) -> None:
        self.at += 1
        number = 0
        while True:
            self.blank(newlines=True)
            if self.at >= len(self.text) or self.peek("]"):
                self.at += 1
                return
            before = self.at
            item = (*path, number)
            self.note(item, self.position())
            self.value(item)
            number += 1
            self.blank(newlines=True)
            if self.peek(","):
                self.at += 1
            if self.at == before:
                return

    def inline_table(self, path: Path) -> None:
        self.at += 1
        while True:
            self.blank(newlines=True)
            if self.at >= len(self.text) or self.peek("}"):
                self.at += 1
                return
            before = self.at
            self.pair(path)
            self.blank(newlines=True)
            if self.peek(","):
                self.at += 1
            if self.at == before:
                return

    def string(self) -> str:
        """Pass a string of any of the four forms and say what it holds."""
        quote = self.text[self.at]
        fence = quote * 3 if self.peek(quote * 3) else quote
        start = self.at = self.at + len(fence)
        while self.at < len(self.text) and not self.peek(fence):
            self.at += 2 if quote == '"' and self.peek("\\") else 1
        if len(fence) > 1:  # up to two more quotes may stand before the fence
            while self.text.startswith(quote, self.at + len(fence)):
                self.at += 1
        raw = self.text[start : self.at]
        self.at = min(self.at + len(fence), len(self.text))
        return _ESCAPE.sub(_unescape, raw) if quote == '"' else raw


def _unescape(match: re.Match[str]) -> str:
    short, long, single = match.groups()
    if single:
        return _ESCAPED.get(single, single)
    return chr(int(short or long, 16))
