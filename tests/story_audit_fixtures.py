"""An estate in a living sandbox, a configuration for it, people who edit it, and its audits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import requests
from jsonschema import Draft202012Validator

from muster.cli import main
from muster.commands.audit import run_audit
from muster.invocation import Invocation
from muster.settings import Environment, load
from muster.wiring import Wiring
from snapshots.audit.report_model import AuditReport
from snapshots.audit.run import Wishes
from snapshots.ledger import Ledger
from tests.sandbox_fixtures import ARM_SCOPE, RunningSandbox

ROOT = Path(__file__).parents[1]
API = "api-version=2025-06-01"
LATER = 1300  # seconds after which every record of a change can be seen


@dataclass
class Person:
    """Somebody who edits the estate."""

    name: str
    kind: str  # as reports name it
    who: str  # the caller that the log shows
    _sandbox: RunningSandbox = field(repr=False)

    def token(self, scope: str = ARM_SCOPE) -> str:
        ready = self._sandbox.ready
        if self.kind == "ManagedIdentity":
            identity = ready["managed_identity"]
            found = self._sandbox.principal(self.name)
            answer = requests.get(
                identity["endpoint"],
                params={
                    "resource": scope,
                    "client_id": found["client_id"],
                    "api-version": "2019-08-01",
                },
                headers={"x-identity-header": identity["header"]},
                verify=self._sandbox.ca,
                timeout=30,
            )
        elif self.kind == "User":
            found = self._sandbox.principal(self.name)
            answer = requests.post(
                f"{self._sandbox.url}/{self._sandbox.tenant}/oauth2/v2.0/token",
                data={
                    "grant_type": "password",
                    "username": self.who,
                    "password": found["secret"],
                    "client_id": "04b07795-8ddb-461a-bbee-02f9e1bf7b46",
                    "scope": scope,
                },
                verify=self._sandbox.ca,
                timeout=30,
            )
        else:
            return self._sandbox.token(self.name, scope)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def call(self, method: str, path: str, body: Any = None) -> requests.Response:
        """A request as this person; the control plane's version is added."""
        if "api-version" not in path:
            path += ("&" if "?" in path else "?") + API
        return self._sandbox.call(method, path, body, token=self.token())

    def does(self, method: str, path: str, body: Any = None) -> Any:
        """A request that must succeed."""
        answer = self.call(method, path, body)
        assert answer.status_code < 300, (method, path, answer.status_code, answer.text[:500])
        return answer.json() if answer.content else None


@dataclass
class Site:
    """A configuration, its stores, and the sandbox it looks at."""

    sandbox: RunningSandbox
    folder: Path
    config: Path
    capsys: pytest.CaptureFixture[str]

    # ---- the estate

    def id(self, group: str, account: str, *below: str, dr: bool = False) -> str:
        subscription = self.sandbox.subscriptions[1 if dr else 0]
        rest = "".join(f"/{part}" for part in below)
        return (
            f"/subscriptions/{subscription}/resourceGroups/{group}/providers/"
            f"Microsoft.CognitiveServices/accounts/{account}{rest}"
        )

    def person(self, name: str) -> Person:
        found = self.sandbox.principal(name)
        kind = str(found["kind"])
        who = str(found.get("upn") or found["object_id"])
        return Person(name, kind, who, self.sandbox)

    @property
    def people(self) -> list[Person]:
        names = ("platform-owner", "pipeline", "Anna Lindqvist", "muster-identity")
        return [self.person(name) for name in names]

    def later(self, seconds: float = LATER) -> None:
        """Let Azure's clock go on, so that what was done can be read in its log."""
        self.sandbox.control("POST", "clock", {"advance": seconds})

    def settings(self, **values: Any) -> None:
        self.sandbox.control("PUT", "settings", values)

    @property
    def now(self) -> datetime:
        """Azure's time."""
        return datetime.fromisoformat(str(self.sandbox.control("GET", "clock")["now"])[:19] + "Z")

    def deny(self, path: str) -> None:
        """Refuse reads whose path fits a regular expression."""
        fault = {"kind": "error", "status": 403, "code": "AuthorizationFailed", "path": path}
        self.sandbox.control("POST", "faults", {**fault, "message": "denied by a test"})

    # ---- commands

    def run(self, *arguments: str, expect: int | None = 0) -> str:
        """Run a command; give what it printed."""
        code = main([*arguments, "--config", str(self.config)])
        out, err = self.capsys.readouterr()
        assert expect is None or code == expect, (arguments, code, out[-3000:], err[-3000:])
        self.error = err
        self.code = code
        return out

    error: str = ""
    code: int = 0

    def json(self, *arguments: str, expect: int | None = 0) -> Any:
        """Run a command, read its JSON and hold it to its schema."""
        found = json.loads(self.run(*arguments, "--format", "json", expect=expect))
        file = ROOT / "docs" / "schemas" / f"{arguments[0]}.schema.json"
        Draft202012Validator(json.loads(file.read_text("utf-8"))).validate(found)
        return found

    def audit(self, wishes: Wishes | None = None) -> AuditReport:
        """Audit without the command line."""
        with Wiring(load(self.config), Environment.read({})) as wiring:
            return run_audit(wiring, Invocation(quiet=True), wishes or Wishes())

    def approve_all(self) -> None:
        """Make what is there the baseline."""
        self.run("snapshot", "--quiet", "--no-reference")
        self.run("approve", "--all", "--reason", "as built", "--by", "anna@contoso.example")

    def ledger(self) -> Ledger:
        return Ledger.open(load(self.config).ledger.path)

    def add_setting(self, section: str, lines: str) -> None:
        """Write settings of a section that `muster init` wrote, or did not."""
        text = self.config.read_text("utf-8")
        header = f"[{section}]"
        kept = [
            line
            for line in text.splitlines()
            if line.split(" =")[0] not in {extra.split(" =")[0] for extra in lines.splitlines()}
        ]
        if header in kept:
            at = kept.index(header) + 1
            kept[at:at] = lines.splitlines()
        else:
            kept += ["", header, *lines.splitlines()]
        self.config.write_text("\n".join(kept) + "\n", encoding="utf-8")


def site_at(sandbox: RunningSandbox, folder: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """Write a configuration with `muster init`."""
    file = folder / "muster.toml"
    ready = str(sandbox.ready_file)
    arguments = ["init", "--sandbox", ready, "--principal", "muster", "--config", str(file)]
    assert main([*arguments, "--quiet"]) == 0
    capsys.readouterr()
    return Site(sandbox, folder, file, capsys)


@pytest.fixture
def site(sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    """The demo estate, as loaded, with a configuration and empty stores."""
    return site_at(sandbox, tmp_path / "site", capsys)


@pytest.fixture
def own_site(
    new_sandbox: Callable[..., RunningSandbox], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Site:
    """As `site`, in a sandbox of the test's own: its clock may go far ahead."""
    sandbox = new_sandbox()
    sandbox.control("PUT", "settings", {"throttle": False})
    return site_at(sandbox, tmp_path / "site", capsys)
