"""Questions to models and agents as raw calls, each paid from a check's own allowance."""

from __future__ import annotations

from dataclasses import dataclass, field

from drills.checks.settings import Settings
from drills.checks.targets import objects_at, text_at, within
from drills.model import CheckContext
from snapshots.cloud import Place
from snapshots.errors import CloudError, DamagedAnswerError, RefusedError
from snapshots.model import Json, JsonObject

_CHAT = "/openai/v1/chat/completions"
_EMBEDDINGS = "/openai/v1/embeddings"
_RESPONSES = "/openai/v1/responses"
_MOST_TEXTS = 256  # in one call; the service takes 2048 (azure-ai-docs, embeddings reference)


@dataclass(slots=True)
class Allowance:
    """What one check may spend: calls, tokens of answers, and seconds. Not shared by threads.

    Before each call it is checked; what is used up raises RefusedError, so that the check is not
    run to its end and not passed.
    """

    calls: int
    tokens: int
    seconds: float
    begun: float = -1.0

    def pay(self, context: CheckContext, tokens: int) -> None:
        """Pay for one call that may answer with so many tokens."""
        now = context.clock.now().timestamp()
        if self.begun < 0:
            self.begun = now
        short = ""
        if self.calls < 1:
            short = "max_calls"
        elif self.tokens < tokens:
            short = "max_tokens"
        elif now - self.begun > self.seconds:
            short = "max_seconds"
        if short:
            raise RefusedError(
                f"the check's allowance is used up ({short})",
                remedy=f"raise {short} of the check, or ask less",
            )
        self.calls -= 1
        self.tokens -= tokens


@dataclass(frozen=True, slots=True)
class Bounds:
    """The allowance that a script gives a check."""

    calls: int = 200
    tokens: int = 40_000
    seconds: float = 600.0

    @classmethod
    def read(cls, settings: Settings) -> Bounds:
        """Read max_calls, max_tokens and max_seconds."""
        return cls(
            settings.whole("max_calls", 200, least=1, most=100_000),
            settings.whole("max_tokens", 40_000, least=1, most=100_000_000),
            settings.number("max_seconds", 600.0, least=1.0, most=86_400.0),
        )

    def allowance(self) -> Allowance:
        """Give a fresh allowance, for one run."""
        return Allowance(self.calls, self.tokens, self.seconds)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool that was called: its name, its arguments as JSON text, and the call's id."""

    name: str
    arguments: str = ""
    id: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What a model or an agent answered.

    `filtered` names the side that a content filter stopped: "prompt", "completion" or "".
    `refused` is the model's own refusal field, which is no text.
    """

    text: str
    filtered: str = ""
    refused: bool = False
    tools: tuple[ToolCall, ...] = ()
    seconds: float = 0.0
    model: str = ""
    items: tuple[JsonObject, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: messages in the chat form, and how the answer is bounded."""

    messages: tuple[JsonObject, ...]
    max_tokens: int = 200
    temperature: float | None = 0.0  # None for models that take none (reasoning models)
    seed: int | None = 0
    response_format: Json = None

    @classmethod
    def of(cls, prompt: str, *, max_tokens: int = 200) -> Question:
        """Give the question of one user turn."""
        return cls(({"role": "user", "content": prompt},), max_tokens)


def blocked(error: CloudError) -> bool:
    """Whether an error is a content filter's: the prompt was stopped."""
    code = (error.code or "").lower().replace("_", "")
    return error.status == 400 and code in {"contentfilter", "responsibleaipolicyviolation"}


