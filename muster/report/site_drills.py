"""What was rehearsed: the evidence of drills, checked again, and how long each took."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from drills.evidence import FOLDER as DRILLS
from drills.evidence import Sealed, forks, opened, problems_of, seal_of
from drills.model import Evidence
from drills.verbs import Signer
from muster.report import audit_words as words
from muster.report.site_model import (
    Drills,
    DrillView,
    Level,
    Part,
    Proved,
    RehearsalRow,
    RunRow,
    SeedRow,
    Timed,
    Verified,
    before,
    see,
    span,
    when,
    worst,
)
from muster.report.site_reading import (
    Reading,
    number_of,
    rows_of,
    see_lines,
    text_of,
    texts_of,
    time_of,
)
from snapshots.errors import InputError
from snapshots.ledger import EVIDENCE
from snapshots.model import Json, JsonObject, pretty

RUNS = 200  # pages of drill runs, and copies of their evidence


SEEDS = 1_000  # runs of one rehearsal on its page


_VERDICTS = {
    "passed": Level.GOOD,
    "not proved": Level.RISK,
    "interrupted": Level.RISK,
    "failed": Level.BAD,
}


_STEPS = {"done": Level.GOOD, "skipped": Level.NOTE, "failed": Level.BAD}


_CHECKS = {"passed": Level.GOOD, "failed": Level.BAD}


_CLEAN = {"clean": Level.GOOD, "kept": Level.NOTE, "left": Level.BAD}


_SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


def drills_of(
    reading: Reading, scripts: Mapping[str, str], signer: Signer | None = None
) -> tuple[Drills, dict[str, bytes], list[RunRow]]:
    """Read all evidence of drills; give the files to copy by path, and every run, newest first."""
    ledger = reading.ledger
    raw: dict[str, bytes] = {}
    if ledger is not None and ledger.tip(EVIDENCE):
        raw = reading.attempt(
            "the evidence of drills", lambda: dict(ledger.files(EVIDENCE, f"{DRILLS}/")), raw
        )
    kept = _opened(reading, raw)
    copied = _copied(reading)
    hashes = {e.hash for e in kept}
    own = {e.id: _wrong(e) for e in kept}
    # What does not hold by itself is no beginning and no fork that another could be mistaken for.
    forked = forks({e.id: e for e in kept if not own[e.id]})
    recent = {e.id for e in sorted(kept, key=_ended, reverse=True)[:RUNS]}
    signing = min((_ended(e) for e in kept if f"{DRILLS}/{e.id}.sig" in raw), default=None)
    runs: list[RunRow] = []
    copies: dict[str, bytes] = {}
    for evidence in kept:
        base = f"{DRILLS}/{evidence.id}"
        itself = [*own[evidence.id]]
        if raw.get(f"{base}.json", b"") != pretty(evidence.document) and not itself:
            itself.append("the file is not byte for byte as it was written")
        chain: list[str] = []
        previous = evidence.document.get("previous")
        if previous and previous not in hashes:
            chain.append("the chain is broken: the evidence before it is missing or changed")
        elif evidence.id in forked.get("", ()):
            chain.append("the chain has more than one beginning")
        elif evidence.id in forked.get(str(previous), ()):
            chain.append("the chain forks: another evidence follows the same one")
        copy = _copy_of(reading, evidence.id, raw, copied, compare=evidence.id in recent)
        signature = raw.get(f"{base}.sig", b"").decode("utf-8", "replace")
        seal = _seal(raw.get(f"{base}.json", b""), signature, signer, verify=evidence.id in recent)
        if seal.level is Level.RISK and not signature and signing and _ended(evidence) > signing:
            seal = replace(seal, level=Level.BAD, words=f"{seal.words}, and earlier ones are")
        verified = (
            _verified("Hash, script and verdict", itself, "hold: computed again from the record"),
            _verified("Place in the chain", chain, "holds: the evidence before it is as it was")
            if previous
            else _verified("Place in the chain", chain, "it is the first"),
            copy,
            seal,
        )
        wrong = [*itself, *chain]
        wrong += [copy.words] if copy.level is Level.BAD else []
        wrong += [f"the signature: {seal.words}"] if seal.level is Level.BAD else []
        runs.append(_run(evidence, wrong, verified))
    for gone in sorted((copied or set()) - {e.id for e in kept}):
        reading.problem(
            Level.BAD,
            f"Evidence {gone} is in the vault and no longer in the ledger",
            "evidence.html",
            f"compare with the copy in the vault: evidence/drills/{gone}.json",
            9,
        )
    runs.sort(key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.id), reverse=True)
    for number, run in enumerate(runs):
        data = raw.get(f"{DRILLS}/{run.id}.json")
        if number < RUNS and data is not None and _SAFE_ID.fullmatch(run.id):
            copies[f"evidence/{run.id}.json"] = data
            runs[number] = replace(run, page=f"drill-{run.id}.html", json=f"evidence/{run.id}.json")
        if run.problems:
            reading.problem(
                Level.BAD,
                f"Evidence {run.id} does not hold: {run.problems[0]}",
                "drills.html",
                f"run `muster drill check {run.id}`",
                9,
            )
    views = [_drill_view(reading, name, runs, scripts) for name in sorted({r.drill for r in runs})]
    rehearsals = _rehearsals(runs)
    never = tuple(
        (see(name, 80), see(title, 160))
        for name, title in sorted(scripts.items())
        if name not in {view.name for view in views}
    )
    source = (
        (
            reading.source(
                "evidence",
                "evidence branch",
                reading.tip(EVIDENCE),
                runs[0].at,
                "muster drill check last",
            ),
        )
        if runs
        else ()
    )
    remedy = "run `muster drill run NAME` (`muster drill list` names them)"
    real = [view.real for view in views if view.real is not None]
    if not real:
        told = "no recovery was ever rehearsed for real"
        reading.problem(
            Level.UNKNOWN,
            f"How long a recovery takes is not known: {told}",
            "drills.html",
            remedy,
            5,
        )
        level, headline = Level.UNKNOWN, f"Not known: {told}"
    else:
        level = worst([view.level for view in views if view.real is not None])
        passed = sum(1 for run in real if run.verdict == "passed")
        newest = max(real, key=lambda r: (r.at or datetime.min.replace(tzinfo=UTC), r.id))
        rest = len(set(scripts) - {view.name for view in views if view.real is not None})
        headline = (
            f"{passed} of {words.plural(len(real), 'drill')} passed when last run for real, "
            f"the newest {before(newest.at, reading.now)}"
        )
        headline += f"; {rest:,} never run for real" if rest else ""
    missing = () if real else (remedy,)
    return (
        Drills(Part(level, headline, source, missing), tuple(views), rehearsals, never),
        copies,
        runs,
    )


def _opened(reading: Reading, raw: Mapping[str, bytes]) -> list[Evidence]:
    """Read each evidence by itself: one that is damaged hides no other."""
    found: list[Evidence] = []
    for path, data in raw.items():
        if path.endswith(".json"):
            try:
                found.append(opened(data, path))
            except InputError as error:
                reading.troubles.append(see(f"{EVIDENCE}:{path}: {error.what}"))
    return found


def _copied(reading: Reading) -> set[str] | None:
    """Give the ids of which the vault has a copy; None when nobody can tell."""
    vault = reading.vault
    if vault is None:
        return None
    prefix = f"evidence/{DRILLS}/"
    paths = reading.attempt("the evidence in the vault", lambda: vault.documents(prefix), None)
    if paths is None:
        return None
    return {p.removeprefix(prefix)[:-5] for p in paths if p.endswith(".json")}


def _ended(evidence: Evidence) -> str:
    return str(evidence.document.get("finished_at") or evidence.document.get("started_at") or "")


def _verified(what: str, problems: Sequence[str], good: str) -> Verified:
    if problems:
        return Verified(Level.BAD, what, see("; ".join(problems)))
    return Verified(Level.GOOD, what, good)


def _copy_of(
    reading: Reading,
    id_: str,
    raw: Mapping[str, bytes],
    copied: set[str] | None,
    *,
    compare: bool,
) -> Verified:
    """Compare an evidence and its signature with their copies in the vault, byte for byte."""
    what = "Copy in the vault"
    vault = reading.vault
    if vault is None or copied is None:
        return Verified(Level.UNKNOWN, what, "not compared: the vault was not looked at")
    if id_ not in copied:
        return Verified(Level.BAD, what, "the vault has no copy of it")
    if not compare or not _SAFE_ID.fullmatch(id_):
        return Verified(
            Level.NOTE,
            what,
            f"there, not compared: of the newest {RUNS} only; `muster drill check`",
        )
    path = f"{DRILLS}/{id_}"
    for name in (f"{path}.json", f"{path}.sig"):
        if name not in raw and name.endswith(".sig"):
            continue
        there = reading.attempt(
            f"the copy of {id_} in the vault",
            lambda name=name: vault.read_document(f"evidence/{name}").data,  # type: ignore[misc]
            None,
        )
        if there is None:
            return Verified(Level.UNKNOWN, what, "it could not be read")
        if there != raw.get(name):
            part = "it" if name.endswith(".json") else "its signature"
            return Verified(Level.BAD, what, f"{part} differs from the copy in the vault")
    return Verified(Level.GOOD, what, "the same, byte for byte")


def _seal(data: bytes, signature: str, signer: Signer | None, *, verify: bool) -> Verified:
    what = "Signature"
    if signature and not verify:
        return Verified(
            Level.NOTE,
            what,
            f"signed, not verified: of the newest {RUNS} only; `muster drill check`",
        )
    seal = seal_of(data, signature, signer)
    level = {
        Sealed.VERIFIED: Level.GOOD,
        Sealed.UNSIGNED: Level.RISK if seal.problem else Level.NOTE,
        Sealed.NO_KEY: Level.UNKNOWN,
        Sealed.BROKEN: Level.BAD,
    }[seal.state]
    words = seal.words()
    if seal.state is Sealed.UNSIGNED and seal.problem:
        words = "not signed, though a key is configured"
    return Verified(level, what, see(words))


def _wrong(evidence: Evidence) -> list[str]:
    """Say what speaks against an evidence by itself."""
    try:
        return [*problems_of(evidence)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The document is somebody else's: what its own check cannot read is no evidence.
        return [f"it cannot be checked: {type(error).__name__}"]


def _run(evidence: Evidence, wrong: Sequence[str], verified: tuple[Verified, ...]) -> RunRow:
    document = evidence.document
    verdict = text_of(document, "verdict")
    objective = document.get("objective")
    promised = objective if isinstance(objective, dict) else {}
    cleaned = document.get("cleanup")
    cleanup = cleaned if isinstance(cleaned, dict) else {}
    begun, ended = time_of(document.get("started_at")), time_of(document.get("finished_at"))
    phases = document.get("phases")
    script = document.get("script")
    versions = document.get("versions")
    level = Level.BAD if wrong else _VERDICTS.get(verdict, Level.UNKNOWN)
    rto, most = number_of(document, "rto_seconds"), number_of(promised, "rto_seconds")
    if rto is not None and most is not None and rto > most:
        level = Level.BAD
    state = text_of(cleanup, "state")
    return RunRow(
        see(evidence.id, 120),
        "",
        "",
        text_of(document, "drill"),
        text_of(document, "title"),
        text_of(document, "mode"),
        level,
        verdict or "not known",
        ended or begun,
        (ended - begun).total_seconds() if begun and ended else 0.0,
        rto,
        number_of(document, "rpo_seconds"),
        most,
        number_of(promised, "rpo_seconds"),
        texts_of(document, "reasons"),
        texts_of(document, "findings"),
        tuple(_proved(c) for c in rows_of(document, "gate")),
        tuple(_proved(c) for c in rows_of(document, "checks")),
        tuple(_steps(rows_of(document, "steps"))),
        tuple(
            (see(name, 80), span(float(value)))
            for name, value in (phases.items() if isinstance(phases, dict) else ())
            if isinstance(value, int | float)
        ),
        state or "not known",
        _CLEAN.get(state, Level.UNKNOWN),
        (*(f"left: {t}" for t in texts_of(cleanup, "left")), *texts_of(cleanup, "proof")),
        texts_of(document, "approvals"),
        verified,
        evidence.hash,
        text_of(document, "previous"),
        tuple(see(w) for w in wrong),
        see_lines(script.get("text") if isinstance(script, dict) else ""),
        (
            ("Estate", text_of(document, "estate")),
            ("Mode", text_of(document, "mode")),
            ("Seed", see(document.get("seed"))),
            ("Began", when(begun)),
            ("Ended", when(ended)),
            ("Snapshot", text_of(document, "snapshot")),
            ("Target", text_of(document, "target")),
            ("Blast radius", text_of(document, "blast_radius")),
            ("Calls", see(document.get("calls", ""))),
            ("Cost estimate", f"{number_of(document, 'cost_estimate') or 0:.2f} US dollars"),
            ("muster", text_of(versions, "muster") if isinstance(versions, dict) else ""),
            *_by_class(document),
            ("Rehearsed beforehand", _estimate(document)),
        ),
        _rehearsal_of(document, ended or begun),
    )


def _by_class(document: Mapping[str, Json]) -> list[tuple[str, str]]:
    found = document.get("rpo_by_class")
    return [
        (f"RPO, {see(name, 40)}", span(float(value)))
        if isinstance(value, int | float)
        else (f"RPO, {see(name, 40)}", "does not come back")
        for name, value in sorted(found.items() if isinstance(found, dict) else ())
    ]


def _estimate(document: Mapping[str, Json]) -> str:
    found = document.get("estimate")
    if not isinstance(found, dict):
        return ""
    half, most = number_of(found, "p50"), number_of(found, "p90")
    runs = int(number_of(found, "runs") or 0)
    return f"half of {runs:,} rehearsals within {span(half)}, 9 of 10 within {span(most)}"


def _proved(check: Mapping[str, Json]) -> Proved:
    state, control = text_of(check, "state"), text_of(check, "negative_control")
    level = _CHECKS.get(state, Level.UNKNOWN)
    if level is Level.GOOD and control != "failed":
        level = Level.RISK  # it cannot fail, or nobody knows whether it can
    return Proved(
        level,
        text_of(check, "name"),
        text_of(check, "subject"),
        state,
        {"failed": "refused, as it must", "passed": "NOT refused", "not-run": "not run"}.get(
            control, control
        ),
        text_of(check, "detail"),
        text_of(check, "control_detail"),
    )


def _steps(rows: Iterable[JsonObject], depth: int = 0) -> Iterator[Timed]:
    for row in rows:
        state = text_of(row, "state")
        yield Timed(
            _STEPS.get(state, Level.UNKNOWN),
            "\u2003" * depth + text_of(row, "name"),
            text_of(row, "kind"),
            state,
            text_of(row, "phase"),
            span(number_of(row, "seconds")),
            number_of(row, "seconds") or 0.0,
            row.get("critical") is True,
            text_of(row, "detail"),
        )
        if depth < 4:
            yield from _steps(rows_of(row, "steps"), depth + 1)


def _drill_view(
    reading: Reading, name: str, every: Sequence[RunRow], scripts: Mapping[str, str]
) -> DrillView:
    runs = tuple(run for run in every if run.drill == name)
    real = next((run for run in runs if run.mode == "real"), None)
    title = see(scripts.get(name, ""), 160) or runs[0].title
    anchor = "drill-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    again = f"run `muster drill run {name}` again"
    if real is None:
        tried = runs[0]
        if tried.level is Level.BAD and not tried.problems:
            why = tried.reasons[0] if tried.reasons else tried.verdict
            reading.problem(
                Level.RISK,
                f"Drill {name} failed as {tried.mode} {before(tried.at, reading.now)}, "
                f"and was never run for real: {why}",
                f"drills.html#{anchor}",
                again,
                2,
            )
        return DrillView(
            name,
            title,
            anchor,
            Level.UNKNOWN,
            "never run for real",
            runs,
            runs[0].objective_rto,
            None,
        )
    told = f"{real.verdict} {before(real.at, reading.now)}, RTO {span(real.rto)}"
    if real.objective_rto is not None:
        told += f" of {span(real.objective_rto)} promised"
    if real.problems:
        told = f"said to have {told}, but its evidence does not hold"
    elif real.level is not Level.GOOD:
        why = f"{real.verdict}: {real.reasons[0]}" if real.reasons else told
        reading.problem(
            real.level,
            f"Drill {name} {why}",
            f"drills.html#{anchor}",
            again,
            3,
        )
    return DrillView(name, title, anchor, real.level, told, runs, real.objective_rto, real)


def _rehearsal_of(document: Mapping[str, Json], at: datetime | None) -> RehearsalRow | None:
    """Give the distribution that a rehearsal's evidence holds, counted again from its runs."""
    found = document.get("rehearsal")
    if not isinstance(found, dict):
        return None
    objective = document.get("objective")
    each = rows_of(found, "runs")
    failing = Counter(
        name
        for run in each
        for name in {
            step.name.strip() for step in _steps(rows_of(run, "steps")) if step.level is Level.BAD
        }
    )
    seeds = tuple(
        SeedRow(
            see(run.get("seed")),
            _VERDICTS.get(text_of(run, "verdict"), Level.UNKNOWN),
            text_of(run, "verdict"),
            span(number_of(run, "rto_seconds")),
            "; ".join(texts_of(run, "reasons")[:3]),
        )
        for run in each[:SEEDS]
    )
    return _rehearsal(
        text_of(document, "drill"),
        at,
        Counter(text_of(run, "verdict") for run in each),
        [t for run in each if (t := number_of(run, "rto_seconds")) is not None],
        number_of(objective, "rto_seconds") if isinstance(objective, dict) else None,
        sorted(failing.items(), key=lambda f: (-f[1], f[0]))[:10],
        seeds,
    )


