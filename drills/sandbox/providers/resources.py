"""Subscriptions, resource groups, providers and tags (Microsoft.Resources)."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from drills.sandbox.arm import Behaviour, LongOperation, Record, unsupported
from drills.sandbox.clock import wire_time
from drills.sandbox.ids import parse_id, segment_after
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

READ = "Microsoft.Resources/subscriptions/resourceGroups/read"
WRITE = "Microsoft.Resources/subscriptions/resourceGroups/write"
DELETE = "Microsoft.Resources/subscriptions/resourceGroups/delete"
_NAME = re.compile(r"^[-\w._()]{1,90}$")
REGIONS = {
    "swedencentral": "Sweden Central",
    "eastus": "East US",
    "eastus2": "East US 2",
    "northcentralus": "North Central US",
    "southcentralus": "South Central US",
    "westus": "West US",
    "westus3": "West US 3",
    "westeurope": "West Europe",
    "northeurope": "North Europe",
    "francecentral": "France Central",
    "germanywestcentral": "Germany West Central",
    "switzerlandnorth": "Switzerland North",
    "uksouth": "UK South",
    "japaneast": "Japan East",
    "australiaeast": "Australia East",
    "canadaeast": "Canada East",
    "norwayeast": "Norway East",
    "polandcentral": "Poland Central",
    "koreacentral": "Korea Central",
    "southindia": "South India",
    "brazilsouth": "Brazil South",
}
PROVIDERS = {
    "Microsoft.CognitiveServices": [
        "accounts",
        "accounts/deployments",
        "accounts/raiPolicies",
        "accounts/raiBlocklists",
        "accounts/projects",
        "accounts/connections",
        "deletedAccounts",
        "locations",
        "operations",
    ],
    "Microsoft.Resources": ["subscriptions", "resourceGroups", "tags", "deployments"],
    "Microsoft.Authorization": ["roleAssignments", "roleDefinitions", "locks", "permissions"],
    "Microsoft.Insights": ["diagnosticSettings", "eventtypes", "components"],
    "Microsoft.ResourceGraph": ["resources"],
    "Microsoft.Storage": ["storageAccounts"],
    "Microsoft.KeyVault": ["vaults"],
    "Microsoft.Network": ["virtualNetworks", "privateEndpoints", "privateDnsZones"],
    "Microsoft.ManagedIdentity": ["userAssignedIdentities"],
    "Microsoft.Search": ["searchServices"],
    "Microsoft.DocumentDB": ["databaseAccounts"],
    "Microsoft.ApiManagement": ["service"],
    "Microsoft.OperationalInsights": ["workspaces"],
    "Microsoft.MachineLearningServices": ["workspaces", "registries"],
    "Microsoft.AppConfiguration": ["configurationStores"],
}


def register(world: World) -> None:
    """Teach the engine subscriptions, resource groups, providers and tags."""
    arm = world.arm
    arm.route("GET", "/subscriptions", "", _subscriptions)
    arm.route("GET", "/tenants", "", _tenants)
    arm.route("GET", "/subscriptions/{subscription}", "", _subscription)
    arm.route("GET", "/subscriptions/{subscription}/locations", "", _locations)
    arm.route("GET", "/subscriptions/{subscription}/resourceGroups", "", _groups)
    one = "/subscriptions/{subscription}/resourceGroups/{group}"
    arm.route("GET", one, READ, _group)
    arm.route("HEAD", one, READ, _group_exists)
    arm.route("PUT", one, WRITE, _put_group)
    arm.route("PATCH", one, WRITE, _patch_group)
    arm.route("DELETE", one, DELETE, _delete_group)
    arm.route("GET", one + "/resources", "", _group_resources)
    arm.route("GET", "/subscriptions/{subscription}/resources", "", _all_resources)
    arm.route("GET", "/subscriptions/{subscription}/providers", "", _providers)
    arm.route("GET", "/subscriptions/{subscription}/providers/{namespace}", "", _provider)
    arm.route("POST", "/subscriptions/{subscription}/providers/{namespace}/register", "", _register)
    for scope in (
        "/subscriptions/{subscription}",
        one,
        one + "/providers/{namespace}/{type}/{name}",
    ):
        path = scope + "/providers/Microsoft.Resources/tags/default"
        arm.route("GET", path, "Microsoft.Resources/tags/read", _tags)
        arm.route("PUT", path, "Microsoft.Resources/tags/write", _put_tags)
        arm.route("PATCH", path, "Microsoft.Resources/tags/write", _put_tags)
        arm.route("DELETE", path, "Microsoft.Resources/tags/write", _put_tags)
    for template in (
        "/subscriptions/{subscription}/providers/{namespace}/locations/{location}/operationResults/{operation}",
        "/subscriptions/{subscription}/providers/{namespace}/locations/{location}/operations/{operation}",
        "/subscriptions/{subscription}/operationresults/{operation}",
    ):
        arm.route("GET", template, "", _poll)
    arm.add(Storage())
    arm.add(UserAssignedIdentity())
    arm.add(KeyVault())
    gone = "/subscriptions/{subscription}/providers/Microsoft.KeyVault/deletedVaults"
    arm.route("GET", gone, "Microsoft.KeyVault/deletedVaults/read", _deleted_vaults)


def _poll(world: World, call: Call, names: dict[str, str]) -> Answer:
    return world.arm.poll(call, names["operation"])


def known_subscription(world: World, call: Call, subscription: str) -> Body:
    """The subscription by id. Raises ArmError 404."""
    found = world.store.get("subscriptions", subscription.lower())
    if found is None or not world.access.sees(call, f"/subscriptions/{subscription}"):
        raise ArmError(
            404,
            "SubscriptionNotFound",
            f"The subscription '{subscription}' could not be found.",
            gateway=True,
        )
    return found


def _show_subscription(world: World, found: Body) -> Body:
    return {
        "id": f"/subscriptions/{found['subscriptionId']}",
        "authorizationSource": "RoleBased",
        "managedByTenants": [],
        "subscriptionId": found["subscriptionId"],
        "tenantId": found.get("tenantId") or world.identity.tenant,
        "displayName": found["displayName"],
        "state": found.get("state", "Enabled"),
        "subscriptionPolicies": {
            "locationPlacementId": "Public_2014-09-01",
            "quotaId": "EnterpriseAgreement_2014-09-01",
            "spendingLimit": "Off",
        },
    }


def _subscriptions(world: World, call: Call, names: dict[str, str]) -> Answer:
    # A token is of one tenant, and lists that tenant's subscriptions alone.
    tenant = call.caller.tenant.lower() if call.caller and call.caller.tenant else ""
    values = [
        _show_subscription(world, found)
        for _, found in world.store.items("subscriptions")
        if tenant in {"", str(found.get("tenantId") or world.identity.tenant).lower()}
        and world.access.sees(call, f"/subscriptions/{found['subscriptionId']}")
    ]
    answer = world.arm.page(call, values)
    if isinstance(answer.body, dict):
        answer.body["count"] = {"type": "Total", "value": len(values)}
    return answer


def _subscription(world: World, call: Call, names: dict[str, str]) -> Answer:
    return Answer(
        200, _show_subscription(world, known_subscription(world, call, names["subscription"]))
    )


def _tenants(world: World, call: Call, names: dict[str, str]) -> Answer:
    tenant = world.identity.tenant
    return Answer(
        200,
        {
            "value": [
                {
                    "id": f"/tenants/{tenant}",
                    "tenantId": tenant,
                    "countryCode": "SE",
                    "displayName": "Contoso",
                    "domains": ["contoso.example"],
                    "tenantCategory": "Home",
                }
            ]
        },
    )


def _locations(world: World, call: Call, names: dict[str, str]) -> Answer:
    known_subscription(world, call, names["subscription"])
    return Answer(
        200,
        {
            "value": [
                {
                    "id": f"/subscriptions/{names['subscription']}/locations/{name}",
                    "name": name,
                    "type": "Region",
                    "displayName": display,
                    "regionalDisplayName": display,
                    "metadata": {"regionType": "Physical", "regionCategory": "Recommended"},
                }
                for name, display in REGIONS.items()
            ]
        },
    )


# -- resource groups --------------------


def group_key(subscription: str, group: str) -> str:
    """How the store calls a resource group."""
    return f"{subscription}/{group}".lower()


def _show_group(found: Body) -> Body:
    return {
        "id": found["id"],
        "name": found["name"],
        "type": "Microsoft.Resources/resourceGroups",
        "location": found["location"],
        **({"tags": found["tags"]} if found.get("tags") is not None else {}),
        "properties": {"provisioningState": found.get("state", "Succeeded")},
    }


def _groups(world: World, call: Call, names: dict[str, str]) -> Answer:
    subscription = str(
        known_subscription(world, call, names["subscription"])["subscriptionId"]
    ).lower()
    values = [
        _show_group(found)
        for key, found in world.store.items("groups")
        if key.startswith(subscription + "/") and world.access.sees(call, found["id"], READ)
    ]
    return world.arm.page(call, values)


def _existing(world: World, call: Call, names: dict[str, str]) -> Body:
    known_subscription(world, call, names["subscription"])
    found = world.store.get("groups", group_key(names["subscription"], names["group"]))
    if found is None:
        raise ArmError(
            404,
            "ResourceGroupNotFound",
            f"Resource group '{names['group']}' could not be found.",
            gateway=True,
        )
    return found


def _group(world: World, call: Call, names: dict[str, str]) -> Answer:
    return Answer(200, _show_group(_existing(world, call, names)))


def _group_exists(world: World, call: Call, names: dict[str, str]) -> Answer:
    key = group_key(names["subscription"], names["group"])
    return Answer(204 if world.store.get("groups", key) else 404)


def _group_record(found: Body) -> Record:
    return Record(
        id=found["id"],
        type="Microsoft.Resources/subscriptions/resourceGroups",
        name=found["name"],
        body=_show_group(found),
    )


def _put_group(world: World, call: Call, names: dict[str, str]) -> Answer:
    subscription = known_subscription(world, call, names["subscription"])["subscriptionId"]
    world.access.check_locks(call, call.path, delete=False)
    body, name = call.json(), names["group"]
    if not _NAME.match(name) or name.endswith("."):
        raise ArmError(
            400,
            "InvalidResourceGroup",
            f"The provided resource group name '{name}' has these invalid characters or length.",
            gateway=True,
        )
    location = body.get("location")
    if not isinstance(location, str) or not location:
        raise ArmError(
            400,
            "LocationRequired",
            "The location property is required for this definition.",
            gateway=True,
        )
    location = location.replace(" ", "").lower()
    if location not in REGIONS:
        raise ArmError(
            400,
            "LocationNotAvailableForResourceGroup",
            f"The provided location '{location}' is not available for resource group. List of "
            f"available regions is '{','.join(REGIONS)}'.",
            gateway=True,
        )
    key = group_key(subscription, name)
    before = world.store.get("groups", key)
    if before is not None and before["location"] != location:
        raise ArmError(
            409,
            "InvalidResourceGroupLocation",
            f"Invalid resource group location '{location}'. The Resource group already exists in "
            f"location '{before['location']}'.",
            gateway=True,
        )
    found: Body = {
        "id": before["id"] if before else f"/subscriptions/{subscription}/resourceGroups/{name}",
        "name": before["name"] if before else name,
        "location": location,
    }
    if body.get("tags") is not None:
        found["tags"] = body["tags"]
    world.store.put("groups", key, found)
    world.activity.changed(
        call, before=_group_record(before) if before else None, after=_group_record(found)
    )
    return Answer(200 if before else 201, _show_group(found))


def _patch_group(world: World, call: Call, names: dict[str, str]) -> Answer:
    before = _existing(world, call, names)
    world.access.check_locks(call, call.path, delete=False)
    found = dict(before)
    if "tags" in call.json():
        found["tags"] = call.json()["tags"]
    world.store.put("groups", group_key(names["subscription"], names["group"]), found)
    world.activity.changed(call, before=_group_record(before), after=_group_record(found))
    return Answer(200, _show_group(found))


def _delete_group(world: World, call: Call, names: dict[str, str]) -> Answer:
    found = _existing(world, call, names)
    world.access.check_locks(call, found["id"], delete=True)
    for record in world.arm.below(found["id"]):
        if "/providers/microsoft.authorization/locks/" in record.id.lower():
            raise ArmError(
                409,
                "ScopeLocked",
                f"The scope '{record.id}' cannot perform delete operation because following "
                f"scope(s) are locked: '{record.rid.scope}'. Please remove the lock and try again.",
                gateway=True,
            )
    inside = [r for r in world.arm.below(found["id"]) if len(r.rid.types) == 1]
    for record in inside:
        if "/providers/" in record.rid.scope.lower():
            continue
        behaviour = world.arm.behaviour(record.rid)
        world.arm.drop(record)
        behaviour.deleted(world, call, record)
        world.activity.changed(call, before=record, after=None)
    world.store.remove("groups", group_key(names["subscription"], names["group"]))
    world.activity.changed(call, before=_group_record(found), after=None)
    guid = world.guid()
    fake = f"{found['id']}/providers/Microsoft.Resources/deletions/{guid}"
    headers = world.arm.start(call, fake, LongOperation(world.seconds("default"), "location"))
    return Answer(202, None, headers)


def _summary(world: World, record: Record) -> Body:
    shown = world.arm.behaviour(record.rid).view(world, record)
    wanted = ("id", "name", "type", "location", "sku", "kind", "identity", "tags", "managedBy")
    return {name: shown[name] for name in wanted if name in shown}


_FILTER = re.compile(r"^\s*resourceType\s+eq\s+'(?P<type>[^']+)'\s*$", re.IGNORECASE)


def _resources_below(world: World, call: Call, scope: str) -> Answer:
    wanted = None
    given = call.parameter("$filter")
    if given:
        match = _FILTER.match(given)
        if match is None:
            raise ArmError(
                400, "InvalidFilterInQueryString", f"Invalid $filter '{given}' in the query string."
            )
        wanted = match["type"].lower()
    values = []
    for record in world.arm.below(scope):
        rid = record.rid
        if "location" not in record.body or "/providers/" in rid.scope.lower():
            continue
        if (wanted is not None and rid.type.lower() != wanted) or not world.access.sees(
            call, record.id, f"{rid.type}/read"
        ):
            continue
        values.append(_summary(world, record))
    top = call.parameter("$top")
    return world.arm.page(call, values, size=int(top) if top.isdigit() and int(top) else None)


def _group_resources(world: World, call: Call, names: dict[str, str]) -> Answer:
    return _resources_below(world, call, str(_existing(world, call, names)["id"]))


def _all_resources(world: World, call: Call, names: dict[str, str]) -> Answer:
    found = known_subscription(world, call, names["subscription"])
    return _resources_below(world, call, f"/subscriptions/{found['subscriptionId']}")


# -- providers --------------------


def _show_provider(world: World, subscription: str, namespace: str) -> Body:
    off = world.store.get("unregistered", f"{subscription}/{namespace}".lower())
    return {
        "id": f"/subscriptions/{subscription}/providers/{namespace}",
        "namespace": namespace,
        "registrationPolicy": "RegistrationRequired",
        "registrationState": "NotRegistered" if off else "Registered",
        "resourceTypes": [
            {
                "resourceType": name,
                "locations": list(REGIONS.values()),
                "apiVersions": ["2025-12-01", "2025-09-01", "2025-06-01", "2024-10-01"],
                "capabilities": "None",
            }
            for name in PROVIDERS[namespace]
        ],
    }


def _providers(world: World, call: Call, names: dict[str, str]) -> Answer:
    known_subscription(world, call, names["subscription"])
    return world.arm.page(
        call, [_show_provider(world, names["subscription"], name) for name in PROVIDERS]
    )


def _namespace(names: dict[str, str]) -> str:
    for name in PROVIDERS:
        if name.lower() == names["namespace"].lower():
            return name
    raise ArmError(
        404,
        "InvalidResourceNamespace",
        f"The resource namespace '{names['namespace']}' is invalid.",
        gateway=True,
    )


def _provider(world: World, call: Call, names: dict[str, str]) -> Answer:
    known_subscription(world, call, names["subscription"])
    return Answer(200, _show_provider(world, names["subscription"], _namespace(names)))


def register_operations(world: World) -> None:
    """The list of operations of every namespace that has no list of its own; call it last."""
    world.arm.route("GET", "/providers/{namespace}/operations", "", _operations)


def _operations(world: World, call: Call, names: dict[str, str]) -> Answer:
    namespace = _namespace(names)
    return Answer(
        200,
        {
            "value": [
                {
                    "name": f"{namespace}/{kind}/{verb}",
                    "display": {
                        "provider": namespace,
                        "resource": kind,
                        "operation": f"{verb} {kind}",
                    },
                }
                for kind in PROVIDERS[namespace]
                for verb in ("read", "write", "delete")
            ]
        },
    )


def _register(world: World, call: Call, names: dict[str, str]) -> Answer:
    known_subscription(world, call, names["subscription"])
    namespace = _namespace(names)
    scope = f"/subscriptions/{names['subscription']}"
    call.operation = f"{namespace}/register/action"
    world.access.check(call, call.operation, scope)
    world.store.remove("unregistered", f"{names['subscription']}/{namespace}".lower())
    return Answer(200, _show_provider(world, names["subscription"], namespace))


# -- tags --------------------


def _tagged(world: World, call: Call) -> tuple[str, Any, Body]:
    scope = call.path[: call.path.lower().rfind("/providers/microsoft.resources/tags")]
    if "/providers/" in scope.lower():
        record = world.arm.find(scope)
        if record is None:
            raise world.arm.missing(parse_id(scope))
        return scope, record, dict(record.body.get("tags") or {})
    parts = scope.strip("/").split("/")
    if len(parts) == 4:
        group = _existing(world, call, {"subscription": parts[1], "group": parts[3]})
        return scope, group, dict(group.get("tags") or {})
    found = known_subscription(world, call, parts[1])
    return scope, found, dict(found.get("tags") or {})


def _show_tags(scope: str, tags: Body) -> Body:
    return {
        "id": f"{scope}/providers/Microsoft.Resources/tags/default",
        "name": "default",
        "type": "Microsoft.Resources/tags",
        "properties": {"tags": tags},
    }


def _tags(world: World, call: Call, names: dict[str, str]) -> Answer:
    scope, _, tags = _tagged(world, call)
    return Answer(200, _show_tags(scope, tags))


def _put_tags(world: World, call: Call, names: dict[str, str]) -> Answer:
    scope, found, tags = _tagged(world, call)
    world.access.check_locks(call, scope, delete=False)
    sent = (call.json().get("properties") or {}).get("tags") or {}
    match call.method, call.json().get("operation", "Merge"):
        case "DELETE", _:
            tags = {}
        case "PUT", _:
            tags = dict(sent)
        case "PATCH", "Replace":
            tags = dict(sent)
        case "PATCH", "Delete":
            tags = {k: v for k, v in tags.items() if k not in sent}
        case "PATCH", "Merge":
            tags = {**tags, **sent}
        case _:
            raise unsupported(call)
    if isinstance(found, Record):
        before = Record.read(found.keep())
        found.body["tags"] = tags
        world.arm.save(found)
        world.activity.changed(call, before=before, after=found)
    elif "subscriptionId" in found:
        world.store.put(
            "subscriptions", str(found["subscriptionId"]).lower(), {**found, "tags": tags}
        )
    else:
        subscription, name = found["id"].split("/")[2], found["name"]
        world.store.put("groups", group_key(subscription, name), {**found, "tags": tags})
    return Answer(200, _show_tags(scope, tags))


# -- neighbours that recovery has to do with --------------------


class Storage(Behaviour):
    """Storage accounts; their blob endpoint is Azurite."""

    type = "Microsoft.Storage/storageAccounts"
    tracked = True

    def prepare(self, write: Any) -> Body:
        """A storage account with a key of its own."""
        body: Body = super().prepare(write)
        if write.existing is None:
            key = write.world.secret(64)
            write.hidden["keys"] = [key, write.world.secret(64)]
            write.world.store.put(
                "storage-keys", write.rid.name.lower(), {"name": write.rid.name.lower(), "key": key}
            )
        return body

    def view(self, world: World, record: Record) -> Body:
        """With the blob endpoint of the running Azurite."""
        shown = super().view(world, record)
        shown["properties"] = {
            **shown.get("properties", {}),
            "primaryEndpoints": {"blob": f"{world.blob}/{record.name.lower()}/"},
        }
        return shown

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """The key goes with the account."""
        world.store.remove("storage-keys", record.name.lower())

    def post(self, world: World, call: Call, rid: Any, action: str, record: Record) -> Answer:
        """listKeys."""
        if action.lower() != "listkeys":
            return super().post(world, call, rid, action, record)
        return Answer(
            200,
            {
                "keys": [
                    {"keyName": f"key{i}", "value": value, "permissions": "FULL"}
                    for i, value in enumerate(record.hidden.get("keys", []), 1)
                ]
            },
        )


class UserAssignedIdentity(Behaviour):
    """User-assigned managed identities; each gets a principal."""

    type = "Microsoft.ManagedIdentity/userAssignedIdentities"
    tracked = True

    def prepare(self, write: Any) -> Body:
        """With a principal id and a client id that stay for its life."""
        body = write.body
        old = write.existing.body["properties"] if write.existing else {}
        body["properties"] = {
            "tenantId": write.world.identity.tenant,
            "principalId": old.get("principalId") or write.world.guid(),
            "clientId": old.get("clientId") or write.world.guid(),
        }
        return dict(body)


class KeyVault(Behaviour):
    """Key vaults: a deleted one is kept for its retention, 90 days unless it says otherwise."""

    type = "Microsoft.KeyVault/vaults"
    tracked = True

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """Keep it as a deleted vault, with the day on which it is purged."""
        properties = record.body.get("properties") or {}
        days = int(properties.get("softDeleteRetentionInDays") or 90)
        subscription = segment_after(record.id, "subscriptions").lower()
        where = str(record.body.get("location") or "")
        root = f"/subscriptions/{subscription}/providers/Microsoft.KeyVault/locations/{where}"
        kept: Body = {
            "id": f"{root}/deletedVaults/{record.name}",
            "name": record.name,
            "type": "Microsoft.KeyVault/deletedVaults",
            "properties": {
                "vaultId": record.id,
                "location": where,
                "tags": record.body.get("tags") or {},
                "deletionDate": wire_time(call.now),
                "scheduledPurgeDate": wire_time(call.now + timedelta(days=days)),
                "purgeProtectionEnabled": properties.get("enablePurgeProtection"),
            },
        }
        world.store.put("deleted-vaults", record.id.lower(), kept)

    def saved(self, write: Any, record: Record) -> None:
        """One that is made again, or recovered, is deleted no more."""
        write.world.store.remove("deleted-vaults", record.id.lower())


def _deleted_vaults(world: World, call: Call, names: dict[str, str]) -> Answer:
    ours = f"/subscriptions/{names['subscription'].lower()}/"
    values = [
        kept
        for key, kept in world.store.items("deleted-vaults")
        if key.startswith(ours) and kept["properties"]["scheduledPurgeDate"] > wire_time(call.now)
    ]
    return world.arm.page(call, values)
