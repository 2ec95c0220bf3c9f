"""Responses, assistants, vector stores and agents, seen by openai and azure-ai-projects."""

from __future__ import annotations

import json
import time
from typing import Any

import openai
import pytest
from azure.ai.projects import models as foundry
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceExistsError,
    ResourceNotFoundError,
)

from drills.sandbox.arm import Record
from drills.sandbox.dataplane.seed import generate, seed
from tests.dataplane_fixtures import ACCOUNTS, Playground, rows

WEATHER: Any = {
    "type": "function",
    "name": "get_weather",
    "description": "The current weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
    "strict": True,
}
QUESTION = "What is the current weather in Oslo?"


@pytest.fixture
def account(ground: Playground) -> Record:
    """The account `swc`, with the project `desk`."""
    found = ground.world.arm.find(f"{ACCOUNTS}/swc")
    assert found is not None
    ground.project(found, "desk")
    return found


# -- responses ----------------------------------------------------------------------------------


def test_a_response_says_what_chat_says(ground: Playground) -> None:
    client = ground.v1("swc")
    made = client.responses.create(model="chat", input="Where does the ferry go?")
    chat = client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": "Where does the ferry go?"}]
    )
    assert made.output_text == chat.choices[0].message.content
    assert made.status == "completed"
    assert made.usage is not None
    assert made.usage.output_tokens > 0
    assert client.responses.retrieve(made.id).output_text == made.output_text
    asked: Any = client.responses.input_items.list(made.id).data[0]
    assert asked.content[0].text == "Where does the ferry go?"
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_a_streamed_response_ends_with_the_same_text(ground: Playground) -> None:
    client = ground.v1("swc")
    whole = client.responses.create(model="chat", input="Tell me of the dunes").output_text
    events = list(client.responses.create(model="chat", input="Tell me of the dunes", stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == whole
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    with client.responses.stream(model="chat", input="Tell me of the dunes") as stream:
        assert stream.get_final_response().output_text == whole


def test_a_tool_call_goes_round_through_the_previous_response(ground: Playground) -> None:
    client = ground.v1("swc")
    first = client.responses.create(model="chat", input=QUESTION, tools=[WEATHER])
    call: Any = first.output[0]
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call",
        "get_weather",
        {"city": "Oslo"},
    )
    last = client.responses.create(
        model="chat",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "14 degrees"}],
        tools=[WEATHER],
    )
    assert last.output_text == "According to the tools, get_weather says 14 degrees."
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="chat", previous_response_id="resp_none", input="hello")


def test_filters_guard_responses_too(ground: Playground) -> None:
    client = ground.v1("swc")
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.create(model="chat", input="how to kill someone")
    assert refusal.value.code == "content_filter"
    stopped = client.responses.create(model="chat", input="decode: aG93IHRvIGtpbGwgc29tZW9uZQ==")
    assert (stopped.status, stopped.output_text) == ("incomplete", "")


def test_a_conversation_remembers_and_can_be_deleted(ground: Playground) -> None:
    client = ground.v1("swc")
    talk = client.conversations.create(metadata={"about": "ferries"})
    client.responses.create(model="chat", input="one", conversation=talk.id)
    client.responses.create(model="chat", input="two", conversation=talk.id)
    items = list(client.conversations.items.list(talk.id, order="asc", limit=3))
    assert [getattr(item, "role", "") for item in items] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert client.conversations.retrieve(talk.id).metadata == {"about": "ferries"}
    client.conversations.delete(talk.id)
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(talk.id)


# -- vector stores --------------------------------------------------------------------------------


def notes(client: openai.OpenAI, name: str, text: str) -> str:
    """A file for assistants."""
    return client.files.create(file=(name, text.encode()), purpose="assistants").id


