"""What every vault promises, held against a folder and against Blob on a real Azurite."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Protocol

import orjson
import pytest
from azure.storage.blob import ContainerClient
from hypothesis import given
from hypothesis import strategies as st

from snapshots.errors import (
    ConcurrentError,
    DamagedStoreError,
    InputError,
    NotFoundError,
    RefusedError,
)
from snapshots.model import Key, Payload, Resource, Snapshot
from snapshots.vault import Access, Manifest, ManifestEntry, Problem, Vault, open_vault
from snapshots.vault.base import BLOCK, payload_path
from tests.azurite_fixtures import BlobContainer

ROOT = Path(__file__).resolve().parents[2]


@dataclass(slots=True)
class Hands:
    """A clock whose hands the test moves."""

    moment: datetime = field(default_factory=lambda: datetime.now(UTC))

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)

    def pass_by(self, **time: float) -> None:
        self.moment += timedelta(**time)


class Place(Protocol):
    """Where a vault is, seen from below: what a fault, an intruder or a killed writer does."""

    def open(self, clock: Hands | None = None) -> Vault: ...
    def paths(self) -> list[str]: ...
    def bytes_of(self, path: str) -> bytes: ...
    def put(self, path: str, data: bytes) -> None: ...
    def age(self, days: float) -> None: ...
    def remove(self, path: str) -> None: ...
    def environment(self) -> dict[str, str]: ...


@dataclass(frozen=True, slots=True)
class FolderPlace:
    root: Path

    def open(self, clock: Hands | None = None) -> Vault:
        return open_vault(str(self.root), clock=clock)

    def paths(self) -> list[str]:
        files = (path for path in self.root.rglob("*") if path.is_file() and path.name != ".lock")
        return sorted(str(path.relative_to(self.root)) for path in files)

    def bytes_of(self, path: str) -> bytes:
        return (self.root / path).read_bytes()

    def put(self, path: str, data: bytes) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.write_bytes(data)

    def age(self, days: float) -> None:
        """Let what is under way look as old as that."""
        for file in (self.root / "incoming").glob("*"):
            then = file.stat().st_mtime - days * 86_400
            os.utime(file, (then, then))

    def remove(self, path: str) -> None:
        (self.root / path).unlink()

    def environment(self) -> dict[str, str]:
        return {"VAULT_URL": str(self.root), "VAULT_KEY": ""}


@dataclass(frozen=True, slots=True)
class BlobPlaceBelow:
    container: BlobContainer
    client: ContainerClient

    def open(self, clock: Hands | None = None) -> Vault:
        access = Access(account_key=self.container.account.key)
        return open_vault(self.container.url("a/prefix"), access=access, clock=clock)

    def paths(self) -> list[str]:
        names = self.client.list_blob_names(name_starts_with="a/prefix/")
        return sorted(str(name).removeprefix("a/prefix/") for name in names)

    def bytes_of(self, path: str) -> bytes:
        return self.client.get_blob_client(f"a/prefix/{path}").download_blob().readall()

    def put(self, path: str, data: bytes) -> None:
        self.client.upload_blob(f"a/prefix/{path}", data, overwrite=True)

    def age(self, days: float) -> None:
        """Nothing: blocks of a blob that was never finished are no blob."""

    def remove(self, path: str) -> None:
        self.client.delete_blob(f"a/prefix/{path}")

    def environment(self) -> dict[str, str]:
        account = self.container.account
        return {"VAULT_URL": self.container.url("a/prefix"), "VAULT_KEY": account.key}


@pytest.fixture(params=["folder", pytest.param("blob", marks=pytest.mark.azurite)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "folder":
        yield FolderPlace(tmp_path / "vault")
        return
    container: BlobContainer = request.getfixturevalue("new_container")()
    string = container.account.connection_string
    with ContainerClient.from_connection_string(string, container.name) as client:
        client.create_container()
        yield BlobPlaceBelow(container, client)
        client.delete_container()


@pytest.fixture
def clock() -> Hands:
    return Hands()


@pytest.fixture
def vault(place: Place, clock: Hands) -> Iterator[Vault]:
    vault = place.open(clock)
    yield vault
    vault.close()


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def chunked(data: bytes, size: int) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def named(snapshot: str, *payloads: Payload) -> Manifest:
    ordered = sorted(payloads, key=lambda p: p.sha256)
    return Manifest(
        snapshot,
        tuple(ManifestEntry(p.sha256, p.size, (f"file/{p.sha256[:6]}",)) for p in ordered),
    )


# ---- payloads ----


@pytest.mark.parametrize("known", [True, False], ids=["digest-known", "digest-unknown"])
@pytest.mark.parametrize(
    "size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 2 * BLOCK + 1], ids=str
)
def test_what_is_kept_is_read_back_to_the_byte(vault: Vault, size: int, known: bool) -> None:
    data = noise(size, size)
    kept = vault.keep(
        chunked(data, 1_000_003), sha256=sha(data) if known else None, size=size, name="result:0"
    )
    assert kept == Payload("result:0", sha(data), size)
    assert b"".join(vault.read(kept.sha256)) == data
    assert vault.size(kept.sha256) == size
    assert vault.has(kept.sha256)
    assert vault.known() == {kept.sha256}


@given(parts=st.lists(st.binary(max_size=50), max_size=12))
def test_any_cut_of_the_same_bytes_is_the_same_payload(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]
) -> None:
    vault = open_vault(str(tmp_path_factory.mktemp("vault")))
    data = b"".join(parts)
    assert vault.keep(parts) == vault.keep([data]) == Payload("content", sha(data), len(data))
    assert b"".join(vault.read(sha(data))) == data


@pytest.mark.parametrize("known", [True, False], ids=["digest-known", "digest-unknown"])
@pytest.mark.parametrize("size", [1000, 2 * BLOCK, 2 * BLOCK + 1000], ids=str)
def test_a_source_may_use_its_buffer_again(vault: Vault, known: bool, size: int) -> None:
    data = noise(size, 7)

    def chunks() -> Iterator[bytearray]:
        buffer = bytearray(BLOCK if size % BLOCK == 0 else 64_000)
        for start in range(0, size, len(buffer)):
            part = data[start : start + len(buffer)]
            buffer[:] = part
            yield buffer
            buffer[:] = b"\0" * len(part)

    kept = vault.keep(chunks(), sha256=sha(data) if known else None)
    assert b"".join(vault.read(kept.sha256)) == data


def test_a_payload_lies_where_the_layout_says(place: Place, vault: Vault) -> None:
    digest = vault.keep([b"hello"]).sha256
    assert place.paths() == [f"payloads/sha256/{digest[:2]}/{digest}"]


@pytest.mark.parametrize("size", [5, BLOCK + 5], ids=str)
def test_bytes_that_do_not_match_their_digest_are_not_kept(
    place: Place, vault: Vault, size: int
) -> None:
    data = noise(size)
    expected = sha(data + b"!")
    with pytest.raises(DamagedStoreError) as caught:
        vault.keep(chunked(data, 65536), sha256=expected)
    assert expected in str(caught.value)
    assert sha(data) in str(caught.value)
    with pytest.raises(DamagedStoreError, match="bytes came"):
        vault.keep([data], size=size + 1)
    assert place.paths() == []
    # The control: the right digest is taken, after all that.
    assert vault.keep([data], sha256=sha(data), size=size).size == size


@pytest.mark.parametrize("known", [True, False], ids=["digest-known", "digest-unknown"])
def test_a_source_that_breaks_leaves_nothing(place: Place, vault: Vault, known: bool) -> None:
    def broken() -> Iterator[bytes]:
        yield noise(BLOCK)
        yield noise(BLOCK)
        raise ConnectionResetError("the source hung up")

    with pytest.raises(ConnectionResetError, match="hung up"):
        vault.keep(broken(), sha256="0" * 64 if known else None)
    assert place.paths() == []


@pytest.mark.parametrize("size", [17, 2 * BLOCK + 1], ids=str)
def test_a_writer_whose_clock_runs_ahead_leaves_a_transfer_alone_that_is_under_way(
    place: Place, vault: Vault, clock: Hands, size: int
) -> None:
    data = noise(size)
    ahead = place.open(Hands(clock.now() + timedelta(days=30)))

    def interrupted() -> Iterator[bytes]:
        yield data[:7]
        ahead.keep([b"kept by the other"])
        yield data[7:]

    try:
        payload = vault.keep(interrupted())
    finally:
        ahead.close()
    assert b"".join(vault.read(payload.sha256)) == data


def test_what_a_killed_writer_left_a_day_ago_is_removed(tmp_path: Path, clock: Hands) -> None:
    place = FolderPlace(tmp_path / "vault")
    for name, age in (("old", 90_000), ("young", 60)):
        place.put(f"incoming/{name}.part", b"half")
        then = time.time() - age
        os.utime(place.root / f"incoming/{name}.part", (then, then))
    place.open(clock).keep([b"next"])
    assert [p for p in place.paths() if p.startswith("incoming/")] == ["incoming/young.part"]


def test_a_known_payload_costs_no_download(vault: Vault) -> None:
    kept = vault.keep([b"once"])

    class Never:
        def __iter__(self) -> Iterator[bytes]:
            pytest.fail("the bytes were fetched again")

    assert vault.keep(Never(), sha256=kept.sha256, name="content") == kept


def test_a_file_is_kept_and_copied_back(vault: Vault, tmp_path: Path) -> None:
    data = noise(BLOCK + 77)
    source, target = tmp_path / "source.jsonl", tmp_path / "target.jsonl"
    source.write_bytes(data)
    target.write_bytes(b"older")
    kept = vault.keep_file(source)
    assert kept == Payload("content", sha(data), len(data))
    vault.copy_to(kept.sha256, target)
    assert target.read_bytes() == data
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == [
        "source.jsonl",
        "target.jsonl",
    ]
    with pytest.raises(InputError, match="cannot read the file"):
        vault.keep_file(tmp_path / "missing")


def test_reading_what_is_not_there_is_damage(vault: Vault) -> None:
    for use in (vault.size, lambda d: list(vault.read(d))):
        with pytest.raises(DamagedStoreError, match="missing"):
            use("0" * 64)
    assert not vault.has("0" * 64)
    for bad in ("", "0" * 63, "A" * 64, "../../etc/passwd"):
        with pytest.raises(InputError, match="not a SHA-256"):
            vault.has(bad)


# ---- damage ----


def _flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize("size", [9, BLOCK + 9], ids=str)
@pytest.mark.parametrize("fault", ["flip", "truncate", "remove"])
def test_damage_is_found_and_its_snapshots_are_named(
    place: Place, vault: Vault, tmp_path: Path, fault: str, size: int
) -> None:
    sick, well = vault.keep([noise(size, 1)]), vault.keep([b"well"])
    vault.keep_manifest(named("s1", sick, well))
    vault.keep_manifest(named("s2", sick))
    vault.keep_manifest(named("s3", well))
    assert list(vault.check()) == []
    path = payload_path(sick.sha256)
    match fault:
        case "flip":
            place.put(path, _flip(place.bytes_of(path)))
            problem = Problem.DIGEST
        case "truncate":
            place.put(path, place.bytes_of(path)[:-1])
            problem = Problem.SIZE
        case _:
            place.remove(path)
            problem = Problem.MISSING
    (damage,) = vault.check()
    assert (damage.path, damage.problem) == (path, problem)
    assert damage.snapshots == ("s1", "s2")
    assert damage.keys == (f"file/{sick.sha256[:6]}",)
    # Existence and size show without reading anything; a flipped bit needs the sample.
    assert [d.problem for d in vault.check(sample=0)] == (
        [] if problem is Problem.DIGEST else [problem]
    )
    # Nobody gets the whole of a damaged payload, nor a file of it.
    taken: list[bytes] = []
    with pytest.raises(DamagedStoreError):
        taken.extend(vault.read(sick.sha256))
    assert sum(map(len, taken)) < size - 1
    with pytest.raises(DamagedStoreError):
        vault.copy_to(sick.sha256, tmp_path / "copy")
    assert list(tmp_path.glob("*copy*")) == []


def test_a_sample_reads_its_part_and_is_chosen_by_the_seed(place: Place, vault: Vault) -> None:
    for number in range(20):
        digest = vault.keep([b"%d" % number]).sha256
        place.put(payload_path(digest), b"x" * vault.size(digest))

    def found(sample: float, seed: int) -> list[str]:
        return [damage.path for damage in vault.check(sample=sample, seed=seed)]

    assert len(found(1, 0)) == 20
    assert len(found(0.25, 0)) == 5
    assert len(found(0.01, 0)) == 1
    assert found(0.25, 7) == found(0.25, 7)
    assert found(0.25, 7) != found(0.25, 8)
    seen: list[tuple[int, int]] = []
    list(vault.check(sample=0.25, on_progress=lambda done, of: seen.append((done, of))))
    assert seen == [(n, 5) for n in range(6)]
    with pytest.raises(InputError, match="sample"):
        vault.check(sample=1.5)


def test_a_stranger_among_the_payloads_is_reported(place: Place, vault: Vault) -> None:
    vault.keep([b"fine"])
    place.put("payloads/sha256/ab/not-a-digest", b"?")
    place.put("payloads/sha256/00/" + "f" * 64, b"in the wrong folder")
    assert [damage.problem for damage in vault.check()] == [Problem.STRANGER] * 2


def test_every_damaged_byte_of_a_manifest_is_found(place: Place, vault: Vault) -> None:
    kept = vault.keep([b"a"])
    manifest = named("s1", kept)
    vault.keep_manifest(manifest)
    good = place.bytes_of("manifests/s1.json")
    for where in random.Random(1).sample(range(len(good)), 40):
        bad = good[:where] + bytes([good[where] ^ 4]) + good[where + 1 :]
        if _json(bad) == _json(good):  # white space: the same manifest
            continue
        place.put("manifests/s1.json", bad)
        with pytest.raises(DamagedStoreError, match="s1"):
            vault.manifest("s1")
    (damage,) = vault.check()
    assert damage.problem is Problem.MANIFEST
    assert damage.snapshots == ("s1",)
    place.put("manifests/s1.json", good)
    assert vault.manifest("s1") == manifest
    assert list(vault.check()) == []


def _json(data: bytes) -> object:
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


# ---- manifests, bundles, documents ----


def test_a_manifest_names_every_payload_of_its_snapshot(vault: Vault) -> None:
    one, two = vault.keep([b"1"], name="content"), vault.keep([b"2"], name="result:0")
    resources = [
        Resource(Key("file", ("s", "a")), "id-a", {}, (one,)),
        Resource(Key("job", ("s", "b")), "id-b", {}, (one, two)),
        Resource(Key("group", ("s",)), "id-c", {}),
    ]
    snapshot = Snapshot(
        "estate", datetime.now(UTC), "0", {r.key: r for r in resources}, id="abc123"
    )
    manifest = Manifest.of(snapshot)
    vault.keep_manifest(manifest)
    vault.keep_manifest(manifest)  # once more is the same
    assert vault.manifests() == ("abc123",)
    assert {entry.sha256: entry.keys for entry in vault.manifest("abc123").payloads} == {
        one.sha256: ("file/s/a", "job/s/b"),
        two.sha256: ("job/s/b",),
    }
    with pytest.raises(ConcurrentError, match="already"):
        vault.keep_manifest(named("abc123", one))
    with pytest.raises(NotFoundError):
        vault.manifest("other")
    with pytest.raises(InputError):
        vault.manifest("../x")


def test_the_newest_bundle_is_fetched_and_proved(
    place: Place, vault: Vault, tmp_path: Path
) -> None:
    with pytest.raises(NotFoundError, match="no bundle"):
        vault.fetch_bundle(tmp_path / "out")
    source = tmp_path / "ledger.bundle"
    for hour in (9, 11, 10):
        source.write_bytes(b"bundle of %d" % hour)
        vault.keep_bundle(source, f"20261122T{hour:02}0000Z-abc.bundle")
        vault.keep_bundle(source, f"20261122T{hour:02}0000Z-abc.bundle")
    source.write_bytes(b"another")
    with pytest.raises(ConcurrentError):
        vault.keep_bundle(source, "20261122T110000Z-abc.bundle")
    assert vault.fetch_bundle(tmp_path / "out") == "20261122T110000Z-abc.bundle"
    assert (tmp_path / "out").read_bytes() == b"bundle of 11"
    assert list(vault.check()) == []
    place.put("ledger/20261122T110000Z-abc.bundle", b"bundle of 12")
    place.remove("ledger/20261122T090000Z-abc.bundle")
    assert [damage.problem for damage in vault.check()] == [Problem.MISSING, Problem.DIGEST]
    with pytest.raises(DamagedStoreError):
        vault.fetch_bundle(tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"bundle of 11"
    for bad in ("x.zip", "../x.bundle", ".bundle", "a/b.bundle"):
        with pytest.raises(InputError):
            vault.keep_bundle(source, bad)


def test_a_document_is_kept_once(place: Place, vault: Vault) -> None:
    vault.keep_document("evidence/d1.json", b"proof")
    vault.keep_document("evidence/d1.json", b"proof")
    with pytest.raises(ConcurrentError):
        vault.keep_document("evidence/d1.json", b"other proof")
    assert vault.read_document("evidence/d1.json").data == b"proof"
    with pytest.raises(RefusedError, match="for good"):
        vault.replace_document("evidence/d1.json", b"x", None)
    assert list(vault.check()) == []
    place.put("evidence/d1.json", b"prooF")
    assert [damage.path for damage in vault.check()] == ["evidence/d1.json"]


def test_what_was_written_before_a_kill_and_not_proved_is_taken_up(
    place: Place, vault: Vault, tmp_path: Path
) -> None:
    place.put("evidence/d1.json", b"written, and then the writer was killed")
    assert list(vault.check()) == []
    vault.keep_document("evidence/d1.json", b"written, and then the writer was killed")
    place.put("evidence/d1.json", b"damaged later")
    assert [damage.path for damage in vault.check()] == ["evidence/d1.json"]

    bundle = tmp_path / "b"
    bundle.write_bytes(b"older")
    vault.keep_bundle(bundle, "1-a.bundle")
    place.put("ledger/2-b.bundle", b"newer")
    assert vault.fetch_bundle(tmp_path / "out") == "1-a.bundle"
    with pytest.raises(NotFoundError):
        vault.fetch_bundle(tmp_path / "out", "2-b.bundle")
    bundle.write_bytes(b"newer")
    vault.keep_bundle(bundle, "2-b.bundle")
    assert vault.fetch_bundle(tmp_path / "out") == "2-b.bundle"


def test_a_record_grows_only_from_what_was_read(vault: Vault) -> None:
    first = vault.replace_document("records/r1.jsonl", b"1\n", None)
    second = vault.replace_document("records/r1.jsonl", b"1\n2\n", first)
    with pytest.raises(ConcurrentError):
        vault.replace_document("records/r1.jsonl", b"1\n3\n", first)
    with pytest.raises(ConcurrentError):
        vault.replace_document("records/r1.jsonl", b"0\n", None)
    # Its own bytes are no conflict: the answer to the first try may have been lost.
    assert vault.replace_document("records/r1.jsonl", b"1\n2\n", first) == second
    found = vault.read_document("records/r1.jsonl")
    assert (found.data, found.etag) == (b"1\n2\n", second)
    with pytest.raises(ConcurrentError):
        vault.replace_document("records/none.jsonl", b"1\n", second)


def test_documents_are_listed_by_prefix_without_the_vaults_own(vault: Vault) -> None:
    vault.keep([b"payload"])
    vault.fingerprint_key()
    for path in ("evidence/a.json", "evidence/b/c.json", "shards/0", "evidencex"):
        vault.keep_document(path, path.encode())
    assert vault.documents() == ("evidence/a.json", "evidence/b/c.json", "evidencex", "shards/0")
    assert vault.documents("evidence/") == ("evidence/a.json", "evidence/b/c.json")
    with pytest.raises(NotFoundError):
        vault.read_document("evidence/none")


@pytest.mark.parametrize(
    "path",
    [
        *("", "/a", "a/", "a//b", "../a", "a/../b", "payloads/x", "Keys/x", "a/.b", "a."),
        *("nul.txt", "a b", "a\\b", "C:/x", "ä", "x" * 401, "sums/a", "a\0b"),
    ],
)
def test_a_path_that_could_lead_elsewhere_is_refused(vault: Vault, path: str) -> None:
    for use in (
        lambda: vault.keep_document(path, b""),
        lambda: vault.read_document(path),
        lambda: vault.replace_document(path, b"", None),
    ):
        with pytest.raises(InputError, match="not a document"):
            use()


def test_racers_that_append_lose_no_line(
    place: Place, vault: Vault, scaled: Callable[[int, int], int]
) -> None:
    vault.replace_document("records/r.txt", b"", None)

    def append(number: int) -> None:
        own = place.open()
        while True:
            found = own.read_document("records/r.txt")
            try:
                own.replace_document("records/r.txt", found.data + b"%d\n" % number, found.etag)
            except ConcurrentError:
                continue
            own.close()
            return

    count = scaled(16, 500)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(append, range(count)))
    lines = vault.read_document("records/r.txt").data.split()
    assert sorted(map(int, lines)) == list(range(count))


def test_an_empty_document_is_read_with_its_own_etag_while_others_replace_it(
    place: Place, scaled: Callable[[int, int], int]
) -> None:
    writer, reader = place.open(), place.open()

    def race(path: str) -> None:
        start = threading.Barrier(2)
        empty = writer.replace_document(path, b"", None)

        def write() -> str:
            start.wait(30)
            return writer.replace_document(path, b"full", empty)

        def read() -> tuple[str, bytes]:
            start.wait(30)
            found = reader.read_document(path)
            return found.etag, found.data

        with ThreadPoolExecutor(2) as pool:
            full, seen = pool.submit(write), pool.submit(read)
            assert seen.result() in {(empty, b""), (full.result(), b"full")}

    for number in range(scaled(15, 300)):
        race(f"records/{number}.txt")
    writer.close()
    reader.close()


# ---- the key of the fingerprints ----


def test_racers_for_the_fingerprint_key_get_one_key(place: Place) -> None:
    start = threading.Barrier(8)

    def ask(_: int) -> bytes:
        own = place.open()
        start.wait(30)
        key = own.fingerprint_key()
        own.close()
        return key

    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(ask, range(8)))
    assert len(keys) == 1
    assert len(keys.pop()) == 32


def test_a_flipped_bit_in_the_fingerprint_key_is_not_used(place: Place, vault: Vault) -> None:
    vault.fingerprint_key()
    good = place.bytes_of("keys/fingerprint")
    for where in range(0, len(good) - 1, 7):
        bad = good[:where] + bytes([good[where] ^ 1]) + good[where + 1 :]
        place.put("keys/fingerprint", bad)
        with pytest.raises(DamagedStoreError) as caught:
            vault.fingerprint_key()
        assert good.split()[1].decode() not in str(caught.value)
    place.put("keys/fingerprint", good)
    assert len(vault.fingerprint_key()) == 32


# ---- many writers ----


@pytest.mark.parametrize("known", [True, False], ids=["digest-known", "digest-unknown"])
def test_racing_writers_of_the_same_bytes_all_succeed(
    place: Place, vault: Vault, known: bool
) -> None:
    data = noise(300_000)
    start = threading.Barrier(64)

    def keep(_: int) -> Payload:
        start.wait(60)
        return vault.keep(chunked(data, 65536), sha256=sha(data) if known else None)

    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(keep, range(64))) == {Payload("content", sha(data), len(data))}
    assert place.paths() == [payload_path(sha(data))]
    assert list(vault.check()) == []


def test_racing_writers_of_the_same_large_payload_all_succeed(place: Place) -> None:
    data = noise(2 * BLOCK + 1)
    start = threading.Barrier(4)

    def keep(_: int) -> Payload:
        own = place.open()
        start.wait(60)
        kept = own.keep(chunked(data, BLOCK), sha256=sha(data))
        own.close()
        return kept

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(keep, range(4))) == {Payload("content", sha(data), len(data))}
    assert place.paths() == [payload_path(sha(data))]
    assert sha(place.bytes_of(payload_path(sha(data)))) == sha(data)


@pytest.mark.parametrize("known", [True, False], ids=["digest-known", "digest-unknown"])
@pytest.mark.parametrize("size", [7, BLOCK + 7], ids=str)
def test_what_is_there_is_never_written_again(
    place: Place, vault: Vault, size: int, known: bool
) -> None:
    data = noise(size)
    path = payload_path(sha(data))
    other = place.open()
    etags: list[str] = []

    def overtaken() -> Iterator[bytes]:
        yield data[:-1]
        other.keep([data])  # somebody else is done first
        etags.append(other._stat(path).etag)  # type: ignore[attr-defined]
        yield data[-1:]

    vault.keep(overtaken(), sha256=sha(data) if known else None)
    etags.append(other._stat(path).etag)  # type: ignore[attr-defined]
    assert etags[0] == etags[1]
    other.close()


KEEPER = """
import os, sys
from snapshots.vault import Access, open_vault
from snapshots.vault.base import BLOCK
key, seed = os.environ["VAULT_KEY"], int(sys.argv[1])
vault = open_vault(os.environ["VAULT_URL"], access=Access(account_key=key) if key else None)
sys.stdout.write("go\\n"); sys.stdout.flush()
vault.keep_document(f"evidence/{seed}.json", b"before")
vault.keep(seed.to_bytes(8, "big") * (BLOCK // 8) for _ in range(3))
import random
from hashlib import sha256
data = random.Random(seed).randbytes(2 * BLOCK + 5)
vault.keep([data], sha256=sha256(data).hexdigest())
vault.keep_document(f"evidence/{seed}-done.json", b"after")
sys.stdout.write("done\\n"); sys.stdout.flush()
"""


@pytest.mark.timeout(1800)
def test_a_writer_killed_at_any_instant_leaves_nothing_half(
    place: Place, clock: Hands, scaled: Callable[[int, int], int]
) -> None:
    rounds = scaled(3, 100)
    chance = random.Random(20261122)
    killed, whole = 0, 0.0
    for seed in range(-1, rounds):
        child = subprocess.Popen(
            [sys.executable, "-c", KEEPER, str(seed + 1)],
            cwd=ROOT,
            env={**os.environ, **place.environment(), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        assert child.stdout is not None
        assert child.stdout.readline() == b"go\n"
        began = time.monotonic()
        if seed < 0:  # the first one shows how long it takes
            assert child.stdout.readline() == b"done\n"
            whole = time.monotonic() - began
        else:
            try:
                child.wait(chance.uniform(0, whole))
            except subprocess.TimeoutExpired:
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
        child.wait(30)
        child.stdout.close()
        # Whatever can be seen is whole.
        vault = place.open(clock)
        assert list(vault.check()) == []
        vault.close()
    assert killed >= rounds // 3  # the machine is shared: some were quicker than the first
    # A later run does what the killed ones did not, and clears away after them.
    clock.pass_by(days=2)
    place.age(days=2)
    vault = place.open(clock)
    data = random.Random(rounds).randbytes(2 * BLOCK + 5)
    assert vault.keep([data], sha256=sha(data)).size == len(data)
    vault.keep_document(f"evidence/{rounds}.json", b"before")
    assert [path for path in place.paths() if path.startswith("incoming/")] == []
    assert list(vault.check()) == []
    vault.close()


# ---- prune ----


def test_a_prune_removes_in_two_sweeps_and_never_what_a_manifest_names(
    place: Place, vault: Vault, clock: Hands
) -> None:
    used, kept, loose = vault.keep([b"used"]), vault.keep([b"kept"]), vault.keep([b"loose"])
    old = vault.keep([b"old"])
    vault.keep_manifest(named("s1", used))
    vault.keep_manifest(named("s0", used, old))
    asked = {kept.sha256}
    before = place.paths()

    # Nothing is old enough, and dry changes nothing.
    assert vault.prune(asked, apply=True).condemned == ()
    clock.pass_by(days=8)
    dry = vault.prune(asked, drop_manifests=["s0"])
    assert (dry.applied, dry.condemned) == (False, tuple(sorted([loose.sha256, old.sha256])))
    assert place.paths() == before

    first = vault.prune(asked, drop_manifests=["s0", "unknown"], apply=True)
    assert (first.applied, first.removed, first.manifests) == (True, (), ("s0",))
    assert first.condemned == dry.condemned
    assert vault.manifests() == ("s1",)
    # Condemned is not known: who needs it keeps it again, from the source.
    assert vault.known() == {used.sha256, kept.sha256}
    assert not vault.has(loose.sha256)
    assert vault.prune(asked, apply=True).removed == ()  # not yet

    clock.pass_by(days=8)
    second = vault.prune(asked, apply=True)
    assert second.removed == tuple(sorted([loose.sha256, old.sha256]))
    assert second.removed_bytes == loose.size + old.size
    assert vault.known() == {used.sha256, kept.sha256}
    assert list(vault.check()) == []
    assert vault.prune(asked, apply=True).removed == ()


def test_a_condemned_payload_that_is_kept_again_is_reprieved(vault: Vault, clock: Hands) -> None:
    again, named_again, gone = (vault.keep([b]) for b in (b"again", b"named", b"gone"))
    clock.pass_by(days=8)
    assert len(vault.prune(apply=True).condemned) == 3
    vault.keep([b"again"], sha256=again.sha256)
    vault.keep_manifest(named("s1", named_again))
    clock.pass_by(days=8)
    assert vault.prune(apply=True).removed == (gone.sha256,)
    assert list(vault.check()) == []
    assert b"".join(vault.read(again.sha256)) == b"again"
    # A payload that was removed can be kept like a new one.
    assert vault.keep([b"gone"]) == gone
    assert b"".join(vault.read(gone.sha256)) == b"gone"


def test_a_payload_kept_again_between_listing_and_deletion_survives(
    place: Place, vault: Vault, clock: Hands
) -> None:
    payload = vault.keep([b"late"])
    clock.pass_by(days=8)
    vault.prune(apply=True)
    clock.pass_by(days=8)
    due = vault.prune()
    assert due.removed == (payload.sha256,)
    other = place.open(clock)
    # The deletion is bound to the etag that the listing showed.
    entry = next(iter(vault._list("payloads/")))  # type: ignore[attr-defined]
    other.keep([b"late"])
    assert vault._delete(entry.path, entry.etag) is False  # type: ignore[attr-defined]
    assert b"".join(other.read(payload.sha256)) == b"late"
    assert [path for path in place.paths() if path.startswith("incoming/")] == []
    other.close()


def test_a_prune_that_cannot_read_a_manifest_removes_nothing(
    place: Place, vault: Vault, clock: Hands
) -> None:
    vault.keep([b"a"])
    vault.keep_manifest(named("s1"))
    clock.pass_by(days=8)
    vault.prune(apply=True)
    clock.pass_by(days=8)
    place.put("manifests/s1.json", b"{}")
    before = place.paths()
    with pytest.raises(DamagedStoreError):
        vault.prune(apply=True)
    assert place.paths() == before
    place.remove("manifests/s1.json")
    assert len(vault.prune(apply=True).removed) == 1


def test_a_prune_keeps_the_newest_bundles(vault: Vault, tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "b").write_bytes(b"%d" % number)
        vault.keep_bundle(tmp_path / "b", f"2026112{number}T000000Z-c.bundle")
    swept = vault.prune(keep_bundles=2, apply=True)
    assert swept.bundles == ("20261120T000000Z-c.bundle", "20261121T000000Z-c.bundle")
    assert vault.bundles() == ("20261122T000000Z-c.bundle", "20261123T000000Z-c.bundle")
    assert list(vault.check()) == []
    with pytest.raises(InputError):
        vault.prune(keep_bundles=0)
    with pytest.raises(InputError):
        vault.prune(grace=timedelta(days=-1))


@given(data=st.data())
def test_no_order_of_keeping_and_pruning_loses_a_named_payload(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    clock = Hands()
    vault = open_vault(str(tmp_path_factory.mktemp("vault")), clock=clock)
    alive: dict[str, set[str]] = {}
    for number in range(data.draw(st.integers(1, 12), label="steps")):
        step = data.draw(st.sampled_from(["snapshot", "prune", "drop", "wait"]))
        match step:
            case "snapshot":
                known = vault.known()
                wanted = data.draw(st.sets(st.integers(0, 5), max_size=4))
                payloads = [
                    Payload("content", d, 1)
                    if (d := sha(b"%d" % w)) in known
                    else vault.keep([b"%d" % w])
                    for w in wanted
                ]
                vault.keep_manifest(named(f"s{number}", *payloads))
                alive[f"s{number}"] = {p.sha256 for p in payloads}
            case "drop" if alive:
                gone = data.draw(st.sampled_from(sorted(alive)))
                vault.prune(drop_manifests=[gone], apply=True)
                del alive[gone]
            case "wait":
                clock.pass_by(days=data.draw(st.integers(1, 9)))
            case _:
                vault.prune(apply=True)
        assert list(vault.check()) == []
        assert vault.manifests() == tuple(sorted(alive))


@pytest.mark.azurite
def test_what_the_store_refuses_to_delete_is_reported_as_protected(
    new_container: Callable[[], BlobContainer],
) -> None:
    container, clock = new_container(), Hands()
    key = container.account.key
    vault = open_vault(container.url(), access=Access(account_key=key), clock=clock)
    vault.prepare()
    held, free = vault.keep([b"held"]), vault.keep([b"free"])
    clock.pass_by(days=8)
    vault.prune(apply=True)
    clock.pass_by(days=8)
    string = container.account.connection_string
    with ContainerClient.from_connection_string(string, container.name) as client:
        blob = client.get_blob_client(payload_path(held.sha256))
        lease = blob.acquire_lease()  # Azurite has no legal hold; a lease is refused likewise
        swept = vault.prune(apply=True)
        assert swept.removed == (free.sha256,)
        assert swept.protected == (payload_path(held.sha256),)
        lease.release()
    assert vault.prune(apply=True).removed == (held.sha256,)
    vault.close()
