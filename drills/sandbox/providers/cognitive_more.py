"""The smaller parts of accounts: encryption scopes, plans, private endpoints, networks, tiers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta

from drills.sandbox.arm import Behaviour, LongOperation, Record, Write
from drills.sandbox.clock import wire_time
from drills.sandbox.ids import ResourceId, parse_id
from drills.sandbox.providers import cognitive_accounts as accounts
from drills.sandbox.providers.cognitive_quota import ACCOUNTS
from drills.sandbox.providers.cognitive_rai import child_ready, kept_tags
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

NAMESPACE = accounts.NAMESPACE
PLANS = f"{NAMESPACE}/commitmentPlans"
ASSOCIATIONS = "cs:associations"
_DELETE = LongOperation(1.0, "location", retry_after=False)
_STATES = ("Enabled", "Disabled")
_PLAN_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")


def _sent(write: Write) -> Body:
    found = write.body.get("properties")
    return dict(found) if isinstance(found, dict) else {}


def _invalid(message: str) -> ArmError:
    return ArmError(400, "InvalidResourceProperties", message)


class EncryptionScopes(Behaviour):
    """Microsoft.CognitiveServices/accounts/encryptionScopes."""

    type = f"{ACCOUNTS}/encryptionScopes"
    patchable = False
    delete_status = 204
    delete_operation = _DELETE

    def prepare(self, write: Write) -> Body:
        """A key of the service's own, or one in a vault."""
        child_ready(write)
        sent = _sent(write)
        source = sent.get("keySource") or "Microsoft.CognitiveServices"
        if source not in ("Microsoft.CognitiveServices", "Microsoft.KeyVault"):
            raise _invalid(f"The keySource '{source}' is invalid.")
        state = sent.get("state") or "Enabled"
        if state not in _STATES:
            raise _invalid(f"The state '{state}' is invalid: {', '.join(_STATES)}.")
        properties: Body = {"keySource": source, "state": state}
        if source == "Microsoft.KeyVault":
            key = sent.get("keyVaultProperties") or {}
            if not key.get("keyName") or not key.get("keyVaultUri"):
                raise _invalid("keyName and keyVaultUri are required for Microsoft.KeyVault.")
            properties["keyVaultProperties"] = key
        properties["provisioningState"] = "Succeeded"
        return {"properties": properties, **kept_tags(write.body)}


class Defender(Behaviour):
    """Microsoft.CognitiveServices/accounts/defenderForAISettings."""

    type = f"{ACCOUNTS}/defenderForAISettings"
    deletable = False  # the API lists get, list, put and patch

    def prepare(self, write: Write) -> Body:
        """On or off."""
        child_ready(write)
        state = _sent(write).get("state")
        if state not in _STATES:
            raise _invalid(f"The state '{state}' is invalid: {', '.join(_STATES)}.")
        return {"properties": {"state": state}, **kept_tags(write.body)}


class Plans(Behaviour):
    """Commitment plans, of one account or shared by several."""

    delete_operation = None

    def __init__(self, type_: str) -> None:
        self.type = type_
        self.patchable = type_ == PLANS

    def prepare(self, write: Write) -> Body:
        """A plan with its current period, which begins at its creation."""
        world, existing = write.world, write.existing
        shared = self.type == PLANS
        if not shared:
            child_ready(write)
        elif not _PLAN_NAME.match(write.rid.name):
            raise ArmError(400, "InvalidResourceName", f"The name '{write.rid.name}' is invalid.")
        sent = _sent(write)
        if not sent.get("planType") or not sent.get("hostingModel"):
            raise _invalid("planType and hostingModel of a commitment plan are required.")
        now = world.clock.now()
        old = existing.properties if existing else {}
        properties: Body = {
            "commitmentPlanGuid": old.get("commitmentPlanGuid") or world.guid(),
            "hostingModel": sent["hostingModel"],
            "planType": sent["planType"],
            "autoRenew": bool(sent.get("autoRenew", False)),
        }
        current = sent.get("current") or {}
        before = old.get("current") or {}
        quantity = int(current.get("count") or before.get("count") or 1) * 1_000_000
        properties["current"] = {
            "tier": current.get("tier") or before.get("tier") or "T1",
            "count": int(current.get("count") or before.get("count") or 1),
            "quota": {"quantity": quantity, "unit": "Character"},
            "startDate": before.get("startDate") or wire_time(now, fraction=0),
            "endDate": before.get("endDate") or wire_time(now + timedelta(days=30), fraction=0),
        }
        if isinstance(sent.get("next"), dict):
            properties["next"] = {k: sent["next"].get(k) for k in ("tier", "count")}
        properties["provisioningIssues"] = []
        properties["provisioningState"] = "Succeeded"
        result: Body = {"properties": properties, **kept_tags(write.body)}
        for name in ("sku", "kind", "location"):
            if write.body.get(name):
                result[name] = write.body[name]
        if shared and existing is None:
            write.operation = LongOperation(world.seconds("default"), "async", "Creating")
        return result

    def leaving(self, world: World, record: Record) -> None:
        """Its associations go with it."""
        for key, kept in world.store.items(ASSOCIATIONS):
            if kept["plan"].lower() == record.id.lower():
                world.store.remove(ASSOCIATIONS, key)


