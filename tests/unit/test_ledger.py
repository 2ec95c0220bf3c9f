"""Rules of the ledger: what is kept comes back, gaps delete nothing, and names resolve."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapshots.errors import (
    ConcurrentError,
    DamagedStoreError,
    InputError,
    LockedError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from snapshots.ledger import Ledger, path_of
from snapshots.ledger.memory import MEMORY
from snapshots.model import (
    CallCount,
    Gap,
    GapReason,
    JsonObject,
    Key,
    Payload,
    Resource,
    Snapshot,
)

START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class SteppingClock:
    """A clock that a test moves."""

    def __init__(self, start: datetime = START) -> None:
        self.moment = start

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> SteppingClock:
    return SteppingClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: SteppingClock) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.git", clock=clock, version="1.2", create=True) as opened:
        yield opened


def key(name: str, account: str = "aoai-prod") -> Key:
    return Key("deployment", ("sub", "rg", account, name))


def resource(name: str, size: int = 1, account: str = "aoai-prod") -> Resource:
    body: JsonObject = {"sku": {"capacity": size}, "name": name}
    return Resource(key(name, account), f"/ids/{account}/{name}", body)


def state(*resources: Resource, gaps: tuple[Gap, ...] = (), **more: object) -> Snapshot:
    reference = more.get("reference", {})
    assert isinstance(reference, dict)
    return Snapshot(
        "contoso", START, "1.2", {r.key: r for r in resources}, gaps, reference,
        CallCount(made=7, floor=5, throttled=1), 2.5,
    )  # fmt: skip


def hides_deployments(account: str = "aoai-prod") -> Gap:
    within = Key("deployment", ("sub", "rg", account))
    return Gap(within, GapReason.DENIED, "403", listing=True, hides=("deployment",), status=403)


def git(ledger: Ledger, *arguments: str) -> str:
    ran = subprocess.run(
        ["git", "--git-dir", str(ledger.path), *arguments],
        capture_output=True,
        check=True,
        text=True,
    )
    return ran.stdout.strip()


# ------------------------------------------------------------------------------- snapshots


def test_a_snapshot_comes_back_as_it_was(ledger: Ledger) -> None:
    payload = Payload("content", "a" * 64, 12)
    file = Resource(
        Key("file", ("sub", "rg", "a", "file-AbC")), "file-AbC", {"x": None}, (payload,)
    )
    gap = Gap(Key("agent", ("sub", "rg", "a", "Me")), GapReason.FAILED, "500", status=500, code="X")
    taken = state(resource("gpt-4o"), file, gaps=(gap,), reference={"models/Sweden": [{"n": 1}]})
    kept = ledger.commit(taken)
    found = ledger.load("live")
    assert found.resources == taken.resources
    assert (found.gaps, found.reference, found.estate) == ((gap,), taken.reference, "contoso")
    assert (found.taken_at, found.version, found.seconds) == (START, "1.2", 2.5)
    assert (found.calls.made, found.calls.floor, found.calls.throttled) == (7, 5, 1)
    assert (found.id, found.stale) == (kept.commit, {})
    assert (kept.written, kept.removed, kept.unchanged) == (3, 0, 0)


def test_two_snapshots_of_an_unchanged_estate_have_one_tree_and_two_commits(
    ledger: Ledger, clock: SteppingClock
) -> None:
    one = ledger.commit(state(resource("a"), resource("b")))
    clock.sleep(60)
    reversed_order = ledger.commit(state(resource("b"), resource("a")))
    assert one.tree == reversed_order.tree
    assert one.commit != reversed_order.commit
    assert (reversed_order.written, reversed_order.removed) == (0, 0)
    other = ledger.commit(state(resource("a"), resource("b", 2)))
    assert other.tree != one.tree
    assert (other.written, other.removed, other.unchanged) == (1, 0, 2)


def test_the_diff_of_git_is_exactly_what_changed(ledger: Ledger) -> None:
    ledger.commit(state(resource("same"), resource("edited"), resource("gone")))
    ledger.commit(state(resource("same"), resource("edited", 2), resource("new")))
    shown = git(ledger, "diff", "--name-status", "live~1", "live", "--", "resources/")
    assert sorted(shown.splitlines()) == [
        f"A\t{path_of(key('new'))}",
        f"D\t{path_of(key('gone'))}",
        f"M\t{path_of(key('edited'))}",
    ]


def test_the_commit_says_what_was_read(ledger: Ledger) -> None:
    kept = ledger.commit(state(resource("a"), gaps=(hides_deployments("other"),)))
    (entry,) = ledger.log()
    assert entry.when == START
    assert entry.snapshot == kept.snapshot
    assert re.fullmatch(r"20260301T120000000Z-[0-9a-f]{8}", kept.snapshot)
    expected = {
        "Resources": "1", "Payloads": "0", "Gaps": "1", "Api-Calls": "7", "Api-Calls-Floor": "5",
        "Throttled": "1", "Duration": "2.500", "Muster-Version": "1.2", "Estate": "contoso",
        "Taken-At": START.isoformat(), "Kept-At": START.isoformat(),
        "Snapshot-Id": kept.snapshot,
    }  # fmt: skip
    assert entry.trailers == expected
    assert git(ledger, "log", "-1", "--format=%(trailers:key=Gaps,valueonly)", "live") == "1"


def test_git_itself_finds_nothing_wrong(ledger: Ledger) -> None:
    ledger.commit(state(resource("a"), resource("ü" * 300), gaps=(hides_deployments(),)))
    ledger.commit(state(resource("a")))
    git(ledger, "fsck", "--full", "--strict")
    assert ledger.check() == []


# ------------------------------------------------------------------------------- gaps


def test_a_gap_deletes_nothing(ledger: Ledger) -> None:
    first = ledger.commit(state(resource("a"), resource("b"), resource("c", account="other")))
    kept = ledger.commit(state(resource("c", account="other"), gaps=(hides_deployments(),)))
    assert (kept.removed, kept.stale) == (0, 2)
    assert git(ledger, "diff", "--name-only", first.commit, "live") == "gaps.json"
    found = ledger.load("live")
    assert set(found.resources) == {key("c", "other")}
    assert set(found.stale) == {key("a"), key("b")}
    gaps = dict(ledger.files("live", "gaps.json"))["gaps.json"]
    assert first.snapshot.encode() in gaps
    # Without the gap the same snapshot removes them.
    assert ledger.commit(state(resource("c", account="other"))).removed == 2


def test_a_gap_that_stays_gives_the_same_tree_and_keeps_since_when(ledger: Ledger) -> None:
    first = ledger.commit(state(resource("a"), resource("Upper")))
    one = ledger.commit(state(gaps=(hides_deployments(),)))
    two = ledger.commit(state(gaps=(hides_deployments(),)))
    assert one.tree == two.tree
    assert first.snapshot.encode() in dict(ledger.files("live", "gaps.json"))["gaps.json"]
    assert set(ledger.load().stale) == {key("a"), key("Upper")}


@pytest.mark.parametrize("forget", [False, True], ids=["remembered", "from Git"])
def test_what_a_gap_hid_and_is_read_again_as_it_was_is_nothing_new(
    ledger: Ledger, forget: bool
) -> None:
    whole = state(*(resource(f"n{number}") for number in range(30)))
    first = ledger.commit(whole)
    ledger.commit(state(gaps=(hides_deployments(),)))
    if forget:
        (ledger.path / MEMORY).unlink()
    again = ledger.commit(whole)
    assert (again.tree, again.written, again.removed) == (first.tree, 0, 0)
    assert again.unchanged == first.written + first.unchanged


def test_a_partial_listing_keeps_what_it_did_not_reach(ledger: Ledger) -> None:
    ledger.commit(state(resource("a"), resource("b")))
    ledger.commit(state(resource("a", 2), gaps=(hides_deployments(),)))
    found = ledger.load()
    assert found.resources[key("a")].body["sku"] == {"capacity": 2}
    assert set(found.stale) == {key("b")}


def test_reference_data_outlives_a_failed_read(ledger: Ledger) -> None:
    ledger.commit(state(reference={"usages/swedencentral": 1}))
    ledger.commit(state(gaps=(hides_deployments(),)))
    assert ledger.load().reference == {"usages/swedencentral": 1}
    ledger.commit(state())
    assert ledger.load().reference == {}


# ------------------------------------------------------------------------------- names


def test_a_state_has_many_names(ledger: Ledger, clock: SteppingClock) -> None:
    kept = []
    for day in range(3):
        clock.moment = START + timedelta(days=day)
        kept.append(ledger.commit(state(resource("a", day))))
    names = {
        "live": 2, "latest": 2, "latest~1": 1, "live~2": 0, "live~": 1, kept[1].commit: 1,
        kept[1].commit[:9]: 1, kept[0].snapshot: 0, kept[0].snapshot[:13]: 0,
        kept[2].snapshot + "~2": 0, "2026-03-02": 1, "2026-03-02T11:59:59": 0,
        "2026-03-02T12:00:00Z": 1, "2026-03-02T14:00:00+02:00": 1, "20260302T120000Z": 1,
        "2026-03-09": 2,
    }  # fmt: skip
    assert {name: ledger.resolve(name) for name in names} == {
        name: kept[index].commit for name, index in names.items()
    }


@pytest.mark.parametrize(
    "name", ["nonsense", "baseline", "deadbeef", "live~7", "2026-02-28", "20990101T", "--all", "",
             "~1", "live@{1}", "live^{tree}", "HEAD:x", "refs/heads/../x"],
)  # fmt: skip
def test_what_is_not_there_is_not_found(ledger: Ledger, name: str) -> None:
    ledger.commit(state(resource("a")))
    with pytest.raises(NotFoundError):
        ledger.resolve(name)


def test_an_ambiguous_beginning_is_refused(ledger: Ledger, clock: SteppingClock) -> None:
    ledger.commit(state())
    clock.sleep(1)
    ledger.commit(state())
    with pytest.raises(InputError, match="several"):
        ledger.resolve("20260301T120")


def test_an_empty_ledger_says_so(ledger: Ledger) -> None:
    with pytest.raises(NotFoundError, match="nothing on live yet"):
        ledger.load("latest")
    assert list(ledger.log()) == []
    assert list(ledger.history(key("a"))) == []
    assert ledger.check() == []
    with pytest.raises(NotFoundError):
        ledger.asof(START)


def test_one_resource_is_read_and_near_names_are_offered(ledger: Ledger) -> None:
    ledger.commit(state(resource("gpt-4o"), resource("o3-mini")))
    assert ledger.read("live", key("gpt-4o")) == resource("gpt-4o")
    with pytest.raises(NotFoundError) as missing:
        ledger.read("live", key("gpt-4"))
    assert str(key("gpt-4o")) in str(missing.value)


def test_a_short_name_finds_one_resource(ledger: Ledger) -> None:
    ledger.commit(state(
        resource("gpt-4o"), resource("gpt-4o", account="aoai-dr"), resource("Only"),
        resource("x/y"),
    ))  # fmt: skip
    assert ledger.find("live", "deployment/aoai-prod/gpt-4o") == key("gpt-4o")
    assert ledger.find("live", "aoai-dr/gpt-4o") == key("gpt-4o", "aoai-dr")
    assert ledger.find("live", "only") == key("Only")
    assert ledger.find("live", "deployment/Only") == key("Only")
    assert ledger.find("live", str(key("x/y"))) == key("x/y")
    with pytest.raises(InputError) as several:
        ledger.find("live", "gpt-4o")
    assert str(key("gpt-4o", "aoai-dr")) in str(several.value)
    with pytest.raises(NotFoundError, match="gpt-5"):
        ledger.find("live", "gpt-5")


def test_history_tells_the_life_of_one_resource(ledger: Ledger, clock: SteppingClock) -> None:
    for states in ([1], [1], [2], [], [3]):
        clock.sleep(60)
        ledger.commit(
            state(*(resource("a", size) for size in states), resource("b", clock.now().minute))
        )
    life = [
        (entry.when.minute, found.body["sku"] if found else None)
        for entry, found in ledger.history(key("a"))
    ]
    assert life == [(5, {"capacity": 3}), (4, None), (3, {"capacity": 2}), (1, {"capacity": 1})]
    assert list(ledger.history(key("never"))) == []


def test_log_goes_by_number_and_time(ledger: Ledger, clock: SteppingClock) -> None:
    for _ in range(4):
        ledger.commit(state())
        clock.sleep(60)
    minutes = [entry.when.minute for entry in ledger.log()]
    assert minutes == [3, 2, 1, 0]
    found = ledger.log(since=START + timedelta(minutes=1), until=START + timedelta(minutes=2))
    assert [entry.when.minute for entry in found] == [2, 1]
    assert len(list(ledger.log(2))) == 2
    assert ledger.asof(START + timedelta(seconds=119)).when.minute == 1


def test_what_was_known_then_is_told_to_the_microsecond(
    ledger: Ledger, clock: SteppingClock
) -> None:
    kept = []
    for _ in range(3):  # three snapshots within one second
        kept.append(ledger.commit(state()).commit)
        clock.sleep(0.25)
    exact = START + timedelta(seconds=0.25)
    assert ledger.asof(exact).commit == kept[1]
    assert ledger.asof(exact - timedelta(microseconds=1)).commit == kept[0]
    assert ledger.asof(START + timedelta(seconds=0.9)).commit == kept[2]
    with pytest.raises(NotFoundError, match="no snapshot as old"):
        ledger.asof(START - timedelta(microseconds=1))
    found = ledger.log(since=exact, until=exact)
    assert [entry.commit for entry in found] == [kept[1]]
    assert [entry.commit for entry in ledger.log(1, until=exact)] == [kept[1]]


@pytest.mark.parametrize(
    ("trailers", "seconds"),
    [
        ({"Snapshot-Id": "20260301T120000750Z-0011aabb"}, 0.75),  # before there was Kept-At
        ({"Snapshot-Id": "by hand", "Kept-At": "yesterday"}, 0.0),
        ({}, 0.0),
    ],
)
def test_commits_without_the_exact_time_are_still_placed(
    ledger: Ledger, trailers: dict[str, str], seconds: float
) -> None:
    one = ledger.put("live", {"x": b"1"}, "an old one", trailers)
    entry = ledger.entry(one)
    assert entry.kept_at == entry.when.replace(microsecond=0) + timedelta(seconds=seconds)
    assert ledger.asof(START + timedelta(seconds=seconds)).commit == one
    with pytest.raises(NotFoundError):
        ledger.asof(START + timedelta(seconds=seconds - 0.001))


# ------------------------------------------------------------------------------- branches


def test_put_writes_and_removes_files(ledger: Ledger) -> None:
    one = ledger.put(
        "evidence", {"drills/1.json": b"{}", "x y/ü.txt": b"\0\n"}, "Drill 1", {"Drill": "a\nb"},
        author="Ann <x>",
    )  # fmt: skip
    assert ledger.tip("evidence") == one
    assert dict(ledger.files("evidence")) == {"drills/1.json": b"{}", "x y/ü.txt": b"\0\n"}
    ledger.put("evidence", {"x y/ü.txt": None}, "Tidy")
    assert [path for path, _ in ledger.files("evidence")] == ["drills/1.json"]
    entry = ledger.entry("evidence~1")
    assert (entry.subject, entry.author, dict(entry.trailers)) == (
        "Drill 1", "Ann  x", {"Drill": "a b"},
    )  # fmt: skip
    assert ledger.branches() == ("evidence",)


def test_put_on_another_parent_is_a_lost_race(ledger: Ledger) -> None:
    one = ledger.put("baseline", {"a": b"1"}, "one", expected_parent="")
    two = ledger.put("baseline", {"a": b"2"}, "two", expected_parent=one)
    with pytest.raises(ConcurrentError):
        ledger.put("baseline", {"a": b"3"}, "three", expected_parent=one)
    assert ledger.tip("baseline") == two


@pytest.mark.parametrize(
    "path", ["", "/a", "a//b", "../a", "a/./b", ".git/config", "a/.GIT/x", "a\nb", "c:x", "a" * 181]
)
def test_an_unsafe_path_is_refused(ledger: Ledger, path: str) -> None:
    with pytest.raises(InputError):
        ledger.put("baseline", {path: b""}, "x")


@pytest.mark.parametrize("branch", ["../x", "-x", "a b", "x..y", "a.lock", ""])
def test_an_unsafe_branch_is_refused(ledger: Ledger, branch: str) -> None:
    with pytest.raises(InputError):
        ledger.put(branch, {"a": b""}, "x")


def test_approving_copies_what_was_chosen_and_no_more(ledger: Ledger) -> None:
    ledger.commit(state(resource("a"), resource("b")))
    ledger.copy(None, "live", "baseline", "Approve all", {"Ticket": "T-1"})
    ledger.put("baseline", {"changes/1.yaml": b"what: x\n"}, "plan")
    ledger.commit(state(resource("a", 2), resource("c", 2)))
    ledger.copy([path_of(key("a")), path_of(key("b"))], "live", "baseline", "Approve two")
    found = ledger.load("baseline")
    assert found.resources == {key("a"): resource("a", 2)}
    ledger.copy(None, "live", "baseline", "Approve all")
    assert set(ledger.load("baseline").resources) == {key("a"), key("c")}
    assert dict(ledger.files("baseline", "changes/")) == {"changes/1.yaml": b"what: x\n"}


def test_a_damaged_edit_of_the_baseline_is_named(ledger: Ledger) -> None:
    ledger.commit(state(resource("a")))
    ledger.copy(None, "live", "baseline", "Approve")
    content = dict(ledger.files("baseline"))[path_of(key("a"))]
    ledger.put("baseline", {path_of(key("moved")): content}, "a wrong merge")
    with pytest.raises(DamagedStoreError, match="moved"):
        ledger.load("baseline")
    assert ledger.load("live").resources
    (damage,) = ledger.check()
    assert damage.path == path_of(key("moved"))
    assert damage.commits == (ledger.tip("baseline"),)


# ------------------------------------------------------------------------------- opening


def test_nothing_there_is_not_found_and_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no ledger yet"):
        Ledger.open(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_a_ledger_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "full"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(RefusedError, match="not a ledger"):
        Ledger.open(folder, create=True)
    work = tmp_path / "work"
    subprocess.run(["git", "init", "-q", str(work)], check=True)
    with pytest.raises(RefusedError, match="working copy"):
        Ledger.open(work)
    assert (folder / "notes.txt").read_text() == "mine"


def test_somebody_elses_repository_is_refused(tmp_path: Path, ledger: Ledger) -> None:
    ledger.put("main", {"README": b"x"}, "not ours")
    with pytest.raises(RefusedError, match="none of the branches"):
        Ledger.open(ledger.path)


def test_sha256_repositories_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "new.git"
    subprocess.run(["git", "init", "-q", "--bare", "--object-format=sha256", str(path)], check=True)
    with pytest.raises(RefusedError, match="SHA-256"):
        Ledger.open(path)


@pytest.mark.parametrize("victim", ["HEAD", "config", "refs/heads/live"])
def test_a_damaged_repository_is_named(ledger: Ledger, victim: str) -> None:
    ledger.commit(state(resource("a")))
    (ledger.path / victim).write_text("rubbish [")
    with pytest.raises(DamagedStoreError):
        Ledger.open(ledger.path).load()


def test_opening_again_finds_what_was_kept(ledger: Ledger) -> None:
    ledger.commit(state(resource("a")))
    with Ledger.open(ledger.path, create=True) as again:
        assert set(again.load().resources) == {key("a")}


CHILD = """
import sys
from snapshots.errors import MusterError
from snapshots.ledger import Ledger
try:
    Ledger.open(sys.argv[1], create=True).put("evidence", {"a": b"1"}, "x")
