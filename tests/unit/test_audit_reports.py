"""Reports of an audit: complete, true to the audit, and harmless whatever the estate is called."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import html as entities
import io
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from muster.report import audit_words as words
from muster.report.audit_csv import COLUMNS, audit_csv, cell
from muster.report.audit_formats import EXTENSIONS, ReportFormat, write, write_all
from muster.report.audit_html import audit_html, sides
from muster.report.audit_junit import audit_junit
from muster.report.audit_markdown import LIMIT, audit_markdown
from muster.report.audit_sarif import audit_sarif, line_of, message
from snapshots.audit.report_model import AuditReport, Class, Mode, PropertyFinding, Severity
from snapshots.audit.texts import sound
from snapshots.errors import InputError
from snapshots.model import (
    MISSING,
    ChangeType,
    Json,
    JsonObject,
    Key,
    Payload,
    Resource,
    pretty,
)
from tests.audit_report_fixtures import (
    HOSTILE,
    NOW,
    finding,
    hostile,
    realistic,
    report,
)

OURS = list(ReportFormat)
texts = st.lists(
    st.one_of(
        st.text(st.characters(exclude_categories=[]), max_size=40),
        st.text(st.characters(categories=["Cs", "Cc", "Cf", "Zl", "Zs"]), max_size=12),
        st.text(st.sampled_from("<>&\"'`|[]()!@#=+-*_~\\{}:/\r\n\t \u202e\0awx1."), max_size=40),
        st.sampled_from([text for text in HOSTILE if len(text) < 200]),
    ),
    min_size=2,
    max_size=4,
)


def many(count: int) -> AuditReport:
    return report(
        [
            finding(
                "deployment",
                f"gpt-{number}",
                after={"sku": {"capacity": number}},
                before={"sku": {"capacity": 0}},
                paths=[PropertyFinding("/sku/capacity", 0, number)],
                severity=list(Severity)[number % 5],
            )
            for number in range(1, count + 1)
        ]
    )


# ------------------------------------------------------------------------------ what is harmless

_TAGS = (
    "html head meta title link style body a header div span svg rect path main section p h1 h2 h3 "
    "h4 h5 ul li b dl dt dd code bdi details summary table caption thead tr th tbody td fieldset "
    "legend input label line text circle mark footer g"
)
TAGS = set(_TAGS.split())
_ATTRIBUTES = (
    "lang charset http-equiv content name rel href class id tabindex aria-hidden aria-label "
    "aria-labelledby role open type checked for title scope viewbox width height rx ry x y x1 x2 "
    "y1 y2 cx cy r d text-anchor"
)
ATTRIBUTES = set(_ATTRIBUTES.split())


class Page(HTMLParser):
    """What a browser would see: wrong elements and attributes, links, ids, texts."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.texts: list[str] = []
        self.policy = ""
        self.style = ""
        self._in = ""
        self.feed(data.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in = tag
        if tag not in TAGS:
            self.wrong.append(f"element {tag}")
        found = dict(attrs)
        self.wrong += [f"attribute {name}" for name in found if name not in ATTRIBUTES]
        if href := found.get("href"):
            self.links.append(href)
            if not href.startswith("#") and (tag, found.get("rel")) != ("link", "icon"):
                self.wrong.append(f"link {href}")
        if "id" in found:
            self.ids.append(found["id"] or "")
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = found["content"] or ""

    def handle_data(self, data: str) -> None:
        if self._in == "style":
            self.style += data
        self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


def unseen(text: str) -> set[str]:
    return {c for c in text if not c.isprintable() and c not in "\r\n"}


def markdown_faults(data: bytes) -> list[str]:
    """What a renderer of GitHub's kind would make of it that we did not write."""
    text = data.decode("utf-8")
    parser = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    wrong: list[str] = []
    cells = 0
    for block in parser.parse(text):
        cells = cells + 1 if block.type in ("th_open", "td_open") else cells
        if block.type == "tr_close":
            wrong += [] if cells == 6 else [f"a row of {cells} cells"]
            cells = 0
        if block.type == "heading_open" and block.map != [0, 1]:
            wrong.append("a heading")
        if block.type == "html_block":
            wrong += _html_faults(block.content)
        for token in block.children or []:
            if token.type in ("link_open", "image", "html_inline", "em_open", "s_open"):
                wrong.append(f"{token.type} {token.content}")
            if token.type == "text":
                wrong += _reference_faults(token.content)
    return wrong


def _html_faults(text: str) -> Iterator[str]:
    for tag in re.findall(r"<[^>]*>?", text):
        if tag not in ("<details>", "</details>", "<summary>", "</summary>", "<code>", "</code>"):
            yield f"HTML {tag}"
    bare = re.sub(r"<code>.*?</code>", "", text, flags=re.DOTALL)
    yield from _reference_faults(entities.unescape(bare))


def _reference_faults(text: str) -> Iterator[str]:
    for pattern in (r"@\w", r"://", r"www\.", r"#\d", r"\bGH-\d", r"\b[0-9a-fA-F]{7,}\b"):
        if found := re.search(pattern, text):
            yield f"{found[0]!r} in text"


def csv_faults(data: bytes) -> list[str]:
    text = data.decode("utf-8")
    wrong = [] if text.count("\n") == text.count("\r\n") else ["a line end that is not CRLF"]
    for row in csv.reader(io.StringIO(text, newline=""), strict=True):
        wrong += [] if len(row) == len(COLUMNS) else [f"a row of {len(row)} cells"]
        wrong += [
            f"formula {found[:30]}"
            for found in row
            if found.strip()[:1] in tuple("=+-@|%") and not re.fullmatch(r"-?\d+(\.\d+)?", found)
            if found.strip()
        ]
        wrong += [f"unseen {c!r}" for found in row for c in unseen(found)]
    return wrong


def sarif_faults(data: bytes) -> list[str]:
    """The parts of the published schema (SARIF 2.1.0) that a reader relies on."""
    log: Any = json.loads(data)
    wrong = (
        [] if log["version"] == "2.1.0" and set(log) == {"$schema", "version", "runs"} else ["log"]
    )
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        ids = [rule["id"] for rule in driver["rules"]]
        wrong += [] if len(set(ids)) == len(ids) and all(ids) else ["rule ids"]
        notes = run["invocations"][0]["toolExecutionNotifications"]
        known = {note["id"] for note in driver["notifications"]}
        wrong += [f"note {n}" for n in notes if n["descriptor"]["id"] not in known]
        prints: set[str] = set()
        for result in run["results"]:
            if ids[result["ruleIndex"]] != result["ruleId"]:
                wrong.append("ruleIndex")
            if (result["kind"] == "fail") != (result["level"] in ("error", "warning", "note")):
                wrong.append(f"level {result['level']} of {result['kind']}")
            if not result["message"]["text"]:
                wrong.append("message")
            wrong += _link_faults(result["message"]["text"])
            places = result["locations"]
            if len(places) != 1:
                wrong.append("locations")
            for place in places:
                where = place["physicalLocation"]
                uri = where["artifactLocation"]["uri"]
                if not re.fullmatch(r"(?:[A-Za-z0-9\-._~!$&'()*+,;=@/]|%[0-9A-F]{2})+", uri):
                    wrong.append(f"uri {uri}")
                if where["artifactLocation"]["uriBaseId"] not in run["originalUriBaseIds"]:
                    wrong.append("uriBaseId")
                if not (isinstance(where["region"]["startLine"], int)):
                    wrong.append("startLine")
                wrong += [] if where["region"]["startLine"] >= 1 else ["startLine"]
            prints.add(result["partialFingerprints"]["musterFinding/v1"])
        wrong += [] if len(prints) == len(run["results"]) else ["fingerprints"]
    return wrong + [f"unseen {c!r}" for text in _strings(log) for c in unseen(text)]


def _link_faults(text: str) -> Iterator[str]:
    bare = text.replace("\\\\", "").replace("\\[", "").replace("\\]", "")
    if "[" in bare or "]" in bare or "\\" in bare:
        yield f"a link in {text[:40]}"
    if re.search(r"[{}]", bare.replace("{{", "").replace("}}", "")):
        yield f"a placeholder in {text[:40]}"


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for name, inner in value.items():
                yield from _strings(name)
                yield from _strings(inner)
        case list():
            for inner in value:
                yield from _strings(inner)
        case _:
            pass


def parsed(data: bytes) -> ET.Element:
    return ET.fromstring(data)  # noqa: S314 - of our own making


def junit_faults(data: bytes) -> list[str]:
    root = parsed(data)
    wrong: list[str] = []
    for holder in (root, *root.findall("testsuite")):
        for attribute, tag in (
            ("tests", "testcase"),
            ("failures", "failure"),
            ("errors", "error"),
            ("skipped", "skipped"),
        ):
            if holder.get(attribute) != str(len(list(holder.iter(tag)))):
                wrong.append(f"{attribute} of {holder.tag}")
    known = {"testsuites", "testsuite", "testcase", "failure", "error", "skipped"}
    known |= {"properties", "property", "system-out"}
    wrong += [f"element {e.tag}" for e in root.iter() if e.tag not in known]
    wrong += [f"unseen {c!r}" for e in root.iter() for v in e.attrib.values() for c in unseen(v)]
    return wrong


def html_faults(data: bytes) -> list[str]:
    page = Page(data)
    wrong = list(page.wrong)
    wrong += [f"unseen {c!r}" for text in page.texts for c in unseen(text)]
    wrong += [] if len(set(page.ids)) == len(page.ids) else ["an id twice"]
    anchors = {f"#{id_}" for id_ in page.ids}
    wrong += [f"dead link {k}" for k in page.links if k.startswith("#") and k not in anchors]
    hashed = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
    if f"style-src 'sha256-{hashed}'" not in page.policy or "default-src 'none'" not in page.policy:
        wrong.append(f"policy {page.policy}")
    return wrong


def hidden(data: bytes) -> list[str]:
    """Characters that a terminal would act on, or nobody would see."""
    lines = data.decode("utf-8").split("\n")
    return [f"not printable: {line[:80]!r}" for line in lines if not line.isprintable()]


def json_faults(data: bytes) -> list[str]:
    wrong = hidden(data)
    try:
        found = orjson.loads(data)  # refuses half of a surrogate pair
    except orjson.JSONDecodeError as error:
        return [*wrong, str(error)]
    if len(found["findings"]) != found["counts"]["findings"]:
        wrong.append("findings are missing")
    return wrong


FAULTS = {
    ReportFormat.TEXT: hidden,
    ReportFormat.JSON: json_faults,
    ReportFormat.HTML: html_faults,
    ReportFormat.MARKDOWN: markdown_faults,
    ReportFormat.SARIF: sarif_faults,
    ReportFormat.JUNIT: junit_faults,
    ReportFormat.CSV: csv_faults,
}
PLANTED = {
    ReportFormat.TEXT: (b"by:", b"by:\x1b[2J"),
    ReportFormat.JSON: (b'"class"', '"\u202ecl"'.encode()),
    ReportFormat.HTML: (b"</main>", b"<img src=x onerror=1></main>"),
    ReportFormat.MARKDOWN: (b"\n\n", b"\n\nsee @octocat [x](javascript:1) <script>\n\n"),
    ReportFormat.SARIF: (b'"startLine": ', b'"startLine": -'),
    ReportFormat.JUNIT: (b'tests="', b'tests="1'),
    ReportFormat.CSV: (b'"finding"', b'"=1+1"'),
}


@pytest.mark.parametrize("format_", OURS)
def test_no_hostile_text_gets_out_of_its_place(format_: ReportFormat) -> None:
    assert FAULTS[format_](write(hostile(), format_)) == []


@pytest.mark.parametrize("format_", OURS)
def test_a_planted_fault_is_seen(format_: ReportFormat) -> None:
    old, new = PLANTED[format_]
    data = write(realistic(), format_)
    assert FAULTS[format_](data) == []
    assert FAULTS[format_](data.replace(old, new, 1)) != []


@given(texts)
def test_no_text_at_all_gets_out_of_its_place(found: list[str]) -> None:
    made = hostile(found)
    for format_, faults in FAULTS.items():
        assert faults(write(made, format_)) == [], format_


@given(texts)
def test_json_means_what_was_there(found: list[str]) -> None:
    told = orjson.loads(write(hostile(found), ReportFormat.JSON))["findings"]
    assert [f["reasons"][0] for f in told] == [sound(text) for text in found]
    for text in found:
        whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "ignore") == text
        assert (sound(text) == text) is whole


