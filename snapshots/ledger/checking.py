"""Look at every byte of the ledger and say which snapshots a fault hurts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import orjson

from snapshots.errors import DamagedStoreError
from snapshots.ledger.documents import gaps_in, resource_in, stale_in
from snapshots.ledger.entries import Damage, trailers_of
from snapshots.ledger.paths import GAPS, REFERENCE, RESOURCES
from snapshots.ledger.plumbing import Git, scrub

_OBJECT = re.compile(r"\b[0-9a-f]{40}\b")
_PLACE = re.compile(r"objects/([0-9a-f]{2})/([0-9a-f]{38})\b")
_QUIET = ("dangling ", "notice: ", "Checking ", "unreachable ", "broken link", "              to")
_TREE = b"40000"


@dataclass(slots=True)
class _Reader:
    """Reads objects and holds each to its name; what is not right goes into `bad`."""

    git: Git
    bad: dict[str, str] = field(default_factory=dict)

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, str, bytes]]:
        """Give (name, type, content) of the healthy ones."""
        waiting = list(dict.fromkeys(names))
        while waiting:
            done = 0
            try:
                for name, (found, kind, content) in zip(
                    waiting, self.git.objects(waiting), strict=True
                ):
                    done += 1
                    if kind == "missing":
                        self.bad.setdefault(name, "is missing")
                    elif _named(kind, content) != found:
                        self.bad.setdefault(name, "does not match its name: its bytes were changed")
                    else:
                        yield name, kind, content
            except DamagedStoreError:
                # Git stops at what it cannot unpack: that one is hurt, the others come after it.
                if done < len(waiting):
                    self.bad.setdefault(waiting[done], "cannot be unpacked")
                done += 1
            waiting = waiting[done:]


def _named(kind: str, content: bytes) -> str:
    header = b"%b %d\0" % (kind.encode(), len(content))
    return hashlib.sha1(header + content).hexdigest()  # noqa: S324 - Git's own


@dataclass(slots=True)
class _Survey:
    """Which commits there are, and what each of them reaches."""

    commits: dict[str, tuple[str, str]]  # commit -> (tree, snapshot id)
    trees: dict[str, list[tuple[str, str, bool]]]  # tree -> (name, id, is a tree)


def check(git: Git) -> list[Damage]:
    """Give one Damage for each thing wrong."""
    reader = _Reader(git)
    said = git.run("fsck", "--full", "--strict", "--no-dangling", "--no-progress")
    complaints = _complaints(said.out.decode("utf-8", "replace") + "\n" + said.err)
    if said.code and not complaints:
        complaints = [f"git fsck stopped with exit status {said.code}"]
    survey, faults = _survey(git, reader)
    faults += list(_documents(reader, survey))
    about: dict[str, list[str]] = {}
    general: list[str] = []
    for complaint in complaints:
        # "<what it is>: hash-path mismatch, found at: objects/ab/cdef…": the place is what is hurt.
        if place := _PLACE.search(complaint):
            about.setdefault(place[1] + place[2], []).append(complaint)
            continue
        names = [name for name in _OBJECT.findall(complaint) if name not in survey.commits]
        names += [name for name in _OBJECT.findall(complaint) if name in survey.commits]
        if names:
            about.setdefault(names[0], []).append(complaint)
        else:
            general.append(complaint)
    for name, reason in reader.bad.items():
        about.setdefault(name, []).insert(0, f"object {name} {reason}")
    found = [
        _damage(survey, texts[0], name, _reach(survey, {name})) for name, texts in about.items()
    ]
    found += [Damage(text) for text in dict.fromkeys(general)]
    for text, name, path in faults:
        hurt = _holding(survey, name, path) if path else _reach(survey, {name})
        found.append(_damage(survey, text, name, hurt, path))
    return found


def _complaints(text: str) -> list[str]:
    lines = [line.strip() for line in scrub(text).splitlines() if line.strip()]
    return list(dict.fromkeys(line for line in lines if not line.startswith(_QUIET)))


def _damage(
    survey: _Survey, text: str, name: str, hurt: Mapping[str, str], path: str = ""
) -> Damage:
    commits = tuple(hurt)
    paths = sorted(set(hurt.values()) - {""})
    ids = tuple(survey.commits[c][1] for c in commits if survey.commits[c][1])
    return Damage(text, name, path or (paths[0] if paths else ""), commits, ids)


def _survey(git: Git, reader: _Reader) -> tuple[_Survey, list[tuple[str, str, str]]]:
    """Walk from every branch through commits and trees, each once."""
    survey = _Survey({}, {})
    faults: list[tuple[str, str, str]] = []
    listed = git.run("for-each-ref", "--format=%(objectname)", "refs/heads/", "refs/muster/")
    ahead = list(dict.fromkeys(listed.out.decode().split()))
    while ahead:
        parents: list[str] = []
        for name in ahead:
            survey.commits.setdefault(name, ("", ""))
        for name, kind, content in reader.read(ahead):
            if kind != "commit":
                faults.append((f"{name} should be a commit and is a {kind}", name, ""))
                continue
            head, _, message = content.decode("utf-8", "replace").partition("\n\n")
            lines = [line.split(" ", 1) for line in head.splitlines() if " " in line]
            tree = next((value for word, value in lines if word == "tree"), "")
            survey.commits[name] = (tree, trailers_of(message).get("Snapshot-Id", ""))
            parents += [value for word, value in lines if word == "parent"]
        ahead = [name for name in dict.fromkeys(parents) if name not in survey.commits]
    ahead = list(dict.fromkeys(tree for tree, _ in survey.commits.values() if tree))
    while ahead:
        below: list[str] = []
        for name in ahead:
            survey.trees.setdefault(name, [])
        for name, kind, content in reader.read(ahead):
            if kind != "tree":
                faults.append((f"{name} should be a tree and is a {kind}", name, ""))
                continue
            survey.trees[name] = list(_members(content))
            below += [inner for _, inner, is_tree in survey.trees[name] if is_tree]
        ahead = [name for name in dict.fromkeys(below) if name not in survey.trees]
    return survey, faults


def _members(content: bytes) -> Iterator[tuple[str, str, bool]]:
    at = 0
    while at < len(content):
        space = content.index(b" ", at)
        end = content.index(b"\0", space)
        name = content[space + 1 : end].decode("utf-8", "surrogateescape")
        yield name, content[end + 1 : end + 21].hex(), content[at:space] == _TREE
        at = end + 21


def _documents(reader: _Reader, survey: _Survey) -> Iterator[tuple[str, str, str]]:
    """Give (what, blob, path) for each document that cannot be read back."""
    places: dict[str, set[str]] = {}
    seen: set[tuple[str, str]] = set()
    ahead = [(tree, "") for tree, _ in survey.commits.values() if tree]
    while ahead:
        tree, prefix = ahead.pop()
        if (tree, prefix) in seen:
            continue
        seen.add((tree, prefix))
        for name, inner, is_tree in survey.trees.get(tree, ()):
            if is_tree:
                ahead.append((inner, f"{prefix}{name}/"))
            else:
                places.setdefault(inner, set()).add(prefix + name)
    for name, kind, content in reader.read(places):
        for path in sorted(places[name]):
            try:
                if kind != "blob":
                    raise ValueError(f"it is a {kind}")  # noqa: TRY301 - one place says what is hurt
                if path.startswith(RESOURCES):
                    resource_in(path, content)
                elif path == GAPS:
                    gaps_in(content)
                    stale_in(content)
                elif path.startswith(REFERENCE):
                    orjson.loads(content)
            except (ValueError, KeyError, TypeError, AttributeError) as wrong:
                yield f"{path} cannot be read: {wrong}", name, path


def _reach(survey: _Survey, bad: set[str]) -> dict[str, str]:
    """Give the commits that reach one of `bad`, each with the path where it does."""
    known: dict[str, str | None] = {}

    def inside(tree: str) -> str | None:
        if tree in known:
            return known[tree]
        known[tree] = None
        for name, inner, is_tree in survey.trees.get(tree, ()):
            if inner in bad:
                known[tree] = name
                break
            if is_tree and (below := inside(inner)) is not None:
                known[tree] = f"{name}/{below}"
                break
        return known[tree]

    hurt: dict[str, str] = {}
    for commit, (tree, _) in survey.commits.items():
        if commit in bad or tree in bad:
            hurt[commit] = ""
        elif tree and (path := inside(tree)) is not None:
            hurt[commit] = path
    return hurt


def _holding(survey: _Survey, blob: str, path: str) -> dict[str, str]:
    """Give the commits that keep this blob at this path: elsewhere it may be in its place."""
    steps = path.split("/")
    hurt: dict[str, str] = {}
    for commit, (tree, _) in survey.commits.items():
        at = tree
        for step in steps:
            at = next((i for name, i, _ in survey.trees.get(at, ()) if name == step), "")
        if at == blob:
            hurt[commit] = path
    return hurt
