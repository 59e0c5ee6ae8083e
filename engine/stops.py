"""Stop sequences for upstreams that have no word for them.

Chat can say `stop`, Responses cannot. A reply that had to stop is wrong if it goes on, so we stop
it ourselves: the visible text is cut before the first stop sequence, the choice is finished with
`stop`, and the upstream is closed, which ends its bill too. Its usage is unknown then.

The law of this file: of text that may still turn out to be the beginning of a stop sequence,
nothing leaves; everything else leaves at once.
"""

from __future__ import annotations

from typing import Any

from .errors import BadRequest
from .events import (
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    PartDelta,
    PartEnded,
    PartStarted,
    UsageReported,
)


MAX_STOPS = 16
"""Stop sequences that we look for. OpenAI takes 4, local servers more."""

MAX_STOP = 256
"""Characters of one. Each delta is compared with every beginning of every sequence."""


class Scissors:
    """Cuts one reply. Works on what a decoder says, before the grammar."""

    def __init__(self, stop: list[str]) -> None:
        """Raise `BadRequest` if there are too many sequences, or one is too long."""
        if len(stop) > MAX_STOPS or any(len(sequence) > MAX_STOP for sequence in stop):
            limit = f"{MAX_STOPS} stop sequences of {MAX_STOP} characters"
            raise BadRequest(f"at most {limit} can be looked for here", param="stop")
        self._stop = [sequence for sequence in stop if sequence]
        self._held: dict[tuple[int, int], PartDelta] = {}  # visible parts and their held ends
        self.over = False
        """Whether a stop sequence was found: the reply is at its end."""

    def cut(self, events: list[Event]) -> list[Event]:
        """Return what may leave. After the cut: nothing more."""
        return [] if self.over else self._cut(events)

    def _cut(self, events: list[Event]) -> list[Event]:
        out: list[Event] = []
        for event in events:
            self._take(event, out)
        if self.over:
            out += [Finished(0, "stop"), Ended()]
        return out

    def _take(self, event: Event, out: list[Event]) -> None:
        if self.over:
            # A reply that came whole says its usage behind the text: that is not cut.
            if isinstance(event, UsageReported):
                out.append(event)
            return
        match event:
            case PartStarted(kind="text"):
                self._held[event.item, event.part] = PartDelta(event.item, event.part, "")
            case PartDelta() if (event.item, event.part) in self._held:
                self._grow(event, out)
                return
            case PartEnded():
                self._release(out, event.item, event.part)
            case ItemEnded():
                self._release(out, event.item)
            case Finished() | Ended() | Failed():
                self._release(out)
            case _:
                pass
        out.append(event)

    def _grow(self, delta: PartDelta, out: list[Event]) -> None:
        held = self._held[delta.item, delta.part]
        text = held.text + delta.text
        logprobs = (held.logprobs or []) + (delta.logprobs or []) or None
        extra = delta.extra
        at = min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=-1)
        if at >= 0:
            if at:
                within = _within(logprobs, at)
                out.append(PartDelta(delta.item, delta.part, text[:at], within, extra))
            del self._held[delta.item, delta.part]
            self._release(out)
            self.over = True
            return
        free = text[: len(text) - self._beginning(text)]
        within = _within(logprobs, len(free))
        if free or extra:
            out.append(PartDelta(delta.item, delta.part, free, within, extra))
        behind = logprobs[len(within or ()) :] or None if logprobs else None
        held = PartDelta(delta.item, delta.part, text[len(free) :], behind)
        self._held[delta.item, delta.part] = held

    def _beginning(self, text: str) -> int:
        """How much of the end of `text` may be the beginning of a stop sequence."""
        longest = max((len(stop) for stop in self._stop), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-size:]) for stop in self._stop):
                return size
        return 0

    def _release(self, out: list[Event], item: int = -1, part: int = -1) -> None:
        """Let go of what was held of one part, of one item, or of all."""
        for key in list(self._held):
            if (item in (-1, key[0])) and (part in (-1, key[1])):
                held = self._held.pop(key)
                if held.text or held.logprobs:
                    out.append(held)


def _within(logprobs: list[dict[str, Any]] | None, size: int) -> list[dict[str, Any]] | None:
    """The entries of the first `size` characters: of the tokens that begin there."""
    at = 0
    within: list[dict[str, Any]] = []
    for entry in logprobs or ():
        if at >= size:
            break
        within.append(entry)
        at += len(entry["token"])
    return within or None
