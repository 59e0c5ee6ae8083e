"""The version of this distribution, as it was installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


try:
    VERSION = version("nursling")
except PackageNotFoundError:  # pragma: no cover - run from a tree that is not installed
    VERSION = "0"
