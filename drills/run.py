"""Run a drill: gate, steps, checks, and whatever happens clean-up, proof and evidence."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from drills import journal as journals
from drills import own
from drills.doing import Running, StoppedError, do, path_of, phases_of, short, skipped
from drills.evidence import EvidenceBook, document_of
from drills.journal import RunJournal
from drills.judge import compared, judge, left_out
from drills.leavings import OwnGroup, Sweeper, expired, text, told
from drills.model import (
    Check,
    CheckContext,
    CheckDeclaration,
    CheckMaker,
    CheckOutcome,
    CheckState,
    CleanUp,
    CleanUpState,
    Control,
    DeployStep,
    Drill,
    DrillResult,
    DrillScope,
    DrillStep,
    DrillStepState,
    Estimate,
    Evidence,
    FaultStep,
    Measured,
    Mode,
    Objective,
    PathPart,
    Phase,
    StepOutcome,
    TargetKind,
    Verb,
    VerbStep,
    Verdict,
)
from drills.script import parse, walk
from drills.verbs import Equipment
from snapshots.errors import (
    DamagedStoreError,
    InputError,
    LockedError,
    MusterError,
    RefusedError,
)
from snapshots.mapping import region_of
from snapshots.model import Json, JsonObject, Snapshot
from snapshots.steps import Mapping as Substitutions

# An estimate in US dollars for an hour of one provisioned throughput unit, of the order of the
# list price; what is billed by the call costs a drill next to nothing.
PTU_HOUR = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How one run goes."""

    mode: Mode = Mode.REAL
    seed: int = 0
    keep: bool = False  # leave everything there, to look at it
    snapshot: str = ""  # "": the newest that is kept; "live": as it is now
    idle: float = 0.0  # seconds that the clock ran on for other runs since the state was as it is
    approvals: tuple[str, ...] = ()  # who allowed the run before it began, and why


@dataclass(frozen=True, slots=True)
class Ran:
    """A drill that was run, and its evidence."""

    result: DrillResult
    evidence: Evidence


def maker(equipment: Equipment, running: Running | None = None) -> CheckMaker:
    """Give what makes checks: ours, and those of the library that was handed in."""

    def make(declaration: CheckDeclaration) -> Check:
        if declaration.check in own.NAMES:
            return own.make(declaration, running)
        if running is not None:  # what only a run knows: its regions, its group
            settings = running.filled(declaration.settings)
            declaration = replace(
                declaration,
                subject=running.word(declaration.subject),
                settings=settings if isinstance(settings, dict) else {},
            )
        return equipment.make(declaration)

    return make


def run(drill: Drill, equipment: Equipment, options: Options) -> Ran:
    """Run one drill to its evidence. What an earlier one left is cleaned up first.

    Raises RefusedError when the stop switch is on or the cost ceiling would be broken, InputError
    for a script that cannot work here. KeyboardInterrupt is an outcome: `interrupted`.
    """
    settle(equipment)
    if equipment.stop_file.exists():
        raise RefusedError(
            "the stop switch is on: no drill starts",
            where=str(equipment.stop_file),
            remedy="remove the file when drills may run again",
        )
    lacking = _needed(drill) - equipment.verbs.able()
    if lacking:
        raise InputError(
            f"this drill needs {', '.join(sorted(lacking))}, which is not there",
            where=str(drill.file),
            remedy="see `muster drill list`",
        )
    for declaration in (*drill.gate, *drill.checks):
        maker(equipment)(declaration)
    running = _Run(drill, equipment, options)
    if options.mode is not Mode.REAL:
        return running.run()
    # Twice the limit: clean-up may take as long again.
    with equipment.busy(f"drill {drill.name}", timedelta(seconds=2 * drill.limit)):
        return running.run()


def _needed(drill: Drill) -> frozenset[str]:
    steps = walk((*drill.steps, *drill.clean_up))
    return frozenset(step.verb for step in steps if isinstance(step, VerbStep))


