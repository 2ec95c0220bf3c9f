"""Measure the sandbox: how soon it serves, and how fast it answers lists of a large estate.

    python bench/bench_sandbox.py [accounts] [deployments]

Prints a table and writes bench/out/sandbox.json. An answer of the same server that needs no work
stands beside the lists, so that the machine's own speed can be told from theirs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.sandbox_fixtures import RunningSandbox, start_sandbox  # noqa: E402

ROUNDS = 200


def milliseconds(session: requests.Session, url: str, headers: dict[str, str], ca: str) -> float:
    """The median of many GETs over one connection."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        answer = session.get(url, headers=headers, verify=ca, timeout=30)
        times.append(time.perf_counter() - begin)
        answer.raise_for_status()
    return statistics.median(times) * 1000


def lists(running: RunningSandbox) -> dict[str, str]:
    """What is asked for: account lists and the lists below one account."""
    provider = "providers/Microsoft.CognitiveServices/accounts"
    accounts = f"/subscriptions/{running.subscription}/{provider}"
    found = running.call("GET", f"{accounts}?api-version=2025-09-01").json()["value"]
    busy = next(a for a in found if a["kind"] in ("OpenAI", "AIServices"))
    return {
        "accounts of a subscription": f"{accounts}?api-version=2025-09-01",
        "deployments of an account": f"{busy['id']}/deployments?api-version=2025-09-01",
        "content filters of an account": f"{busy['id']}/raiPolicies?api-version=2025-09-01",
        "role assignments of a subscription": (
            f"/subscriptions/{running.subscription}/providers/Microsoft.Authorization"
            "/roleAssignments?api-version=2022-04-01"
        ),
    }


def main() -> None:
    """Run and report."""
    parser = argparse.ArgumentParser(description="Measure the sandbox.")
    parser.add_argument("accounts", nargs="?", type=int, default=100)
    parser.add_argument("deployments", nargs="?", type=int, default=20)
    given = parser.parse_args()
    accounts, deployments = given.accounts, given.deployments
    out: dict[str, object] = {"accounts": accounts, "deployments": deployments}
    with tempfile.TemporaryDirectory() as folder:
        starts = []
        for i in range(3):
            begin = time.perf_counter()
            running = start_sandbox(Path(folder) / f"demo{i}")
            starts.append(time.perf_counter() - begin)
            running.stop()
        out["demo_serving_seconds"] = starts
        print(f"serving the demo estate after {statistics.median(starts):.2f} s (median of 3)")
        estate = Path(folder) / "large.yaml"
        with estate.open("wb") as stream:
            wanted = ["--accounts", str(accounts), "--deployments", str(deployments)]
            subprocess.run(
                [sys.executable, "-m", "drills.sandbox.estates.generate", *wanted],
                cwd=ROOT,
                stdout=stream,
                check=True,
            )
        running = start_sandbox(Path(folder) / "large", "--estate", str(estate))
        try:
            running.control("PUT", "settings", {"throttle": False})
            headers = {"authorization": f"Bearer {running.token()}"}
            session = requests.Session()
            plain = milliseconds(
                session,
                f"{running.url}/metadata/endpoints?api-version=2022-09-01",
                headers,
                running.ca,
            )
            print(f"{'an answer without any work':<40} {plain:7.2f} ms")
            out["empty_ms"] = plain
            measured = {}
            for name, path in lists(running).items():
                answer = session.get(running.url + path, headers=headers, verify=running.ca)
                took = milliseconds(session, running.url + path, headers, running.ca)
                count, size = len(answer.json()["value"]), len(answer.content)
                measured[name] = {"ms": took, "items": count, "bytes": size}
                print(f"{name:<40} {took:7.2f} ms  {count:>5} items {size / 1024:8.0f} KiB")
            out["lists"] = measured
        finally:
            running.stop()
    target = ROOT / "bench" / "out" / "sandbox.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
