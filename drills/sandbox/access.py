"""Who may do what: role assignments, role definitions, permissions and locks."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from drills.sandbox.arm import Arm, Behaviour, Record, Write
from drills.sandbox.clock import wire_time
from drills.sandbox.ids import ResourceId, segment_after
from drills.sandbox.wire import Answer, ArmError, Body, Call, Caller
from drills.sandbox.world import World

ASSIGNMENT = "Microsoft.Authorization/roleAssignments"
DEFINITION = "Microsoft.Authorization/roleDefinitions"
LOCK = "Microsoft.Authorization/locks"
_CS = "Microsoft.CognitiveServices"


@dataclass(frozen=True, slots=True)
class Role:
    """A role definition's rules."""

    guid: str
    name: str
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()
    custom: bool = False

    def allows(self, action: str, *, data: bool) -> bool:
        """Whether the role grants an action."""
        yes, no = (
            (self.data_actions, self.not_data_actions) if data else (self.actions, self.not_actions)
        )
        return any(_covers(a, action) for a in yes) and not any(_covers(a, action) for a in no)


@lru_cache(maxsize=20_000)
def _covers(pattern: str, action: str) -> bool:
    return fnmatch.fnmatchcase(action.lower(), pattern.lower())


_AUTH_WRITES = (
    "Microsoft.Authorization/*/Delete",
    "Microsoft.Authorization/*/Write",
    "Microsoft.Authorization/elevateAccess/Action",
)
_READ_AROUND = (
    "Microsoft.Authorization/*/read",
    "Microsoft.Insights/alertRules/*",
    "Microsoft.Resources/deployments/*",
    "Microsoft.Resources/subscriptions/read",
    "Microsoft.Resources/subscriptions/resourceGroups/read",
    "Microsoft.Resources/subscriptions/operationresults/read",
)
# Names and GUIDs as published (learn.microsoft.com, Azure built-in roles, read 2026).
_ROWS: tuple[Any, ...] = (
    ("8e3af657-a8ff-443c-a75c-2fe8c4bcb635", "Owner", ("*",)),
    ("b24988ac-6180-42a0-ab88-20f7382dd24c", "Contributor", ("*",), _AUTH_WRITES),
    ("acdd72a7-3385-48ef-bd42-f606fba81ae7", "Reader", ("*/read",)),
    (
        "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9",
        "User Access Administrator",
        ("*/read", "Microsoft.Authorization/*", "Microsoft.Support/*"),
    ),
    (
        "f58310d9-a9f6-439a-9e8d-f62e7b41a168",
        "Role Based Access Control Administrator",
        (
            "Microsoft.Authorization/roleAssignments/write",
            "Microsoft.Authorization/roleAssignments/delete",
            "*/read",
        ),
    ),
    (
        "43d0d8ad-25c7-4714-9337-8ba259a9fe05",
        "Monitoring Reader",
        ("*/read", "Microsoft.OperationalInsights/workspaces/search/action"),
    ),
    (
        "a97b65f3-24c7-4388-baec-2e87135dc908",
        "Cognitive Services User",
        (
            f"{_CS}/*/read",
            f"{_CS}/accounts/listkeys/action",
            "Microsoft.Insights/diagnosticSettings/read",
            *_READ_AROUND,
        ),
        (),
        (f"{_CS}/*",),
    ),
    (
        "25fbc0a9-bd7c-42a3-aa1a-3b75d497ee68",
        "Cognitive Services Contributor",
        (
            f"{_CS}/*",
            "Microsoft.Features/features/read",
            "Microsoft.Insights/diagnosticSettings/*",
            "Microsoft.Insights/logDefinitions/read",
            "Microsoft.Resources/subscriptions/resourcegroups/deployments/*",
            *_READ_AROUND,
        ),
    ),
    (
        "5e0bd9bd-7b93-4f28-af87-19fc36ad61bd",
        "Cognitive Services OpenAI User",
        (f"{_CS}/*/read", *_READ_AROUND[:1]),
        (),
        (
            f"{_CS}/accounts/OpenAI/*/read",
            f"{_CS}/accounts/OpenAI/engines/completions/action",
            f"{_CS}/accounts/OpenAI/engines/search/action",
            f"{_CS}/accounts/OpenAI/engines/generate/action",
            f"{_CS}/accounts/OpenAI/deployments/*/action",
            f"{_CS}/accounts/OpenAI/responses/*",
            f"{_CS}/accounts/OpenAI/assistants/*",
            f"{_CS}/accounts/OpenAI/threads/*",
        ),
        (f"{_CS}/accounts/OpenAI/stored-completions/read",),
    ),
    (
        "a001fd3d-188f-4b5d-821b-7da978bf7442",
        "Cognitive Services OpenAI Contributor",
        (
            f"{_CS}/*/read",
            f"{_CS}/accounts/deployments/write",
            f"{_CS}/accounts/deployments/delete",
            f"{_CS}/accounts/raiPolicies/read",
            f"{_CS}/accounts/raiPolicies/write",
            f"{_CS}/accounts/raiPolicies/delete",
            f"{_CS}/accounts/commitmentplans/read",
            f"{_CS}/accounts/commitmentplans/write",
            f"{_CS}/accounts/commitmentplans/delete",
            "Microsoft.Authorization/roleAssignments/read",
            "Microsoft.Authorization/roleDefinitions/read",
        ),
        (),
        (f"{_CS}/accounts/OpenAI/*",),
    ),
    (
        "53ca6127-db72-4b80-b1b0-d745d6d5456d",
        "Azure AI User",
        (
            f"{_CS}/*/read",
            f"{_CS}/accounts/listkeys/action",
            "Microsoft.Insights/alertRules/read",
            "Microsoft.Insights/diagnosticSettings/read",
            *_READ_AROUND,
        ),
        (),
        (f"{_CS}/*",),
    ),
    (
        "e47c6f54-e4a2-4754-9501-8e0985b135e1",
        "Azure AI Account Owner",
        ("Microsoft.Authorization/*/read", f"{_CS}/*", *_READ_AROUND[1:]),
    ),
    (
        "eadc314b-1a2d-4efa-be10-5d325db5065e",
        "Azure AI Project Manager",
        (f"{_CS}/*/read", f"{_CS}/accounts/projects/*", *_READ_AROUND),
        (),
        (f"{_CS}/*",),
    ),
    (
        "ba92f5b4-2d11-453d-a403-e96b0029c9fe",
        "Storage Blob Data Contributor",
        (
            "Microsoft.Storage/storageAccounts/blobServices/containers/read",
            "Microsoft.Storage/storageAccounts/blobServices/containers/write",
            "Microsoft.Storage/storageAccounts/blobServices/containers/delete",
        ),
        (),
        ("Microsoft.Storage/storageAccounts/blobServices/containers/blobs/*",),
    ),
    (
        "4633458b-17de-408a-b874-0445c86b69e6",
        "Key Vault Secrets User",
        (),
        (),
        ("Microsoft.KeyVault/vaults/secrets/getSecret/action",),
    ),
)
BUILT_IN = tuple(Role(*row) for row in _ROWS)
_BY_GUID = {role.guid: role for role in BUILT_IN}


