"""The line between the parent of the workers and one of them: single bytes, and descriptors.

The law of this file: a message is one byte, with the descriptors that travel beside it
(`SCM_RIGHTS`). There are no lengths and nothing to parse, so nothing can be half there: what is
bigger gets a descriptor of its own to go through. The end of a line is the end of whoever held its
other end; the kernel says so at once, also after a `kill -9`.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import trio


CONNECTION = b"c"
"""To a worker: a client's connection (1 descriptor)."""
STOP = b"s"
"""To a worker: drain, then end."""
NOW = b"n"
"""To a worker: end at once."""
REPORT = b"m"
"""To a worker: write your metrics to this pipe (1 descriptor). To who asked: pipes to read."""

READY = b"r"
"""To the parent: I can take connections."""
FAILED = b"f"
"""To the parent, instead of `READY`: I cannot; why is the rest of what I say (UTF-8)."""
TAKEN = b"t"
"""To the parent: the next of the connections that I was given is mine now."""
CLOSED = b"x"
"""To the parent: one of the connections that I took is over."""
DRAINING = b"d"
"""To the parent: I refuse new requests, so let others have them."""
LEAVING = b"l"
"""To the parent: I take no more connections, nor those that I was given and did not take."""
ASK = b"a"
"""To the parent: send me, over this socket (1 descriptor), pipes with the metrics of the others."""

MOST_DESCRIPTORS = 200
"""In one message: below the kernel's 253, above the number of workers."""


class Line:
    """One end of a line. One task may receive, while any number send."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the line: the other end hears of it."""
        trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def send_now(self, messages: bytes, descriptors: Sequence[int] = ()) -> int:
        """Send what there is room for; say how many that was. Raises `OSError` if nobody is there.

        The descriptors go with the first.
        """
        try:
            if descriptors:
                return socket.send_fds(self._socket, [messages], descriptors)
            return self._socket.send(messages)
        except BlockingIOError:
            return 0

    async def send(self, message: bytes, descriptors: Sequence[int] = ()) -> None:
        """Send when there is room. Raises `OSError` if nobody is there."""
        await trio.lowlevel.checkpoint()
        while not self.send_now(message, descriptors):
            await self.room()

    async def room(self) -> None:
        """Wait until there may be room."""
        await trio.lowlevel.wait_writable(self._socket)

    async def receive(self, most: int = 1) -> tuple[bytes, list[int]]:
        """Return what has come, up to `most` messages; `b""` if nobody is there any more.

        The descriptors are those of the last message: the kernel ends a read behind such a one.
        """
        await trio.lowlevel.checkpoint()
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self._socket, most, MOST_DESCRIPTORS)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
            except OSError:  # reset: the other end went with messages of ours unread
                return b"", []
            else:
                return data, list(descriptors)
