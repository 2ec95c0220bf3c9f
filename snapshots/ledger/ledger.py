"""Keep snapshots, the baseline and the evidence in one bare Git repository, and read them back."""

from __future__ import annotations

import configparser
import difflib
import os
import re
import secrets
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Self

import orjson
from filelock import FileLock, Timeout

from snapshots.clock import Clock, SystemClock
from snapshots.errors import (
    ConcurrentError,
    DamagedStoreError,
    InputError,
    LockedError,
    NotFoundError,
    RefusedError,
    StoreError,
)
from snapshots.ledger.bundled import forget, increments
from snapshots.ledger.checking import check
from snapshots.ledger.documents import (
    LOG_FORMAT,
    blob_id,
    entry_in,
    gap_documents,
    gap_order,
    gaps_in,
    resource_in,
    stale_in,
)
from snapshots.ledger.entries import (
    BASELINE,
    EVIDENCE,
    LIVE,
    Damage,
    Entry,
    Kept,
    PrunePlan,
    Pushed,
    Retention,
    message_of,
)
from snapshots.ledger.folder import LOCK, broken, cure_locks_of_the_dead, make, sweep
from snapshots.ledger.memory import (
    Buffer,
    Documents,
    Draft,
    Group,
    Memory,
    Neighbours,
    grouped,
    marked,
)
from snapshots.ledger.paths import (
    GAPS,
    REFERENCE,
    RESOURCES,
    key_of,
    path_of,
    reference_name,
    reference_path,
)
from snapshots.ledger.plumbing import Git, plain_environment, scrub
from snapshots.ledger.pruning import (
    SCRATCH_NOTE,
    clear,
    format_rewritten,
    parse_rewritten,
    plan,
    rewrite,
    switch,
)
from snapshots.ledger.writing import Import, LostRaceError
from snapshots.model import CallCount, Gap, Json, Key, Resource, Snapshot, pretty

if TYPE_CHECKING:
    import git

REWRITTEN = "refs/muster/rewritten"  # what became of the commits that pruning rewrote
PACKS = 50  # fast-import leaves one pack a commit; docs/decisions/0012 has the measurement
_BRANCHES = (LIVE, BASELINE, EVIDENCE)
_REMOTE = "muster"
_ATTEMPTS = 5
_RECENT = 500  # commits that are looked through for a run that was committed already

_HEX = re.compile(r"[0-9a-f]{4,40}")
_ID = re.compile(r"[0-9]{8}T[0-9]{1,9}Z?(?:-[0-9a-f]{0,8})?")
_BACK = re.compile(r"(.+?)~([0-9]*)")
_BRANCH = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(?:/[A-Za-z0-9][A-Za-z0-9._-]*)*")


