"""What is shown and what is kept: a table that fills while the runs go on, and a JSON file.

The law of this file: a row's figures are computed from the raw results in one place,
`summarize`; the file holds the raw results beside them, and what machine they are from.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

import msgspec
from rich import box
from rich.console import Group
from rich.table import Table

from .load import Result
from .measure import Spread, spread
from .plan import Scenario, Timing
from .processes import Cores


PACKAGES = ("nursling", "trio", "hypercorn", "quart", "quart-trio", "httptools", "msgspec")

LEGEND = (
    "Median, and least-greatest. µs/event: CPU time per event that reached the\n"
    "client. busy: CPU time by the clock's, of the gateway, and of upstream and load\n"
    "generator; what is near 100% limits events/s."
)
DISTURBED = 0.1
"""Share of its time that a process waits for its core, from which on the reader is told."""


class Round(msgspec.Struct, frozen=True):
    """One scenario in one round: the gateway beside the floor, minutes apart at most."""

    floor: Result
    gateway: Result | None = None
    """None: only the floor was measured."""


class Row(msgspec.Struct, frozen=True):
    """The figures of one scenario, over all rounds."""

    scenario: Scenario
    floor: Spread
    """CPU µs per event of the floor."""
    floor_rate: Spread
    """Events per second through it."""
    gateway: Spread | None
    """CPU µs per event of the gateway."""
    rate: Spread | None
    """Events per second through it."""
    ratio: Spread | None
    """Gateway by floor, of the same round."""
    busy: Spread | None
    """The gateway's CPU time by the clock's; 1 = one whole core."""
    waited: Spread
    """Time that gateway and floor waited for their core, by the clock's."""
    generator_busy: Spread
    """The same of upstream and load generator: near 1, they are what limits the rate."""
    streams: int
    """Streams that arrived whole."""
    faults: dict[str, int]
    """Streams that did not, by what was wrong."""
    rounds: tuple[Round, ...]


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    python: str
    system: str
    processor: str
    cores: int
    versions: dict[str, str]


class Report(msgspec.Struct, frozen=True):
    """The file."""

    started: str
    """UTC, ISO 8601."""
    took: float
    gateway_command: str | None
    timing: Timing
    repeat: int
    cores: Cores
    machine: Machine
    rows: list[Row]


def per_event(result: Result) -> float:
    """CPU µs per event; infinite if none came."""
    return result.cpu_us / result.tokens if result.tokens else float("inf")


def summarize(scenario: Scenario, rounds: list[Round]) -> Row:
    """The figures of one scenario. Raises `ValueError` without a round."""
    results = [one.floor for one in rounds]
    passed = [(one.floor, one.gateway) for one in rounds if one.gateway is not None]
    own = [gateway for _, gateway in passed]
    results += own
    faults: dict[str, int] = {}
    for result in results:
        for what, count in result.faults.items():
            faults[what] = faults.get(what, 0) + count
    floors = [one.floor for one in rounds]
    return Row(
        scenario=scenario,
        floor=spread(map(per_event, floors)),
        floor_rate=spread(one.tokens / one.seconds for one in floors),
        gateway=spread(map(per_event, own)) if own else None,
        rate=spread(one.tokens / one.seconds for one in own) if own else None,
        ratio=spread(per_event(high) / per_event(low) for low, high in passed) if own else None,
        busy=spread(one.cpu_us / 1e6 / one.seconds for one in own) if own else None,
        waited=spread(one.waited_us / 1e6 / one.seconds for one in results),
        generator_busy=spread(one.generator_us / 1e6 / one.seconds for one in own or floors),
        streams=sum(one.streams for one in results),
        faults=faults,
        rounds=tuple(rounds),
    )


def table(rows: list[Row], doing: str) -> Group:
    """The rows so far, and a line below: what is being done, or how to read them."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column("client-upstream\nload", no_wrap=True)
    for heading in ("gateway\nµs/event", "floor\nµs/event", "ratio\n", "thousand\nevents/s"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for heading in ("gateway\nbusy", "load\nbusy"):
        shown.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        route, _, load = row.scenario.name.rpartition("-")
        shown.add_row(
            f"{route}\n{load}",
            _show(row.gateway),
            _show(row.floor),
            _show(row.ratio),
            _show(row.rate or row.floor_rate, 1000),
            _percent(row.busy),
            _percent(row.generator_busy),
        )
    notes = [
        f"[red]{row.scenario.name}: {row.streams:,} streams whole, but {count:,} {what}[/red]"
        for row in rows
        for what, count in sorted(row.faults.items())
    ]
    if any(row.waited.median > DISTURBED for row in rows):
        notes.append(
            "[yellow]Other processes had the gateway's core for some of the time: events/s\n"
            "is less than it could be, and µs/event is more.[/yellow]"
        )
    return Group(shown, "", *notes, doing)


def machine() -> Machine:
    """This machine."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()}",
        processor=processor,
        cores=os.cpu_count() or 1,
        versions={name: version for name in PACKAGES if (version := _version(name))},
    )


def write(report: Report, path: Path) -> None:
    """Keep the report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _show(figure: Spread | None, unit: float = 1) -> str:
    """The median, and below it least and greatest, with three digits that count."""
    if figure is None:
        return "-"
    low, median, high = (
        f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
        for value in (figure.low / unit, figure.median / unit, figure.high / unit)
    )
    return f"{median}\n[dim]{low}-{high}[/dim]"


def _percent(figure: Spread | None) -> str:
    return "-" if figure is None else f"{figure.median:.0%}"
