"""Content filters: a word list with severities, and what a deployment's policy makes of it.

`docs/sandbox-models.md` lists the marker phrases for probes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from drills.sandbox.arm import Record
from drills.sandbox.dataplane.ask import ACCOUNT, DataError, peek
from drills.sandbox.wire import Body
from drills.sandbox.world import World

SEVERITIES = ("safe", "low", "medium", "high")
HARMS = {"hate": "Hate", "sexual": "Sexual", "violence": "Violence", "self_harm": "Selfharm"}
# Detections that are on or off: wire name, name in a policy, and where they look.
_PROMPT_DETECTIONS = {"jailbreak": "Jailbreak", "indirect_attack": "Indirect Attack"}
_COMPLETION_DETECTIONS = {
    "protected_material_text": "Protected Material Text",
    "protected_material_code": "Protected Material Code",
}

# Mild stand-ins on purpose: a probe needs to be reliable, not offensive.
_WORDS: dict[str, tuple[tuple[str, int], ...]] = {
    "hate": (
        ("i dislike those people", 1),
        ("i despise those people", 2),
        ("i hate those people", 3),
    ),
    "sexual": (
        ("a flirting couple", 1),
        ("an erotic scene", 2),
        ("an explicit sexual scene", 3),
    ),
    "violence": (
        ("a bar fight", 1),
        ("how to hurt someone", 2),
        ("how to kill someone", 3),
    ),
    "self_harm": (
        ("i feel worthless", 1),
        ("i want to hurt myself", 2),
        ("i want to kill myself", 3),
    ),
}
_DETECTIONS: dict[str, tuple[str, ...]] = {
    "jailbreak": ("ignore all previous instructions", "you are now in developer mode"),
    "indirect_attack": ("hidden instruction for the assistant",),
    "protected_material_text": ("lyrics of a protected song",),
    "protected_material_code": ("source of a protected repository",),
}
_MARKER = re.compile(
    r"\[\[(?P<what>hate|sexual|violence|selfharm|self_harm|jailbreak|indirect_attack|"
    r"protected_material_text|protected_material_code)(?::(?P<how>low|medium|high))?\]\]",
    re.IGNORECASE,
)
# What applies when a policy says nothing of it (Microsoft.DefaultV2, content filter concepts page).
_DEFAULTS: tuple[Body, ...] = (
    *(
        {
            "name": name,
            "enabled": True,
            "blocking": True,
            "severityThreshold": "Medium",
            "source": s,
        }
        for name in ("Hate", "Sexual", "Violence", "Selfharm")
        for s in ("Prompt", "Completion")
    ),
    {"name": "Jailbreak", "enabled": True, "blocking": True, "source": "Prompt"},
    {"name": "Protected Material Text", "enabled": True, "blocking": True, "source": "Completion"},
    {"name": "Protected Material Code", "enabled": True, "blocking": False, "source": "Completion"},
)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filters say of one text: the wire's results, and whether it is stopped."""

    results: Body
    blocked: bool


