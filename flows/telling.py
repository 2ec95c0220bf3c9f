"""What a run tells Prefect: progress, artifacts, events, and the state it ends in.

Nothing here may fail a verb: a server that does not answer is told about in the log, and no more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from threading import Condition, Thread
from types import TracebackType
from typing import Any, Final, Self
from uuid import UUID

from httpx import HTTPError, HTTPStatusError
from prefect.artifacts import (
    Artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.events.schemas.events import Event as PrefectEvent
from prefect.events.schemas.events import RelatedResource, Resource
from prefect.logging import get_run_logger
from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run as this_run
from prefect.states import Completed, Failed

from flows.wired import VerbError, quiet_tracebacks
from muster import metrics
from muster.invocation import Exit
from snapshots.model import JsonObject, canonical

RESULT: Final = "muster-result"  # the type of the artifact that holds a verb's own JSON document
_LARGEST = 4_000_000  # bytes of a document that goes to Prefect whole
_EVERY = 5.0  # seconds between two lines of progress in the log
_REDRAW = 1.0  # seconds between two updates of the progress artifact
_PATIENCE = 5.0  # seconds that the end of a run waits for the last update


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the estate, for Prefect's automations."""

    name: str  # muster.drift.found
    severity: str = "info"  # info, low, medium, high, critical
    class_: str = ""  # of a finding: unplanned, planned-but-different, …
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """Where a report or evidence is."""

    key: str
    url: str
    text: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a verb came to, in every form that is told."""

    verb: str  # snapshot, audit, …: in the keys of its artifacts
    estate: str
    code: int  # the exit code of the command of that name
    words: str  # one line
    document: JsonObject  # what the command prints with --format json
    markdown: str
    rows: Sequence[Mapping[str, str | int | float]] = ()
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()


_NAMES: Final = {
    Exit.FINDINGS: "Findings",
    Exit.INCOMPLETE: "Incomplete",
    Exit.INTERRUPTED: "Interrupted",
}


def concluded(verb: str, work: Callable[[], Outcome]) -> State[JsonObject]:
    """Do the work of a flow, tell what came of it, and give the state it ends in.

    Completed for exit code 0; else Failed, called Findings (2), Incomplete (3), Interrupted (130)
    or Failed (1).
    """
    quiet_tracebacks()
    logger = get_run_logger()
    try:
        outcome = work()
    except VerbError as error:
        logger.error("%s", error)  # noqa: TRY400  what happened, where, what next: no traceback
        what = error.what
        send(Event(f"muster.{verb}.error", "high"), "", what)
        return Failed(message=str(error))
    tell(outcome)
    logger.info("%s", outcome.words)
    if outcome.code == Exit.CLEAN:
        return Completed(message=outcome.words, data=outcome.document)
    logger.warning("this run ends as the command would: with exit code %s", outcome.code)
    return Failed(name=_NAMES.get(Exit(outcome.code), "Failed"), message=outcome.words)


def tell(outcome: Outcome) -> None:
    """Make the artifacts of an outcome and send its events; a server that is away is no error."""
    metrics.record(
        outcome.verb,
        outcome.document,
        now=datetime.now(UTC),
        estate=outcome.estate,
        warn=get_run_logger().warning,
    )
    key = f"muster-{outcome.verb}"
    document: JsonObject = outcome.document
    size = len(canonical(document))
    if size > _LARGEST:
        document = {"schema": document.get("schema", ""), "too_large": size}
    _quietly("summary", lambda: create_markdown_artifact(outcome.markdown, key, outcome.words))
    result = Artifact(
        type=RESULT, key=f"{key}-result", description=outcome.words, data=dict(document)
    )
    _quietly("result", result.create)
    if outcome.rows:
        rows = [dict(row) for row in outcome.rows]
        _quietly("table", lambda: create_table_artifact(rows, f"{key}-table", outcome.words))
    for link in outcome.links:
        _quietly("link", partial(create_link_artifact, link.url, link.text, link.key))
    for event in outcome.events:
        send(event, outcome.estate, outcome.words)


def send(event: Event, estate: str, words: str) -> None:
    """Send one event about the estate; a server that is away is no error."""
    _quietly("event", partial(_emit, event, estate, words))


def has_told(flow_run: FlowRun, verb: str) -> bool:
    """Whether a run that was ended came to showing what it did."""
    ours = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]),
        key=ArtifactFilterKey(any_=[f"muster-{verb}-result"]),
    )
    with get_client(sync_client=True) as client:
        return bool(client.read_artifacts(artifact_filter=ours))


def say_after(flow_run: FlowRun, event: Event, estate: str, words: str) -> None:
    """Tell, from outside of a run that was ended, how it stands: in its log, and as an event."""
    logger = flow_run_logger(flow_run)
    logger.warning("%s", words)
    try:
        _emit(event, estate, words, run=str(flow_run.id))
    except HTTPError as error:
        logger.warning("the server has no event of this (%s)", _name(error))


def _emit(event: Event, estate: str, words: str, *, run: str = "") -> None:
    """Send an event and wait until the server has it: Prefect's own way forgets what it cannot."""
    name = estate or "unknown"
    run = run or str(this_run.id or "")
    related = [
        {"prefect.resource.id": f"prefect.flow-run.{run}", "prefect.resource.role": "flow-run"},
        {"prefect.resource.id": "prefect.tag.muster", "prefect.resource.role": "tag"},
    ]
    happened = PrefectEvent(
        event=event.name,
        resource=Resource(
            {
                "prefect.resource.id": f"muster.estate.{name}",
                "prefect.resource.name": name,
                "muster.severity": event.severity,
                "muster.class": event.class_ or "none",
            }
        ),
        related=[RelatedResource(one) for one in related] if run else [],
        payload={"words": words, **event.payload},
    )
    with get_client(sync_client=True) as client:
        client.request("POST", "/events", json=[happened.model_dump(mode="json")])


