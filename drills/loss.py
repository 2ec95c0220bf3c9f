"""The loss statement of a failback: what the standby was written since, and what of it is lost."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from drills.checks.state import models_of
from snapshots.compare import compare
from snapshots.mapping import adopt, logical, translate
from snapshots.model import ChangeType, Json, JsonObject, Key, Snapshot, canonical
from snapshots.plan import recoverable
from snapshots.restore import in_regions, list_identity
from snapshots.steps import Mapping as Substitutions

_SHOWN = 100  # entries of a statement
_WORDS = {
    ChangeType.ADDED: "made",
    ChangeType.CHANGED: "changed",
    ChangeType.REMOVED: "deleted",
    ChangeType.UNKNOWN: "not known",
}
# What belongs to Azure or to a subscription, and not to what was written.
_NOT_LOOKED_AT = "Conversations (threads) stay in the standby: none of them comes home."
_NOT_WRITTEN = frozenset(
    {"resource-group", "lock", "role-assignment", "private-endpoint-connection"}
)


@dataclass(frozen=True, slots=True)
class Written:
    """One thing that the standby has otherwise than it had."""

    key: Key  # in the standby's names
    how: ChangeType
    lost: str = ""  # why it cannot be brought home; "": it can

    def document(self) -> JsonObject:
        """Give it as evidence keeps it."""
        found: JsonObject = {"key": str(self.key), "what": _WORDS[self.how]}
        return {**found, "lost": self.lost} if self.lost else found


@dataclass(frozen=True, slots=True)
class Loss:
    """What was written in the standby since the snapshot, and what becomes of it."""

    written: tuple[Written, ...]

    @property
    def home(self) -> tuple[Key, ...]:
        """What can be brought home, in the standby's names."""
        kept = (ChangeType.ADDED, ChangeType.CHANGED)
        return tuple(w.key for w in self.written if w.how in kept and not w.lost)

    @property
    def lost(self) -> tuple[Written, ...]:
        """What would be lost: it cannot be brought home, or nobody knows what it is."""
        return tuple(w for w in self.written if w.lost)

    def document(self) -> JsonObject:
        """Give the statement as evidence keeps it."""
        written: list[Json] = [w.document() for w in self.written[:_SHOWN]]
        lost: list[Json] = [f"{w.key}: {w.lost}" for w in self.lost[:_SHOWN]]
        return {
            "written_since": written,
            "comes_home": len(self.home),
            "would_be_lost": list(lost),
            "not_looked_at": _NOT_LOOKED_AT,
        }

    def words(self) -> str:
        """Give it in one line."""
        if not self.written:
            return "nothing was written in the standby since"
        words = f"{len(self.written)} written in the standby since: {len(self.home)} come home"
        if not self.lost:
            return f"{words}, nothing is lost"
        names = ", ".join(w.key.name for w in self.lost[:3])
        more = f" and {len(self.lost) - 3} more" if len(self.lost) > 3 else ""
        return f"{words}, {len(self.lost)} would be lost: {names}{more}"


def loss_of(snapshot: Snapshot, standby: Snapshot, mapping: Substitutions) -> Loss:
    """Say what differs in the standby from what the snapshot put there, and from what it had there.

    `snapshot` is the newest one, `standby` the standby as it is now, `mapping` leads from primary
    to standby. What replication brought is as the mapped primary says; what the standby had of its
    own is as the snapshot says (where its region is looked at). The rest was written since. Pure.
    """
    standby = in_regions(standby, tuple(mapping.regions.values()))  # groups may hold both regions
    translated = translate(in_regions(snapshot, tuple(mapping.regions)), mapping)
    moved = frozenset(to for key, to in translated.keys.items() if to != key)
    mapped = _differing(translated.snapshot, standby, moved)
    its_own = in_regions(snapshot, tuple(mapping.regions.values()))
    own = _differing(replace(its_own, resources=logical(its_own.resources)), standby, frozenset())
    # What could not be made from nothing cannot be made at home either.
    there = logical(standby.resources)
    can = recoverable(there, {}, models=models_of(standby) | models_of(snapshot))
    sentences = {n.key: n.sentence for n in can.not_restorable if n.key not in can.wanted}
    written: list[Written] = []
    for key in sorted(mapped.keys() & own.keys()):
        if key.kind in _NOT_WRITTEN or key.name.lower().startswith("microsoft."):
            continue
        kinds = {mapped[key], own[key]}
        how = kinds.pop() if len(kinds) == 1 else ChangeType.CHANGED
        lost = "" if how is ChangeType.REMOVED else sentences.get(key, "")
        if not lost and how is not ChangeType.REMOVED and key not in can.wanted:
            lost = "It cannot be read, or is not written by muster."
        written.append(Written(key, how, lost))
    return Loss(tuple(written))


def _differing(
    expected: Snapshot, live: Snapshot, moved: AbstractSet[Key]
) -> dict[Key, ChangeType]:
    """Give what is otherwise in `live`; what Azure never gives back is not expected there."""
    there = logical(live.resources)
    models = models_of(live) | models_of(expected)
    can = recoverable(expected.resources, there, models=models, hidden=live.hidden)
    wanted, _ = adopt(can.wanted, there, moved)
    changes = compare(
        replace(expected, resources=wanted, gaps=(), stale={}),
        replace(live, resources=there, stale={}),
        list_identity,
    )
    found = {change.key: change.type for change in changes}
    for key in expected.resources.keys() & there.keys() - wanted.keys():
        # Never written by muster, and so not among the wanted: as it was is not new.
        if canonical(expected.resources[key].body) == canonical(there[key].body):
            found.pop(key, None)
    return found


def expected_at_home(
    snapshot: Snapshot, standby: Snapshot, loss: Loss, back: Substitutions, primary: str
) -> Snapshot:
    """Give what the primary shall be: as the snapshot says, with what came home. Pure."""
    home = translate(in_regions(standby, tuple(back.regions)), back)
    resources = dict(
        translate(in_regions(snapshot, (primary,)), Substitutions()).snapshot.resources
    )
    for key in loss.home:
        to = home.keys.get(key)
        if to is not None and to in home.snapshot.resources:
            resources[to] = home.snapshot.resources[to]
    return replace(snapshot, resources=resources)
