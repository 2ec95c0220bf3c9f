"""Do what a plan says: each step written down before it leaves, resumable, and undone on request.

Steps run beside each other where their needs and serial groups allow it. A step that fails blocks
those that need it and no other. To stop is safe: steps in hand are seen through, and the record
says what is done, what is not, and how to go on.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Protocol, assert_never

import orjson

from snapshots.clock import Clock
from snapshots.cloud.place import OperationProgress
from snapshots.cloud.scrub import scrub
from snapshots.errors import MissingError, MusterError, RefusedError
from snapshots.kinds import BY_NAME
from snapshots.model import Json, Key, Resource
from snapshots.records import Journal
from snapshots.secrets import Fingerprints
from snapshots.steps import (
    Action,
    IdMap,
    Outcome,
    Plan,
    Record,
    Step,
    StepState,
    Work,
)
from snapshots.unchanged import Looker, Seen
from snapshots.writing import Cloud, Payloads, StoppedError, Writer, Written

THREADS = 16
_SHORTEST = 6  # letters of a secret that is looked for in what is told
_FINISHED = frozenset({StepState.DONE, StepState.ADOPTED})


@dataclass(frozen=True, slots=True)
class Happened:
    """What a restore tells while it runs."""

    step: Step
    state: StepState
    done: int
    total: int
    detail: str = ""


Tell = Callable[[Happened], None]
Secret = Callable[[str], str]


class Models(Protocol):
    """Who does the steps of a plan that are for fine-tuned models: replication does."""

    def begun(self, record: Record) -> None:
        """Hear that a record was begun, before its first step."""
        ...

    def do(self, step: Step, *, again: bool, stop: Event) -> Written:
        """Do one. `again`: an earlier run began it. Gives up its waiting when `stop` is set."""
        ...

    def undo(self, step: Step) -> Written:
        """Take one back, as far as Azure lets it."""
        ...

    def ended(self, record: Record, remaining: int) -> None:
        """Hear how it ended, or that it was taken back."""
        ...


def no_secret(reference: str) -> str:
    """Answer no question: for who has no references."""
    raise RefusedError(
        f"there is nobody to ask for {reference}", remedy="name it under [restore.secrets]"
    )


def apply(
    cloud: Cloud,
    journal: Journal,
    *,
    payloads: Payloads,
    fingerprints: Fingerprints,
    clock: Clock,
    secret: Secret = no_secret,
    threads: int = THREADS,
    stop: Event | None = None,
    tell: Tell | None = None,
    models: Models | None = None,
) -> Record:
    """Do the steps of the journal's plan that are not done yet; give the record as it stands.

    A step that an earlier run began and did not see the end of is looked for first: what it made is
    adopted, a long operation is watched on, and only then it is repeated. What a write would
    overwrite or delete is read again right before it: where somebody changed it since the plan was
    made, it is left alone and the step fails. Failures become outcomes.
    `secret` gives a secret by its reference, and raises MusterError when it cannot. Raises nothing
    for what the cloud does.
    """
    return _Applying(
        cloud,
        journal,
        payloads,
        fingerprints,
        clock,
        secret,
        threads,
        stop or Event(),
        tell,
        models,
    ).run()


def undo(
    cloud: Cloud,
    journal: Journal,
    *,
    payloads: Payloads,
    fingerprints: Fingerprints,
    clock: Clock,
    secret: Secret = no_secret,
    threads: int = THREADS,
    stop: Event | None = None,
    tell: Tell | None = None,
    models: Models | None = None,
    overwrite: Callable[[Step], bool] = lambda _step: False,
) -> Record:
    """Take back what the journal's steps did, last first; give the record as it stands.

    What was made is deleted (an account purged, so that its name is free as before), what was
    changed is written back, what was deleted is made again. A step that was begun and whose end
    nobody knows is taken back too. What somebody changed since is left alone, and its step fails,
    unless `overwrite` says of the step that this change shall be lost as well.
    """
    return _Applying(
        cloud,
        journal,
        payloads,
        fingerprints,
        clock,
        secret,
        threads,
        stop or Event(),
        tell,
        models,
        backwards=True,
        overwrite=overwrite,
    ).run()


def to_undo(record: Record) -> tuple[Step, ...]:
    """Give the steps that an undo takes back, in the order in which it does."""
    touched = {StepState.DONE, StepState.ADOPTED, StepState.BEGUN, StepState.FAILED}
    begun = {o.step for o in record.outcomes if o.state is StepState.BEGUN}
    found = [
        step for step in record.plan.steps if record.state(step.id) in touched and step.id in begun
    ]
    return tuple(reversed(found))


def left_behind(step: Step) -> str:
    """Say what taking a step back leaves behind, by Azure's rules; "" where it leaves nothing."""
    if step.work is not None:
        if step.work.work is not Work.BRING:
            return ""
        if step.work.way == "checkpoint":
            return (
                "the copied checkpoint stays in the standby account, unused and not deployed: "
                "Azure has no call to delete it"
            )
        return "the training job stays as history" if step.work.way == "retrain" else ""
    if step.action is Action.REBUILD:
        return "the training job stays as history"
    if step.undo is Action.DELETE and BY_NAME[step.key.kind].off:
        return "it is switched off: Azure has no call to delete it"
    return ""


