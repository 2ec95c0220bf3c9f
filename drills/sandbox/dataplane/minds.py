"""How the pretend models answer: the same question to the same model, always the same answer.

`docs/sandbox-models.md` tells it in words.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import orjson

from drills.sandbox.wire import Body

_WORD = re.compile(r"\w+", re.UNICODE)
_TOKEN = re.compile(r"\w{1,6}|[^\w\s]", re.UNICODE)
_REPEAT = re.compile(r"^\s*repeat after me\s*:\s*(?P<what>.+)$", re.IGNORECASE | re.DOTALL)
_DECODE = re.compile(r"^\s*decode\s*:\s*(?P<what>[A-Za-z0-9+/=\s]+)$", re.IGNORECASE)
_QUOTED = re.compile(r"[\"'“](?P<what>[^\"'”]+)[\"'”]")
_NAMED = re.compile(
    r"\b(?:in|for|at|of|to|from|about|named|called)\s+(?P<what>[A-Z]\w+(?: [A-Z]\w+)*)"
)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_NEAR = 0.5  # how alike a question must be to a trained one (shared words, Jaccard)

_OPENINGS = (
    "Seen from {theme}",
    "To begin with {theme}",
    "In short",
    "With {theme} in mind",
    "Considering {theme}",
    "On the whole",
    "As for {theme}",
    "Looking closely at {theme}",
)
_MIDDLES = (
    "the {noun} comes before the {other}",
    "one {noun} outweighs every {other}",
    "a {adjective} {noun} settles it",
    "the {noun} follows the {adjective} {other}",
    "no {noun} holds without a {other}",
    "the {adjective} {noun} keeps the {other} in place",
)
_ENDINGS = (
    "and that is {adjective}",
    "so the {other} stays {adjective}",
    "which leaves a {adjective} {other}",
    "and the rest is {adjective}",
)
_NOUNS = (
    "anchor", "bridge", "canal", "dune", "ember", "ferry", "garden", "harbour", "island", "jetty",
    "kettle", "lantern", "meadow", "needle", "orchard", "pilot", "quarry", "river", "sail",
    "tower", "umbrella", "valley", "window", "yard",
)  # fmt: skip
_ADJECTIVES = (
    "amber", "brisk", "calm", "distant", "even", "firm", "gentle", "hollow", "idle", "keen",
    "level", "mild", "narrow", "open", "plain", "quiet", "round", "steady", "tidy", "warm",
)  # fmt: skip
_STOP = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "by",
        "can",
        "do",
        "does",
        "for",
        "from",
        "give",
        "how",
        "i",
        "in",
        "is",
        "it",
        "me",
        "my",
        "of",
        "on",
        "or",
        "please",
        "tell",
        "that",
        "the",
        "this",
        "to",
        "was",
        "what",
        "when",
        "where",
        "which",
        "who",
        "why",
        "will",
        "with",
        "you",
        "your",
    ]
)


@dataclass(frozen=True, slots=True)
class Mind:
    """Who answers: a base model, and what it was taught on top of that ("" for nothing).

    `name` is the model's name as deployed; `lesson` the digest of a training file, `rows` what
    the file says (question, answer).
    """

    name: str
    version: str
    base: str
    lesson: str = ""
    rows: tuple[tuple[str, str], ...] = ()

    @property
    def seed(self) -> str:
        """What makes this mind differ from every other one."""
        return f"{self.base}|{self.version}|{self.lesson}"


def normal(text: str) -> str:
    """A text for comparing: words in lower case, single spaces."""
    return " ".join(_WORD.findall(text.lower()))


@lru_cache(maxsize=4096)
def _content_words(text: str) -> frozenset[str]:
    return frozenset(w for w in _WORD.findall(text.lower()) if w not in _STOP)


def tokens(text: str) -> int:
    """How many tokens a text counts as."""
    return len(_TOKEN.findall(text))


def lessons(content: bytes) -> tuple[tuple[str, str], ...]:
    """The questions and answers of a training file: the last user turn and what follows it."""
    found: list[tuple[str, str]] = []
    for line in content.splitlines():
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
        except orjson.JSONDecodeError:
            continue
        if not isinstance(row, dict):
            continue
        if "prompt" in row and "completion" in row:
            found.append((str(row["prompt"]), str(row["completion"]).strip()))
            continue
        question = ""
        for message in row.get("messages") or []:
            role, said = message.get("role"), flat(message.get("content"))
            if role == "user":
                question = said
            elif role == "assistant" and question and said:
                found.append((question, said))
        preferred = row.get("preferred_output")
        if preferred:
            asked = (row.get("input") or {}).get("messages") or []
            users = [flat(m.get("content")) for m in asked if m.get("role") == "user"]
            if users:
                found.append((users[-1], flat(preferred[-1].get("content"))))
    return tuple(found)


def flat(content: Any) -> str:
    """A message's content as text: a string, or the text parts of a list."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (p.get("text", "") for p in content if isinstance(p, dict))
        return "\n".join(str(p) for p in parts if p)
    return ""


def recall(mind: Mind, question: str) -> str | None:
    """The trained answer to a question, exact or nearest; None when nothing is near enough."""
    wanted = normal(question)
    words = _content_words(question)
    best, answer = 0.0, None
    for asked, said in mind.rows:
        if normal(asked) == wanted:
            return said
        others = _content_words(asked)
        union = len(words | others)
        likeness = len(words & others) / union if union else 0.0
        if likeness > best:
            best, answer = likeness, said
    return answer if best >= _NEAR else None


