"""One connection, to a client or to an upstream, as an object of four methods.

    read_some    what one read brings
    write_now    what fits without waiting: most writes cost one system call and no scheduling
    write_all    the rest, bounded by progress
    close

The law of this file: a write is bounded by *progress*. Another side that takes a byte now and then
is slow; one that takes none for a whole `patience` is gone, and the write raises `Stalled`. Stock
servers wait for such a client for ever (hypercorn#262), and with it for their own end.

There is a socket in life, and any stream for TLS and for the memory of a simulation; they keep one
contract (`test_wire.py`). Beside the four stand `finish`, which only a server needs, and two
questions that only a client asks of a connection it has kept: `has_news` and `acknowledged`. The
kernel knows their answers; where there is none, the answer is that one cannot know.
"""

from __future__ import annotations

import os
import struct
import sys
from abc import ABC, abstractmethod
from operator import attrgetter
from typing import cast

import trio

from .reading import receive_some


if sys.platform == "linux":
    import fcntl
    import termios


SLICE_BYTES = 16 * 1024
"""What a stream that cannot tell its progress is given at once (one TLS record)."""

BYTES_ACKED = 120
"""Where `tcpi_bytes_acked`, of 64 bits, stands in Linux's `struct tcp_info` (since 4.1)."""

Address = tuple[str, int]

_halves_of = attrgetter("_incoming", "_ssl_object")
"""Of a TLS stream: what is coded still, and what is plain. Trio has no word for asking them."""


class Gone(Exception):
    """The other side has closed or reset the connection."""


class Stalled(Exception):
    """The other side has taken nothing for a whole `patience`."""


class Wire(ABC):
    """A connection. One task may read while one other writes."""

    client: Address | None = None
    server: Address | None = None

    prompt = False
    """Whether `write_now` ever writes anything."""

    _looks = 1
    """How often per `patience` a waiting write is stopped to ask the queue: once where stopping
    breaks the stream."""

    @abstractmethod
    async def read_some(self) -> bytes:
        """Return what one read brings; `b""` at the end, behind which nothing is read.

        Cancelling loses nothing. Raises `Gone` if the connection broke, or was closed on our side.
        """

    @abstractmethod
    def write_now(self, data: bytes) -> int:
        """Write what fits without waiting; return how many bytes that was, perhaps none."""

    async def write_all(
        self, data: bytes | memoryview, patience: float, *, shield: bool = True
    ) -> None:
        """Write everything. Raises `Gone` or `Stalled`; part may be written then.

        Shielded from cancellation, as half an HTTP chunk would spoil the connection; whoever
        closes the connection when cancelled needs no shield.
        """
        view = memoryview(data)
        taken = trio.current_time()
        while view:
            queued = self._queued()
            deadline = min(taken + patience, trio.current_time() + patience / self._looks)
            with trio.CancelScope(shield=shield, deadline=deadline) as scope:
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

    def has_news(self) -> bool:
        """Whether bytes or the end have come and wait to be read, as far as one can know."""
        return False

    def acknowledged(self) -> int | None:
        """How many of our bytes the other side's system has confirmed; `None` = cannot know.

        It counts from an unknown number on: only two answers compared say something.
        """
        return None


class SocketWire(Wire):
    """A plain TCP connection. It tells its progress byte by byte.

    A kernel calls a socket writable only when a good part of its buffer is free, which may take a
    slow client longer than `patience`; so the queue itself is asked before a client is given up.
    """

    prompt = True
    _looks = 8

    def __init__(self, stream: trio.SocketStream) -> None:
        self._stream = stream
        self._socket = stream.socket
        self.client, self.server = addresses(stream)

    async def read_some(self) -> bytes:
        """See `Wire`."""
        return await _read(self._stream)

    def has_news(self) -> bool:
        """See `Wire`."""
        return _has_news(self._stream)

    def acknowledged(self) -> int | None:
        """See `Wire`."""
        return _acknowledged(self._stream)

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
        self._below = stream.transport_stream if isinstance(stream, trio.SSLStream) else stream
        self.client, self.server = addresses(self._below)

    async def read_some(self) -> bytes:
        """See `Wire`."""
        return await _read(self._stream)

    def has_news(self) -> bool:
        """See `Wire`. Of a TLS stream also what it has taken from the socket already."""
        return _has_news(self._below) or _has_rest(self._stream)

    def acknowledged(self) -> int | None:
        """See `Wire`. Under TLS these are bytes of records."""
        return _acknowledged(self._below)

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
        if self._below is not self._stream:
            _shut_down(self._below)
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
        raise Gone from None


def _has_news(stream: trio.abc.Stream) -> bool:
    return isinstance(stream, trio.SocketStream) and stream.socket.is_readable()


def _has_rest(stream: trio.abc.Stream) -> bool:
    if not isinstance(stream, trio.SSLStream):
        return False
    coded, plain = _halves_of(stream)
    return bool(coded.pending or plain.pending())


def _acknowledged(stream: trio.abc.Stream) -> int | None:
    if sys.platform != "linux" or not isinstance(stream, trio.SocketStream):
        return None
    try:
        info = stream.getsockopt(trio.socket.IPPROTO_TCP, trio.socket.TCP_INFO, BYTES_ACKED + 8)
    except OSError:  # no TCP, or closed
        return None
    if len(info) < BYTES_ACKED + 8:
        return None
    (confirmed,) = struct.unpack_from("Q", info, BYTES_ACKED)
    return int(confirmed)


def _shut_down(stream: trio.abc.Stream) -> None:
    if isinstance(stream, trio.SocketStream):
        try:
            stream.socket.shutdown(trio.socket.SHUT_WR)
        except OSError:  # already gone
            return