class Associations(Behaviour):
    """Microsoft.CognitiveServices/commitmentPlans/accountAssociations."""

    type = f"{PLANS}/accountAssociations"
    patchable = False

    def prepare(self, write: Write) -> Body:
        """An account that may draw on the plan."""
        id_ = str(_sent(write).get("accountId") or "")
        if not id_ or accounts.account_of(write.world, id_) is None:
            raise _invalid(f"The account '{id_}' of the association could not be found.")
        return {"properties": {"accountId": id_}, **kept_tags(write.body)}

    def saved(self, write: Write, record: Record) -> None:
        """Let the account show the plan."""
        plan = write.world.arm.find(write.rid.parent)
        write.world.store.put(
            ASSOCIATIONS,
            record.id.lower(),
            {
                "plan": write.rid.parent,
                "account": str(record.properties["accountId"]).lower(),
                "location": plan.body.get("location", "") if plan else "",
            },
        )

    def leaving(self, world: World, record: Record) -> None:
        """The account no longer shows the plan."""
        world.store.remove(ASSOCIATIONS, record.id.lower())


class PrivateEndpoints(Behaviour):
    """Microsoft.CognitiveServices/accounts/privateEndpointConnections."""

    type = f"{ACCOUNTS}/privateEndpointConnections"
    create_status = 200  # the client accepts 200 and 202 only
    patchable = False

    def prepare(self, write: Write) -> Body:
        """Approve or reject; the endpoint itself belongs to Microsoft.Network."""
        child_ready(write)
        sent = _sent(write)
        old = write.existing.properties if write.existing else {}
        state = sent.get("privateLinkServiceConnectionState")
        if not isinstance(state, dict):
            raise _invalid("privateLinkServiceConnectionState is required.")
        status = state.get("status") or "Pending"
        if status not in ("Approved", "Pending", "Rejected", "Disconnected"):
            raise _invalid(f"The status '{status}' is invalid: Approved, Pending, Rejected.")
        endpoint = old.get("privateEndpoint") or sent.get("privateEndpoint")
        if not endpoint:
            name = write.rid.name
            scope = write.rid.scope
            endpoint = {"id": f"{scope}/providers/Microsoft.Network/privateEndpoints/{name}"}
        properties: Body = {
            "privateEndpoint": endpoint,
            "groupIds": sent.get("groupIds") or old.get("groupIds") or ["account"],
            "privateLinkServiceConnectionState": {
                "status": status,
                "description": state.get("description") or status,
                "actionsRequired": "None",
            },
            "provisioningState": "Succeeded",
        }
        account = accounts.account_of(write.world, write.rid.text)
        return {"location": account.body["location"] if account else "", "properties": properties}


