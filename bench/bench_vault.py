"""Measure what the vault takes beside the plain SDK, against the same Azurite on disk, in one run.

    python bench/bench_vault.py [--mib 1024] [--rounds 3]

Each measurement is a process of its own, so that its peak memory is its own; the rounds take turns,
so that a busy machine is busy for all of them. The plain SDK is measured as it comes and with an
MD5 for each block, which is what the vault sends: Azurite computes a checksum of a block that comes
without one, byte by byte in JavaScript, and that is most of its time. The limit is of the SDK as it
comes; the other column is without that advantage. Exit code 2 when a limit is missed.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MIB = 1024 * 1024
CHUNK = 256 * 1024  # what a download hands over
BLOCK = 8 * MIB
LEAST = 0.9  # times plain
MOST_MIB = 200
PLAIN = "plain SDK"
CHECKED = "plain SDK with MD5"
WAYS = (PLAIN, CHECKED, "vault, digest known", "vault, digest unknown", "vault, file")


@dataclass(frozen=True, slots=True)
class Measured:
    """One way to upload, once."""

    way: str
    seconds: float
    cpu_seconds: float  # of the client
    peak_mib: float  # resident memory of the client


class Source:
    """A stream of a given length that costs next to nothing to make, and differs for every seed."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self._part = hashlib.shake_128(seed.to_bytes(8, "big")).digest(CHUNK)

    def chunks(self) -> Iterator[bytes]:
        """Give the bytes; every chunk begins with its number, so that no two blocks are alike."""
        for number in range(self.size // CHUNK):
            yield number.to_bytes(8, "big") + self._part[8:]

    def digest(self) -> str:
        """The SHA-256 of all of it."""
        hasher = hashlib.sha256()
        for chunk in self.chunks():
            hasher.update(chunk)
        return hasher.hexdigest()


class Reader:
    """The same stream with read(), which is what the plain SDK takes."""

    def __init__(self, source: Source) -> None:
        self._chunks = source.chunks()
        self._held = bytearray()

    def read(self, size: int) -> bytes:
        """Give the next `size` bytes, fewer at the end."""
        while len(self._held) < size:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            self._held += chunk
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken


def measure(way: str, mib: int, seed: int, endpoint: str, key: str) -> Measured:
    """Upload once, in this process."""
    source = Source(mib * MIB, seed)
    if way in {PLAIN, CHECKED}:
        seconds = _plain(source, seed, endpoint, key, checked=way == CHECKED)
    else:
        seconds = _vault(way, source, endpoint, key)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return Measured(way, seconds, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _plain(source: Source, seed: int, endpoint: str, key: str, *, checked: bool) -> float:
    from azure.core.credentials import AzureNamedKeyCredential
    from azure.storage.blob import BlobClient

    with BlobClient(
        endpoint,
        "vault",
        f"plain-{seed}",
        credential=AzureNamedKeyCredential("bench", key),
        max_block_size=BLOCK,
        max_single_put_size=BLOCK,
    ) as client:
        reader: Any = Reader(source)  # read() is all that the SDK wants of it
        began = time.perf_counter()
        client.upload_blob(reader, overwrite=False, max_concurrency=4, validate_content=checked)
        return time.perf_counter() - began


def _vault(way: str, source: Source, endpoint: str, key: str) -> float:
    from snapshots.vault import Access, open_vault

    known = source.digest() if way == "vault, digest known" else None
    vault = open_vault(f"azblob://bench/vault?endpoint={endpoint}", access=Access(account_key=key))
    try:
        if way == "vault, file":
            with tempfile.NamedTemporaryFile() as file:
                for chunk in source.chunks():
                    file.write(chunk)
                file.flush()
                began = time.perf_counter()
                vault.keep_file(Path(file.name))
                return time.perf_counter() - began
        began = time.perf_counter()
        vault.keep(source.chunks(), sha256=known)
        return time.perf_counter() - began
    finally:
        vault.close()


def _apart(way: str, mib: int, seed: int, endpoint: str, key: str) -> Measured:
    """Upload once, in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--one", way, "--mib", str(mib), "--seed", str(seed)],
        env={**os.environ, "BENCH_ENDPOINT": endpoint, "BENCH_KEY": key},
        stdout=subprocess.PIPE,
        check=True,
        timeout=1200,
    )
    return Measured(**json.loads(done.stdout))


def run(mib: int, rounds: int) -> list[Measured]:
    """Measure all ways, in turns, against one Azurite on disk."""
    from azure.storage.blob import BlobServiceClient

    from drills.sandbox.blob.azurite import Azurite

    key = base64.b64encode(b"a key for this machine's bench only").decode()
    folder = Path(tempfile.mkdtemp(prefix="bench-vault-"))
    found: list[Measured] = []
    try:
        with Azurite.start(folder, {"bench": key}) as azurite:
            account = azurite.accounts["bench"]
            with BlobServiceClient.from_connection_string(account.connection_string) as service:
                container = service.create_container("vault")
                for number in range(rounds + 1):
                    # Another way goes first in each round: Azurite slows down as it fills.
                    turn = number % len(WAYS)
                    for place, way in enumerate((*WAYS[turn:], *WAYS[:turn])):
                        # The first round warms Azurite up, with little.
                        size = mib if number else min(mib, 64)
                        seed = number * 100 + place
                        one = _apart(way, size, seed, account.endpoint, key)
                        if number:
                            found.append(one)
                            print(
                                f"  {way:24}{one.seconds:8.2f} s {mib / one.seconds:8.1f} MiB/s"
                                f"{one.cpu_seconds:8.2f} s CPU{one.peak_mib:8.0f} MiB peak",
                                flush=True,
                            )
                        for blob in container.list_blobs():
                            container.delete_blob(blob.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found


def main() -> int:
    """Measure, print a table, write bench/out/vault.json; 2 when a limit is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--mib", type=int, default=1024, help="size of the payload")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        endpoint, key = os.environ["BENCH_ENDPOINT"], os.environ["BENCH_KEY"]
        print(json.dumps(asdict(measure(asked.one, asked.mib, asked.seed, endpoint, key))))
        return 0
    print(f"{asked.mib} MiB to Azurite on disk, {asked.rounds} rounds, 8 MiB blocks, 4 in flight")
    found = run(asked.mib, asked.rounds)
    middle = {
        way: statistics.median(one.seconds for one in found if one.way == way) for way in WAYS
    }
    peak = {way: max(one.peak_mib for one in found if one.way == way) for way in WAYS}
    ratio = {way: middle[PLAIN] / middle[way] for way in WAYS}
    checked = {way: middle[CHECKED] / middle[way] for way in WAYS}
    titles = ("seconds", "MiB/s", "x plain", "x MD5", "peak MiB")
    print(f"\n{'way (median)':24}" + "".join(f"{title:>10}" for title in titles))
    for way in WAYS:
        print(
            f"{way:24}{middle[way]:10.2f}{asked.mib / middle[way]:10.1f}"
            f"{ratio[way]:10.2f}{checked[way]:10.2f}{peak[way]:10.0f}"
        )
    good = all(ratio[way] >= LEAST and peak[way] < MOST_MIB for way in WAYS[2:])
    said = "kept" if good else "MISSED"
    print(f"limits: at least {LEAST} x plain, hashing included; under {MOST_MIB} MiB: {said}")
    out = ROOT / "bench" / "out"
    out.mkdir(parents=True, exist_ok=True)
    (out / "vault.json").write_text(
        json.dumps(
            {
                "mib": asked.mib,
                "rounds": asked.rounds,
                "median_seconds": middle,
                "times_plain": ratio,
                "times_plain_with_md5": checked,
                "peak_mib": peak,
                "limits_kept": good,
                "measured": [asdict(one) for one in found],
            },
            indent=2,
        )
        + "\n",
        "utf-8",
    )
    return 0 if good else 2


if __name__ == "__main__":
    sys.exit(main())
