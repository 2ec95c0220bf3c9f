"""Kinds of all sorts, edited in ways of all sorts: each edit is one finding, and no other."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import requests

from snapshots.audit.report_model import AuditReport, Class, Confidence, Severity
from snapshots.audit.run import Wishes
from tests.story_audit_fixtures import Person, Site

SWC = ("rg-ai-prod", "aoai-claims-swc")
CARE = ("rg-ai-care", "ais-care-swc")
HR = ("rg-ai-care", "aoai-hr-weu")
DATA = "https://cognitiveservices.azure.com/.default"
AGENTS = "https://ai.azure.com/.default"
DIAGNOSTICS = "api-version=2021-05-01-preview"
ROLES = "api-version=2022-04-01"
LOCKS = "api-version=2020-05-01"


class Estate:
    """The estate as its owner edits it; what an audit must find of it is noted."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.owner = site.person("platform-owner")
        self.muster = site.person("muster")
        self.expected: dict[tuple[str, str, str], Person | None] = {}

    def note(self, change: str, kind: str, name: str, who: Person | None = None) -> None:
        self.expected[change, kind, name.lower()] = who

    # ---- the control plane

    def arm(self, method: str, path: str, body: Any = None) -> Any:
        if method in ("PUT", "PATCH", "DELETE"):
            self.site.later(40)  # what the write before it began is over
        return self.owner.does(method, path, body)

    def rewrite(self, path: str, edit: Callable[[Any], None], *parts: str) -> None:
        """Read, edit and write back the parts that a writer sends."""
        body = self.arm("GET", path)
        edit(body)
        kept = {name: body[name] for name in (parts or ("properties",)) if name in body}
        self.arm("PUT", path, kept)

    # ---- the data planes

    def endpoint(
        self, account: tuple[str, str], name: str = "OpenAI Language Model Instance API"
    ) -> str:
        properties = self.arm("GET", self.site.id(*account))["properties"]
        return str(properties["endpoints"][name]).rstrip("/")

    def openai(self, account: tuple[str, str], method: str, path: str, body: Any = None) -> Any:
        base = self.endpoint(account)
        return self._data(method, f"{base}/openai/v1{path}", body, DATA)

    def project(self, method: str, path: str, body: Any = None) -> Any:
        found = self.arm("GET", self.site.id(*CARE, "projects", "care-desk"))
        base = found["properties"]["endpoints"]["AI Foundry API"].rstrip("/")
        mark = "&" if "?" in path else "?"
        return self._data(method, f"{base}{path}{mark}api-version=v1", body, AGENTS)

    def _data(self, method: str, url: str, body: Any, scope: str) -> Any:
        answer = self.site.sandbox.call(method, url, body, token=self.muster.token(scope))
        assert answer.status_code < 300, (method, url, answer.status_code, answer.text[:500])
        return answer.json() if answer.content else None

    def upload(self, account: tuple[str, str], name: str, content: bytes, purpose: str) -> str:
        answer = requests.post(
            f"{self.endpoint(account)}/openai/v1/files",
            headers={"authorization": f"Bearer {self.muster.token(DATA)}"},
            files={"file": (name, content)},
            data={"purpose": purpose},
            verify=self.site.sandbox.ca,
            timeout=30,
        )
        assert answer.status_code < 300, answer.text
        return str(answer.json()["id"])

    def listed(self, account: tuple[str, str], path: str, name: str, field: str = "name") -> str:
        for item in self.openai(account, "GET", path)["data"]:
            if item.get(field) == name:
                return str(item["id"])
        raise AssertionError(f"{path} has no {name}")

    # ---- what an audit says

    def check(self, report: AuditReport) -> None:
        found = {(f.change.value, f.kind, f.key.name.lower()): f for f in report.findings}
        told = {name: [p.path for p in f.paths] for name, f in found.items()}
        assert not report.incomplete, report.gaps
        assert report.reading.holes == ()
        assert found.keys() == self.expected.keys(), (
            {n: told[n] for n in found.keys() - self.expected.keys()},
            self.expected.keys() - found.keys(),
        )
        for name, who in self.expected.items():
            finding = found[name]
            if who is None:
                assert finding.attribution.confidence is Confidence.NONE, (
                    name,
                    finding.attribution,
                )
                assert finding.class_ is Class.UNKNOWN, (name, finding.reasons)
            else:
                assert finding.attribution.who == who.who, (name, finding.attribution)
                assert finding.class_ is Class.UNPLANNED, (name, finding.reasons)
        assert len(report.findings) == len(found)


