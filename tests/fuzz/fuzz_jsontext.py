"""The invariant: any bytes are a value that can be written and read again, or a `ValueError`.

Nothing else escapes from either reader: no `RecursionError`, no `UnicodeError`.
"""

from __future__ import annotations

from nursling.engine import jsontext


SEEDS = [
    b'{"a": [1, -2.5e3, true, null], "b": {"c": "\\ud83d\\ude00", "a": "\\u0041"}}',
    b'[["\\ud83d", "\xff\xf0\x9f", 123456789012345678901234567890], NaN]',
    b"\xef\xbb\xbf" + b"[" * 300 + b"]" * 300,
    b'{"a": 1, "a": {"a": [' + b"[]," * 50 + b"0]}}",
]


def check(data: bytes) -> None:
    """Hold both readers to it."""
    for read in (jsontext.loads, _as_request):
        try:
            value = read(data)
        except ValueError:
            continue
        assert jsontext.loads(jsontext.dumps(value)) == value


def _as_request(data: bytes) -> object:
    return jsontext.loads_request(data, max_depth=64, max_nodes=1000)
