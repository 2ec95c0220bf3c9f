"""Measure a sharded snapshot over 1, 2 and 4 workers, each with a principal of its own, throttled.

    python bench/bench_principals.py [accounts] [subscriptions] [deployments]

A real Prefect server, real process workers, and a generated estate in the sandbox, whose token
buckets are per subscription and principal, as Azure's are, only smaller: with Azure's own size two
cores could not send fast enough to be throttled. Predicted by the budget
is, of the shard that reads most, (reads of its busiest subscription - size) / refill: that is all
that Azure's limits say. Sandbox, server and workers share this one machine, though, so its
processors are a limit, too: what all of them used, over the cores that nobody else used. The
larger of the two is what can be expected; fails when the reading takes a third and ten seconds
more than that, or when a request was throttled. Writes bench/out/principals.json and
docs/principals.svg.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import pygal  # type: ignore[import-untyped]  # noqa: E402
import yaml  # noqa: E402
from processor import busy, cores, used  # noqa: E402
from pygal.style import Style  # type: ignore[import-untyped]  # noqa: E402

from drills.sandbox.estates.generate import estate  # noqa: E402
from flows import local_stack  # noqa: E402
from snapshots.cloud.place import Plane  # noqa: E402
from snapshots.kinds import BY_NAME  # noqa: E402
from tests.sandbox_fixtures import RunningSandbox, start_sandbox  # noqa: E402

WORKERS = (1, 2, 4)
SIZE, REFILL = 50, 5  # Azure: 250 and 25
SLACK = 4 / 3
PARENT = """
import json, sys
from prefect import flow
from prefect.runtime import flow_run
from flows.take_snapshot import Cut, take_in_shards

@flow
def parent(parts):
    # take_snapshot itself orders no shards for one part; here one worker is to do it, too.
    outcome = take_in_shards("", str(flow_run.id), Cut(1, parts, 300, 120), None, None)
    print("RESULT", outcome.code, outcome.words)

parent(int(sys.argv[1]))
"""


def generated(accounts: int, subscriptions: int, deployments: int) -> dict[str, Any]:
    """Give an estate dealt out to so many subscriptions, and principals who may read all of it."""
    made = estate(accounts, deployments)
    names = [f"sub-{number}" for number in range(subscriptions)]
    made["subscriptions"] = [{"name": name} for name in names]
    for number, group in enumerate(made["groups"]):
        group["subscription"] = names[number % subscriptions]
    limits: Counter[tuple[str, str]] = Counter()
    for quota in made["quotas"]:
        limits[quota["region"], quota["usage"]] += quota["limit"]
    made["quotas"] = [
        {"subscription": name, "region": region, "usage": usage, "limit": limit}
        for name in names
        for (region, usage), limit in sorted(limits.items())
    ]
    for number in range(max(WORKERS)):
        name = f"muster-{number}"
        made["principals"].append({"name": name, "role": "Reader"})
        for role in ("Reader", "Cognitive Services User", "Azure AI User"):
            made["role_assignments"].append({"principal": name, "role": role})
    return made


def configured(running: RunningSandbox, folder: Path, number: int) -> Path:
    """Write a configuration of one principal; ledger and vault are the same for all."""
    config = folder / f"site-{number}" / "muster.toml"
    command = [sys.executable, "-m", "muster", "init", "--sandbox", str(running.ready_file)]
    command += ["--principal", f"muster-{number}", "--config", str(config), "--name", "bench"]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    first = folder / "site-0"
    text = config.read_text()
    if number:
        for name, place in (("path", first / "ledger.git"), ("url", first / "vault")):
            lines = text.splitlines()
            at = next(i for i, line in enumerate(lines) if line.startswith(f"{name} = "))
            lines[at] = f'{name} = "{place}"'
            text = "\n".join(lines) + "\n"
        config.write_text(text)
    return config


def workers(stack: local_stack.Stack, configs: list[Path]) -> list[subprocess.Popen[bytes]]:
    """Start process workers, each with the configuration, and so the budget, of one principal."""
    started = []
    for number, config in enumerate(configs):
        command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
        command += ["--pool", local_stack.POOL, "--work-queue", "shards", "--limit", "1"]
        with (stack.logs / f"shards-{number}.log").open("ab") as log:
            started.append(
                subprocess.Popen(
                    [*command, "--name", f"w{number}"],
                    cwd=ROOT,
                    env=stack.environment(config),
                    stdout=log,
                    stderr=log,
                )
            )
    return started


def reads(config: Path, run: str, shards: int) -> tuple[list[int], int, float, float]:
    """Give ARM reads by shard, 429s, and the shortest and longest reading of a run's shards."""
    from muster.settings import Environment, load
    from muster.wiring import Wiring
    from snapshots.shards import read_capture

    with Wiring(load(config), Environment()) as wiring:
        found = [read_capture(wiring.vault(), run, n).snapshot for n in range(shards)]
    arm = [
        sum(
            count
            for kind, count in snapshot.calls.by_kind.items()
            if kind not in BY_NAME or BY_NAME[kind].plane is Plane.ARM
        )
        for snapshot in found
    ]
    seconds = [snapshot.seconds for snapshot in found]
    return arm, sum(s.calls.throttled for s in found), min(seconds), max(seconds)


