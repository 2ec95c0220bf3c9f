"""Replication that is killed, gone on with, taken back: models are in the record as all else is."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from muster.cli import main
from muster.settings import Environment, load
from muster.wiring import Wiring
from snapshots import replication
from snapshots.replication import ReplicaState
from tests.replicate_fixtures import FINE_TUNED, QUESTION, ROOT, Site, with_identity

Scaled = Callable[[int, int], int]
PATIENCE = 60.0


@pytest.fixture
def site(pair_site: Site) -> Site:
    """A site on an estate as freshly loaded."""
    return pair_site


def started(site: Site, *options: str) -> subprocess.Popen[bytes]:
    """Begin a replication in a process of its own."""
    command = [sys.executable, "-m", "muster", "--config", str(site.file), "replicate"]
    return subprocess.Popen(
        [*command, "--apply", "--yes", "--quiet", *options],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def killed_after(site: Site, requests: int, *options: str) -> bool:
    """Kill -9 a replication once so many requests reached Azure; False when it ended before."""
    begun = site.sandbox.journal()[-1]["seq"]
    process = started(site, *options)
    until = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < until:
        after = site.sandbox.control("GET", f"journal?after={begun}&limit={requests}")["value"]
        if len(after) >= requests:
            process.kill()
            process.wait(10)
            return True
    process.wait(PATIENCE)
    return False


def told(site: Site, *words: str, expect: int = 0) -> Any:
    """Run a command for its JSON."""
    code = main(["--config", str(site.file), *words, "--format", "json", "--quiet"])
    out, err = site.capsys.readouterr()
    assert code == expect, (code, out[-2000:], err[-2000:])
    return json.loads(out)


def orphans(site: Site) -> list[str]:
    """What stands in the standby account twice, or for a proof."""
    endpoint = site.sandbox.call("GET", f"{site.standby}?api-version=2025-12-01").json()
    base = endpoint["properties"]["endpoint"].rstrip("/")
    scope = "https://cognitiveservices.azure.com/.default"

    def rows(path: str) -> list[Any]:
        answer = site.sandbox.call(
            "GET", f"{base}/openai/v1/{path}?limit=100", name="muster", scope=scope
        )
        return list(answer.json()["data"])

    names = Counter(f"file {row['filename']}" for row in rows("files"))
    marks = Counter(
        f"training {row['metadata']}"
        for row in rows("fine_tuning/jobs")
        if (row.get("metadata") or {}).get("muster_source")
    )
    found = [name for name, count in (names + marks).items() if count > 1]
    # The service writes one file of results for each training, all under one name.
    found = [name for name in found if "results" not in name]
    return found + [name for name in site.deployments() if name.startswith("muster-proof")]


def registry(site: Site) -> replication.Replication:
    """What is known of the pair."""
    with Wiring(load(site.file), Environment()) as wiring:
        return replication.read(wiring.ledger(), "swedencentral", "eastus2")


def in_step(site: Site) -> None:
    """The end state, however it was come by."""
    known = registry(site)
    assert known.last is not None
    assert known.last.complete
    assert {(r.target.name, r.state) for r in known.replicas} == {
        (name, ReplicaState.PROVED) for name in FINE_TUNED
    }
    assert orphans(site) == []
    assert site.replicate()["steps"] == []
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"


@pytest.mark.parametrize("way", ["checkpoint", pytest.param("retrain", marks=pytest.mark.stress)])
def test_a_killed_replication_goes_on_to_the_same_end_with_nothing_made_twice(
    site: Site, way: str, scaled: Scaled, tmp_path: Path
) -> None:
    site.sandbox.control("POST", "clock", {"scale": 5000 if way == "retrain" else 100})
    with_identity(site)
    options = ("--retrain",) if way == "retrain" else ()
    site.configure(f'fine_tuned = ["{way}"]')
    before = site.sandbox.control("GET", "dump")
    dice = random.Random(tmp_path.name)
    for number in range(scaled(1, 25)):
        site.sandbox.control("POST", "load", before)
        with Wiring(load(site.file), Environment()) as wiring:
            ledger = wiring.ledger()
            if ledger.tip(replication.BRANCH):
                path = replication.path_of("swedencentral", "eastus2")
                ledger.put(replication.BRANCH, {path: None}, "begin anew")
        known = len(list(Path(f"{site.file.parent}/ledger.git-records").glob("*.jsonl")))
        killed = killed_after(site, dice.randrange(60, 330), *options)
        site.sandbox.control("POST", "clock", {"advance": 30})
        records = list(Path(f"{site.file.parent}/ledger.git-records").glob("*.jsonl"))
        if killed and number % 2 == 0 and len(records) > known:
            told(site, "resume", "last")
        else:
            site.replicate(*options, "--apply", "--yes")
        in_step(site)


@pytest.mark.parametrize(
    "way",
    [
        pytest.param("source", marks=pytest.mark.stress),
        pytest.param("checkpoint", marks=pytest.mark.stress),
        "retrain",
    ],
)
@pytest.mark.stress
def test_a_replication_is_taken_back_models_and_all(site: Site, way: str) -> None:
    site.sandbox.control("POST", "clock", {"scale": 5000 if way == "retrain" else 100})
    if way == "checkpoint":
        with_identity(site)
    site.configure(f'fine_tuned = ["{way}"]')
    before = site.deployments()
    done = site.replicate(*(["--retrain"] if way == "retrain" else []), "--apply", "--yes")
    assert {s["way"] for s in done["steps"] if s["model"]} == {way}
    assert set(site.deployments()) >= FINE_TUNED
    undone = told(site, "undo", "last", "--apply", "--yes")
    assert {step["state"] for step in undone["steps"]} == {"undone"}
    stays = {str(step["undo_leaves"]) for step in undone["steps"] if step["undo_leaves"]}
    stays = {text for text in stays if "switched off" not in text}  # of settings that Azure keeps
    words = {"source": "", "checkpoint": "copied checkpoint stays", "retrain": "job stays"}[way]
    assert bool(stays) == bool(words)
    assert all(words in text for text in stays)
    # And the record keeps it, for whoever reads it later.
    file = max(Path(f"{site.file.parent}/ledger.git-records").glob("*.jsonl"))
    assert not words or words in file.read_text("utf-8")
    assert set(site.deployments()) == set(before)
    known = registry(site)
    assert known.last is not None
    assert not known.last.complete
    assert not any(replica.deployed for replica in known.replicas)
    assert orphans(site) == []


@pytest.mark.stress
def test_a_standby_account_that_was_deleted_is_taken_back_and_its_models_proved(
    site: Site,
) -> None:
    site.configure()
    assert site.replicate("--apply", "--yes")["complete"] is True
    answer = site.sandbox.call("DELETE", f"{site.standby}?api-version=2025-12-01")
    assert answer.ok, answer.text
    site.sandbox.control("POST", "clock", {"advance": 300})
    done = site.replicate("--apply", "--yes")
    assert "switch" in {s["action"] for s in done["steps"] if s["model"] is None}
    assert done["complete"] is True
    in_step(site)
