"""Measure the ledger beside git fast-import and git add: 1,000 accounts of 10 deployments each.

    python bench/bench_ledger.py [accounts] [rounds]

Prints a table and writes bench/out/ledger.json. Times are medians of wall seconds of this run; the
ratios are what counts. The others run with Git's defaults (packs are synced, loose objects are
not); the ledger syncs everything it commits. Each snapshot is made of new objects, as one of the
cloud is, and nothing about them is known ahead: the ledger's time is from 11,000 resources in
memory to the commit on disk, deciding included. Each way has a repository of its own, so that none
finds what another wrote. Git is told what changed in one comparison and has to find out in another;
so is the ledger. Exit code 2 when a re-snapshot takes more than 1.5 x git fast-import, or git add
is not 5 x slower than the ledger, both told what changed or neither.
"""

from __future__ import annotations

import copy
import gc
import hashlib
import json
import os
import random
import resource as usage
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import orjson

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from snapshots.ledger import Ledger, path_of
from snapshots.model import JsonObject, Key, Resource, Snapshot, pretty

PLAIN = ("-c", "gc.auto=0")
SUBSCRIPTION = "5d0c6b86-2d28-4c0b-9a50-9c2a3b1f7e10"


def deployment(account: str, group: str, number: int) -> JsonObject:
    """Give a body as Azure sends it, about 1.5 kB."""
    name = f"gpt-{number}"
    at = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers"
    return {
        "id": f"{at}/Microsoft.CognitiveServices/accounts/{account}/deployments/{name}",
        "name": name,
        "type": "Microsoft.CognitiveServices/accounts/deployments",
        "sku": {"name": "GlobalStandard", "capacity": 10 + number},
        "properties": {
            "model": {"format": "OpenAI", "name": "gpt-4o", "version": "2024-08-06"},
            "versionUpgradeOption": "OnceNewDefaultVersionAvailable",
            "raiPolicyName": "Microsoft.DefaultV2",
            "provisioningState": "Succeeded",
            "capabilities": {
                "area": "EUR",
                "chatCompletion": "true",
                "jsonObjectResponse": "true",
                "maxContextToken": "128000",
                "maxOutputToken": "16384",
                "assistants": "true",
            },
            "rateLimits": [
                {"key": "request", "renewalPeriod": 10, "count": 10},
                {"key": "token", "renewalPeriod": 60, "count": 10000},
            ],
        },
        "tags": {f"tag-{i}": f"{account}-{i}" * 2 for i in range(12)},
    }


def estate(accounts: int) -> dict[Key, Resource]:
    """Give an estate of `accounts` accounts with ten deployments each."""
    found: dict[Key, Resource] = {}
    for number in range(accounts):
        group, account = f"rg-{number % 20}", f"aoai-{number}"
        within = (SUBSCRIPTION, group)
        for key, body in [
            (Key("account", (*within, account)), deployment(account, group, 99)),
            *(
                (Key("deployment", (*within, account, f"gpt-{d}")), deployment(account, group, d))
                for d in range(10)
            ),
        ]:
            found[key] = Resource(key, str(body["id"]), body)
    return found


def edited(resources: dict[Key, Resource], share: float, seed: int) -> dict[Key, Resource]:
    """Give the estate with a share of its resources changed."""
    chosen = random.Random(seed).sample(sorted(resources), max(1, int(len(resources) * share)))
    result = dict(resources)
    for key in chosen:
        body = copy.deepcopy(result[key].body)
        body["sku"] = {"name": "GlobalStandard", "capacity": 1000 + seed}
        result[key] = Resource(key, result[key].id, body)
    return result


def read_anew(resources: dict[Key, Resource]) -> dict[Key, Resource]:
    """Give the estate as another process reads it: equal, and nothing shared."""
    return {
        key: Resource(key, item.id, orjson.loads(orjson.dumps(item.body)))
        for key, item in resources.items()
    }


def snapshot(resources: dict[Key, Resource]) -> Snapshot:
    """Wrap an estate up."""
    return Snapshot("bench", datetime.now(UTC), "bench", resources)


def fast_import(repo: Path, files: dict[str, bytes], number: int) -> float:
    """Feed these documents, and nothing else, to git fast-import; give the seconds it took."""
    parts = [b"feature done\ncommit refs/heads/live\n"]
    parts.append(b"committer bench <bench@localhost> %d +0000\ndata 1\nx\n" % (1700000000 + number))
    if number:
        parts.append(b"from refs/heads/live^0\n")
    for path, data in files.items():
        parts += [b"M 100644 inline %b\ndata %d\n" % (path.encode(), len(data)), data, b"\n"]
    stream = b"".join([*parts, b"\ndone\n"])
    started = time.perf_counter()
    subprocess.run(
        [
            "git",
            *PLAIN,
            "-c",
            "fastimport.unpackLimit=1",
            "-C",
            str(repo),
            "fast-import",
            "--quiet",
        ],
        input=stream,
        check=True,
    )
    return time.perf_counter() - started