class ManagedNetworks(Behaviour):
    """Microsoft.CognitiveServices/accounts/managedNetworks."""

    type = f"{ACCOUNTS}/managedNetworks"
    etag = False

    def prepare(self, write: Write) -> Body:
        """The isolation mode; rules that are sent with it become its own."""
        child_ready(write)
        sent = _sent(write).get("managedNetwork")
        sent = dict(sent) if isinstance(sent, dict) else {}
        mode = sent.get("isolationMode") or "Disabled"
        modes = ("Disabled", "AllowInternetOutbound", "AllowOnlyApprovedOutbound")
        if mode not in modes:
            raise _invalid(f"The isolationMode '{mode}' is invalid: {', '.join(modes)}.")
        old = (write.existing.properties if write.existing else {}).get("managedNetwork") or {}
        if old.get("isolationMode", "Disabled") != "Disabled" and mode == "Disabled":
            raise _invalid("The isolationMode of a managed network cannot go back to Disabled.")
        network: Body = {
            "isolationMode": mode,
            "networkId": old.get("networkId") or write.world.guid(),
            "firewallSku": sent.get("firewallSku") or old.get("firewallSku") or "Standard",
            "managedNetworkKind": sent.get("managedNetworkKind") or "V1",
            "changeableIsolationModes": [m for m in modes if m not in {mode, "Disabled"}],
            "status": old.get("status") or {"status": "Inactive"},
            "provisioningState": "Succeeded",
        }
        write.hidden["rules"] = sent.get("outboundRules") or {}
        state = {"managedNetwork": network, "provisioningState": "Succeeded"}
        return {"properties": state}

    def saved(self, write: Write, record: Record) -> None:
        """Write the rules that came with it."""
        for name, rule in (record.hidden.pop("rules", None) or {}).items():
            if isinstance(rule, dict):
                _rule(write.world, parse_id(f"{record.id}/outboundRules/{name}"), rule)

    def view(self, world: World, record: Record) -> Body:
        """With the rules that are there."""
        shown = super().view(world, record)
        rules = world.arm.children(record.id, f"{self.type}/outboundRules")
        network = dict(shown["properties"]["managedNetwork"])
        network["outboundRules"] = {r.name: r.properties for r in rules}
        shown["properties"] = {**shown["properties"], "managedNetwork": network}
        return shown

    def post(
        self, world: World, call: Call, rid: ResourceId, action: str, record: Record
    ) -> Answer:
        """Provision the network, or write many rules at once."""
        match action.lower():
            case "provisionmanagednetwork" | "provision":
                record.properties["managedNetwork"]["status"] = {"status": "Active"}
                world.arm.save(record)
                return Answer(200, {"status": "Active"})
            case "batchoutboundrules":
                sent = (call.json().get("properties") or {}).get("outboundRules") or {}
                for name, rule in sent.items():
                    _rule(world, parse_id(f"{record.id}/outboundRules/{name}"), rule)
                behaviour = world.arm.behaviours[f"{self.type}/outboundRules".lower()]
                rules = world.arm.children(record.id, f"{self.type}/outboundRules")
                return Answer(200, {"value": [behaviour.view(world, r) for r in rules]})
            case _:
                return super().post(world, call, rid, action, record)


def _rule_properties(sent: Body) -> Body:
    kind = sent.get("type")
    if kind not in ("FQDN", "PrivateEndpoint", "ServiceTag"):
        raise _invalid(f"The outbound rule type '{kind}' is invalid.")
    if not sent.get("destination"):
        raise _invalid("The destination of an outbound rule is required.")
    kept = {k: v for k, v in sent.items() if k in ("type", "destination", "fqdns")}
    return {**kept, "category": sent.get("category") or "UserDefined", "status": "Active"}


def _rule(world: World, rid: ResourceId, sent: Body) -> None:
    before = world.arm.find(rid)
    properties = {"properties": _rule_properties(sent)}
    record = before or Record(rid.text, f"{ACCOUNTS}/managedNetworks/outboundRules", rid.name, {})
    record.body = properties
    world.arm.save(record)


class OutboundRules(Behaviour):
    """Microsoft.CognitiveServices/accounts/managedNetworks/outboundRules."""

    type = f"{ACCOUNTS}/managedNetworks/outboundRules"
    etag = False
    patchable = False

    def prepare(self, write: Write) -> Body:
        """One rule of the network."""
        child_ready(write)
        return {"properties": _rule_properties(_sent(write))}


