"""From a snapshot back to a working estate, by the command line, against a living sandbox."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from muster.cli import main
from muster.settings import load
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]
API = "?api-version=2025-12-01"


def told(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> Any:
    """Run a command, hold its JSON to its schema, and give it."""
    code = main([*arguments, "--format", "json"])
    out, err = capsys.readouterr()
    assert code == expect, (code, out[-3000:], err[-2000:])
    found = json.loads(out)
    path = ROOT / "docs" / "schemas" / f"{arguments[0]}.schema.json"
    Draft202012Validator(json.loads(path.read_text("utf-8"))).validate(found)
    return found


@pytest.fixture
def config(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """A configuration for the sandbox with one snapshot taken."""
    file = tmp_path / "site" / "muster.toml"
    ready = str(sandbox.ready_file)
    told(capsys, "init", "--sandbox", ready, "--principal", "muster", "--config", str(file))
    code = main(["snapshot", "--config", str(file), "--format", "json"])
    found = json.loads(capsys.readouterr().out)
    assert (code, found["gaps"]) == (0, [])
    return str(file)


def care(sandbox: RunningSandbox) -> str:
    """The ARM id of the customer care account, which no lock protects."""
    return (
        f"/subscriptions/{sandbox.subscription}/resourceGroups/rg-ai-care"
        "/providers/Microsoft.CognitiveServices/accounts/ais-care-swc"
    )


def mutations(sandbox: RunningSandbox) -> list[tuple[str, str]]:
    """Requests that may change something."""
    return [
        (entry["method"], entry["path"])
        for entry in sandbox.journal()
        if entry["method"] in {"PUT", "PATCH", "DELETE"}
        or (entry["method"] == "POST" and "/oauth2/" not in entry["path"])
    ]


def test_a_deleted_deployment_comes_back_and_a_second_plan_is_empty(
    sandbox: RunningSandbox, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sandbox.call("DELETE", f"{care(sandbox)}/deployments/care-reason{API}").ok
    dry = told(capsys, "restore", "latest", "--only", "deployment/care-reason", "--config", config)
    assert [(s["action"], s["state"]) for s in dry["steps"]] == [("create", "waiting")]
    assert (dry["applied"], dry["record"]) == (False, None)
    assert sandbox.call("GET", f"{care(sandbox)}/deployments/care-reason{API}").status_code == 404
    done = told(
        capsys, "restore", "latest", "--only", "deployment/care-reason", "--apply", "--yes",
        "--config", config,
    )  # fmt: skip
    assert [s["state"] for s in done["steps"]] == ["done"]
    assert done["remaining_changes"] == []
    back = sandbox.call("GET", f"{care(sandbox)}/deployments/care-reason{API}").json()
    assert back["properties"]["model"]["name"] == "o4-mini"
    assert back["sku"] == {"name": "GlobalStandard", "capacity": 40}
    assert told(capsys, "plan", "latest", "--config", config)["steps"] == []


def test_without_apply_nothing_is_sent_that_changes_anything(
    sandbox: RunningSandbox, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sandbox.call("DELETE", f"{care(sandbox)}/deployments/care-reason{API}").ok
    sandbox.control("DELETE", "journal")
    for words in (("plan",), ("restore",), ("restore", "--dry-run")):
        assert told(capsys, words[0], "latest", *words[1:], "--config", config)["steps"]
    assert mutations(sandbox) == []
    code = main(["restore", "latest", "--apply", "--config", config])
    assert code == 1  # nobody is there to ask
    assert "say --yes" in capsys.readouterr().err
    assert mutations(sandbox) == []


def test_a_changed_content_filter_and_a_deleted_agent_come_back_and_can_be_undone(
    sandbox: RunningSandbox, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"{care(sandbox)}/raiPolicies/care-polite{API}"
    policy = sandbox.call("GET", where).json()
    weak = {"properties": {**policy["properties"], "mode": "Asynchronous_filter"}}
    assert sandbox.call("PUT", where, weak).ok
    told(capsys, "restore", "latest", "--apply", "--yes", "--config", config)
    assert sandbox.call("GET", where).json()["properties"]["mode"] == "Default"
    told(capsys, "undo", "last", "--config", config)
    assert sandbox.call("GET", where).json()["properties"]["mode"] == "Default"
    undone = told(capsys, "undo", "last", "--apply", "--yes", "--config", config)
    assert {s["state"] for s in undone["steps"]} == {"undone"}
    assert sandbox.call("GET", where).json()["properties"]["mode"] == "Asynchronous_filter"


def test_a_closed_gate_stops_before_anything_is_changed(
    sandbox: RunningSandbox, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sandbox.call("DELETE", f"{care(sandbox)}/deployments/care-reason{API}").ok
    sandbox.control(
        "PUT",
        "quota",
        {
            "subscription": sandbox.subscription,
            "region": "swedencentral",
            "usage": "OpenAI.GlobalStandard.o4-mini",
            "limit": 39,
        },
    )
    sandbox.control("DELETE", "journal")
    stopped = told(capsys, "restore", "latest", "--apply", "--yes", "--config", config, expect=1)
    closed = [gate for gate in stopped["gates"] if not gate["passed"]]
    assert [(gate["name"], "wanted 40, left 39" in gate["detail"]) for gate in closed] == [
        ("quota", True)
    ]
    assert mutations(sandbox) == []


def test_more_steps_than_allowed_need_their_number(
    sandbox: RunningSandbox, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Path(config)
    text = file.read_text() + "\n[restore]\nmax_steps = 1\n"
    descriptor = os.open(file, os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, text.encode())
    os.close(descriptor)
    assert load(file).restore.max_steps == 1
    for name in ("care-reason", "care-embed"):
        assert sandbox.call("DELETE", f"{care(sandbox)}/deployments/{name}{API}").ok
    sandbox.control("DELETE", "journal")
    assert main(["restore", "latest", "--apply", "--yes", "--config", config]) == 1
    assert "--approve 2" in capsys.readouterr().err
    assert mutations(sandbox) == []
    done = told(
        capsys, "restore", "latest", "--apply", "--yes", "--approve", "2", "--config", config
    )
    assert {s["state"] for s in done["steps"]} == {"done"}


@pytest.mark.parametrize(("policy", "capacity"), [("baseline", 40), ("live", 60), ("target", 20)])
def test_what_was_changed_on_two_sides_goes_by_the_policy_and_is_listed(
    sandbox: RunningSandbox,
    config: str,
    capsys: pytest.CaptureFixture[str],
    policy: str,
    capacity: int,
) -> None:
    where = f"{care(sandbox)}/deployments/care-reason{API}"
    first = told(capsys, "log", "--config", config)["snapshots"][0]["snapshot"]
    wire = sandbox.call("GET", where).json()

    def scaled_to(units: int, **tags: str) -> None:
        body = {**wire, "sku": {"name": "GlobalStandard", "capacity": units}, "tags": tags}
        assert sandbox.call("PUT", where, body).ok

    scaled_to(60, owner="both")
    told(capsys, "snapshot", "--config", config)
    scaled_to(20, owner="both")  # and nobody took a snapshot of that
    words = ("restore", first, "--on-conflict", policy, "--config", config)
    dry = told(capsys, *words)
    assert [(c["path"], c["keep"]) for c in dry["conflicts"]] == [("/sku/capacity", policy)]
    sides = {side: dry["conflicts"][0][side]["value"] for side in ("baseline", "live", "target")}
    assert sides == {"baseline": 40, "live": 60, "target": 20}
    done = told(capsys, *words, "--apply", "--yes")
    assert done["remaining_changes"] == []
    back = sandbox.call("GET", where).json()
    assert back["sku"]["capacity"] == capacity
    assert "tags" not in back  # both say the same there: no conflict, the snapshot is restored
    # The negative control: against the newest snapshot there are no three sides.
    assert told(capsys, "plan", "latest", "--config", config)["conflicts"] == []
