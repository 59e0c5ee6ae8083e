"""Scenarios by rounds: everybody under the same load, in turn, and what comes of it.

The law of this file: all are measured under a scenario one right after the other, in an order that
changes with the round, and every round begins with fresh processes. So what else the machine does
meets all of them, and a ratio means something where the absolute figures do not. Ratios are taken
within each round; what is shown is their median.

A *cost* is CPU time per event that reached the client; for whole replies, per request. The
request's own cost is in that of its events, except for paced streams, which outlast the window.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from .gateways import Gateway
from .load import Result
from .measure import Spread, spread
from .plan import Scenario, Timing
from .processes import Cores
from .stack import standing


WARMING = Timing(seconds=0.1, warm_up=0.4)
"""Before anything is measured: a fresh process loads at its first requests what it needs."""

Round = dict[str, Result]
"""One scenario in one round: name of what was measured -> what was seen."""

Rounds = dict[str, list[Round]]
"""Name of a scenario -> its rounds so far."""


class Figures(msgspec.Struct, frozen=True):
    """What one scenario cost one of those measured, over all rounds."""

    cost: Spread
    """CPU µs per event, or per request of whole replies."""
    ratio: Spread | None
    """By the floor's cost of the same round; None for the floor itself, or without one."""
    rate: Spread
    """Events, or requests, per second."""
    busy: Spread
    """CPU time by the clock's; 1 = one whole core."""
    waited: Spread
    """Time that it waited for its core, which others had, by the clock's."""
    generator_busy: Spread
    """CPU time of upstream and load generator: near 1, they are what limits the rate."""


class Row(msgspec.Struct, frozen=True):
    """One scenario."""

    scenario: Scenario
    figures: dict[str, Figures]
    streams: int
    """Replies that arrived whole, of all that were measured."""
    faults: dict[str, int]
    """Those that did not, by what was wrong."""
    rounds: list[Round]


def measure(
    chosen: Sequence[Scenario],
    gateways: Sequence[Gateway],
    cores: Cores,
    timing: Timing,
    *,
    repeat: int,
    baselines: Sequence[str] = ("floor",),
    show: Callable[[Rounds, str], None],
) -> Rounds:
    """Make all the runs; before each, `show` what there is so far, and what is next.

    Raises `Failed`.
    """
    rounds: Rounds = {scenario.name: [] for scenario in chosen}
    for number in range(1, repeat + 1):
        show(rounds, f"round {number} of {repeat}: starting")
        names = [*baselines, *(one.name for one in gateways)]
        if number % 2 == 0:
            names.reverse()
        with standing(chosen, gateways, cores) as stack:
            for gateway in gateways:
                stack.run(gateway.name, _first_of(chosen), WARMING)
            for scenario in chosen:
                show(rounds, f"round {number} of {repeat}: {scenario.name}")
                made = {name: stack.run(name, scenario, timing) for name in names}
                rounds[scenario.name].append(made)
    return rounds


def _first_of(chosen: Sequence[Scenario]) -> Scenario:
    return min(chosen, key=lambda scenario: scenario.streams)


def summarize(scenario: Scenario, rounds: list[Round]) -> Row:
    """The figures of one scenario. Raises `ValueError` without a round."""
    results = [result for one in rounds for result in one.values()]
    faults: dict[str, int] = {}
    for result in results:
        for what, count in result.faults.items():
            faults[what] = faults.get(what, 0) + count
    return Row(
        scenario=scenario,
        figures={name: _figures(scenario, rounds, name) for name in rounds[0]} if rounds else {},
        streams=sum(result.streams for result in results),
        faults=faults,
        rounds=rounds,
    )


def summaries(chosen: Sequence[Scenario], rounds: Rounds) -> list[Row]:
    """The rows so far: of the scenarios that have had a round."""
    return [summarize(one, rounds[one.name]) for one in chosen if rounds[one.name]]


def cost(scenario: Scenario, result: Result) -> float:
    """CPU µs per event, or per whole reply; infinite if none came."""
    count = result.requests if scenario.whole else result.tokens
    return result.cpu_us / count if count else float("inf")


def _figures(scenario: Scenario, rounds: list[Round], name: str) -> Figures:
    own = [one[name] for one in rounds]
    ratio = None
    if name != "floor" and all("floor" in one for one in rounds):
        ratio = spread(_by(cost(scenario, o[name]), cost(scenario, o["floor"])) for o in rounds)
    count = [one.requests if scenario.whole else one.tokens for one in own]
    return Figures(
        cost=spread(cost(scenario, one) for one in own),
        ratio=ratio,
        rate=spread(many / one.seconds for many, one in zip(count, own, strict=True)),
        busy=spread(one.cpu_us / 1e6 / one.seconds for one in own),
        waited=spread(one.waited_us / 1e6 / one.seconds for one in own),
        generator_busy=spread(one.generator_us / 1e6 / one.seconds for one in own),
    )


def _by(high: float, low: float) -> float:
    """A ratio; infinite where nothing can be divided by."""
    return high / low if low and low != float("inf") else float("inf")
