"""The parent of the workers: it listens, and hands each connection to the least busy of them.

The law of this file: each worker has the same share of the connections, give or take one. The parts
of `max_streams` that the workers have (`orders.py`) add up to the whole only if that is so, and a
long stream stays where it was put. Four workers, 200 long streams, by who accepts:

* all from one socket:            28 57 65 50, at worst 64 1 64 71 (the kernel wakes whom it likes)
* each from its own (SO_REUSEPORT): 43 57 48 52, at worst 50 56 57 37 (a hash is a lottery)
* the parent, for all:            50 50 50 50, always

Handing over costs a connection some 50 µs, and its bytes nothing: they never come here. More than
evenness is won: a connection is ours too until the worker says that it has it, so none is lost
with a worker that dies first; one that hangs is given no more than its share; and it works alike on
every POSIX system. The price is that the parent must live. If it dies, the workers know at once,
and drain.

A worker that ends is replaced, later each time that its like does not live long. One that cannot
start ends everything if it is among the first, for the reason is in the configuration; later it is
logged and tried again, while the others serve. `SIGTERM` and `SIGINT` mean what they mean to a
single process: the first drains, the second ends at once. Till the last worker is through,
connections are taken, so that `/readyz` can say 503.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, suppress
from enum import Enum, auto

import msgspec
import structlog
import trio

from .config import Config, ConfigError
from .engine import open_engine
from .gateway import bind, heed_signals, urls_of
from .line import (
    ASK,
    CLOSED,
    CONNECTION,
    DRAINING,
    FAILED,
    LEAVING,
    NOW,
    READY,
    REPORT,
    STOP,
    TAKEN,
    Line,
)
from .orders import Options, Orders, fixed_of


COMMAND = (sys.executable, "-P", "-m", "nursling.transports.worker")
"""`-P`: the working directory is no place to import from, as it is none for the parent."""
START_TIMEOUT = 60.0
"""Seconds for the first workers to be ready. One takes half a second of a processor."""
END_TIMEOUT = 10.0
"""Seconds that a worker has to be gone, beyond all of its own clocks, before it is killed."""
FIRST_PAUSE = 0.1
"""Seconds until a worker is replaced; doubled each time, up to the longest."""
LONGEST_PAUSE = 30.0
"""Seconds. A worker that lived longer than this does not count as a failed try."""
SIGNALS = (signal.SIGTERM, signal.SIGINT)
MANY = 4096
"""Messages of a worker that are read at once."""
OUT_OF_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Accepting fails so while there are no descriptors, or no memory for one (as in Trio's own)."""
BREATH = 0.1
"""Seconds to wait then."""

_log: structlog.stdlib.BoundLogger = structlog.get_logger("nursling")


class State(Enum):
    """Where a worker is in its life."""

    STARTING = auto()
    READY = auto()
    DRAINING = auto()
    """It takes connections, and refuses requests."""
    LEAVING = auto()
    """It takes no connections."""


