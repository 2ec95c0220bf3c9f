"""Which regions are declared down, so that nothing is ever sent there."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock

from snapshots.errors import RegionDownError


def region_name(region: str) -> str:
    """The one spelling of a region: Azure echoes "Sweden Central" and "SWEDENCENTRAL" alike."""
    return region.replace(" ", "").lower()


class RegionGuard:
    """Refuses requests for a region that is declared down, before anything is sent."""

    def __init__(self) -> None:
        self._down: dict[str, str] = {}
        self._lock = Lock()

    def declare_down(self, region: str, why: str) -> None:
        """From now on refuse every request for `region`. `why` is shown to people: no secret."""
        name = region_name(region)
        if not name:
            message = "a region without a name cannot be declared down"
            raise ValueError(message)
        with self._lock:
            self._down[name] = why

    def up(self, region: str) -> None:
        """Let requests for `region` through again."""
        with self._lock:
            self._down.pop(region_name(region), None)

    @property
    def down(self) -> Mapping[str, str]:
        """The regions declared down, and why."""
        with self._lock:
            return dict(self._down)

    def check(self, region: str, where: str) -> None:
        """Raise RegionDownError when `region` is declared down. "" is never down."""
        with self._lock:
            why = self._down.get(region_name(region)) if region else None
        if why is not None:
            raise RegionDownError(
                f"region {region_name(region)} is declared down: {why}. Nothing was sent",
                where=where,
                remedy="work with the standby region, or declare the region up again",
            )
