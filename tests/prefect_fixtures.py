"""Fixtures for a real Prefect: a server, a process worker, every deployment, and a sandbox."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Thread
from typing import Any, TypeVar

import pytest
import requests
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

from drills.evidence import EvidenceBook
from flows.local_stack import Stack, down, up
from muster.cli import main
from muster.demo import Azure, tamper
from muster.prefect_api import Run, Server, document_of, markdown_of
from muster.settings import write_private
from snapshots.errors import UnreachableError
from snapshots.ledger import EVIDENCE, Ledger

ROOT = Path(__file__).parent.parent
_T = TypeVar("_T")
_SOON = 10.0  # seconds until a hurried schedule comes: time for the scheduler to see it
PATIENCE = 240.0  # seconds for anything; a machine that is shared may be slow
# What a server and a worker do every minute or so, they do at once.
QUICK = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "3",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_RUNS": "1",
    "PREFECT_SERVER_SERVICES_SCHEDULER_MAX_RUNS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
    "PREFECT_WORKER_PREFETCH_SECONDS": "1",
    # What nobody here looks at.
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": "false",
    # Measuring Prefect's own server and workers would take most of the time and tell nothing.
    "COVERAGE_PROCESS_CONFIG": "",
    "COVERAGE_PROCESS_START": "",
    "MUSTER_STORAGE_KEY": "canary-of-the-workers-environment",
}
CANARY = QUICK["MUSTER_STORAGE_KEY"]
_GROUPS = "api-version=2021-04-01"
# Python reads this as it starts: every process of the stack tells whom it looks up or connects to.
WATCH = """\
import os, sys

