"""The invariant of `reply_laws`, for what a Responses upstream answers."""

from __future__ import annotations

from . import reply_laws


SEEDS = reply_laws.seeds("responses")


def check(data: bytes) -> None:
    """Hold one reply to it."""
    reply_laws.check("responses", data)
