"""Child processes: started pinned, bounded in every wait, and never left behind.

The law of this file: whoever starts a process ends it, by leaving a `with` block; our own children
also end when their standard input does, so that not even a killed parent leaves any. A foreign
command has a session of its own: the terminal's Ctrl-C reaches us alone, and we end all of it,
with whatever it has started. Nothing speaks to anything but 127.0.0.1, so children get no proxy
settings.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec


ROOT = Path(__file__).resolve().parent.parent
"""Where `bench` is importable."""

START_TIMEOUT = 20.0
STOP_TIMEOUT = 5.0
LAST_WORDS = 500
"""Bytes of a log that are told."""


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
    command: Sequence[str],
    log: IO[bytes],
    cores: frozenset[int],
    *,
    ours: bool = False,
    environ: Mapping[str, str] | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """Run a command; end it on the way out. `ours`: a module of bench, which prints to us.

    Standard error goes to `log`, and so does the output of a foreign command. `environ` is what it
    gets beside our own environment. Raises `Failed` if there is no such command.
    """
    around = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    if ours:
        places = [str(ROOT), around.get("PYTHONPATH", "")]
        around["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if ours else subprocess.DEVNULL,
            stdout=subprocess.PIPE if ours else log,
            stderr=log,
            env=around | dict(environ or {}),
            start_new_session=not ours,
        )
    except OSError as error:
        raise Failed(f"cannot start {command[0]}: {error.strerror}") from None
    with process:
        try:
            pin(process.pid, cores)
            yield process
        finally:
            _end(process, whole_session=not ours)


def _end(process: subprocess.Popen[bytes], *, whole_session: bool) -> None:
    """End a process, or all of the session that it leads: asked first, then not."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT)
    process.kill()
    if whole_session:
        with contextlib.suppress(ProcessLookupError):  # as it should be: nobody is left of it
            os.killpg(process.pid, signal.SIGKILL)


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


def announced(process: subprocess.Popen[bytes], patience: float = START_TIMEOUT) -> dict[str, Any]:
    """Wait for the one line of a child of ours. Raises `Failed`."""
    assert process.stdout is not None  # noqa: S101 - `running(ours=True)` made the pipe
    ready, _, _ = select.select([process.stdout], [], [], patience)
    line = process.stdout.readline() if ready else b""
    try:
        return dict(json.loads(line))
    except (ValueError, TypeError):
        raise Failed("a process of the benchmark said nothing") from None


def announced_port(process: subprocess.Popen[bytes]) -> int:
    """Wait for a child's `announce`. Raises `Failed`."""
    port = announced(process).get("port")
    if not isinstance(port, int):
        raise Failed("a process of the benchmark did not start")
    return port


def raise_descriptors(needed: int) -> None:
    """Have so many descriptors in every process that we start. Raises `Failed`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise Failed(
            f"{needed} descriptors are needed in a process, and {hard} allowed (ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def temporary_folder() -> Generator[Path]:
    """A place for configuration and logs, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        yield Path(name)


def end_of(log: IO[bytes]) -> str:
    """The last line that the processes printed, for whoever is told that they failed."""
    log.flush()
    log.seek(0)
    lines = log.read()[-LAST_WORDS:].decode("utf-8", "replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def free_port() -> int:
    """A port that nobody listens on at this moment."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for_port(
    process: subprocess.Popen[bytes],
    port: int,
    name: str = "the gateway",
    patience: float = START_TIMEOUT,
) -> None:
    """Wait until a foreign process listens. Raises `Failed`."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if (status := process.poll()) is not None:
            raise Failed(f"{name} ended with status {status} before it listened")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise Failed(f"{name} does not listen on its port after {patience:.0f} s")
