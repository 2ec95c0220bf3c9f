"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import os
import re
import resource
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import muster

ROOT = Path(__file__).resolve().parents[2]
OURS = ("muster", "snapshots", "drills", "flows")


@cache
def tracked() -> tuple[Path, ...]:
    """Every file that Git tracks here and that still exists."""
    done = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True, timeout=60
    )
    names = done.stdout.decode().split("\0")
    return tuple(ROOT / name for name in names if name and (ROOT / name).is_file())


@cache
def text_of(path: Path) -> str:
    """The file's text; empty when it is not text."""
    data = path.read_bytes()
    return "" if b"\0" in data else data.decode("utf-8", "replace")


@cache
def pyproject() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def table(*names: str) -> dict[str, object]:
    found: object = pyproject()
    for name in names:
        assert isinstance(found, dict)
        found = found[name]
    assert isinstance(found, dict)
    return found


# ---- what no file may hold
# Each needle is put together here, so that this file does not hold it.


def joined(*parts: str) -> str:
    return "".join(parts)


REGISTRIES = (
    joined("pypi", ".org"),
    joined("python", "hosted", ".org"),
    joined("registry", ".npmjs"),
    joined("npmjs", ".com"),
    joined("registry", ".yarnpkg"),
    joined("conda", ".anaconda", ".org"),
)
MACHINE_PATHS = (
    joined("/wo", "rk/"),
    joined("/ro", "ot/"),
    joined("/t", "mp/"),
    joined("/ho", "me/"),
    joined("/Us", "ers/"),
)
BANNED = (
    joined("co-authored", "-by"),
    joined("generated ", "with"),
    joined("as an ", "ai"),
    joined("as a language ", "model"),
    joined("claude ", "code"),
    joined("anthro", "pic.com"),
    joined("../sha", "red"),
)
MARKERS = re.compile(r"\b(" + "|".join((joined("TO", "DO"), joined("FIX", "ME"))) + r")\b")
# Numbers of tickets, which mean nothing in a clone.
TICKETS = re.compile(r"\b(?:" + joined("iss", "ue") + r"|" + joined("sess", "ion") + r") #?\d+\b")


def offences(text: str) -> Iterator[str]:
    """What in `text` must not be in a tracked file."""
    for needle in (*REGISTRIES, *MACHINE_PATHS):
        # A path counts from its root: "docs/work/" is a folder of ours.
        pattern = rf"(?<![\w.$}}-]){re.escape(needle)}" if needle[0] == "/" else re.escape(needle)
        for found in re.finditer(pattern, text):
            yield line_of(text, found.start())
    lowered = text.lower()
    for needle in BANNED:
        position = lowered.find(needle)
        if position >= 0:
            yield line_of(text, position)
    for pattern_ in (MARKERS, TICKETS):
        for found in pattern_.finditer(text):
            yield line_of(text, found.start())


