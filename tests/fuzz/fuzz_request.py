"""The invariant: any body of a client is a request, or a mistake of the client that can be said.

Nothing but `BadRequest` and `NotSupported` escapes from reading it and from writing it for an
upstream. A body for the other API has the shape that that API describes.
"""

from __future__ import annotations

import json
from typing import Any

from nursling.engine import jsontext
from nursling.engine.errors import BadRequest, NotSupported
from nursling.engine.formats.base import Call
from nursling.engine.request import Request
from support.asks import ASKS
from support.formats import FORMATS
from support.schemas import check_error, wrong_with
from support.scripted import Api


APIS: tuple[Api, ...] = ("chat", "responses")
START: dict[Api, dict[str, Any]] = {
    "chat": {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi."}]},
    "responses": {"model": "m", "stream": True, "input": "Hi."},
}
DEFINITIONS: dict[Api, str] = {
    "chat": "CreateChatCompletionRequest",
    "responses": "CreateResponse",
}
JUDGED_UPSTREAM = frozenset({"enum", "maximum", "minimum", "maxLength", "minLength", "pattern"})
"""A word or a number of the right type is passed on: servers know more than the document does."""
SEEDS = [
    json.dumps({**START[api], **said}).encode()
    for ask in ASKS
    for api in APIS
    if (said := getattr(ask, api)) is not None
]


def check(data: bytes) -> None:
    """Hold both formats to it, as the client's and as the upstream's."""
    try:
        body = jsontext.loads_request(data, max_depth=64)
    except ValueError:
        return
    for client in APIS:
        try:
            request = FORMATS[client].parse_request(body)
        except (BadRequest, NotSupported) as refusal:
            _check_refusal(refusal)
            continue
        for upstream in APIS:
            try:
                _check_rendered(request, upstream)
            except (BadRequest, NotSupported) as refusal:
                _check_refusal(refusal)


def _check_rendered(request: Request, upstream: Api) -> None:
    rendered = FORMATS[upstream].render_request(request, Call(model="up", stream=request.stream))
    body = json.loads(jsontext.dumps(rendered.body))
    assert body["model"] == "up"
    assert all(isinstance(place, str) for place in rendered.dropped)
    if upstream != request.format:
        wrong = wrong_with("openai", DEFINITIONS[upstream], body)
        assert wrong is None or wrong.validator in JUDGED_UPSTREAM, wrong.message


def _check_refusal(refusal: BadRequest | NotSupported) -> None:
    assert refusal.message
    for form in FORMATS.values():
        check_error(form.render_error(refusal.info()))
