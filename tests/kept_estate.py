"""A configuration with a real ledger and a real folder vault, filled by hand: it needs no cloud."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from snapshots.ledger import Ledger
from snapshots.model import Gap, JsonObject, Key, Resource, Snapshot
from snapshots.vault import Manifest, open_vault

SUB = "11111111-1111-1111-1111-111111111111"
ACCOUNT = (SUB, "rg-ai", "aoai-prod")
START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


class Ticking:
    """A clock of its own: an hour passes at each snapshot."""

    def __init__(self) -> None:
        self.moment = START

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def deployment(name: str, capacity: int) -> Resource:
    body: JsonObject = {
        "name": name,
        "sku": {"name": "Standard", "capacity": capacity},
        "properties": {"model": {"name": "gpt-4o"}},
    }
    return Resource(Key("deployment", (*ACCOUNT, name)), f"/subscriptions/{SUB}/d/{name}", body)


class Estate:
    """A configuration with a real ledger and a real folder vault, filled by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "muster.toml"
        self.file.write_text(
            '[estate]\nname = "test"\n[[estate.scope]]\n'
            f'subscription = "{SUB}"\n[vault]\nurl = "vault"\n'
        )
        self.clock = Ticking()

    def keep(self, *resources: Resource, gaps: tuple[Gap, ...] = (), content: bytes = b"") -> str:
        """Keep one snapshot as `muster snapshot` does, an hour after the last."""
        self.clock.moment += timedelta(hours=1)
        vault = open_vault(str(self.folder / "vault"), clock=self.clock)
        vault.prepare()
        found = list(resources)
        if content:
            payload = vault.keep([content])
            key = Key("file", (*ACCOUNT, "train.jsonl"))
            found.append(Resource(key, "file-1", {"filename": "train.jsonl"}, (payload,)))
        state = Snapshot(
            "test", self.clock.now(), "0.1.0", {r.key: r for r in found}, gaps, seconds=1.5
        )
        path = self.folder / "ledger.git"
        with Ledger.open(path, clock=self.clock, version="0.1.0", create=True) as ledger:
            kept = ledger.commit(state)
            whole = ledger.load(kept.commit)
            named = Snapshot(
                "test",
                state.taken_at,
                "0.1.0",
                {**whole.stale, **whole.resources},
                id=kept.snapshot,
            )
            vault.keep_manifest(Manifest.of(named))
            bundle = self.folder / f"{kept.snapshot}-{kept.commit[:12]}.bundle"
            ledger.bundle(bundle)
            vault.keep_bundle(bundle, bundle.name)
        vault.close()
        return kept.commit
