"""The line to Azure: the SDK's own pipelines, without its retry, carrying raw bytes.

No other file of the cloud imports `azure.*`; `open_cloud` imports this one when it is needed.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from threading import Lock
from typing import Any, Protocol, cast

import requests
import urllib3.exceptions as lines
from azure.core import PipelineClient
from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import (
    BearerTokenCredentialPolicy,
    HeadersPolicy,
    HTTPPolicy,
    ProxyPolicy,
    RequestIdPolicy,
    UserAgentPolicy,
)
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest, HttpResponse
from azure.identity import (
    AzureCliCredential,
    ClientSecretCredential,
    DefaultAzureCredential,
    EnvironmentCredential,
    ManagedIdentityCredential,
)
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.core.policies import ARMChallengeAuthenticationPolicy
from requests.adapters import HTTPAdapter

from snapshots.clock import Clock
from snapshots.cloud.environment import Environment
from snapshots.cloud.faults import WireFault, WireKind
from snapshots.cloud.place import Credential, Identity, Limits, Plane
from snapshots.cloud.scrub import scrub
from snapshots.errors import DeniedError

_BLOCK = 256 * 1024  # bytes read at once from a stream


class Meter(Protocol):
    """Told of every request that really leaves, repeated ones included."""

    def before(self) -> None:
        """Wait until it may leave."""
        ...

    def after(self, status: int, headers: Mapping[str, str]) -> None:
        """Take note of the answer."""
        ...

    def failed(self) -> None:
        """Take note that there was no answer."""
        ...


class WireAnswer:
    """What came back; a stream must be read to its end or closed."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self.status = response.status_code
        self.headers = _lower(response.headers)

    def read(self) -> bytes:
        """The whole body. Raises WireFault when it stops before its end."""
        try:
            return self._response.read()
        except AzureError as error:
            raise _fault(error) from error

    def chunks(self) -> Iterator[bytes]:
        """The body piece by piece. Raises WireFault when it stops before its end."""
        encoded = self.headers.get("content-encoding", "identity").lower() != "identity"
        length = self.headers.get("content-length", "")
        expected = int(length) if length.isdigit() and not encoded else None
        got = 0
        source = self._response.iter_bytes() if encoded else self._response.iter_raw()
        try:
            for piece in source:
                got += len(piece)
                yield piece
        except AzureError as error:
            fault = _fault(error)
            raise WireFault(WireKind.CUT, fault.detail, sent=True) from error
        if expected is not None and got != expected:
            raise WireFault(WireKind.CUT, f"{got} of {expected} bytes came", sent=True)

    def close(self) -> None:
        """Give the connection up."""
        self._response.close()


class TokenSource(Protocol):
    """Anything that gives tokens: every credential of azure.identity."""

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        """A token for the scopes."""
        ...


class _SharedTokens:
    """One token for each scope, for all pipelines and threads: asked for once, not by each."""

    def __init__(self, source: TokenSource, tenant: str, clock: Clock) -> None:
        self._source = source
        self._tenant = tenant
        self._clock = clock
        self._lock = Lock()
        self._tokens: dict[tuple[str, ...], AccessTokenInfo] = {}

    def get_token_info(
        self, *scopes: str, options: TokenRequestOptions | None = None
    ) -> AccessTokenInfo:
        claims = (options or {}).get("claims")
        with self._lock:
            held = self._tokens.get(scopes)
            if held is not None and not claims and self._fresh(held):
                return held
            given = self._source.get_token(
                *scopes, claims=claims, tenant_id=self._tenant or None, enable_cae=bool(claims)
            )
            info = AccessTokenInfo(given.token, given.expires_on)
            self._tokens[scopes] = info
            return info

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: Any,
    ) -> AccessToken:
        del tenant_id, enable_cae, kwargs
        options: TokenRequestOptions = {"claims": claims} if claims else {}
        info = self.get_token_info(*scopes, options=options)
        return AccessToken(info.token, info.expires_on)

    def _fresh(self, token: AccessTokenInfo) -> bool:
        return token.expires_on - self._clock.now().timestamp() > 300


class _MeterPolicy(HTTPPolicy[HttpRequest, HttpResponse]):
    """The last policy before the network: whatever passes here is paid for and counted."""

    def send(
        self, request: PipelineRequest[HttpRequest]
    ) -> PipelineResponse[HttpRequest, HttpResponse]:
        given = request.context.options.pop("muster_meter", None)
        if given is not None:  # a second pass (a claims challenge) finds it in the context
            request.context["muster_meter"] = given
        meter = cast("Meter", request.context["muster_meter"])
        meter.before()
        try:
            response = self.next.send(request)
        except BaseException:
            meter.failed()
            raise
        meter.after(response.http_response.status_code, _lower(response.http_response.headers))
        return response


