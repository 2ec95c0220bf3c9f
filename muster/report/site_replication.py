"""Whether the standbys are in step: from the registry of replicas."""

from __future__ import annotations

from muster.report.site_model import (
    Clock,
    Level,
    Part,
    ReplicaRow,
    ReplicationPair,
    ReplicationView,
    Source,
    before,
    see,
    span,
    when,
    worst,
)
from muster.report.site_readiness import clock_of
from muster.report.site_reading import Reading, json_files
from snapshots.ledger.entries import Entry
from snapshots.replication import BRANCH as REPLICATION
from snapshots.replication import Replica, ReplicaState, Replication, path_of


def replication_of(reading: Reading) -> tuple[ReplicationView, list[Clock]]:
    """Tell the registry of replicas; gives also the clocks of idle deployments."""
    remedy = "run `muster replicate --apply`"
    known: dict[tuple[str, str], Replication] = {}
    damaged: set[str] = set()
    for path, document in json_files(reading, REPLICATION, "replication/"):
        try:
            found = Replication.from_document(document)
        except ValueError as wrong:
            reading.troubles.append(see(f"{REPLICATION}:{path} cannot be read: {wrong}"))
            damaged.add(path)
            continue
        known[found.primary, found.standby] = found
    pairs = [*reading.promises.pairs]
    pairs += [pair for pair in sorted(known) if pair not in pairs]
    clocks: list[Clock] = []
    views: list[ReplicationPair] = []
    for primary, standby in pairs:
        pair = known.get((primary, standby))
        name = f"{primary} → {standby}"
        if path_of(primary, standby) in damaged:
            views.append(
                ReplicationPair(name, Level.UNKNOWN, "what is known of it is damaged", None)
            )
            continue
        if pair is None or (pair.last is None and not pair.replicas):
            reading.problem(
                Level.BAD,
                f"The standby of {name} was never brought in step",
                "replication.html",
                remedy,
                4,
            )
            views.append(ReplicationPair(name, Level.BAD, "never brought in step", None))
            continue
        views.append(_pair(reading, name, pair, clocks))
    sources: list[Source] = []
    tip = reading.tip(REPLICATION)
    if tip and reading.ledger is not None:
        entry = reading.attempt("the registry of replicas", lambda: _entry(reading, tip), None)
        sources.append(
            reading.source(
                "replication",
                "registry of replicas",
                tip,
                entry.when if entry else None,
                "git --git-dir=LEDGER show replication",
            )
        )
    if not pairs:
        reading.problem(
            Level.UNKNOWN,
            "No standby region is named, so nothing is kept in step",
            "replication.html",
            "add [[estate.pair]] to muster.toml",
            3,
        )
        part = Part(
            Level.UNKNOWN,
            "Not known: no pair of regions is configured",
            (),
            ("add [[estate.pair]] with primary and standby to muster.toml",),
        )
        return ReplicationView(part), clocks
    level = worst([view.level for view in views])
    headline = "; ".join(f"{view.name}: {view.headline}" for view in views[:3])
    missing = (remedy,) if any(view.last is None for view in views) else ()
    return ReplicationView(Part(level, headline, tuple(sources), missing), tuple(views)), clocks


def _entry(reading: Reading, commit: str) -> Entry | None:
    return reading.ledger.entry(commit) if reading.ledger is not None else None


def _pair(reading: Reading, name: str, pair: Replication, clocks: list[Clock]) -> ReplicationPair:
    rows: list[ReplicaRow] = []
    for replica in pair.replicas:
        deadline = replica.deadline
        level = {
            ReplicaState.PROVED: Level.GOOD,
            ReplicaState.UNPROVED: Level.RISK,
            ReplicaState.WRONG: Level.BAD,
            ReplicaState.MISSING: Level.BAD,
        }[replica.state]
        left = ""
        if deadline is not None and replica.state is not ReplicaState.MISSING:
            clock = clock_of(
                reading,
                "idle deployment",
                f"{replica.target.name} in {pair.standby}: Azure deletes it when it is not called",
                deadline,
                "run `muster replicate --apply`: it keeps replicas alive",
                "registry of replicas",
            )
            clocks.append(clock)
            left = clock.left
            level = worst([level, clock.level if clock.level is not Level.NOTE else Level.GOOD])
        if level is not Level.GOOD:
            reading.problem(
                level,
                f"Replica of {replica.model} is {replica.state.value}"
                + (f": {replica.detail}" if replica.detail else ""),
                "replication.html",
                "run `muster replicate --apply`",
                2,
            )
        rows.append(_replica(replica, level, left))
    last = pair.last
    if last is None:
        level, headline = Level.UNKNOWN, "no run is recorded"
    elif last.complete:
        level, headline = Level.GOOD, f"in step {before(last.at, reading.now)}"
    else:
        level, headline = Level.RISK, f"something was left to do {before(last.at, reading.now)}"
        reading.problem(
            Level.RISK,
            f"The last replication of {name} did not come to an end",
            "replication.html",
            "run `muster replicate --apply`",
            2,
        )
    rpo = reading.promises.rpo
    if last is not None and rpo is not None and reading.now - last.at > rpo:
        headline += f", longer ago than the promised RPO of {span(rpo.total_seconds())}"
        level = worst([level, Level.RISK])
        reading.problem(
            Level.RISK,
            f"{name} was brought in step {before(last.at, reading.now)}; "
            f"{span(rpo.total_seconds())} is promised as RPO",
            "replication.html",
            "run `muster replicate --apply`",
            1,
        )
    facts = (
        (
            ("Last run", f"{when(last.at)}, {before(last.at, reading.now)}"),
            ("Came to", "nothing was left to do" if last.complete else "something was left to do"),
            ("Steps", f"{last.steps:,}, in {span(last.seconds)}"),
            ("Record", see(last.record) or "none: nothing had to be done"),
            ("Snapshot", see(last.snapshot) or "not known"),
        )
        if last is not None
        else ()
    )
    return ReplicationPair(
        name,
        worst([level, *(row.level for row in rows)]),
        headline,
        last.at if last else None,
        facts,
        tuple(rows),
    )


def _replica(replica: Replica, level: Level, left: str) -> ReplicaRow:
    proof = "never proved"
    if replica.proof is not None:
        found = replica.proof
        proof = f"{found.same} of {found.prompts} answers the same, {when(found.at)}"
        if found.base:
            proof += f"; {found.unlike_base} unlike the base model"
    return ReplicaRow(
        level,
        see(replica.model, 200),
        see(replica.source.name, 120),
        see(replica.target.name, 120),
        replica.way.value,
        replica.state.value,
        see(proof),
        span(replica.lag.total_seconds()),
        replica.deadline,
        left or ("kept cold: nothing to delete" if not replica.deployed else ""),
        see(replica.detail),
    )
