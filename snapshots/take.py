"""Read live state into a Snapshot, at the least number of calls the API allows."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from queue import SimpleQueue
from threading import Lock
from typing import Final, Protocol, assert_never
from urllib.parse import quote

from snapshots.cloud.place import Cursor, Place, Plane
from snapshots.cloud.scrub import scrub
from snapshots.errors import (
    CloudError,
    DamagedAnswerError,
    DeniedError,
    InputError,
    MissingError,
    RegionDownError,
    ThrottledError,
    UnreachableError,
)
from snapshots.kinds import KINDS, descendants
from snapshots.kinds.base import SUBSCRIPTION, Content, Kind, Location, Parent
from snapshots.kinds.fields import Pattern, location
from snapshots.kinds.groups import RESOURCE_GROUP
from snapshots.kinds.openai import is_fine_tuned
from snapshots.kinds.reference import CATALOGUES, Catalogue
from snapshots.model import (
    CallCount,
    Gap,
    GapReason,
    Json,
    JsonObject,
    Key,
    Payload,
    Resource,
    Snapshot,
)
from snapshots.secrets import Fingerprints

# Answers that say "this interface is not here" rather than "something went wrong".
_UNSUPPORTED: Final = frozenset(
    {
        "FeatureNotSupported",
        "InvalidApiVersionParameter",
        "InvalidResourceType",
        "MissingSubscriptionRegistration",
        "NoRegisteredProviderFound",
        "OperationNotSupported",
        "SubscriptionNotRegistered",
        "UnsupportedApiVersion",
    }
)
# ARM's way to say that what holds the listing is gone.
_HOLDER_GONE: Final = frozenset(
    {"ParentResourceNotFound", "ResourceNotFound", "ResourceGroupNotFound"}
)
# A region's listings that went unanswered before the rest of them is not asked any more.
_PATIENCE_WITH_REGION: Final = 3
_DOWNLOADS: Final = 4  # tries of one file's content


class Calls(Protocol):
    """Counts the requests that go out, and how many would have been enough."""

    def expect(self, kind: str, number: int = 1) -> None:
        """Add to the floor."""
        ...

    def snapshot(self) -> CallCount:
        """Give the counts so far."""
        ...


class Answered(Protocol):
    """What Azure answered."""

    @property
    def body(self) -> Json:
        """Give the raw wire JSON."""
        ...


class Cloud(Protocol):
    """What a snapshot asks of the one way out to Azure."""

    @property
    def calls(self) -> Calls:
        """The counter of requests."""
        ...

    def list(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str],
        kind: str,
        items: str,
        cursor: Cursor,
    ) -> Iterator[JsonObject]:
        """Give the items of a listing, page after page, as raw wire JSON."""
        ...

    def get(self, place: Place, path: str, *, params: Mapping[str, str], kind: str) -> Answered:
        """Read one thing. Raises MissingError when it is not there."""
        ...

    def stream(
        self, place: Place, path: str, *, params: Mapping[str, str], kind: str
    ) -> Iterator[bytes]:
        """Give the bytes of an answer without holding it in memory."""
        ...


class Payloads(Protocol):
    """Where payloads are kept: what a snapshot asks of the vault."""

    def known(self) -> frozenset[str]:
        """Give the digests of all payloads that are kept, by one listing."""
        ...

    def keep(
        self,
        chunks: Iterable[bytes],
        *,
        sha256: str | None = None,
        size: int | None = None,
        name: str = "content",
    ) -> Payload:
        """Keep bytes; give their digest."""
        ...


class Now(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Tell the moment, aware, in UTC."""
        ...


