"""The fold: what it keeps, how it joins, and when it refuses to keep more."""

from __future__ import annotations

from typing import Any

import pytest

from nursling.engine.accumulate import (
    BOOKKEEPING,
    WEIGHT,
    Accumulator,
    FinishedItem,
    FinishedPart,
    FinishedReply,
    merge_usage,
    notes_of,
)
from nursling.engine.errors import ErrorInfo, ReplyTooLarge
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


ROOMY = 1 << 20


def fold(*events: Event, budget: int = ROOMY) -> FinishedReply:
    accumulator = Accumulator(budget)
    accumulator.add(list(events))
    return accumulator.reply


def test_a_whole_reply() -> None:
    """Every event has its place in the fold, and nothing is kept twice."""

    def note(word: str) -> dict[str, dict[str, Any]]:
        return {"chat": {word: 1}}

    reply = fold(
        Started("id", "model", 7, note("started")),
        ItemStarted(0, "message", 0, "m", extra=note("item")),
        PartStarted(0, 0, "text", note("part")),
        PartDelta(0, 0, "Hel", [{"token": "Hel"}], note("delta")),
        PartDelta(0, 0, "lo", [{"token": "lo"}]),
        PartDelta(0, 0, ""),
        Annotated(0, 0, "citation", {"url": "x"}),
        Annotated(0, 0, "wire", {}, note("of part")),
        Annotated(0, -1, "wire", {}, note("of item")),
        Annotated(-1, -1, "wire", {}, note("of reply")),
        PartEnded(0, 0, note("part end")),
        ItemEnded(0, "incomplete", "sealed", note("item end")),
        ItemStarted(1, "tool_call", 0, "c", "f"),
        ItemStarted(2, "message", 1),
        UsageReported(Usage(input_tokens=1), note("usage")),
        UsageReported(Usage(output_tokens=2)),
        Finished(0, "length", note("finish")),
        Ended(note("end")),
    )
    assert reply == FinishedReply(
        id="id",
        model="model",
        created=7,
        items={
            0: FinishedItem(
                item=0,
                kind="message",
                id="m",
                parts={
                    0: FinishedPart(
                        kind="text",
                        pieces=["Hel", "lo"],
                        logprobs=[{"token": "Hel"}, {"token": "lo"}],
                        citations=[{"url": "x"}],
                        ended=True,
                        notes=[note(word) for word in ("part", "delta", "of part", "part end")],
                    )
                },
                status="incomplete",
                sealed="sealed",
                notes=[note(word) for word in ("item", "of item", "item end")],
            ),
            1: FinishedItem(item=1, kind="tool_call", id="c", name="f"),
            2: FinishedItem(item=2, kind="message", choice=1),
        },
        reasons={0: "length"},
        usage=Usage(input_tokens=1, output_tokens=2),
        complete=True,
        notes=[note(word) for word in ("started", "of reply", "usage", "finish", "end")],
    )
    assert reply.text == "Hello"
    assert [item.name for item in reply.tool_calls] == ["f"]
    assert [item.item for item in reply.of_choice(1)] == [2]


def test_a_failed_reply_keeps_what_came_and_the_error() -> None:
    """What was said before a failure is not lost, and the reply is not complete."""
    error = ErrorInfo(message="no")
    reply = fold(
        Started("id", "m", 1),
        ItemStarted(0, "message"),
        PartStarted(0, 0, "text"),
        PartDelta(0, 0, "Hel"),
        Failed(error),
    )
    assert (reply.text, reply.error, reply.complete) == ("Hel", error, False)


def test_the_visible_text_is_that_of_messages() -> None:
    """Reasoning and refusals are not passed off as the answer."""
    reply = fold(
        ItemStarted(0, "reasoning"),
        PartStarted(0, 0, "thought"),
        PartDelta(0, 0, "hmm"),
        ItemStarted(1, "message"),
        PartStarted(1, 0, "refusal"),
        PartDelta(1, 0, "no"),
        PartStarted(1, 1, "text"),
        PartDelta(1, 1, "yes"),
    )
    assert reply.text == "yes"
    assert reply.items[1].text("text", "refusal") == "noyes"


