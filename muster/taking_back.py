"""Take back what a drill's restore wrote, and prove that everything is as it was before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from drills.verbs import TakenBack
from muster import __version__
from muster.verbs.replicate import tools_for
from muster.wiring import Wiring
from snapshots.cloud.place import Place, Plane
from snapshots.errors import MusterError, NotFoundError
from snapshots.kinds import BY_NAME
from snapshots.model import ChangeType, Key, Resource, Snapshot

if TYPE_CHECKING:
    from snapshots.steps import Record

_ACCOUNTS = {"api-version": "2025-09-01"}
_SHOWN = 10  # names in one line


def take_record_back(wiring: Wiring, id_: str, secret: Callable[[str], str]) -> TakenBack:
    """Undo a record, last step first, then look at the target: it must be as it was before.

    What an interrupted step made under an id that nobody wrote down is found by its name and
    deleted, too. Doing it twice is doing it once. `secret` answers references. Raises MusterError
    when the record cannot be read, or the target not be looked at.
    """
    from snapshots.apply import to_undo
    from snapshots.restore import take_back
    from snapshots.steps import Action, StepState

    records = wiring.records()
    try:
        record = records.read(id_)
    except NotFoundError:
        return TakenBack(proof=(f"record {id_} was never begun",))
    touched = to_undo(record)
    if not any(outcome.state is StepState.BEGUN for outcome in record.outcomes):
        return TakenBack(proof=(f"record {id_} did nothing",))
    left: list[str] = []
    removed: list[str] = []
    if touched:
        threads = wiring.settings.restore.threads
        tools = replace(tools_for(wiring, record), secret=secret)
        # What the record made belongs to it, whatever was done to it since.
        record = take_back(
            tools,
            records,
            id_,
            threads=threads,
            overwrite=lambda step: step.action is not Action.UPDATE,
        )
        for step in touched:
            last = record.last(step.id)
            if last is not None and last.state is StepState.UNDONE:
                removed.append(f"{step.action.value} of {step.key}")
            else:
                why = last.error if last is not None else "not reached"
                left.append(f"{step.key} was not taken back: {why}")
    found = _Target(wiring, record)
    removed += found.strays()
    different = found.different()
    # What could not be undone and is as it was all the same is no leaving.
    left = [*different] if found.seen else [*left, *different]
    held = found.held()
    left += held
    proof: list[str] = []
    if not left:
        count = len(found.keys)
        proof.append(f"{count} resources that record {id_} touched are as they were before")
        if found.made:
            proof.append(f"{len(found.made)} accounts it made are purged: nothing is billed")
    return TakenBack(
        removed=tuple(removed), left=tuple(left), proof=tuple(proof), unknown=not found.seen
    )


class _Target:
    """The target of a record as it is now, beside what it was."""

    def __init__(self, wiring: Wiring, record: Record) -> None:
        from snapshots.steps import Action

        self._wiring = wiring
        self._record = record
        self._before: dict[Key, Resource] = {}
        self.keys: set[Key] = set()
        self.made: set[Key] = set()  # accounts
        back: set[Key] = set()
        for step in record.plan.steps:
            if step.key not in self.keys and step.before is not None:
                self._before[step.key] = step.before
            self.keys.add(step.key)
            if step.action is Action.SWITCH:
                back.add(step.key)
            elif step.action is Action.CREATE and step.key.kind == "account":
                self.made.add(step.key)
        self.made -= back  # taken back from soft deletion, and deleted softly again
        self._now = self._look()
        self.seen = not any(self._now.hidden(key) for key in self.keys)

    def _look(self) -> Snapshot:
        from snapshots.take import Scope, TakeOptions, take

        accounts: dict[tuple[str, str], set[str]] = {}
        for key in self.keys:
            if len(key.path) < 2 or "/" in key.path[1]:
                continue
            some = accounts.setdefault((key.path[0], key.path[1]), set())
            deep = 3 if _attached(key) else 2  # what hangs on a group has a name and no account
            if len(key.path) > deep and "/" not in key.path[2]:
                some.add(key.path[2])
        scopes = [
            Scope(subscription, (group,), tuple(sorted(some)) or ("",))
            for (subscription, group), some in sorted(accounts.items())
        ]
        whole = {key.path[0] for key in self.keys} - {scope.subscription for scope in scopes}
        scopes += [Scope(subscription, accounts=("",)) for subscription in sorted(whole)]
        wiring = self._wiring
        return take(
            self._record.plan.estate,
            scopes,
            wiring.cloud(),
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            version=__version__,
            payloads=wiring.vault(),
            options=TakeOptions(threads=wiring.settings.restore.threads, reference=False),
        )

    def strays(self) -> list[str]:
        """Delete what interrupted steps made under ids that were never written down."""
        from snapshots.writing import Writer

        tools = self._wiring.restore_tools()
        ids = self._record.ids
        writer = Writer(tools.cloud, tools.store, tools.clock, lambda: ids, _regions(self._record))
        removed: list[str] = []
        for key in sorted(self.keys - set(self._before), reverse=True):
            there = self._now.resources.get(key)
            if there is None or not BY_NAME[key.kind].random_id:
                continue
            try:
                writer.delete(there, there.id)
            except MusterError:
                continue  # the second look names it
            removed.append(f"{key}, which nobody had written down")
        if removed:
            self._now = self._look()
        return removed

    def different(self) -> list[str]:
        """Say what is not as it was before the record."""
        from snapshots.compare import compare
        from snapshots.mapping import logical
        from snapshots.restore import list_identity

        here = {k: r for k, r in logical(self._now.resources).items() if k in self.keys}
        before = replace(self._now, resources=self._before, gaps=(), stale={})
        now = replace(self._now, resources=here, stale={})
        words = {
            ChangeType.ADDED: "is still there",
            ChangeType.REMOVED: "is gone, and was there before",
            ChangeType.CHANGED: "is not as it was before",
            ChangeType.UNKNOWN: "could not be looked at",
        }
        found = [
            f"{change.key} {words[change.type]}"
            for change in compare(before, now, list_identity)
            if change.key in self.keys
        ]
        if len(found) > _SHOWN:
            found = [*found[:_SHOWN], f"and {len(found) - _SHOWN} more"]
        return found

    def held(self) -> list[str]:
        """Say which accounts that it made are soft-deleted, and may be billed."""
        cloud = self._wiring.cloud()
        found: list[str] = []
        for subscription in sorted({key.path[0] for key in self.made}):
            path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
            listed = cloud.list(
                Place(Plane.ARM, "", subscription, ""),
                f"{path}/deletedAccounts",
                params=_ACCOUNTS,
                kind="deleted-account",
            )
            for wire in listed:
                id_ = str(wire.get("id"))
                if any(_names(id_, key) for key in self.made):
                    found.append(f"{id_} is not purged, and may be billed")
        return found


def _attached(key: Key) -> bool:
    kind = BY_NAME.get(key.kind)
    return kind is not None and kind.attached


def _names(id_: str, key: Key) -> bool:
    parts = id_.lower().split("/")
    return f"/resourcegroups/{key.path[1]}/" in id_.lower() and parts[-1] == key.path[2]


def _regions(record: Record) -> Callable[[Key], str]:
    found = {step.key.path[:3]: step.region for step in record.plan.steps if step.region}
    return lambda key: found.get(key.path[:3], "")