@pytest.mark.parametrize("format_", OURS)
def test_the_same_audit_gives_the_same_bytes(format_: ReportFormat) -> None:
    assert write(realistic(), format_) == write(realistic(), format_)


@pytest.mark.parametrize("format_", OURS)
def test_every_format_tells_every_finding_and_gap(format_: ReportFormat) -> None:
    made = realistic()
    told = entities.unescape(write(made, format_).decode("utf-8"))
    for item in made.findings:
        assert words.name(item) in told, item.key
    assert "aoai-contoso-lab" in told
    assert "AuthorizationFailed" in told


@pytest.mark.parametrize("format_", OURS)
def test_a_clean_audit_and_one_without_a_baseline_differ(format_: ReportFormat) -> None:
    clean = report()
    first = dataclasses.replace(clean, baseline="", baseline_at=None, last_sweep=None)
    assert FAULTS[format_](write(clean, format_)) == []
    assert FAULTS[format_](write(first, format_)) == []
    assert write(clean, format_) != write(first, format_)
    if format_ in (ReportFormat.HTML, ReportFormat.MARKDOWN, ReportFormat.JUNIT):
        assert b"muster approve --all --reason" in write(first, format_)
        assert b"muster approve --all" not in write(clean, format_)


@pytest.mark.parametrize("format_", ReportFormat)
def test_every_format_says_what_an_incremental_read_may_miss(format_: ReportFormat) -> None:
    made = report()
    made = dataclasses.replace(
        made, reading=dataclasses.replace(made.reading, mode=Mode.INCREMENTAL)
    )
    swept = dataclasses.replace(made, reading=dataclasses.replace(made.reading, mode=Mode.SWEEP))
    words = b'"mode": "incremental"' if format_ is ReportFormat.JSON else b"data plane"
    assert words in write(made, format_)
    assert words not in write(swept, format_)


