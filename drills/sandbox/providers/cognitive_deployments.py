"""Deployments: quota, capacity, model availability and what the platform does to them by itself."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import datetime

from drills.sandbox.arm import Behaviour, LongOperation, Record, Write
from drills.sandbox.ids import ResourceId, parse_id, region_name
from drills.sandbox.providers import cognitive_accounts as accounts
from drills.sandbox.providers import cognitive_quota as quota
from drills.sandbox.providers.cognitive_models import (
    MODELS,
    PROVISIONED,
    SKUS,
    STANDARD_KINDS,
    ModelVersion,
)
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

IDLE = "cs.idle"
LIFECYCLE = "cs.lifecycle"
IDLE_SECONDS = 15 * 86400.0
MOST_STANDARD = 32  # per account, as the quotas page says
_NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}$")
_UPGRADES = ("OnceNewDefaultVersionAvailable", "OnceCurrentVersionExpired", "NoAutoUpgrade")
_SETTABLE = (
    "raiPolicyName",
    "capacitySettings",
    "parentDeploymentName",
    "spilloverDeploymentName",
    "scaleSettings",
    "serviceTier",
    "routing",
)


def models_space(account_id: str) -> str:
    """Where the data plane keeps an account's own models (item id: model id)."""
    return f"dp:{account_id.lower()}:models"


def serving(world: World, deployment: Record) -> bool:
    """Whether a deployment's model still answers: it is not retired, and nothing is paused."""
    model = version_of(deployment)
    if deployment.properties.get("deploymentState") == "Paused":
        return False
    return model is None or world.clock.now() < model.ends


def version_of(deployment: Record) -> ModelVersion | None:
    """The catalogue version behind a deployment (of a fine-tuned model: its base)."""
    model = deployment.properties.get("model") or {}
    found = quota.find_version(
        str(model.get("name", "")), str(model.get("version", "")), str(model.get("format", ""))
    )
    return found or quota.base_of(str(deployment.hidden.get("base") or model.get("name", "")))


