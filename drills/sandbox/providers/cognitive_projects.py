"""Foundry projects, connections (credentials never come back), capability hosts, applications."""

from __future__ import annotations

import re
from typing import Any

from drills.sandbox.arm import Behaviour, LongOperation, Record, Write
from drills.sandbox.ids import ResourceId, region_name
from drills.sandbox.providers import cognitive_accounts as accounts
from drills.sandbox.providers.cognitive_quota import ACCOUNTS
from drills.sandbox.providers.cognitive_rai import kept_tags
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

PROJECTS = f"{ACCOUNTS}/projects"
_PROJECT_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,63}$")
_CONNECTION_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$")
_HOST_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9\-_]{0,254}$")
# What an authType needs in `credentials`; a mark after the name: may be left out.
_CREDENTIALS: dict[str, tuple[str, ...] | None] = {
    "AAD": None,
    "None": None,
    "ManagedIdentity": (),
    "ApiKey": ("key",),
    "AccountKey": ("key",),
    "AccessKey": ("accessKeyId", "secretAccessKey"),
    "CustomKeys": ("keys",),
    "OAuth2": ("clientId", "clientSecret"),
    "PAT": ("pat",),
    "SAS": ("sas",),
    "ServicePrincipal": ("clientId", "clientSecret", "tenantId"),
    "UsernamePassword": ("username", "password"),
    "AgenticIdentityToken": None,
    "ProjectManagedIdentity": None,
    "UserEntraToken": None,
}
_AZURE_AI = (
    "AzureOpenAI", "AIServices", "CognitiveSearch", "CognitiveService", "ApiKey", "CustomKeys",
    "Serverless", "AppInsights", "BingLLMSearch", "GroundingWithBingSearch", "RemoteTool",
)  # fmt: skip
_AZURE = (
    "ContainerRegistry", "AzureBlob", "AzureStorageAccount", "ADLSGen2", "CosmosDb", "CosmosDB",
    "AzureDataExplorer", "AzureSqlDb", "AzureKeyVault", "ApiManagement", "AppConfig",
    "ManagedOnlineEndpoint", "AzureOneLake", "AzureTableStorage",
)  # fmt: skip


def project_endpoint(world: World, account: Record, project: str) -> str:
    """The address of a project's data plane in this sandbox."""
    return f"{accounts.endpoint(world, account, 'services.ai')}api/projects/{project}"


def _quietly(world: World, record: Record) -> None:
    """Store without a new etag: what a child changes in its parent does not show in the etag."""
    rid = record.rid
    world.store.put(world.arm.space(rid.parent, rid.type), rid.key, record.keep())


