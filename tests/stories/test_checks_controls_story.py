"""Negative controls that draw what they break: whatever is drawn, it is found out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from drills.checks import make
from drills.model import CheckDeclaration, CheckState
from tests.target_fixtures import CLAIMS, Bench


@pytest.mark.parametrize("gone", ["", "swedencentral"], ids=["primary-alive", "primary-lost"])
@pytest.mark.parametrize("subject", ["", f"deployment/{CLAIMS}/*"], ids=["all", "deployments"])
def test_the_control_of_state_fails_whatever_it_draws(
    bench: Bench, scaled: Callable[[int, int], int], subject: str, gone: str
) -> None:
    check = make(CheckDeclaration(check="state", subject=subject))
    context = bench.context()
    assert check.run(context).state is CheckState.PASSED
    if gone:
        # What was deployed from weights that are gone would not come back: it is not drawn.
        bench.cloud.regions.declare_down(gone, "a test")
    for seed in range(scaled(12, 300)):
        outcome = check.control(replace(context, seed=seed))
        assert outcome.state is CheckState.FAILED, (seed, outcome)


def test_a_deployment_of_living_weights_that_is_gone_is_a_change_and_no_loss(bench: Bench) -> None:
    bench.delete("/deployments/claims-triage")
    outcome = bench.prove("state", f"deployment/{CLAIMS}/claims-triage")
    assert outcome.state is CheckState.FAILED
    assert "claims-triage removed" in outcome.detail
