"""`python -m nursling.transports` is `nursling`."""

from __future__ import annotations

from .cli import main


main()
