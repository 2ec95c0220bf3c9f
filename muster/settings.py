"""What one muster.toml and the environment say: the only reader of os.environ.

Every error names the file, line and column, what is wrong there, and what to write instead.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import stat
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from muster import positions
from snapshots.errors import SettingsError

FILE_NAME = "muster.toml"
CLOUDS = ("AzureCloud", "AzureChinaCloud", "AzureUSGovernment")
MAX_CONCURRENCY = 64
MAX_CAP = 1000  # findings in one revert

_T = TypeVar("_T")


class CredentialKind(StrEnum):
    """Where muster's own identity comes from."""

    DEFAULT = "default"  # azure-identity's DefaultAzureCredential
    ENVIRONMENT = "environment"  # AZURE_CLIENT_ID … or a secret file
    MANAGED_IDENTITY = "managed-identity"
    CLI = "cli"  # `az login`


@dataclass(frozen=True, slots=True)
class ScopeSettings:
    """The subscriptions, resource groups and accounts that are looked at.

    Empty groups or accounts mean all of them.
    """

    subscription: str
    resource_groups: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AccountTarget:
    """What an account is called, and where it lies, in the standby region."""

    name: str
    resource_group: str = ""  # empty: the same name as in the primary
    subscription: str = ""  # empty: the same subscription
    subdomain: str = ""  # of its endpoint; empty: derived from the name


@dataclass(frozen=True, slots=True)
class SkuTarget:
    """What a deployment's sku becomes in the standby region."""

    name: str
    capacity: int | None = None  # None: as in the primary


@dataclass(frozen=True, slots=True)
class ReplicateSettings:
    """How the standby is kept in step with the primary."""

    deployments: str = "warm"  # warm: made and sized; cold: only what costs nothing
    fine_tuned: tuple[str, ...] = ("source", "checkpoint")  # ways that may be gone, best first
    keep_alive: str = "ping"  # of idle fine-tuned deployments: ping, redeploy or off
    prompts: tuple[str, ...] = ()  # asked of source and replica; empty: from the training file


@dataclass(frozen=True, slots=True)
class PairSettings:
    """A primary region and its standby, with typed substitutions."""

    primary: str
    standby: str
    accounts: Mapping[str, AccountTarget] = field(default_factory=dict)
    resource_groups: Mapping[str, str] = field(default_factory=dict)
    sku: Mapping[str, SkuTarget] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)  # "model" or "model@version"
    keys: Mapping[str, str] = field(default_factory=dict)  # key vault URI -> key vault URI
    hosts: Mapping[str, str] = field(default_factory=dict)  # in endpoints and targets
    resources: Mapping[str, str] = field(default_factory=dict)  # ARM id -> ARM id
    replicate: ReplicateSettings = ReplicateSettings()
    tenant: str = ""  # of the standby, when it is another than the estate's


