"""Random estates, edited at random by random people: findings are the edits, and by whom."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from snapshots.audit.report_model import Class, Confidence
from snapshots.audit.run import Wishes
from snapshots.ledger import LIVE
from snapshots.model import Key, Resource
from tests.random_estate_fixtures import random_estate
from tests.sandbox_fixtures import RunningSandbox
from tests.story_audit_fixtures import Person, Site, site_at

GROUPS = "api-version=2025-04-01"
DIAGNOSTICS = "api-version=2021-05-01-preview"
ROLES = "api-version=2022-04-01"
LOCKS = "api-version=2020-05-01"
PEOPLE = ("platform-owner", "pipeline", "Anna Lindqvist", "managed")


class Editors:
    """People who edit what there is; an edit that Azure refuses is none."""

    def __init__(self, site: Site, dice: random.Random) -> None:
        self.site = site
        self.dice = dice
        self.expected: dict[tuple[str, str], Person] = {}

    def make(self, count: int) -> None:
        live = [
            (key, resource)
            for key, resource in self.site.ledger().load(LIVE).resources.items()
            if hasattr(self, key.kind.replace("-", "_"))
        ]
        self.dice.shuffle(live)
        for key, resource in live:
            if len(self.expected) >= count:
                return
            who = self.site.person(self.dice.choice(PEOPLE))
            self.site.later(60)  # what the edit before began is over
            editor: Callable[[Key, Resource, Person], str] = getattr(
                self, key.kind.replace("-", "_")
            )
            change = editor(key, resource, who)
            if change:
                self.expected[str(key).lower(), change] = who
            if self.dice.random() < 0.3:
                self.added(key, resource, who)

    def tried(self, who: Person, method: str, path: str, body: Any = None) -> bool:
        return who.call(method, path, body).status_code < 300

    def tags(self) -> dict[str, str]:
        return {self.dice.choice(("ägare", "a b", "env")): str(self.dice.random())}

    # ---- an edit for each kind: what became of it, "" when it was refused

    def account(self, _key: Key, there: Resource, who: Person) -> str:
        body: Any = {"tags": self.tags()}
        if self.dice.random() < 0.5:
            known: Any = there.body.get("properties") or {}
            body = {"properties": {"disableLocalAuth": not known.get("disableLocalAuth", False)}}
        return "changed" if self.tried(who, "PATCH", there.id, body) else ""

    def deployment(self, _key: Key, there: Resource, who: Person) -> str:
        if self.dice.random() < 0.3:
            return "removed" if self.tried(who, "DELETE", there.id) else ""
        return "changed" if self.tried(who, "PATCH", there.id, {"tags": self.tags()}) else ""

    def rai_policy(self, _key: Key, there: Resource, who: Person) -> str:
        body = who.does("GET", there.id)
        body["properties"]["mode"] = (
            "Blocking" if body["properties"].get("mode") != "Blocking" else "Default"
        )
        kept = {"properties": body["properties"], "tags": body.get("tags") or {}}
        return "changed" if self.tried(who, "PUT", there.id, kept) else ""

    def rai_blocklist(self, _key: Key, there: Resource, who: Person) -> str:
        item = f"{there.id}/raiBlocklistItems/word-{self.dice.randint(1, 10**6)}"
        words = {"properties": {"pattern": "wort", "isRegex": False}}
        return "changed" if self.tried(who, "PUT", item, words) else ""

    def project(self, _key: Key, there: Resource, who: Person) -> str:
        body = {"properties": {"description": f"Edited {self.dice.random()}"}}
        return "changed" if self.tried(who, "PATCH", there.id, body) else ""

    def account_connection(self, _key: Key, there: Resource, who: Person) -> str:
        body = who.does("GET", there.id)["properties"]
        wanted = {
            "category": body["category"],
            "authType": "None",
            "target": f"https://changed-{self.dice.randint(1, 10**6)}.example/",
            "metadata": body.get("metadata") or {},
        }
        return "changed" if self.tried(who, "PUT", there.id, {"properties": wanted}) else ""

    project_connection = account_connection

    def diagnostic_setting(self, _key: Key, there: Resource, who: Person) -> str:
        return "removed" if self.tried(who, "DELETE", f"{there.id}?{DIAGNOSTICS}") else ""

    def lock(self, _key: Key, there: Resource, who: Person) -> str:
        return "removed" if self.tried(who, "DELETE", f"{there.id}?{LOCKS}") else ""

    def role_assignment(self, _key: Key, there: Resource, who: Person) -> str:
        principals = [self.site.sandbox.principal(name) for name in (*PEOPLE, "muster")]
        given: Any = there.body["properties"]
        if given["principalId"] in {p["object_id"] for p in principals}:
            return ""  # who edits, and who audits, keeps the right to
        return "removed" if self.tried(who, "DELETE", f"{there.id}?{ROLES}") else ""

    def resource_group(self, _key: Key, there: Resource, who: Person) -> str:
        body = {"location": there.body["location"], "tags": self.tags()}
        return "changed" if self.tried(who, "PUT", f"{there.id}?{GROUPS}", body) else ""

    def added(self, key: Key, there: Resource, who: Person) -> None:
        """Make something new in an account, or a lock on a group."""
        name = f"new-{self.dice.randint(1, 10**6)}"
        if key.kind == "resource-group":
            lock = {"properties": {"level": "CanNotDelete", "notes": "tillagd"}}
            path = f"{there.id}/providers/Microsoft.Authorization/locks/{name}?{LOCKS}"
            if self.tried(who, "PUT", path, lock):
                self.expected[f"lock/{'/'.join(key.path)}/{name}".lower(), "added"] = who
        elif key.kind == "account" and there.body["kind"] in ("OpenAI", "AIServices"):
            kind, part, body = self.dice.choice(
                (
                    ("rai-blocklist", "raiBlocklists", {"properties": {"description": "neu"}}),
                    (
                        "role-assignment",
                        "",
                        {
                            "properties": {
                                "roleDefinitionId": f"/subscriptions/{key.path[0]}/providers/"
                                "Microsoft.Authorization/roleDefinitions/"
                                "acdd72a7-3385-48ef-bd42-f606fba81ae7",
                                "principalId": self.site.sandbox.principal("app")["object_id"],
                                "principalType": "ServicePrincipal",
                            }
                        },
                    ),
                )
            )
            path = f"{there.id}/{part}/{name}"
            if not part:
                name = str(uuid.UUID(int=self.dice.getrandbits(128), version=4))
                path = (
                    f"{there.id}/providers/Microsoft.Authorization/roleAssignments/{name}?{ROLES}"
                )
            if self.tried(who, "PUT", path, body):
                self.expected[f"{kind}/{'/'.join(key.path)}/{name}".lower(), "added"] = who


def estate_of(seed: int) -> str:
    """A random estate with more people."""
    made = random_estate(seed, accounts=3).yaml
    made["principals"] += [
        {"name": "pipeline", "role": "Contributor"},
        {"name": "Anna Lindqvist", "kind": "User", "upn": "anna@random.example", "role": "none"},
        {"name": "managed", "kind": "ManagedIdentity", "role": "none"},
    ]
    made["role_assignments"] += [
        {"principal": name, "role": "Contributor"}
        for name in ("pipeline", "Anna Lindqvist", "managed")
    ]
    return str(yaml.safe_dump(made, allow_unicode=True, sort_keys=False))


@pytest.mark.timeout(7200)
def test_findings_of_random_estates_are_exactly_the_edits(
    new_sandbox: Callable[..., RunningSandbox],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    scaled: Callable[[int, int], int],
) -> None:
    for seed in range(scaled(2, 200)):
        file = tmp_path / f"estate{seed}.yaml"
        file.write_text(estate_of(seed), encoding="utf-8")
        sandbox = new_sandbox("--estate", str(file))
        sandbox.control("PUT", "settings", {"throttle": False, "shuffle": True})
        site = site_at(sandbox, tmp_path / f"site{seed}", capsys)
        site.approve_all()
        site.settings(page_size=2 if seed % 2 == 1 else 0)  # of the log, too
        site.later()
        dice = random.Random(seed)
        editors = Editors(site, dice)
        editors.make(dice.randint(2, 12))
        site.later()
        report = site.audit()
        found = {(str(f.key).lower(), f.change.value): f for f in report.findings}
        assert not report.incomplete, (seed, report.gaps)
        assert report.reading.holes == ()
        assert found.keys() == editors.expected.keys(), (
            seed,
            {name: [p.path for p in found[name].paths] for name in found.keys() - editors.expected},
            editors.expected.keys() - found.keys(),
        )
        for name, who in editors.expected.items():
            finding = found[name]
            told = finding.attribution
            assert (told.who, told.principal_kind.value) == (who.who, who.kind), (seed, name, told)
            assert told.confidence is not Confidence.NONE
            assert finding.class_ is Class.UNPLANNED, (seed, name, finding.reasons)
        again = site.audit(Wishes(sweep=True))
        assert {f.id for f in again.findings} == {f.id for f in report.findings}, seed
        sandbox.stop()
