"""What is only read: models, usages, capacities, SKUs, tiers, and the checks before a write."""

from __future__ import annotations

from collections.abc import Callable

from drills.sandbox.arm import Record
from drills.sandbox.ids import parse_id, region_name
from drills.sandbox.providers import cognitive_accounts as accounts
from drills.sandbox.providers import cognitive_quota as quota
from drills.sandbox.providers.cognitive_deployments import version_of
from drills.sandbox.providers.cognitive_models import (
    PROVISIONED,
    REGIONS,
    SKUS,
    ModelVersion,
)
from drills.sandbox.wire import Answer, ArmError, Body, Call
from drills.sandbox.world import World

NAMESPACE = accounts.NAMESPACE
Parts = dict[str, str]


def _require_region(location: str) -> str:
    region = region_name(location)
    if region not in REGIONS:
        raise ArmError(
            400,
            "LocationNotAvailableForResourceType",
            f"The provided location '{location}' is not available for resource type "
            f"'{NAMESPACE}/locations'.",
            gateway=True,
        )
    return region


def _require_subscription(world: World, parts: Parts) -> None:
    if world.store.get("subscriptions", parts["subscription"].lower()) is None:
        raise ArmError(
            404,
            "SubscriptionNotFound",
            f"The subscription '{parts['subscription']}' could not be found.",
            gateway=True,
        )


def _account(world: World, call: Call, parts: Parts, action: str) -> Record:
    """The account of a path, after asking whether the caller may."""
    id_ = (
        f"/subscriptions/{parts['subscription']}/resourceGroups/{parts['group']}/providers/"
        f"{NAMESPACE}/accounts/{parts['account']}"
    )
    call.operation = f"{NAMESPACE}/accounts/{action}"
    world.access.check(call, call.operation, id_)
    record = world.arm.find(id_)
    if record is None:
        raise world.arm.missing(parse_id(id_))
    return record


# -- models -------------------------------------------------------------------------------------


