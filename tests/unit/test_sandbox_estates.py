"""Estate files: what they build, how fast, and how a mistake in one is reported."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from drills.sandbox.estates import EstateError
from drills.sandbox.estates.generate import estate, main
from tests.sandbox_play_fixtures import CS, Play

MINIMUM = """\
name: tiny
subscriptions:
  - {name: prod}
principals:
  - {name: owner, role: Owner}
groups:
  - {name: rg, subscription: prod, location: swedencentral}
role_assignments:
  - {principal: owner, role: Owner}
"""


def load(tmp_path: Path, text: str) -> Play:
    path = tmp_path / "estate.yaml"
    path.write_text(text, encoding="utf-8")
    return Play(str(path))


def accounts(play: Play) -> dict[str, dict[str, object]]:
    found = {}
    for subscription in play.subscriptions:
        listed = play.good("GET", f"/subscriptions/{subscription}/{CS}/accounts")["value"]
        found.update({a["name"]: a for a in listed})
    return found


@pytest.fixture(scope="module")
def demo() -> Play:
    return Play("demo")


def test_the_demo_estate_is_a_believable_company(demo: Play) -> None:
    found = accounts(demo)
    assert len(demo.subscriptions) == 2
    assert len(found) >= 8
    assert {a["kind"] for a in found.values()} >= {"OpenAI", "AIServices", "FormRecognizer"}
    assert {str(a["location"]) for a in found.values()} == {
        "swedencentral",
        "eastus2",
        "westeurope",
    }
    states = {a["properties"]["provisioningState"] for a in found.values()}  # type: ignore[index]
    assert states == {"Succeeded"}
    claims, care = found["aoai-claims-swc"]["id"], found["ais-care-swc"]["id"]
    deployed = {d["name"]: d for d in demo.good("GET", f"{claims}/deployments")["value"]}
    assert ".ft-" in deployed["claims-triage"]["properties"]["model"]["name"]
    assert deployed["gpt4o-ptu"]["properties"]["spilloverDeploymentName"] == "gpt4o"
    policies = [p["name"] for p in demo.good("GET", f"{claims}/raiPolicies")["value"]]
    assert policies == [
        "claims-strict", "claims-internal", "Microsoft.Default", "Microsoft.DefaultV2",
    ]  # fmt: skip
    projects = demo.good("GET", f"{care}/projects")["value"]
    assert [(p["name"], p["properties"]["isDefault"]) for p in projects] == [
        ("ais-care-swc/care-desk", True),
        ("ais-care-swc/care-lab", False),
    ]
    assert demo.world.store.count(f"dp:{str(care).lower()}/projects/care-desk:agents") == 3
    assert demo.world.store.count(f"dp:{str(claims).lower()}:jobs") == 2


def test_no_canary_of_the_demo_estate_is_ever_shown(demo: Play) -> None:
    kept = json.dumps(demo.world.store.dump())
    assert kept.count("canary-crm-api-") == 1  # it is there, and only once
    shown = [demo.good("GET", r.id) for r in demo.world.arm.below("/subscriptions")]
    assert "canary-" not in json.dumps(shown)


def test_the_demo_estate_gives_everybody_what_the_role_says(demo: Play) -> None:
    claims = str(accounts(demo)["aoai-claims-swc"]["id"])
    body = {"tags": {"by": "test"}}
    for who, status in (("auditor", 403), ("stranger", 403), ("muster", 200), ("pipeline", 200)):
        assert demo.call("PATCH", claims, body, who=who).status == status, who
    assert demo.call("GET", claims, who="stranger").status == 403
    assert demo.call("GET", f"{claims}/deployments", who="claims-app").status == 200
    assert demo.call("DELETE", claims, who="Owner").code == "ScopeLocked"


def test_the_same_estate_has_the_same_ids() -> None:
    assert accounts(Play("demo")) == accounts(Play("demo"))


@pytest.mark.parametrize(
    ("extra", "line", "what", "remedy"),
    [
        ("acounts: []\n", 10, "unknown field 'acounts'", "did you mean 'accounts'?"),
        ("accounts:\n  - {name: a, kind: OpenAI}\n", 11, "'group' is missing", "add 'group"),
        (
            "accounts:\n  - {name: a, kind: OpenAI, group: nowhere}\n",
            11,
            "no resource group is called 'nowhere'",
            "known: rg",
        ),
        (
            "accounts:\n  - name: aa\n    kind: Oracle\n    group: rg\n",
            11,
            "InvalidApiSetId",
            "mend",
        ),
        (
            (
                "accounts:\n  - name: aa\n    kind: OpenAI\n    group: rg\n    deployments:\n"
                "      - {name: d, model: gpt-9}\n"
            ),
            15,
            "DeploymentModelNotSupported",
            "mend",
        ),
        (
            (
                "accounts:\n  - name: aa\n    kind: OpenAI\n    group: rg\n    deployments:\n"
                "      - {name: d, model: gpt-4o-mini, capacity: lots}\n"
            ),
            15,
            "'capacity' must be a whole number",
            "digits",
        ),
        (
            (
                "accounts:\n  - name: aa\n    kind: OpenAI\n    group: rg\n    deployments:\n"
                "      - {name: d, model: gpt-4o-mini, fine_tuned: x}\n"
            ),
            15,
            "no fine-tuned model",
            "the account has none",
        ),
        ("locks:\n  - {name: l, level: Sometimes}\n", 11, "'level' cannot be", "CanNotDelete"),
        ("locks: {name: l}\n", 10, "'locks' must be a list", "start each element"),
        (
            "locks:\n  - {name: l, level: ReadOnly, scope: '${account.ghost}'}\n",
            11,
            "names no account",
            "known",
        ),
        ("locks: [\n", 11, "not valid YAML", "mend"),
        ("name: twice\n", 10, "'name' is given twice", "keep one"),
        ("quotas: [{subscription: x}]\n", 10, "'region' is missing", "add"),
        ("accounts:\n  - {name: aa, group: rg, kind: OpenAI, files: [{name: f}]}\n", 11,
         "the data of aa cannot be made", "look at files"),
    ],
)  # fmt: skip
def test_a_mistake_is_reported_with_file_line_and_remedy(
    tmp_path: Path, extra: str, line: int, what: str, remedy: str
) -> None:
    load(tmp_path, MINIMUM)
    with pytest.raises(EstateError) as caught:
        load(tmp_path, MINIMUM + extra)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'estate.yaml'}:{line}: "), text
    assert what in text
    assert remedy in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "cannot be read"),
        (b"", "is empty"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b"- a\n", "table"),
    ],
)
def test_a_file_that_is_no_estate_is_refused(
    tmp_path: Path, content: bytes | None, what: str
) -> None:
    path = tmp_path / "estate.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EstateError, match=what):
        Play(str(path))


def test_an_estate_that_fails_leaves_nothing_instant_behind(
    tmp_path: Path, make_play: Callable[..., Play]
) -> None:
    play = make_play("empty")
    from drills.sandbox.estates import load_estate

    path = tmp_path / "bad.yaml"
    path.write_text("nothing: here\n", encoding="utf-8")
    with pytest.raises(EstateError):
        load_estate(play.world, str(path))
    assert play.world.seconds("account-create") > 0


def test_generated_estates_are_repeatable_and_load(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estate(12, 4, 3) == estate(12, 4, 3)
    assert estate(12, 4, 3) != estate(12, 4, 4)
    assert main(["--accounts", "12", "--deployments", "4", "--seed", "3"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text) == estate(12, 4, 3)
    play = load(tmp_path, text)
    found = accounts(play)
    assert len(found) == 12
    models = [a for a in found.values() if a["kind"] in ("OpenAI", "AIServices")]
    assert len(models) == 11
    for one in models:
        assert len(play.good("GET", f"{one['id']}/deployments")["value"]) == 4


def test_the_generator_refuses_what_no_account_can_hold(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for arguments in (["--deployments", "33"], ["--accounts", "0"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "must be" in capsys.readouterr().err