class _Run:
    """One run, from its journal's first line to its evidence."""

    def __init__(self, drill: Drill, equipment: Equipment, options: Options) -> None:
        now = equipment.clock.now()
        self.started = now
        self.drill = drill
        self.equipment = equipment
        self.options = options
        self.id = f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
        self.gate: list[CheckOutcome] = []
        self.steps: list[StepOutcome] = []
        self.calls = equipment.cloud.calls.snapshot().made
        self.checks: list[CheckOutcome] = []
        self.interrupted = False
        self.lost_at: float | None = None
        self.validated: float | None = None
        self.undone: CleanUp = CleanUp(state=CleanUpState.UNKNOWN)
        region = drill.scope.primary or equipment.primary
        if drill.forced:
            region = drill.scope.standby or equipment.standby
        isolated = drill.target is TargetKind.ISOLATED
        if isolated and not region:
            raise InputError(
                "nobody says in which region the drill's own target shall be",
                where=str(drill.file),
                remedy="write scope: {primary: swedencentral}, or a pair in muster.toml",
            )
        self.group = None
        if isolated:
            home = _home(drill, equipment, options, region)
            self.group = OwnGroup(home, f"muster-drill-{short(self.id)}", region, self.id)

    def run(self) -> Ran:
        equipment, drill = self.equipment, self.drill
        header: JsonObject = {
            "id": self.id,
            "drill": drill.name,
            "file": str(drill.file),
            "text": drill.text,
            "parameters": drill.parameters,
            "mode": self.options.mode.value,
            "seed": self.options.seed,
            "estate": equipment.estate,
            "keep": self.options.keep,
            "started_at": self.started.isoformat(),
        }
        journal = RunJournal.begin(equipment.state, self.id, header)
        running = Running(
            id=self.id,
            drill=drill,
            mode=self.options.mode,
            seed=self.options.seed,
            equipment=equipment,
            journal=journal,
            ends=self.started.timestamp() + drill.limit,
            group=self.group,
            ref=self.options.snapshot,
            keep=self.options.keep,
        )
        for words in self.options.approvals:
            running.approvals.append(words)
            journal.write({"event": "approval", "what": words})
        down = dict(equipment.cloud.regions.down)
        settled = False
        try:
            try:
                self._go(running)
            except (StoppedError, KeyboardInterrupt) as stopped:
                self._stopped(stopped)
            finally:
                equipment.stopping.clear()
                try:
                    self._clean(running)
                    # A drill that was refused has begun nothing, and leaves no journal either.
                    settled = self.undone.state is CleanUpState.CLEAN and not self.steps
                except KeyboardInterrupt:
                    equipment.tell(
                        "the clean-up was interrupted: something of the drill may be left. "
                        "`muster drill clean` goes on with it, and so does the next drill"
                    )
                    raise
                finally:  # a forced drill does not call its primary for cleaning up either
                    for region in set(equipment.cloud.regions.down) - set(down):
                        equipment.cloud.regions.up(region)
            settled = False
            ran = self._written(running)
            settled = ran.result.clean_up.state is CleanUpState.CLEAN
            if ran.result.clean_up.state is CleanUpState.KEPT:
                journal.write({"event": "facts", "what": {"kept": True}})
        finally:
            journal.close(done=settled)
        return ran

    def _stopped(self, error: BaseException) -> None:
        self.interrupted = True
        words = error.what if isinstance(error, MusterError) else "interrupted"
        done = {step.name for step in self.steps}
        self.steps += [skipped(s, words) for s in self.drill.steps if s.name not in done]
        self.equipment.tell(f"{words}: cleaning up")

    def _go(self, running: Running) -> None:
        drill, equipment = self.drill, self.equipment
        region = drill.scope.primary or equipment.primary
        if drill.forced and region:  # before the gate: it does not call the primary either
            equipment.cloud.regions.declare_down(region, f"forced drill {self.id}")
        self._prepare(running)
        context = self._context(running)  # one look for all of them
        for declaration in drill.gate:
            running.look_up()
            equipment.tell(f"gate: {declaration.title}")
            self.gate.append(_ask(declaration, running, context))
            running.journal.write({"event": "gate", "what": self.gate[-1].document()})
        if any(
            c.state is not CheckState.PASSED or c.negative_control is Control.PASSED
            for c in self.gate
        ):
            self.steps = [skipped(s, "the gate did not pass") for s in drill.steps]
            return
        if self.group is not None and not running.dry:
            running.journal.write({"event": "undo", "what": self.group.document()})
            self.group.make(equipment, drill.limit)
        if not self._step(running):
            return
        self._check(running)

    def _prepare(self, running: Running) -> None:
        verbs = [s.verb for s in walk(self.drill.steps) if isinstance(s, VerbStep)]
        wanted = any(verb in _TARGETED for verb in verbs)
        rebuilt = Verb.RECONSTRUCT in verbs[: _first(verbs, _TARGETED)]
        for step in walk(self.drill.steps):  # sizes count for what it may cost at most
            if isinstance(step, VerbStep) and step.verb in _TARGETED:
                running.change(running.filled_object(step.changes))
                break
        try:
            # What is rebuilt from the vault alone is not loaded from the ledger beforehand.
            if not rebuilt and (wanted or self.drill.target is not TargetKind.ISOLATED):
                running.use("")
        except MusterError:
            if wanted:
                raise
        self._afford(running)

    def _afford(self, running: Running) -> None:
        """Hold what the drill may cost at most to its ceiling. Raises RefusedError."""
        hours = self.drill.limit / 3600
        most = hours * PTU_HOUR * _provisioned(running.expected) if self._billed else 0.0
        if most > self.drill.cost_ceiling:
            raise RefusedError(
                f"this drill may cost {most:.2f} US dollars, and {self.drill.cost_ceiling:.2f} are "
                "its ceiling",
                where=str(self.drill.file),
                remedy="restore less (only:), shorten `limit`, or raise `cost_ceiling`",
            )

    @property
    def _billed(self) -> bool:
        """Whether what the drill builds is billed beside what is there already."""
        builds = any(
            isinstance(s, DeployStep) or (isinstance(s, VerbStep) and s.verb in _BUILDS)
            for s in walk(self.drill.steps)
        )
        return builds and self.drill.target in (TargetKind.ISOLATED, TargetKind.STANDBY)

    def _step(self, running: Running) -> bool:
        """Do the steps in order; say whether all of them are done (or skipped by a dry run)."""
        for at, step in enumerate(self.drill.steps):
            self.equipment.tell(f"step {at + 1} of {len(self.drill.steps)}: {step.name}")
            running.journal.write({"event": "intent", "what": step.name})
            if self.lost_at is None and not _breaks(step):
                self.lost_at = running.seconds()
            outcome = replace(do(step, running), critical=True)
            self.steps.append(outcome)
            if isinstance(step, VerbStep) and step.verb is Verb.RECONSTRUCT:
                self._afford(running)
            running.journal.write({"event": "step", "what": outcome.document()})
            if _breaks(step):
                self.lost_at = running.seconds()
            if outcome.state is DrillStepState.FAILED:
                self.steps += [
                    skipped(s, f"after {step.name} failed") for s in self.drill.steps[at + 1 :]
                ]
                return False
        return True

    def _check(self, running: Running) -> None:
        """Ask every check, take the time, and only then try them on broken copies."""
        if running.dry and self.drill.target is TargetKind.ISOLATED:
            self.checks = [
                CheckOutcome(
                    name=d.title,
                    subject=d.subject,
                    state=CheckState.NOT_RUN,
                    detail="its target is made by a real run only",
                )
                for d in self.drill.checks
            ]
            return
        context = self._context(running)
        asked: list[tuple[Check, CheckOutcome]] = []
        for declaration in self.drill.checks:
            running.look_up()
            self.equipment.tell(f"check: {declaration.title}")
            check = maker(self.equipment, running)(declaration)
            asked.append((check, _timed(check.run, context, declaration)))
        self.validated = running.seconds()
        for (check, outcome), declaration in zip(asked, self.drill.checks, strict=True):
            running.look_up()
            done = _controlled(check, outcome, context, declaration)
            self.checks.append(done)
            running.journal.write({"event": "check", "what": done.document()})

    def _context(self, running: Running) -> CheckContext:
        equipment = self.equipment
        seen: list[Snapshot] = []

        def live() -> Snapshot:
            if not seen:
                seen.append(running.live())
            return seen[0]

        mapping = running.mapping
        if self.drill.target is TargetKind.NONE:
            mapping = equipment.mapping
        return CheckContext(
            cloud=equipment.cloud,
            clock=equipment.clock,
            live=live,
            expected=running.expected,
            source=running.source,
            mapping=mapping,
            ids=running.ids,
            ledger=equipment.ledger,
            vault=equipment.vault,
            primary=self.drill.scope.primary or equipment.primary,
            standby=self.drill.scope.standby or equipment.standby,
            folder=equipment.home,
            seed=self.options.seed,
        )

    # The end ---------------------------------------------------------------------------------

    def _clean(self, running: Running) -> None:
        equipment = self.equipment
        undo = journals.read(running.journal.path).undo
        if self.options.keep and undo:
            self.undone = kept(undo)
            return
        equipment.tell("cleaning up")
        begun = running.seconds()
        running.ends = begun + self.drill.limit
        failed: list[str] = []
        if not running.dry and any(s.state is DrillStepState.DONE for s in self.steps):
            for step in self.drill.clean_up:
                try:
                    outcome = do(step, running)
                except StoppedError as error:
                    failed.append(f"{step.name}: {error.what}")
                    continue
                self.steps.append(outcome)
                if outcome.state is DrillStepState.FAILED:
                    failed.append(f"{step.name}: {outcome.detail}")
        swept = Sweeper(equipment).sweep(journals.read(running.journal.path).undo)
        if failed:
            swept = replace(swept, state=CleanUpState.LEFT, left=(*swept.left, *failed))
        self.undone = replace(swept, kept=tuple(running.kept), seconds=running.seconds() - begun)

    def _written(self, running: Running) -> Ran:
        equipment, drill = self.equipment, self.drill
        book = EvidenceBook(equipment.ledger, equipment.vault)
        result = DrillResult(
            id=self.id,
            drill=drill,
            mode=self.options.mode,
            seed=self.options.seed,
            estate=equipment.estate,
            version=equipment.version,
            started_at=self.started,
            finished_at=equipment.clock.now(),
            verdict=Verdict.NOT_PROVED,
            snapshot=running.source.id if running.source is not None else "",
            mapping=running.mapping,
            target=self.group.path if self.group is not None else drill.target.value,
            gate=tuple(self.gate),
            steps=tuple(self.steps),
            checks=tuple(self.checks),
            clean_up=self.undone,
            approvals=tuple(running.approvals),
            measured=self._measured(running),
        )
        estimate = book.estimate(drill.name) if self.options.mode is Mode.REAL else None
        earlier = book.earlier(drill.name, self.options.mode)
        result = replace(
            result, estimate=estimate, findings=findings(result, drill, estimate, earlier)
        )
        return _judged(result, equipment, interrupted=self.interrupted)

    def _measured(self, running: Running) -> Measured:
        begun = self.lost_at if self.lost_at is not None else self.started.timestamp()
        phases = phases_of(self.steps, begun, self.validated)
        whole = (
            not self.interrupted
            and not running.dry
            and bool(self.steps or self.checks)
            and all(s.state is DrillStepState.DONE or left_out(s.document()) for s in self.steps)
            and all(c.state is CheckState.PASSED for c in self.checks)
        )
        rto = round(max(phases.values()), 3) if whole and phases else None
        by_class: dict[str, float | None] = {}
        if running.source is not None and not (running.used is not None and running.used[1]):
            taken = running.source.taken_at.timestamp() + self.options.idle
            age = round(max(begun - taken, 0.0), 3)
            by_class = {
                name: None if name in _GONE else age
                for name in sorted(own.recovery_class(running.source))
            }
        ages = [age for age in by_class.values() if age is not None]
        hours = (running.seconds() - self.started.timestamp()) / 3600
        path = path_of(self.steps, begun)
        if self.validated is not None and self.checks:
            last = max((part.ends for part in path), default=0.0)
            ends = round(max(self.validated - begun, 0.0), 3)
            part = PathPart(
                name="check" if len(self.checks) == 1 else f"{len(self.checks)} checks",
                phase=Phase.VALIDATED,
                begins=min(last, ends),
                ends=ends,
            )
            path = (*path, part)
        return Measured(
            rto=rto,
            rpo=max(ages) if ages else None,
            phases=phases,
            rpo_by_class=by_class,
            critical_path=path,
            calls=self.equipment.cloud.calls.snapshot().made - self.calls,
            cost=round(hours * PTU_HOUR * _provisioned(running.expected), 4)
            if self._billed
            else 0.0,
        )


