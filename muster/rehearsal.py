"""Rehearse: the same drill many times in a sandbox of its own, with seeds and faults."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from threading import Event

from drills.evidence import EvidenceBook, GitSigner, document_of
from drills.judge import RUN, compared, distribution, judge
from drills.model import CleanUp, CleanUpState, Drill, DrillResult, Evidence, Mode, Verdict
from drills.run import Options, Ran
from drills.run import run as run_drill
from muster import __version__
from muster.commands.init import read_ready
from muster.drilling import SandboxControl, equipment, versions
from muster.invocation import Invocation
from muster.settings import (
    CredentialKind,
    CredentialSettings,
    EstateSettings,
    LedgerSettings,
    PairSettings,
    ScopeSettings,
    SecretSettings,
    Settings,
    VaultSettings,
    quote,
    write_private,
)
from muster.twin import PRINCIPAL, apply_to, customers, estate_of, lend
from muster.verbs.snapshot import keep_snapshot
from muster.wiring import Wiring
from snapshots import replication
from snapshots.errors import MusterError, NotFoundError, RefusedError
from snapshots.model import Json, JsonObject, Snapshot
from snapshots.steps import Mapping as Substitutions
from snapshots.vault import Vault

PATIENCE = 90.0  # seconds until the sandbox must serve
_STOP = 15.0  # seconds for its clean end
_MANY = 6  # runs for which a second sandbox is worth its start


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often, with which faults, in what."""

    runs: int
    seed: int
    fault_rate: float
    time_scale: float  # sandbox seconds in a real one
    estate: str = ""  # what the sandbox holds: demo, empty, or a file; "": the snapshot
    snapshot: str = ""  # of the ledger; "": the newest


