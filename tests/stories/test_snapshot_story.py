"""A snapshot of a living estate, over HTTPS: complete, quiet, cheap, and honest when it is not."""

from __future__ import annotations

import base64
import os
import random
import re
import sys
import uuid
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from azure.identity import ClientSecretCredential

from snapshots.cloud import Cloud, Limits, Place, Plane, open_cloud
from snapshots.errors import CloudError
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Way
from snapshots.model import GapReason, JsonObject, Key, Snapshot, canonical
from snapshots.secrets import Fingerprints
from snapshots.take import Scope, TakeOptions, take
from tests.canned_cloud import FrozenClock, KeptPayloads
from tests.sandbox_fixtures import RunningSandbox

PRINTS = Fingerprints(b"a key of at least sixteen bytes")
QUICK = Limits(connect=2, read=5, patience=20, attempts=25, backoff=0.005, backoff_cap=0.05)
IMPATIENT = Limits(connect=1, read=1, patience=2, attempts=2, backoff=0.01, backoff_cap=0.02)


def cloud_of(sandbox: RunningSandbox, name: str = "muster", limits: Limits = QUICK) -> Cloud:
    found = sandbox.principal(name)
    credential = ClientSecretCredential(
        sandbox.tenant,
        found["client_id"],
        found["secret"],
        authority=sandbox.url,
        disable_instance_discovery=True,
        connection_verify=sandbox.ca,
    )
    return open_cloud(
        environment=sandbox.url,
        tenant=sandbox.tenant,
        credential=credential,
        ca_file=sandbox.ca,
        limits=limits,
    )


def taken(
    sandbox: RunningSandbox,
    cloud: Cloud | None = None,
    *,
    payloads: KeptPayloads | None = None,
    previous: Snapshot | None = None,
    threads: int = 8,
) -> Snapshot:
    return take(
        "demo",
        [Scope(subscription) for subscription in sandbox.subscriptions],
        cloud or cloud_of(sandbox),
        fingerprints=PRINTS,
        clock=FrozenClock(),
        version="story",
        payloads=payloads if payloads is not None else KeptPayloads(),
        previous=previous,
        options=TakeOptions(threads=threads),
    )


def documents(snapshot: Snapshot) -> dict[str, bytes]:
    return {str(key): canonical(found.document()) for key, found in snapshot.resources.items()}


def written(snapshot: Snapshot) -> bytes:
    gaps = [gap.document() for gap in snapshot.gaps]
    return canonical([documents_text(snapshot), gaps, dict(snapshot.reference)])


def documents_text(snapshot: Snapshot) -> list[str]:
    return [document.decode() for document in documents(snapshot).values()]


def differing(before: Snapshot, after: Snapshot) -> set[str]:
    old, new = documents(before), documents(after)
    return {key for key in old.keys() | new.keys() if old.get(key) != new.get(key)}


def is_read(entry: dict[str, object]) -> bool:
    """Whether a request of the journal read state: not a token, not the cloud's own metadata."""
    path = str(entry["path"])
    return entry["method"] == "GET" and ("/subscriptions/" in path or "/dp/" in path)


@pytest.fixture
def demo(sandbox: RunningSandbox) -> Iterator[RunningSandbox]:
    """The demo estate; what a test sets is set back for the next."""
    yield sandbox
    sandbox.control("DELETE", "faults")


def test_everything_is_read_at_the_least_number_of_calls(demo: RunningSandbox) -> None:
    cloud = cloud_of(demo)
    demo.control("DELETE", "journal")
    snapshot = taken(demo, cloud)
    assert not snapshot.gaps
    asked = [entry for entry in demo.journal() if is_read(entry)]
    assert len(asked) == snapshot.calls.made, "the other side counted otherwise"
    assert len({entry["path"] for entry in asked}) == len(asked), "something was asked twice"
    sys.stdout.write(f"calls {snapshot.calls.made}, floor {snapshot.calls.floor}\n")
    assert snapshot.calls.made == snapshot.calls.floor
    assert (snapshot.calls.retried, snapshot.calls.throttled) == (0, 0)
    kinds = {key.kind for key in snapshot.resources}
    assert kinds >= {"account", "deployment", "rai-policy", "rai-blocklist", "project", "file"}


