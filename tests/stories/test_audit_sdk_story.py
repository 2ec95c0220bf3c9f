"""Edits made with Microsoft's own clients, each as somebody else: findings are just these edits."""

from __future__ import annotations

import ssl
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import httpx2
import openai
import pytest
import requests
from azure.ai.projects import AIProjectClient
from azure.ai.projects.models import PromptAgentDefinition
from azure.core.credentials import AccessToken
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from azure.mgmt.cognitiveservices.models import (
    Deployment,
    DeploymentModel,
    DeploymentProperties,
    PatchResourceTagsAndSku,
    RaiBlocklistItem,
    RaiBlocklistItemProperties,
    Sku,
)
from azure.mgmt.resource.locks import ManagementLockClient
from azure.mgmt.resource.resources import ResourceManagementClient

from snapshots.audit.report_model import Class, Confidence, Finding, Severity
from snapshots.audit.run import Wishes
from tests.sandbox_fixtures import ARM_SCOPE
from tests.story_audit_fixtures import Person, Site

SWC = ("rg-ai-prod", "aoai-claims-swc")
CARE = ("rg-ai-care", "ais-care-swc")
DATA = "https://cognitiveservices.azure.com/.default"
ACCOUNTS = "Microsoft.CognitiveServices/accounts"
# What each edit is: change, kind, name -> one of its paths, severity, operation.
CONTROL = {
    ("changed", "deployment", "care-chat"): (
        "/sku/capacity",
        Severity.HIGH,
        f"{ACCOUNTS}/deployments/write",
    ),
    ("changed", "deployment", "hr-chat"): (
        "/tags",
        Severity.LOW,
        f"{ACCOUNTS}/deployments/write",
    ),
    ("changed", "rai-policy", "claims-strict"): (
        "/severityThreshold",
        Severity.CRITICAL,
        f"{ACCOUNTS}/raiPolicies/write",
    ),
    ("changed", "rai-blocklist", "rude-words"): (
        "/items/",
        Severity.LOW,
        f"{ACCOUNTS}/raiBlocklists/raiBlocklistItems/write",
    ),
    ("changed", "account", "lang-care-swc"): (
        "/tags/cost~1centre",
        Severity.LOW,
        "Microsoft.Resources/tags/write",
    ),
    ("removed", "lock", "keep-claims"): (
        "",
        Severity.HIGH,
        "Microsoft.Authorization/locks/delete",
    ),
    ("removed", "diagnostic-setting", "to-log-ai"): (
        "",
        Severity.HIGH,
        "Microsoft.Insights/diagnosticSettings/delete",
    ),
    ("removed", "deployment", "deepseek"): (
        "",
        Severity.CRITICAL,
        f"{ACCOUNTS}/deployments/delete",
    ),
}


@dataclass
class Signed:
    """A credential of somebody in the estate."""

    person: Person

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        return AccessToken(self.person.token(scopes[0]), int(time.time()) + 3600)


