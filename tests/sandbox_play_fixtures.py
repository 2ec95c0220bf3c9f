"""A sandbox inside the test process: no server, a frozen clock, calls answered at once."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from drills.sandbox.app import Sandbox
from drills.sandbox.clock import SandboxClock
from drills.sandbox.estates import load_estate
from drills.sandbox.store import Store
from drills.sandbox.wire import Call
from drills.sandbox.world import World

NOW = 1_795_000_000.0  # 2026-11-18T11:06:40Z
CS = "providers/Microsoft.CognitiveServices"


@dataclass
class Reply:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: Any

    @property
    def code(self) -> str:
        """The error's code, or an empty text."""
        error = self.body.get("error") if isinstance(self.body, dict) else None
        return str(error["code"]) if error else ""

    @property
    def message(self) -> str:
        """The error's message."""
        return str(self.body["error"]["message"])


class Play:
    """A sandbox to play with, and its clock in the test's hand."""

    def __init__(self, estate: str = "empty", start: float = NOW) -> None:
        clock = SandboxClock(start)
        clock.put(start, scale=1.0, frozen=True)  # freeze() alone leaves what passed until it
        self.clock = clock
        self.world = World(Store(None), clock, seed=7, base="https://localhost:4443")
        self.sandbox = Sandbox(self.world)
        self.world.store.begin()
        load_estate(self.world, estate)
        self.world.store.commit()
        self.world.store.set_meta("setting-throttle", value=False)
        self.tenant = self.world.identity.tenant  # of the tokens that calls carry
        self.subscriptions = [
            str(s["subscriptionId"]) for _, s in self.world.store.items("subscriptions")
        ]

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        who: str = "Owner",
        headers: dict[str, str] | None = None,
        **query: str,
    ) -> Reply:
        """One request by the principal of that name or role."""
        principals = [p for _, p in self.world.store.items("principals")]
        principal = next(p for p in principals if who in (p["name"], p["role"]))
        identity = self.world.identity
        token = identity.mint(principal, "https://management.azure.com/", self.tenant)
        answer = self.sandbox.process(
            Call(
                method=method,
                path=path,
                query={"api-version": "2025-09-01", **query},
                headers={"authorization": f"Bearer {token}", **(headers or {})},
                body=b"" if body is None else orjson.dumps(body),
                base=self.world.base,
                client="127.0.0.1",
                id=str(uuid.uuid4()),
                correlation_id=str(uuid.uuid4()),
                now=self.clock.now(),
            )
        )
        data = answer.payload()
        return Reply(answer.status, answer.headers, orjson.loads(data) if data else None)

    def good(self, method: str, path: str, body: Any = None, **extra: Any) -> Any:
        """A request that must succeed; its body."""
        reply = self.call(method, path, body, **extra)
        assert reply.status < 300, reply
        return reply.body

    def advance(self, seconds: float) -> None:
        """Let time pass, from timer to timer."""
        target = self.clock.timestamp() + seconds
        while self.world.store.next_due <= target:
            self.clock.advance(max(0.0, self.world.store.next_due - self.clock.timestamp()))
            self.world.run_due()
        self.clock.advance(max(0.0, target - self.clock.timestamp()))

    def group(self, name: str = "rg-test", location: str = "swedencentral", at: int = 0) -> str:
        """A resource group's id."""
        id_ = f"/subscriptions/{self.subscriptions[at]}/resourceGroups/{name}"
        self.good("PUT", id_, {"location": location})
        return id_

    def account(
        self,
        name: str = "aoai-test",
        *,
        kind: str = "OpenAI",
        location: str = "swedencentral",
        group: str = "",
        **properties: Any,
    ) -> str:
        """A finished account's id."""
        id_ = f"{group or self.group()}/{CS}/accounts/{name}"
        body = {
            "kind": kind,
            "location": location,
            "sku": {"name": "S0"},
            "identity": {"type": "SystemAssigned"},
            "properties": {"customSubDomainName": name, **properties},
        }
        self.good("PUT", id_, body)
        self.advance(60)
        return id_

    def deploy(self, account: str, name: str = "chat", **extra: Any) -> Reply:
        """Ask for a deployment; by default a small gpt-4o-mini."""
        body: dict[str, Any] = {
            "sku": {"name": extra.pop("sku", "Standard"), "capacity": extra.pop("capacity", 1)},
            "properties": {
                "model": {
                    "format": "OpenAI",
                    "name": extra.pop("model", "gpt-4o-mini"),
                    **{
                        k: extra.pop(k)
                        for k in ("version", "source", "sourceAccount")
                        if k in extra
                    },
                }
            },
        }
        headers = extra.pop("headers", None)
        who = extra.pop("who", "Owner")
        body["properties"].update(extra)
        return self.call("PUT", f"{account}/deployments/{name}", body, headers=headers, who=who)

    def tuned(self, account: str, name: str = "gpt-4o-mini-2024-07-18.ft-0a1b-x") -> str:
        """Give an account a fine-tuned model, as the data plane keeps it."""
        base = name.partition(".ft-")[0]
        kept: dict[str, Any] = {
            "id": name,
            "model": base,
            "kind": "fine-tuned",
            "fine_tune": "ftjob-1",
        }
        kept |= {"created_at": int(self.clock.timestamp())}
        self.world.store.put(f"dp:{account.lower()}:models", name, kept)
        return name


@pytest.fixture
def play() -> Play:
    """A sandbox with the empty estate and a frozen clock."""
    return Play()


@pytest.fixture
def make_play() -> Callable[..., Play]:
    """Makes more of them: other estates, other starts."""
    return Play
