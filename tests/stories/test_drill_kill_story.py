"""A drill is ended at any instant: nothing it made stays, and its evidence says interrupted."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from snapshots.busy import Busy
from snapshots.clock import SystemClock
from tests.drill_fixtures import DrillSite

ROOT = Path(__file__).parents[2]
# It writes to the standby, to a file, to a group of its own, and breaks the sandbox.
STANDBY = """\
target: standby
steps:
  - switch: file
    path: position.txt
    content: standby
  - fault: rule
    rule: {kind: latency, seconds: 0.01, method: PUT}
  - verb: restore
    only: ["rai-policy/*", "rai-blocklist/*", "file/*valid.jsonl"]
  - wait: 1s
checks:
  - check: state
    with: {kinds: [rai-policy, rai-blocklist]}
"""


def started(site: DrillSite, name: str) -> subprocess.Popen[bytes]:
    """A drill in a process of its own; its journal has begun when this comes back."""
    words = ["drill", "run", name, "--quiet", "--sandbox", str(site.sandbox.ready_file)]
    known = set(site.state.glob("*.jsonl"))
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", *words, "--config", str(site.file)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not set(site.state.glob("*.jsonl")) - known:
        assert process.poll() is None
        assert time.monotonic() < deadline
        rest(process, 0.01)
    return process


def rest(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Let it run for so long, or until it ends."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


@pytest.mark.timeout(7200)  # a hundred of them, under stress
@pytest.mark.stress
def test_a_failover_drill_killed_at_any_instant_leaves_nothing(
    drill_site: DrillSite, scaled: Callable[[int, int], int]
) -> None:
    drill_site.script("failover", STANDBY)
    drill_site.script("nothing", "steps:\n  - run: ['true']\n    read_only: true\n")
    file = drill_site.folder / "position.txt"
    file.write_text("primary")
    before = drill_site.azure()
    begun = time.monotonic()
    assert drill_site.run("failover")[1]["verdict"] == "passed"
    whole = time.monotonic() - begun
    chance, killed = random.Random(7), 0
    for number in range(scaled(2, 100)):
        process = started(drill_site, "failover")
        rest(process, chance.uniform(0, whole))
        process.kill()
        process.wait(10)
        killed += bool(list(drill_site.state.glob("*.jsonl")))
        code, _ = drill_site.run("nothing")  # the next start, of whatever drill
        assert code == 2  # no check: nothing is proved; but it ran
        assert not list(drill_site.state.glob("*")), number
        assert drill_site.azure() == before, number
        assert not drill_site.left_behind(), number
        assert not drill_site.sandbox.control("GET", "faults")["value"], number
        assert file.read_text() == "primary", number
    assert killed
    told = [e for e in drill_site.evidence() if e["drill"] == "failover"]
    interrupted = [e for e in told if e["verdict"] == "interrupted"]
    # One that was killed after its evidence was kept says what it came to.
    assert 0 <= killed - len(interrupted) <= max(1, killed // 10)
    assert all(e["cleanup"]["state"] == "clean" for e in interrupted)
    _, checked = drill_site.drill("check", "last")
    assert checked["whole"], checked["problems"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_drill_cleanly(drill_site: DrillSite, number: signal.Signals) -> None:
    drill_site.script("failover", STANDBY.replace("wait: 1s", "wait: 60s"))
    before = drill_site.azure()
    process = started(drill_site, "failover")
    rest(process, random.Random(int(number)).uniform(0.2, 3))
    process.send_signal(number)
    assert process.wait(60) == 130
    assert not list(drill_site.state.glob("*"))
    assert drill_site.azure() == before
    assert not drill_site.sandbox.control("GET", "faults")["value"]
    assert not (drill_site.folder / "position.txt").exists()
    [found] = drill_site.evidence()
    assert (found["verdict"], found["cleanup"]["state"]) == ("interrupted", "clean")


def test_the_estate_is_marked_busy_while_a_drill_runs(drill_site: DrillSite) -> None:
    drill_site.script("waiting", "steps:\n  - wait: 60s\n")
    busy = Busy(drill_site.folder / "ledger.git-busy", clock=SystemClock())
    process = started(drill_site, "waiting")
    try:
        deadline = time.monotonic() + 30
        while not busy.holders():
            assert time.monotonic() < deadline
            rest(process, 0.05)
        assert [holder.what for holder in busy.holders()] == ["drill waiting"]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)
    assert process.returncode == 130
    assert not busy.holders()


def test_a_group_that_outlived_its_drill_is_swept_without_its_journal(
    drill_site: DrillSite,
) -> None:
    drill_site.script(
        "rescue", "target: isolated\nsteps:\n  - run: ['true']\nscope: {primary: swedencentral}\n"
    )
    code, found = drill_site.run("rescue", "--keep")
    assert found["cleanup"]["state"] == "kept"
    assert drill_site.left_behind()
    for path in drill_site.state.glob("*.jsonl"):
        path.unlink()  # the machine is gone
    code, cleaned = drill_site.drill("clean")
    assert (code, cleaned["cleaned"]) == (0, [])  # its time is not over
    assert drill_site.left_behind()
    [group] = drill_site.left_behind()
    where = f"/subscriptions/{found_in(drill_site, group)}/resourceGroups/{group}"
    where += "?api-version=2021-04-01"
    body = drill_site.sandbox.call("GET", where).json()
    body["tags"]["muster-drill-expires"] = "2020-01-01T00:00:00Z"
    sent = {"location": body["location"], "tags": body["tags"]}
    assert drill_site.sandbox.call("PUT", where, sent).ok
    code, cleaned = drill_site.drill("clean")
    assert (code, len(cleaned["cleaned"])) == (0, 1)
    assert not drill_site.left_behind()


def found_in(site: DrillSite, group: str) -> str:
    """The subscription in which a group is."""
    for subscription in site.sandbox.subscriptions:
        path = f"/subscriptions/{subscription}/resourceGroups/{group}?api-version=2021-04-01"
        if site.sandbox.call("GET", path).ok:
            return subscription
    raise LookupError(group)
