"""Assistants with threads, messages and runs; a run ends by the clock."""

from __future__ import annotations

from typing import Any

from drills.sandbox.dataplane import engine, filters
from drills.sandbox.dataplane.ask import (
    OPENAI,
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
from drills.sandbox.dataplane.chat import event_stream, functions_of, turn_of
from drills.sandbox.dataplane.minds import arguments, choose_tool, flat, tokens
from drills.sandbox.wire import Answer, Body
from drills.sandbox.world import World

_FIELDS = ("name", "description", "model", "instructions", "tools", "tool_resources")
_TUNING = ("temperature", "top_p", "response_format")
_EXPIRES = 600  # seconds until a run that waits for tools expires


# -- assistants ---------------------------------------------------------------------------------


def put(world: World, owner: str, body: Body, *, now: float, id_: str = "") -> Body:
    """Keep an assistant as it is shown."""
    item: Body = {
        "id": id_ or new_id(world, "asst_"),
        "object": "assistant",
        "created_at": int(now),
        "name": body.get("name"),
        "description": body.get("description"),
        "model": body["model"],
        "instructions": body.get("instructions"),
        "tools": body.get("tools") or [],
        "tool_resources": body.get("tool_resources") or {},
        "metadata": body.get("metadata") or {},
        "temperature": body.get("temperature", 1.0),
        "top_p": body.get("top_p", 1.0),
        "response_format": body.get("response_format") or "auto",
    }
    return world.store.put(space(owner, "assistants"), item["id"], item)


def _check(body: Body) -> None:
    checked_metadata(body)
    for name, most in (("name", 256), ("description", 512), ("instructions", 256_000)):
        value = body.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > most):
            raise invalid(f"'{name}' is a text of at most {most} characters.", param=name)
    tools = body.get("tools") or []
    kinds = ("code_interpreter", "file_search", "function")
    if not isinstance(tools, list) or len(tools) > 128:
        raise invalid("'tools' is a list of at most 128 tools.", param="tools")
    for tool in tools:
        if not isinstance(tool, dict) or tool.get("type") not in kinds:
            raise invalid(f"A tool's type is one of {', '.join(kinds)}.", param="tools")


def create(ask: Ask) -> Answer:
    """POST /assistants."""
    body = ask.body()
    ask.text(body, "model")
    _check(body)
    return Answer(200, put(ask.world, ask.owner, body, now=ask.now))


def list_(ask: Ask) -> Answer:
    """GET /assistants."""
    items = ask.world.store.items(ask.space("assistants"))
    return cursor_list(ask, [item for _, item in items])


def _assistant(ask: Ask, id_: str) -> Body:
    return ask.found("assistants", id_, f"No assistant found with id '{id_}'.")


def get(ask: Ask) -> Answer:
    """GET /assistants/{assistant}."""
    return Answer(200, _assistant(ask, ask.names["assistant"]))


def modify(ask: Ask) -> Answer:
    """POST /assistants/{assistant}."""
    body = ask.body()
    _check(body)
    changed = dict(_assistant(ask, ask.names["assistant"]))
    changed |= {k: body[k] for k in (*_FIELDS, *_TUNING, "metadata") if k in body}
    ask.world.store.put(ask.space("assistants"), changed["id"], changed)
    return Answer(200, changed)


def delete(ask: Ask) -> Answer:
    """DELETE /assistants/{assistant}."""
    id_ = _assistant(ask, ask.names["assistant"])["id"]
    ask.world.store.remove(ask.space("assistants"), id_)
    return Answer(200, {"id": id_, "object": "assistant.deleted", "deleted": True})


# -- threads and messages -------------------------------------------------------------------------


def put_thread(world: World, owner: str, body: Body, *, now: float, id_: str = "") -> Body:
    """Keep a thread and its first messages."""
    thread: Body = {
        "id": id_ or new_id(world, "thread_"),
        "object": "thread",
        "created_at": int(now),
        "metadata": body.get("metadata") or {},
        "tool_resources": body.get("tool_resources") or {},
    }
    world.store.put(space(owner, "threads"), thread["id"], thread)
    for message in body.get("messages") or []:
        put_message(world, owner, thread["id"], message, now=now)
    return thread


