"""The upstream edge, against a scripted server on real sockets, and in virtual time."""

from __future__ import annotations

import gc
import logging
import socket
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import trio
import trustme

from nursling.engine.errors import (
    ConnectFailed,
    ConnectTimeout,
    NurslingError,
    RemoteProtocolError,
    Truncated,
    UpstreamError,
)
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Source, Upstream
from nursling.transports.secret import Secret
from nursling.transports.upstream import pool
from nursling.transports.upstream.client import Endpoint, HttpClient, HttpUpstream, url_of
from nursling.transports.upstream.exchange import Exchange
from nursling.transports.upstream.pool import Origin, Pool, dialer
from nursling.transports.wire import Wire, wire_of
from support.fake_upstream import (
    Close,
    FakeUpstream,
    Reset,
    Send,
    Stall,
    Step,
    Wait,
    fake_upstream,
    head,
    stream,
    whole,
)


CANARY = "sk-canary-4711"
BODY = {"model": "m", "messages": []}


def upstream_at(
    client: HttpClient,
    base_url: str,
    *,
    limits: Limits | None = None,
    headers: Mapping[str, Secret] | None = None,
    max_streams: int = 0,
    proxy: Secret | None = None,
) -> HttpUpstream:
    return client.upstream(
        Endpoint(
            provider="p",
            base_url=base_url,
            api_key=Secret(CANARY),
            headers=headers or {},
            max_streams=max_streams,
            proxy=proxy,
            limits=limits or Limits(),
        )
    )


@pytest.fixture(params=["direct", "proxied"])
def way(request: pytest.FixtureRequest) -> str:
    """How the upstream is reached: the transport that carries the request is ours, or httpx's."""
    return str(request.param)


def at(way: str, client: HttpClient, base_url: str, **more: Any) -> HttpUpstream:
    """An upstream that is reached in this way: as a proxy of HTTP, it is its own."""
    proxy = Secret("{0.scheme}://{0.netloc}".format(urlsplit(base_url)))
    return upstream_at(client, base_url, proxy=proxy if way == "proxied" else None, **more)


async def drain(source: Source) -> bytes:
    data = b""
    while piece := await source.read_some():
        data += piece
    return data


async def read_into(data: list[bytes], upstream: Upstream) -> None:
    async with upstream.open(BODY, path="/x", stream=True) as source:
        while piece := await source.read_some():
            data.append(piece)


async def ask(upstream: Upstream, *, streamed: bool = True) -> tuple[int, bytes]:
    async with upstream.open(BODY, path="/chat/completions", stream=streamed) as source:
        return source.status, await drain(source)


async def test_a_stream_arrives_as_it_was_sent(way: str) -> None:
    """Chunks arrive while the upstream is still writing, and the request is what was asked."""
    more = trio.Event()
    async with (
        fake_upstream(stream(b"data: 1\n\n", Wait(more), b"data: 2\n\n")) as server,
        HttpClient() as client,
    ):
        upstream = at(way, client, server.base_url, headers={"X-Org": Secret("o")})
        async with upstream.open(BODY, path="/chat/completions", stream=True) as source:
            assert source.status == 200
            assert source.headers["content-type"] == "text/event-stream"
            assert await source.read_some() == b"data: 1\n\n"
            more.set()
            assert await drain(source) == b"data: 2\n\n"
            assert await source.read_some() == b""
    (asked,) = server.requests
    assert (asked.method, asked.target) == ("POST", "/v1/chat/completions")
    assert asked.absolute == (way == "proxied")
    assert asked.json() == BODY
    assert asked.headers["authorization"] == f"Bearer {CANARY}"
    assert asked.headers["accept"] == "text/event-stream"
    assert asked.headers["accept-encoding"] == "identity"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["user-agent"].startswith("nursling/")
    assert asked.headers["x-org"] == "o"
    assert asked.headers["host"] == f"127.0.0.1:{server.port}"


