"""A standby in another tenant: models come over with a token of each, and nothing else does."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from muster.cli import main
from tests.replicate_fixtures import FINE_TUNED, QUESTION, ROOT, Site
from tests.sandbox_fixtures import RunningSandbox

TENANT = "7b1f6f7e-2c7f-4c0e-9d8d-2f6a1f0c5e11"
Start = Callable[..., RunningSandbox]


@pytest.fixture
def site(new_sandbox: Start, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """The demo estate, with the recovery subscription in a tenant of its own."""
    text = (ROOT / "drills/sandbox/estates/demo.yaml").read_text("utf-8")
    mark = "display_name: Contoso AI Recovery,"
    assert text.count(mark) == 1
    estate = tmp_path / "two-tenants.yaml"
    estate.write_text(text.replace(mark, f"{mark} tenant: {TENANT},"), "utf-8")
    sandbox = new_sandbox("--estate", str(estate))
    sandbox.control("PUT", "settings", {"throttle": False})
    sandbox.control("POST", "clock", {"scale": 100})
    return Site(sandbox, tmp_path / "site", capsys)


def test_models_come_over_from_another_tenant_and_answer_as_their_source(site: Site) -> None:
    site.configure('fine_tuned = ["source", "checkpoint", "cross-tenant"]')
    text = site.file.read_text("utf-8")
    pair = 'standby = "eastus2"\n'
    site.file.write_text(text.replace(pair, f'{pair}tenant = "{TENANT}"\n'), "utf-8")

    dry = site.replicate()
    for choice in dry["pairs"][0]["choices"]:
        assert choice["way"] == "cross-tenant"
        assert [why.partition(":")[0] for why in choice["refused"]] == ["source", "checkpoint"]
        assert "another tenant" in choice["refused"][0]
    done = site.replicate("--apply", "--yes")
    assert done["complete"] is True
    models = {m["target"].rsplit("/", 1)[-1]: m for m in done["pairs"][0]["models"]}
    assert {(name, m["way"], m["state"]) for name, m in models.items()} == {
        (name, "cross-tenant", "proved") for name in FINE_TUNED
    }
    here, there = site.sandbox, {**site.sandbox.ready, "tenant": TENANT}
    site.sandbox = replace(here, ready=there, _tokens={})
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"
    site.sandbox = here
    sent = [
        row
        for row in site.sandbox.journal()
        if row["method"] == "PUT" and row["path"].endswith(("/claims-triage", "/claims-tone"))
    ]
    assert sent
    assert all(row["status"] in {200, 201} for row in sent)
    assert site.replicate("--apply", "--yes")["steps"] == []
    main(["ready", "--config", str(site.file), "--format", "json", "--quiet"])
    checks = json.loads(site.capsys.readouterr().out)["checks"]
    assert [c for c in checks if "could not be asked" in c["detail"]] == []
    assert {c["state"] for c in checks if c["name"] == "fine-tuned model"} == {"met"}


def test_a_restore_to_the_standby_goes_to_the_pairs_tenant_and_lists_who_is_unknown_there(
    site: Site,
) -> None:
    site.configure()

    def told(*words: str) -> tuple[int, Any]:
        code = main([*words, "--config", str(site.file), "--format", "json", "--quiet"])
        out = site.capsys.readouterr().out
        return code, json.loads(out) if out.strip() else None

    restoring = ("restore", "latest", "--to", "standby", "--only", "rai-policy/*",
                 "--only", "role-assignment/*")  # fmt: skip
    # The negative control: without the pair's tenant the target is looked for in the wrong one.
    code, blind = told(*restoring)
    assert (code, blind["steps"]) == (3, [])
    assert blind["gaps"]
    text = site.file.read_text("utf-8")
    pair = 'standby = "eastus2"\n'
    site.file.write_text(text.replace(pair, f'{pair}tenant = "{TENANT}"\n'), "utf-8")
    site.sandbox.control("DELETE", "journal")
    code, planned = told(*restoring)
    assert code == 0, planned
    steps = str(len(planned["steps"]))
    code, done = told(*restoring, "--apply", "--yes", "--approve", steps)
    assert code == 0, (code, done and done["steps"], done and done["remaining_changes"])
    assert {s["key"].partition("/")[0] for s in done["steps"]} >= {"rai-policy"}
    lost = [n for n in done["not_restorable"] if n["key"].startswith("role-assignment/")]
    assert lost
    assert all("another tenant" in n["sentence"] for n in lost)
    changed = [e for e in site.sandbox.journal() if e["method"] in {"PUT", "DELETE", "PATCH"}]
    assert changed
    assert all(f"/subscriptions/{site.dr}/" in e["path"].lower() for e in changed)
    undone_code, undone = told("undo", "last", "--apply", "--yes")
    assert (undone_code, {s["state"] for s in undone["steps"]}) == (0, {"undone"})


def test_within_one_tenant_no_model_goes_that_way(pair_site: Site) -> None:
    pair_site.configure('fine_tuned = ["cross-tenant"]')
    found = pair_site.replicate(expect=2)
    for choice in found["pairs"][0]["choices"]:
        assert choice["way"] is None
        assert "in one tenant" in choice["refused"][0]
