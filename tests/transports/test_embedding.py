"""The library, as another Trio program uses it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from nursling.engine.errors import (
    BadRequest,
    Draining,
    LocalProtocolError,
    ModelNotFound,
    Overloaded,
    UpstreamError,
)
from nursling.engine.events import Ended, PartDelta
from nursling.engine.pipeline import Source
from nursling.engine.request import Message, Request, Text
from nursling.transports import Config, ConfigError, config_from_dict, open_engine
from nursling.transports.http.app import create_app
from nursling.transports.upstream.demo import DemoSource, DemoUpstream
from support.fake_upstream import DONE, Stall, fake_upstream, stream, whole


DEMO = {"models": [{"id": "demo", "provider": "demo"}]}
CHAT = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
CHUNK = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{"role":"assistant","content":"hello"},"finish_reason":null}]}\n\n'
)
LAST = (
    b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":'
    b'[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
)


def config(tables: dict[str, Any] = DEMO) -> Config:
    return config_from_dict(tables, environ={})


def at(base_url: str, **more: Any) -> Config:
    return config({"providers": {"p": {"base_url": base_url, "wildcard": True}}, **more})


async def text_of(reply: Any) -> str:
    return "".join([event.text async for event in reply if isinstance(event, PartDelta)])


class Mine:
    """An upstream of the embedding program: the demo, without its pauses, and counted."""

    def __init__(self) -> None:
        self.open_now = 0
        self.asked: list[dict[str, Any]] = []
        self._demo = DemoUpstream(0)

    @asynccontextmanager
    async def open(
        self, body: dict[str, Any], *, path: str, stream: bool
    ) -> AsyncGenerator[DemoSource, None]:
        self.asked.append(body)
        self.open_now += 1
        try:
            async with self._demo.open(body, path=path, stream=stream) as source:
                yield source
        finally:
            self.open_now -= 1


@pytest.mark.parametrize(
    "request_",
    [
        {"model": "demo", "messages": [{"role": "user", "content": "Hi"}]},
        {"model": "demo", "input": "Hi"},
        Request(model="demo", items=[Message(role="user", content=[Text("Hi")])], stream=True),
    ],
    ids=["chat", "responses", "Request"],
)
async def test_the_example_of_the_blueprint(request_: Any) -> None:
    """A request in any known form streams events, and the message is complete at the end."""
    mine = Mine()
    async with (
        open_engine(config(), upstreams={"demo": mine}) as engine,
        engine.stream(request_) as reply,
    ):
        events = [event async for event in reply]
        message = reply.message
    assert isinstance(events[-1], Ended)
    assert message.complete
    assert message.text.startswith("Hello! I am the demo model")
    assert "".join(e.text for e in events if isinstance(e, PartDelta)) == message.text
    assert mine.asked[0]["stream"] is True
    assert mine.open_now == 0


async def test_an_upstream_of_ones_own() -> None:
    """`upstreams=` adds an object by provider name; nothing else is configured."""
    mine = Mine()
    tables = {"models": [{"id": "m", "provider": "mine", "upstream_model": "real"}]}
    async with (
        open_engine(config(tables), upstreams={"mine": mine}) as engine,
        engine.stream(CHAT | {"stream": False}) as reply,
    ):
        assert (await text_of(reply)).startswith("Hello!")
    assert mine.asked[0]["model"] == "real"
    assert not mine.asked[0].get("stream")


async def test_the_built_in_demo_is_always_there(autojump_clock: trio.testing.MockClock) -> None:
    """Without any upstream of one's own, the demo model answers."""
    async with open_engine(config()) as engine, engine.stream(CHAT | {"model": "demo"}) as reply:
        assert (await text_of(reply)).startswith("Hello!")


async def test_the_name_demo_is_not_taken() -> None:
    """A provider `demo` with an address is that address, and no longer the built-in one."""
    tables = DEMO | {"providers": {"demo": {"base_url": "http://127.0.0.1:1/v1"}}}
    async with open_engine(config(tables)) as engine:
        assert list(engine.endpoints) == ["demo"]
        engine.reload(config(DEMO))
        assert engine.endpoints == {}


