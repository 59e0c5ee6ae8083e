"""The invariant of `reply_laws`, for what a chat upstream answers."""

from __future__ import annotations

from . import reply_laws


SEEDS = reply_laws.seeds("chat")


def check(data: bytes) -> None:
    """Hold one reply to it."""
    reply_laws.check("chat", data)
