"""Write an audit as Markdown that fits a pull-request comment, harmless whatever it tells."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence

from muster.report import audit_words as words
from snapshots.audit.report_model import AuditReport, Finding, PropertyFinding
from snapshots.model import ChangeType, Missing

LIMIT = 65_000  # characters as GitHub counts them (UTF-16); it refuses more than 65,536
_ROWS = 60  # of the table
_PATHS = 20  # of one finding
_LINES = 24  # of one side of a property
_LINE = 300  # characters
_ITEMS = 30  # gaps, risks, remarks
# What may stand outside of a code span: a word, a number, a date, and plain marks at its end.
# Everything else could be a link, a mention, a reference, an emphasis or HTML to some renderer.
_PLAIN = re.compile(
    r"\(?(?:[A-Za-z]+(?:['’-][A-Za-z]+)*|[0-9]{1,4}(?:,[0-9]{3})*|[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:'s)?\)?[.,;:!?…]?"
)
_COMMIT = re.compile(r"[0-9a-fA-F]{7,}")  # GitHub links what could be a commit
_MARKS = {"critical": "🔴", "high": "🟠", "medium": "🟡", "low": "🔵", "info": "⚪"}


def audit_markdown(report: AuditReport, limit: int = LIMIT) -> bytes:
    """Give the comment: at most `limit` UTF-16 units, whole sections only, and what was cut.

    Texts of the estate stand in code spans and code blocks only, where no renderer looks for links,
    mentions or HTML. The worst findings come first and are kept longest.
    """
    counted, ignored = words.shown(report.findings), words.set_aside(report.findings)
    head = _head(report, counted)
    tail = _tail(report, len(ignored))
    note_room = 400
    room = limit - _units(head) - _units(tail) - note_room
    kept: list[str] = []
    left: dict[str, int] = {}
    full = False
    for noun, block in _blocks(report, counted, ignored):
        size = _units(block)
        # Once a detail did not fit, later ones would look as if they were worse.
        if full or size > room:
            full = True
            left[noun] = left.get(noun, 0) + 1
            continue
        kept.append(block)
        room -= size
    note = ""
    if left:
        cut = ", ".join(words.plural(count, noun) for noun, count in left.items())
        note = f"\n> **Cut to fit a comment:** {cut}. The HTML and JSON reports have everything.\n"
    text = head + "".join(kept) + note + tail
    return text.encode("utf-8", "backslashreplace")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


# ---------------------------------------------------------------------------- making it harmless


def code(text: str, limit: int = 200) -> str:
    """Write a text as a code span: nothing in it is interpreted, also not in a table's cell."""
    text = words.cut(words.visible(text), limit)
    # A bar would end the cell; as JSON both spellings are the same character.
    text = text.replace("|", "\\u007c").strip()
    if not text:
        return "(empty)"
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def prose(text: str, limit: int = 400) -> str:
    """Write a sentence: plain words as they are, whatever else as code."""
    parts: list[str] = []
    odd: list[str] = []
    for word in words.cut(words.visible(text), limit).split():
        if _PLAIN.fullmatch(word) and not _COMMIT.fullmatch(word.strip("().,;:!?…")):
            if odd:
                parts.append(code(" ".join(odd), limit))
                odd = []
            parts.append(word)
        else:
            odd.append(word)
    if odd:
        parts.append(code(" ".join(odd), limit))
    return " ".join(parts)


