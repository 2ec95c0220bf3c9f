"""Put a snapshot into the names, places and sizes of a target, and say each thing that differs.

Three passes. `logical` replaces ids that Azure gives anew by tokens that name the resource.
`translate` applies a Mapping: keys, ids and bodies, each substitution listed. `adopt` settles what
only the target knows: a subdomain that is taken already, the history of an agent.
"""

from __future__ import annotations

import re
import uuid
from collections import abc
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from snapshots.cloud.place import Plane
from snapshots.errors import InputError
from snapshots.kinds import BY_NAME, order
from snapshots.kinds.base import By
from snapshots.kinds.fields import location
from snapshots.kinds.links import Links, principal_of
from snapshots.kinds.openai import is_fine_tuned
from snapshots.model import Json, JsonObject, Key, Resource, Snapshot, canonical
from snapshots.steps import AccountPlace, Mapping, SkuRule, Substitution, token, token_of

_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/\s\"']+)"
    r"(?:/resourcegroups/(?P<group>[^/\s\"']+)"
    r"(?:/providers/microsoft\.cognitiveservices/accounts/(?P<account>[^/\s\"'?]+))?)?",
    re.IGNORECASE,
)
_GUIDS = uuid.UUID("6f0f7b1e-2f5c-4f0e-9d0a-5a3c9a6f1c11")  # a name space of our own
_LONGEST_NAME = 64
_RANKS = order()


# -------------------------------------------------------------------------------------- logical


def logical(resources: abc.Mapping[Key, Resource]) -> dict[Key, Resource]:
    """Give the resources with every id that a target gives anew replaced by a token.

    Two estates that differ in such ids alone are equal afterwards. Pure.
    """
    found = dict(resources)
    edits: dict[Key, list[tuple[str, str]]] = {}
    for link in Links(resources).all:
        if link.target is None:
            continue
        kind = BY_NAME.get(link.target.kind)
        if link.reference.by is By.PRINCIPAL:
            edits.setdefault(link.source, []).append(
                (link.path, token(link.target, principal=True))
            )
        elif link.reference.by is By.ID and kind is not None and kind.plane is not Plane.ARM:
            edits.setdefault(link.source, []).append((link.path, token(link.target)))
    for key, resource in resources.items():
        if principal_of(resource) is not None:
            edits.setdefault(key, []).append(("/identity/principalId", token(key, principal=True)))
    for key, places in edits.items():
        body: Json = found[key].body
        for pointer, value in places:
            body = put_at(body, pointer, value)
        if isinstance(body, dict):
            found[key] = replace(found[key], body=body)
    return found


def put_at(body: Json, pointer: str, value: Json) -> Json:
    """Give a copy of `body` with `value` at an RFC 6901 pointer; parents that lack are made."""
    steps = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    return _put(body, steps, value)


def _put(body: Json, steps: list[str], value: Json) -> Json:
    if not steps:
        return value
    first, rest = steps[0], steps[1:]
    if isinstance(body, list) and first.isdecimal() and int(first) < len(body):
        copy = list(body)
        copy[int(first)] = _put(copy[int(first)], rest, value)
        return copy
    inner = body if isinstance(body, dict) else {}
    return {**inner, first: _put(inner.get(first), rest, value)}


def take_at(body: Json, pointer: str) -> Json:
    """Give what is at an RFC 6901 pointer, None when nothing is."""
    for part in pointer.split("/")[1:]:
        step = part.replace("~1", "/").replace("~0", "~")
        if isinstance(body, dict):
            body = body.get(step)
        elif isinstance(body, list) and step.isdecimal() and int(step) < len(body):
            body = body[int(step)]
        else:
            return None
    return body


# ------------------------------------------------------------------------------------ translate


@dataclass(frozen=True, slots=True)
class Translated:
    """A snapshot in the target's terms: its resources are in logical form."""

    snapshot: Snapshot
    substitutions: tuple[Substitution, ...]
    keys: abc.Mapping[Key, Key]  # key in the snapshot -> key in the target
    sources: abc.Mapping[Key, Resource]  # key in the target -> the resource as it was taken


