"""Each oddity of `corpus/ODDITIES.md`, by name: what the server does, and what its client gets."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest

from nursling.engine.errors import NurslingError
from nursling.engine.events import Ended, Event, Failed
from nursling.engine.limits import DEFAULT_LIMITS
from support import reading
from support.corpus import payloads, recording
from support.formats import FORMATS, stream_to, through, whole_to
from support.kinds import Said
from support.laws import check_failed_stream, check_responses_stream
from support.schemas import check_error
from support.scripted import Api, Json


@dataclass
class Got:
    """What a client got of a recording."""

    said: list[Said]
    final: Json
    data: bytes


ASKED: dict[str, Json] = {
    "chat": {"messages": [{"role": "user", "content": "Hello."}]},
    "responses": {"input": "Hello."},
}


def decode(name: str, client: Api, **asked: Any) -> tuple[Any, list[list[Event]]]:
    one = recording(name)
    request = FORMATS[client].parse_request({"model": "m", **ASKED[client], **asked})
    return request, through(FORMATS[one.api].decoder(request, DEFAULT_LIMITS), [one.data])


def streamed(name: str, client: Api, *, n: int = 1, usage: bool | None = None, **asked: Any) -> Got:
    if client == "chat" and usage:
        asked["stream_options"] = {"include_usage": True}
    if n > 1:
        asked["n"] = n
    request, batches = decode(name, client, stream=True, **asked)
    data = stream_to(client, request, batches)
    if client == "chat":
        said, final = reading.chat_stream(data, n=n, usage=usage)
        return Got(said, final, data)
    one, final = reading.responses_stream(data)
    return Got([one], final, data)


def whole(name: str, client: Api, **asked: Any) -> Got:
    request, batches = decode(name, client, **asked)
    data = whole_to(client, request, batches)
    if client == "chat":
        said, final = reading.chat_whole(data)
        return Got(said, final, data)
    one, final = reading.responses_whole(data)
    return Got([one], final, data)


def broken(name: str, client: Api) -> tuple[NurslingError, Json]:
    """The error with which a whole reply fails, and the one inside a stream."""
    request, batches = decode(name, client, stream=True)
    _, inside = check_failed_stream(stream_to(client, request, batches), client)
    request, batches = decode(name, client)
    with pytest.raises(NurslingError) as caught:
        whole_to(client, request, batches)
    return caught.value, inside


each_client = pytest.mark.parametrize("client", ["chat", "responses"], ids=lambda api: f"to-{api}")


# The ones a gateway gets wrong most easily, by their number.


@pytest.mark.fault(14, "V")
@each_client
@pytest.mark.parametrize("name", ["transformers/chat-stream", "llama-server/responses-stream"])
def test_1_a_stream_without_done_ends_well(name: str, client: Api) -> None:
    """The finish reason, or the terminal event, and then a clean end: a good reply."""
    assert b"[DONE]" not in recording(name).data
    assert streamed(name, client).said[0].finish == "stop"


@each_client
def test_1_a_responses_stream_with_done_ends_well(client: Api) -> None:
    """LiteLLM adds `[DONE]` to Responses: nothing follows from it."""
    assert b"[DONE]" in recording("litellm/llama-server-responses-stream").data
    assert streamed("litellm/llama-server-responses-stream", client).said[0].texts


@each_client
@pytest.mark.parametrize("case", ["too-long", "empty-messages", "no-messages"])
def test_2_an_empty_event_stream_is_an_error(case: str, client: Api) -> None:
    """200 and no byte of body: the upstream's fault, not an empty answer."""
    name = f"llama-cpp-python/chat-stream-{case}"
    assert recording(name).data == b""
    error, _ = broken(name, client)
    assert (error.status, error.code, error.fault) == (502, "upstream_truncated", "upstream")


@pytest.mark.fault(14, "V")
@each_client
def test_3_done_without_a_finish_reason_is_a_cut_answer(client: Api) -> None:
    """An interrupted llama_cpp.server says `[DONE]`, but gave no reason: truncated."""
    name = "llama-cpp-python/noise-chat-stream-interrupted"
    assert recording(name).data.endswith(b"data: [DONE]\n\n")
    error, _ = broken(name, client)
    assert error.code == "upstream_truncated"


def test_4_a_server_that_falls_silent_has_not_ended() -> None:
    """Nothing in the bytes is an end: only the idle clock ends that wait."""
    one = recording("llama-server/noise-chat-stream-server-terminated")
    assert one.connection_end == "timeout"
    request = FORMATS["chat"].parse_request({"model": "m", **ASKED["chat"]})
    decoder = FORMATS["chat"].decoder(request, DEFAULT_LIMITS)
    events = decoder.feed(one.data)
    assert events
    assert not decoder.finished
    assert not [event for event in events if isinstance(event, Ended | Failed)]


