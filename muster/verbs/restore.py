"""From options of a restore to what the engine takes: the request, its gates, its words."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from muster.invocation import Exit
from muster.settings import PairSettings
from muster.wiring import Wiring, mapping_of
from snapshots.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from snapshots.apply import Happened
    from snapshots.cloud import Cloud
    from snapshots.gates import GateResult
    from snapshots.model import Snapshot
    from snapshots.plan import Estimates
    from snapshots.restore import Request
    from snapshots.steps import Mapping as Places
    from snapshots.steps import Plan, Record


def request_for(
    wiring: Wiring,
    snapshot: str,
    to: str,
    pair: str | None,
    only: tuple[str, ...],
    prune: bool,
    on_conflict: str = "baseline",
    retrain: bool = False,
) -> Request:
    """Turn options into a request. Raises InputError, NotFoundError.

    `on_conflict` (baseline, live or target) says whose value a property gets that was changed
    since the snapshot, in the newest snapshot (live) and otherwise in the target. `retrain` trains
    fine-tuned models again whose weights are nowhere.
    """
    from snapshots.steps import Keep
    from snapshots.steps import Mapping as Places

    ledger = wiring.ledger()
    loaded = ledger.load(ledger.resolve(snapshot))
    mapping, words = Places(), "same"
    regions: tuple[str, ...] = ()
    if to == "standby":
        chosen = _pair(wiring, pair)
        mapping, regions = mapping_of(chosen), (chosen.primary,)
        words = f"standby {chosen.standby}"
    elif to != "same":
        mapping, words = elsewhere(loaded, to), to
    asked = request_with(wiring, loaded, mapping, words, only, prune, regions)
    if to == "standby":
        asked = replace(asked, foreign=cloud_for(wiring, mapping) is not wiring.cloud())
    newest = ledger.resolve("latest")
    live = ledger.load(newest) if newest != loaded.id else None
    return replace(asked, live=live, keep=Keep(on_conflict), retrain=retrain)


def request_with(
    wiring: Wiring,
    snapshot: Snapshot,
    mapping: Places,
    words: str,
    only: tuple[str, ...],
    prune: bool,
    regions: tuple[str, ...],
) -> Request:
    """Give a request with what the settings say about restores."""
    from snapshots.restore import Request

    chosen = wiring.settings.restore
    return Request(
        snapshot=snapshot,
        target=words,
        mapping=mapping,
        only=only,
        prune=prune,
        regions=regions,
        secrets=chosen.secrets,
        threads=chosen.threads,
        estimates=learned(wiring),
    )


def cloud_for(wiring: Wiring, mapping: Places) -> Cloud:
    """Give the way out to where a mapping leads: a pair's standby may be in another tenant."""
    regions = dict(mapping.regions)
    for pair in wiring.settings.estate.pairs:
        if regions and regions.get(pair.primary) == pair.standby:
            return wiring.cloud_of(pair.tenant)
    return wiring.cloud()


def learned(wiring: Wiring) -> Estimates:
    """Give how long steps took in earlier records."""
    from snapshots.learning import learn

    return learn(wiring.records())


def _pair(wiring: Wiring, wanted: str | None) -> PairSettings:
    pairs = wiring.settings.estate.pairs
    fitting = [p for p in pairs if wanted is None or wanted in {p.primary, p.standby}]
    if len(fitting) == 1:
        return fitting[0]
    known = ", ".join(f"{p.primary} -> {p.standby}" for p in pairs)
    if not pairs:
        raise InputError(
            "no pair is configured: there is no standby",
            where="[[estate.pair]]",
            remedy='add [[estate.pair]] with primary = "…" and standby = "…"',
        )
    what = "more than one pair fits" if fitting else f"no pair has the region {wanted}"
    raise InputError(what, where="--pair", remedy=f"name a primary region of: {known}")


def elsewhere(snapshot: Snapshot, to: str) -> Places:
    """Give the mapping into a subscription, or a group of it. Raises InputError."""
    import re

    from snapshots.steps import Mapping as Places

    found = re.fullmatch(
        r"/?(?:subscriptions/)?(?P<subscription>[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
        r"(?:/(?:resourcegroups/)?(?P<group>[-\w.()]{0,89}[-\w()]))?/?",
        to,
        re.IGNORECASE,
    )
    if found is None:
        raise InputError(
            f"{to!r} is no target",
            where="--to",
            remedy="write same, standby, a subscription id, or SUBSCRIPTION/GROUP",
        )
    subscription, group = found["subscription"].lower(), found["group"] or ""
    subscriptions = {key.path[0] for key in snapshot.resources}
    # By what is in them, too: a group that could not be read itself is in a gap.
    groups = {
        key.path[1]
        for key in snapshot.resources
        if key.kind == "resource-group" or (len(key.path) > 2 and "/" not in key.path[1])
    }
    return Places(
        subscriptions=dict.fromkeys(sorted(subscriptions), subscription),
        resource_groups=dict.fromkeys(sorted(groups), group) if group else {},
    )


