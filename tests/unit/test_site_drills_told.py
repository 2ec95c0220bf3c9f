"""What a reader of the site is told of drills cannot be taken for its opposite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from muster.report.site import pages
from muster.report.site_model import Applied, Level
from snapshots.model import Json, JsonObject
from tests.report_site_fixtures import NOW, drill_document, healthy


def test_what_a_broken_copy_showed_is_not_told_as_found_in_the_real_one(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    document = drill_document("told-apart", number=71)
    check: JsonObject = {
        "name": "it is whole",
        "subject": "",
        "state": "passed",
        "detail": "",
        "seconds": 0.1,
        "negative_control": "failed",
        "control_detail": "what comes back is not what was kept",
    }
    id_ = made.evidence({**document, "checks": [check]})
    page = pages(made.site())[f"drill-{id_}.html"].decode()
    row = next(r for r in page.split("<tr>") if "it is whole" in r)
    cells = row.split("<td")
    assert "what comes back is not what was kept" in cells[3]  # under: a broken copy was
    assert "what comes back" not in cells[4]
    assert "nothing amiss" in cells[4]


def test_a_restore_that_its_drill_took_back_needs_nobody(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    record = Applied("20261122T100000Z-aaaaaa", "drill", NOW, False, 6, 0)
    made.applied = (record,)
    assert any("was not finished" in p.text for p in made.site().problems)
    made.applied = (replace(record, taken_back=True),)
    site = made.site()
    assert site.problems == ()
    assert "to drill: taken back" in pages(site)["evidence.html"].decode()


def test_a_dry_run_that_failed_and_what_never_ran_for_real_are_told(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    assert "1 never run for real" in made.site().drills.part.headline
    document = drill_document("only-tried", mode="dry-run", number=72)
    step: JsonObject = {"name": "one", "kind": "wait", "state": "failed", "seconds": 1}
    steps: list[Json] = [{**step, "detail": "no"}]
    failed: JsonObject = {"steps": steps, "verdict": "failed", "rto_seconds": None}
    made.evidence({**document, **failed, "reasons": ["step one: no"]})
    told = [p for p in made.site().problems if "only-tried" in p.text]
    assert [p.level for p in told] == [Level.RISK]
    assert "never run for real" in told[0].text
