"""One audit: read live state, compare it with the baseline, and tell each change's story."""

from __future__ import annotations

import fnmatch
import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from snapshots.audit import incremental, planned
from snapshots.audit.approve import Decisions, effective, load_decisions
from snapshots.audit.archive import (
    Story,
    StoryPath,
    keep,
    load_state,
    load_stories,
    newest_for,
)
from snapshots.audit.attribute import COVERED, OF_PROJECTS, Window, arm_id, attribute
from snapshots.audit.classify import WORST, Merged, Part, Verdict, classify
from snapshots.audit.incremental import LiveRead, read_live, same_state, trailers_of
from snapshots.audit.planned import Plans
from snapshots.audit.records import CHANGES_KEPT, KEPT, LAG, SKEW, Act
from snapshots.audit.report_json import report_document
from snapshots.audit.report_model import (
    Attribution,
    AuditReport,
    Confidence,
    Finding,
    LedgerPlace,
    PropertyFinding,
    Severity,
    count_by,
)
from snapshots.audit.risks import risks_of
from snapshots.audit.rules import Pack, judge, list_identity, load_packs, severity_of
from snapshots.compare import compare
from snapshots.errors import NotFoundError
from snapshots.kinds import BY_NAME
from snapshots.kinds.access import scope_names
from snapshots.kinds.base import Way
from snapshots.ledger import BASELINE, Entry, Ledger, path_of
from snapshots.model import (
    MISSING,
    CallCount,
    Change,
    ChangeType,
    Gap,
    Json,
    JsonObject,
    Key,
    Missing,
    PathChange,
    Resource,
    Snapshot,
    canonical,
    digest,
)
from snapshots.records import Records as Writes
from snapshots.secrets import Fingerprints
from snapshots.take import Payloads, Progress, Scope, TakeOptions, refuse_nothing

_ONE_BY_ONE: Final = 40  # resources whose log is asked one by one before it is asked as a whole

