"""What a wire format is: the contract that `chat`, `responses` and `peer` fulfil.

A format is two codecs around the normal form. Requests: `parse_request` (client's body -> Request)
and `render_request` (Request -> upstream's body). Replies: a `Decoder` (upstream's bytes ->
events) and an `Encoder` (events -> client's bytes), and two ways to say an error: as a body with a
status, and inside a stream (the encoder's answer to a `Failed`).

Formats never import each other. They meet in the normal form: N + M, never N x M.

Decoders and encoders are made for one reply, hold its state, and are never shared. They do no I/O
and have no clock and no randomness: what is random about a reply comes in as its `Identity`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import msgspec

from ..accumulate import FinishedReply
from ..errors import ErrorInfo
from ..events import Event
from ..limits import Limits
from ..request import Request


class Identity(msgspec.Struct, frozen=True):
    """What makes one reply of ours unlike any other: a random token, and Unix time in seconds."""

    token: str
    """32 hexadecimal digits. Ids of ours are a prefix, this, and a number: stable for a reply."""
    created: int


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """How one upstream wants to be asked."""

    model: str
    """The model's name there."""
    stream: bool
    include_usage: bool = True
    """Ask a streaming chat upstream for usage. Off for servers that refuse `stream_options`."""
    preface: str | None = None
    """The model's description, said to the model itself before everything else."""


class Rendered(msgspec.Struct, frozen=True):
    """A body for an upstream, and the client's fields that it could not carry (wire names)."""

    body: dict[str, Any]
    dropped: list[str] = []
    stop: list[str] = []
    """Stop sequences that this format cannot say: the pipeline cuts the reply there."""


class Decoder(Protocol):
    """Wire -> events. Deaf to how the bytes were cut. Ends with exactly one `Ended` or `Failed`.

    The events are those the wire means, in order; parts and items that the wire leaves open may
    stay open: `grammar.py` closes them. A decoder raises nothing: what breaks the wire's rules is
    a `Failed` behind the events that were good (`RemoteProtocolError`, `EventTooLarge`,
    `ReplyTooLarge`, `Truncated`), and so is an error that the upstream says itself.
    """

    def feed(self, data: bytes) -> list[Event]:
        """Take bytes as they came. Bytes after the end are ignored."""
        ...

    def close(self) -> list[Event]:
        """The upstream's bytes are over, cleanly. Returns the rest of the events."""
        ...

    @property
    def finished(self) -> bool:
        """Whether every choice has its finish reason: only usage and the terminator may follow."""
        ...


class Encoder(Protocol):
    """Events -> the bytes of a stream to the client. Takes what `grammar.py` lets through."""

    def encode(self, events: list[Event]) -> bytes:
        """Write events, in whole frames. A `Failed` becomes this format's error inside a stream."""
        ...

    def beat(self) -> bytes:
        """A sign of life, in the form that clients of this format count. Follows a `Started`."""
        ...


class Format(Protocol):
    """One wire format, both ways."""

    @property
    def name(self) -> str:
        """The tag of this format in extras, logs and configuration."""
        ...

    @property
    def path(self) -> str:
        """Where it is spoken, below an API's base URL: `/chat/completions`."""
        ...

    def parse_request(self, body: Any) -> Request:
        """Read a client's body (parsed JSON). Raises `BadRequest` with `param`, `NotSupported`."""
        ...

    def render_request(self, request: Request, call: Call) -> Rendered:
        """Write the request for an upstream of this format.

        Raises `BadRequest` (with the client's `param`) or `NotSupported` where the answer would be
        wrong without something that this format cannot say.
        """
        ...

    def decoder(self, request: Request, limits: Limits) -> Decoder:
        """Make the decoder of one reply. It finds out by itself whether it is a stream or whole."""
        ...

    def encoder(self, request: Request, identity: Identity) -> Encoder:
        """Make the encoder of one streamed reply."""
        ...

    def render_reply(
        self, reply: FinishedReply, request: Request, identity: Identity
    ) -> dict[str, Any]:
        """Write a whole reply: the fold of its events, as this format's final object."""
        ...

    def render_error(self, error: ErrorInfo) -> dict[str, Any]:
        """Write an error as a body, for an answer with a status."""
        ...

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        """Read an upstream's error answer, whatever it is (OpenAI's shape, a string, HTML)."""
        ...
