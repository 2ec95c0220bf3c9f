"""Read what is recorded of an estate, in ledger and vault, into a Site; nothing of Azure is asked.

What was never recorded is told as not known with the command that records it; what cannot be read
is named, and never counts as fine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from drills.verbs import Signer
from muster.report.site_drift import drift_of
from muster.report.site_drills import drills_of
from muster.report.site_estate import estate_of, states_of
from muster.report.site_evidence import evidence_of
from muster.report.site_lost import unrecoverable_of
from muster.report.site_model import Applied, Level, Site, see, span
from muster.report.site_readiness import readiness_of, ready_problems, with_clocks
from muster.report.site_reading import Promises, Reading
from muster.report.site_replication import replication_of
from snapshots.audit.archive import load_latest
from snapshots.ledger import Ledger
from snapshots.vault import Vault


def gather(
    ledger: Ledger | None,
    vault: Vault | None,
    *,
    name: str,
    now: datetime,
    version: str,
    promises: Promises | None = None,
    ledger_path: str = "",
    vault_location: str = "",
    scripts: Mapping[str, str] | None = None,
    records: Sequence[Applied] = (),
    troubles: Sequence[str] = (),
    signer: Signer | None = None,
) -> Site:
    """Read everything that is recorded. Raises nothing for what a store does: that is a trouble.

    `ledger` and `vault` are None where there is none or it cannot be opened; `troubles` says why.
    `scripts` are the drills that could be run (name -> title), `records` what was applied.
    `signer` verifies signatures; without one they are told as not verified.
    """
    promised = promises or Promises()
    reading = Reading(ledger, vault, now, promised, [see(t) for t in troubles])
    state, history = states_of(reading)
    drift_document = (
        reading.attempt("the newest audit", lambda: load_latest(ledger), None) if ledger else None
    )
    drift = drift_of(reading, drift_document)
    anchors = {f.key: f.anchor for f in drift.findings}
    estate = estate_of(reading, state, history, anchors)
    readiness = readiness_of(reading, history)
    replication, clocks = replication_of(reading)
    readiness = with_clocks(reading, readiness, clocks)
    drills, copies, evidences = drills_of(reading, scripts or {}, signer)
    unrecoverable = unrecoverable_of(reading, state)
    evidence = evidence_of(reading, evidences, drills, drift, records)
    ready_problems(reading, readiness.pairs)
    for trouble in reading.troubles:
        reading.problem(Level.UNKNOWN, f"could not be read: {trouble}", "evidence.html", weight=9)
    problems = sorted(reading.problems, key=lambda p: (-p.level.rank, -p.weight, p.text))
    return Site(
        see(name, 120),
        now,
        see(version, 40),
        see(ledger_path, 400),
        see(vault_location, 400),
        (
            (
                "RTO",
                span(promised.rto.total_seconds()) if promised.rto else "no number is promised",
            ),
            (
                "RPO",
                span(promised.rpo.total_seconds()) if promised.rpo else "no number is promised",
            ),
        ),
        estate,
        readiness,
        drift,
        replication,
        drills,
        unrecoverable,
        evidence,
        tuple(problems),
        tuple(reading.troubles),
        copies,
    )
