"""Follow references: which resource a body points to, what came from what, what it reached."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from snapshots.cloud.place import Plane
from snapshots.kinds import KINDS
from snapshots.kinds.base import By, Flow, Kind, Reference
from snapshots.kinds.fields import Pattern, pointer
from snapshots.model import Json, Key, Resource


@dataclass(frozen=True, slots=True)
class Link:
    """One reference of one resource, followed.

    `target` is None when what it points to is not among the resources: it is out of scope, hidden
    by a gap, Microsoft's (a base model, Microsoft.Default), or gone.
    """

    source: Key
    path: str  # RFC 6901 pointer into the source's body
    value: str  # what stands there
    reference: Reference
    target: Key | None

    @property
    def edge(self) -> tuple[Key, Key] | None:
        """From what to what data goes, None when none does."""
        if self.target is None:
            return None
        match self.reference.flow:
            case Flow.IN:
                return (self.target, self.source)
            case Flow.OUT:
                return (self.source, self.target)
            case Flow.NONE:
                return None


class Links:
    """The references of a set of resources, each followed once."""

    def __init__(self, resources: Mapping[Key, Resource], kinds: Iterable[Kind] = KINDS) -> None:
        self._resources = resources
        self._kinds = {kind.name: kind for kind in kinds}
        self._by_id: dict[str, list[Key]] = {}
        self._by_name: dict[tuple[str, str], list[Key]] = {}
        self._by_principal: dict[str, Key] = {}
        for key, resource in resources.items():
            self._by_id.setdefault(resource.id.lower().rstrip("/"), []).append(key)
            self._by_name.setdefault((key.kind, key.name.lower()), []).append(key)
            principal = principal_of(resource)
            if principal is not None:
                self._by_principal[principal.lower()] = key
        self.all: tuple[Link, ...] = tuple(self._links())

    def of(self, key: Key) -> tuple[Link, ...]:
        """Give the references that a resource holds."""
        return tuple(link for link in self.all if link.source == key)

    def to(self, key: Key) -> tuple[Link, ...]:
        """Give the references that point to a resource."""
        return tuple(link for link in self.all if link.target == key)

    def origins(self, key: Key) -> tuple[Key, ...]:
        """Give all that a resource came from, near ones first."""
        return self._reach(key, [(end, start) for start, end in self._edges()])

    def reached(self, key: Key) -> tuple[Key, ...]:
        """Give all that a resource's data went into, near ones first: file, job, model, agent."""
        return self._reach(key, self._edges())

    def _edges(self) -> list[tuple[Key, Key]]:
        return sorted({link.edge for link in self.all if link.edge is not None})

    @staticmethod
    def _reach(key: Key, edges: Iterable[tuple[Key, Key]]) -> tuple[Key, ...]:
        onward: dict[Key, list[Key]] = {}
        for start, end in edges:
            onward.setdefault(start, []).append(end)
        found: dict[Key, None] = {}
        at = [key]
        while at:
            ends = sorted({end for start in at for end in onward.get(start, [])} - {key})
            at = [end for end in ends if end not in found]
            found.update(dict.fromkeys(at))
        return tuple(found)

    def _links(self) -> Iterator[Link]:
        for key in sorted(self._resources):
            kind = self._kinds.get(key.kind)
            if kind is None:
                continue
            for reference in kind.references:
                body = self._resources[key].body
                for path, value in Pattern.parse(reference.path).find(body):
                    if isinstance(value, str) and value:
                        target = self._target(key, reference, value)
                        if target != key or reference.by is not By.PRINCIPAL:
                            yield Link(key, pointer(path), value, reference, target)

    def _target(self, source: Key, reference: Reference, value: str) -> Key | None:
        match reference.by:
            case By.PRINCIPAL:
                return self._by_principal.get(value.lower())
            case By.ID:
                found = self._by_id.get(value.lower().rstrip("/"), [])
                fitting = [
                    key for key in found if not reference.kinds or key.kind in reference.kinds
                ]
                return _nearest(source, fitting)
            case By.NAME:
                return self._named(source, reference.kind, value)

    def _named(self, source: Key, kind: str, name: str) -> Key | None:
        named = self._by_name.get((kind, name.lower()), [])
        declared = self._kinds.get(kind)
        above = [key for key in named if key.within == source.path[: len(key.within)]]
        if above or declared is None or declared.plane is Plane.ARM or declared.random_id:
            return _nearest(source, above)
        # A fine-tuned model is known by its id wherever it was deployed to.
        return _nearest(source, named)


def _nearest(source: Key, keys: Iterable[Key]) -> Key | None:
    """Give the key that shares most of the path with `source`; the first of equals."""

    def shared(key: Key) -> int:
        pairs = zip(key.path, source.path, strict=False)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(key.path))

    return min(keys, key=lambda key: (-shared(key), key), default=None)


def principal_of(resource: Resource) -> str | None:
    """Give the object id of a resource's system-assigned identity, None when it has none."""
    identity: Json = resource.body.get("identity")
    principal = identity.get("principalId") if isinstance(identity, dict) else None
    return principal if isinstance(principal, str) else None
