"""Responsible AI: content filter policies, blocklists, their items and custom topics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import orjson

from drills.sandbox.arm import Behaviour, LongOperation, Record, Write
from drills.sandbox.clock import wire_time
from drills.sandbox.ids import ResourceId, parse_id
from drills.sandbox.providers import cognitive_accounts as accounts
from drills.sandbox.providers.cognitive_quota import ACCOUNTS, DEPLOYMENTS
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

POLICIES, BLOCKLISTS = f"{ACCOUNTS}/raiPolicies", f"{ACCOUNTS}/raiBlocklists"
ITEMS, TOPICS = f"{BLOCKLISTS}/raiBlocklistItems", f"{ACCOUNTS}/raitopics"
TRAINED = "cs.topic-trained"
MODES = ("Default", "Deferred", "Blocking", "Asynchronous_filter")
SOURCES = ("Prompt", "Completion", "PreToolCall", "PostToolCall", "PreRun", "PostRun")
LEVELS = ("Low", "Medium", "High")
_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")
_HARMS = ("Hate", "Sexual", "Violence", "Selfharm")
# name, source, on in Microsoft.Default, on in Microsoft.DefaultV2, several levels
FILTERS: tuple[tuple[str, str, bool, bool, bool], ...] = (
    *((harm, source, True, True, True) for harm in _HARMS for source in ("Prompt", "Completion")),
    ("Jailbreak", "Prompt", False, True, False),
    ("Indirect Attack", "Prompt", False, False, False),
    ("Profanity", "Prompt", False, False, False),
    ("Profanity", "Completion", False, False, False),
    ("Protected Material Text", "Completion", False, True, False),
    ("Protected Material Code", "Completion", False, True, False),
)
_DELETE = LongOperation(1.0, "location", retry_after=False)


def _filter(name: str, source: str, *, on: bool, levels: bool) -> Body:
    shown: Body = {"name": name, "blocking": on, "enabled": on}
    if levels:
        shown["severityThreshold"] = "Medium"
    return shown | {"source": source}


SYSTEM_POLICIES: dict[str, list[Body]] = {
    "Microsoft.Default": [
        _filter(n, s, on=v1, levels=m) for n, s, v1, _, m in FILTERS if v1 or n == "Jailbreak"
    ],
    "Microsoft.DefaultV2": [_filter(n, s, on=v2, levels=m) for n, s, _, v2, m in FILTERS],
}


def _invalid(message: str) -> ArmError:
    return ArmError(400, "InvalidResourceProperties", message)


def child_ready(write: Write) -> Record:
    """The account above, ready and quiet; the child's own name checked."""
    account = accounts.require_ready(write.world, write.rid)
    accounts.require_quiet(write.world, account)
    if not _NAME.match(write.rid.name):
        raise ArmError(
            400,
            "InvalidResourceName",
            f"The name '{write.rid.name}' does not match '^[a-zA-Z0-9][a-zA-Z0-9_.-]*$'.",
        )
    return account


def kept_tags(body: Body) -> Body:
    """The tags of a request as they are kept; nothing when there are none."""
    tags = body.get("tags")
    return {"tags": {str(k): str(v) for k, v in tags.items()}} if isinstance(tags, dict) else {}


