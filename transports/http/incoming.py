"""Requests on their way in: straight from ASGI, or behind Quart.

The law of this file: a client never writes to nobody, and its leaving is always noticed. Whoever
has read a body, or wants no more of it, says so (`watch`); from then on what comes is thrown away
until the client leaves, which cancels the request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import trio
from quart import Request
from werkzeug.exceptions import RequestEntityTooLarge

from nursling.engine.errors import BodyTooLarge

from .asgi import Receive


class AsgiIncoming:
    """A request as a server hands it over. `nursery` is the request's own, and cancelled."""

    def __init__(
        self, scope: MutableMapping[str, Any], receive: Receive, nursery: trio.Nursery
    ) -> None:
        self.headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        self.scheme: str = scope["scheme"]
        self._receive = receive
        self._nursery = nursery
        self._over = False
        self._watched = False

    async def read(self) -> bytes | None:
        """See `Incoming`."""
        if self._over:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._nursery.cancel_scope.cancel()
            await trio.lowlevel.checkpoint()
        self._over = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    def watch(self) -> None:
        """See `Incoming`."""
        if not self._watched:
            self._watched = True
            self._nursery.start_soon(self._wait_for_leaving)

    async def _wait_for_leaving(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._nursery.cancel_scope.cancel()


class QuartIncoming:
    """A request that has come through Quart, which reads ahead and watches by itself."""

    def __init__(self, request: Request) -> None:
        self.headers = {name.lower(): value for name, value in request.headers}
        self.scheme = request.scheme
        self._pieces: AsyncIterator[bytes] = aiter(request.body)

    async def read(self) -> bytes | None:
        """See `Incoming`."""
        try:
            return await anext(self._pieces, None)
        except RequestEntityTooLarge:
            raise BodyTooLarge("the request's body is too large") from None

    def watch(self) -> None:
        """See `Incoming`."""
