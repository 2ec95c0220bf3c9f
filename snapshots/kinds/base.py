"""What a kind is: one type of resource, declared as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from snapshots.cloud.place import Cursor, Plane
from snapshots.errors import CloudError
from snapshots.kinds.fields import Default, Fields, Normaliser, Pattern
from snapshots.model import Json, JsonObject, Key, Recovery, Resource
from snapshots.secrets import Fingerprints

SUBSCRIPTION = "subscription"  # the parent of what has no parent among the kinds


class By(StrEnum):
    """What a reference holds of the resource it points to."""

    ID = "id"  # its id: the ARM id, or the data plane's
    NAME = "name"  # its name, beside the holder or above it
    PRINCIPAL = "principal"  # the object id of a managed identity


class Flow(StrEnum):
    """Whether data goes along a reference: the lineage."""

    NONE = "none"  # configuration only
    IN = "in"  # what it points to went into the holder
    OUT = "out"  # the holder made what it points to


class Way(StrEnum):
    """How a kind is written."""

    PUT = "put"  # by name, create or replace
    POST = "post"  # into the collection; Azure gives the id
    UPLOAD = "upload"  # as a multipart form with its payload
    NEVER = "never"  # not by muster


@dataclass(frozen=True, slots=True)
class Reference:
    """Where a body holds another resource's id, name or principal.

    `path` is a field pattern. `kind` is the target's kind, or "" when its id says it. The
    Mapping and the IdMap rewrite what stands there.
    """

    path: str
    kind: str
    by: By = By.ID
    flow: Flow = Flow.NONE
    or_kinds: tuple[str, ...] = ()  # what else the id may be of: data of the account above

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds that it may point to; none when the id alone says it."""
        return (self.kind, *self.or_kinds) if self.kind else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a collection is listed, and how its answer is read.

    `path` is a template over the parent: {id} its id as Azure gave it, {name} its own name,
    {subscription}. `items` is the property that holds the items.
    """

    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    items: str = "value"
    cursor: Cursor = Cursor.NEXT_LINK


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """A list that belongs to a resource and is read by a call of its own: a blocklist's items.

    It becomes the property `into` of the body. Where `when` says no, nothing is asked.
    """

    into: str
    location: Location
    when: Callable[[Mapping[str, Json]], bool] = lambda _wire: True


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """Bytes that belong to a resource. `path` is a template over its own {id} and {name}.

    `when` says whether Azure lets them be read; `size` names the property with their number.
    `withheld` knows the refusal that is a rule of Azure's, where only asking tells: what is refused
    so is recorded without its bytes, and is no gap.
    """

    role: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    size: str = ""
    when: Callable[[Mapping[str, Json]], bool] = lambda _wire: True
    withheld: Callable[[CloudError], bool] = lambda _error: False


@dataclass(frozen=True, slots=True)
class Comeback:
    """How a kind comes back after it was lost, in Microsoft's words or those of the API."""

    recovery: Recovery
    sentence: str
    source: str  # a URL


@dataclass(frozen=True, slots=True)
class Parent:
    """A resource as its children see it: also what is noise to everybody else."""

    kind: str
    path: tuple[str, ...]  # its names, from the outside in
    id: str  # as Azure gave it
    name: str
    subscription: str
    region: str  # "" when it has none
    wire: Mapping[str, Json]


def _nothing_written(_body: Mapping[str, Json]) -> bool:
    return True


def _everywhere(_parent: Parent) -> bool:
    return True


def _every(_parent: Parent, _wire: Mapping[str, Json]) -> bool:
    return True


def _no_endpoint(_parent: Parent) -> str:
    return ""


