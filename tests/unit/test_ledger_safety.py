"""Rules of the ledger in bad times: kills, races, damage, dead remotes, pruning."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from snapshots.errors import (
    ConcurrentError,
    DamagedStoreError,
    NotFoundError,
    StoreError,
)
from snapshots.ledger import Ledger, Retention, path_of
from snapshots.ledger.plumbing import Git, scrub
from snapshots.ledger.pruning import switch
from snapshots.model import Key, Resource, Snapshot

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


class MovedClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> MovedClock:
    return MovedClock()


@pytest.fixture
def ledger(tmp_path: Path, clock: MovedClock) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.git", clock=clock, create=True) as opened:
        yield opened


def state(size: int, count: int = 3, name: str = "d") -> Snapshot:
    keys = [Key("deployment", ("sub", "rg", "acc", f"{name}{n}")) for n in range(count)]
    text = f"{size} " * 50
    return Snapshot(
        "contoso", START, "1", {k: Resource(k, str(k), {"size": size, "t": text}) for k in keys}
    )


def leftovers(path: Path) -> list[str]:
    patterns = ("**/tmp_*", "**/*.keep", "fast_import_crash_*", "refs/**/*.lock", "*.lock")
    found = [f.name for pattern in patterns for f in path.glob(pattern)]
    return [name for name in found if name != "muster.lock"]


def age(path: Path) -> None:
    """Make a file look as if its writer had died a while ago."""
    os.utime(path, (time.time() - 3600, time.time() - 3600))


# ------------------------------------------------------------------------------- kills and races

WRITER = """
import sys
from datetime import UTC, datetime
from snapshots.ledger import Ledger
from snapshots.model import Key, Resource, Snapshot

path, name, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
ledger = Ledger.open(path, create=True)
print("ready", flush=True)
for size in range(rounds):
    keys = [Key("deployment", ("sub", "rg", "acc", f"{name}{n}")) for n in range(40)]
    found = {k: Resource(k, str(k), {"size": size, "t": f"{size} " * 500}) for k in keys}
    kept = ledger.commit(Snapshot("contoso", datetime.now(UTC), name, found))
    print(kept.commit, size, flush=True)
"""


def writer(path: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path), name, str(rounds)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_kill_at_any_instant_loses_nothing_and_leaves_no_lock(
    tmp_path: Path, scaled: Callable[[int, int], int]
) -> None:
    path = tmp_path / "ledger.git"
    chance = random.Random(7)
    reported: list[str] = []
    for _ in range(scaled(5, 100)):
        child = writer(path, "d", 1000)
        assert child.stdout is not None
        # Some are killed while they start, most while they write.
        lines = [child.stdout.readline() for _ in range(chance.choice([0, 1, 2, 4]))]
        with_delay = chance.random() * 0.03
        try:
            child.wait(with_delay)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        lines += child.stdout.read().splitlines()
        child.wait(30)
        child.stdout.close()
        reported += [line.split()[0] for line in lines if line and not line.startswith("ready")]
        with Ledger.open(path, create=True, wait=30) as ledger:
            # Everything that was reported is there, in order, and whatever is there is whole.
            commits = [entry.commit for entry in ledger.log()]
            assert [c for c in commits if c in set(reported)] == reported[::-1]
            for entry in ledger.log():
                sizes = {r.body["size"] for r in ledger.load(entry.commit).resources.values()}
                assert len(sizes) == 1
            kept = ledger.commit(state(-1))
            reported.append(kept.commit)
    with Ledger.open(path) as ledger:
        assert ledger.check() == []
    for leftover in path.rglob("tmp_*"):
        age(leftover)
    with Ledger.open(path):
        assert leftovers(path) == []


def test_two_writers_at_once_lose_no_commit(tmp_path: Path) -> None:
    path = tmp_path / "ledger.git"
    children = [writer(path, name, 8) for name in ("left", "right")]
    outputs = [child.communicate(timeout=90)[0].split("\n") for child in children]
    assert [child.returncode for child in children] == [0, 0]
    reported = {line.split()[0] for out in outputs for line in out if line and line != "ready"}
    assert len(reported) == 16
    with Ledger.open(path) as ledger:
        assert {entry.commit for entry in ledger.log()} == reported
        assert ledger.check() == []


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at a child's descriptors")
def test_only_children_of_the_thread_that_holds_the_lock_share_it(ledger: Ledger) -> None:
    """The holder may close it the moment another thread's child starts, which then fails."""
    held, go_on = threading.Event(), threading.Event()
    own: list[bool] = []

    def shares() -> bool:
        lock = (ledger.path / "muster.lock").stat().st_ino
        with ledger._git.start("cat-file", "--batch-check") as child:
            files = [f.stat().st_ino for f in Path(f"/proc/{child.pid}/fd").iterdir()]
            child.communicate()
        return lock in files

    def hold() -> None:
        with ledger._alone():
            own.append(shares())
            held.set()
            go_on.wait(30)

    writer = threading.Thread(target=hold)
    writer.start()
    assert held.wait(30)
    assert not shares()
    go_on.set()
    writer.join(30)
    assert own == [True]