@dataclass(frozen=True, slots=True)
class Scope:
    """The subscriptions, resource groups, accounts and regions that are looked at.

    Empty means all. Names are compared without case, regions without case and spaces.
    """

    subscription: str
    resource_groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.subscription.strip():
            raise InputError(
                "a scope needs a subscription id",
                where="estate.scope",
                remedy="give the id that `az account show` prints",
            )
        lower: Callable[[Iterable[str]], tuple[str, ...]] = lambda names: tuple(  # noqa: E731
            sorted({name.lower() for name in names})
        )
        object.__setattr__(self, "subscription", self.subscription.strip().lower())
        object.__setattr__(self, "resource_groups", lower(self.resource_groups))
        object.__setattr__(self, "accounts", lower(self.accounts))
        object.__setattr__(self, "regions", tuple(sorted({location(r) for r in self.regions})))


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOptions:
    """What a snapshot reads besides the state itself, and how wide it reads."""

    threads: int = 16  # 16 to 25 keep ARM's 25 reads a second busy
    conversations: bool = False  # threads are conversation data: only when asked for
    reference: bool = True  # catalogue and quota, for readiness
    capacities: bool = False  # one more call for each model that is deployed
    payloads: bool = True  # bytes of files
    reference_regions: tuple[str, ...] = ()  # besides those of the accounts: the standby's


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a snapshot is: listings of one kind, answered and known of, and calls so far."""

    kind: str
    done: int
    total: int
    calls: int


def take(
    estate: str,
    scopes: Sequence[Scope],
    cloud: Cloud,
    *,
    fingerprints: Fingerprints,
    clock: Now,
    version: str,
    previous: Snapshot | None = None,
    payloads: Payloads | None = None,
    progress: Callable[[Progress], None] | None = None,
    options: TakeOptions | None = None,
    kinds: Sequence[Kind] = KINDS,
    descend: Callable[[Resource], bool] | None = None,
    confirm: bool = False,
) -> Snapshot:
    """Give the state of the scopes now: the same for the same state, whatever the order of answers.

    What cannot be read is a Gap and the rest is read on. `previous` saves downloads: a file whose
    id and size it knows, with a digest that `payloads` keeps, is not fetched again. `descend` says
    of what a subscription lists whether calls are spent on what lies below it; default: always.
    `confirm` asks by name for what `previous` knows and a subscription's lists show no more: only
    a 404 says that it went.
    Raises StoreError when the vault fails, and nothing for what the cloud does.
    """
    if not scopes:
        raise InputError(
            "nothing to look at: no scope", where="estate.scope", remedy="name a subscription"
        )
    started, began = clock.now(), time.monotonic()
    before = cloud.calls.snapshot()
    taking = _Taking(
        cloud=cloud,
        scopes=scopes,
        fingerprints=fingerprints,
        payloads=payloads,
        options=options or TakeOptions(),
        kinds=tuple(k for k in kinds if not k.optional or (options or TakeOptions()).conversations),
        progress=progress,
        earlier=_earlier(previous),
        before=previous,
        descend=descend,
        confirm=confirm,
    )
    resources, gaps, reference = taking.run()
    return Snapshot(
        estate=estate,
        taken_at=started,
        version=version,
        resources={resource.key: resource for resource in resources},
        gaps=gaps,
        reference=reference,
        calls=_difference(cloud.calls.snapshot(), before),
        seconds=time.monotonic() - began,
    )


@dataclass(frozen=True, slots=True)
class _Listing:
    """One listing to read: a kind under a parent, or a catalogue of a place."""

    kind: Kind
    parent: Parent


@dataclass(frozen=True, slots=True)
class _Draft:
    """A listed item on its way to a Resource."""

    listing: _Listing
    key: Key
    id: str
    wire: JsonObject


@dataclass(frozen=True, slots=True)
class _Catalogue:
    """One catalogue to read."""

    catalogue: Catalogue
    subscription: str
    region: str
    name: str  # of the file, below the catalogue's folder
    params: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class _Listed:
    wires: list[JsonObject]


@dataclass(frozen=True, slots=True)
class _Failed:
    error: CloudError


@dataclass(frozen=True, slots=True)
class _NotAsked:
    """The place did not answer before: nothing was sent."""

    place: Place


@dataclass(frozen=True, slots=True)
class _Done:
    resource: Resource
    calls: Counter[str]


_Task = _Listing | _Draft | _Catalogue
_Outcome = _Listed | _Failed | _NotAsked | _Done


@dataclass(slots=True)
class _Taking:
    """One snapshot in the making. All but the reading happens in the caller's thread."""

    cloud: Cloud
    scopes: Sequence[Scope]
    fingerprints: Fingerprints
    payloads: Payloads | None
    options: TakeOptions
    kinds: tuple[Kind, ...]
    progress: Callable[[Progress], None] | None
    earlier: Mapping[tuple[str, str], Resource]
    before: Snapshot | None = None
    descend: Callable[[Resource], bool] | None = None
    confirm: bool = False
    known: frozenset[str] = frozenset()
    resources: dict[Key, Resource] = field(default_factory=dict)
    parents: dict[Key, Parent] = field(default_factory=dict)
    held: dict[Key, Key | None] = field(default_factory=dict)  # resource -> what holds it
    gaps: list[Gap] = field(default_factory=list)
    reference: dict[str, Json] = field(default_factory=dict)
    doubts: list[tuple[_Listing | _Draft, CloudError]] = field(default_factory=list)
    silent: Counter[Place] = field(default_factory=Counter)
    spoke: set[Place] = field(default_factory=set)
    lock: Lock = field(default_factory=Lock)
    floor: Counter[str] = field(default_factory=Counter)
    asked: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    listing_of: dict[Key, _Listing] = field(default_factory=dict)
    relisted: dict[Key, frozenset[str] | CloudError] = field(default_factory=dict)

    def run(self) -> tuple[list[Resource], tuple[Gap, ...], dict[str, Json]]:
        if self.payloads is not None and self.options.payloads and self.earlier:
            self.known = self.payloads.known()
        subscriptions = sorted({scope.subscription for scope in self.scopes})
        roots = [
            Parent(SUBSCRIPTION, (s,), f"/subscriptions/{s}", s, s, "", {}) for s in subscriptions
        ]
        tasks: list[_Task] = [
            _Listing(kind, root)
            for root in roots
            for kind in self.kinds
            if kind.parent == SUBSCRIPTION
        ]
        self._work(tasks)
        if self.options.reference:
            self._work(list(self._catalogues(subscriptions)))
        self._settle_doubts()
        self._leave_shared()
        self._leave_scope()
        if self.confirm:
            self._confirm_absences()
        for kind, number in sorted(self.floor.items()):
            self.cloud.calls.expect(kind, number)
        resources = sorted(self.resources.values(), key=lambda resource: resource.key)
        return resources, _together(self.gaps), dict(sorted(self.reference.items()))

    # ---- the work -------------------------------------------------------------------------

    def _work(self, tasks: list[_Task]) -> None:
        """Read the tasks, and what they lead to, with a few threads.

        The threads are spread over the subscriptions: each has a budget of its own, and one that
        waits for it must not hold up the others.
        """
        finished: SimpleQueue[tuple[_Task, Future[_Outcome]]] = SimpleQueue()
        threads = max(1, self.options.threads)
        pool = ThreadPoolExecutor(threads, thread_name_prefix="take")
        waiting: dict[str, deque[_Task]] = {}
        busy: Counter[str] = Counter()

        def add(task: _Task) -> None:
            self.asked[_kind_of(task)] += 1
            waiting.setdefault(_subscription_of(task), deque()).append(task)

        def ended(task: _Task) -> Callable[[Future[_Outcome]], None]:
            return lambda done: finished.put((task, done))

        def begin() -> None:
            while waiting and busy.total() < threads:
                name = min(waiting, key=lambda subscription: busy[subscription])
                task = waiting[name].popleft()
                if not waiting[name]:
                    del waiting[name]
                busy[name] += 1
                future = pool.submit(self._read, task)
                future.add_done_callback(ended(task))

        try:
            for task in tasks:
                add(task)
            begin()
            while busy.total():
                task, future = finished.get()
                busy[_subscription_of(task)] -= 1
                for further in self._settle(task, future.result()):
                    add(further)
                begin()
                self._report(_kind_of(task))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _report(self, kind: str) -> None:
        self.answered[kind] += 1
        if self.progress is not None:
            made = self.cloud.calls.snapshot().made
            self.progress(Progress(kind, self.answered[kind], self.asked[kind], made))

    def _read(self, task: _Task) -> _Outcome:
        """Ask the cloud; runs in a thread and changes nothing but who answered."""
        place = self._place(task)
        if place is None:
            return _Failed(CloudError("Azure names no endpoint for its data", where=_where(task)))
        if self._is_silent(place):
            return _NotAsked(place)
        try:
            outcome = self._ask(task, place)
        except UnreachableError as error:
            with self.lock:
                self.silent[_host(place)] += 1
            return _Failed(error)
        except CloudError as error:
            return _Failed(error)
        with self.lock:
            self.spoke.add(_host(place))
        return outcome

    def _ask(self, task: _Task, place: Place) -> _Outcome:
        match task:
            case _Listing(kind, parent):
                if kind.location is None:
                    return _Listed([])
                return _Listed(self._list(task, place, kind.location, parent.id, parent.name))
            case _Catalogue(catalogue, subscription, region):
                found = self.cloud.list(
                    place,
                    _filled(catalogue.location.path, "", region, subscription),
                    params={**catalogue.location.params, **dict(task.params)},
                    kind=catalogue.name,
                    items=catalogue.location.items,
                    cursor=catalogue.location.cursor,
                )
                return _Listed(list(found))
            case _Draft():
                return self._finish(task, place)
            case _:
                assert_never(task)

    def _list(
        self, task: _Listing, place: Place, where: Location, id_: str, name: str
    ) -> list[JsonObject]:
        return list(
            self.cloud.list(
                place,
                _filled(where.path, id_, name, task.parent.subscription),
                params=dict(where.params),
                kind=task.kind.name,
                items=where.items,
                cursor=where.cursor,
            )
        )

    def _finish(self, draft: _Draft, place: Place) -> _Done:
        """Read what a listing does not carry: folded lists and content."""
        kind, wire, calls = draft.listing.kind, dict(draft.wire), Counter[str]()
        name = kind.named(wire)
        for fold in kind.folds:
            if fold.when(draft.wire):
                found = self._list(draft.listing, place, fold.location, draft.id, name)
                wire[fold.into] = list(found)
                calls[kind.name] += _pages(fold.location, len(found))
        kept: tuple[Payload, ...] = ()
        if kind.content is not None and self._wants(kind.content, draft.wire):
            try:
                payload, fetched = self._content(kind.content, draft, place, name)
            except CloudError as error:
                if not kind.content.withheld(error):
                    raise
                fetched = 1  # Azure's rule, which only asking tells: there are no bytes to have
            else:
                kept = (payload,)
            calls[kind.name] += fetched
        body = kind.canonical(wire, self.fingerprints)
        return _Done(_resource(draft, body, kept), calls)

    def _wants(self, content: Content, wire: Mapping[str, Json]) -> bool:
        return self.options.payloads and self.payloads is not None and content.when(wire)

    def _content(
        self, content: Content, draft: _Draft, place: Place, name: str
    ) -> tuple[Payload, int]:
        """Give the payload of a resource, and how many calls it took: none when it is known."""
        size = draft.wire.get(content.size) if content.size else None
        size = size if isinstance(size, int) and not isinstance(size, bool) else None
        known = self._known_payload(content, draft, size)
        if known is not None:
            return known, 0
        path = _filled(content.path, draft.id, name, draft.listing.parent.subscription)
        kind, params = draft.listing.kind.name, dict(content.params)
        assert self.payloads is not None  # _wants said so
        for last in (False,) * (_DOWNLOADS - 1) + (True,):
            chunks = self.cloud.stream(place, path, params=params, kind=kind)
            try:
                return self.payloads.keep(chunks, size=size, name=content.role), 1
            except (DamagedAnswerError, UnreachableError):
                # A body that was cut: nothing of it was kept, and it is read from its beginning.
                if last:
                    raise
        message = "the last download neither returned nor raised"
        raise AssertionError(message)

    def _known_payload(self, content: Content, draft: _Draft, size: int | None) -> Payload | None:
        """A file's bytes never change under its id (there is no call to change them)."""
        kind, within = draft.listing.kind, draft.key.within
        before = self.earlier.get((kind.name, draft.id))
        if before is None or before.key.within != within:
            # The listing above may show it too; then it is kept, and known, there.
            before = self.earlier.get((kind.same_as, draft.id)) if kind.same_as else None
            if before is None or before.key.within != within[:-1]:
                return None
        for payload in before.payloads:
            if (
                payload.name == content.role
                and payload.sha256 in self.known
                and (size is None or payload.size == size)
            ):
                return payload
        return None

    # ---- places ---------------------------------------------------------------------------

    def _place(self, task: _Task) -> Place | None:
        match task:
            case _Catalogue(subscription=subscription, region=region):
                return Place(Plane.ARM, "", subscription, region)
            case _Listing(kind, parent) | _Draft(_Listing(kind, parent)):
                if kind.plane is Plane.ARM:
                    return Place(Plane.ARM, "", parent.subscription, parent.region)
                base = kind.endpoint(parent)
                return Place(kind.plane, base, parent.subscription, parent.region) if base else None
            case _:
                assert_never(task)

    def _is_silent(self, place: Place) -> bool:
        """Whether so much of a place went unanswered that the rest need not be tried."""
        host = _host(place)
        patience = _PATIENCE_WITH_REGION if place.plane is Plane.ARM else 1
        if place.plane is Plane.ARM and not place.region:
            return False
        with self.lock:
            return host not in self.spoke and self.silent[host] >= patience

    # ---- outcomes -------------------------------------------------------------------------

    def _settle(self, task: _Task, outcome: _Outcome) -> list[_Task]:
        """Take in what a task brought; give the tasks that follow from it."""
        match task, outcome:
            case _Listing(), _Listed(wires):
                return self._listed(task, wires)
            case _Draft(), _Done(resource, calls):
                self.floor.update(calls)
                return self._have(task, resource)
            case _Catalogue(), _Listed(wires):
                self.floor[task.catalogue.name] += 1
                path = f"{task.catalogue.folder}/{task.subscription}/{task.name}.json"
                self.reference[path] = task.catalogue.document(wires, self._regions())
                return []
            case _, _Failed(error):
                self._failed(task, error)
                return []
            case _, _NotAsked(place):
                self._not_asked(task, place)
                return []
            case _:
                message = f"no such outcome of {task}: {outcome}"
                raise AssertionError(message)

    def _listed(self, task: _Listing, wires: list[JsonObject]) -> list[_Task]:
        kind = task.kind
        if kind.location is not None:
            self.floor[kind.name] += _pages(kind.location, len(wires))
        further: list[_Task] = []
        for draft in self._drafts(task, wires):
            needs_reading = any(fold.when(draft.wire) for fold in kind.folds) or (
                kind.content is not None and self._wants(kind.content, draft.wire)
            )
            if needs_reading:
                further.append(draft)
                continue
            payloads: tuple[Payload, ...] = ()
            if kind.content is not None and not self.options.payloads:
                before = self.earlier.get((kind.name, draft.id))
                payloads = before.payloads if before is not None else ()
            body = kind.canonical(draft.wire, self.fingerprints)
            further.extend(self._have(draft, _resource(draft, body, payloads)))
        return further

    def _drafts(self, task: _Listing, wires: list[JsonObject]) -> Iterator[_Draft]:
        """Give each listed item its key: duplicates of a name are told apart by age."""
        kind, parent = task.kind, task.parent
        found: dict[str, tuple[str, JsonObject]] = {}
        for wire in wires:
            id_ = str(wire.get("id") or "")
            name = kind.named(wire) or id_.rsplit("/", 1)[-1]
            if kind.random_id and name != id_:
                # Somebody's free text, which goes into keys, paths and gaps.
                name = self.fingerprints.guard("", name)
            if not name or not kind.keeps(parent, wire):
                continue
            found.setdefault(id_.lower() or name, (name, wire))
        seen: Counter[str] = Counter()
        taken = {name for name, _ in found.values()}
        for name, wire in sorted(found.values(), key=lambda item: (item[0], _age(item[1]))):
            seen[name] += 1
            own = name
            while seen[name] > 1 and (own == name or own in taken):
                own = f"{name}~{seen[name]}"
                if own in taken:
                    seen[name] += 1
            taken.add(own)
            key = kind.key(parent, own, wire)
            if not all(key.path) or not self._may_be_wanted(key, wire):
                continue
            yield _Draft(task, key, str(wire.get("id") or name), wire)

    def _have(self, draft: _Draft, resource: Resource) -> list[_Task]:
        """Keep a resource; give the listings of what is below it."""
        kind, above = draft.listing.kind, draft.listing.parent
        self.resources[resource.key] = resource
        self.listing_of[resource.key] = draft.listing
        self.held[resource.key] = (
            None if above.kind == SUBSCRIPTION else Key(above.kind, above.path)
        )
        below = [k for k in self.kinds if k.parent == kind.name]
        if not below:
            return []
        where = draft.wire.get("location")
        parent = Parent(
            kind.name,
            resource.key.path,
            draft.id,
            kind.named(draft.wire),
            above.subscription,
            location(where) if isinstance(where, str) else above.region,
            draft.wire,
        )
        self.parents[resource.key] = parent
        further: list[_Task] = []
        top = above.kind == SUBSCRIPTION
        deeper = self.descend is None or not top or self.descend(resource)
        for child in below:
            if not child.applies(parent) or not (deeper or child.embedded):
                continue
            task = _Listing(child, parent)
            if child.embedded:
                found = [
                    item
                    for _, item in Pattern.parse(child.embedded).find(draft.wire)
                    if isinstance(item, dict)
                ]
                further.extend(self._listed(task, found))
            else:
                further.append(task)
        return further

    def _failed(self, task: _Task, error: CloudError) -> None:
        """Name what could not be read."""
        if not isinstance(error, RegionDownError):
            self.floor[_kind_of(task)] += isinstance(task, _Listing | _Catalogue)
        match task:
            case _Listing(kind, parent) if error.code in kind.absent_codes and not self._was_there(
                kind, parent
            ):
                return
            case _Listing(kind, parent) if (
                isinstance(error, MissingError)
                and kind.plane is Plane.ARM
                and parent.kind != SUBSCRIPTION
                and error.code in _HOLDER_GONE
            ):
                self.doubts.append((task, error))
            case _Draft() if isinstance(error, MissingError):
                self.doubts.append((task, error))
            case _:
                self.gaps.append(self._gap(task, error))

    def _was_there(self, kind: Kind, parent: Parent) -> bool:
        """Whether the snapshot before had some of it: then no error code makes it absent."""
        if self.before is None:
            return False
        depth = len(parent.path)
        return any(
            key.kind == kind.name and key.path[:depth] == parent.path
            for known in (self.before.resources, self.before.stale)
            for key in known
        )

    def _gap(self, task: _Task, error: CloudError) -> Gap:
        detail = _detail(error)
        reason = _reason(task, error)
        match task:
            case _Listing(kind, parent):
                hides = descendants(kind.name, self.kinds)
                key = Key(kind.name, parent.path)
                return Gap(key, reason, detail, True, hides, error.status, error.code)
            case _Catalogue(catalogue, subscription, region):
                key = Key(catalogue.name, tuple(p for p in (subscription, region) if p))
                return Gap(key, reason, detail, True, (catalogue.name,), error.status, error.code)
            case _Draft(_, key):
                return Gap(key, reason, detail, status=error.status, code=error.code)
            case _:
                assert_never(task)

    def _not_asked(self, task: _Task, place: Place) -> None:
        where = _host_name(place)
        error = UnreachableError(f"{where} did not answer before; not asked again")
        self.gaps.append(self._gap(task, error))

    # ---- after the reading ----------------------------------------------------------------

    def _settle_doubts(self) -> None:
        """A 404 on something that was listed: it was deleted meanwhile, or it is a fault."""
        doubts = sorted(self.doubts, key=lambda doubt: (_kind_of(doubt[0]), _where(doubt[0])))
        for task, error in doubts:
            match task:
                case _Listing(_, parent):
                    key = Key(parent.kind, parent.path)
                    if key in self.resources and not self._is_gone(key, parent.id):
                        self.gaps.append(self._gap(task, error))
                case _Draft(listing, key, id_):
                    self.listing_of[key] = listing
                    if not self._is_gone(key, id_):
                        self.gaps.append(self._gap(task, error))
                case _:
                    assert_never(task)

    def _is_gone(self, key: Key, id_: str) -> bool:
        """Whether a second look at its listing shows that a resource went; then forget it."""
        listing = self.listing_of[key]
        there = self._relist(listing)
        if isinstance(there, MissingError) and listing.parent.kind != SUBSCRIPTION:
            above = Key(listing.parent.kind, listing.parent.path)
            gone = above not in self.resources or self._is_gone(above, listing.parent.id)
        else:
            gone = not isinstance(there, CloudError) and id_.lower() not in there
        if gone:
            self._forget(key)
        return gone

    def _relist(self, listing: _Listing) -> frozenset[str] | CloudError:
        at = Key(listing.kind.name, listing.parent.path)
        if at not in self.relisted:
            match self._read(listing):
                case _Listed(wires):
                    named = listing.kind.named
                    self.relisted[at] = frozenset(
                        str(w.get("id") or named(w)).lower() for w in wires
                    )
                case _Failed(error):
                    self.relisted[at] = error
                case _:
                    self.relisted[at] = UnreachableError("no answer at the second look")
        return self.relisted[at]

    def _forget(self, key: Key) -> None:
        """Leave out a resource that was deleted while we read, and all below it."""
        below = descendants(key.kind, self.kinds)
        self.gaps = [
            gap
            for gap in self.gaps
            if gap.key.kind not in below or gap.key.path[: len(key.path)] != key.path
        ]
        for other in list(self.resources):
            at: Key | None = other
            while at is not None and at != key:
                at = self.held.get(at)
            if at == key:
                del self.resources[other]

    def _confirm_absences(self) -> None:
        """Ask by name for what a subscription's lists show no more, or should show.

        Azure leaves out of such a list what the caller may not read, without an error (see
        github.com/projectkudu/AzureResourceExplorer/issues/254): a list that is shorter proves
        nothing, and neither does an empty one.
        """
        absent = self._absent()
        with ThreadPoolExecutor(max(1, self.options.threads), "take") as pool:
            found = list(pool.map(self._by_name, absent))
        for (kind, resource), error in zip(absent, found, strict=True):
            self.floor[kind.name] += 1
            if error is None or isinstance(error, MissingError):
                continue
            self.gaps.append(
                Gap(
                    resource.key,
                    _reason(None, error),
                    _detail(error, "no list shows it; asked for by name, "),
                    True,
                    descendants(kind.name, self.kinds),
                    error.status,
                    error.code,
                )
            )

    def _absent(self) -> list[tuple[Kind, Resource]]:
        """Give what was known, or holds an account, is in scope, and no list shows."""
        kinds = {
            kind.name: kind
            for kind in self.kinds
            if kind.parent == SUBSCRIPTION and not kind.attached and kind.plane is Plane.ARM
        }
        known: dict[Key, Resource] = {}
        if RESOURCE_GROUP.name in kinds:
            for key in self.resources:
                if key.kind in kinds and len(key.path) == 3:
                    subscription, group = key.path[:2]
                    id_ = f"/subscriptions/{subscription}/resourceGroups/{group}"
                    held_in = Key(RESOURCE_GROUP.name, (subscription, group))
                    known[held_in] = Resource(held_in, id_, {})
        if self.before is not None:
            for earlier in (self.before.stale, self.before.resources):
                known |= {key: earlier[key] for key in earlier if key.kind in kinds}
        tops: set[tuple[str, ...]] = {
            key.path for key in self.resources if key.kind in kinds and len(key.path) == 3
        }
        return [
            (kinds[key.kind], resource)
            for key, resource in sorted(known.items())
            if key not in self.resources
            and (
                self._may_be_wanted(key, resource.body)
                if len(key.path) > 2
                else self._wanted(key.path, tops, unread=False)
            )
            and not any(gap.covers(key) for gap in self.gaps)
        ]

    def _by_name(self, absent: tuple[Kind, Resource]) -> CloudError | None:
        """Ask for one thing; None when it is there and out of scope by now."""
        kind, resource = absent
        key = resource.key
        region = resource.body.get("location")
        at = location(region) if isinstance(region, str) else ""
        params = kind.location.params if kind.location else {}
        try:
            body = self.cloud.get(
                Place(Plane.ARM, "", key.path[0], at), resource.id, params=params, kind=kind.name
            ).body
        except CloudError as error:
            return error
        if not self._may_be_wanted(key, body if isinstance(body, dict) else {}):
            return None
        return CloudError("Azure shows it", where=resource.id)

    # ---- one thing, two listings ----------------------------------------------------------

    def _leave_shared(self) -> None:
        """What the listing above shows too is kept there: two planes may be one.

        Where that listing was not read, what it showed before is still its own, behind its gap.
        """
        for kind in self.kinds:
            if not kind.same_as:
                continue
            above = {
                (key.within, resource.id.lower())
                for key, resource in self.resources.items()
                if key.kind == kind.same_as
            }
            unread = [g.key.path for g in self.gaps if g.listing and kind.same_as in g.hides]
            if self.before is not None and unread:
                known = {**self.before.stale, **self.before.resources}
                above |= {
                    (key.within, resource.id.lower())
                    for key, resource in known.items()
                    if key.kind == kind.same_as
                    and any(key.path[: len(path)] == path for path in unread)
                }
            if not above:
                continue
            for key in [k for k in self.resources if k.kind == kind.name]:
                # The parent's own holder: a project's account.
                if (key.within[:-1], self.resources[key].id.lower()) in above:
                    del self.resources[key]

    # ---- scope ----------------------------------------------------------------------------

    def _may_be_wanted(self, key: Key, wire: Mapping[str, Json]) -> bool:
        """Whether a listed item can be in scope: decided before anything below it is asked."""
        kind = next(k for k in self.kinds if k.name == key.kind)
        if kind.parent != SUBSCRIPTION or kind.attached or len(key.path) < 3:
            return True
        region = wire.get("location")
        at = location(region) if isinstance(region, str) else ""
        return any(
            scope.subscription == key.path[0]
            and (not scope.resource_groups or key.path[1] in scope.resource_groups)
            and (not scope.accounts or key.path[2] in scope.accounts)
            and (not scope.regions or at in scope.regions)
            for scope in self.scopes
        )

    def _leave_scope(self) -> None:
        """Leave out groups, role assignments and locks of what is not looked at."""
        tops: set[tuple[str, ...]] = {
            key.path
            for key in self.resources
            if len(key.path) == 3
            and self.listing_of[key].parent.kind == SUBSCRIPTION
            and not self.listing_of[key].kind.attached
        }
        unread = {
            gap.key.path[0]
            for gap in self.gaps
            if gap.listing and len(gap.key.path) == 1 and len(gap.hides) > 1
        }
        undecided: set[tuple[str, str]] = set()
        for key in list(self.resources):
            listing = self.listing_of[key]
            if listing.parent.kind != SUBSCRIPTION or key.path in tops:
                continue
            names = key.within if listing.kind.attached else key.path
            wanted = self._wanted(names, tops, unread=names[0] in unread)
            if wanted is None:
                undecided.add((key.path[0], key.kind))
            if not wanted:
                del self.resources[key]
        for subscription, name in sorted(undecided):
            self.gaps = [
                replace(gap, hides=(*gap.hides, name))
                if gap.key.path == (subscription,) and len(gap.hides) > 1
                else gap
                for gap in self.gaps
            ]

    def _wanted(
        self, names: tuple[str, ...], tops: set[tuple[str, ...]], *, unread: bool
    ) -> bool | None:
        """Whether what `names` stand for is in scope; None when only the unread would tell."""
        if len(names) == 1:
            return True
        undecided = False
        for scope in self.scopes:
            if scope.subscription != names[0]:
                continue
            if scope.resource_groups and names[1] not in scope.resource_groups:
                continue
            if len(names) == 2 or "/" in names[2]:
                # A group, or a resource beside the accounts, goes with its group.
                if scope.resource_groups or not scope.accounts:
                    return True
                if any(top[:2] == names[:2] for top in tops):
                    return True
                undecided = undecided or unread
                continue
            if scope.accounts and names[2] not in scope.accounts:
                continue
            if not scope.regions or names[:3] in tops:
                return True
            undecided = undecided or unread
        return None if undecided else False

    # ---- reference ------------------------------------------------------------------------

    def _regions(self) -> frozenset[str]:
        found = {location(region) for region in self.options.reference_regions}
        for key, parent in self.parents.items():
            if self.listing_of[key].parent.kind == SUBSCRIPTION and parent.region:
                found.add(parent.region)
        return frozenset(found)

    def _catalogues(self, subscriptions: Sequence[str]) -> Iterator[_Catalogue]:
        for subscription in subscriptions:
            for catalogue in CATALOGUES:
                match catalogue.every:
                    case "region":
                        for region in sorted(self._regions()):
                            yield _Catalogue(catalogue, subscription, region, region)
                    case "subscription":
                        yield _Catalogue(catalogue, subscription, "", "all")
                    case _ if self.options.capacities:
                        for model in self._models(subscription):
                            name = "-".join(quote(part, safe="._-") for _, part in model)
                            yield _Catalogue(catalogue, subscription, "", name, model)
                    case _:
                        continue

    def _models(self, subscription: str) -> list[tuple[tuple[str, str], ...]]:
        """Give the base models that are deployed, as the query that asks for their capacity."""
        found: set[tuple[tuple[str, str], ...]] = set()
        for key, resource in self.resources.items():
            properties = resource.body.get("properties")
            model = properties.get("model") if isinstance(properties, dict) else None
            if (
                key.kind != "deployment"
                or key.path[0] != subscription
                or not isinstance(model, dict)
            ):
                continue
            parts = [str(model.get(part) or "") for part in ("format", "name", "version")]
            if all(parts) and not is_fine_tuned(parts[1]):
                found.add(
                    tuple(zip(("modelFormat", "modelName", "modelVersion"), parts, strict=True))
                )
        return sorted(found)


