"""What a client asks is what the upstream is asked, in its own words; the rest is named.

Every body that leaves for an upstream is valid by OpenAI's schema.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from nursling.engine.errors import BadRequest, NotSupported
from nursling.engine.formats.base import Call, Rendered
from support.asks import ABSENT, ASKS, Ask
from support.formats import FORMATS
from support.schemas import check_chat_request, check_responses_request
from support.scripted import Api, Json


def body_of(ask: Ask, client: Api, *, stream: bool = False) -> Json | None:
    said = getattr(ask, client)
    if said is None:
        return None
    start: Json = {"model": "m", "stream": stream}
    if client == "chat":
        return {**start, "messages": [{"role": "user", "content": "Hi."}], **said}
    return {**start, **({} if "prompt" in said else {"input": "Hi."}), **said}


def ask_upstream(body: Json, client: Api, upstream: Api, *, stream: bool = False) -> Rendered:
    request = FORMATS[client].parse_request(body)
    return FORMATS[upstream].render_request(request, Call(model="up", stream=stream))


def check(upstream: Api, body: Json) -> None:
    """Valid by the schema of the upstream's API."""
    plain = json.loads(json.dumps(body))
    (check_chat_request if upstream == "chat" else check_responses_request)(plain)


CROSSINGS = [
    pytest.param(ask, client, id=f"{ask.name.replace(' ', '-')}-from-{client}")
    for ask in ASKS
    for client in ("chat", "responses")
    if getattr(ask, client) is not None
]


@pytest.mark.parametrize(("ask", "client"), CROSSINGS)
def test_the_same_format_is_sent_on_as_it_came(ask: Ask, client: Api) -> None:
    """Towards its own API a request keeps every field, known to us or not."""
    body = body_of(ask, client)
    assert body is not None
    rendered = ask_upstream(body, client, client)
    assert rendered.body == {**body, "model": "up"}
    assert rendered.dropped == []


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("ask", "client"), CROSSINGS)
def test_the_other_format_is_asked_the_same(ask: Ask, client: Api, stream: bool) -> None:
    """Translated, or refused by its name, or dropped and listed; never changed, never lost."""
    upstream: Api = "responses" if client == "chat" else "chat"
    body = body_of(ask, client, stream=stream)
    assert body is not None
    param = getattr(ask, f"refused_in_{upstream}")
    if param:
        with pytest.raises((BadRequest, NotSupported)) as caught:
            ask_upstream(body, client, upstream, stream=stream)
        assert caught.value.param == param
        assert caught.value.status == (501 if param == "n" else 400)
        return
    rendered = ask_upstream(body, client, upstream, stream=stream)
    check(upstream, rendered.body)
    assert rendered.body["model"] == "up"
    assert bool(rendered.body.get("stream")) == stream
    own = getattr(ask, f"in_{upstream}")
    expected: dict[str, Any] = own if own is not None else getattr(ask, upstream) or {}
    for field, value in expected.items():
        if value is ABSENT:
            assert field not in rendered.body
        else:
            assert rendered.body.get(field) == value, field
    for name in getattr(ask, f"dropped_in_{upstream}"):
        assert name in rendered.dropped


def test_a_stream_from_chat_is_always_asked_for_usage() -> None:
    """The gateway counts, whether the client asked or not; a provider's switch turns it off."""
    request = FORMATS["chat"].parse_request({"model": "m", "stream": True, **CHAT_HI})
    ask = FORMATS["chat"].render_request
    assert ask(request, Call(model="up", stream=True)).body["stream_options"] == {
        "include_usage": True
    }
    off = ask(request, Call(model="up", stream=True, include_usage=False)).body
    assert "include_usage" not in (off.get("stream_options") or {})


CHAT_HI: Json = {"messages": [{"role": "user", "content": "Hi."}]}


@pytest.mark.parametrize("upstream", ["chat", "responses"])
@pytest.mark.parametrize("client", ["chat", "responses"])
def test_a_folded_reply_is_asked_as_a_stream(client: Api, upstream: Api) -> None:
    """`fold` asks for a stream although the client wants a body."""
    said: Json = CHAT_HI if client == "chat" else {"input": "Hi."}
    request = FORMATS[client].parse_request({"model": "m", **said})
    rendered = FORMATS[upstream].render_request(request, Call(model="up", stream=True))
    assert rendered.body["stream"] is True
    check(upstream, rendered.body)


@pytest.mark.parametrize("upstream", ["chat", "responses"])
@pytest.mark.parametrize("client", ["chat", "responses"])
def test_the_preface_comes_first(client: Api, upstream: Api) -> None:
    """A model's description is said to the model before everything else."""
    said: Json = CHAT_HI if client == "chat" else {"input": "Hi.", "instructions": "Be brief."}
    request = FORMATS[client].parse_request({"model": "m", **said})
    call = Call(model="up", stream=False, preface="You are a horse.")
    body = FORMATS[upstream].render_request(request, call).body
    check(upstream, body)
    text = json.dumps(body)
    first = body["messages"][0]["content"] if upstream == "chat" else body["instructions"]
    assert str(first).startswith("You are a horse.")
    assert text.count("You are a horse.") == 1
    assert client == "chat" or "Be brief." in text
