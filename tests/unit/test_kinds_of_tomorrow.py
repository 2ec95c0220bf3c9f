"""Azure Machine Learning and AI Search fit the declarations: no change of the engine is needed."""

from __future__ import annotations

from snapshots.cloud.place import Cursor, Plane
from snapshots.errors import DeniedError
from snapshots.kinds import order
from snapshots.kinds.accounts import properties
from snapshots.kinds.base import (
    SUBSCRIPTION,
    By,
    Comeback,
    Flow,
    Kind,
    Location,
    Parent,
    Reference,
)
from snapshots.kinds.fields import Default, Fields, Items
from snapshots.kinds.links import Links
from snapshots.model import GapReason, Json, JsonObject, Key, Recovery
from snapshots.secrets import Fingerprints, is_fingerprint
from snapshots.take import Scope, TakeOptions, take
from tests.canned_cloud import CannedCloud, FrozenClock

SUB = "00000000-0000-0000-0000-000000000001"
AGAIN = Comeback(Recovery.RESTORED, "Made again by name.", "https://learn.microsoft.com/x")
ML = {"api-version": "2025-12-01"}
SEARCH = {"api-version": "2026-04-01"}


def by_id(parent: Parent, wire: object) -> tuple[str, ...]:
    assert isinstance(wire, dict)
    parts = str(wire["id"]).lower().split("/")
    return (parent.subscription, parts[4], parts[-1])


def endpoint(parent: Parent) -> str:
    return str(properties(parent.wire).get("endpoint", "")).rstrip("/")


def wire_name(wire: object) -> str:
    assert isinstance(wire, dict)
    return str(wire["name"])


WORKSPACE = Kind(
    name="ml-workspace",
    title="workspaces",
    parent=SUBSCRIPTION,
    path_of=by_id,
    location=Location(
        path="/subscriptions/{subscription}/providers/Microsoft.MachineLearningServices/workspaces",
        params=ML,
    ),
    fields=Fields(volatile=("properties.workspaceId", "properties.mlFlowTrackingUri")),
    comeback=AGAIN,
)
MODEL = Kind(
    name="ml-model",
    title="models",
    parent="ml-workspace",
    location=Location(path="{id}/models", params=ML),
    fields=Fields(volatile=("properties.latestVersion", "properties.nextVersion")),
    comeback=AGAIN,
)
VERSION = Kind(
    name="ml-model-version",
    title="model versions",
    parent="ml-model",
    location=Location(path="{id}/versions", params=ML),
    fields=Fields(defaults=(Default("properties.isArchived", value=False),)),
    comeback=AGAIN,
)
ENDPOINT = Kind(
    name="ml-online-endpoint",
    title="online endpoints",
    parent="ml-workspace",
    needs=("ml-model-version",),
    location=Location(path="{id}/onlineEndpoints", params=ML),
    fields=Fields(volatile=("properties.scoringUri", "properties.swaggerUri")),
    comeback=AGAIN,
)
ONLINE = Kind(
    name="ml-online-deployment",
    title="online deployments",
    parent="ml-online-endpoint",
    location=Location(path="{id}/deployments", params=ML),
    references=(Reference("properties.model", "ml-model-version", By.ID, Flow.IN),),
    comeback=AGAIN,
)
DATASTORE = Kind(
    name="ml-datastore",
    title="datastores",
    parent="ml-workspace",
    location=Location(path="{id}/datastores", params=ML),
    fields=Fields(volatile=("properties.isDefault",), secret=("properties.credentials",)),
    comeback=AGAIN,
)
SERVICE = Kind(
    name="search-service",
    title="search services",
    parent=SUBSCRIPTION,
    path_of=by_id,
    location=Location(
        path="/subscriptions/{subscription}/providers/Microsoft.Search/searchServices",
        params={"api-version": "2025-05-01"},
    ),
    fields=Fields(volatile=("properties.status", "properties.endpoint")),
    comeback=AGAIN,
)
INDEX = Kind(
    name="search-index",
    title="search indexes",
    parent="search-service",
    plane=Plane.SEARCH,
    endpoint=endpoint,
    named=wire_name,
    location=Location(path="/indexes", params=SEARCH, cursor=Cursor.NONE),
    fields=Fields(volatile=("'@odata.etag'",), items=(Items("fields", ("name",)),)),
    comeback=AGAIN,
)
INDEXER = Kind(
    name="search-indexer",
    title="indexers",
    parent="search-service",
    plane=Plane.SEARCH,
    endpoint=endpoint,
    named=wire_name,
    needs=("search-index",),
    location=Location(path="/indexers", params=SEARCH, cursor=Cursor.NONE),
    references=(Reference("targetIndexName", "search-index", By.NAME),),
    comeback=AGAIN,
)
TOMORROW = (
    WORKSPACE, MODEL, VERSION, ENDPOINT, ONLINE, DATASTORE, SERVICE, INDEX, INDEXER
)  # fmt: skip

