"""A cloud of canned answers that satisfies what `take` asks for: listings and contents by path."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Lock
from typing import TypeVar

from snapshots.cloud import CallCounter, Cursor, Place
from snapshots.errors import MissingError
from snapshots.model import JsonObject, Payload, digest

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class CannedAnswer:
    """What `get` gives."""

    body: JsonObject


class CannedCloud:
    """Answers listings and contents from two dictionaries, by lower-case path.

    `errors` maps a path to what is raised there. `on` is called before each answer. What is not
    canned is an empty listing, or a 404 for a content. Every request is in `asked`.
    """

    def __init__(
        self,
        listings: Mapping[str, list[JsonObject]] | None = None,
        contents: Mapping[str, bytes] | None = None,
        *,
        shuffle: int | None = None,
        page: int = 0,
    ) -> None:
        self.calls = CallCounter()
        self.listings = {path.lower(): items for path, items in (listings or {}).items()}
        self.contents = {path.lower(): data for path, data in (contents or {}).items()}
        self.errors: dict[str, Exception] = {}
        self.on: Callable[[Place, str], None] = lambda _place, _path: None
        self.asked: list[tuple[Place, str]] = []
        self.times: Counter[str] = Counter()
        self._random = random.Random(shuffle) if shuffle is not None else None
        self._page = page
        self._lock = Lock()

    def list(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str],
        kind: str,
        items: str,
        cursor: Cursor,
    ) -> Iterator[JsonObject]:
        """Give the canned items, shuffled when that was asked for."""
        assert items, "a listing says where its items are"
        found = list(self._answer(place, path, kind, self.listings, []))
        if self._random is not None:
            with self._lock:
                self._random.shuffle(found)
        size = int(params.get("limit", "0"))
        for index, item in enumerate(found):
            if size and index and index % size == 0 and cursor is not Cursor.NONE:
                self.calls.sent(kind, again=False)
            yield item

    def get(self, place: Place, path: str, *, params: Mapping[str, str], kind: str) -> CannedAnswer:
        """Give the canned item with that id, out of all listings; else a 404."""
        assert params
        self._answer(place, path, kind, {}, None)
        for items in self.listings.values():
            for item in items:
                if str(item.get("id", "")).lower() == path.lower():
                    return CannedAnswer(item)
        raise MissingError("not found", where=path, status=404, code="ResourceNotFound")

    def stream(
        self, place: Place, path: str, *, params: Mapping[str, str], kind: str
    ) -> Iterator[bytes]:
        """Give the canned bytes in small pieces."""
        assert not params or all(params)
        data = self._answer(place, path, kind, self.contents, None)
        if data is None:
            raise MissingError("not found", where=path, status=404, code="404")
        for at in range(0, len(data), 7):
            yield data[at : at + 7]

    def _answer(
        self, place: Place, path: str, kind: str, canned: Mapping[str, _T], otherwise: _T
    ) -> _T:
        at = path.lower()
        with self._lock:
            self.asked.append((place, path))
            self.times[at] += 1
        self.calls.sent(kind, again=False)
        self.on(place, at)
        if at in self.errors:
            raise self.errors[at]
        return canned.get(place.base.lower() + at, canned.get(at, otherwise))


class KeptPayloads:
    """Payloads in memory."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}

    def known(self) -> frozenset[str]:
        """Give the digests that are kept."""
        return frozenset(self.kept)

    def keep(
        self,
        chunks: Iterable[bytes],
        *,
        sha256: str | None = None,
        size: int | None = None,
        name: str = "content",
    ) -> Payload:
        """Keep bytes; a wrong size or digest is refused as a vault refuses it."""
        data = b"".join(chunks)
        assert size is None or size == len(data)
        assert sha256 is None or sha256 == digest(data)
        self.kept[digest(data)] = data
        return Payload(name, digest(data), len(data))


class FrozenClock:
    """A clock that stands."""

    def now(self) -> datetime:
        """Tell the one moment there is."""
        return datetime(2026, 11, 22, 12, tzinfo=UTC)
