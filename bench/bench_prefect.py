"""Measure what Prefect adds to a snapshot of 100 accounts: a real server and a process worker.

    python bench/bench_prefect.py [accounts] [runs]

The sandbox throttles as Azure does. The bare verb and the deployment take turns, each after the
same rest. What a start costs is measured with a configuration that is not there: the same imports,
the same worker, the same end, and no snapshot. The overhead is what the deployment takes beyond its
start, against what the verb takes beyond its own. Fails at 10 %. Writes bench/out/prefect.json.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import requests  # noqa: E402
import yaml  # noqa: E402
from bench_snapshot import generated  # noqa: E402

from flows.local_stack import Stack, down, up  # noqa: E402
from muster.prefect_api import Server  # noqa: E402
from tests.sandbox_fixtures import RunningSandbox, start_sandbox  # noqa: E402

LIMIT = 0.10
PATIENCE = 900.0


def bare(config: Path, expect: int) -> float:
    """Take a snapshot by the command line; give the seconds of the whole process."""
    command = [sys.executable, "-m", "muster", "snapshot", "--quiet", "--config", str(config)]
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    wall = time.perf_counter() - began
    if done.returncode != expect:
        raise SystemExit(f"muster snapshot gave {done.returncode}: {done.stderr[-500:]}")
    return wall


def deployed(server: Server, config: Path, expect: str) -> float:
    """Take one by the deployment; give the seconds from the worker's hand-over to the end."""
    deployment = str(server.deployment("take-snapshot/snapshots")["id"])
    run = server.start(deployment, {"config": str(config)})
    deadline = time.monotonic() + PATIENCE
    while not (found := server.run(run.id)).ended:
        if time.monotonic() > deadline:
            raise SystemExit(f"the run does not end: {found.state}")
        time.sleep(0.5)
    if found.state != expect:
        raise SystemExit(f"the run ended {found.state}: {found.message}")
    answer = requests.get(
        f"{server.url}/flow_run_states/", params={"flow_run_id": run.id}, timeout=30
    )
    states = {state["type"]: datetime.fromisoformat(state["timestamp"]) for state in answer.json()}
    return (states[found.type] - states["PENDING"]).total_seconds()


def rest(running: RunningSandbox) -> None:
    """Let the buckets fill."""
    running.control("POST", "clock", {"advance": 600})


def main() -> None:
    """Let both take turns, and judge the medians."""
    accounts = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    folder = Path(tempfile.mkdtemp(prefix="bench-prefect-"))
    file = folder / "estate.yaml"
    file.write_text(yaml.safe_dump(generated(accounts, 10)))
    running = start_sandbox(folder / "sandbox", "--estate", str(file))
    stack = Stack(folder / "up", {"PREFECT_WORKER_QUERY_SECONDS": "1"})
    config = folder / "site" / "muster.toml"
    words = [sys.executable, "-m", "muster", "init", "--sandbox", str(running.ready_file)]
    seconds: dict[str, list[float]] = {
        "bare": [],
        "bare start": [],
        "deployed": [],
        "deployed start": [],
    }
    try:
        subprocess.run(
            [*words, "--principal", "muster", "--config", str(config)],
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        up(stack, port=0, config=config)
        server = Server(f"{stack.url()}/api")
        rest(running)
        bare(config, 0)  # the first one reads payloads that the others know
        missing = folder / "not-there.toml"
        for turn in range(runs):
            for name in ("bare", "deployed") if turn % 2 == 0 else ("deployed", "bare"):
                rest(running)
                if name == "bare":
                    seconds[name].append(bare(config, 0))
                    seconds["bare start"].append(bare(missing, 1))
                else:
                    seconds[name].append(deployed(server, config, "Completed"))
                    seconds["deployed start"].append(deployed(server, missing, "Failed"))
    finally:
        down(stack)
        running.stop()
    middle = {name: statistics.median(values) for name, values in seconds.items()}
    verb = middle["bare"] - middle["bare start"]
    under = middle["deployed"] - middle["deployed start"]
    report: dict[str, Any] = {
        "accounts": accounts,
        "runs": runs,
        "seconds": {name: [round(v, 2) for v in values] for name, values in seconds.items()},
        "median_seconds": {name: round(value, 2) for name, value in middle.items()},
        "verb_seconds": round(verb, 2),
        "under_prefect_seconds": round(under, 2),
        "overhead": round(under / verb - 1, 4),
        "fixed_start_seconds": round(middle["deployed start"], 2),
        "limit": LIMIT,
    }
    out = ROOT / "bench" / "out" / "prefect.json"
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    if report["overhead"] > LIMIT:
        raise SystemExit(f"Prefect adds {report['overhead']:.1%}: {LIMIT:.0%} is the limit")


if __name__ == "__main__":
    main()