def test_pieces_are_joined_once_and_more_may_follow() -> None:
    """Reading the text in the middle of a stream costs no second copy of what was joined."""
    part = FinishedPart(kind="text", pieces=["a", "b"])
    assert part.text == "ab"
    assert part.pieces == ["ab"]
    part.pieces.append("c")
    assert part.text == "abc"
    assert FinishedPart(kind="text").text == ""


def test_two_replies_share_nothing() -> None:
    """The empty lists of one reply are not those of another."""
    first, second = fold(Started("a", "m", 1)), fold(Started("b", "m", 1))
    first.items[0] = FinishedItem(item=0, kind="message")
    assert second.items == {}


def test_usage_reports_merge_field_by_field() -> None:
    """A later report fills and overrides; what it does not say stays."""
    first = Usage(input_tokens=1, cached_tokens=1)
    assert merge_usage(None, first) is first
    second = Usage(input_tokens=2, output_tokens=3, total_tokens=5, reasoning_tokens=0)
    assert merge_usage(first, second) == Usage(
        input_tokens=2, output_tokens=3, total_tokens=5, cached_tokens=1, reasoning_tokens=0
    )


def test_notes_of_one_format_merge_and_others_stay_away() -> None:
    """Later words win, and a format never sees another's."""
    notes = [{"chat": {"a": 1, "b": 1}}, {"responses": {"c": 1}}, {"chat": {"b": 2}}]
    assert notes_of(notes, "chat") == {"a": 1, "b": 2}
    assert notes_of(notes, "peer") == {}


OPEN: list[Event] = [ItemStarted(0, "message"), PartStarted(0, 0, "text")]


@pytest.mark.fault(26, "V")
@pytest.mark.parametrize(
    ("event", "size"),
    [
        (PartDelta(0, 0, "x" * 100), 100),
        (
            PartDelta(0, 0, "", [{"token": "x"}] * 3),
            WEIGHT * len('[{"token":"x"},{"token":"x"},{"token":"x"}]'),
        ),
        (PartDelta(0, 0, "", None, {"chat": {"a": 1}}), WEIGHT * len('{"chat":{"a":1}}')),
        (Annotated(0, 0, "citation", {"url": "x"}), WEIGHT * len('{"url":"x"}')),
        (Annotated(-1, -1, "wire", {}, {"chat": {"a": 1}}), WEIGHT * len('{"chat":{"a":1}}')),
        (ItemEnded(0, "completed", "s" * 50), 50),
        (ItemStarted(1, "message"), BOOKKEEPING),
        (PartStarted(0, 1, "text"), BOOKKEEPING),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, int) else "",
)
def test_everything_that_is_kept_counts(event: Event, size: int) -> None:
    """No kind of event lets a reply grow past its budget unseen."""
    open_size = 2 * BOOKKEEPING
    fold(*OPEN, event, budget=open_size + size)
    with pytest.raises(ReplyTooLarge):
        fold(*OPEN, event, budget=open_size + size - 1)


def test_text_counts_in_bytes() -> None:
    """The budget is of bytes: four of a horse are not one."""
    horses = "\U0001f40e" * 10
    with pytest.raises(ReplyTooLarge):
        fold(*OPEN, PartDelta(0, 0, horses), budget=2 * BOOKKEEPING + 39)
    fold(*OPEN, PartDelta(0, 0, horses), budget=2 * BOOKKEEPING + 40)


@pytest.mark.fault(26, "V")
def test_a_million_empty_deltas_are_not_kept() -> None:
    """Beats of an upstream cost no memory."""
    accumulator = Accumulator(ROOMY)
    accumulator.add(OPEN)
    accumulator.add([PartDelta(0, 0, "")] * 10_000)
    assert accumulator.reply.items[0].parts[0].pieces == []
