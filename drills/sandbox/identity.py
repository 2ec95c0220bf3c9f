"""Who is who: a pretend Microsoft Entra ID with discovery, tokens and managed identity.

Tokens are real JWTs (RS256) signed with a key of the state folder; the published keys verify them.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from drills.sandbox.arm import query_pairs
from drills.sandbox.wire import Answer, ArmError, Body, Call, Caller
from drills.sandbox.world import World

LIFETIME = 3599  # seconds, as the real service says
_APP = "04b07795-8ddb-461a-bbee-02f9e1bf7b46"  # public client id of the Azure CLI, for users
_TOKEN = re.compile(r"^/(?P<tenant>[^/]+)/oauth2(?:/v2\.0)?/token/?$", re.IGNORECASE)
_DISCOVERY = re.compile(
    r"^/(?P<tenant>[^/]+)(?:/v2\.0)?/\.well-known/openid-configuration/?$", re.IGNORECASE
)
_KEYS = re.compile(r"^/(?P<tenant>[^/]+)/discovery(?:/v2\.0)?/keys/?$", re.IGNORECASE)
# Resources for which Azure Resource Manager takes tokens: its own, and the classic management's.
_ARM_AUDIENCES = (
    "https://management.azure.com",
    "https://management.core.windows.net",
    "797f4846-ba00-4fd7-ba43-dac1f8f63013",
)
_INSTANCE = re.compile(r"^/common/discovery/instance/?$", re.IGNORECASE)


class Identity:
    """Issues tokens to the principals of the estate and reads them back.

    Principals are items of the space "principals" (key: client id or, for users, object id):
    {name, kind, oid, appid, secret, upn, tenant, role}.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        pem = world.store.meta("token-key")
        if pem is None:
            fresh = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = fresh.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode()
            world.store.set_meta("token-key", pem)
        key = serialization.load_pem_private_key(pem.encode(), None)
        if not isinstance(key, rsa.RSAPrivateKey):
            message = "the state folder's token key is not an RSA key"
            raise TypeError(message)
        self._key = key
        numbers = key.public_key().public_numbers()
        self._public = key.public_key()
        self._modulus = _base64url(numbers.n.to_bytes(256, "big"))
        self._kid = hashlib.sha256(self._modulus.encode()).hexdigest()[:27]
        self._seen: dict[str, tuple[float, Caller]] = {}

    # -- endpoints ------------------------------------------------------------------------------

    def handle(self, call: Call) -> Answer | None:
        """Answer discovery, token and managed identity requests; None for anything else."""
        path = "/" + call.path.strip("/")
        lower = path.lower()
        if lower == "/metadata/endpoints":
            return self._endpoints(call)
        if lower in ("/msi/token", "/metadata/identity/oauth2/token"):
            return self._managed_identity(call)
        if _INSTANCE.match(path):
            return self._instance(call)
        if match := _DISCOVERY.match(path):
            return self._discovery(call, match["tenant"])
        if match := _KEYS.match(path):
            return Answer(200, {"keys": [self._jwk()]})
        if (match := _TOKEN.match(path)) and call.method == "POST":
            return self._token(call, match["tenant"])
        return None

    @property
    def tenant(self) -> str:
        """The estate's own tenant id."""
        return str(self.world.store.meta("tenant") or "")

    def _issuer(self, tenant: str) -> str:
        return f"https://sts.windows.net/{tenant}/"

    def _endpoints(self, call: Call) -> Answer:
        base = call.base
        audiences = ["https://management.core.windows.net/", "https://management.azure.com/"]
        modern: Body = {
            "name": "MusterSandbox",
            "portal": base,
            "authentication": {
                "loginEndpoint": base,
                "audiences": audiences,
                "tenant": "common",
                "identityProvider": "AAD",
            },
            "graphAudience": "https://graph.windows.net/",
            "graph": "https://graph.windows.net/",
            "microsoftGraphResourceId": "https://graph.microsoft.com/",
            "media": "https://rest.media.azure.net",
            "batch": "https://batch.core.windows.net/",
            "sqlManagement": "https://management.core.windows.net:8443/",
            "activeDirectoryDataLake": "https://datalake.azure.net/",
            "resourceManager": base,
            "gallery": f"{base}/gallery",
            "vmImageAliasDoc": f"{base}/aliases.json",
            "suffixes": {
                "storage": "core.windows.net",
                "keyVaultDns": "vault.azure.net",
                "acrLoginServer": "azurecr.io",
                "sqlServerHostname": "database.windows.net",
                "mhsmDns": "managedhsm.azure.net",
            },
        }
        if call.parameter("api-version") >= "2022":
            return Answer(200, modern)
        if call.parameter("api-version") >= "2018":
            return Answer(200, [modern])
        return Answer(
            200,
            {
                "galleryEndpoint": modern["gallery"],
                "graphEndpoint": modern["graph"],
                "portalEndpoint": modern["portal"],
                "authentication": {"loginEndpoint": base, "audiences": audiences},
            },
        )

    def _instance(self, call: Call) -> Answer:
        host = call.base.partition("//")[2]
        return Answer(
            200,
            {
                "tenant_discovery_endpoint": (
                    f"{call.base}/{self.tenant}/v2.0/.well-known/openid-configuration"
                ),
                "api-version": "1.1",
                "metadata": [
                    {"preferred_network": host, "preferred_cache": host, "aliases": [host]}
                ],
            },
        )

    def _discovery(self, call: Call, tenant: str) -> Answer:
        base = call.base
        resolved = self._resolve_tenant(tenant)
        return Answer(
            200,
            {
                "token_endpoint": f"{base}/{tenant}/oauth2/v2.0/token",
                "authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/authorize",
                "device_authorization_endpoint": f"{base}/{tenant}/oauth2/v2.0/devicecode",
                "end_session_endpoint": f"{base}/{tenant}/oauth2/v2.0/logout",
                "jwks_uri": f"{base}/{tenant}/discovery/v2.0/keys",
                "issuer": f"{base}/{resolved}/v2.0",
                "response_types_supported": ["code", "id_token", "token"],
                "subject_types_supported": ["pairwise"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "token_endpoint_auth_methods_supported": [
                    "client_secret_post",
                    "client_secret_basic",
                ],
                "scopes_supported": ["openid", "profile", "email", "offline_access"],
            },
        )

    def _jwk(self) -> Body:
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self._kid,
            "n": self._modulus,
            "e": "AQAB",
        }

    def _resolve_tenant(self, tenant: str) -> str:
        known = {self.tenant.lower(), *(self.world.store.meta("tenants") or [])}
        if tenant.lower() in ("common", "organizations"):
            return self.tenant
        if tenant.lower() not in known:
            raise LoginError(
                400,
                "invalid_tenant",
                f"AADSTS90002: Tenant '{tenant}' not found. Check to make sure you have the "
                "correct tenant ID and are signing into the correct cloud.",
                90002,
                call_time=self.world.clock.now().strftime("%Y-%m-%d %H:%M:%SZ"),
            )
        return tenant.lower()

    def _token(self, call: Call, tenant: str) -> Answer:
        form = query_pairs(call.body.decode("utf-8", "replace"))
        stamp = call.now.strftime("%Y-%m-%d %H:%M:%SZ")
        resolved = self._resolve_tenant(tenant)
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        basic = call.headers.get("authorization", "")
        if basic.lower().startswith("basic "):
            try:
                decoded = base64.b64decode(basic[6:]).decode()
            except ValueError:
                decoded = ""
            client, _, secret = decoded.partition(":")
        grant = form.get("grant_type", "")
        principal: Body | None
        if grant == "client_credentials":
            principal = self._client(client)
            if principal is None:
                raise LoginError(
                    400,
                    "unauthorized_client",
                    f"AADSTS700016: Application with identifier '{client}' was not found in the "
                    f"directory '{resolved}'. This can happen if the application has not been "
                    "installed by the administrator of the tenant.",
                    700016,
                    call_time=stamp,
                )
            if not secrets.compare_digest(secret.encode(), str(principal["secret"]).encode()):
                raise LoginError(
                    401,
                    "invalid_client",
                    "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent "
                    "in the request is the client secret value, not the client secret ID, for a "
                    f"secret added to app '{client}'.",
                    7000215,
                    call_time=stamp,
                )
        elif grant == "password":
            principal = self._user(form.get("username", ""))
            if principal is None or form.get("password", "") != principal["secret"]:
                raise LoginError(
                    400,
                    "invalid_grant",
                    "AADSTS50126: Error validating credentials due to invalid username or "
                    "password.",
                    50126,
                    call_time=stamp,
                )
        else:
            raise LoginError(
                400,
                "unsupported_grant_type",
                f"AADSTS70003: The app requested an unsupported grant type '{grant}'.",
                70003,
                call_time=stamp,
            )
        audience = form.get("resource") or form.get("scope", "").split(" ")[0]
        if not audience:
            raise LoginError(
                400,
                "invalid_request",
                "AADSTS900144: The request body must contain the following parameter: 'scope'.",
                900144,
                call_time=stamp,
            )
        audience = audience.removesuffix("/.default")
        body = {
            "token_type": "Bearer",
            "expires_in": LIFETIME,
            "ext_expires_in": LIFETIME,
            "access_token": self.mint(principal, audience, resolved),
        }
        if "resource" in form:
            body["resource"] = audience
        return Answer(200, body)

    def _managed_identity(self, call: Call) -> Answer:
        wanted = self.world.store.meta("managed-identity-header")
        given = call.headers.get("x-identity-header")
        imds = call.path.lower().startswith("/metadata/")
        if imds and call.headers.get("metadata", "").lower() != "true":
            return Answer(
                400,
                {
                    "error": "invalid_request",
                    "error_description": "Required metadata header not specified",
                },
            )
        if not imds and given != wanted:
            return Answer(401, {"statusCode": 401, "message": "Missing or wrong X-IDENTITY-HEADER"})
        audience = call.parameter("resource").removesuffix("/.default")
        if not audience:
            return Answer(400, {"statusCode": 400, "message": "The resource parameter is missing"})
        wanted_client = call.parameter("client_id")
        found = [
            p
            for _, p in self.world.store.items("principals")
            if p["kind"] == "ManagedIdentity" and wanted_client in ("", p["appid"])
        ]
        if not found:
            return Answer(
                400, {"statusCode": 400, "message": "No managed identity found for this client_id"}
            )
        token = self.mint(found[0], audience, self.tenant)
        expires = int(self._token_time() + LIFETIME)
        return Answer(
            200,
            {
                "access_token": token,
                "expires_on": str(expires),
                "expires_in": str(LIFETIME),
                "resource": audience,
                "token_type": "Bearer",
                "client_id": found[0]["appid"],
            },
        )

    # -- principals -----------------------------------------------------------------------------

    def _client(self, client: str) -> Body | None:
        for _, principal in self.world.store.items("principals"):
            if principal["appid"].lower() == client.lower() and principal["kind"] != "User":
                return principal
        return None

    def _user(self, upn: str) -> Body | None:
        for _, principal in self.world.store.items("principals"):
            if principal["kind"] == "User" and principal["upn"].lower() == upn.lower():
                return principal
        return None

    def add_principal(
        self,
        name: str,
        *,
        kind: str = "ServicePrincipal",
        upn: str = "",
        role: str = "",
        secret: str = "",
    ) -> Body:
        """Create a principal and return it; ids and secret come from the seeded stream."""
        world = self.world
        principal: Body = {
            "name": name,
            "kind": kind,
            "oid": world.guid(),
            "appid": _APP if kind == "User" else world.guid(),
            "secret": secret or world.secret(24),
            "upn": upn,
            "tenant": self.tenant,
            "role": role,
        }
        key = principal["oid"] if kind == "User" else principal["appid"]
        return world.store.put("principals", key.lower(), principal)

    # -- tokens -----------------------------------------------------------------------------------

    def _token_time(self) -> float:
        # Clients compare a token's lifetime with their own clock, so tokens live in real time even
        # when the sandbox's clock runs fast or was advanced by weeks.
        import time

        return time.time()

    def mint(self, principal: Body, audience: str, tenant: str) -> str:
        """A signed access token for a principal."""
        now = int(self._token_time())
        claims: dict[str, Any] = {
            "aud": audience,
            "iss": self._issuer(tenant),
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME,
            "appid": principal["appid"],
            "appidacr": "1" if principal["kind"] != "User" else "0",
            "idp": self._issuer(tenant),
            "idtyp": "user" if principal["kind"] == "User" else "app",
            "oid": principal["oid"],
            "sub": principal["oid"],
            "tid": tenant,
            "uti": secrets.token_urlsafe(16),
            "ver": "1.0",
            "ipaddr": "127.0.0.1",
            "xms_session": int(principal.get("session", 0)),
        }
        if principal["kind"] == "User":
            claims |= {
                "upn": principal["upn"],
                "unique_name": principal["upn"],
                "name": principal["name"],
                "scp": "user_impersonation",
                "amr": ["pwd", "mfa"],
            }
        else:
            claims["app_displayname"] = principal["name"]
            claims["name"] = principal["name"]
        if principal["kind"] == "ManagedIdentity":
            claims["xms_mirid"] = principal.get("resource", "")
        return jwt.encode(claims, self._key, algorithm="RS256", headers={"kid": self._kid})

    def caller(self, call: Call, *, header: str = "authorization") -> Caller:
        """Who the bearer token says the caller is. Raises ArmError 401."""
        text = call.headers.get(header, "")
        scheme, _, token = text.partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise ArmError(
                401,
                "AuthenticationFailed",
                "Authentication failed. The 'Authorization' header is missing.",
                gateway=True,
                headers={
                    "www-authenticate": (
                        f'Bearer authorization_uri="{call.base}/{self.tenant}", '
                        'error="invalid_token", error_description="The access token is missing."'
                    )
                },
            )
        known = self._seen.get(token)
        if known is not None and known[0] > self._token_time():
            self._require_session(call, known[1].claims)
            return known[1]
        try:
            claims = jwt.decode(
                token, self._public, algorithms=["RS256"], options={"verify_aud": False}, leeway=5
            )
        except jwt.ExpiredSignatureError:
            raise _unauthorized(
                "ExpiredAuthenticationToken", "The access token expiry UTC time is in the past."
            ) from None
        except jwt.InvalidTokenError:
            raise _unauthorized(
                "InvalidAuthenticationToken", "The access token is invalid."
            ) from None
        self._require_session(call, claims)
        kind = "User" if claims.get("idtyp") == "user" else "ServicePrincipal"
        if "xms_mirid" in claims:
            kind = "ManagedIdentity"
        caller = Caller(
            oid=claims["oid"],
            appid=claims["appid"],
            name=claims.get("name", ""),
            upn=claims.get("upn", ""),
            kind=kind,
            tenant=claims["tid"],
            audience=str(claims["aud"]),
            claims=claims,
        )
        if len(self._seen) > 1000:
            self._seen.clear()
        self._seen[token] = (float(claims["exp"]), caller)
        return caller

    def revoke(self, principal: str) -> int:
        """End the sessions of a principal (name, client id, object id); returns how many it met."""
        wanted, met = principal.lower(), 0
        for key, known in self.world.store.items("principals"):
            if wanted in (known["name"].lower(), known["appid"].lower(), known["oid"].lower()):
                fresh = {**known, "session": int(known.get("session", 0)) + 1}
                self.world.store.put("principals", key, fresh)
                met += 1
        return met

    def _require_session(self, call: Call, claims: Mapping[str, Any]) -> None:
        """Refuse a token of a session that was ended, with the challenge for a new one."""
        key = claims["oid"] if claims.get("idtyp") == "user" else claims["appid"]
        principal = self.world.store.get("principals", str(key).lower()) or {}
        if int(claims.get("xms_session", 0)) == int(principal.get("session", 0)):
            return
        since = json.dumps(
            {"access_token": {"nbf": {"essential": True, "value": str(int(self._token_time()))}}}
        )
        wanted = base64.b64encode(since.encode()).decode()
        raise ArmError(
            401,
            "TokenIssuedBeforeRevocationTimestamp",
            "The access token has been revoked: it was issued before the session ended.",
            gateway=True,
            headers={
                "www-authenticate": (
                    f'Bearer realm="", authorization_uri="{call.base}/common/oauth2/authorize", '
                    f'error="insufficient_claims", claims="{wanted}"'
                )
            },
        )

    def forget(self) -> None:
        """Read every token again: principals may be others now."""
        self._seen.clear()

    def require_arm(self, call: Call) -> None:
        """Refuse a token that was issued for something else than Azure Resource Manager."""
        audience = call.caller.audience if call.caller else ""
        if audience.rstrip("/").lower() in (*_ARM_AUDIENCES, call.base.lower()):
            return
        raise _unauthorized(
            "InvalidAuthenticationTokenAudience",
            f"The access token has been obtained for wrong audience or resource '{audience}'. It "
            "should exactly match with one of the allowed audiences "
            "'https://management.core.windows.net/','https://management.core.windows.net',"
            "'https://management.azure.com/','https://management.azure.com'.",
        )

    def system_caller(self) -> Caller:
        """The platform itself, for what happens without a client."""
        return Caller(oid="", name="Microsoft", kind="System", tenant=self.tenant, via="platform")


class LoginError(ArmError):
    """An error as the login endpoint spells it."""

    def __init__(
        self, status: int, error: str, description: str, number: int, *, call_time: str
    ) -> None:
        super().__init__(status, error, description)
        self.number, self.call_time = number, call_time

    def answer(self) -> Answer:
        """The error as it goes out."""
        return Answer(
            self.status,
            {
                "error": self.code,
                "error_description": f"{self.message} Timestamp: {self.call_time}",
                "error_codes": [self.number],
                "timestamp": self.call_time,
                "error_uri": f"https://login.microsoftonline.com/error?code={self.number}",
            },
        )


def _unauthorized(code: str, message: str) -> ArmError:
    return ArmError(
        401,
        code,
        message,
        gateway=True,
        headers={
            "www-authenticate": f'Bearer error="invalid_token", error_description="{message}"'
        },
    )


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
