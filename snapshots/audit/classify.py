"""Say whether a change was meant: planned, different from the plan, unplanned, Azure's, unknown.

A class is never guessed silently: every answer comes with its reasons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from snapshots.audit.attribute import Window
from snapshots.audit.planned import ChangeRecord, People, Plans, touches
from snapshots.audit.report_model import Attribution, Class, PrincipalKind
from snapshots.cloud.place import Plane
from snapshots.kinds import BY_NAME
from snapshots.model import (
    Change,
    ChangeType,
    Json,
    Missing,
    PathChange,
    canonical,
)

# How much attention a class asks for: a finding made of several changes has the worst.
WORST: Final = (
    Class.PLANNED,
    Class.PLATFORM,
    Class.UNKNOWN,
    Class.PLANNED_BUT_DIFFERENT,
    Class.UNPLANNED,
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """A class, why, and the ticket of the plan."""

    class_: Class
    reasons: tuple[str, ...]
    ticket: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a change that one operation made."""

    paths: tuple[PathChange, ...]
    who: Attribution
    window: Window
    settled: bool  # whether Azure's records had the time to come, and were read without a hole


@dataclass(frozen=True, slots=True)
class Merged:
    """A commit on the baseline that moved it away from what live still is."""

    commit: str
    subject: str
    author: str
    at: datetime


def classify(
    change: Change,
    parts: Sequence[Part],
    plans: Plans,
    trusted: Sequence[str],
    *,
    merged: Merged | None = None,
    common: Callable[[PathChange], int] = lambda _: 0,
) -> Verdict:
    """Give the class of a change with its reasons.

    `merged` says that live is what the baseline was before a commit. `common` says how many
    resources got the same new property at once without anybody's write.
    """
    if change.type is ChangeType.UNKNOWN:
        return Verdict(Class.UNKNOWN, ("it could not be read: nobody knows what it is now",))
    if merged is not None:
        return Verdict(
            Class.PLANNED,
            (
                (
                    f"the baseline was changed by {merged.author} in {merged.commit[:12]} "
                    f"({merged.subject}), and live is still what it was before: not rolled out yet"
                ),
            ),
        )
    verdicts = [_part(change, part, plans, People(tuple(trusted)), common) for part in parts]
    worst = max(verdicts, key=lambda verdict: WORST.index(verdict.class_))
    if len(verdicts) == 1:
        return worst
    reasons: list[str] = []
    for part, verdict in zip(parts, verdicts, strict=True):
        named = ", ".join(path.path or "/" for path in part.paths[:3])
        more = f" and {len(part.paths) - 3} more" if len(part.paths) > 3 else ""
        reasons += [f"{named}{more}: {verdict.class_.value}: {r}" for r in verdict.reasons]
    ticket = next((v.ticket for v in verdicts if v.ticket), "")
    return Verdict(worst.class_, tuple(reasons), ticket)


def _part(
    change: Change, part: Part, plans: Plans, trusted: People, common: Callable[[PathChange], int]
) -> Verdict:
    who = part.who
    if who.principal_kind is PrincipalKind.PLATFORM:
        return Verdict(
            Class.PLATFORM, ("Azure did it by itself: its record names no caller", *_said(who))
        )
    resource = change.after or change.before
    id_ = resource.id if resource is not None else ""
    earliest, latest = (who.when, who.when) if who.when else (part.window.after, part.window.until)
    denied = plans.denied(change.key, id_, who.when) if who.when else None
    if denied is not None:
        return Verdict(
            Class.UNPLANNED,
            (f"changes are denied at that time by the window {denied.name!r} ({denied.where})",),
        )
    trusts = who.known and trusted.holds(who)
    tried: list[Verdict] = []
    for record in plans.about(change.key, id_):
        verdict = _by_record(change, part, record, earliest, latest, plans, trusts=trusts)
        if verdict is not None and verdict.class_ is Class.PLANNED:
            return verdict
        if verdict is not None:
            tried.append(verdict)
    if tried:
        return min(tried, key=lambda v: (v.class_ is Class.UNPLANNED, WORST.index(v.class_)))
    if who.when:
        for window in plans.allowed(change.key, id_, who.when):
            if (window.who is not None and window.who.holds(who)) or (
                window.who is None and trusts
            ):
                whom = "whom it names" if window.who is not None else "a trusted pipeline"
                return Verdict(
                    Class.PLANNED,
                    (f"made by {whom} in the change window {window.name!r} ({window.where})",),
                )
    if not who.known:
        return _nobody(change, part, common)
    reasons = [f"no change record is about {change.key}"]
    if trusts:
        reasons.append("the caller is a trusted pipeline, and still needs a change record")
    if plans.allow_windows(change.key, id_) and who.when:
        open_ = plans.allowed(change.key, id_, who.when)
        reasons.append(
            "the change window that was open does not name the caller"
            if open_
            else "no change window was open at that time"
        )
    return Verdict(Class.UNPLANNED, tuple(reasons))


