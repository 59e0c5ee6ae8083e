"""The upstreams of a world: HTTP/1.1 servers on its network, which play the scripts of the draw.

Each reply is sent through the wrapper of what goes wrong with it. What really went out is noted in
the `Fate` of its request: how many frames, when the first of them that says something, and whether
anybody asked twice.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import trio

from .content import Content
from .draw import Ask, Script
from .faults import Cut, Fin, Garbage, Latency, PartialWriter, Reset, Stall
from .net import End, Pipe


if TYPE_CHECKING:
    from .world import World


_TAG = re.compile(rb"<<(\w+)>>")


@dataclass
class Fate:
    """What became of one request, seen from the world outside."""

    ask: Ask
    # The upstream's side.
    asked: int = 0
    """How often the upstream was asked."""
    frames_out: int = 0
    """Whole frames that have left; for a whole reply 1 when all of it has."""
    spoke_at: float | None = None
    """When the first thing left that says something."""
    line: End | None = None
    """The gateway's end of the connection to the upstream."""
    done: bool = False
    """Whether the upstream has sent its last frame."""
    pipe: Pipe | None = None
    """What its reply is written to, while it is."""
    written: int = 0
    """Bytes on that pipe: before the reply while it is written, of the reply when it has been."""
    released_at: float | None = None
    """When the upstream had sent everything, so that nobody had to be freed of it."""
    unheard: bool = False
    """Whether it had arrived at an upstream that closed without looking."""
    poisoned: bool = False
    """Whether garbage was left on its connection by the reply before. A socket would have told."""
    # The client's side.
    sent_at: float | None = None
    status: int = 0
    status_at: float = 0.0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    whole: bool = False
    """Whether the HTTP answer came to its end."""
    closed: bool = False
    """Whether the server closed the connection, answer or not."""
    left_at: float | None = None
    """When the client left before the end."""

    @property
    def out(self) -> int:
        """Bytes of the reply that have left the upstream."""
        return self.written if self.pipe is None else self.pipe.sent - self.written

    @property
    def framing(self) -> str:
        """How the upstream frames its answer."""
        framing = self.ask.script.framing
        return "chunked" if framing == "length" and self.streamed else framing

    @property
    def streamed(self) -> bool:
        """Whether the upstream answers with a stream."""
        asked = self.ask.stream or self.ask.model.endswith("-fold")
        return asked != self.ask.script.other_way

    @property
    def said(self) -> Content:
        """What the upstream has said with what has left."""
        script = self.ask.script
        if self.streamed:
            return script.contents[self.frames_out]
        return script.final if self.frames_out else script.contents[0]


