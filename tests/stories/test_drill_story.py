"""Drills against a living sandbox: proved, stopped, killed, and never leaving anything behind."""

from __future__ import annotations

import base64
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from drills import leavings
from drills.evidence import EvidenceBook
from drills.leavings import Sweeper
from drills.model import CleanUpState
from muster.cli import main
from muster.drilling import equipment
from muster.settings import Environment, load
from muster.wiring import Wiring
from snapshots.ledger import Ledger
from snapshots.model import JsonObject
from tests.drill_fixtures import told
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]
KILLS = 100 if os.environ.get("MUSTER_STRESS") == "1" else 2


@pytest.fixture
def config(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    file = tmp_path / "site" / "muster.toml"
    ready = str(sandbox.ready_file)
    assert main(["init", "--sandbox", ready, "--config", str(file), "--quiet"]) == 0
    assert main(["snapshot", "--no-reference", "--config", str(file), "--quiet"]) in (0, 3)
    capsys.readouterr()
    return file


def drill(capsys: pytest.CaptureFixture[str], config: Path, *words: str) -> tuple[int, Any]:
    code = main(["drill", *words, "--config", str(config), "--format", "json", "--quiet"])
    out, err = capsys.readouterr()
    return code, told(code, out, err)


def left_behind(sandbox: RunningSandbox) -> list[str]:
    found: list[str] = []
    for subscription in sandbox.subscriptions:
        base = f"/subscriptions/{subscription}"
        groups = sandbox.call("GET", f"{base}/resourcegroups?api-version=2021-04-01").json()
        found += [g["name"] for g in groups["value"] if g["name"].startswith("muster-drill-")]
        path = f"{base}/providers/Microsoft.CognitiveServices/deletedAccounts"
        gone = sandbox.call("GET", f"{path}?api-version=2025-09-01").json()
        found += [a["id"] for a in gone["value"] if "/muster-drill-" in a["id"]]
    return found


def test_a_drill_proves_its_way_back_and_its_evidence_holds(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = drill(capsys, config, "run", "soft-delete-rescue")
    assert (code, found["verdict"], found["reasons"]) == (0, "passed", [])
    assert [c["negative_control"] for c in found["checks"]] == ["failed"]
    assert 0 < found["rto_seconds"] < 900
    assert found["cleanup"]["state"] == "clean"
    assert found["cleanup"]["proof"]
    assert not left_behind(sandbox)
    code, shown = drill(capsys, config, "show", "last")
    schema = json.loads((ROOT / "docs/schemas/evidence.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(shown["evidence"])
    code, checked = drill(capsys, config, "check", "last")
    assert (code, checked["whole"], checked["verdict"]) == (0, True, "passed")
    # The same evidence with a better time, from a file: found out.
    forged = config.parent / "forged.json"
    forged.write_text(json.dumps({**shown["evidence"], "rto_seconds": 0.1}))
    code, checked = drill(capsys, config, "check", str(forged))
    assert (code, checked["whole"]) == (2, False)


def test_the_vault_alone_is_enough_and_a_damaged_one_is_not(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = drill(capsys, config, "run", "vault-reconstruction")
    assert (code, found["verdict"]) == (0, "passed")
    payloads = [p for p in (config.parent / "vault" / "payloads").rglob("*") if p.is_file()]
    victim = max(payloads, key=lambda p: p.stat().st_size)
    victim.chmod(0o600)
    victim.write_bytes(b"damaged")
    code, found = drill(capsys, config, "run", "vault-reconstruction")
    assert (code, found["verdict"]) == (2, "failed")


def test_a_failed_gate_does_nothing(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = config.parent / "drills"
    own.mkdir()
    touched = config.parent / "touched"
    (own / "gated.yaml").write_text(
        "title: Gated\nobjective: {}\ntarget: isolated\nblast_radius: none\n"
        "gate:\n  - check: present\n    with: {resource: '${group}', api_version: '2021-04-01'}\n"
        f"steps:\n  - run: [touch, '{touched}']\n"
    )
    before = len(sandbox.journal())
    code, found = drill(capsys, config, "run", "gated")
    assert (code, found["verdict"]) == (2, "failed")
    assert [s["state"] for s in found["steps"]] == ["skipped"]
    assert not touched.exists()
    sent = sandbox.journal()[before:]
    assert {entry["method"] for entry in sent} <= {"GET", "POST"}  # a token is a POST
    assert not [e for e in sent if e["method"] == "POST" and "oauth2" not in e["path"]]


def test_a_switch_goes_back_after_a_failure_and_the_stop_switch_stops(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, file = config.parent / "drills", config.parent / "position.txt"
    own.mkdir()
    file.write_text("primary")
    (own / "switched.yaml").write_text(
        "title: Switched\nobjective: {}\ntarget: none\nblast_radius: a file\n"
        "steps:\n  - switch: file\n    path: position.txt\n    content: standby\n"
        "  - run: [grep, -q, standby, position.txt]\n    name: it is switched\n"
        '  - run: ["false"]\n    name: it fails\n  - wait: 1s\n'
    )
    code, found = drill(capsys, config, "run", "switched")
    assert (code, found["verdict"]) == (2, "failed")
    assert [s["state"] for s in found["steps"]] == ["done", "done", "failed", "skipped"]
    assert file.read_text() == "primary"
    stop = config.parent / "ledger.git-drills" / "stop"
    stop.touch()
    code, words = drill(capsys, config, "run", "switched")
    assert code == 1
    assert "stop switch" in words


def test_a_damaged_journal_is_cleaned_up_as_far_as_it_is_known_and_never_forgotten(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = config.parent / "ledger.git-drills"
    journal = state / "20261101T000000Z-aaaaaa.jsonl"
    header = {
        "event": "begin",
        "id": journal.stem,
        "drill": "old",
        "file": "old.yaml",
        "mode": "real",
        "estate": "demo",
        "started_at": "2026-11-01T00:00:00+00:00",
        "text": "title: O\nobjective: {}\ntarget: none\nblast_radius: none\nsteps: [{wait: 1s}]\n",
    }
    state.mkdir(exist_ok=True)
    whole = [json.dumps(header), "rubbish", '{"event": "facts", "what": {}}']
    journal.write_text("\n".join([*whole, ""]))
    code, found = drill(capsys, config, "clean")
    assert (code, found["left"]) == (2, [journal.stem])
    assert journal.exists()
    with Ledger.open(config.parent / "ledger.git") as ledger:
        (evidence,) = (e.document for e in EvidenceBook(ledger, None).all())
    assert evidence["verdict"] == "interrupted"
    assert "line 2" in str(evidence["cleanup"])
    journal.write_text("\n".join(["rubbish", *whole[1:], ""]))
    code, words = drill(capsys, config, "clean")
    assert code == 1
    assert "line 1" in str(words)
    assert journal.exists()
    # The control: the same journal undamaged is settled and gone.
    journal.write_text("\n".join([whole[0], whole[2], ""]))
    assert drill(capsys, config, "clean")[0] == 0
    assert not journal.exists()


def test_a_yes_under_a_number_without_a_name_asks_for_the_name(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(number: int) -> None:
        raise KeyError(number)

    monkeypatch.setattr("pwd.getpwuid", nobody)
    code, words = drill(capsys, config, "run", "soft-delete-rescue", "--yes")
    assert code == 1
    assert "--approver NAME" in words


class Stubborn:
    """A sandbox whose faults stay, whatever is said."""

    def add(self, rule: JsonObject) -> None: ...
    def remove(self, id_: str) -> None: ...
    def advance(self, seconds: float) -> None: ...
    def control(self, call: str, body: JsonObject) -> None: ...
    def broken(self) -> frozenset[str]:
        return frozenset({"stays"})


def test_a_clean_up_proves_what_it_read_again_and_nothing_else(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = config.parent / "position.txt"
    file.write_text("standby")
    switched: JsonObject = {
        "undo": "file",
        "path": str(file),
        "content": base64.b64encode(b"primary").decode(),
    }
    with Wiring(load(config), Environment()) as wiring:
        sweeper = Sweeper(equipment(wiring, faults=Stubborn()))
        faults: list[JsonObject] = [{"undo": "fault", "id": id_} for id_ in ("stays", "goes")]
        found = sweeper.sweep([switched, *faults])
        assert (found.state, found.left) == (CleanUpState.LEFT, ("fault stays is still there",))
        assert file.read_text() == "primary"
        assert any("position.txt is as it was" in proof for proof in found.proof)
        monkeypatch.setattr(leavings, "write_file", lambda _path, _data: None)
        file.write_text("standby")
        found = Sweeper(equipment(wiring, faults=Stubborn())).sweep([switched])
        assert (found.state, found.proof) == (CleanUpState.LEFT, ())
        assert found.left == ("position.txt is not as it was",)


@pytest.mark.timeout(7200)  # a hundred of them, under stress
def test_a_drill_killed_at_any_instant_is_cleaned_up_by_the_next_start(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(11)
    command = [sys.executable, "-m", "muster", "drill", "run", "soft-delete-rescue", "--quiet"]
    state = config.parent / "ledger.git-drills"
    began = 0
    for _ in range(KILLS):
        process = subprocess.Popen(
            [*command, "--config", str(config)],
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 30
        while not list(state.glob("*.jsonl")):
            assert process.poll() is None
            assert time.monotonic() < deadline
            process_wait(process, 0.02)
        process_wait(process, chance.uniform(0, 4))
        process.kill()
        process.wait(10)
        began += bool(list(state.glob("*.jsonl")))
        code, _ = drill(capsys, config, "run", "content-filter-equivalence")
        assert code in (0, 2)
        assert not list(state.glob("*.jsonl"))
        assert not left_behind(sandbox)
    assert began
    with Ledger.open(config.parent / "ledger.git") as ledger:
        kept = [e.document for e in EvidenceBook(ledger, None).all()]
    verdicts = [d["verdict"] for d in kept if d["drill"] == "soft-delete-rescue"]
    # One that was killed after its evidence was kept says what it came to.
    assert verdicts.count("interrupted") in (began, began - 1)
    assert "interrupted" in verdicts
    _, checked = drill(capsys, config, "check", "last")
    assert checked["whole"], checked["problems"]


def process_wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let it run for so long, or until it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


@pytest.mark.stress
def test_a_rehearsal_gives_a_distribution_without_touching_the_estate(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(sandbox.journal())
    words = ("rehearse", "soft-delete-rescue", "--runs", "3", "--time-scale", "30")
    code, found = drill(capsys, config, *words)
    assert (code, found["verdicts"]["passed"], found["errors"]) == (0, 3, [])
    assert 0 < found["rto"]["min"] <= found["rto"]["p50"] <= found["rto"]["max"]
    assert all(run["cleanup"] == "clean" for run in found["runs"])
    assert len(sandbox.journal()) == before