async def test_one_read_is_one_batch() -> None:
    """Chunks that came in one read leave as one piece, which the pipeline carries as one batch."""
    burst = b"".join(b"%x\r\n%b\r\n" % (8, b"data: %d\n" % at) for at in range(9))
    script: list[Step] = [*stream(end=False), Send(burst + b"0\r\n\r\n")]
    async with (
        fake_upstream(script) as server,
        HttpClient() as client,
        upstream_at(client, server.base_url).open(BODY, path="/x", stream=True) as source,
    ):
        assert len(await source.read_some()) == 9 * 8


async def test_a_whole_answer_is_asked_as_such(way: str) -> None:
    """A whole reply asks for JSON, and comes with its status whatever that is."""
    async with (
        fake_upstream(whole({"a": 1}, 429, retry_after="7")) as server,
        HttpClient() as client,
        at(way, client, server.base_url + "/").open(
            BODY, path="/responses", stream=False
        ) as source,
    ):
        assert source.status == 429
        assert source.headers["retry-after"] == "7"
        assert await drain(source) == b'{"a": 1}'
    assert server.requests[0].headers["accept"] == "application/json"
    assert server.requests[0].target == "/v1/responses"


async def test_connections_are_used_again(way: str) -> None:
    """An answer read to its end leaves its connection for the next request."""
    async with fake_upstream(whole({}), stream(b"x")) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url)
        for _ in range(4):
            await ask(upstream)
        assert server.connections == 1
    await server.wait_closed()


