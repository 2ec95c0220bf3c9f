"""Each kind of step does what it says, fails when it must, and is taken back."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.drill_fixtures import DrillSite

ROOT = Path(__file__).parents[2]
CHECK = "checks:\n  - check: reconstructed\n"


def states(found: Any) -> list[str]:
    return [step["state"] for step in found["steps"]]


# ------------------------------------------------------------------------------------- switches


def profile(site: DrillSite) -> str:
    """A Traffic Manager profile, as any resource of ARM: two endpoints with priorities."""
    path = f"/subscriptions/{site.sandbox.subscription}/resourceGroups/rg-shared-prod"
    path += "/providers/Microsoft.Network/trafficManagerProfiles/claims"
    body = {
        "location": "global",
        "properties": {"weights": {"primary": 1, "standby": 2}, "ttl": 60},
    }
    assert site.sandbox.call("PUT", f"{path}?api-version=2022-04-01", body).ok
    # Gateways are not among what muster itself looks after: a right of its own is given for them.
    scope = f"/subscriptions/{site.sandbox.subscription}"
    kind = "providers/Microsoft.Authorization"
    contributor = "b24988ac-6180-42a0-ab88-20f7382dd24c"
    granted = {
        "properties": {
            "roleDefinitionId": f"{scope}/{kind}/roleDefinitions/{contributor}",
            "principalId": site.sandbox.principal("muster")["object_id"],
            "principalType": "ServicePrincipal",
        }
    }
    name = "11111111-2222-4333-8444-555555555555?api-version=2022-04-01"
    assert site.sandbox.call("PUT", f"{scope}/{kind}/roleAssignments/{name}", granted).ok
    return path


def read(site: DrillSite, path: str) -> Any:
    return site.sandbox.call("GET", f"{path}?api-version=2022-04-01").json()["properties"]


SWITCH = """\
steps:
  - switch: patch
    resource: {path}
    api_version: "2022-04-01"
    body: {{properties: {{weights: {{primary: 9, fresh: 3}}}}}}
"""


def test_a_switch_of_any_resource_is_taken_back_whatever_happens(drill_site: DrillSite) -> None:
    path = profile(drill_site)
    before = read(drill_site, path)
    drill_site.script("switch", SWITCH.format(path=path) + "  - run: ['false']\n" + CHECK)
    code, found = drill_site.run("switch")
    assert (code, found["verdict"], states(found)) == (2, "failed", ["done", "failed"])
    assert read(drill_site, path) == before  # also what was not there before is gone
    assert f"{path} is as it was" in found["cleanup"]["proof"]
    drill_site.script("stays", SWITCH.format(path=path) + "    keep: true\n" + CHECK)
    code, found = drill_site.run("stays")
    assert (code, found["verdict"], found["phases"].keys()) == (
        0, "passed", {"switched", "validated"},
    )  # fmt: skip
    assert read(drill_site, path)["weights"] == {"primary": 9, "standby": 2, "fresh": 3}


def test_a_switch_that_does_not_take_is_a_failure(drill_site: DrillSite) -> None:
    drill_site.script("switch", SWITCH.format(path="/subscriptions/x/resourceGroups/y") + CHECK)
    code, found = drill_site.run("switch")
    assert (code, states(found)) == (2, ["failed"])


@dataclass
class Hook:
    """An https server that keeps what is posted to it, and answers as it is told."""

    url: str
    ca: Path
    status: int = 204
    heard: list[Any] = field(default_factory=list)


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    ca, secret = tmp_path / "hook.pem", tmp_path / "hook.key"
    ca.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["content-length"]))
            made.heard.append(json.loads(data))
            self.send_response(made.status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(ca, secret)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    made = Hook(f"https://127.0.0.1:{server.server_port}/switch", ca)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


def test_a_webhook_is_called_once_and_called_back_by_clean_up(
    drill_site: DrillSite, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = hook.ca.with_name("both.pem")
    both.write_text(hook.ca.read_text() + Path(drill_site.sandbox.ca).read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(both))
    step = "  - switch: webhook\n    name: {name}\n    url: {url}\n    body: {{to: '{to}'}}\n"
    text = "steps:\n" + step.format(name="go", url=hook.url, to="${standby}")
    text += "clean_up:\n" + step.format(name="back", url=hook.url, to="${primary}") + CHECK
    drill_site.script("hooked", text)
    code, found = drill_site.run("hooked")
    assert code == 0, found
    assert (code, found["verdict"]) == (0, "passed")
    assert hook.heard == [{"to": "eastus2"}, {"to": "swedencentral"}]
    hook.status = 500
    code, found = drill_site.run("hooked")
    assert (code, states(found)[0]) == (2, "failed")
    assert "answered 500" in found["steps"][0]["detail"]
    monkeypatch.delenv("REQUESTS_CA_BUNDLE")  # a certificate that nobody vouches for
    code, found = drill_site.run("hooked")
    assert (code, len(hook.heard)) == (2, 3)


def test_a_file_that_was_not_there_is_gone_again_and_nothing_leads_out(
    drill_site: DrillSite,
) -> None:
    drill_site.script(
        "file", "steps:\n  - switch: file\n    path: sub/position\n    content: standby\n" + CHECK
    )
    assert drill_site.run("file")[1]["verdict"] == "passed"
    assert not (drill_site.folder / "sub" / "position").exists()
    (drill_site.folder / "sub").rmdir()
    (drill_site.folder / "sub").symlink_to(drill_site.folder.parent)
    code, found = drill_site.run("file")
    assert (code, states(found)) == (2, ["failed"])
    assert "leads out" in found["steps"][0]["detail"]
    assert not (drill_site.folder.parent / "position").exists()


# ----------------------------------------------------------------------- commands, time, groups


def test_a_command_fails_by_its_exit_code_and_its_limit_and_is_undone(
    drill_site: DrillSite,
) -> None:
    mark = drill_site.folder / "mark"
    drill_site.script(
        "run",
        f"steps:\n  - run: [touch, {mark}]\n    undo: [rm, {mark}]\n"
        "  - run: [sleep, '30']\n    name: too long\n    limit: 200ms\n" + CHECK,
    )
    begun = time.monotonic()
    code, found = drill_site.run("run")
    assert (code, states(found)) == (2, ["done", "failed"])
    assert "stopped" in found["steps"][1]["detail"]
    assert time.monotonic() - begun < 20
    assert not mark.exists()
    assert found["cleanup"]["state"] == "clean"
    # An undo that fails is something left.
    drill_site.script("bad", "steps:\n  - run: ['true']\n    undo: ['false']\n" + CHECK)
    code, found = drill_site.run("bad")
    assert (code, found["verdict"], found["cleanup"]["state"]) == (2, "failed", "left")
    drill_site.script("lacking", "steps:\n  - run: [no-such-program-here]\n" + CHECK)
    for journal in drill_site.state.glob("*.jsonl"):
        journal.unlink()
    code, found = drill_site.run("lacking")
    assert "cannot be started" in found["steps"][0]["detail"]


GROUP = """\
steps:
  - fault: clock
    name: the loss
    seconds: 1s
  - parallel:
      - wait: 300ms
        name: short
        phase: detected
      - wait: 1500ms
        name: long
        phase: restored
  - wait: 200ms
    name: after
    phase: switched
