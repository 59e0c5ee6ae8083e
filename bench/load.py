"""The load generator: C concurrent streams, every one checked. `python -m bench.load ORDER`.

The law of this file: one run is one process with one order (JSON) and one result (JSON, on
standard output). Load goes on from before the window until after it; tokens and CPU time are read
at both ends of the window, in this process, at the same moment. A stream that has begun is read to
its end, within `GRACE`, since only a whole stream can be judged.
"""

from __future__ import annotations

import collections
import json
import os
import selectors
import socket
import sys
import time
from typing import Any, NamedTuple

import httptools
import msgspec

from .measure import Times, times
from .order import StreamCheck
from .plan import PATHS, Api, Scenario, Timing


READ_SIZE = 262144
GRACE = 10.0
"""After the window, until the streams that are under way are given up."""
MAX_FAULTS = 200
"""A run that goes wholly wrong ends early."""


class Order(msgspec.Struct, frozen=True):
    """What to do."""

    port: int
    scenario: Scenario
    timing: Timing
    subject: int
    """Process whose CPU time is measured, with its descendants."""
    helpers: tuple[int, ...] = ()
    """Processes that generate load beside this one."""


class Result(msgspec.Struct, frozen=True):
    """What was seen."""

    seconds: float
    """The window as it really was."""
    tokens: int
    """Events received in it."""
    cpu_us: float
    """CPU time of the subject in it."""
    waited_us: float
    """What the subject waited in it for its core, which others had."""
    generator_us: float
    """CPU time of this process and its helpers in it."""
    streams: int
    """Streams that arrived whole, in and outside the window."""
    faults: dict[str, int]
    """What was wrong with the others."""


class Reading(NamedTuple):
    """One end of the window."""

    at: float
    tokens: int
    subject: Times
    generator: Times


class Load:
    """All the streams of one run."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.request = request_bytes(order.scenario, order.port)
        self.selector = selectors.DefaultSelector()
        self.tokens = 0
        self.whole = 0
        self.faults: collections.Counter[str] = collections.Counter()
        self.more = True
        """Whether a stream that ended is followed by another."""

    def run(self) -> Result:
        """Offer the load; return what came of it."""
        timing, scenario = self.order.timing, self.order.scenario
        began = time.monotonic()
        # Paced streams start evenly over one interval, or all of them would speak at once.
        gap = scenario.plan.interval / scenario.streams
        for number in range(scenario.streams):
            self._until(began + gap * number)
            Connection(self).connect()
        self._until(began + timing.warm_up)
        before = self._reading()
        self._until(before.at + timing.seconds)
        after = self._reading()
        self.more = False
        self._until(time.monotonic() + GRACE, idle=True)
        for _ in range(len(self.selector.get_map())):
            self.fault("not ended in time")
        subject = after.subject.since(before.subject)
        return Result(
            seconds=after.at - before.at,
            tokens=after.tokens - before.tokens,
            cpu_us=subject.cpu / 1000,
            waited_us=subject.waited / 1000,
            generator_us=after.generator.since(before.generator).cpu / 1000,
            streams=self.whole,
            faults=dict(self.faults),
        )

    def fault(self, what: str) -> None:
        """Count one stream that went wrong."""
        self.faults[what] += 1

    def _reading(self) -> Reading:
        generator = times(os.getpid(), *self.order.helpers)
        return Reading(time.monotonic(), self.tokens, times(self.order.subject), generator)

    def _until(self, when: float, *, idle: bool = False) -> None:
        """Read from the streams until this time; `idle`: or until none is left."""
        while (left := when - time.monotonic()) > 0 and self.faults.total() < MAX_FAULTS:
            if idle and not self.selector.get_map():
                return
            for key, _ in self.selector.select(left):
                key.data.on_readable()


class Connection:
    """One connection, with one stream after the other."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._scenario = load.order.scenario
        self._sock = socket.socket()
        self._begin()

    def connect(self) -> None:
        """Connect and ask."""
        try:
            self._sock = socket.create_connection(("127.0.0.1", self._load.order.port), timeout=5)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sock.sendall(self._load.request)
        except OSError:
            self._load.fault("no connection")
            return
        self._sock.setblocking(False)
        self._load.selector.register(self._sock, selectors.EVENT_READ, self)

    def on_readable(self) -> None:
        """Take what has come; at the end of a stream judge it and ask for the next."""
        try:
            data = self._sock.recv(READ_SIZE)
            if data:
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            self._leave(f"broken: {type(error).__name__}")
            return
        if not data:
            self._leave("connection lost")
            return
        if self._pieces:
            self._load.tokens += self._check.feed(b"".join(self._pieces))
            self._pieces.clear()
        if self._complete:
            self._judge()

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._complete = False
        self._check = StreamCheck(self._scenario.client, self._scenario.plan.events)

    def _judge(self) -> None:
        status = self._parser.get_status_code()
        fault = f"status {status}" if status != 200 else self._check.fault()
        if fault is not None:
            self._leave(fault)
            return
        self._load.whole += 1
        again = self._load.more
        reusable = self._parser.should_keep_alive()
        if again and reusable:
            self._begin()
            try:
                self._sock.send(self._load.request)
            except OSError:
                self._leave("connection lost")
            return
        self._leave()

    def _leave(self, fault: str | None = None) -> None:
        """Close; go on with a new connection while there is load to offer."""
        if fault is not None:
            self._load.fault(fault)
        self._load.selector.unregister(self._sock)
        self._sock.close()
        if self._load.more and self._load.faults.total() < MAX_FAULTS:
            Connection(self._load).connect()

    # What httptools calls.

    def on_body(self, data: bytes) -> None:
        """Part of the body."""
        self._pieces.append(data)

    def on_message_complete(self) -> None:
        """The body has ended as HTTP says it."""
        self._complete = True


def request_bytes(scenario: Scenario, port: int) -> bytes:
    """One request of a scenario, as a client sends it."""
    body = json.dumps(request_body(scenario.client, scenario.plan.model)).encode()
    return (
        f"POST {PATHS[scenario.client]} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        "authorization: Bearer bench\r\ncontent-type: application/json\r\n"
        f"accept: text/event-stream\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


def request_body(api: Api, model: str) -> dict[str, Any]:
    """The smallest request of an ordinary client."""
    if api == "responses":
        return {"model": model, "stream": True, "input": "Count."}
    return {
        "model": model,
        "stream": True,
        "stream_options": {"include_usage": True},
        "messages": [{"role": "user", "content": "Count."}],
    }


def main() -> None:
    """Run the order of the command line."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    result = Load(order).run()
    sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
