"""Say whether the estate could be recovered in the standby region right now, touching nothing.

Every question is a Check that says what was expected and what was found. What could not be asked is
`not known`, and never counts as passed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, Protocol

import orjson

from snapshots import replication
from snapshots.cloud.place import Permission, Place, Plane
from snapshots.compare import compare
from snapshots.errors import CloudError, MissingError, MusterError, NotFoundError
from snapshots.kinds.accounts import API
from snapshots.kinds.fields import location
from snapshots.kinds.openai import is_fine_tuned
from snapshots.ledger.entries import EVIDENCE, LIVE, Entry
from snapshots.mapping import place_of
from snapshots.model import Json, JsonObject, Key, Resource, Snapshot
from snapshots.permissions import Verb, missing, role_for
from snapshots.replication import Replication
from snapshots.steps import Mapping as Places
from snapshots.vault.base import VaultFacts

HORIZON: Final = timedelta(days=90)  # Microsoft names a replacement 90 to 120 days before the end
IDLE_WARNING: Final = timedelta(days=3)
_CS: Final = "providers/Microsoft.CognitiveServices"
_ACCOUNT: Final = "Microsoft.CognitiveServices/accounts"
_SOFT_DELETED: Final = timedelta(hours=48)  # learn: ai-services/recover-purge-resources
_WORKSPACE: Final = timedelta(days=14)  # learn: machine-learning/concept-soft-delete
_SERVES: Final = frozenset({"OpenAI", "AIServices"})
_THREADS: Final = 8


class State(StrEnum):
    """How a check, and a promise, stands."""

    MET = "met"
    AT_RISK = "at risk"  # met today; `date` says until when
    NOT_KNOWN = "not known"  # could not be asked: never counts as met
    NOT_MET = "not met"


_ORDER: Final = (State.MET, State.AT_RISK, State.NOT_KNOWN, State.NOT_MET)


def worst(states: Iterable[State]) -> State:
    """Give the worst of them; of none at all: not known."""
    return max(states, key=_ORDER.index, default=State.NOT_KNOWN)


class Promise(StrEnum):
    """What an objective promises."""

    RTO = "rto"  # how long a recovery takes, and whether it comes to an end at all
    RPO = "rpo"  # how old what comes back may be


@dataclass(frozen=True, slots=True)
class Check:
    """A question with an expected and an observed answer."""

    name: str
    subject: str
    state: State
    detail: str
    date: datetime | None = None  # when it ends, or by when something must be done
    remedy: str = ""
    promise: Promise = Promise.RTO
    pair: str = ""  # "primary:standby" it is about; "": the whole estate


@dataclass(frozen=True, slots=True)
class Objectives:
    """Promised RTO and RPO, and how far ahead dates are looked for."""

    rto: timedelta | None = None
    rpo: timedelta | None = None
    horizon: timedelta = HORIZON


@dataclass(frozen=True, slots=True)
class Judged:
    """One objective and how it stands."""

    name: Promise
    promised: timedelta | None
    state: State
    date: datetime | None  # the first one, while it is at risk
    detail: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A primary region, its standby, and how the one becomes the other."""

    primary: str
    standby: str
    mapping: Places


@dataclass(frozen=True, slots=True)
class Readiness:
    """Could we recover right now? Answered without touching anything."""

    at: datetime
    snapshot: str  # the Snapshot-Id that would be restored, "" when there is none
    state: State
    objectives: tuple[Judged, ...]
    checks: tuple[Check, ...]

    @property
    def counts(self) -> Mapping[State, int]:
        """How many checks stand how."""
        return {state: sum(c.state is state for c in self.checks) for state in State}


class Cloud(Protocol):
    """What is asked of Azure: reads only."""

    def list(
        self, place: Place, path: str, *, params: Mapping[str, str] | None = None, kind: str
    ) -> Iterator[JsonObject]:
        """Give the items of all pages."""
        ...

    def post(
        self,
        place: Place,
        path: str,
        body: Json = None,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        reads: bool = False,
    ) -> _Answered:
        """Ask a question that takes a body; `reads` says that it changes nothing."""
        ...

    def permissions(self, scope: str) -> tuple[Permission, ...]:
        """What the signed-in identity may do at a scope."""
        ...


class _Answered(Protocol):
    @property
    def body(self) -> Json: ...


class Ledger(replication.Branches, Protocol):
    """What is asked of the ledger: history and the last state."""

    def log(self, limit: int | None = None, *, ref: str = LIVE) -> Iterator[Entry]:
        """Give the commits of a branch, newest first."""
        ...

    def load(self, ref: str = LIVE) -> Snapshot:
        """Give a snapshot back."""
        ...

    def asof(self, when: datetime) -> Entry:
        """Give the newest snapshot that was kept at a moment."""
        ...


class Vault(Protocol):
    """What is asked of the vault."""

    def facts(self) -> VaultFacts:
        """What it says about itself."""
        ...

    def known(self) -> frozenset[str]:
        """Give the digests of all payloads that are kept."""
        ...

    def bundles(self) -> tuple[str, ...]:
        """Give the names of the ledger's bundles, oldest first."""
        ...


class Now(Protocol):
    """Tells the time."""

    def now(self) -> datetime:
        """Tell the moment, aware, in UTC."""
        ...


