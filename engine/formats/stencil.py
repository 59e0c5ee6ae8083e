"""Frames that differ from the last ones in their text only, read by their text alone.

A model's reply is mostly one frame again and again: the same names, the same id, other words. To
parse its JSON, look at each member and find nothing new costs ten times what its words cost. So
when a frame has said nothing but a piece of text, a `Stencil` is cut from its very bytes, with a
hole where the text was (and one for each member that changes with every frame and says nothing,
such as a sequence number). A frame that shows through is known but for its text.

The law of this file: reading through a stencil gives exactly the events that parsing would have
given. Therefore a stencil is used only when the parser has read two such frames in a row, to the
same effect (`confirmed`): what the first one changed in the parser's state, the second one found
changed, and a third one changes nothing. Any other frame in between, and that has to be shown anew.
What does not fit, down to a control character in a string, is left to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import NamedTuple

from .. import jsontext
from ..events import Event, PartDelta


Keep = Callable[[str], object]
"""Keeps the state of a dialect for a piece of text that it has not seen itself."""


class Repeat(NamedTuple):
    """What a dialect says of a frame that may be repeated with another text."""

    members: Collection[bytes]
    """Names of the members that may hold the text."""
    keep: Keep


END = re.compile(rb"\n\n|\r\n\r\n")
"""The end of a frame, in the two forms that servers write."""

_MEMBER = re.compile(rb'"(\w++)":\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_VARYING = re.compile(rb'("sequence_number":\s*)\d+|("obfuscation":\s*)"[^"\\\x00-\x1f]*"')
_TEXT = rb'"([^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+)"'


class Stencil:
    """One shape of frames, and what they mean."""

    __slots__ = ("_item", "_keep", "_match", "_most", "_part", "confirmed")

    def __init__(self, pattern: re.Pattern[bytes], event: PartDelta, keep: Keep, most: int) -> None:
        self._match = pattern.match
        self._item = event.item
        self._part = event.part
        self._keep = keep
        self._most = most
        self.confirmed = False

    def fits(self, frame: bytes, event: PartDelta) -> bool:
        """Whether reading this frame would have given this event."""
        found = self._match(frame)
        return found is not None and (event.item, event.part, event.text) == (
            self._item,
            self._part,
            _text_of(found[1]),
        )

    def read(self, data: bytes, at: int, out: list[Event]) -> int:
        """Read the frames of this shape from `at` on; return where another one begins."""
        match, item, part, keep = self._match, self._item, self._part, self._keep
        while (found := match(data, at)) is not None:
            end = found.end()
            text = _text_of(found[1])
            if not text or end - at > self._most:
                return at
            keep(text)
            out.append(PartDelta(item, part, text))
            at = end
        return at


def cut(frame: bytes, event: PartDelta, repeat: Repeat, most: int) -> Stencil | None:
    """Cut a stencil from a whole frame, its end included, that has given this event.

    None if the text is not found in one of the members, and in one only. `most`: bytes of the
    longest frame that may be read.
    """
    holes = [
        found
        for found in _MEMBER.finditer(frame)
        if found[1] in repeat.members and _text_of(found[2]) == event.text
    ]
    if len(holes) != 1:
        return None
    begin, end = holes[0].span(2)
    pattern = _literal(frame[: begin - 1]) + _TEXT + _literal(frame[end + 1 :])
    return Stencil(re.compile(pattern, re.DOTALL), event, repeat.keep, most)


def _literal(part: bytes) -> bytes:
    """Write what matches these bytes, whatever the members that always vary say."""
    pattern, at = b"", 0
    for found in _VARYING.finditer(part):
        number, text = found.groups()
        pattern += re.escape(part[at : found.start()])
        if number is not None:
            pattern += re.escape(number) + rb"\d+"
        else:
            pattern += re.escape(text) + rb'"[^"\\\x00-\x1f]*+"'
        at = found.end()
    return pattern + re.escape(part[at:])


def _text_of(raw: bytes) -> str | None:
    """Decode the inside of a JSON string; None if it is not one."""
    try:
        if b"\\" in raw:
            text: str = jsontext.loads(b'"%b"' % raw)
            return text
        return raw.decode()
    except ValueError:
        return None