# ---------------------------------------------------------------------------------------- words


def test_the_verdict_is_never_clean_when_something_was_not_read() -> None:
    made = realistic()
    assert words.verdict(made)[0] == "incomplete"
    unread = dataclasses.replace(made, findings=())
    assert words.verdict(unread)[0] == "incomplete"
    assert words.verdict(dataclasses.replace(unread, gaps=()))[0] == "clean"
    assert words.verdict(many(2)) == ("findings", "2 findings, the worst medium")
    ignored = tuple(f for f in made.findings if not f.counted)
    assert words.verdict(report(ignored))[0] == "clean"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "never"),
        (0, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h"),
        (61_500, "17 h 5 min"),
        (86_400 * 3 + 61, "3 d"),
        (-5, "0 s"),
    ],
)
def test_an_age_is_said_in_its_two_largest_units(seconds: float | None, said: str) -> None:
    assert words.age(seconds) == said


@given(st.text(st.characters()))
def test_what_cannot_be_seen_is_written_out(text: str) -> None:
    seen = words.visible(text)
    assert seen.isprintable()
    assert (seen == text) == text.isprintable()
    assert words.visible(text, lines=True).replace("\n", "").isprintable()


# ----------------------------------------------------------------------------------------- HTML


def test_html_says_who_when_and_the_way_back_of_each_finding() -> None:
    told = entities.unescape(audit_html(realistic()).decode())
    for words_ in (
        "anna.berg@contoso.example",
        "203.0.113.24",
        "Microsoft.CognitiveServices/accounts/raiPolicies/write",
        "5f7e2d41-5a0e-4c39-9d0e-1a2b3c4d5e6f",
        "high confidence",
        "unattributed",
        "outside every window",
        "revert would write the properties above back in one PUT",
        "17 h 5 min ago",
        "46 made, 44 would be the least",
        "waits for a second person",
        "the team tries sizes until the end of the month",
        "the Activity Log gave no answer between 02:10 and 02:40 UTC",
        "gpt-35-turbo 0125 retires on 2027-01-01",
    ):
        assert words_ in told, words_
    first = realistic().findings[0]
    assert f"muster revert {first.id}" in told
    assert f"muster approve {first.id} --reason '…'" in told