"""


def test_a_parallel_group_takes_as_long_as_its_slowest_and_fails_with_any(
    drill_site: DrillSite,
) -> None:
    drill_site.script("group", GROUP + CHECK)
    code, found = drill_site.run("group")
    assert (code, found["verdict"]) == (0, "passed")
    inner = found["steps"][1]["steps"]
    assert [(s["name"], s["critical"]) for s in inner] == [("short", False), ("long", True)]
    assert 1.5 <= found["steps"][1]["seconds"] < 1.8 + 5
    path = found["critical_path"]
    assert [part["name"] for part in path] == ["long", "after", "check"]
    assert [part["phase"] for part in path] == ["restored", "switched", "validated"]
    phases = found["phases"]
    assert 0.3 <= phases["detected"] < phases["restored"] < phases["switched"]
    assert phases["switched"] < phases["validated"] == found["rto_seconds"]
    drill_site.script("bad", GROUP.replace("wait: 300ms", "run: ['false']") + CHECK)
    code, found = drill_site.run("bad")
    assert (code, states(found)) == (2, ["done", "failed", "skipped"])
    assert found["steps"][1]["detail"] == "failed: short"
    assert found["rto_seconds"] is None


def test_a_drill_past_its_limit_is_stopped_and_cleaned_up(drill_site: DrillSite) -> None:
    file = drill_site.folder / "position"
    drill_site.script(
        "long",
        "limit: 1s\nsteps:\n  - switch: file\n    path: position\n    content: x\n"
        "  - wait: 60s\n" + CHECK,
    )
    code, found = drill_site.run("long")
    assert (code, found["verdict"]) == (130, "interrupted")
    assert "longer than its limit" in found["steps"][1]["detail"]
    assert not file.exists()


# ------------------------------------------------------------------------------------- approval


ASK = """\
approvers: [Anna, Bo]
steps:
  - approve: switch now?
  - switch: file
    path: position
    content: standby
    keep: true
