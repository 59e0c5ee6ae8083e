"""The client's side of one exchange: its answer, as far as it has been sent.

The law of this file: what was sent is counted, also what no client received; a server that says
that the client is gone (an `OSError`) is believed, and `Stamp.undelivered` remembers it.
"""

from __future__ import annotations

import math
from typing import Any

import trio

from nursling.engine import jsontext
from nursling.engine.errors import LocalProtocolError

from .asgi import Send
from .connection import Stamp, header_pairs


class NoWay:
    """What a server that offers no `Express` offers."""

    free = False

    def write_now(self, data: bytes) -> bool:
        """Refuse: it is never free."""
        raise LocalProtocolError(f"no way to write {len(data)} bytes now")

    async def flush(self) -> None:
        """Nothing waits."""


class Out:
    """The answer. Nothing is sent before `start`."""

    def __init__(self, send: Send, stamp: Stamp) -> None:
        self._send = send
        self._stamp = stamp
        self._express = stamp.express or NoWay()
        self.started = False
        self.ended = False
        self.size = 0
        """Bytes of the body."""
        self.spoke = -math.inf
        """When a piece of the body was written last, by Trio's clock."""

    async def start(self, status: int, headers: dict[str, str]) -> None:
        """Send status and headers."""
        self.started = True
        await self._send(
            {"type": "http.response.start", "status": status, "headers": header_pairs(headers)}
        )

    async def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if data:
            self.size += len(data)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            self.spoke = trio.current_time()

    def write_now(self, data: bytes) -> bool:
        """Send a piece without waiting; False if a rest of it is left to `flush`."""
        self.size += len(data)
        self.spoke = trio.current_time()
        return self._express.write_now(data)

    @property
    def free(self) -> bool:
        """Whether `write_now` may be called: the server can, and nothing waits to be written."""
        return self._express.free

    async def flush(self) -> None:
        """Send what `write_now` has left."""
        try:
            await self._express.flush()
        except OSError:
            self._stamp.undelivered = True
        self.spoke = trio.current_time()

    async def end(self) -> None:
        """End the body well. Without it the server cuts the connection."""
        if not self.ended:
            self.ended = True
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def json(self, status: int, body: dict[str, Any], headers: dict[str, str]) -> None:
        """Send a whole JSON body, but for its formal end."""
        text = jsontext.dumps(body)
        await self.start(
            status,
            {"content-type": "application/json", "content-length": str(len(text)), **headers},
        )
        await self.write(text)
