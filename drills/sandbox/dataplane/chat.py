"""Chat completions, completions and embeddings, whole or as a stream."""

from __future__ import annotations

import base64
import hashlib
import struct
from typing import Any

import orjson

from drills.sandbox.dataplane import engine, filters
from drills.sandbox.dataplane.ask import CLASSIC_ONLY as CLASSIC
from drills.sandbox.dataplane.ask import OPENAI, V1_ONLY, Ask, DataError, Route, invalid
from drills.sandbox.dataplane.engine import Serving, Turn
from drills.sandbox.dataplane.minds import arguments, choose_tool, embed, flat, tokens
from drills.sandbox.wire import Answer, Body

_ROLES = ("system", "developer", "user", "assistant", "tool", "function")


def _name(ask: Ask, body: Body) -> str:
    named = ask.names.get("deployment")
    return named if named is not None else ask.text(body, "model")


def turn_of(messages: list[Body]) -> Turn:
    """What a conversation asks: its last user turn, or the tools' answers after it."""
    question = ""
    before: list[str] = []
    results: list[tuple[str, str]] = []
    names: dict[str, str] = {}
    for message in messages:
        role, said = message.get("role"), flat(message.get("content"))
        if role == "user":
            if question:
                before.append(question)
            question, results = said, []
        elif role in ("tool", "function"):
            called = str(message.get("tool_call_id") or message.get("name") or "")
            results.append((names.get(called, called), said))
        else:
            before.append(said)
            for call in message.get("tool_calls") or []:
                names[str(call.get("id"))] = str((call.get("function") or {}).get("name", ""))
    return Turn(question, "\n".join(before), tuple(results))


def _check_messages(value: Any) -> list[Body]:
    if not isinstance(value, list) or not value:
        raise DataError(
            400,
            "missing_required_parameter",
            "Missing required parameter: 'messages'.",
            param="messages",
        )
    for at, message in enumerate(value):
        if not isinstance(message, dict) or message.get("role") not in _ROLES:
            raise DataError(
                400,
                "invalid_value",
                f"Invalid value for 'messages[{at}].role'. Supported values are: "
                f"{', '.join(_ROLES)}.",
                param=f"messages[{at}].role",
            )
    return value


def _count(body: Body, name: str, default: int, most: int) -> int:
    value = body.get(name)
    if value is None:
        return default
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise DataError(400, "invalid_value", f"Invalid value for '{name}': {value!r}.", param=name)
    return value


def _temperature(body: Body) -> None:
    value = body.get("temperature")
    if value is not None and not (isinstance(value, int | float) and 0 <= value <= 2):
        raise DataError(
            400,
            "decimal_above_max_value",
            f"Invalid 'temperature': expected a decimal from 0 to 2, but got {value!r} instead.",
            param="temperature",
        )


def functions_of(body: Body) -> list[Body]:
    """The functions that a request offers (`tools`, or the older `functions`)."""
    found = [
        tool.get("function") or tool
        for tool in body.get("tools") or []
        if isinstance(tool, dict) and tool.get("type") == "function"
    ]
    return found + list(body.get("functions") or [])


def chat(ask: Ask) -> Answer:
    """POST …/chat/completions."""
    body = ask.body()
    serving = engine.serve(ask, _name(ask, body))
    if not serving.base.chat:
        raise DataError(
            400,
            "OperationNotSupported",
            f"The chatCompletion operation does not work with the specified model, "
            f"{engine.model_shown(serving)}. Please choose different model and try again.",
        )
    messages = _check_messages(body.get("messages"))
    _temperature(body)
    many = _count(body, "n", 1, 128)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    turn = turn_of(messages)
    said = "\n".join(flat(m.get("content")) for m in messages if m.get("role") != "assistant")
    prompt = engine.guard(ask, serving, said)
    rules = engine.policy(ask, serving, "Completion")
    used_in = sum(tokens(flat(m.get("content"))) + 4 for m in messages) + 3
    choices, used_out = [], 0
    for index in range(many):
        choice, text = _choice(ask, serving, body, turn=turn, index=index, limit=limit)
        verdict = filters.judge(rules, text, "Completion")
        if verdict.blocked:
            choice["message"] = {"role": "assistant", "content": None, "refusal": None}
            choice["finish_reason"] = "content_filter"
        choice["content_filter_results"] = verdict.results if text else {}
        choices.append(choice)
        used_out += tokens(text)
    usage = _usage(used_in, used_out)
    head = {
        "id": f"chatcmpl-{ask.world.hex(29)}",
        "created": int(ask.now),
        "model": engine.model_shown(serving),
        "system_fingerprint": f"fp_{_fingerprint(serving)}",
    }
    noted = [{"prompt_index": 0, "content_filter_results": prompt.results}]
    headers = engine.limits(serving, used_in + used_out)
    if body.get("stream"):
        return _stream(head, choices, usage if _wants_usage(body) else None, noted, headers)
    return Answer(
        200,
        {
            **head,
            "object": "chat.completion",
            "choices": choices,
            "prompt_filter_results": noted,
            "usage": usage,
        },
        headers,
    )