def line_of(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    return f"line {text.count(chr(10), 0, position) + 1}: {text[start : position + 40].strip()!r}"


def test_no_tracked_file_names_a_registry_a_machine_or_how_it_was_made() -> None:
    allowed = {"LICENSE"}
    found = [
        f"{path.relative_to(ROOT)}, {offence}"
        for path in tracked()
        if path.name not in allowed
        for offence in offences(text_of(path))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "text",
    [
        f"index-url = https://{REGISTRIES[0]}/simple",
        f'"resolved": "https://{REGISTRIES[2]}.org/x"',
        f'STATE = "{MACHINE_PATHS[0]}main"',
        f"open('{MACHINE_PATHS[2]}x')",
        f"cd {MACHINE_PATHS[3]}alice/muster",
        f"{BANNED[0].title()}: somebody",
        f"x = 1  # {joined('TO', 'DO')}: later",
        f"as asked in {joined('iss', 'ue')} 12",
        f"as asked in {joined('iss', 'ue')} #12",
    ],
)
def test_the_search_for_such_words_finds_them(text: str) -> None:
    assert list(offences(text))


@pytest.mark.parametrize(
    "text", ["docs/work/page.md", "$HOME/work/", "an issue of 12 tokens", "/workspaces/ml"]
)
def test_the_search_for_such_words_leaves_innocent_ones_alone(text: str) -> None:
    assert not list(offences(text))


# ---- make and its targets


def make_targets() -> set[str]:
    return set(
        re.findall(r"^([a-z][a-z-]*):(?!=)", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    )


def test_every_make_target_is_documented() -> None:
    documents = "".join(text_of(ROOT / name) for name in ("README.md", "CONTRIBUTING.md"))
    missing = {name for name in make_targets() if f"make {name}" not in documents}
    assert not missing


def test_every_make_target_says_what_it_does() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    explained = set(re.findall(r"^([a-z][a-z-]*):.*## \S", makefile, re.MULTILINE))
    assert make_targets() == explained
    assert {"setup", "demo", "test", "check", "stress", "bench", "docs", "clean"} <= explained


def test_every_make_target_is_phony() -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    phony = set(re.findall(r"^\.PHONY:(.*)$", makefile, re.MULTILINE)[0].split())
    assert phony == make_targets()


# ---- dependencies and lock


def locked() -> dict[str, tuple[Requirement, int]]:
    """What requirements.lock pins, by canonical name, with the number of its hashes."""
    text = (ROOT / "requirements.lock").read_text("utf-8").replace("\\\n", " ")
    found: dict[str, tuple[Requirement, int]] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        what, *hashes = line.split("--hash=sha256:")
        requirement = Requirement(what.strip())
        found[canonicalize_name(requirement.name)] = (requirement, len(hashes))
    return found


def wanted() -> list[Requirement]:
    """What pyproject.toml asks for: to run, and to develop."""
    run, dev = table("project")["dependencies"], table("dependency-groups")["dev"]
    assert isinstance(run, list)
    assert isinstance(dev, list)
    return [Requirement(str(text)) for text in (*run, *dev)]


def test_the_lock_covers_every_dependency_with_a_version_that_fits() -> None:
    pinned = locked()
    wrong: list[str] = []
    for requirement in wanted():
        entry = pinned.get(canonicalize_name(requirement.name))
        if entry is None:
            wrong.append(f"{requirement}: not locked")
            continue
        (specifier,) = entry[0].specifier
        if specifier.operator != "==" or not requirement.specifier.contains(
            specifier.version, prereleases=True
        ):
            wrong.append(f"{requirement}: locked as {entry[0]}")
    assert not wrong


def test_every_line_of_the_lock_has_hashes() -> None:
    pinned = locked()
    assert len(pinned) > 100
    assert not [name for name, (_, hashes) in pinned.items() if hashes == 0]


def test_what_is_installed_is_what_the_lock_says() -> None:
    different = {
        name: version(name)
        for name, (requirement, _) in locked().items()
        if (requirement.marker is None or requirement.marker.evaluate())
        and version(name) not in requirement.specifier
    }
    assert not different


def test_the_version_has_one_home() -> None:
    assert "version" not in table("project")
    assert table("project")["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", muster.__version__)
    assert version("muster") == muster.__version__
    again = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py"
        and path.parts[len(ROOT.parts)] in OURS
        and re.search(r"^__version__\s*=", text_of(path), re.MULTILINE)
    ]
    assert again == ["muster/__init__.py"]


# ---- modules and tests


def imports_of(path: Path) -> Iterator[str]:
    """The absolute names that a module imports, wherever in the file it does."""
    module = [*path.relative_to(ROOT).with_suffix("").parts]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module[: -node.level] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield origin
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def test_the_sandbox_imports_nothing_of_ours() -> None:
    files = sorted((ROOT / "drills" / "sandbox").rglob("*.py"))
    files = [path for path in files if "node_modules" not in path.parts]
    assert files
    strangers = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in files
        for name in imports_of(path)
        if name.split(".")[0] in OURS
        and name != "drills"
        and not f"{name}.".startswith("drills.sandbox.")
    ]
    assert not strangers


def test_the_nouns_import_nothing_of_ours() -> None:
    for name in ("model.py", "errors.py"):
        names = set(imports_of(ROOT / "snapshots" / name))
        assert not {each for each in names if each.split(".")[0] in OURS}, name


def test_no_module_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "util", "helpers", "helper", "common", "base", "manager", "managers", "misc"}
    allowed = {"snapshots/kinds/base.py", "snapshots/vault/base.py"}
    found = {
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in OURS
        if path.stem in empty or path.parent.name in empty
    }
    assert found <= allowed


def test_every_module_of_ours_says_what_it_holds() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if path.suffix == ".py" and path.parts[len(ROOT.parts)] in OURS
        if not ast.get_docstring(ast.parse(text_of(path)))
    ]
    assert not silent