def test_a_vector_store_takes_its_time_and_counts_its_files(ground: Playground) -> None:
    for client in (ground.v1("swc"), ground.classic("swc")):
        files = [notes(client, f"{n}.md", f"note {n}") for n in range(3)]
        store = client.vector_stores.create(name="knowledge", file_ids=files[:2])
        assert store.status == "in_progress"
        assert (store.file_counts.in_progress, store.file_counts.total) == (2, 2)
        ground.advance(2)
        store = client.vector_stores.retrieve(store.id)
        assert (store.status, store.file_counts.completed) == ("completed", 2)
        assert store.usage_bytes == 12
        batch = client.vector_stores.file_batches.create(store.id, file_ids=[files[2]])
        assert batch.status == "in_progress"
        ground.advance(2)
        done = client.vector_stores.file_batches.retrieve(batch.id, vector_store_id=store.id)
        assert (done.status, done.file_counts.completed) == ("completed", 1)
        inside = client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id)
        assert [f.id for f in inside] == [files[2]]
        listed = list(client.vector_stores.files.list(store.id, limit=1, order="asc"))
        assert [f.id for f in listed] == files
        client.vector_stores.files.delete(files[0], vector_store_id=store.id)
        assert client.vector_stores.retrieve(store.id).file_counts.total == 2
        assert client.files.retrieve(files[0]).id == files[0]
        assert client.vector_stores.update(store.id, name="better").name == "better"
        assert client.vector_stores.delete(store.id).deleted
        with pytest.raises(openai.NotFoundError):
            client.vector_stores.retrieve(store.id)


def test_a_vector_store_finds_what_fits_and_refuses_unknown_files(ground: Playground) -> None:
    client = ground.v1("swc")
    tides = notes(client, "tides.md", "High tide is at noon.\nLow tide is at six.")
    store = client.vector_stores.create(file_ids=[tides, notes(client, "food.md", "Soup is hot.")])
    ground.advance(3)
    hits = client.vector_stores.search(store.id, query="when is low tide").data
    assert (hits[0].filename, hits[0].content[0].text) == ("tides.md", "Low tide is at six.")
    assert hits[0].score > hits[-1].score
    with pytest.raises(openai.NotFoundError, match="file-none"):
        client.vector_stores.create(file_ids=["file-none"])
    answer = client.responses.create(
        model="chat",
        input="when is low tide",
        tools=[{"type": "file_search", "vector_store_ids": [store.id]}],
    )
    assert answer.output_text == "According to tides.md: Low tide is at six."


def test_a_vector_store_expires_when_nobody_uses_it(ground: Playground) -> None:
    client = ground.v1("swc")
    store = client.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 2})
    assert store.status == "completed"
    ground.advance(2 * 86_400)
    assert client.vector_stores.retrieve(store.id).status == "expired"


# -- assistants -----------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_assistant_lives_in_both_dialects(ground: Playground) -> None:
    client = ground.classic("swc", api_version="2024-05-01-preview")
    made = [client.beta.assistants.create(model="chat", name=f"helper {n}") for n in range(3)]
    names = [a.name for a in client.beta.assistants.list(limit=2, order="asc")]
    assert names == ["helper 0", "helper 1", "helper 2"]
    changed = client.beta.assistants.update(made[0].id, instructions="Be brief.")
    assert changed.instructions == "Be brief."
    assert ground.v1("swc").beta.assistants.retrieve(made[0].id).instructions == "Be brief."
    assert client.beta.assistants.delete(made[0].id).deleted
    with pytest.raises(openai.NotFoundError):
        client.beta.assistants.retrieve(made[0].id)
    with pytest.raises(openai.BadRequestError, match="model"):
        client.beta.assistants.create(model="")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_answers_after_its_time_also_with_a_tool(ground: Playground) -> None:
    client = ground.classic("swc", api_version="2024-05-01-preview")
    tool: Any = {"type": "function", "function": {k: v for k, v in WEATHER.items() if k != "type"}}
    helper = client.beta.assistants.create(model="chat", tools=[tool])
    thread = client.beta.threads.create(messages=[{"role": "user", "content": QUESTION}])
    run = client.beta.threads.runs.create(thread.id, assistant_id=helper.id)
    assert run.status == "in_progress"
    with pytest.raises(openai.BadRequestError, match="already has an active run"):
        client.beta.threads.runs.create(thread.id, assistant_id=helper.id)
    ground.advance(3)
    run = client.beta.threads.runs.retrieve(run.id, thread_id=thread.id)
    assert run.status == "requires_action"
    assert run.required_action is not None
    call = run.required_action.submit_tool_outputs.tool_calls[0]
    client.beta.threads.runs.submit_tool_outputs(
        run.id,
        thread_id=thread.id,
        tool_outputs=[{"tool_call_id": call.id, "output": "14 degrees"}],
    )
    assert len(list(client.beta.threads.messages.list(thread.id))) == 1
    ground.advance(3)
    assert client.beta.threads.runs.retrieve(run.id, thread_id=thread.id).status == "completed"
    newest: Any = client.beta.threads.messages.list(thread.id).data[0]
    assert newest.content[0].text.value == "According to the tools, get_weather says 14 degrees."
    steps = client.beta.threads.runs.steps.list(run.id, thread_id=thread.id, order="asc")
    assert [step.type for step in steps] == ["tool_calls", "message_creation"]
    assert client.beta.threads.delete(thread.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.beta.threads.messages.list(thread.id)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_cancelled_run_says_nothing(ground: Playground) -> None:
    client = ground.classic("swc", api_version="2024-05-01-preview")
    helper = client.beta.assistants.create(model="chat")
    run = client.beta.threads.create_and_run(
        assistant_id=helper.id, thread={"messages": [{"role": "user", "content": "hello"}]}
    )
    client.beta.threads.runs.cancel(run.id, thread_id=run.thread_id)
    ground.advance(5)
    assert client.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id).status == "cancelled"
    assert len(client.beta.threads.messages.list(run.thread_id).data) == 1