# What of a snapshot does not come back, however young it is.
_GONE = frozenset({"recorded", "lost"})


def findings(
    result: DrillResult, drill: Drill, estimate: Estimate | None, earlier: Sequence[float]
) -> tuple[str, ...]:
    """Say what is worth knowing beside the verdict: slower than before, slower than rehearsed."""
    measured = result.measured
    found = list(compared(measured.rto, earlier))
    if estimate is not None and measured.rto is not None and measured.rto > 1.5 * estimate.p90:
        found.append(
            f"slower than rehearsed: {measured.rto:.1f} s, {estimate.runs} rehearsals said "
            f"{estimate.p50:.1f} s (nine in ten below {estimate.p90:.1f} s)"
        )
    if measured.cost > drill.cost_ceiling:
        found.append(
            f"over its ceiling: about {measured.cost:.2f} US dollars, "
            f"{drill.cost_ceiling:.2f} were allowed"
        )
    return tuple(found)


def _home(drill: Drill, equipment: Equipment, options: Options, region: str) -> str:
    """Say in which subscription the drill's own group shall be: quota and models are its own.

    That of the accounts that the drill copies; forced, that of their standbys. What nobody knows
    (there is no ledger yet) leaves the first one of the configuration.
    """
    if drill.forced:
        names = [place.subscription for place in equipment.mapping.accounts.values()]
    elif options.snapshot == "live":
        names = []
    else:
        try:
            known = equipment.verbs.load(options.snapshot).resources
        except MusterError:
            known = {}
        names = [
            key.subscription
            for key, account in sorted(known.items())
            if key.kind == "account" and region_of(account) == region
        ]
    counted = Counter(name for name in names if name).most_common(1)
    return counted[0][0] if counted else equipment.subscription