class ScaledClock:
    """The sandbox's time: as many times faster as it runs."""

    def __init__(self, scale: float) -> None:
        self._scale = scale
        self._begun = time.monotonic()
        self._base = datetime.now(UTC)

    def now(self) -> datetime:
        """Tell the moment, aware, in UTC."""
        return self._base + timedelta(seconds=(time.monotonic() - self._begun) * self._scale)

    def sleep(self, seconds: float) -> None:
        """Come back after that many seconds of this clock."""
        if seconds > 0:
            time.sleep(seconds / self._scale)


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What many runs came to."""

    drill: Drill
    plan: Plan
    runs: tuple[Ran, ...]
    seconds: float
    errors: tuple[str, ...] = ()
    snapshot: str = ""  # that was applied to the twin
    lacks: tuple[str, ...] = ()  # what the twin has not of it
    interrupted: bool = False
    evidence: Evidence | None = None

    @property
    def all_passed(self) -> bool:
        """Whether every run proved the way back."""
        whole = len(self.runs) == self.plan.runs
        return whole and not self.errors and all(
            r.result.verdict is Verdict.PASSED for r in self.runs
        )  # fmt: skip

    def section(self) -> JsonObject:
        """Give what evidence keeps of it: each run with all that its verdict follows from."""
        runs: list[Json] = [
            {"seed": ran.result.seed, **{name: ran.evidence.document.get(name) for name in RUN}}
            for ran in self.runs
        ]
        return {
            "runs_wanted": self.plan.runs,
            "runs": runs,
            "errors": list(self.errors),
            "fault_rate": self.plan.fault_rate,
            "time_scale": self.plan.time_scale,
            "seconds": round(self.seconds, 1),
            "lacks": list(self.lacks),
            **distribution(runs),
        }

    def document(self) -> JsonObject:
        """Give it as JSON."""
        section = self.section()
        runs: list[Json] = [
            {
                "seed": ran.result.seed,
                "verdict": ran.result.verdict.value,
                "reasons": list(ran.result.reasons),
                "rto_seconds": ran.result.measured.rto,
                "cleanup": ran.result.clean_up.state.value,
            }
            for ran in self.runs
        ]
        known = self.evidence
        return {
            "drill": self.drill.name,
            "snapshot": self.snapshot or None,
            "verdict": known.document.get("verdict") if known is not None else None,
            "rehearsals": len(self.runs),
            "objective_seconds": self.drill.objective.rto,
            **{name: section[name] for name in _SHOWN},
            "lacks": list(self.lacks),
            "errors": list(self.errors),
            "fault_rate": self.plan.fault_rate,
            "seconds": round(self.seconds, 1),
            "runs": runs,
            "evidence": {"id": known.id, "hash": known.hash} if known is not None else None,
        }

    def lines(self) -> list[str]:
        """Give it for people."""
        found = self.document()
        lines = [f"{self.drill.title}: {len(self.runs)} rehearsals in {self.seconds:.0f} s"]
        if self.snapshot:
            lines.append(f"  in a twin of snapshot {self.snapshot[:12]}")
        verdicts = found["verdicts"]
        if isinstance(verdicts, dict):
            lines.append("  " + ", ".join(f"{n} {word}" for word, n in verdicts.items() if n))
        rto = found["rto"]
        if isinstance(rto, dict):
            words = ", ".join(f"{name} {value} s" for name, value in rto.items())
            promised = self.drill.objective.rto
            lines.append(f"  RTO {words}" + (f" (promised {promised:.0f} s)" if promised else ""))
            lines += [f"    {line}" for line in bars(found["histogram"])]
        failing = found["failing_steps"]
        for name, count in failing.items() if isinstance(failing, dict) else ():
            lines.append(f"  failing: {name} ({count} of {len(self.runs)} runs)")
        seen = {reason for ran in self.runs for reason in ran.result.reasons}
        lines += [f"  {reason}" for reason in sorted(seen)[:12]]
        if self.lacks:
            lines.append(f"  the twin lacks {len(self.lacks)} resources of the snapshot:")
            lines += [f"    {words}" for words in self.lacks[:8]]
        lines += [f"  error: {error}" for error in self.errors]
        if self.evidence is not None:
            lines.append(f"evidence: {self.evidence.id}  {self.evidence.hash}")
        return lines


_SHOWN = ("verdicts", "rto", "histogram", "failing_steps")


def bars(histogram: Json) -> list[str]:
    """Draw a histogram with letters, one line for each range that holds something."""
    rows = (
        [row for row in histogram if isinstance(row, dict)] if isinstance(histogram, list) else []
    )
    most = max((n for r in rows if isinstance(n := r.get("runs"), int)), default=0)
    lines: list[str] = []
    for row in rows:
        count = row.get("runs")
        if isinstance(count, int) and count:
            low, high = row.get("from"), row.get("to")
            bar = "#" * max(1, round(30 * count / most))
            lines.append(f"{low:>9} to {high:>9} s  {bar} {count}")
    return lines


def rehearse(drill: Drill, plan: Plan, real: Wiring, invocation: Invocation) -> Rehearsal:
    """Run the drill `plan.runs` times, each from the same state with another seed.

    The twin is a sandbox with a snapshot of the real ledger applied to it, or with the estate that
    the plan names. Nothing of the real estate is called; the evidence of the whole is kept in the
    real ledger and vault. Ctrl-C ends after the run in hand, and that is evidence, too.
    """
    begun, started = time.monotonic(), real.clock.now()
    folder = Path(tempfile.mkdtemp(prefix="muster-rehearsal-"))
    snapshot = Snapshot(real.settings.estate.name, started, __version__, {})
    if not plan.estate:
        ledger = real.ledger()
        snapshot = ledger.load(ledger.resolve(plan.snapshot)) if plan.snapshot else ledger.load()
    runs = _Runs(drill, plan, real, invocation, snapshot)
    try:
        estate = plan.estate
        if not estate:
            file = folder / "estate.yaml"
            vault = real.vault()
            file.write_text(estate_of(snapshot, lambda sha: _payload(vault, sha)), "utf-8")
            estate = str(file)
        runs.go(folder, estate)
    except KeyboardInterrupt:
        runs.interrupted = True  # what was run so far is evidence, too
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    found = Rehearsal(
        drill,
        plan,
        tuple(runs.ran),
        time.monotonic() - begun,
        tuple(runs.errors),
        snapshot.id,
        runs.lacks,
        runs.interrupted,
    )
    return replace(found, evidence=_kept(found, real, started))


def _payload(vault: Vault, sha256: str) -> bytes | None:
    try:
        return b"".join(vault.read(sha256))
    except MusterError:
        return None


@dataclass(frozen=True, slots=True)
class _Lane:
    """One sandbox of a rehearsal, and what runs in it."""

    wiring: Wiring
    control: SandboxControl
    stopping: Event
    made_at: datetime  # by its clock, when the twin's state was dumped


class _Runs:
    """The runs of one rehearsal, in one sandbox."""

    def __init__(
        self, drill: Drill, plan: Plan, real: Wiring, invocation: Invocation, snapshot: Snapshot
    ) -> None:
        self.drill = drill
        self.plan = plan
        self.real = real
        self.invocation = invocation
        self.snapshot = snapshot
        self.ran: list[Ran] = []
        self.errors: list[str] = []
        self.lacks: tuple[str, ...] = ()
        self.interrupted = False

    def go(self, folder: Path, estate: str) -> None:
        """Prepare the twin once, then run from its dump with each seed: two at a time if many."""
        plan, say = self.plan, self.invocation.say
        with ExitStack() as opened:
            first = self._lane(opened, folder / "first", estate)
            if not plan.estate:
                say("making a twin of the snapshot")
                self._apply(first.wiring, first.control)
            keep_snapshot(first.wiring, content=True, reference=False)
            self._registry(first.wiring)
            dump = first.control.send("GET", "dump")
            made_at = first.wiring.clock.now()
            lanes = [replace(first, made_at=made_at)]
            if plan.runs >= _MANY and (os.cpu_count() or 1) > 1:
                place = folder / "second"
                for name in ("ledger.git", "vault"):
                    shutil.copytree(folder / "first" / name, place / name)
                second = self._lane(opened, place, estate)
                lag = second.wiring.clock.now() - first.wiring.clock.now()
                lanes.append(replace(second, made_at=made_at + lag))
            seeds = deque(range(plan.seed, plan.seed + plan.runs))
            if len(lanes) == 1:
                self._run(lanes[0], seeds, dump)
                return
            with ThreadPoolExecutor(len(lanes), thread_name_prefix="rehearsal") as pool:
                futures = [pool.submit(self._run, lane, seeds, dump) for lane in lanes]
                try:
                    for future in futures:
                        future.result()
                except KeyboardInterrupt:
                    seeds.clear()
                    for lane in lanes:
                        lane.stopping.set()
                    raise
        self.ran.sort(key=lambda one: one.result.seed)

    def _lane(self, opened: ExitStack, folder: Path, estate: str) -> _Lane:
        """Start a sandbox with a folder of its own."""
        folder.mkdir(parents=True, exist_ok=True)
        ready = opened.enter_context(_sandbox(folder, self.plan, estate))
        settings, clock = self._settings(folder, ready), ScaledClock(self.plan.time_scale)
        wiring = opened.enter_context(Wiring(settings, self.invocation.environment, clock=clock))
        return _Lane(wiring, SandboxControl.of(ready), Event(), clock.now())

    def _run(self, lane: _Lane, seeds: deque[int], dump: object) -> None:
        """Run seed after seed until none is left."""
        drill, plan = self.drill, self.plan
        tools = equipment(
            lane.wiring, faults=lane.control, primary=drill.scope.primary, made_up=True, tell=None
        )
        tools = replace(tools, stopping=lane.stopping)
        while not lane.stopping.is_set():
            try:
                seed = seeds.popleft()
            except IndexError:
                return
            self.invocation.say(f"rehearsal {seed - plan.seed + 1} of {plan.runs} (seed {seed})")
            lane.control.send("POST", "load", dump)
            # The twin is as it was when the dump was made; our clock has run on for other seeds.
            idle = lane.wiring.clock.now() - lane.made_at
            for rule in faults_of(seed, plan.fault_rate):
                lane.control.add(rule)
            try:
                options = Options(mode=Mode.REHEARSAL, seed=seed, idle=idle.total_seconds())
                one = run_drill(drill, tools, options)
            except MusterError as error:
                self.errors.append(f"seed {seed}: {error.what}")
                continue
            self.ran.append(one)
            if one.result.verdict is Verdict.INTERRUPTED and not _timed_out(one):
                self.interrupted = True
                seeds.clear()
                return

    def _apply(self, wiring: Wiring, control: SandboxControl) -> None:
        wiring.ledger(create=True)
        wiring.vault().prepare()
        lend(self.snapshot, self.real.vault(), wiring.vault())
        document = control.send("GET", "dump")
        if isinstance(document, dict):
            document["items"] = [*document["items"], *customers(self.snapshot)]
            control.send("POST", "load", document)
        applied = apply_to(wiring, self.snapshot, self.invocation.say)
        self.lacks = applied.lacks

    def _registry(self, wiring: Wiring) -> None:
        """Let the twin know what was replicated, as the real ledger knows it."""
        if self.plan.estate:
            return
        for pair in wiring.settings.estate.pairs:
            known = replication.read(self.real.ledger(), pair.primary, pair.standby)
            if known.replicas:
                replication.write(wiring.ledger(), known, "as the real ledger has it")

    def _settings(self, folder: Path, ready: Path) -> Settings:
        """Make a configuration for the twin: of the real one it has the pairs and the scopes."""
        twin = not self.plan.estate
        found = read_ready(ready, PRINCIPAL if twin else "")
        secret = folder / "principal.toml"
        write_private(
            secret,
            f"client_id = {quote(found.client_id)}\nclient_secret = {quote(found.client_secret)}\n",
        )
        real, scope = self.real.settings, self.drill.scope
        primary = scope.primary or "swedencentral"
        pairs = real.estate.pairs if twin else ()
        return replace(
            real,
            file=folder / "muster.toml",
            estate=EstateSettings(
                real.estate.name if twin else "rehearsal",
                real.estate.scopes
                if twin
                else tuple(ScopeSettings(s) for s in found.subscriptions),
                found.url,
                found.tenant,
                found.ca,
                pairs or (PairSettings(primary, scope.standby or "eastus2"),),
            ),
            ledger=LedgerSettings(folder / "ledger.git"),
            vault=VaultSettings(str(folder / "vault")),
            snapshot=replace(real.snapshot, reference=False),
            secrets=SecretSettings(),
            credential=CredentialSettings(CredentialKind.ENVIRONMENT, secret_file=secret),
        )


def _timed_out(ran: Ran) -> bool:
    return any("longer than its limit" in step.detail for step in ran.result.steps)


def _kept(found: Rehearsal, real: Wiring, started: datetime) -> Evidence | None:
    """Keep the evidence of the whole in the real ledger; None where there is none to keep it in."""
    try:
        ledger = real.ledger()
    except NotFoundError:
        return None  # an estate of the sandbox's own was rehearsed, and nothing else is there
    last = found.runs[-1].result if found.runs else None
    now = real.clock.now()
    result = DrillResult(
        id=f"{started:%Y%m%dT%H%M%SZ}-{token_hex(3)}",
        drill=found.drill,
        mode=Mode.REHEARSAL,
        seed=found.plan.seed,
        estate=real.settings.estate.name,
        version=__version__,
        started_at=started,
        finished_at=now,
        verdict=Verdict.NOT_PROVED,
        snapshot=found.snapshot,
        mapping=last.mapping if last is not None else Substitutions(),
        target=f"a twin of {found.plan.estate or 'the snapshot'}",
        clean_up=CleanUp(
            state=CleanUpState.CLEAN, proof=("the twin's process has ended, its folder is gone",)
        ),
    )
    section = found.section()
    document = document_of(result, interrupted=found.interrupted, versions=versions())
    document["rehearsal"] = section
    rto = section.get("rto")
    document["rto_seconds"] = rto.get("p90") if isinstance(rto, dict) else None
    document["calls"] = sum(r.result.measured.calls for r in found.runs)
    judged = judge(document)
    document["verdict"], document["reasons"] = judged.verdict.value, list(judged.reasons)
    book = EvidenceBook(ledger, real.vault())
    earlier = book.earlier(found.drill.name, Mode.REHEARSAL)
    if isinstance(rto, dict) and isinstance(value := rto.get("p50"), int | float):
        document["findings"] = list(compared(float(value), earlier))
    return book.keep(document, GitSigner(ledger.path))


def faults_of(seed: int, rate: float) -> list[JsonObject]:
    """Give the faults of a seed: always the same for the same seed."""
    if not rate:
        return []
    chance = random.Random(seed)
    busy: JsonObject = {"kind": "error", "status": 503, "rate": round(rate * chance.random(), 4)}
    busy["id"] = f"rehearsal-{seed}-busy"
    slow: JsonObject = {"kind": "latency", "rate": rate, "seconds": round(chance.random() / 10, 3)}
    slow["id"] = f"rehearsal-{seed}-slow"
    throttled: JsonObject = {"kind": "throttle", "retry_after": 1, "rate": rate, "times": 5}
    throttled["id"] = f"rehearsal-{seed}-throttled"
    return [busy, slow, throttled]


@contextmanager
def _sandbox(folder: Path, plan: Plan, estate: str) -> Iterator[Path]:
    """Start a sandbox as a process of its own, and end it whatever happens."""
    ready, log = folder / "ready.json", folder / "sandbox.log"
    command = [sys.executable, "-m", "drills.sandbox", "--state", str(folder / "azure")]
    command += ["--ready-file", str(ready), "--no-blob", "--estate", estate]
    command += ["--seed", str(plan.seed), "--time-scale", str(plan.time_scale)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            start_new_session=True,
            preexec_fn=_end_with_us if sys.platform == "linux" else None,  # noqa: PLW1509
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready.is_file():
            if process.poll() is not None or time.monotonic() > deadline:
                words = log.read_text("utf-8", "replace").strip().split("\n")[-1][:300]
                raise RefusedError(f"the sandbox did not start: {words}")
            time.sleep(0.05)
        yield ready
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(_STOP)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(_STOP)


def _end_with_us() -> None:
    """Have the kernel end the sandbox when we are killed: it would serve for ever."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, linux/prctl.h
