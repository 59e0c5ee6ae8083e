"""`python tests/fuzz TARGET [-max_total_time=SECONDS] [options of libFuzzer]`; see the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


sys.path.insert(0, str(Path(__file__).parent.parent))

from fuzz import runner


def main(name: str, options: list[str]) -> None:
    """Run one target."""
    if name not in runner.TARGETS:
        sys.exit(f"no target {name!r}; there are: {', '.join(runner.TARGETS)}")
    if importlib.util.find_spec("atheris") is not None and "-blind" not in options:
        runner.run_with_atheris(name, options)
        return
    said = dict(option.lstrip("-").partition("=")[::2] for option in options)
    seconds, first = float(said.get("max_total_time", 60)), int(said.get("seed", 0))
    sys.stdout.write(runner.run_blindly(name, seconds, first) + "\n")


if __name__ == "__main__":
    main((sys.argv[1:] or [""])[0], sys.argv[2:])
