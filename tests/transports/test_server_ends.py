"""The guarded server on real sockets of the loopback: bugs, limits, TLS, and how it stops."""

from __future__ import annotations

import random
import socket
import ssl
import struct
from collections import Counter
from pathlib import Path
from typing import Never

import h11
import msgspec
import pytest
import trio
import trustme
from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from structlog.testing import capture_logs

from nursling.engine.events import Ended, Finished
from nursling.engine.limits import Limits
from support.gateway import (
    ScriptedEngine,
    Served,
    World,
    post,
    read_to_end,
    read_until,
    serving,
    until,
)
from support.hosting import (
    BEGUN,
    CHAT,
    FOREVER,
    HEAD,
    HELLO_END,
    QUICK,
    flood,
    hosting,
    idle_connections,
)
from support.toy import HELLO, Script, Step, line, words


# Bugs and limits.


async def test_a_bug_in_one_request_is_its_500() -> None:
    """An unexpected exception is one client's 500; the server lives."""
    async with hosting(m=Script(HELLO), bad=RuntimeError("canary")) as (_, served):
        answer = await served.raw(post({"model": "bad"}, head=b"Connection: close\r\n"))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"canary" not in answer
        assert await served.ok()


async def test_an_exception_below_the_app_ends_its_connection_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever a connection's own machinery raises, the others do not notice."""
    from nursling.transports.http import protocol  # noqa: PLC0415 - patched here

    real = protocol.Protocol._create_stream

    async def broken(self: protocol.Protocol, request: h11.Request) -> None:
        if request.target == b"/boom":
            raise RuntimeError("canary")
        await real(self, request)

    monkeypatch.setattr(protocol.Protocol, "_create_stream", broken)
    with capture_logs() as logs:
        async with hosting() as (_, served):
            assert await served.raw(b"GET /boom HTTP/1.1\r\n" + HEAD + b"\r\n") in {b"", b"<reset>"}
            assert await served.ok()
    (entry,) = logs
    assert (entry["event"], entry["log_level"]) == ("connection_bug", "error")
    assert entry["bug"].startswith("RuntimeError\n")
    assert "canary" not in entry["bug"].replace('RuntimeError("canary")', "")


async def test_an_app_that_raises_cuts_its_answer() -> None:
    """A foreign app that breaks half-way leaves a cut body, not a good end."""

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> Never:
        if scope["type"] != "http":
            raise ValueError
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    async with serving(app, QUICK) as served:
        answer = await served.raw(b"GET / HTTP/1.1\r\n" + HEAD + b"\r\n")
    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("answers", [True, False])
