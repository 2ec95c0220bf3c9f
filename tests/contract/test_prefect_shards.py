"""Two workers share one snapshot; one is killed in the middle, and nothing is missing or twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flows.local_stack import POOL, down
from muster.settings import Environment, load
from muster.wiring import Wiring
from snapshots.shards import read_capture
from tests.prefect_fixtures import ROOT, PrefectSite, eventually

pytestmark = [pytest.mark.timeout(900)]


@pytest.fixture
def start_worker(prefect_site: PrefectSite) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start process workers of one queue, each in a process group of its own."""
    started: list[subprocess.Popen[bytes]] = []
    stack = prefect_site.stack

    def start(queue: str) -> subprocess.Popen[bytes]:
        name = f"{queue}-{len(started)}"
        command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
        command += ["--pool", POOL, "--work-queue", queue, "--limit", "1", "--name", name]
        with (stack.logs / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=stack.environment(None),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        for one in family(process.pid):
            lose(one)
        process.wait(30)


def family(pid: int) -> list[int]:
    """A process and all below it, as a machine that is lost takes them."""
    text = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, check=True).stdout
    parents = {int(a): int(b) for a, b in (line.split() for line in text.decode().splitlines())}
    found, look = [], [pid]
    while look:
        at = look.pop()
        found.append(at)
        look += [child for child, parent in parents.items() if parent == at]
    return found


def lose(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def shards_at(vault: Path, ending: str) -> list[Path]:
    return sorted(vault.glob(f"shards/*/shard-*{ending}"))


@pytest.mark.stress
def test_a_worker_that_dies_in_the_middle_costs_time_and_nothing_else(
    prefect_site: PrefectSite, start_worker: Callable[..., subprocess.Popen[bytes]]
) -> None:
    site, vault = prefect_site, prefect_site.config.parent / "vault"
    assert site.muster("snapshot", "--quiet") == 0  # somebody tampered since the first one
    down(site.stack, ["worker"])
    workers = [start_worker("shards"), start_worker("shards")]
    start_worker("default")
    azure = site.azure()
    azure.control("POST", "faults", {"kind": "latency", "seconds": 1.0, "plane": "arm"})
    try:
        run = site.start("take-snapshot/snapshots", groups=2, silence=20, start=240, content=False)
        eventually("two shards under way", lambda: len(shards_at(vault, ".beat")) == 2 or None)
        assert not shards_at(vault, ".json.gz"), "a shard was read before anybody could be lost"
        for pid in family(workers[0].pid):
            lose(pid)
    finally:
        azure.control("DELETE", "faults")
    ended = site.ended(run)
    assert ended.state == "Completed", f"{ended.message}\n{site.log(run)}"
    said = site.log(run)
    assert "showed no life" in said or "without a capture" in said, "nobody was lost"
    told = site.document(run)
    assert told["gaps"] == []
    with site.ledger() as ledger:
        entries = list(ledger.log())
        whole = ledger.load()
    assert len(entries) == 3, "the first snapshot, the one before, and this one once"
    assert entries[0].commit == told["snapshot"]
    assert entries[0].tree == entries[1].tree, "what one reader read is not what they read together"
    with Wiring(load(site.config), Environment()) as wiring:
        parts = [set(read_capture(wiring.vault(), run, n).snapshot.resources) for n in (0, 1)]
    assert all(parts)
    assert not parts[0] & parts[1]
    assert parts[0] | parts[1] == set(whole.resources)
    assert site.muster("verify", "--quiet") == 0


@pytest.mark.stress
def test_without_any_worker_for_shards_the_run_reads_them_itself(
    prefect_site: PrefectSite, start_worker: Callable[..., subprocess.Popen[bytes]]
) -> None:
    start_worker("default")
    run = prefect_site.start("take-snapshot/snapshots", parts=2, start=3, content=False)
    ended = prefect_site.ended(run)
    assert ended.state == "Completed", f"{ended.message}\n{prefect_site.log(run)}"
    assert "no worker began shard-00" in prefect_site.log(run)
    assert prefect_site.document(run)["gaps"] == []