def _resource(draft: _Draft, body: JsonObject, payloads: tuple[Payload, ...]) -> Resource:
    """Azure spells one ARM id in several cases, from one answer to the next: keep it in one."""
    id_ = draft.id.lower() if draft.listing.kind.plane is Plane.ARM else draft.id
    return Resource(draft.key, id_, body, payloads)


def _kind_of(task: _Task) -> str:
    match task:
        case _Listing(kind):
            return kind.name
        case _Draft(listing):
            return listing.kind.name
        case _Catalogue(catalogue):
            return catalogue.name
        case _:
            assert_never(task)


def _subscription_of(task: _Task) -> str:
    match task:
        case _Catalogue(subscription=subscription):
            return subscription
        case _Listing(_, parent) | _Draft(_Listing(_, parent)):
            return parent.subscription
        case _:
            assert_never(task)


def _where(task: _Task) -> str:
    match task:
        case _Listing(kind, parent):
            return str(Key(kind.name, parent.path))
        case _Draft(_, key):
            return str(key)
        case _Catalogue(catalogue, subscription, region):
            return f"{catalogue.name}/{subscription}/{region}"
        case _:
            assert_never(task)


def _reason(task: _Task | None, error: CloudError) -> GapReason:
    match error:
        case DeniedError():
            return GapReason.DENIED
        case ThrottledError():
            return GapReason.THROTTLED
        case RegionDownError():
            return GapReason.REGION_DOWN
        case UnreachableError():
            return GapReason.UNREACHABLE
        case DamagedAnswerError():
            return GapReason.DAMAGED
        case _:
            pass
    if error.code in _UNSUPPORTED or error.status in {405, 501}:
        return GapReason.UNSUPPORTED
    data = isinstance(task, _Listing) and task.kind.plane is not Plane.ARM
    if data and isinstance(error, MissingError):
        # A data plane that does not know the path: the feature is not in this region.
        return GapReason.UNSUPPORTED
    return GapReason.FAILED


