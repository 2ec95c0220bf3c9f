"""Make the site from what is recorded: no call to Azure, so that it works in a disaster."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from muster import __version__
from muster.invocation import Exit
from muster.verbs import Tell, untold
from muster.wiring import Wiring
from snapshots.errors import InputError, MusterError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from muster.report.site_model import Site
    from snapshots.ledger import Ledger
    from snapshots.model import JsonObject
    from snapshots.vault import Vault

DEFAULT = "report"  # folder beside the configuration


@dataclass(frozen=True, slots=True)
class Reported:
    """A site that was made."""

    site: Site
    folder: Path
    files: Mapping[str, int]  # path -> bytes
    kept: str  # folder of the vault, "" when it was not asked for

    @property
    def index(self) -> Path:
        """The page to open."""
        return self.folder / "index.html"

    @property
    def complete(self) -> bool:
        """Whether everything that is recorded could be read."""
        return not self.site.troubles


def make_report(
    wiring: Wiring,
    *,
    output: Path | None = None,
    to_vault: bool = False,
    use_vault: bool = True,
    fresh: bool = False,
    tell: Tell = untold,
) -> Reported:
    """Write the site to `output`, by default a folder beside the configuration.

    With `to_vault` it is kept in the vault, too; with `fresh` readiness is asked for beforehand,
    which is the only thing that calls Azure. What cannot be read is told on the site.

    Raises InputError for a folder that is not ours, StoreError when the vault refuses the copy.
    """
    from muster.report import site as writing

    troubles = _asked(wiring, tell) if fresh else []
    found = site_of(wiring, use_vault=use_vault or to_vault, tell=tell, troubles=troubles)
    tell("the pages", None)
    files = writing.pages(found)
    folder = (output or wiring.settings.file.parent / DEFAULT).absolute()
    writing.write(files, folder)
    kept = ""
    if to_vault:
        tell("the copy in the vault", None)
        kept = writing.keep(files, wiring.vault(), found.now)
    return Reported(found, folder, {path: len(data) for path, data in files.items()}, kept)


def _asked(wiring: Wiring, tell: Tell) -> list[str]:
    """Ask whether a recovery would work, which writes the answer down; give what went wrong."""
    from muster.verbs.ready import assess

    try:
        assess(wiring, (), tell=tell)
    except MusterError as error:
        return [f"readiness could not be asked for: {error.what}"]
    return []


def site_of(
    wiring: Wiring,
    *,
    use_vault: bool = True,
    tell: Tell = untold,
    troubles: Sequence[str] = (),
) -> Site:
    """Gather what is recorded; `troubles` are told beside those of reading it."""
    from drills.evidence import GitSigner
    from muster.report.site_evidence import applied_in
    from muster.report.site_gather import gather
    from muster.report.site_reading import Promises

    settings = wiring.settings
    troubles = [*troubles]
    tell("the ledger", None)
    ledger = _ledger(wiring, troubles)
    vault = _vault(wiring, troubles) if use_vault else None
    path = settings.ledger.path
    records, damaged = applied_in(path.with_name(f"{path.name}-records"), wiring.clock)
    troubles += damaged
    return gather(
        ledger,
        vault,
        name=settings.estate.name,
        now=wiring.clock.now(),
        version=__version__,
        promises=Promises(
            settings.objectives.rto,
            settings.objectives.rpo,
            tuple((pair.primary, pair.standby) for pair in settings.estate.pairs),
            threads_read=settings.snapshot.threads_data,
        ),
        ledger_path=str(path),
        vault_location=vault.location
        if vault is not None
        else settings.vault.url.partition("?")[0],
        scripts=_scripts(wiring, troubles),
        records=records,
        troubles=troubles,
        signer=GitSigner(path) if ledger is not None else None,
    )


def _ledger(wiring: Wiring, troubles: list[str]) -> Ledger | None:
    try:
        return wiring.ledger()
    except NotFoundError:
        return None  # nothing was ever kept: the site says so
    except MusterError as error:
        troubles.append(f"the ledger: {error.what} ({error.where or wiring.settings.ledger.path})")
        return None


def _vault(wiring: Wiring, troubles: list[str]) -> Vault | None:
    try:
        vault = wiring.vault()
        facts = vault.facts()
    except MusterError as error:
        troubles.append(f"the vault: {error.what}")
        return None
    if not facts.reachable:
        troubles.append(f"the vault: {facts.problem or 'it cannot be reached'} ({facts.location})")
        return None
    return vault


def _scripts(wiring: Wiring, troubles: list[str]) -> dict[str, str]:
    """Give the drills there are, by name; a script that is broken keeps its name as its title."""
    import yaml

    from drills.script import available
    from muster.drilling import own_scripts

    found: dict[str, str] = {}
    try:
        known = available(own_scripts(wiring))
    except MusterError as error:
        troubles.append(f"the scripts of drills: {error.what}")
        return found
    for name, file in known.items():
        try:
            document = yaml.safe_load(file.read_text("utf-8"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError):
            document = None
        title = document.get("title") if isinstance(document, dict) else None
        found[name] = title if isinstance(title, str) else name
    return found


def exit_code(found: Reported) -> int:
    """Give the exit code: 3 when something recorded could not be read."""
    return Exit.CLEAN if found.complete else Exit.INCOMPLETE


def document(found: Reported) -> JsonObject:
    """Give a report as JSON: where it is, how the estate stands, what needs a person."""
    from muster.report import documents
    from muster.report.site import hero
    from muster.report.terminal import iso

    site = found.site
    parts = {
        "estate": site.estate.part,
        "readiness": site.readiness.part,
        "drift": site.drift.part,
        "replication": site.replication.part,
        "drills": site.drills.part,
        "unrecoverable": site.unrecoverable.part,
        "evidence": site.evidence.part,
    }
    return {
        "schema": documents.schema("report"),
        "estate": site.estate_name,
        "at": iso(site.now),
        "verdict": site.level.value,
        "answer": hero(site),
        "folder": str(found.folder),
        "index": str(found.index),
        "pages": len(found.files),
        "bytes": sum(found.files.values()),
        "vault": found.kept or None,
        "complete": found.complete,
        "parts": {
            name: {
                "state": part.level.value,
                "told": part.headline,
                "missing": list(part.missing),
                "sources": [
                    {"name": s.name, "ref": s.ref, "at": iso(s.at) if s.at else None}
                    for s in part.sources
                ],
            }
            for name, part in parts.items()
        },
        "problems": [
            {"state": p.level.value, "text": p.text, "page": p.page, "remedy": p.remedy}
            for p in site.problems
        ],
        "troubles": list(site.troubles),
    }


def sign_off(
    wiring: Wiring,
    what: str,
    *,
    owner: str,
    reason: str,
    ticket: str = "",
    expires: datetime | None = None,
) -> tuple[str, str]:
    """Keep an owner's sign-off on the baseline branch; give the commit and the file.

    Raises InputError for words that mean nothing, without an owner or a reason, or when nothing is
    approved yet.
    """
    from muster.report import site_signoffs as signoffs
    from snapshots.kinds import BY_NAME

    now = wiring.clock.now()
    if not owner.strip() or not reason.strip():
        raise InputError(
            "a sign-off needs an owner and a reason", remedy="add --owner NAME and --reason TEXT"
        )
    if expires is not None and expires <= now:
        raise InputError(
            f"it would have expired already, at {expires:%Y-%m-%d %H:%M}Z",
            where="--expires",
            remedy="name a later moment",
        )
    chosen = signoffs.checked(what, BY_NAME)
    signed = signoffs.SignOff(
        chosen, " ".join(owner.split()), now, " ".join(reason.split()), "", expires, ticket.strip()
    )
    return signoffs.write(wiring.ledger(), signed), signoffs.file_of(chosen)
