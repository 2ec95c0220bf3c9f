"""The local certificate authority: made once per state folder, for loopback names only."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files: the CA to trust, and the server's chain and key."""

    ca: Path
    chain: Path
    key: Path


def certificates(state: Path) -> Certificates:
    """The certificates of a state folder; made when there are none or they end within a day."""
    found = Certificates(state / "ca.pem", state / "server.pem", state / "server.key")
    fresh = 300 * 86_400
    if all(path.is_file() for path in (found.ca, found.chain, found.key)):
        age = dt.datetime.now(dt.UTC).timestamp() - found.chain.stat().st_mtime
        if age < fresh:
            return found
    ends = dt.datetime.now(dt.UTC) + dt.timedelta(days=365)
    authority = trustme.CA(organization_name="muster sandbox")
    leaf = authority.issue_cert(
        "localhost",
        "127.0.0.1",
        "::1",
        "*.localhost",
        "*.openai.azure.com",
        "*.cognitiveservices.azure.com",
        "*.services.ai.azure.com",
        not_after=ends,
    )
    authority.cert_pem.write_to_path(str(found.ca))
    found.chain.unlink(missing_ok=True)
    for blob in leaf.cert_chain_pems:
        blob.write_to_path(str(found.chain), append=True)
    descriptor = os.open(found.key, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(leaf.private_key_pem.bytes())
    return found
