"""An evidence as one page for people who were not there: promised, done, seen and proved."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

import orjson

from snapshots.model import Json, JsonObject

_STYLE = """
:root{color-scheme:light dark;--ok:#1a7f37;--bad:#b3261e;--open:#8a5a00;--line:#8886;--bar:#2f6fab}
@media(prefers-color-scheme:dark){:root{--ok:#4ac26b;--bad:#ff8a80;--open:#e3b341;--bar:#6cb0f0}}
body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}
h1{line-height:1.2;margin-bottom:.3rem}h2{margin-top:2.2rem;border-bottom:1px solid var(--line)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.35rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td{overflow-wrap:break-word}td.n,th.n{text-align:right;white-space:nowrap}
.facts th{width:14rem;font-weight:600}
td>span{white-space:nowrap}
.passed,.done,.clean{color:var(--ok)}.failed,.left{color:var(--bad)}
.not-run,.not-proved,.skipped,.interrupted,.unknown,.kept{color:var(--open)}
.verdict{font-size:1.3rem}.note,small{opacity:.8}small{overflow-wrap:anywhere}
pre{overflow-x:auto;padding:1rem;border:1px solid var(--line)}
.bar{display:block;height:.8rem;background:var(--bar);border-radius:2px;min-width:2px}
.way{width:40%}
code{overflow-wrap:anywhere}
summary{cursor:pointer}
"""
_MEANING = {
    "passed": "Every step was done, every check passed and failed on its broken copy, nothing was "
    "left behind, and the objective was kept.",
    "failed": "A step, a check, the objective or the clean-up failed.",
    "not proved": "Nothing failed, but something could not be shown.",
    "interrupted": "It did not come to its end; what it made was cleaned up as told below.",
}
_SHOWN = 600  # characters of a value


def page(document: Mapping[str, Json]) -> str:
    """Write an evidence as one self-contained page: no script, nothing is fetched."""
    title = f"Drill: {_e(document.get('title'))}"
    parts = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width,initial-scale=1">',
        f"<title>{title}</title><style>{_STYLE}</style><main><h1>{title}</h1>",
        *_verdict(document),
        *_facts(document),
        *_times(document),
        *_rehearsal(document),
        *_checks(document, "gate", "Gate: what had to be so before anything was done"),
        *_steps(document),
        *_checks(document, "checks", "Checks: what was asked afterwards"),
        *_clean_up(document),
        *_origin(document),
        "</main></html>",
        "",
    ]
    return "\n".join(parts)


def _verdict(document: Mapping[str, Json]) -> list[str]:
    verdict = str(document.get("verdict", ""))
    mode = {
        "real": "run for real",
        "dry-run": "dry run: nothing was changed",
        "rehearsal": "rehearsed in a twin",
    }.get(str(document.get("mode")), _e(document.get("mode")))
    parts = [
        (
            f"<p class=verdict>Verdict: <strong class={_class(verdict)}>{_e(verdict)}</strong> "
            f"<small>({mode})</small></p>"
        ),
        f"<p class=note>{_e(_MEANING.get(verdict))}</p>",
    ]
    for name, words in (("reasons", "Why"), ("findings", "Worth knowing")):
        rows = _list(document, name)
        if rows:
            items = "".join(f"<li>{_e(row)}</li>" for row in rows)
            parts.append(f"<p><strong>{words}</strong></p><ul>{items}</ul>")
    return parts


def _facts(document: Mapping[str, Json]) -> list[str]:
    promised = _dict(document.get("objective"))
    approvals = ", ".join(str(row) for row in _list(document, "approvals"))
    estimate = _dict(document.get("estimate"))
    rto = _seconds(document.get("rto_seconds"))
    if isinstance(document.get("rehearsal"), dict):
        rto = f"{rto} (nine runs in ten were as fast)"
    rows: list[tuple[str, str]] = [
        ("Recovery time (RTO)", f"{rto}; promised: {_seconds(promised.get('rto_seconds'))}"),
        (
            "Data loss (RPO)",
            (
                f"{_seconds(document.get('rpo_seconds'))}; "
                f"promised: {_seconds(promised.get('rpo_seconds'))}"
            ),
        ),
    ]
    if estimate:
        rows.append(
            (
                "Rehearsed beforehand",
                (
                    f"{_seconds(estimate.get('p50'))} in the middle, nine in ten below "
                    f"{_seconds(estimate.get('p90'))} ({_e(estimate.get('runs'))} runs, "
                    f"{_e(estimate.get('evidence'))})"
                ),
            )
        )
    cost, ceiling = document.get("cost_estimate"), document.get("cost_ceiling")
    rows += [
        ("Estate", _e(document.get("estate"))),
        ("From", _e(document.get("started_at"))),
        ("To", _e(document.get("finished_at"))),
        ("Snapshot", f"<code>{_e(document.get('snapshot')) or 'none'}</code>"),
        ("Target", f"<code>{_e(document.get('target'))}</code>"),
        ("Blast radius", _e(document.get("blast_radius"))),
        ("Approved by", _e(approvals) or "nobody was asked"),
        ("Requests to Azure", _e(document.get("calls"))),
        ("Cost", f"about {_e(cost)} US dollars; ceiling {_e(ceiling)}"),
        ("Seed", _e(document.get("seed"))),
    ]
    body = "".join(f"<tr><th scope=row>{name}</th><td>{value}</td></tr>" for name, value in rows)
    return [f"<div class=scroll><table class=facts><tbody>{body}</tbody></table></div>"]


def _times(document: Mapping[str, Json]) -> list[str]:
    path = _rows(document, "critical_path")
    phases = _dict(document.get("phases"))
    parts: list[str] = []
    if path:
        whole = max((_number(part.get("ends")) for part in path), default=0.0) or 1.0
        rows: list[Sequence[str]] = []
        for part in path:
            begins, ends = _number(part.get("begins")), _number(part.get("ends"))
            left, width = 100 * begins / whole, 100 * max(ends - begins, 0.0) / whole
            rows.append(
                (
                    _e(part.get("name")),
                    _e(part.get("phase")),
                    _seconds(begins),
                    _seconds(ends),
                    _bar(left, width),
                )
            )
        parts.append("<h2>Critical path</h2><p class=note>Seconds after the loss.</p>")
        parts.append(_table(("step", "brings about", "from#", "to#", "way"), rows))
    if phases:
        words = ", ".join(f"{_e(name)} after {_seconds(at)}" for name, at in phases.items())
        parts.append(f"<p>Reached: {words}.</p>")
    classes = _dict(document.get("rpo_by_class"))
    if classes:
        words = ", ".join(
            f"{_e(name)}: {_seconds(at) if at is not None else 'does not come back'}"
            for name, at in classes.items()
        )
        parts.append(f"<p>Data loss by recovery class: {words}.</p>")
    return parts


def _bar(left: float, width: float) -> str:
    return f'<span class=bar style="margin-left:{left:.1f}%;width:{width:.1f}%"></span>'


def _rehearsal(document: Mapping[str, Json]) -> list[str]:
    rehearsal = document.get("rehearsal")
    if not isinstance(rehearsal, dict):
        return []
    parts = ["<h2>Rehearsals</h2>"]
    verdicts = _dict(rehearsal.get("verdicts"))
    words = ", ".join(f"{_e(n)} {_e(name)}" for name, n in verdicts.items() if n)
    runs = _rows(rehearsal, "runs")
    parts.append(
        f"<p>{len(runs)} of {_e(rehearsal.get('runs_wanted'))} runs, each from the same state with "
        f"another seed of faults ({_e(rehearsal.get('fault_rate'))} of requests): {words}.</p>"
    )
    rto = _dict(rehearsal.get("rto"))
    if rto:
        told = ", ".join(
            f"{words} {_seconds(rto.get(name))}"
            for name, words in (
                ("min", "the fastest"),
                ("p50", "half of them within"),
                ("p90", "nine in ten within"),
                ("max", "the slowest"),
            )
        )
        parts.append(f"<p>Recovery time: {told}.</p>")
    ranges = _rows(rehearsal, "histogram")
    most = max((_number(row.get("runs")) for row in ranges), default=0.0) or 1.0
    parts.append(
        _table(
            ("recovery time from#", "to#", "runs#", "way"),
            [
                (
                    _seconds(row.get("from")),
                    _seconds(row.get("to")),
                    _e(row.get("runs")),
                    _bar(0, 100 * _number(row.get("runs")) / most),
                )
                for row in ranges
            ],
        )
    )
    failing = _dict(rehearsal.get("failing_steps"))
    if failing:
        parts.append("<h3>Steps that failed</h3>")
        rows = [(_e(name), f"{_e(n)} of {len(runs)} runs") for name, n in failing.items()]
        parts.append(_table(("step", "how often"), rows))
    lacks = _list(rehearsal, "lacks")
    if lacks:
        items = "".join(f"<li>{_e(row)}</li>" for row in lacks)
        parts.append(
            f"<details><summary>The twin lacks {len(lacks)} resources of the snapshot</summary>"
            f"<ul>{items}</ul></details>"
        )
    rows_ = [
        (
            _e(run.get("seed")),
            _state(run.get("verdict")),
            _seconds(run.get("rto_seconds")),
            _e(_dict(run.get("cleanup")).get("state")),
            _e("; ".join(str(r) for r in _list(run, "reasons"))),
        )
        for run in runs
    ]
    parts.append("<details><summary>Every run</summary>")
    parts.append(_table(("seed#", "verdict", "recovery time#", "clean-up", "why"), rows_))
    parts.append("</details>")
    return parts


def _checks(document: Mapping[str, Json], name: str, title: str) -> list[str]:
    rows = _rows(document, name)
    if not rows:
        return []
    cells = [
        (
            f"{_e(c.get('name'))}<br><small>{_e(c.get('subject'))}</small>",
            _state(c.get("state")),
            _broken(c),
            _value(c.get("expected")),
            _value(c.get("observed"))
            + (f"<p>{_e(c.get('detail'))}</p>" if c.get("detail") else ""),
        )
        for c in rows
    ]
    return [
        f"<h2>{title}</h2>",
        (
            "<p class=note>Each check is asked again of a deliberately broken copy, where it must "
            "fail: a check that cannot fail proves nothing.</p>"
        ),
        _table(("check", "state", "on a broken copy", "expected", "observed"), cells),
    ]


def _broken(check: JsonObject) -> str:
    control = str(check.get("negative_control"))
    words = {
        "failed": "<span class=passed>failed, as it must</span>",
        "passed": "<span class=failed>passed: it proves nothing</span>",
    }.get(control, f"<span class=not-run>{_e(control)}</span>")
    return f"{words}<br><small>{_e(check.get('control_detail'))}</small>"


def _steps(document: Mapping[str, Json]) -> list[str]:
    rows: list[Sequence[str]] = []
    for step in _rows(document, "steps"):
        rows.append(_step(step, ""))
        rows += [_step(inner, "↳ ") for inner in _rows(step, "steps")]
    if not rows:
        return []
    return [
        "<h2>Steps</h2>",
        _table(("step", "state", "began", "seconds#", "requests#", "what came of it"), rows),
    ]


def _step(step: JsonObject, before: str) -> Sequence[str]:
    given = _dict(step.get("inputs")).items()
    inputs: Json = {k: v for k, v in given if v not in (None, "", [], {}, False)}
    told = _e(step.get("detail"))
    if step.get("approver"):
        told += f"<br>approved by {_e(step.get('approver'))}"
    if inputs:
        told += f"<br><small>given: {_value(inputs)}</small>"
    found = _dict(step.get("found"))
    lost = _list(found, "cannot_come_back")
    if lost:
        items = "".join(f"<li>{_e(row)}</li>" for row in lost)
        told += (
            f"<details><summary>{len(lost)} cannot come back</summary><ul>{items}</ul></details>"
        )
    overwritten = [*_list(found, "overwritten"), *_list(found, "deleted")]
    if overwritten:
        items = "".join(f"<li>{_e(row)}</li>" for row in overwritten)
        told += (
            f"<details><summary>{len(overwritten)} overwritten or deleted</summary>"
            f"<ul>{items}</ul></details>"
        )
    return (
        f"{before}{_e(step.get('name'))}<br><small>{_e(step.get('kind'))}</small>",
        _state(step.get("state")),
        _e(str(step.get("started_at") or "")[11:19]),
        _e(step.get("seconds")),
        _e(step.get("calls")),
        told,
    )


def _clean_up(document: Mapping[str, Json]) -> list[str]:
    found = document.get("cleanup")
    if not isinstance(found, dict):
        return []
    parts = [f"<h2>Clean-up</h2><p>State: {_state(found.get('state'))}</p>"]
    for name, words in (
        ("proof", "Proof: looked for, and as it should be"),
        ("left", "Still there"),
        ("kept", "Stays, because the script says so"),
        ("removed", "Taken away or put back"),
    ):
        rows = _list(found, name)
        if rows:
            items = "".join(f"<li>{_e(row)}</li>" for row in rows)
            opened = " open" if name != "removed" else ""
            head = f"<details{opened}><summary>{words} ({len(rows)})</summary>"
            parts.append(f"{head}<ul>{items}</ul></details>")
    return parts


def _origin(document: Mapping[str, Json]) -> list[str]:
    versions = ", ".join(f"{_e(k)} {_e(v)}" for k, v in _dict(document.get("versions")).items())
    script = _dict(document.get("script"))
    mapping = {k: v for k, v in _dict(document.get("mapping")).items() if v}
    parts = [
        "<h2>Where this comes from</h2>",
        (
            "<p class=note>The evidence is the JSON file of the same name; this page shows it. "
            f"Verify it with <code>muster drill check {_e(document.get('id'))}</code>: hash, "
            "chain, copies, signature, and the verdict from what was recorded.</p>"
        ),
        "<div class=scroll><table class=facts><tbody>",
        *(
            f"<tr><th scope=row>{name}</th><td><code>{_e(value) or 'none'}</code></td></tr>"
            for name, value in (
                ("Id", document.get("id")),
                ("Hash (SHA-256)", document.get("hash")),
                ("Hash of the one before", document.get("previous")),
                ("Hash of the script", script.get("sha256")),
                ("Made with", versions),
            )
        ),
        "</tbody></table></div>",
    ]
    parameters = _dict(document.get("parameters"))
    if parameters:
        parts.append(f"<p>Parameters of the script: {_value(parameters)}</p>")
    if mapping:
        told = orjson.dumps(mapping, option=orjson.OPT_INDENT_2 | orjson.OPT_SORT_KEYS).decode()
        parts.append(f"<details><summary>Mapping</summary><pre>{_e(told)}</pre></details>")
    parts.append(
        f"<details open><summary>The script as it ran</summary>"
        f"<pre>{_e(script.get('text'))}</pre></details>"
    )
    return parts


# ----------------------------------------------------------------------------------- pieces


def _e(value: Json) -> str:
    return html.escape("" if value is None else str(value))


def _class(value: str) -> str:
    known = {
        "passed", "done", "clean", "failed", "left", "not-run", "not-proved", "skipped",
        "interrupted", "kept",
    }  # fmt: skip
    name = value.replace(" ", "-")
    return name if name in known else "unknown"


def _state(value: Json) -> str:
    return f"<span class={_class(str(value))}>{_e(value)}</span>"


def _value(value: Json) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    short = text if len(text) <= _SHOWN else f"{text[:_SHOWN]} …"
    return f"<code>{_e(short)}</code>"


def _seconds(value: Json) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "not measured" if value is None else _e(value)
    if value < 120:
        return f"{value:.1f} s"
    if value < 7200:
        return f"{value / 60:.1f} min ({value:.0f} s)"
    return f"{value / 3600:.1f} h ({value:.0f} s)"


def _number(value: Json) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else 0.0


def _dict(value: Json) -> JsonObject:
    return value if isinstance(value, dict) else {}


def _list(document: Mapping[str, Json], name: str) -> list[Json]:
    value = document.get(name)
    return value if isinstance(value, list) else []


def _rows(document: Mapping[str, Json], name: str) -> list[JsonObject]:
    return [row for row in _list(document, name) if isinstance(row, dict)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Write a table; a title that ends with # is of numbers, one called way is of bars."""
    classes = [" class=n" if t.endswith("#") else " class=way" if t == "way" else "" for t in head]
    titles = "".join(
        f"<th scope=col{c}>{'' if t == 'way' else t.rstrip('#')}</th>"
        for t, c in zip(head, classes, strict=True)
    )
    lines = "".join(
        "<tr>"
        + "".join(f"<td{c}>{cell}</td>" for cell, c in zip(row, classes, strict=True))
        + "</tr>"
        for row in rows
    )
    return (
        f"<div class=scroll tabindex=0><table><thead><tr>{titles}</tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )
