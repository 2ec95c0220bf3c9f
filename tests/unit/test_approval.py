"""Decisions on the evidence branch: written before, completed after, whatever somebody typed."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from muster.settings import Environment, parse
from muster.verbs.approval import Answer, Decided, digest_of, write_down
from muster.wiring import Wiring
from snapshots.ledger import EVIDENCE

CONFIG = """\
[estate]
name = "here"
[[estate.scope]]
subscription = "00000000-0000-0000-0000-000000000000"
[ledger]
path = "ledger.git"
[vault]
url = "vault"
"""
ASKED = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def decided(who: str = "Ada", answer: Answer = Answer.APPROVED) -> Decided:
    return Decided(
        answer=answer,
        who=who,
        reason="rehearsed",
        at=ASKED.replace(hour=10),
        asked_at=ASKED,
        verb="restore",
        what="3 steps in same",
        subject={"plan_sha256": digest_of({"a": 1})},
        run="0123456789abcdef",
    )


def kept(wiring: Wiring) -> list[dict[str, object]]:
    ledger = wiring.ledger()
    return [json.loads(d) for _, d in ledger.files(ledger.tip(EVIDENCE), "approvals/")]


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    found = Wiring(parse(CONFIG, tmp_path / "muster.toml"), Environment())
    found.ledger(create=True)
    return found


def test_what_became_of_a_decision_replaces_what_was_only_decided(wiring: Wiring) -> None:
    with wiring:
        first = write_down(wiring, decided())
        assert [d["became"] for d in kept(wiring)] == [""]
        assert write_down(wiring, replace(decided(), became="record-1")) == first
        assert [(d["became"], d["who"]) for d in kept(wiring)] == [("record-1", "Ada")]


@pytest.mark.parametrize(
    "who", ["<Ada>\n", "a\tb", "Ada <a@b>", "\u202eadA", "é" * 200, "-", "  x"]
)
def test_whatever_somebody_types_as_a_name_is_kept_as_typed(wiring: Wiring, who: str) -> None:
    with wiring:
        write_down(wiring, decided(who))
        assert [d["who"] for d in kept(wiring)] == [who]


def test_nobodys_silence_is_kept_without_a_name(wiring: Wiring) -> None:
    with wiring:
        write_down(wiring, decided("", Answer.EXPIRED))
        [found] = kept(wiring)
    assert found["answer"] == "expired"
    assert decided("", Answer.EXPIRED).line == "nobody answered in time: 3 steps in same"


def test_another_plan_has_another_digest() -> None:
    assert digest_of({"a": 1, "b": 2}) == digest_of({"b": 2, "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 2})