def block(lines: Sequence[str], language: str = "") -> str:
    """Write lines as a code block whose fence none of them can close."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence])


def summary(text: str, limit: int = 200) -> str:
    """Write a text between our own HTML tags, where Markdown is not parsed.

    Plain words stay; whatever else stands in a code element, where GitHub looks for no mention.
    """
    parts: list[str] = []
    for word in words.cut(words.visible(text), limit).split():
        if _PLAIN.fullmatch(word) and not _COMMIT.fullmatch(word.strip("().,;:!?…")):
            parts.append(html.escape(word))
        else:
            parts.append(f"<code>{_entities(word)}</code>")
    return " ".join(parts)


def _entities(text: str) -> str:
    return "".join(c if c.isalnum() else f"&#{ord(c)};" for c in text)


# ------------------------------------------------------------------------------------- sections


def _head(report: AuditReport, counted: Sequence[Finding]) -> str:
    verdict, sentence = words.verdict(report)
    light = {"clean": "🟢", "findings": "🔴", "incomplete": "🟡", "unapproved": "⚪"}[verdict]
    lines = [
        f"## {light} Change audit of {code(report.estate, 100)}",
        "",
        f"**{sentence}**",
        "",
    ]
    if verdict == "unapproved":
        lines += [
            "Approve what there is as the baseline:",
            "",
            block(["muster approve --all --reason '…'"]),
            "",
        ]
    present = [f"{_MARKS[s.value]} {c} {s.value}" for s, c in words.by_severity(counted) if c]
    classes = [f"{c} {k.value}" for k, c in words.by_class(counted) if c]
    if present:
        lines += [f"{' · '.join(present)}  ", f"{' · '.join(classes)}", ""]
    sweep = words.age(report.sweep_age) + (" before this" if report.last_sweep else "")
    ignored = max(report.ignored, sum(1 for f in report.findings if not f.counted))
    basis = (
        f"{words.plural(report.resources, 'resource')} compared, "
        f"{words.plural(len(report.gaps), 'gap')}, {ignored:,} ignored; "
        f"last full sweep {sweep}; {words.plural(report.calls.made, 'call')} made."
    )
    lines += [basis, ""]
    if missed := words.may_miss(report):
        lines += [f"An incremental read: {missed}.", ""]
    if counted:
        lines += [
            "| | Finding | Resource | Class | Who | When (UTC) |",
            "|---|---|---|---|---|---|",
        ]
        lines += [_row(finding) for finding in counted[:_ROWS]]
        if len(counted) > _ROWS:
            lines.append("")
            lines.append(f"… and {words.plural(len(counted) - _ROWS, 'finding')} more, no worse.")
        lines.append("")
    return "\n".join(lines)


def _row(finding: Finding) -> str:
    severity = finding.severity.value
    cells = [
        f"{_MARKS[severity]} {severity}",
        prose(words.title(finding), 80),
        code(words.name(finding), 60),
        finding.class_.value,
        code(words.who(finding.attribution), 60) if finding.attribution.known else "unattributed",
        words.moment(finding.attribution.when) or "unknown",
    ]
    return f"| {' | '.join(cells)} |"


def _blocks(
    report: AuditReport, counted: Sequence[Finding], ignored: Sequence[Finding]
) -> list[tuple[str, str]]:
    """Give what follows the table, the most needed first: what it is, and its text."""
    found: list[tuple[str, str]] = []
    if report.gaps:
        rows = [
            f"- {code(words.gap_name(g), 160)}: {prose(words.gap_why(g), 200)}"
            for g in report.gaps[:_ITEMS]
        ]
        found.append(("list of gaps", _list("Could not be read", rows, len(report.gaps))))
    found += [("finding", _details(finding)) for finding in counted]
    if report.risks:
        rows = [
            f"- {_MARKS[r.rule.severity.value]} {code(str(r.key), 160)}: {prose(r.message, 200)}"
            for r in report.risks[:_ITEMS]
        ]
        found.append(("list of risks", _list("Ahead", rows, len(report.risks))))
    for title, items in (
        ("What the records of Azure could not tell", report.reading.holes),
        ("Decisions that ran out", report.expired),
        ("Warnings", report.warnings),
    ):
        if items:
            rows = [f"- {prose(item, 300)}" for item in items[:_ITEMS]]
            found.append((f"list: {title.lower()}", _list(title, rows, len(items))))
    if ignored:
        rows = [
            f"- {code(str(f.key), 160)} until {words.moment(f.ignored.expires)} by "
            f"{code(f.ignored.by, 80)}: {prose(f.ignored.reason, 200)}"
            for f in ignored[:_ITEMS]
            if f.ignored is not None
        ]
        found.append(("list of ignored findings", _list("Ignored", rows, len(ignored))))
    return found


def _list(title: str, rows: Sequence[str], count: int) -> str:
    more = [f"- … and {count - len(rows):,} more"] if count > len(rows) else []
    return _folded(f"{title} ({count:,})", "\n".join([*rows, *more]))


def _folded(title: str, body: str) -> str:
    return f"\n<details><summary>{summary(title)}</summary>\n\n{body}\n\n</details>\n"


def _details(finding: Finding) -> str:
    by = finding.attribution
    title = (
        f"{finding.severity.value}: {words.cut(words.title(finding), 80)}: "
        f"{words.cut(words.name(finding), 80)}"
    )
    lines = [f"{code(str(finding.key), 300)}: {finding.change.value}", ""]
    if finding.renamed_from is not None:
        lines += [f"It was called {code(str(finding.renamed_from), 300)}.", ""]
    if finding.gap is not None:
        lines += [f"Could not be read: {prose(words.gap_why(finding.gap))}", ""]
    lines += [
        f"- {r.severity.value}: {prose(r.title)}. {prose(r.why)} {code(r.id)}"
        for r in finding.rules
    ]
    who = code(words.who(by)) if by.known else "unattributed"
    parts = [f"- **who**: {who}"]
    if by.known:
        parts.append(words.PRINCIPALS[by.principal_kind])
    parts.append(words.seen(finding))
    if by.address:
        parts.append(f"from {code(by.address, 80)}")
    if by.client or by.app_id:
        parts.append(f"with {code(by.client or by.app_id, 80)}")
    lines.append(", ".join(parts))
    if by.operation or by.correlation_id:
        lines.append(
            f"- **operation**: {code(by.operation)}, correlation {code(by.correlation_id, 80)}"
        )
    reasons = "; ".join(prose(reason, 200) for reason in by.reasons[:5])
    lines.append(f"- **confidence**: {by.confidence.value}{': ' if reasons else ''}{reasons}")
    reasons = "; ".join(prose(reason, 200) for reason in finding.reasons[:5])
    lines.append(f"- **{finding.class_.value}** because: {reasons or 'no reason was recorded'}")
    if finding.pending is not None:
        lines.append(
            f"- an approval by {code(', '.join(finding.pending.by), 120)} waits for a second person"
        )
    lines.append(f"- **way back**: {prose(words.restore(finding))}")
    lines.append("")
    diff: list[str] = []
    for path in finding.paths[:_PATHS]:
        diff += _diff(path)
    if len(finding.paths) > _PATHS:
        diff.append(f"# {len(finding.paths) - _PATHS:,} more properties")
    if diff:
        lines += [block(diff, "diff"), ""]
    if finding.change is not ChangeType.UNKNOWN:
        lines.append(block([words.revert(finding), words.approve(finding)], "sh"))
    return _folded(title, "\n".join(lines))


def _diff(path: PropertyFinding) -> list[str]:
    lines = [f"# {words.cut(words.pointer(path.path), _LINE)}"]
    for sign, value in (("-", path.before), ("+", path.after)):
        if isinstance(value, Missing):
            continue
        if isinstance(value, str) and "\n" in value:
            found = words.visible(value, lines=True).split("\n")
        else:
            found = words.value(value, indent=True).split("\n")
        lines += [f"{sign} {words.cut(line, _LINE)}" for line in found[:_LINES]]
        if len(found) > _LINES:
            lines.append(f"{sign} … {len(found) - _LINES:,} more lines")
    return lines


def _tail(report: AuditReport, ignored: int) -> str:
    counted = max(report.ignored, ignored)
    note = f" · {counted:,} ignored" if counted else ""
    hidden = f" · {report.hidden:,} left out by scope or time" if report.hidden else ""
    return (
        f"\nmuster {code(report.version, 40)} · audit {code(report.id, 60)} · baseline "
        f"{code(report.baseline[:12] or 'none', 20)} · live {code(report.live[:12] or 'none', 20)} "
        f"· {words.moment(report.at)}{note}{hidden}\n"
    )
