"""The report of the demo estate: made of what the commands recorded, with no call to Azure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.muster_site_fixtures import Site
from tests.sandbox_fixtures import RunningSandbox

pytestmark = pytest.mark.timeout(240)


def test_the_report_tells_what_was_recorded_and_calls_nobody(
    sandbox: RunningSandbox, new_site: Callable[..., Site], tmp_path: Path
) -> None:
    site = new_site(sandbox)
    site.run("snapshot")
    first = site.ask("report")
    parts = first["parts"]
    assert parts["estate"]["state"] == "good"
    for name in ("readiness", "drift", "drills", "evidence"):
        assert parts[name]["state"] == "not known", name
    assert {"run `muster ready`", "run `muster audit`"} <= {p["remedy"] for p in first["problems"]}

    site.run("approve", "--all", "--reason", "first", "--by", "you")
    site.run("audit", expect=None)
    site.run("verify")
    site.run("drill", "run", "vault-reconstruction", "--yes", "--approver", "you")
    fresh = site.ask("report", "--fresh", "--output", str(tmp_path / "fresh"))
    assert fresh["parts"]["readiness"]["state"] == "problem"  # it was asked just now
    site.run("report", "sign-off", "thread", "--owner", "maria", "--reason", "rule 7")

    seen = sandbox.journal()[-1]["seq"]
    target = tmp_path / "out"
    found = site.ask("report", "--output", str(target), "--to-vault")
    after = sandbox.journal()[-1]["seq"]
    # Reading the journal is no request of ours; nothing else came in between.
    rows = [r for r in sandbox.journal() if seen < r["seq"] <= after]
    assert [r["path"] for r in rows if not r["path"].startswith("/_")] == []

    parts = found["parts"]
    assert parts["estate"]["state"] == "good"
    assert parts["drift"]["state"] == "good"
    assert parts["drills"]["state"] == "good"
    assert parts["evidence"]["state"] == "note"  # whole, and nobody signed it
    # The demo estate has traps that readiness names; each has a pair or is of the estate.
    assert parts["readiness"]["state"] == "problem"
    readiness = (target / "readiness.html").read_text("utf-8")
    assert "swedencentral → eastus2" in readiness
    assert "120 more are needed" in readiness
    assert "The whole estate" in readiness
    words = (target / "unrecoverable.html").read_text("utf-8")
    assert "maria" in words
    assert "Commitment plans" in words
    assert (site.vault / found["vault"] / "index.html").is_file()
    for part in parts.values():
        for source in part["sources"]:
            assert source["at"], source
            ref = source["ref"].split(":")[0]
            assert site.git("cat-file", "-e", ref).returncode == 0, source

    # With Azure gone for good the report is the same, but for its time.
    broken = site.config.read_text().replace("https://localhost", "https://127.0.0.1:9/localhost")
    site.config.write_text(broken)
    again = site.ask("report", "--output", str(target))
    assert {n: p["state"] for n, p in again["parts"].items()} == {
        n: p["state"] for n, p in parts.items()
    }
    assert json.dumps(again["problems"]).count("could not be read") == 0
