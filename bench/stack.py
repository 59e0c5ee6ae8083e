"""What stands between upstream and client in one round: the floor, and the gateway if there is one.

The law of this file: all processes of a round are fresh, and gone after it. The gateway is a
command that anybody could type; it learns of the upstream from its configuration file only.
"""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Generator, Iterable
from contextlib import ExitStack, contextmanager
from typing import IO

import msgspec

from .load import GRACE, Order, Result
from .plan import Plan, Scenario, Timing
from .processes import (
    Cores,
    Failed,
    announced_port,
    end_of,
    free_port,
    module,
    running,
    temporary_folder,
    wait_for_port,
)


MARGIN = 20.0
"""Seconds that a load process may take beyond its own clocks: to start, and to connect."""


class Subject(msgspec.Struct, frozen=True):
    """Something to measure."""

    pid: int
    port: int


class Stack:
    """The processes of one round."""

    def __init__(
        self,
        upstream: Subject,
        floor: Subject,
        gateway: Subject | None,
        cores: Cores,
        log: IO[bytes],
    ) -> None:
        self._upstream = upstream
        self._floor = floor
        self._gateway = gateway
        self._cores = cores
        self._log = log

    def run_floor(self, scenario: Scenario, timing: Timing) -> Result:
        """Measure the floor under this load. Raises `Failed`.

        A pump does not translate: its client speaks the upstream's API.
        """
        same = msgspec.structs.replace(scenario, client=scenario.plan.api)
        return self._run(self._floor, same, timing)

    def run_gateway(self, scenario: Scenario, timing: Timing) -> Result | None:
        """Measure the gateway, if there is one. Raises `Failed`."""
        return self._run(self._gateway, scenario, timing) if self._gateway else None

    def _run(self, subject: Subject, scenario: Scenario, timing: Timing) -> Result:
        order = Order(subject.port, scenario, timing, subject.pid, (self._upstream.pid,))
        command = module("load", msgspec.json.encode(order).decode())
        limit = timing.warm_up + timing.seconds + GRACE + MARGIN
        with running(command, self._log, self._cores.generator, ours=True) as process:
            try:
                output, _ = process.communicate(timeout=limit)
            except subprocess.TimeoutExpired:
                raise Failed(f"{scenario.name}: the load generator did not end") from None
        if process.returncode:
            raise Failed(f"{scenario.name}: the load generator failed")
        return msgspec.json.decode(output, type=Result)


@contextmanager
def standing(plans: Iterable[Plan], command: str | None, cores: Cores) -> Generator[Stack]:
    """Start upstream, floor and gateway (`command`); end them on the way out.

    Raises `Failed`, with the end of what the processes printed.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(temporary_folder())
        log = stack.enter_context((folder / "log").open("w+b"))
        try:
            upstream = stack.enter_context(
                running(module("upstream"), log, cores.generator, ours=True)
            )
            upstream_port = announced_port(upstream)
            pump = module("passthrough", str(upstream_port))
            floor = stack.enter_context(running(pump, log, cores.subject, ours=True))
            floor_port = announced_port(floor)
            gateway: Subject | None = None
            if command is not None:
                port = free_port()
                config = folder / "bench.toml"
                config.write_text(configuration(plans, port, upstream_port), encoding="utf-8")
                filled = command.format(config=config, port=port, upstream=upstream_port)
                process = stack.enter_context(running(shlex.split(filled), log, cores.subject))
                wait_for_port(process, port)
                gateway = Subject(process.pid, port)
            yield Stack(
                Subject(upstream.pid, upstream_port),
                Subject(floor.pid, floor_port),
                gateway,
                cores,
                log,
            )
        except Failed as failed:
            raise Failed(f"{failed}\n{end_of(log)}".rstrip()) from None


def configuration(plans: Iterable[Plan], port: int, upstream_port: int) -> str:
    """The gateway's configuration file: both APIs of the upstream, and a model for every plan."""
    apis = {"chat": "openai-completions", "responses": "openai-responses"}
    lines = ["[server]", 'host = "127.0.0.1"', f"port = {port}"]
    for name, api in apis.items():
        url = f"http://127.0.0.1:{upstream_port}/v1"
        lines += [
            f"[providers.{name}]",
            f'api = "{api}"',
            f'base_url = "{url}"',
            'api_key = "bench"',
        ]
    for plan in plans:
        lines += ["[[models]]", f'id = "{plan.model}"', f'provider = "{plan.api}"']
    return "\n".join([*lines, ""])
