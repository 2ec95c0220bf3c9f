"""What every kind must keep, run over KINDS: a new kind is held to it without a new test.

`MUSTER_WRITE_SAMPLES=1` writes the golden documents anew; the diff is then for a person to read.
"""

from __future__ import annotations

import base64
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

import pytest

from snapshots.cloud.place import Plane
from snapshots.kinds import BY_NAME, KINDS, descendants, order
from snapshots.kinds.base import (
    ARM_NOISE,
    COMMON,
    DATA_NOISE,
    SUBSCRIPTION,
    Comeback,
    Kind,
    Location,
    Parent,
    Way,
)
from snapshots.kinds.fields import Pattern, replaced
from snapshots.kinds.reference import CATALOGUES
from snapshots.model import Json, JsonObject, Recovery, Resource, canonical, pretty
from snapshots.secrets import PREFIX, Fingerprints

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "tests" / "samples"
PRINTS = Fingerprints(b"the key of the samples, not a secret")
EVERY = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def sample(kind: Kind) -> JsonObject:
    path = SAMPLES / f"{kind.name}.json"
    assert path.is_file(), f"{kind.name} needs a scrubbed wire body in tests/samples"
    found = json.loads(path.read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def document(kind: Kind, wire: JsonObject) -> bytes:
    name = kind.named(wire)
    parent = Parent(
        SUBSCRIPTION,
        ("00000000-0000-0000-0000-000000000001",),
        "/subscriptions/00000000-0000-0000-0000-000000000001",
        "x",
        "00000000-0000-0000-0000-000000000001",
        "",
        {},
    )
    key = kind.key(parent, name, wire)
    body = kind.canonical(wire, PRINTS)
    return pretty(Resource(key, str(wire["id"]), body).document())


def canaries(value: Json) -> list[str]:
    """Every secret of a sample: it says CANARY in itself."""
    if isinstance(value, dict):
        return [found for inner in value.values() for found in canaries(inner)]
    if isinstance(value, list):
        return [found for inner in value for found in canaries(inner)]
    return [value] if isinstance(value, str) and "CANARY" in value else []


@EVERY
def test_the_canonical_document_is_the_golden_one(kind: Kind) -> None:
    golden = SAMPLES / f"{kind.name}.canonical.json"
    made = document(kind, sample(kind))
    if os.environ.get("MUSTER_WRITE_SAMPLES"):
        golden.write_bytes(made)
    assert made.decode() == golden.read_text("utf-8")


@EVERY
def test_no_secret_leaves_in_any_encoding(kind: Kind) -> None:
    wire = sample(kind)
    written = document(kind, wire)
    assert b"CANARY" not in written
    for secret in canaries(wire):
        for form in (
            secret,
            quote(secret, safe=""),
            base64.b64encode(secret.encode()).decode(),
            base64.urlsafe_b64encode(secret.encode()).decode(),
            secret.encode().hex(),
        ):
            assert form.encode() not in written
    if canaries(wire):
        assert PREFIX.encode() in written, "a rotation would not show"


@EVERY
def test_a_rotated_secret_is_a_change(kind: Kind) -> None:
    wire = sample(kind)
    for secret in canaries(wire):
        rotated = json.loads(json.dumps(wire).replace(json.dumps(secret)[1:-1], secret + "x"))
        assert document(kind, rotated) != document(kind, wire) or secret == secret + "x"


@EVERY
@pytest.mark.parametrize("seed", range(5))
def test_two_reads_of_the_same_thing_agree(kind: Kind, seed: int) -> None:
    wire = sample(kind)
    assert document(kind, disturbed(kind, wire, random.Random(seed))) == document(kind, wire)


def disturbed(kind: Kind, wire: JsonObject, random_: random.Random) -> JsonObject:
    """The same thing as another answer may show it: order, case, noise and defaults differ."""
    table = COMMON + (ARM_NOISE if kind.plane is Plane.ARM else DATA_NOISE) + kind.fields
    rules: list[tuple[str, Callable[[Json], Json]]] = [
        *((path, lambda _v: random_.choice(["noise", 7, None])) for path in kind.fields.volatile),
        *(
            (path, lambda v: v.upper() if isinstance(v, str) else v)
            for path in table.case_insensitive
        ),
        *((path, _spaced) for path in table.locations),
    ]
    body = wire
    for path, by in rules:
        body = replaced(body, Pattern.parse(path), by)
    for item in table.items:
        body = replaced(body, Pattern.parse(item.path), lambda v: _shuffled(v, random_))
    for default in table.defaults:
        body = _with_default(body, default.path, default.value, random_)
    return _reordered(body, random_)


def _spaced(value: Json) -> Json:
    return f"{value[:3].upper()} {value[3:]}" if isinstance(value, str) else value


def _shuffled(value: Json, random_: random.Random) -> Json:
    if not isinstance(value, list):
        return value
    items = list(value)
    random_.shuffle(items)
    return items


def _with_default(body: JsonObject, path: str, value: Json, random_: random.Random) -> JsonObject:
    """Say a default, say null, or say nothing, where the sample has the default or nothing."""
    holder, _, last = path.rpartition(".")

    def change(inner: Json) -> Json:
        if not isinstance(inner, dict) or inner.get(last, value) != value:
            return inner
        rest = {key: v for key, v in inner.items() if key != last}
        said: list[JsonObject] = [rest, {**rest, last: value}, {**rest, last: None}]
        return random_.choice(said)

    if not holder:
        result = change(body)
        assert isinstance(result, dict)
        return result
    return replaced(body, Pattern.parse(holder), change)


def _reordered(body: JsonObject, random_: random.Random) -> JsonObject:
    def walk(value: Json) -> Json:
        if isinstance(value, dict):
            entries = [(key, walk(inner)) for key, inner in value.items()]
            random_.shuffle(entries)
            return dict(entries)
        return [walk(item) for item in value] if isinstance(value, list) else value

    result = walk(body)
    assert isinstance(result, dict)
    return result


@EVERY
def test_a_change_that_means_something_shows(kind: Kind) -> None:
    """The negative control: every leaf that is written down is a change when it differs."""
    body = kind.canonical(sample(kind), PRINTS)
    for path, value in Pattern.parse("**").find(body):
        if path and not isinstance(value, dict | list):
            changed = _set(body, path, "another value")
            assert canonical(kind.canonical(changed, PRINTS)) != canonical(
                kind.canonical(body, PRINTS)
            ), path


def _set(value: Json, path: tuple[str | int, ...], new: Json) -> JsonObject:
    def walk(inner: Json, rest: tuple[str | int, ...]) -> Json:
        if not rest:
            return new
        first, *others = rest
        if isinstance(inner, dict):
            return {**inner, str(first): walk(inner[str(first)], tuple(others))}
        assert isinstance(inner, list)
        assert isinstance(first, int)
        return [walk(x, tuple(others)) if i == first else x for i, x in enumerate(inner)]

    result = walk(value, path)
    assert isinstance(result, dict)
    return result


@EVERY
def test_every_line_of_the_table_is_met_by_the_sample(kind: Kind) -> None:
    """A field that is named wrongly would be noise for ever, and nobody would know."""
    wire = sample(kind)
    body = kind.canonical(wire, PRINTS)
    fields = kind.fields
    for path in (
        *fields.volatile,
        *fields.read_only,
        *fields.secret,
        *fields.case_insensitive,
        *fields.locations,
        *fields.verbatim,
        *(item.path for item in fields.items),
    ):
        assert list(Pattern.parse(path).find(wire)), f"{path} is not in the sample"
    for reference in kind.references:
        assert list(Pattern.parse(reference.path).find(body)), f"{reference.path} is not there"
        assert reference.kind == "" or reference.kind in BY_NAME


@EVERY
def test_what_is_written_back_holds_nothing_that_azure_alone_sets(kind: Kind) -> None:
    body = kind.canonical(sample(kind), PRINTS)
    shape = kind.write_shape(body)
    for path in (*kind.fields.read_only, *kind.fields.volatile):
        assert not list(Pattern.parse(path).find(shape)), path
    assert "name" not in shape or kind.plane is not Plane.ARM
    assert not {fold.into for fold in kind.folds} & set(shape)
    assert shape, "nothing to write"


@EVERY
def test_reading_what_was_written_back_gives_the_same(kind: Kind) -> None:
    """A server that keeps what it is sent and adds its own noise shows no change."""
    wire = sample(kind)
    body = kind.canonical(wire, PRINTS)
    if kind.way is Way.NEVER or not kind.writable(body):
        return
    kept = {**kind.write_shape(body), "id": wire["id"], "name": body.get("name")}
    if kind.plane is Plane.ARM:
        kept |= {"etag": '"9"', "systemData": {"lastModifiedAt": "now"}}
    again = kind.canonical(kept, PRINTS)
    assert kind.write_shape(again) == kind.write_shape(body)


@EVERY
def test_how_it_comes_back_is_said_with_its_source(kind: Kind) -> None:
    found = [kind.comeback]
    if kind.recovery_of is not None:
        resource = Resource(kind.key(_anywhere(kind), "x", {"id": "x"}), "x", {})
        found.append(kind.recovery(resource))
    for comeback in found:
        assert isinstance(comeback, Comeback)
        assert len(comeback.sentence) > 15
        assert comeback.sentence.endswith((".", '."', '".'))
        assert comeback.source.startswith("https://learn.microsoft.com/")
    never = {Recovery.RECORDED, Recovery.LOST, Recovery.COPIED}
    assert (kind.comeback.recovery in never) == (kind.way is Way.NEVER)


def _anywhere(kind: Kind) -> Parent:
    return Parent(kind.parent, ("s", "g", "a"), "/x", "a", "s", "", {})


@EVERY
def test_a_kind_has_a_place_among_the_others(kind: Kind) -> None:
    assert kind.parent == SUBSCRIPTION or kind.parent in BY_NAME
    for need in kind.needs:
        assert order()[need] < order()[kind.name]
    if kind.parent != SUBSCRIPTION:
        assert order()[kind.parent] < order()[kind.name]
        names = [k.name for k in KINDS]
        assert names.index(kind.parent) < names.index(kind.name)
    assert kind.name in descendants(kind.name)


PAGE_HEAD = """# The kinds

What a snapshot holds, where each kind is read, and how it comes back. This page is checked against
the declarations in `snapshots/kinds/`; write it anew with
`MUSTER_WRITE_SAMPLES=1 pytest tests/contract/test_kinds_contract.py`. How to add a kind:
[adding a kind](adding-a-kind.md). What cannot come back: [recoverability](recoverability.md).

The recovery class is one of `restored` (same identity), `recreated` (new id, carried through the
IdMap), `copied` (server-side, from the source region), `rebuilt` (hours: retraining), `recorded`
(history only) and `lost`. Order is the place in a restore: what a kind needs has a lower number.

"""


def page() -> str:
    ranks = order()
    lines = [
        PAGE_HEAD + "| Kind | What | Where it is read | Order | Comes back | In whose words |",
        "|---|---|---|---|---|---|",
    ]
    for kind in KINDS:
        comeback = kind.comeback
        off = " (only when asked for)" if kind.optional else ""
        lines.append(
            f"| `{kind.name}` | {kind.title}{off} | {read_from(kind)} | {ranks[kind.name]} | "
            f"{comeback.recovery.value} | {comeback.sentence} [source]({comeback.source}) |"
        )
    lines += [
        "",
        "## Reference data",
        "",
        "Beside the state, never drift, one file for each region or subscription.",
        "",
        "| Catalogue | Where it is read | Asked once for each |",
        "|---|---|---|",
        *(f"| `{c.folder}` | `{c.location.path}` | {c.every} |" for c in CATALOGUES),
    ]
    return "\n".join(lines) + "\n"


def test_the_page_of_the_kinds_is_what_the_declarations_say() -> None:
    path = ROOT / "docs" / "kinds.md"
    if os.environ.get("MUSTER_WRITE_SAMPLES"):
        path.write_text(page(), "utf-8")
    assert path.read_text("utf-8") == page()


@EVERY
def test_the_page_on_recoverability_names_it(kind: Kind) -> None:
    assert f"`{kind.name}`" in (ROOT / "docs" / "recoverability.md").read_text("utf-8")


def read_from(kind: Kind) -> str:
    """Where a kind is read, as the documentation says it."""
    if kind.location is None:
        return f"`{kind.embedded}` of its {kind.parent}"
    version = f" ({kind.api_version})" if kind.api_version else ""
    return f"`{kind.location.path}`{version}"


def test_every_file_of_kinds_is_registered_and_every_sample_has_a_kind() -> None:
    folder = ROOT / "snapshots" / "kinds"
    registered = (folder / "__init__.py").read_text("utf-8")
    for path in folder.glob("*.py"):
        if path.stem not in {"__init__", "base", "fields", "reference", "links"}:
            assert f"from snapshots.kinds.{path.stem} import" in registered, path.name
    known = set(BY_NAME)
    for path in SAMPLES.glob("*.json"):
        assert path.name.split(".")[0] in known, path.name


def test_a_circle_of_needs_is_refused() -> None:
    comeback = Comeback(Recovery.RESTORED, "x.", "https://x")

    def kind(name: str, *needs: str) -> Kind:
        return Kind(
            name=name,
            title=name,
            parent=SUBSCRIPTION,
            needs=needs,
            comeback=comeback,
            location=Location(path="/x"),
        )

    with pytest.raises(ValueError, match="a -> b -> a"):
        order([kind("a", "b"), kind("b", "a")])
    with pytest.raises(ValueError, match="not a kind"):
        order([kind("a", "nothing")])
    with pytest.raises(ValueError, match="location or embedded"):
        Kind(name="x", title="x", parent=SUBSCRIPTION, comeback=comeback)


def test_restore_order_is_microsofts() -> None:
    ranks = order()
    chain = [
        "resource-group", "account", "rai-blocklist", "rai-policy", "deployment", "agent",
        "role-assignment", "lock",
    ]  # fmt: skip
    assert [ranks[name] for name in chain] == sorted({ranks[name] for name in chain})
    foundry = [
        "account-connection", "account-capability-host", "project", "project-connection",
        "project-capability-host", "agent",
    ]  # fmt: skip
    assert [ranks[name] for name in foundry] == sorted({ranks[name] for name in foundry})
