"""Decide on findings: approve them into the baseline, or leave them alone for a while.

Decisions are files on the baseline branch, so that a pull request can make or review them:

    decisions/ignores/<finding>.json     left alone until it expires
    decisions/pending/<finding>.json     approved by one person, waits for a second
    decisions/expiring/<finding>.json    approved for a time: what the baseline was before
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Final

import orjson

from snapshots.audit.archive import path_document, path_in
from snapshots.audit.planned import path_pattern, touches
from snapshots.audit.report_model import (
    Finding,
    Ignored,
    Pending,
    PrincipalKind,
    PropertyFinding,
    Severity,
)
from snapshots.audit.rules import list_identity
from snapshots.audit.texts import sound
from snapshots.compare import differences, place_of, undo
from snapshots.errors import InputError, RefusedError
from snapshots.ledger import BASELINE, Ledger, path_of
from snapshots.model import (
    MISSING,
    Change,
    ChangeType,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Payload,
    Resource,
    Snapshot,
    canonical,
    pretty,
)

IGNORES: Final = "decisions/ignores/"
PENDING: Final = "decisions/pending/"
EXPIRING: Final = "decisions/expiring/"
_FOLDER: Final = "decisions/"
_ADDRESS: Final = re.compile(r"[^\s<>()\[\],;:\"']+@[^\s<>()\[\],;:\"']+")


@dataclass(frozen=True, slots=True)
class IgnoreRecord:
    """A finding, or some properties whatever their value, that is left alone."""

    finding: str
    key: Key
    change: ChangeType
    paths: tuple[str, ...]
    any_value: bool
    ignored: Ignored
    places: tuple[str, ...] = ()  # of `any_value`: the paths, items by identity, not by index


@dataclass(frozen=True, slots=True)
class Expiring:
    """An approval that runs out: what the baseline was before it."""

    finding: str
    key: Key
    before: Resource | None
    after: Resource | None
    paths: tuple[PathChange, ...]  # empty: the whole resource
    by: str
    expires: datetime


@dataclass(frozen=True, slots=True)
class Decisions:
    """Every decision on the baseline."""

    ignores: tuple[IgnoreRecord, ...] = ()
    pending: Mapping[str, Pending] = field(default_factory=dict)
    expiring: tuple[Expiring, ...] = ()

    def ignored(self, finding: str, change: Change, now: datetime) -> Ignored | None:
        """Give the decision that leaves a finding alone now."""
        for record in self.ignores:
            if record.ignored.expires <= now:
                continue
            if record.finding == finding:
                return record.ignored
            if not record.any_value or record.key != change.key or record.change is not change.type:
                continue
            places = _places(change)
            if places and "" not in places and set(places) <= set(record.places):
                return record.ignored
        return None


def _places(change: Change) -> tuple[str, ...]:
    lists = list_identity(change.key.kind)
    return tuple(place_of(path, change, lists) for path in change.paths)


@dataclass(frozen=True, slots=True)
class Approval:
    """Who approves, why, and until when."""

    by: str
    reason: str
    ticket: str = ""
    expires: datetime | None = None

    def checked(self, now: datetime) -> Approval:
        """Give it, held to what a decision needs. Raises InputError."""
        if not self.reason.strip():
            raise InputError("an approval needs a reason", remedy="add --reason TEXT")
        if not self.by.strip():
            raise InputError(
                "nobody knows who approves", remedy="add --by NAME, or set git's user.email"
            )
        if self.expires is not None and self.expires <= now:
            raise InputError(
                f"it would have expired already, at {self.expires:%Y-%m-%d %H:%M}Z",
                remedy="name a later moment",
            )
        return replace(
            self, by=sound(self.by), reason=sound(self.reason), ticket=sound(self.ticket)
        )


@dataclass(frozen=True, slots=True)
class Approved:
    """What an approval did."""

    commit: str
    approved: tuple[str, ...]  # findings that are in the baseline now
    waiting: tuple[str, ...]  # findings that need a second person


def load_decisions(ledger: Ledger) -> Decisions:
    """Read the decisions on the baseline. Raises InputError for a file that is none."""
    if not ledger.tip(BASELINE):
        return Decisions()
    ignores: list[IgnoreRecord] = []
    pending: dict[str, Pending] = {}
    expiring: list[Expiring] = []
    for path, content in ledger.files(BASELINE, _FOLDER):
        finding = path.rsplit("/", 1)[-1].removesuffix(".json")
        try:
            found = orjson.loads(content)
            if path.startswith(IGNORES):
                ignores.append(_ignore_in(finding, found))
            elif path.startswith(PENDING):
                pending[finding] = Pending(
                    tuple(str(by) for by in found["by"]),
                    str(found["reason"]),
                    _time(found["at"]),
                    str(found.get("ticket") or ""),
                )
            elif path.startswith(EXPIRING):
                expiring.append(_expiring_in(finding, found))
        except (KeyError, TypeError, ValueError, AttributeError) as wrong:
            raise InputError(
                f"a decision on the baseline cannot be read: {wrong}",
                where=path,
                remedy="correct or remove the file on the baseline",
            ) from wrong
    return Decisions(tuple(ignores), pending, tuple(expiring))


def effective(
    baseline: Snapshot, decisions: Decisions, now: datetime
) -> tuple[Snapshot, tuple[str, ...]]:
    """Give the baseline without what was approved for a time that is over, and say what ran out."""
    resources = dict(baseline.resources)
    told: list[str] = []
    for decision in sorted(decisions.expiring, key=lambda d: d.expires, reverse=True):
        if decision.expires > now:
            continue
        before = _without(resources.get(decision.key), decision)
        if isinstance(before, Missing):
            continue  # the baseline moved on: another approval took its place
        told.append(
            f"the approval of {decision.key} by {decision.by} expired on "
            f"{decision.expires:%Y-%m-%d %H:%M}Z"
        )
        if before is None:
            resources.pop(decision.key, None)
        else:
            resources[decision.key] = before
    told += [
        f"{record.ignored.by}'s decision to ignore {record.key} expired on "
        f"{record.ignored.expires:%Y-%m-%d %H:%M}Z"
        for record in decisions.ignores
        if record.ignored.expires <= now
    ]
    return replace(baseline, resources=resources), tuple(told)


def _without(there: Resource | None, decision: Expiring) -> Resource | Missing | None:
    """Give what the baseline holds once an approval ran out; MISSING when it is not in it any more.

    Other properties may have been approved since: only its own are taken back, as far as they are
    still what it made them.
    """
    if _still(there, decision.after):
        return decision.before
    if there is None or decision.after is None:
        return MISSING
    if decision.before is None:
        return None  # what came for a time goes, whatever was approved of it since
    lists = list_identity(decision.key.kind)
    own = {_name_of(path) for path in decision.paths}
    left = [p for p in differences(decision.before.body, there.body, lists) if _name_of(p) in own]
    if not left:
        return MISSING
    return replace(there, body=undo(decision.before.body, there.body, left, lists))


def _name_of(path: PathChange) -> tuple[str, bytes, bytes]:
    sides = (b"-" if isinstance(v, Missing) else canonical(v) for v in (path.before, path.after))
    was, now = sides
    return path.path, was, now


def approve_all(ledger: Ledger, live: str, approval: Approval, now: datetime, *, gaps: bool) -> str:
    """Make all of live state the baseline, as one commit; give the commit.

    Live state with gaps is refused, unless `gaps`: then only what was read is approved.
    """
    approval = approval.checked(now)
    snapshot = ledger.load(live)
    parent = ledger.tip(BASELINE)
    message = f"Approve the whole state: {len(snapshot.resources)} resources\n\n{approval.reason}"
    trailers = _trailers(approval, [])
    trailers["Approved-State"] = snapshot.id
    if not snapshot.gaps:
        return ledger.copy(
            None,
            snapshot.id,
            BASELINE,
            message,
            trailers,
            expected_parent=parent,
            author=approval.by,
        )
    if not gaps:
        first = snapshot.gaps[0]
        raise RefusedError(
            f"live state has {len(snapshot.gaps)} gaps: what was not read cannot be approved",
            where=f"{first.key}: {first.reason.value}",
            remedy="read it again with `muster audit`, or approve what was read with --incomplete",
        )
    files: dict[str, bytes | None] = {
        path_of(key): pretty(resource.document()) for key, resource in snapshot.resources.items()
    }
    if parent:
        for key in ledger.keys(BASELINE):
            if key not in snapshot.resources and snapshot.hidden(key) is None:
                files[path_of(key)] = None
    trailers["Approved-Gaps"] = str(len(snapshot.gaps))
    return ledger.put(
        BASELINE, files, message, trailers, expected_parent=parent, author=approval.by
    )


def approve(
    ledger: Ledger,
    findings: Sequence[Finding],
    approval: Approval,
    now: datetime,
    *,
    four_eyes: Sequence[Severity] = (),
    paths: Sequence[str] = (),
) -> Approved:
    """Take findings, or single properties of them, into the baseline as one commit.

    A finding of a severity in `four_eyes` needs two people, and whoever made the change is not one
    of them: the first approval is noted and waits. Raises InputError for a path that is no part of
    a finding, RefusedError for what cannot be approved, ConcurrentError when the baseline moved.
    """
    approval = approval.checked(now)
    parent = ledger.tip(BASELINE)
    if not parent:
        raise RefusedError(
            "there is no baseline yet", remedy="approve one: `muster approve --all --reason …`"
        )
    decisions = load_decisions(ledger)
    files: dict[str, bytes | None] = {}
    done: list[str] = []
    waiting: list[str] = []
    for finding in findings:
        chosen = _chosen(finding, paths)
        if finding.severity in four_eyes:
            _not_the_author(finding, approval.by)
            before = decisions.pending.get(finding.id)
            people = before.by if before is not None else ()
            if any(same_person(approval.by, by) for by in people):
                waiting.append(finding.id)
                continue
            if not people:
                files[f"{PENDING}{finding.id}.json"] = pretty(
                    {
                        "by": [approval.by],
                        "reason": approval.reason,
                        "ticket": approval.ticket or None,
                        "at": _iso(now),
                        "key": str(finding.key),
                    }
                )
                waiting.append(finding.id)
                continue
        after = _approved_state(finding, chosen)
        files.update(_documents(finding, after))
        if finding.id in decisions.pending:
            files[f"{PENDING}{finding.id}.json"] = None
        if any(record.finding == finding.id for record in decisions.ignores):
            files[f"{IGNORES}{finding.id}.json"] = None
        for spent in decisions.expiring:
            # What ran out was taken back in the state that this one is about.
            if spent.key == finding.key and spent.expires <= now:
                files[f"{EXPIRING}{spent.finding}.json"] = None
        if approval.expires is not None:
            files[f"{EXPIRING}{finding.id}.json"] = pretty(
                _expiring_document(finding, after, chosen, approval, approval.expires, now)
            )
        done.append(finding.id)
    if not files:
        return Approved(parent, (), tuple(waiting))
    trailers = _trailers(approval, done or waiting)
    seconds = [by for f in done for by in _people(decisions, f) if not same_person(by, approval.by)]
    if seconds:
        trailers["Also-Approved-By"] = ", ".join(sorted(set(seconds)))
    if paths:
        trailers["Paths"] = ", ".join(paths)
    message = _message("Approve" if done else "Propose to approve", findings, approval.reason)
    commit = ledger.put(
        BASELINE, files, message, trailers, expected_parent=parent, author=approval.by
    )
    return Approved(commit, tuple(done), tuple(waiting))


def ignore(
    ledger: Ledger,
    findings: Sequence[Finding],
    approval: Approval,
    now: datetime,
    *,
    any_value: bool = False,
) -> str:
    """Leave findings alone until `approval.expires`, as one commit; give the commit.

    With `any_value` the properties are left alone whatever they hold, else just this difference.
    """
    approval = approval.checked(now)
    if approval.expires is None:
        raise InputError("ignoring needs an end", remedy="add --expires 30d")
    files: dict[str, bytes | None] = {}
    for finding in findings:
        places = _places(change_of(finding)) if any_value else ()
        if any_value and (not places or "" in places):
            raise InputError(
                f"finding {finding.id} cannot be left alone whatever the value: "
                + (
                    "it is in a list whose items nothing tells apart"
                    if places
                    else "it is a whole resource"
                ),
                where=str(finding.key),
                remedy="ignore just this difference, without --any-value",
            )
        files[f"{IGNORES}{finding.id}.json"] = pretty(
            {
                "key": str(finding.key),
                "change": finding.change.value,
                "paths": [path.path for path in finding.paths],
                "any_value": any_value,
                "places": list(places),
                "by": approval.by,
                "reason": approval.reason,
                "ticket": approval.ticket or None,
                "at": _iso(now),
                "expires": _iso(approval.expires),
            }
        )
    message = _message("Ignore", findings, approval.reason)
    return ledger.put(
        BASELINE,
        files,
        message,
        _trailers(approval, [finding.id for finding in findings], verb="Ignored-By"),
        expected_parent=ledger.tip(BASELINE),
        author=approval.by,
    )


# ------------------------------------------------------------------------------- what is approved


def _chosen(finding: Finding, paths: Sequence[str]) -> tuple[PropertyFinding, ...]:
    """Give the properties that are approved; all of them without `paths`."""
    if finding.change is ChangeType.UNKNOWN:
        raise RefusedError(
            f"finding {finding.id} could not be read, so there is nothing to approve",
            where=str(finding.key),
            remedy="run `muster audit` once it can be read",
        )
    return picked(finding, paths, "approve")


def picked(finding: Finding, paths: Sequence[str], verb: str) -> tuple[PropertyFinding, ...]:
    """Give the properties that `paths` name; all of them without any. Raises InputError."""
    if not paths:
        return finding.paths
    if finding.change is not ChangeType.CHANGED:
        raise InputError(
            f"finding {finding.id} is a whole resource that was {finding.change.value}",
            remedy=f"{verb} it without --path",
        )
    patterns = [path_pattern(path) for path in paths]
    chosen = tuple(p for p in finding.paths if p.path in paths or touches(patterns, p.path))
    if not chosen:
        known = ", ".join(path.path for path in finding.paths[:5])
        raise InputError(
            f"finding {finding.id} has none of these properties", remedy=f"it has {known}"
        )
    return chosen


def _approved_state(finding: Finding, chosen: Sequence[PropertyFinding]) -> Resource | None:
    """Give what the baseline holds from now on: None when the removal is approved."""
    before, after = finding.before, finding.after
    if after is None or before is None or len(chosen) == len(finding.paths):
        return after
    others = [p for p in finding.paths if p not in chosen]
    body_changes: list[PathChange] = []
    payloads = {p.name: p for p in after.payloads}
    old = {p.name: p for p in before.payloads}
    identifier = after.id
    about = {f"/payloads/{name}" for name in {*payloads, *old}}
    for path in others:
        if path.path in about and "payloads" not in after.body:
            _put_back(payloads, old, path.path.removeprefix("/payloads/"))
        elif path.path == "/id" and before.body.get("id") == after.body.get("id"):
            identifier = before.id
        else:
            body_changes.append(PathChange(path.path, path.before, path.after))
    body = undo(before.body, after.body, body_changes, list_identity(finding.kind))
    return Resource(
        finding.key, identifier, body, tuple(payloads[name] for name in sorted(payloads))
    )


def _put_back(payloads: dict[str, Payload], old: Mapping[str, Payload], name: str) -> None:
    if name in old:
        payloads[name] = old[name]
    else:
        payloads.pop(name, None)


def _documents(finding: Finding, after: Resource | None) -> dict[str, bytes | None]:
    files: dict[str, bytes | None] = {
        path_of(finding.key): None if after is None else pretty(after.document())
    }
    if finding.renamed_from is not None:
        files[path_of(finding.renamed_from)] = None
    return files


def same_person(one: str, other: str) -> bool:
    """Whether two names are of one person: whatever the case, and with or without `Name <…>`."""
    return bool(_names(one) & _names(other))


def _names(text: str) -> frozenset[str]:
    """Give what somebody is known by: the whole text, and an address in it."""
    plain = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    found = {plain, *_ADDRESS.findall(plain)}
    found |= {name.removeprefix("oid:") for name in found}
    return frozenset(found - {""})


def _not_the_author(finding: Finding, by: str) -> None:
    """Refuse whoever Azure's records name as the author, of any property."""
    told = [finding.attribution, *(p.attribution for p in finding.paths if p.attribution)]
    authors = [
        name
        for who in told
        if who.principal_kind is not PrincipalKind.PLATFORM
        for name in (who.who, who.principal_id)
        if name
    ]
    if any(same_person(by, name) for name in authors):
        raise RefusedError(
            f"{by} made the change of finding {finding.id}, and four eyes are asked for "
            f"{finding.severity.value} findings",
            where=str(finding.key),
            remedy="let somebody else approve it",
        )


