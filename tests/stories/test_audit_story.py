"""Audits of a living estate: who did it, was it planned, how bad, and what it cost to find out."""

from __future__ import annotations

import random
import subprocess
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from snapshots.audit.archive import load_stories
from snapshots.audit.report_model import AuditReport, Class, Confidence, Finding, Severity
from snapshots.audit.run import Wishes
from snapshots.ledger import BASELINE, EVIDENCE
from snapshots.model import ChangeType
from tests.sandbox_fixtures import RunningSandbox
from tests.story_audit_fixtures import Person, Site, site_at

SWC = ("rg-ai-prod", "aoai-claims-swc")
CARE = ("rg-ai-care", "ais-care-swc")
HR = ("rg-ai-care", "aoai-hr-weu")


def only(report: AuditReport) -> Finding:
    assert len(report.findings) == 1, [(f.id, str(f.key), f.paths) for f in report.findings]
    return report.findings[0]


def set_capacity(
    site: Site, who: Person, capacity: int, deployment: tuple[str, str, str] = (*SWC, "gpt4o-mini")
) -> None:
    path = site.id(deployment[0], deployment[1], "deployments", deployment[2])
    body = who.does("GET", path)
    body["sku"]["capacity"] = capacity
    who.does("PUT", path, {"sku": body["sku"], "properties": body["properties"]})


def test_without_a_baseline_the_audit_says_so_and_how_to_approve_one(site: Site) -> None:
    told = site.run("audit", expect=2)
    assert "no baseline" in told
    assert "muster approve --all --reason" in told
    found = site.json("audit", expect=2)
    assert found["baseline"] is None
    assert found["findings"] == []
    site.run("approve", "--all", "--reason", "as built", "--by", "anna")
    assert site.json("audit")["findings"] == []


def test_a_finding_says_who_when_from_where_and_how_bad(site: Site) -> None:
    site.approve_all()
    anna = site.person("Anna Lindqvist")
    site.later()
    set_capacity(site, anna, 20)
    site.later()
    found = site.json("audit", expect=2)["findings"]
    assert len(found) == 1
    finding = found[0]
    assert finding["change"] == "changed"
    assert finding["kind"] == "deployment"
    assert finding["key"].endswith("/rg-ai-prod/aoai-claims-swc/gpt4o-mini")
    assert [(p["path"], p["before"], p["after"]) for p in finding["paths"]] == [
        ("/sku/capacity", 200, 20)
    ]
    assert finding["who"] == "anna.lindqvist@contoso.example"
    assert finding["principal_kind"] == "User"
    assert finding["address"].startswith("127.")
    assert finding["client"] == "Azure CLI"
    assert finding["operation"] == "Microsoft.CognitiveServices/accounts/deployments/write"
    assert finding["confidence"] == "high"
    assert finding["correlation_id"]
    assert finding["class"] == "unplanned"
    assert finding["severity"] == "high"
    assert [rule["id"] for rule in finding["rules"]] == ["builtin/capacity-cut"]
    assert finding["reasons"]


def test_resource_graph_tells_of_an_account_within_minutes(site: Site) -> None:
    site.settings(graph_delay=[5, 6])
    site.approve_all()
    site.later()
    anna = site.person("Anna Lindqvist")
    path = site.id("rg-ai-prod", "vision-claims-swc")
    anna.does("PATCH", path, {"properties": {"disableLocalAuth": True}})
    site.later(120)
    # The Activity Log has nothing yet.
    report = site.audit()
    assert report.reading.holes == ()
    finding = only(report)
    assert finding.attribution.who == anna.who
    assert finding.attribution.principal_kind.value == "User"
    assert any("Resource Graph" in reason for reason in finding.attribution.reasons)
    assert any("no record of it yet" in reason for reason in finding.attribution.reasons)
    site.later()
    finding = only(site.audit())
    assert any("same correlation id" in reason for reason in finding.attribution.reasons)
    assert finding.attribution.confidence is Confidence.HIGH
    assert finding.attribution.address.startswith("127.")


def test_a_record_that_comes_late_is_joined_by_the_next_audit(own_site: Site) -> None:
    site = own_site
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 30)
    first = only(site.audit())
    assert first.attribution.confidence is Confidence.NONE
    assert first.class_ is Class.UNKNOWN
    assert any("may still come" in reason for reason in first.attribution.reasons)
    site.later()
    second = only(site.audit())
    assert second.id == first.id
    assert second.attribution.who == site.person("pipeline").who
    assert second.class_ is Class.UNPLANNED
    # What was learned stays when Azure has forgotten it.
    site.later(91 * 86400)
    third = next(f for f in site.audit().findings if f.id == first.id)
    assert third.attribution.who == second.attribution.who
    stories = [p for p, _ in site.ledger().files(EVIDENCE, "stories/")]
    assert stories


