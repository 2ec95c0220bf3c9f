"""Measure what Prefect adds to a snapshot of 100 accounts: a real server and a process worker.

    python bench/bench_prefect.py [accounts] [turns]

The sandbox throttles as Azure does. In each turn the verb and the deployment take one snapshot of
the whole estate and one of a single account, each after the same rest, and change places in the
next turn. The single account gives the fixed start: imports, the worker's hand-over, stores. The
overhead is what the deployment takes beyond its start, against what the verb takes beyond its own,
by medians. Processor time is told beside it: of the run with all of Prefect's client, and of the
server and the worker, which work for nobody else here. Fails when the overhead is over 10 %.
Writes bench/out/prefect.json.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import requests  # noqa: E402
import yaml  # noqa: E402
from bench_snapshot import generated  # noqa: E402
from processor import busy, cores, used  # noqa: E402

from flows.local_stack import Stack, down, up  # noqa: E402
from muster.prefect_api import Server  # noqa: E402
from tests.sandbox_fixtures import RunningSandbox, start_sandbox  # noqa: E402

LIMIT = 0.10
PATIENCE = 900.0
NOISY = 0.10  # of the verb's own time: above, one turn says as little as the next


@dataclass
class Taken:
    """What one way of taking one estate has cost, turn by turn (seconds)."""

    wall: list[float] = field(default_factory=list)
    run: list[float] = field(default_factory=list)  # processor: whoever takes the snapshot
    server: list[float] = field(default_factory=list)  # processor: Prefect's server

    @property
    def middle(self) -> dict[str, float]:
        """The medians."""
        return {
            "wall": statistics.median(self.wall),
            "run_processor": statistics.median(self.run),
            "server_processor": statistics.median(self.server),
        }


def bare(config: Path) -> tuple[float, float, float]:
    """Take a snapshot by the command line: wall, and processor of the whole process."""
    command = [sys.executable, "-m", "muster", "snapshot", "--quiet", "--config", str(config)]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"muster snapshot gave {done.returncode}: {done.stderr[-500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # of children that were waited for
    own = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, own, 0.0


def deployed(stack: Stack, config: Path) -> tuple[float, float, float]:
    """Take one by the deployment: wall from the worker's hand-over to the end, and processor."""
    server = Server(f"{stack.url()}/api")
    running = stack.running()
    watched = [running["worker"].pid], [running["server"].pid]
    before = [used(pids) for pids in watched]
    deployment = str(server.deployment("take-snapshot/snapshots")["id"])
    run = server.start(deployment, {"config": str(config)})
    deadline = time.monotonic() + PATIENCE
    while not (found := server.run(run.id)).ended:
        if time.monotonic() > deadline:
            raise SystemExit(f"the run does not end: {found.state}")
        time.sleep(0.5)
    if found.state != "Completed":
        raise SystemExit(f"the run ended {found.state}: {found.message}")
    answer = requests.get(
        f"{server.url}/flow_run_states/", params={"flow_run_id": run.id}, timeout=30
    )
    states = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in answer.json()}
    wall = (states[found.type] - states["PENDING"]).total_seconds()
    time.sleep(2)  # the run's process ends after its state is told, and the worker waits for it
    after = [used(pids) for pids in watched]
    return wall, after[0] - before[0], after[1] - before[1]


def configured(running: RunningSandbox, config: Path) -> Path:
    """Write a configuration of all that is there."""
    words = [sys.executable, "-m", "muster", "init", "--sandbox", str(running.ready_file)]
    words += ["--principal", "muster", "--config", str(config)]
    subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
    return config


def of_one_account(running: RunningSandbox, config: Path) -> Path:
    """Write a configuration of a single account, with stores of its own."""
    configured(running, config)
    subscription = running.subscriptions[0]
    path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts"
    listed = running.call("GET", f"{path}?api-version=2025-09-01", name="owner").json()["value"]
    group, name = listed[0]["id"].split("/")[4], listed[0]["name"]
    mark = f'subscription = "{subscription}"'
    text = config.read_text("utf-8")
    assert mark in text, "the configuration looks otherwise than this bench knows"
    only = f'{mark}\nresource_groups = ["{group}"]\naccounts = ["{name}"]'
    # Without reference data: what is left is the start, and one account.
    assert "reference = true" in text
    text = text.replace(mark, only, 1).replace("reference = true", "reference = false")
    config.write_text(text, "utf-8")
    return config


