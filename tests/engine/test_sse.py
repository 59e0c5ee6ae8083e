"""The event-stream codec, by the standard's own examples and by what servers really send."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursling.engine.errors import EventTooLarge
from nursling.engine.sse import BOM, COMMENT_BEAT, Frame, SSEDecoder, encode_frame


ROOMY = 1 << 20


def decode(*chunks: bytes, budget: int = ROOMY, close: bool = True) -> list[Frame]:
    decoder = SSEDecoder(budget)
    frames = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return frames + (decoder.close() if close else [])


def data(*chunks: bytes) -> list[bytes]:
    return [text for _, text in decode(*chunks)]


# The examples of WHATWG HTML §9.2.6.


@pytest.mark.fault(22, "V")
def test_whatwg_example_1_two_lines_of_data() -> None:
    """Lines of data join with LF: the stock ticker."""
    assert data(b"data: YHOO\ndata: +2\ndata: 10\n\n") == [b"YHOO\n+2\n10"]


def test_whatwg_example_2_comment_and_ids() -> None:
    """A comment and ids are no data, and one space after the colon is not the value's."""
    stream = b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\n"
    stream += b"data:  third event\n\n"
    assert data(stream) == [b"first event", b"second event", b" third event"]


@pytest.mark.fault(22, "V")
def test_whatwg_example_3_data_without_value() -> None:
    """`data` without a colon is an empty line of data, and an event all the same."""
    decoder = SSEDecoder(ROOMY)
    assert decoder.feed(b"data\n\ndata\ndata\n\ndata:") == [(b"", b""), (b"", b"\n")]


def test_whatwg_example_4_space_after_the_colon() -> None:
    """`data:test` and `data: test` are the same event."""
    assert data(b"data:test\n\ndata: test\n\n") == [b"test", b"test"]


def test_whatwg_named_events() -> None:
    """`event:` names one event, and no later one."""
    stream = b"event: add\ndata: 73857293\n\nevent: remove\ndata: 2153\n\ndata: 113411\n\n"
    assert decode(stream) == [(b"add", b"73857293"), (b"remove", b"2153"), (b"", b"113411")]


# Hazards.


@pytest.mark.fault(22, "V")
@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"], ids=["LF", "CR", "CRLF"])
def test_every_line_ending(end: bytes) -> None:
    """LF, CR and CRLF end a line alike."""
    stream = end.join([b"event: a", b"data: 1", b"", b"data: 2", b"data: 3", b"", b""])
    assert decode(stream) == [(b"a", b"1"), (b"", b"2\n3")]


@pytest.mark.fault(22, "V")
def test_crlf_cut_between_cr_and_lf_is_one_line_end() -> None:
    """The LF of a CRLF that comes with the next read does not end a second line."""
    assert decode(b"event: a\r", b"\ndata: 1\r", b"", b"\n\r", b"\n") == [(b"a", b"1")]


@pytest.mark.fault(24, "V")
@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"])
def test_unicode_line_separators_do_not_end_a_line(separator: str) -> None:
    """What Python's `splitlines` splits at, the standard does not (httpx#2422)."""
    text = f"a{separator}b".encode()
    assert data(b"data: " + text + b"\n\n") == [text]


@pytest.mark.fault(22, "V")
def test_one_leading_bom_is_dropped() -> None:
    """A BOM at the very start is no part of the first field; a later one is."""
    bom = "\ufeff".encode()
    assert data(bom + b"data: 1\n\n" + bom + b"data: 2\n\ndata: 3\n\n") == [b"1", b"3"]


@pytest.mark.fault(22, "V")
def test_an_empty_read_between_cr_and_lf_changes_nothing() -> None:
    """A read without bytes does not make the LF behind it a line end of its own."""
    assert data(b"data: 1\r", b"", b"\ndata: 2\r", b"", b"\n\r\n") == [b"1\n2"]


@pytest.mark.fault(22, "V")
def test_the_lines_of_one_event_are_not_the_next_ones() -> None:
    """Each event has its own lines of data, also behind an event of several."""
    assert data(b"data: 1\ndata: 2\n\ndata: 3\n\ndata: 4\ndata\n\n") == [b"1\n2", b"3", b"4\n"]


def test_an_event_without_data_is_none_and_its_name_is_forgotten() -> None:
    """A blank line after a name alone dispatches nothing."""
    assert decode(b"event: ghost\n\ndata: 1\n\n") == [(b"", b"1")]


@pytest.mark.fault(22, "V")
def test_comments_and_unknown_fields_are_skipped() -> None:
    """Beats, ids, retry times and foreign fields never become events."""
    assert data(b": beat\n\nid: 4\nretry: 5\nfoo: bar\nfoo\ndata: 1\n\n") == [b"1"]


def test_the_last_frame_without_its_blank_line_is_handed_over_at_the_end() -> None:
    """Servers forget the blank line after their last event: `close` gives what there is."""
    decoder = SSEDecoder(ROOMY)
    assert decoder.feed(b"data: 1\n\nevent: e\ndata: [DO") == [(b"", b"1")]
    assert decoder.feed(b"NE]") == []
    assert decoder.close() == [(b"e", b"[DONE]")]
    assert decoder.close() == []


