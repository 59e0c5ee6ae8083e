"""Every number that bounds a stream, in one frozen object.

The law of this file: every time, size and count that somebody may want to change is here, and can
be set in the configuration. What other modules hold are constants of their own working (how many
batches a channel has, how much of a text a log quotes), each with its reason beside it. Times are
seconds, sizes are bytes; a time of 0 switches that clock off where the comment says so.
"""

from __future__ import annotations

import math

import msgspec


KIB = 1024
MIB = 1024 * KIB


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The clocks and sizes of one reply. A provider or a model may override any of them."""

    # Clocks of the upstream side. They run only while we wait for the upstream, never while the
    # client holds us back.
    connect_timeout: float = 10.0
    """Name lookup, TCP, TLS and the wait for a slot under the provider's cap."""
    first_event_timeout: float = 120.0
    """From the request to the first meaningful event; 0 = off. Thinking models are slow."""
    idle_timeout: float = 120.0
    """Between meaningful events; 0 = off. Beats of the upstream do not count (opencode#43519)."""
    whole_timeout: float = 120.0
    """For a reply that is asked whole, so shows nothing before its end; 0 = off."""
    total_timeout: float = 0.0
    """For everything; 0 = off, because a wall clock kills healthy long streams."""
    finish_grace: float = 2.0
    """After every choice has its finish reason, for usage and the terminator to arrive."""
    reuse_grace: float = 0.05
    """After the last event, for the end of the HTTP body, so that the connection can be reused."""
    keep_alive: float = 4.0
    """That an unused connection to an upstream is kept. Common servers close theirs after 5 s
    (uvicorn, Node): a request that is sent just then fails, so we must be the first to let go."""
    close_timeout: float = 1.0
    """For closing a connection while everything else is being cancelled."""

    # Clocks of the client side.
    heartbeat: float = 15.0
    """Silence towards a streaming client before we send a beat; 0 = off. Common proxies cut at
    30 to 60 s."""
    write_timeout: float = 30.0
    """For one write to the client to make progress."""
    head_timeout: float = 5.0
    """For a request's headers, and for a kept-alive connection to be used again."""
    body_timeout: float = 30.0
    """Without a byte of the request's body. Beyond it a body must bring 500 bytes per second."""
    drain_timeout: float = 30.0
    """From the signal to stop until open streams are ended."""

    # Sizes.
    max_event_bytes: int = 1 * MIB
    """One undecoded server-sent event, or one message of a peer."""
    max_body_bytes: int = 32 * MIB
    """A request's body. Images travel inside it."""
    max_reply_bytes: int = 32 * MIB
    """A reply asked whole, and the text that is kept of a streamed one to write its end."""
    max_recall_bytes: int = 64 * MIB
    """Items of earlier replies, kept so that clients may name them by id; 0 = none. A long session
    of an agent has 1 or 2 MiB of them. Past it the longest unused are forgotten."""
    max_error_bytes: int = 64 * KIB
    """What is read of an upstream's error body."""
    max_json_depth: int = 64
    """Nesting of a request's JSON. Tool schemas stay far below it."""
    max_json_nodes: int = 100_000
    """Values (objects, lists, their members) in a request's JSON: what parsing and translating
    cost the whole process. A long agent history with its tools has some 20,000."""
    max_head_bytes: int = 64 * KIB
    """A request's line and headers together."""

    # Counts.
    max_streams: int = 1000
    """Requests at work in this process; past it 503 with retry-after, at once."""
    max_connections: int = 4096
    """Connections of clients that are open at once, idle ones included."""
    max_refused: int = 64
    """Connections beyond that may wait for their 503 to be read; the rest are just closed."""
    max_headers: int = 128
    """Headers of one request. Browsers send about 20, proxies add a few."""
    max_requests: int = 10_000
    """Requests on one connection, so that clients are spread anew now and then."""
    backlog: int = 1024
    """Connections that the kernel holds until we accept them (hypercorn's default: 100)."""
    max_idle: int = 256
    """Unused connections kept per upstream. A burst should not become a hoard of sockets."""


DEFAULT_LIMITS = Limits()


def clock(seconds: float) -> float:
    """How long to wait by a clock of `Limits`: 0 means for ever."""
    return seconds if seconds > 0 else math.inf
