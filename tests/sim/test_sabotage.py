"""The simulation notices sabotage: with any one safety taken out, a world fails soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sim.sabotage import SABOTAGES
from sim.world import play


WORLDS = 1000
"""A world must fail within so many."""


@pytest.mark.slow
@pytest.mark.parametrize("what", SABOTAGES)
def test_sabotage_is_noticed(what: str, record_property: Callable[[str, object], None]) -> None:
    """Without it, a world fails within a thousand."""
    sabotage = SABOTAGES[what]
    with sabotage.patch():
        for seed in range(WORLDS):
            failures = play(seed, sabotage=sabotage.limits).failures
            if failures:
                record_property("noticed", f"seed {seed}: {failures[0]}")
                return
    pytest.fail(f"nothing failed without {what}")