@dataclass(frozen=True, slots=True)
class Blocklist:
    """One blocklist as a policy uses it."""

    name: str
    blocking: bool
    patterns: tuple[tuple[str, bool], ...]  # pattern, whether a regular expression


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of one side: of prompts or of completions."""

    rules: dict[str, Body] = field(default_factory=dict)  # by name in lower case
    blocklists: tuple[Blocklist, ...] = ()


def classify(text: str) -> dict[str, int]:
    """What the word list finds in a text: severity 1 to 3 per harm, 1 per detection."""
    lowered = " ".join(text.lower().split())
    found: dict[str, int] = {}
    for name, phrases in _WORDS.items():
        worst = max((level for phrase, level in phrases if phrase in lowered), default=0)
        if worst:
            found[name] = worst
    for name, marks in _DETECTIONS.items():
        if any(mark in lowered for mark in marks):
            found[name] = 1
    for match in _MARKER.finditer(text):
        name = match["what"].lower().replace("selfharm", "self_harm")
        level = SEVERITIES.index((match["how"] or "high").lower()) if name in HARMS else 1
        found[name] = max(found.get(name, 0), level)
    return found


def policy_for(
    world: World, account: Record, deployment: Record, source: str, override: str = ""
) -> Policy:
    """The policy that a deployment's texts of one source ("Prompt", "Completion") go through.

    `override` is the request's x-policy-id. Raises DataError 400 when it names no policy.
    """
    name = override or str(deployment.properties.get("raiPolicyName") or "")
    record = _policy(world, account, name)
    if record is None and override:
        raise DataError(
            400,
            "InvalidContentFilterPolicy",
            "Your request contains invalid content filter policy. Please provide a valid policy.",
        )
    layers = [_DEFAULTS]
    if record is not None:
        base = _policy(world, account, str(record.properties.get("basePolicyName") or ""))
        if base is not None and base.id.lower() != record.id.lower():
            layers.append(tuple(base.properties.get("contentFilters") or ()))
        layers.append(tuple(record.properties.get("contentFilters") or ()))
    rules: dict[str, Body] = {}
    for layer in layers:
        for rule in layer:
            if _applies(rule, source):
                rules[_rule_name(rule)] = rule
    lists = (record.properties.get("customBlocklists") if record is not None else None) or ()
    return Policy(rules, tuple(_blocklists(world, account, lists, source)))


def _applies(rule: Body, source: str) -> bool:
    return str(rule.get("source") or source).lower() == source.lower()


def _rule_name(rule: Body) -> str:
    return str(rule.get("name", "")).lower().replace("_", " ").replace("self harm", "selfharm")


def _policy(world: World, account: Record, name: str) -> Record | None:
    return peek(world, f"{account.id}/raiPolicies/{name}") if name else None


def _blocklists(
    world: World, account: Record, wanted: Iterable[Body], source: str
) -> Iterable[Blocklist]:
    for entry in wanted:
        if not _applies(entry, source) or entry.get("enabled") is False:
            continue
        name = str(entry.get("blocklistName", ""))
        items = world.store.items(
            world.arm.space(
                f"{account.id}/raiBlocklists/{name}", f"{ACCOUNT}/raiBlocklists/raiBlocklistItems"
            )
        )
        patterns = tuple(
            (str(p.get("pattern", "")), bool(p.get("isRegex")))
            for p in (kept["body"].get("properties") or {} for _, kept in items)
            if p.get("pattern")
        )
        yield Blocklist(name, entry.get("blocking", True) is not False, patterns)


@lru_cache(maxsize=1024)
def _compiled(pattern: str, regex: bool) -> re.Pattern[str] | None:
    try:
        # an exact item matches whole words, a regular expression anywhere; neither minds case
        return re.compile(
            pattern if regex else rf"(?<!\w){re.escape(pattern)}(?!\w)", re.IGNORECASE
        )
    except re.error:
        return None


def judge(policy: Policy, text: str, source: str) -> Verdict:
    """What a policy says of a text; `source` is "Prompt" or "Completion"."""
    found = classify(text)
    results: Body = {}
    blocked = False
    for wire, name in HARMS.items():
        rule = policy.rules.get(name.lower())
        if rule is None or rule.get("enabled") is False:
            continue
        severity = found.get(wire, 0)
        threshold = SEVERITIES.index(str(rule.get("severityThreshold") or "Medium").lower())
        filtered = severity >= threshold and rule.get("blocking", True) is not False
        results[wire] = {"filtered": filtered, "severity": SEVERITIES[severity]}
        blocked |= filtered
    detections = _PROMPT_DETECTIONS if source == "Prompt" else _COMPLETION_DETECTIONS
    for wire, name in detections.items():
        rule = policy.rules.get(name.lower())
        if rule is None or rule.get("enabled") is False:
            continue
        detected = wire in found
        filtered = detected and rule.get("blocking", True) is not False
        results[wire] = {"filtered": filtered, "detected": detected}
        blocked |= filtered
    if policy.blocklists:
        stopped, details = _match(policy.blocklists, text)
        results["custom_blocklists"] = {"filtered": stopped, "details": details}
        blocked |= stopped
    return Verdict(results, blocked)


def _match(blocklists: Iterable[Blocklist], text: str) -> tuple[bool, list[Body]]:
    stopped, details = False, []
    for blocklist in blocklists:
        hit = any(
            (compiled := _compiled(pattern, regex)) is not None and compiled.search(text)
            for pattern, regex in blocklist.patterns
        )
        filtered = hit and blocklist.blocking
        if hit:
            details.append({"filtered": filtered, "id": blocklist.name})
        stopped |= filtered
    return stopped, details


def refusal(results: Body) -> DataError:
    """The 400 for a prompt that was stopped."""
    message = (
        "The response was filtered due to the prompt triggering Azure OpenAI's content management "
        "policy. Please modify your prompt and retry. To learn more about our content filtering "
        "policies please read our documentation: https://go.microsoft.com/fwlink/?linkid=2198766"
    )
    error: dict[str, Any] = {
        "message": message,
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {
            "code": "ResponsibleAIPolicyViolation",
            "content_filter_result": results,
        },
    }
    return DataError(400, "content_filter", message, plain={"error": error})
