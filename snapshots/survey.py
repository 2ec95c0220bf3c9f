"""Look at what there is before anything is configured: subscriptions, AI accounts, likely pairs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from snapshots.cloud.place import Place, Plane
from snapshots.kinds.fields import location
from snapshots.model import JsonObject

_SUBSCRIPTIONS: Final = {"api-version": "2022-12-01"}
_ACCOUNTS: Final = {"api-version": "2025-09-01"}
# Words in a name that say where a thing is or that it stands by, and not what it is.
_PLACE_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        "dr standby secondary primary backup failover prod production a b 1 2 01 02 "
        "swc swe sdc neu weu we ne eus eus2 eu2 wus wus2 wus3 ncus scus cus uks ukw frc gwc noe "
        "che jpe jpw aue ause krc sea cac cae brs zan uan inc ins itn esc plc east west north "
        "south central us eu uk",
    )
)
_STANDBY_WORDS: Final = frozenset({"dr", "standby", "secondary", "backup", "failover"})
_WORDS: Final = re.compile(r"[^a-z0-9]+")


class Lister(Protocol):
    """What a survey asks of the cloud."""

    def list(
        self, place: Place, path: str, *, params: Mapping[str, str] | None = None, kind: str
    ) -> Iterator[JsonObject]:
        """Give the items of all pages."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class SeenSubscription:
    """A subscription that the identity can see."""

    id: str  # lower-case
    name: str


@dataclass(frozen=True, slots=True, order=True)
class SeenAccount:
    """An AI account: where it is and what it is."""

    subscription: str
    resource_group: str  # lower-case, as names are compared
    name: str  # as Azure spells it
    region: str  # short: swedencentral
    kind: str  # OpenAI, AIServices, …


@dataclass(frozen=True, slots=True)
class Survey:
    """What there is."""

    subscriptions: tuple[SeenSubscription, ...]
    accounts: tuple[SeenAccount, ...]


@dataclass(frozen=True, slots=True)
class SuggestedPair:
    """A region that seems to stand by for another, and the accounts that seem to match."""

    primary: str
    standby: str
    accounts: tuple[tuple[SeenAccount, SeenAccount], ...]


def survey(cloud: Lister, only: Sequence[str] = ()) -> Survey:
    """Ask for the subscriptions and their AI accounts: one listing, and one for each.

    `only` limits it to some subscription ids. Raises CloudError: a first look must be whole.
    """
    arm = Place(Plane.ARM)
    wanted = {subscription.lower() for subscription in only}
    subscriptions = tuple(
        sorted(
            SeenSubscription(str(s["subscriptionId"]).lower(), str(s.get("displayName", "")))
            for s in cloud.list(arm, "/subscriptions", params=_SUBSCRIPTIONS, kind="subscription")
            if not wanted or str(s["subscriptionId"]).lower() in wanted
        )
    )
    accounts: list[SeenAccount] = []
    for subscription in subscriptions:
        path = f"/subscriptions/{subscription.id}/providers/Microsoft.CognitiveServices/accounts"
        place = Place(Plane.ARM, subscription=subscription.id)
        for item in cloud.list(place, path, params=_ACCOUNTS, kind="account"):
            parts = str(item.get("id", "")).split("/")
            if len(parts) > 8:
                region = str(item.get("location", ""))
                accounts.append(
                    SeenAccount(
                        subscription.id,
                        parts[4].lower(),
                        parts[8],
                        location(region),
                        str(item.get("kind", "")),
                    )
                )
    return Survey(subscriptions, tuple(sorted(accounts)))


def suggest_pairs(accounts: Iterable[SeenAccount]) -> tuple[SuggestedPair, ...]:
    """Suggest which region stands by for which, from names that differ by place only.

    A guess for people to check, never more: most matches first, each region used once.
    """
    known = sorted(accounts)
    stems = {account: _stem(account) for account in known}
    matches: dict[tuple[str, str], list[tuple[SeenAccount, SeenAccount]]] = {}
    for first in known:
        for second in known:
            if (
                first.region != second.region
                and first.kind == second.kind
                and stems[first]
                and stems[first] == stems[second]
                and _stands_by(second, first, known)
            ):
                matches.setdefault((first.region, second.region), []).append((first, second))
    found: list[SuggestedPair] = []
    used: set[str] = set()
    for (primary, standby), pairs in sorted(matches.items(), key=lambda m: (-len(m[1]), m[0])):
        if primary not in used and standby not in used:
            used |= {primary, standby}
            unique = {first.name.lower(): (first, second) for first, second in reversed(pairs)}
            found.append(SuggestedPair(primary, standby, tuple(sorted(unique.values()))))
    return tuple(found)


def _stem(account: SeenAccount) -> tuple[str, ...]:
    """Give the words of a name that do not say where it is."""
    words = _WORDS.split(account.name.lower())
    return tuple(w for w in words if w and w not in _PLACE_WORDS and w != account.region)


def _stands_by(second: SeenAccount, first: SeenAccount, known: Sequence[SeenAccount]) -> bool:
    """Whether the second is the standby of the two: by its words, else by its region's size."""

    def says_so(account: SeenAccount) -> bool:
        words = {*_WORDS.split(account.name.lower()), *_WORDS.split(account.resource_group)}
        return bool(words & _STANDBY_WORDS)

    if says_so(first) != says_so(second):
        return says_so(second)
    sizes = Counter(account.region for account in known)
    return (sizes[second.region], first.region) < (sizes[first.region], second.region)
