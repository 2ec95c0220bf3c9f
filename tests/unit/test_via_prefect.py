"""The command line and Prefect: what goes into a run, what is refused, and no server at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import click
import pytest

from muster import via
from muster.cli import COMMANDS, front, main
from muster.invocation import Invocation
from muster.prefect_api import Server
from muster.settings import Environment
from snapshots.errors import DamagedAnswerError, DeniedError, InputError, UnreachableError

ROOT = Path(__file__).resolve().parents[2]
NOBODY = "http://127.0.0.1:9/api"  # the port for discarding: nothing listens there


def command(*words: str) -> click.Command:
    found: Any = front
    for word in words:
        found = found.get_command(click.Context(front), word)
        assert found is not None, word
    return found  # type: ignore[no-any-return]


def parameters(deployed: via.Deployed, *words: str, of: click.Command) -> dict[str, Any]:
    """What a command line becomes as parameters of the flow."""
    invocation = Invocation(Environment())
    context = of.make_context("it", list(words), obj=invocation)
    return dict(via._parameters(context, deployed, invocation))


@pytest.mark.parametrize(
    ("deployed", "name", "words", "expected"),
    [
        (via.SNAPSHOT, ["snapshot"], [], {}),
        (via.SNAPSHOT, ["snapshot"], ["--no-content"], {"content": False}),
        (
            via.AUDIT,
            ["audit"],
            ["--scope", "a", "--scope", "b", "--fail-on", "high", "--sweep"],
            {"scope": ["a", "b"], "fail_on": "high", "sweep": True},
        ),
        (via.REPLICATE, ["replicate"], [], {"apply": False}),
        (via.REPLICATE, ["replicate"], ["--apply", "--yes"], {"apply": True}),
        (via.READY, ["ready"], ["--pair", "a:b", "--strict"], {"pair": ["a:b"], "strict": True}),
        (via.VERIFY, ["verify"], [], {"sample": 100.0}),
        (via.VERIFY, ["verify"], ["--sample", "5%"], {"sample": 5.0}),
        (via.DRILL, ["drill", "run"], ["x"], {"drill": "x", "mode": "real"}),
        (via.DRILL, ["drill", "run"], ["x", "--dry-run"], {"drill": "x", "mode": "dry-run"}),
        (via.RESTORE, ["restore"], ["--apply"], {"apply": True}),
        (via.RESTORE, ["restore"], ["--dry-run"], {"apply": False}),
        (
            via.RESTORE,
            ["restore"],
            ["--retrain", "--on-conflict", "live", "--save", "/srv/plan.json"],
            {"retrain": True, "on_conflict": "live", "save": "/srv/plan.json"},
        ),
        (via.READY, ["ready"], ["--all"], {"everything": True}),
        (
            via.AUDIT,
            ["audit"],
            ["--format", "html", "--format", "sarif", "--output", "/srv/reports"],
            {"formats": ["html", "sarif"], "output": "/srv/reports"},
        ),
        (via.REPORT, ["report"], ["--fresh", "--no-vault"], {"fresh": True, "use_vault": False}),
        (
            via.RESTORE,
            ["restore"],
            ["abc", "--to", "standby", "--only", "agent/*"],
            {"snapshot": "abc", "to": "standby", "only": ["agent/*"]},
        ),
    ],
)
def test_what_is_typed_becomes_the_flows_parameters(
    deployed: via.Deployed, name: list[str], words: list[str], expected: dict[str, Any]
) -> None:
    assert parameters(deployed, *words, of=command(*name)) == expected


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audit", "--format", "html"], "--format needs --output with --via prefect"),
        (["report", "--open"], "the run has a link to it"),
        (["restore", "--dry-run", "--apply"], "--dry-run and --apply exclude each other"),
        (["report", "--to-vault", "--no-vault"], "--to-vault and --no-vault exclude each other"),
        (["restore", "--apply", "--yes"], "muster approve-run"),
        (["drill", "run", "x", "--approver", "me"], "muster approve-run"),
        (["snapshot", "--via", "cron"], "'cron' is no way"),
        (["snapshot", "--via", "prefect:"], "is no way"),
    ],
)
def test_what_a_flow_cannot_do_is_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = words if "--via" in words else [*words, "--via", "prefect"]
    assert main(line) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("deployed", [*via.DEPLOYED.values()], ids=[*via.DEPLOYED])
def test_every_option_of_a_verb_has_its_place(deployed: via.Deployed) -> None:
    """A flow takes it, or it is refused with what to do instead, or it means nothing there."""
    [words] = [words for words, one in via.DEPLOYED.items() if one is deployed]
    options = {p.name for p in command(*words.split()).params} - via._SHARED - {"help"}
    taken = {parameter.option for parameter in deployed.parameters}
    places = [taken, set(deployed.refused), set(deployed.idle)]
    assert set().union(*places) == options
    assert sum(map(len, places)) == len(options), "an option has two places"
    assert all(deployed.refused.values()), "a refusal says what to do instead"


def test_a_replication_is_asked_for_before_it_is_started(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY)
    assert main(["replicate", "--apply", "--via", "prefect"]) == 1
    assert "nothing was started" in capsys.readouterr().err
    assert main(["replicate", "--apply", "--yes", "--via", "prefect"]) == 1
    assert "does not answer" in capsys.readouterr().err, "a yes did not suffice"


def test_every_parameter_that_is_sent_is_one_of_the_flow() -> None:
    # In a process of its own: importing Prefect warns.
    table = {d.name: [p.name or p.option for p in d.parameters] for d in via.DEPLOYED.values()}
    code = """
