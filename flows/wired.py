"""From a flow's parameter `config` to a Wiring, and errors without secret or traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from prefect.exceptions import FailedRun

from muster.settings import Environment, find, load
from muster.wiring import Wiring
from snapshots.cloud.scrub import scrub
from snapshots.errors import (
    ConcurrentError,
    LockedError,
    MusterError,
    ThrottledError,
    UnreachableError,
)

# What may be gone when the same is tried again, and harms nothing when it is not.
_PASSING = (ThrottledError, UnreachableError, LockedError, ConcurrentError)


class VerbError(MusterError):
    """A verb that did not end, told without secrets; `passing`: trying again may help."""

    def __init__(
        self, what: str, *, where: str = "", remedy: str = "", passing: bool = False
    ) -> None:
        super().__init__(what, where=where, remedy=remedy)
        self.passing = passing


@contextmanager
def wired(config: str) -> Iterator[Wiring]:
    """Open what `config` names: a muster.toml or its folder; "": MUSTER_CONFIG, or here or above.

    Whatever goes wrong inside leaves as a VerbError: scrubbed, and with no cause behind it.
    """
    environment = Environment.read()
    with (
        shielded(environment),
        Wiring(
            load(find(Path(config).expanduser() if config else environment.config)), environment
        ) as wiring,
    ):
        yield wiring


@contextmanager
def shielded(environment: Environment | None = None) -> Iterator[None]:
    """Turn every error into a VerbError: Prefect keeps what it hears, in logs and in states."""
    known = environment or Environment.read()
    try:
        yield
    except VerbError:
        raise
    except MusterError as error:
        raise VerbError(
            _clean(error.what, known),
            where=_clean(error.where, known),
            remedy=_clean(error.remedy, known),
            passing=isinstance(error, _PASSING),
        ) from None
    except OSError as error:
        raise VerbError(
            _clean((error.strerror or type(error).__name__).lower(), known),
            where=_clean(str(error.filename or ""), known),
            remedy="check the path, its permissions and the space left",
        ) from None
    except Exception as error:  # noqa: BLE001  a boundary: nothing unscrubbed gets into Prefect
        raise VerbError(
            f"internal error {type(error).__name__}: {_clean(str(error)[:200], known)}",
            remedy="run the command itself with MUSTER_DEBUG=1 to get details in a file",
        ) from None


def _clean(text: str, environment: Environment) -> str:
    for value in sorted(environment.secrets, key=len, reverse=True):
        text = text.replace(value, "[secret]").replace(quote(value, safe=""), "[secret]")
    return scrub(text)


class _NoTraceback(logging.Filter):
    """Leaves tracebacks of told errors out of the logs that Prefect keeps."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop a traceback, and what only says once more that a run failed."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, VerbError):
            record.exc_info = None
            record.exc_text = None
        return not isinstance(error, FailedRun)


def quiet_tracebacks() -> None:
    """Have Prefect's run loggers leave out tracebacks of VerbErrors. May be called again."""
    for name in ("prefect.task_runs", "prefect.flow_runs"):
        logger = logging.getLogger(name)
        if not any(isinstance(f, _NoTraceback) for f in logger.filters):
            logger.addFilter(_NoTraceback())
