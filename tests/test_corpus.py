"""All recordings of real model servers through both client APIs, streamed and whole.

Nothing is lost, what leaves is valid, and every oddity of `corpus/ODDITIES.md` is met by name.
"""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from nursling.engine.errors import NurslingError
from nursling.engine.events import Event, Failed
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import Request
from support import kinds, reading
from support.conformance import cut
from support.corpus import Recording, Said, recording, recordings, said
from support.formats import FORMATS, stream_to, through, whole_to
from support.laws import check_failed_stream
from support.schemas import check_error
from support.scripted import Api


REPLIES = [one for one in recordings() if one.api != "other" and one.status < 400]
REFUSALS = [one for one in recordings() if one.api != "other" and one.status >= 400]

BROKEN: dict[str, str | None] = {
    "litellm-proxy-1.106.2/transformers-responses-stream": "server_error",
    "llama-cpp-python-0.3.36/chat-stream-empty-messages": "upstream_truncated",
    "llama-cpp-python-0.3.36/chat-stream-no-messages": "upstream_truncated",
    "llama-cpp-python-0.3.36/chat-stream-too-long": "upstream_truncated",
    "llama-cpp-python-0.3.36/noise-chat-stream-interrupted": "upstream_truncated",
    "llama-cpp-python-0.3.36/noise-chat-stream-server-killed": "upstream_truncated",
    "llama-server-0c1e570/noise-chat-stream-server-killed": "upstream_truncated",
    "llama-server-0c1e570/noise-chat-stream-server-terminated": "upstream_truncated",
    "mlx-lm-0.32.2/noise-chat-stream-server-killed": "upstream_truncated",
    "transformers-5.23.0/chat-stream-zero": None,
    "transformers-5.23.0/noise-chat-stream-server-killed": "upstream_truncated",
}
"""The recordings with status 200 that are no good reply, and the code of their failure."""
CUT_BY_THE_CLIENT = {one.name for one in REPLIES if one.connection_end == "aborted by the client"}


def name_of(one: Recording) -> str:
    return one.name


def request_of(one: Recording, client: Api, *, stream: bool) -> Request:
    """A client's request for this recording: its own, if it is a good one of this API."""
    asked: dict[str, Any] = {"model": "m", "stream": stream}
    if client == "responses":
        asked["input"] = "Hello."
    else:
        asked["messages"] = [{"role": "user", "content": "Hello."}]
        n = one.body.get("n", 1) if isinstance(one.body, dict) else 1
        asked |= {"n": n} if n != 1 else {}
        asked |= {"stream_options": {"include_usage": True}} if stream else {}
    return FORMATS[client].parse_request(asked)


def events_of(one: Recording, request: Request, chunks: list[bytes]) -> list[list[Event]]:
    return through(FORMATS[one.api].decoder(request, DEFAULT_LIMITS), chunks)


def failure_of(batches: list[list[Event]]) -> Failed | None:
    last = batches[-1][-1]
    return last if isinstance(last, Failed) else None


def choices_of(one: Recording) -> dict[int, Said]:
    return said(one) or {0: Said()}


def test_the_corpus_is_whole() -> None:
    """408 exchanges, none of which the tests below leave out."""
    assert len(recordings()) == 408
    others = [one for one in recordings() if one.api == "other"]
    assert {one.path for one in others} <= {"/v1/models", "/v1/nothing", "/v1/chat/completions"}
    assert len(REPLIES) + len(REFUSALS) + len(others) == 408


each_reply = pytest.mark.parametrize("one", REPLIES, ids=name_of)
each_client = pytest.mark.parametrize("client", ["chat", "responses"], ids=lambda api: f"to-{api}")


def assert_same_words(found: list[kinds.Said], expected: dict[int, Said], client: Api) -> None:
    """Text, reasoning and calls of every choice are those of the naive reading."""
    assert len(found) == len(expected)
    for number, mine in enumerate(found):
        theirs = expected[number]
        assert "".join(mine.texts) == theirs.text
        assert mine.thought == theirs.thought
        assert [(call.name, call.text) for call in mine.calls] == list(theirs.calls)
        ids = [call.id for call in mine.calls]
        assert all(ids)
        assert len(set(ids)) == len(ids)


