"""Ask Azure, before the first change, for everything that would stop a plan half way. Only reads.

A gate that cannot be asked is not passed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import orjson

from snapshots.asking import Asking
from snapshots.cloud.place import Permission, Place, Plane
from snapshots.errors import MissingError, MusterError
from snapshots.kinds import BY_NAME
from snapshots.kinds.fields import location
from snapshots.kinds.openai import is_fine_tuned
from snapshots.mapping import take_at
from snapshots.model import Json, JsonObject, Key, Resource, Snapshot
from snapshots.steps import Action, Plan, Step

_CS = "Microsoft.CognitiveServices"
_ACCOUNTS = f"{_CS}/accounts"
# What writing a kind needs, control plane then data plane.
ACTIONS: Mapping[str, tuple[str, bool]] = {
    "resource-group": ("Microsoft.Resources/subscriptions/resourceGroups", False),
    "account": (_ACCOUNTS, False),
    "deployment": (f"{_ACCOUNTS}/deployments", False),
    "rai-policy": (f"{_ACCOUNTS}/raiPolicies", False),
    "rai-blocklist": (f"{_ACCOUNTS}/raiBlocklists", False),
    "rai-topic": (f"{_ACCOUNTS}/raiTopics", False),
    "encryption-scope": (f"{_ACCOUNTS}/encryptionScopes", False),
    "defender-setting": (f"{_ACCOUNTS}/defenderForAISettings", False),
    "managed-network": (f"{_ACCOUNTS}/managedNetworks", False),
    "outbound-rule": (f"{_ACCOUNTS}/managedNetworks/outboundRules", False),
    "account-connection": (f"{_ACCOUNTS}/connections", False),
    "account-capability-host": (f"{_ACCOUNTS}/capabilityHosts", False),
    "project": (f"{_ACCOUNTS}/projects", False),
    "project-connection": (f"{_ACCOUNTS}/projects/connections", False),
    "project-capability-host": (f"{_ACCOUNTS}/projects/capabilityHosts", False),
    "diagnostic-setting": ("Microsoft.Insights/diagnosticSettings", False),
    "role-assignment": ("Microsoft.Authorization/roleAssignments", False),
    "lock": ("Microsoft.Authorization/locks", False),
    "file": (f"{_ACCOUNTS}/OpenAI/files", True),
    "fine-tuned-model": (f"{_ACCOUNTS}/OpenAI/fine-tunes", True),
    "vector-store": (f"{_ACCOUNTS}/OpenAI/assistants/vector_stores", True),
    "project-file": (f"{_ACCOUNTS}/AIServices/assets", True),
    "project-vector-store": (f"{_ACCOUNTS}/AIServices/assets", True),
    "assistant": (f"{_ACCOUNTS}/OpenAI/assistants", True),
    "agent": (f"{_ACCOUNTS}/AIServices/agents", True),
}
_PROVISIONED = ("Provisioned",)
# Where a body says whose key it is encrypted with.
_ENCRYPTED: Mapping[str, str] = {
    "account": "/properties/encryption",
    "encryption-scope": "/properties",
}
_OWN_KEY = "Microsoft.KeyVault"


class Cloud(Asking, Protocol):
    """What the gates ask of the one way out to Azure."""

    @property
    def regions(self) -> Regions:
        """The regions that are declared down."""
        ...

    def permissions(self, scope: str) -> tuple[Permission, ...]:
        """What the signed-in identity may do at a scope."""
        ...


class Regions(Protocol):
    """Which regions are declared down."""

    @property
    def down(self) -> Mapping[str, str]:
        """The regions declared down, and why."""
        ...


@dataclass(frozen=True, slots=True, order=True)
class GateResult:
    """One thing that was asked beforehand."""

    # permission, quota, capacity, model, name, region, payload, secret, lock, role or key
    name: str
    subject: str
    passed: bool
    detail: str
    remedy: str = ""


def check_gates(
    plan: Plan,
    cloud: Cloud,
    *,
    has_payload: Callable[[str], bool],
    secret: Callable[[str], str],
    there: Mapping[Key, Resource],
    source: Snapshot,
    vouched: Collection[str] = (),
    now: datetime | None = None,
) -> tuple[GateResult, ...]:
    """Give what was asked and what the answer was, failures first. Changes nothing, never raises.

    `there` is the target as it was taken; `source` the snapshot: a subscription that has a model
    deployed there is an existing customer of it. `vouched` holds the URIs of key vaults that
    somebody looked at who may see them.
    """
    if plan.is_empty:
        return ()
    seen = frozenset(uri.rstrip("/").lower() for uri in vouched)
    gates = _Gates(plan, cloud, has_payload, secret, there, source, now or plan.made_at, seen)
    found = [
        *gates.regions(),
        *gates.permissions(),
        *gates.locks(),
        *gates.roles(),
        *gates.names(),
        *gates.keys(),
        *gates.models(),
        *gates.payloads(),
        *gates.secrets(),
    ]
    return tuple(sorted(found, key=lambda gate: (gate.passed, gate.name, gate.subject)))


@dataclass(slots=True)
class _Gates:
    plan: Plan
    cloud: Cloud
    has_payload: Callable[[str], bool]
    secret: Callable[[str], str]
    there: Mapping[Key, Resource]
    source: Snapshot
    now: datetime
    vouched: frozenset[str] = frozenset()

    # ---- regions, payloads, secrets --------------------------------------------------------

    def regions(self) -> Iterator[GateResult]:
        down = self.cloud.regions.down
        for region in sorted({step.region for step in self.plan.steps if step.region}):
            if region in down:
                yield GateResult(
                    "region",
                    region,
                    passed=False,
                    detail=f"declared down: {down[region]}",
                    remedy="restore to the standby: --to standby",
                )
            else:
                yield GateResult("region", region, passed=True, detail="not declared down")

    def payloads(self) -> Iterator[GateResult]:
        for step in self.plan.steps:
            if step.action is Action.DELETE:
                continue
            for payload in step.payloads:
                there = self.has_payload(payload.sha256)
                yield GateResult(
                    "payload",
                    str(step.key),
                    passed=there,
                    detail=f"{payload.size} bytes, sha256 {payload.sha256[:12]}…"
                    + ("" if there else " is not in the vault"),
                    remedy="" if there else "run `muster verify` to see what the vault lacks",
                )

    def secrets(self) -> Iterator[GateResult]:
        """A reference that leads nowhere stops the plan; one that was never given its step only."""
        for step in self.plan.steps:
            for question in step.questions:
                if not question.answer:
                    continue
                try:
                    value = self.secret(question.answer)
                except MusterError as error:
                    value, why = "", error.what
                else:
                    why = _misshapen(step, question.path, value) if value else "it is empty"
                if value and not why:
                    detail = f"{question.what}: {question.answer}"
                    yield GateResult("secret", str(step.key), passed=True, detail=detail)
                else:
                    yield GateResult(
                        "secret",
                        str(step.key),
                        passed=False,
                        detail=f"{question.what}: {question.answer}: {why}",
                        remedy="set it, or correct the reference under [restore.secrets]",
                    )

    # ---- permissions ----------------------------------------------------------------------

    def permissions(self) -> Iterator[GateResult]:
        needed: dict[str, set[tuple[str, bool]]] = {}
        groups = {key.path for key in self.there if key.kind == "resource-group"}
        for step in self.plan.steps:
            scope = self._scope(step.key, groups)
            needed.setdefault(scope, set()).update(actions_of(step))
        for scope, actions in sorted(needed.items()):
            try:
                granted = self.cloud.permissions(scope)
            except MusterError as error:
                yield GateResult(
                    "permission",
                    scope,
                    passed=False,
                    detail=f"not known: {error.what}",
                    remedy=error.remedy,
                )
                continue
            lacking = sorted(
                action
                for action, data in actions
                if not any(g.allows_data(action) if data else g.allows(action) for g in granted)
            )
            if lacking:
                yield GateResult(
                    "permission",
                    scope,
                    passed=False,
                    detail="may not " + ", ".join(lacking),
                    remedy="grant the operator role of docs/roles at this scope",
                )
            else:
                yield GateResult(
                    "permission", scope, passed=True, detail=f"{len(actions)} actions allowed"
                )

    @staticmethod
    def _scope(key: Key, groups: set[tuple[str, ...]]) -> str:
        if len(key.path) >= 2 and key.path[:2] in groups and key.kind != "resource-group":
            return f"/subscriptions/{key.path[0]}/resourceGroups/{key.path[1]}"
        return f"/subscriptions/{key.subscription}"

    def locks(self) -> Iterator[GateResult]:
        """A lock in the target forbids deletions below it, or every write: muster lifts none."""
        lifted = {
            step.key
            for step in self.plan.steps
            if step.key.kind == "lock" and step.action is Action.DELETE
        }
        for key, resource in self.there.items():
            if key.kind != "lock" or key in lifted:
                continue
            level = str(take_at(resource.body, "/properties/level") or "")
            scope = key.path[:-1]
            stopped = [
                step
                for step in self.plan.steps
                if step.key.path[: len(scope)] == scope
                and BY_NAME[step.key.kind].plane is Plane.ARM
                and (step.action is Action.DELETE or level == "ReadOnly")
            ]
            if stopped:
                yield GateResult(
                    "lock",
                    str(key),
                    passed=False,
                    detail=f"{level} forbids {stopped[0].action.value} {stopped[0].key}"
                    + (f" and {len(stopped) - 1} more steps" if len(stopped) > 1 else ""),
                    remedy=f"take it away: `az lock delete --ids {resource.id}`; restore; then put "
                    f"it back: `muster restore {self.plan.snapshot[:12] or 'latest'} --only "
                    f"'{key}' --apply`",
                )

    def roles(self) -> Iterator[GateResult]:
        """A role that is assigned must be known at its scope: a custom one may not reach there."""
        asked: dict[str, list[Step]] = {}
        for step in self.plan.steps:
            if step.key.kind != "role-assignment" or step.after is None:
                continue
            role = take_at(step.after.body, "/properties/roleDefinitionId")
            if isinstance(role, str) and role:
                asked.setdefault(role, []).append(step)
        for role, steps in sorted(asked.items()):
            subscription = steps[0].key.subscription
            try:
                self.cloud.get(
                    Place(Plane.ARM, "", subscription, ""),
                    role,
                    params={"api-version": "2022-04-01"},
                    kind="role-definition",
                )
            except MissingError:
                yield GateResult(
                    "role",
                    role,
                    passed=False,
                    detail=f"subscription {subscription} knows no such role: {steps[0].key} would "
                    "be refused",
                    remedy="add the subscription to the custom role's assignableScopes",
                )
            except MusterError as error:
                yield GateResult(
                    "role",
                    role,
                    passed=False,
                    detail=f"not known: {error.what}",
                    remedy=error.remedy,
                )
            else:
                yield GateResult("role", role, passed=True, detail="known there")

    # ---- names ----------------------------------------------------------------------------

    def names(self) -> Iterator[GateResult]:
        for step in self.plan.steps:
            if step.key.kind != "account" or step.action is not Action.CREATE:
                continue
            domain = (
                take_at(step.after.body, "/properties/customSubDomainName") if step.after else ""
            )
            if not isinstance(domain, str) or not domain:
                continue
            subscription = step.key.path[0]
            path = f"/subscriptions/{subscription}/providers/{_CS}/checkDomainAvailability"
            try:
                answer = self.cloud.post(
                    Place(Plane.ARM, "", subscription, ""),
                    path,
                    {"subdomainName": domain, "type": _ACCOUNTS},
                    params={"api-version": BY_NAME["account"].api_version},
                    kind="check-domain",
                    reads=True,
                )
            except MusterError as error:
                yield GateResult("name", domain, passed=False, detail=f"not known: {error.what}")
                continue
            body = answer.body if isinstance(answer.body, dict) else {}
            if body.get("isSubdomainAvailable") is True:
                yield GateResult("name", domain, passed=True, detail="the subdomain is free")
                continue
            gone = self._deleted_holder(subscription, domain)
            detail = f"the subdomain of {step.key} is taken: {body.get('reason') or 'in use'}"
            remedy = (
                "find the account that has it (a soft-deleted one keeps it for 48 hours: "
                "`az cognitiveservices account list-deleted`), or give another subdomain in "
                "[estate.pair.accounts]"
            )
            if gone is not None:
                parts = str(gone.get("id") or "").split("/")
                lower = [part.lower() for part in parts]
                detail += f"; the soft-deleted account {gone.get('name')} holds it"
                if "resourcegroups" in lower and "locations" in lower:
                    group = parts[lower.index("resourcegroups") + 1]
                    region = parts[lower.index("locations") + 1]
                    remedy = (
                        "if nobody needs it any more: `az cognitiveservices account purge "
                        f"-n {gone.get('name')} -g {group} -l {region}`"
                    )
            yield GateResult("name", domain, passed=False, detail=detail, remedy=remedy)

    def _deleted_holder(self, subscription: str, domain: str) -> JsonObject | None:
        """Give the soft-deleted account that holds a subdomain, as far as this one can see."""
        try:
            for wire in self.cloud.list(
                Place(Plane.ARM, "", subscription, ""),
                f"/subscriptions/{subscription}/providers/{_CS}/deletedAccounts",
                params={"api-version": BY_NAME["account"].api_version},
                kind="deleted-account",
            ):
                held = take_at(wire, "/properties/customSubDomainName")
                if str(held or "").lower() == domain.lower():
                    return wire
        except MusterError:
            return None
        return None

    # ---- customer-managed keys -------------------------------------------------------------

    def keys(self) -> Iterator[GateResult]:
        """A vault in the account's region, opened by its system-assigned identity.

        "Key Vault … must be in the same region and in the same Microsoft Entra tenant", soft delete
        and do-not-purge, system-assigned identity only:
        https://learn.microsoft.com/azure/ai-foundry/openai/encrypt-data-at-rest, 2025-11-26.
        """
        asked: list[tuple[Step, str, list[str]]] = []  # the step, its vault, what does not fit
        for step in self.plan.steps:
            place = _ENCRYPTED.get(step.key.kind)
            if place is None or step.after is None or step.action is Action.SWITCH:
                continue
            of_account = step.key.kind == "account"
            touched = step.action is Action.CREATE or any(
                p.path.startswith(place) for p in step.paths
            )
            if not touched or take_at(step.after.body, f"{place}/keySource") != _OWN_KEY:
                continue
            held = f"{place}/keyVaultProperties"
            uri = str(take_at(step.after.body, f"{held}/keyVaultUri") or "").rstrip("/").lower()
            wrong = self._opened_by(step.after) if of_account else []
            if take_at(step.after.body, f"{held}/identityClientId"):
                wrong.append("a user-assigned identity opens the key, which is not supported")
            asked.append((step, uri, wrong))
        if not asked:
            return
        vaults: dict[str, JsonObject] = {}
        unseen = ""
        subscriptions = {key.path[0] for key in self.source.resources if key.kind == "account"}
        for subscription in sorted({step.key.subscription for step, *_ in asked} | subscriptions):
            try:
                for wire in self.cloud.list(
                    Place(Plane.ARM, "", subscription, ""),
                    f"/subscriptions/{subscription}/providers/Microsoft.KeyVault/vaults",
                    params={"api-version": "2023-07-01"},
                    kind="key-vault",
                ):
                    uri = str(take_at(wire, "/properties/vaultUri") or "").rstrip("/").lower()
                    vaults[uri] = wire
            except MusterError as error:
                unseen = f": {error.what}"
        for step, uri, wrong in asked:
            yield self._key(step, uri, wrong, vaults.get(uri), unseen)

    @staticmethod
    def _opened_by(account: Resource) -> list[str]:
        identity = str(take_at(account.body, "/identity/type") or "None")
        if "systemassigned" in identity.replace(" ", "").lower():
            return []
        told = f"the account's identity is {identity}, and only a system-assigned one may open"
        return [f"{told} the key"]

    def _key(
        self, step: Step, uri: str, wrong: list[str], vault: JsonObject | None, unseen: str
    ) -> GateResult:
        region = step.region
        if vault is not None:
            there = location(str(vault.get("location") or ""))
            if there != region:
                wrong.append(f"its vault {uri} is in {there}, and must be in {region}")
            if take_at(vault, "/properties/enableSoftDelete") is False:
                wrong.append(f"its vault {uri} has no soft delete")
            if take_at(vault, "/properties/enablePurgeProtection") is not True:
                wrong.append(f"its vault {uri} has no purge protection")
        if wrong:
            return GateResult(
                "key",
                str(step.key),
                passed=False,
                detail="; ".join(wrong),
                remedy=f"make a vault with that key in {region}, with soft delete and purge "
                "protection, and name it in [estate.pair.keys]; give the account a system-assigned "
                "identity",
            )
        if vault is not None:
            return GateResult("key", str(step.key), passed=True, detail=f"{uri} is in {region}")
        if uri in self.vouched:
            told = f"{uri} was not looked at: [restore] vouched_vaults answers for it"
            return GateResult("key", str(step.key), passed=True, detail=told)
        named = uri or "its vault"
        return GateResult(
            "key",
            str(step.key),
            passed=False,
            detail=f"not known: {named} is in no subscription that can be seen{unseen}",
            remedy="let this identity read the vault's subscription; or look yourself whether it "
            f"is in {region} and in this tenant, with soft delete and purge protection, and name "
            "it in [restore] vouched_vaults",
        )

    # ---- models, quota, capacity -----------------------------------------------------------

    def models(self) -> Iterator[GateResult]:
        writing = [
            step
            for step in self.plan.steps
            if step.after is not None
            and step.key.kind == "deployment"
            and step.action in {Action.CREATE, Action.COPY, Action.UPDATE}
        ]
        places: dict[tuple[str, str], list[Step]] = {}
        for step in writing:
            places.setdefault((step.key.path[0], step.region), []).append(step)
        new_accounts = Counter(
            (step.key.path[0], step.region)
            for step in self.plan.steps
            if step.key.kind == "account"
            and step.action is Action.CREATE
            and step.after is not None
            and step.after.body.get("kind") in {"OpenAI", "AIServices"}
        )
        for place in sorted({*places, *new_accounts}):
            subscription, region = place
            steps = places.get(place, [])
            if region in self.cloud.regions.down:
                continue
            try:
                offered = self._listed(subscription, region, "models") if steps else []
                usages = self._listed(subscription, region, "usages")
            except MusterError as error:
                yield GateResult("quota", region, passed=False, detail=f"not known: {error.what}")
                continue
            yield from self._place(place, steps, offered, usages, new_accounts[place])

    def _listed(self, subscription: str, region: str, what: str) -> list[JsonObject]:
        return list(
            self.cloud.list(
                Place(Plane.ARM, "", subscription, region),
                f"/subscriptions/{subscription}/providers/{_CS}/locations/{region}/{what}",
                params={"api-version": BY_NAME["account"].api_version},
                kind=f"reference-{what}",
            )
        )

    def _place(
        self,
        place: tuple[str, str],
        steps: Iterable[Step],
        offered: Iterable[JsonObject],
        usages: Iterable[JsonObject],
        accounts: int,
    ) -> Iterator[GateResult]:
        subscription, region = place
        catalogue = _catalogue(offered)
        demand: Counter[str] = Counter()
        units: Counter[tuple[str, str, str, str]] = Counter()
        for step in steps:
            assert step.after is not None
            model, sku, capacity = _model_of(step.after)
            before = _model_of(step.before)[2] if step.before is not None else 0
            same = step.before is not None and _model_of(step.before)[:2] == (model, sku)
            name, usage = self._model(subscription, region, step, catalogue)
            yield name
            more = capacity - before if same else capacity
            if usage and more > 0:
                demand[usage] += more
                if sku.startswith(_PROVISIONED):
                    units[(*model, sku)] += more
        if accounts:
            demand["OpenAI.S0.AccountCount"] += accounts
        left = {str(take_at(u, "/name/value")): u for u in usages}
        for usage, wanted in sorted(demand.items()):
            found = left.get(usage)
            limit, used = (_number(found, "limit"), _number(found, "currentValue"))
            if found is None:
                if usage != "OpenAI.S0.AccountCount":
                    yield GateResult(
                        "quota",
                        f"{region} {usage}",
                        passed=False,
                        detail=f"wanted {wanted}; this subscription has no such quota here",
                        remedy="ask for quota, or map the sku in [estate.pair.sku]",
                    )
                continue
            free = limit - used
            yield GateResult(
                "quota",
                f"{region} {usage}",
                passed=wanted <= free,
                detail=f"wanted {wanted}, left {free:g} of {limit:g}",
                remedy=""
                if wanted <= free
                else "ask for quota, delete what is not needed, or give less capacity in "
                "[estate.pair.sku]",
            )
        yield from self._capacity(subscription, region, units)

    def _model(
        self,
        subscription: str,
        region: str,
        step: Step,
        catalogue: Mapping[tuple[str, str, str], JsonObject],
    ) -> tuple[GateResult, str]:
        """Whether a region offers a deployment's model, version and sku, and to what it counts."""
        assert step.after is not None
        (format_, name, version), sku, _ = _model_of(step.after)
        tuned = is_fine_tuned(name)
        if tuned:
            base = _base(name, catalogue)
            usage = f"{format_}.{sku}" if sku.startswith(_PROVISIONED) else ""
            if base is None:
                found = None
            else:
                found = catalogue[base]
                usage = usage or f"{format_}.{sku}.{base[1]}-finetune"
        else:
            found = catalogue.get((format_.lower(), name.lower(), version))
            usage = ""
            if found is not None:
                for offer in _objects(found.get("skus")):
                    if str(offer.get("name")).lower() == sku.lower():
                        usage = str(offer.get("usageName") or "")
        subject = f"{step.key}: {name} {version} {sku}"
        if found is None or (not usage):
            what = "is not offered" if found is None else f"is not offered as {sku}"
            return GateResult(
                "model",
                subject,
                passed=False,
                detail=f"{name} {version} {what} in {region} to this subscription",
                remedy="map the sku or the version in [[estate.pair]], or choose another region",
            ), ""
        status = str(found.get("lifecycleStatus") or "")
        retired = str(take_at(found, "/deprecation/inference") or "")
        ended = status == "Deprecated" or (retired and _moment(retired) <= self.now)
        if ended:
            return GateResult(
                "model",
                subject,
                passed=False,
                detail=f"{name} {version} is retired since {retired}",
                remedy="map its version to a successor in [estate.pair.versions]",
            ), usage
        if (
            status == "Deprecating"
            and not tuned
            and not self._customer(subscription, name, version)
        ):
            return GateResult(
                "model",
                subject,
                passed=False,
                detail=f"{name} {version} is deprecating: only for subscriptions that have it "
                "deployed already",
                remedy="map its version to a successor in [estate.pair.versions]",
            ), usage
        return GateResult(
            "model", subject, passed=True, detail=f"offered in {region}, {status or 'stable'}"
        ), usage

    def _customer(self, subscription: str, name: str, version: str) -> bool:
        """Whether a subscription has, or had in the snapshot, this version deployed."""
        for resource in (*self.there.values(), *self.source.resources.values()):
            if resource.key.kind != "deployment" or resource.key.path[0] != subscription:
                continue
            (_, other, number), _, _ = _model_of(resource)
            if (other.lower(), number) == (name.lower(), version):
                return True
        return False

    def _capacity(
        self, subscription: str, region: str, units: Mapping[tuple[str, str, str, str], int]
    ) -> Iterator[GateResult]:
        """Quota for provisioned units is no capacity: the region must have some left."""
        for (format_, name, version, sku), wanted in sorted(units.items()):
            subject = f"{region} {name} {version} {sku}"
            try:
                listed = list(
                    self.cloud.list(
                        Place(Plane.ARM, "", subscription, ""),
                        f"/subscriptions/{subscription}/providers/{_CS}/modelCapacities",
                        params={
                            "api-version": BY_NAME["account"].api_version,
                            "modelFormat": format_,
                            "modelName": name,
                            "modelVersion": version,
                        },
                        kind="reference-capacities",
                    )
                )
            except MissingError:
                listed = []
            except MusterError as error:
                detail = f"not known: {error.what}"
                yield GateResult("capacity", subject, passed=False, detail=detail)
                continue
            free = 0.0
            for item in listed:
                where = str(item.get("location") or "").replace(" ", "").lower()
                if where == region and take_at(item, "/properties/skuName") == sku:
                    found = take_at(item, "/properties/availableCapacity")
                    free = max(free, float(found) if isinstance(found, int | float) else 0.0)
            yield GateResult(
                "capacity",
                subject,
                passed=wanted <= free,
                detail=f"wanted {wanted} units, the region has {free:g} left",
                remedy=""
                if wanted <= free
                else "map the sku to GlobalStandard in [estate.pair.sku], or choose another region",
            )


