"""The laws of a soak, what is shown while it runs and at its end, and the file.

The law of this file: a law is kept, broken, or open (the run could not tell); what is shown as
kept was seen. The file holds what the laws were judged by.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec
from rich import box
from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.table import Table

from .chart import Curve
from .report import Machine
from .soak_load import Progress
from .soak_memory import Growth, Reading
from .soak_plan import Load, Patience


class End(msgspec.Struct, frozen=True):
    """What was left when the last client had gone."""

    in_flight: int
    """Requests that the gateway still counted."""
    gateway_descriptors: int
    """Its open files and sockets, beyond those before the first client."""
    upstream_connections: int
    """Connections that the upstream still had."""
    resident: float
    """MiB of the gateway."""
    bugs: int = 0
    """Lines of the gateway's log that tell of one."""
    status: int | None = None
    """With which the gateway ended upon SIGTERM; None: it did not."""

    @property
    def clean(self) -> bool:
        """Whether everything was given back."""
        return max(self.in_flight, self.gateway_descriptors, self.upstream_connections) <= 0


class Soak(msgspec.Struct, frozen=True):
    """The file."""

    started: str
    """UTC, ISO 8601."""
    gateway_command: str
    duration: float
    seed: int
    load: Load
    patience: Patience
    machine: Machine
    progress: Progress
    """At the end."""
    memory: Growth
    limit: float
    """MiB per hour that it may grow."""
    end: End
    readings: list[Reading]


class Law(NamedTuple):
    """What must hold, and whether it did."""

    name: str
    kept: bool | None
    """None: the run cannot tell."""
    seen: str


def laws(result: Soak) -> list[Law]:
    """Judge a soak."""
    seen, end, memory = result.progress, result.end, result.memory
    lazy = any(lane.manner != "reads" for lane in result.load.lanes())
    kept = {"flat": True, "grows": False, "cannot tell": None}[memory.verdict]
    faults = "; ".join(f"{count:,} {what}" for what, count in sorted(seen.faults.items()))
    return [
        Law(
            "nothing lost, repeated, reordered or mixed up",
            not seen.faults and seen.whole > 0,
            faults or f"{seen.whole:,} streams whole, {seen.left:,} good until their client left",
        ),
        Law(
            "clients that pause get everything",
            (seen.napped > 0 or None) if lazy else None,
            f"{seen.napped:,} did",
        ),
        Law(
            "clients that never read are cut",
            (seen.cut > 0 or None) if lazy else None,
            f"{seen.cut:,} were, with nothing wrong before that",
        ),
        Law(f"memory grows by {result.limit:g} MiB/h at most", kept, _memory(memory)),
        Law(
            "everything is given back",
            end.clean,
            f"{end.in_flight} requests, {end.gateway_descriptors} descriptors of the gateway, "
            f"{end.upstream_connections} upstream connections left",
        ),
        Law("no bug in the log", end.bugs == 0, f"{end.bugs} lines"),
        Law("SIGTERM ends it", end.status == 0, f"status {end.status}"),
    ]


def status(progress: Progress, readings: list[Reading], duration: float) -> Group:
    """What is shown while it runs."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("open", "whole", "left", "napped", "cut", "thousand\ntokens", "MiB"):
        shown.add_column(heading, justify="right", no_wrap=True)
    shown.add_row(
        *(f"{count:,}" for count in (progress.open, progress.whole, progress.left)),
        f"{progress.napped:,}",
        f"{progress.cut:,}",
        f"{progress.tokens / 1000:,.1f}",
        f"{readings[-1].mib:.1f}",
    )
    faults = [f"[red]{count:,} {what}[/red]" for what, count in sorted(progress.faults.items())]
    bar = ProgressBar(duration, min(progress.at, duration), width=60)
    lull = f"; lull {progress.lull}: nobody is lazy" if progress.lull else ""
    return Group(shown, "", *faults, bar, f"{progress.at:,.0f} of {duration:,.0f} s{lull}")


def table(result: Soak, judged: list[Law]) -> Group:
    """What is shown at the end."""
    shown = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    shown.add_column("law")
    shown.add_column("")
    shown.add_column("seen")
    words = {True: "[green]kept[/green]", False: "[red]broken[/red]", None: "[yellow]open[/yellow]"}
    for law in judged:
        shown.add_row(law.name, words[law.kept], law.seen)
    load, seen = result.load, result.progress
    lazy = len(load.lanes()) - load.streams - load.quick
    return Group(
        shown,
        "",
        f"{load.streams:,} streams of 1 event/s, {load.quick:,} of 20, {lazy:,} that do not read;\n"
        f"{seen.tokens:,} tokens in {result.duration:,.0f} s.",
    )


def curve(result: Soak) -> Curve:
    """The gateway's memory in the course of the run."""
    load = result.load
    return Curve(
        title="Memory of the gateway under load",
        subtitle=f"{load.streams + load.quick:,} streams and clients that leave or do not read",
        unit="MiB",
        points=[(one.at / 60, one.mib) for one in result.readings],
    )


def _memory(memory: Growth) -> str:
    if not memory.seconds:
        return f"up to {memory.peak:.1f} MiB; nothing to compare"
    held = f"{memory.low:.1f} to {memory.high:.1f} MiB"
    if memory.lulls:
        held += f" in {memory.lulls} lulls, when nobody was lazy, up to {memory.peak:.1f} between,"
    over = f"in {memory.seconds / 60:.1f} min after {memory.since / 60:.1f} min"
    if memory.per_hour is None or memory.error is None:
        return f"{held} {over}: too short to tell"
    return f"{memory.per_hour:+.1f} ± {memory.error:.1f} MiB/h; {held} {over}"