def ready(
    pairs: Sequence[Pair],
    subscriptions: Sequence[str],
    cloud: Cloud,
    ledger: Ledger,
    vault: Vault,
    *,
    clock: Now,
    objectives: Objectives | None = None,
    whole_estate: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Readiness:
    """Ask everything that would stop a recovery into the standby of `pairs`, and judge it.

    `subscriptions` are those of the estate, for the rescue clocks. `whole_estate` asks also for
    accounts that no pair covers. Raises nothing for what the cloud or a store does: that is a
    check that is not known.
    """
    promised = objectives or Objectives()
    tell = progress or (lambda _words: None)
    now = clock.now()
    tell("the newest snapshot")
    history = _History.read(ledger)
    checks: list[Check] = [*_history_checks(history, promised, now)]
    checks += _stores(history, vault, pairs, promised, now)
    checks += _proofs(history, ledger, promised, now)
    snapshot = history.state
    if snapshot is not None:
        live = _Live(cloud)
        situations = [_Situation(pair, snapshot, live, now, promised) for pair in pairs]
        tell("catalogue, quota, names and permissions")
        live.fetch([ask for s in situations for ask in s.first()])
        live.fetch([ask for s in situations for ask in s.second()])
        for situation in situations:
            known = _replication(ledger, situation.pair)
            name = f"{situation.pair.primary}:{situation.pair.standby}"
            checks += [replace(c, pair=name) for c in _pair_checks(situation, known, promised)]
        if whole_estate:
            checks += _without_pair(snapshot, pairs)
        tell("rescue clocks")
        names = sorted({s.lower() for s in subscriptions})
        live.fetch([ask for s in names for ask in _rescue_asks(s, now)])
        checks += [c for s in names for c in _rescue(s, snapshot, live, now)]
    judged = tuple(_judge(p, promised, checks, now) for p in Promise)
    return Readiness(
        now,
        history.newest.snapshot if history.newest else "",
        worst(j.state for j in judged),
        judged,
        tuple(sorted(checks, key=lambda c: (-_ORDER.index(c.state), c.name, c.subject))),
    )


def _judge(
    promise: Promise, promised: Objectives, checks: Sequence[Check], now: datetime
) -> Judged:
    ours = [check for check in checks if check.promise is promise]
    state = worst(check.state for check in ours)
    # A date that is past says when something was done, not when it ends.
    dates = [
        c.date for c in ours if c.state is State.AT_RISK and c.date is not None and c.date > now
    ]
    stop = [c for c in ours if c.state is state and state is not State.MET]
    span = promised.rto if promise is Promise.RTO else promised.rpo
    names = sorted({c.name for c in stop})
    detail = (
        f"{len(stop)} of {len(ours)} checks: {', '.join(names)}" if stop else "nothing stops it"
    )
    if span is None:
        detail += "; no number is promised ([objectives] in muster.toml)"
    return Judged(
        promise, span, state, min(dates) if state is State.AT_RISK and dates else None, detail
    )


# ------------------------------------------------------------------------ history and stores


@dataclass(frozen=True, slots=True)
class _History:
    """The newest snapshot, and the newest that is complete."""

    newest: Entry | None = None
    complete: Entry | None = None
    state: Snapshot | None = None
    error: MusterError | None = None

    @classmethod
    def read(cls, ledger: Ledger) -> _History:
        try:
            newest: Entry | None = None
            complete: Entry | None = None
            for entry in ledger.log(ref=LIVE):
                newest = newest or entry
                if not entry.number("Gaps"):
                    complete = entry
                    break
            state = ledger.load(newest.commit) if newest else None
        except MusterError as error:
            return cls(error=error)
        return cls(newest, complete, state)


def _history_checks(history: _History, promised: Objectives, now: datetime) -> Iterator[Check]:
    name, remedy = "snapshot age", "run `muster snapshot`, and on a schedule from now on"
    if history.error is not None or history.newest is None:
        told = history.error.what if history.error else "there is no snapshot yet"
        state = State.NOT_KNOWN if history.error else State.NOT_MET
        for promise in Promise:
            yield Check("snapshot", "ledger", state, told, remedy=remedy, promise=promise)
        return
    gaps = int(history.newest.number("Gaps"))
    yield Check(
        "snapshot",
        history.newest.snapshot,
        State.AT_RISK if gaps else State.MET,
        f"{gaps} gaps: what they hide would come back as it was last read" if gaps else "complete",
        remedy="`muster coverage` names what was unread and why" if gaps else "",
    )
    if history.complete is None:
        yield Check(
            name,
            history.newest.snapshot,
            State.NOT_MET,
            "no snapshot is complete",
            remedy="`muster coverage` names what was unread and why",
            promise=Promise.RPO,
        )
        return
    taken = history.complete.taken_at
    age = now - taken
    told = f"the last complete snapshot is {_span(age)} old"
    if promised.rpo is None:
        yield Check(name, history.complete.snapshot, State.MET, told, promise=Promise.RPO)
        return
    good = age <= promised.rpo
    yield Check(
        name,
        history.complete.snapshot,
        State.MET if good else State.NOT_MET,
        f"{told}, {_span(promised.rpo)} is promised",
        taken + promised.rpo,
        "" if good else remedy,
        Promise.RPO,
    )


def _stores(
    history: _History, vault: Vault, pairs: Sequence[Pair], promised: Objectives, now: datetime
) -> Iterator[Check]:
    """Whether vault and ledger are there without the primary region, and hold what is needed."""
    facts = vault.facts()
    primaries = sorted({pair.primary for pair in pairs})
    if not facts.reachable:
        for name in ("vault", "payloads", "ledger"):
            yield Check(name, facts.location, State.NOT_KNOWN, facts.problem, remedy=facts.remedy)
        return
    yield vault_place(facts, primaries)
    if history.state is not None:
        yield from _payloads(history.state, vault, facts.location)
    if history.newest is not None:
        yield _bundle(history.newest, vault, facts.location, promised, now)


def vault_place(facts: VaultFacts, primaries: Sequence[str]) -> Check:
    """Judge whether what a vault holds is there without any of the primary regions."""
    if facts.kind == "folder":
        told = "a folder on this machine: it depends on no region, and on this machine alone"
        return Check("vault", facts.location, State.MET, told)
    if facts.region_independent:
        told = f"copies in two regions ({facts.redundancy or 'geo-redundant'})"
        return Check("vault", facts.location, State.MET, told)
    if facts.region is not None and location(facts.region) not in primaries:
        return Check("vault", facts.location, State.MET, f"in {facts.region}, no primary region")
    remedy = "use a storage account in the standby region, or a geo-redundant one (RA-GRS, RA-GZRS)"
    if facts.region is None and facts.region_independent is None:
        told = "reachable, and does not say in which region it is"
        return Check("vault", facts.location, State.NOT_KNOWN, told, remedy=remedy)
    told = f"no copy outside its region ({facts.redundancy or facts.region or 'one region'})"
    return Check("vault", facts.location, State.NOT_MET, told, remedy=remedy)


def _payloads(state: Snapshot, vault: Vault, where: str) -> Iterator[Check]:
    try:
        known = vault.known()
    except MusterError as error:
        yield Check("payloads", where, State.NOT_KNOWN, error.what, remedy=error.remedy)
        return
    needed = {
        payload.sha256: str(resource.key)
        for resource in (*state.resources.values(), *state.stale.values())
        for payload in resource.payloads
    }
    lost = sorted(set(needed) - known)
    told = f"all {len(needed)} of the newest snapshot are there"
    if lost:
        told = f"{len(lost)} of {len(needed)} are missing, the first is of {needed[lost[0]]}"
    yield Check(
        "payloads",
        where,
        State.NOT_MET if lost else State.MET,
        told,
        remedy="run `muster verify`, then `muster snapshot` while the source is there"
        if lost
        else "",
    )


def _bundle(newest: Entry, vault: Vault, where: str, promised: Objectives, now: datetime) -> Check:
    """Whether the ledger can be had without this machine: the vault's bundle, and how old it is."""
    name, remedy = "ledger", "run `muster snapshot`: it bundles the ledger into the vault"
    try:
        bundles = vault.bundles()
    except MusterError as error:
        told = error.what
        return Check(name, where, State.NOT_KNOWN, told, remedy=error.remedy, promise=Promise.RPO)
    if any(found.startswith(newest.snapshot) for found in bundles):
        told = "the newest snapshot can be rebuilt from the vault"
        return Check(name, where, State.MET, told, promise=Promise.RPO)
    at = _bundled_at(bundles[-1]) if bundles else None
    if at is None:
        told = "the vault has no bundle of the ledger: nothing can be rebuilt without this machine"
        return Check(name, where, State.NOT_MET, told, remedy=remedy, promise=Promise.RPO)
    # An audit keeps what it saw in the ledger; a snapshot bundles it, too.
    told = (
        f"the vault's bundle of the ledger is {_span(now - at)} old, and newer states are not in it"
    )
    if promised.rpo is None:
        return Check(name, where, State.AT_RISK, told, at, remedy, Promise.RPO)
    good = now - at <= promised.rpo
    told += f"; {_span(promised.rpo)} is promised"
    state = State.MET if good else State.NOT_MET
    return Check(name, where, state, told, at + promised.rpo, "" if good else remedy, Promise.RPO)


def _bundled_at(name: str) -> datetime | None:
    """Read the time that the name of a bundle begins with, None without one."""
    found = re.match(r"(\d{8}T\d{6})\d*Z-", name)
    return datetime.strptime(found[1], "%Y%m%dT%H%M%S").replace(tzinfo=UTC) if found else None


@dataclass(frozen=True, slots=True)
class _Evidence:
    """What one document of the evidence branch says, as far as readiness needs it."""

    kind: str  # drill, restore, verify …
    at: datetime
    passed: bool
    seconds: float
    snapshot: str
    verdict: str


_PASSED: Final = frozenset({"passed", "met", "whole", "clean", "ok", "success", "succeeded"})


def evidence(ledger: Ledger) -> Iterator[_Evidence]:
    """Give what the evidence branch knows of drills and verifications; nothing when it is empty."""
    tip = ledger.tip(EVIDENCE)
    for path, content in ledger.files(tip) if tip else ():
        if not path.endswith(".json"):
            continue
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError:
            continue  # `muster report` and the chain's own check name damage
        found = _evidence(path, document) if isinstance(document, dict) else None
        if found is not None:
            yield found


def _evidence(path: str, document: JsonObject) -> _Evidence | None:
    inner = document.get("document")
    document = inner if isinstance(inner, dict) else document
    verdict = document.get("verdict")
    at = next(
        (
            moment
            for name in ("finished_at", "ended_at", "at", "started_at")
            if (moment := _moment(document.get(name))) is not None
        ),
        None,
    )
    if not isinstance(verdict, str) or at is None:
        return None
    kind = str(document.get("kind") or path.split("/", 1)[0]).rstrip("s").lower()
    if "drill" in document:
        kind = "drill"
    elif kind.startswith("verif"):
        kind = "verify"
    seconds = document.get("seconds", _dict(document.get("measured")).get("rto_seconds"))
    begun = _moment(document.get("started_at"))
    if not isinstance(seconds, int | float):
        seconds = (at - begun).total_seconds() if begun is not None else 0.0
    return _Evidence(
        kind,
        at,
        verdict.lower() in _PASSED,
        float(seconds),
        str(document.get("snapshot") or ""),
        verdict,
    )


def _proofs(
    history: _History, ledger: Ledger, promised: Objectives, now: datetime
) -> Iterator[Check]:
    """The last verify and the last drill, and whether anything changed since."""
    try:
        found = sorted(evidence(ledger), key=lambda e: e.at)
    except MusterError as error:
        for name in ("verify", "drill"):
            yield Check(name, EVIDENCE, State.NOT_KNOWN, error.what, remedy=error.remedy)
        return
    verified = [e for e in found if e.kind == "verify"]
    if verified:
        last = verified[-1]
        yield Check(
            "verify",
            "vault and ledger",
            State.MET if last.passed else State.NOT_MET,
            f"{last.verdict}, {_span(now - last.at)} ago",
            last.at,
            "" if last.passed else "run `muster verify` and follow what it says",
        )
    else:
        told = "never: nothing proves that what was kept is whole"
        yield Check(
            "verify", "vault and ledger", State.NOT_KNOWN, told, remedy="run `muster verify`"
        )
    drilled = [e for e in found if e.kind in {"drill", "restore"}]
    if not drilled:
        told = "never: no recovery was ever rehearsed, so nobody knows how long one takes"
        yield Check("drill", "estate", State.NOT_KNOWN, told, remedy="run `muster drill run`")
        return
    yield _drill(drilled[-1], history, ledger, promised, now)


def _drill(
    last: _Evidence, history: _History, ledger: Ledger, promised: Objectives, now: datetime
) -> Check:
    again = "run `muster drill run` again"
    told = (
        f"{last.verdict}, {_span(now - last.at)} ago, in {_span(timedelta(seconds=last.seconds))}"
    )
    if not last.passed:
        return Check("drill", "estate", State.NOT_MET, told, last.at, again)
    if promised.rto is not None and timedelta(seconds=last.seconds) > promised.rto:
        told += f"; {_span(promised.rto)} is promised"
        return Check("drill", "estate", State.NOT_MET, told, last.at, again)
    if history.state is None:
        return Check("drill", "estate", State.NOT_KNOWN, told, last.at, again)
    try:
        then = ledger.load(last.snapshot or ledger.asof(last.at).commit)
        changes = sum(1 for _ in compare(then, history.state))
    except NotFoundError as error:
        told += f"; what it rehearsed is no longer kept: {error.what}"
        return Check("drill", "estate", State.NOT_KNOWN, told, last.at, again)
    except MusterError as error:
        return Check("drill", "estate", State.NOT_KNOWN, f"{told}; {error.what}", last.at, again)
    if changes:
        told += f"; needs a new drill: {changes} resources changed since"
        return Check("drill", "estate", State.AT_RISK, told, last.at, again)
    return Check("drill", "estate", State.MET, f"{told}; nothing changed since", last.at)


def _replication(ledger: Ledger, pair: Pair) -> Replication | MusterError:
    try:
        return replication.read(ledger, pair.primary, pair.standby)
    except MusterError as error:
        return error


# ------------------------------------------------------------------------------ live reads


@dataclass(frozen=True, slots=True)
class _Ask:
    """One read. The same one is asked once."""

    what: str  # "list", "domain" or "permissions"
    path: str
    params: tuple[tuple[str, str], ...] = ()
    subscription: str = ""
    region: str = ""
    kind: str = ""
    body: str = ""  # of a question that takes one: the name that is asked for


@dataclass(slots=True)
class _Live:
    """What Azure answered, each question once; a failure is an answer too."""

    cloud: Cloud
    rows: dict[_Ask, tuple[JsonObject, ...] | CloudError] = field(default_factory=dict)
    granted: dict[str, tuple[Permission, ...] | CloudError] = field(default_factory=dict)

    def fetch(self, asks: Iterable[_Ask]) -> None:
        """Ask what was not asked yet, a few at a time."""
        fresh = [ask for ask in dict.fromkeys(asks) if ask not in self.rows]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="ready") as pool:
            for ask, found in zip(fresh, pool.map(self._one, fresh), strict=True):
                self.rows[ask] = found

    def get(self, ask: _Ask) -> tuple[JsonObject, ...] | CloudError:
        """Give an answer, asking now when nobody did."""
        if ask not in self.rows:
            self.rows[ask] = self._one(ask)
        return self.rows[ask]

    def permissions(self, scope: str) -> tuple[Permission, ...] | CloudError:
        """What we may do at a scope."""
        if scope not in self.granted:
            try:
                self.granted[scope] = self.cloud.permissions(scope)
            except CloudError as error:
                self.granted[scope] = error
        return self.granted[scope]

    def _one(self, ask: _Ask) -> tuple[JsonObject, ...] | CloudError:
        place = Place(Plane.ARM, subscription=ask.subscription, region=ask.region)
        try:
            if not ask.body:
                return tuple(
                    self.cloud.list(place, ask.path, params=dict(ask.params), kind=ask.kind)
                )
            body: JsonObject = {"subdomainName": ask.body, "type": _ACCOUNT}
            answer = self.cloud.post(
                place, ask.path, body, params=dict(ask.params), kind=ask.kind, reads=True
            )
        except CloudError as error:
            return error
        return (answer.body,) if isinstance(answer.body, dict) else ()