def _choice(
    ask: Ask, serving: Serving, body: Body, *, turn: Turn, index: int, limit: int | None
) -> tuple[Body, str]:
    message: Body = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    wanted = body.get("tool_choice", body.get("function_call", "auto"))
    tool = None
    if not turn.tool_results:
        tool = choose_tool(turn.question, functions_of(body), wanted)
    if tool is not None:
        called = {
            "name": str(tool.get("name", "")),
            "arguments": arguments(turn.question, tool.get("parameters")),
        }
        message["tool_calls"] = [
            {"id": f"call_{ask.world.hex(24)}", "type": "function", "function": called}
        ]
        text, reason = "", "tool_calls"
    else:
        shaped = engine.structured(body, turn.question)
        if shaped is not None:
            text = orjson.dumps(shaped).decode()
        else:
            text = engine.answer(serving, turn, variant=index)
        text, reason = engine.cut(text, limit, body.get("stop"))
        message["content"] = text
    return (
        {"index": index, "finish_reason": reason, "logprobs": None, "message": message},
        text,
    )


def _fingerprint(serving: Serving) -> str:
    return hashlib.sha256(serving.mind.seed.encode()).hexdigest()[:10]


def _usage(prompt: int, completion: int) -> Body:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
        "completion_tokens_details": {"reasoning_tokens": 0},
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def _wants_usage(body: Body) -> bool:
    return bool((body.get("stream_options") or {}).get("include_usage"))


def event_stream(events: list[Body], *, named: bool = False, done: bool = True) -> bytes:
    """Server-sent events; `named` also says each event's type in an `event:` line."""
    out = []
    for event in events:
        head = b"event: " + str(event["type"]).encode() + b"\n" if named else b""
        out.append(head + b"data: " + orjson.dumps(event) + b"\n\n")
    if done:
        out.append(b"data: [DONE]\n\n")
    return b"".join(out)


def pieces(text: str) -> list[str]:
    """A text in the pieces that a stream sends: word by word, spaces kept."""
    found: list[str] = []
    for word in text.split(" "):
        found.append(word if not found else " " + word)
    return found


def _stream(
    head: Body, choices: list[Body], usage: Body | None, noted: list[Body], headers: dict[str, str]
) -> Answer:
    head = {**head, "object": "chat.completion.chunk"}
    events: list[Body] = [
        {**head, "id": "", "model": "", "choices": [], "prompt_filter_results": noted}
    ]

    def chunk(choice: Body, delta: Body, reason: str | None = None, **more: Body) -> None:
        part = {"index": choice["index"], "delta": delta, "finish_reason": reason, "logprobs": None}
        events.append({**head, "choices": [{**part, **more}]})

    for choice in choices:
        message = choice["message"]
        chunk(choice, {"role": "assistant", "content": "", "refusal": None})
        for at, call in enumerate(message.get("tool_calls") or []):
            function = call["function"]
            start = {"name": function["name"], "arguments": ""}
            chunk(
                choice,
                {"tool_calls": [{"index": at, **call, "function": start}]},
            )
            chunk(
                choice,
                {"tool_calls": [{"index": at, "function": {"arguments": function["arguments"]}}]},
            )
        for piece in pieces(message["content"]) if message.get("content") else ():
            chunk(
                choice,
                {"content": piece},
                content_filter_results=choice["content_filter_results"],
            )
        chunk(
            choice,
            {},
            choice["finish_reason"],
            content_filter_results=choice["content_filter_results"],
        )
    if usage is not None:
        events.append({**head, "choices": [], "usage": usage})
    return Answer(200, event_stream(events), headers, "text/event-stream; charset=utf-8")