def _judged(result: DrillResult, equipment: Equipment, *, interrupted: bool) -> Ran:
    """Come to the verdict as anybody else will, from the document, and keep it."""
    document = document_of(result, interrupted=interrupted, versions=equipment.versions)
    found = judge(document)
    result = replace(result, verdict=found.verdict, reasons=found.reasons)
    document["verdict"], document["reasons"] = found.verdict.value, list(found.reasons)
    book = EvidenceBook(equipment.ledger, equipment.vault)
    return Ran(result, book.keep(document, equipment.signer))


_BUILDS = (Verb.RESTORE, Verb.REPLICATE, Verb.RECOVER)
_TARGETED = (Verb.RESTORE, Verb.PLAN, Verb.REPLICATE)


def _first(verbs: Sequence[Verb], wanted: Sequence[Verb]) -> int:
    return next((at for at, verb in enumerate(verbs) if verb in wanted), 0)


def kept(undo: Sequence[JsonObject]) -> CleanUp:
    """Say what `--keep` left there."""
    return CleanUp(state=CleanUpState.KEPT, left=tuple(told(item) for item in undo))


def _breaks(step: DrillStep) -> bool:
    return isinstance(step, FaultStep)


def _provisioned(snapshot: Snapshot | None) -> float:
    """Add up the provisioned throughput units that a target would hold."""
    units = 0.0
    for key, resource in snapshot.resources.items() if snapshot is not None else ():
        sku = resource.body.get("sku") if key.kind == "deployment" else None
        if isinstance(sku, dict) and "Provisioned" in str(sku.get("name")):
            capacity = sku.get("capacity")
            units += float(capacity) if isinstance(capacity, int | float) else 0.0
    return units


