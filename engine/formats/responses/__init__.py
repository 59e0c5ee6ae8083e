"""The Responses API of OpenAI, both ways.

`request.py` reads a client's body (`leftover.py` names what only this format can say of it) and
`render.py` writes an upstream's; `decoder.py` reads a reply, with `board.py` for its items and
`items.py` for one of them; `encoder.py` writes a stream and `resource.py` the Response object, with
`settings.py` for what was asked; `recall.py` keeps items that a client may name by their ids;
`quirks.py` lists where the schemas and the live service disagree.
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
from . import decoder, render, request, resource
from .encoder import ResponsesEncoder
from .request import NAME


__all__ = ["RESPONSES"]


class _Responses:
    name = NAME
    path = "/responses"

    def parse_request(self, body: Any) -> Request:
        return request.parse_request(body)

    def render_request(self, request: Request, call: Call) -> Rendered:
        return render.render_request(request, call)

    def decoder(self, request: Request, limits: Limits) -> Decoder:
        return decoder.decoder(request, limits)

    def encoder(self, request: Request, identity: Identity) -> Encoder:
        return ResponsesEncoder(request, identity)

    def render_reply(
        self, reply: FinishedReply, request: Request, identity: Identity
    ) -> dict[str, Any]:
        return resource.render_reply(reply, request, identity)

    def render_error(self, error: ErrorInfo) -> dict[str, Any]:
        return openai_errors.render_error(error, NAME)

    def read_error(self, status: int, headers: Mapping[str, str], body: bytes) -> ErrorInfo:
        return openai_errors.read_error(status, headers, body, NAME)


RESPONSES: Format = _Responses()