_V: Final = tuple(API.items())


def _of(subscription: str, what: str, region: str = "", **more: str) -> _Ask:
    path = f"/subscriptions/{subscription}/{_CS}/{what}"
    return _Ask("list", path, (*_V, *more.items()), subscription, region, what.rsplit("/", 1)[-1])


def _models_ask(subscription: str, region: str) -> _Ask:
    return _of(subscription, f"locations/{region}/models", region)


def _usages_ask(subscription: str, region: str) -> _Ask:
    return _of(subscription, f"locations/{region}/usages", region)


def _capacity_ask(subscription: str, model: _Model) -> _Ask:
    return _of(
        subscription,
        "modelCapacities",
        modelFormat=model.format,
        modelName=model.name,
        modelVersion=model.version,
    )


def _domain_ask(subscription: str, name: str) -> _Ask:
    path = f"/subscriptions/{subscription}/{_CS}/checkDomainAvailability"
    return _Ask("domain", path, _V, subscription, "", "domain-availability", name)


def _below(account: str, what: str, subscription: str, region: str) -> _Ask:
    return _Ask("list", f"{account}/{what}", _V, subscription, region, what)


def _vaults_ask(subscription: str) -> _Ask:
    path = f"/subscriptions/{subscription}/providers/Microsoft.KeyVault/vaults"
    return _Ask("list", path, (("api-version", "2023-07-01"),), subscription, "", "key-vault")


# ------------------------------------------------------------------------- what is wanted


