"""Pieces of a stream that are written without waiting: in order, whole, and only where they fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nursling.engine.errors import LocalProtocolError
from nursling.engine.events import Ended, Event, Failed, Finished, PartDelta
from nursling.engine.formats.base import Identity
from nursling.engine.limits import Limits
from nursling.engine.request import Request
from nursling.transports.http.express import EXTENSION, express_of
from nursling.transports.http.out import NoWay, Out
from nursling.transports.wire import SocketWire
from support.gateway import BEAT, Call, PlainEncoder, PlainFormat, World, post
from support.hosting import hosting
from support.toy import Script, line, opening, words


CHAT = "/v1/chat/completions"
ASK = msgspec.json.encode({"model": "m", "stream": True})
END = line(Finished(0, "stop"), Ended())


class Server:
    """An `Express` that takes what it is told to, and tells the order of things."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self.free = True
        self.fits = 1 << 30
        self.rest = b""
        self.flushed = 0
        self.broken = False
        self.pieces: list[bytes] = []
        self.leave: Callable[[], None] | None = None

    def on_leaving(self, call: Callable[[], None]) -> None:
        self.leave = call

    def write_now(self, data: bytes) -> bool:
        assert self.free
        assert not self.rest
        self.pieces.append(data)
        self._call.pieces.append(data[: self.fits])
        self.rest = data[self.fits :]
        return not self.rest

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise ConnectionResetError
        self.flushed += 1
        self._call.pieces.append(self.rest)
        self.rest = b""


def calling(world: World) -> tuple[Call, Server]:
    call = Call("POST", CHAT, {"content-type": "application/json"}, "http", {})
    call.scope["extensions"] = {}
    call.scope["extensions"][EXTENSION] = server = Server(call)
    call.send(ASK)
    return call, server


def paced(*texts: str) -> Script:
    steps = [step for text in texts for step in (1.0, line(*words(text)))]
    return Script(line(*opening(), *words("a")), *steps, 1.0, END)


def text_of(body: bytes) -> str:
    events = [
        msgspec.json.decode(frame[6:], type=Event)
        for frame in body.split(b"\n\n")
        if frame.startswith(b"data: ")
    ]
    return "".join(event.text for event in events if isinstance(event, PartDelta))


async def test_a_token_takes_the_short_way(autojump_clock: MockClock) -> None:
    """What comes later than the first words is written at once; first and last go by ASGI."""
    world = World(m=paced("b", "c"))
    call, server = calling(world)
    await call.run(world.app)
    assert text_of(call.body) == "abc"
    assert [text_of(piece) for piece in server.pieces] == ["b", "c"]
    assert server.flushed == 0
    (record,) = world.records
    assert (record.outcome, record.bytes_out) == ("ok", len(call.body))
    assert record.events == 3 + 3 + 4  # opening, words, and what ends part, item, choice and reply


async def test_a_rest_is_flushed_before_anything_else(autojump_clock: MockClock) -> None:
    """A piece that did not fit is finished by the request's own task, and order is kept."""
    world = World(m=paced("b", "c", "d"))
    call, server = calling(world)
    server.fits = 3
    await call.run(world.app)
    assert text_of(call.body) == "abcd"
    assert server.flushed == 3


async def test_a_busy_server_gets_it_by_asgi(autojump_clock: MockClock) -> None:
    """Where the short way is not free, the stream is the same."""
    world = World(m=paced("b", "c"))
    call, server = calling(world)
    server.free = False
    await call.run(world.app)
    assert text_of(call.body) == "abc"
    assert not server.pieces


async def test_beats_count_from_the_last_piece(autojump_clock: MockClock) -> None:
    """Words that took the short way are no silence: a beat comes when there was none for long."""
    script = Script(line(*opening(), *words("a")), 4.0, line(*words("b")), 7.0, END)
    world = World(Limits(heartbeat=5), m=script)
    call, _ = calling(world)
    beats: list[float] = []

    async def watch() -> None:
        seen = 0
        while not call.over.is_set():
            if call.body.count(BEAT) > seen:
                seen += 1
                beats.append(trio.current_time())
            await trio.sleep(0.5)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await call.run(world.app)
    assert len(beats) == 1
    assert 9.0 <= beats[0] <= 9.5


