"""Approvals and ignores on a real ledger: what they take in, what they leave, when they run out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from snapshots.audit.approve import (
    Approval,
    approve,
    approve_all,
    effective,
    ignore,
    load_decisions,
)
from snapshots.audit.report_model import (
    Attribution,
    Class,
    Confidence,
    Finding,
    LedgerPlace,
    PrincipalKind,
    PropertyFinding,
    Severity,
)
from snapshots.audit.rules import list_identity
from snapshots.audit.run import finding_id, still_so
from snapshots.compare import compare
from snapshots.errors import InputError, RefusedError
from snapshots.ledger import BASELINE, Ledger
from snapshots.model import MISSING, Change, JsonObject, Key, Resource, Snapshot

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
DAY = timedelta(days=1)
KEY = Key("rai-policy", ("sub", "rg", "account", "strict"))
BO = Approval("bo@contoso.example", "agreed")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.git", create=True) as opened:
        yield opened


def state(body: JsonObject | None) -> Snapshot:
    resources = {} if body is None else {KEY: Resource(KEY, "/x", body)}
    return Snapshot("", NOW, "", resources)


def begin(ledger: Ledger, body: JsonObject | None) -> None:
    """Approve a first state: a lock beside, so that there is always a baseline."""
    other = Key("lock", ("sub", "rg", "keep"))
    there = {**state(body).resources, other: Resource(other, "/l", {"properties": {}})}
    kept = ledger.commit(replace(state(None), resources=there))
    approve_all(ledger, kept.commit, BO, NOW, gaps=False)


def baseline(ledger: Ledger, now: datetime = NOW) -> Snapshot:
    return effective(ledger.load(BASELINE), load_decisions(ledger), now)[0]


def difference(ledger: Ledger, body: JsonObject | None, now: datetime = NOW) -> Change:
    there = baseline(ledger, now)
    known = replace(there, resources={k: r for k, r in there.resources.items() if k == KEY})
    (change,) = compare(known, state(body), list_identity, ids=True)
    return change


def finding(
    ledger: Ledger,
    body: JsonObject | None,
    now: datetime = NOW,
    who: Attribution | None = None,
) -> Finding:
    """What an audit finds while live is `body`."""
    change = difference(ledger, body, now)
    whole = PropertyFinding(
        "",
        MISSING if change.before is None else change.before.body,
        MISSING if change.after is None else change.after.body,
    )
    paths = tuple(PropertyFinding(p.path, p.before, p.after) for p in change.paths) or (whole,)
    return Finding(
        id=finding_id(change),
        fingerprint="",
        key=KEY,
        kind=KEY.kind,
        kind_title="content filters",
        change=change.type,
        resource_id="/x",
        paths=paths,
        class_=Class.UNPLANNED,
        severity=Severity.HIGH,
        rules=(),
        attribution=who or Attribution(),
        reasons=(),
        place=LedgerPlace("", ""),
        first_seen=now,
        window=(None, now),
        before=change.before,
        after=change.after,
    )


def body(mode: str = "Default", **tags: str) -> JsonObject:
    return {"properties": {"mode": mode}, "tags": {"zz": "1", **tags}}


def held(ledger: Ledger, now: datetime) -> Any:
    found = baseline(ledger, now).resources.get(KEY)
    return None if found is None else found.body


def test_an_approval_for_a_time_runs_out_although_another_property_was_approved_since(
    ledger: Ledger,
) -> None:
    begin(ledger, body())
    live = body("Blocking", team="red")
    both = finding(ledger, live)
    until = replace(BO, expires=NOW + DAY)
    approve(ledger, [both], until, NOW, paths=["/properties/mode"])
    approve(ledger, [finding(ledger, live)], BO, NOW)
    assert held(ledger, NOW) == live
    assert held(ledger, NOW + 2 * DAY) == body(team="red")


def test_what_ran_out_can_be_approved_for_good(ledger: Ledger) -> None:
    begin(ledger, body())
    live = body("Blocking")
    approve(ledger, [finding(ledger, live)], replace(BO, expires=NOW + DAY), NOW)
    later = NOW + 2 * DAY
    again = finding(ledger, live, later)
    approve(ledger, [again], BO, later)
    assert held(ledger, later) == live
    assert load_decisions(ledger).expiring == ()


def test_what_came_for_a_time_goes_and_can_stay(ledger: Ledger) -> None:
    begin(ledger, None)
    live = body()
    approve(ledger, [finding(ledger, live)], replace(BO, expires=NOW + DAY), NOW)
    assert held(ledger, NOW) == live
    edited = body(team="red")
    approve(ledger, [finding(ledger, edited)], BO, NOW)
    later = NOW + 2 * DAY
    assert held(ledger, later) is None
    approve(ledger, [finding(ledger, edited, later)], BO, later)
    assert held(ledger, later) == edited


def test_an_approval_ends_at_its_very_moment(ledger: Ledger) -> None:
    begin(ledger, body())
    live = body("Blocking")
    approve(ledger, [finding(ledger, live)], replace(BO, expires=NOW + DAY), NOW)
    assert held(ledger, NOW + DAY - timedelta(microseconds=1)) == live
    assert held(ledger, NOW + DAY) == body()


def test_a_finding_is_not_what_it_was_once_the_baseline_moved(ledger: Ledger) -> None:
    begin(ledger, body())
    live = body("Blocking", team="red")
    first = finding(ledger, live)
    assert still_so(first, baseline(ledger))
    approve(ledger, [first], BO, NOW, paths=["/tags/team"])
    assert not still_so(first, baseline(ledger))
    assert still_so(finding(ledger, live), baseline(ledger))


@pytest.mark.parametrize(
    "name",
    [
        "Anna@Contoso.example",
        "Anna Berg <anna@contoso.example>",
        "anna berg  (anna@contoso.example)",
        "\uff41nna@contoso.example",  # a wide letter
    ],
)
def test_four_eyes_know_a_person_by_the_address(ledger: Ledger, name: str) -> None:
    begin(ledger, body())
    anna = Attribution(
        "anna@contoso.example", PrincipalKind.USER, "8d2c", confidence=Confidence.HIGH
    )
    hers = finding(ledger, body("Blocking"), who=anna)
    with pytest.raises(RefusedError, match="four eyes"):
        approve(ledger, [hers], replace(BO, by=name), NOW, four_eyes=[Severity.HIGH])
    # And she is one person when she approves twice.
    other = finding(ledger, body("Blocking"))
    first = replace(BO, by="anna@contoso.example")
    approve(ledger, [other], first, NOW, four_eyes=[Severity.HIGH])
    twice = approve(ledger, [other], replace(BO, by=name), NOW, four_eyes=[Severity.HIGH])
    assert twice.approved == ()
    done = approve(ledger, [other], BO, NOW, four_eyes=[Severity.HIGH])
    assert done.approved == (other.id,)
    assert ledger.entry(BASELINE).trailers["Also-Approved-By"] == "anna@contoso.example"


def test_four_eyes_know_who_changed_any_of_the_properties(ledger: Ledger) -> None:
    begin(ledger, body())
    anna = Attribution("", PrincipalKind.USER, "8d2c-oid", confidence=Confidence.HIGH)
    found = finding(ledger, body("Blocking", team="red"))
    theirs = replace(found, paths=(replace(found.paths[0], attribution=anna), found.paths[1]))
    with pytest.raises(RefusedError, match="four eyes"):
        approve(ledger, [theirs], replace(BO, by="8D2C-oid"), NOW, four_eyes=[Severity.HIGH])


def filters(**severity: str) -> JsonObject:
    listed: list[Any] = [
        {"name": name, "source": "Prompt", "severityThreshold": level}
        for name, level in sorted(severity.items())
    ]
    return {"properties": {"contentFilters": listed}}


def test_what_is_ignored_whatever_its_value_is_an_item_and_not_a_place(ledger: Ledger) -> None:
    begin(ledger, filters(Hate="Low", Violence="Low"))
    mine = finding(ledger, filters(Hate="Medium", Violence="Low"))
    ignore(ledger, [mine], replace(BO, expires=NOW + DAY), NOW, any_value=True)
    decisions = load_decisions(ledger)
    other_value = difference(ledger, filters(Hate="High", Violence="Low"))
    assert decisions.ignored("other", other_value, NOW) is not None
    assert decisions.ignored("other", other_value, NOW + DAY) is None
    other_item = difference(ledger, filters(Hate="Low", Violence="High"))
    assert decisions.ignored("other", other_item, NOW) is None
    # The item moved down by one: another stands in its place.
    approve(ledger, [finding(ledger, filters(Abuse="Low", Hate="Low", Violence="Low"))], BO, NOW)
    assert (
        decisions.ignored(
            "x", difference(ledger, filters(Abuse="High", Hate="Low", Violence="Low")), NOW
        )
        is None
    )
    assert (
        decisions.ignored(
            "x", difference(ledger, filters(Abuse="Low", Hate="High", Violence="Low")), NOW
        )
        is not None
    )


def test_what_nothing_tells_apart_cannot_be_ignored_whatever_its_value(ledger: Ledger) -> None:
    begin(ledger, {"tools": [1, 2]})
    found = finding(ledger, {"tools": [1, 3]})
    ends = replace(BO, expires=NOW + DAY)
    with pytest.raises(InputError, match="nothing tells apart"):
        ignore(ledger, [found], ends, NOW, any_value=True)
    ignore(ledger, [found], ends, NOW)
    assert load_decisions(ledger).ignored(found.id, difference(ledger, {"tools": [1, 3]}), NOW)
