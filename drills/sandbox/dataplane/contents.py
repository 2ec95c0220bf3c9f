"""File contents, known by their SHA-256: on disk below the state folder, else in memory."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from drills.sandbox.store import Store
from drills.sandbox.world import World

_memory: WeakKeyDictionary[Store, dict[str, bytes]] = WeakKeyDictionary()


def keep(world: World, content: bytes) -> str:
    """Keep a content and return its digest; keeping it twice changes nothing.

    Contents are never removed: a model goes on answering from a training file that was deleted.
    """
    digest = hashlib.sha256(content).hexdigest()
    state = world.store.state
    if state is None:
        _memory.setdefault(world.store, {})[digest] = content
        return digest
    folder = state / "files"
    path = folder / digest
    if not path.exists():
        folder.mkdir(exist_ok=True)
        partial = folder / f".{digest}.{os.getpid()}"
        partial.write_bytes(content)
        partial.replace(path)  # a killed process leaves no half content behind
    return digest


def read(world: World, digest: str) -> bytes:
    """A content by digest. Raises KeyError when the state folder has lost it."""
    state = world.store.state
    if state is None:
        return _memory.get(world.store, {})[digest]
    try:
        return (state / "files" / digest).read_bytes()
    except FileNotFoundError:
        raise KeyError(digest) from None


def dump(world: World) -> dict[str, str]:
    """Every content in base64 by digest, for a dump that `load` takes back."""
    return {digest: base64.b64encode(content).decode() for digest, content in _all(world)}


def load(world: World, dumped: dict[str, str]) -> None:
    """Take back what `dump` gave."""
    for text in dumped.values():
        keep(world, base64.b64decode(text))


def _all(world: World) -> Iterator[tuple[str, bytes]]:
    state = world.store.state
    if state is None:
        yield from _memory.get(world.store, {}).items()
        return
    folder = state / "files"
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if not path.name.startswith("."):
                yield path.name, path.read_bytes()
