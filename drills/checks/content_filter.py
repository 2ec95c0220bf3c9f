"""Content filters stop what they must, let pass what they must, under the same policy."""

from __future__ import annotations

from dataclasses import replace

from drills.checks.asked import AskedCheck, Judged, both_fail, not_run
from drills.checks.asking import Allowance, Bounds, Said, chat
from drills.checks.golden import CaseResult as _Result
from drills.checks.golden import deployments_of, judged_set, together
from drills.checks.golden_sets import GoldenSet, load, pinned
from drills.checks.scoring import Expect, score
from drills.checks.settings import Settings
from drills.checks.state import difference
from drills.checks.targets import account_of, endpoint, spelled, text_at, within
from drills.model import CheckContext
from snapshots.cloud import Place
from snapshots.errors import InputError
from snapshots.model import Key, Resource, Snapshot

_FILTERS = frozenset({Expect.BLOCKED, Expect.PASSED})


def policies_of(snapshot: Snapshot, deployment: Resource) -> dict[Key, Resource]:
    """Give what decides on a deployment's texts: its policy, that one's base, their blocklists."""
    found: dict[Key, Resource] = {}
    account = deployment.key.path[:3]
    names = [text_at(deployment.body, "properties", "raiPolicyName")]
    while names:
        key = Key("rai-policy", (*account, names.pop().lower()))
        policy = snapshot.resources.get(key)
        if policy is None or key in found:
            continue
        found[key] = policy
        names.append(text_at(policy.body, "properties", "basePolicyName"))
        lists = within(policy.body, "properties", "customBlocklists")
        for entry in lists if isinstance(lists, list) else []:
            name = text_at(entry, "blocklistName").lower()
            listed = Key("rai-blocklist", (*account, name))
            if listed in snapshot.resources:
                found[listed] = snapshot.resources[listed]
    return found


class ContentFilterCheck(AskedCheck):
    """Probes that must be blocked are, those that must pass do, and the policies are equivalent.

    With `regions: both`, the primary is probed too, and must answer alike. Its controls are a copy
    whose filters let everything through, one that stops everything, and one without a policy: each
    must be found out, so a set needs probes of both kinds.
    """

    KNOWN_AS = "content-filter"
    ABOUT = "Content filters stop what they must, let pass what they must, under the same policy."

    def read(self, settings: Settings) -> None:
        """Read the settings."""
        self.set = settings.text("set")
        self.digest = settings.text("digest")
        self.deployment = settings.text("deployment")
        self.policy = settings.flag("policy", default=True)
        self.both = settings.choice("regions", ("target", "both"), "target") == "both"
        if not self.set and not self.policy:
            raise settings.wrong("nothing is asked", "name a set of probes, or leave policy: true")
        if self.both and not self.set:
            raise settings.wrong("regions: both needs probes", "add set: a golden set of probes")
        self.bounds = Bounds.read(settings)

    def ask(self, context: CheckContext, *, broken: bool) -> Judged:
        """Probe, and compare policies."""
        found: list[Judged] = []
        if self.policy and context.expected is not None:
            found.append(self._policies(context, context.expected, broken=broken))
        elif not self.set:
            found.append(not_run("there is no snapshot to compare the policies with"))
        if self.set:
            found += self._probes(context, broken=broken)
        if broken and len(found) > 1:
            joined = found[0]
            for more in found[1:]:
                joined = both_fail(joined, more)
            return joined
        return together(found)

    # -- policies ------------------------------------------------------------------------------

    def _policies(self, context: CheckContext, expected: Snapshot, *, broken: bool) -> Judged:
        wanted: dict[Key, Resource] = {}
        for key, resource in expected.resources.items():
            named = not self.deployment or key.name == self.deployment.lower()
            if key.kind == "deployment" and named:
                wanted |= policies_of(expected, resource)
        if not wanted:
            return not_run("no deployment of the snapshot has a policy of its own")
        live = context.live()
        if broken:
            first = min(wanted)
            rest = {k: r for k, r in live.resources.items() if k != first}
            live = replace(live, resources=rest)
        return difference(context, replace(expected, resources=wanted), live)

    # -- probes --------------------------------------------------------------------------------

    def _probes(self, context: CheckContext, *, broken: bool) -> list[Judged]:
        golden = load(self.set, context)
        pinned(golden, self.digest)
        if any(case.expect.kind not in _FILTERS for case in golden.cases):
            raise InputError("a set of probes expects blocked or passed only", where=golden.name)
        kinds = frozenset(case.expect.kind for case in golden.cases)
        if kinds != _FILTERS:
            raise InputError(
                "a set of probes holds some that must be blocked and some that must pass",
                where=golden.name,
                remedy="without both, a filter that is off or that stops everything would pass",
            )
        allowance = self.bounds.allowance()
        asked = deployments_of(context, golden, self.declaration.subject, self.deployment)
        found: list[Judged] = []
        if asked.complaint is not None:
            found.append(not_run(asked.complaint.detail) if broken else asked.complaint)
        for deployment in asked.deployments:
            if broken:
                open_ = [Said("let through") for _ in golden.cases]
                shut = [Said("", filtered=case.expect.side or "prompt") for case in golden.cases]
                found.append(
                    both_fail(
                        self._judged(golden, open_, deployment.key),
                        self._judged(golden, shut, deployment.key),
                    )
                )
                continue
            place = endpoint(context, account_of(context, deployment.key))
            said = self._said(context, place, spelled(deployment), golden, allowance)
            found.append(self._judged(golden, said, deployment.key))
        if self.both and not broken:
            found.append(self._primary(context, golden, allowance))
        return found

    @staticmethod
    def _said(
        context: CheckContext, place: Place, name: str, golden: GoldenSet, allowance: Allowance
    ) -> list[Said]:
        return [chat(context, place, name, case.question, allowance) for case in golden.cases]

    @staticmethod
    def _judged(golden: GoldenSet, said: list[Said], who: Key) -> Judged:
        results: list[_Result] = []
        for case, answer in zip(golden.cases, said, strict=True):
            found = score(answer, case.expect)
            results.append(_Result(case.id, int(found.met), 1, found.met, found.why, answer.text))
        return judged_set(golden, results, 0.0, who)

    def _primary(self, context: CheckContext, golden: GoldenSet, allowance: Allowance) -> Judged:
        name = self.deployment or golden.deployment
        source = context.source
        keys = [
            key
            for key in (sorted(source.resources) if source is not None else [])
            if key.kind == "deployment" and key.name == name.lower()
        ]
        if source is None or not keys:
            return not_run(f"the snapshot has no {name} in the primary region to probe")
        found: list[Judged] = []
        primary = replace(context, live=lambda: source)
        for key in keys:
            place = endpoint(primary, account_of(primary, key))
            said = self._said(context, place, spelled(source.resources[key]), golden, allowance)
            found.append(self._judged(golden, said, key))
        return together(found)
