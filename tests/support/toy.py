"""A toy format and a scripted upstream, to drive the pipeline without any real wire.

The toy wire is one JSON event per line, so a test writes down the very events it means.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from nursling.engine.accumulate import FinishedReply
from nursling.engine.errors import ErrorInfo, NurslingError, Truncated
from nursling.engine.events import (
    Ended,
    Event,
    Failed,
    Finished,
    ItemStarted,
    PartDelta,
    PartStarted,
    Started,
)
from nursling.engine.formats.base import Call, Decoder, Encoder, Identity, Rendered
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Source
from nursling.engine.request import Message, Request, Text


_decode = msgspec.json.Decoder(Event).decode


def line(*events: Event) -> bytes:
    return b"".join(msgspec.json.encode(event) + b"\n" for event in events)


def opening() -> list[Event]:
    return [Started("r1", "m", 1), ItemStarted(0, "message"), PartStarted(0, 0, "text")]


def words(*texts: str) -> list[Event]:
    return [PartDelta(0, 0, text) for text in texts]


HELLO = line(*opening(), *words("hel", "lo"), Finished(0, "stop"), Ended())
REQUEST = Request(model="m", items=[Message(role="user", content=[Text("hi")])], stream=True)


class ToyDecoder:
    def __init__(self) -> None:
        self._rest = b""
        self.finished = False
        self._over = False

    def feed(self, data: bytes) -> list[Event]:
        *lines, self._rest = (self._rest + data).split(b"\n")
        events = [_decode(text) for text in lines if text != b"beat"]
        self._watch(events)
        return events

    def close(self) -> list[Event]:
        if self.finished and not self._over:
            self._over = True
            return [Ended()]
        return [Failed(Truncated("cut").info())]

    def _watch(self, events: list[Event]) -> None:
        for event in events:
            match event:
                case Finished():
                    self.finished = True
                case ItemStarted():
                    self.finished = False
                case Ended() | Failed():
                    self._over = True
                case _:
                    pass


class ToyFormat:
    name = "toy"
    path = "/toy"

    def parse_request(self, body: Any) -> Request:
        raise AssertionError

    def render_request(self, request: Request, call: Call) -> Rendered:
        return Rendered({"model": call.model, "stream": call.stream}, ["seed"], request.stop)

    def decoder(self, request: Request, limits: Limits) -> Decoder:
        return ToyDecoder()

    def encoder(self, request: Request, identity: Identity) -> Encoder:
        raise AssertionError

    def render_reply(
        self, reply: FinishedReply, request: Request, identity: Identity
    ) -> dict[str, Any]:
        raise AssertionError

    def render_error(self, error: ErrorInfo) -> dict[str, Any]:
        raise AssertionError

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        return ErrorInfo(message=body.decode(), status=status, fault="upstream", type="t", code="c")


Step = bytes | float | Exception
"""What a scripted source does next: bring bytes, wait seconds, or break."""


class Script:
    """An upstream that plays steps; the script's end is a clean end of its bytes."""

    def __init__(
        self,
        *steps: Step,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        before: Sequence[Step] = (),
        stubborn: bool = False,
    ) -> None:
        self.steps = steps
        self.before = before
        self.status = status
        self.headers = dict(headers or {})
        self.stubborn = stubborn  # its reads cannot be interrupted
        self.asked: list[dict[str, Any]] = []
        self.reads = 0
        self.open_now = 0
        self.closed_at: float | None = None
        self.read_to_end = False

    @asynccontextmanager
    async def open(
        self, body: dict[str, Any], *, path: str, stream: bool
    ) -> AsyncGenerator[Source, None]:
        self.asked.append(body)
        self.open_now += 1
        try:
            await self._play(self.before)
            yield _Reading(self)
        finally:
            self.open_now -= 1
            self.closed_at = trio.current_time()

    async def _play(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Exception():
                    raise step
                case bytes():
                    raise AssertionError(step)
                case _:
                    await trio.sleep(step)


class _Reading:
    def __init__(self, script: Script) -> None:
        self._script = script
        self._left = list(script.steps)
        self.status = script.status
        self.headers = script.headers

    async def read_some(self) -> bytes:
        with trio.CancelScope(shield=self._script.stubborn):
            data = await self._read()
        return data  # noqa: RET504 - to mypy, a return inside a scope may not happen

    async def _read(self) -> bytes:
        await trio.lowlevel.checkpoint()
        self._script.reads += 1
        while self._left:
            step = self._left.pop(0)
            match step:
                case bytes():
                    return step
                case Exception():
                    raise step
                case _:
                    await trio.sleep(step)
        self._script.read_to_end = True
        return b""


__all__ = ["HELLO", "REQUEST", "NurslingError", "Script", "ToyFormat", "line", "opening", "words"]