def git_add(work: Path, files: dict[str, bytes]) -> float:
    """Write the documents into a working copy, add and commit them all; give the seconds."""
    started = time.perf_counter()
    for path, data in files.items():
        target = work / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    git = ["git", *PLAIN, "-C", str(work), "-c", "user.name=b", "-c", "user.email=b@localhost"]
    subprocess.run([*git, "add", "-A"], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    return time.perf_counter() - started


def documents(resources: dict[Key, Resource]) -> dict[str, bytes]:
    """Give path -> bytes."""
    return {path_of(key): pretty(item.document()) for key, item in resources.items()}


def hashed(resources: dict[Key, Resource]) -> None:
    """Make the bytes of every document and hash them as Git does: the least that can decide."""
    for item in resources.values():
        data = pretty(item.document())
        hashlib.sha1(b"blob %d\0%b" % (len(data), data), usedforsecurity=False)


def floor(repo: Path, every: dict[Key, Resource], files: dict[str, bytes], number: int) -> None:
    """Do what cannot be left out by one who knows nothing about the snapshot before."""
    hashed(every)
    fast_import(repo, files, number)


WAYS = ("ledger", "fast-import", "git add", "git add, all", "floor", "decided")
RATIO = "ratio re-snapshot, ledger / fast-import"
FASTER = "ratio not told what changed, git add / ledger"
TOLD = "ratio told what changed, git add / ledger"
LIMIT = 1.5  # x git fast-import of the changed documents
LEAST = 5.0  # x faster than git add -A and git commit


def main() -> int:
    """Run all three side by side and print what they took; 2 when a limit is missed."""
    accounts = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    folder = Path(tempfile.mkdtemp(prefix="bench-ledger-"))
    try:
        report = measure(folder, accounts, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    out = Path(__file__).resolve().parent / "out"
    out.mkdir(exist_ok=True)
    (out / "ledger.json").write_text(json.dumps(report, indent=2) + "\n")
    width = max(map(len, report))
    for name, value in report.items():
        print(
            f"{name:<{width}}  {value:>10.3f}"
            if isinstance(value, float)
            else f"{name:<{width}}  {value:>10}"
        )
    good = report[RATIO] <= LIMIT and min(report[FASTER], report[TOLD]) >= LEAST
    print(
        f"limits: {RATIO} <= {LIMIT}; {FASTER} and {TOLD} >= {LEAST}:", "kept" if good else "MISSED"
    )
    return 0 if good else 2


def measure(folder: Path, accounts: int, rounds: int) -> dict[str, float | int]:
    """Give name -> seconds, ratio or count."""
    resources = estate(accounts)
    every = documents(resources)
    raw, floor_raw = folder / "raw.git", folder / "floor.git"
    work, plain = folder / "work", folder / "plain"
    for bare in (raw, floor_raw):
        subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    for copied in (work, plain):
        subprocess.run(["git", "init", "-q", str(copied)], check=True)
    ledger = Ledger.open(folder / "ledger.git", create=True, version="bench")
    decided = Ledger.open(folder / "decided.git", create=True, version="bench")
    first = {
        "ledger": ledger.commit(snapshot(resources)).seconds,
        "fast-import": fast_import(raw, every, 0),
        "git add": git_add(work, every),
    }
    fast_import(floor_raw, every, 0)
    git_add(plain, every)
    decided.commit(snapshot(resources))
    took: dict[str, list[float]] = {name: [] for name in WAYS}
    current = resources
    for number in range(1, rounds + 1):
        following = edited(current, 0.01, number)
        changed = {key: item for key, item in following.items() if current[key] is not item}
        files = documents(changed)
        shot = snapshot(read_anew(following))
        runs: list[tuple[str, Callable[[], object]]] = [
            ("ledger", lambda shot=shot: ledger.commit(shot)),
            ("fast-import", lambda files=files, n=number: fast_import(raw, files, n)),
            ("git add", lambda files=files: git_add(work, files)),
            ("git add, all", lambda now=following: git_add(plain, documents(now))),
            ("floor", lambda now=following, f=files, n=number: floor(floor_raw, now, f, n)),
            # What deciding costs: the same documents through the same writer, decided already.
            ("decided", lambda files=files: decided.put("live", files, "bench", {})),
        ]  # fmt: skip
        random.Random(number).shuffle(runs)
        gc.collect()
        for name, run in runs:
            os.sync()  # nobody waits for what another wrote
            took[name].append(_timed(run))
        current = following
    loaded = _timed(lambda: ledger.load("live"))
    again = read_anew(current)
    unchanged = [_timed(lambda: ledger.commit(snapshot(again))) for _ in range(3)]
    m = {name: statistics.median(times) for name, times in took.items()}
    return {
        "documents": len(every),
        "first: ledger": first["ledger"],
        "first: git fast-import": first["fast-import"],
        "first: git add + commit": first["git add"],
        "1 %: ledger, deciding included": m["ledger"],
        "1 %: ledger, told what changed": m["decided"],
        "1 %: git fast-import, told what changed": m["fast-import"],
        "1 %: serialise and hash all; fast-import what changed": m["floor"],
        "1 %: write changed files, git add -A, commit": m["git add"],
        "1 %: write all files, git add -A, commit": m["git add, all"],
        "unchanged: ledger": statistics.median(unchanged),
        "load": loaded,
        RATIO: m["ledger"] / m["fast-import"],
        "ratio told what changed, ledger / fast-import": m["decided"] / m["fast-import"],
        FASTER: m["git add, all"] / m["ledger"],
        TOLD: m["git add"] / m["decided"],
        "ratio git add told, ledger not": m["git add"] / m["ledger"],
        "peak memory, MB": usage.getrusage(usage.RUSAGE_SELF).ru_maxrss // 1024,
        "cores": os.cpu_count() or 0,
    }


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    sys.exit(main())
