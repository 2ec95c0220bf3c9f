"""The sandbox's answers hold to Microsoft's published descriptions, where a copy of them lies.

The descriptions are not part of this project. They are looked for in the folder that MUSTER_SPECS
names, else in a folder beside the checkout; without either the check says so and skips.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing
import referencing.jsonschema

from tests.sandbox_fixtures import ROOT, RunningSandbox

SPECS = Path(os.environ.get("MUSTER_SPECS") or ROOT.parent / "shared" / "specs")
CS = "cognitiveservices/resource-manager/Microsoft.CognitiveServices"
ARM_FILES = {
    f"{CS}/stable/2023-05-01/cognitiveservices.json": "2023-05-01",
    f"{CS}/preview/2024-06-01-preview/cognitiveservices.json": "2024-06-01-preview",
    "resources/resource-manager/Microsoft.Authorization/stable/2020-05-01/locks.json": "2020-05-01",
    "resources/resource-manager/Microsoft.Resources/stable/2022-12-01/subscriptions.json": (
        "2022-12-01"
    ),
    "authorization/resource-manager/Microsoft.Authorization/stable/2022-04-01/"
    "authorization-RoleAssignmentsCalls.json": "2022-04-01",
    "authorization/resource-manager/Microsoft.Authorization/stable/2022-04-01/"
    "authorization-RoleDefinitionsCalls.json": "2022-04-01",
}
pytestmark = pytest.mark.skipif(
    not SPECS.is_dir(), reason=f"no copy of the API descriptions (looked in {SPECS.name})"
)


@lru_cache(maxsize=64)
def document(path: Path) -> Any:
    return _nullable(json.loads(path.read_text()))


def _nullable(value: Any) -> Any:
    """The same description, with null allowed for every typed property, as the service answers.

    Swagger 2 cannot say "or null", and recordings show null for what is not set.
    """
    if isinstance(value, list):
        return [_nullable(item) for item in value]
    if not isinstance(value, dict):
        return value
    out = {
        key: _nullable(item)
        for key, item in value.items()
        if key not in ("discriminator", "example", "x-ms-examples", "examples", "readOnly")
    }
    if isinstance(out.get("required"), list):
        # Some descriptions require nextLink; recordings of the last page have none.
        out["required"] = [name for name in out["required"] if name != "nextLink"]
        if not out["required"]:
            del out["required"]
    kind = out.get("type")
    if isinstance(kind, str) and kind != "file":
        out["type"] = [kind, "null"]
        if "enum" in out:
            out.pop("enum") if out.get("x-ms-enum", {}).get("modelAsString") else None
            if "enum" in out:
                out["enum"] = [*out["enum"], None]
    return out


def retrieve(uri: str) -> Any:
    path = Path(uri.removeprefix("file://"))
    return referencing.Resource.from_contents(
        document(path), default_specification=referencing.jsonschema.DRAFT4
    )


def validate(answer: Any, file: Path, pointer: str) -> list[str]:
    registry: Any = referencing.Registry(retrieve=retrieve)  # type: ignore[call-arg]
    schema = {"$ref": f"file://{file}#{pointer}"}
    validator = jsonschema.Draft4Validator(schema, registry=registry)
    return [
        f"{'/'.join(map(str, e.absolute_path))}: {e.message[:200]}"
        for e in validator.iter_errors(answer)
    ]


def escape(part: str) -> str:
    return part.replace("~", "~0").replace("/", "~1")


def contexts(sandbox: RunningSandbox) -> list[dict[str, str]]:
    """What path parameters can be: one table per account, and one for each subscription."""
    out: list[dict[str, str]] = []
    for subscription in sandbox.subscriptions:
        path = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/accounts"
        for account in sandbox.call("GET", f"{path}?api-version=2025-09-01").json()["value"]:
            parts = account["id"].split("/")
            out.append(
                {
                    "subscriptionId": subscription,
                    "resourceGroupName": parts[4],
                    "accountName": parts[8],
                    "location": account["location"],
                    "scope": f"subscriptions/{subscription}",
                    "roleId": f"subscriptions/{subscription}",
                }
            )
    return out


def expand(template: str, context: dict[str, str]) -> str | None:
    missing = [n for n in re.findall(r"\{(\w+)\}", template) if n not in context]
    return None if missing else re.sub(r"\{(\w+)\}", lambda m: context[m[1]], template)


@pytest.mark.parametrize("name", sorted(ARM_FILES))
def test_arm_answers_hold_to_the_description(sandbox: RunningSandbox, name: str) -> None:
    file = SPECS / name
    if not file.is_file():
        pytest.skip(f"this copy of the descriptions has no {name}")
    swagger = document(file)
    checked, problems = 0, []
    seen: set[str] = set()
    found = contexts(sandbox)
    templates = sorted(
        (path for path, operations in swagger["paths"].items() if "get" in operations), key=len
    )
    for template in templates:
        ok = swagger["paths"][template]["get"]["responses"].get("200", {})
        if "schema" not in ok:
            continue
        pointer = f"/paths/{escape(template)}/get/responses/200/schema"
        for context in list(found):
            path = expand(template, context)
            if path is None or path in seen:
                continue
            seen.add(path)
            query = f"?api-version={ARM_FILES[name]}"
            if "modelCapacities" in path:
                query += "&modelFormat=OpenAI&modelName=gpt-4o&modelVersion=2024-11-20"
            answer = sandbox.call("GET", path + query)
            if answer.status_code in (404, 501):
                continue
            assert answer.status_code == 200, (path, answer.text[:300])
            body = answer.json()
            checked += 1
            problems += [f"{path}: {p}" for p in validate(body, file, pointer)]
            found += _children(template, templates, context, body)
    assert checked >= 3, f"only {checked} answers could be checked"
    assert not problems, "\n".join(problems[:30])


def _children(
    template: str, templates: list[str], context: dict[str, str], body: Any
) -> list[dict[str, str]]:
    """What the items of a listing add to what path parameters can be."""
    values = body.get("value") if isinstance(body, dict) else None
    if not isinstance(values, list):
        return []
    for other in templates:
        match = re.fullmatch(re.escape(template.rstrip("/")) + r"/\{(\w+)\}", other)
        if match is None or match[1] in context:
            continue
        names = [str(v["name"]).rpartition("/")[2] for v in values[:3] if "name" in v]
        return [{**context, match[1]: called} for called in names]
    return []


def test_the_check_can_fail() -> None:
    file = SPECS / f"{CS}/stable/2023-05-01/cognitiveservices.json"
    path = (
        "/subscriptions/{subscriptionId}/resourceGroups/{resourceGroupName}/providers/"
        "Microsoft.CognitiveServices/accounts/{accountName}/deployments"
    )
    pointer = f"/paths/{escape(path)}/get/responses/200/schema"
    wrong = {"value": [{"properties": {"model": "gpt-4o"}, "sku": {"capacity": "many"}}]}
    assert validate(wrong, file, pointer)
    assert not validate({"value": []}, file, pointer)
