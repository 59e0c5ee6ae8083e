"""One output item of a reply that is being read: its parts, and their text.

The law of this file: a text only grows, and every repetition of it is compared. Named rule:

* *the whole text*: where a `done` or the final object repeats a text, a missing tail is supplied;
  an empty or absent text says nothing; another text is the upstream's protocol error. Arguments
  that are the same JSON, and texts that differ in white space at their edges, are the same: what
  was streamed counts.
* *the whole list*: where they repeat citations or log probabilities, what is further on is supplied
  too, and what is said of an entry beyond what was told of it stands in the part from there on.

Log probabilities and citations pass the gate of `shapes.py`: what is none says nothing.

An item may be *read aside*: its events go nowhere until somebody decides what it is. What it keeps
meanwhile counts in the reply's `Held`, which has a limit.
"""

from __future__ import annotations

from typing import Any

from ...accumulate import Pieces
from ...errors import RemoteProtocolError
from ...events import (
    Annotated,
    Event,
    Extra,
    ItemKind,
    ItemStatus,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
)
from ...jsontext import dumps, loads
from ..checks import JSON
from ..shapes import read_citation, read_citations, read_logprobs
from .request import NAME


ITEMS: dict[str, ItemKind] = {
    "message": "message",
    "reasoning": "reasoning",
    "function_call": "tool_call",
    "custom_tool_call": "tool_call",
}
"""Type of an output item -> its kind; every other type is opaque."""

CALLS: dict[str, PartKind] = {"function_call": "arguments", "custom_tool_call": "input"}
"""Type of a call -> the kind of its one part, which is the name of the field with its text too."""

PARTS: dict[str, PartKind] = {
    "output_text": "text",
    "text": "text",
    "refusal": "refusal",
    "reasoning_text": "thought",
    "summary_text": "summary",
}
"""Type of a content part -> its kind."""

KNOWN_ITEM: dict[ItemKind, frozenset[str]] = {
    "message": frozenset({"type", "id", "role", "status", "content"}),
    "reasoning": frozenset({"type", "id", "status", "summary", "content"}),
    "tool_call": frozenset({"type", "status", "call_id", "name", "arguments", "input"}),
    "opaque": frozenset(),
}
"""The fields of an item that the normal form has; an opaque item is kept whole. The `namespace`
of a call is kept too: its start has it, and a server may tell it at the end only."""

KNOWN_PART = frozenset({"type", "text", "refusal", "annotations", "logprobs"})
STATUSES: dict[Any, ItemStatus] = {"incomplete": "incomplete", "failed": "failed"}


def beyond(value: JSON, known: frozenset[str]) -> JSON:
    """What an object says that the normal form has not. Null says nothing."""
    if value.keys() <= known:
        return {}
    return {key: value[key] for key in value if key not in known and value[key] is not None}


def note(**members: JSON) -> Extra | None:
    """The extra of an event; None if there is nothing to say."""
    said = {name: value for name, value in members.items() if value}
    return {NAME: said} if said else None


class Part:
    """A part that is being read."""

    __slots__ = ("beyond", "citations", "cited", "ended", "kind", "logprobs", "number", "pieces")

    def __init__(self, number: int, kind: PartKind) -> None:
        self.number = number
        self.kind: PartKind = kind
        self.pieces = Pieces()
        self.cited = 0  # as the upstream counts them
        self.citations: list[JSON] = []  # as events have told them, and these too
        self.logprobs: list[JSON] = []
        self.ended = False
        self.beyond: dict[str, JSON] = {}  # of its `done` events

    def remember(self, **said: JSON) -> None:
        """Keep what a `done` said beyond what we know, for the end of the part."""
        for name, fields in said.items():
            if fields:
                self.beyond[name] = {**self.beyond.get(name, {}), **fields}

    @property
    def grown(self) -> bool:
        """Whether there is any text."""
        return any(self.pieces)

    @property
    def text(self) -> str:
        """All the text so far."""
        if len(self.pieces) > 1:
            self.pieces[:] = ["".join(self.pieces)]
        return self.pieces[0] if self.pieces else ""


class Held:
    """How many bytes of memory a reply keeps that no event has carried yet."""

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = 0


