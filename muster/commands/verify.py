"""`muster verify`: prove that what was kept is whole."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.wiring import Wiring
from snapshots.errors import MusterError

if TYPE_CHECKING:
    from snapshots.model import JsonObject
    from snapshots.verify import Verification

_SAMPLE = re.compile(r"(\d{1,3}(?:\.\d+)?)\s*%?")


class SampleType(click.ParamType[float]):
    """A part of the payloads: 5% or 5."""

    name = "percent"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Read a percentage as a part from 0 to 1."""
        if isinstance(value, float):
            return value
        match = _SAMPLE.fullmatch(str(value).strip())
        if match is None or float(match[1]) > 100:
            self.fail(f"{value!r} is no percentage from 0% to 100%", param, ctx)
        return float(match[1]) / 100


@described(
    "muster verify",
    "muster verify --sample 5%",
    "muster verify --sample 5% --seed 7 --format json",
    exits=(Exit.CLEAN, Exit.ERROR, Exit.FINDINGS),
)
@click.command("verify", cls=Command)
@click.option(
    "--sample",
    type=SampleType(),
    default="100%",
    show_default=True,
    help="How many of the payloads are read and re-hashed; all must be there in any case.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Which ones, repeatably.")
@click.pass_obj
def command(invocation: Invocation, sample: float, seed: int) -> int:
    """Prove that what was kept is whole.

    Every object and document of the ledger, every manifest, a sample of the payloads, and a
    snapshot rebuilt from the vault alone. Damage is named with the snapshots it hurts.
    """
    from muster.report import documents
    from muster.report.progress import ProgressLine
    from muster.report.terminal import iso, plural, table, text
    from snapshots.verify import verify

    with (
        Wiring(invocation.settings(), invocation.environment) as wiring,
        ProgressLine(invocation) as line,
    ):
        found = verify(
            wiring.ledger(),
            wiring.vault(),
            now=wiring.clock.now(),
            sample=sample,
            seed=seed,
            progress=lambda what, done, of: line.tell(f"{what}: {done} of {of}"),
        )
        if found.snapshots:
            _note(wiring, invocation, found)
    hurt = sorted({snapshot for damage in found.damages for snapshot in damage.snapshots})
    if invocation.json:
        invocation.emit(
            {
                "schema": documents.schema("verify"),
                "verdict": "whole" if found.whole else "damaged",
                "at": iso(found.at),
                "sample": found.sample,
                "seed": found.seed,
                "snapshots": found.snapshots,
                "objects": found.objects,
                "reconstructed": found.reconstructed,
                "bundle": found.bundle,
                "resources": found.resources,
                "behind": found.behind,
                "hurt": list(hurt),
                "damages": [
                    {
                        "store": d.store,
                        "path": d.path,
                        "problem": d.problem,
                        "detail": d.detail,
                        "snapshots": list(d.snapshots),
                        "keys": list(d.keys),
                    }
                    for d in found.damages
                ],
            }
        )
        return Exit.CLEAN if found.whole else Exit.FINDINGS
    invocation.show(
        text(
            f"{plural(found.snapshots, 'snapshot')} in the ledger, "
            f"{plural(found.objects, 'object')} of the vault re-hashed "
            f"({found.sample:.0%} of the payloads, seed {found.seed})"
        )
    )
    if found.reconstructed:
        invocation.show(
            text(
                f"rebuilt {found.reconstructed} from {found.bundle}: "
                f"{plural(found.resources, 'resource')} compared"
                + (
                    f"; the bundle is {plural(found.behind, 'snapshot')} old"
                    if found.behind
                    else ""
                )
            )
        )
    elif not found.snapshots:
        invocation.show(text("nothing was kept yet: there is nothing to rebuild", "yellow"))
    if found.whole:
        invocation.show(text("whole", "bold green"))
        return Exit.CLEAN
    rows = [
        (d.store, d.path, d.problem, d.detail, "\n".join(d.snapshots) or "none")
        for d in found.damages
    ]
    invocation.show(
        text(f"DAMAGED: {len(found.damages)} found", "bold red"),
        table(["store", "where", "what", "detail", "hurts"], rows),
        text("next: restore the object from the remote or from a copy of the vault, or take a new"),
        text("      snapshot, which keeps what is missing and is still at Azure"),
    )
    return Exit.FINDINGS


def _note(wiring: Wiring, invocation: Invocation, found: Verification) -> None:
    """Write down when it was verified, for `muster ready`. What cannot be written is told."""
    from muster.report.terminal import iso
    from snapshots.ledger import EVIDENCE
    from snapshots.model import pretty

    document: JsonObject = {
        "kind": "verify",
        "verdict": "whole" if found.whole else "damaged",
        "at": iso(found.at),
        "sample": found.sample,
        "damages": len(found.damages),
    }
    name = found.at.strftime("verifications/%Y/%m/%Y%m%dT%H%M%S%fZ.json")
    try:
        wiring.ledger().put(EVIDENCE, {name: pretty(document)}, "verify what was kept")
    except MusterError as error:
        invocation.warn(f"the verification is not on the evidence branch: {error.what}")
