"""What will hurt although nobody changed it: models near retirement, idle fine-tuned ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from snapshots.audit.report_model import Direction, Risk, RuleHit
from snapshots.audit.rules import Pack, StateRule
from snapshots.kinds.fields import location
from snapshots.kinds.openai import is_fine_tuned
from snapshots.ledger import Ledger
from snapshots.model import Json, Key, Resource, Snapshot


def risks_of(
    live: Snapshot, packs: Sequence[Pack], ledger: Ledger, now: datetime
) -> tuple[Risk, ...]:
    """Give what the packs' state rules say of live state, soonest first.

    Retirement dates are those of the catalogue that the newest snapshot recorded; without it there
    are none.
    """
    rules = [rule for pack in packs for rule in pack.states]
    if not rules:
        return ()
    found: list[Risk] = []
    dates = _retirements(live)
    for key, resource in live.resources.items():
        if key.kind != "deployment":
            continue
        model = _model(resource)
        region = _region(live, key)
        for rule in rules:
            match rule.check:
                case "retirement":
                    risk = _retires(key, model, dates.get(region, {}), rule, now)
                case _:
                    risk = _idle(key, model, ledger, live.id, rule, now)
            if risk is not None:
                found.append(risk)
    return tuple(
        sorted(found, key=lambda r: (r.due or datetime.max.replace(tzinfo=UTC), str(r.key)))
    )


def _retires(
    key: Key,
    model: Mapping[str, Json],
    dates: Mapping[tuple[str, str, str], datetime],
    rule: StateRule,
    now: datetime,
) -> Risk | None:
    named = tuple(str(model.get(part) or "").lower() for part in ("format", "name", "version"))
    due = dates.get((named[0], named[1], named[2]))
    if due is None or due - now > timedelta(days=rule.days):
        return None
    days = (due - now).days
    words = f"retires on {due:%Y-%m-%d}, in {days} days" if days >= 0 else f"retired {due:%Y-%m-%d}"
    return Risk(key, _hit(rule), due, f"{model.get('name')} {model.get('version')} {words}")


def _idle(
    key: Key, model: Mapping[str, Json], ledger: Ledger, live: str, rule: StateRule, now: datetime
) -> Risk | None:
    if not is_fine_tuned(str(model.get("name") or "")):
        return None
    since = next((entry.taken_at for entry, _ in ledger.history(key, ref=live)), None)
    if since is None or now - since < timedelta(days=rule.days):
        return None
    return Risk(
        key,
        _hit(rule),
        since + timedelta(days=15),
        f"it is unchanged since {since:%Y-%m-%d}; whether it was called since is not recorded "
        "in its configuration: make sure that it is",
    )


def _hit(rule: StateRule) -> RuleHit:
    return RuleHit(rule.id, rule.title, rule.severity, Direction.NEUTRAL, rule.why)


def _model(resource: Resource) -> Mapping[str, Json]:
    properties = resource.body.get("properties")
    model = properties.get("model") if isinstance(properties, dict) else None
    return model if isinstance(model, dict) else {}


def _region(live: Snapshot, key: Key) -> str:
    account = live.resources.get(Key("account", key.path[:3]))
    where = account.body.get("location") if account is not None else None
    return location(where) if isinstance(where, str) else ""


def _retirements(live: Snapshot) -> dict[str, dict[tuple[str, str, str], datetime]]:
    """Give region -> model -> the day from which it answers no more."""
    found: dict[str, dict[tuple[str, str, str], datetime]] = {}
    for path, document in live.reference.items():
        parts = path.removesuffix(".json").split("/")
        if parts[0] != "models" or not isinstance(document, dict):
            continue
        region = found.setdefault(parts[-1], {})
        for named, due in _dates(document.get("items")):
            region[named] = min(due, region.get(named, due))
    return found


def _dates(items: Json) -> Iterator[tuple[tuple[str, str, str], datetime]]:
    for item in items if isinstance(items, list) else ():
        model = item.get("model") if isinstance(item, dict) else None
        ends = model.get("deprecation") if isinstance(model, dict) else None
        if not isinstance(model, dict) or not isinstance(ends, dict):
            continue
        try:
            due = datetime.fromisoformat(str(ends.get("inference")))
        except ValueError:
            continue
        due = due.replace(tzinfo=UTC) if due.tzinfo is None else due.astimezone(UTC)
        named = tuple(str(model.get(p) or "").lower() for p in ("format", "name", "version"))
        yield (named[0], named[1], named[2]), due
