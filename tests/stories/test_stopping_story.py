"""A restore as a process: stopped by signals, gone on with, fed with secrets, sent elsewhere."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.restoring_fixtures import API, Front, settle
from tests.sandbox_fixtures import RunningSandbox


def care(sandbox: RunningSandbox, rest: str = "") -> str:
    head = f"/subscriptions/{sandbox.subscription}/resourceGroups/rg-ai-care/providers"
    return f"{head}/Microsoft.CognitiveServices/accounts/ais-care-swc{rest}{API}"


def lose_three(sandbox: RunningSandbox) -> None:
    """Three deployments of one account are gone: their writes go one after the other."""
    for name in ("care-chat", "care-reason", "care-embed"):
        assert sandbox.call("DELETE", care(sandbox, f"/deployments/{name}")).ok
    settle(sandbox)


def start(front: Front) -> subprocess.Popen[bytes]:
    """A restore as a process of its own."""
    words = ["restore", "latest", "--apply", "--yes", "--config", str(front.config)]
    return subprocess.Popen(
        [sys.executable, "-m", "muster", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ},
    )


def outcomes(site: Front) -> list[dict[str, Any]]:
    """What the newest record says so far."""
    records = sorted((site.folder / "ledger.git-records").glob("*.jsonl"))
    if not records:
        return []
    lines = records[-1].read_bytes().splitlines()
    return [json.loads(line) for line in lines if b'"step"' in line and line.endswith(b"}")]


def until_begun(site: Front, process: subprocess.Popen[bytes]) -> None:
    """Wait until a step is under way."""
    deadline = time.monotonic() + 60
    while not any(o.get("state") == "begun" for o in outcomes(site)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        threading.Event().wait(0.02)


@pytest.mark.parametrize(
    "number", [pytest.param(signal.SIGINT, marks=pytest.mark.stress), signal.SIGTERM]
)
def test_a_signal_sees_the_step_in_hand_through_and_the_record_goes_on(
    sandbox: RunningSandbox, front: Front, number: signal.Signals
) -> None:
    front.ask("snapshot")
    lose_three(sandbox)
    slow = {"kind": "latency", "seconds": 1.5, "method": "PUT", "path": ".*/deployments/.*"}
    sandbox.control("POST", "faults", slow)
    process = start(front)
    until_begun(front, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err.decode()[-2000:]
    assert f"{number.name}: seeing the steps in hand through" in err.decode()
    assert "go on with `muster resume" in out.decode()
    assert "Traceback" not in err.decode()
    last = {o["step"]: o["state"] for o in outcomes(front)}
    assert set(last.values()) == {"done"}  # what was begun was seen through
    assert len(last) < 3  # and the rest not begun
    sandbox.control("DELETE", "faults")
    done = front.ask("resume", "last")
    assert {step["state"] for step in done["steps"]} == {"done"}
    assert done["remaining_changes"] == []
    assert front.ask("plan", "latest")["steps"] == []


def test_a_second_signal_leaves_at_once_and_what_was_in_hand_is_found_again(
    sandbox: RunningSandbox, front: Front
) -> None:
    front.ask("snapshot")
    lose_three(sandbox)
    slow = {"kind": "latency", "seconds": 20, "method": "PUT", "path": ".*/deployments/.*"}
    sandbox.control("POST", "faults", slow)
    process = start(front)
    until_begun(front, process)
    begun = time.monotonic()
    process.send_signal(signal.SIGINT)
    threading.Event().wait(0.7)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - begun < 15
    assert process.returncode == 130, err.decode()[-2000:]
    assert "Traceback" not in err.decode()
    assert "begun" in {o["state"] for o in outcomes(front)}
    sandbox.control("DELETE", "faults")
    done = front.ask("resume", "last")
    assert done["remaining_changes"] == []
    names = sandbox.call("GET", care(sandbox, "/deployments")).json()["value"]
    assert len({row["name"] for row in names}) == len(names) == 4


@pytest.fixture
def key_vault(sandbox: RunningSandbox) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """A key vault's data plane over HTTPS, with one secret; and who asked it for what."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("authorization", "")))
            known = self.path.startswith("/secrets/parcels?")
            body = {"value": "parcel-key-of-the-vault", "id": "x"}
            if not known:
                body = {"error": {"code": "SecretNotFound", "message": "it is not there"}}  # type: ignore[dict-item]
            data = json.dumps(body).encode()
            self.send_response(200 if known else 404)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base names it
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sandbox.state / "server.pem", sandbox.state / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"https://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join(10)


