"""Say what a resource came from and what it reached, over the references that kinds declare."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from snapshots.errors import NotFoundError
from snapshots.kinds.base import By, Flow, Kind, Reference
from snapshots.kinds.fields import Pattern
from snapshots.model import Gap, Key, Resource, Snapshot


@dataclass(frozen=True, slots=True, order=True)
class Link:
    """One declared reference between two resources: what was there first, and what needs it.

    `data` says whether data goes along: a file into a job, a job's result into a model.
    """

    earlier: Key
    later: Key
    path: str  # the field pattern that holds the reference
    data: bool


@dataclass(frozen=True, slots=True, order=True)
class Dangling:
    """A reference to something the snapshot does not have."""

    holder: Key
    path: str
    kind: str  # of what is missing
    value: str


@dataclass(frozen=True, slots=True, order=True)
class Relative:
    """One resource on the way, `distance` references from the one that was asked about."""

    distance: int
    key: Key
    through: Key  # the one before it on the shortest way
    path: str
    data: bool  # whether data goes along the whole way


@dataclass(frozen=True, slots=True)
class Lineage:
    """What one resource came from and what it reached, nearest first."""

    key: Key
    came_from: tuple[Relative, ...]
    reached: tuple[Relative, ...]
    holds: tuple[Key, ...]  # what lies inside it
    dangling: tuple[Dangling, ...]  # on the way back: what is no longer there
    gaps: tuple[Gap, ...]  # what was unread, so that the answer may lack something


@dataclass(slots=True)
class Graph:
    """All declared references of one snapshot, resolved."""

    keys: frozenset[Key]
    gaps: tuple[Gap, ...]
    earlier: dict[Key, list[Link]] = field(default_factory=dict)  # later -> links
    later: dict[Key, list[Link]] = field(default_factory=dict)  # earlier -> links
    dangling: dict[Key, list[Dangling]] = field(default_factory=dict)

    def lineage(self, key: Key) -> Lineage:
        """Walk both ways from one resource. Raises NotFoundError."""
        if key not in self.keys:
            raise NotFoundError(
                f"the snapshot has no resource {key}",
                remedy="`muster show` lists the keys of a snapshot",
            )
        came_from = tuple(sorted(self._walk(key, self.earlier, back=True)))
        reached = tuple(sorted(self._walk(key, self.later, back=False)))
        return Lineage(
            key,
            came_from,
            reached,
            tuple(sorted(k for k in self.keys if _inside(k, key))),
            tuple(
                sorted(
                    d
                    for k in (key, *(relative.key for relative in came_from))
                    for d in self.dangling.get(k, ())
                )
            ),
            self.gaps,
        )

    @staticmethod
    def _walk(start: Key, links: Mapping[Key, list[Link]], *, back: bool) -> Iterator[Relative]:
        """Go breadth first; a way along data is preferred over an equally short one without."""
        seen: dict[Key, Relative] = {}
        queue: deque[tuple[Key, int, bool]] = deque([(start, 0, True)])
        while queue:
            here, distance, data = queue.popleft()
            for link in sorted(links.get(here, ()), key=lambda link: not link.data):
                there = link.earlier if back else link.later
                carried = data and link.data
                known = seen.get(there)
                if there == start or (known is not None and (known.data or not carried)):
                    continue
                seen[there] = Relative(distance + 1, there, here, link.path, carried)
                queue.append((there, distance + 1, carried))
        yield from seen.values()


def graph(snapshot: Snapshot, kinds: Iterable[Kind]) -> Graph:
    """Resolve every reference that the kinds declare. Pure; linear in the snapshot's size.

    What a gap hid takes part as it was last read: a file whose listing failed still reached what
    it reached.
    """
    known = {**snapshot.stale, **snapshot.resources}
    found = Graph(frozenset(known), snapshot.gaps)
    index = _Index(known)
    for kind in kinds:
        declared = [(r, Pattern.parse(r.path)) for r in kind.references]
        if not declared:
            continue
        for holder in index.of_kind(kind.name):
            for reference, pattern in declared:
                for _, value in pattern.find(holder.body):
                    if isinstance(value, str) and value:
                        _link(found, index, holder, reference, value)
    return found


def _link(found: Graph, index: _Index, holder: Resource, reference: Reference, value: str) -> None:
    targets = index.resolve(holder.key, reference, value)
    if not targets and _is_ours(reference, value):
        found.dangling.setdefault(holder.key, []).append(
            Dangling(holder.key, reference.path, reference.kind, value)
        )
    for target in targets:
        if target == holder.key:
            continue
        made = reference.flow is Flow.OUT
        first, second = (holder.key, target) if made else (target, holder.key)
        link = Link(first, second, reference.path, reference.flow is not Flow.NONE)
        if link not in found.later.setdefault(first, []):
            found.later[first].append(link)
            found.earlier.setdefault(second, []).append(link)


def _is_ours(reference: Reference, value: str) -> bool:
    """Whether what is not there should be: data by its id, and no base model of the catalogue."""
    if reference.flow is Flow.NONE or not reference.kind:
        return False
    # Fine-tuned models are called <base>.ft-<id>, checkpoints ftchkpt-<id> (fine-tuning-rest.md).
    return reference.kind != "fine-tuned-model" or ".ft-" in value or "ftchkpt-" in value


def _inside(key: Key, holder: Key) -> bool:
    depth = len(holder.path)
    return len(key.path) > depth and key.path[:depth] == holder.path


class _Index:
    """Finds resources by kind, by id, by name and by the principal of their identity."""

    def __init__(self, resources: Mapping[Key, Resource]) -> None:
        self._kinds: dict[str, list[Resource]] = {}
        self._ids: dict[str, list[Key]] = {}
        self._names: dict[tuple[str, str], list[Key]] = {}
        self._principals: dict[str, list[Key]] = {}
        for key, resource in resources.items():
            self._kinds.setdefault(key.kind, []).append(resource)
            self._ids.setdefault(_id(resource.id), []).append(key)
            for name in {key.name.lower(), _last(resource.id).lower()}:
                self._names.setdefault((key.kind, name), []).append(key)
            identity = resource.body.get("identity")
            if isinstance(identity, dict) and isinstance(identity.get("principalId"), str):
                self._principals.setdefault(str(identity["principalId"]).lower(), []).append(key)

    def of_kind(self, kind: str) -> list[Resource]:
        return self._kinds.get(kind, [])

    def resolve(self, holder: Key, reference: Reference, value: str) -> list[Key]:
        if reference.by is By.PRINCIPAL:
            found = self._principals.get(value.lower(), [])
        elif reference.by is By.ID:
            found = self._ids.get(_id(value), [])
        else:
            found = self._names.get((reference.kind, value.lower()), [])
        if reference.kinds:
            found = [key for key in found if key.kind in reference.kinds]
        if len(found) < 2 and reference.by is not By.NAME:
            return found
        near = _nearest(holder, found)
        if near or reference.by is not By.NAME:
            return near or found
        # A model's name is unique in the world, and a standby deployment names a model of another
        # account; the name of a policy or a connection means nothing elsewhere.
        return found if reference.flow is not Flow.NONE else []


def _nearest(holder: Key, found: Iterable[Key]) -> list[Key]:
    """Keep those beside the holder or above it, the closest only."""
    best: list[Key] = []
    depth = 0
    for key in found:
        within = key.within
        if holder.path[: len(within)] == within and len(within) >= depth:
            best = [*best, key] if len(within) == depth else [key]
            depth = len(within)
    return best


def _id(text: str) -> str:
    """ARM compares ids without case; those of the data plane are lower-case words anyway."""
    return text.strip().rstrip("/").lower()


def _last(text: str) -> str:
    return text.rstrip("/").rsplit("/", 1)[-1]
