"""Descriptors: the caps of the configuration are not cut short by the shell's soft limit."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

from nursling.engine.limits import Limits
from nursling.transports.descriptors import OTHERS, make_room, needed


PROGRAM = """
import resource
from nursling.engine.limits import Limits
from nursling.transports.descriptors import make_room
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
missing = make_room(Limits(max_connections={cap}, max_refused=10, max_streams=20, max_idle=30))
print(missing, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.fault(21, "V")
def test_the_caps_add_up() -> None:
    """10,000 clients at once take no more descriptors than the caps come to."""
    limits = Limits()
    assert needed(limits) == 4096 + 64 + 1000 + 256 + OTHERS
    assert needed(limits) < 10_000


@pytest.mark.slow
@pytest.mark.fault(21, "R")
@pytest.mark.parametrize(
    ("soft", "hard", "cap", "said"),
    [
        (100, 600, 300, (0, 300 + 60 + OTHERS)),  # raised as far as needed
        (550, 600, 300, (0, 550)),  # enough already
        (100, 200, 300, (300 + 60 + OTHERS - 200, 200)),  # all there is, and what is missing
    ],
)
def test_room_is_made(soft: int, hard: int, cap: int, said: tuple[int, int]) -> None:
    """The soft limit rises to what is needed, at most to the hard one; the rest is told."""
    program = PROGRAM.format(soft=soft, hard=hard, cap=cap)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert tuple(map(int, done.stdout.split())) == said


@pytest.mark.parametrize(
    ("soft", "hard", "refused", "missing"),
    [
        (100, resource.RLIM_INFINITY, False, 0),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, False, 0),
        (100, 10_000, False, 0),
        (100, 10_000, True, 60 + 300 + OTHERS - 100),  # a bound beside the hard limit
    ],
)
def test_what_a_system_allows(
    soft: int, hard: int, refused: bool, missing: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Limits without end, and a system that refuses what its hard limit promises."""
    now = [(soft, hard)]

    def setrlimit(kind: int, limits: tuple[int, int]) -> None:
        assert kind == resource.RLIMIT_NOFILE
        if refused:
            raise ValueError
        now[0] = limits

    monkeypatch.setattr(resource, "getrlimit", lambda _: now[0])
    monkeypatch.setattr(resource, "setrlimit", setrlimit)
    limits = Limits(max_connections=300, max_refused=10, max_streams=20, max_idle=30)
    assert make_room(limits) == missing
