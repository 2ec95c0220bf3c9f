"""Kills, races and damage: what `muster snapshot` kept stays whole, or `muster verify` says so."""

from __future__ import annotations

import contextlib
import random
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from azure.storage.blob import ContainerClient

from snapshots.ledger import Ledger
from snapshots.vault import Access, open_vault
from tests.azurite_fixtures import BlobContainer
from tests.muster_site_fixtures import Site
from tests.sandbox_fixtures import RunningSandbox


def healthy(site: Site) -> None:
    """Git, ledger, vault and manifests are whole, and nothing of a dead process lies about."""
    fsck = site.git("fsck", "--full", "--strict", "--no-dangling")
    assert fsck.returncode == 0, fsck.stderr
    assert b"error" not in fsck.stdout + fsck.stderr
    found = site.ask("verify")
    assert (found["verdict"], found["damages"], found["behind"]) == ("whole", [], 0)
    patterns = ("*.lock", "refs/**/*.lock", "fast_import_crash_*", "**/tmp_*", "**/*.keep")
    left = {f.name for pattern in patterns for f in site.ledger.glob(pattern)}
    assert left - {"muster.lock"} == set()
    kept = {s["snapshot_id"] for s in site.ask("log")["snapshots"]}
    manifests = {f.stem for f in (site.vault / "manifests").glob("*.json")}
    assert kept == manifests


def test_a_kill_at_any_instant_loses_nothing_and_the_next_run_goes_on(
    sandbox: RunningSandbox, new_site: Callable[..., Site], scaled: Callable[[int, int], int]
) -> None:
    site = new_site(sandbox)
    began = time.monotonic()
    tree = site.ask("snapshot")["tree"]
    usual = time.monotonic() - began
    chance = random.Random(time.time_ns())
    kept = {s["snapshot"] for s in site.ask("log")["snapshots"]}
    killed = 0
    for number in range(scaled(3, 100)):
        # New bytes each time, so that each run has something to write everywhere.
        touch(sandbox, number)
        process = site.start("snapshot", "--quiet")
        # Every other time near the end, where it writes.
        instant = chance.uniform(0.6, 1.0) if number % 2 else chance.uniform(0.0, 1.0)
        try:
            process.communicate(timeout=usual * instant)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate(timeout=30)
            killed += 1
        now = {s["snapshot"] for s in site.ask("log")["snapshots"]}
        assert kept <= now, "a snapshot that was there is gone"
        kept = now
        if number % 5 == 4:
            site.ask("snapshot")
            healthy(site)
    assert killed, "every run was quicker than its kill"
    last = site.ask("snapshot")
    assert last["gaps"] == []
    assert last["tree"] != tree
    healthy(site)


def touch(sandbox: RunningSandbox, number: int) -> None:
    path = f"/subscriptions/{sandbox.subscription}/providers/Microsoft.CognitiveServices/accounts"
    api = "?api-version=2025-09-01"
    account = sandbox.call("GET", path + api, name="platform-owner").json()["value"][0]["id"]
    tags = {"tags": {"run": str(number)}}
    assert sandbox.call("PATCH", account + api, tags, name="platform-owner").status_code < 300


def test_two_snapshots_at_once_are_both_kept(
    sandbox: RunningSandbox, new_site: Callable[..., Site], scaled: Callable[[int, int], int]
) -> None:
    site = new_site(sandbox)
    for _ in range(scaled(1, 10)):
        before = len(site.ask("log", expect=None).get("snapshots", []))
        running = [site.start("snapshot", "--format", "json") for _ in range(2)]
        told = [process.communicate(timeout=300) for process in running]
        assert [process.returncode for process in running] == [0, 0], told
        assert len(site.ask("log")["snapshots"]) == before + 2
        healthy(site)


# ------------------------------------------------------------------------ damage


class Objects(Protocol):
    """What a test may break in a vault: named bytes."""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def write(self, name: str, data: bytes) -> None: ...
    def remove(self, name: str) -> None: ...


@dataclass(frozen=True)
class Files:
    folder: Path

    def names(self) -> list[str]:
        found = (f for f in self.folder.rglob("*") if f.is_file())
        return [f.relative_to(self.folder).as_posix() for f in found]

    def read(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = file.stat().st_mode if file.exists() else None
        file.unlink(missing_ok=True)
        file.write_bytes(data)
        if mode is not None:
            file.chmod(mode)

    def remove(self, name: str) -> None:
        (self.folder / name).unlink()


@dataclass(frozen=True)
class Blobs:
    client: ContainerClient

    def names(self) -> list[str]:
        return [blob.name for blob in self.client.list_blobs()]

    def read(self, name: str) -> bytes:
        return bytes(self.client.download_blob(name).readall())

    def write(self, name: str, data: bytes) -> None:
        self.client.upload_blob(name, data, overwrite=True)

    def remove(self, name: str) -> None:
        self.client.delete_blob(name)


@pytest.fixture(params=["folder", pytest.param("blob", marks=pytest.mark.stress)])
def stored(
    request: pytest.FixtureRequest, sandbox: RunningSandbox, new_site: Callable[..., Site]
) -> tuple[Site, Objects]:
    """A site with a vault of either sort, and a hand that reaches into it."""
    if request.param == "folder":
        site = new_site(sandbox)
        return site, Files(site.vault)
    container: BlobContainer = request.getfixturevalue("new_container")()
    key = container.account.key
    site = new_site(sandbox, vault=container.url(), AZURE_STORAGE_KEY=key)
    endpoint = f"{container.account.endpoint}/{container.name}"
    return site, Blobs(ContainerClient.from_container_url(endpoint, credential=key))


def flipped(data: bytes, chance: random.Random) -> bytes:
    at = chance.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]


