"""Chat Completions: OpenAI's older API, and what nearly every model server speaks.

`CHAT` is the format. Behind it, one module for each direction: `parse.py` and `messages.py` read a
client's request, `render.py` and `history.py` write one for an upstream; `decoder.py`, `delta.py`
and `calls.py` read a reply, `encoder.py` streams one and `whole.py` writes one whole; `words.py`
holds the small translations that both ways share, `unwrap.py` custom tools on a wire without them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...accumulate import FinishedReply
from ...errors import ErrorInfo
from ...limits import Limits
from ...request import Request
from .. import openai_errors
from ..base import Call, Decoder, Encoder, Format, Identity, Rendered
from ..wire import WireDecoder
from . import parse, render, whole
from .decoder import ChatDialect
from .encoder import ChatEncoder
from .words import NAME


class _Chat:
    """See `Format`."""

    name = NAME
    path = "/chat/completions"

    def parse_request(self, body: Any) -> Request:
        """See `Format.parse_request`."""
        return parse.parse_request(body)

    def render_request(self, request: Request, call: Call) -> Rendered:
        """See `Format.render_request`."""
        return render.render_request(request, call)

    def decoder(self, request: Request, limits: Limits) -> Decoder:
        """See `Format.decoder`."""
        return WireDecoder(ChatDialect(request), limits)

    def encoder(self, request: Request, identity: Identity) -> Encoder:
        """See `Format.encoder`."""
        return ChatEncoder(request, identity)

    def render_reply(
        self, reply: FinishedReply, request: Request, identity: Identity
    ) -> dict[str, Any]:
        """See `Format.render_reply`."""
        return whole.render_reply(reply, request, identity)

    def render_error(self, error: ErrorInfo) -> dict[str, Any]:
        """See `Format.render_error`."""
        return openai_errors.render_error(error, NAME)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        """See `Format.read_error`."""
        return openai_errors.read_error(status, headers, body, NAME)


CHAT: Format = _Chat()
