"""Identity and permissions: who has to work in the target may, and managed identities are there."""

from __future__ import annotations

from collections.abc import Sequence

from drills.checks.asked import AskedCheck, Judged, not_run, verdict
from drills.checks.golden import together
from drills.checks.settings import Settings
from drills.checks.targets import find, text_at
from drills.model import CheckContext
from snapshots.cloud import Permission
from snapshots.model import Json, JsonObject, Resource

_ACTIONS = ("Microsoft.CognitiveServices/accounts/deployments/read",)
_DATA_ACTIONS = ("Microsoft.CognitiveServices/accounts/OpenAI/deployments/chat/completions/action",)


def judged_rights(
    account: Resource,
    given: Sequence[Permission],
    actions: Sequence[str],
    data_actions: Sequence[str],
    *,
    wanted_identity: str,
    identity: str,
) -> Judged:
    """Judge what may be done, and whether the managed identity is of the wanted type."""
    denied: list[Json] = [a for a in actions if not any(p.allows(a) for p in given)]
    denied += [a for a in data_actions if not any(p.allows_data(a) for p in given)]
    same = wanted_identity.replace(" ", "").lower() == identity.replace(" ", "").lower()
    observed: JsonObject = {"denied": denied, "identity": identity}
    expected: JsonObject = {
        "account": str(account.key),
        "allowed": [*actions, *data_actions],
        "identity": wanted_identity,
    }
    words = [f"not allowed: {', '.join(str(a) for a in denied)}"] if denied else []
    if not same:
        words.append(f"its identity is {identity or 'None'}, not {wanted_identity or 'None'}")
    return verdict(
        not denied and same, expected, observed, f"{account.key.name}: {'; '.join(words)}"
    )


def identity_of(account: Resource) -> str:
    """Give the type of an account's managed identity, "" for none or one without principal."""
    kind = text_at(account.body, "identity", "type")
    system = "systemassigned" in kind.lower()
    if kind == "None" or (system and not text_at(account.body, "identity", "principalId")):
        return ""
    return kind


class PermissionsCheck(AskedCheck):
    """Who runs the drill may do what it needs, and each account has the identity it should.

    By the permissions API. Its control judges the same account with no permission at all.
    """

    KNOWN_AS = "permissions"
    ABOUT = "Permissions and managed identities are as they must be."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        actions, data = settings.texts("actions"), settings.texts("data_actions")
        self.actions = actions if actions or data else _ACTIONS
        self.data_actions = data if actions or data else _DATA_ACTIONS

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Ask at every account."""
        found = find(context, self.declaration.subject, frozenset({"account"}))
        judged: list[Judged] = []
        if found.missing and not broken:
            judged.append(verdict(False, "accounts", None, found.complaint()))
        if found.hidden:
            judged.append(not_run(f"{found.hidden[0].key}: {found.hidden[0].detail}"))
        should = context.expected.resources if context.expected is not None else {}
        for account in found.there:
            model = should.get(account.key, account)
            wanted = text_at(model.body, "identity", "type")
            given = () if broken else context.cloud.permissions(account.id)
            judged.append(
                judged_rights(
                    account,
                    given,
                    self.actions,
                    self.data_actions,
                    wanted_identity="" if wanted == "None" else wanted,
                    identity=identity_of(account),
                )
            )
        return together(judged)
