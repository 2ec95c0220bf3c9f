"""Azurite beside the sandbox: it starts, keeps its folder, and never outlives its parent."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest
import trustme
from azure.core.credentials import AccessToken
from azure.storage.blob import ContainerClient

from drills.sandbox.blob.azurite import Azurite, AzuriteError, Tls
from drills.sandbox.blob.install import HERE, install, installed_version, wanted_version

pytestmark = pytest.mark.azurite
ROOT = Path(__file__).resolve().parents[2]
KEY = base64.b64encode(b"a key of these tests").decode()


@pytest.fixture(autouse=True)
def _installed() -> None:
    if installed_version() is None:
        pytest.skip("Azurite is not installed: python -m drills.sandbox.blob.install")


def _write(azurite: Azurite, name: str) -> list[str]:
    string = azurite.accounts["alpha"].connection_string
    with ContainerClient.from_connection_string(string, "kept") as container:
        if not container.exists():
            container.create_container()
        container.upload_blob(name, b"x")
        return sorted(container.list_blob_names())


def _gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":  # ended; only its new parent has not looked yet
            return True
        time.sleep(0.05)  # another process is watched, whose clock is not ours
    return False


def test_a_folder_is_taken_up_as_it_was_left(tmp_path: Path) -> None:
    with Azurite.start(tmp_path / "state", {"alpha": KEY, "beta": KEY}) as first:
        assert sorted(first.accounts) == ["alpha", "beta"]
        assert _write(first, "one") == ["one"]
        # Two on one folder would tear it: the second waits, and gives up with a remedy.
        with pytest.raises(AzuriteError, match=r"another Azurite is using .*remedy: stop it"):
            Azurite.start(tmp_path / "state", {"alpha": KEY}, patience=0.2)
    assert not first.running
    first.stop()  # once more does nothing
    with Azurite.start(tmp_path / "state", {"alpha": KEY}) as second:
        assert _write(second, "two") == ["one", "two"]


PARENT = """
import os, signal, sys
from pathlib import Path
from drills.sandbox.blob.azurite import Azurite
azurite = Azurite.start(Path(sys.argv[1]), {"alpha": sys.argv[2]})
print(azurite.pid, azurite.accounts["alpha"].endpoint, flush=True)
sys.stdin.readline()
"""


def test_a_killed_parent_leaves_no_orphan_and_loses_no_blob(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path), KEY],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    assert parent.stdin is not None
    pid, endpoint = parent.stdout.readline().split()
    with ContainerClient(
        endpoint, "kept", credential={"account_name": "alpha", "account_key": KEY}
    ) as container:
        container.create_container()
        container.upload_blob("just-before", b"x")
    assert not _gone(int(pid), 0.1)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait(30)
    parent.stdin.close()
    parent.stdout.close()
    # At once, while the former one may still be writing.
    with Azurite.start(tmp_path, {"alpha": KEY}) as again:
        assert _write(again, "after") == ["after", "just-before"]
    assert _gone(int(pid), 15)


def test_what_cannot_start_says_why_in_one_line_with_a_remedy(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(AzuriteError, match="EADDRINUSE") as caught:
            Azurite.start(None, {"alpha": KEY}, port=port)
        assert "remedy" in str(caught.value)
    (tmp_path / "file").write_text("x")
    for location, accounts, said in (
        (tmp_path / "file", {"alpha": KEY}, "cannot use"),
        (None, {}, "needs an account"),
        (None, {"Alpha": KEY}, "cannot be a storage account"),
        (None, {"alpha": "not base64!"}, "not base64"),
    ):
        with pytest.raises(AzuriteError, match=said) as caught:
            Azurite.start(location, accounts)
        assert "remedy: " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert KEY not in str(caught.value)


class _Bearer:
    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(
        self,
        *scopes: str,
        claims: str | None = None,
        tenant_id: str | None = None,
        enable_cae: bool = False,
        **kwargs: object,
    ) -> AccessToken:
        del scopes, claims, tenant_id, enable_cae, kwargs
        return AccessToken(self._token, int(time.time()) + 3600)


def test_https_takes_tokens_for_storage(tmp_path: Path) -> None:
    authority = trustme.CA()
    server = authority.issue_cert("127.0.0.1", "localhost")
    certificate, key, ca = (tmp_path / name for name in ("cert.pem", "key.pem", "ca.pem"))
    certificate.write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))
    server.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    now = datetime.now(UTC)
    token = jwt.encode(
        {
            "aud": "https://storage.azure.com",
            "iss": "https://sts.windows.net/11111111-1111-1111-1111-111111111111/",
            "nbf": now - timedelta(minutes=5),
            "iat": now - timedelta(minutes=5),
            "exp": now + timedelta(hours=1),
        },
        "a key of this test, long enough for HS256",
        algorithm="HS256",
    )
    with Azurite.start(None, {"alpha": KEY}, tls=Tls(certificate, key)) as azurite:
        endpoint = azurite.accounts["alpha"].endpoint
        assert endpoint.startswith("https://127.0.0.1:")
        from snapshots.vault import Access, open_vault

        vault = open_vault(
            f"azblob://alpha/vault?endpoint={endpoint}",
            access=Access(credential=_Bearer(token)),
            ca=ca,
        )
        vault.prepare()
        kept = vault.keep([b"with a token"])
        assert b"".join(vault.read(kept.sha256)) == b"with a token"
        vault.close()


def test_the_installation_is_quick_when_nothing_changed() -> None:
    assert install() is False
    assert installed_version() == wanted_version() == "3.37.0"


def test_the_lock_names_no_registry_and_proves_every_package() -> None:
    text = (HERE / "package-lock.json").read_text("utf-8")
    packages = json.loads(text)["packages"]
    below = {path: package for path, package in packages.items() if path}
    assert len(below) > 300
    assert all(package.get("integrity", "").startswith("sha512-") for package in below.values())
    assert not any("resolved" in package for package in below.values())
    assert packages["node_modules/azurite"]["version"] == "3.37.0"
    assert not re.search(r"registry|npmjs|artifactory|nexus", text, re.IGNORECASE)


INSTALL = """
import sys
from pathlib import Path
from drills.sandbox.blob.install import InstallError, install
try:
    install(Path(sys.argv[1]))
except InstallError as error:
    print(error)
"""


def test_a_failed_installation_says_why_without_an_address(tmp_path: Path) -> None:
    for name in ("package.json", "package-lock.json", ".npmrc"):
        (tmp_path / name).write_bytes((HERE / name).read_bytes())
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            INSTALL,
            str(tmp_path),
        ],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "npm_config_registry": "http://user:canary-password@127.0.0.1:9/",
            "npm_config_cache": str(tmp_path / "cache"),
            "npm_config_fetch_retries": "0",
        },
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert "could not install Azurite" in done.stdout
    assert "remedy: " in done.stdout
    assert done.stdout.count("\n") == 1
    assert "canary" not in done.stdout
    assert installed_version(tmp_path) is None
