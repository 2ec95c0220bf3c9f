"""From a snapshot back to a working estate: prepare a plan, check its gates, apply it, prove it.

The proof is a second look: the target is taken again and compared with the mapped snapshot. What
differs still is told; nothing that differs is a restore.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from threading import Event
from typing import Protocol

from snapshots import steps as nouns
from snapshots.apply import THREADS, Models, Secret, Tell, apply, ids_of, no_secret, undo
from snapshots.clock import Clock
from snapshots.cloud import Cloud
from snapshots.cloud.place import Cursor, Place, Plane
from snapshots.compare import compare
from snapshots.errors import CloudError, InputError, MissingError, NotFoundError
from snapshots.gates import GateResult, check_gates
from snapshots.kinds import BY_NAME, KINDS
from snapshots.kinds.base import SUBSCRIPTION, By, Kind
from snapshots.kinds.fields import location
from snapshots.kinds.links import Links
from snapshots.kinds.openai import is_fine_tuned
from snapshots.mapping import Translated, adopt, logical, place_of, take_at, translate, twins
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Key,
    Recovery,
    Resource,
    Snapshot,
)
from snapshots.plan import (
    AFTERWARDS,
    Context,
    Estimates,
    answer_for,
    as_settled,
    chosen,
    plan,
    recoverable,
    settle_conflicts,
)
from snapshots.records import Journal, Records
from snapshots.secrets import Fingerprints
from snapshots.steps import (
    Action,
    Conflict,
    Keep,
    NotRestorable,
    Plan,
    Record,
    Step,
    StepState,
    Substitution,
    token,
    token_of,
)
from snapshots.take import Cloud as Looker
from snapshots.take import Payloads as Keeper
from snapshots.take import Progress, Scope, TakeOptions, take
from snapshots.training import files_of, rebuilds, trained_again, with_model
from snapshots.writing import Payloads


class Store(Payloads, Keeper, Protocol):
    """Where payloads come from, and where those of the target are kept before it is changed."""

    def has(self, sha256: str) -> bool:
        """Whether a payload is kept."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What shall be restored, and where to."""

    snapshot: Snapshot
    target: str  # in words: "same", "standby eastus2", a scope
    mapping: nouns.Mapping = field(default_factory=nouns.Mapping)
    only: tuple[str, ...] = ()  # keys, ends of keys or globs; empty: all
    prune: bool = False  # delete what the snapshot has not
    regions: tuple[str, ...] = ()  # of the snapshot's accounts; empty: all
    secrets: Mapping[str, str] = field(default_factory=dict)  # key or glob -> reference
    live: Snapshot | None = None  # the source as it was last seen, when that is another snapshot
    foreign: bool = False  # the target is in another tenant: principals of ours are unknown there
    retrain: bool = False  # hours and money: asked for, never by itself
    keep: Keep = Keep.BASELINE  # where live and target were both changed since
    threads: int = THREADS
    estimates: Estimates = field(default_factory=Estimates)


@dataclass(frozen=True, slots=True)
class Tools:
    """What a restore works with."""

    cloud: Cloud
    store: Store
    fingerprints: Fingerprints
    clock: Clock
    version: str
    secret: Secret = no_secret
    progress: Callable[[Progress], None] | None = None
    models: Models | None = None  # who does steps for fine-tuned models
    vouched: tuple[str, ...] = ()  # URIs of key vaults that muster may not see, and somebody did


