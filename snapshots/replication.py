"""What is known of replicas in the standby region: which model came over how, proved when and how.

Azure lists no copied checkpoint, so this is their only registry. It lies on a branch of the ledger
of its own: it has a history, goes to the remote and into the vault's bundles with everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

import orjson

from snapshots.errors import DamagedStoreError
from snapshots.model import Json, JsonObject, Key, pretty

BRANCH: Final = "replication"
# "If a custom model's deployment is not called for 15 days, it is deleted; the model stays"
# (learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy, 2025-10-25).
IDLE_LIMIT: Final = timedelta(days=15)
_SCHEMA: Final = "muster-replication/1"


class CopyWay(StrEnum):
    """How a fine-tuned model gets into the standby region, best first."""

    SOURCE = "source"  # a deployment with model.source
    CHECKPOINT = "checkpoint"  # its checkpoint copied, then deployed under the same name
    CROSS_TENANT = "cross-tenant"  # model.sourceAccount and a token of the source's tenant
    RETRAIN = "retrain"  # trained again from the vault's files


class ReplicaState(StrEnum):
    """What is known of a replica."""

    PROVED = "proved"  # it answered as its source did
    UNPROVED = "unproved"  # it is there, and the proof could not be made
    WRONG = "wrong"  # it answers otherwise: not the model it should be
    MISSING = "missing"  # no way led there


@dataclass(frozen=True, slots=True)
class Proof:
    """What probing source and replica with the same prompts showed."""

    at: datetime
    prompts: int
    same: int  # answered alike by source and replica
    unlike_base: int  # answered otherwise by the base model; 0 when there is none to ask
    base: str = ""  # the deployment that stood for the base model, "" when there is none
    digest: str = ""  # of the source's answers: what a later proof may be held to

    @property
    def holds(self) -> bool:
        """Whether the replica is the model it should be."""
        return self.prompts > 0 and self.same == self.prompts

    def document(self) -> JsonObject:
        """Give it as JSON."""
        return {
            "at": self.at.isoformat(),
            "prompts": self.prompts,
            "same": self.same,
            "unlike_base": self.unlike_base,
            "base": self.base,
            "digest": self.digest,
        }


@dataclass(frozen=True, slots=True)
class Replica:
    """One fine-tuned model in the standby: where it came from, how, and what proves it."""

    source: Key  # the deployment in the primary that it stands for
    model: str  # the model's name in the primary
    target: Key  # the deployment in the standby, whether it stands now or not
    name: str  # the model's name in the standby
    way: CopyWay
    state: ReplicaState
    made_at: datetime
    source_at: datetime  # when the model was made in the primary
    deployed: bool = True  # False: the copy is kept cold, its test deployment is gone
    kept_alive_at: datetime | None = None  # last call or re-deployment by muster
    proof: Proof | None = None
    detail: str = ""

    @property
    def lag(self) -> timedelta:
        """How long after the model was made the replica was there."""
        return max(self.made_at - self.source_at, timedelta(0))

    @property
    def deadline(self) -> datetime | None:
        """When Azure deletes the standby's deployment unless it is called; None when cold."""
        if not self.deployed:
            return None
        return max(self.made_at, self.kept_alive_at or self.made_at) + IDLE_LIMIT

    def document(self) -> JsonObject:
        """Give it as JSON."""
        return {
            "source": str(self.source),
            "model": self.model,
            "target": str(self.target),
            "name": self.name,
            "way": self.way.value,
            "state": self.state.value,
            "made_at": self.made_at.isoformat(),
            "source_at": self.source_at.isoformat(),
            "deployed": self.deployed,
            "kept_alive_at": self.kept_alive_at.isoformat() if self.kept_alive_at else None,
            "proof": self.proof.document() if self.proof else None,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Run:
    """One replication that was carried through or not."""

    at: datetime
    complete: bool  # nothing was left to do afterwards
    steps: int
    seconds: float
    record: str = ""  # id of the Record, "" when nothing had to be done
    snapshot: str = ""  # the state of the primary that was replicated: a Snapshot-Id


@dataclass(frozen=True, slots=True)
class Replication:
    """Everything that is known of one pair."""

    primary: str
    standby: str
    last: Run | None = None
    replicas: tuple[Replica, ...] = ()

    def of(self, source: Key) -> Replica | None:
        """Give the replica that stands for a deployment of the primary."""
        return next((replica for replica in self.replicas if replica.source == source), None)

    def with_replica(self, replica: Replica) -> Replication:
        """Give the same with one replica new or replaced."""
        others = [r for r in self.replicas if r.source != replica.source]
        ordered = sorted((*others, replica), key=lambda r: r.source)
        return replace(self, replicas=tuple(ordered))

    def without(self, source: Key) -> Replication:
        """Give the same without a replica."""
        return replace(self, replicas=tuple(r for r in self.replicas if r.source != source))

    def document(self) -> JsonObject:
        """Give it as JSON."""
        return {
            "schema": _SCHEMA,
            "primary": self.primary,
            "standby": self.standby,
            "last": {
                "at": self.last.at.isoformat(),
                "complete": self.last.complete,
                "steps": self.last.steps,
                "seconds": self.last.seconds,
                "record": self.last.record,
                "snapshot": self.last.snapshot,
            }
            if self.last
            else None,
            "replicas": [replica.document() for replica in self.replicas],
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Json]) -> Replication:
        """Read back what `document()` wrote. Raises ValueError when it is not one."""
        match document:
            case {
                "schema": str(schema),
                "primary": str(primary),
                "standby": str(standby),
                "replicas": list(replicas),
            } if schema == _SCHEMA:
                return cls(
                    primary,
                    standby,
                    _run(document.get("last")),
                    tuple(_replica(item) for item in replicas),
                )
            case _:
                message = "not a document of a replication"
                raise ValueError(message)