@dataclass(slots=True)
class _Places:
    """Where each account of a snapshot goes."""

    mapping: Mapping
    accounts: dict[tuple[str, str, str], tuple[str, str, str]] = field(default_factory=dict)
    regions: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)
    # before and after, "" when the account has none
    subdomains: dict[tuple[str, str, str], tuple[str, str]] = field(default_factory=dict)
    groups: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    spelled: dict[tuple[str, str, str], str] = field(default_factory=dict)


def region_of(resource: Resource) -> str:
    """Give the region of an account or group, "" when it has none."""
    where = resource.body.get("location")
    return location(where) if isinstance(where, str) else ""


def place_of(mapping: Mapping, account: Resource) -> tuple[AccountPlace, str]:
    """Say how an account is called and where it lies in the target, and its region there."""
    subscription, group, name = account.key.path[:3]
    region = region_of(account)
    to_region = {location(k): location(v) for k, v in mapping.regions.items()}.get(region, region)
    spelled = account.body.get("name")
    spelled = spelled if isinstance(spelled, str) and spelled else name
    to_subscription = _lowered(mapping.subscriptions).get(subscription, subscription)
    to_group = _lowered(mapping.resource_groups).get(group, "")
    asked = {k.lower(): v for k, v in mapping.accounts.items()}.get(name)
    moved = to_region != region
    to_name = spelled
    if asked is not None and asked.name:
        to_name = asked.name
    elif moved:
        to_name = f"{spelled[: _LONGEST_NAME - len(to_region) - 1]}-{to_region}"
    subscription_there = (asked.subscription if asked else "") or to_subscription
    group_there = (asked.resource_group if asked else "") or to_group or group
    domain = _subdomain(account)
    subdomain = ""
    if domain:
        elsewhere = (subscription_there.lower(), group_there.lower(), to_name.lower()) != (
            subscription,
            group,
            name,
        )
        if asked is not None and asked.subdomain:
            subdomain = asked.subdomain.lower()
        elif not elsewhere:
            subdomain = domain
        elif domain.lower() == name and to_name.lower() != name:
            subdomain = to_name.lower()
        elif moved:
            subdomain = f"{domain[: _LONGEST_NAME - len(to_region) - 2]}-{to_region}"
        else:
            subdomain = domain
    return AccountPlace(to_name, group_there, subscription_there.lower(), subdomain), to_region


def _subdomain(account: Resource) -> str:
    found = account.body.get("properties")
    domain = found.get("customSubDomainName") if isinstance(found, dict) else None
    return domain if isinstance(domain, str) else ""


def _lowered(table: abc.Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in table.items()}


def _places(snapshot: Snapshot, mapping: Mapping) -> _Places:
    places = _Places(mapping)
    taken: dict[tuple[str, str, str], Key] = {}
    for key, resource in sorted(snapshot.resources.items()):
        if key.kind != "account":
            continue
        here = (key.path[0], key.path[1], key.path[2])
        place, region = place_of(mapping, resource)
        there = (place.subscription, place.resource_group.lower(), place.name.lower())
        if there in taken:
            raise InputError(
                f"two accounts would become one: {taken[there]} and {key}",
                where="/".join(there),
                remedy="give each its own name in [estate.pair.accounts]",
            )
        taken[there] = key
        places.accounts[here] = there
        places.regions[here] = (region_of(resource), region)
        places.subdomains[here] = (_subdomain(resource), place.subdomain)
        places.spelled[here] = place.name
        places.groups.setdefault(here[:2], there[:2])
    return places


def _where(places: _Places, path: tuple[str, ...]) -> tuple[str, ...]:
    """Give the path of a key in the target."""
    mapping = places.mapping
    if len(path) >= 3 and (path[0], path[1], path[2]) in places.accounts:
        return (*places.accounts[path[0], path[1], path[2]], *path[3:])
    if len(path) >= 2 and "/" not in path[1]:
        known = places.groups.get((path[0], path[1]))
        if known is None:
            known = (
                _lowered(mapping.subscriptions).get(path[0], path[0]).lower(),
                _lowered(mapping.resource_groups).get(path[1], path[1]).lower(),
            )
        return (*known, *path[2:])
    if path:
        return (_lowered(mapping.subscriptions).get(path[0], path[0]).lower(), *path[1:])
    return path