def vaults_of(snapshot: Snapshot, mapped: Mapping[str, str]) -> tuple[str, ...]:
    """Give the key vaults that a snapshot's bodies name, and those that a mapping puts there."""
    found = {uri.rstrip("/").lower() for uri in mapped.values()}
    for key, resource in snapshot.resources.items():
        place = _ENCRYPTED.get(key.kind)
        uri = take_at(resource.body, f"{place}/keyVaultProperties/keyVaultUri") if place else None
        if isinstance(uri, str) and uri:
            found.add(uri.rstrip("/").lower())
    return tuple(sorted(found))


# What `credentials` of a connection must hold, where one value alone does not do.
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "AccessKey": ("accessKeyId", "secretAccessKey"),
    "OAuth2": ("clientId", "clientSecret"),
    "ServicePrincipal": ("clientId", "clientSecret", "tenantId"),
    "UsernamePassword": ("username", "password"),
}


def _misshapen(step: Step, path: str, value: str) -> str:
    """Say what an answer lacks for the place that it goes to, "" when nothing. Never the answer."""
    if not path.endswith("/credentials") or step.after is None:
        return ""
    auth = str(take_at(step.after.body, "/properties/authType") or "")
    needed = _FIELDS.get(auth, ())
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        found = None
    missing = [name for name in needed if not isinstance(found, dict) or not found.get(name)]
    if not missing:
        return ""
    return f"{auth} needs a JSON object with {', '.join(needed)}; it lacks {', '.join(missing)}"


