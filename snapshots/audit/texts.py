"""Texts that come from anywhere, made such that every file and format can hold them."""

from __future__ import annotations

import orjson

from snapshots.model import Json, JsonObject


def sound(text: str) -> str:
    r"""Give a text that UTF-8 can hold: half of a surrogate pair is written out, as \ud800.

    They come from arguments that are not UTF-8, from YAML escapes and from logs.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def sound_document(document: JsonObject) -> JsonObject:
    """Give a document whose every text is sound; the same one when it is so already."""
    try:
        orjson.dumps(document)
    except TypeError:
        return {sound(name): _sound(value) for name, value in document.items()}
    return document


def _sound(value: Json) -> Json:
    match value:
        case str():
            return sound(value)
        case dict():
            return {sound(name): _sound(inner) for name, inner in value.items()}
        case list():
            return [_sound(inner) for inner in value]
        case _:
            return value
