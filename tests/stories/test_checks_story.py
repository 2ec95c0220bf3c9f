"""Checks on a living estate: healthy passes, each sabotage is found, every control fails."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drills.checks import NAMES, make
from drills.checks.asking import Allowance
from drills.checks.golden_sets import SHIPPED, keep, load
from drills.checks.recording import record
from drills.checks.targets import account_of, endpoint, find
from drills.model import CheckDeclaration, CheckOutcome, CheckState, Control
from snapshots.clock import SystemClock
from snapshots.errors import InputError, RefusedError
from snapshots.ledger import Ledger
from snapshots.vault import open_vault
from tests.target_fixtures import ACCOUNT, CLAIMS, Bench

DESK = "*/rg-ai-care/ais-care-swc/care-desk"
TRIAGE = f"deployment/{CLAIMS}/claims-triage"
SETS = sorted(path.stem for path in (SHIPPED / "demo").glob("*.jsonl"))
WRITE = os.environ.get("MUSTER_WRITE_GOLDEN", "") not in ("", "0")
HEALTHY: dict[str, tuple[str, dict[str, Any]]] = {
    "state": ("", {}),
    "reachability": (ACCOUNT, {}),
    "permissions": (ACCOUNT, {}),
    "quota": (ACCOUNT, {}),
    "latency": ("", {"set": "demo/claims-chat", "samples": 2, "least": 5}),
    "content-filter": (f"deployment/{CLAIMS}/gpt4o", {"set": "demo/claims-filters"}),
    "embeddings": (f"deployment/{CLAIMS}/*", {"set": "demo/claims-embeddings"}),
    "vector-index": (f"vector-store/{CLAIMS}/*", {"probe": "water damage"}),
    "golden": (f"deployment/{CLAIMS}/*", {"sets": ["demo/claims-chat", "demo/claims-triage"]}),
    "fine-tuned-differs": (TRIAGE, {"set": "demo/claims-triage"}),
    "kept-alive": (f"deployment/{CLAIMS}/*", {}),
    "agent-smoke": (
        f"agent/{DESK}/front-desk",
        {"prompt": "Are returns free?", "tool": "file_search", "expect": "returns-policy.md"},
    ),
}


def asked(bench: Bench, name: str, **changes: Any) -> CheckOutcome:
    if name == "switch":
        return bench.prove(
            "switch",
            resource=bench.id("rg-ai-prod", "aoai-claims-swc"),
            api_version="2025-09-01",
            path="/properties/publicNetworkAccess",
            expected="Enabled",
        )
    subject, settings = HEALTHY[name]
    return bench.prove(name, subject, **{**settings, **changes})


def deployed(bench: Bench, name: str, model: str, version: str, policy: str = "") -> None:
    """Somebody puts another model behind a deployment."""
    id_ = bench.id("rg-ai-prod", "aoai-claims-swc", f"/deployments/{name}")
    wire: dict[str, Any] = {"format": "OpenAI", "name": model, "version": version}
    properties: dict[str, Any] = {"model": wire}
    if policy:
        properties["raiPolicyName"] = policy
    bench.arm("PUT", id_, {"sku": {"name": "Standard", "capacity": 10}, "properties": properties})
    bench.sandbox.control("POST", "clock", {"advance": 120})


@pytest.mark.parametrize("name", SETS)
def test_the_shipped_sets_are_what_the_demo_estate_answers(bench: Bench, name: str) -> None:
    context = bench.context()
    golden = load(f"demo/{name}", context)
    found = find(context, f"deployment/{CLAIMS}/*", frozenset({"deployment"}), golden.deployment)
    place = endpoint(context, account_of(context, found.there[0].key))
    base = "gpt4o-mini" if name == "claims-triage" else ""
    made = record(context, place, golden, Allowance(200, 40_000, 60.0), base=base)
    if WRITE:
        (SHIPPED / "demo" / f"{name}.jsonl").write_bytes(made.lines())
    assert made.cases == golden.cases


@pytest.mark.parametrize("name", NAMES)
def test_every_check_passes_on_the_healthy_estate_and_its_control_fails(
    bench: Bench, name: str
) -> None:
    outcome = asked(bench, name)
    assert outcome.state is CheckState.PASSED, outcome
    assert outcome.negative_control is Control.FAILED, outcome


def wrong_model(bench: Bench) -> None:
    deployed(bench, "gpt4o", "gpt-4o", "2024-11-20", "claims-strict")


def stale_tuning(bench: Bench) -> None:
    deployed(bench, "claims-triage", "gpt-4o-mini", "2024-07-18", "claims-strict")


def other_tuning(bench: Bench) -> None:
    listed = bench.data(bench.id("rg-ai-prod", "aoai-claims-swc"), "GET", "/openai/v1/models")
    tone = next(m["id"] for m in listed["data"] if "gpt-4.1-mini" in m["id"] and ".ft-" in m["id"])
    deployed(bench, "claims-triage", tone, "1", "claims-strict")


def looser_filter(bench: Bench) -> None:
    id_ = bench.id("rg-ai-prod", "aoai-claims-swc", "/raiPolicies/claims-strict")
    found = bench.arm("GET", id_)["properties"]
    for rule in found["contentFilters"]:
        if rule["name"] == "Hate":
            rule["severityThreshold"] = "High"
    bench.arm("PUT", id_, {"properties": {k: v for k, v in found.items() if k != "type"}})


def lost_blocklist_item(bench: Bench) -> None:
    bench.delete("/raiBlocklists/competitors/raiBlocklistItems/northwind")


def missing_file(bench: Bench) -> None:
    account = bench.id("rg-ai-prod", "aoai-claims-swc")
    store = bench.data(account, "GET", "/openai/v1/vector_stores")["data"][0]["id"]
    path = f"/openai/v1/vector_stores/{store}/files"
    file = bench.data(account, "GET", path)["data"][0]["id"]
    bench.data(account, "DELETE", f"{path}/{file}")


def lost_tool(bench: Bench) -> None:
    project = bench.id("rg-ai-care", "ais-care-swc", "/projects/care-desk")
    definition = {"kind": "prompt", "model": "care-chat", "instructions": "Answer politely."}
    body = {"definition": definition}
    bench.project(project, "POST", "/agents/front-desk/versions?api-version=v1", body)


def other_embeddings(bench: Bench) -> None:
    deployed(bench, "embed-large", "text-embedding-3-small", "1")


@pytest.mark.parametrize(
    ("name", "sabotage", "told"),
    [
        ("golden", wrong_model, "claims-chat on gpt4o"),
        ("state", wrong_model, "gpt4o changed"),
        ("fine-tuned-differs", stale_tuning, "no fine-tuned model"),
        ("golden", stale_tuning, "claims-triage"),
        ("fine-tuned-differs", other_tuning, "not those that were recorded"),
        ("kept-alive", stale_tuning, "no fine-tuned model"),
        ("content-filter", looser_filter, "hate-low"),
        ("state", looser_filter, "claims-strict changed"),
        ("content-filter", lost_blocklist_item, "competitor"),
        ("vector-index", missing_file, "0 of 1 files"),
        ("state", missing_file, "claims-knowledge changed"),
        ("agent-smoke", lost_tool, "did not call file_search"),
        ("state", lost_tool, "front-desk changed"),
        ("embeddings", other_embeddings, "another model"),
    ],
)
def test_each_sabotage_is_found_by_name(
    bench: Bench, name: str, sabotage: Callable[[Bench], None], told: str
) -> None:
    sabotage(bench)
    outcome = asked(bench, name)
    assert outcome.state is CheckState.FAILED, outcome
    assert told in outcome.detail, outcome.detail


@pytest.mark.parametrize("name", [name for name in NAMES if name != "state"])
def test_a_silent_estate_is_not_run_and_never_passed(bench: Bench, name: str) -> None:
    context = bench.context()
    context.live()  # what was there is known; then the lights go out
    plane = {"plane": "data"} if name == "reachability" else {}
    bench.sandbox.control("POST", "faults", {"kind": "outage", "mode": "refused", **plane})
    subject, settings = HEALTHY.get(name, ("", {}))
    if name == "switch":
        settings = {
            "resource": bench.id("rg-ai-prod", "aoai-claims-swc"),
            "api_version": "2025-09-01",
            "path": "/properties/publicNetworkAccess",
            "expected": "Enabled",
        }
    outcome = bench.prove(name, subject, context, **settings)
    # Silence is what reachability asks for: its answer is no.
    wanted = CheckState.FAILED if name == "reachability" else CheckState.NOT_RUN
    assert outcome.state is wanted, outcome
    assert outcome.negative_control is not Control.FAILED or name == "reachability"


def test_a_region_that_is_down_is_not_asked(bench: Bench) -> None:
    context = bench.context()
    context.live()
    bench.cloud.regions.declare_down("swedencentral", "drill")
    bench.sandbox.control("DELETE", "journal")
    for name in ("reachability", "golden", "quota"):
        subject, settings = HEALTHY[name]
        outcome = bench.prove(name, subject, context, **settings)
        assert outcome.state is CheckState.NOT_RUN, outcome
    assert bench.sandbox.journal() == []


def test_a_wrong_deployment_as_control_must_not_pass(bench: Bench) -> None:
    for wrong, control in (("gpt41", Control.FAILED), ("gpt4o", Control.PASSED)):
        outcome = bench.prove(
            "golden",
            f"deployment/{CLAIMS}/*",
            set="demo/claims-chat",
            wrong_deployment=wrong,
        )
        assert outcome.state is CheckState.PASSED
        assert outcome.negative_control is control, outcome
        assert ("did not fail" in outcome.control_detail) == (control is Control.PASSED)


def test_both_regions_are_probed_when_asked(bench: Bench) -> None:
    outcome = asked(bench, "content-filter", regions="both")
    assert outcome.state is CheckState.PASSED, outcome
    assert outcome.negative_control is Control.FAILED
    assert isinstance(outcome.observed, list)
    assert len(outcome.observed) == 3  # policies, target, primary


def test_vector_stores_of_a_project_are_counted(bench: Bench) -> None:
    found = bench.prove("vector-index", f"project/{DESK}", files={"care-knowledge": 2})
    assert (found.state, found.negative_control) == (CheckState.PASSED, Control.FAILED), found
    short = bench.prove("vector-index", f"project/{DESK}", files={"care-knowledge": 3})
    assert short.state is CheckState.FAILED


def test_needs_of_what_is_still_to_come_are_held_against_the_quota(bench: Bench) -> None:
    bench.delete("/deployments/gpt41")
    assert asked(bench, "quota").state is CheckState.PASSED
    bench.sandbox.control(
        "PUT",
        "quota",
        {
            "subscription": bench.sandbox.subscription,
            "region": "swedencentral",
            "usage": "OpenAI.DataZoneStandard.gpt-4.1",
            "limit": 50,
        },
    )
    outcome = asked(bench, "quota")
    assert outcome.state is CheckState.FAILED, outcome
    assert "OpenAI.DataZoneStandard.gpt-4.1" in outcome.detail


def test_a_deployment_that_is_gone_fails_and_is_named(bench: Bench) -> None:
    bench.delete("/deployments/claims-triage")
    for name in ("golden", "fine-tuned-differs", "state"):
        outcome = asked(bench, name)
        assert outcome.state is CheckState.FAILED, outcome
        assert "claims-triage" in outcome.detail


def test_who_may_nothing_is_told_so(bench: Bench) -> None:
    outcome = asked(bench, "permissions", actions=["Microsoft.KeyVault/vaults/delete"])
    assert outcome.state is CheckState.FAILED
    assert "Microsoft.KeyVault/vaults/delete" in outcome.detail


def test_a_used_up_allowance_is_not_run(bench: Bench) -> None:
    for bound in ({"max_calls": 2}, {"max_tokens": 250}):
        outcome = asked(bench, "golden", **bound)
        assert outcome.state is CheckState.NOT_RUN, outcome
        assert "allowance" in outcome.detail


def test_a_set_is_kept_by_digest_and_pinned(bench: Bench, tmp_path: Path) -> None:
    clock = SystemClock()
    ledger = Ledger.open(tmp_path / "ledger.git", clock=clock, create=True)
    vault = open_vault(str(tmp_path / "vault"), clock=clock)
    context = bench.context(ledger=ledger, vault=vault)
    digest = keep(context, load("demo/claims-triage", context))
    subject = HEALTHY["golden"][0]
    kept = bench.prove("golden", subject, context, set=f"sha256:{digest}", digest=digest)
    assert kept.state is CheckState.PASSED, kept
    files = dict(ledger.files("evidence", "golden/"))
    assert list(files) == ["golden/claims-triage.jsonl"]
    other = bench.prove("golden", subject, context, set="demo/claims-chat", digest=digest)
    assert other.state is CheckState.NOT_RUN
    ledger.close()
    vault.close()


def test_recording_refuses_what_is_not_steady(bench: Bench) -> None:
    context = bench.context()
    golden = load("demo/claims-chat", context)
    found = find(context, f"deployment/{CLAIMS}/*", frozenset({"deployment"}), "gpt4o")
    place = endpoint(context, account_of(context, found.there[0].key))
    with pytest.raises(RefusedError):
        record(context, place, golden, Allowance(3, 10_000, 60.0))
    with pytest.raises(InputError):
        make(CheckDeclaration(check="golden", settings={"sets": 3}))


def test_an_agent_with_a_function_is_given_its_result(bench: Bench) -> None:
    project = bench.id("rg-ai-care", "ais-care-swc", "/projects/care-desk")
    definition: dict[str, Any] = {
        "kind": "prompt",
        "model": "care-chat",
        "tools": [
            {
                "type": "function",
                "name": "parcel_status",
                "description": "Look up where a parcel is.",
                "parameters": {"type": "object", "properties": {"number": {"type": "integer"}}},
            }
        ],
    }
    path = "/agents/parcel-clerk/versions?api-version=v1"
    bench.project(project, "POST", path, {"definition": definition})
    outcome = bench.prove(
        "agent-smoke",
        f"agent/{DESK}/parcel-clerk",
        prompt="What is the status of parcel 4711?",
        tool="parcel_status",
        tool_output="in Malmo",
        expect="in Malmo",
    )
    assert outcome.state is CheckState.PASSED, outcome
    assert outcome.negative_control is Control.FAILED
    assert isinstance(outcome.observed, dict)
    assert outcome.observed["rounds"] == 2


def test_answers_that_became_slow_are_found(bench: Bench) -> None:
    slow = {"kind": "latency", "seconds": 0.4, "path": "chat/completions"}
    bench.sandbox.control("POST", "faults", slow)
    outcome = asked(bench, "latency", least=0.2)
    assert outcome.state is CheckState.FAILED, outcome
    assert "over 0.200 s" in outcome.detail
