"""Fixtures for the front door as users have it: a folder with a configuration, and processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:  # pytest registers it after this one
    from tests.sandbox_fixtures import RunningSandbox

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Site:
    """A configuration in a folder of its own, and what its processes said."""

    folder: Path
    variables: Mapping[str, str] = field(default_factory=dict)
    said: list[bytes] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "muster.toml"

    @property
    def ledger(self) -> Path:
        return self.folder / "ledger.git"

    @property
    def vault(self) -> Path:
        return self.folder / "vault"

    @property
    def temporary(self) -> Path:
        """Where the processes put their temporary files."""
        return self.folder.parent / f"{self.folder.name}-tmp"

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start muster as a process of its own."""
        self.temporary.mkdir(exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("AZURE_", "MUSTER_"))}
        return subprocess.Popen(
            [sys.executable, "-m", "muster", *arguments, "--config", str(self.config)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**clean, "TMPDIR": str(self.temporary), **self.variables, **more},
        )

    def run(self, *arguments: str, expect: int | None = 0, **more: str) -> str:
        """Run muster to its end, hold it to its exit code, and give what it printed."""
        process = self.start(*arguments, **more)
        try:
            out, err = process.communicate(timeout=600)
        finally:
            process.kill()
        self.said.extend((out, err))
        told = out.decode() + err.decode()
        assert "Traceback" not in told, told[-3000:]
        if expect is not None:
            assert process.returncode == expect, (process.returncode, told[-3000:])
        return out.decode()

    def ask(self, *arguments: str, expect: int | None = 0) -> Any:
        """Run muster for its JSON."""
        return json.loads(self.run(*arguments, "--format", "json", expect=expect))

    def set(self, **values: str) -> None:
        """Set values of the configuration that it has already."""
        lines = self.config.read_text().splitlines()
        for name, value in values.items():
            at = [i for i, line in enumerate(lines) if line.startswith(f"{name} = ")]
            assert len(at) == 1, (name, at)
            lines[at[0]] = f"{name} = {value}"
        self.config.write_text("\n".join(lines) + "\n")

    def git(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run Git, without muster, on the ledger."""
        command = ["git", f"--git-dir={self.ledger}", *arguments]
        return subprocess.run(command, capture_output=True, timeout=120, check=False)


@pytest.fixture
def new_site(tmp_path: Path) -> Callable[..., Site]:
    """Makes sites: `new_site(sandbox)`, as another principal, with another vault."""
    made: list[Site] = []

    def make(
        sandbox: RunningSandbox,
        principal: str = "muster",
        vault: str = "vault",
        **variables: str,
    ) -> Site:
        site = Site(tmp_path / f"site{len(made)}", variables)
        made.append(site)
        ready = ("--sandbox", str(sandbox.ready_file), "--principal", principal)
        site.run("init", *ready, "--vault", vault)
        return site

    return make
