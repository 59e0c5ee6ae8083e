"""What every target is run by: atheris where it is installed, else our own mutants, blindly.

The law of this file: a target is a module with `SEEDS` and `check(data)`, and a check that raises
anything is a finding. Both ways start from the seeds and use the same mutants (`mutate.py`), so
atheris too knows what a frame is.
"""

from __future__ import annotations

import importlib
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

from .mutate import mutant


MAX_SIZE = 1 << 16
TARGETS = tuple(
    sorted(path.stem.removeprefix("fuzz_") for path in Path(__file__).parent.glob("fuzz_*.py"))
)


class Target(Protocol):
    """A module `fuzz_*.py`."""

    SEEDS: list[bytes]
    check: Callable[[bytes], None]


def target(name: str) -> Target:
    """The target of this name."""
    return cast("Target", importlib.import_module(f"fuzz.fuzz_{name}"))


def mutants(target: Target, first: int) -> bytes:
    """Mutant number `first` of a target: the same bytes for the same number."""
    rng = random.Random(first)
    return mutant(rng.choice(target.SEEDS), rng)


def run_blindly(name: str, seconds: float, first: int = 0) -> str:
    """Check the seeds, and mutants from number `first` on; say how many. Raises what it finds."""
    aim, end, number = target(name), time.monotonic() + seconds, first
    for data in aim.SEEDS:
        aim.check(data)
    while time.monotonic() < end:
        try:
            aim.check(mutants(aim, number))
        except Exception as error:
            error.add_note(f"target {name}, mutant {number}: {mutants(aim, number)!r}")
            raise
        number += 1
    return f"{name}: {number - first} mutants, from {first} on, keep the law"


def run_with_atheris(name: str, options: list[str]) -> None:
    """Hand over to libFuzzer, which ends the process. `options` are its own."""
    atheris = importlib.import_module("atheris")  # there by hand only: `--with atheris`
    with atheris.instrument_imports(include=["nursling"]):
        aim = target(name)

    def mutate(data: bytes, size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, len(data)))[:size]
        return mutant(data or rng.choice(aim.SEEDS), rng)[:size]

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(aim.SEEDS):
            (Path(corpus) / str(number)).write_bytes(seed)
        arguments = [name, f"-max_len={MAX_SIZE}", *options, corpus]
        atheris.Setup(arguments, aim.check, custom_mutator=mutate)
        atheris.Fuzz()
