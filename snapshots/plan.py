"""Turn changes into ordered steps, each with its undo: what a restore, revert or replication does.

The order comes from the dependency graph: what a body refers to, what holds it, and what its kind
declares that it needs. Nothing is deleted unless it is asked for, and never inside a gap.
"""

from __future__ import annotations

import fnmatch
import heapq
import math
from collections import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from snapshots.cloud.place import Plane
from snapshots.compare import body_paths, differences
from snapshots.errors import InputError
from snapshots.kinds import BY_NAME, KINDS, order
from snapshots.kinds.base import SUBSCRIPTION, By, Kind, Way
from snapshots.kinds.fields import Pattern, pointer
from snapshots.kinds.links import Links
from snapshots.kinds.openai import is_fine_tuned
from snapshots.mapping import put_at, region_of, take_at, versions_of
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Gap,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Recovery,
    Resource,
    canonical,
)
from snapshots.secrets import is_fingerprint
from snapshots.steps import (
    Action,
    Conflict,
    Keep,
    Mapping,
    NotRestorable,
    Plan,
    Question,
    Step,
    Substitution,
    token,
    token_of,
)
from snapshots.training import files_of, note_of, seconds_of
from snapshots.unchanged import calls_of

_AUTHORIZATION = frozenset({"role-assignment", "lock"})
_FILES = frozenset({"file", "project-file"})
# What cannot be changed once it is there. An account is never deleted to change it.
_FIXED: abc.Mapping[str, tuple[str, ...]] = {
    "account": ("/kind", "/location", "/properties/customSubDomainName"),
    "role-assignment": (
        "/properties/principalId",
        "/properties/roleDefinitionId",
        "/properties/scope",
    ),
    "file": ("",),  # the API has no call to change one
    "project-file": ("",),
}
# Set by the service once the projects are there; a project cannot be there before its account.
AFTERWARDS = ("defaultProject", "associatedProjects")
_HOLDERS = frozenset({"resource-group", "account", "project"})
_RANKS = order()


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one step takes: seconds of waiting, and requests."""

    seconds: float
    calls: float


PROVISIONED = "deployment (provisioned)"
FINE_TUNED = "deployment (fine-tuned)"


def variety(resource: Resource) -> str:
    """Give the kind, and of deployments whether Azure has to find units or weights for them."""
    if resource.key.kind != "deployment":
        return resource.key.kind
    if is_fine_tuned(str(take_at(resource.body, "/properties/model/name") or "")):
        return FINE_TUNED
    if "Provisioned" in str(take_at(resource.body, "/sku/name") or ""):
        return PROVISIONED
    return "deployment"


# Seconds: recordings of Azure where there are some (a Standard deployment 0.6 s, a project 6 s),
# else what operators report; records of earlier restores replace them (`learned`).
_USUAL: abc.Mapping[str, Estimate] = {
    "resource-group": Estimate(1, 1),
    "account": Estimate(20, 6),  # the write, then looks after 2, 5, 10, 16, 26 s
    "deployment": Estimate(0.6, 1),
    PROVISIONED: Estimate(30, 4),
    FINE_TUNED: Estimate(60, 6),
    "project": Estimate(6, 2),
    "account-capability-host": Estimate(60, 6),
    "project-capability-host": Estimate(60, 6),
    "managed-network": Estimate(30, 4),
    "file": Estimate(3, 2),
    "project-file": Estimate(3, 2),
    "vector-store": Estimate(3, 2),
    "project-vector-store": Estimate(3, 2),
    "rai-blocklist": Estimate(1, 2),
}
_OTHER = Estimate(1, 1)


@dataclass(frozen=True, slots=True)
class Estimates:
    """How long steps take, by variety and action; `learned` from records where there are any."""

    table: abc.Mapping[tuple[str, Action], Estimate] = field(default_factory=dict)

    def knows(self, kind: str, action: Action) -> bool:
        """Whether it was learned: then it holds all that such a step takes."""
        return (kind, action) in self.table

    def of(self, kind: str, action: Action) -> Estimate:
        """Give the estimate for one step; `kind` is what `variety` gives."""
        found = self.table.get((kind, action))
        if found is not None:
            return found
        usual = _USUAL.get(kind, _OTHER)
        if action is Action.DELETE and kind != "account":
            return Estimate(min(usual.seconds, 2.0), min(usual.calls, 2.0))
        return usual


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a plan is made for. Resources are in logical form and in the target's names.

    `wanted` is what shall be there, `there` what is; `sources` the wanted ones as they were taken.
    """

    estate: str
    snapshot: str
    target: str
    version: str
    now: datetime
    wanted: abc.Mapping[Key, Resource]
    there: abc.Mapping[Key, Resource]
    sources: abc.Mapping[Key, Resource] = field(default_factory=dict)
    mapping: Mapping = field(default_factory=Mapping)
    substitutions: tuple[Substitution, ...] = ()
    not_restorable: tuple[NotRestorable, ...] = ()
    conflicts: tuple[Conflict, ...] = ()
    unknown: tuple[Gap, ...] = ()
    only: tuple[str, ...] = ()
    prune: bool = False
    whole: bool = True  # everything of the target is in the snapshot's hands
    soft_deleted: abc.Mapping[Key, str] = field(default_factory=dict)  # account -> its region
    secrets: abc.Mapping[str, str] = field(default_factory=dict)  # key or glob -> reference
    estimates: Estimates = field(default_factory=Estimates)
    threads: int = 16
    first: int = 1  # the number of the first step
    regions: abc.Mapping[Key, str] = field(default_factory=dict)  # account -> region, when known


