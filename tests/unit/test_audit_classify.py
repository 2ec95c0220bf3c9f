"""Classes: what Azure does by itself is named only where nothing else explains it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from snapshots.audit.attribute import Window
from snapshots.audit.classify import Part, Verdict, classify
from snapshots.audit.planned import Plans, parse_plans
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
from snapshots.audit.run import with_derived
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Gap,
    GapReason,
    JsonObject,
    Key,
    PathChange,
    Resource,
)

NOW = datetime(2026, 11, 22, 9, tzinfo=UTC)
WINDOW = Window(NOW - timedelta(hours=3), NOW - timedelta(hours=2))
NOBODY = Attribution(reasons=("unattributed: no write of it was recorded",))
BO = Attribution("bo@contoso.example", PrincipalKind.USER, when=NOW, confidence=Confidence.HIGH)
KEY = Key("deployment", ("sub", "rg", "account", "chat"))


def changed(
    before: JsonObject, after: JsonObject, *paths: PathChange, kind: str = "deployment"
) -> Change:
    key = replace(KEY, kind=kind)
    return Change(
        ChangeType.CHANGED,
        key,
        Resource(key, "/x", before),
        Resource(key, "/x", after),
        paths,
    )


def moved(option: str | None) -> Change:
    def body(version: str) -> JsonObject:
        properties: JsonObject = {"model": {"name": "gpt-4o", "version": version}}
        if option is not None:
            properties["versionUpgradeOption"] = option
        return {"properties": properties}

    path = PathChange("/properties/model/version", "1", "2")
    return changed(body("1"), body("2"), path)


def classed(
    change: Change, who: Attribution = NOBODY, *, settled: bool = True, common: int = 0
) -> Class:
    part = Part(tuple(change.paths), who, WINDOW, settled)
    verdict = classify(change, [part], Plans(), (), common=lambda _: common)
    assert verdict.reasons
    return verdict.class_


@pytest.mark.parametrize(
    ("option", "class_"),
    [
        ("OnceNewDefaultVersionAvailable", Class.PLATFORM),
        ("OnceCurrentVersionExpired", Class.PLATFORM),
        ("NoAutoUpgrade", Class.UNKNOWN),
        (None, Class.UNKNOWN),
    ],
)
def test_a_version_that_moved_without_a_write_is_azures_where_it_may(
    option: str | None, class_: Class
) -> None:
    assert classed(moved(option)) is class_
    # A record may still come; a person is known; something else moved, too: no guess.
    assert classed(moved(option), settled=False) is Class.UNKNOWN
    assert classed(moved(option), BO) is Class.UNPLANNED
    more = moved(option)
    more = replace(more, paths=(*more.paths, PathChange("/sku/capacity", 1, 2)))
    assert classed(more) is Class.UNKNOWN


def test_a_new_property_in_many_places_at_once_is_a_default_of_the_service() -> None:
    new = changed({}, {"a": 1}, PathChange("/a", MISSING, 1), kind="account")
    assert classed(new, common=3) is Class.PLATFORM
    assert classed(new, common=2) is Class.UNKNOWN
    assert classed(new, common=3, settled=False) is Class.UNKNOWN
    assert classed(new, BO, common=3) is Class.UNPLANNED
    old = changed({"a": 1}, {"a": 2}, PathChange("/a", 1, 2), kind="account")
    assert classed(old, common=3) is Class.UNKNOWN


def test_what_no_log_sees_is_never_called_a_default_of_the_service() -> None:
    new = changed({}, {"tools": [1]}, PathChange("/tools", MISSING, [1]), kind="assistant")
    assert classed(new, common=3) is Class.UNKNOWN


@pytest.mark.parametrize("name", ["name", "format", "source"])
def test_another_model_is_no_upgrade(name: str) -> None:
    change = moved("OnceNewDefaultVersionAvailable")
    other = PathChange(f"/properties/model/{name}", "gpt-4o", "other")
    assert classed(replace(change, paths=(other,))) is Class.UNKNOWN
    assert classed(replace(change, paths=(*change.paths, other))) is Class.UNKNOWN


def planned(record: str, change: Change, who: Attribution = BO) -> Verdict:
    plans = parse_plans([("changes/a.yaml", record.encode())])
    part = Part(tuple(change.paths), who, WINDOW, settled=True)
    return classify(change, [part], plans, ())


@pytest.mark.parametrize("type_", [ChangeType.REMOVED, ChangeType.ADDED])
def test_leave_to_change_a_property_is_no_leave_to_delete_or_make_the_resource(
    type_: ChangeType,
) -> None:
    record = "{id: CHG-1, what: deployment/account/chat, paths: [sku.capacity]}"
    there = Resource(KEY, "/x", {"sku": {"capacity": 1}})
    gone = type_ is ChangeType.REMOVED
    change = Change(type_, KEY, there if gone else None, None if gone else there)
    verdict = planned(record, change)
    assert verdict.class_ is Class.PLANNED_BUT_DIFFERENT
    assert any("single properties" in reason for reason in verdict.reasons)
    # The control: without `paths` the record is about the whole resource.
    assert planned("{id: CHG-1, what: deployment/account/chat}", change).class_ is Class.PLANNED
    fits = changed({}, {}, PathChange("/sku/capacity", 1, 2))
    assert planned(record, fits).class_ is Class.PLANNED


def test_a_record_without_a_time_is_held_to_windows_that_name_an_id() -> None:
    record = (
        "changes: [{id: CHG-1, what: deployment/account/chat}]\n"
        "windows: [{name: night, kind: allow, schedule: '0 1 * * *', duration: 1h, what: '/x'}]"
    )
    change = changed({}, {}, PathChange("/sku/capacity", 1, 2))
    assert planned(record, change).class_ is Class.PLANNED_BUT_DIFFERENT
    night = replace(BO, when=NOW.replace(hour=1))
    assert planned(record, change, night).class_ is Class.PLANNED


def test_a_number_is_expected_however_it_is_written() -> None:
    record = "{id: a, what: deployment/account/chat, expected: {temperature: 1}}"
    change = changed({}, {"temperature": 1.0}, PathChange("/temperature", MISSING, 1.0))
    assert planned(record, change).class_ is Class.PLANNED
    other = changed({}, {"temperature": True}, PathChange("/temperature", MISSING, True))
    assert planned(record, other).class_ is Class.PLANNED_BUT_DIFFERENT


def test_a_record_without_a_caller_is_azures() -> None:
    azure = Attribution("Azure", PrincipalKind.PLATFORM, when=NOW, confidence=Confidence.HIGH)
    gone = Change(ChangeType.REMOVED, KEY, Resource(KEY, "/x", {}), None)
    assert classed(gone, azure) is Class.PLATFORM
    assert classed(gone) is Class.UNKNOWN


def test_what_could_not_be_read_has_no_class() -> None:
    gap = Gap(KEY, GapReason.FAILED, "500")
    unread = Change(ChangeType.UNKNOWN, KEY, Resource(KEY, "/x", {}), None, gap=gap)
    assert classed(unread, BO) is Class.UNKNOWN


def finding_of(
    kind: str, change: ChangeType, class_: Class, *paths: str, named: str = "desk"
) -> Finding:
    key = Key(kind, ("sub", "rg", "account", *(("desk",) if kind == "project" else ())))
    return Finding(
        id=kind,
        fingerprint="",
        key=key,
        kind=kind,
        kind_title=kind,
        change=change,
        resource_id="/x",
        paths=tuple(PropertyFinding(path, MISSING, named) for path in paths),
        class_=class_,
        severity=Severity.LOW,
        rules=(),
        attribution=NOBODY,
        reasons=("its own",),
        place=LedgerPlace("", ""),
        first_seen=NOW,
        window=(None, NOW),
        ticket="CHG-7" if kind == "project" else "",
    )


def test_a_planned_project_leaves_no_unplanned_account_behind() -> None:
    project = finding_of("project", ChangeType.ADDED, Class.PLANNED)
    listed = "/properties/associatedProjects/0"
    account = finding_of("account", ChangeType.CHANGED, Class.UNPLANNED, listed)
    _, derived = with_derived([project, account])
    assert derived.class_ is Class.PLANNED
    assert derived.severity is Severity.INFO
    assert derived.ticket == "CHG-7"
    assert "project desk was added" in derived.reasons[0]
    # Whatever else changed in the account, and a list without its project, is judged by itself.
    more = finding_of("account", ChangeType.CHANGED, Class.UNPLANNED, listed, "/tags/a")
    assert with_derived([project, more])[1] == more
    edited = finding_of("project", ChangeType.CHANGED, Class.PLANNED, "/properties/description")
    assert with_derived([edited, account])[1] == account
    assert with_derived([account]) == [account]
    other = finding_of("account", ChangeType.CHANGED, Class.UNPLANNED, listed, named="other")
    assert with_derived([project, other])[1] == other