# -- a project's agents ---------------------------------------------------------------------------


def prompt(instructions: str, **more: Any) -> foundry.PromptAgentDefinition:
    """A prompt agent's definition."""
    return foundry.PromptAgentDefinition(model="chat", instructions=instructions, **more)


def test_agents_have_versions(ground: Playground, account: Record) -> None:
    agents = ground.foundry(account.name, "desk").agents
    one = agents.create_version("clerk", definition=prompt("Be brief."), description="first")
    two = agents.create_version("clerk", definition=prompt("Be kind."), metadata={"a": "b"})
    assert (one.version, two.version, two.metadata) == ("1", "2", {"a": "b"})
    for n in range(4):
        agents.create_version(f"other-{n}", definition=prompt("x"))
    names = [a.name for a in agents.list(limit=2, order="asc")]
    assert names == ["clerk", "other-0", "other-1", "other-2", "other-3"]
    found = agents.get("clerk")
    assert (found.versions.latest.version, found.id) == ("2", "clerk")
    shown: Any = agents.get_version("clerk", "1").definition
    assert (shown.kind, shown.model, shown.instructions) == ("prompt", "chat", "Be brief.")
    assert [v.version for v in agents.list_versions("clerk", order="asc")] == ["1", "2"]
    guid = found.versions.latest.agent_guid
    assert agents.delete("clerk").deleted
    with pytest.raises(ResourceNotFoundError):
        agents.get("clerk")
    again = agents.create_version("clerk", definition=prompt("Be brief."))
    assert (again.version, again.agent_guid != guid) == ("1", True)


def test_an_agent_is_posted_patched_disabled_and_refused(
    ground: Playground, account: Record
) -> None:
    client = ground.foundry(account.name, "desk")
    base = f"{ground.endpoint(account.name, 'services.ai')}/api/projects/desk/agents"
    token = ground.token(audience="https://ai.azure.com")
    http, headers = ground.http(), {"authorization": f"Bearer {token}"}
    body = {"name": "clerk", "definition": {"kind": "prompt", "model": "chat"}}
    assert http.post(f"{base}?api-version=v1", json=body, headers=headers).status_code == 200
    assert http.post(f"{base}?api-version=v1", json=body, headers=headers).status_code == 409
    new = {"definition": {"kind": "prompt", "model": "chat", "instructions": "New."}}
    for _ in range(2):  # the same definition again is no new version
        answer = http.post(f"{base}/clerk?api-version=v1", json=new, headers=headers)
        assert answer.json()["versions"]["latest"]["version"] == "2"
    card = {"agent_card": {"version": "1", "skills": []}}
    answer = http.patch(f"{base}/clerk?api-version=v1", json=card, headers=headers)
    assert answer.json()["agent_card"] == card["agent_card"]
    with pytest.raises(HttpResponseError) as refusal:
        client.agents.create_version(
            "x", definition=foundry.HostedAgentDefinition({"kind": "hosted"})
        )
    assert refusal.value.status_code == 501
    with pytest.raises(HttpResponseError) as refusal:
        client.agents.create_version("-bad-", definition=prompt("x"))
    assert refusal.value.status_code == 400
    missing = http.get(f"{base}/clerk", headers=headers)
    assert missing.json()["error"]["code"] == "MissingApiVersionParameter"
    other = http.get(f"{base.replace('/agents', '/schedules')}?api-version=v1", headers=headers)
    assert other.status_code == 501