async def test_over_http() -> None:
    """A configured provider is asked over HTTP, and its connection closes with the engine."""
    async with fake_upstream(stream(CHUNK, LAST, DONE)) as server:
        async with open_engine(at(server.base_url)) as engine:
            for _ in range(2):
                async with engine.stream(CHAT) as reply:
                    assert await text_of(reply) == "hello"
            assert server.connections == 1
        await server.wait_closed()


async def test_an_error_of_the_upstream_is_raised() -> None:
    """What went wrong is raised by reading, with the upstream's status and words."""
    refusal = whole({"error": {"message": "slow down", "code": "rate_limit"}}, 429)
    async with (
        fake_upstream(refusal) as server,
        open_engine(at(server.base_url)) as engine,
        engine.stream(CHAT) as reply,
    ):
        with pytest.raises(UpstreamError, match="slow down") as caught:
            await text_of(reply)
    assert (caught.value.status, caught.value.code) == (429, "rate_limit")


async def test_cancellation_passes_through_and_closes_the_upstream() -> None:
    """The program's own cancel scope ends the stream, and the upstream sees it close."""
    async with (
        fake_upstream(stream(CHUNK, Stall(), end=False)) as server,
        open_engine(at(server.base_url)) as engine,
    ):
        with trio.CancelScope() as scope:
            async with engine.stream(CHAT) as reply:
                async for event in reply:
                    if isinstance(event, PartDelta) and event.text:
                        scope.cancel()
        assert scope.cancelled_caught
        await server.wait_closed()
        assert engine.gate.open == 0


async def test_an_exception_of_the_program_is_not_dressed_up() -> None:
    """What the program raises inside the block comes out as it is, not as a group."""
    mine = Mine()
    async with open_engine(config(), upstreams={"demo": mine}) as engine:
        with pytest.raises(KeyError, match="mine"):
            async with engine.stream(CHAT | {"model": "demo"}):
                raise KeyError("mine")
    assert mine.open_now == 0


@pytest.mark.fault(59, "S")
async def test_an_exception_beside_the_engine_is_not_dressed_up() -> None:
    """What the program raises inside the engine's own block comes out as it is, too."""
    with pytest.raises(KeyError, match="mine"):
        async with open_engine(config()):
            raise KeyError("mine")


async def test_an_engine_without_traffic_keeps_no_connection() -> None:
    """An idle connection is closed by the clock, also one to an address of before a reload."""
    async with (
        fake_upstream(stream(CHUNK, LAST, DONE)) as server,
        open_engine(at(server.base_url, limits={"keep_alive": 0.05})) as engine,
    ):
        async with engine.stream(CHAT) as reply:
            await text_of(reply)
        engine.reload(at("http://127.0.0.1:9/v1"))
        with trio.fail_after(5):
            await server.wait_closed()


async def test_what_is_no_request() -> None:
    """A body of no known format, a wrong one and an unknown model are refused by name."""
    async with open_engine(config()) as engine:
        cases: list[tuple[dict[str, Any], type[Exception]]] = [
            ({"model": "demo"}, BadRequest),
            ({"model": "demo", "messages": 3}, BadRequest),
            ({"model": "gone", "input": "Hi"}, ModelNotFound),
        ]
        for body, error in cases:
            with pytest.raises(error):
                async with engine.stream(body):
                    raise AssertionError


async def test_places_are_limited() -> None:
    """Past `max_streams` the next request is refused at once, and the place comes back."""
    tables = DEMO | {"limits": {"max_streams": 1}}
    body = CHAT | {"model": "demo"}
    async with open_engine(config(tables), upstreams={"demo": Mine()}) as engine:
        async with engine.stream(body):
            with pytest.raises(Overloaded) as caught:
                async with engine.stream(body):
                    raise AssertionError
        assert (caught.value.status, caught.value.headers) == (503, {"retry-after": "1"})
        async with engine.stream(body) as reply:
            await text_of(reply)
        engine.gate.drain()
        with pytest.raises(Draining):
            async with engine.stream(body):
                raise AssertionError


async def test_the_end_of_a_drain_ends_what_is_open() -> None:
    """When the gate ends its streams, a block at work is left with `Draining`."""
    async with open_engine(config(), upstreams={"demo": Mine()}) as engine:
        stay = engine.stream(CHAT | {"model": "demo"})

        async def work() -> None:
            async with stay:
                engine.gate.end_streams()
                await trio.sleep_forever()

        with pytest.raises(Draining):
            await work()
        assert engine.gate.open == 0


