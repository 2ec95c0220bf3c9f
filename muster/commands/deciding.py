"""What the commands that decide share: which findings are meant, who decides, and until when."""

from __future__ import annotations

import getpass
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING

from muster.settings import duration
from snapshots.audit.texts import sound
from snapshots.errors import DamagedStoreError, InputError, NotFoundError

if TYPE_CHECKING:
    from snapshots.audit.report_model import Finding
    from snapshots.ledger import Ledger
    from snapshots.model import JsonObject

_ID = re.compile(r"[0-9a-f]{4,12}")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")


def latest(ledger: Ledger) -> JsonObject:
    """Give the newest audit's report. Raises NotFoundError when there was no audit yet."""
    from snapshots.audit.archive import load_latest

    found = load_latest(ledger)
    if found is None:
        raise NotFoundError(
            "there was no audit yet", where=str(ledger.path), remedy="run `muster audit` first"
        )
    return found


def reported(ledger: Ledger, now: datetime) -> tuple[Finding, ...]:
    """Give the findings of the newest audit, with the states they are about.

    A finding whose baseline moved since has another difference now: it is left out.
    """
    from snapshots.audit.approve import change_of, effective, load_decisions
    from snapshots.audit.report_json import findings_in, moment
    from snapshots.audit.run import approved_state, still_so
    from snapshots.model import ChangeType

    document = latest(ledger)
    baseline = approved_state(ledger)
    if baseline is None:
        return ()
    decisions = load_decisions(ledger)
    try:
        at = moment(document.get("at"))
        live = ledger.load(ledger.resolve(str(document.get("live"))))
    except (NotFoundError, ValueError) as wrong:
        raise DamagedStoreError(
            f"the newest audit's report cannot be read: {wrong}",
            where=str(ledger.path),
            remedy="run `muster audit` again",
        ) from wrong
    # What had expired by the time of the audit was no part of the baseline.
    baseline, _ = effective(baseline, decisions, max(at or now, now))
    found = findings_in(document, baseline.resources, {**live.stale, **live.resources})
    same = [f for f in found if f.change is ChangeType.UNKNOWN or still_so(f, baseline)]
    return tuple(
        replace(
            f,
            ignored=decisions.ignored(f.id, change_of(f), now),
            pending=decisions.pending.get(f.id),
        )
        for f in same
    )


def chosen(findings: tuple[Finding, ...], wanted: tuple[str, ...]) -> tuple[Finding, ...]:
    """Give the findings that the ids (or their beginnings) mean. Raises when one means none."""
    picked: dict[str, Finding] = {}
    for text in wanted:
        name = text.strip().lower()
        if not _ID.fullmatch(name):
            raise InputError(
                f"{text!r} is no finding",
                remedy="name a finding by its 12 digits, as `muster audit` prints it",
            )
        same = [f for f in findings if f.id.startswith(name)]
        if len(same) > 1:
            shown = ", ".join(f.id for f in same)
            raise InputError(f"{text!r} means several findings: {shown}", remedy="write more of it")
        if not same:
            raise NotFoundError(
                f"the newest audit has no finding {text!r}, or the baseline moved since",
                remedy="run `muster audit` again",
            )
        picked[same[0].id] = same[0]
    return tuple(picked.values())


def decider(given: str | None) -> str:
    """Say who decides: as given, else Git's own identity, else the name of the login."""
    if given and given.strip():
        return sound(" ".join(given.split()))
    for name in ("user.email", "user.name"):
        try:
            done = subprocess.run(
                ["git", "config", "--get", name],
                capture_output=True,
                text=True,
                check=False,
                timeout=10,
            )
        except (OSError, subprocess.SubprocessError):
            break
        if done.returncode == 0 and done.stdout.strip():
            return done.stdout.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""


def until(text: str | None, now: datetime) -> datetime | None:
    """Read 30d, 12h, 2026-12-24 (its end) or 2026-12-24T10:00Z. Raises InputError."""
    if text is None:
        return None
    words = text.strip()
    try:
        return now + duration(words)
    except ValueError:
        pass
    try:
        if _DATE.fullmatch(words):
            day = datetime.fromisoformat(words).date()
            return datetime.combine(day, time.max, UTC).replace(microsecond=0)
        found = datetime.fromisoformat(words)
    except ValueError as wrong:
        raise InputError(
            f"{text!r} is no moment", where="--expires", remedy="write 30d or 2026-12-24"
        ) from wrong
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
