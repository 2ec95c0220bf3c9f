"""Scripts are held to their grammar, verdicts to what was recorded, evidence to its chain."""

from __future__ import annotations

import copy
import json
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from drills import own
from drills.checks import make as library
from drills.doing import brought, merged, path_of, phases_of
from drills.evidence import (
    EvidenceBook,
    GitSigner,
    Sealed,
    check_in_vault,
    opened,
    problems_of,
    sealed,
)
from drills.evidence_page import page
from drills.journal import RunJournal, read, unfinished
from drills.judge import compared, distribution, judge, quantile
from drills.leavings import inverse, same_at
from drills.model import (
    Check,
    CheckDeclaration,
    DrillResult,
    DrillStepState,
    Estimate,
    Evidence,
    Measured,
    Mode,
    Phase,
    StepOutcome,
    Verdict,
)
from drills.run import findings
from drills.script import parse, shipped
from drills.script import read as read_script
from drills.verbs import Restored
from snapshots.clock import SystemClock
from snapshots.errors import InputError, LockedError, NotFoundError
from snapshots.ledger import Ledger
from snapshots.model import JsonObject, pretty
from snapshots.vault import open_vault

ROOT = Path(__file__).parents[2]
FILE = Path("my-drill.yaml")
GOOD = """\
title: A drill
objective: {rto: 15m}
target: isolated
blast_radius: one group
steps:
  - wait: 5s
  - parallel:
      - wait: 1s
        name: one
      - run: ["true"]
        name: two
checks:
  - check: present
    with: {resource: "${group}", api_version: "2021-04-01"}
"""


def make(declaration: CheckDeclaration) -> Check:
    found = declaration.check in own.NAMES
    return own.make(declaration, None) if found else library(declaration)


def test_a_script_is_read_as_it_was_written() -> None:
    drill = parse(GOOD.encode(), FILE, make)
    assert (drill.objective.rto, drill.objective.rpo) == (900.0, None)
    assert [step.name for step in drill.steps] == ["wait 5s", "parallel"]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("title:", "titel:", 1, "needs title"),
        ("rto: 15m", "rto: soon", 2, "not a duration"),
        ("target: isolated", "target: isolatd", 3, "cannot be 'isolatd'"),
        ("- wait: 5s", "- wiat: 5s", 6, "none of the known kinds"),
        ("name: two", "name: one", 10, "two steps are called"),
        ("check: present", "check: presnt", 13, "there is no check"),
        ("api_version:", "version:", 13, "no setting 'version'"),
        ("target: isolated", "target: same", 1, "needs approvers"),
        ("blast_radius: one group", "blast_radius: *x", 4, "alias"),
        ("- wait: 5s", "- fault: delete", 6, "needs only"),
        ("title: A drill", "title: A drill\ntitle: B", 2, "twice"),
        ("title: A drill", "title: [", 3, "not YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line_and_a_remedy(
    old: str, new: str, line: int, words: str
) -> None:
    with pytest.raises(InputError) as caught:
        parse(GOOD.replace(old, new, 1).encode(), FILE, make)
    assert words in caught.value.what
    assert f"my-drill.yaml:{line}" in caught.value.where
    assert caught.value.remedy


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_bytes_bring_the_reader_down(data: bytes) -> None:
    with pytest.raises(InputError):
        parse(data, FILE, make)


@pytest.mark.parametrize("name", sorted(shipped()))
def test_every_shipped_script_is_valid(name: str) -> None:
    assert read_script(shipped()[name], make).checks


