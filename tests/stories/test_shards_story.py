"""A snapshot in shards is the snapshot that one reader would have made, whoever dies meanwhile."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.settings import Environment, load
from muster.verbs.shards import commit_shards, missing_shards, order_snapshot, read_shard
from muster.verbs.snapshot import Taken, keep_snapshot
from muster.wiring import Wiring
from snapshots.errors import DamagedStoreError, InputError, NotFoundError
from snapshots.model import CallCount, Key, Resource, Snapshot
from snapshots.shards import (
    MOST_PARTS,
    Capture,
    Order,
    deal,
    join,
    keep_capture,
    keep_order,
    read_capture,
    read_order,
)
from snapshots.take import Scope, TakeOptions
from snapshots.vault import open_vault
from tests.muster_site_fixtures import Site
from tests.sandbox_fixtures import RunningSandbox

NOW = datetime(2026, 1, 5, 8, 30, tzinfo=UTC)


class FixedClock:
    """Always the same moment."""

    def now(self) -> datetime:
        return NOW

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


@pytest.fixture
def site(sandbox: RunningSandbox, new_site: Callable[..., Site]) -> Iterator[Site]:
    yield new_site(sandbox)
    sandbox.control("DELETE", "faults")


def wired(site: Site) -> Wiring:
    return Wiring(load(site.config), Environment())


def whole(site: Site) -> Taken:
    with wired(site) as wiring:
        return keep_snapshot(wiring)


def sharded(site: Site, run: str, *, groups: int = 1, parts: int = 1) -> Taken:
    """As many workers as shards, each on its own, last first, and one committer."""
    with wired(site) as wiring:
        order = order_snapshot(wiring, run, groups=groups, parts=parts)
    for shard in reversed(order.shards):
        with wired(site) as wiring:
            assert read_shard(wiring, run, shard.number).first
    with wired(site) as wiring:
        assert missing_shards(wiring, run) == ()
        return commit_shards(wiring, run)


def commits(site: Site) -> int:
    return int(site.git("rev-list", "--count", "live").stdout)


# ---------------------------------------------------------------------------------- the same


@pytest.mark.parametrize(("groups", "parts"), [(2, 1), (1, 3)])
def test_shards_together_are_the_tree_that_one_reader_makes_and_fetch_no_file_again(
    site: Site, groups: int, parts: int
) -> None:
    alone = whole(site)
    taken = sharded(site, "night-1", groups=groups, parts=parts)
    assert taken.kept.tree == alone.kept.tree, "nothing changed between the two"
    assert (taken.kept.written, taken.kept.removed) == (0, 0)
    assert not taken.snapshot.gaps
    assert not any("content" in kind for kind in taken.snapshot.calls.by_kind), (
        "bytes that the vault has were fetched again"
    )
    again = whole(site)
    assert again.kept.tree == alone.kept.tree


def test_no_account_is_read_by_two_shards_and_none_by_none(site: Site) -> None:
    alone = whole(site)
    with wired(site) as wiring:
        order = order_snapshot(wiring, "night-2", parts=4)
        for shard in order.shards:
            read_shard(wiring, "night-2", shard.number)
        found = [
            set(read_capture(wiring.vault(), "night-2", s.number).snapshot.resources)
            for s in order.shards
        ]
    assert sum(map(len, found)) == len(set().union(*found)) == len(alone.snapshot.resources)
    busy = [keys for keys in found if any(key.kind == "account" for key in keys)]
    assert len(busy) > 1, "the accounts were not dealt out at all"


# ---------------------------------------------------------------------- once, and never less


def test_a_run_is_committed_once_however_often_the_committer_repeats_itself(site: Site) -> None:
    first = sharded(site, "night-3", groups=2)
    between = whole(site)
    with wired(site) as wiring:
        again = commit_shards(wiring, "night-3")
    assert (again.kept.commit, again.bundle) == (first.kept.commit, first.bundle)
    assert commits(site) == 2
    third = sharded(site, "night-4", groups=2)
    assert third.kept.commit not in {first.kept.commit, between.kept.commit}
    assert commits(site) == 3
    assert "Traceback" not in site.run("verify")


def test_a_shard_that_two_workers_read_counts_once_and_the_first_capture_stays(site: Site) -> None:
    with wired(site) as wiring:
        order = order_snapshot(wiring, "night-5", groups=2)
        first = read_shard(wiring, "night-5", 0)
        kept = read_capture(wiring.vault(), "night-5", 0)
        late = replace(kept, snapshot=replace(kept.snapshot, seconds=999.0))
        assert keep_capture(wiring.vault(), late) is False
        second = read_shard(wiring, "night-5", 0)
        assert (first.first, second.first) == (True, False)
        assert read_capture(wiring.vault(), "night-5", 0) == kept
        assert missing_shards(wiring, "night-5") == (1,)
        assert order_snapshot(wiring, "night-5", groups=1) == order, "an order is given once"


def test_a_lost_shard_is_a_gap_and_never_an_absence(site: Site) -> None:
    alone = whole(site)
    with wired(site) as wiring:
        order = order_snapshot(wiring, "night-6", groups=2)
        read_shard(wiring, "night-6", 1)
        taken = commit_shards(wiring, "night-6", lost={0: "its worker is gone"})
        (gap,) = taken.snapshot.gaps
        assert gap.key.path == order.shards[0].subscriptions
        assert "shard-000 was not read: its worker is gone" in gap.detail
        held = wiring.ledger().load()
    lost = {k for k in alone.snapshot.resources if k.path[0] == gap.key.path[0]}
    assert lost
    assert all(gap.covers(key) for key in lost)
    assert taken.kept.removed == 0, "what was not read was taken for deleted"
    assert lost <= set(held.stale)
    then = sharded(site, "night-7", groups=2)
    assert then.kept.tree == alone.kept.tree


def test_a_cut_of_one_part_hides_nothing_that_another_part_read(
    site: Site, sandbox: RunningSandbox
) -> None:
    alone = whole(site)
    with wired(site) as wiring:
        order_snapshot(wiring, "night-8", parts=2)
        read_shard(wiring, "night-8", 0)
        taken = commit_shards(wiring, "night-8", lost={1: "stopped"})
    assert taken.kept.removed == 0
    assert taken.snapshot.resources
    assert set(taken.snapshot.resources) < set(alone.snapshot.resources)
    missing = set(alone.snapshot.resources) - set(taken.snapshot.resources)
    assert all(taken.snapshot.hidden(key) for key in missing)


def test_nothing_read_at_all_commits_nothing(site: Site) -> None:
    with wired(site) as wiring:
        order_snapshot(wiring, "night-9", groups=2)
        with pytest.raises(InputError, match="no shard of run night-9 was read"):
            commit_shards(wiring, "night-9")
    assert commits(site) == 0 if site.git("rev-parse", "live").returncode == 0 else True


class Later:
    """The clock of next month."""

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(days=30)

    def sleep(self, seconds: float) -> None:
        raise AssertionError(seconds)


def test_a_prune_removes_captures_once_they_are_old_and_nothing_is_missing_then(site: Site) -> None:
    sharded(site, "night-11", groups=2)
    with wired(site) as wiring:
        assert wiring.vault().prune(apply=True).leftovers == ()
        kept = wiring.vault().documents("shards/")
        assert sum(path.endswith(".json.gz") for path in kept) == 3, "two captures and an order"
        assert sum(path.endswith(".beat") for path in kept) == 2
    with Wiring(load(site.config), Environment(), clock=Later()) as wiring:
        swept = wiring.vault().prune(apply=True)
        assert len(swept.leftovers) == 3 * 2 + 2, "what was kept for good has its sum beside it"
        assert wiring.vault().documents("shards/") == ()
    site.run("verify")


# ------------------------------------------------------------------------------ bad input


def test_what_cannot_be_an_order_is_refused_with_a_remedy(site: Site) -> None:
    with wired(site) as wiring:
        whole(site)
        with pytest.raises(InputError, match="not a name of a run"):
            order_snapshot(wiring, "../up")
        with pytest.raises(InputError, match="not a name for a run"):
            keep_order(wiring.vault(), Order("-", "e", "1", (Scope("s"),), deal([Scope("s")])))
        with pytest.raises(NotFoundError):
            read_shard(wiring, "never-ordered", 0)
        order_snapshot(wiring, "night-10")
        with pytest.raises(InputError, match="has no shard 7"):
            read_shard(wiring, "night-10", 7)


@pytest.mark.parametrize(
    "damage",
    [b"", b"no gzip", gzip.compress(b"[]"), gzip.compress(b'{"format": 9}'),
     gzip.compress(b'{"format": 1, "run": "night"}'), gzip.compress(b'{"format": 1}')[:-4]],
    ids=["empty", "not-gzip", "a-list", "newer-format", "incomplete", "cut"],
)  # fmt: skip
def test_a_damaged_capture_or_order_says_so(tmp_path: Path, damage: bytes) -> None:
    with closing(open_vault(str(tmp_path / "vault"), clock=FixedClock())) as vault:
        vault.prepare()
        vault.keep_document("shards/night/shard-000.json.gz", damage)
        vault.keep_document("shards/night/order.json.gz", damage)
        with pytest.raises(DamagedStoreError, match="shard-000"):
            read_capture(vault, "night", 0)
        with pytest.raises(DamagedStoreError, match="order"):
            read_order(vault, "night")


# --------------------------------------------------------------------------------- dealing


@given(
    subscriptions=st.lists(st.uuids().map(str), min_size=1, max_size=12, unique=True),
    groups=st.integers(1, 14),
    parts=st.integers(1, MOST_PARTS),
    names=st.lists(st.text("abcdefghij", min_size=1, max_size=6), max_size=20, unique=True),
)
def test_every_account_is_in_exactly_one_shard(
    subscriptions: list[str], groups: int, parts: int, names: list[str]
) -> None:
    shards = deal([Scope(s) for s in subscriptions], groups=groups, parts=parts)
    assert [s.number for s in shards] == list(range(min(groups, len(subscriptions)) * parts))
    for subscription in subscriptions:
        mine = [s for s in shards if subscription in s.subscriptions]
        assert [s.part for s in mine] == list(range(parts))
        for name in names:
            account = Key("account", (subscription, "rg", name))
            below = Key("deployment", (subscription, "rg", name, "chat"))
            assert [s.has(account) for s in mine].count(True) == 1
            assert [s.has(account) for s in mine] == [s.has(below) for s in mine]


@pytest.mark.parametrize(
    ("groups", "parts"), [(0, 1), (1, 0), (-1, 1), (1, MOST_PARTS + 1), (40, 15)]
)
def test_an_impossible_cut_is_refused(groups: int, parts: int) -> None:
    scopes = [Scope(f"00000000-0000-0000-0000-{n:012d}") for n in range(40)]
    with pytest.raises(InputError):
        deal(scopes, groups=groups, parts=parts)


def test_captures_of_another_run_are_refused_and_sums_are_sums() -> None:
    scopes = (Scope("s1"), Scope("s2"))
    order = Order("a", "e", "1", scopes, deal(scopes, groups=2), TakeOptions())
    one = _capture(order, 0, CallCount(3, 2, 1, 0, {"account": 3}))
    two = _capture(order, 1, CallCount(4, 4, 0, 2, {"account": 1, "lock": 3}))
    joined, _ = join(order, [two, one], clock=FixedClock())
    assert joined.calls == CallCount(7, 6, 1, 2, {"account": 4, "lock": 3})
    with pytest.raises(InputError, match="run b"):
        join(order, [replace(one, run="b")], clock=FixedClock())


def _capture(order: Order, number: int, calls: CallCount) -> Capture:
    key = Key("account", (order.shards[number].subscriptions[0], "g", "a"))
    return Capture(
        order.run, number, Snapshot("e", NOW, "1", {key: Resource(key, "/x", {})}, calls=calls)
    )
