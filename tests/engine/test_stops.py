"""Stop sequences: what is cut, what is held back, and that nothing else is touched."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nursling.engine.errors import BadRequest, ErrorInfo
from nursling.engine.events import (
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Usage,
    UsageReported,
)
from nursling.engine.stops import Scissors
from support.toy import opening, words


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, PartDelta))


def cut(stop: list[str], *batches: list[Event]) -> list[Event]:
    scissors = Scissors(stop)
    return [event for batch in [opening(), *batches] for event in scissors.cut(batch)]


END: list[Event] = [Finished(0, "stop"), Ended()]


@given(
    text=st.text("abX", max_size=30),
    stop=st.lists(st.text("abX", min_size=1, max_size=4), min_size=1, max_size=3),
    sizes=st.lists(st.integers(1, 5), min_size=30, max_size=30),
)
def test_every_cut_of_the_text_is_the_same_cut(
    text: str, stop: list[str], sizes: list[int]
) -> None:
    """However the text was split into deltas, what leaves is what stands before the first stop."""
    deltas: list[Event] = []
    rest = text
    for size in sizes:
        deltas += words(rest[:size]) if rest else []
        rest = rest[size:]
    got = cut(stop, *[[delta] for delta in deltas], END)
    # Whichever stop sequence is complete first ends the stream: nobody can know the later ones.
    ends = [at + len(one) for one in stop if (at := text.find(one)) >= 0]
    if not ends:
        assert text_of(got) == text
    else:
        seen = text_of(got)
        assert text.startswith(seen)
        assert any(text.startswith(seen + one) for one in stop)
    assert got[-2:] == END


def test_nothing_is_held_that_cannot_be_a_stop() -> None:
    """Text leaves at once but for an end that may become a stop sequence."""
    scissors = Scissors(["\nObservation:"])
    scissors.cut(opening())
    assert text_of(scissors.cut(words("think"))) == "think"
    assert text_of(scissors.cut(words(" hard\nObs"))) == " hard"
    assert text_of(scissors.cut(words("tacle"))) == "\nObstacle"
    assert not scissors.over


def test_after_the_cut_nothing_leaves() -> None:
    """The choice is finished with `stop`, the reply ended, and later events are gone."""
    scissors = Scissors(["END"])
    got = scissors.cut([*opening(), *words("a", "bEN", "Dc", "d"), *END])
    assert scissors.over
    assert text_of(got) == "ab"
    assert got[-2:] == END
    assert scissors.cut(words("e")) == []


def test_a_stop_at_the_very_beginning() -> None:
    """A reply that begins with a stop sequence is empty: it has not even an empty delta."""
    assert cut(["a"], words("abc")) == [*opening(), *END]


def test_an_empty_stop_sequence_is_none() -> None:
    """An empty string stands before every text, and stops nothing."""
    assert text_of(cut(["", "c"], words("abc"))) == "ab"
    assert text_of(cut([""], words("abc"), END)) == "abc"


@pytest.mark.parametrize(
    "closing",
    [
        [PartEnded(0, 0)],
        [ItemEnded(0)],
        [Finished(0, "length")],
        [Ended()],
        [Failed(ErrorInfo(message="no"))],
    ],
)
def test_what_was_held_is_released_at_the_end(closing: list[Event]) -> None:
    """The end of the part, the item or the reply shows that it was no stop sequence."""
    got = cut(["END"], words("abcEN"), closing)
    assert text_of(got) == "abcEN"
    assert got[-1] == closing[0]


def test_nothing_is_said_that_has_nothing_to_say() -> None:
    """What is held leaves no empty delta, and where nothing was held none is made."""
    held = Scissors(["END"])
    held.cut(opening())
    assert held.cut(words("E")) == []
    assert cut(["END"], words("a"), [PartEnded(0, 0)]) == [
        *opening(),
        PartDelta(0, 0, "a"),
        PartEnded(0, 0),
    ]


def test_parts_are_held_and_let_go_one_by_one() -> None:
    """The end of one part, or of one item, lets go of its own held text and of no other."""
    scissors = Scissors(["END"])
    places = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 1)]
    scissors.cut([PartStarted(item, part, "text") for item, part in places])
    assert scissors.cut([PartDelta(item, part, "E") for item, part in places]) == []
    ended = PartEnded(0, 1)
    assert scissors.cut([ended]) == [PartDelta(0, 1, "E"), ended]
    assert scissors.cut([ItemEnded(1)]) == [
        PartDelta(1, 0, "E"),
        PartDelta(1, 1, "E"),
        ItemEnded(1),
    ]
    # A cut in one part shows that what is held of another was none.
    assert scissors.cut([PartDelta(0, 0, "ND")]) == [PartDelta(2, 1, "E"), *END]


def test_only_visible_text_is_looked_at() -> None:
    """Tool arguments and reasoning pass as they are, and other parts do not release a held end."""
    call: list[Event] = [
        ItemStarted(1, "tool_call", id="c", name="f"),
        PartStarted(1, 0, "arguments"),
        PartDelta(1, 0, "END"),
        PartEnded(1, 0),
        ItemEnded(1),
    ]
    got = cut(["END"], words("E"), call, words("N"), END)
    assert text_of(got) == "ENDEN"


def test_logprobs_leave_with_the_text_that_leaves() -> None:
    """Log probabilities wait with the text that is held, and are cut where the text is cut."""
    tokens = [{"token": token} for token in ("a", "EN", "x", "b", "END", "c")]
    got = cut(
        ["END"],
        [PartDelta(0, 0, "aEN", tokens[:2])],
        [PartDelta(0, 0, "x", tokens[2:3])],
        [PartDelta(0, 0, "bENDc", tokens[3:])],
    )
    said = [(event.text, event.logprobs) for event in got if isinstance(event, PartDelta)]
    assert said == [("a", tokens[:1]), ("ENx", tokens[1:3]), ("b", tokens[3:4])]


def test_logprobs_of_what_is_held_wait_for_it() -> None:
    """A held end has its own log probabilities, be its text empty, and nobody else's."""
    end, nothing = [{"token": "E"}], [{"token": ""}]
    assert cut(["END"], [PartDelta(0, 0, "E", end)], [PartEnded(0, 0)])[3:] == [
        PartDelta(0, 0, "E", end),
        PartEnded(0, 0),
    ]
    assert cut(["END"], [PartDelta(0, 0, "", nothing)], [PartEnded(0, 0)])[3:] == [
        PartDelta(0, 0, "", nothing),
        PartEnded(0, 0),
    ]
    both = [{"token": "aE"}]  # leaves with its beginning
    assert cut(["END"], [PartDelta(0, 0, "aE", both)], [PartEnded(0, 0)])[3:5] == [
        PartDelta(0, 0, "a", both),
        PartDelta(0, 0, "E"),
    ]
    tokens = [{"token": token} for token in ("a", "b", "c", "END", "d")]
    assert cut(["END"], [PartDelta(0, 0, "abcENDd", tokens)])[3:-2] == [
        PartDelta(0, 0, "abc", tokens[:3])
    ]
    plain = cut(["END"], [PartDelta(0, 0, "a", [{"token": "a"}])], words("b", "E"), END)
    assert plain[4:6] == [PartDelta(0, 0, "b"), PartDelta(0, 0, "E")]


