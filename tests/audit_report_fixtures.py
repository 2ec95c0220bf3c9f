"""Reports of audits: a realistic one, an empty one, and one whose every text is hostile."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from snapshots.audit.report_model import (
    Attribution,
    AuditReport,
    Class,
    Confidence,
    Direction,
    Finding,
    Ignored,
    LedgerPlace,
    Mode,
    Pending,
    PrincipalKind,
    PropertyFinding,
    Reading,
    Risk,
    RuleHit,
    Severity,
    count_by,
)
from snapshots.ledger.paths import path_of
from snapshots.model import (
    MISSING,
    CallCount,
    ChangeType,
    Gap,
    GapReason,
    JsonObject,
    Key,
    Resource,
    digest,
)

NOW = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
SUBSCRIPTION = "3f0c8f5e-6f3d-4a2b-9a43-0d8f6c1e2b7a"
WITHIN = (SUBSCRIPTION, "rg-ai-prod", "aoai-contoso-prod-swc")
KINDS = {
    "deployment": "model deployments",
    "rai-policy": "content filters",
    "rai-blocklist": "blocklists",
    "account": "AI accounts",
    "role-assignment": "role assignments",
    "project-connection": "connections of projects",
    "agent": "agents",
    "lock": "locks",
    "diagnostic-setting": "diagnostic settings",
}
ANNA = Attribution(
    "anna.berg@contoso.example",
    PrincipalKind.USER,
    "8d2c6a8e-94f0-4f39-8f5b-2f1d9c1a7e55",
    "c44b4083-3bb0-49c1-b47d-974e53cbdf3c",
    "Azure Portal",
    "203.0.113.24",
    NOW - timedelta(hours=5, minutes=12),
    "Microsoft.CognitiveServices/accounts/raiPolicies/write",
    "5f7e2d41-5a0e-4c39-9d0e-1a2b3c4d5e6f",
    ("a1b2c3d4-0001", "a1b2c3d4-0002"),
    Confidence.HIGH,
    ("one successful write of this resource lies between the two reads",),
)
PIPELINE = dataclasses.replace(
    ANNA,
    who="3b7f1f0e-1111-4d0a-8a55-9f0b7f6f2c10",
    principal_kind=PrincipalKind.SERVICE_PRINCIPAL,
    client="",
    app_id="3b7f1f0e-1111-4d0a-8a55-9f0b7f6f2c10",
    address="198.51.100.7",
    when=NOW - timedelta(hours=26),
    operation="Microsoft.CognitiveServices/accounts/deployments/write",
)
AZURE = Attribution(
    principal_kind=PrincipalKind.PLATFORM,
    when=NOW - timedelta(hours=14),
    operation="Microsoft.CognitiveServices/accounts/deployments/write",
    confidence=Confidence.MEDIUM,
    reasons=("the version moved to the new default; upgrades of this deployment are automatic",),
)
NOBODY = Attribution(reasons=("unattributed: no record names this resource since the last read",))

OLD_PROMPT = """You are the claims assistant of Contoso Insurance.
Answer in the language of the customer.
Never promise a payment; say that a person decides.
Cite the paragraph of the policy you rely on.
If you are unsure, hand over to a person.
Do not speak about other customers."""
NEW_PROMPT = """You are the claims assistant of Contoso Insurance.
Answer in the language of the customer.
You may confirm payments below 500 EUR at once.
Cite the paragraph of the policy you rely on.
If you are unsure, hand over to a person.
Do not speak about other customers.
Be brief."""


def rule(
    id_: str, title: str, severity: Severity, why: str, direction: Direction = Direction.WEAKER
) -> RuleHit:
    return RuleHit(f"builtin/{id_}", title, severity, direction, why)


def finding(
    kind: str,
    name: str,
    change: ChangeType = ChangeType.CHANGED,
    *,
    before: JsonObject | None = None,
    after: JsonObject | None = None,
    paths: Sequence[PropertyFinding] = (),
    severity: Severity = Severity.MEDIUM,
    class_: Class = Class.UNPLANNED,
    rules: Sequence[RuleHit] = (),
    by: Attribution = ANNA,
    reasons: Sequence[str] = ("no change record names this resource", "outside every window"),
    gap: Gap | None = None,
    restore: str = "A restore writes the deployment again under the same name.",
    recovery: str = "restored",
    undo: str = "revert would write the properties above back in one PUT",
    ticket: str = "",
) -> Finding:
    key = Key(kind, (*WITHIN, name))
    id_ = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-ai-prod/{kind}/{name}"
    print_ = digest(f"{kind}/{name}/{change}".encode())
    return Finding(
        print_[:12],
        print_[:32],
        key,
        kind,
        KINDS.get(kind, kind),
        change,
        id_,
        tuple(paths),
        class_,
        severity,
        tuple(rules),
        by,
        tuple(reasons),
        LedgerPlace(path_of(key), "7c1e5a90b3d24f6688aa01c2d3e4f5a6b7c8d9e0"),
        NOW,
        (NOW - timedelta(hours=30), NOW),
        ticket=ticket,
        gap=gap,
        before=None if before is None else Resource(key, id_, before),
        after=None if after is None else Resource(key, id_, after),
        restore=restore,
        recovery=recovery,
        undo=undo,
    )


def report(
    findings: Sequence[Finding] = (), gaps: Sequence[Gap] = (), *, estate: str = "contoso-ai"
) -> AuditReport:
    """A report with these findings, made seventeen minutes after the last sweep."""
    classes, severities = count_by(findings)
    return AuditReport(
        "20261122T093000Z-4be1",
        estate,
        NOW,
        "0.4.0",
        "9f2b7c41d0e84a5592b7e1c3f6a8d0b2c4e6f810",
        NOW - timedelta(days=12),
        "maria.lind@contoso.example",
        "7c1e5a90b3d24f6688aa01c2d3e4f5a6b7c8d9e0",
        tuple(findings),
        tuple(gaps),
        CallCount(46, 44, 1, 1, {"deployment": 8}),
        Reading(
            Mode.INCREMENTAL,
            "the Activity Log names the accounts touched since the last sweep",
            4,
            31,
            212,
            NOW - timedelta(minutes=20),
        ),
        NOW - timedelta(hours=17, minutes=5),
        1_284,
        8.42,
        ignored=sum(1 for f in findings if not f.counted),
        by_class=classes,
        by_severity=severities,
    )


def realistic() -> AuditReport:
    """Twelve findings, two gaps, one ignored, one waiting, a risk, a hole."""
    filter_before: JsonObject = {
        "name": "strict",
        "properties": {
            "mode": "Blocking",
            "contentFilters": [
                {"name": "Hate", "source": "Prompt", "severityThreshold": "Low", "blocking": True},
                {"name": "Jailbreak", "source": "Prompt", "enabled": True, "blocking": True},
            ],
        },
    }
    filter_after: JsonObject = {
        "name": "strict",
        "properties": {
            "mode": "Asynchronous_filter",
            "contentFilters": [
                {"name": "Hate", "source": "Prompt", "severityThreshold": "High", "blocking": True},
                {"name": "Jailbreak", "source": "Prompt", "enabled": True, "blocking": False},
            ],
        },
    }
    model_before: JsonObject = {
        "properties": {"model": {"format": "OpenAI", "name": "gpt-4o", "version": "2024-08-06"}},
        "sku": {"capacity": 300, "name": "ProvisionedManaged"},
    }
    model_after: JsonObject = {
        "properties": {"model": {"format": "OpenAI", "name": "gpt-4o", "version": "2024-11-20"}},
        "sku": {"capacity": 300, "name": "ProvisionedManaged"},
    }
    gap = Gap(
        Key("deployment", (*WITHIN[:2], "aoai-contoso-lab")),
        GapReason.DENIED,
        "the credential may not read deployments of this account",
        listing=True,
        hides=("deployment",),
        status=403,
        code="AuthorizationFailed",
    )
    slow = Gap(Key("agent", (*WITHIN, "claims", "triage")), GapReason.THROTTLED, "", status=429)
    ignored = dataclasses.replace(
        finding(
            "deployment",
            "playground",
            before={"sku": {"capacity": 10}},
            after={"sku": {"capacity": 20}},
            paths=[PropertyFinding("/sku/capacity", 10, 20)],
            severity=Severity.LOW,
        ),
        ignored=Ignored(
            "maria.lind@contoso.example",
            "the team tries sizes until the end of the month",
            NOW - timedelta(days=2),
            NOW + timedelta(days=8),
            "CHG-2214",
        ),
    )
    waiting = dataclasses.replace(
        finding(
            "account",
            "aoai-contoso-prod-swc",
            before={"properties": {"publicNetworkAccess": "Disabled"}},
            after={"properties": {"publicNetworkAccess": "Enabled"}},
            paths=[
                PropertyFinding("/properties/publicNetworkAccess", "Disabled", "Enabled"),
                PropertyFinding("/properties/disableLocalAuth", True, MISSING, NOBODY),
            ],
            severity=Severity.CRITICAL,
            rules=[
                rule(
                    "public-network-opened",
                    "Public network access opened",
                    Severity.CRITICAL,
                    "The endpoint can be reached from networks that were shut out before.",
                ),
                rule(
                    "local-auth-enabled",
                    "Sign-in with keys enabled",
                    Severity.HIGH,
                    "Whoever has a key needs no identity.",
                ),
            ],
            by=dataclasses.replace(ANNA, when=NOW - timedelta(hours=5, minutes=2)),
        ),
        pending=Pending(
            ("joe.park@contoso.example",), "partner test", NOW - timedelta(hours=1), "CHG-2290"
        ),
    )
    findings = [
        finding(
            "rai-policy",
            "strict",
            before=filter_before,
            after=filter_after,
            paths=[
                PropertyFinding("/properties/contentFilters/0/severityThreshold", "Low", "High"),
                PropertyFinding("/properties/contentFilters/1/blocking", True, False),
                PropertyFinding("/properties/mode", "Blocking", "Asynchronous_filter"),
            ],
            severity=Severity.CRITICAL,
            rules=[
                rule(
                    "content-filter-loosened",
                    "Content filter loosened",
                    Severity.CRITICAL,
                    "Harmful prompts or answers that were stopped before pass now.",
                )
            ],
            restore="A restore writes the filter again under the same name.",
        ),
        waiting,
        finding(
            "agent",
            "claims-assistant",
            before={"instructions": OLD_PROMPT, "tools": [{"type": "file_search"}]},
            after={
                "instructions": NEW_PROMPT,
                "tools": [{"type": "file_search"}, {"type": "code_interpreter"}],
            },
            paths=[
                PropertyFinding("/instructions", OLD_PROMPT, NEW_PROMPT),
                PropertyFinding("/tools/1", MISSING, {"type": "code_interpreter"}),
            ],
            severity=Severity.HIGH,
            rules=[
                rule(
                    "agent-instructions-changed",
                    "Instructions of an agent changed",
                    Severity.HIGH,
                    "The agent answers by other rules than those that were approved.",
                    Direction.NEUTRAL,
                )
            ],
            by=NOBODY,
            class_=Class.UNKNOWN,
            reasons=["nobody is named, so whether it was meant cannot be said"],
            recovery="recreated",
            restore="A restore makes the agent again; it gets a new id.",
        ),
        finding(
            "role-assignment",
            "0c7a4b1e-contributor",
            ChangeType.ADDED,
            after={
                "properties": {
                    "principalId": "77aa0c1d-0000-4000-8000-1234567890ab",
                    "principalType": "User",
                    "roleDefinitionName": "Cognitive Services Contributor",
                }
            },
            severity=Severity.HIGH,
            rules=[
                rule(
                    "role-granted",
                    "Role granted",
                    Severity.HIGH,
                    "Somebody may change the account who could not before.",
                )
            ],
            undo="revert would delete the role assignment",
            by=dataclasses.replace(ANNA, when=NOW - timedelta(hours=5, minutes=10)),
        ),
        finding(
            "lock",
            "do-not-delete",
            ChangeType.REMOVED,
            before={"properties": {"level": "CanNotDelete", "notes": "production"}},
            severity=Severity.HIGH,
            rules=[
                rule("lock-removed", "Lock removed", Severity.HIGH, "It can be deleted by mistake.")
            ],
            undo="revert would create the lock again",
            by=dataclasses.replace(ANNA, when=NOW - timedelta(hours=5, minutes=15)),
        ),
        finding(
            "deployment",
            "gpt-4o-claims",
            before=model_before,
            after=model_after,
            paths=[PropertyFinding("/properties/model/version", "2024-08-06", "2024-11-20")],
            severity=Severity.MEDIUM,
            class_=Class.PLATFORM,
            by=AZURE,
            reasons=["Azure moved the default version on 2026-11-21"],
            rules=[
                rule(
                    "model-version-changed",
                    "Model version changed",
                    Severity.MEDIUM,
                    "The same prompt may be answered differently.",
                    Direction.NEUTRAL,
                )
            ],
        ),
        finding(
            "deployment",
            "embeddings",
            before={"sku": {"capacity": 120, "name": "Standard"}},
            after={"sku": {"capacity": 90, "name": "Standard"}},
            paths=[PropertyFinding("/sku/capacity", 120, 90)],
            severity=Severity.MEDIUM,
            class_=Class.PLANNED_BUT_DIFFERENT,
            by=PIPELINE,
            ticket="CHG-2271",
            reasons=["CHG-2271 plans /sku/capacity 100; 90 was found", "within its window"],
            rules=[rule("capacity-cut", "Capacity cut", Severity.MEDIUM, "Fewer tokens a minute.")],
        ),
        finding(
            "deployment",
            "gpt-4o-mini-summaries",
            ChangeType.ADDED,
            after=model_after,
            severity=Severity.LOW,
            class_=Class.PLANNED,
            by=PIPELINE,
            ticket="CHG-2271",
            reasons=["CHG-2271 plans it", "the caller is a trusted pipeline"],
            undo="revert would delete the deployment",
        ),
        finding(
            "diagnostic-setting",
            "to-log-analytics",
            ChangeType.REMOVED,
            before={"properties": {"logs": [{"category": "Audit", "enabled": True}]}},
            severity=Severity.HIGH,
            by=NOBODY,
            class_=Class.UNKNOWN,
            reasons=["nobody is named, so whether it was meant cannot be said"],
            rules=[
                rule(
                    "diagnostic-setting-removed",
                    "Diagnostic setting removed",
                    Severity.HIGH,
                    "Calls of the data plane leave no trace.",
                )
            ],
        ),
        finding(
            "rai-blocklist",
            "competitors",
            before={"items": [{"name": "a"}, {"name": "b"}]},
            after={"items": [{"name": "a"}, {"name": "b"}, {"name": "c"}]},
            paths=[PropertyFinding("/items/2", MISSING, {"name": "c"})],
            severity=Severity.INFO,
            by=dataclasses.replace(PIPELINE, when=NOW - timedelta(hours=20)),
            class_=Class.PLANNED,
        ),
        finding(
            "project-connection",
            "search",
            before={"properties": {"target": "https://contoso-prod.search.example.net"}},
            after={"properties": {"target": "https://contoso-test.search.example.net"}},
            paths=[
                PropertyFinding(
                    "/properties/target",
                    "https://contoso-prod.search.example.net",
                    "https://contoso-test.search.example.net",
                )
            ],
            severity=Severity.HIGH,
            rules=[
                rule(
                    "connection-target-changed",
                    "Target of a connection changed",
                    Severity.HIGH,
                    "Agents read from, and write to, another place.",
                    Direction.NEUTRAL,
                )
            ],
            by=dataclasses.replace(ANNA, when=NOW - timedelta(hours=2, minutes=2)),
        ),
        finding(
            "deployment",
            "lab-gpt-4o",
            ChangeType.UNKNOWN,
            before=model_before,
            severity=Severity.MEDIUM,
            class_=Class.UNKNOWN,
            by=NOBODY,
            gap=gap,
            reasons=["it could not be read"],
            undo="",
        ),
        ignored,
    ]
    risk = Risk(
        Key("deployment", (*WITHIN, "gpt-35-chat")),
        rule("model-near-retirement", "The model retires soon", Severity.HIGH, "410 Gone."),
        NOW + timedelta(days=40),
        "gpt-35-turbo 0125 retires on 2027-01-01, in 40 days",
    )
    made = report(findings, [gap, slow])
    return dataclasses.replace(
        made,
        risks=(risk,),
        reading=dataclasses.replace(
            made.reading,
            holes=("the Activity Log gave no answer between 02:10 and 02:40 UTC",),
        ),
        expired=("the approval of gpt-4o-lab by maria.lind@contoso.example ran out on 2026-11-20",),
    )


HOSTILE = (
    "<script>window.pwned=1</script>",
    "\"><img src=x onerror=window.pwned=1>'",
    "javascript:window.pwned=1",
    "</style><script>window.pwned=1</script><style>",
    "</details></summary></title><svg onload=window.pwned=1>",
    "{{ 7*7 }}{% raw %}",
    "\u202egnp.exe\u2066\u200b\ufeff",
    "\x00\x01\x08\x0b\x1b[31m\x7f\x85\ufffe\uffff\ud800",
    "line\r\nbreak\ttab\u2028\u2029",
    '=HYPERLINK("http://evil.example","x")',
    "+1+cmd|' /C calc'!A0",
    "@SUM(A1:A9)",
    "-2+3",
    "[x](javascript:alert(1)) ![i](http://evil.example/i.png) <http://evil.example>",
    "http://evil.example www.evil.example mail@evil.example @octocat #12 GH-7",
    "```\n</details>\n# heading\n| a | b |\n`` ` ```` \\",
    "a|b\\|c \\` *bold* _it_ ~~x~~ &lt;b&gt; &#64;octocat",
    "]]><!--{0}%n[link](1)",
    "x" * 70_000,
    "\u0301" * 300 + "שלום",
)


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode() or "x"


def hostile(texts: Sequence[str] = HOSTILE) -> AuditReport:
    """A report in which every text that may come from outside is one of `texts`."""
    found: list[Finding] = []
    for number, text in enumerate(texts):
        other = texts[(number + 1) % len(texts)]
        # Half a pair of UTF-16 is no name that Azure knows, and no key holds it.
        key = Key("deployment", (*WITHIN, _whole(text)))
        by = Attribution(
            text,
            PrincipalKind.USER,
            text,
            text,
            other,
            text,
            NOW - timedelta(minutes=number),
            other,
            text,
            (text, other),
            Confidence.LOW,
            (text, other),
        )
        paths = (
            PropertyFinding("/" + text, text, other, dataclasses.replace(by, who=other)),
            PropertyFinding("/tags/x", MISSING, {text: [other, None, 1]}),
        )
        body: JsonObject = {text: text, "tags": {"x": {text: [other, None, 1]}}}
        found.append(
            Finding(
                f"{number:012x}" if number % 2 else text,
                digest(str(number).encode())[:32],
                key,
                "deployment" if number % 3 else text or "kind",
                text,
                list(ChangeType)[number % 4],
                text,
                paths if number % 2 else (),
                list(Class)[number % 5],
                list(Severity)[number % 5],
                (RuleHit(text, other, list(Severity)[number % 5], Direction.WEAKER, text, (text,)),)
                if number % 3
                else (),
                by if number % 4 else dataclasses.replace(by, when=None),
                (text, other),
                LedgerPlace(f"resources/{text}.json", text),
                NOW,
                (None if number % 2 else NOW - timedelta(hours=2), NOW),
                ticket=text,
                gap=Gap(key, GapReason.FAILED, text, status=500, code=text),
                renamed_from=Key("deployment", (_whole(other),)),
                before=Resource(key, text, body),
                after=Resource(key, text, body),
                restore=text,
                recovery=text,
                undo=other,
                ignored=Ignored(text, other, NOW, NOW, text) if number % 7 == 3 else None,
                pending=Pending((text,), other, NOW, text) if number % 5 == 1 else None,
            )
        )
    made = report(found, [f.gap for f in found if f.gap is not None], estate=texts[0])
    risk = RuleHit(texts[0], texts[1], Severity.HIGH, Direction.WEAKER, texts[0])
    return dataclasses.replace(
        made,
        id=texts[0],
        baseline=texts[1],
        baseline_by=texts[0],
        live=texts[0],
        scope=tuple(texts),
        risks=tuple(Risk(f.key, risk, NOW, f.ticket) for f in found),
        expired=tuple(texts),
        warnings=tuple(texts),
        reading=dataclasses.replace(made.reading, why=texts[0], holes=tuple(texts)),
    )
