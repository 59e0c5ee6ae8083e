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

FEW = 4
"""Frames, about, that are not worth being taken apart together."""

WINDOW = 16 * 1024
"""Bytes that are looked at together at most: a run of frames, whatever comes behind it."""
LEAST_WINDOW = 2 * 1024
"""And behind a run that was shorter than what was looked at: the next one may be as short."""

_MEMBER = re.compile(rb'"(\w++)":\s*+"([^"\\]*+(?:\\.[^"\\]*+)*+)"', re.DOTALL)
_VARYING = re.compile(rb'"sequence_number":\s*+(\d++)|"obfuscation":\s*+"([^"\\\x00-\x1f]*+)"')

# What may stand in a hole. Compiled once for all: to compile a pattern for each stream would cost
# as much as to parse fifty of its frames (0.4 ms, measured).
_TEXT = re.compile(rb'[^"\\\x00-\x1f]*+(?:\\.[^"\\\x00-\x1f]*+)*+', re.DOTALL)
_NUMBER = re.compile(rb"0|[1-9]\d{0,17}+")  # as JSON has it; a longer one may be refused
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*+')

_WHOLE_TEXT = _TEXT.fullmatch
_PLAIN_RUN = re.compile(rb"[^\\\x00-\x1f]*+").fullmatch

Hole = Callable[[bytes, int], "re.Match[bytes] | None"]


class Shape(NamedTuple):
    """What is literal in a frame, and what is not."""

    head: bytes
    rest: list[tuple[Hole, bytes]]
    """Each hole, and the bytes behind it."""
    told: int
    """Which of the holes shows the text."""


class Stencil:
    """One shape of frames, and what they mean: literal bytes, and holes between them."""

    __slots__ = (
        "_head",
        "_item",
        "_keep",
        "_most",
        "_part",
        "_rest",
        "_told",
        "_window",
        "confirmed",
    )

    def __init__(self, shape: Shape, event: PartDelta, keep: Keep, most: int) -> None:
        self._head, self._rest, self._told = shape
        self._item = event.item
        self._part = event.part
        self._keep = keep
        self._most = most
        self._window = LEAST_WINDOW
        self.confirmed = False

    def fits(self, frame: bytes, event: PartDelta) -> bool:
        """Whether reading this frame would have given this event."""
        raw, end = self._look(frame, 0)
        return end == len(frame) and (event.item, event.part, event.text) == (
            self._item,
            self._part,
            _text_of(raw),
        )

    def read(self, data: bytes, at: int, out: list[Event]) -> int:
        """Read the frames of this shape from `at` on; return where another one begins."""
        item, part, keep, most, look = self._item, self._part, self._keep, self._most, self._look
        alone = len(self._rest) > 1
        while at < len(data):
            raw, end = look(data, at)
            text = _text_of(raw) if raw else None
            if not text or end - at > most:
                break
            keep(text)
            out.append(PartDelta(item, part, text))
            at = end
            if alone or len(data) - at < FEW * len(self._head):
                continue
            texts, at = self._look_at_many(data, at)
            for text in texts:
                keep(text)
            out += [PartDelta(item, part, text) for text in texts]
        return at

    def _look(self, data: bytes, at: int) -> tuple[bytes, int]:
        """Look at one frame: what its text's hole shows, and where it ends; `at` if it differs."""
        if not data.startswith(self._head, at):
            return b"", at
        place = at + len(self._head)
        raw = b""
        for number, (hole, literal) in enumerate(self._rest):
            found = hole(data, place)
            if found is None:
                return b"", at
            place = found.end()
            if not data.startswith(literal, place):
                return b"", at
            if number == self._told:
                raw = found[0]
            place += len(literal)
        return raw, place

    def _look_at_many(self, data: bytes, at: int) -> tuple[list[str], int]:
        """Look at a run of frames that differ in their text only.

        They are taken apart by what stands between two texts: one split, whatever their number. A
        text that hides anything else has quotes or line breaks, and ends the run.
        """
        head, tail = self._head, self._rest[0][1]
        begin = at + len(head)
        stop = data.rfind(tail, begin, at + self._window) if len(self._rest) == 1 else -1
        if stop < 0 or not data.startswith(head, at):
            return [], at
        raws = data[begin:stop].split(tail + head)
        joined = b'","'.join(raws)
        end = stop + len(tail)
        texts: list[str] = []
        if _PLAIN_RUN(joined) and joined.count(b'"') == 2 * len(raws) - 2 and end - at < self._most:
            texts = (_text_of(joined) or "").split('","')
        if not texts or not all(texts):
            texts, end = self._one_by_one(raws, at)
        whole = len(texts) == len(raws)
        self._window = min(WINDOW, 2 * self._window) if whole else LEAST_WINDOW
        return texts, end

    def _one_by_one(self, raws: list[bytes], at: int) -> tuple[list[str], int]:
        """Read the texts of a run up to the first that is none."""
        around = len(self._head) + len(self._rest[0][1])
        texts: list[str] = []
        for raw in raws:
            size = around + len(raw)
            text = _text_of(raw) if _WHOLE_TEXT(raw) and size <= self._most else None
            if not text:
                break
            texts.append(text)
            at += size
        return texts, at


def cut(frame: bytes, event: PartDelta, repeat: Repeat, most: int) -> Stencil | None:
    """Cut a stencil from a whole frame, its end included, that has given this event.

    None if the text is not found in one of the members, and in one only. `most`: bytes of the
    longest frame that may be read.
    """
    texts = [
        found
        for found in _MEMBER.finditer(frame)
        if found[1] in repeat.members and _text_of(found[2]) == event.text
    ]
    if len(texts) != 1:
        return None
    text = texts[0].span(2)
    holes: list[tuple[int, int, Hole]] = [(*text, _TEXT.match)]
    for found in _VARYING.finditer(frame):  # none inside the text, where quotes are escaped
        begin, end = found.span(found.lastindex or 0)
        holes.append((begin, end, _NUMBER.match if found.lastindex == 1 else _PLAIN.match))
    holes.sort(key=lambda hole: hole[0])
    ends = [*(begin for begin, _, _ in holes[1:]), len(frame)]
    rest = [(hole, frame[end:until]) for (_, end, hole), until in zip(holes, ends, strict=True)]
    told = next(number for number, hole in enumerate(holes) if hole[:2] == text)
    return Stencil(Shape(frame[: holes[0][0]], rest, told), event, repeat.keep, most)


def _text_of(raw: bytes) -> str | None:
    """Decode the inside of a JSON string; None if it is not one."""
    try:
        if b"\\" in raw:
            text: str = jsontext.loads(b'"%b"' % raw)
            return text
        return raw.decode()
    except ValueError:
        return None