def _location_models(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    region = _require_region(parts["location"])
    values: list[Body] = []
    for model in quota.offered_in(region):
        shown = quota.model_shown(world, model, region)
        kinds = ("OpenAI", "AIServices") if model.format == "OpenAI" else ("AIServices",)
        values.extend({"kind": kind, "skuName": "S0", "model": shown} for kind in kinds)
    return world.arm.page(call, values)


def _account_models(world: World, call: Call, parts: Parts) -> Answer:
    record = _account(world, call, parts, "models/read")
    kind, region = record.body.get("kind"), quota.region_of(record)
    if kind not in accounts.OPENAI_KINDS:
        return Answer(200, {"value": []})
    values = [
        quota.model_shown(world, model, region)
        for model in quota.offered_in(region)
        if kind == "AIServices" or model.format == "OpenAI"
    ]
    for id_, kept in world.store.items(f"dp:{record.id.lower()}:models"):
        base = quota.base_of(str(kept.get("model") or id_)) or quota.base_of(id_)
        if base is not None and kept.get("kind", "fine-tuned") == "fine-tuned":
            values.append(_tuned_shown(world, id_, base, region))
    return world.arm.page(call, values)


def _tuned_shown(world: World, name: str, base: ModelVersion, region: str) -> Body:
    shown = quota.model_shown(world, base, region)
    skus = [
        {
            "name": sku,
            "usageName": quota.usage_name(base, sku, tuned=True),
            "deprecationDate": shown["deprecation"]["inference"],
            "capacity": {
                "minimum": base.provisioned[0] if sku in PROVISIONED else 1,
                "maximum": quota.FINE_TUNED_QUOTA,
                "step": base.provisioned[1] if sku in PROVISIONED else 1,
                "default": base.provisioned[0] if sku in PROVISIONED else 50,
            },
        }
        for sku in SKUS
        if base.tunable(sku, region)
    ]
    return shown | {
        "name": name,
        "version": "1",
        "isDefaultVersion": True,
        "skus": skus,
        "baseModel": {"format": base.format, "name": base.name, "version": base.version},
    }


# -- usages and capacities ------------------------------------------------------------------------


def _filtered(call: Call, values: list[Body]) -> list[Body]:
    """`$filter=name.value eq '…'`, which is all that clients send."""
    text = call.parameter("$filter")
    if not text:
        return values
    name = text.partition("'")[2].rpartition("'")[0].lower()
    return [v for v in values if v["name"]["value"].lower() == name]


def _usages(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    region = _require_region(parts["location"])
    values = quota.usages(world, parts["subscription"], region)
    return world.arm.page(call, _filtered(call, values))


def _account_usages(world: World, call: Call, parts: Parts) -> Answer:
    record = _account(world, call, parts, "usages/read")
    names = {str(d.hidden.get("usage")) for d in world.arm.children(record.id, quota.DEPLOYMENTS)}
    values = [
        usage
        for usage in quota.usages(world, record.rid.subscription, quota.region_of(record))
        if usage["name"]["value"] in names
    ]
    return Answer(200, {"value": _filtered(call, values)})


def _capacities(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    name, version = call.parameter("modelName"), call.parameter("modelVersion")
    format_ = call.parameter("modelFormat")
    if not name or not version or not format_:
        raise ArmError(400, "BadRequest", "modelFormat, modelName and modelVersion are required.")
    model = quota.find_version(name, version, format_)
    regions = [_require_region(parts["location"])] if parts.get("location") else list(REGIONS)
    values: list[Body] = []
    subscription = parts["subscription"]
    for region in regions:
        if model is None:
            break
        for sku in model.skus:
            if not model.offered(sku, region):
                continue
            usage = quota.usage_name(model, sku, tuned=False)
            limit = quota.quota_limit(world, subscription, region, usage)
            free = max(0, limit - quota.quota_used(world, subscription, region, usage))
            if sku in PROVISIONED:
                free = min(free, quota.capacity_left(world, region, sku, model))
            tuned = free if model.tunable(sku, region) else 0
            values.append(
                {
                    "id": f"/subscriptions/{subscription}/providers/{NAMESPACE}/locations/{region}"
                    f"/models/{model.format}.{model.name}.{model.version}/skuCapacities/{sku}",
                    "name": sku,
                    "type": f"{NAMESPACE}/locations/modelCapacities",
                    "location": region,
                    "properties": {
                        "model": {
                            "format": model.format,
                            "name": model.name,
                            "version": model.version,
                        },
                        "skuName": sku,
                        "availableCapacity": float(free),
                        "availableFinetuneCapacity": float(tuned),
                    },
                }
            )
    return world.arm.page(call, values)


# -- SKUs -----------------------------------------------------------------------------------------


def _skus(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    values = [
        {
            "resourceType": "accounts",
            "name": sku,
            "tier": "Free" if sku.startswith("F") else "Standard",
            "kind": kind,
            "locations": [region.upper()],
            "restrictions": [],
        }
        for kind, skus in accounts.KINDS.items()
        for sku in skus
        for region in REGIONS
    ]
    return world.arm.page(call, values)


def _account_skus(world: World, call: Call, parts: Parts) -> Answer:
    record = _account(world, call, parts, "skus/read")
    values = [
        {
            "resourceType": f"{NAMESPACE}/accounts",
            "sku": {"name": sku, "tier": "Free" if sku.startswith("F") else "Standard"},
        }
        for sku in accounts.KINDS[str(record.body["kind"])]
    ]
    return Answer(200, {"value": values})


def _deployment_skus(world: World, call: Call, parts: Parts) -> Answer:
    account = _account(world, call, parts, "deployments/skus/read")
    record = world.arm.find(f"{account.id}/deployments/{parts['deployment']}")
    if record is None:
        raise world.arm.missing(parse_id(f"{account.id}/deployments/{parts['deployment']}"))
    model, region = version_of(record), quota.region_of(account)
    tuned = bool(record.hidden.get("tuned"))
    values = [
        {
            "resourceType": quota.DEPLOYMENTS,
            "sku": {"name": sku},
            "capacity": {
                "minimum": model.provisioned[0] if sku in PROVISIONED else 1,
                "maximum": 100000 if sku in PROVISIONED else model.quota * 3,
                "step": model.provisioned[1] if sku in PROVISIONED else 1,
                "default": model.provisioned[0] if sku in PROVISIONED else 1,
            },
        }
        for sku in SKUS
        if model is not None
        and (model.tunable(sku, region) if tuned else model.offered(sku, region))
    ]
    return world.arm.page(call, [dict(v) for v in values])


def _commitment_tiers(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    _require_region(parts["location"])
    values = [
        {
            "kind": kind,
            "skuName": "S0" if kind != "TextAnalytics" else "S",
            "hostingModel": "Web",
            "planType": plan,
            "tier": f"T{tier}",
            "maxCount": 20,
            "quota": {"quantity": 1_000_000 * 10**tier, "unit": unit},
            "cost": {},
        }
        for kind, plan, unit in (
            ("TextTranslation", "TextTranslation", "Character"),
            ("SpeechServices", "STT", "Hour"),
            ("TextAnalytics", "TA", "TextRecord"),
        )
        for tier in (1, 2, 3)
    ]
    return world.arm.page(call, values)


def _private_links(world: World, call: Call, parts: Parts) -> Answer:
    record = _account(world, call, parts, "privateLinkResources/read")
    zones = ["privatelink.cognitiveservices.azure.com"]
    if record.body["kind"] in accounts.OPENAI_KINDS:
        zones.append("privatelink.openai.azure.com")
    if record.body["kind"] == "AIServices":
        zones.append("privatelink.services.ai.azure.com")
    return Answer(
        200,
        {
            "value": [
                {
                    "id": f"{record.id}/privateLinkResources/account",
                    "name": "account",
                    "type": f"{NAMESPACE}/accounts/privateLinkResources",
                    "properties": {
                        "groupId": "account",
                        "displayName": "Cognitive Services account",
                        "requiredMembers": ["default"],
                        "requiredZoneNames": zones,
                    },
                }
            ]
        },
    )


# -- checks ---------------------------------------------------------------------------------------


def _check_domain(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    body = call.json()
    name = str(body.get("subdomainName") or "")
    if not name or not body.get("type"):
        raise ArmError(400, "BadRequest", "subdomainName and type are required.")
    taken = accounts.domain_taken(world, name)
    answer: Body = {
        "isSubdomainAvailable": not taken,
        "subdomainName": name,
        "type": body["type"],
    }
    if body.get("kind"):
        answer["kind"] = body["kind"]
    if taken:
        answer["reason"] = (
            f"Sub domain name '{name}' is already used. Please pick a different name."
        )
    return Answer(200, answer)


def _check_sku(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    region = region_name(parts["location"])
    body = call.json()
    kind, skus, type_ = body.get("kind"), body.get("skus"), body.get("type")
    if not kind or not isinstance(skus, list) or not type_:
        raise ArmError(400, "BadRequest", "kind, skus and type are required.")
    values: list[Body] = []
    for sku in skus:
        good = region in REGIONS and sku in accounts.KINDS.get(str(kind), ())
        shown: Body = {"kind": kind, "type": type_, "skuName": sku, "skuAvailable": good}
        if not good:
            shown["reason"] = "NotAvailableForSubscription"
            shown["message"] = f"The SKU '{sku}' of kind '{kind}' is not available in '{region}'."
        values.append(shown)
    return Answer(200, {"value": values})


def _calculate(world: World, call: Call, parts: Parts) -> Answer:
    _require_subscription(world, parts)
    body = call.json()
    model = body.get("model") or {}
    found = quota.find_version(
        str(model.get("name", "")), str(model.get("version", "")), str(model.get("format", ""))
    )
    if found is None:
        raise ArmError(400, "BadRequest", f"The model '{model.get('name')}' is not supported.")
    tokens = 0.0
    for workload in body.get("workloads") or []:
        request = workload.get("requestParameters") or {}
        size = float(request.get("avgPromptTokens", 0)) + 3 * float(
            request.get("avgGeneratedTokens", 0)
        )
        tokens += float(workload.get("requestPerMinute", 0)) * size
    small, step = found.provisioned
    units = max(small, -(-int(tokens / 2500 + 0.999) // step) * step)
    return Answer(
        200,
        {
            "model": model,
            "skuName": body.get("skuName"),
            "estimatedCapacity": {"value": units, "deployableValue": units},
        },
    )


def _operations(world: World, call: Call, parts: Parts) -> Answer:
    """Every operation that the sandbox plays, as `az provider operation` lists them."""
    values: list[Body] = []
    for behaviour in world.arm.behaviours.values():
        if not behaviour.type.lower().startswith(NAMESPACE.lower() + "/"):
            continue
        for verb, label in (("read", "Read"), ("write", "Write"), ("delete", "Delete")):
            values.append(
                {
                    "name": f"{behaviour.type}/{verb}",
                    "isDataAction": False,
                    "display": {
                        "provider": "Microsoft Cognitive Services",
                        "resource": behaviour.type.partition("/")[2],
                        "operation": f"{label} {behaviour.type.rpartition('/')[2]}",
                        "description": f"{label} {behaviour.type.rpartition('/')[2]}.",
                    },
                    "origin": "user,system",
                }
            )
    return world.arm.page(call, values)


def _operation_result(world: World, call: Call, parts: Parts) -> Answer:
    return world.arm.poll(call, parts["guid"])


Handler = Callable[[World, Call, Parts], Answer]


def register(world: World) -> None:
    """Teach the engine the paths that are no resources."""
    arm = world.arm
    top = f"/subscriptions/{{subscription}}/providers/{NAMESPACE}"
    place = f"{top}/locations/{{location}}"
    account = (
        f"/subscriptions/{{subscription}}/resourceGroups/{{group}}/providers/{NAMESPACE}"
        "/accounts/{account}"
    )
    read: tuple[tuple[str, str, Handler], ...] = (
        (f"{place}/models", "locations/models/read", _location_models),
        (f"{place}/usages", "locations/usages/read", _usages),
        (f"{place}/modelCapacities", "locations/modelCapacities/read", _capacities),
        (f"{top}/modelCapacities", "modelCapacities/read", _capacities),
        (f"{place}/commitmentTiers", "locations/commitmentTiers/read", _commitment_tiers),
        (f"{top}/skus", "skus/read", _skus),
        (
            f"{place}/operationResults/{{guid}}",
            "locations/operationResults/read",
            _operation_result,
        ),
    )
    for path, action, handler in read:
        arm.route("GET", path, f"{NAMESPACE}/{action}", handler)
    # These ask for the right on the account itself, so that an assignment there is enough.
    arm.route("GET", f"{account}/models", "", _account_models)
    arm.route("GET", f"{account}/usages", "", _account_usages)
    arm.route("GET", f"{account}/skus", "", _account_skus)
    arm.route("GET", f"{account}/privateLinkResources", "", _private_links)
    arm.route("GET", f"{account}/deployments/{{deployment}}/skus", "", _deployment_skus)
    arm.route("GET", f"/providers/{NAMESPACE}/operations", "", _operations)
    for path, action, handler in (
        (f"{top}/checkDomainAvailability", "checkDomainAvailability/action", _check_domain),
        (f"{place}/checkSkuAvailability", "locations/checkSkuAvailability/action", _check_sku),
        (f"{top}/calculateModelCapacity", "calculateModelCapacity/action", _calculate),
    ):
        arm.route("POST", path, f"{NAMESPACE}/{action}", handler)