BROKEN: dict[str, tuple[list[Step], bytes, type[NurslingError], str]] = {
    "no answer": ([Close()], b"", Truncated, "before it answered"),
    "reset at once": ([Reset()], b"", Truncated, "broke"),
    "half a head": (
        [Send(b"HTTP/1.1 200 OK\r\nconte"), Close()],
        b"",
        Truncated,
        "before it answered",
    ),
    "no HTTP": (
        [Send(b"SSH-2.0-OpenSSH_9\r\n\r\n"), Close()],
        b"",
        RemoteProtocolError,
        "speak HTTP",
    ),
    "an endless head": (
        [head(200, {f"x-{n}": "y" * 1000 for n in range(200)})],
        b"",
        RemoteProtocolError,
        "too long|too big|speak HTTP",
    ),
    "switching protocols": (
        [head(101, {"upgrade": "websocket", "connection": "upgrade"})],
        b"",
        RemoteProtocolError,
        "another protocol|speak HTTP",
    ),
    "redirect": (
        [head(307, {"location": f"http://127.0.0.1:1/?k={CANARY}", "content-length": "0"})],
        b"",
        UpstreamError,
        "redirects",
    ),
    "compressed": (
        whole(b"\x1f\x8b", content_encoding="gzip"),
        b"",
        RemoteProtocolError,
        "compressed",
    ),
    "cut inside the stream": (
        [*stream(b"data: 1\n\n", end=False), Close()],
        b"data: 1\n\n",
        Truncated,
        "inside its reply",
    ),
    "cut inside a chunk": (
        [*stream(end=False), Send(b"ff\r\nda"), Close()],
        b"da",
        Truncated,
        "inside its reply",
    ),
    "shorter than it said": (
        [head(200, {"content-length": "9"}), Send(b"123"), Close()],
        b"123",
        Truncated,
        "inside its reply",
    ),
    "broken chunks": (
        [*stream(end=False), Send(b"2\r\nab\r\nzz\r\n"), Close()],
        b"ab",
        RemoteProtocolError,
        "speak HTTP",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
async def test_what_is_broken_is_named(way: str, case: str) -> None:
    """Each way to break off is its own error, after the good bytes, and shows no secret."""
    script, good, error, words = BROKEN[case]
    async with fake_upstream(script) as server:
        async with HttpClient() as client:
            upstream = at(way, client, server.base_url + f"?key={CANARY}")
            data: list[bytes] = []
            with pytest.raises(error, match=words) as caught:
                await read_into(data, upstream)
            assert b"".join(data) == good
            assert CANARY not in str(caught.value)
            assert upstream._limiter.borrowed_tokens == 0
        await server.wait_closed()


async def test_a_reset_inside_a_stream_is_a_truncation(way: str) -> None:
    """RST is not a clean end, whatever came before it."""
    gate = trio.Event()
    script = stream(b"data: 1\n\n", Wait(gate), Reset(), end=False)
    async with (
        fake_upstream(script) as server,
        HttpClient() as client,
        at(way, client, server.base_url).open(BODY, path="/x", stream=True) as source,
    ):
        assert await source.read_some() == b"data: 1\n\n"
        gate.set()
        with pytest.raises(Truncated, match="broke"):
            await source.read_some()


async def test_a_body_may_end_with_its_connection(way: str) -> None:
    """Without length and chunks, the end of the connection is the end of the body."""
    opened = head(200, {"content-type": "text/event-stream"})
    script: list[Step] = [opened, Send(b"data: 1\n\n"), Close()]
    async with fake_upstream(script) as server, HttpClient() as client:
        assert await ask(at(way, client, server.base_url)) == (200, b"data: 1\n\n")


async def test_interim_answers_are_passed_over(way: str) -> None:
    """100 and 103 are no answers; their headers are not the answer's."""
    script = [head(100), head(103, {"link": "x"}), *whole(b"{}")]
    async with (
        fake_upstream(script) as server,
        HttpClient() as client,
        at(way, client, server.base_url).open(BODY, path="/x", stream=False) as source,
    ):
        assert source.status == 200
        assert "link" not in source.headers
        assert await drain(source) == b"{}"


async def test_repeated_headers_are_joined(way: str) -> None:
    """A header that comes twice is one, with a comma."""
    answer = Send(b"HTTP/1.1 200 OK\r\nA: 1\r\na: 2\r\nContent-Length: 0\r\n\r\n")
    async with (
        fake_upstream([answer]) as server,
        HttpClient() as client,
        at(way, client, server.base_url).open(BODY, path="/x", stream=True) as source,
    ):
        assert source.headers["a"] == "1, 2"


async def test_trailers_are_no_headers(way: str) -> None:
    """What comes behind the last chunk does not change the head."""
    script = [*stream(b"x", end=False), Send(b"0\r\nX-Late: 1\r\n\r\n")]
    async with (
        fake_upstream(script) as server,
        HttpClient() as client,
        at(way, client, server.base_url).open(BODY, path="/x", stream=True) as source,
    ):
        assert await drain(source) == b"x"
        assert "x-late" not in source.headers


@pytest.mark.parametrize(
    "surplus",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2",
        b"garbage",
    ],
)
async def test_bytes_behind_an_answer_spoil_the_connection(way: str, surplus: bytes) -> None:
    """An answer that nobody asked for cannot become the next request's."""
    first = Send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1" + surplus)
    async with fake_upstream([first], whole(b"2")) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url)
        assert await ask(upstream) == (200, b"1")
        assert await ask(upstream) == (200, b"2")
        assert server.connections == 2


@pytest.mark.parametrize("answer", [whole(b"1", connection="close"), whole(b"1")])
async def test_a_connection_that_the_upstream_closes_is_not_used_again(
    way: str,
    answer: list[Step],
) -> None:
    """With `connection: close`, or closed while idle, the next request gets a new connection."""
    script = [*answer, Close()]
    async with fake_upstream(script, whole(b"2")) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url)
        assert await ask(upstream) == (200, b"1")
        await server.wait_closed()
        assert await ask(upstream) == (200, b"2")


async def test_cookies_are_not_kept(way: str) -> None:
    """What one answer sets is not sent with the next request, which may be another user's."""
    async with fake_upstream(whole({}, set_cookie="a=b")) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url)
        await ask(upstream)
        await ask(upstream)
    assert "cookie" not in server.requests[1].headers


