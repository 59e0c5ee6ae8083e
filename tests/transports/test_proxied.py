"""Upstreams behind a proxy: httpx's own transport, held to what the gateway needs.

What both transports keep alike is proved in `test_client.py`, for each of them.
"""

from __future__ import annotations

import gc
import logging
import ssl
import types
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
import pytest
import trio
import trustme

from nursling.engine.errors import (
    ConnectFailed,
    ConnectTimeout,
    RemoteProtocolError,
    Truncated,
)
from nursling.engine.limits import Limits
from nursling.transports.background import beside
from nursling.transports.secret import Secret
from nursling.transports.upstream.client import Endpoint, HttpClient, HttpUpstream
from nursling.transports.upstream.proxied import error_of, stock_transport
from support.fake_upstream import Close, Send, Stall, Step, fake_upstream, stream, whole
from support.gateway import until
from support.tunnel import tunnel


PASSWORD = "canary-pass-4711"
BODY = {"model": "m"}


def behind(
    client: HttpClient, proxy: str, base_url: str, limits: Limits | None = None
) -> HttpUpstream:
    return client.upstream(
        Endpoint(provider="p", base_url=base_url, proxy=Secret(proxy), limits=limits or Limits())
    )


async def ask(upstream: HttpUpstream) -> tuple[int, bytes]:
    async with upstream.open(BODY, path="/x", stream=True) as source:
        data = b""
        while piece := await source.read_some():
            data += piece
        return source.status, data


def certified() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    return server, trusting


@asynccontextmanager
async def trusting_client(context: ssl.SSLContext) -> AsyncGenerator[HttpClient, None]:
    def stock(proxy: Secret, _: ssl.SSLContext, limits: Limits) -> httpx.AsyncHTTPTransport:
        return stock_transport(proxy, context, limits)

    async with HttpClient(stock=stock) as client:
        yield client


async def test_a_tunnel_is_made_once_and_used_again() -> None:
    """HTTPS goes through CONNECT, with the proxy's password for the proxy only."""
    server_side, trusting = certified()
    async with (
        fake_upstream(whole(b"{}"), tls=server_side) as server,
        tunnel() as proxy,
        trusting_client(trusting) as client,
    ):
        url = f"http://user:{PASSWORD}@127.0.0.1:{proxy.port}"
        upstream = behind(client, url, server.base_url)
        for _ in range(3):
            assert await ask(upstream) == (200, b"{}")
        (asked,) = proxy.asked
        assert (asked.method, asked.target) == ("CONNECT", f"127.0.0.1:{server.port}")
        assert asked.headers["proxy-authorization"].startswith("Basic ")
        assert all("proxy-authorization" not in one.headers for one in server.requests)
        assert server.connections == 1


@pytest.mark.fault(3, "R")
async def test_a_certificate_behind_a_tunnel_is_verified() -> None:
    """The proxy changes nothing of that: no connection, and the reason for the operator."""
    server_side, _ = certified()
    async with (
        fake_upstream(whole(b"{}"), tls=server_side) as server,
        tunnel() as proxy,
        HttpClient() as client,
    ):
        with pytest.raises(ConnectFailed, match=r"^no connection to 'p'$") as caught:
            await ask(behind(client, proxy.url, server.base_url))
        await until(lambda: not proxy.open)
    assert "the certificate does not verify: unable to" in caught.value.detail


