"""`python -m bench throughput`: what one event costs the gateway, beside what it must cost.

The law of this file: a scenario has a reason. *Saturated*: 16 streams of `--events` events, one
event per write, one stream after the other: the cost of the event alone. *Bursts*: the same with
16 events per write. *Paced*: 50 streams of 20 events per second, which is what live token streams
are: nearly every event is a read, a write and a wake-up of its own. *Crowd*: 500 of those. *Slow*:
2,000 streams of one event per second. Compare figures of one load only: an idle process pays a
wake-up for each event, a busy one does not.
"""

from __future__ import annotations

import fnmatch

import click
from rich.console import Group

from . import compare, options, readme, report
from .chart import Bar, Chart
from .chart import Group as Bars
from .compare import Figures, Row
from .options import Setup
from .plan import Api, Dress, Plan, Scenario, Timing, paced
from .report import Report


LEGEND = (
    "Median, and least-greatest. µs/event: CPU time per event that reached the\n"
    "client. busy: CPU time by the clock's, of the gateway, and of upstream and load\n"
    "generator; what is near 100% limits events/s."
)

ROUTES: tuple[tuple[Api, Api], ...] = (
    ("chat", "chat"),
    ("chat", "responses"),
    ("responses", "chat"),
    ("responses", "responses"),
)
DRESSED: tuple[tuple[Api, Dress], ...] = (
    ("chat", "openai"),
    ("responses", "openai"),
    ("chat", "logprobs"),
)
"""Events that are not plain ones: client's and upstream's API, and what they have on."""


@click.command()
@options.measuring()
@click.option(
    "--events",
    default=256,
    show_default=True,
    type=click.IntRange(2, 100_000),
    help="Events of a stream that is not paced.",
)
@click.option(
    "--only",
    multiple=True,
    metavar="PATTERN",
    help="Scenarios, like chat-chat-paced or '*-saturated'. May be repeated.",
)
@click.option("--floor-only", is_flag=True, help="Measure the machine, without a gateway.")
def throughput(setup: Setup, *, events: int, only: tuple[str, ...], floor_only: bool) -> None:
    """CPU time of an event, beside a plain byte pump."""
    chosen = select(scenarios(setup.timing, events), only)
    if not chosen:
        raise click.UsageError("no scenario has such a name")
    measured = [] if floor_only else [setup.gateway]
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


def scenarios(timing: Timing, events: int) -> list[Scenario]:
    """All of them."""
    rows: list[Scenario] = []
    for client, upstream in ROUTES:
        route = f"{client}-{upstream}"
        rows.append(Scenario(f"{route}-saturated", client, Plan(upstream, events), 16))
        if route == "chat-chat":
            rows.append(Scenario(f"{route}-bursts", client, Plan(upstream, events, 16), 16))
        rows.append(paced(f"{route}-paced", client, Plan(upstream, 1, pause=50), 50, timing))
    for api, dress in DRESSED:
        plan = Plan(api, events, dress=dress)
        rows.append(Scenario(f"{api}-{api}-{dress}-saturated", api, plan, 16))
        if dress == "openai":
            plan = Plan(api, 1, pause=50, dress=dress)
            rows.append(paced(f"{api}-{api}-{dress}-paced", api, plan, 50, timing))
    rows.append(paced("chat-chat-crowd", "chat", Plan("chat", 1, pause=50), 500, timing))
    rows.append(paced("chat-chat-slow", "chat", Plan("chat", 1, pause=1000), 2000, timing))
    return rows


def select(offered: list[Scenario], patterns: tuple[str, ...]) -> list[Scenario]:
    """The scenarios whose name fits a pattern; all of them without patterns."""
    return [
        scenario
        for scenario in offered
        if not patterns or any(fnmatch.fnmatchcase(scenario.name, one) for one in patterns)
    ]


def table(rows: list[Row], doing: str) -> Group:
    """The rows so far, and a line below: what is being done, or how to read them."""
    shown = report.grid(
        "client-upstream\nload",
        *("gateway\nµs/event", "floor\nµs/event", "ratio\n", "thousand\nevents/s"),
        *("gateway\nbusy", "load\nbusy"),
    )
    for row in rows:
        gateway, floor = row.figures.get("nursling"), row.figures["floor"]
        shown.add_row(
            "\n".join(_names(row.scenario)),
            report.figure(gateway.cost if gateway else None),
            report.figure(floor.cost),
            report.figure(gateway.ratio if gateway else None),
            report.figure((gateway or floor).rate, 1000),
            report.percent(gateway.busy if gateway else None),
            report.percent((gateway or floor).generator_busy),
        )
    return Group(shown, "", *report.troubles(rows), doing)


def block(found: Report[Row]) -> readme.Block:
    """README's table and chart."""
    lines: list[list[str]] = []
    groups: list[Bars] = []
    for row in found.rows:
        gateway = row.figures.get("nursling")
        if gateway is None or gateway.ratio is None:
            continue
        route, load = _names(row.scenario)
        lines.append([route, load, *_cells(row.figures["floor"], gateway)])
        ratio = gateway.ratio
        text = f"{report.short(ratio.median)}x"
        bar = Bar("nursling", ratio.median, ratio.low, ratio.high, text)
        groups.append(Bars(f"{route}, {load}", [bar]))
    headings = ["client ← upstream", "load", "nursling, µs/event", "floor", "ratio", "events/s"]
    return readme.Block(
        table=readme.markdown(headings, lines),
        chart=Chart(
            title="CPU time of one streamed event, by that of a bare byte pump",
            subtitle="Client ← upstream, load. Median of the rounds; the line in a bar is its "
            "least and greatest.",
            groups=groups,
            line=1.0,
            line_label="the floor",
        ),
        notes=(
            "CPU µs per event that reached the client (least and greatest ratio in brackets). "
            "The floor is a byte pump on Trio that knows no HTTP, measured in the same rounds. "
            "Saturated: 16 streams as fast as they go; bursts: 16 events per write; paced: 50 "
            "streams of 20 events/s; crowd: 500 of those; slow: 2,000 streams of 1 event/s; "
            "openai: events with all that OpenAI's service sends in each one; logprobs: and "
            "with log probabilities. Ratios travel, microseconds do not."
        ),
    )


def _names(scenario: Scenario) -> tuple[str, str]:
    """Its route, and its load."""
    client, upstream, load = scenario.name.split("-", 2)
    return f"{client} ← {upstream}", load.replace("-", ", ")


def _cells(floor: Figures, gateway: Figures) -> list[str]:
    ratio = gateway.ratio
    assert ratio is not None  # noqa: S101 - both were measured in every round
    low, median, high = (report.short(one) for one in (ratio.low, ratio.median, ratio.high))
    return [
        report.short(gateway.cost.median),
        report.short(floor.cost.median),
        f"{median} ({low}-{high})",
        f"{gateway.rate.median:,.0f}",
    ]
