"""Vector stores with their files and file batches; processing goes by the clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drills.sandbox.dataplane import contents, files
from drills.sandbox.dataplane.ask import (
    OPENAI,
    V1_ONLY,
    Ask,
    DataError,
    Route,
    checked_metadata,
    cursor_list,
    invalid,
    new_id,
    not_found,
    space,
)
from drills.sandbox.dataplane.minds import normal
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World

_STATES = ("in_progress", "completed", "cancelled", "failed")
_AUTO = {"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}


# -- stores -----------------------------------------------------------------------------------


def put(
    world: World,
    owner: str,
    *,
    name: str | None,
    now: float,
    file_ids: Iterable[str] = (),
    expires_after: Body | None = None,
    metadata: dict[str, str] | None = None,
    chunking: Body | None = None,
    seconds: float = 0.0,
    id_: str = "",
) -> Body:
    """Keep a vector store and attach files that are processed for `seconds`."""
    store: Body = {
        "id": id_ or new_id(world, "vs_"),
        "created_at": int(now),
        "name": name,
        "expires_after": expires_after,
        "last_active_at": int(now),
        "metadata": metadata or {},
    }
    world.store.put(space(owner, "vector_stores"), store["id"], store)
    for file in file_ids:
        attach(world, owner, store["id"], file, now=now, seconds=seconds, chunking=chunking)
    return store


def attach(
    world: World,
    owner: str,
    store: str,
    file: str,
    *,
    now: float,
    seconds: float,
    chunking: Body | None = None,
    attributes: Body | None = None,
    batch: str = "",
) -> Body:
    """Keep a file of a vector store; one that is there already is processed again."""
    item: Body = {
        "id": file,
        "created_at": int(now),
        "ready_at": now + seconds,
        "chunking": chunking or _AUTO,
        "attributes": attributes or {},
        "batch": batch,
        "cancelled": False,
    }
    return world.store.put(space(owner, f"vector_files:{store}"), file, item)


def _expired(store: Body, now: float) -> bool:
    ends = _ends(store)
    return ends is not None and now >= ends


def _ends(store: Body) -> int | None:
    after = store["expires_after"]
    if not after:
        return None
    return int(store["last_active_at"]) + int(after["days"]) * 86_400


def _file_status(item: Body, now: float) -> str:
    if item["cancelled"]:
        return "cancelled"
    return "in_progress" if now < item["ready_at"] else "completed"


def _counts(items: Iterable[Body], now: float) -> Body:
    counts: Body = dict.fromkeys(_STATES, 0)
    for item in items:
        counts[_file_status(item, now)] += 1
    return {**counts, "total": sum(counts.values())}


def _files(ask: Ask, store: str) -> list[Body]:
    return [item for _, item in ask.world.store.items(ask.space(f"vector_files:{store}"))]


def _bytes(ask: Ask, item: Body) -> int:
    found = files.find(ask, item["id"])
    return int(found["bytes"]) if found and _file_status(item, ask.now) == "completed" else 0


def view(ask: Ask, store: Body) -> Body:
    """What a client sees of a vector store."""
    items = _files(ask, store["id"])
    counts = _counts(items, ask.now)
    busy = "in_progress" if counts["in_progress"] else "completed"
    shown: Body = {
        "id": store["id"],
        "object": "vector_store",
        "created_at": store["created_at"],
        "name": store["name"],
        "usage_bytes": sum(_bytes(ask, item) for item in items),
        "file_counts": counts,
        "status": "expired" if _expired(store, ask.now) else busy,
        "last_active_at": store["last_active_at"],
        "metadata": store["metadata"],
    }
    if store["expires_after"]:
        shown |= {"expires_after": store["expires_after"], "expires_at": _ends(store)}
    return shown


def _found(ask: Ask) -> Body:
    id_ = ask.names["store"]
    return ask.found("vector_stores", id_, f"No vector store found with id '{id_}'.")


def _expiry(body: Body) -> Body | None:
    value = body.get("expires_after")
    if value is None:
        return None
    if (
        not isinstance(value, dict)
        or value.get("anchor") != "last_active_at"
        or not isinstance(value.get("days"), int)
        or not 1 <= value["days"] <= 365
    ):
        raise invalid(
            '\'expires_after\' must be {"anchor": "last_active_at", "days": 1 to 365}.',
            param="expires_after",
        )
    return {"anchor": "last_active_at", "days": value["days"]}


def _chunking(body: Body) -> Body | None:
    value = body.get("chunking_strategy")
    if not isinstance(value, dict) or value.get("type", "auto") == "auto":
        return None
    if value["type"] != "static" or not isinstance(value.get("static"), dict):
        raise invalid("Invalid 'chunking_strategy'.", param="chunking_strategy")
    return {"type": "static", "static": value["static"]}


def _known(ask: Ask, ids: Any) -> list[str]:
    if not isinstance(ids, list) or any(not isinstance(i, str) for i in ids):
        raise invalid("'file_ids' must be a list of file ids.", param="file_ids")
    for id_ in ids:
        if files.find(ask, id_) is None:
            raise not_found(f"No such File object: {id_}")
    return ids


def create(ask: Ask) -> Answer:
    """POST /vector_stores."""
    body = ask.body()
    store = put(
        ask.world,
        ask.owner,
        name=body.get("name"),
        now=ask.now,
        file_ids=_known(ask, body.get("file_ids") or []),
        expires_after=_expiry(body),
        metadata=checked_metadata(body),
        chunking=_chunking(body),
        seconds=ask.world.seconds("vector-file"),
    )
    return Answer(200, view(ask, store))


def list_(ask: Ask) -> Answer:
    """GET /vector_stores."""
    items = ask.world.store.items(ask.space("vector_stores"))
    return cursor_list(ask, [view(ask, store) for _, store in items])


def get(ask: Ask) -> Answer:
    """GET /vector_stores/{store}."""
    return Answer(200, view(ask, _found(ask)))


def modify(ask: Ask) -> Answer:
    """POST /vector_stores/{store}."""
    store, body = dict(_found(ask)), ask.body()
    if "name" in body:
        store["name"] = body["name"]
    if "metadata" in body:
        store["metadata"] = checked_metadata(body)
    if "expires_after" in body:
        store["expires_after"] = _expiry(body)
    ask.world.store.put(ask.space("vector_stores"), store["id"], store)
    return Answer(200, view(ask, store))


def delete(ask: Ask) -> Answer:
    """DELETE /vector_stores/{store}: its files stay in the account."""
    store = _found(ask)
    for item in _files(ask, store["id"]):
        ask.world.store.remove(ask.space(f"vector_files:{store['id']}"), item["id"])
    ask.world.store.remove(ask.space("vector_stores"), store["id"])
    return Answer(200, {"id": store["id"], "object": "vector_store.deleted", "deleted": True})


def search(ask: Ask) -> Answer:
    """POST /vector_stores/{store}/search: lines that share words with the query, best first."""
    store, body = _found(ask), ask.body()
    query = body.get("query")
    asked = " ".join(query) if isinstance(query, list) else ask.text(body, "query")
    most = body.get("max_num_results") or 10
    if not isinstance(most, int) or not 1 <= most <= 50:
        raise invalid("'max_num_results' must be 1 to 50.", param="max_num_results")
    hits = hits_of(ask, store["id"], asked)
    page = [
        {
            "file_id": item["id"],
            "filename": item["filename"],
            "score": item["score"],
            "attributes": item["attributes"],
            "content": [{"type": "text", "text": item["text"]}],
        }
        for item in hits[:most]
    ]
    return Answer(
        200,
        {
            "object": "vector_store.search_results.page",
            "search_query": [asked],
            "data": page,
            "has_more": len(hits) > most,
            "next_page": None,
        },
    )


def hits_of(ask: Ask, store: str, query: str) -> list[Body]:
    """The best line of every file of a store that shares words with a query."""
    words = set(normal(query).split())
    hits: list[Body] = []
    for item in _files(ask, store):
        file = files.find(ask, item["id"])
        if file is None or _file_status(item, ask.now) != "completed":
            continue
        try:
            text = contents.read(ask.world, file["digest"]).decode("utf-8", "replace")
        except KeyError:
            continue
        best, line = 0.0, ""
        for candidate in text.splitlines():
            own = set(normal(candidate).split())
            score = len(own & words) / len(words) if words else 0.0
            if score > best:
                best, line = score, candidate
        if best:
            hits.append(
                {
                    "id": item["id"],
                    "filename": file["filename"],
                    "score": round(best, 4),
                    "attributes": item["attributes"],
                    "text": line,
                }
            )
    return sorted(hits, key=lambda hit: -hit["score"])


# -- files ------------------------------------------------------------------------------------


def _file_view(ask: Ask, store: str, item: Body) -> Body:
    return {
        "id": item["id"],
        "object": "vector_store.file",
        "usage_bytes": _bytes(ask, item),
        "created_at": item["created_at"],
        "vector_store_id": store,
        "status": _file_status(item, ask.now),
        "last_error": None,
        "chunking_strategy": item["chunking"],
        "attributes": item["attributes"],
    }


def _file(ask: Ask, store: str) -> Body:
    id_ = ask.names["file"]
    return ask.found(
        f"vector_files:{store}", id_, f"No file found with id '{id_}' in vector store '{store}'."
    )


def add_file(ask: Ask) -> Answer:
    """POST /vector_stores/{store}/files."""
    store, body = _found(ask), ask.body()
    [file] = _known(ask, [ask.text(body, "file_id")])
    item = attach(
        ask.world,
        ask.owner,
        store["id"],
        file,
        now=ask.now,
        seconds=ask.world.seconds("vector-file"),
        chunking=_chunking(body),
        attributes=body.get("attributes"),
    )
    _touch(ask, store)
    return Answer(200, _file_view(ask, store["id"], item))


def _touch(ask: Ask, store: Body) -> None:
    ask.world.store.put(
        ask.space("vector_stores"), store["id"], {**store, "last_active_at": int(ask.now)}
    )


def list_files(ask: Ask) -> Answer:
    """GET /vector_stores/{store}/files."""
    store = _found(ask)
    return _list(ask, store["id"], _files(ask, store["id"]))


def _list(ask: Ask, store: str, items: list[Body]) -> Answer:
    views = [_file_view(ask, store, item) for item in items]
    if wanted := ask.call.parameter("filter"):
        if wanted not in _STATES:
            raise invalid(f"Invalid value for 'filter': '{wanted}'.", param="filter")
        views = [item for item in views if item["status"] == wanted]
    return cursor_list(ask, views)


def get_file(ask: Ask) -> Answer:
    """GET /vector_stores/{store}/files/{file}."""
    store = _found(ask)
    return Answer(200, _file_view(ask, store["id"], _file(ask, store["id"])))


def modify_file(ask: Ask) -> Answer:
    """POST /vector_stores/{store}/files/{file}: its attributes."""
    store = _found(ask)
    item = {**_file(ask, store["id"]), "attributes": ask.body().get("attributes") or {}}
    ask.world.store.put(ask.space(f"vector_files:{store['id']}"), item["id"], item)
    return Answer(200, _file_view(ask, store["id"], item))


def remove_file(ask: Ask) -> Answer:
    """DELETE /vector_stores/{store}/files/{file}: the file itself stays."""
    store = _found(ask)
    item = _file(ask, store["id"])
    ask.world.store.remove(ask.space(f"vector_files:{store['id']}"), item["id"])
    return Answer(200, {"id": item["id"], "object": "vector_store.file.deleted", "deleted": True})


# -- batches ----------------------------------------------------------------------------------


def _batch_view(ask: Ask, store: str, batch: Body) -> Body:
    items = [i for i in _files(ask, store) if i["batch"] == batch["id"]]
    counts = _counts(items, ask.now)
    state = "in_progress" if counts["in_progress"] else "completed"
    return {
        "id": batch["id"],
        "object": "vector_store.files_batch",
        "created_at": batch["created_at"],
        "vector_store_id": store,
        "status": "cancelled" if batch["cancelled"] else state,
        "file_counts": counts,
    }


def _batch(ask: Ask, store: str) -> Body:
    id_ = ask.names["batch"]
    return ask.found(f"vector_batches:{store}", id_, f"No file batch found with id '{id_}'.")


def add_batch(ask: Ask) -> Answer:
    """POST /vector_stores/{store}/file_batches."""
    store, body = _found(ask), ask.body()
    wanted = body.get("file_ids")
    if not wanted:
        raise invalid("Missing required parameter: 'file_ids'.", param="file_ids")
    if len(wanted) > 500:
        raise invalid("'file_ids' holds at most 500 files.", param="file_ids")
    batch: Body = {
        "id": new_id(ask.world, "vsfb_"),
        "created_at": int(ask.now),
        "cancelled": False,
    }
    for at, file in enumerate(_known(ask, wanted), 1):
        attach(
            ask.world,
            ask.owner,
            store["id"],
            file,
            now=ask.now,
            seconds=ask.world.seconds("vector-file") * at,
            chunking=_chunking(body),
            attributes=body.get("attributes"),
            batch=batch["id"],
        )
    ask.world.store.put(ask.space(f"vector_batches:{store['id']}"), batch["id"], batch)
    _touch(ask, store)
    return Answer(200, _batch_view(ask, store["id"], batch))


def get_batch(ask: Ask) -> Answer:
    """GET /vector_stores/{store}/file_batches/{batch}."""
    store = _found(ask)
    return Answer(200, _batch_view(ask, store["id"], _batch(ask, store["id"])))


def cancel_batch(ask: Ask) -> Answer:
    """POST /vector_stores/{store}/file_batches/{batch}/cancel."""
    store = _found(ask)
    batch = {**_batch(ask, store["id"]), "cancelled": True}
    items = [i for i in _files(ask, store["id"]) if i["batch"] == batch["id"]]
    running = [i for i in items if _file_status(i, ask.now) == "in_progress"]
    if not running:
        raise DataError(409, "conflict", f"The file batch '{batch['id']}' has ended already.")
    for item in running:
        where = ask.space(f"vector_files:{store['id']}")
        ask.world.store.put(where, item["id"], {**item, "cancelled": True})
    ask.world.store.put(ask.space(f"vector_batches:{store['id']}"), batch["id"], batch)
    return Answer(200, _batch_view(ask, store["id"], batch))


def batch_files(ask: Ask) -> Answer:
    """GET /vector_stores/{store}/file_batches/{batch}/files."""
    store = _found(ask)
    batch = _batch(ask, store["id"])
    items = [i for i in _files(ask, store["id"]) if i["batch"] == batch["id"]]
    return _list(ask, store["id"], items)


_ACTION = f"{OPENAI}/assistants/vector_stores"
_ONE = "/vector_stores/{store}"
ROUTES: tuple[Route, ...] = (
    Route("POST", "/vector_stores", f"{_ACTION}/write", create),
    Route("GET", "/vector_stores", f"{_ACTION}/read", list_),
    Route("GET", _ONE, f"{_ACTION}/read", get),
    Route("POST", _ONE, f"{_ACTION}/write", modify),
    Route("DELETE", _ONE, f"{_ACTION}/delete", delete),
    Route("POST", f"{_ONE}/search", f"{_ACTION}/read", search, V1_ONLY),
    Route("POST", f"{_ONE}/files", f"{_ACTION}/write", add_file),
    Route("GET", f"{_ONE}/files", f"{_ACTION}/read", list_files),
    Route("GET", f"{_ONE}/files/{{file}}", f"{_ACTION}/read", get_file),
    Route("POST", f"{_ONE}/files/{{file}}", f"{_ACTION}/write", modify_file, V1_ONLY),
    Route("DELETE", f"{_ONE}/files/{{file}}", f"{_ACTION}/delete", remove_file),
    Route("POST", f"{_ONE}/file_batches", f"{_ACTION}/write", add_batch),
    Route("GET", f"{_ONE}/file_batches/{{batch}}", f"{_ACTION}/read", get_batch),
    Route("POST", f"{_ONE}/file_batches/{{batch}}/cancel", f"{_ACTION}/write", cancel_batch),
    Route("GET", f"{_ONE}/file_batches/{{batch}}/files", f"{_ACTION}/read", batch_files),
)
