"""Bytes cut at places that hypothesis draws: for laws that the cuts must not change."""

from __future__ import annotations

import itertools

from hypothesis import strategies as st


CUTS = st.lists(st.integers(0, 1 << 16), max_size=8)
"""Places, taken modulo the length: the same list cuts any bytes."""


def cut_at(data: bytes, places: list[int]) -> list[bytes]:
    """The bytes in chunks, some of them empty where two places fall together."""
    inner = sorted(place % (len(data) + 1) for place in places)
    return [data[begin:end] for begin, end in itertools.pairwise([0, *inner, len(data)])]
