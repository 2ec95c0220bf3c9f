"""Record golden data sets: from which deployments, at what cost, and where they are kept."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from snapshots.errors import InputError, MusterError, NotFoundError, RefusedError
from snapshots.model import digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from drills.checks.recording import Cost, Draft, Recorded
    from drills.model import CheckContext
    from muster.wiring import Wiring
    from snapshots.model import JsonObject, Resource, Snapshot

FOLDER = "golden"  # beside the configuration
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One set that shall be recorded."""

    draft: Draft
    source: Resource
    file: Path
    replaces: tuple[str, ...]  # where another set of that name is: in words


@dataclass(frozen=True, slots=True)
class Chosen:
    """How sets are recorded, as the line says."""

    deployments: tuple[str, ...]
    name: str = ""
    folder: Path | None = None
    embeddings: str = ""
    judge: str = ""
    base: str = ""
    times: int = 3


def context_of(wiring: Wiring) -> CheckContext:
    """Give what a recording looks at: the newest snapshot says what there is."""
    from drills.model import CheckContext

    ledger = wiring.ledger()
    snapshot = ledger.load()
    return CheckContext(
        cloud=wiring.cloud(),
        clock=wiring.clock,
        live=lambda: snapshot,
        ledger=ledger,
        vault=wiring.vault(),
        folder=wiring.settings.file.parent,
    )


def wanted(reference: str, chosen: Chosen, context: CheckContext) -> tuple[Wanted, ...]:
    """Say which sets shall be recorded; nothing is asked yet. Raises InputError, NotFoundError.

    `reference` is a file of questions or a set: `ledger:NAME`, `sha256:…`, a shipped one.
    """
    from drills.checks.golden_sets import kept_as
    from drills.checks.recording import meant_for

    draft = _draft(reference, context)
    names = chosen.deployments or (draft.golden.deployment,)
    if names == ("",):
        raise InputError(
            "nobody says which deployment shall be asked",
            where=reference,
            remedy="name it on the line: a key, the end of one, or a glob of keys",
        )
    sources = _deployments(names, context.live())
    title = chosen.name or draft.golden.name
    if not _NAME.fullmatch(title):
        raise InputError(
            f"a set cannot be called {title[:100]!r}",
            where=reference,
            remedy="--name: letters, digits, dots, dashes; it is the name of a file",
        )
    found: list[Wanted] = []
    for source, name in zip(sources, _named(title, sources), strict=True):
        meant = meant_for(
            draft, source, name=name, embeddings=chosen.embeddings, judge=chosen.judge
        )
        file = (chosen.folder or context.folder / FOLDER) / f"{name}.jsonl"
        there: list[str] = []
        if file.exists():
            there.append(str(file))
        if (data := kept_as(context, name)) is not None:
            there.append(f"ledger:{name} (sha256:{digest(data)[:12]}…)")
        found.append(Wanted(meant, source, file, tuple(there)))
    return tuple(found)


def _draft(reference: str, context: CheckContext) -> Draft:
    from drills.checks.golden_sets import LARGEST, load
    from drills.checks.recording import Draft, drafted

    file = Path(reference)
    if not file.is_file():
        file = context.folder / reference
    if not file.is_file():
        try:
            return Draft(load(reference, context))
        except NotFoundError as error:
            raise NotFoundError(
                f"there are no questions {reference}",
                where=error.where or str(context.folder),
                remedy="give a file with a question a line, or a golden set",
            ) from None
    try:
        if file.stat().st_size > LARGEST:
            raise InputError(
                f"the file is larger than {LARGEST} bytes",
                where=str(file),
                remedy="split it into several sets",
            )
        data = file.read_bytes()
    except OSError as error:
        raise InputError(
            f"the questions cannot be read: {error.strerror}", where=str(file)
        ) from None
    return drafted(data, str(file))


