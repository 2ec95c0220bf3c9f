"""What `muster snapshot` promises, held to it from outside: bytes, and a hostile cloud."""

from __future__ import annotations

import base64
import json
import random
import re
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from drills.sandbox.estates.generate import estate
from tests.muster_site_fixtures import Site
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]
API = "?api-version=2025-09-01"
SETTLE = 600  # seconds after which everything that was begun has ended


@pytest.fixture
def demo(sandbox: RunningSandbox) -> Iterator[RunningSandbox]:
    """The demo estate; what a test breaks is whole again for the next."""
    yield sandbox
    sandbox.control("DELETE", "faults")


def as_owner(demo: RunningSandbox, method: str, id_: str, body: Any = None) -> None:
    answer = demo.call(method, id_ + API, body, name="platform-owner")
    assert answer.status_code < 300, (method, id_, answer.text)


# ------------------------------------------------------------------------ quiet, and exact


def payloads(site: Site) -> set[str]:
    return {file.name for file in (site.vault / "payloads").rglob("*") if file.is_file()}


def test_what_did_not_change_is_the_same_and_what_others_changed_is_exactly_what_differs(
    demo: RunningSandbox, new_site: Callable[..., Site], scaled: Callable[[int, int], int]
) -> None:
    site = new_site(demo)
    first = site.ask("snapshot")
    kept = payloads(site)
    assert kept, "the demo estate has files"
    second = site.ask("snapshot")
    assert (second["tree"], second["written"], second["removed"]) == (first["tree"], 0, 0)
    assert second["calls"] == second["calls_floor"] < first["calls"], "known files cost no call"
    assert payloads(site) == kept
    listed = {r["key"]: r for r in site.ask("show")["resources"]}
    ids = {key: site.ask("show", "latest", key)["resource"]["id"] for key in sample(listed)}
    chance = random.Random(11)
    order = [*chance.sample(sorted(ids), len(ids)), *chance.choices(sorted(ids), k=60)]
    expected: dict[str, str] = {}
    for number, key in enumerate(order[: scaled(6, 60)]):
        if key not in ids:
            continue  # it was deleted before
        kind, id_ = key.split("/")[0], ids[key]
        mark = uuid.uuid4().hex[:8]
        if kind == "account" and number % 2:
            name = f"words-{mark}"
            as_owner(demo, "PUT", f"{id_}/raiBlocklists/{name}", {"properties": {}})
            expected[f"rai-blocklist/{key.partition('/')[2]}/{name}"] = "added"
        elif kind == "account":
            as_owner(demo, "PATCH", id_, {"tags": {"touched": mark}})
            expected[key] = "changed"
        elif kind == "rai-blocklist":
            described = {"properties": {"description": f"changed {mark}"}}
            as_owner(demo, "PUT", id_, described)
            expected[key] = "changed"
        else:
            deleted = demo.call("DELETE", f"{id_}?api-version=2020-05-01", name="platform-owner")
            assert deleted.status_code < 300, deleted.text
            expected[key] = "removed"
            del ids[key]
        demo.control("POST", "clock", {"advance": SETTLE})
    third = site.ask("snapshot")
    assert third["payloads"] == first["payloads"]
    changes = site.ask("diff")["changes"]
    assert {c["key"]: c["change"] for c in changes} == expected


def sample(listed: dict[str, Any]) -> list[str]:
    """What a test may change without a rule of Azure that stands against it."""
    accounts = [k for k in listed if k.startswith("account/") and "/aoai-" in k]
    lists = [k for k in listed if k.startswith("rai-blocklist/")]
    locks = [k for k in listed if k.startswith("lock/")]
    return [*sorted(accounts), *sorted(lists), *sorted(locks)]


# ------------------------------------------------------------------------ no secret, anywhere


