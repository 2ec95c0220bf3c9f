"""Undo what was found: property by property, only where live still is what was reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from threading import Event
from typing import Final

import orjson

from snapshots.apply import apply, ids_of
from snapshots.audit.approve import change_of, picked
from snapshots.audit.incremental import Cloud as AuditCloud
from snapshots.audit.incremental import top_of
from snapshots.audit.planned import Plans
from snapshots.audit.report_model import Finding, PropertyFinding
from snapshots.audit.rules import list_identity
from snapshots.busy import Busy
from snapshots.clock import Clock
from snapshots.compare import body_paths, compare, undo
from snapshots.errors import RefusedError
from snapshots.kinds import BY_NAME
from snapshots.kinds.base import Way
from snapshots.ledger import EVIDENCE, Ledger
from snapshots.mapping import logical
from snapshots.model import (
    Change,
    ChangeType,
    Key,
    PathChange,
    Payload,
    Resource,
    Snapshot,
    canonical,
    pretty,
)
from snapshots.plan import Context, plan
from snapshots.records import Records
from snapshots.restore import soft_deleted
from snapshots.secrets import Fingerprints
from snapshots.steps import Plan, Record, StepState
from snapshots.take import Scope, TakeOptions, take
from snapshots.writing import Cloud as WriteCloud
from snapshots.writing import Payloads

CAP: Final = 10  # findings in one run, unless somebody says otherwise
FLAPS: Final = 3  # reverts of one thing within
FLAP_SPAN: Final = timedelta(hours=24)
TARGET: Final = "revert"  # how plans of a revert call their target
DRILL: Final = "drill"  # how those of a drill do
_FOLDER: Final = "reverts/"


@dataclass(frozen=True, slots=True)
class Chosen:
    """A finding that is undone, and what its resource shall be."""

    finding: Finding
    paths: tuple[PropertyFinding, ...]
    wanted: Resource | None  # None: it shall be gone
    changes: tuple[Change, ...]  # from what is there to what is wanted


@dataclass(frozen=True, slots=True)
class Left:
    """A finding that is left alone, and why."""

    finding: Finding
    why: str
    done: bool = False  # it is as in the baseline already


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a revert would do, and what it leaves alone."""

    plan: Plan
    chosen: tuple[Chosen, ...]
    left: tuple[Left, ...]
    live: Snapshot  # as read for this
    now: datetime  # Azure's clock


@dataclass(frozen=True, slots=True)
class Reverted:
    """What a revert did, and whether a read afterwards shows the baseline."""

    record: Record
    verified: tuple[str, ...]  # findings whose resource is as in the baseline
    differs: Mapping[str, tuple[PathChange, ...]] = field(default_factory=dict)  # finding -> paths
    unread: tuple[str, ...] = ()
    commit: str = ""  # on the evidence branch


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Reads the resources that a revert is about, and as little else as can be."""

    estate: str
    scopes: Sequence[Scope]
    cloud: AuditCloud
    fingerprints: Fingerprints
    clock: Clock
    version: str
    options: TakeOptions

    def read(self, keys: Sequence[Key], previous: Snapshot) -> Snapshot:
        """Read what the keys' accounts hold now. Payloads are those that are known."""
        tops = {top for key in keys if (top := top_of(key)) is not None}
        return take(
            self.estate,
            self.scopes,
            self.cloud,
            fingerprints=self.fingerprints,
            clock=self.clock,
            version=self.version,
            previous=previous,
            options=replace(self.options, reference=False, payloads=False),
            descend=lambda resource: resource.key in tops,
        )


def prepare(
    ledger: Ledger,
    reader: Reader,
    findings: Sequence[Finding],
    reported: Snapshot,
    plans: Plans,
    *,
    baseline: str,
    paths: Sequence[str] = (),
    cap: int = CAP,
    busy: Sequence[str] = (),
    secrets: Mapping[str, str] | None = None,
) -> Prepared:
    """Read live state again and plan the way back; nothing is written.

    A finding is left alone, with the reason, when live is no more what was reported, cannot be
    read, is denied by a window, is never written by muster, or was reverted three times in a day.
    `secrets` says where those are that no snapshot holds: key or pattern -> reference.
    Raises RefusedError for more findings than `cap` and while `busy` names work in progress,
    InputError for a path that no finding has.
    """
    if busy:
        raise RefusedError(
            "nothing is reverted while a restore, failover or drill is not finished",
            where=", ".join(busy),
            remedy="wait until it ends; finish a restore that stopped with `muster resume`, or "
            "take it back with `muster undo`",
        )
    if len(findings) > cap:
        raise RefusedError(
            f"{len(findings)} findings are more than the {cap} that one run may undo",
            remedy="name fewer, or raise the limit with --cap or in [audit] cap",
        )
    live = reader.read([finding.key for finding in findings], reported)
    now = reader.cloud.server_time() or reader.clock.now()
    past = _past(ledger, now)
    chosen: list[Chosen] = []
    left: list[Left] = []
    for finding in findings:
        named = picked(finding, paths, "revert")
        why, done = _why_left(finding, live, plans, now, _flaps(past, finding, named))
        if why:
            left.append(Left(finding, why, done))
            continue
        wanted = _wanted(finding, named)
        there = live.resources.get(finding.key)
        if _same(there, wanted):
            left.append(Left(finding, "it is as in the baseline already", done=True))
            continue
        chosen.append(Chosen(finding, named, wanted, tuple(_between(finding.key, there, wanted))))
    return Prepared(
        _planned(reader, live, chosen, baseline, now, secrets or {}),
        tuple(chosen),
        tuple(left),
        live,
        now,
    )


