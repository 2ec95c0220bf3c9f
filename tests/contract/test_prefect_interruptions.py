"""Runs that are cancelled or killed: what is in hand is known, nothing is held, and all goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drills.evidence import EvidenceBook
from muster.settings import Environment, load, write_private
from muster.wiring import Wiring
from snapshots.ledger import EVIDENCE
from snapshots.model import JsonObject
from snapshots.replication import read
from snapshots.steps import Record, StepState
from tests.prefect_fixtures import PrefectSite, eventually

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1500)]
API = "api-version=2025-09-01"
# What the demo estate's standby takes without asking anybody for more.
PAIR = """\
[estate.pair.sku]
gpt4o = { name = "Standard", capacity = 60 }
gpt4o-ptu = { name = "GlobalStandard", capacity = 50 }
[estate.pair.versions]
"gpt-4o@2024-08-06" = "2024-11-20"
[estate.pair.replicate]
prompts = ["A pipe burst in my kitchen."]

# Git keeps the state."""
RESTORE = """
[restore]
threads = 1
[restore.secrets]
"account-connection/care-search" = "file:secret.txt"
"project-connection/crm-api" = "file:secret.txt"
"project-connection/parcel-service" = "file:secret.txt"
"""


@pytest.fixture
def site(prefect_site: PrefectSite) -> PrefectSite:
    """One site for all of this module, set up so that steps come one after the other."""
    text = prefect_site.config.read_text("utf-8")
    if "[restore]" not in text:
        text = text.replace("# Git keeps the state.", PAIR)
        write_private(prefect_site.config.with_name("secret.txt"), "canary-of-a-connection\n")
        prefect_site.config.write_text(text + RESTORE, "utf-8")
    return prefect_site


def process_of(run: str) -> int:
    """The process that executes a run: the one that was told its id."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        words = (folder / "cmdline").read_bytes()
        if any(run.encode() in line for line in told if b"FLOW_RUN_ID" in line) and words:
            return int(folder.name)
    raise LookupError(run)


def interrupted(site: PrefectSite, drill: str) -> str | None:
    """The id of the drill's newest evidence, once it says that it was interrupted."""
    with site.ledger() as ledger:
        found = [e for e in EvidenceBook(ledger, None).all() if e.document["drill"] == drill]
    last = found[-1] if found else None
    return last.id if last is not None and last.document["verdict"] == "interrupted" else None


def damage(site: PrefectSite) -> list[str]:
    """Delete all deployments of an account; give their paths."""
    azure = site.azure()
    account = azure.account("ais-care-swc")
    listed = azure.call("pipeline", "GET", f"{account}/deployments?{API}")["value"]
    names = [str(d["name"]) for d in listed if isinstance(d, dict)]  # type: ignore[union-attr]
    for name in names:
        azure.call("pipeline", "DELETE", f"{account}/deployments/{name}?{API}")
    assert len(names) > 2, "too few to be stopped in the middle of"
    return [f"{account}/deployments/{name}" for name in names]


@contextmanager
def slow_writes(site: PrefectSite, seconds: float) -> Iterator[None]:
    """Have Azure take its time for every write."""
    azure = site.azure()
    slow: JsonObject = {"kind": "latency", "seconds": seconds, "plane": "arm", "method": "PUT"}
    azure.control("POST", "faults", slow)
    try:
        yield
    finally:
        azure.control("DELETE", "faults")


def puts(site: PrefectSite, paths: list[str]) -> dict[str, int]:
    """How often each of these was written by muster, all in all."""
    rows = site.azure().control("GET", "journal")["value"]
    found = dict.fromkeys(paths, 0)
    for row in rows if isinstance(rows, list) else []:
        path = str(row["path"]).partition("?")[0].lower()  # type: ignore[index, call-overload]
        for one in paths:
            if row["method"] == "PUT" and path == one.lower():  # type: ignore[index, call-overload]
                found[one] += 1
    return found


def record(site: PrefectSite, id_: str) -> Record:
    with Wiring(load(site.config), Environment()) as wiring:
        return wiring.records().read(id_)


def begun_record(site: PrefectSite, run: str) -> str:
    """The record that the run's decision became, once its first step is done and not its last."""

    def look() -> str | None:
        became = [str(d["became"]) for d in site.decisions(run) if d["became"]]
        if not became:
            return None
        found = record(site, became[0])
        states = [found.state(step.id) for step in found.plan.steps]
        assert StepState.WAITING in states, "all is done already: nothing can be interrupted"
        return became[0] if StepState.DONE in states else None

    return eventually(f"a step of {run}", look)


