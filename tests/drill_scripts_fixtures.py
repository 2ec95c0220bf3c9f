"""A demo estate whose standby is in step, for the shipped drills: prepared once for each worker."""

from __future__ import annotations

import contextlib
import io
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muster.cli import main
from tests.drill_fixtures import DrillSite
from tests.sandbox_fixtures import RunningSandbox

PRIMARY, STANDBY = "swedencentral", "eastus2"
API = "api-version=2025-09-01"
OPENAI = "https://cognitiveservices.azure.com/.default"
FOUNDRY = "https://ai.azure.com/.default"
_ARM = "providers/Microsoft.CognitiveServices/accounts"
_PAIR = """\
[estate.pair.sku]
gpt4o = { name = "Standard", capacity = 60 }
gpt4o-ptu = { name = "GlobalStandard", capacity = 50 }
[estate.pair.versions]
"gpt-4o@2024-08-06" = "2024-11-20"
[estate.pair.replicate]
prompts = ["A pipe burst in my kitchen."]

# Git keeps the state."""
_SECRETS = """
[restore.secrets]
"account-connection/care-search" = "file:secret.txt"
"project-connection/crm-api" = "file:secret.txt"
"project-connection/parcel-service" = "file:secret.txt"
"""
# Nothing takes time that is not asked for: these are tests of what is done, not of how long.
_AT_ONCE = {
    "throttle": False,
    "retry_after": 0,
    "write_seconds": 0,
    "seconds": dict.fromkeys(
        (
            "account-create",
            "account-update",
            "deployment-standard",
            "deployment-provisioned",
            "deployment-finetuned",
            "capability-host",
            "purge",
            "topic-training",
            "vector-file",
            "default",
        ),
        0,
    ),
}


@dataclass
class PairSite(DrillSite):
    """A site whose standby was replicated, and somebody else who writes there."""

    @property
    def claims(self) -> str:
        """The standby's claims account."""
        return self._account("aoai-claims-eus2")

    @property
    def care(self) -> str:
        """The standby's customer care account."""
        return self._account("ais-care-eus2")

    def _account(self, name: str) -> str:
        subscription = self.sandbox.subscriptions[1]
        return f"/subscriptions/{subscription}/resourceGroups/rg-ai-dr/{_ARM}/{name}"

    def azure(self) -> dict[str, str]:
        """What a drill could change; that a model was called is no change."""
        called = re.compile(r'"last_used": [0-9.]+')
        return {name: called.sub("", body) for name, body in super().azure().items()}

    def arm(self, method: str, path: str, body: Any = None) -> Any:
        """Somebody's request to Resource Manager."""
        answer = self.sandbox.call(method, f"{path}?{API}", body, name="platform-owner")
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def data(self, method: str, path: str, body: Any = None) -> Any:
        """Somebody's request to the standby's claims account."""
        url = self.arm("GET", self.claims)["properties"]["endpoint"].rstrip("/")
        answer = self.sandbox.call(method, url + path, body, name="claims-app", scope=OPENAI)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def agent(self, name: str, definition: dict[str, Any]) -> None:
        """Somebody writes a new version of an agent in the standby."""
        project = self.arm("GET", f"{self.care}/projects/care-desk")
        url = project["properties"]["endpoints"]["AI Foundry API"].rstrip("/")
        path = f"{url}/agents/{name}/versions?api-version=v1"
        body = {"definition": {"kind": "prompt", "model": "care-chat", **definition}}
        answer = self.sandbox.call("POST", path, body, name="muster", scope=FOUNDRY)
        assert answer.status_code < 300, answer.text

    def lose_primary(self) -> None:
        """The primary region goes dark: connections are dropped."""
        outage = {"kind": "outage", "region": PRIMARY, "mode": "refused", "id": "lost"}
        self.sandbox.control("POST", "faults", outage)

    def mark(self) -> int:
        """Where the sandbox's journal stands."""
        return max((int(entry["seq"]) for entry in self.sandbox.journal()), default=0)

    def since(self, mark: int) -> list[dict[str, Any]]:
        """What was asked of the sandbox since."""
        return [entry for entry in self.sandbox.journal() if entry["seq"] > mark]


def changes(entries: list[dict[str, Any]]) -> list[str]:
    """Which of some requests could have changed something in Resource Manager."""
    methods = {"PUT", "PATCH", "DELETE"}
    return [f"{e['method']} {e['path']}" for e in entries if e["method"] in methods]


def to_primary(entries: list[dict[str, Any]]) -> list[str]:
    """Which of some requests went to the primary region, or named what lies there."""
    return [
        f"{e['method']} {e['path']}"
        for e in entries
        if e["region"] == PRIMARY or "aoai-claims-swc." in e["path"] or "-swc/" in e["path"]
    ]


def _quiet(*words: str) -> None:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = main([*words, "--quiet"])
    assert code == 0, said.getvalue()[-2000:]


@pytest.fixture(scope="session")
def prepared_failover(
    sandbox_session: RunningSandbox, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Any]:
    """A folder with everything, and the sandbox's world as it was when it was ready."""
    sandbox_session.reset()
    sandbox_session.control("PUT", "settings", _AT_ONCE)
    file = tmp_path_factory.mktemp("pair") / "site" / "muster.toml"
    _quiet("init", "--sandbox", str(sandbox_session.ready_file), "--config", str(file))
    text = file.read_text("utf-8").replace("# Git keeps the state.", _PAIR, 1) + _SECRETS
    file.write_text(text, "utf-8")
    secret = file.with_name("secret.txt")
    secret.write_text("made-up")
    secret.chmod(0o600)
    _quiet("snapshot", "--no-reference", "--config", str(file))
    _quiet("replicate", "--apply", "--yes", "--config", str(file))
    return file.parent, sandbox_session.control("GET", "dump")


@pytest.fixture
def failover_site(
    prepared_failover: tuple[Path, Any],
    sandbox_session: RunningSandbox,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[PairSite]:
    """The demo estate with its standby in step; ledger and vault of the test's own."""
    folder, dump = prepared_failover
    sandbox_session.control("POST", "load", dump)
    sandbox_session.control("DELETE", "faults")
    sandbox_session.control("POST", "clock", {"scale": 20})
    shutil.copytree(folder, tmp_path / "site")
    capsys.readouterr()
    yield PairSite(sandbox_session, tmp_path / "site" / "muster.toml", capsys)
    sandbox_session.control("POST", "clock", {"scale": 1})
    sandbox_session.reset()
