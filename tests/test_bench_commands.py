"""The commands of the benchmark do their work, on a small scale, and leave nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from bench import hold, latency, load, memory, peers
from bench.compare import Row
from bench.decode import Decode
from bench.gateways import Gateway, litellm, nursling
from bench.plan import Plan, Scenario, Timing, paced
from bench.processes import (
    ROOT,
    Failed,
    announced,
    announced_port,
    free_port,
    module,
    running,
    wait_for_port,
)
from bench.report import Report
from support.svg import parsed


T = TypeVar("T")

measured = pytest.mark.skipif(sys.platform != "linux", reason="CPU time is read from /proc")


def bench(command: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "bench", command, *arguments]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False)


def report_of(kind: type[T], path: Path, *arguments: str) -> T:
    """Run a command; its report, once its chart has been looked at."""
    done = bench(*arguments, f"--json={path}")
    assert done.returncode == 0, done.stdout + done.stderr
    parsed(path.with_suffix(".svg").read_text())
    return msgspec.json.decode(path.read_bytes(), type=kind)


@pytest.mark.slow
@measured
def test_throughput_of_floor_and_gateway(tmp_path: Path) -> None:
    """The real gateway is measured on every route; all streams arrive whole."""
    rows = report_of(
        Report[Row],
        tmp_path / "result.json",
        *("throughput", "--repeat=1", "--seconds=0.5", "--events=64", "--only=*-saturated"),
    ).rows
    assert len(rows) == 7
    for row in rows:
        assert row.faults == {}
        ours, floor = row.figures["nursling"], row.figures["floor"]
        assert ours.ratio is not None
        assert 0 < floor.cost.median < ours.cost.median
        assert row.rounds[0]["floor"].streams >= row.scenario.streams


@pytest.mark.slow
@measured
def test_latency_of_a_request(tmp_path: Path) -> None:
    """Each question has its figures: what the gateway adds is more than nothing."""
    [found] = report_of(
        Report[latency.Latency],
        tmp_path / "result.json",
        *("latency", "--repeat=1", "--seconds=0.5", "--beside=0,20"),
    ).rows
    lines = {line.name: line for line in found.lines}
    assert lines["first token, p50"].told.median > 0
    assert lines["event, p50"].direct is not None
    assert lines["whole reply, CPU"].told.median > 1
    assert lines["beside 20"].gateway.median > 0
    assert not any(row.faults for row in found.rows)


@pytest.mark.slow
@measured
def test_memory_of_open_streams(tmp_path: Path) -> None:
    """The gateway needs memory at rest, and some for each stream."""
    rows = report_of(
        Report[memory.Row],
        tmp_path / "result.json",
        *("memory", "--repeat=1", "--seconds=0.5", "--streams=400"),
    ).rows
    assert [row.name for row in rows] == ["nursling", "floor"]
    assert rows[0].idle.median > rows[1].idle.median > 1
    assert rows[0].each.median > rows[1].each.median > 0


@pytest.mark.slow
@measured
def test_peers_beside_each_other(tmp_path: Path) -> None:
    """Another gateway's command is measured in the same rounds: here the byte pump itself."""
    pump = f"{sys.executable} -c 'import time; time.sleep(60)'"
    done = bench("peers", "--repeat=1", f"--gateway=mine={pump} {{nonsense}}")
    assert done.returncode == 1
    assert "mine: 'nonsense' in the command; it may have {port}" in done.stderr
    script = tmp_path / "relay.py"
    script.write_text(RELAY)
    rows = report_of(
        Report[Row],
        tmp_path / "result.json",
        *("peers", "--repeat=1", "--seconds=0.5", "--only=bursts", "--only=whole"),
        f"--gateway=mine={sys.executable} {script} {{port}} {{upstream}}",
    ).rows
    for row in rows:
        assert row.faults == {}
        assert {"floor", "nursling", "mine"} <= set(row.figures)
        assert row.figures["mine"].cost.median > 0


RELAY = """
import asyncio, sys

async def pump(source, target):
    while data := await source.read(65536):
        target.write(data)
        await target.drain()
    target.close()

async def join(reader, writer):
    up = await asyncio.open_connection("127.0.0.1", int(sys.argv[2]))
    await asyncio.gather(pump(reader, up[1]), pump(up[0], writer), return_exceptions=True)

async def main():
    server = await asyncio.start_server(join, "127.0.0.1", int(sys.argv[1]))
    await server.serve_forever()

asyncio.run(main())
"""


def test_decode_of_one_case(tmp_path: Path) -> None:
    """One case and one guard are measured in this process; a wrong name is told."""
    [found] = report_of(
        Report[Decode],
        tmp_path / "result.json",
        *("decode", "--repeat=1", "--only=grammar", "--only=pieces"),
    ).rows
    assert [cost.name for cost in found.costs] == ["grammar"]
    assert [held.name for held in found.held] == ["pieces of a text"]
    assert "no case has such a name" in bench("decode", "--only=nothing").stderr


# The processes of a run.


@pytest.fixture
def upstream(tmp_path: Path) -> Generator[tuple[int, int]]:
    """The mock upstream: its process and its port."""
    with (
        (tmp_path / "log").open("w+b") as log,
        running(module("upstream"), log, frozenset(), ours=True) as process,
    ):
        yield process.pid, announced_port(process)