@pytest.mark.fault(29, "V")
@each_client
@each_reply
def test_streamed_to_a_client(one: Recording, client: Api) -> None:
    """A lawful stream with everything in it, or a stream that says that it broke."""
    request = request_of(one, client, stream=True)
    batches = events_of(one, request, cut(one.data, (one.name, client)))
    got = stream_to(client, request, batches)
    expected = choices_of(one)
    failure = failure_of(batches)
    assert (failure is not None) == (one.name in BROKEN or one.name in CUT_BY_THE_CLIENT)
    if failure is not None:
        check_failed_stream(got, client)
        assert failure.error.code == BROKEN.get(one.name, "upstream_truncated")
        return
    if client == "chat":
        found, _ = reading.chat_stream(got, n=len(expected), usage=None)
    else:
        one_choice, _ = reading.responses_stream(got)
        found, expected = [one_choice], {0: expected[0]}
    assert_same_words(found, expected, client)


@each_client
@each_reply
def test_whole_to_a_client(one: Recording, client: Api) -> None:
    """A valid body with everything in it, or a true status."""
    request = request_of(one, client, stream=False)
    batches = events_of(one, request, cut(one.data, (one.name, client, "whole")))
    expected = choices_of(one)
    if one.name in BROKEN or one.name in CUT_BY_THE_CLIENT:
        with pytest.raises(NurslingError) as caught:
            whole_to(client, request, batches)
        assert caught.value.status >= 400
        check_error(FORMATS[client].render_error(caught.value.info()))
        return
    got = whole_to(client, request, batches)
    if client == "chat":
        found, _ = reading.chat_whole(got, n=len(expected))
    else:
        one_choice, _ = reading.responses_whole(got)
        found, expected = [one_choice], {0: expected[0]}
    assert_same_words(found, expected, client)


@each_reply
def test_the_cuts_change_nothing(one: Recording) -> None:
    """As the server cut it, at random, and byte by byte: the same events."""
    request = request_of(one, one.api, stream=True)  # type: ignore[arg-type]  # chat or responses

    def flat(chunks: list[bytes]) -> list[Event]:
        return [event for batch in events_of(one, request, chunks) for event in batch]

    whole = flat([one.data])
    assert flat(cut(one.data, one.name)) == whole
    if one.chunks is not None:
        ends = [sum(one.chunks[:number]) for number in range(len(one.chunks) + 1)]
        pairs = itertools.pairwise(ends)
        assert flat([one.data[begin:end] for begin, end in pairs]) == whole
    if len(one.data) < 3000:
        assert flat([one.data[at : at + 1] for at in range(len(one.data))]) == whole


@pytest.mark.fault(23, "V")
@pytest.mark.parametrize(
    "name",
    [
        "llama-server/chat-stream-tools",
        "llama-cpp-python/chat-stream-tool-forced",
        "mlx-lm/chat-stream-think",
        "transformers/responses-stream-tools-two",
        "llama-server/responses-stream-think",
    ],
)
def test_cut_at_every_byte(name: str) -> None:
    """Every single cut of a stream in two, one recording for each shape of stream."""
    one = recording(name)
    request = request_of(one, one.api, stream=True)  # type: ignore[arg-type]  # chat or responses
    whole = [event for batch in events_of(one, request, [one.data]) for event in batch]
    for at in range(1, len(one.data)):
        batches = events_of(one, request, [one.data[:at], one.data[at:]])
        assert [event for batch in batches for event in batch] == whole


@pytest.mark.fault(14, "V")
@each_reply
def test_a_reply_that_is_cut_anywhere_is_no_good_reply_unless_it_had_finished(
    one: Recording,
) -> None:
    """Cut after any event, a stream either fails, or had said its finish reason before."""
    if not one.streamed:
        return
    request = request_of(one, one.api, stream=True)  # type: ignore[arg-type]  # chat or responses
    ends = [at + 2 for at in range(len(one.data)) if one.data[at : at + 2] == b"\n\n"]
    for end in ends[:: max(1, len(ends) // 12)]:
        part = one.data[:end]
        batches = events_of(one, request, [part])
        finished = (
            b'"finish_reason":"' in part.replace(b": ", b":")
            or b"response.completed" in part
            or b"response.incomplete" in part
        )
        assert (failure_of(batches) is None) <= finished


@pytest.mark.parametrize("one", REFUSALS, ids=name_of)
def test_an_error_answer_is_read(one: Recording) -> None:
    """Whatever shape an upstream's error has, the client gets its words, in the client's shape."""
    form = FORMATS[one.api]
    info = form.read_error(one.status, one.lower_headers, one.data)
    assert info.status == one.status
    assert info.fault == "upstream"
    assert info.message.strip()
    words = one.data.decode()
    try:
        error = json.loads(one.data)["error"]
        words = error if isinstance(error, str) else error["message"]
    except (ValueError, KeyError, TypeError):
        pass
    else:
        assert words in info.message
        if isinstance(error, dict) and isinstance(error.get("code"), str):
            assert info.code == error["code"]
    for client in FORMATS.values():
        check_error(client.render_error(info))
