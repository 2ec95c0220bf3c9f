"""Readiness as time goes by: what was met becomes at risk, with its date, and then not met."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from muster.settings import Environment, load
from muster.verbs.ready import assess
from muster.wiring import Wiring
from snapshots.clock import SystemClock
from snapshots.ready import Check, State
from tests.replicate_fixtures import FINE_TUNED, QUESTION, Site

DAY = 86400.0


class Later:
    """The machine's clock, some time ahead."""

    def __init__(self, seconds: float) -> None:
        self.ahead = timedelta(seconds=seconds)

    def now(self) -> datetime:
        """The moment, that much from now."""
        return datetime.now(UTC) + self.ahead

    def sleep(self, seconds: float) -> None:
        """Wait as anybody."""
        SystemClock().sleep(seconds)


def checks(site: Site, name: str, *, after: float = 0.0) -> list[Check]:
    """The checks of a name, so many seconds from now."""
    settings = load(site.file)
    with Wiring(settings, Environment(), clock=Later(after)) as wiring:
        found = [c for c in assess(wiring, ()).checks if c.name == name]
    assert found, f"no check {name}"
    return found


@pytest.fixture
def site(pair_site: Site) -> Site:
    """A site on an estate as freshly loaded, with a snapshot."""
    pair_site.configure()
    return pair_site


def test_a_snapshot_and_the_vaults_bundle_age_beyond_the_promised_hour(site: Site) -> None:
    (age,) = checks(site, "snapshot age")
    (bundle,) = checks(site, "ledger")
    assert (age.state, bundle.state) == (State.MET, State.MET)
    with Wiring(load(site.file), Environment()) as wiring:
        ledger = wiring.ledger()
        ledger.commit(ledger.load())  # a newer state, as an audit keeps one: not in the bundle
    (younger,) = checks(site, "ledger", after=600)
    assert younger.state is State.MET
    assert "newer states are not in it" in younger.detail
    assert younger.date is not None
    (late,) = checks(site, "ledger", after=7200)
    assert late.state is State.NOT_MET
    assert "muster snapshot" in late.remedy
    (old,) = checks(site, "snapshot age", after=7200)
    assert old.state is State.NOT_MET
    assert "1 h 0 min is promised" in old.detail


def test_the_fifteen_days_are_met_then_at_risk_with_a_date_then_a_call_renews_them(
    site: Site,
) -> None:
    (before,) = checks(site, "replication")
    assert before.state is State.NOT_MET
    site.replicate("--apply", "--yes")
    (fresh,) = checks(site, "replication")
    assert fresh.state is State.MET
    (late,) = checks(site, "replication", after=7200)
    assert late.state is State.AT_RISK
    name = "15 days without a call"
    assert {c.state for c in checks(site, name)} == {State.MET}
    soon = checks(site, name, after=13 * DAY)
    assert {c.state for c in soon} == {State.AT_RISK}
    assert len(soon) == len(FINE_TUNED)
    for check in soon:
        assert check.date is not None
        left = check.date - datetime.now(UTC)
        assert timedelta(days=14, hours=22) < left <= timedelta(days=15)
    assert {c.state for c in checks(site, "fine-tuned model")} == {State.MET}
    # Azure deletes what was not called, and readiness says so at once.
    for _ in range(2):
        site.sandbox.control("POST", "clock", {"advance": 8 * DAY})
        for model in sorted(FINE_TUNED):
            site.asked(site.source, model, QUESTION)
    assert {c.state for c in checks(site, "fine-tuned model")} == {State.NOT_MET}
    assert all("no longer there" in c.detail for c in checks(site, "fine-tuned model"))
