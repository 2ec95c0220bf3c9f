"""What came of a verb, as Markdown for an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from snapshots.model import Json, JsonObject

_MOST = 50  # rows of a table in an artifact; the documents have them all


def cell(value: object) -> str:
    """Make a value harmless inside a Markdown table."""
    text = " ".join(str("" if value is None else value).split())
    for sign in "\\`*_[]<>|":
        text = text.replace(sign, f"\\{sign}")
    return text


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Give a table's lines; after 50 rows, how many more there are."""
    found = list(rows)
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(cell(value) for value in row)} |" for row in found[:_MOST]]
    if len(found) > _MOST:
        lines.append(f"\n… and {len(found) - _MOST} more")
    return ["", *lines, ""]


def dicts(value: Json) -> list[JsonObject]:
    """Give the objects of a list, of anything else none."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def snapshot_markdown(document: JsonObject) -> str:
    """Give a snapshot's document (docs/schemas/snapshot.schema.json)."""
    gaps = dicts(document["gaps"])
    kinds = document["kinds"]
    whole = "INCOMPLETE" if gaps else "Complete"
    lines = [
        f"# Snapshot of {cell(document['estate'])}",
        "",
        f"**{whole}**, commit `{str(document['snapshot'])[:12]}`, taken {document['taken_at']}",
    ]
    names = ("resources", "written", "removed", "unchanged", "payloads", "calls", "throttled")
    lines += table(("", ""), [(name, document[name]) for name in (*names, "seconds")])
    if gaps:
        lines += ["## Not read"]
        lines += table(
            ("key", "reason", "detail"), [(g["key"], g["reason"], g["detail"]) for g in gaps]
        )
    if isinstance(kinds, dict):
        lines += ["## Kinds", *table(("kind", "number"), sorted(kinds.items()))]
    return "\n".join(lines)


def severity_of(words: str) -> str:
    """Give one of the severities that automations route by."""
    return words if words in {"info", "low", "medium", "high", "critical"} else "high"


def readiness_markdown(document: JsonObject, *, everything: bool = False) -> str:
    """Give a readiness (docs/schemas/ready.schema.json): objectives first, then what is not met.

    `everything` shows also what is.
    """
    lines = [f"# Readiness: {cell(document['verdict'])}", "", f"Judged {document['at']}"]
    lines += table(
        ("objective", "promised", "state", "until", "why"),
        [
            (o["name"], o["promised_seconds"], o["state"], o["date"], o["detail"])
            for o in dicts(document["objectives"])
        ],
    )
    open_ = [c for c in dicts(document["checks"]) if c["state"] != "met"]
    met = len(dicts(document["checks"])) - len(open_)
    if open_:
        lines += ["## Not met"]
        lines += table(
            ("state", "check", "of", "found", "next"),
            [(c["state"], c["name"], c["subject"], c["detail"], c["remedy"]) for c in open_],
        )
    if everything and met:
        lines += ["## Met"]
        lines += table(
            ("check", "of", "found"),
            [
                (c["name"], c["subject"], c["detail"])
                for c in dicts(document["checks"])
                if c["state"] == "met"
            ],
        )
    return "\n".join([*lines, f"{met} checks are met."])


def verification_markdown(document: JsonObject) -> str:
    """Give a verification (docs/schemas/verify.schema.json)."""
    lines = [f"# What was kept is {cell(document['verdict'])}", "", f"Looked at {document['at']}"]
    names = ("snapshots", "objects", "sample", "reconstructed", "bundle", "resources", "behind")
    lines += table(("", ""), [(name, document[name]) for name in names])
    damages = dicts(document["damages"])
    if damages:
        lines += ["## Damage"]
        lines += table(
            ("store", "where", "what", "detail"),
            [(d["store"], d["path"], d["problem"], d["detail"]) for d in damages],
        )
    return "\n".join(lines)


def replication_markdown(document: JsonObject) -> str:
    """Give a replication (docs/schemas/replicate.schema.json)."""
    whole = "in step" if document["complete"] else "not in step"
    applied = "applied" if document["applied"] else "only looked at"
    lines = [f"# The standby is {whole}", "", f"This run {applied}."]
    lines += table(
        ("primary", "standby", "in step", "steps", "record"),
        [
            (p["primary"], p["standby"], p["complete"], p["steps"], p["record"])
            for p in dicts(document["pairs"])
        ],
    )
    return "\n".join([*lines, *_steps(document)])