def approved_restore(site: PrefectSite, reason: str) -> str:
    run = site.start("restore-snapshot/restores", snapshot=site.first, apply=True)
    site.paused(run)
    assert (
        site.with_server("approve-run", run, "--approve", "--who", "Ada", "--reason", reason) == 0
    )
    return run


def nothing_is_held(site: PrefectSite) -> None:
    """No slot of the ledger's limit is taken, and the next writer gets through."""
    eventually("the ledger's turn is given back", lambda: site.slots_taken() == 0 or None)
    assert site.muster("snapshot", "--quiet") == 0


def test_a_cancelled_restore_leaves_a_record_that_goes_on_and_can_be_taken_back(
    site: PrefectSite,
) -> None:
    gone = damage(site)
    before = puts(site, gone)
    with slow_writes(site, 6):
        run = approved_restore(site, "to be cancelled")
        id_ = begun_record(site, run)
        site.cancel(run)
        ended = site.ended(run)
    assert ended.type == "CANCELLED", f"{ended.message}\n{site.log(run)}"
    found = record(site, id_)
    states = [found.state(step.id) for step in found.plan.steps]
    assert StepState.DONE in states
    assert StepState.WAITING in states, "it was not stopped"
    assert StepState.FAILED not in states, "a step in hand was broken off"
    assert f"muster resume {id_}" in site.log(run)
    told = site.document(run)
    assert (told["record"], told["applied"]) == (id_, True)
    assert f"muster resume {id_}" in site.event("muster.restore.stopped", run)["payload"]["words"]
    assert len(site.events("muster.restore.stopped", run)) == 1, "it was told twice"
    nothing_is_held(site)

    assert site.muster("resume", id_, "--quiet") == 0
    written = puts(site, gone)
    assert {path: n - before[path] for path, n in written.items()} == dict.fromkeys(gone, 1)
    assert site.muster("restore", site.first, "--quiet") == 0
    assert record(site, id_).finished_at is not None
    assert site.muster("undo", id_, "--apply", "--yes", "--quiet") == 0
    undone = record(site, id_)
    assert {undone.state(step.id) for step in undone.plan.steps} == {StepState.UNDONE}
    assert site.muster("restore", site.first, "--apply", "--yes", "--quiet") == 0


def test_a_killed_restore_is_told_by_the_hook_and_goes_on(site: PrefectSite) -> None:
    gone = damage(site)
    before = puts(site, gone)
    with slow_writes(site, 4):
        run = approved_restore(site, "to be killed")
        id_ = begun_record(site, run)
        os.kill(process_of(run), signal.SIGKILL)
        assert site.ended(run).type == "CRASHED"
    event = site.event("muster.restore.stopped", run)
    assert event["payload"]["record"] == id_
    assert f"muster resume {id_}" in event["payload"]["words"]
    site.said(run, f"muster undo {id_}")
    assert site.muster("resume", id_, "--quiet") == 0
    written = puts(site, gone)
    # The one in hand when it was killed may never have left this machine, or have been repeated.
    assert {n - before[path] for path, n in written.items()} <= {1, 2}
    assert sum(written.values()) - sum(before.values()) <= len(gone) + 1
    assert record(site, id_).finished_at is not None
    nothing_is_held(site)


def test_a_restore_that_is_cancelled_while_it_waits_does_nothing_and_says_so(
    site: PrefectSite,
) -> None:
    damage(site)
    run = site.start("restore-snapshot/restores", snapshot=site.first, apply=True)
    site.paused(run)
    site.cancel(run)
    assert site.ended(run).type == "CANCELLED"
    decided = eventually("the decision's end", lambda: site.decisions(run) or None)
    assert [d["answer"] for d in decided] == ["withdrawn"]
    assert site.event("muster.approval.withdrawn", run)
    assert site.muster("restore", site.first, "--apply", "--yes", "--quiet") == 0


