"""Wiring: settings become Cloud, Ledger and Vault in one place, and heavy things only on demand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from muster.settings import Environment, Settings, parse, write_private
from muster.wiring import Wiring, list_identity
from snapshots.errors import NotFoundError, SettingsError
from snapshots.secrets import Fingerprints

ROOT = Path(__file__).parents[2]
SUB = "11111111-1111-1111-1111-111111111111"
HEAD = f'[estate]\nname = "t"\n[[estate.scope]]\nsubscription = "{SUB}"\n'
KEY = "a2V5LWtleS1rZXkta2V5"  # base64


def settings(folder: Path, more: str = "") -> Settings:
    return parse(HEAD + more, folder / "muster.toml")


def test_everything_is_opened_once_and_closed(tmp_path: Path) -> None:
    with Wiring(settings(tmp_path), Environment()) as wiring:
        with pytest.raises(NotFoundError, match="no ledger yet"):
            wiring.ledger()
        ledger = wiring.ledger(create=True)
        assert wiring.ledger() is ledger
        assert wiring.vault() is wiring.vault()


def test_the_fingerprint_key_is_the_files_where_one_is_named(tmp_path: Path) -> None:
    key = tmp_path / "fingerprint.key"
    write_private(key, "ab" * 32 + "\n")
    chosen = settings(tmp_path, '[secrets]\nfingerprint_key_file = "fingerprint.key"\n')
    with Wiring(chosen, Environment()) as wiring:
        wiring.vault().prepare()
        made = wiring.fingerprints().of("secret")
    assert made == Fingerprints(bytes.fromhex("ab" * 32)).of("secret")
    key.chmod(0o644)
    with Wiring(chosen, Environment()) as wiring, pytest.raises(SettingsError, match="by others"):
        wiring.fingerprints()


@pytest.mark.parametrize(
    "environment",
    [
        Environment(storage_key=KEY),
        Environment(storage_sas="sv=2024-01-01&sig=c2ln"),
        Environment(storage_connection_string=f"AccountName=acc;AccountKey={KEY}"),
    ],
)
def test_a_blob_vault_opens_with_what_the_environment_holds(
    tmp_path: Path, environment: Environment
) -> None:
    with Wiring(settings(tmp_path, '[vault]\nurl = "azblob://acc/con"\n'), environment) as wiring:
        assert wiring.vault().location == "azblob://acc/con"


def test_a_blob_vault_opens_with_a_secret_file_and_refuses_an_open_one(tmp_path: Path) -> None:
    file = tmp_path / "vault.toml"
    write_private(file, f'account_key = "{KEY}"\n')
    chosen = settings(tmp_path, '[vault]\nurl = "azblob://acc/con"\nsecret_file = "vault.toml"\n')
    with Wiring(chosen, Environment()) as wiring:
        assert KEY not in repr(wiring.vault())
    file.chmod(0o640)
    with Wiring(chosen, Environment()) as wiring, pytest.raises(SettingsError, match="by others"):
        wiring.vault()


def test_a_snapshot_is_taken_as_the_settings_say(tmp_path: Path) -> None:
    more = (
        '[[estate.pair]]\nprimary = "swedencentral"\nstandby = "eastus2"\n'
        "[snapshot]\ncontent = false\nthreads_data = true\nconcurrency = 3\n"
        "[retention]\nhourly = 1\n"
    )
    with Wiring(settings(tmp_path, more), Environment()) as wiring:
        options, (scope,) = wiring.take_options(), wiring.scopes()
        assert (options.payloads, options.conversations, options.threads) == (False, True, 3)
        assert options.reference_regions == ("eastus2",)
        assert scope.subscription == "11111111-1111-1111-1111-111111111111"
        assert wiring.retention().hourly == 1


def test_lists_without_order_are_known_by_kind() -> None:
    assert list_identity("account")["properties.networkAcls.ipRules[]"] == ("value",)
    assert list_identity("no-such-kind") == {}


def test_wiring_imports_nothing_heavy_before_it_is_asked() -> None:
    code = (
        "import sys, muster.wiring; "
        "print({m.split('.')[0] for m in sys.modules} & {'azure', 'git', 'prefect', 'deepdiff'})"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert ran.stdout.strip() == "set()"
