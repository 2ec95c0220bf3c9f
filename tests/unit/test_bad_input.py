"""Whatever comes in, one clear error goes out: what, where, what next; as JSON when asked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from muster.cli import COMMANDS, main
from snapshots.model import JsonObject
from tests.kept_estate import Estate, deployment

ROOT = Path(__file__).parents[2]
ERROR: JsonObject = json.loads((ROOT / "docs/schemas/error.schema.json").read_text("utf-8"))
READERS = (
    ("log",),
    ("show",),
    ("asof", "1h"),
    ("diff",),
    ("coverage",),
    ("history", "chat"),
    ("verify",),
    ("prune",),
)


@pytest.fixture
def estate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Estate:
    made = Estate(tmp_path)
    monkeypatch.setenv("MUSTER_CONFIG", str(made.file))
    monkeypatch.delenv("MUSTER_DEBUG", raising=False)
    return made


def held(output: str) -> JsonObject:
    """Hold what stdout got to the schema of errors; give it read."""
    found: JsonObject = json.loads(output)
    Draft202012Validator(ERROR).validate(found)
    return found


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> JsonObject:
    """Run a line that must end with one error, told to people and to machines alike."""
    capsys.readouterr()
    code = main([*arguments, "--format", "json"])
    out, err = capsys.readouterr()
    assert code == 1, (arguments, out, err)
    found = held(out)
    assert "Traceback" not in err
    assert found["kind"] != "internal", err
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert errors == [f"error: {found['what']}".split("\n", maxsplit=1)[0]], err
    assert found["remedy"], found
    return found


def contents(folder: Path) -> dict[str, bytes]:
    """Give every file below a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# ------------------------------------------------------------------------------ errors as JSON