def own_name(wire: Mapping[str, Json]) -> str:
    """Give the last part of the wire's `name`: Azure sometimes says account/project."""
    name = wire.get("name")
    return str(name).rsplit("/", 1)[-1] if isinstance(name, str) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One type of resource.

    Where it lives, what is noise, what is secret, what it needs first, how it comes back.

    `parent` is the kind (or "subscription") under which it is listed. Exactly one of `location`
    (a call) and `embedded` (a field pattern into the parent's wire body, no call) is given.
    `applies` says whether a parent can hold the kind at all; where not, nothing is asked.
    """

    name: str  # in keys and paths: singular, dashes
    title: str  # for people: plural
    parent: str
    comeback: Comeback
    plane: Plane = Plane.ARM
    endpoint: Callable[[Parent], str] = _no_endpoint  # of a data plane: its base URL, "" if none
    location: Location | None = None
    embedded: str = ""
    fields: Fields = field(default_factory=Fields)
    references: tuple[Reference, ...] = ()
    needs: tuple[str, ...] = ()  # kinds that must be there first, besides the parent
    applies: Callable[[Parent], bool] = _everywhere
    keeps: Callable[[Parent, Mapping[str, Json]], bool] = _every  # which listed items are of it
    named: Callable[[Mapping[str, Json]], str] = own_name
    # A data-plane thing is found by a stable name, not by the id Azure rolls anew each time.
    random_id: bool = False
    path_of: Callable[[Parent, Mapping[str, Json]], tuple[str, ...]] | None = None
    attached: bool = False  # listed by subscription, and belongs to whatever its path names
    shape: Callable[[JsonObject], JsonObject] | None = None  # hook: before the table is applied
    # A kind of what holds the parent, whose listing may show the same things: there they stay.
    same_as: str = ""
    folds: tuple[Fold, ...] = ()
    content: Content | None = None
    absent_codes: frozenset[str] = frozenset()  # error codes that mean "there is none here"
    optional: bool = False  # only when asked for
    serial_per_account: bool = False  # one write at a time, else 409 RequestConflict
    way: Way = Way.PUT
    writable: Callable[[Mapping[str, Json]], bool] = _nothing_written
    # Where Azure has no call to delete one: what is written instead, which comes to the same.
    off: Mapping[str, Json] = field(default_factory=dict)
    recovery_of: Callable[[Resource], Comeback] | None = None  # where resources of a kind differ
    normalise_body: Normaliser = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if bool(self.location) == bool(self.embedded):
            message = f"kind {self.name}: give either location or embedded"
            raise ValueError(message)
        for reference in self.references:
            Pattern.parse(reference.path)
        for pattern in self.fields.patterns():
            Pattern.parse(pattern)
        table = COMMON + (ARM_NOISE if self.plane is Plane.ARM else DATA_NOISE) + self.fields
        object.__setattr__(self, "normalise_body", Normaliser(table))

    @property
    def api_version(self) -> str:
        """The version of the API that is asked, "" where the API has none."""
        return self.location.params.get("api-version", "") if self.location else ""

    def canonical(self, wire: Mapping[str, Json], fingerprints: Fingerprints) -> JsonObject:
        """Give the canonical body of a wire body: no noise, no secret, no accident of order."""
        body = dict(wire)
        if self.shape is not None:
            body = self.shape(body)
        return self.normalise_body(body, fingerprints)

    def recovery(self, resource: Resource) -> Comeback:
        """Say how this one comes back."""
        return self.recovery_of(resource) if self.recovery_of is not None else self.comeback

    def is_off(self, body: Mapping[str, Json]) -> bool:
        """Whether it is as it is left where it cannot be deleted."""
        return bool(self.off) and all(body.get(name) == value for name, value in self.off.items())

    def write_shape(self, body: Mapping[str, Json]) -> JsonObject:
        """Give what a write may hold of a canonical body: all but what Azure alone sets.

        Folded lists are left out too: they are written by calls of their own, as they are read.
        """
        # The name of an ARM resource is in its URL.
        named = ("name",) if self.plane is Plane.ARM else ()
        folded = tuple(fold.into for fold in self.folds)
        return _without(dict(body), (*self.fields.read_only, *named, *folded))

    def key(self, parent: Parent, name: str, wire: Mapping[str, Json]) -> Key:
        """Give the key: names of Azure Resource Manager in lower case, others as they are."""
        if self.path_of is not None:
            return Key(self.name, self.path_of(parent, wire))
        own = name.lower() if self.plane is Plane.ARM else name
        return Key(self.name, (*parent.path, own))


def _without(body: JsonObject, patterns: tuple[str, ...]) -> JsonObject:
    for text in patterns:
        for path, _ in list(Pattern.parse(text).find(body)):
            body = _drop(body, path)
    return body


def _drop(body: JsonObject, path: tuple[str | int, ...]) -> JsonObject:
    first, rest = path[0], path[1:]
    copy = dict(body)
    if not rest:
        copy.pop(str(first), None)
        return copy
    inner = copy.get(str(first))
    if isinstance(inner, dict):
        copy[str(first)] = _drop(inner, rest)
    elif isinstance(inner, list) and isinstance(rest[0], int):
        items = list(inner)
        item = items[rest[0]]
        if isinstance(item, dict) and rest[1:]:
            items[rest[0]] = _drop(item, rest[1:])
        copy[str(first)] = items
    return copy


# What Azure Resource Manager adds to every body: common-types v5, `Resource` and `systemData`.
ARM_NOISE = Fields(volatile=("id", "type", "etag", "systemData", "properties.provisioningState"))
# What the OpenAI data plane adds to every object.
DATA_NOISE = Fields(volatile=("id", "object"))
COMMON = Fields(
    locations=("location",),
    case_insensitive_names=("identity.userAssignedIdentities",),
    # Azure echoes an absent collection as null, {} or not at all.
    defaults=(Default("tags", {}), Default("identity", {"type": "None"})),
)