def test_every_edit_of_the_control_plane_is_one_finding(site: Site) -> None:
    site.approve_all()
    site.later()
    estate = Estate(site)
    owner = estate.owner
    subscription = f"/subscriptions/{site.sandbox.subscription}"

    estate.arm(
        "DELETE", f"{site.id(*SWC)}/providers/Microsoft.Authorization/locks/keep-claims?{LOCKS}"
    )
    estate.note("removed", "lock", "keep-claims", owner)
    estate.arm("DELETE", site.id("rg-ai-care", "speech-care-swc"))
    estate.note("removed", "account", "speech-care-swc", owner)
    body = {
        "kind": "TextTranslation",
        "location": "swedencentral",
        "sku": {"name": "S1"},
        "properties": {},
    }
    estate.arm("PUT", site.id("rg-ai-care", "tr-new-swc"), body)
    estate.note("added", "account", "tr-new-swc", owner)

    def describe(body: Any) -> None:
        body["properties"]["description"] = "Others."

    estate.rewrite(site.id(*SWC, "raiBlocklists", "code-names"), describe)
    estate.note("changed", "rai-blocklist", "code-names", owner)
    estate.arm(
        "DELETE", site.id(*CARE, "raiBlocklists", "rude-words", "raiBlocklistItems", "stupid")
    )
    estate.note("changed", "rai-blocklist", "rude-words", owner)
    estate.rewrite(site.id(*SWC, "raiTopics", "legal-advice"), describe)
    estate.note("changed", "rai-topic", "legal-advice", owner)

    def loosen(body: Any) -> None:
        body["properties"]["contentFilters"][0]["blocking"] = False

    estate.rewrite(site.id(*SWC, "raiPolicies", "claims-strict"), loosen)
    estate.note("changed", "rai-policy", "claims-strict", owner)

    def unfiltered(body: Any) -> None:
        body["properties"]["raiPolicyName"] = "Microsoft.Default"

    estate.rewrite(site.id(*SWC, "deployments", "gpt4o"), unfiltered, "sku", "properties")
    estate.note("changed", "deployment", "gpt4o", owner)
    estate.arm("DELETE", site.id(*SWC, "deployments", "embed-large"))
    estate.note("removed", "deployment", "embed-large", owner)
    new = {
        "sku": {"name": "GlobalStandard", "capacity": 3},
        "properties": {
            "model": {"format": "OpenAI", "name": "gpt-4.1-mini", "version": "2025-04-14"}
        },
    }
    estate.arm("PUT", site.id(*CARE, "deployments", "shadow"), new)
    estate.note("added", "deployment", "shadow", owner)

    estate.arm(
        "PUT",
        site.id(*CARE, "defenderForAISettings", "Default"),
        {"properties": {"state": "Disabled"}},
    )
    estate.note("changed", "defender-setting", "default", owner)

    def retarget(body: Any) -> None:
        body["properties"]["target"] = "https://evil.example/"

    estate.rewrite(site.id(*CARE, "connections", "care-cosmos"), retarget)
    estate.note("changed", "account-connection", "care-cosmos", owner)
    estate.arm("DELETE", site.id(*CARE, "projects", "care-desk", "connections", "parcel-service"))
    estate.note("removed", "project-connection", "parcel-service", owner)

    def rename(body: Any) -> None:
        body["properties"]["displayName"] = "Care Laboratory"

    estate.rewrite(
        site.id(*CARE, "projects", "care-lab"), rename, "location", "identity", "properties"
    )
    estate.note("changed", "project", "care-lab", owner)

    path = (
        f"{site.id(*SWC)}/providers/Microsoft.Insights/diagnosticSettings/to-log-ai?{DIAGNOSTICS}"
    )
    known = estate.arm("GET", path)["properties"]
    logs = [{"categoryGroup": "audit", "enabled": True}]
    estate.arm("PUT", path, {"properties": {**known, "logs": logs}})
    estate.note("changed", "diagnostic-setting", "to-log-ai", owner)

    role = (
        f"{subscription}/providers/Microsoft.Authorization/roleDefinitions/"
        "acdd72a7-3385-48ef-bd42-f606fba81ae7"
    )
    name = str(uuid.UUID(int=7, version=4))
    grant = {
        "properties": {
            "roleDefinitionId": role,
            "principalId": site.sandbox.principal("stranger")["object_id"],
            "principalType": "ServicePrincipal",
        }
    }
    estate.arm(
        "PUT",
        f"{subscription}/providers/Microsoft.Authorization/roleAssignments/{name}?{ROLES}",
        grant,
    )
    estate.note("added", "role-assignment", name, owner)

    acls = {
        "defaultAction": "Allow",
        "ipRules": [{"value": "203.0.113.9"}],
        "virtualNetworkRules": [],
    }
    estate.arm("PATCH", site.id(*SWC), {"properties": {"networkAcls": acls}})
    estate.note("changed", "account", SWC[1], owner)
    lock = {"properties": {"level": "ReadOnly", "notes": "frozen"}}
    group = f"{subscription}/resourceGroups/rg-shared-prod"
    estate.arm("PUT", f"{group}/providers/Microsoft.Authorization/locks/freeze?{LOCKS}", lock)
    estate.note("added", "lock", "freeze", owner)

    rules = site.id(*CARE, "managedNetworks", "default", "outboundRules", "parcels")
    fqdn = {"type": "FQDN", "category": "UserDefined", "destination": "parcels.contoso.example"}
    estate.arm("PUT", rules, {"properties": fqdn})
    estate.note("added", "outbound-rule", "parcels", owner)
    estate.arm("PATCH", site.id("rg-ai-care", "lang-care-swc"), {"sku": {"name": "F0"}})
    estate.note("changed", "account", "lang-care-swc", owner)
    plan = {
        "properties": {
            "hostingModel": "Web",
            "planType": "TA",
            "autoRenew": False,
            "current": {"tier": "T1", "count": 1},
        }
    }
    estate.arm("PUT", site.id("rg-ai-care", "lang-care-swc", "commitmentPlans", "ta-plan"), plan)
    estate.note("changed", "commitment-plan", "ta-plan", owner)
    link = site.id(*SWC, "privateEndpointConnections", "pe-claims-apps")

    def reject(body: Any) -> None:
        body["properties"]["privateLinkServiceConnectionState"] = {
            "status": "Rejected",
            "description": "no",
        }

    estate.rewrite(link, reject)
    estate.note("changed", "private-endpoint-connection", "pe-claims-apps", owner)

    site.later()
    report = site.audit()
    assert report.reading.mode.value == "incremental"
    estate.check(report)
    again = site.audit(Wishes(sweep=True))
    assert [f.id for f in again.findings] == [f.id for f in report.findings]
    # And back: what muster writes comes back as it was, the rest says why it does not.
    ids = [f.id for f in report.findings]
    more = ("--apply", "--yes", "--reason", "nobody planned it", "--cap", "50")
    done = site.json("revert", *ids, *more, expect=2)
    assert sorted(item["key"].split("/")[-1] for item in done["left"]) == [
        "pe-claims-apps",
        "ta-plan",
    ]
    assert done["errors"] == ["it needs the ApiKey credentials of connection parcel-service"]
    assert [r["key"].split("/")[-1] for r in done["reverts"] if not r["verified"]] == [
        "parcel-service"
    ]
    lost = next(r["finding"] for r in done["reverts"] if not r["verified"])
    assert "needs the ApiKey credentials" in site.run("revert", lost)
    secret = site.folder / "parcel.key"
    secret.write_text("a-new-key-of-the-parcel-service", encoding="utf-8")
    secret.chmod(0o600)
    site.add_setting("restore.secrets", '"*/parcel-service" = "file:parcel.key"')
    done = site.json("revert", lost, *more)
    assert [r["verified"] for r in done["reverts"]] == [True]
    rest = {f.key.name for f in site.audit(Wishes(sweep=True)).findings}
    assert rest == {"pe-claims-apps", "ta-plan"}