def _people(decisions: Decisions, finding: str) -> tuple[str, ...]:
    found = decisions.pending.get(finding)
    return found.by if found is not None else ()


def _message(verb: str, findings: Sequence[Finding], reason: str) -> str:
    if len(findings) == 1:
        subject = f"{verb} {findings[0].change.value} {findings[0].key}"
    else:
        subject = f"{verb} {len(findings)} findings"
    return f"{subject[:160]}\n\n{reason}"


def _trailers(
    approval: Approval, findings: Sequence[str], verb: str = "Approved-By"
) -> dict[str, str]:
    trailers = {verb: approval.by, "Reason": approval.reason}
    if approval.ticket:
        trailers["Ticket"] = approval.ticket
    if approval.expires is not None:
        trailers["Expires"] = _iso(approval.expires)
    if findings:
        trailers["Findings"] = " ".join(findings)
    return trailers


# ------------------------------------------------------------------------------- documents


def _expiring_document(
    finding: Finding,
    after: Resource | None,
    chosen: Sequence[PropertyFinding],
    approval: Approval,
    expires: datetime,
    now: datetime,
) -> JsonObject:
    return {
        "key": str(finding.key),
        "before": None if finding.before is None else finding.before.document(),
        "after": None if after is None else after.document(),
        "paths": [path_document(PathChange(p.path, p.before, p.after)) for p in chosen],
        "by": approval.by,
        "reason": approval.reason,
        "ticket": approval.ticket or None,
        "at": _iso(now),
        "expires": _iso(expires),
    }


