"""A context in which checks look at the demo estate's primary as if it had been restored there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from drills.checks import make, prove
from drills.model import CheckContext, CheckDeclaration, CheckOutcome
from snapshots.clock import SystemClock
from snapshots.cloud import Cloud, Limits, open_cloud
from snapshots.mapping import translate
from snapshots.model import JsonObject, Snapshot
from snapshots.secrets import Fingerprints
from snapshots.steps import Mapping
from snapshots.take import Scope, TakeOptions, take
from tests.canned_cloud import KeptPayloads
from tests.sandbox_fixtures import RunningSandbox

PRINTS = Fingerprints(b"a key of at least sixteen bytes")
QUICK = Limits(connect=2, read=5, patience=6, attempts=3, backoff=0.005, backoff_cap=0.05)
COGNITIVE = "https://cognitiveservices.azure.com/.default"
FOUNDRY = "https://ai.azure.com/.default"
CLAIMS = "*/rg-ai-prod/aoai-claims-swc"
ACCOUNT = "account/" + CLAIMS
_ARM = "providers/Microsoft.CognitiveServices/accounts"
_API = "api-version=2025-09-01"


def read(sandbox: RunningSandbox, cloud: Cloud) -> Snapshot:
    """Take the primary subscription of the demo estate."""
    return take(
        "demo",
        [Scope(sandbox.subscription)],
        cloud,
        fingerprints=PRINTS,
        clock=SystemClock(),
        version="checks",
        payloads=KeptPayloads(),
        options=TakeOptions(threads=4),
    )


@dataclass
class Bench:
    """Runs checks against the demo estate, and lets somebody else sabotage it."""

    sandbox: RunningSandbox
    cloud: Cloud
    expected: Snapshot

    def live(self) -> Snapshot:
        """Read the target now."""
        return read(self.sandbox, self.cloud)

    def context(self, folder: Path | None = None, **changes: Any) -> CheckContext:
        """A fresh context; the target is read once, when it is first needed."""
        kept: list[Snapshot] = []

        def live() -> Snapshot:
            if not kept:
                kept.append(self.live())
            return kept[0]

        context = CheckContext(
            cloud=self.cloud,
            clock=SystemClock(),
            live=live,
            expected=translate(self.expected, Mapping()).snapshot,
            source=self.expected,
            folder=folder or Path(),
        )
        return replace(context, **changes)

    def prove(
        self, check: str, subject: str = "", context: CheckContext | None = None, **settings: Any
    ) -> CheckOutcome:
        """Run a check with its control."""
        given: JsonObject = dict(settings)
        declaration = CheckDeclaration(check=check, subject=subject, settings=given)
        return prove(make(declaration), context or self.context())

    def id(self, group: str, account: str, rest: str = "") -> str:
        """An ARM id in the primary subscription."""
        head = f"/subscriptions/{self.sandbox.subscription}/resourceGroups/{group}/{_ARM}"
        return f"{head}/{account}{rest}"

    def arm(self, method: str, path: str, body: Any = None) -> Any:
        """Somebody else's request to Resource Manager."""
        answer = self.sandbox.call(method, f"{path}?{_API}", body, name="platform-owner")
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def delete(self, path: str) -> None:
        """Somebody takes the account's lock away, and then deletes below it."""
        lock = "/providers/Microsoft.Authorization/locks/keep-claims?api-version=2020-05-01"
        account = self.id("rg-ai-prod", "aoai-claims-swc")
        answer = self.sandbox.call("DELETE", account + lock, name="platform-owner")
        assert answer.status_code < 300, answer.text
        self.arm("DELETE", account + path)
        self.sandbox.control("POST", "clock", {"advance": 60})

    def data(self, account: str, method: str, path: str, body: Any = None) -> Any:
        """Somebody else's request to an account's data plane."""
        url = self.arm("GET", account)["properties"]["endpoint"].rstrip("/")
        answer = self.sandbox.call(method, url + path, body, name="claims-app", scope=COGNITIVE)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None

    def project(self, project: str, method: str, path: str, body: Any = None) -> Any:
        """Somebody else's request to a Foundry project."""
        url = self.arm("GET", project)["properties"]["endpoints"]["AI Foundry API"].rstrip("/")
        answer = self.sandbox.call(method, url + path, body, name="care-app", scope=FOUNDRY)
        assert answer.status_code < 300, answer.text
        return answer.json() if answer.content else None


def _cloud(sandbox: RunningSandbox) -> Cloud:
    return open_cloud(
        environment=sandbox.url,
        tenant=sandbox.tenant,
        credential=sandbox.credential("muster"),
        ca_file=sandbox.ca,
        limits=QUICK,
    )


_EXPECTED: dict[str, Snapshot] = {}


@pytest.fixture
def bench(sandbox: RunningSandbox) -> Iterator[Bench]:
    """The demo estate, untouched; what should be there was read once for each sandbox."""
    with _cloud(sandbox) as cloud:
        if sandbox.url not in _EXPECTED:
            _EXPECTED[sandbox.url] = read(sandbox, cloud)
        yield Bench(sandbox, cloud, _EXPECTED[sandbox.url])
    sandbox.control("DELETE", "faults")
