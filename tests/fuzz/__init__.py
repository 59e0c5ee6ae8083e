"""Targets for a fuzzer: each module has a law, some inputs to begin with, and a check.

By hand, with coverage as the guide, or without atheris blindly but fast:

    uv run --with atheris python tests/fuzz sse -max_total_time=60
    uv run python tests/fuzz sse -max_total_time=60

CI runs every seed, and some mutants of each that are the same each time (`tests/property`).
"""