class Perimeters(Behaviour):
    """NSP configurations: none, for no perimeter is played."""

    type = f"{ACCOUNTS}/networkSecurityPerimeterConfigurations"
    patchable = False

    def prepare(self, write: Write) -> Body:
        """They belong to Microsoft.Network and cannot be written here."""
        raise ArmError(
            405,
            "HttpMethodNotAllowed",
            "Network security perimeter configurations are read-only.",
        )


class Labels(Behaviour):
    """Small resources that are kept as sent, under an account or a subscription."""

    def __init__(self, type_: str, required: tuple[str, ...] = ()) -> None:
        self.type = type_
        self._required = required

    def prepare(self, write: Write) -> Body:
        """Check what is required; read-only dates are the service's."""
        if ACCOUNTS.lower() in self.type.lower():
            child_ready(write)
        sent = _sent(write)
        for name in self._required:
            if not sent.get(name):
                raise _invalid(f"'{name}' is required.")
        properties = {k: v for k, v in sent.items() if v is not None}
        if "SafetyProviders" in self.type:
            now = wire_time(write.world.clock.now())
            old = write.existing.properties if write.existing else {}
            properties["createdAt"] = old.get("createdAt") or now
            properties["lastModifiedAt"] = now
        return {"properties": properties, **kept_tags(write.body)}


class QuotaTiers(Behaviour):
    """Microsoft.CognitiveServices/quotaTiers: one per subscription, called default."""

    type = f"{NAMESPACE}/quotaTiers"
    etag = False

    def _default(self, subscription: str) -> Record:
        return Record(
            id=f"/subscriptions/{subscription}/providers/{self.type}/default",
            type=self.type,
            name="default",
            body={
                "properties": {
                    "currentTierName": "Tier 1",
                    "assignmentDate": "2026-01-15T00:00:00Z",
                    "tierUpgradePolicy": "OnceUpgradeIsAvailable",
                    "tierUpgradeEligibilityInfo": {
                        "nextTierName": "Tier 2",
                        "upgradeAvailabilityStatus": "NotAvailable",
                        "upgradeUnavailabilityReason": "Usage is below the threshold of the tier.",
                    },
                }
            },
        )

    def find_extra(self, world: World, rid: ResourceId) -> Record | None:
        """The tier that every subscription has."""
        return self._default(rid.subscription) if rid.name.lower() == "default" else None

    def list_extra(self, world: World, call: Call, parent: str) -> Iterable[Record]:
        """The same in a list, unless its policy was changed."""
        subscription = parent.strip("/").split("/")[1]
        id_ = f"/subscriptions/{subscription}/providers/{self.type}/default"
        if world.store.get(
            world.arm.space(f"/subscriptions/{subscription}", self.type), id_.lower()
        ):
            return ()
        return [self._default(subscription)]

    def prepare(self, write: Write) -> Body:
        """Only the upgrade policy can be changed."""
        if write.existing is None:
            raise _invalid("The only quota tier is 'default'.")
        policy = _sent(write).get("tierUpgradePolicy")
        if policy not in ("OnceUpgradeIsAvailable", "NoAutoUpgrade"):
            raise _invalid(f"The tierUpgradePolicy '{policy}' is invalid.")
        return {"properties": {**write.existing.properties, "tierUpgradePolicy": policy}}

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """It cannot be deleted."""
        raise ArmError(405, "HttpMethodNotAllowed", "The quota tier cannot be deleted.")


def register(world: World) -> None:
    """Teach the engine the smaller parts."""
    for behaviour in (
        EncryptionScopes(),
        Defender(),
        Plans(f"{ACCOUNTS}/commitmentPlans"),
        Plans(PLANS),
        Associations(),
        PrivateEndpoints(),
        ManagedNetworks(),
        OutboundRules(),
        Perimeters(),
        QuotaTiers(),
        Labels(f"{ACCOUNTS}/raiToolLabels", ("toolConnectionName",)),
        Labels(f"{NAMESPACE}/raiExternalSafetyProviders", ("url",)),
        Labels(f"{NAMESPACE}/raiPolicy"),
    ):
        world.arm.add(behaviour)
