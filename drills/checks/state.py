"""State: no change is left between the mapped snapshot and what is in the target."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from random import Random

from drills.checks.asked import AskedCheck, Judged, both_fail, not_run, verdict
from drills.checks.settings import Settings
from drills.model import CheckContext, CheckState
from snapshots.cloud.regions import region_name
from snapshots.compare import compare
from snapshots.kinds import BY_NAME
from snapshots.mapping import adopt, logical, region_of, translate
from snapshots.model import Change, ChangeType, Json, JsonObject, Key, Resource, Snapshot
from snapshots.plan import chosen, recoverable
from snapshots.restore import in_regions

_SHOWN = 20  # changes in an outcome


def _identity(kind: str) -> Mapping[str, tuple[str, ...]]:
    found = BY_NAME.get(kind)
    return {f"{items.path}[]": items.by for items in found.fields.items} if found else {}


@dataclass(frozen=True, slots=True)
class Whole:
    """What a part of the expected state has to be seen with."""

    resources: Mapping[Key, Resource] = field(default_factory=dict)  # all, in the target's names
    moved: AbstractSet[Key] = frozenset()  # what the Mapping puts under another key
    models: AbstractSet[tuple[str, str]] = frozenset()  # that live: (account id, model's name)


def whole_of(context: CheckContext, live: Snapshot) -> Whole:
    """Give the whole of the mapped snapshot: of a store, what became of its files is in there.

    Fine-tuned models live in the target, and in accounts of the snapshot whose region is not
    declared down: whoever deploys them there again gets them.
    """
    source = context.source
    if source is None:
        return Whole(models=models_of(live))
    taking_part = in_regions(source, tuple(context.mapping.regions))
    translated = translate(taking_part, context.mapping)
    down = frozenset(region_name(region) for region in context.cloud.regions.down)
    return Whole(
        translated.snapshot.resources,
        frozenset(to for key, to in translated.keys.items() if to != key),
        models_of(live) | models_of(source, down),
    )


def models_of(
    snapshot: Snapshot, down: AbstractSet[str] = frozenset()
) -> frozenset[tuple[str, str]]:
    """Give the fine-tuned models of living accounts: (account id in lower case, name)."""
    accounts = {
        key.path: resource.id.lower()
        for key, resource in snapshot.resources.items()
        if key.kind == "account" and region_name(region_of(resource)) not in down
    }
    return frozenset(
        (accounts[key.path[:3]], key.name)
        for key in snapshot.resources
        if key.kind == "fine-tuned-model" and key.path[:3] in accounts
    )


def left(
    expected: Snapshot, live: Snapshot, whole: Whole | None = None
) -> tuple[list[Change], list[str]]:
    """Give the changes that a restore would still make, and what nothing can bring back.

    Both sides in logical form; the same steps as the plan of a restore: what muster never writes
    and what is lost by Azure's own word is named, and is no change. What is only in the target is
    left alone.
    """
    there = logical(live.resources)
    about = expected.resources
    whole = whole or Whole(models=models_of(live))
    found = recoverable(
        {**whole.resources, **about}, there, models=whole.models, hidden=live.hidden
    )
    can = {key: resource for key, resource in found.wanted.items() if key in about}
    wanted, _ = adopt(can, found.there, whole.moved)
    wanted_there = {key: resource for key, resource in found.there.items() if key in wanted}
    changes = compare(
        replace(expected, resources=wanted, gaps=(), stale={}),
        replace(live, resources=wanted_there, stale={}),
        _identity,
    )
    lost = [f"{n.key}: {n.recovery.value}" for n in found.not_restorable if n.key in about]
    return [change for change in changes if change.type is not ChangeType.ADDED], lost


def difference(
    context: CheckContext, expected: Snapshot, live: Snapshot, allowed: tuple[str, ...] = ()
) -> Judged:
    """Judge whether a change is left; one that is hidden by a gap makes it not run.

    `allowed` names resources that need not come back, by key or glob.
    """
    changes, lost = left(expected, live, whole_of(context, live))
    changes = [change for change in changes if not (allowed and chosen(allowed, change.key))]
    unknown = [change for change in changes if change.type is ChangeType.UNKNOWN]
    real = [change for change in changes if change.type is not ChangeType.UNKNOWN]
    shown: list[Json] = [_told(change) for change in real[:_SHOWN]]
    observed: JsonObject = {
        "changes": len(real),
        "unknown": len(unknown),
        "left": shown,
        "not_restorable": list(lost[:_SHOWN]),
    }
    wanted: JsonObject = {"changes": 0, "resources": len(expected.resources)}
    if real:
        names = ", ".join(f"{change.key} {change.type.value}" for change in real[:3])
        more = f" and {len(real) - 3} more" if len(real) > 3 else ""
        return verdict(False, wanted, observed, f"{len(real)} changes are left: {names}{more}")
    if unknown:
        gap = unknown[0].gap
        why = gap.detail if gap is not None else "a gap hides it"
        judged = not_run(f"{len(unknown)} resources cannot be seen: {unknown[0].key}: {why}")
        return replace(judged, expected=wanted, observed=observed)
    return Judged(CheckState.PASSED, wanted, observed)


def _told(change: Change) -> Json:
    paths: list[Json] = [path.path for path in change.paths[:8]]
    told: JsonObject = {"key": str(change.key), "type": change.type.value}
    return {**told, "paths": paths} if paths else told


def without_one(live: Snapshot, keys: list[Key], dice: Random) -> Snapshot:
    """Give a copy that lacks one of the resources: drawn, but from what has a counterpart."""
    gone = dice.choice(keys)
    return replace(live, resources={k: r for k, r in live.resources.items() if k != gone})


def with_one_changed(live: Snapshot, keys: list[Key], dice: Random) -> Snapshot:
    """Give a copy in which one resource has one property more than it should."""
    key = dice.choice(keys)
    old = live.resources[key]
    changed = Resource(old.key, old.id, {**old.body, "musterNegativeControl": True}, old.payloads)
    return replace(live, resources={**live.resources, key: changed})


class StateCheck(AskedCheck):
    """The target is as the mapped snapshot says: a second restore would do nothing.

    Its controls are a copy of the target that lacks one resource, and one in which a resource was
    changed: both must be found out.
    """

    KNOWN_AS = "state"
    ABOUT = "No change is left between the mapped snapshot and the target."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.kinds = settings.texts("kinds")
        unknown = sorted(set(self.kinds) - set(BY_NAME))
        if unknown:
            raise settings.wrong(
                f"there is no kind {unknown[0]!r}", f"kinds are {', '.join(sorted(BY_NAME))}"
            )
        self.allowed = settings.texts("ignore")

    def _about(self, key: Key) -> bool:
        subject = (self.declaration.subject,) if self.declaration.subject else ()
        return (not self.kinds or key.kind in self.kinds) and chosen(subject, key)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Compare."""
        if context.expected is None:
            return not_run("there is no mapped snapshot to compare with")
        wanted = {k: r for k, r in context.expected.resources.items() if self._about(k)}
        if not wanted:
            return not_run("the snapshot holds nothing that the check is about")
        expected = replace(context.expected, resources=wanted)
        live = context.live()
        if not broken:
            return difference(context, expected, live, self.allowed)
        there = logical(live.resources)
        whole = whole_of(context, live)
        restored = recoverable({**whole.resources, **wanted}, there, models=whole.models).wanted
        keys = sorted(
            key
            for key in restored
            if key in wanted
            and key in live.resources
            and not (self.allowed and chosen(self.allowed, key))
        )
        if not keys:
            return not_run("the target holds nothing of the snapshot that could be broken")
        dice = Random(context.seed)
        # A fair copy lacks what a restore would bring: the absence of a model, or of what was
        # deployed from weights that are gone, is no change but a loss; a shared group is as it is.
        bare = recoverable({**whole.resources, **wanted}, {}, models=whole.models).wanted
        shared = {key for key in whole.moved if key.kind == "resource-group"}
        plain = [key for key in keys if key in bare and key not in shared]
        if not plain:
            return not_run("nothing of it would come back: its absence could not be told")
        return both_fail(
            difference(context, expected, without_one(live, plain, dice), self.allowed),
            difference(context, expected, with_one_changed(live, plain, dice), self.allowed),
        )
