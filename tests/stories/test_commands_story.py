"""The front door against a living sandbox: set up, check, take, look, and find what changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from muster.cli import main
from muster.settings import load
from snapshots.permissions import Role, definition
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A configuration for the sandbox, as `muster init` writes it."""
    return made(sandbox, tmp_path / "site", capsys)


def made(
    sandbox: RunningSandbox,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    principal: str = "muster",
) -> Path:
    file = folder / "muster.toml"
    ready = str(sandbox.ready_file)
    found = told(
        capsys, "init", "--sandbox", ready, "--principal", principal, "--config", str(file)
    )
    assert found["config"] == str(file)
    return file


def told(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> Any:
    """Run a command, hold its JSON to its schema, and give it."""
    code = main([*arguments, "--format", "json"])
    out, err = capsys.readouterr()
    assert code == expect, (code, out[-2000:], err[-2000:])
    found = json.loads(out)
    path = ROOT / "docs" / "schemas" / f"{arguments[0]}.schema.json"
    Draft202012Validator(json.loads(path.read_text("utf-8"))).validate(found)
    return found


def taken(capsys: pytest.CaptureFixture[str], config: Path) -> Any:
    """Take a snapshot; it is complete, or this says what is missing."""
    code = main(["snapshot", "--config", str(config), "--format", "json"])
    out, err = capsys.readouterr()
    assert code in (0, 3), err
    found = json.loads(out)
    assert found["gaps"] == [], found["gaps"]
    assert code == 0
    return found


def test_init_writes_what_is_there_and_keeps_the_secret_out_of_it(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(config)
    assert {scope.subscription for scope in settings.estate.scopes} == set(sandbox.subscriptions)
    assert settings.estate.pairs
    secret = sandbox.principal("muster")["secret"]
    assert secret not in config.read_text()
    assert settings.credential.secret_file is not None
    assert settings.credential.secret_file.stat().st_mode & 0o077 == 0
    assert (config.parent / "ledger.git").is_dir()
    ready = str(sandbox.ready_file)
    assert main(["init", "--sandbox", ready, "--config", str(config)]) == 1
    assert "--force" in capsys.readouterr().err
    told(capsys, "init", "--sandbox", ready, "--config", str(config), "--force")


def test_init_refuses_what_is_no_ready_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "ready.json"
    wrong.write_text('{"url": "x"}')
    assert main(["init", "--sandbox", str(wrong), "--config", str(tmp_path / "m.toml")]) == 1
    assert "no ready file" in capsys.readouterr().err
    assert not (tmp_path / "m.toml").exists()


def test_doctor_is_content_with_musters_own_principal(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["snapshot", "--config", str(config), "--quiet"])
    capsys.readouterr()
    found = told(capsys, "doctor", "--config", str(config))
    assert [c for c in found["checks"] if c["state"] == "failed"] == []
    assert found["verdict"] == "passed"


def test_doctor_lists_exactly_what_a_plain_reader_lacks(
    sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = made(sandbox, tmp_path / "reader", capsys, "auditor")
    found = told(capsys, "doctor", "--verb", "snapshot", "--config", str(config), expect=1)
    failed = [c for c in found["checks"] if c["state"] == "failed"]
    assert len(failed) == len(sandbox.subscriptions)
    for check in failed:
        assert check["name"] == "permissions for snapshot"
        assert all(need["data"] for need in check["missing"])
        lacking = {need["action"] for need in check["missing"]}
        assert lacking == set(definition(Role.READER).data_actions)
        assert "docs/roles/reader.json" in check["remedy"]


def test_a_snapshot_of_an_unchanged_cloud_is_the_same_tree_and_a_change_is_exactly_that(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = taken(capsys, config)
    second = taken(capsys, config)
    assert second["tree"] == first["tree"]
    assert second["snapshot"] != first["snapshot"]
    assert (second["written"], second["removed"]) == (0, 0)
    assert second["payloads"] == first["payloads"]
    assert second["throttled"] == 0
    where = ["--config", str(config)]
    assert told(capsys, "diff", *where)["changes"] == []
    shown = told(capsys, "show", *where)
    key = next(r["key"] for r in shown["resources"] if r["kind"] == "account")
    account = told(capsys, "show", "latest", key, *where)["resource"]
    tags = {"tags": {"touched": "by somebody"}}
    api = "?api-version=2025-09-01"
    answer = sandbox.call("PATCH", account["id"] + api, tags, name="platform-owner")
    assert answer.status_code in (200, 202), answer.text
    taken(capsys, config)
    changes = told(capsys, "diff", *where)["changes"]
    assert [c["key"] for c in changes] == [key]
    assert all(p["path"].startswith("/tags") for p in changes[0]["paths"])
    assert told(capsys, "verify", *where)["verdict"] == "whole"
    assert len(told(capsys, "log", *where)["snapshots"]) == 3


def test_a_file_with_data_leads_to_the_agents_that_use_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["snapshot", "--config", str(config), "--quiet"])
    capsys.readouterr()
    main(["show", "--config", str(config), "--format", "json"])
    shown = json.loads(capsys.readouterr().out)
    files = [r["key"] for r in shown["resources"] if r["kind"] == "file"]
    reached: set[str] = set()
    for key in files:
        main(["lineage", key, "--config", str(config), "--format", "json"])
        reached |= {r["kind"] for r in json.loads(capsys.readouterr().out)["reached"]}
    assert {"fine-tuning-job", "fine-tuned-model", "deployment"} <= reached


def test_no_secret_of_ours_is_in_ledger_vault_or_output(
    sandbox: RunningSandbox, config: Path
) -> None:
    secret = sandbox.principal("muster")["secret"]
    ran = subprocess.run(
        [sys.executable, "-m", "muster", "snapshot", "--config", str(config)],
        cwd=ROOT,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "MUSTER_DEBUG": "1"},
    )
    assert ran.returncode in (0, 3), ran.stderr
    assert secret.encode() not in ran.stdout + ran.stderr
    for file in config.parent.rglob("*"):
        if file.is_file() and file.name != "principal.toml":
            assert secret.encode() not in file.read_bytes(), file


def test_a_cloud_that_is_not_there_is_told_in_words(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load(config)
    text = config.read_text().replace(settings.estate.cloud, "https://localhost:1")
    config.write_text(text)
    assert main(["snapshot", "--config", str(config)]) == 1
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "next:" in err
    assert "Traceback" not in err
    found = told(capsys, "doctor", "--config", str(config), expect=1)
    assert next(c for c in found["checks"] if c["name"] == "credentials")["state"] == "failed"


def test_a_wrong_secret_is_told_in_words_without_it(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = load(config).credential.secret_file
    assert file is not None
    lines = [
        'client_secret = "Wrong-secret-Wrong-secret"' if line.startswith("client_secret") else line
        for line in file.read_text().splitlines()
    ]
    taken(capsys, config)
    before = told(capsys, "log", "--config", str(config))
    file.write_text("\n".join(lines))
    for verb in ("snapshot", "audit"):
        done = subprocess.run(
            [sys.executable, "-m", "muster", verb, "--config", str(config), "--no-color"],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            timeout=60,
        )
        assert done.returncode == 1, done.stdout
        assert done.stdout == ""
        # One error, and not a line of the libraries for each of the calls.
        first, where, remedy = done.stderr.splitlines()
        assert first.startswith("error: nothing could be read, so nothing is kept: could not")
        assert "AADSTS7000215" in first
        assert where.startswith("  where: ")
        assert remedy.startswith("  next:  run `muster doctor`")
        assert "Wrong-secret" not in done.stderr
    assert told(capsys, "log", "--config", str(config)) == before
    assert main(["doctor", "--config", str(config)]) == 1
    told_words = capsys.readouterr()
    assert "Wrong-secret" not in told_words.out + told_words.err
    # Many checks that failed alike are one row each; --all has them all.
    assert main(["ready", "--config", str(config)]) == 2
    few = capsys.readouterr().out
    assert main(["ready", "--all", "--config", str(config)]) == 2
    every = capsys.readouterr().out
    assert few.count("not known   catalogue") == 1 < every.count("not known   catalogue")
    assert "more (--all names them)" in few
    assert "more (--all" not in every


def test_who_is_signed_in_and_may_see_nothing_gets_gaps_and_no_plan_of_nothing(
    sandbox: RunningSandbox, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control("POST", "faults", {"kind": "deny", "principal": "muster"})
    try:
        found = told(capsys, "snapshot", "--config", str(config), expect=3)
    finally:
        sandbox.control("DELETE", "faults")
    assert found["resources"] == 0
    assert {gap["reason"] for gap in found["gaps"]} == {"denied"}
    assert main(["plan", "latest", "--config", str(config)]) == 1
    said = capsys.readouterr().err
    assert "error: there is no resource in the snapshot" in said
    assert f"{len(found['gaps'])} gaps hid what there was" in said


def test_an_init_that_fails_leaves_nothing_behind(
    sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "new" / "muster.toml"
    ready = ["--sandbox", str(sandbox.ready_file), "--config", str(config)]
    assert main(["init", *ready, "--vault", "azblob://acc/cont?sig=hunter2hunter2"]) == 1
    assert "hunter2" not in capsys.readouterr().err
    assert not list(config.parent.glob("*"))


def test_a_container_may_be_made_after_the_configuration(
    sandbox: RunningSandbox, tmp_path: Path
) -> None:
    """An empty ledger beside a vault that has one would part from its history."""
    config = tmp_path / "new" / "muster.toml"
    ready = ["--sandbox", str(sandbox.ready_file), "--config", str(config)]
    assert main(["init", *ready, "--vault", "azblob://acc/cont"]) == 0
    assert load(config).vault.url == "azblob://acc/cont"
    assert not (config.parent / "ledger.git").exists()