def _detail(error: CloudError, before: str = "") -> str:
    return (before + scrub(" ".join(error.what.split())))[:500]


def refuse_nothing(snapshot: Snapshot) -> None:
    """Refuse a snapshot for which no call could even be sent: nobody was signed in.

    It would be told as an estate without resources. Raises DeniedError or UnreachableError.
    """
    if snapshot.resources or snapshot.calls.made or not snapshot.gaps:
        return
    first = min(snapshot.gaps, key=lambda gap: gap.reason is not GapReason.DENIED)
    kind = DeniedError if first.reason is GapReason.DENIED else UnreachableError
    raise kind(
        f"nothing could be read, so nothing is kept: {first.detail}",
        where=f"{len(snapshot.gaps)} listings of {snapshot.estate or 'the estate'}",
        remedy="run `muster doctor`: it says what is missing",
        status=first.status,
        code=first.code,
    )


def _host(place: Place) -> Place:
    """What answers, or not, as one: a data plane's host, or a region's resource manager."""
    return replace(place, base=place.base.lower())


def _host_name(place: Place) -> str:
    if place.plane is Plane.ARM:
        return f"Azure Resource Manager for {place.region}"
    return scrub(place.base)


def _filled(template: str, id_: str, name: str, subscription: str) -> str:
    """Fill a path template; names and ids are quoted, an ARM id keeps its slashes."""
    return (
        template.replace("{subscription}", quote(subscription, safe=""))
        .replace("{id}", quote(id_, safe="/()"))
        .replace("{name}", quote(name, safe=""))
    )


