"""Numbered tokens: how the load generator knows that a stream arrived whole and in order.

The law of this file: the upstream's deltas are the tokens 0, 1, 2, ... and nothing else, so any
loss, repetition or swap on the way shows, in any API, without an understanding of its events. A
token is a whole member of its event (`"content":"tok000042 "`): neither the joined text of the last
events of a Responses stream matches, nor a token's log probability. A gateway that joins deltas
cannot be measured with this.

A token may carry the time at which the upstream let go of it, in microseconds of the system's
monotonic clock, which all processes of the machine read alike.

A scan of the bytes costs a tenth of a JSON parse, and the generator must not be the bottleneck;
the last event is parsed.
"""

from __future__ import annotations

import functools
import json
import re
from typing import Any

from .plan import Api


NO_STAMP = b"@0000000000000000 "
"""The place of a stamp behind a token."""

_TOKEN = re.compile(rb'"(?:content|delta)":\s*"tok(\d{6}) (?:@\d{16} )?"')
_STAMP = re.compile(rb'"content":\s*"tok\d{6} @(\d{16}) "')
_FINISH = re.compile(rb'"finish_reason":\s*"stop"')
_TAIL = 4096
"""Bytes before the last event that are kept, to find chat's finish_reason in."""


def token(number: int) -> str:
    """The text of one delta."""
    return f"tok{number:06d} "


def stamped(data: bytes, at: int) -> bytes:
    """Put a time into the place of each stamp. `at`: nanoseconds of the monotonic clock."""
    return data.replace(NO_STAMP, b"@%016d " % (at // 1000))


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

    @staticmethod
    def stamps(data: bytes) -> list[int]:
        """The stamps of the tokens that are whole in these bytes."""
        return [int(one) for one in _STAMP.findall(data)]

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
            return bool(
                event["type"] == "response.completed"
                and _said(event["response"]) == text(self._events)
            )
        except (ValueError, LookupError, TypeError):
            return False


class WholeCheck:
    """Follows one whole reply, as `StreamCheck` does a stream; its tokens come all at once."""

    def __init__(self, api: Api, events: int) -> None:
        self._api = api
        self._events = events
        self._body: list[bytes] = []

    def feed(self, data: bytes) -> int:
        """Take bytes of the body. No token is whole before it has ended."""
        self._body.append(data)
        return 0

    def fault(self) -> str | None:
        """The body has ended: what is wrong with it, or None."""
        try:
            reply: Any = json.loads(b"".join(self._body))
            if self._api == "chat":
                said = reply["choices"][0]["message"]["content"]
            else:
                said = _said(reply)
        except (ValueError, LookupError, TypeError):
            return "not a reply"
        return None if said == text(self._events) else "text is not as it was said"


def _said(response: Any) -> str:
    """The text of a Response object. Raises `LookupError` or `TypeError` if it is none."""
    return "".join(
        part["text"]
        for item in response["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


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
