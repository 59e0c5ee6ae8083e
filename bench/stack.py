"""What stands between upstream and client in one round: the floor, and the gateways.

The law of this file: all processes of a round are fresh, and gone after it. What is measured has
a name: that of a gateway, `floor` (the byte pump), or `direct` (nothing in between: what is
measured is the upstream itself).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import IO

import msgspec

from . import hold
from .gateways import Gateway, write_files
from .load import Order, Result, grace
from .measure import descriptors
from .plan import Plan, Scenario, Timing
from .processes import (
    Cores,
    Failed,
    announced,
    announced_port,
    end_of,
    free_port,
    module,
    raise_descriptors,
    running,
    temporary_folder,
    wait_for_port,
)


MARGIN = 20.0
"""Seconds that a load process may take beyond its own clocks: to start, and to connect."""
SETTLE = 15.0
"""Seconds until a gateway must have let go of streams that their clients have left."""
SPARE = 8
"""Descriptors that a gateway may keep of them: unused connections to the upstream."""

BASELINES = ("direct", "floor")


class Subject(msgspec.Struct, frozen=True):
    """A process to measure."""

    pid: int
    port: int


class Stack:
    """The processes of one round."""

    def __init__(self, subjects: dict[str, Subject], cores: Cores, log: IO[bytes]) -> None:
        self.subjects = subjects
        self._cores = cores
        self._log = log

    def run(self, name: str, scenario: Scenario, timing: Timing) -> Result:
        """Measure one subject under this load. Raises `Failed`."""
        subject = self.subjects[name]
        load = self._of(name, scenario)
        order = Order(subject.port, load, timing, subject.pid, (self.subjects["direct"].pid,))
        command = module("load", msgspec.json.encode(order).decode())
        limit = scenario.patience + timing.warm_up + timing.seconds + grace(scenario.plan)
        with running(command, self._log, self._cores.generator, ours=True) as process:
            try:
                output, _ = process.communicate(timeout=limit + MARGIN)
            except subprocess.TimeoutExpired:
                raise Failed(f"{scenario.name}, {name}: the load generator did not end") from None
        if process.returncode:
            raise Failed(f"{scenario.name}, {name}: the load generator failed")
        return msgspec.json.decode(output, type=Result)

    @contextmanager
    def holding(self, name: str, scenario: Scenario) -> Generator[None]:
        """Keep the streams of a scenario open through one subject; none without streams.

        Raises `Failed`, also if not all of them are open any more at the end. Behind it the subject
        has let go of them.
        """
        if not scenario.streams:
            yield
            return
        subject = self.subjects[name]
        before = descriptors(subject.pid)
        order = hold.Order(subject.port, self._of(name, scenario))
        command = module("hold", msgspec.json.encode(order).decode())
        with running(command, self._log, self._cores.generator, ours=True) as process:
            said = announced(process, scenario.patience + MARGIN)
            if "open" not in said:
                raise Failed(f"{name}, {scenario.streams} streams: {said.get('fault', 'no word')}")
            yield
            if process.poll() is not None:
                raise Failed(f"{name}: not all of {scenario.streams} streams stayed open")
        deadline = time.monotonic() + SETTLE
        while descriptors(subject.pid) > before + SPARE:
            if time.monotonic() > deadline:
                raise Failed(
                    f"{name} keeps connections of {scenario.streams} streams that are over"
                )
            time.sleep(0.1)

    def _of(self, name: str, scenario: Scenario) -> Scenario:
        """The baselines do not translate: their client speaks the upstream's API."""
        if name not in BASELINES:
            return scenario
        return msgspec.structs.replace(scenario, client=scenario.plan.api)


@contextmanager
def standing(
    scenarios: Iterable[Scenario], gateways: Iterable[Gateway], cores: Cores
) -> Generator[Stack]:
    """Start upstream, floor and gateways; end them on the way out.

    Raises `Failed`, with the last words of a process that has ended.
    """
    scenarios = list(scenarios)
    plans: list[Plan] = [one.plan for one in scenarios]
    raise_descriptors(3 * max(one.streams for one in scenarios) + 100)
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        log = stack.enter_context((folder / "log").open("w+b"))
        started: list[subprocess.Popen[bytes]] = []
        try:
            upstream = stack.enter_context(
                running(module("upstream"), log, cores.generator, ours=True)
            )
            started.append(upstream)
            upstream_port = announced_port(upstream)
            pump = module("passthrough", str(upstream_port))
            floor = stack.enter_context(running(pump, log, cores.subject, ours=True))
            started.append(floor)
            subjects = {
                "direct": Subject(upstream.pid, upstream_port),
                "floor": Subject(floor.pid, announced_port(floor)),
            }
            for gateway in gateways:
                port = free_port()
                places = write_files(plans, port, upstream_port, folder)
                try:
                    command = gateway.arguments(places)
                except ValueError as error:
                    raise Failed(str(error)) from None
                process = stack.enter_context(
                    running(command, log, cores.subject, environ=gateway.environ)
                )
                started.append(process)
                wait_for_port(process, port, gateway.name, gateway.patience)
                subjects[gateway.name] = Subject(process.pid, port)
            yield Stack(subjects, cores, log)
        except Failed as failed:
            # What a process says that goes on working need not be about this.
            ended = any(process.poll() is not None for process in started)
            last = end_of(log) if ended else ""
            raise Failed(f"{failed}: {last}" if last else str(failed)) from None
