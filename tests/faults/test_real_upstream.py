"""Faults of an upstream that only real sockets have: TLS, and what a kernel does with an RST."""

from __future__ import annotations

import random
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trustme
from structlog.testing import capture_logs

from nursling.engine.limits import Limits
from nursling.transports import config_from_dict, open_engine
from nursling.transports.http.app import create_app
from nursling.transports.http.gateway import Gateway
from nursling.transports.http.server import serve
from nursling.transports.secret import Secret
from nursling.transports.upstream.client import Endpoint, HttpClient
from support.fake_upstream import (
    Chunk,
    FakeUpstream,
    Reset,
    Send,
    Stall,
    Wait,
    fake_upstream,
    stream,
    whole,
)
from support.gateway import Served, post, read_until, until
from support.laws import check_failed_stream
from support.scripted import APIS, Api, Json
from support.stack import NAMES, PATHS, TOLD, begun, good
from support.tunnel import tunnel


ASKS: dict[Api, Json] = {
    "chat": {"messages": [{"role": "user", "content": "Hi"}]},
    "responses": {"input": "Hi"},
}

each_route = pytest.mark.parametrize("proxied", [False, True], ids=["direct", "proxied"])
each_client = pytest.mark.parametrize("client", APIS, ids=lambda api: f"to-{api}")
each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"from-{api}")


@asynccontextmanager
async def before(
    server: FakeUpstream, api: Api, proxy: str | None = None
) -> AsyncGenerator[tuple[Served, Gateway], None]:
    """The gateway before an upstream, or before a proxy that leads there."""
    way = {"base_url": server.base_url, **({"proxy": proxy} if proxy else {})}
    config = config_from_dict(
        {
            "providers": {"up": {"api": NAMES[api], **way}},
            "models": [{"id": "m", "provider": "up"}],
        },
        environ={},
    )
    async with open_engine(config) as engine:
        app = create_app(engine)
        stop, now = trio.Event(), trio.Event()

        async def run(task_status: trio.TaskStatus[list[str]]) -> None:
            await serve(app, host="127.0.0.1", port=0, stop=stop, now=now, task_status=task_status)

        async with trio.open_nursery() as nursery:
            [url] = await nursery.start(run)
            yield Served(url, stop, now), app
            stop.set()
        assert engine.gate.open == 0
    await server.wait_closed()


def asking(client: Api, *, streamed: bool = True) -> bytes:
    body = {"model": "m", "stream": streamed, **ASKS[client]}
    return post(body, path=PATHS[client], head=b"Connection: close\r\n")


def body_of(answer: bytes) -> bytes:
    """The body of an answer, which came in chunks."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in head.lower()
    body = b""
    while not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


def ends(app: Gateway, reason: str) -> float | None:
    return app.metrics.registry.get_sample_value("nursling_stream_ends_total", {"reason": reason})


def told(body: bytes, client: Api) -> str:
    """The words of a broken stream."""
    events, _ = check_failed_stream(body, client)
    if client == "responses":
        return "".join(
            event["delta"] for event in events if event["type"] == "response.output_text.delta"
        )
    return "".join(
        choice["delta"].get("content") or "" for event in events for choice in event["choices"]
    )


@pytest.mark.fault(3, "R")
@each_client
@each_route
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_certificate_that_does_not_verify(
    client: Api, streamed: bool, proxied: bool
) -> None:
    """The client hears of no connection, and the operator reads why in the log."""
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with capture_logs() as logs:
        async with (
            fake_upstream(whole({}), tls=context) as server,
            tunnel() as proxy,
            before(server, "chat", proxy.url if proxied else None) as (served, app),
        ):
            answer = await served.raw(asking(client, streamed=streamed))
            await until(lambda: ends(app, "upstream_unreachable") == 1)
    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b'"code":"upstream_unreachable"' in answer
    assert b"certificate" not in answer
    assert str(server.port).encode() not in answer
    (line,) = [entry for entry in logs if entry["event"] == "request"]
    assert "the certificate does not verify: unable to get local issuer" in line["detail"]


@pytest.mark.fault(13, "R")
@each_client
@each_upstream
@each_route
async def test_a_reset_inside_a_frame(client: Api, upstream: Api, proxied: bool) -> None:
    """What came before the RST is told, then the error; nothing says stop."""
    gate = trio.Event()
    script = stream(begun(upstream), Wait(gate), Reset(), end=False)
    async with (
        fake_upstream(script) as server,
        before(server, upstream, server.origin if proxied else None) as (served, app),
        await served.connect() as asker,
    ):
        await asker.send_all(asking(client))
        answer = await read_until(asker, b" ho")
        gate.set()
        answer += await read_until(asker, b"0\r\n\r\n")
        body = body_of(answer)
        assert told(body, client) == TOLD
        assert b'"stop"' not in body
        await until(lambda: ends(app, "upstream_truncated") == 1)


@pytest.mark.fault(15, "R")
@each_client
@each_upstream
@each_route
async def test_a_reset_right_behind_the_last_byte(
    client: Api, upstream: Api, proxied: bool
) -> None:
    """The kernel may drop what we have not read yet; whatever was lost, it is no good end."""
    frames = good(upstream).split(b"\n\n")
    script = [
        *stream(end=False),
        *[Chunk(frame + b"\n\n") for frame in frames[:-2]],
        Send(b"5\r\ndat"),  # the tail that is lost
        Reset(),
    ]
    async with (
        fake_upstream(script) as server,
        before(server, upstream, server.origin if proxied else None) as (served, app),
    ):
        answer = await served.raw(asking(client))
        if answer.startswith(b"HTTP/1.1 200 "):
            assert "The horse is on its feet.".startswith(told(body_of(answer), client))
        else:
            assert answer.startswith(b"HTTP/1.1 502 ")
        await until(lambda: ends(app, "upstream_truncated") == 1)


@pytest.mark.fault(46, "R")
@each_route
async def test_contention_and_mass_cancellation(proxied: bool) -> None:
    """200 requests for 5 slots, cancelled at random: no connection is left without an owner."""
    rng = random.Random(137)  # noqa: S311 - a test draws
    script = stream(good("chat")[:400], Stall(), end=False)
    async with fake_upstream(script) as server, HttpClient() as client:
        limits = Limits(connect_timeout=30)
        endpoint = Endpoint(
            provider="p",
            base_url=server.base_url,
            max_streams=5,
            limits=limits,
            proxy=Secret(server.origin) if proxied else None,
        )
        upstream = client.upstream(endpoint)
        most = 0

        async def ask() -> None:
            nonlocal most
            with trio.move_on_after(rng.random() * 0.2):
                async with upstream.open({}, path="/x", stream=True) as source:
                    most = max(most, int(upstream._limiter.borrowed_tokens))
                    while await source.read_some():
                        pass

        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(ask)
        assert upstream._limiter.borrowed_tokens == 0
        await server.wait_closed()
        assert 0 < most <= 5
        assert server.connections > 5
        with trio.move_on_after(0.1):
            async with upstream.open({}, path="/x", stream=True) as source:
                assert source.status == 200
        await server.wait_closed()
