"""Rules of the ledger's bundles in the vault: they alone make the ledger again."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from snapshots.bundles import keep_bundle, ledger_from
from snapshots.clock import SystemClock
from snapshots.errors import DamagedStoreError
from snapshots.ledger import Ledger, Retention
from snapshots.ledger.bundled import Bundled
from snapshots.model import Key, Resource, Snapshot
from snapshots.vault import Manifest, Vault, open_vault
from snapshots.verify import verify

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
LAST = Retention(hourly=1, daily=0, weekly=0, monthly=0)


def state(number: int) -> Snapshot:
    """Forty resources, of which one differs from those of every other number."""
    found = {}
    for place in range(40):
        key = Key("deployment", ("sub", "rg", "acc", f"d{place}"))
        size = number if place == number % 40 else 0
        found[key] = Resource(key, f"/id/{place}", {"size": size, "text": f"{place} " * 200})
    return Snapshot("contoso", START, "1", found)


@pytest.fixture
def vault(tmp_path: Path) -> Vault:
    return open_vault(str(tmp_path / "vault"))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(tmp_path / "ledger.git", create=True) as opened:
        yield opened


def kept(ledger: Ledger, vault: Vault, number: int, *, upon_one: int = 3) -> str:
    """Keep a snapshot as the command does; give the name of its bundle."""
    found = ledger.commit(state(number))
    whole = Snapshot("contoso", START, "1", {}, id=found.snapshot)
    vault.keep_manifest(Manifest.of(whole))
    return keep_bundle(ledger, vault, found, upon_one=upon_one)


def made_again(vault: Vault, tmp_path: Path, name: str | None = None) -> dict[str, str]:
    """Make the ledger from the vault alone; give its branches."""
    for old in tmp_path.glob("again*"):
        shutil.rmtree(old)
    vault.fetch_bundle(tmp_path / "fetched", name)
    with Ledger.from_bundle(tmp_path / "fetched", tmp_path / "again.git") as again:
        assert again.check() == []
        assert again.load().resources == again.load(again.tip()).resources
        return again.tips()


def test_bundles_upon_a_whole_one_make_the_ledger_again(
    ledger: Ledger, vault: Vault, tmp_path: Path
) -> None:
    names = []
    for number in range(9):
        if number == 2:
            ledger.copy(None, "live", "baseline", "approve")
        if number == 5:
            ledger.put("evidence", {"drills/1.json": b"{}"}, "a drill")
        names.append(kept(ledger, vault, number))
        assert made_again(vault, tmp_path) == ledger.tips(), number
    upon = [".on-" in name for name in names]
    assert upon == [False, True, True, True, False, True, True, True, False]
    assert list(vault.bundles()) == names, "names sort by time"
    sizes = {name: (tmp_path / "vault" / "ledger" / name).stat().st_size for name in names}
    assert max(sizes[n] for n in names if ".on-" in n) < sizes[names[0]] / 2
    # An older one still gives what there was.
    older = made_again(vault, tmp_path, names[2])
    assert older["refs/heads/live"].startswith(names[2].split("-")[2].split(".")[0])


def test_what_went_with_a_prune_is_in_no_later_bundle(
    ledger: Ledger, vault: Vault, tmp_path: Path
) -> None:
    for number in range(3):
        kept(ledger, vault, number)
    assert ledger.prune(LAST, apply=True).dropped
    name = kept(ledger, vault, 3)
    assert ".on-" not in name
    assert made_again(vault, tmp_path) == ledger.tips()


def test_a_vault_that_is_thinned_keeps_what_its_bundles_build_upon(
    ledger: Ledger, vault: Vault, tmp_path: Path
) -> None:
    names = [kept(ledger, vault, number) for number in range(7)]
    vault.prune(keep_bundles=2, apply=True)
    assert list(vault.bundles()) == names[4:]
    vault.prune(keep_bundles=1, apply=True)
    assert made_again(vault, tmp_path) == ledger.tips()


@pytest.mark.parametrize("how", ["forgotten", "damaged", "of another vault", "of a lost commit"])
def test_without_a_memory_to_build_upon_the_next_bundle_is_whole(
    ledger: Ledger, vault: Vault, tmp_path: Path, how: str
) -> None:
    first = kept(ledger, vault, 0)
    kept(ledger, vault, 1)
    memory = ledger.path / "muster.bundled"
    match how:
        case "forgotten":
            memory.unlink()
        case "damaged":
            memory.write_bytes(memory.read_bytes()[:-9])
        case "of another vault":
            (tmp_path / "vault" / "ledger" / first).unlink()
        case _:
            Bundled((first,), {"refs/heads/live": "0" * 40}).write(ledger.path)
    assert ".on-" not in kept(ledger, vault, 2)
    assert made_again(vault, tmp_path) == ledger.tips()


def test_a_writer_killed_before_its_sum_or_its_memory_is_made_up_for(
    ledger: Ledger, vault: Vault, tmp_path: Path
) -> None:
    kept(ledger, vault, 0)
    before = Bundled.read(ledger.path)
    unproved = kept(ledger, vault, 1)
    (tmp_path / "vault" / "sums" / "ledger" / unproved).unlink()
    assert before
    before.write(ledger.path)
    last = kept(ledger, vault, 2)
    assert ".on-" in last
    assert made_again(vault, tmp_path) == ledger.tips()


@pytest.mark.parametrize("how", ["missing", "a flipped bit"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_every_bundle_that_the_newest_needs_is_proved(
    ledger: Ledger, vault: Vault, tmp_path: Path, which: int, how: str
) -> None:
    names = [kept(ledger, vault, number) for number in range(3)]
    now = SystemClock().now()
    assert verify(ledger, vault, now=now).damages == ()
    file = tmp_path / "vault" / "ledger" / names[which]
    data = file.read_bytes()
    file.unlink()
    if how != "missing":
        file.write_bytes(data[:-30] + bytes([data[-30] ^ 4]) + data[-29:])
    found = verify(ledger, vault, now=now)
    snapshots = {entry.snapshot for entry in ledger.log()}
    told = {damage.path: set(damage.snapshots) for damage in found.damages}
    assert told.get(f"ledger/{names[which]}"), told
    # Those of the damaged one and of all that build upon it.
    hurt = {"-".join(name.split("-")[:2]) for name in names[which:]}
    assert set().union(*told.values()) == hurt <= snapshots
    if names[which] == names[-1] and how == "missing":  # the one before is the newest then
        assert made_again(vault, tmp_path) != ledger.tips()
    else:
        with pytest.raises(DamagedStoreError):
            made_again(vault, tmp_path)


def test_a_bundle_that_is_known_to_be_damaged_is_built_upon_no_more(
    ledger: Ledger, vault: Vault, tmp_path: Path
) -> None:
    names = [kept(ledger, vault, number) for number in range(2)]
    (tmp_path / "vault" / "ledger" / names[0]).chmod(0o600)
    (tmp_path / "vault" / "ledger" / names[0]).write_bytes(b"torn")
    assert verify(ledger, vault, now=SystemClock().now()).damages
    assert ".on-" not in kept(ledger, vault, 2)
    assert made_again(vault, tmp_path) == ledger.tips()


def test_an_empty_ledger_beside_a_full_vault_is_not_whole(
    ledger: Ledger, vault: Vault, tmp_path: Path
) -> None:
    with Ledger.open(tmp_path / "other.git", create=True) as empty:
        assert verify(empty, vault, now=SystemClock().now()).whole, "nothing was kept anywhere"
        kept(ledger, vault, 0)
        (damage,) = verify(empty, vault, now=SystemClock().now()).damages
    assert (damage.store, damage.snapshots) == ("ledger", (ledger.entry("live").snapshot,))


@pytest.mark.parametrize(("estate", "made"), [("contoso", True), ("another", False)])
def test_a_lost_ledger_is_made_again_for_its_own_estate(
    ledger: Ledger, vault: Vault, tmp_path: Path, estate: str, made: bool
) -> None:
    place = tmp_path / "new.git"
    clock = SystemClock()
    assert not ledger_from(vault, place, estate=estate, remote="", clock=clock, version="1")
    name = [kept(ledger, vault, number) for number in range(3)][-1]
    found = ledger_from(vault, place, estate=estate, remote="", clock=clock, version="1")
    assert (found, place.exists()) == ((name, True) if made else ("", False))
    if made:
        with Ledger.open(place) as again:
            assert again.tips() == ledger.tips()