class Upstream:
    """One connection that somebody has dialled."""

    def __init__(self, world: World, end: End, theirs: End) -> None:
        self._world = world
        self._end = end
        self._theirs = theirs
        self._buffer = b""

    async def serve(self) -> None:
        """Answer one request after the other, until either side has had enough."""
        poisoned = False
        try:
            while (fate := await self._request()) is not None:
                fate.line, fate.poisoned = self._theirs, poisoned
                poisoned = fate.ask.script.upset == "garbage"
                if not await self._answer(fate):
                    break
                if not await self._more(fate.ask.script.shuts_after):
                    break
        except (Cut, trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        await self._end.aclose()
        for tag in _TAG.findall(self._buffer + self._end.incoming.left):
            self._world.fates[tag.decode()].unheard = True

    async def _request(self) -> Fate | None:
        while b"\r\n\r\n" not in self._buffer:
            if not await self._more():
                return None
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head.lower())[1])  # type: ignore[index]  # else the world fails
        while len(self._buffer) < length:
            if not await self._more():
                return None
        body, self._buffer = self._buffer[:length], self._buffer[length:]
        fate = self._world.fates[_TAG.search(body)[1].decode()]  # type: ignore[index]  # as above
        fate.asked += 1
        self._world.note(f"upstream is asked for {fate.ask.tag}: {len(body)} bytes")
        asked = json.loads(body)
        assert asked["stream"] == (fate.ask.stream or fate.ask.model.endswith("-fold"))
        fate.line = self._theirs
        self._world.began(fate)
        return fate

    async def _more(self, seconds: float | None = None) -> bool:
        data = b""
        with trio.move_on_after(math.inf if seconds is None else seconds):
            data = await self._end.receive_some()
        self._buffer += data
        return bool(data)

    async def _answer(self, fate: Fate) -> bool:
        """Play a script; return whether the connection may be used again."""
        script = fate.ask.script
        if script.upset == "status":
            code, text, more = script.status
            await self._send(head(code, {**more, "content-length": str(len(text))}) + text)
            fate.done = True
            fate.released_at = trio.current_time()
            return True
        pieces = body_of(script, streamed=fate.streamed)
        framing = fate.framing
        wire = [frame_of(piece, framing) for piece in pieces]
        headers = {
            "content-type": "text/event-stream" if fate.streamed else "application/json",
            **({} if script.keep_alive else {"connection": "close"}),
        }
        if framing == "chunked":
            headers["transfer-encoding"] = "chunked"
        elif framing == "length":
            headers["content-length"] = str(sum(map(len, pieces)))
        else:
            headers["connection"] = "close"
        first = head(200, headers)
        stream = self._spoilt(script, len(first) + sum(map(len, wire)))
        await self._play(fate, stream, first, wire)
        if framing == "chunked":
            await stream.send_all(b"0\r\n\r\n")
        fate.released_at = trio.current_time()
        return framing != "close" and script.keep_alive

    def _spoilt(self, script: Script, size: int) -> trio.abc.HalfCloseableStream:
        """Put the fault on the connection."""
        chance = self._world.chance
        place = place_of(script, size)
        inner = self._end
        match script.upset:
            case "silent":
                return Stall(inner, 0)
            case "fin":
                return Fin(inner, place)
            case "reset":
                return Reset(inner, place)
            case "stall":
                return Stall(inner, place)
            case "garbage":
                return Garbage(PartialWriter(inner, chance, 500), place)
            case _:
                slow = chance.random.random() < 0.1
                return Latency(inner, 0.1) if slow else PartialWriter(inner, chance, 30_000)

    async def _play(
        self, fate: Fate, stream: trio.abc.HalfCloseableStream, first: bytes, wire: list[bytes]
    ) -> None:
        script, waits = fate.ask.script, cycle(fate.ask.script.waits)
        fate.written = self._end.outgoing.sent
        fate.pipe = self._end.outgoing
        try:
            await stream.send_all(first)
            for number in range(0, len(wire), script.burst):
                await trio.sleep(next(waits))
                burst = wire[number : number + script.burst]
                self._note(fate, number + len(burst))
                if number + len(burst) == len(wire):
                    fate.done = True
                await stream.send_all(b"".join(burst))
        except Cut:
            fate.done = True
            raise
        finally:
            fate.written, fate.pipe = fate.out, None
            out = fate.written - len(first)
            if script.upset == "garbage":  # what follows it does not count
                out = min(out, place_of(script, len(first) + sum(map(len, wire))) - len(first))
            fate.frames_out = frames_within(script, fate, wire, out)
            self._world.note(f"upstream of {fate.ask.tag} sent {fate.frames_out} frames")

    def _note(self, fate: Fate, frames: int) -> None:
        """Note when the first burst leaves that says something."""
        script = fate.ask.script
        says = not fate.streamed or any(
            content.meaningful for content in script.contents[: frames + 1]
        )
        if says and fate.spoke_at is None:
            fate.spoke_at = trio.current_time()

    async def _send(self, data: bytes) -> None:
        await self._end.send_all(data)


def place_of(script: Script, size: int) -> int:
    """Where in an answer of `size` bytes it goes wrong."""
    return max(1, min(size, round(script.place * size)))


def body_of(script: Script, *, streamed: bool) -> list[bytes]:
    """The pieces of the body, what is wrong inside it included."""
    if not streamed:
        return [script.whole]
    frames = script.frames
    kept = frames[: max(1, round(script.place * (len(frames) - 1)))]
    match script.upset:
        case "no end":
            return kept
        case "error":
            if script.api == "chat":
                return [*kept, b'data: {"error":{"message":"overheated","code":"hot"}}\n\n']
            error = {"type": "error", "code": "hot", "message": "overheated", "param": None}
            event = json.dumps({**error, "sequence_number": len(kept)})
            return [*kept, f"event: error\ndata: {event}\n\n".encode()]
        case "giant":
            return [*kept, b'data: {"x": "' + b"x" * (1 << 20), b"x" * 10_000]
        case _:
            return frames


def frames_within(script: Script, fate: Fate, wire: list[bytes], out: int) -> int:
    """How many frames of the script are whole in the first `out` bytes of the body."""
    if not fate.streamed:
        overhead = 2 if script.framing == "chunked" else 0
        return int(out >= len(wire[0]) - overhead)
    count = 0
    for number, piece in enumerate(wire):
        tail = 2 if piece.endswith(b"\r\n") else 0  # the end of an HTTP chunk
        if out < len(piece) - tail or number >= len(script.frames):
            break
        if piece.strip(b"\r\n").endswith(script.frames[number].strip()):
            count += 1
        out -= len(piece)
    return count


def frame_of(piece: bytes, framing: str) -> bytes:
    """A piece of a body as the framing says it."""
    return b"%x\r\n%b\r\n" % (len(piece), piece) if framing == "chunked" else piece


def head(status: int, headers: dict[str, str]) -> bytes:
    """A status line and headers."""
    lines = [
        f"HTTP/1.1 {status} Scripted",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()
