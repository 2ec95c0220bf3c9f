"""Say whether a recovery would work today, for the pairs that one configuration names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import orjson

from muster.invocation import Exit
from muster.settings import PairSettings
from muster.verbs import Tell, untold
from muster.wiring import Wiring, mapping_of
from snapshots.errors import InputError

if TYPE_CHECKING:
    from snapshots.cloud import Cloud
    from snapshots.cloud.place import Answer, Permission, Place
    from snapshots.model import Json, JsonObject
    from snapshots.ready import Readiness


def assess(wiring: Wiring, chosen: Sequence[str], *, tell: Tell = untold) -> Readiness:
    """Judge the pairs that were asked for, all when none was. Raises InputError."""
    from snapshots.ready import Objectives, Pair, ready

    settings = wiring.settings
    pairs = chosen_pairs(settings.estate.pairs, chosen)
    found = ready(
        [Pair(pair.primary, pair.standby, mapping_of(pair)) for pair in pairs],
        subscriptions_of(pairs, [scope.subscription for scope in settings.estate.scopes]),
        _reaching(wiring, pairs),
        wiring.ledger(),
        wiring.vault(),
        clock=wiring.clock,
        objectives=Objectives(
            settings.objectives.rto, settings.objectives.rpo, settings.objectives.horizon
        ),
        whole_estate=not chosen,
        progress=lambda words: tell(words, None),
    )
    _note(wiring, found, [f"{pair.primary}:{pair.standby}" for pair in pairs], chosen, tell)
    return found


@dataclass(frozen=True, slots=True)
class _Tenants:
    """The ways out to several tenants, told apart by the subscription that is asked about."""

    home: Cloud
    others: Mapping[str, Cloud]  # subscription -> the way out to its tenant

    def _of(self, subscription: str) -> Cloud:
        return self.others.get(subscription.lower(), self.home)

    def list(
        self, place: Place, path: str, *, params: Mapping[str, str] | None = None, kind: str
    ) -> Iterator[JsonObject]:
        """Give the items of all pages."""
        return self._of(place.subscription).list(place, path, params=params, kind=kind)

    def post(
        self,
        place: Place,
        path: str,
        body: Json = None,
        *,
        params: Mapping[str, str] | None = None,
        kind: str,
        reads: bool = False,
    ) -> Answer:
        """Ask a question that takes a body."""
        cloud = self._of(place.subscription)
        return cloud.post(place, path, body, params=params, kind=kind, reads=reads)

    def permissions(self, scope: str) -> tuple[Permission, ...]:
        """What the signed-in identity may do at a scope."""
        return self._of((scope.split("/") + [""] * 3)[2]).permissions(scope)


def _reaching(wiring: Wiring, pairs: Sequence[PairSettings]) -> _Tenants:
    """Give the way out to the estate, and to the standbys that are in other tenants."""
    others = {
        to.subscription.lower(): wiring.cloud_of(pair.tenant)
        for pair in pairs
        if pair.tenant
        for to in pair.accounts.values()
        if to.subscription
    }
    return _Tenants(wiring.cloud(), others)


def _note(
    wiring: Wiring, found: Readiness, pairs: Sequence[str], chosen: Sequence[str], tell: Tell
) -> None:
    """Write the answer down, for `muster report`. One that cannot be kept is told, and no error."""
    from snapshots.errors import MusterError
    from snapshots.ledger import EVIDENCE
    from snapshots.model import pretty

    names = [f"pair-{pair.replace(':', '-')}" for pair in pairs] if chosen else ["latest"]
    files: dict[str, bytes | None] = {
        f"readiness/{name}.json": pretty({**document(found), "kind": "ready", "pairs": [*pairs]})
        for name in names
    }
    try:
        wiring.ledger().put(EVIDENCE, files, f"Readiness: {found.state.value}")
    except MusterError as error:
        tell(f"the answer is not on the evidence branch: {error.what}", None)


def last_verdict(wiring: Wiring, chosen: Sequence[str]) -> str:
    """Give the verdict of the last answer about the whole estate; "" when there is none.

    For chosen pairs there is none to compare with: each has an answer of its own.
    """
    from snapshots.errors import MusterError
    from snapshots.ledger import EVIDENCE

    if chosen:
        return ""
    try:
        ledger = wiring.ledger()
        tip = ledger.tip(EVIDENCE)
        for path, data in ledger.files(tip, "readiness/latest.json") if tip else ():
            found = orjson.loads(data) if path == "readiness/latest.json" else None
            if isinstance(found, dict):
                return str(found.get("verdict", ""))
    except (MusterError, ValueError):
        return ""
    return ""


def exit_code(found: Readiness, *, strict: bool = False) -> int:
    """Give the exit code: 2 when an objective is not met, or not known to be."""
    from snapshots.ready import State

    bad = {State.NOT_MET, State.NOT_KNOWN} | ({State.AT_RISK} if strict else set())
    return Exit.FINDINGS if found.state in bad else Exit.CLEAN


def chosen_pairs(pairs: Sequence[PairSettings], chosen: Sequence[str]) -> list[PairSettings]:
    """Give the pairs that were asked for, all when none was. Raises InputError."""
    known = ", ".join(f"{p.primary}:{p.standby}" for p in pairs) or "none"
    if not pairs:
        raise InputError(
            "no standby region is named",
            where="estate.pair",
            remedy="add [[estate.pair]] with primary and standby to muster.toml",
        )
    found: list[PairSettings] = []
    for words in chosen:
        primary, _, standby = words.lower().replace("->", ":").replace(" ", "").partition(":")
        fits = [p for p in pairs if p.primary == primary and standby in ("", p.standby)]
        if not fits:
            raise InputError(
                f"there is no pair {words!r}", where="--pair", remedy=f"known pairs: {known}"
            )
        found += [pair for pair in fits if pair not in found]
    return found or list(pairs)


def subscriptions_of(pairs: Sequence[PairSettings], scopes: Sequence[str]) -> list[str]:
    """Give the subscriptions of the estate: those looked at and those of the standbys."""
    named = {to.subscription for pair in pairs for to in pair.accounts.values() if to.subscription}
    return sorted({s.lower() for s in (*scopes, *named)})


def document(found: Readiness) -> JsonObject:
    """Give a readiness as JSON."""
    from muster.report import documents
    from muster.report.terminal import iso

    checks: list[Json] = [
        {
            "name": c.name,
            "subject": c.subject,
            "objective": c.promise.value,
            "state": c.state.value,
            "detail": c.detail,
            "date": iso(c.date) if c.date else None,
            "remedy": c.remedy,
            "pair": c.pair or None,
        }
        for c in found.checks
    ]
    return {
        "schema": documents.schema("ready"),
        "verdict": found.state.value,
        "at": iso(found.at),
        "snapshot": found.snapshot,
        "objectives": [
            {
                "name": o.name.value,
                "promised_seconds": o.promised.total_seconds() if o.promised else None,
                "state": o.state.value,
                "date": iso(o.date) if o.date else None,
                "detail": o.detail,
            }
            for o in found.objectives
        ],
        "counts": {state.value: number for state, number in found.counts.items()},
        "checks": checks,
    }
