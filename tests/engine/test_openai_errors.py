"""The error envelope that both OpenAI formats share."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nursling.engine.errors import BadRequest, ErrorInfo
from nursling.engine.events import Failed, Started
from nursling.engine.formats.openai_errors import (
    KEPT_TEXT,
    QUOTED_TEXT,
    error_object_to_info,
    in_stream,
    read_error,
    render_error,
    type_of_status,
)
from support.corpus import Recording, recordings
from support.formats import FORMATS, IDENTITY
from support.schemas import check


HELLO = [{"role": "user", "content": "x"}]


def brief(info: ErrorInfo) -> tuple[int, str, str | None, str | None, str]:
    return info.status, info.type, info.code, info.param, info.message


OBJECTS = [
    # OpenAI's own shape; the word says the status.
    (
        {"message": "slow", "type": "requests", "code": "rate_limit_exceeded", "param": None},
        (429, "requests", "rate_limit_exceeded", None, "slow"),
    ),
    ({"message": "no", "type": "invalid_request_error", "param": "n"},
     (400, "invalid_request_error", None, "n", "no")),
    # A number as code is a status (OpenRouter, llama-server), also as text (LiteLLM).
    ({"message": "m", "code": 429}, (429, "rate_limit_error", "429", None, "m")),
    ({"message": "m", "code": "404"}, (404, "invalid_request_error", "404", None, "m")),
    ({"message": "m", "status": 503, "type": "x"}, (503, "x", None, None, "m")),
    # A number that is no status of an error says nothing.
    ({"message": "m", "code": 200}, (502, "upstream_error", "200", None, "m")),
    ({"message": "m", "code": True}, (502, "upstream_error", None, None, "m")),
    # llama-server's own type gets the code that clients act upon.
    ({"message": "m", "code": 400, "type": "exceed_context_size_error"},
     (400, "exceed_context_size_error", "context_length_exceeded", None, "m")),
    # vLLM.
    ({"object": "error", "message": "v", "type": "BadRequestError"},
     (400, "BadRequestError", None, None, "v")),
    # mlx_lm, transformers: text alone.
    ("text", (502, "upstream_error", None, None, "text")),
    ({"error": "text"}, (502, "upstream_error", None, None, "text")),
    ({"error": {"message": "inner"}}, (502, "upstream_error", None, None, "inner")),
    # FastAPI.
    ({"detail": "why"}, (502, "upstream_error", None, None, "why")),
    ({"detail": [{"loc": ["body", "max_tokens"], "msg": "bad"}]},
     (502, "upstream_error", None, "max_tokens", "max_tokens: bad")),
    ({"detail": [{"loc": ["body"], "msg": "bad"}]}, (502, "upstream_error", None, None, "bad")),
    # Nothing that could be read.
    ({"detail": [1]}, (502, "upstream_error", None, None, "")),
    ({"message": "  ", "type": ""}, (502, "upstream_error", None, None, "")),
    (None, (502, "upstream_error", None, None, "")),
    ([1], (502, "upstream_error", None, None, "")),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "expected"), OBJECTS, ids=[str(o)[:40] for o, _ in OBJECTS])
def test_object(obj: object, expected: tuple[int, str, str | None, str | None, str]) -> None:
    """An error object of any known shape becomes status, type, code, param and words."""
    info = error_object_to_info(obj, status=None, format_name="chat")
    status, kind, code, param, message = expected
    assert brief(info) == (
        status, kind, code, param, message or "the upstream failed (502) and did not say why",
    )  # fmt: skip
    assert (info.fault, info.raw_format) == ("upstream", "chat")
    check("openai", "ErrorResponse", render_error(info, "chat"))


def test_status_wins() -> None:
    """The HTTP status that an error came with is its status, whatever the object says."""
    info = error_object_to_info({"message": "m", "code": 429}, status=500, format_name="chat")
    assert (info.status, info.type) == (500, "upstream_error")


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (401, "authentication_error"), (429, "rate_limit_error"),
     (500, "upstream_error"), (503, "overloaded"), (504, "timeout_error")],
)  # fmt: skip
def test_type_of_status(status: int, kind: str) -> None:
    """An error that names no type has one by its status."""
    assert type_of_status(status) == kind


BODIES = [
    (b"", 500, "the upstream failed (500) and did not say why"),
    (b"  \n", 502, "the upstream failed (502) and did not say why"),
    (b"<html>secret path</html>", 503, "the upstream answered 503 with a page of HTML"),
    (b'{"error": {"mess', 500, "the upstream answered 500 with an error that is not whole JSON"),
    (b"Internal Server Error\nTraceback ...", 500, "Internal Server Error"),
    (b"x" * 9000, 500, "x" * QUOTED_TEXT),
    (b'{"error": "mlx"}', 404, "mlx"),
    (b'data: {"error": {"message": "sse"}}\n\ndata: [DONE]\n\n', 500, "sse"),
    (b'event: error\ndata: {"message": "named"}', 500, "named"),
    (b"event: nothing", 500, "the upstream failed (500) and did not say why"),
    (b"not \xff utf-8", 500, "not � utf-8"),
]


@pytest.mark.fault(6, "V")
@pytest.mark.parametrize(
    ("body", "status", "message"), BODIES, ids=[str(b[0])[:30] for b in BODIES]
)
def test_body(body: bytes, status: int, message: str) -> None:
    """An error's body of any kind gives words that are fit for a client, and no more of it."""
    info = read_error(status, {}, body, "chat")
    assert (info.status, info.message) == (status, message)
    if info.raw_format is None and info.raw is not None:
        assert len(info.raw) <= KEPT_TEXT