def document(**changes: Any) -> JsonObject:
    check: JsonObject = {
        "name": "state",
        "subject": "",
        "state": "passed",
        "negative_control": "failed",
    }
    found: JsonObject = {
        "schema": "muster/evidence/1",
        "id": "20261122T100000Z-aaaaaa",
        "drill": "my-drill",
        "title": "A <drill>",
        "script": {"sha256": "", "text": ""},
        "mode": "real",
        "finished_at": "2026-11-22T10:00:00.000Z",
        "interrupted": False,
        "verdict": "passed",
        "reasons": [],
        "objective": {"rto_seconds": 10, "rpo_seconds": None},
        "gate": [],
        "steps": [{"name": "one", "kind": "wait", "state": "done", "seconds": 1.5, "steps": []}],
        "checks": [check],
        "cleanup": {"state": "clean", "removed": [], "left": [], "proof": [], "seconds": 0},
        "rto_seconds": 5,
        "rpo_seconds": None,
    }
    found.update(changes)
    script = found["script"]
    if isinstance(script, dict) and not script["sha256"]:
        from snapshots.model import digest

        script["sha256"] = digest(b"")
    return found


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "passed"),
        ({"checks": []}, "not proved"),
        ({"rto_seconds": 11}, "failed"),
        ({"rto_seconds": None}, "not proved"),
        ({"interrupted": True}, "interrupted"),
        ({"mode": "dry-run"}, "not proved"),
        ({"cleanup": {"state": "left"}}, "failed"),
        ({"cleanup": {"state": "unknown"}}, "not proved"),
        ({"cleanup": {"state": "kept"}}, "not proved"),
        ({"steps": [{"name": "x", "state": "failed"}]}, "failed"),
        ({"checks": [{"name": "x", "state": "failed", "negative_control": "failed"}]}, "failed"),
        ({"checks": [{"name": "x", "state": "not-run"}]}, "not proved"),
        ({"checks": [{"name": "x", "state": "passed", "negative_control": "passed"}]},
         "not proved"),
        ({"checks": [{"name": "x", "state": "passed", "negative_control": "not-run"}]},
         "not proved"),
        ({"gate": [{"name": "x", "state": "failed", "negative_control": "failed"}]}, "failed"),
    ],
)  # fmt: skip
def test_a_verdict_follows_from_what_was_recorded(changes: dict[str, Any], verdict: str) -> None:
    found = judge(document(**changes))
    assert found.verdict == verdict
    assert bool(found.reasons) == (verdict != "passed")


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [p for k, v in value.items() for p in places(v, (*at, k))] or [at]
    if isinstance(value, list):
        return [p for k, v in enumerate(value) for p in places(v, (*at, k))] or [at]
    return [at]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_field_that_is_flipped_is_found(data: st.DataObject) -> None:
    evidence = sealed(document(), "")
    assert not list(problems_of(evidence))
    changed = copy.deepcopy(evidence.document)
    path = data.draw(st.sampled_from(places(changed)))
    holder: Any = changed
    for part in path[:-1]:
        holder = holder[part]
    new: Any = data.draw(
        st.sampled_from([None, True, 0, 7.5, "", "passed", []]).filter(
            lambda v: json.dumps(v) != json.dumps(holder[path[-1]])
        )
    )
    holder[path[-1]] = new
    forged = Evidence(id=evidence.id, document=changed, hash=str(changed.get("hash")))
    assert list(problems_of(forged))


@pytest.fixture
def book(tmp_path: Path) -> EvidenceBook:
    clock = SystemClock()
    ledger = Ledger.open(tmp_path / "ledger.git", clock=clock, version="1", create=True)
    vault = open_vault(str(tmp_path / "vault"), clock=clock)
    vault.prepare()
    return EvidenceBook(ledger, vault)


def test_evidence_is_chained_kept_twice_and_exchanging_one_is_found(book: EvidenceBook) -> None:
    first = book.keep(document(), None)
    second = book.keep(document(id="20261122T110000Z-bbbbbb"), None)
    assert second.document["previous"] == first.hash
    assert book.keep(document(rto_seconds=1), None).hash == first.hash  # kept once, for good
    assert [e.id for e in book.all()] == [first.id, second.id]
    for evidence in (first, second):
        assert book.check(evidence, None).whole
    # Somebody rewrites the first and computes its hash anew: chain and copies tell.
    forged = sealed(document(rto_seconds=1), "")
    assert not list(problems_of(forged))
    assert not book.check(forged, None).whole