def secrets_of(demo: RunningSandbox) -> set[str]:
    """Everything that must not be seen: canaries, account keys, principals' and the control's."""
    found = set(re.findall(r"canary-[a-z0-9-]+", json.dumps(demo.control("GET", "dump"))))
    assert len(found) >= 3
    found |= {p["secret"] for p in demo.ready["principals"] if p.get("secret")}
    found.add(demo.ready["control"]["token"])
    for subscription in demo.subscriptions:
        path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts{API}"
        for account in demo.call("GET", path, name="platform-owner").json()["value"]:
            keys = demo.call("POST", f"{account['id']}/listKeys{API}", name="platform-owner")
            if keys.status_code == 200:
                found |= {keys.json()["key1"], keys.json()["key2"]}
    assert len(found) > 20
    return {value for value in found if value}


def forms(secret: str) -> set[bytes]:
    """How a secret may be written: raw, in URLs, in JSON, in base64 wherever it stands in it."""
    escaped = "".join(f"\\u{ord(c):04x}" if not c.isalnum() else c for c in secret)
    found = {secret, quote(secret, safe=""), json.dumps(secret)[1:-1], escaped}
    found |= {quote(secret, safe="").lower(), secret.replace("/", "\\/")}
    for before in range(3):
        text = base64.b64encode(b"\0" * before + secret.encode()).decode()
        whole = text[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        found |= {whole, whole.replace("+", "-").replace("/", "_"), quote(whole, safe="")}
    return {form.encode() for form in found}


def bytes_of(site: Site) -> Iterator[tuple[str, bytes]]:
    """Every byte that a site made: Git's objects unpacked, files, bundles, logs, output."""
    batch = ("cat-file", "--batch-all-objects", "--batch")
    yield "git objects", site.git(*batch).stdout
    for folder in (site.folder, site.temporary):
        for file in folder.rglob("*"):
            if not file.is_file() or file.name == "principal.toml":
                continue  # the one place where muster's own secret was put
            yield str(file), file.read_bytes()
    bundles = [f for f in site.vault.rglob("*.bundle") if "sums" not in f.parts]
    assert bundles
    with tempfile.TemporaryDirectory() as copy:
        git = ["git", f"--git-dir={copy}"]
        subprocess.run(["git", "init", "-q", "--bare", copy], check=True, timeout=60)
        # Each builds upon those before it: a bundle alone may be no repository.
        for number, file in enumerate(sorted(bundles)):
            fetch = [*git, "fetch", "-q", str(file), f"+refs/*:refs/{number}/*"]
            subprocess.run(fetch, check=True, capture_output=True, timeout=60)
        objects = subprocess.run([*git, *batch], check=True, capture_output=True, timeout=60)
        yield "objects of the bundles", objects.stdout
    for number, said in enumerate(site.said):
        yield f"output {number}", said


def leaks(site: Site, secrets: set[str]) -> list[str]:
    wanted = {form: secret for secret in secrets for form in forms(secret)}
    places = list(bytes_of(site))
    places += [(str(f), f.read_bytes()) for f in (ROOT / "docs" / "schemas").glob("*.json")]
    return [
        f"{secret[:10]}… in {place}"
        for place, data in places
        for form, secret in wanted.items()
        if form in data
    ]


def test_no_secret_is_in_any_byte_that_is_kept_or_told(
    demo: RunningSandbox, new_site: Callable[..., Site]
) -> None:
    site = new_site(demo, MUSTER_DEBUG="1")
    secrets = secrets_of(demo)
    site.run("snapshot")
    site.ask("snapshot")
    one = min(secrets)
    key = next(s for s in sorted(secrets) if len(s) == 84)
    for fault in (
        # Azure repeats what it was given: in words, in a URL, and in base64.
        {"status": 403, "message": f"invalid api-key: {key}", "path": "deployments"},
        {
            "status": 400,
            "message": f"bad https://x/?sig={quote(key)}&code=1",
            "path": "raiPolicies",
        },
        {"status": 400, "message": f'{{"key": "{key}"}}', "path": "connections"},
        {"status": 409, "message": f"client_secret={one}", "path": "raiBlocklists"},
    ):
        demo.control("POST", "faults", {"kind": "error", "code": "Bad", "rate": 1, **fault})
    site.run("snapshot", expect=3)
    demo.control("DELETE", "faults")
    demo.control("POST", "faults", {"kind": "damage", "mode": "corrupt", "rate": 0.05})
    site.run("snapshot", expect=None)
    demo.control("DELETE", "faults")
    for command in (
        ("show",),
        ("log",),
        ("coverage",),
        ("diff", "latest~2", "latest"),
        ("doctor",),
        ("verify",),
        ("show", "latest", "nothing/of/this"),
        ("diff", "nothing", "latest"),
    ):
        site.run(*command, expect=None)
        site.run(*command, "--format", "json", expect=None)
    text = site.config.read_text()
    site.config.write_text(text.replace(demo.url, "https://localhost:1"))
    site.run("snapshot", expect=1)
    site.config.write_text(text)
    assert leaks(site, secrets) == []


def test_a_planted_secret_is_found_in_every_form(
    demo: RunningSandbox, new_site: Callable[..., Site]
) -> None:
    """Negative control of the search: in Git, in the vault, in a log, in what was printed."""
    site = new_site(demo)
    site.run("snapshot", "--no-content")
    canary = "canary+pläñted/0123456789 abcdef".encode("ascii", "ignore").decode()
    assert leaks(site, {canary}) == []
    blob = site.temporary / "planted"
    texts = [canary, quote(canary, safe=""), json.dumps(canary), canary.replace("/", "\\/")]
    texts += [base64.b64encode(b"x" * n + canary.encode() + b"tail").decode() for n in range(3)]
    for number, text in enumerate(texts):
        site.said[:] = [f"told {text}".encode()]
        assert leaks(site, {canary}) != [], text
        site.said.clear()
        blob.write_text(f'{{"n": {number}, "x": "{text}"}}')
        assert leaks(site, {canary}) != [], text
        if number == 0:
            site.git("hash-object", "-w", str(blob))
        blob.unlink()
    assert [leak for leak in leaks(site, {canary}) if "git objects" in leak]


# ------------------------------------------------------------------------ a hostile cloud


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.stress)])
def test_with_three_calls_of_ten_failing_it_is_complete_or_names_what_is_missing(
    demo: RunningSandbox, new_site: Callable[..., Site], stress: bool, seed: int
) -> None:
    site = new_site(demo)
    whole = site.ask("snapshot")
    before = {r["key"] for r in site.ask("show")["resources"]}
    # Patience that ends soon makes gaps; the usual one makes a complete snapshot.
    short = seed == 2
    site.set(timeout='"1s"', patience='"2s"' if short else '"120s"')
    rates = 0.3 / 5
    for fault in (
        {"kind": "throttle", "rate": rates, "retry_after": 1},
        {"kind": "error", "status": 500, "rate": rates},
        {"kind": "damage", "mode": "cut", "rate": rates},
        {"kind": "damage", "mode": "corrupt", "rate": rates},
        {"kind": "latency", "seconds": 3, "rate": rates},
    ):
        demo.control("POST", "faults", fault)
    if short:  # enough in one place that no patience of 2 seconds suffices
        demo.control("POST", "faults", {"kind": "error", "status": 500, "path": "raiPolicies"})
    began = time.monotonic()
    stormy = site.ask("snapshot", expect=None)
    seconds = time.monotonic() - began
    demo.control("DELETE", "faults")
    assert stormy["retried"] > 0, "the storm did not blow"
    assert seconds < 180
    assert bool(stormy["gaps"]) == short
    assert_gaps_are_no_deletions(site, before, stormy)
    if not short:
        assert stormy["tree"] == whole["tree"]
    site.set(timeout='"30s"', patience='"120s"')
    after = site.ask("snapshot")
    assert after["gaps"] == []
    assert after["tree"] == whole["tree"]