class AzureWire:
    """The SDK's pipelines, one for each plane, over one pool of connections.

    ARM goes through `azure.mgmt.cognitiveservices`; the retry policy of the SDK, its HTTP logging
    and its redirects are left out: retrying is `Cloud`'s, bodies are never logged, and a token goes
    nowhere but where it was meant to go.
    """

    def __init__(
        self,
        environment: Environment,
        tokens: TokenSource,
        *,
        tenant: str,
        ca_file: str | None,
        clock: Clock,
        limits: Limits,
        version: str,
        run_id: str,
    ) -> None:
        self._environment = environment
        self._tokens = _SharedTokens(tokens, tenant, clock)
        self._version = version
        self._run_id = run_id
        self._session = _session(limits)
        self._transport = RequestsTransport(
            session=self._session,
            session_owner=True,
            connection_timeout=limits.connect,
            read_timeout=limits.read,
            connection_verify=ca_file or True,
            connection_data_block_size=_BLOCK,
        )
        self._lock = Lock()
        self._arm: CognitiveServicesManagementClient | None = None
        self._planes: dict[Plane, PipelineClient[HttpRequest, HttpResponse]] = {}

    def transmit(
        self,
        plane: Plane,
        method: str,
        url: str,
        headers: Mapping[str, str],
        content: bytes | Iterable[bytes] | None,
        meter: Meter,
        *,
        stream: bool,
    ) -> WireAnswer:
        """Send one request once. Raises WireFault without an answer, DeniedError without a token.

        Without `stream` the body has been read when this returns.
        """
        request = HttpRequest(method, url, headers=dict(headers), content=content)
        try:
            if plane is Plane.ARM:
                response = self._arm_client()._send_request(  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  # public from 15.0 on
                    request, stream=stream, muster_meter=meter
                )
            else:
                response = self._plane_client(plane).send_request(
                    request, stream=stream, muster_meter=meter
                )
        except ClientAuthenticationError as error:
            raise _no_token(error) from error
        except AzureError as error:
            raise _fault(error) from error
        return WireAnswer(response)

    def _policies(
        self, authentication: BearerTokenCredentialPolicy[HttpRequest, HttpResponse]
    ) -> list[Any]:
        return [
            RequestIdPolicy(),
            HeadersPolicy({"x-ms-correlation-request-id": self._run_id}),
            UserAgentPolicy(base_user_agent=f"muster/{self._version}"),
            ProxyPolicy(),
            authentication,
            _MeterPolicy(),
        ]

    def _arm_client(self) -> CognitiveServicesManagementClient:
        with self._lock:
            if self._arm is None:
                scope = self._environment.scope(Plane.ARM)
                self._arm = CognitiveServicesManagementClient(
                    self._tokens,
                    "-",  # every URL we send is complete
                    base_url=self._environment.resource_manager,
                    credential_scopes=[scope],
                    policies=self._policies(ARMChallengeAuthenticationPolicy(self._tokens, scope)),
                    transport=self._transport,
                )
            return self._arm

    def _plane_client(self, plane: Plane) -> PipelineClient[HttpRequest, HttpResponse]:
        with self._lock:
            if plane not in self._planes:
                scope = self._environment.scope(plane)
                self._planes[plane] = PipelineClient(
                    "",
                    policies=self._policies(BearerTokenCredentialPolicy(self._tokens, scope)),
                    transport=self._transport,
                )
            return self._planes[plane]

    def close(self) -> None:
        """Close every connection."""
        self._transport.close()


def sign_in(
    credential: Credential, environment: Environment, *, tenant: str, ca_file: str | None
) -> TokenSource:
    """The azure.identity credential that was asked for. Asks for no token yet."""
    options: dict[str, Any] = {"retry_total": 2}
    if environment.custom:
        # Discovery would ask login.microsoftonline.com whether our own authority is genuine.
        options.update(authority=environment.authority, disable_instance_discovery=True)
    elif environment.name != "AzureCloud":
        options.update(authority=environment.authority)
    if ca_file:
        options["connection_verify"] = ca_file
    if tenant:
        options["additionally_allowed_tenants"] = [tenant]
    if credential.client_secret:
        return ClientSecretCredential(
            tenant, credential.client_id, credential.client_secret, **options
        )
    match credential.identity:
        case Identity.DEFAULT:
            if credential.client_id:
                options["managed_identity_client_id"] = credential.client_id
            return DefaultAzureCredential(**options)
        case Identity.ENVIRONMENT:
            return EnvironmentCredential(**options)
        case Identity.MANAGED:
            return ManagedIdentityCredential(client_id=credential.client_id or None)
        case Identity.CLI:
            return AzureCliCredential(
                tenant_id=tenant,
                additionally_allowed_tenants=[tenant] if tenant else None,
            )


