"""Rule packs do what their examples say, know the direction, and name what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.audit.planned import parse_plans
from snapshots.audit.report_model import Severity
from snapshots.audit.rules import (
    covers,
    judge,
    list_identity,
    load_packs,
    parse_pack,
    prove,
    severity_of,
)
from snapshots.compare import compare
from snapshots.errors import InputError
from snapshots.kinds.fields import Pattern
from snapshots.model import Change, JsonObject, Key, Resource, Snapshot
from tests.canned_cloud import FrozenClock

BUILTIN = load_packs(("builtin",), Path())

GOOD = """
pack: ours
rules:
  - id: cut
    title: Cut
    why: Less.
    severity: high
    kinds: [deployment]
    any: [{path: sku.capacity, goes: down}]
    examples:
      - {fires: true, before: {sku: {capacity: 2}}, after: {sku: {capacity: 1}}}
      - {fires: false, before: {sku: {capacity: 1}}, after: {sku: {capacity: 2}}}
"""


def change(kind: str, before: JsonObject | None, after: JsonObject | None) -> Change:
    key = Key(kind, ("s", "g", "a", "n"))

    def state(body: JsonObject | None) -> Snapshot:
        found = {} if body is None else {key: Resource(key, "/x", body)}
        return Snapshot("e", FrozenClock().now(), "1", found)

    return next(compare(state(before), state(after), list_identity))


def test_every_builtin_rule_is_proved_by_its_examples() -> None:
    rules = BUILTIN[0].rules
    assert len(rules) >= 25
    for rule in rules:
        assert {example.fires for example in rule.examples} == {True, False}, rule.id


def test_a_rule_that_does_not_do_what_its_example_says_is_refused() -> None:
    wrong = GOOD.replace("goes: down", "goes: up")
    with pytest.raises(InputError, match="ours/cut") as told:
        prove(parse_pack("ours.yaml", wrong.encode()))
    assert "ours.yaml:11" in told.value.where
    prove(parse_pack("ours.yaml", GOOD.encode()))


@given(st.permutations(["Low", "Medium", "High"]))
def test_a_weaker_filter_is_worse_than_a_stronger_one(levels: list[str]) -> None:
    before, after = levels[0], levels[1]

    def body(level: str) -> JsonObject:
        return {
            "properties": {
                "contentFilters": [{"name": "Hate", "source": "Prompt", "severityThreshold": level}]
            }
        }

    found = change("rai-policy", body(before), body(after))
    severity = severity_of(found, judge(found, BUILTIN), BUILTIN)
    order = ["Low", "Medium", "High"]  # the lower the threshold, the more is stopped
    weaker = order.index(after) > order.index(before)
    assert severity is (Severity.CRITICAL if weaker else Severity.INFO)


@pytest.mark.parametrize(
    ("old", "new", "line", "remedy"),
    [
        ("severity: high", "severity: hihg", 7, "did you mean high?"),
        ("kinds: [deployment]", "kinds: [deploymnet]", 8, "did you mean deployment?"),
        ("goes: down", "gose: down", 9, "did you mean goes?"),
        ("title: Cut", "title: ''", 5, "title"),
        ("path: sku.capacity", "path: sku..capacity", 9, "properties.list"),
        ("fires: false", "fires: true", 11, "fires: false"),
        ("pack: ours", "pack: Ours!", 2, "small letters"),
        ("    why: Less.\n", "", 4, "add why"),
    ],
)
def test_what_is_wrong_in_a_pack_is_named_with_line_and_remedy(
    old: str, new: str, line: int, remedy: str
) -> None:
    with pytest.raises(InputError) as told:
        parse_pack("ours.yaml", GOOD.replace(old, new, 1).encode())
    assert told.value.where.startswith(f"ours.yaml:{line}:")
    assert remedy in told.value.remedy


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"\xff\xfe", "UTF-8"),
        (b"changes: [", "not YAML"),
        (b"changes:\n  - {id: a}", "what is missing"),
        (b"changes:\n  - {id: a, what: x, from: 2026-02-02, until: 2026-01-01}", "ends before"),
        (b"changes:\n  - {id: a, what: x, from: soon}", "no time"),
        (b"windows:\n  - {name: w, kind: deny, schedule: '61 * * * *', duration: 1h}", "schedule"),
        (b"windows:\n  - {name: w, kind: deny, schedule: '* * * * *', duration: x}", "duration"),
        (
            (
                b"windows:\n  - {name: w, kind: deny, schedule: '* * * * *', duration: 1h, "
                b"timezone: Mars/North}"
            ),
            "time zone",
        ),
        (b"changes:\n  - {id: a, what: x}\n  - {id: a, what: y}", "two change records"),
        (b"a: &a [*a, *a]", "too deep"),
    ],
)
def test_what_is_wrong_in_a_plan_is_said(text: bytes, what: str) -> None:
    with pytest.raises(InputError, match=what) as told:
        parse_plans([("changes/x.yaml", text)])
    assert "changes/x.yaml" in told.value.where
    assert told.value.remedy


def test_a_window_is_open_from_its_start_for_its_duration_in_its_zone() -> None:
    from datetime import datetime

    window = parse_plans(
        [
            (
                "changes/w.yaml",
                (
                    b"windows:\n  - {name: w, kind: allow, schedule: '0 20 * * 6', duration: 4h, "
                    b"timezone: Europe/Stockholm}"
                ),
            )
        ]
    ).windows[0]

    def open_(text: str) -> bool:
        return window.open(datetime.fromisoformat(text))

    assert open_("2026-11-21T20:00:00+01:00")
    assert open_("2026-11-21T22:59:59+00:00")
    assert not open_("2026-11-21T19:59:59+01:00")
    assert not open_("2026-11-21T23:00:00+00:00")
    assert open_("2026-07-04T18:00:00+00:00")  # summer time
    assert not open_("2026-07-04T17:59:00+00:00")


def test_a_pattern_names_what_a_pointer_names() -> None:
    assert covers(Pattern.parse("properties.a[].b"), "/properties/a/3/b")
    assert not covers(Pattern.parse("properties.a[].b"), "/properties/a/3/c")
    assert covers(Pattern.parse("properties.**"), "/properties/x/y/0")
    assert covers(Pattern.parse("tags.'a/b'"), "/tags/a~1b")
