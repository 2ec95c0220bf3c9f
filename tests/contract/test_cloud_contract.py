"""The one way out against the sandbox: real HTTPS, real tokens, real throttling."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from snapshots.cloud import Cloud, Credential, Cursor, Limits, Place, Plane, open_cloud
from snapshots.errors import DeniedError, MissingError, RegionDownError

V = {"api-version": "2025-09-01"}


@pytest.fixture
def cloud(sandbox: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in sandbox.environment().items():
        if name != "REQUESTS_CA_BUNDLE":
            monkeypatch.setenv(name, value)
    with open_cloud(environment=sandbox.url, ca_file=sandbox.ca, tenant=sandbox.tenant) as opened:
        yield opened


@pytest.fixture
def accounts(sandbox: Any, cloud: Cloud) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for subscription in sandbox.subscriptions:
        place = Place(Plane.ARM, subscription=subscription)
        path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts"
        found += cloud.list(place, path, params=V, kind="account")
    return found


def test_the_default_credential_lists_the_accounts(
    cloud: Cloud, accounts: list[dict[str, Any]]
) -> None:
    assert accounts
    assert all(account["id"].startswith("/subscriptions/") for account in accounts)
    assert cloud.environment.custom
    count = cloud.calls.snapshot()
    assert count.made >= 1
    assert count.throttled == 0


def test_a_wrong_secret_is_a_denial_that_does_not_tell_it(sandbox: Any) -> None:
    found = sandbox.principal("Owner")
    wrong = Credential(client_id=found["client_id"], client_secret="Canary-secret-that-is-wrong")
    with (
        open_cloud(
            environment=sandbox.url, ca_file=sandbox.ca, tenant=sandbox.tenant, credential=wrong
        ) as cloud,
        pytest.raises(DeniedError, match="could not sign in") as caught,
    ):
        cloud.get(
            Place(Plane.ARM), "/subscriptions", params={"api-version": "2022-12-01"}, kind="k"
        )
    assert "Canary-secret" not in str(caught.value)


def test_what_is_not_there_is_missing_and_permissions_are_told(sandbox: Any, cloud: Cloud) -> None:
    scope = f"/subscriptions/{sandbox.subscription}"
    with pytest.raises(MissingError):
        cloud.get(
            Place(Plane.ARM, subscription=sandbox.subscription),
            f"{scope}/resourceGroups/no/providers/Microsoft.CognitiveServices/accounts/no",
            params=V,
            kind="account",
        )
    assert any(entry.allows("Microsoft.X/y/write") for entry in cloud.permissions(scope))


@pytest.fixture
def operator(sandbox: Any) -> Iterator[Cloud]:
    """A cloud whose identity may also ask the data planes."""
    with open_cloud(
        environment=sandbox.url, ca_file=sandbox.ca, credential=sandbox.credential("muster")
    ) as opened:
        yield opened


def _data_plane(accounts: list[dict[str, Any]]) -> Place:
    fitting = [a for a in accounts if a["kind"] in ("OpenAI", "AIServices")]
    return Place(Plane.OPENAI, base=fitting[0]["properties"]["endpoint"])


def test_a_data_plane_is_listed_and_its_files_are_streamed(
    operator: Cloud, accounts: list[dict[str, Any]]
) -> None:
    place = _data_plane(accounts)
    files = list(operator.list(place, "openai/v1/files", kind="file", cursor=Cursor.OPENAI_AFTER))
    readable = [item for item in files if item["purpose"] == "fine-tune"]
    assert readable
    for item in readable[:3]:
        path = f"openai/v1/files/{item['id']}/content"
        size = sum(len(piece) for piece in operator.stream(place, path, kind="file content"))
        assert size == item["bytes"]


def test_a_role_without_data_actions_is_told_which_role_is_missing(
    cloud: Cloud, accounts: list[dict[str, Any]]
) -> None:
    with pytest.raises(DeniedError, match="data action") as caught:
        cloud.get(_data_plane(accounts), "openai/v1/files", kind="file")
    assert "Microsoft.CognitiveServices/accounts/OpenAI/files/read" in caught.value.remedy
    assert "Cognitive Services OpenAI User" in caught.value.remedy


def test_the_limit_of_an_endpoint_is_kept(
    sandbox: Any, operator: Cloud, accounts: list[dict[str, Any]]
) -> None:
    sandbox.control("PUT", "settings", {"throttle": True})
    place = _data_plane(accounts)

    def ask(_: int) -> int:
        return operator.get(place, "openai/v1/files", kind="file").status

    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(ask, range(75))) == {200}
    assert operator.calls.snapshot().throttled == 0


def test_a_region_that_is_down_is_not_asked(
    sandbox: Any, cloud: Cloud, accounts: list[dict[str, Any]]
) -> None:
    account = accounts[0]
    cloud.regions.declare_down(account["location"], "drill")
    place = Place(Plane.ARM, region=account["location"])
    before = len(sandbox.journal())
    with pytest.raises(RegionDownError):
        cloud.get(place, account["id"], params=V, kind="account")
    assert len(sandbox.journal()) == before


@pytest.mark.parametrize("threads", [4, 16])
def test_the_real_bucket_is_used_to_nine_tenths_without_one_refusal(
    sandbox: Any, cloud: Cloud, scaled: Callable[[int, int], int], threads: int
) -> None:
    capacity, refill = scaled(50, 250), 25
    buckets = {"reads": [capacity, refill], "writes": [200, 10], "deletes": [200, 10]}
    sandbox.control("PUT", "settings", {"throttle": True, "buckets": buckets})
    requests = capacity + refill * scaled(6, 30)
    place = Place(Plane.ARM, subscription=sandbox.subscription)
    path = f"/subscriptions/{sandbox.subscription}/resourceGroups"

    def ask(_: int) -> int:
        return cloud.get(place, path, params={"api-version": "2021-04-01"}, kind="group").status

    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        assert set(pool.map(ask, range(requests))) == {200}
    seconds = time.monotonic() - began
    count = cloud.calls.snapshot()
    assert count.throttled == 0
    assert count.made == requests
    used = requests / (capacity + refill * seconds)
    assert used >= 0.9, f"{requests} reads in {seconds:.2f} s"


def test_a_client_that_does_not_count_is_refused_by_the_same_bucket(sandbox: Any) -> None:
    """Negative control: the sandbox does refuse."""
    buckets = {"reads": [20, 1], "writes": [200, 10], "deletes": [200, 10]}
    sandbox.control("PUT", "settings", {"throttle": True, "buckets": buckets})
    path = f"/subscriptions/{sandbox.subscription}/resourceGroups?api-version=2021-04-01"
    assert 429 in {sandbox.call("GET", path).status_code for _ in range(40)}


def test_limits_can_be_tightened(sandbox: Any) -> None:
    with open_cloud(
        environment=sandbox.url,
        ca_file=sandbox.ca,
        credential=sandbox.credential(),
        limits=Limits(connect=1, read=5),
    ) as cloud:
        rows = cloud.list(
            Place(Plane.ARM), "/subscriptions", params={"api-version": "2022-12-01"}, kind="s"
        )
        assert {row["subscriptionId"] for row in rows} == set(sandbox.subscriptions)
