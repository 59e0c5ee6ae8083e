"""What is measured: the plans of the streams, and the scenarios made of them.

The law of this file: a plan is wholly said by its name, which travels as the request's `model`
through whatever stands in between. So one upstream process serves every scenario, and no gateway
has to be told about plans.
"""

from __future__ import annotations

import math
import re
from typing import Literal

import msgspec


Api = Literal["chat", "responses"]

PATHS: dict[Api, str] = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}

_NAME = re.compile(r"bench-(chat|responses)-(\d+)-(\d+)-(\d+)")


class Plan(msgspec.Struct, frozen=True):
    """How the upstream streams one reply."""

    api: Api
    """The API that it speaks."""
    events: int
    """Deltas of text, one numbered token each."""
    per_write: int = 1
    """Events that leave in one write, each an HTTP chunk of its own."""
    rate: int = 0
    """Events per second; 0 = as fast as the socket takes them."""

    @property
    def model(self) -> str:
        """The name of the plan."""
        return f"bench-{self.api}-{self.events}-{self.per_write}-{self.rate}"

    @property
    def interval(self) -> float:
        """Seconds between two writes; 0 = none."""
        return self.per_write / self.rate if self.rate else 0.0


def parse_plan(model: str) -> Plan | None:
    """Read the name of a plan; None if it is none."""
    match = _NAME.fullmatch(model)
    if match is None or not int(match[2]) or not int(match[3]):
        return None
    api: Api = "chat" if match[1] == "chat" else "responses"
    return Plan(api, int(match[2]), int(match[3]), int(match[4]))


class Scenario(msgspec.Struct, frozen=True):
    """One row of the report."""

    name: str
    client: Api
    """The API that the client speaks; the upstream's is the plan's."""
    plan: Plan
    streams: int
    """Concurrent ones."""


class Timing(msgspec.Struct, frozen=True):
    """The clocks of one run, in seconds."""

    seconds: float = 1.0
    """The window that is measured."""
    warm_up: float = 0.3
    """Load of the same kind before it."""
    tail: float = 0.3
    """What a paced stream lasts beyond it, so that the window ends under full load."""


ROUTES: tuple[tuple[Api, Api], ...] = (
    ("chat", "chat"),
    ("chat", "responses"),
    ("responses", "chat"),
    ("responses", "responses"),
)


def scenarios(timing: Timing, events: int) -> list[Scenario]:
    """All scenarios: for every route saturated and paced, for chat to chat bursts as well.

    *Saturated*: 16 streams of `events` events, one event per write, one stream after the other.
    *Bursts*: the same with 16 events per write. *Paced*: 50 streams of 20 events per second, which
    is what live token streams are; nearly every event is a read, a write and a wake-up of its own.
    """
    pace = 20
    lasting = math.ceil((timing.warm_up + timing.seconds + timing.tail) * pace)
    rows: list[Scenario] = []
    for client, upstream in ROUTES:
        route = f"{client}-{upstream}"
        rows.append(Scenario(f"{route}-saturated", client, Plan(upstream, events), 16))
        if route == "chat-chat":
            rows.append(Scenario(f"{route}-bursts", client, Plan(upstream, events, 16), 16))
        rows.append(Scenario(f"{route}-paced", client, Plan(upstream, lasting, 1, pace), 50))
    return rows