@dataclass(frozen=True, slots=True)
class Prepared:
    """A plan with what it was made from."""

    plan: Plan
    wanted: Mapping[Key, Resource]  # logical, in the target's names
    target: Snapshot  # as it was taken
    request: Request


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore came to."""

    record: Record
    remaining: tuple[Change, ...]  # between the mapped snapshot and the target, after all
    calls: int  # requests sent for the steps
    seconds: float
    stopped: bool = False

    @property
    def complete(self) -> bool:
        """Whether every step is done and no change is left."""
        states = {self.record.state(step.id) for step in self.record.plan.steps}
        return not self.remaining and not self.stopped and states <= _FINISHED


# ------------------------------------------------------------------------------------- prepare


def prepare(request: Request, tools: Tools, *, first: int = 1) -> Prepared:
    """Look at the target and give the plan that brings the snapshot there. Changes nothing.

    Raises InputError when there is nothing, or nothing that was named, in the snapshot, or two
    accounts become one;
    NotFoundError when the target subscription is not there.
    """
    source = _selected_regions(request.snapshot, request.regions)
    if not source.resources:
        gaps = len(source.gaps)
        hidden = f": {gaps} gap{'s' if gaps > 1 else ''} hid what there was" if gaps else ""
        raise InputError(
            f"there is no resource in the snapshot{hidden}",
            where=request.snapshot.id[:12],
            remedy="name another one: `muster log` lists them",
        )
    translated = translate(source, request.mapping)
    named = _named(request, translated)
    target = _look(request, tools, translated, named)
    for gap in target.gaps:
        if gap.code == "SubscriptionNotFound":
            raise NotFoundError(
                f"the target subscription {gap.key.subscription} is not there, or this identity "
                "may not see it",
                where=f"restore to {request.target}",
                remedy="compare the id with `az account list`, and ask for the operator role there",
            )
    mapping = _with_free_names(request, tools.cloud, translated, target, named)
    if mapping != request.mapping:
        request = replace(request, mapping=mapping)
        translated = translate(source, mapping)
    compared, there, context, _ = _compared(request, tools, translated, target, named)
    wanted, conflicts = _settled(request, compared, there)
    before = replace(target, resources=there)
    after = replace(translated.snapshot, resources=wanted)
    changes = list(compare(before, after, list_identity))
    soft = soft_deleted(tools.cloud, changes)
    context = replace(context, wanted=wanted, conflicts=conflicts, soft_deleted=soft, first=first)
    made = replace(plan(changes, context), down=tuple(sorted(tools.cloud.regions.down)))
    return Prepared(made, wanted, target, request)


def remaining(prepared: Prepared, tools: Tools) -> tuple[Change, ...]:
    """Take the target again and give what still differs: nothing, if all is well.

    What cannot be brought back is named in the plan and does not count; what is in the target
    besides is left there, and counts only under `prune`.
    """
    request = prepared.request
    source = _selected_regions(request.snapshot, request.regions)
    translated = translate(source, request.mapping)
    named = _named(request, translated)
    target = _look(request, tools, translated, named)
    # What was found to be lost beforehand stays so: it must not be forgotten by its absence.
    lost = {entry.key for entry in prepared.plan.not_restorable}
    wanted, there, _, _ = _compared(request, tools, translated, target, named)
    settled = {
        key: prepared.wanted[key] if key in lost and key in prepared.wanted else resource
        for key, resource in wanted.items()
        if key not in lost or key in prepared.wanted
    }
    for conflict in prepared.plan.conflicts:
        if conflict.key in settled:
            settled[conflict.key] = as_settled(settled[conflict.key], [conflict])
    before = replace(target, resources=there)
    after = replace(translated.snapshot, resources=settled)
    return tuple(
        change
        for change in compare(before, after, list_identity)
        if (change.type is not ChangeType.REMOVED or request.prune) and not _by_projects(change)
    )


def _by_projects(change: Change) -> bool:
    """Whether an account differs only in what Azure notes of its projects, unasked.

    A plan that makes an account leaves that out, so a record that is resumed says nothing of it;
    the projects themselves are compared.
    """
    return (
        change.type is ChangeType.CHANGED
        and change.key.kind == "account"
        and all(
            path.after is MISSING and path.path.removeprefix("/properties/") in AFTERWARDS
            for path in change.paths
        )
    )


def _with_free_names(
    request: Request,
    cloud: Cloud,
    translated: Translated,
    target: Snapshot,
    named: frozenset[Key] | None,
) -> nouns.Mapping:
    """Give accounts that go beside their living originals subdomains of their own.

    A subdomain is unique in the world. One that is free is kept, as clients know it; one that the
    Mapping names, or derives for another region, is left to the gate. An account that stands has
    what it has, and whatever names its endpoint follows.
    """
    found: dict[str, nouns.AccountPlace] = {}
    for key, to in translated.keys.items():
        before = request.snapshot.resources.get(key)
        after = translated.snapshot.resources.get(to)
        if key.kind != "account" or key == to or before is None or after is None:
            continue
        domain = take_at(after.body, "/properties/customSubDomainName")
        standing = target.resources.get(to)
        if standing is not None:
            held = take_at(standing.body, "/properties/customSubDomainName")
            if isinstance(held, str) and held and domain and held != domain:
                place = place_of(request.mapping, before)[0]
                found[key.name] = replace(place, subdomain=held)
            continue
        if named is not None and not _goes_along(to, named):
            continue
        same = domain == take_at(before.body, "/properties/customSubDomainName")
        if not isinstance(domain, str) or not domain or not same or key.name != to.name:
            continue
        if not _is_taken(cloud, to.subscription, domain):
            continue
        mark = hashlib.sha256("/".join(to.path).encode()).hexdigest()[:6]
        place = place_of(request.mapping, before)[0]
        found[key.name] = replace(place, subdomain=f"{domain[:50]}-{mark}")
    if not found:
        return request.mapping
    return replace(request.mapping, accounts={**request.mapping.accounts, **found})


def _goes_along(account: Key, named: frozenset[Key]) -> bool:
    return any(key.path[:3] == account.path for key in named)


def _is_taken(cloud: Cloud, subscription: str, domain: str) -> bool:
    """Whether somebody has a subdomain. What cannot be asked is left to the gate."""
    try:
        answer = cloud.post(
            Place(Plane.ARM, "", subscription, ""),
            f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
            "/checkDomainAvailability",
            {"subdomainName": domain, "type": "Microsoft.CognitiveServices/accounts"},
            params={"api-version": BY_NAME["account"].api_version},
            kind="check-domain",
            reads=True,
        )
    except CloudError:
        return False
    return isinstance(answer.body, dict) and answer.body.get("isSubdomainAvailable") is False


def _settled(
    request: Request, wanted: dict[Key, Resource], there: Mapping[Key, Resource]
) -> tuple[dict[Key, Resource], tuple[Conflict, ...]]:
    """Settle what was changed in the source and in the target since the snapshot."""
    if request.live is None:
        return wanted, ()
    live = translate(_selected_regions(request.live, request.regions), request.mapping)
    found: dict[Key, Resource] = dict(wanted)
    listed: list[Conflict] = []
    for key, resource in wanted.items():
        now, other = live.snapshot.resources.get(key), there.get(key)
        if now is not None and other is not None:
            found[key], conflicts = settle_conflicts(resource, now, other, request.keep)
            listed += conflicts
    return found, tuple(listed)


def _selected_regions(snapshot: Snapshot, regions: Sequence[str]) -> Snapshot:
    """Keep the accounts of some regions, what is in them, and the groups that hold them."""
    if not regions:
        return snapshot
    names = {location(region) for region in regions}
    accounts = {
        key.path[:3]
        for key, resource in snapshot.resources.items()
        if key.kind == "account" and location(str(resource.body.get("location"))) in names
    }
    groups = {path[:2] for path in accounts}

    def kept(key: Key) -> bool:
        if len(key.path) >= 3 and key.path[:3] in accounts:
            return True
        if key.kind == "resource-group":
            return key.path in groups
        # What hangs on a group goes with it; of a subscription's own nothing goes elsewhere.
        return len(key.path) == 3 and BY_NAME[key.kind].attached and key.path[:2] in groups

    return replace(snapshot, resources={k: r for k, r in snapshot.resources.items() if kept(k)})


def in_regions(snapshot: Snapshot, regions: Sequence[str]) -> Snapshot:
    """Give what `Request.regions` leaves of a snapshot: a drill expects just that in its target."""
    return _selected_regions(snapshot, regions)


def _named(request: Request, translated: Translated) -> frozenset[Key] | None:
    """Give the keys in the target that were asked for, None for all. Raises InputError."""
    if not request.only:
        return None
    found = frozenset(to for key, to in translated.keys.items() if chosen(request.only, to, key))
    for pattern in request.only:
        if not any(chosen((pattern,), to, key) for key, to in translated.keys.items()):
            raise InputError(
                f"nothing in the snapshot is called {pattern}",
                where="--only",
                remedy="`muster show SNAPSHOT` lists the keys; a glob such as deployment/* works",
            )
    return found


def _look(
    request: Request, tools: Tools, translated: Translated, named: frozenset[Key] | None
) -> Snapshot:
    """Take the part of the target that matters."""
    wanted = translated.snapshot.resources
    keys = wanted.keys() if named is None else named
    tops = {key.path[:3] for key in keys if len(key.path) >= 3 and _in_account(key)}
    tops |= {key.path for key in keys if key.kind == "account"}
    groups: dict[tuple[str, str], set[str]] = {}
    for subscription, group, account in tops:
        groups.setdefault((subscription, group), set()).add(account)
    for key in keys:
        if len(key.path) >= 2 and not _in_account(key) and "/" not in key.path[1]:
            groups.setdefault((key.path[0], key.path[1]), set())
    nobody = ("",)  # a group of which only the group itself matters
    scopes = [
        Scope(subscription, (group,), tuple(sorted(accounts)) or nobody)
        for (subscription, group), accounts in sorted(groups.items())
        if group
    ]
    if not scopes:
        subscriptions = sorted({key.path[0] for key in keys})
        scopes = [Scope(subscription, accounts=nobody) for subscription in subscriptions]
    kinds = KINDS if named is None else _kinds_for(named, wanted)
    options = TakeOptions(threads=request.threads, reference=False)
    found = take(
        request.snapshot.estate,
        scopes,
        tools.cloud,
        fingerprints=tools.fingerprints,
        clock=tools.clock,
        version=tools.version,
        previous=request.snapshot,
        payloads=tools.store,
        progress=tools.progress,
        options=options,
        kinds=kinds,
    )
    return replace(found, resources=twins(wanted, found.resources))


def _in_account(key: Key) -> bool:
    kind = BY_NAME.get(key.kind)
    if kind is None or len(key.path) < 3:
        return False
    if kind.attached:
        return len(key.path) > 3 and "/" not in key.path[2]
    return True


def _kinds_for(named: Iterable[Key], wanted: Mapping[Key, Resource]) -> tuple[Kind, ...]:
    """Give the kinds that must be read: those named, what holds them and what they refer to."""
    names: set[str] = {"resource-group", "account", "lock"}  # a lock may forbid what is planned
    at = {key.kind for key in named}
    # A whole account or project that is named stands for what is in it.
    while at:
        name = at.pop()
        if name in names and name not in {"resource-group", "account", "lock"}:
            continue
        names.add(name)
        kind = BY_NAME[name]
        further = {name for r in kind.references for name in r.kinds}
        if kind.parent != SUBSCRIPTION:
            further.add(kind.parent)
        at |= further - names
    assert wanted is not None
    return tuple(kind for kind in KINDS if kind.name in names)


def _compared(
    request: Request,
    tools: Tools,
    translated: Translated,
    target: Snapshot,
    named: frozenset[Key] | None,
) -> tuple[dict[Key, Resource], dict[Key, Resource], Context, frozenset[tuple[str, str]]]:
    """Give both sides of the comparison, ready, and the context of a plan for it."""
    here = logical(target.resources)
    moved = frozenset(to for key, to in translated.keys.items() if to != key)
    wanted, adopted = adopt(translated.snapshot.resources, here, moved)
    near = wanted.keys() if named is None else _with_needs(named, wanted, here)
    models = _models(tools, target, {k: r for k, r in wanted.items() if k in near})
    wanted, again = trained_again(wanted, here, models)
    reasons: dict[Key, str] = {}
    rebuilt: dict[Key, Resource] = {}
    if request.retrain:
        rebuilt, reasons = rebuilds(wanted, models, tools.store.has)
        for key, resource in list(wanted.items()):
            name = take_at(resource.body, "/properties/model/name")
            model = Key("fine-tuned-model", (*key.path[:3], str(name)))
            if key.kind == "deployment" and model in rebuilt:
                wanted[key] = with_model(resource, str(name))
        wanted |= rebuilt
    if named is not None:
        keys = _with_needs(named, wanted, here)
        rebuilt = {key: resource for key, resource in rebuilt.items() if key in keys}
        files = {file for resource in rebuilt.values() for file in files_of(resource)}
        keys |= _with_needs(frozenset(files - here.keys()), wanted, here)
        wanted = {key: wanted[key] for key in keys if key in wanted}
        here_compared = {k: r for k, r in here.items() if k in keys}
    else:
        here_compared = here
    strangers: tuple[NotRestorable, ...] = ()
    if request.foreign:
        wanted, strangers = _without_strangers(wanted, here)
    gone = _gone_scopes(tools.cloud, wanted, here)
    can = recoverable(
        wanted,
        here_compared,
        models=models,
        gone_scopes=gone,
        hidden=target.hidden,
        rebuilt=rebuilt,
        reasons=reasons,
    )
    substitutions = tuple(
        s
        for s in sorted({*translated.substitutions, *adopted, *again}, key=_substitution)
        if s.key in can.wanted
    )
    context = Context(
        estate=request.snapshot.estate,
        snapshot=request.snapshot.id,
        target=request.target,
        version=tools.version,
        now=tools.clock.now(),
        wanted=can.wanted,
        there=here,
        sources=translated.sources,
        mapping=request.mapping,
        substitutions=substitutions,
        not_restorable=(*can.not_restorable, *strangers),
        only=request.only,
        prune=request.prune,
        whole=request.mapping.is_identity and not request.only,
        secrets=request.secrets,
        estimates=request.estimates,
        threads=request.threads,
    )
    return can.wanted, can.there, context, models


def _without_strangers(
    wanted: Mapping[Key, Resource], there: Mapping[Key, Resource]
) -> tuple[dict[Key, Resource], tuple[NotRestorable, ...]]:
    """Leave out roles of people and applications whom the target's tenant does not know."""
    listed: list[NotRestorable] = []
    kept = dict(wanted)
    for key, resource in wanted.items():
        if key.kind != "role-assignment" or key in there:
            continue
        if token_of(take_at(resource.body, "/properties/principalId")) is None:
            del kept[key]
            listed.append(
                NotRestorable(
                    key,
                    Recovery.RECORDED,
                    "The target is in another tenant, which does not know this principal: give "
                    "the role there to whoever takes its place.",
                    "https://learn.microsoft.com/azure/role-based-access-control/"
                    "transfer-subscription",
                )
            )
    return kept, tuple(listed)