def translate(snapshot: Snapshot, mapping: Mapping) -> Translated:
    """Give a snapshot in the names, places and sizes of the target, bodies in logical form.

    Every difference that the Mapping makes is a Substitution. Raises InputError when two accounts
    would become one. Pure.
    """
    places = _places(snapshot, mapping)
    made: dict[Key, Resource] = {}
    keys: dict[Key, Key] = {}
    listed: list[Substitution] = []
    for key in snapshot.resources:
        keys[key] = Key(key.kind, _where(places, key.path))
    bodies = logical(snapshot.resources)
    for key, resource in sorted(snapshot.resources.items()):
        to = keys[key]
        writer = _Writer(places, keys, to)
        body = writer.body(bodies[key])
        id_ = writer.id(resource.id)
        if to.kind == "role-assignment" and to.path[:-1] != key.path[:-1]:
            # A role assignment's GUID is unique in a tenant: the one at the source keeps its own.
            fresh = str(uuid.uuid5(_GUIDS, "/".join(to.path)))
            writer.note("", key.name, fresh, "a role assignment's name is unique in the tenant")
            to = Key(to.kind, (*to.path[:-1], fresh))
            keys[key] = to
            id_ = id_[: id_.rfind("/") + 1] + fresh
            body["name"] = fresh
        if to != key and to.kind in {"account", "resource-group"}:
            writer.note("", "/".join(key.path), "/".join(to.path), "named by the mapping")
        if to in made:
            continue  # two groups of the source that become one
        made[to] = Resource(to, id_, body, resource.payloads)
        listed.extend(writer.listed)
    back = {to: snapshot.resources[key] for key, to in sorted(keys.items(), reverse=True)}
    gaps = tuple(
        replace(gap, key=Key(gap.key.kind, _where(places, gap.key.path))) for gap in snapshot.gaps
    )
    stale = {
        Key(key.kind, _where(places, key.path)): resource
        for key, resource in snapshot.stale.items()
    }
    moved = replace(snapshot, resources=made, gaps=gaps, stale=stale)
    return Translated(moved, tuple(sorted(set(listed))), keys, back)