@measured
@pytest.mark.parametrize("whole", [False, True])
def test_load_times_what_it_gets(upstream: tuple[int, int], tmp_path: Path, whole: bool) -> None:
    """Requests, tokens and times of the window are told; a stamped event has its delay."""
    pid, port = upstream
    timing = Timing(seconds=0.2, warm_up=0.1, tail=0.1)
    scenario = paced("", "chat", Plan("chat", 1, pause=10, dress="stamped"), 4, timing)
    if whole:
        scenario = Scenario("", "responses", Plan("responses", 8), 4, whole=True)
    order = msgspec.json.encode(load.Order(port, scenario, timing, pid)).decode()
    with (
        (tmp_path / "load").open("w+b") as log,
        running(module("load", order), log, frozenset(), ours=True) as process,
    ):
        output, _ = process.communicate(timeout=30)
    found = msgspec.json.decode(output, type=load.Result)
    assert found.faults == {}
    assert found.streams >= 4
    assert found.cpu_us > 0
    if whole:
        assert found.requests > 4
        assert found.took is not None
        assert found.took.count == found.requests
    else:
        assert found.tokens > 20
        assert found.delay is not None
        assert 0 < found.delay.p50 <= found.delay.p99 < 1e6


@pytest.mark.parametrize("events", [2, 0])
def test_streams_are_held_open(upstream: tuple[int, int], tmp_path: Path, events: int) -> None:
    """All are open when it is said; one that is refused ends it all, with a word."""
    scenario = Scenario("", "chat", Plan("chat", events, pause=60_000), 5)
    order = msgspec.json.encode(hold.Order(upstream[1], scenario)).decode()
    with (
        (tmp_path / "hold").open("w+b") as log,
        running(module("hold", order), log, frozenset(), ours=True) as process,
    ):
        said = announced(process, 10)
        assert said == ({"open": 5} if events else {"fault": "HTTP/1.1 400 Bad Request"})
        assert (process.poll() is None) or not events


# How it ends.


@pytest.mark.slow
@measured
def test_a_gateway_that_does_not_start_is_told(tmp_path: Path) -> None:
    """The command fails with one line, the gateway's last word in it, and writes no result."""
    path = tmp_path / "result.json"
    gateway = f"{sys.executable} -c 'raise SystemExit(\"no such luck\")'"
    done = bench(
        *("throughput", "--repeat=1", "--only=chat-chat-bursts"),
        *(f"--gateway-command={gateway}", f"--json={path}"),
    )
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert line.startswith("Error: nursling ended with status 1")
    assert line.endswith("no such luck")
    assert not path.exists()


FAMILY = """
import os, signal, socket, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if len(sys.argv) > 2:
    child = subprocess.Popen([sys.executable, __file__, sys.argv[1]])
    with open(sys.argv[1] + ".pids", "w") as file:
        file.write(f"{os.getpid()} {child.pid}")
    listener = socket.create_server(("127.0.0.1", int(sys.argv[2])))
time.sleep(60)
"""
"""A gateway that does not go when it is told to, and neither does its child."""


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


@measured
def test_a_stubborn_gateway_is_ended_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaving the block ends a foreign command and what it has started, willing or not."""
    monkeypatch.setattr("bench.processes.STOP_TIMEOUT", 0.1)
    script, place, port = tmp_path / "family.py", tmp_path / "family", free_port()
    script.write_text(FAMILY)
    command = [sys.executable, str(script), str(place), str(port)]
    with (tmp_path / "log").open("w+b") as log:
        with running(command, log, frozenset()) as process:
            wait_for_port(process, port)
            pids = [int(one) for one in place.with_suffix(".pids").read_text().split()]
            assert all(map(alive, pids))
        deadline = time.monotonic() + 5
        while any(map(alive, pids)) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not any(map(alive, pids))
        with pytest.raises(Failed, match="cannot start"), running(["/nowhere"], log, frozenset()):
            pass


@pytest.mark.slow
@measured
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_leaves_nothing_behind(
    tmp_path: Path, number: signal.Signals
) -> None:
    """Ctrl-C, and the signal to end, end the processes of the run before the command ends."""
    script, place = tmp_path / "family.py", tmp_path / "family"
    script.write_text(FAMILY)
    gateway = f"--gateway-command={sys.executable} {script} {place} {{port}}"
    line = [sys.executable, "-m", "bench", "throughput", "--only=chat-chat-slow", gateway]
    with subprocess.Popen(line, cwd=ROOT, stdout=-3, stderr=-3, start_new_session=True) as process:
        told = place.with_suffix(".pids")
        deadline = time.monotonic() + 30
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        pids = [int(one) for one in told.read_text().split()]
        os.kill(process.pid, number)
        process.wait(30)
    assert not any(map(alive, pids))


# Who is measured.


def test_commands_of_gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command gets its places filled in; LiteLLM is found, or told, or left out."""
    places = {"port": "8000", "config": "/x/bench.toml"}
    assert nursling().arguments(places)[-2:] == ["--config", "/x/bench.toml"]
    with pytest.raises(ValueError, match="mine: 'folder'"):
        Gateway("mine", "run {folder}").arguments(places)
    told = litellm("/venv/bin/litellm")
    assert told is not None
    assert told.arguments({**places, "litellm": "/x/l.yaml"})[:3] == [
        "/venv/bin/litellm",
        "--config",
        "/x/l.yaml",
    ]
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert litellm() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert litellm() is not None


@pytest.mark.parametrize(
    ("given", "fault"),
    [(("mine",), "NAME=COMMAND"), (("floor=x",), "is taken"), (("a=x", "a=y"), "is taken")],
)
def test_names_of_other_gateways(given: tuple[str, ...], fault: str) -> None:
    """Each gateway of the command line has a name of its own, and a command."""
    with pytest.raises(Exception, match=fault):
        peers.named(given)
    assert [one.name for one in peers.named(("a=x", "b=y --z=1"))] == ["a", "b"]
