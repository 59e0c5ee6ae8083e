"""The words that the parts of the HTTP side share: ASGI's own, and a request on its way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol


Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Incoming(Protocol):
    """One request: its headers, and a body to be read."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of a repeated one, the last."""
        ...

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        ...

    async def read(self) -> bytes | None:
        """Return the next piece of the body, perhaps an empty one; None at its end.

        If the client leaves, the request is cancelled. May raise `BodyTooLarge`.
        """
        ...

    def watch(self) -> None:
        """Read no more, but notice when the client leaves. May be called again."""
        ...
