"""`make up` and `make down`: what is ended is what was started, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows import local_stack
from flows.local_stack import Process, Stack, down

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process that would go on for minutes."""
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait(10)


def recorded(folder: Path, pid: int, began: str) -> Stack:
    stack = Stack(folder)
    folder.mkdir(exist_ok=True)
    stack.remember({"worker": Process(pid, began)})
    return stack


def test_what_was_started_is_ended(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    stack = recorded(tmp_path / "up", sleeper.pid, Process.of(sleeper.pid).began)
    assert list(stack.running()) == ["worker"]
    assert down(stack) == ["worker"]
    assert sleeper.wait(10) == -signal.SIGTERM
    assert down(stack) == [], "there is nothing to end twice"


def test_a_process_that_only_got_the_number_is_left_alone(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    stack = recorded(tmp_path / "up", sleeper.pid, "1")
    assert stack.running() == {}
    assert down(stack) == []
    assert sleeper.poll() is None, "somebody else's process was ended"


def test_children_are_ended_with_their_parent(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        ["sh", "-c", "sleep 300 & echo $!; wait"], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    stack = recorded(tmp_path / "up", parent.pid, Process.of(parent.pid).began)
    there = Process.of(child)
    assert there.lives()
    assert down(stack) == ["worker"]
    assert not there.lives()
    parent.wait(10)
    parent.stdout.close()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"worker": 3}', '{"worker": {"pid": "x"}}'])
def test_a_broken_record_of_processes_means_that_nothing_runs(tmp_path: Path, text: str) -> None:
    (tmp_path / "processes.json").write_text(text)
    assert Stack(tmp_path).running() == {}


def test_a_process_that_is_gone_does_not_live(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert process.lives()
    sleeper.kill()
    sleeper.wait(10)
    assert not process.lives()
    assert not Process(sleeper.pid, "").lives()


def test_ports_are_chosen_once(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    stack.choose_ports(0)
    first = stack.ports()
    stack.choose_ports(0)
    assert stack.ports() == first
    stack.choose_ports(4300)
    assert stack.ports() == {**first, "server": 4300}


def test_nothing_of_prefect_reaches_out_or_takes_from_the_users_home(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_API_URL", "https://api.prefect.cloud/mine")
        patch.setenv("PREFECT_API_KEY", "canary-key-of-somewhere-else")
        stack = Stack(tmp_path)
        stack.choose_ports(0)
        found = stack.environment(None)
    assert "canary-key-of-somewhere-else" not in str(found.values())
    assert found["PREFECT_API_URL"].startswith("http://127.0.0.1:")
    assert found["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert found["DO_NOT_TRACK"] == "1"
    assert Path(found["PREFECT_HOME"]).is_relative_to(tmp_path)


def test_what_the_user_reaches_without_a_proxy_stays_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "corp.example")
    stack = Stack(tmp_path)
    stack.choose_ports(0)
    assert stack.environment(None)["NO_PROXY"] == "corp.example,127.0.0.1,localhost"
    assert stack.environment(None)["no_proxy"] == "corp.example,127.0.0.1,localhost"


def test_down_without_up_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert local_stack.main(["down", "--folder", str(tmp_path / "never")]) == 0
    assert "nothing ran" in capsys.readouterr().out


def test_a_configuration_that_is_not_there_is_refused_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "up"
    asked = ["up", "--folder", str(folder), "--config", str(tmp_path / "no.toml")]
    assert local_stack.main(asked) == 1
    assert "there is no such file" in capsys.readouterr().err
    assert not folder.exists()


def test_a_worker_that_ends_is_started_again_until_it_is_told_to_end(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    code = "import sys; from flows.keep_worker import keep; sys.exit(keep(sys.argv[1:]))"
    keeper = subprocess.Popen(
        [sys.executable, "-c", code, "sh", "-c", f"echo x >> {starts}; exit 3"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=dict(os.environ),
    )
    assert keeper.stdout is not None
    assert "ended with 3" in keeper.stdout.readline()
    assert "ended with 3" in keeper.stdout.readline()
    keeper.terminate()
    assert keeper.wait(20) == 0
    keeper.stdout.close()
    assert len(starts.read_text().split()) >= 2


def test_what_is_remembered_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    stack = recorded(tmp_path / "up", 1, "1")
    file = stack.folder / "processes.json"
    assert json.loads(file.read_text()) == {"worker": {"pid": 1, "began": "1"}}
    assert file.stat().st_mode & 0o077 == 0