# ---------------------------------------------------------------------------------------- checks


def _ask(declaration: CheckDeclaration, running: Running, context: CheckContext) -> CheckOutcome:
    check = maker(running.equipment, running)(declaration)
    return _controlled(check, _timed(check.run, context, declaration), context, declaration)


def _timed(
    question: Callable[[CheckContext], CheckOutcome],
    context: CheckContext,
    declaration: CheckDeclaration,
) -> CheckOutcome:
    begun = context.clock.now()
    try:
        outcome = question(context)
    except MusterError as error:
        outcome = CheckOutcome(
            name=declaration.title,
            subject=declaration.subject,
            state=CheckState.NOT_RUN,
            detail=error.what,
        )
    seconds = (context.clock.now() - begun).total_seconds()
    return replace(outcome, name=declaration.title, seconds=seconds)


def _controlled(
    check: Check, outcome: CheckOutcome, context: CheckContext, declaration: CheckDeclaration
) -> CheckOutcome:
    if outcome.state is CheckState.NOT_RUN:
        return outcome
    broken = _timed(check.control, context, declaration)
    control = {
        CheckState.FAILED: Control.FAILED,
        CheckState.PASSED: Control.PASSED,
        CheckState.NOT_RUN: Control.NOT_RUN,
    }[broken.state]
    return replace(outcome, negative_control=control, control_detail=broken.detail)


