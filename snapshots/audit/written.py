"""What muster itself wrote since it last looked: its records tell before Azure's log does."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from snapshots.model import Key
from snapshots.records import Records
from snapshots.steps import StepState

_NOTHING_SENT: Final = frozenset({StepState.WAITING, StepState.ADOPTED, StepState.BLOCKED})


@dataclass(frozen=True, slots=True)
class Written:
    """The accounts that muster wrote to and did not read since."""

    records: Mapping[str, int]  # record -> bytes that were looked at
    owed: frozenset[str]  # as `account_of` names them
    damaged: str = ""  # a record that grew and cannot be read


def written(records: Records | None, known: Mapping[str, int], owed: Iterable[str]) -> Written:
    """Add to what was owed already the accounts of records that grew since `known`.

    Times would not do: our clock is not Azure's. A step that was announced counts, whatever became
    of it.
    """
    if records is None:
        return Written(known, frozenset(owed))
    sizes, accounts, damaged = dict(known), set(owed), ""
    for id_, size, record in records.grown(known):
        sizes[id_] = size
        if record is None:
            damaged = id_
            continue
        begun = {o.step for o in record.outcomes if o.state not in _NOTHING_SENT}
        accounts |= {account_of(step.key) for step in record.plan.steps if step.id in begun}
    return Written(sizes, frozenset(accounts), damaged)


def account_of(key: Key) -> str:
    """Name the account of a key: subscription, group and account, in lower case."""
    return "/".join(key.path[:3]).lower()
