"""Every shipped script on the demo estate: it passes, proves its clean-up, and leaves no trace."""

from __future__ import annotations

import pytest

from drills.script import shipped
from tests.drill_scripts_fixtures import PairSite, changes

STRESS = pytest.mark.stress
ANNA = ("--approver", "Anna Lindqvist")
# Each script with what it is asked, and whether it is run by default or in a long run only.
RUNS = [
    pytest.param("agent-rebuild", (), marks=STRESS),
    pytest.param("content-filter-equivalence", (), marks=STRESS),
    pytest.param("failback", ANNA, marks=STRESS),
    pytest.param("fine-tune-standby-probe", (), marks=STRESS),
    pytest.param("lost-key", (), marks=STRESS),
    pytest.param("quota-shortage", (), marks=STRESS),
    pytest.param("region-failover", ANNA, marks=STRESS),
    pytest.param("region-failover-planned", ANNA, marks=STRESS),
    pytest.param("restore-from-nothing", (), marks=STRESS),
    pytest.param("restore-one-resource", ("--set", "what=agent/front-desk")),
    pytest.param("restore-one-resource", (), marks=STRESS),
    pytest.param("restore-one-resource", ("--set", "what=rai-policy/*/care-polite"), marks=STRESS),
    pytest.param("restore-one-resource", ("--set", "what=deployment/care-chat"), marks=STRESS),
    pytest.param("restore-one-resource", ("--set", "what=deployment/claims-triage"), marks=STRESS),
    pytest.param("restore-one-resource", ("--set", "what=vector-store/*"), marks=STRESS),
    pytest.param("retired-model", ()),
    pytest.param("soft-delete-rescue", (), marks=STRESS),
    pytest.param("vault-reconstruction", (), marks=STRESS),
]


def test_every_shipped_script_is_run_here() -> None:
    assert {str(param.values[0]) for param in RUNS} == set(shipped())


@pytest.mark.parametrize(("name", "words"), RUNS)
def test_a_shipped_script_passes_on_the_demo_estate_and_leaves_nothing(
    failover_site: PairSite, name: str, words: tuple[str, ...]
) -> None:
    before = failover_site.azure()
    code, found = failover_site.run(name, "--yes", *words)
    assert code == 0, found
    assert (found["verdict"], found["reasons"]) == ("passed", [])
    assert found["checks"]
    for check in (*found["gate"], *found["checks"]):
        assert (check["state"], check["negative_control"]) == ("passed", "failed"), check
    assert (found["cleanup"]["state"], found["cleanup"]["left"]) == ("clean", [])
    assert failover_site.left_behind() == []
    assert failover_site.azure() == before


@pytest.mark.stress
@pytest.mark.parametrize("name", sorted(shipped()))
def test_a_dry_run_of_a_shipped_script_changes_nothing_and_tells_the_same_things(
    failover_site: PairSite, name: str
) -> None:
    before, mark = failover_site.azure(), failover_site.mark()
    code, found = failover_site.drill("run", name, "--dry-run")
    assert (code, found["verdict"]) == (0, "not proved"), found["reasons"]
    assert changes(failover_site.since(mark)) == []
    assert failover_site.azure() == before
    _, shown = failover_site.drill("show", "last")
    assert {"steps", "checks", "gate", "cleanup", "reasons"} <= set(shown["evidence"])
    asked = {check["state"] for check in (*found["gate"], *found["checks"])}
    assert asked == {"not-run"} if "isolated" in shipped()[name].read_text("utf-8") else asked


def test_what_is_asked_for_and_is_not_in_the_snapshot_is_told_and_nothing_is_made(
    failover_site: PairSite,
) -> None:
    before, mark = failover_site.azure(), failover_site.mark()
    words = ("--set", "what=agent/nobody")
    code, found = failover_site.run("restore-one-resource", *words)
    assert code in (1, 2)
    assert "nothing in the snapshot is called agent/nobody" in str(found)
    assert failover_site.azure() == before
    assert [c for c in changes(failover_site.since(mark)) if "muster-drill-" not in c] == []
    code, found = failover_site.run("restore-one-resource", "--set", "waht=agent/*")
    assert (code, "did you mean what?" in str(found)) == (1, True)