class Item:
    """An item that is being read. One that is read aside has the number -1."""

    __slots__ = (
        "_all_held",
        "_kept",
        "_latest",
        "_summaries",
        "ended",
        "entered",
        "first",
        "foreign",
        "held",
        "id",
        "kind",
        "number",
        "parts",
        "raw",
        "said",
        "type",
    )

    def __init__(self, number: int, raw: JSON, held: Held) -> None:
        self.number = number
        self.type: str = raw["type"]
        self.kind: ItemKind = ITEMS.get(self.type, "opaque")
        self.id = text_of(raw, "id")
        self.raw = raw
        self.parts: dict[tuple[PartKind, int], Part] = {}
        self.foreign = 0  # parts that the normal form has not; they take an index each
        self.ended = False
        self.entered = 0  # what number it is in its reply, those read aside included
        self.held: tuple[JSON, JSON] | None = None
        self.first: Item | None = None  # what this one may be a repetition of
        self.said: JSON = {}  # what events have carried of it beyond the normal form
        self._latest: dict[PartKind, int] = {}
        self._summaries = 0
        self._all_held = held
        self._kept = 0

    def keep(self, size: int) -> None:
        """Count what this item keeps and no event has carried."""
        self._kept += size
        self._all_held.size += size

    def release(self) -> None:
        """The item is over: what it said when it opened is of no more use."""
        self.raw = {}
        self.held = None
        self.keep(-self._kept)

    def part(
        self, kind: PartKind, index: Any, out: list[Event], extra: Extra | None = None
    ) -> Part:
        """The part of this kind at a wire index (None: the latest one), opened if it is new."""
        if not isinstance(index, int):
            latest = self._latest.get(kind)
            index = self.next_index(kind) if latest is None else latest
        part = self.parts.get((kind, index))
        if part is None:
            if self.ended:
                raise RemoteProtocolError(f"item {self.number} of the upstream grew after its end")
            if self.kind == "tool_call" and (kind, index) != (CALLS[self.type], 0):
                raise RemoteProtocolError(f"an event of the upstream does not fit its {self.type}")
            part = self.parts[kind, index] = Part(len(self.parts), kind)
            self._latest[kind] = index
            self._summaries += kind == "summary"
            out.append(PartStarted(self.number, part.number, kind, extra))
        return part

    def next_index(self, kind: PartKind) -> int:
        """The wire index of a further part: summaries are counted apart."""
        if kind == "summary":
            return self._summaries
        return len(self.parts) - self._summaries + self.foreign

    @property
    def grown(self) -> bool:
        """Whether there is any text."""
        return any(part.grown for part in self.parts.values())

    @property
    def texts(self) -> list[tuple[PartKind, str]]:
        """What the item says."""
        return [(part.kind, part.text) for part in self.parts.values() if part.grown]


def text_of(value: JSON, key: str) -> str:
    """A text member; absent or null is empty. Arguments as an object are written as JSON."""
    match value.get(key):
        case None:
            return ""
        case str(text):
            return text
        case dict() as arguments if key == "arguments":
            return dumps(arguments).decode()
        case _:
            raise RemoteProtocolError(f"the upstream's {key} is no string")


def grow(
    item: Item,
    part: Part,
    text: str,
    out: list[Event],
    *,
    logprobs: Any = None,
    extra: Extra | None = None,
) -> None:
    """Add text to a part."""
    if part.ended:
        raise RemoteProtocolError(
            f"a part of item {item.number} of the upstream grew after its end"
        )
    entries = read_logprobs(logprobs) if logprobs else None
    if entries is None and not text and extra is None:
        return
    part.pieces.add(text)
    if item.number < 0:
        item.keep(len(text.encode("utf-8", "surrogatepass")))
    elif entries is not None:
        part.logprobs += entries
    out.append(PartDelta(item.number, part.number, text, entries, extra))


def complete(item: Item, part: Part, said: JSON, key: str, out: list[Event]) -> None:
    """Compare a part with its whole text as the upstream repeats it; see *the whole text*."""
    whole, tail = text_of(said, key), ""
    have = part.text if whole else ""  # joining costs; an empty `done` must not
    if whole != have and not _same(part.kind, have, whole):
        if not whole.startswith(have):
            raise RemoteProtocolError("the upstream's whole text is not what it streamed")
        tail = whole[len(have) :]
    late = None if part.logprobs or part.ended else said.get("logprobs")
    if tail or late:
        grow(item, part, tail, out, logprobs=late)