async def test_a_bug_of_the_encoder_is_this_requests(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """An encoder that fails on the short way cuts its stream, and its upstream is released."""

    class Fragile(PlainEncoder):
        def encode(self, events: list[Event]) -> bytes:
            if any(isinstance(event, PartDelta) and event.text == "c" for event in events):
                raise ZeroDivisionError
            return super().encode(events)

    def encoder(_form: PlainFormat, _request: Request, _identity: Identity) -> Fragile:
        return Fragile()

    monkeypatch.setattr(PlainFormat, "encoder", encoder)
    script = paced("b", "c", "d")
    world = World(m=script)
    call, _ = calling(world)
    await call.run(world.app)
    assert text_of(call.body) == "ab"
    assert isinstance(msgspec.json.decode(call.body.split(b"\n\n")[-2][6:], type=Event), Failed)
    (record,) = world.records
    assert record.outcome == "internal_error"
    assert record.bug is not None
    assert "ZeroDivisionError" in record.bug
    world.assert_clean()


async def test_a_client_that_is_gone_at_the_flush(autojump_clock: MockClock) -> None:
    """An `OSError` of the flush means what one of `send` means: nothing more arrives."""
    world = World(m=paced("b"))
    call, server = calling(world)
    server.fits, server.broken = 3, True
    await call.run(world.app)
    (record,) = world.records
    assert record.outcome == "client_gone"


async def test_a_client_that_leaves_in_mid_stream(autojump_clock: MockClock) -> None:
    """The server's call cancels the request at once, and frees its upstream."""
    script = paced("b", "c")
    world = World(m=script)
    call, server = calling(world)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(call.run, world.app)
        await trio.sleep(1.5)
        assert server.leave is not None
        server.leave()
        await call.over.wait()
    assert trio.current_time() == 1.5
    assert text_of(call.body) == "ab"
    assert not call.ended
    (record,) = world.records
    assert record.outcome == "client_gone"
    world.assert_clean()


def test_a_server_without_the_extension() -> None:
    """Nothing is offered, so nothing is free; whoever writes nevertheless is told."""
    assert express_of({"type": "http"}) is None
    assert express_of({"type": "http", "extensions": None}) is None
    way: Any = NoWay()
    assert not way.free
    with pytest.raises(LocalProtocolError):
        way.write_now(b"x")


@pytest.mark.parametrize("version", ["1.0", "1.1"])
async def test_our_own_server_offers_it(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a real socket a slow stream arrives whole by the short way, chunked or not."""
    taken: list[bytes] = []
    write_now = Out.write_now

    def counting(out: Out, data: bytes) -> bool:
        taken.append(data)
        return write_now(out, data)

    monkeypatch.setattr(Out, "write_now", counting)
    steps = [step for text in "bcd" for step in (0.02, line(*words(text)))]
    script = Script(line(*opening(), *words("a")), *steps, 0.02, END)
    async with hosting(m=script) as (_, served):
        request = post({"model": "m", "stream": True}, head=b"Connection: close\r\n")
        answer = await served.raw(request.replace(b"HTTP/1.1", b"HTTP/" + version.encode()))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert (b"transfer-encoding: chunked" in head.lower()) is (version == "1.1")
    if version == "1.1":
        body = unchunked(body)
    assert text_of(body) == "abcd"
    assert len(taken) == 3


async def test_a_socket_that_takes_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a full socket has not taken follows in order, and nothing overtakes it."""
    everything = SocketWire.write_now
    monkeypatch.setattr(SocketWire, "write_now", lambda wire, data: everything(wire, data[:7]))
    steps = [step for text in "bcdefgh" for step in (0.01, line(*words(text)))]
    script = Script(line(*opening(), *words("a")), *steps, 0.01, END)
    async with hosting(m=script) as (_, served):
        request = post({"model": "m", "stream": True}, head=b"Connection: close\r\n")
        answer = await served.raw(request)
    assert text_of(unchunked(answer.partition(b"\r\n\r\n")[2])) == "abcdefgh"


def unchunked(data: bytes) -> bytes:
    """Take the chunks apart, strictly."""
    body = b""
    while True:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        assert data[length : length + 2] == b"\r\n"
        if not length:
            assert data == b"\r\n"
            return body
        body += data[:length]
        data = data[length + 2 :]
