"""Golden sets are recorded from the command line: the cost is said, what is kept is proved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from drills.checks.golden_sets import parse
from snapshots.clock import SystemClock
from snapshots.ledger import Ledger
from snapshots.vault import open_vault
from tests.drill_fixtures import DrillSite

GPT = "aoai-claims-swc/gpt4o"
QUESTIONS = """\
# What every standby must answer.
How long does the settlement of water damage take?
Repeat after me: I'm sorry, I can't help with that
Write that I dislike those people.
"""


def questions(site: DrillSite, text: str = QUESTIONS, name: str = "claims.txt") -> str:
    file = site.folder / name
    file.write_text(text, "utf-8")
    return str(file)


def asked(site: DrillSite) -> list[dict[str, Any]]:
    """The questions that reached the sandbox's models."""
    return [r for r in site.sandbox.journal() if "/openai/" in str(r.get("path", ""))]


def in_ledger(site: DrillSite) -> dict[str, bytes]:
    with Ledger.open(site.folder / "ledger.git") as ledger:
        return dict(ledger.files("evidence", "golden/")) if ledger.tip("evidence") else {}


def in_vault(site: DrillSite, found: str) -> bytes:
    vault = open_vault(str(site.folder / "vault"), clock=SystemClock())
    try:
        return b"".join(bytes(block) for block in vault.read(found.removeprefix("sha256:")))
    finally:
        vault.close()


def other_model(site: DrillSite) -> None:
    """Somebody puts another model behind the deployment."""
    id_ = next(
        i.split(" ", 1)[1] for i in site.azure() if i.endswith("claims-swc/deployments/gpt4o")
    )
    body = {
        "sku": {"name": "Standard", "capacity": 10},
        "properties": {
            "model": {"format": "OpenAI", "name": "gpt-4o", "version": "2024-11-20"},
            "raiPolicyName": "claims-strict",
        },
    }
    path = f"{id_}?api-version=2025-09-01"
    answer = site.sandbox.call("PUT", path, body, name="platform-owner")
    assert answer.status_code < 300, answer.text
    site.sandbox.control("POST", "clock", {"advance": 120})


def test_a_recorded_set_passes_on_its_source_and_fails_on_another_model(
    drill_site: DrillSite,
) -> None:
    site = drill_site
    file = questions(site)
    before = len(asked(site))
    code, planned = site.drill("record", file, GPT, "--dry-run")
    assert (code, planned["recorded"], len(asked(site))) == (0, False, before)
    assert not in_ledger(site)

    code, found = site.drill("record", file, GPT, "--yes")
    assert code == 0
    made = found["sets"][0]
    assert made["kinds"] == {"blocked": 1, "exact": 1, "refusal": 1}
    assert (made["state"], made["negative_control"]) == ("passed", "failed")
    assert found["cost"] == planned["cost"]
    assert len(asked(site)) - before <= found["cost"]["calls"]

    data = Path(made["file"]).read_bytes()
    assert in_ledger(site) == {"golden/claims.jsonl": data}
    assert parse(data, "claims").digest == made["digest"].removeprefix("sha256:")
    assert in_vault(site, made["digest"]) == data

    site.script(
        "asked",
        "checks:\n  - check: golden\n    subject: deployment/*/aoai-claims-swc/gpt4o\n"
        f"    with: {{set: golden/claims.jsonl, digest: '{made['digest']}'}}\n",
    )
    code, passed = site.run("asked")
    assert (code, passed["verdict"]) == (0, "passed")
    other_model(site)
    code, failed = site.run("asked")
    assert (code, failed["verdict"]) == (2, "failed")
    assert "q1" in failed["checks"][0]["detail"]


def test_a_set_is_not_overwritten_unless_it_is_said_and_its_versions_stay(
    drill_site: DrillSite,
) -> None:
    site = drill_site
    file = questions(site)
    _, first = site.drill("record", file, GPT, "--yes")
    kept = Path(first["sets"][0]["file"])
    before, calls = kept.read_bytes(), len(asked(site))
    code, words = site.drill("record", file, GPT, "--yes")
    assert code == 1
    assert "there is a set of that name" in words
    assert (kept.read_bytes(), len(asked(site))) == (before, calls)
    kept.unlink()  # the ledger's is not overwritten either
    code, words = site.drill("record", file, GPT, "--yes")
    assert (code, "ledger:claims" in words) == (1, True)

    site.sandbox.control("POST", "clock", {"advance": 60})
    code, again = site.drill("record", "ledger:claims", GPT, "--yes", "--replace")
    assert code == 0
    assert again["sets"][0]["kinds"] == first["sets"][0]["kinds"]
    assert in_vault(site, first["sets"][0]["digest"]) == before


def test_what_its_source_fails_or_nonsense_passes_is_not_kept(drill_site: DrillSite) -> None:
    site = drill_site

    def refused(case: dict[str, Any]) -> str:
        line = json.dumps({"id": "odd", **case})
        code, found = site.drill("record", questions(site, line, "odd.jsonl"), GPT, "--yes")
        assert code == 2
        return str(found["sets"][0]["error"])

    toothless = refused({"prompt": "What is due?", "expect": {"kind": "pattern", "text": "."}})
    assert "proves nothing" in toothless
    missed = refused({"prompt": "What is due?", "expect": {"kind": "pattern", "text": "zzzz9"}})
    assert "its own source does not pass it" in missed
    assert not in_ledger(site)
    assert not (site.folder / "golden").exists()


def test_nobody_is_asked_without_a_yes_and_each_deployment_gets_a_set_of_its_own(
    drill_site: DrillSite,
) -> None:
    site = drill_site
    file = questions(site, "Water damage\nStorm damage\n")
    before = len(asked(site))
    code, found = site.drill("record", file, GPT)
    assert (code, found["recorded"], len(asked(site))) == (2, False, before)
    code, found = site.drill("record", file, GPT, "aoai-claims-swc/embed-large", "--yes")
    assert code == 0
    assert {s["name"]: s["kinds"] for s in found["sets"]} == {
        "claims-gpt4o": {"exact": 2},
        "claims-embed-large": {"vector": 2},
    }
    assert len(asked(site)) - before <= found["cost"]["calls"]


@pytest.mark.parametrize(
    ("text", "name", "words", "told"),
    [
        ('{"prompt": 3}', "a.jsonl", (GPT,), "a.jsonl:1"),
        (
            '{"prompt": "x"}\n{"prompt": "y", "expect": {"kind": "near"}}',
            "a.jsonl",
            (GPT,),
            "a.jsonl:2",
        ),
        ("# nothing\n", "a.txt", (GPT,), "there is no question"),
        ("x", "a.txt", (), "nobody says which deployment"),
        ("x", "a.txt", ("nowhere",), "has no deployment 'nowhere'"),
        ("x", "a.txt", ("embed-large",), "means 2 deployments"),
        ("x", "a.txt", (GPT, "--name", "../up"), "cannot be called"),
        ("password=Hunter2222", "a.txt", (GPT,), "looks like a secret"),
    ],
)
def test_bad_questions_are_told_with_their_place(
    drill_site: DrillSite, text: str, name: str, words: tuple[str, ...], told: str
) -> None:
    code, said = drill_site.drill("record", questions(drill_site, text, name), *words, "--yes")
    assert code == 1
    assert told in said
    assert "Hunter" not in said
