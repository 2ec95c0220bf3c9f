"""What can be deployed where: versions by the clock, quota, and capacity that can run out.

Quota is kept per subscription, region and usage name; capacity per region, SKU and model. Both have
defaults that an estate file or a rehearsal overrides (`set_quota`, `set_capacity`).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from drills.sandbox.arm import Record
from drills.sandbox.clock import wire_time
from drills.sandbox.ids import region_name
from drills.sandbox.providers.cognitive_models import (
    EU,
    MODELS,
    PROVISIONED,
    SKUS,
    STANDARD,
    US,
    ModelVersion,
)
from drills.sandbox.wire import Body
from drills.sandbox.world import World

ACCOUNTS = "Microsoft.CognitiveServices/accounts"
DEPLOYMENTS = f"{ACCOUNTS}/deployments"
QUOTA, CAPACITY, CUSTOMERS = "cs:quota", "cs:capacity", "cs:customers"
ACCOUNT_COUNT = "OpenAI.S0.AccountCount"
PROVISIONED_QUOTA, PROVISIONED_CAPACITY, FINE_TUNED_QUOTA = 300, 500, 500


# -- versions -----------------------------------------------------------------------------------


def versions(name: str, format_: str = "") -> list[ModelVersion]:
    """All versions of a model, oldest first; names are compared without case."""
    return [
        m
        for m in MODELS
        if m.name.lower() == name.lower() and format_.lower() in ("", m.format.lower())
    ]


def find_version(name: str, version: str, format_: str = "") -> ModelVersion | None:
    """One version of a model, or None."""
    return next((m for m in versions(name, format_) if m.version == version), None)


def default_version(name: str, now: datetime, format_: str = "") -> ModelVersion | None:
    """The version that is taken when none is named: the newest that became the default by now."""
    found = [m for m in versions(name, format_) if m.default_from and m.default_from <= now]
    if found:
        return max(found, key=lambda m: m.default_from or m.generally)
    every = versions(name, format_)
    return every[0] if every else None


def lifecycle(model: ModelVersion, now: datetime) -> str:
    """The lifecycleStatus as the API spells it: Deprecated is retired, Deprecating nearly so."""
    if now < model.generally:
        return "Preview"
    if now < model.deprecating:
        return "GenerallyAvailable"
    return "Deprecating" if now < model.ends else "Deprecated"


def base_of(name: str) -> ModelVersion | None:
    """The catalogue version that a fine-tuned model's name says it was made from.

    Names look like `gpt-4o-mini-2024-07-18.ft-<hex>` or `gpt-4o.ft-<hex>`.
    """
    stem = name.partition(".ft-")[0].lower()
    exact = [m for m in MODELS if f"{m.name}-{m.version}".lower() == stem]
    if exact:
        return exact[0]
    same = [m for m in MODELS if m.name.lower() == stem and m.fine_tune_ends]
    return same[-1] if same else None


def is_customer(world: World, subscription: str, model: ModelVersion) -> bool:
    """Whether a subscription has used this version before ("existing customer")."""
    key = f"{subscription}/{model.name}/{model.version}".lower()
    return world.store.get(CUSTOMERS, key) is not None


def make_customer(world: World, subscription: str, model: ModelVersion) -> None:
    """Remember that a subscription has used this version."""
    key = f"{subscription}/{model.name}/{model.version}".lower()
    if world.store.get(CUSTOMERS, key) is None:
        world.store.put(CUSTOMERS, key, {"since": world.clock.timestamp()})


# -- quota --------------------------------------------------------------------------------------


def usage_name(model: ModelVersion, sku: str, *, tuned: bool) -> str:
    """The usage that a deployment counts to."""
    family = "OpenAI" if model.format == "OpenAI" else "AIServices"
    if sku in PROVISIONED:
        return f"{family}.{sku}"
    return f"{family}.{sku}.{model.name}{'-finetune' if tuned else ''}"


def usage_label(usage: str) -> str:
    """The usage's name for people, as messages show it."""
    sku, _, model = usage.partition(".")[2].partition(".")
    if usage == ACCOUNT_COUNT:
        return "Number of OpenAI accounts"
    if sku in PROVISIONED:
        return "Provisioned Managed Throughput Unit" + (
            "" if sku == PROVISIONED[0] else f" - {sku}"
        )
    kind = "" if sku == STANDARD else f" - {sku}"
    return f"Tokens Per Minute (thousands) - {model}{kind}"


