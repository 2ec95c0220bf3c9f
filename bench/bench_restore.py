"""Measure a restore: accounts x deployments lost and brought back, with realistic latencies.

    python bench/bench_restore.py [accounts] [deployments]

Two restores, each held to its own plan: wall time over the critical path (at most 1.15), requests
over the plan's own count (at most 1.1). `unlearned` is planned with the usual values alone, as a
first restore anywhere is: an upper bound, since they give an account 20 s. `learned` is planned
with what the first one took, and is close. Every request is delayed by 0.2 s and an account takes
4 s to make. Writes bench/out/restore.json.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import yaml  # noqa: E402

from snapshots.learning import learn  # noqa: E402
from snapshots.restore import prepare  # noqa: E402
from tests.restoring_fixtures import Engine, destroy  # noqa: E402
from tests.sandbox_fixtures import start_sandbox  # noqa: E402

LATENCY = 0.2
MOST_TIME, MOST_CALLS = 1.15, 1.1


def estate(accounts: int, deployments: int) -> dict[str, object]:
    """So many accounts in two regions, each with a filter and so many deployments of it."""
    regions = ("swedencentral", "eastus2")
    return {
        "name": "bench",
        "subscriptions": [{"name": "prod"}],
        "principals": [{"name": "owner", "role": "Owner"}],
        "groups": [{"name": "rg-bench", "subscription": "prod", "location": regions[0]}],
        "quotas": [
            {
                "subscription": "prod",
                "region": region,
                "usage": "OpenAI.GlobalStandard.gpt-4o-mini",
                "limit": 10**6,
            }
            for region in regions
        ],
        "accounts": [
            {
                "name": f"aoai-bench-{number}",
                "group": "rg-bench",
                "kind": "OpenAI",
                "location": regions[number % 2],
                "policies": [
                    {"name": "strict", "properties": {"basePolicyName": "Microsoft.DefaultV2"}}
                ],
                "deployments": [
                    {
                        "name": f"chat-{n}",
                        "model": "gpt-4o-mini",
                        "version": "2024-07-18",
                        "sku": "GlobalStandard",
                        "capacity": 10,
                        "policy": "strict",
                    }
                    for n in range(deployments)
                ],
            }
            for number in range(accounts)
        ],
        "role_assignments": [
            {"principal": "owner", "role": role}
            for role in ("Owner", "Cognitive Services OpenAI Contributor")
        ],
    }


def main(accounts: int, deployments: int) -> int:
    """Measure, print and judge."""
    folder = Path(tempfile.mkdtemp(prefix="muster-bench-"))
    file = folder / "estate.yaml"
    file.write_text(yaml.safe_dump(estate(accounts, deployments)))
    sandbox = start_sandbox(folder / "sandbox", "--estate", str(file))
    try:
        sandbox.control("PUT", "settings", {"throttle": False})
        engine = Engine.on(sandbox, folder, "owner")
        before = engine.take()
        runs: dict[str, dict[str, float]] = {}
        for run in ("unlearned", "learned"):
            destroy(sandbox, before, purge=True, groups=False)
            sandbox.control("POST", "faults", {"kind": "latency", "seconds": LATENCY})
            request = replace(engine.request(before), estimates=learn(engine.records), threads=32)
            prepared = prepare(request, engine.tools)
            done = engine.restore(prepared)
            sandbox.control("DELETE", "faults")
            if not done.complete:
                print([str(change.key) for change in done.remaining][:5])
                return 1
            plan = prepared.plan
            runs[run] = {
                "steps": len(plan.steps),
                "critical_path_seconds": plan.critical_path_seconds,
                "expected_seconds": plan.seconds,
                "wall_seconds": round(done.seconds, 2),
                "time_ratio": round(done.seconds / plan.critical_path_seconds, 3),
                "expected_calls": plan.calls,
                "calls": done.calls,
                "calls_ratio": round(done.calls / plan.calls, 3),
            }
            print(run, json.dumps(runs[run]))
    finally:
        sandbox.stop()
    out = ROOT / "bench" / "out"
    out.mkdir(exist_ok=True)
    result = {"accounts": accounts, "deployments": deployments, "latency": LATENCY, **runs}
    (out / "restore.json").write_text(json.dumps(result, indent=2) + "\n")
    good = all(
        run["time_ratio"] <= MOST_TIME and run["calls_ratio"] <= MOST_CALLS for run in runs.values()
    )
    return 0 if good else 1


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:]]
    raise SystemExit(main(*(numbers or [20, 20])))