def test_html_offers_no_decision_on_what_is_unknown_or_ignored() -> None:
    made = realistic()
    told = audit_html(made).decode()
    for item in made.findings:
        decidable = item.counted and item.change is not ChangeType.UNKNOWN
        assert (f"muster revert {item.id}" in told) is decidable


def test_html_cuts_a_text_that_is_far_too_long_and_says_so() -> None:
    data = audit_html(hostile(["x" * 70_000, "y"]))
    assert max(len(text) for text in Page(data).texts) < 30_000  # the style sheet
    assert "x" * 3_000 not in data.decode()
    assert b"more characters" in data


def test_html_of_a_great_many_findings_stays_readable_and_says_what_it_leaves_out() -> None:
    data = audit_html(many(6_000))
    assert html_faults(data) == []
    assert b"The worst 400 findings are told whole" in data
    assert b"after 5,000 of 6,000" in data
    assert len(data) < 8_000_000


def test_a_long_text_shows_what_differs_and_leaves_out_what_is_equal() -> None:
    old = "\n".join(f"rule {n}" for n in range(100))
    before, after = sides(old, old.replace("rule 50\n", "rule fifty\n") + "\nbe brief")
    assert sum(line.skipped for line in before.lines) == sum(line.skipped for line in after.lines)
    assert [line.head + line.core + line.tail for line in before.lines if line.differs] == [
        "rule 50"
    ]
    told = [line.head + line.core + line.tail for line in after.lines if line.differs]
    assert told == ["rule fifty", "be brief"]
    assert len(before.lines) < 20


