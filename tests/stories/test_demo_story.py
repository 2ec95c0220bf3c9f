"""The demo: it tells the whole story, keeps to its time, and stops where something is wrong."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from muster.demo import CHAPTERS, DemoError, Story, abridge

ROOT = Path(__file__).parents[2]
LONGEST = 150.0  # seconds: well under three minutes, on a busy machine too


def test_the_demo_ends_with_a_restored_standby_and_no_request_to_the_primary(
    tmp_path: Path,
) -> None:
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "muster", "demo", "--folder", str(tmp_path / "demo")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert done.returncode == 0, (done.stdout[-2000:], done.stderr[-2000:])
    assert time.monotonic() - begun < LONGEST
    chapters = re.findall(rf"^\[ *[0-9.]+ s\] (\d+) of {CHAPTERS}\. ", done.stdout, re.MULTILINE)
    assert chapters == [str(n) for n in range(1, CHAPTERS + 1)]
    for words in (
        "2 unplanned changes found, 2 with who did it",
        "proved by source, 6 of 6 alike",
        "no change left: the target is as the snapshot says",
        "not one to swedencentral",
        "as before: 'queue: water'",
        "with the primary gone: passed (real)",
        "ready: at risk",
    ):
        assert words in done.stdout
    assert (tmp_path / "demo/report/index.html").is_file()
    summary = done.stdout.partition("The whole story in ")[2]
    assert 0 < len(summary.splitlines()) <= 40  # one screen
    assert "demo-crm-key" not in done.stdout + done.stderr


def test_a_command_that_ends_otherwise_than_told_ends_the_demo(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    story = Story(tmp_path, tmp_path / "missing.toml")
    story.chapter("a command without a configuration")
    with pytest.raises(DemoError, match=r"`muster log` ended with 1, not 0"):
        story.run("log")
    story.run("log", expect=(1,), most=(1, 1))
    with pytest.raises(DemoError):
        story.json("log")
    capsys.readouterr()


@pytest.mark.parametrize(
    ("lines", "shown"), [(4, 4), (5, 5), (6, 5), (90, 5)], ids=["few", "fit", "one over", "many"]
)
def test_long_output_says_how_much_of_it_is_left_out(
    lines: int, shown: int, capsys: pytest.CaptureFixture[str]
) -> None:
    abridge("\n".join(f"line {n}" for n in range(lines)), 2, 2)
    out = capsys.readouterr().out.splitlines()
    assert (out[0], out[-1], len(out)) == ("line 0", f"line {lines - 1}", shown)
    assert any(f"{lines - 4} lines more" in line for line in out) == (lines > 5)
