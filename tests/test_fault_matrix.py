"""The fault matrix has no gap: every row is proved by tests of each kind that it demands.

`uv run python tests/support/faults.py` prints the rows with their tests.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.faults import KINDS, ROWS, Proof, Row, proofs, proofs_by_row


PROOFS = proofs()
BY_ROW = proofs_by_row()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.number} {row.fault}")
def test_every_row_is_proved(row: Row) -> None:
    """There is a test of each kind that the row demands."""
    assert set(row.kinds) <= {proof.kind for proof in BY_ROW[row.number]}


@pytest.mark.parametrize("proof", PROOFS, ids=lambda proof: f"{proof.test} {proof.row}")
def test_every_mark_counts(proof: Proof) -> None:
    """A mark names a row and a kind that there are, on a test that is always run."""
    assert not proof.breach
    assert proof.row in {row.number for row in ROWS}
    assert proof.kind in KINDS


def test_rows_are_numbered_once() -> None:
    """No number stands for two faults, and every row demands something."""
    numbers = [row.number for row in ROWS]
    assert numbers == sorted(set(numbers))
    assert all(row.kinds and set(row.kinds) <= KINDS.keys() for row in ROWS)


MARKED = """
import pytest

@pytest.mark.fault(1, "S")
@pytest.mark.fault(2, "V")
@pytest.mark.parametrize("x", [1])
def test_good(x): ...

@pytest.mark.fault(3, "S")
@pytest.mark.skipif(True, reason="")
def test_skipped(): ...

@pytest.mark.fault(4, "S")
def test_skips():
    pytest.importorskip("resource")

def outer():
    @pytest.mark.fault(5, "S")
    def test_inner(): ...

@pytest.mark.fault(6, "S")
def helper(): ...

mark = pytest.mark.fault(7, "S")

@pytest.mark.fault(8)
def test_without_a_kind(): ...
"""


def test_what_is_not_run_proves_nothing(tmp_path: Path) -> None:
    """A mark on what pytest does not collect, or may skip, does not fill a row."""
    folder = tmp_path / "tests"
    folder.mkdir()
    (folder / "test_a.py").write_text(MARKED)
    (folder / "helpers.py").write_text(
        'import pytest\n@pytest.mark.fault(9, "S")\ndef test_h(): ...'
    )
    found = proofs(folder)
    assert [proof for proof in found if not proof.breach] == [
        Proof(1, "S", "tests/test_a.py::test_good"),
        Proof(2, "V", "tests/test_a.py::test_good"),
    ]
    assert sorted(proof.row for proof in found if proof.breach) == [0, 3, 4, 5, 6, 7, 9]
    assert proofs_by_row(folder).keys() == {1, 2}
