"""JSON in and out, for text that others wrote.

The law of this file: whatever bytes come, the answer is a value or a `ValueError`; never another
exception, and never a value that we could not write again.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import Any

import msgspec

from .limits import DEFAULT_LIMITS


MAX_DEPTH = 256
"""Nesting of an upstream's JSON. What we read we must be able to write: the encoder recurses."""

_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""A string, or one that never ends: else each quote inside it would be tried as a beginning, and
a body of escaped quotes would take the square of its size."""

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


def loads(text: bytes) -> Any:
    """Parse one JSON text of an upstream; raise `ValueError` if it is none.

    Half of a surrogate pair (an escape `ud83d`, from a server that cut an emoji in two) is
    replaced by U+FFFD, which is what UTF-8 can say. Invalid UTF-8 is replaced too.
    """
    value = _loads(text)
    # Brackets are at least as many as levels: most texts are known to be shallow by counting.
    if text.count(b"[") + text.count(b"{") > MAX_DEPTH and depth_exceeds(value, MAX_DEPTH):
        raise ValueError("JSON is nested too deeply")
    return value


def _loads(text: bytes) -> Any:
    try:
        return _decode(text)
    except UnicodeDecodeError:
        return _loads(text.decode("utf-8", "replace").encode())
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    except msgspec.MsgspecError as error:
        # msgspec refuses a lone surrogate, and says only that the input is truncated.
        if b"\\u" in text:
            return _loads_with_lone_surrogates(text)
        raise ValueError(str(error)) from None


def _loads_with_lone_surrogates(raw: bytes) -> Any:
    text = raw.decode("utf-8", "replace")
    try:
        return scrub(json.loads(text, parse_constant=_refuse_constant, parse_float=_finite))
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None


def loads_request(
    text: bytes, *, max_depth: int, max_nodes: int = DEFAULT_LIMITS.max_json_nodes
) -> Any:
    """Parse a request's body, strictly; raise `ValueError` with words for its author.

    Refused beyond what `loads` refuses: a key that stands twice in one object (which of the two
    was checked, and which was used?), NaN and infinities, nesting over `max_depth`, and more than
    `max_nodes` values: 32 MiB of `[],` would stop the whole process for many seconds.
    """
    if _nodes(text, max_nodes) > max_nodes:
        raise ValueError(f"JSON has more than {max_nodes} values")
    try:
        value = json.loads(
            text.decode("utf-8-sig"),  # RFC 8259 §8.1: nothing else is exchanged
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("JSON is nested too deeply") from None
    if depth_exceeds(value, max_depth):
        raise ValueError(f"JSON is nested deeper than {max_depth} levels")
    return scrub(value) if b"\\ud" in text or b"\\uD" in text else value


def _nodes(text: bytes, enough: int) -> int:
    """Count the values of a JSON text without parsing it. Over-counts if that is `enough`."""
    most = text.count(b",") + text.count(b"[") + text.count(b"{")
    if most <= enough:
        return most
    bare = _STRING.sub(b"", text)  # commas and brackets of prose are no structure
    return bare.count(b",") + bare.count(b"[") + bare.count(b"{")


def dumps(value: Any) -> bytes:
    """Write one JSON text, as UTF-8 without spaces."""
    try:
        return _encode(value)
    except UnicodeEncodeError:
        return _encode(scrub(value))


def scrub(value: Any) -> Any:
    """Replace halves of surrogate pairs in all strings of a JSON value."""
    match value:
        case str():
            if value.isascii():
                return value
            # A whole pair, written as two escapes and joined by nobody, is joined here.
            joined = value.encode("utf-16-le", "surrogatepass")
            return joined.decode("utf-16-le", "replace")
        case list():
            return [scrub(element) for element in value]
        case dict():
            return {scrub(key): scrub(element) for key, element in value.items()}
        case _:
            return value


def depth_exceeds(value: Any, limit: int) -> bool:
    """Whether a JSON value is nested over `limit` levels. Iterative: depth is what it measures."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(limit):
        if not level:
            return False
        level = [
            child
            for node in level
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, dict | list)
        ]
    return bool(level)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        [(key, _)] = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the key {key!r} stands twice in one object")
    return made


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits} is out of range")
    return number
