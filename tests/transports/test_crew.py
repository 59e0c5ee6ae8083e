"""The parent of workers by itself: who gets a connection, who is replaced when, and bad starts.

Its workers are shell scripts that say on their line (their standard input) what a worker says.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import trio.testing
from click.testing import CliRunner, Result

from nursling.transports import cli, logs, workers
from nursling.transports.config import config_from_dict
from nursling.transports.line import CONNECTION, NOW, STOP, Line
from nursling.transports.orders import Options, Orders, fixed_of
from nursling.transports.workers import Crew, State, Worker


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    logs.configure(file=out)
    yield out
    structlog.reset_defaults()


def lines_of(log: io.StringIO, event: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, log.getvalue().splitlines()) if line["event"] == event]


def orders(number: int) -> Orders:
    config = config_from_dict({}, environ={})
    return Orders(
        worker=number,
        workers=1,
        path=None,
        options=Options(),
        fixed=fixed_of(config),
        log_level="info",
    )


# Connections.


class Hands:
    """A crew whose workers are lines that the test holds the other ends of."""

    def __init__(self, stack: ExitStack, *states: State) -> None:
        self.crew = Crew(orders, len(states), trio.Event(), trio.Event())
        self.ends: list[Line] = []
        nobody = subprocess.Popen(["true"])
        nobody.wait()
        for number, state in enumerate(states):
            ours, theirs = socket.socketpair()
            worker = Worker(number, nobody, stack.enter_context(Line(ours)))
            worker.state = state
            self.crew._crew[number] = worker
            self.ends.append(stack.enter_context(Line(theirs)))

    async def give(self) -> None:
        await self.crew._hand(trio.socket.socket())

    @property
    def had(self) -> list[int]:
        return [self.crew._crew[number].connections for number in range(len(self.ends))]

    def close(self) -> None:
        for worker in self.crew._crew.values():
            while worker.underway:
                worker.underway.popleft().close()


async def test_a_connection_goes_to_who_has_the_fewest() -> None:
    """Level first, then in turns; who starts or leaves gets none, who drains only if all do."""
    ready = State.READY
    with ExitStack() as stack, trio.fail_after(10):
        hands = Hands(stack, ready, ready, ready, State.STARTING, State.DRAINING, State.LEAVING)
        hands.crew._crew[1].connections = 2
        for _ in range(6):
            await hands.give()
        assert sorted(hands.had[:3]) == [2, 3, 3]
        assert hands.had[3:] == [0, 0, 0]
        for number in range(3):
            hands.crew._crew[number].state = State.LEAVING
        await hands.give()
        assert hands.had[3:] == [0, 1, 0]
        message, came = await hands.ends[4].receive()
        assert message == CONNECTION
        for descriptor in came:
            os.close(descriptor)
        hands.close()


async def test_a_worker_that_hangs_does_not_hold_up_the_others() -> None:
    """With its line full the connection goes to the next; with all full, to who has room first."""
    with ExitStack() as stack, trio.fail_after(20):
        hands = Hands(stack, State.READY, State.READY)
        hangs = hands.crew._crew[0]
        while hangs.line.send_now(CONNECTION, [0]):
            pass
        hands.crew._crew[1].connections = 5
        await hands.give()
        assert hands.had == [0, 6]
        while hands.crew._crew[1].line.send_now(CONNECTION, [0]):
            pass
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hands.give)
            await trio.testing.wait_all_tasks_blocked()
            assert hands.had == [0, 6]
            while hands.had == [0, 6]:
                _, came = await hands.ends[0].receive()
                os.close(came[0])
        assert hands.had == [1, 6]
        hands.close()


async def test_what_a_worker_did_not_take_goes_to_another() -> None:
    """Who ends, or leaves, leaves its connections behind; who gives to it notices and goes on."""
    with ExitStack() as stack, trio.fail_after(10):
        hands = Hands(stack, State.READY, State.READY)
        first, second = hands.crew._crew.values()
        await hands.give()
        await hands.give()
        assert hands.had == [1, 1]
        async with trio.open_nursery() as hands.crew._nursery:
            hands.crew._give_others(first)
        assert hands.had == [0, 2]
        assert [len(worker.underway) for worker in (first, second)] == [0, 2]
        first.state = State.READY
        hands.ends[0].close()
        await hands.give()  # it has died, and nobody has said so yet
        assert hands.had == [0, 3]
        assert first.state is State.LEAVING
        hands.close()


# Processes.


async def run(
    script: str,
    monkeypatch: pytest.MonkeyPatch,
    until: Any = None,
    *,
    drain_timeout: float = 0.2,
    now: bool = False,
    on_ready: Callable[[], object] = lambda: None,
) -> tuple[str | None, bool]:
    """Run a crew of one such script until something is so, or it is ready.

    Returns why it failed, and whether it was ready.
    """
    monkeypatch.setattr(workers, "COMMAND", ("sh", "-c", script))
    stop, at_once = trio.Event(), trio.Event()
    began: list[bool] = []
    failures: list[str | None] = []
    with trio.fail_after(30):
        async with trio.open_nursery() as nursery:

            def begin() -> None:
                began.append(True)
                on_ready()

            async def serve() -> None:
                crew = Crew(orders, 1, stop, at_once)
                failures.append(await crew.run([], drain_timeout=drain_timeout, on_ready=begin))
                nursery.cancel_scope.cancel()

            nursery.start_soon(serve)
            until = until or (lambda: began)
            while not until():  # noqa: ASYNC110 - a line of a log has no event
                await trio.sleep(0.01)
            stop.set()
            if now:
                at_once.set()
    return failures[0], bool(began)


async def test_a_worker_that_dies_again_and_again_is_replaced_ever_later(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each pause is twice the one before, up to the longest; and a stop ends a pause."""
    monkeypatch.setattr(workers, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(workers, "LONGEST_PAUSE", 1.0)

    def last() -> bool:
        return bool(lines_of(log, "worker ended")) and ended()[-1]["again_in"] >= 0.16

    def ended() -> list[dict[str, Any]]:
        return lines_of(log, "worker ended")

    began = tmp_path / "began"
    script = f"read orders; printf r >&0; until [ -e {began} ]; do sleep 0.01; done; exit 7"
    failure, ready = await run(script, monkeypatch, last, on_ready=began.touch)
    assert (failure, ready) == (None, True)
    assert [line["again_in"] for line in ended()] == [0.01, 0.02, 0.04, 0.08, 0.16]
    assert {line["status"] for line in ended()} == {7}
    assert {line["why"] for line in ended()} == {"worker 0 ended with status 7"}


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 3", "worker 0 ended with status 3 before it was ready"),
        ("printf 'fthe file is bad: x' >&0; exit 2", "the file is bad: x"),
        ("kill -9 $$", "worker 0 ended with status -9 before it was ready"),
    ],
)
async def test_a_first_worker_that_does_not_start_ends_everything(
    script: str, why: str, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no second try: the reason is told."""
    failure, ready = await run(f"read orders; {script}", monkeypatch, lambda: False)
    assert (failure, ready) == (why, False)
    assert log.getvalue() == ""


async def test_first_workers_have_a_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that never says that it is ready is killed, and all is over."""
    monkeypatch.setattr(workers, "START_TIMEOUT", 0.2)
    failure, ready = await run("exec sleep 60", monkeypatch, lambda: False)
    assert (failure, ready) == ("the workers did not start within 0 s", False)


async def test_a_worker_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """No memory for a process, for one, is told like the rest."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    failure, _ = await run("", monkeypatch, lambda: False)
    assert failure == "worker 0: Cannot allocate memory"


@pytest.mark.parametrize("now", [False, True])
async def test_who_does_not_end_is_killed(
    now: bool, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that hears nothing has the clocks of the drain, and some time, and is killed."""
    monkeypatch.setattr(workers, "END_TIMEOUT", 0.2)
    script = "read orders; printf r >&0; exec sleep 60"
    failure, ready = await run(script, monkeypatch, now=now)
    assert (failure, ready) == (None, True)


async def test_a_stop_while_they_start(log: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for workers that are not ready; that is no failure."""
    failure, ready = await run("exec sleep 60", monkeypatch, lambda: True)
    assert (failure, ready) == (None, False)


async def test_orders_arrive(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker is told who it is, then STOP, then NOW; SIGINT and SIGTERM wait at its start."""
    heard, mask = tmp_path / "heard", tmp_path / "mask"
    program = (
        "import os, signal, socket\n"
        f"open({str(mask)!r}, 'w').write(' '.join(sorted(signal.Signals(s).name for s in "
        "signal.pthread_sigmask(signal.SIG_BLOCK, []))))\n"
        "line = socket.socket(fileno=0)\n"
        "line.recv(65536); line.send(b'r')\n"
        f"open({str(heard)!r}, 'wb').write(line.recv(1) + line.recv(1))\n"
    )
    monkeypatch.setenv("PROGRAM", program)
    script = f'exec {sys.executable} -c "$PROGRAM"'
    await run(script, monkeypatch, now=True)
    assert heard.read_bytes() == STOP + NOW
    assert {"SIGINT", "SIGTERM"} <= {*mask.read_text().split()}
    assert not {signal.SIGINT, signal.SIGTERM} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


# The command.


def serve(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, ["serve", "--workers", "2", *arguments])


@pytest.fixture
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    yield
    structlog.reset_defaults()


def test_a_busy_port_is_one_line(empty_place: None) -> None:
    """The parent binds before it starts anybody: one line, exit code 2."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = serve("--port", str(port))
    assert result.exit_code == 2
    assert result.stderr == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_a_worker_that_fails_is_one_line(
    empty_place: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that fail for the same reason are one line, and exit code 2."""
    script = "read orders; printf 'fn.toml:1: no' >&0; exit 2"
    monkeypatch.setattr(workers, "COMMAND", ("sh", "-c", script))
    result = serve("--port", "0")
    assert (result.exit_code, result.stderr) == (2, "Error: n.toml:1: no\n")


def test_an_entry_that_leads_nowhere_is_one_line(empty_place: None) -> None:
    """The catalogue is looked at before anybody is started."""
    Path("nursling.toml").write_text('[[models]]\nid = "m"\nprovider = "gone"\n')
    result = serve()
    assert result.exit_code == 2
    assert result.stderr == ("Error: nursling.toml:3: the model 'm': no provider is named 'gone'\n")


def test_a_worker_is_nothing_to_start_by_hand() -> None:
    """Without a parent it says so, and is gone."""
    done = subprocess.run(
        [sys.executable, "-m", "nursling.transports.worker"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stderr == "this program is for `nursling serve --workers` to start\n"
