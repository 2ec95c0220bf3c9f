"""Reference data: what a region offers and what is left of the quota. Recorded, never drift."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from snapshots.cloud.place import Cursor
from snapshots.kinds.accounts import API
from snapshots.kinds.base import Location
from snapshots.kinds.fields import location
from snapshots.model import Json, JsonObject, canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """One listing that is kept for readiness. `path` is a template over {subscription}, {name}.

    `every` says for what it is asked once: "region", "subscription" or "model".
    """

    name: str  # in call counts and gaps
    folder: str  # below reference/
    every: str
    location: Location
    drop: tuple[str, ...] = ()  # properties that count down by themselves
    wanted: Callable[[Mapping[str, Json], frozenset[str]], bool] = lambda _item, _regions: True

    def document(self, wires: list[JsonObject], regions: frozenset[str]) -> Json:
        """Give what is kept: the items in an order of their own, so that equal stays equal."""
        kept: list[Json] = [
            {key: value for key, value in wire.items() if key not in self.drop}
            for wire in wires
            if self.wanted(wire, regions)
        ]
        return {"items": _settled(kept)}


def _settled(value: Json) -> Json:
    """Take the accidents out: no list of a catalogue has an order that means something."""
    if isinstance(value, dict):
        return {key: _settled(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return sorted((_settled(item) for item in value), key=canonical)
    return value


def _of_interest(item: Mapping[str, Json], regions: frozenset[str]) -> bool:
    places = item.get("locations")
    return (
        item.get("kind") in {"OpenAI", "AIServices"}
        and isinstance(places, list)
        and any(isinstance(place, str) and location(place) in regions for place in places)
    )


_CS = "/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"

MODELS = Catalogue(
    name="reference-models",
    folder="models",
    every="region",
    location=Location(path=_CS + "/locations/{name}/models", params=API),
)
USAGES = Catalogue(
    name="reference-usages",
    folder="usages",
    every="region",
    location=Location(path=_CS + "/locations/{name}/usages", params=API),
    drop=("nextResetTime",),
)
SKUS = Catalogue(
    name="reference-skus",
    folder="skus",
    every="subscription",
    location=Location(path=_CS + "/skus", params=API),
    wanted=_of_interest,
)
CAPACITIES = Catalogue(
    name="reference-capacities",
    folder="capacities",
    every="model",
    location=Location(path=_CS + "/modelCapacities", params=API, cursor=Cursor.NEXT_LINK),
)
CATALOGUES: tuple[Catalogue, ...] = (MODELS, USAGES, SKUS, CAPACITIES)
