"""Thin the history of `live`: decide what stays, then rewrite the commits without what goes."""

from __future__ import annotations

import re
import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

from snapshots.errors import ConcurrentError, RefusedError
from snapshots.ledger.entries import LIVE, Decision, Entry, PrunePlan, Retention
from snapshots.ledger.paths import REFERENCE, RESOURCES
from snapshots.ledger.plumbing import Git

SCRATCH = "refs/muster/scratch/live"
SCRATCH_NOTE = "refs/muster/scratch/note"

_NAMES = re.compile(rb"[0-9]{8}T[0-9]{9}Z-[0-9a-f]{8}|(?<![0-9a-f])[0-9a-f]{7,40}(?![0-9a-f])")


def plan(
    git: Git,
    entries: Sequence[Entry],
    policy: Retention,
    now: datetime,
    branches: Sequence[str],
    rewritten: Mapping[str, tuple[str, str]],
) -> PrunePlan:
    """Decide about each of `entries` (newest first) and say why."""
    reasons: dict[str, list[str]] = {entry.commit: [] for entry in entries}
    if entries:
        reasons[entries[0].commit].append("the newest")
    periods = (
        ("hour", policy.hourly, "%Y-%m-%dT%H"),
        ("day", policy.daily, "%Y-%m-%d"),
        ("week", policy.weekly, "%G-W%V"),
        ("month", policy.monthly, "%Y-%m"),
    )
    for name, count, pattern in periods:
        seen: set[str] = set()
        for entry in entries:
            period = entry.when.astimezone(UTC).strftime(pattern)
            if period not in seen and len(seen) < count:
                seen.add(period)
                reasons[entry.commit].append(f"the newest of {name} {period}")
    for entry in entries:
        if entry.when > now:
            reasons[entry.commit].append("it is from the future: some clock is wrong")
        if not entry.snapshot:
            reasons[entry.commit].append("it is no snapshot")
    for commit, why in _referred(git, entries, branches, rewritten):
        reasons[commit].append(why)
    return PrunePlan(
        tuple(
            Decision(entry, keep=True, reasons=tuple(reasons[entry.commit]))
            if reasons[entry.commit]
            else Decision(entry, keep=False, reasons=("no period needs it",))
            for entry in entries
        )
    )


def _referred(
    git: Git,
    entries: Sequence[Entry],
    branches: Sequence[str],
    rewritten: Mapping[str, tuple[str, str]],
) -> Iterator[tuple[str, str]]:
    """Give (commit, why) for what other branches descend from or name."""
    ours = {entry.commit for entry in entries}
    ids = {entry.snapshot: entry.commit for entry in entries if entry.snapshot}
    old = {name: new for name, (new, _) in rewritten.items() if new in ours}
    known = {**{commit: commit for commit in ours}, **old}
    ordered = sorted(known)
    for branch in branches:
        if branch == LIVE:
            continue
        ref = f"refs/heads/{branch}"
        for commit in git.text("rev-list", ref).split():
            if commit in ours:
                yield commit, f"{branch} descends from it"
        found: set[str] = set()
        for text in _texts(git, ref):
            for match in _NAMES.finditer(text):
                name = match.group().decode()
                if name in ids:
                    found.add(ids[name])
                    continue
                at = bisect_left(ordered, name)
                if at < len(ordered) and ordered[at].startswith(name):
                    found.add(known[ordered[at]])
        for commit in sorted(found):
            yield commit, f"{branch} refers to it"


def _texts(git: Git, ref: str) -> Iterator[bytes]:
    """Give every message of a branch, and every file it ever had but the state itself."""
    yield git.data("log", "--format=%B", ref)
    blobs: dict[str, None] = {}
    for line in git.text("rev-list", "--objects", "--in-commit-order", ref).splitlines():
        name, _, path = line.partition(" ")
        if path and not path.startswith((RESOURCES, REFERENCE)):
            blobs[name] = None
    for _, kind, content in git.objects(blobs):
        if kind == "blob":
            yield content


