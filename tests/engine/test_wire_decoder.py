"""A reply's first byte decides what it is; how it was cut, asked or labelled does not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursling.engine.errors import RemoteProtocolError, Truncated, UpstreamError
from nursling.engine.events import Ended, Event, Failed, PartDelta
from nursling.engine.formats.wire import WireDecoder, parse_frame
from nursling.engine.limits import Limits
from nursling.engine.sse import BOM


class Echo:
    """A dialect that turns each frame into a delta, ends at `[DONE]`, and fails when told to."""

    def __init__(self) -> None:
        self.finished = False
        self.held = 0
        self.eof: Event | None = Ended()

    def repeats(self, event: PartDelta) -> None:
        return None

    def on_frame(self, name: bytes, data: bytes, out: list[Event]) -> None:
        if data == b"[DONE]":
            out.append(Ended())
            return
        if data == b'"keep"':
            self.held += 50
            return
        out.append(PartDelta(0, 0, f"{name.decode()}:{parse_frame(data)}"))
        self.finished = data == b'"finish"'

    def on_whole(self, body: Any, out: list[Event]) -> None:
        out.extend([PartDelta(0, 0, f"whole:{body}"), Ended()])

    def on_eof(self, out: list[Event]) -> None:
        if self.eof is None:
            raise Truncated("cut")
        out.append(self.eof)


SMALL = Limits(max_event_bytes=100, max_reply_bytes=200)


def read(*chunks: bytes, dialect: Echo | None = None) -> list[Event]:
    decoder = WireDecoder(dialect or Echo(), SMALL)
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return events + decoder.close()


def words(events: list[Event]) -> list[str]:
    """Deltas as their text, the end as its name or its error's code."""
    return [
        event.text
        if isinstance(event, PartDelta)
        else (event.error.code or "?")
        if isinstance(event, Failed)
        else type(event).__name__
        for event in events
    ]


@pytest.mark.fault(7, "V")
@pytest.mark.fault(14, "V")
@pytest.mark.fault(16, "V")
@pytest.mark.fault(25, "V")
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"data: 1\n\ndata: [DONE]\n\n", [":1", "Ended"]),
        (b"event: a\ndata: 1\n\n", ["a:1", "Ended"]),
        (b": beat\n\ndata: 1\n\n", [":1", "Ended"]),
        (BOM + b"data: 1\n\n", [":1", "Ended"]),
        (b"\r\n\r\ndata: 1\n\n", [":1", "Ended"]),
        (b'{"a": 1}', ["whole:{'a': 1}", "Ended"]),
        (BOM + b' \r\n\t{"a": 1}\n', ["whole:{'a': 1}", "Ended"]),
        (b"\n" * 50 + b"[1]", ["whole:[1]", "Ended"]),
        (BOM + b"\n data: 1\n\ndata: 2\n\n", [":2", "Ended"]),
        (b"\n" + BOM + b"data: 1\n\ndata: 2\n\n", [":2", "Ended"]),
        (BOM + b"\tdata: 1\n\ndata: 2\n\n", [":2", "Ended"]),
        (b" " * 150 + b"\n" * 150 + b"data: 2\n\n", [":2", "Ended"]),
        (b"<html>", ["upstream_protocol_error"]),
        (BOM + b"\n<!DOCTYPE html>", ["upstream_protocol_error"]),
        (b"", ["upstream_truncated"]),
        (b" \n ", ["upstream_truncated"]),
        (BOM, ["upstream_truncated"]),
        (BOM[:2], ["upstream_truncated"]),
        (BOM + b"\n", ["upstream_truncated"]),
        (b": only a beat\n\n", ["upstream_truncated"]),
        (b"data:\n\n", ["upstream_truncated"]),
        (b"Internal Server Error", ["upstream_truncated"]),
        (b'{"a": ', ["upstream_truncated"]),
        (b"{" + b" " * 300, ["upstream_reply_too_large"]),
        (b"data: 1\n\ndata: 2", [":1", ":2", "Ended"]),
        (b"data: 1\n\ndata: [DONE]", [":1", "Ended"]),
        (b'data: 1\n\ndata: {"a', [":1", "upstream_truncated"]),
        (b"data: 1\n\ndata: {\n\ndata: 2\n\n", [":1", "upstream_protocol_error"]),
        (b"data: 1\n\ndata: " + b"9" * 100 + b"\n\n", [":1", "upstream_event_too_large"]),
        (b"data: 1\n\n" + b"9" * 101, [":1", "upstream_event_too_large"]),
        (b"data: 1\n\ndata: [DONE]\n\ndata: 2\n\n", [":1", "Ended"]),
        (b"data: [DONE]\n\n" + b"9" * 101, ["Ended"]),
        (b"data:\n\ndata: 1\n\n", [":1", "Ended"]),
    ],
    ids=lambda value: repr(value[:30]) if isinstance(value, bytes) else "",
)
def test_the_first_byte_decides_however_it_was_cut(body: bytes, expected: list[str]) -> None:
    """Stream, body or page: told apart by content, whole, in two at every place, byte by byte."""
    assert words(read(body)) == expected
    assert words(read(*[body[at : at + 1] for at in range(len(body))])) == expected
    for at in range(len(body)):
        assert words(read(body[:at], b"", body[at:])) == expected


