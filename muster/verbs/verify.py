"""Prove that what was kept is whole, and write down that it was looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

from muster.verbs import Tell, untold
from muster.wiring import Wiring
from snapshots.errors import MusterError

if TYPE_CHECKING:
    from snapshots.model import JsonObject
    from snapshots.verify import Verification


def verify_stores(
    wiring: Wiring, *, sample: float = 1.0, seed: int = 0, tell: Tell = untold
) -> tuple[Verification, str]:
    """Verify ledger and vault; `sample` is a part from 0 to 1. Gives a warning, too, or ""."""
    from snapshots.verify import verify

    found = verify(
        wiring.ledger(),
        wiring.vault(),
        now=wiring.clock.now(),
        sample=sample,
        seed=seed,
        progress=lambda what, done, of: tell(f"{what}: {done} of {of}", done / of if of else None),
    )
    return found, _note(wiring, found) if found.snapshots else ""


def document(found: Verification) -> JsonObject:
    """Give a verification as JSON."""
    from muster.report import documents
    from muster.report.terminal import iso

    hurt = sorted({snapshot for damage in found.damages for snapshot in damage.snapshots})
    return {
        "schema": documents.schema("verify"),
        "verdict": "whole" if found.whole else "damaged",
        "at": iso(found.at),
        "sample": found.sample,
        "seed": found.seed,
        "snapshots": found.snapshots,
        "objects": found.objects,
        "reconstructed": found.reconstructed,
        "bundle": found.bundle,
        "resources": found.resources,
        "behind": found.behind,
        "hurt": list(hurt),
        "damages": [
            {
                "store": d.store,
                "path": d.path,
                "problem": d.problem,
                "detail": d.detail,
                "snapshots": list(d.snapshots),
                "keys": list(d.keys),
            }
            for d in found.damages
        ],
    }


def _note(wiring: Wiring, found: Verification) -> str:
    """Write down when it was verified, for `muster ready`. Gives a warning when it cannot be."""
    from muster.report.terminal import iso
    from snapshots.ledger import EVIDENCE
    from snapshots.model import pretty

    document: JsonObject = {
        "kind": "verify",
        "verdict": "whole" if found.whole else "damaged",
        "at": iso(found.at),
        "sample": found.sample,
        "damages": len(found.damages),
    }
    name = found.at.strftime("verifications/%Y/%m/%Y%m%dT%H%M%S%fZ.json")
    try:
        wiring.ledger().put(EVIDENCE, {name: pretty(document)}, "verify what was kept")
    except MusterError as error:
        return f"the verification is not on the evidence branch: {error.what}"
    return ""
