"""Rehearse: the same drill many times in a sandbox of its own, with seeds and faults."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drills.judge import quantile
from drills.model import Drill, DrillStepState, Mode, Verdict
from drills.run import Options, Ran
from drills.run import run as run_drill
from muster.commands.init import read_ready
from muster.commands.snapshot import keep_snapshot
from muster.drilling import SandboxControl, equipment
from muster.invocation import Invocation
from muster.settings import (
    CredentialKind,
    CredentialSettings,
    EstateSettings,
    LedgerSettings,
    PairSettings,
    ScopeSettings,
    Settings,
    SnapshotSettings,
    VaultSettings,
    quote,
    write_private,
)
from muster.wiring import Wiring
from snapshots.errors import MusterError, RefusedError
from snapshots.model import Json, JsonObject

PATIENCE = 90.0  # seconds until the sandbox must serve
_STOP = 15.0  # seconds for its clean end


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How often, with which faults, in what."""

    runs: int
    seed: int
    fault_rate: float
    time_scale: float  # sandbox seconds in a real one
    estate: str  # what the sandbox holds: demo, empty, or a file


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
    failing: dict[str, int] = field(default_factory=dict)

    @property
    def all_passed(self) -> bool:
        """Whether every run proved the way back."""
        return not self.errors and all(r.result.verdict is Verdict.PASSED for r in self.runs)

    def times(self) -> list[float]:
        """Give the measured RTOs."""
        return [r.result.measured.rto for r in self.runs if r.result.measured.rto is not None]

    def document(self) -> JsonObject:
        """Give it as JSON."""
        times = self.times()
        verdicts: JsonObject = {v.value: 0 for v in Verdict}
        for ran in self.runs:
            count = verdicts[ran.result.verdict.value]
            verdicts[ran.result.verdict.value] = (count if isinstance(count, int) else 0) + 1
        shares = (("min", 0.0), ("p50", 0.5), ("p90", 0.9), ("max", 1.0))
        runs: list[Json] = [
            {
                "seed": ran.result.seed,
                "verdict": ran.result.verdict.value,
                "reasons": list(ran.result.reasons),
                "rto_seconds": ran.result.measured.rto,
                "cleanup": ran.result.clean_up.state.value,
                "evidence": ran.evidence.id,
            }
            for ran in self.runs
        ]
        return {
            "drill": self.drill.name,
            "rehearsals": len(self.runs),
            "verdicts": verdicts,
            "rto": {n: round(quantile(times, s), 3) for n, s in shares} if times else None,
            "objective_seconds": self.drill.objective.rto,
            "failing_steps": dict(self.failing),
            "errors": list(self.errors),
            "fault_rate": self.plan.fault_rate,
            "seconds": round(self.seconds, 1),
            "runs": runs,
        }

    def lines(self) -> list[str]:
        """Give it for people."""
        found = self.document()
        rto = found["rto"]
        lines = [f"{self.drill.title}: {len(self.runs)} rehearsals in {self.seconds:.0f} s"]
        verdicts = found["verdicts"]
        if isinstance(verdicts, dict):
            lines.append("  " + ", ".join(f"{n} {word}" for word, n in verdicts.items() if n))
        if isinstance(rto, dict):
            lines.append("  RTO " + ", ".join(f"{name} {value} s" for name, value in rto.items()))
        lines += [f"  failing: {name} ({n} times)" for name, n in self.failing.items()]
        seen = {reason for ran in self.runs for reason in ran.result.reasons}
        lines += [f"  {reason}" for reason in sorted(seen)]
        return [*lines, *(f"  error: {error}" for error in self.errors)]


def rehearse(drill: Drill, plan: Plan, invocation: Invocation) -> Rehearsal:
    """Run the drill `plan.runs` times, each from the same state with another seed."""
    begun = time.monotonic()
    ran: list[Ran] = []
    errors: list[str] = []
    failing: dict[str, int] = {}
    folder = Path(tempfile.mkdtemp(prefix="muster-rehearsal-"))
    try:
        with _sandbox(folder, plan) as ready:
            control = SandboxControl.of(ready)
            settings = _settings(folder, ready, drill)
            clock = ScaledClock(plan.time_scale)
            with Wiring(settings, invocation.environment, clock=clock) as wiring:
                quiet = replace(invocation, quiet=True)
                keep_snapshot(wiring, quiet, content=True, reference=False)
                dump = control.send("GET", "dump")
                tools = equipment(wiring, faults=control, tell=None)
                for number in range(plan.runs):
                    seed = plan.seed + number
                    invocation.say(f"rehearsal {number + 1} of {plan.runs} (seed {seed})")
                    control.send("POST", "load", dump)
                    control.send("DELETE", "faults")
                    for rule in faults_of(seed, plan.fault_rate):
                        control.add(rule)
                    try:
                        one = run_drill(drill, tools, Options(mode=Mode.REHEARSAL, seed=seed))
                    except MusterError as error:
                        errors.append(f"seed {seed}: {error.what}")
                        continue
                    ran.append(one)
                    for step in one.result.steps:
                        if step.state is DrillStepState.FAILED:
                            failing[step.name] = failing.get(step.name, 0) + 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begun
    return Rehearsal(drill, plan, tuple(ran), seconds, tuple(errors), failing)


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
def _sandbox(folder: Path, plan: Plan) -> Iterator[Path]:
    """Start a sandbox as a process of its own, and end it whatever happens."""
    ready, log = folder / "ready.json", folder / "sandbox.log"
    command = [sys.executable, "-m", "drills.sandbox", "--state", str(folder / "azure")]
    command += ["--ready-file", str(ready), "--no-blob", "--estate", plan.estate]
    command += ["--seed", str(plan.seed), "--time-scale", str(plan.time_scale)]
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True
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


def _settings(folder: Path, ready: Path, drill: Drill) -> Settings:
    """Make a configuration for the sandbox: nothing of the real one is in it."""
    found = read_ready(ready)
    secret = folder / "principal.toml"
    write_private(
        secret,
        f"client_id = {quote(found.client_id)}\nclient_secret = {quote(found.client_secret)}\n",
    )
    primary = drill.scope.primary or "swedencentral"
    return Settings(
        file=folder / "muster.toml",
        estate=EstateSettings(
            "rehearsal",
            tuple(ScopeSettings(s) for s in found.subscriptions),
            found.url,
            found.tenant,
            found.ca,
            (PairSettings(primary, drill.scope.standby or "eastus2"),),
        ),
        ledger=LedgerSettings(folder / "ledger.git"),
        vault=VaultSettings(str(folder / "vault")),
        snapshot=SnapshotSettings(reference=False),
        credential=CredentialSettings(CredentialKind.ENVIRONMENT, secret_file=secret),
    )
