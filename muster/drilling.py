"""What drills are handed: the verbs of the engine, a person to ask, and a sandbox's control API."""

from __future__ import annotations

import json
import os
import platform
import pwd
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from drills.evidence import GitSigner
from drills.model import Verb
from drills.verbs import Act, Ask, Equipment, Faults, Reconstructed, Restored, TakenBack
from muster import __version__
from muster.invocation import Invocation
from muster.settings import PairSettings
from muster.taking_back import take_record_back
from muster.verbs.replicate import replicator_for, source_of
from muster.verbs.restore import learned, teller
from muster.wiring import Wiring, mapping_of
from snapshots import replication
from snapshots.cloud.place import Place, Plane
from snapshots.errors import (
    DamagedStoreError,
    InputError,
    MissingError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from snapshots.model import Json, JsonObject, Key, Snapshot
from snapshots.steps import Mapping as Substitutions
from snapshots.steps import StepState

if TYPE_CHECKING:
    from snapshots.apply import Happened
    from snapshots.gates import GateResult
    from snapshots.records import Records
    from snapshots.restore import Prepared
    from snapshots.restore import Restored as Done
    from snapshots.take import Scope

_CONTROL_LIMIT = 30.0  # seconds for an answer of the control API


PLACEHOLDER = "drill:placeholder"
_MADE_UP = "made up for a drill: it opens nothing"
_TRIAL = "muster-proof-"  # deployments that a replication proves models with
_DEPLOYMENT = {"api-version": "2025-09-01"}
_SHOWN = 50  # keys of one sort in evidence


def made_up(_reference: str) -> str:
    """Give what stands for every secret in a target that is a drill's own, or a twin."""
    return _MADE_UP


class EngineVerbs:
    """The verbs, as one configuration wires them."""

    def __init__(self, wiring: Wiring, pair: PairSettings | None, *, made_up: bool = False) -> None:
        self._wiring = wiring
        self._pair = pair
        self._made_up = made_up  # in a twin every secret is

    def able(self) -> frozenset[Verb]:
        """Say which verbs there are: a replication needs a pair."""
        without = set[Verb]() if self._pair is not None else {Verb.REPLICATE}
        return frozenset(set(Verb) - without)

    def load(self, ref: str) -> Snapshot:
        """Give a snapshot of the ledger ("": the newest), or for "live" the estate as it is."""
        if ref != "live":
            ledger = self._wiring.ledger()
            return ledger.load(ledger.resolve(ref)) if ref else ledger.load()
        return self._taken(self._wiring.scopes())

    def look(self, groups: Mapping[str, Sequence[str]]) -> Snapshot:
        """Read what is in some resource groups; `groups` names them by subscription."""
        from snapshots.take import Scope

        return self._taken([Scope(name, tuple(some)) for name, some in sorted(groups.items())])

    def _taken(self, scopes: Sequence[Scope], previous: Snapshot | None = None) -> Snapshot:
        from snapshots.take import TakeOptions, take

        wiring = self._wiring
        return take(
            wiring.settings.estate.name,
            scopes,
            wiring.cloud(),
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            version=__version__,
            previous=previous,
            payloads=wiring.vault(),
            options=TakeOptions(threads=wiring.settings.snapshot.concurrency, reference=False),
        )

    # ---- restore --------------------------------------------------------------------------

    def restore(self, ask: Ask, *, act: Act | None) -> Restored:
        """Plan and apply; without `act`, only plan. Raises when a step failed or a gate closed."""
        from snapshots.gates import vaults_of
        from snapshots.restore import Request, execute, gates, prepare

        tools = self._wiring.restore_tools()
        chosen = self._wiring.settings.restore
        secrets = dict(chosen.secrets)
        if ask.placeholders or self._made_up:
            secrets["*"] = PLACEHOLDER
            tools = replace(tools, secret=self._secret)
        if self._made_up:  # a twin has no key vaults: there is nothing to look at
            tools = replace(tools, vouched=vaults_of(ask.snapshot, ask.mapping.keys))
        request = Request(
            snapshot=ask.snapshot,
            target="drill",
            mapping=ask.mapping,
            only=ask.only,
            regions=ask.regions,
            prune=ask.prune,
            secrets=secrets,
            threads=chosen.threads,
            estimates=learned(self._wiring),
        )
        prepared = prepare(request, tools)
        closed = tuple(gate for gate in gates(prepared, tools) if not gate.passed)
        planned = _planned(prepared, closed)
        if act is None:
            return planned
        if closed:
            first = closed[0]
            more = f" (and {len(closed) - 1} more)" if len(closed) > 1 else ""
            raise RefusedError(
                f"a gate did not open: {first.name}: {first.detail}{more}",
                where=first.subject,
                remedy=first.remedy,
            )
        if prepared.plan.is_empty:
            left = tuple(f"{gap.key} unknown" for gap in prepared.plan.unknown)
            return replace(planned, detail="nothing to do", remaining=left)
        done = execute(prepared, tools, self._announcing(act), stop=act.stop, tell=_heard(act))
        return _restored(done, planned.found)

    def _secret(self, reference: str) -> str:
        return made_up(reference) if reference == PLACEHOLDER else self._wiring.secret(reference)

    def _announcing(self, act: Act) -> Records:
        return self._wiring.records().announcing(
            lambda record: act.leave({"undo": "record", "record": record})
        )

    # ---- replicate ------------------------------------------------------------------------

    def replicate(self, *, act: Act | None) -> Restored:
        """Bring the standby in step; without `act`, only say what would be done."""
        wiring, pair = self._wiring, self._pair
        if pair is None:
            raise RefusedError("there is no pair to replicate", remedy="add [[estate.pair]]")
        source = source_of(wiring, pair, None)
        if source.gaps:
            raise RefusedError(
                f"{len(source.gaps)} parts of {pair.primary} could not be read: "
                f"{source.gaps[0].key}: {source.gaps[0].detail}",
                remedy="a replication needs the whole primary; see `muster doctor`",
            )
        replicator = replicator_for(wiring, pair)
        if self._made_up:
            replicator.secrets = {"*": PLACEHOLDER}
            replicator.tools = replace(replicator.tools, secret=self._secret)
        made = replicator.prepare(source)
        planned = _planned(made.prepared, ())
        if act is None:
            return planned
        for choice in made.choices:
            if not choice.done and choice.way is not None:
                act.leave(self._models(choice.model.target_account, choice.model.target.name))
        done = replicator.run(made, self._announcing(act), stop=act.stop, tell=_heard(act))
        if done.restored is None:
            found = replace(planned, detail="in step: nothing to do")
        else:
            found = _restored(done.restored, planned.found)
        left = list(found.remaining)
        left += [
            f"{choice.model.deployment.key}: no way is left: {'; '.join(choice.refused)}"
            for choice in made.choices
            if choice.way is None
        ]
        if not done.complete and not left:
            left = ["the replication is not complete: see `muster replicate`"]
        return replace(found, remaining=tuple(left))

    def _models(self, account: str, name: str) -> JsonObject:
        """What takes a model's deployment back: made, or another one than before."""
        return {
            "undo": "models",
            "account": account,
            "name": name,
            "before": self._deployments(account).get(name.lower()),
        }

    def _deployments(self, account: str) -> dict[str, JsonObject]:
        place = Place(Plane.ARM, "", account.split("/")[2], "")
        try:
            rows = list(
                self._wiring.cloud().list(
                    place, f"{account}/deployments", params=_DEPLOYMENT, kind="deployment"
                )
            )
        except MissingError:
            return {}  # the account itself is not there
        return {str(row.get("name")).lower(): row for row in rows}

    # ---- the way back ---------------------------------------------------------------------

    def take_back(self, item: JsonObject) -> TakenBack:
        """Undo what `Act.leave` was told, and look whether everything is as it was before."""
        if item.get("undo") == "models":
            return self._models_back(item)
        return take_record_back(self._wiring, str(item.get("record")), self._secret)

    def _models_back(self, item: JsonObject) -> TakenBack:
        account, name, before = str(item.get("account")), str(item.get("name")), item.get("before")
        cloud = self._wiring.cloud()
        place = Place(Plane.ARM, "", account.split("/")[2], "")
        removed: list[str] = []
        for found, row in self._deployments(account).items():
            path = f"{account}/deployments/{row.get('name')}"
            if found.startswith(_TRIAL) or (found == name.lower() and before is None):
                cloud.delete(place, path, params=_DEPLOYMENT, kind="deployment")
                removed.append(path)
            elif found == name.lower() and isinstance(before, dict) and not _same(row, before):
                body = {part: before[part] for part in _WRITTEN if part in before}
                cloud.put(place, path, body, params=_DEPLOYMENT, kind="deployment")
                removed.append(f"the change of {path}")
        now = self._deployments(account)
        self._not_deployed(account, name, now)
        left = [f"{account}/deployments/{n}" for n in now if n.startswith(_TRIAL)]
        there = now.get(name.lower())
        fits = there is None if not isinstance(before, dict) else _same(there or {}, before)
        if not fits:
            left.append(f"{account}/deployments/{name} is not as it was")
        proof = () if left else (f"deployments of {account.rsplit('/', 1)[-1]} are as they were",)
        return TakenBack(removed=tuple(removed), left=tuple(left), proof=proof)

    def _not_deployed(self, account: str, name: str, now: Mapping[str, JsonObject]) -> None:
        """Say in the registry that a replica's deployment went with the drill."""
        if name.lower() in now:
            return
        parts = account.lower().split("/")
        target = Key("deployment", (parts[2], parts[4], parts[8], name.lower()))
        ledger = self._wiring.ledger()
        for pair in self._wiring.settings.estate.pairs:
            known = replication.read(ledger, pair.primary, pair.standby)
            for replica in known.replicas:
                if replica.deployed and str(replica.target).lower() == str(target).lower():
                    gone = replace(
                        replica, deployed=False, detail="its deployment was taken back by a drill"
                    )
                    replication.write(ledger, known.with_replica(gone), f"a drill took {name} back")

    # ---- from nothing ---------------------------------------------------------------------

    def reconstruct(self, ref: str = "") -> Reconstructed:
        """Build a ledger from the vault's bundle in an empty folder, and load a snapshot of it.

        The ledger that may be there is not opened. Every payload is read and hashed again.
        """
        from snapshots.ledger import Ledger

        vault = self._wiring.vault()
        with tempfile.TemporaryDirectory(prefix="muster-drill-") as folder:
            bundle = Path(folder) / "ledger.bundle"
            name = vault.fetch_bundle(bundle)
            with Ledger.from_bundle(bundle, Path(folder) / "ledger.git") as copy:
                snapshot = copy.load(copy.resolve(ref)) if ref else copy.load()
        found: dict[str, int] = {}
        missing: list[str] = []
        for payload in {p for r in snapshot.resources.values() for p in r.payloads}:
            if payload.sha256 in found:
                continue
            try:
                found[payload.sha256] = sum(len(block) for block in vault.read(payload.sha256))
            except (NotFoundError, DamagedStoreError, StoreError):
                missing.append(payload.sha256)
        return Reconstructed(
            snapshot=snapshot, bundle=name, payloads=found, missing=tuple(sorted(missing))
        )


_WRITTEN = ("sku", "properties", "tags")


def _same(now: JsonObject, before: JsonObject) -> bool:
    """Whether a deployment has the model and the size that it had."""

    def of(row: JsonObject) -> list[Json]:
        properties = row.get("properties")
        model = properties.get("model") if isinstance(properties, dict) else None
        return [row.get("sku"), model]

    return of(now) == of(before)


def _heard(act: Act) -> Callable[[Happened], None]:
    """Tell of steps that ended; of the others only that they go on."""
    told = teller(act.tell)

    def heard(happened: Happened) -> None:
        if happened.state is StepState.BEGUN:
            act.tell("")
        else:
            told(happened)

    return heard


def _planned(prepared: Prepared, closed: Sequence[GateResult]) -> Restored:
    """Say what a plan would do, and what would be lost: the loss statement of a way back."""
    plan = prepared.plan
    by_action: dict[str, list[str]] = {}
    for step in plan.steps:
        by_action.setdefault(step.action.value, []).append(str(step.key))
    extra_keys = [str(key) for key in plan.extra]
    lost = [f"{item.key}: {item.sentence}" for item in plan.not_restorable]
    counts = [f"{len(keys)} {action}" for action, keys in sorted(by_action.items())]
    count = len(plan.steps)
    words = f"{count} steps" + (f" ({', '.join(counts)})" if counts else "")
    words += f", {len(lost)} cannot come back" if lost else ""
    words += f", {len(plan.unknown)} are not known" if plan.unknown else ""
    words += "".join(f"; a gate would not open: {g.name}: {g.detail}" for g in closed[:3])
    found: JsonObject = {
        "steps": {action: len(keys) for action, keys in sorted(by_action.items())},
        "overwritten": list(by_action.get("update", [])[:_SHOWN]),
        "deleted": list(by_action.get("delete", [])[:_SHOWN]),
        "left_alone": list(extra_keys[:_SHOWN]),
        "cannot_come_back": list(lost[:_SHOWN]),
        "seconds": round(plan.critical_path_seconds, 1),
    }
    return Restored(steps=count, detail=words, found=found)


def _restored(done: Done, found: JsonObject) -> Restored:
    """Say what a restore came to. Raises RefusedError when a step of it was not done."""
    plan, record = done.record.plan, done.record
    bad = [
        outcome
        for step in plan.steps
        if (outcome := record.last(step.id)) is None
        or outcome.state not in (StepState.DONE, StepState.ADOPTED)
    ]
    count = len(plan.steps)
    if bad and not done.stopped:
        why = next((o.error for o in bad if o is not None and o.error), "not done")
        raise RefusedError(
            f"{len(bad)} of {count} steps of the restore were not done: {why}",
            where=f"record {record.id}",
            remedy=f"see `muster resume {record.id}`",
        )
    return Restored(
        steps=count,
        detail=f"{count} steps, record {record.id}",
        record=record.id,
        ids=record.ids,
        remaining=tuple(f"{c.key} {c.type.value}" for c in done.remaining),
        found=found,
    )


class TerminalApprover:
    """Asks the person at the terminal, who says who they are on the line."""

    def __init__(self, invocation: Invocation, name: str, *, yes: bool) -> None:
        self._invocation = invocation
        self._name = name.strip()
        self._yes = yes

    @property
    def name(self) -> str:
        """Who sits at the terminal, "" when nobody said."""
        return self._name

    def ask(self, question: str, allowed: Sequence[str]) -> str:
        """Give the name of who said yes. Raises RefusedError for a no, or when nobody is there."""
        if not self._name:
            raise RefusedError("nobody says who approves", remedy="say --approver NAME")
        if allowed and self._name not in allowed:
            raise RefusedError(
                f"{self._name} is none of those who may approve", remedy=", ".join(allowed)
            )
        if not self._invocation.confirm(question, yes=self._yes):
            raise RefusedError(f"{self._name} did not say yes")
        return self._name


@dataclass(frozen=True, slots=True)
class SandboxControl:
    """A sandbox's control API, from its ready file."""

    url: str
    token: str
    context: ssl.SSLContext

    @classmethod
    def of(cls, ready: Path) -> SandboxControl:
        """Read the ready file. Raises InputError; nothing of it is quoted."""
        try:
            document = json.loads(ready.read_text("utf-8"))
            control = document["control"]
            context = ssl.create_default_context(cafile=str(document["ca"]))
            return cls(str(control["url"]), str(control["token"]), context)
        except (OSError, ValueError, KeyError, TypeError):
            raise InputError(
                "this is no ready file of a sandbox",
                where=str(ready),
                remedy="start one with `muster sandbox --ready-file FILE`",
            ) from None

    def send(self, method: str, path: str, body: object = None) -> object:
        """One request; the JSON answer. Raises RefusedError."""
        request = urllib.request.Request(  # noqa: S310  the ready file's own https address
            f"{self.url}/{path}",
            None if body is None else json.dumps(body).encode(),
            {"authorization": f"Bearer {self.token}", "content-type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(  # noqa: S310  as above
                request, context=self.context, timeout=_CONTROL_LIMIT
            ) as answer:
                data = answer.read()
        except urllib.error.HTTPError as error:
            if error.code == 404 and method == "DELETE":
                return None
            words = error.read().decode("utf-8", "replace")[:200]
            raise RefusedError(f"the sandbox refused ({error.code}): {words}") from None
        except OSError:
            raise RefusedError("the sandbox's control API does not answer") from None
        return json.loads(data) if data else None

    def add(self, rule: JsonObject) -> None:
        """Break something; `rule` holds an id of the drill's choosing."""
        self.send("POST", "faults", rule)

    def remove(self, id_: str) -> None:
        """Mend it; nothing happens when it is not broken."""
        self.send("DELETE", f"faults/{quote(id_, safe='')}")

    def broken(self) -> frozenset[str]:
        """Give the ids of what is broken now."""
        found = self.send("GET", "faults")
        faults = found.get("value") if isinstance(found, dict) else None
        if not isinstance(faults, list):
            raise RefusedError("the sandbox does not say which faults there are")
        return frozenset(str(f["id"]) for f in faults if isinstance(f, dict) and "id" in f)

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock on."""
        self.send("POST", "clock", {"advance": seconds})

    def control(self, call: str, body: JsonObject) -> None:
        """Send any other request: `call` is "PUT quota" and the like."""
        method, _, path = call.partition(" ")
        self.send(method, path, body)


def state_folder(wiring: Wiring) -> Path:
    """Say where run journals and the stop switch are: beside the ledger."""
    ledger = wiring.settings.ledger.path
    return ledger.with_name(f"{ledger.name}-drills")


def own_scripts(wiring: Wiring) -> Path:
    """Say where the user's own scripts are: `drills/` beside the configuration."""
    return wiring.settings.file.parent / "drills"


def versions() -> Mapping[str, str]:
    """Say what the drill ran with."""
    return {"python": platform.python_version(), "system": platform.system()}


def _login() -> str:
    """Give who is logged in. Raises InputError where the system has no name for it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container that runs under a number
        raise InputError(
            "evidence names who approved, and nobody is logged in here",
            where=f"user id {os.getuid()} has no name on this machine",
            remedy="say who it is: --approver NAME",
        ) from None


def equipment(
    wiring: Wiring,
    *,
    invocation: Invocation | None = None,
    approver: str = "",
    yes: bool = False,
    sandbox: Path | None = None,
    faults: Faults | None = None,
    primary: str = "",
    made_up: bool = False,
    tell: Callable[[str], None] | None = None,
) -> Equipment:
    """Hand a drill what it works with; `primary` says which pair, when there is more than one.

    Where there is no ledger it is built from the vault's bundle: a drill runs on a new machine.
    Raises SettingsError and NotFoundError.
    """
    from drills.checks import make

    settings = wiring.settings
    pairs = settings.estate.pairs
    pair = next((p for p in pairs if p.primary == primary), pairs[0] if pairs else None)
    tell = tell or (lambda _text: None)
    # Who answers beforehand with --yes is, when no other name is given, who is logged in.
    named = approver or (_login() if yes else "")
    ledger = wiring.ledger()
    return Equipment(
        estate=settings.estate.name,
        version=__version__,
        cloud=wiring.cloud(),
        clock=wiring.clock,
        ledger=ledger,
        vault=wiring.vault(),
        verbs=EngineVerbs(wiring, pair, made_up=made_up),
        make=make,
        state=state_folder(wiring),
        home=settings.file.parent,
        subscription=settings.estate.scopes[0].subscription,
        subscriptions=tuple(dict.fromkeys(s.subscription for s in settings.estate.scopes)),
        primary=pair.primary if pair is not None else "",
        standby=pair.standby if pair is not None else "",
        mapping=mapping_of(pair) if pair is not None else Substitutions(),
        approver=TerminalApprover(invocation, named, yes=yes) if invocation else None,
        faults=SandboxControl.of(sandbox) if sandbox is not None else faults,
        signer=GitSigner(ledger.path),
        versions=versions(),
        tell=tell,
        busy=lambda what, expires: wiring.busy().hold(what, expires=expires),
    )
