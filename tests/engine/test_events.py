"""The union of events: serialisable, closed, and clear about what is news."""

from __future__ import annotations

import gc

import msgspec
import pytest

from nursling.engine.errors import ErrorInfo
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
    is_meaningful,
)


EXTRA = {"chat": {"x": [1, None, "y"]}}
NEWS: list[tuple[Event, bool]] = [
    (Started("id", "model", 1, EXTRA), False),
    (ItemStarted(0, "message"), False),
    (ItemStarted(0, "reasoning", 1, "id", extra=EXTRA), False),
    (ItemStarted(0, "tool_call", 0, "call", "name"), True),
    (ItemStarted(0, "opaque", 0, "", "web_search_call"), True),
    (PartStarted(0, 0, "text"), False),
    (PartDelta(0, 0, ""), False),
    (PartDelta(0, 0, "", [{"token": ""}]), False),
    (PartDelta(0, 0, " "), True),
    (Annotated(-1, -1, "wire", {}, EXTRA), False),
    (Annotated(0, -1, "wire", {}, EXTRA), True),
    (Annotated(0, 0, "citation", {"url": "x"}), True),
    (PartEnded(0, 0), False),
    (ItemEnded(0, "incomplete", "sealed"), False),
    (UsageReported(Usage(input_tokens=1)), False),
    (Finished(0, "stop"), True),
    (Ended(), True),
    (Failed(ErrorInfo(message="no", status=429, headers={"retry-after": "1"})), True),
]


@pytest.mark.parametrize(("event", "news"), NEWS, ids=lambda value: type(value).__name__)
def test_what_is_news(event: Event, news: bool) -> None:
    """A handshake or a beat commits nothing and resets no clock; words and deeds do."""
    assert is_meaningful(event) is news


@pytest.mark.parametrize("event", [event for event, _ in NEWS], ids=lambda e: type(e).__name__)
def test_every_event_survives_json(event: Event) -> None:
    """An event can be logged, stored and sent, and comes back as what it was."""
    text = msgspec.json.encode(event)
    assert msgspec.json.decode(text, type=Event) == event
    assert msgspec.json.decode(text)["event"] == type(event).__name__


def test_the_union_is_closed() -> None:
    """What is no event of ours is no event."""
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'{"event": "Restarted"}', type=Event)


@pytest.mark.parametrize("event", [event for event, _ in NEWS], ids=lambda e: type(e).__name__)
def test_events_are_no_work_for_the_garbage_collector(event: Event) -> None:
    """A million short-lived structs cause no collection."""
    assert not gc.is_tracked(event)
