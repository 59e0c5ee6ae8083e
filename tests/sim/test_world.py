"""The simulation in the daily run: a few dozen worlds, and every seed that ever found something."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from nursling.engine.limits import KIB
from sim.draw import Guest, deal, draw_ask, ticks
from sim.world import World, play


SIMULATE = Path(__file__).parents[1] / "simulate.py"
SEEDS = Path(__file__).with_name("seeds.txt")


def found() -> list[int]:
    lines = SEEDS.read_text().splitlines()
    return [int(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]


@pytest.mark.parametrize("seed", range(24))
def test_worlds(seed: int) -> None:
    """Whatever is drawn, every client has the whole truth or an honest failure."""
    assert not play(seed, strict=True).failures


@pytest.mark.parametrize("seed", found())
def test_found_seeds(seed: int) -> None:
    """A seed that once failed never fails again."""
    assert not play(seed, strict=True).failures


@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_is_a_world(seed: int) -> None:
    """The same seed gives the same world, to the last event; another one another."""
    first, again, other = play(seed), play(seed), play(seed + 1)
    assert first.trace == again.trace
    assert [fate.body for fate in first.fates.values()] == [
        fate.body for fate in again.fates.values()
    ]
    assert first.trace != other.trace


def test_the_worlds_are_rich() -> None:
    """Good ends, failures in streams and before them, and clients that left are all drawn."""
    ends = sum((play(seed).ends for seed in range(24)), start=play(24).ends)
    assert min(ends[kind] for kind in ("good", "failed", "status", "left", "refused")) >= 2, ends


@pytest.mark.slow
def test_a_thousand_worlds() -> None:
    """A thousand seeds on all cores, none of which fails."""
    jobs = str(min(4, os.cpu_count() or 1))
    search = [sys.executable, str(SIMULATE), "--worlds", "1000", "--jobs", jobs]
    done = subprocess.run(search, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1000 worlds, 0 bad" in done.stdout


@pytest.mark.fault(46, "S")
@pytest.mark.parametrize("seed", range(12))
def test_mass_cancellation(seed: int) -> None:
    """Clients that leave while they queue for an upstream orphan nothing (httpcore#1093)."""
    plan = deal(seed)
    plan.stop_at, plan.caps = None, {"chat": 2, "responses": 1}
    plan.limits = msgspec.structs.replace(plan.limits, max_streams=1000, max_connections=4096)
    rng = random.Random(seed)  # noqa: S311 - the same for a seed, and no secret
    plan.guests = [
        Guest(number, ticks(rng, 0, 1), rng.choice((0.0, 0.1)), 16 * KIB, 1400, 0.1)
        for number in range(25)
    ]
    for guest in plan.guests:
        ask = draw_ask(rng, f"mass{guest.number}")
        ask.manner, ask.leave_after = rng.choice(("aborts", "leaves")), ticks(rng, 0, 3)
        guest.asks.append(ask)
    assert not World(seed, plan=plan).run().failures
