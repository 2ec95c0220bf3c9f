"""`muster verify`: prove that what was kept is whole."""

from __future__ import annotations

import re
from functools import partial

import click

from muster.invocation import Command, Exit, Invocation, described
from muster.via import VERIFY, via
from muster.wiring import Wiring

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


@via(VERIFY)
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
    from muster.report.progress import ProgressLine
    from muster.report.terminal import plural, table, text
    from muster.verbs.verify import document, verify_stores

    with (
        Wiring(invocation.settings(), invocation.environment, tell=invocation.warn) as wiring,
        ProgressLine(invocation) as line,
    ):
        found, warning = verify_stores(wiring, sample=sample, seed=seed, tell=line.tell)
    if warning:
        invocation.warn(warning)
    invocation.observe("verify", partial(document, found))
    if invocation.json:
        invocation.emit(document(found))
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
    elif not found.snapshots and found.whole:
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