def _deployments(names: Sequence[str], snapshot: Snapshot) -> list[Resource]:
    from snapshots.plan import chosen

    found: dict[str, Resource] = {}
    for name in names:
        pattern = name if name.startswith("deployment/") or "*" in name else f"deployment/{name}"
        fitting = [
            resource
            for key, resource in sorted(snapshot.resources.items())
            if key.kind == "deployment" and chosen((pattern,), key, None)
        ]
        if not fitting:
            raise NotFoundError(
                f"the newest snapshot has no deployment {name!r}",
                where=snapshot.id,
                remedy="see `muster show`; when it is new, take a snapshot first",
            )
        if len(fitting) > 1 and not any(mark in name for mark in "*?["):
            raise InputError(
                f"{name!r} means {len(fitting)} deployments: "
                + ", ".join("/".join(r.key.path[2:]) for r in fitting[:5]),
                remedy="write more of the key (ACCOUNT/DEPLOYMENT), or a glob for all of them",
            )
        found.update({str(resource.key): resource for resource in fitting})
    return list(found.values())


def _named(title: str, sources: Sequence[Resource]) -> list[str]:
    """Name a set for each deployment: by what tells them apart."""
    if len(sources) == 1:
        return [title]
    counts = Counter(source.key.name for source in sources)
    return [
        f"{title}-{source.key.name}"
        if counts[source.key.name] == 1
        else f"{title}-{source.key.path[2]}-{source.key.name}"
        for source in sources
    ]


def refuse_to_replace(sets: Sequence[Wanted]) -> None:
    """Raise RefusedError when a set would take the place of another."""
    taken = [place for each in sets for place in each.replaces]
    if taken:
        raise RefusedError(
            f"there is a set of that name: {', '.join(taken)}",
            remedy="--name gives it another name; --replace takes its place (the ledger's "
            "history and the vault keep the old one)",
        )


def total(sets: Sequence[Wanted], chosen: Chosen) -> Cost:
    """Add up what all of it takes at most."""
    from drills.checks.recording import Cost, cost_of

    found = Cost()
    for each in sets:
        found += cost_of(each.draft, times=chosen.times, base=bool(chosen.base))
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one set: `recorded` is None when it could not be."""

    wanted: Wanted
    recorded: Recorded | None = None
    error: str = ""

    def document(self) -> JsonObject:
        """Give it for machines."""
        golden = self.recorded.golden if self.recorded is not None else self.wanted.draft.golden
        found: JsonObject = {
            "name": golden.name,
            "deployment": str(self.wanted.source.key),
            "file": str(self.wanted.file),
            "cases": len(golden.cases),
            "replaces": list(self.wanted.replaces),
            "error": self.error,
        }
        if self.recorded is None:
            return found
        return {
            **found,
            "model": golden.model,
            "digest": f"sha256:{golden.digest}",
            "kinds": kinds_of(self.recorded),
            "seconds": round(golden.seconds, 4),
            "state": self.recorded.proof.state.value,
            "negative_control": self.recorded.proof.negative_control.value,
        }


def kinds_of(recorded: Recorded) -> JsonObject:
    """Count what is expected, by its kind."""
    counts = Counter(case.expect.kind.value for case in recorded.golden.cases)
    return {name: counts[name] for name in sorted(counts)}


def record_all(
    sets: Sequence[Wanted], chosen: Chosen, context: CheckContext, tell: Callable[[str], None]
) -> tuple[Kept, ...]:
    """Record each set, and keep it once it is proved. One that fails does not stop the others."""
    from drills.checks.golden_sets import keep
    from drills.checks.recording import record_from
    from drills.leavings import write_file

    found: list[Kept] = []
    for each in sets:
        name = each.draft.golden.name
        tell(f"asking {each.source.key.name} for {name}")
        try:
            made = record_from(
                context, each.source, each.draft, base=chosen.base, times=chosen.times
            )
        except MusterError as error:
            where = f" ({error.where})" if error.where else ""
            next_ = f"; {error.remedy}" if error.remedy else ""
            found.append(Kept(each, error=f"{error.what}{where}{next_}"))
            continue
        keep(context, made.golden)
        try:
            write_file(each.file, made.golden.lines())
        except OSError as error:
            raise InputError(
                f"the set cannot be written: {error.strerror}",
                where=str(each.file),
                remedy=f"the ledger has it: use ledger:{name}, or say --to FOLDER --replace",
            ) from None
        found.append(Kept(each, made))
    return tuple(found)
