"""One exception for each kind of failure, saying whose fault it is.

The law of this file: a failure that a client may see is one of these classes, and nothing else
decides its HTTP status, type and code. `fault` carries the blame: the client's request, the
upstream's answer, or ourselves. Transports and formats read the attributes; they never look at a
class to choose a status.

The words of `type` and `code` are OpenAI's (`ErrorResponse` in its schema) where it has one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import msgspec


Fault = Literal["client", "upstream", "local"]


class ErrorInfo(msgspec.Struct, gc=False, kw_only=True, omit_defaults=True):
    """A failure as data: what an event carries and what every format renders."""

    message: str
    type: str = "server_error"
    code: str | None = None
    param: str | None = None
    status: int = 500
    fault: Fault = "local"
    headers: dict[str, str] = {}
    """Headers of the upstream that concern the caller: `retry-after`, `x-ratelimit-*`. Inside a
    stream only the first has a place, in the message (`openai_errors.in_stream`)."""
    raw: Any = None
    """The upstream's own error object, for a client of the same format."""
    raw_format: str | None = None
    """The format that `raw` is written in."""


class NurslingError(Exception):
    """A request that failed, with everything a client may be told about it.

    `detail` is for the operator's log only (an address, say) and is never rendered: `info()` has
    none.
    """

    fault: ClassVar[Fault] = "local"
    status: int = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        detail: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.param = param
        self.headers = dict(headers or {})
        if code is not None:
            self.code = code

    def info(self) -> ErrorInfo:
        """Say the failure as data."""
        return ErrorInfo(
            message=self.message,
            type=self.type,
            code=self.code,
            param=self.param,
            status=self.status,
            fault=self.fault,
            headers=self.headers,
        )


# The client's fault.


class BadRequest(NurslingError):
    """The request is malformed, or says what the other end cannot; `param` names the field."""

    fault = "client"
    status = 400
    type = "invalid_request_error"


class Unauthorized(NurslingError):
    """No key, or a wrong one."""

    fault = "client"
    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(NurslingError):
    """A caller that may not ask this, such as a web page of a foreign origin."""

    fault = "client"
    status = 403
    type = "permission_error"
    code = "forbidden"


class ModelNotFound(NurslingError):
    """No entry of the configuration answers to this model name."""

    fault = "client"
    status = 404
    type = "invalid_request_error"
    code = "model_not_found"


class NotFound(NurslingError):
    """No such path."""

    fault = "client"
    status = 404
    type = "invalid_request_error"
    code = "not_found"


class MethodNotAllowed(NurslingError):
    """The path exists, the method does not."""

    fault = "client"
    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class RequestTimeout(NurslingError):
    """The client did not send its request's body in time."""

    fault = "client"
    status = 408
    type = "invalid_request_error"
    code = "request_timeout"


class BodyTooLarge(NurslingError):
    """The request's body is over `max_body_bytes`."""

    fault = "client"
    status = 413
    type = "invalid_request_error"
    code = "request_too_large"


class UnsupportedMediaType(NurslingError):
    """The request's body is not JSON."""

    fault = "client"
    status = 415
    type = "invalid_request_error"
    code = "unsupported_media_type"


class UpgradeRefused(NurslingError):
    """A WebSocket upgrade where only plain HTTP is spoken (RFC 9110 §15.5.22)."""

    fault = "client"
    status = 426
    type = "invalid_request_error"
    code = "websocket_unsupported"


class NotSupported(NurslingError):
    """A request that is right in itself and that this gateway does not serve."""

    fault = "client"
    status = 501
    type = "not_supported"
    code = "not_supported"


# Our own.


class InternalError(NurslingError):
    """A bug of ours. It is this request's failure and nothing else's."""

    code = "internal_error"


class Overloaded(NurslingError):
    """`max_streams` requests are at work already."""

    status = 503
    type = "overloaded"
    code = "overloaded"


class Draining(NurslingError):
    """The process was told to stop, and this stream did not end in time."""

    status = 503
    type = "overloaded"
    code = "draining"


class LocalProtocolError(NurslingError):
    """The embedding program used an object of ours against its rules."""

    code = "local_protocol_error"


# The upstream's.


class UpstreamError(NurslingError):
    """Anything the upstream did wrong."""

    fault = "upstream"
    status = 502
    type = "upstream_error"
    code: str | None = "upstream_error"


class UpstreamRefused(UpstreamError):
    """The upstream answered with an error: before its first byte, or inside its stream."""

    def __init__(self, info: ErrorInfo) -> None:
        super().__init__(info.message, param=info.param, headers=info.headers)
        self._info = info
        self.status = info.status
        self.type = info.type
        self.code = info.code

    def info(self) -> ErrorInfo:
        """Say the upstream's words as data."""
        return self._info


class ConnectFailed(UpstreamError):
    """No connection: refused, unknown name, or a certificate that does not verify."""

    code = "upstream_unreachable"


class ConnectTimeout(UpstreamError):
    """No connection, or no free slot, within `connect_timeout`."""

    status = 504
    type = "timeout_error"
    code = "upstream_connect_timeout"


class FirstEventTimeout(UpstreamError):
    """Nothing meaningful within `first_event_timeout`."""

    status = 504
    type = "timeout_error"
    code = "upstream_first_event_timeout"


class IdleTimeout(UpstreamError):
    """No news for `idle_timeout`."""

    status = 504
    type = "timeout_error"
    code = "upstream_idle_timeout"


class WholeTimeout(UpstreamError):
    """A reply asked whole did not come within `whole_timeout`."""

    status = 504
    type = "timeout_error"
    code = "upstream_whole_timeout"


class TotalTimeout(UpstreamError):
    """The reply was not at its end within `total_timeout`."""

    status = 504
    type = "timeout_error"
    code = "total_timeout"


class RemoteProtocolError(UpstreamError):
    """The upstream broke the rules of its own wire format."""

    code = "upstream_protocol_error"


class Truncated(UpstreamError):
    """The upstream's reply ended before its end."""

    code = "upstream_truncated"


class EventTooLarge(UpstreamError):
    """One event of the upstream is over `max_event_bytes`."""

    code = "upstream_event_too_large"


class ReplyTooLarge(UpstreamError):
    """The upstream's reply is over `max_reply_bytes`."""

    code = "upstream_reply_too_large"


def _kinds(root: type[NurslingError]) -> list[type[NurslingError]]:
    return [root, *(kind for child in root.__subclasses__() for kind in _kinds(child))]


_BY_CODE = {
    kind.code: kind
    for kind in _kinds(NurslingError)
    if kind.code is not None and kind is not UpstreamRefused
}


def error_from(info: ErrorInfo) -> NurslingError:
    """Make the exception that says what `info` says: `error_from(info).info() == info`."""
    kind = _BY_CODE.get(info.code or "")
    if kind is not None and info.raw is None:
        error = kind(info.message, param=info.param, headers=info.headers)
        if error.info() == info:
            return error
    return UpstreamRefused(info)


def concerning(headers: Mapping[str, str]) -> dict[str, str]:
    """Choose the headers of an upstream's answer (lower case) that concern the caller."""
    return {
        name: value
        for name, value in headers.items()
        if name in {"retry-after", "retry-after-ms"} or name.startswith("x-ratelimit-")
    }
