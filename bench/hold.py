"""Clients that keep streams open, for as long as somebody looks. `python -m bench.hold ORDER`.

The law of this file: it says `{"open": N}` once every stream has had its first token, and a
stream that is refused, or that ends before this process does, is a failure of the whole run
(`{"fault": …}`, and status 1): what is measured beside N streams must have been beside N streams.
It ends with its parent, and closes everything at once then.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import sys
import time

import msgspec

from .load import READ_SIZE, request_bytes
from .order import StreamCheck
from .plan import Scenario


class Order(msgspec.Struct, frozen=True):
    """What to hold. The streams must outlast what is measured."""

    port: int
    scenario: Scenario


class Fault(Exception):
    """A stream is not open any more, or never was."""


class Held:
    """One stream."""

    def __init__(self, order: Order) -> None:
        self.sock = socket.create_connection(("127.0.0.1", order.port), timeout=5)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.sendall(request_bytes(order.scenario, order.port))
        self.sock.setblocking(False)
        self.spoke = False
        self._check = StreamCheck(order.scenario.client, order.scenario.plan.events)

    def read(self) -> None:
        """Take what has come. Raises `Fault`."""
        try:
            data = self.sock.recv(READ_SIZE)
        except OSError as error:
            raise Fault(f"connection broken: {type(error).__name__}") from None
        if not data:
            raise Fault("a stream that is to stay open has ended")
        if not self.spoke:
            status = data.partition(b"\r\n")[0]
            if status.startswith(b"HTTP/") and b" 200" not in status:
                raise Fault(status.decode("latin-1"))
            self.spoke = self._check.feed(data) > 0


def hold(order: Order) -> None:
    """Open the streams, say so, and read them until standard input ends. Raises `Fault`."""
    selector = selectors.DefaultSelector()
    held: list[Held] = []
    scenario = order.scenario
    began = time.monotonic()

    def read_until(when: float) -> bool:
        """Read until this time; True if standard input has ended."""
        wait = max(0.0, when - time.monotonic())
        for key, _ in selector.select(wait):
            if key.data is None:
                return True
            key.data.read()
        return False

    selector.register(sys.stdin, selectors.EVENT_READ, None)
    for number in range(scenario.streams):
        due = began + scenario.ramp * number / scenario.streams
        while time.monotonic() < due:
            if read_until(due):
                return
        try:
            one = Held(order)
        except OSError as error:
            raise Fault(f"no connection: {type(error).__name__}") from None
        held.append(one)
        selector.register(one.sock, selectors.EVENT_READ, one)
    deadline = began + scenario.patience
    while not all(one.spoke for one in held):
        if time.monotonic() > deadline:
            silent = sum(not one.spoke for one in held)
            raise Fault(f"{silent} of {len(held)} streams have not begun")
        if read_until(time.monotonic() + 0.1):
            return
    say({"open": len(held)})
    while not read_until(time.monotonic() + 1):
        pass


def say(what: dict[str, object]) -> None:
    """Print a line for the parent, which may be gone."""
    with contextlib.suppress(OSError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def main() -> None:
    """Hold what the command line orders."""
    try:
        hold(msgspec.json.decode(sys.argv[1], type=Order))
    except Fault as fault:
        say({"fault": str(fault)})
        sys.exit(1)


if __name__ == "__main__":
    main()
