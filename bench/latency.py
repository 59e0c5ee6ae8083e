"""`python -m bench latency`: what a caller waits for, and what one more caller costs.

The law of this file: time is what the gateway adds, so it is the difference to the same request
without a gateway, of the same round. Four questions:

* *first token*: one connection, streams of 16 events one after the other.
* *event*: 50 streams of 20 events per second; from the upstream's write to the client's read, by
  a stamp in the text.
* *whole reply*: 64 connections, one small reply after the other: CPU time, and time, of a request.
* *one more request* while other streams are open. Those have had their first token and then say
  nothing (`SILENCE`), so that they need no CPU time but what it costs to have them. What they do
  cost is measured in a window without any request, and subtracted: the rest, divided by the
  requests of the window, is what one more request costs.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import click
import msgspec
from rich.console import Group

from . import compare, options, readme, report
from .chart import Bar, Chart
from .chart import Group as Bars
from .compare import Row
from .measure import Quantiles, Spread, spread, times
from .options import Setup
from .plan import Plan, Scenario, Timing, paced
from .report import Report, figure, short
from .stack import Stack, standing


SILENCE = 100_000
"""Milliseconds between the words of the streams that are merely open. Gateways give up a silent
upstream, nursling after 120 s."""
REPLY = 16
"""Events of a request's reply."""

BASELINES = ("direct", "floor")

LEGEND = (
    "Median of the rounds, and least-greatest. more: beyond the same without a\n"
    "gateway; of CPU time, by the floor's, or by that of a request beside none."
)


class More(msgspec.Struct, frozen=True):
    """What one more request costs beside open streams, in each round: µs of CPU time."""

    beside: int
    """Streams that are open."""
    cost: dict[str, list[float]]
    """Name of what was measured -> each round's cost of a request."""
    idle: dict[str, list[float]]
    """CPU time that the open streams cost, by the clock's; 1 = a whole core."""


class Line(msgspec.Struct, frozen=True):
    """One figure of the report, in µs."""

    name: str
    gateway: Spread
    floor: Spread
    direct: Spread | None
    """Without a gateway; a cost of CPU time has none."""
    told: Spread
    """What it comes to: the time that the gateway adds; or the cost as a ratio."""
    ratio: bool
    """Whether `told` is one."""


class Latency(msgspec.Struct, frozen=True):
    """The one row of the file: all that was measured."""

    lines: list[Line]
    rows: list[Row]
    more: list[More]


@click.command()
@options.measuring()
@click.option(
    "--beside",
    default="0,500,2000",
    show_default=True,
    metavar="N,N,...",
    help="Open streams beside which one more request is measured.",
)
def latency(setup: Setup, *, beside: str) -> None:
    """Added time, and what one more request costs."""
    try:
        counts = [int(one) for one in beside.split(",") if one]
    except ValueError:
        raise click.UsageError("--beside takes numbers with commas between them") from None
    chosen = scenarios(setup.timing)
    more = [More(count, {}, {}) for count in counts]
    with options.showing() as show:
        rounds = compare.measure(
            chosen,
            [setup.gateway],
            setup.cores,
            setup.timing,
            repeat=setup.repeat,
            baselines=BASELINES,
            show=lambda so_far, doing: show(table(compare.summaries(chosen, so_far), [], doing)),
        )
        rows = compare.summaries(chosen, rounds)

        def tell(number: int, doing: str) -> None:
            show(table(rows, more, f"round {number} of {setup.repeat}: {doing}"))

        for number in range(1, setup.repeat + 1):
            beside_streams(setup, more, functools.partial(tell, number))
    found = Latency(lines(rows, more), rows, more)
    options.finish(
        setup,
        [found],
        table(rows, more, LEGEND),
        measured=[setup.gateway],
        block=block,
        faults=any(row.faults for row in rows),
    )


def scenarios(timing: Timing) -> list[Scenario]:
    """The questions that a load alone answers."""
    stamped = Plan("chat", 1, pause=50, dress="stamped")
    return [
        Scenario("first token", "chat", Plan("chat", REPLY), 1),
        paced("event", "chat", stamped, 50, timing),
        Scenario("whole reply", "chat", Plan("chat", 64), 64, whole=True),
    ]