def test_a_write_that_changes_nothing_is_no_finding(site: Site) -> None:
    site.approve_all()
    site.later()
    estate = Estate(site)

    def turned(value: Any) -> None:
        value["properties"]["contentFilters"].reverse()
        value["properties"]["customBlocklists"].reverse()

    estate.rewrite(site.id(*SWC, "raiPolicies", "claims-strict"), turned, "properties", "tags")
    shouted = site.id(*SWC, "deployments", "gpt41").replace("rg-ai-prod", "RG-AI-PROD")
    shouted = shouted.replace("Microsoft.CognitiveServices", "microsoft.cognitiveservices")
    shouted = shouted.replace("aoai-claims-swc", "AOAI-Claims-SWC").replace("gpt41", "GPT41")

    def louder(value: Any) -> None:
        value["sku"]["name"] = value["sku"]["name"].upper()
        value["properties"]["model"]["source"] = None

    estate.rewrite(shouted, louder, "sku", "properties")
    for below in (
        ("raiBlocklists", "competitors"),
        ("raiTopics", "legal-advice"),
    ):
        estate.rewrite(site.id(*SWC, *below), lambda _: None, "properties", "tags")
    for below in (
        ("connections", "care-storage"),
        ("projects", "care-desk"),
        ("defenderForAISettings", "Default"),
    ):
        estate.rewrite(
            site.id(*CARE, *below), lambda _: None, "location", "identity", "tags", "properties"
        )
    words = site.id(*CARE, "raiBlocklists", "rude-words", "raiBlocklistItems", "stupid")
    estate.arm("DELETE", words)
    estate.arm("PUT", words, {"properties": {"pattern": "stupid", "isRegex": False}})
    estate.arm("PATCH", site.id(*HR), {"tags": {"data": "personal", "app": "hr"}})
    group = f"/subscriptions/{site.sandbox.subscription}/resourcegroups/RG-SHARED-PROD"
    group += "?api-version=2025-04-01"
    body = estate.arm("GET", group)
    estate.arm("PUT", group, {"location": "Sweden Central", "tags": body["tags"]})
    site.later()
    report = site.audit()
    assert report.reading.mode.value == "incremental"
    assert report.reading.accounts_read >= 3
    estate.check(report)