def test_a_failed_read_is_unknown_and_never_a_removal(site: Site) -> None:
    site.approve_all()
    site.deny("/accounts/aoai-claims-swc/deployments")
    found = site.json("audit", "--sweep", expect=3)
    assert found["incomplete"] is True
    assert found["gaps"]
    assert found["findings"]
    assert {f["change"] for f in found["findings"]} == {"unknown"}
    assert {f["class"] for f in found["findings"]} == {"unknown"}
    site.sandbox.control("DELETE", "faults")
    assert site.json("audit")["findings"] == []


@pytest.mark.timeout(3600)  # a thousand reads in a long run
def test_an_untouched_estate_has_no_finding_however_the_server_answers(
    site: Site, scaled: Callable[[int, int], int]
) -> None:
    site.approve_all()
    for turn in range(scaled(6, 1000)):
        awkward = turn % 3 == 2  # now and then in pages of any size, the first of them empty
        pages = {"page_size": 3 + turn % 7 if awkward else 0, "empty_pages": awkward}
        site.settings(shuffle=True, **pages)
        report = site.audit(Wishes(sweep=True))
        assert report.findings == (), [(str(f.key), f.paths) for f in report.findings]
        assert not report.incomplete
    live = list(site.ledger().log(ref="live"))
    assert len(live) == 1  # nothing differs, so nothing was kept


# ---------------------------------------------------------------------------------- any edits


