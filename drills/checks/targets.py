"""Which resources a check is about, and where they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from drills.model import CheckContext
from snapshots.cloud import Place, Plane
from snapshots.errors import MissingError, NotFoundError
from snapshots.kinds import BY_NAME
from snapshots.kinds.accounts import openai_endpoint
from snapshots.kinds.base import Parent
from snapshots.kinds.projects import project_endpoint
from snapshots.mapping import region_of
from snapshots.model import Gap, Json, JsonObject, Key, Resource
from snapshots.plan import chosen


def within(value: Json, *names: str) -> Json:
    """Give what lies at a path of names, None when it does not."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def text_at(value: Json, *names: str) -> str:
    """Give the text at a path of names, "" when there is none."""
    found = within(value, *names)
    return found if isinstance(found, str) else ""


def objects_at(value: Json, *names: str) -> list[JsonObject]:
    """Give the objects of the list at a path of names."""
    found = within(value, *names)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


@dataclass(frozen=True, slots=True)
class Found:
    """What a subject names: what is there, what should be and is not, and what a gap hides."""

    there: tuple[Resource, ...]
    missing: tuple[Key, ...]
    hidden: tuple[Gap, ...]

    def complaint(self) -> str:
        """Say what is not there, "" when nothing is missing."""
        if not self.missing:
            return ""
        return f"not there: {', '.join(str(key) for key in self.missing)}"


def find(context: CheckContext, subject: str, kinds: frozenset[str], name: str = "") -> Found:
    """Give the resources of some kinds that `subject` names, by key or glob, sorted by key.

    With a mapped snapshot, those of it are what should be there; without, what is there counts.
    `name` narrows to resources of that own name. Raises NotFoundError when nothing fits on either
    side: a check of nothing proves nothing.
    """
    only = (subject,) if subject else ()
    live = context.live()
    should = context.expected.resources if context.expected is not None else live.resources

    def fits(key: Key) -> bool:
        named = not name or key.name.lower() == name.lower()
        return key.kind in kinds and named and chosen(only, key)

    wanted = sorted(key for key in should if fits(key))
    if not wanted:  # a subject may name something of the target that no snapshot knows
        wanted = sorted(key for key in live.resources if fits(key))
    gaps = [gap for gap in live.gaps if kinds & {gap.key.kind, *gap.hides}]
    if not wanted and not gaps:
        what = " or ".join(sorted(kinds))
        raise NotFoundError(
            f"there is no {what} called {name or subject or 'anything'} to check",
            where=subject,
            remedy="give the check a subject that is in the target: a key or a glob of keys",
        )
    absent = [key for key in wanted if key not in live.resources]
    hidden = {gap for key in absent if (gap := live.hidden(key)) is not None}
    if not wanted:
        hidden |= set(gaps)
    return Found(
        tuple(live.resources[key] for key in wanted if key in live.resources),
        tuple(key for key in absent if live.hidden(key) is None),
        tuple(sorted(hidden)),
    )


def account_of(context: CheckContext, key: Key) -> Resource:
    """Give the account that holds a resource. Raises MissingError when it is not there."""
    found = context.live().resources.get(Key("account", key.path[:3]))
    if found is None:
        raise MissingError(f"the account of {key} is not there", where="/".join(key.path[:3]))
    return found


def _parent(context: CheckContext, resource: Resource, region: str) -> Parent:
    kind = BY_NAME[resource.key.kind]
    place = Place(Plane.ARM, subscription=resource.key.path[0], region=region)
    params = dict(kind.location.params) if kind.location is not None else {}
    wire = context.cloud.get(place, resource.id, params=params, kind=f"check:{kind.name}").body
    body: Mapping[str, Json] = wire if isinstance(wire, dict) else {}
    key = resource.key
    return Parent(key.kind, key.path, resource.id, key.name, key.path[0], region, body)


def endpoint(context: CheckContext, account: Resource) -> Place:
    """Give where an account's models answer; one call. Raises MissingError when it has none."""
    region = region_of(account)
    base = openai_endpoint(_parent(context, account, region))
    if not base:
        raise MissingError(f"{account.key} has no endpoint", where=account.id)
    return Place(Plane.OPENAI, base, account.key.path[0], region)


def project_place(context: CheckContext, project: Key) -> Place:
    """Give where a Foundry project answers; one call. Raises MissingError when it does not."""
    found = context.live().resources.get(Key("project", project.path[:4]))
    if found is None:
        raise MissingError(f"{project} is not there", where="/".join(project.path[:4]))
    region = region_of(account_of(context, project))
    base = project_endpoint(_parent(context, found, region))
    if not base:
        raise MissingError(f"{project} has no endpoint", where=found.id)
    return Place(Plane.FOUNDRY, base, project.path[0], region)


def model_of(deployment: Resource) -> tuple[str, str]:
    """Give name and version of the model behind a deployment."""
    model = within(deployment.body, "properties", "model")
    return text_at(model, "name"), text_at(model, "version")


def spelled(resource: Resource) -> str:
    """Give a resource's own name as Azure spells it; keys of Resource Manager are lower case."""
    name = resource.body.get("name")
    return name.rsplit("/", 1)[-1] if isinstance(name, str) and name else resource.key.name
