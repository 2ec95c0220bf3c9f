"""What a verb came to, as OpenTelemetry metrics; off unless an exporter is configured.

Metrics are read off the same JSON documents that the verbs print, so both say the same. They leave
over OTLP (HTTP, protobuf) when OTEL_EXPORTER_OTLP_ENDPOINT, or the one for metrics, names a
collector, and OTEL_SDK_DISABLED is not true: the variables of OpenTelemetry's own specification.
Nothing here may fail or delay a verb by more than `PATIENCE`.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from muster import __version__
from snapshots.model import Json

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricExporter

PATIENCE: Final = 5.0  # seconds that the end of a verb waits for the collector
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


@dataclass(frozen=True, slots=True)
class Measure:
    """One number: name, value, unit (UCUM) and what it is of."""

    name: str
    value: float
    unit: str = "1"
    of: Mapping[str, str] = field(default_factory=dict)


# What each metric is, for the collector and for docs/metrics.md.
DESCRIPTIONS: Final[Mapping[str, str]] = {
    "muster.verb.finished": "When a verb last came to an end, as seconds since 1970.",
    "muster.snapshot.taken": "When the newest snapshot was taken, as seconds since 1970.",
    "muster.snapshot.complete": "Whether the newest snapshot has no gap (1) or some (0).",
    "muster.snapshot.resources": "Resources in the newest snapshot.",
    "muster.snapshot.gaps": "What the newest snapshot could not read.",
    "muster.snapshot.duration": "How long the newest snapshot took.",
    "muster.api.calls": "Requests that a verb sent to Azure.",
    "muster.api.floor": "Requests that would have been enough.",
    "muster.api.throttled": "Answers 429 that a verb got.",
    "muster.budget.remaining": "What is left of a token bucket, of 1.",
    "muster.audit.findings": "Open findings of the newest audit, by severity and class.",
    "muster.audit.gaps": "What the newest audit could not read.",
    "muster.audit.sweep": "When every account was last read, as seconds since 1970.",
    "muster.ready.objectives": "Checks of readiness by their state.",
    "muster.ready.met": "Whether the objectives would be met now (1) or not (0).",
    "muster.replication.lag": "How far a model in the standby is behind its source.",
    "muster.replication.complete": "Whether the standby is in step (1) or not (0).",
    "muster.verify.damages": "Damages that the newest verification found.",
    "muster.drill.passed": "Whether the newest drill passed (1) or not (0).",
    "muster.drill.rto": "Recovery time of the newest drill.",
    "muster.drill.rpo": "Age of what the newest drill recovered.",
    "muster.restore.remaining": "Changes left after the newest restore.",
}


def enabled(variables: Mapping[str, str] | None = None) -> bool:
    """Whether the environment names a collector."""
    found = os.environ if variables is None else variables
    if found.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return any(found.get(name, "").strip() for name in _ENDPOINTS)


def measures(verb: str, document: Mapping[str, Json]) -> tuple[Measure, ...]:
    """Read the metrics off the JSON document of a verb; none when it says nothing to measure."""
    read = _READERS.get(verb)
    return tuple(read(document)) if read is not None else ()


def record(
    verb: str,
    document: Mapping[str, Json],
    *,
    now: datetime,
    estate: str = "",
    budget: Mapping[str, float] | None = None,
    exporter: MetricExporter | None = None,
    warn: Callable[[str], None] | None = None,
) -> None:
    """Send the metrics of a verb that ended; without a collector, do nothing.

    `budget` is what is left of each bucket, 0 to 1, by its name. A collector that does not take
    them is a warning.
    """
    if exporter is None and not enabled():
        return
    found = [*measures(verb, document), Measure("muster.verb.finished", now.timestamp(), "s")]
    found += [
        Measure("muster.budget.remaining", left, "1", {"bucket": name})
        for name, left in (budget or {}).items()
    ]
    named = estate or _text(document.get("estate"))
    common = {"verb": verb, **({"estate": named} if named else {})}
    if not _send(found, common, exporter) and warn is not None:
        warn("the metrics did not reach the collector (OTEL_EXPORTER_OTLP_ENDPOINT)")


def _send(found: list[Measure], common: Mapping[str, str], exporter: MetricExporter | None) -> bool:
    # Imported here: a verb without a collector pays nothing for it.
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricExportResult
    from opentelemetry.sdk.resources import Resource

    # The exporter tells its troubles, and the address with them, to a logger; ours is one line.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    reader = InMemoryMetricReader()
    described = Resource.create({"service.name": "muster", "service.version": __version__})
    provider = MeterProvider([reader], described, shutdown_on_exit=False)
    meter = provider.get_meter("muster", __version__)
    for name in sorted({measure.name for measure in found}):
        same = [measure for measure in found if measure.name == name]
        gauge = meter.create_gauge(name, same[0].unit, DESCRIPTIONS[name])
        for measure in same:
            gauge.set(measure.value, {**common, **measure.of})
    try:
        collected = reader.get_metrics_data()
        sender = exporter if exporter is not None else OTLPMetricExporter(timeout=PATIENCE)
        taken = collected is None or sender.export(collected) is MetricExportResult.SUCCESS
        sender.shutdown()
        provider.shutdown()
    except Exception:  # noqa: BLE001  whatever an exporter raises: the verb is done
        return False
    return taken


# ---- reading documents ----------------------------------------------------------------------


def _snapshot(document: Mapping[str, Json]) -> Iterator[Measure]:
    gaps = len(_list(document.get("gaps")))
    yield from _moment("muster.snapshot.taken", document.get("taken_at"))
    yield from _number("muster.snapshot.resources", document.get("resources"))
    yield Measure("muster.snapshot.gaps", gaps)
    yield Measure("muster.snapshot.complete", float(not gaps))
    yield from _number("muster.snapshot.duration", document.get("seconds"), "s")
    yield from _number("muster.api.calls", document.get("calls"))
    yield from _number("muster.api.floor", document.get("calls_floor"))
    yield from _number("muster.api.throttled", document.get("throttled"))


def _audit(document: Mapping[str, Json]) -> Iterator[Measure]:
    counts = Counter(
        (_text(finding.get("severity")), _text(finding.get("class")))
        for finding in _objects(document.get("findings"))
    )
    for (severity, class_), number in sorted(counts.items()):
        of = {"severity": severity, "class": class_}
        yield Measure("muster.audit.findings", number, of=of)
    if not counts:  # so that what was there before goes down to nothing
        yield Measure("muster.audit.findings", 0, of={"severity": "none", "class": "none"})
    yield Measure("muster.audit.gaps", len(_list(document.get("gaps"))))
    yield from _moment("muster.audit.sweep", document.get("last_sweep"))
    calls = document.get("calls")
    if isinstance(calls, dict):
        yield from _number("muster.api.calls", calls.get("made"))
        yield from _number("muster.api.floor", calls.get("floor"))
        yield from _number("muster.api.throttled", calls.get("throttled"))


def _ready(document: Mapping[str, Json]) -> Iterator[Measure]:
    yield Measure("muster.ready.met", float(document.get("verdict") == "met"))
    counts = document.get("counts")
    for state, number in counts.items() if isinstance(counts, dict) else ():
        yield from _number("muster.ready.objectives", number, of={"state": state})


def _replicate(document: Mapping[str, Json]) -> Iterator[Measure]:
    for pair in _objects(document.get("pairs")):
        of = {"pair": f"{_text(pair.get('primary'))}:{_text(pair.get('standby'))}"}
        yield Measure("muster.replication.complete", float(pair.get("complete") is True), of=of)
        for model in _objects(pair.get("models")):
            named = {**of, "model": _text(model.get("name")) or _text(model.get("model"))}
            yield from _number("muster.replication.lag", model.get("lag_seconds"), "s", named)


def _verify(document: Mapping[str, Json]) -> Iterator[Measure]:
    yield Measure("muster.verify.damages", len(_list(document.get("damages"))))


def _drill(document: Mapping[str, Json]) -> Iterator[Measure]:
    of = {"drill": _text(document.get("drill")), "mode": _text(document.get("mode"))}
    if "verdict" in document:
        yield Measure("muster.drill.passed", float(document.get("verdict") == "passed"), of=of)
    yield from _number("muster.drill.rto", document.get("rto_seconds"), "s", of)
    yield from _number("muster.drill.rpo", document.get("rpo_seconds"), "s", of)


def _restore(document: Mapping[str, Json]) -> Iterator[Measure]:
    yield Measure("muster.restore.remaining", len(_list(document.get("remaining_changes"))))
    yield from _number("muster.api.calls", document.get("calls"))


_READERS: Final[Mapping[str, Callable[[Mapping[str, Json]], Iterator[Measure]]]] = {
    "snapshot": _snapshot,
    "audit": _audit,
    "ready": _ready,
    "replicate": _replicate,
    "verify": _verify,
    "drill": _drill,
    "restore": _restore,
}


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _list(value: Json) -> list[Json]:
    return value if isinstance(value, list) else []


def _objects(value: Json) -> list[dict[str, Json]]:
    return [item for item in _list(value) if isinstance(item, dict)]


def _number(
    name: str, value: Json, unit: str = "1", of: Mapping[str, str] | None = None
) -> Iterator[Measure]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield Measure(name, float(value), unit, of or {})


def _moment(name: str, value: Json) -> Iterator[Measure]:
    try:
        moment = datetime.fromisoformat(_text(value))
    except ValueError:
        return
    if moment.tzinfo is not None:
        yield Measure(name, moment.timestamp(), "s")