def test_an_agent_answers_in_a_conversation_with_a_tool(
    ground: Playground, account: Record
) -> None:
    project = ground.foundry(account.name, "desk")
    tool = foundry.FunctionTool(**{k: v for k, v in WEATHER.items() if k != "type"})
    project.agents.create_version("clerk", definition=prompt("Be brief.", tools=[tool]))
    client = project.get_openai_client(http_client=ground.http())
    talk = client.conversations.create()
    reference = {"agent_reference": {"name": "clerk", "type": "agent_reference"}}
    first = client.responses.create(input=QUESTION, conversation=talk.id, extra_body=reference)
    call: Any = first.output[0]
    assert call.name == "get_weather"
    last = client.responses.create(
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": "14 degrees"}],
        conversation=talk.id,
        extra_body=reference,
    )
    assert last.output_text == "According to the tools, get_weather says 14 degrees."
    assert last.model_dump()["agent_reference"]["version"] == "1"
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.responses.create(
            input="hi", extra_body={"agent_reference": {"name": "nobody", "type": "x"}}
        )
    project.agents.disable("clerk")
    with pytest.raises(openai.ConflictError, match="disabled"):
        client.responses.create(input="hi", extra_body=reference)


def test_one_project_sees_nothing_of_another(ground: Playground, account: Record) -> None:
    ground.project(account, "lab")
    desk, lab = ground.foundry("swc", "desk"), ground.foundry("swc", "lab")
    desk.agents.create_version("clerk", definition=prompt("x"))
    assert list(lab.agents.list()) == []
    store = desk.get_openai_client(http_client=ground.http()).vector_stores.create(name="k")
    with pytest.raises(openai.NotFoundError):
        lab.get_openai_client(http_client=ground.http()).vector_stores.retrieve(store.id)
    with pytest.raises(ResourceNotFoundError):
        list(ground.foundry("swc", "nowhere").agents.list())


def test_a_project_wants_a_token_of_its_own_audience_and_a_role(
    ground: Playground, account: Record
) -> None:
    url = f"{ground.endpoint('swc', 'services.ai')}/api/projects/desk/agents?api-version=v1"
    http = ground.http()
    assert http.get(url, headers={"api-key": "swc-key-1"}).status_code == 401
    wrong = ground.token(audience="https://cognitiveservices.azure.com")
    assert http.get(url, headers={"authorization": f"Bearer {wrong}"}).status_code == 401
    ground.token("stranger", role="Reader")
    with pytest.raises(ClientAuthenticationError, match="lacks the required data action"):
        list(ground.foundry(account.name, "desk", "stranger").agents.list())
    assert list(ground.foundry(account.name, "desk").agents.list()) == []
    ground.account("plain", kind="OpenAI")
    plain = http.get(f"{ground.endpoint('plain', 'services.ai')}/api/projects/x/agents")
    assert plain.status_code == 404