@dataclass(slots=True)
class _Applying:
    """One run over a plan. Outcomes are written by the threads; all else is the caller's thread."""

    cloud: Cloud
    journal: Journal
    payloads: Payloads
    fingerprints: Fingerprints
    clock: Clock
    secret: Secret
    threads: int
    stop: Event
    tell: Tell | None
    models: Models | None
    backwards: bool = False
    overwrite: Callable[[Step], bool] = lambda _step: False
    steps: dict[str, Step] = field(default_factory=dict)
    waiting: dict[str, set[str]] = field(default_factory=dict)
    after: dict[str, list[str]] = field(default_factory=dict)
    states: dict[str, StepState] = field(default_factory=dict)
    last: dict[str, Outcome] = field(default_factory=dict)
    begun: set[str] = field(default_factory=set)  # in an earlier run
    finished: int = 0
    lock: Lock = field(default_factory=Lock)
    answered: set[str] = field(default_factory=set)  # secrets: nothing may quote them
    made: set[Key] = field(default_factory=set)  # in this run: nobody else can be in there yet
    writer: Writer = field(init=False)
    looker: Looker = field(init=False)

    def __post_init__(self) -> None:
        record = self.journal.record
        for outcome in record.outcomes:
            self.last[outcome.step] = outcome
            self.states[outcome.step] = outcome.state
            if outcome.state is StepState.BEGUN:
                self.begun.add(outcome.step)
        self.writer = Writer(
            self.cloud,
            self.payloads,
            self.clock,
            lambda: self.journal.record.ids,
            _regions(record.plan),
            self._operation,
            self.stop.is_set,
        )
        self.looker = Looker(self.cloud, self.writer, self.fingerprints)

    def run(self) -> Record:
        record = self.journal.record
        todo: Iterable[Step]
        if self.backwards:
            todo = to_undo(record)
            ids = {step.id for step in todo}
            needs: dict[str, set[str]] = {step.id: set() for step in todo}
            for step in todo:
                for need in step.needs:
                    if need in ids:
                        needs[need].add(step.id)
        else:
            todo = [s for s in record.plan.steps if self.states.get(s.id) not in _FINISHED]
            ids = {step.id for step in todo}
            needs = {step.id: {n for n in step.needs if n in ids} for step in todo}
        self.steps = {step.id: step for step in todo}
        self.waiting = needs
        for id_, some in needs.items():
            for need in some:
                self.after.setdefault(need, []).append(id_)
        self._work()
        return self.journal.record

    # ---- the work -------------------------------------------------------------------------

    def _work(self) -> None:
        places = {id_: number for number, id_ in enumerate(self.steps)}
        ready = [(places[id_], id_) for id_, some in self.waiting.items() if not some]
        heapq.heapify(ready)
        held: dict[str, list[tuple[int, str]]] = {}  # serial group -> steps that wait for it
        busy: set[str] = set()
        running = 0
        finished: SimpleQueue[tuple[str, Future[bool]]] = SimpleQueue()
        pool = ThreadPoolExecutor(max(1, self.threads), thread_name_prefix="apply")

        def start(id_: str) -> None:
            nonlocal running
            running += 1
            future = pool.submit(self._one, self.steps[id_])
            future.add_done_callback(lambda done: finished.put((id_, done)))

        try:
            while ready or running:
                while ready and running < self.threads and not self.stop.is_set():
                    place, id_ = heapq.heappop(ready)
                    group = self.steps[id_].serial
                    if group and group in busy:
                        heapq.heappush(held.setdefault(group, []), (place, id_))
                        continue
                    if group:
                        busy.add(group)
                    start(id_)
                if not running:
                    break
                try:
                    # A wait with an end lets a signal be heard.
                    id_, future = finished.get(timeout=0.5)
                except Empty:
                    continue
                running -= 1
                group = self.steps[id_].serial
                if group:
                    busy.discard(group)
                    if held.get(group):
                        heapq.heappush(ready, heapq.heappop(held[group]))
                if future.result():
                    for next_ in self.after.get(id_, ()):
                        self.waiting[next_].discard(id_)
                        if not self.waiting[next_]:
                            heapq.heappush(ready, (places[next_], next_))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if not self.stop.is_set():
            self._block_the_rest()

    def _block_the_rest(self) -> None:
        """Steps that never became ready: something that they need failed."""
        for id_, needs in self.waiting.items():
            if not needs or self.backwards:
                continue
            step = self.steps[id_]
            # The first cause, not the neighbour that was blocked as well.
            why = sorted(n for n in self._causes(id_))
            names = ", ".join(str(self.steps[n].key) for n in why[:3])
            self._note(
                step,
                StepState.BLOCKED,
                error=f"it needs what is not there: {names}",
                remedy="repair the cause and resume the record",
            )

    def _causes(self, id_: str) -> set[str]:
        found: set[str] = set()
        seen: set[str] = set()
        at = list(self.waiting[id_])
        while at:
            need = at.pop()
            if need in seen:
                continue
            seen.add(need)
            if self.waiting.get(need):
                at.extend(self.waiting[need])
            else:
                found.add(need)
        return found

    def _one(self, step: Step) -> bool:
        """Do one step; whether what needs it may go on."""
        begun = self.clock.now()
        try:
            written = self._undo(step) if self.backwards else self._do(step)
        except StoppedError:
            return False  # it stays begun: `resume` finds what Azure made of it
        except MusterError as error:
            seconds = (self.clock.now() - begun).total_seconds()
            blocked = isinstance(error, _NoAnswerError)
            self._note(
                step,
                StepState.BLOCKED if blocked else StepState.FAILED,
                seconds=seconds,
                error=self._scrubbed(" ".join(error.what.split()))[:500],
                remedy=self._scrubbed(error.remedy)[:300],
            )
            return False
        seconds = (self.clock.now() - begun).total_seconds()
        state = StepState.ADOPTED if written.adopted else StepState.DONE
        self._note(
            step,
            StepState.UNDONE if self.backwards else state,
            seconds=seconds,
            written=written,
        )
        return True

    def _note(
        self,
        step: Step,
        state: StepState,
        *,
        seconds: float = 0.0,
        written: Written | None = None,
        operation: str = "",
        error: str = "",
        remedy: str = "",
    ) -> None:
        outcome = Outcome(
            step=step.id,
            state=state,
            at=self.clock.now(),
            seconds=seconds,
            id=written.id if written is not None else "",
            principal=written.principal if written is not None else "",
            operation=operation,
            error=error,
            remedy=remedy,
            note=left_behind(step) if state is StepState.UNDONE else "",
        )
        self.journal.note(outcome, key=step.key, old=step.old_id)
        with self.lock:
            self.states[step.id] = state
            if state is not StepState.BEGUN:
                self.finished += 1
            if state is StepState.DONE and step.action in {Action.CREATE, Action.COPY}:
                self.made.add(step.key)
            done = self.finished
        if self.tell is not None:
            self.tell(Happened(step, state, done, len(self.steps), error))

    def _operation(self, key: Key, progress: OperationProgress) -> None:
        if self.tell is None:
            return
        step = next((s for s in self.steps.values() if s.key == key), None)
        if step is not None:
            percent = f" {progress.percent:.0f} %" if progress.percent is not None else ""
            detail = f"{progress.status}{percent}, {progress.elapsed:.0f} s"
            with self.lock:
                done = self.finished
            self.tell(Happened(step, StepState.BEGUN, done, len(self.steps), detail))

    # ---- one step -------------------------------------------------------------------------

    def _begin(self, step: Step, operation: str = "") -> None:
        """Write ahead: what is announced here may be done when nobody can say so any more."""
        self._note(step, StepState.BEGUN, operation=operation)

    def _do(self, step: Step) -> Written:
        secrets = self._answers(step)
        unsure = step.id in self.begun
        earlier = self.last.get(step.id)
        if unsure and earlier is not None and earlier.operation and step.after is not None:
            found = self._watched(step.after, earlier.operation)
            if found is not None:
                return found
        seen = self._seen(step, unsure=unsure)
        if seen.done:
            id_ = self._id_now(step) if step.after is not None else ""
            return Written(id_, seen.principal, adopted=True)
        self._begin(step)

        def started(url: str) -> None:
            self._begin(step, url)

        if step.work is not None:
            return self._models(step).do(step, again=unsure, stop=self.stop)
        match step.action:
            case Action.CREATE | Action.COPY | Action.UPDATE:
                assert step.after is not None
                return self.writer.write(
                    step.after,
                    before=self._there(step),
                    secrets=secrets,
                    begun=unsure,
                    on_started=started,
                )
            case Action.DELETE:
                assert step.before is not None
                self.writer.delete(step.before, self._id_there(step), on_started=started)
                return Written()
            case Action.SWITCH:
                assert step.after is not None
                try:
                    return self.writer.undelete(step.after, started)
                except MissingError:
                    if not unsure:
                        raise
                    # It was taken back by the run that was cut: there is nothing left to take.
                    return Written(step.after.id, adopted=True)
            case Action.REBUILD:
                assert step.after is not None
                return self.writer.rebuild(step.after)
            case _:
                assert_never(step.action)

    def _seen(self, step: Step, *, unsure: bool) -> Seen:
        """Look whether the target is still what the plan saw. Raises RefusedError."""
        if step.work is not None:
            return Seen()  # replication looks itself
        with self.lock:
            fresh = any(step.key.path[: len(k.path)] == k.path for k in self.made if k != step.key)
        if fresh and step.action in {Action.CREATE, Action.COPY}:
            return Seen()
        record = self.journal.record
        return self.looker.before(step, was=record.planned_ids, ids=record.ids, unsure=unsure)

    def _id_now(self, step: Step) -> str:
        """The id of what a step found as wanted already."""
        assert step.after is not None
        known = self.journal.record.ids.ids.get(step.key)
        if known is not None:
            return known
        return step.before.id if step.before is not None else step.after.id

    def _models(self, step: Step) -> Models:
        if self.models is None:
            raise RefusedError(
                "this step is for a fine-tuned model, and nobody is there who does it",
                where=str(step.key),
                remedy="name the pair of this record in muster.toml ([[estate.pair]])",
            )
        return self.models

    def _watched(self, resource: Resource, operation: str) -> Written | None:
        """See through what an earlier run started; None when it must be done again."""
        try:
            return self.writer.resumed(resource, operation)
        except MusterError:  # expired, failed or never there: the write itself tells
            return None

    def _there(self, step: Step) -> Resource | None:
        """What is there now, with the id that it has in the target."""
        if step.before is None or step.action is not Action.UPDATE:
            return None
        id_ = self.journal.record.ids.ids.get(step.key, step.before.id)
        return replace(step.before, id=id_)

    def _id_there(self, step: Step) -> str:
        assert step.before is not None
        return step.before.id

    def _answers(self, step: Step) -> dict[str, Json]:
        """Ask for the secrets that the step needs. Raises when one has no answer."""
        found: dict[str, Json] = {}
        for question in step.questions:
            if not question.answer:
                raise _NoAnswerError(
                    f"it needs {question.what}",
                    where=str(step.key),
                    remedy=f'name it in muster.toml: [restore.secrets] "{step.key}" = "env:NAME"',
                )
            value = self._asked(question.answer)
            assert step.after is not None
            found[question.path] = _shaped(step.after, question.path, value)
        return found

    def _asked(self, reference: str) -> str:
        value = self.secret(reference)
        with self.lock:
            self.answered.add(value)
            if value.lstrip().startswith("{"):
                self.answered.update(re.findall(r'"([^"]{6,})"', value))
        return value

    def _scrubbed(self, text: str) -> str:
        with self.lock:
            known = sorted(self.answered, key=len, reverse=True)
        for value in known:
            if len(value) >= _SHORTEST:
                text = text.replace(value, "[secret]")
        return scrub(text)

    # ---- the way back ---------------------------------------------------------------------

    def _undo(self, step: Step) -> Written:
        made = self._made(step)
        if step.work is None and not self.overwrite(step):
            sure = self.states.get(step.id) is StepState.DONE
            seen = self.looker.since(step, made, self.journal.record.ids, sure=sure)
            if seen.done:
                return Written(made)
        self._note(step, StepState.BEGUN)
        if step.work is not None:
            return self._models(step).undo(step)
        match step.action:
            case Action.CREATE | Action.COPY:
                assert step.after is not None
                self._remove(step, step.after, made)
                return Written()
            case Action.SWITCH:
                assert step.after is not None
                self.writer.delete(step.after, made)
                return Written()
            case Action.UPDATE:
                assert step.before is not None
                assert step.after is not None
                before = replace(step.before, id=made or step.before.id)
                now = replace(step.after, id=made or step.before.id)
                return self.writer.write(before, before=now, secrets=self._kept(step, before))
            case Action.DELETE:
                assert step.before is not None
                return self.writer.write(
                    step.before, before=None, secrets=self._kept(step, step.before), begun=True
                )
            case Action.REBUILD:
                assert step.after is not None
                self.writer.unbuild(step.after, made)
                return Written()
            case _:
                assert_never(step.action)

    def _made(self, step: Step) -> str:
        """The id that a step's resource has in the target."""
        done = [o.id for o in self.journal.record.outcomes if o.step == step.id and o.id]
        return done[-1] if done else self.journal.record.ids.ids.get(step.key, "")

    def _remove(self, step: Step, resource: Resource, made: str) -> None:
        kind = resource.key.kind
        if kind == "resource-group" and not self._empty(resource):
            raise RefusedError(
                "the group is not empty: it holds what this record did not make",
                where=str(resource.key),
                remedy="look at what is in it, and delete it by hand",
            )
        if kind == "account" and not self.overwrite(step):
            inside = self.writer.held_by(resource)
            if inside:
                raise RefusedError(
                    f"the account holds what this record did not make: {', '.join(inside[:3])}",
                    where=str(resource.key),
                    remedy="look at it; to delete the account with it: undo with --overwrite",
                )
        if BY_NAME[kind].random_id and not made:
            made = self.writer.lost(resource)
            if not made:
                return  # the create never left
        self.writer.delete(resource, made or resource.id)
        if kind == "account":
            where = resource.body.get("location")
            self.writer.purge(resource, str(where))

    def _empty(self, group: Resource) -> bool:
        try:
            return self.writer.group_is_empty(group)
        except MissingError:
            return True

    def _kept(self, step: Step, resource: Resource) -> dict[str, Json]:
        """Secrets of what is written back: asked for by the same references."""
        return {
            q.path: _shaped(resource, q.path, self._asked(q.answer))
            for q in step.questions
            if q.answer
        }


