"""Rules of what the ledger remembers: it saves work and never decides anything by itself."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from snapshots.errors import InputError
from snapshots.ledger import Ledger, path_of
from snapshots.ledger import memory as memory_module
from snapshots.ledger.memory import MEMORY, Draft, Memory
from snapshots.model import Gap, GapReason, Json, Key, Payload, Resource, Snapshot, pretty

STRESS = os.environ.get("MUSTER_STRESS", "") not in ("", "0")
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


def resource(number: int, size: int) -> Resource:
    key = Key("deployment", ("sub", f"rg{number // 15}", f"acc{number // 5}", f"d{number}"))
    payloads = (Payload("content", f"{size:064x}", size),) if number % 4 == 0 else ()
    return Resource(key, f"/id/{number}", {"size": size, "name": f"d{number}"}, payloads)


def state(sizes: dict[int, int], gaps: tuple[Gap, ...] = ()) -> Snapshot:
    found = [resource(number, size) for number, size in sorted(sizes.items())]
    reference: dict[str, Json] = {"models/x": {"n": len(sizes)}}
    return Snapshot("contoso", START, "1", {r.key: r for r in found}, gaps, reference)


def gap(number: int) -> Gap:
    within = resource(number, 0).key.path[:3]
    return Gap(Key("deployment", within), GapReason.FAILED, "no", True, ("deployment",))


states = st.lists(
    st.builds(
        lambda sizes, hidden: state(
            {n: s for n, s in sizes.items() if n // 5 not in {h // 5 for h in hidden}},
            tuple(gap(h) for h in sorted(hidden)),
        ),
        st.dictionaries(st.integers(0, 60), st.integers(0, 3), max_size=60),
        st.sets(st.integers(0, 60), max_size=2),
    ),
    min_size=2,
    max_size=5,
)


@given(states, st.data())
@settings(max_examples=300 if STRESS else 8)
def test_with_and_without_memory_the_same_is_kept(
    snapshots: list[Snapshot], data: st.DataObject
) -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(Path(folder) / "a.git", create=True) as one,
        Ledger.open(Path(folder) / "b.git", create=True) as other,
    ):
        for snapshot in snapshots:
            kept = one.commit(snapshot)
            (other.path / MEMORY).unlink(missing_ok=True)
            if data.draw(st.booleans()):
                (one.path / MEMORY).write_bytes(b"")
            plain = other.commit(snapshot)
            mine, theirs = one.load(), other.load()
            assert mine.resources == theirs.resources == snapshot.resources
            assert mine.stale == theirs.stale
            assert (mine.gaps, mine.reference) == (theirs.gaps, theirs.reference)
            if not mine.stale:  # those say in which snapshot they were read, by its id
                assert kept.tree == plain.tree
            for count in ("written", "removed", "unchanged", "stale"):
                assert getattr(kept, count) == getattr(plain, count), count


def changed(folder: Path, form: str) -> None:
    """Make the memory something that must not be relied on, whose effect would show."""
    file = folder / MEMORY
    data = file.read_bytes()
    match form:
        case "a flipped bit":
            at = data.index(b"deployment")
            file.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        case "a torn write":
            file.write_bytes(data[: len(data) // 2])
        case "nothing":
            file.write_bytes(b"")
        case _:
            file.write_bytes(b"\0" * len(data))


@pytest.mark.parametrize("form", ["a flipped bit", "a torn write", "nothing", "zeros"])
def test_damaged_memory_is_no_memory(tmp_path: Path, form: str) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        first = ledger.commit(state(dict.fromkeys(range(40), 1)))
        assert Memory.read(ledger.path, first.commit), "there is something to damage"
        changed(ledger.path, form)
        assert Memory.read(ledger.path, first.commit) is None
        again = ledger.commit(state(dict.fromkeys(range(40), 1) | {3: 2}))
        assert (again.written, again.removed) == (1, 0)
        assert ledger.check() == []


def test_memory_counts_only_for_the_commit_it_was_written_after(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        first = ledger.commit(state(dict.fromkeys(range(40), 1)))
        # Somebody else's commit: the memory does not know what it removed.
        victim = resource(7, 1)
        other = ledger.put("live", {path_of(victim.key): None}, "by hand", {})
        assert Memory.read(ledger.path, first.commit)
        assert Memory.read(ledger.path, other) is None
        again = ledger.commit(state(dict.fromkeys(range(40), 1)))
        assert (again.written, again.tree) == (1, first.tree)


def test_memory_of_another_way_of_writing_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        first = ledger.commit(state({1: 1}))
        monkeypatch.setattr(memory_module, "_form", lambda: "another")
        assert Memory.read(ledger.path, first.commit) is None


def test_memory_is_used_at_all(tmp_path: Path) -> None:
    """Negative control: a memory that lies, whole and in time, would be believed."""
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        first = ledger.commit(state(dict.fromkeys(range(40), 1)))
        memory = Memory.read(ledger.path, first.commit)
        assert memory
        changed_state = state(dict.fromkeys(range(40), 2))
        digests = [g.digest for g in memory_module.grouped(changed_state.resources.values())]
        lies = dict(zip(digests, memory.groups.values(), strict=True))
        with Draft(ledger.path, lies, memory.rest) as draft:
            draft.of(first.commit)
        assert ledger.commit(changed_state).written == 0


def test_a_draft_without_its_commit_is_no_memory(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        first = ledger.commit(state(dict.fromkeys(range(40), 1)))
        memory = Memory.read(ledger.path, first.commit)
        assert memory
        # Killed, or beaten to it, while Git still made the commit.
        with Draft(ledger.path, dict.fromkeys(memory.groups, b""), memory.rest):
            pass
        assert Memory.read(ledger.path, first.commit) is None
        assert ledger.commit(state(dict.fromkeys(range(40), 1) | {3: 2})).written == 1
        # A shorter one over a longer one leaves nothing of it.
        small = ledger.commit(state({1: 1}))
        found = Memory.read(ledger.path, small.commit)
        assert found
        assert set(found.files()) == {path for path, _ in ledger.files(small.commit)}


def one_bit_of_it(item: Resource, what: str) -> Resource:
    """Give it with one thing other than it was."""
    match what:
        case "a value of the body":
            return replace(item, body={**item.body, "size": 2})
        case "the type of a value":
            return replace(item, body={**item.body, "size": 1.0})
        case "another name in the body":
            return replace(item, body={**item.body, "more": None})
        case "the id":
            return replace(item, id=item.id + "x")
        case "a payload's digest":
            return replace(item, payloads=(Payload("content", "f" * 64, 1),))
        case "a payload's name":
            return replace(item, payloads=(Payload("other", f"{1:064x}", 1),))
        case _:
            return replace(item, payloads=())


@pytest.mark.parametrize(
    "what",
    [
        "a value of the body",
        "the type of a value",
        "another name in the body",
        "the id",
        "a payload's digest",
        "a payload's name",
        "no payload any more",
    ],
)
def test_a_change_of_anything_that_is_written_is_seen_beside_what_is_remembered(
    tmp_path: Path, what: str
) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        before = state(dict.fromkeys(range(40), 1))
        first = ledger.commit(before)
        assert Memory.read(ledger.path, first.commit)
        key = resource(20, 1).key
        changed = one_bit_of_it(before.resources[key], what)
        after = replace(before, resources={**before.resources, key: changed})
        kept = ledger.commit(after)
        assert (kept.written, kept.removed) == (1, 0)
        assert pretty(ledger.load().resources[key].document()) == pretty(changed.document())
        assert ledger.commit(before).tree == first.tree


def test_a_body_changed_in_place_is_seen(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        snapshot = state(dict.fromkeys(range(40), 1))
        ledger.commit(snapshot)
        snapshot.resources[resource(20, 1).key].body["size"] = 2
        assert ledger.commit(snapshot).written == 1


def test_names_in_another_order_are_no_change(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        before = state(dict.fromkeys(range(40), 1))
        first = ledger.commit(before)
        turned = {
            key: replace(item, body=dict(reversed(item.body.items())))
            for key, item in before.resources.items()
        }
        kept = ledger.commit(replace(before, resources=turned))
        assert (kept.tree, kept.written) == (first.tree, 0)


def test_marks_are_used_at_all(tmp_path: Path) -> None:
    """Negative control: a neighbour's mark that lies, in a whole memory, would be believed."""
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        snapshot = state(dict.fromkeys(range(3), 1))  # one group
        first = ledger.commit(snapshot)
        memory = Memory.read(ledger.path, first.commit)
        assert memory
        after = state({0: 1, 1: 2, 2: 2})
        lines = b"".join(bytes(part) for part in memory.groups.values())
        old, new = (memory_module.marked(resource(2, size)).encode() for size in (1, 2))
        assert old in lines
        with Draft(ledger.path, {b"x" * 32: lines.replace(old, new)}, memory.rest) as draft:
            draft.of(first.commit)
        assert ledger.commit(after).written == 1
        assert ledger.load().resources[resource(2, 1).key].body["size"] == 1


def test_a_path_that_is_not_unicode_in_the_branch_is_kept_and_costs_the_memory_only(
    tmp_path: Path,
) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        snapshot = state(dict.fromkeys(range(3), 1))
        ledger.commit(snapshot)
        ledger.put("live", {"notes/\udcff.txt": b"by hand"}, "by hand")
        kept = ledger.commit(snapshot)
        assert kept.written == 0
        assert Memory.read(ledger.path, kept.commit) is None
        assert "notes/\udcff.txt" in {path for path, _ in ledger.files(kept.commit)}
        assert ledger.commit(snapshot).tree == kept.tree


def test_two_keys_at_one_path_are_refused_also_when_one_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Ledger.open(tmp_path / "ledger.git", create=True) as ledger:
        before = state(dict.fromkeys(range(40), 1))
        ledger.commit(before)
        first = path_of(resource(0, 1).key)
        monkeypatch.setattr(
            "snapshots.ledger.ledger.path_of",
            lambda key: first if key.name == "d39" else path_of(key),
        )
        with pytest.raises(InputError, match="share a path"):
            ledger.commit(state(dict.fromkeys(range(40), 1) | {39: 2}))
