"""A request's body: bounded in bytes, by a clock of progress, and JSON."""

from __future__ import annotations

from typing import Any

import trio
from quart import Request
from werkzeug.exceptions import RequestEntityTooLarge

from nursling.engine import jsontext
from nursling.engine.errors import BadRequest, BodyTooLarge, RequestTimeout, UnsupportedMediaType
from nursling.engine.limits import Limits, clock


async def read_json(request: Request, limits: Limits) -> dict[str, Any]:
    """Read the body as one JSON object.

    A missing content type is fine if the body parses: many programs forget it.
    Raises `UnsupportedMediaType`, `BodyTooLarge`, `RequestTimeout` or `BadRequest`.
    """
    kind = request.mimetype
    if kind and kind != "application/json" and not kind.endswith("+json"):
        raise UnsupportedMediaType("the content type must be application/json")
    if request.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise UnsupportedMediaType("compressed request bodies are not accepted")
    text = await read_body(request, limits)
    try:
        value = jsontext.loads_request(
            text, max_depth=limits.max_json_depth, max_nodes=limits.max_json_nodes
        )
    except ValueError as error:
        raise BadRequest(f"the request's body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadRequest("the request's body must be a JSON object")
    return value


async def read_body(request: Request, limits: Limits) -> bytes:
    """Read the body; `body_timeout` runs anew with every piece. Raises as `read_json` does."""
    too_large = BodyTooLarge(f"the request's body is over {limits.max_body_bytes} bytes")
    pieces: list[bytes] = []
    size = 0
    source = aiter(request.body)
    while True:
        piece: bytes | None = None
        with trio.move_on_after(clock(limits.body_timeout)) as silence:
            try:
                piece = await anext(source, None)
            except RequestEntityTooLarge:  # Quart has looked at the declared length
                raise too_large from None
        if silence.cancelled_caught:
            raise RequestTimeout(f"no byte of the request's body for {limits.body_timeout:g} s")
        if piece is None:
            return b"".join(pieces)
        size += len(piece)
        if size > limits.max_body_bytes:
            raise too_large
        pieces.append(piece)