def put_message(
    world: World,
    owner: str,
    thread: str,
    body: Body,
    *,
    now: float,
    run: str | None = None,
    assistant: str | None = None,
) -> Body:
    """Keep a message; it can be seen from `now` on."""
    message: Body = {
        "id": new_id(world, "msg_"),
        "object": "thread.message",
        "created_at": int(now),
        "thread_id": thread,
        "status": "completed",
        "role": body.get("role", "user"),
        "content": [
            {"type": "text", "text": {"value": flat(body.get("content")), "annotations": []}}
        ],
        "assistant_id": assistant,
        "run_id": run,
        "attachments": body.get("attachments") or [],
        "metadata": body.get("metadata") or {},
        "incomplete_details": None,
        "completed_at": int(now),
        "incomplete_at": None,
        "visible": now,
    }
    return world.store.put(space(owner, f"messages:{thread}"), message["id"], message)


def _thread(ask: Ask) -> Body:
    id_ = ask.names["thread"]
    return ask.found("threads", id_, f"No thread found with id '{id_}'.")


def _messages(ask: Ask, thread: str) -> list[Body]:
    items = ask.world.store.items(ask.space(f"messages:{thread}"))
    return [
        {k: v for k, v in item.items() if k != "visible"}
        for _, item in items
        if item["visible"] <= ask.now
    ]


def _check_message(body: Body) -> None:
    if body.get("role") not in ("user", "assistant"):
        raise invalid("A message's 'role' is 'user' or 'assistant'.", param="role")
    if not flat(body.get("content")):
        raise invalid("Missing required parameter: 'content'.", param="content")
    checked_metadata(body)


def _check_thread(body: Body) -> None:
    checked_metadata(body)
    messages = body.get("messages") or []
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise invalid("'messages' must be a list of messages.", param="messages")
    for message in messages:
        _check_message(message)


def create_thread(ask: Ask) -> Answer:
    """POST /threads."""
    body = ask.body()
    _check_thread(body)
    return Answer(200, put_thread(ask.world, ask.owner, body, now=ask.now))


def get_thread(ask: Ask) -> Answer:
    """GET /threads/{thread}."""
    return Answer(200, _thread(ask))


def modify_thread(ask: Ask) -> Answer:
    """POST /threads/{thread}."""
    body = ask.body()
    changed = dict(_thread(ask))
    if "metadata" in body:
        changed["metadata"] = checked_metadata(body)
    if "tool_resources" in body:
        changed["tool_resources"] = body["tool_resources"] or {}
    ask.world.store.put(ask.space("threads"), changed["id"], changed)
    return Answer(200, changed)


def delete_thread(ask: Ask) -> Answer:
    """DELETE /threads/{thread}: with its messages and runs, for good."""
    id_ = _thread(ask)["id"]
    for what in (f"messages:{id_}", f"runs:{id_}"):
        for key, _ in ask.world.store.items(ask.space(what)):
            ask.world.store.remove(ask.space(what), key)
    ask.world.store.remove(ask.space("threads"), id_)
    return Answer(200, {"id": id_, "object": "thread.deleted", "deleted": True})


def create_message(ask: Ask) -> Answer:
    """POST /threads/{thread}/messages."""
    thread, body = _thread(ask), ask.body()
    _check_message(body)
    message = put_message(ask.world, ask.owner, thread["id"], body, now=ask.now)
    return Answer(200, {k: v for k, v in message.items() if k != "visible"})


def list_messages(ask: Ask) -> Answer:
    """GET /threads/{thread}/messages."""
    items = _messages(ask, _thread(ask)["id"])
    if run := ask.call.parameter("run_id"):
        items = [item for item in items if item["run_id"] == run]
    return cursor_list(ask, items)


def _message(ask: Ask) -> Body:
    wanted = ask.names["message"]
    for item in _messages(ask, _thread(ask)["id"]):
        if item["id"] == wanted:
            return item
    raise not_found(f"No message found with id '{wanted}'.")


def get_message(ask: Ask) -> Answer:
    """GET /threads/{thread}/messages/{message}."""
    return Answer(200, _message(ask))


def modify_message(ask: Ask) -> Answer:
    """POST /threads/{thread}/messages/{message}."""
    changed = {**_message(ask), "metadata": checked_metadata(ask.body())}
    where = ask.space(f"messages:{changed['thread_id']}")
    ask.world.store.put(where, changed["id"], {**changed, "visible": changed["created_at"]})
    return Answer(200, changed)


def delete_message(ask: Ask) -> Answer:
    """DELETE /threads/{thread}/messages/{message}."""
    message = _message(ask)
    ask.world.store.remove(ask.space(f"messages:{message['thread_id']}"), message["id"])
    return Answer(200, {"id": message["id"], "object": "thread.message.deleted", "deleted": True})


