"""Rehearsals in a twin of a kept snapshot, and a restore on a machine that has nothing left."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drill_fixtures import DrillSite

ROOT = Path(__file__).parents[2]
FILTERS = """\
objective: {rto: 1h}
target: standby
steps:
  - verb: restore
    only: ["rai-policy/*", "rai-blocklist/*"]
checks:
  - check: state
    with: {kinds: [rai-policy, rai-blocklist]}
"""


def test_a_rehearsal_in_a_twin_of_the_snapshot_gives_a_distribution_and_evidence(
    drill_site: DrillSite,
) -> None:
    drill_site.script("filters", FILTERS)
    seen = len(drill_site.sandbox.journal())
    words = ("--seeds", "3", "--seed", "7", "--time-scale", "60", "--fault-rate", "0.01")
    code, found = drill_site.drill("rehearse", "filters", *words)
    assert (code, found["verdict"], found["errors"]) == (0, "passed", [])
    assert [run["seed"] for run in found["runs"]] == [7, 8, 9]
    assert found["verdicts"]["passed"] == 3
    rto = found["rto"]
    assert 0 < rto["min"] <= rto["p50"] <= rto["p90"] <= rto["max"] < 3600
    assert sum(row["runs"] for row in found["histogram"]) == 3
    assert found["snapshot"] == drill_site.muster("show")[1].get("id", found["snapshot"])
    # A purchase does not come back, and the twin says that it has it not.
    assert any(words.startswith("commitment-plan/") for words in found["lacks"])
    assert len(drill_site.sandbox.journal()) == seen  # nothing of the real estate was called
    # The evidence is kept, and checked from its runs.
    code, checked = drill_site.drill("check", "last")
    assert (code, checked["whole"], checked["verdict"]) == (0, True, "passed")
    [document] = drill_site.evidence()
    ages = [run["rpo_seconds"] for run in document["rehearsal"]["runs"]]
    # Each run loses what it would have lost right after the snapshot: the later are no older.
    assert max(ages) - min(ages) < 600
    forged = drill_site.folder / "forged.json"
    better = json.loads(json.dumps(document))
    better["rehearsal"]["rto"]["p90"] = 0.1
    forged.write_text(json.dumps(better))
    code, checked = drill_site.drill("check", str(forged))
    assert code == 2
    assert "rto of the rehearsal does not follow from its runs" in checked["problems"]
    # What was rehearsed stands beside what a real run takes.
    code, real = drill_site.run("filters")
    assert (code, real["estimate"]["runs"]) == (0, 3)
    assert real["estimate"]["p50"] == rto["p50"]


@pytest.mark.stress
def test_a_rehearsal_with_a_fault_that_nothing_survives_names_the_step(
    drill_site: DrillSite,
) -> None:
    drill_site.script(
        "filters",
        FILTERS.replace(
            "  - verb",
            "  - fault: rule\n    name: policies cannot be written\n"
            "    rule: {kind: error, status: 400, code: Denied, method: PUT, path: raiPolicies}\n"
            "  - verb",
        ),
    )
    code, found = drill_site.drill("rehearse", "filters", "--seeds", "2", "--fault-rate", "0")
    assert (code, found["verdict"], found["verdicts"]["failed"]) == (2, "failed", 2)
    assert found["failing_steps"] == {"verb restore": 2}
    assert found["rto"] is None
    assert [run["cleanup"] for run in found["runs"]] == ["clean", "clean"]
    assert drill_site.drill("rehearse", "filters", "--from", "no-such-snapshot")[0] == 1


def test_many_seeds_go_two_at_a_time_and_each_is_run_once(drill_site: DrillSite) -> None:
    words = ("rehearse", "vault-reconstruction", "--estate", "demo", "--seeds", "6", "--seed", "3")
    code, found = drill_site.drill(*words)
    assert (code, found["errors"]) == (0, [])
    assert [run["seed"] for run in found["runs"]] == [3, 4, 5, 6, 7, 8]
    assert found["verdicts"]["passed"] == 6


def test_a_rehearsal_that_is_interrupted_says_so_and_leaves_no_sandbox(
    drill_site: DrillSite,
) -> None:
    drill_site.script("waits", "steps:\n  - wait: 10h\nchecks:\n  - check: reconstructed\n")
    words = ["drill", "rehearse", "waits", "--estate", "demo", "--seeds", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", *words, "--config", str(drill_site.file)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    for line in process.stderr:
        if b"rehearsal 1 of 2" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    sandboxes = [int(pid) for pid in children.read_text().split()]
    assert len(sandboxes) == 1
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in sandboxes)
    [document] = drill_site.evidence()
    assert (document["verdict"], document["mode"]) == ("interrupted", "rehearsal")


@pytest.mark.stress
def test_a_machine_without_a_ledger_restores_from_the_vault_alone(
    drill_site: DrillSite, tmp_path: Path
) -> None:
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for name in ("muster.toml", "principal.toml"):
        shutil.copy2(drill_site.folder / name, fresh / name)
    shutil.copytree(drill_site.folder / "vault", fresh / "vault")
    shutil.rmtree(drill_site.folder / "ledger.git")
    site = replace(drill_site, file=fresh / "muster.toml")
    site.script(
        "from-nothing",
        "target: isolated\nscope: {only: ['rai-policy/*', 'rai-blocklist/*']}\nsteps:\n"
        "  - verb: reconstruct\n    name: ledger and snapshot from the vault\n"
        "  - verb: restore\n"
        "checks:\n  - check: state\n    with: {kinds: [rai-policy, rai-blocklist]}\n",
    )
    assert not (fresh / "ledger.git").exists()
    code, found = site.run("from-nothing")
    assert (code, found["verdict"], found["reasons"]) == (0, "passed", [])
    assert "payloads from" in found["steps"][0]["detail"]
    assert not site.left_behind()
    assert site.drill("check", "last")[1]["whole"]  # kept in the ledger that was rebuilt
    # A vault that has no bundle is no way back, and says so.
    shutil.rmtree(fresh / "ledger.git")
    shutil.rmtree(fresh / "vault" / "ledger")
    code, words = site.run("from-nothing")
    assert (code, "there is no ledger yet" in words) == (1, True)


@pytest.mark.stress
def test_what_is_reconstructed_is_restored_and_not_what_the_ledger_has_since(
    drill_site: DrillSite,
) -> None:
    """The ledger goes on after the bundle: a restore from nothing knows the bundle alone."""
    drill_site.script(
        "from-nothing",
        "target: isolated\nscope: {only: ['rai-policy/care-polite']}\nsteps:\n"
        "  - verb: reconstruct\n  - verb: restore\nchecks:\n  - check: state\n"
        "    with: {kinds: [rai-policy]}\n",
    )
    _, first = drill_site.run("from-nothing")
    (drill_site.folder / "vault" / "payloads").rename(drill_site.folder / "vault" / "lost")
    code, found = drill_site.run("from-nothing")
    assert (code, found["verdict"]) == (2, "failed")
    assert "missing from the vault" in found["steps"][0]["detail"]
    assert found["steps"][1]["state"] == "skipped"
    assert first["verdict"] == "passed"
