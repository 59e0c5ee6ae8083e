"""Faults of an upstream, through the whole gateway in virtual time: each client hears the truth.

Every test runs for clients and upstreams of both APIs, and with both transports: ours, and httpx's
own towards a proxy. What broke before the first news is a true
status; what broke later is an error in the stream, after the words that came.
"""

from __future__ import annotations

import errno
import json
import socket

import msgspec
import pytest
import trio
from trio.testing import MockClock

import support.stack
from nursling.engine.errors import ConnectFailed
from nursling.engine.limits import Limits
from support import reading
from support.gateway import Call
from support.kinds import TEXT, Said
from support.laws import check_failed_stream
from support.schemas import check_error
from support.scripted import APIS, Api, Json
from support.stack import (
    KEY,
    ORIGIN,
    RST,
    SILENCE,
    TOLD,
    Stack,
    Step,
    Wire,
    begun,
    good,
    head,
    http,
    sse,
    stack,
)


QUIET = Limits(heartbeat=0)
"""Without beats nothing commits a stream before its first news."""


@pytest.fixture(params=[False, True], ids=["direct", "proxied"], autouse=True)
def proxied(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Reach the upstream in one way, and in the other."""
    monkeypatch.setattr(support.stack, "PROXIED", request.param)
    return bool(request.param)


each_client = pytest.mark.parametrize("client", APIS, ids=lambda api: f"to-{api}")
each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"from-{api}")
each_way = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


def refused(call: Call, status: int) -> Json:
    """The error of an answer with a status, valid in either API."""
    assert call.status == status, call.body
    assert call.headers["content-type"] == "application/json"
    error: Json = check_error(call.json)["error"]
    return error


def words(events: list[Json], client: Api) -> str:
    """The text that a broken stream has told."""
    if client == "chat":
        return "".join(
            choice["delta"].get("content") or "" for event in events for choice in event["choices"]
        )
    deltas = [event for event in events if event["type"] == "response.output_text.delta"]
    return "".join(event["delta"] for event in deltas)


def said_in(body: bytes, client: Api) -> Said:
    """What a good stream says."""
    if client == "chat":
        return reading.chat_stream(body, usage=None)[0][0]
    return reading.responses_stream(body)[0]


def outcome(gateway: Stack) -> str:
    """How the one request ended, as the log and the metrics say it."""
    (record,) = gateway.records
    assert gateway.ends(record.outcome) == 1
    return record.outcome


# No connection.


@pytest.mark.fault(1, "S")
@each_client
@each_way
@pytest.mark.parametrize("why", ["Connection refused", "the name is unknown"])
async def test_nobody_there(client: Api, stream: bool, why: str, autojump_clock: MockClock) -> None:
    """No connection is a 502 at once, in the client's format; why is for the log only."""
    failure = ConnectFailed("no connection", detail=f"cannot connect to 10.0.0.7:1: {why}")
    refusal = ConnectionRefusedError(errno.ECONNREFUSED, "")
    failure.__cause__ = refusal if why == "Connection refused" else socket.gaierror()
    async with stack("chat", failure) as gateway:
        error = refused(await gateway.ask(client, stream=stream), 502)
        assert trio.current_time() < Limits().connect_timeout
        assert error["code"] == "upstream_unreachable"
        assert why not in json.dumps(error)
        assert outcome(gateway) == "upstream_unreachable"
        assert (gateway.records[0].detail or "").endswith(f": {why}")


@pytest.mark.fault(2, "S")
@each_client
@each_way
async def test_a_connection_that_hangs(
    client: Api, stream: bool, autojump_clock: MockClock
) -> None:
    """A connection that does not come is a 504 at 10 s, and its slot serves the next request."""
    async with stack("chat", SILENCE, Wire(*sse(good("chat")))) as gateway:
        error = refused(await gateway.ask(client, stream=stream), 504)
        assert trio.current_time() == pytest.approx(10)
        assert error["code"] == "upstream_connect_timeout"
        assert (await gateway.ask(client, stream=stream)).status == 200


# Refusals.


@pytest.mark.fault(4, "S")
@each_client
@each_upstream
@pytest.mark.parametrize("status", [401, 403, 404])
async def test_refused_by_name(
    status: int, client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """A refusal keeps its status and becomes a valid error, without the key that it quotes."""
    body = {"error": {"message": f"no access with {KEY}", "type": "x", "secret": KEY}}
    wire = Wire(*http(json.dumps(body).encode(), status))
    async with stack(upstream, wire) as gateway:
        call = await gateway.ask(client, stream=True)
        refused(call, status)
        assert KEY not in call.body.decode()
        assert KEY in wire.sent.decode()
        assert KEY not in msgspec.json.encode(gateway.records).decode()


@pytest.mark.fault(5, "S")
@each_client
@each_way
@pytest.mark.parametrize("status", [429, 529])
async def test_too_many(status: int, client: Api, stream: bool, autojump_clock: MockClock) -> None:
    """429, and Anthropic's 529, arrive with their status and their `retry-after`."""
    body = b'{"error": {"message": "slow down", "type": "rate_limit_error"}}'
    wire = Wire(*http(body, status, retry_after="7", x_ratelimit_remaining_requests="0"))
    async with stack("chat", wire) as gateway:
        call = await gateway.ask(client, stream=stream)
        assert refused(call, status)["message"] == "slow down"
        assert call.headers["retry-after"] == "7"
        assert call.headers["x-ratelimit-remaining-requests"] == "0"


PAGE = b"<html><body>" + b"secret path /srv/app " * 50_000


@pytest.mark.fault(6, "S")
@each_client
@each_way
@pytest.mark.parametrize("body", [b"", PAGE, b"Traceback:\n  secret path", b'{"error": {"mes'])
async def test_an_error_page(
    body: bytes, client: Api, stream: bool, autojump_clock: MockClock
) -> None:
    """No page of a proxy reaches a client or a log: a valid error with the status does."""
    async with stack("chat", Wire(*http(body, 503, content_type="text/html"))) as gateway:
        call = await gateway.ask(client, stream=stream)
        refused(call, 503)
        assert len(call.body) < 1000
        assert b"secret path" not in call.body
        assert b"secret path" not in msgspec.json.encode(gateway.records)


@pytest.mark.fault(7, "S")
@each_client
@each_upstream
async def test_a_body_where_a_stream_was_asked(
    client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """`application/json` although a stream was asked is read all the same, and streamed on."""
    fold = good(upstream)
    body = (
        json.dumps(json.loads(fold.split(b"data: ")[-1])["response"]).encode()
        if upstream == "responses"
        else b'{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}]}' % TEXT.encode()
    )
    async with stack(upstream, Wire(*http(body))) as gateway:
        call = await gateway.ask(client, stream=True)
        assert said_in(call.body, client).texts == (TEXT,)


@pytest.mark.fault(7, "S")
@each_client
@each_way
async def test_a_page_with_status_200(client: Api, stream: bool, autojump_clock: MockClock) -> None:
    """200 with HTML, as a login page of a proxy, is the upstream's protocol error."""
    async with stack("chat", Wire(*http(PAGE, content_type="text/html"))) as gateway:
        error = refused(await gateway.ask(client, stream=stream), 502)
        assert error["code"] == "upstream_protocol_error"


@pytest.mark.fault(33, "S")
@each_client
@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd"])
async def test_a_compressed_reply(coding: str, client: Api, autojump_clock: MockClock) -> None:
    """We asked for identity: a compressed reply is refused at its head, so no bomb can go off."""
    bomb = Wire(*http(b"\x1f\x8b\x08" + b"\x00" * 65_536, content_encoding=coding))
    async with stack("chat", bomb) as gateway:
        error = refused(await gateway.ask(client, stream=True), 502)
        assert error["code"] == "upstream_protocol_error"
        assert b"accept-encoding: identity" in bomb.sent.lower()


@pytest.mark.fault(34, "S")
@each_client
@each_way
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect(
    status: int, client: Api, stream: bool, autojump_clock: MockClock
) -> None:
    """A redirect, to the cloud's metadata say, is a 502; nobody but the upstream was asked."""
    elsewhere = "http://169.254.169.254/latest/meta-data"
    async with stack("chat", Wire(*http(b"", status, location=elsewhere))) as gateway:
        call = await gateway.ask(client, stream=stream)
        refused(call, 502)
        assert gateway.dialled == [ORIGIN]
        assert elsewhere.encode() not in call.body


# Silence.


@pytest.mark.fault(8, "S")
@each_client
@each_upstream
@each_way
async def test_a_head_that_never_comes(
    client: Api, upstream: Api, stream: bool, autojump_clock: MockClock
) -> None:
    """An upstream that takes the request and says nothing is a 504 at 120 s."""
    wire = Wire(SILENCE)
    async with stack(upstream, wire, limits=QUIET) as gateway:
        refused(await gateway.ask(client, stream=stream), 504)
        assert trio.current_time() == pytest.approx(120)
        assert wire.closed_at == pytest.approx(120)


@pytest.mark.fault(8, "S")
@each_client
async def test_a_head_that_never_comes_to_a_stream_with_beats(
    client: Api, autojump_clock: MockClock
) -> None:
    """Beats have committed the stream at 15 s: at 120 s it ends with the error inside."""
    async with stack("chat", Wire(SILENCE)) as gateway:
        call = await gateway.ask(client, stream=True)
        assert call.status == 200
        assert call.times[0] == pytest.approx(15)
        check_failed_stream(call.body, client)
        assert trio.current_time() == pytest.approx(120)
        assert outcome(gateway) == "upstream_first_event_timeout"


@pytest.mark.fault(10, "S")
@each_client
@each_upstream
async def test_a_stall(client: Api, upstream: Api, autojump_clock: MockClock) -> None:
    """120 s of silence inside a stream end it with an error, and the upstream is closed."""
    wire = Wire(*sse(begun(upstream), SILENCE))
    async with stack(upstream, wire) as gateway:
        call = await gateway.ask(client, stream=True)
        events, _ = check_failed_stream(call.body, client)
        assert words(events, client) == TOLD
        assert outcome(gateway) == "upstream_idle_timeout"
        assert wire.closed_at == trio.current_time() == pytest.approx(120)


@pytest.mark.fault(11, "S")
@each_client
@each_upstream
async def test_half_an_hour(client: Api, upstream: Api, autojump_clock: MockClock) -> None:
    """News every two minutes but one second: the stream is whole after half an hour."""
    text = "horse " * 8
    news = b"output_text.delta" if upstream == "responses" else b'"delta": {"content": "'
    slow: list[Step] = []
    for frame in good(upstream, text).split(b"\n\n")[:-1]:
        slow += [119.0 if news in frame else 0.0, frame + b"\n\n"]
    async with stack(upstream, Wire(*sse(*slow))) as gateway:
        call = await gateway.ask(client, stream=True)
        assert trio.current_time() > 30 * 60
        assert said_in(call.body, client).texts == (text,)


@pytest.mark.fault(12, "S")
@each_client
@each_upstream
async def test_a_drip(client: Api, upstream: Api, autojump_clock: MockClock) -> None:
    """A byte each 119 s is no news: the idle clock does not wait for a frame in that way."""
    drip: list[Step] = [step for byte in good(upstream) for step in (119.0, bytes([byte]))]
    async with stack(upstream, Wire(*sse(begun(upstream), *drip)), limits=QUIET) as gateway:
        check_failed_stream((await gateway.ask(client, stream=True)).body, client)
        assert trio.current_time() == pytest.approx(120)
        assert outcome(gateway) == "upstream_idle_timeout"


@pytest.mark.fault(12, "S")
async def test_a_drip_with_a_total_clock(autojump_clock: MockClock) -> None:
    """News that drips for ever ends at `total_timeout`, if one is set."""
    frames = [frame + b"\n\n" for frame in good("chat").split(b"\n\n")]
    drip = [step for frame in frames[1:9] for step in (100.0, frame)]
    limits = Limits(total_timeout=300)
    async with stack("chat", Wire(*sse(*drip)), limits=limits) as gateway:
        check_failed_stream((await gateway.ask("chat", stream=True)).body, "chat")
        assert trio.current_time() == pytest.approx(300)
        assert outcome(gateway) == "total_timeout"


# Ends.


@pytest.mark.fault(13, "S")
@each_client
@each_upstream
async def test_a_reset_inside_a_frame(
    client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """What came before the reset is told, then the error; nothing says stop."""
    async with stack(upstream, Wire(*sse(begun(upstream), RST))) as gateway:
        call = await gateway.ask(client, stream=True)
        events, _ = check_failed_stream(call.body, client)
        assert words(events, client) == TOLD
        assert b'"stop"' not in call.body
        assert outcome(gateway) == "upstream_truncated"


@pytest.mark.fault(13, "S")
@each_client
@each_upstream
async def test_a_reset_of_a_whole_reply(
    client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """A client of a whole reply gets a status, not half a reply."""
    async with stack(upstream, Wire(*sse(begun(upstream), RST)), fold=True) as gateway:
        error = refused(await gateway.ask(client, stream=False), 502)
        assert error["code"] == "upstream_truncated"


@pytest.mark.fault(14, "S")
@each_client
@each_upstream
@pytest.mark.parametrize("end", [True, False], ids=["last chunk", "FIN"])
async def test_an_end_without_a_terminator(
    end: bool, client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """An end before the finish reason is a failure, however politely the connection ends."""
    async with stack(upstream, Wire(*sse(begun(upstream), end=end))) as gateway:
        check_failed_stream((await gateway.ask(client, stream=True)).body, client)
        assert outcome(gateway) == "upstream_truncated"


@pytest.mark.fault(14, "S")
@each_client
async def test_an_end_behind_the_finish_reason(client: Api, autojump_clock: MockClock) -> None:
    """Of a chat upstream the finish reason and a clean end are enough."""
    told = good("chat").replace(b"data: [DONE]\n\n", b"")
    async with stack("chat", Wire(*sse(told))) as gateway:
        call = await gateway.ask(client, stream=True)
        assert call.ended
        assert outcome(gateway) == "ok"


@pytest.mark.fault(13, "S")
@pytest.mark.fault(14, "S")
@each_client
@pytest.mark.parametrize(("broken", "end"), [(True, "upstream_truncated"), (False, "ok")])
async def test_a_body_that_ends_with_its_connection(
    broken: bool, end: str, client: Api, autojump_clock: MockClock
) -> None:
    """Where only the connection's end says that a body is over, a FIN is an end and an RST none."""
    told = head(200, {"content-type": "text/event-stream"})
    told += good("chat").replace(b"data: [DONE]\n\n", b"")
    wire = Wire(told, RST) if broken else Wire(told)
    async with stack("chat", wire) as gateway:
        call = await gateway.ask(client, stream=True)
        assert outcome(gateway) == end
        if broken:
            check_failed_stream(call.body, client)


@pytest.mark.fault(15, "S")
@each_client
@each_upstream
async def test_a_reset_that_took_the_tail(
    client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """Reset before the terminator: a failure like any other, though only the end was lost."""
    frames = good(upstream).split(b"\n\n")
    cut = b"\n\n".join(frames[:-2]) + b"\n\n"
    async with stack(upstream, Wire(*sse(cut, RST))) as gateway:
        events, _ = check_failed_stream((await gateway.ask(client, stream=True)).body, client)
        assert words(events, client) == TEXT
        assert outcome(gateway) == "upstream_truncated"


@pytest.mark.fault(16, "S")
@each_client
@each_upstream
async def test_data_behind_the_terminator(
    client: Api, upstream: Api, autojump_clock: MockClock
) -> None:
    """What follows the end is not read, and the reply counts once."""
    more = b'data: {"error": {"message": "late"}}\n\n' + good(upstream)
    wire = Wire(*sse(good(upstream), 0.01, more))
    async with stack(upstream, wire) as gateway:
        call = await gateway.ask(client, stream=True)
        assert outcome(gateway) == "ok"
        assert b"late" not in call.body
        assert call.body.count(b"[DONE]") == (client == "chat")
