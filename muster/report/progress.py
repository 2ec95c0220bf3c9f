"""Progress on stderr: one line written over on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import Self

from muster.invocation import Invocation, safe

_REDRAW = 0.1  # seconds between two drawings on a terminal
_PLAIN = 5.0  # seconds between two lines elsewhere


class ProgressLine:
    """Says how far something is; nothing under --quiet. May be used by several threads."""

    def __init__(
        self, invocation: Invocation, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._quiet = invocation.quiet
        self._drawn = sys.stderr.isatty()
        self._monotonic = monotonic
        self._last = monotonic()
        self._shown = False
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._shown and self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def tell(self, words: str, part: float | None = None) -> None:  # noqa: ARG002  a Tell
        """Show the newest state, unless something was shown just now."""
        if self._quiet:
            return
        with self._lock:
            now = self._monotonic()
            if now - self._last < (_REDRAW if self._drawn else _PLAIN):
                return
            self._last = now
            self._shown = True
            line = safe(words)
            if self._drawn:
                width = max(20, shutil.get_terminal_size().columns - 1)
                sys.stderr.write(f"\r\x1b[K{line[:width]}")
            else:
                sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
