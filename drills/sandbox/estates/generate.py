"""Makes large estates: believable names, all kinds in proportion, the same for the same seed.

Use: `python -m drills.sandbox.estates.generate --accounts 100 --deployments 20 > estate.yaml`
"""

from __future__ import annotations

import argparse
import math
import random
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from drills.sandbox.providers.cognitive_models import MODELS, day
from drills.sandbox.providers.cognitive_quota import ACCOUNT_COUNT

_TEAMS = (
    "claims", "care", "fraud", "pricing", "legal", "hr", "sales", "search", "risk", "audit",
    "travel", "motor", "home", "health", "pension", "treasury", "facilities", "press", "lab", "ops",
)  # fmt: skip
_USES = (
    "chat", "triage", "summary", "extract", "embed", "translate", "rewrite", "route", "judge",
    "draft", "search", "classify", "coach", "report", "explain", "review",
)  # fmt: skip
_REGIONS = (
    ("swedencentral", "swc"),
    ("eastus2", "eus2"),
    ("northcentralus", "ncus"),
    ("westeurope", "weu"),
    ("japaneast", "jpe"),
    ("westus3", "wus3"),
)
_PLAIN = (
    ("FormRecognizer", "S0", "di"),
    ("TextAnalytics", "S", "lang"),
    ("ContentSafety", "S0", "safe"),
    ("SpeechServices", "S0", "sp"),
    ("ComputerVision", "S1", "cv"),
)
_LONGEST = 32  # standard deployments that one account may have


def estate(accounts: int, deployments: int, seed: int = 1) -> dict[str, Any]:
    """The estate as data, ready for YAML. Raises ValueError when a number is out of range.

    `deployments` is per account of kind OpenAI or AIServices; nine accounts of ten are of those.
    """
    if accounts < 1:
        raise ValueError("--accounts must be 1 or more")
    if not 0 <= deployments <= _LONGEST:
        raise ValueError(f"--deployments must be between 0 and {_LONGEST}")
    chance = random.Random(seed)
    groups = max(2, math.ceil(accounts / 8))
    names = [_TEAMS[i % len(_TEAMS)] + (f"-{i // len(_TEAMS)}" if i >= len(_TEAMS) else "")
             for i in range(groups)]  # fmt: skip
    made: dict[str, Any] = {
        "name": f"generated-{seed}",
        "subscriptions": [{"name": "prod"}, {"name": "dr"}],
        "principals": [
            {"name": "owner", "role": "Owner"},
            {"name": "auditor", "role": "Reader"},
            {"name": "pipeline", "role": "Contributor"},
            {"name": "stranger", "role": "none"},
            {"name": "Anna Lindqvist", "kind": "User", "upn": "anna@generated.example",
             "role": "Contributor"},
        ],
        "role_assignments": [
            {"principal": "owner", "role": "Owner"},
            {"principal": "auditor", "role": "Reader"},
            {"principal": "pipeline", "role": "Contributor"},
            {"principal": "Anna Lindqvist", "role": "Contributor"},
        ],
        "groups": [
            {
                "name": f"rg-{name}",
                "subscription": "dr" if index % 4 == 3 else "prod",
                "location": _REGIONS[index % 4 == 3][0],
                "tags": {"team": name},
            }
            for index, name in enumerate(names)
        ],
        "accounts": [],
    }  # fmt: skip
    limits: dict[tuple[str, str, str], int] = {}
    for index in range(accounts):
        group = made["groups"][index % groups]
        account, used = _account(index, group, deployments, chance)
        made["accounts"].append(account)
        for region, usage, amount in used:
            key = (group["subscription"], region, usage)
            limits[key] = limits.get(key, 0) + amount
    made["quotas"] = [
        {"subscription": s, "region": region, "usage": usage, "limit": amount * 2}
        for (s, region, usage), amount in sorted(limits.items())
    ]
    return made


