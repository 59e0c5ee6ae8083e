"""Who may come in, and how everyone leaves.

One gate per engine, for requests by HTTP and by the embedding program alike: it counts the requests
at work, refuses past the limit at once, and at the end of the drain ends what is still open. Ending
is a cancellation of the request's own scope, which its owner turns into an error.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import trio

from nursling.engine.errors import Draining, Overloaded


class Gate:
    """Admission and drain of one engine."""

    def __init__(self, max_streams: int) -> None:
        self.max_streams = max_streams
        """May be changed: who is in stays."""
        self._open: set[trio.CancelScope] = set()
        self.draining = False

    @property
    def open(self) -> int:
        """How many requests are at work."""
        return len(self._open)

    @contextmanager
    def admit(self) -> Generator[trio.CancelScope]:
        """Hold a slot for one request. The scope is cancelled when the drain is over.

        Raises `Overloaded` or `Draining`, never waits: a queue here would only hide the overload.
        """
        if self.draining:
            raise Draining("the gateway is stopping", headers={"retry-after": "1"})
        if len(self._open) >= self.max_streams:
            raise Overloaded(
                f"{self.max_streams} requests are at work already", headers={"retry-after": "1"}
            )
        with trio.CancelScope() as scope:
            self._open.add(scope)
            try:
                yield scope
            finally:
                self._open.discard(scope)

    def drain(self) -> None:
        """Admit nobody from now on."""
        self.draining = True

    def end_streams(self) -> None:
        """End what is still open."""
        self.draining = True
        for scope in list(self._open):
            scope.cancel()
