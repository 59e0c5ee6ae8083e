"""Hostile clients: what they do with their connections, where bytes alone do not say it.

Each entry is a coroutine of a `Siege`; it returns when the client has done its worst, and asserts
what it was told, where it is told something.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Awaitable, Callable

import trio

from .gateway import read_to_end, read_until, until
from .hostile_http import WS, chunked, get, send
from .siege import LIMITS, Siege, chat


Client = Callable[[Siege], Awaitable[None]]

CLIENTS: dict[str, Client] = {}


def client(name: str) -> Callable[[Client], Client]:
    def keep(what: Client) -> Client:
        CLIENTS[name] = what
        return what

    return keep


def reset(stream: trio.SocketStream) -> None:
    """Close with an RST."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.socket.close()


async def drip(stream: trio.SocketStream, data: bytes, pause: float) -> float:
    """Send byte by byte until the server has had enough; return how long that was."""
    started = trio.current_time()
    try:
        for byte in data:
            await stream.send_all(bytes([byte]))
            await trio.sleep(pause)
    except trio.BrokenResourceError:
        pass
    return trio.current_time() - started


PARTS = {
    "nothing": b"",
    "half a request line": b"GET /li",
    "half a head": get()[:-2],
    "a head": send(b"Content-Length: 100\r\n"),
    "half a body": chat()[:-10],
    "half a chunk": chunked(b"ff\r\nabc"),
    "a stream that goes on": chat(model="stalls"),
    "a flood": chat(model="floods"),
    "an upgrade": WS,
    "a request and half a one": chat() + get()[:-2],
    "a request and junk": chat(model="stalls") + b"\x00" * 1000,
}


def _leaves(data: bytes, how: str, wait: float) -> Client:
    async def run(siege: Siege) -> None:
        stream = await siege.served.connect()
        if data:
            await stream.send_all(data)
        await trio.sleep(wait)
        if how == "resets":
            reset(stream)
            return
        if how == "half-closes":
            await stream.send_eof()
            with trio.move_on_after(1):  # with unread bytes it counts as there, and is answered
                await read_to_end(stream)
        await stream.aclose()

    return run


for part, data in PARTS.items():
    for how in ("closes", "half-closes", "resets"):
        CLIENTS[f"sends {part}, then {how}"] = _leaves(data, how, 0.03)
CLIENTS["sends a stream that goes on, then resets at once"] = _leaves(
    chat(model="stalls"), "resets", 0
)


@client("head byte by byte")
async def slow_head(siege: Siege) -> None:
    """The head has its time, however busily it comes."""
    async with await siege.served.connect() as stream:
        took = await drip(stream, get(head=b"X: y\r\n" * 300), 0.01)
        assert await read_to_end(stream) in {b"", b"<reset>"}
        assert took < LIMITS["head_timeout"] + 2


@client("second head byte by byte")
async def slow_second_head(siege: Siege) -> None:
    """And so has the next one on the same connection."""
    async with await siege.served.connect() as stream:
        await stream.send_all(get(close=False))
        await read_until(stream, b"ok\n")
        await drip(stream, get(head=b"X: y\r\n" * 300), 0.01)
        assert await read_to_end(stream) in {b"", b"<reset>"}


@client("empty lines for ever")
async def empty_lines(siege: Siege) -> None:
    """A few empty lines are overlooked, no more."""
    async with await siege.served.connect() as stream:
        await drip(stream, b"\r\n" * 5, 0.005)
        assert b" 400 " in await read_to_end(stream)


@client("body that stops")
async def body_that_stops(siege: Siege) -> None:
    """It is told so."""
    assert (await siege.served.raw(chat()[:-1])).startswith(b"HTTP/1.1 408 ")


@client("body byte by byte")
async def slow_body(siege: Siege) -> None:
    """Each byte comes in time, the whole does not: its place is somebody else's again."""
    head, _, body = chat(messages=[{"role": "user", "content": "x" * 400}]).partition(b"\r\n\r\n")
    async with await siege.served.connect() as stream:
        await stream.send_all(head + b"\r\n\r\n")
        took = await drip(stream, body, 0.03)
        assert (await read_to_end(stream)).startswith((b"HTTP/1.1 408 ", b"<reset>"))
        assert took < LIMITS["body_timeout"] + 4


@client("expects, and does not send")
async def expects_and_waits(siege: Siege) -> None:
    """100, then nothing: 408."""
    head = chat(head=b"Expect: 100-continue\r\n").partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
    answer = await siege.served.raw(head)
    assert answer.startswith(b"HTTP/1.1 100 Continue\r\n")
    assert answer.count(b"HTTP/1.1 408 Request Timeout\r\n") == 1