@dataclass(slots=True)
class _Writer:
    """Rewrites one resource, and lists what it changed."""

    places: _Places
    keys: abc.Mapping[Key, Key]
    key: Key  # in the target
    listed: list[Substitution] = field(default_factory=list)

    def note(self, path: str, before: str, after: str, why: str) -> None:
        if before != after:
            self.listed.append(Substitution(self.key, path, before, after, why))

    def id(self, text: str) -> str:
        """Give an ARM id in the target; data plane ids are the target's to give."""
        if not text.startswith("/"):
            return text
        return self._arm(text)[0].lower()

    def _arm(self, text: str) -> tuple[str, bool]:
        changed = False

        def one(found: re.Match[str]) -> str:
            nonlocal changed
            whole = found.group()
            names = tuple(
                part.lower()
                for part in (found["subscription"], found["group"], found["account"])
                if part
            )
            rest = text[found.end() :]
            outside = (
                len(names) == 2
                and rest.lower().startswith("/providers/")
                and not rest.lower().startswith("/providers/microsoft.authorization/")
            )
            if outside:  # a storage account, a subnet: it stays where it is, unless it is named
                return whole
            to = _where(self.places, names)
            if to == names:
                return whole
            if len(names) == 3 and len(to) == 3:
                here = (names[0], names[1], names[2])
                to = (to[0], to[1], self.places.spelled.get(here, to[2]))
            changed = True
            made = f"/subscriptions/{to[0]}"
            if len(to) > 1:
                made += f"/resourceGroups/{to[1]}"
            if len(to) > 2:
                made += f"/providers/Microsoft.CognitiveServices/accounts/{to[2]}"
            return made.lower() if whole == whole.lower() else made

        return _ID.sub(one, text), changed

    def body(self, resource: Resource) -> JsonObject:
        body = dict(resource.body)
        found = self._walk(body, "")
        assert isinstance(found, dict)
        body = found
        match self.key.kind:
            case "account":
                body = self._account(resource, body)
            case "resource-group":
                body = self._group(resource, body)
            case "deployment":
                body = self._deployment(resource, body)
            case "project":
                body = self._located(resource, body)
            case "role-assignment":
                body = self._assignment(body)
            case _:
                pass
        return body

    def _walk(self, value: Json, at: str) -> Json:
        if isinstance(value, dict):
            return {
                self._name(name): self._walk(inner, f"{at}/{_escaped(name)}")
                for name, inner in value.items()
            }
        if isinstance(value, list):
            return [self._walk(inner, f"{at}/{number}") for number, inner in enumerate(value)]
        if isinstance(value, str) and value:
            return self._text(value, at)
        return value

    def _name(self, name: str) -> str:
        """A property's name can be an id: identity.userAssignedIdentities."""
        if not name.startswith("/subscriptions/"):
            return name
        swapped = _lowered(self.places.mapping.resources).get(name.lower())
        if swapped is not None:
            self.note("/identity/userAssignedIdentities", name, swapped, "named by the mapping")
            return swapped.lower()
        return name

    def _text(self, value: str, at: str) -> str:
        named = token_of(value)
        if named is not None:
            key, principal = named
            return token(self.keys.get(key, key), principal=principal)
        mapping = self.places.mapping
        if at in {"/properties/model/source", "/properties/model/sourceAccount"}:
            return value  # the weights are where they are
        if mapping.resources:
            for old, new in mapping.resources.items():
                if value.lower() == old.lower() or value.lower().startswith(old.lower() + "/"):
                    made = new + value[len(old) :]
                    made = made.lower() if value == value.lower() else made
                    self.note(at, value, made, "named by the mapping")
                    return made
        for table, why in ((mapping.keys, "key vault"), (mapping.hosts, "host")):
            made = _swapped(value, table)
            if made != value:
                self.note(at, value, made, f"{why} named by the mapping")
                value = made
        if "/subscriptions/" in value.lower():
            made, changed = self._arm(value)
            if changed:
                self.note(at, value, made, "the account, group or subscription is another")
                value = made
        if "." in value:
            value = self._host(value, at)
        return value

    def _host(self, value: str, at: str) -> str:
        """Put the accounts' new subdomains in, all at once: one's new may be another's old."""
        to = {
            old.lower(): new
            for old, new in self.places.subdomains.values()
            if old and new and old.lower() != new.lower()
        }
        if not to:
            return value
        names = "|".join(re.escape(old) for old in sorted(to, key=len, reverse=True))
        pattern = rf"(?i)(?<![A-Za-z0-9.-])(?:{names})(?=\.[a-z.]*azure\.|\.services\.ai)"
        made = re.sub(pattern, lambda found: to[found.group().lower()], value)
        self.note(at, value, made, "the account's endpoint is another")
        return made

    def _account(self, resource: Resource, body: JsonObject) -> JsonObject:
        here = (resource.key.path[0], resource.key.path[1], resource.key.path[2])
        before, after = self.places.regions[here]
        if after != before:
            self.note("/location", before, after, "the target region")
            body["location"] = after
        name = self.places.spelled[here]
        if body.get("name") != name:
            self.note("/name", str(body.get("name")), name, "named by the mapping")
            body["name"] = name
        found = body.get("properties")
        if isinstance(found, dict) and isinstance(found.get("customSubDomainName"), str):
            old, new = self.places.subdomains[here]
            if old != new:
                why = "a subdomain is unique in the world"
                self.note("/properties/customSubDomainName", old, new, why)
                body["properties"] = {**found, "customSubDomainName": new}
        return body

    def _group(self, resource: Resource, body: JsonObject) -> JsonObject:
        body = self._located(resource, body)
        if self.key.path != resource.key.path:
            self.note("/name", str(body.get("name")), self.key.name, "named by the mapping")
            body["name"] = self.key.name
        return body

    def _located(self, resource: Resource, body: JsonObject) -> JsonObject:
        regions = {location(k): location(v) for k, v in self.places.mapping.regions.items()}
        before = region_of(resource)
        after = regions.get(before, before)
        moved = self.key.path != resource.key.path
        if after != before and moved:
            self.note("/location", before, after, "the target region")
            body["location"] = after
        return body

    def _assignment(self, body: JsonObject) -> JsonObject:
        """Name the role as the target's subscription names it: the GUID is the same everywhere."""
        found = body.get("properties")
        before = found.get("roleDefinitionId") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(before, str):
            return body
        after = role_in(before, self.key.subscription)
        if after == before:
            return body
        why = "a role is known in each subscription under the same GUID"
        self.note("/properties/roleDefinitionId", before, after, why)
        return {**body, "properties": {**found, "roleDefinitionId": after}}

    def _deployment(self, resource: Resource, body: JsonObject) -> JsonObject:
        mapping = self.places.mapping
        sku, found = body.get("sku"), body.get("properties")
        rule = _rule(mapping.skus, resource.key.name, sku)
        if rule is not None and isinstance(sku, dict):
            changed = dict(sku)
            if rule.name and sku.get("name") != rule.name:
                self.note("/sku/name", str(sku.get("name")), rule.name, f"rule for {rule.of}")
                changed["name"] = rule.name
            if rule.capacity is not None and sku.get("capacity") != rule.capacity:
                before = str(sku.get("capacity"))
                self.note("/sku/capacity", before, str(rule.capacity), f"rule for {rule.of}")
                changed["capacity"] = rule.capacity
            body["sku"] = changed
        model = found.get("model") if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(model, dict):
            return body
        name, version = str(model.get("name") or ""), str(model.get("version") or "")
        wanted = mapping.versions.get(f"{name}@{version}") or mapping.versions.get(name)
        if wanted and wanted != version:
            self.note("/properties/model/version", version, wanted, "named by the mapping")
            model = {**model, "version": wanted}
        moved = self.key.path[:3] != resource.key.path[:3]
        if is_fine_tuned(name) and moved and not model.get("source"):
            subscription, group, account = resource.key.path[:3]
            source = (
                f"/subscriptions/{subscription}/resourcegroups/{group}"
                f"/providers/microsoft.cognitiveservices/accounts/{account}"
            )
            if not model.get("sourceAccount"):
                self.note(
                    "/properties/model/source", "", source, "the weights come from the source"
                )
                model = {**model, "source": source}
        body["properties"] = {**found, "model": model}
        return body


