"""The sandbox's memory: everything in SQLite, one transaction per request, read from a mirror.

A request's changes are all there or not at all: on an error the mirror is rolled back with the
database, and a process that is killed leaves the last whole request behind.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from drills.sandbox.wire import Body

FORMAT = 1
# What belongs to this state folder and stays when another world is loaded into it.
_OWN = {"control-token", "token-key", "managed-identity-header", "estate", "seed"}
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS items (
  space TEXT NOT NULL, id TEXT NOT NULL, seq INTEGER NOT NULL, body BLOB NOT NULL,
  PRIMARY KEY (space, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS timers (
  id INTEGER PRIMARY KEY, due REAL NOT NULL, kind TEXT NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS timers_due ON timers (due);
CREATE TABLE IF NOT EXISTS events (
  seq INTEGER PRIMARY KEY, stream TEXT NOT NULL, at REAL NOT NULL, visible REAL NOT NULL,
  body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS events_stream ON events (stream, at);
CREATE TABLE IF NOT EXISTS journal (seq INTEGER PRIMARY KEY, at REAL NOT NULL, body BLOB NOT NULL);
"""


class StateError(Exception):
    """The state folder cannot be used; the message says why and what to do."""


class Store:
    """Named spaces of JSON items, timers, event streams and the journal.

    Items are dicts that belong to the store: change one only by `put`. `state` None keeps
    everything in memory (for tests of single parts).
    """

    def __init__(self, state: Path | None) -> None:
        self.state = state
        try:
            if state is not None:
                state.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(
                ":memory:" if state is None else state / "sandbox.db",
                isolation_level=None,
                check_same_thread=False,
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute("COMMIT")
            found = self._version()
            if found not in (None, FORMAT):
                raise StateError(
                    f"{state} was written by another version of the sandbox (format {found}, "
                    f"this one reads {FORMAT}): start with another --state folder, or remove it"
                )
            self._db.executescript(_SCHEMA)
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('format', ?)", (str(FORMAT),))
        except sqlite3.Error as error:
            reason = "another sandbox uses it" if "locked" in str(error) else str(error)
            raise StateError(f"cannot open the state folder {state}: {reason}") from None
        except OSError as error:
            raise StateError(f"cannot open the state folder {state}: {error.strerror}") from None
        self._items: dict[str, dict[str, Body]] = {}
        self._seq = 0
        self._undo: list[Callable[[], None]] | None = None
        self._next_due = float("inf")
        for space, id_, seq, body in self._db.execute("SELECT * FROM items ORDER BY seq"):
            self._items.setdefault(space, {})[id_] = orjson.loads(body)
            self._seq = max(self._seq, seq)
        self._refresh_due()

    def _version(self) -> int | str | None:
        tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master")}
        if not tables:
            return None
        if "meta" not in tables:
            return "unknown"
        row = self._db.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()
        if row is None:
            return "unknown" if tables - {"meta"} and "items" not in tables else None
        return int(row[0]) if row[0].isdigit() else str(row[0])

    # -- transactions ---------------------------------------------------------------------

    def begin(self) -> None:
        """Start a transaction. Raises RuntimeError inside another one."""
        if self._undo is not None:
            message = "a transaction is open already"
            raise RuntimeError(message)
        self._undo = []
        self._db.execute("BEGIN")

    def commit(self) -> None:
        """Keep what the transaction did."""
        self._db.execute("COMMIT")
        self._undo = None

    def rollback(self) -> None:
        """Forget what the transaction did, here and in the database."""
        self._db.execute("ROLLBACK")
        for step in reversed(self._undo or []):
            step()
        self._undo = None
        self._refresh_due()

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return self._undo is not None

    # -- items ----------------------------------------------------------------------------

    def get(self, space: str, id_: str) -> Body | None:
        """The item, or None."""
        return self._items.get(space, {}).get(id_)

    def put(self, space: str, id_: str, body: Body) -> Body:
        """Create or replace an item; a new one goes to the end of its space's order."""
        items = self._items.setdefault(space, {})
        before = items.get(id_)
        items[id_] = body
        if before is None:
            self._seq += 1
            self._db.execute(
                "INSERT INTO items VALUES (?, ?, ?, ?)", (space, id_, self._seq, orjson.dumps(body))
            )
        else:
            self._db.execute(
                "UPDATE items SET body = ? WHERE space = ? AND id = ?",
                (orjson.dumps(body), space, id_),
            )
        if self._undo is not None:
            if before is None:
                self._undo.append(partial(_take_out, items, id_))
            else:
                self._undo.append(partial(items.__setitem__, id_, before))
        return body

    def remove(self, space: str, id_: str) -> Body | None:
        """Take an item out and return it, or None when there is none."""
        items = self._items.get(space, {})
        before = items.get(id_)
        if before is None:
            return None
        order = list(items)
        del items[id_]
        self._db.execute("DELETE FROM items WHERE space = ? AND id = ?", (space, id_))
        if self._undo is not None:

            def back() -> None:
                items[id_] = before
                rest = {name: items[name] for name in order if name in items}
                rest.update(items)
                items.clear()
                items.update(rest)

            self._undo.append(back)
        return before

    def items(self, space: str) -> Iterator[tuple[str, Body]]:
        """Every item of a space in order of creation (safe to change while iterating)."""
        yield from list(self._items.get(space, {}).items())

    def count(self, space: str) -> int:
        """How many items a space holds."""
        return len(self._items.get(space, {}))

    def spaces(self) -> list[str]:
        """The names of all spaces that hold something."""
        return [name for name, items in self._items.items() if items]

    # -- timers ---------------------------------------------------------------------------

    def add_timer(self, due: float, kind: str, body: Body) -> int:
        """Have `kind` run at `due` (sandbox seconds since 1970); returns the timer's id."""
        cursor = self._db.execute(
            "INSERT INTO timers (due, kind, body) VALUES (?, ?, ?)", (due, kind, orjson.dumps(body))
        )
        self._next_due = min(self._next_due, due)
        return int(cursor.lastrowid or 0)

    def cancel_timer(self, id_: int) -> None:
        """Forget a timer; none by that id is no error."""
        self._db.execute("DELETE FROM timers WHERE id = ?", (id_,))
        self._refresh_due()

    @property
    def next_due(self) -> float:
        """When the next timer is due; infinity when there is none."""
        return self._next_due

    def pop_timer(self, now: float) -> tuple[float, str, Body] | None:
        """Take the earliest timer that is due at `now`: when, what and with which body."""
        if self._next_due > now:
            return None
        row = self._db.execute(
            "SELECT id, due, kind, body FROM timers WHERE due <= ? ORDER BY due, id LIMIT 1", (now,)
        ).fetchone()
        if row is None:
            self._refresh_due()
            return None
        self._db.execute("DELETE FROM timers WHERE id = ?", (row[0],))
        self._refresh_due()
        return float(row[1]), str(row[2]), orjson.loads(row[3])

    def _refresh_due(self) -> None:
        row = self._db.execute("SELECT min(due) FROM timers").fetchone()
        self._next_due = float("inf") if row[0] is None else float(row[0])

    # -- events and journal ---------------------------------------------------------------

    def append_event(self, stream: str, at: float, visible: float, body: Body) -> None:
        """Add to an event stream (an Activity Log, resource changes); seen from `visible` on."""
        self._db.execute(
            "INSERT INTO events (stream, at, visible, body) VALUES (?, ?, ?, ?)",
            (stream, at, visible, orjson.dumps(body)),
        )

    def events(
        self, stream: str, since: float, until: float, now: float
    ) -> Iterator[tuple[int, Body]]:
        """What of a stream happened in [since, until] and can be seen at `now`, newest first."""
        for seq, body in self._db.execute(
            "SELECT seq, body FROM events WHERE stream = ? AND at >= ? AND at <= ? "
            "AND visible <= ? ORDER BY at DESC, seq DESC",
            (stream, since, until, now),
        ).fetchall():
            yield int(seq), orjson.loads(body)

    def journal(self, at: float, body: Body) -> None:
        """Note a request."""
        self._db.execute("INSERT INTO journal (at, body) VALUES (?, ?)", (at, orjson.dumps(body)))

    def read_journal(self, after: int = 0, limit: int = 100_000) -> Iterator[Body]:
        """The noted requests in order, with their `seq`, from `after` on."""
        for seq, body in self._db.execute(
            "SELECT seq, body FROM journal WHERE seq > ? ORDER BY seq LIMIT ?", (after, limit)
        ).fetchall():
            yield {"seq": seq, **orjson.loads(body)}

    def clear_journal(self) -> None:
        """Forget the noted requests."""
        self._db.execute("DELETE FROM journal")

    # -- settings, whole contents, end ----------------------------------------------------

    def meta(self, name: str) -> Any:
        """A setting by name (JSON), or None."""
        row = self._db.execute("SELECT value FROM meta WHERE name = ?", (f"x-{name}",)).fetchone()
        return None if row is None else orjson.loads(row[0])

    def set_meta(self, name: str, value: object) -> None:
        """Keep a setting."""
        self._db.execute(
            "INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"x-{name}", orjson.dumps(value).decode())
        )

    def dump(self) -> Body:
        """Everything but the journal, as JSON that `load` takes back."""
        return {
            "format": FORMAT,
            "items": [
                {"space": space, "id": id_, "body": body}
                for space, items in self._items.items()
                for id_, body in items.items()
            ],
            "timers": [
                {"due": due, "kind": kind, "body": orjson.loads(body)}
                for due, kind, body in self._db.execute(
                    "SELECT due, kind, body FROM timers ORDER BY id"
                )
            ],
            "events": [
                {"stream": s, "at": at, "visible": visible, "body": orjson.loads(body)}
                for s, at, visible, body in self._db.execute(
                    "SELECT stream, at, visible, body FROM events ORDER BY seq"
                )
            ],
            "meta": {
                name[2:]: orjson.loads(value)
                for name, value in self._db.execute("SELECT * FROM meta WHERE name LIKE 'x-%'")
                if name[2:] not in _OWN
            },
        }

    def load(self, dumped: Body) -> None:
        """Replace everything but the journal. Raises StateError when it is not a dump."""
        if dumped.get("format") != FORMAT or not isinstance(dumped.get("items"), list):
            raise StateError(f"not a dump of this version of the sandbox (format {FORMAT})")
        mirror = {space: dict(items) for space, items in self._items.items()}
        self._db.execute("BEGIN")
        try:
            self._erase()
            for item in dumped["items"]:
                self.put(item["space"], item["id"], item["body"])
            for timer in dumped.get("timers", []):
                self.add_timer(timer["due"], timer["kind"], timer["body"])
            for event in dumped.get("events", []):
                self.append_event(event["stream"], event["at"], event["visible"], event["body"])
            for name, value in dumped.get("meta", {}).items():
                if name not in _OWN:
                    self.set_meta(name, value)
        except (KeyError, TypeError, ValueError, AttributeError, sqlite3.Error) as error:
            self._db.execute("ROLLBACK")
            self._items.clear()
            self._items.update(mirror)
            self._refresh_due()
            raise StateError(f"not a dump of the sandbox: {error!r}") from None
        self._db.execute("COMMIT")

    def reset(self) -> None:
        """Forget everything but the settings."""
        self._db.execute("BEGIN")
        self._erase()
        self._db.execute("COMMIT")

    def _erase(self) -> None:
        self._db.execute("DELETE FROM items")
        self._db.execute("DELETE FROM timers")
        self._db.execute("DELETE FROM events")
        self._items.clear()
        self._next_due = float("inf")

    def close(self) -> None:
        """Fold the log in and let go of the folder."""
        self._db.close()


def _take_out(items: dict[str, Body], id_: str) -> None:
    items.pop(id_, None)