class Deployments(Behaviour):
    """Microsoft.CognitiveServices/accounts/deployments."""

    type = quota.DEPLOYMENTS

    def prepare(self, write: Write) -> Body:
        """Check a deployment against everything that can forbid it."""
        world, body, existing, rid = write.world, write.body, write.existing, write.rid
        account = accounts.require_ready(world, rid)
        accounts.require_quiet(world, account)
        accounts.require_terminal(existing)
        if account.body.get("kind") not in accounts.OPENAI_KINDS:
            raise ArmError(
                400,
                "InvalidResourceProperties",
                f"Deployments are not supported for accounts of kind '{account.body.get('kind')}'.",
            )
        if not _NAME.match(rid.name):
            raise ArmError(
                400, "InvalidResourceName", f"The deployment name '{rid.name}' is invalid."
            )
        sent = body.get("properties")
        sent = dict(sent) if isinstance(sent, dict) else {}
        if write.patch and existing is not None:
            sent = dict(existing.properties)  # a PATCH changes tags and sku, nothing else
        model, wanted, base = self._model(write, account, sent)
        sku, capacity = self._sku(body, sent, existing)
        tuned = base is not None
        version = base or model
        if version is None:
            raise _unsupported(wanted)
        self._available(write, account, version, wanted, sku, tuned=tuned)
        properties: Body = {"model": wanted}
        properties["versionUpgradeOption"] = self._upgrade(sent, existing)
        for name in _SETTABLE:
            if sent.get(name) is not None:
                properties[name] = sent[name]
        self._references(world, account, rid, properties)
        self._capacity(write, account, version, sku, capacity, tuned=tuned)
        properties["currentCapacity"] = capacity
        capabilities = quota.capabilities(version)
        properties["capabilities"] = capabilities
        before = existing.properties if existing is not None else {}
        if state := sent.get("deploymentState") or before.get("deploymentState"):
            properties["deploymentState"] = state
        properties["provisioningState"] = "Succeeded"
        limits = quota.rate_limits(version, sku, capacity)
        if limits:
            properties["rateLimits"] = limits
        result: Body = {"sku": {"name": sku, "capacity": capacity}, "properties": properties}
        if body.get("tags"):
            result["tags"] = {str(k): str(v) for k, v in body["tags"].items()}
        now = world.clock.timestamp()
        same = existing is not None and existing.properties.get("model") == wanted
        write.hidden |= {
            "usage": quota.usage_name(version, sku, tuned=tuned),
            "model": version.name,
            "tuned": tuned,
            "base": f"{version.name}-{version.version}" if tuned else "",
            "deployed": existing.hidden.get("deployed", now) if existing and same else now,
        }
        if not (existing and same):
            write.hidden["serial"] = world.hex(16)
            write.hidden["last_used"] = 0.0
        self._take_time(write, result["sku"], tuned=tuned, same=same)
        quota.make_customer(world, rid.subscription, version)
        return result

    # -- the model ------------------------------------------------------------------------------

    def _model(
        self, write: Write, account: Record, sent: Body
    ) -> tuple[ModelVersion | None, Body, ModelVersion | None]:
        """The catalogue version, the model as it will be shown, and the base of a tuned one."""
        world = write.world
        model = sent.get("model")
        if not isinstance(model, dict) or not model.get("name"):
            raise ArmError(
                400,
                "InvalidResourceProperties",
                "The 'model' property with 'format' and 'name' is required for a deployment.",
            )
        name = str(model["name"])
        format_ = str(model.get("format") or "OpenAI")
        shown: Body = {"format": format_, "name": name}
        known = quota.versions(name, format_)
        if known:
            number = str(model.get("version") or "")
            if not number or number.lower() == "latest":
                picked = quota.default_version(name, world.clock.now(), format_)
            else:
                picked = quota.find_version(name, number, format_)
            shown |= {"format": known[0].format, "name": known[0].name}
            shown["version"] = picked.version if picked else number
            if picked is None:
                raise _unsupported(shown)
            self._keep_extras(shown, model)
            return picked, shown, None
        shown["version"] = str(model.get("version") or "1")
        self._keep_extras(shown, model)
        base = self._tuned(write, account, shown)
        return None, shown, base

    @staticmethod
    def _keep_extras(shown: Body, model: Body) -> None:
        for name in ("publisher", "source", "sourceAccount"):
            if model.get(name):
                shown[name] = model[name]

    def _tuned(self, write: Write, account: Record, model: Body) -> ModelVersion:
        world, name = write.world, str(model["name"])
        source = str(model.get("source") or model.get("sourceAccount") or "")
        owner, existing = account, write.existing
        if existing is not None and existing.properties.get("model") == model:
            # The weights are with the deployment already: it outlives the model it came from.
            found = quota.base_of(str(existing.hidden.get("base", "")))
            if found is not None:
                return found
        if source:
            owner = self._source(write, model, source)
        kept = world.store.get(models_space(owner.id), name)
        if kept is None:
            raise _unsupported(model)
        if accounts.key_revoked(account) or accounts.key_revoked(owner):
            raise ArmError(
                400,
                "KeyVaultKeyNotAccessible",
                "The customer-managed key of the account cannot be reached, so that fine-tuned "
                f"model '{name}' cannot be deployed.",
            )
        based = str(kept.get("base_model") or kept.get("model") or kept.get("base") or name)
        found = quota.base_of(based) or quota.base_of(name)
        if found is None:
            raise _unsupported(model)
        return found

    @staticmethod
    def _source(write: Write, model: Body, source: str) -> Record:
        world, call = write.world, write.call
        try:
            rid = parse_id(source)
        except ValueError:
            rid = None
        if rid is None or rid.type.lower() != quota.ACCOUNTS.lower() or rid.collection:
            raise ArmError(
                400,
                "InvalidResourceProperties",
                f"The model source '{source}' is not the resource id of an account.",
            )
        asking = call
        here = accounts.tenant_of(world, write.rid.subscription)
        there = accounts.tenant_of(world, rid.subscription)
        if there and there.lower() != here.lower():
            if not model.get("sourceAccount") or not call.headers.get(
                "x-ms-authorization-auxiliary"
            ):
                raise ArmError(
                    403,
                    "LinkedAuthorizationFailed",
                    "The source account is in another tenant: 'sourceAccount' and the header "
                    "'x-ms-authorization-auxiliary' are required.",
                )
            other = world.identity.caller(call, header="x-ms-authorization-auxiliary")
            asking = replace(call, caller=other)
        try:
            world.access.check(asking, f"{quota.ACCOUNTS}/read", rid.text)
        except ArmError as error:
            if error.status != 403:
                raise
            caller = call.caller
            raise ArmError(
                403,
                "LinkedAuthorizationFailed",
                f"The client '{caller.label if caller else ''}' with object id "
                f"'{caller.oid if caller else ''}' has permission to perform action "
                f"'{quota.DEPLOYMENTS}/write' on scope '{write.rid.text}'; however, it does not "
                f"have permission to perform action(s) '{quota.ACCOUNTS}/read' on the linked "
                f"scope(s) '{rid.text}' (respectively) or the linked scope(s) are invalid.",
                gateway=True,
            ) from None
        owner = world.arm.find(rid)
        if owner is None:
            raise ArmError(
                400,
                "InvalidResourceProperties",
                f"The source account '{source}' of the model could not be found.",
            )
        region = quota.region_of(owner)
        for _, fault in world.store.items("faults"):
            # The service copies the weights from the source's region, which must answer for that.
            if fault["kind"] == "outage" and region_name(str(fault.get("region", ""))) == region:
                raise ArmError(
                    503,
                    "ServiceUnavailable",
                    f"The source account '{source}' of the model cannot be reached in '{region}'.",
                )
        return owner

    # -- sku, availability, quota ---------------------------------------------------------------

    @staticmethod
    def _sku(body: Body, sent: Body, existing: Record | None) -> tuple[str, int]:
        sku = body.get("sku")
        if not isinstance(sku, dict) or not sku.get("name"):
            scale = sent.get("scaleSettings")
            if isinstance(scale, dict) and scale.get("scaleType"):
                sku = {"name": "Standard", "capacity": scale.get("capacity", 1)}
            elif existing is not None:
                sku = existing.body["sku"]
            else:
                raise ArmError(
                    400, "InvalidSku", "The sku of the deployment is required: name and capacity."
                )
        name = next((s for s in SKUS if s.lower() == str(sku["name"]).lower()), None)
        if name is None:
            raise ArmError(400, "InvalidSku", f"The sku '{sku['name']}' is not supported.")
        raw = sku.get("capacity")
        if raw is None:
            raw = existing.body["sku"]["capacity"] if existing is not None else 1
        try:
            capacity = int(raw)  # the command line client sends it as a string
        except (TypeError, ValueError):
            capacity = -1
        if capacity < 0 or isinstance(raw, bool):
            raise ArmError(
                400, "InvalidCapacity", f"The capacity '{raw}' is not a number of units."
            )
        return name, capacity

    @staticmethod
    def _available(
        write: Write, account: Record, version: ModelVersion, model: Body, sku: str, *, tuned: bool
    ) -> None:
        world, now = write.world, write.world.clock.now()
        region = quota.region_of(account)
        before = write.existing.properties.get("model") if write.existing else None
        label = f"Format:{model['format']},Name:{model['name']},Version:{model['version']}"
        if now >= version.ends:
            raise ArmError(
                400,
                "ServiceModelDeprecated",
                f"The model '{label}' has been deprecated since "
                f"{version.ends.strftime('%m/%d/%Y %H:%M:%S')}.",
            )
        status = quota.lifecycle(version, now)
        held = quota.is_customer(world, write.rid.subscription, version)
        if status == "Deprecating" and not tuned and before != model and not held:
            raise ArmError(
                400,
                "ServiceModelDeprecating",
                f"The model '{label}' is deprecating since "
                f"{version.deprecating.strftime('%m/%d/%Y %H:%M:%S')}: it is available to "
                "subscriptions with existing deployments of this version only.",
            )
        fits = version.tunable(sku, region) if tuned else version.offered(sku, region)
        if not fits:
            raise ArmError(
                400,
                "InvalidResourceProperties",
                f"The specified SKU '{sku}' for model '{model['name']} {model['version']}' is not "
                f"supported in this region '{region}'.",
            )

    @staticmethod
    def _upgrade(sent: Body, existing: Record | None) -> str:
        option = sent.get("versionUpgradeOption")
        if option is None:
            kept = existing.properties.get("versionUpgradeOption") if existing else None
            return str(kept or _UPGRADES[0])
        if option not in _UPGRADES:
            raise ArmError(
                400,
                "InvalidResourceProperties",
                f"The versionUpgradeOption '{option}' is not supported: {', '.join(_UPGRADES)}.",
            )
        return str(option)

    @staticmethod
    def _references(world: World, account: Record, rid: ResourceId, properties: Body) -> None:
        policy = properties.get("raiPolicyName")
        if policy is not None:
            found = world.arm.find(f"{account.id}/raiPolicies/{policy}")
            if found is None:
                raise ArmError(
                    400,
                    "InvalidResourceProperties",
                    f"The raiPolicy '{policy}' of the deployment could not be found in account "
                    f"'{account.name}'.",
                )
        for name in ("spilloverDeploymentName", "parentDeploymentName"):
            other = properties.get(name)
            if other is None:
                continue
            same = str(other).lower() == rid.name.lower()
            if same or world.arm.find(f"{account.id}/deployments/{other}") is None:
                raise ArmError(
                    400,
                    "InvalidResourceProperties",
                    f"The deployment '{other}' that {name} of '{rid.name}' names could not be found"
                    f" in account '{account.name}'.",
                )

    @staticmethod
    def _capacity(
        write: Write,
        account: Record,
        version: ModelVersion,
        sku: str,
        capacity: int,
        *,
        tuned: bool,
    ) -> None:
        world, existing = write.world, write.existing
        region, subscription = quota.region_of(account), write.rid.subscription
        usage = quota.usage_name(version, sku, tuned=tuned)
        before = 0
        if existing is not None and existing.hidden.get("usage") == usage:
            before = int(existing.body["sku"]["capacity"])
        smallest, step = version.provisioned if sku in PROVISIONED else (1, 1)
        if capacity < smallest or capacity % step:
            raise ArmError(
                400,
                "InvalidCapacity",
                f"The capacity {capacity} of sku '{sku}' is invalid for model '{version.name}': it "
                f"must be at least {smallest} and a multiple of {step}.",
            )
        if existing is None and sku in STANDARD_KINDS:
            siblings = world.arm.children(account.id, quota.DEPLOYMENTS, copied=False)
            if sum(s.body["sku"]["name"] in STANDARD_KINDS for s in siblings) >= MOST_STANDARD:
                raise ArmError(
                    400,
                    "QuotaExceeded",
                    f"The account '{account.name}' has reached the maximum of {MOST_STANDARD} "
                    "standard deployments.",
                )
        if capacity > before:
            me = write.rid.key
            used = quota.quota_used(world, subscription, region, usage, without=me)
            limit = quota.quota_limit(world, subscription, region, usage)
            if used + capacity > limit:
                label = quota.usage_label(usage)
                raise ArmError(
                    400,
                    "InsufficientQuota",
                    f"This operation require {capacity - before} new capacity in quota {label}, "
                    f"which is bigger than the current available capacity "
                    f"{max(0, limit - used - before)}. The current quota usage is {used + before} "
                    f"and the quota limit is {limit} for quota {label}.",
                )
            if sku in PROVISIONED:
                left = quota.capacity_left(world, region, sku, version, without=me)
                if capacity > left:
                    raise ArmError(
                        400,
                        "InsufficientCapacity" if existing is None else "InvalidCapacity",
                        f"There is no available capacity to scale out by {capacity - before} PTU "
                        f"for model '{version.name}' of sku '{sku}' in region '{region}': "
                        f"{max(0, left - before)} are available. Quota does not guarantee "
                        "capacity.",
                    )

    @staticmethod
    def _take_time(write: Write, sku: Body, *, tuned: bool, same: bool) -> None:
        world, existing = write.world, write.existing
        if existing is not None and same and existing.body["sku"] == sku:
            return
        what = "deployment-standard"
        if tuned and not same:
            what = "deployment-finetuned"
        elif sku["name"] in PROVISIONED:
            what = "deployment-provisioned"
        state = "Creating" if existing is None else "Accepted"
        style = "location" if write.patch else "async"
        write.operation = LongOperation(world.seconds(what), style, state)

    # -- what follows ---------------------------------------------------------------------------

    def saved(self, write: Write, record: Record) -> None:
        """Set the timers that watch over the deployment, and hold its account meanwhile."""
        world = write.world
        write.call.holds = record.rid.parent.lower()
        if record.hidden.get("tuned"):
            body = {"id": record.id.lower(), "serial": record.hidden["serial"]}
            if write.existing is None or write.existing.hidden.get("serial") != body["serial"]:
                world.after(IDLE_SECONDS, IDLE, body)
        watch_lifecycle(world)

    def before_delete(self, world: World, call: Call, record: Record) -> None:
        """Refuse while another operation is running, or while another deployment spills into it."""
        account = accounts.require_ready(world, record.rid)
        accounts.require_quiet(world, account)
        for other in world.arm.children(account.id, quota.DEPLOYMENTS):
            for name in ("spilloverDeploymentName", "parentDeploymentName"):
                if str(other.properties.get(name, "")).lower() == record.name.lower():
                    raise ArmError(
                        400,
                        "DeploymentInUse",
                        f"The deployment '{record.name}' is the {name} of deployment "
                        f"'{other.name}' and cannot be deleted.",
                    )

    def deleted(self, world: World, call: Call, record: Record) -> None:
        """Hold the account until the answer goes out."""
        call.holds = record.rid.parent.lower()

    def view(self, world: World, record: Record) -> Body:
        """The deployment in the order of the recordings: the etag last."""
        shown: Body = {"id": record.id, "type": record.type, "name": record.name}
        shown |= record.body
        shown["systemData"] = record.system
        shown["etag"] = record.etag
        return shown

    def post(
        self, world: World, call: Call, rid: ResourceId, action: str, record: Record
    ) -> Answer:
        """Pause and resume."""
        if action.lower() not in ("pause", "resume"):
            return super().post(world, call, rid, action, record)
        account = accounts.require_ready(world, rid)
        accounts.require_quiet(world, account)
        before = Record.read(record.keep())
        record.properties["deploymentState"] = "Paused" if action.lower() == "pause" else "Running"
        world.arm.save(record)
        world.activity.changed(call, before=before, after=record)
        return Answer(200, self.view(world, record), {"etag": record.etag})


