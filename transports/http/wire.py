"""One connection of a client, as an object of a few methods: a socket, or any stream.

The law of this file: a write is bounded by *progress*. A client that takes a byte now and then is
slow; one that takes none for a whole `patience` is gone, and its write raises `Stalled`. Stock
servers wait for such a client for ever (hypercorn#262), and with it for their own end.

Writes are shielded from cancellation: half an HTTP chunk on the wire would corrupt the connection.
So a write ends in one of three ways: whole, `Stalled`, or `Gone`.
"""

from __future__ import annotations

import os
import struct
import sys
from abc import ABC, abstractmethod
from typing import cast

import trio

from ..reading import receive_some


if sys.platform == "linux":
    import fcntl
    import termios


SLICE_BYTES = 16 * 1024
"""What a stream that cannot tell its progress is given at once (one TLS record)."""

Address = tuple[str, int]


class Gone(Exception):
    """The other side has closed or reset the connection."""


class Stalled(Exception):
    """The other side has taken nothing for a whole `patience`."""


class Wire(ABC):
    """A connection. One task may read while one other writes."""

    client: Address | None = None
    server: Address | None = None

    _looks = 1
    """How often per `patience` a waiting write is stopped to ask the queue: once where stopping
    breaks the stream."""

    @abstractmethod
    async def read_some(self) -> bytes:
        """Return what has come; `b""` at the end, clean or not."""

    @abstractmethod
    def write_now(self, data: bytes) -> int:
        """Write what fits without waiting; return how many bytes that was, perhaps none."""

    async def write_all(self, data: bytes, patience: float) -> None:
        """Write everything, shielded. Raises `Gone` or `Stalled`; part may be written then."""
        view = memoryview(data)
        taken = trio.current_time()
        while view:
            queued = self._queued()
            deadline = min(taken + patience, trio.current_time() + patience / self._looks)
            with trio.CancelScope(shield=True, deadline=deadline) as scope:
                view = view[await self._write_some(view) :]
            if not scope.cancelled_caught or self._queued() < queued:
                taken = trio.current_time()
            elif trio.current_time() >= taken + patience:
                raise Stalled

    def _queued(self) -> int:
        """How many bytes we wrote that the other side has not taken, where one can know."""
        return 0

    @abstractmethod
    async def _write_some(self, view: memoryview) -> int:
        """Write at least one byte; return how many. Raises `Gone`."""

    @abstractmethod
    async def finish(self) -> None:
        """Say that no more will be written; reading goes on."""

    @abstractmethod
    async def close(self) -> None:
        """Close, without waiting for anything. Whoever reads or writes is woken."""


class SocketWire(Wire):
    """A plain TCP connection. It tells its progress byte by byte.

    A kernel calls a socket writable only when a good part of its buffer is free, which may take a
    slow client longer than `patience`; so the queue itself is asked before a client is given up.
    """

    _looks = 8

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self.client, self.server = addresses(stream)

    async def read_some(self) -> bytes:
        """See `Wire`."""
        return await _read(self._stream)

    def write_now(self, data: bytes) -> int:
        """See `Wire`."""
        try:
            return os.write(self._socket.fileno(), data)
        except OSError:  # no room, or broken: `write_all` will tell which
            return 0

    async def _write_some(self, view: memoryview) -> int:
        try:
            return await self._socket.send(view)
        except (OSError, trio.ClosedResourceError):
            raise Gone from None

    def _queued(self) -> int:
        descriptor = self._socket.fileno()
        if sys.platform != "linux" or descriptor < 0:
            return 0
        (size,) = struct.unpack("i", fcntl.ioctl(descriptor, termios.TIOCOUTQ, bytes(4)))
        return int(size)

    async def finish(self) -> None:
        """See `Wire`."""
        _shut_down(self._stream)

    async def close(self) -> None:
        """See `Wire`."""
        await trio.aclose_forcefully(self._stream)


class StreamWire(Wire):
    """Any other stream: TLS, or memory in a test. Progress is a slice."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        if isinstance(stream, trio.SSLStream):
            self.client, self.server = addresses(stream.transport_stream)

    async def read_some(self) -> bytes:
        """See `Wire`."""
        return await _read(self._stream)

    def write_now(self, data: bytes) -> int:  # noqa: ARG002 - nothing fits without waiting
        """See `Wire`."""
        return 0

    async def _write_some(self, view: memoryview) -> int:
        part = view[:SLICE_BYTES]
        try:
            await self._stream.send_all(part)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise Gone from None
        return len(part)

    async def finish(self) -> None:
        """See `Wire`. Under TLS the transport is shut, as HTTPS allows (no close_notify)."""
        if isinstance(self._stream, trio.SSLStream):
            _shut_down(self._stream.transport_stream)
        elif isinstance(self._stream, trio.abc.HalfCloseableStream):
            try:
                await self._stream.send_eof()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def close(self) -> None:
        """See `Wire`."""
        await trio.aclose_forcefully(self._stream)


def wire_of(stream: trio.abc.Stream) -> Wire:
    """Choose the wire for a stream."""
    return SocketWire(stream) if isinstance(stream, trio.SocketStream) else StreamWire(stream)


def addresses(stream: trio.abc.Stream) -> tuple[Address | None, Address | None]:
    """Return host and port of the other side and of ours, where the stream has such."""
    if not isinstance(stream, trio.SocketStream):
        return None, None
    try:
        client, server = stream.socket.getpeername(), stream.socket.getsockname()
    except OSError:  # reset before we came to look
        return None, None
    return cast("Address", client[:2]), cast("Address", server[:2])


async def _read(stream: trio.abc.Stream) -> bytes:
    try:
        return await receive_some(stream)
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return b""


def _shut_down(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SocketStream):
        try:
            stream.socket.shutdown(trio.socket.SHUT_WR)
        except OSError:  # already gone
            return