def carry_out(
    ledger: Ledger,
    reader: Reader,
    cloud: WriteCloud,
    prepared: Prepared,
    records: Records,
    payloads: Payloads,
    *,
    by: str,
    reason: str,
    stop: Event | None = None,
    secret: Callable[[str], str] | None = None,
) -> Reverted:
    """Do what was prepared, read again, and keep what was done as evidence."""
    journal = records.begin(prepared.plan, ids_of(prepared.live.resources))
    with journal:
        if secret is None:
            record = apply(
                cloud,
                journal,
                payloads=payloads,
                fingerprints=reader.fingerprints,
                clock=reader.clock,
                stop=stop,
            )
        else:
            record = apply(
                cloud,
                journal,
                payloads=payloads,
                fingerprints=reader.fingerprints,
                clock=reader.clock,
                stop=stop,
                secret=secret,
            )
        after = reader.read([c.finding.key for c in prepared.chosen], prepared.live)
        remaining = 0
        verified: list[str] = []
        unread: list[str] = []
        differs: dict[str, tuple[PathChange, ...]] = {}
        for choice in prepared.chosen:
            finding = choice.finding
            there = after.resources.get(finding.key)
            if there is None and after.hidden(finding.key) is not None:
                unread.append(finding.id)
                remaining += 1
                continue
            rest = tuple(_between(finding.key, there, choice.wanted))
            if not rest:
                verified.append(finding.id)
                continue
            remaining += 1
            differs[finding.id] = tuple(
                path for change in rest for path in (change.paths or (PathChange("", 0, 0),))
            )
        journal.end(remaining=remaining, calls=reader.cloud.calls.snapshot().by_kind)
    keys_written = {
        step.key for step in record.plan.steps if record.state(step.id) is StepState.DONE
    }
    files: dict[str, bytes | None] = {}
    stamp = f"{prepared.now:%Y%m%dT%H%M%S}"
    for choice in prepared.chosen:
        finding = choice.finding
        files[f"{_FOLDER}{finding.fingerprint[:16]}/{stamp}-{finding.id}.json"] = pretty(
            {
                "schema": "muster/revert/1",
                "finding": finding.id,
                "key": str(finding.key),
                "at": prepared.now.isoformat(),
                "by": by,
                "reason": reason,
                "record": record.id,
                "verified": finding.id in verified,
                "written": finding.key in keys_written,
                "paths": [path.path for path in choice.paths],
            }
        )
    commit = ledger.put(
        EVIDENCE,
        files,
        f"Revert {len(prepared.chosen)} findings: {len(verified)} verified\n\n{reason}",
        {
            "Reverted-By": by,
            "Reason": reason,
            "Findings": " ".join(choice.finding.id for choice in prepared.chosen),
            "Record": record.id,
            "Verified": " ".join(verified) or "none",
        },
        author=by,
    )
    return Reverted(record, tuple(verified), differs, tuple(unread), commit)


def in_the_way(records: Records, busy: Busy) -> tuple[str, ...]:
    """Give what a revert must wait for: drills and failovers that run, restores that stopped."""
    return (*(str(holder) for holder in busy.holders()), *unfinished(records))


def unfinished(records: Records) -> tuple[str, ...]:
    """Give the restores and failovers that were begun and not finished; reverts are none.

    A drill's own restore is none either: the drill holds a marker while it runs, and once it is
    gone nobody resumes it.
    """
    found: list[str] = []
    for id_ in records.all():
        record = records.read(id_)
        if record.finished_at is None and record.plan.target not in {TARGET, DRILL}:
            found.append(f"record {id_}")
    return tuple(found)


# ------------------------------------------------------------------------------- what is undone


