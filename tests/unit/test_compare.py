"""Rules of compare: what it reports, what it keeps quiet about, and that its paths are enough."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.compare import body_paths, compare, differences, patch, undo
from snapshots.errors import InputError
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Gap,
    GapReason,
    JsonObject,
    Key,
    PathChange,
    Payload,
    Resource,
    Snapshot,
    canonical,
)

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
FILTERS = {"properties.contentFilters[]": ("name", "source")}


def key(name: str, kind: str = "deployment") -> Key:
    return Key(kind, ("sub", "rg", "account", name))


def resource(name: str, body: JsonObject, *, id_: str = "", kind: str = "deployment") -> Resource:
    return Resource(key(name, kind), id_ or f"/ids/{kind}/{name}", body)


def state(*resources: Resource, gaps: tuple[Gap, ...] = ()) -> Snapshot:
    return Snapshot("estate", WHEN, "1", {r.key: r for r in resources}, gaps)


def changes(
    before: Snapshot,
    after: Snapshot,
    table: Mapping[str, tuple[str, ...]] | None = None,
    *,
    ids: bool = False,
) -> list[Change]:
    return list(compare(before, after, lambda _kind: table or {}, ids=ids))


def paths(
    before: JsonObject, after: JsonObject, table: Mapping[str, tuple[str, ...]] | None = None
) -> list[PathChange]:
    return differences(before, after, table)


def listing_gap(*hides: str) -> Gap:
    within = Key(hides[0], ("sub", "rg", "account"))
    return Gap(within, GapReason.DENIED, "403", listing=True, hides=hides)


# --------------------------------------------------------------------------------- resources


def test_equal_states_have_no_change() -> None:
    one = state(resource("a", {"x": 1, "y": {"z": [1, 2]}}))
    other = state(resource("a", {"y": {"z": [1, 2]}, "x": 1}))
    assert changes(one, other) == []


def test_added_removed_and_changed_are_told_apart_and_sorted() -> None:
    before = state(resource("gone", {"x": 1}), resource("edited", {"x": 1}), resource("same", {}))
    after = state(resource("new", {"x": 1}), resource("edited", {"x": 2}), resource("same", {}))
    found = changes(before, after)
    assert [(c.type, c.key.name) for c in found] == [
        (ChangeType.CHANGED, "edited"),
        (ChangeType.REMOVED, "gone"),
        (ChangeType.ADDED, "new"),
    ]
    assert found[0].paths == (PathChange("/x", 1, 2),)
    assert found[1].before == before.resources[key("gone")]
    assert found[2].after == after.resources[key("new")]


@pytest.mark.parametrize("hidden_in", ["before", "after"])
def test_what_a_gap_hides_is_unknown_and_never_removed_or_added(hidden_in: str) -> None:
    gap = listing_gap("deployment")
    full, hidden = state(resource("a", {})), state(gaps=(gap,))
    pair = (hidden, full) if hidden_in == "before" else (full, hidden)
    assert [(c.type, c.gap) for c in changes(*pair)] == [(ChangeType.UNKNOWN, gap)]
    # The same without the gap is a plain change: the gap is what made the difference.
    bare = state()
    pair = (bare, full) if hidden_in == "before" else (full, bare)
    assert changes(*pair)[0].type is not ChangeType.UNKNOWN


def test_a_gap_of_one_resource_hides_only_that_one() -> None:
    gap = Gap(key("a"), GapReason.FAILED, "500")
    found = changes(state(resource("a", {}), resource("b", {})), state(gaps=(gap,)))
    assert [(c.key.name, c.type) for c in found] == [
        ("a", ChangeType.UNKNOWN),
        ("b", ChangeType.REMOVED),
    ]


def test_what_was_read_in_spite_of_a_gap_is_compared() -> None:
    after = state(resource("a", {"x": 2}), gaps=(listing_gap("deployment"),))
    found = changes(state(resource("a", {"x": 1})), after)
    assert [c.type for c in found] == [ChangeType.CHANGED]


def test_what_is_stale_is_unknown_with_what_was_known() -> None:
    old = resource("a", {"x": 1})
    after = Snapshot("estate", WHEN, "1", {}, (listing_gap("deployment"),), stale={old.key: old})
    (change,) = changes(state(old), after)
    assert (change.type, change.after) == (ChangeType.UNKNOWN, old)


def test_a_rename_is_recognised_by_id_and_tells_its_paths() -> None:
    before = state(resource("old", {"x": 1}, id_="asst_1"))
    after = state(resource("new", {"x": 2}, id_="asst_1"))
    (change,) = changes(before, after)
    assert change.type is ChangeType.CHANGED
    assert (change.key, change.renamed_from) == (key("new"), key("old"))
    assert change.paths == (PathChange("/x", 1, 2),)


def test_a_pure_rename_is_a_change() -> None:
    before = state(resource("old", {"x": 1}, id_="asst_1"))
    after = state(resource("new", {"x": 1}, id_="asst_1"))
    assert [c.renamed_from for c in changes(before, after)] == [key("old")]


@pytest.mark.parametrize("id_", ["asst_2", "ASST_1"])
def test_another_id_is_no_rename(id_: str) -> None:
    before = state(resource("old", {}, id_="asst_1"))
    after = state(resource("new", {}, id_=id_))
    assert {c.type for c in changes(before, after)} == {ChangeType.ADDED, ChangeType.REMOVED}


def test_the_same_id_of_another_kind_or_twice_is_no_rename() -> None:
    before = state(resource("old", {}, id_="1"))
    assert len(changes(before, state(resource("new", {}, id_="1", kind="agent")))) == 2
    twins = state(resource("new", {}, id_="1"), resource("newer", {}, id_="1"))
    assert len(changes(before, twins)) == 3


def test_made_again_under_its_name_shows_only_when_ids_are_asked_for() -> None:
    before = state(resource("a", {"x": 1}, id_="file-1"))
    after = state(resource("a", {"x": 1}, id_="file-2"))
    assert changes(before, after) == []
    (change,) = changes(before, after, ids=True)
    assert change.paths == (PathChange("/id", "file-1", "file-2"),)
    assert body_paths(change) == ()


def test_an_arm_id_in_another_case_is_the_same_id() -> None:
    before = state(resource("a", {}, id_="/subscriptions/S/x"))
    after = state(resource("a", {}, id_="/subscriptions/s/X"))
    assert changes(before, after, ids=True) == []


def test_payloads_are_paths_of_their_own() -> None:
    old = Payload("content", "a" * 64, 1)
    new = Payload("content", "b" * 64, 2)
    extra = Payload("result:0", "c" * 64, 3)
    before = Resource(key("f"), "f", {"x": 1}, (old,))
    after = Resource(key("f"), "f", {"x": 2}, (new, extra))
    (change,) = changes(state(before), state(after))
    assert [p.path for p in change.paths] == ["/x", "/payloads/content", "/payloads/result:0"]
    assert change.paths[2].before is MISSING
    assert change.paths[1].after == {"sha256": "b" * 64, "size": 2}
    assert body_paths(change) == (PathChange("/x", 1, 2),)


# ------------------------------------------------------------------------------ DeepDiff traps


def test_an_object_that_shares_few_names_is_not_reported_whole() -> None:
    before: JsonObject = {"p": {"a": 1, "b": 1, "c": 1, "keep": 0}}
    after: JsonObject = {"p": {"d": 1, "e": 1, "f": 1, "keep": 0}}
    assert [p.path for p in paths(before, after)] == [f"/p/{n}" for n in "abcdef"]


def test_added_and_removed_names_are_reported() -> None:
    assert paths({"a": {}}, {"a": {"new": 1}}) == [PathChange("/a/new", MISSING, 1)]
    assert paths({"a": {"old": None}}, {"a": {}}) == [PathChange("/a/old", None, MISSING)]


def test_names_that_look_private_are_not_left_out() -> None:
    assert paths({"__x": 1}, {"__x": 2}) == [PathChange("/__x", 1, 2)]


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (1, "1"), (1, True), (0, False), (1, 1.0), (None, 0), (None, False), ("", None),
        ([], {}), ({}, None), ([1], {"0": 1}), ([], None), ([1], 1), (True, "true"),
    ],
)  # fmt: skip
def test_values_of_two_types_differ(was: Any, now: Any) -> None:
    for one, other in ((was, now), (now, was)):
        assert paths({"a": one}, {"a": other}) == [PathChange("/a", one, other)]
        found = paths({"a": [one]}, {"a": [other]})
        assert [(p.path, type(p.before), type(p.after)) for p in found] == [
            ("/a/0", type(one), type(other))
        ]


def test_null_and_missing_are_two_things() -> None:
    (change,) = paths({"a": None}, {})
    assert change.before is None
    assert change.after is MISSING
    assert paths({"a": None}, {"a": None}) == []


@pytest.mark.parametrize(
    "name", ["a.b", "a['b']", 'a"b', "a[0]", "a/b", "a~b", "~1", "", "root", "ü", "a\nb", "0"]
)
def test_odd_names_are_pointed_at_exactly(name: str) -> None:
    escaped = name.replace("~", "~0").replace("/", "~1")
    before: JsonObject = {"p": {name: {"x": 1}}}
    after: JsonObject = {"p": {name: {"x": 2}}}
    assert paths(before, after) == [PathChange(f"/p/{escaped}/x", 1, 2)]
    assert patch(before, paths(before, after)) == after


def test_a_new_item_in_front_does_not_touch_the_others() -> None:
    before: JsonObject = {"l": [{"n": 1}, {"n": 2}]}
    after: JsonObject = {"l": [{"n": 0}, {"n": 1}, {"n": 2}]}
    assert paths(before, after) == [PathChange("/l/0", MISSING, {"n": 0})]
    assert paths(after, before) == [PathChange("/l/0", {"n": 0}, MISSING)]


def test_order_counts_where_nothing_else_is_said() -> None:
    assert paths({"l": [1, 2]}, {"l": [2, 1]}) != []


def test_a_repeated_item_is_seen() -> None:
    # ignore_order=True forgets repetitions.
    assert paths({"l": [1]}, {"l": [1, 1]}) == [PathChange("/l/1", MISSING, 1)]
    assert paths({"l": [1]}, {"l": [1, 1]}, {"l[]": ()}) == [PathChange("/l/1", MISSING, 1)]


def filters(*items: tuple[str, str, str]) -> JsonObject:
    return {
        "properties": {
            "contentFilters": [
                {"name": name, "source": source, "severityThreshold": level}
                for name, source, level in items
            ]
        }
    }


def test_an_item_is_found_by_identity_and_reports_its_own_property() -> None:
    before = filters(("Hate", "Prompt", "Low"), ("Hate", "Completion", "Low"))
    after = filters(("Hate", "Completion", "High"), ("Hate", "Prompt", "Low"))
    assert paths(before, after, FILTERS) == [
        PathChange("/properties/contentFilters/0/severityThreshold", "Low", "High")
    ]


def test_the_order_of_items_with_identity_is_no_change() -> None:
    before = resource("a", filters(("Hate", "Prompt", "Low"), ("Self", "Prompt", "Low")))
    after = resource("a", filters(("Self", "Prompt", "Low"), ("Hate", "Prompt", "Low")))
    assert changes(state(before), state(after), FILTERS) == []
    assert changes(state(before), state(after)) != []


def test_removed_items_are_pointed_at_where_they_were() -> None:
    before = filters(("A", "P", "Low"), ("B", "P", "Low"), ("C", "P", "Low"))
    after = filters(("X", "P", "Low"), ("C", "P", "High"))
    assert [p.path.removeprefix("/properties/contentFilters") for p in paths(before, after, FILTERS)
    ] == ["/0", "/0", "/1", "/1/severityThreshold"]  # fmt: skip


def test_identity_has_no_case() -> None:
    before = filters(("Hate", "Prompt", "Low"))
    after = filters(("hate", "prompt", "Low"))
    assert [p.path[-5:] for p in paths(before, after, FILTERS)] == ["/name", "ource"]


def test_the_pattern_may_be_deep_and_hold_lists() -> None:
    table = {"rules[].parts[]": ("id",), "**.tags[]": ()}
    before: JsonObject = {"rules": [{"parts": [{"id": 1, "v": 1}, {"id": 2, "tags": ["a", "b"]}]}]}
    after: JsonObject = {"rules": [{"parts": [{"id": 2, "tags": ["b", "a"]}, {"id": 1, "v": 2}]}]}
    assert paths(before, after, table) == [PathChange("/rules/0/parts/1/v", 1, 2)]


# --------------------------------------------------------------------------- patch and undo


def test_patch_refuses_a_body_that_changed_meanwhile() -> None:
    found = paths({"a": 1}, {"a": 2})
    with pytest.raises(InputError, match="does not hold"):
        patch({"a": 3}, found)
    with pytest.raises(InputError):
        patch({"b": 1}, found)
    with pytest.raises(InputError):
        patch({"l": []}, [PathChange("/l/4", 1, 2)])


def test_undo_takes_back_one_property_and_leaves_the_rest() -> None:
    before = filters(("A", "P", "Low"), ("B", "P", "Low"))
    after = filters(("N", "P", "High"), ("B", "P", "High"), ("A", "P", "High"))
    chosen = [p for p in paths(before, after, FILTERS) if p.path.endswith("/2/severityThreshold")]
    assert len(chosen) == 1
    assert undo(before, after, chosen, FILTERS) == filters(
        ("N", "P", "High"), ("B", "P", "High"), ("A", "P", "Low")
    )


def test_undo_refuses_what_is_not_a_difference() -> None:
    with pytest.raises(InputError, match="not what differs"):
        undo({"a": 1}, {"a": 2}, [PathChange("/a", 1, 3)])


SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, 2.5]),
    st.text("ab/~.'\"[0]_ \n", max_size=4),
)  # fmt: skip
NAMES = st.text("ab/~.'[0]_", max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=5), st.dictionaries(NAMES, inner, max_size=4)),
    max_leaves=20,
)
BODIES = st.dictionaries(NAMES, VALUES, max_size=5)
TABLE = {"items[]": ("id",), "items[].tags[]": ()}
NUMBERS: Any = st.integers(0, 4)
ITEM: Any = st.fixed_dictionaries(
    {"id": NUMBERS},
    optional={"v": SCALARS, "tags": st.lists(st.sampled_from("abc"), max_size=3).map(sorted)},
)
WITH_ITEMS = st.fixed_dictionaries(
    {"items": st.lists(ITEM, max_size=5, unique_by=lambda i: i["id"])}, optional={"x": VALUES}
)

# Without other lists: which of those items pair up depends on what else is in them.
PLAIN_ITEMS = st.fixed_dictionaries(
    {"items": st.lists(ITEM, max_size=5, unique_by=lambda i: i["id"])}, optional={"x": SCALARS}
)


def ordered(body: Any) -> Any:
    body = copy.deepcopy(body)
    for item in body["items"]:
        item.get("tags", []).sort()
    body["items"].sort(key=lambda i: i["id"])
    return body


@given(BODIES, BODIES)
def test_the_paths_are_enough_to_make_one_body_of_the_other(
    before: JsonObject, after: JsonObject
) -> None:
    found = differences(before, after)
    assert canonical(patch(before, found)) == canonical(after)
    assert canonical(undo(before, after, found)) == canonical(before)
    assert bool(found) == (canonical(before) != canonical(after))


@given(WITH_ITEMS, WITH_ITEMS)
def test_the_paths_are_enough_where_items_have_identity(one: Any, other: Any) -> None:
    before, after = ordered(one), ordered(other)
    found = differences(before, after, TABLE)
    assert canonical(patch(before, found)) == canonical(after)
    assert canonical(undo(before, after, found, TABLE)) == canonical(before)


@given(PLAIN_ITEMS, PLAIN_ITEMS, st.data())
def test_undo_is_exact_for_any_choice_in_any_order(
    one: Any, other: Any, data: st.DataObject
) -> None:
    found = differences(one, other, TABLE)
    chosen = [p for p in found if data.draw(st.booleans())]
    undone = undo(one, other, chosen, TABLE)
    left = differences(one, undone, TABLE)
    assert len(left) == len(found) - len(chosen)
    assert ordered(undo(one, other, found, TABLE)) == ordered(one)


@given(WITH_ITEMS, st.randoms())
def test_shuffled_items_are_no_difference(body: Any, random: Any) -> None:
    other = copy.deepcopy(body)
    random.shuffle(other["items"])
    for item in other["items"]:
        random.shuffle(item.get("tags", []))
    assert differences(body, other, TABLE) == []


@given(BODIES, BODIES)
def test_compare_changes_neither_side(before: JsonObject, after: JsonObject) -> None:
    kept = canonical([before, after])
    found = differences(before, after, {"a[]": ()})
    patch(before, differences(before, after))
    undo(before, after, found, {"a[]": ()})
    assert canonical([before, after]) == kept