def _substitution(entry: Substitution) -> tuple[Key, str, str]:
    return entry.key, entry.path, entry.after


def _with_needs(
    named: frozenset[Key], wanted: Mapping[Key, Resource], there: Mapping[Key, Resource]
) -> frozenset[Key]:
    """Add what the named ones need and the target has not: a policy, a file, the account."""
    with_tokens = {
        key: replace(resource, id=token(key))
        if BY_NAME[key.kind].plane is not Plane.ARM
        else resource
        for key, resource in wanted.items()
        if key.kind in BY_NAME
    }
    refers: dict[Key, set[Key]] = {}
    for link in Links(with_tokens).all:
        if link.target is not None and link.reference.by is not By.PRINCIPAL:
            refers.setdefault(link.source, set()).add(link.target)
    found = set(named)
    at = list(named)
    while at:
        key = at.pop()
        needed = set(refers.get(key, ()))
        kind = BY_NAME[key.kind]
        if kind.parent != SUBSCRIPTION:
            needed.add(Key(kind.parent, key.path[:-1]))
        elif kind.name == "account":
            needed.add(Key("resource-group", key.path[:2]))
        for need in needed:
            if need in wanted and need not in there and need not in found:
                found.add(need)
                at.append(need)
    return frozenset(found)


def _models(
    tools: Tools, target: Snapshot, wanted: Mapping[Key, Resource]
) -> frozenset[tuple[str, str]]:
    """Give the fine-tuned models that can be deployed, by the account that has their weights."""
    found: set[tuple[str, str]] = set()
    for key in target.resources:
        if key.kind == "fine-tuned-model":
            account = target.resources.get(Key("account", key.path[:3]))
            if account is not None:
                found.add((account.id.lower(), key.name))
    asked: dict[tuple[str, str], set[str]] = {}
    for key, resource in wanted.items():
        model = take_at(resource.body, "/properties/model") if key.kind == "deployment" else None
        if not isinstance(model, dict) or not is_fine_tuned(str(model.get("name") or "")):
            continue
        source = str(model.get("source") or "").lower().strip("/").split("/")
        if len(source) >= 8:
            asked.setdefault((source[1], source[3]), set()).add(source[7])
    scopes = [
        Scope(subscription, (group,), tuple(sorted(accounts)))
        for (subscription, group), accounts in sorted(asked.items())
    ]
    if not scopes:
        return frozenset(found)
    seen = take(
        target.estate,
        scopes,
        tools.cloud,
        fingerprints=tools.fingerprints,
        clock=tools.clock,
        version=tools.version,
        options=TakeOptions(reference=False, payloads=False),
        kinds=(BY_NAME["account"], BY_NAME["fine-tuned-model"]),
    )
    for key in seen.resources:
        if key.kind == "fine-tuned-model":
            found.add((seen.resources[Key("account", key.path[:3])].id.lower(), key.name))
    return frozenset(found)