class Projects(Behaviour):
    """Microsoft.CognitiveServices/accounts/projects."""

    type = PROJECTS
    tracked = True

    def prepare(self, write: Write) -> Body:
        """A project of an account that may have some."""
        world, body, existing, rid = write.world, write.body, write.existing, write.rid
        account = accounts.require_ready(world, rid)
        accounts.require_quiet(world, account)
        if not _PROJECT_NAME.match(rid.name):
            raise ArmError(400, "InvalidResourceName", f"The project name '{rid.name}' is invalid.")
        if account.body.get("kind") != "AIServices":
            raise ArmError(
                400,
                "BadRequest",
                f"Projects are not supported for accounts of kind '{account.body.get('kind')}'.",
            )
        if account.properties.get("allowProjectManagement") is not True:
            raise ArmError(
                400,
                "BadRequest",
                f"Project can't be created under AIServices Account '{account.name}' with "
                "allowProjectManagement set to False.",
            )
        if (account.body.get("identity") or {}).get("type", "None") == "None":
            raise ArmError(
                400,
                "BadRequest",
                f"A managed identity is required on account '{account.name}' to have projects.",
            )
        location = str(account.body["location"])
        sent_location = body.get("location")
        if sent_location and region_name(str(sent_location)) != region_name(location):
            raise ArmError(
                400,
                "InvalidResourceLocation",
                f"The project '{rid.name}' must be in location '{location}' of its account.",
            )
        identity = accounts.identity_of(
            world,
            body.get("identity"),
            existing.body.get("identity") if existing else None,
            accounts.tenant_of(world, rid.subscription),
        )
        if identity is None or identity["type"] == "None":
            raise ArmError(400, "BadRequest", "A managed identity is required for a project.")
        sent = body.get("properties")
        sent = sent if isinstance(sent, dict) else {}
        old = existing.properties if existing else {}
        first = not world.arm.children(account.id, PROJECTS)
        properties: Body = {}
        for name in ("displayName", "description"):
            if sent.get(name) is not None:
                properties[name] = str(sent[name])
        properties["isDefault"] = old["isDefault"] if existing else first
        properties["internalId"] = old.get("internalId") or world.hex(32)
        properties["provisioningState"] = "Succeeded"
        return {
            "location": sent_location or location,
            "kind": "AIServices",
            **kept_tags(body),
            "properties": properties,
            "identity": identity,
        }

    def saved(self, write: Write, record: Record) -> None:
        """Tell the account of a new project."""
        if write.existing is not None:
            return
        world = write.world
        account = world.arm.find(write.rid.parent)
        if account is None:
            return
        names = [*account.properties.get("associatedProjects", []), record.name]
        account.properties["associatedProjects"] = list(dict.fromkeys(names))
        if record.properties["isDefault"]:
            account.properties["defaultProject"] = record.name
        _quietly(world, account)

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse while another operation is running."""
        accounts.require_quiet(world, accounts.require_ready(world, record.rid))

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """All that the project held is lost; the oldest one left becomes the default."""
        forget_project(world, record.id)
        account = world.arm.find(record.rid.parent)
        if account is None:
            return
        left = world.arm.children(account.id, PROJECTS)
        account.properties["associatedProjects"] = [p.name for p in left]
        if record.properties.get("isDefault"):
            account.properties.pop("defaultProject", None)
            if left:
                left[0].properties["isDefault"] = True
                _quietly(world, left[0])
                account.properties["defaultProject"] = left[0].name
        _quietly(world, account)

    def view(self, world: World, record: Record) -> Body:
        """The project as recorded: its name is account/project."""
        account = world.arm.find(record.rid.parent)
        endpoints = {}
        if account is not None:
            endpoints["AI Foundry API"] = project_endpoint(world, account, record.name)
        shown: Body = {
            "id": record.id,
            "name": f"{record.rid.names[0]}/{record.name}",
            "type": record.type,
            "etag": record.etag,
            "location": record.body["location"],
            "kind": record.body["kind"],
        }
        if "tags" in record.body:
            shown["tags"] = record.body["tags"]
        shown["properties"] = {"endpoints": endpoints, **record.body["properties"]}
        shown["identity"] = record.body["identity"]
        shown["systemData"] = record.system
        return shown


def forget_project(world: World, project: str) -> None:
    """Remove everything that the data plane keeps for a project."""
    key = project.lower()
    for space in world.store.spaces():
        if space.startswith((f"dp:{key}:", f"dp:{key}/")):
            for item, _ in world.store.items(space):
                world.store.remove(space, item)


def _user_error(message: str) -> ArmError:
    """A 400 as the Machine Learning backend spells it, which serves the connections."""
    return ArmError(
        400,
        "UserError",
        message,
        details=[],
        additional=[{"type": "ComponentName", "info": {"value": "account-rp"}}],
    )


class Connections(Behaviour):
    """Connections of accounts and of projects: what they hold goes in and never comes out."""

    etag = False
    create_status = 200

    def __init__(self, type_: str) -> None:
        self.type = type_

    def prepare(self, write: Write) -> Body:
        """Check the connection and put its credentials away."""
        world, existing = write.world, write.existing
        accounts.require_ready(world, write.rid)
        if not _CONNECTION_NAME.match(write.rid.name):
            raise _user_error(
                f"The connection name '{write.rid.name}' does not match "
                "'^[a-zA-Z0-9][a-zA-Z0-9_-]{2,32}$'."
            )
        sent = write.body.get("properties")
        if not isinstance(sent, dict):
            raise _user_error("The properties of the connection are required.")
        auth = next(
            (a for a in _CREDENTIALS if a.lower() == str(sent.get("authType", "")).lower()), None
        )
        if auth is None:
            raise _user_error(
                f"The authType '{sent.get('authType')}' is invalid: {', '.join(_CREDENTIALS)}."
            )
        category = sent.get("category")
        if not isinstance(category, str) or not category:
            raise _user_error("The category of the connection is required.")
        credentials = sent.get("credentials")
        needed = _CREDENTIALS[auth]
        kept = (existing.hidden.get("credentials") if existing else None) or {}
        same = existing is not None and existing.properties.get("authType") == auth
        if needed and not isinstance(credentials, dict) and not (same and kept):
            raise _user_error(f"The credentials of a connection with authType {auth} are required.")
        if isinstance(credentials, dict):
            missing = [name for name in needed or () if not credentials.get(name)]
            if missing:
                raise _user_error(f"The credentials lack {', '.join(missing)}.")
            write.hidden["credentials"] = credentials
        elif not same:
            write.hidden["credentials"] = {}
        default_shared = len(write.rid.types) == 2  # of an account: for all of its projects
        shared = sent.get("isSharedToAll")
        properties: Body = {
            "authType": auth,
            "credentials": None,
            "group": _group(category),
            "category": category,
            "expiryTime": sent.get("expiryTime"),
            "target": sent.get("target"),
            "useWorkspaceManagedIdentity": bool(sent.get("useWorkspaceManagedIdentity", False)),
            "isSharedToAll": default_shared if shared is None else bool(shared),
            "sharedUserList": sent.get("sharedUserList") or [],
            "peRequirement": sent.get("peRequirement") or "NotRequired",
            "peStatus": "NotApplicable",
            "error": None,
            "isDefault": True,
            "metadata": {str(k): v for k, v in (sent.get("metadata") or {}).items()},
        }
        write.headers |= {
            "azureml-served-by-cluster": f"vienna-{world.arm.region_of(write.rid.text)}-02",
            "x-ms-response-type": "standard",
            "x-request-time": "0.162",
            "request-context": "appId=cid-v1:2d2e8e63-272e-4b3c-8598-4ee570a0e70d",
        }
        return {"properties": properties}

    def view(self, world: World, record: Record) -> Body:
        """The connection as recorded: empty tags and location, no credentials."""
        return {
            "tags": None,
            "location": None,
            "id": record.id,
            "name": record.name,
            "type": record.type,
            "properties": record.body["properties"],
            "systemData": record.system,
        }

    def listed(self, world: World, call: Call, records: list[Record]) -> list[Record]:
        """Those of a target or category; with includeAll those that the account shares too."""
        parent = call.path.rstrip("/").rpartition("/")[0]
        if call.parameter("includeAll").lower() == "true" and "/projects/" in parent.lower():
            account = parent[: parent.lower().rindex("/projects/")]
            records = [
                *records,
                *(
                    r
                    for r in world.arm.children(account, f"{ACCOUNTS}/connections")
                    if r.properties.get("isSharedToAll")
                ),
            ]
        for name in ("target", "category"):
            wanted = call.parameter(name)
            if wanted:
                records = [
                    r for r in records if str(r.properties.get(name, "")).lower() == wanted.lower()
                ]
        return records


def _group(category: str) -> str:
    if category in _AZURE_AI:
        return "AzureAI"
    if category in _AZURE:
        return "Azure"
    if "Sql" in category or category in ("Db2", "Oracle", "PostgreSql", "Snowflake", "Teradata"):
        return "Database"
    if category in ("MongoDb", "Cassandra", "Couchbase"):
        return "NoSQL"
    if category in ("Sftp", "FtpServer", "AmazonS3Compatible", "GoogleCloudStorage"):
        return "File"
    if category in ("GenericHttp", "GenericRest", "OData", "Odbc"):
        return "GenericProtocol"
    return "ServicesAndApps"


class CapabilityHosts(Behaviour):
    """Capability hosts of accounts and of projects: what agents keep their state in."""

    etag = False
    patchable = False
    delete_status = 204
    delete_operation = LongOperation(2.0, "location")

    def __init__(self, type_: str) -> None:
        self.type = type_

    def prepare(self, write: Write) -> Body:
        """One per account or project; its connections must exist."""
        world, rid = write.world, write.rid
        account = accounts.require_ready(world, rid)
        accounts.require_quiet(world, account)
        if not _HOST_NAME.match(rid.name):
            raise _user_error(f"The capability host name '{rid.name}' is invalid.")
        sent = write.body.get("properties")
        if not isinstance(sent, dict):
            raise _user_error("The properties of the capability host are required.")
        if write.existing is not None:
            kept = {k: v for k, v in write.existing.properties.items() if k != "provisioningState"}
            if any(kept.get(k) != v for k, v in sent.items() if k != "provisioningState" and v):
                raise _user_error("Update of capability host is not currently supported.")
        else:
            others = world.arm.children(rid.parent, self.type)
            if others:
                raise ArmError(
                    409,
                    "Conflict",
                    f"A capability host '{others[0].name}' exists already for '{rid.parent}'; "
                    "there can be only one.",
                )
        properties: Body = {}
        names = (
            "capabilityHostKind", "customerSubnet", "description", "tags",
            "enablePublicHostingEnvironment", "aiServicesConnections", "storageConnections",
            "threadStorageConnections", "vectorStoreConnections",
        )  # fmt: skip
        for name in names:
            if sent.get(name) is None:
                continue
            properties[name] = sent[name]
            if name.endswith("Connections"):
                self._check(world, account, rid, name, sent[name])
        if len(rid.types) == 2:
            properties.setdefault("capabilityHostKind", "Agents")
        properties["provisioningState"] = "Succeeded"
        if write.existing is None:
            write.operation = LongOperation(world.seconds("capability-host"), "async", "Creating")
            write.headers["x-ms-async-operation-timeout"] = "PT1H"
        return {"properties": properties}

    @staticmethod
    def _check(world: World, account: Record, rid: ResourceId, name: str, sent: Any) -> None:
        for connection in sent if isinstance(sent, list) else [sent]:
            places = [account.id, rid.parent]
            if not any(world.arm.find(f"{p}/connections/{connection}") for p in places):
                raise _user_error(f"The connection '{connection}' of {name} could not be found.")

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """Without its host a project's agents, threads and files are lost."""
        if len(record.rid.types) == 3:
            forget_project(world, record.rid.parent)


