"""Evidence: written down, chained to the one before, signed, kept twice, and checked again."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

import orjson

from drills.evidence_page import page
from drills.judge import distribution, judge, judge_run
from drills.model import DrillResult, Estimate, Evidence, Mode
from drills.verbs import Signer
from snapshots.errors import (
    ConcurrentError,
    DamagedStoreError,
    InputError,
    MusterError,
    NotFoundError,
    StoreError,
)
from snapshots.ledger import EVIDENCE, Ledger
from snapshots.model import Json, JsonObject, canonical, digest, pretty
from snapshots.vault import Vault

SCHEMA = "muster/evidence/1"
FOLDER = "drills"
_VAULT = "evidence/drills"
_ATTEMPTS = 20


def document_of(
    result: DrillResult, *, interrupted: bool, versions: Mapping[str, str]
) -> JsonObject:
    """Write a result down as evidence keeps it, without its place in the chain."""
    drill = result.drill
    return {
        "schema": SCHEMA,
        "id": result.id,
        "drill": drill.name,
        "title": drill.title,
        "script": {"sha256": digest(drill.text.encode()), "text": drill.text},
        "parameters": drill.parameters,
        "mode": result.mode.value,
        "seed": result.seed,
        "estate": result.estate,
        "versions": {"muster": result.version, **versions},
        "started_at": _moment(result.started_at),
        "finished_at": _moment(result.finished_at),
        "interrupted": interrupted,
        "verdict": result.verdict.value,
        "reasons": list(result.reasons),
        "findings": list(result.findings),
        "objective": {"rto_seconds": drill.objective.rto, "rpo_seconds": drill.objective.rpo},
        "blast_radius": drill.blast_radius,
        "cost_ceiling": drill.cost_ceiling,
        "snapshot": result.snapshot,
        "mapping": result.mapping.document(),
        "target": result.target,
        "gate": [check.document() for check in result.gate],
        "steps": [step.document() for step in result.steps],
        "checks": [check.document() for check in result.checks],
        "cleanup": result.clean_up.document(),
        "approvals": list(result.approvals),
        "estimate": result.estimate.document() if result.estimate is not None else None,
        **result.measured.document(),
    }


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sealed(document: JsonObject, previous: str) -> Evidence:
    """Chain a document to the hash of the evidence before it ("" for the first)."""
    body: JsonObject = {k: v for k, v in document.items() if k != "hash"}
    body["previous"] = previous
    # What is hashed is what a reader gets back: floats and all, once through JSON.
    body = orjson.loads(canonical(body))
    value = digest(canonical(body))
    return Evidence(id=str(body.get("id", "")), document={**body, "hash": value}, hash=value)


# -------------------------------------------------------------------------------------- keeping


class EvidenceBook:
    """The evidence on the ledger's `evidence` branch, with a copy in the vault."""

    def __init__(self, ledger: Ledger, vault: Vault | None) -> None:
        self._ledger = ledger
        self._vault = vault

    def keep(self, document: JsonObject, signer: Signer | None) -> Evidence:
        """Chain, sign and keep; a second writer waits for its turn. Raises StoreError."""
        for _ in range(_ATTEMPTS):
            tip = self._ledger.tip(EVIDENCE)
            known = self._documents(tip)
            mine = known.get(str(document.get("id")))
            if mine is not None:  # kept already, and then we were killed
                return self._copied(mine, self._signature(tip, mine.id))
            evidence = sealed(document, _last(known))
            data = pretty(evidence.document)
            if signer is not None:
                evidence = replace(evidence, signature=signer.sign(data))
            try:
                self._ledger.put(
                    EVIDENCE, self._files(evidence, data), _message(evidence), expected_parent=tip
                )
            except ConcurrentError:
                continue
            return self._copied(evidence, evidence.signature)
        raise ConcurrentError(
            "others write evidence all the time",
            where=str(self._ledger.path),
            remedy="run the command again",
        )

    def _files(self, evidence: Evidence, data: bytes) -> dict[str, bytes | None]:
        base = f"{FOLDER}/{evidence.id}"
        found: dict[str, bytes | None] = {
            f"{base}.json": data,
            f"{base}.html": page(evidence.document).encode(),
        }
        if evidence.signature:
            found[f"{base}.sig"] = evidence.signature.encode()
        return found

    def _copied(self, evidence: Evidence, signature: str) -> Evidence:
        """Copy it into the vault, where it is written once."""
        evidence = replace(evidence, signature=signature)
        if self._vault is not None:
            there = set(self._vault.documents(f"{_VAULT}/{evidence.id}"))
            for path, data in self._files(evidence, pretty(evidence.document)).items():
                name = f"evidence/{path}"
                if data is not None and name not in there:
                    self._vault.keep_document(name, data)
        return evidence

    def _signature(self, tip: str, id_: str) -> str:
        for path, data in self._ledger.files(tip, f"{FOLDER}/{id_}.sig"):
            if path == f"{FOLDER}/{id_}.sig":
                return data.decode("utf-8", "replace")
        return ""

    def _documents(self, tip: str) -> dict[str, Evidence]:
        if not tip:
            return {}
        found: dict[str, Evidence] = {}
        for path, data in self._ledger.files(tip, f"{FOLDER}/"):
            if path.endswith(".json"):
                evidence = opened(data, path)
                found[evidence.id] = evidence
        return found

    def all(self) -> tuple[Evidence, ...]:
        """Give every evidence in the order of the chain."""
        return tuple(_in_order(self._documents(self._ledger.tip(EVIDENCE))))

    def earlier(self, drill: str, mode: Mode) -> tuple[float, ...]:
        """Give the recovery times of the last ten runs of a drill that measured one."""
        found: list[float] = []
        for evidence in self.all():
            document = evidence.document
            if document.get("drill") != drill or document.get("mode") != mode:
                continue
            took = document.get("rto_seconds")
            rehearsal = document.get("rehearsal")
            if isinstance(rehearsal, dict):
                rto = rehearsal.get("rto")
                took = rto.get("p50") if isinstance(rto, dict) else None
            if isinstance(took, int | float) and not isinstance(took, bool):
                found.append(float(took))
        return tuple(found[-10:])

    def estimate(self, drill: str) -> Estimate | None:
        """Give what the newest rehearsal of a drill says of its recovery time."""
        found: Estimate | None = None
        for evidence in self.all():
            document = evidence.document
            rehearsal = document.get("rehearsal")
            if document.get("drill") != drill or not isinstance(rehearsal, dict):
                continue
            rto, runs = rehearsal.get("rto"), rehearsal.get("runs")
            half = rto.get("p50") if isinstance(rto, dict) else None
            most = rto.get("p90") if isinstance(rto, dict) else None
            if isinstance(half, int | float) and isinstance(most, int | float):
                count = len(runs) if isinstance(runs, list) else 0
                found = Estimate(p50=float(half), p90=float(most), runs=count, evidence=evidence.id)
        return found

    def find(self, text: str) -> Evidence:
        """Give the evidence of that id, prefix of an id, or "last". Raises NotFoundError."""
        tip = self._ledger.tip(EVIDENCE)
        known = self._documents(tip)
        if text == "last" and known:
            chosen = [list(_in_order(known))[-1].id]
        else:
            chosen = [text] if text in known else [id_ for id_ in known if id_.startswith(text)]
        if len(chosen) != 1 or not text:
            raise NotFoundError(
                f"{'no' if not chosen else 'more than one'} evidence is called {text!r}",
                remedy="see `muster drill list` for the drills that were run",
            )
        return replace(known[chosen[0]], signature=self._signature(tip, chosen[0]))

    def check(self, evidence: Evidence, signer: Signer | None, data: bytes = b"") -> Checked:
        """Verify one evidence: its hash, chain, copies, signature and verdict.

        `data` is the file that it was read from, where it came from one: every byte counts.
        """
        problems = list(problems_of(evidence))
        if data and data != pretty(evidence.document):
            problems.append("the file is not byte for byte as it was written")
        known = self._documents(self._ledger.tip(EVIDENCE))
        kept = known.get(evidence.id)
        if kept is None:
            problems.append("it is not on the ledger's evidence branch")
        elif pretty(kept.document) != pretty(evidence.document):
            problems.append("it differs from the one on the ledger's evidence branch")
        problems += self._ledger_problems(evidence.id)
        problems += _chain_problems(known, evidence)
        problems += self._vault_problems(evidence)
        seal = seal_of(pretty(evidence.document), evidence.signature, signer)
        if seal.problem:
            problems.append(seal.problem)
        found = judge(evidence.document)
        return Checked(evidence, found.verdict.value, found.reasons, seal, tuple(problems))

    def _ledger_problems(self, id_: str) -> Iterator[str]:
        tip = self._ledger.tip(EVIDENCE)
        path = f"{FOLDER}/{id_}.json"
        for found, data in self._ledger.files(tip, path) if tip else ():
            if found == path and data != pretty(opened(data, path).document):
                yield "the copy in the ledger is not byte for byte as it was written"

    def _vault_problems(self, evidence: Evidence) -> Iterator[str]:
        if self._vault is None:
            return
        base = f"{_VAULT}/{evidence.id}"
        names = set(self._vault.documents(f"{_VAULT}/"))
        if f"{base}.json" not in names:
            yield "the vault has no copy of it"
        elif self._vault.read_document(f"{base}.json").data != pretty(evidence.document):
            yield "it differs from the copy in the vault"
        signature = ""
        if f"{base}.sig" in names:
            data = self._vault.read_document(f"{base}.sig").data
            signature = data.decode("utf-8", "replace")
        ours = self._signature(self._ledger.tip(EVIDENCE), evidence.id)
        if signature != ours:
            yield "its signature differs between ledger and vault, or one of them has none"
        if f"{base}.html" in names:
            page_there = self._vault.read_document(f"{base}.html").data
            path = f"{FOLDER}/{evidence.id}.html"
            tip = self._ledger.tip(EVIDENCE)
            if any(f == path and d != page_there for f, d in self._ledger.files(tip, path)):
                yield "its page (HTML) differs between ledger and vault"
        known = self._documents(self._ledger.tip(EVIDENCE))
        lost = [
            name.rsplit("/", 1)[-1].removesuffix(".json")
            for name in sorted(names)
            if name.endswith(".json")
        ]
        for id_ in (id_ for id_ in lost if id_ not in known):
            yield f"the ledger has lost the evidence {id_}, which the vault has"


