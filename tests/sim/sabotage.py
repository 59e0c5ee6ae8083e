"""What the simulation must notice: one thing that makes the gateway safe is taken out at a time.

A test whose subject may be broken without it failing proves nothing. Each entry says what is taken
out; `test_sabotage.py` demands that a world fails then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from unittest import mock

import trio

from nursling.engine.events import Ended, Event, Finished
from nursling.engine.formats.chat.decoder import ChatDialect
from nursling.engine.formats.responses.decoder import ResponsesDialect
from nursling.engine.pipeline import Reply
from nursling.transports.http import protocol, server
from nursling.transports.http.server import Connection
from nursling.transports.upstream import direct


@dataclass(frozen=True)
class Sabotage:
    """One thing less."""

    limits: Mapping[str, float] = field(default_factory=dict)
    patch: Callable[[], AbstractContextManager[Any]] = nullcontext


def _end_well(_: object, out: list[Event]) -> None:
    out += [Finished(0, "stop"), Ended()]


class _NoShields:
    """Trio, but for shields."""

    def __getattr__(self, name: str) -> Any:
        return getattr(trio, name)

    def CancelScope(  # noqa: N802 - Trio's name
        self, *, deadline: float = math.inf, shield: bool = False
    ) -> trio.CancelScope:
        return trio.CancelScope(deadline=deadline)

    def move_on_after(self, seconds: float, *, shield: bool = False) -> trio.CancelScope:
        return trio.move_on_after(seconds)


@contextmanager
def _without_shields(*modules: ModuleType) -> Generator[None]:
    with ExitStack() as patches:
        for module in modules:
            patches.enter_context(mock.patch.object(module, "trio", _NoShields()))
        yield


async def _commit_at_once(_: Reply, timeout: float = 0) -> list[Event]:  # noqa: ASYNC109 - as it is
    return []


def _repeat_all(*_: object, kept: bool, **__: object) -> bool:
    return kept


async def _tell_nobody(_: Connection) -> None:
    return


SABOTAGES: dict[str, Sabotage] = {
    "the write deadline": Sabotage({"write_timeout": 1e9}),
    "the shielded close": Sabotage(patch=lambda: _without_shields(server, protocol)),
    "the rule of what is sent once more": Sabotage(
        patch=lambda: mock.patch.object(direct, "may_repeat", _repeat_all)
    ),
    "the idle clock": Sabotage({"idle_timeout": 0.0}),
    "the end rule, chat": Sabotage(
        patch=lambda: mock.patch.object(ChatDialect, "on_eof", _end_well)
    ),
    "the end rule, responses": Sabotage(
        patch=lambda: mock.patch.object(ResponsesDialect, "on_eof", _end_well)
    ),
    "the client-gone cancel": Sabotage(
        patch=lambda: mock.patch.object(Connection, "_lost", _tell_nobody)
    ),
    "the admission cap": Sabotage({"max_streams": 1_000_000}),
    "the hold-back rule": Sabotage(
        patch=lambda: mock.patch.object(Reply, "commit", _commit_at_once)
    ),
    "backpressure": Sabotage(
        patch=lambda: mock.patch("nursling.engine.pipeline.BATCHES", math.inf)
    ),
}
