"""What the commands have in common: their options, the display, and what is done at the end.

The law of this file: an option that two commands have is written once, and means the same. What
goes wrong is one line on standard error, and no result is written.
"""

from __future__ import annotations

import datetime as dt
import functools
import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.console import Console, RenderableType
from rich.live import Live

from . import chart, gateways, processes, readme, report
from .gateways import Gateway
from .measure import Unmeasurable
from .plan import Timing
from .processes import Cores, Failed
from .report import R, Report


RESULTS = Path(__file__).parent / "results"

Command = Callable[..., None]


class Setup(msgspec.Struct, frozen=True):
    """What every measuring command is told."""

    command: str
    """Its name."""
    repeat: int
    timing: Timing
    gateway: Gateway
    """nursling."""
    cores: Cores
    path: Path | None
    """File for the result; None: a new one."""
    readme: bool
    """Write table and chart into README."""
    began: float = msgspec.field(default_factory=time.monotonic)


json_option = click.option(
    "--json",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the result.  [default: a new one in bench/results]",
)
gateway_option = click.option(
    "--gateway-command",
    default=gateways.NURSLING,
    show_default="nursling serve --config {config}",
    help="{config}, {port} and {upstream} (a port) are filled in.",
)
readme_option = click.option(
    "--readme",
    "into_readme",
    is_flag=True,
    help="Write the table and a chart into README, in the block of this command.",
)


class FiniteRange(click.FloatRange):
    """A range of numbers. Nan is in none, though it compares as if it were in each."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert what was written."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


def measuring(*, seconds: float = 1.0, repeat: int = 3) -> Callable[[Command], Command]:
    """Give a command the options of all that measure; it gets a `Setup` first, and its own ones."""

    def decorate(function: Command) -> Command:
        @functools.wraps(function)
        def wrapper(
            *,
            repeat: int,
            seconds: float,
            path: Path | None,
            gateway_command: str,
            into_readme: bool,
            pinned: bool,
            **own: Any,
        ) -> None:
            cores = processes.choose_cores(processes.available_cores(), pinned=pinned)
            processes.pin(0, cores.generator)
            gateway = gateways.nursling(gateway_command)
            timing = Timing(seconds=seconds)
            name = function.__name__
            setup = Setup(name, repeat, timing, gateway, cores, path, into_readme)
            function(checked(setup), **own)

        options = [
            click.option(
                "--repeat",
                default=repeat,
                show_default=True,
                type=click.IntRange(1, 20),
                help="Rounds.",
            ),
            click.option(
                "--seconds",
                default=seconds,
                show_default=True,
                type=FiniteRange(0.1, 60),
                help="Window of one measurement.",
            ),
            json_option,
            gateway_option,
            readme_option,
            click.option(
                "--pin/--no-pin",
                "pinned",
                default=True,
                show_default=True,
                help="What is measured on one core, everything else on another.",
            ),
        ]
        return functools.reduce(lambda made, option: option(made), reversed(options), wrapper)

    return decorate


@contextmanager
def showing() -> Generator[Callable[[RenderableType], None]]:
    """A display that is drawn anew in its place; a failure inside is one line and status 1."""
    try:
        with Live(console=Console(), auto_refresh=False, transient=True) as live:
            yield lambda what: live.update(what, refresh=True)
    except (Failed, Unmeasurable) as failed:
        raise click.ClickException(str(failed)) from None


def finish(
    setup: Setup,
    rows: list[R],
    shown: RenderableType,
    *,
    measured: Sequence[Gateway],
    block: Callable[[Report[R]], readme.Block],
    faults: bool = False,
) -> None:
    """Show the result and keep it: the file, its chart beside it, and README if it is asked for.

    `faults`: not all was as it should be, so the command fails, and README stays as it is.
    """
    Console().print(shown)
    now = dt.datetime.now(dt.UTC)
    took = round(time.monotonic() - setup.began, 1)
    made = Report(
        command=setup.command,
        started=(now - dt.timedelta(seconds=took)).isoformat(timespec="seconds"),
        took=took,
        gateways={one.name: one.command for one in measured},
        timing=setup.timing,
        repeat=setup.repeat,
        cores=setup.cores,
        machine=report.machine({one.name: one.version for one in measured if one.version}),
        rows=rows,
    )
    path = setup.path or RESULTS / f"{setup.command}-{now:%Y%m%dT%H%M%SZ}.json"
    told = block(made)
    report.write(made, path)
    path.with_suffix(".svg").write_text(chart.draw(told.chart), encoding="utf-8")
    click.echo(f"{took:.0f} s; {path}, and its chart beside it")
    if faults:
        raise click.ClickException("not every reply arrived whole: these figures prove nothing")
    if setup.readme:
        readme.put(told, made, RESULTS)


def checked(setup: Setup) -> Setup:
    """Whether README has the place for what is to be written, before it is measured."""
    if setup.readme:
        try:
            readme.replace(readme.README.read_text(encoding="utf-8"), setup.command, "")
        except (OSError, LookupError) as error:
            raise click.ClickException(str(error)) from None
    return setup
