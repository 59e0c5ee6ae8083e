"""Requests on their way in: straight from ASGI, or behind Quart.

The law of this file: a client never writes to nobody, and its leaving is always noticed. Whoever
has read a body, or wants no more of it, says so (`watch`); from then on what comes is thrown away
until the client leaves, which cancels the request.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import trio
from quart import Request
from werkzeug.exceptions import RequestEntityTooLarge

from nursling.engine.errors import BodyTooLarge

from .asgi import Receive, folded
from .express import express_of


class AsgiIncoming:
    """A request as a server hands it over."""

    def __init__(
        self,
        scope: MutableMapping[str, Any],
        receive: Receive,
        cancel: Callable[[], None],
        watch: Callable[[], None],
    ) -> None:
        self.headers = folded(
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]
        )
        self.scheme: str = scope["scheme"]
        self._receive = receive
        self._cancel = cancel
        self._watch = watch
        self._over = False
        self._watched = False

    async def read(self) -> bytes | None:
        """See `Incoming`."""
        if self._over:
            return None
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._cancel()
            await trio.lowlevel.checkpoint()
        self._over = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    def watch(self) -> None:
        """See `Incoming`."""
        if not self._watched:
            self._watched = True
            self._watch()


@asynccontextmanager
async def incoming_of(
    scope: MutableMapping[str, Any], receive: Receive
) -> AsyncGenerator[AsgiIncoming, None]:
    """Hold a request for the block that answers it, which its client's leaving cancels."""
    express = express_of(scope)
    if express is not None:
        with trio.CancelScope() as request:
            yield AsgiIncoming(
                scope, receive, request.cancel, partial(express.on_leaving, request.cancel)
            )
        return

    async def wait_for_leaving() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        cancel = nursery.cancel_scope.cancel
        yield AsgiIncoming(scope, receive, cancel, partial(nursery.start_soon, wait_for_leaving))
        cancel()


class QuartIncoming:
    """A request that has come through Quart, which reads ahead and watches by itself."""

    def __init__(self, request: Request) -> None:
        self.headers = folded(request.headers)
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