def _swapped(value: str, table: abc.Mapping[str, str]) -> str:
    """Put new hosts in the place of old ones, all at once, and only where the whole name stands.

    "kv.vault.azure.net" is not in "old-kv.vault.azure.net", nor in "kv.vault.azure.net.example".
    """
    to = {old.rstrip("/").lower(): new.rstrip("/") for old, new in table.items() if old}
    if not to:
        return value
    names = "|".join(re.escape(old) for old in sorted(to, key=len, reverse=True))
    pattern = rf"(?i)(?<![A-Za-z0-9.-])(?:{names})(?![A-Za-z0-9-]|\.[A-Za-z0-9])"
    return re.sub(pattern, lambda found: to[found.group().lower()], value)


def role_in(definition: str, subscription: str) -> str:
    """Give a role definition's id as a subscription has it; one of the tenant stays as it is.

    A built-in role's GUID is the same everywhere; a custom role is one object of the tenant that
    each of its assignableScopes shows (https://learn.microsoft.com/azure/role-based-access-control
    /role-definitions, 2026-10).
    """
    return re.sub(r"(?i)^(/subscriptions/)[^/]+(?=/)", rf"\g<1>{subscription}", definition)


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def _rule(rules: Iterable[SkuRule], deployment: str, sku: Json) -> SkuRule | None:
    """A rule for the deployment's own name goes before one for its sku."""
    name = str(sku.get("name") or "") if isinstance(sku, dict) else ""
    by = {rule.of.lower(): rule for rule in rules}
    return by.get(deployment.lower()) or by.get(name.lower())


# ---------------------------------------------------------------------------------------- adopt


