"""Look again, right before a write, whether the target is still what the plan was made for.

Between a plan and its steps lie an approval, other steps, sometimes a crash and a night. What
somebody changed meanwhile is left alone and told: it is never overwritten in silence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

from snapshots.asking import Asking
from snapshots.cloud.place import Place, Plane
from snapshots.compare import differences
from snapshots.errors import MissingError, RefusedError
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Kind, Location, Way
from snapshots.model import Json, JsonObject, Key, Resource
from snapshots.secrets import Fingerprints
from snapshots.steps import Action, IdMap, Step, token_of
from snapshots.training import trained_as

# The service sets these of an account by itself while its projects are written.
_BY_ITSELF: Mapping[str, tuple[str, ...]] = {
    "account": ("/properties/defaultProject", "/properties/associatedProjects"),
}
# A write of these never overwrites: Azure gives each its own id, or refuses a second one.
_NEVER_OVERWRITES = frozenset({"role-assignment"})
_SHOWN = 3  # places that are named


class Placing(Protocol):
    """Where requests about a resource go: what a look asks of the writer."""

    def place(self, key: Key) -> Place:
        """Give it. Raises CloudError."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look before a step came to."""

    done: bool = False  # it is as the step shall leave it: nothing has to be sent
    principal: str = ""  # of the identity of what is there


@dataclass(frozen=True, slots=True)
class Looker:
    """Reads single resources again."""

    cloud: Asking
    placing: Placing
    fingerprints: Fingerprints

    def before(self, step: Step, *, was: IdMap, ids: IdMap, unsure: bool) -> Seen:
        """Look before a step. Raises RefusedError when the target is another than planned.

        `was` holds the ids of the moment of planning, `ids` those of now. `unsure` says that an
        earlier run may have written already: then each place may be as planned or as wanted.
        """
        kind = BY_NAME[step.key.kind]
        match step.action:
            case Action.CREATE | Action.COPY:
                return self._free(step, kind, ids, unsure=unsure)
            case Action.UPDATE | Action.DELETE:
                return self._same(step, kind, was, ids, unsure=unsure)
            case _:
                return Seen()

    def _free(self, step: Step, kind: Kind, ids: IdMap, *, unsure: bool) -> Seen:
        assert step.after is not None
        if unsure or kind.random_id or step.key.kind in _NEVER_OVERWRITES:
            return Seen()
        live = self.read(step.after, step.key.name)
        if live is None or kind.is_off(live):
            return Seen()
        differing = self._between(step.after, live, ids)
        if not differing:
            return Seen(True, _principal(live))
        raise _meanwhile(step, "it was made by somebody else since the plan was made", differing)

    def _same(self, step: Step, kind: Kind, was: IdMap, ids: IdMap, *, unsure: bool) -> Seen:
        assert step.before is not None
        if kind.way is Way.UPLOAD:
            return Seen()  # nobody can change one, and it is deleted by its own id
        if unsure and step.key.kind == "agent":
            return Seen()  # versions are added, and the writer looks which of them lack
        id_ = ids.ids.get(step.key, step.before.id)
        live = self.read(step.before, id_ if kind.random_id else step.key.name)
        if live is None:
            if step.action is Action.DELETE:
                return Seen(done=True)
            raise _meanwhile(step, "it was deleted since the plan was made", ())
        away = self._between(step.before, live, was)
        if not away:
            return Seen()
        missing = self._between(step.after, live, ids) if step.after is not None else away
        if not missing:
            return Seen(True, _principal(live))
        if unsure:
            away = [path for path in away if any(_meet(path, other) for other in missing)]
        if away:
            raise _meanwhile(step, "it was changed since the plan was made", away)
        return Seen()

    def since(self, step: Step, made: str, ids: IdMap, *, sure: bool) -> Seen:
        """Look before a step is taken back: is it still as the step left it?

        `made` is its id. Not `sure` says that nobody knows whether the step was done to its end.
        Raises RefusedError when somebody changed it since.
        """
        kind = BY_NAME[step.key.kind]
        if step.action is Action.DELETE:
            return self._still_gone(step, kind, ids)
        if step.after is None or step.key.kind in _NEVER_OVERWRITES or kind.way is Way.UPLOAD:
            return Seen()
        if step.action is Action.SWITCH or (kind.random_id and not made):
            return Seen()
        live = self.read(step.after, made if kind.random_id else step.key.name)
        if live is None:
            return Seen()
        away = self._between(step.after, live, ids)
        if step.key.kind == "agent":  # a version is added, never changed
            grown = _count(live) > _count(step.after.body)
            away = ["/versions"] if grown and step.action is Action.CREATE else []
        elif step.action is Action.UPDATE:
            assert step.before is not None
            back = self._between(step.before, live, ids)
            if not back:
                return Seen(done=True)
            away = [path for path in away if any(_meet(path, other) for other in back)]
        elif not sure:
            return Seen()
        else:
            # The service fills in what a create left out: that is nobody's change.
            said = _places(step.after.body)
            away = [path for path in away if path in said]
        if away:
            raise _since(step, f"it was changed since this record wrote it ({_named(away)})")
        return Seen()

    def _still_gone(self, step: Step, kind: Kind, ids: IdMap) -> Seen:
        """What was deleted is made again only where nobody made another meanwhile."""
        assert step.before is not None
        if kind.random_id or step.key.kind in _NEVER_OVERWRITES:
            return Seen()
        live = self.read(step.before, step.key.name)
        if live is None or kind.is_off(live):
            return Seen()
        if not self._between(step.before, live, ids):
            return Seen(True, _principal(live))
        raise _since(step, "somebody made another since this record deleted it")

    # ---- reading --------------------------------------------------------------------------

    def read(self, resource: Resource, id_: str) -> JsonObject | None:
        """Give the canonical body that a resource has now, None when it is gone."""
        from snapshots.writing import arm_path

        kind = BY_NAME[resource.key.kind]
        assert kind.location is not None
        try:
            place = self.placing.place(resource.key)
            if kind.plane is Plane.ARM:
                path, params = arm_path(resource), {"api-version": kind.api_version}
            else:
                path = f"{kind.location.path}/{quote(id_, safe='')}"
                params = _one(kind.location)
            found = self.cloud.get(place, path, params=params, kind=kind.name).body
            wire: JsonObject = dict(found) if isinstance(found, dict) else {}
            own = str(wire.get("id") or id_)
            folded: JsonObject = {}
            for fold in kind.folds:
                if fold.when(wire):
                    folded[fold.into] = list(
                        self.cloud.list(
                            place,
                            _filled(fold.location, own, kind.named(wire)),
                            params=dict(fold.location.params),
                            kind=kind.name,
                            items=fold.location.items,
                            cursor=fold.location.cursor,
                        )
                    )
        except MissingError:
            return None
        return kind.canonical({**wire, **folded}, self.fingerprints)

    def _between(self, planned: Resource, live: JsonObject, ids: IdMap) -> list[str]:
        """Give the places where the live body is another than the planned one."""
        kind = BY_NAME[planned.key.kind]
        if kind.name == "deployment":
            planned = trained_as(planned, ids)
        named = kind.canonical(_with_ids(planned.body, ids), self.fingerprints)
        lists = {f"{items.path}[]": items.by for items in kind.fields.items}
        own = ("/name", *_BY_ITSELF.get(kind.name, ()))
        return [
            change.path
            for change in differences(named, live, lists)
            if not any(change.path == path or change.path.startswith(path + "/") for path in own)
        ]


