"""Sign-offs: who answers for state that would not come back; YAML under signoffs/ on the baseline.

They lie beside what is approved, so that a pull request can make or review them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from snapshots.audit.documents import Node, read
from snapshots.audit.planned import Target
from snapshots.errors import InputError
from snapshots.ledger import BASELINE, Ledger
from snapshots.model import Key, Recovery, digest

FOLDER: Final = "signoffs/"
CLASSES: Final = (Recovery.LOST, Recovery.RECORDED)
_FIELDS: Final = ("what", "owner", "at", "reason", "expires", "ticket")
_NEEDED: Final = ("what", "owner", "at", "reason")


@dataclass(frozen=True, slots=True)
class SignOff:
    """An owner's word that some state may be lost."""

    what: str  # lost, recorded, a kind, a key, the end of one, or a glob of keys
    owner: str
    at: datetime
    reason: str
    where: str = ""  # file and line
    expires: datetime | None = None
    ticket: str = ""

    def valid(self, now: datetime) -> bool:
        """Whether it holds at a moment."""
        return self.expires is None or self.expires > now

    def covers(self, key: Key, recovery: Recovery, resource_id: str = "") -> bool:
        """Whether it is about a resource."""
        return self.covers_kind(key.kind, recovery) or (
            self.what not in CLASSES
            and "/" in self.what
            and Target((self.what,)).holds(key, resource_id)
        )

    def covers_kind(self, kind: str, recovery: Recovery) -> bool:
        """Whether it is about everything of a kind, also what comes later."""
        return self.what in (kind, recovery.value)


def load(ledger: Ledger) -> tuple[SignOff, ...]:
    """Read every signoffs/*.yaml of the baseline. Raises InputError with file, line and remedy."""
    if not ledger.tip(BASELINE):
        return ()
    return parse(ledger.files(BASELINE, FOLDER))


def parse(documents: Iterable[tuple[str, bytes]]) -> tuple[SignOff, ...]:
    """Read sign-offs, newest first. Raises InputError with file, line and remedy."""
    found: list[SignOff] = []
    for file, data in documents:
        root = read(file, data) if file.endswith((".yaml", ".yml")) else None
        found += [_one(item) for item in root.items()] if root is not None else []
    return tuple(sorted(found, key=lambda s: (s.at, s.what, s.owner), reverse=True))


def _one(node: Node) -> SignOff:
    found = node.fields(_FIELDS, _NEEDED)
    return SignOff(
        found["what"].text(),
        found["owner"].text(),
        found["at"].moment(),
        found["reason"].text(),
        node.where,
        found["expires"].moment(end=True) if "expires" in found else None,
        found["ticket"].text() if "ticket" in found else "",
    )


def checked(what: str, kinds: Iterable[str]) -> str:
    """Give what a sign-off may name. Raises InputError for a word that is neither class nor kind.

    A class or a kind is one word; a key, the end of one or a glob of keys holds a slash.
    """
    text = what.strip()
    known = [recovery.value for recovery in CLASSES] + sorted(kinds)
    if text in known or ("/" in text and not re.search(r"[\x00-\x1f]", text)):
        return text
    raise InputError(
        f"{what!r} is neither a class, a kind nor a key",
        where="WHAT",
        remedy="write lost, recorded, a kind (such as thread) or a key; `muster coverage` has them",
    )


def write(ledger: Ledger, signed: SignOff) -> str:
    """Keep a sign-off on the baseline branch, in place of an older one of the same.

    Gives the commit.

    Raises InputError when nothing is approved yet, ConcurrentError when somebody wrote first.
    """
    tip = ledger.tip(BASELINE)
    if not tip:
        raise InputError(
            "there is no baseline yet, and sign-offs lie on its branch",
            where=str(ledger.path),
            remedy="approve one first: `muster approve --all --reason TEXT`",
        )
    text = written(signed)
    trailers = {"Signed-Off-For": signed.what, "Signed-By": signed.owner, "Reason": signed.reason}
    if signed.ticket:
        trailers["Ticket"] = signed.ticket
    return ledger.put(
        BASELINE,
        {file_of(signed.what): text},
        f"Sign off {signed.what}: it may be lost\n\n{signed.reason}",
        trailers,
        expected_parent=tip,
        author=signed.owner,
    )


def written(signed: SignOff) -> bytes:
    """Give a sign-off as its file holds it. Raises InputError for texts that cannot be seen."""
    import yaml

    entry: dict[str, str] = {
        "what": signed.what,
        "owner": signed.owner,
        "at": _iso(signed.at),
        "reason": signed.reason,
    }
    if signed.expires is not None:
        entry["expires"] = _iso(signed.expires)
    if signed.ticket:
        entry["ticket"] = signed.ticket
    for name, text in entry.items():
        if not text.isprintable() or not text.strip():
            raise InputError(
                f"the {name} is empty, or holds characters that cannot be seen",
                where=name,
                remedy="write it in plain words",
            )
    return yaml.safe_dump(entry, sort_keys=False, allow_unicode=True, width=90).encode()


def file_of(what: str) -> str:
    """Give the file of a sign-off: readable, and different for what differs."""
    words = re.sub(r"[^a-z0-9]+", "-", what.lower()).strip("-")[-60:].strip("-") or "all"
    return f"{FOLDER}{words}-{digest(what.encode())[:8]}.yaml"


def _iso(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")