except MusterError as error:
    print(type(error).__name__, error)
"""


def child(path: Path, **environment: str) -> str:
    root = Path(__file__).resolve().parents[2]
    ran = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], cwd=root, env=environment, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_without_git_the_error_says_what_to_install(tmp_path: Path) -> None:
    said = child(tmp_path / "l.git", PATH=str(tmp_path))
    assert "StoreError Git was not found" in said
    assert "install" in said


def test_an_empty_home_and_a_hostile_environment_do_no_harm(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "reference-transaction").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "reference-transaction").chmod(0o755)
    (home / ".gitconfig").write_text(f"[core]\n hooksPath = {hooks}\n[commit]\n gpgSign = true\n")
    said = child(
        tmp_path / "l.git", PATH=os.environ["PATH"], HOME=str(home), GIT_DIR=str(tmp_path / "no"),
        GIT_OBJECT_DIRECTORY=str(tmp_path / "no"), GIT_INDEX_FILE="x", GIT_NAMESPACE="n",
        GIT_AUTHOR_DATE="bad", GIT_CONFIG_COUNT="1", GIT_CONFIG_KEY_0="core.bare",
        GIT_CONFIG_VALUE_0="false",
    )  # fmt: skip
    assert said == ""
    with Ledger.open(tmp_path / "l.git") as opened:
        assert dict(opened.files("evidence")) == {"a": b"1"}
    assert child(tmp_path / "m.git", PATH=os.environ["PATH"], HOME="") == ""


def test_a_ledger_in_use_is_waited_for_and_then_named(ledger: Ledger, tmp_path: Path) -> None:
    holding, done = threading.Event(), threading.Event()

    def hold() -> None:
        with Ledger.open(ledger.path) as other, other._alone():
            holding.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert holding.wait(30)
        with Ledger.open(ledger.path, wait=0.1) as waiting:
            with pytest.raises(LockedError):
                waiting.commit(state())
            done.set()
            thread.join(30)
            waiting.commit(state())
    finally:
        done.set()
        thread.join(30)


def test_a_full_or_read_only_place_is_an_error_with_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be created"):
        Ledger.open(tmp_path / "file" / "l.git", create=True)