def test_status_of_a_redirect() -> None:
    """A status that is no error's, where an error was expected, is our 502."""
    assert read_error(302, {}, b"", "chat").status == 502


@pytest.mark.fault(5, "V")
def test_headers() -> None:
    """Of an upstream's headers those about waiting and rates reach the caller, and no others."""
    headers = {"retry-after": "3", "x-ratelimit-remaining-tokens": "0", "set-cookie": "a=b"}
    info = read_error(429, headers, b"", "chat")
    assert info.headers == {"retry-after": "3", "x-ratelimit-remaining-tokens": "0"}


@pytest.mark.fault(4, "V")
def test_keys_are_not_echoed() -> None:
    """An upstream that quotes our key at us does not get it to the client."""
    body = json.dumps({"error": {"message": "Incorrect API key provided: sk-canary-123.", "k": 1}})
    for status in (401, 403):
        info = read_error(status, {}, body.encode(), "chat")
        assert "canary" not in json.dumps(render_error(info, "chat"))
        assert info.raw is None
    assert "canary" not in read_error(400, {}, b"bad Bearer canary", "chat").message


def test_members_of_its_own() -> None:
    """Further members of an error object reach a client of the same format, and only that one."""
    raw = {"message": "long", "type": "t", "code": 400, "n_ctx": 512}
    info = error_object_to_info(raw, status=400, format_name="chat")
    same = {"message": "long", "type": "t", "param": None, "code": "400", "n_ctx": 512}
    assert render_error(info, "chat") == {"error": same}
    del same["n_ctx"]
    assert render_error(info) == render_error(info, "responses") == {"error": same}
    assert render_error(BadRequest("b", param="p").info(), "chat") == {
        "error": {"message": "b", "type": "invalid_request_error", "param": "p", "code": None}
    }


REFUSED = [one for one in recordings() if one.status >= 400]


@pytest.mark.fault(4, "V")
@pytest.mark.fault(6, "V")
@pytest.mark.parametrize("one", REFUSED, ids=[one.name for one in REFUSED])
def test_recorded(one: Recording) -> None:
    """Every error recorded of a real server keeps its status and leaves in our shape."""
    info = read_error(one.status, one.lower_headers, one.data, "chat")
    assert info.status == one.status
    assert info.message
    check("openai", "ErrorResponse", render_error(info, "chat"))


@pytest.mark.parametrize("code", ["000000400123", "4" * 5000, 600, 399, "٤٠٠٤", -400, 4000])
def test_odd_numbers(code: Any) -> None:
    """A number that is no HTTP status of an error does not become one."""
    info = error_object_to_info({"message": "x", "code": code}, status=None, format_name="chat")
    assert info.status == 502


@pytest.mark.parametrize(
    ("message", "after", "said"),
    [
        ("Too fast.", "7", "Too fast. Please try again in 7s."),
        ("Too fast", "1.5", "Too fast. Please try again in 1.5s."),
        ("Too fast. Please try again in 2.5s.", "3", "Too fast. Please try again in 2.5s."),
        ("Too fast.", "Wed, 21 Oct 2026 07:28:00 GMT", "Too fast."),
        ("Too fast.", "", "Too fast."),
    ],
)
def test_when_to_try_again_is_said_in_a_stream(message: str, after: str, said: str) -> None:
    """Headers are gone there: the message says it, as OpenAI's does and as Codex reads it."""
    headers = {"retry-after": after, "x-ratelimit-remaining-tokens": "0"}
    info = ErrorInfo(message=message, status=429, headers=headers if after else {})
    assert in_stream(info).message == said
    assert info.message == message


@pytest.mark.parametrize("client", FORMATS)
def test_both_streams_say_when_to_try_again(client: str) -> None:
    """A refusal behind an early commit: the wait, and in Responses the code that Codex needs."""
    info = ErrorInfo(message="Too fast.", status=429, headers={"retry-after": "7"})
    request = FORMATS[client].parse_request({"model": "m", "input": "x", "messages": HELLO})
    encoder = FORMATS[client].encoder(request, IDENTITY)
    encoder.encode([Started("", "", 0)])
    encoder.beat()
    data = encoder.encode([Failed(info)]).decode()
    assert "Too fast. Please try again in 7s." in data
    assert client == "chat" or '"code":"rate_limit_exceeded"' in data
