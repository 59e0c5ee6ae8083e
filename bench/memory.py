"""`python -m bench memory`: what a gateway needs at rest, per open stream, and gives back after.

The law of this file: what is read is the memory of a process and its descendants that is in RAM
(RSS), and every figure is of a fresh process. *Idle* is behind a first load, since what is only
loaded at the first request is needed at rest too. Streams are paced, one event per second each, and
all are open, and have had their first token, while memory is read; what is kept is read once the
gateway has let go of the last one.
"""

from __future__ import annotations

import time

import click
import msgspec
from rich.console import Group

from . import options, readme, report
from .chart import Bar, Chart
from .chart import Group as Bars
from .measure import Spread, descendants, resident, spread
from .options import Setup
from .plan import Plan, Scenario, Timing, paced
from .report import Report, figure, short
from .stack import Stack, standing


MEASURED = ("nursling", "floor")
LOAD = Timing(seconds=0.5)
"""Before memory is read for the first time."""
READINGS = 5
"""Of the memory of open streams, over the window; the greatest counts."""
LASTING = 120.0
"""Seconds that streams last beyond the window: they must not end while others are opened."""
REST = 1.0
"""Seconds from the last stream's end to the last reading."""

LEGEND = (
    "Median of the rounds, and least-greatest. kept: what a process has more than\n"
    "before, per stream, once all streams are over."
)


class Reading(msgspec.Struct, frozen=True):
    """One round, in MiB."""

    idle: float
    open: float
    after: float


class Row(msgspec.Struct, frozen=True):
    """One number of streams through one process."""

    name: str
    streams: int
    readings: list[Reading]

    @property
    def idle(self) -> Spread:
        """MiB at rest."""
        return spread(one.idle for one in self.readings)

    @property
    def each(self) -> Spread:
        """KiB per open stream."""
        return self._per_stream([one.open for one in self.readings])

    @property
    def kept(self) -> Spread:
        """KiB per stream that has ended."""
        return self._per_stream([one.after for one in self.readings])

    def _per_stream(self, levels: list[float]) -> Spread:
        return spread(
            (level - one.idle) * 1024 / self.streams
            for level, one in zip(levels, self.readings, strict=True)
        )


@click.command()
@options.measuring(seconds=3.0)
@click.option(
    "--streams",
    default=(500, 2000),
    show_default=True,
    multiple=True,
    type=click.IntRange(1, 20_000),
    help="Open streams. May be repeated.",
)
def memory(setup: Setup, *, streams: tuple[int, ...]) -> None:
    """Memory at rest, of open streams, and after them."""
    found = [Row(name, count, []) for count in streams for name in MEASURED]
    with options.showing() as show:
        for number in range(1, setup.repeat + 1):
            for row in found:
                doing = f"round {number} of {setup.repeat}: {row.streams} streams, {row.name}"
                show(table(found, doing))
                row.readings.append(_round(setup, row.name, row.streams))
    options.finish(setup, found, table(found, LEGEND), measured=[setup.gateway], block=block)


def _round(setup: Setup, name: str, streams: int) -> Reading:
    """Measure a fresh process. Raises `Failed`."""
    seconds = setup.timing.seconds
    timing = Timing(seconds + LASTING)
    scenario = paced("open", "chat", Plan("chat", 1, pause=1000), streams, timing)
    first = Scenario("first", "chat", Plan("chat", 64), 16)
    with standing([scenario, first], [setup.gateway], setup.cores) as stack:
        stack.run(name, first, LOAD)
        idle = _mib(stack, name)
        with stack.holding(name, scenario):
            levels = [_after(seconds / READINGS, stack, name) for _ in range(READINGS)]
        return Reading(idle, max(levels), _after(REST, stack, name))


def _after(seconds: float, stack: Stack, name: str) -> float:
    time.sleep(seconds)
    return _mib(stack, name)


def _mib(stack: Stack, name: str) -> float:
    pid = stack.subjects[name].pid
    return sum(resident(one) for one in [pid, *descendants(pid)])


def table(rows: list[Row], doing: str) -> Group:
    """The figures so far, and a line below: what is being done, or how to read them."""
    shown = report.grid("", "streams\n", "idle\nMiB", "per stream\nKiB", "kept\nKiB/stream")
    for row in rows:
        if row.readings:
            figures = (figure(one) for one in (row.idle, row.each, row.kept))
            shown.add_row(row.name, f"{row.streams:,}", *figures)
    return Group(shown, "", doing)


def block(found: Report[Row]) -> readme.Block:
    """README's table and chart."""
    cells = [
        [
            row.name,
            f"{row.streams:,}",
            *(short(one.median) for one in (row.idle, row.each, row.kept)),
        ]
        for row in found.rows
    ]
    bars = {
        count: Bars(
            f"{count:,} streams",
            [
                Bar(row.name, one.median, one.low, one.high, f"{short(one.median)} KiB")
                for row in found.rows
                if row.streams == count
                for one in [row.each]
            ],
        )
        for count in dict.fromkeys(row.streams for row in found.rows)
    }
    headings = ["", "streams", "idle, MiB", "per open stream, KiB", "kept per stream after, KiB"]
    return readme.Block(
        table=readme.markdown(headings, cells),
        chart=Chart("Memory of one open stream", "KiB of RSS, median", list(bars.values())),
        notes=(
            "RSS of fresh processes, with streams of one event per second. The floor is a byte "
            "pump on Trio that knows no HTTP."
        ),
    )