def test_a_branch_that_somebody_else_moves_is_not_overwritten(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger.commit(state(1))
    original = ledger.tip()
    real = Ledger._tip
    moved: list[str] = []

    def tip_then_push(self: Ledger, branch: str) -> str:
        # Somebody's `git push` lands between our look and our write, once.
        seen = real(self, branch)
        if branch == "live" and not moved:
            tree = subprocess.run(
                ["git", "--git-dir", str(self.path), "-c", "user.name=p", "-c", "user.email=p@x",
                 "commit-tree", f"{seen}^{{tree}}", "-p", seen, "-m", "theirs"],
                check=True, capture_output=True, text=True,
            ).stdout.strip()  # fmt: skip
            subprocess.run(
                ["git", "--git-dir", str(self.path), "update-ref", "refs/heads/live", tree],
                check=True,
            )
            moved.append(tree)
        return seen

    monkeypatch.setattr(Ledger, "_tip", tip_then_push)
    kept = ledger.commit(state(2))
    assert [entry.commit for entry in ledger.log()] == [kept.commit, moved[0], original]
    moved.clear()
    with pytest.raises(ConcurrentError):
        ledger.put("live", {"x": b""}, "mine", expected_parent=kept.commit)
    assert ledger.tip() == moved[0]


@pytest.mark.parametrize(
    "left",
    ["objects/pack/tmp_pack_x1", "objects/pack/tmp_idx_x1", "objects/aa/tmp_obj_x1",
     "fast_import_crash_99", "refs/heads/live.lock", "packed-refs.lock", "HEAD.lock"],
)  # fmt: skip
def test_what_a_killed_process_left_is_swept_away(ledger: Ledger, left: str) -> None:
    ledger.commit(state(1))
    target = ledger.path / left
    target.parent.mkdir(exist_ok=True)
    target.write_text("half")
    age(target)
    with Ledger.open(ledger.path) as again:
        assert not target.exists()
        again.commit(state(2))


def test_a_foreign_keep_file_is_left_alone(ledger: Ledger) -> None:
    ledger.commit(state(1))
    pack = next((ledger.path / "objects" / "pack").glob("*.pack"))
    ours, theirs = pack.with_suffix(".keep"), pack.with_name("pack-x.keep")
    ours.write_text("fast-import\n")
    theirs.write_text("an administrator's\n")
    with Ledger.open(ledger.path):
        assert (ours.exists(), theirs.exists()) == (False, True)


def test_a_fresh_lock_of_a_living_process_is_waited_for(ledger: Ledger) -> None:
    ledger.commit(state(1))
    lock = ledger.path / "refs/heads/live.lock"
    lock.touch()
    release = threading.Timer(0.5, lock.unlink)
    release.start()
    try:
        ledger.commit(state(2))
    finally:
        release.join(30)
    assert len(list(ledger.log())) == 2


# ------------------------------------------------------------------------------- damage


def objects_of(ledger: Ledger, *names: str) -> list[str]:
    return [
        subprocess.run(
            ["git", "--git-dir", str(ledger.path), "rev-parse", name],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        for name in names
    ]  # fmt: skip


def unpack(ledger: Ledger) -> None:
    """Turn packs into loose objects, so that a test can hurt one of them."""
    folder = ledger.path / "objects" / "pack"
    for pack in list(folder.glob("*.pack")):
        moved = pack.rename(ledger.path / pack.name)
        for rest in folder.glob(pack.stem + ".*"):
            rest.unlink()
        with moved.open("rb") as content:
            subprocess.run(
                ["git", "--git-dir", str(ledger.path), "unpack-objects", "-q"],
                stdin=content, check=True,
            )  # fmt: skip
        moved.unlink()


@pytest.mark.parametrize("what", ["blob", "tree", "commit"])
@pytest.mark.parametrize("how", ["missing", "cut", "flipped", "swapped"])
def test_damage_is_found_and_says_which_snapshots_it_hurts(
    ledger: Ledger, what: str, how: str
) -> None:
    one, two, three = (ledger.commit(state(size)) for size in (1, 2, 2))
    path = path_of(Key("deployment", ("sub", "rg", "acc", "d0")))
    names = {
        "blob": f"{two.commit}:{path}",
        "tree": f"{two.commit}:resources",
        "commit": two.commit,
    }
    (victim,) = objects_of(ledger, names[what])
    unpack(ledger)
    assert ledger.check() == []
    file = ledger.path / "objects" / victim[:2] / victim[2:]
    file.chmod(0o644)
    content = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif how == "flipped":
        content[len(content) // 2] ^= 4
        file.write_bytes(content)
    else:  # another whole object under this name
        (other,) = objects_of(ledger, f"{one.commit}:gaps.json")
        file.write_bytes((ledger.path / "objects" / other[:2] / other[2:]).read_bytes())
    damages = ledger.check()
    hurt = {commit for damage in damages for commit in damage.commits}
    expected = {two.commit} if what == "commit" else {two.commit, three.commit}
    assert hurt == expected
    named = [damage for damage in damages if damage.object == victim]
    assert named
    if what != "commit":
        assert {two.snapshot, three.snapshot} <= {s for d in named for s in d.snapshots}


def test_a_flipped_bit_anywhere_in_a_pack_is_found(
    ledger: Ledger, scaled: Callable[[int, int], int]
) -> None:
    ledger.commit(state(1))
    ledger.commit(state(2))
    ledger.maintain()
    chance = random.Random(3)
    for file in sorted((ledger.path / "objects" / "pack").glob("pack-*.[pi]*")):
        file.chmod(0o644)
        healthy = file.read_bytes()
        for _ in range(scaled(4, 100)):
            content = bytearray(healthy)
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
            file.write_bytes(content)
            assert ledger.check(), f"a flipped bit in {file.suffix} was not found"
        file.write_bytes(healthy)
    assert ledger.check() == []


def test_a_damaged_object_stops_a_load_with_a_remedy(ledger: Ledger) -> None:
    ledger.commit(state(1))
    path = path_of(Key("deployment", ("sub", "rg", "acc", "d0")))
    (victim,) = objects_of(ledger, f"live:{path}")
    unpack(ledger)
    (ledger.path / "objects" / victim[:2] / victim[2:]).unlink()
    with pytest.raises(DamagedStoreError) as damaged:
        ledger.load()
    assert "muster verify" in str(damaged.value)


# ------------------------------------------------------------------------------- bundle, upkeep


def test_a_bundle_makes_the_ledger_again(ledger: Ledger, tmp_path: Path) -> None:
    kept = ledger.commit(state(1))
    ledger.put("evidence", {"e": b"1"}, "drill")
    size = ledger.bundle(tmp_path / "vault.bundle")
    assert size == (tmp_path / "vault.bundle").stat().st_size
    with Ledger.from_bundle(tmp_path / "vault.bundle", tmp_path / "again.git") as again:
        assert again.load(kept.snapshot) == ledger.load()
        assert dict(again.files("evidence")) == {"e": b"1"}
        again.commit(state(2))
    with pytest.raises(StoreError, match="something here"):
        Ledger.from_bundle(tmp_path / "vault.bundle", tmp_path / "again.git")


def test_a_bad_bundle_makes_nothing(ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="nothing to bundle"):
        ledger.bundle(tmp_path / "b")
    ledger.commit(state(1))
    ledger.bundle(tmp_path / "b")
    content = (tmp_path / "b").read_bytes()
    (tmp_path / "b").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedStoreError):
        Ledger.from_bundle(tmp_path / "b", tmp_path / "again.git")
    assert not (tmp_path / "again.git").exists()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_many_packs_are_joined_by_themselves(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snapshots.ledger.ledger.PACKS", 5)
    for size in range(8):
        ledger.commit(state(size))
    packs = list((ledger.path / "objects" / "pack").glob("*.pack"))
    assert len(packs) <= 5
    assert len(list(ledger.log())) == 8
    assert ledger.check() == []
    assert len(list(ledger.history(Key("deployment", ("sub", "rg", "acc", "d1"))))) == 8


# ------------------------------------------------------------------------------- pruning


def hours(ledger: Ledger, clock: MovedClock, count: int) -> list[str]:
    found = []
    for hour in range(count):
        clock.moment = START + timedelta(hours=hour)
        found.append(ledger.commit(state(hour)).commit)
    return found


POLICY = Retention(hourly=3, daily=2, weekly=1, monthly=1)


def test_a_prune_plan_changes_nothing_and_gives_reasons(ledger: Ledger, clock: MovedClock) -> None:
    commits = hours(ledger, clock, 30)
    plan = ledger.prune(POLICY)
    assert [d.entry.commit for d in plan.kept] == [commits[n] for n in (29, 28, 27, 11)]
    assert all(d.reasons for d in plan.decisions)
    assert "the newest" in plan.kept[0].reasons
    assert not plan.applied
    assert ledger.tip() == commits[-1]
    assert len(list(ledger.log())) == 30


def test_pruning_keeps_what_was_kept_as_it_was(ledger: Ledger, clock: MovedClock) -> None:
    commits = hours(ledger, clock, 30)
    before = {entry.snapshot: entry for entry in ledger.log()}
    states = {entry.snapshot: ledger.load(entry.commit).resources for entry in before.values()}
    plan = ledger.prune(POLICY, apply=True)
    after = list(ledger.log())
    assert plan.applied
    assert [entry.snapshot for entry in after] == [d.entry.snapshot for d in plan.kept]
    for entry in after:
        was = before[entry.snapshot]
        assert (entry.tree, entry.message, entry.when) == (was.tree, was.message, was.when)
        assert ledger.load(entry.snapshot).resources == states[entry.snapshot]
        # The ids of before still mean the same snapshot.
        assert ledger.resolve(was.snapshot) == ledger.resolve(was.commit) == entry.commit
        assert ledger.resolve(was.commit[:10]) == entry.commit
    for decision in plan.dropped:
        for name in (decision.entry.commit, decision.entry.snapshot):
            with pytest.raises(NotFoundError, match="pruned"):
                ledger.resolve(name)
    assert ledger.check() == []
    loose = subprocess.run(
        ["git", "--git-dir", str(ledger.path), "cat-file", "-e", commits[3]], check=False,
        capture_output=True,
    )  # fmt: skip
    assert loose.returncode != 0  # really gone


def test_ids_survive_two_prunes(ledger: Ledger, clock: MovedClock) -> None:
    hours(ledger, clock, 30)
    first = ledger.prune(POLICY, apply=True)
    survivor = first.kept[-1].entry
    clock.moment = START + timedelta(hours=31)
    ledger.commit(state(99))
    second = ledger.prune(Retention(1, 2, 1, 1), apply=True)
    assert second.dropped
    assert ledger.resolve(survivor.commit) == ledger.resolve(survivor.snapshot)
    with pytest.raises(NotFoundError, match="pruned"):
        ledger.resolve(first.kept[1].entry.commit)
    assert ledger.prune(Retention(1, 2, 1, 1), apply=True).dropped == ()


def test_pruning_spares_what_baseline_and_evidence_refer_to(
    ledger: Ledger, clock: MovedClock
) -> None:
    commits = hours(ledger, clock, 20)
    ids = [entry.snapshot for entry in ledger.log()][::-1]
    ledger.copy(None, commits[2], "baseline", "Approve", {"Approved-From": commits[2]})
    ledger.put("evidence", {"drills/1.json": f'{{"restored": "{ids[5]}"}}'.encode()}, "Drill")
    ledger.put("evidence", {"drills/1.json": None}, f"Audit of {commits[7][:12]}")
    tips = {branch: ledger.tip(branch) for branch in ("baseline", "evidence")}
    plan = ledger.prune(Retention(0, 0, 0, 0), apply=True)
    kept = {d.entry.snapshot: d.reasons for d in plan.kept}
    assert set(kept) == {ids[2], ids[5], ids[7], ids[19]}
    assert kept[ids[2]] == ("baseline refers to it",)
    assert {branch: ledger.tip(branch) for branch in tips} == tips
    assert ledger.load(commits[7]).resources == state(7).resources
    # And they are spared again, though their commits have new ids now.
    assert ledger.prune(Retention(0, 0, 0, 0)).dropped == ()


def test_a_prune_that_loses_a_race_drops_nothing(
    ledger: Ledger, clock: MovedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    hours(ledger, clock, 6)
    real = switch

    def late(git: Git, live: tuple[str, str], note: tuple[str, str, str]) -> None:
        ledger.commit(state(77))
        real(git, live, note)

    monkeypatch.setattr("snapshots.ledger.ledger.switch", late)
    with pytest.raises(ConcurrentError):
        ledger.prune(Retention(1, 0, 0, 0), apply=True)
    assert len(list(ledger.log())) == 7
    monkeypatch.setattr("snapshots.ledger.ledger.switch", real)
    assert ledger.prune(Retention(1, 0, 0, 0), apply=True).applied


# ------------------------------------------------------------------------------- remotes


def remote(tmp_path: Path) -> Path:
    path = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    return path


def test_every_commit_is_pushed(tmp_path: Path, clock: MovedClock) -> None:
    there = remote(tmp_path)
    with Ledger.open(tmp_path / "l.git", remote=str(there), clock=clock, create=True) as ledger:
        kept = ledger.commit(state(1))
        assert kept.pushed
        assert kept.pushed.refs == ("refs/heads/live",)
        assert not ledger.push().refs  # nothing is left to send
    with Ledger.open(there) as copy:
        assert copy.tip() == kept.commit


def test_a_failed_push_is_a_warning_and_is_made_up_for(tmp_path: Path, clock: MovedClock) -> None:
    there = tmp_path / "remote.git"
    with Ledger.open(tmp_path / "l.git", remote=str(there), clock=clock, create=True) as ledger:
        kept = ledger.commit(state(1))
        assert kept.pushed is not None
        assert not kept.pushed
        assert "remote.git" in kept.pushed.warning
        ledger.put("evidence", {"a": b"1"}, "x")
        remote(tmp_path)
        again = ledger.commit(state(2))
        assert again.pushed
        with Ledger.open(there) as copy:
            assert (copy.tip(), copy.tip("evidence")) == (again.commit, ledger.tip("evidence"))


def test_somebody_elses_commits_on_the_remote_are_never_overwritten(
    tmp_path: Path, clock: MovedClock
) -> None:
    there = remote(tmp_path)
    with Ledger.open(tmp_path / "l.git", remote=str(there), clock=clock, create=True) as ledger:
        ledger.commit(state(1))
        with Ledger.open(there) as theirs:
            foreign = theirs.commit(state(5))
        refused = ledger.commit(state(2))
        assert refused.pushed is not None
        assert refused.pushed.warning
        with Ledger.open(there) as theirs:
            assert theirs.tip() == foreign.commit
        assert "went apart" in ledger.pull().warning


def test_a_thinned_history_is_pushed(tmp_path: Path, clock: MovedClock) -> None:
    there = remote(tmp_path)
    with Ledger.open(tmp_path / "l.git", remote=str(there), clock=clock, create=True) as ledger:
        hours(ledger, clock, 6)
        ledger.prune(Retention(2, 0, 0, 0), apply=True)
        assert ledger.push()
        with Ledger.open(there) as copy:
            assert copy.tip() == ledger.tip()
            assert len(list(copy.log())) == 2
        assert not ledger.pull().refs


def test_a_merge_on_the_remotes_baseline_is_taken_over(tmp_path: Path, clock: MovedClock) -> None:
    there = remote(tmp_path)
    with Ledger.open(tmp_path / "l.git", remote=str(there), clock=clock, create=True) as ledger:
        ledger.put("baseline", {"changes/1.yaml": b"1"}, "one")
        ledger.commit(state(1))
        with Ledger.open(there) as theirs:
            merged = theirs.put("baseline", {"changes/2.yaml": b"2"}, "merged")
        pulled = ledger.pull()
        assert pulled
        assert pulled.refs == ("refs/heads/baseline",)
        assert ledger.tip("baseline") == merged


def test_no_secret_of_a_remote_is_told(tmp_path: Path, clock: MovedClock) -> None:
    url = "http://someone:s3cr3t-t0ken@127.0.0.1:9/team/ledger.git?sig=ABCDEF"
    with Ledger.open(tmp_path / "l.git", remote=url, clock=clock, create=True) as ledger:
        kept = ledger.commit(state(1))
        assert kept.pushed is not None
        said = f"{kept.pushed.warning} {ledger.remote} {ledger.pull().warning}"
        assert "127.0.0.1" in said
        for secret in ("s3cr3t", "someone", "ABCDEF"):
            assert secret not in said
    for file in (tmp_path / "l.git").rglob("*"):
        if file.is_file():
            assert b"s3cr3t" not in file.read_bytes()


def test_scrubbing_takes_credentials_out_of_urls() -> None:
    assert scrub("https://u:p@h/x?sig=1 ok") == "https://***@h/x?*** ok"
    assert scrub("plain text", secrets=["text"]) == "plain ***"