def _expiring_in(finding: str, found: Mapping[str, Json]) -> Expiring:
    sides: list[Resource | None] = []
    for name in ("before", "after"):
        document = found[name]
        sides.append(Resource.from_document(document) if isinstance(document, dict) else None)
    listed = found["paths"]
    return Expiring(
        finding,
        Key.parse(str(found["key"])),
        sides[0],
        sides[1],
        tuple(path_in(p) for p in listed if isinstance(p, dict))
        if isinstance(listed, list)
        else (),
        str(found["by"]),
        _time(found["expires"]),
    )


def _ignore_in(finding: str, found: Mapping[str, Json]) -> IgnoreRecord:
    paths, places = found["paths"], found.get("places")
    named = tuple(str(path) for path in paths) if isinstance(paths, list) else ()
    if not isinstance(places, list):  # as written before items were called by their identity
        places = [path for path in named if not re.search(r"/\d+(/|$)", path)]
    return IgnoreRecord(
        finding,
        Key.parse(str(found["key"])),
        ChangeType(str(found["change"])),
        named,
        bool(found.get("any_value")),
        Ignored(
            str(found["by"]),
            str(found["reason"]),
            _time(found["at"]),
            _time(found["expires"]),
            str(found.get("ticket") or ""),
        ),
        tuple(str(place) for place in places),
    )


def _still(there: Resource | None, approved: Resource | None) -> bool:
    if there is None or approved is None:
        return there is None and approved is None
    return (
        there.id == approved.id
        and there.payloads == approved.payloads
        and canonical(there.body) == canonical(approved.body)
    )


def _time(text: Json) -> datetime:
    found = datetime.fromisoformat(str(text))
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def _iso(when: datetime) -> str:
    return when.astimezone(UTC).isoformat().replace("+00:00", "Z")


def change_of(finding: Finding) -> Change:
    """Give a finding as the difference it is."""
    return Change(
        finding.change,
        finding.key,
        finding.before,
        finding.after,
        tuple(PathChange(p.path, p.before, p.after) for p in finding.paths)
        if finding.change is ChangeType.CHANGED
        else (),
        finding.gap,
        finding.renamed_from,
    )
