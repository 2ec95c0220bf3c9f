"""Responses and conversations, also on behalf of a project's agents."""

from __future__ import annotations

from typing import Any

import orjson

from drills.sandbox.dataplane import engine, filters, vector_stores
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
)
from drills.sandbox.dataplane.chat import event_stream, functions_of, pieces, turn_of
from drills.sandbox.dataplane.engine import Serving
from drills.sandbox.dataplane.minds import arguments, choose_tool, flat, tokens
from drills.sandbox.wire import Answer, Body

_KEEP = 30 * 86_400.0  # stored responses live for 30 days (responses guide)


# -- what was said ------------------------------------------------------------------------------


def _items_of(ask: Ask, value: Any) -> list[Body]:
    """The input as items with ids."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    if not isinstance(value, list) or not value:
        raise DataError(
            400,
            "missing_required_parameter",
            "Missing required parameter: 'input'.",
            param="input",
        )
    found: list[Body] = []
    for entry in value:
        if not isinstance(entry, dict):
            raise invalid("Every item of 'input' must be an object.", param="input")
        item = {"type": "message", **entry}
        if item["type"] == "message":
            content = item.get("content")
            if isinstance(content, str):
                kind = "output_text" if item.get("role") == "assistant" else "input_text"
                item["content"] = [{"type": kind, "text": content}]
            item.setdefault("status", "completed")
        prefix = "msg_" if item["type"] == "message" else "fc_"
        item.setdefault("id", new_id(ask.world, prefix, 48))
        found.append(item)
    return found


def _messages(items: list[Body]) -> list[Body]:
    """Items as chat messages, so that both ways of asking share one answer."""
    found: list[Body] = []
    for item in items:
        match item.get("type"):
            case "message":
                found.append({"role": item.get("role", "user"), "content": item.get("content")})
            case "function_call":
                called = {"id": item.get("call_id"), "function": {"name": item.get("name")}}
                found.append({"role": "assistant", "content": "", "tool_calls": [called]})
            case "function_call_output":
                output = item.get("output")
                text = output if isinstance(output, str) else flat(output)
                found.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": text})
            case _:
                pass
    return found


# -- agents -------------------------------------------------------------------------------------


def _agent(ask: Ask, body: Body) -> tuple[Body, Body] | None:
    """The agent's version that a request refers to, and the reference as it is shown."""
    reference = body.get("agent_reference") or body.get("agent")
    if "agent" in ask.names:
        reference = {"name": ask.names["agent"]}
    if reference is None:
        return None
    if ask.project is None:
        raise invalid("Agents belong to a project's endpoint.", param="agent_reference")
    if not isinstance(reference, dict) or not reference.get("name"):
        raise invalid("'agent_reference' needs a 'name'.", param="agent_reference")
    name = str(reference["name"])
    agent = ask.world.store.get(ask.space("agents"), name)
    if agent is None:
        raise DataError(404, "not_found", f"Agent '{name}' was not found.")
    wanted = reference.get("version")
    version = agent["versions"][-1]
    if wanted:
        version = next((v for v in agent["versions"] if v["version"] == str(wanted)), None)
        if version is None:
            raise DataError(404, "not_found", f"Agent '{name}' has no version '{wanted}'.")
    if agent["state"] != "enabled":
        raise DataError(409, "conflict", f"Agent '{name}' is disabled.")
    shown = {"type": "agent_reference", "name": name, "version": version["version"]}
    return version["definition"], shown


# -- the call -----------------------------------------------------------------------------------


