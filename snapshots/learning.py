"""Learn from earlier records how long each kind of step takes."""

from __future__ import annotations

from collections import Counter
from statistics import median

from snapshots.errors import MusterError
from snapshots.plan import Estimate, Estimates, variety
from snapshots.records import Records
from snapshots.steps import Action, StepState

_LATEST = 5  # records that are looked at


def learn(records: Records) -> Estimates:
    """Give the median of what steps took in the latest records, by kind and action.

    Where nothing was recorded the usual values stay. A record that cannot be read is passed over.
    """
    seconds: dict[tuple[str, Action], list[float]] = {}
    calls: dict[str, list[float]] = {}
    for id_ in records.all()[-_LATEST:]:
        try:
            record = records.read(id_)
        except MusterError:
            continue
        steps = {step.id: step for step in record.plan.steps}
        done: Counter[str] = Counter()
        for outcome in record.outcomes:
            step = steps.get(outcome.step)
            if step is None or step.work is not None:
                continue  # copying a model says nothing of writing a deployment
            if outcome.state is StepState.DONE:
                resource = step.after or step.before
                what = variety(resource) if resource is not None else step.key.kind
                seconds.setdefault((what, step.action), []).append(outcome.seconds)
                done[step.key.kind] += 1
        if not record.replans:  # else its requests hold those of a second look
            for kind, made in record.calls.items():
                if done[kind]:
                    calls.setdefault(kind, []).append(made / done[kind])
    usual = Estimates()
    return Estimates(
        {
            (kind, action): Estimate(
                round(median(found), 3),
                median(calls[base]) if base in calls else usual.of(kind, action).calls,
            )
            for (kind, action), found in seconds.items()
            if (base := kind.partition(" (")[0])
        }
    )
