"""Reads an estate file and builds it through the engine: who there is, what, and what is in it."""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from drills.sandbox.access import ASSIGNMENT, BUILT_IN, DEFINITION, LOCK
from drills.sandbox.arm import Record
from drills.sandbox.dataplane.seed import seed
from drills.sandbox.estates.yaml_nodes import EstateError, Node, read_yaml
from drills.sandbox.providers import cognitive_quota as quota
from drills.sandbox.wire import ArmError, Body, Call
from drills.sandbox.world import World

HERE = Path(__file__).parent
NAMES = ("demo", "empty")
KINDS = ("ServicePrincipal", "User", "ManagedIdentity")
_REFERENCE = re.compile(r"\$\{(\w+)(?:\.([\w./ -]+))?\}")
_CS = "Microsoft.CognitiveServices/accounts"


def load_estate(world: World, name: str) -> None:
    """Build the estate called `name` (demo, empty) or described by the file of that path.

    The world should be empty; call it inside a transaction. Raises EstateError, which says file,
    line, what is wrong and what to do.
    """
    path = HERE / f"{name}.yaml" if name in NAMES else Path(name)
    root = read_yaml(path)
    world.instant = True
    try:
        Loader(world, root).load()
    finally:
        world.instant = False


class Loader:
    """One loading of one file."""

    def __init__(self, world: World, root: Node) -> None:
        self.world, self.root = world, root
        self.subscriptions: dict[str, str] = {}  # name -> id
        self.principals: dict[str, Body] = {}
        self.groups: dict[str, str] = {}  # name -> id
        self.resources: dict[str, str] = {}  # name -> id
        self.accounts: dict[str, str] = {}  # name -> id
        self.roles: dict[str, str] = {r.name.lower(): r.guid for r in BUILT_IN}
        self.caller = world.identity.system_caller()

    def load(self) -> None:
        """Everything in the order in which things need each other."""
        root = self.root.check(
            ("subscriptions", "principals"),
            ("name", "tenant", "groups", "resources", "accounts", "role_definitions",
             "role_assignments", "locks", "diagnostic_settings", "quotas", "capacities"),
        )  # fmt: skip
        store = self.world.store
        tenant = root.text("tenant") or self._stable("tenant", root.text("name"))
        store.set_meta("tenant", tenant)
        self.caller = self.world.identity.system_caller()
        for node in root.each("subscriptions"):
            self._subscription(node, tenant)
        for node in root.each("principals"):
            self._principal(node)
        self._sign()
        for node in root.each("groups"):
            self._group(node)
        for node in root.each("quotas"):
            self._quota(node)
        for node in root.each("capacities"):
            node.check(("region", "sku", "available"), ("model",))
            quota.set_capacity(
                self.world, node.text("region"), node.text("sku"), node.whole("available", 0),
                node.text("model", "*"),
            )  # fmt: skip
        for node in root.each("resources"):
            self._resource(node)
        for node in root.each("role_definitions"):
            self._role_definition(node)
        for node in root.each("accounts"):
            self._account(node)
        for node in root.each("role_assignments"):
            self._role_assignment(node, "")
        for node in root.each("diagnostic_settings"):
            self._diagnostics(node, "")
        for node in root.each("locks"):
            self._lock(node, "")

    # -- ids, references, requests --------------------------------------------------------------

    def _stable(self, *parts: str) -> str:
        """A GUID that depends on the names alone, so that an estate always has the same ids."""
        text = "/".join((self.root.text("name", "estate"), *parts))
        return str(uuid.UUID(bytes=hashlib.sha256(text.encode()).digest()[:16], version=4))

    def fill(self, value: Any, node: Node) -> Any:
        """Plain data with every `${kind.name}` replaced."""
        if isinstance(value, str):
            return _REFERENCE.sub(lambda match: self._reference(match, node), value)
        if isinstance(value, list):
            return [self.fill(item, node) for item in value]
        if isinstance(value, dict):
            return {str(self.fill(k, node)): self.fill(v, node) for k, v in value.items()}
        return value

    def _reference(self, match: re.Match[str], node: Node) -> str:
        kind, name = match[1], match[2] or ""
        if kind == "canary" and name:
            return f"canary-{name}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
        if kind == "tenant":
            return self.world.identity.tenant
        if kind == "base":
            return self.world.base
        tables = {
            "subscription": self.subscriptions,
            "group": self.groups,
            "resource": self.resources,
            "account": self.accounts,
            "principal": {n: p["oid"] for n, p in self.principals.items()},
            "client": {n: p["appid"] for n, p in self.principals.items()},
            "role": self.roles,
        }
        table = tables.get(kind)
        if table is None:
            known = ", ".join((*tables, "canary", "tenant", "base"))
            raise node.error(f"unknown reference '{match[0]}'", f"known kinds are {known}")
        found = table.get(name) or table.get(name.lower())
        if found is None:
            known = ", ".join(sorted(table)[:12]) or "none so far"
            raise node.error(
                f"'{match[0]}' names no {kind} that is declared before", f"known: {known}"
            )
        return str(found)

    def put(self, node: Node, id_: str, body: Body, *, method: str = "PUT") -> None:
        """A request of the platform itself: every rule but permissions and locks holds."""
        call = Call(
            method=method,
            path=id_,
            query={"api-version": "2025-09-01"},
            headers={},
            body=orjson.dumps(self.fill(body, node)),
            base=self.world.base,
            client="",
            id="",
            correlation_id="",
            now=self.world.clock.now(),
            caller=self.caller,
        )
        try:
            self.world.arm.handle(call)
        except ArmError as error:
            raise node.error(
                f"the sandbox refuses {id_}: {error.code}: {error.message}", "mend what it names"
            ) from None

    def _known(self, node: Node, field: str, table: dict[str, str], what: str) -> str:
        name = node.text(field)
        if name not in table:
            raise node.at(field).error(
                f"no {what} is called '{name}'", f"known: {', '.join(table) or 'none'}"
            )
        return table[name]

    # -- the house ------------------------------------------------------------------------------

    def _subscription(self, node: Node, tenant: str) -> None:
        node.check(("name",), ("id", "display_name", "tags", "tenant"))
        name = node.text("name")
        id_ = node.text("id") or self._stable("subscription", name)
        try:
            uuid.UUID(id_)
        except ValueError:
            raise node.at("id").error(
                f"'{id_}' is not a GUID", "leave 'id' out or mend it"
            ) from None
        self.subscriptions[name] = id_
        owner = node.text("tenant") or tenant
        if owner != tenant:
            others = list(self.world.store.meta("tenants") or [])
            self.world.store.set_meta("tenants", sorted({*others, owner}))
        self.world.store.put(
            "subscriptions",
            id_.lower(),
            {
                "id": f"/subscriptions/{id_}",
                "subscriptionId": id_,
                "tenantId": owner,
                "displayName": node.text("display_name", name),
                "state": "Enabled",
                "authorizationSource": "RoleBased",
                "subscriptionPolicies": {
                    "locationPlacementId": "Public_2014-09-01",
                    "quotaId": "EnterpriseAgreement_2014-09-01",
                    "spendingLimit": "Off",
                },
                "managedByTenants": [],
                "tags": node.table("tags"),
            },
        )

    def _principal(self, node: Node) -> None:
        node.check(("name",), ("kind", "upn", "role", "secret"))
        kind = node.choice("kind", KINDS, "ServicePrincipal")
        upn = node.text("upn")
        if (kind == "User") != bool(upn):
            raise node.error("'upn' belongs to kind User, and only there", "add or remove 'upn'")
        name = node.text("name")
        if name in self.principals:
            raise node.error(f"principal '{name}' is declared twice", "rename one of them")
        self.principals[name] = self.world.identity.add_principal(
            name, kind=kind, upn=upn, role=node.text("role"), secret=node.text("secret")
        )

    def _sign(self) -> None:
        """Have everything look created by the estate's first person (or first principal)."""
        people = [p for p in self.principals.values() if p["kind"] == "User"]
        for person in (*people, *self.principals.values()):
            self.caller = replace(
                self.caller,
                oid=person["oid"],
                appid=person["appid"],
                name=person["name"],
                upn=person["upn"],
                kind=person["kind"],
            )
            return

    def _group(self, node: Node) -> None:
        node.check(("name", "subscription", "location"), ("tags",))
        subscription = self._known(node, "subscription", self.subscriptions, "subscription")
        name = node.text("name")
        id_ = f"/subscriptions/{subscription}/resourceGroups/{name}"
        self.groups[name] = id_
        self.put(node, id_, {"location": node.text("location"), "tags": node.table("tags")})

    def _quota(self, node: Node) -> None:
        node.check(("subscription", "region", "usage", "limit"))
        subscription = self._known(node, "subscription", self.subscriptions, "subscription")
        quota.set_quota(
            self.world,
            subscription,
            node.text("region"),
            node.text("usage"),
            node.whole("limit", 0),
        )

    def _resource(self, node: Node) -> None:
        """Any other resource: storage accounts (Azurite plays their blobs), vaults, networks."""
        node.check(("type", "group", "name"), ("body", "location"))
        group = self._known(node, "group", self.groups, "resource group")
        namespace, _, kind = node.text("type").partition("/")
        if not kind:
            raise node.at("type").error("a type has two parts", "write Microsoft.Storage/… ")
        name = node.text("name")
        id_ = f"{group}/providers/{namespace}/{kind}/{name}"
        body = node.table("body")
        body.setdefault("location", node.text("location") or self._group_location(group))
        self.resources[name] = id_
        self.put(node, id_, body)

    def _group_location(self, group: str) -> str:
        _, _, subscription, _, name = group.split("/")
        found = self.world.store.get("groups", f"{subscription}/{name}".lower())
        return str(found["location"]) if found else ""

    # -- accounts -------------------------------------------------------------------------------

    def _account(self, node: Node) -> None:
        node.check(
            ("name", "group", "kind"),
            ("location", "sku", "tags", "identity", "domain", "properties", "encryption_scopes",
             "blocklists", "topics", "policies", "files", "fine_tuning", "deployments",
             "connections", "capability_hosts", "projects", "vector_stores", "assistants",
             "private_endpoints", "commitment_plans", "defender", "managed_network",
             "diagnostic_settings", "locks", "role_assignments"),
        )  # fmt: skip
        name = node.text("name")
        group = self._known(node, "group", self.groups, "resource group")
        id_ = f"{group}/providers/{_CS}/{name}"
        if name in self.accounts:
            raise node.error(f"account '{name}' is declared twice", "rename one of them")
        self.accounts[name] = id_
        location = node.text("location") or self._group_location(group)
        properties = node.table("properties")
        domain = node.text("domain", name.lower())
        if domain != "none":
            properties.setdefault("customSubDomainName", domain)
        body: Body = {
            "kind": node.text("kind"),
            "location": location,
            "sku": {"name": node.text("sku", "S0")},
            "properties": properties,
        }
        if node.has("tags"):
            body["tags"] = node.table("tags")
        if identity := self._identity(node):
            body["identity"] = identity
        self.put(node, id_, body)
        self._simple(node, id_, "encryption_scopes", "encryptionScopes")
        self._simple(node, id_, "topics", "raitopics")
        self._blocklists(node, id_)
        self._simple(node, id_, "policies", "raiPolicies")
        self._seed(node, id_, ("files", "fine_tuning", "vector_stores"))
        for deployment in node.each("deployments"):
            self._deployment(deployment, id_)
        self._seed(node, id_, ("assistants",))
        self._simple(node, id_, "connections", "connections")
        self._simple(node, id_, "capability_hosts", "capabilityHosts")
        self._simple(node, id_, "commitment_plans", "commitmentPlans")
        self._simple(node, id_, "private_endpoints", "privateEndpointConnections")
        for project in node.each("projects"):
            self._project(project, id_)
        if node.has("defender"):
            state = node.choice("defender", ("Enabled", "Disabled"))
            path = f"{id_}/defenderForAISettings/Default"
            self.put(node.at("defender"), path, {"properties": {"state": state}})
        if node.has("managed_network"):
            settings = {"managedNetwork": node.table("managed_network")}
            path = f"{id_}/managedNetworks/default"
            self.put(node.at("managed_network"), path, {"properties": settings})
        for each in node.each("diagnostic_settings"):
            self._diagnostics(each, id_)
        for each in node.each("role_assignments"):
            self._role_assignment(each, id_)
        for each in node.each("locks"):
            self._lock(each, id_)

    def _identity(self, node: Node) -> Body:
        """`identity: system`, `none`, or the table as the wire has it."""
        if not node.has("identity"):
            return {}
        found = node.at("identity")
        if found.fields is not None:
            return node.table("identity")
        word = node.choice("identity", ("system", "none"))
        return {"type": "SystemAssigned" if word == "system" else "None"}

    def _simple(self, node: Node, parent: str, field: str, type_: str) -> None:
        """Children that are written as they are: `name`, `properties` and what stands beside."""
        for each in node.each(field):
            each.check(("name",), ("properties", "tags", "sku", "kind", "location"))
            body: Body = {"properties": each.table("properties")}
            for extra in ("tags", "sku"):
                if each.has(extra):
                    body[extra] = each.table(extra)
            for extra in ("kind", "location"):
                if each.has(extra):
                    body[extra] = each.text(extra)
            self.put(each, f"{parent}/{type_}/{each.text('name')}", body)

    def _blocklists(self, node: Node, id_: str) -> None:
        for each in node.each("blocklists"):
            each.check(("name",), ("description", "items", "tags"))
            path = f"{id_}/raiBlocklists/{each.text('name')}"
            body: Body = {"properties": {"description": each.text("description")}}
            if each.has("tags"):
                body["tags"] = each.table("tags")
            self.put(each, path, body)
            for item in each.each("items"):
                item.check(("name", "pattern"), ("regex",))
                shown = {"pattern": item.text("pattern"), "isRegex": item.yes("regex")}
                self.put(
                    item, f"{path}/raiBlocklistItems/{item.text('name')}", {"properties": shown}
                )

    def _deployment(self, node: Node, id_: str) -> None:
        node.check(
            ("name", "model"),
            ("version", "format", "sku", "capacity", "policy", "upgrade", "spillover", "tags",
             "fine_tuned", "source", "properties", "existing_customer"),
        )  # fmt: skip
        name, version = node.text("model"), node.text("version")
        if node.yes("existing_customer"):
            # The subscription had this version before it was closed to others.
            found = quota.find_version(name, version)
            if found is not None:
                quota.make_customer(self.world, id_.split("/")[2], found)
        source = self.fill(node.text("source"), node)
        if node.has("fine_tuned"):
            name = self._tuned(node, source or id_, name, node.text("fine_tuned"))
            version = "1"
        model: Body = {"format": node.text("format", "OpenAI"), "name": name}
        if version:
            model["version"] = version
        if source:
            model["source"] = source
        properties: Body = {"model": model, **node.table("properties")}
        for field, wire in (
            ("policy", "raiPolicyName"),
            ("upgrade", "versionUpgradeOption"),
            ("spillover", "spilloverDeploymentName"),
        ):
            if node.has(field):
                properties[wire] = node.text(field)
        sku = {"name": node.text("sku", "Standard"), "capacity": node.whole("capacity", 1)}
        body: Body = {"sku": sku, "properties": properties}
        if node.has("tags"):
            body["tags"] = node.table("tags")
        self.put(node, f"{id_}/deployments/{node.text('name')}", body)

    def _tuned(self, node: Node, account: str, base: str, suffix: str) -> str:
        """The id of the fine-tuned model of an account whose job had this suffix."""
        known = [model for model, _ in self.world.store.items(f"dp:{account.lower()}:models")]
        for model in known:
            if model == suffix or (model.startswith(base) and model.endswith(suffix)):
                return model
        raise node.at("fine_tuned").error(
            f"no fine-tuned model of '{base}' ends with '{suffix}'",
            f"the account has {', '.join(known) or 'none'}",
        )

    def _project(self, node: Node, id_: str) -> None:
        data = ("agents", "files", "vector_stores", "threads", "datasets", "indexes")
        node.check(
            ("name",),
            ("display_name", "description", "tags", "identity", "location", "connections",
             "capability_hosts", "applications", *data),
        )  # fmt: skip
        path = f"{id_}/projects/{node.text('name')}"
        account = self._record(id_)
        properties: Body = {}
        for field, wire in (("display_name", "displayName"), ("description", "description")):
            if node.has(field):
                properties[wire] = node.text(field)
        body: Body = {
            "location": node.text("location") or account.body["location"],
            "identity": self._identity(node) or {"type": "SystemAssigned"},
            "properties": properties,
        }
        if node.has("tags"):
            body["tags"] = node.table("tags")
        self.put(node, path, body)
        self._simple(node, path, "connections", "connections")
        self._simple(node, path, "capability_hosts", "capabilityHosts")
        self._simple(node, path, "applications", "applications")
        section = {n: self.fill(node.at(n).plain(), node) for n in data if node.has(n)}
        if section:
            self._sow(node, id_, {"projects": {node.text("name"): section}})

    def _record(self, id_: str) -> Record:
        found = self.world.arm.find(id_)
        if found is None:
            raise self.root.error(f"{id_} is missing", "declare it before it is used")
        return found

    def _seed(self, node: Node, id_: str, names: tuple[str, ...]) -> None:
        section = {n: self.fill(node.at(n).plain(), node) for n in names if node.has(n)}
        if section:
            self._sow(node, id_, section)

    def _sow(self, node: Node, id_: str, section: Body) -> None:
        """Hand data plane parts on; a mistake in them is reported at the account."""
        try:
            seed(self.world, self._record(id_), section)
        except (ValueError, KeyError, TypeError) as error:
            what = (
                str(error) if isinstance(error, ValueError) else f"{type(error).__name__} {error}"
            )
            raise node.error(
                f"the data of {id_.rpartition('/')[2]} cannot be made: {what}",
                f"look at {', '.join(section)}",
            ) from None

    # -- who may, what is locked, what is logged ------------------------------------------------

    def _role_definition(self, node: Node) -> None:
        node.check(
            ("name", "subscription"),
            ("description", "actions", "not_actions", "data_actions", "not_data_actions"),
        )
        subscription = self._known(node, "subscription", self.subscriptions, "subscription")
        name = node.text("name")
        guid = self._stable("role", name)
        self.roles[name.lower()] = guid
        scope = f"/subscriptions/{subscription}"
        lists = {
            wire: [str(item.scalar) for item in node.each(field)]
            for field, wire in (
                ("actions", "actions"),
                ("not_actions", "notActions"),
                ("data_actions", "dataActions"),
                ("not_data_actions", "notDataActions"),
            )
        }
        everywhere = [f"/subscriptions/{s}" for s in self.subscriptions.values()]
        self.put(
            node,
            f"{scope}/providers/{DEFINITION}/{guid}",
            {
                "properties": {
                    "roleName": name,
                    "type": "CustomRole",
                    "description": node.text("description"),
                    "assignableScopes": everywhere,
                    "permissions": [lists],
                }
            },
        )

    def _role_assignment(self, node: Node, scope: str) -> None:
        node.check(("principal", "role"), ("scope", "description"))
        name = node.text("principal")
        if name in self.principals:
            principal = self.principals[name]
            oid, kind = principal["oid"], principal["kind"]
        elif name in self.accounts:  # an account's own identity
            oid = (self._record(self.accounts[name]).body.get("identity") or {}).get("principalId")
            kind = "ManagedIdentity"
        else:
            oid, kind = None, ""
        if not oid:
            known = ", ".join((*self.principals, *self.accounts))
            raise node.at("principal").error(f"no principal is called '{name}'", f"known: {known}")
        role = node.text("role")
        guid = self.roles.get(role.lower())
        if guid is None:
            known = ", ".join(sorted(self.roles))
            raise node.at("role").error(f"no role is called '{role}'", f"known: {known}")
        scopes = [scope] if scope else self._scopes(node)
        for at in scopes:
            above = "/".join(at.split("/")[:3])
            body: Body = {
                "properties": {
                    "roleDefinitionId": f"{above}/providers/{DEFINITION}/{guid}",
                    "principalId": oid,
                    "principalType": "User" if kind == "User" else "ServicePrincipal",
                }
            }
            if node.has("description"):
                body["properties"]["description"] = node.text("description")
            name_ = self._stable("assignment", name, role, at.lower())
            self.put(node, f"{at}/providers/{ASSIGNMENT}/{name_}", body)

    def _scopes(self, node: Node) -> list[str]:
        """`scope:` is `all` (every subscription), or a reference like `${group.rg-ai}`."""
        text = node.text("scope", "all")
        if text == "all":
            return [f"/subscriptions/{id_}" for id_ in self.subscriptions.values()]
        at = str(self.fill(text, node.at("scope")))
        if at.count("/") == 0:
            at = f"/subscriptions/{at}"
        if not at.lower().startswith("/subscriptions/"):
            raise node.at("scope").error(f"'{text}' is no scope", "write all or ${group.name}")
        return [at]

    def _lock(self, node: Node, scope: str) -> None:
        node.check(("name", "level"), ("scope", "notes"))
        level = node.choice("level", ("CanNotDelete", "ReadOnly"))
        body = {"properties": {"level": level, "notes": node.text("notes")}}
        for at in [scope] if scope else self._scopes(node):
            self.put(node, f"{at}/providers/{LOCK}/{node.text('name')}", body)

    def _diagnostics(self, node: Node, scope: str) -> None:
        node.check(("name",), ("scope", "properties"))
        properties = node.table("properties") or {
            "logs": [{"categoryGroup": "allLogs", "enabled": True}],
            "metrics": [{"category": "AllMetrics", "enabled": True}],
        }
        for at in [scope] if scope else self._scopes(node):
            path = f"{at}/providers/Microsoft.Insights/diagnosticSettings/{node.text('name')}"
            self.put(node, path, {"properties": properties})


__all__ = ["EstateError", "load_estate"]