class Applications(Behaviour):
    """Agent applications of projects, and their deployments."""

    etag = False

    def __init__(self, type_: str) -> None:
        self.type = type_

    def prepare(self, write: Write) -> Body:
        """Kept as sent, with the address that the service gives."""
        world = write.world
        account = accounts.require_ready(world, write.rid)
        sent = write.body.get("properties")
        if not isinstance(sent, dict):
            raise _user_error("The properties are required.")
        properties = {k: v for k, v in sent.items() if v is not None}
        if len(write.rid.types) == 3:
            project = project_endpoint(world, account, write.rid.names[1])
            properties["baseUrl"] = f"{project}/applications/{write.rid.name}"
            properties["isEnabled"] = True
        else:
            properties.setdefault("state", "Running")
            old = write.existing.properties if write.existing else {}
            properties["deploymentId"] = old.get("deploymentId") or world.guid()
        properties["provisioningState"] = "Succeeded"
        return {"properties": properties}

    def post(
        self, world: World, call: Call, rid: ResourceId, action: str, record: Record
    ) -> Answer:
        """listAgents, and start and stop of deployments."""
        match action.lower():
            case "listagents":
                agents = record.properties.get("agents") or []
                return Answer(200, {"value": [{"properties": a} for a in agents]})
            case "start" | "stop" if len(rid.types) == 4:
                state = "Running" if action.lower() == "start" else "Stopped"
                record.properties["state"] = state
                world.arm.save(record)
                return Answer(200, self.view(world, record))
            case _:
                return super().post(world, call, rid, action, record)


def register(world: World) -> None:
    """Teach the engine projects and what hangs on them."""
    arm = world.arm
    arm.add(Projects())
    for parent in (ACCOUNTS, PROJECTS):
        arm.add(Connections(f"{parent}/connections"))
        arm.add(CapabilityHosts(f"{parent}/capabilityHosts"))
    arm.add(Applications(f"{PROJECTS}/applications"))
    arm.add(Applications(f"{PROJECTS}/applications/agentDeployments"))