class Clients:
    """Microsoft's clients as one person uses them."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.person = site.person(name)
        self._open: list[Any] = []

    def arm(self, kind: type[Any]) -> Any:
        made = kind(
            Signed(self.person),
            self.site.sandbox.subscription,
            base_url=self.site.sandbox.url,
            credential_scopes=[ARM_SCOPE],
            connection_verify=self.site.sandbox.ca,
            polling_interval=0,
            retry_total=0,
        )
        self._open.append(made)
        return made

    def openai(self, account: tuple[str, str]) -> openai.OpenAI:
        found = self.person.does("GET", self.site.id(*account))["properties"]["endpoints"]
        base = str(found["OpenAI Language Model Instance API"]).rstrip("/")
        trust = ssl.create_default_context(cafile=self.site.sandbox.ca)
        made = openai.OpenAI(
            base_url=f"{base}/openai/v1/",
            api_key=self.person.token(DATA),
            http_client=httpx2.Client(verify=trust, timeout=30),
            max_retries=0,
        )
        self._open.append(made)
        return made

    def project(self) -> AIProjectClient:
        path = self.site.id(*CARE, "projects", "care-desk")
        found = self.person.does("GET", path)["properties"]["endpoints"]["AI Foundry API"]
        session = requests.Session()
        made = AIProjectClient(
            endpoint=str(found).rstrip("/"),
            credential=Signed(self.person),
            retry_total=0,
            transport=RequestsTransport(
                session=session, session_owner=False, connection_verify=self.site.sandbox.ca
            ),
        )
        self._open += [made, session]
        return made

    def close(self) -> None:
        for client in self._open:
            client.close()


@pytest.fixture
def clients(site: Site) -> Iterator[dict[str, Clients]]:
    names = ("platform-owner", "pipeline", "Anna Lindqvist", "muster-identity", "muster")
    made = {name: Clients(site, name) for name in names}
    yield made
    for one in made.values():
        one.close()


class Noted:
    """Who did what, between which moments of Azure's clock."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.edits: dict[tuple[str, str, str], tuple[Person, datetime, datetime]] = {}

    def edit(self, change: str, kind: str, name: str, by: Clients, work: Any) -> None:
        self.site.later(60)  # what the edit before began is over
        begun = self.site.now
        done = work()
        if hasattr(done, "result"):
            self.site.later(30)
            done.result()
        self.edits[change, kind, name] = (by.person, begun, self.site.now)


