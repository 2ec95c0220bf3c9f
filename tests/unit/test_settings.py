"""muster.toml: what it may say, and that every mistake is told with its place and its cure."""

from __future__ import annotations

import os
import re
import tomllib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings, strategies

from muster.settings import (
    AccountTarget,
    AuditSettings,
    CredentialKind,
    CredentialSettings,
    Environment,
    EstateSettings,
    LedgerSettings,
    ObjectiveSettings,
    PairSettings,
    RetentionSettings,
    ScopeSettings,
    SecretSettings,
    Settings,
    SkuTarget,
    SnapshotSettings,
    VaultSettings,
    duration,
    find,
    load,
    parse,
    read_account_key,
    read_fingerprint_key,
    read_secret,
    render,
    spell_duration,
    write_private,
)
from snapshots.errors import SettingsError

STRESS = os.environ.get("MUSTER_STRESS") == "1"
FILE = Path("/srv/muster/muster.toml")
WHOLE = """\
# the estate of a company
[estate]
name = "contoso-ai"
cloud = "AzureCloud"
tenant = "contoso.example"
ca_file = "ca.pem"

[[estate.scope]]
subscription = "11111111-1111-1111-1111-111111111111"
resource_groups = [
    "rg-ai-prod",  # the main one
    "RG-ai-shared",
]

[[estate.scope]]
subscription = "22222222-2222-2222-2222-222222222222"
accounts = ["aoai-x"]

[[estate.pair]]
primary = "swedencentral"
standby = "eastus2"
[estate.pair.accounts]
aoai-prod-swc = { name = "aoai-prod-eus2", resource_group = "rg-ai-dr" }
[estate.pair.resource_groups]
rg-ai-prod = "rg-ai-dr"
[estate.pair.sku]
"ProvisionedManaged" = { name = "GlobalStandard", capacity = 50 }

[ledger]
path = "ledger.git"
remote = "https://git.example/ledger.git"

[vault]
url = "azblob://musterdr/vault"

[objectives]
rto = "1h"
rpo = "1h30m"

[audit]
rules = ["builtin"]
trusted = ["appid:33333333-3333-3333-3333-333333333333"]
four_eyes = ["critical"]
sweep = "12h"
cap = 3

[snapshot]
content = true
reference = false
threads_data = false
concurrency = 4

[retention]
hourly = 24
daily = 7
weekly = 4
monthly = 12

[secrets]
fingerprint_key_file = "fingerprint.key"

[credential]
kind = "environment"
secret_file = "principal.toml"
"""


def refused(text: str) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        parse(text, FILE)
    return caught.value


def test_a_whole_file_is_read_as_written() -> None:
    found = parse(WHOLE, FILE)
    folder = FILE.parent
    assert found == Settings(
        file=FILE,
        estate=EstateSettings(
            "contoso-ai",
            (
                ScopeSettings(
                    "11111111-1111-1111-1111-111111111111", ("rg-ai-prod", "rg-ai-shared")
                ),
                ScopeSettings("22222222-2222-2222-2222-222222222222", (), ("aoai-x",)),
            ),
            tenant="contoso.example",
            ca_file=folder / "ca.pem",
            pairs=(
                PairSettings(
                    "swedencentral",
                    "eastus2",
                    {"aoai-prod-swc": AccountTarget("aoai-prod-eus2", "rg-ai-dr")},
                    {"rg-ai-prod": "rg-ai-dr"},
                    {"ProvisionedManaged": SkuTarget("GlobalStandard", 50)},
                ),
            ),
        ),
        ledger=LedgerSettings(folder / "ledger.git", "https://git.example/ledger.git"),
        vault=VaultSettings("azblob://musterdr/vault"),
        objectives=ObjectiveSettings(timedelta(hours=1), timedelta(minutes=90)),
        audit=AuditSettings(
            trusted=("appid:33333333-3333-3333-3333-333333333333",),
            four_eyes=("critical",),
            sweep=timedelta(hours=12),
            cap=3,
        ),
        snapshot=SnapshotSettings(reference=False, concurrency=4),
        retention=RetentionSettings(24, 7, 4, 12),
        secrets=SecretSettings(folder / "fingerprint.key"),
        credential=CredentialSettings(
            CredentialKind.ENVIRONMENT, secret_file=folder / "principal.toml"
        ),
    )


def test_what_is_rendered_reads_back_as_the_same() -> None:
    found = parse(WHOLE, FILE)
    assert parse(render(found), FILE) == found


