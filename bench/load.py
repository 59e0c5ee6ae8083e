"""The load generator: C concurrent replies, every one checked. `python -m bench.load ORDER`.

The law of this file: one run is one process with one order (JSON) and one result (JSON, on
standard output). Load goes on from before the window until after it; tokens, requests and CPU time
are read at both ends of the window, in this process, at the same moment, and what is timed is what
ended between them. A reply that has begun is read to its end, within `grace`, since only a whole
one can be judged.
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

from .measure import Quantiles, Times, quantiles, times
from .order import StreamCheck, WholeCheck
from .plan import PATHS, Api, Plan, Scenario, Timing


READ_SIZE = 262144
GRACE = 10.0
"""Seconds after the window until the replies that are under way are given up, and..."""
LAG = 3.0
"""...so many times what a paced stream lasts: a gateway that cannot keep up lags behind."""
KEY = "sk-bench-a-key-that-opens-nothing"
"""What the clients show for a key, for gateways that want one."""
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
    requests: int
    """Replies that ended well in it."""
    cpu_us: float
    """CPU time of the subject in it."""
    waited_us: float
    """What the subject waited in it for its core, which others had."""
    generator_us: float
    """CPU time of this process and its helpers in it."""
    streams: int
    """Replies that arrived whole, in and outside the window."""
    faults: dict[str, int]
    """What was wrong with the others."""
    first: Quantiles | None = None
    """µs from a request to the first token of its stream."""
    took: Quantiles | None = None
    """µs from a request to the end of its reply."""
    delay: Quantiles | None = None
    """µs from the upstream's write of an event to its arrival; of stamped events only."""


class Reading(NamedTuple):
    """One end of the window."""

    at: float
    tokens: int
    requests: int
    subject: Times
    generator: Times


class Clocks:
    """What is timed, in microseconds."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.took: list[float] = []
        self.delay: list[float] = []


class Load:
    """All the replies of one run."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.request = request_bytes(order.scenario, order.port)
        self.selector = selectors.DefaultSelector()
        self.tokens = 0
        self.whole = 0
        self.spoken = 0
        """Streams that have had their first token."""
        self.clocks = Clocks()
        self.faults: collections.Counter[str] = collections.Counter()
        self.more = True
        """Whether a reply that ended is followed by another."""

    def run(self) -> Result:
        """Offer the load; return what came of it."""
        timing, scenario = self.order.timing, self.order.scenario
        began = time.monotonic()
        for number in range(scenario.streams):
            self._until(began + scenario.ramp * number / scenario.streams)
            Connection(self).connect()
        patience = began + scenario.patience if scenario.plan.pause else 0.0
        # The window is not for streams that are only beginning.
        while self.spoken < scenario.streams and time.monotonic() < patience and not self.bad:
            self._until(time.monotonic() + 0.02)
        self._until(max(began + scenario.ramp, time.monotonic()) + timing.warm_up)
        before, self.clocks = self._reading(), Clocks()
        self._until(before.at + timing.seconds)
        after, clocks, self.clocks = self._reading(), self.clocks, Clocks()
        self.more = False
        self._until(time.monotonic() + grace(scenario.plan), idle=True)
        if not self.bad:  # else nobody has waited for them
            for _ in range(len(self.selector.get_map())):
                self.fault("not ended in time")
        subject = after.subject.since(before.subject)
        return Result(
            seconds=after.at - before.at,
            tokens=after.tokens - before.tokens,
            requests=after.requests - before.requests,
            cpu_us=subject.cpu / 1000,
            waited_us=subject.waited / 1000,
            generator_us=after.generator.since(before.generator).cpu / 1000,
            streams=self.whole,
            faults=dict(self.faults),
            first=quantiles(clocks.first),
            took=quantiles(clocks.took),
            delay=quantiles(clocks.delay),
        )

    def fault(self, what: str) -> None:
        """Count one stream that went wrong."""
        self.faults[what] += 1

    @property
    def bad(self) -> bool:
        """Whether too much has gone wrong to go on."""
        return self.faults.total() >= MAX_FAULTS

    def _reading(self) -> Reading:
        generator = times(os.getpid(), *self.order.helpers)
        subject = times(self.order.subject)
        return Reading(time.monotonic(), self.tokens, self.whole, subject, generator)

    def _until(self, when: float, *, idle: bool = False) -> None:
        """Read from the streams until this time; `idle`: or until none is left."""
        while (left := when - time.monotonic()) > 0 and not self.bad:
            if idle and not self.selector.get_map():
                return
            for key, _ in self.selector.select(left):
                key.data.on_readable()


