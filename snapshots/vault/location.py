"""Where a vault is and how to get in: from an address in the settings to an open vault."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from snapshots.clock import Clock, SystemClock
from snapshots.errors import SettingsError
from snapshots.vault.base import Vault

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

_ACCOUNT = re.compile(r"[a-z0-9]{3,24}")
_CONTAINER = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=@+-]*(/[A-Za-z0-9_][A-Za-z0-9._=@+-]*)*")
_SUFFIX = re.compile(r"[a-z0-9][a-z0-9.-]*\.[a-z]{2,}")


@dataclass(frozen=True, slots=True)
class Access:
    """What opens a Blob vault: one of the four; nothing of it is ever shown.

    A token credential is the rule for Azure; keys, signatures and connection strings come from the
    environment, never from muster.toml.
    """

    credential: TokenCredential | None = field(default=None, repr=False)
    account_key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    connection_string: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a Blob vault is waited for: retries of one call, and seconds for one try.

    With the defaults a vault to which there is no way is given up after a minute, and one that
    takes the connection and says nothing after two and a half.
    """

    retries: int = 3
    connect: float = 10.0
    read: float = 30.0  # between two bytes of an answer
    backoff: int = 1  # every wait, to which the nth retry adds 2 ** n


@dataclass(frozen=True, slots=True)
class BlobPlace:
    """One container, or a part of it, at one endpoint."""

    account: str
    container: str
    prefix: str  # "" or "a/b/"
    endpoint: str  # https://ACCOUNT.blob.core.windows.net, no slash at the end

    @property
    def location(self) -> str:
        """The address for people."""
        return f"azblob://{self.account}/{self.container}/{self.prefix}".rstrip("/")


@dataclass(frozen=True, slots=True)
class BlobKey:
    """How a Blob vault signs: exactly one of the three is set."""

    credential: TokenCredential | None = field(default=None, repr=False)
    account_key: str | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)


def open_vault(
    url: str,
    *,
    access: Access | None = None,
    clock: Clock | None = None,
    suffix: str = "core.windows.net",
    ca: Path | None = None,
    patience: Patience | None = None,
    fingerprint_file: Path | None = None,
) -> Vault:
    """Open the vault at an address; nothing is sent yet.

    `url` is a folder, or `azblob://account/container[/prefix][?endpoint=…]`, where the endpoint is
    a whole address (Azurite: http://127.0.0.1:PORT/ACCOUNT) or a suffix of another cloud. `suffix`
    is that of the cloud (core.chinacloudapi.cn, core.usgovcloudapi.net). `ca` is a PEM file that
    proves a local endpoint. `fingerprint_file` holds the key of the fingerprints instead of the
    vault. Raises SettingsError for an address or an access that cannot be right.
    """
    clock = clock or SystemClock()
    if not url.startswith("azblob:"):
        from snapshots.vault.folder import FolderVault

        return FolderVault(_folder(url), clock, fingerprint_file=fingerprint_file)
    place = blob_place(url, suffix=suffix)
    place, key = blob_key(place, access or Access(), explicit="endpoint=" in url)
    from snapshots.vault.blob import BlobVault

    return BlobVault(
        place,
        key,
        clock,
        ca=ca,
        patience=patience or Patience(),
        fingerprint_file=fingerprint_file,
    )


def _folder(url: str) -> Path:
    if url.startswith("file://"):
        url = unquote(url.removeprefix("file://"))
    elif re.match(r"[a-z][a-z0-9+]+://", url):
        raise SettingsError(
            f"a vault cannot be at {url.partition(':')[0]}://",
            where="vault.url",
            remedy="give azblob://account/container or a folder",
        )
    if not url.strip() or "\0" in url:
        raise SettingsError(
            "the vault has no address",
            where="vault.url",
            remedy="give azblob://account/container or a folder",
        )
    return Path(url).expanduser()


def blob_place(url: str, *, suffix: str = "core.windows.net") -> BlobPlace:
    """Read an azblob:// address. Raises SettingsError, which never repeats what may be secret."""
    parts = urlsplit(url)
    container, _, prefix = parts.path.strip("/").partition("/")
    account = parts.netloc
    asked = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in account or "sig" in asked or "AccountKey" in url:
        raise SettingsError(
            "the vault's address holds a secret",
            where="vault.url",
            remedy="leave it out: keys and signatures come from the environment",
        )
    wrong = (
        f"{account!r} is no storage account"
        if not _ACCOUNT.fullmatch(account)
        else f"{container!r} is no container"
        if not _CONTAINER.fullmatch(container)
        else f"{prefix!r} is no prefix"
        if prefix and not _PREFIX.fullmatch(prefix)
        else f"it has the unknown option {min(set(asked) - {'endpoint'})!r}"
        if set(asked) - {"endpoint"}
        else "it has a fragment"
        if parts.fragment
        else ""
    )
    if wrong:
        raise SettingsError(
            f"the vault's address is not right: {wrong}",
            where="vault.url",
            remedy="give azblob://account/container[/prefix][?endpoint=…]",
        )
    endpoint = _endpoint(asked.get("endpoint", suffix), account)
    return BlobPlace(account, container, f"{prefix}/" if prefix else "", endpoint)