def test_a_signature_holds_until_a_byte_changes(book: EvidenceBook, tmp_path: Path) -> None:
    key, ledger = tmp_path / "key", tmp_path / "ledger.git"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (tmp_path / "allowed").write_text(f"anna@contoso.example {public}\n")
    for name, value in (
        ("gpg.format", "ssh"),
        ("user.signingkey", str(key)),
        ("gpg.ssh.allowedSignersFile", str(tmp_path / "allowed")),
    ):
        subprocess.run(["git", "-C", str(ledger), "config", name, value], check=True)
    signer = GitSigner(ledger)
    evidence = book.keep(document(), signer)
    checked = book.check(book.find("last"), signer)
    assert (checked.signed_by, checked.problems) == ("anna@contoso.example", ())
    forged = sealed(document(rto_seconds=1), "")
    forged = Evidence(
        id=forged.id, document=forged.document, hash=forged.hash, signature=evidence.signature
    )
    assert any("signature" in problem for problem in book.check(forged, signer).problems)


@pytest.fixture
def gnupg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A key ring of its own with one key; gives its id."""
    home = tmp_path / "gnupg"
    home.mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(home))
    who = "Anna Lindqvist <anna@contoso.example>"
    words = ["gpg", "--batch", "--quiet", "--pinentry-mode", "loopback", "--passphrase", ""]
    subprocess.run([*words, "--quick-generate-key", who, "ed25519", "sign", "1d"], check=True)
    yield who
    subprocess.run(["gpgconf", "--kill", "all"], check=False, capture_output=True)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_a_gpg_signature_says_who_and_holds_until_a_byte_changes(
    book: EvidenceBook, tmp_path: Path, gnupg: str
) -> None:
    ledger = tmp_path / "ledger.git"
    words = ["git", "-C", str(ledger), "config", "user.signingkey", "anna@contoso.example"]
    subprocess.run(words, check=True)
    signer = GitSigner(ledger)
    evidence = book.keep(document(), signer)
    assert evidence.signature.startswith("-----BEGIN PGP SIGNATURE-----")
    checked = book.check(book.find("last"), signer)
    assert (gnupg in checked.signed_by, checked.problems) == (True, ())
    forged = sealed(document(rto_seconds=1), "")
    forged = Evidence(
        id=forged.id, document=forged.document, hash=forged.hash, signature=evidence.signature
    )
    assert any("signature" in problem for problem in book.check(forged, signer).problems)
    # Without its signature it is not whole: a key is configured.
    bare = Evidence(id=evidence.id, document=evidence.document, hash=evidence.hash)
    assert any("not signed" in problem for problem in book.check(bare, signer).problems)


def test_any_byte_of_a_file_that_is_flipped_is_found(
    book: EvidenceBook, scaled: Callable[[int, int], int]
) -> None:
    book.keep(document(), None)
    evidence = book.keep(document(id="20261122T110000Z-bbbbbb"), None)
    data = pretty(evidence.document)
    assert book.check(opened(data, "file"), None, data).whole
    chance = random.Random(5)
    for at in sorted(chance.sample(range(len(data)), scaled(40, len(data)))):
        bit = 1 << chance.randrange(8)
        forged = data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :]
        try:
            found = opened(forged, "file")
        except InputError:
            continue  # no evidence any more: refused by name
        assert not book.check(found, None, forged).whole, (at, bit)


def test_a_flipped_copy_in_the_ledger_or_the_vault_is_found(
    book: EvidenceBook, tmp_path: Path
) -> None:
    evidence = book.keep(document(), None)
    assert book.check(evidence, None).whole
    copy = tmp_path / "vault" / "evidence" / "drills" / f"{evidence.id}.json"
    good = copy.read_bytes()
    copy.chmod(0o600)
    copy.write_bytes(good.replace(b'"rto_seconds": 5', b'"rto_seconds": 4'))
    assert book.check(evidence, None).problems == ("it differs from the copy in the vault",)
    copy.write_bytes(good)
    assert book.check(evidence, None).whole
    # A ledger from which the newest evidence was cut off: the vault remembers it.
    ledger = tmp_path / "ledger.git"
    before = subprocess.run(
        ["git", "-C", str(ledger), "rev-parse", "evidence"],
        check=True, capture_output=True, text=True,
    ).stdout.strip()  # fmt: skip
    book.keep(document(id="20261122T110000Z-bbbbbb", verdict="failed", rto_seconds=99), None)
    words = ["git", "-C", str(ledger), "update-ref", "refs/heads/evidence", before]
    subprocess.run(words, check=True)
    assert any("lost the evidence 20261122T11" in p for p in book.check(evidence, None).problems)


def test_a_page_is_harmless_whatever_a_drill_is_called() -> None:
    text = page(document(title="<script>alert(1)</script>"))
    assert "<script" not in text
    assert "http" not in text


def test_a_journal_survives_a_cut_line_and_is_nobody_elses(tmp_path: Path) -> None:
    journal = RunJournal.begin(tmp_path, "a", {"id": "a"})
    journal.write({"event": "undo", "what": {"undo": "group"}})
    with pytest.raises(LockedError):
        RunJournal.take_over(journal.path)
    with journal.path.open("ab") as stream:
        stream.write(b'{"event": "undo", "wh')
    journal.close(done=False)
    taken = RunJournal.take_over(journal.path)
    taken.write({"event": "undo", "what": {"undo": "file"}})
    assert [u["undo"] for u in read(taken.path).undo] == ["group", "file"]
    taken.close(done=True)
    assert not list(unfinished(tmp_path))


def test_a_line_of_a_journal_that_cannot_be_read_is_damage_and_not_a_cut(tmp_path: Path) -> None:
    journal = RunJournal.begin(tmp_path, "a", {"id": "a"})
    for what in ("group", "file", "switch"):
        journal.write({"event": "undo", "what": {"undo": what}})
    journal.close(done=False)
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines[:2], b"\0" * 20 + b"\n", *lines[3:], b'{"event"']))
    found = read(journal.path)
    assert [u["undo"] for u in found.undo] == ["group", "switch"]
    assert found.damaged == (3,)
    taken = RunJournal.take_over(journal.path)
    taken.write({"event": "facts", "what": {"kept": True}})
    found = read(journal.path)
    assert (found.damaged, found.facts) == ((3,), {"kept": True})
    taken.close(done=True)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=8,
)
_OBJECT = st.dictionaries(st.text(max_size=2), _JSON, max_size=3)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_OBJECT, _OBJECT)
def test_a_switch_and_its_undo_leave_what_was_there(before: JsonObject, body: JsonObject) -> None:
    after = merged(merged(before, body), inverse(before, body))
    assert same_at(after, before, body)


def test_a_drill_that_became_slow_is_a_finding_and_a_usual_one_is_none() -> None:
    assert compared(20.0, [10.0, 11.0, 9.0])
    assert not compared(11.0, [10.0, 11.0, 9.0])
    assert not compared(20.0, [10.0])
    assert quantile([1, 2, 3], 0.5) == 2


def result(rto: float | None, *, cost: float = 0.0, ceiling: float = 1.0) -> DrillResult:
    text = GOOD.replace("blast_radius", f"cost_ceiling: {ceiling}\nblast_radius", 1)
    now = datetime(2026, 11, 22, tzinfo=UTC)
    return DrillResult(
        id="x",
        drill=parse(text.encode(), FILE, make),
        mode=Mode.REAL,
        seed=0,
        estate="e",
        version="1",
        started_at=now,
        finished_at=now,
        verdict=Verdict.PASSED,
        measured=Measured(rto=rto, cost=cost),
    )


def test_a_drill_much_slower_than_rehearsed_or_over_its_ceiling_is_a_finding() -> None:
    estimate = Estimate(p50=10.0, p90=20.0, runs=50, evidence="r")
    slow, fast = result(31.0), result(29.0)
    [words] = findings(slow, slow.drill, estimate, ())
    assert "slower than rehearsed" in words
    assert not findings(fast, fast.drill, estimate, ())
    assert not findings(slow, slow.drill, None, ())
    dear = result(None, cost=1.5)
    [words] = findings(dear, dear.drill, None, ())
    assert "over its ceiling" in words
    [words] = findings(slow, slow.drill, None, [10.0, 11.0, 9.0])
    assert "regression" in words


def outcome(
    name: str, at: float, seconds: float, *inner: StepOutcome, phase: Phase | None = None
) -> StepOutcome:
    return StepOutcome(
        name=name,
        kind="wait",
        state=DrillStepState.DONE,
        phase=phase,
        started_at=datetime.fromtimestamp(1_000 + at, UTC),
        seconds=seconds,
        critical=True,
        steps=inner,
    )


def test_the_critical_path_begins_at_the_loss_and_takes_the_slowest_of_a_group() -> None:
    quick = replace(outcome("quick", 5, 1, phase=Phase.DETECTED), critical=False)
    slow = outcome("slow", 5, 3, phase=Phase.RESTORED)
    steps = [
        outcome("copy", -20, 10),
        outcome("the loss", -10, 10),
        outcome("plan", 0, 5),
        outcome("both", 5, 3, quick, slow),
        replace(outcome("never", 9, 1), state=DrillStepState.SKIPPED),
    ]
    found = [(part.name, part.begins, part.ends) for part in path_of(steps, 1_000)]
    assert found == [("plan", 0, 5), ("slow", 5, 8)]
    assert phases_of(steps, 1_000, None) == {Phase.DETECTED: 6, Phase.RESTORED: 8}


def test_a_rehearsal_is_as_good_as_its_worst_run_and_counts_what_failed() -> None:
    fine: JsonObject = {**document(), "seed": 1, "mode": "rehearsal"}
    bad: JsonObject = {
        **document(
            steps=[{"name": "restore", "state": "failed", "detail": "no"}], rto_seconds=None
        ),
        "seed": 2,
        "mode": "rehearsal",
        "verdict": "failed",
    }

    def whole(*runs: JsonObject, wanted: int, **more: Any) -> JsonObject:
        rehearsal: JsonObject = {"runs": list(runs), "runs_wanted": wanted, "errors": []}
        return {**document(mode="rehearsal"), "rehearsal": {**rehearsal, **more}}

    assert judge(whole(fine, fine, wanted=2)).verdict == "passed"
    assert judge(whole(fine, bad, wanted=2)).verdict == "failed"
    assert judge(whole(fine, wanted=2)).verdict == "not proved"
    assert judge(whole(wanted=0)).verdict == "not proved"
    assert judge(whole(fine, wanted=1, errors=["seed 2: no"])).verdict == "not proved"
    interrupted = {**whole(fine, wanted=1), "interrupted": True}
    assert judge(interrupted).verdict == "interrupted"
    found = distribution([fine, bad, {**fine, "rto_seconds": 9}])
    assert found["verdicts"] == {"passed": 2, "failed": 1, "not proved": 0, "interrupted": 0}
    assert found["rto"] == {"min": 5, "p50": 7, "p90": 8.6, "max": 9}
    assert found["failing_steps"] == {"restore": 1}


def test_a_restore_that_left_a_change_is_a_failed_step() -> None:
    begun = outcome("verb restore", 0, 1)
    whole = brought(begun, Restored(steps=3, detail="3 steps"))
    assert (whole.state, whole.detail) == (DrillStepState.DONE, "3 steps")
    left = Restored(steps=3, detail="3 steps", remaining=("agent/x changed", "file/y added"))
    failed = brought(begun, left)
    assert failed.state is DrillStepState.FAILED
    assert "2 changes are left: agent/x changed" in failed.detail


def test_the_schema_of_evidence_is_one() -> None:
    schema = json.loads((ROOT / "docs/schemas/evidence.schema.json").read_text("utf-8"))
    Draft202012Validator.check_schema(schema)
    assert not Draft202012Validator(schema).is_valid(sealed(document(), "").document)


def test_a_script_that_is_nested_deeply_is_refused_before_it_is_read_whole() -> None:
    # The YAML reader needs minutes for it: the test's own time limit is what it would meet.
    with pytest.raises(InputError, match="nested too deeply") as told:
        parse(b"title: t\nsteps: " + b"[" * 200_000, Path("deep.yaml"))
    assert told.value.where == "deep.yaml:2"


def test_a_fork_of_the_chain_and_an_exchanged_page_are_found(
    book: EvidenceBook, tmp_path: Path
) -> None:
    first = book.keep(document(), None)
    second = book.keep(document(id="20261122T110000Z-bbbbbb"), None)
    assert book.check(second, None).whole
    with Ledger.open(tmp_path / "ledger.git") as ledger:
        path = f"drills/{second.id}.html"
        good = dict(ledger.files("evidence", path))[path]
        ledger.put("evidence", {path: good.replace(b"passed", b"PASSED")}, "a nicer page")
        assert (
            "its page (HTML) differs between ledger and vault" in book.check(second, None).problems
        )
        ledger.put("evidence", {path: good}, "as it was")
        rival = sealed(document(id="20261122T110000Z-cccccc", rto_seconds=1), first.hash)
        path = f"drills/{rival.id}.json"
        ledger.put("evidence", {path: pretty(rival.document)}, "a rival")
    for found in (rival, second):
        assert any("the chain forks" in p for p in book.check(found, None).problems)


@pytest.mark.skipif(shutil.which("gpg") is None, reason="gpg is not installed")
def test_a_signature_that_nobody_here_can_verify_is_not_called_verified_nor_broken(
    book: EvidenceBook, tmp_path: Path, gnupg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = tmp_path / "ledger.git"
    key = ["git", "-C", str(ledger), "config"]
    subprocess.run([*key, "user.signingkey", "anna@contoso.example"], check=True)
    book.keep(document(), GitSigner(ledger))
    assert gnupg in book.check(book.find("last"), GitSigner(ledger)).signed_by
    (tmp_path / "empty").mkdir(mode=0o700)
    monkeypatch.setenv("GNUPGHOME", str(tmp_path / "empty"))
    # Who signs has the keys of the others: an unknown one is a stranger's.
    strange = book.check(book.find("last"), GitSigner(ledger))
    assert (strange.seal.state, strange.whole) == (Sealed.BROKEN, False)
    subprocess.run([*key, "--unset", "user.signingkey"], check=True)
    unknown = book.check(book.find("last"), GitSigner(ledger))
    assert (unknown.seal.state, unknown.signed_by, unknown.whole) == (Sealed.NO_KEY, "", True)


def test_with_the_vault_alone_evidence_is_checked_and_tampering_found(
    book: EvidenceBook, tmp_path: Path
) -> None:
    first = book.keep(document(), None)
    second = book.keep(document(id="20261122T110000Z-bbbbbb"), None)
    vault = open_vault(str(tmp_path / "vault"), clock=SystemClock())
    assert check_in_vault(vault, "last", None).evidence.id == second.id
    assert check_in_vault(vault, first.id, None).whole
    data = pretty(first.document)
    assert check_in_vault(vault, "a.json", None, data).whole
    forged = data.replace(b'"rto_seconds": 5', b'"rto_seconds": 4')
    assert not check_in_vault(vault, "a.json", None, forged).whole
    copy = tmp_path / "vault" / "evidence" / "drills" / f"{first.id}.json"
    copy.chmod(0o600)
    copy.write_bytes(pretty(sealed(document(rto_seconds=1), "").document))
    assert any("chain is broken" in p for p in check_in_vault(vault, "last", None).problems)
    with pytest.raises(NotFoundError):
        check_in_vault(vault, "nowhere", None)
    vault.close()
