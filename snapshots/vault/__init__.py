"""The vault: payloads written once, found by digest, in a Blob container or a folder."""

from __future__ import annotations

from snapshots.vault.base import (
    Damage,
    Document,
    Manifest,
    ManifestEntry,
    Problem,
    Sweep,
    Vault,
    VaultFacts,
    bundle_chain,
)
from snapshots.vault.location import Access, Patience, open_vault

__all__ = [
    "Access",
    "Damage",
    "Document",
    "Manifest",
    "ManifestEntry",
    "Patience",
    "Problem",
    "Sweep",
    "Vault",
    "VaultFacts",
    "bundle_chain",
    "open_vault",
]
