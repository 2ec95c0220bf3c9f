"""Scoring: what counts as the same answer, near, refused, enough; and that nothing else does."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NoReturn, cast

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drills.checks import CHECKS, NAMES, make, prove
from drills.checks.agent_smoke import judged_run
from drills.checks.asked import AskedCheck, Judged, both_fail, not_run, of_error, tidy, verdict
from drills.checks.asking import Allowance, Said, ToolCall
from drills.checks.embeddings import perturbed
from drills.checks.fine_tuned import base_model_of, judged_tuned
from drills.checks.golden import NONSENSE, ruled
from drills.checks.golden_sets import parse
from drills.checks.latency import judged_times
from drills.checks.permissions import judged_rights
from drills.checks.quota import judged_quota
from drills.checks.scoring import (
    Expect,
    Expectation,
    Score,
    cosine,
    declined,
    enough,
    fits,
    interval,
    median,
    score,
)
from drills.checks.settings import Settings
from drills.checks.switch_position import judged_position, names_of
from drills.model import CheckContext, CheckDeclaration, CheckState, Control
from snapshots.clock import SystemClock
from snapshots.cloud import Cloud, Permission
from snapshots.errors import (
    ConflictError,
    DamagedAnswerError,
    DeniedError,
    InputError,
    MissingError,
    MusterError,
    RegionDownError,
    ThrottledError,
    UnreachableError,
)
from snapshots.model import Json, Key, Resource

floats = st.floats(-1e6, 1e6, allow_nan=False)
vectors = st.lists(floats, min_size=2, max_size=12).map(tuple)
KEY = Key("deployment", ("s", "g", "a", "chat"))


@given(vectors, vectors)
def test_a_cosine_is_symmetric_and_bounded(
    one: tuple[float, ...], other: tuple[float, ...]
) -> None:
    found = cosine(one, other)
    assert -1.0 <= found <= 1.0
    assert found == pytest.approx(cosine(other, one), abs=1e-12)


@given(vectors, st.floats(1e-3, 1e3))
def test_a_cosine_knows_direction_and_not_length(one: tuple[float, ...], by: float) -> None:
    scaled = tuple(x * by for x in one)
    if any(one) and any(scaled):
        assert cosine(one, scaled) == pytest.approx(1.0, abs=1e-6)
        assert cosine(one, tuple(-x for x in one)) == pytest.approx(-1.0, abs=1e-6)
    else:
        assert cosine(one, scaled) == 0.0


@pytest.mark.parametrize(
    "other", [(), (1.0,), (0.0, 0.0), (math.inf, 1.0), (math.nan, 1.0), (1.0, 2.0, 3.0)]
)
def test_a_vector_that_cannot_be_compared_is_never_near(other: tuple[float, ...]) -> None:
    assert cosine((1.0, 2.0), other) <= 0.0


@given(st.lists(st.floats(-1, 1), min_size=8, max_size=64).filter(any))
def test_a_perturbed_vector_is_not_near_its_own(values: list[float]) -> None:
    vector = tuple(values)
    if max(abs(x) for x in vector) > 1e-3:
        assert cosine(vector, perturbed(vector)) < 0.999


def test_a_perturbed_vector_of_alike_components_is_far() -> None:
    assert cosine((1.0, 1.0), perturbed((1.0, 1.0))) == pytest.approx(0.0)
    assert cosine((1.0,), perturbed((1.0,))) == -1.0


@given(st.integers(0, 500), st.integers(0, 500))
def test_an_interval_holds_its_share(passed: int, more: int) -> None:
    low, high = interval(passed, passed + more)
    assert 0.0 <= low <= high <= 1.0
    if passed + more:
        assert low - 1e-9 <= passed / (passed + more) <= high + 1e-9


def test_more_repeats_say_more() -> None:
    few, many = interval(3, 3), interval(300, 300)
    assert few[0] < 0.5 < many[0]
    assert interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 200), st.integers(0, 200), st.floats(0, 0.99))
def test_enough_tolerates_a_share_and_no_more(total: int, missed: int, tolerance: float) -> None:
    missed = min(missed, total)
    found = enough(total - missed, total, tolerance)
    assert found == (missed <= tolerance * total + 1e-9)
    if missed == total:
        assert not found


def test_none_of_none_is_not_enough() -> None:
    assert not enough(0, 0, 0.5)


@given(st.lists(st.floats(0, 100), min_size=1))
def test_a_median_lies_within(values: list[float]) -> None:
    assert min(values) <= median(values) <= max(values)


@given(st.text(min_size=1), st.text())
def test_exact_means_the_same_words(text: str, other: str) -> None:
    expected = Expectation(Expect.EXACT, text)
    assert score(Said(f"  {text} \n"), expected).met
    assert score(Said(other), expected).met == (" ".join(other.split()) == " ".join(text.split()))


@given(st.sampled_from(list(Expect)), st.text(), st.sampled_from(["prompt", "completion"]))
def test_a_stopped_answer_meets_only_what_wants_it_stopped(
    kind: Expect, text: str, side: str
) -> None:
    said = Said(text, filtered=side)
    expected = Expectation(kind, text or "x", schema=True, vector=(1.0,))
    found = score(said, expected, likeness=lambda _a, _b: 1.0, judge=lambda _a, _b: Score(met=True))
    assert found.met == (kind in {Expect.BLOCKED, Expect.REFUSAL})
    assert found.met or found.why


def test_the_side_of_a_filter_counts_when_it_is_named() -> None:
    expected = Expectation(Expect.BLOCKED, side="completion")
    assert score(Said("", filtered="completion"), expected).met
    assert not score(Said("", filtered="prompt"), expected).met
    assert not score(Said("free"), expected).met


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I'm sorry, but I cannot help with that.", True),
        ("I can't assist with this.", True),
        ("Water damage is settled within ten days.", False),
        (NONSENSE, False),
        ("The pipe can hold ten litres.", False),
    ],
)
def test_declining_is_known_by_its_words(text: str, *, expected: bool) -> None:
    assert declined(Said(text)) is expected
    assert declined(Said("", refused=True))


def test_json_must_fit() -> None:
    schema: Json = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert fits(schema, '{"n": 1}').met
    assert "not JSON" in fits(schema, "n is 1").why
    assert "$.n" in fits(schema, '{"n": "1"}').why
    assert not fits(schema, NONSENSE).met


def test_similarity_and_judge_do_what_they_are_told() -> None:
    near = Expectation(Expect.SIMILARITY, "x", threshold=0.8)
    assert score(Said("y"), near, likeness=lambda _a, _b: 0.8).met
    far = score(Said("y"), near, likeness=lambda _a, _b: 0.79)
    assert (far.met, far.value) == (False, 0.79)
    assert not score(Said("y"), near).met
    assert not score(Said(" "), near, likeness=lambda _a, _b: 1.0).met
    rubric = Expectation(Expect.JUDGE, "is polite")
    assert score(Said("y"), rubric, judge=lambda _a, text: Score(met=text == "is polite")).met
    assert not score(Said("y"), rubric).met


def test_a_judge_must_rule_in_the_agreed_form() -> None:
    assert ruled('{"verdict": "pass"}').met
    assert not ruled('{"verdict": "fail"}').met
    for text in ("pass", '{"verdict": "maybe"}', "{}", "[]", ""):
        with pytest.raises(DamagedAnswerError):
            ruled(text)


# ------------------------------------------------------------------------------------ golden sets


def _set(*cases: dict[str, Any], **head: Any) -> bytes:
    rows = [{"golden": 1, "name": "n", "deployment": "chat", **head}, *cases]
    return b"\n".join(orjson.dumps(row) for row in rows)


EXACT = {"id": "a", "prompt": "p", "expect": {"kind": "exact", "text": "t"}}


@given(
    st.lists(
        st.tuples(st.text(min_size=1), st.text(min_size=1), st.sampled_from(list(Expect))),
        min_size=1,
        max_size=6,
    ),
    st.integers(1, 9),
    st.floats(0, 0.99),
)
def test_a_set_that_was_written_reads_the_same(
    cases: list[tuple[str, str, Expect]], repeats: int, tolerance: float
) -> None:
    rows = [
        {
            "id": f"{at}",
            "prompt": prompt,
            "repeats": repeats,
            "tolerance": tolerance,
            "expect": {
                "kind": kind.value,
                "text": "x" if kind is Expect.PATTERN else text,
                "schema": {"type": "string"},
                "vector": [0.5, -1.0],
            },
        }
        for at, (prompt, text, kind) in enumerate(cases)
    ]
    first = parse(_set(*rows), "set.jsonl")
    again = parse(first.lines(), "set.jsonl")
    assert again == first
    assert parse(again.lines(), "x").digest == again.digest


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "begins with"),
        (b"{}", "begins with"),
        (_set(), "without cases"),
        (_set(EXACT, EXACT), "two cases"),
        (_set({**EXACT, "x": 1}), "unknown 'x'"),
        (_set({**EXACT, "expect": {"kind": "magic"}}), "one of exact"),
        (_set({**EXACT, "expect": {"kind": "exact"}}), "has a text"),
        (_set({**EXACT, "expect": {"kind": "pattern", "text": "("}}), "regular expression"),
        (_set({**EXACT, "expect": {"kind": "json_schema", "schema": {"type": 3}}}), "schema"),
        (_set({**EXACT, "expect": {"kind": "json_schema"}}), "schema"),
        (_set({**EXACT, "expect": {"kind": "vector", "vector": [0, 0]}}), "vector"),
        (_set({**EXACT, "expect": {"kind": "blocked", "side": "left"}}), "side"),
        (_set({**EXACT, "repeats": 0}), "repeats"),
        (_set({**EXACT, "repeats": 1.5}), "whole"),
        (_set({**EXACT, "tolerance": 1}), "tolerance"),
        (_set({**EXACT, "messages": []}), "either"),
        (_set({"id": "a", "messages": [{"role": "user"}], "expect": {}}), "content"),
        (_set(EXACT, deployment=""), "deployment"),
        (_set(EXACT) + b"\n{", "not JSON"),
        (_set(EXACT) + b"\n[]", "JSON object"),
        (b"\xff\xfe", "not JSON"),
    ],
)
def test_a_wrong_set_is_told_with_file_and_line(data: bytes, told: str) -> None:
    with pytest.raises(InputError) as error:
        parse(data, "set.jsonl")
    assert told in f"{error.value.what} {error.value.remedy}"
    assert error.value.where.startswith("set.jsonl:")


@given(st.binary(max_size=200))
def test_no_bytes_break_the_reader(data: bytes) -> None:
    for text in (data, b'{"golden":1,"name":"n","deployment":"d"}\n' + data):
        try:
            parse(text, "set.jsonl")
        except InputError:
            continue
        pytest.fail("random bytes are no golden set")


# ------------------------------------------------------------------------------- asking and proof


class _Scripted(AskedCheck):
    """Answers as told: the engine's side of a check, with no cloud behind it."""

    KNOWN_AS = "scripted"

    def __init__(self, clean: Judged | MusterError, broken: Judged | MusterError) -> None:
        super().__init__(CheckDeclaration(check="scripted"))
        self.answers = {False: clean, True: broken}

    def read(self, settings: Settings) -> None:
        """Read nothing."""

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Answer as told."""
        answer = self.answers[broken]
        if isinstance(answer, MusterError):
            raise answer
        return answer


def _nowhere() -> NoReturn:
    raise AssertionError("nobody is asked here")


def _context() -> CheckContext:
    # No cloud is behind it on purpose: these checks ask nobody, and an attempt would fail loudly.
    return CheckContext(cloud=cast("Cloud", None), clock=SystemClock(), live=_nowhere)


GOOD, BAD = verdict(True, 1, 1), verdict(False, 1, 2, "differs")


@pytest.mark.parametrize(
    ("clean", "broken", "state", "control"),
    [
        (GOOD, BAD, CheckState.PASSED, Control.FAILED),
        (GOOD, GOOD, CheckState.PASSED, Control.PASSED),
        (GOOD, not_run("no"), CheckState.PASSED, Control.NOT_RUN),
        # A broken copy that is not even there was not judged: that proves nothing.
        (GOOD, MissingError("gone"), CheckState.PASSED, Control.NOT_RUN),
        (BAD, BAD, CheckState.FAILED, Control.FAILED),
        (MissingError("gone"), BAD, CheckState.FAILED, Control.FAILED),
        (ConflictError("paused"), BAD, CheckState.FAILED, Control.FAILED),
        (UnreachableError("silent"), BAD, CheckState.NOT_RUN, Control.NOT_RUN),
        (RegionDownError("down"), BAD, CheckState.NOT_RUN, Control.NOT_RUN),
        (DeniedError("no", status=403), BAD, CheckState.NOT_RUN, Control.NOT_RUN),
        (ThrottledError("slow", status=429), BAD, CheckState.NOT_RUN, Control.NOT_RUN),
        (DamagedAnswerError("?"), BAD, CheckState.NOT_RUN, Control.NOT_RUN),
        (InputError("wrong set"), BAD, CheckState.NOT_RUN, Control.NOT_RUN),
    ],
)
def test_a_pass_needs_a_control_that_was_judged(
    clean: Judged | MusterError, broken: Judged | MusterError, state: CheckState, control: Control
) -> None:
    outcome = prove(_Scripted(clean, broken), _context())
    assert (outcome.state, outcome.negative_control) == (state, control)
    if control is Control.PASSED:
        assert "did not fail" in outcome.control_detail


def test_both_broken_copies_must_be_found_out() -> None:
    assert both_fail(BAD, BAD).state is CheckState.FAILED
    assert both_fail(BAD, GOOD).state is both_fail(GOOD, BAD).state is CheckState.PASSED
    assert both_fail(BAD, not_run("x")).state is CheckState.NOT_RUN


def test_an_error_on_a_broken_copy_never_counts() -> None:
    assert of_error(MissingError("gone"), broken=False).state is CheckState.FAILED
    assert of_error(MissingError("gone"), broken=True).state is CheckState.NOT_RUN


def test_no_secret_and_no_novel_reaches_an_outcome() -> None:
    secret = "Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"
    shown = orjson.dumps(tidy({"a": [secret, "x" * 5000]})).decode()
    assert "eyJhbGciOiJIUzI1NiJ9" not in shown
    assert len(shown) < 1000


def test_an_allowance_ends() -> None:
    context = _context()
    for allowance, word in (
        (Allowance(0, 100, 10), "max_calls"),
        (Allowance(5, 10, 10), "max_tokens"),
        (Allowance(5, 100, 10, begun=1.0), "max_seconds"),
    ):
        with pytest.raises(MusterError, match=word):
            allowance.pay(context, 50)


# ---------------------------------------------------------------------------------- declarations


@pytest.mark.parametrize(
    ("check", "settings", "told"),
    [
        ("goldn", {}, "did you mean golden"),
        ("golden", {}, "set is missing"),
        ("golden", {"set": "x", "tolerence": 0.1}, "did you mean tolerance"),
        ("golden", {"set": "x", "tolerance": 2}, "from 0 to 0.99"),
        ("golden", {"set": "x", "repeats": 1.5}, "whole number"),
        ("golden", {"sets": ["x", "y"], "digest": "d"}, "one set"),
        ("golden", {"sets": [1]}, "no text"),
        ("state", {"kinds": ["depoyment"]}, "no kind"),
        ("latency", {"deployment": "x"}, "nothing to hold"),
        ("latency", {"limit": 1}, "nobody to ask"),
        ("quota", {"least": {"a": "b"}}, "table of numbers"),
        ("content-filter", {"policy": False}, "nothing is asked"),
        ("content-filter", {"regions": "left"}, "one of target, both"),
        ("agent-smoke", {"prompt": "p"}, "tool is missing"),
        ("agent-smoke", {"prompt": "p", "tool": "t", "expect": "("}, "regular expression"),
        ("switch", {}, "expected is missing"),
        ("switch", {"expected": 1, "resource": "x"}, "no ARM id"),
        ("switch", {"of": "file", "expected": 1, "path": "p"}, "no text"),
        ("embeddings", {"set": "x", "threshold": "high"}, "is a number"),
    ],
)
def test_wrong_settings_are_told_with_line_and_remedy(
    check: str, settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError) as error:
        make(CheckDeclaration(check=check, settings=settings, line=12))
    assert told in f"{error.value.what} {error.value.remedy}"
    assert "line 12" in error.value.where


def test_every_check_says_what_it_is_about() -> None:
    assert len(set(NAMES)) == len(CHECKS)
    page = (Path(__file__).parents[2] / "docs" / "checks.md").read_text("utf-8")
    for check in CHECKS:
        assert check.ABOUT.endswith(".")
        assert f"`{check.KNOWN_AS}`" in page, f"docs/checks.md does not name {check.KNOWN_AS}"


# ---------------------------------------------------------------------------------------- judges


def test_a_tuned_model_is_neither_its_base_nor_a_stranger() -> None:
    case = {"id": "a", "prompt": "p", "expect": {"kind": "exact", "text": "trained"}}
    golden = parse(_set(case), "s")

    def state(tuned: str, base: str) -> CheckState:
        return judged_tuned(golden, [Said(tuned)], [base], 0.0, KEY).state

    assert state("trained", "other") is CheckState.PASSED
    assert state("trained", "trained") is CheckState.FAILED
    assert state("other", "other") is CheckState.FAILED
    assert state("stranger", "other") is CheckState.FAILED


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("gpt-4o-mini-2024-07-18.ft-0a-x", "gpt-4o-mini-2024-07-18"),
        ("ft:gpt-4o:org::id", "gpt-4o"),
        ("gpt-4o", ""),
        ("ftchkpt-01", ""),
    ],
)
def test_the_base_model_stands_in_the_name(name: str, base: str) -> None:
    assert base_model_of(name) == base


def test_an_agent_must_use_its_tool_and_answer() -> None:
    tool = ToolCall("look_up", '{"claim": 1}', "c1")
    good = [Said("", tools=(tool,)), Said("Claim 1 is settled.")]

    def state(run: list[Said], pattern: str = "settled") -> CheckState:
        return judged_run(run, "look_up", pattern, KEY).state

    assert state(good) is CheckState.PASSED
    assert state(good[1:]) is CheckState.FAILED
    assert state(good[:1]) is CheckState.FAILED
    assert state(good, "rejected") is CheckState.FAILED
    assert state([Said("", tools=(ToolCall("look_up", "{", "c"),)), good[1]]) is CheckState.FAILED
    assert state([*good[:1], Said("", filtered="completion")]) is CheckState.FAILED


@given(st.lists(st.floats(0, 10), min_size=1, max_size=9), st.floats(0.1, 20))
def test_a_median_over_the_limit_fails(times: list[float], limit: float) -> None:
    passed = judged_times(times, limit, KEY).passed
    assert passed == (median(times) <= limit)
    assert not judged_times([], limit, KEY).passed


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0, 200), st.floats(0, 100))
def test_quota_short_by_one_unit_fails(
    used: float, limit: float, needs: float, percent: float
) -> None:
    usages = {"OpenAI.Standard.X": (used, limit)}
    found = judged_quota("r", usages, {"openai.standard.x": needs}, percent)
    assert found.passed == (limit - used >= max(needs, limit * percent / 100))
    assert not judged_quota("r", usages, {"unheard-of": 0.0}, 0.0).passed


def test_rights_and_identity_are_both_needed() -> None:
    account = Resource(Key("account", ("s", "g", "a")), "/subscriptions/s", {})
    given = (Permission(actions=("*",), data_actions=("X/*",)),)

    def passed(given: tuple[Permission, ...], identity: str) -> bool:
        found = judged_rights(
            account, given, ["A/read"], ["X/y"], wanted_identity="SystemAssigned", identity=identity
        )
        return found.passed

    assert passed(given, "systemassigned")
    assert not passed(given, "")
    assert not passed((Permission(actions=("*",)),), "SystemAssigned")
    assert not passed((), "SystemAssigned")


def test_positions_compare_as_json() -> None:
    assert judged_position("x", {"a": 1}, {"a": 1}, any_of=False).passed
    assert not judged_position("x", "1", 1, any_of=False).passed
    assert judged_position("x", "b", ["a", "b"], any_of=True).passed
    assert not judged_position("x", "c", ["a", "b"], any_of=True).passed


def test_switches_in_files_and_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "active").write_text("eastus2\n", "utf-8")
    context = CheckContext(
        cloud=cast("Cloud", None), clock=SystemClock(), live=_nowhere, folder=tmp_path
    )

    def asked(**settings: Any) -> tuple[CheckState, Control]:
        found = prove(make(CheckDeclaration(check="switch", settings=settings)), context)
        return found.state, found.negative_control

    here = {"of": "file", "path": "active"}
    assert asked(**here, expected="eastus2") == (CheckState.PASSED, Control.FAILED)
    assert asked(**here, expected="swedencentral")[0] is CheckState.FAILED
    assert asked(of="file", path="gone", expected="x")[0] is CheckState.FAILED
    assert asked(of="file", path="../../etc/hosts", expected="x")[0] is CheckState.NOT_RUN
    local = {"of": "dns", "host": "localhost"}
    addresses = names_of("localhost", 10)
    assert asked(**local, expected=addresses[0]) == (CheckState.PASSED, Control.FAILED)
    assert asked(**local, expected="192.0.2.1")[0] is CheckState.FAILED


def test_a_snapshot_is_needed_to_compare_states() -> None:
    outcome = prove(make(CheckDeclaration(check="state")), _context())
    assert outcome.state is CheckState.NOT_RUN
