"""A run that is killed leaves nothing behind: Prefect's crash hook cleans up after it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.prefect_fixtures import PrefectSite, eventually

pytestmark = [pytest.mark.stress, pytest.mark.timeout(1500)]


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
    from drills.evidence import EvidenceBook

    with site.ledger() as ledger:
        found = [e for e in EvidenceBook(ledger, None).all() if e.document["drill"] == drill]
    last = found[-1] if found else None
    return last.id if last is not None and last.document["verdict"] == "interrupted" else None


def test_a_killed_drill_is_cleaned_up_by_the_hook(prefect_site: PrefectSite) -> None:
    site = prefect_site
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