def assert_gaps_are_no_deletions(site: Site, before: set[str], told: dict[str, Any]) -> None:
    """What could not be read stays in the tree, and `diff` says that it is not known."""
    gone = site.git("diff", "--name-status", "--diff-filter=D", "live~1", "live")
    assert gone.stdout == b""
    changes = {c["key"]: c["change"] for c in site.ask("diff", expect=None)["changes"]}
    assert "removed" not in changes.values()
    now = {r["key"] for r in site.ask("show", expect=None)["resources"]}
    for key in before - now:
        assert changes.get(key) == "unknown", key
    if told["gaps"]:
        assert all(gap["key"] and gap["reason"] and gap["detail"] for gap in told["gaps"])
        assert "unknown" in changes.values()


@pytest.mark.parametrize(
    "mode",
    ["refused", *(pytest.param(m, marks=pytest.mark.stress) for m in ("503", "hanging"))],
)
def test_with_a_region_down_the_rest_is_kept_in_bounded_time(
    demo: RunningSandbox, new_site: Callable[..., Site], mode: str
) -> None:
    site = new_site(demo)
    site.ask("snapshot")
    before = {r["key"] for r in site.ask("show")["resources"]}
    site.set(timeout='"1s"', patience='"4s"')
    outage = {"kind": "outage", "mode": mode, "region": "swedencentral", "seconds": 600}
    demo.control("POST", "faults", outage)
    began = time.monotonic()
    told = site.ask("snapshot", expect=3)
    seconds = time.monotonic() - began
    demo.control("DELETE", "faults")
    assert seconds < 60, f"{seconds:.1f} s"
    assert_gaps_are_no_deletions(site, before, told)
    now = {r["key"] for r in site.ask("show", expect=3)["resources"]}
    assert [key for key in now if key.startswith("deployment/") and "-eus2" in key]
    assert {gap["reason"] for gap in told["gaps"]} <= {"unreachable", "region-down", "failed"}
    assert [gap for gap in told["gaps"] if "-swc" in gap["key"]]