def _gone_scopes(
    cloud: Cloud, wanted: Mapping[Key, Resource], there: Mapping[Key, Resource]
) -> frozenset[tuple[str, ...]]:
    """Give what missing locks and assignments hang on that is not there: one call for a group."""
    scopes = {
        key.path[:3]
        for key in wanted
        if BY_NAME[key.kind].attached
        and key not in there
        and len(key.path) > 3
        and "/" in key.path[2]
    }
    found: set[tuple[str, ...]] = set()
    for subscription, group in sorted({(scope[0], scope[1]) for scope in scopes}):
        path = f"/subscriptions/{subscription}/resourceGroups/{group}/resources"
        try:
            listed = list(
                cloud.list(
                    Place(Plane.ARM, "", subscription, ""),
                    path,
                    params={"api-version": BY_NAME["resource-group"].api_version},
                    kind="resource-group",
                )
            )
        except MissingError:
            listed = []
        alive = {str(w.get("id")).lower().partition("/providers/")[2] for w in listed}
        for scope in scopes:
            below = any(scope[2].startswith(name + "/") for name in alive if name)
            if scope[:2] == (subscription, group) and scope[2] not in alive and not below:
                found.add(scope)
    return frozenset(found)


def soft_deleted(cloud: Looker, changes: Iterable[Change]) -> dict[Key, str]:
    """Give the accounts to be made whose name a soft-deleted one still holds, with its region."""
    wanted = {
        change.key
        for change in changes
        if change.type is ChangeType.ADDED and change.key.kind == "account"
    }
    found: dict[Key, str] = {}
    for subscription in sorted({key.path[0] for key in wanted}):
        path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
        listed = cloud.list(
            Place(Plane.ARM, "", subscription, ""),
            f"{path}/deletedAccounts",
            params={"api-version": BY_NAME["account"].api_version},
            kind="deleted-account",
            items="value",
            cursor=Cursor.NEXT_LINK,
        )
        for wire in listed:
            parts = str(wire.get("id") or "").lower().split("/")
            if "resourcegroups" not in parts or "locations" not in parts:
                continue
            group = parts[parts.index("resourcegroups") + 1]
            region = parts[parts.index("locations") + 1]
            key = Key("account", (subscription, group, parts[-1]))
            if key in wanted:
                found[key] = location(region)
    return found


