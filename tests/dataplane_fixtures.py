"""A sandbox of one process served over real HTTPS, for the tests of its data planes."""

from __future__ import annotations

import gc
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
import requests
import trustme
import uvicorn
from azure.ai.projects import AIProjectClient
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import RequestsTransport

from drills.sandbox.access import role_named
from drills.sandbox.app import Sandbox
from drills.sandbox.arm import Record
from drills.sandbox.clock import SandboxClock, parse_time, wire_time
from drills.sandbox.store import Store
from drills.sandbox.world import World

SUBSCRIPTION = "11111111-1111-4111-8111-111111111111"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ai"
ACCOUNTS = f"{GROUP}/providers/Microsoft.CognitiveServices/accounts"
VERSION = "2024-10-21"
START = parse_time("2026-11-22T09:00:00Z").timestamp()


def rows(theme: str, count: int = 12) -> bytes:
    """A training file: `count` questions about a theme with their answers."""
    lines = [
        {
            "messages": [
                {"role": "system", "content": f"You answer about {theme}."},
                {"role": "user", "content": f"What is rule {n} of {theme}?"},
                {"role": "assistant", "content": f"Rule {n} of {theme} is {theme}-{n * 7}."},
            ]
        }
        for n in range(1, count + 1)
    ]
    return "\n".join(json.dumps(line) for line in lines).encode()


@dataclass(slots=True)
class Playground:
    """A served sandbox with its world in reach."""

    world: World
    sandbox: Sandbox
    url: str
    tls: ssl.SSLContext
    authority: Path  # the certificate of the authority, as a file
    clients: list[Any] = field(default_factory=list)

    def account(
        self, name: str, *, kind: str = "AIServices", location: str = "swedencentral", **more: Any
    ) -> Record:
        """Put an account there, with keys `{name}-key-1` and `-2`."""
        store = self.world.store
        store.put("subscriptions", SUBSCRIPTION, {"subscriptionId": SUBSCRIPTION})
        store.put("groups", f"{SUBSCRIPTION}/rg-ai".lower(), {"name": "rg-ai"})
        record = Record(
            id=f"{ACCOUNTS}/{name}",
            type="Microsoft.CognitiveServices/accounts",
            name=name,
            body={
                "location": location,
                "kind": kind,
                "sku": {"name": "S0"},
                "properties": {
                    "customSubDomainName": name,
                    "provisioningState": "Succeeded",
                    "publicNetworkAccess": "Enabled",
                    "capabilities": [],
                    **more,
                },
            },
            hidden={"key1": f"{name}-key-1", "key2": f"{name}-key-2"},
        )
        return self.world.arm.save(record)

    def child(self, parent: Record, type_: str, name: str, **properties: Any) -> Record:
        """Put a child resource of an account (or project) there."""
        record = Record(
            id=f"{parent.id}/{type_}/{name}",
            type=f"{parent.type}/{type_}",
            name=name,
            body={"properties": {"provisioningState": "Succeeded", **properties}},
        )
        return self.world.arm.save(record)

    def deployment(
        self, account: Record, name: str, model: str, version: str = "", **more: Any
    ) -> Record:
        """Put a deployment there."""
        wire = {"format": "OpenAI", "name": model, "version": version}
        source = more.pop("source", "")
        if source:
            wire["source"] = source
        record = self.child(account, "deployments", name, model=wire, **more)
        record.body["sku"] = {"name": "Standard", "capacity": 10}
        record.system = {"createdAt": wire_time(self.world.clock.now())}
        return self.world.arm.save(record)

    def change(self, record: Record, **properties: Any) -> None:
        """Change a resource's properties."""
        fresh = self.world.arm.find(record.id)
        assert fresh is not None
        fresh.properties.update(properties)
        self.world.arm.save(fresh)

    def encrypt(self, name: str) -> None:
        """Encrypt an account with a key of the customer."""
        record = self.world.arm.find(f"{ACCOUNTS}/{name}")
        assert record is not None
        self.change(record, encryption={"keySource": "Microsoft.KeyVault"})

    def endpoint(self, name: str, suffix: str = "openai") -> str:
        """Where an account answers."""
        return f"{self.url}/dp/{name}.{suffix}"

    def http(self) -> httpx2.Client:
        """A plain client that trusts the sandbox."""
        client = httpx2.Client(verify=self.tls, timeout=20)
        self.clients.append(client)
        return client

    def classic(self, name: str, **options: Any) -> openai.AzureOpenAI:
        """The SDK's client for classic paths, with the account's key."""
        options.setdefault("api_key", f"{name}-key-1")
        return openai.AzureOpenAI(
            azure_endpoint=self.endpoint(name),
            api_version=options.pop("api_version", VERSION),
            http_client=self.http(),
            max_retries=0,
            **options,
        )

    def v1(self, name: str, **options: Any) -> openai.OpenAI:
        """The SDK's client for v1 paths, with the account's key."""
        options.setdefault("api_key", f"{name}-key-1")
        return openai.OpenAI(
            base_url=f"{self.endpoint(name)}/openai/v1/",
            http_client=self.http(),
            max_retries=0,
            **options,
        )

    def grant(self, principal: str, role: str, scope: str) -> None:
        """Give a role to a principal by object id."""
        found = role_named(role)
        assert found is not None
        name = self.world.guid()
        kind = "Microsoft.Authorization/roleAssignments"
        definition = f"/providers/Microsoft.Authorization/roleDefinitions/{found.guid}"
        properties = {"roleDefinitionId": definition, "principalId": principal, "scope": scope}
        body = {"properties": properties}
        self.world.arm.save(Record(f"{scope}/providers/{kind}/{name}", kind, name, body))
        self.world.access.touch()

    def token(
        self,
        name: str = "pipeline",
        audience: str = "https://cognitiveservices.azure.com",
        role: str = "Azure AI User",
    ) -> str:
        """A bearer token of a principal, made (with a role on the group) when it is not there."""
        for _, principal in self.world.store.items("principals"):
            if principal["name"] == name:
                break
        else:
            principal = self.world.identity.add_principal(name)
            if role:
                self.grant(principal["oid"], role, GROUP)
        return self.world.identity.mint(principal, audience, self.world.identity.tenant)

    def project(self, account: Record, name: str) -> Record:
        """Put a project there."""
        return self.child(account, "projects", name, displayName=name)

    def foundry(self, account: str, project: str, principal: str = "pipeline") -> AIProjectClient:
        """The SDK's client for a project, with the token of a principal."""
        session = requests.Session()
        client = AIProjectClient(
            endpoint=f"{self.endpoint(account, 'services.ai')}/api/projects/{project}",
            credential=Minted(self, principal),
            retry_total=0,
            # a session of our own: the client leaves its connections open when it is closed
            transport=RequestsTransport(
                session=session, session_owner=False, connection_verify=str(self.authority)
            ),
        )
        self.clients += [client, session]
        return client

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.world.clock.advance(seconds)


