"""Where the ledger keeps a resource: a path that is short and safe on every file system."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from urllib.parse import unquote

from snapshots.errors import InputError
from snapshots.model import Key

RESOURCES = "resources/"
REFERENCE = "reference/"
GAPS = "gaps.json"
LIMIT = 180  # characters of a whole path: what is left of Windows' 260 for a clone's own folder

_SUFFIX = ".json"
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-_.,+=@()[]{}!$&' ")
_TAIL = 16  # hexadecimal digits
_SEGMENT = 80  # characters of one name before it is shortened
# Windows keeps these names for devices, with any extension, also followed by spaces.
_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"}
    | {f"{port}{n}" for port in ("com", "lpt") for n in (*range(10), "¹", "²", "³")}
)


def path_of(key: Key) -> str:
    """Give the path below which the ledger keeps `key`: at most 180 characters, all lower-case.

    Names that are not lower-case already, and those that had to be shortened, end in `~` and a
    hash of the name, so that two names never share a path, also where case is not told apart.
    Raises InputError for a key without a name.
    """
    if not key.path:
        raise InputError(f"a key without a name cannot be kept: {key.kind!r}")
    path = f"{_holder(key.kind, key.path[:-1])}{_segment(key.path[-1])}{_SUFFIX}"
    return path if len(path) <= LIMIT else _shortened([*key.path[:-1], key.kind, key.path[-1]])


def reference_path(name: str) -> str:
    """Give the path that keeps the reference data called `name` (slash-separated, reversible).

    Raises InputError when it would be longer than 180 characters, or a part is empty.
    """
    parts = name.split("/")
    if not all(parts):
        raise InputError(f"not a name of reference data: {name!r}")
    encoded = [_folder(_encoded(part)) for part in parts[:-1]] + [_encoded(parts[-1])]
    path = REFERENCE + "/".join(encoded) + _SUFFIX
    if len(path) > LIMIT:
        raise InputError(f"the name of reference data is too long: {name!r}")
    return path


def reference_name(path: str) -> str:
    """Give the name of what `reference_path` placed at `path`."""
    inner = path.removeprefix(REFERENCE).removesuffix(_SUFFIX)
    return "/".join(unquote(part) for part in inner.split("/"))


def key_of(path: str) -> Key | None:
    """Give the key kept at `path` when the path tells it; None when a name was hashed."""
    if "~" in path or not path.startswith(RESOURCES) or not path.endswith(_SUFFIX):
        return None
    *within, kind, name = path.removeprefix(RESOURCES).removesuffix(_SUFFIX).split("/")
    return Key(unquote(kind), (*(unquote(part) for part in within), unquote(name)))


@lru_cache(maxsize=16384)  # ten thousand deployments share a thousand accounts
def _holder(kind: str, within: tuple[str, ...]) -> str:
    return RESOURCES + "".join([f"{_folder(_segment(name))}/" for name in (*within, kind)])


def _shortened(names: list[str]) -> str:
    """Cut the longest names first, until the path fits; of many names, hash what is between."""
    room = LIMIT - len(RESOURCES) - len(_SUFFIX)
    for width in range(_SEGMENT, _TAIL, -1):
        parts = [_cut(name, width) for name in names]
        if len("/".join(_folder(part) for part in parts)) + 2 <= room:
            inner = "/".join([*(_folder(part) for part in parts[:-1]), parts[-1]])
            return f"{RESOURCES}{inner}{_SUFFIX}"
    # So many levels that even hashes do not fit: one hash stands for all of them. The `~~` is
    # found in no other path.
    whole = _hash("\0".join(f"{len(name)}:{name}" for name in names))
    return f"{RESOURCES}~~/{_cut(names[-2], 60)}/{whole}{_SUFFIX}"


@lru_cache(maxsize=65536)
def _segment(name: str) -> str:
    encoded = _encoded(name)
    plain = name and (encoded == name or _is_lower(name))
    return encoded if plain and len(encoded) <= _SEGMENT else _cut(name, _SEGMENT)


def _cut(name: str, width: int) -> str:
    """Give at most `width` characters for a name: itself if it fits, else with its hash."""
    encoded = _encoded(name)
    if name and len(encoded) <= width and _is_lower(name):
        return encoded
    head = _encoded(name.lower())[: max(0, width - _TAIL - 1)]
    if (escape := head.rfind("%", -2)) >= 0:
        head = head[:escape]
    return f"{head}~{_hash(name)}"


def _is_lower(name: str) -> bool:
    return name.isascii() and name == name.lower()


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_TAIL]


def _folder(encoded: str) -> str:
    """Keep a folder's name from looking like a file's: `x.json` is never both."""
    if encoded.endswith(_SUFFIX):
        return encoded.removesuffix(_SUFFIX) + "%2ejson"
    return encoded


@lru_cache(maxsize=65536)
def _encoded(name: str) -> str:
    """Percent-encode, in lower-case digits, all that some file system does not take."""
    text = "".join([char if char in _PLAIN else _escaped(char) for char in name])
    if text and text[0] in " .-":
        # A leading dot hides a file and may spell `..`; a leading dash looks like an option.
        text = _escaped(text[0]) + text[1:]
    if text and text[-1] in " .":
        text = text[:-1] + _escaped(text[-1])
    if text.split(".", 1)[0].rstrip(" ") in _DEVICES:
        text = _escaped(text[0]) + text[1:]
    return text


def _escaped(char: str) -> str:
    return "".join(f"%{byte:02x}" for byte in char.encode("utf-8", "surrogatepass"))
