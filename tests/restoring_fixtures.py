"""What the tests of restores share: an engine on a sandbox, and ways to lose an estate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from snapshots.apply import Tell, no_secret
from snapshots.clock import SystemClock
from snapshots.cloud import Cloud, open_cloud
from snapshots.cloud.place import Credential, Identity, Limits
from snapshots.errors import MusterError
from snapshots.model import Snapshot
from snapshots.records import Records
from snapshots.restore import Prepared, Request, Restored, Tools, execute, prepare
from snapshots.secrets import Fingerprints
from snapshots.steps import Mapping
from snapshots.take import Scope, TakeOptions, take
from snapshots.vault import Vault, open_vault
from tests.sandbox_fixtures import RunningSandbox

API = "?api-version=2025-12-01"
LIMITS = Limits(poll_first=0.05, poll_cap=0.5, backoff=0.05, backoff_cap=1.0)
SECRETS = {
    "account-connection/care-search": "env:CARE_SEARCH",
    "project-connection/crm-api": "env:CRM_API",
    "project-connection/parcel-service": "env:PARCEL_SERVICE",
}
ANSWERS = {
    "env:CARE_SEARCH": "search-key-for-tests",
    "env:CRM_API": '{"keys": {"x-api-key": "crm-key-for-tests", "tenant": "contoso"}}',
    "env:PARCEL_SERVICE": "parcel-key-for-tests",
}


@dataclass
class Engine:
    """Everything a restore works with, on one sandbox and one folder."""

    sandbox: RunningSandbox
    folder: Path
    cloud: Cloud
    vault: Vault
    tools: Tools
    records: Records

    @classmethod
    def on(cls, sandbox: RunningSandbox, folder: Path, principal: str = "muster") -> Engine:
        """Open one; the vault and the records are those of the folder."""
        clock = SystemClock()
        found = sandbox.principal(principal)
        cloud = open_cloud(
            environment=sandbox.url,
            tenant=sandbox.tenant,
            credential=Credential(Identity.ENVIRONMENT, found["client_id"], found["secret"]),
            ca_file=sandbox.ca,
            clock=clock,
            version="tests",
            limits=LIMITS,
        )
        vault = open_vault(str(folder / "vault"), clock=clock)
        vault.prepare()
        prints = Fingerprints(vault.fingerprint_key())
        tools = Tools(cloud, vault, prints, clock, "tests", answer)
        records = Records(folder / "records", clock=clock, vault=vault)
        return cls(sandbox, folder, cloud, vault, tools, records)

    def close(self) -> None:
        self.vault.close()
        self.cloud.close()

    def take(self) -> Snapshot:
        """The whole estate now; complete, or this says what is missing."""
        found = take(
            "tests",
            [Scope(subscription) for subscription in self.sandbox.subscriptions],
            self.cloud,
            fingerprints=self.tools.fingerprints,
            clock=self.tools.clock,
            version="tests",
            payloads=self.vault,
            options=TakeOptions(reference=False),
        )
        assert not found.gaps, found.gaps[:3]
        return found

    def request(
        self,
        snapshot: Snapshot,
        *only: str,
        mapping: Mapping | None = None,
        regions: tuple[str, ...] = (),
        prune: bool = False,
    ) -> Request:
        """What to restore, with the answers of these tests."""
        return Request(
            snapshot=snapshot,
            target="same" if mapping is None else "elsewhere",
            mapping=mapping or Mapping(),
            only=only,
            regions=regions,
            prune=prune,
            secrets=SECRETS,
        )

    def prepare(
        self,
        snapshot: Snapshot,
        *only: str,
        mapping: Mapping | None = None,
        regions: tuple[str, ...] = (),
        prune: bool = False,
    ) -> Prepared:
        """The plan for it."""
        asked = self.request(snapshot, *only, mapping=mapping, regions=regions, prune=prune)
        return prepare(asked, self.tools)

    def restore(self, prepared: Prepared, tell: Tell | None = None) -> Restored:
        """Do it."""
        return execute(prepared, self.tools, self.records, tell=tell)


def answer(reference: str) -> str:
    """The secrets of these tests."""
    found = ANSWERS.get(reference)
    return found if found is not None else no_secret(reference)


@dataclass
class Front:
    """The command line in this process, on a configuration of a test's own."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    said: list[str] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "muster.toml"

    def run(self, *words: str) -> tuple[int, str]:
        """A command's exit code and everything that it says."""
        from muster.cli import main

        code = main([*words, "--config", str(self.config)])
        out, err = self.capsys.readouterr()
        self.said.append(out + err)
        assert "Traceback" not in out + err
        return code, out + err

    def ask(self, *words: str, expect: int = 0) -> Any:
        """A command's JSON."""
        from muster.cli import main

        code = main([*words, "--config", str(self.config), "--format", "json"])
        out, err = self.capsys.readouterr()
        self.said.append(out + err)
        assert code == expect, (code, out[-1500:], err[-1500:])
        return json.loads(out) if out.strip() else None