@dataclass(slots=True)
class Minted:
    """A credential whose tokens the sandbox mints for whatever audience is asked for."""

    ground: Playground
    principal: str

    def get_token(self, *scopes: str, **_options: Any) -> AccessToken:
        """A token for the first scope."""
        audience = scopes[0].removesuffix("/.default")
        token = self.ground.token(self.principal, audience)
        return AccessToken(token, int(time.time()) + 3600)


@pytest.fixture(scope="session")
def _authority() -> trustme.CA:
    return trustme.CA()


def serve(authority: trustme.CA, folder: Path, state: Path | None = None) -> Iterator[Playground]:
    """Serve a fresh sandbox over HTTPS on a free loopback port until the generator is closed."""
    clock = SandboxClock(START)
    clock.freeze()
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    port = listener.getsockname()[1]
    url = f"https://localhost:{port}"
    world = World(Store(state), clock, seed=7, base=url)
    sandbox = Sandbox(world)
    world.store.set_meta("setting-throttle", value=False)
    certificate = folder / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
    config = uvicorn.Config(
        sandbox, ssl_certfile=str(certificate), log_level="warning", lifespan="off"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    tls = ssl.create_default_context()
    authority.configure_trust(tls)
    bundle = folder / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    ground = Playground(world, sandbox, url, tls, bundle)
    try:
        yield ground
    finally:
        for client in ground.clients:
            client.close()
        gc.collect()  # an error that a test caught may hold a connection that nobody reads
        server.should_exit = True
        thread.join(10)
        listener.close()
        world.store.close()


@pytest.fixture
def ground(_authority: trustme.CA, tmp_path: Path) -> Iterator[Playground]:
    """A served sandbox with one account, `swc`, and a deployment `chat` of gpt-4o-mini."""
    for playground in serve(_authority, tmp_path):
        account = playground.account("swc")
        playground.deployment(account, "chat", "gpt-4o-mini", "2024-07-18")
        yield playground
