"""What an estate file says of an account's data plane, put there as if it had happened before."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import orjson

from drills.sandbox.arm import Record
from drills.sandbox.dataplane import assistants, contents, files, finetuning, projects
from drills.sandbox.dataplane import vector_stores as vectors
from drills.sandbox.dataplane.ask import peek, space
from drills.sandbox.dataplane.catalogue import base_model
from drills.sandbox.wire import Body
from drills.sandbox.world import World

_AGE = 9 * 86_400.0  # seconds: how long ago the data was made
_PURPOSES = (*files.PURPOSES, "fine-tune-results", "assistants_output", "batch_output")
_KNOWN = ("files", "fine_tuning", "vector_stores", "assistants", "threads", "projects")
_KNOWN_PROJECT = ("files", "agents", "vector_stores", "threads", "datasets", "indexes")

_TOPICS = (
    "opening hours", "parking", "refunds", "delivery", "invoices", "passwords", "holidays",
    "travel", "expenses", "contracts", "safety", "training", "suppliers", "returns", "warranty",
    "claims", "privacy", "quality", "storage", "shifts",
)  # fmt: skip
_ASKS = (
    "What is rule {n} about {topic} at {theme}?",
    "Tell me rule {n} on {topic} for {theme}.",
    "How does {theme} handle {topic} in case {n}?",
    "Which desk at {theme} decides case {n} of {topic}?",
)


def seed(world: World, account: Record, section: Body) -> None:
    """Put data there that is finished already: files, tuned models, stores, assistants, agents.

    `section` may hold files, fine_tuning, vector_stores, assistants, threads and projects (by
    name: files, vector_stores, agents, threads, datasets, indexes). Things refer to each other by
    name; what an earlier call put there counts. Raises ValueError with what is wrong.
    """
    _check_names(section, _KNOWN, account.name)
    now = world.clock.timestamp() - _AGE
    _stores(world, account.id, section, now)
    for entry in _entries(section, "fine_tuning"):
        _tune(world, account, entry, now + 3_600)
    for entry in _entries(section, "assistants"):
        _assistant(world, account.id, entry, now + 7_200)
    for entry in _entries(section, "threads"):
        assistants.put_thread(world, account.id, _filled(world, account.id, entry), now=now + 7_500)
    for name, part in (section.get("projects") or {}).items():
        project = peek(world, f"{account.id}/projects/{name}")
        if project is None:
            message = f"the project '{name}' of {account.name} is not there"
            raise ValueError(message)
        _project(world, project, part, now)


def _project(world: World, project: Record, section: Body, now: float) -> None:
    _check_names(section, _KNOWN_PROJECT, project.name)
    _stores(world, project.id, section, now)
    for entry in _entries(section, "agents"):
        _agent(world, project.id, entry, now + 7_200)
    for entry in _entries(section, "threads"):
        assistants.put_thread(world, project.id, _filled(world, project.id, entry), now=now + 7_500)
    for what in ("datasets", "indexes"):
        for entry in _entries(section, what):
            body = {k: v for k, v in entry.items() if k not in ("name", "version")}
            version = str(entry.get("version") or "1")
            projects.put_asset(
                world, project, what, name=_required(entry, "name"), version=version, body=body
            )


def _stores(world: World, owner: str, section: Body, now: float) -> None:
    for entry in _entries(section, "files"):
        _file(world, owner, entry, now)
    for entry in _entries(section, "vector_stores"):
        wanted = entry.get("files") or []
        vectors.put(
            world,
            owner,
            name=entry.get("name"),
            now=now + 1_800,
            file_ids=[_id_of(world, owner, "files", "filename", str(name)) for name in wanted],
            expires_after=entry.get("expires_after"),
            metadata=_texts(entry.get("metadata")),
        )


def _check_names(section: Body, known: tuple[str, ...], where: str) -> None:
    for name in section:
        if name not in known:
            message = f"{where}: '{name}' is not one of {', '.join(known)}"
            raise ValueError(message)


def _entries(section: Body, name: str) -> Iterable[Body]:
    for entry in section.get(name) or ():
        if not isinstance(entry, dict):
            message = f"every entry of '{name}' is a table, not {entry!r}"
            raise ValueError(message)
        yield entry


def _required(entry: Body, name: str) -> str:
    value = entry.get(name)
    if value in (None, ""):
        message = f"'{name}' is missing in {sorted(entry)}"
        raise ValueError(message)
    return str(value)


def _texts(value: Any) -> dict[str, str]:
    return {str(k): str(v) for k, v in (value or {}).items()}


def _id_of(world: World, owner: str, what: str, field: str, name: str) -> str:
    found = ""
    for id_, item in world.store.items(space(owner, what)):
        if name in (item.get(field), id_):
            found = id_
    if not found:
        message = f"no {what.rstrip('s').replace('_', ' ')} is called '{name}'"
        raise ValueError(message)
    return found


# -- files and models -----------------------------------------------------------------------------


def _file(world: World, owner: str, entry: Body, now: float) -> None:
    name = str(entry.get("name") or _required(entry, "filename"))
    purpose = str(entry.get("purpose") or "fine-tune")
    if purpose not in _PURPOSES:
        message = f"the file '{name}' has the purpose '{purpose}': {', '.join(_PURPOSES)}"
        raise ValueError(message)
    if "generate" in entry:
        content = generate(entry["generate"])
    else:
        content = _required(entry, "content").encode()
    item = files.add(
        world, owner, filename=name, purpose=purpose, content=content, now=now, seconds=0
    )
    if item["problem"]:
        message = f"the file '{name}' is no good: {item['problem']}"
        raise ValueError(message)


def generate(recipe: Body) -> bytes:
    """A training file from a recipe `{kind: chat|completion, rows: N, theme: …}`; always the same.

    Raises ValueError when the recipe makes no sense.
    """
    kind, rows = recipe.get("kind", "chat"), recipe.get("rows", 20)
    theme = str(recipe.get("theme") or "the company")
    if kind not in ("chat", "completion") or not isinstance(rows, int) or rows < 1:
        message = f"a file is generated as {{kind: chat or completion, rows: N}}, not {recipe!r}"
        raise ValueError(message)
    dice = random.Random(f"{theme}|{kind}")  # repeatable on purpose
    lines: list[bytes] = []
    for n in range(1, rows + 1):
        topic = _TOPICS[n % len(_TOPICS)]
        question = _ASKS[n % len(_ASKS)].format(n=n, topic=topic, theme=theme)
        answer = f"{theme}: {topic}, rule {n}, desk {dice.randrange(1, 40)}."
        row: Body = {"prompt": question, "completion": answer}
        if kind == "chat":
            row = {
                "messages": [
                    {"role": "system", "content": f"You answer for {theme}."},
                    {"role": "user", "content": question},
                    {"role": "assistant", "content": answer},
                ]
            }
        lines.append(orjson.dumps(row))
    return b"\n".join(lines) + b"\n"


def _tune(world: World, account: Record, entry: Body, now: float) -> None:
    named = _required(entry, "model")
    base = base_model(named, str(entry.get("version") or ""))
    if base is None or base.of.fine_tune_ends is None:
        message = f"the model '{named}' cannot be fine-tuned"
        raise ValueError(message)
    training = _id_of(world, account.id, "files", "filename", _required(entry, "training_file"))
    item = world.store.get(space(account.id, "files"), training) or {}
    validation = entry.get("validation_file")
    rows = contents.read(world, item["digest"]).count(b"\n") + 1
    job = finetuning.put_job(
        world,
        account.id,
        model=base.id,
        training_file=training,
        lesson=item["digest"],
        base=base.id,
        now=now,
        validation_file=_id_of(world, account.id, "files", "filename", str(validation))
        if validation
        else None,
        hyperparameters={
            "n_epochs": int(entry.get("epochs") or 3),
            "batch_size": int(entry.get("batch_size") or max(1, rows // 500)),
            "learning_rate_multiplier": float(entry.get("learning_rate") or 1.0),
        },
        suffix=str(entry["suffix"]) if entry.get("suffix") else None,
        seed=int(entry.get("seed") or 42),
        metadata=_texts(entry.get("metadata")) or None,
        hex_=str(entry.get("hex") or ""),
    )
    finetuning.finish(world, job, now + job["total"])


# -- assistants and agents ------------------------------------------------------------------------


def _assistant(world: World, owner: str, entry: Body, now: float) -> None:
    _required(entry, "model")
    assistants.put(world, owner, _filled(world, owner, entry), now=now)


def _filled(world: World, owner: str, entry: Body) -> Body:
    """An assistant or thread whose stores and files are named, with their ids."""
    body = {k: v for k, v in entry.items() if k not in ("vector_stores", "code_files")}
    resources: Body = dict(body.get("tool_resources") or {})
    if stores := entry.get("vector_stores"):
        ids = [_id_of(world, owner, "vector_stores", "name", str(s)) for s in stores]
        resources["file_search"] = {"vector_store_ids": ids}
    if named := entry.get("code_files"):
        ids = [_id_of(world, owner, "files", "filename", str(f)) for f in named]
        resources["code_interpreter"] = {"file_ids": ids}
    return {**body, "tool_resources": resources}


def _agent(world: World, owner: str, entry: Body, now: float) -> None:
    name = _required(entry, "name")
    versions = entry.get("versions") or [entry]
    for number, version in enumerate(versions):
        definition: Body = {"kind": "prompt", "model": _required(version, "model")}
        definition |= {
            key: version[key]
            for key in ("instructions", "temperature", "top_p", "tool_choice", "text", "reasoning")
            if version.get(key) is not None
        }
        tools = [_tool(world, owner, tool) for tool in version.get("tools") or ()]
        if tools:
            definition["tools"] = tools
        projects.put_version(
            world,
            owner,
            name,
            definition,
            now=now + 600 * number,
            description=version.get("description") or entry.get("description"),
            metadata=_texts(version.get("metadata") or entry.get("metadata")),
        )


def _tool(world: World, owner: str, tool: Body) -> Body:
    filled = {k: v for k, v in tool.items() if k != "vector_stores"}
    if stores := tool.get("vector_stores"):
        filled["vector_store_ids"] = [
            _id_of(world, owner, "vector_stores", "name", str(name)) for name in stores
        ]
    return filled