# -- runs -----------------------------------------------------------------------------------------


def _status(run: Body, now: float) -> str:
    state = str(run["state"])
    if state == "cancelled":
        return state
    if now < run["ready_at"]:
        return "in_progress"
    if state == "requires_action" and now >= run["created_at"] + _EXPIRES:
        return "expired"
    return state


def _run_view(run: Body, now: float) -> Body:
    status = _status(run, now)
    done = status == "completed"
    hidden = ("state", "ready_at", "pending", "reply", "steps")
    shown = {k: v for k, v in run.items() if k not in hidden}
    waiting = None
    if status == "requires_action":
        waiting = {
            "type": "submit_tool_outputs",
            "submit_tool_outputs": {"tool_calls": run["pending"]},
        }
    return {
        **shown,
        "status": status,
        "required_action": waiting,
        "completed_at": int(run["ready_at"]) if done else None,
        "usage": run["usage"] if done else None,
    }


def _think(ask: Ask, run: Body, results: list[Body]) -> Body:
    """Work out how a run goes on, with what its tools gave so far."""
    serving = engine.serve(ask, run["model"])
    thread = run["thread_id"]
    messages: list[Body] = []
    if run["instructions"]:
        messages.append({"role": "system", "content": run["instructions"]})
    for message in _messages(ask, thread):
        text = "\n".join(part["text"]["value"] for part in message["content"])
        messages.append({"role": message["role"], "content": text})
    question = turn_of(messages).question
    for result in results:
        messages.append({"role": "assistant", "content": "", "tool_calls": [result["call"]]})
        called = {"role": "tool", "tool_call_id": result["call"]["id"]}
        messages.append({**called, "content": result["output"]})
    turn = turn_of(messages)
    ready = ask.now + ask.world.seconds("run")
    offered = functions_of({"tools": run["tools"]})
    if not results:
        blocked = filters.judge(engine.policy(ask, serving, "Prompt"), question, "Prompt").blocked
        if blocked:
            error = {
                "code": "content_filter",
                "message": "The prompt was filtered by the deployment's content policy.",
            }
            return {**run, "state": "failed", "ready_at": ready, "last_error": error}
        tool = choose_tool(question, offered, run["tool_choice"])
        if tool is not None:
            call = {
                "id": new_id(ask.world, "call_"),
                "type": "function",
                "function": {
                    "name": str(tool.get("name", "")),
                    "arguments": arguments(question, tool.get("parameters")),
                },
            }
            waiting = {"state": "requires_action", "pending": [call], "ready_at": ready}
            return {**run, **waiting}
    text = engine.answer(serving, turn)
    if filters.judge(engine.policy(ask, serving, "Completion"), text, "Completion").blocked:
        text = ""
    reply = put_message(
        ask.world,
        ask.owner,
        thread,
        {"role": "assistant", "content": text},
        now=ready,
        run=run["id"],
        assistant=run["assistant_id"],
    )
    used_in = sum(tokens(str(m["content"])) for m in messages)
    used_out = tokens(text)
    return {
        **run,
        "state": "completed",
        "ready_at": ready,
        "pending": [],
        "reply": reply["id"],
        "usage": {
            "prompt_tokens": used_in,
            "completion_tokens": used_out,
            "total_tokens": used_in + used_out,
        },
    }


def _start(ask: Ask, thread: Body, body: Body) -> Answer:
    assistant = _assistant(ask, ask.text(body, "assistant_id"))
    runs = ask.space(f"runs:{thread['id']}")
    for _, other in ask.world.store.items(runs):
        if _status(other, ask.now) in ("in_progress", "requires_action"):
            raise invalid(f"Thread {thread['id']} already has an active run {other['id']}.")
    for message in body.get("additional_messages") or []:
        _check_message(message)
        put_message(ask.world, ask.owner, thread["id"], message, now=ask.now)
    instructions = body.get("instructions") or assistant["instructions"] or ""
    if body.get("additional_instructions"):
        instructions = f"{instructions}\n{body['additional_instructions']}".strip()
    run: Body = {
        "id": new_id(ask.world, "run_"),
        "object": "thread.run",
        "created_at": int(ask.now),
        "thread_id": thread["id"],
        "assistant_id": assistant["id"],
        "model": body.get("model") or assistant["model"],
        "instructions": instructions,
        "tools": body["tools"] if body.get("tools") is not None else assistant["tools"],
        "metadata": checked_metadata(body),
        "tool_choice": body.get("tool_choice") or "auto",
        "temperature": body.get("temperature", assistant["temperature"]),
        "top_p": body.get("top_p", assistant["top_p"]),
        "max_prompt_tokens": body.get("max_prompt_tokens"),
        "max_completion_tokens": body.get("max_completion_tokens"),
        "truncation_strategy": body.get("truncation_strategy") or {"type": "auto"},
        "response_format": body.get("response_format") or assistant["response_format"],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "started_at": int(ask.now),
        "expires_at": int(ask.now) + _EXPIRES,
        "cancelled_at": None,
        "failed_at": None,
        "incomplete_details": None,
        "last_error": None,
        "usage": None,
        "state": "completed",
        "ready_at": ask.now,
        "pending": [],
        "reply": None,
        "steps": [],
    }
    run = _think(ask, run, [])
    ask.world.store.put(runs, run["id"], run)
    return _told(ask, body, run)


