"""The checks that need the drill itself: what it deployed, and what the vault gave back."""

from __future__ import annotations

from dataclasses import replace

from drills.doing import Running
from drills.leavings import arm_place
from drills.model import Check, CheckContext, CheckDeclaration, CheckOutcome, CheckState
from drills.verbs import Reconstructed
from snapshots.errors import InputError, MissingError, StoreError
from snapshots.kinds import BY_NAME
from snapshots.model import JsonObject, Snapshot, canonical, digest

NAMES = frozenset({"present", "reconstructed"})


def make(declaration: CheckDeclaration, running: Running | None) -> Check:
    """Make one of our checks. Raises InputError for settings that are not there."""
    known = {"present": {"resource", "api_version"}, "reconstructed": set[str]()}
    allowed = known[declaration.check]
    for name, value in declaration.settings.items():
        if name not in allowed:
            raise InputError(
                f"the check {declaration.check} has no setting {name!r}",
                remedy=f"known: {', '.join(sorted(allowed)) or 'none'}",
            )
        if not isinstance(value, str):
            raise InputError(f"{name} is not a text", remedy=f'write {name}: "…"')
    if declaration.check == "present":
        if set(declaration.settings) != allowed:
            raise InputError("present needs resource and api_version", remedy="write both")
        return Present(declaration, running)
    return Whole(declaration, running)


def _running(running: Running | None) -> Running:
    if running is None:
        message = "a check that was made to be looked at is run"
        raise RuntimeError(message)
    return running


class Present:
    """Whether a resource of the target is there, and ready. Its broken copy has another name."""

    def __init__(self, declaration: CheckDeclaration, running: Running | None) -> None:
        self._declaration = declaration
        self._of = running

    @property
    def name(self) -> str:
        """Its name in scripts."""
        return "present"

    def run(self, context: CheckContext) -> CheckOutcome:
        """Ask for the resource."""
        return self._ask(context, "")

    def control(self, context: CheckContext) -> CheckOutcome:
        """Ask for one that cannot be there."""
        return self._ask(context, "-broken")

    def _ask(self, context: CheckContext, broken: str) -> CheckOutcome:
        settings = self._declaration.settings
        path = _running(self._of).word(str(settings["resource"])) + broken
        params = {"api-version": str(settings["api_version"])}
        asked = CheckOutcome(
            name=self._declaration.title,
            subject=path,
            state=CheckState.FAILED,
            expected="Succeeded",
            observed="absent",
        )
        try:
            body = context.cloud.get(arm_place(path), path, params=params, kind="drill").body
        except MissingError:
            return replace(asked, detail="it is not there")
        properties = body.get("properties") if isinstance(body, dict) else None
        state = properties.get("provisioningState") if isinstance(properties, dict) else None
        if state == "Succeeded":
            return replace(asked, state=CheckState.PASSED, observed=state)
        return replace(asked, observed=state, detail="it is there, and not ready")


class Whole:
    """Whether the vault alone gives the newest snapshot back, byte for byte.

    What comes out of the vault is held against the ledger; the broken copy lacks a resource and
    has a digest that is another's.
    """

    def __init__(self, declaration: CheckDeclaration, running: Running | None) -> None:
        self._declaration = declaration
        self._of = running
        self._found: Reconstructed | None = None

    @property
    def name(self) -> str:
        """Its name in scripts."""
        return "reconstructed"

    def run(self, context: CheckContext) -> CheckOutcome:
        """Rebuild, and compare with what the ledger has."""
        return self._compare(context, self._rebuilt())

    def control(self, context: CheckContext) -> CheckOutcome:
        """Compare a copy from which something is missing."""
        found = self._rebuilt()
        resources = dict(found.snapshot.resources)
        if not resources:
            raise StoreError("the snapshot is empty: nothing can be broken in it")
        resources.pop(next(iter(resources)))
        broken = replace(found, snapshot=replace(found.snapshot, resources=resources))
        return self._compare(context, broken)

    def _rebuilt(self) -> Reconstructed:
        if self._found is None:
            self._found = _running(self._of).equipment.verbs.reconstruct()
        return self._found

    def _compare(self, context: CheckContext, found: Reconstructed) -> CheckOutcome:
        ledger = context.ledger
        if ledger is None:
            raise StoreError("there is no ledger to compare with")
        expected = _sum(ledger.load(found.snapshot.id))
        observed = _sum(found.snapshot)
        whole = expected == observed and not found.missing
        return CheckOutcome(
            name=self._declaration.title,
            subject=found.bundle,
            state=CheckState.PASSED if whole else CheckState.FAILED,
            expected=expected,
            observed={**observed, "missing": len(found.missing)} if found.missing else observed,
            detail="" if whole else "what the vault gives back is not what was kept",
        )


def _sum(snapshot: Snapshot) -> JsonObject:
    documents = [snapshot.resources[key].document() for key in sorted(snapshot.resources)]
    payloads = {p.sha256 for r in snapshot.resources.values() for p in r.payloads}
    return {
        "resources": len(documents),
        "payloads": len(payloads),
        "sha256": digest(canonical(documents)),
    }


def recovery_class(snapshot: Snapshot) -> dict[str, int]:
    """Count the resources of a snapshot by how they come back."""
    counts: dict[str, int] = {}
    for key, resource in snapshot.resources.items():
        kind = BY_NAME.get(key.kind)
        if kind is not None:
            name = kind.recovery(resource).recovery.value
            counts[name] = counts.get(name, 0) + 1
    return counts
