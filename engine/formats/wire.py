"""What all HTTP formats share in reading a reply: telling a stream of events from a JSON body.

The law of this file: what the upstream was asked and what its content type claims do not matter;
its first byte that is not white space decides. `{` or `[` begins a JSON body, `<` an HTML page
(some proxy's error with status 200), everything else is an event stream. So "JSON when a stream
was asked" and the reverse are no special cases.

A `Dialect` is what a format knows; `WireDecoder` is what it need not know.
"""

from __future__ import annotations

from typing import Any, Protocol

from .. import jsontext
from ..errors import (
    EventTooLarge,
    NurslingError,
    RemoteProtocolError,
    ReplyTooLarge,
    Truncated,
    UpstreamError,
)
from ..events import Ended, Event, Failed, PartDelta
from ..limits import Limits
from ..sse import BOM, Frame, SSEDecoder
from .stencil import END, Repeat, Stencil, cut


DONE = b"[DONE]"
MAX_QUOTE = 500
"""Bytes that are quoted of an error that is not JSON."""
TRIES = 8
"""Frames with nothing but a text in them that may fail to repeat each other in a row, before a
stream is taken for one that has no use for a stencil (choices that grow in turns, say)."""
_WHITE = b" \t\r\n"


class Dialect(Protocol):
    """One format's reading of frames and bodies, for one reply. Appends events to `out`.

    Each method may raise an `UpstreamError` of any kind, and nothing else. After an `Ended`
    or a `Failed` was appended, none of them is called again.
    """

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason."""
        ...

    @property
    def held(self) -> int:
        """Bytes of memory that the dialect keeps of what no event has carried yet."""
        ...

    def on_frame(self, name: bytes, data: bytes, out: list[Event]) -> None:
        """One frame of a stream; `data` is JSON text or `[DONE]`, `name` its `event:` or empty."""
        ...

    def repeats(self, event: PartDelta) -> Repeat | None:
        """Say how a frame that gave nothing but this event may be read again, by its text alone.

        None: each frame of its kind has to be parsed.
        """
        ...

    def on_whole(self, body: Any, out: list[Event]) -> None:
        """A whole body, as parsed. Ends with `Ended` or `Failed`."""
        ...

    def on_eof(self, out: list[Event]) -> None:
        """A stream that has brought frames is over, cleanly. Appends its end, or raises."""
        ...


class WireDecoder:
    """The `Decoder` of an HTTP format: bytes -> events, by way of its dialect."""

    def __init__(self, dialect: Dialect, limits: Limits) -> None:
        self._dialect = dialect
        self._limits = limits
        self._sse: SSEDecoder | None = None
        self._body: bytearray | None = None
        self._head = b""
        self._frames = 0
        self._over = False
        self._stencil: Stencil | None = None
        self._tries = TRIES

    @property
    def finished(self) -> bool:
        """See `Decoder.finished`."""
        return self._over or self._dialect.finished

    def feed(self, data: bytes) -> list[Event]:
        """See `Decoder.feed`."""
        out: list[Event] = []
        if self._over:
            return out
        try:
            self._feed(data, out)
        except NurslingError as error:
            out.append(Failed(error.info()))
            self._over = True
        return out

    def close(self) -> list[Event]:
        """See `Decoder.close`."""
        out: list[Event] = []
        if self._over:
            return out
        try:
            self._close(out)
        except NurslingError as error:
            out.append(Failed(error.info()))
        self._over = True
        return out

    def _feed(self, data: bytes, out: list[Event]) -> None:
        if self._sse is None and self._body is None:
            data = self._sniff(data)
        if self._sse is not None:
            self._read(self._sse, data, out)
        elif self._body is not None:
            if len(self._body) + len(data) > self._limits.max_reply_bytes:
                raise ReplyTooLarge(f"the reply is over {self._limits.max_reply_bytes} bytes")
            self._body += data

    def _read(self, sse: SSEDecoder, data: bytes, out: list[Event]) -> None:
        """Read a stream: through the stencil what fits it, and parse the rest."""
        at = 0
        while at < len(data) and not self._over:
            at = self._read_repeats(sse, data, at, out)
            if at == len(data):
                return
            end = END.search(data, at) if self._tries else None
            frame = data[at : end.end() if end else len(data)]
            whole = end is not None and sse.idle
            before = len(out)
            if self._stencil is not None:
                self._stencil.confirmed = False  # by a torn frame too: nothing is learnt from it
            self._parse(sse, frame, out)
            if whole:
                self._learn(frame, out[before:])
            at += len(frame)

    def _read_repeats(self, sse: SSEDecoder, data: bytes, at: int, out: list[Event]) -> int:
        if self._stencil is None or not self._stencil.confirmed or not sse.idle:
            return at
        at = self._stencil.read(data, at, out)
        self._check_held()
        return at

    def _learn(self, frame: bytes, events: list[Event]) -> None:
        """Look at what a whole frame has given, and whether others can be read like it."""
        stencil = self._stencil
        match events:
            case [PartDelta(text=str(text), logprobs=None, extra=None) as event] if text:
                if stencil is not None and stencil.fits(frame, event):
                    stencil.confirmed, self._tries = True, TRIES
                    return
                repeat = self._dialect.repeats(event)
                most = self._limits.max_event_bytes
                self._stencil = cut(frame, event, repeat, most) if repeat else None
                self._tries -= 1
            case _:
                pass

    def _parse(self, sse: SSEDecoder, data: bytes, out: list[Event]) -> None:
        frames: list[Frame] = []
        broken: EventTooLarge | None = None
        try:
            sse.feed(data, frames)
        except EventTooLarge as error:
            broken = error
        for name, text in frames:  # what came before an oversized event still counts
            self._frame(name, text, out)
            if self._over:
                return
        if broken is not None:
            raise broken

    def _close(self, out: list[Event]) -> None:
        if self._body is not None:
            self._whole(bytes(self._body), out)
            return
        if self._sse is None:
            raise Truncated("the upstream's reply was empty")
        for name, text in self._sse.close():
            # Without its blank line a frame counts only if it is complete in itself.
            if text != DONE and not _is_json(text):
                raise Truncated("the upstream's stream was cut inside an event")
            self._frame(name, text, out)
        if self._over:
            return
        if not self._frames:
            raise Truncated("the upstream's stream had no event")
        self._dialect.on_eof(out)

    def _sniff(self, data: bytes) -> bytes:
        """Decide by the first byte that counts; until it comes, keep what came."""
        head = self._head + data
        if BOM.startswith(head):
            self._head = head
            return b""
        text = head.removeprefix(BOM).lstrip(_WHITE)
        blank = _blank(head[: len(head) - len(text)])
        self._head = b"" if text else blank
        if not text:
            return b""
        if text[:1] in b"{[":
            self._body = bytearray()
            return text
        if text[:1] == b"<":
            raise RemoteProtocolError("the upstream answered with a page of HTML")
        self._sse = SSEDecoder(self._limits.max_event_bytes)
        return blank + text

    def _frame(self, name: bytes, text: bytes, out: list[Event]) -> None:
        if not text:
            return
        self._frames += 1
        self._dialect.on_frame(name, text, out)
        self._check_held()
        self._over = bool(out) and isinstance(out[-1], Ended | Failed)

    def _check_held(self) -> None:
        if self._dialect.held > self._limits.max_reply_bytes:
            raise ReplyTooLarge(f"the reply is over {self._limits.max_reply_bytes} bytes")

    def _whole(self, text: bytes, out: list[Event]) -> None:
        try:
            body = jsontext.loads(text)
        except ValueError as error:
            raise Truncated(f"the upstream's body is not whole JSON: {error}") from None
        self._dialect.on_whole(body, out)


def _blank(head: bytes) -> bytes:
    """White space at a beginning, as short as means the same to an event stream.

    Whether a line has ended and whether the next one is indented matters, how often does not.
    """
    *ended, line = head.removeprefix(BOM).replace(b"\r", b"\n").split(b"\n")
    start = b"\n" if ended else head[: len(BOM)] if head.startswith(BOM) else b""
    return start + (b" " if line else b"")


def parse_frame(text: bytes) -> Any:
    """Parse the data of one frame; raise `RemoteProtocolError` if it is not JSON.

    transformers 5.23 writes its error frame by hand, so that a quote or a line break in the words
    breaks the JSON. It is the upstream's own failure all the same: `UpstreamError`.
    """
    try:
        return jsontext.loads(text)
    except ValueError as error:
        if text.startswith(b'{"error"'):
            words = text.partition(b":")[2].strip(b' "}')[:MAX_QUOTE].decode("utf-8", "replace")
            raise UpstreamError(f"the upstream failed: {words}") from None
        raise RemoteProtocolError(f"an event of the upstream is not JSON: {error}") from None


def _is_json(text: bytes) -> bool:
    try:
        jsontext.loads(text)
    except ValueError:
        return False
    return True
