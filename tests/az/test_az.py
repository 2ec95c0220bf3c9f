"""The Azure CLI, unmodified, against the sandbox: register, log in, list, show, create, delete."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox_fixtures import RunningSandbox, start_sandbox

pytestmark = [pytest.mark.az, pytest.mark.timeout(600)]


class Az:
    """The `az` command with a configuration folder of its own."""

    def __init__(self, sandbox: RunningSandbox, folder: Path) -> None:
        self.path = os.environ.get("MUSTER_AZ", "")
        if not self.path:
            pytest.skip("MUSTER_AZ names no Azure CLI; `make test-az` installs one")
        self.environment = {
            **os.environ,
            "AZURE_CONFIG_DIR": str(folder),
            "REQUESTS_CA_BUNDLE": sandbox.ca,
            "AZURE_CORE_COLLECT_TELEMETRY": "no",
            "AZURE_CORE_INSTANCE_DISCOVERY": "false",
        }

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.path, *words],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    def __call__(self, *words: str) -> Any:
        done = self.run(*words, "-o", "json")
        assert done.returncode == 0, f"az {' '.join(words)}:\n{done.stderr}"
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSandbox]:
    sandbox = start_sandbox(tmp_path_factory.mktemp("az"))
    sandbox.control("POST", "clock", {"scale": 20})
    yield sandbox
    sandbox.stop()


@pytest.fixture(scope="module")
def az(running: RunningSandbox, tmp_path_factory: pytest.TempPathFactory) -> Az:
    """Registered with the sandbox as its cloud and logged in as the owner."""
    found = Az(running, tmp_path_factory.mktemp("config"))
    found("cloud", "register", "-n", "sim", "--endpoint-resource-manager", running.url)
    found("cloud", "set", "-n", "sim")
    found.run("config", "set", "core.instance_discovery=false")
    owner = running.principal("Owner")
    login = ["login", "--service-principal", "-u", owner["client_id"], "-p", owner["secret"]]
    listed = found(*login, "--tenant", running.tenant)
    assert {s["id"] for s in listed} == set(running.subscriptions)
    found("account", "set", "-s", running.subscription)
    return found


def test_a_wrong_secret_is_refused(az: Az, running: RunningSandbox) -> None:
    # Another principal than the one logged in: az answers a known one from its token cache.
    reader = running.principal("Reader")
    done = az.run(
        "login",
        "--service-principal",
        "-u",
        reader["client_id"],
        "-p",
        "wrong",
        "--tenant",
        running.tenant,
    )
    assert done.returncode != 0
    assert "AADSTS7000215" in done.stderr


def test_accounts_and_deployments_are_listed_and_shown(az: Az) -> None:
    accounts = az("cognitiveservices", "account", "list")
    assert len(accounts) >= 4
    account = next(a for a in accounts if a["name"] == "aoai-claims-swc")
    where = ["-g", account["resourceGroup"], "-n", account["name"]]
    shown = az("cognitiveservices", "account", "show", *where)
    assert shown["id"] == account["id"]
    deployments = az("cognitiveservices", "account", "deployment", "list", *where)
    assert deployments
    name = deployments[0]["name"]
    one = az(
        "cognitiveservices", "account", "deployment", "show", *where, "--deployment-name", name
    )
    assert one["properties"]["model"] == deployments[0]["properties"]["model"]
    missing = az.run(
        "cognitiveservices", "account", "deployment", "show", *where, "--deployment-name", "none"
    )
    assert missing.returncode != 0
    assert "NotFound" in missing.stderr
    assert az("cognitiveservices", "account", "list-models", *where)
    assert az("cognitiveservices", "usage", "list", "-l", "swedencentral") is not None


def test_an_account_and_a_deployment_come_and_go(az: Az) -> None:
    az("group", "create", "-n", "rg-az", "-l", "swedencentral")
    where = ["-g", "rg-az", "-n", "az-made-account"]
    made = az(
        "cognitiveservices",
        "account",
        "create",
        *where,
        "--kind",
        "OpenAI",
        "--sku",
        "S0",
        "-l",
        "swedencentral",
        "--yes",
    )
    assert made["properties"]["provisioningState"] == "Succeeded"
    model = ["--model-name", "gpt-4o-mini", "--model-version", "2024-07-18"]
    one = [*where, "--deployment-name", "mini"]
    az(
        "cognitiveservices",
        "account",
        "deployment",
        "create",
        *one,
        *model,
        "--model-format",
        "OpenAI",
        "--sku-name",
        "Standard",
        "--sku-capacity",
        "1",
    )
    listed = az("cognitiveservices", "account", "deployment", "list", *where)
    assert [d["name"] for d in listed] == ["mini"]
    assert listed[0]["sku"] == {"capacity": 1, "name": "Standard", **_rest(listed[0]["sku"])}
    az("cognitiveservices", "account", "deployment", "delete", *one)
    assert az("cognitiveservices", "account", "deployment", "list", *where) == []
    az("cognitiveservices", "account", "delete", *where)
    deleted = az("cognitiveservices", "account", "list-deleted")
    assert "az-made-account" in [d["name"] for d in deleted]
    az("cognitiveservices", "account", "purge", *where, "-l", "swedencentral")
    deleted = az("cognitiveservices", "account", "list-deleted")
    assert "az-made-account" not in [d["name"] for d in deleted]


def _rest(sku: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in sku.items() if k not in ("capacity", "name")}


def test_what_is_not_allowed_says_so(az: Az, running: RunningSandbox) -> None:
    reader = running.principal("Reader")
    az(
        "login",
        "--service-principal",
        "-u",
        reader["client_id"],
        "-p",
        reader["secret"],
        "--tenant",
        running.tenant,
    )
    done = az.run("group", "create", "-n", "rg-denied", "-l", "eastus2")
    assert done.returncode != 0
    assert "AuthorizationFailed" in done.stderr
