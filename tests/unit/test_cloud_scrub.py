"""What must never be read is never read: secrets in every form Azure shows them."""

from __future__ import annotations

import base64
import random
import string
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.cloud import scrub

_ALPHABET = string.ascii_letters + string.digits
SECRET = "q8ZkT3vXw0LrY5uN2pJmB7sD"
STORAGE = base64.b64encode(random.Random(1).randbytes(64)).decode()
ACCOUNT = "9aB" * 16 + "1xYz" + "JQQJ99" + "BKAC5RqLJXJ3w3AAABACOGZx1a"
JWT = "eyJ0eXAiOiJKV1QiLCJhbGciOiJSUzI1NiJ9.eyJhdWQiOiJodHRwczovL21hbmFnZW1lbnQifQ.c2lnbmF0dXJl"
SIGNATURE = "Zm9vYmFyYmF6cXV4Zm9vYmFyYmF6cXV4MTIzNA%3D"
BLOB = "https://x.blob.core.windows.net/c/b?sv=2024-01-01&sp=r&se=2026"

FORMS = {
    "bearer": (f"Authorization: Bearer {SECRET}", SECRET),
    "web token": (f"the token {JWT} has expired", JWT.split(".")[2]),
    "basic": (f"authorization=Basic {SECRET}", SECRET),
    "shared access signature": (f"{BLOB}&sig={SIGNATURE}&sr=b", SIGNATURE),
    "signature first": (f"?sig={SIGNATURE}&sv=2", SIGNATURE),
    "signature in a URL in a URL": (f"uri={quote(BLOB + '&sig=' + SECRET, safe='')}", SECRET),
    "twice encoded": (f"u={quote(quote(BLOB + '&sig=' + SECRET, safe=''), safe='')}", SECRET),
    "connection string": (
        f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={STORAGE};EndpointSuffix=x",
        STORAGE,
    ),
    "service bus": (
        f"Endpoint=sb://x/;SharedAccessKeyName=Root;SharedAccessKey={SECRET}=",
        SECRET,
    ),
    "key header": (f"api-key: {SECRET}", SECRET),
    "subscription key": (f"Ocp-Apim-Subscription-Key: {SECRET}", SECRET),
    "keys in JSON": (f'{{"key1": "{SECRET}", "key2":"x{SECRET}"}}', SECRET),
    "escaped JSON": (f'"{{\\"client_secret\\": \\"{SECRET}\\"}}"', SECRET),
    "python repr": (f"{{'apiKey': '{SECRET}'}}", SECRET),
    "query": (f"https://x/y?api_key={SECRET}&v=1", SECRET),
    "form": (f"grant_type=client_credentials&client_secret={SECRET}", SECRET),
    "URL with a password": (f"https://user:{SECRET}@host/x", SECRET),
    "storage key by its looks": (f"value {STORAGE} here", STORAGE),
    "storage key encoded": (f"value {quote(STORAGE, safe='')} here", quote(STORAGE, safe="")),
    "account key by its looks": (f"the key {ACCOUNT} is wrong", ACCOUNT),
    "client secret by its looks": (f"got abc8Q~{SECRET}{SECRET[:10]}", SECRET),
    "private key": (
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        SECRET,
    ),
    "base64 of a connection string": (
        "value=" + base64.b64encode(f"AccountName=a;AccountKey={SECRET};".encode()).decode(),
        base64.b64encode(f"AccountName=a;AccountKey={SECRET};".encode()).decode(),
    ),
    "base64url of JSON": (
        base64.urlsafe_b64encode(f'{{"api_key":"{SECRET}"}}'.encode()).decode().rstrip("="),
        base64.urlsafe_b64encode(f'{{"api_key":"{SECRET}"}}'.encode()).decode().rstrip("="),
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_secret_is_hidden_in_every_form(form: str) -> None:
    text, secret = FORMS[form]
    assert secret in text
    cleaned = scrub(text)
    assert secret not in cleaned
    assert "***" in cleaned
    assert scrub(cleaned) == cleaned


@pytest.mark.parametrize(
    "text",
    [
        "'x' does not have authorization to perform action 'Microsoft.X/accounts/listKeys/action'",
        "over scope '/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg'",
        "model gpt-4o-mini-2024-07-18.ft-0123456789abcdef0123456789abcdef is not there",
        "Number of 'reads' requests for subscription exceeded. Please try again after '17' seconds",
        "GET /subscriptions/1/providers/Microsoft.X/accounts?api-version=2025-09-01",
        "max_tokens: 512, total tokens 17, monkey: none",
        "",
    ],
)
def test_what_is_no_secret_is_left_as_it_is(text: str) -> None:
    assert scrub(text) == text


@given(
    st.text(_ALPHABET, min_size=24, max_size=60),
    st.sampled_from([
        "Authorization: Bearer {}", "x?sig={}&y=1", "AccountKey={};x", '"password": "{}"',
        "api-key: {}", "https://u:{}@h/", "client_secret={}", '"connectionString":"{}"',
    ]),
    st.sampled_from([str, lambda text: quote(text, safe=""),
                     lambda text: base64.b64encode(text.encode()).decode()]),
    st.sampled_from(["", "error: ", "(", "see "]),
)  # fmt: skip
def test_any_secret_is_hidden_plain_and_encoded(
    secret: str, form: str, encode: object, before: str
) -> None:
    assert callable(encode)
    text = before + str(encode(form.format(secret)))
    cleaned = scrub(text)
    assert secret not in cleaned
    assert base64.b64encode(secret.encode()).decode()[2:-4] not in cleaned


def test_a_very_long_text_is_scrubbed_in_good_time() -> None:
    text = "a" * 50_000 + " " + "%41" * 5_000 + f" api-key: {SECRET} " + "b=" * 10_000
    assert SECRET not in scrub(text)
