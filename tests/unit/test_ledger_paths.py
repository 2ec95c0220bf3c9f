"""Rules of the ledger's paths: short, safe everywhere, and never one path for two names."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snapshots.errors import InputError
from snapshots.ledger.paths import key_of, path_of, reference_name, reference_path
from snapshots.model import Key

ODD = st.sampled_from([
    "con", "CON", "aux.txt", "nul ", "com1", "lpt9.json", "com¹", "conin$", ".", "..", ".git",
    "git~1", "x.json", "x%2ejson", "a ", "a.", " a", "-rf", "a/b", "a\\b", "a:b", "é",
    "e\u0301", "ß", "ss", "SS", "İ", "i̇", "~", "a~b", "%61", "a", "A", "", "\n", "a" * 300,
    "a" * 299 + "b", "é" * 200,
])  # fmt: skip
NAMES = st.one_of(ODD, st.text(max_size=40), st.text("aAb.~% /", max_size=5))
KEYS = st.builds(
    Key,
    st.one_of(st.sampled_from(["deployment", "file", "x.json"]), NAMES.filter(bool)),
    st.lists(NAMES, min_size=1, max_size=6).map(tuple),
)
DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\..*)?", re.IGNORECASE
)


def assert_valid_on_windows(path: str) -> None:
    assert len(path) <= 180
    assert re.fullmatch(r"[a-z0-9_.,+=@()\[\]{}!$&' %~/-]+", path), path
    for part in path.split("/"):
        assert part not in {"", ".", ".."}
        assert part[-1] not in ". "
        assert part[0] not in " -."
        assert not DEVICES.fullmatch(part), part


@given(KEYS)
def test_a_path_is_short_and_valid_on_windows(key: Key) -> None:
    assert_valid_on_windows(path_of(key))


@given(KEYS, KEYS)
@example(Key("file", ("a", "File")), Key("file", ("a", "file")))
@example(Key("k", ("s", "x")), Key("k2", ("s", "k", "x.json", "n")))
@example(Key("k", ("a" * 300,)), Key("k", ("a" * 299 + "b",)))
@example(Key("k", ("x.json", "n")), Key("k", ("x%2ejson", "n")))
@example(Key("k", ("é",)), Key("k", ("e\u0301",)))
def test_two_keys_never_share_a_path(one: Key, other: Key) -> None:
    first, second = path_of(one).casefold(), path_of(other).casefold()
    assert (first == second) == (one == other)
    # Nor is one's file the other's folder.
    if one != other:
        assert not second.startswith(first + "/")


@given(st.lists(NAMES, min_size=1, max_size=4), st.data())
def test_names_that_differ_little_do_not_collide(names: list[str], data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(names) - 1))
    changed = list(names)
    changed[at] = names[at].swapcase()
    one, other = Key("k", tuple(names)), Key("k", tuple(changed))
    assert (path_of(one) == path_of(other)) == (one == other)


@given(KEYS)
def test_a_path_that_tells_its_key_tells_the_truth(key: Key) -> None:
    assert key_of(path_of(key)) in {key, None}


@given(KEYS.filter(lambda key: all(key.path) and "/" not in key.kind and key.kind.strip()))
def test_the_key_inside_the_file_reads_back(key: Key) -> None:
    plain = Key("kind", key.path)
    assert Key.parse(str(plain)) == plain


def test_ordinary_names_are_readable() -> None:
    key = Key(
        "deployment", ("5d0c6b86-2d28-4c0b-9a50-9c2a3b1f7e10", "rg-ai", "aoai-prod", "gpt-4o")
    )
    path = path_of(key)
    assert path == (
        "resources/5d0c6b86-2d28-4c0b-9a50-9c2a3b1f7e10/rg-ai/aoai-prod/deployment/gpt-4o.json"
    )
    assert key_of(path) == key


def test_a_name_in_capitals_stays_readable_and_gets_a_hash() -> None:
    assert re.fullmatch(
        r"resources/s/file/file-abc~[0-9a-f]{16}\.json", path_of(Key("file", ("s", "file-AbC")))
    )


def test_a_key_without_a_name_is_refused() -> None:
    with pytest.raises(InputError):
        path_of(Key("k", ()))


# Four letters of four bytes, three times: 144 characters when they are encoded.
REFERENCES = st.lists(st.text(min_size=1, max_size=4).filter(lambda t: "/" not in t), min_size=1,
                      max_size=3)  # fmt: skip


@given(REFERENCES)
def test_reference_names_read_back(parts: list[str]) -> None:
    path = reference_path("/".join(parts))
    assert_valid_on_windows(path)
    assert reference_name(path) == "/".join(parts)


@pytest.mark.parametrize("name", ["", "a//b", "/a", "x" * 200])
def test_bad_reference_names_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        reference_path(name)
