"""The command line: words, exit codes, and nothing but our own errors."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from jsonschema import Draft202012Validator, ValidationError
from jsonschema.validators import validator_for

from muster.cli import COMMANDS, front, main
from muster.commands.moments import read_moment
from muster.commands.reference import ELSEWHERE, text
from muster.invocation import Command, Exit, safe
from snapshots.errors import MusterError
from snapshots.model import Gap, GapReason, JsonObject, Key, Resource
from tests.kept_estate import ACCOUNT, START, Estate, Ticking, deployment

ROOT = Path(__file__).parents[2]
OURS = [name for name in COMMANDS if name not in ELSEWHERE]
EVIL = "evil\x1b]0;owned\x07\u202egnp"


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estate:
    made = Estate(tmp_path)
    monkeypatch.setenv("MUSTER_CONFIG", str(made.file))
    monkeypatch.delenv("MUSTER_DEBUG", raising=False)
    return made


def schema_of(command: str) -> dict[str, object]:
    path = ROOT / "docs" / "schemas" / f"{command}.schema.json"
    found: dict[str, object] = json.loads(path.read_text("utf-8"))
    return found


def held(command: str, output: str) -> JsonObject:
    """Hold an output to its schema; give it read."""
    found: JsonObject = json.loads(output)
    schema = schema_of(command)
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(found)
    assert found["schema"] == schema["$id"] == f"muster/{command}/1"
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> tuple[str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert code == expect, (code, out, err)
    assert "Traceback" not in out + err
    return out, err


def answer(
    capsys: pytest.CaptureFixture[str], command: str, *arguments: str, expect: int = 0
) -> Any:
    out, _ = run(capsys, command, *arguments, "--format", "json", expect=expect)
    return held(command, out)


# ------------------------------------------------------------------------------- the front


def test_help_lists_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys, time; started = time.process_time(); from muster.cli import main; "
        "main(['--help']); spent = time.process_time() - started; "
        "heavy = {m.split('.')[0] for m in sys.modules} & "
        "{'azure', 'prefect', 'git', 'rich', 'deepdiff', 'requests', 'jinja2', 'yaml'}; "
        "print('HEAVY', sorted(heavy), 'SPENT', spent)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "HEAVY [] SPENT" in ran.stdout
    assert float(ran.stdout.rsplit("SPENT ", 1)[1]) < 0.3
    for name, entry in COMMANDS.items():
        assert f"  {name} " in ran.stdout
        assert entry.help in " ".join(ran.stdout.split())


@pytest.mark.parametrize("name", OURS)
def test_every_command_tells_examples_exit_codes_and_the_shared_options(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = front.get_command(click.Context(front), name)
    assert isinstance(command, Command)
    assert all(example.startswith(f"muster {name}") for example in command.examples)
    assert command.examples
    out, _ = run(capsys, name, "--help")
    for words in ("Examples:", "Exit codes:", "--config", "--format", "--quiet", "--no-color"):
        assert words in out


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    page = (ROOT / "docs" / "commands.md").read_text("utf-8")
    assert page == text(), "run: python -m muster.commands.reference > docs/commands.md"


@pytest.mark.parametrize(
    ("typed", "meant"), [("snapshto", "snapshot"), ("verfy", "verify"), ("dif", "diff")]
)
def test_a_mistyped_command_is_told_its_neighbour(
    typed: str, meant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, err = run(capsys, typed, expect=1)
    assert f"did you mean {meant}" in err


def test_shared_options_work_before_and_after_the_command(
    estate: Estate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    estate.keep(deployment("chat", 10))
    monkeypatch.delenv("MUSTER_CONFIG")
    before, _ = run(capsys, "--config", str(estate.file), "--format", "json", "log")
    after, _ = run(capsys, "log", "--config", str(estate.file), "--format", "json")
    folder, _ = run(capsys, "log", "--config", str(estate.folder), "--format", "json")
    assert before == after == folder
    held("log", before)


def test_a_wrong_option_and_a_missing_configuration_say_what_next(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, err = run(capsys, "log", "--bogus", expect=1)
    assert "muster log --help" in err
    monkeypatch.delenv("MUSTER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    _, err = run(capsys, "log", expect=1)
    assert "muster init" in err


def test_a_ledger_that_is_not_there_yet_asks_for_a_snapshot(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estate.file.exists()
    for command in ("log", "show", "diff", "coverage", "verify", "prune"):
        _, err = run(capsys, command, expect=1)
        assert "there is no ledger yet" in err
        assert "muster snapshot" in err


def test_an_unexpected_exception_is_one_line_and_its_log_is_scrubbed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secret = "Hunter2Hunter2Hunter2"

    @click.command("log", cls=Command)
    def broken() -> int:
        raise ZeroDivisionError(f"with {secret} inside")

    monkeypatch.setattr("muster.commands.log.command", broken)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", secret)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    _, err = run(capsys, "log", expect=1)
    assert err.startswith("internal error ZeroDivisionError")
    assert "MUSTER_DEBUG=1" in err
    assert secret not in err
    assert not list(tmp_path.glob("muster-debug-*"))
    monkeypatch.setenv("MUSTER_DEBUG", "1")
    _, err = run(capsys, "log", expect=1)
    (log,) = tmp_path.glob("muster-debug-*.log")
    assert str(log) in err
    assert "ZeroDivisionError" in log.read_text()
    assert secret not in log.read_text()
    assert log.stat().st_mode & 0o077 == 0


def test_an_error_of_ours_shows_no_secret_of_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command("log", cls=Command)
    def broken() -> int:
        raise MusterError(
            "no", where="https://x.example/?sig=Zm9vYmFyZm9v", remedy="not +a/b=c=d+e"
        )

    monkeypatch.setattr("muster.commands.log.command", broken)
    monkeypatch.setenv("AZURE_STORAGE_KEY", "+a/b=c=d+e")
    _, err = run(capsys, "log", expect=1)
    assert "Zm9vYmFyZm9v" not in err
    assert "+a/b=c=d+e" not in err


def test_ctrl_c_is_one_line_and_130(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @click.command("log", cls=Command)
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("muster.commands.log.command", interrupted)
    _, err = run(capsys, "log", expect=Exit.INTERRUPTED)
    assert err.strip().count("\n") <= 1
    assert "interrupted" in err


def test_a_process_that_is_terminated_says_so_and_leaves_130() -> None:
    script = (
        "import click, sys, time, muster.commands.log as log\n"
        "from muster.invocation import Command\n"
        "@click.command('log', cls=Command)\n"
        "def slow():\n    print('ready', flush=True)\n    time.sleep(30)\n"
        "log.command = slow\n"
        "from muster.cli import main\nsys.exit(main(['log']))\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert b"interrupted" in err


def test_a_closed_pipe_is_quiet(estate: Estate) -> None:
    for number in range(3):
        estate.keep(*(deployment(f"d{i:04}", number) for i in range(300)))
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", "show", "--config", str(estate.file)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(1)
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=20)
    assert err == b""


# ----------------------------------------------------------------------------- reading history


def test_log_lists_the_newest_first_and_limits(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    commits = [estate.keep(deployment("chat", n)) for n in (10, 20, 30)]
    found = answer(capsys, "log")
    assert [s["snapshot"] for s in found["snapshots"]] == commits[::-1]
    assert len(answer(capsys, "log", "--limit", "1")["snapshots"]) == 1
    assert answer(capsys, "log", "--since", "2030-01-01")["snapshots"] == []
    assert answer(capsys, "log", "--branch", "baseline")["snapshots"] == []
    out, _ = run(capsys, "log")
    assert out.index(commits[2][:12]) < out.index(commits[0][:12])


def test_show_takes_a_snapshot_a_key_or_both(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    first = estate.keep(deployment("chat", 10), content=b"hello")
    estate.keep(deployment("chat", 20), content=b"hello")
    whole = answer(capsys, "show")
    assert {r["key"].rsplit("/", 1)[1] for r in whole["resources"]} == {"chat", "train.jsonl"}
    assert answer(capsys, "show", first[:8])["snapshot"] == first
    new = answer(capsys, "show", "chat")["resource"]
    old = answer(capsys, "show", first[:8], "chat")["resource"]
    assert new["body"]["sku"]["capacity"] == 20
    assert old["body"]["sku"]["capacity"] == 10
    out, _ = run(capsys, "show", "train.jsonl")
    assert "payload content: 5 B" in out
    _, err = run(capsys, "show", "nothing-like-it", expect=1)
    assert "neither a snapshot nor a resource" in err
    _, err = run(capsys, "show", "a", "b", "c", expect=1)
    assert "at most" in err


def test_asof_gives_what_was_known_then(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    first = estate.keep(deployment("chat", 10))
    second = estate.keep(deployment("chat", 20))
    between = (START + timedelta(minutes=90)).isoformat()
    assert answer(capsys, "asof", between)["snapshot"] == first
    assert answer(capsys, "asof", "2026-11-20")["snapshot"] == second
    resource = answer(capsys, "asof", between, "chat")["resource"]
    assert resource["body"]["sku"]["capacity"] == 10
    run(capsys, "asof", "2020-01-01", expect=1)
    _, err = run(capsys, "asof", "yesteryear", expect=1)
    assert "is no moment" in err


def test_diff_is_exactly_what_changed(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    estate.keep(deployment("chat", 10), deployment("old", 1), deployment("same", 5))
    estate.keep(deployment("chat", 20), deployment("new", 1), deployment("same", 5))
    found = answer(capsys, "diff")
    assert found["counts"] == {"added": 1, "removed": 1, "changed": 1, "unknown": 0}
    changed = next(c for c in found["changes"] if c["change"] == "changed")
    assert changed["paths"] == [{"path": "/sku/capacity", "before": 10, "after": 20}]
    out, _ = run(capsys, "diff", "--no-color")
    assert "/sku/capacity: 10 -> 20" in out
    answer(capsys, "diff", "--exit-code", expect=2)
    same = answer(capsys, "diff", "latest", "latest", "--exit-code")
    assert same["changes"] == []


def test_a_gap_is_unknown_and_three_never_a_removal(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 10))
    gap = Gap(
        Key("deployment", ACCOUNT), GapReason.DENIED, "403", listing=True, hides=("deployment",)
    )
    estate.keep(gaps=(gap,))
    found = answer(capsys, "diff", expect=3)
    assert found["counts"]["removed"] == 0
    assert found["counts"]["unknown"] == 1
    assert found["gaps"][0]["reason"] == "denied"
    answer(capsys, "show", expect=3)
    stale = answer(capsys, "show", "latest", "chat", expect=3)["resource"]
    assert stale["stale"] is True
    covered = answer(capsys, "coverage", expect=3)
    row = next(k for k in covered["kinds"] if k["kind"] == "deployment")
    assert (row["count"], row["stale"], row["gaps"]) == (0, 1, 1)
    answer(capsys, "lineage", "chat", expect=3)


def test_coverage_counts_every_resource_once_and_gives_sentences(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("a", 1), deployment("b", 1), content=b"x")
    found = answer(capsys, "coverage")
    assert sum(found["recovery"].values()) == 3
    assert sum(k["count"] for k in found["kinds"]) == 3
    assert all(k["sentence"] and k["source"].startswith("https://") for k in found["kinds"])


def test_lineage_by_a_short_name(estate: Estate, capsys: pytest.CaptureFixture[str]) -> None:
    job = Resource(
        Key("fine-tuning-job", (*ACCOUNT, "job-1")), "ftjob-1", {"training_file": "file-1"}
    )
    estate.keep(job, content=b"data")
    found = answer(capsys, "lineage", "train.jsonl")
    assert [r["kind"] for r in found["reached"]] == ["fine-tuning-job"]
    out, _ = run(capsys, "lineage", "train.jsonl")
    assert "-> fine-tuning-job/" in out


def test_names_from_outside_cannot_drive_the_terminal(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = Resource(Key("file", (*ACCOUNT, EVIL)), f"file-{EVIL}", {"filename": EVIL})
    gap = Gap(Key("file", (*ACCOUNT, "x")), GapReason.FAILED, f"said {EVIL}")
    estate.keep(evil, gaps=(gap,))
    for arguments in (["show"], ["show", "latest", str(evil.key)], ["coverage"], ["log"]):
        main(arguments)
        out, err = capsys.readouterr()
        assert not set("\x1b\x07\u202e") & set(out + err)
    assert safe("a\x1b[31mb\u202e") == "a\\x1b[31mb\\u202e"


# ------------------------------------------------------------------------------ verify and prune


def payload_file(estate: Estate) -> Path:
    (found,) = (p for p in (estate.folder / "vault" / "payloads").rglob("*") if p.is_file())
    return found


def test_what_is_whole_verifies_and_is_rebuilt_from_the_vault(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 10), content=b"hello")
    found = answer(capsys, "verify", "--sample", "50%", "--seed", "3")
    assert (found["verdict"], found["damages"], found["sample"]) == ("whole", [], 0.5)
    assert found["reconstructed"]
    assert found["resources"] == 2
    out, _ = run(capsys, "verify")
    assert "whole" in out


def test_a_flipped_bit_in_the_vault_is_found_and_names_the_snapshot_and_the_resource(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 10), content=b"hello")
    file = payload_file(estate)
    data = bytearray(file.read_bytes())
    data[0] ^= 1
    file.chmod(0o600)
    file.write_bytes(data)
    found = answer(capsys, "verify", expect=2)
    assert found["verdict"] == "damaged"
    assert len(found["hurt"]) == 1
    assert any("train.jsonl" in key for d in found["damages"] for key in d["keys"])
    out, _ = run(capsys, "verify", expect=2)
    assert "DAMAGED" in out


def test_a_missing_payload_is_found_with_a_sample_of_nothing(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 10), content=b"hello")
    file = payload_file(estate)
    file.parent.chmod(0o700)
    file.unlink()
    found = answer(capsys, "verify", "--sample", "0%", expect=2)
    assert {d["problem"] for d in found["damages"]} == {"missing"}


def test_a_missing_bundle_is_damage_since_nothing_could_be_rebuilt(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 10))
    for bundle in (estate.folder / "vault" / "ledger").glob("*"):
        bundle.unlink()
    found = answer(capsys, "verify", expect=2)
    assert any(d["store"] == "reconstruction" for d in found["damages"])


def test_a_damaged_ledger_object_is_found(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 10))
    packs = list((estate.folder / "ledger.git" / "objects").rglob("*.pack"))
    loose = [
        p
        for p in (estate.folder / "ledger.git" / "objects").rglob("*")
        if p.is_file() and len(p.name) == 38
    ]
    victim = (packs or loose)[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 0xFF
    victim.chmod(0o600)
    victim.write_bytes(data)
    found = answer(capsys, "verify", expect=2)
    assert any(d["store"] == "ledger" for d in found["damages"])


@pytest.mark.parametrize("sample", ["101%", "-1", "some", "5%%"])
def test_a_sample_that_is_none_is_refused(
    sample: str, estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert estate.file.exists()
    run(capsys, "verify", f"--sample={sample}", expect=1)


def test_prune_is_dry_then_asks_then_does_it_and_what_is_kept_verifies(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(5):
        estate.keep(deployment("chat", number), content=b"%d" % number)
    policy = ["--hourly", "2", "--daily", "0", "--weekly", "0", "--monthly", "0"]
    dry = answer(capsys, "prune", *policy)
    assert (dry["applied"], dry["kept"], dry["dropped"]) == (False, 2, 3)
    assert len(answer(capsys, "log")["snapshots"]) == 5
    _, err = run(capsys, "prune", *policy, "--apply", expect=1)
    assert "--yes" in err
    assert len(answer(capsys, "log")["snapshots"]) == 5
    done = answer(capsys, "prune", *policy, "--apply", "--yes")
    assert done["applied"] is True
    assert len(answer(capsys, "log")["snapshots"]) == 2
    assert answer(capsys, "verify")["verdict"] == "whole"
    assert answer(capsys, "prune", *policy)["dropped"] == 0


def test_a_retention_of_nothing_is_refused(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 1))
    zeros = [w for n in ("hourly", "daily", "weekly", "monthly") for w in (f"--{n}", "0")]
    _, err = run(capsys, "prune", *zeros, expect=1)
    assert "keeps nothing" in err


# ---------------------------------------------------------------------------------- schemas


@pytest.mark.parametrize("name", OURS)
def test_every_command_has_a_schema_that_is_one(name: str) -> None:
    schema = schema_of(name)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    validator_for(schema).check_schema(schema)


def test_a_schema_refuses_what_is_not_its_output(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 1))
    found = answer(capsys, "log")
    for broken in (
        {**found, "more": 1},
        {k: v for k, v in found.items() if k != "snapshots"},
        {**found, "schema": "muster/log/2"},
        {**found, "snapshots": [{"snapshot": "not a commit"}]},
    ):
        with pytest.raises(ValidationError):
            held("log", json.dumps(broken))


def test_moments_are_read_as_people_write_them() -> None:
    clock = Ticking()
    assert read_moment("2h", clock) == START - timedelta(hours=2)
    assert read_moment("1d ago", clock) == START - timedelta(days=1)
    assert read_moment("now", clock) == START
    assert read_moment("2026-11-20", clock).hour == 23
    assert read_moment("2026-11-20T10:00", clock) == START
    assert read_moment("2026-11-20T12:00+02:00", clock) == START
    for wrong in ("", "soon", "2026-13-01", "99:99"):
        with pytest.raises(ValueError, match=r"."):
            read_moment(wrong, clock)
