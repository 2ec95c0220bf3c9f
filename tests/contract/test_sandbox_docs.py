"""What the sandbox's page tells to copy runs as it stands, and its tables name what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from drills.sandbox.faults import KINDS
from drills.sandbox.serve import parser
from drills.sandbox.world import DEFAULTS
from tests.sandbox_fixtures import ROOT, RunningSandbox

PAGE = ROOT / "docs" / "sandbox.md"
TEXT = PAGE.read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
HEADINGS = [
    re.findall(r"^#+ (.*)$", TEXT[: TEXT.index(snippet)], re.MULTILINE)[-1] for snippet in SNIPPETS
]


@pytest.mark.parametrize("snippet", SNIPPETS, ids=HEADINGS)
def test_a_snippet_runs_as_it_stands(sandbox: RunningSandbox, tmp_path: Path, snippet: str) -> None:
    """From the folder where the sandbox was started, with a clean environment."""
    (tmp_path / ".state").mkdir()
    (tmp_path / ".state" / "azure.json").symlink_to(sandbox.ready_file)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "IDENTITY_"))}
    clean.pop("REQUESTS_CA_BUNDLE", None)
    done = subprocess.run(
        [sys.executable, "-W", "error::SyntaxWarning", "-c", snippet],
        cwd=tmp_path,
        env=clean,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    if "aoai-claims-swc" in snippet:
        assert done.stdout.split("\n")[:2] == ["it works", "it works"]


def test_there_are_snippets_for_every_client() -> None:
    wanted = ("azure.mgmt", "DefaultAzureCredential", "ManagedIdentityCredential", "AzureOpenAI")
    for name in (*wanted, "AIProjectClient", "BlobServiceClient", "control("):
        assert any(name in snippet for snippet in SNIPPETS), name


def test_the_page_names_every_option_setting_fault_and_ready_field(
    sandbox: RunningSandbox,
) -> None:
    options = {o for a in parser()._actions for o in a.option_strings if o.startswith("--")}
    names = {*options, *DEFAULTS, *DEFAULTS["seconds"], *KINDS, *sandbox.ready} - {"--help"}
    assert not sorted(name for name in names if name not in TEXT)
