"""The numbers and the failures: each exception says whose fault it is, and a true status."""

from __future__ import annotations

import inspect
import math

import msgspec
import pytest

from nursling.engine import errors
from nursling.engine.errors import ErrorInfo, NurslingError, UpstreamError, UpstreamRefused
from nursling.engine.limits import DEFAULT_LIMITS, Limits, clock
from support.schemas import check_error


def all_errors() -> list[type[NurslingError]]:
    return [
        value
        for value in vars(errors).values()
        if inspect.isclass(value) and issubclass(value, NurslingError)
    ]


CLASSES = [kind for kind in all_errors() if kind is not UpstreamRefused]

TABLE: dict[str, tuple[str, int, str, str | None]] = {
    "NurslingError": ("local", 500, "server_error", None),
    "BadRequest": ("client", 400, "invalid_request_error", None),
    "Unauthorized": ("client", 401, "authentication_error", "invalid_api_key"),
    "Forbidden": ("client", 403, "permission_error", "forbidden"),
    "ModelNotFound": ("client", 404, "invalid_request_error", "model_not_found"),
    "NotFound": ("client", 404, "invalid_request_error", "not_found"),
    "MethodNotAllowed": ("client", 405, "invalid_request_error", "method_not_allowed"),
    "RequestTimeout": ("client", 408, "invalid_request_error", "request_timeout"),
    "BodyTooLarge": ("client", 413, "invalid_request_error", "request_too_large"),
    "UnsupportedMediaType": ("client", 415, "invalid_request_error", "unsupported_media_type"),
    "UpgradeRefused": ("client", 426, "invalid_request_error", "websocket_unsupported"),
    "NotSupported": ("client", 501, "not_supported", "not_supported"),
    "InternalError": ("local", 500, "server_error", "internal_error"),
    "Overloaded": ("local", 503, "overloaded", "overloaded"),
    "Draining": ("local", 503, "overloaded", "draining"),
    "LocalProtocolError": ("local", 500, "server_error", "local_protocol_error"),
    "UpstreamError": ("upstream", 502, "upstream_error", "upstream_error"),
    "ConnectFailed": ("upstream", 502, "upstream_error", "upstream_unreachable"),
    "ConnectTimeout": ("upstream", 504, "timeout_error", "upstream_connect_timeout"),
    "FirstEventTimeout": ("upstream", 504, "timeout_error", "upstream_first_event_timeout"),
    "IdleTimeout": ("upstream", 504, "timeout_error", "upstream_idle_timeout"),
    "WholeTimeout": ("upstream", 504, "timeout_error", "upstream_whole_timeout"),
    "TotalTimeout": ("upstream", 504, "timeout_error", "total_timeout"),
    "RemoteProtocolError": ("upstream", 502, "upstream_error", "upstream_protocol_error"),
    "Truncated": ("upstream", 502, "upstream_error", "upstream_truncated"),
    "EventTooLarge": ("upstream", 502, "upstream_error", "upstream_event_too_large"),
    "ReplyTooLarge": ("upstream", 502, "upstream_error", "upstream_reply_too_large"),
}


def test_the_table_of_failures_is_complete() -> None:
    """A new exception has to state its blame and status here too."""
    assert {kind.__name__ for kind in CLASSES} == set(TABLE)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_each_failure_says_whose_fault_it_is(kind: type[NurslingError]) -> None:
    """Blame, HTTP status, type and code of every failure, as clients see them."""
    info = kind("words", param="p", headers={"retry-after": "1"}).info()
    assert (info.fault, info.status, info.type, info.code) == TABLE[kind.__name__]
    assert (info.message, info.param, info.headers) == ("words", "p", {"retry-after": "1"})
    assert str(kind("words")) == "words"
    shown = {"message": info.message, "type": info.type, "param": info.param, "code": info.code}
    check_error({"error": shown})


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_blame_follows_the_class_and_the_status(kind: type[NurslingError]) -> None:
    """4xx is the client's, 5xx is not (but for 501), and `UpstreamError` is the upstream's."""
    assert (kind.fault == "upstream") == issubclass(kind, UpstreamError)
    assert (kind.fault == "client") == (kind.status < 500 or kind.status == 501)


def test_a_code_of_its_own_does_not_leak_to_the_class() -> None:
    """One error's `code` is not the next one's."""
    assert errors.BadRequest("x", code="special").code == "special"
    assert errors.BadRequest("x").code is None