class Branches(Protocol):
    """What is asked of the ledger."""

    def tip(self, branch: str) -> str:
        """Give the commit a branch stands at; empty when there is none."""
        ...

    def files(self, ref: str, prefix: str = "") -> Iterable[tuple[str, bytes]]:
        """Give (path, content) of every file of a state."""
        ...

    def put(
        self,
        branch: str,
        files: Mapping[str, bytes | None],
        message: str,
        trailers: Mapping[str, str] | None = None,
        *,
        expected_parent: str | None = None,
    ) -> str:
        """Write files to a branch as one commit."""
        ...


def path_of(primary: str, standby: str) -> str:
    """Give the place of a pair's document on the branch."""
    return f"replication/{_safe(primary)}-{_safe(standby)}.json"


def read(ledger: Branches, primary: str, standby: str) -> Replication:
    """Give what is known of a pair; an empty one before the first replication.

    Raises DamagedStoreError when the document cannot be read.
    """
    tip = ledger.tip(BRANCH)
    path = path_of(primary, standby)
    for found, content in ledger.files(tip, path) if tip else ():
        if found != path:
            continue
        try:
            document = orjson.loads(content)
            if not isinstance(document, dict):
                message = "not an object"
                raise ValueError(message)  # noqa: TRY301 - one way out for all damage
            return Replication.from_document(document)
        except ValueError as error:
            raise DamagedStoreError(
                f"what is known of replicas cannot be read: {error}",
                where=f"{BRANCH}:{path}",
                remedy="`git log` of that branch of the ledger shows the last good one; put it "
                "back, or take the file out to begin anew",
            ) from error
    return Replication(primary, standby)


def write(ledger: Branches, replication: Replication, why: str) -> str:
    """Keep what is known of a pair; give the commit. Raises ConcurrentError when somebody did."""
    path = path_of(replication.primary, replication.standby)
    return ledger.put(
        BRANCH,
        {path: pretty(replication.document())},
        why,
        {"Pair": f"{replication.primary} -> {replication.standby}"},
        expected_parent=ledger.tip(BRANCH),
    )


def _safe(region: str) -> str:
    return re.sub(r"[^a-z0-9]", "", region.lower()) or "none"


def _when(value: Json) -> datetime:
    if not isinstance(value, str):
        message = "a time is missing"
        raise ValueError(message)
    found = datetime.fromisoformat(value)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _run(value: Json) -> Run | None:
    if value is None:
        return None
    found = value if isinstance(value, dict) else {}
    match found:
        case {"at": at, "complete": bool(complete), "steps": int(steps), "seconds": seconds} if (
            isinstance(seconds, int | float)
        ):
            record, snapshot = found.get("record"), found.get("snapshot")
            return Run(
                _when(at), complete, steps, float(seconds), str(record or ""), str(snapshot or "")
            )
        case _:
            message = "the last run is damaged"
            raise ValueError(message)


def _proof(value: Json) -> Proof | None:
    if value is None:
        return None
    found = value if isinstance(value, dict) else {}
    match found:
        case {"at": at, "prompts": int(prompts), "same": int(same), "unlike_base": int(unlike)}:
            return Proof(
                _when(at),
                prompts,
                same,
                unlike,
                str(found.get("base") or ""),
                str(found.get("digest") or ""),
            )
        case _:
            message = "a proof is damaged"
            raise ValueError(message)


def _replica(value: Json) -> Replica:
    found = value if isinstance(value, dict) else {}
    match found:
        case {
            "source": str(source),
            "model": str(model),
            "target": str(target),
            "name": str(name),
            "way": str(way),
            "state": str(state),
            "made_at": made,
            "source_at": began,
        }:
            alive = found.get("kept_alive_at")
            return Replica(
                Key.parse(source),
                model,
                Key.parse(target),
                name,
                CopyWay(way),
                ReplicaState(state),
                _when(made),
                _when(began),
                deployed=found.get("deployed") is not False,
                kept_alive_at=_when(alive) if alive is not None else None,
                proof=_proof(found.get("proof")),
                detail=str(found.get("detail") or ""),
            )
        case _:
            message = "a replica is damaged"
            raise ValueError(message)