# ----------------------------------------------------------------------------- after a crash


def settle(equipment: Equipment, *, also: str = "") -> tuple[Evidence, ...]:
    """Clean up after drills that did not end, and write what they came to: interrupted.

    A drill that still runs is left alone, and so is a failover that was run with --keep, unless
    `also` names it (its id, or the beginning of it). Raises StoreError when the evidence cannot be
    kept: the journal stays, and the next start tries again. Raises DamagedStoreError for a journal
    without a header, after the others were settled.
    """
    found: list[Evidence] = []
    headless: list[Path] = []
    for path in list(journals.unfinished(equipment.state)):
        try:
            journal = RunJournal.take_over(path)
        except (LockedError, FileNotFoundError):
            continue
        done = False
        try:
            if not path.exists() or not path.stat().st_size:
                done = True  # killed before its first line was whole: nothing was begun
                continue
            written = journals.read(path)
            if not text(written.header, "id"):
                headless.append(path)
                continue
            named = bool(also) and path.stem.startswith(also)
            evidence, state = _settled(written, equipment, named=named)
            if evidence is not None:
                found.append(evidence)
                if state is CleanUpState.KEPT:
                    journal.write({"event": "facts", "what": {"kept": True}})
            done = state is CleanUpState.CLEAN
        finally:
            journal.close(done=done)
    if headless:
        raise DamagedStoreError(
            "the first line of an earlier drill's journal cannot be read, so it is not known what"
            " that drill left behind",
            where=f"{headless[0]}, line 1",
            remedy="look for what carries the tag muster-drill, remove it, then move this away",
        )
    return tuple(found)


def _settled(
    written: journals.Written, equipment: Equipment, *, named: bool
) -> tuple[Evidence | None, CleanUpState]:
    drill = _script(written.header)
    stays = written.header.get("keep") is True and drill.target in _ELSEWHERE
    if stays and not named:
        # A failover: the standby may be in service, and is not torn down because a drill begins.
        if written.facts.get("kept") is True:
            return None, CleanUpState.KEPT
        undone = kept(written.undo)
    else:
        equipment.tell(f"an earlier drill did not end ({written.path.stem}): cleaning up")
        undone = _swept(written, drill, equipment)
    if written.damaged:
        lines = ", ".join(str(number) for number in written.damaged)
        lost = (
            f"line {lines} of {written.path} cannot be read: what it wanted undone is not known;"
            " look there by hand, then move this file away"
        )
        undone = replace(undone, state=CleanUpState.LEFT, left=(*undone.left, lost))
    undone = replace(undone, kept=written.kept)
    return _interrupted(written, undone, equipment).evidence, undone.state


def sweep_expired(equipment: Equipment) -> CleanUp:
    """Delete groups of drills whose time is over and whom no journal here knows."""
    known = {path.stem for path in journals.unfinished(equipment.state)}
    groups = [group for group in expired(equipment) if group.drill not in known]
    for group in groups:
        equipment.tell(f"{group.path} outlived its drill ({group.drill}): cleaning up")
    return Sweeper(equipment).sweep([group.document() for group in groups])


