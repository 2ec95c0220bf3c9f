"""The checks library: what proves that a recovered estate answers as before, as an ordered list."""

from __future__ import annotations

import difflib

from drills.checks.agent_smoke import AgentSmokeCheck
from drills.checks.asked import AskedCheck, prove
from drills.checks.content_filter import ContentFilterCheck
from drills.checks.embeddings import EmbeddingsCheck
from drills.checks.fine_tuned import FineTunedCheck
from drills.checks.golden import GoldenCheck
from drills.checks.kept_alive import KeptAliveCheck
from drills.checks.latency import LatencyCheck
from drills.checks.permissions import PermissionsCheck
from drills.checks.quota import QuotaCheck
from drills.checks.reachability import ReachabilityCheck
from drills.checks.state import StateCheck
from drills.checks.switch_position import SwitchPositionCheck
from drills.checks.vector_index import VectorIndexCheck
from drills.model import Check, CheckDeclaration
from snapshots.errors import InputError

# Cheapest and most telling first: what is not reachable need not be asked.
CHECKS: tuple[type[AskedCheck], ...] = (
    StateCheck,
    ReachabilityCheck,
    PermissionsCheck,
    QuotaCheck,
    SwitchPositionCheck,
    LatencyCheck,
    ContentFilterCheck,
    EmbeddingsCheck,
    VectorIndexCheck,
    GoldenCheck,
    FineTunedCheck,
    KeptAliveCheck,
    AgentSmokeCheck,
)
NAMES: tuple[str, ...] = tuple(check.KNOWN_AS for check in CHECKS)

__all__ = ["CHECKS", "NAMES", "make", "prove"]


def make(declaration: CheckDeclaration) -> Check:
    """Give the check that a script asks for. Raises InputError for unknown names and settings."""
    for check in CHECKS:
        if declaration.check == check.KNOWN_AS:
            return check(declaration)
    near = difflib.get_close_matches(declaration.check, NAMES, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise InputError(
        f"there is no check {declaration.check!r}",
        where=f"line {declaration.line}" if declaration.line else "",
        remedy=f"{meant}known are: {', '.join(NAMES)}",
    )
