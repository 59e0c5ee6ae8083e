"""`python -m bench decode`: what each piece of the hot code costs by itself, in this process.

The law of this file: a figure is CPU time by event, at one and at sixteen events per read, over
passes of whole streams. The guards' ratios are what counts: both of a pair are measured in turn,
and the least of several passes is compared, since noise only ever adds.
"""

from __future__ import annotations

import fnmatch
import gc
import time
from collections.abc import Iterable
from pathlib import Path

import click
import msgspec
from rich.console import Group

from . import gateways, options, readme, report
from .chart import Bar, Chart
from .chart import Group as Bars
from .decode_cases import Case, Guard, Kept, Pass, cases, guards, kept
from .measure import Spread, spread
from .options import Setup
from .plan import Timing
from .processes import Cores
from .report import Report, figure, short


PER_READ = (1, 16)

LEGEND = (
    "Median of the passes, and least-greatest, at one event per read and at sixteen.\n"
    "Guards: the optimised way beside the plain one, the least of each."
)


class Cost(msgspec.Struct, frozen=True):
    """What one piece costs: events per read -> CPU µs per event."""

    name: str
    at: dict[int, Spread]


class Held(msgspec.Struct, frozen=True):
    """What a guard has found."""

    name: str
    unit: str
    fast: float
    plain: float
    ratio: float
    least: float
    """Below which the optimisation is broken."""


class Decode(msgspec.Struct, frozen=True):
    """The one row of the file."""

    costs: list[Cost]
    held: list[Held]


@click.command()
@click.option(
    "--repeat", default=9, show_default=True, type=click.IntRange(1, 100), help="Passes of a case."
)
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Cases, like 'decode chat*'. May be repeated."
)
@options.json_option
@options.readme_option
def decode(*, repeat: int, only: tuple[str, ...], path: Path | None, into_readme: bool) -> None:
    """The hot code in pieces, each optimised one guarded."""
    setup = options.checked(
        Setup(
            "decode", repeat, Timing(seconds=0.0), gateways.nursling(), Cores(), path, into_readme
        )
    )
    chosen = [one for one in cases() if _fits(one.name, only)]
    watched = [one for one in guards() if _fits(one.name, only)]
    if not chosen and not watched:
        raise click.UsageError("no case has such a name")
    costs: list[Cost] = []
    held: list[Held] = []
    with options.showing() as show:
        for case in chosen:
            show(table(costs, held, case.name))
            costs.append(Cost(case.name, {many: measure(case, many, repeat) for many in PER_READ}))
        for guard in watched:
            show(table(costs, held, guard.name))
            held.append(hold(guard, repeat))
    if _fits("pieces", only):
        held.append(held_pieces(kept()))
    broken = [one.name for one in held if one.ratio < one.least]
    found = Decode(costs, held)
    options.finish(setup, [found], table(costs, held, LEGEND), measured=[], block=block)
    if broken:
        raise click.ClickException(f"no better than the plain way: {', '.join(broken)}")


def measure(case: Case, per_read: int, repeat: int) -> Spread:
    """CPU µs per event, over so many passes, behind one that warms up."""
    run = case.make(per_read)
    run()
    gc.collect()
    return spread(_once(run) for _ in range(repeat))


def hold(guard: Guard, repeat: int) -> Held:
    """Measure both ways in turn, at one event per read."""
    fast, plain = guard.fast.make(1), guard.plain.make(1)
    fast()
    plain()
    gc.collect()
    pairs = [(_once(fast), _once(plain)) for _ in range(repeat)]
    ours, other = (min(costs) for costs in zip(*pairs, strict=True))
    return Held(guard.name, "µs/event", ours, other, other / ours, guard.least)


def held_pieces(found: Kept) -> Held:
    """The guard of `Pieces`, whose figures are no times."""
    ratio = found.plain / found.pieces
    return Held("pieces of a text", "bytes/piece", found.pieces, found.plain, ratio, 3.0)


def _once(run: Pass) -> float:
    """CPU µs per event of one pass."""
    gc.disable()  # a collection in the middle of a pass would be another one's garbage
    try:
        began = time.thread_time_ns()
        events = run()
        return (time.thread_time_ns() - began) / 1000 / events
    finally:
        gc.enable()


def _fits(name: str, patterns: Iterable[str]) -> bool:
    patterns = tuple(patterns)
    return not patterns or any(fnmatch.fnmatchcase(name, one) for one in patterns)


def table(costs: list[Cost], held: list[Held], doing: str) -> Group:
    """The figures so far, and a line below: what is being done, or how to read them."""
    shown = report.grid("CPU µs per event", *(f"{many} per read" for many in PER_READ))
    for cost in costs:
        shown.add_row(cost.name, *(figure(cost.at[many]) for many in PER_READ))
    guarded = report.grid("guard", "optimised", "plain", "ratio", "")
    for one in held:
        ratio = f"{one.ratio:.2f}" if one.ratio >= one.least else f"[red]{one.ratio:.2f}[/red]"
        guarded.add_row(one.name, short(one.fast), short(one.plain), ratio, one.unit)
    return Group(shown, "", guarded, "", doing)


def block(found: Report[Decode]) -> readme.Block:
    """README's table and chart."""
    [row] = found.rows
    cells = [[cost.name, *(short(cost.at[many].median) for many in PER_READ)] for cost in row.costs]
    bars = [
        Bars(one.name, [Bar("plain", one.ratio, one.ratio, one.ratio, f"{short(one.ratio)}x")])
        for one in row.held
    ]
    return readme.Block(
        table=readme.markdown(
            ["CPU µs per event", *(f"{many} per read" for many in PER_READ)], cells
        ),
        chart=Chart(
            title="What the optimised paths save",
            subtitle="Cost of the plain way by that of the optimised one",
            groups=bars,
            line=1.0,
            line_label="no gain",
        ),
        notes="CPU time of each piece by itself, in one process, medians of passes.",
    )
