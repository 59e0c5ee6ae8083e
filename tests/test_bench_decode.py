"""The optimised paths of the engine are worth what they cost to read: each is held by its guard."""

from __future__ import annotations

import pytest

from bench.decode import hold, measure
from bench.decode_cases import EVENTS, Case, Guard, cases, guards, kept
from nursling.engine import Event
from nursling.engine.formats.stencil import Stencil


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
@pytest.mark.parametrize("per_read", [1, 16])
def test_a_case_handles_its_stream(case: Case, per_read: int) -> None:
    """A pass runs, more than once, and says how many events it had."""
    run = case.make(per_read)
    assert run() == run() >= EVENTS


@pytest.mark.slow  # tracing of coverage would be measured along with the code
@pytest.mark.parametrize("guard", guards(), ids=lambda guard: guard.name)
def test_an_optimised_path_is_worth_it(guard: Guard) -> None:
    """The plain way costs more, by a factor that noise does not make up."""
    held = hold(guard, 15)
    assert held.ratio >= guard.least, held


def test_a_text_is_kept_in_little_memory() -> None:
    """Pieces of a growing text are joined: a token needs its bytes, and hardly an object."""
    found = kept()
    assert found.pieces * 3 < found.plain


def test_the_guards_measure_what_they_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames of a changing shape are never read through a stencil; the others nearly all are."""
    read: list[int] = []
    real = Stencil.read

    def counting(self: Stencil, data: bytes, at: int, out: list[Event]) -> int:
        before = len(out)
        end = real(self, data, at, out)
        read.append(len(out) - before)
        return end

    monkeypatch.setattr(Stencil, "read", counting)
    for guard in guards()[:2]:
        assert guard.name.startswith("stencil")
        for case, least, most in ((guard.fast, EVENTS - 4, EVENTS), (guard.plain, 0, 0)):
            read.clear()
            case.make(16)()
            assert least <= sum(read) <= most


def test_a_measure_is_of_single_events() -> None:
    """Cost is by event, and never negative."""
    found = measure(cases()[0], 16, 3)
    assert 0 < found.low <= found.median <= found.high < 1000