def test_secrets_come_from_a_key_vault_or_the_environment_and_are_written_nowhere(
    sandbox: RunningSandbox,
    front: Front,
    monkeypatch: pytest.MonkeyPatch,
    key_vault: tuple[str, list[tuple[str, str]]],
) -> None:
    base, asked = key_vault
    monkeypatch.setenv("CARE_SEARCH", "search-key-of-the-environment")
    front.ask("snapshot")
    connections = (
        care(sandbox, "/connections/care-search"),
        care(sandbox, "/projects/care-desk/connections/parcel-service"),
    )
    for where in connections:
        assert sandbox.call("DELETE", where).ok
    bare = front.config.read_text()

    def restored(parcels: str, expect: int) -> Any:
        front.config.write_text(
            bare
            + '\n[restore.secrets]\n"account-connection/care-search" = "env:CARE_SEARCH"\n'
            + f'"project-connection/parcel-service" = "{parcels}"\n'
        )
        return front.ask("restore", "latest", "--apply", "--yes", expect=expect)

    # A reference that leads nowhere closes a gate: nothing is changed.
    for wrong in (f"keyvault:{base}/secrets/other", "env:NOT_SET_ANYWHERE"):
        told = restored(wrong, expect=1)
        (gate,) = [g for g in told["gates"] if not g["passed"]]
        assert gate["name"] == "secret"
        assert "[restore.secrets]" in gate["remedy"]
        assert sandbox.call("GET", connections[0]).status_code == 404
    told = restored(f"keyvault:{base}/secrets/parcels", expect=0)
    assert told["remaining_changes"] == []
    paths = [path for path, _ in asked]
    assert "/secrets/parcels?api-version=7.4" in paths
    assert all(token.startswith("Bearer ") for _, token in asked)
    kept = json.dumps(sandbox.control("GET", "dump"))
    secrets = ("parcel-key-of-the-vault", "search-key-of-the-environment")
    for secret in secrets:  # the negative control: they reached the service
        assert secret in kept
    for path in front.folder.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(secret.encode() in data for secret in secrets), path
    assert not any(secret in said for said in front.said for secret in secrets)


def test_an_estate_goes_to_a_subscription_or_into_one_group_beside_the_living(
    sandbox: RunningSandbox, front: Front
) -> None:
    front.ask("snapshot")
    sandbox.control("POST", "clock", {"scale": 60})
    other = sandbox.subscriptions[1]
    only = ("--only", "*/ais-care-swc", "--only", "deployment/*/ais-care-swc/*")
    for to, group in ((other, "rg-ai-care"), (f"{other}/rg-rehearsal", "rg-rehearsal")):
        words = ("restore", "latest", "--to", to, *only)
        told = front.ask(*words, "--apply", "--yes")
        assert told["remaining_changes"] == []
        assert {step["state"] for step in told["steps"]} == {"done"}
        where = f"/subscriptions/{other}/resourceGroups/{group}/providers"
        where += "/Microsoft.CognitiveServices/accounts/ais-care-swc"
        made = sandbox.call("GET", where + API).json()["properties"]["customSubDomainName"]
        # The original keeps its name in the world; the substitution is listed.
        assert made.startswith("ais-care-swc-")
        assert made in {s["after"] for s in told["substitutions"]}
        assert sandbox.call("GET", f"{where}/deployments/care-chat{API}").ok
        assert front.ask("plan", "latest", "--to", to, *only)["steps"] == []
    assert sandbox.call("GET", care(sandbox)).json()["properties"]["customSubDomainName"] == (
        "ais-care-swc"
    )


ROOT = Path(__file__).parents[2]
NOWHERE = "00000000-0000-4000-8000-00000000dead"


def test_at_three_in_the_morning_every_mistake_says_what_and_what_next(
    sandbox: RunningSandbox, front: Front
) -> None:
    code, told = front.run("restore", "latest")
    assert code == 1
    assert "take a snapshot first: `muster snapshot`" in told
    front.ask("snapshot")
    for words, parts in (
        (("restore", "20191231"), ("2019-12-31", "next:")),
        (("restore", "feedfacefeed"), ("feedfacefeed", "next:")),
        (("restore", "latest", "--only", "deployment/gpt5o"), ("gpt5o", "muster show")),
        (("restore", "latest", "--to", "moon"), ("moon", "same, standby")),
        (("restore", "latest", "--to", "standby", "--pair", "moon"), ("moon", "next:")),
        (("restore", "latest", "--to", NOWHERE), (NOWHERE, "next:")),
        (("undo", "20191231"), ("no such record", "next:")),
        (("resume", "last"), ("no such record", "nothing was applied")),
    ):
        code, told = front.run(*words)
        assert code == 1, (words, told)
        for part in parts:
            assert part in told, (words, told)

    # A damaged ledger says so, and where to look.
    objects = [p for p in (front.folder / "ledger.git" / "objects").rglob("*") if p.is_file()]
    for path in objects:
        path.chmod(0o600)
        path.write_bytes(b"damage" + path.read_bytes()[6:])
    code, told = front.run("restore", "latest")
    assert code == 1
    assert "next:" in told