def test_damage_anywhere_is_found_and_the_snapshots_it_hurts_are_named(
    stored: tuple[Site, Objects], sandbox: RunningSandbox, scaled: Callable[[int, int], int]
) -> None:
    site, objects = stored
    first = site.ask("snapshot")
    touch(sandbox, 1)
    second = site.ask("snapshot")
    known = {first["snapshot_id"], second["snapshot_id"]}
    assert site.ask("verify")["verdict"] == "whole"
    chance = random.Random(5)
    names = objects.names()
    assert names, "the vault holds something"
    for kind in ("payloads/", "manifests/", "ledger/", "keys/"):
        of_kind = sorted(n for n in names if n.startswith(kind))
        assert of_kind, (kind, names)
        for name in chance.sample(of_kind, min(len(of_kind), scaled(1, 10))):
            whole = objects.read(name)
            for how in ("bit", "missing"):
                objects.remove(name)
                if how == "bit":
                    objects.write(name, flipped(whole, chance))
                found = site.ask("verify", expect=None)
                objects.write(name, whole)
                assert found["verdict"] == "damaged", (name, how)
                assert found["damages"]
                # An old bundle holds no snapshot that another does not.
                if kind in {"payloads/", "manifests/"}:
                    assert set(found["hurt"]) & known, (name, how, found["damages"])
    packs = Files(site.ledger)
    names = [n for n in packs.names() if re.search(r"\.(pack|idx)$", n)]
    for name in chance.sample(sorted(names), min(len(names), scaled(2, 10))):
        whole = packs.read(name)
        for how in ("bit", "missing"):
            packs.remove(name)
            if how == "bit":
                packs.write(name, flipped(whole, chance))
            said = site.run("verify", "--format", "json", expect=None)
            packs.write(name, whole)
            told = said + b"".join(site.said[-2:]).decode()
            assert "damage" in told, (name, how, told)
            if said and name.endswith(".pack"):
                assert any(snapshot in said for snapshot in known), (name, how, said)
    assert site.ask("verify")["verdict"] == "whole"


def test_a_vault_thins_out_with_the_ledger_and_makes_the_ledger_again(
    stored: tuple[Site, Objects], sandbox: RunningSandbox, tmp_path: Path
) -> None:
    site, objects = stored
    newest: dict[str, Any] = {}
    for number in range(3):
        touch(sandbox, number)
        newest = site.ask("snapshot")
    few = ("--hourly", "1", "--daily", "0", "--weekly", "0", "--monthly", "0")
    names = set(objects.names())
    dry = site.ask("prune", *few)
    assert (dry["applied"], set(objects.names())) == (False, names)
    site.ask("prune", *few, "--apply", "--yes")
    assert [s["snapshot_id"] for s in site.ask("log")["snapshots"]] == [newest["snapshot_id"]]
    manifests = [n for n in objects.names() if re.fullmatch(r"manifests/[^/]+\.json", n)]
    assert manifests == [f"manifests/{newest['snapshot_id']}.json"]
    found = site.ask("verify", expect=None)
    assert found["damages"] == []
    # The ledger is lost: the vault's newest bundle makes it again.
    text = re.search(r'^url = "(.+)"$', site.config.read_text(), re.MULTILINE)
    assert text is not None
    address = text[1] if "://" in text[1] else str(site.folder / text[1])
    key = site.variables.get("AZURE_STORAGE_KEY", "")
    vault = open_vault(address, access=Access(account_key=key) if key else None)
    with contextlib.closing(vault):
        vault.fetch_bundle(tmp_path / "ledger.bundle", vault.bundles()[-1])
    site.ledger.rename(tmp_path / "lost.git")
    with Ledger.from_bundle(tmp_path / "ledger.bundle", site.ledger) as again:
        assert again.load().resources
    assert site.ask("show")["tree"] == newest["tree"]
    after = site.ask("snapshot")
    assert (after["tree"], after["written"]) == (newest["tree"], 0)
    assert site.ask("verify")["verdict"] == "whole"
    # Lost once more: the next snapshot makes it again by itself, and goes on with its history.
    site.ledger.rename(tmp_path / "lost-again.git")
    last = site.ask("snapshot")
    told = [s["snapshot_id"] for s in site.ask("log")["snapshots"]]
    # What was pruned is back behind them: the bundle that made it again was older than the prune.
    assert told[:3] == [last["snapshot_id"], after["snapshot_id"], newest["snapshot_id"]]
    assert site.ask("verify")["verdict"] == "whole"