def test_a_projects_files_and_stores_ask_for_the_data_actions_of_a_project(
    ground: Playground, account: Record
) -> None:
    desk = ground.foundry("swc", "desk").get_openai_client(http_client=ground.http())
    kept = desk.files.create(file=("a.md", b"Soup is hot."), purpose="assistants")
    store = desk.vector_stores.create(name="food", file_ids=[kept.id])
    assert [found.id for found in desk.files.list()] == [kept.id]
    assert [found.id for found in desk.vector_stores.files.list(store.id)] == [kept.id]
    with pytest.raises(openai.BadRequestError, match="Not allowed to download"):
        desk.files.content(kept.id)
    # The account's own plane knows nothing of it, nor does a role for the account's OpenAI paths.
    assert list(ground.v1("swc").files.list()) == []
    assert list(ground.v1("swc").vector_stores.list()) == []
    ground.token("only-openai", role="Cognitive Services OpenAI Contributor")
    other = ground.foundry("swc", "desk", "only-openai")
    client = other.get_openai_client(http_client=ground.http())
    with pytest.raises(openai.AuthenticationError, match="AIServices/assets/read"):
        list(client.vector_stores.list())
    with pytest.raises(openai.AuthenticationError, match="AIServices/assets/write"):
        client.files.create(file=("b.md", b"x"), purpose="assistants")
    desk.vector_stores.delete(store.id)
    desk.files.delete(kept.id)
    assert list(desk.files.list()) == []


def test_secrets_of_a_connection_come_only_when_asked_for(
    ground: Playground, account: Record
) -> None:
    desk = f"{account.id}/projects/desk"
    for owner, type_, name, auth, secret in (
        (desk, "projects/connections", "crm", "CustomKeys", {"keys": {"token": "canary-1"}}),
        (account.id, "connections", "search", "ApiKey", {"key": "canary-2"}),
        (account.id, "connections", "private", "ApiKey", {"key": "canary-3"}),
    ):
        properties = {
            "category": "CognitiveSearch" if name == "search" else auth,
            "authType": auth,
            "target": "https://x.example/",
            "isSharedToAll": name == "search",
            "metadata": {"a": "b"},
        }
        ground.world.arm.save(
            Record(
                id=f"{owner}/connections/{name}",
                type=f"Microsoft.CognitiveServices/accounts/{type_}",
                name=name,
                body={"properties": properties},
                hidden={"credentials": secret},
            )
        )
    connections = ground.foundry("swc", "desk").connections
    assert [c.name for c in connections.list()] == ["crm", "search"]
    assert [c.name for c in connections.list(connection_type="CognitiveSearch")] == ["search"]
    assert "canary" not in str(connections.get("search").as_dict())
    open_: Any = connections.get("search", include_credentials=True).credentials
    assert open_.api_key == "canary-2"
    custom: Any = connections.get("crm", include_credentials=True).credentials
    assert custom["token"] == "canary-1"
    with pytest.raises(ResourceNotFoundError):
        connections.get("private")


def test_a_project_shows_the_account_s_deployments(ground: Playground, account: Record) -> None:
    ground.deployment(account, "embed", "text-embedding-3-small", "1")
    deployments = ground.foundry("swc", "desk").deployments
    shown: Any = deployments.get("chat")
    assert (shown.model_name, shown.model_version, shown.sku.name) == (
        "gpt-4o-mini",
        "2024-07-18",
        "Standard",
    )
    assert [d.name for d in deployments.list()] == ["chat", "embed"]
    assert [d.name for d in deployments.list(model_name="gpt-4o-mini")] == ["chat"]


def test_datasets_and_indexes_have_versions(ground: Playground, account: Record) -> None:
    project = ground.foundry(account.name, "desk")
    for version in ("1", "2"):
        made = project.indexes.create_or_update(
            "claims",
            version,
            foundry.AzureAISearchIndex(connection_name="search", index_name=f"i{version}"),
        )
        assert made.version == version
    assert [i.version for i in project.indexes.list()] == ["2"]
    assert [i.version for i in project.indexes.list_versions("claims")] == ["2", "1"]
    data = foundry.FileDatasetVersion(data_uri="https://x.example/a.csv")
    assert project.datasets.create_or_update("golden", "1", data).data_uri == data.data_uri
    moved = foundry.FileDatasetVersion(data_uri="https://x.example/b.csv")
    with pytest.raises(ResourceExistsError):
        project.datasets.create_or_update("golden", "1", moved)
    project.datasets.delete("golden", "1")
    with pytest.raises(ResourceNotFoundError):
        project.datasets.get("golden", "1")