@dataclass(frozen=True, slots=True, order=True)
class _Model:
    format: str
    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class _Account:
    """One account of the primary, and where it goes."""

    resource: Resource
    subscription: str
    group: str
    name: str
    subdomain: str

    @property
    def id(self) -> str:
        """The ARM id it has or would have in the standby."""
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
        return f"{group}/{_CS}/accounts/{self.name}"

    @property
    def serves(self) -> bool:
        """Whether it holds deployments."""
        return self.resource.body.get("kind") in _SERVES


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One deployment of the primary as it must be in the standby."""

    key: Key
    account: _Account
    model: _Model  # of a fine-tuned one: its base
    tuned: str  # the fine-tuned model's name, "" for one of the catalogue
    sku: str
    capacity: int
    upgrade: str


def _props(body: Mapping[str, Json]) -> JsonObject:
    found = body.get("properties")
    return found if isinstance(found, dict) else {}


def _dict(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _rows(value: Json) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _moment(value: Json) -> datetime | None:
    if not isinstance(value, str):
        return None
    # Azure writes seven digits of a second, which fromisoformat takes from 3.11 on.
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)


@dataclass(slots=True)
class _Situation:
    """One pair: what is wanted in the standby, and what is known of the standby."""

    pair: Pair
    snapshot: Snapshot
    live: _Live
    now: datetime
    promised: Objectives
    accounts: tuple[_Account, ...] = ()
    wanted: tuple[_Wanted, ...] = ()

    def __post_init__(self) -> None:
        everything = {**self.snapshot.stale, **self.snapshot.resources}
        self.accounts = tuple(
            self._account(resource)
            for key, resource in sorted(everything.items())
            if key.kind == "account"
            and location(str(resource.body.get("location") or "")) == location(self.pair.primary)
        )
        by_path = {account.resource.key.path: account for account in self.accounts}
        self.wanted = tuple(
            self._want(resource, by_path[key.within])
            for key, resource in sorted(everything.items())
            if key.kind == "deployment" and key.within in by_path
        )

    def _account(self, resource: Resource) -> _Account:
        place, _ = place_of(self.pair.mapping, resource)
        return _Account(
            resource, place.subscription, place.resource_group, place.name, place.subdomain
        )

    def _want(self, resource: Resource, account: _Account) -> _Wanted:
        properties, sku = _props(resource.body), _dict(resource.body.get("sku"))
        model, name = _dict(properties.get("model")), str(sku.get("name") or "Standard")
        capacity = int(_number(sku.get("capacity")))
        rules = {rule.of.lower(): rule for rule in self.pair.mapping.skus}
        rule = rules.get(resource.key.name.lower()) or rules.get(name.lower())
        if rule is not None:
            name = rule.name or name
            capacity = rule.capacity if rule.capacity is not None else capacity
        called, version = str(model.get("name") or ""), str(model.get("version") or "")
        tuned = called if is_fine_tuned(called) else ""
        if tuned:
            called, version = self._base(account.resource.key, called)
        versions = self.pair.mapping.versions
        version = versions.get(f"{called}@{version}", versions.get(called, version))
        return _Wanted(
            resource.key,
            account,
            _Model(str(model.get("format") or "OpenAI"), called, version),
            tuned,
            name,
            capacity,
            str(properties.get("versionUpgradeOption") or ""),
        )

    def _base(self, account: Key, tuned: str) -> tuple[str, str]:
        """Give name and version of the model that a fine-tuned one was made from."""
        text = tuned.partition(".ft-")[0] if ".ft-" in tuned else ""
        for kind in ("fine-tuned-model", "fine-tuning-job"):
            for key, resource in self.snapshot.resources.items():
                if text or key.kind != kind or key.path[:3] != account.path:
                    continue
                points = _rows(resource.body.get("checkpoints"))
                names = {str(p.get("fine_tuned_model_checkpoint")) for p in points}
                if resource.id == tuned or tuned in names:
                    text = str(resource.body.get("model") or "").partition(".ft-")[0]
        match = re.fullmatch(r"(.+?)-(\d{4}-\d{2}-\d{2}|\d{4})", text)
        return (match[1], match[2]) if match else (text or tuned, "")

    # What has to be asked, in two rounds: the second needs the answers of the first.

    def first(self) -> Iterator[_Ask]:
        """Ask what is per subscription and region."""
        region = location(self.pair.standby)
        for subscription in sorted({a.subscription for a in self.accounts}):
            yield _models_ask(subscription, region)
            yield _usages_ask(subscription, region)
            yield _of(subscription, "accounts")
            yield _of(subscription, "deletedAccounts")
            if any(_key_vault(a.resource) for a in self.accounts):
                yield _vaults_ask(subscription)
        for want in self.wanted:
            if want.tuned or "Provisioned" in want.sku:
                yield _capacity_ask(want.account.subscription, want.model)

    def second(self) -> Iterator[_Ask]:
        """Ask what is per account."""
        for account in self.accounts:
            if self.standing(account) is None:
                if account.subdomain:
                    yield _domain_ask(account.subscription, account.subdomain)
                continue
            region = location(self.pair.standby)
            if account.serves:
                yield _below(account.id, "deployments", account.subscription, region)
            yield _below(account.id, "privateEndpointConnections", account.subscription, region)

    def standing(self, account: _Account) -> JsonObject | CloudError | None:
        """Give the standby's account as it is now, None when there is none."""
        found = self.live.get(_of(account.subscription, "accounts"))
        if isinstance(found, CloudError):
            return found
        ours = account.id.lower()
        return next((row for row in found if str(row.get("id", "")).lower() == ours), None)

    def deployed(self, account: _Account) -> tuple[JsonObject, ...] | CloudError:
        """Give the standby's deployments in an account as they are now."""
        standing = self.standing(account)
        if isinstance(standing, CloudError):
            return standing
        if standing is None or not account.serves:
            return ()
        region = location(self.pair.standby)
        return self.live.get(_below(account.id, "deployments", account.subscription, region))


def _unknown(name: str, subject: str, error: MusterError) -> Check:
    remedy = error.remedy or "see that Azure answers, then run `muster ready` again"
    return Check(name, subject, State.NOT_KNOWN, f"could not be asked: {error.what}", remedy=remedy)


# -------------------------------------------------------------------------- checks of a pair


def _pair_checks(
    situation: _Situation, known: Replication | MusterError, promised: Objectives
) -> Iterator[Check]:
    for account in situation.accounts:
        yield from _names(situation, account)
        yield from _customer_key(situation, account)
        yield from _network(situation, account)
    yield from _rights(situation)
    for want in situation.wanted:
        yield from _deployability(situation, want, known)
    yield from _quotas(situation)
    yield from _capacities(situation)
    yield from _replicated(situation, known, promised)


def _names(situation: _Situation, account: _Account) -> Iterator[Check]:
    """Soft-deleted names in the way, and whether the endpoint's name can be had."""
    subject = str(account.resource.key)
    standing = situation.standing(account)
    where = f"{account.name} in {situation.pair.standby}"
    if isinstance(standing, CloudError):
        yield _unknown("name", subject, standing)
        return
    if standing is not None:
        at = location(str(standing.get("location") or ""))
        if at == location(situation.pair.standby):
            yield Check("name", subject, State.MET, f"{where} is there")
        else:
            told = f"{account.name} is there, and in {at}: an account stays where it was made"
            remedy = "name another account in [estate.pair.accounts]"
            yield Check("name", subject, State.NOT_MET, told, remedy=remedy)
        return
    deleted = situation.live.get(_of(account.subscription, "deletedAccounts"))
    if isinstance(deleted, CloudError):
        yield _unknown("name", subject, deleted)
    else:
        gone = [row for row in deleted if _same_deleted(row, account)]
        if gone:
            ends = _moment(_props(gone[0]).get("scheduledPurgeDate"))
            yield Check(
                "name",
                subject,
                State.NOT_MET,
                f"a soft-deleted {account.name} holds the name "
                f"{'until ' + _day_time(ends) if ends else 'for 48 hours'}: a plain create fails "
                "with FlagMustBeSetForRestore",
                ends,
                f"undelete it (`muster restore` does) or `az cognitiveservices account purge -n "
                f"{account.name} -g {account.group} -l {situation.pair.standby}`",
            )
        else:
            yield Check("name", subject, State.MET, f"{where} can be made: the name is free")
    if not account.subdomain:
        return
    asked = situation.live.get(_domain_ask(account.subscription, account.subdomain))
    if isinstance(asked, CloudError):
        yield _unknown("custom subdomain", subject, asked)
        return
    free = bool(asked) and asked[0].get("isSubdomainAvailable") is True
    reason = str(asked[0].get("reason") or "it is taken") if asked else "Azure gave no answer"
    yield Check(
        "custom subdomain",
        subject,
        State.MET if free else State.NOT_MET if asked else State.NOT_KNOWN,
        f"{account.subdomain} is free" if free else reason,
        remedy=""
        if free
        else "name another account in [estate.pair.accounts]: subdomains are unique in the world, "
        "and a soft-deleted account keeps its own",
    )


def _same_deleted(row: JsonObject, account: _Account) -> bool:
    # .../locations/{l}/resourceGroups/{rg}/deletedAccounts/{name}
    parts = str(row.get("id", "")).lower().split("/")
    group = parts[parts.index("resourcegroups") + 1] if "resourcegroups" in parts else ""
    return parts[-1] == account.name.lower() and group == account.group.lower()


