"""Azure's clouds by name, and any other by what it tells about itself: endpoints and audiences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from snapshots.cloud.place import Plane
from snapshots.errors import DamagedAnswerError, SettingsError
from snapshots.model import Json

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class Environment:
    """One Azure: where its doors are, and which audience a token for each door has."""

    name: str
    resource_manager: str  # "https://management.azure.com", no slash at the end
    authority: str  # where tokens come from
    audiences: Mapping[Plane, str]  # scopes: "https://ai.azure.com/.default"
    storage_audience: str
    storage_suffix: str  # "core.windows.net"
    suffixes: tuple[str, ...]  # hosts of data planes end so: nobody else is sent a token
    custom: bool = False  # not one of Microsoft's: a sandbox, an Azure Stack

    def scope(self, plane: Plane) -> str:
        """The scope to ask a token for."""
        return self.audiences[plane]

    def trusts(self, url: str) -> bool:
        """Whether a token may be sent to `url`: https, and a host of this cloud."""
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
        if parts.scheme != "https" or not host:
            return False
        own = urlsplit(self.resource_manager)
        own_host = (own.hostname or "").lower()
        if host == own_host:
            return self.custom or parts.port == own.port
        if self.custom and (host in _LOOPBACK or host.endswith(".localhost")):
            return own_host in _LOOPBACK or own_host.endswith(".localhost")
        return any(host.endswith("." + suffix) for suffix in (own_host, *self.suffixes))


# The domain of key vaults, and the audience of their tokens (Key Vault documentation, "Key Vault's
# DNS suffixes"), by the top domain of the cloud.
_KEY_VAULTS = {"com": "vault.azure.net", "cn": "vault.azure.cn", "us": "vault.usgovcloudapi.net"}


def _audiences(arm: str, tld: str) -> dict[Plane, str]:
    return {
        Plane.ARM: f"{arm}/.default",
        Plane.OPENAI: f"https://cognitiveservices.azure.{tld}/.default",
        Plane.FOUNDRY: f"https://ai.azure.{tld}/.default",
        Plane.SEARCH: f"https://search.azure.{tld}/.default",
        Plane.KEY_VAULT: f"https://{_KEY_VAULTS[tld]}/.default",
    }


def _suffixes(tld: str, *more: str) -> tuple[str, ...]:
    return (
        f"openai.azure.{tld}",
        f"cognitiveservices.azure.{tld}",
        f"services.ai.azure.{tld}",
        _KEY_VAULTS[tld],
        *more,
    )


# Resource managers and their audiences as azure.mgmt.core.tools.get_arm_endpoints has them (1.6.0);
# the audiences of the sovereign data planes follow their domain names.
ENVIRONMENTS: Mapping[str, Environment] = {
    "AzureCloud": Environment(
        name="AzureCloud",
        resource_manager="https://management.azure.com",
        authority="https://login.microsoftonline.com",
        audiences=_audiences("https://management.azure.com", "com"),
        storage_audience="https://storage.azure.com/.default",
        storage_suffix="core.windows.net",
        suffixes=_suffixes("com", "api.cognitive.microsoft.com", "search.windows.net"),
    ),
    "AzureChinaCloud": Environment(
        name="AzureChinaCloud",
        resource_manager="https://management.chinacloudapi.cn",
        authority="https://login.chinacloudapi.cn",
        audiences=_audiences("https://management.chinacloudapi.cn", "cn"),
        storage_audience="https://storage.azure.com/.default",
        storage_suffix="core.chinacloudapi.cn",
        suffixes=_suffixes("cn", "api.cognitive.azure.cn", "search.azure.cn"),
    ),
    "AzureUSGovernment": Environment(
        name="AzureUSGovernment",
        resource_manager="https://management.usgovcloudapi.net",
        authority="https://login.microsoftonline.us",
        audiences=_audiences("https://management.core.usgovcloudapi.net", "us"),
        storage_audience="https://storage.azure.com/.default",
        storage_suffix="core.usgovcloudapi.net",
        suffixes=_suffixes("us", "api.cognitive.microsoft.us", "search.azure.us"),
    ),
}

METADATA = "/metadata/endpoints?api-version=2022-09-01"


def known(name: str) -> Environment | None:
    """One of Microsoft's clouds by its name, whatever the case; None for a URL."""
    if name.lower().startswith(("https://", "http://")):
        return None
    for candidate in ENVIRONMENTS.values():
        if candidate.name.lower() == name.lower():
            return candidate
    raise SettingsError(
        f"there is no cloud called {name!r}",
        remedy=f"use one of {', '.join(ENVIRONMENTS)}, or the https:// URL of a resource manager",
    )


def described(url: str, document: Json) -> Environment:
    """The cloud behind `url`, from what its `/metadata/endpoints` answered.

    Raises DamagedAnswerError when the answer is not such a description.
    """
    if isinstance(document, list):  # api-versions before 2022-09-01 give a list of clouds
        document = document[0] if document else None
    match document:
        case {"authentication": {"loginEndpoint": str(login), "audiences": [str(arm), *_]}}:
            pass
        case _:
            raise DamagedAnswerError(
                "this is not the description of an Azure cloud",
                where=f"GET {url}{METADATA}",
                remedy="check the URL: it must be the resource manager of an Azure or a sandbox",
            )
    assert isinstance(document, dict)
    name = document.get("name")
    manager = document.get("resourceManager")
    suffixes = document.get("suffixes")
    storage = suffixes.get("storage") if isinstance(suffixes, dict) else None
    more = (
        tuple(value.lstrip(".").lower() for value in suffixes.values() if isinstance(value, str))
        if isinstance(suffixes, dict)
        else ()
    )
    public = ENVIRONMENTS["AzureCloud"]
    environment = Environment(
        name=name if isinstance(name, str) and name else url,
        resource_manager=(manager if isinstance(manager, str) and manager else url).rstrip("/"),
        authority=login.rstrip("/"),
        audiences={**public.audiences, Plane.ARM: f"{arm.rstrip('/')}/.default"},
        storage_audience=public.storage_audience,
        storage_suffix=storage if isinstance(storage, str) else public.storage_suffix,
        suffixes=more,
        custom=True,
    )
    if not environment.resource_manager.lower().startswith("https://"):
        raise DamagedAnswerError(
            "the cloud's resource manager is not reached over https",
            where=f"GET {url}{METADATA}",
            remedy="tokens are only sent over https: give the sandbox a certificate",
        )
    return environment
