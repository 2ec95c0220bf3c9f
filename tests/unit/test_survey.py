"""The suggestion of region pairs: from names that differ by place only."""

from __future__ import annotations

from snapshots.survey import SeenAccount, suggest_pairs


def account(name: str, region: str, group: str = "rg", kind: str = "OpenAI") -> SeenAccount:
    return SeenAccount("s", group, name, region, kind)


def test_names_that_differ_by_place_are_a_pair_towards_the_standby() -> None:
    prod = account("aoai-claims-swc", "swedencentral", "rg-ai-prod")
    other = account("aoai-care-swc", "swedencentral", "rg-ai-prod")
    standby = account("aoai-claims-eus2", "eastus2", "rg-ai-dr")
    (pair,) = suggest_pairs([standby, other, prod])
    assert (pair.primary, pair.standby) == ("swedencentral", "eastus2")
    assert pair.accounts == ((prod, standby),)


def test_the_larger_region_is_the_primary_when_no_word_tells() -> None:
    (pair,) = suggest_pairs(
        [
            account("x-weu", "westeurope"),
            account("y-weu", "westeurope"),
            account("x-neu", "northeurope"),
        ]
    )
    assert (pair.primary, pair.standby) == ("westeurope", "northeurope")


def test_different_things_and_one_region_are_no_pair() -> None:
    assert (
        suggest_pairs([account("chat-swc", "swedencentral"), account("care-eus2", "eastus2")]) == ()
    )
    assert suggest_pairs([account("chat-1", "eastus2"), account("chat-2", "eastus2")]) == ()
    assert (
        suggest_pairs(
            [account("chat-swc", "swedencentral"), account("chat-eus2", "eastus2", kind="Face")]
        )
        == ()
    )


def test_a_region_is_used_once() -> None:
    pairs = suggest_pairs(
        [
            account("chat-swc", "swedencentral"),
            account("care-swc", "swedencentral"),
            account("chat-eus2", "eastus2", "rg-dr"),
            account("care-eus2", "eastus2", "rg-dr"),
            account("chat-weu", "westeurope", "rg-dr"),
        ]
    )
    assert [(p.primary, p.standby, len(p.accounts)) for p in pairs] == [
        ("swedencentral", "eastus2", 2)
    ]
