"""The clocks of a reply, told the time: which one runs, how long, and what its end is called."""

from __future__ import annotations

import math

import pytest

from nursling.engine.errors import FirstEventTimeout, IdleTimeout, TotalTimeout, WholeTimeout
from nursling.engine.limits import Limits
from nursling.engine.patience import SLACK, Patience


def patience(*, streamed: bool = True, total: float = 0) -> Patience:
    limits = Limits(
        first_event_timeout=100,
        idle_timeout=64,
        whole_timeout=50,
        total_timeout=total,
        finish_grace=2,
    )
    return Patience(limits, streamed=streamed, now=1000)


@pytest.mark.parametrize(("streamed", "due"), [(True, 1100), (False, 1050)])
def test_the_first_clock_is_exact(streamed: bool, due: float) -> None:
    """Until there is news, the first event's clock runs, or that of a whole reply."""
    clocks = patience(streamed=streamed)
    assert clocks.due(1000) == due
    clocks.waited(10)
    assert clocks.due(1010) == due
    kind = FirstEventTimeout if streamed else WholeTimeout
    assert isinstance(clocks.error(due), kind)


def test_our_readers_time_is_not_counted() -> None:
    """What is not told as waited moves the deadline."""
    clocks = patience()
    clocks.waited(10)
    assert clocks.due(1500) == 1590


def test_news_renews_the_idle_clock_within_its_slack() -> None:
    """The deadline is moved when it would come too early, and never comes too late by much."""
    clocks = patience()
    now, current, moves = 1000.0, clocks.due(1000), 0
    for _ in range(1000):
        now += 0.05
        clocks.waited(0.05)
        clocks.heard()
        due = clocks.due(now, current)
        assert now + 64 <= due <= now + 64 * (1 + SLACK)
        moves += due != current
        current = due
    assert moves < 55
    assert isinstance(clocks.error(current), IdleTimeout)


def test_the_total_clock_is_a_bound_for_all() -> None:
    """No news moves the deadline past the end of all."""
    clocks = patience(total=70)
    assert clocks.due(1000) == 1070
    clocks.heard()
    assert clocks.due(1010, 1070) == 1070
    assert isinstance(clocks.error(1070), TotalTimeout)
    assert isinstance(clocks.error(1069), IdleTimeout)


def test_the_grace_is_exact_and_its_end_is_good() -> None:
    """Behind the last finish reason little is left, whatever comes; a late choice takes it back."""
    clocks = patience()
    clocks.heard()
    clocks.finished(True)
    assert clocks.due(1000, 1064) == 1002
    clocks.waited(1)
    clocks.heard()
    clocks.finished(True)
    assert clocks.due(1001, 1002) == 1002
    assert clocks.error(1002) is None
    clocks.finished(False)
    assert clocks.due(1001, 1002) == 1001 + 65
    assert isinstance(clocks.error(1066), IdleTimeout)


def test_a_clock_that_is_off() -> None:
    """Nothing is due where every clock is off."""
    clocks = Patience(
        Limits(first_event_timeout=0, idle_timeout=0, total_timeout=0), streamed=True, now=5
    )
    assert clocks.due(5) == math.inf
    clocks.heard()
    assert clocks.due(5, math.inf) == math.inf