NAMES = strategies.text("abcdefghijklmnopqrstuvwxyz-_.'\"\\ é", min_size=1, max_size=12).filter(
    lambda name: bool(name.strip())
)
GUIDS = strategies.uuids().map(str)


@strategies.composite
def any_settings(draw: strategies.DrawFn) -> Settings:
    subscriptions = draw(strategies.lists(GUIDS, min_size=1, max_size=3, unique=True))
    names = strategies.lists(NAMES, max_size=3, unique=True).map(lambda found: tuple(sorted(found)))
    scopes = tuple(ScopeSettings(s, draw(names), draw(names)) for s in subscriptions)
    regions = draw(
        strategies.lists(
            strategies.from_regex(r"\A[a-z0-9]{3,12}\Z"), min_size=2, max_size=2, unique=True
        )
    )
    pair = PairSettings(
        regions[0],
        regions[1],
        draw(
            strategies.dictionaries(
                NAMES, strategies.builds(AccountTarget, NAMES, NAMES, GUIDS), max_size=2
            )
        ),
        draw(strategies.dictionaries(NAMES, NAMES, max_size=2)),
        draw(
            strategies.dictionaries(
                NAMES,
                strategies.builds(
                    SkuTarget, NAMES, strategies.none() | strategies.integers(1, 999)
                ),
                max_size=2,
            )
        ),
    )
    counts = strategies.integers(1, 999)
    spans = strategies.integers(1, 10**6).map(lambda seconds: timedelta(seconds=seconds))
    return Settings(
        file=FILE,
        estate=EstateSettings(
            draw(strategies.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9 ._-]{0,20}\Z")).strip(),
            scopes,
            draw(strategies.sampled_from(["AzureCloud", "AzureChinaCloud", "https://127.0.0.1:9"])),
            pairs=(pair,),
        ),
        ledger=LedgerSettings(FILE.parent / "a b" / "ledger.git"),
        vault=VaultSettings(draw(strategies.sampled_from(["azblob://acc/con", "/srv/other/v"]))),
        objectives=ObjectiveSettings(
            draw(strategies.none() | spans), draw(strategies.none() | spans)
        ),
        audit=AuditSettings(sweep=draw(spans), cap=draw(strategies.integers(1, 1000))),
        snapshot=SnapshotSettings(
            draw(strategies.booleans()),
            concurrency=draw(strategies.integers(1, 64)),
            timeout=draw(spans),
            patience=draw(spans),
        ),
        retention=RetentionSettings(draw(counts), draw(counts), draw(counts), draw(counts)),
    )


@given(any_settings())
@settings(max_examples=2000 if STRESS else 60, deadline=None)
def test_any_settings_survive_the_round_trip(given_settings: Settings) -> None:
    assert parse(render(given_settings), FILE) == given_settings


MISTAKES = [
    # (what is replaced, by what, what stands at the place told, words, remedy)
    (
        'standby = "eastus2"',
        'standbi = "eastus2"',
        "standbi",
        "standbi is not a setting",
        "standby",
    ),
    ("capacity = 50", 'capacity = "50"', "capacity", "capacity is a text", "whole number"),
    ("capacity = 50", "capacity = 0", "capacity", "capacity is 0", "1 to"),
    ('rto = "1h"', 'rto = "1 hour"', "rto", "'1 hour' is not a duration", "1h30m"),
    ('rto = "1h"', "rto = 60", "rto", "rto is a number", "duration"),
    ('rto = "1h"', 'rto = "0h"', "rto", "not between", "1h30m"),
    ("cap = 3", "cap = 0", "cap", "cap is 0", "1 to 1000"),
    ("concurrency = 4", "concurrency = 65", "concurrency", "concurrency is 65", "1 to 64"),
    ("concurrency = 4", "concurrency = true", "concurrency", "true or false", "whole number"),
    ("content = true", 'content = "yes"', "content", "content is a text", "true or false"),
    ("[audit]", "[audti]", "[audti]", "audti is not a setting", "audit"),
    ('name = "contoso-ai"', 'name = ""', 'name = ""', "name is empty", "contoso-ai"),
    ('name = "contoso-ai"', 'name = "a/b"', 'name = "a/b"', "is not a name", "contoso-ai"),
    ('name = "contoso-ai"', "", "[estate]", "name is missing", "add name"),
    ('cloud = "AzureCloud"', 'cloud = "AzureClod"', "cloud", "mean AzureCloud", "cloud ="),
    ('cloud = "AzureCloud"', 'cloud = "http://x"', "cloud", "not a URL of https", "cloud ="),
    ('cloud = "AzureCloud"', 'cloud = "https://[x"', "cloud", "not a URL", "cloud ="),
    ('"azblob://musterdr/vault"', '"azblob://musterdr"', "url", "names no container", "azblob://"),
    ('"azblob://musterdr/vault"', '"ftp://m/vault"', "url", "not a URL of azblob", "azblob://"),
    ('"azblob://musterdr/vault"', '"http://m/vault"', "url", "not a URL of azblob", "azblob://"),
    ('primary = "swedencentral"', 'primary = "eastus2"', "standby", "cannot stand by", "another"),
    ('primary = "swedencentral"', 'primary = "S C"', "primary", "short name", "primary ="),
    ('"22222222-2222-2222-2222-222222222222"', '"prod"', "subscription", "not a subscr", "0000"),
    (
        '"22222222-2222-2222-2222-222222222222"',
        '"11111111-1111-1111-1111-111111111111"',
        "subscription",
        "overlaps an earlier one",
        "join the two",
    ),
    ('    "RG-ai-shared",', "    7,", "7,", "item 2 of resource_groups is a number", "list"),
    ('kind = "environment"', 'kind = "magic"', "kind", "is none of", "default"),
    ('kind = "environment"', 'kind = "cli"', "secret_file", "uses no secret_file", "environment"),
    ('path = "ledger.git"', 'path = ""', "path", "path is empty", "ledger.git"),
    ('path = "ledger.git"', 'path = "~nobody-at-all/x"', "path", "no such home", "whole path"),
    ('path = "ledger.git"', "path = [", "remote", "not TOML", "a setting is written"),
    ("[retention]", "[retention", "", "not TOML", "a setting is written"),
    (
        '[vault]\nurl = "azblob://musterdr/vault"',
        "vault = 3",
        "vault",
        "vault is not",
        "known here",
    ),
]


