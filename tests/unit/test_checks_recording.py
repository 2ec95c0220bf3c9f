"""What is expected of an answer follows from how steady it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from drills.checks.asking import Allowance
from drills.checks.golden_sets import GoldenSet
from drills.checks.recording import cost_of, drafted, record, refuse_secrets
from drills.checks.scoring import Expect
from drills.model import CheckContext
from snapshots.clock import SystemClock
from snapshots.cloud import Answer, Cloud, Place, Plane
from snapshots.errors import InputError, RefusedError

PLACE = Place(Plane.OPENAI, "https://a.example", "s", "r")
TURNED = {"one": [1.0, 0.0], "near": [0.95, 0.312], "far": [0.0, 1.0]}


@dataclass
class Moody:
    """A deployment that answers what is next, and an embeddings deployment that knows where."""

    answers: Sequence[str]
    asked: list[str] = field(default_factory=list)

    def post(self, _place: Place, path: str, body: dict[str, Any], **_how: Any) -> Answer:
        if path.endswith("embeddings"):
            data = [
                {"index": at, "embedding": TURNED[text]} for at, text in enumerate(body["input"])
            ]
            return cast("Answer", _Answer({"data": data}))
        self.asked.append(body["messages"][-1]["content"])
        text = self.answers[(len(self.asked) - 1) % len(self.answers)]
        choice = {"message": {"content": text}, "finish_reason": "stop"}
        return cast("Answer", _Answer({"choices": [choice], "model": "m"}))


@dataclass
class _Answer:
    body: Any
    seconds: float = 0.5


def recorded(answers: Sequence[str], line: str = '{"prompt": "?"}', near: str = "e") -> GoldenSet:
    draft = drafted(line.encode(), "set.jsonl")
    context = CheckContext(
        cloud=cast("Cloud", Moody(answers)),
        clock=SystemClock(),
        live=lambda: pytest.fail("nobody looks"),
        folder=Path(),
    )
    wanted = GoldenSet("set", "d", draft.golden.cases, embeddings=near)
    return record(
        context, PLACE, wanted, Allowance(99, 99_999, 60.0), times=3, undecided=draft.open
    )


def kind(answers: Sequence[str], line: str = '{"prompt": "?"}') -> Expect:
    return recorded(answers, line).cases[0].expect.kind


def test_what_is_always_the_same_is_exact_and_what_varies_a_little_is_similar() -> None:
    assert kind(["one"]) is Expect.EXACT
    found = recorded(["one", "near"]).cases[0].expect
    assert (found.kind, found.text, found.threshold) == (Expect.SIMILARITY, "one", 0.9)
    assert recorded(["one"]).seconds == 0.5


def test_what_varies_much_or_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="not alike"):
        recorded(["one", "far"])
    with pytest.raises(InputError, match="several answers"):
        recorded(["one", "near"], near="")
    with pytest.raises(InputError, match="declines at times"):
        recorded(["one", "I'm sorry, I can't help"])


def test_a_schema_that_was_asked_for_is_what_is_expected() -> None:
    line = (
        '{"prompt": "?", "response_format": {"type": "json_schema", "json_schema": '
        '{"name": "n", "schema": {"type": "object", "required": ["a"]}}}}'
    )
    assert kind(['{"a": 1}', '{"a": 2}'], line) is Expect.JSON_SCHEMA


def test_no_more_is_asked_than_was_said() -> None:
    second = b'{"prompt": "b", "repeats": 4, "expect": {"kind": "pattern", "text": "x"}}'
    lines = b'{"prompt": "a"}\n' + second
    cost = cost_of(drafted(lines, "set.jsonl"), times=3, base=False)
    assert (cost.calls, cost.tokens) == (3 + 1 + 3 + 4, 11 * 200)
    context = CheckContext(
        cloud=cast("Cloud", Moody(["x"])), clock=SystemClock(), live=lambda: pytest.fail("no")
    )
    golden = GoldenSet("set", "d", drafted(lines, "set.jsonl").golden.cases)
    with pytest.raises(RefusedError, match="max_calls"):
        record(context, PLACE, golden, Allowance(5, 99_999, 60.0), times=3)


def test_an_answer_with_a_secret_is_not_recorded() -> None:
    refuse_secrets(recorded(["one"]), "here")
    with pytest.raises(InputError, match="looks like a secret") as told:
        refuse_secrets(recorded(["use password=Hunter2222 there"]), "here")
    assert "Hunter" not in str(told.value)
