"""The clients of a soak, all in one process. `python -m bench.soak_load ORDER`.

The law of this file: every stream is judged, also one that was left or cut, and every stream ends
as its client's manner says: one that reads, or naps, gets all of it; one that does not read must be
cut by the gateway. It prints one line of JSON a second (`Progress`), the last one with `over`.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import json
import random
import selectors
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any

import httptools
import msgspec

from .load import READ_SIZE, request_body
from .plan import PATHS
from .soak_check import TaleCheck
from .soak_lulls import Lulls
from .soak_plan import MODELS, STRETCH, Lane, Load, Patience


RAMP = 10.0
"""Seconds in which the clients come, at most: a stampede is another test's matter."""
LEAST_LEFT = 2.0
"""Seconds before the end from which on nobody begins a stream."""
GRACE = 60.0
"""After the end, until the streams that are under way are given up: a busy machine lags behind."""
MAX_FAULTS = 100
"""A run that goes wholly wrong ends early."""
SMALL_WINDOW = 16384
"""Receive buffer of a client that will not read."""


class Order(msgspec.Struct, frozen=True):
    """What to do."""

    port: int
    load: Load
    patience: Patience
    seconds: float
    seed: int


class Progress(msgspec.Struct, frozen=True):
    """What was seen so far."""

    at: float
    """Seconds since the beginning."""
    open: int
    """Streams under way."""
    tokens: int
    whole: int
    """Streams that arrived whole, those of nappers among them."""
    napped: int
    left: int
    """Streams whose client left; good as far as they came."""
    cut: int
    """Streams that the gateway cut, as it should, since nobody read them."""
    faults: dict[str, int]
    """Streams that went wrong, by what was wrong."""
    over: bool = False
    lull: int = 0
    """In which lull this is (`soak_lulls.py`); 0 = in none."""


