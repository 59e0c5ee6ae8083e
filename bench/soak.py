"""`python -m bench soak`: what the gateway loses, mixes up or keeps when it runs for long.

The law of this file: what must hold is a list of laws, each judged with what was seen; the command
fails if one is broken. How fast the machine is, and who else uses it, does not matter to any of
them. Upstream, gateway and clients are processes of their own.

Memory is judged behind a warm-up: streams that come and go leave holes in the heap until their
worst moment has been. With 1,100 streams that took some 150 s (measured: 146.8 MiB after 1 min,
147.1 after 3, 147.2 after 20, 147.9 after 30), so the 300 s of a run of half an hour are enough.
It is judged in lulls of the clients that do not read (`soak_lulls.py` says why); all the other
streams run on in them. The peak of all the run is shown beside it.
"""

from __future__ import annotations

import datetime as dt
import select
import shlex
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import IO
from urllib.request import ProxyHandler, build_opener

import click
import msgspec
from rich.console import Console

from . import chart, options, processes, report, soak_report
from .measure import descriptors, resident
from .processes import Failed, announced_port, free_port, module, running, wait_for_port
from .soak_load import GRACE, Order, Progress
from .soak_lulls import FULL
from .soak_memory import Reading, growth
from .soak_plan import MODELS, Load, Patience
from .soak_report import End, Soak


SILENCE = 30.0
"""Seconds after which clients that say nothing are given up."""
REST = 20.0
"""Seconds until everything must be given back: an unused connection is kept for four."""
SPARE = 200
"""Descriptors of a process beyond its connections."""
RECALL = 1 << 20
"""Bytes of finished replies that the gateway keeps for references to them."""
LAG = 2.0
"""Seconds in which a gateway that keeps up tells its metrics."""
IN_FLIGHT = b"nursling_streams_in_flight "


@click.command()
@click.option(
    "--duration",
    default=1800.0,
    show_default=True,
    type=options.FiniteRange(10),
    help="Seconds of load.",
)
@click.option(
    "--warm-up",
    type=options.FiniteRange(0),
    help="Seconds before memory is judged.  [default: a quarter of the duration, 300 at most]",
)
@click.option(
    "--streams",
    default=1000,
    show_default=True,
    type=click.IntRange(0),
    help="Concurrent streams of one event per second.",
)
@click.option(
    "--quick",
    default=100,
    show_default=True,
    type=click.IntRange(0),
    help="Concurrent streams of twenty events per second.",
)
@click.option(
    "--leaving",
    default=0.05,
    show_default=True,
    type=options.FiniteRange(0, 1),
    help="Share of the streams whose client leaves.",
)
@click.option(
    "--lazy",
    default=0.05,
    show_default=True,
    type=options.FiniteRange(0, 0.5),
    help="Share of the clients that stop reading, half of them for good.",
)
@click.option(
    "--write-timeout",
    default=10.0,
    show_default=True,
    type=options.FiniteRange(1),
    help="The gateway's patience with a client that takes nothing.",
)
@click.option(
    "--growth",
    "limit",
    default=2.0,
    show_default=True,
    help="MiB per hour that the gateway may grow.",
)
@click.option("--seed", default=1, show_default=True, help="Of all that is drawn.")
@options.json_option
@options.gateway_option
def soak(
    *,
    duration: float,
    warm_up: float | None,
    streams: int,
    quick: int,
    leaving: float,
    lazy: float,
    write_timeout: float,
    limit: float,
    seed: int,
    path: Path | None,
    gateway_command: str,
) -> None:
    """Many streams for a long time: nothing lost, nothing mixed up, nothing kept."""
    load = Load(streams=streams, quick=quick, leaving=leaving, lazy=lazy)
    patience = Patience(write_timeout)
    now = dt.datetime.now(dt.UTC)
    console = Console()
    with options.showing() as draw:
        processes.raise_descriptors(2 * len(load.lanes()) + SPARE)

        def show(progress: Progress, readings: list[Reading]) -> None:
            draw(soak_report.status(progress, readings, duration))

        last, readings, end = run(gateway_command, load, patience, duration, seed=seed, show=show)
    since = min(duration / 4, 300.0) if warm_up is None else warm_up
    result = Soak(
        started=now.isoformat(timespec="seconds"),
        gateway_command=gateway_command,
        duration=duration,
        seed=seed,
        load=load,
        patience=patience,
        machine=report.machine(),
        progress=last,
        # Behind the end of the load nothing is held any more, so it tells nothing of growth.
        memory=growth(
            [one for one in readings if one.at <= duration],
            since=since,
            limit=limit,
            lulls=load.lazy > 0,
        ),
        limit=limit,
        end=end,
        readings=readings,
    )
    laws = soak_report.laws(result)
    console.print(soak_report.table(result, laws))
    path = path or options.RESULTS / f"soak-{now:%Y%m%dT%H%M%SZ}.json"
    report.write(result, path)
    drawn = chart.draw_curve(soak_report.curve(result))
    path.with_suffix(".svg").write_text(drawn, encoding="utf-8")
    click.echo(f"{path}, and its chart beside it")
    broken = [law.name for law in laws if law.kept is False]
    if broken:
        raise click.ClickException(f"broken: {'; '.join(broken)}")


