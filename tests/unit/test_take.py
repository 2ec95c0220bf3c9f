"""What a snapshot holds, what it asks for, and what it says of what it could not read."""

from __future__ import annotations

from dataclasses import replace

import pytest

from snapshots.errors import (
    CloudError,
    DeniedError,
    InputError,
    MissingError,
    RegionDownError,
    UnreachableError,
)
from snapshots.kinds import BY_NAME, descendants
from snapshots.model import GapReason, JsonObject, Key, Snapshot, canonical
from snapshots.secrets import Fingerprints
from snapshots.take import Progress, Scope, TakeOptions, take
from tests.canned_cloud import CannedCloud, FrozenClock, KeptPayloads

SUB = "00000000-0000-0000-0000-000000000001"
CS = f"/subscriptions/{SUB}/providers/Microsoft.CognitiveServices"
ACCOUNTS = f"{CS}/accounts"
GROUPS = f"/subscriptions/{SUB}/resourcegroups"
AUTH = f"/subscriptions/{SUB}/providers/Microsoft.Authorization"
PRINTS = Fingerprints(b"a key of at least sixteen bytes")
ENDPOINT = "https://one.openai.azure.com"
QUIET = TakeOptions(reference=False)


def account_id(name: str, group: str = "RG-AI") -> str:
    return f"/subscriptions/{SUB}/resourceGroups/{group}/providers/Microsoft.CognitiveServices/accounts/{name}"


def account(
    name: str = "One",
    group: str = "RG-AI",
    *,
    kind: str = "OpenAI",
    region: str = "Sweden Central",
    projects: bool = False,
) -> JsonObject:
    return {
        "id": account_id(name, group),
        "name": name,
        "type": "Microsoft.CognitiveServices/accounts",
        "etag": '"1"',
        "kind": kind,
        "location": region,
        "sku": {"name": "S0"},
        "properties": {
            "endpoint": f"https://{name.lower()}.openai.azure.com/",
            "allowProjectManagement": projects,
            "provisioningState": "Succeeded",
            "customSubDomainName": name.lower(),
        },
    }


def child(parent: str, collection: str, name: str, **properties: object) -> JsonObject:
    return {
        "id": f"{parent}/{collection}/{name}",
        "name": name,
        "type": f"Microsoft.CognitiveServices/accounts/{collection}",
        "etag": '"2"',
        "properties": {**properties, "provisioningState": "Succeeded"},  # type: ignore[dict-item]
    }


def group(name: str = "RG-AI") -> JsonObject:
    return {
        "id": f"/subscriptions/{SUB}/resourceGroups/{name}",
        "name": name,
        "location": "swedencentral",
        "properties": {"provisioningState": "Succeeded"},
    }


def estate(shuffle: int | None = None) -> CannedCloud:
    one = account_id("One")
    v1 = f"{ENDPOINT}/openai/v1"
    return CannedCloud(
        {
            GROUPS: [group(), group("rg-other")],
            ACCOUNTS: [account(), account("Two", "rg-other", kind="SpeechServices")],
            f"{one}/deployments": [
                child(one, "deployments", "chat", model={"format": "OpenAI", "name": "gpt-4o"}),
                child(one, "deployments", "tuned", model={"name": "gpt-4o.ft-abc"}),
            ],
            f"{one}/raiBlocklists": [child(one, "raiBlocklists", "words", description="bad")],
            f"{one}/raiBlocklists/words/raiBlocklistItems": [
                child(f"{one}/raiBlocklists/words", "raiBlocklistItems", n, pattern=n)
                for n in ("b", "a")
            ],
            f"{v1}/files": [
                file("file-2", "train.jsonl", 20, 2),
                file("file-1", "train.jsonl", 10, 1),
                file("file-3", "kb.pdf", 5, 3, purpose="assistants"),
            ],
            f"{v1}/fine_tuning/jobs": [
                {"id": "ftjob-1", "status": "succeeded", "training_file": "file-1"},
                {"id": "ftjob-2", "status": "running", "training_file": "file-2"},
            ],
            f"{v1}/fine_tuning/jobs/ftjob-1/checkpoints": [
                {"id": f"c{n}", "step_number": n, "object": "x"} for n in (2, 1)
            ],
            f"{v1}/models": [{"id": "gpt-4o"}, {"id": "gpt-4o.ft-abc", "created": 5}],
        },
        {
            f"{v1}/files/file-1/content": b"0123456789",
            f"{v1}/files/file-2/content": b"01234567890123456789",
        },
        shuffle=shuffle,
    )


def file(id_: str, name: str, size: int, at: int, purpose: str = "fine-tune") -> JsonObject:
    return {
        "id": id_,
        "object": "file",
        "filename": name,
        "bytes": size,
        "created_at": at,
        "purpose": purpose,
        "status": "processed",
    }


def taken(
    cloud: CannedCloud,
    *scopes: Scope,
    previous: Snapshot | None = None,
    payloads: KeptPayloads | None = None,
    options: TakeOptions = QUIET,
) -> Snapshot:
    return take(
        "estate",
        scopes or (Scope(SUB),),
        cloud,
        fingerprints=PRINTS,
        clock=FrozenClock(),
        version="test",
        previous=previous,
        payloads=payloads if payloads is not None else KeptPayloads(),
        options=options,
    )


def written(snapshot: Snapshot) -> bytes:
    return canonical(
        [
            [resource.document() for resource in snapshot.resources.values()],
            [gap.document() for gap in snapshot.gaps],
            dict(snapshot.reference),
        ]
    )


def keys(snapshot: Snapshot, kind: str = "") -> list[str]:
    return [str(key) for key in snapshot.resources if not kind or key.kind == kind]


def test_a_snapshot_holds_what_the_cloud_holds() -> None:
    snapshot = taken(estate())
    assert not snapshot.gaps
    assert keys(snapshot) == [
        f"account/{SUB}/rg-ai/one",
        f"account/{SUB}/rg-other/two",
        f"deployment/{SUB}/rg-ai/one/chat",
        f"deployment/{SUB}/rg-ai/one/tuned",
        f"file/{SUB}/rg-ai/one/kb.pdf",
        f"file/{SUB}/rg-ai/one/train.jsonl",
        f"file/{SUB}/rg-ai/one/train.jsonl~2",
        f"fine-tuned-model/{SUB}/rg-ai/one/gpt-4o.ft-abc",
        f"fine-tuning-job/{SUB}/rg-ai/one/ftjob-1",
        f"fine-tuning-job/{SUB}/rg-ai/one/ftjob-2",
        f"rai-blocklist/{SUB}/rg-ai/one/words",
        f"resource-group/{SUB}/rg-ai",
        f"resource-group/{SUB}/rg-other",
    ]
    words = snapshot.resources[Key("rai-blocklist", (SUB, "rg-ai", "one", "words"))]
    assert [item["name"] for item in words.body["items"]] == ["a", "b"]  # type: ignore[index, union-attr, call-overload]