class Clients:
    """All the clients of one run."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.draw = random.Random(order.seed)
        self.selector = selectors.DefaultSelector()
        self.counts: collections.Counter[str] = collections.Counter()
        self.faults: collections.Counter[str] = collections.Counter()
        self.open = 0
        self.lazy = 0  # of these, by clients that stop reading
        self.began = time.monotonic()
        self.lulls = Lulls(self.began)
        self.waiting: list[Client] = []  # for the end of a lull
        self.end = self.began + order.seconds
        self.numbers = itertools.count(1)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._ticket = itertools.count()

    def at(self, when: float, what: Callable[[], None]) -> None:
        """Have something done at this time."""
        heapq.heappush(self._due, (when, next(self._ticket), what))

    def run(self) -> None:
        """Offer the load, and say how it goes."""
        lanes = self.order.load.lanes()
        self.draw.shuffle(lanes)
        ramp = min(RAMP, self.order.seconds / 4)
        for place, lane in enumerate(lanes):
            self.at(self.began + ramp * place / len(lanes), Client(self, lane).next)
        self.at(self.began, self._tell)
        while not self._over():
            wait = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
            for key, _ in self.selector.select(wait):
                key.data()
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                heapq.heappop(self._due)[2]()
        if self.open:
            self.faults["not ended in time"] += self.open
        say(self.progress(over=True))

    def progress(self, *, over: bool = False) -> Progress:
        """What was seen so far."""
        counts = self.counts
        return Progress(
            at=time.monotonic() - self.began,
            open=self.open,
            tokens=counts["tokens"],
            whole=counts["whole"],
            napped=counts["napped"],
            left=counts["left"],
            cut=counts["cut"],
            faults=dict(self.faults),
            over=over,
            lull=self.lulls.look(time.monotonic(), self.lazy),
        )

    def _over(self) -> bool:
        now = time.monotonic()
        done = now >= self.end and not self.open
        return done or now >= self.end + GRACE or self.faults.total() >= MAX_FAULTS

    def _tell(self) -> None:
        say(self.progress())
        now = time.monotonic()
        self.at(now + 1, self._tell)
        if self.lulls.open(now):
            spread = 0.0 if self.lulls.crowd else self.order.patience.longest
            for client in self.waiting:
                self.at(now + self.draw.uniform(0, spread), client.next)
            self.waiting.clear()


class Client:
    """One client: a stream after the other, on this connection or on a new one."""

    def __init__(self, clients: Clients, lane: Lane) -> None:
        self._all = clients
        self._lane = lane
        self._lazy = lane.manner != "reads"
        self._sock: socket.socket | None = None
        self._reading = False

    def next(self) -> None:
        """Ask for the next tale, if there is time for one."""
        everyone, lane, now = self._all, self._lane, time.monotonic()
        left = everyone.end - now
        if left < LEAST_LEFT + (everyone.order.patience.longest if self._lazy else 0):
            self._close()
            return
        if self._lazy and not everyone.lulls.open(now):
            self._close()
            everyone.waiting.append(self)
            return
        number = next(everyone.numbers)
        tale = everyone.order.load.tale(lane, number, left - 1, everyone.draw)
        self._check = TaleCheck(tale, lane.client)
        self._parser = httptools.HttpResponseParser(self)
        self._complete = False
        self._unread = tale.events // 4 if self._lazy else None
        leaves = not self._lazy and everyone.draw.random() < everyone.order.load.leaving
        self._leaves_at = everyone.draw.randrange(tale.events) if leaves else None
        everyone.open += 1
        everyone.lazy += self._lazy
        try:
            if self._sock is None:
                self._connect(everyone.order.port)
            self._send(tale.name)
        except OSError as error:
            self._done(f"no connection: {type(error).__name__}")

    def on_readable(self) -> None:
        """Take what has come, and do with it as the manner of this client is."""
        assert self._sock is not None  # noqa: S101 - it is registered with the selector
        try:
            data = self._sock.recv(READ_SIZE)
            if data:
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            self._lost(type(error).__name__)
            return
        if not data:
            self._lost("EOF")
        elif self._complete:
            self._judge()
        elif self._leaves_at is not None and self._check.tokens > self._leaves_at:
            self._leave()
        elif self._unread is not None and self._check.tokens >= self._unread:
            self._stop_reading()

    def _connect(self, port: int) -> None:
        self._sock = sock = socket.socket()
        if self._lazy:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_WINDOW)
        sock.settimeout(30)
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def _send(self, prompt: str) -> None:
        assert self._sock is not None  # noqa: S101 - `next` has connected
        self._sock.sendall(request_bytes(self._lane, prompt))
        self._read()

    def _read(self) -> None:
        if self._sock is not None and not self._reading:
            self._all.selector.register(self._sock, selectors.EVENT_READ, self.on_readable)
            self._reading = True

    def _pause(self) -> None:
        if self._sock is not None and self._reading:
            self._all.selector.unregister(self._sock)
            self._reading = False

    def _stop_reading(self) -> None:
        patience = self._all.order.patience
        self._unread = None
        self._pause()
        away = patience.nap if self._lane.manner == "naps" else patience.stuck
        away *= self._all.draw.uniform(1, STRETCH)
        self._all.at(time.monotonic() + away, self._read)

    def _leave(self) -> None:
        """Go in the midst of it, politely or not."""
        assert self._sock is not None  # noqa: S101 - it was read from
        if self._all.draw.random() < 0.5:
            linger = struct.pack("ii", 1, 0)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        fault = self._check.fault_so_far()
        self._close()
        self._done(fault, "left")

    def _judge(self) -> None:
        """The body has ended as HTTP says it."""
        status = self._parser.get_status_code()
        reusable = self._parser.should_keep_alive()
        fault = f"status {status}" if status != 200 else self._check.fault()
        if fault is None and self._lane.manner == "is stuck":
            fault = "not cut, though nobody read"
        if fault or not reusable or self._all.draw.random() < 0.5:
            self._close()
        if fault is None and self._lane.manner == "naps":
            self._all.counts["napped"] += 1
        self._done(fault, "whole")

    def _lost(self, how: str) -> None:
        """The connection has ended before the body has."""
        self._close()
        if self._lane.manner == "is stuck" and self._check.tokens:
            self._done(self._check.fault_so_far(), "cut")
        else:
            self._done(f"connection lost: {how}")

    def _close(self) -> None:
        self._pause()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def _done(self, fault: str | None, what: str = "") -> None:
        """Count a stream that is over, and go on with the next."""
        everyone = self._all
        everyone.open -= 1
        everyone.lazy -= self._lazy
        everyone.counts["tokens"] += self._check.tokens
        if fault is None:
            everyone.counts[what] += 1
        else:
            everyone.faults[f"{fault} ({self._lane.upstream} to {self._lane.client})"] += 1
            self._close()
        everyone.at(time.monotonic() + everyone.draw.uniform(0, 0.2), self.next)

    # What httptools calls.

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        self._check.feed(data)

    def on_message_complete(self) -> None:
        """The body has ended as HTTP says it."""
        self._complete = True


def request_bytes(lane: Lane, prompt: str) -> bytes:
    """The request of a lane for one tale, as a client sends it."""
    request: dict[str, Any] = request_body(lane.client, MODELS[lane.upstream])
    if lane.client == "chat":
        request["messages"] = [{"role": "user", "content": prompt}]
    else:
        request["input"] = prompt
    body = json.dumps(request).encode()
    return (
        f"POST {PATHS[lane.client]} HTTP/1.1\r\nhost: 127.0.0.1\r\n"
        "content-type: application/json\r\naccept: text/event-stream\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


def say(progress: Progress) -> None:
    """Print a line for the parent."""
    sys.stdout.buffer.write(msgspec.json.encode(progress) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Run the order of the command line."""
    Clients(msgspec.json.decode(sys.argv[1], type=Order)).run()


if __name__ == "__main__":
    main()