def test_every_test_file_is_found_by_make_test() -> None:
    """A test outside of pytest's test paths would never run, and nobody would know."""
    paths = table("tool", "pytest", "ini_options")["testpaths"]
    assert isinstance(paths, list)
    roots = [ROOT / str(name) for name in paths]
    roots.append(ROOT / "tests" / "az")  # make test-az
    lost = [
        str(path.relative_to(ROOT))
        for path in tracked()
        if re.fullmatch(r"test_.*\.py|.*_test\.py", path.name)
        if not any(path.is_relative_to(root) for root in roots)
    ]
    assert not lost


def test_no_two_test_modules_share_a_name() -> None:
    names = [
        path.name
        for path in tracked()
        if path.suffix == ".py" and path.is_relative_to(ROOT / "tests") and path.stem != "conftest"
    ]
    assert len(names) == len(set(names))


def test_tests_are_no_package() -> None:
    """With tests/snapshots/__init__.py, `snapshots` would be the tests'."""
    found = [path for path in tracked() if path.name == "__init__.py"]
    assert not [path for path in found if path.is_relative_to(ROOT / "tests")]


# Each breaks one contract or more; together they break every one.
TRESPASSES = {
    "snapshots/model.py": "import azure.core",
    "snapshots/errors.py": "import muster.cli, prefect",
    "snapshots/cloud/trespass.py": "import snapshots.kinds",
    "drills/sandbox/trespass.py": "import snapshots.model",
    "flows/trespass.py": "import muster.cli",
    "muster/trespass.py": "import flows",
}


def lint_imports(folder: Path) -> str:
    """What import-linter says about the packages in `folder`."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "PYTHONPATH": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout + done.stderr


def test_every_import_contract_is_kept_and_each_can_be_broken(tmp_path: Path) -> None:
    for name in OURS:
        for path in (ROOT / name).rglob("*.py"):
            if "node_modules" not in path.parts:
                copy = tmp_path / path.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(path.read_bytes())
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    contracts = table("tool", "importlinter")["contracts"]
    assert isinstance(contracts, list)
    said = lint_imports(tmp_path)
    assert f"Contracts: {len(contracts)} kept, 0 broken." in said, said
    for name, line in TRESPASSES.items():
        with (tmp_path / name).open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")
    said = lint_imports(tmp_path)
    assert f"Contracts: 0 kept, {len(contracts)} broken." in said, said


# ---- the command's start

HELP = """
import sys
from muster.cli import main
try:
    code = main(["--help"])
except SystemExit as end:
    code = end.code
heavy = {"azure", "prefect", "git", "msal", "requests", "deepdiff", "pydantic", "jinja2"}
loaded = sorted(heavy & {name.partition(".")[0] for name in sys.modules})
sys.stderr.write(f"code={code or 0} loaded={loaded}")
"""
HELP_BUDGET = 0.3  # seconds of CPU


def run_help() -> tuple[float, subprocess.CompletedProcess[str]]:
    """One `muster --help` in a process of its own: seconds of CPU, and what it said."""
    quiet = {
        # Measuring coverage is not part of the command's start.
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("COV_", "COVERAGE_"))
    }
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", HELP],
        cwd=ROOT,
        env=quiet,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return cpu, done


def test_help_answers_within_its_budget_and_loads_nothing_heavy() -> None:
    runs = [run_help() for _ in range(3)]
    done = runs[0][1]
    assert "Usage:" in done.stdout
    assert done.stderr == "code=0 loaded=[]"
    assert min(cpu for cpu, _ in runs) < HELP_BUDGET


# ---- no way out of the machine


def test_a_test_cannot_leave_this_machine() -> None:
    if os.environ.get("MUSTER_AZURE_VERIFIED"):
        pytest.skip("this run may reach Azure")
    with pytest.raises(PermissionError, match="must not leave this machine"):
        socket.getaddrinfo("management.example", 443)
    with socket.socket() as out, pytest.raises(PermissionError, match=r"192\.0\.2\.1"):
        out.connect(("192.0.2.1", 443))
    with socket.socket() as server, socket.socket() as client:
        server.bind(("127.0.0.1", 0))
        server.listen()
        client.connect(server.getsockname())


# ---- no skip where a test is promised

SKIPPING = """
import pytest

@pytest.mark.browser
def test_in_a_browser():
    pytest.skip("there is no browser")
"""


@pytest.mark.parametrize(("required", "said"), [("", "1 skipped"), ("azurite,browser", "1 failed")])
def test_a_skip_is_a_failure_where_its_marker_is_required(
    tmp_path: Path, required: str, said: str
) -> None:
    (tmp_path / "test_skipping.py").write_text(SKIPPING)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(tmp_path), str(tmp_path)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "MUSTER_REQUIRE": required},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert said in done.stdout.splitlines()[-1], done.stdout + done.stderr
