"""A whole recorded estate for the site: real ledger and vault, filled by hand, plain or hostile."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from drills.evidence import FOLDER as DRILLS
from drills.evidence import sealed
from drills.judge import distribution, judge, judge_run
from drills.verbs import Signer
from muster.report import site_signoffs as signoffs
from muster.report.site_gather import gather
from muster.report.site_model import Applied, Site
from muster.report.site_reading import Promises
from snapshots import replication
from snapshots.audit import archive
from snapshots.audit.report_json import report_document
from snapshots.audit.report_model import Attribution, AuditReport, Confidence
from snapshots.ledger import BASELINE, EVIDENCE, Ledger
from snapshots.model import (
    ChangeType,
    Gap,
    GapReason,
    Json,
    JsonObject,
    Key,
    PathChange,
    Payload,
    Resource,
    Snapshot,
    digest,
    pretty,
)
from snapshots.replication import CopyWay, Proof, Replica, ReplicaState, Replication, Run
from snapshots.vault import Vault, open_vault
from tests.audit_report_fixtures import HOSTILE, hostile, realistic

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
ACCOUNT = (SUBSCRIPTION, "rg-ai", "aoai-prod")
PAIR = ("swedencentral", "eastus2")
SCRIPT = "title: Bring it back\nobjective: {rto: 1h}\nsteps: []\n"
# What a key can hold: half a pair of UTF-16 is no name.
NAMES = tuple(t.encode("utf-8", "replace").decode() for t in HOSTILE if len(t) < 400)


class Stopped:
    """A clock that stands still until it is moved."""

    def __init__(self, moment: datetime = NOW) -> None:
        self.moment = moment

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


def account(name: str = "aoai-prod", region: str = "swedencentral") -> Resource:
    body: JsonObject = {"name": name, "location": region, "kind": "OpenAI"}
    return Resource(Key("account", (SUBSCRIPTION, "rg-ai", name)), f"/subscriptions/x/{name}", body)


def below(kind: str, name: str, body: JsonObject | None = None) -> Resource:
    return Resource(Key(kind, (*ACCOUNT, name)), f"/subscriptions/x/{kind}/{name}", body or {})


def drill_document(
    name: str = "bring-back",
    at: datetime = NOW,
    *,
    rto: float | None = 90.0,
    text: str = "",
    control: str = "failed",
    mode: str = "real",
    number: int = 1,
) -> JsonObject:
    """An evidence as a drill writes it; its verdict follows from it."""
    words = text or "the content filter refuses"
    check: JsonObject = {
        "name": words,
        "subject": words,
        "state": "passed",
        "detail": words,
        "seconds": 0.5,
        "negative_control": control,
        "control_detail": words,
    }
    step: JsonObject = {
        "name": words,
        "kind": "verb:restore",
        "state": "done",
        "phase": "restored",
        "seconds": 61.0,
        "calls": 4,
        "detail": words,
        "critical": True,
        "steps": [],
    }
    document: JsonObject = {
        "schema": "muster/evidence/1",
        "id": f"{at:%Y%m%dT%H%M%SZ}-{number:06x}",
        "drill": text or name,
        "title": text or "Bring it back",
        "script": {"sha256": digest((text or SCRIPT).encode()), "text": text or SCRIPT},
        "mode": mode,
        "seed": 1,
        "estate": words,
        "versions": {"muster": "0.1.0"},
        "started_at": (at - timedelta(minutes=2)).isoformat(),
        "finished_at": at.isoformat(),
        "interrupted": False,
        "verdict": "",
        "reasons": [text] if text else [],
        "findings": [text] if text else [],
        "objective": {"rto_seconds": 3600.0, "rpo_seconds": None},
        "blast_radius": words,
        "cost_ceiling": 1.0,
        "snapshot": words,
        "mapping": {},
        "target": words,
        "gate": [],
        "steps": [step, {**step, "name": "look again", "seconds": 20.0}],
        "checks": [check],
        "cleanup": {"state": "clean", "removed": [], "left": [], "proof": [words], "seconds": 1.0},
        "approvals": [words],
        "rto_seconds": rto,
        "rpo_seconds": 30.0,
        "phases": {"restored": 61.0},
        "rpo_by_class": {"restored": 30.0},
        "calls": 8,
        "cost_estimate": 0.0,
    }
    document["verdict"] = judge(document).verdict.value
    return document


def rehearsal_document(count: int, at: datetime = NOW, *, failing: int = -1) -> JsonObject:
    """The evidence of many runs in a sandbox; run `failing` has a step that failed."""
    runs: list[Json] = []
    for number in range(count):
        run = drill_document(rto=10.0 + number % 7, number=number)
        if number == failing:
            run["steps"] = [{"name": "restore", "state": "failed", "detail": "503", "steps": []}]
        run = {**run, "seed": number, "mode": "rehearsal"}
        run["verdict"] = judge_run(run, run).verdict.value
        runs.append(run)
    document = drill_document(at=at, mode="rehearsal", number=70, rto=None)
    document["rehearsal"] = {"runs_wanted": count, "runs": runs, "errors": [], **distribution(runs)}
    found = judge(document)
    return {**document, "verdict": found.verdict.value, "reasons": [*found.reasons]}


@dataclass(slots=True)
class Recorded:
    """A ledger and a vault, and what is put into them."""

    ledger: Ledger
    vault: Vault
    clock: Stopped
    last: str = ""  # hash of the newest evidence
    applied: tuple[Applied, ...] = ()

    def snapshot(self, resources: Sequence[Resource], gaps: Sequence[Gap] = ()) -> str:
        state = Snapshot(
            "contoso-ai",
            self.clock.now() - timedelta(minutes=10),
            "0.1.0",
            {r.key: r for r in resources},
            tuple(gaps),
            seconds=1.5,
        )
        return self.ledger.commit(state).commit

    def approve(self, by: str = "maria.lind@contoso.example", reason: str = "first") -> str:
        return self.ledger.copy(
            None, "live", BASELINE, "Approve the whole state", {"Approved-By": by, "Reason": reason}
        )

    def audit(self, report: AuditReport) -> None:
        found = replace(report, baseline=self.ledger.tip(BASELINE), live=self.ledger.tip())
        trailers = {
            "Audit-Id": " ".join(found.id.split()).encode("utf-8", "replace").decode(),
            "Findings": str(len(found.findings)),
            "Gaps": str(len(found.gaps)),
        }
        archive.keep(
            self.ledger, archive.State(), (), report_document(found), "Audit of contoso", trailers
        )

    def story(self, name: str, who: str) -> None:
        key = Key("deployment", (*ACCOUNT, name))
        story = archive.Story(
            key,
            ChangeType.CHANGED,
            NOW - timedelta(days=1),
            NOW - timedelta(hours=20),
            (archive.StoryPath(PathChange("/" + name, 1, 2)),),
            Attribution(who=who, confidence=Confidence.HIGH),
        )
        files: dict[str, bytes | None] = {story.file: pretty(archive.story_document(story))}
        self.ledger.put(EVIDENCE, files, "a story")

    def evidence(self, document: JsonObject, *, to_vault: bool = True) -> str:
        found = sealed(document, self.last)
        self.last = found.hash
        path, data = f"{DRILLS}/{found.id}.json", pretty(found.document)
        self.ledger.put(EVIDENCE, {path: data}, f"Drill {found.id}")
        if to_vault:
            self.vault.keep_document(f"evidence/{path}", data)
        return found.id

    def document(self, path: str, document: JsonObject) -> None:
        self.ledger.put(EVIDENCE, {path: pretty(document)}, f"put {path}")

    def ready(self, *checks: JsonObject, at: datetime = NOW, name: str = "latest") -> None:
        newest = next(iter(self.ledger.log(1))).snapshot
        states = [str(c["state"]) for c in checks]
        order = ("met", "at risk", "not known", "not met")
        verdict = max(states, key=order.index, default="not known")
        self.document(
            f"readiness/{name}.json",
            {
                "schema": "muster/ready/1",
                "kind": "ready",
                "verdict": verdict,
                "at": (at - timedelta(minutes=5)).isoformat(),
                "snapshot": newest,
                "pairs": [":".join(PAIR)],
                "objectives": [
                    {
                        "name": "rto",
                        "promised_seconds": 3600.0,
                        "state": verdict,
                        "date": None,
                        "detail": "all checks",
                    }
                ],
                "counts": {},
                "checks": [*checks],
            },
        )

    def sign(
        self,
        what: str,
        *,
        expires: datetime | None = None,
        owner: str = "maria.lind@contoso.example",
        reason: str = "retention rule 7",
    ) -> str:
        at = self.clock.now() - timedelta(days=1)
        return signoffs.write(
            self.ledger, signoffs.SignOff(what, owner, at, reason, expires=expires)
        )

    def verified(self, verdict: str = "whole") -> None:
        self.document(
            "verifications/2026/11/20261122T110000000000Z.json",
            {"kind": "verify", "verdict": verdict, "at": NOW.isoformat(), "damages": 0},
        )

    def replicated(self, model: str = "gpt-4o.ft-claims", *, complete: bool = True) -> None:
        source = Key("deployment", (*ACCOUNT, "claims"))
        target = Key("deployment", (SUBSCRIPTION, "rg-dr", "aoai-dr", "claims"))
        replica = Replica(
            source,
            model,
            target,
            model,
            CopyWay.SOURCE,
            ReplicaState.PROVED,
            NOW - timedelta(days=2),
            NOW - timedelta(days=3),
            proof=Proof(NOW - timedelta(days=2), 5, 5, 5, "base"),
            detail=model,
        )
        run = Run(NOW - timedelta(minutes=30), complete, 12, 40.0, "record-1", "snapshot-1")
        replication.write(self.ledger, Replication(*PAIR, run, (replica,)), "replicated")

    def site(
        self, *, now: datetime | None = None, pairs: bool = True, signer: Signer | None = None
    ) -> Site:
        return gather(
            self.ledger,
            self.vault,
            name="contoso-ai",
            now=now or self.clock.now(),
            version="0.1.0",
            promises=Promises(
                timedelta(hours=1), timedelta(hours=1), (PAIR,) if pairs else (), threads_read=False
            ),
            ledger_path="ledger.git",
            vault_location=self.vault.location,
            scripts={"bring-back": "Bring it back", "never-tried": "Nobody dared"},
            records=self.applied,
            signer=signer,
        )


def check(
    name: str = "quota",
    state: str = "met",
    *,
    pair: str | None = ":".join(PAIR),
    subject: str = "deployment/x/chat",
    date: datetime | None = None,
    detail: str = "",
    remedy: str = "",
) -> JsonObject:
    """One check as `muster ready` writes it."""
    return {
        "name": name,
        "subject": subject,
        "objective": "rto",
        "state": state,
        "detail": detail or f"{name} is {state}",
        "date": date.isoformat() if date else None,
        "remedy": remedy,
        "pair": pair,
    }


def recorded(folder: Path) -> Recorded:
    """An empty ledger and an empty vault."""
    clock = Stopped()
    folder.mkdir(parents=True, exist_ok=True)
    ledger = Ledger.open(folder / "ledger.git", clock=clock, version="0.1.0", create=True)
    vault = open_vault(str(folder / "vault"), clock=clock)
    vault.prepare()
    return Recorded(ledger, vault, clock)


_TEMPLATE: list[tuple[tempfile.TemporaryDirectory[str], str]] = []


def healthy(folder: Path) -> Recorded:
    """An estate of which everything is recorded, and all of it is as it should be.

    Made once in a process, and copied: its twenty commits take longer than its files.
    """
    if not _TEMPLATE:
        kept = tempfile.TemporaryDirectory(prefix="muster-healthy-", ignore_cleanup_errors=True)
        made = _healthy(Path(kept.name))
        made.ledger.close()
        made.vault.close()
        _TEMPLATE.append((kept, made.last))
    kept, last = _TEMPLATE[0]
    shutil.copytree(kept.name, folder, dirs_exist_ok=True)
    found = recorded(folder)
    found.last = last
    return found


def _healthy(folder: Path) -> Recorded:
    made = recorded(folder)
    payload = made.vault.keep([b"training"])
    file = Resource(
        Key("file", (*ACCOUNT, "train.jsonl")),
        "file-1",
        {"filename": "train.jsonl", "purpose": "fine-tune"},
        (Payload("content", payload.sha256, payload.size),),
    )
    made.snapshot([account(), account("aoai-dr", "eastus2"), below("deployment", "chat"), file])
    made.approve()
    made.audit(replace(realistic(), findings=(), gaps=(), risks=()))
    made.ready(check(), check("pair", pair=None))
    made.verified()
    made.replicated()
    for number in range(3):
        at = NOW - timedelta(hours=3 - number)
        made.evidence(drill_document(at=at, rto=60.0 + number, number=number))
    made.sign("thread")
    return made


def told(folder: Path) -> Recorded:
    """An estate with something of everything: findings, gaps, losses, clocks, old drills."""
    made = healthy(folder)
    gap = Gap(
        Key("agent", ACCOUNT),
        GapReason.DENIED,
        "the credential may not read agents",
        listing=True,
        hides=("agent",),
        status=403,
    )
    lost = below("file", "handbook.pdf", {"filename": "handbook.pdf", "purpose": "assistants"})
    plan = below("commitment-plan", "plan-a")
    made.snapshot(
        [account(), account("aoai-weu", "westeurope"), below("deployment", "chat"), lost, plan],
        [gap],
    )
    made.audit(realistic())
    made.story("chat", "anna.berg@contoso.example")
    made.ready(
        check("quota", "not met", remedy="ask for quota, then `muster ready` again"),
        check("capacity", "not known", detail="nobody answered"),
        check("network"),
        check(
            "rescue clock",
            "at risk",
            pair=None,
            subject="account aoai-old in rg-ai",
            date=NOW + timedelta(hours=30),
            remedy="1. the group; 2. `muster restore`",
        ),
        check("retirement", "at risk", date=NOW + timedelta(days=40)),
    )
    made.evidence(drill_document(at=NOW - timedelta(minutes=50), rto=7200.0, number=9))
    made.evidence(
        drill_document("other", NOW - timedelta(minutes=40), control="not-run", number=10)
    )
    return made


def spiteful(folder: Path) -> Recorded:
    """An estate in which every text that comes from outside is hostile."""
    made = recorded(folder)
    resources = [account()]
    for number, text in enumerate(NAMES):
        kind = ("deployment", "rai-policy", "commitment-plan", "file")[number % 4]
        resources.append(below(kind, text, {"name": text, "purpose": "assistants"}))
    gaps = [
        Gap(Key("agent", (*ACCOUNT, text)), GapReason.FAILED, text, code=text) for text in NAMES
    ]
    made.snapshot(resources, gaps)
    made.approve(NAMES[0].replace("\n", " "), NAMES[1])
    made.audit(hostile())
    for text in NAMES:
        made.story(text, text)
    made.ready(
        *(
            check(
                text,
                ("not met", "at risk", "not known", "met")[number % 4],
                subject=text,
                detail=text,
                remedy=text,
                pair=text,
                date=NOW + timedelta(hours=number),
            )
            for number, text in enumerate(NAMES)
        ),
        *(check("rescue clock", "at risk", subject=t, date=NOW, remedy=t) for t in NAMES),
    )
    made.replicated(NAMES[0])
    made.document("verifications/2026/11/x.json", {"verdict": NAMES[0], "at": NOW.isoformat()})
    for number, text in enumerate(NAMES):
        at = NOW - timedelta(minutes=number)
        made.evidence(drill_document(at=at, text=text, number=number, rto=float(number)))
    lines = [f"what: file/{'*'}", f"owner: {NAMES[0]!r}", "at: 2026-11-01", f"reason: {NAMES[4]!r}"]
    made.ledger.put(BASELINE, {"signoffs/evil.yaml": "\n".join(lines).encode()}, NAMES[0])
    return made
