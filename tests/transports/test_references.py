"""A client that names earlier items by their ids, over upstreams that keep none."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from nursling.transports import config_from_dict, open_engine
from nursling.transports.engine import Engine
from nursling.transports.http.app import create_app
from support.gateway import Call
from support.kinds import KINDS
from support.scripted import ChatReply, Json, ResponsesReply


QUESTION = {"role": "user", "content": "What is the weather?"}
SAID = {"role": "assistant", "content": "The 🐎 horse.", "reasoning_content": "Hm."}
CALL = {
    "id": "call_tokyo",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city":"Tokyo"}'},
}
RESULT = {"type": "function_call_output", "call_id": "call_tokyo", "output": "Sunny."}


class Source:
    def __init__(self, body: bytes) -> None:
        self.status = 200
        self.headers: Mapping[str, str] = {}
        self._body = body

    async def read_some(self) -> bytes:
        body, self._body = self._body, b""
        return body


class Scripted:
    """An upstream that says one thing, and remembers what it was asked."""

    def __init__(self, reply: ChatReply | ResponsesReply) -> None:
        self.reply = reply
        self.cut = False
        self.asked: list[Json] = []

    @asynccontextmanager
    async def open(
        self, body: dict[str, Any], *, path: str, stream: bool
    ) -> AsyncGenerator[Source, None]:
        self.asked.append(body)
        data = self.reply.stream() if stream else self.reply.whole()
        yield Source(data[: len(data) // 2] if self.cut else data)


class World:
    """A gateway with a model of either kind, `chat` and `responses`, and two clients."""

    def __init__(self, engine: Engine, upstreams: dict[str, Scripted]) -> None:
        self.engine = engine
        self.upstreams = upstreams
        self._app = create_app(engine)

    @property
    def sent(self) -> list[Json]:
        """The messages that the chat upstream got last."""
        messages: list[Json] = self.upstreams["chat"].asked[-1]["messages"]
        return messages

    async def ask(
        self, *given: Json, key: str = "alice", model: str = "chat", **more: Any
    ) -> tuple[int, Json]:
        """Ask; the status, and the Response or the error."""
        headers = {"content-type": "application/json", "x-api-key": key}
        call = Call("POST", "/v1/responses", headers, "http", {})
        call.send(json.dumps({"model": model, "input": list(given), **more}).encode())
        await call.run(self._app)
        if not more.get("stream") or call.status != 200:
            return call.status, call.json
        last = call.body.split(b"\n\n")[-2]
        final: Json = json.loads(last.partition(b"data: ")[2])["response"]
        return call.status, final


def kind(name: str) -> Any:
    return next(one for one in KINDS if one.name == name)


@asynccontextmanager
async def world(reply: ChatReply, **limits: Any) -> AsyncGenerator[World, None]:
    upstreams = {"chat": Scripted(reply), "responses": Scripted(kind("text").responses)}
    config = config_from_dict(
        {
            "keys": [{"name": name, "secret": name} for name in ("alice", "bob")],
            "providers": {"responses": {"api": "openai-responses"}},
            "models": [{"id": name, "provider": name} for name in upstreams],
            "limits": limits,
        },
        environ={},
    )
    async with open_engine(config, upstreams=upstreams) as engine:
        yield World(engine, upstreams)


def refs(response: Json) -> list[Json]:
    return [{"type": "item_reference", "id": item["id"]} for item in response["output"]]


each_way = pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])


@each_way
async def test_what_was_said_is_named(stream: bool) -> None:
    """Reasoning, words and a call: by reference the upstream is asked as if they had been sent."""
    reply = ChatReply(({**SAID, "tool_calls": [CALL]},), finish="tool_calls")
    async with world(reply) as at:
        _, first = await at.ask(QUESTION, stream=stream)
        assert [item["type"] for item in first["output"]] == [
            "reasoning",
            "message",
            "function_call",
        ]
        status, _ = await at.ask(QUESTION, *refs(first), RESULT, stream=stream)
        assert status == 200
        assert at.sent == [
            QUESTION,
            {**SAID, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_tokyo", "content": "Sunny."},
        ]
        by_reference = at.sent
        await at.ask(QUESTION, *first["output"], RESULT, stream=stream)
        assert at.sent == by_reference


@each_way
async def test_another_upstream_is_told_what_it_cannot_know(stream: bool) -> None:
    """A Responses upstream gets the items that are ours, and references that may be its own."""
    async with world(ChatReply((SAID,))) as at:
        _, first = await at.ask(QUESTION, stream=stream)
        own = {"type": "item_reference", "id": "msg_of_its_own"}
        await at.ask(own, *refs(first), QUESTION, stream=stream, model="responses")
        asked = at.upstreams["responses"].asked[-1]
    assert asked["input"] == [own, *first["output"], QUESTION]


async def refused(at: World, response: Json, **more: Any) -> bool:
    """Whether the first item of a Response is no longer known; asserts how that is said."""
    status, body = await at.ask(QUESTION, *refs(response), QUESTION, **more)
    if status == 200:
        return False
    assert (status, body["error"]["param"]) == (400, "input[1]")
    assert "store = false" in body["error"]["message"]
    return True


@each_way
@pytest.mark.parametrize(("store", "known"), [(False, False), (True, True), (None, True)])
async def test_nothing_is_kept_against_a_clients_will(
    stream: bool, store: bool | None, known: bool
) -> None:
    """`store: false` means that it will name nothing later; unset, or true, that it may."""
    async with world(ChatReply((SAID,))) as at:
        _, first = await at.ask(QUESTION, stream=stream, store=store)
        assert await refused(at, first) is not known
        assert (at.engine.recall.size > 0) is known


@each_way
async def test_an_item_is_for_its_own_key(stream: bool) -> None:
    """An id that another key was given is an unknown id."""
    async with world(ChatReply((SAID,))) as at:
        _, first = await at.ask(QUESTION, stream=stream, key="alice")
        assert await refused(at, first, key="bob")
        assert not await refused(at, first, key="alice")


@each_way
async def test_switched_off(stream: bool) -> None:
    """With `max_recall_bytes = 0` there is no memory of anything."""
    async with world(ChatReply((SAID,)), max_recall_bytes=0) as at:
        _, first = await at.ask(QUESTION, stream=stream)
        assert await refused(at, first)


@each_way
async def test_a_reply_that_was_cut_short_is_kept(stream: bool) -> None:
    """An incomplete reply has ended well: its client may go on from there."""
    async with world(ChatReply((SAID,), finish="length")) as at:
        _, first = await at.ask(QUESTION, stream=stream)
        assert first["status"] == "incomplete"
        assert not await refused(at, first)


@each_way
async def test_a_reply_that_failed_is_not_kept(stream: bool) -> None:
    """Of a reply that broke nothing is remembered."""
    async with world(ChatReply((SAID,))) as at:
        at.upstreams["chat"].cut = True
        await at.ask(QUESTION, stream=stream)
        assert len(at.engine.recall) == 0


@each_way
async def test_an_upstream_of_the_same_api_keeps_its_own(stream: bool) -> None:
    """Ids that are the upstream's are its business: it may forget them, or refuse them, itself."""
    async with world(ChatReply((SAID,))) as at:
        _, first = await at.ask(QUESTION, stream=stream, model="responses")
        assert len(at.engine.recall) == 0
        await at.ask(*refs(first), QUESTION, stream=stream, model="responses")
        assert at.upstreams["responses"].asked[-1]["input"] == [*refs(first), QUESTION]
        assert await refused(at, first)


async def test_it_is_known_before_the_end_has_left() -> None:
    """The client may ask again while the last bytes of the first answer are being written."""
    async with world(ChatReply((SAID,))) as at:
        known: list[int] = []
        headers = {"content-type": "application/json", "x-api-key": "alice"}
        call = Call("POST", "/v1/responses", headers, "http", {})
        call.send(json.dumps({"model": "chat", "input": "Hi", "stream": True}).encode())
        take = call._take

        async def look(message: Any) -> None:
            if b"response.completed" in message.get("body", b""):
                known.append(len(at.engine.recall))
            await take(message)

        call._take = look  # type: ignore[method-assign]  # to look at the moment of the write
        await call.run(at._app)
    assert known == [2]
