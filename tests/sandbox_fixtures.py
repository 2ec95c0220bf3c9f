"""Fixtures that start real sandboxes: own process, own state folder, HTTPS on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from azure.identity import ClientSecretCredential

ROOT = Path(__file__).parent.parent
_RENEW = 600.0  # seconds until another token is asked for
ARM_SCOPE = "https://management.azure.com/.default"


@dataclass
class RunningSandbox:
    """One sandbox process and how to reach it."""

    process: subprocess.Popen[bytes]
    state: Path
    ready_file: Path
    ready: dict[str, Any]
    log: Path
    _session: requests.Session = field(default_factory=requests.Session)

    @property
    def url(self) -> str:
        return str(self.ready["url"])

    @property
    def ca(self) -> str:
        return str(self.ready["ca"])

    @property
    def tenant(self) -> str:
        return str(self.ready["tenant"])

    @property
    def subscription(self) -> str:
        """The first subscription's id: the primary one."""
        return str(self.ready["subscriptions"][0]["id"])

    @property
    def subscriptions(self) -> list[str]:
        return [str(s["id"]) for s in self.ready["subscriptions"]]

    def principal(self, name: str) -> dict[str, Any]:
        """A principal by its name or, when no name fits, by its role."""
        for attribute in ("name", "role"):
            for principal in self.ready["principals"]:
                if str(principal[attribute]).lower() == name.lower():
                    return dict(principal)
        known = [(p["name"], p["role"]) for p in self.ready["principals"]]
        raise LookupError(f"no principal {name!r}; there are {known}")

    def credential(self, name: str = "Owner") -> ClientSecretCredential:
        """A credential of azure-identity for a principal."""
        found = self.principal(name)
        return ClientSecretCredential(
            self.tenant,
            found["client_id"],
            found["secret"],
            authority=self.url,
            disable_instance_discovery=True,
            connection_verify=self.ca,
        )

    def token(self, name: str = "Owner", scope: str = ARM_SCOPE) -> str:
        """A bearer token for a principal."""
        return self.credential(name).get_token(scope).token

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        name: str = "Owner",
        scope: str = ARM_SCOPE,
        headers: dict[str, str] | None = None,
        token: str | None = None,
        timeout: float = 30,
    ) -> requests.Response:
        """One plain HTTPS request with a principal's token; `path` may be absolute."""
        return self._session.request(
            method,
            path if path.startswith("https://") else self.url + path,
            json=body,
            headers={
                "authorization": f"Bearer {token or self._token(name, scope)}",
                **(headers or {}),
            },
            verify=self.ca,
            timeout=timeout,
        )

    _tokens: dict[tuple[str, str], tuple[str, float]] = field(default_factory=dict)

    def _token(self, name: str, scope: str) -> str:
        # A long run of tests outlives the hour of a token.
        token, renew_at = self._tokens.get((name, scope), ("", 0.0))
        if time.monotonic() >= renew_at:
            token = self.token(name, scope)
            self._tokens[name, scope] = token, time.monotonic() + _RENEW
        return token

    def control(self, method: str, path: str = "", body: Any = None) -> Any:
        """A request to the control API; returns the JSON answer (None for an empty one)."""
        answer = self._session.request(
            method,
            f"{self.ready['control']['url']}/{path}".rstrip("/"),
            json=body,
            headers={"authorization": f"Bearer {self.ready['control']['token']}"},
            verify=self.ca,
            timeout=30,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def journal(self) -> list[dict[str, Any]]:
        """Every request so far."""
        return list(self.control("GET", "journal")["value"])

    def reset(self) -> None:
        """Back to the estate as it was loaded: no faults, empty journal, default settings."""
        self.control("POST", "reset")

    def environment(self, name: str = "Owner") -> dict[str, str]:
        """Environment variables with which azure-identity finds this sandbox."""
        found = self.principal(name)
        return {
            "AZURE_AUTHORITY_HOST": self.url,
            "AZURE_TENANT_ID": self.tenant,
            "AZURE_CLIENT_ID": found["client_id"],
            "AZURE_CLIENT_SECRET": found["secret"],
            "REQUESTS_CA_BUNDLE": self.ca,
        }

    def kill(self) -> None:
        """kill -9, as a power cut does."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def stop(self) -> None:
        """The clean end."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        self._session.close()


def start_sandbox(folder: Path, *options: str, blob: bool = False) -> RunningSandbox:
    """Start a sandbox with its state in `folder/state` and wait until it serves."""
    folder.mkdir(parents=True, exist_ok=True)
    ready_file, log = folder / "ready.json", folder / "sandbox.log"
    command = [sys.executable, "-m", "drills.sandbox", "--state", str(folder / "state")]
    command += ["--ready-file", str(ready_file), *options]
    if not blob:
        command.append("--no-blob")
    ready_file.unlink(missing_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=stream, stderr=stream, env={**os.environ}
        )
    deadline = time.monotonic() + 180  # a large estate takes its time to load
    while not ready_file.is_file():
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise RuntimeError(f"the sandbox did not start:\n{log.read_text()[-3000:]}")
        time.sleep(0.02)
    return RunningSandbox(
        process, folder / "state", ready_file, json.loads(ready_file.read_text()), log
    )


@pytest.fixture(scope="session")
def sandbox_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    """One sandbox with the demo estate for the whole run of a worker."""
    running = start_sandbox(tmp_path_factory.mktemp("sandbox"))
    yield running
    running.stop()


@pytest.fixture
def sandbox(sandbox_session: RunningSandbox) -> RunningSandbox:
    """The worker's sandbox, as freshly loaded, without throttling (a test turns it on)."""
    sandbox_session.reset()
    sandbox_session.control("PUT", "settings", {"throttle": False})
    return sandbox_session


@pytest.fixture
def new_sandbox(tmp_path: Path) -> Iterator[Callable[..., RunningSandbox]]:
    """Starts sandboxes of a test's own: `new_sandbox("--estate", "empty", blob=True)`."""
    started: list[RunningSandbox] = []

    def start(*options: str, blob: bool = False, folder: str = "") -> RunningSandbox:
        place = tmp_path / (folder or f"sandbox{len(started)}")
        running = start_sandbox(place, *options, blob=blob)
        started.append(running)
        return running

    yield start
    for running in started:
        running.stop()