def _by_record(
    change: Change,
    part: Part,
    record: ChangeRecord,
    earliest: datetime | None,
    latest: datetime,
    plans: Plans,
    *,
    trusts: bool,
) -> Verdict | None:
    """Hold a part of a change against one record; None when the record is about something else."""
    name = f"the change record {record.id} ({record.where})"
    if record.change and change.type not in record.change:
        return None
    inside = [p for p in part.paths if not record.paths or touches(record.paths, p.path)]
    if part.paths and not inside:
        return None
    differs: list[str] = []
    unsure: list[str] = []
    if record.paths and not part.paths and change.type is not ChangeType.CHANGED:
        # Leave to edit one property is no leave to delete what has it, or to make another.
        differs.append(
            f"the whole resource was {change.type.value}, and the record is about single properties"
        )
    if outside := [p.path for p in part.paths if p not in inside]:
        differs.append(f"it also changed {', '.join(outside[:3])}, which is not in the record")
    timely = record.timely(earliest, latest)
    if timely is None:
        unsure.append("whether it was made in time is not known")
    values = _values(change, record)
    if values:
        differs.append(values)
    if timely is False:
        when = f"{(part.who.when or part.window.until):%Y-%m-%d %H:%M}Z"
        if not record.expected or values:
            return Verdict(
                Class.UNPLANNED,
                (f"{name} is about it, but it was made outside of its time, at {when}",),
            )
        differs.append(f"it was made outside of its time, at {when}")
    named = record.who is not None
    if record.who is not None and not trusts:
        if not part.who.known:
            unsure.append("who made it is not known")
        elif not record.who.holds(part.who):
            differs.append(f"it was made by {part.who.who}, whom the record does not name")
    resource = change.after or change.before
    windows = plans.allow_windows(change.key, resource.id if resource is not None else "")
    no_time = record.begins is None and record.ends is None
    at = part.who.when
    if no_time and windows and at and not trusts and not any(w.open(at) for w in windows):
        differs.append("it was made outside of every change window")
    ticket = record.ticket or record.id
    if differs:
        return Verdict(
            Class.PLANNED_BUT_DIFFERENT, (f"{name} is about it", *differs, *unsure), ticket
        )
    if unsure:
        return Verdict(Class.UNKNOWN, (f"{name} may be about it", *unsure), ticket)
    reasons = [f"{name} is about it"]
    if trusts:
        reasons.append("a trusted pipeline made it: the record is all it needs")
    elif named:
        reasons.append(f"{part.who.who} is named there")
    if record.expected:
        reasons.append("what is there is what was expected")
    return Verdict(Class.PLANNED, tuple(reasons), ticket)


def _values(change: Change, record: ChangeRecord) -> str:
    """Say what differs from what the record expects; "" when nothing."""
    if not record.expected:
        return ""
    body = change.after.body if change.after is not None else {}
    for pattern, wanted in record.expected:
        found: list[Json] = [value for _, value in pattern.find(body)]
        if wanted is None and not found:
            continue
        if not found:
            return f"{pattern} is not there, and {_short(wanted)} was expected"
        for value in found:
            if not _same(value, wanted):
                return f"{pattern} is {_short(value)}, and {_short(wanted)} was expected"
    return ""


def _nobody(change: Change, part: Part, common: Callable[[PathChange], int]) -> Verdict:
    """Class what nobody is known to have made."""
    # No log tells of the data plane: that nobody wrote there is not known.
    kind = BY_NAME.get(change.key.kind)
    if part.settled and (upgrade := _upgraded(change, part)):
        return Verdict(Class.PLATFORM, (upgrade,))
    logged = kind is not None and kind.plane is Plane.ARM
    if logged and part.settled and part.paths and change.type is ChangeType.CHANGED:
        counts = [common(path) if isinstance(path.before, Missing) else 0 for path in part.paths]
        if min(counts) >= 3:
            return Verdict(
                Class.PLATFORM,
                (
                    (
                        f"the same new property came to {min(counts)} resources at once, and "
                        "nobody wrote to them: a default of the service"
                    ),
                ),
            )
    return Verdict(
        Class.UNKNOWN,
        ("who made it is not known, so whether it was meant is not known either", *_said(part.who)),
    )


def _upgraded(change: Change, part: Part) -> str:
    """Say that Azure moved a model version, as the deployment's upgrade option lets it."""
    if change.key.kind != "deployment" or change.before is None or change.after is None:
        return ""
    # An upgrade moves the version and nothing else: another model is somebody's doing.
    if not part.paths or any(p.path != "/properties/model/version" for p in part.paths):
        return ""
    properties = change.before.body.get("properties")
    option = properties.get("versionUpgradeOption") if isinstance(properties, dict) else None
    if option in {None, "NoAutoUpgrade"}:
        return ""
    return (
        f"the model's version moved, the deployment's upgrade option is {option}, and the log has "
        "no write of it: Azure upgraded it"
    )


def _said(who: Attribution) -> tuple[str, ...]:
    return tuple(r for r in who.reasons if r.startswith(("Azure says", "unattributed")))


def _same(value: Json, wanted: Json) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return value.lower() == wanted.lower()
    if isinstance(value, str) and isinstance(wanted, int | float):
        return value == str(wanted)
    if isinstance(value, bool) or isinstance(wanted, bool):
        return value is wanted
    if isinstance(value, int | float) and isinstance(wanted, int | float):
        return value == wanted
    return canonical(value) == canonical(wanted)


def _short(value: Json) -> str:
    words = canonical(value).decode()
    return words if len(words) <= 60 else words[:59] + "…"