async def test_the_environment_has_no_say(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy in the environment is not used."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    async with fake_upstream(whole({})) as server, HttpClient() as client:
        assert await ask(at(way, client, server.base_url)) == (200, b"{}")


async def test_nothing_is_logged(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """Httpx's own log of URLs is off, even where the root logger shows everything below it."""
    caplog.set_level(logging.INFO)
    async with fake_upstream(whole({})) as server, HttpClient() as client:
        await ask(at(way, client, server.base_url + f"?key={CANARY}"))
    assert server.requests[0].target == f"/v1/chat/completions?key={CANARY}"
    assert caplog.text == ""


async def leave_while_reading(server: FakeUpstream, upstream: HttpUpstream) -> None:
    with trio.fail_after(5), trio.CancelScope() as scope:
        async with upstream.open(BODY, path="/x", stream=True) as source:
            await source.read_some()
            scope.cancel()
            await source.read_some()


async def leave_between_reads(server: FakeUpstream, upstream: HttpUpstream) -> None:
    async with upstream.open(BODY, path="/x", stream=True) as source:
        await source.read_some()


async def leave_by_exception(server: FakeUpstream, upstream: HttpUpstream) -> None:
    with pytest.raises(KeyError):
        async with upstream.open(BODY, path="/x", stream=True):
            raise KeyError


@pytest.mark.parametrize("leave", [leave_while_reading, leave_between_reads, leave_by_exception])
async def test_leaving_closes_the_connection(way: str, leave: object) -> None:
    """However the block is left, the upstream sees its connection closed, and the token is back."""
    script = stream(b"data: 1\n\n", Stall(), end=False)
    async with fake_upstream(script) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url, max_streams=1)
        for _ in range(2):
            await leave(server, upstream)  # type: ignore[operator]  # one of the three above
            await server.wait_closed()
        assert upstream._limiter.borrowed_tokens == 0


def tied() -> list[object]:
    return [one for one in gc.get_objects() if isinstance(one, httpx.Request | Exchange)]


async def read_to_the_end(server: FakeUpstream, upstream: HttpUpstream) -> None:
    await ask(upstream)


@pytest.mark.parametrize(
    ("leave", "script"),
    [
        (read_to_the_end, stream(b"x")),
        (leave_while_reading, stream(b"x", Stall(), end=False)),
        (leave_between_reads, stream(b"x", Stall(), end=False)),
    ],
)
async def test_a_request_that_is_over_leaves_no_garbage(
    way: str, leave: object, script: list[Step]
) -> None:
    """What a request held, its body above all, is free at its end: no collector has to find it."""
    async with fake_upstream(script) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url)
        gc.collect()
        others = {id(one) for one in tied()}  # of tests before, whose failures may be kept
        gc.disable()
        try:
            await leave(server, upstream)  # type: ignore[operator]  # one of the three above
            await trio.lowlevel.checkpoint()  # Trio's loop holds what it has raised last
            kept = [one for one in tied() if id(one) not in others]
        finally:
            gc.enable()
        assert not kept


async def test_waiting_for_the_head_is_cancellable() -> None:
    """An upstream that never answers is left at once when the request is cancelled."""
    async with fake_upstream([Stall()]) as server, HttpClient() as client:
        upstream = upstream_at(client, server.base_url, limits=Limits(connect_timeout=0.05))
        with trio.move_on_after(0.3) as scope:
            await ask(upstream)
        assert scope.cancelled_caught  # and not ConnectTimeout: connected it is
        await server.wait_closed()
        assert upstream._limiter.borrowed_tokens == 0


async def test_nobody_there() -> None:
    """A refused connection is `ConnectFailed`; where to and why is for the operator only."""
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    async with HttpClient() as client:
        upstream = upstream_at(client, f"http://127.0.0.1:{port}/v1?key={CANARY}")
        with pytest.raises(ConnectFailed) as caught:
            await ask(upstream)
    assert caught.value.message == "no connection to 'p'"
    assert caught.value.detail == f"cannot connect to 127.0.0.1:{port}: Connection refused"
    assert str(port) not in str(caught.value.info())
    assert upstream._limiter.borrowed_tokens == 0


