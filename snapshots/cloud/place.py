"""The nouns of the cloud: where a request goes, what came back, and how patient we are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from snapshots.model import Json


class Plane(StrEnum):
    """Which of Azure's doors a request goes through; each has its own token audience."""

    ARM = "arm"  # the resource manager, Resource Graph and Activity Log included
    OPENAI = "openai"  # data plane of an Azure OpenAI or AI Services account
    FOUNDRY = "foundry"  # data plane of a Foundry project
    SEARCH = "search"  # data plane of an AI Search service
    KEY_VAULT = "key-vault"  # secrets that a restore asks for


class Cursor(StrEnum):
    """How a listing is cut into pages."""

    NEXT_LINK = "nextLink"  # ARM, Activity Log, Foundry connections: absolute or relative link
    OPENAI_AFTER = "after"  # {"data": […], "has_more": …, "last_id": …}, asked on with ?after=
    FOUNDRY_AFTER = "foundry-after"  # the same, on a Foundry project (agents)
    NONE = "none"  # one page by definition


class Identity(StrEnum):
    """Who muster signs in as."""

    DEFAULT = "default"  # azure.identity.DefaultAzureCredential
    ENVIRONMENT = "environment"  # client secret or certificate from AZURE_* variables
    MANAGED = "managed-identity"
    CLI = "azure-cli"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request goes and whose budget pays for it.

    `base` is empty for ARM (the cloud's resource manager); for a data plane it is the account's or
    project's endpoint, such as "https://x.openai.azure.com/". `region` is for the region guard,
    "" where the request is not bound to one.
    """

    plane: Plane
    base: str = ""
    subscription: str = ""
    region: str = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request brought: raw wire JSON, nothing dropped. `headers` has lower-case names."""

    status: int
    body: Json
    headers: Mapping[str, str]
    seconds: float  # from the first try to the answer, waits included


@dataclass(frozen=True, slots=True)
class OperationProgress:
    """How far a long operation is. `url` is what `Cloud.resume` takes after a crash."""

    url: str
    status: str  # Azure's word: "Accepted", "Creating", "Running", "Succeeded", …
    percent: float | None  # 0 to 100, where the provider tells
    elapsed: float  # seconds since the operation was started or resumed
    where: str


@dataclass(frozen=True, slots=True)
class Credential:
    """Which identity, and where an identity has several, which of them."""

    identity: Identity = Identity.DEFAULT
    client_id: str = ""  # of a user-assigned managed identity, or of a service principal
    client_secret: str = field(default="", repr=False)  # of the service principal, when not in env


@dataclass(frozen=True, slots=True)
class Limits:
    """How long and how often the cloud is asked before it is an error. Seconds, unless named."""

    connect: float = 10.0
    read: float = 60.0  # without a byte
    patience: float = 300.0  # all tries of one request together
    attempts: int = 10  # tries of one request
    conflict_patience: float = 900.0  # while another operation runs on the same parent
    operation_patience: float = 7200.0  # a long operation, from start to terminal state
    backoff: float = 0.5  # first back-off; doubles, with full jitter
    backoff_cap: float = 30.0
    poll_first: float = 2.0  # between two looks at a long operation without Retry-After
    poll_cap: float = 15.0
    connections: int = 32  # kept open for each host
    reads: tuple[float, float] = (250.0, 25.0)  # bucket and refill a second, as documented
    writes: tuple[float, float] = (200.0, 10.0)
    deletes: tuple[float, float] = (200.0, 10.0)
    endpoint_per_second: float = 30.0  # data plane, for each account endpoint


@dataclass(frozen=True, slots=True)
class Permission:
    """One entry of what the caller may do at a scope, with Azure's wildcards."""

    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def allows(self, action: str) -> bool:
        """Whether this entry gives the control-plane action, such as "…/accounts/read"."""
        return _matches(self.actions, action) and not _matches(self.not_actions, action)

    def allows_data(self, action: str) -> bool:
        """Whether this entry gives the data-plane action."""
        return _matches(self.data_actions, action) and not _matches(self.not_data_actions, action)


def _matches(patterns: tuple[str, ...], action: str) -> bool:
    return any(_fits(pattern.lower(), action.lower()) for pattern in patterns)


def _fits(pattern: str, action: str) -> bool:
    """Match as Azure RBAC does: `*` stands for any characters, slashes included."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == action
    if not action.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = action.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(action) - at >= len(rest[-1]) and action.endswith(rest[-1])