# ------------------------------------------------------------------------ the budget


@pytest.mark.stress
def test_the_whole_budget_is_used_and_never_overrun(
    new_sandbox: Callable[..., RunningSandbox],
    new_site: Callable[..., Site],
    tmp_path: Path,
    scaled: Callable[[int, int], int],
) -> None:
    made = estate(scaled(40, 400), 3)
    for group in made["groups"]:
        group["subscription"] = "prod"
    for quota in made["quotas"]:
        quota["subscription"] = "prod"
    merged: dict[tuple[str, str], dict[str, Any]] = {}
    for quota in made["quotas"]:
        at = (quota["region"], quota["usage"])
        limit = quota["limit"] + merged.get(at, quota | {"limit": 0})["limit"]
        merged[at] = quota | {"limit": limit}
    made["quotas"] = list(merged.values())
    file = tmp_path / "large.yaml"
    file.write_text(yaml.safe_dump(made))
    running = new_sandbox("--estate", str(file))
    capacity, refill = scaled(50, 250), 25
    site = new_site(running, "owner")
    buckets = {"reads": [capacity, refill], "writes": [200, 10], "deletes": [200, 10]}
    running.control("PUT", "settings", {"throttle": True, "buckets": buckets})
    running.control("DELETE", "journal")
    told = site.ask("snapshot", expect=3)  # an owner may not read data
    assert told["throttled"] == 0
    path = f"/subscriptions/{running.subscription}/"
    reads = [e for e in running.journal() if path in str(e["path"]) and e["method"] == "GET"]
    assert not [e for e in running.journal() if e["status"] == 429]
    times = sorted(moment(entry) for entry in reads)
    seconds = times[-1] - times[0]
    used = len(reads) / (capacity + refill * seconds)
    assert seconds > 4, f"{len(reads)} reads do not empty the bucket"
    assert used >= 0.9, f"{len(reads)} reads in {seconds:.1f} s are {used:.0%}"


def moment(entry: dict[str, Any]) -> float:
    return datetime.fromisoformat(str(entry["time"])).timestamp()