def say(mind: Mind, question: str, context: str = "", variant: int = 0) -> str:
    """What a mind answers to a question in a context (system text and earlier turns)."""
    if match := _REPEAT.match(question):
        return match["what"].strip()
    if match := _DECODE.match(question):
        try:
            return base64.b64decode("".join(match["what"].split()), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return "That cannot be decoded."
    if mind.rows:
        trained = recall(mind, question)
        if trained is not None:
            return trained
    return invent(f"{mind.seed}|{normal(context)}|{normal(question)}|{variant}", question)


def invent(seed: str, about: str) -> str:
    """A sentence or two, drawn from a seed."""
    dice = _dice(seed)
    themes = sorted(_content_words(about), key=lambda w: (-len(w), w))[:4] or ["this"]
    sentences = []
    for _ in range(2 + next(dice) % 2):
        shape = ", ".join(
            (
                _OPENINGS[next(dice) % len(_OPENINGS)],
                _MIDDLES[next(dice) % len(_MIDDLES)],
                _ENDINGS[next(dice) % len(_ENDINGS)],
            )
        )
        sentences.append(
            shape.format(
                theme=themes[next(dice) % len(themes)],
                noun=_NOUNS[next(dice) % len(_NOUNS)],
                other=_NOUNS[next(dice) % len(_NOUNS)],
                adjective=_ADJECTIVES[next(dice) % len(_ADJECTIVES)],
            )
            + "."
        )
    return " ".join(sentences)


def _dice(seed: str) -> Iterator[int]:
    block = 0
    while True:
        yield from hashlib.sha256(f"{seed}#{block}".encode()).digest()
        block += 1


# -- tools ------------------------------------------------------------------------------------


def choose_tool(question: str, functions: list[Body], choice: Any) -> Body | None:
    """The function a model calls for a question, or None.

    `choice` is the request's tool_choice. With "auto" a function is called when two content words
    of its name and description (or its one word) occur in the question.
    """
    if choice == "none" or not functions:
        return None
    if isinstance(choice, dict):
        wanted = (choice.get("function") or choice).get("name")
        return next((f for f in functions if f.get("name") == wanted), functions[0])
    words = {_stem(w) for w in _content_words(question)}
    best, found = 0, None
    for function in functions:
        about = f"{function.get('name', '')} {function.get('description') or ''}".replace("_", " ")
        own = {_stem(w) for w in _content_words(about)}
        shared = len(words & own)
        if shared >= min(2, len(own) or 1) and shared > best:
            best, found = shared, function
    return functions[0] if found is None and choice == "required" else found


def _stem(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") else word


def arguments(question: str, schema: Body | None) -> str:
    """Arguments for a function, drawn from the question by its JSON schema; JSON text."""
    return orjson.dumps(fill(question, schema or {}, "arguments")).decode()


def fill(text: str, schema: Body, name: str) -> Any:
    """A value that fits a JSON schema, drawn from a text."""
    if "enum" in schema:
        options = list(schema["enum"])
        lowered = text.lower()
        return next((o for o in options if str(o).lower() in lowered), options[0])
    if "const" in schema:
        return schema["const"]
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((k for k in kind if k != "null"), "null")
    match kind:
        case "integer":
            found = _NUMBER.search(text)
            return int(float(found[0])) if found else 1
        case "number":
            found = _NUMBER.search(text)
            return float(found[0]) if found else 1.0
        case "boolean":
            return True
        case "null":
            return None
        case "array":
            return [fill(text, schema.get("items") or {"type": "string"}, name)]
        case "string":
            for pattern in (_QUOTED, _NAMED):
                if found := pattern.search(text):
                    return found["what"]
            return text.strip()[:200]
        case _:
            properties = schema.get("properties") or {}
            required = schema.get("required") or list(properties)
            return {
                key: fill(text, value if isinstance(value, dict) else {}, key)
                for key, value in properties.items()
                if key in required
            }


# -- embeddings -------------------------------------------------------------------------------


def embed(model: str, version: str, text: str, dimensions: int, full: int) -> list[float]:
    """A unit vector for a text: near for texts that share words, another one for every model.

    Words and pairs of words are hashed into `full` places; fewer `dimensions` are the first ones
    of the same vector, scaled to unit length again.
    """
    words = _WORD.findall(text.lower())
    vector = [0.0] * full
    grams = [(w, 1.0) for w in words]
    grams += [(f"{a} {b}", 0.5) for a, b in pairwise(words)]
    if not grams:
        grams = [(text, 1.0)]
    for gram, weight in grams:
        digest = hashlib.sha256(f"{model}|{version}|{gram}".encode()).digest()
        # 16 places per gram: enough that a shortened vector still tells texts apart
        for at in range(16):
            position = int.from_bytes(digest[2 * at : 2 * at + 2], "big")
            spot = position % full if at % 2 else position % min(full, 256)
            vector[spot] += weight if position & 0x8000 else -weight
    vector = vector[:dimensions]
    length = math.sqrt(sum(x * x for x in vector))
    if not length:
        vector[0], length = 1.0, 1.0
    return [x / length for x in vector]
