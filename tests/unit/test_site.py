"""The site: what is not known is never fine, every figure has a source, every text is harmless."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from muster.cli import main
from muster.report import site_charts as charts
from muster.report import site_signoffs as signoffs
from muster.report.site import MARK, PROBLEMS, ROWS, archive, keep, pages, summary, write
from muster.report.site_charts import Drawn, Series
from muster.report.site_gather import gather
from muster.report.site_model import Applied, Level, Site, see
from muster.report.site_reading import Promises
from snapshots.errors import InputError
from snapshots.ledger import BASELINE, EVIDENCE
from snapshots.model import Key, Recovery, pretty
from tests.audit_report_fixtures import HOSTILE, finding, realistic, report
from tests.report_site_fixtures import (
    ACCOUNT,
    NAMES,
    NOW,
    PAIR,
    Recorded,
    account,
    below,
    check,
    drill_document,
    healthy,
    recorded,
    rehearsal_document,
    spiteful,
    told,
)

ROOT = Path(__file__).parents[2]
TABS = {
    "index.html",
    "estate.html",
    "readiness.html",
    "drift.html",
    "replication.html",
    "drills.html",
    "unrecoverable.html",
    "evidence.html",
}


class Page(HTMLParser):
    """What a page holds, as a browser would take it."""

    def __init__(self, data: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.sources: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.policy = ""
        self._quiet = 0
        self.style = ""
        self.feed(data.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        found = dict(attrs)
        self.attributes |= set(found)
        if tag == "a":
            self.links.append(found.get("href") or "")
        elif "href" in found or "src" in found:
            self.sources.append(found.get("href") or found.get("src") or "")
        if found.get("id"):
            self.ids.append(str(found["id"]))
        if found.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(found["content"])
        if tag == "style":
            self._quiet += 1

    def handle_endtag(self, tag: str) -> None:
        if tag == "style":
            self._quiet -= 1

    def handle_data(self, data: str) -> None:
        if self._quiet:
            self.style += data
        else:
            self.text += data


def parsed(files: Mapping[str, bytes]) -> dict[str, Page]:
    return {path: Page(data) for path, data in files.items() if path.endswith(".html")}


def state(site: Site) -> dict[str, Level]:
    return {
        "estate": site.estate.part.level,
        "readiness": site.readiness.part.level,
        "drift": site.drift.part.level,
        "replication": site.replication.part.level,
        "drills": site.drills.part.level,
        "unrecoverable": site.unrecoverable.part.level,
        "evidence": site.evidence.part.level,
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """The pages of the three estates, each made once."""
    folder = tmp_path_factory.mktemp("estates")
    makers = {"healthy": healthy, "told": told, "spiteful": spiteful}
    return {name: pages(maker(folder / name).site()) for name, maker in makers.items()}


# ------------------------------------------------------------------- what is known, and is not


def test_a_healthy_estate_has_no_problem_and_nothing_unknown(tmp_path: Path) -> None:
    site = healthy(tmp_path).site()
    assert site.problems == ()
    assert site.level in (Level.GOOD, Level.NOTE)
    assert set(state(site).values()) <= {Level.GOOD, Level.NOTE}
    assert site.troubles == ()


def test_of_an_estate_that_was_never_kept_nothing_is_fine() -> None:
    site = gather(None, None, name="new", now=NOW, version="0", promises=Promises(pairs=(PAIR,)))
    assert site.level in (Level.UNKNOWN, Level.BAD)
    assert not set(state(site).values()) & {Level.GOOD, Level.NOTE}
    files = pages(site)
    assert "Nobody knows" in parsed(files)["index.html"].text
    assert "muster snapshot" in parsed(files)["estate.html"].text
    assert "muster ready" in parsed(files)["readiness.html"].text
    assert "muster audit" in parsed(files)["drift.html"].text
    assert "muster replicate" in parsed(files)["replication.html"].text + str(site.problems)
    assert "muster drill run" in parsed(files)["drills.html"].text
    assert "state-good" not in files["index.html"].decode().split("</style>")[1]


@pytest.mark.parametrize(
    ("left_out", "part", "command"),
    [
        ("ready", "readiness", "muster ready"),
        ("audit", "drift", "muster audit"),
        ("drill", "drills", "muster drill run"),
        ("verify", "evidence", "muster verify"),
        ("replicate", "replication", "muster replicate"),
    ],
)
def test_what_was_never_recorded_is_not_known_and_says_what_to_run(
    tmp_path: Path, left_out: str, part: str, command: str
) -> None:
    made = recorded(tmp_path)
    made.snapshot([account(), below("deployment", "chat")])
    made.approve()
    steps: dict[str, Callable[[], object]] = {
        "audit": lambda: made.audit(replace(realistic(), findings=(), gaps=(), risks=())),
        "ready": lambda: made.ready(check(), check("pair", pair=None)),
        "verify": made.verified,
        "replicate": made.replicated,
        "drill": lambda: made.evidence(drill_document()),
    }
    for name, step in steps.items():
        if name != left_out:
            step()
    found = state(made.site())
    assert found.pop(part) in (Level.UNKNOWN, Level.BAD)
    found.pop("unrecoverable")  # nobody signed for conversations
    assert set(found.values()) <= {Level.GOOD, Level.NOTE}
    assert any(command in p.remedy for p in made.site().problems)


def test_every_trap_of_the_told_estate_is_named(tmp_path: Path) -> None:
    site = told(tmp_path).site()
    words = " | ".join(p.text for p in site.problems)
    for trap in (
        "incomplete: 1 gap",
        "1 account in westeurope without a standby region",
        "Content filter loosened",
        "Quota (swedencentral → eastus2)",
        "account aoai-old in rg-ai ends in 1 d 6 h",
        "Files with content would not come back",
        "Commitment plans would not come back",
        "Drill bring-back failed",
        "Drill other not proved",
        "could not read everything: 2 gaps",
    ):
        assert trap in words, (trap, words)
    ranks = [p.level.rank for p in site.problems]
    assert ranks == sorted(ranks, reverse=True)
    assert site.level is Level.BAD
    assert summary(site)[0] == "contoso-ai: Not as promised: problems stand in the way."


def test_the_worst_problem_is_as_bad_as_the_answer(tmp_path: Path) -> None:
    """An answer that no problem explains would be one nobody can act on."""
    empty = gather(None, None, name="new", now=NOW, version="0", promises=Promises(pairs=(PAIR,)))
    made = told(tmp_path / "told")
    sites = [empty, made.site(), made.site(now=NOW + timedelta(days=3))]
    sites.append(spiteful(tmp_path / "spiteful").site())
    calm = healthy(tmp_path / "healthy")
    sites += [calm.site(now=NOW + timedelta(hours=h)) for h in (0, 1, 25)]
    for name in ("drill", "verify", "snapshot age", "pair", "replication", "quota"):
        calm.ready(check(name, "not met", pair=None))
        sites.append(calm.site())
    calm.ready(check("rescue clock", "not known", pair=None))
    sites.append(calm.site())
    for site in sites:
        if site.level.rank > Level.NOTE.rank:
            assert site.problems, site.level
            assert site.problems[0].level is site.level, (site.problems[0], state(site))
        else:
            assert site.problems == ()


def test_a_snapshot_older_than_promised_is_a_problem(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    assert made.site(now=NOW + timedelta(minutes=49)).estate.part.level is Level.GOOD
    late = made.site(now=NOW + timedelta(minutes=51))
    assert late.estate.part.level is Level.BAD
    assert "1 h is promised as RPO" in late.problems[0].text


def test_a_payload_that_the_vault_lost_is_a_problem(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    assert made.site().estate.part.level is Level.GOOD
    (kept,) = [p for p in (tmp_path / "vault" / "payloads").rglob("*") if p.is_file()]
    kept.chmod(0o600)
    kept.unlink()
    site = made.site()
    assert site.estate.part.level is Level.BAD
    assert "1 of 1 payloads are missing" in site.problems[0].text


# ----------------------------------------------------------------------------------- readiness


def test_of_two_answers_the_newest_counts_for_each_pair(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    made.ready(check("quota", "not met"), at=NOW + timedelta(minutes=1), name="pair-a-b")
    (estate, pair) = made.site().readiness.pairs
    assert (estate.state, pair.state) == ("met", "not met")
    made.ready(check(), check("pair", pair=None), at=NOW + timedelta(minutes=2))
    assert [p.state for p in made.site().readiness.pairs] == ["met", "met"]


def test_an_answer_of_a_pair_alone_tells_of_the_stores_and_not_of_accounts_without_a_pair(
    tmp_path: Path,
) -> None:
    made = healthy(tmp_path)
    made.ledger.put(EVIDENCE, {"readiness/latest.json": None}, "never asked")
    made.ready(check(), check("vault", pair=None), name="pair-swedencentral-eastus2")
    found = made.site().readiness
    assert [v.name for v in found.pairs] == ["The whole estate", "swedencentral → eastus2"]
    assert found.part.level is Level.GOOD
    assert "accounts that no pair covers were never asked for" in found.part.missing[0]
    made.ready(check("pair", "not met", pair=None), at=NOW - timedelta(minutes=9))
    estate = made.site().readiness.pairs[0]  # older, and still all that is known of them
    assert {c.name: c.state for c in estate.checks} == {"pair": "not met", "vault": "met"}


def test_an_old_answer_is_a_risk_and_one_of_another_state_is_told(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    old = made.site(now=NOW + timedelta(hours=25)).readiness.part
    assert "an old answer" in old.headline
    assert old.level is Level.RISK
    assert made.site().readiness.part.missing == ()
    made.snapshot([account(), below("deployment", "another")])
    (words,) = made.site().readiness.part.missing
    assert "the estate changed since" in words


def test_a_pair_that_was_never_asked_for_is_not_known(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    site = gather(
        made.ledger,
        None,
        name="x",
        now=NOW,
        version="0",
        promises=Promises(pairs=(PAIR, ("francecentral", "germanywestcentral"))),
    )
    views = {v.name: v for v in site.readiness.pairs}
    assert views["francecentral → germanywestcentral"].level is Level.UNKNOWN
    assert site.readiness.part.level is Level.UNKNOWN


def test_a_clock_that_has_run_out_is_a_problem(tmp_path: Path) -> None:
    made = told(tmp_path)
    (clock,) = [c for c in made.site().readiness.clocks if c.name == "rescue clock"]
    assert (clock.level, clock.left) == (Level.RISK, "ends in 1 d 6 h")
    (clock,) = [
        c
        for c in made.site(now=NOW + timedelta(hours=31)).readiness.clocks
        if c.name == "rescue clock"
    ]
    assert (clock.level, clock.left) == (Level.BAD, "ended 1 h before this report")


# --------------------------------------------------------------------------------------- drift


def test_a_baseline_that_moved_after_the_audit_is_told_and_a_sign_off_is_no_move(
    tmp_path: Path,
) -> None:
    made = healthy(tmp_path)  # signs after its audit
    assert made.site().drift.part.missing == ()
    made.approve(reason="again")
    (words,) = made.site().drift.part.missing
    assert "the baseline was changed after this audit" in words


def test_an_audit_in_the_future_of_our_clock_is_told_by_the_time_it_was_kept(
    tmp_path: Path,
) -> None:
    made = healthy(tmp_path)
    made.audit(
        replace(realistic(), findings=(), gaps=(), at=NOW + timedelta(hours=5))
    )  # Azure's clock
    assert "after this report" not in made.site().drift.part.headline


# -------------------------------------------------------------------------------------- drills


def test_a_restore_that_was_not_finished_is_named_with_the_way_on(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    record = Applied("20261122T100000Z-aaaaaa", "standby eastus2", NOW, True, 6, 6)
    made.applied = (record,)
    assert made.site().problems == ()
    made.applied = (replace(record, finished=False, done=2),)
    (problem,) = made.site().problems
    assert "to standby eastus2: 2 of 6 steps done, not finished" in problem.text
    assert "muster resume 20261122T100000Z-aaaaaa" in problem.remedy


def test_evidence_that_was_changed_is_the_first_problem(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    (path, data) = next(
        (p, d) for p, d in made.ledger.files(EVIDENCE, "drills/") if p.endswith(".json")
    )
    document = orjson.loads(data)
    document["rto_seconds"] = 1.0
    made.ledger.put(EVIDENCE, {path: pretty(document)}, "improved")
    site = made.site()
    assert "its hash does not fit" in site.problems[0].text
    assert site.evidence.part.level is Level.BAD
    run = next(p for p in parsed(pages(site)).values() if "This evidence does not hold" in p.text)
    assert document["id"] in run.text


def test_evidence_that_the_ledger_lost_and_the_vault_has_is_a_problem(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    paths = [p for p, _ in made.ledger.files(EVIDENCE, "drills/")]
    made.ledger.put(EVIDENCE, {paths[-1]: None}, "forgotten")
    words = [p.text for p in made.site().problems]
    assert any("is in the vault and no longer in the ledger" in w for w in words)
    made.ledger.put(EVIDENCE, {paths[0]: None}, "and the first")
    words = [p.text for p in made.site().problems]
    assert any("the chain is broken" in w for w in words)


def test_evidence_without_a_copy_in_the_vault_is_told(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    made.evidence(drill_document(number=77), to_vault=False)
    assert any("the vault has no copy of it" in p.text for p in made.site().problems)


def test_damaged_evidence_is_named_and_hides_no_other(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    damaged = [b"{", b"[]", b'{"id": 3}', b"\xff\xfe", b'{"id": "x"}', b'{"id":"y","steps":3}']
    made.ledger.put(
        EVIDENCE, {f"drills/broken-{n}.json": data for n, data in enumerate(damaged)}, "broken"
    )
    site = made.site()
    assert {t.split(":")[1] for t in site.troubles} == {f"drills/broken-{n}.json" for n in range(4)}
    runs = [r for v in site.drills.drills for r in v.runs]
    assert {r.id for r in runs if r.problems} == {"x", "y"}
    assert len([r for r in runs if not r.problems]) == 3
    assert site.level is Level.BAD
    pages(site)


def test_a_check_that_cannot_refuse_a_broken_copy_is_no_proof(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    made.evidence(drill_document("blind", control="passed", number=50))
    (view,) = [v for v in made.site().drills.drills if v.name == "blind"]
    assert view.level is not Level.GOOD
    assert view.runs[0].checks[0].control == "NOT refused"


def test_a_drill_slower_than_promised_is_a_problem_and_its_chart_has_the_objective(
    tmp_path: Path,
) -> None:
    made = healthy(tmp_path)
    page = pages(made.site())["drills.html"].decode()
    assert "lies far above this scale" in page
    made.evidence(drill_document(rto=4000.0, number=60))
    site = made.site()
    assert site.drills.part.level is Level.BAD
    page = pages(site)["drills.html"].decode()
    assert "against the objective of 1 h" in page
    assert "tone-goal" in page.split("</style>")[1]


def test_a_rehearsal_is_told_as_a_distribution(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    made.evidence(rehearsal_document(50, failing=3))
    site = made.site()
    (row,) = site.drills.rehearsals
    assert row.runs == 50
    assert dict(row.shares)["half within"] == "13.0 s"
    assert row.failing == (("restore", 1),)
    assert row.verdicts == "1 failed, 49 passed"
    assert not any("does not hold" in p.text for p in site.problems)
    files = pages(site)
    assert "50 measured runs by RTO" in parsed(files)["drills.html"].text
    assert "50 rehearsals in a sandbox" in parsed(files)[row.page].text


# ----------------------------------------------------------------------------------- sign-offs


def lost(made: Recorded) -> dict[str, tuple[str, Level]]:
    return {row.what: (row.state, row.level) for row in made.site().unrecoverable.rows}


@pytest.mark.parametrize(
    ("what", "signed"),
    [
        ("file", {"file"}),
        ("lost", {"file", "thread"}),
        ("recorded", {"commitment-plan"}),
        ("file/aoai-prod/handbook.pdf", {"file"}),
        ("file/*", {"file"}),
        (str(Key("file", (*ACCOUNT, "handbook.pdf"))), {"file"}),
        ("file/aoai-prod/other.pdf", set()),
        ("deployment", set()),
    ],
)
def test_a_sign_off_covers_what_it_names_and_nothing_else(
    tmp_path: Path, what: str, signed: set[str]
) -> None:
    made = recorded(tmp_path)
    made.snapshot(
        [
            account(),
            below("deployment", "chat"),
            below("file", "handbook.pdf", {"purpose": "assistants"}),
            below("commitment-plan", "plan-a"),
        ]
    )
    made.approve()
    assert {k for k, v in lost(made).items() if v[0] == "signed"} == set()
    assert {v[1] for v in lost(made).values()} == {Level.RISK}
    made.sign(what)
    assert {k for k, v in lost(made).items() if v == ("signed", Level.NOTE)} == signed
    idle = made.site().unrecoverable.idle
    assert bool(idle) is not bool(signed)


def test_one_of_two_signed_stands_out_as_half(tmp_path: Path) -> None:
    made = recorded(tmp_path)
    files = [below("file", f"{n}.pdf", {"purpose": "assistants"}) for n in "ab"]
    made.snapshot([account(), *files])
    made.approve()
    made.sign("file/aoai-prod/a.pdf")
    assert lost(made)["file"] == ("1 of 2 not signed", Level.RISK)
    page = parsed(pages(made.site()))["unrecoverable.html"]
    assert page.text.count("not signed") >= 2


def test_a_sign_off_that_ran_out_counts_no_more(tmp_path: Path) -> None:
    made = recorded(tmp_path)
    made.snapshot([account(), below("commitment-plan", "p")])
    made.approve()
    made.sign("commitment-plan", expires=NOW + timedelta(hours=1))
    assert lost(made)["commitment-plan"] == ("signed", Level.NOTE)
    later = made.site(now=NOW + timedelta(hours=2)).unrecoverable
    (row,) = [r for r in later.rows if r.what == "commitment-plan"]
    assert (row.state, row.level) == ("sign-off expired", Level.RISK)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("what: thread\nowner: x\nat: 2026-11-01\n", "reason is missing"),
        ("what: thread\nowner: x\nat: soon\nreason: y\n", "is no time"),
        ("what: thread\nowner: x\nat: 2026-11-01\nreason: y\nuntil: z\n", "until is not known"),
        ("what: [\n", "not YAML"),
        ("what: thread\nowner: ''\nat: 2026-11-01\nreason: y\n", "is no text"),
    ],
)
def test_a_damaged_sign_off_is_named_with_file_and_line(text: str, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        signoffs.parse([("signoffs/team.yaml", text.encode())])
    assert complaint in raised.value.what
    assert raised.value.where.startswith("signoffs/team.yaml:")


def test_after_a_damaged_sign_off_nothing_counts_as_signed(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    assert lost(made)["thread"][0] == "signed"
    made.ledger.put(BASELINE, {"signoffs/team.yaml": b"what: thread\n"}, "by hand")
    site = made.site()
    (trouble,) = site.troubles
    assert "signoffs/team.yaml:1" in trouble
    assert site.unrecoverable.part.level is Level.UNKNOWN
    assert lost(made)["thread"][0] == "not signed"


def test_a_list_of_sign_offs_in_one_file_is_read(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    text = b"""- {what: commitment-plan, owner: a, at: 2026-11-01, reason: r}
- {what: file/*, owner: b, at: 2026-11-01T10:00Z, reason: r, expires: 2026-12-31, ticket: T-1}
"""
    made.ledger.put(BASELINE, {"signoffs/many.yaml": text}, "by hand")
    found = signoffs.load(made.ledger)
    assert {s.what for s in found} == {"thread", "commitment-plan", "file/*"}
    assert next(s for s in found if s.owner == "b").expires is not None


def test_signing_again_replaces_and_needs_a_baseline(tmp_path: Path) -> None:
    made = recorded(tmp_path)
    made.snapshot([account()])
    with pytest.raises(InputError, match="no baseline yet"):
        made.sign("thread")
    made.approve()
    made.sign("thread", owner="a")
    made.sign("thread", owner="b")
    (found,) = signoffs.load(made.ledger)
    assert found.owner == "b"
    assert made.ledger.load(BASELINE).resources  # signing is no part of the state


@given(st.text(max_size=80), st.text(max_size=80))
def test_what_was_signed_is_read_back_as_it_was_or_refused(owner: str, reason: str) -> None:
    one = signoffs.SignOff("thread", owner, NOW, reason, expires=NOW + timedelta(days=1))
    fits = all(text.isprintable() and text.strip() for text in (owner, reason))
    if not fits:
        with pytest.raises(InputError, match="cannot be seen"):
            signoffs.written(one)
        return
    (back,) = signoffs.parse([("signoffs/x.yaml", signoffs.written(one))])
    assert (back.owner, back.reason) == (owner.strip(), reason.strip())
    assert (back.at, back.expires) == (one.at, one.expires)


@pytest.mark.parametrize("what", ["", "restored", "tread", "a\nb", "no such kind"])
def test_words_that_mean_nothing_cannot_be_signed(what: str) -> None:
    with pytest.raises(InputError, match="neither a class, a kind nor a key"):
        signoffs.checked(what, {"thread", "file"})


def test_files_of_sign_offs_differ_where_their_words_do() -> None:
    names = [signoffs.file_of(w) for w in ("a/b", "a-b", "A/b", "thread", "*/x", "é/x", "x" * 300)]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"signoffs/[a-z0-9-]{1,80}\.yaml", n) for n in names)


# ----------------------------------------------------------------------------------- the pages


@pytest.mark.parametrize("name", ["healthy", "told", "spiteful"])
def test_every_link_leads_to_a_page_and_a_place_of_the_site(
    made: dict[str, dict[str, bytes]], name: str
) -> None:
    files = made[name]
    found = parsed(files)
    assert set(found) >= TABS
    count = 0
    for path, page in found.items():
        assert len(set(page.ids)) == len(page.ids), path
        for link in page.links:
            where, _, anchor = unquote(link).partition("#")
            target = where or path
            assert target in files, (path, link)
            if anchor:
                assert anchor in found[target].ids, (path, link)
            count += 1
    assert count > 100


@pytest.mark.parametrize("name", ["healthy", "told", "spiteful"])
def test_no_page_holds_a_script_or_refers_to_anything_outside(
    made: dict[str, dict[str, bytes]], name: str
) -> None:
    for path, page in parsed(made[name]).items():
        assert not page.tags & {
            "script", "img", "iframe", "object", "embed", "form", "foreignobject", "image", "use",
        }, path  # fmt: skip
        assert not {a for a in page.attributes if a.startswith("on") or a == "style"}, path
        assert all(s.startswith("data:image/svg+xml;base64,") for s in page.sources), path
        allowed = base64.b64encode(hashlib.sha256(page.style.encode()).digest()).decode()
        assert f"style-src 'sha256-{allowed}'" in page.policy
        assert page.policy.startswith("default-src 'none'")
        assert "script-src" not in page.policy


def test_hostile_texts_are_shown_and_never_markup(made: dict[str, dict[str, bytes]]) -> None:
    found = parsed(made["spiteful"])
    everything = "".join(p.text for p in found.values())
    for text in NAMES:
        assert see(text, 100)[:60] in everything.replace("\n", " ") or see(text)[:20] in everything
    for path, page in found.items():
        shown = [c for c in page.text if not c.isprintable() and c not in "\n\t"]
        assert shown == [], (path, shown[:5])
    assert "window.pwned" in everything


def test_every_page_says_as_of_when_and_in_which_zone(
    made: dict[str, dict[str, bytes]],
) -> None:
    found = parsed(made["told"])
    for name in TABS:
        assert re.search(r"As of .* of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", found[name].text), name
        assert "Report of 2026-11-22 12:00:00 UTC" in found[name].text
        assert "evidence.html#" in " ".join(found[name].links)


def test_the_evidence_in_the_site_is_the_evidence_of_the_ledger(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    files = pages(made.site())
    kept = dict(made.ledger.files(EVIDENCE, "drills/"))
    copied = {p: d for p, d in files.items() if p.startswith("evidence/")}
    assert copied == {p.replace("drills/", "evidence/"): d for p, d in kept.items()}


def test_the_same_records_give_the_same_bytes_in_another_process_too(tmp_path: Path) -> None:
    made = told(tmp_path)
    first, second = pages(made.site()), pages(made.site())
    assert first == second
    assert archive(first) == archive(second)
    later = pages(made.site(now=NOW + timedelta(minutes=1)))
    assert later != first
    code = (
        "import sys, hashlib; from pathlib import Path; from dataclasses import replace;"
        "from tests.report_site_fixtures import *;"
        "from muster.report.site import pages, archive;"
        "p = Path(sys.argv[1]); c = Stopped();"
        "l = Ledger.open(p / 'ledger.git', clock=c, version='0.1.0');"
        "v = open_vault(str(p / 'vault'), clock=c);"
        "print(hashlib.sha256(archive(pages(Recorded(l, v, c).site()))).hexdigest())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout.strip() == hashlib.sha256(archive(first)).hexdigest()


def test_a_large_estate_makes_small_pages(
    tmp_path: Path, scaled: Callable[[int, int], int]
) -> None:
    count = scaled(1_600, 10_000)
    made = recorded(tmp_path)
    names = [f"aoai-{n:03d}" for n in range(40)]
    resources = [account(n) for n in names]
    for number in range(count):
        key = Key("deployment", (*ACCOUNT[:2], names[number % 40], f"model-{number:05d}"))
        resources.append(replace(below("deployment", "x"), key=key))
    made.snapshot(resources)
    made.approve()
    many = [finding("deployment", f"m-{n}") for n in range(scaled(700, 5_000))]
    made.audit(report(many))
    files = pages(made.site())
    lists = [p for p in files if p.startswith("resources")]
    assert len(lists) == -(-(count + 40) // ROWS)
    assert max(len(data) for data in files.values()) < 450_000
    assert sum(len(data) for data in files.values()) < 900_000 + count * 500
    assert sum(parsed(files)[p].text.count("model-") for p in lists) == count
    drift = parsed(files)["drift.html"].text
    assert "The worst 100 are told here" in drift


def test_the_summary_fits_a_screen_and_tells_the_rest_folded(
    made: dict[str, dict[str, bytes]],
) -> None:
    text = made["told"]["index.html"].decode()
    above = text.split('<details class="more">', maxsplit=1)[0]
    assert above.count('<li class="problem') == PROBLEMS


# ------------------------------------------------------------------------------------- charts

labels = st.lists(
    st.one_of(
        st.text(max_size=20),
        st.text(st.characters(categories=["Cc", "Cf", "Zl", "Zs"]), max_size=8),
        st.sampled_from([t[:60] for t in HOSTILE if "\ud800" not in t]),
    ),
    min_size=2,
    max_size=5,
)


@given(labels, st.floats(0, 1e9))
@example(["", ""], 5e-324)
@example(["", ""], 1e-9)
def test_a_chart_is_made_of_harmless_shapes_whatever_its_labels_say(
    marks: list[str], value: float
) -> None:
    series = [
        Series(marks[0], "main", [value] * len(marks), marks),
        Series(marks[-1], "goal", [value / 2, *[None] * (len(marks) - 1)], marks, dashed=True),
    ]
    bars = [Series(s.name, s.tone, [v or 0.0 for v in s.values], s.labels) for s in series]
    drawings = (
        charts.lines("t", marks, series, unit=str),
        charts.stacked("t", marks, bars, unit=str),
        charts.bars("t", marks, bars, unit=str),
    )
    for drawn in drawings:
        if drawn is not None:
            held(drawn)


def held(drawn: Drawn) -> None:
    root = ET.fromstring(str(drawn.svg))  # noqa: S314  our own
    for element in root.iter():
        assert element.tag in {"svg", "g", "path", "line", "rect", "circle", "text", "title"}
        for name, value in element.items():
            assert name not in ("style", "id", "href", "onload")
            if name not in ("aria-label", "class"):
                assert re.fullmatch(r"[A-Za-z0-9 .,()+_-]*", value), (name, value)
    assert not re.search(r"<!--|<style|<script|href|pygal", str(drawn.svg))


def test_a_chart_tells_its_values_to_those_who_point_at_them() -> None:
    drawn = charts.lines(
        "RTO of 2 runs",
        ["a", "b"],
        [Series("RTO", "main", [61.0, 90.0], ["Monday", "Tuesday <b>"])],
        unit=lambda v: f"{v:.0f} s",
    )
    assert drawn is not None
    svg = str(drawn.svg)
    assert 'role="img" aria-label="RTO of 2 runs"' in svg
    assert "<title>Monday: 61 s</title>" in svg
    assert "<title>Tuesday &lt;b&gt;: 90 s</title>" in svg
    assert "tone-main" in svg


def test_the_chart_library_leaves_no_import_hook_behind() -> None:
    charts.lines("t", ["a"], [Series("x", "main", [1.0])], unit=str)
    assert all(hasattr(finder, "find_spec") for finder in sys.meta_path)


def test_nothing_to_draw_is_no_chart() -> None:
    assert charts.lines("t", [], [], unit=str) is None
    assert charts.lines("t", ["a"], [Series("x", "main", [None])], unit=str) is None
    assert charts.stacked("t", ["a"], [Series("x", "main", [0.0])], unit=str) is None
    assert charts.bars("t", ["a"], [Series("x", "main", [0.0])], unit=str) is None


def test_what_pygal_makes_holds_what_must_not_reach_a_page() -> None:
    """The negative control: without the rebuilding there would be scripts, styles and an id."""
    chart = charts._library().Line()
    chart.add("x", [1, 2])
    raw = chart.render().decode()
    assert "<script" in raw
    assert "<style" in raw
    assert "//" in raw


# ------------------------------------------------------------------------------------ writing


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="no report"):
        write({"index.html": b"x", MARK: b""}, folder)
    assert (folder / "thesis.txt").read_text() == "years of work"
    with pytest.raises(InputError, match="not a folder"):
        write({"index.html": b"x"}, folder / "thesis.txt")


def test_an_older_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = tmp_path / "out" / "report"
    write({"index.html": b"old", "drill-1.html": b"old", MARK: b""}, folder)
    write({"index.html": b"new", "evidence/a.json": b"{}", MARK: b""}, folder)
    found = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert found == {"index.html", "evidence/a.json", MARK}
    assert (folder / "index.html").read_bytes() == b"new"
    assert [p.name for p in folder.parent.iterdir()] == ["report"]


def test_a_folder_that_cannot_be_moved_is_filled_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "volume"
    write({"index.html": b"old", "drill-1.html": b"old", MARK: b""}, folder)
    moved = Path.rename

    def busy(path: Path, target: Path) -> Path:
        if path == folder:
            raise OSError(16, "Device or resource busy")
        return moved(path, target)

    monkeypatch.setattr(Path, "rename", busy)
    write({"index.html": b"new", "evidence/a.json": b"{}", MARK: b""}, folder)
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert found == {"index.html": b"new", "evidence/a.json": b"{}", MARK: b""}
    assert [p.name for p in tmp_path.iterdir()] == ["volume"]


def test_the_copy_in_the_vault_is_the_site_as_pages_and_as_one_archive(tmp_path: Path) -> None:
    made = healthy(tmp_path)
    files = pages(made.site())
    folder = keep(files, made.vault, NOW)
    assert folder == "reports/20261122T120000Z"
    keep(files, made.vault, NOW)  # again: the same bytes, nothing to do
    for path, data in files.items():
        assert made.vault.read_document(f"{folder}/{path}").data == data
    held = made.vault.read_document("reports/muster-report-20261122T120000Z.zip").data
    with zipfile.ZipFile(io.BytesIO(held)) as stream:
        unpacked = {n.removeprefix("muster-report/"): stream.read(n) for n in stream.namelist()}
    assert unpacked == files
    assert list(made.vault.check()) == []
    opened = (tmp_path / "vault" / folder / "index.html").read_bytes()
    assert opened == files["index.html"]


# ---------------------------------------------------------------------------------- the command


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "muster.toml"
    file.write_text(
        '[estate]\nname = "contoso-ai"\n[[estate.scope]]\n'
        'subscription = "11111111-1111-1111-1111-111111111111"\n[vault]\nurl = "vault"\n'
    )
    monkeypatch.setenv("MUSTER_CONFIG", str(file))
    return file


def run(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> tuple[str, str]:
    code = main(list(arguments))
    out, err = capsys.readouterr()
    assert code == expect, (code, out, err)
    assert "Traceback" not in out + err
    return out, err


def answer(capsys: pytest.CaptureFixture[str], *arguments: str, expect: int = 0) -> Any:
    out, _ = run(capsys, *arguments, "--format", "json", expect=expect)
    found = json.loads(out)
    name = "report-sign-off" if "sign-off" in arguments else "report"
    schema = json.loads((ROOT / "docs" / "schemas" / f"{name}.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(found)
    assert found["schema"] == schema["$id"]
    return found


def test_the_command_writes_the_site_before_anything_was_kept(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = answer(capsys, "report")
    assert found["index"] == str(config.parent / "report" / "index.html")
    assert Path(found["index"]).is_file()
    assert found["verdict"] in ("not known", "problem")
    assert found["complete"] is True
    assert found["parts"]["estate"]["missing"] == ["run `muster snapshot`"]


def test_the_command_tells_the_estate_keeps_a_copy_and_signs(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told(config.parent)
    target = config.parent / "out"
    found = answer(capsys, "report", "--output", str(target), "--to-vault")
    assert found["pages"] == sum(p.is_file() for p in target.rglob("*"))
    assert (config.parent / "vault" / found["vault"] / "index.html").is_file()
    before = [p["text"] for p in found["problems"]]
    assert any("Commitment plans" in text for text in before)
    signed = answer(
        capsys,
        "report",
        "sign-off",
        "commitment-plan",
        "--owner",
        "joe",
        "--reason",
        "bought by hand",
    )
    assert signed["file"].startswith("signoffs/commitment-plan-")
    out, _ = run(capsys, "report", "--output", str(target), "--no-vault")
    assert "Not as promised" in out
    assert str(target / "index.html") in out
    page = Page((target / "unrecoverable.html").read_bytes())
    assert "joe" in page.text
    assert "bought by hand" in page.text


def test_what_cannot_be_read_ends_with_three_and_a_site_that_says_so(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = healthy(config.parent)
    made.ledger.put(EVIDENCE, {"readiness/latest.json": b"{"}, "broken")
    found = answer(capsys, "report", expect=3)
    assert found["complete"] is False
    assert any("readiness/latest.json is no JSON object" in t for t in found["troubles"])
    page = Page((config.parent / "report" / "evidence.html").read_bytes())
    assert "What could not be read for this report" in page.text
    _, err = run(capsys, "report", expect=3)
    assert "readiness/latest.json" in err


def test_a_vault_that_is_gone_is_told_and_the_site_is_written(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy(config.parent)
    (config.parent / "vault").rename(config.parent / "elsewhere")
    (config.parent / "vault").write_text("no folder")
    found = answer(capsys, "report", expect=3)
    assert any("the vault" in t for t in found["troubles"])
    assert found["verdict"] in ("not known", "problem")
    found = answer(capsys, "report", "--no-vault")
    assert found["complete"] is True
    assert any("payloads is not known" in p["text"] for p in found["problems"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("sign-off", "nothing", "--owner", "x", "--reason", "y"), "neither a class"),
        (("sign-off", "thread", "--owner", " ", "--reason", "y"), "needs an owner"),
        (("sign-off", "thread", "--owner", "x", "--reason", "y", "--expires", "soon"), "no moment"),
        (
            ("sign-off", "thread", "--owner", "x", "--reason", "y", "--expires", "2020-01-01"),
            "expired already",
        ),
        (("sign-off", "thread", "--owner", "x"), "--reason"),
        (("--to-vault", "--no-vault"), "exclude each other"),
        (("--output", "muster.toml"), "is a file"),
    ],
)
def test_wrong_words_are_refused_with_what_to_do(
    config: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(config.parent)
    healthy(config.parent)
    _, err = run(capsys, "report", *arguments, expect=1)
    assert complaint in err


def test_recovery_classes_are_all_told_on_the_page() -> None:
    from muster.report.site import RECOVERY_WORDS

    assert [name for name, _ in RECOVERY_WORDS] == [r.value for r in Recovery]