def run(
    command: str,
    load: Load,
    patience: Patience,
    seconds: float,
    *,
    seed: int,
    show: Callable[[Progress, list[Reading]], None],
) -> tuple[Progress, list[Reading], End]:
    """Soak the gateway of `command`. Raises `Failed`, with the end of what it printed."""
    with ExitStack() as stack:
        folder = stack.enter_context(processes.temporary_folder())
        log = stack.enter_context((folder / "log").open("w+b"))
        none = frozenset[int]()
        try:
            upstream = stack.enter_context(running(module("soak_upstream"), log, none, ours=True))
            config, port = folder / "soak.toml", free_port()
            text = configuration(load, patience, port, announced_port(upstream))
            config.write_text(text, encoding="utf-8")
            filled = shlex.split(command.format(config=config, port=port))
            gateway = stack.enter_context(running(filled, log, none))
            wait_for_port(gateway, port)
            in_flight(port)  # whatever it opens at its first request
            time.sleep(0.5)
            before = descriptors(gateway.pid), descriptors(upstream.pid)
            order = msgspec.json.encode(Order(port, load, patience, seconds, seed)).decode()
            clients = stack.enter_context(running(module("soak_load", order), log, none, ours=True))
            last, readings = watch(clients, gateway, seconds, show, full=lambda: full(port, load))
            end = rest(gateway, upstream, port, before)
            end = stop(gateway, end)
            return last, readings, msgspec.structs.replace(end, bugs=bugs_in(log))
        except Failed as failed:
            raise Failed(f"{failed}: {processes.end_of(log)}".rstrip(": ")) from None


def watch(
    clients: subprocess.Popen[bytes],
    gateway: subprocess.Popen[bytes],
    seconds: float,
    show: Callable[[Progress, list[Reading]], None],
    *,
    full: Callable[[], bool],
) -> tuple[Progress, list[Reading]]:
    """Follow the clients to their end; read the gateway's memory each time they tell something.

    `full`: whether a reading in a lull is one to compare.
    """
    assert clients.stdout is not None  # noqa: S101 - `running(ours=True)` made the pipe
    readings: list[Reading] = []
    deadline = time.monotonic() + seconds + GRACE + SILENCE
    while time.monotonic() < deadline:
        ready, _, _ = select.select([clients.stdout], [], [], SILENCE)
        line = clients.stdout.readline() if ready else b""
        if not line:
            raise Failed("the clients of the soak have stopped")
        progress = msgspec.json.decode(line, type=Progress)
        if gateway.poll() is not None:
            raise Failed(f"the gateway ended with status {gateway.returncode}")
        lull = progress.lull if progress.lull and full() else 0
        readings.append(Reading(progress.at, resident(gateway.pid), lull))
        show(progress, readings)
        if progress.over:
            return progress, readings
    raise Failed("the clients of the soak did not end")


def rest(
    gateway: subprocess.Popen[bytes],
    upstream: subprocess.Popen[bytes],
    port: int,
    before: tuple[int, int],
) -> End:
    """Wait until everything is given back, or until it should have been."""
    deadline = time.monotonic() + REST
    while True:
        end = End(
            gateway_descriptors=descriptors(gateway.pid) - before[0],
            upstream_connections=descriptors(upstream.pid) - before[1],
            resident=resident(gateway.pid),
            in_flight=in_flight(port),  # last: to ask takes a connection, which is none of theirs
        )
        if end.clean or time.monotonic() > deadline:
            return end
        time.sleep(0.2)


def stop(gateway: subprocess.Popen[bytes], end: End) -> End:
    """End the gateway as an operator does; nothing is at work, so it should not take long."""
    gateway.terminate()
    try:
        status = gateway.wait(processes.STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        return end
    return msgspec.structs.replace(end, status=status)


def full(port: int, load: Load) -> bool:
    """Whether the gateway has the streams of all who read. One that lags far does not answer."""
    try:
        return in_flight(port, patience=LAG) >= FULL * (load.streams + load.quick)
    except Failed:
        return False


def in_flight(port: int, patience: float = SILENCE) -> int:
    """How many requests the gateway says are at work. Raises `Failed`."""
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with build_opener(ProxyHandler({})).open(url, timeout=patience) as answer:
            lines = answer.read().splitlines()
    except OSError as error:
        raise Failed(f"the gateway does not tell its metrics: {error}") from None
    return int(float(next(line for line in lines if line.startswith(IN_FLIGHT)).split()[1]))


def bugs_in(log: IO[bytes]) -> int:
    """How many lines of the gateway's log tell of a bug."""
    log.flush()
    log.seek(0)
    return sum(b'"bug"' in line or b"Traceback" in line for line in log)


def configuration(load: Load, patience: Patience, port: int, upstream_port: int) -> str:
    """The gateway's configuration file."""
    lanes = len(load.lanes())
    lines = [
        "[server]",
        'host = "127.0.0.1"',
        f"port = {port}",
        "[limits]",
        f"write_timeout = {patience.write_timeout}",
        f"max_streams = {lanes + SPARE}",
        f"max_connections = {2 * lanes + SPARE}",
        # A memory that is bounded is no growth: it is full before the warm-up is over.
        f"max_recall_bytes = {RECALL}",
    ]
    apis = {"chat": "openai-completions", "responses": "openai-responses"}
    for name, model in MODELS.items():
        lines += [
            f"[providers.{name}]",
            f'api = "{apis[name]}"',
            f'base_url = "http://127.0.0.1:{upstream_port}/v1"',
            'api_key = "soak"',
            "[[models]]",
            f'id = "{model}"',
            f'provider = "{name}"',
        ]
    return "\n".join([*lines, ""])