def declare_down(wiring: Wiring, regions: tuple[str, ...]) -> None:
    """Have nothing sent to these regions.

    Raises InputError for a region that the estate does not have: a mistyped one would leave the
    dead region open, and nobody would know.
    """
    if not regions:
        return
    from snapshots.cloud.regions import region_name

    known = {name for p in wiring.settings.estate.pairs for name in (p.primary, p.standby)}
    wanted = tuple(map(region_name, regions))
    if not known.issuperset(wanted):
        known |= _regions_kept(wiring)
    for region in wanted:
        if region not in known:
            near = difflib.get_close_matches(region, known, 1)
            raise InputError(
                f"the estate has nothing in a region {region!r}",
                where="--declare-down",
                remedy=f"did you mean {near[0]}?" if near else f"write one of {_listed(known)}",
            )
        wiring.declare_down(region, "by --declare-down")


def _regions_kept(wiring: Wiring) -> set[str]:
    """Say in which regions the newest snapshot has something."""
    from snapshots.cloud.regions import region_name

    kept = wiring.ledger().load("latest").resources.values()
    places = [r.body.get("location") for r in kept if r.key.kind == "account"]
    return {region_name(place) for place in places if isinstance(place, str)}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "those of your [[estate.pair]]"


def save_plan(plan: Plan, path: str | None) -> None:
    """Write a plan to a file, whole."""
    if path is None:
        return
    from pathlib import Path

    from snapshots.model import pretty

    Path(path).write_bytes(pretty(plan.document()))


def refused(gates: tuple[GateResult, ...]) -> bool:
    """Whether a gate did not open."""
    return any(not gate.passed for gate in gates)


def planned_code(plan: Plan, gates: tuple[GateResult, ...], *, apply: bool) -> int:
    """Give the exit code of a plan that was only shown, or that could not be begun."""
    closed = refused(gates)
    if closed and apply:
        return Exit.ERROR
    if plan.unknown:
        return Exit.FINDINGS if apply else Exit.INCOMPLETE
    return Exit.FINDINGS if closed else Exit.CLEAN


def whereabouts(record: Record) -> str:
    """Say how far a record is, and what goes on with it or takes it back."""
    from snapshots.steps import StepState

    states = [record.state(step.id) for step in record.plan.steps]
    done = sum(state in {StepState.DONE, StepState.ADOPTED} for state in states)
    open_ = sum(state is StepState.BEGUN for state in states)
    words = f"{done} of {len(states)} steps are done"
    words += f", {open_} begun" if open_ else ""
    if done == len(states):
        return f"{words}; record {record.id}: `muster undo {record.id}` takes it back"
    return (
        f"{words}; record {record.id}: `muster resume {record.id}` goes on, "
        f"`muster undo {record.id}` takes back what was done"
    )


def step_words(happened: Happened) -> str:
    """Say what happened to a step."""
    step = happened.step
    detail = f" ({happened.detail})" if happened.detail else ""
    words = f"{happened.done} of {happened.total}: {happened.state.value} {step.action.value} "
    return f"{words}{step.key}{detail}"


def teller(tell: Callable[[str], None]) -> Callable[[Happened], None]:
    """Turn what happens to steps into words."""
    return lambda happened: tell(step_words(happened))


def request_of(wiring: Wiring, record: Record) -> Request:
    """Give the request that a record was made for."""
    from snapshots.model import Snapshot
    from snapshots.steps import Mapping as Places

    plan = record.plan
    ledger = wiring.ledger()
    # A plan that was not made from a kept snapshot, or from a part of one: what its steps want is
    # all there is, and that is in the target's names already.
    found = {step.key: step.after for step in plan.steps if step.after is not None}
    wanted = Snapshot(plan.estate, plan.made_at, plan.version, found, id=plan.snapshot)
    foreign = cloud_for(wiring, plan.mapping) is not wiring.cloud()
    if plan.replica:
        return request_with(wiring, wanted, Places(), plan.target, (), plan.prune, ())
    try:
        loaded = ledger.load(ledger.resolve(plan.snapshot))
    except NotFoundError:
        return request_with(wiring, wanted, plan.mapping, plan.target, (), plan.prune, ())
    regions = tuple(plan.mapping.regions)
    asked = request_with(wiring, loaded, plan.mapping, plan.target, plan.only, plan.prune, regions)
    return replace(asked, foreign=foreign)
