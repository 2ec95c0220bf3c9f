"""Write one resource as its kind is written: create, update, delete, and find what was begun.

Every method can be repeated: what is there already is adopted or completed, never made twice.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Protocol
from urllib.parse import quote

from snapshots.asking import Asking
from snapshots.cloud.place import Answer, Cursor, OperationProgress, Place, Plane
from snapshots.errors import (
    CloudError,
    ConflictError,
    DamagedAnswerError,
    InputError,
    MissingError,
)
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import SUBSCRIPTION, Kind, Parent, Way, own_name
from snapshots.mapping import missing_versions, put_at, take_at, versions_of
from snapshots.model import Json, JsonObject, Key, Payload, Resource
from snapshots.secrets import Fingerprints
from snapshots.steps import IdMap, token_of
from snapshots.training import JOBS, running, train, trained_as

_V1 = "/openai/v1"
_CLASSIC = {"api-version": "2025-04-01-preview"}
_FOUNDRY = {"api-version": "v1"}
_PATIENCE = 600.0  # seconds until a file or a vector store is processed
_PAUSE = 1.0  # seconds between two looks, and between things of one name
_BATCH = 100  # items of a blocklist in one call
_TWIN = re.compile(r"~[0-9]+$")  # how a snapshot tells things of one name apart


class Cloud(Asking, Protocol):
    """What writing asks of the one way out to Azure."""

    def stream(self, place: Place, path: str, *, params: Mapping[str, str] | None = None, kind: str) -> Iterator[bytes]:  # noqa: E501  # fmt: skip
        """Give the bytes of an answer."""
        ...

    def put(
        self,
        place: Place,
        path: str,
        body: Json,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        on_progress: Callable[[OperationProgress], None] | None = None,
        on_started: Callable[[str], None] | None = None,
    ) -> Answer:
        """Create or replace, and follow it to its end."""
        ...

    def delete(
        self,
        place: Place,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        on_progress: Callable[[OperationProgress], None] | None = None,
        on_started: Callable[[str], None] | None = None,
    ) -> Answer:
        """Delete, and see it through."""
        ...

    def upload(
        self,
        place: Place,
        path: str,
        *,
        fields: Mapping[str, str],
        file: tuple[str, Path | bytes | Iterable[bytes]],
        params: Mapping[str, str] | None = None,
        kind: str,
    ) -> Answer:
        """Send a file as a form."""
        ...

    def resume(
        self,
        place: Place,
        operation_url: str,
        *,
        kind: str,
        resource: str = "",
        params: Mapping[str, str] | None = None,
        on_progress: Callable[[OperationProgress], None] | None = None,
    ) -> Answer:
        """Go on watching a long operation."""
        ...


class Payloads(Protocol):
    """Where bytes come from: what writing asks of the vault."""

    def copy_to(self, sha256: str, path: Path) -> None:
        """Write a payload to a file that is whole and proved, or not at all."""
        ...


class Sleeper(Protocol):
    """What writing asks of the clock."""

    def sleep(self, seconds: float) -> None:
        """Come back after that many seconds."""
        ...


class StoppedError(CloudError):
    """Somebody wanted to stop while Azure was at work for hours: it goes on by itself."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a write brought: the id in the target, and the principal where there is one."""

    id: str = ""
    principal: str = ""
    adopted: bool = False  # it was there already: nothing was made


