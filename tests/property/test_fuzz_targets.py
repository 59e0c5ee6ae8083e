"""The law: each fuzz target's invariant holds for its seeds and for mutants of them.

The mutants are numbered, and the same each time. For new ones: `python tests/fuzz TARGET`.
"""

from __future__ import annotations

import pytest

from fuzz.runner import TARGETS, mutants, target


MUTANTS = {"sse": 600, "jsontext": 600, "request": 300, "chat": 150, "responses": 300}
"""How many of each are tried here: some seconds' worth."""


def test_no_target_is_forgotten() -> None:
    """A new target takes part here too."""
    assert set(TARGETS) == set(MUTANTS)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_keep_the_law(name: str) -> None:
    """What is right to begin with is right."""
    aim = target(name)
    for data in aim.SEEDS:
        aim.check(data)


@pytest.mark.fault(27, "V")
@pytest.mark.fault(29, "V")
@pytest.mark.fault(30, "V")
@pytest.mark.fault(31, "V")
@pytest.mark.fault(32, "V")
@pytest.mark.parametrize("name", TARGETS)
def test_mutants_keep_the_law(name: str) -> None:
    """Rows 27, 29, 30, 31 and 32, and whatever nobody has thought of."""
    aim = target(name)
    for number in range(MUTANTS[name]):
        data = mutants(aim, number)
        try:
            aim.check(data)
        except Exception as error:
            error.add_note(f"mutant {number}: {data!r}")
            raise