def grace(plan: Plan) -> float:
    """Seconds after the window in which all replies must have ended."""
    return GRACE + LAG * plan.events * plan.interval


class Connection:
    """One connection, with one reply after the other."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._scenario = load.order.scenario
        self._stamped = self._scenario.plan.dress == "stamped"
        self._begin()

    def connect(self) -> None:
        """Connect and ask."""
        try:
            self._sock = socket.create_connection(("127.0.0.1", self._load.order.port), timeout=5)
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._asked = time.monotonic_ns()
            self._sock.sendall(self._load.request)
        except OSError:
            self._load.fault("no connection")
            return
        self._sock.setblocking(False)
        self._load.selector.register(self._sock, selectors.EVENT_READ, self)

    def on_readable(self) -> None:
        """Take what has come; at the end of a reply judge it and ask for the next."""
        try:
            data = self._sock.recv(READ_SIZE)
            now = time.monotonic_ns()
            if data:
                self._parser.feed_data(data)
        except (OSError, httptools.HttpParserError) as error:
            self._leave(f"broken: {type(error).__name__}")
            return
        if not data:
            self._leave("connection lost")
            return
        if self._pieces:
            self._take(b"".join(self._pieces), now)
            self._pieces.clear()
        if self._complete:
            self._judge(now)

    def _begin(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._pieces: list[bytes] = []
        self._complete = False
        self._spoke = False
        kind = WholeCheck if self._scenario.whole else StreamCheck
        self._check = kind(self._scenario.client, self._scenario.plan.events)

    def _take(self, data: bytes, now: int) -> None:
        clocks = self._load.clocks
        found = self._check.feed(data)
        self._load.tokens += found
        if found and not self._spoke:
            self._spoke = True
            self._load.spoken += 1
            clocks.first.append((now - self._asked) / 1000)
        if self._stamped:
            clocks.delay += [now / 1000 - one for one in StreamCheck.stamps(data)]

    def _judge(self, now: int) -> None:
        status = self._parser.get_status_code()
        fault = f"status {status}" if status != 200 else self._check.fault()
        if fault is not None:
            self._leave(fault)
            return
        self._load.whole += 1
        self._load.clocks.took.append((now - self._asked) / 1000)
        again = self._load.more
        reusable = self._parser.should_keep_alive()
        if again and reusable:
            self._begin()
            self._asked = time.monotonic_ns()
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
        if self._load.more and not self._load.bad:
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
    request = request_body(scenario.client, scenario.plan.model)
    if scenario.plan.dress == "logprobs":
        request |= LOGPROBS[scenario.client]
    if scenario.whole:
        request.pop("stream")
        request.pop("stream_options", None)
    body = json.dumps(request).encode()
    accept = "application/json" if scenario.whole else "text/event-stream"
    return (
        f"POST {PATHS[scenario.client]} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n"
        f"authorization: Bearer {KEY}\r\ncontent-type: application/json\r\n"
        f"accept: {accept}\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode() + body


LOGPROBS: dict[Api, dict[str, Any]] = {
    "chat": {"logprobs": True},
    "responses": {"include": ["message.output_text.logprobs"]},
}
"""How a client asks for log probabilities."""


def request_body(api: Api, model: str) -> dict[str, Any]:
    """The smallest request of an ordinary client, for a stream."""
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