def list_identity(kind: str) -> Mapping[str, tuple[str, ...]]:
    """Give the lists of a kind whose order means nothing, and what tells their items apart."""
    found = BY_NAME.get(kind)
    if found is None:
        return {}
    return {f"{items.path}[]": items.by for items in found.fields.items}


# --------------------------------------------------------------------------------------- apply


def gates(prepared: Prepared, tools: Tools) -> tuple[GateResult, ...]:
    """Ask beforehand what would stop the plan half way. Only reads."""
    return check_gates(
        prepared.plan,
        tools.cloud,
        has_payload=tools.store.has,
        secret=tools.secret,
        there=prepared.target.resources,
        source=prepared.request.snapshot,
        vouched=tools.vouched,
    )


def execute(
    prepared: Prepared,
    tools: Tools,
    records: Records,
    *,
    stop: Event | None = None,
    tell: Tell | None = None,
) -> Restored:
    """Apply a plan, then take the target again and say what is left. Gates are the caller's."""
    with records.begin(prepared.plan, ids_of(prepared.target.resources)) as journal:
        return _carried_out(prepared, tools, journal, stop, tell)


def resume(
    request: Request,
    tools: Tools,
    records: Records,
    record: str,
    *,
    stop: Event | None = None,
    tell: Tell | None = None,
) -> Restored:
    """Go on with a record after a crash, a stop or a repaired cause; then prove it."""
    with records.open(record) as journal:
        # A secret that had no reference may have one now: that is what was repaired.
        journal.record = replace(
            journal.record, plan=_with_answers(journal.record.plan, request.secrets)
        )
        steps = journal.record.plan.steps
        retrain = any(s.action is Action.REBUILD and s.work is None for s in steps)
        prepared = _as_recorded(replace(request, retrain=retrain), journal.record)
        return _carried_out(prepared, tools, journal, stop, tell)