class Policies(Behaviour):
    """Microsoft.CognitiveServices/accounts/raiPolicies."""

    type = POLICIES
    patchable = False
    delete_status = 204
    delete_operation = _DELETE

    @staticmethod
    def _system(account: str, name: str) -> Record:
        moment = "2024-01-01T00:00:00Z"
        return Record(
            id=f"{account}/raiPolicies/{name}",
            type=POLICIES,
            name=name,
            body={
                "properties": {
                    "type": "SystemManaged",
                    "mode": "Blocking" if name == "Microsoft.Default" else "Default",
                    "contentFilters": SYSTEM_POLICIES[name],
                }
            },
            etag=f'"{name}"',
            system={
                "createdBy": "Microsoft",
                "createdByType": "Application",
                "createdAt": moment,
                "lastModifiedBy": "Microsoft",
                "lastModifiedByType": "Application",
                "lastModifiedAt": moment,
            },
        )

    def list_extra(self, world: World, call: Call, parent: str) -> Iterable[Record]:
        """The system's own policies stand in every account that can have deployments."""
        account = world.arm.find(parent)
        if account is None or account.body.get("kind") not in accounts.OPENAI_KINDS:
            return ()
        return [self._system(account.id, name) for name in SYSTEM_POLICIES]

    def find_extra(self, world: World, rid: ResourceId) -> Record | None:
        """A system policy by name."""
        for name in SYSTEM_POLICIES:
            account = world.arm.find(rid.parent) if name.lower() == rid.name.lower() else None
            if account is not None and account.body.get("kind") in accounts.OPENAI_KINDS:
                return self._system(account.id, name)
        return None

    @staticmethod
    def _refuse_system(name: str) -> None:
        if name.lower().startswith("microsoft."):
            raise ArmError(
                400,
                "SystemManagedRaiPolicyNotWritable",
                f"The RAI policy '{name}' is managed by the system and cannot be changed or "
                "deleted.",
            )

    def prepare(self, write: Write) -> Body:
        """Check filters, base, blocklists and topics; fill in what the base says."""
        account = child_ready(write)
        self._refuse_system(write.rid.name)
        sent = write.body.get("properties")
        sent = sent if isinstance(sent, dict) else {}
        mode = sent.get("mode") or "Default"
        if mode not in MODES:
            raise _invalid(f"The mode '{mode}' is invalid: {', '.join(MODES)}.")
        base = str(sent.get("basePolicyName") or "Microsoft.DefaultV2")
        found = write.world.arm.find(f"{account.id}/raiPolicies/{base}")
        if found is None or found.id.lower() == write.rid.key:
            raise _invalid(f"The base policy '{base}' could not be found.")
        properties: Body = {
            "type": "UserManaged",
            "mode": mode,
            "basePolicyName": found.name,
            "contentFilters": self._filters(sent.get("contentFilters"), found),
        }
        lists = self._lists(write, account, sent.get("customBlocklists"))
        if lists is not None:
            properties["customBlocklists"] = lists
        topics = sent.get("customTopics")
        if topics is not None:
            for topic in _tables(topics, "customTopics"):
                name = topic.get("topicName")
                if write.world.arm.find(f"{account.id}/raitopics/{name}") is None:
                    raise _invalid(f"The custom topic '{name}' could not be found.")
            properties["customTopics"] = topics
        if sent.get("safetyProviders") is not None:
            properties["safetyProviders"] = sent["safetyProviders"]
        return {"properties": properties, **kept_tags(write.body)}

    @staticmethod
    def _filters(sent: Any, base: Record) -> list[Body]:
        defaults = base.properties.get("contentFilters", [])
        if not sent:
            return [dict(f) for f in defaults]
        levels = {(n.lower(), s): m for n, s, _, _, m in FILTERS}
        shown: list[Body] = []
        for one in _tables(sent, "contentFilters"):
            name, source = str(one.get("name", "")), str(one.get("source", ""))
            if source not in SOURCES:
                raise _invalid(f"The source '{source}' of content filter '{name}' is invalid.")
            if (name.lower(), source) not in levels:
                raise _invalid(f"The content filter '{name}' for source '{source}' is unknown.")
            filled: Body = {
                "name": name,
                "blocking": bool(one.get("blocking", True)),
                "enabled": bool(one.get("enabled", True)),
            }
            if levels[name.lower(), source]:
                level = one.get("severityThreshold") or "Medium"
                if level not in LEVELS:
                    raise _invalid(
                        f"The severityThreshold '{level}' of content filter '{name}' is invalid: "
                        f"{', '.join(LEVELS)}."
                    )
                filled["severityThreshold"] = level
            filled["source"] = source
            if one.get("action"):
                filled["action"] = one["action"]
            if any(f["name"].lower() == name.lower() and f["source"] == source for f in shown):
                raise _invalid(f"The content filter '{name}' for '{source}' is given twice.")
            shown.append(filled)
        given = {(f["name"].lower(), f["source"]) for f in shown}
        shown.extend(dict(f) for f in defaults if (f["name"].lower(), f["source"]) not in given)
        return shown

    @staticmethod
    def _lists(write: Write, account: Record, sent: Any) -> list[Body] | None:
        if sent is None:
            return None
        for one in _tables(sent, "customBlocklists"):
            name, source = one.get("blocklistName"), one.get("source")
            if write.world.arm.find(f"{account.id}/raiBlocklists/{name}") is None:
                raise _invalid(f"The blocklist '{name}' could not be found.")
            if source not in SOURCES:
                raise _invalid(f"The source '{source}' of blocklist '{name}' is invalid.")
        return [{"blocking": True, **one} for one in sent]

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse for system policies and for those that a deployment or policy builds on."""
        self._refuse_system(record.name)
        account = accounts.require_ready(world, record.rid)
        accounts.require_quiet(world, account)
        wanted = record.name.lower()
        for deployment in world.arm.children(account.id, DEPLOYMENTS):
            if str(deployment.properties.get("raiPolicyName", "")).lower() == wanted:
                raise ArmError(
                    400,
                    "RaiPolicyInUse",
                    f"The RAI policy '{record.name}' is used by deployment '{deployment.name}' and "
                    "cannot be deleted.",
                )
        for other in world.arm.children(account.id, POLICIES):
            if str(other.properties.get("basePolicyName", "")).lower() == wanted:
                raise ArmError(
                    400,
                    "RaiPolicyInUse",
                    f"The RAI policy '{record.name}' is the base of policy '{other.name}' and "
                    "cannot be deleted.",
                )


def _tables(value: Any, what: str) -> list[Body]:
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise _invalid(f"'{what}' must be a list of objects.")
    return value


def _refuse_used(world: World, record: Record, field: str, name_field: str, what: str) -> None:
    account = accounts.require_ready(world, record.rid)
    accounts.require_quiet(world, account)
    for policy in world.arm.children(account.id, POLICIES):
        for one in policy.properties.get(field) or []:
            if str(one.get(name_field, "")).lower() == record.name.lower():
                raise ArmError(
                    400,
                    f"{what}InUse",
                    f"'{record.name}' is used by RAI policy '{policy.name}' and cannot be deleted.",
                )


class Blocklists(Behaviour):
    """Microsoft.CognitiveServices/accounts/raiBlocklists."""

    type = BLOCKLISTS
    patchable = False
    delete_status = 204
    delete_operation = _DELETE

    def prepare(self, write: Write) -> Body:
        """A description, and nothing else."""
        child_ready(write)
        sent = write.body.get("properties")
        sent = sent if isinstance(sent, dict) else {}
        properties = {"description": str(sent["description"])} if sent.get("description") else {}
        return {"properties": properties, **kept_tags(write.body)}

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse while a policy names it."""
        _refuse_used(world, record, "customBlocklists", "blocklistName", "RaiBlocklist")

    def post(
        self, world: World, call: Call, rid: ResourceId, action: str, record: Record
    ) -> Answer:
        """Add or delete many items with one write."""
        if action.lower() not in ("addraiblocklistitems", "deleteraiblocklistitems"):
            return super().post(world, call, rid, action, record)
        account = accounts.require_ready(world, rid)
        accounts.require_quiet(world, account)
        try:
            sent = orjson.loads(call.body)
        except orjson.JSONDecodeError:
            sent = None
        if not isinstance(sent, list):
            raise ArmError(
                400, "InvalidRequestContent", "The request content must be a JSON array."
            )
        if action.lower().startswith("delete"):
            for name in sent:
                item = world.arm.find(f"{record.id}/raiBlocklistItems/{name}")
                if item is not None:
                    world.arm.drop(item)
                    world.activity.changed(call, before=item, after=None)
            return Answer(204)
        for one in sent:
            name = one.get("name") if isinstance(one, dict) else None
            if not isinstance(name, str) or not _NAME.match(name):
                raise ArmError(400, "InvalidResourceName", f"The item name '{name}' is invalid.")
            self._add(world, call, parse_id(f"{record.id}/raiBlocklistItems/{name}"), one)
        fresh = world.arm.find(record.id) or record
        return Answer(200, self.view(world, fresh), {"etag": fresh.etag})

    @staticmethod
    def _add(world: World, call: Call, rid: ResourceId, one: Body) -> None:
        before = world.arm.find(rid)
        by = call.caller.label if call.caller else ""
        kind = "User" if call.caller and call.caller.kind == "User" else "Application"
        now = wire_time(world.clock.now())
        system = {"createdBy": by, "createdByType": kind, "createdAt": now}
        if before is not None:
            system = {k: before.system[k] for k in system if k in before.system}
        record = Record(
            id=before.id if before else rid.text,
            type=ITEMS,
            name=before.name if before else rid.name,
            body={"properties": _pattern(one.get("properties"))},
            system=system
            | {"lastModifiedBy": by, "lastModifiedByType": kind, "lastModifiedAt": now},
        )
        world.arm.save(record)
        world.activity.changed(call, before=before, after=record)