def test_frames_before_an_oversized_event_reach_the_caller() -> None:
    """The budget of one event does not swallow the events before it."""
    frames: list[Frame] = []
    with pytest.raises(EventTooLarge):
        SSEDecoder(20).feed(b"data: 1\n\ndata: " + b"x" * 30 + b"\n\n", frames)
    assert frames == [(b"", b"1")]


# The budget.


LINES = [
    pytest.param(b"data: " + b"x" * 40, id="data"),
    pytest.param(b"data: 1\ndata: " + b"x" * 40, id="second line"),
    pytest.param(b": " + b"x" * 40, id="comment"),
    pytest.param(b"id: " + b"x" * 40, id="ignored field"),
    pytest.param(b"event: " + b"x" * 40, id="name"),
    pytest.param(b"x" * 40, id="junk"),
    pytest.param(BOM + b"data: " + b"x" * 40, id="with a BOM"),
]


@pytest.mark.fault(25, "V")
@pytest.mark.parametrize("line", LINES)
def test_the_budget_does_not_depend_on_the_cuts(line: bytes) -> None:
    """A line over the budget fails whether it comes whole, cut, or without its end."""
    exact = len(line.replace(b"\n", b"")) + line.count(b"\n") + 1
    for stream in (line + b"\n\n", line):
        for cuts in ([stream], [stream[at : at + 1] for at in range(len(stream))]):
            decode(*cuts, budget=exact)
            with pytest.raises(EventTooLarge):
                decode(*cuts, budget=exact - 1)


@pytest.mark.fault(25, "V")
@pytest.mark.parametrize(
    "before", [b"data: 1\n\n", b"data: 1\ndata: 2\n\n", b"event: e\n\n", b"\n"]
)
def test_each_event_has_the_whole_budget_and_no_more(before: bytes) -> None:
    """What a blank line ended costs the next event nothing, and gives it nothing."""
    event = b"data: " + b"x" * 40 + b"\n"
    decode(before + event, budget=len(event))
    with pytest.raises(EventTooLarge):
        decode(before + event, budget=len(event) - 1)


@pytest.mark.fault(25, "V")
@pytest.mark.parametrize("close", [False, True], ids=["whole lines", "last line open"])
def test_the_lines_of_one_event_add_up_to_its_budget(close: bool) -> None:
    """Many small lines are one large event; names and data count alike."""
    event = b"event: e\n" + b"data: 1\n" * 9 + (b"data" if close else b"data\n")
    exact = 9 + 9 * 8 + 5
    assert decode(event, budget=exact, close=close) == [(b"e", b"1\n" * 9)] * close
    with pytest.raises(EventTooLarge):
        decode(event, budget=exact - 1, close=close)


@pytest.mark.fault(25, "V")
@pytest.mark.parametrize("line", [b": beat\n", b":\n", b"id: 7\n", b"retry: 1\n", b"x\n"])
def test_lines_that_are_not_kept_cost_an_event_nothing(line: bytes) -> None:
    """Beats within one event, however many, do not use up its budget."""
    event = line * 10 + b"data: 1\n" + line * 10 + b"data: 2\n" + line * 10
    assert decode(event, budget=16 + len(line)) == [(b"", b"1\n2")]


def test_the_budget_is_of_one_event_and_not_of_the_stream() -> None:
    """A long stream of small events, comments included, stays within a small budget."""
    assert len(data(*[b": beat\n\ndata: 1234567890\n\n"] * 1000)) == 1000
    assert len(decode(b": beat\n\ndata: 1234567890\n\n" * 1000, budget=20)) == 1000


# Every cut.


STREAM = (
    BOM
    + b": hello\r\n\r\nevent: response.created\r\n"
    + b'data: {"a": "\xf0\x9f\x90\x8e\xe2\x80\xa8"}\r\n\r\n'
    b"data: one\rdata:two\r\rdata\n\nid: 7\nevent:x\ndata:  y\n\n:\n\ndata: [DONE]\n"
)


@pytest.mark.fault(22, "V")
def test_every_cut_in_two_gives_the_same_frames() -> None:
    """However a stream is cut in two, its frames are the same."""
    whole = decode(STREAM)
    assert len(whole) == 5
    for at in range(len(STREAM) + 1):
        assert decode(STREAM[:at], STREAM[at:]) == whole


def test_byte_by_byte_gives_the_same_frames() -> None:
    """A stream that trickles in says what it says at once."""
    assert decode(*[STREAM[at : at + 1] for at in range(len(STREAM))]) == decode(STREAM)


def test_what_is_written_byte_by_byte() -> None:
    """What we write is the plainest there is: a parser that knows no more than that reads it."""
    assert encode_frame(b"{}") == b"data: {}\n\n"
    assert encode_frame(b"{}", b"delta") == b"event: delta\ndata: {}\n\n"
    assert COMMENT_BEAT == b": keepalive\n\n"


@given(st.lists(st.tuples(st.sampled_from([b"", b"delta", b"a.b_c"]), st.text())))
def test_what_is_encoded_is_decoded(messages: list[tuple[bytes, str]]) -> None:
    """Frames that we write are read back as they were, beats between them or not."""
    frames = [(name, json.dumps(text).encode()) for name, text in messages]
    stream = COMMENT_BEAT.join(encode_frame(text, name) for name, text in frames)
    assert decode(stream, close=False) == frames