class Edits:
    """Random edits of an estate by random people, and what an audit must find of them."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.expected: dict[tuple[str, str], tuple[str, Person | None]] = {}

    def key(self, kind: str, *path: str, dr: bool = False) -> str:
        subscription = self.site.sandbox.subscriptions[1 if dr else 0]
        return f"{kind}/{subscription}/{'/'.join(path)}".lower()

    def note(self, key: str, change: str, who: Person | None) -> None:
        self.expected[key, change] = (change, who)

    def make(self, count: int) -> None:
        makers: list[Callable[[Person], None]] = [
            self.capacity,
            self.new_deployment,
            self.deleted_deployment,
            self.filter_threshold,
            self.new_filter,
            self.blocklist_item,
            self.tags,
            self.local_auth,
            self.granted,
            self.connection,
            self.diagnostics,
            self.group_tags,
        ]
        for maker in self.dice.sample(makers, count):
            maker(self.dice.choice(self.site.people))

    def capacity(self, who: Person) -> None:
        set_capacity(self.site, who, self.dice.randint(1, 60))
        self.note(self.key("deployment", *SWC, "gpt4o-mini"), "changed", who)

    def new_deployment(self, who: Person) -> None:
        name = f"extra-{self.dice.randint(1, 999)}"
        who.does(
            "PUT",
            self.site.id(*CARE, "deployments", name),
            {
                "sku": {"name": "GlobalStandard", "capacity": self.dice.randint(1, 5)},
                "properties": {
                    "model": {"format": "OpenAI", "name": "gpt-4.1-mini", "version": "2025-04-14"}
                },
            },
        )
        self.note(self.key("deployment", *CARE, name), "added", who)

    def deleted_deployment(self, who: Person) -> None:
        who.does("DELETE", self.site.id(*HR, "deployments", "hr-chat"))
        self.note(self.key("deployment", *HR, "hr-chat"), "removed", who)

    def filter_threshold(self, who: Person) -> None:
        path = self.site.id(*SWC, "raiPolicies", "claims-internal")
        body = who.does("GET", path)
        for entry in body["properties"]["contentFilters"]:
            if entry["name"] == "Violence":
                entry["severityThreshold"] = self.dice.choice(["Low", "Medium"])
        who.does("PUT", path, {"properties": body["properties"]})
        self.note(self.key("rai-policy", *SWC, "claims-internal"), "changed", who)

    def new_filter(self, who: Person) -> None:
        who.does(
            "PUT",
            self.site.id(*HR, "raiPolicies", "Fresh"),
            {
                "properties": {
                    "basePolicyName": "Microsoft.DefaultV2",
                    "mode": "Default",
                    "contentFilters": [
                        {
                            "name": "Hate",
                            "source": "Prompt",
                            "severityThreshold": "Low",
                            "blocking": True,
                            "enabled": True,
                        }
                    ],
                }
            },
        )
        self.note(self.key("rai-policy", *HR, "fresh"), "added", who)

    def blocklist_item(self, who: Person) -> None:
        name = f"word-{self.dice.randint(1, 999)}"
        who.does(
            "PUT",
            self.site.id(*SWC, "raiBlocklists", "competitors", "raiBlocklistItems", name),
            {"properties": {"pattern": name, "isRegex": False}},
        )
        self.note(self.key("rai-blocklist", *SWC, "competitors"), "changed", who)

    def tags(self, who: Person) -> None:
        tags = {"app": "vision", "touched": str(self.dice.random())}
        who.does("PATCH", self.site.id("rg-ai-prod", "vision-claims-swc"), {"tags": tags})
        self.note(self.key("account", "rg-ai-prod", "vision-claims-swc"), "changed", who)

    def local_auth(self, who: Person) -> None:
        path = self.site.id("rg-ai-care", "lang-care-swc")
        now = who.does("GET", path)["properties"].get("disableLocalAuth", False)
        who.does("PATCH", path, {"properties": {"disableLocalAuth": not now}})
        self.note(self.key("account", "rg-ai-care", "lang-care-swc"), "changed", who)

    def granted(self, _who: Person) -> None:
        owner = self.site.person("platform-owner")
        name = str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
        scope = self.site.id(*CARE)
        role = (
            f"/subscriptions/{self.site.sandbox.subscription}/providers/Microsoft.Authorization/"
            "roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
        )
        owner.does(
            "PUT",
            f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}"
            "?api-version=2022-04-01",
            {
                "properties": {
                    "roleDefinitionId": role,
                    "principalId": self.site.sandbox.principal("stranger")["object_id"],
                    "principalType": "ServicePrincipal",
                }
            },
        )
        self.note(self.key("role-assignment", *CARE, name), "added", owner)

    def connection(self, who: Person) -> None:
        path = self.site.id(*CARE, "projects", "care-desk", "connections", "parcel-service")
        body = who.does("GET", path)
        properties = body["properties"]
        wanted = {
            "category": properties["category"],
            "authType": "None",
            "target": f"https://parcels-{self.dice.randint(1, 999)}.example/api",
            "metadata": properties.get("metadata") or {},
        }
        who.does("PUT", path, {"properties": wanted})
        self.note(
            self.key("project-connection", *CARE, "care-desk", "parcel-service"), "changed", who
        )

    def diagnostics(self, who: Person) -> None:
        path = (
            f"{self.site.id(*CARE)}/providers/Microsoft.Insights/diagnosticSettings/to-log-ai"
            "?api-version=2021-05-01-preview"
        )
        who.does("DELETE", path)
        self.note(self.key("diagnostic-setting", *CARE, "to-log-ai"), "removed", who)

    def group_tags(self, who: Person) -> None:
        path = (
            f"/subscriptions/{self.site.sandbox.subscription}/resourcegroups/rg-shared-prod"
            "?api-version=2025-04-01"
        )
        body = who.does("GET", path)
        tags = {"env": "prod", "touched": str(self.dice.random())}
        who.does("PUT", path, {"location": body["location"], "tags": tags})
        self.note(self.key("resource-group", "rg-shared-prod"), "changed", who)


@pytest.mark.timeout(3600)
def test_findings_are_exactly_the_edits_and_name_who_made_them(
    sandbox: RunningSandbox,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scaled: Callable[[int, int], int],
) -> None:
    for seed in range(scaled(2, 200)):
        sandbox.reset()
        sandbox.control("PUT", "settings", {"throttle": False, "shuffle": seed % 2 == 1})
        site = site_at(sandbox, tmp_path / f"site{seed}", capsys)
        site.approve_all()
        site.later()
        dice = random.Random(seed)
        edits = Edits(site, dice)
        edits.make(dice.randint(1, 6))
        site.later()
        report = site.audit()
        found = {(str(f.key).lower(), f.change.value): f for f in report.findings}
        assert found.keys() == edits.expected.keys(), seed
        for name, (_, who) in edits.expected.items():
            finding = found[name]
            assert who is not None
            assert finding.attribution.who == who.who, (seed, name, finding.attribution)
            assert finding.attribution.principal_kind.value == who.kind, (seed, name)
            assert finding.class_ is Class.UNPLANNED, (seed, name, finding.reasons)
            assert finding.attribution.confidence is not Confidence.NONE
        again = site.audit()
        assert [f.id for f in again.findings] == [f.id for f in report.findings]


# ---------------------------------------------------------------------------------- the cost


def test_an_audit_reads_only_what_was_touched_and_the_sweep_finds_the_rest(site: Site) -> None:
    site.approve_all()
    whole = site.audit(Wishes(sweep=True))
    assert whole.reading.mode.value == "sweep"
    site.later()
    quiet = site.audit()
    assert quiet.reading.mode.value == "incremental"
    assert quiet.reading.accounts_read == 0
    assert quiet.calls.made < whole.calls.made / 5
    set_capacity(site, site.person("pipeline"), 33)
    agent_edit(site)  # leaves no record anywhere
    site.later()
    some = site.audit()
    assert some.reading.accounts_read == 1
    assert only(some).key.name == "gpt4o-mini"
    assert quiet.calls.made < some.calls.made < whole.calls.made / 2
    assert some.last_sweep == whole.last_sweep
    assert some.sweep_age is not None
    assert some.sweep_age >= 2 * 1300
    # The same record is no reason to read again; a finding that is open is.
    site.later()
    assert site.audit().reading.accounts_read == 1
    site.run("approve", only(some).id, "--reason", "agreed", "--by", "bo")
    assert site.audit().reading.accounts_read == 0
    swept = site.audit(Wishes(sweep=True))
    agent = only(swept)
    assert agent.kind == "agent"
    assert agent.attribution.confidence is Confidence.NONE
    assert "data plane" in agent.attribution.reasons[0]
    assert agent.class_ is Class.UNKNOWN
    assert agent.severity is Severity.HIGH


def agent_edit(site: Site) -> None:
    owner = site.person("muster")
    project = owner.does("GET", site.id(*CARE, "projects", "care-desk"))
    base = project["properties"]["endpoints"]["AI Foundry API"].rstrip("/")
    answer = site.sandbox.call(
        "POST",
        f"{base}/agents/front-desk/versions?api-version=v1",
        {
            "definition": {
                "kind": "prompt",
                "model": "care-chat",
                "instructions": "Tell everybody everything.",
            }
        },
        token=owner.token("https://ai.azure.com/.default"),
    )
    assert answer.status_code < 300, answer.text


def test_what_muster_wrote_is_seen_before_azure_tells_of_it(site: Site) -> None:
    site.settings(activity_delay=[1190, 1200])
    site.approve_all()
    site.later()
    set_capacity(site, site.person("pipeline"), 33)
    site.later()
    finding = only(site.audit())
    # The open finding: undone by somebody whose write no log tells of yet.
    set_capacity(site, site.person("Anna Lindqvist"), 200)
    report = site.audit()
    assert report.reading.mode.value == "incremental"
    assert report.findings == ()
    set_capacity(site, site.person("pipeline"), 33)
    # Negative control: of a write of others that is younger than the log, nobody knows.
    assert site.audit().findings == ()
    site.later()
    assert only(site.audit()).id == finding.id
    site.run("revert", finding.id, "--apply", "--yes", "--reason", "nobody planned it")
    report = site.audit()
    assert report.reading.mode.value == "incremental"
    assert report.findings == ()
    # No finding is open now, and muster's own record of the undo is all there is.
    site.run("undo", "last", "--yes", "--apply")
    # An audit of something else leaves what is owed for the next one.
    assert site.audit(Wishes(scope=("rg-ai-care",))).findings == ()
    report = site.audit()
    assert report.reading.mode.value == "incremental"
    assert report.reading.accounts_read == 1
    assert only(report).id == finding.id
    site.run("approve", finding.id, "--reason", "agreed", "--by", "bo")
    assert site.audit().reading.accounts_read == 0


def test_a_sweep_is_made_when_it_is_due_or_the_log_cannot_be_read(site: Site) -> None:
    site.approve_all()
    site.later()
    assert site.audit().reading.mode.value == "incremental"
    site.deny("eventtypes/management/values")
    holed = site.audit()
    assert holed.reading.mode.value == "sweep"
    assert "hole" in holed.reading.why
    assert holed.reading.holes
    site.sandbox.control("DELETE", "faults")
    site.later()
    assert site.audit().reading.mode.value == "incremental"
    site.later(86400)
    due = site.audit()
    assert due.reading.mode.value == "sweep"
    assert "older than" in due.reading.why


# ---------------------------------------------------------------------------------- plans


def put_plans(site: Site, text: str) -> None:
    site.ledger().put(BASELINE, {"changes/plans.yaml": text.encode()}, "Plan")


def test_a_change_record_makes_a_change_planned_and_says_where_it_differs(site: Site) -> None:
    site.approve_all()
    site.later()
    now = site.now
    put_plans(
        site,
        f"""
