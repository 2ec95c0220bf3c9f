"""Vector index counts: stores hold as many finished files as they should, and find in them."""

from __future__ import annotations

from urllib.parse import quote

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.golden import together
from drills.checks.settings import Settings
from drills.checks.state import whole_of
from drills.checks.targets import account_of, endpoint, find, objects_at, project_place, text_at
from drills.checks.targets import within as at
from drills.model import CheckContext
from snapshots.cloud import Cursor, Place
from snapshots.errors import DamagedAnswerError
from snapshots.mapping import logical
from snapshots.model import Json, JsonObject, Key, Resource
from snapshots.plan import recoverable

_STORES = "/openai/v1/vector_stores"


def judged_counts(
    who: str, wanted: int, counts: JsonObject, hits: list[str] | None, probe: str, *, lost: int = 0
) -> Judged:
    """Judge the counts of one store (completed, failed …), and the files that a probe found.

    `lost` of the wanted files cannot come back by Azure's own word: they may be missing.
    """
    done, failed = counts.get("completed"), counts.get("failed")
    full = isinstance(done, int) and wanted - lost <= done <= wanted and not failed
    finds = hits is None or bool(hits)
    words: list[str] = []
    if not full:
        words.append(f"{done} of {wanted} files are indexed, {failed or 0} failed")
    if not finds:
        words.append(f"nothing is found for {probe!r}")
    expected: JsonObject = {"store": who, "files": wanted}
    if lost:
        expected["cannot_come_back"] = lost
    observed: JsonObject = {"counts": counts}
    if hits is not None:
        expected["probe"] = probe
        observed["hits"] = list[Json](hits)
    return verdict(full and finds, expected, observed, f"{who}: {'; '.join(words)}")


class VectorIndexCheck(AskedCheck):
    """Vector stores hold their files, all of them indexed.

    Those of the snapshot, of accounts and of Foundry projects, by the number it says, less what
    Azure never gives back; those of one project also by `files`, a table from name to number, with
    `subject` naming the project. With
    `probe`, a search must find something. Its control is a store that lacks one file.
    """

    KNOWN_AS = "vector-index"
    ABOUT = "Vector stores hold as many indexed files as they should."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.files = settings.numbers("files")
        self.store = settings.text("store")
        self.probe = settings.text("probe")

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Count."""
        if self.files:
            return self._project(context, broken=broken)
        kinds = frozenset({"vector-store", "project-vector-store"})
        found = find(context, self.declaration.subject, kinds, self.store)
        should = context.expected.resources if context.expected is not None else {}
        there = logical(context.live().resources)
        whole = {**whole_of(context, context.live()).resources, **should}
        can = recoverable(whole, there, hidden=context.live().hidden).wanted
        judged: list[Judged] = []
        if found.missing and not broken:
            judged.append(verdict(False, "vector stores", None, found.complaint()))
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        for store in found.there:
            if store.key.kind == "project-vector-store":
                place = project_place(context, Key("project", store.key.within))
            else:
                place = endpoint(context, account_of(context, store.key))
            wanted = _files_in(should.get(store.key, store))
            least = _files_in(can.get(store.key, should.get(store.key, store)))
            files = (wanted, wanted - least)
            judged.append(self._one(context, place, store.id, str(store.key), files, broken=broken))
        return together(judged)

    def _project(self, context: CheckContext, *, broken: bool) -> Judged:
        found = find(context, self.declaration.subject, frozenset({"project"}))
        if found.missing:
            return verdict(False, "projects", None, found.complaint())
        judged: list[Judged] = []
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        for project in found.there:
            place = project_place(context, project.key)
            ids = _ids_by_name(context, place)
            for name, wanted in sorted(self.files.items()):
                who = f"{project.key}/{name}"
                if name not in ids:
                    judged.append(verdict(False, {"store": who}, None, f"{who} is not there"))
                    continue
                files = (int(wanted), 0)
                judged.append(self._one(context, place, ids[name], who, files, broken=broken))
        return together(judged)

    def _one(
        self,
        context: CheckContext,
        place: Place,
        id_: str,
        who: str,
        files: tuple[int, int],  # wanted, and how many of them cannot come back
        *,
        broken: bool,
    ) -> Judged:
        path = f"{_STORES}/{quote(id_, safe='')}"
        answer = context.cloud.get(place, path, kind="check:vector-index")
        found = at(answer.body, "file_counts")
        if not isinstance(found, dict):
            raise DamagedAnswerError("the store tells no counts", where=path)
        counts = found
        hits: list[str] | None = None
        if self.probe:
            body: JsonObject = {"query": self.probe, "max_num_results": 10}
            listed = context.cloud.post(
                place, f"{path}/search", body, kind="check:vector-index", reads=True
            ).body
            hits = [text_at(item, "filename") for item in objects_at(listed, "data")]
        if broken:
            counts = {**counts, "completed": files[0] - files[1] - 1}
            hits = None if hits is None else []
        return judged_counts(who, files[0], counts, hits, self.probe, lost=files[1])


def _files_in(store: Resource) -> int:
    files = store.body.get("files")
    return len(files) if isinstance(files, list) else 0


def _ids_by_name(context: CheckContext, place: Place) -> dict[str, str]:
    listed = context.cloud.list(
        place,
        _STORES,
        params={"limit": "100"},
        kind="check:vector-index",
        cursor=Cursor.OPENAI_AFTER,
    )
    return {text_at(item, "name"): text_at(item, "id") for item in listed}