def create(ask: Ask) -> Answer:
    """POST /responses."""
    body = ask.body()
    agent = _agent(ask, body)
    wanted = dict(body)
    if agent is not None:
        definition, _ = agent
        for name in ("model", "instructions", "tools", "temperature", "top_p", "tool_choice"):
            if definition.get(name) is not None and body.get(name) is None:
                wanted[name] = definition[name]
    serving = engine.serve(ask, ask.text(wanted, "model"))
    if not serving.base.chat:
        raise DataError(
            400,
            "OperationNotSupported",
            f"The responses operation does not work with the specified model, "
            f"{engine.model_shown(serving)}.",
        )
    items = _items_of(ask, wanted.get("input"))
    conversation = _conversation(ask, body)
    before = _before(ask, body, conversation)
    said = "\n".join(m["content"] if isinstance(m["content"], str) else flat(m["content"])
                     for m in _messages(items))  # fmt: skip
    instructions = wanted.get("instructions")
    prompt = engine.guard(ask, serving, said)
    output, text, verdict = _output(ask, serving, wanted, [*before, *items])
    used_in = tokens(said) + tokens(instructions or "") + 4
    used_out = tokens(text)
    stopped = verdict is not None and verdict.blocked
    response: Body = {
        "id": new_id(ask.world, "resp_", 48),
        "object": "response",
        "created_at": int(ask.now),
        "status": "incomplete" if stopped else "completed",
        "background": False,
        "content_filters": [
            {
                "blocked": False,
                "source_type": "prompt",
                "content_filter_results": prompt.results,
            },
            *(
                [
                    {
                        "blocked": stopped,
                        "source_type": "completion",
                        "content_filter_results": verdict.results,
                    }
                ]
                if verdict is not None
                else []
            ),
        ],
        "error": None,
        "incomplete_details": {"reason": "content_filter"} if stopped else None,
        "instructions": instructions,
        "max_output_tokens": wanted.get("max_output_tokens"),
        "metadata": checked_metadata(body),
        "model": wanted["model"],
        "output": output,
        "parallel_tool_calls": wanted.get("parallel_tool_calls", True),
        "previous_response_id": body.get("previous_response_id"),
        "reasoning": {"effort": None, "summary": None},
        "store": body.get("store", True) is not False,
        "temperature": wanted.get("temperature", 1.0),
        "text": wanted.get("text") or {"format": {"type": "text"}},
        "tool_choice": wanted.get("tool_choice") or "auto",
        "tools": wanted.get("tools") or [],
        "top_p": wanted.get("top_p", 1.0),
        "truncation": wanted.get("truncation") or "disabled",
        "usage": {
            "input_tokens": used_in,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": used_out,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used_in + used_out,
        },
        "user": body.get("user"),
    }
    if conversation is not None:
        response["conversation"] = {"id": conversation["id"]}
        _extend(ask, conversation, [*items, *output])
    if agent is not None:
        response |= {"agent_reference": agent[1], "agent": agent[1]}
    if response["store"]:
        ask.world.store.put(
            ask.space("responses"),
            response["id"],
            {"response": response, "input": items, "before": before},
        )
    headers = engine.limits(serving, used_in + used_out)
    if body.get("stream"):
        return Answer(
            200,
            event_stream(_events(response), named=True, done=False),
            headers,
            "text/event-stream; charset=utf-8",
        )
    return Answer(200, response, headers)


def _before(ask: Ask, body: Body, conversation: Body | None) -> list[Body]:
    previous = body.get("previous_response_id")
    if previous and conversation is not None:
        raise invalid(
            "'previous_response_id' and 'conversation' exclude each other.",
            param="previous_response_id",
        )
    if conversation is not None:
        return list(conversation["items"])
    if not previous:
        return []
    kept = _kept(ask, str(previous))
    return [*kept["before"], *kept["input"], *kept["response"]["output"]]


def _output(
    ask: Ask, serving: Serving, body: Body, items: list[Body]
) -> tuple[list[Body], str, filters.Verdict | None]:
    messages = _messages(items)
    if body.get("instructions"):
        messages.insert(0, {"role": "system", "content": str(body["instructions"])})
    turn = turn_of(messages)
    output: list[Body] = []
    if not turn.tool_results:
        tool = choose_tool(turn.question, functions_of(body), body.get("tool_choice") or "auto")
        if tool is not None:
            call = {
                "id": new_id(ask.world, "fc_", 48),
                "type": "function_call",
                "call_id": new_id(ask.world, "call_"),
                "name": str(tool.get("name", "")),
                "arguments": arguments(turn.question, tool.get("parameters")),
                "status": "completed",
            }
            return [call], "", None
    found = _file_search(ask, body, turn.question)
    text, annotations = "", []
    if found is not None:
        output.append(found)
        if found["results"]:
            best = found["results"][0]
            text = f"According to {best['filename']}: {best['text']}"
            annotations = [
                {
                    "type": "file_citation",
                    "index": len(text),
                    "file_id": best["file_id"],
                    "filename": best["filename"],
                }
            ]
    if not text:
        shaped = engine.structured(body, turn.question)
        text = orjson.dumps(shaped).decode() if shaped is not None else engine.answer(serving, turn)
    text, _ = engine.cut(text, body.get("max_output_tokens"), None)
    verdict = filters.judge(engine.policy(ask, serving, "Completion"), text, "Completion")
    if verdict.blocked:
        text, annotations = "", []
    part = {"type": "output_text", "text": text, "annotations": annotations, "logprobs": []}
    output.append(
        {
            "id": new_id(ask.world, "msg_", 48),
            "type": "message",
            "role": "assistant",
            "status": "incomplete" if verdict.blocked else "completed",
            "content": [part],
        }
    )
    return output, text, verdict


