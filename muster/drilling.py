"""What drills are handed: the verbs of the engine, a person to ask, and a sandbox's control API."""

from __future__ import annotations

import json
import platform
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from drills.evidence import GitSigner
from drills.model import Verb
from drills.verbs import Equipment, Faults, Reconstructed, Restored
from muster import __version__
from muster.invocation import Invocation
from muster.wiring import Wiring, mapping_of
from snapshots.errors import (
    DamagedStoreError,
    InputError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from snapshots.model import JsonObject, Snapshot
from snapshots.steps import Mapping as Substitutions
from snapshots.steps import StepState

_CONTROL_LIMIT = 30.0  # seconds for an answer of the control API


class EngineVerbs:
    """The verbs, as one configuration wires them."""

    def __init__(self, wiring: Wiring) -> None:
        self._wiring = wiring

    def able(self) -> frozenset[Verb]:
        """Say which verbs there are."""
        return frozenset({Verb.SNAPSHOT, Verb.RESTORE, Verb.RECONSTRUCT, Verb.RECOVER})

    def load(self, ref: str) -> Snapshot:
        """Give a snapshot of the ledger ("": the newest), or for "live" the estate as it is."""
        if ref != "live":
            ledger = self._wiring.ledger()
            return ledger.load(ledger.resolve(ref)) if ref else ledger.load()
        from snapshots.take import TakeOptions, take

        wiring = self._wiring
        return take(
            wiring.settings.estate.name,
            wiring.scopes(),
            wiring.cloud(),
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            version=__version__,
            payloads=wiring.vault(),
            options=TakeOptions(reference=False),
        )

    def look(self, subscription: str, groups: Sequence[str]) -> Snapshot:
        """Read what is in some resource groups."""
        from snapshots.take import Scope, TakeOptions, take

        wiring = self._wiring
        return take(
            wiring.settings.estate.name,
            [Scope(subscription, tuple(groups))],
            wiring.cloud(),
            fingerprints=wiring.fingerprints(),
            clock=wiring.clock,
            version=__version__,
            payloads=wiring.vault(),
            options=TakeOptions(reference=False),
        )

    def restore(
        self, snapshot: Snapshot, mapping: Substitutions, only: Sequence[str], *, dry: bool
    ) -> Restored:
        """Plan and, unless `dry`, apply. Raises when any step of the plan failed."""
        from snapshots.restore import Request, execute, prepare

        tools = self._wiring.restore_tools()
        request = Request(snapshot=snapshot, target="drill", mapping=mapping, only=tuple(only))
        prepared = prepare(request, tools)
        count = len(prepared.plan.steps)
        if dry:
            return Restored(steps=count, detail=f"{count} steps")
        done = execute(prepared, tools, self._wiring.records())
        bad = [
            outcome
            for step in done.record.plan.steps
            if (outcome := done.record.last(step.id)) is None
            or outcome.state not in (StepState.DONE, StepState.ADOPTED)
        ]
        if bad:
            why = next((o.error for o in bad if o is not None and o.error), "not done")
            raise RefusedError(
                f"{len(bad)} of {count} steps of the restore were not done: {why}",
                where=f"record {done.record.id}",
            )
        detail = f"{count} steps, record {done.record.id}"
        return Restored(steps=count, detail=detail, record=done.record.id, ids=done.record.ids)

    def replicate(self, *, dry: bool) -> Restored:
        """Say that it is not among the verbs here: `able` leaves it out."""
        del dry
        raise RefusedError("a drill does not replicate", remedy="run `muster replicate` before it")

    def reconstruct(self) -> Reconstructed:
        """Rebuild the newest snapshot from the vault, without the ledger; re-hash its payloads."""
        from snapshots.ledger import Ledger

        vault = self._wiring.vault()
        with tempfile.TemporaryDirectory(prefix="muster-drill-") as folder:
            bundle = Path(folder) / "ledger.bundle"
            name = vault.fetch_bundle(bundle)
            with Ledger.from_bundle(bundle, Path(folder) / "ledger.git") as copy:
                snapshot = copy.load()
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


class TerminalApprover:
    """Asks the person at the terminal, who says who they are on the line."""

    def __init__(self, invocation: Invocation, name: str, *, yes: bool) -> None:
        self._invocation = invocation
        self._name = name
        self._yes = yes

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

    def advance(self, seconds: float) -> None:
        """Move the sandbox's clock on."""
        self.send("POST", "clock", {"advance": seconds})


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


def equipment(
    wiring: Wiring,
    *,
    invocation: Invocation | None = None,
    approver: str = "",
    yes: bool = False,
    sandbox: Path | None = None,
    faults: Faults | None = None,
    tell: Callable[[str], None] | None = None,
) -> Equipment:
    """Hand a drill what it works with. Raises SettingsError and NotFoundError."""
    from drills.checks import make

    settings = wiring.settings
    pair = settings.estate.pairs[0] if settings.estate.pairs else None
    ledger = wiring.ledger()
    return Equipment(
        estate=settings.estate.name,
        version=__version__,
        cloud=wiring.cloud(),
        clock=wiring.clock,
        ledger=ledger,
        vault=wiring.vault(),
        verbs=EngineVerbs(wiring),
        make=make,
        state=state_folder(wiring),
        home=settings.file.parent,
        subscription=settings.estate.scopes[0].subscription,
        primary=pair.primary if pair is not None else "",
        standby=pair.standby if pair is not None else "",
        mapping=mapping_of(pair) if pair is not None else Substitutions(),
        approver=TerminalApprover(invocation, approver, yes=yes) if invocation else None,
        faults=SandboxControl.of(sandbox) if sandbox is not None else faults,
        signer=GitSigner(ledger.path),
        versions=versions(),
        tell=tell or (lambda _text: None),
    )