def standing_at(text: str, where: str) -> str:
    """What stands at the place that an error names."""
    match = re.match(rf"{re.escape(str(FILE))}:(\d+):(\d+)", where)
    assert match, where
    lines = text.split("\n")
    return lines[int(match[1]) - 1][int(match[2]) - 1 :] if int(match[1]) <= len(lines) else ""


@pytest.mark.parametrize(("old", "new", "place", "what", "remedy"), MISTAKES)
def test_a_mistake_is_told_with_its_place_and_its_cure(
    old: str, new: str, place: str, what: str, remedy: str
) -> None:
    assert old in WHOLE
    text = WHOLE.replace(old, new, 1)
    error = refused(text)
    assert standing_at(text, error.where).startswith(place)
    assert what in error.what
    assert remedy in error.remedy


def test_a_scope_is_needed() -> None:
    assert "no scope" in refused('[estate]\nname = "x"\n').what


def test_an_empty_file_asks_for_the_estate() -> None:
    error = refused("")
    assert "[estate] is missing" in error.what
    assert error.where.startswith(f"{FILE}:1:1")


SECRETS = [
    ("client_secret", '"x"'),
    ("account_key", '"eA=="'),
    ("storage_connection_string", '"x"'),
    ("note", '"DefaultEndpointsProtocol=https;AccountKey=Zm9v;EndpointSuffix=x"'),
    ("url", '"https://a.blob.example/c?sv=1&sig=Zm9vYmFy"'),
    ("url", '"https://user:hunter2@a.example/container"'),
]


@pytest.mark.parametrize(("name", "value"), SECRETS)
def test_a_secret_in_the_file_is_refused_and_not_repeated(name: str, value: str) -> None:
    error = refused(WHOLE.replace('url = "azblob://musterdr/vault"', f"{name} = {value}"))
    assert "secret" in error.what
    assert "secret_file" in error.remedy
    for word in ("Zm9v", "hunter2", "eA=="):
        assert word not in str(error)


def test_the_place_is_right_behind_strings_of_every_form() -> None:
    text = (
        '# [estate]\n[estate]\nname = "a\\"b"  # bad\n'
        'x = """one\n[estate]\n"quoted" \\""" two"""\ny = \'\'\'\nname = 1\n\'\'\'\n'
        'z = [ { a = 1, b = [ \'x\', "y" ] }, # ]\n 3 ]\n"tenant" = 7\n'
    )
    assert tomllib.loads(text)
    error = refused(text.replace('"a\\"b"', '"ab"'))
    assert error.where == f"{FILE}:12:1 estate.tenant"