def test_usage_of_a_whole_reply_is_kept() -> None:
    """What a reply that came whole says of its cost, behind its text, is not cut."""
    usage = UsageReported(Usage(output_tokens=9))
    got = cut(["END"], [*words("a END b"), PartEnded(0, 0), usage, *END])
    assert got[-3:] == [usage, *END]


@pytest.mark.parametrize("stop", [["x"] * 17, ["x" * 257]])
def test_too_much_to_look_for(stop: list[str]) -> None:
    """What would cost too much per delta is refused by name."""
    with pytest.raises(BadRequest) as caught:
        Scissors(stop)
    assert caught.value.param == "stop"


@pytest.mark.parametrize("stop", [["x"] * 16, ["x" * 256], ["x" * 256] * 16])
def test_as_much_as_is_promised_can_be_looked_for(stop: list[str]) -> None:
    """Sixteen sequences of 256 characters are not too much."""
    assert text_of(cut(stop, words("a" + "x" * 256))) == "a"


def test_extras_are_not_held() -> None:
    """What only the upstream's format understands leaves at once, with an empty delta."""
    got = cut(["END"], [PartDelta(0, 0, "E", extra={"toy": {"a": 1}})], END)
    deltas = [event for event in got if isinstance(event, PartDelta)]
    assert [(delta.text, delta.extra) for delta in deltas] == [("", {"toy": {"a": 1}}), ("E", None)]