# -- estates --------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_an_estate_s_data_is_there_at_once_and_answers(ground: Playground, account: Record) -> None:
    section = {
        "files": [
            {"name": "tides.jsonl", "purpose": "fine-tune", "content": rows("tides").decode()},
            {"name": "more.jsonl", "generate": {"kind": "chat", "rows": 400, "theme": "Contoso"}},
            {"name": "notes.md", "purpose": "assistants", "content": "Low tide is at six."},
        ],
        "fine_tuning": [
            {
                "model": "gpt-4o-mini-2024-07-18",
                "training_file": "tides.jsonl",
                "suffix": "sea",
                "epochs": 2,
            }
        ],
        "vector_stores": [{"name": "knowledge", "files": ["notes.md"]}],
        "assistants": [
            {"name": "helper", "model": "chat", "vector_stores": ["knowledge"]},
        ],
        "projects": {
            "desk": {
                "files": [{"name": "a.md", "purpose": "assistants", "content": "Soup is hot."}],
                "vector_stores": [{"name": "food", "files": ["a.md"]}],
                "agents": [
                    {
                        "name": "clerk",
                        "versions": [
                            {"model": "chat", "instructions": "One."},
                            {
                                "model": "chat",
                                "instructions": "Two.",
                                "tools": [{"type": "file_search", "vector_stores": ["food"]}],
                            },
                        ],
                    }
                ],
            }
        },
    }
    began = time.process_time()
    seed(ground.world, account, section)
    assert time.process_time() - began < 0.5
    client = ground.v1("swc")
    job = client.fine_tuning.jobs.list().data[0]
    assert (job.status, len(job.result_files)) == ("succeeded", 1)
    assert job.fine_tuned_model is not None
    assert job.fine_tuned_model.endswith("-sea")
    assert len(client.fine_tuning.jobs.checkpoints.list(job.id).data) == 2
    ground.deployment(account, "tides", job.fine_tuned_model, "1")
    answer = client.responses.create(model="tides", input="What is rule 5 of tides?")
    assert answer.output_text == "Rule 5 of tides is tides-35."
    helper = client.beta.assistants.list().data[0]
    assert helper.tool_resources is not None
    assert helper.tool_resources.file_search is not None
    store = client.vector_stores.list().data[0]
    assert helper.tool_resources.file_search.vector_store_ids == [store.id]
    assert store.file_counts.completed == 1
    project = ground.foundry("swc", "desk")
    assert project.agents.get("clerk").versions.latest.version == "2"
    desk = project.get_openai_client(http_client=ground.http())
    said = desk.responses.create(
        input="Is soup hot?", extra_body={"agent_reference": {"name": "clerk"}}
    )
    assert said.output_text == "According to a.md: Soup is hot."


def test_generated_files_are_the_same_every_time() -> None:
    recipe = {"kind": "chat", "rows": 50, "theme": "Contoso"}
    assert generate(recipe) == generate(recipe)
    assert generate(recipe) != generate({**recipe, "theme": "Fabrikam"})
    questions = [
        json.loads(line)["messages"][1]["content"] for line in generate(recipe).splitlines()
    ]
    assert len(set(questions)) == 50


@pytest.mark.parametrize(
    ("section", "reason"),
    [
        ({"filez": []}, "'filez' is not one of"),
        ({"files": [{"name": "a.jsonl", "content": "rubbish"}]}, "is no good"),
        ({"files": [{"name": "a.jsonl", "purpose": "x", "content": "y"}]}, "has the purpose"),
        ({"files": [{"name": "a.jsonl", "generate": {"rows": 0}}]}, "is generated as"),
        ({"vector_stores": [{"name": "k", "files": ["none.md"]}]}, "no file is called"),
        ({"fine_tuning": [{"model": "whisper", "training_file": "x"}]}, "cannot be fine-tuned"),
        ({"projects": {"nowhere": {}}}, "is not there"),
        ({"assistants": ["helper"]}, "is a table"),
    ],
)
def test_an_estate_s_mistakes_are_named(
    ground: Playground, account: Record, section: Any, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason):
        seed(ground.world, account, section)
