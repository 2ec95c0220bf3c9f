"""Who is let in to an account's endpoint: keys, tokens, networks and roles."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable

from drills.sandbox.arm import Record
from drills.sandbox.dataplane.ask import ACCOUNT, DataError, Dialect, peek
from drills.sandbox.ids import region_name
from drills.sandbox.wire import ArmError, Body, Call, Caller
from drills.sandbox.world import World

_WRONG_KEY = (
    "Access denied due to invalid subscription key or wrong API endpoint. Make sure to provide a "
    "valid key for an active subscription and use a correct regional API endpoint for your "
    "resource."
)
_OPENAI_AUDIENCES = ("https://cognitiveservices.azure.com", "https://ai.azure.com")
_FOUNDRY_AUDIENCES = ("https://ai.azure.com",)


class Gate:
    """Finds the account behind an endpoint and checks the caller."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._by_name: dict[str, str] = {}

    # -- which account ------------------------------------------------------------------------

    def account(self, call: Call, name: str, suffix: str) -> Record | None:
        """The live account behind `{name}.{suffix}`, for reading only; None when there is none."""
        if suffix == "api":
            return self._by_key(name, _key_of(call))
        known = self._by_name.get(name)
        record = peek(self.world, known) if known else None
        if record is None or _subdomain(record.body) != name:
            record = next((r for r in self._accounts() if _subdomain(r.body) == name), None)
            if record is None:
                self._by_name.pop(name, None)
                return None
            self._by_name[name] = record.id
        kind = str(record.body.get("kind", "")).lower()
        if suffix == "services.ai" and kind not in ("aiservices", "aihub"):
            return None
        return record

    def _by_key(self, region: str, key: str) -> Record | None:
        for record in self._accounts():
            if region_name(str(record.body.get("location", ""))) == region and _fits(record, key):
                return record
        return None

    def _accounts(self) -> Iterable[Record]:
        store, kind = self.world.store, ACCOUNT.lower()
        for space in store.spaces():
            if space.startswith("arm:") and space.endswith("|" + kind):
                for _, kept in store.items(space):
                    yield Record(**kept)

    # -- who ------------------------------------------------------------------------------------

    def caller(self, call: Call, account: Record, dialect: Dialect) -> Caller:
        """Who calls. Raises DataError 401 or 403."""
        self._network(call, account)
        key = _key_of(call)
        if key and dialect is not Dialect.FOUNDRY:
            if account.properties.get("disableLocalAuth"):
                raise DataError(
                    403,
                    "AuthenticationTypeDisabled",
                    "Key based authentication is disabled for this resource.",
                )
            if not _fits(account, key):
                raise DataError(401, "401", _WRONG_KEY)
            return Caller(oid="", name="key", via="key")
        audiences = _FOUNDRY_AUDIENCES if dialect is Dialect.FOUNDRY else _OPENAI_AUDIENCES
        refusal = DataError(
            401,
            "401",
            "Unauthorized. Access token is missing, invalid, audience is incorrect "
            f"({audiences[0]}), or have expired.",
            headers={"www-authenticate": f'Bearer resource="{audiences[0]}"'},
        )
        if not call.headers.get("authorization", "").lower().startswith("bearer "):
            raise refusal
        try:
            caller = self.world.identity.caller(call)
        except ArmError:
            raise refusal from None
        if caller.audience.rstrip("/") not in audiences:
            raise refusal
        return caller

    def _network(self, call: Call, account: Record) -> None:
        if self.world.setting("inside_network"):
            return  # the sandbox plays a caller behind a private endpoint
        properties = account.properties
        if str(properties.get("publicNetworkAccess", "Enabled")).lower() == "disabled":
            raise DataError(
                403, "403", "Public access is disabled. Please configure private endpoint."
            )
        rules = properties.get("networkAcls") or {}
        if str(rules.get("defaultAction", "Allow")).lower() != "deny":
            return
        allowed = [str(rule.get("value", "")) for rule in rules.get("ipRules") or []]
        if not _inside(call.client, allowed):
            raise DataError(403, "403", "Access denied due to Virtual Network/Firewall rules.")

    def permit(self, call: Call, action: str, scope: str) -> None:
        """Ask for a data action; a key may do everything. Raises DataError 401."""
        call.operation = action
        if not action or (call.caller is not None and call.caller.via == "key"):
            return
        try:
            self.world.access.check(call, action, scope, data=True)
        except ArmError as error:
            principal = call.caller.oid if call.caller else ""
            raise DataError(
                401,
                "PermissionDenied",
                f"The principal `{principal}` lacks the required data action `{action}` to "
                f"perform `{call.method} {call.path}` operation.",
                headers=error.headers,
            ) from None


def _key_of(call: Call) -> str:
    key = call.headers.get("api-key") or call.headers.get("ocp-apim-subscription-key") or ""
    if key:
        return key
    # v1 clients send an account key where the other provider's key would stand
    scheme, _, value = call.headers.get("authorization", "").partition(" ")
    return value if scheme.lower() == "bearer" and value.count(".") != 2 else ""


def _fits(account: Record, key: str) -> bool:
    sent = key.encode("utf-8", "surrogateescape")
    return any(
        hmac.compare_digest(str(account.hidden[name]).encode(), sent)
        for name in ("key1", "key2")
        if account.hidden.get(name)
    )


def _subdomain(body: Body) -> str:
    properties = body.get("properties") or {}
    return str(properties.get("customSubDomainName") or "").lower()


def _inside(client: str, allowed: list[str]) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    for text in allowed:
        try:
            if address in ipaddress.ip_network(text, strict=False):
                return True
        except ValueError:
            continue
    return False