def _key_vault(resource: Resource) -> JsonObject | None:
    """Give the key of an account with a key of its own, None when Microsoft holds it."""
    encryption = _dict(_props(resource.body).get("encryption"))
    if str(encryption.get("keySource") or "").lower() != "microsoft.keyvault":
        return None
    return _dict(encryption.get("keyVaultProperties"))


# "Key Vault … must be in the same region and in the same Microsoft Entra tenant", soft delete and
# do-not-purge, system-assigned identity only: azure-docs encrypt-data-at-rest, 2025-11-26.
def _customer_key(situation: _Situation, account: _Account) -> Iterator[Check]:
    key = _key_vault(account.resource)
    if key is None:
        return
    name, subject = "customer-managed key", str(account.resource.key)
    uri = str(key.get("keyVaultUri") or "").rstrip("/").lower()
    mapped = {k.rstrip("/").lower(): v for k, v in situation.pair.mapping.keys.items()}
    target = mapped.get(uri, uri).rstrip("/").lower()
    remedy = (
        f"make a vault and the key {key.get('keyName') or ''} in {situation.pair.standby}, with "
        "soft delete and purge protection, and name it in [estate.pair.keys]"
    )
    wrong: list[str] = []
    identity = str(_dict(account.resource.body.get("identity")).get("type") or "None")
    if "systemassigned" not in identity.replace(" ", "").lower():
        wrong.append(f"the identity is {identity}, and only a system-assigned one may open the key")
    if key.get("identityClientId"):
        wrong.append("the key is opened by a user-assigned identity, which is not supported")
    subscriptions = sorted(
        {account.subscription, account.resource.key.path[0]}
        | {a.subscription for a in situation.accounts}
    )
    found: JsonObject | None = None
    failed: CloudError | None = None
    for subscription in subscriptions:
        rows = situation.live.get(_vaults_ask(subscription))
        if isinstance(rows, CloudError):
            failed = rows
            continue
        for row in rows:
            if str(_props(row).get("vaultUri") or "").rstrip("/").lower() == target:
                found = row
    if found is None:
        if failed is not None:
            yield _unknown(name, subject, failed)
        else:
            told = f"the vault {target} is in none of the estate's subscriptions"
            yield Check(name, subject, State.NOT_KNOWN, told, remedy=remedy)
    else:
        at, properties = location(str(found.get("location") or "")), _props(found)
        if at != location(situation.pair.standby):
            wrong.append(f"its vault is in {at}, and must be in {situation.pair.standby}")
        if properties.get("enableSoftDelete") is False:
            wrong.append("its vault has no soft delete")
        if properties.get("enablePurgeProtection") is not True:
            wrong.append("its vault has no purge protection")
    if wrong:
        yield Check(name, subject, State.NOT_MET, "; ".join(wrong), remedy=remedy)
    elif found is not None:
        told = f"{target} is in {situation.pair.standby}, and a system-assigned identity opens it"
        yield Check(name, subject, State.MET, told)


_ZONES: Final = {
    "OpenAI": ("privatelink.openai.azure.com",),
    "AIServices": (
        "privatelink.cognitiveservices.azure.com",
        "privatelink.openai.azure.com",
        "privatelink.services.ai.azure.com",
    ),
}


def _network(situation: _Situation, account: _Account) -> Iterator[Check]:
    """Private endpoints and DNS: made in a network, so by hand."""
    path = account.resource.key.path
    private = [
        resource
        for key, resource in sorted(situation.snapshot.resources.items())
        if key.kind == "private-endpoint-connection" and key.within == path
    ]
    if not private:
        return
    name, subject = "private endpoint", str(account.resource.key)
    zones = _ZONES.get(
        str(account.resource.body.get("kind")), ("privatelink.cognitiveservices.azure.com",)
    )
    standing = situation.standing(account)
    rows: tuple[JsonObject, ...] | CloudError = ()
    if isinstance(standing, CloudError):
        rows = standing
    elif standing is not None:
        region = location(situation.pair.standby)
        rows = situation.live.get(
            _below(account.id, "privateEndpointConnections", account.subscription, region)
        )
    if isinstance(rows, CloudError):
        yield _unknown(name, subject, rows)
        return
    approved = [
        row
        for row in rows
        if str(_dict(_props(row).get("privateLinkServiceConnectionState")).get("status"))
        == "Approved"
    ]
    if len(approved) >= len(private):
        told = f"{len(approved)} approved in {situation.pair.standby}"
        yield Check(name, subject, State.MET, told)
        return
    closed = str(_props(account.resource.body).get("publicNetworkAccess") or "") == "Disabled"
    left = ", ".join(str(resource.body.get("name")) for resource in private)
    yield Check(
        name,
        subject,
        State.NOT_MET if closed else State.AT_RISK,
        f"{len(private)} in the primary ({left}), {len(approved)} approved in the standby"
        + ("; public access is off, so nothing would reach it" if closed else ""),
        remedy=f"by hand: a private endpoint (group account) in a network of "
        f"{situation.pair.standby}, "
        f"its approval, and records in {', '.join(zones)} that clients of the standby resolve "
        "(Azure changes no private DNS record at a failover)",
    )


# Actions that are asked at the subscription, whatever is granted at a group.
_AT_SUBSCRIPTION: Final = (
    f"{_CS.partition('/')[2]}/locations/",
    f"{_CS.partition('/')[2]}/deletedAccounts/",
    f"{_CS.partition('/')[2]}/modelCapacities/",
    f"{_CS.partition('/')[2]}/skus/",
    f"{_CS.partition('/')[2]}/checkDomainAvailability/",
    "Microsoft.Resources/subscriptions/read",
)


def _rights(situation: _Situation) -> Iterator[Check]:
    """Whether the principal that asks, which is the one that would restore, may do all of it."""
    name, verb = "permissions", Verb.RESTORE
    file = f"docs/roles/{role_for(verb).value}.json"
    groups: dict[str, set[str]] = {}
    for account in situation.accounts:
        groups.setdefault(account.subscription, set()).add(account.group.lower())
    for subscription, names in sorted(groups.items()):
        top = f"/subscriptions/{subscription}"
        above = situation.live.permissions(top)
        if isinstance(above, CloudError):
            yield _unknown(name, top, above)
            continue
        lacking = [n for n in missing(verb, above) if n.action.startswith(_AT_SUBSCRIPTION)]
        yield _right(name, top, [n.action for n in lacking], file)
        for group in sorted(names):
            scope = f"{top}/resourceGroups/{group}"
            granted = situation.live.permissions(scope)
            if isinstance(granted, MissingError):
                granted = above  # the group has to be made first: what counts is above it
            if isinstance(granted, CloudError):
                yield _unknown(name, scope, granted)
                continue
            here = [
                n.action
                for n in missing(verb, (*above, *granted))
                if not n.action.startswith(_AT_SUBSCRIPTION)
            ]
            yield _right(name, scope, here, file)


def _right(name: str, scope: str, lacking: Sequence[str], file: str) -> Check:
    if not lacking:
        return Check(name, scope, State.MET, "everything a restore needs is granted")
    told = f"{len(lacking)} actions are missing: {', '.join(sorted(lacking))}"
    return Check(name, scope, State.NOT_MET, told, remedy=f"grant {file} at {scope}")


# ---------------------------------------------------------------------- checks of deployments


def _present(situation: _Situation, want: _Wanted) -> JsonObject | CloudError | None:
    """Give the standby's deployment of that name, None when there is none."""
    found = situation.deployed(want.account)
    if isinstance(found, CloudError):
        return found
    for row in found:
        if str(row.get("name") or "").lower() == want.key.name.lower():
            return row
    return None


def _serves_it(row: JsonObject, want: _Wanted) -> bool:
    """Whether a deployment serves the wanted model already, as the wanted sku."""
    model = _dict(_props(row).get("model"))
    same = (
        str(model.get("name")) == want.tuned
        if want.tuned
        else (str(model.get("name")), str(model.get("version")))
        == (want.model.name, want.model.version)
    )
    sku = str(_dict(row.get("sku")).get("name") or "")
    return (
        same
        and sku.lower() == want.sku.lower()
        and _props(row).get("provisioningState", "Succeeded") == "Succeeded"
    )


