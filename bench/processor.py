"""What processes, and the whole machine, have used of the processor; Linux only (else zeros)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PROC = Path("/proc")


def used(pids: Iterable[int]) -> float:
    """Give the seconds of processes and all below them, those that have ended included."""
    parents: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            fields = stat.read_text("ascii", "replace").rpartition(")")[2].split()
        except OSError:
            continue
        pid = int(stat.parent.name)
        parents[pid] = int(fields[1])
        # utime, stime, and of children that were waited for cutime, cstime
        seconds[pid] = sum(map(int, fields[11:15])) / _TICKS
    family, look = set[int](), list(pids)
    while look:
        pid = look.pop()
        if pid not in family:
            family.add(pid)
            look += [child for child, parent in parents.items() if parent == pid]
    return sum(seconds.get(pid, 0.0) for pid in family)


def busy() -> float:
    """Give the seconds that all cores together were not idle, whoever used them."""
    try:
        fields = (_PROC / "stat").read_text("ascii").splitlines()[0].split()[1:9]
    except OSError:
        return 0.0
    user, nice, system, _idle, _wait, irq, soft, steal = (int(f) / _TICKS for f in fields)
    return user + nice + system + irq + soft + steal


def cores() -> int:
    """Give how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
