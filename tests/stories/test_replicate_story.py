"""Replication against the sandbox: in step, quiet the second time, and no wrong model counts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from muster.settings import Environment, load
from muster.verbs.replicate import replicator_for
from muster.wiring import Wiring
from snapshots.clock import SystemClock
from snapshots.steps import Action
from tests.replicate_fixtures import API, FINE_TUNED, QUESTION, Site, mutations, with_identity


@pytest.fixture
def site(pair_site: Site) -> Site:
    """A site on an estate as freshly loaded."""
    return pair_site


def test_a_dry_replication_says_what_it_would_do_and_writes_nothing(site: Site) -> None:
    site.configure()
    before = site.sandbox.journal()[-1]["seq"]
    found = site.replicate()
    assert found["applied"] is False
    assert found["complete"] is False
    assert found["record"] is None
    assert {"copy", "create", "update"} <= {step["action"] for step in found["steps"]}
    assert mutations(site.sandbox, after=before) == []


def test_a_replication_proves_each_model_and_the_second_has_nothing_to_do(site: Site) -> None:
    site.configure()
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    assert found["remaining_changes"] == []
    assert all(step["state"] in {"done", "adopted"} for step in found["steps"])
    # One plan, carried out as it was shown: nothing was planned anew on the way.
    assert [s["id"] for s in found["steps"]] == [f"s{n + 1}" for n in range(len(found["steps"]))]
    models = {m["target"].rsplit("/", 1)[-1]: m for m in found["pairs"][0]["models"]}
    assert set(models) == FINE_TUNED
    for model in models.values():
        assert (model["state"], model["way"]) == ("proved", "source")
        assert model["proof"]["same"] == model["proof"]["prompts"] > 0
        assert model["lag_seconds"] > 0
    triage = models["claims-triage"]["proof"]
    assert triage["base"] == "gpt4o-mini"
    assert triage["unlike_base"] > 0
    question = "A pipe burst in my kitchen."
    assert site.asked(site.standby, "claims-triage", question) == "queue: water"
    assert site.asked(site.standby, "gpt4o-mini", question) != "queue: water"
    again = site.replicate("--apply", "--yes")
    assert again["steps"] == []
    assert again["complete"] is True


def test_a_copied_checkpoint_answers_as_its_source_and_is_in_the_registry(site: Site) -> None:
    with_identity(site)
    site.configure('fine_tuned = ["checkpoint"]')
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    models = {m["target"].rsplit("/", 1)[-1]: m for m in found["pairs"][0]["models"]}
    assert {m["way"] for m in models.values()} == {"checkpoint"}
    assert all(m["name"].startswith("ftchkpt-") for m in models.values())
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"
    there = site.deployments()
    assert "source" not in there["claims-triage"]["properties"]["model"]
    assert not [name for name in there if name.startswith("muster-proof")]
    assert site.replicate("--apply", "--yes")["steps"] == []


@pytest.mark.parametrize("lacks", ["identity", "role", "network"])
def test_what_a_checkpoint_copy_lacks_is_named_beforehand(site: Site, lacks: str) -> None:
    if lacks != "identity":
        with_identity(site, role=lacks != "role")
    if lacks == "network":
        body = {"properties": {"publicNetworkAccess": "Disabled"}}
        answer = site.sandbox.call("PATCH", f"{site.standby}{API}", body)
        assert answer.status_code in (200, 202), answer.text
        site.sandbox.control("POST", "clock", {"advance": 120})
    site.configure('fine_tuned = ["checkpoint"]')
    before = site.sandbox.journal()[-1]["seq"]
    # With its network closed, the standby's data cannot be read either: that is incomplete.
    found = site.replicate(expect=3 if lacks == "network" else 2)
    words = {
        "identity": "no user-assigned identity",
        "role": "Azure AI User",
        "network": "public network access",
    }
    for choice in found["pairs"][0]["choices"]:
        assert choice["way"] is None
        assert words[lacks] in choice["refused"][0]
    assert mutations(site.sandbox, after=before) == []


@pytest.mark.parametrize("way", ["checkpoint", pytest.param("retrain", marks=pytest.mark.stress)])
def test_a_copy_of_the_wrong_model_is_caught_and_never_goes_into_service(
    site: Site, way: str
) -> None:
    with_identity(site)
    site.configure(f'fine_tuned = ["{way}"]')
    dump = site.sandbox.control("GET", "dump")
    lessons = weights(dump)
    other = next(v["lesson"] for v in lessons.values() if v["lesson"] != main_lesson(lessons))
    for name, value in lessons.items():
        # Somebody else's weights under the checkpoints' names: what a mixed-up copy would be. Or
        # a source that was trained on something else than the file that is kept for it.
        if name.startswith("ftchkpt-") if way == "checkpoint" else name.endswith("-claims-triage"):
            value["lesson"] = other
    site.sandbox.control("POST", "load", dump)
    if way == "retrain":
        site.sandbox.control("POST", "clock", {"scale": 5000})
    retrain = ["--retrain"] if way == "retrain" else []
    found = site.replicate(*retrain, "--apply", "--yes", expect=2)
    models = {m["target"].rsplit("/", 1)[-1]: m for m in found["pairs"][0]["models"]}
    states = {name: model["state"] for name, model in models.items()}
    assert "wrong" in states.values()
    failed = [step for step in found["steps"] if step["state"] == "failed"]
    assert failed
    assert all("answers otherwise than its source" in step["error"] for step in failed)
    for name, state in states.items():
        assert (name in site.deployments()) == (state == "proved")
    assert not [name for name in site.deployments() if name.startswith("muster-proof")]


@pytest.mark.stress
def test_a_standing_replica_with_another_model_is_replaced_and_proved_again(site: Site) -> None:
    site.configure()
    assert site.replicate("--apply", "--yes")["complete"] is True
    there = site.deployments()
    path = f"{site.standby}/deployments/claims-triage"
    body = {
        "sku": there["claims-triage"]["sku"],
        "properties": {"model": there["claims-tone"]["properties"]["model"]},
    }
    answer = site.sandbox.call("PUT", f"{path}{API}", body)
    assert answer.ok, answer.text
    site.sandbox.control("POST", "clock", {"advance": 300})
    assert site.asked(site.standby, "claims-triage", QUESTION) != "queue: water"
    again = site.replicate("--apply", "--yes")
    assert {step["key"].rsplit("/", 1)[-1] for step in again["steps"]} == {"claims-triage"}
    assert again["complete"] is True
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"


def weights(dump: Any) -> dict[str, Any]:
    """The pretend models' weights within a dump, by name; changing them changes the dump."""
    found = {
        item["id"]: item["body"]
        for item in dump["items"]
        if isinstance(item["body"], dict) and {"lesson", "base"} == set(item["body"])
    }
    assert found, "the dump holds no weights"
    return found


