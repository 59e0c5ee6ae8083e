"""Does a process grow? What may be concluded from readings of its memory.

The law of this file: a slope is never shown without its error, and what the run was too short or
too noisy to tell is not called flat. Readings of one block share a median, since neighbours are
not independent: what a stream holds, it holds for as long as it lasts. Where there are lulls
(`soak_lulls.py`), each is a block, and what was read outside them is no part of the line.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Literal, NamedTuple

import msgspec


BLOCKS = 12
"""Where there are no lulls."""
LEAST_PER_BLOCK = 5
"""Readings, below which there is no conclusion."""
SURE = (4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
"""Standard errors that a conclusion needs: 95 % by Student's t with 2, 3, ... 10 degrees of freedom
and more. With fewer there is none."""

Verdict = Literal["flat", "grows", "cannot tell"]


class Reading(NamedTuple):
    """The memory of a process at one moment."""

    at: float
    """Seconds since the beginning."""
    mib: float
    lull: int = 0
    """In which it was; 0 = in none."""


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
    lulls: int = 0
    """From how many lulls they are; 0 = there were none to tell apart."""
    peak: float = 0.0
    """The greatest reading of all, in MiB."""


def growth(readings: list[Reading], *, since: float, limit: float, lulls: bool = False) -> Growth:
    """Judge the readings from `since` on against a limit in MiB per hour.

    `lulls`: only those in lulls are to be compared.
    """
    counted = [one for one in readings if one.at >= since and (one.lull or not lulls)]
    if not counted:
        peak = max((one.mib for one in readings), default=0.0)
        return Growth("cannot tell", None, None, since, 0.0, 0.0, 0.0, peak=peak)
    sizes = [one.mib for one in counted]
    slope = error = None
    verdict: Verdict = "cannot tell"
    blocks = _lulls(counted) if lulls else _twelfths(counted)
    if len(blocks) >= 4 and min(map(len, blocks)) >= LEAST_PER_BLOCK:
        slope, error = least_squares([_middle(block) for block in blocks])
        sure = SURE[min(len(blocks) - 2, 10) - 2]
        if slope - sure * error > limit:
            verdict = "grows"
        elif slope + sure * error <= limit:
            verdict = "flat"
    return Growth(
        verdict,
        slope,
        error,
        since=counted[0].at,
        seconds=counted[-1].at - counted[0].at,
        low=min(sizes),
        high=max(sizes),
        lulls=len(blocks) if lulls else 0,
        peak=max(one.mib for one in readings),
    )


def least_squares(points: list[Reading]) -> tuple[float, float]:
    """Slope of the line through the points, and its standard error; both per hour."""
    times = [one.at / 3600 for one in points]
    slope, start = statistics.linear_regression(times, [one.mib for one in points])
    middle = statistics.fmean(times)
    off = sum((one.mib - start - slope * at) ** 2 for at, one in zip(times, points, strict=True))
    spread = sum((at - middle) ** 2 for at in times)
    return slope, math.sqrt(off / (len(points) - 2) / spread)


def _twelfths(readings: list[Reading]) -> list[list[Reading]]:
    ends = [len(readings) * number // BLOCKS for number in range(BLOCKS + 1)]
    return [readings[low:high] for low, high in itertools.pairwise(ends)]


def _lulls(readings: list[Reading]) -> list[list[Reading]]:
    """The readings of each lull; one with few (the busy machine, the run's end) is left out."""
    found = [list(block) for _, block in itertools.groupby(readings, lambda one: one.lull)]
    return [block for block in found if len(block) >= LEAST_PER_BLOCK]


def _middle(block: list[Reading]) -> Reading:
    """The median of some readings, at the middle of their time."""
    return Reading(
        statistics.fmean(one.at for one in block), statistics.median(one.mib for one in block)
    )