def calls_of(key: Key, action: Action) -> int:
    """Give how many requests a look before a step takes, where one is taken."""
    kind = BY_NAME[key.kind]
    match action:
        case Action.UPDATE | Action.DELETE:
            looked = kind.way is not Way.UPLOAD
        case Action.CREATE | Action.COPY:
            # Nothing is there, so that nothing folded is read.
            return int(not kind.random_id and key.kind not in _NEVER_OVERWRITES)
        case _:
            looked = False
    return 1 + len(kind.folds) if looked else 0


def _filled(where: Location, id_: str, name: str) -> str:
    named = where.path.replace("{id}", quote(id_, safe="/()"))
    return named.replace("{name}", quote(name, safe=""))


def _one(where: Location) -> dict[str, str]:
    return {name: value for name, value in where.params.items() if name != "limit"}


def _with_ids(body: JsonObject, ids: IdMap) -> JsonObject:
    """Give a body with ids in place of its tokens, as far as they are known."""

    def walk(value: Json) -> Json:
        if isinstance(value, dict):
            return {name: walk(inner) for name, inner in value.items()}
        if isinstance(value, list):
            return [walk(inner) for inner in value]
        named = token_of(value)
        if named is None or named[0].kind not in BY_NAME:
            return value
        return (ids.principals if named[1] else ids.ids).get(named[0], value)

    return {name: walk(inner) for name, inner in body.items()}


def _places(body: Json, at: str = "") -> set[str]:
    """Give every place that a body names."""
    found = {at}
    if isinstance(body, dict):
        for name, inner in body.items():
            found |= _places(inner, f"{at}/{name.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(body, list):
        for number, inner in enumerate(body):
            found |= _places(inner, f"{at}/{number}")
    return found


def _meet(one: str, two: str) -> bool:
    return one == two or one.startswith(two + "/") or two.startswith(one + "/")


def _named(paths: Iterable[str]) -> str:
    found = list(paths)
    more = f" and {len(found) - _SHOWN} more places" if len(found) > _SHOWN else ""
    return ", ".join(path or "/" for path in found[:_SHOWN]) + more


def _principal(body: JsonObject) -> str:
    identity = body.get("identity")
    found = identity.get("principalId") if isinstance(identity, dict) else None
    return found if isinstance(found, str) else ""


def _count(agent: JsonObject) -> int:
    versions = agent.get("versions")
    return len(versions) if isinstance(versions, list) else 0


def _since(step: Step, what: str) -> RefusedError:
    return RefusedError(
        f"{what}: left alone",
        where=str(step.key),
        remedy="look at it; to lose that change too: `muster undo RECORD --overwrite`",
    )


def _meanwhile(step: Step, what: str, paths: Iterable[str]) -> RefusedError:
    named = _named(paths)
    return RefusedError(
        f"{what}{f' ({named})' if named else ''}: left alone",
        where=str(step.key),
        remedy="look at it; a new restore plans from what is there now",
    )