def adopt(
    wanted: abc.Mapping[Key, Resource],
    there: abc.Mapping[Key, Resource],
    moved: abc.Set[Key] = frozenset(),
) -> tuple[dict[Key, Resource], tuple[Substitution, ...]]:
    """Settle what only the target knows; both sides in logical form.

    An account keeps the subdomain and a group the location that it has: neither can be changed.
    An agent whose history holds the wanted versions in order and ends with the same one is as
    wanted: versions are numbered by the service and never taken back. A role that the same
    principal holds already at the same scope is held, whatever its assignment is called. A group
    that others share (`moved` has it under another name) stays as it is. Pure.
    """
    found = dict(wanted)
    listed: list[Substitution] = []
    roles = {_role(r): r for key, r in there.items() if key.kind == "role-assignment"}
    for key, resource in wanted.items():
        other = there.get(key)
        if other is None:
            if key.kind == "role-assignment":
                held = roles.setdefault(_role(resource), resource)
                if held is resource:
                    continue
                # Azure refuses a second one, whatever it is called.
                del found[key]
                found.setdefault(held.key, held)
                why = "the same principal has the same role there already"
                listed.append(Substitution(held.key, "", key.name, held.key.name, why))
            elif key.kind == "agent":
                found[key] = _renumbered(resource, listed)
            continue
        match key.kind:
            case "account":
                found[key] = _same_subdomain(resource, other, listed)
            case "resource-group":
                before, after = region_of(resource), region_of(other)
                if key in moved:
                    found[key] = other
                elif before != after:
                    why = "the group is there already, and a group does not move"
                    listed.append(Substitution(key, "/location", before, after, why))
                    found[key] = replace(resource, body={**resource.body, "location": after})
            case "agent":
                if _holds(versions_of(other), versions_of(resource)):
                    found[key] = replace(
                        resource, body={**resource.body, "versions": other.body.get("versions", [])}
                    )
            case "deployment":
                found[key] = _same_weights(resource, other, listed)
            case _:
                pass
    return found, tuple(listed)


_TWIN = re.compile(r"~[0-9]+$")


def twins(
    wanted: abc.Mapping[Key, Resource], target: abc.Mapping[Key, Resource]
) -> dict[Key, Resource]:
    """Give the target with things of one name under the keys that `wanted` has them under.

    What has no name of its own (files, vector stores, assistants) is told apart by age where two
    are called the same, and what was made again is younger. Which is which goes by what is in
    them. `wanted` is in logical form, `target` as it was taken. Pure.
    """
    found = dict(target)
    for kind in sorted((k for k in BY_NAME.values() if k.random_id), key=lambda k: _RANKS[k.name]):
        groups: dict[tuple[tuple[str, ...], str], tuple[list[Key], list[Key]]] = {}
        for side, resources in enumerate((wanted, found)):
            for key in sorted(resources):
                if key.kind == kind.name:
                    group = (key.path[:-1], _TWIN.sub("", key.name))
                    groups.setdefault(group, ([], []))[side].append(key)
        several = {
            key
            for ours, theirs in groups.values()
            if theirs and len({*ours, *theirs}) > 1
            for key in theirs
        }
        if not several:
            continue
        plain = logical(found)
        for ours, theirs in groups.values():
            if not several.isdisjoint(theirs):
                named = _paired(wanted, plain, ours, theirs)
                moved = {named[key]: replace(found[key], key=named[key]) for key in theirs}
                for key in theirs:
                    del found[key]
                found.update(moved)
    return found


def _paired(
    wanted: abc.Mapping[Key, Resource],
    there: abc.Mapping[Key, Resource],
    ours: list[Key],
    theirs: list[Key],
) -> dict[Key, Key]:
    """Say under which key each of theirs goes: one that holds the same, else its own, else any."""
    found: dict[Key, Key] = {}
    free = list(ours)

    def same(one: Key, two: Key) -> bool:
        return _held(wanted[one]) == _held(there[two])

    for key in [*(k for k in theirs if k in wanted and same(k, k)), *theirs]:
        if key in found:
            continue
        fitting = [k for k in free if same(k, key)]
        if fitting:
            found[key] = key if key in fitting else fitting[0]
            free.remove(found[key])
    for key in theirs:
        if key not in found:
            left = [k for k in [key, *free] if k in free] or [
                k for k in [key, *theirs] if k not in ours and k not in found.values()
            ]
            number = 2
            while not left:
                name = f"{_TWIN.sub('', key.name)}~{number}"
                other = Key(key.kind, (*key.path[:-1], name))
                if other not in ours and other not in found.values():
                    left = [other]
                number += 1
            found[key] = left[0]
            if left[0] in free:
                free.remove(left[0])
    return found