def test_an_unchanged_estate_gives_the_same_bytes_however_it_is_shown(
    demo: RunningSandbox,
) -> None:
    vault = KeptPayloads()
    first = taken(demo, payloads=vault)
    kept = dict(vault.kept)
    for shown in (
        {"shuffle": True},
        {"page_size": 5, "relative_next": True, "empty_pages": True},
    ):
        demo.control("PUT", "settings", shown)
        second = taken(demo, payloads=vault, previous=first, threads=3)
        demo.control("PUT", "settings", dict.fromkeys(shown, False) | {"page_size": 0})
        assert differing(first, second) == set(), shown
        assert written(second) == written(first), shown
    assert vault.kept == kept, "a payload was fetched again"


def test_no_canary_leaves(demo: RunningSandbox) -> None:
    vault = KeptPayloads()
    snapshot = taken(demo, payloads=vault)
    everything = written(snapshot).decode()
    canaries = set(re.findall(r"canary-[a-z0-9-]+", str(demo.control("GET", "dump"))))
    assert canaries, "the demo estate has secrets to look for"
    for canary in canaries:
        forms = (canary, quote(canary, safe=""), base64.b64encode(canary.encode()).decode())
        assert not [form for form in forms if form in everything], canary
        assert not [data for data in vault.kept.values() if canary.encode() in data], canary


def test_changes_of_somebody_else_are_exactly_what_differs(demo: RunningSandbox) -> None:
    before = taken(demo)
    random_ = random.Random(7)
    choice = [
        resource
        for key, resource in before.resources.items()
        if key.kind in {"account", "rai-blocklist", "deployment"}
    ]
    expected: set[str] = set()
    for resource in random_.sample(choice, 6):
        kind = BY_NAME[resource.key.kind]
        body = kind.write_shape(resource.body) | {"tags": {"touched": uuid.uuid4().hex[:6]}}
        answer = demo.call(
            "PUT", f"{resource.id}?api-version={kind.api_version}", body, name="platform-owner"
        )
        assert answer.status_code < 300, answer.text
        expected.add(str(resource.key))
    gone = next(r for k, r in before.resources.items() if k.kind == "lock")
    demo.call("DELETE", f"{gone.id}?api-version=2020-05-01", name="platform-owner")
    expected.add(str(gone.key))
    demo.control("POST", "clock", {"advance": 600})
    assert differing(before, taken(demo)) == expected


def test_what_is_written_back_reads_the_same(demo: RunningSandbox) -> None:
    before = taken(demo)
    cloud = cloud_of(demo, "platform-owner")
    tried: set[str] = set()
    for resource in before.resources.values():
        kind = BY_NAME[resource.key.kind]
        # A lock forbids nothing here, and connections need a secret that no snapshot has.
        if (
            kind.plane is not Plane.ARM
            or kind.way is not Way.PUT
            or not kind.writable(resource.body)
        ):
            continue
        if resource.key.kind.endswith("connection") and "AAD" not in str(resource.body):
            continue
        if resource.key.kind in {"role-assignment", "lock"}:
            continue  # a role assignment cannot be written twice: RoleAssignmentUpdateNotPermitted
        place = Place(Plane.ARM, "", resource.key.path[0])
        version = {"api-version": kind.api_version or "2025-12-01"}
        cloud.put(place, resource.id, kind.write_shape(resource.body), params=version, kind="test")
        tried.add(resource.key.kind)
    demo.control("POST", "clock", {"advance": 600})
    assert differing(before, taken(demo)) == set()
    assert tried >= {"account", "deployment", "rai-policy", "rai-blocklist", "project"}


@pytest.mark.parametrize("mode", ["503", "refused"])
def test_a_region_that_is_out_leaves_the_rest(demo: RunningSandbox, mode: str) -> None:
    whole = taken(demo)
    demo.control("POST", "faults", {"kind": "outage", "mode": mode, "region": "swedencentral"})
    snapshot = taken(demo, cloud_of(demo, limits=IMPATIENT))
    assert snapshot.gaps
    lost = set(whole.resources) - set(snapshot.resources)
    assert lost
    for key in lost:
        assert snapshot.hidden(key), f"{key} would count as deleted"
    kept = [key for key in snapshot.resources if key.kind == "deployment"]
    assert kept, "the other regions are read"
    accounts = {
        k.path: r.body["location"] for k, r in snapshot.resources.items() if k.kind == "account"
    }
    assert not [key for key in kept if accounts[key.path[:3]] == "swedencentral"]