def _offer(situation: _Situation, want: _Wanted) -> JsonObject | CloudError | None:
    """Give the catalogue's entry in the standby region, None when it is not offered."""
    region = location(situation.pair.standby)
    rows = situation.live.get(_models_ask(want.account.subscription, region))
    if isinstance(rows, CloudError):
        return rows
    kind = str(want.account.resource.body.get("kind"))
    for row in rows:
        model = _dict(row.get("model"))
        if (
            str(row.get("kind") or kind) == kind
            and str(model.get("name", "")).lower() == want.model.name.lower()
            and str(model.get("version", "")) == want.model.version
            and str(model.get("format", "")).lower() == want.model.format.lower()
        ):
            return model
    return None


def _sku_of(offer: JsonObject, sku: str) -> JsonObject | None:
    return next(
        (s for s in _rows(offer.get("skus")) if str(s.get("name", "")).lower() == sku.lower()), None
    )


def _deployability(
    situation: _Situation, want: _Wanted, known: Replication | MusterError
) -> Iterator[Check]:
    """Catalogue, lifecycle, existing customer and retirement of one deployment."""
    subject, region = str(want.key), situation.pair.standby
    offer = _offer(situation, want)
    if isinstance(offer, CloudError):
        for name in ("catalogue", "lifecycle", "retirement"):
            yield _unknown(name, subject, offer)
        return
    present = _present(situation, want)
    if isinstance(present, CloudError):
        yield _unknown("deployment", subject, present)
        present = None
    there = present is not None and _serves_it(present, want)
    yield _catalogued(situation, want, offer, there=there)
    if want.tuned:
        yield from _fine_tuned(situation, want, known, there=there)
    if offer is None:
        return
    yield from _lifecycle(situation, want, offer, there=there)
    yield _retirement(situation, want, offer, region)


def _catalogued(
    situation: _Situation, want: _Wanted, offer: JsonObject | None, *, there: bool
) -> Check:
    name, subject, region = "catalogue", str(want.key), situation.pair.standby
    if there:
        return Check(name, subject, State.MET, f"{want.model} as {want.sku} is deployed there")
    change = "give its sku another one in [estate.pair.sku], or choose another standby region"
    if offer is None:
        told = f"{want.model} is not offered in {region} to this subscription"
        return Check(
            name, subject, State.NOT_MET, told, remedy="choose another standby region or model"
        )
    if want.tuned:
        return Check(name, subject, State.MET, f"its base {want.model} is offered in {region}")
    sku = _sku_of(offer, want.sku)
    if sku is None:
        names = ", ".join(sorted(str(s.get("name")) for s in _rows(offer.get("skus")))) or "nothing"
        told = f"{want.model} is not offered as {want.sku} in {region}, only as {names}"
        return Check(name, subject, State.NOT_MET, told, remedy=change)
    limits = _dict(sku.get("capacity"))
    least, most, step = (_number(limits.get(n)) for n in ("minimum", "maximum", "step"))
    odd = step and want.capacity % step
    if (least and want.capacity < least) or (most and want.capacity > most) or odd:
        told = (
            f"{want.capacity} units of {want.sku} cannot be: {least:.0f} to {most:.0f} in steps of "
            f"{step:.0f}"
        )
        return Check(name, subject, State.NOT_MET, told, remedy=change)
    return Check(name, subject, State.MET, f"{want.model} as {want.sku} is offered in {region}")


def _lifecycle(
    situation: _Situation, want: _Wanted, offer: JsonObject, *, there: bool
) -> Iterator[Check]:
    """Judge the status and who may still deploy.

    The API's names are inverted: its Deprecating is the documentation's Deprecated (existing
    customers only), its Deprecated is retired (concepts-model-retirements, 2026-10-05).
    """
    subject, status = str(want.key), str(offer.get("lifecycleStatus") or "")
    ends = _moment(_dict(offer.get("deprecation")).get("inference"))
    move = "move to its successor in the primary, or map it in [estate.pair.versions]"
    if replacement := _dict(offer.get("replacementConfig")):
        move = (
            f"move to {replacement.get('targetModelName')} "
            f"{replacement.get('targetModelVersion')}, or map it in [estate.pair.versions]"
        )
    if status == "Deprecated" or (ends is not None and ends <= situation.now):
        told = f"{want.model} is retired: it can be deployed nowhere, and calls get 410 Gone"
        yield Check("lifecycle", subject, State.NOT_MET, told, ends, move)
        return
    if status != "Deprecating" or want.tuned:
        told = f"{want.model} is {_words(status)}" if status else f"{want.model}: no status is told"
        yield Check("lifecycle", subject, State.MET if status else State.NOT_KNOWN, told)
        return
    yield Check(
        "lifecycle", subject, State.MET, f"{want.model} is deprecated: existing customers only"
    )
    customer = there or _is_customer(situation, want)
    if isinstance(customer, CloudError):
        yield _unknown("existing customer", subject, customer)
        return
    yield Check(
        "existing customer",
        subject,
        State.MET if customer else State.NOT_MET,
        f"subscription {want.account.subscription} has a deployment of {want.model}"
        if customer
        else f"subscription {want.account.subscription} has no deployment of {want.model}, and "
        '"a new subscription under the same tenant doesn\'t inherit access"',
        remedy="" if customer else move,
    )


def _words(status: str) -> str:
    return {"GenerallyAvailable": "generally available"}.get(status, status.lower())


def _is_customer(situation: _Situation, want: _Wanted) -> bool | CloudError:
    """Whether the restoring subscription has this very version deployed anywhere."""
    subscription = want.account.subscription
    for key, resource in situation.snapshot.resources.items():
        model = _dict(_props(resource.body).get("model"))
        if (
            key.kind == "deployment"
            and key.path[0] == subscription
            and (str(model.get("name")), str(model.get("version")))
            == (want.model.name, want.model.version)
        ):
            return True
    accounts = situation.live.get(_of(subscription, "accounts"))
    if isinstance(accounts, CloudError):
        return accounts
    asks = [
        _below(str(row["id"]), "deployments", subscription, location(str(row.get("location"))))
        for row in accounts
        if row.get("kind") in _SERVES and row.get("id")
    ]
    situation.live.fetch(asks)
    failed: CloudError | None = None
    for ask in asks:
        rows = situation.live.get(ask)
        if isinstance(rows, CloudError):
            failed = rows
            continue
        for row in rows:
            model = _dict(_props(row).get("model"))
            if (str(model.get("name")), str(model.get("version"))) == (
                want.model.name,
                want.model.version,
            ):
                return True
    return failed if failed is not None else False


def _retirement(situation: _Situation, want: _Wanted, offer: JsonObject, region: str) -> Check:
    subject, name = str(want.key), "retirement"
    dates = [_moment(_dict(offer.get("deprecation")).get("inference"))]
    sku = _sku_of(offer, want.sku)
    if sku is not None:
        dates.append(_moment(sku.get("deprecationDate")))
    known = [date for date in dates if date is not None]
    if not known:
        return Check(name, subject, State.MET, f"no date is announced for {want.model} in {region}")
    ends = min(known)
    left = (ends - situation.now).days
    if ends <= situation.now:
        told = f"{want.model} ended on {_day(ends)}"
        return Check(name, subject, State.NOT_MET, told, ends, "move to its successor")
    follows = ""
    if "Provisioned" in want.sku:
        follows = "; provisioned deployments are not upgraded by Azure"
    elif want.tuned:
        follows = "; a fine-tuned model is not upgraded: its successor has to be trained"
    elif want.upgrade == "NoAutoUpgrade":
        follows = "; the deployment says NoAutoUpgrade and stops then"
    told = f"{want.model} ends on {_day(ends)}, in {left} days{follows}"
    soon = ends - situation.now < situation.promised.horizon
    return Check(
        name,
        subject,
        State.AT_RISK if soon else State.MET,
        told,
        ends,
        "plan its successor now" if soon else "",
    )


