"""What a drill asks of the rest of muster: the verbs, a person, a sandbox's faults, a signature."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from drills.model import CheckMaker, Verb
from snapshots.clock import Clock
from snapshots.cloud import Cloud
from snapshots.ledger import Ledger
from snapshots.model import JsonObject, Snapshot
from snapshots.steps import IdMap
from snapshots.steps import Mapping as Substitutions
from snapshots.vault import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What shall be restored, as a drill asks for it."""

    snapshot: Snapshot
    mapping: Substitutions
    only: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()  # of the snapshot's accounts; empty: all, and what is in none
    prune: bool = False
    placeholders: bool = False  # where no secret is at hand, a made-up one is written


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What a restore, a replication or the plan of one came to."""

    steps: int
    detail: str  # one line
    record: str = ""
    ids: IdMap = field(default_factory=IdMap)
    remaining: tuple[str, ...] = ()  # what differs still, in words: it is not restored
    found: JsonObject = field(default_factory=dict)  # what is done, overwritten, deleted and lost


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """What became of a record that was undone."""

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()  # what is not as it was before
    proof: tuple[str, ...] = ()
    unknown: bool = False  # part of it could not be looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """The leave to change something, and what it is bound to.

    `leave` is told before the first change what takes it back; `tell` hears of each step ("": it
    goes on) and sets `stop` when the drill shall end: steps in hand are seen through.
    """

    leave: Callable[[JsonObject], None]
    stop: threading.Event
    tell: Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstructed:
    """What the vault alone gave back."""

    snapshot: Snapshot
    bundle: str
    payloads: Mapping[str, int]  # digest -> size, of those that were re-read and proved
    missing: tuple[str, ...]  # digests that are not there, or damaged


class Verbs(Protocol):
    """The verbs of the engine, as the wiring hands them in. Each raises MusterError."""

    def able(self) -> frozenset[Verb]:
        """Say which verbs there are."""
        ...

    def load(self, ref: str) -> Snapshot:
        """Give a snapshot of the ledger ("": the newest), or for "live" the estate as it is."""
        ...

    def look(self, groups: Mapping[str, Sequence[str]]) -> Snapshot:
        """Read what is in some resource groups; `groups` names them by subscription."""
        ...

    def restore(self, ask: Ask, *, act: Act | None) -> Restored:
        """Plan and apply; without `act`, only plan. Raises when a step failed or a gate closed."""
        ...

    def replicate(self, *, act: Act | None) -> Restored:
        """Bring the standby in step; without `act`, only say what would be done."""
        ...

    def take_back(self, item: JsonObject) -> TakenBack:
        """Undo what `Act.leave` was told, and look whether everything is as it was before.

        Doing it twice is doing it once. Raises MusterError when it could not be tried.
        """
        ...

    def reconstruct(self, ref: str = "") -> Reconstructed:
        """Build a ledger from the vault's bundle in an empty folder, and load a snapshot of it.

        The ledger that may be there is not opened. Every payload is read and hashed again.
        """
        ...


class Approver(Protocol):
    """Who is asked."""

    @property
    def name(self) -> str:
        """Who sits at the terminal, "" when nobody said."""
        ...

    def ask(self, question: str, allowed: Sequence[str]) -> str:
        """Give the name of who said yes. Raises RefusedError for a no, or when nobody is there."""
        ...


class Faults(Protocol):
    """A sandbox's control API. There is none for the real Azure."""

    def add(self, rule: JsonObject) -> None:
        """Break something; `rule` holds an id of the drill's choosing."""
        ...

    def remove(self, id_: str) -> None:
        """Mend it; nothing happens when it is not broken."""
        ...

    def broken(self) -> frozenset[str]:
        """Give the ids of what is broken now."""
        ...

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock on."""
        ...

    def control(self, call: str, body: JsonObject) -> None:
        """Send any other request: `call` is "PUT quota" and the like."""
        ...


class Signer(Protocol):
    """A configured SSH or GPG key."""

    @property
    def signs(self) -> bool:
        """Whether a key is configured."""
        ...

    def sign(self, data: bytes) -> str:
        """Give an armoured signature, "" when no key is configured."""
        ...

    def verify(self, data: bytes, signature: str) -> str:
        """Say who signed. Raises DamagedStoreError when the signature does not hold."""
        ...


def _silent(_text: str) -> None:
    return


def _unmarked(_what: str, _expires: timedelta) -> AbstractContextManager[object]:
    return nullcontext()


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """Everything a drill works with, handed in."""

    estate: str
    version: str
    cloud: Cloud
    clock: Clock
    ledger: Ledger
    vault: Vault
    verbs: Verbs
    make: CheckMaker
    state: Path  # folder of run journals and of the stop switch
    home: Path  # folder of the configuration: where `run` runs and files are switched
    subscription: str
    subscriptions: tuple[str, ...] = ()  # all in which a drill may have had its group
    primary: str = ""
    standby: str = ""
    mapping: Substitutions = field(default_factory=Substitutions)  # primary -> standby
    back: Substitutions = field(default_factory=Substitutions)  # standby -> primary
    approver: Approver | None = None
    faults: Faults | None = None
    signer: Signer | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    tell: Callable[[str], None] = _silent
    # Marks the estate as busy for the time of a block: nothing is reverted under a drill.
    busy: Callable[[str, timedelta], AbstractContextManager[object]] = _unmarked
    stopping: threading.Event = field(default_factory=threading.Event)

    @property
    def stop_file(self) -> Path:
        """The one stop switch: while this file is there, no drill starts and running ones end."""
        return self.state / "stop"
