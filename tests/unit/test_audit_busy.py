"""Markers of drills and failovers: seen while they run, gone with a crash, bounded elsewhere."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from snapshots.busy import SHARED, Busy
from snapshots.errors import RefusedError
from snapshots.vault import Vault, open_vault

HOUR = timedelta(hours=1)


class Watch:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Watch:
    return Watch()


@pytest.fixture
def vault(tmp_path: Path, clock: Watch) -> Iterator[Vault]:
    opened = open_vault(str(tmp_path / "vault"), clock=clock)
    opened.prepare()
    yield opened
    opened.close()


def test_a_marker_counts_while_its_block_runs_and_not_after(tmp_path: Path, clock: Watch) -> None:
    busy = Busy(tmp_path / "busy", clock=clock)
    assert busy.holders() == ()
    with busy.hold("drill  one") as held:
        assert busy.holders() == (held,)
        assert "drill one (process" in str(held)
        clock.sleep(1)
        with busy.hold("failover"):
            assert [h.what for h in busy.holders()] == ["drill one", "failover"]
        clock.sleep(7 * 24 * 3600)
        assert busy.holders() == (held,), "whoever lives holds it, however long it takes"
    assert busy.holders() == ()
    with pytest.raises(RefusedError), busy.hold("drill two"):
        raise RefusedError("it failed")
    assert busy.holders() == ()
    assert list((tmp_path / "busy").iterdir()) == []


def test_a_crashed_owner_blocks_nobody_on_its_host(tmp_path: Path, clock: Watch) -> None:
    folder = tmp_path / "busy"
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from snapshots.busy import Busy\n"
        "from snapshots.clock import SystemClock\n"
        "with Busy(Path(sys.argv[1]), clock=SystemClock()).hold('drill'):\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        busy = Busy(folder, clock=clock)
        (held,) = busy.holders()
        assert held.pid == child.pid
        child.kill()
        child.wait(30)
    assert busy.holders() == ()
    assert len(list(folder.iterdir())) == 1
    with busy.hold("next"):
        assert len(list(folder.iterdir())) == 1, "what the crash left is cleared away"


def test_another_host_sees_it_in_the_vault_until_it_expires(
    tmp_path: Path, clock: Watch, vault: Vault
) -> None:
    here = Busy(tmp_path / "here", clock=clock, vault=vault, host="here")
    there = Busy(tmp_path / "there", clock=clock, vault=vault, host="there")
    with there.hold("failover", expires=HOUR) as held:
        assert here.holders() == (held,)
        clock.sleep(1)
        with here.hold("drill", expires=HOUR):
            assert [h.host for h in there.holders()] == ["there", "here"]
        assert here.holders() == (held,)
    assert here.holders() == ()
    assert orjson.loads(vault.read_document(SHARED).data)["markers"] == []
    # Its owner went away without a word.
    abandoned = {**held.document(), "pid": 1}
    document = orjson.dumps({"markers": [abandoned, {"id": "damaged"}]})
    vault.replace_document(SHARED, document, vault.read_document(SHARED).etag)
    assert [h.what for h in here.holders()] == ["failover"]
    clock.sleep(3601)
    assert here.holders() == ()


def test_a_vault_that_does_not_answer_stops_no_failover(tmp_path: Path, clock: Watch) -> None:
    (tmp_path / "file").write_text("no folder")
    broken = open_vault(str(tmp_path / "file"), clock=clock)
    busy = Busy(tmp_path / "busy", clock=clock, vault=broken)
    with busy.hold("failover"):
        assert [h.what for h in Busy(tmp_path / "busy", clock=clock).holders()] == ["failover"]
    broken.close()


def test_what_is_no_marker_is_passed_over(tmp_path: Path, clock: Watch) -> None:
    for name, text in {"a": "", "b": "[]", "c": '{"id": 1}', "d": '{"pid": "x"}'}.items():
        (tmp_path / f"{name}.json").write_text(text)
    assert Busy(tmp_path, clock=clock).holders() == ()