def _heard(event, arguments):
    if event == "socket.getaddrinfo":
        whom = arguments[0]
    elif event == "socket.connect" and isinstance(arguments[1], tuple):
        whom = arguments[1][0]
    else:
        return
    whom = whom.decode() if isinstance(whom, bytes) else str(whom)
    if whom not in {"None", "", "localhost", "127.0.0.1", "::1", "0.0.0.0"}:
        line = f"{whom} by {' '.join(sys.orig_argv[1:5])}\\n".encode()
        file = os.open(os.environ["HEARD"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(file, line)
        os.close(file)

sys.addaudithook(_heard)
"""
SLOW_DRILL = """\
title: An account that is looked at for a while
about: An account is made in a group of the drill's own, and time passes.
objective: {rto: 30m}
target: isolated
limit: 30m
blast_radius: one resource group of the drill's own
cost_ceiling: 1
steps:
  - deploy: providers/Microsoft.CognitiveServices/accounts/slow-${drill}
    name: make an account
    api_version: "2025-09-01"
    body:
      location: ${primary}
      kind: AIServices
      sku: {name: S0}
      properties: {customSubDomainName: "slow-${drill}", publicNetworkAccess: Enabled}
  - wait: WAITs
    name: look at it
checks:
  - check: present
    name: the account is there
    with:
      resource: ${group}/providers/Microsoft.CognitiveServices/accounts/slow-${drill}
      api_version: "2025-09-01"
"""


def _patient() -> requests.Session:
    """A session that asks again while SQLite is busy, as Prefect's own client does."""
    session = requests.Session()
    again = Retry(total=9, backoff_factor=0.3, status_forcelist=(502, 503), allowed_methods=None)
    session.mount("http://", HTTPAdapter(max_retries=again))
    return session


_HTTP = _patient()


def eventually(what: str, look: Callable[[], _T | None]) -> _T:
    """Give what `look` finds once it finds something; a server that is away is asked again."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            found = look()
        except (UnreachableError, requests.RequestException):
            found = None
        if found is not None and found is not False:
            return found
        time.sleep(0.5)  # what is asked costs the server, and so those that are waited for
    pytest.fail(f"in {PATIENCE:.0f} s there was not: {what}")


@dataclass
class PrefectSite:
    """A running stack with a snapshot in its ledger, and ways to look at it."""

    stack: Stack
    server: Server
    notified: list[dict[str, str]]
    mailed: list[tuple[list[str], str]]
    heard: Path  # whom beyond this machine its processes looked up or connected to
    first: str = ""  # the commit of the snapshot that was taken before anything else
    _coming: dict[str, datetime] = field(default_factory=dict)  # when each deployment's run is due

    @property
    def config(self) -> Path:
        return self.stack.config

    def ledger(self) -> Ledger:
        return Ledger.open(self.config.parent / "ledger.git", create=False)

    def muster(self, *words: str) -> int:
        """One command line of muster, in this process."""
        return main(["--config", str(self.config), *words])

    def hurry(self) -> list[str]:
        """Have the first schedule of each deployment come soon and once, the others not at all.

        A snapshot is cut for several workers, so that these are started, too. Gives the names of
        the deployments that have a schedule, once each has its run.
        """
        scheduled: list[Any] = [d for d in self.server.deployments() if d["schedules"]]
        for deployment in scheduled:
            # Those of before first: of two alike the server takes one.
            for schedule in reversed(deployment["schedules"][1:]):
                self._change(deployment, schedule, {"active": False})
            self._soon(deployment)
        for deployment in scheduled:
            eventually(f"a run of {deployment['name']}", partial(self._planned, deployment))
        return sorted(self.server.names(scheduled))

    def _soon(self, deployment: dict[str, Any]) -> None:
        """Have a deployment's first schedule come in a moment, and not again today."""
        at = datetime.now(UTC) + timedelta(seconds=_SOON)
        self._coming[str(deployment["id"])] = at
        change: dict[str, Any] = {
            "schedule": {"interval": 24 * 3600, "anchor_date": at.isoformat()}
        }
        if deployment["name"] == "snapshots":
            change["parameters"] = {"groups": 2}
        self._change(deployment, deployment["schedules"][0], change)

    def _planned(self, deployment: dict[str, Any]) -> bool:
        """Whether the scheduler made the run; where it came too late, have it come once more."""
        at = self._coming[str(deployment["id"])]
        then = {
            "after_": (at - timedelta(seconds=2)).isoformat(),
            "before_": (at + timedelta(seconds=2)).isoformat(),
        }
        wanted = {
            "deployments": {"id": {"any_": [deployment["id"]]}},
            "flow_runs": {"expected_start_time": then},
        }
        answer = _HTTP.post(f"{self.server.url}/flow_runs/filter", json=wanted, timeout=30)
        answer.raise_for_status()
        if any(found["auto_scheduled"] for found in answer.json()):
            return True
        if datetime.now(UTC) > at + timedelta(seconds=2 * _SOON):
            self._soon(deployment)
        return False

    def _change(
        self, deployment: dict[str, Any], schedule: dict[str, Any], change: dict[str, Any]
    ) -> None:
        address = f"{self.server.url}/deployments/{deployment['id']}/schedules/{schedule['id']}"
        _HTTP.patch(address, json=change, timeout=30).raise_for_status()

    def with_server(self, *words: str) -> int:
        """One command line that knows where the server is (or was)."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PREFECT_API_URL", self.server.url)
            return self.muster(*words)

    def cancel(self, run: str) -> None:
        """Cancel a run, as the UI does."""
        state = {"state": {"type": "CANCELLING"}, "force": False}
        answer = _HTTP.post(f"{self.server.url}/flow_runs/{run}/set_state", json=state, timeout=30)
        answer.raise_for_status()
        assert answer.json()["status"] == "ACCEPT", answer.text

    def slots_taken(self) -> int:
        """How many runs have their turn at the ledger."""
        address = f"{self.server.url}/v2/concurrency_limits/filter"
        answer = _HTTP.post(address, json={}, timeout=30)
        answer.raise_for_status()
        ours = [one for one in answer.json() if one["name"].startswith("muster-ledger-")]
        assert ours, "the ledger has no limit"
        return sum(one["active_slots"] for one in ours)

    def everything(self) -> str:
        """All that Prefect shows: states, parameters, logs, artifacts, events, blocks."""
        found = [path.read_text("utf-8", "replace") for path in self.stack.logs.glob("*.log")]
        for what, body in (
            ("flow_runs", {}),
            ("task_runs", {}),
            ("logs", {"limit": 200}),
            ("artifacts", {}),
            ("block_documents", {}),
            ("automations", {}),
        ):
            for offset in range(0, 2000, 200):
                wanted = {**body, "offset": offset}
                answer = _HTTP.post(f"{self.server.url}/{what}/filter", json=wanted, timeout=30)
                answer.raise_for_status()
                found.append(answer.text)
                if len(answer.json()) < 100:
                    break
        page: str | None = f"{self.server.url}/events/filter"
        all_: dict[str, Any] = {"filter": {"occurred": {"since": "2020-01-01T00:00:00Z"}}}
        answer = _HTTP.post(str(page), json={**all_, "limit": 50}, timeout=30)
        while True:
            answer.raise_for_status()
            found.append(answer.text)
            page = answer.json()["next_page"]
            if page is None:
                break
            answer = _HTTP.get(page, timeout=30)
        return "\n".join(found)

    def secret(self) -> str:
        """The secret with which muster signs in to the sandbox."""
        text = (self.config.parent / "principal.toml").read_text("utf-8")
        return text.partition('client_secret = "')[2].partition('"')[0]

    def start(self, deployment: str, **parameters: Any) -> str:
        found = self.server.deployment(deployment)
        return self.server.start(str(found["id"]), parameters).id

    def ended(self, run: str) -> Run:
        """The run, once it has ended."""
        return eventually(
            f"an end of {run}", lambda: found if (found := self.server.run(run)).ended else None
        )

    def paused(self, run: str) -> Run:
        """The run, once it waits for a decision."""

        def look() -> Run | None:
            found = self.server.run(run)
            assert not found.ended, f"{found.state}: {found.message}\n{self.log(run)}"
            return found if found.type == "PAUSED" and found.keyset else None

        return eventually(f"a question of {run}", look)

    def said(self, run: str, words: str) -> None:
        """Wait until the run's log says something."""
        eventually(f"{words!r} in the log of {run}", lambda: words in self.log(run) or None)

    def log(self, run: str) -> str:
        lines: list[str] = []
        while more := self.server.logs(run, len(lines)):
            lines += more
        return "\n".join(lines)

    def document(self, run: str) -> dict[str, Any]:
        found = document_of(self.server.artifacts(run))
        assert found is not None, self.log(run)
        return dict(found)

    def markdown(self, run: str) -> str:
        return markdown_of(self.server.artifacts(run))

    def shards(self, snapshot: str) -> dict[int, Run]:
        """The runs that read the shards of a run of take-snapshot, by the number of the shard."""
        wanted = {"flows": {"name": {"any_": ["take-shard"]}}}
        answer = _HTTP.post(f"{self.server.url}/flow_runs/filter", json=wanted, timeout=30)
        answer.raise_for_status()
        return {
            int(found["parameters"]["number"]): self.server.run(found["id"])
            for found in answer.json()
            if found["parameters"]["run"] == snapshot
        }

    def runs(self, deployment: str) -> list[Run]:
        """The runs of a deployment that have begun, oldest first."""
        flow, _, name = deployment.partition("/")
        wanted = {
            "deployments": {"name": {"any_": [name]}},
            "flows": {"name": {"any_": [flow]}},
            "flow_runs": {"state": {"type": {"not_any_": ["SCHEDULED"]}}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        answer = _HTTP.post(f"{self.server.url}/flow_runs/filter", json=wanted, timeout=30)
        answer.raise_for_status()
        return [self.server.run(found["id"]) for found in answer.json()]

    def events(self, prefix: str, run: str) -> list[dict[str, Any]]:
        """The events of a run whose names begin so."""
        wanted = {
            "filter": {
                "event": {"prefix": [prefix]},
                "any_resource": {"id": [f"prefect.flow-run.{run}"]},
                "occurred": {"since": "2020-01-01T00:00:00Z"},
            },
            "limit": 50,
        }
        answer = _HTTP.post(f"{self.server.url}/events/filter", json=wanted, timeout=30)
        answer.raise_for_status()
        return list(answer.json()["events"])

    def event(self, name: str, run: str) -> dict[str, Any]:
        """One event of a run, once it is there."""
        return eventually(
            f"an event {name} of {run}",
            lambda: next((e for e in self.events(name, run) if e["event"] == name), None),
        )

    def evidence(self, id_: str) -> dict[str, Any]:
        with self.ledger() as ledger:
            return dict(EvidenceBook(ledger, None).find(id_).document)

    def decisions(self, run: str) -> list[dict[str, Any]]:
        """What the evidence branch holds about decisions on a run."""
        with self.ledger() as ledger:
            tip = ledger.tip(EVIDENCE)
            found = [json.loads(d) for _, d in ledger.files(tip, "approvals/")] if tip else []
        return [document for document in found if document["run"] == run]

    def script(self, name: str, *, wait: int) -> str:
        """Write a drill that takes that many seconds; give its name."""
        folder = self.config.parent / "drills"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.yaml").write_text(SLOW_DRILL.replace("WAIT", str(wait)))
        return name

    def groups(self) -> set[str]:
        """The resource groups of drills that are there now."""
        azure: Any = self.azure()
        names: set[str] = set()
        for subscription in azure.ready["subscriptions"]:
            path = f"/subscriptions/{subscription['id']}/resourcegroups?{_GROUPS}"
            names |= {str(group["name"]) for group in azure.call("pipeline", "GET", path)["value"]}
        return {name for name in names if name.startswith("muster-drill-")}

    def azure(self) -> Azure:
        """The sandbox, as somebody outside of muster sees it."""
        ready = json.loads(self.stack.ready.read_text("utf-8"))
        return Azure(ready, ssl.create_default_context(cafile=ready["ca"]))


ROUTES = """\
channels:
  hook: {kind: webhook, url: "file:hook-url"}
  quiet: {kind: webhook, url: "file:hook-url"}
  post:
    kind: smtp
    host: 127.0.0.1
    port: MAIL
    security: none
    sender: muster@example.com
    recipients: [platform@example.com, night@example.com]
routes:
  - name: bad drift
    events: [muster.drift.found]
    severity: [high, critical]
    class: [unplanned, unknown]
    to: [hook, post]
  - {name: decisions, events: [muster.approval.asked], to: [hook]}
  - {name: drift of a class nobody has, events: [muster.drift.found], class: [none], to: [quiet]}
  - {name: mild questions, events: [muster.approval.asked], severity: [info], to: [quiet]}
"""


class _Receiver(HTTPServer):
    """Where notifications arrive."""

    def __init__(self) -> None:
        self.got: list[dict[str, str]] = []
        super().__init__(("127.0.0.1", 0), _Answer)


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        assert isinstance(self.server, _Receiver)
        size = int(self.headers["content-length"])
        self.server.got.append(json.loads(self.rfile.read(size)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class MailSink(ThreadingTCPServer):
    """A mail server that takes everything: who is to get it, and what it says."""

    daemon_threads = True

    def __init__(self) -> None:
        self.got: list[tuple[list[str], str]] = []
        super().__init__(("127.0.0.1", 0), _Mail)


class _Mail(StreamRequestHandler):
    def handle(self) -> None:
        """Speak as much SMTP as a client needs (RFC 5321)."""
        assert isinstance(self.server, MailSink)
        recipients: list[str] = []
        self.wfile.write(b"220 sink\r\n")
        while line := self.rfile.readline().decode().strip():
            verb, answer = line[:4].upper(), b"250 OK\r\n"
            if verb == "RCPT":
                recipients.append(line.partition("<")[2].partition(">")[0])
            elif verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                lines = []
                while (text := self.rfile.readline()) not in (b".\r\n", b""):
                    lines.append(text)
                message = message_from_bytes(b"".join(lines))
                body = message.get_payload(decode=True)
                words = body.decode() if isinstance(body, bytes) else message.as_string()
                self.server.got.append((recipients, f"{message['subject']}\n{words}"))
                recipients = []
            elif verb == "QUIT":
                answer = b"221 bye\r\n"
            self.wfile.write(answer)


def routes(folder: Path, receiver: _Receiver, mail: MailSink) -> Path:
    """Write a file of channels and routes whose messages come here."""
    write_private(folder / "hook-url", f"http://127.0.0.1:{receiver.server_address[1]}/{CANARY}\n")
    text = ROUTES.replace("MAIL", str(mail.server_address[1]))
    (folder / "notifications.yaml").write_text(text)
    return folder / "notifications.yaml"


@pytest.fixture(scope="module")
def prefect_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectSite]:
    """Prefect with a worker, the deployments, a sandbox and one snapshot, for one module."""
    folder = tmp_path_factory.mktemp("prefect")
    (folder / "sitecustomize.py").write_text(WATCH)
    heard = folder / "heard"
    heard.touch()
    watched = {**QUICK, "PYTHONPATH": str(folder), "HEARD": str(heard)}
    stack, receiver, mail = Stack(folder / "up", watched), _Receiver(), MailSink()
    for sink in (receiver, mail):
        Thread(target=sink.serve_forever, daemon=True).start()
    try:
        up(stack, port=0, notify=routes(folder, receiver, mail))
        site = PrefectSite(stack, Server(f"{stack.url()}/api"), receiver.got, mail.got, heard)
        assert site.muster("snapshot", "--quiet") == 0
        assert site.muster("approve", "--all", "--reason", "the beginning", "--quiet") == 0
        with site.ledger() as ledger:
            site.first = ledger.resolve("latest")
        tamper(site.azure())
        yield site
    finally:
        down(stack)
        for sink in (receiver, mail):
            sink.shutdown()
            sink.server_close()