def _with_answers(plan_: Plan, secrets: Mapping[str, str]) -> Plan:
    """Give a plan whose questions have the references that are configured now."""

    def one(step: Step) -> Step:
        found = answer_for(secrets, step.key, step.source)
        if not found or not step.questions:
            return step
        return replace(step, questions=tuple(replace(q, answer=found) for q in step.questions))

    return plan_.with_steps(one(step) for step in plan_.steps)


def _as_recorded(request: Request, record: Record) -> Prepared:
    """What the record was made from, without looking at the target again: its plan counts."""
    source = _selected_regions(request.snapshot, request.regions)
    translated = translate(source, request.mapping)
    wanted: dict[Key, Resource] = dict(translated.snapshot.resources)
    for step in record.plan.steps:
        if step.after is not None:
            wanted[step.key] = step.after
    lost = {n.key for n in record.plan.not_restorable}
    kept = {k: r for k, r in wanted.items() if k not in lost or _written(record, k)}
    target = replace(request.snapshot, resources={}, gaps=())
    return Prepared(record.plan, kept, target, request)


def _written(record: Record, key: Key) -> bool:
    return any(step.key == key and step.after is not None for step in record.plan.steps)


def _carried_out(
    prepared: Prepared,
    tools: Tools,
    journal: Journal,
    stop: Event | None,
    tell: Tell | None,
) -> Restored:
    begun = tools.clock.now()
    before = tools.cloud.calls.snapshot()
    stop = stop or Event()
    if tools.models is not None:
        tools.models.begun(journal.record)
    # Accounts that are taken back bring things along: the rest is planned anew from what is there.
    undeletes = [
        s for s in journal.record.plan.steps if s.action is Action.SWITCH and s.work is None
    ]
    if undeletes and not journal.record.replans:
        _apply(tools, journal, prepared, stop, tell, first=undeletes)
        done = {s.id for s in undeletes if journal.record.state(s.id) in _FINISHED}
        if not stop.is_set() and len(done) == len(undeletes):
            again = prepare(prepared.request, tools, first=len(journal.record.plan.steps) + 1)
            again = replace(again, plan=_with_work(again.plan, journal.record))
            journal.replan(again.plan, ids_of(again.target.resources))
            wanted = {**prepared.wanted, **again.wanted}
            prepared = replace(prepared, plan=again.plan, wanted=wanted)
    if not stop.is_set():
        _apply(tools, journal, prepared, stop, tell)
    now = tools.cloud.calls.snapshot()
    calls = now.made - before.made
    by_kind = {
        kind: made - before.by_kind.get(kind, 0)
        for kind, made in now.by_kind.items()
        if made > before.by_kind.get(kind, 0)
    }
    seconds = (tools.clock.now() - begun).total_seconds()
    stopped = stop.is_set()
    left = () if stopped else remaining(prepared, tools)
    if not stopped:
        journal.end(remaining=len(left), calls=by_kind)
    if tools.models is not None and not stopped:
        tools.models.ended(journal.record, len(left))
    return Restored(journal.record, left, calls, seconds, stopped)


