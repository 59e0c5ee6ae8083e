"""A request's body: bounded in bytes, by a clock of progress, and JSON."""

from __future__ import annotations

from typing import Any

import trio

from nursling.engine import jsontext
from nursling.engine.errors import BadRequest, BodyTooLarge, RequestTimeout, UnsupportedMediaType
from nursling.engine.limits import Limits, clock

from .asgi import Incoming


LEAST_RATE = 500
"""Bytes per second of a request's body, beyond its first `body_timeout`."""


async def read_json(request: Incoming, limits: Limits) -> dict[str, Any]:
    """Read the body as one JSON object.

    A missing content type is fine if the body parses: many programs forget it.
    Raises `UnsupportedMediaType`, `BodyTooLarge`, `RequestTimeout` or `BadRequest`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
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


async def read_body(request: Incoming, limits: Limits) -> bytes:
    """Read the body; `body_timeout` runs anew with every piece. Raises as `read_json` does.

    On the whole it has to come at `LEAST_RATE` beside: a byte now and then would hold its place
    among the requests at work for ever, and a thousand such clients all places.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limits.max_body_bytes:
        raise BodyTooLarge(f"the request's body is over {limits.max_body_bytes} bytes")
    body = bytearray()  # no list of pieces: of two bytes each, they take thirty times their size
    patience = clock(limits.body_timeout)
    latest = trio.current_time() + patience
    with trio.CancelScope(deadline=latest) as silence:
        while (piece := await request.read()) is not None:
            body += piece
            if len(body) > limits.max_body_bytes:
                raise BodyTooLarge(f"the request's body is over {limits.max_body_bytes} bytes")
            silence.deadline = min(trio.current_time() + patience, latest + len(body) / LEAST_RATE)
        return bytes(body)
    slow = trio.current_time() >= latest + len(body) / LEAST_RATE and body
    what = "came too slowly" if slow else f"stopped for {limits.body_timeout:g} s"
    raise RequestTimeout(f"the request's body {what}")