def complete(ask: Ask) -> Answer:
    """POST …/completions."""
    body = ask.body()
    serving = engine.serve(ask, _name(ask, body))
    if not serving.base.completion:
        raise DataError(
            400,
            "OperationNotSupported",
            f"The completion operation does not work with the specified model, "
            f"{engine.model_shown(serving)}. Please choose different model and try again.",
        )
    sent = body.get("prompt", "<|endoftext|>")
    listed: list[Any] = sent if isinstance(sent, list) else [sent]
    prompts = [p for p in listed if isinstance(p, str)]
    if len(prompts) != len(listed):
        raise invalid("'prompt' must be a string or a list of strings.", param="prompt")
    many = _count(body, "n", 1, 128)
    choices: list[Body] = []
    noted: list[Body] = []
    used_in = used_out = 0
    rules = engine.policy(ask, serving, "Completion")
    for at, prompt in enumerate(prompts):
        verdict = engine.guard(ask, serving, prompt)
        noted.append({"prompt_index": at, "content_filter_results": verdict.results})
        used_in += tokens(prompt)
        for variant in range(many):
            text = engine.answer(serving, Turn(prompt, ""), variant=variant)
            text, reason = engine.cut(text, body.get("max_tokens") or 16, body.get("stop"))
            checked = filters.judge(rules, text, "Completion")
            used_out += tokens(text)
            choices.append(
                {
                    "index": len(choices),
                    "text": "" if checked.blocked else text,
                    "finish_reason": "content_filter" if checked.blocked else reason,
                    "logprobs": None,
                    "content_filter_results": checked.results,
                }
            )
    whole: Body = {
        "id": f"cmpl-{ask.world.hex(29)}",
        "object": "text_completion",
        "created": int(ask.now),
        "model": engine.model_shown(serving),
        "choices": choices,
        "prompt_filter_results": noted,
        "usage": _usage(used_in, used_out),
    }
    headers = engine.limits(serving, used_in + used_out)
    if body.get("stream"):
        return Answer(200, event_stream([whole]), headers, "text/event-stream; charset=utf-8")
    return Answer(200, whole, headers)


def embeddings(ask: Ask) -> Answer:
    """POST …/embeddings."""
    body = ask.body()
    serving = engine.serve(ask, _name(ask, body))
    full = serving.base.dimensions
    if not full:
        raise DataError(
            400,
            "OperationNotSupported",
            f"The embeddings operation does not work with the specified model, "
            f"{engine.model_shown(serving)}. Please choose different model and try again.",
        )
    sent = body.get("input")
    values: list[Any] = sent if isinstance(sent, list) else [sent]
    if values and all(isinstance(v, int) for v in values):
        values = [values]  # one text as token numbers
    if not values or len(values) > 2048 or any(v in (None, "", []) for v in values):
        raise DataError(400, "invalid_value", "'$.input' is invalid.", param="input")
    texts = [v if isinstance(v, str) else " ".join(str(n) for n in v) for v in values]
    length = _count(body, "dimensions", full, full)
    if length != full and not serving.base.shrinks:
        raise DataError(
            400,
            "invalid_value",
            "This model does not support specifying dimensions.",
            param="dimensions",
        )
    data = []
    for at, text in enumerate(texts):
        vector = embed(serving.base.name, serving.mind.version, text, length, full)
        shown: Any = vector
        if body.get("encoding_format") == "base64":
            shown = base64.b64encode(struct.pack(f"<{length}f", *vector)).decode()
        data.append({"object": "embedding", "index": at, "embedding": shown})
    used = sum(tokens(text) for text in texts)
    return Answer(
        200,
        {
            "object": "list",
            "data": data,
            "model": serving.base.name,
            "usage": {"prompt_tokens": used, "total_tokens": used},
        },
        engine.limits(serving, used),
    )


_IN = "/deployments/{deployment}"
_ACTION = f"{OPENAI}/deployments"
ROUTES: tuple[Route, ...] = (
    Route("POST", f"{_IN}/chat/completions", f"{_ACTION}/chat/completions/action", chat, CLASSIC),
    Route("POST", f"{_IN}/completions", f"{_ACTION}/completions/action", complete, CLASSIC),
    Route("POST", f"{_IN}/embeddings", f"{_ACTION}/embeddings/action", embeddings, CLASSIC),
    Route("POST", "/chat/completions", f"{_ACTION}/chat/completions/action", chat, V1_ONLY),
    Route("POST", "/completions", f"{_ACTION}/completions/action", complete, V1_ONLY),
    Route("POST", "/embeddings", f"{_ACTION}/embeddings/action", embeddings, V1_ONLY),
)
