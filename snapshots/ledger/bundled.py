"""What the newest bundle holds, remembered beside the ledger: the next holds what is new."""

from __future__ import annotations

import glob
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import orjson

_FILE: Final = "muster.bundled"


@dataclass(frozen=True, slots=True)
class Bundled:
    """The bundles that were kept, from a whole one on, and where the branches stood at the last.

    It is a help and never the truth: without it the next bundle is a whole one.
    """

    chain: tuple[str, ...]  # names in the vault, the whole one first
    tips: Mapping[str, str]  # ref -> commit

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """Give what is remembered; None when it is nothing that can be used."""
        try:
            found = orjson.loads((folder / _FILE).read_bytes())
        except (OSError, orjson.JSONDecodeError):
            return None
        match found:
            case {"chain": [str(whole), *more], "tips": dict(tips)} if tips:
                names = (whole, *(str(name) for name in more))
                return cls(names, {str(ref): str(commit) for ref, commit in tips.items()})
            case _:
                return None

    def write(self, folder: Path) -> None:
        """Remember. A failure is no failure: the next bundle is a whole one then."""
        draft = folder / f"{_FILE}.new"
        with suppress(OSError):
            draft.write_bytes(orjson.dumps({"chain": list(self.chain), "tips": dict(self.tips)}))
            draft.replace(folder / _FILE)


def forget(folder: Path) -> None:
    """Make the next bundle a whole one."""
    (folder / _FILE).unlink(missing_ok=True)


def increments(bundle: Path) -> list[Path]:
    """Give `<bundle>.1`, `<bundle>.2`, … in order, as `Vault.fetch_bundle` writes them."""
    beside = bundle.parent.glob(f"{glob.escape(bundle.name)}.[0-9]*")
    return sorted(
        (path for path in beside if path.suffix[1:].isdigit()),
        key=lambda path: int(path.suffix[1:]),
    )
