"""What may follow what: the table itself, each mend, each refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursling.engine.errors import ErrorInfo, RemoteProtocolError, Truncated
from nursling.engine.events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.grammar import NEXT, PARTS, Grammar


START = Started("id", "model", 1)
MESSAGE = ItemStarted(0, "message")
TEXT = PartStarted(0, 0, "text")
DELTA = PartDelta(0, 0, "hi")
USAGE = UsageReported(Usage(input_tokens=1))
FAILED = Failed(ErrorInfo(message="no"))
_EACH: list[Event] = [
    START,
    MESSAGE,
    TEXT,
    DELTA,
    Annotated(-1, -1, "wire", {}),
    PartEnded(0, 0),
    ItemEnded(0),
    Finished(0, "stop"),
    USAGE,
    Ended(),
    FAILED,
]
SAMPLES: dict[type, Event] = {type(event): event for event in _EACH}


def run(*events: Event) -> list[Event]:
    return Grammar().check(list(events))


def refused(*events: Event) -> str:
    """Everything but the last event is legal, and the last one is not."""
    grammar = Grammar()
    grammar.check(list(events[:-1]))
    with pytest.raises(RemoteProtocolError) as caught:
        grammar.check([events[-1]])
    return caught.value.message


def at(state: str) -> Grammar:
    """A grammar in this state."""
    grammar = Grammar()
    events: dict[str, list[Event]] = {"new": [], "open": [START], "over": [START, FAILED]}
    grammar.check(events[state])
    assert vars(grammar)["_state"] == state
    assert grammar.over == (state == "over")
    return grammar


# The table.


@pytest.mark.fault(30, "V")
@pytest.mark.parametrize("state", NEXT)
@pytest.mark.parametrize("kind", SAMPLES, ids=lambda kind: kind.__name__)
def test_the_table_decides(state: str, kind: type) -> None:
    """Every state meets every event: what the table lacks is refused by name, the rest moves on."""
    grammar = at(state)
    after = NEXT[state].get(kind)
    if state == "open":  # give every event what it needs to stand on
        grammar.check([ItemStarted(0, "message"), PartStarted(0, 0, "text"), PartDelta(0, 0, "x")])
        grammar.check([ItemStarted(1, "message", 1), Finished(1, "stop")])
    event = SAMPLES[kind]
    if state == "open" and kind is ItemStarted:
        event = ItemStarted(2, "message")
    if state == "open" and kind is PartStarted:
        event = PartStarted(0, 1, "text")
    if after is None:
        with pytest.raises(
            RemoteProtocolError, match=f"{kind.__name__} in a reply that is {state}"
        ):
            grammar.check([event])
    else:
        assert grammar.check([event])[-1] == event
        assert vars(grammar)["_state"] == after


def test_the_table_knows_every_event() -> None:
    """No event of the union was forgotten."""
    assert set(SAMPLES) == {kind for row in NEXT.values() for kind in row}


@pytest.mark.parametrize("item", PARTS)
@pytest.mark.parametrize("part", ["text", "refusal", "summary", "thought", "arguments", "input"])
def test_which_parts_an_item_may_have(item: Any, part: Any) -> None:
    """A part opens only in an item of its kind."""
    events = START, ItemStarted(0, item), PartStarted(0, 0, part)
    if part in PARTS[item]:
        assert run(*events) == list(events)
    else:
        assert "cannot open" in refused(*events)


# What is legal passes as it is.


def test_a_plain_reply_passes_untouched() -> None:
    """A reply that is legal is not changed."""
    events: list[Event] = [
        START,
        MESSAGE,
        TEXT,
        DELTA,
        Annotated(0, 0, "citation", {}),
        PartEnded(0, 0),
        Annotated(0, 0, "wire", {}),
        ItemEnded(0),
        Annotated(0, -1, "wire", {}),
        USAGE,
        Finished(0, "stop"),
        USAGE,
        Ended(),
    ]
    assert run(*events) == events


def test_interleaved_calls_pass_untouched() -> None:
    """Items may be open side by side and grow in turns."""
    events: list[Event] = [START]
    for item in (0, 1):
        events += [
            ItemStarted(item, "tool_call", 0, f"c{item}", "f"),
            PartStarted(item, 0, "arguments"),
        ]
    events += [PartDelta(item % 2, 0, "{}"[item // 2]) for item in range(4)]
    for item in (1, 0):
        events += [PartEnded(item, 0), ItemEnded(item)]
    events += [Finished(0, "tool_calls"), Ended()]
    assert run(*events) == events


def test_a_failure_may_come_at_any_moment() -> None:
    """Even before the start, and with everything open."""
    for before in ([], [START]):
        grammar = Grammar()
        assert grammar.check([*before, FAILED])[-1] == FAILED
        assert grammar.over
        with pytest.raises(RemoteProtocolError, match="that is over"):
            grammar.check([START])
    assert run(START, MESSAGE, TEXT, FAILED)[-1] == FAILED


# Mends.


def test_open_parts_end_with_their_item() -> None:
    """A wire that never says the end of a part is mended."""
    assert run(START, MESSAGE, TEXT, ItemEnded(0))[-2:] == [PartEnded(0, 0), ItemEnded(0)]


def test_parts_that_ended_are_not_ended_again() -> None:
    """The mend adds only what is missing."""
    events = run(START, MESSAGE, TEXT, PartEnded(0, 0), PartStarted(0, 1, "refusal"), ItemEnded(0))
    assert events[3:] == [
        PartEnded(0, 0),
        PartStarted(0, 1, "refusal"),
        PartEnded(0, 1),
        ItemEnded(0),
    ]


def test_open_items_end_with_their_choice() -> None:
    """A wire that has no ends of items, as chat, is mended by the finish reason."""
    assert run(START, MESSAGE, TEXT, DELTA, Finished(0, "stop"))[4:] == [
        PartEnded(0, 0),
        ItemEnded(0, "completed"),
        Finished(0, "stop"),
    ]


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_the_item_that_grew_last_is_incomplete_when_cut(reason: Any) -> None:
    """Only the item that the cut went through is incomplete."""
    events = run(
        START,
        MESSAGE,
        TEXT,
        ItemStarted(1, "tool_call"),
        PartStarted(1, 0, "arguments"),
        PartDelta(0, 0, "more"),
        Finished(0, reason),
    )
    assert [event for event in events if isinstance(event, ItemEnded)] == [
        ItemEnded(0, "incomplete"),
        ItemEnded(1, "completed"),
    ]


def test_an_item_that_opened_last_and_never_grew_is_the_one_cut() -> None:
    """A call that was only begun is incomplete, not the text before it."""
    events = run(START, MESSAGE, TEXT, DELTA, ItemStarted(1, "tool_call"), Finished(0, "length"))
    assert events[-2] == ItemEnded(1, "incomplete")


def test_an_item_that_ended_itself_keeps_its_status() -> None:
    """The mend does not speak twice of one item."""
    events = run(START, MESSAGE, ItemEnded(0, "completed"), Finished(0, "length"))
    assert [event for event in events if isinstance(event, ItemEnded)] == [ItemEnded(0)]


def test_only_the_items_of_its_own_choice_end_with_a_choice() -> None:
    """The end of one choice leaves the others open."""
    grammar = Grammar()
    grammar.check([START, MESSAGE, ItemStarted(1, "message", 1), PartStarted(1, 0, "text")])
    assert grammar.check([Finished(0, "stop")]) == [ItemEnded(0), Finished(0, "stop")]
    assert grammar.check([PartDelta(1, 0, "on")]) == [PartDelta(1, 0, "on")]


@pytest.mark.fault(30, "V")
def test_a_second_finish_of_a_choice_is_dropped() -> None:
    """The first reason counts (ChatMock#114)."""
    events = run(START, MESSAGE, Finished(0, "length"), Finished(0, "stop"), Ended())
    assert [event for event in events if isinstance(event, Finished)] == [Finished(0, "length")]


def test_stop_after_a_tool_call_is_tool_calls() -> None:
    """A client that waits for `tool_calls` must see it (litellm#12862); extras are kept."""
    extra = {"chat": {"finish_reason": "stop"}}
    events = run(START, ItemStarted(0, "tool_call"), Finished(0, "stop", extra))
    assert events[-1] == Finished(0, "tool_calls", extra)


def test_stop_after_a_tool_call_and_more_is_tool_calls() -> None:
    """What a choice said behind its call does not hide the call, be it open or ended."""
    call, text = ItemStarted(0, "tool_call"), ItemStarted(1, "message")
    said: list[list[Event]] = [[START, call, text], [START, call, ItemEnded(0), text]]
    for events in said:
        assert run(*events, Finished(0, "stop"))[-1] == Finished(0, "tool_calls")


def test_length_after_a_tool_call_stays_length() -> None:
    """A call that was cut is not offered for execution."""
    assert run(START, ItemStarted(0, "tool_call"), Finished(0, "length"))[-1].reason == "length"  # type: ignore[union-attr]  # a Finished, by construction


def test_a_choice_without_a_reason_is_stop_when_another_has_one() -> None:
    """LiteLLM with n = 2 forgets the second choice's reason."""
    events = run(START, MESSAGE, ItemStarted(1, "message", 1), Finished(0, "length"), Ended())
    assert events[-3:] == [ItemEnded(1), Finished(1, "stop"), Ended()]


def test_a_choice_without_a_reason_that_called_a_tool_is_tool_calls() -> None:
    """The mended reason is mended like a said one."""
    events = run(START, MESSAGE, ItemStarted(1, "tool_call", 1), Finished(0, "stop"), Ended())
    assert events[-2] == Finished(1, "tool_calls")


def test_a_choice_that_finishes_without_output_is_a_choice() -> None:
    """A reply without any output still ends well."""
    assert run(START, Finished(0, "stop"), Ended()) == [START, Finished(0, "stop"), Ended()]


# Refusals.


def test_an_end_without_any_reason_is_truncation() -> None:
    """No finish reason anywhere: the reply was cut, whatever terminator followed."""
    cut: list[list[Event]] = [[START], [START, MESSAGE, TEXT, DELTA], [START, USAGE]]
    for events in cut:
        grammar = Grammar()
        grammar.check(events)
        with pytest.raises(Truncated):
            grammar.check([Ended()])


@pytest.mark.fault(30, "V")
def test_an_end_without_the_first_choice_is_refused() -> None:
    """A client that reads choice 0 would take a reply of choice 1 alone for an empty one."""
    assert "no choice 0" in refused(
        START, ItemStarted(0, "message", 1), Finished(1, "stop"), Ended()
    )


@pytest.mark.parametrize(
    ("events", "words"),
    [
        ([START, START], "Started in a reply that is open"),
        ([START, MESSAGE, MESSAGE], "item 0 started twice"),
        ([START, Finished(0, "stop"), MESSAGE], "choice 0 went on after its end"),
        ([START, TEXT], "item 0 was never opened"),
        ([START, DELTA], "item 0 was never opened"),
        ([START, ItemEnded(3)], "item 3 was never opened"),
        ([START, Annotated(1, -1, "wire", {})], "item 1 was never opened"),
        ([START, MESSAGE, DELTA], "part 0 of item 0 grew while it was not open"),
        ([START, MESSAGE, TEXT, PartEnded(0, 0), DELTA], "part 0 of item 0 grew"),
        ([START, MESSAGE, TEXT, TEXT], "part 0 of item 0 cannot open as text"),
        ([START, MESSAGE, PartEnded(0, 0)], "part 0 of item 0 ended while"),
        ([START, MESSAGE, TEXT, PartEnded(0, 0), PartEnded(0, 0)], "part 0 of item 0 ended while"),
        ([START, MESSAGE, ItemEnded(0), ItemEnded(0)], "item 0 went on after its end"),
        ([START, MESSAGE, ItemEnded(0), TEXT], "item 0 went on after its end"),
        ([START, MESSAGE, TEXT, ItemEnded(0), DELTA], "item 0 went on after its end"),
        ([START, MESSAGE, TEXT, ItemEnded(0), PartEnded(0, 0)], "item 0 went on after its end"),
        ([START, MESSAGE, Finished(0, "stop"), TEXT], "item 0 went on after its end"),
        ([START, MESSAGE, Finished(0, "stop"), ItemEnded(0)], "item 0 went on after its end"),
        ([START, MESSAGE, TEXT, Finished(0, "stop"), DELTA], "item 0 went on after its end"),
        ([START, MESSAGE, Annotated(0, 0, "citation", {})], "annotated, but never opened"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_not_mended_is_refused(events: list[Event], words: str) -> None:
    """Each breach has words that name the place."""
    assert words in refused(*events)


def test_what_came_before_a_breach_stands() -> None:
    """Taken one by one, the good events of a batch are not lost to the bad one behind them."""
    legal: list[Event] = []
    grammar = Grammar()
    for event in (START, MESSAGE):
        grammar.take(event, legal)
    with pytest.raises(RemoteProtocolError):
        grammar.take(DELTA, legal)
    assert legal == [START, MESSAGE]


# Anything at all.


NUMBERS = st.integers(0, 2)
EVENTS = st.one_of(
    st.just(START),
    st.builds(ItemStarted, NUMBERS, st.sampled_from(list(PARTS)), st.integers(0, 1)),
    st.builds(PartStarted, NUMBERS, NUMBERS, st.sampled_from(["text", "arguments", "thought"])),
    st.builds(PartDelta, NUMBERS, NUMBERS, st.text(max_size=2)),
    st.builds(PartEnded, NUMBERS, NUMBERS),
    st.builds(ItemEnded, NUMBERS),
    st.builds(Finished, st.integers(0, 1), st.sampled_from(["stop", "length"])),
    st.just(USAGE),
    st.just(Ended()),
)


@pytest.mark.fault(30, "V")
@given(st.lists(EVENTS, max_size=25))
def test_whatever_passes_is_a_legal_reply_as_it_stands(events: list[Event]) -> None:
    """The grammar's own output needs no mending: a second grammar lets it through unchanged."""
    legal: list[Event] = []
    grammar = Grammar()
    grammar.take(START, legal)
    for event in events:
        try:
            grammar.take(event, legal)
        except RemoteProtocolError:
            continue  # the stream would fail here; go on, to reach more states
        except Truncated:
            break
    assert Grammar().check(legal) == legal
    if grammar.over:
        ended = [event.item for event in legal if isinstance(event, ItemEnded)]
        opened = [event.item for event in legal if isinstance(event, ItemStarted)]
        assert sorted(ended) == sorted(opened)


def test_a_tool_call_has_just_one_part() -> None:
    """A second part of a tool call is refused: encoders count on one."""
    call: list[Event] = [
        Started("r", "m", 1),
        ItemStarted(0, "tool_call", id="c", name="f"),
        PartStarted(0, 0, "arguments"),
    ]
    with pytest.raises(RemoteProtocolError, match="cannot open"):
        Grammar().check([*call, PartStarted(0, 1, "input")])


def test_a_tool_call_without_a_part_had_empty_arguments() -> None:
    """A call that ends before it said anything gets its one part, empty."""
    call: list[Event] = [Started("r", "m", 1), ItemStarted(0, "tool_call", id="c", name="f")]
    assert Grammar().check([*call, ItemEnded(0)])[2:] == [
        PartStarted(0, 0, "arguments"),
        PartEnded(0, 0),
        ItemEnded(0),
    ]
