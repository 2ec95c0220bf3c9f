"""Files of an account: upload, import, list, content, deletion, limits, and their check."""

from __future__ import annotations

import io
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File

from drills.sandbox.arm import Record
from drills.sandbox.dataplane import contents
from drills.sandbox.dataplane.ask import (
    CLASSIC_ONLY,
    OPENAI,
    Ask,
    DataError,
    Route,
    cursor_list,
    invalid,
    new_id,
    space,
)
from drills.sandbox.providers.cognitive_accounts import key_revoked
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World

PURPOSES = ("fine-tune", "assistants", "batch", "evals")  # what a client may upload
_JSONL = ("fine-tune", "batch", "evals")
_DOWNLOADABLE = ("fine-tune", "fine-tune-results", "batch", "batch_output", "evals")


@dataclass(frozen=True, slots=True)
class Upload:
    """A parsed multipart upload."""

    fields: dict[str, str]
    filename: str
    content: bytes


def capability(account: Record, name: str, default: int) -> int:
    """A limit of the account (`properties.capabilities`)."""
    for item in account.properties.get("capabilities") or []:
        if item.get("name") == name:
            try:
                return int(item.get("value"))
            except (TypeError, ValueError):
                return default
    return default


def parse_upload(ask: Ask) -> Upload:
    """Take a multipart body apart. Raises DataError 400."""
    kind = ask.call.headers.get("content-type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise invalid("The request must be of type multipart/form-data.")
    fields: dict[str, str] = {}
    found: list[tuple[str, bytes]] = []

    def on_field(part: Any) -> None:
        if isinstance(part, Field):
            fields[(part.field_name or b"").decode()] = (part.value or b"").decode()

    def on_file(part: Any) -> None:
        if isinstance(part, File):
            part.file_object.seek(0)
            name = (part.file_name or b"").decode("utf-8", "replace")
            found.append((name, part.file_object.read()))
            part.close()

    headers = {"Content-Type": kind.encode("latin-1")}
    try:
        parse_form(headers, io.BytesIO(ask.call.body), on_field, on_file)
    except (FormParserError, UnicodeDecodeError, ValueError) as error:
        raise invalid(f"The multipart body could not be read: {error}") from None
    if not found:
        raise invalid("The file is missing: a part named 'file' is required.", param="file")
    return Upload(fields, *found[0])


def add(
    world: World,
    owner: str,
    *,
    filename: str,
    purpose: str,
    content: bytes,
    now: float,
    seconds: float,
    expires_at: int | None = None,
    id_: str = "",
) -> Body:
    """Keep a file and return its item; it is being processed for `seconds`."""
    prefix = "assistant-" if purpose == "assistants" else "file-"
    item: Body = {
        "id": id_ or new_id(world, prefix, 32),
        "bytes": len(content),
        "created_at": int(now),
        "filename": filename,
        "purpose": purpose,
        "digest": contents.keep(world, content),
        "ready_at": now + seconds,
        "problem": check(content, purpose),
        "expires_at": expires_at,
    }
    return world.store.put(space(owner, "files"), item["id"], item)


def check(content: bytes, purpose: str) -> str:
    """What is wrong with a file's content; "" when nothing is."""
    if not content.strip():
        return "The file is empty."
    if purpose not in _JSONL:
        return ""
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for number, line in rows:
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            return f"Validation of jsonl file failed: line {number} is no valid JSON ({error.msg})."
        problem = _row_problem(row, purpose)
        if problem:
            return f"Validation of jsonl file failed: line {number}: {problem}."
    if purpose == "fine-tune" and len(rows) < 10:
        return (
            f"Validation of jsonl file failed: the file has {len(rows)} example(s), "
            "but the minimum is 10 examples."
        )
    return ""


def _row_problem(row: object, purpose: str) -> str:
    if not isinstance(row, dict):
        return "a JSON object is expected"
    if purpose == "batch":
        missing = [k for k in ("custom_id", "method", "url", "body") if k not in row]
        return f"'{missing[0]}' is missing" if missing else ""
    if purpose != "fine-tune" or "prompt" in row or "input" in row:
        return ""  # completion, preference and reinforcement rows are taken as they are
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        return "'messages' is missing"
    for message in messages:
        if not isinstance(message, dict) or message.get("role") not in (
            "system",
            "developer",
            "user",
            "assistant",
            "tool",
        ):
            return "a message has no valid 'role'"
    if not any(message["role"] == "assistant" for message in messages):
        return "there is no message of the assistant"
    return ""


def status(item: Body, now: float) -> str:
    """Pending until processed, then processed or error."""
    if now < item["ready_at"]:
        return "pending"
    return "error" if item["problem"] else "processed"


def view(item: Body, now: float) -> Body:
    """What a client sees of a file."""
    state = status(item, now)
    shown: Body = {
        "status": state,
        "bytes": item["bytes"],
        "purpose": item["purpose"],
        "filename": item["filename"],
        "id": item["id"],
        "created_at": item["created_at"],
        "object": "file",
    }
    if state == "error":
        shown["status_details"] = item["problem"]
    if item["expires_at"] is not None:
        shown["expires_at"] = item["expires_at"]
    return shown


def live(world: World, owner: str, now: float) -> list[Body]:
    """The owner's files that have not expired, oldest first; expired ones are removed."""
    kept = []
    for id_, item in world.store.items(space(owner, "files")):
        if item["expires_at"] is not None and item["expires_at"] <= now:
            world.store.remove(space(owner, "files"), id_)
        else:
            kept.append(item)
    return kept


def find(ask: Ask, id_: str) -> Body | None:
    """A live file of the owner, or of the account that holds the project."""
    for owner in (ask.owner, ask.account.id):
        item = ask.world.store.get(space(owner, "files"), id_)
        if item is not None and (item["expires_at"] is None or item["expires_at"] > ask.now):
            return item
    return None


def _found(ask: Ask) -> Body:
    item = find(ask, ask.names["file"])
    if item is None:
        raise DataError(404, "notFound", f"The file '{ask.names['file']}' was not found.")
    return item


def _check_limits(ask: Ask, filename: str, purpose: str, size: int | None) -> None:
    if purpose not in PURPOSES:
        raise invalid(
            f"Invalid value for 'purpose': '{purpose}'. Expected one of: {', '.join(PURPOSES)}.",
            param="purpose",
        )
    if purpose in _JSONL and not filename.lower().endswith(".jsonl"):
        raise invalid(
            f"Invalid file extension for purpose '{purpose}': '{filename}'. "
            "Only '.jsonl' files are accepted.",
            param="file",
        )
    most = capability(ask.account, "MaxUserFileCount", 100)
    if len(live(ask.world, ask.owner, ask.now)) >= most:
        raise DataError(
            400,
            "quotaExceeded",
            f"Quota limit for user files has been reached. Max allowed quota: {most}.",
        )
    if size is None:
        return
    largest = capability(ask.account, "MaxTrainingFileSize", 512_000_000)
    if purpose in _JSONL and size > largest:
        raise DataError(
            413 if size > 2 * largest else 400,
            "invalidPayload",
            f"The file is too large: {size} bytes, the maximum is {largest} bytes.",
            param="file",
        )
    if size == 0:
        raise invalid("The file is empty.", param="file")


def upload(ask: Ask) -> Answer:
    """POST /files."""
    sent = parse_upload(ask)
    purpose = sent.fields.get("purpose", "")
    _check_limits(ask, sent.filename, purpose, len(sent.content))
    expires = None
    if seconds := sent.fields.get("expires_after[seconds]"):
        if not seconds.isdigit() or not 1_209_600 <= int(seconds) <= 2_592_000:
            raise invalid(
                "Invalid value for 'expires_after.seconds': expected 1209600 to 2592000.",
                param="expires_after",
            )
        expires = int(ask.now) + int(seconds)
    item = add(
        ask.world,
        ask.owner,
        filename=sent.filename,
        purpose=purpose,
        content=sent.content,
        now=ask.now,
        seconds=ask.world.seconds("file") if purpose in _JSONL else 0,
        expires_at=expires,
    )
    return ask.created(view(item, ask.now))


def import_(ask: Ask) -> Answer:
    """POST /files/import: fetch a file from a blob URL (of the sandbox's own storage)."""
    body = ask.body()
    url, filename = ask.text(body, "content_url"), ask.text(body, "filename")
    purpose = ask.text(body, "purpose")
    _check_limits(ask, filename, purpose, None)
    content, problem = _fetch(url, capability(ask.account, "MaxTrainingFileSize", 512_000_000))
    item = add(
        ask.world,
        ask.owner,
        filename=filename,
        purpose=purpose,
        content=content,
        now=ask.now,
        seconds=ask.world.seconds("file"),
    )
    if problem:
        item = {**item, "problem": problem}
        ask.world.store.put(ask.space("files"), item["id"], item)
    return ask.created(view(item, ask.now))


def _fetch(url: str, most: int) -> tuple[bytes, str]:
    parts = urlsplit(url)
    local = parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme not in ("http", "https") or not local:
        return b"", "Import of file failed: the URL does not lead to a storage of this sandbox."
    try:
        # loopback only, checked above
        with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310
            content = answer.read(most + 1)
    except urllib.error.HTTPError as error:
        return b"", f"Import of file failed: the storage answered {error.code}."
    except OSError as error:
        return b"", f"Import of file failed: {error}"
    if len(content) > most:
        return b"", f"Import of file failed: the file is larger than {most} bytes."
    return content, ""


def list_(ask: Ask) -> Answer:
    """GET /files."""
    items = [view(item, ask.now) for item in live(ask.world, ask.owner, ask.now)]
    if purpose := ask.call.parameter("purpose"):
        items = [item for item in items if item["purpose"] == purpose]
    return cursor_list(ask, items, default=10_000, most=10_000)


def get(ask: Ask) -> Answer:
    """GET /files/{file}."""
    return Answer(200, view(_found(ask), ask.now))


def content(ask: Ask) -> Answer:
    """GET /files/{file}/content."""
    item = _found(ask)
    if item["purpose"] not in _DOWNLOADABLE:
        raise invalid(f"Not allowed to download files of purpose: {item['purpose']}")
    require_key(ask)
    if status(item, ask.now) == "pending":
        raise DataError(
            409,
            "unexpectedEntityState",
            f"The file '{item['id']}' is not processed yet; its content cannot be downloaded.",
        )
    try:
        data = contents.read(ask.world, item["digest"])
    except KeyError:
        raise DataError(
            500, "internalFailure", "The content of this file is lost in the sandbox's state folder"
        ) from None
    name = item["filename"].replace('"', "").encode("ascii", "replace").decode()
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Answer(200, data, headers, "application/octet-stream")


def require_key(ask: Ask) -> None:
    """Refuse while the customer's key cannot be used. Raises DataError 403."""
    if key_revoked(ask.account):
        raise DataError(
            403,
            "forbidden",
            "The customer-managed key of this resource cannot be accessed: the data that it "
            "encrypts is not available until access to the key is restored.",
        )


def delete(ask: Ask) -> Answer:
    """DELETE /files/{file}."""
    item = _found(ask)
    for owner in (ask.owner, ask.account.id):
        ask.world.store.remove(space(owner, "files"), item["id"])
    if ask.classic:
        return Answer(204)
    return Answer(200, {"id": item["id"], "object": "file", "deleted": True})


ROUTES: tuple[Route, ...] = (
    Route("POST", "/files/import", f"{OPENAI}/files/import/action", import_, CLASSIC_ONLY),
    Route("POST", "/files", f"{OPENAI}/files/write", upload),
    Route("GET", "/files", f"{OPENAI}/files/read", list_),
    Route("GET", "/files/{file}", f"{OPENAI}/files/read", get),
    Route("GET", "/files/{file}/content", f"{OPENAI}/files/read", content),
    Route("DELETE", "/files/{file}", f"{OPENAI}/files/delete", delete),
)