def _fine_tuned(
    situation: _Situation, want: _Wanted, known: Replication | MusterError, *, there: bool
) -> Iterator[Check]:
    """Whether the standby region takes fine-tuned models of that base, and has this one."""
    subject, region = str(want.key), location(situation.pair.standby)
    if there:
        yield Check(
            "fine-tuning region", subject, State.MET, f"{want.tuned} is deployed in {region}"
        )
    else:
        rows = situation.live.get(_capacity_ask(want.account.subscription, want.model))
        if isinstance(rows, CloudError):
            yield _unknown("fine-tuning region", subject, rows)
        else:
            free = [
                _number(_props(row).get("availableFinetuneCapacity"))
                for row in rows
                if location(str(row.get("location") or "")) == region
                and str(_props(row).get("skuName", "")).lower() == want.sku.lower()
            ]
            good = any(units > 0 for units in free)
            yield Check(
                "fine-tuning region",
                subject,
                State.MET if good else State.NOT_MET,
                f"{region} takes fine-tuned {want.model} as {want.sku}"
                if good
                else f"{region} takes no fine-tuned {want.model} as {want.sku}",
                remedy=""
                if good
                else "give it a sku that the region has in [estate.pair.sku] (GlobalStandard is "
                "offered widest), or choose another standby region",
            )
    yield _model_over_there(want, known, there=there)


def _model_over_there(want: _Wanted, known: Replication | MusterError, *, there: bool) -> Check:
    name, subject = "fine-tuned model", str(want.key)
    remedy = "run `muster replicate --apply` while the primary region is there"
    if isinstance(known, MusterError):
        return _unknown(name, subject, known)
    replica = known.of(want.key)
    if replica is None or replica.model != want.tuned:
        told = "no replica is known: without the primary region only retraining is left (hours)"
        if there:
            told = "deployed in the standby, but nothing proves that it answers as its source"
            return Check(name, subject, State.NOT_KNOWN, told, remedy=remedy)
        return Check(name, subject, State.NOT_MET, told, remedy=remedy)
    told = f"{replica.state.value} by way of {replica.way.value}"
    if replica.proof is not None:
        told += f", {replica.proof.same} of {replica.proof.prompts} probes alike"
    match replica.state:
        case replication.ReplicaState.PROVED if there or not replica.deployed:
            return Check(name, subject, State.MET, told)
        case replication.ReplicaState.PROVED:
            told += "; its deployment is no longer there"
            return Check(name, subject, State.NOT_MET, told, remedy=remedy)
        case replication.ReplicaState.UNPROVED:
            return Check(name, subject, State.NOT_KNOWN, f"{told}; {replica.detail}", remedy=remedy)
        case _:
            return Check(name, subject, State.NOT_MET, f"{told}; {replica.detail}", remedy=remedy)


def _usage_of(situation: _Situation, want: _Wanted) -> str:
    """Give the name of the quota that a deployment counts to, as the catalogue tells it."""
    offer = _offer(situation, want)
    if isinstance(offer, dict) and not want.tuned:
        sku = _sku_of(offer, want.sku)
        if sku is not None and sku.get("usageName"):
            return str(sku["usageName"])
    family = "OpenAI" if want.model.format == "OpenAI" else "AIServices"
    if "Provisioned" in want.sku:
        return f"{family}.{want.sku}"
    return f"{family}.{want.sku}.{want.model.name}{'-finetune' if want.tuned else ''}"


def _missing_units(situation: _Situation, want: _Wanted) -> int | CloudError:
    """Give how many units a deployment still needs beyond what the standby has of it."""
    present = _present(situation, want)
    if isinstance(present, CloudError):
        return present
    if present is None or not _serves_it(present, want):
        return want.capacity
    return max(0, want.capacity - int(_number(_dict(present.get("sku")).get("capacity"))))


def _quotas(situation: _Situation) -> Iterator[Check]:
    """Quota is per subscription, region and usage: what all deployments need of it together."""
    region = location(situation.pair.standby)
    groups: dict[tuple[str, str], list[_Wanted]] = {}
    for want in situation.wanted:
        usage = _usage_of(situation, want)
        groups.setdefault((want.account.subscription, usage), []).append(want)
    for (subscription, usage), wants in sorted(groups.items()):
        rows = situation.live.get(_usages_ask(subscription, region))
        units = [_missing_units(situation, want) for want in wants]
        failed = next((u for u in (rows, *units) if isinstance(u, CloudError)), None)
        if failed is not None or isinstance(rows, CloudError):
            for want in wants:
                yield _unknown("quota", str(want.key), failed or CloudError("no answer"))
            continue
        needed = sum(u for u in units if isinstance(u, int))
        row = next(
            (
                r
                for r in rows
                if str(_dict(r.get("name")).get("value", "")).lower() == usage.lower()
            ),
            None,
        )
        for want, own in zip(wants, units, strict=True):
            more = own if isinstance(own, int) else 0
            yield _quota(want, usage, region, row, needed=needed, own=more)


def _quota(
    want: _Wanted, usage: str, region: str, row: JsonObject | None, *, needed: int, own: int
) -> Check:
    subject = str(want.key)
    if own == 0:
        return Check("quota", subject, State.MET, f"{usage} in {region}: nothing more is needed")
    remedy = f"ask for quota of {usage} in {region}, or size it in [estate.pair.sku]"
    if row is None:
        told = f"this subscription has no quota of {usage} in {region}; {needed} are needed"
        return Check("quota", subject, State.NOT_MET, told, remedy=remedy)
    limit, used = _number(row.get("limit")), _number(row.get("currentValue"))
    free = max(0.0, limit - used)
    told = f"{usage} in {region}: {needed} more are needed"
    if needed != own:
        told += f" in all ({own} for this one)"
    told += f", {free:.0f} are free ({used:.0f} of {limit:.0f} used)"
    good = needed <= free
    return Check(
        "quota", subject, State.MET if good else State.NOT_MET, told, remedy="" if good else remedy
    )


def _capacities(situation: _Situation) -> Iterator[Check]:
    """Provisioned capacity: quota does not mean that the region has the machines today."""
    region = location(situation.pair.standby)
    groups: dict[tuple[str, str, _Model], list[_Wanted]] = {}
    for want in situation.wanted:
        if "Provisioned" in want.sku:
            groups.setdefault((want.account.subscription, want.sku, want.model), []).append(want)
    for (subscription, sku, model), wants in sorted(groups.items()):
        rows = situation.live.get(_capacity_ask(subscription, model))
        units = [_missing_units(situation, want) for want in wants]
        failed = next((u for u in (rows, *units) if isinstance(u, CloudError)), None)
        if failed is not None or isinstance(rows, CloudError):
            for want in wants:
                yield _unknown("capacity", str(want.key), failed or CloudError("no answer"))
            continue
        needed = sum(u for u in units if isinstance(u, int))
        free = [
            _number(_props(row).get("availableCapacity"))
            for row in rows
            if location(str(row.get("location") or "")) == region
            and str(_props(row).get("skuName", "")).lower() == sku.lower()
        ]
        for want in wants:
            good = needed == 0 or (bool(free) and max(free) >= needed)
            told = f"{needed} units of {sku} for {model} are needed in {region}, "
            told += f"{max(free):.0f} can be had today" if free else "none can be had"
            yield Check(
                "capacity",
                str(want.key),
                State.MET if good else State.NOT_MET,
                told,
                remedy=""
                if good
                else "map it to GlobalStandard or fewer units in [estate.pair.sku], or buy the "
                "capacity now: quota does not mean capacity",
            )


def _replicated(
    situation: _Situation, known: Replication | MusterError, promised: Objectives
) -> Iterator[Check]:
    """The last replication, and the 15 days after which an uncalled fine-tuned deployment goes."""
    subject = f"{situation.pair.primary} -> {situation.pair.standby}"
    if isinstance(known, MusterError):
        yield _unknown("replication", subject, known)
        return
    last = known.last
    tuned = [want for want in situation.wanted if want.tuned]
    remedy = "run `muster replicate --apply`"
    if last is None:
        state = State.NOT_MET if tuned else State.AT_RISK
        told = "never" + ("" if tuned else ": a failover would make everything anew")
        yield Check("replication", subject, state, told, remedy=remedy, promise=Promise.RPO)
    else:
        age = situation.now - last.at
        late = promised.rpo is not None and age > promised.rpo
        told = f"{'complete' if last.complete else 'incomplete'}, {_span(age)} ago"
        good = last.complete and not late
        yield Check(
            "replication",
            subject,
            State.MET if good else State.AT_RISK if last.complete else State.NOT_MET,
            told,
            last.at + promised.rpo if promised.rpo is not None else last.at,
            "" if good else remedy,
            Promise.RPO,
        )
    for want in tuned:
        present = _present(situation, want)
        if not isinstance(present, dict) or not _serves_it(present, want):
            continue
        yield _idle(want, present, known, situation.now)