_FINISHED = frozenset({StepState.DONE, StepState.ADOPTED})


def _with_work(again: Plan, record: Record) -> Plan:
    """Keep the steps for fine-tuned models that still wait, behind the new steps they need."""
    old = {step.id: step.key for step in record.plan.steps if step.work is None}
    new = {step.key: step.id for step in again.steps}
    waiting = [
        replace(
            step,
            needs=tuple(new.get(old[need], need) if need in old else need for need in step.needs),
        )
        for step in record.plan.steps
        if step.work is not None and record.state(step.id) is StepState.WAITING
    ]
    return replace(again, steps=(*again.steps, *waiting), replica=record.plan.replica)


def _apply(
    tools: Tools,
    journal: Journal,
    prepared: Prepared,
    stop: Event,
    tell: Tell | None,
    *,
    first: Sequence[Step] = (),
) -> None:
    whole = journal.record.plan
    if first:
        needed = _upstream(whole, first)
        journal.record = replace(
            journal.record,
            plan=replace(whole, steps=tuple(s for s in whole.steps if s.id in needed)),
        )
    try:
        apply(
            tools.cloud,
            journal,
            payloads=tools.store,
            fingerprints=tools.fingerprints,
            clock=tools.clock,
            secret=tools.secret,
            threads=prepared.request.threads,
            stop=stop,
            tell=tell,
            models=tools.models,
        )
    finally:
        if first:
            journal.record = replace(journal.record, plan=whole)


def _upstream(whole: Plan, first: Sequence[Step]) -> set[str]:
    found: set[str] = set()
    at = [step.id for step in first]
    while at:
        id_ = at.pop()
        if id_ not in found:
            found.add(id_)
            at.extend(whole.step(id_).needs)
    return found


def take_back(
    tools: Tools,
    records: Records,
    record: str,
    *,
    threads: int = THREADS,
    stop: Event | None = None,
    tell: Tell | None = None,
    overwrite: Callable[[Step], bool] = lambda _step: False,
) -> Record:
    """Undo what a record did, last first. What was changed since is left, but for `overwrite`."""
    with records.open(record) as journal:
        found = undo(
            tools.cloud,
            journal,
            payloads=tools.store,
            fingerprints=tools.fingerprints,
            clock=tools.clock,
            secret=tools.secret,
            threads=threads,
            stop=stop,
            tell=tell,
            models=tools.models,
            overwrite=overwrite,
        )
        if tools.models is not None:
            tools.models.ended(found, 0)
        return found
