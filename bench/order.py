"""Numbered tokens: how the load generator knows that a stream arrived whole and in order.

The law of this file: the upstream's deltas are the tokens 0, 1, 2, ... and nothing else, so any
loss, repetition or swap on the way shows, in any API, without an understanding of its events. A
token is a JSON string of its own (`"tok000042 "`): the joined text of the last events of a
Responses stream does not match. A gateway that joins deltas cannot be measured with this.

A scan of the bytes costs a tenth of a JSON parse, and the generator must not be the bottleneck;
the last event is parsed.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from .plan import Api


_TOKEN = re.compile(rb'"tok(\d{6}) "')
_FINISH = re.compile(rb'"finish_reason":\s*"stop"')
_TAIL = 4096
"""Bytes before the last event that are kept, to find chat's finish_reason in."""


def token(number: int) -> str:
    """The text of one delta."""
    return f"tok{number:06d} "


def text(events: int) -> str:
    """The text of a whole stream."""
    return "".join(map(token, range(events)))


@functools.cache
def _numbers(events: int) -> list[bytes]:
    return [b"%06d" % number for number in range(events)]


class StreamCheck:
    """Follows one stream; takes its bytes as they come, in pieces cut anywhere."""

    def __init__(self, api: Api, events: int) -> None:
        self._api = api
        self._events = events
        self._numbers: list[bytes] = []
        self._rest = b""  # a line that has not ended
        self._tail = b""
        self._last = b""  # the last data line, without `data:`

    def feed(self, data: bytes) -> int:
        """Take bytes of the body; return how many tokens they completed."""
        if self._rest:
            data = self._rest + data
        cut = data.rfind(b"\n") + 1
        self._rest = data[cut:]
        lines = data[:cut]
        start = lines.rfind(b"data:")
        if start >= 0:
            self._tail = (self._tail + self._last + lines[max(0, start - _TAIL) : start])[-_TAIL:]
            self._last = lines[start + 5 :]
        found = _TOKEN.findall(lines)
        self._numbers += found
        return len(found)

    def fault(self) -> str | None:
        """The body has ended: what is wrong with the stream, or None."""
        if self._numbers != _numbers(self._events):
            return difference(self._numbers, _numbers(self._events))
        if self._api == "chat":
            return None if self._chat_ended() else "not ended"
        return None if self._response_ended() else "not ended"

    def _chat_ended(self) -> bool:
        return self._last.strip() == b"[DONE]" and bool(_FINISH.search(self._tail))

    def _response_ended(self) -> bool:
        """Whether the last event is `response.completed`, and holds the whole text."""
        try:
            event: Any = json.loads(self._last)
            said = "".join(
                part["text"]
                for item in event["response"]["output"]
                if item["type"] == "message"
                for part in item["content"]
            )
        except (ValueError, LookupError, TypeError):
            return False
        return bool(event.get("type") == "response.completed") and said == text(self._events)


def difference(numbers: list[bytes], expected: list[bytes]) -> str:
    """Name what happened to the tokens; the first that applies."""
    seen = set(numbers)
    if len(seen) < len(numbers):
        return "tokens repeated"
    if not seen <= set(expected):
        return "tokens too many"
    if len(seen) < len(expected):
        return "cut short" if numbers == expected[: len(numbers)] else "tokens lost"
    return "tokens out of order"
