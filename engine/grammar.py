"""Which event may follow which, as tables; what is mended and what is refused.

The law of this file: whatever a decoder read off a wire, what leaves here is a legal reply, or the
stream fails with `RemoteProtocolError`. Encoders rely on it and check nothing themselves.

A legal reply: `Started` first; a part lives inside its item, an item inside its choice; nothing is
said about what has ended; every choice that began has one `Finished`; then `Ended`, last. A
`Failed` may come at any moment, and is last.

Mended, each because real servers do it:

* open parts are ended with their item, open items with their choice, by the choice's reason: the
  item that grew last is `incomplete` if the choice ran out of length or was filtered;
* a second `Finished` of one choice is dropped, the first one counts (ChatMock#114);
* `stop` of a choice that called a tool is `tool_calls` (litellm#12862);
* a choice without a reason, in a reply that ended well and gave a reason for another choice, is
  `stop` (LiteLLM 1.106 with n = 2);
* a tool call that ends without a part had empty arguments.

Refused: everything else. A reply that ends and never gave a reason was cut: `Truncated`. One
without a choice 0 is none: most clients read no other, and would take it for an empty answer.
"""

from __future__ import annotations

from typing import assert_never

from .errors import RemoteProtocolError, Truncated
from .events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemKind,
    ItemStarted,
    ItemStatus,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    UsageReported,
)


NEXT: dict[str, dict[type, str]] = {
    "new": {Started: "open", Failed: "over"},
    "open": {
        ItemStarted: "open",
        PartStarted: "open",
        PartDelta: "open",
        Annotated: "open",
        PartEnded: "open",
        ItemEnded: "open",
        Finished: "open",
        UsageReported: "open",
        Ended: "over",
        Failed: "over",
    },
    "over": {},
}
"""State of a reply -> event -> next state. A missing entry is a breach."""

PARTS: dict[ItemKind, frozenset[PartKind]] = {
    "message": frozenset({"text", "refusal"}),
    "reasoning": frozenset({"summary", "thought"}),
    "tool_call": frozenset({"arguments", "input"}),
    "opaque": frozenset(),
}
"""Which parts an item of each kind may have. A tool call has just one."""


class _Item:
    __slots__ = ("choice", "ended", "kind", "parts")

    kind: ItemKind

    def __init__(self, kind: ItemKind, choice: int) -> None:
        self.kind = kind
        self.choice = choice
        self.ended = False
        self.parts: dict[int, bool] = {}  # number -> still open