def _why_left(
    finding: Finding,
    live: Snapshot,
    plans: Plans,
    now: datetime,
    flaps: int,
) -> tuple[str, bool]:
    """Say why a finding is left alone ("": it is not), and whether that is because it is done."""
    if finding.change is ChangeType.UNKNOWN:
        return "it could not be read, so nobody knows what there is to undo", False
    if finding.renamed_from is not None:
        return "it was renamed: make it again by hand, under the name it had", False
    kind = BY_NAME.get(finding.kind)
    subject = finding.before or finding.after
    if kind is None or kind.way is Way.NEVER:
        return f"muster never writes {finding.kind_title}: undo it by hand", False
    if subject is not None and not kind.writable(subject.body):
        return "Azure itself manages it: nobody can write it", False
    there = live.resources.get(finding.key)
    if there is None and (gap := live.hidden(finding.key)) is not None:
        return f"it cannot be read now: {gap.reason.value}, {gap.detail}", False
    if not _same(there, finding.after):
        if _same(there, finding.before):
            return "it is as in the baseline already", True
        return "live is no more what was reported: it changed again meanwhile", False
    window = plans.denied(finding.key, finding.resource_id, now)
    if window is not None:
        return f"changes are denied now by the window {window.name!r} ({window.where})", False
    if flaps >= FLAPS:
        words = (
            f"it was reverted {flaps} times in 24 hours and came back: "
            "somebody or something changes it on purpose; talk to them first"
        )
        return words, False
    return "", False


def _wanted(finding: Finding, chosen: Sequence[PropertyFinding]) -> Resource | None:
    """Give what the resource shall be: as in the baseline, in the chosen properties at least."""
    before, after = finding.before, finding.after
    if before is None or after is None or len(chosen) == len(finding.paths):
        return before
    change = change_of(finding)
    bodies = {path.path for path in body_paths(change)}
    asked = [PathChange(p.path, p.before, p.after) for p in chosen if p.path in bodies]
    payloads: dict[str, Payload] = {p.name: p for p in after.payloads}
    old = {p.name: p for p in before.payloads}
    for path in chosen:
        name = path.path.removeprefix("/payloads/")
        if path.path not in bodies and path.path.startswith("/payloads/"):
            payloads.pop(name, None)
            if name in old:
                payloads[name] = old[name]
    body = undo(before.body, after.body, asked, list_identity(finding.kind))
    return Resource(finding.key, after.id, body, tuple(payloads[name] for name in sorted(payloads)))


def _planned(
    reader: Reader,
    live: Snapshot,
    chosen: Sequence[Chosen],
    baseline: str,
    now: datetime,
    secrets: Mapping[str, str],
) -> Plan:
    keys = {choice.finding.key for choice in chosen}
    target = dict(live.resources)
    for choice in chosen:
        if choice.wanted is None:
            target.pop(choice.finding.key, None)
        else:
            target[choice.finding.key] = choice.wanted
    there, wanted = logical(live.resources), logical(target)
    changes = tuple(
        compare(
            replace(live, resources={k: r for k, r in there.items() if k in keys}, gaps=()),
            replace(live, resources={k: r for k, r in wanted.items() if k in keys}, gaps=()),
            list_identity,
        )
    )
    context = Context(
        estate=reader.estate,
        snapshot=baseline,
        target=TARGET,
        version=reader.version,
        now=now,
        wanted=wanted,
        there=there,
        sources=target,
        prune=True,
        soft_deleted=soft_deleted(reader.cloud, changes),
        secrets=secrets,
        threads=1,
    )
    made = plan(changes, context)
    # One write at a time for each account, whatever the kind says.
    return made.with_steps(
        replace(step, serial="/".join(step.key.path[:3]) or step.serial) for step in made.steps
    )


def _between(key: Key, there: Resource | None, wanted: Resource | None) -> Sequence[Change]:
    def state(resource: Resource | None) -> Snapshot:
        resources = {} if resource is None else {key: resource}
        return Snapshot("", datetime.fromisoformat("2000-01-01T00:00:00+00:00"), "", resources)

    return tuple(compare(state(there), state(wanted), list_identity))


def _same(one: Resource | None, two: Resource | None) -> bool:
    if one is None or two is None:
        return one is None and two is None
    known = {p.name: p for p in two.payloads}
    return canonical(one.body) == canonical(two.body) and all(
        known.get(p.name, p) == p for p in one.payloads
    )


# ------------------------------------------------------------------------------- flaps


@dataclass(frozen=True, slots=True)
class _Past:
    """One revert of the last day."""

    key: str
    paths: frozenset[str]


def _past(ledger: Ledger, now: datetime) -> tuple[_Past, ...]:
    """Give the reverts of the last day that wrote something."""
    found: list[_Past] = []
    if not ledger.tip(EVIDENCE):
        return ()
    for _, content in ledger.files(EVIDENCE, _FOLDER):
        try:
            document = orjson.loads(content)
            at = datetime.fromisoformat(document["at"])
            past = _Past(str(document["key"]), frozenset(map(str, document["paths"])))
            if now - at < FLAP_SPAN and document.get("written", True):
                found.append(past)
        except (KeyError, TypeError, ValueError, AttributeError):
            continue  # a file that somebody put there by hand counts for nothing
    return tuple(found)


def _flaps(past: Sequence[_Past], finding: Finding, chosen: Sequence[PropertyFinding]) -> int:
    """Count the reverts of the same resource that undid one of these properties, at the most."""
    key = str(finding.key)
    same = [p for p in past if p.key == key]
    return max((sum(path.path in p.paths for p in same) for path in chosen), default=0)
