"""Child processes: started pinned, bounded in every wait, and never left behind.

The law of this file: whoever starts a process ends it, by leaving a `with` block; our own children
also end when their standard input does, so that not even a killed parent leaves any. Nothing
speaks to anything but 127.0.0.1, so children get no proxy settings.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec


ROOT = Path(__file__).resolve().parent.parent
"""Where `bench` is importable."""

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0


class Failed(Exception):
    """A process did not do its part; the message says which one and what it printed."""


class Cores(msgspec.Struct, frozen=True):
    """Which CPU cores are whose; empty = wherever the kernel likes."""

    subject: frozenset[int] = frozenset()
    """The gateway's, and in its turn the floor's."""
    generator: frozenset[int] = frozenset()
    """Everything else's."""


def choose_cores(available: Sequence[int], *, pinned: bool = True) -> Cores:
    """One core for what is measured and another for the rest, if there are two."""
    if not pinned or len(available) < 2:
        return Cores()
    first, second, *_ = sorted(available)
    return Cores(frozenset({first}), frozenset({second}))


def available_cores() -> list[int]:
    """The cores that we may use; none where the system cannot pin."""
    return sorted(os.sched_getaffinity(0)) if sys.platform == "linux" else []


@contextmanager
def running(
    command: Sequence[str], log: IO[bytes], cores: frozenset[int], *, ours: bool = False
) -> Generator[subprocess.Popen[bytes]]:
    """Run a command; end it on the way out. `ours`: a module of bench, which prints to us.

    Standard error goes to `log`, and so does the output of a foreign command.
    """
    environ = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    if ours:
        places = [str(ROOT), environ.get("PYTHONPATH", "")]
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if ours else subprocess.DEVNULL,
            stdout=subprocess.PIPE if ours else log,
            stderr=log,
            env=environ,
        )
    except OSError as error:
        raise Failed(f"cannot start {command[0]}: {error.strerror}") from None
    with process:
        try:
            pin(process.pid, cores)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()


def pin(pid: int, cores: frozenset[int]) -> None:
    """Keep a process, and the children it will have, on these cores; none = leave it."""
    if cores and sys.platform == "linux":
        os.sched_setaffinity(pid, cores)


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs a module of bench."""
    return [sys.executable, "-m", f"bench.{name}", *arguments]


def announce(port: int) -> None:
    """Tell the parent where we listen."""
    sys.stdout.write(json.dumps({"port": port}) + "\n")
    sys.stdout.flush()


def announced_port(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child's `announce`. Raises `Failed`."""
    assert process.stdout is not None  # noqa: S101 - `running(ours=True)` made the pipe
    ready, _, _ = select.select([process.stdout], [], [], START_TIMEOUT)
    line = process.stdout.readline() if ready else b""
    try:
        return int(json.loads(line)["port"])
    except (ValueError, LookupError, TypeError):
        raise Failed("a process of the benchmark did not start") from None


@contextmanager
def temporary_folder() -> Generator[Path]:
    """A place for configuration and logs, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def end_of(log: IO[bytes]) -> str:
    """The last words of the processes, for whoever is told that they failed."""
    log.flush()
    log.seek(0)
    return log.read()[-4000:].decode("utf-8", "replace")


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a foreign process listens. Raises `Failed`."""
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline:
        if (status := process.poll()) is not None:
            raise Failed(f"the gateway ended with status {status} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Failed(f"nothing listens on port {port}")
