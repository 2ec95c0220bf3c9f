"""Lose an estate, bring it back, look again: no change left; elsewhere too, and after kill -9."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from snapshots.apply import to_undo
from snapshots.clock import SystemClock
from snapshots.compare import compare
from snapshots.mapping import logical, take_at
from snapshots.model import ChangeType, Recovery, Resource, Snapshot, canonical
from snapshots.records import Records
from snapshots.restore import gates, list_identity, prepare, resume, take_back
from snapshots.steps import AccountPlace, Action, Mapping, Plan, SkuRule, StepState
from tests.restoring_fixtures import API, Engine, answer, ask, changing, destroy
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[2]


@pytest.fixture
def quick(sandbox: RunningSandbox) -> RunningSandbox:
    """Azure's minutes in seconds."""
    sandbox.control("POST", "clock", {"scale": 60})
    return sandbox


def standby(sandbox: RunningSandbox) -> Mapping:
    """How the demo estate's primary becomes its standby."""
    names = (
        "aoai-claims", "ais-care", "di-claims", "lang-care", "safety-care", "speech-care",
        "vision-claims",
    )  # fmt: skip
    return Mapping(
        regions={"swedencentral": "eastus2"},
        subscriptions={sandbox.subscription: sandbox.subscriptions[1]},
        resource_groups={"rg-ai-prod": "rg-ai-dr", "rg-ai-care": "rg-ai-dr"},
        accounts={f"{name}-swc": AccountPlace(f"{name}-eus2") for name in names},
        skus=(
            SkuRule("ProvisionedManaged", "GlobalStandard", 30),
            SkuRule("gpt4o", "GlobalStandard", 50),
        ),
        versions={"gpt-4o@2024-08-06": "2024-11-20"},
    )


def differing(engine: Engine, before: Snapshot) -> list[str]:
    """What differs between a snapshot and now, but for what Azure numbers anew."""
    after = engine.take()
    return [
        f"{change.type.value} {change.key}"
        for change in compare(before, after, list_identity)
        if change.type is not ChangeType.CHANGED
    ]


def test_an_estate_that_was_destroyed_comes_back_and_what_does_not_is_named(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=True)
    assert not [k for k in engine.take().resources if k.kind in {"account", "resource-group"}]
    prepared = engine.prepare(before)
    named = {entry.key for entry in prepared.plan.not_restorable}
    # The key vault went with its group: whoever made it again answers for it.
    (closed,) = [gate for gate in gates(prepared, engine.tools) if not gate.passed]
    assert (closed.name, closed.subject.rsplit("/", 1)[-1]) == ("key", "aoai-hr-weu")
    vouching = replace(engine.tools, vouched=("https://kv-contoso-hr.vault.azure.net",))
    assert [gate for gate in gates(prepared, vouching) if not gate.passed] == []
    done = engine.restore(prepared)
    assert done.remaining == ()
    assert {done.record.state(step.id) for step in done.record.plan.steps} == {StepState.DONE}
    # The second look, with no help from the restore itself.
    after = engine.take()
    lost = before.resources.keys() - after.resources.keys()
    assert lost <= named
    assert {key.kind for key in lost} == {
        "commitment-plan", "deployment", "file", "fine-tuned-model", "fine-tuning-job",
        "lock", "private-endpoint-connection", "project-file", "role-assignment",
    }  # fmt: skip
    for entry in prepared.plan.not_restorable:
        assert entry.sentence
        assert entry.source.startswith("https://")
    # New identities: each role assignment was given to the one of the account made again.
    old = {take_at(r.body, "/identity/principalId") for r in accounts(before)}
    new = {take_at(r.body, "/identity/principalId") for r in accounts(after)}
    assert not old & new
    held = {
        take_at(r.body, "/properties/principalId")
        for k, r in after.resources.items()
        if k.kind == "role-assignment"
    }
    assert not held & old
    # And a plan for what was restored is empty.
    assert engine.prepare(before).plan.is_empty


def accounts(snapshot: Snapshot) -> list[Resource]:
    return [
        r
        for k, r in snapshot.resources.items()
        if k.kind == "account" and "SystemAssigned" in str(take_at(r.body, "/identity/type"))
    ]