import inspect, json, sys, yaml
table = json.load(sys.stdin)
from importlib import import_module
for deployment in yaml.safe_load(open("prefect.yaml"))["deployments"]:
    module, _, name = deployment["entrypoint"].rpartition(".")
    flow = getattr(import_module(module), name)
    known = set(inspect.signature(flow.fn).parameters)
    wanted = set(table.pop(f"{flow.name}/{deployment['name']}", []))
    assert wanted <= known, (flow.name, wanted - known)
    assert set(deployment.get("parameters", {})) <= known, flow.name
    for schedule in deployment.get("schedules", []):
        assert set(schedule.get("parameters", {})) <= known, (flow.name, schedule)
    assert flow.fn.__doc__ and "Args:" in flow.fn.__doc__, flow.name
    described = flow.parameters.model_dump()["properties"]
    missing = [n for n, p in described.items() if not p.get("description")]
    assert not missing, (flow.name, missing)
assert not table, table
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        input=json.dumps(table),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_every_verb_that_has_a_deployment_can_be_sent_to_it() -> None:
    for words in via.DEPLOYED:
        names = {parameter.name for parameter in command(*words.split()).params}
        assert via.OPTION in names, f"muster {words} has no --via"
    assert "approve-run" in COMMANDS


@pytest.mark.parametrize("words", [["snapshot", "--via", "prefect"], ["approve-run"]])
def test_without_a_server_the_error_says_what_to_do(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY)
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "does not answer" in said
    assert NOBODY in said
    assert "make up" in said
    assert "Traceback" not in said


def test_the_command_line_never_imports_prefect() -> None:
    code = "import sys; from muster.cli import main; main(sys.argv[1:]); "
    code += "assert 'prefect' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code, "snapshot", "--via", "prefect"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, "PREFECT_API_URL": NOBODY},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("url", ["prefect", "ftp://x/api", "http:///api", "http://me:pw-of-mine@x"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url: str) -> None:
    with pytest.raises(InputError) as caught:
        Server.of(Environment.read({"PREFECT_API_URL": url}))
    assert "pw-of-mine" not in str(caught.value)


@pytest.fixture
def stranger() -> Iterator[str]:
    """Something that listens and is no Prefect: gives its address with a path for each mood."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            mood = self.path.split("/")[1]
            self.send_response({"denied": 401, "moved": 302, "ill": 500}.get(mood, 200))
            if mood == "moved":
                self.send_header("location", "http://127.0.0.1:9/stolen")
            self.end_headers()
            self.wfile.write(b"<html>not json</html>")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_what_is_no_prefect_is_told_from_one_that_does_not_let_us_in(stranger: str) -> None:
    with pytest.raises(DamagedAnswerError, match="no Prefect server"):
        Server(f"{stranger}/html").version()
    with pytest.raises(DeniedError, match="does not let us in"):
        Server(f"{stranger}/denied").version()
    with pytest.raises(UnreachableError):
        Server(NOBODY).version()


def test_a_server_whose_database_is_away_is_as_one_that_is_away(stranger: str) -> None:
    with pytest.raises(UnreachableError, match="500") as caught:
        Server(f"{stranger}/ill").version()
    assert "without" in caught.value.remedy


def test_a_key_follows_no_redirect(stranger: str) -> None:
    with pytest.raises(Exception, match="302"):
        Server(f"{stranger}/moved", key="key-of-mine").version()


def test_a_decision_needs_a_reason_and_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY)
    assert main(["approve-run", "--approve", "--reason", "x"]) == 1
    assert "need a RUN" in capsys.readouterr().err
