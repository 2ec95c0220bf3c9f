"""Accounts: their endpoints, keys and identities, and the 48 hours after their deletion."""

from __future__ import annotations

import base64
import re
from datetime import timedelta
from typing import Any

import orjson

from drills.sandbox.arm import Behaviour, LongOperation, Record, Write
from drills.sandbox.clock import parse_time, wire_time
from drills.sandbox.ids import ResourceId, parse_id, region_name, segment_after
from drills.sandbox.providers.cognitive_models import REGIONS
from drills.sandbox.providers.cognitive_quota import (
    ACCOUNT_COUNT,
    ACCOUNTS,
    DEPLOYMENTS,
    accounts_in,
    quota_limit,
)
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

NAMESPACE = "Microsoft.CognitiveServices"
DELETED = "cs:deleted"
RETENTION = 48 * 3600.0
PURGE = "cs.purge"
OPENAI_KINDS = ("OpenAI", "AIServices")
KINDS: dict[str, tuple[str, ...]] = {
    "OpenAI": ("S0",),
    "AIServices": ("S0",),
    "CognitiveServices": ("S0",),
    "FormRecognizer": ("F0", "S0"),
    "ComputerVision": ("F0", "S1"),
    "ContentSafety": ("F0", "S0"),
    "CustomVision.Training": ("F0", "S0"),
    "CustomVision.Prediction": ("F0", "S0"),
    "Face": ("F0", "S0"),
    "ImmersiveReader": ("S0", "S1"),
    "Language": ("F0", "S"),
    "TextAnalytics": ("F0", "S"),
    "SpeechServices": ("F0", "S0"),
    "TextTranslation": ("F0", "S1", "C2", "D3"),
    "QnAMaker.v2": ("F0", "S0"),
    "MetricsAdvisor": ("S0",),
}
_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{1,63}$")
_DOMAIN = re.compile(r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$", re.IGNORECASE)
# What a client may set; anything else it sends for `properties` is left out.
_SETTABLE = (
    "customSubDomainName",
    "networkAcls",
    "publicNetworkAccess",
    "encryption",
    "userOwnedStorage",
    "amlWorkspace",
    "apiProperties",
    "dynamicThrottlingEnabled",
    "storedCompletionsDisabled",
    "restrictOutboundNetworkAccess",
    "allowedFqdnList",
    "disableLocalAuth",
    "locations",
    "raiMonitorConfig",
    "networkInjections",
    "allowProjectManagement",
    "defaultProject",
    "associatedProjects",
    "migrationToken",
)
_SECRET_API = (
    "qnaAzureSearchEndpointKey",
    "eventHubConnectionString",
    "storageAccountConnectionString",
)
_TERMINAL = ("Succeeded", "Failed", "Canceled", "Disabled")


# -- limits and capabilities, as large as the real ones ------------------------------------------


def _rule(key: str, paths: tuple[tuple[str, str], ...], count: int = 30, period: int = 1) -> Body:
    return {
        "key": key,
        "renewalPeriod": period,
        "count": count,
        "matchPatterns": [{"path": path, "method": method} for path, method in paths],
    }


_OPENAI_RULES: list[Body] = [
    _rule("openai.dalle.post", (("dalle/*", "POST"), ("openai/images/*", "POST"))),
    _rule("openai.dalle.other", (("dalle/*", "*"), ("openai/operations/images/*", "*"))),
    _rule("openai.assistants.list", (("openai/assistants", "GET"),), 60, 60),
    _rule(
        "openai.assistants.other", (("openai/assistants/*", "*"), ("openai/assistants", "*")), 60
    ),
    _rule("openai.threads.list", (("openai/threads", "GET"),), 60, 60),
    _rule("openai.threads.other", (("openai/threads/*", "*"), ("openai/threads", "*")), 100),
    _rule("openai.vectorstores.list", (("openai/vector_stores", "GET"),), 60, 60),
    _rule("openai.vectorstores.post", (("openai/vector_stores/*", "POST"),), 20),
    _rule("openai.batches.post", (("openai/batches", "POST"),), 30),
    _rule("openai.batches.get", (("openai/batches/*", "GET"),), 500),
    _rule(
        "openai.responses.other", (("openai/responses/*", "*"), ("openai/v1/responses/*", "*")), 30
    ),
    _rule("openai.files", (("openai/files/*", "*"), ("openai/v1/files/*", "*")), 30),
    _rule(
        "openai.finetuning", (("openai/fine_tuning/*", "*"), ("openai/v1/fine_tuning/*", "*")), 30
    ),
    _rule("openai", (("openai/*", "*"),), 30),
    _rule("default", (("*", "*"),), 30),
]
_AI_AREAS = {
    "vision": ("analyze", "describe", "detect", "ocr", "tag", "models", "areaOfInterest", "read"),
    "face": ("detect", "findsimilars", "group", "identify", "verify", "persongroups", "facelists"),
    "contentsafety": ("text:analyze", "image:analyze", "text/blocklists", "text:shieldPrompt"),
    "formrecognizer": ("documentModels", "documentClassifiers", "info", "operations", "custom"),
    "language": (":analyze-text", ":query-knowledgebases", "authoring", "analyze-conversations"),
    "speech": ("recognition", "synthesis", "customvoice", "speechtotext", "batchsynthesis"),
    "translator": ("translate", "transliterate", "breaksentence", "dictionary", "document/batches"),
    "textanalytics": ("sentiment", "keyPhrases", "entities", "languages", "analyze", "pii"),
    "agents": ("assistants", "threads", "vector_stores", "connections", "deployments", "indexes"),
    "videoindexer": ("accounts", "upload", "trial", "widgets"),
}
_AI_RULES: list[Body] = [
    *_OPENAI_RULES[:-1],
    *(
        _rule(
            f"{area}.{part.strip(':').replace('/', '.').replace(':', '.')}.{method.lower()}",
            ((f"{area}/v*/{part}/*", method), (f"{area}/{part}", method)),
            count,
            60 if method == "GET" else 1,
        )
        for area, parts in _AI_AREAS.items()
        for part in parts
        for method, count in (("POST", 100), ("GET", 1000), ("DELETE", 50))
    ),
    _OPENAI_RULES[-1],
]
_PLAIN_RULES: list[Body] = [
    _rule("default", (("*", "*"),), 10),
    _rule("token", (("sts/*", "POST"),), 5),
]
_OPENAI_CAPABILITIES: list[Body] = [
    {"name": "VirtualNetworks"},
    {"name": "CustomerManagedKey"},
    {"name": "EnableRLSForThrottling", "value": "false"},
    {"name": "MaxFineTuneCount", "value": "500"},
    {"name": "MaxRunningFineTuneCount", "value": "3"},
    {"name": "MaxUserFileCount", "value": "100"},
    {"name": "MaxTrainingFileSize", "value": "512000000"},
    {"name": "MaxUserFileImportDurationInHours", "value": "1"},
    {"name": "MaxFineTuneJobDurationInHours", "value": "720"},
    {"name": "MaxEvaluationRunDurationInHours", "value": "5"},
    {"name": "MaxRunningEvaluationCount", "value": "5"},
    {"name": "MaxRunningGlobalStandardFineTuneCount", "value": "3"},
    {
        "name": "TrustedServices",
        "value": "Microsoft.CognitiveServices,Microsoft.MachineLearningServices,"
        "Microsoft.Search,Microsoft.VideoIndexer",
    },
    {"name": "NetworkSecurityPerimeter"},
    {"name": "RaiMonitor"},
    {"name": "quotaRefundsEnabled", "value": "false"},
]
_AI_CAPABILITIES: list[Body] = [*_OPENAI_CAPABILITIES, {"name": "Container"}, {"name": "Projects"}]
_PLAIN_CAPABILITIES: list[Body] = [{"name": "VirtualNetworks"}, {"name": "CustomerManagedKey"}]
_OPENAI_APIS = (
    "OpenAI Language Model Instance API",
    "OpenAI Dall-E API",
    "OpenAI Moderations API",
    "OpenAI Whisper API",
    "OpenAI Model Scaleset API",
    "OpenAI Realtime API",
    "OpenAI Sora API",
    "Token",
)
_FOUNDRY_APIS = ("AI Foundry API", "Azure AI Model Inference API")
_AI_APIS = (
    "Content Safety",
    "Computer Vision",
    "Document Intelligence",
    "Face",
    "FormRecognizer",
    "Language",
    "Speech Services Text to Speech (Neural)",
    "Speech Services Speech to Text",
    "Text Translation",
    "TextAnalytics",
    "Video Indexer",
)


# -- what others ask ----------------------------------------------------------------------------


def account_of(world: World, id_: str) -> Record | None:
    """The account that a resource at or below it belongs to."""
    match = re.match(
        r"(?i)(/subscriptions/[^/]+/resourceGroups/[^/]+/providers/"
        r"Microsoft\.CognitiveServices/accounts/[^/]+)",
        id_,
    )
    return world.arm.find(match[1]) if match else None


def by_domain(world: World, domain: str) -> Record | None:
    """The live account with a custom subdomain, or None."""
    for record in world.arm.below("/subscriptions", ACCOUNTS, copied=False):
        if str(record.properties.get("customSubDomainName", "")).lower() == domain.lower():
            return Record.read(record.keep())
    return None


def by_key(world: World, key: str) -> Record | None:
    """The live account that an API key belongs to, or None."""
    for record in world.arm.below("/subscriptions", ACCOUNTS, copied=False):
        if key and key in (record.hidden.get("key1"), record.hidden.get("key2")):
            return Record.read(record.keep())
    return None


def key_revoked(record: Record) -> bool:
    """Whether the account is encrypted with a customer's key that is out of reach."""
    encryption = record.properties.get("encryption") or {}
    return encryption.get("keySource") == "Microsoft.KeyVault" and bool(
        record.hidden.get("key_revoked")
    )


def revoke_key(world: World, account_id: str, *, revoked: bool) -> Record:
    """Take the customer's key of an account away, or give it back. Raises ArmError 404."""
    record = world.arm.find(account_id)
    if record is None:
        raise world.arm.missing(parse_id(account_id))
    record.hidden["key_revoked"] = revoked
    rid = record.rid
    world.store.put(world.arm.space(rid.parent, rid.type), rid.key, record.keep())
    return record


def require_ready(world: World, rid: ResourceId) -> Record:
    """The account above a child that is to be written; refuses unless it is Succeeded."""
    record = account_of(world, rid.text)
    if record is None:
        raise world.arm.missing(rid)
    state = record.properties.get("provisioningState")
    if state != "Succeeded":
        raise ArmError(
            400,
            "AccountProvisioningStateInvalid",
            f"Account {record.id} in state {state}",
        )
    return record


def require_quiet(world: World, account: Record, *, but: str = "") -> None:
    """Refuse while another operation on the account or a deployment of it is running."""
    busy = (
        account.properties.get("provisioningState") not in _TERMINAL
        or account.id.lower() in world.held
    )
    for deployment in world.arm.children(account.id, DEPLOYMENTS, copied=False):
        state = deployment.properties.get("provisioningState")
        if state not in _TERMINAL and deployment.id.lower() != but:
            busy = True
    if busy:
        raise ArmError(
            409,
            "RequestConflict",
            "Another operation is being performed on the parent resource "
            f"'{account.id}'. Please wait for the operation to finish before making a new "
            "request.",
        )


def require_terminal(existing: Record | None) -> None:
    """Refuse a write to a resource that is still being written."""
    if existing is None:
        return
    if existing.properties.get("provisioningState", "Succeeded") not in _TERMINAL:
        raise ArmError(
            409,
            "RequestConflict",
            f"Cannot modify resource with id '{existing.id}' because the resource entity "
            "provisioning state is not terminal. Please wait for the provisioning state to become "
            "terminal and then retry the request.",
        )


def domain_taken(world: World, domain: str, *, but: str = "") -> bool:
    """Whether a custom subdomain belongs to an account, or to one that was deleted softly."""
    live = by_domain(world, domain)
    if live is not None and live.id.lower() != but:
        return True
    return any(
        str(gone["record"]["body"]["properties"].get("customSubDomainName", "")).lower()
        == domain.lower()
        and gone["record"]["id"].lower() != but
        for _, gone in world.store.items(DELETED)
    )


def identity_of(world: World, wanted: Any, existing: Any, tenant: str) -> Body | None:
    """An identity as the service answers it: principals made up, kept while the type stays."""
    if not isinstance(wanted, dict) or not wanted.get("type"):
        return None
    parts = {part.strip().lower() for part in str(wanted["type"]).split(",")}
    unknown = parts - {"none", "systemassigned", "userassigned"}
    if unknown:
        raise ArmError(
            400,
            "InvalidIdentityType",
            f"The identity type '{wanted['type']}' is invalid. Supported types: None, "
            "SystemAssigned, UserAssigned, SystemAssigned, UserAssigned.",
        )
    if parts == {"none"}:
        return {"type": "None"}
    before = existing if isinstance(existing, dict) else {}
    shown: Body = {}
    if "systemassigned" in parts:
        shown["principalId"] = before.get("principalId") or world.guid()
        shown["tenantId"] = before.get("tenantId") or tenant
    names = [n for p, n in (("systemassigned", "SystemAssigned"), ("userassigned", "UserAssigned"))
             if p in parts]  # fmt: skip
    shown["type"] = ", ".join(names)
    if "userassigned" in parts:
        given = wanted.get("userAssignedIdentities") or {}
        if not given:
            raise ArmError(
                400,
                "LinkedInvalidPropertyId",
                "The identity type 'UserAssigned' requires at least one user assigned identity.",
            )
        known = {k.lower(): v for k, v in (before.get("userAssignedIdentities") or {}).items()}
        assigned: Body = {}
        for id_ in given:
            old = known.get(id_.lower())
            found = world.arm.find(id_) if "/providers/" in id_.lower() else None
            props = found.properties if found is not None else {}
            assigned[id_] = old or {
                "principalId": props.get("principalId") or world.guid(),
                "clientId": props.get("clientId") or world.guid(),
            }
        shown["userAssignedIdentities"] = assigned
    return shown


def tenant_of(world: World, subscription: str) -> str:
    """The tenant of a subscription."""
    found = world.store.get("subscriptions", subscription.lower()) or {}
    return str(found.get("tenantId") or world.store.meta("tenant") or "")


class Accounts(Behaviour):
    """Microsoft.CognitiveServices/accounts."""

    type = ACCOUNTS
    tracked = True

    def __init__(self) -> None:
        # A list of a hundred accounts is megabytes of limits that never differ: keep the bytes.
        self._shown: dict[tuple[str, str], tuple[Body, Body, Any]] = {}

    def prepare(self, write: Write) -> Body:
        """Check an account and say what it becomes."""
        world, body, existing = write.world, write.body, write.existing
        require_terminal(existing)
        sent = body.get("properties")
        sent = sent if isinstance(sent, dict) else {}
        if existing is None:
            gone = _deleted_twin(world, write.rid)
            if sent.get("restore") is True:
                return self._restore(write, gone)
            if gone is not None:
                raise ArmError(
                    409,
                    "FlagMustBeSetForRestore",
                    f"An existing resource with ID '{gone['record']['id']}' has been soft-deleted. "
                    "To restore the resource, you must specify 'restore' to be 'true' in the "
                    "property. If you don't want to restore existing resource, please purge it "
                    "first.",
                )
        if existing is not None and not (write.patch and set(write.call.json()) <= {"tags"}):
            require_quiet(world, existing)
        self._check(write, sent)
        before = existing.properties if existing is not None else {}
        domain = sent.get("customSubDomainName") or before.get("customSubDomainName")
        properties: Body = {}
        for name in _SETTABLE:
            if sent.get(name) is not None:
                properties[name] = sent[name]
        if domain:
            properties["customSubDomainName"] = domain
        api = dict(properties.get("apiProperties") or {})
        for secret in _SECRET_API:
            if api.pop(secret, None):
                write.hidden[secret] = sent["apiProperties"][secret]
                api[secret] = None
        properties["apiProperties"] = api
        properties.setdefault("allowProjectManagement", False)
        properties.setdefault("publicNetworkAccess", "Enabled")
        if "networkAcls" in properties:
            properties["networkAcls"] = _network_rules(properties["networkAcls"])
        if existing is None:
            moment = wire_time(world.clock.now())
            properties["internalId"] = world.hex(32)
            properties["dateCreated"] = moment
            write.hidden["key1"], write.hidden["key2"] = new_key(world), new_key(world)
            write.hidden.setdefault("key_revoked", False)
        else:
            for name in ("internalId", "dateCreated"):
                properties[name] = before[name]
            for name in ("defaultProject", "associatedProjects"):
                if name in before:
                    properties.setdefault(name, before[name])
        properties["provisioningState"] = "Succeeded"
        result: Body = {
            "location": existing.body["location"] if existing else body["location"],
            "sku": {k: v for k, v in body["sku"].items() if v is not None},
            "kind": existing.body["kind"] if existing else self._kind(body),
        }
        if body.get("tags"):
            result["tags"] = {str(k): str(v) for k, v in body["tags"].items()}
        identity = identity_of(
            world,
            body.get("identity"),
            existing.body.get("identity") if existing else None,
            tenant_of(world, write.rid.subscription),
        )
        if identity is not None:
            result["identity"] = identity
        self._check_encryption(properties, identity)
        result["properties"] = properties
        if existing is None:
            write.operation = LongOperation(
                world.seconds("account-create"), "async", "Creating", retry_after=False
            )
        elif _without_tags(result) != _without_tags(existing.body):
            write.operation = LongOperation(
                world.seconds("account-update"), "async", "Accepted", retry_after=False
            )
        return result

    @staticmethod
    def _kind(body: Body) -> str:
        return next(k for k in KINDS if k.lower() == str(body["kind"]).lower())

    def _check(self, write: Write, sent: Body) -> None:
        world, body, existing, rid = write.world, write.body, write.existing, write.rid
        if not _NAME.match(rid.name):
            raise ArmError(
                400,
                "InvalidResourceName",
                f"The account name '{rid.name}' is invalid: it must be between 2 and 64 characters "
                "long and match '^[a-zA-Z0-9][a-zA-Z0-9_.-]*$'.",
            )
        if existing is None and not body.get("location"):
            raise ArmError(
                400, "LocationRequired", "The location property is required for this definition.",
                gateway=True,
            )  # fmt: skip
        if existing is not None:
            known = str(existing.body["location"])
            if body.get("location") and region_name(str(body["location"])) != region_name(known):
                raise ArmError(
                    409,
                    "InvalidResourceLocation",
                    f"The resource '{rid.name}' already exists in location '{known}' in resource "
                    f"group '{rid.group}'. A resource with the same name cannot be created in "
                    f"location '{body['location']}'. Please select a new resource name.",
                    gateway=True,
                )
            body.setdefault("kind", existing.body["kind"])
            body.setdefault("sku", existing.body["sku"])
            if str(body["kind"]).lower() != str(existing.body["kind"]).lower():
                raise ArmError(
                    400,
                    "AccountKindCannotBeChanged",
                    f"The kind of account '{rid.name}' is '{existing.body['kind']}' and cannot be "
                    f"changed to '{body['kind']}'.",
                )
        elif region_name(str(body["location"])) not in REGIONS:
            raise ArmError(
                400,
                "LocationNotAvailableForResourceType",
                f"The provided location '{body['location']}' is not available for resource type "
                f"'{ACCOUNTS}'. List of available regions for the resource type is "
                f"'{','.join(REGIONS)}'.",
                gateway=True,
            )
        kind = str(body.get("kind") or "")
        if kind.lower() not in {k.lower() for k in KINDS}:
            raise ArmError(
                400,
                "InvalidApiSetId",
                f"The account type '{kind}' is either invalid or unavailable in given region.",
            )
        sku = body.get("sku")
        name = sku.get("name") if isinstance(sku, dict) else None
        if name not in KINDS[self._kind(body)]:
            raise ArmError(400, "InvalidSkuId", f"The sku '{name}' is invalid for kind '{kind}'.")
        self._check_domain(write, sent)
        if existing is None and self._kind(body) in OPENAI_KINDS:
            region = str(body["location"])
            limit = quota_limit(world, rid.subscription, region, ACCOUNT_COUNT)
            if accounts_in(world, rid.subscription, region) >= limit:
                raise ArmError(
                    400,
                    "InsufficientQuota",
                    f"Insufficient quota. Cannot create/update/move resource '{rid.name}'.",
                )

    def _check_domain(self, write: Write, sent: Body) -> None:
        domain = sent.get("customSubDomainName")
        before = write.existing.properties.get("customSubDomainName") if write.existing else None
        if domain is None:
            if sent.get("allowProjectManagement") is True and not before:
                raise ArmError(
                    400,
                    "CustomDomainRequired",
                    "A custom subdomain name is required when 'allowProjectManagement' is true.",
                )
            return
        if before and str(before).lower() != str(domain).lower():
            raise ArmError(
                400,
                "CustomSubDomainNameCannotBeChanged",
                f"The custom subdomain name '{before}' is set already and cannot be changed.",
            )
        if not isinstance(domain, str) or not _DOMAIN.match(domain):
            raise ArmError(
                400, "BadRequest", f"The subdomain name '{domain}' is not allowed or is invalid."
            )
        if domain_taken(write.world, domain, but=write.rid.key):
            raise ArmError(
                409,
                "CustomDomainInUse",
                "Please pick a different name. The subdomain name "
                f"'{domain}' is not available as it's already used by a resource.",
            )

    @staticmethod
    def _check_encryption(properties: Body, identity: Body | None) -> None:
        encryption = properties.get("encryption")
        if not isinstance(encryption, dict):
            return
        if encryption.get("keySource") != "Microsoft.KeyVault":
            return
        key = encryption.get("keyVaultProperties") or {}
        if not key.get("keyName") or not key.get("keyVaultUri"):
            raise ArmError(
                400,
                "InvalidEncryptionProperties",
                "keyName and keyVaultUri are required when keySource is Microsoft.KeyVault.",
            )
        if identity is None or identity["type"] == "None":
            raise ArmError(
                400,
                "IdentityRequired",
                "A managed identity is required to reach the key vault of a customer-managed key.",
            )

    # -- soft deletion --------------------------------------------------------------------------

    def _restore(self, write: Write, gone: Body | None) -> Body:
        world, rid = write.world, write.rid
        if gone is None:
            raise ArmError(
                404,
                "ResourceNotFound",
                f"No soft-deleted account '{rid.name}' was found in resource group '{rid.group}' "
                f"and location '{write.body.get('location', '')}'.",
            )
        record = Record.read(gone["record"])
        location = write.body.get("location")
        if location and region_name(str(location)) != gone["region"]:
            raise ArmError(
                409,
                "InvalidResourceLocation",
                f"The soft-deleted account '{rid.name}' is in location '{gone['region']}'.",
            )
        world.store.remove(DELETED, gone["key"])
        write.hidden.update(record.hidden)
        body = record.body
        for name in ("deletionDate", "scheduledPurgeDate"):
            body["properties"].pop(name, None)
        # Projects and their default are gone for good; so is what hung on private endpoints.
        for name in ("defaultProject", "associatedProjects"):
            body["properties"].pop(name, None)
        if write.body.get("tags"):
            body["tags"] = write.body["tags"]
        body["properties"]["provisioningState"] = "Succeeded"
        write.hidden["returning"] = gone["children"]
        write.operation = LongOperation(
            world.seconds("account-create"), "async", "Accepted", retry_after=False
        )
        return body

    def saved(self, write: Write, record: Record) -> None:
        """Bring the children of a restored account back when nothing has to be waited for."""
        if "returning" in record.hidden and _state(record) == "Succeeded":
            self._return_children(write.world, record)
            write.world.arm.save(record)

    @staticmethod
    def _return_children(world: World, record: Record) -> None:
        for kept in record.hidden.pop("returning", []):
            child = Record.read(kept)
            rid = child.rid
            world.store.put(world.arm.space(rid.parent, rid.type), rid.key, child.keep())

    def completed(self, world: World, record: Record) -> None:
        """The account is there; a restored one has its deployments and policies back."""
        record.properties["provisioningState"] = "Succeeded"
        self._return_children(world, record)

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse while it is being written, or while projects are nested in it."""
        require_quiet(world, record)
        projects = world.arm.children(record.id, f"{ACCOUNTS}/projects")
        if projects:
            nested = ", ".join(f"'{p.rid.text.partition('/providers/')[2]}'" for p in projects[:5])
            raise ArmError(
                409,
                "CannotDeleteResource",
                "Cannot delete resource while nested resources exist. Some existing nested "
                f"resource IDs include: {nested}. Please delete all nested resources before "
                "deleting this resource.",
                gateway=True,
            )

    def leaving(self, world: World, record: Record) -> None:
        """Put aside what comes back when the account is restored."""
        lost = ("/projects", "/privateendpointconnections", "/capabilityhosts")
        record.hidden["returning"] = [
            child.keep()
            for child in world.arm.below(record.id)
            if child.type.lower().startswith(f"{ACCOUNTS}/".lower())
            and not any(part in child.type.lower() for part in lost)
        ]

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """Keep the account for 48 hours."""
        rid = record.rid
        now = world.clock.now()
        until = now.timestamp() + RETENTION
        record.properties["deletionDate"] = wire_time(now)
        record.properties["scheduledPurgeDate"] = wire_time(now + timedelta(seconds=RETENTION))
        record.properties["provisioningState"] = "Succeeded"
        record.etag = f'"{world.guid()}"'
        region = region_name(str(record.body["location"]))
        key = f"{rid.subscription}/{region}/{rid.group}/{rid.name}".lower()
        children = record.hidden.pop("returning", [])
        world.store.put(
            DELETED,
            key,
            {
                "key": key,
                "record": record.keep(),
                "children": children,
                "subscription": rid.subscription.lower(),
                "region": region,
                "group": rid.group,
                "until": until,
            },
        )
        _forget_agents(world, rid.key)
        world.after(RETENTION, PURGE, {"key": key, "until": until})

    # -- what is shown --------------------------------------------------------------------------

    def view(self, world: World, record: Record) -> Body:
        """The account as GET shows it, with everything that the service computes."""
        shown: Body = {
            "id": record.id,
            "name": record.name,
            "type": record.type,
            "etag": record.etag,
        }
        for name in ("location", "sku", "kind", "tags", "identity"):
            if name in record.body:
                shown[name] = record.body[name]
        shown["properties"] = account_properties(world, record)
        shown["systemData"] = record.system
        return shown

    def shown_in_list(self, world: World, record: Record) -> Any:
        """The account as a list shows it: the same, as bytes that are kept until it changes."""
        space = f"arm:{record.id.lower()}|{ACCOUNTS}/privateEndpointConnections".lower()
        if world.store.count(space) or world.store.count("cs:associations"):
            return self.view(world, record)
        key = (record.id.lower(), world.base)
        known = self._shown.get(key)
        if known is not None and known[0] is record.body and known[1] is record.system:
            return known[2]
        fragment = orjson.Fragment(orjson.dumps(self.view(world, record)))
        if len(self._shown) > 5000:
            self._shown.clear()
        self._shown[key] = (record.body, record.system, fragment)
        return fragment

    # -- actions --------------------------------------------------------------------------------

    def post(
        self, world: World, call: Call, rid: ResourceId, action: str, record: Record
    ) -> Answer:
        """Answer listKeys and regenerateKey."""
        match action.lower():
            case "listkeys":
                self._require_local(record)
                return Answer(200, {"key1": record.hidden["key1"], "key2": record.hidden["key2"]})
            case "regeneratekey":
                self._require_local(record)
                world.access.check_locks(call, rid.text, delete=False)
                name = str(call.json().get("keyName", ""))
                if name.lower() not in ("key1", "key2"):
                    raise ArmError(
                        400, "InvalidKeyName", f"The key name '{name}' is invalid: Key1 or Key2."
                    )
                record.hidden[name.lower()] = new_key(world)
                world.store.put(
                    world.arm.space(rid.parent, rid.type), record.rid.key, record.keep()
                )
                return Answer(200, {"key1": record.hidden["key1"], "key2": record.hidden["key2"]})
            case _:
                return super().post(world, call, rid, action, record)

    @staticmethod
    def _require_local(record: Record) -> None:
        if record.properties.get("disableLocalAuth") is True:
            raise ArmError(
                400,
                "BadRequest",
                "Failed to list key. disableLocalAuth is set to be true",
            )


def new_key(world: World) -> str:
    """An account key as the service makes them now: 84 characters."""
    return base64.b64encode(world.chance_bytes(63)).decode().replace("+", "A").replace("/", "B")


def endpoint(world: World, record: Record, suffix: str) -> str:
    """The address of one data plane of an account in this sandbox, with a final slash."""
    domain = record.properties.get("customSubDomainName")
    if domain:
        return f"{world.base}/dp/{str(domain).lower()}.{suffix}/"
    return f"{world.base}/dp/{region_name(str(record.body['location']))}.api/"


def account_properties(world: World, record: Record) -> Body:
    """`properties` as GET shows them."""
    kept, kind = record.properties, record.body.get("kind")
    suffix = "openai" if kind == "OpenAI" else "cognitiveservices"
    shown: Body = {"endpoint": endpoint(world, record, suffix)}
    for name in ("internalId", "dateCreated"):
        if name in kept:
            shown[name] = kept[name]
    shown |= {k: v for k, v in kept.items() if k != "provisioningState"}
    endpoints: Body = {}
    if kind == "OpenAI":
        rules, capabilities = _OPENAI_RULES, _OPENAI_CAPABILITIES
        endpoints = dict.fromkeys(_OPENAI_APIS, endpoint(world, record, "openai"))
    elif kind == "AIServices":
        rules, capabilities = _AI_RULES, _AI_CAPABILITIES
        endpoints = dict.fromkeys(_FOUNDRY_APIS, endpoint(world, record, "services.ai"))
        endpoints |= dict.fromkeys(_OPENAI_APIS, endpoint(world, record, "openai"))
        endpoints |= dict.fromkeys(_AI_APIS, endpoint(world, record, "cognitiveservices"))
    else:
        rules, capabilities = _PLAIN_RULES, _PLAIN_CAPABILITIES
        endpoints = {str(kind): endpoint(world, record, "cognitiveservices")}
    shown["callRateLimit"] = {"rules": rules}
    shown["isMigrated"] = False
    arm = world.arm
    if "deletionDate" not in kept:
        connections = arm.children(record.id, f"{ACCOUNTS}/privateEndpointConnections")
        behaviour = arm.behaviours.get(f"{ACCOUNTS}/privateEndpointConnections".lower())
        shown["privateEndpointConnections"] = [
            behaviour.view(world, connection) for connection in connections if behaviour
        ]
        associations = [
            {"commitmentPlanId": a["plan"], "commitmentPlanLocation": a["location"]}
            for _, a in world.store.items("cs:associations")
            if a["account"] == record.id.lower()
        ]
        if associations:
            shown["commitmentPlanAssociations"] = associations
    shown["capabilities"] = capabilities
    shown["endpoints"] = endpoints
    shown["provisioningState"] = kept.get("provisioningState", "Succeeded")
    return shown


def _network_rules(rules: Any) -> Any:
    if not isinstance(rules, dict):
        return rules
    shown = {"defaultAction": "Allow", "virtualNetworkRules": [], "ipRules": []}
    return shown | {k: v for k, v in rules.items() if v is not None}


def _without_tags(body: Body) -> Body:
    properties = {k: v for k, v in body["properties"].items() if k != "provisioningState"}
    return {k: v for k, v in body.items() if k != "tags"} | {"properties": properties}


def _state(record: Record) -> str:
    return str(record.properties.get("provisioningState", ""))


# -- deleted accounts ---------------------------------------------------------------------------


def _deleted_twin(world: World, rid: ResourceId) -> Body | None:
    for _, gone in world.store.items(DELETED):
        if gone["record"]["id"].lower() == rid.key:
            return gone
    return None


def _forget_agents(world: World, account: str) -> None:
    """Agents and their conversations do not come back when an account is restored."""
    for space in world.store.spaces():
        if space.startswith(f"dp:{account}/projects/"):
            for key, _ in world.store.items(space):
                world.store.remove(space, key)


def forget_data(world: World, account: str) -> None:
    """Remove everything that the data plane keeps for an account."""
    for space in world.store.spaces():
        if space.startswith((f"dp:{account}:", f"dp:{account}/")):
            for key, _ in world.store.items(space):
                world.store.remove(space, key)


def deleted_shown(world: World, gone: Body) -> Body:
    """A deleted account as lists and GET show it."""
    record = Record.read(gone["record"])
    rid = record.rid
    shown: Body = {
        "id": f"/subscriptions/{rid.subscription}/providers/{NAMESPACE}/locations/{gone['region']}"
        f"/resourceGroups/{rid.group}/deletedAccounts/{record.name}",
        "name": record.name,
        "type": f"{NAMESPACE}/deletedAccounts",
        "etag": record.etag,
    }
    for name in ("location", "sku", "kind"):
        if name in record.body:
            shown[name] = record.body[name]
    shown["tags"] = record.body.get("tags", {})
    shown["properties"] = account_properties(world, record)
    shown["identity"] = record.body.get("identity", {"type": "None"})
    shown["systemData"] = record.system
    return shown


def _list_deleted(world: World, call: Call, parts: dict[str, str]) -> Answer:
    found = [
        deleted_shown(world, gone)
        for _, gone in world.store.items(DELETED)
        if gone["subscription"] == parts["subscription"].lower()
        and parts.get("location", gone["region"]) in ("", gone["region"])
    ]
    return world.arm.page(call, found)


def _deleted_key(parts: dict[str, str]) -> str:
    return "/".join(
        (parts["subscription"], region_name(parts["location"]), parts["group"], parts["account"])
    ).lower()


def _get_deleted(world: World, call: Call, parts: dict[str, str]) -> Answer:
    gone = world.store.get(DELETED, _deleted_key(parts))
    if gone is None:
        raise ArmError(
            404,
            "DeletedAccountNotFound",
            f"The deleted account '{parts['account']}' could not be found in location "
            f"'{parts['location']}'.",
        )
    shown = deleted_shown(world, gone)
    return Answer(200, shown, {"etag": shown["etag"]})


def _purge(world: World, call: Call, parts: dict[str, str]) -> Answer:
    key = _deleted_key(parts)
    gone = world.store.remove(DELETED, key)
    if gone is None:
        return Answer(204)
    forget_data(world, gone["record"]["id"].lower())
    seconds = world.seconds("purge")
    if seconds <= 0:
        return Answer(200)
    # The operation is about the deleted account's own id; at its end nothing is there: 204.
    headers = world.arm.start(
        call,
        "/" + call.path.strip("/"),
        LongOperation(seconds, "location"),
        location=segment_after(call.path, "locations"),
    )
    return Answer(202, None, headers)


def _purge_due(world: World, body: Body) -> None:
    gone = world.store.get(DELETED, body["key"])
    if gone is not None and gone["until"] == body["until"]:
        world.store.remove(DELETED, body["key"])
        forget_data(world, gone["record"]["id"].lower())


def purge_at(gone: Body) -> float:
    """When a deleted account goes for good, in seconds since 1970."""
    stamp = gone["record"]["body"]["properties"]["scheduledPurgeDate"]
    return parse_time(stamp).timestamp()


def register(world: World) -> None:
    """Teach the engine accounts and their deletion."""
    arm = world.arm
    arm.add(Accounts())
    world.on(PURGE, _purge_due)
    base = f"/subscriptions/{{subscription}}/providers/{NAMESPACE}"
    read = f"{NAMESPACE}/deletedAccounts/read"
    arm.route("GET", f"{base}/deletedAccounts", read, _list_deleted)
    arm.route("GET", f"{base}/locations/{{location}}/deletedAccounts", read, _list_deleted)
    one = f"{base}/locations/{{location}}/resourceGroups/{{group}}/deletedAccounts/{{account}}"
    arm.route(
        "GET", one, f"{NAMESPACE}/locations/resourceGroups/deletedAccounts/read", _get_deleted
    )
    arm.route("DELETE", one, f"{NAMESPACE}/locations/resourceGroups/deletedAccounts/delete", _purge)