def actions_of(step: Step) -> set[tuple[str, bool]]:
    """Give the permissions that a step needs: the action, and whether it is a data action."""
    found = ACTIONS.get(step.key.kind)
    if found is None:
        return set()
    name, data = found
    verb = "delete" if step.action is Action.DELETE else "write"
    needed = {(f"{name}/{verb}", data)}
    if step.key.kind == "rai-blocklist" and step.action is not Action.DELETE:
        needed.add((f"{name}/raiBlocklistItems/write", data))
    return needed


def _model_of(deployment: Resource) -> tuple[tuple[str, str, str], str, int]:
    model = take_at(deployment.body, "/properties/model")
    model = model if isinstance(model, dict) else {}
    sku = deployment.body.get("sku")
    sku = sku if isinstance(sku, dict) else {}
    capacity = sku.get("capacity")
    return (
        (
            str(model.get("format") or "OpenAI"),
            str(model.get("name") or ""),
            str(model.get("version") or ""),
        ),
        str(sku.get("name") or ""),
        capacity if isinstance(capacity, int) else 1,
    )


def _catalogue(offered: Iterable[JsonObject]) -> dict[tuple[str, str, str], JsonObject]:
    """Models by format, name and version; an account kind lists each of them again."""
    found: dict[tuple[str, str, str], JsonObject] = {}
    for item in offered:
        model = item.get("model")
        model = model if isinstance(model, dict) else item
        key = (
            str(model.get("format") or "").lower(),
            str(model.get("name") or "").lower(),
            str(model.get("version") or ""),
        )
        found.setdefault(key, model)
    return found


def _base(
    name: str, catalogue: Mapping[tuple[str, str, str], JsonObject]
) -> tuple[str, str, str] | None:
    """A fine-tuned model is called <base>-<version>.ft-<id>."""
    stem = name.partition(".ft-")[0].lower()
    for key in catalogue:
        if f"{key[1]}-{key[2]}" == stem:
            return key
    return None


def _objects(value: Json) -> list[JsonObject]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _number(item: JsonObject | None, name: str) -> float:
    value = item.get(name) if item is not None else None
    return float(value) if isinstance(value, int | float) else 0.0


def _moment(text: str) -> datetime:
    from datetime import UTC

    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
