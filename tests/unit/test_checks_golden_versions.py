"""Golden sets are versioned by being used: the ledger has what was asked, the vault its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from drills.checks.golden_sets import SHIPPED, load
from drills.model import CheckContext
from snapshots.clock import SystemClock
from snapshots.cloud import Cloud
from snapshots.errors import NotFoundError
from snapshots.ledger import Ledger
from snapshots.model import digest
from snapshots.vault import open_vault

NAME = "claims-triage"
FILE = SHIPPED / "demo" / f"{NAME}.jsonl"


@pytest.fixture
def context(tmp_path: Path) -> Iterator[CheckContext]:
    clock = SystemClock()
    ledger = Ledger.open(tmp_path / "ledger.git", clock=clock, create=True)
    vault = open_vault(str(tmp_path / "vault"), clock=clock)
    yield CheckContext(
        cloud=cast("Cloud", None),
        clock=clock,
        live=lambda: pytest.fail("nobody looks at the target"),
        ledger=ledger,
        vault=vault,
        folder=tmp_path,
    )
    ledger.close()
    vault.close()


def versions(context: CheckContext) -> list[str]:
    """The digests of the set's versions, newest first."""
    ledger = context.ledger
    assert ledger is not None
    return [entry.trailers["Golden-Digest"] for entry in ledger.log(ref="evidence")]


def test_a_set_that_is_used_is_kept_once_and_found_again_by_name_and_digest(
    context: CheckContext,
) -> None:
    first = load(f"demo/{NAME}", context)
    again = load(f"demo/{NAME}", context)
    known = digest(FILE.read_bytes())
    assert first.digest == again.digest == known
    assert versions(context) == [known]
    assert load(f"ledger:{NAME}", context) == first
    assert load(f"ledger:{NAME}", context).digest == known
    assert load(f"sha256:{known}", context) == first
    assert versions(context) == [known]


def test_a_changed_set_is_a_new_version_and_the_old_one_stays_readable(
    context: CheckContext,
) -> None:
    old = load(f"demo/{NAME}", context)
    lines = FILE.read_bytes().splitlines(keepends=True)
    (context.folder / "own.jsonl").write_bytes(b"".join(lines[:-1]))
    new = load("own.jsonl", context)
    assert versions(context) == [new.digest, old.digest]
    assert len(load(f"ledger:{NAME}", context).cases) == len(old.cases) - 1
    assert load(f"sha256:{old.digest}", context) == old


def test_without_a_ledger_nothing_is_kept_and_an_unknown_name_is_told(
    context: CheckContext,
) -> None:
    nowhere = replace(context, ledger=None, vault=None)
    assert load(f"demo/{NAME}", nowhere).cases
    for place in (context, nowhere):
        with pytest.raises(NotFoundError):
            load(f"ledger:{NAME}", place)


def test_a_name_that_is_no_file_name_stays_within_the_folder(context: CheckContext) -> None:
    head, *rest = FILE.read_bytes().splitlines(keepends=True)
    hostile = head.replace(b'"claims-triage"', b'"../../refs/heads/live"', 1)
    (context.folder / "own.jsonl").write_bytes(b"".join([hostile, *rest]))
    load("own.jsonl", context)
    ledger = context.ledger
    assert ledger is not None
    assert [path for path, _ in ledger.files("evidence")] == ["golden/-..-refs-heads-live.jsonl"]
