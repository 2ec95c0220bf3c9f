"""`muster sandbox`: a local Azure to try things in, to test against and to rehearse in."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from muster.invocation import Command, described
from snapshots.errors import InputError


@described(
    "muster sandbox --ready-file ready.json",
    "muster sandbox --state ./azure --estate demo --port 8443 --time-scale 60",
    "muster sandbox --state ./mine --estate my-company.yaml --seed 7",
)
@click.command("sandbox", cls=Command)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".muster-sandbox"),
    show_default=True,
    help="Folder that keeps everything; a restart goes on with what is there.",
)
@click.option(
    "--estate",
    default="demo",
    show_default=True,
    help="What a new sandbox holds: demo, empty, or a YAML file.",
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port on loopback; 0: a free one."
)
@click.option("--seed", type=int, default=1, show_default=True, help="Makes ids and chance repeat.")
@click.option(
    "--time-scale",
    type=click.FloatRange(min=0, min_open=True),
    default=None,
    help="Sandbox seconds that pass in one real second.  [default: 1]",
)
@click.option(
    "--ready-file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="JSON with addresses and principals, written when it serves (readable by you only).",
)
@click.option("--blob/--no-blob", default=True, help="Start Azurite for Blob storage beside it.")
def command(
    state: Path,
    estate: str,
    port: int,
    seed: int,
    time_scale: float | None,
    ready_file: Path | None,
    blob: bool,
) -> int:
    """Serve a local Azure over HTTPS on loopback until Ctrl-C.

    It speaks Azure's wire protocol: Microsoft's own SDKs, the Azure CLI and the openai package
    work against it. Nothing leaves this machine.
    """
    from drills.sandbox.estates import EstateError
    from drills.sandbox.serve import Options, StartError, run
    from drills.sandbox.store import StateError

    options = Options(
        state=state,
        estate=estate,
        port=port,
        seed=seed,
        time_scale=time_scale,
        ready_file=ready_file,
        blob=blob,
    )
    # Started in the background by a non-interactive shell, SIGINT is inherited as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run(options)
    except (StartError, StateError, EstateError) as error:
        what, _, remedy = str(error).partition("; ")
        raise InputError(
            f"the sandbox cannot start: {what}",
            remedy=remedy or "see `muster sandbox --help`",
        ) from None
    return 0
