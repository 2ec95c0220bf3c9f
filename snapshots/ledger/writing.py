"""Write one commit through one `git fast-import`."""

from __future__ import annotations

import re
import tempfile
from contextlib import suppress
from datetime import datetime
from typing import Self

from snapshots.errors import StoreError
from snapshots.ledger.folder import cure_locks_of_the_dead
from snapshots.ledger.plumbing import Git

_PEOPLE = re.compile(r"[<>\r\n\0]")


class LostRaceError(Exception):
    """The branch moved while we wrote: nothing was changed by us."""


class Import:
    """One commit written through one `git fast-import`; nothing happens unless it is finished."""

    def __init__(
        self, git_: Git, branch: str, parent: str, message: str, when: datetime, author: str = ""
    ) -> None:
        self._git = git_
        stamp = f"{int(when.timestamp())} +0000"
        person = _PEOPLE.sub(" ", author).strip() or "muster"
        text = message.encode("utf-8", "replace")
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        head = (
            f"feature done\ncommit {ref}\nmark :1\nauthor {person} <muster@localhost> {stamp}\n"
            f"committer muster <muster@localhost> {stamp}\ndata {len(text)}\n"
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed in __exit__
        try:
            self._process = git_.start("fast-import", "--quiet", stderr=self._errors)
        except BaseException:
            self._errors.close()
            raise
        self._parts = [head.encode(), text, b"\n"]
        if parent:
            self._parts.append(b"from %b\n" % parent.encode())
        self._size, self._ended = 0, False
        self._flush()  # so that it starts while the caller still decides

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        if self._process.stdin:
            with suppress(OSError):
                self._process.stdin.close()
        if self._process.stdout:
            self._process.stdout.close()
        self._process.wait()
        self._errors.close()

    def put(self, path: str, content: bytes | str | None) -> None:
        """Write a file, take over a blob that is there already (by its id), or remove it."""
        name = _quoted(path)
        if content is None:
            self._parts.append(b"D %b\n" % name)
        elif isinstance(content, str):
            self._parts.append(b"M 100644 %b %b\n" % (content.encode(), name))
        else:
            self._parts.append(b"M 100644 inline %b\ndata %d\n" % (name, len(content)))
            self._parts += (content, b"\n")
            self._size += len(content)
        if self._size > 1 << 15:
            self._flush()

    def _flush(self) -> None:
        stdin = self._process.stdin
        if stdin is None:  # pragma: no cover - it is a pipe
            return
        try:
            stdin.write(b"".join(self._parts))
            stdin.flush()
        except OSError:
            self._fail()
        self._parts, self._size = [], 0

    def end(self) -> None:
        """Say that this was all: Git makes the commit while the caller does something else."""
        self._parts.append(b'\nget-mark :1\nls :1 ""\ndone\n')
        self._flush()
        self._ended = True

    def finish(self) -> tuple[str, str]:
        """Make the commit and give its id and its tree's. Raises LostRaceError, StoreError."""
        if not self._ended:
            self.end()
        out, _ = self._process.communicate()
        if self._process.returncode:
            self._fail()
        commit, tree = out.decode().splitlines()
        return commit, tree.split()[2]

    def _fail(self) -> None:
        self._process.kill()
        self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode("utf-8", "replace").strip()
        if "Not updating" in said or "cannot lock ref" in said or "reference already" in said:
            cure_locks_of_the_dead(self._git.path)
            raise LostRaceError
        for report in self._git.path.glob("fast_import_crash_*"):
            with suppress(OSError):
                report.unlink()
        full = "No space left" in said
        raise StoreError(
            f"the ledger could not be written: {said.splitlines()[0] if said else 'Git stopped'}",
            where=str(self._git.path),
            remedy="make room on the disk and run again: nothing was kept of this commit"
            if full
            else "run `muster verify`; nothing was kept of this commit",
        )


def _quoted(path: str) -> bytes:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return b'"%b"' % escaped.encode("utf-8", "surrogateescape")