json_values: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values, json_values)
def test_both_sides_show_the_whole_value(before: Json, after: Json) -> None:
    for found, side in zip((before, after), sides(before, after), strict=True):
        lines = [line.head + line.core + line.tail for line in side.lines if not line.skipped]
        skipped = sum(line.skipped for line in side.lines)
        plain = [words.value(found, indent=True).split("\n")]
        if isinstance(found, str):
            plain.append(words.visible(found, lines=True).split("\n"))
        assert skipped or lines in plain
        assert any(len(lines) + skipped == len(form) for form in plain)


# ------------------------------------------------------------------------------------- Markdown


def utf16(data: bytes) -> int:
    return len(data.decode("utf-8").encode("utf-16-le")) // 2


def test_markdown_fits_a_comment_and_says_what_was_cut() -> None:
    data = audit_markdown(many(900))
    assert utf16(data) <= LIMIT
    assert markdown_faults(data) == []
    text = data.decode()
    cut = re.search(r"Cut to fit a comment:\*\* ([\d,]+) findings", text)
    assert cut is not None
    assert int(cut[1].replace(",", "")) + text.count("muster revert") == 900
    assert text.count("<details>") == text.count("</details>")
    # The worst are kept: the first section is critical, and none follows a milder one.
    order = re.findall(r"<summary>(critical|high|medium|low|info)", text)
    assert order[0] == "critical"
    assert [Severity(o).rank for o in order] == sorted(
        (Severity(o).rank for o in order), reverse=True
    )


def test_markdown_that_fits_cuts_nothing() -> None:
    text = audit_markdown(realistic()).decode()
    assert "Cut to fit" not in text
    assert text.count("muster revert") == sum(
        f.counted and f.change is not ChangeType.UNKNOWN for f in realistic().findings
    )


def test_markdown_keeps_to_the_limit_with_hostile_lengths() -> None:
    data = audit_markdown(hostile(["😀" * 70_000, "`" * 70_000, "|" * 70_000]))
    assert utf16(data) <= LIMIT
    assert markdown_faults(data) == []


# ---------------------------------------------------------------------------------------- SARIF


def sarif(made: AuditReport) -> Any:
    return json.loads(audit_sarif(made))["runs"][0]


def test_sarif_points_at_the_line_of_the_property_in_the_ledger() -> None:
    made = realistic()
    results = {r["properties"]["id"]: r for r in sarif(made)["results"]}
    for item in made.findings:
        place = results[item.id]["locations"][0]["physicalLocation"]
        assert place["artifactLocation"]["uri"] == item.place.path
        kept = item.before if item.change is ChangeType.REMOVED else item.after
        if kept is None or not item.paths:
            continue
        line = pretty(kept.document()).decode().splitlines()[place["region"]["startLine"] - 1]
        last = item.paths[0].path.rsplit("/", 1)[1]
        begins = "{" if last.isdecimal() else f'"{last}":'
        assert line.strip().startswith(begins), (item.key, line)