@pytest.mark.fault(14, "V")
@each_client
@pytest.mark.parametrize("server", ["transformers", "llama-server", "llama-cpp-python", "mlx-lm"])
def test_5_a_killed_upstream_is_a_cut_answer(server: str, client: Api) -> None:
    """Also over HTTP/1.0, where the transport cannot tell: there is no finish reason."""
    error, _ = broken(f"{server}/noise-chat-stream-server-killed", client)
    assert (error.status, error.code) == (502, "upstream_truncated")


@each_client
def test_6_an_error_string_inside_a_stream(client: Api) -> None:
    """`data: {"error": "text"}`: the words reach the client as an error of its own API."""
    error, inside = broken("transformers/chat-stream-zero", client)
    assert "must be greater than 0" in error.message
    assert "must be greater than 0" in inside["message"]
    assert error.fault == "upstream"


def test_6_an_error_that_broke_its_own_json() -> None:
    """A quote in the message makes the frame no JSON: it is the upstream's error all the same."""
    form = FORMATS["chat"]
    request = form.parse_request({"model": "m", **ASKED["chat"]})
    [*_, last] = form.decoder(request, DEFAULT_LIMITS).feed(b'data: {"error": "say "no""}\n\n')
    assert isinstance(last, Failed)
    assert last.error.code == "upstream_error"
    assert 'say "no' in last.error.message


@pytest.mark.parametrize("case", ["mock-responses-stream", "mock-responses-stream-length"])
def test_7_an_event_stream_with_status_500(case: str) -> None:
    """The words are read out of the frame, and the status is the upstream's."""
    one = recording(f"litellm/{case}")
    info = FORMATS["responses"].read_error(one.status, one.lower_headers, one.data)
    assert (info.status, info.message, info.code) == (500, "Error processing stream start", "500")


@each_client
def test_8_response_failed_as_the_first_event(client: Api) -> None:
    """A stream that only fails is an error with a status, before anything was sent."""
    error, inside = broken("litellm/transformers-responses-stream", client)
    assert error.status >= 400
    assert error.fault == "upstream"
    assert inside["message"]


@pytest.mark.parametrize("server", ["mock", "llama-server"])
def test_9_the_second_choice_without_a_finish_reason(server: str) -> None:
    """LiteLLM forgets it: the choice ends like a good one, since the reply does."""
    name = f"litellm/{server}-chat-stream-n2"
    reasons = {
        choice["index"]: choice["finish_reason"]
        for chunk in payloads(recording(name).data)
        for choice in chunk["choices"]
        if choice.get("finish_reason")
    }
    assert reasons.keys() == {0}
    got = streamed(name, "chat", n=2)
    assert [said.finish for said in got.said] == [reasons[0], "stop"]


@pytest.mark.fault(31, "V")
@each_client
def test_10_a_tool_call_cut_by_the_token_limit(client: Api) -> None:
    """Half a call arrives as what it is, and the finish says that it is not whole."""
    for got in (
        streamed("llama-server/chat-stream-tool-cut", client),
        whole("llama-server/chat-whole-tool-cut", client),
    ):
        assert [(call.name, call.text) for call in got.said[0].calls] == [("get_weather", "{")]
        assert got.said[0].finish == "length"


@each_client
@pytest.mark.parametrize(
    "name", ["transformers/chat-stream-tool-cut", "mlx-lm/chat-stream-tool-cut"]
)
def test_10_a_tool_call_of_which_nothing_is_left(name: str, client: Api) -> None:
    """`length` with nothing at all is an empty answer that was cut."""
    [said] = streamed(name, client).said
    assert (said.calls, said.finish) == ((), "length")


@each_client
def test_10_a_whole_tool_call_cut_to_null(client: Api) -> None:
    """`content: null` and nothing else is valid everywhere."""
    assert whole("mlx-lm/chat-whole-tool-cut", client).said[0].finish == "length"


def test_10_a_cut_tool_call_that_became_a_plain_500() -> None:
    """`Internal Server Error` as plain text is an error with those words."""
    one = recording("transformers/chat-whole-tool-cut")
    info = FORMATS["chat"].read_error(one.status, one.lower_headers, one.data)
    assert info.status == 500
    assert "Internal Server Error" in info.message
    check_error(FORMATS["responses"].render_error(info))


# Chat, row by row.


def test_comments_before_the_first_chunk() -> None:
    """mlx_lm says `: keepalive 1/16` while it reads the prompt: no event, no error."""
    assert recording("mlx-lm/chat-stream-think").data.startswith(b": keepalive")
    assert streamed("mlx-lm/chat-stream-think", "chat").said[0].thought


