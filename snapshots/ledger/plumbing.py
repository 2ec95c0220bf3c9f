"""Run Git as a process: without a shell, without anybody's hooks, without a prompt."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from snapshots.errors import DamagedStoreError, StoreError

# A commit that was reported must survive a power cut; a lock that somebody else holds for a
# moment is waited for.
_ALWAYS = (
    "core.fsync=committed,reference",
    "core.hooksPath=" + os.devnull,
    "core.filesRefLockTimeout=3000",
    "core.packedRefsTimeout=3000",
    "core.quotePath=false",
    "core.logAllRefUpdates=false",
    "core.commitGraph=true",
    "fastimport.unpackLimit=1",
    "gc.auto=0",
    "maintenance.auto=false",
    "credential.interactive=false",
    "advice.detachedHead=false",
)
# Git asks for and gives back 270 kB for every object that it packs: with glibc's defaults each time
# through the kernel, which takes half of a small commit (docs/decisions/0015). Others ignore it.
_MALLOC = {"MALLOC_TRIM_THRESHOLD_": "67108864", "MALLOC_MMAP_THRESHOLD_": "33554432"}
_USERINFO = re.compile(r"(?<=://)[^/@\s'\"]+@")
_QUERY = re.compile(r"(?<=\?)[^\s'\"]+")


def scrub(text: str, *, secrets: Iterable[str] = ()) -> str:
    """Take user names, passwords and query strings out of every URL in `text`, and `secrets`."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _QUERY.sub("***", _USERINFO.sub("***@", text))


_environment = threading.Lock()


@contextmanager
def plain_environment() -> Iterator[None]:
    """Hide GIT_* from GitPython while it opens a repository: it would look elsewhere for objects.

    A process that Git started (a hook that calls muster) has them.
    """
    with _environment:
        hidden = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
        for name in hidden:
            del os.environ[name]
        try:
            yield
        finally:
            os.environ.update(hidden)


@dataclass(frozen=True, slots=True)
class Ran:
    """What a Git process answered."""

    code: int
    out: bytes
    err: str