def _account(
    index: int, group: dict[str, Any], deployments: int, chance: random.Random
) -> tuple[dict[str, Any], list[tuple[str, str, int]]]:
    team = group["name"][3:]
    if group["subscription"] == "dr":
        region, short = _REGIONS[1]
    else:
        region, short = _REGIONS[0] if chance.random() < 0.6 else chance.choice(_REGIONS[2:])
    account: dict[str, Any] = {
        "group": group["name"],
        "location": region,
        "tags": {"team": team, "tier": chance.choice(("gold", "silver", "bronze"))},
    }
    if index % 10 == 9:
        kind, sku, prefix = _PLAIN[(index // 10) % len(_PLAIN)]
        account |= {"name": f"{prefix}-{team}-{short}-{index:03d}", "kind": kind, "sku": sku}
        return account, []
    foundry = index % 3 == 2
    prefix, kind = ("ais", "AIServices") if foundry else ("aoai", "OpenAI")
    account |= {
        "name": f"{prefix}-{team}-{short}-{index:03d}",
        "kind": kind,
        "identity": "system",
        "blocklists": [
            {
                "name": "unwanted",
                "description": f"Words that {team} does not use.",
                "items": [{"name": f"word-{i}", "pattern": f"{team} word {i}"} for i in range(3)],
            }
        ],
        "policies": [
            {
                "name": f"{team}-filter",
                "properties": {
                    "basePolicyName": "Microsoft.DefaultV2",
                    "customBlocklists": [{"blocklistName": "unwanted", "source": "Completion"}],
                },
            }
        ],
    }
    if foundry:
        account["properties"] = {"allowProjectManagement": True}
        account["projects"] = [
            {"name": f"{team}-desk", "display_name": f"{team.capitalize()} desk"},
            {"name": f"{team}-lab", "display_name": f"{team.capitalize()} lab"},
        ]
        account["connections"] = [
            {
                "name": "search",
                "properties": {
                    "category": "CognitiveSearch",
                    "authType": "ApiKey",
                    "target": f"https://srch-{team}.search.windows.net/",
                    "credentials": {"key": f"${{canary.{account['name']}}}"},
                },
            }
        ]
    account["deployments"], used = _deployments(region, team, deployments, chance)
    return account, [*used, (region, ACCOUNT_COUNT, 1)]


def _deployments(
    region: str, team: str, count: int, chance: random.Random
) -> tuple[list[dict[str, Any]], list[tuple[str, str, int]]]:
    # Versions that stay open to everybody for long, so that a file can be used for years.
    open_ones = [
        (model, sku)
        for model in MODELS
        if model.format == "OpenAI" and model.deprecating >= day("2027-03-01")
        for sku in ("Standard", "GlobalStandard", "DataZoneStandard")
        if model.offered(sku, region) and model.unit > 1
    ]
    found: list[dict[str, Any]] = []
    used: list[tuple[str, str, int]] = []
    for index in range(count):
        model, sku = open_ones[chance.randrange(len(open_ones))]
        capacity = chance.choice((1, 5, 10, 20))
        use = _USES[index % len(_USES)] + (f"-{index // len(_USES)}" if index >= len(_USES) else "")
        one: dict[str, Any] = {
            "name": use,
            "model": model.name,
            "version": model.version,
            "sku": sku,
            "capacity": capacity,
        }
        if index % 3 == 0:
            one["policy"] = f"{team}-filter"
        found.append(one)
        used.append((region, f"OpenAI.{sku}.{model.name}", capacity))
    return found, used


def main(arguments: Sequence[str] | None = None) -> int:
    """Print an estate as YAML."""
    parser = argparse.ArgumentParser(prog="python -m drills.sandbox.estates.generate")
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--deployments", type=int, default=20, help="per account, 0 to 32")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        made = estate(options.accounts, options.deployments, options.seed)
    except ValueError as error:
        parser.error(str(error))
    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    yaml.dump(made, sys.stdout, Dumper=dumper, sort_keys=False, width=100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
