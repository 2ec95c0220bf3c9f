"""What somebody changed between a plan and its steps is left alone and told, never overwritten."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from snapshots.restore import take_back
from snapshots.steps import Action, Record, StepState
from tests.restoring_fixtures import API, Engine, settle
from tests.sandbox_fixtures import RunningSandbox

Body = dict[str, Any]


@pytest.fixture
def care(sandbox: RunningSandbox) -> str:
    """The customer care account, in a sandbox whose minutes are seconds."""
    sandbox.control("POST", "clock", {"scale": 60})
    return (
        f"/subscriptions/{sandbox.subscription}/resourceGroups/rg-ai-care"
        "/providers/Microsoft.CognitiveServices/accounts/ais-care-swc"
    )


def put(sandbox: RunningSandbox, where: str, body: Body) -> None:
    """Somebody else writes."""
    found = sandbox.call("PUT", where + API, body)
    assert found.ok, found.text[:300]
    settle(sandbox)


def get(sandbox: RunningSandbox, where: str) -> Body | None:
    """What is there now."""
    found = sandbox.call("GET", where + API)
    return found.json() if found.ok else None


def told(record: Record) -> dict[str, tuple[str, str]]:
    """How each step ended, and why, by the name of what it wrote."""
    found: dict[str, tuple[str, str]] = {}
    for step in record.plan.steps:
        last = record.last(step.id)
        found[step.key.name] = (record.state(step.id).value, last.error if last else "")
    return found


def scaled(wire: Body | None, units: int) -> Body:
    """A deployment with another capacity."""
    assert wire is not None
    return {**wire, "sku": {**wire["sku"], "capacity": units}}


def test_what_was_changed_since_the_plan_is_left_alone_and_the_rest_is_written(
    sandbox: RunningSandbox, engine: Engine, care: str
) -> None:
    before = engine.take()
    chat, embed = f"{care}/deployments/care-reason", f"{care}/deployments/care-embed"
    polite, lists = f"{care}/raiPolicies/care-polite", f"{care}/raiBlocklists"
    made, policy = get(sandbox, chat), get(sandbox, polite)
    assert policy is not None
    # Drift, which the plan takes back: two changes, two losses, two strays.
    put(sandbox, chat, scaled(made, 60))
    put(sandbox, polite, {"properties": {**policy["properties"], "mode": "Asynchronous_filter"}})
    lost = get(sandbox, embed)
    assert sandbox.call("DELETE", embed + API).ok
    for name in ("stray", "kept"):
        put(sandbox, f"{lists}/{name}", {"properties": {"description": name}})
    prepared = engine.prepare(before, prune=True)
    assert sorted((s.action.value, s.key.name) for s in prepared.plan.steps) == [
        ("create", "care-embed"), ("delete", "kept"), ("delete", "stray"),
        ("update", "care-polite"), ("update", "care-reason"),
    ]  # fmt: skip
    # While it waits for its approval, others work.
    put(sandbox, chat, scaled(made, 20))
    put(sandbox, embed, scaled(lost, 7))
    put(sandbox, f"{lists}/kept", {"properties": {"description": "in use now"}})
    done = engine.restore(prepared)
    ended = told(done.record)
    assert {name: state for name, (state, _) in ended.items()} == {
        "care-reason": "failed", "care-embed": "failed", "kept": "failed",
        "care-polite": "done", "stray": "done",
    }  # fmt: skip
    assert "changed since the plan was made (/sku/capacity)" in ended["care-reason"][1]
    assert "made by somebody else since the plan was made" in ended["care-embed"][1]
    assert not done.complete
    assert {c.key.name for c in done.remaining} == {"care-reason", "care-embed", "kept"}
    now = [get(sandbox, where) for where in (chat, embed, f"{lists}/kept", f"{lists}/stray")]
    assert now[0] is not None
    assert now[1] is not None
    assert now[2] is not None
    assert (now[0]["sku"]["capacity"], now[1]["sku"]["capacity"]) == (20, 7)
    assert now[2]["properties"]["description"] == "in use now"
    assert now[3] is None
    # To undo it touches what it did, and nothing that it left alone.
    record = take_back(engine.tools, engine.records, done.record.id)
    assert told(record)["care-polite"][0] == "undone"
    again = get(sandbox, chat)
    assert again is not None
    assert again["sku"]["capacity"] == 20
    # A plan of what is there now does it.
    second = engine.restore(engine.prepare(before, prune=True))
    assert second.complete, told(second.record)


def test_what_is_as_wanted_already_by_another_hand_is_adopted_and_not_undone(
    sandbox: RunningSandbox, engine: Engine, care: str
) -> None:
    before = engine.take()
    where = f"{care}/deployments/care-reason"
    made = get(sandbox, where)
    put(sandbox, where, scaled(made, 60))
    prepared = engine.prepare(before)
    put(sandbox, where, scaled(made, 40))
    sandbox.control("DELETE", "journal")
    done = engine.restore(prepared)
    assert done.complete
    assert [s for s, _ in told(done.record).values()] == ["adopted"]
    assert not [e for e in sandbox.journal() if e["method"] in {"PUT", "PATCH", "DELETE"}]
    take_back(engine.tools, engine.records, done.record.id)
    assert (get(sandbox, where) or {})["sku"]["capacity"] == 40


def test_an_undo_leaves_what_was_changed_since_unless_it_is_told_to_overwrite(
    sandbox: RunningSandbox, engine: Engine, care: str
) -> None:
    before = engine.take()
    chat, embed = f"{care}/deployments/care-reason", f"{care}/deployments/care-embed"
    made = get(sandbox, chat)
    put(sandbox, chat, scaled(made, 60))
    lost = get(sandbox, embed)
    assert sandbox.call("DELETE", embed + API).ok
    done = engine.restore(engine.prepare(before))
    assert done.complete
    put(sandbox, chat, scaled(made, 25))
    put(sandbox, embed, scaled(lost, 9))
    record = take_back(engine.tools, engine.records, done.record.id)
    for name in ("care-reason", "care-embed"):
        state, error = told(record)[name]
        assert state == "failed"
        assert "changed since this record wrote it (/sku/capacity)" in error
    assert (get(sandbox, chat) or {})["sku"]["capacity"] == 25
    assert (get(sandbox, embed) or {})["sku"]["capacity"] == 9
    record = take_back(engine.tools, engine.records, done.record.id, overwrite=lambda _step: True)
    assert {record.state(s.id) for s in record.plan.steps} == {StepState.UNDONE}
    assert (get(sandbox, chat) or {})["sku"]["capacity"] == 60
    assert get(sandbox, embed) is None


def test_what_azure_cannot_delete_is_switched_off_and_that_is_as_good_as_gone(
    sandbox: RunningSandbox, engine: Engine, care: str
) -> None:
    """Defender for AI has no call to delete a setting: none is sent, by prune or undo."""
    before = engine.take()
    named = [k for k in before.resources if k.kind == "defender-setting"]
    setting = next(k for k in named if k.path[2] == "ais-care-swc")
    where = before.resources[setting].id
    assert sandbox.call("DELETE", where + API).status_code == 405
    less = replace(before, resources={k: r for k, r in before.resources.items() if k != setting})
    sandbox.control("DELETE", "journal")
    pruned = engine.restore(engine.prepare(less, prune=True))
    assert pruned.complete, told(pruned.record)
    assert (get(sandbox, where) or {})["properties"]["state"] == "Disabled"
    assert engine.prepare(less, prune=True).plan.is_empty
    record = take_back(engine.tools, engine.records, pruned.record.id)
    assert told(record)["default"][0] == "undone", told(record)
    assert engine.prepare(before, prune=True).plan.is_empty
    # Made by a restore: its undo switches it off, and says what stays.
    other = care.replace("ais-care-swc", "lang-care-swc")
    made = replace(
        before.resources[setting],
        key=replace(setting, path=(*setting.path[:2], "lang-care-swc", "default")),
        id=f"{other}/defenderForAISettings/default".lower(),
    )
    more = replace(before, resources={**before.resources, made.key: made})
    done = engine.restore(engine.prepare(more))
    assert [s.action for s in done.record.plan.steps] == [Action.CREATE], told(done.record)
    record = take_back(engine.tools, engine.records, done.record.id)
    last = record.last("s1")
    assert last is not None
    assert last.note == "it is switched off: Azure has no call to delete it"
    assert (get(sandbox, made.id) or {})["properties"]["state"] == "Disabled"
    assert not [e for e in sandbox.journal() if e["method"] == "DELETE"]


def test_what_an_undo_makes_again_is_found_by_what_refers_to_it(
    sandbox: RunningSandbox, engine: Engine, care: str
) -> None:
    """A file comes back under a new id; the store that held it must hold the new one."""
    before = engine.take()
    files = {key for key in before.resources if key.kind in {"file", "vector-store"}}
    stores = [key for key in files if key.kind == "vector-store"]
    assert stores
    within = stores[0].path[:3]
    less = {
        key: resource
        for key, resource in before.resources.items()
        if key.kind not in {"file", "vector-store", "assistant", "agent"} or key.path[:3] != within
    }
    pruned = engine.prepare(replace(before, resources=less), prune=True)
    gone = [s for s in pruned.plan.steps if s.action is Action.DELETE]
    assert {"vector-store", "file"} <= {s.key.kind for s in gone}
    done = engine.restore(pruned)
    assert {done.record.state(s.id) for s in gone} == {StepState.DONE}
    record = take_back(engine.tools, engine.records, done.record.id)
    assert {record.state(s.id) for s in gone} == {StepState.UNDONE}, told(record)
    left = engine.prepare(before).plan
    assert left.is_empty, [(s.action.value, str(s.key), s.paths[:2]) for s in left.steps]