def role_named(name: str) -> Role | None:
    """A built-in role by its name, without case."""
    return next((r for r in BUILT_IN if r.name.lower() == name.lower()), None)


class Access:
    """Decides on every call. Control plane actions and data actions alike."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._version: object = None
        self._grants: dict[str, list[tuple[str, Role]]] = {}

    def register(self, arm: Arm) -> None:
        """Teach the engine assignments, definitions, permissions and locks."""
        arm.add(RoleAssignments())
        arm.add(RoleDefinitions())
        arm.add(Permissions())
        arm.add(Locks())

    # -- decisions ------------------------------------------------------------------------------

    def roles(self, caller: Caller, scope: str) -> list[Role]:
        """The roles a caller holds at a scope, by assignments there and above."""
        return self.roles_of(caller.oid, scope)

    def roles_of(self, oid: str, scope: str) -> list[Role]:
        """The roles a principal (by object id) holds at a scope."""
        wanted = scope.rstrip("/").lower()
        return [
            role
            for at, role in self._all().get(oid.lower(), [])
            if at in ("", wanted) or wanted.startswith(at + "/")
        ]

    def holds(self, oid: str, action: str, scope: str, *, data: bool = False) -> bool:
        """Whether a principal may do something at a scope."""
        return any(role.allows(action, data=data) for role in self.roles_of(oid, scope))

    def check(self, call: Call, action: str, scope: str, *, data: bool = False) -> None:
        """Let the caller go on, or raise 401/403.

        `action` is an RBAC action ("Microsoft.CognitiveServices/accounts/read"), or a data action
        when `data`; `scope` the ARM id it is about. Callers by key pass data actions; the platform
        itself may do everything.
        """
        caller = call.caller
        if caller is None:
            raise ArmError(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
                gateway=True,
            )
        if caller.via == "platform" or (data and caller.via == "key"):
            return
        home = self.world.store.get("subscriptions", segment_after(scope, "subscriptions").lower())
        tenant = str((home or {}).get("tenantId") or self.world.identity.tenant)
        if caller.tenant.lower() != tenant.lower() and not data:
            raise ArmError(
                401,
                "InvalidAuthenticationTokenTenant",
                f"The access token is from the wrong issuer '{caller.claims.get('iss')}'. It must "
                "match one of the tenants associated with this subscription.",
                gateway=True,
            )
        if self.holds(caller.oid, action, scope, data=data):
            return
        if data:
            raise ArmError(
                401,
                "PermissionDenied",
                f"The principal `{caller.oid}` lacks the required data action `{action}` to "
                f"perform `{call.method} {call.path}` operation.",
            )
        name = caller.upn or caller.appid or caller.oid
        raise ArmError(
            403,
            "AuthorizationFailed",
            f"The client '{name}' with object id '{caller.oid}' does not have authorization to "
            f"perform action '{action}' over scope '{scope or '/'}' or the scope is invalid. If "
            "access was recently granted, please refresh your credentials.",
            gateway=True,
        )

    def sees(self, call: Call, scope: str, action: str = "*/read") -> bool:
        """Whether the caller may read something there; a subscription also by a role below it."""
        caller = call.caller
        if caller is None:
            return False
        if caller.via == "platform":
            return True
        if action != "*/read":
            return self.holds(caller.oid, action, scope)
        wanted = scope.lower()
        return any(
            at in ("", wanted) or wanted.startswith(at + "/") or at.startswith(wanted + "/")
            for at, _ in self._all().get(caller.oid.lower(), [])
        )

    def _all(self) -> dict[str, list[tuple[str, Role]]]:
        version = self.world.store.get("authorization", "version")
        if self._version is None or version is not self._version:
            grants: dict[str, list[tuple[str, Role]]] = {}
            for record in self.assignments(""):
                properties = record.body["properties"]
                role = self.role(str(properties["roleDefinitionId"]))
                if role is not None:
                    grants.setdefault(str(properties["principalId"]).lower(), []).append(
                        (record.rid.scope.rstrip("/").lower(), role)
                    )
            self._grants, self._version = grants, version or object()
        return self._grants

    def touch(self) -> None:
        """Note that an assignment or definition changed."""
        known = self.world.store.get("authorization", "version") or {"n": 0}
        self.world.store.put("authorization", "version", {"n": known["n"] + 1})

    def assignments(self, scope: str) -> list[Record]:
        """Every role assignment at or below a scope."""
        suffix, prefix = f"|{ASSIGNMENT.lower()}", f"arm:{scope.lower()}"
        found: list[Record] = []
        for space in self.world.store.spaces():
            if space.startswith(prefix) and space.endswith(suffix):
                found += [Record.read(body) for _, body in self.world.store.items(space)]
        return found

    def role(self, definition_id: str) -> Role | None:
        """A role by the id of its definition, built-in or custom."""
        guid = definition_id.rstrip("/").rpartition("/")[2].lower()
        if guid in _BY_GUID:
            return _BY_GUID[guid]
        for space in self.world.store.spaces():
            if space.startswith("arm:") and space.endswith(f"|{DEFINITION.lower()}"):
                for _, kept in self.world.store.items(space):
                    if kept["name"].lower() == guid:
                        return _role(Record.read(kept))
        return None

    # -- locks ----------------------------------------------------------------------------------

    def check_locks(self, call: Call, id_: str, *, delete: bool) -> None:
        """Raise 409 ScopeLocked when a lock at or above the resource forbids the write."""
        if call.caller is not None and call.caller.via == "platform":
            return
        lower = id_.lower()
        if "/providers/microsoft.authorization/locks" in lower:
            return
        verb = "delete" if delete else "write"
        found = sorted(
            {
                record.rid.scope
                for record in self._locks(lower, below=delete)
                if delete or record.body["properties"]["level"].lower() == "readonly"
            }
        )
        if found:
            raise ArmError(
                409,
                "ScopeLocked",
                f"The scope '{id_}' cannot perform {verb} operation because following scope(s) "
                f"are locked: '{', '.join(found)}'. Please remove the lock and try again.",
                gateway=True,
            )

    def _locks(self, lower: str, *, below: bool) -> Iterable[Record]:
        suffix = f"|{LOCK.lower()}"
        for space in self.world.store.spaces():
            if not (space.startswith("arm:") and space.endswith(suffix)):
                continue
            at = space[4 : -len(suffix)]
            if lower == at or lower.startswith(at + "/") or (below and at.startswith(lower + "/")):
                for _, kept in self.world.store.items(space):
                    yield Record.read(kept)


def _role(record: Record) -> Role:
    actions: dict[str, tuple[str, ...]] = {}
    for name in ("actions", "notActions", "dataActions", "notDataActions"):
        actions[name] = tuple(
            str(a)
            for permission in record.body["properties"].get("permissions", [])
            for a in permission.get(name) or []
        )
    return Role(
        record.name,
        str(record.body["properties"].get("roleName", "")),
        actions["actions"],
        actions["notActions"],
        actions["dataActions"],
        actions["notDataActions"],
        custom=True,
    )


def _permission(role: Role) -> Body:
    return {
        "actions": list(role.actions),
        "notActions": list(role.not_actions),
        "dataActions": list(role.data_actions),
        "notDataActions": list(role.not_data_actions),
    }


_PRINCIPAL = re.compile(r"principalId\s+eq\s+'?([0-9a-f-]{36})'?", re.IGNORECASE)
_ASSIGNED = re.compile(r"assignedTo\('([0-9a-f-]{36})'\)", re.IGNORECASE)
_GUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", re.IGNORECASE)


def _at_or_above(at: str, scope: str) -> bool:
    return at in ("", scope) or scope.startswith(at + "/")


class RoleAssignments(Behaviour):
    """Role assignments: at, above and below a scope in one listing, as the service answers."""

    type = ASSIGNMENT
    system_data = False
    etag = False
    patchable = False

    def listing(self, world: World, call: Call, rid: ResourceId) -> Answer | None:
        """Assignments at and above the scope, and below it unless the filter is atScope()."""
        scope, given = rid.scope.rstrip("/").lower(), call.parameter("$filter")
        principal = _PRINCIPAL.search(given) or _ASSIGNED.search(given)
        at_scope = "atscope()" in given.lower().replace(" ", "")
        if given and principal is None and not at_scope:
            raise ArmError(400, "UnsupportedQuery", f"The filter '{given}' is not supported.")
        values = []
        for record in world.access.assignments(""):
            at = record.rid.scope.rstrip("/").lower()
            here = _at_or_above(at, scope)
            if not here and (at_scope or not at.startswith(scope + "/")):
                continue
            if principal and record.body["properties"]["principalId"].lower() != (
                principal[1].lower()
            ):
                continue
            values.append(self.view(world, record))
        return world.arm.page(call, values)

    def prepare(self, write: Write) -> Body:
        """Check role and principal; an assignment cannot be changed, only made and deleted."""
        world, properties = write.world, write.body.get("properties") or {}
        role = world.access.role(str(properties.get("roleDefinitionId", "")))
        principal = str(properties.get("principalId", ""))
        if not _GUID.match(write.rid.name):
            raise ArmError(
                400,
                "InvalidRoleAssignmentId",
                f"The role assignment ID '{write.rid.name}' is not valid. The role assignment ID "
                "must be a GUID.",
            )
        if role is None:
            raise ArmError(
                400,
                "RoleDefinitionDoesNotExist",
                "The specified role definition with ID "
                f"'{str(properties.get('roleDefinitionId', '')).rpartition('/')[2]}' "
                "does not exist.",
            )
        if not _GUID.match(principal):
            raise ArmError(
                400, "InvalidPrincipalId", f"The principal ID '{principal}' is not valid."
            )
        scope = write.rid.scope
        for other in world.arm.children(scope, ASSIGNMENT):
            old = other.body["properties"]
            same = (
                old["principalId"].lower() == principal.lower()
                and old["roleDefinitionId"].rpartition("/")[2].lower() == role.guid.lower()
            )
            if same:
                raise ArmError(409, "RoleAssignmentExists", "The role assignment already exists.")
        if write.existing is not None:
            raise ArmError(
                400,
                "RoleAssignmentUpdateNotPermitted",
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
            )
        subscription = write.rid.subscription
        root = f"/subscriptions/{subscription}" if subscription else ""
        now, by = wire_time(write.call.now), write.call.caller.oid if write.call.caller else ""
        return {
            "properties": {
                "roleDefinitionId": f"{root}/providers/{DEFINITION}/{role.guid}",
                "principalId": principal,
                "principalType": properties.get("principalType") or _kind(world, principal),
                "scope": scope or "/",
                "condition": properties.get("condition"),
                "conditionVersion": properties.get("conditionVersion"),
                "createdOn": now,
                "updatedOn": now,
                "createdBy": by or None,
                "updatedBy": by or None,
                "delegatedManagedIdentityResourceId": properties.get(
                    "delegatedManagedIdentityResourceId"
                ),
                "description": properties.get("description"),
            }
        }

    def saved(self, write: Write, record: Record) -> None:
        """A new grant counts at once."""
        write.world.access.touch()

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """A withdrawn grant, too."""
        world.access.touch()


def _kind(world: World, principal: str) -> str:
    for _, known in world.store.items("principals"):
        if known["oid"].lower() == principal.lower():
            return "User" if known["kind"] == "User" else "ServicePrincipal"
    return "ServicePrincipal"


class RoleDefinitions(Behaviour):
    """Built-in and custom role definitions."""

    type = DEFINITION
    system_data = False
    etag = False
    patchable = False

    def _built_in(self, role: Role, scope: str) -> Record:
        return Record(
            id=f"{scope}/providers/{DEFINITION}/{role.guid}",
            type=DEFINITION,
            name=role.guid,
            body={
                "properties": {
                    "roleName": role.name,
                    "type": "BuiltInRole",
                    "description": f"The built-in role {role.name}.",
                    "assignableScopes": ["/"],
                    "permissions": [_permission(role)],
                    "createdOn": "2017-01-01T00:00:00.0000000Z",
                    "updatedOn": "2025-01-01T00:00:00.0000000Z",
                    "createdBy": None,
                    "updatedBy": None,
                }
            },
        )

    def find_extra(self, world: World, rid: ResourceId) -> Record | None:
        """Every built-in role is found below every scope; a custom one, where it is assignable."""
        role = _BY_GUID.get(rid.name.lower())
        if role is not None:
            return self._built_in(role, _subscription_scope(rid))
        for record in self._custom(world):
            if record.name.lower() == rid.name.lower() and self._assignable(record, rid.scope):
                return record
        return None

    def _custom(self, world: World) -> list[Record]:
        return [
            Record.read(kept)
            for space in world.store.spaces()
            if space.startswith("arm:") and space.endswith(f"|{DEFINITION.lower()}")
            for _, kept in world.store.items(space)
        ]

    @staticmethod
    def _assignable(record: Record, scope: str) -> bool:
        scopes = record.body["properties"].get("assignableScopes") or []
        return any(_at_or_above(str(s).rstrip("/").lower(), scope.lower()) for s in scopes)

    def listing(self, world: World, call: Call, rid: ResourceId) -> Answer | None:
        """Built-in ones first; the filters roleName eq '…' and type eq '…' are known."""
        given = call.parameter("$filter")
        name = re.search(r"roleName\s+eq\s+'([^']+)'", given, re.IGNORECASE)
        kind = re.search(r"type\s+eq\s+'([^']+)'", given, re.IGNORECASE)
        records = [self._built_in(role, _subscription_scope(rid)) for role in BUILT_IN]
        records += [r for r in self._custom(world) if self._assignable(r, rid.scope)]
        values = []
        for record in records:
            properties = record.body["properties"]
            if name and properties["roleName"].lower() != name[1].lower():
                continue
            if kind and properties["type"].lower() != kind[1].lower():
                continue
            values.append(self.view(world, record))
        return world.arm.page(call, values)

    def prepare(self, write: Write) -> Body:
        """Check a custom role."""
        properties = write.body.get("properties") or {}
        if write.rid.name.lower() in _BY_GUID:
            raise ArmError(
                403, "BuiltInRoleUpdateNotPermitted", "Built-in roles cannot be changed."
            )
        scopes, name = properties.get("assignableScopes"), properties.get("roleName")
        if not name or not scopes or not _GUID.match(write.rid.name):
            raise ArmError(
                400,
                "InvalidRoleDefinition",
                "A role definition needs a GUID as its id, a roleName and assignableScopes.",
            )
        for record in self._custom(write.world):
            if (
                record.body["properties"]["roleName"].lower() == str(name).lower()
                and record.name.lower() != write.rid.name.lower()
            ):
                raise ArmError(
                    409,
                    "RoleDefinitionWithSameNameExists",
                    f"A custom role with the same name already exists in this directory: '{name}'.",
                )
        now, by = wire_time(write.call.now), write.call.caller.oid if write.call.caller else None
        created = write.existing.body["properties"]["createdOn"] if write.existing else now
        return {
            "properties": {
                "roleName": name,
                "type": "CustomRole",
                "description": properties.get("description", ""),
                "assignableScopes": scopes,
                "permissions": [
                    {
                        key: permission.get(key) or []
                        for key in ("actions", "notActions", "dataActions", "notDataActions")
                    }
                    for permission in properties.get("permissions") or []
                ],
                "createdOn": created,
                "updatedOn": now,
                "createdBy": by,
                "updatedBy": by,
            }
        }

    def saved(self, write: Write, record: Record) -> None:
        """Changed rules count at once."""
        write.world.access.touch()

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """A role that is assigned stays."""
        for assignment in world.access.assignments(""):
            if (
                assignment.body["properties"]["roleDefinitionId"]
                .lower()
                .endswith(record.name.lower())
            ):
                raise ArmError(
                    400,
                    "RoleDefinitionHasAssignments",
                    "There are existing role assignments referencing role "
                    f"(code: RoleDefinitionHasAssignments) '{record.name}'.",
                )

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """Gone at once."""
        world.access.touch()


def _subscription_scope(rid: ResourceId) -> str:
    return f"/subscriptions/{rid.subscription}" if rid.subscription else ""


class Permissions(Behaviour):
    """What the caller may do at a scope: one entry per role it holds there."""

    type = "Microsoft.Authorization/permissions"

    def listing(self, world: World, call: Call, rid: ResourceId) -> Answer | None:
        """The caller's own permissions."""
        roles = world.access.roles(call.caller, rid.scope) if call.caller else []
        return Answer(200, {"value": [_permission(role) for role in roles]})


