"""The floor: a byte pump on Trio that knows no HTTP. `python -m bench.passthrough PORT`.

The law of this file: it is the least that a gateway on Trio can do per event, which is to wait for
bytes, read them and write them on. It goes under Trio's streams (no locks, no translation of
errors), as a gateway's hot path may. What a gateway costs beyond it is what the gateway does.

It prints its port and ends when its standard input does, that is with its parent.
"""

from __future__ import annotations

import socket
import sys

import trio

from .processes import announce


BACKLOG = 4096
READ_SIZE = 65536


async def pump(source: socket.socket, target: socket.socket, scope: trio.CancelScope) -> None:
    """Write on what is read until one side ends, then end both directions."""
    try:
        while True:
            await trio.lowlevel.wait_readable(source)
            rest = source.recv(READ_SIZE)
            if not rest:
                break
            while rest:
                try:
                    rest = rest[target.send(rest) :]
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(target)
    except OSError:
        pass  # one side broke, which ends both
    scope.cancel()


async def join(client: socket.socket, port: int) -> None:
    """Connect one client with the upstream."""
    with client, socket.create_connection(("127.0.0.1", port), timeout=5) as upstream:
        for sock in (client, upstream):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump, client, upstream, nursery.cancel_scope)
            nursery.start_soon(pump, upstream, client, nursery.cancel_scope)


async def serve(port: int) -> None:
    """Accept clients until standard input ends."""
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listener:
        listener.setblocking(False)
        announce(int(listener.getsockname()[1]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_stdin_ends, nursery.cancel_scope)
            while True:
                await trio.lowlevel.wait_readable(listener)
                client, _ = listener.accept()
                nursery.start_soon(join, client, port)


async def _until_stdin_ends(scope: trio.CancelScope) -> None:
    await trio.lowlevel.wait_readable(sys.stdin)
    scope.cancel()


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
