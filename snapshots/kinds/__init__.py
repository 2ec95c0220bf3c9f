"""The kinds, in the order in which they are shown; the order of work follows from their needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from snapshots.kinds.access import DIAGNOSTIC_SETTING, LOCK, ROLE_ASSIGNMENT
from snapshots.kinds.accounts import ACCOUNT, COMMITMENT_PLAN, DEFENDER_SETTING, ENCRYPTION_SCOPE
from snapshots.kinds.agents import AGENT, THREAD
from snapshots.kinds.base import SUBSCRIPTION, Kind
from snapshots.kinds.content_safety import RAI_BLOCKLIST, RAI_POLICY, RAI_TOPIC
from snapshots.kinds.deployments import DEPLOYMENT
from snapshots.kinds.groups import RESOURCE_GROUP
from snapshots.kinds.network import MANAGED_NETWORK, OUTBOUND_RULE, PRIVATE_ENDPOINT_CONNECTION
from snapshots.kinds.openai import ASSISTANT, FILE, FINE_TUNED_MODEL, FINE_TUNING_JOB, VECTOR_STORE
from snapshots.kinds.project_data import PROJECT_FILE, PROJECT_VECTOR_STORE
from snapshots.kinds.projects import (
    ACCOUNT_CAPABILITY_HOST,
    ACCOUNT_CONNECTION,
    PROJECT,
    PROJECT_CAPABILITY_HOST,
    PROJECT_CONNECTION,
)

KINDS: tuple[Kind, ...] = (
    RESOURCE_GROUP,
    ACCOUNT,
    RAI_BLOCKLIST,
    RAI_TOPIC,
    RAI_POLICY,
    FILE,
    FINE_TUNING_JOB,
    FINE_TUNED_MODEL,
    DEPLOYMENT,
    ENCRYPTION_SCOPE,
    DEFENDER_SETTING,
    COMMITMENT_PLAN,
    PRIVATE_ENDPOINT_CONNECTION,
    MANAGED_NETWORK,
    OUTBOUND_RULE,
    ACCOUNT_CONNECTION,
    ACCOUNT_CAPABILITY_HOST,
    PROJECT,
    PROJECT_CONNECTION,
    PROJECT_CAPABILITY_HOST,
    PROJECT_FILE,
    PROJECT_VECTOR_STORE,
    VECTOR_STORE,
    ASSISTANT,
    AGENT,
    THREAD,
    DIAGNOSTIC_SETTING,
    ROLE_ASSIGNMENT,
    LOCK,
)

BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in KINDS}


def descendants(name: str, kinds: Iterable[Kind] = KINDS) -> tuple[str, ...]:
    """Give a kind's name and the names of all that is listed below it, in the order of `kinds`."""
    kinds = tuple(kinds)
    found = {name}
    grew = True
    while grew:
        below = {kind.name for kind in kinds if kind.parent in found} - found
        found |= below
        grew = bool(below)
    return tuple(kind.name for kind in kinds if kind.name in found)


def order(kinds: Iterable[Kind] = KINDS) -> Mapping[str, int]:
    """Give each kind its place in a restore: what it needs, its parent included, comes before.

    Kinds with the same number do not need each other. Raises ValueError when the needs go round
    in a circle or name a kind that is not there.
    """
    kinds = tuple(kinds)
    by_name = {kind.name: kind for kind in kinds}
    ranks: dict[str, int] = {}

    def rank(name: str, on_the_way: tuple[str, ...]) -> int:
        if name in ranks:
            return ranks[name]
        if name in on_the_way:
            message = "kinds need each other: " + " -> ".join((*on_the_way, name))
            raise ValueError(message)
        kind = by_name.get(name)
        if kind is None:
            message = f"kind {on_the_way[-1]!r} needs {name!r}, which is not a kind"
            raise ValueError(message)
        needs = [*kind.needs] + ([kind.parent] if kind.parent != SUBSCRIPTION else [])
        ranks[name] = 1 + max((rank(need, (*on_the_way, name)) for need in needs), default=-1)
        return ranks[name]

    for kind in kinds:
        rank(kind.name, ())
    return ranks