def _told(ask: Ask, body: Body, run: Body) -> Answer:
    if not body.get("stream"):
        return Answer(200, _run_view(run, ask.now))
    # a stream is the story told at once: begun, the message, the end
    end = run["ready_at"]
    events: list[Body] = [{"event": "thread.run.created", "data": _run_view(run, ask.now)}]
    if run["reply"]:
        where = ask.space(f"messages:{run['thread_id']}")
        message = ask.world.store.get(where, run["reply"]) or {}
        shown = {k: v for k, v in message.items() if k != "visible"}
        events.append({"event": "thread.message.completed", "data": shown})
    ended = _run_view(run, end)
    events.append({"event": f"thread.run.{ended['status']}", "data": ended})
    out = b"".join(
        f"event: {event['event']}\n".encode() + event_stream([event["data"]], done=False)
        for event in events
    )
    out += b"event: done\ndata: [DONE]\n\n"
    return Answer(200, out, media_type="text/event-stream; charset=utf-8")


def create_run(ask: Ask) -> Answer:
    """POST /threads/{thread}/runs."""
    return _start(ask, _thread(ask), ask.body())


def create_thread_and_run(ask: Ask) -> Answer:
    """POST /threads/runs."""
    body = ask.body()
    wanted = body.get("thread") or {}
    _check_thread(wanted)
    thread = put_thread(ask.world, ask.owner, wanted, now=ask.now)
    return _start(ask, thread, body)


def _run(ask: Ask) -> Body:
    id_, thread = ask.names["run"], _thread(ask)
    return ask.found(f"runs:{thread['id']}", id_, f"No run found with id '{id_}'.")


def list_runs(ask: Ask) -> Answer:
    """GET /threads/{thread}/runs."""
    items = ask.world.store.items(ask.space(f"runs:{_thread(ask)['id']}"))
    return cursor_list(ask, [_run_view(run, ask.now) for _, run in items])


def get_run(ask: Ask) -> Answer:
    """GET /threads/{thread}/runs/{run}."""
    return Answer(200, _run_view(_run(ask), ask.now))


def modify_run(ask: Ask) -> Answer:
    """POST /threads/{thread}/runs/{run}."""
    run = {**_run(ask), "metadata": checked_metadata(ask.body())}
    ask.world.store.put(ask.space(f"runs:{run['thread_id']}"), run["id"], run)
    return Answer(200, _run_view(run, ask.now))


def cancel_run(ask: Ask) -> Answer:
    """POST /threads/{thread}/runs/{run}/cancel."""
    run = _run(ask)
    state = _status(run, ask.now)
    if state not in ("in_progress", "requires_action"):
        raise invalid(f"Cannot cancel run with status '{state}'.")
    if run["reply"]:
        ask.world.store.remove(ask.space(f"messages:{run['thread_id']}"), run["reply"])
    run = {**run, "state": "cancelled", "cancelled_at": int(ask.now), "reply": None}
    ask.world.store.put(ask.space(f"runs:{run['thread_id']}"), run["id"], run)
    return Answer(200, _run_view(run, ask.now))


def submit(ask: Ask) -> Answer:
    """POST /threads/{thread}/runs/{run}/submit_tool_outputs."""
    run, body = _run(ask), ask.body()
    state = _status(run, ask.now)
    if state != "requires_action":
        raise invalid(f'Runs in status "{state}" do not accept tool outputs.')
    outputs: Any = body.get("tool_outputs") or []
    given = {str(o.get("tool_call_id")): str(o.get("output", "")) for o in outputs}
    missing = [call["id"] for call in run["pending"] if call["id"] not in given]
    if missing:
        raise invalid(f"Expected tool outputs for call_ids {missing}.", param="tool_outputs")
    results = [{"call": call, "output": given[call["id"]]} for call in run["pending"]]
    steps = [*run["steps"], *results]
    run = _think(ask, {**run, "steps": steps}, steps)
    ask.world.store.put(ask.space(f"runs:{run['thread_id']}"), run["id"], run)
    return _told(ask, body, run)