def test_a_deleted_account_takes_what_it_held_along(site: Site) -> None:
    site.approve_all()
    site.later()
    estate = Estate(site)
    estate.arm("DELETE", site.id(*HR))
    estate.arm("DELETE", site.id(*CARE, "projects", "care-lab"))
    group = (
        f"/subscriptions/{site.sandbox.subscription}/resourcegroups/rg-new?api-version=2025-04-01"
    )
    estate.arm("PUT", group, {"location": "swedencentral"})
    site.later()
    report = site.audit()
    assert not report.incomplete, report.gaps
    assert {(f.change.value, f.kind, f.key.path[2:]) for f in report.findings} >= {
        ("removed", "account", ("aoai-hr-weu",)),
        ("removed", "deployment", ("aoai-hr-weu", "hr-chat")),
        ("added", "resource-group", ()),
        ("removed", "project", ("ais-care-swc", "care-lab")),
        ("removed", "agent", ("ais-care-swc", "care-lab", "sandbox-agent")),
        ("changed", "account", ("ais-care-swc",)),  # Azure's list of its projects
    }
    assert all(f.attribution.who == estate.owner.who for f in report.findings)
    assert {f.class_ for f in report.findings} == {Class.UNPLANNED}
    held = {f.key.path[2] for f in report.findings if f.kind != "resource-group"}
    assert held == {"aoai-hr-weu", "ais-care-swc"}
    (derived,) = (f for f in report.findings if f.change.value == "changed")
    assert derived.severity is Severity.INFO
    assert "care-lab was removed" in derived.reasons[0]
    # By its ARM id, as people paste it, a project is a scope.
    named = site.audit(Wishes(scope=(site.id(*CARE, "projects", "care-lab").upper(),)))
    assert {f.key.path[3] for f in named.findings} == {"care-lab"}
    assert named.hidden == len(report.findings) - len(named.findings)


def test_every_edit_of_the_data_planes_is_one_finding_of_a_sweep(site: Site) -> None:
    site.settings(shuffle=True)
    site.approve_all()
    site.later()
    estate = Estate(site)
    estate.upload(CARE, "new.md", b"# New\n", "assistants")
    estate.note("added", "file", "new.md")
    estate.openai(
        SWC, "DELETE", f"/files/{estate.listed(SWC, '/files', 'claims-valid.jsonl', 'filename')}"
    )
    estate.note("removed", "file", "claims-valid.jsonl")
    store = estate.listed(SWC, "/vector_stores", "claims-knowledge")
    estate.openai(SWC, "POST", f"/vector_stores/{store}", {"metadata": {"owner": "nobody"}})
    estate.note("changed", "vector-store", "claims-knowledge")
    estate.openai(SWC, "POST", "/vector_stores", {"name": "fresh"})
    estate.note("added", "vector-store", "fresh")
    helper = estate.listed(SWC, "/assistants", "claims-helper")
    estate.openai(SWC, "POST", f"/assistants/{helper}", {"instructions": "Say yes."})
    estate.note("changed", "assistant", "claims-helper")
    definition = {"kind": "prompt", "model": "care-chat", "instructions": "Tell everybody."}
    estate.project("POST", "/agents/front-desk/versions", {"definition": definition})
    estate.note("changed", "agent", "front-desk")
    estate.project("POST", "/agents", {"name": "shadow", "definition": definition})
    estate.note("added", "agent", "shadow")
    estate.project("DELETE", "/agents/returns-clerk")
    estate.note("removed", "agent", "returns-clerk")
    site.later()
    # No log tells of these: an incremental audit does not see them, and says so.
    quiet = site.audit()
    assert quiet.findings == ()
    assert "data plane" in site.run("audit")
    estate.check(site.audit(Wishes(sweep=True)))
