"""What a drill leaves behind, how it is taken away, and the proof that nothing is left."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from drills.model import CleanUp, CleanUpState
from drills.verbs import Equipment
from snapshots.cloud import Place, Plane
from snapshots.errors import CloudError, DeniedError, MissingError, MusterError
from snapshots.model import Json, JsonObject

GROUPS = {"api-version": "2021-04-01"}
ACCOUNTS = {"api-version": "2025-09-01"}
TAG = "muster-drill"
EXPIRES = "muster-drill-expires"
_KIND = "drill"


def text(document: JsonObject, name: str) -> str:
    """Give a text of a document, "" when there is none."""
    value = document.get(name)
    return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class OwnGroup:
    """A resource group that is the drill's own."""

    subscription: str
    name: str
    region: str
    drill: str  # id of the run: the tag that says whose it is

    @property
    def path(self) -> str:
        """Its ARM id."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.name}"

    def document(self) -> JsonObject:
        """What the journal keeps of it."""
        return {
            "undo": "group",
            "subscription": self.subscription,
            "name": self.name,
            "region": self.region,
            "drill": self.drill,
        }

    def make(self, equipment: Equipment, limit: float) -> None:
        """Create it, tagged with whose it is and until when it may live."""
        until = equipment.clock.now() + timedelta(seconds=limit)
        equipment.cloud.put(
            self.place(),
            self.path,
            {
                "location": self.region,
                "tags": {TAG: self.drill, EXPIRES: until.strftime("%Y-%m-%dT%H:%M:%SZ")},
            },
            params=GROUPS,
            kind=_KIND,
        )

    def place(self) -> Place:
        """Where its requests go."""
        return Place(Plane.ARM, subscription=self.subscription, region=self.region)

    def deleted(self, equipment: Equipment) -> list[JsonObject]:
        """List the soft-deleted accounts that lay in it."""
        path = f"/subscriptions/{self.subscription}/providers/Microsoft.CognitiveServices"
        found = equipment.cloud.list(
            self.place(), f"{path}/deletedAccounts", params=ACCOUNTS, kind=_KIND
        )
        mark = f"/resourcegroups/{self.name}/".lower()
        return [account for account in found if mark in text(account, "id").lower()]


def expired(equipment: Equipment) -> list[OwnGroup]:
    """Give the groups of drills whose time is over, of whatever machine: their journal may be lost.

    Half an hour is left to a drill that is cleaning up.
    """
    now = equipment.clock.now() - timedelta(minutes=30)
    found: list[OwnGroup] = []
    for subscription in equipment.subscriptions or (equipment.subscription,):
        path = f"/subscriptions/{subscription}/resourceGroups"
        place = Place(Plane.ARM, subscription=subscription)
        for group in equipment.cloud.list(place, path, params=GROUPS, kind=_KIND):
            name, tags = text(group, "name"), group.get("tags")
            if not name.startswith("muster-drill-") or not isinstance(tags, dict):
                continue
            try:
                until = datetime.fromisoformat(text(tags, EXPIRES))
            except ValueError:
                continue
            if until.tzinfo is not None and until < now and text(tags, TAG):
                found.append(OwnGroup(subscription, name, text(group, "location"), text(tags, TAG)))
    return found


class Sweeper:
    """Takes away what a run journal says may be there. Doing it twice is doing it once."""

    def __init__(self, equipment: Equipment) -> None:
        self._equipment = equipment
        self._removed: list[str] = []
        self._left: list[str] = []
        self._proof: list[str] = []
        self._unknown = False

    def sweep(self, undo: Sequence[JsonObject]) -> CleanUp:
        """Undo everything, last first, go on after a failure, then look whether it is gone."""
        begun = self._equipment.clock.now()
        # What is broken on purpose is mended first: it would stand in the way of all the rest.
        broken = [item for item in reversed(undo) if item.get("undo") in ("fault", "control")]
        rest = [item for item in reversed(undo) if item not in broken]
        for item in (*broken, *rest):
            try:
                self._take_away(item)
            except CloudError as error:
                self._failed(item, error)
            except MusterError as error:
                self._failed(item, error)
            except OSError as error:
                self._left.append(f"{told(item)}: {error.strerror or error}")
        state = CleanUpState.CLEAN
        if self._unknown:
            state = CleanUpState.UNKNOWN
        if self._left:
            state = CleanUpState.LEFT
        return CleanUp(
            state=state,
            removed=tuple(self._removed),
            left=tuple(self._left),
            proof=tuple(self._proof),
            seconds=(self._equipment.clock.now() - begun).total_seconds(),
        )

    def _failed(self, item: JsonObject, error: MusterError) -> None:
        self._unknown = True
        self._left.append(f"{told(item)}: {error.what}")

    def _take_away(self, item: JsonObject) -> None:
        match item.get("undo"):
            case "group":
                self._group(
                    OwnGroup(*(text(item, n) for n in ("subscription", "name", "region", "drill")))
                )
            case "patch":
                self._patch(item)
            case "file":
                self._file(item)
            case "run":
                self._run(item)
            case "fault":
                self._fault(text(item, "id"))
            case "control":
                self._control(text(item, "call"), item.get("body"))
            case "record" | "models":
                self._back(item)
            case other:
                self._left.append(f"an entry of the journal that is not known: {other}")

    def _group(self, group: OwnGroup) -> None:
        cloud, place = self._equipment.cloud, group.place()
        try:
            body = cloud.get(place, group.path, params=GROUPS, kind=_KIND).body
        except MissingError:
            body = None
        except DeniedError:
            # Azure answers 403 for a group that is not there when the right was given below it.
            body = {}
        if isinstance(body, dict):
            tags = body.get("tags")
            if not isinstance(tags, dict) or tags.get(TAG) != group.drill:
                self._left.append(f"{group.path}: its tag says that it is not this drill's")
                return
            cloud.delete(place, group.path, params=GROUPS, kind=_KIND)
            self._removed.append(group.path)
        for account in group.deleted(self._equipment):
            path = text(account, "id")
            cloud.delete(place, path, params=ACCOUNTS, kind=_KIND)
            self._removed.append(f"{path} (purged)")
        self._prove(group)

    def _prove(self, group: OwnGroup) -> None:
        try:
            self._equipment.cloud.get(group.place(), group.path, params=GROUPS, kind=_KIND)
        except MissingError:
            self._proof.append(f"{group.path} is not there (404): nothing in it is billed")
        else:
            self._left.append(f"{group.path} is still there")
        still = group.deleted(self._equipment)
        self._left += [f"{text(a, 'id')} is not purged, and may be billed" for a in still]
        if not still:
            self._proof.append(f"no soft-deleted account of {group.name} is held or billed")

    def _patch(self, item: JsonObject) -> None:
        path, before, touched = text(item, "resource"), item.get("before"), item.get("touched")
        version = {"api-version": text(item, "api_version")}
        if not isinstance(before, dict) or not isinstance(touched, dict):
            self._left.append(f"{path}: the journal does not say what it was")
            return
        cloud, place = self._equipment.cloud, arm_place(path)
        now = cloud.get(place, path, params=version, kind=_KIND).body
        if same_at(now, before, touched):
            self._proof.append(f"{path} is as it was")
            return
        back = inverse(before, touched)
        try:
            cloud.patch(place, path, back, params=version, kind=_KIND)
        except CloudError as error:
            if error.status not in (400, 404, 405, 501):
                raise
        if not same_at(
            cloud.get(place, path, params=version, kind=_KIND).body, before, touched
        ):  # what was added is not taken away by a merge everywhere: put the whole back
            cloud.put(place, path, writable(before), params=version, kind=_KIND)
        self._removed.append(f"the switch of {path}")
        if same_at(cloud.get(place, path, params=version, kind=_KIND).body, before, touched):
            self._proof.append(f"{path} is as it was")
        else:
            self._left.append(f"{path} is not as it was")

    def _file(self, item: JsonObject) -> None:
        path, content = Path(text(item, "path")), item.get("content")
        before = base64.b64decode(content) if isinstance(content, str) else None
        if before is not None:
            write_file(path, before)
            self._removed.append(f"the switch of {path.name}")
        elif path.exists():
            path.unlink()
            self._removed.append(str(path.name))
        # Read again: what was written may have gone elsewhere, and others write here, too.
        now = path.read_bytes() if path.exists() else None
        if now == before:
            self._proof.append(f"{path.name} is as it was")
        else:
            self._left.append(f"{path.name} is not as it was")

    def _run(self, item: JsonObject) -> None:
        command = item.get("command")
        words = [str(word) for word in command] if isinstance(command, list) else []
        limit = item.get("limit")
        seconds = float(limit) if isinstance(limit, int | float) else 60.0
        code, detail = run_command(words, seconds, self._equipment.home)
        if code == 0:
            self._removed.append(f"undone by {words[0]}")
            self._proof.append(f"{words[0]} says so")
        else:
            self._left.append(f"{words[0]}: {detail}")

    def _back(self, item: JsonObject) -> None:
        found = self._equipment.verbs.take_back(item)
        self._removed += found.removed
        self._left += found.left
        self._proof += found.proof
        self._unknown = self._unknown or found.unknown

    def _control(self, call: str, body: Json) -> None:
        if self._equipment.faults is None:
            self._left.append(f"{call}: the sandbox's control API was not given (--sandbox)")
            return
        self._equipment.faults.control(call, body if isinstance(body, dict) else {})
        self._removed.append(f"{call} of the sandbox, by its counterpart")

    def _fault(self, id_: str) -> None:
        if self._equipment.faults is None:
            self._left.append(f"fault {id_}: the sandbox's control API was not given (--sandbox)")
            return
        self._equipment.faults.remove(id_)
        self._removed.append(f"fault {id_}")
        if id_ in self._equipment.faults.broken():
            self._left.append(f"fault {id_} is still there")
        else:
            self._proof.append(f"fault {id_} is mended: the sandbox has it no more")


def told(item: JsonObject) -> str:
    """Give what an entry of the journal is about, in a word."""
    for name in ("resource", "path", "name", "id", "record", "account", "call"):
        if text(item, name):
            return text(item, name)
    return str(item.get("undo"))


def arm_place(path: str) -> Place:
    """Say where a request for an ARM id goes."""
    parts = path.strip("/").split("/")
    known = len(parts) > 1 and parts[0].lower() == "subscriptions"
    return Place(Plane.ARM, subscription=parts[1] if known else "")


def inverse(before: Json, touched: Json) -> Json:
    """Give the merge that takes `touched` back: what was there before, null where nothing was."""
    if not isinstance(touched, dict) or not isinstance(before, dict):
        return before
    return {name: inverse(before.get(name), value) for name, value in touched.items()}


def same_at(now: Json, before: Json, touched: Json) -> bool:
    """Whether two bodies agree wherever `touched` has something."""
    if isinstance(touched, dict) and isinstance(before, dict):
        return isinstance(now, dict) and all(
            same_at(now.get(n), before.get(n), value) for n, value in touched.items()
        )
    return now == before


def writable(body: JsonObject) -> JsonObject:
    """Give a body as a PUT takes it: without what ARM says about it."""
    return {n: v for n, v in body.items() if n not in ("id", "name", "type", "etag", "systemData")}


def write_file(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    with fresh.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)


def run_command(command: Sequence[str], limit: float, folder: Path) -> tuple[int, str]:
    """Run a command without a shell; give its exit code (-1: not run) and one line about it.

    What it prints is not kept: it may hold anything.
    """
    try:
        done = subprocess.run(
            list(command),
            cwd=folder,
            timeout=limit,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return -1, f"not over after {limit:g} s: stopped"
    except OSError as error:
        return -1, f"it cannot be started: {error.strerror or error}"
    return done.returncode, f"exit {done.returncode}"
