"""Open the cloud: which Azure, which identity, which limits."""

from __future__ import annotations

import random
import uuid
from typing import TYPE_CHECKING, Protocol

import orjson

from snapshots.clock import Clock, SystemClock
from snapshots.cloud.client import Cloud
from snapshots.cloud.environment import METADATA, Environment, described, known
from snapshots.cloud.faults import WireFault, WireKind, broken
from snapshots.cloud.place import Credential, Limits
from snapshots.errors import DamagedAnswerError, SettingsError

if TYPE_CHECKING:
    from snapshots.cloud.wire import TokenSource


class _Opener(Protocol):
    def __call__(self, url: str, *, ca_file: str | None, limits: Limits) -> bytes: ...


def open_cloud(
    *,
    environment: str = "AzureCloud",
    tenant: str = "",
    credential: Credential | TokenSource | None = None,
    ca_file: str | None = None,
    clock: Clock | None = None,
    limits: Limits | None = None,
    version: str = "dev",
    jitter: random.Random | None = None,
) -> Cloud:
    """The cloud called `environment`, ready to be asked.

    `environment` is AzureCloud, AzureChinaCloud, AzureUSGovernment, or the https:// URL of a
    resource manager, which is asked what it is. `credential` is a choice, or any credential of
    azure.identity; the default is `DefaultAzureCredential`. `ca_file` is a PEM file of certificate
    authorities to trust instead of the usual ones. No token is asked for yet.

    Raises SettingsError for a name that is unknown, UnreachableError or DamagedAnswerError when a
    URL does not tell what it is.
    """
    # The SDK costs 0.4 s of CPU to import: only who really goes out pays for it.
    from snapshots.cloud.wire import AzureWire, fetch_metadata, sign_in

    held = limits if limits is not None else Limits()
    ticking = clock if clock is not None else SystemClock()
    where = known(environment)
    if where is None:
        where = _discover(environment, fetch_metadata, ca_file, held, ticking)
    chosen = credential if credential is not None else Credential()
    if isinstance(chosen, Credential):
        tokens = sign_in(chosen, where, tenant=tenant, ca_file=ca_file)
    else:
        tokens = chosen
    line = AzureWire(
        where,
        tokens,
        tenant=tenant,
        ca_file=ca_file,
        clock=ticking,
        limits=held,
        version=version,
        run_id=str(uuid.uuid4()),
    )
    return Cloud(line, where, clock=ticking, limits=held, jitter=jitter)


def _discover(
    url: str, fetch: _Opener, ca_file: str | None, limits: Limits, clock: Clock
) -> Environment:
    base = url.rstrip("/")
    if not base.lower().startswith("https://"):
        raise SettingsError(
            f"{url} is not an https:// URL",
            remedy="tokens are only sent over https: give the resource manager's https URL",
        )
    where, host = f"GET {base}{METADATA}", base.partition("//")[2]
    for tries in range(1, 4):
        try:
            return described(
                base, orjson.loads(fetch(base + METADATA, ca_file=ca_file, limits=limits))
            )
        except WireFault as fault:
            if tries == 3 or fault.kind is WireKind.TLS:
                raise broken(fault, where, host, mutating=False) from fault
            clock.sleep(limits.backoff * tries)
        except orjson.JSONDecodeError as error:
            raise DamagedAnswerError(
                "this is not the description of an Azure cloud",
                where=where,
                remedy="check the URL: it must be the resource manager of an Azure or a sandbox",
            ) from error
    raise AssertionError  # the last try returned or raised
