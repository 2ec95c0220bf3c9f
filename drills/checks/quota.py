"""Quota left: the target region has room for what is still to come."""

from __future__ import annotations

from collections.abc import Mapping

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.golden import together
from drills.checks.settings import Settings
from drills.checks.targets import find, text_at, within
from drills.model import CheckContext
from snapshots.cloud import Place, Plane
from snapshots.kinds.accounts import API
from snapshots.mapping import region_of
from snapshots.model import Json, JsonObject

_PROVIDER = "providers/Microsoft.CognitiveServices"


def judged_quota(
    where: str,
    used: Mapping[str, tuple[float, float]],
    needs: Mapping[str, float],
    percent: float,
) -> Judged:
    """Judge usages (name -> used, limit) against needs (name -> units), names without case.

    `percent` of each limit that is needed, or of all of them where nothing is, must be left.
    """
    known = {name.lower(): value for name, value in used.items()}
    short: list[Json] = []
    for name, units in sorted(needs.items()):
        if name.lower() not in known:
            short.append({"usage": name, "left": None, "needed": units})
            continue
        current, limit = known[name.lower()]
        if limit - current < max(units, limit * percent / 100):
            short.append({"usage": name, "left": limit - current, "needed": units})
    if not needs:
        short += [
            {"usage": name, "left": limit - current, "needed": limit * percent / 100}
            for name, (current, limit) in sorted(used.items())
            if limit > 0 and limit - current < limit * percent / 100
        ]
    names = ", ".join(text_at(item, "usage") for item in short)
    expected: JsonObject = {"region": where, "needed": dict(needs), "percent_left": percent}
    return verdict(not short, expected, {"short": short}, f"{where} is short of {names}")


class QuotaCheck(AskedCheck):
    """The region of each account has quota left.

    The units in `least` (by usage name), what deployments of the snapshot that are not there yet
    still need, and `percent_left` of each limit. Its control needs one unit more than each limit.
    """

    KNOWN_AS = "quota"
    ABOUT = "The target region has quota left for what is still to come."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.least = settings.numbers("least")
        self.percent = settings.number("percent_left", 0.0, least=0.0, most=100.0)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Ask every region."""
        found = find(context, self.declaration.subject, frozenset({"account"}))
        should = context.expected.resources if context.expected is not None else {}
        places = {(account.key.path[0], region_of(account)) for account in found.there}
        places |= {(key.path[0], region_of(should[key])) for key in found.missing if key in should}
        judged: list[Judged] = []
        if found.hidden and not places:
            return not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}")
        for subscription, region in sorted(places):
            place = Place(Plane.ARM, subscription=subscription, region=region)
            path = f"/subscriptions/{subscription}/{_PROVIDER}/locations/{region}"
            used: dict[str, tuple[float, float]] = {}
            for row in context.cloud.list(place, f"{path}/usages", params=API, kind="check:quota"):
                name = text_at(row, "name", "value")
                current, limit = row.get("currentValue"), row.get("limit")
                if name and isinstance(current, int | float) and isinstance(limit, int | float):
                    used[name] = (float(current), float(limit))
            needs = {**self.needs(context, place, path, region, subscription)}
            for name, units in self.least.items():
                needs[name] = needs.get(name, 0.0) + units
            if broken:
                needs = {name: limit + 1 for name, (_, limit) in used.items()}
            judged.append(judged_quota(f"{subscription}/{region}", used, needs, self.percent))
        return together(judged)

    @staticmethod
    def needs(
        context: CheckContext, place: Place, path: str, region: str, subscription: str
    ) -> dict[str, float]:
        """Give the units that the snapshot's deployments still need there, by usage name.

        The usage names are the catalogue's own (`skus[].usageName`); one call, only when needed.
        """
        if context.expected is None:
            return {}
        live, should = context.live(), context.expected.resources
        accounts = {
            key.path
            for key, account in should.items()
            if key.kind == "account"
            and key.path[0] == subscription
            and region_of(account) == region
        }
        missing: list[tuple[str, str, str, float]] = []
        for key, deployment in should.items():
            if key.kind != "deployment" or key.path[:3] not in accounts or key in live.resources:
                continue
            model = within(deployment.body, "properties", "model")
            units = within(deployment.body, "sku", "capacity")
            missing.append(
                (
                    text_at(model, "name"),
                    text_at(model, "version"),
                    text_at(deployment.body, "sku", "name"),
                    float(units) if isinstance(units, int | float) else 1.0,
                )
            )
        if not missing:
            return {}
        names: dict[tuple[str, str, str], str] = {}
        for row in context.cloud.list(place, f"{path}/models", params=API, kind="check:quota"):
            model = within(row, "model")
            skus = within(model, "skus")
            for sku in skus if isinstance(skus, list) else []:
                at = (text_at(model, "name"), text_at(model, "version"), text_at(sku, "name"))
                names[at] = text_at(sku, "usageName")
        needed: dict[str, float] = {}
        for name, version, sku, units in missing:
            usage = names.get((name, version, sku), "")
            if usage:
                needed[usage] = needed.get(usage, 0.0) + units
        return needed
