"""What muster wrote itself is owed a read, from its records on the disk and in the vault."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

from snapshots.audit.archive import State
from snapshots.audit.written import written
from snapshots.model import Key
from snapshots.records import Records
from snapshots.steps import Action, Outcome, Plan, Step, StepState
from snapshots.vault import open_vault


class Watch:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.at = datetime(2026, 3, 1, 9, tzinfo=UTC)

    def now(self) -> datetime:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += timedelta(seconds=seconds)


def plan(clock: Watch) -> Plan:
    steps = tuple(
        Step(
            id=f"s{at}",
            action=Action.UPDATE,
            key=Key("deployment", ("Sub", "RG", name, "chat")),
            target="/x",
        )
        for at, name in enumerate(("one", "two", "three"))
    )
    return Plan(
        estate="estate",
        snapshot="abc",
        target="same",
        made_at=clock.now(),
        version="1",
        steps=steps,
    )


def outcome(step: str, state: StepState, clock: Watch) -> Outcome:
    return Outcome(step=step, state=state, at=clock.now())


def test_what_was_announced_is_owed_until_the_record_grows_no_more(tmp_path: Path) -> None:
    clock = Watch()
    records = Records(tmp_path / "records", clock=clock)
    assert written(records, {}, set()).owed == frozenset()
    with records.begin(plan(clock)) as journal:
        journal.note(outcome("s0", StepState.BEGUN, clock))
        journal.note(outcome("s1", StepState.ADOPTED, clock))
        journal.note(outcome("s2", StepState.BLOCKED, clock))
        first = written(records, {}, {"sub/rg/zero"})
        assert first.owed == {"sub/rg/zero", "sub/rg/one"}
        # Once it was read, the same lines owe nothing.
        assert written(records, first.records, set()).owed == frozenset()
        journal.note(outcome("s0", StepState.DONE, clock))
        again = written(records, first.records, set())
        assert again.owed == {"sub/rg/one"}
        journal.end(remaining=0, calls={})
    state = State(records=again.records, owed=again.owed)
    assert State.from_document(state.document()) == state


def test_another_hosts_record_is_found_in_the_vault_for_a_week(tmp_path: Path) -> None:
    clock = Watch()
    vault = open_vault(str(tmp_path / "vault"), clock=clock)
    vault.prepare()
    there = Records(tmp_path / "there", clock=clock, vault=vault)
    here = Records(tmp_path / "here", clock=clock, vault=vault)
    with there.begin(plan(clock)) as journal:
        journal.note(outcome("s0", StepState.DONE, clock))
        journal.copy()
        first = written(here, {}, set())
        assert first.owed == {"sub/rg/one"}
        assert written(here, first.records, set()).owed == frozenset()
        journal.note(outcome("s1", StepState.DONE, clock))
    assert written(here, first.records, set()).owed == {"sub/rg/one", "sub/rg/two"}
    clock.sleep(8 * 86400)
    assert written(here, first.records, set()).owed == frozenset()
    assert written(here, {}, set()).owed == {"sub/rg/one", "sub/rg/two"}
    shutil.rmtree(tmp_path / "there")
    vault.close()


def test_a_record_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    clock = Watch()
    records = Records(tmp_path, clock=clock)
    with records.begin(plan(clock)) as journal:
        id_ = journal.record.id
    (tmp_path / f"{id_}.jsonl").write_bytes(b'{"state": 1}\n')
    first = written(records, {}, set())
    assert first.damaged == id_
    assert written(records, first.records, set()).damaged == ""