class Ledger:
    """The Git repository that keeps snapshots, the baseline and the evidence.

    Branches: `live` has one commit a snapshot, `baseline` what was approved, `evidence` drills and
    audits. Every method that names a state takes what `resolve` understands.
    """

    def __init__(
        self, git_: Git, repo: git.Repo, *, remote: str, clock: Clock, version: str, wait: float
    ) -> None:
        self._git = git_
        self._repo = repo
        self._remote = remote
        self._clock = clock
        self._version = version
        self._wait = wait
        self._mutex = threading.RLock()
        self._depth = 0

    # ------------------------------------------------------------------------------- open

    @classmethod
    def open(
        cls,
        path: Path | str,
        *,
        remote: str = "",
        clock: Clock | None = None,
        version: str = "",
        create: bool = False,
        wait: float = 600.0,
    ) -> Self:
        """Open the ledger at `path`; with `create`, make it when nothing is there.

        `remote` is a Git URL or folder that gets every commit too, `wait` the seconds to wait for
        another writer. Leftovers of killed processes are swept away. Raises StoreError without Git,
        NotFoundError when nothing is there, RefusedError for a folder that is not a ledger,
        DamagedStoreError for one that was.
        """
        try:
            import git  # it fails to import where Git is missing
        except ImportError as missing:
            raise StoreError(
                "Git was not found on the PATH",
                remedy="install Git 2.36 or newer (for example: apt-get install git)",
            ) from missing
        folder = Path(path).absolute()
        executable = git.Git.GIT_PYTHON_GIT_EXECUTABLE or "git"
        if create and (not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))):
            make(folder, executable)
        if not folder.exists():
            raise NotFoundError(
                "there is no ledger yet", where=str(folder), remedy="run `muster init`"
            )
        cure_locks_of_the_dead(folder)
        try:
            with plain_environment():
                repo = git.Repo(folder)
                bare = repo.bare
        except (git.InvalidGitRepositoryError, git.NoSuchPathError) as wrong:
            if (folder / "objects").is_dir() and (folder / "refs").is_dir():
                raise broken(folder, "HEAD or config is missing or unreadable") from wrong
            raise RefusedError(
                "this folder is not a ledger",
                where=str(folder),
                remedy="name a bare Git repository, or a folder that does not exist yet",
            ) from wrong
        except (ValueError, OSError, configparser.Error) as wrong:
            raise broken(folder, "config is unreadable") from wrong
        if not bare:
            raise RefusedError(
                "this is a working copy, not a ledger",
                where=str(folder),
                remedy="name the bare repository: a ledger has no files checked out",
            )
        ledger = cls(
            Git(folder, executable),
            repo,
            remote=remote,
            clock=clock or SystemClock(),
            version=version,
            wait=wait,
        )
        ledger._examine()
        return ledger

    @classmethod
    def from_bundle(
        cls,
        bundle: Path | str,
        path: Path | str,
        *,
        remote: str = "",
        clock: Clock | None = None,
        version: str = "",
    ) -> Self:
        """Make a ledger at `path` (nothing may be there) from what `bundle` wrote.

        What `<bundle>.1`, `<bundle>.2`, … beside it hold since is put upon it, in this order.
        Raises StoreError when something is there already, DamagedStoreError for a bad bundle.
        """
        folder, source = Path(path).absolute(), Path(bundle).absolute()
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise StoreError(
                "there is something here already",
                where=str(folder),
                remedy="name a folder that does not exist",
            )
        if not source.is_file():
            raise NotFoundError("there is no such bundle", where=str(source))

        def fill(git_: Git) -> None:
            refs = ("+refs/heads/*:refs/heads/*", "+refs/muster/*:refs/muster/*")
            for part in (source, *increments(source)):
                ran = git_.run("fetch", "--quiet", "--no-tags", str(part), *refs)
                if ran.code:
                    raise _unreadable(part, ran.err)
            ran = git_.run("fsck", "--connectivity-only")
            if ran.code:
                raise _unreadable(source, ran.err)

        make(folder, "git", fill)
        return cls.open(folder, remote=remote, clock=clock, version=version)

    @property
    def path(self) -> Path:
        """The repository's folder."""
        return self._git.path

    @property
    def remote(self) -> str:
        """Where commits are pushed to, without user name and password; empty without a remote."""
        return scrub(self._remote)

    def close(self) -> None:
        """Let go of what GitPython holds."""
        self._repo.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _examine(self) -> None:
        """Refuse what is not ours, and sweep what killed processes left, if nobody writes."""
        ran = self._git.run("rev-parse", "--show-object-format", "--is-bare-repository")
        if ran.code:
            raise broken(self.path, scrub(ran.err))
        if ran.out.split()[0] != b"sha1":
            raise RefusedError(
                "this repository uses SHA-256 object names, which a ledger does not",
                where=str(self.path),
                remedy="create a new ledger and push the old branches elsewhere",
            )
        refs = self._git.text("for-each-ref", "--format=%(refname)").split()
        heads = [ref for ref in refs if ref.startswith("refs/heads/")]
        if heads and not any(f"refs/heads/{name}" in heads for name in _BRANCHES):
            raise RefusedError(
                "this is a Git repository, but not a ledger: it has none of the branches "
                + ", ".join(_BRANCHES),
                where=str(self.path),
                remedy="name the ledger's own repository, or a folder that does not exist yet",
            )
        with suppress(LockedError), self._alone(wait=0):
            sweep(self.path)

    # ------------------------------------------------------------------------------- lock

    @contextmanager
    def _alone(self, wait: float | None = None) -> Iterator[None]:
        """Hold the ledger for writing. Raises LockedError when another holds it too long.

        The lock is the operating system's: it ends with the process that holds it and with the Git
        children that share it, however they end.
        """
        limit = self._wait if wait is None else wait
        if not self._mutex.acquire(timeout=limit if limit > 0 else 0.001):
            raise self._locked(limit)
        try:
            if self._depth:
                self._depth += 1
                try:
                    yield
                finally:
                    self._depth -= 1
                return
            held: list[int] = []
            lock = FileLock(
                self.path / LOCK,
                fallback_to_soft=False,
                on_acquired=held.append,
                poll_interval=0.02,
            )
            try:
                lock.acquire(timeout=max(limit, 0))
            except Timeout as busy:
                raise self._locked(limit) from busy
            except OSError as denied:
                raise StoreError(
                    f"the ledger cannot be written: {denied.strerror}", where=str(self.path)
                ) from denied
            self._git.inherit[:], self._git.holder = held, threading.get_ident()
            self._depth = 1
            try:
                yield
            finally:
                self._depth = 0
                self._git.holder = 0
                self._git.inherit.clear()
                lock.release()
        finally:
            self._mutex.release()

    def _locked(self, waited: float) -> LockedError:
        return LockedError(
            f"another process is writing to the ledger (waited {waited:.0f} s)",
            where=str(self.path / LOCK),
            remedy="wait for it to finish; the lock ends with its process",
        )

    # ------------------------------------------------------------------------------- write

    def commit(
        self,
        snapshot: Snapshot,
        *,
        branch: str = LIVE,
        trailers: Mapping[str, str] | None = None,
        run: str = "",
    ) -> Kept:
        """Keep a snapshot as one commit, also when nothing changed; then push to the remote.

        What a gap hides stays in the tree as it was last read, and gaps.json says since when.
        `trailers` are added to those that every snapshot has. A snapshot with the name of a `run`
        is committed once: when one of the newest commits is of that run, it is given and nothing
        is written.
        Raises ConcurrentError when somebody else kept moving the branch, LockedError when another
        writer did not finish, InputError when two keys would share a path.
        """
        started = time.perf_counter()
        trailers = {**(trailers or {}), **({"Run": run} if run else {})}
        with self._alone():
            if run and (entry := self.of_run(run, ref=branch)):
                seconds = time.perf_counter() - started
                return Kept(entry.commit, entry.tree, entry.snapshot, 0, 0, 0, 0, seconds)
            for _ in range(_ATTEMPTS):
                try:
                    kept = self._keep(snapshot, branch, started, trailers)
                except LostRaceError:
                    continue
                break
            else:
                raise self._raced(branch)
            pushed = self.push() if self._remote else None
            if self._packs() > PACKS:
                self.maintain()
        return Kept(
            kept.commit,
            kept.tree,
            kept.snapshot,
            kept.written,
            kept.removed,
            kept.unchanged,
            kept.stale,
            kept.seconds,
            pushed,
        )

    def _keep(
        self, snapshot: Snapshot, branch: str, started: float, trailers: Mapping[str, str]
    ) -> Kept:
        parent = self._tip(branch)
        now = self._clock.now().astimezone(UTC)
        identifier = f"{now:%Y%m%dT%H%M%S}{now.microsecond // 1000:03d}Z-{secrets.token_hex(4)}"
        gaps = len(snapshot.gaps)
        message = message_of(
            f"Snapshot of {snapshot.estate or 'the estate'}: {len(snapshot.resources)} resources"
            + (f", {gaps} gap{'s' if gaps > 1 else ''}" if gaps else ""),
            {
                "Snapshot-Id": identifier,
                "Resources": str(len(snapshot.resources)),
                "Payloads": str(
                    len({p.sha256 for r in snapshot.resources.values() for p in r.payloads})
                ),
                "Gaps": str(gaps),
                "Api-Calls": str(snapshot.calls.made),
                "Api-Calls-Floor": str(snapshot.calls.floor),
                "Throttled": str(snapshot.calls.throttled),
                "Duration": f"{snapshot.seconds:.3f}",
                "Muster-Version": snapshot.version or self._version,
                "Taken-At": snapshot.taken_at.astimezone(UTC).isoformat(),
                "Kept-At": now.isoformat(),
                "Estate": snapshot.estate,
                **trailers,
            },
        )
        written = 0
        with Import(self._git, branch, parent, message, now) as stream:
            memory = Memory.read(self.path, parent) if parent else None
            before = Neighbours(memory) if memory else None
            tree = Documents(self._tree(parent) if parent and not memory else {})
            groups: dict[bytes, Buffer] = {}  # what is to be remembered, in this order
            held: set[bytes] = set()
            later: list[tuple[Group, list[str]]] = []
            seen: dict[str, Key] = {}

            def make(group: Group, marks: list[str], there: Documents) -> int:
                """Make the documents that are not `there` already; give how many differ."""
                lines: list[str] = []
                differ = 0
                for mark, resource in zip(marks, group.resources, strict=True):
                    line = there.lines.get(mark, "")
                    path = line[82:] or path_of(resource.key)
                    if path in seen:
                        raise _shared(path, resource.key, seen[path])
                    seen[path] = resource.key
                    if not line:
                        data = pretty(resource.document())
                        blob = blob_id(data)
                        line = f"{blob} {mark} {path}"
                        if there.files.get(path) != blob:
                            stream.put(path, data)
                            differ += 1
                    lines.append(line)
                groups[group.digest] = "\n".join(lines).encode()
                return differ

            for group in grouped(snapshot.resources.values()):
                if before and (same := before.same(group.digest)) is not None:
                    groups[group.digest] = same
                    held.add(group.digest)
                    continue
                marks = [marked(resource) for resource in group.resources]
                near = before.next() if before else tree
                if before and not all(
                    mark in near.lines or path_of(resource.key) in near.files
                    for mark, resource in zip(marks, group.resources, strict=True)
                ):
                    groups[group.digest] = b""  # its place
                    later.append((group, marks))
                    continue
                # Git gets it at once, and packs it while the other groups are looked at.
                written += make(group, marks, near)
            there = memory.without(held) if memory else tree
            if memory:  # what a gap hid is with the rest, and may have been read again
                there = Documents({**there.files, **memory.rest}, there.lines)
            for group, marks in later:
                written += make(group, marks, there)
            unchanged = len(snapshot.resources) - written
            old = dict(there.files)
            fresh = [path for path in seen if not old.pop(path, "")]
            known = memory.files() if memory and fresh else {}
            for path in fresh:
                if path in known:
                    raise _shared(path, seen[path])  # with one that is as it was
            more = {reference_path(n): pretty(value) for n, value in snapshot.reference.items()}
            hidden, stale_list = self._hidden(snapshot, parent, old)
            more[GAPS] = pretty(gap_documents(snapshot.gaps, stale_list))
            rest: dict[str, str] = {}
            for path, data in more.items():
                rest[path] = blob_id(data)
                if old.pop(path, "") == rest[path]:
                    unchanged += 1
                else:
                    stream.put(path, data)
                    written += path != GAPS
            removed = 0
            for path, blob in old.items():
                # Reference data stays where there are gaps: it may be one of the failed reads.
                if (
                    path in hidden
                    or not path.startswith((RESOURCES, REFERENCE))
                    or (path.startswith(REFERENCE) and snapshot.gaps)
                ):
                    rest[path] = blob
                    continue
                stream.put(path, None)
                removed += 1
            stream.end()
            with Draft(self.path, groups, rest) as draft:
                commit, top = stream.finish()
                draft.of(commit)
        stale = len(hidden)
        return Kept(
            commit,
            top,
            identifier,
            written,
            removed,
            unchanged,
            stale,
            time.perf_counter() - started,
        )

    def _hidden(
        self, snapshot: Snapshot, parent: str, left: Mapping[str, str]
    ) -> tuple[set[str], dict[Key, tuple[Gap, str]]]:
        """Give the paths, of those left over, that a gap hides, and since when each is stale."""
        if not snapshot.gaps or not parent or not left:
            return set(), {}
        paths = [path for path in left if path.startswith(RESOURCES)]
        keys = self._keys_at({path: left[path] for path in paths})
        before = self._stale_since(left[GAPS]) if GAPS in left else {}
        since = self._entry(parent).snapshot or parent
        gaps = sorted(snapshot.gaps, key=gap_order)
        single = {gap.key: gap for gap in reversed(gaps) if not gap.listing}
        listings = [gap for gap in gaps if gap.listing]
        found: dict[Key, tuple[Gap, str]] = {}
        hidden: set[str] = set()
        for path, key in keys.items():
            gap = single.get(key) or next((g for g in listings if g.covers(key)), None)
            if gap:
                hidden.add(path)
                found[key] = (gap, before.get(key, since))
        return hidden, found

    def _stale_since(self, gaps_blob: str) -> dict[Key, str]:
        """Give what gaps.json knows to be stale, and the snapshot that last read it."""
        for _, kind, content in self._git.objects([gaps_blob]):
            if kind == "blob":
                return {key: since for key, (since, _) in stale_in(content).items()}
        return {}

    def put(
        self,
        branch: str,
        files: Mapping[str, bytes | None],
        message: str,
        trailers: Mapping[str, str] | None = None,
        *,
        expected_parent: str | None = None,
        author: str = "",
    ) -> str:
        """Write files to a branch as one commit and give its id; None removes a file.

        `expected_parent` is the commit the caller decided upon ("" when there must be none):
        ConcurrentError when the branch is elsewhere by now. Without it the commit goes on top of
        whatever is there. `author` is a person's name. Raises InputError for an unsafe path.
        """
        for path in files:
            _safe(path)
        return self._put(branch, list(files.items()), message, trailers, expected_parent, author)

    def copy(
        self,
        paths: Iterable[str] | None,
        from_ref: str,
        to_branch: str,
        message: str,
        trailers: Mapping[str, str] | None = None,
        *,
        expected_parent: str | None = None,
        author: str = "",
    ) -> str:
        """Make paths of a branch what they are in another state (also absent), as one commit.

        This is how a finding is approved. Without `paths`, everything that a snapshot writes is
        copied, and other files (`changes/…`) stay. Errors are those of `put`.
        """
        source = self._tree(self.resolve(from_ref))
        ours = (RESOURCES, REFERENCE, GAPS)
        with self._alone():
            if paths is None:
                tip = self._tip(to_branch)
                there = self._tree(tip) if tip else {}
                changes: dict[str, str | None] = {
                    path: blob for path, blob in source.items() if path.startswith(ours)
                }
                for path in there:
                    if path.startswith(ours) and path not in source:
                        changes[path] = None
            else:
                changes = {_safe(path): source.get(path) for path in paths}
            return self._put(
                to_branch, list(changes.items()), message, trailers, expected_parent, author
            )

    def _put(
        self,
        branch: str,
        changes: Sequence[tuple[str, bytes | str | None]],
        message: str,
        trailers: Mapping[str, str] | None,
        expected: str | None,
        author: str,
    ) -> str:
        if not _BRANCH.fullmatch(branch) or ".." in branch or branch.endswith(".lock"):
            raise InputError(f"not a name of a branch: {branch!r}")
        text = message_of(message, trailers or {})
        with self._alone():
            for _ in range(_ATTEMPTS):
                parent = self._tip(branch)
                if expected is not None and parent != expected:
                    raise self._raced(branch)
                now = self._clock.now().astimezone(UTC)
                try:
                    with Import(self._git, branch, parent, text, now, author) as stream:
                        for path, content in changes:
                            stream.put(path, content)
                        commit, _ = stream.finish()
                except LostRaceError:
                    continue
                return commit
        raise self._raced(branch)

    def _raced(self, branch: str) -> ConcurrentError:
        return ConcurrentError(
            f"somebody else wrote to {branch} first",
            where=str(self.path),
            remedy="look at what they did (`muster log`), then run the command again",
        )

    # ------------------------------------------------------------------------------- read

    def _tip(self, branch: str) -> str:
        """Give the commit a branch stands at; empty when there is no such branch."""
        ref = branch if branch.startswith("refs/") else f"refs/heads/{branch}"
        try:
            found = self._repo.head.dereference_recursive(self._repo, ref)
        except (ValueError, AssertionError):  # GitPython asserts that a file holds a line
            if (self.path / ref).is_file():
                raise broken(self.path, f"{ref} holds no commit id") from None
            return ""
        if not re.fullmatch(r"[0-9a-f]{40}", found):
            raise broken(self.path, f"{ref} holds no commit id")
        return found

    def _listed(self, listing: subprocess.Popen[bytes]) -> dict[str, str]:
        with listing:
            out, err = listing.communicate()
        if listing.returncode:
            raise self._git.damaged("ls-tree", err.decode("utf-8", "replace").strip())
        # A line is `100644 blob <40 digits>\t<path>`.
        lines = out.decode("utf-8", "surrogateescape").split("\0")
        return {line[53:]: line[12:52] for line in lines if line}

    def _tree(self, commit: str, *prefixes: str) -> dict[str, str]:
        """Give path -> blob id of a commit, without links and modules."""
        return self._listed(self._git.start("ls-tree", "-r", "-z", commit, "--", *prefixes))

    def tip(self, branch: str = LIVE) -> str:
        """Give the commit a branch stands at; empty when there is none yet."""
        return self._tip(branch)

    def branches(self) -> tuple[str, ...]:
        """Give the names of the branches, sorted."""
        listed = self._git.text("for-each-ref", "--format=%(refname)", "refs/heads/")
        return tuple(sorted(ref.removeprefix("refs/heads/") for ref in listed.split()))

    def load(self, ref: str = LIVE) -> Snapshot:
        """Give a snapshot back. What a gap hid when it was taken is in `stale`, not `resources`.

        Raises NotFoundError for an unknown state, DamagedStoreError for a document that cannot be
        read or lies at a path that is not its key's.
        """
        entry = self._entry(self.resolve(ref))
        tree = {
            path: blob
            for path, blob in self._tree(entry.commit).items()
            if path.startswith((RESOURCES, REFERENCE)) or path == GAPS
        }
        read: dict[Key, Resource] = {}
        reference: dict[str, Json] = {}
        gaps: tuple[Gap, ...] = ()
        stale: Mapping[Key, tuple[str, str]] = {}
        for path, (_, kind, content) in zip(tree, self._git.objects(tree.values()), strict=True):
            try:
                if kind != "blob":
                    raise ValueError(f"it is {kind}")  # noqa: TRY301 - one place says what is hurt
                if path == GAPS:
                    gaps, stale = gaps_in(content), stale_in(content)
                elif path.startswith(RESOURCES):
                    resource = resource_in(path, content)
                    read[resource.key] = resource
                else:
                    reference[reference_name(path)] = orjson.loads(content)
            except ValueError as wrong:
                raise DamagedStoreError(
                    f"{path} in {entry.commit[:12]} cannot be read: {wrong}",
                    where=str(self.path),
                    remedy="run `muster verify`; an edit of the baseline may be at fault",
                ) from wrong
        return Snapshot(
            estate=entry.trailers.get("Estate", ""),
            taken_at=entry.taken_at,
            version=entry.trailers.get("Muster-Version", ""),
            resources={key: r for key, r in read.items() if key not in stale},
            gaps=gaps,
            reference=reference,
            calls=CallCount(
                made=int(entry.number("Api-Calls")),
                floor=int(entry.number("Api-Calls-Floor")),
                throttled=int(entry.number("Throttled")),
            ),
            seconds=entry.number("Duration"),
            id=entry.commit,
            stale={key: r for key, r in read.items() if key in stale},
        )

    def read(self, ref: str, key: Key) -> Resource:
        """Give one resource. Raises NotFoundError, with the nearest names, when it is not there."""
        commit = self.resolve(ref)
        path = path_of(key)
        for _, kind, content in self._git.objects([f"{commit}:{path}"]):
            if kind == "blob":
                try:
                    return resource_in(path, content)
                except ValueError as wrong:
                    raise self._git.damaged("cat-file", f"{path}: {wrong}") from wrong
        names = [str(known) for known in self.keys(commit)]
        near = difflib.get_close_matches(str(key), names, n=3, cutoff=0.6)
        raise NotFoundError(
            f"{key} is not in {ref}",
            where=str(self.path),
            remedy="did you mean " + " or ".join(near) if near else "run `muster show`",
        )

    def keys(self, ref: str = LIVE) -> Iterator[Key]:
        """Give the keys of a state, sorted, the stale ones too."""
        tree = self._tree(self.resolve(ref), RESOURCES)
        yield from sorted(self._keys_at(tree).values())

    def _keys_at(self, tree: Mapping[str, str]) -> dict[str, Key]:
        """Give path -> key, reading only the documents whose path does not tell."""
        found: dict[str, Key] = {}
        unknown: list[str] = []
        for path in tree:
            if (key := key_of(path)) is not None:
                found[path] = key
            else:
                unknown.append(path)
        contents = self._git.objects([tree[path] for path in unknown])
        for path, (_, kind, content) in zip(unknown, contents, strict=True):
            if kind == "blob":
                with suppress(ValueError):
                    found[path] = resource_in(path, content).key
        return found

    def find(self, ref: str, text: str) -> Key:
        """Give the one key that `text` means: itself, or the end of it, with or without the kind.

        `deployment/aoai-prod/gpt-4o`, `aoai-prod/gpt-4o` and `gpt-4o` may all do. Raises
        InputError, listing the candidates, when there are several; NotFoundError when none.
        """
        keys = list(self.keys(ref))
        wanted = text.strip().strip("/")
        for same in (lambda t: t, str.lower):
            parts = [same(part) for part in _parts(wanted)]
            exact = [k for k in keys if [same(k.kind), *map(same, k.path)] == parts]
            if len(exact) == 1:
                return exact[0]
            found = [key for key in keys if _ends(key, parts, same)]
            if len(found) == 1:
                return found[0]
            if found:
                shown = "\n".join(f"         {key}" for key in found[:10])
                more = f"\n         and {len(found) - 10} more" if len(found) > 10 else ""
                raise InputError(
                    f"{text!r} means {len(found)} resources:\n{shown}{more}",
                    remedy="write more of the key, beginning with the kind",
                )
        short = {f"{key.kind}/{key.name}": key for key in keys}
        near = difflib.get_close_matches(wanted, [*map(str, keys), *short], n=3, cutoff=0.5)
        raise NotFoundError(
            f"nothing in {ref} is called {text!r}",
            remedy="did you mean " + " or ".join(near) if near else "run `muster show`",
        )

    def files(self, ref: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """Give (path, content) of every file of a state below `prefix`, sorted by path."""
        tree = self._tree(self.resolve(ref))
        chosen = {path: blob for path, blob in tree.items() if path.startswith(prefix)}
        contents = self._git.objects(chosen.values())
        for path, (_, kind, content) in zip(chosen, contents, strict=True):
            if kind != "blob":
                raise self._git.damaged("cat-file", f"{path} is {kind}")
            yield path, content

    # ------------------------------------------------------------------------------- history

    def log(
        self,
        limit: int | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        *,
        ref: str = LIVE,
    ) -> Iterator[Entry]:
        """Give the commits of a branch or state, newest first; aware times, inclusive."""
        if limit is not None and limit <= 0:
            return
        start = self._tip(ref) if _BRANCH.fullmatch(ref) else ""
        if not start and ref in (*_BRANCHES, REWRITTEN):
            return
        # Git knows whole seconds only: it leaves out what cannot fit, we look closer.
        options: list[str] = []
        if since:
            options.append(f"--since-as-filter=@{int(since.timestamp() // 1)}")
        if until:
            options.append(f"--until=@{int(until.timestamp() // 1)}")
        fitting = (
            entry
            for entry in self._log(*options, start or self.resolve(ref))
            if (not since or entry.kept_at >= since) and (not until or entry.kept_at <= until)
        )
        yield from islice(fitting, limit)

    def of_run(self, run: str, *, ref: str = LIVE) -> Entry | None:
        """Give the commit of a sharded snapshot by the name of its run; None when there is none."""
        for entry in self.log(_RECENT, ref=ref):
            if entry.trailers.get("Run") == run:
                return entry
        return None

    def _log(self, *arguments: str) -> Iterator[Entry]:
        with tempfile.TemporaryFile() as errors:
            process = self._git.start(
                "log", "-z", "--first-parent", "--no-show-signature", LOG_FORMAT, *arguments,
                stdin=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
            stdout = process.stdout
            if stdout is None:  # pragma: no cover - it is a pipe
                return
            rest = b""
            try:
                while block := stdout.read(65536):
                    *whole, rest = (rest + block).split(b"\0")
                    for record in whole:
                        yield entry_in(record)
                if rest:
                    yield entry_in(rest)
                if process.wait():
                    errors.seek(0)
                    raise self._git.damaged("log", errors.read().decode("utf-8", "replace"))
            finally:
                process.kill()
                stdout.close()
                process.wait()

    def entry(self, ref: str) -> Entry:
        """Give the commit of a state."""
        return self._entry(self.resolve(ref))

    def _entry(self, commit: str) -> Entry:
        for entry in self._log("--max-count=1", commit):
            return entry
        raise self._git.damaged("log", f"{commit} cannot be read")

    def asof(self, when: datetime) -> Entry:
        """Give the newest snapshot that was kept at `when` (naive times are UTC).

        Raises NotFoundError, naming the first snapshot, when there was none yet.
        """
        moment = when if when.tzinfo else when.replace(tzinfo=UTC)
        for entry in self.log(1, until=moment):
            return entry
        oldest = next(iter(deque(self.log(), maxlen=1)), None)
        raise NotFoundError(
            f"there is no snapshot as old as {moment.astimezone(UTC).isoformat()}",
            where=str(self.path),
            remedy=f"the first one is {oldest.snapshot} of {oldest.kept_at.isoformat()}"
            if oldest
            else "take one: `muster snapshot`",
        )

    def history(self, key: Key, *, ref: str = LIVE) -> Iterator[tuple[Entry, Resource | None]]:
        """Give every commit that changed one resource, newest first, and what it was from then on.

        None stands for its removal. A gap is no change. Nothing for a key that never was.
        """
        if ref in _BRANCHES and not self._tip(ref):
            return
        path = path_of(key)
        entries = list(self._log(self.resolve(ref), "--", path))
        contents = self._git.objects([f"{entry.commit}:{path}" for entry in entries])
        for entry, (_, kind, content) in zip(entries, contents, strict=True):
            try:
                yield entry, resource_in(path, content) if kind == "blob" else None
            except ValueError as wrong:
                raise self._git.damaged("cat-file", f"{path}: {wrong}") from wrong

    def resolve(self, text: str) -> str:
        """Give the commit that `text` means.

        It may be `latest` (the newest snapshot), a branch, the beginning (4 characters or more) of
        a commit id or snapshot id, an ISO date or time (what was known then; a date means its end,
        UTC), or any of these with `~3` (three commits earlier). Ids from before a prune still
        resolve. Raises NotFoundError, or InputError when it could mean several.
        """
        wanted = text.strip()
        if back := _BACK.fullmatch(wanted):
            return self._earlier(self.resolve(back[1]), int(back[2] or "1"), wanted)
        branch = LIVE if wanted in {"latest", "HEAD"} else wanted
        if _BRANCH.fullmatch(branch) and (tip := self._tip(branch)):
            return self._whole(tip, branch)
        if branch in _BRANCHES:
            raise NotFoundError(
                f"there is nothing on {branch} yet",
                where=str(self.path),
                remedy="approve one: `muster approve --all --reason …`"
                if branch == BASELINE
                else "take a snapshot first: `muster snapshot`",
            )
        if _HEX.fullmatch(wanted) and (commit := self._by_commit(wanted)):
            return commit
        if _ID.fullmatch(wanted) and (commit := self._by_snapshot(wanted)):
            return commit
        if moment := _moment(wanted):
            return self.asof(moment).commit
        raise NotFoundError(
            f"there is no snapshot called {text!r}",
            where=str(self.path),
            remedy="`muster log` lists them; a date, a branch or latest~1 will do as well",
        )

    def _whole(self, tip: str, branch: str) -> str:
        """Give the tip of a branch if Git can read it: else later errors would blame the name."""
        if self._git.run("cat-file", "-t", tip).out.strip() != b"commit":
            raise broken(self.path, f"what {branch} stands at, {tip[:12]}, cannot be read")
        return tip

    def _earlier(self, commit: str, steps: int, wanted: str) -> str:
        ran = self._git.run("rev-parse", "--verify", "--quiet", f"{commit}~{steps}")
        if ran.code:
            raise NotFoundError(
                f"there is no {wanted}: history is not that long",
                where=str(self.path),
                remedy="`muster log` lists what there is",
            )
        return ran.out.decode().strip()

    def _by_commit(self, prefix: str) -> str:
        ran = self._git.run("rev-parse", f"--disambiguate={prefix}")
        names = ran.out.decode().split()
        commits: list[str] = []
        for name, (_, kind, _content) in zip(names, self._git.objects(names), strict=True):
            if kind == "commit":
                commits.append(name)
        moved = self._rewritten()
        old = [name for name in moved if name.startswith(prefix)]
        # A commit that was rewritten may still lie about until Git forgets it.
        found = {moved[name][0] for name in old} | {c for c in commits if c not in moved}
        if len(found) > 1:
            raise InputError(
                f"{prefix!r} means several commits: {', '.join(sorted(n[:12] for n in found))}",
                remedy="write more of it",
            )
        if old and found == {""}:
            raise _pruned(prefix)
        return next(iter(found), "")

    def _by_snapshot(self, prefix: str) -> str:
        found = [entry for entry in self.log() if entry.snapshot.startswith(prefix)]
        exact = [entry for entry in found if entry.snapshot == prefix]
        if len(found) > 1 and len(exact) != 1:
            if _moment(prefix):
                return ""  # a whole time: what was known then
            names = ", ".join(entry.snapshot for entry in found[:5])
            raise InputError(f"{prefix!r} means several: {names}", remedy="write more of it")
        if not found and any(
            name.startswith(prefix) for commit, name in self._rewritten().values() if not commit
        ):
            raise _pruned(prefix)
        return (exact or found)[0].commit if found else ""

    def _rewritten(self) -> dict[str, tuple[str, str]]:
        """Give old commit -> (new commit or "", snapshot id) of all that pruning ever rewrote."""
        tip = self._tip(REWRITTEN)
        if not tip:
            return {}
        for _, kind, content in self._git.objects([f"{tip}:rewritten"]):
            if kind == "blob":
                return parse_rewritten(content)
        return {}

    # ------------------------------------------------------------------------------- elsewhere

    def push(self) -> Pushed:
        """Send what the remote does not have. A failure is a warning in the answer, never raised.

        Whoever wrote to the remote meanwhile is never overwritten: a rewritten `live` is only
        replaced when the remote still has what we last saw there. Without a remote, nothing is
        done.
        """
        if not self._remote:
            return Pushed()
        with self._alone():
            ours = self._refs("refs/heads/") | self._refs(REWRITTEN)
            theirs = self._refs(f"refs/remotes/{_REMOTE}/")
            specs: list[str] = []
            leases: list[str] = []
            for ref, commit in ours.items():
                seen = theirs.get(_tracking(ref), "")
                if seen == commit:
                    continue
                specs.append(f"{ref}:{ref}")
                if seen and ref == f"refs/heads/{LIVE}":
                    leases.append(f"--force-with-lease={ref}:{seen}")
            if not specs:
                return Pushed()
            said = self._talk("push", "--porcelain", *leases, _REMOTE, *specs)
            return Pushed(tuple(spec.split(":")[0] for spec in specs), said)

    def pull(self) -> Pushed:
        """Take over what others wrote on the remote: a merged pull request on `baseline`.

        Branches are only ever moved forward. What cannot be taken over is a warning.
        """
        if not self._remote:
            return Pushed()
        with self._alone():
            if said := self._talk("fetch", "--quiet", "--no-tags", _REMOTE):
                return Pushed((), said)
            ours = self._refs("refs/heads/")
            theirs = self._refs(f"refs/remotes/{_REMOTE}/heads/")
            moved: list[str] = []
            warnings: list[str] = []
            for tracking, commit in theirs.items():
                name = tracking.removeprefix(f"refs/remotes/{_REMOTE}/heads/")
                ref = f"refs/heads/{name}"
                mine = ours.get(ref, "")
                if mine == commit or (mine and self._contains(mine, commit)):
                    continue
                if mine and not self._contains(commit, mine):
                    if name != LIVE or commit not in self._rewritten():
                        warnings.append(f"{name} here and on the remote went apart")
                    continue
                self._git.text("update-ref", ref, commit, mine or "0" * 40)
                moved.append(ref)
            return Pushed(tuple(moved), "; ".join(warnings))

    def _contains(self, commit: str, ancestor: str) -> bool:
        return self._git.run("merge-base", "--is-ancestor", ancestor, commit).code == 0

    def _talk(self, *arguments: str) -> str:
        """Speak with the remote; give what went wrong, without secrets, or nothing."""
        # The address may hold a password: it goes through the environment, which other users
        # cannot read, and into no file.
        more = {
            f"remote.{_REMOTE}.url": self._remote,
            f"remote.{_REMOTE}.fetch": f"+refs/heads/*:refs/remotes/{_REMOTE}/heads/*",
            "http.lowSpeedLimit": "1",
            "http.lowSpeedTime": "60",
        }
        numbered = {"GIT_CONFIG_COUNT": str(len(more) + 1)}
        settings = [*more.items(), (f"remote.{_REMOTE}.fetch", _fetch_muster())]
        for index, (name, value) in enumerate(settings):
            numbered[f"GIT_CONFIG_KEY_{index}"] = name
            numbered[f"GIT_CONFIG_VALUE_{index}"] = value
        environment = self._git.environment(remote=True, more=numbered)
        try:
            ran = self._git.run(*arguments, environment=environment, timeout=300)
        except StoreError as failed:
            return self._scrubbed(failed.what)
        if ran.code == 0:
            return ""
        rejected = [
            line[1:].strip() for line in ran.out.decode("utf-8", "replace").splitlines()
            if line.startswith("!")
        ]  # fmt: skip
        reason = "; ".join(rejected) or " ".join(ran.err.split()) or f"git exited with {ran.code}"
        return self._scrubbed(f"the remote did not take it: {reason}")

    def _scrubbed(self, text: str) -> str:
        userinfo = re.search(r"://([^/@]+)@", self._remote)
        parts = userinfo[1].split(":", 1) if userinfo else []
        return scrub(text.replace(self._remote, self.remote), secrets=parts[1:])

    def _refs(self, prefix: str) -> dict[str, str]:
        listed = self._git.text("for-each-ref", "--format=%(refname) %(objectname)", prefix)
        return {
            line.split(" ")[0]: line.split(" ")[1] for line in listed.splitlines() if " " in line
        }

    def tips(self) -> dict[str, str]:
        """Give ref -> commit of everything that a bundle holds."""
        return self._refs("refs/heads/") | self._refs(REWRITTEN)

    def bundle(self, path: Path | str, *, since: Iterable[str] = ()) -> int:
        """Write all branches into one file, whole or not at all; give its size in bytes.

        What the commits `since` reach is left out: the reader has it from an earlier bundle.
        Raises StoreError when there is nothing to bundle yet, DamagedStoreError when nothing is
        new or one of `since` is not here any more.
        """
        target = Path(path).absolute()
        if not self.branches():
            raise StoreError(
                "there is nothing to bundle: the ledger is empty",
                where=str(self.path),
                remedy="take a snapshot first: `muster snapshot`",
            )
        with tempfile.TemporaryDirectory(prefix=".bundle-", dir=target.parent) as folder:
            draft = Path(folder) / "bundle"
            self._git.text(
                "bundle", "create", "--quiet", str(draft), "--branches", f"--glob={REWRITTEN}*",
                *(f"^{commit}" for commit in since),
            )  # fmt: skip
            with draft.open("rb") as written:
                os.fsync(written.fileno())
            draft.replace(target)
        return target.stat().st_size

    # ------------------------------------------------------------------------------- upkeep

    def check(self) -> list[Damage]:
        """Look at every byte: Git's own check, then every document of every commit.

        Gives one Damage for each thing wrong, with the snapshots it hurts; nothing when all is
        well.
        """
        return check(self._git)

    def _packs(self) -> int:
        return sum(1 for _ in (self.path / "objects" / "pack").glob("*.pack"))

    def maintain(self) -> None:
        """Join the packs into one and write the index that makes `history` fast."""
        with self._alone():
            self._git.text("repack", "-d", "-l", "-A", "-q", "--unpack-unreachable=2.weeks.ago")
            self._git.text(
                "commit-graph", "write", "--reachable", "--changed-paths", "--no-progress"
            )

    def prune(
        self, policy: Retention, now: datetime | None = None, *, apply: bool = False
    ) -> PrunePlan:
        """Say which snapshots retention keeps and drops; with `apply`, drop them.

        Only `live` is thinned. What baseline or evidence refer to stays, by commit id or snapshot
        id in a message or a file, or by descent. Kept snapshots keep tree, message and dates, and
        every id that was ever given still resolves or says that it was pruned.
        """
        moment = now or self._clock.now()
        entries = list(self.log())
        decided = plan(self._git, entries, policy, moment, self.branches(), self._rewritten())
        if not apply or not decided.dropped:
            return decided
        with self._alone():
            tip = self._tip(LIVE)
            if tip != entries[0].commit:
                raise self._raced(LIVE)
            clear(self._git)
            forget(self.path)  # the next bundle is whole: what goes must not live on in others
            commits = rewrite(self._git, decided)
            content = format_rewritten(self._rewritten(), commits, decided)
            noted = self._tip(REWRITTEN)
            message = message_of(f"Pruned {len(decided.dropped)} snapshots", {})
            when = self._clock.now().astimezone(UTC)
            with Import(self._git, SCRATCH_NOTE, noted, message, when) as stream:
                stream.put("rewritten", content)
                note, _ = stream.finish()
            switch(
                self._git, (tip, commits[decided.kept[0].entry.commit]), (REWRITTEN, noted, note)
            )
            self._git.text("repack", "-a", "-d", "-l", "-q")
            self._git.text("prune", "--expire=now")
            self._git.text(
                "commit-graph", "write", "--reachable", "--changed-paths", "--no-progress"
            )
        return PrunePlan(decided.decisions, applied=True, commits=commits)


# ----------------------------------------------------------------------------------- words


def _moment(text: str) -> datetime | None:
    """Read an ISO date (its end) or time; naive is UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    if re.fullmatch(r"[0-9W-]{7,10}", text):
        moment += timedelta(days=1, microseconds=-1)
    return moment


def _parts(text: str) -> list[str]:
    try:
        key = Key.parse(text)
    except ValueError:
        return [text]
    return [key.kind, *key.path]


def _ends(key: Key, parts: Sequence[str], same: Callable[[str], str]) -> bool:
    path = [same(part) for part in key.path]
    if parts and path[-len(parts) :] == list(parts):
        return True
    tail = list(parts[1:])
    return bool(tail) and same(key.kind) == parts[0] and path[-len(tail) :] == tail


def _safe(path: str) -> str:
    parts = path.split("/")
    bad = {"", ".", ".."}
    if any(p in bad or p.lower() == ".git" for p in parts) or re.search(r"[\0-\x1f\\:]", path):
        raise InputError(f"not a path inside the ledger: {path!r}")
    if len(path) > 180:
        raise InputError(f"a path in the ledger has at most 180 characters: {path!r}")
    return path


def _tracking(ref: str) -> str:
    return f"refs/remotes/{_REMOTE}/" + ref.removeprefix("refs/")


def _fetch_muster() -> str:
    return f"+refs/muster/*:refs/remotes/{_REMOTE}/muster/*"


def _shared(path: str, key: Key, other: Key | None = None) -> InputError:
    return InputError(f"two resources would share a path in the ledger: {other or path} and {key}")


def _unreadable(bundle: Path, err: str) -> DamagedStoreError:
    return DamagedStoreError(
        f"the bundle cannot be read: {scrub(err)}",
        where=str(bundle),
        remedy="take an older bundle, or clone the ledger's remote",
    )


def _pruned(name: str) -> NotFoundError:
    return NotFoundError(
        f"{name} was pruned", remedy="`muster asof` finds the snapshot that was kept before it"
    )
