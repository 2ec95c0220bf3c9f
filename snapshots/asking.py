"""What those who plan and write ask of the one way out to Azure; their own clouds add to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from snapshots.cloud.place import Answer, Cursor, Place
from snapshots.model import Json, JsonObject


class Asking(Protocol):
    """Reads, listings and actions. Each raises CloudError."""

    def get(
        self, place: Place, path: str, *, params: Mapping[str, str] | None = None, kind: str
    ) -> Answer:
        """Read one thing. Raises MissingError."""
        ...

    def list(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        items: str = "value",
        cursor: Cursor = Cursor.NEXT_LINK,
    ) -> Iterator[JsonObject]:
        """Give the items of a listing."""
        ...

    def post(
        self,
        place: Place,
        path: str,
        body: Json = None,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        reads: bool = False,
    ) -> Answer:
        """Do an action; `reads` says that it only reads, or may be repeated as a read is."""
        ...