def test_a_replication_succeeds_and_a_cancelled_one_goes_on(site: PrefectSite) -> None:
    azure = site.azure()
    azure.control("POST", "clock", {"scale": 50})
    azure.control("PUT", "settings", {"retry_after": 0})
    with slow_writes(site, 3):
        run = site.start("replicate-models/replication")
        site.said(run, "muster resume")  # the record, before the first step
        site.cancel(run)
        ended = site.ended(run)
    assert ended.type == "CANCELLED", f"{ended.message}\n{site.log(run)}"
    stopped = site.document(run)
    assert stopped["complete"] is False
    id_ = str(stopped["record"])
    assert f"muster resume {id_}" in site.log(run)
    assert site.event("muster.replication.stopped", run)["payload"]["records"] == [id_]
    nothing_is_held(site)
    assert site.muster("resume", id_, "--quiet") == 0

    whole = site.ended(site.start("replicate-models/replication"))
    assert whole.state == "Completed", f"{whole.message}\n{site.log(whole.id)}"
    found = site.document(whole.id)
    assert found["complete"] is True
    assert found["remaining_changes"] == []
    assert "in step" in site.markdown(whole.id)
    assert site.event("muster.replication.done", whole.id)
    again = site.ended(site.start("replicate-models/replication"))
    assert again.state == "Completed", f"{again.message}\n{site.log(again.id)}"
    assert site.document(again.id)["steps"] == []
    with site.ledger() as ledger:
        last = read(ledger, "swedencentral", "eastus2").last
    # Without that, `muster ready` would call the standby out of date one day.
    assert last is not None, "nobody wrote down that it was in step"
    assert (last.complete, last.steps) == (True, 0)


@pytest.mark.parametrize("deployment", ["take-snapshot/snapshots", "audit-changes/audits"])
def test_a_cancelled_reader_gives_its_turn_back(site: PrefectSite, deployment: str) -> None:
    azure = site.azure()
    azure.control("POST", "faults", {"kind": "latency", "seconds": 3.0, "plane": "arm"})
    try:
        run = site.start(deployment)
        eventually("the ledger's turn is taken", lambda: site.slots_taken() or None)
        with site.ledger() as ledger:
            before = ledger.tip("live")
        site.cancel(run)
        assert site.ended(run).type == "CANCELLED"
    finally:
        azure.control("DELETE", "faults")
    with site.ledger() as ledger:
        assert ledger.tip("live") == before, "half of a snapshot was kept"
    nothing_is_held(site)


def test_a_killed_drill_is_cleaned_up_by_the_hook(site: PrefectSite) -> None:
    slow = site.script("killed-look", wait=900)
    run = site.start("run-drill/drills", drill=slow, mode="real", decide_minutes=30)
    site.paused(run)
    assert site.with_server("approve-run", run, "--approve", "--reason", "to be killed") == 0
    site.said(run, "step 2 of 2")
    assert site.groups()
    os.kill(process_of(run), signal.SIGKILL)
    assert site.ended(run).type == "CRASHED"
    evidence = site.evidence(eventually("its evidence", lambda: interrupted(site, slow)))
    assert evidence["cleanup"]["state"] == "clean"
    assert not site.groups()
    with site.ledger() as ledger:
        assert ledger.tip(EVIDENCE)


def test_a_cancelled_drill_cleans_up_and_its_evidence_says_so(site: PrefectSite) -> None:
    slow = site.script("cancelled-look", wait=600)
    run = site.start("run-drill/drills", drill=slow, mode="real", decide_minutes=30)
    site.paused(run)
    assert site.with_server("approve-run", run, "--approve", "--reason", "to be cancelled") == 0
    site.said(run, "step 2 of 2")
    assert site.groups(), "the drill has made nothing that could be left"
    site.cancel(run)
    assert site.ended(run).type == "CANCELLED"
    decision = eventually(
        "the decision's end",
        lambda: next((d for d in site.decisions(run) if d["became"]), None),
    )
    evidence = site.evidence(decision["became"])
    assert evidence["verdict"] == "interrupted"
    assert evidence["cleanup"]["state"] == "clean"
    assert not site.groups()


def test_nobody_waits_for_ever(site: PrefectSite) -> None:
    damage(site)
    run = site.ended(
        site.start(
            "restore-snapshot/restores", snapshot=site.first, apply=True, decide_minutes=0.05
        )
    )
    assert run.type == "FAILED", run.message
    # The server ends a run that waited too long, and its process writes that down a moment later.
    decided = eventually("the decision's end", lambda: site.decisions(run.id) or None)
    assert [d["answer"] for d in decided] == ["expired"]
    assert site.event("muster.approval.expired", run.id)["resource"]["muster.severity"]
    assert site.muster("restore", site.first, "--apply", "--yes", "--quiet") == 0