async def test_an_early_refusal_is_read(way: str) -> None:
    """An upstream that answers 413 and closes before it has read the request is still heard."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def refuse(connection: trio.SocketStream) -> None:
        async with connection:
            await connection.receive_some(1000)
            await connection.send_all(b"HTTP/1.1 413 Too Big\r\nContent-Length: 2\r\n\r\n{}")
            await connection.send_eof()
            while await connection.receive_some():
                pass

    big = {"model": "m", "text": "x" * 3_000_000}
    async with trio.open_nursery() as nursery, HttpClient() as client:
        nursery.start_soon(trio.serve_listeners, refuse, listeners)
        upstream = at(way, client, f"http://127.0.0.1:{port}")
        async with upstream.open(big, path="/x", stream=True) as source:
            assert source.status == 413
        nursery.cancel_scope.cancel()


async def test_a_large_request_arrives_whole(way: str) -> None:
    """A request of several writes is put together by the upstream as it was."""
    big = {"model": "m", "text": "é" * 400_000}
    async with (
        fake_upstream(whole({})) as server,
        HttpClient() as client,
        at(way, client, server.base_url).open(big, path="/x", stream=False),
    ):
        pass
    assert server.requests[0].json() == big


async def test_the_cap_of_a_provider_queues_within_the_connect_clock(way: str) -> None:
    """With all slots taken a request waits for one; `connect_timeout` ends the wait by name."""
    script = stream(b"data: 1\n\n", Stall(), end=False)
    async with fake_upstream(script) as server, HttpClient() as client:
        limits = Limits(connect_timeout=0.1)
        upstream = at(way, client, server.base_url, max_streams=1, limits=limits)
        async with upstream.open(BODY, path="/x", stream=True):
            with pytest.raises(ConnectTimeout, match=r"no free slot at 'p' within 0\.1 s"):
                await ask(upstream)
        async with upstream.open(BODY, path="/x", stream=True) as source:
            assert source.status == 200
        assert upstream._limiter.borrowed_tokens == 0


async def test_all_endpoints_of_a_provider_share_its_cap() -> None:
    """The cap belongs to the provider's name; after a reload the next request sets the new one."""
    script = stream(b"data: 1\n\n", Stall(), end=False)
    async with fake_upstream(script) as server, HttpClient() as client:
        limits = Limits(connect_timeout=0.1)
        one = upstream_at(client, server.base_url, max_streams=1, limits=limits)
        same = upstream_at(client, server.origin, max_streams=1, limits=limits)
        more = upstream_at(client, server.base_url, max_streams=2, limits=limits)
        async with one.open(BODY, path="/x", stream=True):
            with pytest.raises(ConnectTimeout):
                await ask(same)
            async with more.open(BODY, path="/x", stream=True) as source:
                assert source.status == 200


@pytest.mark.fault(36, "V")
async def test_no_line_break_gets_into_a_head() -> None:
    """A header value that would be two headers is refused, whoever made it."""
    async with fake_upstream(whole({})) as server, HttpClient() as client:
        upstream = upstream_at(client, server.base_url, headers={"X": Secret("a\r\nY: b")})
        with pytest.raises(ValueError, match="a line break"):
            await ask(upstream)
    assert server.requests == []