class Sealed(StrEnum):
    """What can be said of an evidence's signature."""

    VERIFIED = "verified"
    UNSIGNED = "unsigned"
    NO_KEY = "no-key"  # it is signed, and nobody here knows a key to verify it with
    BROKEN = "broken"  # changed since, or signed by a key that nobody vouches for


@dataclass(frozen=True, slots=True)
class Seal:
    """A signature, and what came of verifying it."""

    state: Sealed
    by: str = ""
    problem: str = ""  # what speaks against it

    def words(self) -> str:
        """Give it for people."""
        return {
            Sealed.VERIFIED: f"verified: {self.by}",
            Sealed.UNSIGNED: "not signed",
            Sealed.NO_KEY: "signed, not verified: no key to verify it with is configured here",
            Sealed.BROKEN: f"DOES NOT HOLD: {self.problem}",
        }[self.state]


def seal_of(data: bytes, signature: str, signer: Signer | None) -> Seal:
    """Verify a signature over the bytes of an evidence."""
    if not signature:
        wanted = signer is not None and signer.signs
        problem = "it is not signed, and a key is configured" if wanted else ""
        return Seal(Sealed.UNSIGNED, problem=problem)
    if signer is None:
        return Seal(Sealed.NO_KEY)
    try:
        return Seal(Sealed.VERIFIED, by=signer.verify(data, signature))
    except NotFoundError:
        return Seal(Sealed.NO_KEY)
    except DamagedStoreError as error:
        return Seal(Sealed.BROKEN, problem=error.what)
    except MusterError as error:  # there is no tool to verify it with
        return Seal(Sealed.NO_KEY, problem=f"its signature could not be verified: {error.what}")


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of verifying an evidence."""

    evidence: Evidence
    verdict: str  # computed again from what was recorded
    reasons: tuple[str, ...]
    seal: Seal
    problems: tuple[str, ...]

    @property
    def signed_by(self) -> str:
        """Who signed, "" when it is not signed, or no key to verify with is known."""
        return self.seal.by

    @property
    def whole(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.problems


def check_in_vault(vault: Vault, text: str, signer: Signer | None, data: bytes = b"") -> Checked:
    """Verify an evidence with nothing but the vault: hash, chain, copy, signature and verdict.

    `text` is an id, the beginning of one, or "last"; `data` the file it came from, if any. Raises
    NotFoundError.
    """
    paths = {p for p in vault.documents(f"{_VAULT}/") if p.endswith((".json", ".sig"))}
    known: dict[str, Evidence] = {}
    for path in sorted(p for p in paths if p.endswith(".json")):
        found = opened(vault.read_document(path).data, path)
        known[found.id] = found
    problems: list[str] = []
    if data:
        evidence = opened(data, text)
        if data != pretty(evidence.document):
            problems.append("the file is not byte for byte as it was written")
        there = known.get(evidence.id)
        if there is None:
            problems.append("the vault has no copy of it")
        elif pretty(there.document) != pretty(evidence.document):
            problems.append("it differs from the copy in the vault")
    else:
        ids = [id_ for id_ in known if id_ == text] or [i for i in known if i.startswith(text)]
        if text == "last" and known:
            ids = [list(_in_order(known))[-1].id]
        if len(ids) != 1 or not text:
            what = (
                f"{'no' if not ids else 'more than one'} evidence in the vault is called {text!r}"
            )
            raise NotFoundError(what, where=vault.location, remedy="name it by its id")
        evidence = known[ids[0]]
    signature = ""
    if (path := f"{_VAULT}/{evidence.id}.sig") in paths:
        signature = vault.read_document(path).data.decode("utf-8", "replace")
    problems = [*problems_of(evidence), *problems, *_chain_problems(known, evidence)]
    seal = seal_of(pretty(evidence.document), signature, signer)
    problems += [seal.problem] if seal.problem else []
    judged = judge(evidence.document)
    return Checked(evidence, judged.verdict.value, judged.reasons, seal, tuple(problems))


def opened(data: bytes, where: str) -> Evidence:
    """Read an evidence's JSON. Raises InputError when it is none."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InputError(
            "not evidence: it is not JSON", where=where, remedy="name a drill's evidence"
        ) from error
    if not isinstance(document, dict) or not isinstance(document.get("id"), str):
        raise InputError("not evidence", where=where, remedy="name a drill's evidence")
    value = document.get("hash")
    known = value if isinstance(value, str) else ""
    return Evidence(id=document["id"], document=document, hash=known)