def test_sarif_keeps_fingerprints_when_values_change_and_levels_follow_severity() -> None:
    first, second = sarif(many(5))["results"], many(5)
    changed = dataclasses.replace(
        second,
        findings=tuple(
            dataclasses.replace(f, paths=(PropertyFinding("/sku/capacity", 0, 7),), id="f" * 12)
            for f in second.findings
        ),
    )
    after = sarif(changed)["results"]
    assert [r["partialFingerprints"] for r in first] == [r["partialFingerprints"] for r in after]
    assert [r["level"] for r in first] == ["error", "error", "warning", "note", "note"]


def test_sarif_of_an_incomplete_audit_is_no_success() -> None:
    run = sarif(realistic())
    assert run["invocations"][0]["executionSuccessful"] is False
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 2
    unknown = [r for r in run["results"] if r["kind"] == "open"]
    assert [r["level"] for r in unknown] == ["none"]
    assert sarif(many(3))["invocations"][0]["executionSuccessful"] is True


def test_sarif_suppresses_what_is_ignored_and_only_that_for_good() -> None:
    results = sarif(realistic())["results"]
    found = {
        r["properties"]["id"]: [s["status"] for s in r["suppressions"]]
        for r in results
        if "suppressions" in r
    }
    expected = {
        f.id: ["accepted"] if f.ignored else ["underReview"]
        for f in realistic().findings
        if f.ignored or f.pending
    }
    assert found == expected


def test_sarif_tells_the_worst_and_says_how_many_it_leaves_out() -> None:
    run = json.loads(audit_sarif(many(30), limit=10))["runs"][0]
    assert len(run["results"]) == 10
    assert {r["properties"]["severity"] for r in run["results"]} == {"critical", "high"}
    assert run["properties"]["omitted"] == 20
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert [n["descriptor"]["id"] for n in notes] == ["results-cut"]
    assert sarif_faults(audit_sarif(many(30), limit=10)) == []


def test_sarif_messages_are_neither_links_nor_placeholders() -> None:
    assert message("[x](y) {0} \\") == "\\[x\\](y) {{0}} \\\\"


@given(st.dictionaries(st.text(max_size=8), json_values, max_size=5))
def test_each_property_is_found_at_its_line(body: JsonObject) -> None:
    resource = Resource(Key("deployment", ("a",)), "/id", body, (Payload("content", "0" * 64, 1),))
    lines = pretty(resource.document()).decode().split("\n")
    for pointer, name, value in _pointers(body, ""):
        line = lines[line_of(resource, pointer) - 1].strip()
        begins = pretty(value).decode().split("\n")[0]
        start = begins if name is None else f"{pretty(name).decode().strip()}: {begins}"
        assert line.rstrip(",") == start.rstrip(","), pointer


def _pointers(value: Json, here: str) -> Iterator[tuple[str, str | None, Json]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            there = f"{here}/{name.replace('~', '~0').replace('/', '~1')}"
            if not here and name in ("id", "payloads"):
                continue
            yield there, name, inner
            yield from _pointers(inner, there)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield f"{here}/{index}", None, inner
            yield from _pointers(inner, f"{here}/{index}")


def test_payloads_ids_and_what_is_gone_have_lines_too() -> None:
    payloads = (Payload("content", "a" * 64, 1), Payload("result:0", "b" * 64, 2))
    resource = Resource(Key("file", ("a",)), "file-1", {"tags": {"x": 1}}, payloads)
    lines = pretty(resource.document()).decode().split("\n")
    assert '"id": "file-1"' in lines[line_of(resource, "/id") - 1]
    at = line_of(resource, "/payloads/result:0") - 1
    assert "result:0" in lines[at + 1]
    assert '"tags": {' in lines[line_of(resource, "/tags/gone/deeper") - 1]
    assert '"tags": {' in lines[line_of(resource, "/tags/x", holder=True) - 1]
    assert '"body": {' in lines[line_of(resource, "") - 1]


# ---------------------------------------------------------------------------------------- JUnit


def test_junit_fails_findings_errs_on_gaps_and_skips_what_is_ignored() -> None:
    made = realistic()
    root = parsed(audit_junit(made))
    unknown = sum(f.change is ChangeType.UNKNOWN for f in made.findings)
    assert root.get("failures") == str(len(made.counting()))
    assert root.get("errors") == str(len(made.gaps) + unknown + 1)  # and the read as a whole
    assert root.get("skipped") == "1"
    suites = [suite.get("name") for suite in root.findall("testsuite")]
    assert suites == ["audit", *sorted({f.kind for f in made.findings})]


def test_junit_lets_what_is_milder_than_asked_pass_and_still_tells_it() -> None:
    made = many(5)
    root = parsed(audit_junit(made, Severity.HIGH))
    assert root.get("failures") == str(len(made.counting(Severity.HIGH))) == "2"
    assert len(list(root.iter("system-out"))) == 3


def test_a_clean_audit_is_a_green_suite_and_not_an_empty_one() -> None:
    root = parsed(audit_junit(report()))
    found = [root.get(name) for name in ("tests", "failures", "errors", "skipped")]
    assert found == ["2", "0", "0", "0"]


# ------------------------------------------------------------------------------------------ CSV


def rows(made: AuditReport) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(audit_csv(made).decode(), newline="")))


