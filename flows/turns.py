"""Whose turn it is: one writer per ledger, what is tried again, and work that is seen through."""

from __future__ import annotations

import contextvars
import hashlib
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event
from typing import Any, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.concurrency.sync import concurrency
from prefect.logging import get_run_logger

from flows.wired import VerbError
from muster.wiring import Wiring

_TURN = 2 * 3600.0  # seconds that a writer waits for the one before it
_T = TypeVar("_T")


def limit_of(wiring: Wiring) -> str:
    """Name the global concurrency limit of a ledger: one name for one ledger, wherever it is."""
    chosen = wiring.settings.ledger
    place = chosen.remote or str(chosen.path.resolve())
    return f"muster-ledger-{hashlib.sha256(place.encode()).hexdigest()[:12]}"


@contextmanager
def one_writer(wiring: Wiring) -> Iterator[None]:
    """Wait until nobody else writes this ledger.

    Waiting saves work and no more: the ledger itself lets nobody lose a commit. So a limit that is
    not there, a server that is away and a turn that does not come hinder nothing.
    """
    turn = concurrency(limit_of(wiring), occupy=1, timeout_seconds=_TURN, strict=False)
    logger = get_run_logger()
    logging.getLogger("prefect.concurrency").setLevel(logging.ERROR)
    held = False
    try:
        turn.__enter__()
        held = True
    except Exception as error:  # noqa: BLE001  whatever Prefect's client raises
        logger.warning("no turn at the ledger was given (%s): going on", type(error).__name__)
    try:
        yield
    finally:
        if held:
            try:
                turn.__exit__(None, None, None)
            except Exception as error:  # noqa: BLE001  as above; the lease ends by itself
                logger.warning("the turn was not given back (%s)", type(error).__name__)


def in_task(name: str, work: Callable[[], _T], *, again: bool = False) -> _T:
    """Do the work as a task, which Prefect shows by its name; `again`: it may be tried again.

    What is handed in and given back stays out of Prefect's sight, and of its search for futures.
    """
    held: list[_T] = []

    def run() -> None:
        held.append(work())

    task(
        name=name,
        cache_policy=NO_CACHE,
        retries=2 if again else 0,
        retry_delay_seconds=[30, 120],
        retry_condition_fn=passing,
    )(run)()
    return held[-1]


def passing(_task: Any, _run: Any, state: Any) -> bool:
    """Say whether a task is tried again: only for what may be gone by then."""
    try:
        state.result()
    except VerbError as error:
        return error.passing
    except Exception:  # noqa: BLE001  anything else is no error of ours, and is not repeated
        return False
    return False


def seen_through(work: Callable[[Event], _T]) -> _T:
    """Do the work in a thread of its own; a cancellation or time-out asks it to end, and waits.

    Prefect interrupts the main thread wherever it is. Work that has to clean up is handed an Event
    instead, looks at it where it can stop, and is waited for; then the interruption goes its way.
    """
    stop = Event()
    with ThreadPoolExecutor(1, thread_name_prefix="muster") as pool:
        future: Future[_T] = pool.submit(contextvars.copy_context().run, work, stop)
        try:
            return future.result()
        except BaseException:
            stop.set()
            wait([future])
            raise
