"""Fixtures for a real Azurite, one in memory for a whole run of tests."""

from __future__ import annotations

import base64
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from drills.sandbox.blob.azurite import Azurite, BlobAccount
from drills.sandbox.blob.install import is_current

_NUMBERS = itertools.count(1)
# Keys of this run only; the marks in them are looked for where no key may be.
AZURITE_ACCOUNTS = {
    "mustervault": base64.b64encode(b"canary-account-key-one-of-azurite").decode(),
    "musterother": base64.b64encode(b"canary-account-key-two-of-azurite").decode(),
}


@dataclass(frozen=True, slots=True)
class BlobContainer:
    """A container that nobody else uses, perhaps not made yet."""

    account: BlobAccount
    name: str

    def url(self, prefix: str = "") -> str:
        """Give the address as muster.toml has it."""
        path = f"{self.name}/{prefix}".rstrip("/")
        return f"azblob://{self.account.name}/{path}?endpoint={self.account.endpoint}"


@pytest.fixture(scope="session")
def azurite() -> Iterator[Azurite]:
    """Give a running Azurite, in memory, with the accounts of AZURITE_ACCOUNTS."""
    if not is_current():
        pytest.skip("Azurite is not installed: python -m drills.sandbox.blob.install")
    with Azurite.start(None, AZURITE_ACCOUNTS) as running:
        yield running


@pytest.fixture(scope="session")
def blob_account(azurite: Azurite) -> BlobAccount:
    """Give the account of the vault."""
    return azurite.accounts["mustervault"]


@pytest.fixture(scope="session")
def new_container(blob_account: BlobAccount) -> Callable[[], BlobContainer]:
    """Give a maker of names of containers that are not used yet; none is made."""
    return lambda: BlobContainer(blob_account, f"vault-{os.getpid()}-{next(_NUMBERS)}")
