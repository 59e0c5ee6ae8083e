"""An ASGI extension: short ways between our own server and our app.

ASGI's `send` can only be awaited, so only a task of the request can call it; and waking that task
costs more than writing a token does. ASGI tells of a client's leaving to whoever awaits `receive`,
so a task has to wait there all the time. Our own server offers this beside them, as an entry of
the scope's `extensions`; where it is missing, or not `free`, everything goes by ASGI.

The law of this file: order is kept. What `write_now` takes stands behind all that was sent before,
and before all that is sent later, by either way.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Protocol


EXTENSION = "nursling.express"


class Express(Protocol):
    """The short ways of one request."""

    @property
    def free(self) -> bool:
        """Whether `write_now` may be called: the head is out, and nothing waits to be written."""
        ...

    def write_now(self, data: bytes) -> bool:
        """Take a piece of the body; False if a part of it waits, and `flush` has to be awaited."""
        ...

    async def flush(self) -> None:
        """Write what waits. Raises `OSError`, as `send` does, if it cannot arrive any more."""
        ...

    def on_leaving(self, call: Callable[[], None]) -> None:
        """Call this when the client leaves before its answer is whole, or now if it has left.

        Nothing is received any more: what still comes of the body is thrown away.
        """
        ...


def express_of(scope: MutableMapping[str, Any]) -> Express | None:
    """Find what the server offers."""
    found: Express | None = (scope.get("extensions") or {}).get(EXTENSION)
    return found
