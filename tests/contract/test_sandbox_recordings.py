"""The sandbox answers recorded requests as Azure answered them, where the recordings lie beside us.

The recordings are not part of this project. They are looked for in the folder that MUSTER_SPECS
names, else in a folder beside the checkout; without either the check says so and skips.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.sandbox_fixtures import ROOT, RunningSandbox

SPECS = Path(os.environ.get("MUSTER_SPECS") or ROOT.parent / "shared" / "specs")
RECORDINGS = SPECS / "wire-traces" / "azure-cli-recordings.json"
RECORDED_SUBSCRIPTION = "00000000-0000-0000-0000-000000000000"
MODEL = {"format": "OpenAI", "name": "gpt-4o", "version": "2024-11-20"}
# Of Microsoft's front door and of one backend's own telemetry: nothing a client may rely on.
_FRONT = {"x-cache", "x-ms-original-request-ids", "content-length"}
_BACKEND = {"azureml-served-by-cluster", "x-ms-response-type", "x-request-time", "request-context"}
pytestmark = pytest.mark.skipif(not RECORDINGS.is_file(), reason="no copy of the recordings")


def recordings() -> list[dict[str, Any]]:
    return list(json.loads(RECORDINGS.read_text())) if RECORDINGS.is_file() else []


def kind(value: Any) -> str:
    match value:
        case bool():
            return "bool"
        case int() | float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case dict():
            return "object"
        case _:
            return "null"


_TIME = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$")


def differences(recorded: Any, answered: Any, at: str = "") -> list[str]:
    """Where an answer is not shaped as the recording: keys, kinds of values, forms of dates."""
    if recorded == "…" or (isinstance(recorded, str) and recorded.startswith("…")):
        return []
    if kind(recorded) != kind(answered):
        return [f"{at}: {kind(recorded)} was recorded, {kind(answered)} is answered"]
    out: list[str] = []
    if isinstance(recorded, dict):
        cut = "…" in recorded
        names = {name for name in recorded if name != "…"}
        out += [f"{at}.{name} is missing" for name in sorted(names - set(answered))]
        if not cut:
            out += [f"{at}.{name} was never recorded" for name in sorted(set(answered) - names)]
        for name in sorted(names & set(answered)):
            out += differences(recorded[name], answered[name], f"{at}.{name}")
    elif isinstance(recorded, list):
        whole = [item for item in recorded if not (isinstance(item, str) and "…" in item)]
        if whole and not answered:
            return [f"{at}: the list is empty"]
        if whole and not (isinstance(whole[0], dict) and "name" in whole[0]):
            out += differences(whole[0], answered[0], f"{at}[0]")
        for item in whole:
            if isinstance(item, dict) and "name" in item and "id" not in item:
                found = [a for a in answered if a.get("name") == item["name"]]
                if not found:
                    out.append(f"{at}: no {item['name']}")
                else:
                    out += differences(item, found[0], f"{at}[{item['name']}]")
            elif isinstance(item, dict) and "id" in item:
                out += differences(item, answered[0], f"{at}[0]")
    elif isinstance(recorded, str) and _TIME.match(recorded) and not _TIME.match(answered):
        out.append(f"{at}: {answered!r} is no time as {recorded!r}")
    return out


def headers_differ(recorded: dict[str, str], answer: requests.Response) -> list[str]:
    wanted = {name.lower() for name in recorded} - _FRONT - _BACKEND
    out = [f"header {name} is missing" for name in sorted(wanted - set(answer.headers))]
    forbidden = {"azure-asyncoperation", "location", "etag"} - wanted
    out += [f"header {n} was never recorded" for n in sorted(forbidden & set(answer.headers))]
    same = ("content-type", "cache-control", "pragma", "expires", "x-content-type-options")
    out += [
        f"header {n} is {answer.headers.get(n)!r}, not {recorded[n]!r}"
        for n in same
        if n in recorded and answer.headers.get(n) != recorded[n]
    ]
    if "azure-asyncoperation" in wanted:
        there = urlsplit(recorded["azure-asyncoperation"])
        here = urlsplit(answer.headers.get("azure-asyncoperation", ""))
        if there.path.split("/")[3:8] != here.path.split("/")[3:8]:
            out.append(f"the operation is polled at {here.path}, not {there.path}")
    return out


def replay(sandbox: RunningSandbox) -> list[tuple[str, dict[str, Any], requests.Response]]:
    """Send every recorded request in order, and give back what was answered to each."""
    group = f"/subscriptions/{sandbox.subscription}/resourceGroups/clitest.rg000001"
    sandbox.call("PUT", f"{group}?api-version=2022-09-01", {"location": "eastus"})
    out: list[tuple[str, dict[str, Any], requests.Response]] = []
    operation = ""
    for step in recordings():
        request, name = step["request"], step["step"]
        url = request["url"].replace(RECORDED_SUBSCRIPTION, sandbox.subscription)
        url = url.replace("api-version=…", "api-version=2025-09-01")
        if name == "poll":
            sandbox.control("POST", "clock", {"advance": 60})
            url = operation
        if name.startswith("account delete"):
            sandbox.call("DELETE", url.replace("?", "/deployments/dpy?"))
        if name == "project create":
            sandbox.control("POST", "clock", {"advance": 60})
        body = request.get("body")
        if name.startswith("deployment") and step["response"]["body"].get("properties"):
            # The recorded model is retired by now, and what models can differs.
            step["response"]["body"]["properties"]["capabilities"] = {"…": "…"}
        if name == "deployment create":
            body = {**body, "properties": {"model": MODEL}}
        answer = sandbox.call(request["method"], url, body)
        operation = answer.headers.get("azure-asyncoperation", operation)
        if isinstance(step["response"]["status"], int):
            out.append((name, step["response"], answer))
    return out


def test_every_recorded_request_is_answered_in_the_recorded_shape(sandbox: RunningSandbox) -> None:
    problems: list[str] = []
    for name, recorded, answer in replay(sandbox):
        if answer.status_code != recorded["status"]:
            problems.append(f"{name}: {answer.status_code}, not {recorded['status']}")
            continue
        problems += [f"{name}: {p}" for p in headers_differ(recorded["headers"], answer)]
        body = answer.json() if answer.content else None
        if name.startswith("deletedAccounts") and body is not None:
            # The recording shows an account of another kind, of which the cut hides the rest.
            recorded["body"]["value"][0].pop("tags")
            body["value"][0].pop("tags", None)
            recorded["body"]["value"][0].pop("identity")
            body["value"][0].pop("identity", None)
        problems += [f"{name}: {p}" for p in differences(recorded["body"], body)]
    assert not problems, "\n".join(problems)


CATALOGUE = SPECS / "sdk-catalogue" / "azure-mgmt-cognitiveservices-14.1.0.json"


def test_every_operation_of_the_management_package_is_played(sandbox: RunningSandbox) -> None:
    """Each path of the catalogue is known, and what can be read without a name answers 200."""
    if not CATALOGUE.is_file():
        pytest.skip("no copy of the catalogue of operations")
    account = next(
        one["id"]
        for subscription in sandbox.subscriptions
        for one in sandbox.call(
            "GET",
            f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts"
            "?api-version=2025-09-01",
        ).json()["value"]
        if one["name"] == "ais-care-swc"
    )
    parts = account.split("/")
    known = {
        "subscriptionId": parts[2],
        "resourceGroupName": parts[4],
        "accountName": parts[8],
        "projectName": "care-desk",
        "location": "swedencentral",
        "default": "default",
    }
    problems: list[str] = []
    operations = json.loads(CATALOGUE.read_text())
    for operation in operations:
        template, method = operation["url"], operation["method"]
        path = re.sub(r"\{(\w+)\}", lambda m: known.get(m[1], "not-there"), template)
        here = f"{method} {template.partition('CognitiveServices/')[2]}"
        if method in ("PUT", "PATCH", "POST") or (method == "DELETE" and "not-there" not in path):
            # Not to be changed here: a Reader is refused by name, but only where there is a path.
            answer = sandbox.call(method, f"{path}?api-version=2025-09-01", {}, name="auditor")
            expected = {400, 403, 404, 200 if method == "POST" else 403}
        else:
            query = "&modelFormat=OpenAI&modelName=gpt-4o&modelVersion=2024-11-20"
            answer = sandbox.call(method, f"{path}?api-version=2025-09-01{query}")
            expected = {404} if "not-there" in path else {200}
            expected = {204, 404} if method == "DELETE" else expected
            if "not-there/" in path or "/deletedAccounts/" in path:
                expected |= {404}
        error = answer.json().get("error", {}) if answer.content else {}
        if answer.status_code not in expected or error.get("code") in (
            "SandboxUnsupported",
            "InvalidResourceType",
        ):
            problems.append(f"{here}: {answer.status_code} {answer.text[:160]}")
    assert len(operations) == 105
    assert not problems, "\n".join(problems)


def test_the_comparison_can_fail() -> None:
    assert differences({"a": 1, "b": "x"}, {"a": "1"})
    assert differences({"when": "2025-10-28T14:48:25.3936328Z"}, {"when": "yesterday"})
    assert differences({"a": None}, {"a": "secret"})
    assert differences({"value": [{"name": "x", "value": "1"}]}, {"value": []})
    assert not differences({"a": 1, "…": "…"}, {"a": 2, "b": 3})
