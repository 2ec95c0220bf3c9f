"""A project's files and vector stores: taken, lost, and back so that its agents find in them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import requests

from snapshots.kinds.links import Links
from snapshots.model import Key, Recovery, Snapshot
from snapshots.restore import gates
from snapshots.steps import AccountPlace, Mapping
from tests.restoring_fixtures import Engine, Front, ask, settle
from tests.sandbox_fixtures import RunningSandbox

FOUNDRY = "https://ai.azure.com/.default"
OF_PROJECTS = {"agent", "project-file", "project-vector-store"}
CASES = b'{"case": 1, "ruling": "Broken goods are replaced at once."}\n'


@dataclass(frozen=True)
class Desk:
    """The care desk's own data plane, as its owner uses it."""

    sandbox: RunningSandbox
    account: str = "ais-care-swc"

    @property
    def url(self) -> str:
        """The project's endpoint."""
        return f"{self.sandbox.url}/dp/{self.account}.services.ai/api/projects/care-desk"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request that must go well."""
        found = self.sandbox.call(method, f"{self.url}{path}", body, name="muster", scope=FOUNDRY)
        assert found.ok, (method, path, found.status_code, found.text[:300])
        return found.json()

    def upload(self, name: str, content: bytes) -> str:
        """Upload a file whose content is given back; its id."""
        found = requests.post(
            f"{self.url}/openai/v1/files",
            files={"file": (name, content)},
            data={"purpose": "evals"},
            headers={"authorization": f"Bearer {self.sandbox.token('muster', FOUNDRY)}"},
            verify=self.sandbox.ca,
            timeout=30,
        )
        assert found.ok, found.text[:300]
        return str(found.json()["id"])

    def agents(self) -> set[str]:
        """The stores in which the agents' newest versions search."""
        found: set[str] = set()
        for agent in self.ask("GET", "/agents?api-version=v1")["data"]:
            for tool in agent["versions"]["latest"]["definition"].get("tools") or []:
                found.update(tool.get("vector_store_ids") or [])
        return found

    def stores(self) -> dict[str, str]:
        """The stores' ids by their names."""
        listed = self.ask("GET", "/openai/v1/vector_stores")["data"]
        return {store["name"]: store["id"] for store in listed}

    def files(self, store: str) -> set[str]:
        """The names of the files of a store."""
        listed = self.ask("GET", f"/openai/v1/vector_stores/{store}/files")["data"]
        ids = {item["id"] for item in listed}
        files = self.ask("GET", "/openai/v1/files")["data"]
        return {item["filename"] for item in files if item["id"] in ids}


@pytest.fixture
def desk(sandbox: RunningSandbox) -> Desk:
    """The care desk, with a file besides that Azure gives back."""
    sandbox.control("POST", "clock", {"scale": 60})
    made = Desk(sandbox)
    file, store = made.upload("cases.jsonl", CASES), made.stores()["care-knowledge"]
    made.ask("POST", f"/openai/v1/vector_stores/{store}/files", {"file_id": file})
    settle(sandbox)
    return made


def key(kind: str, name: str, sandbox: RunningSandbox) -> Key:
    return Key(kind, (sandbox.subscription, "rg-ai-care", "ais-care-swc", "care-desk", name))


def searched(snapshot: Snapshot, agent: Key) -> set[Key]:
    """The stores of the snapshot in which an agent searches."""
    found = Links(snapshot.resources)
    return {
        link.target
        for link in found.of(agent)
        if link.target is not None and link.target.kind == "project-vector-store"
    }


def test_agents_of_a_project_that_was_lost_search_in_its_new_store(
    desk: Desk, engine: Engine
) -> None:
    sandbox = desk.sandbox
    before, old = engine.take(), desk.stores()["care-knowledge"]
    assert before.calls.made == before.calls.floor
    store, agent = (
        key("project-vector-store", "care-knowledge", sandbox),
        key("agent", "front-desk", sandbox),
    )
    assert before.resources[store].id == old
    assert searched(before, agent) == {store}
    project = before.resources[Key("project", agent.within)]
    ask(sandbox, "DELETE", project.id)
    settle(sandbox)
    prepared = engine.prepare(before)
    assert [gate for gate in gates(prepared, engine.tools) if not gate.passed] == []
    lost = {item.key: item.recovery for item in prepared.plan.not_restorable}
    for name in ("returns-policy.md", "delivery-times.md"):
        assert lost[key("project-file", name, sandbox)] is Recovery.LOST
    assert store in lost  # it comes back, without those
    done = engine.restore(prepared)
    # Which project is the default the service decides while there is one.
    assert {change.key.kind for change in done.remaining} <= {"account", "project"}
    new = desk.stores()["care-knowledge"]
    assert new != old
    assert desk.agents() == {new}
    assert desk.files(new) == {"cases.jsonl"}
    after = engine.take()
    assert searched(after, agent) == {store}
    case = key("project-file", "cases.jsonl", sandbox)
    assert after.resources[case].payloads == before.resources[case].payloads
    again = engine.prepare(before).plan
    assert {step.key.kind for step in again.steps} <= {"account", "project"}


def test_in_another_region_the_agents_search_in_the_store_that_was_made_there(
    desk: Desk, engine: Engine
) -> None:
    sandbox = desk.sandbox
    before = engine.take()
    mapping = Mapping(
        regions={"swedencentral": "eastus2"},
        subscriptions={sandbox.subscription: sandbox.subscriptions[1]},
        resource_groups={"rg-ai-care": "rg-ai-dr"},
        accounts={"ais-care-swc": AccountPlace("ais-care-eus2")},
    )
    prepared = engine.prepare(
        before, "*/ais-care-swc*", mapping=mapping, regions=("swedencentral",)
    )
    done = engine.restore(prepared)
    assert not [change.key for change in done.remaining if change.key.kind in OF_PROJECTS]
    there = Desk(sandbox, "ais-care-eus2")
    assert there.agents()
    assert there.agents() == set(there.stores().values()) != desk.agents()
    assert there.files(there.stores()["care-knowledge"]) == {"cases.jsonl"}


def test_a_plan_knows_when_a_projects_store_lacks_a_file(desk: Desk, engine: Engine) -> None:
    sandbox, before = desk.sandbox, engine.take()
    store = desk.stores()["care-knowledge"]
    case = before.resources[key("project-file", "cases.jsonl", sandbox)]
    desk.ask("DELETE", f"/openai/v1/vector_stores/{store}/files/{case.id}")
    desk.ask("DELETE", f"/openai/v1/files/{case.id}")
    prepared = engine.prepare(before)
    assert {step.key for step in prepared.plan.steps} == {
        case.key, key("project-vector-store", "care-knowledge", sandbox),
    }  # fmt: skip
    assert engine.restore(prepared).remaining == ()
    assert desk.stores()["care-knowledge"] == store
    assert "cases.jsonl" in desk.files(store)
    assert engine.prepare(before).plan.is_empty


def test_lineage_and_coverage_name_the_data_of_projects(desk: Desk, front: Front) -> None:
    front.ask("snapshot")
    case = key("project-file", "cases.jsonl", desk.sandbox)
    told = front.run("lineage", str(case))[1]
    assert "project-vector-store" in told
    assert "front-desk" in told
    covered = front.ask("coverage")
    text = str(covered)
    assert "project-file" in text
    assert "project-vector-store" in text