@dataclass(frozen=True, slots=True)
class EstateSettings:
    """Everything one muster configuration protects."""

    name: str
    scopes: tuple[ScopeSettings, ...]
    cloud: str = "AzureCloud"  # a name of CLOUDS, or the https URL of a sandbox
    tenant: str = ""
    ca_file: Path | None = None
    pairs: tuple[PairSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class LedgerSettings:
    """The Git repository that keeps snapshots, the baseline and the evidence."""

    path: Path
    remote: str = ""


@dataclass(frozen=True, slots=True)
class VaultSettings:
    """The Blob container (or folder) that keeps payloads."""

    url: str  # azblob://account/container[/prefix][?endpoint=…], or an absolute folder
    secret_file: Path | None = None  # holds account_key, when no token is used


@dataclass(frozen=True, slots=True)
class ObjectiveSettings:
    """Promised RTO and RPO."""

    rto: timedelta | None = None
    rpo: timedelta | None = None
    horizon: timedelta = timedelta(days=90)  # how far ahead retirements are looked for


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """How changes are judged."""

    rules: tuple[str, ...] = ("builtin",)
    trusted: tuple[str, ...] = ()
    four_eyes: tuple[str, ...] = ()  # severities that need a second person
    sweep: timedelta = timedelta(hours=24)
    cap: int = 10  # the most findings that one revert may undo


@dataclass(frozen=True, slots=True)
class SnapshotSettings:
    """What a snapshot takes along."""

    content: bool = True  # the bytes of files, not only their names
    reference: bool = True  # catalogue, quota, capacity
    threads_data: bool = False  # conversation data: off unless somebody decided so
    concurrency: int = 16
    timeout: timedelta = timedelta(seconds=60)  # without a byte from Azure
    patience: timedelta = timedelta(minutes=5)  # with one request, all its tries together


@dataclass(frozen=True, slots=True)
class RetentionSettings:
    """How many snapshots are kept, one for each hour, day, week and month."""

    hourly: int = 48
    daily: int = 30
    weekly: int = 12
    monthly: int = 24


@dataclass(frozen=True, slots=True)
class SecretSettings:
    """How secrets are fingerprinted."""

    fingerprint_key_file: Path | None = None  # None: the key lies in the vault


@dataclass(frozen=True, slots=True)
class RestoreSettings:
    """How a restore behaves, and where the secrets are that no snapshot holds."""

    max_steps: int = 50  # more steps than that need --approve with their number
    threads: int = 16
    # key, end of a key or glob -> "env:NAME", "file:PATH" or "keyvault:URL": never the secret
    secrets: Mapping[str, str] = field(default_factory=dict)
    # URIs of key vaults that muster may not see, and that somebody looked at instead
    vouched_vaults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CredentialSettings:
    """Who muster is."""

    kind: CredentialKind = CredentialKind.DEFAULT
    client_id: str = ""  # of a user-assigned managed identity
    secret_file: Path | None = None  # TOML with client_id and client_secret, readable by us only


@dataclass(frozen=True, slots=True)
class Settings:
    """What one muster.toml says, with every path made absolute."""

    file: Path
    estate: EstateSettings
    ledger: LedgerSettings
    vault: VaultSettings
    objectives: ObjectiveSettings = ObjectiveSettings()
    audit: AuditSettings = AuditSettings()
    snapshot: SnapshotSettings = SnapshotSettings()
    retention: RetentionSettings = RetentionSettings()
    secrets: SecretSettings = SecretSettings()
    credential: CredentialSettings = CredentialSettings()
    restore: RestoreSettings = RestoreSettings()


@dataclass(frozen=True, slots=True)
class Environment:
    """What muster reads from the process's environment."""

    config: Path | None = None  # MUSTER_CONFIG
    debug: bool = False  # MUSTER_DEBUG
    color: bool = True  # NO_COLOR turns it off
    log: str = ""  # MUSTER_LOG: a file, or "stderr"
    # What opens a Blob vault when no token does: the names are those of Microsoft's own tools.
    storage_key: str = field(default="", repr=False)  # AZURE_STORAGE_KEY
    storage_sas: str = field(default="", repr=False)  # AZURE_STORAGE_SAS_TOKEN
    storage_connection_string: str = field(default="", repr=False)
    # Prefect's server, by the names that Prefect's own tools read.
    prefect_url: str = ""  # PREFECT_API_URL
    prefect_key: str = field(default="", repr=False)  # PREFECT_API_KEY
    prefect_auth: str = field(default="", repr=False)  # PREFECT_API_AUTH_STRING: user:password
    secrets: tuple[str, ...] = field(default=(), repr=False)  # values nothing may print

    @classmethod
    def read(cls, variables: Mapping[str, str] | None = None) -> Environment:
        """Read the environment; `variables` stands in for it in tests."""
        found = os.environ if variables is None else variables
        config = found.get("MUSTER_CONFIG", "").strip()
        secret = ("SECRET", "PASSWORD", "TOKEN", "_KEY", "CONNECTION_STRING", "AUTH_STRING")
        return cls(
            config=Path(config) if config else None,
            debug=found.get("MUSTER_DEBUG", "").strip().lower() not in ("", "0", "false", "no"),
            color=not found.get("NO_COLOR"),
            log=found.get("MUSTER_LOG", "").strip(),
            prefect_url=found.get("PREFECT_API_URL", "").strip(),
            prefect_key=found.get("PREFECT_API_KEY", ""),
            prefect_auth=found.get("PREFECT_API_AUTH_STRING", ""),
            storage_key=found.get("AZURE_STORAGE_KEY", ""),
            storage_sas=found.get("AZURE_STORAGE_SAS_TOKEN", ""),
            storage_connection_string=found.get("AZURE_STORAGE_CONNECTION_STRING", ""),
            secrets=tuple(
                value
                for name, value in found.items()
                if name.upper().startswith(_OWN_NAMES)
                and any(word in name.upper() for word in secret)
                and len(value) >= _SHORTEST_SECRET
            ),
        )


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """A service principal's id and secret, read from a file that only we can read."""

    client_id: str
    client_secret: str = field(repr=False)
    tenant: str = ""


_SHORTEST_SECRET = 6
_OWN_NAMES = ("AZURE_", "MUSTER_", "IDENTITY_", "MSI_", "PREFECT_")  # of variables that matter


def find(asked: Path | None, *, start: Path | None = None) -> Path:
    """Say which configuration is meant: the one asked for, or muster.toml here or above.

    Raises SettingsError when there is none.
    """
    remedy = "write one with `muster init`, or name one with --config FILE or MUSTER_CONFIG"
    if asked is not None:
        if asked.is_dir():
            asked = asked / FILE_NAME
        if not asked.is_file():
            raise SettingsError("there is no such configuration", where=str(asked), remedy=remedy)
        return asked.resolve()
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / FILE_NAME).is_file():
            return folder / FILE_NAME
    raise SettingsError(f"there is no {FILE_NAME} here or above", where=str(here), remedy=remedy)


def load(file: Path) -> Settings:
    """Read and check one configuration. Raises SettingsError."""
    file = file.resolve()
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the configuration cannot be read: {error.strerror or error}",
            where=str(file),
            remedy="check the path and its permissions",
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - (data.rfind(b"\n", 0, error.start) + 1) + 1
        raise SettingsError(
            "the configuration is not UTF-8",
            where=f"{file}:{line}:{column}",
            remedy="save the file as UTF-8",
        ) from error
    return parse(text, file)


