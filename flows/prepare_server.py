"""Make on a Prefect server what muster needs: pool, limit, deployments, and who hears of what.

python -m flows.prepare_server [--file prefect.yaml] [--notify FILE]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from httpx import HTTPError
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists

from flows import notifications
from flows.turns import limit_of
from muster.settings import Environment, find, load
from muster.wiring import Wiring
from snapshots.errors import InputError, MusterError, SettingsError, UnreachableError

ROOT = Path(__file__).resolve().parent.parent
_PATIENCE = 180  # seconds for deploying


def prepare(file: Path, notify: Path | None) -> None:
    """Make it all, or see that it is there; may be run again and again. Raises MusterError."""
    wanted = notifications.read(notify) if notify is not None else None
    pools = pools_of(file)
    try:
        with get_client(sync_client=True) as client:
            for pool in pools:
                _pool(client, pool)
            _limit(client)
            if wanted is not None and notify is not None:
                notifications.apply(wanted, notify.parent, client)
    except HTTPError as error:
        raise UnreachableError(
            f"Prefect's server does not do what was asked ({type(error).__name__}: {error})",
            remedy="see that it runs, and that PREFECT_API_URL means it",
        ) from None
    _deploy(file)


def pools_of(file: Path) -> list[str]:
    """Give the work pools that a file of deployments names. Raises InputError."""
    try:
        found: Any = yaml.safe_load(file.read_text("utf-8"))
        return sorted({str(one["work_pool"]["name"]) for one in found["deployments"]})
    except OSError as error:
        raise InputError(
            f"the deployments cannot be read: {error.strerror}", where=str(file)
        ) from None
    except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise InputError(
            f"this is no file of deployments ({type(error).__name__})",
            where=str(file),
            remedy="every deployment names a work_pool, as in prefect.yaml",
        ) from None


def _pool(client: SyncPrefectClient, name: str) -> None:
    try:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
    except ObjectAlreadyExists:
        return
    print(f"made the work pool {name}")  # noqa: T201


def _limit(client: SyncPrefectClient) -> None:
    """Let one run at a time write the ledger of the configuration that is meant here, if any."""
    environment = Environment.read()
    try:
        settings = load(find(environment.config))
    except SettingsError:
        return
    with Wiring(settings, environment) as wiring:
        client.upsert_global_concurrency_limit_by_name(limit_of(wiring), 1)


def _deploy(file: Path) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        [*command, "--prefect-file", str(file)],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise MusterError(
            f"the deployments were not made: {' '.join(words[-3:])}",
            where=str(file),
            remedy="run `prefect deploy --all` to see it all",
        )
    for line in done.stdout.splitlines():
        if "successfully created" in line or "successfully updated" in line:
            print("deployed", line.split("'")[1])  # noqa: T201


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line."""
    reader = argparse.ArgumentParser(prog="python -m flows.prepare_server", description=__doc__)
    reader.add_argument("--file", type=Path, default=ROOT / "prefect.yaml")
    reader.add_argument("--notify", type=Path, help="a file of channels and routes")
    asked = reader.parse_args(argv)
    try:
        prepare(asked.file.absolute(), asked.notify)
    except MusterError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
