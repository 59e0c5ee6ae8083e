"""`python -m bench peers`: nursling beside other gateways, under the same load.

The law of this file: all of them run on this machine, in the same rounds, on the same core, and
are asked the same by the same client; none of them gets a warm-up that another one has not. Chat
Completions on both sides, since that is what every gateway speaks.

LiteLLM is measured if it is installed; any other gateway by its command (`gateways.py` says what
may stand in it): `--gateway 'mine=mygateway --port {port} --upstream http://127.0.0.1:{upstream}/v1'`.
It must know the models that it is asked for, `bench-…`, or forward whatever name comes.
"""

from __future__ import annotations

import click
from rich.console import Group

from . import compare, gateways, options, readme, report
from .chart import Bar, Chart
from .chart import Group as Bars
from .compare import Figures, Row
from .gateways import Gateway
from .measure import Quantiles, Spread, spread
from .options import Setup
from .plan import Plan, Scenario, Timing, paced
from .report import Report, figure, short
from .throughput import select


LEGEND = (
    "Median, and least-greatest. CPU: µs per event, or per request of whole replies (by\n"
    "the floor's). Time: µs at the median, as the client sees it."
)
TIMED = {"first-token": "first", "paced": "delay", "whole": "took"}
"""Scenario -> what of it is timed."""
TIMES = {"first": "to the first token", "delay": "of an event", "took": "of a whole reply"}


@click.command()
@options.measuring(seconds=2.0)
@click.option(
    "--litellm",
    "litellm_command",
    metavar="COMMAND",
    help="LiteLLM's proxy.  [default: the one that is installed]",
)
@click.option(
    "--gateway",
    "others",
    multiple=True,
    metavar="NAME=COMMAND",
    help="Another one: {port}, {upstream} (ports) and {litellm} (a file) are filled in.",
)
@click.option(
    "--only", multiple=True, metavar="PATTERN", help="Scenarios, like paced. May be repeated."
)
def peers(
    setup: Setup, *, litellm_command: str | None, others: tuple[str, ...], only: tuple[str, ...]
) -> None:
    """Nursling beside LiteLLM and other gateways."""
    chosen = select(scenarios(setup.timing), only)
    if not chosen:
        raise click.UsageError("no scenario has such a name")
    measured = [setup.gateway, *named(others)]
    litellm = gateways.litellm(litellm_command)
    if litellm is None:
        click.echo(gateways.LITELLM_HINT, err=True)
    else:
        measured.insert(1, litellm)
    with options.showing() as show:
        rounds = compare.measure(
            chosen,
            measured,
            setup.cores,
            setup.timing,
            repeat=setup.repeat,
            show=lambda so_far, doing: show(table(compare.summaries(chosen, so_far), doing)),
        )
    rows = compare.summaries(chosen, rounds)
    faults = any(row.faults for row in rows)
    options.finish(setup, rows, table(rows, LEGEND), measured=measured, block=block, faults=faults)


def scenarios(timing: Timing) -> list[Scenario]:
    """What everybody can do."""
    return [
        Scenario("saturated", "chat", Plan("chat", 256), 16),
        Scenario("bursts", "chat", Plan("chat", 256, 16), 16),
        paced("paced", "chat", Plan("chat", 1, pause=50, dress="stamped"), 50, timing),
        Scenario("first-token", "chat", Plan("chat", 16), 1),
        Scenario("whole", "chat", Plan("chat", 64), 64, whole=True),
    ]


def named(others: tuple[str, ...]) -> list[Gateway]:
    """The gateways of the command line. Raises `UsageError`."""
    found: list[Gateway] = []
    for one in others:
        name, _, command = one.partition("=")
        if not name.strip() or not command.strip():
            raise click.UsageError("--gateway takes NAME=COMMAND")
        if name in {"nursling", "litellm", "floor", "direct"} | {known.name for known in found}:
            raise click.UsageError(f"--gateway: the name {name} is taken")
        found.append(Gateway(name, command, patience=60.0))
    return found


def table(rows: list[Row], doing: str) -> Group:
    """The rows so far, and a line below: what is being done, or how to read them."""
    names = _names(rows)
    shown = report.grid("", *names)
    for row in rows:
        shown.add_row(f"{row.scenario.name}, CPU", *map(_cell, (row.figures[n] for n in names)))
    for row in rows:
        times = _times(row, names)
        if times is not None:
            shown.add_row(
                f"{row.scenario.name}, time\n[dim]{TIMES[TIMED[row.scenario.name]]}[/dim]",
                *map(figure, times),
            )
    return Group(shown, "", *report.troubles(rows), doing)


def _cell(found: Figures) -> str:
    """A cost with its ratio, and below it the spread."""
    cost, _, around = figure(found.cost).partition("\n")
    ratio = f" ({short(found.ratio.median)}x)" if found.ratio else ""
    return f"{cost}{ratio}\n{around}".rstrip()


def _names(rows: list[Row]) -> list[str]:
    """Floor first, then ours, then the others as they come."""
    names = list(rows[0].figures) if rows else []
    return sorted(names, key=lambda name: {"floor": 0, "nursling": 1}.get(name, 2))


def _times(row: Row, names: list[str]) -> list[Spread] | None:
    """What is timed of a scenario, µs at the median of each round; None where nothing is."""
    kind = TIMED.get(row.scenario.name)
    if kind is None:
        return None
    found: list[Spread] = []
    for name in names:
        times: list[Quantiles | None] = [getattr(one[name], kind) for one in row.rounds]
        known = [one.p50 for one in times if one is not None]
        found.append(spread(known or [float("inf")]))
    return found


def block(found: Report[Row]) -> readme.Block:
    """README's table and chart."""
    names = _names(found.rows)
    known = found.machine.versions
    told = "".join(f"{name} {known[name]}. " for name in names[2:] if name in known)
    cells: list[list[str]] = []
    groups: list[Bars] = []
    for row in found.rows:
        figures = {name: row.figures[name] for name in names}
        unit = "request" if row.scenario.whole else "event"
        cells.append(
            [
                f"{row.scenario.name}, per {unit}",
                *(
                    short(one.cost.median)
                    + (f" ({short(one.ratio.median)}x)" if one.ratio is not None else "")
                    for one in figures.values()
                ),
            ]
        )
        bars = [
            Bar(name, one.median, one.low, one.high, f"{short(one.median)}x")
            for name in names
            if (one := figures[name].ratio) is not None
        ]
        groups.append(Bars(f"{row.scenario.name}, per {unit}", bars))
    for row in found.rows:
        times = _times(row, names)
        if times is not None:
            what = f"time {TIMES[TIMED[row.scenario.name]]}"
            cells.append([what, *(short(one.median) for one in times)])
    return readme.Block(
        table=readme.markdown(["µs of CPU (by the floor's), or of time", *names], cells),
        chart=Chart(
            title="CPU time by that of a bare byte pump: nursling and others",
            subtitle="Chat Completions, median of the rounds. Shorter is better.",
            groups=groups,
            line=1.0,
            line_label="the floor",
        ),
        notes=(
            f"{told}All were measured in turn, in the same rounds, on one core. Saturated, bursts, "
            "paced: as above; first-token: streams of 16 events, one after the other; whole: 64 "
            "connections that ask for whole replies."
        ),
    )
