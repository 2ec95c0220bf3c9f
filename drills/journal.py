"""The run journal: what a drill is about to do, on the disk before it does it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import IO, Self

import orjson

from snapshots.errors import LockedError
from snapshots.model import Json, JsonObject

SUFFIX = ".jsonl"


class RunJournal:
    """One drill's journal, open for as long as the drill runs, locked against a second cleaner.

    Every line is fsynced. The lock goes with the process, also with one that is killed.
    """

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self._stream = stream
        self._lock = Lock()

    @classmethod
    def begin(cls, folder: Path, id_: str, header: JsonObject) -> Self:
        """Start a journal. The header is on the disk when this comes back."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"{id_}{SUFFIX}"
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        stream = os.fdopen(descriptor, "wb", buffering=0)
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        journal = cls(path, stream)
        journal.write({"event": "begin", **header})
        _sync_folder(folder)
        return journal

    @classmethod
    def take_over(cls, path: Path) -> Self:
        """Open the journal of a drill that is gone. Raises LockedError while it still runs."""
        stream = path.open("ab", buffering=0)
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.close()
            raise LockedError(
                "that drill still runs", where=str(path), remedy="wait for it, or use the switch"
            ) from error
        # A line that a crash cut short announces what was never begun: it goes, so that every other
        # line that cannot be read is known for damage.
        data = path.read_bytes()
        os.ftruncate(stream.fileno(), data.rfind(b"\n") + 1)
        return cls(path, stream)

    def write(self, event: Mapping[str, Json]) -> None:
        """Append one event; it is on the disk when this comes back."""
        with self._lock:
            self._stream.write(orjson.dumps(event) + b"\n")
            os.fsync(self._stream.fileno())

    def close(self, *, done: bool) -> None:
        """Let go; with `done`, everything is settled and the journal is removed."""
        with self._lock:
            answers_of(self.path).unlink(missing_ok=True)
            if done:
                self.path.unlink(missing_ok=True)
                _sync_folder(self.path.parent)
            self._stream.close()


@dataclass(frozen=True, slots=True)
class Written:
    """What a journal says."""

    path: Path
    header: JsonObject = field(default_factory=dict)
    undo: tuple[JsonObject, ...] = ()
    steps: tuple[JsonObject, ...] = ()
    gate: tuple[JsonObject, ...] = ()
    checks: tuple[JsonObject, ...] = ()
    approvals: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()  # what the script says shall stay
    facts: JsonObject = field(default_factory=dict)
    damaged: tuple[int, ...] = ()  # numbers of whole lines that cannot be read, from 1


def read(path: Path) -> Written:
    """Read a journal; a last line that was cut short is what never happened.

    What any other line that cannot be read wanted undone is not known: `damaged` names them.
    """
    header: JsonObject = {}
    facts: JsonObject = {}
    found: dict[str, list[JsonObject]] = {"undo": [], "step": [], "gate": [], "check": []}
    approvals: list[str] = []
    kept: list[str] = []
    damaged: list[int] = []
    data = path.read_bytes()
    for number, line in enumerate(data[: data.rfind(b"\n") + 1].split(b"\n")[:-1], 1):
        try:
            event = orjson.loads(line)
        except orjson.JSONDecodeError:
            event = None
        if not isinstance(event, dict):
            damaged.append(number)
            continue
        kind, what = event.get("event"), event.get("what")
        if kind == "begin":
            header = event
        elif kind == "approval" and isinstance(what, str):
            approvals.append(what)
        elif kind == "kept" and isinstance(what, str):
            kept.append(what)
        elif kind == "facts" and isinstance(what, dict):
            facts.update(what)
        elif kind in found and isinstance(what, dict):
            found[kind].append(what)
    return Written(
        path,
        header,
        tuple(found["undo"]),
        tuple(found["step"]),
        tuple(found["gate"]),
        tuple(found["check"]),
        tuple(approvals),
        tuple(kept),
        facts,
        tuple(damaged),
    )


def answers_of(journal: Path) -> Path:
    """Say where the answers to a running drill's questions are: beside its journal."""
    return journal.with_suffix(".answers")


def answer(journal: Path, who: str, *, question: int, yes: bool) -> None:
    """Answer a running drill's question of that number; on the disk when this comes back."""
    descriptor = os.open(answers_of(journal), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(descriptor, orjson.dumps({"who": who, "question": question, "yes": yes}) + b"\n")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_answers(journal: Path) -> Iterator[JsonObject]:
    """Give the answers so far."""
    try:
        data = answers_of(journal).read_bytes()
    except FileNotFoundError:
        return
    for line in data[: data.rfind(b"\n") + 1].splitlines():
        try:
            found = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if isinstance(found, dict):
            yield found


def unfinished(folder: Path) -> Iterator[Path]:
    """Give the journals of drills that did not end, oldest first."""
    if folder.is_dir():
        yield from sorted(folder.glob(f"*{SUFFIX}"))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