class Worker:
    """One process, seen from its parent."""

    def __init__(self, number: int, process: subprocess.Popen[bytes], line: Line) -> None:
        self.number = number
        self.process = process
        self.line = line
        self.state = State.STARTING
        self.connections = 0
        """That it has open, with those on their way to it."""
        self.underway: deque[trio.socket.SocketType] = deque()
        """Connections that it was given and has not taken yet; ours too, for so long."""

    async def tell(self, message: bytes) -> None:
        """Give an order, if it still listens."""
        with suppress(OSError):
            await self.line.send(message)

    async def end(self) -> int:
        """Wait for the process's end, and enforce it; return its status (negative: a signal)."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + END_TIMEOUT):
            return await trio.to_thread.run_sync(self.process.wait, abandon_on_cancel=True)
        self.process.kill()
        return self.process.wait()


class Crew:
    """All workers of a gateway."""

    def __init__(
        self, orders: Callable[[int], Orders], workers: int, stop: trio.Event, now: trio.Event
    ) -> None:
        self._orders = orders
        self._count = workers
        self._stop = stop
        self._now = now
        self._crew: dict[int, Worker] = {}
        self._turn = 0
        self._begun = False
        """Whether all of the first workers were ready once."""
        self._failure: str | None = None
        self._changed = trio.lowlevel.ParkingLot()

    async def run(
        self,
        sockets: list[trio.SocketListener],
        *,
        drain_timeout: float,
        on_ready: Callable[[], None],
    ) -> str | None:
        """Serve until all workers have ended after `stop`; return why, if they could not start."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._end, drain_timeout)
            async with trio.open_nursery() as keeping:
                for number in range(self._count):
                    keeping.start_soon(self._keep, number, keeping.cancel_scope)
                with trio.move_on_after(START_TIMEOUT) as clock:
                    await self._until(lambda: self._stop.is_set() or self._all_ready())
                if clock.cancelled_caught:
                    self._failure = f"the workers did not start within {START_TIMEOUT:.0f} s"
                    keeping.cancel_scope.cancel()
                elif not self._stop.is_set():
                    self._begun = True
                    on_ready()
                    for listener in sockets:
                        nursery.start_soon(self._accept, listener)
            nursery.cancel_scope.cancel()
        return self._failure

    # Connections.

    async def _accept(self, listener: trio.SocketListener) -> None:
        """Accept when there is somebody to give a connection to; before, they wait in the queue."""
        while True:
            await self._until(lambda: bool(self._takers()))
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in OUT_OF_ROOM:
                    raise
                _log.warning("cannot accept", why=error.strerror)
                await trio.sleep(BREATH)
            else:
                await self._hand(stream.socket)

    async def _hand(self, connection: trio.socket.SocketType) -> None:
        """Give a connection to the worker that has the fewest; to the next if its line is full."""
        given = False
        try:
            while not given:
                await self._until(lambda: bool(self._takers()))
                takers = self._takers()
                given = any(self._give(worker, connection) for worker in takers)
                if not given and takers == self._takers():  # they all hang
                    await takers[0].line.room()
        finally:
            if not given:
                connection.close()

    def _give(self, worker: Worker, connection: trio.socket.SocketType) -> bool:
        try:
            if not worker.line.send_now(CONNECTION, [connection.fileno()]):
                return False
        except OSError:  # it has just died: `_listen` is about to hear of it
            worker.state = State.LEAVING
            return False
        worker.underway.append(connection)
        worker.connections += 1
        self._turn += 1
        return True

    def _give_others(self, worker: Worker) -> None:
        """Find other takers for what a worker was given, and will not take any more."""
        worker.state = State.LEAVING
        while worker.underway:
            worker.connections -= 1
            self._nursery.start_soon(self._hand, worker.underway.popleft())

    def _takers(self) -> list[Worker]:
        """Say who takes connections, in the order in which to give them one.

        Who drains is asked only if everybody does: its answers are 503.
        """
        crew = self._crew.values()
        takers = [worker for worker in crew if worker.state is State.READY]
        takers = takers or [worker for worker in crew if worker.state is State.DRAINING]

        def rank(worker: Worker) -> tuple[int, int]:
            return worker.connections, (worker.number - self._turn) % self._count

        return sorted(takers, key=rank)

    # Processes.

    async def _keep(self, number: int, everything: trio.CancelScope) -> None:
        """See to it that there is a worker of this number, until we stop."""
        pause = FIRST_PAUSE
        while not self._stop.is_set():
            began = trio.current_time()
            status, why = await self._employ(number)
            if self._stop.is_set():
                return
            if not self._begun:
                self._failure = why
                everything.cancel()
                return
            if trio.current_time() > began + LONGEST_PAUSE:
                pause = FIRST_PAUSE
            say = _log.error if status else _log.info  # 0: somebody sent a SIGTERM to it
            say("worker ended", worker=number, status=status, why=why, again_in=pause)
            with trio.move_on_after(pause):
                await self._stop.wait()
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _employ(self, number: int) -> tuple[int, str]:
        """Have a process from its start to its end; return its status, and why it ended."""
        try:
            process, line = _start(self._orders(number))
        except OSError as error:
            return -1, f"worker {number}: {error.strerror}"
        worker = self._crew[number] = Worker(number, process, line)
        try:
            why = await self._listen(worker)
        except BaseException:
            process.kill()
            raise
        finally:
            started = worker.state is not State.STARTING
            self._give_others(worker)
            line.close()
            status = await worker.end()
            del self._crew[number]
        if not why:
            when = "" if started else " before it was ready"
            why = f"worker {number} ended with status {status}{when}"
        return status, why

    async def _listen(self, worker: Worker) -> str:
        """Take what a worker says until it has ended; return why it cannot start, if it says so."""
        failure = b""
        while True:
            said, sent = await worker.line.receive(MANY)
            if not said:
                return failure.removeprefix(FAILED).decode(errors="replace")
            if failure or said.startswith(FAILED):
                failure += said
                continue
            worker.connections -= said.count(CLOSED)
            for _ in range(said.count(TAKEN)):
                worker.underway.popleft().close()
            if READY in said:
                worker.state = State.READY
                _log.info("worker ready", worker=worker.number, pid=worker.process.pid)
            if DRAINING in said:
                worker.state = State.DRAINING
            if LEAVING in said:
                self._give_others(worker)
            if ASK in said and sent:  # without its descriptor if we have no room for one
                self._ask_others(worker, sent[0])
            self._changed.unpark_all()

    async def _end(self, drain_timeout: float) -> None:
        """Pass on what the signals say. Who has not ended when its clocks have is killed."""
        await self._stop.wait()
        self._changed.unpark_all()
        crew = list(self._crew.values())
        for worker in crew:
            if worker.state is State.STARTING:  # it has no connection, and hears nothing yet
                worker.process.kill()
        async with trio.open_nursery() as nursery:
            for worker in crew:
                nursery.start_soon(worker.tell, STOP)
            with trio.move_on_after(drain_timeout + END_TIMEOUT):
                await self._now.wait()
            for worker in crew:
                nursery.start_soon(worker.tell, NOW)
            await trio.sleep(END_TIMEOUT)
            for worker in crew:
                worker.process.kill()

    def _all_ready(self) -> bool:
        crew = self._crew.values()
        return sum(worker.state is State.READY for worker in crew) == self._count

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            await self._changed.park()

    # Metrics.

    def _ask_others(self, asker: Worker, descriptor: int) -> None:
        """Give one worker pipes that the others write their metrics to."""
        with Line(socket.socket(fileno=descriptor)) as answer, ExitStack() as pipes:
            ends: list[int] = []
            try:
                for worker in self._crew.values():
                    if worker is not asker and worker.state in {State.READY, State.DRAINING}:
                        ours, theirs = os.pipe()
                        pipes.callback(os.close, ours)
                        pipes.callback(os.close, theirs)
                        if worker.line.send_now(REPORT, [theirs]):
                            ends.append(ours)
                answer.send_now(REPORT, ends)
            except OSError:  # no descriptors, or one of them has just ended: fewer are answered
                return


