"""References are followed to the right resource, and lineage goes from file to agent."""

from __future__ import annotations

from snapshots.kinds.links import Links
from snapshots.model import JsonObject, Key, Resource

A = ("s", "g", "one")
B = ("s", "g", "two")
RG = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts"
FT = "gpt-4o.ft-1"


def estate() -> dict[Key, Resource]:
    found: dict[Key, Resource] = {}

    def add(kind: str, path: tuple[str, ...], id_: str, body: JsonObject) -> None:
        key = Key(kind, path)
        found[key] = Resource(key, id_, body)

    add("account", A, f"{RG}/One", {"identity": {"principalId": "P-1"}})
    add("account", B, f"{RG}/Two", {})
    add("file", (*A, "train.jsonl"), "file-1", {})
    add("file", (*A, "result.csv"), "file-2", {})
    add("file", (*B, "train.jsonl"), "file-1", {})
    job: JsonObject = {
        "training_file": "file-1",
        "fine_tuned_model": FT,
        "result_files": ["file-2"],
    }
    add("fine-tuning-job", (*A, "ftjob-1"), "ftjob-1", job)
    add("fine-tuned-model", (*A, FT), FT, {"fine_tune": "ftjob-1"})
    model: JsonObject = {"name": FT, "source": f"{RG}/ONE".lower()}
    policy: JsonObject = {"model": {"name": FT}, "raiPolicyName": "Strict"}
    add("deployment", (*A, "chat"), f"{RG}/One/deployments/chat", {"properties": policy})
    add("deployment", (*B, "far"), f"{RG}/Two/deployments/far", {"properties": {"model": model}})
    add("rai-policy", (*A, "strict"), f"{RG}/One/raiPolicies/strict", {"properties": {}})
    add("rai-policy", (*B, "microsoft.default"), f"{RG}/Two/raiPolicies/x", {"properties": {}})
    agent: JsonObject = {"versions": [{"definition": {"model": "chat"}}]}
    add("agent", (*A, "prj", "Clerk"), "Clerk", agent)
    scope: JsonObject = {"properties": {"principalId": "p-1", "scope": f"{RG}/Two".lower()}}
    add("role-assignment", (*B, "guid"), "x", scope)
    return found


def test_data_is_followed_from_file_to_agent() -> None:
    links = Links(estate())
    train = Key("file", (*A, "train.jsonl"))
    assert [str(key) for key in links.reached(train)] == [
        "fine-tuning-job/s/g/one/ftjob-1",
        "file/s/g/one/result.csv",
        f"fine-tuned-model/s/g/one/{FT}",
        "deployment/s/g/one/chat",
        "deployment/s/g/two/far",
        "agent/s/g/one/prj/Clerk",
    ]
    agent = Key("agent", (*A, "prj", "Clerk"))
    assert train in links.origins(agent)
    assert Key("file", (*B, "train.jsonl")) not in links.origins(agent), "same id, other account"
    assert links.reached(agent) == ()


def test_names_ids_and_principals_lead_to_the_right_resource() -> None:
    links = Links(estate())
    chat = {link.path: link.target for link in links.of(Key("deployment", (*A, "chat")))}
    assert chat["/properties/raiPolicyName"] == Key("rai-policy", (*A, "strict"))
    far = {link.path: link.target for link in links.of(Key("deployment", (*B, "far")))}
    assert far["/properties/model/source"] == Key("account", A)
    granted = {link.path: link.target for link in links.of(Key("role-assignment", (*B, "guid")))}
    assert granted["/properties/principalId"] == Key("account", A)
    assert granted["/properties/scope"] == Key("account", B)
    assert {link.source.kind for link in links.to(Key("account", A))} == {
        "deployment",
        "role-assignment",
    }


def test_what_is_not_there_is_said_to_be_not_there() -> None:
    found = estate()
    del found[Key("rai-policy", (*A, "strict"))]
    chat = {link.path: link.target for link in Links(found).of(Key("deployment", (*A, "chat")))}
    assert chat["/properties/raiPolicyName"] is None, "another account's policy is not ours"