def main_lesson(lessons: dict[str, Any]) -> str:
    """What claims-triage was taught."""
    return str(next(v["lesson"] for k, v in lessons.items() if k.endswith("-claims-triage")))


def test_retraining_is_done_only_when_asked_and_answers_alike(site: Site) -> None:
    site.configure('fine_tuned = ["retrain"]')
    refused = site.replicate(expect=2)
    assert {c["way"] for c in refused["pairs"][0]["choices"]} == {None}
    site.sandbox.control("POST", "clock", {"scale": 5000})
    found = site.replicate("--retrain", "--apply", "--yes")
    assert found["complete"] is True
    rebuilt = [step for step in found["steps"] if step["action"] == "rebuild"]
    assert len(rebuilt) == len(FINE_TUNED)
    assert all("hours" in step["note"] for step in rebuilt)
    models = found["pairs"][0]["models"]
    assert all(m["name"] != m["model"] for m in models)
    assert site.asked(site.standby, "claims-triage", QUESTION) == "queue: water"
    assert site.replicate("--apply", "--yes")["steps"] == []


@pytest.mark.stress
def test_cold_copies_and_proves_and_leaves_nothing_standing(site: Site) -> None:
    with_identity(site)
    site.configure('deployments = "cold"')
    before = set(site.deployments())
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    assert set(site.deployments()) == before
    models = found["pairs"][0]["models"]
    assert {(m["state"], m["way"], m["deployed"]) for m in models} == {
        ("proved", "checkpoint", False)
    }
    cost = found["pairs"][0]["cost"]
    assert (cost["hosting_hours_a_month"], cost["calls_a_month"]) == (0, 0)
    by_policy = {row["policy"]: row for row in cost["policies"]}
    assert [row["policy"] for row in cost["policies"] if row["chosen"]] == ["cold"]
    models = len(FINE_TUNED)
    assert by_policy["ping"]["hosting_hours_a_month"] == 730 * models
    assert by_policy["off"]["hosting_hours_a_month"] == 360 * models
    assert by_policy["ping"]["calls_a_month"] > by_policy["redeploy"]["calls_a_month"] == 0
    assert site.replicate("--apply", "--yes")["steps"] == []