def _file_search(ask: Ask, body: Body, question: str) -> Body | None:
    stores = [
        store
        for tool in body.get("tools") or []
        if isinstance(tool, dict) and tool.get("type") == "file_search"
        for store in tool.get("vector_store_ids") or []
    ]
    if not stores:
        return None
    results = []
    for store in stores:
        if ask.world.store.get(ask.space("vector_stores"), store) is None:
            raise not_found(f"No vector store found with id '{store}'.")
        results += [
            {
                "file_id": hit["id"],
                "filename": hit["filename"],
                "score": hit["score"],
                "attributes": hit["attributes"],
                "text": hit["text"],
            }
            for hit in vector_stores.hits_of(ask, store, question)
        ]
    return {
        "id": new_id(ask.world, "fs_", 48),
        "type": "file_search_call",
        "status": "completed",
        "queries": [question],
        "results": sorted(results, key=lambda r: -r["score"]),
    }


def _events(response: Body) -> list[Body]:
    events: list[Body] = []

    def tell(kind: str, **more: Any) -> None:
        events.append({"type": kind, "sequence_number": len(events), **more})

    begun = {**response, "status": "in_progress", "output": [], "usage": None}
    tell("response.created", response=begun)
    tell("response.in_progress", response=begun)
    for at, item in enumerate(response["output"]):
        place = {"output_index": at, "item_id": item["id"]}
        empty = {**item, "status": "in_progress"}
        empty |= {"content": []} if item["type"] == "message" else {}
        tell("response.output_item.added", output_index=at, item=empty)
        if item["type"] == "message":
            part = item["content"][0]
            where = {**place, "content_index": 0}
            tell("response.content_part.added", **where, part={**part, "text": ""})
            for piece in pieces(part["text"]) if part["text"] else ():
                tell("response.output_text.delta", **where, delta=piece, logprobs=[])
            tell("response.output_text.done", **where, text=part["text"], logprobs=[])
            tell("response.content_part.done", **where, part=part)
        elif item["type"] == "function_call":
            sent = item["arguments"]
            tell("response.function_call_arguments.delta", **place, delta=sent)
            tell(
                "response.function_call_arguments.done",
                **place,
                name=item["name"],
                arguments=sent,
            )
        tell("response.output_item.done", output_index=at, item=item)
    tell(f"response.{response['status']}", response=response)
    return events


# -- stored responses -----------------------------------------------------------------------------


def _kept(ask: Ask, id_: str) -> Body:
    kept = ask.world.store.get(ask.space("responses"), id_)
    if kept is not None and ask.now - kept["response"]["created_at"] > _KEEP:
        ask.world.store.remove(ask.space("responses"), id_)
        kept = None
    if kept is None:
        raise not_found(f"Response with id '{id_}' not found.")
    return kept


def get(ask: Ask) -> Answer:
    """GET /responses/{response}."""
    return Answer(200, _kept(ask, ask.names["response"])["response"])


def delete(ask: Ask) -> Answer:
    """DELETE /responses/{response}."""
    id_ = ask.names["response"]
    _kept(ask, id_)
    ask.world.store.remove(ask.space("responses"), id_)
    return Answer(200, {"id": id_, "object": "response.deleted", "deleted": True})


def input_items(ask: Ask) -> Answer:
    """GET /responses/{response}/input_items."""
    return cursor_list(ask, _kept(ask, ask.names["response"])["input"])


# -- conversations --------------------------------------------------------------------------------


def _conversation(ask: Ask, body: Body) -> Body | None:
    wanted = body.get("conversation")
    if wanted is None:
        return None
    id_ = str(wanted.get("id") if isinstance(wanted, dict) else wanted)
    return ask.found("conversations", id_, f"Conversation with id '{id_}' not found.")


def _extend(ask: Ask, conversation: Body, items: list[Body]) -> None:
    changed = {**conversation, "items": [*conversation["items"], *items]}
    ask.world.store.put(ask.space("conversations"), conversation["id"], changed)