def _held(resource: Resource) -> tuple[object, ...]:
    return canonical(resource.body), tuple((p.name, p.sha256) for p in resource.payloads)


def _role(assignment: Resource) -> tuple[object, ...]:
    """Who holds what where: Azure refuses a second assignment of the same."""
    role = str(take_at(assignment.body, "/properties/roleDefinitionId") or "")
    principal = take_at(assignment.body, "/properties/principalId")
    return assignment.key.path[:-1], str(principal), role.rsplit("/", 1)[-1].lower()


def _same_subdomain(resource: Resource, other: Resource, listed: list[Substitution]) -> Resource:
    before, after = _subdomain(resource), _subdomain(other)
    found = resource.body.get("properties")
    if not after or before == after or not isinstance(found, dict):
        return resource
    why = "the account is there already, and its subdomain cannot be changed"
    listed.append(Substitution(resource.key, "/properties/customSubDomainName", before, after, why))
    properties: JsonObject = {**found, "customSubDomainName": after}
    return replace(resource, body={**resource.body, "properties": properties})


def _same_weights(resource: Resource, other: Resource, listed: list[Substitution]) -> Resource:
    """A fine-tuned model is known by its name wherever its weights came from."""
    mine, theirs = (
        take_at(resource.body, "/properties/model"),
        take_at(other.body, "/properties/model"),
    )
    if not isinstance(mine, dict) or not isinstance(theirs, dict):
        return resource
    if mine.get("name") != theirs.get("name") or not is_fine_tuned(str(mine.get("name"))):
        return resource
    before, after = mine.get("source"), theirs.get("source")
    if before == after:
        return resource
    why = "the same model is deployed already, with its weights from there"
    listed.append(
        Substitution(
            resource.key, "/properties/model/source", str(before or ""), str(after or ""), why
        )
    )
    model = {name: value for name, value in mine.items() if name != "source"}
    if after is not None:
        model["source"] = after
    body = put_at(resource.body, "/properties/model", model)
    return replace(resource, body=body) if isinstance(body, dict) else resource


def versions_of(agent: Resource) -> list[JsonObject]:
    """Give an agent's versions, oldest first, without the number that the service gave."""
    found = agent.body.get("versions")
    versions = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return [{k: v for k, v in item.items() if k != "version"} for item in versions]


def missing_versions(there: list[JsonObject], wanted: list[JsonObject]) -> list[JsonObject]:
    """Give the versions that must be added so that the wanted ones are there, the last one last."""
    have = [canonical(item) for item in there]
    at = 0
    count = 0
    for item in wanted:
        try:
            at = have.index(canonical(item), at) + 1
        except ValueError:
            break
        count += 1
    left = wanted[count:]
    if not left and wanted and have and have[-1] != canonical(wanted[-1]):
        return [wanted[-1]]
    return left


def _holds(there: list[JsonObject], wanted: list[JsonObject]) -> bool:
    return not missing_versions(there, wanted)


def _renumbered(agent: Resource, listed: list[Substitution]) -> Resource:
    """A new agent counts its versions from one."""
    found = agent.body.get("versions")
    if not isinstance(found, list):
        return agent
    made: list[Json] = []
    for number, item in enumerate(found, 1):
        if isinstance(item, dict) and item.get("version") != str(number):
            before = str(item.get("version"))
            path = f"/versions/{number - 1}/version"
            why = "the service numbers the versions of a new agent from 1"
            listed.append(Substitution(agent.key, path, before, str(number), why))
            made.append({**item, "version": str(number)})
        else:
            made.append(item)
    return replace(agent, body={**agent.body, "versions": made})
