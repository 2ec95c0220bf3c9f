"""Measure `muster snapshot` as a process: 1,000 accounts of 10 deployments each in the sandbox.

    python bench/bench_snapshot.py [accounts] [deployments]

The sandbox is generated and does not throttle. Memory is the largest resident set that the child
ever had. Fails when it reaches 500 MB, or when calls exceed the floor. Writes
bench/out/snapshot.json.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from drills.sandbox.estates.generate import estate  # noqa: E402
from tests.sandbox_fixtures import RunningSandbox, start_sandbox  # noqa: E402

LIMIT_MB = 500


def muster(folder: Path, *arguments: str) -> tuple[dict[str, Any], dict[str, float]]:
    """Run muster as a child; give its JSON, and its seconds and peak memory."""
    out, config = folder / "out.json", folder / "site" / "muster.toml"
    command = [sys.executable, "-m", "muster", *arguments]
    command += ["--config", str(config), "--format", "json", "--quiet"]
    began = time.perf_counter()
    with out.open("wb") as stream:
        child = subprocess.Popen(command, cwd=ROOT, stdout=stream)
        _, status, used = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"muster {arguments[0]} gave {child.returncode}: {out.read_text()[-500:]}")
    return json.loads(out.read_text()), {
        "wall_seconds": round(wall, 2),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "peak_mb": round(used.ru_maxrss / 1024),
    }


def generated(accounts: int, deployments: int) -> dict[str, Any]:
    """Give an estate with somebody who may read all of it."""
    made = estate(accounts, deployments)
    made["principals"].append({"name": "muster", "role": "Reader"})
    for role in ("Reader", "Cognitive Services User", "Azure AI User"):
        made["role_assignments"].append({"principal": "muster", "role": role})
    return made


def change(running: RunningSandbox, count: int) -> None:
    """Change a tag of so many accounts and deployments, as somebody else would."""
    listed: list[str] = []
    for subscription in running.subscriptions:
        path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts"
        answer = running.call("GET", f"{path}?api-version=2025-09-01", name="owner")
        listed += [account["id"] for account in answer.json()["value"]]
    for number, id_ in enumerate(random.Random(1).sample(listed, min(count, len(listed)))):
        tags = {"tags": {"changed": str(number)}}
        running.call("PATCH", f"{id_}?api-version=2025-09-01", tags, name="owner")
    running.control("POST", "clock", {"advance": 600})


def main() -> None:
    """Take three snapshots: the first, an unchanged one, and one of 1 % changed."""
    accounts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    deployments = int(sys.argv[2]) if len(sys.argv) > 2 else 10
    folder = Path(tempfile.mkdtemp(prefix="bench-snapshot-"))
    file = folder / "estate.yaml"
    file.write_text(yaml.safe_dump(generated(accounts, deployments)))
    running = start_sandbox(folder / "sandbox", "--estate", str(file))
    report: dict[str, Any] = {"accounts": accounts, "deployments": deployments}
    try:
        running.control("PUT", "settings", {"throttle": False})
        muster(folder, "init", "--sandbox", str(running.ready_file), "--principal", "muster")
        for name in ("first", "unchanged", "one percent changed"):
            if name.startswith("one"):
                change(running, accounts * (1 + deployments) // 100)
            told, used = muster(folder, "snapshot")
            fields = ("resources", "calls", "calls_floor", "throttled", "written", "seconds")
            report[name] = used | {field: told[field] for field in fields}
            print(f"{name:20}", *(f"{key}={value}" for key, value in report[name].items()))
    finally:
        running.stop()
        shutil.rmtree(folder, ignore_errors=True)
    out = ROOT / "bench" / "out"
    out.mkdir(exist_ok=True)
    (out / "snapshot.json").write_text(json.dumps(report, indent=2) + "\n")
    runs = [value for value in report.values() if isinstance(value, dict)]
    peak = max(run["peak_mb"] for run in runs)
    over = [run for run in runs if run["calls"] > run["calls_floor"]]
    if peak >= LIMIT_MB or over:
        raise SystemExit(f"a limit was missed: {peak} MB of {LIMIT_MB}, {len(over)} over the floor")


if __name__ == "__main__":
    main()