async def test_the_lifespan_of_an_app(answers: bool) -> None:
    """An app may have a lifespan, or return from it at once."""
    seen: list[str] = []
    dones: list[ASGISendEvent] = [
        {"type": "lifespan.startup.complete"},
        {"type": "lifespan.shutdown.complete"},
    ]

    async def app(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        if scope["type"] != "lifespan":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        for done in dones if answers else []:
            message = await receive()
            seen.append(message["type"])
            await send(done)

    async with serving(app, QUICK) as served:
        assert await served.ok()
    assert seen == (["lifespan.startup", "lifespan.shutdown"] if answers else [])


@pytest.mark.fault(21, "R")
async def test_connections_are_capped() -> None:
    """Past `max_connections` one is told 503 at once; when one leaves there is room."""
    limits = Limits(max_connections=2, head_timeout=5, close_timeout=0.3)
    async with hosting(limits) as (_, served):
        first, second = await served.connect(), await served.connect()
        for stream in (first, second):
            await stream.send_all(b"GET /livez HTTP/1.1\r\n" + HEAD + b"\r\n")
            await read_until(stream, b"ok\n")
        answer = await served.raw(b"")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"retry-after: 1\r\n" in answer
        assert b"\r\nx-request-id: req_" in answer
        assert b"\r\nx-nursling-overhead-ms: " in answer
        await first.aclose()
        await trio.sleep(0.1)
        assert await served.ok()
        await second.aclose()


async def test_out_of_descriptors_is_survived(caplog: pytest.LogCaptureFixture) -> None:
    """Without descriptors accepting waits; with them again everything goes on."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with hosting() as (_, served):
        assert await served.ok()
        client = socket.socket()
        client.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (client.fileno() + 1, hard))
        holes: list[socket.socket] = []
        try:
            with pytest.raises(OSError, match="Too many open files"):
                holes.extend(socket.socket() for _ in range(client.fileno()))
            assert client.connect_ex(("127.0.0.1", served.port)) != 0
            await until(lambda: "EMFILE" in caplog.text)
        finally:
            for hole in [*holes, client]:
                hole.close()
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        await trio.sleep(0.15)
        assert await served.ok()


# The end.


async def test_stop_without_work_is_immediate() -> None:
    """Without requests at work the server ends at once, idle connections or not."""
    async with hosting() as (_, served):
        stream = await served.connect()
        await stream.send_all(b"GET /livez HTTP/1.1\r\n" + HEAD + b"\r\n")
        await read_until(stream, b"ok\n")
        started = trio.current_time()
        served.stop.set()
        assert await read_to_end(stream) == b""
        assert trio.current_time() - started < 0.2
        await stream.aclose()
        with pytest.raises(OSError, match="all attempts"):
            await served.connect()


@pytest.mark.fault(40, "R")
async def test_drain_lets_streams_end_well() -> None:
    """Streams at work run on; meanwhile /readyz says 503 and new work is refused."""
    script = Script(BEGUN, 0.3, line(Finished(0, "stop"), Ended()))
    async with hosting(Limits(drain_timeout=5, heartbeat=0), m=script) as (world, served):
        stream = await served.connect()
        await stream.send_all(post(CHAT))
        await read_until(stream, b"data: ")
        served.stop.set()
        await trio.sleep(0.05)
        answer = await served.raw(b"GET /readyz HTTP/1.1\r\n" + HEAD + b"\r\n")
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in answer.lower()
        refused = await served.raw(post(CHAT))
        assert b"draining" in refused
        rest = await read_to_end(stream)
        assert rest.endswith(b"0\r\n\r\n")
        assert b"Ended" in rest
        await stream.aclose()
    assert "ok" in [record.outcome for record in world.records]


@pytest.mark.fault(40, "R")
async def test_drain_that_is_over_ends_streams_with_an_error() -> None:
    """At `drain_timeout` an open stream is told so, in its format, and ends."""
    async with hosting(m=Script(BEGUN, FOREVER)) as (_, served):
        stream = await served.connect()
        await stream.send_all(post(CHAT))
        await read_until(stream, b"data: ")
        started = trio.current_time()
        served.stop.set()
        rest = await read_to_end(stream)
        assert QUICK.drain_timeout * 0.9 < trio.current_time() - started < 1
        assert b'"code":"draining"' in rest
        assert rest.endswith(b"0\r\n\r\n")
        await stream.aclose()


@pytest.mark.fault(17, "R")
@pytest.mark.fault(41, "R")
async def test_stop_with_100_clients_that_do_not_read() -> None:
    """Stuck readers cannot hold the server: it is gone within the drain and a little."""
    limits = Limits(drain_timeout=0.5, close_timeout=0.3, write_timeout=60, heartbeat=0)
    world = World(limits, m=flood(count=80))
    async with trio.open_nursery() as nursery:
        async with serving(world.app, limits, on_drained=world.app.end_streams) as served:
            streams = [await served.connect() for _ in range(100)]
            for stream in streams:
                await stream.send_all(post(CHAT))
            await until(lambda: world.app.engine.gate.open == 100)
            await trio.sleep(0.2)
            started = trio.current_time()
            served.stop.set()
            await until(lambda: world.app.engine.gate.open == 0)
            assert trio.current_time() - started < limits.drain_timeout + 5
        assert trio.current_time() - started < limits.drain_timeout + 5
        for stream in streams:
            nursery.start_soon(stream.aclose)
    world.assert_clean()


@pytest.mark.fault(41, "R")
async def test_now_ends_at_once() -> None:
    """The second signal does not wait for the drain."""
    limits = Limits(drain_timeout=60, write_timeout=60, close_timeout=0.3, heartbeat=0)
    world = World(limits, m=flood(), n=Script(BEGUN, FOREVER))
    async with serving(world.app, limits, on_drained=world.app.end_streams) as served:
        stuck, waiting = await served.connect(), await served.connect()
        await stuck.send_all(post(CHAT))
        await waiting.send_all(post({"model": "n", "stream": True}))
        await until(lambda: world.app.engine.gate.open == 2)
        started = trio.current_time()
        served.stop.set()
        await trio.sleep(0.1)
        assert world.app.engine.gate.open == 2
        served.now.set()
        assert b"draining" in await read_to_end(waiting)
        await until(lambda: world.app.engine.gate.open == 0)
        assert trio.current_time() - started < 2
        await stuck.aclose()
        await waiting.aclose()
    world.assert_clean()


async def test_cancelled_from_outside() -> None:
    """An embedder that cancels the server is not kept waiting by a stuck client."""
    limits = Limits(write_timeout=60, close_timeout=0.3, heartbeat=0)
    world = World(limits, m=flood())
    with trio.move_on_after(10) as outer:
        async with serving(world.app, limits) as served:
            stream = await served.connect()
            await stream.send_all(post(CHAT))
            await until(lambda: world.app.engine.gate.open == 1)
            await trio.sleep(0.1)
            started = trio.current_time()
            outer.cancel()
            await trio.sleep_forever()
    assert trio.current_time() - started < 2
    await trio.aclose_forcefully(stream)
    world.assert_clean()


# TLS.


async def test_tls_speaks_http_1_1_only(tmp_path: Path) -> None:
    """Over TLS the same holds; ALPN offers http/1.1 and nothing else."""
    authority = trustme.CA()
    cert = authority.issue_cert("localhost")
    cert.private_key_and_cert_chain_pem.write_to_path(tmp_path / "cert.pem")
    context = ssl.create_default_context()
    authority.configure_trust(context)
    context.set_alpn_protocols(["h2", "http/1.1"])
    world = World(QUICK, m=Script(HELLO), big=flood())
    async with serving(world.app, QUICK, tls_cert=tmp_path / "cert.pem") as served:
        assert served.url.startswith("https://127.0.0.1:")

        async def connect() -> trio.SSLStream[trio.SocketStream]:
            return trio.SSLStream(
                await served.connect(), context, server_hostname="localhost", https_compatible=True
            )

        stream = await connect()
        await stream.send_all(post(CHAT, head=b"Connection: close\r\n"))
        assert (await read_to_end(stream)).endswith(b"0\r\n\r\n")
        assert stream.selected_alpn_protocol() == "http/1.1"
        await trio.aclose_forcefully(stream)

        stuck = await connect()
        await stuck.send_all(post({"model": "big", "stream": True}))
        await until(lambda: world.app.engine.gate.open == 1)
        await until(lambda: world.app.engine.gate.open == 0)
        await trio.aclose_forcefully(stuck)

        plain = await served.raw(b"GET / HTTP/1.1\r\n\r\n")  # no handshake
        assert b"HTTP" not in plain
    world.assert_clean()


# All at once.


async def test_a_storm_of_clients_leaves_nothing() -> None:
    """200 clients that read, reset, half-close or never finish their body: nothing is left."""
    rng = random.Random(7)  # noqa: S311 - a test draws
    drip: list[Step] = [line(*words("y" * 200)), 0.01]
    script = Script(BEGUN, 0.02, *drip * 5, HELLO_END)
    limits = msgspec.structs.replace(QUICK, max_streams=50, head_timeout=2)
    seen: Counter[bytes] = Counter()

    async def client(served: Served) -> None:
        await trio.sleep(rng.random() * 0.5)
        stream = await served.connect()
        data = post({"model": "m", "stream": rng.random() < 0.5}, head=b"Connection: close\r\n")
        await stream.send_all(data if rng.random() < 0.9 else data[:-5])
        how = rng.choice(["read", "read", "reset", "close", "half"])
        if how == "read":
            seen[(await read_to_end(stream)).partition(b"\r\n")[0]] += 1
        else:
            await trio.sleep(rng.random() * 0.1)
        if how == "reset":
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if how == "half":
            await stream.send_eof()
            await read_to_end(stream)
        await stream.aclose()

    async with hosting(limits, m=script) as (world, served):
        async with trio.open_nursery() as nursery:
            for _ in range(200):
                nursery.start_soon(client, served)
        await idle_connections(world, served)
        assert await served.ok()
    assert {line[:13] for line in seen} <= {b"HTTP/1.1 200 ", b"HTTP/1.1 503 ", b"HTTP/1.1 408 "}
    assert seen[b"HTTP/1.1 200 OK"] > 20
    ends = Counter(record.outcome for record in world.records)
    assert set(ends) <= {"ok", "client_gone", "overloaded", "request_timeout"}
    assert ends["client_gone"]


# What we rely on in Hypercorn.


def test_overridden_names_exist() -> None:
    """The guard overrides private names of one pinned release: they are all still there."""
    from hypercorn.protocol.h11 import H11Protocol  # noqa: PLC0415 - the one test that looks inside

    for name in (
        "_check_protocol", "_create_stream", "_maybe_recycle", "_send_error_response",
        "_send_h11_event", "handle", "stream_send",
    ):  # fmt: skip
        assert callable(getattr(H11Protocol, name))


def test_nothing_global_is_patched() -> None:
    """A program's own Hypercorn is as it was."""
    import hypercorn.protocol  # noqa: PLC0415 - the one test that looks inside
    import hypercorn.trio.run  # noqa: PLC0415 - the one test that looks inside
    import hypercorn.trio.tcp_server  # noqa: PLC0415 - the one test that looks inside

    assert vars(hypercorn.trio.run)["TCPServer"].__module__ == "hypercorn.trio.tcp_server"
    assert vars(hypercorn.protocol)["H11Protocol"].__module__ == "hypercorn.protocol.h11"
    assert ScriptedEngine(QUICK).limits is QUICK
