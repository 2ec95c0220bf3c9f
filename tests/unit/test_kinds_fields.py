"""Field patterns and tables: what is noise goes, what means something stays."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.kinds.fields import (
    Default,
    Fields,
    Items,
    Name,
    Normaliser,
    Pattern,
    Wild,
    pointer,
    replaced,
)
from snapshots.model import Json, JsonObject, canonical
from snapshots.secrets import Fingerprints, is_fingerprint

PRINTS = Fingerprints(b"a key of at least sixteen bytes")

names = st.text(min_size=1, max_size=6)
steps = st.lists(
    st.one_of(names.map(Name), st.sampled_from([Wild.ANY, Wild.DEEP]), st.just(Wild.EACH)),
    min_size=1,
    max_size=5,
)
bodies = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "a", "B"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abcd"), inner),
    max_leaves=25,
)
objects = st.dictionaries(st.sampled_from("abcd"), bodies, max_size=4)


@given(steps)
def test_a_pattern_reads_back_as_it_was_written(parts: list[Name | Wild]) -> None:
    pattern = Pattern(tuple(parts))
    assert Pattern.parse(str(pattern)) == pattern


@pytest.mark.parametrize("text", ["", ".", "a.", ".a", "a..b", "a[", "a[]b", "a]", "a.'b", "[].."])
def test_what_is_not_a_pattern_is_refused_with_its_place(text: str) -> None:
    with pytest.raises(ValueError, match="character"):
        Pattern.parse(text)


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("a", [("/a", {"b": [1, 2], "x.y": 5})]),
        ("a.b[]", [("/a/b/0", 1), ("/a/b/1", 2)]),
        ("a.*", [("/a/b", [1, 2]), ("/a/x.y", 5)]),
        ("a.'x.y'", [("/a/x.y", 5)]),
        ("**.t", [("/t", 7), ("/l/0/t", 8)]),
        ("l[].t", [("/l/0/t", 8)]),
        ("t[]", []),
        ("a.b.c", []),
    ],
)
def test_a_pattern_finds_what_it_names(pattern: str, found: list[tuple[str, Json]]) -> None:
    body: Json = {"a": {"b": [1, 2], "x.y": 5}, "t": 7, "l": [{"t": 8}]}
    assert [(pointer(at), value) for at, value in Pattern.parse(pattern).find(body)] == found


@given(objects, steps)
def test_replacing_changes_what_is_found_and_nothing_else(
    body: JsonObject, parts: list[Name | Wild]
) -> None:
    pattern = Pattern(tuple(parts))
    assert canonical(replaced(body, pattern, lambda value: value)) == canonical(body)
    if Wild.DEEP not in parts:
        marked = replaced(body, pattern, lambda _value: "MARK")
        assert [v for _, v in pattern.find(marked)] == ["MARK"] * len(list(pattern.find(body)))


def normal(body: JsonObject, table: Fields) -> Json:
    return Normaliser(table)(body, PRINTS)


TABLE = Fields(
    volatile=("a.x", "**.noise"),
    items=(Items("l", ("n",)), Items("s")),
    defaults=(Default("tags", {}), Default("l[].on", value=False)),
    case_insensitive=("id",),
    case_insensitive_names=("ids",),
    locations=("where",),
    secret=("hidden", "c.**.key"),
    verbatim=("schema",),
)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"a": {"x": 1, "y": 2}}, {"a": {"y": 2}}),
        ({"q": {"noise": 1, "r": [{"noise": 2, "k": 3}]}}, {"q": {"r": [{"k": 3}]}}),
        ({"l": [{"n": "b"}, {"n": "A", "on": False}]}, {"l": [{"n": "A"}, {"n": "b"}]}),
        ({"s": [3, 1, 2]}, {"s": [1, 2, 3]}),
        ({"o": [3, 1, 2]}, {"o": [3, 1, 2]}),
        ({"tags": {}, "p": None}, {}),
        ({"tags": {"a": None, "b": ""}}, {"tags": {"b": ""}}),
        ({"id": "/Sub/X", "ids": {"/A": {}}}, {"id": "/sub/x", "ids": {"/a": {}}}),
        ({"where": "East US 2"}, {"where": "eastus2"}),
        ({"schema": {"default": None, "b": [2, None, 1]}},) * 2,
        ({"list": [1, None]},) * 2,
    ],
)
def test_noise_goes_and_meaning_stays(body: JsonObject, expected: Json) -> None:
    assert normal(body, TABLE) == expected


def test_a_declared_secret_never_stays() -> None:
    result = normal({"hidden": {"type": "k", "v": "abc"}, "c": {"d": {"key": "xyz"}}}, TABLE)
    assert isinstance(result, dict)
    assert result["hidden"]["type"] == "k"  # type: ignore[index, call-overload]
    assert is_fingerprint(result["hidden"]["v"])  # type: ignore[index, call-overload]
    assert is_fingerprint(result["c"]["d"]["key"])  # type: ignore[index, call-overload]


def shuffled(value: Json, random_: random.Random, *, inside: bool = False) -> Json:
    if isinstance(value, dict):
        entries = list(value.items())
        random_.shuffle(entries)
        return {key: shuffled(inner, random_, inside=key in {"l", "s"}) for key, inner in entries}
    if isinstance(value, list):
        items = [shuffled(item, random_) for item in value]
        if inside:
            random_.shuffle(items)
        return items
    return value


lists = st.lists(st.fixed_dictionaries({"n": st.sampled_from("abAB")}, optional={"v": bodies}))


@given(objects, lists, st.lists(st.integers(-9, 9)), st.integers())
def test_an_accident_of_order_makes_no_difference(
    body: JsonObject, items: list[JsonObject], numbers: list[int], seed: int
) -> None:
    whole: JsonObject = {**body, "l": list(items), "s": list(numbers)}
    other = shuffled(whole, random.Random(seed))
    assert isinstance(other, dict)
    assert canonical(normal(other, TABLE)) == canonical(normal(whole, TABLE))


@given(objects)
def test_the_canonical_form_is_its_own(body: JsonObject) -> None:
    once = normal(body, TABLE)
    assert isinstance(once, dict)
    assert canonical(normal(once, TABLE)) == canonical(once)


def test_a_difference_that_means_something_is_kept() -> None:
    assert normal({"l": [{"n": "a", "v": 1}]}, TABLE) != normal({"l": [{"n": "a", "v": 2}]}, TABLE)
    assert normal({"o": [1, 2]}, TABLE) != normal({"o": [2, 1]}, TABLE)
    assert normal({"hidden": "old"}, TABLE) != normal({"hidden": "new"}, TABLE)