@given(strategies.data())
@settings(
    max_examples=20000 if STRESS else 300,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
def test_a_mutilated_file_is_an_error_of_ours_or_settings(data: strategies.DataObject) -> None:
    text = WHOLE
    for _ in range(data.draw(strategies.integers(1, 4))):
        start = data.draw(strategies.integers(0, len(text)))
        end = min(len(text), start + data.draw(strategies.integers(0, 12)))
        junk = data.draw(
            strategies.sampled_from(['"', "'", '"""', "[", "]]", "{", "}", "=", ".", "\n", "#", ""])
            | strategies.text(max_size=4)
        )
        text = text[:start] + junk + text[end:]
    outcome = outcome_of(text)
    if isinstance(outcome, SettingsError):
        assert outcome.what
        assert str(FILE) in outcome.where
        assert outcome.remedy


def outcome_of(text: str) -> Settings | SettingsError:
    try:
        return parse(text, FILE)
    except SettingsError as error:
        return error


@given(strategies.binary(max_size=200))
@settings(max_examples=2000 if STRESS else 50, deadline=None)
def test_any_bytes_are_an_error_of_ours(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "muster.toml"
        file.write_bytes(data)
        with pytest.raises(SettingsError) as caught:
            load(file)
        assert str(file) in caught.value.where


def test_windows_line_ends_and_a_mark_do_not_move_the_place(tmp_path: Path) -> None:
    file = tmp_path / "muster.toml"
    text = WHOLE.replace('rto = "1h"', "rto = 1").replace("\n", "\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + text.encode())
    with pytest.raises(SettingsError) as caught:
        load(file)
    assert caught.value.where == f"{file}:37:1 objectives.rto"


def test_the_configuration_is_looked_for_here_and_above(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    with pytest.raises(SettingsError, match="there is no"):
        find(None, start=inner)
    (tmp_path / "muster.toml").write_text(WHOLE)
    assert find(None, start=inner) == tmp_path / "muster.toml"
    assert find(tmp_path) == tmp_path / "muster.toml"
    with pytest.raises(SettingsError, match="no such configuration") as caught:
        find(tmp_path / "other.toml")
    assert "muster init" in caught.value.remedy


@pytest.mark.parametrize("text", ["1s", "90s", "30m", "1h", "1h30m", "2d", "1w2d3h4m5s"])
def test_a_duration_is_spelled_as_it_is_read(text: str) -> None:
    assert duration(spell_duration(duration(text))) == duration(text)


@pytest.mark.parametrize(
    "text", ["", " ", "h", "-1h", "1.5h", "1h 2m", "99999999999w", "0s", "１h x"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not"):
        duration(text)


def test_a_secret_file_open_to_others_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "principal.toml"
    write_private(file, 'client_id = "a"\nclient_secret = "hunter2hunter2"\n')
    assert file.stat().st_mode & 0o777 == 0o600
    found = read_secret(file)
    assert (found.client_id, found.client_secret) == ("a", "hunter2hunter2")
    assert "hunter2" not in repr(found)
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="read by others"):
        read_secret(file)


def test_a_broken_secret_file_is_not_quoted(tmp_path: Path) -> None:
    file = tmp_path / "principal.toml"
    write_private(file, 'client_secret = "hunter2hunter2\n')
    with pytest.raises(SettingsError) as caught:
        read_secret(file)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    write_private(file, 'client_secret = "hunter2hunter2"\n')
    with pytest.raises(SettingsError, match="needs client_id") as caught:
        read_secret(file)
    with pytest.raises(SettingsError, match="needs account_key"):
        read_account_key(file)
    with pytest.raises(SettingsError, match="cannot be read"):
        read_secret(tmp_path / "nothing.toml")
    with pytest.raises(SettingsError, match="is no file"):
        read_secret(tmp_path)


def test_a_short_fingerprint_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_private(file, "short")
    with pytest.raises(SettingsError, match="too short: 5 bytes"):
        read_fingerprint_key(file)
    write_private(file, "0" * 64)
    assert read_fingerprint_key(file) == b"0" * 64


def test_the_environment_is_read_once_and_its_secrets_are_known() -> None:
    found = Environment.read(
        {
            "MUSTER_CONFIG": "x.toml",
            "MUSTER_DEBUG": "1",
            "NO_COLOR": "1",
            "AZURE_CLIENT_SECRET": "hunter2hunter2",
            "AZURE_TENANT_ID": "tenant",
            "PATH": "/bin",
        }
    )
    assert found.config == Path("x.toml")
    assert found.debug
    assert not found.color
    assert found.secrets == ("hunter2hunter2",)
    assert "hunter2" not in repr(found)
    assert Environment.read({}) == Environment()
    assert not Environment.read({"MUSTER_DEBUG": "0"}).debug