def _unsupported(model: Body) -> ArmError:
    return ArmError(
        400,
        "DeploymentModelNotSupported",
        f"The model 'Format: {model.get('format')}, Name: {model.get('name')}, Version: "
        f"{model.get('version', '')}' of account deployment is not supported.",
    )


# -- what the platform does by itself -----------------------------------------------------------


def _idle_due(world: World, body: Body) -> None:
    record = world.arm.find(body["id"])
    if record is None or record.hidden.get("serial") != body["serial"]:
        return
    last = max(float(record.hidden.get("last_used") or 0), float(record.hidden["deployed"]))
    rest = last + IDLE_SECONDS - float(body["due"])
    if rest > 0:
        world.after(
            last + IDLE_SECONDS - world.clock.timestamp(),
            IDLE,
            {"id": body["id"], "serial": body["serial"]},
        )
        return
    world.arm.drop(record)
    world.activity.platform(
        record.id,
        f"{quota.DEPLOYMENTS}/delete",
        "The deployment of a fine-tuned model was deleted after 15 days without a call.",
    )


def _dates() -> list[datetime]:
    found = {m.ends for m in MODELS} | {m.default_from for m in MODELS if m.default_from}
    return sorted(found)


def watch_lifecycle(world: World) -> None:
    """Have the platform look at all deployments when the next date of the catalogue comes."""
    now = world.clock.timestamp()
    kept = world.store.get("cs:watch", "lifecycle")
    if kept is not None and kept["due"] > now:
        return
    ahead = [d.timestamp() for d in _dates() if d.timestamp() > now]
    if ahead:
        world.store.put("cs:watch", "lifecycle", {"due": ahead[0]})
        world.after(ahead[0] - now, LIFECYCLE, {})