def _pages(where: Location, items: int) -> int:
    """Give the pages that so many items need: at least one call asks whether there are any."""
    size = int(where.params.get("limit", "0")) if where.cursor is not Cursor.NEXT_LINK else 0
    return max(1, -(-items // size)) if size else 1


def _age(wire: Mapping[str, Json]) -> tuple[float, str]:
    for name in ("created_at", "created"):
        made = wire.get(name)
        if isinstance(made, int | float):
            return (float(made), str(wire.get("id") or ""))
    return (0.0, str(wire.get("id") or ""))


def _gap_order(gap: Gap) -> tuple[Key, str, bool]:
    return (gap.key, gap.reason.value, gap.listing)


def _together(gaps: Iterable[Gap]) -> tuple[Gap, ...]:
    """Give the gaps, those that one outage made in one place as one."""
    outages: dict[tuple[tuple[str, ...], GapReason], list[Gap]] = {}
    kept: list[Gap] = []
    for gap in sorted(set(gaps), key=_gap_order):
        if gap.listing and gap.reason in {GapReason.REGION_DOWN, GapReason.UNREACHABLE}:
            outages.setdefault((gap.key.path, gap.reason), []).append(gap)
        else:
            kept.append(gap)
    for (path, reason), group in outages.items():
        hides = tuple(sorted({name for gap in group for name in gap.hides}))
        told = [g.detail for g in group if not g.detail.endswith("not asked again")]
        detail = min(told or [g.detail for g in group])
        kept.append(Gap(Key(group[0].key.kind, path), reason, detail, True, hides))
    return tuple(sorted(kept, key=_gap_order))


def _earlier(previous: Snapshot | None) -> dict[tuple[str, str], Resource]:
    if previous is None:
        return {}
    return {
        (key.kind, resource.id): resource
        for key, resource in previous.resources.items()
        if resource.payloads
    }


def _difference(after: CallCount, before: CallCount) -> CallCount:
    by_kind = {
        kind: number - before.by_kind.get(kind, 0)
        for kind, number in after.by_kind.items()
        if number > before.by_kind.get(kind, 0)
    }
    return CallCount(
        made=after.made - before.made,
        floor=after.floor - before.floor,
        throttled=after.throttled - before.throttled,
        retried=after.retried - before.retried,
        by_kind=by_kind,
    )