def test_headers_are_copied() -> None:
    """Two errors never share a dictionary."""
    headers = {"retry-after": "1"}
    error = errors.Overloaded("busy", headers=headers)
    headers.clear()
    assert error.info().headers == {"retry-after": "1"}


def test_the_upstreams_own_words_are_kept() -> None:
    """An error that the upstream said travels whole: raw object, status, headers."""
    info = ErrorInfo(
        message="slow down",
        type="rate_limit",
        code="c",
        param="p",
        status=429,
        fault="upstream",
        headers={"retry-after": "9"},
        raw={"message": "slow down", "x": 1},
        raw_format="chat",
    )
    error = UpstreamRefused(info)
    assert error.info() is info
    assert (error.status, error.type, error.code, error.param) == (429, "rate_limit", "c", "p")
    assert error.headers == {"retry-after": "9"}
    assert error.fault == "upstream"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_failure_as_data_becomes_the_failure_again(kind: type[NurslingError]) -> None:
    """`error_from` is the inverse of `info`, class included where a code tells the class."""
    error = kind("words", param="p", headers={"retry-after": "1"})
    again = errors.error_from(error.info())
    assert again.info() == error.info()
    if error.code is not None:
        assert type(again) is kind


@pytest.mark.parametrize(
    "info",
    [
        ErrorInfo(message="x", code="upstream_truncated", type="other"),
        ErrorInfo(message="x", code="nobody_knows", status=418),
        ErrorInfo(message="x", status=400, raw={"message": "x"}, raw_format="chat"),
        msgspec.structs.replace(errors.Truncated("x").info(), raw="x"),
    ],
)
def test_foreign_words_stay_as_they_are(info: ErrorInfo) -> None:
    """What is not wholly one of ours keeps every word of its own."""
    assert errors.error_from(info).info() == info


# Limits.


def test_a_clock_of_zero_is_off() -> None:
    """0 means for ever, anything else means itself."""
    assert clock(0) == math.inf
    assert clock(0.5) == 0.5


def test_limits_are_frozen_and_closed() -> None:
    """Nobody changes a running stream's numbers, and a misspelt one is an error."""
    with pytest.raises(AttributeError):
        DEFAULT_LIMITS.idle_timeout = 1  # type: ignore[misc]  # that is what is tested
    with pytest.raises(msgspec.ValidationError, match="idle_timout"):
        msgspec.convert({"idle_timout": 1}, Limits)
    assert msgspec.convert({"idle_timeout": 1}, Limits).idle_timeout == 1


def test_limits_are_named() -> None:
    """A bare number could mean any of them."""
    with pytest.raises(TypeError):
        Limits(1)  # type: ignore[call-arg]  # that is what is tested


PROMISED: dict[str, float] = {
    "connect_timeout": 10,
    "first_event_timeout": 120,
    "idle_timeout": 120,
    "whole_timeout": 120,
    "total_timeout": 0,
    "finish_grace": 2,
    "reuse_grace": 0.05,
    "keep_alive": 4,
    "close_timeout": 1,
    "heartbeat": 15,
    "write_timeout": 30,
    "head_timeout": 5,
    "body_timeout": 30,
    "drain_timeout": 30,
    "max_event_bytes": 2**20,
    "max_body_bytes": 32 * 2**20,
    "max_reply_bytes": 32 * 2**20,
    "max_recall_bytes": 64 * 2**20,
    "max_error_bytes": 64 * 2**10,
    "max_json_depth": 64,
    "max_json_nodes": 100_000,
    "max_head_bytes": 64 * 2**10,
    "max_streams": 1000,
    "max_connections": 4096,
    "max_refused": 64,
    "max_headers": 128,
    "max_requests": 10_000,
    "backlog": 1024,
    "max_idle": 256,
}


def test_every_limit_has_a_promised_number() -> None:
    """A new limit has to state its default here too."""
    assert PROMISED.keys() == msgspec.structs.asdict(DEFAULT_LIMITS).keys()


@pytest.mark.parametrize(("name", "value"), PROMISED.items(), ids=list(PROMISED))
def test_the_numbers_that_were_promised(name: str, value: float) -> None:
    """The defaults are those of the documentation."""
    assert getattr(DEFAULT_LIMITS, name) == value