def _steps(run: Body, now: float) -> list[Body]:
    def step(number: int, kind: str, details: Body, status: str) -> Body:
        return {
            "id": f"step_{run['id'].removeprefix('run_')[:22]}{number:02d}",
            "object": "thread.run.step",
            "created_at": run["created_at"],
            "run_id": run["id"],
            "assistant_id": run["assistant_id"],
            "thread_id": run["thread_id"],
            "type": kind,
            "status": status,
            "cancelled_at": None,
            "completed_at": int(run["ready_at"]) if status == "completed" else None,
            "expired_at": None,
            "failed_at": None,
            "last_error": None,
            "metadata": None,
            "step_details": {"type": kind, kind: details},
            "usage": run["usage"] if kind == "message_creation" else None,
        }

    found: list[Body] = []
    for result in run["steps"]:
        called = {**result["call"]["function"], "output": result["output"]}
        calls: Any = [{**result["call"], "function": called}]
        found.append(step(len(found), "tool_calls", calls, "completed"))
    if _status(run, now) == "requires_action":
        open_calls: Any = [
            {**call, "function": {**call["function"], "output": None}} for call in run["pending"]
        ]
        found.append(step(len(found), "tool_calls", open_calls, "in_progress"))
    if run["reply"] and _status(run, now) == "completed":
        made = {"message_id": run["reply"]}
        found.append(step(len(found), "message_creation", made, "completed"))
    return found


def list_steps(ask: Ask) -> Answer:
    """GET /threads/{thread}/runs/{run}/steps."""
    return cursor_list(ask, _steps(_run(ask), ask.now))


def get_step(ask: Ask) -> Answer:
    """GET /threads/{thread}/runs/{run}/steps/{step}."""
    for item in _steps(_run(ask), ask.now):
        if item["id"] == ask.names["step"]:
            return Answer(200, item)
    raise DataError(404, "notFound", f"No run step found with id '{ask.names['step']}'.")


_A, _T = f"{OPENAI}/assistants", f"{OPENAI}/threads"
_ONE, _TALK = "/assistants/{assistant}", "/threads/{thread}"
_RUN, _SAID = f"{_TALK}/runs/{{run}}", f"{_TALK}/messages/{{message}}"
ROUTES: tuple[Route, ...] = (
    Route("POST", "/assistants", f"{_A}/write", create),
    Route("GET", "/assistants", f"{_A}/read", list_),
    Route("GET", _ONE, f"{_A}/read", get),
    Route("POST", _ONE, f"{_A}/write", modify),
    Route("DELETE", _ONE, f"{_A}/delete", delete),
    Route("POST", "/threads", f"{_T}/write", create_thread),
    Route("POST", "/threads/runs", f"{_T}/write", create_thread_and_run),
    Route("GET", _TALK, f"{_T}/read", get_thread),
    Route("POST", _TALK, f"{_T}/write", modify_thread),
    Route("DELETE", _TALK, f"{_T}/delete", delete_thread),
    Route("POST", f"{_TALK}/messages", f"{_T}/write", create_message),
    Route("GET", f"{_TALK}/messages", f"{_T}/read", list_messages),
    Route("GET", _SAID, f"{_T}/read", get_message),
    Route("POST", _SAID, f"{_T}/write", modify_message),
    Route("DELETE", _SAID, f"{_T}/delete", delete_message),
    Route("POST", f"{_TALK}/runs", f"{_T}/write", create_run),
    Route("GET", f"{_TALK}/runs", f"{_T}/read", list_runs),
    Route("GET", _RUN, f"{_T}/read", get_run),
    Route("POST", _RUN, f"{_T}/write", modify_run),
    Route("POST", f"{_RUN}/cancel", f"{_T}/write", cancel_run),
    Route("POST", f"{_RUN}/submit_tool_outputs", f"{_T}/write", submit),
    Route("GET", f"{_RUN}/steps", f"{_T}/read", list_steps),
    Route("GET", f"{_RUN}/steps/{{step}}", f"{_T}/read", get_step),
)
