"""What a snapshot holds, what it asks for, and what it says of what it could not read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from threading import Event

import pytest

from snapshots.cloud.place import Cursor, Place
from snapshots.errors import (
    CloudError,
    DeniedError,
    InputError,
    MissingError,
    RegionDownError,
    UnreachableError,
)
from snapshots.kinds import BY_NAME, descendants
from snapshots.kinds.links import Links
from snapshots.model import GapReason, JsonObject, Key, Recovery, Snapshot, canonical
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
    held = f"/subscriptions/{SUB}/resourceGroups/{group}"
    return f"{held}/providers/Microsoft.CognitiveServices/accounts/{name}"


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
    confirm: bool = False,
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
        confirm=confirm,
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


def test_models_capacity_is_asked_for_when_it_is_wanted() -> None:
    cloud = estate()
    body = cloud.listings[f"{account_id('One')}/deployments".lower()][0]
    body["properties"]["model"]["version"] = "2024-11-20"  # type: ignore[index, call-overload]
    plain = taken(estate(), options=TakeOptions())
    assert not [path for path in plain.reference if path.startswith("capacities/")]
    asked = taken(cloud, options=TakeOptions(capacities=True))
    assert f"capacities/{SUB}/OpenAI-gpt-4o-2024-11-20.json" in asked.reference
    assert asked.calls.made == asked.calls.floor


def test_two_reads_of_an_unchanged_cloud_agree_whatever_the_order_of_answers() -> None:
    first = written(taken(estate(shuffle=1)))
    for seed in range(2, 8):
        assert written(taken(estate(shuffle=seed), options=replace(QUIET, threads=seed))) == first


def test_a_change_in_the_cloud_changes_what_is_written() -> None:
    changed = estate()
    changed.listings[f"{account_id('One')}/deployments".lower()][0]["sku"] = {"capacity": 3}
    assert written(taken(changed)) != written(taken(estate()))


def test_the_calls_made_are_the_floor() -> None:
    cloud = estate()
    options = TakeOptions(reference=True, reference_regions=("eastus2",))
    calls = taken(cloud, options=options).calls
    assert calls.made == calls.floor == len(cloud.asked)
    # Counted by hand: groups, accounts, role assignments and locks once; account One (OpenAI, no
    # projects): deployments, 3 of content safety, encryption scopes, Defender, commitment plans,
    # diagnostics = 8, and 5 of its data; account Two (Speech): encryption scopes, commitment
    # plans, diagnostics; one blocklist, one finished job, two contents; models and usages of two
    # regions; skus.
    assert calls.made == 4 + (8 + 5) + 3 + 1 + 1 + 2 + 2 * 2 + 1
    assert set(cloud.times.values()) == {1}


def test_nothing_is_asked_that_an_account_cannot_have() -> None:
    cloud = CannedCloud({ACCOUNTS: [account("Speech", kind="SpeechServices"), account("Plain")]})
    taken(cloud)
    asked = [path for _, path in cloud.asked]
    assert not [path for path in asked if "/Speech/deployments" in path or "/projects" in path]
    assert [path for path in asked if "/Plain/deployments" in path]


def test_what_lies_in_a_foundry_account_is_found() -> None:
    one, endpoint = account_id("One"), "https://one.services.ai.azure.com/api/projects/prj"
    project = child(one, "projects", "One/Prj", endpoints={"AI Foundry API": endpoint + "/"})
    project["id"] = f"{one}/projects/Prj"
    listings: dict[str, list[JsonObject]] = {
        GROUPS: [group()],
        ACCOUNTS: [account(kind="AIServices", projects=True)],
        f"{one}/projects": [project],
        f"{one}/projects/Prj/connections": [child(f"{one}/projects/Prj", "connections", "c")],
        f"{one}/managedNetworks": [child(one, "managedNetworks", "default")],
        f"{one}/managedNetworks/default/outboundRules": [
            child(f"{one}/managedNetworks/default", "outboundRules", "r", type="FQDN")
        ],
        f"{endpoint}/agents": [
            {"id": "a", "name": "Bot", "versions": {"latest": {"version": "2"}}}
        ],
        f"{endpoint}/agents/Bot/versions": [
            {"version": n, "definition": {"model": "chat"}} for n in ("2", "1")
        ],
        f"{endpoint}/threads": [{"id": "thread_1"}],
    }
    cloud = CannedCloud(listings)
    snapshot = taken(cloud)
    assert not snapshot.gaps
    assert snapshot.calls.made == snapshot.calls.floor
    path = (SUB, "rg-ai", "one")
    bot = snapshot.resources[Key("agent", (*path, "prj", "Bot"))]
    assert [v["version"] for v in bot.body["versions"]] == ["1", "2"]  # type: ignore[index, union-attr, call-overload]
    assert snapshot.resources[Key("project", (*path, "prj"))].body["name"] == "Prj"
    assert Key("project-connection", (*path, "prj", "c")) in snapshot.resources
    assert Key("outbound-rule", (*path, "default", "r")) in snapshot.resources
    assert not [p for _, p in cloud.asked if "threads" in p], "conversations are off by default"
    talk = taken(CannedCloud(listings), options=replace(QUIET, conversations=True))
    assert Key("thread", (*path, "prj", "thread_1")) in talk.resources


@pytest.mark.parametrize(
    ("scope", "accounts", "groups"),
    [
        (Scope(SUB), ["one", "two"], ["rg-ai", "rg-other"]),
        (Scope(SUB.upper(), ("Rg-Ai",)), ["one"], ["rg-ai"]),
        (Scope(SUB, accounts=("TWO",)), ["two"], ["rg-other"]),
        (Scope(SUB, regions=("East US",)), ["two"], ["rg-ai", "rg-other"]),
        (Scope(SUB, ("rg-ai",), ("two",)), [], ["rg-ai"]),
        (Scope("00000000-0000-0000-0000-000000000009"), [], []),
    ],
)
def test_only_what_is_in_scope_is_read(
    scope: Scope, accounts: list[str], groups: list[str]
) -> None:
    def assignment(at: str, name: str) -> JsonObject:
        id_ = f"{at}/providers/Microsoft.Authorization/roleAssignments/{name}"
        return {"id": id_, "name": name, "properties": {"scope": at, "principalId": "p"}}

    storage = f"/subscriptions/{SUB}/resourceGroups/rg-ai/providers/Microsoft.Storage/x/y"
    cloud = CannedCloud(
        {
            GROUPS: [group(), group("rg-other")],
            ACCOUNTS: [account(), account("Two", "rg-other", region="eastus")],
            f"{AUTH}/roleAssignments": [
                assignment(account_id("One"), "on-one"),
                assignment(account_id("Two", "rg-other"), "on-two"),
                assignment(f"/subscriptions/{SUB}", "on-subscription"),
                assignment(f"/subscriptions/{SUB}/resourceGroups/rg-ai", "on-group"),
                assignment("/", "on-tenant"),
                assignment("/providers/Microsoft.Management/managementGroups/m", "on-company"),
                assignment(storage, "on-storage"),
            ],
        }
    )
    snapshot = taken(cloud, scope)
    assert [key.name for key in snapshot.resources if key.kind == "account"] == accounts
    assert [key.name for key in snapshot.resources if key.kind == "resource-group"] == groups
    expected = {f"on-{name}" for name in accounts}
    if scope.subscription == SUB:
        expected.add("on-subscription")
    if "rg-ai" in groups:
        expected |= {"on-group", "on-storage"}
    assert {k.name for k in snapshot.resources if k.kind == "role-assignment"} == expected
    asked = " ".join(path for _, path in cloud.asked)
    assert ("/one/" in asked.lower()) == ("one" in accounts), "what is out of scope costs a call"


def test_a_scope_without_subscription_is_refused() -> None:
    with pytest.raises(InputError, match="subscription"):
        Scope(" ")
    with pytest.raises(InputError, match="no scope"):
        take("e", (), CannedCloud(), fingerprints=PRINTS, clock=FrozenClock(), version="t")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (DeniedError("no", status=403, code="AuthorizationFailed"), GapReason.DENIED),
        (UnreachableError("no answer"), GapReason.UNREACHABLE),
        (CloudError("broken", status=500), GapReason.FAILED),
        (CloudError("what?", status=400, code="NoRegisteredProviderFound"), GapReason.UNSUPPORTED),
        (MissingError("nope", status=404, code="InvalidResourceType"), GapReason.UNSUPPORTED),
    ],
)
def test_a_failed_listing_is_a_gap_and_the_rest_is_read(
    error: CloudError, reason: GapReason
) -> None:
    cloud = estate()
    cloud.errors[f"{account_id('One')}/raiblocklists".lower()] = error
    snapshot = taken(cloud)
    (gap,) = snapshot.gaps
    assert (gap.reason, gap.listing, gap.hides) == (reason, True, ("rai-blocklist",))
    hidden = Key("rai-blocklist", (SUB, "rg-ai", "one", "words"))
    assert snapshot.hidden(hidden) is gap
    whole = taken(estate())
    assert set(whole.resources) - set(snapshot.resources) == {hidden}
    assert gap.status == error.status or reason is GapReason.UNREACHABLE


def test_without_the_list_of_accounts_everything_below_is_hidden() -> None:
    cloud = estate()
    cloud.errors[ACCOUNTS.lower()] = DeniedError("no", status=403)
    snapshot = taken(cloud)
    (gap,) = snapshot.gaps
    assert set(gap.hides) == set(descendants("account")) - {"thread"}
    for key in taken(estate()).resources:
        assert key in snapshot.resources or snapshot.hidden(key), key


def test_with_the_accounts_unread_nothing_that_hangs_on_them_counts_as_absent() -> None:
    id_ = f"{account_id('One')}/providers/Microsoft.Authorization/locks/l"
    listings: dict[str, list[JsonObject]] = {
        GROUPS: [group()],
        ACCOUNTS: [account()],
        f"{AUTH}/locks": [{"id": id_, "name": "l", "properties": {"level": "CanNotDelete"}}],
    }
    scope = Scope(SUB, regions=("swedencentral",))
    whole = taken(CannedCloud(listings), scope)
    broken = CannedCloud(listings)
    broken.errors[ACCOUNTS.lower()] = CloudError("broken", status=500)
    snapshot = taken(broken, scope)
    lock = Key("lock", (SUB, "rg-ai", "one", "l"))
    assert lock in whole.resources
    assert snapshot.hidden(lock)


def test_a_gap_says_nothing_secret() -> None:
    cloud = estate()
    secret = "sk-thisisaverysecretkeyindeed123"
    cloud.errors[f"{ENDPOINT}/x"] = CloudError("x")
    cloud.errors[f"{account_id('One')}/deployments".lower()] = CloudError(f"key {secret} refused")
    assert secret not in str(taken(cloud).gaps[0].document())


def test_a_region_that_is_down_is_said_once_per_account_and_the_rest_is_read() -> None:
    cloud = CannedCloud(
        {ACCOUNTS: [account(), account("Two", region="eastus2")], GROUPS: [group()]}
    )

    def down(place: object, _path: str) -> None:
        if getattr(place, "region", "") == "swedencentral":
            raise RegionDownError("region swedencentral is declared down: drill")

    cloud.on = down
    snapshot = taken(cloud, options=TakeOptions())
    listings = [gap for gap in snapshot.gaps if "reference" not in gap.key.kind]
    assert [gap.key.path for gap in listings] == [(SUB, "rg-ai", "one")]
    assert listings[0].reason is GapReason.REGION_DOWN
    assert set(listings[0].hides) == set(descendants("account")) - {
        "account", "private-endpoint-connection", "thread", "managed-network", "outbound-rule",
        "project", "account-connection", "account-capability-host", "project-connection",
        "project-capability-host", "project-file", "project-vector-store", "agent",
    }  # fmt: skip
    assert Key("account", (SUB, "rg-ai", "two")) in snapshot.resources
    (reference,) = [gap for gap in snapshot.gaps if gap not in listings]
    assert reference.hides == ("reference-models", "reference-usages")


def test_a_silent_endpoint_is_not_asked_over_and_over() -> None:
    cloud = estate()

    def silent(place: object, _path: str) -> None:
        if getattr(place, "base", ""):
            raise UnreachableError("no answer: timed out")

    cloud.on = silent
    snapshot = taken(cloud, options=replace(QUIET, threads=1))
    assert len([1 for place, _ in cloud.asked if place.base]) == 1
    (gap,) = snapshot.gaps
    assert gap.detail == "no answer: timed out"
    assert set(gap.hides) == {
        "file", "fine-tuning-job", "fine-tuned-model", "vector-store", "assistant"
    }  # fmt: skip


def test_an_account_deleted_while_we_read_is_not_there_and_no_gap() -> None:
    cloud = estate()
    one = account_id("One").lower()

    def vanish(_place: object, path: str) -> None:
        if path == f"{one}/raipolicies":
            cloud.listings[ACCOUNTS.lower()] = [
                a for a in cloud.listings[ACCOUNTS.lower()] if a["name"] != "One"
            ]
            raise MissingError("gone", status=404, code="ParentResourceNotFound")

    cloud.on = vanish
    snapshot = taken(cloud)
    assert not snapshot.gaps
    assert not [key for key in snapshot.resources if "one" in key.path]
    assert cloud.times[ACCOUNTS.lower()] == 2, "a doubt is settled by one second look"
    assert Key("account", (SUB, "rg-other", "two")) in snapshot.resources


def test_a_404_on_an_account_that_is_still_there_is_a_gap() -> None:
    cloud = estate()
    cloud.errors[f"{account_id('One')}/raipolicies".lower()] = MissingError(
        "gone?", status=404, code="ResourceNotFound"
    )
    snapshot = taken(cloud)
    (gap,) = snapshot.gaps
    assert (gap.reason, gap.hides) == (GapReason.FAILED, ("rai-policy",))
    assert Key("account", (SUB, "rg-ai", "one")) in snapshot.resources


def test_a_project_whose_account_vanished_goes_with_it() -> None:
    one = account_id("One")
    project = child(one, "projects", "prj", endpoints={})
    cloud = CannedCloud(
        {
            GROUPS: [group()],
            ACCOUNTS: [account(kind="AIServices", projects=True)],
            f"{one}/projects": [project],
        }
    )

    def vanish(_place: object, path: str) -> None:
        if path == f"{one}/projects/prj/connections".lower():
            cloud.listings[ACCOUNTS.lower()] = []
            cloud.errors[f"{one}/projects".lower()] = MissingError(
                "no", status=404, code="ParentResourceNotFound"
            )
            raise MissingError("no", status=404, code="ResourceNotFound")

    cloud.on = vanish
    snapshot = taken(cloud)
    assert ([key.kind for key in snapshot.resources], snapshot.gaps) == (["resource-group"], ())


def test_a_file_deleted_before_its_content_was_read_is_not_there() -> None:
    cloud = estate()
    files = f"{ENDPOINT}/openai/v1/files"

    def delete(_place: object, path: str) -> None:
        if path.endswith("/file-2/content"):
            cloud.listings[files] = [f for f in cloud.listings[files] if f["id"] != "file-2"]
            del cloud.contents[f"{files}/file-2/content"]

    cloud.on = delete
    snapshot = taken(cloud)
    assert not snapshot.gaps
    assert [key.rsplit("/", 1)[-1] for key in keys(snapshot, "file")] == ["kb.pdf", "train.jsonl"]


def test_a_content_that_is_missing_while_its_file_is_there_is_a_gap() -> None:
    cloud = estate()
    del cloud.contents[f"{ENDPOINT}/openai/v1/files/file-2/content"]
    (gap,) = taken(cloud).gaps
    assert (str(gap.key), gap.status) == (f"file/{SUB}/rg-ai/one/train.jsonl~2", 404)


def test_a_content_that_cannot_be_read_is_a_gap_of_that_file_alone() -> None:
    cloud = estate()
    cloud.errors["/openai/v1/files/file-1/content"] = CloudError("broken", status=500)
    snapshot = taken(cloud)
    (gap,) = snapshot.gaps
    assert (str(gap.key), gap.listing) == (f"file/{SUB}/rg-ai/one/train.jsonl", False)
    assert gap.key not in snapshot.resources
    assert len(keys(snapshot, "file")) == 2


def test_a_known_file_is_not_fetched_again() -> None:
    vault = KeptPayloads()
    first = taken(estate(), payloads=vault)
    again = estate()
    second = taken(again, payloads=vault, previous=first)
    assert not [path for _, path in again.asked if path.endswith("/content")]
    assert second.calls.made == second.calls.floor == first.calls.made - 2
    assert written(second) == written(first)
    train = first.resources[Key("file", (SUB, "rg-ai", "one", "train.jsonl"))]
    assert vault.kept[train.payloads[0].sha256] == b"0123456789"


def test_a_file_that_the_vault_lost_or_that_is_another_is_fetched() -> None:
    vault = KeptPayloads()
    first = taken(estate(), payloads=vault)
    lost = estate()
    taken(lost, payloads=KeptPayloads(), previous=first)
    assert len([path for _, path in lost.asked if path.endswith("/content")]) == 2
    other = estate()
    files = other.listings[f"{ENDPOINT}/openai/v1/files"]
    files[0]["id"] = "file-9"
    other.contents[f"{ENDPOINT}/openai/v1/files/file-9/content"] = b"x" * 20
    taken(other, payloads=vault, previous=first)
    assert [p for _, p in other.asked if p.endswith("/content")] == [
        "/openai/v1/files/file-9/content"
    ]


def test_a_file_that_azure_does_not_give_back_is_recorded_as_lost_and_no_gap() -> None:
    snapshot = taken(estate())
    kb = snapshot.resources[Key("file", (SUB, "rg-ai", "one", "kb.pdf"))]
    train = snapshot.resources[Key("file", (SUB, "rg-ai", "one", "train.jsonl"))]
    assert kb.payloads == ()
    assert BY_NAME["file"].recovery(kb).recovery.value == "lost"
    assert BY_NAME["file"].recovery(train).recovery.value == "recreated"


def test_progress_is_told_and_reaches_its_total() -> None:
    told: list[Progress] = []
    take(
        "e",
        (Scope(SUB),),
        estate(),
        fingerprints=PRINTS,
        clock=FrozenClock(),
        version="t",
        payloads=KeptPayloads(),
        progress=told.append,
    )
    last = {event.kind: event for event in told}
    assert all(event.done == event.total for event in last.values())
    assert told[-1].calls > 0
    assert {"account", "deployment", "file", "reference-models"} <= set(last)


def test_the_calls_of_a_snapshot_are_its_own() -> None:
    cloud = estate()
    first, second = taken(cloud).calls, taken(cloud).calls
    assert (first.made, first.floor, first.by_kind) == (second.made, second.floor, second.by_kind)


class OneWaits(CannedCloud):
    """A cloud in which one subscription answers only after another one has: its bucket is empty."""

    def __init__(self, waits: str) -> None:
        super().__init__({})
        self.waits = waits
        self.others = Event()

    def list(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str],
        kind: str,
        items: str,
        cursor: Cursor,
    ) -> Iterator[JsonObject]:
        if place.subscription != self.waits:
            self.others.set()
        elif not self.others.wait(20):
            raise UnreachableError("nobody else was asked meanwhile")
        return super().list(place, path, params=params, kind=kind, items=items, cursor=cursor)


@pytest.mark.parametrize("waits", [SUB, SUB.replace("1", "2")])
def test_a_subscription_that_waits_for_its_budget_does_not_hold_up_the_others(waits: str) -> None:
    scopes = (Scope(SUB), Scope(SUB.replace("1", "2")))
    two = TakeOptions(reference=False, threads=2)
    snapshot = taken(OneWaits(waits), *scopes, options=two)
    assert not [gap for gap in snapshot.gaps if gap.reason is GapReason.UNREACHABLE]


DESK = "https://one.services.ai.azure.com/api/projects/desk"


def with_project(*, in_account: bool = False) -> CannedCloud:
    """A Foundry account with one project; `in_account`: the account lists what the project has."""
    one = account_id("One")
    project = child(one, "projects", "desk", endpoints={"AI Foundry API": DESK})
    files = [file("file-p", "cases.jsonl", 5, 1, "batch"), file("file-q", "policy.md", 9, 2, "x")]
    store: JsonObject = {"id": "vs_1", "name": "knowledge", "created_at": 3}
    held: list[JsonObject] = [{"id": "file-p", "object": "vector_store.file"}]
    tools = [{"type": "file_search", "vector_store_ids": ["vs_1"]}]
    agent: JsonObject = {"id": "clerk", "name": "clerk", "object": "agent"}
    version = {"version": "1", "definition": {"kind": "prompt", "model": "chat", "tools": tools}}
    planes = [f"{DESK}/openai/v1", *([f"{ENDPOINT}/openai/v1"] if in_account else [])]
    cloud = CannedCloud(
        {
            GROUPS: [group()],
            ACCOUNTS: [account(kind="AIServices", projects=True)],
            f"{one}/projects": [project],
            f"{DESK}/agents": [agent],
            f"{DESK}/agents/clerk/versions": [version],  # type: ignore[list-item]
            **{f"{plane}/files": files for plane in planes},
            **{f"{plane}/vector_stores": [store] for plane in planes},
            **{f"{plane}/vector_stores/vs_1/files": held for plane in planes},
        },
        {f"{plane}/files/file-p/content": b"12345" for plane in planes},
    )
    rule = "Azure refuses the request (400): Not allowed to download files of purpose: x"
    cloud.errors["/openai/v1/files/file-q/content"] = CloudError(rule, status=400)
    return cloud


def test_the_data_of_a_project_is_read_where_there_is_a_project_and_counts_in_the_floor() -> None:
    snapshot = taken(with_project())
    desk = f"{SUB}/rg-ai/one/desk"
    assert not snapshot.gaps
    assert keys(snapshot, "project-file") == [
        f"project-file/{desk}/cases.jsonl",
        f"project-file/{desk}/policy.md",
    ]
    assert keys(snapshot, "project-vector-store") == [f"project-vector-store/{desk}/knowledge"]
    assert snapshot.calls.made == snapshot.calls.floor
    cloud = with_project()
    cloud.listings[ACCOUNTS.lower()] = [account(kind="AIServices")]  # no projects there
    assert not [path for place, path in (taken(cloud), cloud)[1].asked if DESK in place.base]


def test_a_file_that_azure_never_gives_back_is_recorded_without_bytes_and_is_no_gap() -> None:
    snapshot = taken(with_project())
    kept = snapshot.resources[Key("project-file", (SUB, "rg-ai", "one", "desk", "policy.md"))]
    assert not kept.payloads
    assert BY_NAME["project-file"].recovery(kept).recovery is Recovery.LOST
    other = snapshot.resources[Key("project-file", (SUB, "rg-ai", "one", "desk", "cases.jsonl"))]
    assert BY_NAME["project-file"].recovery(other).recovery is Recovery.RECREATED
    broken = with_project()  # the control: another refusal is not that rule
    broken.errors["/openai/v1/files/file-q/content"] = CloudError("Azure refuses it", status=400)
    assert [gap.key.name for gap in taken(broken).gaps] == ["policy.md"]


# What is asked by name when no list shows it: a group, an account, and what lies in that.
IN_GROUP = f"/subscriptions/{SUB}/resourcegroups/rg-ai"


@pytest.mark.parametrize(
    ("listed", "asked"),
    [
        ({GROUPS: []}, IN_GROUP),
        ({GROUPS: [group("Empty")]}, IN_GROUP),
        ({ACCOUNTS: []}, account_id("One")),
    ],
    ids=["no group", "fewer groups", "no account"],
)
@pytest.mark.parametrize("earlier", [True, False], ids=["known before", "first snapshot"])
def test_a_list_that_azure_cuts_short_is_a_gap_and_only_a_404_a_removal(
    listed: dict[str, list[JsonObject]], asked: str, earlier: bool
) -> None:
    one = account_id("One")
    listings = {
        GROUPS: [group(), group("Empty")],
        ACCOUNTS: [account()],
        f"{one}/deployments": [child(one, "deployments", "chat")],
    }
    whole = taken(CannedCloud(listings), confirm=True)
    assert not whole.gaps
    assert whole.calls.made == whole.calls.floor
    previous = whole if earlier else None
    denied = CannedCloud({**listings, **listed})
    denied.errors[asked.lower()] = DeniedError("Azure denies it (403)", status=403)
    cut = taken(denied, previous=previous, confirm=True)
    assert cut.calls.made == cut.calls.floor
    if not earlier and ACCOUNTS in listed:  # nothing tells of it
        assert not cut.gaps
        return
    (gap,) = cut.gaps
    assert (gap.reason, gap.status, gap.listing) == (GapReason.DENIED, 403, True)
    assert "asked for by name" in gap.detail
    lost = {key for key in whole.resources if key not in cut.resources}
    assert all(gap.covers(key) for key in lost if key != Key("resource-group", (SUB, "empty")))
    assert not gap.covers(Key("account", (SUB, "rg-ai", "two")))
    # The controls: Azure says that it went, or the lists are believed as they are.
    gone = CannedCloud({**listings, **listed})
    gone.errors[asked.lower()] = MissingError("not found", status=404, code="ResourceNotFound")
    assert not taken(gone, previous=previous, confirm=True).gaps
    assert not taken(denied, previous=previous).gaps


def test_what_is_there_by_name_and_in_no_list_is_a_gap_unless_it_left_the_scope() -> None:
    whole = taken(CannedCloud({GROUPS: [group()], ACCOUNTS: [account()]}))
    moved = CannedCloud({GROUPS: [group()], "elsewhere": [account(region="eastus")]})
    (gap,) = taken(moved, previous=whole, confirm=True).gaps
    assert gap.covers(Key("account", (SUB, "rg-ai", "one")))
    assert "Azure shows it" in gap.detail
    here = Scope(SUB, regions=("swedencentral",))  # where it was
    assert not taken(moved, here, previous=whole, confirm=True).gaps
    for other in (Scope(SUB, accounts=("two",)), Scope(SUB, resource_groups=("rg-x",))):
        asked = CannedCloud({GROUPS: [group()], "elsewhere": [account()]})
        assert not taken(asked, other, previous=whole, confirm=True).gaps
        assert not [path for _, path in asked.asked if path.lower() == account_id("One").lower()]


def test_what_account_and_project_both_list_is_there_once_and_downloaded_once() -> None:
    payloads = KeptPayloads()
    snapshot = taken(with_project(in_account=True), payloads=payloads)
    assert not keys(snapshot, "project-file")
    assert not keys(snapshot, "project-vector-store")
    assert len(keys(snapshot, "file")) == 2
    store = Key("vector-store", (SUB, "rg-ai", "one", "knowledge"))
    agent = Key("agent", (SUB, "rg-ai", "one", "desk", "clerk"))
    assert store in Links(snapshot.resources).origins(agent)
    again = with_project(in_account=True)
    assert written(taken(again, previous=snapshot, payloads=payloads)) == written(snapshot)
    assert not [path for _, path in again.asked if path.endswith("file-p/content")]
    # The account's listing fails: what it held is behind its gap, and not new in the project.
    hidden = with_project(in_account=True)
    hidden.on = failing(f"{ENDPOINT}/openai/v1/files")
    later = taken(hidden, previous=snapshot, payloads=payloads)
    assert not keys(later, "file")
    assert not keys(later, "project-file")
    assert later.hidden(Key("file", (SUB, "rg-ai", "one", "cases.jsonl")))


def failing(url: str) -> Callable[[Place, str], None]:
    def on(place: Place, path: str) -> None:
        if place.base + path == url:
            raise CloudError("Azure failed (500)", status=500)

    return on


def test_what_a_projects_file_reached_is_found_along_store_and_agent() -> None:
    found = Links(taken(with_project()).resources)
    path = (SUB, "rg-ai", "one", "desk")
    store, agent = Key("project-vector-store", (*path, "knowledge")), Key("agent", (*path, "clerk"))
    assert found.reached(Key("project-file", (*path, "cases.jsonl"))) == (store, agent)


@pytest.mark.parametrize("code", ["MissingSubscriptionRegistration", "SubscriptionNotRegistered"])
def test_accounts_that_were_there_do_not_become_absent_by_an_error_code(code: str) -> None:
    cloud = estate()
    before = taken(cloud)
    cloud.errors[ACCOUNTS.lower()] = CloudError("not registered", status=409, code=code)
    after = taken(cloud, previous=before)
    assert [gap.reason for gap in after.gaps] == [GapReason.UNSUPPORTED]
    assert not {key for key in before.resources if key.kind == "account" and not after.hidden(key)}
    # Where there never were any, the code says what it says.
    assert not taken(cloud).gaps
    assert not taken(cloud, previous=taken(CannedCloud({GROUPS: [group()]}))).gaps


def test_a_secret_in_the_name_of_a_file_or_store_goes_nowhere() -> None:
    secret = "sk-thisisaverysecretkeyindeed123"
    v1 = f"{ENDPOINT}/openai/v1"
    named: JsonObject = {"id": "vs_1", "name": f"kb sig={secret}", "file_counts": {"total": 0}}
    cloud = CannedCloud(
        {
            GROUPS: [group()],
            ACCOUNTS: [account()],
            f"{v1}/files": [file("file-1", f"{secret}.jsonl", 5, 1, "batch")],
            f"{v1}/vector_stores": [named],
        }
    )  # the file's content is not there: a gap
    snapshot = taken(cloud)
    assert [key.kind for key in snapshot.resources if key.kind == "vector-store"]
    assert snapshot.gaps or keys(snapshot, "file")
    assert secret.encode() not in written(snapshot)
    cloud.errors["/openai/v1/files/file-1/content"] = CloudError("Azure failed", status=500)
    broken = taken(cloud)
    assert [gap.key.kind for gap in broken.gaps] == ["file"]
    assert secret.encode() not in written(broken)
    # Two such names stay two things, and the same from one snapshot to the next.
    cloud.listings[f"{v1}/files".lower()].append(file("file-2", f"{secret}4.jsonl", 5, 2, "x"))
    assert keys(taken(cloud)) == keys(taken(cloud))
