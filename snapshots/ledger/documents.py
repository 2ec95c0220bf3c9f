"""What the files and commits of the ledger say: from bytes to nouns and back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import orjson

from snapshots.ledger.entries import Entry, trailers_of
from snapshots.ledger.paths import path_of
from snapshots.model import Gap, Json, JsonObject, Key, Resource, pretty

LOG_FORMAT = "--format=%H%n%T%n%P%n%ct%n%an <%ae>%n%B"


def resource_in(path: str, content: bytes) -> Resource:
    """Read a document and hold it to its path. Raises ValueError."""
    document = orjson.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    resource = Resource.from_document(document)
    if path_of(resource.key) != path:
        raise ValueError(f"it lies at {path}, but its key is {resource.key}")
    return resource


def gaps_in(content: bytes) -> tuple[Gap, ...]:
    """Read gaps.json. Raises ValueError."""
    documents = orjson.loads(content)
    if not isinstance(documents, list):
        raise ValueError("it is not a JSON list")
    return tuple(Gap.from_document(document) for document in documents)


def stale_in(content: bytes) -> dict[Key, tuple[str, str]]:
    """Give key -> (snapshot that last read it, the gap's reason) from gaps.json."""
    found: dict[Key, tuple[str, str]] = {}
    for document in orjson.loads(content):
        for group in document.get("stale", ()):
            for key in group["keys"]:
                found[Key.parse(key)] = (group["stale_since"], document.get("reason", ""))
    return found


def gap_order(gap: Gap) -> tuple[str, bytes]:
    """Give what gaps are sorted by."""
    return str(gap.key), pretty(gap.document())


def gap_documents(gaps: Sequence[Gap], stale: Mapping[Key, tuple[Gap, str]]) -> list[JsonObject]:
    """Give what gaps.json holds: each gap, and what it hid with the snapshot that last read it."""
    groups: dict[Gap, dict[str, list[Json]]] = {}
    for key, (gap, since) in sorted(stale.items()):
        groups.setdefault(gap, {}).setdefault(since, []).append(str(key))
    documents: list[JsonObject] = []
    for gap in sorted(set(gaps), key=gap_order):
        document = gap.document()
        if gap in groups:
            document["stale"] = [
                {"stale_since": since, "keys": keys} for since, keys in sorted(groups[gap].items())
            ]
        documents.append(document)
    return documents


def entry_in(record: bytes) -> Entry:
    """Read one record of `git log` in LOG_FORMAT."""
    text = record.decode("utf-8", "replace").removeprefix("\n")
    commit, tree, parents, when, author, message = text.split("\n", 5)
    return Entry(
        commit=commit,
        tree=tree,
        parents=tuple(parents.split()),
        when=datetime.fromtimestamp(int(when), UTC),
        author=author.split(" <")[0],
        subject=message.split("\n", 1)[0],
        message=message,
        trailers=trailers_of(message),
    )


def blob_id(data: bytes) -> str:
    """Give the name Git will know these bytes by."""
    return hashlib.sha1(b"blob %d\0%b" % (len(data), data)).hexdigest()  # noqa: S324 - Git's own
