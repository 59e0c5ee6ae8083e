"""CPU time, memory and descriptors of processes, and the statistics of repeated runs.

The law of this file: CPU is what the kernel counted for a process and all its descendants, in
nanoseconds (`/proc/PID/task/*/schedstat`); where the kernel does not keep that, in ticks of
`/proc/PID/stat`, which is too coarse for windows under a second or two. The same file tells how
long the process was kept from its core by others: the reader has to know when the machine was not
ours. A figure is never shown without its spread.

A process that ended in between is missing from the second reading: a gateway whose workers come
and go cannot be measured with this.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import msgspec


PROC = Path("/proc")


class Unmeasurable(Exception):
    """The kernel does not tell the CPU time of a process."""


class Times(NamedTuple):
    """What a process used up so far, in nanoseconds."""

    cpu: int
    waited: int
    """Ready to run, while others had its core; 0 where the kernel does not tell."""

    def since(self, earlier: Times) -> Times:
        """What was used up between two readings."""
        return Times(self.cpu - earlier.cpu, self.waited - earlier.waited)


def times(*pids: int) -> Times:
    """The times of processes and all their descendants, added up. Raises `Unmeasurable`."""
    found: list[Times] = []
    for pid in pids:
        own = _times_of(pid)
        if own is None:
            raise Unmeasurable(f"cannot read the CPU time of process {pid} from /proc")
        found += [own, *filter(None, map(_times_of, descendants(pid)))]
    return Times(sum(one.cpu for one in found), sum(one.waited for one in found))


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    parents: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdecimal():
            fields = _stat(int(entry.name))
            if fields is not None:
                parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    wanted = [pid]
    while wanted:
        children = parents.get(wanted.pop(), [])
        found += children
        wanted += children
    return found


def _times_of(pid: int) -> Times | None:
    try:
        threads = list((PROC / str(pid) / "task").iterdir())
        fields_of = [(one / "schedstat").read_bytes().split() for one in threads]
        return Times(sum(int(one[0]) for one in fields_of), sum(int(one[1]) for one in fields_of))
    except (OSError, IndexError, ValueError):  # a thread ended meanwhile, or the kernel has none
        fields = _stat(pid)
        if fields is None:
            return None
        ticks = int(fields[11]) + int(fields[12])  # utime, stime
        return Times(ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK"), 0)


def _stat(pid: int) -> list[bytes] | None:
    """The fields of `/proc/PID/stat` after the name: state, parent, ...; None if it is gone."""
    try:
        line = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    return line[line.rfind(b")") + 2 :].split()  # the name may hold blanks and brackets


def resident(pid: int) -> float:
    """The memory of a process that is in RAM, in MiB. Raises `Unmeasurable`."""
    try:
        pages = int((PROC / str(pid) / "statm").read_bytes().split()[1])
    except (OSError, ValueError, IndexError):
        raise Unmeasurable(f"cannot read the memory of process {pid} from /proc") from None
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open. Raises `Unmeasurable`."""
    try:
        return sum(1 for _ in (PROC / str(pid) / "fd").iterdir())
    except OSError:
        raise Unmeasurable(f"cannot read the descriptors of process {pid} from /proc") from None


class Spread(msgspec.Struct, frozen=True):
    """A figure that was measured several times."""

    median: float
    low: float
    high: float


def spread(values: Iterable[float]) -> Spread:
    """Median, least and greatest. Raises `ValueError` without values."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    return Spread(statistics.median(ordered), ordered[0], ordered[-1])


class Quantiles(msgspec.Struct, frozen=True):
    """How a time was distributed over many events of one run, in microseconds."""

    count: int
    p50: float
    p90: float
    p99: float


def quantiles(values: Iterable[float]) -> Quantiles | None:
    """The nearest ranks; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    last = len(ordered) - 1
    p50, p90, p99 = (ordered[round(last * share)] for share in (0.5, 0.9, 0.99))
    return Quantiles(len(ordered), p50, p90, p99)