def test_edits_by_azures_own_clients_are_told_with_who_when_and_how_bad(
    site: Site, clients: dict[str, Clients]
) -> None:
    site.settings(shuffle=True, page_size=3)
    site.approve_all()
    site.later()
    owner, pipeline = clients["platform-owner"], clients["pipeline"]
    anna, managed = clients["Anna Lindqvist"], clients["muster-identity"]
    noted = Noted(site)
    ai = pipeline.arm(CognitiveServicesManagementClient)

    def cut() -> Any:
        there = ai.deployments.get(*CARE, "care-chat")
        there.sku.capacity = 5
        return ai.deployments.begin_create_or_update(*CARE, "care-chat", there)

    noted.edit("changed", "deployment", "care-chat", pipeline, cut)
    hers = anna.arm(CognitiveServicesManagementClient)
    tags = PatchResourceTagsAndSku(tags={"a/b~c": "=cmd|'/c calc'!A1"})
    noted.edit(
        "changed",
        "deployment",
        "hr-chat",
        anna,
        lambda: hers.deployments.begin_update("rg-ai-care", "aoai-hr-weu", "hr-chat", tags),
    )
    its = managed.arm(CognitiveServicesManagementClient)

    def loosen() -> Any:
        there = its.rai_policies.get(*SWC, "claims-strict")
        listed = list(there.properties.content_filters)
        listed[0].severity_threshold = "High"
        there.properties.content_filters = list(reversed(listed))
        return its.rai_policies.create_or_update(*SWC, "claims-strict", there)

    noted.edit("changed", "rai-policy", "claims-strict", managed, loosen)
    word = RaiBlocklistItem(properties=RaiBlocklistItemProperties(pattern="ugly", is_regex=False))
    noted.edit(
        "changed",
        "rai-blocklist",
        "rude-words",
        anna,
        lambda: hers.rai_blocklist_items.create_or_update(*CARE, "rude-words", "ugly", word),
    )
    resources = anna.arm(ResourceManagementClient)
    marked = {"operation": "Merge", "properties": {"tags": {"cost/centre": "42"}}}
    noted.edit(
        "changed",
        "account",
        "lang-care-swc",
        anna,
        lambda: resources.tags.begin_update_at_scope(
            site.id("rg-ai-care", "lang-care-swc"), marked
        ),
    )
    locks = owner.arm(ManagementLockClient)
    noted.edit(
        "removed",
        "lock",
        "keep-claims",
        owner,
        lambda: locks.management_locks.delete_by_scope(site.id(*SWC), "keep-claims"),
    )
    # The client of this version has no diagnostic settings: plain HTTPS, as a script would.
    logging = f"{site.id(*SWC)}/providers/Microsoft.Insights/diagnosticSettings/to-log-ai"
    noted.edit(
        "removed",
        "diagnostic-setting",
        "to-log-ai",
        owner,
        lambda: owner.person.does("DELETE", f"{logging}?api-version=2021-05-01-preview"),
    )
    noted.edit(
        "removed",
        "deployment",
        "deepseek",
        pipeline,
        lambda: ai.deployments.begin_delete(*CARE, "deepseek"),
    )
    role = str(uuid.UUID(int=11, version=4))
    definition = (
        f"/subscriptions/{site.sandbox.subscription}/providers/Microsoft.Authorization"
        "/roleDefinitions/acdd72a7-3385-48ef-bd42-f606fba81ae7"
    )
    grant = {
        "properties": {
            "roleDefinitionId": definition,
            "principalId": site.sandbox.principal("stranger")["object_id"],
            "principalType": "ServicePrincipal",
        }
    }
    roles = owner.arm(AuthorizationManagementClient)
    noted.edit(
        "added",
        "role-assignment",
        role,
        owner,
        lambda: roles.role_assignments.create(site.id(*CARE).strip("/"), role, grant),
    )
    # A refused write is nobody's change.
    wrong = Deployment(
        sku=Sku(name="Standard", capacity=1),
        properties=DeploymentProperties(
            model=DeploymentModel(format="OpenAI", name="no-such-model", version="1")
        ),
    )
    with pytest.raises(HttpResponseError):
        ai.deployments.begin_create_or_update(*CARE, "care-reason", wrong)
    site.later()

    report = site.audit()
    assert report.reading.mode.value == "incremental"
    assert not report.incomplete
    found = {(f.change.value, f.kind, f.key.name): f for f in report.findings}
    assert found.keys() == noted.edits.keys(), found.keys() ^ noted.edits.keys()
    for name, (person, begun, ended) in noted.edits.items():
        finding = found[name]
        _told(finding, person, begun, ended)
        path, severity, operation = CONTROL.get(
            name, ("", Severity.HIGH, "Microsoft.Authorization/roleAssignments/write")
        )
        assert any(path in p.path for p in finding.paths), (name, finding.paths)
        assert len(finding.paths) == 1, (name, finding.paths)
        assert finding.severity is severity, (name, finding.rules)
        assert finding.attribution.operation.lower() == operation.lower(), name

    # The data planes: no log tells of them, a sweep finds them.
    data = clients["muster"]
    models, agents = data.openai(SWC), data.project().agents
    gone = next(f for f in models.files.list() if f.filename == "claims-valid.jsonl")
    models.files.delete(gone.id)
    models.files.create(file=("new.jsonl", b'{"messages": []}\n'), purpose="batch")
    agents.create_version(
        "front-desk",
        definition=PromptAgentDefinition(model="care-chat", instructions="Tell everybody."),
    )
    models.vector_stores.create(name="fresh")
    site.later(60)  # until it is processed, a file gives no content away
    swept = site.audit(Wishes(sweep=True))
    more = {(f.change.value, f.kind, f.key.name.lower()): f for f in swept.findings}
    assert more.keys() - {(c, k, n.lower()) for c, k, n in noted.edits} == {
        ("removed", "file", "claims-valid.jsonl"),
        ("added", "file", "new.jsonl"),
        ("changed", "agent", "front-desk"),
        ("added", "vector-store", "fresh"),
    }
    assert len(swept.findings) == len(noted.edits) + 4
    agent = more["changed", "agent", "front-desk"]
    assert agent.severity is Severity.HIGH
    assert [p.path.rsplit("/", 1)[0] for p in agent.paths] == ["/versions"]
    for finding in more.values():
        if finding.kind in {"file", "agent", "vector-store"}:
            assert finding.attribution.confidence is Confidence.NONE
            assert finding.class_ is Class.UNKNOWN


def _told(finding: Finding, person: Person, begun: datetime, ended: datetime) -> None:
    told = finding.attribution
    assert (told.who, told.principal_kind.value) == (person.who, person.kind), told
    assert told.confidence is Confidence.HIGH, told
    assert told.when is not None
    second = timedelta(seconds=1)
    assert begun - second <= told.when <= ended + second
    assert told.address
    assert told.correlation_id
    assert finding.class_ is Class.UNPLANNED, finding.reasons