def _same(kind: PartKind, streamed: str, whole: str) -> bool:
    if not streamed:
        return False
    if kind == "arguments":
        try:
            return bool(loads(streamed.encode()) == loads(whole.encode()))
        except ValueError:
            return False
    return streamed.strip() == whole.strip()


def annotate(item: Item, part: Part, data: Any, out: list[Event], extra: Extra | None) -> None:
    """Attach a citation to a part."""
    if part.ended:
        raise RemoteProtocolError(
            f"a part of item {item.number} of the upstream was annotated after its end"
        )
    _cite(item, part, data, out, extra)


def _cite(item: Item, part: Part, data: Any, out: list[Event], extra: Extra | None) -> None:
    part.cited += 1
    citation = read_citation(data)
    if citation is not None:
        part.citations.append(citation)
        out.append(Annotated(item.number, part.number, "citation", citation, extra))


def is_item(raw: Any) -> bool:
    """Whether a value can be an output item."""
    return isinstance(raw, dict) and isinstance(raw.get("type"), str)


def parts_of(raw: JSON, group: str) -> list[JSON]:
    """The parts that an item lists as its `content` or its `summary`."""
    match raw.get(group):
        case None:
            return []
        case str(text):  # some servers spare the list
            return [{"type": "summary_text" if group == "summary" else "output_text", "text": text}]
        case list(parts) if all(is_item(part) for part in parts):
            return parts
        case _:
            raise RemoteProtocolError(f"the upstream's {group} is no list of parts")


def fit(item: Item, part: JSON) -> PartKind | None:
    """The kind of a content part inside this item; None = one that the normal form has not."""
    kind = PARTS.get(part["type"])
    if item.kind == "reasoning" and kind == "text":  # older vLLM
        return "thought"
    return kind


def complete_part(item: Item, part: Part, said: JSON, out: list[Event]) -> None:
    """Supply what a part misses, by the whole part as the upstream repeats it.

    What is new of a part that has ended is said *about* it: text is not (`complete` refuses it),
    citations, unknown fields and *the whole list* are.
    """
    complete(item, part, said, "refusal" if part.kind == "refusal" else "text", out)
    citations = said.get("annotations")
    if isinstance(citations, list):
        for data in citations[part.cited :]:
            _cite(item, part, data, out, None)
    before = part.beyond.get("part", {})
    fields = {**beyond(said, KNOWN_PART), **retold(part, said)}
    if part.ended and (late := news(fields, before)):
        out.append(Annotated(item.number, part.number, "wire", {}, note(part=late)))
    part.remember(part=fields)


def retold(part: Part, said: JSON) -> JSON:
    """The lists of a part that a repetition says more of; see *the whole list*."""
    if part.kind != "text":
        return {}
    lists = {
        "annotations": (part.citations, read_citations(said.get("annotations"))),
        "logprobs": (part.logprobs, read_logprobs(said.get("logprobs"))),
    }
    fields: JSON = {}
    for name, (told, again) in lists.items():
        joined = _joined(told, again or [])
        if joined != told:
            told[:] = joined
            fields[name] = joined
    return fields


def _joined(told: Any, again: Any) -> Any:
    """What is known by now of a thing that is told again: nothing told is taken back."""
    if isinstance(told, dict) and isinstance(again, dict):
        return {**told, **{name: _joined(told.get(name), again[name]) for name in again}}
    if isinstance(told, list) and isinstance(again, list):
        if len(told) != len(again):
            return max(told, again, key=len)
        return [_joined(old, new) for old, new in zip(told, again, strict=True)]
    return again if again or told is None else told


def news(said: JSON, before: JSON) -> JSON:
    """What has not been said before, or otherwise."""
    return {key: said[key] for key in said if key not in before or before[key] != said[key]}


def end_part(item: Item, part: Part, out: list[Event], **said: JSON) -> None:
    """A part is complete; `said` joins what its `done` events said beyond what we know."""
    if not part.ended:
        part.ended = True
        part.remember(**said)
        out.append(PartEnded(item.number, part.number, note(**part.beyond)))