def quota_limit(world: World, subscription: str, region: str, usage: str) -> int:
    """How much of a usage a subscription may have in a region."""
    kept = world.store.get(QUOTA, f"{subscription}/{region_name(region)}/{usage}".lower())
    if kept is not None:
        return int(kept["limit"])
    if usage == ACCOUNT_COUNT:
        return 30
    sku, _, model = usage.partition(".")[2].partition(".")
    if sku in PROVISIONED:
        return PROVISIONED_QUOTA
    if model.endswith("-finetune"):
        return FINE_TUNED_QUOTA
    found = versions(model)
    if not found:
        return 0
    return found[-1].quota * (3 if sku.startswith("Global") else 1)


def set_quota(world: World, subscription: str, region: str, usage: str, limit: int) -> None:
    """Give a subscription another quota in a region."""
    key = f"{subscription}/{region_name(region)}/{usage}".lower()
    world.store.put(QUOTA, key, {"limit": limit})


def deployments_in(world: World, subscription: str, region: str) -> Iterator[tuple[Body, Body]]:
    """The stored accounts of a region with their deployments (not to be changed)."""
    prefix = (
        f"arm:/subscriptions/{subscription.lower()}/" if subscription else "arm:/subscriptions/"
    )
    wanted = region_name(region)
    for space in world.store.spaces():
        if not (space.startswith(prefix) and space.endswith(f"|{DEPLOYMENTS.lower()}")):
            continue
        id_ = space[len("arm:") : -len(f"|{DEPLOYMENTS}")]
        parent = id_.rpartition("/providers/")[0]
        account = world.store.get(f"arm:{parent}|{ACCOUNTS.lower()}", id_)
        if account is None or region_name(str(account["body"].get("location", ""))) != wanted:
            continue
        for _, deployment in world.store.items(space):
            yield account, deployment


def quota_used(
    world: World, subscription: str, region: str, usage: str, *, without: str = ""
) -> int:
    """How much of a usage is taken; `without` leaves one deployment (an id) out."""
    used = 0
    for _, deployment in deployments_in(world, subscription, region):
        if deployment["hidden"].get("usage") == usage and deployment["id"].lower() != without:
            used += int(deployment["body"].get("sku", {}).get("capacity", 0))
    for _, gone in world.store.items("cs:deleted"):
        # Provisioned throughput of a deleted account is billed and held until the purge.
        if gone["subscription"] != subscription.lower() or gone["region"] != region_name(region):
            continue
        for kept in gone["children"]:
            hidden = kept["hidden"]
            if hidden.get("usage") == usage and kept["body"]["sku"]["name"] in PROVISIONED:
                used += int(kept["body"]["sku"].get("capacity", 0))
    return used


def accounts_in(world: World, subscription: str, region: str) -> int:
    """How many accounts of kinds OpenAI and AIServices a subscription has in a region."""
    return sum(
        1
        for record in world.arm.below(f"/subscriptions/{subscription}", ACCOUNTS, copied=False)
        if record.body.get("kind") in ("OpenAI", "AIServices")
        and region_name(str(record.body.get("location", ""))) == region_name(region)
    )


def usages(world: World, subscription: str, region: str) -> list[Body]:
    """All usages of a subscription in a region, as the API lists them."""
    region = region_name(region)
    used: dict[str, int] = {ACCOUNT_COUNT: accounts_in(world, subscription, region)}
    for _, deployment in deployments_in(world, subscription, region):
        name = str(deployment["hidden"].get("usage", ""))
        used[name] = used.get(name, 0) + int(deployment["body"]["sku"].get("capacity", 0))
    names: dict[str, None] = {ACCOUNT_COUNT: None}
    for model in MODELS:
        for sku in SKUS:
            if model.offered(sku, region):
                names[usage_name(model, sku, tuned=False)] = None
            if model.tunable(sku, region):
                names[usage_name(model, sku, tuned=True)] = None
    names.update(dict.fromkeys(name for name in used if name))
    return [
        {
            "name": {"value": name, "localizedValue": usage_label(name)},
            "currentValue": float(
                used.get(name, 0)
                if name == ACCOUNT_COUNT
                else quota_used(world, subscription, region, name)
                if name.partition(".")[2] in PROVISIONED
                else used.get(name, 0)
            ),
            "limit": float(quota_limit(world, subscription, region, name)),
            "unit": "Count",
        }
        for name in names
    ]


# -- capacity -----------------------------------------------------------------------------------


