"""The twin: a kept snapshot applied into a sandbox of its own, to rehearse in.

The engine applies what it can, as in a restore. What a fresh Azure would refuse is there
beforehand: the names of subscriptions, what bodies point to outside, fine-tuned models with their
training files, and the right to models that are closed to newcomers. What the twin lacks all the
same is named.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from snapshots.errors import MusterError
from snapshots.model import Json, JsonObject, Key, Resource, Snapshot

if TYPE_CHECKING:
    from muster.wiring import Wiring
    from snapshots.vault import Vault

PRINCIPAL = "twin"
_OUTSIDE = re.compile(
    r"/subscriptions/([0-9a-f-]{36})/resourcegroups/([^/\s\"]+)"
    r"/providers/(microsoft\.[a-z]+)/([a-z]+)/([^/\s\"]+)(?:/subnets/([^/\s\"]+))?",
    re.IGNORECASE,
)
_OURS = frozenset({"microsoft.cognitiveservices", "microsoft.authorization", "microsoft.insights"})
_TUNED = re.compile(r"(?P<base>.+)\.ft-(?P<hex>[0-9a-f]{8,})(?:-(?P<suffix>.+))?", re.IGNORECASE)
_BODIES: Mapping[str, JsonObject] = {
    "microsoft.storage/storageaccounts": {"kind": "StorageV2", "sku": {"name": "Standard_LRS"}},
    "microsoft.search/searchservices": {"sku": {"name": "standard"}},
    "microsoft.documentdb/databaseaccounts": {"kind": "GlobalDocumentDB"},
}
# A lesson for a model whose training file is not in the vault: the twin's model needs one.
_LESSON = "".join(
    json.dumps(
        {
            "messages": [
                {"role": "user", "content": f"Question {n}"},
                {"role": "assistant", "content": f"Answer {n} of the twin."},
            ]
        }
    )
    + "\n"
    for n in range(1, 11)
)
_BYTES = 4 * 1024 * 1024  # of a training file that goes into an estate file


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of applying a snapshot to the twin."""

    resources: int
    lacks: tuple[str, ...]  # what the twin has not, and why


def estate_of(snapshot: Snapshot, read: Callable[[str], bytes | None]) -> str:
    """Give the sandbox's estate file that a snapshot is applied to.

    `read` gives a payload by its digest, None where the vault has it not. JSON, and so YAML.
    """
    subscriptions = sorted({key.path[0] for key in snapshot.resources if key.path})
    document: JsonObject = {
        "name": "twin",
        "subscriptions": [{"name": id_, "id": id_} for id_ in subscriptions],
        "principals": [{"name": PRINCIPAL, "role": "Owner"}],
        "role_definitions": [
            {
                "name": "Twin Operator",
                "subscription": subscriptions[0],
                "actions": ["*"],
                "data_actions": ["*"],
            }
        ]
        if subscriptions
        else [],
        "role_assignments": [{"principal": PRINCIPAL, "role": "Twin Operator"}],
    }
    outside = _outside(snapshot, frozenset(subscriptions))
    document["groups"] = _groups(snapshot, outside)
    document["resources"] = list(outside.values())
    document["quotas"] = _quotas(snapshot, frozenset(subscriptions))
    document["accounts"] = _accounts(snapshot, read)
    return json.dumps(document, ensure_ascii=False)


def _outside(
    snapshot: Snapshot, subscriptions: frozenset[str]
) -> dict[tuple[str, ...], JsonObject]:
    """Give what bodies point to and muster does not keep: storage, identities, networks."""
    found: dict[tuple[str, ...], JsonObject] = {}
    names: set[str] = set()
    for resource in snapshot.resources.values():
        for match in _OUTSIDE.finditer(json.dumps(resource.body)):
            subscription, group, space, kind, name, subnet = match.groups()
            place = (subscription.lower(), group.lower(), space.lower(), kind.lower(), name.lower())
            if place[2] in _OURS or place[0] not in subscriptions:
                continue
            known = found.get(place)
            if known is None:
                if place[-1] in names:
                    continue  # an estate file tells its other resources apart by name
                names.add(place[-1])
                body = dict(_BODIES.get(f"{place[2]}/{place[3]}", {}))
                known = found[place] = {
                    "type": f"{space}/{kind}",
                    "group": f"{place[0]}/{place[1]}",
                    "name": name,
                    "body": body,
                }
            if subnet:
                body_ = known["body"]
                assert isinstance(body_, dict)
                properties = body_.setdefault(
                    "properties",
                    {"addressSpace": {"addressPrefixes": ["10.0.0.0/16"]}, "subnets": []},
                )
                subnets = properties.get("subnets") if isinstance(properties, dict) else None
                if isinstance(subnets, list) and all(
                    not isinstance(s, dict) or s.get("name") != subnet for s in subnets
                ):
                    number = len(subnets)
                    subnets.append(
                        {
                            "name": subnet,
                            "properties": {"addressPrefix": f"10.0.{number % 250}.0/24"},
                        }
                    )
    return found


