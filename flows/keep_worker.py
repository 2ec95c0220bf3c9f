"""Keep a worker running: one that gives up, because its server was away too long, is started again.

python -m flows.keep_worker --pool muster [--name NAME]
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from threading import Event
from types import FrameType

_STEADY = 60.0  # seconds after which a worker counts as having run
_LONGEST = 30.0  # seconds between two starts


def keep(command: Sequence[str]) -> int:
    """Run a command again and again until SIGTERM or SIGINT; both are handed on to it."""
    stopping = Event()
    running: list[subprocess.Popen[bytes]] = []

    def heard(number: int, _frame: FrameType | None) -> None:
        stopping.set()
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    signal.signal(signal.SIGTERM, heard)
    signal.signal(signal.SIGINT, heard)
    pause = 1.0
    while not stopping.is_set():
        begun = time.monotonic()
        running[:] = [subprocess.Popen(list(command))]
        if stopping.is_set():  # it was heard while the worker was being started
            running[0].terminate()
        code = running[0].wait()
        if stopping.is_set():
            return 0
        pause = 1.0 if time.monotonic() - begun > _STEADY else min(pause * 2, _LONGEST)
        print(f"the worker ended with {code}: again in {pause:.0f} s", flush=True)  # noqa: T201
        stopping.wait(pause)
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line."""
    reader = argparse.ArgumentParser(prog="python -m flows.keep_worker", description=__doc__)
    reader.add_argument("--pool", default="muster")
    reader.add_argument("--name", default="")
    asked = reader.parse_args(argv)
    command = [sys.executable, "-m", "prefect", "--no-prompt", "worker", "start"]
    command += ["--pool", asked.pool, "--type", "process"]
    return keep([*command, *(["--name", asked.name] if asked.name else [])])


if __name__ == "__main__":
    sys.exit(main())
