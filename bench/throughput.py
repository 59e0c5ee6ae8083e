"""`python -m bench throughput`: what one event costs the gateway, beside what it must cost.

The law of this file: gateway and floor are measured in turn, under the same load, in the same
round, and every round begins with fresh processes. So what else the machine does meets both, and
their ratio means something where the absolute figures do not.

An *event* is one delta of text that reached the client. The request's own cost is in it, spread
over the events of its stream, except for paced streams, which outlast the window. Compare figures
of one load only: an idle process pays a wake-up for each event, a busy one does not.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live

from . import processes, report
from .load import Result
from .plan import Plan, Scenario, Timing, scenarios
from .processes import Cores, Failed
from .report import Report, Round, Row
from .stack import Stack, standing


GATEWAY = (
    f"{shlex.quote(sys.executable)} -c 'from nursling.transports.cli import main; main()'"
    " serve --config {config}"
)
RESULTS = Path(__file__).parent / "results"


@click.command()
@click.option("--repeat", default=3, show_default=True, type=click.IntRange(1, 20), help="Rounds.")
@click.option(
    "--seconds",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.1, 60),
    help="Window of one measurement.",
)
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
@click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the result.  [default: a new one in bench/results]",
)
@click.option(
    "--gateway-command",
    default=GATEWAY,
    show_default="nursling serve --config {config}",
    help="{config}, {port} and {upstream} (a port) are filled in.",
)
@click.option("--floor-only", is_flag=True, help="Measure the machine, without a gateway.")
@click.option(
    "--pin/--no-pin",
    "pinned",
    default=True,
    show_default=True,
    help="Gateway and floor on one core, everything else on another.",
)
def throughput(
    *,
    repeat: int,
    seconds: float,
    events: int,
    only: tuple[str, ...],
    path: Path | None,
    gateway_command: str,
    floor_only: bool,
    pinned: bool,
) -> None:
    """CPU time per event and events per second, beside a plain byte pump."""
    timing = Timing(seconds=seconds)
    chosen = select(scenarios(timing, events), only)
    if not chosen:
        raise click.UsageError("no scenario has such a name")
    cores = processes.choose_cores(processes.available_cores(), pinned=pinned)
    processes.pin(0, cores.generator)
    command = None if floor_only else gateway_command
    now = dt.datetime.now(dt.UTC)
    began = time.monotonic()
    console = Console()
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:

            def show(rows: list[Row], doing: str) -> None:
                live.update(report.table(rows, doing), refresh=True)

            rows = measure(chosen, timing, command, cores, repeat=repeat, show=show)
    except Failed as failed:
        raise click.ClickException(str(failed)) from None
    console.print(report.table(rows, report.LEGEND))
    took = round(time.monotonic() - began, 1)
    path = path or RESULTS / f"throughput-{now:%Y%m%dT%H%M%SZ}.json"
    report.write(
        Report(
            started=now.isoformat(timespec="seconds"),
            took=took,
            gateway_command=command,
            timing=timing,
            repeat=repeat,
            cores=cores,
            machine=report.machine(),
            rows=rows,
        ),
        path,
    )
    click.echo(f"{took:.0f} s; {path}")
    if any(row.faults for row in rows):
        raise click.ClickException("not every stream arrived whole: these figures prove nothing")


def select(offered: list[Scenario], patterns: tuple[str, ...]) -> list[Scenario]:
    """The scenarios whose name fits a pattern; all of them without patterns."""
    return [
        scenario
        for scenario in offered
        if not patterns or any(fnmatch.fnmatchcase(scenario.name, one) for one in patterns)
    ]


def measure(
    chosen: list[Scenario],
    timing: Timing,
    command: str | None,
    cores: Cores,
    *,
    repeat: int,
    show: Callable[[list[Row], str], None],
) -> list[Row]:
    """Make all the runs; before each `show` the rows so far and what is next. Raises `Failed`."""
    rounds: dict[str, list[Round]] = {scenario.name: [] for scenario in chosen}

    def rows() -> list[Row]:
        return [report.summarize(one, rounds[one.name]) for one in chosen if rounds[one.name]]

    for number in range(1, repeat + 1):
        show(rows(), f"round {number} of {repeat}: starting")
        with standing({scenario.plan for scenario in chosen}, command, cores) as stack:
            floors: dict[Plan, Result] = {}
            for scenario in chosen:
                show(rows(), f"round {number} of {repeat}: {scenario.name}")
                made = _round(stack, scenario, timing, floors, floor_first=bool(number % 2))
                rounds[scenario.name].append(made)
    return rows()


def _round(
    stack: Stack,
    scenario: Scenario,
    timing: Timing,
    floors: dict[Plan, Result],
    *,
    floor_first: bool,
) -> Round:
    """Measure both, in an order that changes with the round.

    Scenarios that differ in the client's API only have one floor: it is measured once a round, and
    kept in `floors`.
    """
    plan = scenario.plan
    if floor_first and plan not in floors:
        floors[plan] = stack.run_floor(scenario, timing)
    gateway = stack.run_gateway(scenario, timing)
    if plan not in floors:
        floors[plan] = stack.run_floor(scenario, timing)
    return Round(floors[plan], gateway)
