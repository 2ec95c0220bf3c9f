"""Azure's refusals in words: from an answer or a broken line to the error tree."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

import orjson

from snapshots.cloud.scrub import scrub
from snapshots.errors import (
    CloudError,
    ConflictError,
    DamagedAnswerError,
    DeniedError,
    MissingError,
    ThrottledError,
    UnreachableError,
)
from snapshots.model import Json

# Another operation runs on the same parent: it goes away by waiting. One write at
# a time for each account; an account that is still being created refuses its children with a 400.
BUSY = frozenset(
    {
        "requestconflict",
        "anotheroperationinprogress",
        "operationinprogress",
        "accountprovisioningstateinvalid",
        "retryableerror",
    }
)

_LONGEST = 900  # characters of a message: what people read

_ACTION = re.compile(
    r"(?:perform(?:ing)?\s+(?:the\s+)?action|data\s*action|permission|action)s?[:\s]*"
    r"['\"`‘“]?(Microsoft\.[A-Za-z]+/[\w/.*-]+)",
    re.IGNORECASE,
)


def explain(body: bytes) -> tuple[str | None, str]:
    """Azure's error code and message in an answer's body, the message scrubbed and on one line.

    Knows ARM's `{"error": {"code", "message", "details"}}`, the data plane's `inner_error` and
    `innererror`, the old `{"statusCode", "message"}` and `{"code", "message"}`, and plain text.
    """
    try:
        document: Json = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        text = body[:_LONGEST].decode("utf-8", "replace")
        text = re.sub(r"<[^>]+>", " ", text)
        return None, _tidy(text)
    if not isinstance(document, dict):
        return None, ""
    error = document.get("error", document)
    if isinstance(error, str):  # Entra: {"error": "invalid_client", "error_description": "…"}
        description = document.get("error_description") or document.get("message") or ""
        return error, _tidy(str(description))
    if not isinstance(error, dict):
        return None, ""
    code = error.get("code", document.get("statusCode"))
    parts = [str(error.get("message") or "")]
    target = error.get("target")
    if isinstance(target, str) and target and target not in parts[0]:
        parts.append(f"(target {target})")
    inner = error.get("innererror") or error.get("inner_error")
    for more in (error.get("details"), [inner]):
        for item in more if isinstance(more, list) else ():
            if isinstance(item, dict):
                message = str(item.get("message") or item.get("code") or "")
                if message and message not in " ".join(parts):
                    parts.append(message)
    return (str(code) if code not in (None, "") else None), _tidy(" ".join(filter(None, parts)))


def _tidy(text: str) -> str:
    text = scrub(" ".join(text.split()))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"


def refusal(status: int, headers: Mapping[str, str], body: bytes, where: str) -> CloudError:
    """The error for an answer that is not a success. `where` holds no secret."""
    code, message = explain(body)
    spot = _with_request_id(where, headers)
    said = f": {message}" if message else ""
    named = f" {code}" if code else ""
    match status:
        case 401 if _lacks(code, message):
            # The data planes say 401 where ARM says 403.
            return DeniedError(
                f"Azure denies it (401{named}){said}",
                where=spot,
                remedy=permission_remedy(message, where),
                status=status,
                code=code,
            )
        case 401:
            return DeniedError(
                f"Azure does not accept the identity (401{named}){said}",
                where=spot,
                remedy="sign in again (az login) or check tenant, client and the machine's clock",
                status=status,
                code=code,
            )
        case 403:
            return DeniedError(
                f"Azure denies it (403{named}){said}",
                where=spot,
                remedy=permission_remedy(message, where),
                status=status,
                code=code,
            )
        case 404 | 410:
            return MissingError(
                f"it is not there ({status}{named}){said}",
                where=spot,
                remedy="check the name, the subscription and the cloud; it may have been deleted",
                status=status,
                code=code,
            )
        case 409 | 412:
            return ConflictError(
                f"the state does not allow it ({status}{named}){said}",
                where=spot,
                remedy=_conflict_remedy(status, code),
                status=status,
                code=code,
            )
        case 429:
            return ThrottledError(
                f"Azure is throttling{said}",
                where=spot,
                remedy=_throttle_remedy(headers),
                status=status,
                code=code,
            )
        case _ if status >= 500 or status == 408:
            return CloudError(
                f"Azure failed ({status}{named}){said}",
                where=spot,
                remedy="try again later; see Azure's status page for the region",
                status=status,
                code=code,
            )
        case _:
            return CloudError(
                f"Azure refuses the request ({status}{named}){said}",
                where=spot,
                remedy=_input_remedy(code),
                status=status,
                code=code,
            )


def _lacks(code: str | None, message: str) -> bool:
    return (code or "").lower() == "permissiondenied" or "data action" in message.lower()


def _with_request_id(where: str, headers: Mapping[str, str]) -> str:
    found = headers.get("x-ms-request-id") or headers.get("apim-request-id")
    return f"{where} (request id {scrub(found)})" if found else where


def permission_remedy(message: str, where: str) -> str:
    """Which role gives what is missing, from Azure's message and the request."""
    lowered = message.lower()
    if "firewall" in lowered or "virtual network" in lowered or "public access" in lowered:
        return (
            "the account's network rules keep us out: run muster from an allowed network or "
            "through its private endpoint"
        )
    found = _ACTION.search(message)
    action = found.group(1).rstrip(".") if found else ""
    role = _role(action.lower(), where.lower())
    if action:
        return f"the action {action} is missing: assign the role {role} at that scope"
    return f"assign the role {role} at that scope"


