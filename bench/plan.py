"""What is measured: the plans of the streams, and the scenarios made of them.

The law of this file: a plan is wholly said by its name, which travels as the request's `model`
through whatever stands in between. So one upstream process serves every scenario, and no gateway
has to be told more about plans than their names.
"""

from __future__ import annotations

import math
import re
from typing import Literal, get_args

import msgspec


Api = Literal["chat", "responses"]

Dress = Literal["plain", "openai", "logprobs", "stamped"]
"""What a delta's event has on beside its text.

*plain*: what every server sends. *openai*: what OpenAI's service adds to each one without being
asked: `obfuscation` (another one each time), `service_tier`, `system_fingerprint`, and `logprobs`
with nothing in it. *logprobs*: the same, and log probabilities, as a client has asked for them.
*stamped* (Chat Completions only): plain, and the text carries the time at which it was sent.
"""

PATHS: dict[Api, str] = {"chat": "/v1/chat/completions", "responses": "/v1/responses"}

OPENING = 400
"""New streams per second while a scenario begins. A request costs any gateway more than an event:
a stampede would be another measurement."""
LONGEST_RAMP = 1.0
"""Seconds; however few streams there are, and however rarely they speak."""
PATIENCE = 30.0
"""Seconds beyond the ramp until the last stream must have had its first token, and..."""
PATIENCE_EACH = 0.02
"""...for each stream: others may have the gateway's core."""

_NAME = re.compile(rf"bench-(chat|responses)-(\d+)-(\d+)-(\d+)-({'|'.join(get_args(Dress))})")


class Plan(msgspec.Struct, frozen=True):
    """How the upstream streams one reply."""

    api: Api
    """The API that it speaks."""
    events: int
    """Deltas of text, one numbered token each."""
    per_write: int = 1
    """Events that leave in one write, each an HTTP chunk of its own."""
    pause: int = 0
    """Milliseconds between two writes; 0 = as fast as the socket takes them."""
    dress: Dress = "plain"

    @property
    def model(self) -> str:
        """The name of the plan."""
        return f"bench-{self.api}-{self.events}-{self.per_write}-{self.pause}-{self.dress}"

    @property
    def interval(self) -> float:
        """Seconds between two writes; 0 = none."""
        return self.pause / 1000


def parse_plan(model: str) -> Plan | None:
    """Read the name of a plan; None if it is none."""
    match = _NAME.fullmatch(model)
    if match is None:
        return None
    plan = msgspec.convert(
        {
            "api": match[1],
            "events": int(match[2]),
            "per_write": int(match[3]),
            "pause": int(match[4]),
            "dress": match[5],
        },
        Plan,
    )
    whole = plan.events and plan.per_write and (plan.dress != "stamped" or plan.api == "chat")
    return plan if whole else None


class Scenario(msgspec.Struct, frozen=True):
    """One row of a report."""

    name: str
    client: Api
    """The API that the client speaks; the upstream's is the plan's."""
    plan: Plan
    streams: int
    """Concurrent ones."""
    whole: bool = False
    """Ask for whole replies, not for streams."""

    @property
    def ramp(self) -> float:
        """Seconds in which the streams begin: over a pause, or all of them would speak at once."""
        return max(min(self.plan.interval, LONGEST_RAMP), self.streams / OPENING)

    @property
    def patience(self) -> float:
        """Seconds in which all streams must have begun."""
        return self.ramp + PATIENCE + PATIENCE_EACH * self.streams


class Timing(msgspec.Struct, frozen=True):
    """The clocks of one run, in seconds."""

    seconds: float = 1.0
    """The window that is measured."""
    warm_up: float = 0.3
    """Load of the same kind before it, once all streams have begun."""
    tail: float = 0.3
    """What a paced stream lasts beyond it, so that the window ends under full load."""


def paced(name: str, client: Api, plan: Plan, streams: int, timing: Timing) -> Scenario:
    """A scenario whose streams outlast the window: the plan gets as many events as that takes.

    Also where a busy gateway needs twice the ramp to begin with them.
    """
    scenario = Scenario(name, client, plan, streams)
    seconds = 2 * scenario.ramp + timing.warm_up + timing.seconds + timing.tail
    lasting = math.ceil(seconds / plan.interval * plan.per_write) + 1
    return msgspec.structs.replace(scenario, plan=msgspec.structs.replace(plan, events=lasting))
