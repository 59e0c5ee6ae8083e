"""What is shown and what is kept: how figures are written, and the JSON file.

The law of this file: a figure is shown with its spread, and with three digits that count; the file
holds the raw results beside the figures, and what machine they are from.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
from rich import box
from rich.table import Table

from .compare import Row
from .measure import Spread
from .plan import Timing
from .processes import Cores


R = TypeVar("R")

PACKAGES = ("nursling", "trio", "hypercorn", "quart", "quart-trio", "httptools", "msgspec")

DISTURBED = 0.1
"""Share of its time that a process waits for its core, from which on the reader is told."""


class Machine(msgspec.Struct, frozen=True):
    """Where it was measured."""

    python: str
    system: str
    processor: str
    cores: int
    versions: dict[str, str]


class Report(msgspec.Struct, Generic[R], frozen=True):
    """The file of one run of a command."""

    command: str
    started: str
    """UTC, ISO 8601."""
    took: float
    """Seconds."""
    gateways: dict[str, str]
    """Name -> the command that started it."""
    timing: Timing
    repeat: int
    cores: Cores
    machine: Machine
    rows: list[R]


def machine(others: Mapping[str, str] | None = None) -> Machine:
    """This machine; `others`: versions of other gateways on it."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    ours = {name: version for name in PACKAGES if (version := _version(name))}
    return Machine(
        python=f"{platform.python_implementation()} {platform.python_version()}",
        system=f"{platform.system()} {platform.release()}",
        processor=processor,
        cores=os.cpu_count() or 1,
        versions=ours | dict(others or {}),
    )


def write(report: object, path: Path) -> None:
    """Keep a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")


def grid(first: str, *others: str) -> Table:
    """An empty table: names on the left, figures on the right."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    shown.add_column(first, no_wrap=True)
    for heading in others:
        shown.add_column(heading, justify="right", no_wrap=True)
    return shown


def short(value: float) -> str:
    """A number with three digits that count."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def figure(found: Spread | None, unit: float = 1) -> str:
    """The median, and below it least and greatest, if they differ."""
    if found is None:
        return "-"
    if found.low == found.high:
        return short(found.median / unit)
    low, median, high = (short(one / unit) for one in (found.low, found.median, found.high))
    return f"{median}\n[dim]{low}-{high}[/dim]"


def percent(found: Spread | None) -> str:
    """The median of a share."""
    return "-" if found is None else f"{found.median:.0%}"


def troubles(rows: Iterable[Row]) -> list[str]:
    """What makes the figures worth less than they seem."""
    rows = list(rows)
    notes = [
        f"[red]{row.scenario.name}: {row.streams:,} replies whole, but {count:,} {what}[/red]"
        for row in rows
        for what, count in sorted(row.faults.items())
    ]
    waited = [one.waited.median for row in rows for one in row.figures.values()]
    if any(one > DISTURBED for one in waited):
        notes.append(
            "[yellow]Other processes had the gateway's core for some of the time: rates are\n"
            "less than they could be, and CPU times more.[/yellow]"
        )
    return notes


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