def _role(action: str, where: str) -> str:
    data = "/openai/" in action or "/openai/" in where or "/accounts/aiservices/" in action
    if "/api/projects/" in where or "/agents/" in action:
        return "Azure AI User"
    if "roleassignments" in action and "/read" not in action:
        return "Role Based Access Control Administrator"
    if "/locks/" in action and "/read" not in action:
        return "User Access Administrator"
    if data and "/providers/" not in where.partition("?")[0]:
        reading = action.endswith("/read") or (not action and where.startswith("get "))
        return "Cognitive Services OpenAI " + ("User" if reading else "Contributor")
    if action.endswith("/read") or (not action and where.startswith("get ")):
        return "Reader"
    if "deletedaccounts" in action or "deletedaccounts" in where:
        return "Cognitive Services Contributor (on the subscription)"
    if "diagnosticsettings" in action:
        return "Monitoring Contributor"
    return "Cognitive Services Contributor"


def _conflict_remedy(status: int, code: str | None) -> str:
    lowered = (code or "").lower()
    if status == 412:
        return "somebody changed it since it was read: read it again, then decide again"
    if lowered in BUSY:
        return "another operation runs on the same account: wait for it, then try again"
    if lowered == "flagmustbesetforrestore":
        return "a soft-deleted account has this name: restore it or purge it first"
    if lowered == "missingsubscriptionregistration":
        return "register the resource provider in the subscription (az provider register)"
    if lowered == "cannotdeleteresource":
        return "delete what is nested in it first"
    if lowered == "customdomaininuse":
        return "the sub-domain is taken, perhaps by a soft-deleted account: purge or rename"
    return "read the state again and decide again"


def _input_remedy(code: str | None) -> str:
    lowered = (code or "").lower()
    if "quota" in lowered:
        return "ask for quota in that region, or map to a smaller size or another region"
    if lowered == "customdomaininuse":
        return "the sub-domain is taken, perhaps by a soft-deleted account: purge or rename"
    return "the request does not suit this resource: compare it with the message above"


def _throttle_remedy(headers: Mapping[str, str]) -> str:
    wait = retry_after(headers, datetime.now(UTC))
    when = f"in {wait:.0f} s" if wait else "later"
    return f"try again {when}; other tools under the same identity share the budget"


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """The seconds Azure asks us to wait, or None. Never negative.

    Milliseconds go first (`retry-after-ms`, `x-ms-retry-after-ms`), then `retry-after` in seconds
    or as a date.
    """
    for name in ("retry-after-ms", "x-ms-retry-after-ms"):
        seconds = _number(headers.get(name, ""))
        if seconds is not None:
            return seconds / 1000
    text = headers.get("retry-after", "").strip()
    if not text:
        return None
    seconds = _number(text)
    if seconds is not None:
        return seconds
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - now).total_seconds())


def _number(text: str) -> float | None:
    try:
        value = float(text.strip())
    except ValueError:
        return None
    return max(0.0, value) if value == value and value < 1e9 else None  # noqa: PLR0124  NaN


class WireKind(StrEnum):
    """How a line broke."""

    TLS = "tls"
    NAME = "name"
    CONNECT = "connect"
    SILENCE = "silence"  # no answer in time
    CUT = "cut"  # the answer stopped before its end
    NOT_JSON = "not-json"  # whole, or cut where nobody could tell, and no JSON
    OTHER = "other"


class WireFault(Exception):  # noqa: N818  internal: becomes an error of the tree in `broken`
    """The line broke. `sent`: whether Azure may have got the request."""

    def __init__(self, kind: WireKind, detail: str, *, sent: bool) -> None:
        self.kind = kind
        self.detail = detail
        self.sent = sent
        super().__init__(detail)


def broken(fault: WireFault, where: str, host: str, *, mutating: bool) -> CloudError:
    """The error for a line that broke and stayed broken."""
    detail = _tidy(fault.detail)
    doubt = " It may have been done or not" if mutating and fault.sent else ""
    match fault.kind:
        case WireKind.CUT:
            return DamagedAnswerError(
                f"the answer from {host} stopped before its end.{doubt}",
                where=where,
                remedy="try again; a proxy or an unsteady network cuts connections",
            )
        case WireKind.NOT_JSON:
            return DamagedAnswerError(
                f"the answer from {host} is not JSON ({detail}).{doubt}",
                where=where,
                remedy="try again; a proxy or a sign-in page may answer in Azure's place",
            )
        case WireKind.TLS:
            remedy = (
                "the certificate is not trusted: give the certificate authority's file (ca_file), "
                "or check for a proxy that opens TLS"
            )
        case WireKind.NAME:
            remedy = "the name is unknown: check DNS, the private DNS zone and the cloud's name"
        case WireKind.CONNECT:
            remedy = "check network, firewall and proxy, and whether the endpoint exists"
        case WireKind.SILENCE:
            remedy = "try again later; Azure or the network is slow"
        case _:
            remedy = "check the network, then try again"
    said = f": {detail}" if detail else ""
    return UnreachableError(f"no answer from {host}{said}.{doubt}", where=where, remedy=remedy)
