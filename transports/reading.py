"""Reading what has come on a connection, a few bytes mostly, without taking room for many.

The law of this file: a read leaves nothing on the heap but its bytes. `recv(65536)` takes 64 KiB
there and gives back what was not filled; whatever is put into that hole before the bytes are freed
stays in it, and no later read fits. With 1,100 live streams a gateway grew by 130 MiB/h so, all of
it free and of no use (glibc; it ends with a smaller read). Here all sockets of a thread, that is of
a Trio run, share one room; nothing happens between filling it and copying from it.
"""

from __future__ import annotations

import os
import threading

import trio


MOST = 64 * 1024
"""Bytes of one read: a burst is one batch."""
RECORD = 16 * 1024
"""Bytes of one read of a stream that is no socket: a TLS record is no longer."""


class _Room(threading.local):
    def __init__(self) -> None:
        self.view = memoryview(bytearray(MOST))


_room = _Room()


async def receive_some(stream: trio.abc.ReceiveStream) -> bytes:
    """Return what one read brings; `b""` at the end of the stream. Always a checkpoint.

    Raises `trio.BrokenResourceError` if the connection broke, `trio.ClosedResourceError` if it was
    closed on our side, and `trio.BusyResourceError` if another task is reading.
    """
    if not isinstance(stream, trio.SocketStream):
        return bytes(await stream.receive_some(RECORD))
    socket = stream.socket
    while True:
        if socket.fileno() < 0:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("this connection was closed")
        await trio.lowlevel.wait_readable(socket)
        try:
            size = os.readv(socket.fileno(), [_room.view])
        except BlockingIOError:
            continue  # woken for nothing, which the kernel may do
        except OSError as error:
            if socket.fileno() < 0:
                raise trio.ClosedResourceError("this connection was closed") from None
            raise trio.BrokenResourceError(f"the connection broke: {error}") from error
        return bytes(_room.view[:size])