def _shown(conversation: Body) -> Body:
    return {
        "id": conversation["id"],
        "object": "conversation",
        "created_at": conversation["created_at"],
        "metadata": conversation["metadata"],
    }


def _talk(ask: Ask) -> Body:
    id_ = ask.names["conversation"]
    return ask.found("conversations", id_, f"Conversation with id '{id_}' not found.")


def open_conversation(ask: Ask) -> Answer:
    """POST /conversations."""
    body = ask.body()
    conversation: Body = {
        "id": new_id(ask.world, "conv_", 48),
        "created_at": int(ask.now),
        "metadata": checked_metadata(body),
        "items": _items_of(ask, body["items"]) if body.get("items") else [],
    }
    ask.world.store.put(ask.space("conversations"), conversation["id"], conversation)
    return Answer(200, _shown(conversation))


def get_conversation(ask: Ask) -> Answer:
    """GET /conversations/{conversation}."""
    return Answer(200, _shown(_talk(ask)))


def modify_conversation(ask: Ask) -> Answer:
    """POST /conversations/{conversation}."""
    changed = {**_talk(ask), "metadata": checked_metadata(ask.body())}
    ask.world.store.put(ask.space("conversations"), changed["id"], changed)
    return Answer(200, _shown(changed))


def delete_conversation(ask: Ask) -> Answer:
    """DELETE /conversations/{conversation}: nothing brings it back."""
    id_ = _talk(ask)["id"]
    ask.world.store.remove(ask.space("conversations"), id_)
    return Answer(200, {"id": id_, "object": "conversation.deleted", "deleted": True})


def list_items(ask: Ask) -> Answer:
    """GET /conversations/{conversation}/items."""
    return cursor_list(ask, _talk(ask)["items"])


def add_items(ask: Ask) -> Answer:
    """POST /conversations/{conversation}/items."""
    items = _items_of(ask, ask.body().get("items"))
    _extend(ask, _talk(ask), items)
    return Answer(
        200,
        {
            "object": "list",
            "data": items,
            "first_id": items[0]["id"],
            "last_id": items[-1]["id"],
            "has_more": False,
        },
    )


def get_item(ask: Ask) -> Answer:
    """GET /conversations/{conversation}/items/{item}."""
    for item in _talk(ask)["items"]:
        if item["id"] == ask.names["item"]:
            return Answer(200, item)
    raise not_found(f"Item with id '{ask.names['item']}' not found.")


def delete_item(ask: Ask) -> Answer:
    """DELETE /conversations/{conversation}/items/{item}."""
    talk = _talk(ask)
    rest = [item for item in talk["items"] if item["id"] != ask.names["item"]]
    if len(rest) == len(talk["items"]):
        raise not_found(f"Item with id '{ask.names['item']}' not found.")
    ask.world.store.put(ask.space("conversations"), talk["id"], {**talk, "items": rest})
    return Answer(200, _shown(talk))


_ACTION = f"{OPENAI}/responses"
_ONE = "/responses/{response}"
_TALK = "/conversations/{conversation}"
ROUTES: tuple[Route, ...] = (
    Route("POST", "/responses", f"{_ACTION}/write", create, V1_ONLY),
    Route("GET", _ONE, f"{_ACTION}/read", get, V1_ONLY),
    Route("DELETE", _ONE, f"{_ACTION}/delete", delete, V1_ONLY),
    Route("GET", f"{_ONE}/input_items", f"{_ACTION}/read", input_items, V1_ONLY),
    Route("POST", "/conversations", f"{_ACTION}/write", open_conversation, V1_ONLY),
    Route("GET", _TALK, f"{_ACTION}/read", get_conversation, V1_ONLY),
    Route("POST", _TALK, f"{_ACTION}/write", modify_conversation, V1_ONLY),
    Route("DELETE", _TALK, f"{_ACTION}/delete", delete_conversation, V1_ONLY),
    Route("GET", f"{_TALK}/items", f"{_ACTION}/read", list_items, V1_ONLY),
    Route("POST", f"{_TALK}/items", f"{_ACTION}/write", add_items, V1_ONLY),
    Route("GET", f"{_TALK}/items/{{item}}", f"{_ACTION}/read", get_item, V1_ONLY),
    Route("DELETE", f"{_TALK}/items/{{item}}", f"{_ACTION}/delete", delete_item, V1_ONLY),
)