def _rehearsals(runs: Sequence[RunRow]) -> tuple[RehearsalRow, ...]:
    """Give the newest distribution of each drill, newest first."""
    newest: dict[str, RehearsalRow] = {}
    for run in runs:
        if run.rehearsal is not None:
            newest.setdefault(run.drill, replace(run.rehearsal, page=run.page))
    return tuple(newest.values())


def _rehearsal(
    drill: str,
    at: datetime | None,
    verdicts: Counter[str],
    times: Sequence[float],
    objective: float | None,
    failing: Sequence[tuple[str, int]],
    seeds: tuple[SeedRow, ...],
) -> RehearsalRow:
    ordered = sorted(times)
    runs = sum(verdicts.values())

    def share(part: float) -> str:
        return span(ordered[min(len(ordered) - 1, int(part * len(ordered)))])

    shares = (
        (
            ("fastest", share(0.0)),
            ("half within", share(0.5)),
            ("9 of 10 within", share(0.9)),
            ("slowest", span(ordered[-1])),
        )
        if ordered
        else ()
    )
    level = Level.GOOD if verdicts["passed"] == runs and runs else Level.RISK
    if objective is not None and ordered and ordered[-1] > objective:
        level = Level.BAD
    return RehearsalRow(
        see(drill, 120),
        at,
        runs,
        ", ".join(f"{n:,} {see(v, 40)}" for v, n in sorted(verdicts.items())),
        level,
        tuple(ordered),
        shares,
        objective,
        tuple(failing),
        seeds,
    )
