"""The test kit itself: its checkers pass what is good, and catch each way of breaking it.

A checker that lets everything through would make every other test here worthless, so each law is
broken once, on purpose.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from support import laws, reading, table
from support.conformance import lost
from support.corpus import payloads, recordings, said
from support.kinds import KINDS
from support.laws import LawBroken, check_chat_stream, check_failed_stream, check_responses_stream
from support.schemas import (
    EXCEPTIONS,
    SchemaError,
    check,
    check_chat_completion,
    check_error,
    check_response,
    check_responses_event,
    definitions_of,
    event_types,
)
from support.scripted import ChatReply, Json, ResponsesReply, frame


CACHE = {"cached_tokens": 0, "cache_write_tokens": 0}


def kind(name: str) -> Any:
    return next(kind for kind in KINDS if kind.name == name)


# Good streams pass: the scripted upstreams are as good as the real services.


@pytest.mark.parametrize(
    "one",
    # A list of parts is what some servers send, against the schema.
    [kind for kind in KINDS if kind.chat and kind.name != "several parts"],
    ids=lambda kind: kind.name,
)
def test_scripted_chat_streams_are_lawful(one: Any) -> None:
    """What plays the upstream in the conformance tests obeys the laws itself."""
    check_chat_stream(one.chat.stream(), n=one.choices, usage=True)
    check_chat_completion(json.loads(one.chat.whole()))


@pytest.mark.parametrize(
    "one", [kind for kind in KINDS if kind.responses], ids=lambda kind: kind.name
)
def test_scripted_responses_streams_are_lawful(one: Any) -> None:
    """Likewise, apart from the fields of the response that only Open Responses demands."""
    events = payloads(one.responses.stream())
    for event in events:
        check_responses_event(event, documents=["openai"])


# Broken chat streams are caught.


TOOLS = kind("parallel tool calls, interleaved").chat.stream()
TEXT = kind("text").chat.stream()
CHUNKS: list[Json] = [json.loads(text) for _, text in laws.frames(TOOLS)[:-1]]


def chat_bytes(chunks: list[Json], end: bytes = b"data: [DONE]\n\n") -> bytes:
    return b"".join(frame(chunk) for chunk in chunks) + end


def edited(edit: Callable[[list[Json]], object]) -> bytes:
    chunks = copy.deepcopy(CHUNKS)
    edit(chunks)
    return chat_bytes(chunks)


def drop(number: int) -> Callable[[list[Json]], object]:
    return lambda chunks: chunks.pop(number)


def delta(chunks: list[Json], number: int) -> Json:
    return dict.__getitem__(chunks[number]["choices"][0], "delta")


FINISH = len(CHUNKS) - 2
CALL_2 = next(
    number
    for number, chunk in enumerate(CHUNKS)
    if chunk["choices"]
    and chunk["choices"][0]["delta"].get("tool_calls", [{}])[0].get("index") == 1
)


@pytest.mark.parametrize(
    ("data", "law"),
    [
        (chat_bytes(CHUNKS, b""), r"\[DONE\] is the last"),
        (chat_bytes(CHUNKS) + b"data: [DONE]\n\n", r"\[DONE\] comes once"),
        (b"event: x\n" + chat_bytes(CHUNKS), "no event lines"),
        (chat_bytes(CHUNKS)[:-1], "no whole frame"),
        (chat_bytes(CHUNKS).replace(b"\n\n", b"\r\n\r\n"), "no whole frame"),
        (edited(drop(0)), "role comes first"),
        (edited(lambda c: delta(c, 2).update(role="assistant")), "role comes first, and once"),
        (edited(drop(FINISH)), "1 choices finish"),
        (edited(drop(len(CHUNKS) - 1)), "usage comes once"),
        (edited(lambda c: c.insert(0, c.pop())), "usage comes once, last"),
        (edited(lambda c: c[1].update(usage=c[-1]["usage"])), "usage comes with empty choices"),
        (edited(lambda c: c[3].update(id="other")), "id never changes"),
        (edited(lambda c: c[3].update(model="other")), "model never changes"),
        (edited(lambda c: c[3].update(created=1)), "created never changes"),
        (edited(lambda c: c.insert(FINISH + 1, c[FINISH])), "nothing follows the finish_reason"),
        (edited(drop(CALL_2)), "tool call begins with id"),
        (edited(lambda c: delta(c, 1)["tool_calls"][0].update(index=1)), "numbered as they appear"),
        (
            edited(lambda c: delta(c, CALL_2 + 1)["tool_calls"][0].update(id="again")),
            "come once: clients join them",
        ),
        (
            edited(lambda c: delta(c, CALL_2)["tool_calls"][0].update(id="call_tokyo")),
            "an id of its own",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_chat_stream_is_caught(data: bytes, law: str) -> None:
    """Each law of a chat stream, broken once."""
    check_chat_stream(chat_bytes(CHUNKS), usage=True)
    with pytest.raises(LawBroken, match=law):
        check_chat_stream(data, usage=True)


def test_a_chat_chunk_against_the_schema_is_caught() -> None:
    """A field of the wrong type does not pass."""
    with pytest.raises(SchemaError, match="finish_reason"):
        check_chat_stream(edited(lambda c: c[FINISH]["choices"][0].update(finish_reason="done")))


def test_usage_that_nobody_asked_for_is_caught() -> None:
    """The usage chunk is opt-in."""
    with pytest.raises(LawBroken, match="only if it was asked for"):
        check_chat_stream(TEXT, usage=False)


# Broken Responses streams are caught.


def full_reply(*output: Json, **more: Any) -> ResponsesReply:
    """A reply whose Response has the fields of both documents."""
    extra = {
        "background": False,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "prompt_cache_key": None,
        "safety_identifier": None,
    }
    usage = {
        "input_tokens": 1,
        "input_tokens_details": CACHE,
        "output_tokens": 1,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 2,
    }
    return ResponsesReply(output, extra=extra, usage=usage, **more)


GOOD = full_reply(
    *kind("reasoning, summary").responses.output[:1],
    *kind("annotations").responses.output,
    *kind("parallel tool calls, interleaved").responses.output,
    *kind("custom tool call").responses.output,
    interleaved=False,
).stream()
EVENTS: list[Json] = payloads(GOOD)


def responses_bytes(events: list[Json]) -> bytes:
    numbered: list[Json] = [
        {**event, "sequence_number": number} for number, event in enumerate(events)
    ]
    return b"".join(frame(event, event["type"]) for event in numbered)


def nth(name: str, number: int = 0) -> int:
    places = [at for at, event in enumerate(EVENTS) if event["type"] == f"response.{name}"]
    return places[number]


def changed(edit: Callable[[list[Json]], object]) -> bytes:
    events = copy.deepcopy(EVENTS)
    edit(events)
    return responses_bytes(events)


def without(*names: str) -> bytes:
    places = [nth(name) for name in names]
    return responses_bytes([event for at, event in enumerate(EVENTS) if at not in places])


def put(number: int, **fields: Any) -> Callable[[list[Json]], object]:
    return lambda events: events[number].update(fields)


@pytest.mark.parametrize(
    ("data", "law"),
    [
        (GOOD + b"data: [DONE]\n\n", r"no \[DONE\]"),
        (GOOD.replace(b"event: response.created\n", b""), "event line says the type"),
        (GOOD.replace(b'"sequence_number": 3}', b'"sequence_number": 4}'), "sequence_number 3"),
        (without("created"), "created is first"),
        (without("in_progress"), "in_progress is second"),
        (without("completed"), "ends with completed"),
        (responses_bytes([*EVENTS, EVENTS[-1]]), "nothing follows the end"),
        (without("output_item.added"), "items are numbered|is not open"),
        (without("output_item.done"), "never ended"),
        (without("content_part.added"), "content_index 0 is not open"),
        (without("reasoning_summary_part.added"), "summary_index 0 is not open"),
        (without("content_part.done"), "parts end before their item"),
        (without("output_text.done"), "the text is done before its part"),
        (without("output_text.delta"), "the deltas, joined"),
        (without("function_call_arguments.delta"), "the deltas, joined"),
        (without("function_call_arguments.done"), "done before its item"),
        (without("custom_tool_call_input.delta"), "the deltas, joined"),
        (without("output_text.annotation.added"), "annotations were streamed"),
        (without("output_item.added", "output_item.done"), "items are numbered|is not open"),
        (changed(put(nth("output_text.delta"), output_index=2)), "not open|output_index"),
        (changed(put(nth("output_text.delta"), item_id="other")), "item_id is that of"),
        (changed(put(nth("output_text.delta"), content_index=1)), "content_index 1 is not open"),
        (changed(put(nth("output_item.added", 1), output_index=5)), "items are numbered"),
        (changed(put(nth("content_part.added"), content_index=1)), "parts are numbered"),
        (changed(lambda e: e[-1]["response"].update(status="incomplete")), "status is the event's"),
        (changed(lambda e: e[-1]["response"].update(id="other")), "id of the response"),
        (changed(lambda e: e[-1]["response"]["output"].pop()), "final output is what was"),
        (changed(lambda e: e[0]["response"].update(status="completed")), "begins in progress"),
        (
            changed(lambda e: e[0]["response"].update(output=e[-1]["response"]["output"])),
            "begins without output",
        ),
        (
            changed(lambda e: e[nth("output_item.done", 2)]["item"].update(name="other")),
            "keeps its name",
        ),
        (
            changed(lambda e: e[nth("output_item.done", 2)]["item"].update(arguments="{}")),
            "text is what was streamed",
        ),
        (
            changed(lambda e: e[nth("output_item.done", 1)]["item"]["content"].clear()),
            "content is what was streamed",
        ),
        (
            changed(lambda e: e[nth("output_item.added", 2)]["item"].update(id="msg_up_0")),
            "an id of its own",
        ),
        (
            changed(lambda e: e[nth("output_item.added", 2)]["item"].update(status="completed")),
            "begins unfinished",
        ),
        (
            changed(lambda e: e.insert(0, {"type": "keepalive"})),
            "a beat comes between",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_broken_responses_stream_is_caught(data: bytes, law: str) -> None:
    """Each law of a Responses stream, broken once."""
    check_responses_stream(responses_bytes(EVENTS))
    with pytest.raises(LawBroken, match=law):
        check_responses_stream(data)


def test_a_beat_between_events_is_lawful() -> None:
    """`keepalive` takes a number like any event, and is no content."""
    events = [*EVENTS[:3], {"type": "keepalive"}, *EVENTS[3:]]
    assert len(check_responses_stream(responses_bytes(events))) == len(EVENTS)


def test_an_event_of_no_known_type_is_caught() -> None:
    """Neither document describes it."""
    with pytest.raises(SchemaError, match="has the type"):
        check_responses_event({"type": "response.invented", "sequence_number": 0})


# Streams that broke on the way.


ERROR = {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}


def test_a_failed_chat_stream() -> None:
    """An error frame at the end, and no good end."""
    good = chat_bytes(CHUNKS[:5], frame(ERROR))
    chunks, error = check_failed_stream(good, "chat")
    assert (len(chunks), error["message"]) == (5, "no")
    for bad in (chat_bytes(CHUNKS[:5], b""), good + b"data: [DONE]\n\n", chat_bytes(CHUNKS)):
        with pytest.raises((LawBroken, SchemaError)):
            check_failed_stream(bad, "chat")


def test_a_failed_responses_stream() -> None:
    """`response.failed` with a whole object at the end, items left open as they were."""
    failed = copy.deepcopy(EVENTS[-1]["response"])
    failed |= {"status": "failed", "error": {"code": "server_error", "message": "no"}}
    end = {"type": "response.failed", "response": failed}
    events, error = check_failed_stream(responses_bytes([*EVENTS[:9], end]), "responses")
    assert (len(events), error["code"]) == (9, "server_error")
    for bad in (
        [*EVENTS[:9]],
        EVENTS,
        [*EVENTS[:9], {**end, "response": {**failed, "error": None}}],
        [*EVENTS[:9], {**end, "response": {**failed, "status": "completed"}}],
    ):
        with pytest.raises((LawBroken, SchemaError)):
            check_failed_stream(responses_bytes(bad), "responses")


# Schemas.


@pytest.mark.parametrize(
    "allowance", EXCEPTIONS, ids=lambda one: f"{one.document}-{one.definition}"
)
def test_every_exception_has_a_reason_and_a_place(allowance: Any) -> None:
    """A row of the table that no longer applies is an error when the schemas are loaded."""
    assert allowance.reason
    assert allowance.definition in definitions_of(allowance.document)


def test_the_validator_that_looks_at_types_decides_like_the_plain_one() -> None:
    """Choosing the branch of a union by `type` is only faster."""
    definitions = definitions_of("openai")
    plain = Draft202012Validator({"$ref": "#/$defs/ResponseStreamEvent", "$defs": definitions})
    samples = [*EVENTS[::6], {"type": "response.completed"}, {"type": "x"}, {}, {"type": 3}]
    samples.append({**EVENTS[-1], "response": {**EVENTS[-1]["response"], "output": [{}]}})
    for sample in samples:
        try:
            check("openai", "ResponseStreamEvent", sample)
            mine = True
        except SchemaError:
            mine = False
        assert mine == plain.is_valid(sample)


def test_both_documents_hold_a_response() -> None:
    """A field that only one of them demands is missed all the same."""
    response = EVENTS[-1]["response"]
    check_response(response)
    for field in ("tools", "background"):
        with pytest.raises(SchemaError, match=field):
            check_response({name: value for name, value in response.items() if name != field})


def test_an_error_without_its_four_fields_is_caught() -> None:
    """`param` and `code` are required, null or not."""
    check_error(ERROR)
    with pytest.raises(SchemaError):
        check_error({"error": {"message": "no", "type": "x"}})


def test_every_event_of_both_documents_is_known_by_type() -> None:
    """No event is held to nothing because its name was not found."""
    assert len(event_types("openai")) == 58
    assert len(event_types("open-responses")) == 24


# Reading.


def test_what_was_lost_is_named_by_its_path() -> None:
    """Missing, changed and shortened are losses; nulls and empty texts are not."""
    sent = {"a": [{"b": 1, "n": None}], "c": "", "d": [1]}
    assert lost(sent, {"a": [{"b": 1}], "d": [1], "more": 1}) == []
    assert lost(sent, {"a": [{"b": 2}], "d": []}) == [
        "$.a[0].b: 1 became 2",
        "$.d: [1] became []",
    ]


def test_the_sdk_reads_what_was_said() -> None:
    """The reading of a scripted stream gives back what the kind says."""
    for one in KINDS:
        plain = one.chat and not isinstance(one.chat.messages[0].get("content"), list)
        if not plain or one.only_same or "summary" in one.name:
            continue
        assert isinstance(one.chat, ChatReply)
        choices, _ = reading.chat_stream(one.chat.stream(), n=one.choices)
        expected = one.expected("chat", "chat")
        assert choices[0].calls == expected.calls
        assert "".join(choices[0].texts) == "".join(expected.texts)
        assert choices[0].thought == expected.thought
        assert choices[0].usage == expected.usage


def test_the_naive_reading_finds_words_in_almost_every_reply() -> None:
    """The independent reading is not silent, so comparing with it means something."""
    good = [one for one in recordings() if one.api != "other" and one.status < 400 and one.data]
    spoken = [
        one for one in good if any(s.text or s.thought or s.calls for s in said(one).values())
    ]
    assert len(spoken) > 0.9 * len(good)


def test_the_table_needs_its_markers() -> None:
    """What stands between the markers is all that is compared and replaced."""
    assert table.between_markers(f"a{table.BEGIN}\nb\n{table.END}c") == "\nb\n"
    with pytest.raises(ValueError, match="substring"):
        table.between_markers("no markers")