def plan_markdown(document: JsonObject, decided: str = "") -> str:
    """Give a plan, or what came of it (docs/schemas/restore.schema.json)."""
    title = "What was done" if document["applied"] else "What would be done"
    lines = [f"# {title} in {cell(document['target'])}", ""]
    lines += [f"Snapshot `{cell(document['snapshot'])}`"]
    if decided:
        lines += ["", f"**Decision**: {cell(decided)}"]
    names = ("record", "expected_seconds", "expected_calls", "seconds", "calls")
    lines += table(("", ""), [(n, document[n]) for n in names if document[n] is not None])
    closed = [g for g in dicts(document["gates"]) if not g["passed"]]
    if closed:
        lines += ["## Gates that did not open"]
        lines += table(
            ("gate", "of", "why", "next"),
            [(g["name"], g["subject"], g["detail"], g["remedy"]) for g in closed],
        )
    lines += _steps(document)
    lost = dicts(document["not_restorable"])
    if lost:
        lines += ["## What does not come back"]
        lines += table(("what", "why"), [(n["key"], n["sentence"]) for n in lost])
    left = dicts(document["remaining_changes"])
    if left:
        lines += ["## Changes that are left"]
        lines += table(("change", "what"), [(c["change"], c["key"]) for c in left])
    return "\n".join(lines)


def _steps(document: JsonObject) -> list[str]:
    steps = dicts(document["steps"])
    if not steps:
        return ["", "There is nothing to do.", ""]
    rows = [(s["id"], s["action"], s["key"], s["state"], s.get("error")) for s in steps]
    return ["## Steps", *table(("step", "action", "of", "state", "why not"), rows)]


def drill_markdown(document: JsonObject, decided: str = "") -> str:
    """Give a drill's evidence: verdict, times, steps, checks, clean-up."""
    lines = [f"# {cell(document.get('title') or document['drill'])}: {cell(document['verdict'])}"]
    if decided:
        lines += ["", f"**Decision**: {cell(decided)}"]
    reasons = document.get("reasons")
    lines += [f"- {cell(reason)}" for reason in (reasons if isinstance(reasons, list) else [])]
    names = ("mode", "seed", "rto_seconds", "rpo_seconds", "calls", "cost_estimate")
    lines += table(("", ""), [(name, document.get(name)) for name in names])
    if document.get("id"):
        id_ = cell(document["id"])
        lines += [f"Evidence `{id_}`: `muster drill show {id_}`, `muster drill check {id_}`", ""]
    for name in ("gate", "checks"):
        rows = dicts(document.get(name))
        if rows:
            lines += [f"## {name.title()}"]
            lines += table(
                ("state", "broken copy", "check", "detail"),
                [(c["state"], c["negative_control"], c["name"], c["detail"]) for c in rows],
            )
    steps = dicts(document.get("steps"))
    if steps:
        lines += ["## Steps"]
        lines += table(
            ("state", "seconds", "step", "detail", "approved by"),
            [(s["state"], s["seconds"], s["name"], s["detail"], s["approver"]) for s in steps],
        )
    clean = document.get("cleanup")
    if isinstance(clean, dict):
        lines += ["## Clean-up", "", f"{cell(clean.get('state'))}"]
        for name in ("left", "proof"):
            value = clean.get(name)
            lines += [f"- {name}: {cell(v)}" for v in (value if isinstance(value, list) else [])]
    return "\n".join(lines)


def report_markdown(document: JsonObject) -> str:
    """Give what the site says first (docs/schemas/report.schema.json)."""
    lines = [f"# {cell(document['answer'])}", "", f"`{cell(document['index'])}`"]
    parts = document["parts"]
    if isinstance(parts, dict):
        rows = [(n, p["state"], p["told"]) for n, p in parts.items() if isinstance(p, dict)]
        lines += table(("part", "state", "told"), rows)
    problems = dicts(document["problems"])
    if problems:
        lines += ["## What needs a person"]
        lines += table(
            ("state", "what", "next"), [(p["state"], p["text"], p["remedy"]) for p in problems]
        )
    return "\n".join(lines)
