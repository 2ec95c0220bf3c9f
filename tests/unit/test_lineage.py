"""Lineage: what a resource came from and what it reached."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from snapshots.errors import NotFoundError
from snapshots.kinds import KINDS
from snapshots.lineage import Dangling, graph
from snapshots.model import Gap, GapReason, JsonObject, Key, Resource, Snapshot

ACCOUNT = ("sub", "rg", "aoai-prod")
STANDBY = ("sub", "rg-dr", "aoai-dr")
MODEL = "gpt-4o-mini-2024-07-18.ft-0123456789abcdef0123456789abcdef"


def thing(kind: str, within: tuple[str, ...], name: str, id_: str, body: JsonObject) -> Resource:
    return Resource(Key(kind, (*within, name)), id_, body)


def arm(within: tuple[str, ...], tail: str) -> str:
    return f"/subscriptions/{within[0]}/resourceGroups/{within[1]}/providers/X/accounts/{tail}"


def estate() -> list[Resource]:
    return [
        thing("account", ACCOUNT[:2], "aoai-prod", arm(ACCOUNT, "aoai-prod"), {}),
        thing("account", STANDBY[:2], "aoai-dr", arm(STANDBY, "aoai-dr"), {}),
        thing("file", ACCOUNT, "train.jsonl", "file-1", {"filename": "train.jsonl"}),
        thing("file", ACCOUNT, "other.jsonl", "file-2", {"filename": "other.jsonl"}),
        thing("file", ACCOUNT, "results.csv", "file-3", {"filename": "results.csv"}),
        thing(
            "fine-tuning-job",
            ACCOUNT,
            "job-1",
            "ftjob-1",
            {
                "training_file": "file-1",
                "validation_file": "file-gone",
                "model": "gpt-4o-mini-2024-07-18",
                "result_files": ["file-3"],
                "fine_tuned_model": MODEL,
            },
        ),
        thing("fine-tuned-model", ACCOUNT, MODEL, MODEL, {"fine_tune": "ftjob-1"}),
        thing(
            "deployment",
            ACCOUNT,
            "claims",
            arm(ACCOUNT, "aoai-prod/deployments/claims"),
            {"properties": {"model": {"name": MODEL}, "raiPolicyName": "strict"}},
        ),
        thing(
            "deployment",
            STANDBY,
            "claims",
            arm(STANDBY, "aoai-dr/deployments/claims"),
            {
                "properties": {
                    "model": {"name": MODEL, "source": arm(ACCOUNT, "aoai-prod").upper()},
                    "raiPolicyName": "strict",
                }
            },
        ),
        thing(
            "deployment",
            ACCOUNT,
            "plain",
            arm(ACCOUNT, "aoai-prod/deployments/plain"),
            {"properties": {"model": {"name": "gpt-4o"}}},
        ),
        thing("rai-policy", ACCOUNT, "strict", arm(ACCOUNT, "aoai-prod/raiPolicies/strict"), {}),
        thing("assistant", ACCOUNT, "helper", "asst_1", {"model": "claims"}),
    ]


def snapshot(resources: list[Resource], *gaps: Gap) -> Snapshot:
    moment = datetime(2026, 11, 22, tzinfo=UTC)
    return Snapshot("e", moment, "0", {r.key: r for r in resources}, gaps)


FILE = Key("file", (*ACCOUNT, "train.jsonl"))


def names(found: tuple[object, ...]) -> set[str]:
    return {f"{r.key.kind} {r.key.path[2]} {r.key.name}" for r in found}  # type: ignore[attr-defined]


def test_a_data_file_lists_every_job_model_deployment_and_agent_it_reached() -> None:
    found = graph(snapshot(estate()), KINDS).lineage(FILE)
    assert names(found.reached) == {
        "fine-tuning-job aoai-prod job-1",
        "file aoai-prod results.csv",
        f"fine-tuned-model aoai-prod {MODEL}",
        "deployment aoai-prod claims",
        "deployment aoai-dr claims",
        "assistant aoai-prod helper",
    }
    assert all(relative.data for relative in found.reached)
    assert found.came_from == ()


def test_an_unrelated_file_reached_nothing() -> None:
    found = graph(snapshot(estate()), KINDS).lineage(Key("file", (*ACCOUNT, "other.jsonl")))
    assert found.reached == ()


def test_an_agent_comes_from_the_file_at_the_far_end_and_the_way_is_told() -> None:
    found = graph(snapshot(estate()), KINDS).lineage(Key("assistant", (*ACCOUNT, "helper")))
    distances = {relative.key.kind: relative.distance for relative in found.came_from}
    assert distances["deployment"] == 1
    assert distances["fine-tuned-model"] == 2
    assert distances["fine-tuning-job"] == 3
    assert next(r for r in found.came_from if r.key == FILE).distance == 4
    assert not next(r for r in found.came_from if r.key.kind == "rai-policy").data


def test_a_name_means_the_neighbour_and_not_a_stranger_with_the_same_name() -> None:
    policy = Key("rai-policy", (*ACCOUNT, "strict"))
    found = graph(snapshot(estate()), KINDS).lineage(policy)
    assert names(found.reached) == {"deployment aoai-prod claims", "assistant aoai-prod helper"}


def test_data_that_is_gone_is_named_and_a_base_model_is_not() -> None:
    found = graph(snapshot(estate()), KINDS).lineage(Key("deployment", (*ACCOUNT, "claims")))
    job = Key("fine-tuning-job", (*ACCOUNT, "job-1"))
    assert found.dangling == (Dangling(job, "validation_file", "file", "file-gone"),)
    plain = graph(snapshot(estate()), KINDS).lineage(Key("deployment", (*ACCOUNT, "plain")))
    assert plain.dangling == ()


def test_what_lies_inside_is_told() -> None:
    found = graph(snapshot(estate()), KINDS).lineage(Key("account", ACCOUNT))
    assert Key("deployment", (*ACCOUNT, "claims")) in found.holds
    assert Key("deployment", (*STANDBY, "claims")) not in found.holds
    assert names(found.reached) == {"deployment aoai-dr claims"}


def test_gaps_travel_with_the_answer() -> None:
    gap = Gap(
        Key("assistant", STANDBY), GapReason.DENIED, "403", listing=True, hides=("assistant",)
    )
    assert graph(snapshot(estate(), gap), KINDS).lineage(FILE).gaps == (gap,)


def test_an_unknown_key_is_an_error_of_ours() -> None:
    with pytest.raises(NotFoundError, match="has no resource"):
        graph(snapshot(estate()), KINDS).lineage(Key("file", ("a", "b")))


def test_a_circle_of_references_ends() -> None:
    circle = [
        thing(
            "deployment",
            ACCOUNT,
            name,
            arm(ACCOUNT, f"aoai-prod/deployments/{name}"),
            {"properties": {"spilloverDeploymentName": other}},
        )
        for name, other in (("a", "b"), ("b", "a"))
    ]
    found = graph(snapshot(circle), KINDS).lineage(circle[0].key)
    assert [r.key.name for r in found.reached] == ["b"]
    assert [r.key.name for r in found.came_from] == ["b"]
