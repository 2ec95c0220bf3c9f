"""Records on disk and in the vault: one JSONL file for each applied plan, written ahead.

Every line is on the disk before the call that it announces leaves. A copy goes to the vault before
the first step, every few seconds after, and at the end, so that a lost machine can be followed.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from threading import RLock
from typing import Protocol, Self

import orjson

from snapshots.clock import Clock
from snapshots.errors import DamagedStoreError, LockedError, MusterError, NotFoundError
from snapshots.model import JsonObject, Key
from snapshots.steps import IdMap, Outcome, Plan, Record, StepState

_NAME = re.compile(r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}")
_COPY_EVERY = 5.0  # seconds between two copies into the vault
FOLDER = "records"
# What is made again by an undo has a new id as well, and what refers to it follows.
_CARRIES = frozenset({StepState.DONE, StepState.ADOPTED, StepState.UNDONE})


class Document(Protocol):
    """A small document of the vault, with the etag that guards its next replacement."""

    @property
    def data(self) -> bytes:
        """Its bytes."""
        ...

    @property
    def etag(self) -> str:
        """Its etag."""
        ...


class Documents(Protocol):
    """Where records are copied to: what they ask of the vault."""

    def read_document(self, path: str) -> Document:
        """Read one. Raises NotFoundError."""
        ...

    def replace_document(self, path: str, data: bytes, etag: str | None) -> str:
        """Replace one, or make it when `etag` is None; give the new etag."""
        ...

    def documents(self, prefix: str = "") -> tuple[str, ...]:
        """Give the paths that begin so."""
        ...


class Records:
    """The folder of records, and their copies in the vault."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        vault: Documents | None = None,
        begun: Callable[[str], None] | None = None,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._vault = vault
        self._begun = begun

    def announcing(self, begun: Callable[[str], None]) -> Records:
        """Give the same records, telling the id of each new one before its first step."""
        return Records(self._folder, clock=self._clock, vault=self._vault, begun=begun)

    def begin(self, plan: Plan, ids: IdMap | None = None) -> Journal:
        """Start a record for a plan that is about to be applied; `ids` is what is there now."""
        now = self._clock.now()
        id_ = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self._folder.mkdir(parents=True, exist_ok=True)
        there = ids or IdMap()
        record = Record(id=id_, plan=plan, started_at=now, ids=there, planned_ids=there)
        journal = Journal(self._path(id_), record, self._clock, self._vault)
        journal.write(
            {
                "record": id_,
                "at": now.isoformat(),
                "plan": plan.document(),
                "ids": record.ids.document(),
            }
        )
        journal.copy()
        if self._begun is not None:
            self._begun(id_)
        return journal

    def open(self, id_: str) -> Journal:
        """Open a record to go on with it. Raises NotFoundError, LockedError, DamagedStoreError."""
        id_ = self.find(id_)
        path = self._path(id_)
        if not path.is_file():
            self._fetch(id_)
        return Journal(path, read(path), self._clock, self._vault)

    def read(self, id_: str) -> Record:
        """Read a record. Raises NotFoundError, DamagedStoreError."""
        id_ = self.find(id_)
        path = self._path(id_)
        if not path.is_file():
            self._fetch(id_)
        return read(path)

    def all(self) -> tuple[str, ...]:
        """Give the ids of all records, oldest first, those in the vault too."""
        found = {path.stem for path in self._folder.glob("*.jsonl") if _NAME.fullmatch(path.stem)}
        if self._vault is not None:
            for path in self._vault.documents(f"{FOLDER}/"):
                name = path.removeprefix(f"{FOLDER}/").removesuffix(".jsonl")
                if _NAME.fullmatch(name):
                    found.add(name)
        return tuple(sorted(found))

    def grown(self, known: Mapping[str, int]) -> Iterator[tuple[str, int, Record | None]]:
        """Give the records with more bytes than `known` says: id, bytes, and what it says now.

        None stands for one that cannot be read. One of another host is looked at for a week.
        """
        young = f"{self._clock.now() - timedelta(days=7):%Y%m%dT%H%M%SZ}"
        for id_ in self.all():
            path = self._path(id_)
            if path.is_file():
                size = path.stat().st_size
                if size == known.get(id_):
                    continue
                lines = _lines(path)
            elif self._vault is None or (id_ in known and id_ < young):
                continue
            else:
                data = self._vault.read_document(f"{FOLDER}/{id_}.jsonl").data
                size = len(data)
                if size == known.get(id_):
                    continue
                lines = _lines_of(data)
            record: Record | None = None
            try:
                for line in lines:
                    record = _taken_in(record, line)
            except (ValueError, KeyError):
                record = None
            yield id_, size, record

    def find(self, text: str) -> str:
        """Give the id that `text` means: an id, its beginning, or "last". Raises NotFoundError."""
        known = self.all()
        if text == "last" and known:
            return known[-1]
        fitting = [id_ for id_ in known if id_ == text or (text and id_.startswith(text))]
        if len(fitting) == 1:
            return fitting[0]
        near = f"known: {', '.join(known[-5:])}" if known else "nothing was applied here yet"
        what = "more than one record begins so" if fitting else "there is no such record"
        raise NotFoundError(f"{what}: {text}", where=str(self._folder), remedy=near)

    def _path(self, id_: str) -> Path:
        return self._folder / f"{id_}.jsonl"

    def _fetch(self, id_: str) -> None:
        assert self._vault is not None  # `find` saw it there
        data = self._vault.read_document(f"{FOLDER}/{id_}.jsonl").data
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = self._folder / f".{id_}.{os.getpid()}.new"
        fresh.write_bytes(data)
        fresh.replace(self._path(id_))