@dataclass(slots=True)
class Writer:
    """Writes resources into one target. Thread-safe.

    `regions` gives an account's region, so that nothing goes to one that is declared down;
    `ids` gives the ids in the target now.
    """

    cloud: Cloud
    payloads: Payloads
    clock: Sleeper
    ids: Callable[[], IdMap]
    regions: Callable[[Key], str]
    on_operation: Callable[[Key, OperationProgress], None] | None = None
    stopped: Callable[[], bool] = lambda: False  # somebody wants to stop: hours are not waited
    _parents: dict[Key, Parent] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    # ---- where ----------------------------------------------------------------------------

    def place(self, key: Key) -> Place:
        """Where requests about a resource go."""
        kind = BY_NAME[key.kind]
        region = self.regions(Key("account", key.path[:3])) if len(key.path) >= 3 else ""
        if kind.plane is Plane.ARM:
            return Place(Plane.ARM, "", key.subscription, region)
        parent = self._parent(Key(kind.parent, key.path[:-1]))
        base = kind.endpoint(parent)
        if not base:
            raise DamagedAnswerError(
                "Azure names no endpoint for the data of this account",
                where=str(key),
                remedy="look at the account: it may still be in the making",
            )
        return Place(kind.plane, base, key.subscription, region)

    def _parent(self, key: Key) -> Parent:
        """What holds data: read once, kept; its endpoints are noise to everybody else."""
        with self._lock:
            known = self._parents.get(key)
        if known is not None:
            return known
        path, params = self._holder(key)
        region = self.regions(Key("account", key.path[:3]))
        place = Place(Plane.ARM, "", key.subscription, region)
        answer = self.cloud.get(place, path, params=params, kind=key.kind)
        return self._learn(key, answer.body)

    def _holder(self, key: Key) -> tuple[str, Mapping[str, str]]:
        subscription, group, account, *rest = key.path
        path = f"/subscriptions/{subscription}/resourceGroups/{group}"
        path += f"/providers/Microsoft.CognitiveServices/accounts/{account}"
        if key.kind == "project":
            path += f"/projects/{rest[0]}"
        kind = BY_NAME[key.kind]
        assert kind.location is not None
        return path, dict(kind.location.params)

    def _learn(self, key: Key, wire: Json) -> Parent:
        body = wire if isinstance(wire, dict) else {}
        parent = Parent(
            key.kind,
            key.path,
            str(body.get("id") or ""),
            own_name(body),
            key.path[0],
            self.regions(Key("account", key.path[:3])),
            body,
        )
        with self._lock:
            self._parents[key] = parent
        return parent

    def forget(self, key: Key) -> None:
        """Forget what is known of an account or project: it was deleted or made again."""
        with self._lock:
            for known in [k for k in self._parents if k.path[: len(key.path)] == key.path]:
                del self._parents[known]

    # ---- what -----------------------------------------------------------------------------

    def resolved(self, body: JsonObject) -> JsonObject:
        """Give a body with the target's ids in place of its tokens. Raises InputError."""
        ids = self.ids()

        def walk(value: Json) -> Json:
            if isinstance(value, dict):
                return {name: walk(inner) for name, inner in value.items()}
            if isinstance(value, list):
                return [walk(inner) for inner in value]
            named = token_of(value)
            if named is None or named[0].kind not in BY_NAME:
                return value  # somebody's own text, whatever it begins with
            key, principal = named
            found = (ids.principals if principal else ids.ids).get(key)
            if found is None:
                what = "principal" if principal else "id"
                raise InputError(
                    f"the {what} of {key} in the target is not known",
                    remedy="restore it too: its step comes first then",
                )
            return found

        found = walk(body)
        assert isinstance(found, dict)
        return found

    def write(
        self,
        resource: Resource,
        *,
        before: Resource | None,
        secrets: Mapping[str, Json],
        begun: bool = False,
        on_started: Callable[[str], None] | None = None,
    ) -> Written:
        """Make a resource, or make it what it shall be. `resource` is in logical form.

        `before` is what is there, None when nothing is; `begun` says that an earlier run may have
        made it. `secrets` gives what questions were answered with, by pointer.
        """
        kind = BY_NAME[resource.key.kind]
        whole: Json = resource.body
        for pointer, value in secrets.items():
            whole = put_at(whole, pointer, value)
        assert isinstance(whole, dict)
        body = self.resolved(kind.write_shape(whole))
        if resource.key.kind == "deployment":
            body = trained_as(Resource(resource.key, "", body), self.ids()).body
        if before is None and kind.random_id and _TWIN.search(resource.key.name):
            # Things of one name are told apart by the second in which they were made.
            self.clock.sleep(_PAUSE)
        match resource.key.kind:
            case "file" | "project-file":
                return self._file(resource, body, begun=begun)
            case "vector-store" | "project-vector-store":
                return self._vector_store(resource, body, before=before, begun=begun)
            case "assistant":
                return self._assistant(resource, body, before=before, begun=begun)
            case "agent":
                return self._agent(replace(resource, body=self.resolved(whole)), before=before)
            case "rai-blocklist":
                return self._blocklist(resource, body, before=before)
            case _:
                return self._put(resource, _wire(resource.key.kind, body), on_started)

    def _put(
        self, resource: Resource, body: JsonObject, on_started: Callable[[str], None] | None
    ) -> Written:
        kind, path = BY_NAME[resource.key.kind], arm_path(resource)
        try:
            answer = self.cloud.put(
                self.place(resource.key),
                path,
                body,
                params=_params(kind),
                kind=kind.name,
                on_started=on_started,
                on_progress=self._hearing(resource.key),
            )
        except ConflictError as error:
            if error.code != "RoleAssignmentExists":
                raise
            # The principal has the role: given by a run that was cut, or under another name.
            return Written(resource.id, adopted=True)
        return self._had(resource, answer.body)

    def _hearing(self, key: Key) -> Callable[[OperationProgress], None] | None:
        heard = self.on_operation
        return None if heard is None else lambda progress: heard(key, progress)

    def _had(self, resource: Resource, wire: Json) -> Written:
        body = wire if isinstance(wire, dict) else {}
        key = resource.key
        if key.kind in {"account", "project"} and body:
            self._learn(key, body)
        principal = take_at(body, "/identity/principalId")
        return Written(
            str(body.get("id") or resource.id).lower(),
            principal if isinstance(principal, str) else "",
        )

    def undelete(
        self, resource: Resource, on_started: Callable[[str], None] | None = None
    ) -> Written:
        """Take a soft-deleted account back, with what is in it."""
        body: JsonObject = {
            name: resource.body[name]
            for name in ("location", "kind", "sku")
            if name in resource.body
        }
        body["properties"] = {"restore": True}
        return self._put(resource, body, on_started)

    def resumed(self, resource: Resource, operation: str) -> Written:
        """See a long operation through that an earlier run started. Raises CloudError."""
        kind = BY_NAME[resource.key.kind]
        answer = self.cloud.resume(
            self.place(resource.key),
            operation,
            kind=kind.name,
            resource=arm_path(resource),
            params=_params(kind),
            on_progress=self._hearing(resource.key),
        )
        return self._had(resource, answer.body)

    # ---- fine-tuned models ----------------------------------------------------------------

    def rebuild(self, model: Resource) -> Written:
        """Train a model again; give its new name. Takes hours. Raises CloudError, StoppedError."""
        waited = 0.0

        def wait(seconds: float, where: str) -> None:
            if self.stopped():
                raise StoppedError(
                    "stopped while Azure trains: that goes on by itself",
                    where=where,
                    remedy="`muster resume` finds the training and goes on from it",
                )
            nonlocal waited
            if self.on_operation is not None:
                said = OperationProgress(where, "training", None, waited, where)
                self.on_operation(model.key, said)
            self.clock.sleep(seconds)
            waited += seconds

        return Written(train(self.cloud, self.place(model.key), self.resolved(model.body), wait))

    def unbuild(self, model: Resource, made: str) -> None:
        """Take a training back: its model is deleted; the job stays as history."""
        place = self.place(model.key)
        if not made:
            job = running(self.cloud, place, model.body)
            if job is None:
                return
            made = str(job.get("fine_tuned_model") or "")
            if not made:
                path = f"{JOBS}/{job.get('id')}/cancel"
                self.cloud.post(place, path, kind="fine-tuning-job")
                return
        self._gone(place, f"{_V1}/models/{quote(made, safe='')}", {}, "fine-tuned-model")

    # ---- blocklists -----------------------------------------------------------------------

    def _blocklist(
        self, resource: Resource, body: JsonObject, *, before: Resource | None
    ) -> Written:
        """One write for the list, one for each hundred items."""
        kind = BY_NAME["rai-blocklist"]
        place, path = self.place(resource.key), arm_path(resource)
        self.cloud.put(place, path, body, params=_params(kind), kind=kind.name)
        wanted = _items(resource)
        there = _items(before) if before is not None else {}
        add: list[Json] = [item for name, item in wanted.items() if there.get(name) != item]
        drop: list[Json] = [str(there[n]["name"]) for n in there if n not in wanted]
        for start in range(0, len(add), _BATCH):
            batch = add[start : start + _BATCH]
            where = f"{path}/addRaiBlocklistItems"
            # Adding an item again changes nothing: it may be repeated as a read is.
            self.cloud.post(place, where, batch, params=_params(kind), kind=kind.name, reads=True)
        for start in range(0, len(drop), _BATCH):
            where = f"{path}/deleteRaiBlocklistItems"
            batch = drop[start : start + _BATCH]
            self.cloud.post(place, where, batch, params=_params(kind), kind=kind.name, reads=True)
        return Written(resource.id)

    # ---- files ----------------------------------------------------------------------------

    def _file(self, resource: Resource, body: JsonObject, *, begun: bool) -> Written:
        """Upload a payload whose digest was proved while it was written out."""
        place = self.place(resource.key)
        if not resource.payloads:
            raise InputError(
                "the bytes of this file are in no vault",
                where=str(resource.key),
                remedy="upload the original by hand",
            )
        payload = resource.payloads[0]
        name = str(body.get("filename") or resource.key.name)
        if begun:
            found = self._same_file(place, resource.key, name, payload, str(body.get("purpose")))
            if found:
                return Written(found, adopted=True)
        fields = {"purpose": str(body.get("purpose") or "fine-tune")}
        with self._local(payload) as path:
            answer = self.cloud.upload(
                place, f"{_V1}/files", fields=fields, file=(name, path), kind=resource.key.kind
            )
        made = _id_of(answer.body, resource.key)
        self._until_processed(place, made, resource.key)
        return Written(made)

    @contextmanager
    def _local(self, payload: Payload) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="muster-payload-") as folder:
            path = Path(folder) / "content"
            self.payloads.copy_to(payload.sha256, path)
            yield path

    def _same_file(self, place: Place, key: Key, name: str, payload: Payload, purpose: str) -> str:
        """Find what an upload whose answer was lost made: same name, size and bytes, new id."""
        known = set(self.ids().ids.values())
        listed = self.cloud.list(
            place,
            f"{_V1}/files",
            params={"limit": "100"},
            kind=key.kind,
            items="data",
            cursor=Cursor.OPENAI_AFTER,
        )
        for wire in listed:
            id_ = str(wire.get("id") or "")
            if (
                wire.get("filename") != name
                or wire.get("bytes") != payload.size
                or wire.get("purpose") != purpose
                or id_ in known
            ):
                continue
            if purpose == "assistants":
                return id_  # Azure does not let it be read: name and size must do
            hasher = hashlib.sha256()
            where = f"{_V1}/files/{quote(id_, safe='')}/content"
            for chunk in self.cloud.stream(place, where, kind=key.kind):
                hasher.update(chunk)
            if hasher.hexdigest() == payload.sha256:
                return id_
        return ""

    def _until_processed(self, place: Place, id_: str, key: Key) -> None:
        """A training file is checked by the service before it can be used."""
        waited = 0.0
        while waited < _PATIENCE:
            path = f"{_V1}/files/{quote(id_, safe='')}"
            answer = self.cloud.get(place, path, kind=key.kind)
            status = answer.body.get("status") if isinstance(answer.body, dict) else None
            if status == "error":
                raise DamagedAnswerError(
                    "Azure refuses the content of this file",
                    where=str(key),
                    remedy="compare it with the vault: `muster verify`",
                )
            if status not in {"pending", "running", "uploaded", "not_ready"}:
                return
            self.clock.sleep(_PAUSE)
            waited += _PAUSE

    def lost(self, resource: Resource) -> str:
        """Give the id of what a create made whose answer nobody heard, "" when it made nothing."""
        try:
            place = self.place(resource.key)
            body = self.resolved(BY_NAME[resource.key.kind].write_shape(resource.body))
            match resource.key.kind:
                case "file" | "project-file" if resource.payloads:
                    name = str(body.get("filename") or resource.key.name)
                    purpose = str(body.get("purpose") or "fine-tune")
                    return self._same_file(place, resource.key, name, resource.payloads[0], purpose)
                case "vector-store" | "project-vector-store":
                    return self._same_named(place, resource, f"{_V1}/vector_stores", {})
                case "assistant":
                    return self._same_named(place, resource, "/openai/assistants", _CLASSIC)
                case _:
                    return ""
        except (MissingError, InputError):
            return ""  # what would hold it is not there, or what it needs never was

    # ---- vector stores --------------------------------------------------------------------

    def _vector_store(
        self, resource: Resource, body: JsonObject, *, before: Resource | None, begun: bool
    ) -> Written:
        place, kind = self.place(resource.key), resource.key.kind
        sent: JsonObject = {
            n: body[n] for n in ("name", "metadata", "expires_after") if body.get(n) is not None
        }
        id_, adopted = (before.id if before is not None else ""), False
        if not id_ and begun:
            id_ = self._same_named(place, resource, f"{_V1}/vector_stores", {})
            adopted = bool(id_)
        if id_:
            where = f"{_V1}/vector_stores/{quote(id_, safe='')}"
            self.cloud.post(place, where, sent, kind=kind, reads=True)
        else:
            answer = self.cloud.post(place, f"{_V1}/vector_stores", sent, kind=kind)
            id_ = _id_of(answer.body, resource.key)
        self._fill(place, id_, resource, there=before is not None or adopted)
        return Written(id_, adopted=adopted)

    def _fill(self, place: Place, store: str, resource: Resource, *, there: bool) -> None:
        """Attach the files a store shall have, and take off the others."""
        wanted: dict[str, JsonObject] = {}
        found = self.resolved({"files": resource.body.get("files", [])})["files"]
        for item in found if isinstance(found, list) else []:
            if isinstance(item, dict):
                wanted[str(item.get("id"))] = item
        where = f"{_V1}/vector_stores/{quote(store, safe='')}/files"
        have: dict[str, JsonObject] = {}
        if there:
            for item in self.cloud.list(
                place,
                where,
                params={"limit": "100"},
                kind=resource.key.kind,
                items="data",
                cursor=Cursor.OPENAI_AFTER,
            ):
                have[str(item.get("id"))] = item
        for id_, item in wanted.items():
            if id_ in have and _attached(have[id_]) == _attached(item):
                continue
            sent: JsonObject = {"file_id": id_}
            if item.get("attributes"):
                sent["attributes"] = item["attributes"]
            if isinstance(item.get("chunking_strategy"), dict):
                sent["chunking_strategy"] = item["chunking_strategy"]
            # Attaching a file again processes it again and makes no second one.
            self.cloud.post(place, where, sent, kind=resource.key.kind, reads=True)
        for id_ in have:
            if id_ not in wanted:
                self._gone(place, f"{where}/{quote(id_, safe='')}", {}, resource.key.kind)

    def _same_named(
        self, place: Place, resource: Resource, path: str, params: Mapping[str, str]
    ) -> str:
        """Find what a create whose answer was lost made: the same name, an id not known before."""
        known = set(self.ids().ids.values())
        name = str(resource.body.get("name") or "")
        for wire in self.cloud.list(
            place,
            path,
            params={**params, "limit": "100"},
            kind=resource.key.kind,
            items="data",
            cursor=Cursor.OPENAI_AFTER,
        ):
            id_ = str(wire.get("id") or "")
            if name and wire.get("name") == name and id_ not in known:
                return id_
        return ""

    # ---- assistants and agents ------------------------------------------------------------

    def _assistant(
        self, resource: Resource, body: JsonObject, *, before: Resource | None, begun: bool
    ) -> Written:
        place, path = self.place(resource.key), "/openai/assistants"
        id_, adopted = (before.id if before is not None else ""), False
        if not id_ and begun:
            id_ = self._same_named(place, resource, path, _CLASSIC)
            adopted = bool(id_)
        sent = dict(body)
        if id_:
            for name in ("tools", "tool_resources", "metadata"):  # absent would mean: as it is
                sent.setdefault(name, [] if name == "tools" else {})
            where = f"{path}/{quote(id_, safe='')}"
            self.cloud.post(place, where, sent, params=_CLASSIC, kind="assistant", reads=True)
            return Written(id_, adopted=adopted)
        answer = self.cloud.post(place, path, sent, params=_CLASSIC, kind="assistant")
        return Written(_id_of(answer.body, resource.key))

    def _agent(self, resource: Resource, *, before: Resource | None) -> Written:
        """Add the versions that lack. What is there is read first: a repetition adds nothing."""
        place, name = self.place(resource.key), resource.key.name
        where = f"/agents/{quote(name, safe='')}/versions"
        kind = BY_NAME["agent"]
        there: list[JsonObject] = []
        try:
            listed = list(
                self.cloud.list(
                    place,
                    where,
                    params={**_FOUNDRY, "limit": "100"},
                    kind="agent",
                    items="data",
                    cursor=Cursor.FOUNDRY_AFTER,
                )
            )
        except MissingError:
            listed = []
        if listed:
            wire: JsonObject = {"name": name, "versions": [*listed]}
            there = versions_of(replace(resource, body=kind.canonical(wire, _SHAPES)))
        # Lists without an order are sorted by what they hold: by the target's ids on both sides.
        whole = kind.canonical(resource.body, _SHAPES)
        wanted = versions_of(replace(resource, body=whole))
        sent = versions_of(resource)
        added = missing_versions(there, wanted)
        for version in sent[len(sent) - len(added) :]:
            body = {k: v for k, v in version.items() if k in _VERSION}
            self.cloud.post(place, where, body, params=_FOUNDRY, kind="agent")
        return Written(name, adopted=not added and before is None)

    # ---- deletion -------------------------------------------------------------------------

    def delete(
        self,
        resource: Resource,
        id_: str,
        *,
        on_started: Callable[[str], None] | None = None,
    ) -> None:
        """Delete what is there under that id; nothing there is as good."""
        kind, place = BY_NAME[resource.key.kind], self.place(resource.key)
        params = _params(kind)
        if kind.off:
            with suppress(MissingError):  # what holds it is gone
                self.cloud.put(
                    place, arm_path(resource), {**kind.off}, params=params, kind=kind.name
                )
            return
        match resource.key.kind:
            case "file" | "project-file" | "vector-store" | "project-vector-store":
                what = "files" if kind.way is Way.UPLOAD else "vector_stores"
                path, params = f"{_V1}/{what}/{quote(id_, safe='')}", {}
            case "assistant":
                path, params = f"/openai/assistants/{quote(id_, safe='')}", _CLASSIC
            case "agent":
                path, params = f"/agents/{quote(resource.key.name, safe='')}", _FOUNDRY
            case _:
                path = arm_path(resource)
        self._gone(place, path, params, kind.name, on_started)
        if resource.key.kind in {"account", "project"}:
            self.forget(resource.key)

    def _gone(
        self,
        place: Place,
        path: str,
        params: Mapping[str, str],
        kind: str,
        on_started: Callable[[str], None] | None = None,
    ) -> None:
        try:
            self.cloud.delete(place, path, params=params, kind=kind, on_started=on_started)
        except MissingError:
            return

    def purge(self, account: Resource, region: str) -> None:
        """Remove a soft-deleted account for good, so that its name is free again."""
        subscription, group, name = account.key.path[:3]
        path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
        path += f"/locations/{region}/resourceGroups/{group}/deletedAccounts/{name}"
        place = Place(Plane.ARM, "", subscription, region)
        params = _params(BY_NAME["account"])
        for last in (False, False, True):
            try:
                self._gone(place, path, params, "account")
            except ConflictError:
                if last:
                    raise
                self.clock.sleep(_PAUSE)
            else:
                return

    def held_by(self, account: Resource) -> tuple[str, ...]:
        """Give the deployments and projects in an account: what goes with it when it is deleted."""
        found: list[str] = []
        for kind in ("deployment", "project"):
            where, params = f"{arm_path(account)}/{kind}s", _params(BY_NAME[kind])
            try:
                listed = list(
                    self.cloud.list(self.place(account.key), where, params=params, kind=kind)
                )
            except MissingError:
                continue
            found += [f"{kind} {own_name(wire)}" for wire in listed]
        return tuple(found)

    def group_is_empty(self, group: Resource) -> bool:
        """Whether nothing is in a resource group any more."""
        subscription, name = group.key.path[:2]
        path = f"/subscriptions/{subscription}/resourceGroups/{name}/resources"
        place = Place(Plane.ARM, "", subscription, "")
        found = self.cloud.list(
            place, path, params=_params(BY_NAME["resource-group"]), kind="resource-group"
        )
        return next(iter(found), None) is None