_ELSEWHERE = (TargetKind.STANDBY, TargetKind.SAME)


def _swept(written: journals.Written, drill: Drill, equipment: Equipment) -> CleanUp:
    regions = equipment.cloud.regions
    primary = drill.scope.primary or equipment.primary
    forced = drill.forced and bool(primary) and primary not in regions.down
    if forced:
        regions.declare_down(primary, "its drill was forced")
    try:
        with equipment.busy(f"clean-up of drill {drill.name}", timedelta(hours=1)):
            return Sweeper(equipment).sweep(written.undo)
    finally:
        if forced:
            regions.up(primary)


def unsettled(equipment: Equipment) -> tuple[str, ...]:
    """Give the ids of runs that are not cleaned up yet, oldest first; some may still run."""
    return tuple(path.stem for path in journals.unfinished(equipment.state))


def _interrupted(written: journals.Written, undone: CleanUp, equipment: Equipment) -> Ran:
    header = written.header
    started = datetime.fromisoformat(text(header, "started_at"))
    drill = _script(header)
    mapping = written.facts.get("mapping")
    seed = header.get("seed")
    result = DrillResult(
        id=text(header, "id"),
        drill=drill,
        mode=Mode(text(header, "mode")),
        seed=seed if isinstance(seed, int) else 0,
        estate=text(header, "estate"),
        version=equipment.version,
        started_at=started,
        finished_at=equipment.clock.now(),
        verdict=Verdict.INTERRUPTED,
        snapshot=text(written.facts, "snapshot"),
        mapping=(
            Substitutions.from_document(mapping) if isinstance(mapping, dict) else Substitutions()
        ),
        target=drill.target.value,
        gate=tuple(_check_of(c) for c in written.gate),
        steps=tuple(_step_of(s) for s in written.steps),
        checks=tuple(_check_of(c) for c in written.checks),
        clean_up=undone,
        approvals=written.approvals,
    )
    return _judged(result, equipment, interrupted=True)


def _script(header: JsonObject) -> Drill:
    file = Path(text(header, "file"))
    try:
        given = header.get("parameters")
        known = given if isinstance(given, dict) else None
        return parse(text(header, "text").encode(), file, given=known)
    except InputError:  # another version of muster wrote it
        return Drill(
            name=text(header, "drill"),
            title=text(header, "drill"),
            about="",
            text=text(header, "text"),
            file=file,
            objective=Objective(),
            scope=DrillScope(),
            target=TargetKind.NONE,
            limit=0.0,
            blast_radius="",
            cost_ceiling=0.0,
            approvers=(),
            forced=False,
            keep=False,
            gate=(),
            steps=(),
            checks=(),
            clean_up=(),
        )


def _check_of(document: JsonObject) -> CheckOutcome:
    return CheckOutcome(
        name=text(document, "name"),
        subject=text(document, "subject"),
        state=CheckState(text(document, "state")),
        expected=document.get("expected"),
        observed=document.get("observed"),
        detail=text(document, "detail"),
        seconds=_seconds(document),
        negative_control=Control(text(document, "negative_control")),
        control_detail=text(document, "control_detail"),
    )


def _step_of(document: JsonObject) -> StepOutcome:
    inputs, phase = document.get("inputs"), text(document, "phase")
    started, calls = text(document, "started_at"), document.get("calls")
    inner = document.get("steps")
    return StepOutcome(
        name=text(document, "name"),
        kind=text(document, "kind"),
        state=DrillStepState(text(document, "state")),
        phase=Phase(phase) if phase else None,
        started_at=datetime.fromisoformat(started) if started else None,
        seconds=_seconds(document),
        calls=calls if isinstance(calls, int) else 0,
        inputs=inputs if isinstance(inputs, dict) else {},
        detail=text(document, "detail"),
        found=found if isinstance(found := document.get("found"), dict) else {},
        approver=text(document, "approver"),
        critical=document.get("critical") is True,
        steps=tuple(_step_of(i) for i in _dicts(inner)),
    )


def _dicts(value: Json) -> Sequence[JsonObject]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def _seconds(document: JsonObject) -> float:
    value = document.get("seconds")
    return float(value) if isinstance(value, int | float) else 0.0
