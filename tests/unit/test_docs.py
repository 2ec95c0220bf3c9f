"""The documentation is right, and its check would notice if it were not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def check(root: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "check.py"), str(root)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A small tree whose documentation is right."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "Makefile").write_text("test: setup\nsetup:\n")
    (tmp_path / "README.md").write_text("# A\n\n[docs](docs/index.md#two-words) `make test`\n")
    (tmp_path / "docs" / "index.md").write_text("# B\n\n## Two words!\n\n[c](c.md) [d](#b)\n")
    (tmp_path / "docs" / "c.md").write_text("# C\n\n```console\n$ muster log\n$ make setup\n```\n")
    return tmp_path


def test_the_documentation_is_right() -> None:
    code, said = check(ROOT)
    assert code == 0, said


def test_a_tree_whose_documentation_is_right_passes(small: Path) -> None:
    code, said = check(small)
    assert code == 0, said


@pytest.mark.parametrize(
    ("page", "addition", "complaint"),
    [
        ("README.md", "[x](docs/gone.md)", "README.md: docs/gone.md leads nowhere"),
        ("README.md", "[x](../outside.md)", "leads nowhere"),
        ("README.md", "![x](docs/gone.svg)", "leads nowhere"),
        ("README.md", "[x](docs/c.md#gone)", "names a heading that is not there"),
        ("docs/c.md", "`make coffee`", "docs/c.md: there is no target make coffee"),
        ("docs/c.md", "```console\n$ bin/muster fly x\n```", "there is no command muster fly"),
        ("docs/lost.md", "# Nobody links here", "docs/lost.md cannot be reached"),
        ("docs/commands.md", "[x](c.md)", "docs/commands.md: muster log is not documented"),
    ],
)
def test_the_check_names_what_is_wrong(
    small: Path, page: str, addition: str, complaint: str
) -> None:
    with (small / page).open("a", encoding="utf-8") as stream:
        stream.write(f"\n{addition}\n")
    code, said = check(small)
    assert code == 1
    assert complaint in said


def test_links_inside_code_are_no_links(small: Path) -> None:
    with (small / "README.md").open("a", encoding="utf-8") as stream:
        stream.write("\n`[x](gone.md)`\n\n```text\n[x](gone.md)\n```\n")
    assert check(small)[0] == 0