class Grammar:
    """The state of one reply."""

    def __init__(self) -> None:
        self._state = "new"
        self._items: dict[int, _Item] = {}
        self._items_of: dict[int, list[int]] = {}  # choice -> its items
        self._choices: dict[int, bool] = {}  # number -> has finished
        self._grew_last: dict[int, int] = {}  # choice -> item
        self._growing: tuple[int, int] | None = None  # the part that the last event let grow

    @property
    def over(self) -> bool:
        """Whether the last event has passed."""
        return self._state == "over"

    def check(self, events: list[Event]) -> list[Event]:
        """Return the events, mended. Raises `RemoteProtocolError` at the first illegal one.

        What stood before the illegal event has taken effect and is lost to the caller: it checks
        event by event where that matters (`Grammar.check` of a list is for the common case).
        """
        legal: list[Event] = []
        for event in events:
            self.take(event, legal)
        return legal

    def take(self, event: Event, legal: list[Event]) -> None:
        """Append one event, mended, to `legal`; raise `RemoteProtocolError` if it is illegal."""
        if type(event) is PartDelta and (event.item, event.part) == self._growing:
            legal.append(event)  # nearly all events are this one: nothing else has changed
            return
        self._growing = None
        after = NEXT[self._state].get(type(event))
        if after is None:
            raise RemoteProtocolError(f"{type(event).__name__} in a reply that is {self._state}")
        match event:
            case PartDelta():
                if not self._open_item(event).parts.get(event.part):
                    raise RemoteProtocolError(f"{_where(event)} grew while it was not open")
                self._grew_last[self._items[event.item].choice] = event.item
                self._growing = event.item, event.part
            case PartStarted():
                item = self._open_item(event)
                one_too_many = item.kind == "tool_call" and item.parts
                if one_too_many or event.part in item.parts or event.kind not in PARTS[item.kind]:
                    raise RemoteProtocolError(f"{_where(event)} cannot open as {event.kind}")
                item.parts[event.part] = True
            case PartEnded():
                if not self._open_item(event).parts.get(event.part):
                    raise RemoteProtocolError(f"{_where(event)} ended while it was not open")
                self._items[event.item].parts[event.part] = False
            case ItemStarted():
                if event.item in self._items:
                    raise RemoteProtocolError(f"item {event.item} started twice")
                if self._choices.setdefault(event.choice, False):
                    raise RemoteProtocolError(f"choice {event.choice} went on after its end")
                self._items[event.item] = _Item(event.kind, event.choice)
                self._items_of.setdefault(event.choice, []).append(event.item)
                self._grew_last[event.choice] = event.item
            case ItemEnded():
                self._end_parts(event.item, self._open_item(event), legal)
                self._items[event.item].ended = True
            case Annotated():
                if event.item >= 0:
                    item = self._known_item(event)
                    if event.part >= 0 and event.part not in item.parts:
                        raise RemoteProtocolError(
                            f"{_where(event)} was annotated, but never opened"
                        )
            case Finished():
                if self._choices.get(event.choice):
                    return
                event = self._finish(event, legal)
            case Ended():
                self._end(legal)
            case Started() | UsageReported() | Failed():
                pass
            case _:
                assert_never(event)
        self._state = after
        legal.append(event)

    def _finish(self, event: Finished, legal: list[Event]) -> Finished:
        """End what is open in a choice, and mend its reason."""
        self._choices[event.choice] = True
        cut = event.reason in {"length", "content_filter"}
        called = False
        for number in self._items_of.get(event.choice, ()):
            item = self._items[number]
            called = called or item.kind == "tool_call"
            if item.ended:
                continue
            self._end_parts(number, item, legal)
            item.ended = True
            status: ItemStatus = (
                "incomplete" if cut and self._grew_last.get(event.choice) == number else "completed"
            )
            legal.append(ItemEnded(number, status))
        if called and event.reason == "stop":
            return Finished(event.choice, "tool_calls", event.extra)
        return event

    def _end(self, legal: list[Event]) -> None:
        if not any(self._choices.values()):
            raise Truncated("the upstream ended its reply without a finish reason")
        if 0 not in self._choices:
            raise RemoteProtocolError("the upstream's reply has no choice 0")
        for choice, finished in list(self._choices.items()):
            if not finished:
                legal.append(self._finish(Finished(choice, "stop"), legal))

    def _end_parts(self, number: int, item: _Item, legal: list[Event]) -> None:
        if item.kind == "tool_call" and not item.parts:
            item.parts[0] = True
            legal.append(PartStarted(number, 0, "arguments"))
        for part, is_open in item.parts.items():
            if is_open:
                item.parts[part] = False
                legal.append(PartEnded(number, part))

    def _known_item(
        self, event: PartStarted | PartDelta | PartEnded | ItemEnded | Annotated
    ) -> _Item:
        item = self._items.get(event.item)
        if item is None:
            raise RemoteProtocolError(f"item {event.item} was never opened")
        return item

    def _open_item(self, event: PartStarted | PartDelta | PartEnded | ItemEnded) -> _Item:
        item = self._known_item(event)
        if item.ended:
            raise RemoteProtocolError(f"item {event.item} went on after its end")
        return item


def _where(event: PartStarted | PartDelta | PartEnded | Annotated) -> str:
    return f"part {event.part} of item {event.item}"