def rewrite(git: Git, plan_: PrunePlan) -> dict[str, str]:
    """Write the kept commits anew, upon each other; give old commit -> new commit.

    Tree, message, people and dates stay. Commits before the first one that goes keep their ids.
    """
    oldest_first = list(reversed(plan_.decisions))
    first = next(index for index, decision in enumerate(oldest_first) if not decision.keep)
    commits = {decision.entry.commit: decision.entry.commit for decision in oldest_first[:first]}
    parent = oldest_first[first - 1].entry.commit if first else ""
    wanted = [decision.entry.commit for decision in oldest_first[first:] if decision.keep]
    parts: list[bytes] = [b"feature done\n", b"reset %b\n\n" % SCRATCH.encode()]
    for number, (_, kind, raw) in enumerate(git.objects(wanted), start=1):
        head, _, message = raw.partition(b"\n\n")
        fields = dict(line.split(b" ", 1) for line in head.split(b"\n") if b" " in line)
        if kind != "commit" or b"gpgsig" in fields:
            raise RefusedError(
                f"{wanted[number - 1][:12]} is signed: thinning would break its signature",
                where=str(git.path),
                remedy="keep it: have a file on evidence name it, and everything before it",
            )
        parts += [
            b"commit %b\nmark :%d\n" % (SCRATCH.encode(), number),
            b"author %b\ncommitter %b\n" % (fields[b"author"], fields[b"committer"]),
            b"data %d\n%b\n" % (len(message), message),
        ]
        if number > 1:
            parts.append(b"from :%d\n" % (number - 1))
        elif parent:
            parts.append(b"from %b\n" % parent.encode())
        parts.append(b'M 040000 %b ""\n\n' % fields[b"tree"])
    parts += [b"get-mark :%d\n" % number for number in range(1, len(wanted) + 1)]
    parts.append(b"done\n")
    with tempfile.TemporaryFile() as errors:
        process = git.start("fast-import", "--quiet", "--force", stderr=errors)
        with process:
            out, _ = process.communicate(b"".join(parts))
        if process.returncode:
            errors.seek(0)
            raise git.damaged("fast-import", errors.read().decode("utf-8", "replace"))
    return commits | dict(zip(wanted, out.decode().split(), strict=True))


def clear(git: Git) -> None:
    """Forget what a killed prune left half-way."""
    for ref in (SCRATCH, SCRATCH_NOTE):
        git.run("update-ref", "-d", ref)


def switch(git: Git, live: tuple[str, str], note: tuple[str, str, str]) -> None:
    """Move `live` (from, to) and the note (ref, from, to) at once, or neither.

    Raises ConcurrentError when somebody wrote to one of them meanwhile.
    """
    ref, before, after = note
    lines = (
        f"start\nupdate refs/heads/{LIVE} {live[1]} {live[0]}\n"
        f"update {ref} {after} {before or '0' * 40}\n"
        f"delete {SCRATCH}\ndelete {SCRATCH_NOTE}\nprepare\ncommit\n"
    )
    ran = git.run("update-ref", "--stdin", give=lines.encode())
    if ran.code:
        raise ConcurrentError(
            "somebody wrote to live while it was being thinned: nothing was dropped",
            where=str(git.path),
            remedy="run `muster prune` again",
        )


def parse_rewritten(content: bytes) -> dict[str, tuple[str, str]]:
    """Read the list of what became of commits: old commit -> (new commit or "", snapshot id)."""
    found: dict[str, tuple[str, str]] = {}
    for line in content.decode().splitlines():
        old, new, snapshot = line.split(" ")
        found[old] = ("" if new == "-" else new, "" if snapshot == "-" else snapshot)
    return found


def format_rewritten(
    before: Mapping[str, tuple[str, str]], commits: Mapping[str, str], plan_: PrunePlan
) -> bytes:
    """Write that list, with what `commits` (old -> new) and the plan add to it."""
    gone = {decision.entry.commit for decision in plan_.dropped}
    found = {
        old: ("" if new in gone else commits.get(new, new), snapshot)
        for old, (new, snapshot) in before.items()
    }
    for decision in plan_.decisions:
        old = decision.entry.commit
        new = "" if old in gone else commits[old]
        if new != old:
            found[old] = (new, decision.entry.snapshot)
    lines = [f"{old} {new or '-'} {name or '-'}\n" for old, (new, name) in sorted(found.items())]
    return "".join(lines).encode()