@pytest.mark.parametrize("server", ["mlx-lm", "transformers", "llama-server", "llama-cpp-python"])
def test_the_role_comes_once_however_the_server_says_it(server: str) -> None:
    """Role on every delta, alone, with null content: the client sees it once, first."""
    streamed(f"{server}/chat-stream", "chat")


def test_usage_on_the_finish_chunk_comes_alone() -> None:
    """The report on the last choice comes apart from it, and only if it was asked for."""
    usage = streamed("transformers/chat-stream", "chat", usage=True).said[0].usage
    assert usage[0] > 0
    streamed("transformers/chat-stream", "chat", usage=False)


def test_usage_beside_an_empty_delta_comes_alone() -> None:
    """LiteLLM puts an empty choice beside it: the client's usage chunk has none."""
    got = streamed("litellm/llama-server-chat-stream-usage", "chat", usage=True)
    assert got.said[0].usage == (20, 46, 19, 0)


def test_no_usage_at_all_is_none_for_chat_and_zero_for_responses() -> None:
    """llama_cpp.server ignores stream_options: nothing is made up but what a schema demands."""
    got = streamed("llama-cpp-python/chat-stream-usage", "chat", usage=None)
    assert got.said[0].usage == (0, 0, 0, 0)
    assert streamed("llama-cpp-python/chat-stream-usage", "responses").final["usage"]


@each_client
def test_a_whole_call_in_one_delta_with_ascii_escapes(client: Api) -> None:
    """Hugging Face transformers writes arguments in ASCII escapes: JSON text passes as it is."""
    [call] = streamed("transformers/chat-stream-tools", client).said[0].calls
    assert json.loads(call.text)["city"] == "Z\u00fcrich"


@each_client
def test_ids_without_the_usual_prefix_are_kept(client: Api) -> None:
    """llama-server's call ids have no `call_`: a tool result must find them again."""
    sent = payloads(recording("llama-server/chat-stream-tools").data)
    ids = [
        call["id"]
        for chunk in sent
        for choice in chunk["choices"]
        for call in choice["delta"].get("tool_calls", ())
        if "id" in call
    ]
    [call] = streamed("llama-server/chat-stream-tools", client).said[0].calls
    assert {call.id} == set(ids)


@each_client
def test_repeated_ids_and_names_and_doubled_calls(client: Api) -> None:
    """llama_cpp.server repeats both with each delta, and says all of it as function_call too."""
    one = recording("llama-cpp-python/chat-stream-tool-forced").data
    assert one.count(b'"function_call": {') > 1
    [call] = streamed("llama-cpp-python/chat-stream-tool-forced", client).said[0].calls
    assert call.name == "get_weather"
    assert "get_weather" not in call.text


@each_client
@pytest.mark.parametrize("server", ["transformers", "llama-server", "mlx-lm"])
def test_reasoning_by_either_name_stays_apart_from_text(server: str, client: Api) -> None:
    """`reasoning_content` and `reasoning` are the same, and no text."""
    [said] = streamed(f"{server}/chat-stream-think", client).said
    assert said.thought
    assert said.texts
    assert said.thought not in "".join(said.texts)


def test_think_tags_in_the_text_stay_text() -> None:
    """llama_cpp.server leaves `<think>` in the content: we do not guess."""
    assert "<think>" in streamed("llama-cpp-python/chat-stream-think", "chat").said[0].texts[0]


def test_interleaved_choices() -> None:
    """llama-server's n = 2 comes in turns: each choice has its own words and reason."""
    got = streamed("llama-server/chat-stream-n2", "chat", n=2)
    assert [said.finish for said in got.said] == ["length", "length"]
    assert all(said.texts for said in got.said)


def test_extra_fields_of_a_logprob_pass_to_the_same_format() -> None:
    """llama-server's token `id` is no business of ours, and reaches a chat client."""
    got = streamed("llama-server/chat-stream-logprobs", "chat", logprobs=True)
    assert got.said[0].logprobs
    for choice in got.final["choices"]:
        assert all("id" in entry for entry in choice["logprobs"]["content"])


