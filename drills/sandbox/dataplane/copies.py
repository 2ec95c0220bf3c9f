"""The preview that copies a fine-tuning checkpoint to an account in another region."""

from __future__ import annotations

from drills.sandbox.arm import Record
from drills.sandbox.dataplane import files, finetuning
from drills.sandbox.dataplane.ask import (
    ACCOUNT,
    OPENAI,
    SERVICES,
    V1_ONLY,
    Ask,
    DataError,
    Route,
    invalid,
    not_found,
    peek,
    space,
)
from drills.sandbox.ids import parse_id, region_name
from drills.sandbox.providers.cognitive_accounts import tenant_of
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World

DUE = "dp.copy"
_HEADER = "aoai-copy-ft-checkpoints"
# what the source's identity must be allowed at the destination: Azure AI User grants it
_RIGHT = f"{SERVICES}/fine-tunes/write"


def _require_header(ask: Ask) -> None:
    if ask.call.headers.get(_HEADER, "").lower() != "preview":
        raise invalid(
            f"Copying of checkpoints is in preview: the header '{_HEADER}: preview' is required.",
            param=_HEADER,
        )


def _checkpoint(ask: Ask) -> tuple[Body, Body]:
    job = finetuning.found(ask)
    name = ask.names["checkpoint"]
    item = ask.world.store.get(ask.account_space("checkpoints"), name)
    if item is None or item["fine_tuning_job_id"] != job["id"]:
        raise not_found(f"The checkpoint '{name}' of the job '{job['id']}' was not found.")
    return job, item


def _destination(ask: Ask, body: Body) -> Record:
    text, region = ask.text(body, "destinationResourceId"), ask.text(body, "region")
    try:
        rid = parse_id(text)
    except ValueError:
        rid = None
    if rid is None or rid.collection or rid.type.lower() != ACCOUNT.lower():
        raise invalid(
            f"'{text}' is not the resource id of an account.", param="destinationResourceId"
        )
    found = peek(ask.world, rid)
    if found is None:
        raise not_found(f"The destination resource '{text}' was not found.")
    if region_name(region) != region_name(str(found.body.get("location", ""))):
        raise invalid(
            f"The destination resource is not in the region '{region}' but in "
            f"'{found.body.get('location')}'.",
            param="region",
        )
    return found


def _require_readiness(ask: Ask, destination: Record) -> None:
    """The documented prerequisites of the destination and of the source's identity."""
    world = ask.world
    here = tenant_of(world, parse_id(ask.account.id).subscription)
    there = tenant_of(world, parse_id(destination.id).subscription)
    if here.lower() != there.lower():
        raise DataError(
            403,
            "forbidden",
            "Checkpoints can be copied within one tenant only: the destination "
            "resource is in another one.",
        )
    if str(destination.properties.get("publicNetworkAccess", "")).lower() == "disabled":
        raise DataError(
            403,
            "forbidden",
            "Public network access of the destination resource is disabled: it must be enabled "
            "while a checkpoint is copied.",
        )
    identities = (ask.account.body.get("identity") or {}).get("userAssignedIdentities") or {}
    principals = [
        str(identity.get("principalId"))
        for identity in identities.values()
        if isinstance(identity, dict) and identity.get("principalId")
    ]
    if not principals:
        raise invalid(
            "The source resource has no user-assigned managed identity. Assign one that holds the "
            "role 'Azure AI User' on the destination resource."
        )
    if not any(world.access.holds(p, _RIGHT, destination.id, data=True) for p in principals):
        raise DataError(
            403,
            "forbidden",
            "No user-assigned managed identity of the source resource holds the role "
            "'Azure AI User' on the destination resource.",
        )
    if not world.store.count(space(destination.id, "jobs")):
        raise invalid(
            "The destination resource has no fine-tuning job: at least one is required before a "
            "checkpoint can be copied to it.",
            param="destinationResourceId",
        )


def start(ask: Ask) -> Answer:
    """POST …/checkpoints/{checkpoint}/copy."""
    _require_header(ask)
    job, checkpoint = _checkpoint(ask)
    files.require_key(ask)
    destination = _destination(ask, ask.body())
    _require_readiness(ask, destination)
    key = f"{job['id']}/{checkpoint['id']}"
    copy = ask.world.store.get(ask.account_space("copies"), key) or {
        "checkpointedModelName": checkpoint["id"],
        "fineTuningJobId": job["id"],
        "copiedAccountDetails": [],
    }
    others = [
        d
        for d in copy["copiedAccountDetails"]
        if d["destinationResourceId"].lower() != destination.id.lower()
    ]
    earlier = [d for d in copy["copiedAccountDetails"] if d not in others]
    if earlier and earlier[0]["status"] != "Failed":
        return Answer(200, copy)  # asked for again: it runs or is there already
    detail = {
        "destinationResourceId": destination.id,
        "region": region_name(str(destination.body["location"])),
        "status": "InProgress",
    }
    copy = {**copy, "copiedAccountDetails": [*others, detail]}
    ask.world.store.put(ask.account_space("copies"), key, copy)
    seconds, outcome = ask.world.faults.operation(
        ask.call, destination.id, ask.world.seconds("checkpoint-copy")
    )
    if outcome != "stuck":
        ask.world.after(
            seconds,
            DUE,
            {
                "account": ask.account.id,
                "copy": key,
                "destination": destination.id,
                "fails": outcome is not None,
                "base": job["base"],
            },
        )
    return Answer(200, copy)


def look(ask: Ask) -> Answer:
    """GET …/checkpoints/{checkpoint}/copy."""
    _require_header(ask)
    job, checkpoint = _checkpoint(ask)
    copy = ask.world.store.get(ask.account_space("copies"), f"{job['id']}/{checkpoint['id']}")
    if copy is None:
        raise not_found(f"The checkpoint '{checkpoint['id']}' has not been copied.")
    return Answer(200, copy)


def copy_due(world: World, body: Body) -> None:
    """A copy's time has come: the destination can deploy it, unless it has gone meanwhile."""
    destination = peek(world, body["destination"])
    name = body["copy"].partition("/")[2]
    done = destination is not None and not body["fails"]
    if destination is not None and done:
        world.store.put(
            space(destination.id, "models"),
            name,
            {
                "id": name,
                "kind": "copy",  # in no list, but deployable
                "created_at": int(world.clock.timestamp()),
                "fine_tune": body["copy"].partition("/")[0],
                "model": body["base"],
                "base": body["base"],
            },
        )
    copy = world.store.get(space(body["account"], "copies"), body["copy"])
    if copy is None:
        return  # the source went; the copy did not
    details = [
        {**d, "status": "Completed" if done else "Failed"}
        if d["destinationResourceId"].lower() == body["destination"].lower()
        else d
        for d in copy["copiedAccountDetails"]
    ]
    world.store.put(
        space(body["account"], "copies"), body["copy"], {**copy, "copiedAccountDetails": details}
    )


_PATH = "/fine_tuning/jobs/{job}/checkpoints/{checkpoint}/copy"
ROUTES: tuple[Route, ...] = (
    Route("POST", _PATH, f"{OPENAI}/fine-tunes/write", start, V1_ONLY),
    Route("GET", _PATH, f"{OPENAI}/fine-tunes/read", look, V1_ONLY),
)
