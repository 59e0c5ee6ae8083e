"""Server-sent events: bytes in, frames out, and back.

The law of this file is the WHATWG HTML standard, §9.2.5 and §9.2.6: a line ends with LF, CR or
CRLF and with nothing else (not with U+2028); one BOM may lead; `:` begins a comment; `data` lines
join with LF; a blank line dispatches; an event without data is none. How the bytes were cut never
changes the result.

Where we differ, on purpose: a frame that the stream ends without its blank line is handed over by
`close()`, because servers forget that line after their last event. The caller takes it only if it
is complete in itself (JSON that parses), else the stream was cut.

Time is linear in the bytes, and memory is bounded by the budget of one event: what is not whole
yet is kept as bytes and not as the pieces that it came in, of which each is an object of its own
(a line that trickles in by two bytes would take thirty times its size).
"""

from __future__ import annotations

from .errors import EventTooLarge


Frame = tuple[bytes, bytes]
"""Event name (empty if none was given) and data. Data is bytes: JSON parsers take it as it is,
and no character is ever cut."""

BOM = b"\xef\xbb\xbf"


class SSEDecoder:
    """An incremental decoder of one event stream; `max_event_bytes` bounds what it keeps."""

    def __init__(self, max_event_bytes: int) -> None:
        self._budget = max_event_bytes
        self._line = bytearray()  # the line that has not ended
        self._name = b""
        self._data: bytes | None = None  # the event's first line of data
        self._more = bytearray()  # its other lines, each behind its LF
        self._size = 0  # of the event so far, without the unfinished line
        self._at_start = True
        self._after_cr = False  # the last byte was a CR: an LF now belongs to it

    def feed(self, chunk: bytes, frames: list[Frame] | None = None) -> list[Frame]:
        """Take bytes as they came; return the frames they complete, appended to `frames` if given.

        Raises `EventTooLarge` once one event, or one line, is over the budget. What was complete
        before is in the caller's `frames` then.
        """
        if frames is None:
            frames = []
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
        if b"\r" in chunk:
            self._after_cr = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if lines and self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line.clear()
        for line in lines:
            self._take(line, frames)
        if rest:
            self._line += rest
            if self._size + len(self._line) > self._budget:
                self._overflow()
        return frames

    @property
    def idle(self) -> bool:
        """Whether the next byte begins a frame: nothing of an unfinished one is kept."""
        return not (
            self._line or self._size or self._at_start or self._after_cr or self._data is not None
        )

    def close(self) -> list[Frame]:
        """The stream is over: return the frame whose blank line is missing, if there is one."""
        frames: list[Frame] = []
        if self._line:
            last = bytes(self._line)
            self._line.clear()
            self._take(last, frames)
        self._take(b"", frames)
        return frames

    def _take(self, line: bytes, frames: list[Frame]) -> None:
        """Process one line (§9.2.6)."""
        size = len(line) + 1
        if line and self._size + size > self._budget:
            self._overflow()
        if self._at_start:
            self._at_start = False
            line = line.removeprefix(BOM)
        if not line:
            if self._data is not None:
                if self._more:
                    self._data += self._more
                    self._more.clear()
                frames.append((self._name, self._data))
                self._data = None
            self._name = b""
            self._size = 0
            return
        if line.startswith(b"data:"):
            self._keep(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b":"):
            return
        else:
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                self._name = value
            elif field == b"data":  # a line `data` without a colon is an empty data line
                self._keep(value)
            else:  # id and retry steer a browser's reconnection; the standard ignores the rest
                return
        self._size += size

    def _keep(self, value: bytes) -> None:
        """Add a line of data to the event."""
        if self._data is None:
            self._data = value
        else:
            self._more += b"\n"
            self._more += value

    def _overflow(self) -> None:
        raise EventTooLarge(f"one event of the upstream is over {self._budget} bytes")


def encode_frame(data: bytes, name: bytes = b"") -> bytes:
    """Write one frame. `data` is one line: JSON that we wrote, or `[DONE]`."""
    if name:
        return b"event: " + name + b"\ndata: " + data + b"\n\n"
    return b"data: " + data + b"\n\n"


COMMENT_BEAT = b": keepalive\n\n"
"""A beat that every event-stream parser skips."""