@each_client
@pytest.mark.parametrize("server", ["llama-cpp-python", "llama-server"])
def test_logprobs_without_bytes_are_valid(server: str, client: Api) -> None:
    """`bytes: null`, which Responses does not know, becomes what it does."""
    asked: Json = (
        {"logprobs": True}
        if client == "chat"
        else {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
    )
    got = streamed(f"{server}/noise-chat-stream-logprobs", client, **asked)
    assert got.said[0].logprobs


def test_unknown_fields_of_a_chunk_pass_to_the_same_format() -> None:
    """llama-server's `timings` reach a chat client, streamed and whole."""
    assert b'"timings":{' in streamed("llama-server/chat-stream", "chat").data
    assert "timings" in whole("llama-server/chat-whole", "chat").final


def test_a_bare_uuid_as_id_is_kept() -> None:
    """The ids of transformers have no prefix: same format, same id."""
    [first, *_] = payloads(recording("transformers/chat-stream").data)
    assert streamed("transformers/chat-stream", "chat").final["id"] == first["id"]


@pytest.mark.fault(6, "V")
@pytest.mark.parametrize(
    ("name", "status", "words"),
    [
        ("mlx-lm/chat-whole-bad-model", 404, "cached snapshot"),
        ("transformers/chat-whole-unknown-field", 422, "no_such_field"),
        ("transformers/chat-bad-json", 422, "json"),
        ("llama-cpp-python/chat-bad-json", 500, "Internal Server Error"),
        ("llama-server/chat-whole-too-long", 400, "context"),
        ("llama-cpp-python/chat-whole-too-long", 400, "context"),
    ],
)
def test_errors_in_every_shape(name: str, status: int, words: str) -> None:
    """A string, a `detail`, plain text, numbers as codes: a valid error with the same status."""
    one = recording(name)
    info = FORMATS["chat"].read_error(one.status, one.lower_headers, one.data)
    assert info.status == status
    assert info.code is None or isinstance(info.code, str)
    for form in FORMATS.values():
        assert check_error(form.render_error(info))["error"]["message"]
    assert words.lower() in info.message.lower()


# Responses.


def test_created_at_as_a_float() -> None:
    """A fractional date of transformers becomes whole seconds, which clients can parse."""
    final = streamed("transformers/responses-stream", "responses").final
    assert isinstance(final["created_at"], int)


@each_client
def test_no_indexes_and_no_sequence_numbers_at_all(client: Api) -> None:
    """llama-server names items by id only: indexes and numbers are made anew, without a gap."""
    assert b"output_index" not in recording("llama-server/responses-stream-tools-two").data
    assert len(streamed("llama-server/responses-stream-tools-two", client).said[0].calls) == 2


@each_client
def test_one_id_for_two_messages_and_an_index_taken_twice(client: Api) -> None:
    """A message that is closed, opened and closed again beside two calls is one."""
    [said] = streamed("transformers/responses-stream-tools-two", client).said
    assert [call.name for call in said.calls] == ["get_weather", "get_weather"]
    assert [text for text in said.texts if text] == ["Let me look at both."]


@each_client
def test_a_lone_call_at_index_1_and_an_empty_message_behind_it(client: Api) -> None:
    """The call is what arrives, and the reply ends with `tool_calls`."""
    [said] = streamed("transformers/responses-stream-tools", client).said
    assert len(said.calls) == 1
    assert said.finish == "tool_calls"


@each_client
def test_arguments_only_in_done(client: Api) -> None:
    """Hugging Face transformers streams no argument deltas: the tail is supplied from `.done`."""
    assert b"arguments.delta" not in recording("transformers/responses-stream-tools").data
    [call] = streamed("transformers/responses-stream-tools", client).said[0].calls
    assert json.loads(call.text)["city"] == "Z\u00fcrich"


@each_client
def test_reasoning_without_part_events(client: Api) -> None:
    """Deltas of reasoning without `content_part.added`: the part is opened by its first delta."""
    for server in ("transformers", "llama-server"):
        assert streamed(f"{server}/responses-stream-think", client).said[0].thought


def test_an_empty_seal_is_none() -> None:
    """llama-server's `encrypted_content: ""` seals nothing."""
    assert streamed("llama-server/responses-stream-think", "responses").said[0].sealed == ()


def test_a_created_response_of_three_fields_is_completed() -> None:
    """llama-server's `response.created` is nearly empty: the client's is whole."""
    got = streamed("llama-server/responses-stream", "responses")
    first = check_responses_stream(got.data, status=None)[0]["response"]
    assert first["tools"] == []
    assert first["model"]


def test_an_id_of_four_hundred_characters_is_kept() -> None:
    """LiteLLM's id must come back with `previous_response_id`."""
    [first, *_] = payloads(recording("litellm/llama-server-responses-stream").data)
    got = streamed("litellm/llama-server-responses-stream", "responses")
    assert got.final["id"] == first["response"]["id"]
    assert len(got.final["id"]) > 400


@each_client
@pytest.mark.parametrize("server", ["transformers", "llama-server"])
def test_a_cut_that_is_called_completed(server: str, client: Api) -> None:
    """No `incomplete_details`, so nothing tells a cut: it stays what the server said."""
    assert streamed(f"{server}/responses-stream-length", client).said[0].finish == "stop"


@pytest.mark.fault(7, "V")
def test_a_stream_although_none_was_asked() -> None:
    """A stream that came when `stream` was absent is folded: the client gets a body."""
    one = recording("transformers/responses-stream-default")
    assert one.streamed
    assert whole("transformers/responses-stream-default", "responses").said[0].texts
    assert whole("transformers/responses-stream-default", "chat").said[0].texts
