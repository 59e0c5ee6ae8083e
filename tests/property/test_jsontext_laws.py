"""The law: our two JSON readers say what Python's own says, and cost what the bytes are worth.

Rows 27 and 28 of the fault matrix. `loads` reads an upstream's text, `loads_request` a client's;
Python's `json`, told to be strict, is the witness of what a text means.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import fuzz_jsontext
from fuzz.mutate import mutant
from nursling.engine import jsontext
from support.work import costs_per_byte


TOKENS = st.sampled_from(
    [
        *'{}[],: \t\n\\"\x00\x7f\ufeff\u2028',
        *("1", "-", "-0", ".5", "e3", "e999", "12345678901234567890", "9" * 40),
        *(
            "null",
            "true",
            "NaN",
            "Infinity",
            '"a"',
            '"a":',
            '"b":[',
            '{"a":1}',
            "\u00e9",
            "\U0001f40e",
        ),
        *(r"\u0041", r"\ud83d", r"\ude00", r'"\ud83d"', r'"\ud83d\ude00"'),
    ]
)
TEXTS = st.lists(TOKENS, max_size=12).map("".join)


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if any(count > 1 for count in Counter(name for name, _ in pairs).values()):
        _refuse("a key twice")
    return dict(pairs)


def witness(text: str, **more: Any) -> tuple[bool, str]:
    """Whether Python reads this text, and as what (`repr` tells 1 from 1.0 and True)."""
    try:
        value = json.loads(text, parse_constant=_refuse, parse_float=_finite, **more)
    except ValueError:
        return False, ""
    return True, repr(jsontext.scrub(value))


@settings(max_examples=2000)
@given(TEXTS)
def test_an_upstreams_text_means_what_it_means_to_python(text: str) -> None:
    """Taken or refused alike, and the same value, halves of surrogate pairs replaced."""
    try:
        ours = True, repr(jsontext.loads(text.encode()))
    except ValueError:
        ours = False, ""
    assert ours == witness(text)


@pytest.mark.fault(28, "V")
@settings(max_examples=2000)
@given(TEXTS)
def test_a_requests_text_means_what_it_means_to_a_strict_reader(text: str) -> None:
    """As above, and no key twice; a BOM may lead."""
    try:
        ours = True, repr(jsontext.loads_request(text.encode(), max_depth=99))
    except ValueError:
        ours = False, ""
    assert ours == witness(text.removeprefix("\ufeff"), object_pairs_hook=_once)


@pytest.mark.fault(23, "V")
@settings(max_examples=500)
@given(st.text(), st.integers(0, 1 << 16), st.binary(max_size=3))
def test_bytes_that_are_no_utf8_are_replaced_as_the_standard_says(
    text: str, place: int, junk: bytes
) -> None:
    """Row 23: what breaks off inside a character is one U+FFFD, as WHATWG and Python count them."""
    inside = json.dumps(text, ensure_ascii=False).encode("utf-8", "replace")[1:-1]
    place %= len(inside) + 1
    torn = inside[:place] + bytes(byte | 0x80 for byte in junk) + inside[place:]
    meant = witness('"' + torn.decode("utf-8", "replace") + '"')
    try:
        ours = True, repr(jsontext.loads(b'"' + torn + b'"'))
    except ValueError:
        ours = False, ""
    assert ours == meant


# Bombs. Each is made for a size in bytes.

BOMBS: dict[str, Callable[[int], bytes]] = {
    "lists": lambda size: b"[" * size,
    "objects": lambda size: b'{"a":' * (size // 5),
    "a flat list": lambda size: b"[" + b"[]," * (size // 3) + b"1]",
    "one long string": lambda size: b'"' + b"a" * size + b'"',
    "a string without end": lambda size: b'"' + b"a" * size,
    "quotes without end": lambda size: b"[" + b"," * (size // 2) + b'"' + b'\\"' * (size // 4),
    "escapes without end": lambda size: b"[" + b"," * (size // 2) + b'"' + b"\\" * (size // 2),
    "halves of pairs": lambda size: b'"' + b"\\ud83d" * (size // 6) + b'"',
    "bytes that are no text": lambda size: b'"' + b"\xff" * size + b'"',
    "one key many times": lambda size: b"{" + b'"a":1,' * (size // 6) + b'"a":1}',
    "many keys": lambda size: b"{" + b",".join(b'"%d":1' % one for one in range(size // 10)) + b"}",
    "a long number": lambda size: b"9" * size,
    "a long fraction": lambda size: b"0." + b"9" * size,
    "many long numbers": lambda size: b"[" + b",".join([b"9" * 4300] * (size // 4301)) + b"]",
}


@pytest.mark.fault(28, "V")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_what_its_bytes_are_worth(name: str) -> None:
    """Row 28: a value or a `ValueError`, in time that grows with the bytes and no faster.

    Escaped quotes behind one that never closes once took the square: an hour for a body of 1 MiB.
    """
    make = BOMBS[name]
    costs_per_byte(lambda scale: make(20_000 * scale), fuzz_jsontext.check)


@settings(max_examples=200)
@given(st.sampled_from(fuzz_jsontext.SEEDS), st.integers())
def test_mutants_keep_the_law_of_the_file(seed: bytes, number: int) -> None:
    """What the fuzzer looks for at length, for a moment."""
    fuzz_jsontext.check(mutant(seed, random.Random(number)))