def test_a_soft_deleted_estate_is_taken_back_with_its_models_and_completed(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    destroy(quick, before, purge=False, groups=False)
    prepared = engine.prepare(before)
    switches = [s for s in prepared.plan.steps if s.action is Action.SWITCH]
    assert len(switches) == len([k for k in before.resources if k.kind == "account"])
    done = engine.restore(prepared)
    assert done.remaining == ()
    models = {k for k in before.resources if k.kind == "fine-tuned-model"}
    assert models
    assert models <= engine.take().resources.keys()
    made = [s for s in done.record.plan.steps if s.key.kind == "deployment"]
    assert made == []  # they came back with their accounts, and were not made twice


def test_the_standby_is_built_without_one_request_to_the_primary_region(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    quick.control("POST", "faults", {"kind": "outage", "region": "swedencentral"})
    engine.cloud.regions.declare_down("swedencentral", "a drill")
    quick.control("DELETE", "journal")
    prepared = engine.prepare(before, mapping=standby(quick), regions=("swedencentral",))
    assert [g for g in gates(prepared, engine.tools) if not g.passed] == []
    done = engine.restore(prepared)
    assert done.remaining == ()
    journal = quick.journal()
    assert len(journal) > 50
    assert {entry["region"] for entry in journal} <= {"", "eastus2"}
    assert not [entry["path"] for entry in journal if "-swc" in entry["path"]]
    made = {step.key.name for step in done.record.plan.steps}
    assert {"gpt4o", "front-desk", "claims-strict"} <= made
    why = {
        entry.key.name: entry.recovery
        for entry in prepared.plan.not_restorable
        if entry.key.kind == "deployment"
    }
    assert why == {"claims-triage": Recovery.REBUILT, "claims-tone": Recovery.REBUILT}
    listed = {(s.key.name, s.path) for s in prepared.plan.substitutions}
    assert {("gpt4o-ptu", "/sku/name"), ("gpt4o", "/properties/model/version")} <= listed


def test_a_fine_tuned_deployment_goes_to_the_standby_by_its_source_while_that_lives(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    prepared = engine.prepare(
        before, "deployment/claims-triage", mapping=standby(quick), regions=("swedencentral",)
    )
    copies = [s for s in prepared.plan.steps if s.action is Action.COPY]
    assert [s.key.name for s in copies] == ["claims-triage"]
    done = engine.restore(prepared)
    assert done.remaining == ()


def test_undo_returns_the_target_to_what_it_was(quick: RunningSandbox, engine: Engine) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=True)
    empty = engine.take()
    done = engine.restore(engine.prepare(before))
    assert done.remaining == ()
    assert differing(engine, empty)  # the negative control: it is not empty now
    record = take_back(engine.tools, engine.records, done.record.id)
    states = {record.state(step.id) for step in record.plan.steps}
    wrong = [(s.key, record.last(s.id)) for s in record.plan.steps]
    assert states == {StepState.UNDONE}, [w for w in wrong if w[1] and w[1].error][:3]
    assert differing(engine, empty) == []
    for subscription in quick.subscriptions:  # nor does a soft-deleted account hold its name
        top = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
        assert quick.call("GET", f"{top}/deletedAccounts{API}").json()["value"] == []


def test_a_failure_half_way_leaves_a_record_that_says_how_to_go_on(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=False)
    prepared = engine.prepare(before)
    quick.control(
        "POST",
        "faults",
        {"kind": "error", "path": ".*/raiPolicies/claims-strict.*", "method": "PUT",
         "status": 400, "code": "Broken"},
    )  # fmt: skip
    done = engine.restore(prepared)
    states = {step.key.name: done.record.state(step.id) for step in done.record.plan.steps}
    assert states["claims-strict"] is StepState.FAILED
    assert states["gpt4o"] is StepState.BLOCKED
    assert states["care-chat"] is StepState.DONE  # what does not need it went on
    assert {c.key.name for c in done.remaining} >= {"claims-strict", "gpt4o"}
    failed = next(o for o in done.record.outcomes if o.state is StepState.BLOCKED)
    assert "claims-strict" in failed.error
    assert "resume" in failed.remedy
    quick.control("DELETE", "faults")
    again = resume(prepared.request, engine.tools, engine.records, done.record.id)
    assert again.remaining == ()
    assert again.complete


# Where the first write of each kind goes.
WRITES = {
    "account": "/accounts/[^/]+$", "deployment": "/deployments/[^/]+$",
    "rai-blocklist": "/raiBlocklists/[^/]+$", "rai-topic": "/raitopics/[^/]+$",
    "rai-policy": "/raiPolicies/[^/]+$", "file": "/openai/v1/files$",
    "vector-store": "^(?!.*/api/projects/).*/openai/v1/vector_stores$",
    "project-vector-store": "/api/projects/[^/]+/openai/v1/vector_stores$",
    "assistant": "/openai/assistants$",
    "defender-setting": "/defenderForAISettings/[^/]+$",
    "managed-network": "/managedNetworks/[^/]+$",
    "account-connection": "/accounts/[^/]+/connections/[^/]+$",
    "account-capability-host": "/accounts/[^/]+/capabilityHosts/[^/]+$",
    "project": "/projects/[^/]+$", "agent": "/agents/[^/]+/versions$",
    "project-connection": "/projects/[^/]+/connections/[^/]+$",
    "project-capability-host": "/projects/[^/]+/capabilityHosts/[^/]+$",
    "diagnostic-setting": "/diagnosticSettings/[^/]+$",
    "role-assignment": "/roleAssignments/[^/]+$", "lock": "/locks/[^/]+$",
}  # fmt: skip


@pytest.mark.timeout(1200)
@pytest.mark.stress
def test_a_failure_at_any_kind_of_step_leaves_a_record_that_is_gone_on_with(
    quick: RunningSandbox, engine: Engine, scaled: Callable[[int, int], int]
) -> None:
    before = engine.take()
    names = sorted(WRITES) if scaled(0, 1) else ["agent", "file"]
    seen: set[str] = set()
    for name in names:
        destroy(quick, engine.take(), purge=True, groups=False)
        prepared = engine.prepare(before)
        seen |= {step.key.kind for step in prepared.plan.steps}
        mine = {s.id for s in prepared.plan.steps if s.key.kind == name}
        assert mine, name
        for method in ("PUT", "POST"):
            fault = {"kind": "error", "path": WRITES[name], "method": method, "status": 400}
            quick.control("POST", "faults", {**fault, "code": "Broken"})
        done = engine.restore(prepared)
        quick.control("DELETE", "faults")
        record = done.record
        states = {step.id: record.state(step.id) for step in record.plan.steps}
        failed = {id_ for id_, state in states.items() if state is StepState.FAILED}
        assert failed, name
        assert failed <= mine, (name, failed)
        for step in record.plan.steps:
            above = {states[need] for need in step.needs}
            stuck = above & {StepState.FAILED, StepState.BLOCKED}
            if step.id not in mine:
                wanted = StepState.BLOCKED if stuck else StepState.DONE
                assert states[step.id] is wanted, (name, step.key)
            last = record.last(step.id)
            assert last is not None
            if last.state is not StepState.DONE:
                assert last.error, (name, step.key)
                assert last.remedy, (name, step.key)
        assert not done.complete
        assert {c.key.kind for c in done.remaining} >= {name}
        assert {c.key for c in done.remaining} <= {
            s.key for s in record.plan.steps if states[s.id] is not StepState.DONE
        } | {k for k in before.resources if k.kind == "account"}
        again = resume(prepared.request, engine.tools, engine.records, record.id)
        assert again.complete, (name, [str(c.key) for c in again.remaining])
        states = {s.id: again.record.state(s.id) for s in again.record.plan.steps}
        assert set(states.values()) <= {StepState.DONE, StepState.ADOPTED}, name
    # A kind that gets a step needs a line above.
    assert seen - {"resource-group"} <= set(WRITES), seen


def test_a_secret_that_nobody_gave_blocks_its_connection_and_nothing_else(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=False)
    request = replace(engine.request(before), secrets={})
    done = engine.restore(prepare(request, engine.tools))
    blocked = {
        step.key.name
        for step in done.record.plan.steps
        if done.record.state(step.id) is StepState.BLOCKED
    }
    assert {"care-search", "crm-api", "parcel-service"} <= blocked
    states = {step.key.name: done.record.state(step.id) for step in done.record.plan.steps}
    assert states["care-chat"] is StepState.DONE
    text = "".join(path.read_text() for path in (engine.folder / "records").glob("*.jsonl"))
    assert "restore.secrets" in text
    # Named in the configuration meanwhile: to resume is enough.
    asked = engine.request(before)
    again = resume(asked, engine.tools, engine.records, done.record.id)
    assert again.remaining == ()
    assert again.complete


def test_a_restore_never_writes_a_secret_down(quick: RunningSandbox, engine: Engine) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=False)
    assert engine.restore(engine.prepare(before)).remaining == ()
    for reference in ("env:CARE_SEARCH", "env:PARCEL_SERVICE"):
        for path in engine.folder.rglob("*"):
            if path.is_file():
                assert answer(reference).encode() not in path.read_bytes(), path
    # The negative control: what was answered reached the service.
    kept = json.dumps(quick.control("GET", "dump"))
    assert answer("env:PARCEL_SERVICE") in kept


_VICTIM = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import json
from tests.restoring_fixtures import Engine
from tests.sandbox_fixtures import RunningSandbox
from snapshots.model import Resource, Snapshot
from snapshots.restore import resume
from datetime import datetime, UTC
found = json.loads(Path(sys.argv[2]).read_text())
ready = json.loads(Path(sys.argv[3]).read_text())
class Nothing: pass
sandbox = RunningSandbox(Nothing(), Path("."), Path(sys.argv[3]), ready, Path("."))
engine = Engine.on(sandbox, Path(sys.argv[4]))
resources = [Resource.from_document(d) for d in found]
snapshot = Snapshot("tests", datetime.now(UTC), "tests", {r.key: r for r in resources})
if sys.argv[5] == "resume":
    print("ready", flush=True)
    resume(engine.request(snapshot), engine.tools, engine.records, "last")
else:
    prepared = engine.prepare(snapshot)
    print("ready", flush=True)
    engine.restore(prepared)
print("done", flush=True)
"""


@dataclass
class Killing:
    """Runs restores as processes of their own, and kills them."""

    sandbox: RunningSandbox
    folder: Path
    snapshot: Path

    def run(self, word: str, seconds: float) -> bool:
        """Let one work for a while, then kill -9; whether it was still at work."""
        victim = subprocess.Popen(
            [sys.executable, "-c", _VICTIM, str(ROOT), str(self.snapshot),
             str(self.sandbox.ready_file), str(self.folder), word],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ},
        )  # fmt: skip
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"ready\n", victim.communicate(timeout=30)
        with contextlib.suppress(subprocess.TimeoutExpired):
            victim.wait(seconds)
        alive = victim.poll() is None
        if alive:
            victim.send_signal(signal.SIGKILL)
        victim.communicate(timeout=60)
        return alive


def held(snapshot: Snapshot) -> dict[str, bytes]:
    """Everything that is there, by key, with nothing that Azure numbers anew."""
    return {
        str(key): canonical(resource.body) for key, resource in logical(snapshot.resources).items()
    }


@pytest.mark.timeout(3600)  # a hundred times in a long run
def test_kill_at_random_instants_then_resume_or_undo_gives_the_same_end_and_nothing_twice(
    quick: RunningSandbox,
    engine: Engine,
    tmp_path: Path,
    scaled: Callable[[int, int], int],
) -> None:
    before = engine.take()
    documents = [resource.document() for resource in before.resources.values()]
    file = tmp_path / "snapshot.json"
    file.write_text(json.dumps(documents))
    killing = Killing(quick, tmp_path, file)
    destroy(quick, before, purge=True, groups=False)
    begun = time.monotonic()
    assert engine.restore(engine.prepare(before)).complete
    whole = time.monotonic() - begun
    wanted = held(engine.take())
    chance = random.Random()  # the seed is told when something is wrong
    seed = chance.randrange(10**9)
    chance.seed(seed)
    killed = 0
    for number in range(scaled(2, 100)):
        destroy(quick, engine.take(), purge=True, groups=False)
        empty = held(engine.take())
        assert len(wanted) > len(empty) + 40
        killed += killing.run("restore", chance.uniform(0.02, whole))
        if number % 3 == 2:  # and once more while it goes on
            killed += killing.run("resume", chance.uniform(0.02, whole))
        records = Records(engine.folder / "records", clock=SystemClock(), vault=engine.vault)
        where = (seed, number)
        if number % 2:
            record = take_back(engine.tools, records, "last")
            assert {record.state(s.id) for s in to_undo(record)} <= {StepState.UNDONE}, where
            assert held(engine.take()) == empty, where
            for subscription in quick.subscriptions:  # nor does a dead account hold its name
                top = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
                gone = quick.call("GET", f"{top}/deletedAccounts{API}").json()["value"]
                assert gone == [], where
            continue
        done = resume(engine.request(before), engine.tools, records, "last")
        wrong = [(o.step, o.error) for o in done.record.outcomes if o.error]
        assert done.remaining == (), (where, wrong, [str(c.key) for c in done.remaining])
        assert held(engine.take()) == wanted, where  # not less, not more, not another
        assert engine.prepare(before).plan.is_empty, where
    assert killed


def test_gates_tell_beforehand_what_would_stop_it(quick: RunningSandbox, engine: Engine) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=False)
    quick.control(
        "PUT",
        "quota",
        {"subscription": quick.subscription, "region": "swedencentral",
         "usage": "OpenAI.GlobalStandard.gpt-4.1-mini", "limit": 10},
    )  # fmt: skip
    quick.control(
        "PUT", "capacity",
        {"region": "swedencentral", "sku": "ProvisionedManaged", "available": 20},
    )  # fmt: skip
    taken = (
        f"/subscriptions/{quick.subscriptions[1]}/resourceGroups/rg-shared-dr"
        "/providers/Microsoft.CognitiveServices/accounts/thief"
    )
    body = {
        "location": "eastus2", "kind": "OpenAI", "sku": {"name": "S0"},
        "properties": {"customSubDomainName": "ais-care-swc"},
    }  # fmt: skip
    assert quick.call("PUT", taken + API, body).ok
    quick.control("DELETE", "journal")
    prepared = engine.prepare(before)
    closed = {gate.name for gate in gates(prepared, engine.tools) if not gate.passed}
    assert closed == {"quota", "capacity", "name"}
    reader = Engine.on(quick, engine.folder / "reader", "auditor")
    try:
        denied = [g for g in gates(prepared, reader.tools) if not g.passed]
    finally:
        reader.close()
    assert "permission" in {gate.name for gate in denied}
    assert any("accounts/deployments/write" in gate.detail for gate in denied)
    assert changing(quick) == []


def test_nothing_is_deleted_without_prune_and_with_it_it_comes_back_by_undo(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    where = (
        f"/subscriptions/{quick.subscription}/resourceGroups/rg-ai-care/providers"
        "/Microsoft.CognitiveServices/accounts/ais-care-swc/raiBlocklists/stray"
    )
    assert quick.call("PUT", where + API, {"properties": {"description": "stray"}}).ok
    prepared = engine.prepare(before)
    assert prepared.plan.is_empty
    assert [key.name for key in prepared.plan.extra] == ["stray"]
    pruning = engine.prepare(before, prune=True)
    assert [(s.action, s.key.name) for s in pruning.plan.steps] == [(Action.DELETE, "stray")]
    done = engine.restore(pruning)
    assert done.remaining == ()
    assert quick.call("GET", where + API).status_code == 404
    take_back(engine.tools, engine.records, done.record.id)
    ask(quick, "GET", where)


def test_a_plan_and_its_record_read_back_as_they_were(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=False)
    plan = engine.prepare(before).plan
    assert Plan.from_document(json.loads(json.dumps(plan.document()))) == plan
    done = engine.restore(engine.prepare(before))
    kept = engine.records.read(done.record.id)
    assert kept.plan == done.record.plan
    assert kept.ids == done.record.ids
    assert [o.document() for o in kept.outcomes] == [o.document() for o in done.record.outcomes]
    copy = engine.vault.read_document(f"records/{done.record.id}.jsonl").data
    assert copy == (engine.folder / "records" / f"{done.record.id}.jsonl").read_bytes()
    assert {s.id for s in to_undo(kept)} == {s.id for s in kept.plan.steps}


def test_a_lock_in_the_way_of_a_deletion_closes_a_gate(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    where = (
        f"/subscriptions/{quick.subscription}/resourceGroups/rg-ai-prod/providers"
        "/Microsoft.CognitiveServices/accounts/aoai-claims-swc/raiBlocklists/stray"
    )
    assert quick.call("PUT", where + API, {"properties": {"description": "stray"}}).ok
    pruning = engine.prepare(before, prune=True)
    closed = [gate for gate in gates(pruning, engine.tools) if not gate.passed]
    assert [(gate.name, "CanNotDelete" in gate.detail) for gate in closed] == [("lock", True)]