@dataclass(slots=True)
class Git:
    """Git for one bare repository. `path` is its folder, `executable` what to run."""

    path: Path
    executable: str = "git"
    inherit: list[int] = field(default_factory=list)  # descriptors of locks that children share
    holder: int = 0  # the thread that holds those locks

    def environment(
        self, *, remote: bool = False, more: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Give what a child sees: ours without GIT_*, in English, that never asks anybody.

        Only talk to a remote reads the user's own Git configuration: it may hold a credential
        helper or a proxy.
        """
        # Nothing is configured through it: children need PATH, HOME, proxies and SSH_AUTH_SOCK.
        clean = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        clean |= {
            "LC_ALL": "C",
            "LANGUAGE": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ASKPASS": "",
            "SSH_ASKPASS": "",
            "SSH_ASKPASS_REQUIRE": "never",
            "GCM_INTERACTIVE": "never",
            "GIT_OPTIONAL_LOCKS": "0",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            **_MALLOC,
        }
        if remote:
            del clean["GIT_CONFIG_NOSYSTEM"]
        else:
            clean["GIT_CONFIG_GLOBAL"] = os.devnull
        return clean | dict(more or {})

    def command(self, *arguments: str, config: Sequence[str] = ()) -> list[str]:
        """Give the whole command line."""
        # The folder was named by the one who configured muster: whoever owns it may be trusted.
        settings = (*_ALWAYS, f"safe.directory={self.path}", *config)
        options = [part for setting in settings for part in ("-c", setting)]
        return [self.executable, *options, f"--git-dir={self.path}", *arguments]

    def start(
        self,
        *arguments: str,
        config: Sequence[str] = (),
        stdin: int | IO[bytes] = subprocess.PIPE,
        stderr: int | IO[bytes] = subprocess.PIPE,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start Git. Raises StoreError when there is no Git."""
        # A child that outlives a killed muster keeps the lock until it ends, so that nobody
        # sweeps away the files it still writes. Children of other threads only read: they must not
        # keep the lock longer than its holder, who may close it the moment they start.
        holds = self.holder == threading.get_ident() and sys.platform != "win32"
        shared = tuple(self.inherit) if holds else ()
        try:
            return subprocess.Popen(
                self.command(*arguments, config=config),
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=dict(environment) if environment is not None else self.environment(),
                pass_fds=shared,
                start_new_session=True,
            )
        except FileNotFoundError as missing:
            raise StoreError(
                f"Git was not found: {self.executable!r} is not on the PATH",
                remedy="install Git 2.36 or newer (for example: apt-get install git)",
            ) from missing

    def run(
        self,
        *arguments: str,
        give: bytes = b"",
        config: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Ran:
        """Run Git to its end. Raises StoreError when it took longer than `timeout` seconds."""
        with self.start(*arguments, config=config, environment=environment) as process:
            try:
                out, err = process.communicate(give, timeout=timeout)
            except subprocess.TimeoutExpired as slow:
                process.kill()
                process.communicate()
                raise StoreError(
                    f"git {arguments[0]} gave no answer within {timeout:.0f} s",
                    where=str(self.path),
                    remedy="check the connection to the remote",
                ) from slow
            except BaseException:
                process.kill()
                raise
        return Ran(process.returncode, out, err.decode("utf-8", "replace").strip())

    def text(self, *arguments: str, give: bytes = b"", config: Sequence[str] = ()) -> str:
        """Run Git and give what it said. Raises DamagedStoreError when it failed."""
        ran = self.run(*arguments, give=give, config=config)
        if ran.code:
            raise self.damaged(arguments[0], ran.err)
        return ran.out.decode("utf-8", "replace")

    def data(self, *arguments: str) -> bytes:
        """Run Git and give the bytes it wrote. Raises DamagedStoreError when it failed."""
        ran = self.run(*arguments)
        if ran.code:
            raise self.damaged(arguments[0], ran.err)
        return ran.out

    def damaged(self, verb: str, err: str) -> DamagedStoreError:
        """Give the error for a Git command that does not fail on a healthy repository."""
        # Git says the same about each object, and then what became of it: two lines tell enough.
        said = (line.removeprefix("error: ") for line in scrub(err).splitlines())
        lines = list(dict.fromkeys(line.removeprefix("fatal: ") for line in said if line.strip()))
        return DamagedStoreError(
            f"git {verb} failed: {'; '.join(lines[:2]) or 'no reason given'}",
            where=str(self.path),
            remedy="run `muster verify`: it names what is hurt. Moved aside, the ledger is made "
            "again from the vault's bundles",
        )

    def objects(self, names: Iterable[str]) -> Iterator[tuple[str, str, bytes]]:
        """Give (id, type, content) for each name, in order, through one `git cat-file --batch`.

        A name is an object id or `commit:path`. What is not there comes as ("", "missing", b"").
        Raises DamagedStoreError when Git gives up half-way: an object is corrupt.
        """
        wanted = list(names)
        if not wanted:
            return
        with tempfile.TemporaryFile() as errors:
            process = self.start("cat-file", "--batch", "--buffer", stderr=errors)
            stdin, stdout = process.stdin, process.stdout
            if stdin is None or stdout is None:  # pragma: no cover - both are pipes
                raise self.damaged("cat-file", "no pipe")

            def ask() -> None:
                with suppress(OSError), stdin:  # Git may be gone: the reader sees that
                    for start in range(0, len(wanted), 4096):
                        lines = "\n".join(wanted[start : start + 4096])
                        stdin.write(lines.encode() + b"\n")

            writer = threading.Thread(target=ask, daemon=True)
            writer.start()
            try:
                for name in wanted:
                    header = stdout.readline()
                    if header.endswith(b" missing\n"):
                        yield "", "missing", b""
                        continue
                    parts = header.split()
                    if len(parts) != 3 or not parts[2].isdigit():
                        errors.seek(0)
                        said = errors.read().decode("utf-8", "replace").strip()
                        raise self.damaged("cat-file", said or f"no answer about {name}")
                    size = int(parts[2])
                    content = stdout.read(size + 1)
                    if len(content) != size + 1:
                        errors.seek(0)
                        said = errors.read().decode("utf-8", "replace").strip()
                        raise self.damaged("cat-file", said or f"{name} is cut short")
                    yield parts[0].decode(), parts[1].decode(), content[:-1]
            finally:
                process.kill()
                stdout.close()
                process.wait()
                writer.join()