def problems_of(evidence: Evidence) -> Iterator[str]:
    """Say what speaks against an evidence by itself: its hash, its script, its verdict."""
    document = evidence.document
    body: JsonObject = {k: v for k, v in document.items() if k != "hash"}
    if digest(canonical(body)) != document.get("hash"):
        yield "its hash does not fit: it was changed after it was written"
    script = document.get("script")
    text = script.get("text") if isinstance(script, dict) else None
    if (
        not isinstance(script, dict)
        or not isinstance(text, str)
        or digest(text.encode()) != script.get("sha256")
    ):
        yield "the copy of the script does not fit its digest"
    found = judge(document)
    if found.verdict.value != document.get("verdict"):
        yield f"what was recorded says {found.verdict}, and not {document.get('verdict')}"
    yield from _rehearsal_problems(document)


def _rehearsal_problems(document: JsonObject) -> Iterator[str]:
    """Say where a rehearsal's numbers do not follow from its runs."""
    rehearsal = document.get("rehearsal")
    if not isinstance(rehearsal, dict):
        return
    runs = rehearsal.get("runs")
    rows: list[Json] = runs if isinstance(runs, list) else []
    for run in rows:
        if isinstance(run, dict) and judge_run(document, run).verdict.value != run.get("verdict"):
            yield f"seed {run.get('seed')}: what was recorded is not {run.get('verdict')}"
    for name, value in distribution(rows).items():
        if rehearsal.get(name) != value:
            yield f"{name} of the rehearsal does not follow from its runs"