Keeper = Callable[[Snapshot, Mapping[str, str]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What one audit is asked for."""

    scope: tuple[str, ...] = ()  # subscription, group or account names, or patterns over keys
    since: datetime | None = None
    sweep: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How changes are judged: [audit] of muster.toml."""

    rules: tuple[str, ...] = ("builtin",)
    folder: Path = field(default_factory=Path)  # what names of rule packs are relative to
    trusted: tuple[str, ...] = ()
    interval: timedelta = timedelta(hours=24)  # between two sweeps


def audit(
    estate: str,
    scopes: Sequence[Scope],
    cloud: incremental.Cloud,
    ledger: Ledger,
    *,
    fingerprints: Fingerprints,
    clock: incremental.Clock,
    version: str,
    policy: Policy,
    wishes: Wishes | None = None,
    payloads: Payloads | None = None,
    options: TakeOptions | None = None,
    keeper: Keeper | None = None,
    writes: Writes | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> AuditReport:
    """Compare live state with the approved baseline, and say who, when, planned or not, how bad.

    Live state is kept on `live` when it differs from what is there (`keeper` does it, default: the
    ledger alone); what was learned is kept on `evidence`. `writes` are muster's own records: what
    they say it wrote is read again, whatever Azure's log has. Without a baseline there are no
    findings and `report.baseline` is empty. Raises InputError for a wrong rule pack or change
    record, NotFoundError for a scope that names nothing, DeniedError and UnreachableError when
    nobody could be signed in, StoreError.
    """
    wishes = wishes or Wishes()
    began = time.monotonic()
    before_calls = cloud.calls.snapshot()
    packs = load_packs(policy.rules, policy.folder)
    plans = planned.load_plans(ledger)
    decisions = load_decisions(ledger)
    kept_state = load_state(ledger)
    only = None if not wishes.scope else _scoped_top(wishes.scope)
    approved = approved_state(ledger)
    read = read_live(
        estate,
        scopes,
        cloud,
        ledger,
        kept_state,
        fingerprints=fingerprints,
        clock=clock,
        version=version,
        payloads=payloads,
        options=options,
        interval=policy.interval,
        sweep=wishes.sweep,
        only=only,
        writes=writes,
        suspects=_open_in(approved, decisions, clock.now()),
        progress=progress,
    )
    refuse_nothing(read.snapshot)
    if read.previous is not None and same_state(read.previous, read.snapshot):
        live = read.previous.id
    else:
        trailers = trailers_of(read)
        live = (
            keeper(read.snapshot, trailers)
            if keeper is not None
            else ledger.commit(read.snapshot, trailers=trailers).commit
        )
    snapshot = replace(read.snapshot, id=live)
    work = _Audit(
        ledger,
        cloud,
        snapshot,
        read,
        packs,
        plans,
        decisions,
        policy,
        fingerprints,
        clock.now(),
        approved,
    )
    found = work.findings()
    chosen, hidden = _wanted(found, wishes, snapshot, work.baseline)
    classes, severities = count_by(chosen)
    baseline_entry = ledger.entry(approved.id) if approved is not None else None
    report = AuditReport(
        id=f"{read.now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}",
        estate=estate,
        at=read.now,
        version=version,
        baseline=baseline_entry.commit if baseline_entry is not None else "",
        baseline_at=baseline_entry.when if baseline_entry is not None else None,
        baseline_by=baseline_entry.author if baseline_entry is not None else "",
        live=live,
        findings=chosen,
        gaps=tuple(g for g in snapshot.gaps if _gap_in_scope(g, wishes.scope)),
        calls=_since(cloud.calls.snapshot(), before_calls),
        reading=replace(read.reading, holes=tuple(read.records.holes)),
        last_sweep=read.state.swept_at,
        resources=len(snapshot.resources),
        seconds=time.monotonic() - began,
        scope=wishes.scope,
        since=wishes.since,
        risks=risks_of(snapshot, packs, ledger, read.now),
        ignored=sum(f.ignored is not None for f in chosen),
        hidden=hidden,
        expired=work.expired,
        warnings=work.warnings(),
        by_class=classes,
        by_severity=severities,
    )
    # What is kept is the whole audit, also when only a part of it was asked for.
    whole = replace(report, findings=found, hidden=0, ignored=sum(not f.counted for f in found))
    keep(
        ledger,
        replace(read.state, live=live),
        work.new_stories,
        report_document(whole),
        f"Audit of {estate}: {len(found)} findings",
        {
            "Audit-Id": report.id,
            "Findings": str(len(found)),
            "Gaps": str(len(snapshot.gaps)),
            "Baseline": report.baseline or "none",
            "Live": live,
            "Read": report.reading.mode.value,
            "Api-Calls": str(report.calls.made),
        },
    )
    return report


def approved_state(ledger: Ledger) -> Snapshot | None:
    """Give the baseline; None while nothing is approved, also when it holds plans already."""
    if not ledger.tip(BASELINE) or next(ledger.keys(BASELINE), None) is None:
        return None
    return ledger.load(BASELINE)


def _open_in(
    approved: Snapshot | None, decisions: Decisions, now: datetime
) -> Callable[[Snapshot], Iterable[Key]]:
    """Say what differs from the baseline already: it may have been mended meanwhile."""

    def differing(previous: Snapshot) -> Iterable[Key]:
        if approved is None:
            return
        baseline, _ = effective(approved, decisions, now)
        for change in compare(baseline, previous, list_identity, ids=True):
            yield change.key

    return differing


def in_scope(key: Key, scopes: Sequence[str]) -> bool:
    """Whether a key is in one of the scopes: names in a row of its path, or a pattern over it."""
    if not scopes:
        return True
    path = [part.lower() for part in key.path]
    for scope in scopes:
        wanted = _plain_scope(scope)
        if fnmatch.fnmatchcase(str(key).lower(), wanted):
            return True
        parts = wanted.split("/")
        if any(path[at : at + len(parts)] == parts for at in range(len(path))):
            return True
        if parts[0] == key.kind and path[-len(parts[1:]) :] == parts[1:]:
            return True
    return False


def _plain_scope(scope: str) -> str:
    """Give a scope as names in a row; an ARM id, as people paste it, is one too."""
    text = scope.strip().lower()
    if not text.startswith("/subscriptions/"):
        return text.strip("/")
    # What lies below an account is type/name there, and keys have the names alone.
    return "/".join(
        "/".join(name.split("/")[1::2]) if "/" in name else name for name in scope_names(text)
    )


@dataclass(slots=True)
class _Audit:
    """The findings of one audit in the making."""

    ledger: Ledger
    cloud: incremental.Cloud
    live: Snapshot
    read: LiveRead
    packs: tuple[Pack, ...]
    plans: Plans
    decisions: Decisions
    policy: Policy
    fingerprints: Fingerprints
    local_now: datetime
    approved: Snapshot | None
    baseline: Snapshot | None = None
    expired: tuple[str, ...] = ()
    new_stories: list[Story] = field(default_factory=list)
    stories: dict[Key, list[Story]] = field(default_factory=dict)
    acts: dict[str, list[Act]] = field(default_factory=dict)

    def findings(self) -> tuple[Finding, ...]:
        if self.approved is not None:
            self.baseline, self.expired = effective(self.approved, self.decisions, self.local_now)
        changes: list[Change] = []
        if self.baseline is not None:
            changes = list(compare(self.baseline, self.live, list_identity, ids=True))
        self._tell_stories(changes)
        common = self._common(changes)
        many = self._baseline_moved()
        found = with_derived([self._finding(change, common, many=many) for change in changes])
        found.sort(key=lambda f: (-f.severity.rank, f.ignored is not None, f.key.kind, f.key.path))
        return tuple(found)

    def warnings(self) -> tuple[str, ...]:
        told: list[str] = []
        if self.baseline is None:
            told.append(
                "there is no baseline yet: look at live state, then approve it with "
                "`muster approve --all --reason TEXT`"
            )
        return tuple(told)

    # ---- stories -----------------------------------------------------------------------------

    def _tell_stories(self, changes: Sequence[Change]) -> None:
        """Learn who made what changed since the last read, and what no story tells yet."""
        self.stories = load_stories(self.ledger)
        pending: list[tuple[Change, Window]] = []
        if self.read.previous is not None:
            for change in compare(self.read.previous, self.live, list_identity, ids=True):
                if change.type is not ChangeType.UNKNOWN:
                    # What was written while this read went on may be in it, too.
                    window = Window(self.read.last_read(change.key), self.read.done)
                    pending.append((change, window))
        fresh = {change.key: change for change, _ in pending}
        for change in changes:
            if change.type is not ChangeType.UNKNOWN:
                pending += self._untold(change, fresh.get(change.key))
        # Oldest first: what an earlier story tells is no reason for a later change.
        pending.sort(key=lambda pair: pair[1].until)
        again = [
            story
            for stories in self.stories.values()
            for story in stories
            if story.open and self.read.now - story.until < KEPT
        ]
        pending[:0] = [(_change_of(story), Window(story.after, story.until)) for story in again]
        if not pending:
            return
        self._ask(pending)
        for act in self.read.records.acts():
            self.acts.setdefault(_top_id(act.resource), []).append(act)
        for change, window in pending:
            self._tell(change, window)

    def _tell(self, change: Change, window: Window) -> None:
        told = attribute(
            change,
            window,
            self.read.records,
            self._acts_near(change, window),
            now=self.read.now,
            fingerprints=self.fingerprints,
        )
        events: list[JsonObject] = []
        named = {*told.whole.events, *(e for a in told.paths.values() for e in a.events)}
        for act in told.acts:
            events += [event.kept for event in act.events if event.id in named]
        resource = change.after or change.before
        after = change.after
        paths = change.paths
        if change.type is ChangeType.ADDED:  # who else wrote to it before it was first read
            paths = tuple(PathChange(path, MISSING, MISSING) for path in told.paths)
        story = Story(
            change.key,
            change.type,
            window.after,
            window.until,
            tuple(StoryPath(path, told.paths.get(path.path)) for path in paths),
            told.whole,
            tuple(events),
            resource.id if resource is not None else "",
            told.settled,
            "" if after is None else digest(canonical(after.body)),
        )
        known = self.stories.setdefault(change.key, [])
        for index, old in enumerate(known):
            if old.until == story.until and old.change is story.change:
                if not _says_more(story, old):
                    return
                story = replace(story, body_digest=old.body_digest)
                known[index] = story
                break
        else:
            known.append(story)
            known.sort(key=lambda s: s.until)
        self.new_stories.append(story)

    def _untold(self, change: Change, fresh: Change | None) -> list[tuple[Change, Window]]:
        """Give what the history of live says of a change that no story tells.

        Plain snapshots tell none. `fresh` is what changed since the last read, which is told.
        """
        known = self.stories.get(change.key, [])
        state = self.live
        if fresh is not None:
            if self.read.previous is None:
                return []
            state = self.read.previous
            if _same_body(state.resources.get(change.key), change.before):
                return []  # until now it was as the baseline says
        if known and _tells(known, change, fresh, state.resources.get(change.key)):
            return []
        entries = list(self.ledger.history(change.key, ref=state.id))
        found: list[tuple[Change, Window]] = []
        for at, (entry, resource) in enumerate(entries):
            older = entries[at + 1][1] if at + 1 < len(entries) else None
            if not entry.parents:
                break  # the first snapshot: nobody knows what was before
            window = self._window(entry)
            found += [
                (step, window)
                for step in compare(
                    _alone(change.key, older), _alone(change.key, resource), list_identity, ids=True
                )
                if not any(_same_story(story, step, window, entry) for story in known)
            ]
        return found

    def _window(self, entry: Entry) -> Window:
        parent = self.ledger.entry(entry.parents[0])
        # Read later than its parent, whatever the two clocks made of it: stories go by that order.
        later = self._read_until(parent) + timedelta(microseconds=1)
        return Window(_read_time(parent, first=True), max(self._read_until(entry), later))

    def _read_until(self, entry: Entry) -> datetime:
        with suppress(ValueError):  # an audit's, since it notes where its stories end
            return datetime.fromisoformat(entry.trailers.get(incremental.READ_UNTIL, ""))
        noted = _read_time(entry)
        # A plain snapshot notes our clock: where Azure's is ahead, records are later than that.
        ahead = self.read.now - self.local_now
        if not entry.trailers.get(incremental.READ_AT) and ahead > timedelta(0):
            noted += ahead
        return min(noted + timedelta(seconds=entry.number("Duration")), self.read.done)

    def _ask(self, pending: Sequence[tuple[Change, Window]]) -> None:
        """Read the records that the windows need and that were not read yet."""
        records, now = self.read.records, self.read.now
        graph: list[str] = []
        graph_since = now
        older: dict[str, datetime] = {}
        for change, window in pending:
            resource = change.after or change.before
            if resource is None or not resource.id.startswith("/"):
                continue
            since = window.after or now - KEPT
            if change.key.kind in COVERED and now - window.until < CHANGES_KEPT:
                graph.append(resource.id.lower())
                graph_since = min(graph_since, since)
            known = records.read_from.get(change.key.path[0])
            if known is None or since < known:
                older[resource.id] = min(since, older.get(resource.id, since))
        if len(older) <= _ONE_BY_ONE:
            for id_, since in sorted(older.items()):
                records.read_log(self.cloud, id_.split("/")[2], since, now, resource=id_)
        else:
            by_subscription: dict[str, datetime] = {}
            for id_, since in older.items():
                subscription = id_.split("/")[2]
                by_subscription[subscription] = min(since, by_subscription.get(subscription, since))
            for subscription, since in sorted(by_subscription.items()):
                records.read_log(self.cloud, subscription, since, now)
        if graph:
            records.read_changes(self.cloud, sorted(set(graph)), graph_since - timedelta(1), now)

    def _acts_near(self, change: Change, window: Window) -> list[Act]:
        found: dict[int, Act] = {}
        # Clocks differ, so a window reaches back a little: there may be what was told already.
        told: set[str] = set()
        earlier = [s for s in self.stories.get(change.key, ()) if s.until < window.until]
        after = window.after
        if change.before is not None:
            # What an earlier story ended with was there at its end, however old the last sweep is.
            was = digest(canonical(change.before.body))
            seen = [story.until for story in earlier if story.body_digest == was]
            after = max((t for t in (after, *seen) if t is not None), default=None)
        if after is not None:
            for story in earlier:
                if story.until <= after + SKEW:
                    told |= {e for p in story.paths if p.attribution for e in p.attribution.events}
                    told |= set(story.attribution.events)
        for resource in (change.before, change.after):
            id_ = arm_id(change.key, resource.id) if resource is not None else ""
            if not id_:
                continue
            parts = id_.split("/")
            tops = {_top_id(id_), *("/".join(parts[:length]) for length in (3, 5))}
            for top in tops:
                for act in self.acts.get(top, ()):
                    if after is None or act.ended > after or not _told_in(act, told):
                        found[id(act)] = act
        return sorted(found.values(), key=lambda act: (act.ended, act.begun))

    # ---- findings ----------------------------------------------------------------------------

    def _finding(
        self, change: Change, common: Mapping[tuple[str, str, bytes], int], *, many: bool
    ) -> Finding:
        stories = self.stories.get(change.key, [])
        parts, paths, who, window, first_seen = self._parts(change, stories)
        hits = judge(change, self.packs)
        severity = severity_of(change, hits, self.packs)
        verdict = self._verdict(change, parts, stories, common, many=many)
        identifier = finding_id(change)
        kind = BY_NAME.get(change.key.kind)
        resource = change.after or change.before
        comeback = (
            kind.recovery(change.before or resource)
            if kind is not None and resource is not None
            else None
        )
        decided = self.decisions.ignored(identifier, change, self.local_now)
        there = self.live.id
        if change.type is ChangeType.REMOVED and self.baseline is not None:
            there = self.baseline.id
        return Finding(
            id=identifier,
            fingerprint=fingerprint(change),
            key=change.key,
            kind=change.key.kind,
            kind_title=kind.title if kind is not None else change.key.kind,
            change=change.type,
            resource_id=resource.id if resource is not None else "",
            paths=paths,
            class_=verdict.class_,
            severity=severity,
            rules=hits,
            attribution=who,
            reasons=verdict.reasons,
            place=LedgerPlace(path_of(change.key), there),
            first_seen=first_seen,
            window=(window.after, window.until),
            ticket=verdict.ticket,
            gap=change.gap,
            renamed_from=change.renamed_from,
            before=change.before,
            after=change.after,
            restore=comeback.sentence if comeback is not None else "",
            recovery=comeback.recovery.value if comeback is not None else "",
            undo=undo_words(change),
            ignored=decided,
            pending=self.decisions.pending.get(identifier),
        )

    def _parts(
        self, change: Change, stories: Sequence[Story]
    ) -> tuple[tuple[Part, ...], tuple[PropertyFinding, ...], Attribution, Window, datetime]:
        """Take a change apart by who made which property."""
        now = self.read.now
        nowhere = Window(None, now)
        holes = bool(self.read.records.holes)

        def settled(window: Window) -> bool:
            return now >= window.until + LAG and not holes

        if change.type is not ChangeType.CHANGED:
            story = next((s for s in reversed(stories) if s.change is change.type), None)
            who = story.attribution if story is not None else _untold_words(change)
            window = Window(story.after, story.until) if story is not None else nowhere
            whole = PropertyFinding(
                "",
                change.before.body if change.before is not None else MISSING,
                change.after.body if change.after is not None else MISSING,
            )
            paths = () if change.type is ChangeType.UNKNOWN else (whole,)
            part = Part((), who, window, settled(window) and story is not None)
            if change.type is not ChangeType.ADDED or story is None:
                return (part,), paths, who, window, window.until
            later = [
                Part((), p.attribution, window, settled(window))
                for p in story.paths
                if p.attribution is not None
            ]
            for next_ in stories[stories.index(story) + 1 :]:
                if next_.change is ChangeType.CHANGED:
                    since = Window(next_.after, next_.until)
                    edited = tuple(p.change for p in next_.paths)
                    later.append(Part(edited, next_.attribution, since, settled(since)))
            if others := sorted({p.who.who or "somebody unknown" for p in later} - {who.who}):
                words = f"written to since by {', '.join(others)}: see `muster history`"
                who = replace(who, reasons=(*who.reasons, words))
            return (part, *later), paths, who, window, window.until
        groups: dict[tuple[str, str, str, datetime], list[PathChange]] = {}
        about: dict[tuple[str, str, str, datetime], tuple[Attribution, Window, bool]] = {}
        named: list[PropertyFinding] = []
        for path in change.paths:
            told = newest_for(stories, path)
            if told is None:
                created = next((s for s in reversed(stories) if s.change is ChangeType.ADDED), None)
                told = (created, None) if created is not None else None
            if told is None:
                who, window, known = _untold_words(change), nowhere, False
            else:
                story, own = told
                who = own or story.attribution
                window, known = Window(story.after, story.until), True
            same = (who.who, who.correlation_id, who.operation, window.until)
            groups.setdefault(same, []).append(path)
            about[same] = (who, window, known)
            named.append(PropertyFinding(path.path, path.before, path.after, who))
        parts = tuple(
            Part(
                tuple(group),
                about[same][0],
                about[same][1],
                settled(about[same][1]) and about[same][2],
            )
            for same, group in groups.items()
        )
        newest = max(parts, key=lambda p: (p.who.known, p.who.when or p.window.until))
        first = min(part.window.until for part in parts)
        who = newest.who
        if len(parts) > 1 and who.known:
            words = f"{len(parts)} operations made this together: see each property"
            if not any(r.endswith("see each property") for r in who.reasons):
                who = replace(who, reasons=(*who.reasons, words))
        return parts, tuple(named), who, newest.window, first

    def _verdict(
        self,
        change: Change,
        parts: Sequence[Part],
        stories: Sequence[Story],
        common: Mapping[tuple[str, str, bytes], int],
        *,
        many: bool,
    ) -> Verdict:
        merged = self._merged(change, stories) if many else None
        return classify(
            change,
            parts,
            self.plans,
            self.policy.trusted,
            merged=merged,
            common=lambda path: common.get(_common_name(change.key.kind, path), 0),
        )

    def _baseline_moved(self) -> bool:
        """Whether the baseline has a history at all, in which something may have been merged."""
        return self.baseline is not None and len(list(self.ledger.log(2, ref=BASELINE))) > 1

    def _merged(self, change: Change, stories: Sequence[Story]) -> Merged | None:
        """Give the commit that moved the baseline away from what live still is."""
        if change.type is ChangeType.UNKNOWN or change.renamed_from is not None:
            return None
        entries = list(self.ledger.history(change.key, ref=BASELINE))
        if not entries or not entries[0][0].parents:
            return None
        entry, _ = entries[0]
        before = entries[1][1] if len(entries) > 1 else None
        after = change.after
        if before is None or after is None:
            if before is not None or after is not None:
                return None
        elif before.payloads != after.payloads or canonical(before.body) != canonical(after.body):
            return None
        if any(story.until > entry.when for story in stories):
            return None  # live changed after the merge: it is somebody else's doing
        return Merged(entry.commit, entry.subject, entry.author, entry.when)

    def _common(self, changes: Iterable[Change]) -> Mapping[tuple[str, str, bytes], int]:
        """Count how many resources got the same new property with the same value."""
        found: Counter[tuple[str, str, bytes]] = Counter()
        for change in changes:
            if change.type is ChangeType.CHANGED:
                found.update({_common_name(change.key.kind, path) for path in change.paths})
        return found


def with_derived(found: Sequence[Finding]) -> list[Finding]:
    """Judge an account's list of projects by the projects that came and went, not by itself."""
    projects: dict[tuple[str, ...], list[Finding]] = {}
    for finding in found:
        if finding.kind == "project" and finding.change in {ChangeType.ADDED, ChangeType.REMOVED}:
            projects.setdefault(finding.key.path[:3], []).append(finding)
    told: list[Finding] = []
    for finding in found:
        causes = projects.get(finding.key.path, []) if finding.kind == "account" else []
        if (
            not causes
            or finding.change is not ChangeType.CHANGED
            or not all(path.path.startswith(OF_PROJECTS) for path in finding.paths)
            or not _listed(finding) <= {cause.key.name.lower() for cause in causes}
        ):
            told.append(finding)
            continue
        worst = max(causes, key=lambda cause: WORST.index(cause.class_))
        names = ", ".join(f"{cause.key.name} was {cause.change.value}" for cause in causes)
        reason = f"it follows: project {names}, and Azure keeps the account's list of its projects"
        told.append(
            replace(
                finding,
                class_=worst.class_,
                severity=Severity.INFO,
                reasons=(reason, *worst.reasons),
                ticket=worst.ticket,
            )
        )
    return told


def _listed(finding: Finding) -> set[str]:
    """Give the names that came into an account's list of projects, or left it."""
    names: set[str] = set()
    for path in finding.paths:
        if path.path.startswith(OF_PROJECTS[0]):
            for value in (path.before, path.after):
                if not isinstance(value, Missing):
                    names |= {
                        str(v).lower() for v in (value if isinstance(value, list) else [value])
                    }
    return names


# ------------------------------------------------------------------------------- small things


def finding_id(change: Change) -> str:
    """Give the name of a difference: the same in every run, another once it differs otherwise."""
    parts: list[bytes] = [str(change.key).encode(), change.type.value.encode()]
    match change.type:
        case ChangeType.CHANGED:
            for path in sorted(change.paths, key=lambda p: p.path):
                parts.append(path.path.encode())
                parts += [
                    b"-" if value is MISSING else canonical(value)
                    for value in (path.before, path.after)
                ]
        case ChangeType.ADDED if change.after is not None:
            parts += _whole(change.after)
        case ChangeType.REMOVED if change.before is not None:
            parts += _whole(change.before)
        case _:
            pass
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def still_so(finding: Finding, baseline: Snapshot) -> bool:
    """Whether the baseline differs from what a finding reported just as it said."""
    old = finding.renamed_from or finding.key
    found = compare(
        _alone(old, baseline.resources.get(old)),
        _alone(finding.key, finding.after),
        list_identity,
        ids=True,
    )
    return [finding_id(change) for change in found] == [finding.id]


def _whole(resource: Resource) -> list[bytes]:
    return [resource.id.lower().encode(), canonical(resource.body)]


def fingerprint(change: Change) -> str:
    """Give a name that stays while the values change: resource, kind of change, properties."""
    paths = sorted(path.path for path in change.paths)
    text = "\0".join([str(change.key), change.type.value, *paths])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def undo_words(change: Change) -> str:
    """Say in a sentence what a revert would do."""
    kind = BY_NAME.get(change.key.kind)
    if change.type is ChangeType.UNKNOWN:
        return "nothing: it could not be read"
    if kind is None or kind.way is Way.NEVER:
        return "muster never writes this kind: undo it by hand"
    match change.type:
        case ChangeType.ADDED:
            return "delete it: it is not in the baseline"
        case ChangeType.REMOVED:
            return "make it again as it is in the baseline"
        case _:
            count = len(change.paths)
            return f"set {count} propert{'y' if count == 1 else 'ies'} back to the baseline's value"


def _tells(
    known: Sequence[Story], change: Change, fresh: Change | None, there: Resource | None
) -> bool:
    """Whether stories tell how a resource came to what it is, and not to what it once was."""
    last = known[-1]
    if last.body_digest != ("" if there is None else digest(canonical(there.body))):
        return False
    if fresh is not None and fresh.type is not ChangeType.CHANGED:
        return True
    if change.type is not ChangeType.CHANGED:
        return any(story.change is change.type for story in known)
    mine = {path.path for path in fresh.paths} if fresh is not None else frozenset()
    for path in change.paths:
        if path.path in mine:
            continue
        told = newest_for(known, path)
        if told is None:
            return False
        now = next((p.change for p in told[0].paths if p.change.path == path.path), None)
        if now is not None and not _same_value(now.after, path.after):
            return False
    return True


def _same_body(one: Resource | None, two: Resource | None) -> bool:
    if one is None or two is None:
        return one is two
    return one.payloads == two.payloads and canonical(one.body) == canonical(two.body)


def _same_value(one: Json | Missing, two: Json | Missing) -> bool:
    if isinstance(one, Missing) or isinstance(two, Missing):
        return one is two
    return canonical(one) == canonical(two)


def _same_story(story: Story, step: Change, window: Window, entry: Entry) -> bool:
    """Whether a story is that of one step in the history of live."""
    if story.change is not step.type:
        return False
    if story.change is ChangeType.CHANGED and {p.change.path for p in story.paths} != {
        path.path for path in step.paths
    }:
        return False
    after = "" if step.after is None else digest(canonical(step.after.body))
    near = 2 * SKEW + timedelta(seconds=entry.number("Duration"))
    return story.body_digest in {"", after} and abs(story.until - window.until) <= near


def _told_in(act: Act, events: set[str]) -> bool:
    return any(event.id in events for event in act.events)


def _untold_words(change: Change) -> Attribution:
    if change.type is ChangeType.UNKNOWN:
        return Attribution(
            reasons=("unattributed: it could not be read, so nobody knows whether it changed",)
        )
    words = (
        "unattributed: live never was as the baseline says since muster reads it, so no time of "
        "the change is known"
    )
    return Attribution(reasons=(words,))


def _says_more(new: Story, old: Story) -> bool:
    order = [Confidence.NONE, Confidence.LOW, Confidence.MEDIUM, Confidence.HIGH]
    sure, before = (order.index(story.attribution.confidence) for story in (new, old))
    told, known = (sum(p.attribution is not None for p in story.paths) for story in (new, old))
    if sure < before or told < known:
        return False  # Azure has forgotten it meanwhile: what was learned stays
    address = bool(new.attribution.address) and not old.attribution.address
    return sure > before or told > known or address or (new.settled and not old.settled)


def _change_of(story: Story) -> Change:
    """Give a story's change again, as far as attribution needs it."""
    resource = Resource(story.key, story.resource_id, {})
    return Change(
        story.change,
        story.key,
        None if story.change is ChangeType.ADDED else resource,
        None if story.change is ChangeType.REMOVED else resource,
        tuple(path.change for path in story.paths),
    )


def _alone(key: Key, resource: Resource | None) -> Snapshot:
    resources = {} if resource is None else {key: resource}
    return Snapshot("", datetime.fromisoformat("2000-01-01T00:00:00+00:00"), "", resources)


def _read_time(entry: Entry, *, first: bool = False) -> datetime:
    """Give when a commit's state was read; with `first`, when all of it had been read at least."""
    names = (incremental.SWEPT_AT, incremental.READ_AT) if first else (incremental.READ_AT,)
    for name in names:
        try:
            return datetime.fromisoformat(entry.trailers.get(name, ""))
        except ValueError:
            continue
    return entry.taken_at


def _top_id(resource: str) -> str:
    return "/".join(resource.split("/")[:9])


def _common_name(kind: str, path: PathChange) -> tuple[str, str, bytes]:
    after = b"-" if path.after is MISSING else canonical(path.after)
    return kind, path.path, after if path.before is MISSING else b""


def _scoped_top(scopes: Sequence[str]) -> Callable[[Key], bool]:
    """Say which accounts may hold something that the scopes name."""

    def wanted(top: Key) -> bool:
        for scope in scopes:
            text = _plain_scope(scope)
            parts = text.split("/")
            if "*" in text or any(part in {p.lower() for p in top.path} for part in parts):
                return True
        return in_scope(top, scopes)

    return wanted


def _gap_in_scope(gap: Gap, scopes: Sequence[str]) -> bool:
    return not scopes or len(gap.key.path) < 3 or _scoped_top(scopes)(gap.key)


def _wanted(
    found: Sequence[Finding], wishes: Wishes, live: Snapshot, baseline: Snapshot | None
) -> tuple[tuple[Finding, ...], int]:
    if wishes.scope:
        known: list[Iterable[Key]] = [live.resources, live.stale]
        if baseline is not None:
            known.append(baseline.resources)
        for scope in wishes.scope:
            if not any(in_scope(key, (scope,)) for keys in known for key in keys):
                raise NotFoundError(
                    f"the scope {scope!r} names nothing in live state or in the baseline",
                    where="--scope",
                    remedy="name a subscription, group or account: `muster show` lists them",
                )
    chosen = tuple(
        f
        for f in found
        if in_scope(f.key, wishes.scope)
        and (wishes.since is None or (f.attribution.when or f.window[1]) >= wishes.since)
    )
    return chosen, len(found) - len(chosen)


def _since(after: CallCount, before: CallCount) -> CallCount:
    return CallCount(
        made=after.made - before.made,
        floor=after.floor - before.floor,
        throttled=after.throttled - before.throttled,
        retried=after.retried - before.retried,
        by_kind={
            kind: number - before.by_kind.get(kind, 0)
            for kind, number in after.by_kind.items()
            if number > before.by_kind.get(kind, 0)
        },
    )
