"""Where a vault may be, what opens it, and that nothing secret is ever said about it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import http.client
import http.server
import logging
import os
import random
import socket
import stat
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest
from azure.core.credentials import AccessToken, TokenCredential
from azure.storage.blob import ContainerSasPermissions, generate_container_sas
from hypothesis import given
from hypothesis import strategies as st

from snapshots.errors import (
    CloudError,
    ConflictError,
    DeniedError,
    MissingError,
    MusterError,
    SettingsError,
    StoreError,
    ThrottledError,
    UnreachableError,
)
from snapshots.vault import Access, Patience, Vault, open_vault
from snapshots.vault.base import BLOCK, in_blocks, payload_path
from snapshots.vault.location import blob_key, blob_place
from tests.azurite_fixtures import BlobContainer

KEY = base64.b64encode(b"canary-account-key-of-these-tests").decode()
AT_ONCE = Patience(retries=0, connect=2, read=2, backoff=0)


class Token:
    """A credential that is never asked here."""

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: object,
    ) -> AccessToken:
        del kwargs
        raise AssertionError((scopes, claims, tenant_id, enable_cae))


# ---- addresses ----


@pytest.mark.parametrize(
    ("url", "endpoint", "prefix"),
    [
        ("azblob://musterdr/vault", "https://musterdr.blob.core.windows.net", ""),
        ("azblob://musterdr/vault/a/b/", "https://musterdr.blob.core.windows.net", "a/b/"),
        (
            "azblob://musterdr/vault?endpoint=core.chinacloudapi.cn",
            "https://musterdr.blob.core.chinacloudapi.cn",
            "",
        ),
        (
            "azblob://musterdr/vault?endpoint=blob.core.usgovcloudapi.net",
            "https://musterdr.blob.core.usgovcloudapi.net",
            "",
        ),
        (
            "azblob://musterdr/vault/p?endpoint=http://127.0.0.1:10000/musterdr/",
            "http://127.0.0.1:10000/musterdr",
            "p/",
        ),
    ],
)
def test_an_address_says_account_container_prefix_and_endpoint(
    url: str, endpoint: str, prefix: str
) -> None:
    place = blob_place(url)
    assert (place.account, place.container) == ("musterdr", "vault")
    assert (place.endpoint, place.prefix) == (endpoint, prefix)
    assert place.location == f"azblob://musterdr/vault/{prefix}".rstrip("/")


def test_a_cloud_by_name_gives_its_suffix() -> None:
    place = blob_place("azblob://musterdr/vault", suffix="core.usgovcloudapi.net")
    assert place.endpoint == "https://musterdr.blob.core.usgovcloudapi.net"


@pytest.mark.parametrize(
    "url",
    [
        "azblob://",
        "azblob://ab/vault",
        "azblob://Upper/vault",
        "azblob://musterdr",
        "azblob://musterdr/v",
        "azblob://musterdr/two--dashes",
        "azblob://musterdr/vault/../up",
        "azblob://musterdr/vault//x",
        "azblob://musterdr/vault?color=red",
        "azblob://musterdr/vault#part",
        "azblob://musterdr/vault?endpoint=",
        "azblob://musterdr/vault?endpoint=ftp://127.0.0.1",
        "azblob://musterdr/vault?endpoint=http://example.com/musterdr",
        "azblob://musterdr/vault?endpoint=https://u:p@example.com",
        "s3://bucket/vault",
        "",
        "  ",
    ],
)
def test_an_address_that_cannot_be_right_is_refused_with_a_remedy(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_vault(url, access=Access(account_key=KEY))
    assert caught.value.remedy
    assert "\n" not in caught.value.what


@pytest.mark.parametrize(
    "url",
    [
        "azblob://musterdr/vault?sig=canary-signature",
        "azblob://musterdr:canary-signature@host/vault",
        "azblob://musterdr/vault?endpoint=https://h/m?sig=canary-signature",
        "azblob://musterdr/vault?AccountKey=canary-signature",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_vault(url, access=Access(account_key=KEY))
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("url", ["{}/vault", "file://{}/vault", "{}/a vault"])
def test_anything_else_is_a_folder(tmp_path: Path, url: str) -> None:
    vault = open_vault(url.format(tmp_path))
    assert vault.location.startswith(str(tmp_path))
    assert isinstance(vault, Vault)


# ---- access ----


PLACE = blob_place("azblob://musterdr/vault")
STRING = f"DefaultEndpointsProtocol=https;AccountName=musterdr;AccountKey={KEY}"


def test_a_key_goes_before_the_credential_that_is_there_always() -> None:
    token: TokenCredential = Token()
    _, key = blob_key(PLACE, Access(credential=token, account_key=KEY), explicit=False)
    assert (key.account_key, key.credential) == (KEY, None)
    _, key = blob_key(PLACE, Access(credential=token), explicit=False)
    assert key.credential is token


def test_a_connection_string_brings_its_key_and_endpoint() -> None:
    place, key = blob_key(
        PLACE,
        Access(connection_string=f"{STRING};EndpointSuffix=core.chinacloudapi.cn"),
        explicit=False,
    )
    assert place.endpoint == "https://musterdr.blob.core.chinacloudapi.cn"
    assert key.account_key == KEY
    local = f"{STRING};BlobEndpoint=http://127.0.0.1:1/musterdr"
    assert blob_key(PLACE, Access(connection_string=local), explicit=False)[0].endpoint == (
        "http://127.0.0.1:1/musterdr"
    )
    assert blob_key(PLACE, Access(connection_string=local), explicit=True)[0] == PLACE
    sas = "BlobEndpoint=https://musterdr.blob.core.windows.net;SharedAccessSignature=?sig=x"
    assert blob_key(PLACE, Access(connection_string=sas), explicit=False)[1].sas == "sig=x"


@pytest.mark.parametrize(
    ("access", "said"),
    [
        (Access(), "nothing to sign in"),
        (Access(account_key=KEY, sas="sig=canary"), "more than one"),
        (Access(account_key="canary not base64"), "not base64"),
        (Access(connection_string="canary"), "connection string is not one"),
        (Access(connection_string="AccountName=other;AccountKey=canary"), "'other'"),
        (Access(connection_string="AccountName=musterdr"), "neither"),
    ],
)
def test_an_access_that_cannot_work_is_refused_before_anything_is_sent(
    access: Access, said: str
) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        open_vault("azblob://musterdr/vault", access=access)
    assert "canary" not in str(caught.value)
    assert caught.value.remedy


def test_a_token_is_never_sent_without_encryption() -> None:
    with pytest.raises(SettingsError, match="without encryption"):
        open_vault(
            "azblob://musterdr/vault?endpoint=http://127.0.0.1:1/musterdr",
            access=Access(credential=Token()),
        )


# ---- answers that are no success ----


class _Canned(http.server.BaseHTTPRequestHandler):
    """Answers every request alike, as Azure would."""

    status, code = 500, "InternalError"

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = (
            f"<?xml version='1.0'?><Error><Code>{self.code}</Code>"
            "<Message>canary-message of the server</Message></Error>"
        ).encode()
        self.send_response(self.status)
        self.send_header("x-ms-error-code", self.code)
        self.send_header("x-ms-request-id", "11111111-2222")
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)

    do_GET = do_PUT = do_HEAD = do_DELETE = _answer  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture
def canned() -> Iterator[Callable[[int, str], Vault]]:
    servers: list[http.server.ThreadingHTTPServer] = []
    vaults: list[Vault] = []

    def answer(status: int, code: str) -> Vault:
        handler = type("Canned", (_Canned,), {"status": status, "code": code})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        endpoint = f"http://127.0.0.1:{server.server_port}/musterdr"
        vaults.append(
            open_vault(
                f"azblob://musterdr/vault?endpoint={endpoint}",
                access=Access(account_key=KEY),
                patience=AT_ONCE,
            )
        )
        return vaults[-1]

    yield answer
    for vault in vaults:
        vault.close()
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("status", "code", "error", "remedy"),
    [
        (401, "InvalidAuthenticationInfo", DeniedError, "sign in"),
        (403, "AuthorizationPermissionMismatch", DeniedError, "Storage Blob Data Contributor"),
        (403, "AuthenticationFailed", DeniedError, "expired"),
        (403, "AuthorizationFailure", DeniedError, "network rules"),
        (403, "KeyBasedAuthenticationNotPermitted", DeniedError, "Entra"),
        (404, "ContainerNotFound", MissingError, "muster init"),
        (409, "ContainerBeingDeleted", ConflictError, "being deleted"),
        (429, "TooManyRequests", ThrottledError, "later"),
        (503, "ServerBusy", ThrottledError, "later"),
        (500, "InternalError", CloudError, "request id"),
        (400, "Md5Mismatch", CloudError, "proxy"),
        (400, "InvalidHeaderValue", CloudError, "request id"),
    ],
)
def test_an_answer_of_azure_becomes_our_error_with_a_remedy(
    canned: Callable[[int, str], Vault],
    status: int,
    code: str,
    error: type[CloudError],
    remedy: str,
) -> None:
    vault = canned(status, code)
    for use in (
        lambda: vault.keep([b"x"]),
        lambda: vault.has("0" * 64),
        vault.known,
        lambda: vault.keep_document("a", b""),
        lambda: vault.replace_document("a", b"", None),
    ):
        with pytest.raises(error) as caught:
            use()
        assert type(caught.value) is error
        assert (caught.value.status, caught.value.code) == (status, code)
        assert remedy in caught.value.remedy
        assert "11111111-2222" in caught.value.where
        assert "canary" not in _everything(caught.value)
    facts = vault.facts()
    assert not facts.reachable
    assert facts.problem
    assert remedy in facts.remedy


def test_immutability_is_told_apart_from_a_lost_race(canned: Callable[[int, str], Vault]) -> None:
    vault = canned(409, "BlobImmutableDueToPolicy")
    assert vault._delete("x") is False  # type: ignore[attr-defined]
    assert vault._touch("x") is True  # type: ignore[attr-defined]
    with pytest.raises(ConflictError, match="Immutable"):
        vault._replace("a", b"", '"1"')  # type: ignore[attr-defined]


def test_a_vault_that_is_not_there_is_given_up_in_time(tmp_path: Path) -> None:
    with socket.socket() as closed, socket.socket() as silent:
        closed.bind(("127.0.0.1", 0))
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)  # takes connections and never says a word
        for port in (closed.getsockname()[1], silent.getsockname()[1]):
            vault = open_vault(
                f"azblob://musterdr/vault?endpoint=http://127.0.0.1:{port}/musterdr",
                access=Access(account_key=KEY),
                patience=Patience(retries=0, connect=0.5, read=0.5, backoff=0),
            )
            began = time.monotonic()
            with pytest.raises(UnreachableError) as caught:
                vault.keep_file(_file(tmp_path, b"x"))
            assert time.monotonic() - began < 10
            assert "run this again" in caught.value.remedy
            assert not vault.facts().reachable
            vault.close()


def _file(folder: Path, data: bytes) -> Path:
    (folder / "f").write_bytes(data)
    return folder / "f"


# ---- secrets ----


def _everything(error: BaseException) -> str:
    """All that an error could show: itself, what it is chained to, and their parts."""
    said: list[str] = []
    seen: set[int] = set()
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        said += [str(one), repr(one), repr(one.args), repr(getattr(one, "__dict__", ""))]
        said += traceback.format_exception(one)
        todo += [one.__cause__, one.__context__]
    return "\n".join(said)


def _forms(secret: str) -> set[str]:
    """A secret as it is, decoded, and in the encodings that a log could show it in."""
    forms = {secret, quote(secret, safe=""), base64.b64encode(secret.encode()).decode()}
    with suppress(binascii.Error, ValueError):
        forms.add(base64.b64decode(secret, validate=True).decode("latin-1"))
    return forms


@pytest.mark.azurite
def test_no_error_repr_or_log_says_a_key_or_a_signature(
    new_container: Callable[[], BlobContainer], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    container = new_container()
    account = container.account
    wrong = base64.b64encode(b"canary-wrong-key-for-the-account").decode()
    expired = generate_container_sas(
        account.name,
        container.name,
        account_key=account.key,
        permission=ContainerSasPermissions(read=True),
        expiry=datetime(2020, 1, 1, tzinfo=UTC),
    )
    signature = dict(part.split("=", 1) for part in expired.split("&"))["sig"]
    accesses = {
        wrong: Access(account_key=wrong),
        account.key: Access(account_key=account.key),
        signature: Access(sas=expired),
        KEY: Access(connection_string=f"AccountName={account.name};AccountKey={KEY}"),
    }
    said: list[str] = []
    for access in accesses.values():
        vault = open_vault(container.url(), access=access, patience=AT_ONCE)
        said += [repr(vault), repr(access), str(vault.facts()), repr(account)]
        for use in (
            lambda v=vault: v.keep([b"x"]),
            lambda v=vault: list(v.check()),
            lambda v=vault: v.keep([b"x" * 9_000_000], sha256="0" * 64),
            lambda v=vault: v.read_document("a"),
            lambda v=vault: v.fingerprint_key(),
        ):
            with pytest.raises(MusterError) as caught:
                use()
            said.append(_everything(caught.value))
        vault.close()
    text = "\n".join([*said, caplog.text])
    assert "container does not exist" in text  # the control: the errors were looked at
    for secret in accesses:
        for form in _forms(secret):
            assert form not in text


@pytest.mark.azurite
def test_a_signature_for_the_container_is_enough(
    new_container: Callable[[], BlobContainer],
) -> None:
    container = new_container()
    account = container.account
    owner = open_vault(container.url(), access=Access(account_key=account.key))
    owner.prepare()
    owner.prepare()
    owner.close()
    sas = generate_container_sas(
        account.name,
        container.name,
        account_key=account.key,
        permission=ContainerSasPermissions(
            read=True, write=True, create=True, list=True, delete=True
        ),
        expiry=datetime(2100, 1, 1, tzinfo=UTC),
    )
    with_sas = open_vault(container.url(), access=Access(sas=f"?{sas}"), patience=AT_ONCE)
    kept = with_sas.keep([b"by signature"])
    assert b"".join(with_sas.read(kept.sha256)) == b"by signature"
    assert with_sas.known() == {kept.sha256}
    with_sas.close()


@pytest.mark.azurite
def test_what_an_emulator_cannot_know_is_said_to_be_not_known(
    new_container: Callable[[], BlobContainer],
) -> None:
    container = new_container()
    vault = open_vault(container.url(), access=Access(account_key=container.account.key))
    facts = vault.facts()
    assert (facts.reachable, facts.remedy) == (
        False,
        "create it (`muster init` does), or correct vault.url",
    )
    vault.prepare()
    facts = vault.facts()
    assert (facts.reachable, facts.kind) == (True, "blob")
    assert (facts.immutability_policy, facts.legal_hold, facts.versioning) == (None,) * 3
    assert (facts.redundancy, facts.region_independent, facts.soft_delete_days) == (None,) * 3
    assert facts.clock_skew_seconds == 0.0
    vault.close()


# ---- the folder ----


def test_a_folder_is_open_to_its_owner_only_and_payloads_are_read_only(tmp_path: Path) -> None:
    vault = open_vault(str(tmp_path / "vault"))
    vault.keep([b"secret training data"])
    vault.keep_document("evidence/a.json", b"{}")
    vault.fingerprint_key()
    for path in (tmp_path / "vault", *(tmp_path / "vault").rglob("*")):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o400), path


@pytest.mark.parametrize("link", ["payloads", "payloads/sha256", "evidence"])
def test_a_symbolic_link_in_a_folder_is_not_followed(tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    place = tmp_path / "vault" / link
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    vault = open_vault(str(tmp_path / "vault"))
    uses: dict[str, Callable[[], object]] = {
        "evidence": lambda: vault.keep_document("evidence/a", b"x"),
    }
    with pytest.raises(StoreError, match="symbolic link"):
        uses.get(link, lambda: vault.keep([b"x"]))()
    assert list(outside.rglob("*")) == []


def test_a_symbolic_link_in_place_of_a_payload_is_not_read(tmp_path: Path) -> None:
    vault = open_vault(str(tmp_path / "vault"))
    digest = vault.keep([b"x"]).sha256
    place = tmp_path / "vault" / payload_path(digest)
    (tmp_path / "other").write_bytes(b"x")
    place.unlink()
    place.symlink_to(tmp_path / "other")
    assert not vault.has(digest)
    assert vault.known() == frozenset()
    with pytest.raises(StoreError):
        list(vault.read(digest))


def test_a_folder_says_its_free_space_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    facts = open_vault(str(tmp_path / "not" / "yet")).facts()
    assert facts.reachable
    assert facts.free_bytes is not None
    assert facts.free_bytes > 0
    (tmp_path / "file").write_text("x")
    wrong = open_vault(str(tmp_path / "file"))
    assert not wrong.facts().reachable
    with pytest.raises(StoreError) as caught:
        wrong.keep([b"x"])
    assert caught.value.remedy


@pytest.mark.skipif(os.name != "posix", reason="needs a device that is always full")
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    vault = open_vault(str(tmp_path / "vault"))
    vault.keep([b"small"])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, hard))  # a write fails part way
    try:
        with pytest.raises(StoreError, match="cannot write to the vault") as caught:
            vault.keep(bytes(30_000) for _ in range(10))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "free space" in caught.value.remedy
    assert list((tmp_path / "vault" / "incoming").iterdir()) == []
    assert len(vault.known()) == 1
    assert list(vault.check()) == []


def test_the_fingerprint_key_may_lie_in_a_file_instead(tmp_path: Path) -> None:
    file = tmp_path / "key"
    vault = open_vault(str(tmp_path / "vault"), fingerprint_file=file)
    for content, said in ((None, "No such file"), ("canary", "does not hold"), ("é", "not text")):
        if content is not None:
            file.write_text(content, "utf-8")
        with pytest.raises(SettingsError, match=said) as caught:
            vault.fingerprint_key()
        assert "canary" not in str(caught.value)
        assert "openssl rand" in caught.value.remedy
    file.write_text("0F" * 32 + "\n")
    assert vault.fingerprint_key() == b"\x0f" * 32
    assert not (tmp_path / "vault").exists()


# ---- blocks ----


@given(chunks=st.lists(st.binary(max_size=40), max_size=30), size=st.integers(1, 25))
def test_blocks_are_the_same_bytes_in_equal_parts(chunks: list[bytes], size: int) -> None:
    blocks = [bytes(block) for block in in_blocks(chunks, size)]
    assert b"".join(blocks) == b"".join(chunks)
    assert all(len(block) == size for block in blocks[:-1])
    assert all(0 < len(block) <= size for block in blocks)


class _Relay(http.server.BaseHTTPRequestHandler):
    """Hands requests on to Azurite, and flips a bit in the first bodies: a faulty network."""

    protocol_version = "HTTP/1.1"
    to: str
    faults: list[str]
    budget: int
    lock = threading.Lock()

    def _hand_on(self) -> None:
        body = bytearray(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        with self.lock:
            if body and self.command == "PUT" and len(self.faults) < self.budget:
                body[len(body) // 2] ^= 1
                self.faults.append(self.path)
        host = urlsplit(self.to).netloc
        onward = http.client.HTTPConnection(host, timeout=30)
        onward.request(self.command, self.path, bytes(body), dict(self.headers.items()))
        answer = onward.getresponse()
        said = answer.read()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"transfer-encoding", "content-length", "connection"}:
                self.send_header(name, value)
        if self.command == "HEAD":
            self.send_header("Content-Length", answer.getheader("Content-Length") or "0")
        else:
            self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said)
        onward.close()

    do_GET = do_PUT = do_HEAD = do_DELETE = _hand_on  # noqa: N815  http.server's names

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def _behind_a_relay(container: BlobContainer, budget: int) -> Iterator[tuple[Vault, list[str]]]:
    faults: list[str] = []
    to = container.account.endpoint
    handler = type("Relay", (_Relay,), {"to": to, "faults": faults, "budget": budget})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    through = to.replace(urlsplit(to).netloc, f"127.0.0.1:{server.server_port}")
    vault = open_vault(
        f"azblob://{container.account.name}/{container.name}?endpoint={through}",
        access=Access(account_key=container.account.key),
        patience=AT_ONCE,
    )
    try:
        vault.prepare()
        yield vault, faults
    finally:
        vault.close()
        server.shutdown()
        server.server_close()


@pytest.mark.azurite
@pytest.mark.parametrize("size", [1000, 2 * BLOCK + 5], ids=["one request", "blocks"])
def test_bytes_that_the_network_tears_are_sent_again_and_never_kept_torn(
    new_container: Callable[[], BlobContainer], size: int
) -> None:
    data = random.Random(size).randbytes(size)
    with _behind_a_relay(new_container(), budget=2) as (vault, faults):
        kept = vault.keep([data])
        assert len(faults) == 2
        assert b"".join(vault.read(kept.sha256)) == data
        assert list(vault.check()) == []
    with _behind_a_relay(new_container(), budget=1000) as (vault, faults):  # again and again
        with pytest.raises(CloudError, match="not what was sent") as caught:
            vault.keep([data])
        assert "proxy" in str(caught.value.remedy)
        assert len(faults) >= 3
        assert not vault.has(hashlib.sha256(data).hexdigest())