def _pattern(sent: Any) -> Body:
    sent = sent if isinstance(sent, dict) else {}
    pattern, regex = sent.get("pattern"), bool(sent.get("isRegex", False))
    if not isinstance(pattern, str) or not pattern:
        raise _invalid("The 'pattern' of a blocklist item is required.")
    if len(pattern) > 1000:
        raise _invalid("The 'pattern' of a blocklist item is longer than 1000 characters.")
    if regex:
        try:
            re.compile(pattern)
        except re.error as error:
            raise _invalid(
                f"The pattern '{pattern}' is not a regular expression: {error}."
            ) from None
    return {"pattern": pattern, "isRegex": regex}


class Items(Behaviour):
    """Microsoft.CognitiveServices/accounts/raiBlocklists/raiBlocklistItems."""

    type = ITEMS
    patchable = False
    delete_status = 204
    delete_operation = _DELETE

    def prepare(self, write: Write) -> Body:
        """A pattern, plain or a regular expression."""
        child_ready(write)
        return {"properties": _pattern(write.body.get("properties")), **kept_tags(write.body)}


class Topics(Behaviour):
    """Microsoft.CognitiveServices/accounts/raitopics."""

    type = TOPICS
    patchable = False
    delete_status = 204
    delete_operation = _DELETE

    def prepare(self, write: Write) -> Body:
        """A topic that is trained from now on."""
        child_ready(write)
        world, existing = write.world, write.existing
        sent = write.body.get("properties")
        sent = sent if isinstance(sent, dict) else {}
        now = wire_time(world.clock.now())
        old = existing.properties if existing else {}
        properties: Body = {
            "topicId": old.get("topicId") or world.guid(),
            "topicName": str(sent.get("topicName") or write.rid.name),
        }
        for name in ("description", "sampleBlobUrl"):
            if sent.get(name):
                properties[name] = str(sent[name])
        again = any(properties.get(n) != old.get(n) for n in ("description", "sampleBlobUrl"))
        training = (existing is None or again) and not world.instant
        properties |= {
            "status": "Training" if training else old.get("status", "Succeeded"),
            "createdAt": old.get("createdAt") or now,
            "lastModifiedAt": now,
        }
        write.hidden["training"] = world.hex(12) if training else ""
        return {"properties": properties, **kept_tags(write.body)}

    def saved(self, write: Write, record: Record) -> None:
        """Start the training."""
        if serial := record.hidden.get("training"):
            world = write.world
            body = {"id": record.id, "serial": serial}
            world.after(world.seconds("topic-training"), TRAINED, body)

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse while a policy names it."""
        _refuse_used(world, record, "customTopics", "topicName", "RaiTopic")


def _trained(world: World, body: Body) -> None:
    record = world.arm.find(body["id"])
    if record is None or record.hidden.get("training") != body["serial"]:
        return
    record.properties["status"] = "Succeeded"
    record.hidden["training"] = ""
    world.arm.save(record)


def _filter_shown(parts: dict[str, str], index: int) -> Body:
    name, source, _, _, levels = FILTERS[index]
    key = name.replace(" ", "") + ("" if source == "Prompt" else source)
    return {
        "id": f"/subscriptions/{parts['subscription']}/providers/{accounts.NAMESPACE}/locations/"
        f"{parts['location']}/raiContentFilters/{key}",
        "name": key,
        "type": f"{accounts.NAMESPACE}/locations/raiContentFilters",
        "properties": {"name": name, "isMultiLevelFilter": levels, "source": source},
    }


def _filters(world: World, call: Call, parts: dict[str, str]) -> Answer:
    return world.arm.page(call, [_filter_shown(parts, i) for i in range(len(FILTERS))])


def _one_filter(world: World, call: Call, parts: dict[str, str]) -> Answer:
    for index in range(len(FILTERS)):
        shown = _filter_shown(parts, index)
        if shown["name"].lower() == parts["filter"].replace(" ", "").lower():
            return Answer(200, shown)
    raise ArmError(
        404, "ResourceNotFound", f"The content filter '{parts['filter']}' could not be found."
    )


def register(world: World) -> None:
    """Teach the engine policies, blocklists, items and topics."""
    for behaviour in (Policies(), Blocklists(), Items(), Topics()):
        world.arm.add(behaviour)
    world.on(TRAINED, _trained)
    path = f"/subscriptions/{{subscription}}/providers/{accounts.NAMESPACE}/locations/{{location}}"
    read = f"{accounts.NAMESPACE}/locations/raiContentFilters/read"
    world.arm.route("GET", f"{path}/raiContentFilters", read, _filters)
    world.arm.route("GET", f"{path}/raiContentFilters/{{filter}}", read, _one_filter)
