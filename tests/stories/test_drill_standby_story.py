"""Drills in the standby and the primary: what they wrote is taken back, and proved to be gone."""

from __future__ import annotations

import pytest

from snapshots.clock import SystemClock
from snapshots.records import Records
from tests.drill_fixtures import DrillSite

FILTERS = """\
target: standby
steps:
  - verb: restore
    only: ["rai-policy/*", "rai-blocklist/*"]
checks:
  - check: state
    with: {kinds: [rai-policy, rai-blocklist]}
"""


def test_what_a_drill_restored_into_the_standby_is_gone_afterwards(drill_site: DrillSite) -> None:
    drill_site.script("filters", FILTERS)
    before = drill_site.azure()
    seen = len(drill_site.sandbox.journal())
    code, found = drill_site.run("filters")
    assert (code, found["verdict"], found["reasons"]) == (0, "passed", [])
    writes = [e for e in drill_site.sandbox.journal()[seen:] if e["method"] in ("PUT", "DELETE")]
    assert {e["method"] for e in writes} == {"PUT", "DELETE"}  # it did something, and took it back
    assert drill_site.azure() == before
    assert found["cleanup"]["state"] == "clean"
    assert any("as they were before" in words for words in found["cleanup"]["proof"])
    assert found["cleanup"]["removed"]


@pytest.mark.stress
def test_a_restore_that_cannot_be_taken_back_is_told_and_done_later(drill_site: DrillSite) -> None:
    drill_site.script("filters", FILTERS)
    before = drill_site.azure()
    stuck = {"kind": "error", "status": 409, "code": "Stuck", "method": "DELETE", "id": "stuck"}
    drill_site.sandbox.control("POST", "faults", {**stuck, "path": "raiPolicies"})
    code, found = drill_site.run("filters")
    assert (code, found["verdict"], found["cleanup"]["state"]) == (2, "failed", "left")
    assert "something of the drill is left behind" in found["reasons"]
    assert any("rai-policy" in words for words in found["cleanup"]["left"])
    assert drill_site.azure() != before
    code, found = drill_site.drill("clean")  # the fault is still there
    assert (code, found["cleaned"], len(found["left"])) == (2, [], 1)
    drill_site.sandbox.control("DELETE", "faults/stuck")
    code, found = drill_site.drill("clean")
    assert (code, len(found["cleaned"]), found["left"]) == (0, 1, [])
    assert drill_site.azure() == before


def test_a_failover_that_is_meant_stays_and_the_next_drill_leaves_it(drill_site: DrillSite) -> None:
    drill_site.script("filters", FILTERS.replace("only:", "keep: true\n    only:"))
    before = drill_site.azure()
    code, found = drill_site.run("filters")
    assert (code, found["verdict"], found["cleanup"]["state"]) == (0, "passed", "clean")
    assert len(found["cleanup"]["kept"]) == 1
    assert drill_site.azure() != before
    assert drill_site.drill("run", "vault-reconstruction")[0] == 0
    assert drill_site.azure() != before
    code, _ = drill_site.muster("undo", "last", "--apply", "--yes")
    assert code == 0
    assert drill_site.azure() == before


def test_keep_leaves_a_standby_until_somebody_names_the_run(drill_site: DrillSite) -> None:
    drill_site.script("filters", FILTERS)
    before = drill_site.azure()
    code, found = drill_site.run("filters", "--keep")
    assert (code, found["verdict"], found["cleanup"]["state"]) == (2, "not proved", "kept")
    assert drill_site.drill("run", "vault-reconstruction")[0] == 0
    assert drill_site.azure() != before  # a nightly drill does not tear a failover down
    code, cleaned = drill_site.drill("clean")
    assert (code, cleaned["left"]) == (2, [found["id"]])
    code, cleaned = drill_site.drill("clean", found["id"][:18])
    assert (code, cleaned["cleaned"]) == (0, [found["id"]])
    assert drill_site.azure() == before
    assert drill_site.drill("clean", "nobody")[0] == 1


def test_a_drill_on_the_primary_itself_puts_back_what_it_overwrote(drill_site: DrillSite) -> None:
    drill_site.script(
        "in-place",
        "target: same\napprovers: [Anna]\nsteps:\n"
        "  - verb: restore\n    only: [rai-policy/claims-strict]\n"
        "checks:\n  - check: state\n    with: {kinds: [rai-policy]}\n",
    )
    account = "rg-ai-prod/providers/Microsoft.CognitiveServices/accounts/aoai-claims-swc"
    path = f"/subscriptions/{drill_site.sandbox.subscription}/resourceGroups/{account}"
    path += "/raiPolicies/claims-strict?api-version=2025-09-01"
    policy = drill_site.sandbox.call("GET", path).json()
    loose = [{**f, "severityThreshold": "High"} for f in policy["properties"]["contentFilters"]]
    policy["properties"]["contentFilters"] = loose
    assert drill_site.sandbox.call("PUT", path, {"properties": policy["properties"]}).ok
    before = drill_site.azure()
    code, found = drill_site.run("in-place")
    assert (code, found["verdict"]) == (0, "passed")
    assert any(words.startswith("update of rai-policy") for words in found["cleanup"]["removed"])
    assert drill_site.azure() == before


def test_a_failed_step_of_a_restore_is_a_failed_drill_and_nothing_stays(
    drill_site: DrillSite,
) -> None:
    drill_site.script("filters", FILTERS)
    before = drill_site.azure()
    fault = {"kind": "error", "status": 400, "code": "Broken", "method": "PUT", "id": "broken"}
    drill_site.sandbox.control("POST", "faults", {**fault, "path": "raiPolicies/claims-internal"})
    code, found = drill_site.run("filters")
    assert (code, found["verdict"]) == (2, "failed")
    assert "steps of the restore were not done" in found["steps"][0]["detail"]
    assert found["cleanup"]["state"] == "clean"
    drill_site.sandbox.control("DELETE", "faults")
    assert drill_site.azure() == before


@pytest.mark.stress
def test_a_file_that_an_interrupted_restore_uploaded_is_found_and_deleted(
    drill_site: DrillSite,
) -> None:
    """Its id was never written down: only the name says that it was the drill's."""
    drill_site.script("filters", FILTERS.replace("rai-blocklist/*", "file/*valid.jsonl"))
    before = drill_site.azure()
    code, found = drill_site.run("filters", "--keep")
    assert found["cleanup"]["state"] == "kept"
    record = next((drill_site.folder / "ledger.git-records").glob("*.jsonl"))
    lines = record.read_text().splitlines(keepends=True)
    kept = [n for n in lines if not ('"state":"done"' in n and '"id":"file-' in n)]
    assert len(kept) < len(lines)
    record.write_text("".join(kept))
    read = Records(record.parent, clock=SystemClock()).read(record.stem)
    assert not any(o.id.startswith("file-") for o in read.outcomes)
    code, cleaned = drill_site.drill("clean", found["id"])
    assert (code, cleaned["left"]) == (0, [])
    assert drill_site.azure() == before
