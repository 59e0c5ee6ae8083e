"""The guarded server on a real socket of the loopback, around a world of scripts."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from nursling.engine.events import Ended, Finished
from nursling.engine.limits import Limits
from support.gateway import (
    Served,
    World,
    serving,
    until,
)
from support.toy import Script, line, opening, words


CHAT = {"model": "m", "stream": True}
QUICK = Limits(
    head_timeout=0.5,
    body_timeout=0.5,
    write_timeout=0.4,
    close_timeout=0.3,
    drain_timeout=0.3,
    heartbeat=0,
    max_head_bytes=16 * 1024,
    max_body_bytes=1024 * 1024,
)
FOREVER = 3600.0
BEGUN = line(*opening(), *words("x"))
HEAD = b"Host: localhost\r\n"
HELLO_END = line(Finished(0, "stop"), Ended())


@asynccontextmanager
async def hosting(
    limits: Limits = QUICK, **models: Script | Exception
) -> AsyncGenerator[tuple[World, Served], None]:
    """A world behind a server; at the end everything must be gone."""
    world = World(limits, **models)
    async with serving(
        world.app, limits, on_drain=world.app.drain, on_drained=world.app.end_streams
    ) as served:
        yield world, served
    world.assert_clean()


def flood(size: int = 1 << 16, count: int = 400) -> Script:
    """Far more than the socket buffers between us and a client that does not read."""
    return Script(line(*opening()), *[line(*words("y" * size))] * count)


async def idle_connections(world: World, served: Served) -> None:
    """Wait until no exchange is at work."""
    await until(lambda: world.app.engine.gate.open == 0)