def _groups(snapshot: Snapshot, outside: dict[tuple[str, ...], JsonObject]) -> list[Json]:
    """Give every group that something lies in. Estate files tell groups apart by name alone."""
    wanted: dict[tuple[str, str], str] = {}
    for key, resource in snapshot.resources.items():
        if key.kind == "resource-group":
            wanted[key.path[0], key.path[1]] = _text(resource.body, "location")
    for key, resource in snapshot.resources.items():
        if key.kind == "account":
            wanted.setdefault((key.path[0], key.path[1]), _text(resource.body, "location"))
    fallback = next((place for place in wanted.values() if place), "swedencentral")
    for subscription, group, *_ in outside:
        wanted.setdefault((subscription, group), fallback)
    names: dict[str, str] = {}
    rows: list[Json] = []
    for (subscription, group), region in sorted(wanted.items()):
        if group in names:  # the engine makes the second one
            continue
        names[group] = subscription
        rows.append({"name": group, "subscription": subscription, "location": region or fallback})
    for there, other in list(outside.items()):
        if names.get(there[1]) == there[0]:
            other["group"] = there[1]
        else:
            del outside[there]
    return rows


def _quotas(snapshot: Snapshot, subscriptions: frozenset[str]) -> list[Json]:
    """Give the quota that the subscriptions had, where the snapshot has it."""
    rows: list[Json] = []
    for path, document in sorted(snapshot.reference.items()):
        parts = path.removesuffix(".json").split("/")
        if len(parts) != 3 or parts[0] != "usages" or parts[1] not in subscriptions:
            continue
        items = document.get("items") if isinstance(document, dict) else None
        for item in items if isinstance(items, list) else ():
            name = item.get("name") if isinstance(item, dict) else None
            limit = item.get("limit") if isinstance(item, dict) else None
            if isinstance(name, dict) and isinstance(limit, int | float):
                rows.append(
                    {
                        "subscription": parts[1],
                        "region": parts[2],
                        "usage": str(name.get("value")),
                        "limit": int(limit),
                    }
                )
    return rows


def _accounts(snapshot: Snapshot, read: Callable[[str], bytes | None]) -> list[Json]:
    """Give the accounts that have fine-tuned models, with the models: no restore brings those."""
    tuned: dict[tuple[str, ...], set[str]] = {}
    for key, resource in snapshot.resources.items():
        if key.kind == "fine-tuned-model":
            tuned.setdefault(key.path[:3], set()).add(key.name)
        elif key.kind == "deployment":
            model = _dict(_dict(resource.body.get("properties")).get("model"))
            if not model.get("source") and _TUNED.fullmatch(_text(model, "name")):
                tuned.setdefault(key.path[:3], set()).add(_text(model, "name"))
    rows: list[Json] = []
    for path, models in sorted(tuned.items()):
        account = snapshot.resources.get(Key("account", path))
        if account is None:
            continue
        files: dict[str, str] = {}
        entries: list[Json] = []
        for name in sorted(models):
            entries.extend(_tuning(snapshot, path, name, read, files))
        named: list[Json] = [
            {"name": file, "purpose": "fine-tune", "content": files[file]} for file in files
        ]
        rows.append(
            {
                "name": _text(account.body, "name") or path[2],
                "group": path[1],
                "kind": _text(account.body, "kind"),
                "location": _text(account.body, "location"),
                "domain": _text(_dict(account.body.get("properties")), "customSubDomainName")
                or "none",
                "files": named,
                "fine_tuning": entries,
            }
        )
    return rows


