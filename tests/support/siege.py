"""The gateway under attack: real sockets, real formats, an upstream that is scripted.

    async with besieged() as siege:
        answer = await siege.served.raw(b"...")
        await siege.unharmed()

`unharmed` is the law of every attack: when it is over nothing of it is left (no task, no request,
no upstream), no bug was logged, and a streamed request is answered whole.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio
import trio.testing
from structlog.testing import capture_logs

from nursling.engine.limits import Limits
from nursling.transports import config_from_dict, open_engine
from nursling.transports.http.app import create_app
from nursling.transports.keys import Keys

from .chat import chunk, stream
from .gateway import Served, post, serving, until
from .toy import Script, Step


SAID = "Everything is as it was."
GOOD = stream(*({"content": word} for word in SAID.split(" ")))
LIMITS = {
    "head_timeout": 0.6,
    "body_timeout": 0.5,
    "write_timeout": 0.5,
    "close_timeout": 0.15,
    "heartbeat": 0.3,  # what finds out that a client with unread bytes is gone
    "max_head_bytes": 16 * 1024,
    "max_body_bytes": 1024 * 1024,
    "max_json_nodes": 10_000,
}
FOREVER = 3600.0
BEGUN = chunk({"role": "assistant", "content": "x"})
FLOOD = chunk({"content": "y" * (1 << 16)})


@dataclass
class Siege:
    """A gateway and what it says of itself."""

    served: Served
    scripts: dict[str, Script]
    """The upstreams, by the name of their model: `good`, `stalls`, `floods`."""
    logs: list[MutableMapping[str, Any]]
    engine: Any
    tasks: int
    """Tasks of the program while nobody asks anything."""

    async def unharmed(self) -> None:
        """Fail if an attack has left anything behind."""
        await until(lambda: self.engine.gate.open == 0, 5)
        await until(lambda: not any(script.open_now for script in self.scripts.values()), 5)
        await until(lambda: trio.lowlevel.current_statistics().tasks_living <= self.tasks, 5)
        assert not [entry for entry in self.logs if entry["log_level"] == "error"]
        assert not [entry for entry in self.logs if "bug" in entry or "exception" in entry]
        await self.answers()

    async def answers(self) -> None:
        """Fail unless a streamed request is answered whole."""
        answer = await self.served.raw(chat(model="good", head=b"Connection: close\r\n"))
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n"), answer
        assert body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"), answer
        lines = [line[6:] for line in body.splitlines() if line.startswith(b"data: {")]
        deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
        assert "".join(delta.get("content", "") for delta in deltas) == SAID.replace(" ", "")


def chat(*, model: str = "good", head: bytes = b"", **fields: Any) -> bytes:
    """A streamed request of Chat Completions."""
    messages = [{"role": "user", "content": "hi"}]
    return post({"model": model, "stream": True, "messages": messages, **fields}, head=head)


@asynccontextmanager
async def besieged() -> AsyncGenerator[Siege]:
    """Serve until the block is left; then everything must end in time."""
    names = ("good", "stalls", "floods")
    steps: list[list[Step]] = [[GOOD], [BEGUN, FOREVER], [FLOOD] * 400]
    scripts = {name: Script(*script) for name, script in zip(names, steps, strict=True)}
    config = config_from_dict(
        {
            "limits": LIMITS,
            "providers": {name: {"base_url": "http://127.0.0.1:1/v1"} for name in names},
            "models": [{"id": name, "provider": name} for name in names],
        },
        environ={},
    )
    limits: Limits = config.limits
    with capture_logs() as logs:
        async with open_engine(config, upstreams=scripts) as engine:
            app = create_app(engine, keys=Keys(()), hosts=())
            async with serving(
                app, limits, on_drain=app.drain, on_drained=app.end_streams
            ) as served:
                await trio.testing.wait_all_tasks_blocked()
                tasks = trio.lowlevel.current_statistics().tasks_living
                yield Siege(served, scripts, logs, engine, tasks)
