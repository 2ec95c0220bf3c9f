"""What a person decided about a run that waits, written down on the evidence branch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from orjson import loads

from muster.wiring import Wiring
from snapshots.ledger import EVIDENCE
from snapshots.model import JsonObject, canonical, digest, pretty

SCHEMA = "muster/approval/1"
FOLDER = "approvals"


class Answer(StrEnum):
    """What came of asking."""

    APPROVED = "approved"
    REJECTED = "rejected"
    EXPIRED = "expired"  # nobody answered in time: as good as a no
    WITHDRAWN = "withdrawn"  # the run was ended before anybody answered


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """A decision about one run: who, when, why, and about exactly what."""

    answer: Answer
    who: str  # "" when nobody answered
    reason: str
    at: datetime  # aware, UTC
    asked_at: datetime
    verb: str  # restore or drill
    what: str  # the question, in a line
    subject: JsonObject  # what was decided about: the plan's or the script's digest, and the like
    run: str  # of the orchestrator
    became: str = ""  # the record or the evidence of what was done

    def document(self) -> JsonObject:
        """Give it as JSON."""
        return {
            "schema": SCHEMA,
            "kind": "approval",
            "answer": self.answer.value,
            "who": self.who,
            "reason": self.reason,
            "at": self.at.isoformat(),
            "asked_at": self.asked_at.isoformat(),
            "verb": self.verb,
            "what": self.what,
            "subject": self.subject,
            "run": self.run,
            "became": self.became,
        }

    @property
    def line(self) -> str:
        """Give it in a line, as evidence quotes it."""
        if self.answer is Answer.EXPIRED:
            return f"nobody answered in time: {self.what}"
        if self.answer is Answer.WITHDRAWN:
            return f"the run was ended before anybody answered: {self.what}"
        return f"{self.who} {self.answer.value} ({self.reason}): {self.what}"


def write_down(wiring: Wiring, decided: Decided) -> str:
    """Keep a decision on the evidence branch and give its path there.

    The name is the run's, so that what became of it replaces what was only decided.
    Raises StoreError.
    """
    name = f"{FOLDER}/{decided.asked_at:%Y/%m/%Y%m%dT%H%M%SZ}-{decided.run[:8]}.json"
    message = f"{decided.verb}: {decided.answer.value}"
    wiring.ledger().put(EVIDENCE, {name: pretty(decided.document())}, message, author=decided.who)
    return name


def became_of(wiring: Wiring, run: str) -> str:
    """Give the record or the evidence that a decision on a run led to, "" without one."""
    ledger = wiring.ledger()
    tip = ledger.tip(EVIDENCE)
    for path, data in ledger.files(tip, f"{FOLDER}/") if tip else ():
        if path.endswith(f"-{run[:8]}.json"):
            found = loads(data)
            if isinstance(found, dict) and found.get("run") == run:
                return str(found.get("became") or "")
    return ""


def digest_of(document: JsonObject) -> str:
    """Give the SHA-256 of what is decided about, in its canonical form."""
    return digest(canonical(document))