def chat(
    context: CheckContext,
    place: Place,
    deployment: str,
    question: Question,
    allowance: Allowance,
) -> Said:
    """Ask a deployment. Raises the cloud's errors, but a stopped prompt is an answer."""
    allowance.pay(context, question.max_tokens)
    body: JsonObject = {
        "model": deployment,
        "messages": list(question.messages),
        "max_completion_tokens": question.max_tokens,
    }
    if question.temperature is not None:
        body["temperature"] = question.temperature
        body["seed"] = question.seed
    if question.response_format is not None:
        body["response_format"] = question.response_format
    try:
        # `reads`: asking twice changes nothing, so it is repeated as a read is.
        answer = context.cloud.post(place, _CHAT, body, kind="check:chat", reads=True)
    except CloudError as error:
        if blocked(error):
            return Said("", filtered="prompt")
        raise
    choices = objects_at(answer.body, "choices")
    if not choices:
        raise _damaged("the answer has no choices", place)
    message = within(choices[0], "message")
    reason = text_at(choices[0], "finish_reason")
    return Said(
        text_at(message, "content"),
        filtered="completion" if reason == "content_filter" else "",
        refused=bool(text_at(message, "refusal")),
        tools=tuple(
            ToolCall(
                text_at(call, "function", "name"),
                text_at(call, "function", "arguments"),
                text_at(call, "id"),
            )
            for call in objects_at(message, "tool_calls")
        ),
        seconds=answer.seconds,
        model=text_at(answer.body, "model"),
    )


def embed(
    context: CheckContext,
    place: Place,
    deployment: str,
    texts: list[str],
    allowance: Allowance,
    *,
    dimensions: int | None = None,
) -> list[tuple[float, ...]]:
    """Give the vectors of texts, in their order. Raises the cloud's errors."""
    vectors: list[tuple[float, ...]] = []
    for start in range(0, len(texts), _MOST_TEXTS):
        some = texts[start : start + _MOST_TEXTS]
        allowance.pay(context, 0)
        body: JsonObject = {"model": deployment, "input": list(some), "encoding_format": "float"}
        if dimensions is not None:
            body["dimensions"] = dimensions
        answer = context.cloud.post(place, _EMBEDDINGS, body, kind="check:embed", reads=True)
        found: dict[int, tuple[float, ...]] = {}
        for item in objects_at(answer.body, "data"):
            index, raw = item.get("index"), item.get("embedding")
            if isinstance(index, int) and isinstance(raw, list):
                found[index] = tuple(float(x) for x in raw if isinstance(x, int | float))
        if sorted(found) != list(range(len(some))):
            raise _damaged(f"{len(some)} texts were sent and {len(found)} vectors came", place)
        vectors += [found[index] for index in range(len(some))]
    return vectors


def respond(
    context: CheckContext,
    place: Place,
    agent: str,
    items: list[Json],
    allowance: Allowance,
    *,
    max_tokens: int,
) -> Said:
    """Run a project's agent once; nothing is stored. Raises the cloud's errors."""
    allowance.pay(context, max_tokens)
    body: JsonObject = {
        "agent_reference": {"type": "agent_reference", "name": agent},
        "input": items,
        "max_output_tokens": max_tokens,
        "store": False,
    }
    try:
        answer = context.cloud.post(place, _RESPONSES, body, kind="check:agent", reads=True)
    except CloudError as error:
        if blocked(error):
            return Said("", filtered="prompt")
        raise
    output = objects_at(answer.body, "output")
    if not output:
        raise _damaged("the answer has no output", place)
    texts: list[str] = []
    tools: list[ToolCall] = []
    for item in output:
        match text_at(item, "type"):
            case "message":
                texts += [text_at(part, "text") for part in objects_at(item, "content")]
            case "function_call":
                tools.append(
                    ToolCall(
                        text_at(item, "name"), text_at(item, "arguments"), text_at(item, "call_id")
                    )
                )
            case kind if kind.endswith("_call"):  # file_search_call, mcp_call, web_search_call …
                tools.append(ToolCall(kind.removesuffix("_call"), id=text_at(item, "id")))
            case _:
                pass
    stopped = text_at(answer.body, "incomplete_details", "reason") == "content_filter"
    return Said(
        "\n".join(texts),
        filtered="completion" if stopped else "",
        tools=tuple(tools),
        seconds=answer.seconds,
        model=text_at(answer.body, "model"),
        items=tuple(output),
    )


def _damaged(what: str, place: Place) -> DamagedAnswerError:
    return DamagedAnswerError(
        what, where=place.base, remedy="try again; if it stays, report it to Azure"
    )