def set_capacity(world: World, region: str, sku: str, available: int, model: str = "*") -> None:
    """Say how many provisioned units a region has in all, for one model or for every one."""
    key = f"{region_name(region)}/{sku}/{model}".lower()
    world.store.put(CAPACITY, key, {"total": available})


def capacity_left(
    world: World, region: str, sku: str, model: ModelVersion, without: str = ""
) -> int:
    """How many provisioned units a region can still give, over all subscriptions."""
    region = region_name(region)
    total, shared = PROVISIONED_CAPACITY, False
    for name in ("*", model.name):
        kept = world.store.get(CAPACITY, f"{region}/{sku}/{name}".lower())
        if kept is not None:
            total, shared = int(kept["total"]), name == "*"
    used = sum(
        int(deployment["body"]["sku"].get("capacity", 0))
        for _, deployment in deployments_in(world, "", region)
        if deployment["body"]["sku"]["name"] == sku
        and (shared or deployment["hidden"].get("model") == model.name)
        and deployment["id"].lower() != without
    )
    return max(0, total - used)


# -- what the catalogue shows -------------------------------------------------------------------


def capabilities(model: ModelVersion) -> Body:
    """What a deployment of the version can do, as the API spells it (strings)."""
    found: Body = dict.fromkeys(model.capabilities, "true")
    if model.context:
        found["maxContextToken"] = str(model.context)
    if model.output:
        found["maxOutputToken"] = str(model.output)
    return found


def rate_limits(model: ModelVersion, sku: str, capacity: int) -> list[Body]:
    """The limits of a deployment of a Standard kind; provisioned ones have none."""
    if sku in PROVISIONED or sku.endswith("Batch"):
        return []
    return [
        {"key": "request", "renewalPeriod": 10, "count": capacity},
        {"key": "token", "renewalPeriod": 60, "count": capacity * model.unit},
    ]


def model_shown(world: World, model: ModelVersion, region: str) -> Body:
    """One element of a model list in a region, without the account's wrapping."""
    now = world.clock.now()
    ends = wire_time(model.ends, fraction=0)
    skus: list[Body] = []
    for sku in model.skus:
        if not model.offered(sku, region):
            continue
        small, step = model.provisioned if sku in PROVISIONED else (1, 1)
        limits = rate_limits(model, sku, 1)
        shown: Body = {
            "name": sku,
            "usageName": usage_name(model, sku, tuned=False),
            "deprecationDate": ends,
            "capacity": {
                "minimum": small,
                "maximum": 100000 if sku in PROVISIONED else model.quota * 3,
                "step": step,
                "default": small if sku in PROVISIONED else min(10, model.quota),
            },
        }
        if limits:
            shown["rateLimits"] = limits
        skus.append(shown)
    status = lifecycle(model, now)
    deprecation: Body = {
        "inference": ends,
        "deprecationStatus": "Planned",
    }
    if model.fine_tune_ends:
        deprecation["fineTune"] = wire_time(model.fine_tune_ends, fraction=0)
    shown = {
        "format": model.format,
        "name": model.name,
        "version": model.version,
        "isDefaultVersion": default_version(model.name, now) is model,
        "skus": skus,
        "maxCapacity": model.quota * 3,
        "capabilities": {**capabilities(model), "area": _area(region)},
        "deprecation": deprecation,
        "lifecycleStatus": status,
        "systemData": {
            "createdBy": "Microsoft",
            "createdByType": "Application",
            "createdAt": wire_time(model.generally, fraction=0),
            "lastModifiedBy": "Microsoft",
            "lastModifiedByType": "Application",
            "lastModifiedAt": wire_time(model.generally, fraction=0),
        },
    }
    if model.fine_tune_ends and now < model.fine_tune_ends:
        shown["capabilities"]["fineTune"] = "true"
        shown["finetuneCapabilities"] = {"fineTune": "true"}
    if model.replacement:
        shown["replacementConfig"] = {
            "targetModelName": model.replacement[0],
            "targetModelVersion": model.replacement[1],
            "upgradeOnExpiryLeadTimeDays": 0,
            "autoUpgradeStartDate": ends,
        }
    return shown


def offered_in(region: str) -> list[ModelVersion]:
    """Every version that has at least one SKU in a region."""
    return [m for m in MODELS if any(m.offered(sku, region) for sku in m.skus)]


def _area(region: str) -> str:
    return "US" if region in US else "EUR" if region in EU else "APAC"


def region_of(account: Record) -> str:
    """The region of an account, for comparing."""
    return region_name(str(account.body.get("location", "")))
