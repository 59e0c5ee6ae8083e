"""Does a process grow? Readings from `/proc`, and what may be concluded from them.

The law of this file: a slope is never shown without its error, and what the run was too short or
too noisy to tell is not called flat. Readings of one block share a median, since neighbours are
not independent: what a stream holds, it holds for as long as it lasts.
"""

from __future__ import annotations

import itertools
import math
import os
import statistics
from typing import Literal, NamedTuple

import msgspec

from .measure import PROC, Unmeasurable


BLOCKS = 12
LEAST_PER_BLOCK = 5
"""Readings, below which there is no conclusion."""
SURE = 2.23
"""Standard errors that a conclusion needs: 95 % by Student's t with 10 degrees of freedom."""

Verdict = Literal["flat", "grows", "cannot tell"]


class Reading(NamedTuple):
    """The memory of a process at one moment."""

    at: float
    """Seconds since the beginning."""
    mib: float


class Growth(msgspec.Struct, frozen=True):
    """What the readings of a process tell."""

    verdict: Verdict
    per_hour: float | None
    """MiB per hour, by least squares; None: too few readings."""
    error: float | None
    """Standard error of it."""
    since: float
    """Seconds from the beginning to the first reading that counts."""
    seconds: float
    """From there to the last."""
    low: float
    high: float
    """Least and greatest of these readings, in MiB."""


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


def growth(readings: list[Reading], *, since: float, limit: float) -> Growth:
    """Judge the readings from `since` on against a limit in MiB per hour."""
    counted = [one for one in readings if one.at >= since]
    if not counted:
        return Growth("cannot tell", None, None, since, 0.0, 0.0, 0.0)
    sizes = [one.mib for one in counted]
    seconds = counted[-1].at - counted[0].at
    slope = error = None
    verdict: Verdict = "cannot tell"
    if len(counted) >= BLOCKS * LEAST_PER_BLOCK:
        slope, error = least_squares(_blocks(counted))
        if slope - SURE * error > limit:
            verdict = "grows"
        elif slope + SURE * error <= limit:
            verdict = "flat"
    return Growth(verdict, slope, error, since, seconds, min(sizes), max(sizes))


def least_squares(points: list[Reading]) -> tuple[float, float]:
    """Slope of the line through the points, and its standard error; both per hour."""
    times = [one.at / 3600 for one in points]
    slope, start = statistics.linear_regression(times, [one.mib for one in points])
    middle = statistics.fmean(times)
    off = sum((one.mib - start - slope * at) ** 2 for at, one in zip(times, points, strict=True))
    spread = sum((at - middle) ** 2 for at in times)
    return slope, math.sqrt(off / (len(points) - 2) / spread)


def _blocks(readings: list[Reading]) -> list[Reading]:
    """The median of each twelfth of the readings, at its middle."""
    ends = [len(readings) * number // BLOCKS for number in range(BLOCKS + 1)]
    blocks = [readings[low:high] for low, high in itertools.pairwise(ends)]
    return [
        Reading(
            statistics.fmean(one.at for one in block), statistics.median(one.mib for one in block)
        )
        for block in blocks
    ]
