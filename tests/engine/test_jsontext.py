"""JSON that others wrote: a value or a `ValueError`, and always writable again."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursling.engine import jsontext


DEEP = 100_000


@pytest.mark.fault(23, "V")
@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b' {"a": [1, 2.5, null, true]} ', {"a": [1, 2.5, None, True]}),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"a\\ud83db"', "a\ufffdb"),
        (b'"\\ude00"', "\ufffd"),
        (b'{"\\ud83d": ["\\ud83d\\ude00", "\\ud83d"]}', {"\ufffd": ["\U0001f600", "\ufffd"]}),
        (b'"\xff"', "\ufffd"),
        (b'"\xff\\ud83d"', "\ufffd\ufffd"),
        ('"a\u2028b"'.encode(), "a\u2028b"),
        (
            b'["\\ud83d", 123456789012345678901234567890]',
            ["\ufffd", 123456789012345678901234567890],
        ),
        (b'{"a": 1, "a": 2}', {"a": 2}),
    ],
)
def test_an_upstreams_json_is_read(text: bytes, value: Any) -> None:
    """Halves of surrogate pairs and bytes that are no UTF-8 are replaced, the rest is kept."""
    assert jsontext.loads(text) == value


@pytest.mark.fault(28, "V")
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b'{"a": ',
        b'"\\u0041',
        b'"\\ud83d',
        b"NaN",
        b'["\\ud83d", NaN]',
        b"1e999",
        b'["\\ud83d", 1e999]',
        b'["\\ud83d", -Infinity]',
        b"\xff",
        b"9" * 5000,
        b"[" * DEEP,
        b'["\\ud83d"' + b",[" * DEEP,
        b"[" * 5000 + b'"\\ud83d"' + b"]" * 5000,
        b"[" * 900 + b'"\\ud83d"' + b"]" * 900,
        b"data: 1",
        '{"a": 1}'.encode("utf-16"),
    ],
    ids=lambda text: repr(text[:20]),
)
def test_what_is_no_json_is_a_value_error(text: bytes) -> None:
    """Bad input is never another exception: no `RecursionError`, no `UnicodeError` of its own."""
    with pytest.raises(ValueError, match=r".") as caught:
        jsontext.loads(text)
    assert not isinstance(caught.value, UnicodeError)


@given(
    st.binary() | st.text().map(str.encode) | st.text(alphabet='[]{}",:\\u0dd83e1N').map(str.encode)
)
def test_any_bytes_are_a_value_that_we_can_write_or_a_value_error(text: bytes) -> None:
    """The law of the file, on anything."""
    try:
        value = jsontext.loads(text)
    except ValueError:
        return
    assert jsontext.loads(jsontext.dumps(value)) == value


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_what_is_written_is_read_back(value: Any) -> None:
    """`dumps` and `loads` are inverse, and a request's reader agrees."""
    text = jsontext.dumps(value)
    assert jsontext.loads(text) == value
    assert jsontext.loads_request(text, max_depth=100) == value
    assert json.loads(text) == value


@pytest.mark.fault(24, "V")
@pytest.mark.fault(36, "V")
def test_written_json_is_one_line_of_utf8_without_spaces() -> None:
    """What we write fits a line of an event stream, whatever is in it."""
    text = jsontext.dumps({"a": "x\ny\r\u2028\U0001f40e"})
    assert text == '{"a":"x\\ny\\r\u2028\U0001f40e"}'.encode()


@pytest.mark.fault(23, "V")
def test_lone_surrogates_are_replaced_on_the_way_out() -> None:
    """A string that Python holds and UTF-8 cannot say does not break the stream."""
    assert jsontext.dumps({"a\ud83d": ["\ude00", 1]}) == '{"a\ufffd":["\ufffd",1]}'.encode()


# Requests.


@pytest.mark.fault(28, "V")
@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a": 1, "b": {"x": 1, "x": 2}}', "the key 'x' stands twice"),
        (b'{"a": NaN}', "NaN is not JSON"),
        (b'{"a": Infinity}', "Infinity is not JSON"),
        (b'{"a": -1e400}', "the number -1e400 is out of range"),
        (b"[" * 5 + b"]" * 5, "deeper than 4 levels"),
        (b"[" * DEEP, "nested too deeply"),
        (b'{"a": "\xff"}', "utf-8"),
        ('{"a": 1}'.encode("utf-16"), "utf-8"),
        (b"", "Expecting value"),
        (b"{'a': 1}", "Expecting property name"),
        (b"1" * 5000, "4300 digits"),
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_request_is_refused_with_words_for_its_author(text: bytes, words: str) -> None:
    """What two readers could read in two ways is refused, not guessed."""
    with pytest.raises(ValueError, match="(?i)" + words):
        jsontext.loads_request(text, max_depth=4)


def test_a_request_is_read() -> None:
    """Good JSON passes, with a BOM too, and halves of pairs are replaced in keys and values."""
    text = b'\xef\xbb\xbf{"a": [1.5, {"b": "\\ud83d"}], "\\uD83D": "\\ud83d\\ude00"}'
    assert jsontext.loads_request(text, max_depth=4) == {
        "a": [1.5, {"b": "\ufffd"}],
        "\ufffd": "\U0001f600",
    }


@pytest.mark.parametrize(
    ("value", "depth"),
    [(1, 0), ([], 1), ({}, 1), ([[]], 2), ({"a": [{}], "b": 1}, 3), ([1, [2, [3]], "x"], 3)],
)
def test_depth_is_counted_in_levels_of_nesting(value: Any, depth: int) -> None:
    """A value of depth n is within n levels and over n - 1."""
    assert not jsontext.depth_exceeds(value, depth)
    assert depth == 0 or jsontext.depth_exceeds(value, depth - 1)


@pytest.mark.fault(28, "V")
def test_depth_of_the_deepest_value_needs_no_recursion() -> None:
    """The measure does not fall into what it measures."""
    value: list[Any] = []
    for _ in range(DEEP):
        value = [value]
    assert jsontext.depth_exceeds(value, 64)
    while value:  # taken apart by hand: the collector's own recursion is not what we test
        value = value.pop()


@pytest.mark.fault(28, "V")
@pytest.mark.parametrize("escape", ["", "\\ud83d"])
def test_an_upstreams_json_has_a_depth(escape: str) -> None:
    """What was read can be written: nesting past the limit is no value, by either parser."""
    at_limit = "[" * jsontext.MAX_DEPTH + f'"{escape}"' + "]" * jsontext.MAX_DEPTH
    jsontext.dumps(jsontext.loads(at_limit.encode()))
    with pytest.raises(ValueError, match="nested too deeply"):
        jsontext.loads(f"[{at_limit}]".encode())


@pytest.mark.fault(28, "V")
def test_a_requests_values_are_counted() -> None:
    """Many small values are refused before they are parsed; commas inside strings are none."""
    many = b"[" + b"[]," * 10 + b"1]"
    with pytest.raises(ValueError, match="more than 20 values"):
        jsontext.loads_request(many, max_depth=3, max_nodes=20)
    assert len(jsontext.loads_request(many, max_depth=3, max_nodes=21)) == 11
    prose = json.dumps({"say": 'a, "b", [c], {d} \\ ' * 100}).encode()
    assert jsontext.loads_request(prose, max_depth=3, max_nodes=1)["say"].startswith("a, ")
