"""Plans: their order, what they never do, and what they keep."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.compare import compare
from snapshots.mapping import adopt, missing_versions, translate, twins
from snapshots.model import Gap, GapReason, JsonObject, Key, Payload, Resource, Snapshot
from snapshots.plan import Context, as_settled, chosen, plan, recoverable, settle_conflicts
from snapshots.steps import AccountPlace, Action, Keep, Mapping, Plan, Step, token, token_of

S = "00000000-0000-0000-0000-000000000001"
NOW = datetime(2026, 11, 22, tzinfo=UTC)
ACCOUNT = Key("account", (S, "rg", "a"))


def resource(kind: str, *path: str, **properties: object) -> Resource:
    body: JsonObject = {"name": path[-1], "properties": dict(properties)}  # type: ignore[arg-type]
    if kind == "account":
        body |= {"location": "swedencentral", "kind": "OpenAI"}
    where = f"/subscriptions/{S}/resourcegroups/rg/providers/x/{kind}/{'/'.join(path[2:])}"
    return Resource(Key(kind, (S, *path[1:])), where.lower(), body)


def estate(deployments: int) -> dict[Key, Resource]:
    made = [
        resource("account", S, "rg", "a"),
        resource("rai-policy", S, "rg", "a", "strict", type="UserManaged"),
        *(
            resource("deployment", S, "rg", "a", f"d{n}", raiPolicyName="strict")
            for n in range(deployments)
        ),
    ]
    return {found.key: found for found in made}


def snapshot(resources: dict[Key, Resource], *gaps: Gap) -> Snapshot:
    return Snapshot("tests", NOW, "tests", resources, gaps)


def planned(there: Snapshot, wanted: Snapshot, *, prune: bool = False) -> Plan:
    context = Context(
        estate="tests",
        snapshot="x",
        target="same",
        version="tests",
        now=NOW,
        wanted=wanted.resources,
        there=there.resources,
        prune=prune,
    )
    return plan(compare(there, wanted), context)


@given(st.sets(st.integers(0, 11)), st.sets(st.integers(0, 11)), st.booleans())
def test_every_step_comes_after_what_it_needs(
    there: set[int], wanted: set[int], prune: bool
) -> None:
    whole = estate(10)
    keys = sorted(whole)
    found = planned(
        snapshot({keys[n]: whole[keys[n]] for n in there}),
        snapshot({keys[n]: whole[keys[n]] for n in wanted}),
        prune=prune,
    )
    done: set[str] = set()
    for step in found.steps:
        assert set(step.needs) <= done
        done.add(step.id)
    made = {s.key for s in found.steps if s.action is Action.CREATE}
    gone = {s.key for s in found.steps if s.action is Action.DELETE}
    assert made == {keys[n] for n in wanted - there}
    assert gone == ({keys[n] for n in there - wanted} if prune else set())
    assert found.critical_path_seconds <= sum(step.seconds for step in found.steps) + 1e-6
    assert Plan.from_document(found.document()) == found


def test_a_filter_comes_before_its_deployments_and_goes_after_them() -> None:
    whole = estate(3)
    forth = planned(snapshot({}), snapshot(whole))
    assert [s.key.kind for s in forth.steps] == ["account", "rai-policy"] + ["deployment"] * 3
    back = planned(snapshot(whole), snapshot({}), prune=True)
    assert [s.key.kind for s in back.steps] == ["deployment"] * 3 + ["rai-policy", "account"]
    assert all(step.before is not None for step in back.steps)  # kept, for the way back


@pytest.mark.parametrize("side", ["there", "wanted"])
def test_nothing_is_deleted_or_made_inside_a_gap(side: str) -> None:
    whole = estate(2)
    gap = Gap(Key("deployment", ACCOUNT.path), GapReason.DENIED, "403", True, ("deployment",))
    without = {k: r for k, r in whole.items() if k.kind != "deployment"}
    if side == "there":
        found = planned(snapshot(without, gap), snapshot(whole), prune=True)
    else:
        found = planned(snapshot(whole), snapshot(without, gap), prune=True)
    assert found.steps == ()
    assert found.unknown == (gap,)
    control = planned(snapshot(whole), snapshot(without), prune=True)
    assert len(control.steps) == 2


def test_an_account_is_never_deleted_to_change_it() -> None:
    whole = estate(0)
    moved = replace(whole[ACCOUNT], body={**whole[ACCOUNT].body, "location": "eastus2"})
    found = planned(snapshot(whole), snapshot({**whole, ACCOUNT: moved}), prune=True)
    assert [s for s in found.steps if s.action is Action.DELETE] == []
    assert [entry.key for entry in found.not_restorable] == [ACCOUNT]


@pytest.mark.parametrize(("keep", "value"), [(Keep.BASELINE, 1), (Keep.LIVE, 2), (Keep.TARGET, 3)])
def test_a_property_changed_on_two_sides_is_listed_and_goes_by_the_policy(
    keep: Keep, value: int
) -> None:
    one, two, three = (resource("deployment", S, "rg", "a", "d", size=n) for n in (1, 2, 3))
    found, conflicts = settle_conflicts(one, two, three, keep)
    assert found.body["properties"] == {"size": value}
    assert [(c.path, c.keep) for c in conflicts] == [("/properties/size", keep)]
    assert settle_conflicts(one, two, one, keep) == (one, ())


def test_a_conflict_inside_a_list_is_one_of_the_list_and_a_lost_branch_of_the_branch() -> None:
    one = resource("deployment", S, "rg", "a", "d", rules=[{"n": 1}, {"n": 2}], deep={"x": 1})
    two = resource("deployment", S, "rg", "a", "d", rules=[{"n": 2}], deep={"x": 2})
    three = resource("deployment", S, "rg", "a", "d", rules=[{"n": 1}, {"n": 3}])
    for keep, side in ((Keep.BASELINE, one), (Keep.LIVE, two), (Keep.TARGET, three)):
        found, conflicts = settle_conflicts(one, two, three, keep)
        assert [c.path for c in conflicts] == ["/properties/deep", "/properties/rules"]
        assert found.body == side.body
        assert as_settled(one, conflicts).body == side.body


@given(st.data())
def test_a_settled_resource_has_nothing_that_no_side_has(data: st.DataObject) -> None:
    values = st.sampled_from([1, 2, 3, None])
    bodies = st.dictionaries(st.sampled_from("abc"), values, max_size=3)
    sides = [resource("deployment", S, "rg", "a", "d", **data.draw(bodies)) for _ in range(3)]
    keep = data.draw(st.sampled_from(Keep))
    found, conflicts = settle_conflicts(sides[0], sides[1], sides[2], keep)
    chosen_side = sides[list(Keep).index(keep)]
    at = {c.path.rpartition("/")[2] for c in conflicts}
    for name in "abc":
        side = chosen_side if name in at else sides[0]
        missing = object()
        properties = [r.body["properties"] for r in (found, side)]
        assert all(isinstance(p, dict) for p in properties)
        got, want = (p.get(name, missing) if isinstance(p, dict) else None for p in properties)
        assert got is want or got == want


def test_what_held_the_last_lost_thing_of_a_list_is_wanted_without_the_list() -> None:
    def store(*files: str) -> Resource:
        body: JsonObject = {"name": "s"}
        if files:
            body["files"] = [{"id": token(Key("file", (S, "rg", "a", f)))} for f in files]
        return Resource(Key("vector-store", (S, "rg", "a", "s")), "vs", body)

    def lost(name: str) -> Resource:
        body: JsonObject = {"filename": name, "purpose": "assistants"}
        return Resource(Key("file", (S, "rg", "a", name)), name, body)

    kept = file("x", "1", "a")
    for files, left in ((("l", "x"), ("x",)), (("l",), ()), (("l", "m"), ())):
        wanted = {r.key: r for r in (store(*files), kept, lost("l"), lost("m"))}
        found = recoverable(wanted, {})
        assert found.wanted[store().key].body == store(*left).body
        named = {entry.key.kind for entry in found.not_restorable}
        assert named == {"file", "vector-store"}


def test_two_accounts_never_become_one() -> None:
    from snapshots.errors import InputError

    both = {
        found.key: found
        for found in (resource("account", S, "rg", "a"), resource("account", S, "rg", "b"))
    }
    mapping = Mapping(accounts={"a": AccountPlace("c"), "b": AccountPlace("c")})
    with pytest.raises(InputError, match="would become one"):
        translate(snapshot(both), mapping)


def test_a_host_is_put_in_only_where_its_whole_name_stands_and_never_twice() -> None:
    """Two that change places stay two; a longer name that holds a shorter one stays as it is."""
    texts: JsonObject = {
        "plain": "https://one.contoso.com/search",
        "end": "one.contoso.com.",
        "swapped": "https://two.contoso.com:443/",
        "longer": "https://old-one.contoso.com/ https://one.contoso.com.example/",
        "first": "https://first.openai.azure.com/",
        "second": "https://second.openai.azure.com/",
        "both": "https://not-first.openai.azure.com/",
    }

    def account(name: str) -> Resource:
        made = resource("account", S, "rg", name)
        return replace(made, body={**made.body, "properties": {"customSubDomainName": name}})

    first, second = account("first"), account("second")
    held = replace(resource("rai-policy", S, "rg", "first", "p"), body={"properties": texts})
    mapping = Mapping(
        hosts={"one.contoso.com": "two.contoso.com", "two.contoso.com": "one.contoso.com"},
        accounts={
            "first": AccountPlace("first", subdomain="second"),
            "second": AccountPlace("second", subdomain="third"),
        },
    )
    translated = translate(snapshot({r.key: r for r in (first, second, held)}), mapping)
    assert translated.snapshot.resources[held.key].body["properties"] == {
        "plain": "https://two.contoso.com/search",
        "end": "two.contoso.com.",
        "swapped": "https://one.contoso.com:443/",
        "longer": texts["longer"],
        "first": "https://second.openai.azure.com/",
        "second": "https://third.openai.azure.com/",
        "both": texts["both"],
    }


def version(number: int) -> JsonObject:
    return {"definition": {"n": number}}


def test_an_agent_gets_only_the_versions_that_lack() -> None:
    one, two, three = (version(n) for n in (1, 2, 3))
    assert missing_versions([], [one, two]) == [one, two]
    assert missing_versions([one, two], [one, two]) == []
    assert missing_versions([one], [one, two]) == [two]
    assert missing_versions([one, two, three], [one, two]) == [two]
    assert missing_versions([one, three, two], [one, two]) == []


def test_what_is_chosen_by_name_end_or_glob() -> None:
    key = Key("deployment", (S, "rg", "a", "gpt4o"))
    for pattern in (str(key), "deployment/gpt4o", "gpt4o", "deployment/*", "*gpt4*"):
        assert chosen((pattern,), key), pattern
    for pattern in ("gpt*", "a/gpt4?", "deployment/gpt*", "dep*/gpt4o"):  # ends of keys, too
        assert chosen((pattern,), key), pattern
    for pattern in (
        "deployment/gpt",
        "agent/*",
        "pt4o",
        "rai-policy/gpt4o",
        "rg*",
        "b/gpt*",
        "x*/gpt4o",
    ):
        assert not chosen((pattern,), key), pattern


def test_a_step_reads_back_as_it_was() -> None:
    for step in planned(snapshot({}), snapshot(estate(2))).steps:
        assert Step.from_document(step.document()) == step


def file(name: str, id_: str, content: str) -> Resource:
    body: JsonObject = {"filename": name.partition("~")[0], "bytes": len(content)}
    payload = Payload("content", content * 64, len(content))
    return Resource(Key("file", (S, "rg", "a", name)), id_, body, (payload,))


def test_things_of_one_name_are_told_apart_by_what_is_in_them() -> None:
    wanted = {r.key: r for r in (file("x", "1", "a"), file("x~2", "2", "b"))}
    swapped = {r.key: r for r in (file("x", "8", "b"), file("x~2", "9", "a"))}
    found = twins(wanted, swapped)
    assert {key.name: found[key].id for key in found} == {"x": "9", "x~2": "8"}
    assert all(found[key].key == key for key in found)
    # The elder one is gone: what is left is the younger, whatever it is called now.
    left = {r.key: r for r in (file("x", "8", "b"),)}
    assert {k.name: r.id for k, r in twins(wanted, left).items()} == {"x~2": "8"}
    # What is neither keeps its name, or gets one that nobody wants.
    other = {r.key: r for r in (file("x", "7", "c"), file("x~2", "8", "a"), file("x~3", "9", "b"))}
    assert {k.name: r.id for k, r in twins(wanted, other).items()} == {
        "x": "8", "x~2": "9", "x~3": "7",
    }  # fmt: skip


@given(st.permutations(["a", "b", "c"]), st.lists(st.sampled_from("abcd"), max_size=5))
def test_telling_twins_apart_loses_and_doubles_nothing(ours: list[str], theirs: list[str]) -> None:
    def named(contents: list[str]) -> dict[Key, Resource]:
        made = [
            file("x" if n == 0 else f"x~{n + 1}", str(n), content)
            for n, content in enumerate(contents)
        ]
        return {r.key: r for r in made}

    wanted, there = named(ours), named(theirs)
    found = twins(wanted, there)
    assert sorted(r.id for r in found.values()) == sorted(r.id for r in there.values())
    matched = [k for k in found if k in wanted and wanted[k].payloads == found[k].payloads]
    assert len(matched) == len(set(theirs) & set(ours))


def test_text_that_looks_like_a_reference_is_text() -> None:
    assert token_of("muster-id:a/b c") is None
    assert token_of("muster-id: read this first") is None
    key = Key("file", (S, "rg", "a", "x"))
    assert token_of(token(key)) == (key, False)


def test_a_role_that_is_held_already_is_not_given_twice() -> None:
    def role(subscription: str, name: str) -> Resource:
        body: JsonObject = {
            "name": name,
            "properties": {"principalId": "p", "roleDefinitionId": "/x/r"},
        }
        return Resource(Key("role-assignment", (subscription, name)), f"/{name}", body)

    held, moved = role(S, "one"), role(S, "two")
    for there in ({held.key: held}, {}):
        found, listed = adopt({held.key: held, moved.key: moved}, there)
        assert list(found) == [held.key]
        assert [entry.before for entry in listed] == ["two"]
    other = replace(moved, key=Key("role-assignment", (S, "rg", "two")))
    assert len(adopt({held.key: held, other.key: other}, {})[0]) == 2
