"""How a client of the soak knows that its stream is the tale it asked for, and all of it.

The law of this file: the text that the client's API says, delta by delta, is compared with the tale
by number and by hash. A stream that was left or cut is good as far as it came. Events are parsed
here, other than in `order.py`: nothing that is not a delta may pass as one, nor hide in another
field, and the rates of a soak are low.
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from .order import difference
from .plan import Api
from .soak_plan import Tale


class TaleCheck:
    """Follows one stream; takes its bytes as they come, in pieces cut anywhere."""

    def __init__(self, tale: Tale, api: Api) -> None:
        self._tale = tale
        self._api = api
        self._line = b""  # that has not ended
        self._text = ""  # of a token that has not ended
        self._length = 0
        self._hash = hashlib.sha256()
        self._places: list[bytes] = []
        self._strangers = 0
        self._finished = False
        self._ended = False
        self._wrong: str | None = None

    @property
    def tokens(self) -> int:
        """How many have come."""
        return len(self._places)

    def feed(self, data: bytes) -> None:
        """Take bytes of the body."""
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data:"):
                self._take(line[5:].strip())

    def fault(self) -> str | None:
        """The body has ended well by HTTP: what is wrong with the stream, or None."""
        whole = [b"%06d" % place for place in range(self._tale.events)]
        if self._wrong is None and not self._strangers and self._places != whole:
            return difference(self._places, whole)
        return self.fault_so_far() or (None if self._ended else "not ended")

    def fault_so_far(self) -> str | None:
        """What is wrong with what came, or None; there may have been more."""
        if self._wrong is not None:
            return self._wrong
        if self._strangers:
            return "tokens of another stream"
        begun = [b"%06d" % place for place in range(len(self._places))]
        if self._places != begun:
            return difference(self._places, begun)
        if self._hash.digest() != self._tale.digest(self._length):
            return "text is not as it was said"
        return None

    def _take(self, line: bytes) -> None:
        if line == b"[DONE]" and self._api == "chat" and not self._ended:
            self._ended = self._finished
            return
        try:
            event = msgspec.json.decode(line)
            if self._ended:
                self._wrong = self._wrong or "more after the end"
            elif self._api == "chat":
                self._chat(event)
            else:
                self._responses(event)
        except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
            self._wrong = self._wrong or "not an event of its API"

    def _chat(self, event: Any) -> None:
        if "error" in event:
            self._wrong = self._wrong or f"error {event['error'].get('code')}"
            return
        for choice in event["choices"]:
            self._say(choice["delta"].get("content") or "")
            self._finished = self._finished or choice.get("finish_reason") == "stop"

    def _responses(self, event: Any) -> None:
        match event["type"]:
            case "response.output_text.delta":
                self._say(event["delta"])
            case "response.completed":
                (item,) = event["response"]["output"]
                (part,) = item["content"]
                said = hashlib.sha256(part["text"].encode()).digest()
                self._ended = said == self._hash.digest()
            case "error" | "response.failed" | "response.incomplete":
                self._wrong = self._wrong or event["type"]
            case _:
                pass

    def _say(self, text: str) -> None:
        self._hash.update(text.encode())
        self._length += len(text)
        self._text += text
        size = self._tale.size
        while len(self._text) >= size:
            number, _, place = self._text[:13].partition(".")
            self._text = self._text[size:]
            if number == f"{self._tale.number:06d}":
                self._places.append(place.encode())
            else:
                self._strangers += 1