def test_a_region_that_is_declared_down_is_not_called(demo: RunningSandbox) -> None:
    cloud = cloud_of(demo)
    cloud.regions.declare_down("swedencentral", "drill")
    demo.control("DELETE", "journal")
    snapshot = taken(demo, cloud)
    assert {gap.reason for gap in snapshot.gaps} == {GapReason.REGION_DOWN}
    assert not [entry for entry in demo.journal() if entry.get("region") == "swedencentral"]
    assert {k.kind for k in snapshot.resources} >= {"account", "deployment"}


def test_who_may_not_read_is_told_so_and_nothing_counts_as_deleted(demo: RunningSandbox) -> None:
    whole, blind = taken(demo), taken(demo, cloud_of(demo, "stranger"))
    assert blind.gaps
    for key in whole.resources:
        assert key in blind.resources or blind.hidden(key), key


def test_through_a_storm_of_faults_it_is_complete_or_says_what_is_missing(
    demo: RunningSandbox,
) -> None:
    whole = taken(demo)
    for fault in (
        {"kind": "throttle", "rate": 0.1, "retry_after": 0},
        {"kind": "error", "status": 500, "rate": 0.1},
        {"kind": "damage", "mode": "cut", "rate": 0.1},
    ):
        demo.control("POST", "faults", fault)
    stormy = taken(demo, cloud_of(demo))
    changed = differing(whole, stormy)
    assert all(stormy.hidden(Key.parse(key)) for key in changed)
    assert stormy.calls.retried > 0, "the storm did not blow"
    assert not stormy.gaps or changed


@pytest.mark.azure_verified
def test_a_real_subscription_reads_the_same_twice_and_what_is_written_back_reads_the_same() -> None:
    """Makes one resource group with a free account, a filter and a blocklist, and purges it.

    MUSTER_AZURE_VERIFIED=1, MUSTER_TEST_SUBSCRIPTION, and the variables of azure-identity.
    Cost guard: nothing with a capacity is made; MUSTER_TEST_LOCATION is swedencentral by default.
    """
    subscription = os.environ.get("MUSTER_TEST_SUBSCRIPTION", "")
    if not subscription or not os.environ.get("MUSTER_AZURE_VERIFIED"):
        pytest.skip("needs MUSTER_AZURE_VERIFIED=1 and MUSTER_TEST_SUBSCRIPTION")
    region = os.environ.get("MUSTER_TEST_LOCATION", "swedencentral")
    name = f"muster-contract-{uuid.uuid4().hex[:8]}"
    cloud, place = open_cloud(), Place(Plane.ARM, "", subscription)
    group = f"/subscriptions/{subscription}/resourceGroups/{name}"
    account = f"{group}/providers/Microsoft.CognitiveServices/accounts/{name}"
    api = {"api-version": BY_NAME["account"].api_version}
    groups = {"api-version": BY_NAME["resource-group"].api_version}

    def read() -> Snapshot:
        return take(
            "contract",
            [Scope(subscription, (name,))],
            cloud,
            fingerprints=PRINTS,
            clock=FrozenClock(),
            version="contract",
        )

    try:
        cloud.put(place, group, {"location": region}, params=groups, kind="test")
        made: JsonObject = {"kind": "OpenAI", "location": region, "sku": {"name": "S0"}}
        cloud.put(
            place,
            account,
            made | {"properties": {"customSubDomainName": name}},
            params=api,
            kind="test",
        )
        words: JsonObject = {"properties": {"description": "contract"}}
        cloud.put(place, f"{account}/raiBlocklists/words", words, params=api, kind="test")
        first = read()
        assert {"account", "rai-blocklist", "rai-policy"} <= {key.kind for key in first.resources}
        assert written(read()) == written(first)
        for resource in first.resources.values():
            kind = BY_NAME[resource.key.kind]
            if kind.name in {"account", "rai-blocklist"}:
                shape = kind.write_shape(resource.body)
                cloud.put(place, resource.id, shape, params=api, kind="test")
        assert documents(read()) == documents(first)
    finally:
        deleted = (
            f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/locations/"
            f"{region}/resourceGroups/{name}/deletedAccounts/{name}"
        )
        for path, params in ((account, api), (deleted, api), (group, groups)):
            try:
                cloud.delete(place, path, params=params, kind="test")
            except CloudError as error:
                sys.stderr.write(f"clean up {path} by hand: {error}\n")
