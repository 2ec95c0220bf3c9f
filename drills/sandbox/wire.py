"""What travels: a call as it came in, an answer as it goes out, and errors as Azure spells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import orjson

Body: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, as the token says (or "key" when an account key was used)."""

    oid: str  # object id of the principal
    appid: str = ""  # client id; for a user, of the client that acts for it
    name: str = ""
    upn: str = ""  # users only
    kind: str = "ServicePrincipal"  # User | ServicePrincipal | ManagedIdentity
    tenant: str = ""
    audience: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)
    via: str = "token"  # token | key

    @property
    def label(self) -> str:
        """What `systemData.createdBy` and an Activity Log `caller` show: UPN, else a GUID.

        Users by UPN, service principals by object id (createdBy: client id in most traces).
        """
        return self.upn or self.appid or self.oid


@dataclass(slots=True)
class Call:
    """One request."""

    method: str
    path: str  # decoded, spelled as sent, without the query
    query: Mapping[str, str]  # last value wins; names as sent
    headers: Mapping[str, str]  # lower-case names
    body: bytes
    base: str  # scheme://host:port as the client addressed it
    client: str  # remote address
    id: str  # x-ms-request-id of the answer
    correlation_id: str
    now: datetime  # by the sandbox's clock
    raw_path: str = ""  # as sent, still percent-encoded
    caller: Caller | None = None
    region: str = ""  # filled once known: where the request was served
    target: str = ""  # filled once known: ARM id of what it is about
    operation: str = ""  # filled once known: the RBAC action
    holds: str = ""  # the account (id in lower case) that this write keeps busy until its answer
    _json: Any = field(default=None, repr=False)

    def parameter(self, name: str, default: str = "") -> str:
        """A query parameter; names are compared without case, as ARM does."""
        wanted = name.lower()
        for key, value in self.query.items():
            if key.lower() == wanted:
                return value
        return default

    def json(self) -> Body:
        """The body as a JSON object. Raises ArmError 400 when it is none; {} when empty."""
        if self._json is None:
            if not self.body.strip():
                self._json = {}
                return self._json  # type: ignore[no-any-return]
            try:
                value = orjson.loads(self.body)
            except orjson.JSONDecodeError as error:
                raise ArmError(
                    400,
                    "InvalidRequestContent",
                    "The request content was invalid and could not be deserialized: "
                    f"'{error.msg} (line {error.lineno}, position {error.colno})'.",
                ) from None
            if not isinstance(value, dict):
                raise ArmError(
                    400,
                    "InvalidRequestContent",
                    "The request content was invalid and could not be deserialized: "
                    "a JSON object was expected.",
                )
            self._json = value
        return self._json  # type: ignore[no-any-return]


@dataclass(slots=True)
class Answer:
    """One answer. `body` may be JSON data, ready bytes, or None for an empty one."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    media_type: str = "application/json; charset=utf-8"

    def payload(self) -> bytes:
        """The bytes that go out."""
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        return orjson.dumps(self.body)


class ArmError(Exception):
    """An ARM error: `{"error":{"code","message",…}}` with its status.

    `gateway` marks those that ARM itself makes (header `x-ms-failure-cause: gateway`).
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: list[Body] | None = None,
        target: str | None = None,
        additional: list[Body] | None = None,
        headers: Mapping[str, str] | None = None,
        gateway: bool = False,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message = status, code, message
        self.details, self.target, self.additional = details, target, additional
        self.headers = dict(headers or {})
        self.gateway = gateway

    def answer(self) -> Answer:
        """The error as it goes out."""
        error: Body = {"code": self.code, "message": self.message}
        if self.target is not None:
            error["target"] = self.target
        if self.details is not None:
            error["details"] = self.details
        if self.additional is not None:
            error["additionalInfo"] = self.additional
        headers = dict(self.headers)
        if self.gateway:
            headers["x-ms-failure-cause"] = "gateway"
        return Answer(self.status, {"error": error}, headers)
