"""Take the secrets out of a text before anybody sees it."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote

HIDDEN = "***"

_END = r"""[^\s"'<>&;,\\}\])]"""
_NAMES = (
    r"(?:api[-_ ]?key|x-api-key|ocp-apim-subscription-key|subscription[-_]?key"
    r"|key[12]|(?:primary|secondary|admin|query|access|account|shared|storage|signing|instrumentation)"
    r"[-_]?(?:access|account|event\w*|storage)?[-_]?key"
    r"|client[-_]?secret|secret(?:[-_]?(?:text|value|key))?|pass(?:word|wd|phrase)|pwd"
    r"|(?:access|refresh|id|sas|bearer|auth|session|security)[-_]?token|token"
    r"|client[-_]?assertion|connection[-_]?string|sharedaccesssignature|authorization)"
)

# Order matters: the most telling form first, so that what is left of it stays readable.
_FORMS: tuple[tuple[re.Pattern[str], str], ...] = (
    # user:password@ in a URL.
    (re.compile(r"(?i)(\b[a-z][a-z0-9+.-]*://)[^/\s:@]*:[^/\s@]+@"), rf"\1{HIDDEN}@"),
    # Authorization values.
    (re.compile(r"(?i)\b(bearer|basic|sharedkey(?:lite)?|sharedaccesssignature)(\s|%20|\+)+"
                r"[A-Za-z0-9\-._~+/:%=]{6,}(?:&(?:sig|se|skn)=[^\s&\"']*)*"), rf"\1 {HIDDEN}"),
    # JSON Web Tokens anywhere.
    (re.compile(r"\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)?"), HIDDEN),
    # The signature of a shared access signature, plain or URL-encoded (once or twice).
    (re.compile(r"(?i)(\bsig(?:=|%3D|%253D))(?:(?!%26|%2526)[^\s&\"'<>;,\\])+"), rf"\1{HIDDEN}"),
    # Connection strings: Name=value up to the semicolon (or its URL-encoded form).
    (re.compile(r"(?i)((?:account|shared(?:access)?|access|primary|secondary)key|password|pwd"
                r"|sharedaccesssignature|apikey|clientsecret)(\s*(?:=|%3D|%253D)\s*)"
                r"(?:(?!%3B|%253B)[^\s;\"'<>\\])+"), rf"\1\2{HIDDEN}"),
    # "name": "value" in JSON, also with the quotes escaped.
    (re.compile(rf"""(?i)(\\*["']{_NAMES}\\*["']\s*:\s*\\*["'])(?:(?!\\*["']).)+"""),
     rf"\1{HIDDEN}"),
    # name=value and name: value in headers, queries, logs.
    (re.compile(rf"(?i)(\b{_NAMES}\s*(?:=|:|%3D)\s*)(?!\*\*\*)(?:(?!%26){_END})+"),
     rf"\1{HIDDEN}"),
    # Secrets that are known by their looks.
    (re.compile(r"\b[A-Za-z0-9]{20,}JQQJ99[A-Za-z0-9]{10,}"), HIDDEN),  # Azure AI account keys
    # A long word of small and capital letters and digits: digests and ids have no capitals.
    (re.compile(r"\b(?=[A-Z0-9]*[a-z])(?=[a-z0-9]*[A-Z])(?=[A-Za-z]*\d)[A-Za-z0-9]{64,}\b"),
     HIDDEN),
    (re.compile(r"[A-Za-z0-9+/]{86}=="), HIDDEN),  # storage and Cosmos keys
    (re.compile(r"(?i)(?:[a-z0-9]|%2B|%2F){86}(?:%3D){2}"), HIDDEN),
    (re.compile(r"\b[A-Za-z0-9+/]{43}="), HIDDEN),  # 256-bit keys
    (re.compile(r"[A-Za-z0-9~_.-]{3}\dQ~[A-Za-z0-9~_.-]{31,34}"), HIDDEN),  # Entra client secrets
    (re.compile(r"\bsk-[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
                re.DOTALL), HIDDEN),
)  # fmt: skip
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}")
_WORD = re.compile(r"[^\s\"'<>]+")
_DEPTH = 3


def scrub(text: str) -> str:
    """`text` with every secret replaced by `***`.

    Knows bearer and web tokens, signatures of shared access signatures, connection strings, named
    keys and passwords, keys known by their looks; and all of them URL-encoded or in base64. It
    errs on the side of hiding. Scrubbing twice changes nothing more.
    """
    return _scrub(text, _DEPTH)


def _scrub(text: str, depth: int) -> str:
    for form, shown in _FORMS:
        text = form.sub(shown, text)
    if depth:
        text = _WORD.sub(lambda found: _percent(found.group(), depth), text)
        text = _BASE64.sub(lambda found: _base64(found.group(), depth), text)
    return text


def _percent(word: str, depth: int) -> str:
    """Hide the word when what it stands for, decoded, holds a secret that its own form hid not."""
    plain = unquote(word) if "%" in word else word
    if plain == word:
        return word
    cleaned = _scrub(plain, depth - 1)
    return cleaned if cleaned != plain else word


def _base64(word: str, depth: int) -> str:
    """Hide the word when it is a secret in base64."""
    body = word.rstrip("=").replace("-", "+").replace("_", "/")
    # A secret may stand anywhere in what was encoded, so the word may begin at any of 4 offsets.
    for skip in range(4):
        part = body[skip:]
        try:
            plain = base64.b64decode(part + "=" * (-len(part) % 4)).decode("ascii")
        except (binascii.Error, UnicodeDecodeError, ValueError):
            continue
        if plain.isprintable() and _scrub(plain, depth - 1) != plain:
            return HIDDEN
        if not skip and "\n" in plain and _scrub(plain, depth - 1) != plain:
            return HIDDEN
    return word
