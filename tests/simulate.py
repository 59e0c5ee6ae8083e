"""Play simulated worlds: one to look at, or many to look for trouble.

uv run python tests/simulate.py 137
uv run python tests/simulate.py --worlds 20000 --first 1000 --jobs 2
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from time import monotonic


sys.path.insert(0, str(Path(__file__).parent))

from sim.world import play


STRICT_EVERY = 10
"""One world in so many is held to the finer laws of each API, which cost more."""


def look(seed: int) -> tuple[int, list[str], Counter[str]]:
    """Play one world; return what is wrong with it, and how its requests ended."""
    world = play(seed, strict=seed % STRICT_EVERY == 0)
    return seed, world.failures, world.ends


def replay(seed: int) -> int:
    """Play one world and print its trace."""
    world = play(seed, strict=True)
    print(*world.trace, sep="\n")
    print(*world.failures or ["nothing is wrong"], sep="\n")
    return 1 if world.failures else 0


def search(first: int, count: int, jobs: int) -> int:
    """Play many worlds; print those that fail with the command that replays them."""
    began, bad, ends = monotonic(), 0, Counter[str]()
    with ProcessPoolExecutor(jobs) as pool:
        for done, (seed, failures, ended) in enumerate(
            pool.map(look, range(first, first + count), chunksize=20), 1
        ):
            ends += ended
            if failures:
                bad += 1
                print(f"uv run python tests/simulate.py {seed}   # {failures[0][:200]}")
            if done % 1000 == 0 or done == count:
                took = monotonic() - began
                print(f"{done} worlds, {bad} bad, {took:.0f} s, {dict(ends)}", flush=True)
    return 1 if bad else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("seed", type=int, nargs="?", help="replay this one, with its trace")
    parser.add_argument("--worlds", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    args = parser.parse_args()
    if args.seed is not None:
        return replay(args.seed)
    return search(args.first, args.worlds, args.jobs)


if __name__ == "__main__":
    sys.exit(main())
