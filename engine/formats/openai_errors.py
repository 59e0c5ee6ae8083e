"""OpenAI's error envelope, read and written: what Chat Completions and Responses share.

    {"error": {"message": str, "type": str, "param": str | null, "code": str | null}}

The law of this file: whatever an upstream says went wrong, in whatever shape, becomes an
`ErrorInfo` with a true HTTP status, and what leaves has the four members in OpenAI's types.

Shapes that are read, each because a real server sends it: OpenAI's; the same with a number as
`code` (llama-server, OpenRouter); `{"error": "text"}` (mlx_lm, transformers inside its stream);
`{"detail": "text" | [{"loc", "msg"}]}` (FastAPI: transformers); `{"object": "error", "message"}`
(vLLM); an error as an event stream with status 500 (LiteLLM); plain text; HTML; nothing.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import structs

from .. import jsontext
from ..errors import ErrorInfo, concerning
from ..sse import SSEDecoder


KEPT_TEXT = 4096
"""Characters of a body that is no JSON which are kept for the log."""
QUOTED_TEXT = 200
"""Characters of such a body that a client is shown: a sentence, but no page and no stack trace."""

TYPE_OF_STATUS = {
    401: "authentication_error",
    403: "permission_error",
    408: "timeout_error",
    429: "rate_limit_error",
    503: "overloaded",
    504: "timeout_error",
    529: "overloaded",
}
"""The word for a status whose error names no type; else by its hundred."""

STATUS_OF_WORD = {
    "authentication_error": 401,
    "bad_request_error": 400,
    "badrequesterror": 400,
    "content_filter": 400,
    "content_policy_violation": 400,
    "context_length_exceeded": 400,
    "exceed_context_size_error": 400,
    "insufficient_quota": 429,
    "invalid_api_key": 401,
    "invalid_image": 400,
    "invalid_image_url": 400,
    "invalid_prompt": 400,
    "invalid_request_error": 400,
    "model_not_found": 404,
    "not_found": 404,
    "not_found_error": 404,
    "overloaded": 503,
    "overloaded_error": 503,
    "permission_error": 403,
    "rate_limit": 429,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "server_is_overloaded": 503,
    "slow_down": 503,
    "timeout": 504,
    "timeout_error": 504,
    "too_many_requests": 429,
}
"""The status of an error that came without one (inside a stream), by its `code` or its `type`."""

CODE_OF_TYPE = {"exceed_context_size_error": "context_length_exceeded"}  # llama-server
"""OpenAI's `code` for a `type` that only its server knows. Clients act upon the code."""

_SECONDS = re.compile(r"\d{1,6}(\.\d{1,3})?")  # `retry-after` may be a date, too
_SECRET = re.compile(r"\b(sk-|Bearer\s+)[^\s'\",;]+")


def render_error(info: ErrorInfo, format_name: str | None = None) -> dict[str, Any]:
    """Write an error's body.

    Further members of the upstream's own error object are kept if `format_name` is the format
    that it was read from.
    """
    same = format_name is not None and info.raw_format == format_name
    error: dict[str, Any] = dict(info.raw) if same and isinstance(info.raw, dict) else {}
    error |= {"message": info.message, "type": info.type, "param": info.param, "code": info.code}
    return {"error": error}


def in_stream(info: ErrorInfo) -> ErrorInfo:
    """Say in words what a stream that has begun can no longer say in headers: when to try again.

    It is how OpenAI says it (`Please try again in 1.5s.`), and clients read it there: Codex waits
    as long, and without it asks again at once. The other headers (`x-ratelimit-*`) are lost.
    """
    seconds = info.headers.get("retry-after", "")
    if not _SECONDS.fullmatch(seconds) or "try again in" in info.message.lower():
        return info
    message = f"{info.message.rstrip(' .')}. Please try again in {seconds}s."
    return structs.replace(info, message=message)


