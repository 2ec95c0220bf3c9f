"""Random estates for the sandbox: every kind, odd names, and what depends on what."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from drills.sandbox.providers.cognitive_models import MODELS, ModelVersion, day

# All that a test may find in a body: letters of other scripts, signs that JSON and URLs escape.
_WORDS = (
    "plain", "två ord", 'quote"d', "back\\slash", "a/b", "50 %", "#1", "日本語", "tab\there", "<b>",
    "it's", "$dollar", "muster-id:", "muster-id:a/b/c/d", "https://a.example/x?view=1", "🙂",
)  # fmt: skip
_REGIONS = ("swedencentral", "eastus2", "northcentralus", "westeurope")
_CREDENTIALS: dict[str, tuple[Any, str]] = {
    "ApiKey": ({"key": "secret-of-a-key"}, "secret-of-a-key"),
    "PAT": ({"pat": "secret-of-a-pat"}, "secret-of-a-pat"),
    "SAS": ({"sas": "secret-of-a-sas"}, "secret-of-a-sas"),
    "CustomKeys": ({"keys": {"x-api-key": "secret-of-keys"}}, '{"keys": {"x-api-key": "k"}}'),
    "OAuth2": (
        {"clientId": "c", "clientSecret": "secret-of-oauth"},
        '{"clientId": "c", "clientSecret": "secret-of-oauth"}',
    ),
    "AAD": (None, ""),
    "None": (None, ""),
}
_FILTERS = ("Hate", "Sexual", "Violence", "Selfharm")


@dataclass
class RandomEstate:
    """An estate as YAML has it, and the secrets that its connections need, by key and answer."""

    seed: int
    yaml: dict[str, Any]
    secrets: dict[str, str] = field(default_factory=dict)  # key's end -> the answer

    def text(self) -> str:
        """The file for `--estate`."""
        import yaml

        return str(yaml.safe_dump(self.yaml, allow_unicode=True, sort_keys=False))


def random_estate(seed: int, accounts: int = 4) -> RandomEstate:
    """An estate of a primary subscription, an empty one, and all kinds in random number."""
    chance = random.Random(seed)
    made = RandomEstate(seed, {})
    groups = [
        {
            "name": name,
            "subscription": "prod",
            "location": _REGIONS[0],
            **({"tags": _tags(chance)} if chance.random() < 0.7 else {}),
        }
        for name in ("rg-One", "rg.two_x", "rg-shared")
    ]
    quotas: dict[str, int] = {}
    listed = [_account(chance, made, number, quotas) for number in range(accounts)]
    made.yaml = {
        "name": f"random-{seed}",
        "subscriptions": [{"name": "prod"}, {"name": "empty"}],
        "principals": [
            {"name": "platform-owner", "role": "Owner"},
            {"name": "muster", "role": "Muster Operator"},
            {"name": "app", "role": "Cognitive Services User"},
            {"name": "Åsa Öberg", "kind": "User", "upn": "asa@random.example", "role": "Reader"},
        ],
        "groups": groups,
        "quotas": [
            {"subscription": s, "region": region, "usage": usage, "limit": amount}
            for usage, amount in sorted(quotas.items())
            for region in _REGIONS
            for s in ("prod", "empty")
        ],
        "capacities": [
            {"region": region, "sku": "ProvisionedManaged", "available": 2000}
            for region in _REGIONS
        ],
        "resources": [
            {"type": "Microsoft.Storage/storageAccounts", "group": "rg-shared", "name": "strandom",
             "body": {"kind": "StorageV2", "sku": {"name": "Standard_LRS"}}},
            {"type": "Microsoft.OperationalInsights/workspaces", "group": "rg-shared",
             "name": "log-x", "body": {"properties": {"sku": {"name": "PerGB2018"}}}},
            {"type": "Microsoft.ManagedIdentity/userAssignedIdentities", "group": "rg-shared",
             "name": "id-x"},
        ],
        "role_definitions": [
            {
                "name": "Muster Operator",
                "subscription": "prod",
                "actions": [
                    "*/read", "Microsoft.CognitiveServices/*",
                    "Microsoft.Insights/diagnosticSettings/*",
                    "Microsoft.ManagedIdentity/userAssignedIdentities/assign/action",
                    "Microsoft.Resources/subscriptions/resourceGroups/write",
                    "Microsoft.Resources/subscriptions/resourceGroups/delete",
                    "Microsoft.Resources/tags/write",
                    "Microsoft.Authorization/roleAssignments/write",
                    "Microsoft.Authorization/roleAssignments/delete",
                    "Microsoft.Authorization/locks/write",
                    "Microsoft.Authorization/locks/delete",
                ],
                "data_actions": ["Microsoft.CognitiveServices/*"],
            }
        ],
        "accounts": listed,
        "role_assignments": [
            {"principal": "platform-owner", "role": "Owner"},
            {"principal": "muster", "role": "Muster Operator"},
            *(
                [{"principal": a["name"], "role": "Cognitive Services User",
                  "scope": f"${{account.{chance.choice(listed)['name']}}}"}]
                if (a := chance.choice([x for x in listed if x.get("identity")] or [{}])) else []
            ),
            *(
                [{"principal": "Åsa Öberg", "role": "Reader", "scope": "${group.rg-One}",
                  "description": _word(chance)}] if chance.random() < 0.5 else []
            ),
        ],
        "locks": [
            {"name": "keep group", "level": chance.choice(("CanNotDelete", "ReadOnly")),
             "scope": "${group.rg.two_x}", "notes": _word(chance)}
        ] if chance.random() < 0.5 else [],
    }  # fmt: skip
    return made


def _word(chance: random.Random) -> str:
    return " ".join(chance.sample(_WORDS, chance.randint(1, 3)))


def _tags(chance: random.Random) -> dict[str, str]:
    return {f"tag-{n}": _word(chance) for n in range(chance.randint(1, 3))}


def _some(chance: random.Random, most: int) -> range:
    return range(chance.randint(0, most))


def _account(
    chance: random.Random, made: RandomEstate, number: int, quotas: dict[str, int]
) -> dict[str, Any]:
    kind = chance.choice(("OpenAI", "AIServices", "AIServices", "OpenAI", "FormRecognizer"))
    if number < 2:
        kind = ("AIServices", "OpenAI")[number]  # one of each in every estate
    region = _REGIONS[0] if number < 3 else chance.choice(_REGIONS)
    name = f"{chance.choice(('ai', 'AI', 'Acc.x', 'a_b'))}-{made.seed}-{number}"
    account: dict[str, Any] = {
        "name": name,
        "group": chance.choice(("rg-One", "rg.two_x")),
        "kind": kind,
        "location": region,
        "domain": f"random-{made.seed}-{number}",
    }
    if chance.random() < 0.6:
        account["tags"] = _tags(chance)
    if kind not in {"OpenAI", "AIServices"}:
        return account
    account["identity"] = chance.choice((
        "system",
        {"type": "SystemAssigned, UserAssigned",
         "userAssignedIdentities": {"${resource.id-x}": {}}},
    ))  # fmt: skip
    properties: dict[str, Any] = {}
    if chance.random() < 0.4:
        properties["networkAcls"] = {
            "defaultAction": "Allow",
            "ipRules": [{"value": f"198.51.100.{n}"} for n in _some(chance, 3)],
            "virtualNetworkRules": [],
        }
    if chance.random() < 0.3:
        properties["disableLocalAuth"] = True
    if chance.random() < 0.3:
        properties["userOwnedStorage"] = [{"resourceId": "${resource.strandom}"}]
    if chance.random() < 0.3:
        properties["allowedFqdnList"] = ["b.example", "a.example"]
    account["properties"] = properties
    account["encryption_scopes"] = [
        {"name": f"scope-{n}", "properties": {"keySource": "Microsoft.CognitiveServices"}}
        for n in _some(chance, 1)
    ]
    account["blocklists"] = [
        {
            "name": f"List.{n}_x",
            "description": _word(chance),
            "items": [
                {"name": f"Item{i}", "pattern": f"{_word(chance)} {i}", "regex": i % 3 == 0}
                for i in range(chance.choice((0, 1, 7, 103 if n == 0 and number == 0 else 2)))
            ],
        }
        for n in _some(chance, 2)
    ]
    account["topics"] = [
        {"name": f"topic-{n}",
         "properties": {"topicName": f"topic-{n}", "description": _word(chance)}}
        for n in _some(chance, 1)
    ]  # fmt: skip
    account["policies"] = _policies(chance, account)
    _data(chance, account)
    _tune(chance, account, region)
    account["deployments"] = _deployments(chance, account, region, quotas)
    _assistants(chance, account)
    if chance.random() < 0.5:
        account["defender"] = chance.choice(("Enabled", "Disabled"))
    if chance.random() < 0.5:
        account["diagnostic_settings"] = [
            {"name": "to log x", "properties": {
                "workspaceId": "${resource.log-x}",
                "logs": [{"categoryGroup": "audit", "enabled": True}],
                "metrics": [{"category": "AllMetrics", "enabled": False}]}}
        ]  # fmt: skip
    if chance.random() < 0.4:
        account["locks"] = [
            {"name": f"Lock {number}", "level": chance.choice(("CanNotDelete", "ReadOnly")),
             "notes": _word(chance)}
        ]  # fmt: skip
    if chance.random() < 0.5:
        account["role_assignments"] = [{"principal": "app", "role": "Cognitive Services User"}]
    if chance.random() < 0.3:
        account["private_endpoints"] = [
            {"name": f"pe-{number}", "properties": {
                "privateEndpoint": {"id": "${group.rg-shared}/providers/Microsoft.Network"
                                          f"/privateEndpoints/pe-{number}"},
                "groupIds": ["account"],
                "privateLinkServiceConnectionState": {"status": "Approved"}}}
        ]  # fmt: skip
    if kind == "AIServices":
        _foundry(chance, made, account)
    return account


def _policies(chance: random.Random, account: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for n in _some(chance, 3):
        properties: dict[str, Any] = {
            # A policy may build on one that was made before it, against the order of names.
            "basePolicyName": chance.choice(
                ["Microsoft.DefaultV2", "Microsoft.Default", *(p["name"] for p in found)]
            ),
            "mode": chance.choice(("Default", "Blocking", "Asynchronous_filter")),
        }
        if chance.random() < 0.6:
            properties["contentFilters"] = [
                {"name": name, "source": source, "blocking": chance.random() < 0.5,
                 "enabled": True, "severityThreshold": chance.choice(("Low", "Medium", "High"))}
                for name in chance.sample(_FILTERS, chance.randint(1, 4))
                for source in ("Prompt", "Completion")
            ]  # fmt: skip
        lists = [x["name"] for x in account["blocklists"]]
        if lists and chance.random() < 0.7:
            properties["customBlocklists"] = [
                {"blocklistName": name, "source": source, "blocking": True}
                for name in chance.sample(lists, chance.randint(1, len(lists)))
                for source in chance.sample(("Prompt", "Completion"), chance.randint(1, 2))
            ]
        if account["topics"] and chance.random() < 0.5:
            properties["customTopics"] = [
                {"topicName": account["topics"][0]["name"], "source": "Prompt", "blocking": True}
            ]
        policy: dict[str, Any] = {"name": f"{9 - n}-Policy_{n}", "properties": properties}
        if chance.random() < 0.3:
            policy["tags"] = _tags(chance)
        found.append(policy)
    return found


def _data(chance: random.Random, account: dict[str, Any]) -> None:
    files: list[dict[str, Any]] = [
        {
            "name": chance.choice((f"train {n}.jsonl", "same name.jsonl")),
            "purpose": "fine-tune",
            "generate": {"kind": "chat", "rows": 10 + n, "theme": f"theme {n}"},
        }
        for n in _some(chance, 3)
    ]
    files += [
        {"name": f"Ärende #{n}.md", "purpose": "assistants", "content": _word(chance)}
        for n in _some(chance, 2)
    ]
    files += [
        {"name": f"batch-{n}.jsonl", "purpose": "batch",
         "content": '{"custom_id": "1", "method": "POST", "url": "/chat/completions", "body": {}}'}
        for n in _some(chance, 1)
    ]  # fmt: skip
    account["files"] = files
    account["vector_stores"] = [
        {
            "name": chance.choice((f"store {n}", "same store")),
            "files": sorted({
                f["name"] for f in chance.sample(files, chance.randint(0, len(files)))
                if f["purpose"] == "assistants"
            }),
            **({"metadata": {"what": _word(chance)}} if chance.random() < 0.5 else {}),
        }
        for n in _some(chance, 2)
    ]  # fmt: skip


def _tune(chance: random.Random, account: dict[str, Any], region: str) -> None:
    training = [f["name"] for f in account["files"] if f["purpose"] == "fine-tune"]
    account["fine_tuning"] = []
    if training and region in {"swedencentral", "eastus2"} and chance.random() < 0.6:
        account["fine_tuning"] = [
            {"model": "gpt-4o-mini-2024-07-18", "training_file": training[0],
             "suffix": "tuned", "epochs": 2, "seed": chance.randint(1, 99)}
        ]  # fmt: skip


def _deployments(
    chance: random.Random,
    account: dict[str, Any],
    region: str,
    quotas: dict[str, int],
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    open_ones = [m for m in MODELS if m.deprecating >= day("2027-03-01")]
    policies = ["Microsoft.Default", "Microsoft.DefaultV2"]
    policies += [p["name"] for p in account["policies"]]

    def add(model: ModelVersion, sku: str, capacity: int, **more: Any) -> None:
        if account["kind"] == "OpenAI" and model.format != "OpenAI":
            return
        one: dict[str, Any] = {
            "name": f"{chance.choice('azAZ09')}.{model.name[:20]}_{len(found)}",
            "model": model.name, "version": model.version, "format": model.format,
            "sku": sku, "capacity": capacity, **more,
        }  # fmt: skip
        if chance.random() < 0.6 and "policy" not in one:
            one["policy"] = chance.choice(policies)
        if chance.random() < 0.4:
            one["upgrade"] = chance.choice(
                ("OnceNewDefaultVersionAvailable", "OnceCurrentVersionExpired", "NoAutoUpgrade")
            )
        if chance.random() < 0.3:
            one["tags"] = _tags(chance)
        found.append(one)
        place = f"OpenAI.{sku}" if "Provisioned" in sku else f"{model.format}.{sku}.{model.name}"
        quotas[place] = quotas.get(place, 0) + 2 * capacity

    for _ in _some(chance, 4):
        model = chance.choice(open_ones)
        skus = [s for s in model.skus if model.offered(s, region) and "Provisioned" not in s]
        if skus:
            add(model, chance.choice(skus), chance.choice((1, 5, 12)))
    standard = [d for d in found if d["sku"] in {"Standard", "GlobalStandard"}]
    gpt = [m for m in open_ones if m.name == "gpt-4o" and m.offered("ProvisionedManaged", region)]
    if gpt and chance.random() < 0.5:
        more: dict[str, Any] = {}
        same = [d for d in standard if d["model"] == "gpt-4o"]
        if same:
            more["spillover"] = same[0]["name"]
        add(gpt[0], "ProvisionedManaged", 50, **more)
    for job in account["fine_tuning"]:
        found.append(
            {"name": "tuned-one", "model": "gpt-4o-mini", "fine_tuned": job["suffix"],
             "sku": "GlobalStandard", "capacity": 5}
        )  # fmt: skip
        quotas["OpenAI.GlobalStandard.gpt-4o-mini-finetune"] = 100
    return found


def _assistants(chance: random.Random, account: dict[str, Any]) -> None:
    able = [d["name"] for d in account["deployments"] if d["model"].startswith("gpt-4o")]
    account["assistants"] = []
    for n in _some(chance, 2) if able else ():
        one: dict[str, Any] = {
            "name": chance.choice((f"Helper {n}", "Twin")),
            "model": chance.choice(able),
            "instructions": _word(chance),
            "tools": [],
        }
        stores = [s["name"] for s in account["vector_stores"]]
        if stores and chance.random() < 0.6:
            one["tools"].append({"type": "file_search"})
            one["vector_stores"] = [chance.choice(stores)]
        plain = [f["name"] for f in account["files"] if f["purpose"] == "assistants"]
        if plain and chance.random() < 0.5:
            one["tools"].append({"type": "code_interpreter"})
            one["code_files"] = plain[:1]
        account["assistants"].append(one)


def _connections(
    chance: random.Random, made: RandomEstate, account: str, where: Sequence[str], kind: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for n in _some(chance, 3):
        auth = chance.choice(sorted(_CREDENTIALS))
        credentials, answer = _CREDENTIALS[auth]
        properties: dict[str, Any] = {
            "category": chance.choice(("CognitiveSearch", "CustomKeys", "ApiKey")),
            "authType": auth,
            "target": f"https://{chance.choice(('x', account.lower()))}.example/{n}",
            "metadata": {"note": _word(chance), "ResourceId": "${resource.strandom}"},
        }
        if credentials is not None:
            properties["credentials"] = credentials
            made.secrets["/".join((kind, *where, f"con-{n}")).lower()] = answer
        if chance.random() < 0.4:
            properties["isSharedToAll"] = chance.random() < 0.5
        found.append({"name": f"con-{n}", "properties": properties})
    return found


def _foundry(chance: random.Random, made: RandomEstate, account: dict[str, Any]) -> None:
    name = account["name"]
    account["properties"]["allowProjectManagement"] = True
    account["connections"] = _connections(chance, made, name, (name,), "account-connection")
    account["connections"] += [
        {"name": f"aad-{what}", "properties": {
            "category": category, "authType": "AAD", "target": f"https://{what}.example/"}}
        for what, category in (("search", "CognitiveSearch"), ("store", "AzureStorageAccount"),
                               ("cosmos", "CosmosDb"))
    ]  # fmt: skip
    hosts = chance.random() < 0.5
    if hosts:
        account["capability_hosts"] = [
            {"name": "Host-1", "properties": {"capabilityHostKind": "Agents"}}
        ]
    if chance.random() < 0.5:
        account["managed_network"] = {
            "isolationMode": chance.choice(("AllowInternetOutbound", "AllowOnlyApprovedOutbound")),
            "outboundRules": {
                f"rule-{n}": {"type": "FQDN", "destination": f"{n}.example"}
                for n in _some(chance, 2)
            },
        }
    able = [d["name"] for d in account["deployments"] if d["model"].startswith(("gpt", "o4"))]
    account["projects"] = []
    for n in _some(chance, 3):
        project: dict[str, Any] = {
            "name": f"{chance.choice('zmAb')}-desk_{n}",
            "display_name": _word(chance),
            "description": chance.choice(("", _word(chance))),
        }
        if chance.random() < 0.5:
            project["tags"] = _tags(chance)
        project["connections"] = _connections(
            chance, made, name, (name, project["name"]), "project-connection"
        )
        if hosts and chance.random() < 0.7:
            project["capability_hosts"] = [
                {"name": "desk-host", "properties": {
                    "threadStorageConnections": ["aad-cosmos"],
                    "storageConnections": ["aad-store"],
                    "vectorStoreConnections": ["aad-search"]}}
            ]  # fmt: skip
        project["agents"] = [
            {"name": f"Agent-{a}", "versions": [
                {"model": chance.choice(able), "instructions": f"{_word(chance)} v{v}",
                 **({"tools": [{"type": "code_interpreter"}]} if chance.random() < 0.4 else {}),
                 **({"metadata": {"note": _word(chance)}} if chance.random() < 0.4 else {}),
                 **({"temperature": 0.25} if chance.random() < 0.4 else {})}
                for v in range(chance.randint(1, 3))]}
            for a in (_some(chance, 2) if able else ())
        ]  # fmt: skip
        account["projects"].append(project)
