"""Write the site: a folder of pages that need nothing else, the same bytes for the same records.

Every page carries its style; charts are drawn here; nothing is fetched and no script runs, so that
it opens from a disk, from an archive and from the vault.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from muster.report import audit_words as words
from muster.report import site_charts as charts
from muster.report.pages import STYLE, page
from muster.report.site_charts import Drawn, Series
from muster.report.site_drift import WHOLE
from muster.report.site_model import (
    DrillView,
    Level,
    Part,
    Problem,
    RehearsalRow,
    RunRow,
    Site,
    Source,
    before,
    day,
    span,
    when,
    worst,
)
from snapshots.errors import InputError
from snapshots.model import Recovery
from snapshots.vault import Vault

VAULT: Final = "reports"  # folder of the vault
MARK: Final = "muster-report.txt"  # how a folder of ours is known again
ROWS: Final = 500  # resources on one page
RESOURCES: Final = 20_000  # listed at most; beyond, the table by kind and account tells them
PROBLEMS: Final = 8  # on the first screen
LISTED: Final = 200  # problems at all
RUNS: Final = 20  # of one drill in its table
INDEX: Final = 1_000  # rows of the index of evidence
ACCOUNTS: Final = 500
_STYLES: Final = (STYLE, "site/site.css")
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # an archive's oldest time: the same bytes each time

RECOVERY_WORDS: Final = (
    ("restored", "under the same identity"),
    ("recreated", "with a new id, carried through wherever the old one is named"),
    ("copied", "by Azure, from the source region while it answers"),
    ("rebuilt", "by hours of work, such as training again"),
    ("recorded", "not at all: what it was is known, and nothing more"),
    ("lost", "not at all: Azure cannot bring it back"),
)


@dataclass(frozen=True, slots=True)
class _Tab:
    """One entry of the navigation."""

    href: str
    name: str
    level: Level


@dataclass(frozen=True, slots=True)
class _Page:
    """What the frame knows of a page."""

    href: str
    tab: str
    title: str
    part: Part


@dataclass(frozen=True, slots=True)
class _Tile:
    """One figure of the summary."""

    href: str
    name: str
    level: Level
    figure: str
    words: str


@dataclass(frozen=True, slots=True)
class _DrillRow:
    view: DrillView
    chart: Drawn | None
    runs: Sequence[RunRow]
    more: str


@dataclass(frozen=True, slots=True)
class _RehearsalRow:
    row: RehearsalRow
    chart: Drawn | None


def pages(site: Site) -> dict[str, bytes]:
    """Give every file of the site by its path. The same site gives the same bytes."""
    nav = (
        _Tab("index.html", "Summary", site.level),
        _Tab("estate.html", "Estate", site.estate.part.level),
        _Tab("readiness.html", "Readiness", site.readiness.part.level),
        _Tab("drift.html", "Drift", site.drift.part.level),
        _Tab("replication.html", "Replication", site.replication.part.level),
        _Tab("drills.html", "Drills", site.drills.part.level),
        _Tab("unrecoverable.html", "Unrecoverable", site.unrecoverable.part.level),
        _Tab("evidence.html", "Evidence", site.evidence.part.level),
    )
    shared: dict[str, object] = {
        "site": site,
        "nav": nav,
        "now": site.now,
        "version": site.version,
        "when": when,
        "before": before,
        "span": span,
        "iso": _iso,
        "size": _size,
        "unknown": Level.UNKNOWN,
    }

    def fill(template: str, this: _Page, more: Mapping[str, object]) -> bytes:
        return page(f"site/{template}.html.j2", {**shared, "page": this, **more}, _STYLES)

    found: dict[str, bytes] = {}
    for template, title, part, context in _main(site):
        href = f"{template}.html"
        found[href] = fill(template, _Page(href, href, title, part), context)
    for href, context in _resources(site):
        this = _Page(href, "estate.html", "Resources", site.estate.part)
        found[href] = fill("resources", this, context)
    for view in site.drills.drills:
        for run in view.runs:
            if run.page:
                this = _Page(run.page, "drills.html", run.title, site.drills.part)
                found[run.page] = fill(
                    "drill", this, {"run": run, "chart": _steps(run), "distribution": _spread(run)}
                )
    found |= site.copies
    found[MARK] = _mark(site)
    return dict(sorted(found.items()))


def _main(site: Site) -> Iterator[tuple[str, str, Part, dict[str, object]]]:
    estate, drift = site.estate, site.drift
    recovery = _recovery(site)
    yield (
        "index",
        "Summary",
        Part(site.level, "", _sources(site)),
        {
            "hero": hero(site),
            "tiles": _tiles(site),
            "problems": site.problems[:PROBLEMS],
            "more_problems": site.problems[PROBLEMS:LISTED],
            "recovery": recovery,
        },
    )
    total = len(estate.accounts)
    yield (
        "estate",
        "Estate and coverage",
        estate.part,
        {
            "recovery": recovery,
            "recovery_words": [(w, t) for w, t in RECOVERY_WORDS if estate.by_recovery.get(w)],
            "accounts": sorted(estate.accounts, key=lambda a: -a.level.rank)[:ACCOUNTS],
            "accounts_more": f"{total - ACCOUNTS:,} more accounts: the list of resources has them."
            if total > ACCOUNTS
            else "",
            "history": _history(site),
            "gaps_limit": 500,
        },
    )
    clocks = [c for c in site.readiness.clocks if c.ends > site.now] or [*site.readiness.clocks]
    yield (
        "readiness",
        "Readiness",
        site.readiness.part,
        {"chart": _pairs(site), "next_clock": clocks[0] if clocks else None},
    )
    open_total = sum(drift.by_severity.values())
    yield (
        "drift",
        "Drift and findings",
        drift.part,
        {
            "audited": bool(drift.by_severity),
            "audits": _audits(site),
            "changes": _changes(site),
            "findings": drift.findings[:WHOLE],
            "open_total": open_total,
            "findings_more": f"The worst {WHOLE} are told here; `muster audit --format html` tells "
            f"all {open_total:,}."
            if open_total > WHOLE
            else "",
        },
    )
    yield "replication", "Replication", site.replication.part, {}
    yield (
        "drills",
        "Drills",
        site.drills.part,
        {
            "drills": [_drill(view) for view in _ordered(site.drills.drills)],
            "rehearsals": [
                _RehearsalRow(row, _distribution(row)) for row in site.drills.rehearsals
            ],
        },
    )
    yield "unrecoverable", "What would not come back", site.unrecoverable.part, {}
    yield "evidence", "Evidence", site.evidence.part, {"rows": site.evidence.rows[:INDEX]}


def hero(site: Site) -> str:
    """Answer in one sentence whether the estate could be recovered."""
    if not site.estate.resources:
        return "Nobody knows: nothing of it was ever kept."
    return {
        Level.GOOD: "Yes, as far as muster can tell.",
        Level.NOTE: "Yes, as far as muster can tell.",
        Level.RISK: "Yes today, with risks.",
        Level.UNKNOWN: "Not known: something was never asked or could not be read.",
        Level.BAD: "Not as promised: problems stand in the way.",
    }[site.level]


def _sources(site: Site) -> tuple[Source, ...]:
    parts = (site.estate.part, site.readiness.part, site.drift.part)
    return tuple(s for part in parts for s in part.sources[:1])


def _tiles(site: Site) -> list[_Tile]:
    estate, drift = site.estate, site.drift
    open_ = sum(drift.by_severity.values())
    real = [v.real for v in site.drills.drills if v.real is not None]
    slowest = max((r.rto for r in real if r.rto is not None), default=None)
    pairs = site.readiness.pairs
    met = sum(1 for p in pairs for c in p.checks if c.level is Level.GOOD)
    asked = sum(len(p.checks) for p in pairs)
    lost = site.unrecoverable
    unsigned = sum(1 for row in lost.rows if row.level.rank > 1)
    replicas = [r for p in site.replication.pairs for r in p.replicas]
    proved = sum(1 for r in replicas if r.state == "proved")
    percent = f"{estate.comes_back / estate.resources:.0%}" if estate.resources else "not known"
    if estate.resources and estate.comes_back < estate.resources and percent == "100%":
        percent = "99.9%"
    return [
        _Tile("estate.html", "Comes back", _back_level(site), percent, _back_words(site)),
        _Tile(
            "estate.html",
            "Fresh",
            estate.part.level,
            words.age((site.now - estate.history[-1].at).total_seconds())
            if estate.history
            else "not known",
            estate.part.headline,
        ),
        _Tile(
            "readiness.html",
            "Ready",
            site.readiness.part.level,
            f"{met} of {asked} met" if asked else "not known",
            site.readiness.part.headline,
        ),
        _Tile(
            "drift.html",
            "Drift",
            drift.part.level,
            (words.plural(open_, "finding") if open_ else "none")
            if drift.by_severity
            else "not known",
            drift.part.headline,
        ),
        _Tile(
            "replication.html",
            "Standby in step",
            site.replication.part.level,
            f"{proved} of {len(replicas)} proved" if replicas else _step_words(site),
            site.replication.part.headline,
        ),
        _Tile(
            "drills.html",
            "Rehearsed",
            site.drills.part.level,
            f"RTO {span(slowest)}" if slowest is not None else "not known",
            site.drills.part.headline,
        ),
        _Tile(
            "unrecoverable.html",
            "Accepted losses",
            lost.part.level,
            f"{unsigned} unsigned" if unsigned else ("all signed" if lost.rows else "none"),
            lost.part.headline,
        ),
        _Tile(
            "readiness.html#clocks",
            "Rescue clocks",
            worst([c.level for c in site.readiness.clocks])
            if site.readiness.clocks
            else (Level.GOOD if site.readiness.objectives else Level.UNKNOWN),
            f"{len(site.readiness.clocks)} running"
            if site.readiness.clocks
            else ("none" if site.readiness.objectives else "not known"),
            _clock_words(site),
        ),
        _Tile(
            "evidence.html",
            "Evidence",
            site.evidence.part.level,
            f"{len(site.evidence.rows) + site.evidence.more:,} entries",
            site.evidence.part.headline,
        ),
    ]


def _back_level(site: Site) -> Level:
    if not site.estate.resources:
        return Level.UNKNOWN
    if site.estate.unread:
        return Level.UNKNOWN
    return Level.GOOD if site.estate.comes_back == site.estate.resources else Level.NOTE


def _back_words(site: Site) -> str:
    estate = site.estate
    if not estate.resources:
        return "nothing is kept: run `muster snapshot`"
    told = f"{estate.comes_back:,} of {estate.resources:,} resources have a way back"
    return f"{told}; {estate.unread:,} were not read now" if estate.unread else told


def _step_words(site: Site) -> str:
    pairs = site.replication.pairs
    if not pairs:
        return "not known"
    done = sum(1 for p in pairs if p.level is Level.GOOD)
    return f"{done} of {words.plural(len(pairs), 'pair')}"


def _clock_words(site: Site) -> str:
    clocks = site.readiness.clocks
    if clocks:
        return f"the first: {clocks[0].what} {clocks[0].left}"
    return "nothing waits to be taken back" if site.readiness.objectives else "run `muster ready`"


# ---------------------------------------------------------------------------------------- charts


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _recovery(site: Site) -> Drawn | None:
    regions = [*site.estate.by_region]
    shown = regions[:8]
    series = [
        Series(
            recovery.value,
            recovery.value,
            [float(site.estate.by_region[region].get(recovery.value, 0)) for region in shown],
            [f"{region}, {recovery.value}" for region in shown],
        )
        for recovery in Recovery
    ]
    told = ", ".join(f"{n:,} {name}" for name, n in site.estate.by_recovery.items() if n)
    more = f" The first 8 of {len(regions)} regions." if len(regions) > 8 else ""
    return charts.stacked(
        f"Resources by region and by how they come back: {told}",
        shown,
        series,
        unit=_count,
        caption=f"Resources by region: {told}.{more}",
    )


def _history(site: Site) -> Drawn | None:
    points = site.estate.history
    if len(points) < 2:
        return None
    names = [f"{when(p.at)}, {p.commit[:12]}" for p in points]
    return charts.lines(
        f"Resources and gaps of {len(points)} snapshots",
        [_mark_time(p.at, points[0].at, points[-1].at) for p in points],
        [
            Series("resources", "main", [float(p.resources) for p in points], names),
            Series("gaps", "not-known", [float(p.gaps) for p in points], names),
        ],
        unit=_count,
        caption=f"The last {len(points)} snapshots, {day(points[0].at)} to {day(points[-1].at)}.",
    )


def _mark_time(at: datetime, first: datetime, last: datetime) -> str:
    style = "%H:%M" if (last - first).total_seconds() < 86400 else "%m-%d"
    return at.astimezone(UTC).strftime(style)


_CHECK_LEVELS: Final = (Level.GOOD, Level.RISK, Level.UNKNOWN, Level.BAD)
_CHECK_WORDS: Final = {
    Level.GOOD: "met",
    Level.RISK: "at risk",
    Level.UNKNOWN: "not known",
    Level.BAD: "not met",
}


def _pairs(site: Site) -> Drawn | None:
    views = [v for v in site.readiness.pairs if v.checks][:12]
    return charts.stacked(
        "Checks of readiness by pair and state",
        [v.name for v in views],
        [
            Series(
                _CHECK_WORDS[level],
                level.slug,
                [float(sum(c.level is level for c in v.checks)) for v in views],
                [f"{v.name}, {_CHECK_WORDS[level]}" for v in views],
            )
            for level in _CHECK_LEVELS
        ],
        unit=_count,
        caption="Checks by pair: met, at risk, not known, not met.",
    )


def _audits(site: Site) -> Drawn | None:
    points = site.drift.audits
    if len(points) < 2:
        return None
    names = [f"{when(p.at)}, {p.id}" for p in points]
    return charts.lines(
        f"Findings and gaps of {len(points)} audits, from {when(points[0].at)}",
        [_mark_time(p.at, points[0].at, points[-1].at) for p in points],
        [
            Series("findings", "main", [float(p.findings) for p in points], names),
            Series("gaps", "not-known", [float(p.gaps) for p in points], names),
        ],
        unit=_count,
        caption=f"Findings of the last {len(points)} audits, {when(points[0].at)} to "
        f"{when(points[-1].at)}.",
    )


def _changes(site: Site) -> Drawn | None:
    days = site.drift.stories_by_day
    if len(days) < 2:
        return None
    return charts.bars(
        f"Changes seen by day, {len(days)} days",
        [*days],
        [Series("changes seen", "main", [float(n) for n in days.values()], [*days])],
        unit=_count,
        caption="Changes of live state by day, also those that were undone since.",
    )


def _ordered(views: Sequence[DrillView]) -> list[DrillView]:
    return sorted(views, key=lambda v: (v.real is None, -v.level.rank, v.name))


def _drill(view: DrillView) -> _DrillRow:
    more = len(view.runs) - RUNS
    return _DrillRow(
        view,
        _trend(view),
        view.runs[:RUNS],
        f"{more} earlier runs are in the index of evidence." if more > 0 else "",
    )


def _trend(view: DrillView) -> Drawn | None:
    runs = [r for r in reversed(view.runs) if r.mode == "real" and r.at is not None][-60:]
    if len(runs) < 2:
        return None
    first, last = runs[0].at, runs[-1].at
    assert first is not None
    assert last is not None
    names = [f"{when(r.at)}, {r.verdict}, {r.id}" for r in runs]
    times = [r.rto for r in runs]
    longest = max((t for t in times if t is not None), default=0.0)
    size, unit = _scale(longest)
    series = [Series("RTO", "main", [t / size if t is not None else None for t in times], names)]
    # An objective of an hour would press runs of seconds flat onto the axis.
    goals = [r.objective_rto for r in runs]
    goal = max((g for g in goals if g is not None), default=None)
    caption = "No RTO is promised by the script."
    if goal is not None and goal <= longest * 20:
        shown = [g / size if g is not None else None for g in goals]
        series.append(Series("objective", "goal", shown, [""] * len(goals), dashed=True))
        caption = f"RTO of each run against the objective of {span(goal)}."
    elif goal is not None:
        caption = f"RTO of each run; the objective of {span(goal)} lies far above this scale."
    return charts.lines(
        f"RTO of {len(runs)} runs of {view.name}",
        [_mark_time(r.at, first, last) for r in runs if r.at is not None],
        series,
        unit=lambda value: f"{value:g} {unit}" if value >= 10 else f"{value:.2g} {unit}",
        caption=caption,
    )


def _scale(longest: float) -> tuple[float, str]:
    """Give the unit in which a time is a short number."""
    if longest < 180:
        return 1.0, "s"
    return (60.0, "min") if longest < 3 * 3600 else (3600.0, "h")


def _distribution(row: RehearsalRow) -> Drawn | None:
    if len(row.times) < 2:
        return None
    low, high = row.times[0], row.times[-1]
    count = min(12, max(4, len(row.times) // 4))
    width = (high - low) / count or 1.0
    held = [0] * count
    for time in row.times:
        held[min(count - 1, int((time - low) / width))] += 1
    marks = [span(low + width * n) for n in range(count)]
    return charts.bars(
        f"How long {len(row.times)} rehearsals of {row.drill} took",
        marks,
        [
            Series(
                "runs",
                "main",
                [float(n) for n in held],
                [f"{marks[n]} to {span(low + width * (n + 1))}" for n in range(count)],
            )
        ],
        unit=_count,
        caption=f"{len(row.times)} measured runs by RTO.",
    )


def _spread(run: RunRow) -> Drawn | None:
    return _distribution(run.rehearsal) if run.rehearsal is not None else None


def _steps(run: RunRow) -> Drawn | None:
    steps = [s for s in run.steps if s.took > 0][:16]
    if len(steps) < 2:
        return None
    return charts.stacked(
        f"How long the steps of {run.title} took",
        [s.name for s in steps],
        [
            Series(
                name,
                tone,
                [s.took if s.critical is critical else 0.0 for s in steps],
                [s.name for s in steps],
            )
            for name, tone, critical in (
                ("critical path", "main", True),
                ("beside it", "quiet", False),
            )
        ],
        unit=span,
        caption="Seconds of each step.",
    )


# --------------------------------------------------------------------------------------- listings


def _resources(site: Site) -> Iterator[tuple[str, dict[str, object]]]:
    rows = site.estate.rows[:RESOURCES]
    if not rows:
        return
    parts = [rows[n : n + ROWS] for n in range(0, len(rows), ROWS)]
    names = ["resources.html", *(f"resources-{n}.html" for n in range(2, len(parts) + 1))]
    links = [
        (name, f"{n * ROWS + 1:,}–{n * ROWS + len(part):,}")
        for n, (name, part) in enumerate(zip(names, parts, strict=True))
    ]
    left = len(site.estate.rows) - len(rows)
    more = f"{left:,} more are not listed here: `muster show` has them all." if left else ""
    for name, part in zip(names, parts, strict=True):
        yield name, {"rows": part, "links": links, "more": more}


# ---------------------------------------------------------------------------------------- writing


def write(files: Mapping[str, bytes], folder: Path) -> None:
    """Put the site into a folder, in place of an older one; a reader sees one or the other.

    Raises InputError for a folder that holds something else, and for one that cannot be written.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError("not a folder", where=str(folder), remedy="name another --output")
        if folder.is_dir() and any(folder.iterdir()) and not (folder / MARK).is_file():
            raise InputError(
                "the folder holds something that is no report",
                where=str(folder),
                remedy="name an empty folder, or one that an earlier report is in",
            )
        folder.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            for path, data in files.items():
                file = made / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(data)
            made.chmod(0o755)
            _exchange(made, folder)
        finally:
            shutil.rmtree(made, ignore_errors=True)
    except OSError as error:
        raise InputError(
            f"the report cannot be written: {error.strerror or error}",
            where=os.fspath(folder),
            remedy="check the folder, its permissions and the space left",
        ) from error


