"""The law: whatever events come in whatever order, what the grammar lets through is a legal reply.

Row 30. A machine throws any event at any moment. Beside the grammar goes a model of the rules that
is written as plainly as they are told, and says beforehand whether an event must be refused; behind
it go both encoders, whose streams must keep the laws of their APIs wherever the reply ends.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nursling.engine.accumulate import Accumulator
from nursling.engine.errors import RemoteProtocolError, Truncated
from nursling.engine.events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    FinishReason,
    ItemEnded,
    ItemKind,
    ItemStarted,
    ItemStatus,
    PartDelta,
    PartEnded,
    PartKind,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.grammar import Grammar
from support.formats import FORMATS, IDENTITY
from support.kinds import CITATION
from support.laws import check_chat_stream, check_failed_stream, check_responses_stream
from support.schemas import check_chat_completion, check_response


STARTED = Started("up", "model", 7)
SEARCH = {
    "type": "web_search_call",
    "status": "searching",
    "action": {"type": "search", "query": "horses"},
}


def any_item(machine: AnyEvents) -> bool:
    """Whether any item is open: before, whatever is said of one is refused by one rule."""
    return any(machine.alive(item) for item in machine.items)


def any_part(machine: AnyEvents) -> bool:
    """Whether any part is open."""
    return any("open" in item.parts.values() for item in machine.items.values())


PICK = st.integers(0, 99)
"""Mostly picks what makes sense at that moment: wild events alone would never get anywhere."""
CHOICES = st.integers(0, 1)
HOME: dict[ItemKind, tuple[PartKind, ...]] = {
    "message": ("text", "refusal"),
    "reasoning": ("summary", "thought"),
    "tool_call": ("arguments", "input"),
    "opaque": (),
}


@dataclass
class ModelItem:
    kind: ItemKind
    choice: int
    ended: bool = False
    parts: dict[int, str] = field(default_factory=dict)
    """Number -> "open" or "ended"."""


def chat_request() -> dict[str, object]:
    """A client that wants the usage."""
    return {
        "model": "m",
        "messages": [{"role": "user", "content": "Hi."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }


REQUESTS = {
    "chat": FORMATS["chat"].parse_request(chat_request()),
    "responses": FORMATS["responses"].parse_request({"model": "m", "input": "Hi.", "stream": True}),
}


class AnyEvents(RuleBasedStateMachine):
    """One reply, from an upstream that keeps no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.grammar = Grammar()
        self.legal: list[Event] = []
        self.told = 0
        self.fold = Accumulator(1 << 20)
        self.encoders = {
            name: form.encoder(REQUESTS[name], IDENTITY) for name, form in FORMATS.items()
        }
        self.streams = dict.fromkeys(FORMATS, b"")
        self.state = "new"
        self.items: dict[int, ModelItem] = {}
        self.choices: dict[int, bool] = {}

    def throw(self, event: Event, *, legal: bool) -> bool:
        """Let the grammar take an event, which the model says is legal or not."""
        legal = legal and self.state == "open"
        before = len(self.legal)
        try:
            self.grammar.take(event, self.legal)
        except (RemoteProtocolError, Truncated):
            assert not legal
            del self.legal[before:]
            return False
        assert legal
        return True

    def alive(self, item: int) -> bool:
        """Whether something may still be said of an item."""
        return item in self.items and not self.items[item].ended

    def item_at(self, pick: int) -> int:
        """An item that is open, if there is one; once in five times, any number."""
        alive = [number for number in self.items if self.alive(number)]
        return alive[pick // 5 % len(alive)] if alive and pick % 5 != 4 else pick // 5 % 4

    def part_at(self, pick: int) -> tuple[int, int]:
        """A part that is open, if there is one; once in five times, any numbers."""
        places = [
            (number, part)
            for number, item in self.items.items()
            for part in item.parts
            if item.parts[part] == "open"
        ]
        return (
            places[pick // 5 % len(places)]
            if places and pick % 5 != 4
            else (pick // 5 % 4, pick % 2)
        )

    def end_item(self, item: ModelItem) -> None:
        item.ended = True
        if item.kind == "tool_call" and not item.parts:
            item.parts[0] = "ended"
        item.parts = dict.fromkeys(item.parts, "ended")

    # Whatever an upstream may say.

    @initialize()
    def start(self) -> None:
        for event in (ItemStarted(0, "message"), UsageReported(Usage()), Ended()):
            self.throw(event, legal=True)  # but for the state
        self.state = "open"
        self.throw(STARTED, legal=True)

    @precondition(lambda self: self.state == "over" or len(self.legal) % 7 == 3)
    @rule()
    def start_again(self) -> None:
        self.throw(STARTED, legal=False)

    @rule(pick=PICK, kind=st.sampled_from(get_args(ItemKind)), choice=CHOICES)
    def start_item(self, pick: int, kind: ItemKind, choice: int) -> None:
        item = len(self.items) if pick % 5 != 4 else pick // 5 % 4
        item += item in self.items and pick % 5 != 4
        free = item not in self.items and not self.choices.get(choice)
        name = {"tool_call": "get_weather", "opaque": "web_search_call"}.get(kind, "")
        own_id = f"call_{item}" if name else ""
        extra = {"responses": {"item": {**SEARCH, "id": own_id}}} if kind == "opaque" else None
        event = ItemStarted(item, kind, choice, own_id, name, extra=extra)
        if self.throw(event, legal=free):
            self.items[item] = ModelItem(kind, choice)
            self.choices.setdefault(choice, False)

    @precondition(any_item)
    @rule(pick=PICK, wild=st.sampled_from(get_args(PartKind)))
    def start_part(self, pick: int, wild: PartKind) -> None:
        item = self.item_at(pick)
        part = len(self.items[item].parts) if item in self.items and pick % 7 != 6 else pick % 2
        fitting = HOME[self.items[item].kind] if item in self.items else ()
        kind = fitting[pick % 2] if fitting and pick % 11 != 10 else wild
        legal = self.alive(item) and kind in HOME[self.items[item].kind]
        legal = legal and part not in self.items[item].parts
        legal = legal and not (self.items[item].kind == "tool_call" and self.items[item].parts)
        if self.throw(PartStarted(item, part, kind), legal=legal):
            self.items[item].parts[part] = "open"

    @rule(pick=PICK, kind=st.sampled_from(["message", "reasoning", "tool_call"]), choice=CHOICES)
    def speak(self, pick: int, kind: ItemKind, choice: int) -> None:
        """A whole beginning, since rules drawn one by one seldom make one."""
        number = len(self.items) + (len(self.items) in self.items)
        self.start_item(0, kind, choice)
        if self.alive(number):
            self.throw(PartStarted(number, 0, HOME[kind][pick % 2]), legal=True)
            self.items[number].parts[0] = "open"
            self.throw(PartDelta(number, 0, "words "), legal=True)

    @precondition(any_part)
    @rule(pick=PICK, text=st.sampled_from(["", "a", "\n", "\U0001f40e\ud83d", '{"b"']))
    def grow(self, pick: int, text: str) -> None:
        item, part = self.part_at(pick)
        legal = self.alive(item) and self.items[item].parts.get(part) == "open"
        self.throw(PartDelta(item, part, text), legal=legal)

    @precondition(any_part)
    @rule(pick=PICK)
    def end_part(self, pick: int) -> None:
        item, part = self.part_at(pick)
        legal = self.alive(item) and self.items[item].parts.get(part) == "open"
        if self.throw(PartEnded(item, part), legal=legal):
            self.items[item].parts[part] = "ended"

    @precondition(any_item)
    @rule(pick=PICK, status=st.sampled_from(get_args(ItemStatus)))
    def end(self, pick: int, status: ItemStatus) -> None:
        item = self.item_at(pick)
        sealed = "c2VhbGVk" if item in self.items and self.items[item].kind == "reasoning" else None
        if self.throw(ItemEnded(item, status, sealed), legal=self.alive(item)):
            self.end_item(self.items[item])

    @precondition(any_item)
    @rule(item=st.integers(0, 2), part=st.integers(-1, 2))
    def note(self, item: int, part: int) -> None:
        legal = item in self.items and (part < 0 or part in self.items[item].parts)
        self.throw(Annotated(item, part, "wire", {}), legal=legal)

    @precondition(any_part)
    @rule(pick=PICK)
    def cite(self, pick: int) -> None:
        """Decoders cite text alone. Afterthoughts are legal, but no law of a stream allows them."""
        item, part = self.part_at(pick)
        if self.is_text(item, part) and self.items[item].parts[part] == "open":
            self.throw(Annotated(item, part, "citation", dict(CITATION)), legal=True)

    def is_text(self, item: int, part: int) -> bool:
        return any(
            isinstance(event, PartStarted)
            and (event.item, event.part, event.kind) == (item, part, "text")
            for event in self.legal
        )

    @precondition(lambda self: len(self.legal) > 12)
    @rule(choice=CHOICES, reason=st.sampled_from(get_args(FinishReason)))
    def finish(self, choice: int, reason: FinishReason) -> None:
        if self.throw(Finished(choice, reason), legal=True):
            self.choices[choice] = True
            for item in self.items.values():
                if item.choice == choice:
                    self.end_item(item)

    @rule(tokens=st.none() | st.integers(0, 9))
    def report(self, tokens: int | None) -> None:
        self.throw(UsageReported(Usage(output_tokens=tokens)), legal=True)

    @precondition(lambda self: len(self.legal) > 16)
    @rule()
    def end_well(self) -> None:
        if self.throw(Ended(), legal=any(self.choices.values()) and 0 in self.choices):
            self.state = "over"

    # What must hold.

    @invariant()
    def what_passed_is_legal_as_it_stands(self) -> None:
        if len(self.legal) > self.told:
            assert Grammar().check(list(self.legal)) == self.legal
            assert self.grammar.over == (self.state == "over")
            news = self.legal[self.told :]
            self.told = len(self.legal)
            self.fold.add(news)
            for name, encoder in self.encoders.items():
                self.streams[name] += encoder.encode(news)

    def teardown(self) -> None:
        """Wherever the reply has come to, a client has a lawful stream: whole, or failed."""
        if self.state == "new":
            return
        if self.state == "open":
            failed = Failed(RemoteProtocolError("it broke").info())
            for name, encoder in self.encoders.items():
                check_failed_stream(self.streams[name] + encoder.encode([failed]), name)
            return
        ended = [event.item for event in self.legal if isinstance(event, ItemEnded)]
        assert sorted(ended) == sorted(self.items)
        check_chat_stream(self.streams["chat"], n=len(self.choices), usage=None)
        check_responses_stream(self.streams["responses"], status=None)
        reply = self.fold.reply
        check_chat_completion(FORMATS["chat"].render_reply(reply, REQUESTS["chat"], IDENTITY))
        check_response(FORMATS["responses"].render_reply(reply, REQUESTS["responses"], IDENTITY))


AnyEvents.TestCase.settings = settings(max_examples=120, stateful_step_count=50)
TestAnyEvents = AnyEvents.TestCase