def _chain_problems(known: Mapping[str, Evidence], evidence: Evidence) -> Iterator[str]:
    by_hash = {e.hash: e for e in known.values()}
    at, seen = evidence, set[str]()
    while previous := at.document.get("previous"):
        if not isinstance(previous, str) or previous in seen:
            yield f"the chain is broken at {at.id}: it leads nowhere"
            return
        seen.add(previous)
        found = by_hash.get(previous)
        if found is None:
            yield f"the chain is broken at {at.id}: the evidence before it is missing or changed"
            return
        body: JsonObject = {k: v for k, v in found.document.items() if k != "hash"}
        if digest(canonical(body)) != previous:
            yield f"the chain is broken: {found.id} was changed after it was written"
            return
        at = found
    for previous, ids in forks(known).items():
        if previous == evidence.document.get("previous") or previous in seen:
            yield f"the chain forks: {' and '.join(ids)} follow the same evidence"
    later = [e for e in known.values() if e.document.get("previous") == evidence.hash]
    last = not later and len(known) > 1
    if last and _last(known) != evidence.hash and evidence.id in known:
        yield "no later evidence names it: it was exchanged"


def forks(known: Mapping[str, Evidence]) -> dict[str, list[str]]:
    """Give the ids that follow the same evidence, by its hash; "": that are a beginning.

    Who writes waits for the one before, so that a chain has one beginning and no fork.
    """
    after: dict[str, list[str]] = {}
    for evidence in known.values():
        after.setdefault(str(evidence.document.get("previous") or ""), []).append(evidence.id)
    return {previous: sorted(ids) for previous, ids in after.items() if len(ids) > 1}


