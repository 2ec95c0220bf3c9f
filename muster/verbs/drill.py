"""Read a drill's script, and tell machines what came of running it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from muster.invocation import Exit
from snapshots.errors import InputError

if TYPE_CHECKING:
    from drills.model import Drill
    from drills.run import Ran
    from snapshots.model import Json, JsonObject

SCHEMA = "muster/drill/1"
_TOLD = (
    "id",
    "drill",
    "mode",
    "seed",
    "snapshot",
    "target",
    "verdict",
    "reasons",
    "findings",
    "objective",
    "rto_seconds",
    "rpo_seconds",
    "rpo_by_class",
    "phases",
    "critical_path",
    "estimate",
    "calls",
    "cost_estimate",
    "cost_ceiling",
    "approvals",
    "gate",
    "steps",
    "checks",
    "cleanup",
)


def read_drill(file: Path, given: Mapping[str, Json] | None = None) -> Drill:
    """Read a script, and check that every check of it can be made. Raises InputError.

    `given` are values of its parameters.
    """
    from drills import own
    from drills.checks import make
    from drills.script import read

    return read(file, lambda d: own.make(d, None) if d.check in own.NAMES else make(d), given)


def given_of(words: Sequence[str]) -> dict[str, Json]:
    """Read NAME=VALUE as the line has it. Raises InputError."""
    found: dict[str, Json] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.strip():
            raise InputError(
                f"--set {word!r} sets nothing", remedy="write --set NAME=VALUE, e.g. what=agent/*"
            )
        found[name.strip()] = value
    return found


def exit_code(ran: Ran) -> int:
    """Give the exit code: 2 unless what the run could prove is proved."""
    from drills.model import Mode, Verdict

    result = ran.result
    if result.verdict is Verdict.INTERRUPTED:
        return Exit.INTERRUPTED
    fine = result.verdict is Verdict.PASSED
    if result.mode is Mode.DRY_RUN:
        fine = result.verdict is not Verdict.FAILED
    return Exit.CLEAN if fine else Exit.FINDINGS


def document_of(ran: Ran) -> JsonObject:
    """Give a run as JSON."""
    found = ran.evidence.document
    return {
        "schema": SCHEMA,
        **{name: found.get(name) for name in _TOLD},
        "evidence": {
            "id": ran.evidence.id,
            "hash": ran.evidence.hash,
            "previous": found.get("previous"),
            "signed": bool(ran.evidence.signature),
        },
    }