class Refusing(trio.abc.Stream):
    """A connection that was cut for writing, with an answer that came before."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise trio.BrokenResourceError

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        answer, self.answer = self.answer, b""
        return answer

    async def aclose(self) -> None:
        pass


async def test_an_answer_before_the_cut_is_heard() -> None:
    """When writing fails, what the upstream has said before is still read."""

    async def dial(origin: Origin) -> Wire:
        return wire_of(Refusing(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n"))

    async with HttpClient(dial) as client:
        assert (await ask(upstream_at(client, "http://h.example")))[0] == 413


async def test_a_cut_without_an_answer_is_a_truncation() -> None:
    """When writing fails and nothing was said, the connection is what broke."""

    async def dial(origin: Origin) -> Wire:
        return wire_of(Refusing(b""))

    async with HttpClient(dial) as client:
        with pytest.raises(Truncated, match="before it answered"):
            await ask(upstream_at(client, "http://h.example"))


@pytest.mark.fault(2, "S")
async def test_a_connection_that_does_not_come(autojump_clock: trio.testing.MockClock) -> None:
    """Name lookup, TCP and TLS together have `connect_timeout`."""

    async def never(origin: Origin) -> Wire:
        await trio.sleep_forever()
        raise AssertionError

    client = HttpClient(never)
    upstream = upstream_at(client, "https://h.example/v1")
    with pytest.raises(ConnectTimeout, match="no connection to 'p' within 10 s"):
        await ask(upstream)
    assert trio.current_time() == 10
    assert upstream._limiter.borrowed_tokens == 0


async def test_a_request_that_is_not_taken(autojump_clock: trio.testing.MockClock) -> None:
    """An upstream that does not read its request is given up after `write_timeout`."""
    ours, _ = trio.testing.lockstep_stream_pair()  # takes nothing that nobody reads

    async def dial(origin: Origin) -> Wire:
        return wire_of(ours)

    upstream = upstream_at(HttpClient(dial), "https://h.example/v1")
    with pytest.raises(ConnectTimeout, match="took no byte of the request for 30 s"):
        await ask(upstream)
    assert trio.current_time() == 30


async def test_idle_connections_are_let_go(autojump_clock: trio.testing.MockClock) -> None:
    """A connection that was idle for `keep_alive` is closed, not used."""
    dialled: list[
        trio.StapledStream[trio.testing.MemorySendStream, trio.testing.MemoryReceiveStream]
    ]
    dialled = []

    async def dial(origin: Origin) -> Wire:
        ours, theirs = trio.testing.memory_stream_pair()
        await theirs.send_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        dialled.append(theirs)
        return wire_of(ours)

    async with HttpClient(dial) as client:
        upstream = upstream_at(client, "http://h.example")
        await ask(upstream)
        await dialled[0].send_all(b"HTTP/1.1 201 OK\r\nContent-Length: 0\r\n\r\n")
        assert (await ask(upstream))[0] == 201
        assert len(dialled) == 1
        await trio.sleep(Limits().keep_alive + 0.1)
        assert (await ask(upstream))[0] == 200
        assert len(dialled) == 2
        first = await dialled[0].receive_some()
        while first:
            first = await dialled[0].receive_some()
    await dialled[1].receive_some()


async def test_idle_connections_are_no_hoard() -> None:
    """Past `max_idle` the oldest idle connection is closed."""

    async def dial(origin: Origin) -> Wire:
        raise AssertionError

    idle = Pool(dial, Limits(max_idle=2))
    pairs = [trio.testing.memory_stream_pair() for _ in range(3)]
    wires = [wire_of(ours) for ours, _ in pairs]
    assert [idle.give_back(("http", "h", 80), wire) for wire in wires] == [None, None, wires[0]]
    assert await idle.take(("http", "h", 80)) is wires[2]
    await idle.aclose()
    assert await pairs[1][1].receive_some() == b""


async def test_idle_connections_expire_without_traffic(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Each origin's connections are closed `keep_alive` after their use, though nobody asks."""

    async def dial(origin: Origin) -> Wire:
        raise AssertionError

    idle = Pool(dial, Limits(keep_alive=4))
    closed: dict[str, float] = {}

    async def watch(name: str, theirs: trio.abc.Stream) -> None:
        assert isinstance(theirs, trio.StapledStream)
        assert await theirs.receive_some() == b""
        closed[name] = trio.current_time()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(idle.sweep)
        start = trio.current_time()
        async with trio.open_nursery() as watching:
            for name, delay in (("old", 0.0), ("old again", 1.0), ("new", 1.0), ("late", 9.0)):
                await trio.sleep(delay)
                ours, theirs = trio.testing.memory_stream_pair()
                idle.give_back(("http", name.split()[0], 80), wire_of(ours))
                watching.start_soon(watch, name, theirs)
        nursery.cancel_scope.cancel()
    assert closed == {
        "old": start + 4,
        "old again": start + 5,
        "new": start + 6,
        "late": start + 15,
    }


