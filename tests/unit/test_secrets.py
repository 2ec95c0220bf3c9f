"""No secret is written down: fingerprints show a rotation, detection denies by default."""

from __future__ import annotations

import base64
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots.kinds.fields import Fields, Normaliser
from snapshots.model import canonical
from snapshots.secrets import PREFIX, Fingerprints, is_fingerprint, named_secret

KEY = b"a key of at least sixteen bytes"
PRINTS = Fingerprints(KEY)

STORAGE_KEY = base64.b64encode(bytes(range(64))).decode()
BUS_KEY = base64.b64encode(bytes(range(100, 132))).decode()
CANARIES = {
    "storage key": STORAGE_KEY,
    "bus key": BUS_KEY,
    "connection string": f"DefaultEndpointsProtocol=https;AccountName=a;AccountKey={STORAGE_KEY}",
    "hub": f"Endpoint=sb://x/;SharedAccessKeyName=root;SharedAccessKey={BUS_KEY}",
    "database": "Server=tcp:x,1433;User ID=sa;Password=hunter2",
    "sas": "https://x.blob.core.windows.net/c?sv=2024-01-01&se=2027&sig=aBcD%2Fef%3D",
    "web token": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.abc-def_123",
    "openai": "sk-proj-abcdefghijklmnop1234",
    "github": "ghp_abcdefghijklmnopqrstuvwxyz0123456789",
    "azure ai": "a" * 52 + "JQQJ99" + "B" * 26,
    "client secret": "abc8Q~" + "x" * 34,
    "login": "https://user:s3cr3t@host/path",
    "pem": "-----BEGIN PRIVATE KEY-----\nMIIEvQ\n-----END PRIVATE KEY-----",
    "random": "Zx8Kq2Lw9Rt4Yp6Vn1Bc3Md5Hf7Jg0Ts",
}
CORES = {**CANARIES, "sas": "aBcD%2Fef%3D", "login": "s3cr3t", "database": "hunter2"}


@pytest.mark.parametrize("kind", CANARIES)
def test_a_secret_is_known_by_its_looks_wherever_it_stands(kind: str) -> None:
    secret, core = CANARIES[kind], CORES[kind]
    for text in (secret, f"Use {secret} for it.", f'{{"x": "{secret}"}}'):
        guarded = PRINTS.guard("description", text)
        assert core not in guarded, text
        assert PREFIX in guarded


@pytest.mark.parametrize("kind", ["connection string", "hub", "openai", "web token", "azure ai"])
def test_a_secret_in_another_encoding_is_found(kind: str) -> None:
    secret = CANARIES[kind]
    encoded = base64.b64encode(secret.encode()).decode()
    assert encoded not in PRINTS.guard("x", encoded)
    assert quote(secret, safe="") not in PRINTS.guard("x", quote(secret, safe=""))


@pytest.mark.parametrize(
    "name",
    [
        "password", "adminPassword", "clientSecret", "client_secret", "apiKey", "api-key",
        "eventHubConnectionString", "qnaAzureSearchEndpointKey", "sasToken", "credentials",
        "primaryKey", "accessToken", "x-functions-key", "Authorization",
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name(name: str) -> None:
    assert named_secret(name, "plain-looking-value")
    assert is_fingerprint(PRINTS.guard(name, "plain-looking-value"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("keyName", "cmk-2026"),
        ("keyVersion", "0123456789abcdef0123456789abcdef"),
        ("keyVaultUri", "https://kv-prod.vault.azure.net/"),
        ("keySource", "Microsoft.KeyVault"),
        ("maxContextToken", "16385"),
        ("authType", "ApiKey"),
        ("tokenType", "Bearer"),
        ("principalId", "9428a3cb-79ae-45f0-84f7-a45ec4422c95"),
        ("target", "https://aoai-prod-swc.openai.azure.com/"),
        ("id", "file-0123456789abcdef0123456789abcdef"),
        ("name", "gpt-4o-mini-2024-07-18.ft-0123456789abcdef0123456789abcdef"),
        ("scope", ("/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/RG-Ai-1"
                  "/providers/Microsoft.CognitiveServices/accounts/Aoai-Prod-Swc")),
        ("pattern", r"\b(?:secret|password)\b"),
        ("instructions", "Answer in short sentences. Never ask for a password or a token."),
        ("modelUri", "azureml://registries/R1/models/Phi-3-mini-128k-instruct/versions/12"),
        ("blob", "https://x.blob.core.windows.net/c/topic.txt?sv=2024-01-01&se=2027-01-01"),
    ],
)  # fmt: skip
def test_what_is_no_secret_stays_as_it_is(name: str, value: str) -> None:
    assert PRINTS.guard(name, value) == value


def test_a_rotation_shows_and_equal_secrets_agree() -> None:
    assert PRINTS.of("one") == PRINTS.of(b"one") == Fingerprints(KEY).of("one")
    assert PRINTS.of("one") != PRINTS.of("two")
    assert PRINTS.of("one") != Fingerprints(b"another key of sixteen").of("one")


def test_a_short_key_is_refused_and_no_key_is_shown() -> None:
    with pytest.raises(ValueError, match="16"):
        Fingerprints(b"short")
    assert "sixteen" not in repr(PRINTS)


@given(st.text(max_size=60), st.sampled_from(["x", "password", "note"]))
def test_guarding_twice_changes_nothing_more(value: str, name: str) -> None:
    once = PRINTS.guard(name, value)
    assert PRINTS.guard(name, once) == once


@given(st.sampled_from(sorted(CANARIES)), st.text("abc .,;\n", max_size=12))
def test_guarding_a_secret_twice_changes_nothing_more(kind: str, around: str) -> None:
    once = PRINTS.guard("x", f"{around} {CANARIES[kind]} {around}")
    assert PRINTS.guard("x", once) == once


@given(
    st.recursive(
        st.sampled_from([STORAGE_KEY, CANARIES["openai"], CANARIES["hub"]]),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
        max_leaves=8,
    )
)
def test_no_depth_hides_a_secret(value: object) -> None:
    for table in (Fields(), Fields(verbatim=("p",))):
        written = canonical(Normaliser(table)({"p": value}, PRINTS))  # type: ignore[dict-item]
        for secret in (STORAGE_KEY, BUS_KEY, CANARIES["openai"]):
            assert secret.encode() not in written