def take_turns(
    running: RunningSandbox, ways: dict[str, Callable[[], tuple[float, float, float]]], turns: int
) -> dict[str, Taken]:
    """Let all ways take turns, each after a rest in which the buckets fill."""
    found = {name: Taken() for name in ways}
    for turn in range(turns):
        for name in list(ways) if turn % 2 == 0 else list(reversed(ways)):
            running.control("POST", "clock", {"advance": 600})
            wall, run, server = ways[name]()
            found[name].wall.append(round(wall, 2))
            found[name].run.append(round(run, 2))
            found[name].server.append(round(server, 2))
            print(f"turn {turn + 1}: {name} {wall:.1f} s, processor {run:.1f} + {server:.1f} s")
    return found


def beyond_start(found: dict[str, Taken], way: str, what: str) -> float:
    """Give what a whole estate costs more than a single account."""
    return found[f"{way} whole"].middle[what] - found[f"{way} one"].middle[what]


def main() -> None:
    """Let both take turns, and judge the medians."""
    accounts = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    turns = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder = Path(tempfile.mkdtemp(prefix="bench-prefect-"))
    file = folder / "estate.yaml"
    file.write_text(yaml.safe_dump(generated(accounts, 10)))
    running = start_sandbox(folder / "sandbox", "--estate", str(file))
    stack = Stack(folder / "up", {"PREFECT_WORKER_QUERY_SECONDS": "1"})
    try:
        whole = configured(running, folder / "whole" / "muster.toml")
        one = of_one_account(running, folder / "one" / "muster.toml")
        up(stack, port=0, config=whole)
        ways: dict[str, Callable[[], tuple[float, float, float]]] = {
            "verb whole": lambda: bare(whole),
            "deployment whole": lambda: deployed(stack, whole),
            "verb one": lambda: bare(one),
            "deployment one": lambda: deployed(stack, one),
        }
        for config in (whole, one):  # the first one reads payloads that the others know
            running.control("POST", "clock", {"advance": 600})
            bare(config)
        began, others = time.perf_counter(), busy() - used([os.getpid()])
        found = take_turns(running, ways, turns)
        others = busy() - used([os.getpid()]) - others
        loaded = others / (time.perf_counter() - began)
    finally:
        down(stack)
        running.stop()
    verb, under = beyond_start(found, "verb", "wall"), beyond_start(found, "deployment", "wall")
    spread = statistics.pstdev(found["verb whole"].wall) / statistics.mean(found["verb whole"].wall)
    own, run = (beyond_start(found, way, "run_processor") for way in ("verb", "deployment"))
    report: dict[str, Any] = {
        "accounts": accounts,
        "turns": turns,
        "seconds": {name: vars(taken) for name, taken in found.items()},
        "medians": {name: taken.middle for name, taken in found.items()},
        "verb_seconds": round(verb, 2),
        "under_prefect_seconds": round(under, 2),
        "overhead": round(under / verb - 1, 4),
        "limit": LIMIT,
        "fixed_start_seconds": round(
            found["deployment one"].middle["wall"] - found["verb one"].middle["wall"], 2
        ),
        "processor": {
            "verb_seconds": round(own, 2),
            "under_prefect_seconds": round(run, 2),
            "server_seconds": round(beyond_start(found, "deployment", "server_processor"), 2),
        },
        "spread_of_the_verb": round(spread, 3),
        "cores": cores(),
        "cores_used_by_others": round(max(loaded, 0.0), 2),
        "load": [round(one, 1) for one in os.getloadavg()],
    }
    out = ROOT / "bench" / "out" / "prefect.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    if spread > NOISY:
        print(f"the verb alone varies by {spread:.0%}: this machine is too busy to tell")
    if report["overhead"] > LIMIT:
        raise SystemExit(f"Prefect adds {report['overhead']:.1%}: {LIMIT:.0%} is the limit")


if __name__ == "__main__":
    main()
