"""What `--to SCOPE` may say, and which groups it moves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from muster.verbs.restore import elsewhere
from snapshots.errors import InputError
from snapshots.model import Key, Resource, Snapshot

FROM, TO = "11111111-1111-1111-1111-111111111111", "2222222a-2222-2222-2222-222222222222"
ACCOUNT = Key("account", (FROM, "rg-a", "x"))
# The group itself is in a gap: nobody may read it.
TAKEN = Snapshot(
    "e", datetime(2026, 11, 1, tzinfo=UTC), "v", {ACCOUNT: Resource(ACCOUNT, "/x", {})}
)


@pytest.mark.parametrize(
    ("to", "group"),
    [
        (TO, {}),
        (TO.upper(), {}),
        (f"/subscriptions/{TO}/", {}),
        (f"{TO}/rg-b", {"rg-a": "rg-b"}),
        (f"/subscriptions/{TO}/resourceGroups/rg-b", {"rg-a": "rg-b"}),
        (f"/subscriptions/{TO}/resourcegroups/rg-b", {"rg-a": "rg-b"}),
    ],
)
def test_a_scope_is_read_however_azure_spells_it_and_moves_what_lies_in_a_hidden_group(
    to: str, group: dict[str, str]
) -> None:
    found = elsewhere(TAKEN, to)
    assert found.subscriptions == {FROM: TO}
    assert found.resource_groups == group


@pytest.mark.parametrize("to", ["dr", f"{TO}/rg b", f"{TO}/rg-b.", f"{TO}/a/b", f"{TO}x"])
def test_what_is_no_scope_is_refused_with_what_to_write(to: str) -> None:
    with pytest.raises(InputError, match="is no target"):
        elsewhere(TAKEN, to)
