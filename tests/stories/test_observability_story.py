"""Metrics and the log of runs: what they say, that they are off unless asked for, and no secret."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)

from muster import metrics
from muster.runlog import RunLog
from snapshots.model import Json
from tests.muster_site_fixtures import Site
from tests.sandbox_fixtures import RunningSandbox

SECRET = "hunter2-hunter2-hunter2"


@dataclass(slots=True)
class Collector:
    """An OTLP collector on loopback: keeps what it is sent."""

    url: str
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)
    answer: int = 200

    def values(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """Give metric and attributes (less verb and estate) -> value."""
        found: dict[tuple[str, tuple[str, ...]], float] = {}
        for request in self.requests:
            for scope in (s for r in request.resource_metrics for s in r.scope_metrics):
                for metric in scope.metrics:
                    for point in metric.gauge.data_points:
                        of = {a.key: a.value.string_value for a in point.attributes}
                        assert of.pop("estate", "")
                        assert of.pop("verb", "")
                        key = (metric.name, tuple(f"{k}={v}" for k, v in sorted(of.items())))
                        found[key] = point.as_double
        return found


@pytest.fixture
def collector() -> Iterator[Collector]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.requests.append(ExportMetricsServiceRequest.FromString(body))
            self.send_response(made.answer)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()


def lines(file: Path) -> list[dict[str, Json]]:
    return [json.loads(line) for line in file.read_text().split("\n") if line]


# -------------------------------------------------------------------------------- in a story


def test_a_snapshot_tells_a_collector_and_a_log_what_it_printed(
    sandbox: RunningSandbox, new_site: Callable[..., Site], collector: Collector, tmp_path: Path
) -> None:
    site, log = new_site(sandbox), tmp_path / "runs.jsonl"
    wanted = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "MUSTER_LOG": str(log)}
    process = site.start("snapshot", "--format", "json", **wanted)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err.decode()
    told = json.loads(out)
    values = collector.values()
    assert values["muster.snapshot.resources", ()] == told["resources"]
    assert values["muster.snapshot.gaps", ()] == 0
    assert values["muster.snapshot.complete", ()] == 1
    assert values["muster.api.calls", ()] == told["calls"]
    taken = datetime.fromisoformat(told["taken_at"]).timestamp()
    assert values["muster.snapshot.taken", ()] == pytest.approx(taken)
    budgets = [v for (name, _), v in values.items() if name == "muster.budget.remaining"]
    assert budgets
    assert all(0 <= left <= 1 for left in budgets)
    started, result, ended = lines(log)
    assert [e["event"] for e in (started, result, ended)] == ["started", "result", "ended"]
    assert len({e["run"] for e in (started, result, ended)}) == 1
    assert (result["muster.snapshot.resources"], ended["exit_code"]) == (told["resources"], 0)
    assert SECRET not in log.read_text()


def test_a_collector_that_takes_nothing_is_a_warning_and_changes_no_exit_code(
    sandbox: RunningSandbox, new_site: Callable[..., Site], collector: Collector
) -> None:
    site = new_site(sandbox)
    collector.answer = 400
    process = site.start("snapshot", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0
    assert err.decode().count("metrics did not reach the collector") == 1
    assert "Traceback" not in err.decode()


def test_without_a_collector_or_a_log_nothing_is_sent_or_written(
    sandbox: RunningSandbox, new_site: Callable[..., Site], collector: Collector
) -> None:
    site = new_site(sandbox)
    site.run("snapshot")
    site.run("verify", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url, OTEL_SDK_DISABLED="true")
    assert not collector.requests
    site.run("verify", OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert collector.values()["muster.verify.damages", ()] == 0


def test_an_error_is_in_the_log_with_its_remedy_and_without_the_environments_secrets(
    new_site: Callable[..., Site], tmp_path: Path, sandbox: RunningSandbox
) -> None:
    site, log = new_site(sandbox), tmp_path / "runs.jsonl"
    asked = {"MUSTER_LOG": str(log), "AZURE_CLIENT_SECRET": SECRET}
    site.run("show", f"state-{SECRET}", expect=1, **asked)
    told = lines(log)
    (error,) = [line for line in told if line["event"] == "error"]
    assert (error["severity"], error["command"]) == ("ERROR", "show")
    assert error["what"]
    assert error["remedy"]
    assert told[-1]["exit_code"] == 1
    assert SECRET not in log.read_text()


def test_a_log_that_cannot_be_written_is_a_warning_and_stops_nothing(
    new_site: Callable[..., Site], tmp_path: Path, sandbox: RunningSandbox
) -> None:
    site = new_site(sandbox)
    process = site.start("doctor", MUSTER_LOG=str(tmp_path / "missing" / "runs.jsonl"))
    _, err = process.communicate(timeout=120)
    assert "was not written: no such file or directory" in err.decode()


# -------------------------------------------------------------------------------- the parts


@given(st.lists(st.text(st.characters(), max_size=40), max_size=5), st.text(max_size=20))
def test_every_line_is_one_json_object_whatever_the_texts(texts: list[str], event: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "log"
        log = RunLog(str(file), command="x")
        for text in texts:
            log.write(event.encode("utf-8", "replace").decode(), {"text": text, "list": [text]})
        assert len(lines(file) if texts else []) == len(texts)
        assert not log.trouble


def test_runs_at_the_same_time_do_not_mix_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "log"

    def many(number: int) -> None:
        log = RunLog(str(file), command=str(number))
        for _ in range(50):
            log.write("line", {"text": "x" * 500})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(many, range(8)))
    found = lines(file)
    assert len(found) == 400
    assert len({line["run"] for line in found}) == 8


AUDIT: dict[str, Json] = {
    "findings": [
        {"severity": "high", "class": "unplanned"},
        {"severity": "high", "class": "unplanned"},
        {"severity": "low", "class": "planned"},
    ],
    "gaps": [],
    "last_sweep": "2026-01-05T08:00:00+00:00",
    "calls": {"made": 9, "floor": 8, "throttled": 0},
}


def test_findings_are_counted_by_severity_and_class_and_none_is_a_zero() -> None:
    found = [m for m in metrics.measures("audit", AUDIT) if m.name == "muster.audit.findings"]
    assert {(m.of["severity"], m.of["class"]): m.value for m in found} == {
        ("high", "unplanned"): 2,
        ("low", "planned"): 1,
    }
    clean = {**AUDIT, "findings": []}
    none = [m for m in metrics.measures("audit", clean) if m.name == "muster.audit.findings"]
    assert [m.value for m in none] == [0]


@pytest.mark.parametrize(
    ("verb", "document", "name", "value"),
    [
        ("drill", {"verdict": "failed", "rto_seconds": 12.5}, "muster.drill.passed", 0),
        ("drill", {"verdict": "passed", "rto_seconds": 12.5}, "muster.drill.passed", 1),
        ("drill", {"verdict": "passed", "rto_seconds": 12.5}, "muster.drill.rto", 12.5),
        ("ready", {"verdict": "at risk", "counts": {"met": 3}}, "muster.ready.met", 0),
        ("ready", {"verdict": "met", "counts": {"met": 3}}, "muster.ready.objectives", 3),
        ("restore", {"remaining_changes": [1, 2]}, "muster.restore.remaining", 2),
        ("verify", {"damages": [1]}, "muster.verify.damages", 1),
    ],
)
def test_each_verb_is_measured_by_what_its_document_says(
    verb: str, document: Mapping[str, Json], name: str, value: float
) -> None:
    assert [m.value for m in metrics.measures(verb, document) if m.name == name] == [value]


def test_a_document_that_says_nothing_measures_nothing_and_every_metric_is_described() -> None:
    for verb in ("snapshot", "audit", "ready", "replicate", "verify", "drill", "restore", "none"):
        for measure in metrics.measures(verb, {"seconds": "no number", "pairs": [3], "gaps": None}):
            assert measure.name in metrics.DESCRIPTIONS
    assert all(text.endswith(".") for text in metrics.DESCRIPTIONS.values())
    assert not metrics.enabled({})
    assert metrics.enabled({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"})
    metrics.record("verify", {}, now=datetime.now(UTC), warn=pytest.fail)
