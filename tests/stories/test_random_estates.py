"""Lose random estates of all kinds; bring them back in place, elsewhere, and far away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from snapshots.compare import compare
from snapshots.mapping import logical, translate, twins
from snapshots.model import ChangeType, Key, Resource, Snapshot, canonical
from snapshots.restore import Prepared, Restored, gates, list_identity, prepare, take_back
from snapshots.steps import Mapping, StepState
from tests.random_estate_fixtures import RandomEstate, random_estate
from tests.restoring_fixtures import Engine, destroy
from tests.sandbox_fixtures import RunningSandbox, start_sandbox


@dataclass
class Trip:
    """One random estate in a sandbox of its own."""

    sandbox: RunningSandbox
    engine: Engine
    estate: RandomEstate
    before: Snapshot

    @property
    def prod(self) -> str:
        return self.sandbox.subscriptions[0]

    @property
    def empty(self) -> str:
        return self.sandbox.subscriptions[1]

    def prepare(self, mapping: Mapping, regions: tuple[str, ...] = ()) -> Prepared:
        """The plan, its gates open."""
        asked = self.engine.request(self.before, mapping=mapping, regions=regions)
        asked = replace(asked, secrets={key: f"env:{key}" for key in self.estate.secrets})
        prepared = prepare(asked, self.engine.tools)
        closed = [gate for gate in gates(prepared, self.engine.tools) if not gate.passed]
        assert closed == [], self.estate.seed
        return prepared

    def restore(self, prepared: Prepared) -> Restored:
        """Do it; everything done, nothing left, and nothing to do a second time."""
        done = self.engine.restore(prepared)
        seed, steps = self.estate.seed, done.record.plan.steps
        wrong = [
            (str(s.key), last)
            for s in steps
            if (last := done.record.last(s.id)) is None or last.state is not StepState.DONE
        ]
        assert wrong == [], seed
        assert done.remaining == (), seed
        assert prepare(prepared.request, self.engine.tools).plan.is_empty, seed
        return done


@pytest.fixture
def trips(tmp_path: Path, scaled: Callable[[int, int], int]) -> Iterator[Callable[[int], Trip]]:
    """Starts an estate by its seed."""
    started: list[Trip] = []

    def start(seed: int) -> Trip:
        estate = random_estate(seed, scaled(2, 4))
        folder = tmp_path / str(seed)
        folder.mkdir()
        file = folder / "estate.yaml"
        file.write_text(estate.text(), encoding="utf-8")
        sandbox = start_sandbox(folder / "sandbox", "--estate", str(file))
        sandbox.control("PUT", "settings", {"throttle": False})
        sandbox.control("POST", "clock", {"scale": 60})
        engine = Engine.on(sandbox, folder)
        answers = {f"env:{key}": answer for key, answer in estate.secrets.items()}
        engine.tools = replace(engine.tools, secret=lambda reference: answers[reference])
        started.append(Trip(sandbox, engine, estate, engine.take()))
        return started[-1]

    def stop() -> None:
        for trip in started:
            trip.engine.close()
            trip.sandbox.stop()
        started.clear()

    def one(seed: int) -> Trip:
        stop()  # one at a time: a long run has many
        return start(seed)

    yield one
    stop()


def told_apart(before: dict[Key, Resource], trip: Trip) -> dict[Key, Resource]:
    """What is there now, in the terms of what is wanted."""
    return logical(twins(before, trip.engine.take().resources))


def check(trip: Trip, mapping: Mapping, prepared: Prepared, scopes: set[str]) -> None:
    """Look again without the help of the restore: what is wanted is there or named, no more."""
    seed = trip.estate.seed
    wanted = dict(translate(trip.before, mapping).snapshot.resources)
    there = told_apart(wanted, trip)
    named = {entry.key for entry in prepared.plan.not_restorable}
    other = {entry.key for entry in prepared.plan.substitutions}
    mine = {key for key in wanted if len(key.path) > 2 or key.kind == "resource-group"}
    assert [str(k) for k in mine - there.keys() - named] == [], seed
    differs = [
        str(key)
        for key in mine & there.keys() - named - other
        if canonical(there[key].body) != canonical(wanted[key].body)
    ]
    assert differs == [], seed
    # Nothing is called lost that is there as it was.
    false = [
        str(key)
        for key in named & there.keys() & wanted.keys()
        if canonical(there[key].body) == canonical(wanted[key].body)
    ]
    assert false == [], seed
    more = [
        str(key)
        for key in there.keys() - wanted.keys()
        if key.subscription in scopes and len(key.path) > 2
    ]
    assert more == [], seed
    for entry in prepared.plan.not_restorable:
        assert entry.sentence
        assert entry.source.startswith("https://")


def test_any_estate_that_was_destroyed_comes_back_and_undo_leaves_nothing_of_it(
    trips: Callable[[int], Trip], scaled: Callable[[int, int], int]
) -> None:
    for seed in range(scaled(1, 40)):
        trip = trips(seed)
        destroy(trip.sandbox, trip.before, purge=True, groups=True)
        gone = trip.engine.take()
        prepared = trip.prepare(Mapping())
        done = trip.restore(prepared)
        check(trip, Mapping(), prepared, {trip.prod})
        record = take_back(trip.engine.tools, trip.engine.records, done.record.id)
        states = {record.state(step.id) for step in record.plan.steps}
        assert states == {StepState.UNDONE}, seed
        left = [
            str(change.key)
            for change in compare(gone, trip.engine.take(), list_identity)
            if change.type is not ChangeType.CHANGED
        ]
        assert left == [], seed


def test_any_estate_comes_back_in_a_subscription_that_is_empty(
    trips: Callable[[int], Trip], scaled: Callable[[int, int], int]
) -> None:
    for seed in range(100, 100 + scaled(1, 40)):
        trip = trips(seed)
        destroy(trip.sandbox, trip.before, purge=True, groups=False)
        mapping = Mapping(subscriptions={trip.prod: trip.empty})
        prepared = trip.prepare(mapping)
        trip.restore(prepared)
        check(trip, mapping, prepared, {trip.empty})


def test_any_estate_comes_up_in_the_standby_region_while_the_primary_is_down(
    trips: Callable[[int], Trip], scaled: Callable[[int, int], int]
) -> None:
    for seed in range(200, 200 + scaled(1, 40)):
        trip = trips(seed)
        trip.sandbox.control("POST", "faults", {"kind": "outage", "region": "swedencentral"})
        trip.engine.cloud.regions.declare_down("swedencentral", "a drill")
        trip.sandbox.control("DELETE", "journal")
        mapping = Mapping(
            subscriptions={trip.prod: trip.empty}, regions={"swedencentral": "eastus2"}
        )
        prepared = trip.prepare(mapping, ("swedencentral",))
        done = trip.restore(prepared)
        journal = trip.sandbox.journal()
        assert len(journal) > len(done.record.plan.steps), seed
        asked = [e["path"] for e in journal if e["region"] == "swedencentral"]
        assert asked == [], seed
        made = {step.key for step in done.record.plan.steps}
        named = {entry.key for entry in prepared.plan.not_restorable}
        moved = {
            to
            for key, to in translate(trip.before, mapping).keys.items()
            if key.kind in {"account", "deployment", "rai-policy", "project", "agent"}
            and _primary(trip.before, key)
            and not str(key.name).startswith("microsoft.")
        }
        assert moved <= made | named, seed


def _primary(snapshot: Snapshot, key: Key) -> bool:
    account = snapshot.resources[Key("account", key.path[:3])]
    return account.body.get("location") == "swedencentral"
