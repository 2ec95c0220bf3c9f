"""Git: keep snapshots, the baseline and the evidence, and read history back."""

from snapshots.ledger.entries import (
    BASELINE,
    EVIDENCE,
    LIVE,
    Damage,
    Decision,
    Entry,
    Kept,
    PrunePlan,
    Pushed,
    Retention,
)
from snapshots.ledger.ledger import Ledger
from snapshots.ledger.paths import GAPS, REFERENCE, RESOURCES, path_of, reference_path

__all__ = [
    "BASELINE",
    "EVIDENCE",
    "GAPS",
    "LIVE",
    "REFERENCE",
    "RESOURCES",
    "Damage",
    "Decision",
    "Entry",
    "Kept",
    "Ledger",
    "PrunePlan",
    "Pushed",
    "Retention",
    "path_of",
    "reference_path",
]
