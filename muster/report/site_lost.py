"""What would not come back, and who signed for it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

from muster.report import audit_words as words
from muster.report import site_signoffs as signoffs
from muster.report.site_model import Level, LostRow, Part, Unrecoverable, see, worst
from muster.report.site_reading import BACK, Reading, comeback_of, everything_of
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Comeback
from snapshots.ledger import BASELINE
from snapshots.model import Recovery, Resource, Snapshot

NAMES = 200  # of one row of what does not come back


def unrecoverable_of(reading: Reading, state: Snapshot | None) -> Unrecoverable:
    """Set what does not come back against what owners signed for."""
    ledger = reading.ledger
    none: tuple[signoffs.SignOff, ...] | None = None
    signed = (
        reading.attempt("the sign-offs", lambda: signoffs.load(ledger), none)
        if ledger is not None
        else ()
    )
    if state is None:
        return Unrecoverable(
            Part(Level.UNKNOWN, "Not known: there is no snapshot", (), ("run `muster snapshot`",))
        )
    broken = signed is None
    grouped: dict[tuple[str, Comeback], list[Resource]] = {}
    for resource, _ in everything_of(state).values():
        comeback = comeback_of(resource)
        if comeback.recovery not in BACK:
            grouped.setdefault((resource.key.kind, comeback), []).append(resource)
    rows = [
        _lost(reading, kind, comeback, found, signed or ())
        for (kind, comeback), found in sorted(
            grouped.items(),
            key=lambda g: (g[0][1].recovery is not Recovery.LOST, g[0][0], g[0][1].sentence),
        )
    ]
    thread = BY_NAME.get("thread")
    counted = any(kind == "thread" for kind, _ in grouped)
    if thread is not None and not reading.promises.threads_read and not counted:
        rows.insert(0, _lost(reading, "thread", thread.comeback, None, signed or ()))
    rows.sort(key=lambda row: (-row.level.rank, row.recovery != Recovery.LOST))
    used = {s.what for s in signed or () if any(_about(s, row, grouped) for row in rows)}
    idle = tuple(
        see(f"{s.what}, signed by {s.owner}: nothing of that is in the newest snapshot")
        for s in signed or ()
        if s.what not in used
    )
    open_ = [row for row in rows if row.level is not Level.NOTE]
    for row in open_:
        reading.problem(
            row.level,
            f"{row.title} would not come back, and nobody signed for it ({row.state})",
            f"unrecoverable.html#{row.anchor}",
            f"`{row.command}`",
            6 if row.recovery == Recovery.LOST else 1,
        )
    count = sum(row.count or 0 for row in rows)
    source = next((s for s in reading.sources.values() if s.anchor.startswith("s-snapshot")), None)
    sources = [source] if source else []
    tip = reading.tip(BASELINE)
    if tip and signed:
        sources.append(
            reading.source(
                "signoffs",
                "sign-offs on the baseline",
                tip,
                max(s.at for s in signed),
                "git --git-dir=LEDGER ls-tree -r baseline signoffs/",
            )
        )
    if broken:
        part = Part(Level.UNKNOWN, "Not known: the sign-offs cannot be read", tuple(sources))
    elif not rows:
        part = Part(Level.GOOD, "Everything that was read comes back", tuple(sources))
    elif open_:
        part = Part(
            worst([row.level for row in open_]),
            f"{words.plural(count, 'resource')} would not come back; "
            f"{len(open_)} of {len(rows)} entries "
            "are not signed",
            tuple(sources),
        )
    else:
        part = Part(
            Level.NOTE,
            f"{words.plural(count, 'resource')} would not come back, all signed for by an owner",
            tuple(sources),
        )
    return Unrecoverable(part, tuple(rows), idle)


def _about(
    signed: signoffs.SignOff,
    row: LostRow,
    grouped: Mapping[tuple[str, Comeback], Sequence[Resource]],
) -> bool:
    recovery = Recovery(row.recovery)
    if signed.covers_kind(row.what, recovery):
        return True
    return any(
        signed.covers(r.key, recovery, r.id)
        for (kind, comeback), found in grouped.items()
        if kind == row.what and comeback.recovery is recovery
        for r in found
    )


def _lost(
    reading: Reading,
    kind: str,
    comeback: Comeback,
    found: Sequence[Resource] | None,
    signed: Sequence[signoffs.SignOff],
) -> LostRow:
    now = reading.now
    declared = BY_NAME.get(kind)
    recovery = comeback.recovery
    valid = [s for s in signed if s.valid(now)]
    whole = next((s for s in valid if s.covers_kind(kind, recovery)), None)
    expired = next((s for s in signed if not s.valid(now) and s.covers_kind(kind, recovery)), None)
    names, unsigned, single = [], [], whole
    for resource in sorted(found or (), key=lambda r: r.key):
        by = whole or next(
            (s for s in valid if s.covers(resource.key, recovery, resource.id)), None
        )
        single = single or by
        names.append(str(resource.key))
        if by is None:
            unsigned.append(str(resource.key))
            expired = expired or next(
                (
                    s
                    for s in signed
                    if not s.valid(now) and s.covers(resource.key, recovery, resource.id)
                ),
                None,
            )
    done = whole is not None or (found is not None and not unsigned)
    total = len(names)
    title = declared.title if declared else kind
    if done:
        level, state = Level.NOTE, "signed"
    else:
        level = Level.RISK  # nothing is broken: a decision is missing
        state = "sign-off expired" if expired is not None else "not signed"
        if found is not None and len(unsigned) < total:
            state = f"{len(unsigned)} of {total} not signed"
    shown = single if single is not None else expired
    slug = re.sub(r"[^a-z0-9]+", "-", f"{kind}-{recovery.value}-{comeback.sentence[:24]}".lower())
    usual = declared is None or recovery is declared.comeback.recovery
    named = kind if usual or not unsigned else unsigned[0]
    return LostRow(
        f"lost-{slug}".strip("-"),
        level,
        see(kind, 80),
        see(title, 120).capitalize(),
        recovery.value,
        None if found is None else total,
        comeback.sentence,
        comeback.source,
        state,
        total - len(unsigned),
        see(shown.owner, 160) if shown else "",
        shown.at if shown else None,
        shown.expires if shown else None,
        see(shown.reason) if shown else "",
        tuple(see(n, 300) for n in names[:NAMES]),
        tuple(see(n, 300) for n in unsigned[:NAMES]),
        max(0, total - NAMES),
        f"muster report sign-off {shlex.quote(see(named, 300))} --owner NAME --reason TEXT",
    )
