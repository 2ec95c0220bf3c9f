"""The site verifies evidence by itself: chain, copies and signatures; tampering is red."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import orjson
import pytest

from drills.evidence import GitSigner, sealed
from muster.report.site import pages
from muster.report.site_model import Level, Site, Verified
from snapshots.ledger import EVIDENCE
from snapshots.model import JsonObject, pretty
from tests.report_site_fixtures import NOW, Recorded, drill_document, healthy


def new_key(folder: Path, name: str) -> Path:
    key = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return key


def configured(made: Recorded, **settings: str) -> None:
    for name, value in settings.items():
        words = ["git", "-C", str(made.ledger.path), "config", name.replace("__", "."), value]
        subprocess.run(words, check=True)


def signs(made: Recorded, key: Path) -> None:
    configured(made, gpg__format="ssh", user__signingkey=str(key))


def vouched(made: Recorded, folder: Path, key: Path) -> None:
    public = " ".join(key.with_suffix(".pub").read_text().split()[:2])
    (folder / "allowed").write_text(f"anna@contoso.example {public}\n")
    configured(made, gpg__ssh__allowedSignersFile=str(folder / "allowed"))


def add_signature(made: Recorded, id_: str) -> None:
    """Sign an evidence in ledger and vault, as whoever is configured."""
    path = f"drills/{id_}"
    data = dict(made.ledger.files(EVIDENCE, path))[f"{path}.json"]
    signature = GitSigner(made.ledger.path).sign(data).encode()
    made.ledger.put(EVIDENCE, {f"{path}.sig": signature}, "signed")
    vault = Path(made.vault.location.removeprefix("file://"))
    for copy in (vault / "evidence" / f"{path}.sig", vault / f"sums/evidence/{path}.sig"):
        copy.unlink(missing_ok=True)  # as somebody may who can write everywhere
    made.vault.keep_document(f"evidence/{path}.sig", signature)


def site_of(made: Recorded) -> Site:
    return made.site(signer=GitSigner(made.ledger.path))


def found(site: Site, id_: str) -> dict[str, Verified]:
    run = next(r for v in site.drills.drills for r in v.runs if r.id == id_)
    return {v.what: v for v in run.verified}


@pytest.fixture
def made(tmp_path: Path) -> Recorded:
    return healthy(tmp_path / "estate")


@pytest.fixture
def signed(made: Recorded, tmp_path: Path) -> str:
    """An evidence that Anna signed; gives its id."""
    key = new_key(tmp_path, "anna")
    signs(made, key)
    vouched(made, tmp_path, key)
    id_ = made.evidence(drill_document(number=61))
    add_signature(made, id_)
    return id_


def test_a_signature_is_verified_and_says_who(made: Recorded, signed: str) -> None:
    site = site_of(made)
    states = found(site, signed)
    assert {v.level for v in states.values()} == {Level.GOOD}
    assert states["Signature"].words == "verified: anna@contoso.example"
    page = pages(site)[f"drill-{signed}.html"].decode()
    assert "verified: anna@contoso.example" in page
    assert "verified: anna@contoso.example" in pages(site)["evidence.html"].decode()
    assert site.evidence.part.level is Level.GOOD


def test_evidence_that_is_whole_but_that_nobody_signed_is_not_called_good(made: Recorded) -> None:
    made.evidence(drill_document(number=61))
    assert site_of(made).evidence.part.level is Level.NOTE


def test_without_a_key_nothing_is_called_verified(made: Recorded, signed: str) -> None:
    for name in ("gpg.ssh.allowedSignersFile", "user.signingkey"):
        subprocess.run(["git", "-C", str(made.ledger.path), "config", "--unset", name], check=True)
    seal = found(site_of(made), signed)["Signature"]
    assert (seal.level, seal.words.startswith("signed, not verified")) == (Level.UNKNOWN, True)
    nobody = found(made.site(), signed)["Signature"]  # nobody verifies at all
    assert nobody == seal


def by_a_stranger(made: Recorded, id_: str, folder: Path) -> None:
    signs(made, new_key(folder, "stranger"))
    add_signature(made, id_)


def a_later_one_unsigned(made: Recorded, _id: str, _folder: Path) -> None:
    made.evidence(drill_document(at=NOW + timedelta(minutes=1), number=62))


def another_value(made: Recorded, id_: str, _folder: Path) -> None:
    path = f"drills/{id_}.json"
    document: JsonObject = orjson.loads(dict(made.ledger.files(EVIDENCE, path))[path])
    forged = sealed({**document, "rto_seconds": 1.0}, str(document["previous"]))
    made.ledger.put(EVIDENCE, {path: pretty(forged.document)}, "improved, and hashed again")


def another_spelling(made: Recorded, id_: str, _folder: Path) -> None:
    path = f"drills/{id_}.json"
    data = dict(made.ledger.files(EVIDENCE, path))[path]
    made.ledger.put(EVIDENCE, {path: data.replace(b"\n", b"\n ", 1)}, "white space")


def a_fork(made: Recorded, id_: str, _folder: Path) -> None:
    path = f"drills/{id_}.json"
    document: JsonObject = orjson.loads(dict(made.ledger.files(EVIDENCE, path))[path])
    rival = sealed({**document, "id": f"{id_}x"}, str(document["previous"]))
    files: dict[str, bytes | None] = {f"drills/{id_}x.json": pretty(rival.document)}
    made.ledger.put(EVIDENCE, files, "a rival")


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (by_a_stranger, "its signature does not hold"),
        (another_value, "its signature does not hold"),
        (another_value, "differs from the copy in the vault"),
        (another_spelling, "not byte for byte"),
        (a_fork, "the chain forks"),
        (a_later_one_unsigned, "earlier ones are"),
    ],
)
def test_tampering_is_red_on_its_page_and_among_the_first_problems(
    made: Recorded, signed: str, tmp_path: Path, tamper: Callable[..., None], told: str
) -> None:
    assert not [p for p in site_of(made).problems if "does not hold" in p.text]
    tamper(made, signed, tmp_path)
    site = site_of(made)
    assert site.evidence.part.level is Level.BAD
    assert site.problems[0].level is Level.BAD
    assert "does not hold" in site.problems[0].text
    written = [p.decode() for n, p in pages(site).items() if n.startswith("drill-")]
    red = [p for p in written if "This evidence does not hold" in p]
    assert any(told in page for page in red)