RG = f"/subscriptions/{SUB}/resourceGroups/rg/providers"
W = f"{RG}/Microsoft.MachineLearningServices/workspaces/ws"
S = f"{RG}/Microsoft.Search/searchServices/srch"
PUBLIC = "https://srch.search.windows.net"


def item(id_: str, **properties_: Json) -> JsonObject:
    return {
        "id": id_,
        "name": id_.rsplit("/", 1)[-1],
        "type": "x",
        "systemData": {"createdAt": "now"},
        "properties": {**properties_, "provisioningState": "Succeeded"},
    }


def cloud() -> CannedCloud:
    version = f"{W}/models/claims/versions/3"
    top = f"/subscriptions/{SUB}/providers/"
    return CannedCloud(
        {
            f"{top}Microsoft.MachineLearningServices/workspaces": [item(W, workspaceId="w")],
            f"{W}/models": [item(f"{W}/models/claims", latestVersion="3")],
            f"{W}/models/claims/versions": [
                item(version, modelUri="azureml://x", isArchived=False)
            ],
            f"{W}/onlineEndpoints": [item(f"{W}/onlineEndpoints/ep", traffic={"blue": 100})],
            f"{W}/onlineEndpoints/ep/deployments": [
                item(f"{W}/onlineEndpoints/ep/deployments/blue", model=version)
            ],
            f"{W}/datastores": [
                item(
                    f"{W}/datastores/blob", credentials={"credentialsType": "AccountKey", "k": "z"}
                )
            ],
            f"{top}Microsoft.Search/searchServices": [item(S, endpoint=PUBLIC + "/")],
            f"{PUBLIC}/indexes": [
                {
                    "@odata.etag": '"0x1"',
                    "name": "claims",
                    "fields": [{"name": "text"}, {"name": "id", "key": True}],
                }
            ],
            f"{PUBLIC}/indexers": [{"name": "nightly", "targetIndexName": "claims"}],
        }
    )


def test_they_are_read_ordered_and_linked_by_the_same_engine() -> None:
    canned = cloud()
    snapshot = take(
        "e",
        (Scope(SUB),),
        canned,
        fingerprints=Fingerprints(b"a key of at least sixteen bytes"),
        clock=FrozenClock(),
        version="t",
        kinds=TOMORROW,
        options=TakeOptions(reference=False),
    )
    assert not snapshot.gaps
    assert sorted(str(key).replace(SUB, "S") for key in snapshot.resources) == [
        "ml-datastore/S/rg/ws/blob",
        "ml-model-version/S/rg/ws/claims/3",
        "ml-model/S/rg/ws/claims",
        "ml-online-deployment/S/rg/ws/ep/blue",
        "ml-online-endpoint/S/rg/ws/ep",
        "ml-workspace/S/rg/ws",
        "search-index/S/rg/srch/claims",
        "search-indexer/S/rg/srch/nightly",
        "search-service/S/rg/srch",
    ]
    assert snapshot.calls.made == snapshot.calls.floor == 9
    index = snapshot.resources[Key("search-index", (SUB, "rg", "srch", "claims"))]
    assert index.body == {
        "name": "claims",
        "fields": [{"key": True, "name": "id"}, {"name": "text"}],
    }
    store = snapshot.resources[Key("ml-datastore", (SUB, "rg", "ws", "blob"))]
    assert is_fingerprint(properties(store.body)["credentials"]["k"])  # type: ignore[index, call-overload]
    links = Links(snapshot.resources, TOMORROW)
    version = Key("ml-model-version", (SUB, "rg", "ws", "claims", "3"))
    assert links.reached(version) == (Key("ml-online-deployment", (SUB, "rg", "ws", "ep", "blue")),)
    indexer = Key("search-indexer", (SUB, "rg", "srch", "nightly"))
    assert [link.target for link in links.of(indexer)] == [index.key]
    ranks = order(TOMORROW)
    assert ranks["ml-model-version"] < ranks["ml-online-endpoint"] < ranks["ml-online-deployment"]


def test_their_gaps_are_gaps_too() -> None:
    canned = cloud()
    canned.errors["/indexes"] = DeniedError("no", status=403)
    snapshot = take(
        "e",
        (Scope(SUB),),
        canned,
        fingerprints=Fingerprints(b"a key of at least sixteen bytes"),
        clock=FrozenClock(),
        version="t",
        kinds=TOMORROW,
        options=TakeOptions(reference=False),
    )
    (gap,) = snapshot.gaps
    assert (gap.reason, gap.hides) == (GapReason.DENIED, ("search-index",))
