"""Keep secrets out of everything that is written: keyed fingerprints, detection, scrubbing."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import math
import re
from collections import Counter
from collections.abc import Callable
from typing import Final, TypeAlias
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

PREFIX: Final = "muster:hmac-sha256:"
MINIMUM_KEY_BYTES: Final = 16

_FINGERPRINT = re.compile(rf"{re.escape(PREFIX)}[0-9a-f]{{64}}")

# A name that says "secret" whatever the value looks like.
_STRONG_NAME = re.compile(
    r"secret|passw|passphrase|pwd|credential|connection_?string|api[-_]?key|access[-_]?key|"
    r"account[-_]?key|shared[-_]?key|subscription[-_]?key|private[-_]?key|endpoint_?key|"
    r"sas[-_]?(token|url|uri)|^sas$|signature|^sig$|client_?assertion",
    re.IGNORECASE,
)
# A name that says "secret" when the value could be one.
_WEAK_NAME = re.compile(r"token|key$|^key|authorization|cookie|bearer", re.IGNORECASE)
# Names that hold one of those words and are never secret: Azure's own, from its published shapes.
_PLAIN_NAMES: Final = frozenset(
    {
        "accesskeyid",  # the public half of an S3 pair
        "credentialstype",
        "keyname",
        "keysource",
        "keyvault",
        "keyvaultarmid",
        "keyvaultproperties",
        "keyvaulturi",
        "keyvaultid",
        "keyversion",
        "partitionkey",
        "publickey",
        "secretname",
        "secreturi",
        "tokentype",
        "toolconnectionname",
    }
)
# Values under such names that say nothing: enumerations and sizes.
_HARMLESS = re.compile(
    r"\d{1,6}|true|false|none|null|enabled|disabled|bearer|apikey|", re.IGNORECASE
)
_ID_NAME = re.compile(
    r"(id|ids|hash|digest|etag|guid|version|fingerprint|sha256|md5)$", re.IGNORECASE
)

# Tokens that are secret by their shape, wherever they stand.
_TOKENS: Final = re.compile(
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON Web Token
    r"|\bsk-[A-Za-z0-9_-]{16,}"  # OpenAI
    r"|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}"  # GitHub
    r"|\bxox[abprs]-[\w-]{10,}"  # Slack
    r"|\bAKIA[0-9A-Z]{16}\b"  # AWS
    r"|\b[A-Za-z0-9]{52}JQQJ99[A-Za-z0-9]{26}\b"  # Azure AI services, new form
    r"|[A-Za-z0-9+/]{86}=="  # Azure storage and Cosmos DB: 64 bytes
    r"|[A-Za-z0-9+/]{43}=(?![A-Za-z0-9+/=])"  # Service Bus and Event Hubs: 32 bytes
    r"|\b[\w~.-]{3}[78]Q~[\w~.-]{31,34}"  # Entra client secret
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)"
)
_ASSIGNED: Final = re.compile(
    r"(?P<name>\b(?:AccountKey|SharedAccessKey|SharedAccessSignature|Password|Pwd|ClientSecret|"
    r"Api-?Key|AccessKey|Secret|InstrumentationKey|sig)\s*=\s*)(?P<value>[^\s;&\"',]+)",
    re.IGNORECASE,
)
_BEARER = re.compile(r"(?P<name>\b(?:Bearer|Basic|SharedKey)\s+)(?P<value>[\w.~+/=:-]{12,})")
_ENCODED = re.compile(r"[A-Za-z0-9+/_-]{16,}={0,2}|[^\s\"'<>?&]*%[0-9A-Fa-f]{2}[^\s\"'<>?&]*")
_WORD = re.compile(r"[A-Za-z0-9+/_=~-]{32,}")
_PURE_HEX = re.compile(r"[0-9a-fA-F]{32}(?:[0-9a-fA-F]{8}|[0-9a-fA-F]{32})?")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'<>]+", re.IGNORECASE)
# Query parameters that are public; the value of any other is taken for a secret.
_PLAIN_QUERY: Final = frozenset(
    {"api-version", "comp", "restype", "sv", "st", "se", "sr", "sp", "spr", "ss", "srt", "skoid",
     "sktid", "skt", "ske", "sks", "skv", "sip", "timeout", "limit", "order", "include", "path",
     "view", "lang", "format", "page"}
)  # fmt: skip
_Replacement: TypeAlias = Callable[[str], str]
_Word: TypeAlias = Callable[[re.Match[str]], str]
_SHORTEST: Final = 12  # characters; a shorter secret is only known by its name
_MINIMUM_ENTROPY: Final = 4.0  # bits a character; English words are near 3, base64 near 5


class Fingerprints:
    """Replace secrets by a keyed fingerprint: a rotation shows, the value never leaves.

    `key` is at least 16 bytes and is kept in the vault or a file, never in Git: without it nobody
    can try guesses against the ledger.
    """

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) < MINIMUM_KEY_BYTES:
            message = f"the fingerprint key needs at least {MINIMUM_KEY_BYTES} bytes"
            raise ValueError(message)
        self._key = key

    def __repr__(self) -> str:
        return "Fingerprints(…)"

    def of(self, secret: str | bytes) -> str:
        """Give the fingerprint of a secret; a fingerprint is its own."""
        if isinstance(secret, str):
            if _FINGERPRINT.fullmatch(secret):
                return secret
            secret = secret.encode("utf-8", "surrogatepass")
        return PREFIX + hmac.new(self._key, secret, hashlib.sha256).hexdigest()

    def guard(self, name: str, value: str) -> str:
        """Give `value` as it may be written down: default deny for what looks like a secret.

        `name` is the property that holds it. The whole value goes when its name or its form says
        so (connection strings); inside URLs and free text only the secret part does.
        """
        if not value or _FINGERPRINT.fullmatch(value):
            return value
        if named_secret(name, value):
            return self.of(value)
        if len(value) < _SHORTEST and "=" not in value and "://" not in value:
            return value  # most values by far: no form of a secret is that short
        if _is_connection_string(value):
            return self.of(value)
        value = _URL.sub(lambda found: self._url(found.group()), value)
        value = _replace(value, name, self.of)
        return _outside(value, _ENCODED, lambda found: self._decoded(found.group()))

    def _decoded(self, word: str) -> str:
        """Hide a word that is base64 or URL encoding of what would be hidden in the clear."""
        plain = unquote(word) if "%" in word else _from_base64(word)
        if plain is None or plain == word or len(plain) < 8:
            return word
        hidden = _is_connection_string(plain) or _replace(plain, "", self.of) != plain
        return self.of(word) if hidden else word

    def _url(self, url: str) -> str:
        """Keep a URL readable; its password and every query value not known as public go."""
        if "@" not in url and "?" not in url:
            return url
        try:
            parts = urlsplit(url)
        except ValueError:
            return self.of(url)
        netloc, query = parts.netloc, parts.query
        if "@" in netloc:
            login, _, host = netloc.rpartition("@")
            netloc = f"{self.of(login)}@{host}"
        if query:
            pairs = parse_qsl(query, keep_blank_values=True)
            if not pairs:
                query = self.of(query)
            elif any(name.lower() not in _PLAIN_QUERY for name, _ in pairs):
                query = "&".join(
                    f"{quote(name)}={self._query(name, value)}" for name, value in pairs
                )
        return urlunsplit((parts.scheme, netloc, parts.path, query, parts.fragment))

    def _query(self, name: str, value: str) -> str:
        return quote(value) if name.lower() in _PLAIN_QUERY else self.of(value)


def named_secret(name: str, value: str = "") -> bool:
    """Whether a property called `name` holds a secret, given its value."""
    bare = name.replace("-", "").replace("_", "").lower()
    if bare in _PLAIN_NAMES:
        return False
    if _HARMLESS.fullmatch(value):
        return False
    if _STRONG_NAME.search(name):
        return True
    if not _WEAK_NAME.search(name):
        return False
    return len(value) >= 8 and " " not in value and not value.startswith(("/", "http", "{"))


def is_fingerprint(value: object) -> bool:
    """Whether a value of a document stands for a secret that was not written down."""
    return isinstance(value, str) and PREFIX in value


def _replace(text: str, name: str, by: _Replacement) -> str:
    text = _TOKENS.sub(lambda found: by(found.group()), text)
    for pattern in (_ASSIGNED, _BEARER):
        text = pattern.sub(lambda found: _assigned(found, by), text)

    def word(found: re.Match[str]) -> str:
        candidate = found.group()
        return by(candidate) if _random(candidate, name, whole=candidate == text) else candidate

    return _outside(text, _WORD, word)


def _assigned(found: re.Match[str], by: _Replacement) -> str:
    value = found.group("value")
    return found.group() if value.startswith(PREFIX) else found.group("name") + by(value)


def _outside(text: str, pattern: re.Pattern[str], by: _Word) -> str:
    """Replace what `pattern` finds, everywhere but in the fingerprints that are there already."""
    if PREFIX not in text:
        return pattern.sub(by, text)
    done: list[str] = []
    at = 0
    for found in _FINGERPRINT.finditer(text):
        done.append(pattern.sub(by, text[at : found.start()]))
        done.append(found.group())
        at = found.end()
    done.append(pattern.sub(by, text[at:]))
    return "".join(done)


def _from_base64(word: str) -> str | None:
    """Give the printable ASCII text that a word encodes, None when it encodes none."""
    body = word.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        plain = base64.b64decode(body + "=" * (-len(body) % 4)).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return plain if plain.isprintable() else None


def _random(word: str, name: str, *, whole: bool) -> bool:
    """Whether a word of 32 or more characters is likely to be a key rather than a name."""
    if _PURE_HEX.fullmatch(word):
        # 32 hex digits alone: a classic Cognitive Services key, or an id.
        return whole and bool(name) and not _ID_NAME.search(name)
    if word.count("/") > 2 and "=" not in word and "+" not in word:
        return False  # a path
    if not (re.search(r"[a-z]", word) and re.search(r"[A-Z]", word) and re.search(r"\d", word)):
        return False
    if re.search(r"[-_/]", word) and max(len(part) for part in re.split(r"[-_/]", word)) < 20:
        return False  # words joined by dashes: a name
    counts = Counter(word)
    entropy = -sum(n / len(word) * math.log2(n / len(word)) for n in counts.values())
    return entropy >= _MINIMUM_ENTROPY


def _is_connection_string(value: str) -> bool:
    """Whether a value is Name=Value;Name=Value with a secret among them."""
    if ";" not in value or "=" not in value:
        return False
    names = [part.partition("=")[0].strip() for part in value.split(";") if "=" in part]
    return len(names) >= 2 and any(
        _STRONG_NAME.search(name) or re.fullmatch(r"\w*key", name, re.IGNORECASE) for name in names
    )
