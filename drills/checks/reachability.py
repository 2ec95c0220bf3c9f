"""Reachability: the endpoints of accounts answer the principal that asks."""

from __future__ import annotations

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.golden import together
from drills.checks.settings import Settings
from drills.checks.targets import endpoint, find, within
from drills.model import CheckContext
from snapshots.cloud import Place
from snapshots.errors import CloudError, RegionDownError, UnreachableError
from snapshots.model import JsonObject, Key

_MODELS = "/openai/v1/models"
_NOBODY = f"{_MODELS}/muster-negative-control"  # answers, but with no listing of models


def judged_answer(who: Key, place: Place, status: int | None, *, listed: bool, why: str) -> Judged:
    """Judge one answer: a success with the listing that was asked for."""
    observed: JsonObject = {"endpoint": place.base, "status": status, "listed": listed}
    ok = status is not None and 200 <= status < 300 and listed
    return verdict(
        ok,
        {"account": str(who), "status": 200, "listed": True},
        observed,
        f"{who.name} does not answer at {place.base}: {why or 'no listing of models'}",
    )


class ReachabilityCheck(AskedCheck):
    """Each account's endpoint lists its models. Silence is an answer here: failed.

    Its control asks the same endpoint for something nobody has.
    """

    KNOWN_AS = "reachability"
    ABOUT = "The endpoints of accounts answer."

    def read(self, settings: Settings) -> None:
        """Read no settings."""

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Ask every endpoint."""
        found = find(context, self.declaration.subject, frozenset({"account"}))
        judged: list[Judged] = []
        if found.missing and not broken:
            judged.append(verdict(False, "accounts that answer", None, found.complaint()))
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        for account in found.there:
            if account.body.get("kind") not in {"OpenAI", "AIServices"}:
                continue
            place = endpoint(context, account)
            status: int | None = None
            listed, why = False, ""
            try:
                path = _NOBODY if broken else _MODELS
                answer = context.cloud.get(place, path, kind="check:reachability")
                status = answer.status
                listed = isinstance(within(answer.body, "data"), list)
            except RegionDownError:
                raise  # nothing was sent: nobody knows
            except UnreachableError as error:
                if broken:
                    raise
                why = error.what
            except CloudError as error:
                if error.status is None:
                    raise
                status, why = error.status, error.what
            judged.append(judged_answer(account.key, place, status, listed=listed, why=why))
        return together(judged) if judged else not_run("no account that serves models was named")