def parse(text: str, file: Path) -> Settings:
    """Check the text of a configuration that lies (or will lie) in `file`. Raises SettingsError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise _not_toml(error, text, file) from error
    except RecursionError as error:
        raise SettingsError(
            "the configuration is nested too deeply", where=str(file), remedy="flatten it"
        ) from error
    source = _Source(file, positions.index(text.replace("\r\n", "\n")))
    return _settings(_Table(source, (), document))


def read_secret(file: Path) -> ClientSecret:
    """Read a service principal's file: TOML with client_id, client_secret and, maybe, tenant.

    Raises SettingsError when it is missing, open to others, or incomplete. No error quotes it.
    """
    found = _secret_values(file)
    match found:
        case {"client_id": str(client_id), "client_secret": str(client_secret)}:
            tenant = found.get("tenant", "")
            return ClientSecret(client_id, client_secret, tenant if isinstance(tenant, str) else "")
        case _:
            raise SettingsError(
                "the secret file needs client_id and client_secret",
                where=str(file),
                remedy='write two lines: client_id = "…" and client_secret = "…"',
            )


def read_account_key(file: Path) -> str:
    """Read a storage account's key: TOML with account_key. Raises SettingsError as above."""
    match _secret_values(file):
        case {"account_key": str(key)}:
            return key
        case _:
            raise SettingsError(
                "the secret file needs account_key",
                where=str(file),
                remedy='write one line: account_key = "…"',
            )


def read_fingerprint_key(file: Path) -> bytes:
    """Read the key that fingerprints secrets: 32 bytes at least. Raises SettingsError."""
    _guard(file)
    key = file.read_bytes().strip()
    if len(key) < _KEY_BYTES:
        raise SettingsError(
            f"the fingerprint key is too short: {len(key)} bytes",
            where=str(file),
            remedy=f"write {_KEY_BYTES} random bytes or more (openssl rand -hex 32)",
        )
    return key


_KEY_BYTES = 32


def read_answer(reference: str, settings: Settings) -> str:
    """Give the secret that "env:NAME" or "file:PATH" of [restore.secrets] points to.

    Raises SettingsError.
    """
    return read_reference(reference, settings.file.parent, "restore.secrets")


def read_reference(reference: str, folder: Path, where: str) -> str:
    """Give the secret that "env:NAME" or "file:PATH" points to; a path may begin in `folder`.

    A file must be readable by its owner alone; a line end at its end is not part of the secret.
    Raises SettingsError, which names `where` the reference stands and never quotes what it gives.
    """
    how, _, name = reference.partition(":")
    match how:
        case "env":
            value = os.environ.get(name, "")
            if not value:
                raise SettingsError(
                    f"the environment has no {name}",
                    where=where,
                    remedy=f"set {name}, and run it again",
                )
            return value
        case "file":
            path = folder.joinpath(Path(name).expanduser())
            _guard(path)
            return path.read_text("utf-8").rstrip("\r\n")
        case _:
            raise SettingsError(
                f"{how!r} is no way to a secret",
                where=where,
                remedy='write "env:NAME", "file:PATH" or "keyvault:https://…/secrets/NAME"',
            )