class _Patience:
    """How long a run waits, all in all, for a server that is away when it has something to tell."""

    def __init__(self, seconds: float) -> None:
        self.left = seconds

    def send(self, what: str, send: Callable[[], object]) -> None:
        """Send, and again while the server is away and there is patience left."""
        pause = 1.0
        while True:
            try:
                send()
            except HTTPError as error:
                refused = isinstance(error, HTTPStatusError) and error.response.status_code < 500
                if refused or self.left <= 0:
                    get_run_logger().warning(
                        "the server has no %s of this (%s)", what, _name(error)
                    )
                    return
                time.sleep(min(pause, self.left))
                self.left -= pause
                pause = min(pause * 2, 10.0)
            except Exception as error:  # noqa: BLE001  whatever Prefect raises: the verb is done
                get_run_logger().warning("Prefect did not take the %s (%s)", what, _name(error))
                return
            else:
                return


def _name(error: Exception) -> str:
    return type(error).__name__


_PATIENT: Final = _Patience(300.0)


def _quietly(what: str, send: Callable[[], object]) -> None:
    _PATIENT.send(what, send)


class Teller:
    """Hears how far a verb is: a line in the log now and then, and a progress artifact.

    The artifact is drawn by a thread of its own, so that a server which is away delays nothing.
    """

    def __init__(self, verb: str) -> None:
        self._key = f"muster-{verb}-progress"
        self._verb = verb
        self._logger = get_run_logger()
        self._last = time.monotonic() - _EVERY
        self._change = Condition()
        self._part: float | None = None
        self._drawn: float | None = None
        self._ended = False
        self._thread: Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._change:
            self._ended = True
            if error is None and self._part is not None:
                self._part = 1.0
            self._change.notify()
        if self._thread is not None:
            self._thread.join(_PATIENCE)

    def __call__(self, words: str, part: float | None = None) -> None:
        """Hear it; may be called by several threads."""
        with self._change:
            now = time.monotonic()
            said = now - self._last >= _EVERY
            if said:
                self._last = now
            if part is not None:
                self._part = min(max(part, 0.0), 1.0)
                if self._thread is None:
                    self._thread = Thread(target=self._draw, name="progress", daemon=True)
                    self._thread.start()
                self._change.notify()
        if said:
            self._logger.info("%s", words)

    def say(self, words: str) -> None:
        """Write a line into the log, whenever the last one was."""
        self._logger.info("%s", words)

    def _draw(self) -> None:
        artifact: UUID | None = None
        ended = False
        while not ended:
            with self._change:
                self._change.wait_for(lambda: self._ended or self._part != self._drawn)
                part, ended = self._part, self._ended
            if part is None or part == self._drawn:
                continue
            self._drawn = part
            try:
                if artifact is None:
                    about = f"How far the {self._verb} is"
                    made = create_progress_artifact(round(part * 100, 1), self._key, about)
                    artifact = made if isinstance(made, UUID) else None
                else:
                    update_progress_artifact(artifact, round(part * 100, 1))
            except Exception:  # noqa: BLE001  progress is a courtesy
                artifact = None
            with self._change:
                self._change.wait_for(lambda: self._ended, _REDRAW)
