"""Have the shards of a snapshot read by workers, see to those that are lost, and commit once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from logging import Logger, LoggerAdapter
from typing import Any, Final
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.deployments import run_deployment
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Cancelling

from flows.wired import VerbError, shielded
from muster.verbs.shards import last_beat, missing_shards, read_shard
from muster.wiring import Wiring
from snapshots.shards import Order

DEPLOYMENT: Final = "take-shard/shards"
_LOOK: Final = 2.0  # seconds between two looks at the vault and at Prefect
_TRIES: Final = 3  # of one shard, before the snapshot goes on without it
_ENDED: Final = frozenset(
    {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}
)
_BEGUN: Final = frozenset({StateType.RUNNING, StateType.CANCELLING})


@dataclass(slots=True)
class _Watch:
    """One shard on its way."""

    number: int
    tries: int = 0
    run: UUID | None = None
    asked: float = 0.0  # when this try was started
    beat: bytes = b""
    alive: float = 0.0  # when it last showed life
    why: str = ""


def gather(
    wiring: Wiring, order: Order, *, config: str, start: float, silence: float
) -> dict[int, str]:
    """Have every shard of an order read; give those that were not, each with the reason.

    A worker takes each as a run of the deployment take-shard/shards. One that ends without a
    capture, or shows no life for `silence` seconds, is taken again, up to three times; the first
    capture counts, so nothing is taken twice. What no worker begins within `start` seconds, and
    everything when Prefect's server is away, is read here.
    """
    logger = get_run_logger()
    watched = {shard.number: _Watch(shard.number) for shard in order.shards}
    lost: dict[int, str] = {}
    with get_client(sync_client=True) as client:
        try:
            while True:
                with shielded():
                    missing = set(missing_shards(wiring, order.run)) - set(lost)
                if not missing:
                    return lost
                for number in sorted(missing):
                    watch = watched[number]
                    try:
                        _see_to(client, wiring, order, watch, config, start, silence, logger)
                    except VerbError as error:
                        lost[number] = str(error.what)
                        logger.warning("%s is lost: %s", order.shard(number).name, error)
                time.sleep(_LOOK)
        except BaseException:
            _call_off(client, watched.values(), logger)
            raise


def _see_to(
    client: SyncPrefectClient,
    wiring: Wiring,
    order: Order,
    watch: _Watch,
    config: str,
    start: float,
    silence: float,
    logger: Logger | LoggerAdapter[Any],
) -> None:
    """Start, watch or take again one shard that has no capture yet. Raises VerbError: given up."""
    now, name = time.monotonic(), order.shard(watch.number).name
    if watch.run is None:
        if watch.tries >= _TRIES:
            raise VerbError(f"taken {watch.tries} times: {watch.why}")
        watch.run = _start(order, watch, config)
        watch.tries += 1
        watch.asked = watch.alive = now
        if watch.run is None:
            logger.warning("Prefect starts no worker for %s: it is read here", name)
            _read_here(wiring, order, watch)
        return
    state = _state(client, watch.run)
    if state in _ENDED:
        # The capture is kept before the run ends: look once more before it counts as lost.
        with shielded():
            if watch.number not in missing_shards(wiring, order.run):
                return
        watch.why = f"its run ended {str(state.value).lower()} without a capture" if state else ""
    elif state in _BEGUN or state is None:
        with shielded():
            beat = last_beat(wiring, order.run, watch.number)
        if beat != watch.beat:
            watch.beat, watch.alive = beat, now
        if now - watch.alive < silence:
            return
        watch.why = f"its worker showed no life for {silence:.0f} seconds"
    else:
        watch.alive = now
        if now - watch.asked < start:
            return
        logger.warning("no worker began %s in %.0f seconds: it is read here", name, start)
        _call_off(client, [watch], logger)
        _read_here(wiring, order, watch)
        return
    logger.warning("%s: %s", name, watch.why)
    _call_off(client, [watch], logger)
    watch.run = None


def _start(order: Order, watch: _Watch, config: str) -> UUID | None:
    """Start a worker's run; the same try of the same run starts one only. None: nobody answers."""
    try:
        started: Any = run_deployment(
            DEPLOYMENT,
            parameters={"run": order.run, "number": watch.number, "config": config},
            timeout=0,
            idempotency_key=f"{order.run}-{watch.number}-{watch.tries}",
            flow_run_name=f"{order.shard(watch.number).name}-of-{order.run[:8]}",
        )
        found: UUID = started.id
    except Exception:  # noqa: BLE001  whatever Prefect's client raises: it is read here instead
        return None
    return found


def _state(client: SyncPrefectClient, run: UUID) -> StateType | None:
    try:
        state = client.read_flow_run(run).state
    except Exception:  # noqa: BLE001  the server is away: the vault tells what matters
        return None
    return state.type if state else None


def _read_here(wiring: Wiring, order: Order, watch: _Watch) -> None:
    with shielded():
        read_shard(wiring, order.run, watch.number)


def _call_off(client: SyncPrefectClient, watched: Any, logger: Logger | LoggerAdapter[Any]) -> None:
    for watch in watched:
        if watch.run is None:
            continue
        state = _state(client, watch.run)
        if state in _ENDED:
            continue
        begun = state in _BEGUN or state is StateType.PENDING
        try:
            # What a worker has is the worker's to end; what none has, nobody else would.
            client.set_flow_run_state(watch.run, Cancelling() if begun else Cancelled())
        except Exception as error:  # noqa: BLE001  as above: its capture would only come second
            logger.warning("a run was not called off (%s)", type(error).__name__)
