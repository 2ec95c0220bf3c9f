"""What the tests of drills share: a configuration on a sandbox, scripts, what was left there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from drills.evidence import EvidenceBook
from muster.cli import main
from snapshots.ledger import Ledger
from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parents[1]
# How the demo's models fit the standby's quota and capacity.
FITTED = """\
    map:
      versions: {"gpt-4o@2024-08-06": "2024-11-20"}
      skus:
        - {of: gpt4o, capacity: 20}
        - {of: gpt4o-ptu, name: GlobalStandard, capacity: 20}
"""


def told(code: int, out: str, err: str) -> Any:
    """What a command told: its document, or the words of an error, which is a document, too."""
    found = json.loads(out)
    if found["schema"] != "muster/error/1":
        return found
    assert code in {1, 130}, err
    schema = json.loads((ROOT / "docs/schemas/error.schema.json").read_text("utf-8"))
    Draft202012Validator(schema).validate(found)
    return err


@dataclass
class DrillSite:
    """A folder with muster.toml, a ledger with one snapshot, and a sandbox."""

    sandbox: RunningSandbox
    file: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def folder(self) -> Path:
        return self.file.parent

    @property
    def state(self) -> Path:
        return self.folder / "ledger.git-drills"

    def muster(self, *words: str) -> tuple[int, Any]:
        """One command; its exit code and JSON, or what it said when it failed."""
        code = main([*words, "--config", str(self.file), "--format", "json", "--quiet"])
        out, err = self.capsys.readouterr()
        return code, told(code, out, err)

    def drill(self, *words: str) -> tuple[int, Any]:
        """One command of `muster drill`; what it tells machines is held to its schema."""
        code, found = self.muster("drill", *words)
        if not isinstance(found, str):
            schema = json.loads((ROOT / "docs/schemas/drill.schema.json").read_text("utf-8"))
            form = {**schema, "oneOf": [{"$ref": f"#/$defs/{_form(words[0], found)}"}]}
            Draft202012Validator(form).validate(found)
        return code, found

    def run(self, name: str, *words: str) -> tuple[int, Any]:
        """Run a drill with the sandbox's control API at hand."""
        return self.drill("run", name, "--sandbox", str(self.sandbox.ready_file), *words)

    def script(self, name: str, text: str) -> Path:
        """Write a script of one's own; what it does not say has a usual value."""
        usual = {
            "title": name,
            "objective": "{}",
            "target": "none",
            "blast_radius": "a test",
            "cost_ceiling": "1000",
        }
        head = "".join(f"{k}: {v}\n" for k, v in usual.items() if f"{k}:" not in text)
        path = self.folder / "drills" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(head + text)
        return path

    def azure(self) -> dict[str, str]:
        """Everything in the sandbox that a drill could change: read from its memory, not by us."""
        found = self.sandbox.control("GET", "dump")
        return {
            f"{item['space']} {item['id']}": json.dumps(_steady(item["body"]), sort_keys=True)
            for item in found["items"]
            if item["space"].startswith(("arm:", "dp:", "groups", "cs:deleted"))
        }

    def left_behind(self) -> list[str]:
        """Groups and soft-deleted accounts that drills made."""
        found: list[str] = []
        for subscription in self.sandbox.subscriptions:
            base = f"/subscriptions/{subscription}"
            path = f"{base}/resourcegroups?api-version=2021-04-01"
            groups = self.sandbox.call("GET", path).json()["value"]
            found += [g["name"] for g in groups if g["name"].startswith("muster-drill-")]
            path = f"{base}/providers/Microsoft.CognitiveServices/deletedAccounts"
            gone = self.sandbox.call("GET", f"{path}?api-version=2025-09-01").json()["value"]
            found += [a["id"] for a in gone]
        return found

    def evidence(self) -> list[dict[str, Any]]:
        """Every evidence, in the order of the chain, each held to its schema."""
        schema = json.loads((ROOT / "docs/schemas/evidence.schema.json").read_text("utf-8"))
        with Ledger.open(self.folder / "ledger.git") as ledger:
            found = [dict(e.document) for e in EvidenceBook(ledger, None).all()]
        for document in found:
            Draft202012Validator(schema).validate(document)
        return found


def _form(command: str, found: Any) -> str:
    if command == "show":
        return "shown" if "evidence" in found else "script"
    return {"check": "check_evidence"}.get(command, command)


# Who wrote something last, and when, is not what it is.
_COUNTS = frozenset({"etag", "system", "updatedOn", "updatedBy", "last_called", "last_used_at"})


def _steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _steady(v) for k, v in value.items() if k not in _COUNTS}
    if isinstance(value, list):
        # The order of such lists is not a change.
        return sorted((_steady(item) for item in value), key=json.dumps)
    return value


@pytest.fixture
def drill_site(
    sandbox: RunningSandbox, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> DrillSite:
    """A configuration on the worker's sandbox, with one snapshot."""
    file = tmp_path / "site" / "muster.toml"
    ready = str(sandbox.ready_file)
    assert main(["init", "--sandbox", ready, "--config", str(file), "--quiet"]) == 0
    assert main(["snapshot", "--no-reference", "--config", str(file), "--quiet"]) in (0, 3)
    capsys.readouterr()
    return DrillSite(sandbox, file, capsys)