def _start(orders: Orders) -> tuple[subprocess.Popen[bytes], Line]:
    """Start a process, and tell it its orders. Raises `OSError`.

    Signals are blocked in it until it knows what to do with them: a terminal's Ctrl-C, which it
    gets too, would be a traceback. Where they are blocked none is lost, here neither.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            process = subprocess.Popen(COMMAND, stdin=theirs.fileno())  # noqa: S603 - it is ours
        except OSError:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    with suppress(OSError):  # it has ended already: `_listen` hears so
        ours.sendall(msgspec.json.encode(orders) + b"\n")
    return process, Line(ours)


async def run_workers(
    config: Config,
    options: Options,
    *,
    log_level: str = "info",
    on_listening: Callable[[list[str]], None] | None = None,
) -> None:
    """Serve with `config.server.workers` processes until a signal; return after the drain.

    `options` are those that `config` was made with. `on_listening` gets the URLs.
    Raises `ConfigError` if the address or an entry is of no use, or a worker cannot start.
    """
    server = config.server

    def orders(number: int) -> Orders:
        return Orders(
            worker=number,
            workers=server.workers,
            path=config.path,
            options=options,
            fixed=fixed_of(config),
            log_level=log_level,
        )

    def listening() -> None:
        if on_listening is not None:
            on_listening(urls)

    async with open_engine(config):  # which finds entries that lead nowhere
        pass
    sockets = await bind(server, config.limits)
    try:
        urls = urls_of(server, sockets)
        stop, now = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:
            await nursery.start(heed_signals, stop, now)
            crew = Crew(orders, server.workers, stop, now)
            failure = await crew.run(
                sockets, drain_timeout=config.limits.drain_timeout, on_ready=listening
            )
            nursery.cancel_scope.cancel()
    finally:
        for listener in sockets:
            listener.socket.close()
    if failure is not None:
        raise ConfigError(failure)