async def test_tls() -> None:
    """HTTPS works with a trusted certificate and says the reason with another; idle reuse too."""
    authority = trustme.CA()
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(server_side)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with fake_upstream(whole(b"{}"), tls=server_side) as server:
        async with HttpClient(dialer(trusting)) as client:
            upstream = upstream_at(client, server.base_url)
            assert await ask(upstream) == (200, b"{}")
            assert await ask(upstream) == (200, b"{}")
            assert server.connections == 1
        async with HttpClient() as client:
            with pytest.raises(ConnectFailed, match=r"^no connection to 'p'$") as caught:
                await ask(upstream_at(client, server.base_url))
    assert "the certificate does not verify: unable to" in caught.value.detail


async def test_tls_towards_a_plain_server() -> None:
    """A server that does not speak TLS is `ConnectFailed`, not a crash."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]

    async def plain(connection: trio.SocketStream) -> None:
        async with connection:
            await connection.send_all(b"HTTP/1.1 400 Bad\r\n\r\n")
            await connection.receive_some()

    async with trio.open_nursery() as nursery, HttpClient() as client:
        nursery.start_soon(trio.serve_listeners, plain, listeners)
        with pytest.raises(ConnectFailed, match=r"^no connection to 'p'$") as caught:
            await ask(upstream_at(client, f"https://127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()
    assert caught.value.detail.startswith(f"no TLS with 127.0.0.1:{port}: WRONG_VERSION")


async def test_a_canceled_handshake_leaves_no_socket() -> None:
    """Cancelling inside the TLS handshake closes the connection."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    closed = trio.Event()

    async def silent(connection: trio.SocketStream) -> None:
        while await connection.receive_some():
            pass
        closed.set()

    async with trio.open_nursery() as nursery, HttpClient() as client:
        nursery.start_soon(trio.serve_listeners, silent, listeners)
        upstream = upstream_at(
            client, f"https://127.0.0.1:{port}", limits=Limits(connect_timeout=0.1)
        )
        with pytest.raises(ConnectTimeout):
            await ask(upstream)
        with trio.fail_after(5):
            await closed.wait()
        nursery.cancel_scope.cancel()


async def test_the_list_of_models(way: str) -> None:
    """`GET /models` gives ids; errors, wrong shapes and silence have words."""
    listed = whole({"object": "list", "data": [{"id": "a"}, {"id": "b"}]})
    broken = [whole({}, 401), whole({"data": 1}), whole(b"<html>")]
    async with fake_upstream(listed, *broken, [Stall()]) as server, HttpClient() as client:
        upstream = at(way, client, server.base_url, limits=Limits(connect_timeout=0.2))
        assert await upstream.models() == ["a", "b"]
        assert server.requests[0].method == "GET"
        with pytest.raises(UpstreamError, match="status 401"):
            await upstream.models()
        for _ in range(2):
            with pytest.raises(RemoteProtocolError, match="is not one"):
                await upstream.models()
        with pytest.raises(ConnectTimeout, match=r"no list of models within 0\.2 s"):
            await upstream.models()


@pytest.mark.parametrize(
    ("base", "path", "url"),
    [
        ("http://h/v1", "/x", "http://h/v1/x"),
        ("http://h/v1/", "/x", "http://h/v1/x"),
        ("http://h", "/x", "http://h/x"),
        ("https://h/a?api-version=1", "/x", "https://h/a/x?api-version=1"),
    ],
)
def test_urls(base: str, path: str, url: str) -> None:
    """The format's path goes behind the base's path and before its query."""
    assert url_of(base, path) == url


def test_what_a_failed_connection_is_called() -> None:
    """The reason is found wherever Trio and OpenSSL have put it."""
    grouped = OSError("all attempts failed")
    grouped.__cause__ = ExceptionGroup("x", [ConnectionRefusedError(111, "x")])
    assert pool.reason_of(grouped) == "Connection refused"
    assert pool.reason_of(socket.gaierror(-2, "x")) == "the name is unknown"
    assert pool.reason_of(ssl.SSLError(1, "x")) == "the handshake failed"
    assert pool.reason_of(ValueError("x")) == "the connection broke"
    assert pool.reason_of(None) == "the connection broke"
