"""The gate: who is let in, and how everyone leaves."""

from __future__ import annotations

import pytest
import trio

from nursling.engine.errors import Draining, Overloaded
from nursling.transports.gate import Gate


async def test_the_cap_is_exact_and_a_slot_comes_back() -> None:
    """As many as allowed, one more is refused at once, and a place that is left is free."""
    gate = Gate(2)
    with gate.admit():
        with gate.admit():
            assert gate.open == 2
            with pytest.raises(Overloaded) as refused, gate.admit():
                pass
            assert refused.value.info().headers == {"retry-after": "1"}
        with gate.admit():
            assert gate.open == 2
    assert gate.open == 0


async def test_a_cap_may_change_under_those_who_are_in() -> None:
    """A smaller cap refuses the next, and ends nobody."""
    gate = Gate(5)
    with gate.admit() as one:
        gate.max_streams = 1
        with pytest.raises(Overloaded), gate.admit():
            pass
        assert not one.cancel_called


async def test_a_drain_lets_nobody_in_and_everybody_finish() -> None:
    """Draining refuses, with a hint when to come back, and cancels nothing."""
    gate = Gate(5)
    with gate.admit() as one:
        gate.drain()
        with pytest.raises(Draining) as refused, gate.admit():
            pass
        assert refused.value.info().headers == {"retry-after": "1"}
        assert not one.cancel_called


async def test_the_end_of_the_drain_ends_everyone_and_refuses_too() -> None:
    """Ending cancels all that is open, and nobody slips in behind, drained before or not."""
    gate = Gate(5)
    with gate.admit() as one:
        gate.end_streams()
        with pytest.raises(Draining), gate.admit():
            pass
        await trio.Event().wait()
    assert one.cancelled_caught
    assert gate.open == 0