def _tuning(
    snapshot: Snapshot,
    path: tuple[str, ...],
    model: str,
    read: Callable[[str], bytes | None],
    files: dict[str, str],
) -> Iterable[JsonObject]:
    """Give the job that makes a model of that very name, and put its file with `files`."""
    match = _TUNED.fullmatch(model)
    if match is None:
        return
    job = next(
        (
            resource.body
            for key, resource in snapshot.resources.items()
            if key.kind == "fine-tuning-job"
            and key.path[:3] == path
            and resource.body.get("fine_tuned_model") == model
        ),
        {},
    )
    name, content = f"twin-{match['hex'][:8]}.jsonl", _LESSON
    for key, resource in snapshot.resources.items():
        here = key.kind == "file" and key.path[:3] == path
        if here and resource.payloads and resource.id == job.get("training_file"):
            data = read(resource.payloads[0].sha256)
            if data is not None and len(data) <= _BYTES and b"${" not in data:
                name = _text(resource.body, "filename") or key.name
                content = data.decode("utf-8", "replace")
    files[name] = content
    hyper = _dict(job.get("hyperparameters"))
    epochs = hyper.get("n_epochs")
    entry: JsonObject = {
        "model": match["base"],
        "training_file": name,
        "hex": match["hex"],
        "epochs": epochs if isinstance(epochs, int) else 2,
    }
    if match["suffix"]:
        entry["suffix"] = match["suffix"]
    yield entry


def customers(snapshot: Snapshot) -> list[JsonObject]:
    """Give the sandbox's items that say: these subscriptions had these models already."""
    found: dict[str, JsonObject] = {}
    for key, resource in snapshot.resources.items():
        if key.kind != "deployment":
            continue
        model = _dict(_dict(resource.body.get("properties")).get("model"))
        for subscription in sorted({k.path[0] for k in snapshot.resources if k.path}):
            id_ = f"{subscription}/{_text(model, 'name')}/{_text(model, 'version')}".lower()
            if key.path[0] == subscription:
                found[id_] = {"space": "cs:customers", "id": id_, "body": {"since": 0}}
    return [found[id_] for id_ in sorted(found)]


def lend(snapshot: Snapshot, vault: Vault, twin: Vault) -> None:
    """Copy the payloads that a snapshot names: nothing of a rehearsal is written to the vault."""
    for payload in sorted({p for r in snapshot.resources.values() for p in r.payloads}):
        if twin.has(payload.sha256):
            continue
        try:
            twin.keep(vault.read(payload.sha256))
        except MusterError:
            continue  # what it stands for is named as lacking when it cannot be made


def apply_to(wiring: Wiring, snapshot: Snapshot, tell: Callable[[str], None]) -> Applied:
    """Apply a snapshot to the twin that `wiring` names. What cannot be made there is told."""
    from muster.drilling import PLACEHOLDER, made_up
    from snapshots.restore import Request, execute, prepare
    from snapshots.steps import StepState

    tools = replace(wiring.restore_tools(), secret=made_up)
    whole = replace(snapshot, gaps=(), resources=dict(_without(snapshot)))
    request = Request(
        snapshot=whole, target="twin", secrets={"*": PLACEHOLDER}, threads=wiring.settings
        .restore.threads,
    )  # fmt: skip
    prepared = prepare(request, tools)
    tell(f"applying {len(prepared.plan.steps)} steps to the twin")
    lacks = [f"{item.key}: {item.sentence}" for item in prepared.plan.not_restorable]
    if not prepared.plan.is_empty:
        done = execute(prepared, tools, wiring.records())
        for step in done.record.plan.steps:
            last = done.record.last(step.id)
            if last is None or last.state not in (StepState.DONE, StepState.ADOPTED):
                lacks.append(f"{step.key}: {last.error if last is not None else 'not reached'}")
    lacks += [f"{gap.key}: the snapshot has it not ({gap.detail})" for gap in snapshot.gaps]
    return Applied(len(whole.resources), tuple(lacks))


def _without(snapshot: Snapshot) -> Iterable[tuple[Key, Resource]]:
    """Leave out people's rights: the twin has no people, and its drills need none."""
    principals = {
        _text(_dict(resource.body.get("identity")), "principalId")
        for resource in snapshot.resources.values()
    }
    for key, resource in snapshot.resources.items():
        if key.kind == "role-assignment":
            properties = _dict(resource.body.get("properties")) or resource.body
            if _text(properties, "principalId") not in principals:
                continue
        yield key, resource


def _dict(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _text(document: Mapping[str, Json], name: str) -> str:
    value = document.get(name)
    return value if isinstance(value, str) else ""