@pytest.mark.fault(23, "V")
@given(
    st.lists(
        st.binary(max_size=12)
        | st.sampled_from([BOM, BOM[:1], b"data: 1\n\n", b"{", b"\n", b"\r", b" ", b"<"])
    )
)
def test_any_bytes_end_with_one_end(chunks: list[bytes]) -> None:
    """A decoder raises nothing and ends exactly once, on anything, deaf to the cuts."""
    events = read(*chunks)
    assert [event for event in events if isinstance(event, Ended | Failed)] == events[-1:]
    assert events == read(b"".join(chunks))


@pytest.mark.fault(16, "V")
def test_nothing_follows_the_end() -> None:
    """Bytes after the end, and a second close, are silence."""
    decoder = WireDecoder(Echo(), SMALL)
    assert words(decoder.feed(b"data: [DONE]\n\n")) == ["Ended"]
    assert decoder.finished
    assert decoder.feed(b"data: 1\n\n") == []
    assert decoder.close() == []
    assert decoder.close() == []


def test_nothing_follows_a_failure() -> None:
    """A stream that broke the rules is not read on."""
    decoder = WireDecoder(Echo(), SMALL)
    assert words(decoder.feed(b"data: {\n\ndata: 1\n\n")) == ["upstream_protocol_error"]
    assert decoder.feed(b"data: 1\n\n") == []
    assert decoder.close() == []


def test_finished_is_the_dialects_word_until_the_end() -> None:
    """The grace clock starts when the format says that only the terminator is missing."""
    decoder = WireDecoder(Echo(), SMALL)
    assert not decoder.finished
    decoder.feed(b'data: "finish"\n\n')
    assert decoder.finished


@pytest.mark.fault(14, "V")
def test_the_dialect_says_how_a_stream_without_terminator_ends() -> None:
    """A clean end of the bytes is no end of the reply by itself."""
    dialect = Echo()
    dialect.eof = None
    assert words(read(b"data: 1\n\n", dialect=dialect)) == [":1", "upstream_truncated"]


def test_events_before_an_oversized_one_are_not_lost() -> None:
    """One read may bring good events and the one that breaks the budget."""
    decoder = WireDecoder(Echo(), SMALL)
    assert words(decoder.feed(b"data: 1\n\ndata: 2\n\n" + b"x" * 200)) == [
        ":1",
        ":2",
        "upstream_event_too_large",
    ]


def test_a_frame_that_is_no_json_is_the_upstreams_fault() -> None:
    """The words say what was wrong with it."""
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        parse_frame(b"{")


def test_an_error_that_its_server_wrote_by_hand() -> None:
    """An error frame whose JSON a quote has broken is the upstream's error, in its own words."""
    with pytest.raises(UpstreamError, match="no tool named here") as caught:
        parse_frame(b'{"error": "no tool named here: "weather""}')
    assert caught.value.code == "upstream_error"


def test_what_a_dialect_holds_back_is_bounded() -> None:
    """Text that no event carries yet counts too: a reply cannot grow unseen."""
    keep = b'data: "keep"\n\n'
    assert read(keep * 4, b"data: [DONE]\n\n") == [Ended()]
    [last] = read(keep * 4, keep)
    assert isinstance(last, Failed)
    assert last.error.code == "upstream_reply_too_large"
