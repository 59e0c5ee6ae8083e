"""The streams of a soak: each one's text is its own, down to every byte.

The law of this file: a token carries the number of its stream and its place in it, so a loss, a
repetition, a swap, and a token of another stream all show, in any API. A tale is wholly said by
its name, which travels as the prompt through whatever stands in between; all tales share two
models, one for each API of the upstream.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator
from typing import Literal

import msgspec

from .plan import Api


MODELS: dict[Api, str] = {"chat": "soak-chat", "responses": "soak-responses"}

LEAST_TOKEN = 14
"""Characters of a token that has nothing but its two numbers."""

_NAME = re.compile(r"soak-(\d+)-(\d+)-(\d+)-(\d+)")

Manner = Literal["reads", "naps", "is stuck"]
"""What a client does with its stream: it reads, or stops for a while, or stops for good."""


class Tale(msgspec.Struct, frozen=True):
    """The text of one stream."""

    number: int
    """No other stream of the run has it."""
    events: int
    rate: int
    """Events per second; 0 = as fast as the socket takes them."""
    size: int = LEAST_TOKEN
    """Characters of each token."""

    @property
    def name(self) -> str:
        """What the client asks for."""
        return f"soak-{self.number}-{self.events}-{self.rate}-{self.size}"

    def tokens(self) -> Iterator[str]:
        """Tell it, token by token."""
        for place in range(self.events):
            yield f"{self.number:06d}.{place:06d}".ljust(self.size, "~")

    def digest(self, length: int) -> bytes:
        """The hash of its first `length` characters."""
        return digest_of(cut(self.tokens(), length))


def parse_tale(name: str) -> Tale | None:
    """Read the name of a tale; None if it is none."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    number, events, rate, size = map(int, match.groups())
    return Tale(number, events, rate, size) if events and size >= LEAST_TOKEN else None


def cut(tokens: Iterable[str], length: int) -> Iterator[str]:
    """The tokens up to this many characters."""
    for token in tokens:
        yield token[:length]
        length -= len(token)
        if length <= 0:
            return


def digest_of(texts: Iterable[str]) -> bytes:
    """The hash of a text that comes in pieces."""
    found = hashlib.sha256()
    for text in texts:
        found.update(text.encode())
    return found.digest()


STRETCH = 1.3
"""How much longer than it should a client stays away at most: they must not move in step."""


class Patience(msgspec.Struct, frozen=True):
    """How long clients that do not read stay away, in seconds."""

    write_timeout: float
    """After which the gateway cuts a client that takes nothing."""

    @property
    def nap(self) -> float:
        """Short of being cut, also when it is stretched."""
        return self.write_timeout / 2

    @property
    def stuck(self) -> float:
        """Long enough to have been cut, also by a busy gateway."""
        return self.write_timeout * 2 + 2

    @property
    def longest(self) -> float:
        """No client is away for longer."""
        return self.stuck * STRETCH


class Lane(msgspec.Struct, frozen=True):
    """One of the concurrent clients: it asks for one tale after the other."""

    client: Api
    """The API that it speaks."""
    upstream: Api
    rate: int
    manner: Manner = "reads"


class Load(msgspec.Struct, frozen=True):
    """What is asked of the gateway at the same time."""

    streams: int = 1000
    """Of one event per second."""
    quick: int = 100
    """Of twenty events per second."""
    leaving: float = 0.05
    """Share of the streams whose client leaves before the end."""
    lazy: float = 0.05
    """Share of the clients that stop reading, one half for a while and one for good."""
    shortest: float = 20.0
    """Seconds that a stream lasts, at least and at most; less near the end of the run."""
    longest: float = 60.0
    lazy_bytes: int = 896 << 10
    """Of a stream that is not read: more than sockets hold, so that the gateway has to wait, and
    still a final event of Responses that the gateway takes."""
    lazy_token: int = 16 << 10

    def lanes(self) -> list[Lane]:
        """All clients, over the four routes evenly."""
        readers = self.streams + self.quick
        lazy = round(readers * self.lazy / (1 - self.lazy))
        rates = [1] * self.streams + [20] * self.quick
        apis: tuple[Api, Api] = ("chat", "responses")

        def lane(number: int, rate: int, manner: Manner = "reads") -> Lane:
            return Lane(apis[number % 2], apis[number // 2 % 2], rate, manner)

        found = [lane(number, rate) for number, rate in enumerate(rates)]
        manners: tuple[Manner, Manner] = ("naps", "is stuck")
        found += [lane(number // 2, 0, manners[number % 2]) for number in range(lazy)]
        return found

    def tale(self, lane: Lane, number: int, left: float, draw: random.Random) -> Tale:
        """Draw a tale for a lane that ends within `left` seconds."""
        if lane.manner != "reads":
            return Tale(number, self.lazy_bytes // self.lazy_token, 0, self.lazy_token)
        seconds = min(draw.uniform(self.shortest, self.longest), left)
        return Tale(number, max(1, int(seconds * lane.rate)), lane.rate)
