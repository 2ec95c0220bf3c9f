"""From nothing: a machine without a ledger, a vault, and the whole demo estate comes back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.drill_scripts_fixtures import PairSite, to_primary


@pytest.fixture
def bare(failover_site: PairSite, tmp_path: Path) -> PairSite:
    """Another machine: the configuration, credentials and the vault, and nothing else."""
    vault = tmp_path / "kept"
    shutil.move(failover_site.folder / "vault", vault)
    folder = tmp_path / "bare"
    folder.mkdir()
    for name in ("principal.toml", "secret.txt"):
        shutil.copy2(failover_site.folder / name, folder / name)
    text = failover_site.file.read_text("utf-8")
    (folder / "muster.toml").write_text(text.replace('url = "vault"', f'url = "{vault}"'), "utf-8")
    shutil.rmtree(failover_site.folder)  # the old machine is gone, with its ledger
    assert sorted(p.name for p in folder.iterdir()) == [
        "muster.toml", "principal.toml", "secret.txt",
    ]  # fmt: skip
    return replace(failover_site, file=folder / "muster.toml")


def test_the_whole_estate_comes_back_from_the_vault_on_a_machine_without_a_ledger(
    bare: PairSite,
) -> None:
    before = bare.azure()
    bare.lose_primary()
    mark = bare.mark()
    code, found = bare.run("restore-from-nothing")
    assert code == 0, found
    assert (found["verdict"], found["reasons"]) == ("passed", [])
    assert to_primary(bare.since(mark)) == []
    assert "108 resources" in found["steps"][0]["detail"]
    created = found["steps"][1]["found"]["steps"]["create"]
    assert created > 55
    by_name = {check["name"]: check for check in found["checks"]}
    assert {c["negative_control"] for c in by_name.values()} == {"failed"}
    state = by_name["no change is left"]
    assert state["expected"]["resources"] > created
    # What Git and Blob alone do not give back is said, and is what nobody can.
    lost = {word.rsplit(": ", 1)[1] for word in state["observed"]["not_restorable"]}
    assert lost <= {"lost", "recorded", "rebuilt", "copied"}
    assert 0 < found["rto_seconds"] < 4 * 3600
    assert bare.left_behind() == []
    assert bare.azure() == before
    # The evidence went into a ledger that was not there, and holds.
    code, checked = bare.drill("check", "last")
    assert (code, checked["whole"], checked["verdict"]) == (0, True, "passed")


def test_a_vault_that_lost_a_payload_is_found_out_before_anything_is_made(bare: PairSite) -> None:
    vault = bare.folder.parent / "kept"
    payloads = [p for p in (vault / "payloads").rglob("*") if p.is_file()]
    victim = max(payloads, key=lambda path: path.stat().st_size)
    victim.chmod(0o600)
    victim.unlink()
    before = bare.azure()
    code, found = bare.run("restore-from-nothing")
    assert (code, found["verdict"]) == (2, "failed")
    assert "1 payloads are missing from the vault or damaged" in found["steps"][0]["detail"]
    assert found["steps"][1]["state"] == "skipped"
    assert bare.left_behind() == []
    assert bare.azure() == before