def plan(changes: Iterable[Change], context: Context) -> Plan:
    """Give the steps that turn what is there into what is wanted.

    `changes` goes from what is there (`before`) to what is wanted (`after`), as `compare` gives
    it. Unknown ones become no step: they are listed. What is there and not wanted is left, and
    listed, unless `prune` is set. Pure; empty when there is nothing to do.
    """
    drafting = _Drafting(context)
    for change in changes:
        drafting.add(change)
    return drafting.plan()


def chosen(only: Sequence[str], key: Key, source: Key | None = None) -> bool:
    """Whether a resource is among those that were named: whole keys, globs, or ends of keys."""
    if not only:
        return True
    texts = [str(key), *([str(source)] if source is not None else [])]
    return any(_fits(pattern, text) for pattern in only for text in texts)


def _fits(pattern: str, text: str) -> bool:
    pattern, text = pattern.strip().lower().strip("/"), text.lower()
    if any(mark in pattern for mark in "*?["):
        if fnmatch.fnmatchcase(text, pattern):
            return True
        kind_name, *names = text.split("/")
        first, *others = pattern.split("/")
        # A glob that names no kind is the end of a key, name by name, as one without stars is.
        return _ends(names, [first, *others]) or (
            bool(others) and fnmatch.fnmatchcase(kind_name, first) and _ends(names, others)
        )
    if text == pattern or text.startswith(pattern + "/") or text.endswith("/" + pattern):
        return True
    kind, _, rest = pattern.partition("/")
    return text.startswith(kind + "/") and bool(rest) and text.endswith("/" + rest)