async def test_a_reload_is_atomic() -> None:
    """A good configuration replaces the old one; a bad one changes nothing."""
    async with open_engine(config()) as engine:
        with pytest.raises(ConfigError):
            engine.reload(config({"models": [{"id": "x"}]}))
        assert [model["id"] for model in engine.models()] == ["demo"]
        kept = engine.resolve("demo")
        engine.reload(config({"models": [{"id": "new", "provider": "demo"}]}))
        assert [model["id"] for model in engine.models()] == ["new"]
        assert engine.config.models[0].id == "new"
        assert kept.model == "demo"
        with pytest.raises(ModelNotFound):
            engine.resolve("demo")


async def test_a_reload_changes_what_requests_may_take() -> None:
    """Other limits are in force at once: of requests at work, and of the items that are kept."""
    item = {"id": "msg_a", "type": "message", "role": "assistant", "content": []}
    async with open_engine(config()) as engine:
        engine.recall.keep("", {"output": [item]})
        assert len(engine.recall) == 1
        with engine.gate.admit():
            engine.reload(config(DEMO | {"limits": {"max_streams": 1, "max_recall_bytes": 0}}))
            with pytest.raises(Overloaded, match="1 requests"):
                engine.gate.admit().__enter__()
        assert engine.recall.off
        assert len(engine.recall) == 0


@pytest.mark.fault(60, "V")
async def test_two_engines_know_nothing_of_each_other() -> None:
    """Engines of one process share no state."""
    async with open_engine(config()) as one, open_engine(config({})) as two:
        one.gate.drain()
        assert not two.gate.draining
        assert two.models() == []
        assert dict(one.formats).keys() == {"chat", "responses"}
        assert one.endpoints == {}


@pytest.mark.fault(60, "V")
async def test_one_engine_in_two_nurseries() -> None:
    """Tasks that ask one engine at once have a reply each, and one that leaves hurts nobody."""
    mine = Mine()
    tables = {"models": [{"id": "m", "provider": "mine"}]}
    async with open_engine(config(tables), upstreams={"mine": mine}) as engine:
        texts: list[str] = []

        async def read_all() -> None:
            async with engine.stream(CHAT) as reply:
                texts.append(await text_of(reply))

        async with trio.open_nursery() as one, trio.open_nursery() as other:
            one.start_soon(read_all)
            other.start_soon(read_all)
            async with engine.stream(CHAT):
                pass
        assert len(set(texts)) == 1
        assert len(texts) == 2
        assert texts[0]
        assert engine.gate.open == 0
    assert mine.open_now == 0


@pytest.mark.fault(60, "V")
async def test_an_engine_that_is_closed_says_so() -> None:
    """Outside its block an engine is of no use, and neither is a reply outside its own."""
    async with open_engine(config()) as engine:
        async with engine.stream({**CHAT, "model": "demo"}) as reply:
            pass
        with pytest.raises(LocalProtocolError, match="this reply is closed"):
            await reply.receive()
    with pytest.raises(LocalProtocolError, match="this engine is closed"):
        async with engine.stream({**CHAT, "model": "demo"}):
            pass


def test_an_upstream_of_ones_own_is_one() -> None:
    """The demo's answer fulfils the pipeline's `Source`, as the type checker sees it."""
    source: Source = DemoSource(iter([]), "x", 0)
    assert source.status == 200


async def test_an_app_of_the_engine_asks_for_its_keys() -> None:
    """`create_app(engine)` lets in whom the engine's configuration lets in, also after a reload."""
    with_key = DEMO | {"keys": [{"name": "a", "secret": "right"}]}
    async with open_engine(config(with_key)) as engine:
        client = create_app(engine).test_client()
        assert (await client.get("/v1/models")).status_code == 401
        headers = {"authorization": "Bearer right"}
        assert (await client.get("/v1/models", headers=headers)).status_code == 200
        engine.reload(config(DEMO | {"keys": [{"name": "b", "secret": "other"}]}))
        assert (await client.get("/v1/models", headers=headers)).status_code == 401
