"""The operator role of docs/roles is enough to replicate, to be ready, and to undo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from muster.cli import main
from snapshots.permissions import Role
from tests.replicate_fixtures import FINE_TUNED, Site
from tests.sandbox_fixtures import RunningSandbox
from tests.stories.test_snapshot_roles import CustomRole


@pytest.mark.stress
def test_the_operators_role_is_enough_to_replicate_to_be_ready_and_to_undo(
    sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sandbox.control("POST", "clock", {"scale": 100})
    CustomRole(sandbox, Role.OPERATOR, "stranger", name="muster operator of docs/roles")
    site = Site(sandbox, tmp_path / "site", capsys, principal="stranger")
    site.configure()
    before = set(site.deployments())
    done = site.replicate("--apply", "--yes")
    assert done["complete"] is True
    assert set(site.deployments()) >= FINE_TUNED
    main(["ready", "--config", str(site.file), "--format", "json", "--quiet"])
    found = json.loads(capsys.readouterr().out)
    unasked = [c for c in found["checks"] if "could not be asked" in c["detail"]]
    assert unasked == []
    assert {c["state"] for c in found["checks"] if c["name"] == "permissions"} == {"met"}
    line = ["undo", "last", "--apply", "--yes", "--config", str(site.file), "--quiet"]
    main([*line, "--format", "json"])
    steps = json.loads(capsys.readouterr().out)["steps"]
    # Azure has no call that deletes a Defender setting, so no role grants one.
    left = {s["key"].partition("/")[0] for s in steps if s["state"] != "undone"}
    assert left <= {"defender-setting"}
    assert set(site.deployments()) == before
