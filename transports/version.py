"""The version of this distribution, as it was installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def _installed() -> str:
    try:
        return version("nursling")
    except PackageNotFoundError:  # run from a tree that is not installed
        return "0"


VERSION = _installed()
