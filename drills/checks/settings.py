"""The settings of one check in a script, read by name and type, with errors that say where."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass, field

from drills.model import CheckDeclaration
from snapshots.errors import InputError
from snapshots.model import Json, JsonObject


@dataclass(slots=True)
class Settings:
    """Reads the settings of a declaration; what nobody read is unknown, and `done` says so.

    Every method raises InputError, naming the check, the setting and the line of the script.
    """

    declaration: CheckDeclaration
    _read: set[str] = field(default_factory=set)

    def wrong(self, what: str, remedy: str) -> InputError:
        """Give the error for a wrong setting."""
        declared = self.declaration
        line = f", line {declared.line}" if declared.line else ""
        return InputError(what, where=f"check {declared.title!r}{line}", remedy=remedy)

    def _take(self, name: str) -> Json:
        self._read.add(name)
        return self.declaration.settings.get(name)

    def text(self, name: str, default: str = "") -> str:
        """Give a text."""
        found = self._take(name)
        if found is None:
            return default
        if not isinstance(found, str):
            raise self.wrong(f"{name} is a text, not {found!r}", f"write {name}: some text")
        return found

    def required(self, name: str, why: str) -> str:
        """Give a text that must be there; `why` completes "it names …"."""
        found = self.text(name).strip()
        if not found:
            raise self.wrong(f"{name} is missing", f"add {name}: it names {why}")
        return found

    def choice(self, name: str, known: tuple[str, ...], default: str) -> str:
        """Give one of the known words."""
        found = self.text(name, default)
        if found not in known:
            raise self.wrong(f"{name} is {found!r}", f"{name} is one of {', '.join(known)}")
        return found

    def number(self, name: str, default: float, *, least: float, most: float = math.inf) -> float:
        """Give a number within bounds."""
        found = self._take(name)
        if found is None:
            return default
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise self.wrong(f"{name} is a number, not {found!r}", f"write {name}: {default:g}")
        if not least <= found <= most:  # also false for nan
            bounds = f"from {least:g}" + (f" to {most:g}" if most < math.inf else "")
            raise self.wrong(f"{name} is {found:g}", f"{name} is a number {bounds}")
        return float(found)

    def whole(self, name: str, default: int, *, least: int, most: int) -> int:
        """Give a whole number within bounds."""
        found = self.number(name, default, least=least, most=most)
        if found != int(found):
            raise self.wrong(f"{name} is {found:g}", f"{name} is a whole number")
        return int(found)

    def flag(self, name: str, *, default: bool) -> bool:
        """Give true or false."""
        found = self._take(name)
        if found is None:
            return default
        if not isinstance(found, bool):
            raise self.wrong(f"{name} is {found!r}", f"{name} is true or false")
        return found

    def texts(self, name: str) -> tuple[str, ...]:
        """Give a list of texts; a single text is a list of one."""
        found = self._take(name)
        if found is None:
            return ()
        if isinstance(found, str):
            return (found,)
        if not isinstance(found, list):
            raise self.wrong(f"{name} is a list of texts, not {found!r}", f"write {name}: [a, b]")
        given = tuple(item for item in found if isinstance(item, str))
        if len(given) != len(found):
            raise self.wrong(f"{name} holds something that is no text", f"write {name}: [a, b]")
        return given

    def numbers(self, name: str) -> dict[str, float]:
        """Give a table of numbers by name."""
        found = self._take(name)
        if found is None:
            return {}
        table = found if isinstance(found, dict) else {}
        given = {
            key: float(value)
            for key, value in table.items()
            if isinstance(value, int | float) and not isinstance(value, bool) and value >= 0
        }
        if not isinstance(found, dict) or len(given) != len(found):
            raise self.wrong(
                f"{name} is a table of numbers from 0", f"write {name}: {{some-name: 2}}"
            )
        return given

    def json(self, name: str) -> Json:
        """Give whatever stands there."""
        return self._take(name)

    def objects(self, name: str) -> tuple[JsonObject, ...]:
        """Give a list of objects."""
        found = self._take(name)
        if found is None:
            return ()
        items = found if isinstance(found, list) else [None]
        given = tuple(item for item in items if isinstance(item, dict))
        if len(given) != len(items):
            raise self.wrong(f"{name} is a list of objects", f"write {name}: [{{…}}, {{…}}]")
        return given

    def done(self) -> None:
        """Raise InputError for a setting that nobody read."""
        unknown = sorted(set(self.declaration.settings) - self._read)
        if not unknown:
            return
        near = difflib.get_close_matches(unknown[0], sorted(self._read), 1)
        meant = f"did you mean {near[0]}? " if near else ""
        known = ", ".join(sorted(self._read)) or "none"
        raise self.wrong(f"unknown setting {unknown[0]!r}", f"{meant}known are: {known}")
