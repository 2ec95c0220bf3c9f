"""Where a long operation stands, by the rules of the ARM resource provider contract.

Three forms (arm-rpc v1.0, async-api-reference.md): an `Azure-AsyncOperation` URL that answers 200
with a `status`; a `Location` URL that answers 202 while it runs; a resource whose
`properties.provisioningState` is not terminal yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urljoin

from snapshots.cloud.faults import explain
from snapshots.cloud.scrub import scrub
from snapshots.errors import CloudError, DamagedAnswerError
from snapshots.model import Json, canonical


class Form(StrEnum):
    """What an operation's URL answers."""

    STATUS = "status"  # Azure-AsyncOperation
    LOCATION = "location"
    RESOURCE = "resource"
    UNKNOWN = "unknown"  # resumed from a bare URL


@dataclass(frozen=True, slots=True)
class Operation:
    """A long operation that was started: where to look, and how to read what is there."""

    form: Form
    url: str
    final: str  # URL of what holds the result once it succeeded; "" when the last look has it


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at an operation showed."""

    state: str  # Azure's word
    done: bool
    percent: float | None = None
    error: Json = None


_SUCCEEDED = "succeeded"
_FAILED = frozenset({"failed", "canceled", "cancelled"})


def provisioning_state(body: Json) -> str | None:
    """`properties.provisioningState` of a resource, or None."""
    if isinstance(body, dict):
        properties = body.get("properties")
        if isinstance(properties, dict):
            state = properties.get("provisioningState")
            if isinstance(state, str) and state:
                return state
    return None


def started(
    method: str, url: str, status: int, headers: Mapping[str, str], body: Json
) -> Operation | None:
    """The operation a successful first answer started, or None when all is done already."""
    watched = headers.get("azure-asyncoperation") or headers.get("operation-location")
    location = headers.get("location", "")
    if watched:
        match method:
            case "PUT" | "PATCH":
                final = url
            case "POST":
                final = urljoin(url, location) if location else ""
            case _:
                final = ""
        return Operation(Form.STATUS, urljoin(url, watched), final)
    if status == 202 and location:
        return Operation(Form.LOCATION, urljoin(url, location), "")
    state = provisioning_state(body)
    if state is not None and method in ("PUT", "PATCH"):
        if state.lower() == _SUCCEEDED:
            return None
        return Operation(Form.RESOURCE, url, "")
    if status == 202 and method in ("PUT", "PATCH", "DELETE"):
        return Operation(Form.RESOURCE, url, "")
    return None


def look(operation: Operation, status: int, body: Json, where: str) -> Look:
    """Read one answer of the operation's URL. Raises DamagedAnswerError on nonsense."""
    if status == 202:
        return Look(_word(body) or "InProgress", done=False, percent=_percent(body))
    if status == 204:
        return Look("Succeeded", done=True)
    resource = provisioning_state(body)
    said = body.get("status") if isinstance(body, dict) else None
    if operation.form is Form.STATUS or (operation.form is Form.UNKNOWN and resource is None):
        if isinstance(said, str) and said:
            error = body.get("error") if isinstance(body, dict) else None
            return Look(said, _terminal(said), _percent(body), error)
        if operation.form is Form.STATUS and resource is None:
            raise DamagedAnswerError(
                "the status of a long operation has no status",
                where=where,
                remedy="read the resource again before repeating: the operation may go on",
            )
    if resource is not None:
        error = body.get("error") if isinstance(body, dict) else None
        return Look(resource, _terminal(resource), None, error)
    return Look("Succeeded", done=True)


def failure(found: Look, where: str) -> CloudError | None:
    """The error when the operation ended otherwise than well."""
    if not found.done or found.state.lower() == _SUCCEEDED:
        return None
    code, message = explain(canonical({"error": found.error})) if found.error else (None, "")
    said = f": {message}" if message else ""
    named = f" {code}" if code else ""
    return CloudError(
        f"the operation ended as {scrub(found.state)}{named}{said}",
        where=where,
        remedy="the message says why; what was asked for is not there",
        code=code or f"Operation{found.state.capitalize()}",
    )


def _terminal(state: str) -> bool:
    return state.lower() == _SUCCEEDED or state.lower() in _FAILED


def _word(body: Json) -> str:
    said = body.get("status") if isinstance(body, dict) else None
    return said if isinstance(said, str) else ""


def _percent(body: Json) -> float | None:
    value = body.get("percentComplete") if isinstance(body, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return min(100.0, max(0.0, float(value)))