@dataclass(slots=True)
class Journal:
    """One record that is being written: a line is on the disk before `write` returns."""

    path: Path
    record: Record
    clock: Clock
    vault: Documents | None = None
    _descriptor: int = -1
    _lock: RLock = field(default_factory=RLock)
    _etag: str | None = None
    _copied: float = 0.0
    _trouble: str = ""

    def __post_init__(self) -> None:
        self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise LockedError(
                "somebody else works on this record",
                where=str(self.path),
                remedy="wait until it ends, or stop it",
            ) from error
        _mend(self._descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def trouble(self) -> str:
        """What the last copy into the vault ran into, "" when it is there."""
        return self._trouble

    def close(self) -> None:
        """Copy it a last time and give the file up."""
        if self._descriptor >= 0:
            self.copy()
            os.close(self._descriptor)
            self._descriptor = -1

    def write(self, document: JsonObject) -> None:
        """Append one line; it is on the disk when this returns."""
        data = orjson.dumps(document) + b"\n"
        with self._lock:
            written = os.write(self._descriptor, data)
            while written < len(data):
                written += os.write(self._descriptor, data[written:])
            os.fdatasync(self._descriptor)
        if self.clock.now().timestamp() - self._copied > _COPY_EVERY:
            self.copy()

    def note(self, outcome: Outcome, *, key: Key | None = None, old: str = "") -> None:
        """Write down how a step stands, and carry its new id."""
        with self._lock:
            ids = self.record.ids
            if outcome.id and key is not None and outcome.state in _CARRIES:
                ids = ids.with_id(key, outcome.id, old=old, principal=outcome.principal)
            outcomes = (*self.record.outcomes, outcome)
            self.record = replace(self.record, outcomes=outcomes, ids=ids)
            self.write(outcome.document())

    def replan(self, plan: Plan, ids: IdMap) -> None:
        """Write down that the rest goes by a new plan, whose steps count on.

        `ids` is what is in the target now.
        """
        steps = (
            *(
                s
                for s in self.record.plan.steps
                if self.record.state(s.id) is not StepState.WAITING
            ),
            *plan.steps,
        )
        whole = replace(plan, steps=steps)
        merged = IdMap(
            {**ids.ids, **self.record.ids.ids},
            {**self.record.ids.principals, **ids.principals},
            self.record.ids.old,
        )
        self.record = replace(
            self.record,
            plan=whole,
            ids=merged,
            planned_ids=ids,
            replans=self.record.replans + 1,
        )
        self.write(
            {"plan": whole.document(), "ids": merged.document(), "planned_ids": ids.document()}
        )

    def end(self, *, remaining: int, calls: Mapping[str, int]) -> None:
        """Write down that it ended, with what is left and how many requests it took, by kind."""
        now = self.clock.now()
        self.record = replace(self.record, finished_at=now, calls=dict(calls))
        self.write({"ended": now.isoformat(), "remaining": remaining, "calls": dict(calls)})
        self.copy()

    def copy(self) -> None:
        """Bring the vault's copy up to date. A vault that does not answer stops no restore."""
        if self.vault is None:
            return
        with self._lock:
            data = self.path.read_bytes()
            name = f"{FOLDER}/{self.path.name}"
            try:
                if self._etag is None:
                    try:
                        self._etag = self.vault.read_document(name).etag
                    except NotFoundError:
                        self._etag = None
                self._etag = self.vault.replace_document(name, data, self._etag)
                self._trouble = ""
            except MusterError as error:  # the record on the disk is the one that counts
                self._etag = None
                self._trouble = error.what
            self._copied = self.clock.now().timestamp()


def read(path: Path) -> Record:
    """Read a record's file. A last line that a crash cut is left out. Raises DamagedStoreError."""
    record: Record | None = None
    try:
        for line in _lines(path):
            record = _taken_in(record, line)
    except (ValueError, KeyError) as error:
        raise DamagedStoreError(
            f"the record cannot be read: {error}",
            where=str(path),
            remedy="take its copy from the vault (records/…), or restore anew",
        ) from error
    if record is None:
        raise DamagedStoreError(
            "the record is empty: it was never begun", where=str(path), remedy="restore anew"
        )
    return record


def _taken_in(record: Record | None, line: JsonObject) -> Record:
    plan = line.get("plan")
    if "record" in line and isinstance(plan, dict):
        there = _ids(line, "ids")
        return Record(
            id=str(line["record"]),
            plan=Plan.from_document(plan),
            started_at=datetime.fromisoformat(str(line["at"])),
            ids=there,
            planned_ids=there,
        )
    if record is None:
        message = "the first line is not the beginning of a record"
        raise ValueError(message)
    if isinstance(plan, dict):
        return replace(
            record,
            plan=Plan.from_document(plan),
            ids=_ids(line, "ids"),
            planned_ids=_ids(line, "planned_ids" if "planned_ids" in line else "ids"),
            replans=record.replans + 1,
        )
    if "ended" in line:
        calls = line.get("calls")
        made = calls if isinstance(calls, dict) else {}
        return replace(
            record,
            finished_at=datetime.fromisoformat(str(line["ended"])),
            calls={kind: n for kind, n in made.items() if isinstance(n, int)},
        )
    outcome = Outcome.from_document(line)
    carried = record.ids
    if outcome.id and outcome.state in _CARRIES:
        step = next((s for s in record.plan.steps if s.id == outcome.step), None)
        if step is not None:
            carried = carried.with_id(
                step.key, outcome.id, old=step.old_id, principal=outcome.principal
            )
    return replace(record, outcomes=(*record.outcomes, outcome), ids=carried, finished_at=None)


def _ids(line: JsonObject, place: str) -> IdMap:
    kept = line.get(place)
    document: JsonObject = kept if isinstance(kept, dict) else {}

    def table(name: str) -> dict[str, str]:
        found = document.get(name)
        return {k: str(v) for k, v in found.items()} if isinstance(found, dict) else {}

    return IdMap(
        {Key.parse(k): v for k, v in table("ids").items()},
        {Key.parse(k): v for k, v in table("principals").items()},
        table("old"),
    )


def _lines(path: Path) -> Iterator[JsonObject]:
    return _lines_of(path.read_bytes())


def _lines_of(data: bytes) -> Iterator[JsonObject]:
    whole = data[: data.rfind(b"\n") + 1]  # what a crash cut short was never acted on
    for line in whole.splitlines():
        found = orjson.loads(line)
        if not isinstance(found, dict):
            message = "a line is not an object"
            raise ValueError(message)
        yield found


def _mend(descriptor: int) -> None:
    """Cut off a line that a crash left unfinished, so that the next one starts on its own."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return
    tail = os.pread(descriptor, min(size, 1 << 20), max(0, size - (1 << 20)))
    if not tail.endswith(b"\n"):
        os.ftruncate(descriptor, size - len(tail) + tail.rfind(b"\n") + 1)
