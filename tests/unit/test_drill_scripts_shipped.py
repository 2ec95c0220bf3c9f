"""The shipped scripts say what they are, promise and cost; parameters are filled in, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from drills import own
from drills.checks import make
from drills.judge import judge
from drills.model import Check, CheckDeclaration, Drill, FaultStep, TargetKind, VerbStep
from drills.script import parse, read, shipped, walk
from snapshots.errors import InputError
from snapshots.model import JsonObject

NAMES = {
    "agent-rebuild",
    "content-filter-equivalence",
    "failback",
    "fine-tune-standby-probe",
    "lost-key",
    "quota-shortage",
    "region-failover",
    "region-failover-planned",
    "restore-from-nothing",
    "restore-one-resource",
    "retired-model",
    "soft-delete-rescue",
    "vault-reconstruction",
}
FILE = Path("drills/mine.yaml")
HEAD = "title: T\nobjective: {}\ntarget: none\nblast_radius: none\n"


def checks(declaration: CheckDeclaration) -> Check:
    if declaration.check in own.NAMES:
        return own.make(declaration, None)
    return make(declaration)


def test_the_shipped_scripts_are_those_that_are_promised() -> None:
    assert set(shipped()) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_shipped_script_says_what_it_does_promises_costs_and_leaves(name: str) -> None:
    drill = read(shipped()[name], checks)
    head = drill.text.splitlines()
    assert head[0].startswith("# ")
    assert any(f"muster drill run {name}" in line for line in head[:12])
    for word in (
        "about", "objective", "target", "limit", "gate", "checks",
        "clean_up", "blast_radius", "cost_ceiling", "approvers",
    ):  # fmt: skip
        assert any(line.startswith(f"{word}:") for line in head), word
    assert drill.objective.rto or drill.objective.rpo
    assert drill.checks
    assert len({c.title for c in drill.checks}) == len(drill.checks)
    assert all(len(line) <= 112 for line in head), [line for line in head if len(line) > 112]


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_shipped_script_works_on_azure_too_and_writes_where_it_says(name: str) -> None:
    drill = read(shipped()[name], checks)
    for step in walk(drill.steps):
        if isinstance(step, FaultStep) and step.fault != "delete":
            assert step.if_sandbox, step.name
        if isinstance(step, VerbStep) and step.back:
            assert drill.target is TargetKind.SAME
    assert (drill.target is TargetKind.SAME) == (name == "failback")
    assert drill.forced == (name in {"region-failover", "restore-from-nothing"})
    if drill.target is TargetKind.SAME:
        assert drill.approvers
    assert not drill.keep


def with_parameters(body: str, **given: str) -> Drill:
    known: JsonObject = dict(given)
    return parse((HEAD + body).encode(), FILE, given=known)


BODY = """\
parameters: {what: agent/*, count: 3, also: [a, b], none: []}
scope: {only: ["${what}", "${also}", "${none}"]}
steps:
  - wait: ${count}s
    name: wait for ${what} and ${drill}
"""


def test_parameters_stand_where_they_are_named_and_a_run_keeps_its_own_words() -> None:
    drill = with_parameters(BODY)
    assert drill.scope.only == ("agent/*", "a", "b")
    assert drill.steps[0].name == "wait for agent/* and ${drill}"
    assert drill.parameters == {"what": "agent/*", "count": 3, "also": ["a", "b"], "none": []}
    changed = with_parameters(BODY, what="file/*", count="7", also="x, y", none="z")
    assert changed.scope.only == ("file/*", "x", "y", "z")
    assert changed.parameters["count"] == 7
    assert changed.text == drill.text  # evidence has the script, and the values beside it


@pytest.mark.parametrize(
    ("body", "given", "told"),
    [
        (BODY, {"waht": "x"}, "did you mean what?"),
        (BODY, {"count": "many"}, "does not fit the parameter count"),
        (BODY.replace("${what} and", "${also} and"), {}, "is a list, and stands within a text"),
        (BODY.replace("${what} and", "${wat} and"), {}, "there is no parameter 'wat'"),
        ("parameters: {drill: x}\nsteps: [{wait: 1s}]\n", {}, "not a name for a parameter"),
        ("parameters: {a: {b: c}}\nsteps: [{wait: 1s}]\n", {}, "neither a value nor a list"),
        ("parameters: [a]\nsteps: [{wait: 1s}]\n", {}, "parameters is not a mapping"),
        ("steps: [{wait: 1s}]\n", {"what": "x"}, "the script has no parameter 'what'"),
    ],
)
def test_a_wrong_parameter_is_refused_with_its_file(
    body: str, given: dict[str, str], told: str
) -> None:
    with pytest.raises(InputError) as caught:
        with_parameters(body, **given)
    assert told in f"{caught.value.what} {caught.value.remedy}"
    assert "mine.yaml:" in caught.value.where


def test_the_word_for_a_run_alone_is_no_parameter_and_a_mistyped_map_is_refused() -> None:
    text = "steps:\n  - verb: restore\n    map: {unit: 1}\n"
    with pytest.raises(InputError) as caught:
        parse((HEAD.replace("none\nbl", "isolated\nbl") + text).encode(), FILE)
    assert "unit" in caught.value.what


def document(step: JsonObject, mode: str = "real") -> JsonObject:
    passed: JsonObject = {"name": "c", "state": "passed", "negative_control": "failed"}
    return {
        "mode": mode,
        "gate": [],
        "steps": [step],
        "checks": [passed],
        "cleanup": {"state": "clean"},
        "objective": {"rto_seconds": None, "rpo_seconds": None},
    }


def test_only_what_needs_a_sandbox_may_be_left_out() -> None:
    left_out: JsonObject = {"name": "s", "state": "skipped", "inputs": {"if_sandbox": True}}
    assert judge(document(left_out)).verdict == "passed"
    others: list[JsonObject] = [{}, {"if_sandbox": False}, {"if_sandbox": "yes"}]
    for inputs in others:
        skipped: JsonObject = {"name": "s", "state": "skipped", "inputs": inputs}
        assert judge(document(skipped)).verdict == "not proved"
    failed: JsonObject = {"name": "s", "state": "failed", "inputs": {"if_sandbox": True}}
    assert judge(document(failed)).verdict == "failed"


def test_a_dry_run_fails_by_its_gate_and_not_by_what_it_left_undone() -> None:
    undone: JsonObject = {"name": "s", "state": "skipped"}
    found = document(undone, "dry-run")
    missed: JsonObject = {"name": "c", "state": "failed", "negative_control": "failed"}
    found["checks"] = [missed]
    assert judge(found).verdict == "not proved"
    assert any("as it is now, check c failed" in r for r in judge(found).reasons)
    found["steps"] = []  # nothing was left undone: what it looks at is wrong
    assert judge(found).verdict == "failed"
    found["steps"], found["checks"], found["gate"] = [undone], [], [missed]
    assert judge(found).verdict == "failed"
