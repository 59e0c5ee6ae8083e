"""Log probabilities and citations: what an event may hold of what an upstream wrote."""

from __future__ import annotations

from typing import Any

import pytest

from nursling.engine.formats.shapes import MAX_ALTERNATIVES, read_citation, read_logprobs


ENTRY: dict[str, Any] = {"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}


@pytest.mark.parametrize("value", [None, 3, "x", {}, [], [3], [{}], [{"token": 1, "logprob": 0}]])
def test_what_is_no_list_of_log_probabilities(value: Any) -> None:
    """Whatever stands in their place, nothing of it becomes part of an event."""
    assert read_logprobs(value) is None


def test_good_entries_stay_and_bad_ones_go() -> None:
    """An entry that is right passes whole, its unknown members too; a wrong neighbour does not."""
    entry = ENTRY | {"id": 7, "top_logprobs": [{"token": "b", "logprob": -1, "bytes": None}]}
    assert read_logprobs([entry, {"token": "c", "logprob": True}]) == [entry]


def test_missing_members_are_made() -> None:
    """`bytes` and `top_logprobs` are always there, in their own types."""
    bare = {"token": "a", "logprob": -0.5}
    assert read_logprobs([bare]) == [ENTRY | {"bytes": None}]
    odd = bare | {"bytes": "97", "top_logprobs": [bare | {"top_logprobs": [bare]}, 3]}
    assert read_logprobs([odd]) == [
        ENTRY | {"bytes": None, "top_logprobs": [bare | {"bytes": None}]}
    ]


def test_alternatives_are_bounded() -> None:
    """No more alternatives than the APIs can be asked for."""
    [entry] = read_logprobs([ENTRY | {"top_logprobs": [ENTRY] * 99}]) or []
    assert len(entry["top_logprobs"]) == MAX_ALTERNATIVES


@pytest.mark.parametrize("value", [None, 3, {}, {"type": None}, {"type": {}}])
def test_what_is_no_citation(value: Any) -> None:
    """A citation names its type."""
    assert read_citation(value) is None


def test_citations() -> None:
    """A web citation has all its members; one of another type passes as it is."""
    assert read_citation({"type": "url_citation", "title": None, "end_index": -1, "x": 1}) == {
        "type": "url_citation",
        "url": "",
        "title": "",
        "start_index": 0,
        "end_index": 0,
        "x": 1,
    }
    other = {"type": "file_citation", "file_id": "f"}
    assert read_citation(other) is other
