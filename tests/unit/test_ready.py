"""What readiness makes of what it was told, and the registry of replicas, without a cloud."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshots import replication
from snapshots.clock import SystemClock
from snapshots.errors import ConcurrentError, DamagedStoreError
from snapshots.ledger import Ledger
from snapshots.model import Key
from snapshots.ready import State, vault_place, worst
from snapshots.replication import CopyWay, Proof, Replica, ReplicaState, Replication, Run
from snapshots.vault.base import VaultFacts

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
TIMES = st.datetimes(datetime(2025, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
WORDS = st.text("abcdefgh-.0123456789", min_size=1, max_size=12)
KEYS = st.lists(WORDS, min_size=4, max_size=4).map(lambda path: Key("deployment", tuple(path)))
COUNTS = st.integers(0, 50)
RUNS = st.builds(Run, TIMES, st.booleans(), COUNTS, st.floats(0, 1e6))
REPLICAS = st.builds(
    Replica,
    KEYS,
    WORDS,
    KEYS,
    WORDS,
    st.sampled_from(CopyWay),
    st.sampled_from(ReplicaState),
    TIMES,
    TIMES,
    deployed=st.booleans(),
    kept_alive_at=st.none() | TIMES,
    proof=st.none() | st.builds(Proof, TIMES, COUNTS, COUNTS, COUNTS, WORDS, WORDS),
    detail=WORDS,
)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """An empty ledger."""
    return Ledger.open(tmp_path / "ledger.git", clock=SystemClock(), version="0", create=True)


@given(st.lists(st.sampled_from(State), min_size=1))
def test_not_known_is_never_better_than_at_risk_and_nothing_is_better_than_its_worst(
    states: list[State],
) -> None:
    found = worst(states)
    assert (found is State.MET) == (set(states) == {State.MET})
    assert (State.NOT_MET in states) == (found is State.NOT_MET)
    assert worst([]) is State.NOT_KNOWN


@given(st.lists(REPLICAS, max_size=3), st.none() | RUNS)
def test_what_is_known_of_replicas_reads_back_as_it_was_written(
    replicas: list[Replica], last: Run | None
) -> None:
    known = Replication("swedencentral", "eastus2", last, tuple(replicas))
    assert Replication.from_document(known.document()) == known


def replica(**changes: object) -> Replica:
    """A proved one."""
    key = Key("deployment", ("s", "g", "a", "d"))
    made = Replica(
        key, "m.ft-1", key, "m.ft-1", CopyWay.SOURCE, ReplicaState.PROVED, NOW, NOW, deployed=True
    )
    from dataclasses import replace

    return replace(made, **changes)  # type: ignore[arg-type]


def test_the_fifteen_days_begin_with_the_last_call_and_end_with_the_deployment() -> None:
    assert replica().deadline == NOW + timedelta(days=15)
    later = NOW + timedelta(days=7)
    assert replica(kept_alive_at=later).deadline == later + timedelta(days=15)
    assert replica(deployed=False).deadline is None


def test_a_proof_without_prompts_or_with_one_other_answer_proves_nothing() -> None:
    assert Proof(NOW, 6, 6, 0).holds
    assert not Proof(NOW, 6, 5, 0).holds
    assert not Proof(NOW, 0, 0, 0).holds


def test_the_registry_survives_in_the_ledger_and_names_damage(ledger: Ledger) -> None:
    known = replication.read(ledger, "swedencentral", "eastus2")
    assert known.replicas == ()
    replication.write(ledger, known.with_replica(replica()), "why")
    found = replication.read(ledger, "swedencentral", "eastus2")
    assert found.of(replica().source) == replica()
    assert replication.read(ledger, "westeurope", "northeurope").replicas == ()
    path = replication.path_of("swedencentral", "eastus2")
    ledger.put(replication.BRANCH, {path: b'{"schema": "another"}'}, "damage")
    with pytest.raises(DamagedStoreError, match="cannot be read"):
        replication.read(ledger, "swedencentral", "eastus2")


def test_two_who_write_the_registry_at_once_do_not_lose_one_another(ledger: Ledger) -> None:
    first = ledger.tip(replication.BRANCH)
    known = Replication("swedencentral", "eastus2")
    replication.write(ledger, known, "one")
    with pytest.raises(ConcurrentError):
        ledger.put(replication.BRANCH, {"x.json": b"{}"}, "two", expected_parent=first)


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (VaultFacts("vault", "folder", reachable=True), State.MET),
        (
            VaultFacts(
                "blob", "blob", reachable=True, region_independent=True, redundancy="Standard_RAGRS"
            ),
            State.MET,
        ),
        (VaultFacts("blob", "blob", reachable=True, region="eastus2"), State.MET),
        (
            VaultFacts(
                "blob", "blob", reachable=True, region="Sweden Central", region_independent=False
            ),
            State.NOT_MET,
        ),
        (
            VaultFacts(
                "blob", "blob", reachable=True, region_independent=False, redundancy="Standard_LRS"
            ),
            State.NOT_MET,
        ),
        (VaultFacts("blob", "blob", reachable=True), State.NOT_KNOWN),
    ],
    ids=["folder", "two regions", "standby", "primary", "one copy", "does not say"],
)
def test_a_vault_counts_when_it_is_there_without_the_primary_region(
    facts: VaultFacts, state: State
) -> None:
    check = vault_place(facts, ["swedencentral"])
    assert check.state is state
    assert bool(check.remedy) == (state is not State.MET)
