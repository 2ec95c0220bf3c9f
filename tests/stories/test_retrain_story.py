"""Fine-tuned models that are lost with their region: trained again from the vault when asked."""

from __future__ import annotations

from dataclasses import replace
from threading import Event

import pytest

from snapshots.mapping import take_at
from snapshots.model import Recovery
from snapshots.restore import Prepared, execute, gates, prepare, resume, take_back
from snapshots.steps import Action, StepState
from snapshots.training import mark_of
from tests.restoring_fixtures import Engine, destroy
from tests.sandbox_fixtures import RunningSandbox


@pytest.fixture
def quick(sandbox: RunningSandbox) -> RunningSandbox:
    """Azure's hours in seconds."""
    sandbox.control("POST", "clock", {"scale": 3000})
    return sandbox


def retraining(engine: Engine, *only: str) -> Prepared:
    """The estate is lost, and what is planned to bring it back."""
    before = engine.take()
    destroy(engine.sandbox, before, purge=True, groups=False)
    return prepare(replace(engine.request(before, *only), retrain=True), engine.tools)


def test_a_lost_model_is_trained_again_with_its_settings_and_stands_in_its_deployment(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    jobs = {
        str(job.body["fine_tuned_model"]): job.body
        for key, job in before.resources.items()
        if key.kind == "fine-tuning-job" and key.path[2] == "aoai-claims-swc"
    }
    prepared = retraining(engine)
    rebuilds = [s for s in prepared.plan.steps if s.action is Action.REBUILD]
    assert {s.old_id for s in rebuilds} == set(jobs)
    by_key = {s.key: s for s in prepared.plan.steps}
    for step in rebuilds:
        assert "billed as training" in step.note
        assert "other weights" in step.note
        files = {s.id for s in prepared.plan.steps if s.key.kind == "file"}
        assert files & set(step.needs)  # its training file comes first
    triage = next(s for k, s in by_key.items() if k.name == "claims-triage")
    assert {s.id for s in rebuilds} & set(triage.needs)
    assert [g for g in gates(prepared, engine.tools) if not g.passed] == []
    done = engine.restore(prepared)
    assert done.remaining == ()
    after = engine.take()
    for old, job in jobs.items():
        new = done.record.ids.old[old]
        assert new != old
        again = next(
            r.body
            for k, r in after.resources.items()
            if k.kind == "fine-tuning-job" and r.body.get("fine_tuned_model") == new
        )
        assert again["metadata"] == {"muster_source_digest": mark_of(old)}
        for name in ("seed", "model", "hyperparameters", "user_provided_suffix"):
            assert again.get(name) == job.get(name), name
    standing = {
        str(take_at(r.body, "/properties/model/name"))
        for k, r in after.resources.items()
        if k.kind == "deployment" and ".ft-" in str(take_at(r.body, "/properties/model/name"))
    }
    assert standing == {done.record.ids.old[old] for old in jobs}
    # Later nobody needs to be told of the record: the job's mark says which model it is.
    plain = engine.prepare(before)
    assert plain.plan.is_empty
    assert {s.after for s in plain.plan.substitutions} >= standing
    taken = take_back(engine.tools, engine.records, done.record.id)
    states = {taken.state(step.id) for step in taken.plan.steps}
    assert states == {StepState.UNDONE}


def test_one_deployment_brings_its_training_file_along_and_nothing_is_trained_unasked(
    quick: RunningSandbox, engine: Engine
) -> None:
    prepared = retraining(engine, "deployment/claims-triage")
    kinds = {s.key.kind for s in prepared.plan.steps}
    assert {"account", "file", "fine-tuned-model", "deployment"} <= kinds
    assert len([s for s in prepared.plan.steps if s.action is Action.REBUILD]) == 1
    done = engine.restore(prepared)
    assert done.remaining == ()
    # The negative control: without being asked for it, the same is not restorable.
    snapshot = prepared.request.snapshot
    destroy(quick, engine.take(), purge=True, groups=False)
    plain = engine.prepare(snapshot, "deployment/claims-triage")
    lost = {e.key.name: e.recovery for e in plain.plan.not_restorable}
    assert lost["claims-triage"] is Recovery.REBUILT
    assert not [s for s in plain.plan.steps if s.action is Action.REBUILD]


@pytest.mark.stress
def test_a_training_that_was_stopped_is_found_again_and_not_begun_twice(
    quick: RunningSandbox, engine: Engine
) -> None:
    prepared = retraining(engine, "deployment/claims-triage")
    quick.control("POST", "clock", {"scale": 1})
    stop = Event()

    def heard(happened: object) -> None:
        if "training" in str(getattr(happened, "detail", "")):
            stop.set()

    done = execute(prepared, engine.tools, engine.records, stop=stop, tell=heard)
    assert done.stopped
    (rebuild,) = [s for s in prepared.plan.steps if s.action is Action.REBUILD]
    assert done.record.state(rebuild.id) is StepState.BEGUN
    quick.control("POST", "clock", {"scale": 3000})
    again = resume(prepared.request, engine.tools, engine.records, done.record.id)
    assert again.complete
    jobs = [
        r
        for k, r in engine.take().resources.items()
        if k.kind == "fine-tuning-job" and k.path[2] == "aoai-claims-swc"
    ]
    assert len(jobs) == 1


def test_a_model_whose_training_file_is_nowhere_is_named_with_the_reason(
    quick: RunningSandbox, engine: Engine
) -> None:
    before = engine.take()
    destroy(quick, before, purge=True, groups=False)
    bare = {
        key: replace(resource, payloads=()) if key.kind == "file" else resource
        for key, resource in before.resources.items()
    }
    request = replace(engine.request(replace(before, resources=bare)), retrain=True)
    prepared = prepare(request, engine.tools)
    assert not [s for s in prepared.plan.steps if s.action is Action.REBUILD]
    why = {e.key.name: e.sentence for e in prepared.plan.not_restorable}
    assert "training file is not in the vault" in why["claims-triage"]