@pytest.fixture
def front(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Front:
    """A configuration for the worker's sandbox, without a snapshot."""
    made = Front(tmp_path / "site", capsys)
    made.folder.mkdir()
    made.ask("init", "--sandbox", str(sandbox.ready_file), "--principal", "muster")
    return made


@pytest.fixture
def engine(sandbox: RunningSandbox, tmp_path: Path) -> Iterator[Engine]:
    """An engine on the worker's sandbox."""
    made = Engine.on(sandbox, tmp_path)
    yield made
    made.close()


@pytest.fixture
def engines(tmp_path: Path) -> Iterator[Callable[[RunningSandbox], Engine]]:
    """Engines on sandboxes of a test's own."""
    made: list[Engine] = []

    def start(sandbox: RunningSandbox) -> Engine:
        engine = Engine.on(sandbox, tmp_path / f"engine{len(made)}")
        made.append(engine)
        return engine

    yield start
    for engine in made:
        engine.close()


def ask(sandbox: RunningSandbox, method: str, path: str, *allowed: int) -> None:
    """A request of the owner that must go well."""
    answer_ = sandbox.call(method, path + ("" if "?" in path else API))
    fine = answer_.ok or answer_.status_code in allowed
    assert fine, (method, path, answer_.status_code, answer_.text[:400])


def destroy(sandbox: RunningSandbox, snapshot: Snapshot, *, purge: bool, groups: bool) -> None:
    """Lose every account of a snapshot, and all that is in it; with `groups` the groups too."""
    by_kind: dict[str, list[str]] = {}
    for key, resource in sorted(snapshot.resources.items()):
        by_kind.setdefault(key.kind, []).append(resource.id)
    for id_ in by_kind.get("lock", []):
        ask(sandbox, "DELETE", f"{id_}?api-version=2020-05-01", 404)
    for id_ in by_kind.get("project", []):
        ask(sandbox, "DELETE", id_, 404)
    for id_ in by_kind.get("account", []):
        ask(sandbox, "DELETE", id_, 404)
    if purge:
        for subscription in sandbox.subscriptions:
            top = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices"
            for gone in sandbox.call("GET", f"{top}/deletedAccounts{API}").json()["value"]:
                ask(sandbox, "DELETE", gone["id"])
    if groups:
        for id_ in by_kind.get("resource-group", []):
            ask(sandbox, "DELETE", f"{id_}?api-version=2025-04-01")
    settle(sandbox)


def settle(sandbox: RunningSandbox) -> None:
    """Let what was begun come to its end."""
    sandbox.control("POST", "clock", {"advance": 120})


def changing(sandbox: RunningSandbox) -> list[tuple[str, str]]:
    """Requests that may change something, as the journal has them."""
    reads = ("/oauth2/", "checkDomainAvailability", "/resources")
    return [
        (entry["method"], entry["path"])
        for entry in sandbox.journal()
        if entry["method"] in {"PUT", "PATCH", "DELETE"}
        or (entry["method"] == "POST" and not any(part in entry["path"] for part in reads))
    ]


def quiet(call: Callable[[], object]) -> str:
    """What a call that must be refused says."""
    try:
        call()
    except MusterError as error:
        return str(error)
    message = "it was not refused"
    raise AssertionError(message)
