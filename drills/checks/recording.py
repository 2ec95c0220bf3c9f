"""Record a golden data set: ask a living deployment, choose what to expect, and prove it.

A set is worth something when its own source passes it and nonsense does not. Both are tried before
it is kept.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from drills.checks.asking import Allowance, Question, Said, chat, embed
from drills.checks.embeddings import EmbeddingsCheck
from drills.checks.golden import GoldenCheck
from drills.checks.golden_sets import (
    MARK,
    NEARNESS,
    Case,
    GoldenSet,
    Row,
    made_of,
    rows_of,
)
from drills.checks.scoring import Expect, Expectation, cosine, declined, fits, plain
from drills.checks.targets import account_of, endpoint, model_of, spelled, within
from drills.model import CheckContext, CheckDeclaration, CheckOutcome, CheckState, Control
from snapshots.cloud import Place, scrub
from snapshots.errors import InputError, RefusedError
from snapshots.model import Json, JsonObject, Resource, digest

_PLACEHOLDER = "?"
_LEAST = 0.7  # a cosine below which two answers are no longer the same answer
_MARGIN = 0.02  # that later answers may lie beyond those that were seen
_LETTERS = 4  # of a prompt make a token, more or less
_BATCH = 256  # texts of one call for vectors
_OF_A_JUDGE = 200  # tokens of a ruling


# ------------------------------------------------------------------------------------- questions


@dataclass(frozen=True, slots=True)
class Draft:
    """Questions for a golden set.

    What shall be expected of the `open` cases is for their answers to say. The other cases name
    the kind; a text or a vector of theirs is taken from the answers, too.
    """

    golden: GoldenSet
    open: frozenset[str] = frozenset()


def drafted(data: bytes, where: str) -> Draft:
    """Read questions. Raises InputError with file and line.

    A golden set is one (it is recorded again). So is JSONL without a head, whose lines may leave
    out `id` and `expect`; and a `.txt` file with a question a line.
    """
    rows = _lines(data, where) if where.lower().endswith(".txt") else rows_of(data, where)
    if not rows or MARK not in rows[0].found:
        rows.insert(0, Row({MARK: 1}, f"{where}:1"))
    if rows[0].found.get(MARK) != 1:
        raise rows[0].wrong(f"{MARK} is 1, the version of the format")
    named = rows[0].text("deployment")
    rows[0].found["deployment"] = named or _PLACEHOLDER
    undecided: set[str] = set()
    for number, row in enumerate(rows[1:], 1):
        id_ = row.found.setdefault("id", f"q{number}")
        expect = row.found.get("expect")
        if expect is None:
            undecided.add(str(id_))
            row.found["expect"] = {"kind": "exact", "text": _PLACEHOLDER}
        elif isinstance(expect, dict):
            if expect.get("kind") in (Expect.EXACT, Expect.SIMILARITY):
                expect.setdefault("text", _PLACEHOLDER)
            if expect.get("kind") == Expect.VECTOR:
                expect.setdefault("vector", [1.0])
    if len(rows) == 1:
        raise InputError("there is no question", where=where, remedy="write one a line")
    golden = replace(made_of(rows, Path(where).stem), deployment=named)
    for case in golden.cases:
        for message in case.question.messages:
            text = message.get("content")
            if isinstance(text, str) and scrub(text) != text:
                raise InputError(
                    f"the question {case.id} holds what looks like a secret",
                    where=where,
                    remedy="take it out: a golden set is kept in the ledger",
                )
    return Draft(golden, frozenset(undecided))


def _lines(data: bytes, where: str) -> list[Row]:
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(
            "the questions are not text", where=where, remedy="write them as UTF-8"
        ) from error
    return [
        Row({"prompt": line.strip()}, f"{where}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip() and not line.lstrip().startswith("#")
    ]


def for_vectors(draft: Draft, source: Resource) -> bool:
    """Whether a set holds vectors: its cases say so, or its deployment makes nothing else."""
    kinds = {case.expect.kind for case in draft.golden.cases if case.id not in draft.open}
    if Expect.VECTOR in kinds:
        return True
    model = within(source.body, "properties", "model", "name")
    return not kinds and isinstance(model, str) and "embed" in model.lower()


def meant_for(
    draft: Draft, source: Resource, *, name: str, embeddings: str = "", judge: str = ""
) -> Draft:
    """Say of which deployment a set shall be, and what it is called.

    Raises InputError for a set of vectors that holds anything else: each check takes its own.
    """
    golden = replace(
        draft.golden,
        name=name,
        deployment=spelled(source),
        model=":".join(model_of(source)),
        embeddings=embeddings or draft.golden.embeddings,
        judge=judge or draft.golden.judge,
    )
    if not for_vectors(draft, source):
        return Draft(golden, draft.open)
    cases: list[Case] = []
    for case in golden.cases:
        if case.id not in draft.open and case.expect.kind is not Expect.VECTOR:
            raise InputError(
                f"case {case.id} expects {case.expect.kind.value}, in a set of vectors",
                where=golden.name,
                remedy="make a set for each: vectors come from an embeddings deployment",
            )
        least = case.expect.threshold if case.id not in draft.open else NEARNESS[Expect.VECTOR]
        expect = Expectation(Expect.VECTOR, threshold=least, vector=(1.0,))
        cases.append(replace(case, expect=expect))
    return Draft(replace(golden, cases=tuple(cases)), frozenset())


# ------------------------------------------------------------------------------------------ cost


@dataclass(frozen=True, slots=True)
class Cost:
    """What a recording takes at most, with its proof. Tokens are counted against quota."""

    calls: int = 0
    tokens: int = 0  # of answers
    prompt_tokens: int = 0  # an estimate, from the letters

    def __add__(self, other: Cost) -> Cost:
        """Add two of them up."""
        return Cost(
            self.calls + other.calls,
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
        )

    def document(self) -> JsonObject:
        """Give it for machines."""
        return {
            "calls": self.calls,
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
        }

    def words(self) -> str:
        """Give it for people."""
        return (
            f"at most {self.calls:,} calls, {self.tokens:,} tokens of answers and about "
            f"{self.prompt_tokens:,} of questions"
        )

    def allowance(self) -> Allowance:
        """Give what may be spent: nothing beyond what was said."""
        return Allowance(self.calls, self.tokens, 86_400.0)


def cost_of(draft: Draft, *, times: int, base: bool) -> Cost:
    """Say what recording a set and proving it takes at most."""
    golden, total = draft.golden, Cost()
    if all(case.expect.kind is Expect.VECTOR for case in golden.cases):
        calls = 2 * math.ceil(len(golden.cases) / _BATCH)
        return Cost(calls, 0, 2 * sum(_size(case.question) for case in golden.cases))
    for case in golden.cases:
        asked = times + int(base) + case.repeats
        total += Cost(asked, asked * case.question.max_tokens, asked * _size(case.question))
        may_vary = case.id in draft.open or case.expect.kind in (Expect.EXACT, Expect.SIMILARITY)
        if golden.embeddings and may_vary:
            # Once for the answers among themselves, then for each repeat and for the broken copy.
            near = 1 + case.repeats + 1
            total += Cost(near, 0, 2 * near * case.question.max_tokens)
        if case.expect.kind is Expect.JUDGE:
            rulings = case.repeats + 1
            size = case.question.max_tokens + len(case.expect.text) // _LETTERS + _OF_A_JUDGE
            total += Cost(rulings, rulings * _OF_A_JUDGE, rulings * size)
    return total


def _size(question: Question) -> int:
    letters = sum(len(str(message.get("content", ""))) for message in question.messages)
    return letters // _LETTERS + 1


# ------------------------------------------------------------------------------------- recording


@dataclass(frozen=True, slots=True)
class Recorded:
    """A set that was recorded, and what its own source and a broken copy came to."""

    golden: GoldenSet
    source: Resource
    proof: CheckOutcome


def record_from(
    context: CheckContext, source: Resource, draft: Draft, *, base: str = "", times: int = 3
) -> Recorded:
    """Record a set from a deployment and prove it there. Raises InputError when it does not hold.

    Nothing is kept. No more is spent than `cost_of` says.
    """
    allowance = cost_of(draft, times=times, base=bool(base)).allowance()
    place = endpoint(context, account_of(context, source.key))
    made = record(
        context, place, draft.golden, allowance, base=base, times=times, undecided=draft.open
    )
    refuse_secrets(made, str(source.key))
    return Recorded(made, source, _proved(context, source, made, allowance))


def refuse_secrets(golden: GoldenSet, where: str) -> None:
    """Raise InputError when an answer holds what looks like a secret; it is not quoted."""
    for case in golden.cases:
        for text in (case.expect.text, case.base):
            if scrub(text) != text:
                raise InputError(
                    f"the answer to {case.id} holds what looks like a secret",
                    where=where,
                    remedy="expect a pattern there: a golden set is kept in the ledger",
                )


def record(
    context: CheckContext,
    place: Place,
    wanted: GoldenSet,
    allowance: Allowance,
    *,
    base: str = "",
    times: int = 3,
    undecided: frozenset[str] = frozenset(),
) -> GoldenSet:
    """Ask a living deployment each question and give the set with its answers as expectations.

    `place` is the account's endpoint, of the primary. What expects a text (exact, similarity) or a
    vector gets the one that is live; blocked and passed become what the filters did; the other
    kinds stay, and `record_from` proves that they hold. An exact answer that is not the same
    `times` times becomes similar when the set names an embeddings deployment, else InputError. So
    does what is `undecided`, after it was looked whether it is stopped, declined or bound to a
    schema. `base` is a deployment of the base model, whose answers are kept beside.
    """
    seconds: list[float] = []
    cases: list[Case] = []
    model = wanted.model
    vectors: Sequence[tuple[float, ...]] = ()
    asked = [case for case in wanted.cases if case.expect.kind is Expect.VECTOR]
    if asked:
        texts = [case.prompt for case in asked]
        vectors = embed(
            context, place, wanted.deployment, texts, allowance, dimensions=wanted.dimensions
        )
    by_id = {case.id: vector for case, vector in zip(asked, vectors, strict=True)}

    def spread(texts: Sequence[str]) -> float:
        """Give the least cosine between the first text and the others."""
        found = embed(context, place, wanted.embeddings, list(texts), allowance)
        return min((cosine(found[0], other) for other in found[1:]), default=1.0)

    for case in wanted.cases:
        if case.id in by_id:
            vector = tuple(round(x, 6) for x in by_id[case.id])
            cases.append(replace(case, expect=replace(case.expect, vector=vector)))
            continue
        said = [
            chat(context, place, wanted.deployment, case.question, allowance)
            for _ in range(max(1, times))
        ]
        seconds += [answer.seconds for answer in said]
        model = said[0].model or model
        under = ""
        if base:
            under = chat(context, place, base, case.question, allowance).text
        expect = _open(case, said) if case.id in undecided else None
        if expect is None:
            expect = _live(case, said)
        if expect is None:
            expect = _near(case, said, spread) if wanted.embeddings else None
        if expect is None:
            raise _unsteady(case, "the model gives several answers")
        cases.append(replace(case, expect=expect, base=under))
    ordered = sorted(seconds)
    made = replace(
        wanted,
        cases=tuple(cases),
        model=model,
        seconds=ordered[len(ordered) // 2] if ordered else 0.0,
        recorded_at=context.clock.now().isoformat(timespec="seconds"),
    )
    return replace(made, digest=digest(made.lines()))


def _open(case: Case, said: Sequence[Said]) -> Expectation | None:
    """Say what to expect where nobody said it; None: the text of the answer."""
    sides = {answer.filtered for answer in said}
    if sides != {""}:
        if len(sides) > 1:
            raise _unsteady(case, "the filters do not agree with themselves")
        return Expectation(Expect.BLOCKED, side=sides.pop())
    if all(declined(answer) for answer in said):
        return Expectation(Expect.REFUSAL)
    if any(declined(answer) for answer in said):
        raise _unsteady(case, "the model declines at times")
    schema = _schema(case.question.response_format)
    if isinstance(schema, dict) and all(fits(schema, answer.text).met for answer in said):
        return Expectation(Expect.JSON_SCHEMA, schema=schema)
    return None


def _schema(form: Json) -> Json:
    return within(form, "json_schema", "schema")


def _live(case: Case, said: Sequence[Said]) -> Expectation | None:
    """Give the expectation that its answers fill; None: they differ, and may be near."""
    expect = case.expect
    if expect.kind in {Expect.BLOCKED, Expect.PASSED}:
        sides = {answer.filtered for answer in said}
        if len(sides) > 1:
            raise _unsteady(case, "the filters do not agree with themselves")
        side = sides.pop()
        return Expectation(Expect.BLOCKED, side=side) if side else Expectation(Expect.PASSED)
    if expect.kind not in {Expect.EXACT, Expect.SIMILARITY}:
        return expect
    answers = {plain(answer.text) for answer in said}
    if any(answer.filtered for answer in said) or "" in answers:
        raise _unsteady(case, "a filter stopped the answer, or there was none")
    if len(answers) > 1 and expect.kind is Expect.EXACT:
        return None
    return replace(expect, text=said[0].text)


def _near(
    case: Case, said: Sequence[Said], spread: Callable[[Sequence[str]], float]
) -> Expectation:
    """Expect something like the first answer, as near as the others of these were."""
    least = spread([answer.text for answer in said])
    threshold = min(NEARNESS[Expect.SIMILARITY], math.floor(100 * (least - _MARGIN)) / 100)
    if threshold < _LEAST:
        raise _unsteady(case, f"the model's answers are not alike (cosine {least:.2f})")
    return Expectation(Expect.SIMILARITY, said[0].text, threshold=threshold)


def _unsteady(case: Case, why: str) -> InputError:
    return InputError(
        f"case {case.id} cannot be recorded: {why}",
        where=case.prompt[:80],
        remedy="expect a pattern, a schema or a judge there, or name an embeddings deployment",
    )


def _proved(
    context: CheckContext, source: Resource, golden: GoldenSet, allowance: Allowance
) -> CheckOutcome:
    """Hold the set against its own source, and against a broken copy. Raises InputError."""
    vectors = all(case.expect.kind is Expect.VECTOR for case in golden.cases)
    kind = EmbeddingsCheck if vectors else GoldenCheck
    with tempfile.TemporaryDirectory(prefix="muster-record-") as folder:
        file = Path(folder) / "recorded.jsonl"
        file.write_bytes(golden.lines())
        # A set is kept by being asked about: not yet this one.
        looking = replace(context, ledger=None, vault=None, folder=Path(folder))
        settings: JsonObject = {
            "set": file.name,
            "max_calls": max(1, allowance.calls),
            "max_tokens": max(1, allowance.tokens),
        }
        check = kind(
            CheckDeclaration(
                check=kind.KNOWN_AS,
                name=f"the set {golden.name}",
                subject=str(source.key),
                settings=settings,
            )
        )
        outcome = check.run(looking)
        if outcome.state is CheckState.PASSED:
            broken = check.control(looking)
            control = {
                CheckState.FAILED: Control.FAILED,
                CheckState.PASSED: Control.PASSED,
                CheckState.NOT_RUN: Control.NOT_RUN,
            }[broken.state]
            outcome = replace(outcome, negative_control=control, control_detail=broken.detail)
    if outcome.state is CheckState.NOT_RUN or (
        outcome.state is CheckState.PASSED and outcome.negative_control is Control.NOT_RUN
    ):
        raise RefusedError(
            f"it could not be proved: {outcome.detail or outcome.control_detail}",
            where=str(source.key),
            remedy="try again; nothing was kept",
        )
    if outcome.state is CheckState.FAILED:
        raise InputError(
            f"its own source does not pass it: {outcome.detail}",
            where=str(source.key),
            remedy="expect a pattern, a judge or similarity there, or give repeats and a tolerance",
        )
    if outcome.negative_control is not Control.FAILED:
        raise InputError(
            f"it proves nothing: {outcome.control_detail or 'a broken copy passes it'}",
            where=str(source.key),
            remedy="expect more of these cases: a broken model must not pass",
        )
    return outcome