def _ends(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if len(patterns) > len(names):
        return False
    pairs = zip(names[-len(patterns) :], patterns, strict=True)
    return all(fnmatch.fnmatchcase(name, pattern) for name, pattern in pairs)


# ------------------------------------------------------------------------------ recoverability


@dataclass(frozen=True, slots=True)
class Recoverable:
    """What of the wanted can be brought back, and what not, each with its reason."""

    wanted: dict[Key, Resource]
    there: dict[Key, Resource]
    not_restorable: tuple[NotRestorable, ...]


def recoverable(
    wanted: abc.Mapping[Key, Resource],
    there: abc.Mapping[Key, Resource],
    *,
    models: abc.Set[tuple[str, str]] = frozenset(),
    gone_scopes: abc.Set[tuple[str, ...]] = frozenset(),
    hidden: abc.Callable[[Key], object] = lambda _key: None,
    rebuilt: abc.Mapping[Key, Resource] | None = None,
    reasons: abc.Mapping[Key, str] | None = None,
) -> Recoverable:
    """Leave out what no write can bring back, and name it; both sides in logical form.

    `models` holds the fine-tuned models that can be deployed: (ARM id of the account that has the
    weights and lives, lower case; name of the model). `hidden` tells what a gap hides in the
    target: that is unknown, not lost. `gone_scopes` holds what locks and assignments hang on that
    is neither there nor of a kind (subscription, group, "provider/type/name"). `rebuilt` holds the
    models that are to be trained again, `reasons` why others cannot be, by their deployment. What
    held something lost is wanted without it. Pure.
    """
    lost: dict[Key, NotRestorable] = {}
    kept: dict[Key, Resource] = {}
    present: dict[Key, Resource] = {}
    for key, resource in there.items():
        kind = BY_NAME.get(key.kind)
        if kind is None or kind.way is Way.NEVER or not kind.writable(resource.body):
            continue
        if key not in wanted and kind.is_off(resource.body):
            continue  # as good as gone: Azure has no call to delete it
        if not (key.kind in _FILES and (_is_result(resource) or not resource.payloads)):
            present[key] = resource
    for key, resource in wanted.items():
        kind = BY_NAME.get(key.kind)
        if kind is None:
            continue
        if rebuilt and key in rebuilt:
            kept[key] = resource
            continue
        if kind.way is not Way.NEVER and not kind.writable(resource.body):
            continue
        comeback = kind.recovery(resource)
        never = kind.way is Way.NEVER or comeback.recovery in {Recovery.LOST, Recovery.RECORDED}
        other = there.get(key)
        if never and other is not None and kind.way is not Way.NEVER:
            # It is there, and no write could change it: only a difference is worth a word.
            present.pop(key, None)
            if canonical(other.body) != canonical(resource.body):
                lost[key] = NotRestorable(
                    key,
                    comeback.recovery,
                    f"It is another now. {comeback.sentence}",
                    comeback.source,
                )
        elif never:
            if other is None and hidden(key) is None:
                lost[key] = NotRestorable(
                    key, comeback.recovery, comeback.sentence, comeback.source
                )
        elif kind.attached and other is None and key.path[:3] in gone_scopes:
            lost[key] = NotRestorable(
                key,
                Recovery.RECORDED,
                "It hangs on a resource that is gone and that muster does not bring back: make "
                "that resource again, then restore this.",
                comeback.source,
            )
        elif key.kind in _FILES and _is_result(resource):
            present.pop(key, None)
            if other is not None and other.payloads == resource.payloads:
                continue
            lost[key] = NotRestorable(
                key,
                Recovery.RECORDED,
                "A file of results is written by the service alone: its bytes stay in the vault.",
                comeback.source,
            )
        else:
            kept[key] = resource
    for key, resource in list(kept.items()):
        weights = _weights(resource, kept) if key.kind == "deployment" else None
        if weights is None or key in there:
            continue
        account, name = weights
        if rebuilt and Key("fine-tuned-model", (*key.path[:3], name)) in rebuilt:
            continue
        if (account, name) not in models and hidden(key) is None:
            comeback = BY_NAME["fine-tuned-model"].comeback
            lost[key] = NotRestorable(
                key,
                Recovery.REBUILT,
                f"The weights of {name} are nowhere that can be asked: not in the target account, "
                f"and not in a source account that lives. {comeback.sentence}"
                + (f" {reasons[key]}" if reasons and key in reasons else ""),
                comeback.source,
            )
            del kept[key]
    kept, more = _without_lost(kept, frozenset(key for key in lost if key not in there))
    lost.update(more)
    return Recoverable(kept, present, tuple(lost[key] for key in sorted(lost)))


def _is_result(resource: Resource) -> bool:
    return resource.body.get("purpose") in {
        "fine-tune-results",
        "batch_output",
        "assistants_output",
    }


def _weights(deployment: Resource, resources: abc.Mapping[Key, Resource]) -> tuple[str, str] | None:
    """Give the account id and name of a deployment's fine-tuned model, None for a base model."""
    model = take_at(deployment.body, "/properties/model")
    if not isinstance(model, dict) or not is_fine_tuned(str(model.get("name") or "")):
        return None
    source = model.get("source") or model.get("sourceAccount")
    if not isinstance(source, str) or not source:
        account = resources.get(Key("account", deployment.key.path[:3]))
        source = account.id if account is not None else deployment.id.rsplit("/", 2)[0]
    return source.lower(), str(model["name"])


def _without_lost(
    kept: dict[Key, Resource], lost: frozenset[Key]
) -> tuple[dict[Key, Resource], dict[Key, NotRestorable]]:
    """Take what is lost out of the lists that name it; a holder that cannot do without is lost."""
    found = dict(kept)
    more: dict[Key, NotRestorable] = {}
    gone = {token(key): key for key in lost}
    for key, resource in kept.items():
        kind = BY_NAME[key.kind]
        body: JsonObject = resource.body
        named: list[Key] = []
        for reference in kind.references:
            if reference.by is not By.ID:
                continue
            places = [
                (path, gone[value])
                for path, value in Pattern.parse(reference.path).find(body)
                if isinstance(value, str) and value in gone
            ]
            if not places:
                continue
            named += [target for _, target in places]
            for path, _ in reversed(places):
                body = _cut(body, path)
        if named:
            found[key] = replace(resource, body=body)
            names = ", ".join(sorted({target.name for target in named}))
            more[key] = NotRestorable(
                key,
                Recovery.LOST,
                f"Comes back without what is lost: {names}.",
                kind.comeback.source,
            )
    return found, more


def _cut(body: JsonObject, path: tuple[str | int, ...]) -> JsonObject:
    """Take the nearest list item at or above a place out of a copy of the body.

    A canonical body has no empty list: the list goes with its last item.
    """
    ends = [n for n, step in enumerate(path) if isinstance(step, int)]
    if not ends:
        return _cut_name(body, path)
    where, number = path[: ends[-1]], path[ends[-1]]
    holder = take_at(body, pointer(where))
    if not isinstance(holder, list):
        return body
    made: list[Json] = [item for n, item in enumerate(holder) if n != number]
    if not made:
        return _cut_name(body, where)
    found = put_at(body, pointer(where), made)
    return found if isinstance(found, dict) else body


def _cut_name(body: JsonObject, path: Sequence[str | int]) -> JsonObject:
    holder = take_at(body, pointer(path[:-1])) if path[:-1] else body
    if not isinstance(holder, dict):
        return body
    made: JsonObject = {name: value for name, value in holder.items() if name != path[-1]}
    found = put_at(body, pointer(path[:-1]), made) if path[:-1] else made
    return found if isinstance(found, dict) else body


# ------------------------------------------------------------------------------------ drafting


@dataclass(slots=True)
class _Draft:
    action: Action
    key: Key
    before: Resource | None
    after: Resource | None
    paths: tuple[PathChange, ...] = ()
    note: str = ""
    needs: set[int] = field(default_factory=set)

    @property
    def writes(self) -> bool:
        return self.action is not Action.DELETE


@dataclass(slots=True)
class _Drafting:
    """A plan in the making."""

    context: Context
    drafts: list[_Draft] = field(default_factory=list)
    extra: list[Key] = field(default_factory=list)
    lost: list[NotRestorable] = field(default_factory=list)
    unknown: list[Gap] = field(default_factory=list)
    makers: list[_Draft] = field(default_factory=list)  # of groups, accounts and projects

    def add(self, change: Change) -> None:
        """Take one change in."""
        match change.type:
            case ChangeType.ADDED:
                assert change.after is not None
                self._create(change.after)
            case ChangeType.CHANGED:
                assert change.before is not None
                assert change.after is not None
                if change.renamed_from is not None:
                    self._create(change.after)
                    self._remove(change.before)
                else:
                    self._update(change, change.before, change.after)
            case ChangeType.REMOVED:
                assert change.before is not None
                self._remove(change.before)
            case ChangeType.UNKNOWN:
                if change.gap is not None:
                    self.unknown.append(change.gap)

    def _create(self, after: Resource) -> None:
        action, note = Action.CREATE, ""
        if after.key in self.context.soft_deleted:
            action = Action.SWITCH
            note = "taken back from soft deletion with what is in it, and then compared again"
        elif after.key.kind == "fine-tuned-model":
            action, note = Action.REBUILD, note_of(after)
        elif after.key.kind == "deployment" and take_at(after.body, "/properties/model/source"):
            action = Action.COPY
            note = "the weights are copied from the source account by Azure"
        above = self._above(after.key)
        if above in self.context.soft_deleted:
            note = "unless it comes back with its account"
        self.drafts.append(_Draft(action, after.key, None, after, note=note))

    def _update(self, change: Change, before: Resource, after: Resource) -> None:
        if after.key.kind == "account":
            change, after = self._without_projects(change, before, after)
            if not change.paths:
                return
        fixed = _FIXED.get(after.key.kind, ())
        hit = [p.path for p in change.paths if any(_below(p.path, f) for f in fixed)]
        if not hit:
            paths = tuple(change.paths)
            self.drafts.append(_Draft(Action.UPDATE, after.key, before, after, paths))
        elif after.key.kind == "account":
            self.lost.append(
                NotRestorable(
                    after.key,
                    Recovery.LOST,
                    f"{', '.join(hit)} of an account cannot be changed, and an account is never "
                    "deleted for it: restore it under another name.",
                    "https://learn.microsoft.com/azure/ai-services/recover-purge-resources",
                )
            )
            others = tuple(p for p in body_paths(change) if p.path not in hit)
            if others:
                keep = {f: take_at(before.body, f) for f in fixed}
                body: Json = after.body
                for path, value in keep.items():
                    if value is not None:
                        body = put_at(body, path, value)
                assert isinstance(body, dict)
                made = replace(after, body=body)
                self.drafts.append(_Draft(Action.UPDATE, after.key, before, made, others))
        else:
            note = "cannot be changed in place: it is made again"
            self.drafts.append(_Draft(Action.DELETE, before.key, before, None, note=note))
            self.drafts.append(
                _Draft(Action.CREATE, after.key, None, after, tuple(change.paths), note=note)
            )

    def _without_projects(
        self, change: Change, before: Resource, after: Resource
    ) -> tuple[Change, Resource]:
        """Which project is the default is set by the service while projects are made."""
        there = {k.path for k in self.context.there if k.kind == "project"}
        wanted = {k.path for k in self.context.wanted if k.kind == "project"}
        inside = {p for p in wanted - there if p[:3] == after.key.path}
        body = after.body
        if not inside:
            return change, after
        left = tuple(
            path
            for path in change.paths
            if not any(_below(path.path, f"/properties/{name}") for name in AFTERWARDS)
        )
        found = body.get("properties")
        properties = dict(found) if isinstance(found, dict) else {}
        for name in AFTERWARDS:
            properties.pop(name, None)
            kept = take_at(before.body, f"/properties/{name}")
            if kept is not None:
                properties[name] = kept
        made = replace(after, body={**body, "properties": properties})
        return replace(change, paths=left), made

    def _remove(self, before: Resource) -> None:
        kind = BY_NAME.get(before.key.kind)
        if kind is None or kind.way is Way.NEVER or not kind.writable(before.body):
            return
        if not self._ours(before.key):
            return
        if self.context.prune:
            self.drafts.append(_Draft(Action.DELETE, before.key, before, None))
        else:
            self.extra.append(before.key)

    def _ours(self, key: Key) -> bool:
        """Whether a restore has a say over what is in the target besides.

        Of a part, or in another place, only over what is in the accounts that it brings.
        """
        if self.context.whole:
            return True
        account = Key("account", key.path[:3])
        return len(key.path) > 3 and account in self.context.wanted

    def _above(self, key: Key) -> Key | None:
        return Key("account", key.path[:3]) if len(key.path) > 3 else None

    # ---- the order ------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Order the drafts and give them numbers."""
        self._connect()
        order_ = self._sorted()
        context = self.context
        self.makers = [d for d in self.drafts if d.key.kind in _HOLDERS]
        numbers = {index: f"s{context.first + n}" for n, index in enumerate(order_)}
        steps = tuple(self._step(index, numbers) for index in order_)
        path, length, makespan = schedule(steps, context.threads)
        seen: dict[tuple[str, str], Gap] = {}
        for gap in (*context.unknown, *self.unknown):
            seen.setdefault((str(gap.key), gap.detail), gap)
        return Plan(
            estate=context.estate,
            snapshot=context.snapshot,
            target=context.target,
            made_at=context.now,
            version=context.version,
            mapping=context.mapping,
            only=context.only,
            prune=context.prune,
            steps=steps,
            substitutions=context.substitutions,
            not_restorable=(*context.not_restorable, *self.lost),
            conflicts=context.conflicts,
            extra=tuple(sorted(self.extra)),
            unknown=tuple(seen.values()),
            critical_path=path,
            critical_path_seconds=round(length, 3),
            seconds=round(makespan, 3),
            calls=math.ceil(sum(step.calls for step in steps)),
        )

    def _rewire(self) -> None:
        """What is made again under a new id: those who hold the old id are written too."""
        again = {d.key for d in self.drafts if d.action is Action.DELETE} & {
            d.key for d in self.drafts if d.writes
        }
        again = {key for key in again if BY_NAME[key.kind].random_id}
        if not again:
            return
        known = {draft.key for draft in self.drafts}
        for holder, targets in _edges(self.context.wanted).items():
            before = self.context.there.get(holder)
            kind = BY_NAME[holder.kind]
            if holder in known or before is None or kind.way is Way.NEVER or not targets & again:
                continue
            note = "points to what is made again under a new id"
            after = self.context.wanted[holder]
            self.drafts.append(_Draft(Action.UPDATE, holder, before, after, note=note))

    def _connect(self) -> None:
        self._rewire()
        writing: dict[Key, int] = {}
        deleting: dict[Key, int] = {}
        for number, draft in enumerate(self.drafts):
            (writing if draft.writes else deleting)[draft.key] = number
        creating = {
            key: number
            for key, number in writing.items()
            if self.drafts[number].action is not Action.UPDATE
        }
        edges = _edges({**self.context.there, **self.context.wanted})
        before_edges = _edges(self.context.there)
        by_account = _grouped(creating, self.drafts)
        for number, draft in enumerate(self.drafts):
            if draft.writes:
                for target in edges.get(draft.key, ()):
                    if target in creating and not _inside(target, draft.key):
                        draft.needs.add(creating[target])
                draft.needs |= self._holders(draft.key, creating)
                draft.needs |= _elder_twin(draft.key, creating)
                if draft.action is Action.REBUILD and draft.after is not None:
                    files = files_of(draft.after)
                    draft.needs |= {creating[file] for file in files if file in creating}
                draft.needs |= self._declared(draft, by_account)
                if draft.key in deleting and not BY_NAME[draft.key.kind].random_id:
                    draft.needs.add(deleting[draft.key])  # the name must be free
            else:
                # Who refers to it goes, or is written, before it goes; so does what is in it.
                for other, other_number in deleting.items():
                    if other != draft.key and (
                        draft.key in before_edges.get(other, ()) or _inside(other, draft.key)
                    ):
                        draft.needs.add(other_number)
                for other, other_number in writing.items():
                    if other != draft.key and draft.key in before_edges.get(other, ()):
                        draft.needs.add(other_number)
                if draft.key in writing and BY_NAME[draft.key.kind].random_id:
                    draft.needs.add(writing[draft.key])  # the new one first
            draft.needs.discard(number)
        for number, draft in enumerate(self.drafts):
            if draft.key.kind == "lock" and draft.writes:
                scope = draft.key.path[:-1]
                draft.needs |= {
                    other
                    for other, d in enumerate(self.drafts)
                    if d.key.kind != "lock" and d.key.path[: len(scope)] == scope
                }
            elif draft.key.kind == "lock":
                scope = draft.key.path[:-1]
                for d in self.drafts:
                    if d.key.kind != "lock" and d.key.path[: len(scope)] == scope:
                        d.needs.add(number)

    def _holders(self, key: Key, creating: abc.Mapping[Key, int]) -> set[int]:
        """What holds a resource comes first: group, account, project; an assignment's scope."""
        kind = BY_NAME[key.kind]
        found: set[int] = set()
        candidates: list[Key] = []
        if kind.attached:
            names = key.path[:-1]
            by_length = {2: "resource-group", 3: "account", 4: "project"}
            if len(names) in by_length:
                candidates.append(Key(by_length[len(names)], names))
        elif kind.parent != SUBSCRIPTION:
            candidates.append(Key(kind.parent, key.path[:-1]))
        if len(key.path) >= 3 and kind.name == "account":
            candidates.append(Key("resource-group", key.path[:2]))
        found |= {creating[c] for c in candidates if c in creating}
        return found

    def _declared(
        self, draft: _Draft, groups: abc.Mapping[tuple[str, tuple[str, ...]], list[int]]
    ) -> set[int]:
        """What a kind needs without naming which: all of it that is beside or above."""
        kind = BY_NAME[draft.key.kind]
        if kind.attached:
            return set()
        referred = {name for reference in kind.references for name in reference.kinds}
        found: set[int] = set()
        for need in kind.needs:
            other = BY_NAME[need]
            if need in referred or other.parent == SUBSCRIPTION:
                continue
            deep = 4 if other.parent == "project" else 3
            found.update(groups.get((need, draft.key.path[:deep]), ()))
        if kind.name == "project" and not _is_default(draft.after):
            same = groups.get(("project", draft.key.path[:3]), ())
            found.update(n for n in same if _is_default(self.drafts[n].after))
        return found

    def _sorted(self) -> list[int]:
        """Topological order: kinds by their rank, then keys. Raises InputError on a circle."""
        waiting = {n: set(d.needs) for n, d in enumerate(self.drafts)}
        after: dict[int, list[int]] = {}
        for number, needs in waiting.items():
            for need in needs:
                after.setdefault(need, []).append(number)

        def rank(number: int) -> tuple[int, int, Key, int]:
            draft = self.drafts[number]
            place = _RANKS.get(draft.key.kind, 0)
            return (1, place, draft.key, number) if draft.writes else (
                0, -place, draft.key, number
            )  # fmt: skip

        ready = [rank(number) for number, needs in waiting.items() if not needs]
        heapq.heapify(ready)
        order_: list[int] = []
        while ready:
            number = heapq.heappop(ready)[-1]
            order_.append(number)
            for next_ in after.get(number, ()):
                waiting[next_].discard(number)
                if not waiting[next_]:
                    heapq.heappush(ready, rank(next_))
        if len(order_) < len(self.drafts):
            left = sorted(str(self.drafts[n].key) for n, needs in waiting.items() if needs)
            raise InputError(
                "resources need each other in a circle: " + ", ".join(left[:5]),
                remedy="restore one of them first, with --only",
            )
        return order_

    def _step(self, number: int, numbers: abc.Mapping[int, str]) -> Step:
        draft = self.drafts[number]
        kind = BY_NAME[draft.key.kind]
        resource = draft.after or draft.before
        assert resource is not None
        estimate = self.context.estimates.of(variety(resource), draft.action)
        if draft.action is Action.REBUILD:
            estimate = Estimate(seconds_of(resource), 10)
        after = _prepared(draft) if draft.after is not None else None
        source = self.context.sources.get(draft.key)
        calls = estimate.calls
        if draft.key.kind == "agent" and draft.after is not None:
            calls = max(1, len(versions_of(draft.after)))
        if not self.context.estimates.knows(variety(resource), draft.action):
            fresh = draft.writes and any(
                d.action is Action.CREATE and _inside(draft.key, d.key) for d in self.makers
            )
            calls += 0 if fresh else calls_of(draft.key, draft.action)
        return Step(
            id=numbers[number],
            action=draft.action,
            key=draft.key,
            target=resource.id if kind.plane is Plane.ARM else str(draft.key),
            region=self._region(draft.key),
            source=source.key if source is not None and source.key != draft.key else None,
            old_id=source.id if source is not None else "",
            before=draft.before,
            after=after,
            paths=draft.paths,
            needs=tuple(sorted((numbers[n] for n in draft.needs), key=_number_of)),
            serial=serial_of(kind, draft.key),
            seconds=estimate.seconds,
            calls=round(calls, 2),
            questions=questions(draft, self.context) if after is not None else (),
            note=draft.note,
        )

    def _region(self, key: Key) -> str:
        if len(key.path) < 3:
            return ""
        account = Key("account", key.path[:3])
        found = self.context.there.get(account) or self.context.wanted.get(account)
        if found is None:
            return self.context.regions.get(account, "")
        return region_of(found)


def serial_of(kind: Kind, key: Key) -> str:
    """Name the serial group of a resource, "" when its writes may run beside all others.

    While Azure writes a deployment, a project or the account itself, every other write to a part
    of that account is refused ("Another operation is being performed on the parent resource").
    """
    if kind.plane is not Plane.ARM or kind.attached or len(key.path) < 3:
        return ""
    if kind.name == "diagnostic-setting":
        return ""  # of another provider
    return "/".join(key.path[:3])


def _number_of(id_: str) -> int:
    return int(id_[1:])


def _below(path: str, fixed: str) -> bool:
    return not fixed or path == fixed or path.startswith(fixed + "/")


def _inside(key: Key, holder: Key) -> bool:
    deep = len(holder.path)
    return len(key.path) > deep and key.path[:deep] == holder.path


def _is_default(project: Resource | None) -> bool:
    return project is not None and take_at(project.body, "/properties/isDefault") is True


def _elder_twin(key: Key, creating: abc.Mapping[Key, int]) -> set[int]:
    """What has the same name is told apart by age: made in the order in which it is counted."""
    base, mark, number = key.name.rpartition("~")
    if not mark or not number.isdecimal() or not BY_NAME[key.kind].random_id:
        return set()
    names = [base, *(f"{base}~{n}" for n in range(2, int(number)))] if int(number) < 1000 else []
    elder = [Key(key.kind, (*key.path[:-1], name)) for name in names]
    return {creating[k] for k in elder if k in creating}


def _grouped(
    creating: abc.Mapping[Key, int], drafts: Sequence[_Draft]
) -> dict[tuple[str, tuple[str, ...]], list[int]]:
    found: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    for key, number in creating.items():
        assert drafts[number].key == key
        for deep in (3, 4):
            if len(key.path) >= deep:
                found.setdefault((key.kind, key.path[:deep]), []).append(number)
    return found


def _edges(resources: abc.Mapping[Key, Resource]) -> dict[Key, set[Key]]:
    """Who refers to whom; ids of the data plane are tokens."""
    named = {
        key: replace(resource, id=token(key))
        if key.kind in BY_NAME and BY_NAME[key.kind].plane is not Plane.ARM
        else resource
        for key, resource in resources.items()
    }
    found: dict[Key, set[Key]] = {}
    for link in Links(named, KINDS).all:
        if link.target is not None and link.target != link.source:
            found.setdefault(link.source, set()).add(link.target)
    return found


def _prepared(draft: _Draft) -> Resource:
    """What is kept for the write: what the service sets by itself later is left out."""
    assert draft.after is not None
    found = draft.after.body.get("properties")
    if draft.key.kind == "account" and draft.before is None and isinstance(found, dict):
        properties = {name: value for name, value in found.items() if name not in AFTERWARDS}
        return replace(draft.after, body={**draft.after.body, "properties": properties})
    return draft.after


# ----------------------------------------------------------------------------------- questions


def questions(draft: _Draft, context: Context) -> tuple[Question, ...]:
    """Give the secrets that a step needs: what the snapshot has as a fingerprint only.

    A connection's credentials are never read back by Azure, so they are asked for where its
    authType needs some.
    """
    assert draft.after is not None
    key, body = draft.key, draft.after.body
    source = context.sources.get(key)
    answer = answer_for(context.secrets, key, source.key if source is not None else None)
    found: list[Question] = []
    for path, value in _strings(body, ()):
        if is_fingerprint(value) and token_of(value) is None:
            at = pointer(path)
            found.append(Question(at, f"the secret at {at} of {key.name}", answer))
    if key.kind in {"account-connection", "project-connection"} and draft.before is None:
        auth = str(take_at(body, "/properties/authType") or "")
        if auth not in _NO_SECRET and not any("/credentials" in q.path for q in found):
            what = f"the {auth} credentials of connection {key.name}"
            found = [Question("/properties/credentials", what, answer)]
    return tuple(found)


_NO_SECRET = frozenset({"", "AAD", "None", "ManagedIdentity", "UserEntraToken", "AgenticIdentity"})


def answer_for(secrets: abc.Mapping[str, str], key: Key, source: Key | None) -> str:
    """Find the reference that was given for a resource's secret, "" when there is none."""
    for pattern, reference in secrets.items():
        if chosen((pattern,), key, source):
            return reference
    return ""


def _strings(value: Json, at: tuple[str | int, ...]) -> Iterable[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield at, value
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _strings(inner, (*at, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _strings(inner, (*at, number))


# ------------------------------------------------------------------------------------ schedule


def schedule(steps: Sequence[Step], threads: int) -> tuple[tuple[str, ...], float, float]:
    """Give the critical path (ids of steps), its seconds, and the time that `threads` would take.

    The critical path goes along needs and along serial groups, each in the order of the steps.
    """
    needs: dict[str, list[str]] = {step.id: list(step.needs) for step in steps}
    last: dict[str, str] = {}
    for step in steps:
        if step.serial:
            if step.serial in last:
                needs[step.id].append(last[step.serial])
            last[step.serial] = step.id
    done: dict[str, float] = {}
    through: dict[str, str] = {}
    for step in steps:
        latest = max((n for n in needs[step.id] if n in done), key=lambda n: done[n], default="")
        done[step.id] = (done[latest] if latest else 0.0) + step.seconds
        if latest:
            through[step.id] = latest
    if not done:
        return (), 0.0, 0.0
    at = max(done, key=lambda n: done[n])
    length, path = done[at], [at]
    while at in through:
        at = through[at]
        path.append(at)
    return tuple(reversed(path)), length, _makespan(steps, needs, threads)


def _makespan(steps: Sequence[Step], needs: abc.Mapping[str, Sequence[str]], threads: int) -> float:
    """Play the steps with so many threads, first come first served."""
    by_id = {step.id: step for step in steps}
    waiting = {id_: {n for n in some if n in by_id} for id_, some in needs.items()}
    after: dict[str, list[str]] = {}
    for id_, some in waiting.items():
        for need in some:
            after.setdefault(need, []).append(id_)
    ready = [_number_of(id_) for id_, some in waiting.items() if not some]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < max(1, threads):
            number = heapq.heappop(ready)
            heapq.heappush(running, (now + by_id[f"s{number}"].seconds, number))
        now, number = heapq.heappop(running)
        for next_ in after.get(f"s{number}", ()):
            waiting[next_].discard(f"s{number}")
            if not waiting[next_]:
                heapq.heappush(ready, _number_of(next_))
    return now


# ----------------------------------------------------------------------------------- conflicts


def settle_conflicts(
    baseline: Resource, live: Resource, target: Resource, keep: Keep
) -> tuple[Resource, tuple[Conflict, ...]]:
    """Give what is wanted of a resource that three sides know, and each property in conflict.

    A property conflicts where live and target both differ from the baseline and from each other; a
    list counts as one property, as its items have no fixed place. `keep` says which side wins
    there; elsewhere the baseline is wanted. Never a silent skip: every conflict is listed with the
    side that was taken.
    """
    one = {_property(p.path) for p in differences(baseline.body, live.body)}
    two = {_property(p.path) for p in differences(baseline.body, target.body)}
    places = {min(a, b, key=len) for a in one for b in two if _below(a, b) or _below(b, a)}
    found: list[Conflict] = []
    for path in sorted(places):
        if any(path != other and _below(path, other) for other in places):
            continue  # the whole of it is in conflict
        was, mine, theirs = (_value(r.body, path) for r in (baseline, live, target))
        if not _same(mine, theirs):
            found.append(Conflict(baseline.key, path, was, mine, theirs, keep))
    return as_settled(baseline, found), tuple(found)


def as_settled(resource: Resource, conflicts: Iterable[Conflict]) -> Resource:
    """Give a resource with the value that each of its conflicts was settled with."""
    body = resource.body
    for conflict in conflicts:
        value = {
            Keep.BASELINE: conflict.baseline,
            Keep.LIVE: conflict.live,
            Keep.TARGET: conflict.target,
        }[conflict.keep]
        if isinstance(value, Missing):
            body = _cut_name(body, [_plain(part) for part in conflict.path.split("/")[1:]])
        else:
            made = put_at(body, conflict.path, value)
            assert isinstance(made, dict)
            body = made
    return resource if body is resource.body else replace(resource, body=body)


def _plain(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _property(path: str) -> str:
    """Cut a pointer before the first place in a list."""
    parts = path.split("/")
    ends = [n for n, part in enumerate(parts) if part.isdecimal()]
    return "/".join(parts[: ends[0]]) if ends else path


def _value(body: JsonObject, path: str) -> Json | Missing:
    holder, _, name = path.rpartition("/")
    found = take_at(body, holder) if holder else body
    return found.get(_plain(name), MISSING) if isinstance(found, dict) else MISSING


def _same(one: Json | Missing, two: Json | Missing) -> bool:
    if isinstance(one, Missing) or isinstance(two, Missing):
        return one is MISSING and two is MISSING
    return one == two