def test_csv_has_a_row_a_property_with_values_as_json() -> None:
    made = realistic()
    found = rows(made)
    for item in made.findings:
        own = [row for row in found if row["id"] == item.id]
        assert len(own) == max(1, len(item.paths))
        for row, path in zip(own, item.paths, strict=False):
            assert row["path"] == path.path
            for name, value in (("before", path.before), ("after", path.after)):
                text = row[name].removeprefix("'")
                told = json.loads(text) if text else MISSING
                assert told == value or (told is MISSING and value is MISSING)
    assert [row["row"] for row in found[-4:]] == ["gap", "gap", "risk", "reading"]


def test_csv_names_who_changed_a_single_property_where_that_is_known() -> None:
    local = [row for row in rows(realistic()) if row["path"] == "/properties/disableLocalAuth"]
    assert [(row["who"], row["confidence"]) for row in local] == [("", "none")]


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("=1+1", "'=1+1"),
        ("  @SUM(A1)", "'  @SUM(A1)"),
        ("-2+3", "'-2+3"),
        ("-5", "-5"),
        ("-5.25", "-5.25"),
        ("＝1", "'＝1"),
        ("a=b", "a=b"),
        ("\t=1", "\\u0009=1"),
        ("", ""),
    ],
)
def test_csv_cells_are_never_formulas_and_numbers_stay_numbers(text: str, written: str) -> None:
    assert cell(text) == written


def test_csv_cells_fit_a_spreadsheet() -> None:
    assert all(len(c) <= 32_767 for row in rows(hostile()) for c in row.values())


# ------------------------------------------------------------------------------------ the files


def test_several_formats_are_written_beside_each_other(tmp_path: Path) -> None:
    folder = tmp_path / "reports" / "today"
    wanted = [ReportFormat.HTML, ReportFormat.CSV, ReportFormat.HTML, ReportFormat.JSON]
    paths = write_all(realistic(), wanted, folder)
    assert [path.name for path in paths] == ["audit.html", "audit.csv", "audit.json"]
    assert sorted(folder.iterdir()) == sorted(paths)
    assert paths[0].read_bytes() == audit_html(realistic())
    write_all(report(), [ReportFormat.CSV], folder)
    assert paths[1].read_bytes() == audit_csv(report())
    assert sorted(folder.iterdir()) == sorted(paths)


def test_a_folder_that_cannot_be_made_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    with pytest.raises(InputError, match="cannot be written"):
        write_all(report(), [ReportFormat.CSV], tmp_path / "file" / "reports")


def test_every_format_has_a_file_name_of_its_own() -> None:
    assert set(EXTENSIONS) == set(ReportFormat)
    assert len(set(EXTENSIONS.values())) == len(EXTENSIONS)


def test_times_beyond_all_calendars_do_not_stop_a_report() -> None:
    early = NOW.replace(year=1, month=1, day=1)
    item = finding("deployment", "old", class_=Class.UNKNOWN)
    item = dataclasses.replace(item, attribution=dataclasses.replace(item.attribution, when=early))
    same = dataclasses.replace(
        item,
        id="0123456789ab",
        attribution=dataclasses.replace(item.attribution, when=None),
        window=(None, NOW.replace(year=9999)),
    )
    for made in (report([item]), report([same]), report([item, same])):
        assert html_faults(audit_html(made)) == []
        for format_ in OURS:
            assert write(made, format_)