def _exchange(made: Path, folder: Path) -> None:
    """Put one folder in the place of another; one that cannot be moved is filled where it is."""
    old = made.with_name(made.name + "-old")
    try:
        if folder.is_dir():
            folder.rename(old)
    except OSError:  # a mount point, such as a volume of a container
        wanted = {p.relative_to(made) for p in made.rglob("*") if p.is_file()}
        # The summary last: until then it is the older one, and the pages it names are there.
        for path in sorted(wanted, key=lambda p: (p.name == "index.html", str(p))):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / path, folder / path)
        for file in [p for p in folder.rglob("*") if p.is_file()]:
            if file.relative_to(folder) not in wanted:
                file.unlink()
        return
    made.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def archive(files: Mapping[str, bytes]) -> bytes:
    """Give the site as one ZIP archive: the same bytes for the same files."""
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as stream:
        for path, data in sorted(files.items()):
            entry = zipfile.ZipInfo(f"muster-report/{path}", _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            stream.writestr(entry, data)
    return held.getvalue()


def keep(files: Mapping[str, bytes], vault: Vault, now: datetime) -> str:
    """Keep the site in the vault, once: as pages and as one archive; give the folder's path.

    Raises StoreError when the vault cannot be written to.
    """
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    folder = f"{VAULT}/{stamp}"
    for path, data in files.items():
        vault.keep_document(f"{folder}/{path}", data)
    vault.keep_document(f"{VAULT}/muster-report-{stamp}.zip", archive(files))
    return folder


def summary(site: Site, limit: int = 6) -> list[str]:
    """Tell the site in a screen of text."""
    lines = [f"{site.estate_name}: {hero(site)}"]
    lines += [f"  {t.name:<16} {t.level.value:<10} {t.figure:<18} {t.words}" for t in _tiles(site)]
    shown: Sequence[Problem] = site.problems[:limit]
    for number, problem in enumerate(shown, 1):
        # A remedy may have several lines; here each gets one.
        lines.append(f"  {number}. {problem.level.value}: {' '.join(problem.text.split())}")
        if problem.remedy:
            lines.append(f"     next: {' '.join(problem.remedy.split())}")
    if len(site.problems) > limit:
        lines.append(f"  and {len(site.problems) - limit} more, in the report")
    return lines


def _mark(site: Site) -> bytes:
    text = (
        f"A report of muster {site.version} on {site.estate_name}, made {when(site.now)}.\n"
        "Open index.html in any browser: it needs no network and no other program.\n"
    )
    return text.encode()


def _iso(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _size(count: int) -> str:
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