def _last(known: Mapping[str, Evidence]) -> str:
    """Give the hash that no other evidence names, "" when there is none."""
    named = {str(e.document.get("previous")) for e in known.values()}
    tails = sorted(
        (str(e.document.get("finished_at")), e.hash) for e in known.values() if e.hash not in named
    )
    return tails[-1][1] if tails else ""


def _in_order(known: Mapping[str, Evidence]) -> Iterator[Evidence]:
    after: dict[str, list[Evidence]] = {}
    hashes = {e.hash for e in known.values()}
    for e in known.values():
        previous = str(e.document.get("previous", ""))
        after.setdefault(previous if previous in hashes else "", []).append(e)
    queue, seen = sorted(after.get("", []), key=lambda e: e.id), set[str]()
    while queue:
        at = queue.pop(0)
        if at.id in seen:
            continue
        seen.add(at.id)
        yield at
        queue = sorted(after.get(at.hash, []), key=lambda e: e.id) + queue


def _message(evidence: Evidence) -> str:
    return f"Drill {evidence.document.get('drill')}: {evidence.document.get('verdict')}"


# -------------------------------------------------------------------------------------- signing


class GitSigner:
    """Signs as Git does: with the key that `user.signingkey` and `gpg.format` name.

    Looked up in the ledger's own Git configuration, so that nothing new must be set up.
    """

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger
        self._key = self._setting("user.signingkey")
        self._format = self._setting("gpg.format") or "openpgp"

    def _setting(self, name: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self._ledger), "config", "--get", name],
            capture_output=True,
            check=False,
            text=True,
            timeout=30,
        )
        return done.stdout.strip()

    @property
    def signs(self) -> bool:
        """Whether a key is configured."""
        return bool(self._key)

    def sign(self, data: bytes) -> str:
        """Give an armoured signature, "" when no key is configured. Raises StoreError."""
        if not self._key:
            return ""
        if self._format == "ssh":
            key = str(Path(self._key).expanduser())
            return self._tool(["ssh-keygen", "-q", "-Y", "sign", "-f", key, "-n", "muster"], data)
        words = ["gpg", "--batch", "--yes", "--armor", "--detach-sign", "--local-user", self._key]
        return self._tool(words, data)

    def verify(self, data: bytes, signature: str) -> str:
        """Say who signed.

        Raises DamagedStoreError when the signature does not hold, NotFoundError when no key is
        configured that it could be verified with.
        """
        with tempfile.TemporaryDirectory(prefix="muster-sig-") as folder:
            file = Path(folder) / "signature"
            file.write_text(signature, "utf-8")
            if "BEGIN SSH SIGNATURE" in signature:
                return self._verify_ssh(data, file)
            content = Path(folder) / "content"
            content.write_bytes(data)
            words = ["gpg", "--batch", "--status-fd", "1", "--verify", str(file), str(content)]
            done = self._ran(words, b"")
            status = done.stdout.decode("utf-8", "replace")
            # Who has a key of their own has those of the others, too: what is not there then is
            # a key that nobody vouches for.
            if "[GNUPG:] NO_PUBKEY" in status and not self._key:
                raise NotFoundError("its signature is by a key that is not known here")
            if done.returncode != 0:
                raise DamagedStoreError(_DOES_NOT_HOLD)
            return _signer_of(status)

    def _verify_ssh(self, data: bytes, file: Path) -> str:
        allowed = self._setting("gpg.ssh.allowedSignersFile")
        if not allowed:
            self._tool(
                ["ssh-keygen", "-Y", "check-novalidate", "-n", "muster", "-s", str(file)], data
            )
            raise NotFoundError("gpg.ssh.allowedSignersFile is not set: nobody vouches for keys")
        signers = str(Path(allowed).expanduser())
        found = self._tool(
            ["ssh-keygen", "-Y", "find-principals", "-f", signers, "-s", str(file)], b""
        )
        who = found.split("\n")[0].strip()
        words = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", who, "-n", "muster"]
        self._tool([*words, "-s", str(file)], data)
        return who

    def _ran(self, words: Sequence[str], data: bytes) -> subprocess.CompletedProcess[bytes]:
        try:
            return subprocess.run(
                list(words), input=data, capture_output=True, check=False, timeout=60
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError(
                f"{words[0]} cannot be run", remedy=f"install {words[0]}, or unset user.signingkey"
            ) from error

    def _tool(self, words: Sequence[str], data: bytes) -> str:
        verifying = "sign" not in words and "--detach-sign" not in words
        done = self._ran(words, data)
        if done.returncode == 0:
            return done.stdout.decode("utf-8", "replace")
        if verifying:
            raise DamagedStoreError(_DOES_NOT_HOLD)
        raise StoreError(
            f"{words[0]} did not sign the evidence",
            where=self._key,
            remedy="check user.signingkey; a pass phrase must be held by an agent",
        )


_DOES_NOT_HOLD = (
    "its signature does not hold: it was changed, or signed by a key nobody vouches for"
)


def _signer_of(status: str) -> str:
    """Read who signed from gpg's status lines. Raises DamagedStoreError for a key that is over.

    gpg ends well for keys that expired or were revoked: doc/DETAILS of GnuPG, "GOODSIG".
    """
    for line in status.splitlines():
        parts = line.split(" ", 3)
        if len(parts) == 4 and parts[1] == "GOODSIG":
            return f"{parts[3]} ({parts[2]})"
    raise DamagedStoreError("its signature is by a key that has expired or was revoked")
