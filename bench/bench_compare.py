"""Measure compare beside DeepDiff over every pair: 10,000 resources, 1 % of them changed.

    python bench/bench_compare.py [resources] [rounds]

Prints a table and writes bench/out/compare.json. DeepDiff over every pair is run once, in full.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import orjson
from bench_ledger import edited, estate
from deepdiff import DeepDiff

from snapshots.compare import compare
from snapshots.model import Snapshot, canonical, digest


def main() -> None:
    """Run all three side by side and print what they took."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    resources = dict(sorted(estate(count // 11 + 1).items())[:count])
    changed = edited(resources, 0.01, 1)
    # Read anew, as two snapshots are: no object is shared.
    after = {
        key: type(item)(key, item.id, orjson.loads(orjson.dumps(item.body)))
        for key, item in changed.items()
    }
    now = datetime.now(UTC)
    one, other = (Snapshot("bench", now, "bench", r) for r in (resources, after))

    def ours() -> int:
        return sum(1 for _ in compare(one, other))

    def hashing() -> int:
        found = 0
        for key, item in resources.items():
            if digest(canonical(item.body)) != digest(canonical(after[key].body)):
                found += bool(DeepDiff(item.body, after[key].body))
        return found

    def deepdiff() -> int:
        return sum(bool(DeepDiff(item.body, after[k].body)) for k, item in resources.items())

    times: dict[str, list[float]] = {"ours": [], "hashing": []}
    order: list[tuple[str, Callable[[], int]]] = [("ours", ours), ("hashing", hashing)]
    for number in range(rounds):
        random.Random(number).shuffle(order)
        for name, work in order:
            started = time.perf_counter()
            found = work()
            times[name].append(time.perf_counter() - started)
            if found != count // 100:
                raise SystemExit(f"{name} found {found} changes of {count // 100}")
    started = time.perf_counter()
    if deepdiff() != count // 100:
        raise SystemExit("DeepDiff found something else")
    every = time.perf_counter() - started
    m = statistics.median
    report = {
        "resources": count,
        "changed": count // 100,
        "compare": m(times["ours"]),
        "canonical hashes, DeepDiff on the changed": m(times["hashing"]),
        "DeepDiff on every pair": every,
        "ratio DeepDiff / compare (>= 50)": every / m(times["ours"]),
        "ratio compare / hashing (<= 2)": m(times["ours"]) / m(times["hashing"]),
    }
    out = Path(__file__).resolve().parent / "out"
    out.mkdir(exist_ok=True)
    (out / "compare.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, value in report.items():
        print(f"{name:<45}", f"{value:10.3f}" if isinstance(value, float) else f"{value:10}")


if __name__ == "__main__":
    main()