def _idle(want: _Wanted, present: JsonObject, known: Replication, now: datetime) -> Check:
    name, subject = "15 days without a call", str(want.key)
    replica = known.of(want.key)
    made = _moment(_dict(present.get("systemData")).get("createdAt"))
    deadline = replica.deadline if replica is not None else None
    if deadline is None and made is not None:
        deadline = made + replication.IDLE_LIMIT
    remedy = '`muster replicate --apply` calls it (keep_alive = "ping")'
    if deadline is None:
        told = "when the standby's deployment was last called is not known"
        return Check(name, subject, State.NOT_KNOWN, told, remedy=remedy)
    if deadline <= now:
        told = "it is still there, so somebody calls it; when, muster does not know"
        return Check(name, subject, State.AT_RISK, told, remedy=remedy)
    soon = deadline - now <= IDLE_WARNING
    told = f"Azure deletes the standby's deployment in {_span(deadline - now)} unless it is called"
    return Check(
        name,
        subject,
        State.AT_RISK if soon else State.MET,
        told,
        deadline,
        remedy if soon else "",
    )


def _without_pair(snapshot: Snapshot, pairs: Sequence[Pair]) -> Iterator[Check]:
    """Accounts that no pair covers: nobody said where they would come back."""
    covered = {location(r) for pair in pairs for r in (pair.primary, pair.standby)}
    for key, resource in sorted(snapshot.resources.items()):
        if key.kind != "account":
            continue
        region = location(str(resource.body.get("location") or ""))
        if region not in covered:
            yield Check(
                "pair",
                str(key),
                State.NOT_MET,
                f"no standby region is named for {region}",
                remedy="add [[estate.pair]] for it, take it out of [[estate.scope]], or ask for "
                "one pair with --pair",
            )


# ------------------------------------------------------------------------------ rescue clocks


def _activity_ask(subscription: str, provider: str, since: datetime) -> _Ask:
    path = (
        f"/subscriptions/{subscription}/providers/Microsoft.Insights/eventtypes/management/values"
    )
    when = since.strftime("%Y-%m-%dT%H:00:00Z")
    text = f"eventTimestamp ge '{when}' and resourceProvider eq '{provider}'"
    params = (("api-version", "2015-04-01"), ("$filter", text))
    return _Ask("list", path, params, subscription, "", "activity")


def _deleted_vaults_ask(subscription: str) -> _Ask:
    path = f"/subscriptions/{subscription}/providers/Microsoft.KeyVault/deletedVaults"
    return _Ask("list", path, (("api-version", "2023-07-01"),), subscription, "", "key-vault")


def _rescue_asks(subscription: str, now: datetime) -> Iterator[_Ask]:
    yield _of(subscription, "deletedAccounts")
    yield _deleted_vaults_ask(subscription)
    yield _activity_ask(subscription, _ML, now - _WORKSPACE)


_ML: Final = "Microsoft.MachineLearningServices"


def _rescue(subscription: str, snapshot: Snapshot, live: _Live, now: datetime) -> Iterator[Check]:
    """What was deleted and can still be taken back, until when, and in which order."""
    subject = f"/subscriptions/{subscription}"
    name = "rescue clock"
    deleted = live.get(_of(subscription, "deletedAccounts"))
    vaults = live.get(_deleted_vaults_ask(subscription))
    events = live.get(_activity_ask(subscription, _ML, now - _WORKSPACE))
    found: list[Check] = []
    if isinstance(deleted, CloudError):
        yield _unknown(name, f"{subject}: accounts", deleted)
    else:
        for row in deleted:
            ends = _moment(_props(row).get("scheduledPurgeDate"))
            went = _moment(_props(row).get("deletionDate"))
            ends = ends or (went + _SOFT_DELETED if went else None)
            if ends is None or ends > now:
                found.append(_rescue_account(row, ends, snapshot, now))
    if isinstance(vaults, CloudError):
        yield _unknown(name, f"{subject}: key vaults", vaults)
    else:
        for row in vaults:
            ends = _moment(_props(row).get("scheduledPurgeDate"))
            if ends is None or ends > now:
                steps = f"1. az keyvault recover -n {row.get('name')}; 2. its keys and access; "
                steps += "3. the accounts whose key lies in it"
                found.append(_clock(f"key vault {row.get('name')}", ends, now, steps))
    if isinstance(events, CloudError):
        yield _unknown(name, f"{subject}: workspaces", events)
    else:
        found += _rescue_workspaces(events, now)
    yield from found
    if not found and not any(isinstance(x, CloudError) for x in (deleted, vaults, events)):
        yield Check(name, subject, State.MET, "nothing waits to be taken back")


def _clock(subject: str, ends: datetime | None, now: datetime, steps: str) -> Check:
    told = f"deleted; {_span(ends - now)} left" if ends else "deleted; Azure tells no end"
    return Check("rescue clock", subject, State.AT_RISK, told, ends, steps)


def _rescue_account(
    row: JsonObject, ends: datetime | None, snapshot: Snapshot, now: datetime
) -> Check:
    """The documented order: group, key vault, storage, account, endpoints, projects, the rest."""
    parts = str(row.get("id", "")).split("/")
    lower = [part.lower() for part in parts]
    group = lower[lower.index("resourcegroups") + 1] if "resourcegroups" in lower else ""
    subscription = lower[2] if len(lower) > 2 else ""
    key = Key("account", (subscription, group, lower[-1]))
    known = snapshot.resources.get(key) or snapshot.stale.get(key)
    steps = [f"resource group {group} (must exist)"]
    if known is None or _key_vault(known) is not None:
        steps.append("the key vault with its key, if it has one")
    if known is None or _props(known.body).get("userOwnedStorage"):
        steps.append("its own storage account, if it has one")
    steps.append("the account: `muster restore` undeletes it (properties.restore = true)")
    below = {k.kind for k in (*snapshot.resources, *snapshot.stale) if k.path[:3] == key.path}
    if known is None or "private-endpoint-connection" in below:
        steps.append("private endpoints (not restored by Azure)")
    if known is None or "project" in below:
        steps.append("projects, the old default one first")
        steps.append("connections and capability hosts, then agents (new ids)")
    steps.append("role assignments and locks")
    words = "; ".join(f"{number}. {step}" for number, step in enumerate(steps, 1))
    return _clock(f"account {parts[-1]} in {group}", ends, now, words)


def _rescue_workspaces(events: Iterable[JsonObject], now: datetime) -> list[Check]:
    """Azure Machine Learning keeps a deleted workspace for 14 days; its log tells of the delete."""
    last: dict[str, tuple[datetime, bool]] = {}
    for event in events:
        operation = str(_dict(event.get("operationName")).get("value") or "").lower()
        status = str(_dict(event.get("status")).get("value") or "").lower()
        at = _moment(event.get("eventTimestamp"))
        if at is None or status != "succeeded":
            continue
        gone = operation == f"{_ML}/workspaces/delete".lower()
        if not gone and operation != f"{_ML}/workspaces/write".lower():
            continue
        workspace = str(event.get("resourceId") or "").lower()
        if workspace not in last or last[workspace][0] < at:
            last[workspace] = (at, gone)
    steps = "1. key vault, storage and Application Insights; 2. the workspace (az ml workspace "
    steps += "recover); 3. role assignments, computes and endpoints (not kept)"
    return [
        _clock(f"workspace {name.rsplit('/', 1)[-1]}", at + _WORKSPACE, now, steps)
        for name, (at, gone) in sorted(last.items())
        if gone and at + _WORKSPACE > now
    ]


# ----------------------------------------------------------------------------------- words


def _span(value: timedelta) -> str:
    seconds = max(0, int(value.total_seconds()))
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, left = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{left} s"


def _day(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d")


def _day_time(when: datetime | None) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%MZ") if when else ""