@pytest.mark.parametrize("name", [n for n in COMMANDS if n not in ("demo", "sandbox", "drill")])
def test_every_command_tells_a_wrong_line_as_json(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = refused(capsys, name, "--no-such-option")
    assert (found["command"], found["kind"], found["exit_code"]) == (name, "usage", 1)
    assert f"muster {name} --help" in str(found["remedy"])


def test_an_error_has_its_kind_its_place_and_its_remedy(
    estate: Estate, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    estate.keep(deployment("chat", 1))
    gone = refused(capsys, "show", "latest~7")
    assert (gone["kind"], gone["where"]) == ("not-found", str(tmp_path / "ledger.git"))
    assert refused(capsys, "verify", "--sample", "lots")["kind"] == "usage"
    estate.file.write_text("[estate]\nnam = 'x'\n")
    wrong = refused(capsys, "log")
    assert wrong["kind"] == "settings"
    assert f"{estate.file}:2:1" in str(wrong["where"])
    assert "did you mean name?" in str(wrong["remedy"])


def test_stdout_has_one_document_and_text_is_not_json(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["log"]) == 1
    assert capsys.readouterr().out == ""  # people read stderr
    assert main(["log", "--", "--format", "json"]) == 1  # no option: a word
    assert capsys.readouterr().out == ""
    assert main(["--format=json", "log"]) == 1
    held(capsys.readouterr().out)
    estate.keep(deployment("chat", 1))
    assert main(["log", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "muster/log/1"


def test_an_error_as_json_shows_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = "Zm9vYmFyZm9vYmFyZm9vYmFy"
    monkeypatch.setenv("AZURE_STORAGE_KEY", secret)
    found = refused(capsys, "log", f"--config=/nowhere/{secret}/muster.toml")
    assert "[secret]" in str(found["where"])
    assert secret not in json.dumps(found)


# ------------------------------------------------------------------------------------- files


def _utf16(file: Path) -> None:
    file.write_bytes(file.read_text().encode("utf-16"))


def _folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _twice(file: Path) -> None:
    file.write_text(file.read_text() + '\n[vault]\nurl = "other"\n')


def _huge(file: Path) -> None:
    file.write_text(file.read_text() + "x = " + "[" * 100_000)


BROKEN: dict[str, Callable[[Path], object]] = {
    "empty": lambda file: file.write_bytes(b""),
    "binary": lambda file: file.write_bytes(bytes(range(256))),
    "utf-16": _utf16,
    "a folder": _folder,
    "a table twice": _twice,
    "deep": _huge,
    "a wrong type": lambda file: file.write_text(file.read_text().replace('"vault"', "7")),
    "a secret": lambda file: file.write_text(
        file.read_text() + '[ledger]\nremote = "https://someone:hunter2@host.example/x.git"\n'
    ),
    "a token": lambda file: file.write_text(
        file.read_text() + '[ledger]\nremote = "https://ghp_hunter2hunter2hunter2@host.example/x"\n'
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_configuration_is_one_error_with_its_place(
    how: str, estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    BROKEN[how](estate.file)
    before = contents(estate.folder)
    found = refused(capsys, "snapshot")
    assert found["kind"] == "settings"
    assert str(estate.file) in str(found["where"])
    assert "hunter2" not in json.dumps(found)
    assert contents(estate.folder) == before


@pytest.mark.parametrize(
    "how", [lambda t: "\ufeff" + t, lambda t: t.replace("\n", "\r\n")], ids=["bom", "crlf"]
)
def test_what_a_windows_editor_adds_is_no_mistake(
    how: Callable[[str], str], estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 1))
    estate.file.write_bytes(how(estate.file.read_text()).encode())
    assert main(["log"]) == 0
    assert "1970" not in capsys.readouterr().out


@settings(
    max_examples=settings().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_mutilated_configuration_gives_a_result_or_one_error(
    data: st.DataObject, estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = estate.file.with_suffix(".whole")
    if not whole.exists():
        whole.write_bytes(estate.file.read_bytes())
        estate.keep(deployment("chat", 1))
    text = whole.read_bytes()
    at = data.draw(st.integers(0, len(text)))
    to = data.draw(st.integers(at, min(len(text), at + 12)))
    estate.file.write_bytes(text[:at] + data.draw(st.binary(max_size=6)) + text[to:])
    capsys.readouterr()
    code = main(["log", "--format", "json"])
    out, err = capsys.readouterr()
    assert code in (0, 1)
    assert "internal error" not in err
    if code:
        assert held(out)["remedy"]


# ----------------------------------------------------------------------------- words on the line

WORDS = st.one_of(
    st.sampled_from(
        ["", " ", "latest~", "latest~99999999999999999999", "-1", "2026-13-45", "../..", "*", "["]
    ),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30),
)
TAKERS = (
    ("show", "{}"),
    ("show", "latest", "{}"),
    ("asof", "{}"),
    ("diff", "{}"),
    ("diff", "latest", "{}"),
    ("lineage", "{}"),
    ("lineage", "chat", "--at", "{}"),
    ("coverage", "{}"),
    ("history", "{}"),
    ("blame", "{}"),
    ("log", "--since", "{}"),
    ("log", "--limit", "{}"),
    ("verify", "--sample", "{}"),
    ("prune", "--hourly", "{}"),
    ("doctor", "--verb", "x{}"),
    ("resume", "{}"),
    ("undo", "{}"),
    ("drill", "show", "{}"),
    ("drill", "check", "{}"),
    ("approve", "{}", "--reason", "x"),
    ("ignore", "{}", "--reason", "x", "--expires", "{}"),
)


@settings(
    max_examples=settings().max_examples // 2,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(line=st.sampled_from(TAKERS), word=WORDS)
def test_any_word_on_the_line_gives_a_result_or_one_error(
    line: tuple[str, ...], word: str, estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    if not (estate.folder / "ledger.git").exists():
        estate.keep(deployment("chat", 1))
    words = [part.replace("{}", word) for part in line]
    if any(part.startswith("-") for part in words[1:] if part not in line):
        words = [*words[:1], "--", *words[1:]] if not any(p.startswith("--") for p in line) else []
    if not words:
        return
    capsys.readouterr()
    code = main(["--format", "json", *words])
    out, err = capsys.readouterr()
    assert code in (0, 1, 2, 3), (words, out, err)
    assert "internal error" not in err
    found = json.loads(out)
    if found["schema"] == "muster/error/1":
        assert held(out)["remedy"], (words, err)
    else:
        assert code != 1


def test_a_number_beyond_all_reason_is_refused(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 1))
    assert refused(capsys, "log", "--limit", "99999999999999999999")["kind"] == "usage"


@pytest.mark.parametrize("word", ["", "swedencentrall", "nowhere"])
def test_a_region_that_the_estate_does_not_have_cannot_be_declared_down(
    word: str, estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    """A mistyped name would leave the dead region open, and nobody would know."""
    estate.file.write_text(
        estate.file.read_text()
        + '[[estate.pair]]\nprimary = "swedencentral"\nstandby = "eastus2"\n'
    )
    estate.keep(deployment("chat", 1))
    found = refused(capsys, "restore", "latest", "--to", "standby", "--declare-down", word)
    assert (found["kind"], found["where"]) == ("input", "--declare-down")
    assert "swedencentral" in str(found["remedy"])


# ------------------------------------------------------------------------------ damaged ledgers


def _empty_ref(ledger: Path) -> None:
    """What a power cut leaves of a file that was just written."""
    (ledger / "refs" / "heads").mkdir(parents=True, exist_ok=True)
    (ledger / "refs" / "heads" / "live").write_bytes(b"")


def _ref_to_nothing(ledger: Path) -> None:
    (ledger / "refs" / "heads" / "live").write_text("1" * 40 + "\n")


def _no_packs(ledger: Path) -> None:
    for path in (ledger / "objects").rglob("*"):
        if path.is_file():
            path.unlink()


def _packed_garbage(ledger: Path) -> None:
    (ledger / "packed-refs").write_bytes(b"\xff\xfe no refs at all\n")


DAMAGE: dict[str, Callable[[Path], object]] = {
    "an empty ref": _empty_ref,
    "a ref to nothing": _ref_to_nothing,
    "no objects": _no_packs,
    "packed-refs of garbage": _packed_garbage,
    "no HEAD": lambda ledger: (ledger / "HEAD").unlink(),
    "a config of garbage": lambda ledger: (ledger / "config").write_text("[[["),
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_ledger_is_called_damaged_and_the_way_out_works(
    how: str, estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = estate.keep(deployment("chat", 1))
    ledger = estate.folder / "ledger.git"
    DAMAGE[how](ledger)
    for command in (("show",), ("log",), ("coverage",)):
        found = refused(capsys, *command)
        assert found["kind"] == "damaged-store", found
        assert "aside" in str(found["remedy"])
    ledger.rename(estate.folder / "aside")
    assert main(["log", "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert [s["snapshot"] for s in json.loads(out)["snapshots"]] == [kept]
    assert "made again" in err


@pytest.mark.parametrize("command", READERS)
def test_a_machine_without_the_ledger_gets_it_from_the_vault(
    command: tuple[str, ...], estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 1))
    estate.keep(deployment("chat", 2))
    assert main([*command, "--format", "json"]) == 0
    before = json.loads(capsys.readouterr().out)
    shutil.rmtree(estate.folder / "ledger.git")
    assert main([*command, "--format", "json"]) == 0
    out, err = capsys.readouterr()
    assert "it was made again from" in err
    if command[0] not in ("verify", "prune"):
        assert json.loads(out) == before
    assert main(["log"]) == 0
    assert "made again" not in capsys.readouterr().err  # once


def test_another_estates_vault_gives_no_ledger(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    estate.keep(deployment("chat", 1))
    shutil.rmtree(estate.folder / "ledger.git")
    estate.file.write_text(estate.file.read_text().replace('"test"', '"other"'))
    assert "other" in str(refused(capsys, "show")["remedy"])
    assert not (estate.folder / "ledger.git").exists()


def test_a_link_that_leads_nowhere_is_named(
    estate: Estate, capsys: pytest.CaptureFixture[str]
) -> None:
    (estate.folder / "ledger.git").symlink_to(estate.folder / "unplugged" / "ledger.git")
    for command in ("log", "snapshot"):
        assert "leads nowhere" in str(refused(capsys, command)["what"])


# ---------------------------------------------------------------------------- the surroundings


def muster(estate: Estate, *arguments: str, **variables: str) -> subprocess.CompletedProcess[bytes]:
    """Run muster in a process with an environment of its own: none but what is named."""
    return subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "MUSTER_CONFIG": str(estate.file), **variables},
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def strange(estate: Estate) -> Estate:
    estate.keep(deployment("größe-東京-😀", 1))
    return estate


def test_names_that_the_terminal_cannot_show_are_no_error(strange: Estate) -> None:
    for variables in (
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1", "COLUMNS": "40", "TZ": "Nowhere/Else", "NO_COLOR": "1"},
    ):
        ran = muster(strange, "show", **variables)
        assert (ran.returncode, ran.stderr) == (0, b""), ran
        json_ = muster(strange, "show", "--format", "json", **variables)
        assert "größe-東京-😀" in json_.stdout.decode("utf-8")


def test_a_full_disk_behind_stdout_is_one_error(strange: Estate) -> None:
    with Path("/dev/full").open("wb") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "muster", "show"],
            cwd=ROOT,
            env={"PATH": os.environ["PATH"], "MUSTER_CONFIG": str(strange.file)},
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 1
    assert b"Traceback" not in ran.stderr
    assert ran.stderr.count(b"error:") == 1
    assert b"no space left" in ran.stderr


def test_without_git_the_error_says_so(strange: Estate) -> None:
    ran = muster(strange, "log", "--format", "json", PATH="/nowhere")
    assert ran.returncode == 1
    found = held(ran.stdout.decode())
    assert "Git" in str(found["what"])
    assert "install" in str(found["remedy"])