# Only the shape of bodies that are compared on the spot: these fingerprints go nowhere.
_SHAPES = Fingerprints(b"\0" * 32)
_VERSION = ("definition", "description", "metadata", "draft")


def arm_path(resource: Resource) -> str:
    """Give the URL path of an ARM resource, its own name spelled as Azure spelled it."""
    path = resource.id
    name = resource.body.get("name")
    if isinstance(name, str) and name:
        own = name.rsplit("/", 1)[-1]
        head, _, tail = path.rpartition("/")
        if tail.lower() == own.lower():
            path = f"{head}/{own}"
    return quote(path, safe="/-._~!$&'()*+,;=:@")


def _params(kind: Kind) -> dict[str, str]:
    return {"api-version": kind.api_version} if kind.api_version else {}


def _wire(kind: str, body: JsonObject) -> JsonObject:
    """Leave out what the API refuses in a write although it shows it."""
    found = body.get("properties")
    if kind == "role-assignment" and isinstance(found, dict):
        return {"properties": {k: v for k, v in found.items() if k != "scope"}}
    if kind == "lock" and isinstance(found, dict):
        return {"properties": found}
    return body


def _items(blocklist: Resource) -> dict[str, JsonObject]:
    found = blocklist.body.get("items")
    items = [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []
    return {str(item.get("name")).lower(): item for item in items}


def _attached(item: JsonObject) -> tuple[object, object]:
    return item.get("attributes") or {}, item.get("chunking_strategy")


def _id_of(wire: Json, key: Key) -> str:
    found = wire.get("id") if isinstance(wire, dict) else None
    if not isinstance(found, str) or not found:
        raise DamagedAnswerError(
            "the answer to a create has no id",
            where=str(key),
            remedy="resume the record: what was made is found by its name",
        )
    return found


def holder_of(key: Key) -> Key | None:
    """Give the resource that holds another, None for what lies in a subscription itself."""
    kind = BY_NAME[key.kind]
    if kind.parent != SUBSCRIPTION:
        return Key(kind.parent, key.path[:-1])
    return None
