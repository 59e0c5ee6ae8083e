"""Measures of work that do not depend on how fast, or how busy, the machine is."""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable
from typing import TypeVar


T = TypeVar("T")
FACTOR = 4
"""How much larger the larger input is. A linear cost grows by this, a square by its square."""
MARGIN = 2.5
"""Linear is less than this times `FACTOR`: 10, where a square is 16."""
NOTHING = 0.002
"""Seconds of processor time that say nothing yet."""


def costs_per_byte(make: Callable[[int], T], run: Callable[[T], object]) -> None:
    """Assert that `run(make(4))` takes no more than some four times as long as `run(make(1))`.

    Processor time, so other processes do not count; the best of a few, so hiccups do not.
    """
    small = _cost(make(1), run)
    for _ in range(3):
        large = _cost(make(FACTOR), run)
        if large <= max(small, NOTHING) * FACTOR * MARGIN:
            return
        small = max(small, _cost(make(1), run))
    raise AssertionError(f"{FACTOR} times the input takes {large / small:.0f} times as long")


def _cost(given: T, run: Callable[[T], object]) -> float:
    best = float("inf")
    gc.collect()
    gc.disable()  # it runs when it likes, over everything that the other tests have left
    try:
        for _ in range(3):
            begun = time.process_time()
            run(given)
            best = min(best, time.process_time() - begun)
            if best > 1:
                break
    finally:
        gc.enable()
    return best


def peak_of(run: Callable[[], object]) -> int:
    """The bytes of memory that a call takes at its peak, above what was taken before."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