@pytest.mark.parametrize("forward", [True, False])
async def test_a_proxy_that_is_not_there(forward: bool) -> None:
    """It is no connection; the log says why, and neither says the password."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with HttpClient() as client:
        url = f"http://user:{PASSWORD}@127.0.0.1:{port}"
        upstream = behind(client, url, f"http{'' if forward else 's'}://h.example/v1")
        with pytest.raises(ConnectFailed) as caught:
            await ask(upstream)
        assert upstream._limiter.borrowed_tokens == 0
        assert PASSWORD not in repr(upstream.endpoint)
    assert caught.value.message == "no connection to 'p'"
    assert caught.value.detail == "cannot connect through the proxy: Connection refused"


REFUSING = {
    "refuses": (b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n", "407"),
    "babbles": (b"SSH-2.0\r\n\r\n", "the connection broke"),
}


@pytest.mark.parametrize("case", REFUSING)
async def test_a_proxy_that_makes_no_tunnel(case: str) -> None:
    """Whatever it says in place of a tunnel, there is no connection."""
    answer, words = REFUSING[case]
    async with tunnel(answer) as proxy, HttpClient() as client:
        with pytest.raises(ConnectFailed, match="no connection to 'p'") as caught:
            await ask(behind(client, proxy.url, "https://h.example/v1"))
        assert words in caught.value.detail
        await until(lambda: not proxy.open)


@pytest.mark.fault(2, "S")
@pytest.mark.parametrize("secure", [True, False])
async def test_the_connect_clock_is_over_the_proxy_too(
    secure: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """A proxy that cannot be reached has `connect_timeout`, no more."""

    class Hanging(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            if secure:  # a tunnel is being made
                info = {"request": httpx.Request("CONNECT", "http://h.example")}
                info["request"].method = b"CONNECT"  # type: ignore[assignment]  # as httpcore's
                await request.extensions["trace"]("http11.send_request_headers.started", info)
            await trio.sleep_forever()
            raise AssertionError

    async with HttpClient(stock=lambda *_: Hanging()) as client:
        upstream = behind(client, "http://proxy.example:3128", "https://h.example/v1")
        with pytest.raises(ConnectTimeout, match="no connection to 'p' within 10 s"):
            await ask(upstream)
        assert trio.current_time() == 10
        assert upstream._limiter.borrowed_tokens == 0


async def test_a_tunnel_that_does_not_come() -> None:
    """A proxy that takes CONNECT and says nothing is left when the clock is out."""
    async with tunnel(b"") as proxy, HttpClient() as client:
        upstream = behind(client, proxy.url, "https://h.example/v1", Limits(connect_timeout=0.1))
        with pytest.raises(ConnectTimeout, match=r"no connection to 'p' within 0\.1 s"):
            await ask(upstream)
        await until(lambda: not proxy.open)


async def test_an_answer_may_take_longer_than_connecting() -> None:
    """Once the request is under way, the connect clock is over."""
    async with fake_upstream([Stall()]) as server, HttpClient() as client:
        upstream = behind(client, server.origin, server.base_url, Limits(connect_timeout=0.05))
        with trio.move_on_after(0.3) as scope:
            await ask(upstream)
        assert scope.cancelled_caught
        await server.wait_closed()


async def test_a_request_that_is_not_taken() -> None:
    """An upstream that reads nothing of a large request is given up by the write clock."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with HttpClient() as client:
        upstream = behind(
            client, f"http://127.0.0.1:{port}", "http://h.example/v1", Limits(write_timeout=0.2)
        )
        with pytest.raises(ConnectTimeout, match=r"took no byte of the request for 0\.2 s"):
            async with upstream.open({"text": "x" * 30_000_000}, path="/x", stream=True):
                raise AssertionError
        assert upstream._limiter.borrowed_tokens == 0
    await listener.aclose()


async def test_idle_connections_are_let_go_without_traffic() -> None:
    """Stock httpx closes them when another request comes; here a clock does."""
    limits = Limits(keep_alive=0.1)
    async with (
        fake_upstream(whole(b"1"), stream(b"2", Stall(), end=False), whole(b"3")) as server,
        HttpClient(limits=limits) as client,
        beside(client.sweep),
    ):
        upstream = behind(client, server.origin, server.base_url)
        assert await ask(upstream) == (200, b"1")
        await server.wait_closed()
        async with upstream.open(BODY, path="/x", stream=True) as source:
            assert await source.read_some() == b"2"
            await trio.sleep(0.3)
            assert server.open == 1  # at work, though others rest
        await server.wait_closed()
        assert await ask(upstream) == (200, b"3")
        await server.wait_closed()