def measure(
    stack: local_stack.Stack, configs: list[Path], principals: int, share: float
) -> dict[str, float]:
    """Take one snapshot with so many workers of one principal each."""
    running = workers(stack, configs[:principals])
    began, ours, all_ = time.perf_counter(), used([os.getpid()]), busy()
    try:
        done = subprocess.run(
            [sys.executable, "-c", PARENT, str(principals)],
            cwd=ROOT,
            env=stack.environment(configs[0]),
            capture_output=True,
            text=True,
            check=False,
            timeout=1800,
        )
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait(60)
    wall = time.perf_counter() - began
    ours, all_ = used([os.getpid()]) - ours, busy() - all_
    others = max(all_ - ours, 0.0) / wall
    if "RESULT 0" not in done.stdout:
        raise SystemExit(f"the flow did not complete: {done.stdout[-800:]}{done.stderr[-2000:]}")
    folder = configs[0].parent / "vault" / "shards"
    latest = max(folder.iterdir(), key=lambda path: path.stat().st_mtime)
    arm, throttled, shortest, longest = reads(configs[0], latest.name, principals)
    predicted = max(max(arm) * share - SIZE, 0) / REFILL
    free = max(cores() - others, 0.25)
    return {
        "principals": principals,
        "arm_reads": sum(arm),
        "largest_shard_reads": max(arm),
        "throttled": throttled,
        "predicted_seconds": round(predicted, 1),
        "processor_seconds": round(ours, 1),
        "cores_used_by_others": round(others, 2),
        "machine_seconds": round(ours / free, 1),
        "reading_seconds": round(longest, 1),
        "shortest_shard_seconds": round(shortest, 1),
        "whole_run_seconds": round(wall, 1),
    }


def plot(rows: list[dict[str, float]], about: str) -> None:
    """Draw measured beside predicted."""
    style = Style(background="white", plot_background="white", font_family="sans-serif")
    chart = pygal.XY(
        style=style, js=[], width=720, height=420, show_legend=True, legend_at_bottom=True,
        title=about, x_title="workers, each with a principal of its own",
        y_title="seconds", range=(0, max(row["reading_seconds"] for row in rows) * 1.1),
        xrange=(0, 5), x_labels=[1, 2, 3, 4], no_prefix=True,
    )  # fmt: skip
    chart.add("predicted by the bucket", [(r["principals"], r["predicted_seconds"]) for r in rows])
    chart.add("this machine's cores", [(r["principals"], r["machine_seconds"]) for r in rows])
    chart.add("measured reading", [(r["principals"], r["reading_seconds"]) for r in rows])
    chart.add("whole run", [(r["principals"], r["whole_run_seconds"]) for r in rows])
    drawn = re.sub(rb"<!--.*?-->", b"", chart.render(), flags=re.DOTALL)  # where pygal lives
    (ROOT / "docs" / "principals.svg").write_bytes(drawn)


def main() -> None:
    """Measure with 1, 2 and 4 workers."""
    accounts, subscriptions, deployments = (
        int(sys.argv[at]) if len(sys.argv) > at else usual
        for at, usual in ((1, 1000), (2, 10), (3, 10))
    )
    # A worker that inherits an ignored SIGINT, as from a shell's background, never ends.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="bench-principals-"))
    file = folder / "estate.yaml"
    made = generated(accounts, subscriptions, deployments)
    file.write_text(yaml.safe_dump(made))
    where = {group["name"]: group["subscription"] for group in made["groups"]}
    busiest = max(Counter(where[a["group"]] for a in made["accounts"]).values())
    share = busiest / len(made["accounts"])  # the slowest subscription is what is waited for
    running = start_sandbox(folder / "sandbox", "--estate", str(file))
    stack = local_stack.Stack(folder / "prefect")
    rows: list[dict[str, float]] = []
    try:
        running.control("PUT", "settings", {"throttle": False})
        configs = [configured(running, folder, number) for number in range(max(WORKERS))]
        local_stack.up(stack, port=0, config=configs[0])
        local_stack.down(stack, ("worker",))
        buckets = {"reads": [SIZE, REFILL], "writes": [200, 10], "deletes": [200, 10]}
        running.control("PUT", "settings", {"throttle": True, "buckets": buckets})
        for principals in WORKERS:
            rows.append(measure(stack, configs, principals, share))
            print(*(f"{key}={value}" for key, value in rows[-1].items()), flush=True)
    finally:
        local_stack.down(stack)
        running.stop()
        if not os.environ.get("MUSTER_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
    about = f"{accounts} accounts in {subscriptions} subscriptions, {SIZE} + {REFILL}/s reads"
    plot(rows, about)
    out = ROOT / "bench" / "out"
    out.mkdir(exist_ok=True)
    (out / "principals.json").write_text(json.dumps({"about": about, "rows": rows}, indent=2))
    missed = [
        r
        for r in rows
        if r["throttled"]
        or r["reading_seconds"] > max(r["predicted_seconds"], r["machine_seconds"]) * SLACK + 10
    ]
    if missed:
        raise SystemExit(f"slower than predicted: {missed}")
    bound = [r["principals"] for r in rows if r["machine_seconds"] > r["predicted_seconds"]]
    if bound:
        print(f"with {bound} principals this machine was the limit, not the budget")


if __name__ == "__main__":
    main()
