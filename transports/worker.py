"""A worker: one of several processes of a gateway. Its parent (`workers.py`) starts it.

The law of this file: its standard input is its line to the parent. Connections come that way, and
orders; when the line ends, so has the parent, and the worker drains and ends too: nobody is left
behind. Signals are the parent's business: a terminal's Ctrl-C reaches the whole group, and must not
count twice, so SIGINT is ignored here. SIGTERM drains this one worker (the parent puts another in
its place), however often it comes; service managers send it to everybody.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Callable, Sequence

import msgspec
import structlog
import trio

from . import descriptors, heap, logs
from .config import ConfigError
from .gateway import run_gateway
from .http.metrics import Metrics
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
from .orders import Orders


REPORT_TIMEOUT = 1.0
"""Seconds for the metrics of another worker. Prometheus itself gives a scrape 10."""
WHOLE = b"\0"
"""Ends a report: one without it was cut by its writer's end, and counts as none."""


def main() -> None:
    """Be a worker. Ends the process with 0 after a drain, with 2 if it cannot start."""
    logs.have_stderr()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        line = socket.socket(fileno=0)
        orders = msgspec.json.decode(_first_line(line), type=Orders)
    except (OSError, msgspec.DecodeError):
        sys.exit("this program is for `nursling serve --workers` to start")
    parent = Line(line)  # never closed: its end tells the parent that this process has ended
    try:
        _serve(orders, parent)
    except ConfigError as error:
        parent.send_now(FAILED + str(error).encode())
        sys.exit(2)


def _first_line(line: socket.socket) -> bytes:
    """Read up to the first newline and no further: what follows may have descriptors with it."""
    data = bytearray()
    while not data.endswith(b"\n"):
        byte = line.recv(1)
        if not byte:
            raise ConnectionAbortedError
        data += byte
    return bytes(data)


def _serve(orders: Orders, parent: Line) -> None:
    config = orders.start()
    post = WorkerPost(parent, orders.worker)
    with logs.written_aside(orders.log_level, worker=orders.worker):
        heap.keep_large_blocks_out()
        if missing := descriptors.make_room(config.limits):
            log = structlog.get_logger("nursling")
            log.warning("descriptors missing", count=missing, why="the hard limit (ulimit -Hn)")

        async def run() -> None:
            await run_gateway(
                config, load=orders.load, on_listening=lambda _: post.ready(), post=post
            )

        trio.run(run)


class WorkerPost:
    """Where a worker's connections and orders come from (`gateway.Post`)."""

    def __init__(self, parent: Line, worker: int) -> None:
        self.metrics = Metrics(worker, self._ask)
        self._parent = parent
        self._give, self._take = trio.open_memory_channel[trio.SocketStream](0)
        self._unsaid = b""

    def ready(self) -> None:
        """Tell the parent that connections are welcome."""
        self._say(READY)

    def accepting(self) -> trio.abc.Listener[trio.SocketStream]:
        """See `gateway.Post`."""
        return Handed(self._take, lambda: self._say(LEAVING))

    def closed(self) -> None:
        """See `gateway.Post`."""
        self._say(CLOSED)

    def _say(self, message: bytes) -> None:
        """Tell the parent something, with the next word if the line has no room now."""
        self._unsaid += message
        try:
            self._unsaid = self._unsaid[self._parent.send_now(self._unsaid) :]
        except OSError:  # the parent is gone: `heed` sees it too
            self._unsaid = b""

    async def heed(
        self, stop: trio.Event, now: trio.Event, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Take what the parent sends, and SIGTERM (see `gateway.Post`)."""
        log = structlog.get_logger("nursling")
        async with trio.open_nursery() as nursery:
            await nursery.start(self._heed_signal, stop)
            task_status.started()
            while True:
                message, sent = await self._parent.receive()
                if message == CONNECTION:
                    await self._accept(sent)
                elif message == REPORT and sent:
                    nursery.start_soon(self._report, sent[0])
                elif message == STOP:
                    stop.set()
                elif message == NOW:
                    stop.set()
                    now.set()
                elif not message:
                    if not stop.is_set():
                        log.warning("stopping", why="the parent of the workers is gone")
                    stop.set()
                    return

    async def _heed_signal(self, stop: trio.Event, *, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM) as signals:
            # The parent has blocked them for the time of our start: none was lost, nor came early.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM, signal.SIGINT])
            task_status.started()
            async for _ in signals:
                if not stop.is_set():
                    structlog.get_logger("nursling").info("stopping", signal="SIGTERM")
                    self._say(DRAINING)
                stop.set()

    async def _accept(self, sent: Sequence[int]) -> None:
        """Hand a connection to the server. It came without a descriptor if we have no room."""
        for descriptor in sent:
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(_socket(descriptor)))
            try:
                await self._give.send(stream)
            except trio.BrokenResourceError:  # the server takes no more; the parent has it still
                stream.socket.close()
                return
        self._say(TAKEN)
        if not sent:
            self._say(CLOSED)

    async def _report(self, pipe: int) -> None:
        """Write our metrics for another worker."""
        async with trio.lowlevel.FdStream(pipe) as stream:
            with trio.move_on_after(REPORT_TIMEOUT):
                try:
                    await stream.send_all(self.metrics.text() + WHOLE)
                except trio.BrokenResourceError:  # who asked did not wait
                    return

    async def _ask(self) -> list[bytes]:
        """Ask the others for their metrics, by way of the parent. Who is late is left out."""
        texts: list[bytes] = []
        ours, theirs = socket.socketpair()
        with trio.move_on_after(REPORT_TIMEOUT), Line(ours) as line:
            with theirs:
                try:
                    await self._parent.send(ASK, [theirs.fileno()])
                except OSError:  # the parent is gone: we are alone
                    return texts
            _, pipes = await line.receive()
            streams = [trio.lowlevel.FdStream(pipe) for pipe in pipes]
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(_read_report, stream, texts)
        return texts


class Handed(trio.abc.Listener[trio.SocketStream]):
    """A listener whose connections somebody else has accepted."""

    def __init__(
        self, take: trio.MemoryReceiveChannel[trio.SocketStream], leave: Callable[[], object]
    ) -> None:
        self._take = take
        self._leave = leave

    async def accept(self) -> trio.SocketStream:
        """Wait for the next one."""
        return await self._take.receive()

    async def aclose(self) -> None:
        """Take no more."""
        self._leave()
        self._take.close()


async def _read_report(stream: trio.lowlevel.FdStream, texts: list[bytes]) -> None:
    data = bytearray()
    async with stream:
        async for piece in stream:
            data += piece
    if data.endswith(WHOLE):
        texts.append(bytes(data[: -len(WHOLE)]))


def _socket(descriptor: int) -> socket.socket:
    return socket.socket(fileno=descriptor)


if __name__ == "__main__":
    main()