def write_private(file: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_name(f".{file.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(file)
    finally:
        fresh.unlink(missing_ok=True)


def _guard(file: Path) -> None:
    try:
        mode = file.stat().st_mode
    except OSError as error:
        raise SettingsError(
            f"a file with a secret cannot be read: {error.strerror or error}",
            where=str(file),
            remedy="put it there, or correct its path in the configuration",
        ) from error
    if not stat.S_ISREG(mode):
        raise SettingsError(
            "a file with a secret is no file", where=str(file), remedy="name a file"
        )
    if os.name == "posix" and mode & 0o077:
        raise SettingsError(
            "a file with a secret can be read by others",
            where=str(file),
            remedy=f"chmod 600 {file}",
        )


def _secret_values(file: Path) -> dict[str, object]:
    _guard(file)
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        # The cause quotes the file's text: it must not travel.
        raise SettingsError(
            "the secret file is not TOML", where=str(file), remedy='write lines like: name = "…"'
        ) from None


def _not_toml(error: tomllib.TOMLDecodeError, text: str, file: Path) -> SettingsError:
    message = str(error)
    match = re.search(r"\(at line (\d+), column (\d+)\)", message)
    if match:
        line, column = int(match[1]), int(match[2])
    else:  # "(at end of document)"
        line = text.count("\n") + 1
        column = len(text) - (text.rfind("\n") + 1) + 1
    what = message.split(" (at ", maxsplit=1)[0]
    return SettingsError(
        f"the configuration is not TOML: {what[:1].lower()}{what[1:]}",
        where=f"{file}:{line}:{column}",
        remedy='a setting is written: name = "text", name = 3, name = true or name = ["a", "b"]',
    )


@dataclass(frozen=True, slots=True)
class _Source:
    file: Path
    places: Mapping[positions.Path, positions.Position]

    def where(self, path: positions.Path) -> str:
        for length in range(len(path), 0, -1):
            position = self.places.get(path[:length])
            if position is not None:
                return f"{self.file}:{position.line}:{position.column} {_spelled(path)}"
        return f"{self.file}:1:1 {_spelled(path)}".rstrip()


def _spelled(path: positions.Path) -> str:
    """Write a path as people name it: estate.pair[2].standby."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part + 1}]"
        else:
            text += f".{part}" if text else part
    return text


_SECRET_NAMES = re.compile(
    r"(password|passwd|secret|token|api_?-?key|account_?-?key|access_?-?key|connection_?-?string"
    r"|sas)$",
    re.IGNORECASE,
)
_SECRET_VALUES = re.compile(
    r"accountkey=|sharedaccesskey=|[?&]sig=|-----BEGIN |\beyJ[A-Za-z0-9_-]{10,}\.|"
    r"\b[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{31,}|://[^/@\s:]+:[^/@\s]+@|"
    # An access token needs no password beside it.
    r"://(gh[a-z]_|github_pat_|glpat-)[^/@\s]*@|://[^/@\s:.-]{30,}@",
    re.IGNORECASE,
)


class _Table:
    """One table of the file while it is read: hands out values and knows what was not asked for."""

    def __init__(self, source: _Source, path: positions.Path, values: Mapping[str, object]) -> None:
        self.source = source
        self.path = path
        self.values = values
        self.asked: list[str] = []

    def fail(self, name: str | None, what: str, remedy: str) -> SettingsError:
        path = self.path if name is None else (*self.path, name)
        return SettingsError(what, where=self.source.where(path), remedy=remedy)

    def missing(self, name: str, example: str) -> SettingsError:
        """Say that a setting is missing, or that it is there with its name mistyped."""
        near = difflib.get_close_matches(name, [n for n in self.values if n not in self.asked], 1)
        if near:
            return self.fail(near[0], f"{near[0]} is not a setting", f"did you mean {name}?")
        return self.fail(None, f"{name} is missing", f'add {name} = "{example}"')

    def _get(self, name: str, type_: type[_T], words: str) -> _T | None:
        self.asked.append(name)
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, type_) or (isinstance(value, bool) and type_ is not bool):
            raise self.fail(name, f"{name} is {_type_of(value)}, not {words}", f"write {words}")
        return value

    def text(
        self,
        name: str,
        default: str | None = None,
        *,
        example: str = "…",
        check: Callable[[str], str | None] | None = None,
    ) -> str:
        """Give a text; without a default it must be there. `check` says what is wrong, or None."""
        value = self._get(name, str, f'a text, like {name} = "{example}"')
        if value is None:
            if default is None:
                raise self.missing(name, example)
            return default
        if _SECRET_VALUES.search(value):
            raise self.fail(
                name,
                f"{name} holds a secret, and this file is no place for one",
                "take it out, treat it as leaked, and name a file with secret_file instead",
            )
        if not value.strip() and default is None:
            raise self.fail(name, f"{name} is empty", f'write {name} = "{example}"')
        if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
            raise self.fail(name, f"{name} holds a control character", "write it in one line")
        wrong = check(value) if check is not None and value else None
        if wrong:
            raise self.fail(name, wrong, f'write {name} = "{example}"')
        return value

    def texts(
        self, name: str, default: tuple[str, ...] = (), *, example: str = "…"
    ) -> tuple[str, ...]:
        words = f'a list of texts, like {name} = ["{example}"]'
        value = self._get(name, list, words)
        if value is None:
            return default
        for number, item in enumerate(value):
            if not isinstance(item, str) or not item.strip():
                raise SettingsError(
                    f"item {number + 1} of {name} is {_type_of(item)}, not a text",
                    where=self.source.where((*self.path, name, number)),
                    remedy=f"write {words}",
                )
            if _SECRET_VALUES.search(item):
                raise self.fail(
                    name, f"{name} holds a secret", "take it out and treat it as leaked"
                )
        return tuple(value)

    def flag(self, name: str, *, default: bool) -> bool:
        value = self._get(name, bool, f"true or false, like {name} = true")
        return default if value is None else value

    def number(self, name: str, default: int, *, least: int, most: int) -> int:
        value = self._get(name, int, f"a whole number, like {name} = {default or least}")
        if value is None:
            return default
        if not least <= value <= most:
            raise self.fail(name, f"{name} is {value}", f"write a number from {least} to {most}")
        return value

    def duration(self, name: str, default: timedelta | None = None) -> timedelta | None:
        value = self._get(name, str, f'a duration, like {name} = "1h"')
        if value is None:
            return default
        try:
            return duration(value)
        except ValueError as error:
            raise self.fail(
                name, f"{name}: {error}", f'write {name} = "90s", "30m", "1h", "1h30m" or "2d"'
            ) from error

    def path_(self, name: str, default: str | None = None) -> Path | None:
        """Give a path, relative ones beside the file."""
        value = self.text(name, default if default is not None else "", example=default or "file")
        return self.place(name, value) if value else None

    def place(self, name: str, value: str) -> Path:
        try:
            return self.source.file.parent.joinpath(Path(value).expanduser())
        except RuntimeError as error:  # ~nobody
            raise self.fail(
                name, f"{name}: there is no such home", "write the whole path"
            ) from error

    def table(self, name: str) -> _Table | None:
        value = self._get(name, dict, f"a table, like [{_spelled((*self.path, name))}]")
        if value is None:
            return None
        return _Table(self.source, (*self.path, name), value)

    def tables(self, name: str) -> list[_Table]:
        """Give the tables of [[name]]."""
        header = f"[[{_spelled(tuple(p for p in (*self.path, name) if isinstance(p, str)))}]]"
        value = self._get(name, list, f"a list of tables, each under its own {header}")
        found: list[_Table] = []
        for number, item in enumerate(value or []):
            path = (*self.path, name, number)
            if not isinstance(item, dict):
                raise SettingsError(
                    f"item {number + 1} of {name} is {_type_of(item)}, not a table",
                    where=self.source.where(path),
                    remedy=f"write each under its own {header}",
                )
            found.append(_Table(self.source, path, item))
        return found

    def finish(self) -> None:
        """Refuse what nobody asked for."""
        for name, value in self.values.items():
            if name in self.asked:
                continue
            if _SECRET_NAMES.search(name) or (
                isinstance(value, str) and _SECRET_VALUES.search(value)
            ):
                raise self.fail(
                    name,
                    f"{name} looks like a secret, and this file is no place for one",
                    "take it out, treat it as leaked, and name a file with secret_file instead",
                )
            near = difflib.get_close_matches(name, self.asked, 1, 0.6)
            known = ", ".join(sorted(self.asked))
            raise self.fail(
                name,
                f"{name} is not a setting" + (f" of [{_spelled(self.path)}]" if self.path else ""),
                f"did you mean {near[0]}?" if near else f"known here: {known}",
            )


def _type_of(value: object) -> str:
    match value:
        case bool():
            return "true or false"
        case str():
            return "a text" if value.strip() else "an empty text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case dict():
            return "a table"
        case _:
            return "a date or time"


_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_LONGEST = timedelta(days=3660)


def duration(text: str) -> timedelta:
    """Read "90s", "30m", "1h30m", "2d" or "1w". Raises ValueError."""
    match = _DURATION.fullmatch(text.strip().lower())
    if not text.strip() or match is None:
        message = f"{text!r} is not a duration"
        raise ValueError(message)
    weeks, days, hours, minutes, seconds = (min(int(part or 0), 10**9) for part in match.groups())
    total = timedelta(0)
    try:
        total = timedelta(weeks=weeks, days=days, hours=hours, minutes=minutes, seconds=seconds)
    except OverflowError:
        total = timedelta.max
    if not timedelta(0) < total <= _LONGEST:
        message = f"{text!r} is not between 1 second and 10 years"
        raise ValueError(message)
    return total


def spell_duration(value: timedelta) -> str:
    """Write a duration as `duration` reads it."""
    seconds = int(value.total_seconds())
    parts = []
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m"), (1, "s")):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


_SUBSCRIPTION = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_ESTATE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,63}")
_REGION = re.compile(r"[a-z0-9]{3,40}")


def _check_subscription(text: str) -> str | None:
    return None if _SUBSCRIPTION.fullmatch(text) else f"{text!r} is not a subscription id"


def _check_name(text: str) -> str | None:
    if _ESTATE_NAME.fullmatch(text):
        return None
    return f"{text!r} is not a name: letters, digits, blanks, '.', '_' and '-', 64 at most"


def _check_region(text: str) -> str | None:
    if _REGION.fullmatch(text):
        return None
    return f"{text!r} is not a region's short name (small letters and digits)"


def _check_cloud(text: str) -> str | None:
    if text in CLOUDS:
        return None
    if "://" not in text:
        near = difflib.get_close_matches(text, CLOUDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"{text!r} is not a cloud ({', '.join(CLOUDS)}, or the https URL of a sandbox){hint}"
    return _check_url(text, ("https",))


def _check_url(text: str, schemes: Iterable[str]) -> str | None:
    try:
        parts = urlsplit(text)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        return f"{text!r} is not a URL: {error}"
    if parts.scheme not in schemes:
        return f"{text!r} is not a URL of {' or '.join(schemes)}"
    return None if host else f"{text!r} names no host"


_CONTAINER = re.compile(r"[a-z0-9](?:-?[a-z0-9]){2,62}")


def _check_vault(text: str) -> str | None:
    if "://" not in text:
        return None  # a folder
    wrong = _check_url(text, ("azblob",))
    if wrong:
        return wrong
    container = urlsplit(text).path.strip("/").split("/")[0]
    if not _CONTAINER.fullmatch(container):
        return f"{text!r} names no container (3 to 63 small letters, digits and single hyphens)"
    return None  # the rest is checked where it is opened: snapshots.vault


def _settings(top: _Table) -> Settings:
    estate_table = top.table("estate")
    ledger, vault = top.table("ledger"), top.table("vault")
    objectives, audit = top.table("objectives"), top.table("audit")
    snapshot, retention = top.table("snapshot"), top.table("retention")
    secrets, credential = top.table("secrets"), top.table("credential")
    restore = top.table("restore")
    top.finish()
    if estate_table is None:
        raise top.fail(
            None,
            "the section [estate] is missing",
            'add [estate] with name = "…", or `muster init`',
        )
    return Settings(
        file=top.source.file,
        estate=_estate(estate_table),
        ledger=_ledger(ledger or _empty(top, "ledger")),
        vault=_vault(vault or _empty(top, "vault")),
        objectives=_objectives(objectives or _empty(top, "objectives")),
        audit=_audit(audit or _empty(top, "audit")),
        snapshot=_snapshot(snapshot or _empty(top, "snapshot")),
        retention=_retention(retention or _empty(top, "retention")),
        secrets=_secrets(secrets or _empty(top, "secrets")),
        credential=_credential(credential or _empty(top, "credential")),
        restore=_restore(restore or _empty(top, "restore")),
    )


def _empty(top: _Table, name: str) -> _Table:
    return _Table(top.source, (name,), {})


def _estate(table: _Table) -> EstateSettings:
    name = table.text("name", example="contoso-ai", check=_check_name)
    cloud = table.text("cloud", "AzureCloud", example="AzureCloud", check=_check_cloud).rstrip("/")
    tenant = table.text("tenant", "")
    ca_file = table.path_("ca_file")
    scopes = table.tables("scope")
    pairs = table.tables("pair")
    table.finish()
    if not scopes:
        raise table.fail(
            None,
            "no scope: nothing would be looked at",
            'add [[estate.scope]] with subscription = "00000000-0000-0000-0000-000000000000"',
        )
    return EstateSettings(
        name, _scopes(scopes), cloud or "AzureCloud", tenant, ca_file, _pairs(pairs)
    )


def _scopes(tables: Sequence[_Table]) -> tuple[ScopeSettings, ...]:
    found: list[ScopeSettings] = []
    for table in tables:
        scope = ScopeSettings(
            table.text(
                "subscription",
                example="00000000-0000-0000-0000-000000000000",
                check=_check_subscription,
            ).lower(),
            _sorted(table.texts("resource_groups", example="rg-ai-prod")),
            _sorted(table.texts("accounts", example="aoai-prod-swc")),
        )
        table.finish()
        for other in found:
            if other.subscription != scope.subscription:
                continue
            shared = set(other.resource_groups) & set(scope.resource_groups)
            if shared or not other.resource_groups or not scope.resource_groups:
                raise table.fail(
                    "subscription",
                    f"the scope overlaps an earlier one of subscription {scope.subscription}",
                    "join the two: list all their resource_groups in one [[estate.scope]]",
                )
        found.append(scope)
    return tuple(found)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    """ARM compares these names without case."""
    return tuple(sorted({name.lower() for name in names}))


def _pairs(tables: Sequence[_Table]) -> tuple[PairSettings, ...]:
    found: list[PairSettings] = []
    for table in tables:
        primary = table.text("primary", example="swedencentral", check=_check_region)
        standby = table.text("standby", example="eastus2", check=_check_region)
        accounts, groups = table.table("accounts"), table.table("resource_groups")
        sku = table.table("sku")
        versions, keys = table.table("versions"), table.table("keys")
        hosts, resources = table.table("hosts"), table.table("resources")
        replicate = table.table("replicate")
        tenant = table.text("tenant", "", example="the standby's tenant")
        table.finish()
        if primary == standby:
            raise table.fail("standby", "a region cannot stand by for itself", "name another one")
        if any(pair.primary == primary and pair.standby == standby for pair in found):
            raise table.fail(
                "primary", f"the pair {primary} -> {standby} is there twice", "join them"
            )
        found.append(
            PairSettings(
                primary,
                standby,
                {name.lower(): _account_target(entry) for name, entry in _entries(accounts)},
                _group_targets(groups),
                {name: _sku_target(entry) for name, entry in _entries(sku)},
                versions=_texts_of(versions),
                keys=_texts_of(keys),
                hosts=_texts_of(hosts),
                resources=_texts_of(resources),
                replicate=_replicate(replicate) if replicate else ReplicateSettings(),
                tenant=tenant,
            )
        )
    return tuple(found)


_DEPLOYMENTS = ("warm", "cold")
_WAYS = ("source", "checkpoint", "cross-tenant", "retrain")
_KEEP_ALIVE = ("ping", "redeploy", "off")


def _replicate(table: _Table) -> ReplicateSettings:
    default = ReplicateSettings()

    def one_of(words: Sequence[str]) -> Callable[[str], str | None]:
        return lambda text: None if text in words else f"{text!r} is none of {', '.join(words)}"

    deployments = table.text(
        "deployments", default.deployments, example="warm", check=one_of(_DEPLOYMENTS)
    )
    ways = table.texts("fine_tuned", default.fine_tuned, example="source")
    for way in ways:
        if way not in _WAYS:
            raise table.fail(
                "fine_tuned", f"{way!r} is no way", f"write some of {', '.join(_WAYS)}"
            )
    keep_alive = table.text(
        "keep_alive", default.keep_alive, example="ping", check=one_of(_KEEP_ALIVE)
    )
    prompts = table.texts("prompts", example="What do you answer to this?")
    table.finish()
    return ReplicateSettings(deployments, ways, keep_alive, prompts)


def _texts_of(table: _Table | None) -> dict[str, str]:
    if table is None:
        return {}
    return {name: table.text(name, example="what it becomes") for name in table.values}


def _entries(table: _Table | None) -> list[tuple[str, _Table]]:
    if table is None:
        return []
    found: list[tuple[str, _Table]] = []
    for name in table.values:
        entry = table.table(name)
        if entry is not None:
            found.append((name, entry))
    return found


def _account_target(table: _Table) -> AccountTarget:
    target = AccountTarget(
        table.text("name", example="aoai-prod-eus2"),
        table.text("resource_group", ""),
        table.text("subscription", "", check=_check_subscription).lower(),
        table.text("subdomain", ""),
    )
    table.finish()
    return target


def _group_targets(table: _Table | None) -> dict[str, str]:
    if table is None:
        return {}
    return {name.lower(): table.text(name, example="rg-ai-dr") for name in table.values}


def _sku_target(table: _Table) -> SkuTarget:
    name = table.text("name", example="GlobalStandard")
    capacity = table.number("capacity", 0, least=1, most=10**6)
    table.finish()
    return SkuTarget(name, capacity or None)


def _ledger(table: _Table) -> LedgerSettings:
    path = table.path_("path", "ledger.git")
    remote = table.text("remote", "")
    table.finish()
    if path is None:
        raise table.fail("path", "path is empty", 'write path = "ledger.git"')
    return LedgerSettings(path, remote)


def _vault(table: _Table) -> VaultSettings:
    url = table.text("url", "vault", example="azblob://account/container", check=_check_vault)
    secret_file = table.path_("secret_file")
    table.finish()
    if not url:
        raise table.fail(
            "url", "url is empty", 'write url = "vault" or "azblob://account/container"'
        )
    if "://" not in url:
        url = str(table.place("url", url))
    return VaultSettings(url, secret_file)


def _objectives(table: _Table) -> ObjectiveSettings:
    default = ObjectiveSettings().horizon
    horizon = table.duration("horizon", default) or default
    found = ObjectiveSettings(table.duration("rto"), table.duration("rpo"), horizon)
    table.finish()
    return found


def _audit(table: _Table) -> AuditSettings:
    found = AuditSettings(
        table.texts("rules", ("builtin",), example="builtin"),
        table.texts("trusted", example="appid:00000000-0000-0000-0000-000000000000"),
        table.texts("four_eyes", example="critical"),
        table.duration("sweep", timedelta(hours=24)) or timedelta(hours=24),
        table.number("cap", AuditSettings().cap, least=1, most=MAX_CAP),
    )
    table.finish()
    return found


def _snapshot(table: _Table) -> SnapshotSettings:
    default = SnapshotSettings()
    found = SnapshotSettings(
        table.flag("content", default=True),
        table.flag("reference", default=True),
        table.flag("threads_data", default=False),
        table.number("concurrency", 16, least=1, most=MAX_CONCURRENCY),
        table.duration("timeout", default.timeout) or default.timeout,
        table.duration("patience", default.patience) or default.patience,
    )
    table.finish()
    return found


def _retention(table: _Table) -> RetentionSettings:
    found = RetentionSettings(
        table.number("hourly", 48, least=0, most=10**5),
        table.number("daily", 30, least=0, most=10**5),
        table.number("weekly", 12, least=0, most=10**5),
        table.number("monthly", 24, least=0, most=10**5),
    )
    table.finish()
    if not any((found.hourly, found.daily, found.weekly, found.monthly)):
        raise table.fail(
            None, "retention keeps nothing", "set one of hourly, daily, weekly, monthly"
        )
    return found


def _secrets(table: _Table) -> SecretSettings:
    found = SecretSettings(table.path_("fingerprint_key_file"))
    table.finish()
    return found


_REFERENCE = re.compile(
    r"(env:[A-Za-z_][A-Za-z0-9_]*|file:.+|keyvault:https://[^/\s]+/secrets/[A-Za-z0-9-]+(/\w+)?)"
)


def _check_reference(text: str) -> str | None:
    if _REFERENCE.fullmatch(text):
        return None
    return f"{text!r} does not say where the secret is"


def _restore(table: _Table) -> RestoreSettings:
    default = RestoreSettings()
    references = table.table("secrets")
    found: dict[str, str] = {}
    if references is not None:
        for name in references.values:
            found[name] = references.text(name, example="env:NAME", check=_check_reference)
    made = RestoreSettings(
        table.number("max_steps", default.max_steps, least=1, most=10**6),
        table.number("threads", default.threads, least=1, most=MAX_CONCURRENCY),
        found,
        table.texts("vouched_vaults", example="https://kv-dr.vault.azure.net/"),
    )
    table.finish()
    return made


def _credential(table: _Table) -> CredentialSettings:
    words = [kind.value for kind in CredentialKind]
    kind = table.text(
        "kind",
        "default",
        example="default",
        check=lambda text: None if text in words else f"{text!r} is none of {', '.join(words)}",
    )
    found = CredentialSettings(
        CredentialKind(kind or "default"), table.text("client_id", ""), table.path_("secret_file")
    )
    table.finish()
    if found.secret_file is not None and found.kind is not CredentialKind.ENVIRONMENT:
        raise table.fail(
            "secret_file",
            f'a credential of kind "{found.kind}" uses no secret_file',
            'write kind = "environment", or take secret_file out',
        )
    return found


def quote(text: str) -> str:
    """Write a text as TOML writes it."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _list(items: Iterable[str]) -> str:
    return "[" + ", ".join(quote(item) for item in items) + "]"


def render(settings: Settings) -> str:
    """Write settings as a configuration that `parse` reads back as the same."""
    s = settings
    lines = ["[estate]", f"name = {quote(s.estate.name)}", f"cloud = {quote(s.estate.cloud)}"]
    if s.estate.tenant:
        lines.append(f"tenant = {quote(s.estate.tenant)}")
    if s.estate.ca_file:
        lines.append(f"ca_file = {quote(_beside(s, s.estate.ca_file))}")
    for scope in s.estate.scopes:
        lines += ["", "[[estate.scope]]", f"subscription = {quote(scope.subscription)}"]
        if scope.resource_groups:
            lines.append(f"resource_groups = {_list(scope.resource_groups)}")
        if scope.accounts:
            lines.append(f"accounts = {_list(scope.accounts)}")
    for pair in s.estate.pairs:
        lines += ["", *_render_pair(pair)]
    lines += ["", "[ledger]", f"path = {quote(_beside(s, s.ledger.path))}"]
    lines.append(f"remote = {quote(s.ledger.remote)}")
    url = s.vault.url if "://" in s.vault.url else _beside(s, Path(s.vault.url))
    lines += ["", "[vault]", f"url = {quote(url)}"]
    if s.vault.secret_file:
        lines.append(f"secret_file = {quote(_beside(s, s.vault.secret_file))}")
    lines += ["", "[objectives]"]
    if s.objectives.rto:
        lines.append(f"rto = {quote(spell_duration(s.objectives.rto))}")
    if s.objectives.rpo:
        lines.append(f"rpo = {quote(spell_duration(s.objectives.rpo))}")
    if s.objectives.horizon != ObjectiveSettings().horizon:
        lines.append(f"horizon = {quote(spell_duration(s.objectives.horizon))}")
    lines += _render_restore(s.restore)
    lines += [
        "",
        "[audit]",
        f"rules = {_list(s.audit.rules)}",
        f"trusted = {_list(s.audit.trusted)}",
        f"four_eyes = {_list(s.audit.four_eyes)}",
        f"sweep = {quote(spell_duration(s.audit.sweep))}",
        f"cap = {s.audit.cap}",
        "",
        "[snapshot]",
        f"content = {str(s.snapshot.content).lower()}",
        f"reference = {str(s.snapshot.reference).lower()}",
        f"threads_data = {str(s.snapshot.threads_data).lower()}",
        f"concurrency = {s.snapshot.concurrency}",
        f"timeout = {quote(spell_duration(s.snapshot.timeout))}",
        f"patience = {quote(spell_duration(s.snapshot.patience))}",
        "",
        "[retention]",
        f"hourly = {s.retention.hourly}",
        f"daily = {s.retention.daily}",
        f"weekly = {s.retention.weekly}",
        f"monthly = {s.retention.monthly}",
        "",
        "[credential]",
        f"kind = {quote(s.credential.kind)}",
    ]
    if s.credential.client_id:
        lines.append(f"client_id = {quote(s.credential.client_id)}")
    if s.credential.secret_file:
        lines.append(f"secret_file = {quote(_beside(s, s.credential.secret_file))}")
    if s.secrets.fingerprint_key_file:
        key_file = quote(_beside(s, s.secrets.fingerprint_key_file))
        lines += ["", "[secrets]", f"fingerprint_key_file = {key_file}"]
    return "\n".join(lines) + "\n"


def _render_restore(restore: RestoreSettings) -> list[str]:
    if restore == RestoreSettings():
        return []
    lines = ["", "[restore]", f"max_steps = {restore.max_steps}", f"threads = {restore.threads}"]
    if restore.vouched_vaults:
        lines.append(f"vouched_vaults = [{', '.join(quote(v) for v in restore.vouched_vaults)}]")
    if restore.secrets:
        lines.append("[restore.secrets]")
    return lines + [f"{quote(name)} = {quote(to)}" for name, to in restore.secrets.items()]


def _beside(settings: Settings, path: Path) -> str:
    """Write a path below the file's folder as a relative one."""
    folder = settings.file.parent
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def _render_pair(pair: PairSettings) -> list[str]:
    lines = [
        "[[estate.pair]]",
        f"primary = {quote(pair.primary)}",
        f"standby = {quote(pair.standby)}",
    ]
    if pair.tenant:
        lines.append(f"tenant = {quote(pair.tenant)}")
    if pair.accounts:
        lines.append("[estate.pair.accounts]")
    for name, target in pair.accounts.items():
        parts = [f"name = {quote(target.name)}"]
        if target.resource_group:
            parts.append(f"resource_group = {quote(target.resource_group)}")
        if target.subscription:
            parts.append(f"subscription = {quote(target.subscription)}")
        if target.subdomain:
            parts.append(f"subdomain = {quote(target.subdomain)}")
        lines.append(f"{quote(name)} = {{ {', '.join(parts)} }}")
    if pair.resource_groups:
        lines.append("[estate.pair.resource_groups]")
    for name, group in pair.resource_groups.items():
        lines.append(f"{quote(name)} = {quote(group)}")
    if pair.sku:
        lines.append("[estate.pair.sku]")
    for name, sku in pair.sku.items():
        capacity = f", capacity = {sku.capacity}" if sku.capacity is not None else ""
        lines.append(f"{quote(name)} = {{ name = {quote(sku.name)}{capacity} }}")
    for title, table in (
        ("versions", pair.versions),
        ("keys", pair.keys),
        ("hosts", pair.hosts),
        ("resources", pair.resources),
    ):
        if table:
            lines.append(f"[estate.pair.{title}]")
        lines += [f"{quote(name)} = {quote(to)}" for name, to in table.items()]
    chosen = pair.replicate
    if chosen != ReplicateSettings():
        lines += [
            "[estate.pair.replicate]",
            f"deployments = {quote(chosen.deployments)}",
            f"fine_tuned = {_list(chosen.fine_tuned)}",
            f"keep_alive = {quote(chosen.keep_alive)}",
        ]
        if chosen.prompts:
            lines.append(f"prompts = {_list(chosen.prompts)}")
    return lines