def beside_streams(setup: Setup, more: list[More], show: Callable[[str], None]) -> None:
    """One round of *one more request*, with fresh processes. Raises `Failed`."""
    request = Scenario("one more request", "chat", Plan("chat", REPLY), 1)
    silent = [Scenario("open", "chat", Plan("chat", 2, pause=SILENCE), one.beside) for one in more]
    with standing([request, *silent], [setup.gateway], setup.cores) as stack:
        for name in ("floor", setup.gateway.name):
            stack.run(name, request, compare.WARMING)
        for one, scenario in zip(more, silent, strict=True):
            show(f"beside {one.beside:,} streams")
            for name in ("floor", setup.gateway.name):
                with stack.holding(name, scenario):
                    idle = _idle(stack, name, setup.timing.seconds)
                    result = stack.run(name, request, setup.timing)
                cost = (result.cpu_us - idle * result.seconds * 1e6) / max(result.requests, 1)
                one.cost.setdefault(name, []).append(cost)
                one.idle.setdefault(name, []).append(idle)


def _idle(stack: Stack, name: str, seconds: float) -> float:
    """Share of a core that a subject needs while nothing is asked of it."""
    pid = stack.subjects[name].pid
    began, before = time.monotonic_ns(), times(pid)
    time.sleep(seconds)
    used = times(pid).since(before).cpu
    return used / (time.monotonic_ns() - began)


def lines(rows: list[Row], more: list[More]) -> list[Line]:
    """The figures, so far as they have been measured."""
    found: list[Line] = []
    for row in rows:
        kind = {"first token": "first", "event": "delay", "whole reply": "took"}[row.scenario.name]
        for share in ("p50", "p90", "p99"):
            line = _time(row, kind, share)
            found += [line] if line is not None else []
        if row.scenario.whole:
            ours, floor = row.figures["nursling"], row.figures["floor"]
            assert ours.ratio is not None  # noqa: S101 - both were measured in every round
            name = f"{row.scenario.name}, CPU"
            found.append(Line(name, ours.cost, floor.cost, None, ours.ratio, ratio=True))
    alone = next((one.cost["nursling"] for one in more if one.cost and not one.beside), None)
    for one in more:
        if not one.cost:
            continue
        costs = one.cost["nursling"]
        to = alone or one.cost["floor"]  # a round behind, while it is being measured
        told = spread(mine / other for mine, other in zip(costs, to, strict=False))
        name = f"beside {one.beside:,}"
        found.append(Line(name, spread(costs), spread(one.cost["floor"]), None, told, ratio=True))
    return found


def _time(row: Row, kind: str, share: str) -> Line | None:
    """One quantile of one time; None where a round has no such time."""

    def of(name: str) -> list[float] | None:
        found: list[Quantiles | None] = [getattr(one[name], kind) for one in row.rounds]
        values = [getattr(one, share) for one in found if one is not None]
        return values if len(values) == len(found) else None

    ours, floor, direct = of("nursling"), of("floor"), of("direct")
    if ours is None or floor is None or direct is None:
        return None
    added = spread(mine - other for mine, other in zip(ours, direct, strict=True))
    name = f"{row.scenario.name}, {share}"
    return Line(name, spread(ours), spread(floor), spread(direct), added, ratio=False)


def table(rows: list[Row], more: list[More], doing: str) -> Group:
    """The figures so far, and a line below: what is being done, or how to read them."""
    shown = report.grid("µs", "gateway", "floor", "direct", "more")
    for line in lines(rows, more):
        told, *around = figure(line.told).split("\n")
        told = "\n".join([f"{told}x" if line.ratio else f"+{told}", *around])
        shown.add_row(
            line.name, *(figure(one) for one in (line.gateway, line.floor, line.direct)), told
        )
    return Group(shown, "", *report.troubles(rows), doing)


def block(found: Report[Latency]) -> readme.Block:
    """README's table and chart: the chart has the times."""
    measured = found.rows[0].lines
    cells = [
        [
            line.name,
            *(short(one.median) if one else "" for one in (line.gateway, line.floor, line.direct)),
            f"{short(line.told.median)}x" if line.ratio else f"+{short(line.told.median)}",
        ]
        for line in measured
    ]
    bars = [
        Bars(
            line.name,
            [
                Bar(name, one.median, one.low, one.high, f"{short(one.median)} µs")
                for name, one in (("nursling", line.gateway), ("floor", line.floor))
            ],
        )
        for line in measured
        if line.direct is not None and not line.name.startswith("whole")
    ]
    return readme.Block(
        table=readme.markdown(["µs", "nursling", "floor", "direct", "more"], cells),
        chart=Chart("Time to the first token, and of an event on its way", "Median, µs", bars),
        notes=(
            f"First token: one connection, streams of {REPLY} events; event: 50 streams of 20 "
            "events/s, from the upstream's write to the client's read; whole reply: 64 "
            "connections; CPU: that of the gateway for a request; beside N: for one more stream "
            "while N are open and silent, without what those cost, by that beside none. More: "
            "than direct, without a gateway; of CPU time, than the floor's."
        ),
    )