class _NoAnswerError(RefusedError):
    """A question without an answer: blocks its step and no other."""


def _shaped(resource: Resource, path: str, value: str) -> Json:
    """Give a secret the form that its place has: credentials are an object by their authType."""
    if not path.endswith("/credentials"):
        return value
    stripped = value.strip()
    if stripped.startswith("{"):
        try:
            found = orjson.loads(stripped)
        except orjson.JSONDecodeError:
            found = None
        if isinstance(found, dict):
            return found
    properties = resource.body.get("properties")
    auth = str(properties.get("authType") or "") if isinstance(properties, dict) else ""
    match auth:
        case "SAS":
            return {"sas": value}
        case "PAT":
            return {"pat": value}
        case "CustomKeys":
            return {"keys": {"key": value}}
        case _:
            return {"key": value}


def _regions(plan: Plan) -> Callable[[Key], str]:
    """Where accounts are, as the steps say."""
    found: dict[tuple[str, ...], str] = {}
    for step in plan.steps:
        if len(step.key.path) >= 3 and step.region:
            found[step.key.path[:3]] = step.region
    return lambda key: found.get(key.path[:3], "")


def counts(record: Record) -> Mapping[StepState, int]:
    """Count the steps by where they stand."""
    found: dict[StepState, int] = {}
    for step in record.plan.steps:
        state = record.state(step.id)
        found[state] = found.get(state, 0) + 1
    return found


def ids_of(resources: Mapping[Key, Resource]) -> IdMap:
    """Give the ids and principals that a target has now, as it was taken (not logical)."""
    from snapshots.kinds.links import principal_of

    ids = {key: resource.id for key, resource in resources.items()}
    principals = {
        key: principal
        for key, resource in resources.items()
        if (principal := principal_of(resource)) is not None
    }
    return IdMap(ids, principals)