def _endpoint(asked: str, account: str) -> str:
    if "://" not in asked:
        suffix = asked.removeprefix("blob.").strip("/")
        if not _SUFFIX.fullmatch(suffix):
            raise SettingsError(
                f"{asked[:80]!r} is no endpoint",
                where="vault.url",
                remedy="give a whole address or a suffix like core.usgovcloudapi.net",
            )
        return f"https://{account}.blob.{suffix}"
    parts = urlsplit(asked)
    if parts.username or parts.password or parts.query or parts.fragment or not parts.hostname:
        raise SettingsError(
            "the vault's endpoint is not right",
            where="vault.url",
            remedy="give scheme, host, port and path only",
        )
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname)):
        raise SettingsError(
            f"the vault's endpoint at {parts.hostname} is not encrypted",
            where="vault.url",
            remedy="use https:// (http:// is for this machine only)",
        )
    return asked.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def blob_key(place: BlobPlace, access: Access, *, explicit: bool) -> tuple[BlobPlace, BlobKey]:
    """Choose how to sign; an endpoint in a connection string counts unless the address has one.

    Raises SettingsError: nothing to sign with, two things, or a thing of another account.
    """
    given = [
        name
        for name, value in (
            ("a credential", access.credential),
            ("an account key", access.account_key),
            ("a SAS", access.sas),
            ("a connection string", access.connection_string),
        )
        if value
    ]
    # A key or the like is set on purpose and goes before the credential that is there always.
    purposeful = [name for name in given if name != "a credential"]
    if len(purposeful) > 1:
        raise SettingsError(
            f"the vault has more than one key: {' and '.join(purposeful)}",
            where=place.location,
            remedy="leave one of them in the environment",
        )
    if not given:
        raise SettingsError(
            "there is nothing to sign in to the vault with",
            where=place.location,
            remedy="sign in to Azure, or set an account key, a SAS or a connection string",
        )
    if access.connection_string:
        return _connected(place, access.connection_string, explicit=explicit)
    if access.account_key:
        return place, BlobKey(account_key=_checked(access.account_key, place))
    if access.sas:
        return place, BlobKey(sas=access.sas.lstrip("?"))
    if not place.endpoint.startswith("https://"):
        raise SettingsError(
            "a token is never sent without encryption",
            where=place.location,
            remedy="set the account key, or use an https:// endpoint",
        )
    return place, BlobKey(credential=access.credential)


def _connected(place: BlobPlace, text: str, *, explicit: bool) -> tuple[BlobPlace, BlobKey]:
    parts: dict[str, str] = {}
    for part in text.strip().strip(";").split(";"):
        name, equals, value = part.partition("=")
        if not equals:
            raise SettingsError(
                "the connection string is not one",
                where=place.location,
                remedy="copy it again, whole, as Azure shows it",
            )
        parts[name.strip().lower()] = value
    account = parts.get("accountname", place.account)
    if account != place.account:
        raise SettingsError(
            f"the connection string is for storage account {account[:24]!r}",
            where=place.location,
            remedy="set that of the vault's account",
        )
    endpoint = place.endpoint
    if not explicit and "blobendpoint" in parts:
        endpoint = _endpoint(parts["blobendpoint"], account)
    elif not explicit and "endpointsuffix" in parts:
        endpoint = _endpoint(parts["endpointsuffix"], account)
    place = BlobPlace(account, place.container, place.prefix, endpoint)
    if "accountkey" in parts:
        return place, BlobKey(account_key=_checked(parts["accountkey"], place))
    if "sharedaccesssignature" in parts:
        return place, BlobKey(sas=parts["sharedaccesssignature"].lstrip("?"))
    raise SettingsError(
        "the connection string holds neither a key nor a signature",
        where=place.location,
        remedy="copy it again, whole, as Azure shows it",
    )


def _checked(key: str, place: BlobPlace) -> str:
    try:
        base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        good = False
    else:
        good = bool(key)
    if not good:
        raise SettingsError(
            "the account key is not base64",
            where=place.location,
            remedy="copy it again, whole, as Azure shows it",
        )
    return key
