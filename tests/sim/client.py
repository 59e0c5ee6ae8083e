"""The clients of a world: each a connection with requests, read by h11, in its own manner."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

import h11
import trio

from .draw import Guest
from .faults import HalfClose, PartialWriter, Slicer, SlowReader
from .net import End


if TYPE_CHECKING:
    from .upstream import Fate
    from .world import World


STUCK = 200.0
"""Seconds after which a client that has stopped reading leaves."""

AT_ONCE = 0.3
"""Seconds that the server may take to close behind its last answer, beside the network's."""

LEAVERS = {"leaves", "aborts", "junk"}


class Client:
    """One guest at work."""

    def __init__(self, world: World, guest: Guest, end: End) -> None:
        self._world = world
        self._guest = guest
        self.end = end
        self._stream: trio.abc.HalfCloseableStream = Slicer(
            PartialWriter(end, world.chance, max(guest.slice, 64)),
            world.chance,
            max(guest.slice, 64),
        )
        self._http = h11.Connection(h11.CLIENT)

    async def run(self) -> None:
        """Ask everything, one after the other, on one connection."""
        for ask in self._guest.asks:
            await trio.sleep(ask.wait)
            fate = self._world.fates[ask.tag]
            self._world.note(f"client asks {ask.tag}: {ask.api}, {ask.model}, {ask.manner}")
            await self._ask(fate)
            self._world.note(f"client of {ask.tag} has {fate.status}, {len(fate.body)} bytes")
            if not fate.whole:
                break
            if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is not h11.DONE:
                await self._await_close(fate)
                break
            self._http.start_next_cycle()
        await self.end.aclose()

    async def _ask(self, fate: Fate) -> None:
        ask = fate.ask
        if ask.manner == "slow":
            size = 4096 if ask.script.long else max(1000, self._guest.slice)
            self._stream = SlowReader(self.end, size=size, pause=self._guest.pause)
        with suppress(
            trio.BrokenResourceError, trio.ClosedResourceError
        ):  # there may be an answer all the same
            await self._send(fate)
        if ask.manner in {"slow head", "slow body", "garbage"}:
            self._http = h11.Connection(h11.CLIENT)
            self._http.send(h11.Request(method="POST", target="/", headers=[("host", "x")]))
            self._http.send(h11.EndOfMessage())
        fate.sent_at = trio.current_time()
        if ask.manner in LEAVERS:
            with trio.move_on_after(ask.leave_after):
                await self._read(fate)
            if not fate.whole:
                fate.left_at = trio.current_time()
                if ask.manner == "aborts":
                    self.end.reset()
                else:
                    await self.end.aclose()
        else:
            if ask.manner == "half-closes":
                fate.left_at = trio.current_time()
            await self._read(fate)

    async def _send(self, fate: Fate) -> None:
        ask = fate.ask
        text = json.dumps(ask.body()).encode()
        request = h11.Request(
            method="POST",
            target="/v1/chat/completions" if ask.api == "chat" else "/v1/responses",
            headers=[
                ("host", "localhost"),
                ("content-type", "application/json"),
                ("content-length", str(len(text))),
                *([("connection", "close")] if ask.says_close else []),
            ],
        )
        raw_head = self._http.send(request) or b""
        raw_body = self._http.send(h11.Data(data=text)) or b""
        self._http.send(h11.EndOfMessage())
        match ask.manner:
            case "slow head":
                await self._stream.send_all(raw_head[:-10])
            case "slow body":
                await self._stream.send_all(raw_head + raw_body[:-10])
            case "garbage":
                await self._stream.send_all(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            case "junk":
                await self._stream.send_all(raw_head + raw_body + b"GET / HTTP/1.1\r\nHost")
            case "half-closes":
                size = len(raw_head) + len(raw_body)
                await HalfClose(self._stream, size).send_all(raw_head + raw_body)
            case _:
                await self._stream.send_all(raw_head + raw_body)

    async def _read(self, fate: Fate) -> None:
        """Read the answer to its end, or to what ends it."""
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError:
                if fate.closed:  # inside the answer
                    return
                raise
            match event:
                case h11.NEED_DATA:
                    if fate.ask.manner == "stuck" and self._taken(fate) >= fate.ask.stuck_after:
                        await self._sit(fate)
                        return
                    try:
                        data = bytes(await self._stream.receive_some(65536))
                    except (trio.BrokenResourceError, trio.ClosedResourceError):
                        data = b""
                    fate.closed = not data
                    self._http.receive_data(data)
                case h11.Response():
                    fate.status, fate.status_at = event.status_code, trio.current_time()
                    fate.headers = {
                        name.decode().lower(): value.decode() for name, value in event.headers
                    }
                case h11.Data():
                    fate.body += bytes(event.data)
                case h11.EndOfMessage():
                    fate.whole = True
                    return
                case h11.InformationalResponse():
                    pass
                case _:
                    return

    def _taken(self, fate: Fate) -> int:
        return len(fate.body)

    async def _sit(self, fate: Fate) -> None:
        """Read nothing for a long time, then leave."""
        await trio.sleep(STUCK)
        fate.left_at = trio.current_time()
        self._world.look_at_the_stuck(fate, self.end)

    async def _await_close(self, fate: Fate) -> None:
        """The answer was the last of its connection: so the server must close it, at once."""
        with trio.move_on_after(3 * self._guest.latency + AT_ONCE) as patience:
            try:
                while await self.end.receive_some(65536):
                    pass
            except trio.BrokenResourceError:
                pass
        if patience.cancelled_caught:
            self._world.broken(fate, "the server said `connection: close` and did not")