@pytest.mark.parametrize("cancelled", [False, True])
@pytest.mark.parametrize("reads", [0, 1, 2])
async def test_what_is_half_read_is_ended_at_once(reads: int, cancelled: bool) -> None:
    """No async generator is left for the collector to find, which Trio would warn of."""
    async with (
        fake_upstream(stream(b"1", b"2", b"3", Stall(), end=False)) as server,
        HttpClient() as client,
    ):
        upstream = behind(client, server.origin, server.base_url)
        with trio.CancelScope() as scope:
            async with upstream.open(BODY, path="/x", stream=True) as source:
                for _ in range(reads):
                    assert await source.read_some()
                if cancelled:
                    scope.cancel()
        await server.wait_closed()
        gc.collect()
        await trio.testing.wait_all_tasks_blocked()
        left = [one for one in gc.get_objects() if isinstance(one, types.AsyncGeneratorType)]
        assert not [one for one in left if one.ag_frame and "http" in one.ag_code.co_filename]


async def test_a_bug_is_not_swallowed_and_nothing_is_held() -> None:
    """A line break in a header is refused by h11, and the connection is closed."""
    async with fake_upstream(whole({})) as server, HttpClient() as client:
        upstream = client.upstream(
            Endpoint(
                provider="p",
                base_url=server.base_url,
                headers={"X": Secret("a\r\nY: b")},
                proxy=Secret(server.origin),
            )
        )
        with pytest.raises(ValueError, match="cannot be written"):
            await ask(upstream)
        assert upstream._limiter.borrowed_tokens == 0
        await server.wait_closed()
    assert server.requests == []


async def test_httpcore_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """Its log of headers, keys among them, is off where nobody has asked for it."""
    caplog.set_level(logging.DEBUG)
    async with fake_upstream(whole({})) as server, HttpClient() as client:
        await ask(behind(client, server.origin, server.base_url))
    assert "httpcore" not in {record.name.split(".")[0] for record in caplog.records}


async def test_a_proxy_for_each_url() -> None:
    """Two upstreams of one proxy share its connections; another proxy has its own."""
    async with fake_upstream(whole(b"{}")) as server, HttpClient() as client:
        one, same = (behind(client, server.origin, server.base_url) for _ in range(2))
        other = behind(client, f"http://u:p@127.0.0.1:{server.port}", server.base_url)
        for upstream in (one, same, other):
            await ask(upstream)
        assert server.connections == 2
        assert "proxy-authorization" in server.requests[2].headers


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (httpx.ReadError(""), Truncated, "broke"),
        (httpx.RemoteProtocolError("Server disconnected without"), Truncated, "before it answered"),
        (httpx.RemoteProtocolError("peer closed connection w"), Truncated, "inside its reply"),
        (httpx.RemoteProtocolError("illegal chunk header"), RemoteProtocolError, "speak HTTP: ill"),
        (httpx.WriteTimeout(""), ConnectTimeout, "took no byte of the request for 30 s"),
    ],
)
def test_errors_in_our_words(error: httpx.HTTPError, kind: type[Exception], words: str) -> None:
    """Each error of httpx is one of ours."""
    ours = error_of(error, Limits())
    assert type(ours) is kind
    assert words in str(ours)


async def test_an_answer_without_an_end_is_read_to_its_connection_s_end() -> None:
    """A body that ends with its connection is whole then, here too."""
    answer: list[Step] = [Send(b"HTTP/1.0 200 OK\r\n\r\nall of it"), Close()]
    async with fake_upstream(answer) as server, HttpClient() as client:
        assert await ask(behind(client, server.origin, server.base_url)) == (200, b"all of it")