class Locks(Behaviour):
    """Management locks."""

    type = LOCK
    etag = False

    def listing(self, world: World, call: Call, rid: ResourceId) -> Answer | None:
        """Locks at and below the scope (with the filter atScope() at and above it)."""
        scope = rid.scope.rstrip("/").lower()
        at_scope = "atscope()" in call.parameter("$filter").lower().replace(" ", "")
        values, suffix = [], f"|{LOCK.lower()}"
        for space in world.store.spaces():
            if not (space.startswith("arm:") and space.endswith(suffix)):
                continue
            at = space[4 : -len(suffix)]
            inside = _at_or_above(at, scope) if at_scope else _at_or_above(scope, at)
            if inside:
                values += [self.view(world, Record.read(k)) for _, k in world.store.items(space)]
        return world.arm.page(call, values)

    def prepare(self, write: Write) -> Body:
        """A level is needed."""
        properties = write.body.get("properties") or {}
        level = str(properties.get("level", ""))
        if level.lower() not in ("cannotdelete", "readonly"):
            raise ArmError(
                400,
                "LockLevelInvalid",
                f"The lock level '{level}' is not valid. It must be CanNotDelete or ReadOnly.",
            )
        shown: Body = {"level": "CanNotDelete" if level.lower() == "cannotdelete" else "ReadOnly"}
        if properties.get("notes") is not None:
            shown["notes"] = properties["notes"]
        if properties.get("owners"):
            shown["owners"] = properties["owners"]
        return {"properties": shown}