changes:
  - id: CHG-7
    what: deployment/aoai-claims-swc/gpt4o-mini
    paths: [sku.capacity]
    from: {(now - timedelta(hours=3)).isoformat()}
    until: {(now + timedelta(hours=6)).isoformat()}
    who: anna.lindqvist@contoso.example
    ticket: TICKET-7
    expected: {{sku.capacity: 50}}
""",
    )
    anna = site.person("Anna Lindqvist")
    set_capacity(site, anna, 50)
    site.later()
    finding = only(site.audit())
    assert finding.class_ is Class.PLANNED, finding.reasons
    assert finding.ticket == "TICKET-7"
    set_capacity(site, anna, 51)
    site.later()
    finding = only(site.audit())
    assert finding.class_ is Class.PLANNED_BUT_DIFFERENT
    assert any("50 was expected" in reason for reason in finding.reasons), finding.reasons
    set_capacity(site, site.person("pipeline"), 50)
    site.later()
    finding = only(site.audit())
    assert finding.class_ is Class.PLANNED_BUT_DIFFERENT
    assert any("does not name" in reason for reason in finding.reasons), finding.reasons


def test_a_trusted_pipeline_needs_a_record_and_no_more(site: Site) -> None:
    pipeline = site.sandbox.principal("pipeline")
    site.add_setting("audit", f'trusted = ["appid:{pipeline["client_id"]}"]')
    site.approve_all()
    site.later()
    set_capacity(site, site.person("pipeline"), 50)
    site.later()
    finding = only(site.audit())
    assert finding.class_ is Class.UNPLANNED
    assert any("trusted" in reason for reason in finding.reasons)
    put_plans(site, "changes:\n  - {id: CHG-8, what: '*/aoai-claims-swc/*', who: nobody}\n")
    assert only(site.audit()).class_ is Class.PLANNED


def test_a_deny_window_beats_a_record_and_a_wrong_plan_names_its_line(site: Site) -> None:
    site.approve_all()
    site.later()
    set_capacity(site, site.person("pipeline"), 50)
    site.later()
    record = "changes:\n  - {id: CHG-9, what: '*/aoai-claims-swc/*'}\n"
    put_plans(site, record)
    assert only(site.audit()).class_ is Class.PLANNED
    freeze = 'windows:\n  - {name: freeze, kind: deny, schedule: "* * * * *", duration: 2h}\n'
    put_plans(site, record + freeze)
    finding = only(site.audit())
    assert finding.class_ is Class.UNPLANNED
    assert "freeze" in finding.reasons[0]
    put_plans(site, "changes:\n  - id: CHG-9\n    waht: x\n")
    site.run("audit", expect=1)
    assert "changes/plans.yaml:3:5" in site.error
    assert "did you mean what?" in site.error


def test_what_azure_does_by_itself_is_of_the_platform(own_site: Site) -> None:
    site = own_site
    site.approve_all()
    # The deployment of a fine-tuned model that nobody calls is deleted after 15 days.
    site.later(16 * 86400)
    site.later()
    report = site.audit()
    gone = [f for f in report.findings if f.change is ChangeType.REMOVED]
    assert gone
    for finding in gone:
        assert finding.kind == "deployment"
        assert finding.class_ is Class.PLATFORM, finding.reasons
        assert finding.attribution.principal_kind.value == "platform"
        assert finding.attribution.who == "Azure"


def test_upgrades_and_retirements_are_of_the_platform(own_site: Site) -> None:
    site = own_site
    site.approve_all()
    # hr-chat moves when its version retires; gpt4o and gpt41 stay behind or move as they are told.
    report = site.audit()
    for _ in range(9):
        site.later(80 * 86400)  # the log keeps 90 days
        report = site.audit()
    moved = [f for f in report.findings if f.change is ChangeType.CHANGED]
    assert {f.key.name for f in moved} >= {"hr-chat", "gpt41"}
    assert "gpt4o" not in {f.key.name for f in moved}  # NoAutoUpgrade
    for finding in moved:
        assert finding.kind == "deployment"
        assert any(p.path.startswith("/properties/model/") for p in finding.paths)
        assert finding.class_ is Class.PLATFORM, finding.reasons
        assert finding.attribution.who == "Azure", finding.attribution
        assert "builtin/model-changed" in {rule.id for rule in finding.rules}


def test_a_merged_pull_request_is_an_approval(site: Site, tmp_path: Path) -> None:
    site.approve_all()
    site.later()
    set_capacity(site, site.person("pipeline"), 90)
    site.later()
    assert only(site.audit()).class_ is Class.UNPLANNED
    # Somebody takes the file of live into a branch of a clone, and it is merged.
    bare, clone = str(site.ledger().path), str(tmp_path / "clone")
    work = ["git", "-C", clone, "-c", "user.name=Bo", "-c", "user.email=bo@contoso.example"]
    subprocess.run(["git", "clone", "-q", "-b", "baseline", bare, clone], check=True)
    subprocess.run([*work, "checkout", "-q", "-b", "wish"], check=True)
    (file,) = Path(clone).glob("resources/*/rg-ai-prod/aoai-claims-swc/deployment/gpt4o-mini.json")
    name = str(file.relative_to(clone))
    subprocess.run([*work, "checkout", "-q", "origin/live", "--", name], check=True)
    subprocess.run([*work, "commit", "-q", "-m", "More capacity"], check=True)
    subprocess.run([*work, "checkout", "-q", "baseline"], check=True)
    subprocess.run([*work, "merge", "-q", "--no-ff", "-m", "Merge #7", "wish"], check=True)
    subprocess.run([*work, "push", "-q", "origin", "baseline"], check=True)
    report = site.audit()
    assert report.findings == ()
    assert report.baseline_by == "Bo"
    # What the pull request did not say is a finding as before.
    set_capacity(site, site.person("pipeline"), 91)
    site.later()
    assert only(site.audit()).class_ is Class.UNPLANNED


def test_a_merge_that_is_not_rolled_out_is_planned(site: Site) -> None:
    site.approve_all()
    ledger = site.ledger()
    key = ledger.find(BASELINE, "aoai-claims-swc/gpt4o-mini")
    path = next(
        p for p, _ in ledger.files(BASELINE) if p.endswith("swc/deployment/gpt4o-mini.json")
    )
    old = ledger.read(BASELINE, key)
    document: Any = old.document()
    document["body"]["sku"]["capacity"] = 90
    from snapshots.model import pretty

    ledger.put(BASELINE, {path: pretty(document)}, "Raise capacity", author="Bo")
    finding = only(site.audit())
    assert finding.class_ is Class.PLANNED, finding.reasons
    assert "not rolled out" in finding.reasons[0]


# ---------------------------------------------------------------------------------- decisions


def test_an_approval_moves_the_baseline_and_says_who_and_why(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = only(site.audit())
    site.run(
        "approve", finding.id, "--reason", "load", "--ticket", "CHG-1", "--by", "bo@contoso.example"
    )
    entry = site.ledger().entry(BASELINE)
    assert entry.trailers["Approved-By"] == "bo@contoso.example"
    assert entry.trailers["Reason"] == "load"
    assert entry.trailers["Ticket"] == "CHG-1"
    assert entry.author == "bo@contoso.example"
    assert site.audit().findings == ()
    site.run("approve", finding.id, "--reason", "again", "--by", "bo", expect=1)
    assert "muster audit" in site.error


def test_a_single_property_can_be_approved(site: Site) -> None:
    site.approve_all()
    owner = site.person("platform-owner")
    path = site.id("rg-ai-prod", "vision-claims-swc")
    owner.does("PATCH", path, {"tags": {"a": "1", "b": "2"}})
    first = only(site.audit())
    assert len(first.paths) >= 2
    site.run("approve", first.id, "--path", "/tags/a", "--reason", "ok", "--by", "bo")
    second = only(site.audit())
    assert {p.path for p in second.paths} == {p.path for p in first.paths} - {"/tags/a"}
    site.run("approve", second.id, "--path", "/nowhere", "--reason", "x", "--by", "bo", expect=1)


def test_an_approval_that_expires_is_a_finding_again(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = only(site.audit())
    site.run("approve", finding.id, "--reason", "load", "--expires", "1s", "--by", "bo")
    report = site.audit()
    for _ in range(60):
        if report.findings:
            break
        report = site.audit()
    assert only(report).id == finding.id
    assert "expired" in report.expired[0]


def test_chosen_severities_need_two_people_and_not_the_one_who_did_it(site: Site) -> None:
    site.add_setting("audit", 'four_eyes = ["high"]')
    site.approve_all()
    anna = site.person("Anna Lindqvist")
    site.later()
    set_capacity(site, anna, 40)
    site.later()
    finding = only(site.audit())
    assert finding.severity is Severity.HIGH
    site.run("approve", finding.id, "--reason", "mine", "--by", anna.who, expect=1)
    assert "somebody else" in site.error
    site.run("approve", finding.id, "--reason", "ok", "--by", "bo", expect=2)
    waiting = only(site.audit())
    assert waiting.pending is not None
    assert waiting.pending.by == ("bo",)
    site.run("approve", finding.id, "--reason", "ok", "--by", "Bo", expect=2)
    site.run("approve", finding.id, "--reason", "ok too", "--by", "carla")
    assert site.audit().findings == ()
    assert site.ledger().entry(BASELINE).trailers["Also-Approved-By"] == "bo"


def test_an_ignored_finding_is_counted_and_comes_back(site: Site) -> None:
    site.approve_all()
    pipeline = site.person("pipeline")
    set_capacity(site, pipeline, 40)
    finding = only(site.audit())
    site.run("ignore", finding.id, "--reason", "test", "--expires", "30d", "--by", "bo")
    found = site.json("audit")
    assert found["counts"]["ignored"] == 1
    assert found["findings"][0]["ignored"]["reason"] == "test"
    assert "1 ignored" in site.run("audit")
    set_capacity(site, pipeline, 41)  # another difference: not what was ignored
    site.run("audit", "--sweep", expect=2)


def test_an_ignored_finding_counts_again_when_that_expires(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 40)
    finding = only(site.audit())
    site.run("ignore", finding.id, "--reason", "test", "--expires", "1s", "--by", "bo")
    report = site.audit()
    for _ in range(60):
        if report.counting():
            break
        report = site.audit()
    assert only(report).id == finding.id
    assert only(report).ignored is None
    assert "ignore" in report.expired[0]
    assert "expired" in site.run("audit", expect=2)


def test_fail_on_lets_milder_findings_pass(site: Site) -> None:
    site.approve_all()
    site.person("platform-owner").does(
        "PATCH", site.id("rg-ai-prod", "vision-claims-swc"), {"tags": {"a": "1"}}
    )
    site.run("audit", expect=2)
    site.run("audit", "--fail-on", "high", expect=0)
    set_capacity(site, site.person("pipeline"), 1)
    site.run("audit", "--fail-on", "high", expect=2)
    site.run("audit", "--fail-on", "critical", expect=0)


def test_scope_and_since_leave_out_the_rest_and_say_so(site: Site) -> None:
    site.approve_all()
    set_capacity(site, site.person("pipeline"), 1)
    site.person("platform-owner").does(
        "PATCH", site.id("rg-ai-care", "lang-care-swc"), {"tags": {"a": "1"}}
    )
    both = site.json("audit", expect=2)
    assert len(both["findings"]) == 2
    some = site.json("audit", "--scope", "rg-ai-prod/aoai-claims-swc", expect=2)
    assert [f["kind"] for f in some["findings"]] == ["deployment"]
    assert some["counts"]["left_out"] == 1
    site.run("audit", "--scope", "rg-nowhere", expect=1)
    assert "names nothing" in site.error
    tomorrow = (site.now + timedelta(days=1)).isoformat()
    assert site.json("audit", "--since", tomorrow)["findings"] == []


def test_several_formats_go_to_a_folder(site: Site, tmp_path: Path) -> None:
    site.approve_all()
    site.run("audit", "--format", "text", "--format", "json", expect=1)
    folder = tmp_path / "reports"
    site.run("audit", "--format", "text", "--format", "json", "--output", str(folder))
    assert sorted(p.name for p in folder.iterdir()) == ["audit.json", "audit.txt"]


def test_the_life_of_a_resource_names_every_author(site: Site) -> None:
    site.approve_all()
    site.later()
    anna, pipeline = site.person("Anna Lindqvist"), site.person("pipeline")
    set_capacity(site, anna, 50)
    site.later()
    finding = only(site.audit())
    path = site.id(*SWC, "deployments", "gpt4o-mini")
    body = anna.does("GET", path)
    body["properties"]["versionUpgradeOption"] = "NoAutoUpgrade"
    pipeline.does("PUT", path, {"sku": body["sku"], "properties": body["properties"]})
    site.later()
    both = only(site.audit())
    assert {p.path: p.attribution.who for p in both.paths if p.attribution} == {
        "/sku/capacity": anna.who,
        "/properties/versionUpgradeOption": pipeline.who,
    }
    site.run("approve", both.id, "--reason", "agreed", "--ticket", "CHG-3", "--by", "bo")
    assert finding.id != both.id
    life = site.json("history", "aoai-claims-swc/gpt4o-mini")["changes"]
    told = [(step["branch"], step["change"], step["attribution"]["who"]) for step in life]
    assert ("baseline", "changed", "bo") in told
    assert ("live", "changed", pipeline.who) in told
    assert ("live", "changed", anna.who) in told
    assert told.index(("live", "changed", pipeline.who)) < told.index(("live", "changed", anna.who))
    properties = site.json("blame", "aoai-claims-swc/gpt4o-mini")["properties"]
    blamed = {line["path"]: line["attribution"]["who"] for line in properties}
    assert blamed["/sku/capacity"] == anna.who
    assert blamed["/properties/versionUpgradeOption"] == pipeline.who
    assert blamed["/properties/model/name"] is None
    assert anna.who in site.run("history", "aoai-claims-swc/gpt4o-mini")
    assert pipeline.who in site.run("blame", "aoai-claims-swc/gpt4o-mini")
    site.run("history", "nothing-of-this-name", expect=1)


def test_a_plain_snapshot_between_two_audits_gives_nobody_anothers_change(site: Site) -> None:
    site.approve_all()
    site.later()
    anna, pipeline = site.person("Anna Lindqvist"), site.person("pipeline")
    owner = site.person("platform-owner")
    chat = (*HR, "hr-chat")
    path = site.id(*HR, "deployments", "hr-chat")
    set_capacity(site, anna, 50, chat)
    site.later()
    assert only(site.audit()).attribution.who == anna.who
    # What a snapshot reads has no story yet, and the one there is tells of another change.
    set_capacity(site, pipeline, 51, chat)
    site.run("snapshot", "--quiet", "--no-reference")
    site.later()
    assert only(site.audit()).attribution.who == pipeline.who
    set_capacity(site, anna, 52, chat)
    site.run("snapshot", "--quiet", "--no-reference")
    site.later()
    body = anna.does("GET", path)
    pipeline.does("DELETE", path)
    site.later()
    site.run("snapshot", "--quiet", "--no-reference")
    site.later()
    body["sku"]["capacity"] = 53
    owner.does("PUT", path, {"sku": body["sku"], "properties": body["properties"]})
    site.later()
    # Made anew by its owner: nothing in it is of those who changed what was there before.
    found = only(site.audit())
    assert {p.path: p.attribution.who for p in found.paths if p.attribution} == {
        "/sku/capacity": owner.who
    }
    life = site.json("history", "aoai-hr-weu/hr-chat")["changes"]
    told = [(s["change"], s["attribution"]["who"]) for s in life if s["branch"] == "live"]
    assert told[:5] == [
        ("added", owner.who),
        ("removed", pipeline.who),
        ("changed", anna.who),
        ("changed", pipeline.who),
        ("changed", anna.who),
    ]


def test_what_is_read_after_an_audit_comes_later_than_the_stories_of_it(site: Site) -> None:
    """Also where Azure's clock, of whole seconds, makes both the same moment."""
    site.approve_all()
    site.later()
    site.sandbox.control("POST", "clock", {"scale": 60})  # an audit takes a while by its clock
    set_capacity(site, site.person("Anna Lindqvist"), 50, (*HR, "hr-chat"))
    site.later()
    site.audit()
    ledger = site.ledger()
    (story,) = load_stories(ledger)[ledger.find("live", "aoai-hr-weu/hr-chat")]
    entry = ledger.entry("live")
    assert datetime.fromisoformat(entry.trailers["Read-Until"]) == story.until
    assert story.until > datetime.fromisoformat(entry.trailers["Read-At"])


def test_a_write_that_was_told_is_no_reason_for_what_was_changed_since(site: Site) -> None:
    """The record of the later write has not come yet: nobody is better than the wrong one."""
    site.approve_all()
    site.later()
    anna, pipeline = site.person("Anna Lindqvist"), site.person("pipeline")
    chat = (*HR, "hr-chat")
    set_capacity(site, anna, 50, chat)
    site.later()
    assert only(site.audit()).attribution.who == anna.who
    site.settings(activity_delay=[900, 900])
    set_capacity(site, pipeline, 51, chat)
    site.run("snapshot", "--quiet", "--no-reference")
    site.later(600)
    found = only(site.audit())
    assert (found.attribution.who, found.attribution.confidence) == ("", Confidence.NONE)
    site.later(600)  # it comes, and is joined
    assert only(site.audit()).attribution.who == pipeline.who