def fetch_metadata(url: str, *, ca_file: str | None, limits: Limits) -> bytes:
    """What a resource manager tells about its cloud, to anybody. Raises WireFault."""
    try:
        with _session(limits) as session:
            answer = session.get(
                url,
                timeout=(limits.connect, limits.read),
                verify=ca_file or True,
                allow_redirects=False,
            )
            if answer.status_code != 200:
                raise WireFault(WireKind.OTHER, f"it answers {answer.status_code}", sent=True)
            return answer.content
    except requests.RequestException as error:
        raise _fault(error) from error


def _session(limits: Limits) -> requests.Session:
    session = requests.Session()
    # Proxies and REQUESTS_CA_BUNDLE of the environment hold, but ~/.netrc must not replace our
    # token: requests reads it only when the session has no authentication of its own.
    session.auth = _as_it_is
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    adapter = HTTPAdapter(
        pool_connections=256, pool_maxsize=limits.connections, max_retries=0, pool_block=False
    )
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return session


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


_OF_ONE_REFUSAL = re.compile(
    r" (Trace ID|Correlation ID): [-0-9a-fA-F]+| Timestamp: [-0-9]+ [:0-9]+Z"
    r"| Visit https://aka\.ms/\S+ to troubleshoot this issue\."
)


def _no_token(error: ClientAuthenticationError) -> DeniedError:
    # Ids and time of one refusal would make each of a hundred equal gaps another text.
    text = _OF_ONE_REFUSAL.sub("", scrub(" ".join(str(error.message or error).split())))
    return DeniedError(
        f"could not sign in: {text[:700]}",
        where="Entra ID",
        remedy="run az login, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET",
        status=401,
    )


def _fault(error: Exception) -> WireFault:
    """What went wrong with the line, from the innermost cause."""
    for cause in _causes(error):
        match cause:
            case lines.SSLError() | ssl.SSLCertVerificationError() if _untrusted(cause):
                return WireFault(WireKind.TLS, _short(cause), sent=False)
            case lines.NameResolutionError() | socket.gaierror():
                return WireFault(WireKind.NAME, "its name is not known to DNS", sent=False)
            case lines.ProxyError():
                said = f"the proxy does not answer: {_plain(cause)}"
                return WireFault(WireKind.CONNECT, said, sent=False)
            case lines.NewConnectionError() | lines.ConnectTimeoutError():
                return WireFault(WireKind.CONNECT, _plain(cause), sent=False)
            case lines.ReadTimeoutError() | TimeoutError():
                return WireFault(WireKind.SILENCE, "no byte in time", sent=True)
            case _:
                pass
    for cause in _causes(error):
        match cause:
            case lines.IncompleteRead() | lines.InvalidChunkLength() | lines.DecodeError():
                return WireFault(WireKind.CUT, _short(cause), sent=True)
            case IncompleteReadError() | DecodeError():
                return WireFault(WireKind.CUT, _short(cause), sent=True)
            case ServiceResponseTimeoutError():
                return WireFault(WireKind.SILENCE, "no byte in time", sent=True)
            case ServiceRequestError() if "non-TLS protected" in str(cause):
                return WireFault(WireKind.TLS, "tokens are only sent over https", sent=False)
            case _:
                pass
    return WireFault(WireKind.OTHER, _plain(error), sent=True)


def _plain(error: Exception) -> str:
    """Say in words what the innermost cause is; the outer ones are Python's objects in objects."""
    for cause in _causes(error):
        match cause:
            case http.client.RemoteDisconnected():
                return "it closed the connection without an answer"
            case OSError() if cause.strerror:
                return cause.strerror[:1].lower() + cause.strerror[1:]
            case TimeoutError():
                return "no connection in time"
            case _:
                pass
    return _short(error)


def _untrusted(error: BaseException) -> bool:
    """Whether the handshake failed on the certificate, so that nothing can have been sent."""
    return isinstance(error, ssl.SSLCertVerificationError) or "CERTIFICATE" in str(error)


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    stack: list[BaseException] = [error]
    while stack:
        found = stack.pop(0)
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        nested = (
            getattr(found, "inner_exception", None),
            getattr(found, "reason", None),
            found.__cause__,
            found.__context__,
            *found.args,
        )
        stack.extend(item for item in nested if isinstance(item, BaseException))


def _short(error: BaseException) -> str:
    return scrub(" ".join(str(error).split()))[:300]