def read_error(status: int, headers: Mapping[str, str], body: bytes, format_name: str) -> ErrorInfo:
    """Read an upstream's answer with an error status. `headers` have names in lower case."""
    info = _read_body(status if 400 <= status <= 599 else 502, body, format_name)
    info.headers = concerning(headers)
    return info


def error_object_to_info(obj: Any, *, status: int | None, format_name: str) -> ErrorInfo:
    """Read an error object: the value of `error`, or a whole body that is an error.

    `status` is the HTTP status it came with; None = inside a stream, where the object itself says
    it (a number as `code`, a known word as `code` or `type`), or it is 502.
    """
    if isinstance(obj, dict) and isinstance(obj.get("error"), dict | str) and "message" not in obj:
        obj = obj["error"]
    error: dict[str, Any] = obj if isinstance(obj, dict) else {"message": obj}
    kind, code, param = error.get("type"), _code(error.get("code")), error.get("param")
    message, place = _message(error)
    if status is None:
        status = _status(error.get("status"), code, kind)
    if not isinstance(kind, str) or not kind:
        kind = type_of_status(status)
    secret = status in {401, 403}  # such words are about our own key, and may quote it
    return ErrorInfo(
        message=_SECRET.sub(r"\1***", message) if message else _said_nothing(status),
        type=kind,
        code=CODE_OF_TYPE.get(kind, code),
        param=param if isinstance(param, str) else place,
        status=status,
        fault="upstream",
        raw=None if secret else obj,
        raw_format=None if secret else format_name,
    )


def type_of_status(status: int) -> str:
    """Name the type of an error of which only the status is known."""
    client = "invalid_request_error" if status < 500 else "upstream_error"
    return TYPE_OF_STATUS.get(status, client)


def _read_body(status: int, body: bytes, format_name: str) -> ErrorInfo:
    text = body.lstrip()
    if text.startswith((b"data:", b"event:")):  # LiteLLM 1.106: a stream, with status 500
        frames = SSEDecoder(len(text) + 1).feed(text + b"\n\n")
        text = frames[0][1] if frames else b""
    try:
        value = jsontext.loads(text)
    except ValueError:
        return _read_text(status, text.decode("utf-8", "replace").strip())
    return error_object_to_info(value, status=status, format_name=format_name)


def _read_text(status: int, text: str) -> ErrorInfo:
    if not text:
        message = _said_nothing(status)
    elif text.startswith(("<", "{", "[")):
        what = "a page of HTML" if text.startswith("<") else "an error that is not whole JSON"
        message = f"the upstream answered {status} with {what}"
    else:
        message = _SECRET.sub(r"\1***", text.splitlines()[0][:QUOTED_TEXT])
    return ErrorInfo(
        message=message,
        type=type_of_status(status),
        status=status,
        fault="upstream",
        raw=text[:KEPT_TEXT] or None,
    )


def _message(error: dict[str, Any]) -> tuple[str, str | None]:
    """The words of an error object, and the field they are about if only they name it."""
    for key in ("message", "detail", "error", "msg"):
        match error.get(key):
            case str(words) if words.strip():
                return words, None
            case [{"msg": str(words), "loc": [*where]}, *_]:  # FastAPI's validation error
                names = [str(name) for name in where if name != "body"]
                return ": ".join(filter(None, [".".join(names), words])), ".".join(names) or None
            case _:
                pass
    return "", None


def _code(code: Any) -> str | None:
    return str(code) if isinstance(code, str | int) and not isinstance(code, bool) else None


def _status(own: Any, code: str | None, kind: Any) -> int:
    for word in (own, code, kind):
        number = str(word) if isinstance(word, str | int) else ""
        if len(number) == 3 and number.isdecimal() and 400 <= int(number) <= 599:
            return int(number)
        if isinstance(word, str) and word.lower() in STATUS_OF_WORD:
            return STATUS_OF_WORD[word.lower()]
    return 502


def _said_nothing(status: int) -> str:
    return f"the upstream failed ({status}) and did not say why"