class Later:
    """The machine's clock, some days ahead."""

    def __init__(self, days: float) -> None:
        self.days = days

    def now(self) -> datetime:
        """The moment, that many days from now."""
        return datetime.now(UTC) + timedelta(days=self.days)

    def sleep(self, seconds: float) -> None:
        """Wait as anybody."""
        SystemClock().sleep(seconds)


@pytest.mark.parametrize("policy", ["ping", "off"])
def test_a_model_that_is_called_outlives_the_fifteen_days_and_one_that_is_not_goes(
    site: Site, policy: str
) -> None:
    site.configure(f'keep_alive = "{policy}"')
    site.replicate("--apply", "--yes")
    assert set(site.deployments()) >= FINE_TUNED
    settings = load(site.file)
    for days in (8.0, 16.0):
        site.sandbox.control("POST", "clock", {"advance": 8 * 86400})
        with Wiring(settings, Environment(), clock=Later(days)) as wiring:
            replicator = replicator_for(wiring, settings.estate.pairs[0])
            made = replicator.prepare(wiring.ledger().load())
            calls = [s for s in made.prepared.plan.steps if s.work is not None]
            assert all(s.action is Action.UPDATE for s in calls)
            assert len(calls) == (len(FINE_TUNED) if policy == "ping" else 0)
            if policy == "ping":
                replicator.run(made, wiring.records())
    alive = FINE_TUNED & set(site.deployments())
    assert alive == (FINE_TUNED if policy == "ping" else set())


@pytest.mark.stress
def test_what_azure_deleted_for_idleness_is_deployed_again(site: Site) -> None:
    site.configure('keep_alive = "redeploy"')
    site.replicate("--apply", "--yes")
    for _ in range(2):
        site.sandbox.control("POST", "clock", {"advance": 8 * 86400})
        for name in sorted(FINE_TUNED):
            site.asked(site.source, name, QUESTION)  # the primary has its traffic
    assert not FINE_TUNED & set(site.deployments())
    found = site.replicate("--apply", "--yes")
    assert found["complete"] is True
    assert set(site.deployments()) >= FINE_TUNED


def test_a_closed_gate_stops_before_anything_is_changed_and_the_rest_goes_when_asked(
    site: Site,
) -> None:
    site.configure()
    # gpt4o-mini stands there already; gpt4o needs quota that is taken away.
    usage = "OpenAI.Standard.gpt-4o"
    offer = {"subscription": site.dr, "region": "eastus2", "usage": usage, "limit": 1}
    site.sandbox.control("PUT", "quota", offer)
    before = site.sandbox.journal()[-1]["seq"]
    stopped = site.replicate("--apply", "--yes", expect=1)
    closed = [gate for gate in stopped["gates"] if not gate["passed"]]
    assert [(gate["name"], usage in gate["subject"]) for gate in closed] == [("quota", True)]
    assert all(gate["remedy"] for gate in closed)
    assert (stopped["applied"], stopped["record"]) == (False, None)
    assert mutations(site.sandbox, after=before) == []
    rest = site.replicate("--apply", "--yes", "--keep-going", expect=2)
    failed = {s["key"].rsplit("/", 1)[-1] for s in rest["steps"] if s["state"] == "failed"}
    assert failed == {"gpt4o"}
    assert {m["state"] for m in rest["pairs"][0]["models"]} == {"proved"}
    assert rest["complete"] is False