def _lifecycle_due(world: World, body: Body) -> None:
    moment = datetime.fromtimestamp(float(body["due"]) + 1, world.clock.now().tzinfo)
    for space in world.store.spaces():
        if not (space.startswith("arm:") and space.endswith(f"|{quota.DEPLOYMENTS.lower()}")):
            continue
        for _, kept in world.store.items(space):
            _upgrade(world, Record.read(kept), moment)
    world.store.remove("cs:watch", "lifecycle")
    now = float(body["due"])
    ahead = [d.timestamp() for d in _dates() if d.timestamp() > now]
    if ahead:
        world.store.put("cs:watch", "lifecycle", {"due": ahead[0]})
        world.after(ahead[0] - world.clock.timestamp(), LIFECYCLE, {})


def _upgrade(world: World, record: Record, now: datetime) -> None:
    """Give a deployment the version that its upgrade option asks for by now."""
    sku = str(record.body["sku"]["name"])
    if record.hidden.get("tuned") or sku in PROVISIONED:
        return  # provisioned and fine-tuned deployments are never upgraded by the platform
    model = record.properties["model"]
    current = quota.find_version(model["name"], model["version"], model["format"])
    if current is None:
        return
    option = record.properties.get("versionUpgradeOption")
    target: ModelVersion | None = None
    newest = quota.default_version(current.name, now, current.format)
    if option == "OnceNewDefaultVersionAvailable" and newest is not None:
        older = current.generally < newest.generally
        target = newest if older and now < newest.ends else None
    if target is None and option != "NoAutoUpgrade" and now >= current.ends and current.replacement:
        target = quota.find_version(*current.replacement)
        if target is not None and now >= target.ends:
            target = None
    account = accounts.account_of(world, record.id)
    if target is None or target is current or account is None:
        return
    if not target.offered(sku, region_name(str(account.body["location"]))):
        return
    record.properties["model"] = {
        **model,
        "format": target.format,
        "name": target.name,
        "version": target.version,
    }
    capacity = int(record.body["sku"]["capacity"])
    record.properties["capabilities"] = quota.capabilities(target)
    record.properties["rateLimits"] = quota.rate_limits(target, sku, capacity)
    record.hidden |= {
        "usage": quota.usage_name(target, sku, tuned=False),
        "model": target.name,
    }
    world.arm.save(record)
    world.activity.platform(
        record.id,
        f"{quota.DEPLOYMENTS}/write",
        f"The model was upgraded from {current.name} {current.version} to {target.name} "
        f"{target.version} ({option}).",
    )


def register(world: World) -> None:
    """Teach the engine deployments."""
    world.arm.add(Deployments())
    world.on(IDLE, _idle_due)
    world.on(LIFECYCLE, _lifecycle_due)
