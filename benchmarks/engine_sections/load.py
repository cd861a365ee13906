"""What other processes used of the machine while something was measured, from Linux's /proc.

A share is in cores: 1.0 is one core fully used by processes that are neither this one nor its children.
Time that a hypervisor took away counts too. Where there is no /proc, shares are NaN.
"""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import NamedTuple

_PROC = Path("/proc")
_COUNTED = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal


class _Reading(NamedTuple):
    at: float
    machine: float
    own: float


class Watch:
    """Measures from its making on; `others` ends nothing and can be asked again."""

    def __init__(self) -> None:
        self._start = _read()

    def others(self) -> float:
        """Return the cores that other processes used on average since the start; NaN if unknown."""
        now = _read()
        seconds = now.at - self._start.at
        if seconds <= 0:
            return math.nan
        used = (now.machine - self._start.machine) - (now.own - self._start.own)
        return math.nan if math.isnan(used) else max(0.0, used / seconds)


def idle_load(seconds: float) -> float:
    """Return what other processes use while this one sleeps for `seconds`."""
    watch = Watch()
    time.sleep(seconds)
    return watch.others()


def rss() -> float:
    """Return this process's resident memory in MiB; NaN if unknown."""
    try:
        pages = int((_PROC / "self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError):
        return math.nan
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _read() -> _Reading:
    at = time.monotonic()
    try:
        first = (_PROC / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()[1:]
        machine = sum(int(first[place]) for place in _COUNTED)
        return _Reading(at, machine / _ticks(), _own() / _ticks())
    except (OSError, ValueError, IndexError):
        return _Reading(at, math.nan, math.nan)


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")


def _own() -> int:
    """Return the clock ticks of this process, its living descendants and those it has waited for."""
    spent: dict[int, int] = {}
    parents: dict[int, int] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            except OSError:  # ended meanwhile
                continue
            parents[int(entry.name)] = int(fields[1])
            spent[int(entry.name)] = sum(map(int, fields[11:15]))
    own = {os.getpid()}
    grown = True
    while grown:
        born = {pid for pid, parent in parents.items() if parent in own} - own
        own |= born
        grown = bool(born)
    return sum(spent.get(pid, 0) for pid in own)
