"""The words that the parts of the HTTP side share: ASGI's own, and a request on its way in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol


Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Receive = Callable[[], Awaitable[Message]]


class Incoming(Protocol):
    """One request: its headers, and a body to be read."""

    @property
    def headers(self) -> Mapping[str, str]:
        """As `folded` makes them."""
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


def folded(headers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Make a table: names in lower case, a repeated header as one list (RFC 9110 §5.3).

    So whoever looks for one good value sees that there are two. The same said twice is said once.
    """
    table: dict[str, str] = {}
    for name, value in headers:
        name = name.lower()  # noqa: PLW2901 - as it is looked up
        before = table.setdefault(name, value)
        if before != value:
            table[name] = f"{before}, {value}"
    return table