@client("expects for a body that is too large")
async def expects_too_much(siege: Siege) -> None:
    """No 100 for what will not be read."""
    head = b"Content-Length: 99999999\r\nExpect: 100-continue\r\n"
    answer = await siege.served.raw(send(head))
    assert b"HTTP/1.1 413 " in answer


@client("too large a body, all of it")
async def too_large(siege: Siege) -> None:
    """The refusal arrives although the client goes on sending."""
    async with await siege.served.connect() as stream:
        await stream.send_all(send(b"Transfer-Encoding: chunked\r\n"))
        for _ in range(40):
            await stream.send_all(b"10000\r\n" + b" " * 65536 + b"\r\n")
        answer = await read_to_end(stream)
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"<reset>" not in answer


@client("reads nothing of a flood")
async def zero_window(siege: Siege) -> None:
    """It is cut when its patience is over."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    await sock.connect(("127.0.0.1", siege.served.port))
    stream = trio.SocketStream(sock)
    await stream.send_all(chat(model="floods"))
    script = siege.scripts["floods"]
    await until(lambda: script.open_now == 1)
    await until(lambda: script.open_now == 0)
    assert script.reads < 400
    await stream.aclose()


@client("reads a flood byte by byte, then resets")
async def sips(siege: Siege) -> None:
    """Whoever sips is served until it leaves."""
    stream = await siege.served.connect()
    await stream.send_all(chat(model="floods"))
    for _ in range(100):
        assert await stream.receive_some(1)
    reset(stream)


@client("stray bytes after a refused upgrade")
async def stray_bytes(siege: Siege) -> None:
    """hypercorn#225, with time in between."""
    async with await siege.served.connect() as stream:
        await stream.send_all(WS)
        await read_until(stream, b"websocket_unsupported")
        await drip(stream, b"\x00\x81\x05hello", 0.005)


@client("1,000 requests at once")
async def pipelined(siege: Siege) -> None:
    """All are answered, in full."""
    answer = await siege.served.raw(get(close=False) * 999 + get())
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 1000


@client("1,000 requests at once, and gone")
async def pipelined_and_gone(siege: Siege) -> None:
    """Nobody works for it for long."""
    stream = await siege.served.connect()
    await stream.send_all(get(close=False) * 1000)
    reset(stream)


@client("a good request, then a bad one")
async def good_then_bad(siege: Siege) -> None:
    """The good one is answered whole before the bad one is refused."""
    answer = await siege.served.raw(chat() + b"\x00\x00\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert answer.count(b"data: [DONE]") == 1
    assert answer.count(b"HTTP/1.1 400 Bad Request\r\n") == 1


@client("a bad request, then a good one")
async def bad_then_good(siege: Siege) -> None:
    """What stands behind a refused request is no request."""
    answer = await siege.served.raw(send(b"Content-Length: x\r\n") + get())
    assert answer.count(b"HTTP/1.1 ") == 1


@client("a request smuggled behind a short length")
async def smuggled(siege: Siege) -> None:
    """What a length leaves over is a request of its own, of the same client, or nothing."""
    answer = await siege.served.raw(chat() + get(b"/smuggled"))
    assert answer.count(b"HTTP/1.1 200 OK\r\n") == 1
    assert answer.count(b"HTTP/1.1 404 Not Found\r\n") == 1


@client("urgent data")
async def urgent(siege: Siege) -> None:
    """A byte out of band is none of the request."""
    stream = await siege.served.connect()
    await stream.send_all(get()[:10])
    await stream.socket.send(b"!", socket.MSG_OOB)
    await stream.send_all(get()[10:])
    await read_until(stream, b"ok\n")
    await stream.aclose()


@client("300 connections that say nothing")
async def silent_crowd(siege: Siege) -> None:
    """They are closed in time, and others are served meanwhile."""
    crowd = [await siege.served.connect() for _ in range(300)]
    await siege.answers()
    for stream in crowd:
        assert await read_to_end(stream, 10) == b""
        await stream.aclose()


@client("200 connections that reset at once")
async def resetting_crowd(siege: Siege) -> None:
    """Some are gone before they are accepted."""
    for _ in range(200):
        reset(await siege.served.connect())


@client("a body of 60 KB in pieces of 7 bytes")
async def crumbs(siege: Siege) -> None:
    """Small segments cost no more than linear time."""
    said = [{"role": "user", "content": "x" * 60_000}]
    data = chat(messages=said, head=b"Connection: close\r\n")
    started = time.monotonic()
    async with await siege.served.connect() as stream:
        for at in range(0, len(data), 7):
            await stream.send_all(data[at : at + 7])
        assert b"[DONE]" in await read_to_end(stream)
    assert time.monotonic() - started < 20