"""


def test_only_who_may_approve_does_and_nothing_happens_without(drill_site: DrillSite) -> None:
    drill_site.script("ask", ASK + CHECK)
    file = drill_site.folder / "position"
    for words in ((), ("--approver", "Mallory", "--yes"), ("--approver", "Anna")):
        code, found = drill_site.run("ask", *words)
        assert (code, states(found)) == (2, ["failed", "skipped"])
        assert not file.exists()
    code, found = drill_site.run("ask", "--approver", "Anna", "--yes")
    assert (code, found["verdict"], found["approvals"]) == (0, "passed", ["Anna: switch now?"])
    assert found["steps"][0]["approver"] == "Anna"
    assert file.exists()


def test_two_people_approve_in_time_and_one_of_them_is_not_enough(drill_site: DrillSite) -> None:
    text = ASK.replace("now?\n", "now?\n    people: 2\n    within: {within}\n") + CHECK
    drill_site.script("ask", text.format(within="1s"))
    code, found = drill_site.run("ask", "--approver", "Anna", "--yes")
    assert (code, states(found)) == (2, ["failed", "skipped"])
    assert "1 of 2 people" in found["steps"][0]["detail"]
    for who, said, wanted in (("Bo", "--yes", 0), ("Bo", "--no", 2)):
        drill_site.script("ask", text.format(within="60s"))
        words = ["drill", "run", "ask", "--approver", "Anna", "--yes", "--format", "json"]
        process = subprocess.Popen(
            [sys.executable, "-m", "muster", *words, "--config", str(drill_site.file)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ},
        )
        answered = 1
        deadline = time.monotonic() + 60
        while answered != 0:
            assert time.monotonic() < deadline
            assert process.poll() is None
            answered, _ = drill_site.drill("approve", "last", "--approver", who, said)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == wanted, out
        found = json.loads(out)
        approved = found["steps"][0]["approver"]
        assert approved == ("Anna, Bo" if wanted == 0 else "")
    assert drill_site.drill("approve", "last", "--approver", "Bo", "--yes")[0] == 1


def test_a_yes_to_one_question_is_none_to_the_next(drill_site: DrillSite) -> None:
    later = "  - approve: and delete the primary?\n    within: 1s\n  - switch"
    text = ASK.replace("now?\n", "now?\n    within: 60s\n").replace("  - switch", later, 1) + CHECK
    drill_site.script("ask", text)
    words = ["drill", "run", "ask", "--format", "json", "--config", str(drill_site.file)]
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ},
    )
    deadline = time.monotonic() + 60
    while drill_site.drill("approve", "last", "--approver", "Bo", "--yes")[0] != 0:
        assert time.monotonic() < deadline
        assert process.poll() is None
    out, _ = process.communicate(timeout=60)
    found = json.loads(out)
    assert (process.returncode, found["verdict"]) == (2, "failed")
    assert states(found)[:2] == ["done", "failed"]
    assert "0 of 1 people" in found["steps"][1]["detail"]


# -------------------------------------------------------------------------- bounds of a script


@pytest.mark.stress
def test_a_drill_over_its_ceiling_does_nothing_and_one_below_runs(drill_site: DrillSite) -> None:
    text = (
        "target: isolated\nlimit: 1h\ncost_ceiling: {ceiling}\nscope: {{only: [{only}]}}\n"
        "steps:\n  - verb: restore\nchecks:\n  - check: state\n    subject: {only}\n"
    )
    drill_site.script("dear", text.format(ceiling=1, only="deployment/gpt4o-ptu"))
    seen = len(drill_site.sandbox.journal())
    code, words = drill_site.run("dear")
    assert (code, "ceiling" in words) == (1, True)
    sent = drill_site.sandbox.journal()[seen:]
    assert not [e for e in sent if e["method"] in ("PUT", "DELETE", "PATCH")]
    assert not list(drill_site.state.glob("*"))
    drill_site.script("cheap", text.format(ceiling=1, only="rai-policy/care-polite"))
    code, found = drill_site.run("cheap")
    assert (code, found["verdict"]) == (0, "passed")
    assert found["cost_estimate"] <= found["cost_ceiling"] == 1


def test_a_drills_group_says_whose_it_is_and_until_when(drill_site: DrillSite) -> None:
    drill_site.script(
        "own",
        "target: isolated\nlimit: 10m\nsteps:\n  - run: ['true']\n" + CHECK,
    )
    code, found = drill_site.run("own", "--keep")
    [name] = drill_site.left_behind()
    path = f"{found['target']}?api-version=2021-04-01"
    tags = drill_site.sandbox.call("GET", path).json()["tags"]
    assert found["target"].endswith(name)
    assert tags["muster-drill"] == found["id"]
    until = datetime.fromisoformat(tags["muster-drill-expires"])
    assert timedelta(0) < until - datetime.now(UTC) <= timedelta(minutes=10)
    # Somebody else's group is not deleted, whatever a journal says.
    answer = drill_site.sandbox.call("GET", f"{found['target']}?api-version=2021-04-01").json()
    sent = {"location": answer["location"], "tags": {"muster-drill": "another"}}
    where = f"{found['target']}?api-version=2021-04-01"
    assert drill_site.sandbox.call("PUT", where, sent).ok
    code, cleaned = drill_site.drill("clean")
    assert (code, cleaned["cleaned"]) == (2, [])
    assert drill_site.left_behind() == [name]
    assert drill_site.sandbox.call("DELETE", where).ok
    assert drill_site.drill("clean")[1]["cleaned"] == [found["id"]]


def test_a_script_of_ones_own_goes_before_a_shipped_one_and_a_bad_one_is_named(
    drill_site: DrillSite,
) -> None:
    drill_site.script("vault-reconstruction", "title: Mine\nsteps:\n  - wait: 1ms\n" + CHECK)
    code, found = drill_site.drill("show", "vault-reconstruction")
    assert (code, found["title"]) == (0, "Mine")
    drill_site.script("bad", "steps:\n  - wait: soon\n")
    code, found = drill_site.drill("list")
    errors = {row["name"]: row["error"] for row in found["drills"] if row["error"]}
    assert list(errors) == ["bad"]
    assert "not a duration" in errors["bad"]
    assert "bad.yaml:" in errors["bad"]
    code, words = drill_site.run("bad")
    assert (code, "90s, 15m or 1h" in words) == (1, True)
    code, words = drill_site.run("vault-reconstructoin")
    assert (code, "did you mean vault-reconstruction?" in words) == (1, True)


def test_a_step_that_must_fail_does_and_for_the_reason_named(drill_site: DrillSite) -> None:
    text = (
        "target: standby\nsteps:\n  - verb: restore\n    fails: {why}\n    only: [{only}]\n" + CHECK
    )
    drill_site.script("short", text.format(why="capacity", only="deployment/gpt4o-ptu"))
    code, found = drill_site.run("short")
    assert (code, found["verdict"], states(found)) == (0, "passed", ["done"])
    drill_site.script("other", text.format(why="moon", only="deployment/gpt4o-ptu"))
    code, found = drill_site.run("other")
    assert (code, states(found)) == (2, ["failed"])
    assert "another reason" in found["steps"][0]["detail"]
    drill_site.script("well", text.format(why="capacity", only="rai-policy/claims-internal"))
    code, found = drill_site.run("well")
    assert (code, states(found)) == (2, ["failed"])
    assert "should have failed" in found["steps"][0]["detail"]


def test_a_sandbox_is_mended_after_any_call_to_its_control_api(drill_site: DrillSite) -> None:
    drill_site.script(
        "paged",
        "steps:\n  - fault: control\n    call: PUT settings\n    body: {page_size: 3}\n"
        "    undo: {page_size: null}\n" + CHECK,
    )
    code, found = drill_site.run("paged")
    assert (code, found["verdict"]) == (0, "passed")
    assert drill_site.sandbox.control("GET", "settings")["page_size"] == 0
    code, found = drill_site.drill("run", "paged")  # nobody said that this is a sandbox
    assert (code, states(found)) == (2, ["failed"])


# ---------------------------------------------------------------------------------- forced mode


FORCED = """\
target: standby
forced: {forced}
steps:
  - fault: region-down
    region: swedencentral
    name: the primary is dead
    if_sandbox: true
  - verb: restore
    only: ["rai-policy/*", "rai-blocklist/*"]
checks:
  - check: state
    with: {{kinds: [rai-policy, rai-blocklist]}}
"""


def test_a_forced_drill_never_calls_the_primary(drill_site: DrillSite) -> None:
    drill_site.script("forced", FORCED.format(forced="true"))
    before = drill_site.azure()
    seen = len(drill_site.sandbox.journal())
    code, found = drill_site.run("forced")
    assert (code, found["verdict"], found["reasons"]) == (0, "passed", [])
    sent = drill_site.sandbox.journal()[seen:]
    assert [e for e in sent if e["region"] == "eastus2"]
    assert not [e for e in sent if e["region"] == "swedencentral"]
    assert drill_site.azure() == before
    # The same, not forced and alive: the checks of the primary do call it.
    text = FORCED.format(forced="false")
    text = text.replace(
        "  - verb: restore", "  - verb: snapshot\n    name: look\n  - verb: restore"
    )
    start = text.index("  - fault")
    text = text[:start] + text[text.index("  - verb: snapshot") :]
    drill_site.script("planned", text)
    seen = len(drill_site.sandbox.journal())
    drill_site.run("planned")
    sent = drill_site.sandbox.journal()[seen:]
    assert [e for e in sent if e["region"] == "swedencentral"]
