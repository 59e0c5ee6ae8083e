"""Replies of Responses upstreams, right and odd, become the events they mean."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nursling.engine.accumulate import Accumulator, FinishedReply
from nursling.engine.events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.formats.responses.decoder import ResponsesDialect
from nursling.engine.grammar import Grammar
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import Request
from support.corpus import Said, recording, recordings, said


Json = dict[str, Any]
ASKED = Request(model="m", items=[], format="responses", stream=True)


def sse(events: list[Any], *, named: bool = False, done: bool = False) -> bytes:
    """Write events as frames."""
    out = []
    for event in events:
        name = f"event: {event['type']}\n" if named else ""
        out.append(f"{name}data: {json.dumps(event)}\n\n")
    return ("".join(out) + ("data: [DONE]\n\n" if done else "")).encode()


def decode(data: bytes, request: Request = ASKED) -> list[Event]:
    decoder = RESPONSES.decoder(request, DEFAULT_LIMITS)
    assert not decoder.finished
    events = decoder.feed(data)
    return events + decoder.close()


def read(events: list[Any], request: Request = ASKED) -> list[Event]:
    return decode(sse(events), request)


def fold(events: list[Event]) -> FinishedReply:
    """Fold what the grammar lets through."""
    fold = Accumulator(10**9)
    fold.add(Grammar().check(events))
    return fold.reply


def good(events: list[Any], request: Request = ASKED) -> FinishedReply:
    decoded = read(events, request)
    assert isinstance(decoded[-1], Ended), decoded[-1]
    return fold(decoded)


def bad(events: list[Any]) -> str:
    """The code of the failure that these events are."""
    decoded = read(events)
    assert isinstance(decoded[-1], Failed)
    return str(decoded[-1].error.code)


def shown(reply: FinishedReply) -> list[tuple[str, str, str]]:
    """Kind, name or id, and text of every item."""
    return [
        (item.kind, item.name or item.id, "".join(part.text for part in item.parts.values()))
        for item in reply.items.values()
    ]


# Events, as short as they can be.


def created(**fields: Any) -> Json:
    response = {"id": "resp_1", "object": "response", "created_at": 5, "model": "up", **fields}
    return {"type": "response.created", "response": response}


def added(item: Json, index: int | None = 0) -> Json:
    place = {} if index is None else {"output_index": index}
    return {"type": "response.output_item.added", "item": item, **place}


def done(item: Json, index: int | None = 0) -> Json:
    return {**added(item, index), "type": "response.output_item.done"}


def part_added(part: Json, **where: Any) -> Json:
    return {"type": "response.content_part.added", "part": part, **where}


def part_done(part: Json, **where: Any) -> Json:
    return {"type": "response.content_part.done", "part": part, **where}


def delta(kind: str, text: Any, **where: Any) -> Json:
    return {"type": f"response.{kind}.delta", "delta": text, **where}


def text_done(kind: str, key: str, text: Any, **where: Any) -> Json:
    return {"type": f"response.{kind}.done", key: text, **where}


def completed(output: Any = None, **fields: Any) -> Json:
    response = {"id": "resp_1", "status": "completed", "output": output, **fields}
    return {"type": "response.completed", "response": response}


def message(text: str | None = None, own_id: str = "msg_1", **fields: Any) -> Json:
    content = [] if text is None else [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": own_id, "role": "assistant", "content": content, **fields}


def call(arguments: str = "", own_id: str = "fc_1", **fields: Any) -> Json:
    return {
        "type": "function_call",
        "id": own_id,
        "call_id": "call_" + own_id,
        "name": "f",
        "arguments": arguments,
        **fields,
    }


def reasoning(**fields: Any) -> Json:
    return {"type": "reasoning", "id": "rs_1", "summary": [], **fields}


AT = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
TEXT = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


# The whole lifecycle, as OpenAI sends it.


def test_the_full_lifecycle() -> None:
    """A reply as the documents have it becomes exactly these events."""
    entry = {"token": "Hi", "logprob": -1, "bytes": [72, 105], "top_logprobs": []}
    citation = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    whole = {**TEXT, "text": "Hi!", "annotations": [citation], "logprobs": [entry]}
    events = read(
        [
            created(status="in_progress", instructions="Be brief.", user=None),
            {"type": "response.in_progress", "response": {}},
            added(message(phase="final_answer", status="in_progress")),
            part_added(TEXT, **AT),
            delta("output_text", "Hi", **AT, logprobs=[entry], obfuscation="xyz"),
            delta("output_text", "!", **AT, logprobs=[]),
            {
                "type": "response.output_text.annotation.added",
                **AT,
                "annotation_index": 0,
                "annotation": citation,
            },
            text_done("output_text", "text", "Hi!", **AT, logprobs=[entry]),
            part_done(whole, **AT),
            done({**message(phase="final_answer"), "content": [whole], "status": "completed"}),
            {"type": "keepalive", "sequence_number": 9},
            completed(
                [{**message(), "content": [whole]}],
                usage={
                    "input_tokens": 3,
                    "input_tokens_details": {"cached_tokens": 1},
                    "output_tokens": 2,
                    "output_tokens_details": {"reasoning_tokens": 0},
                    "total_tokens": 5,
                    "cost": 1,
                },
                service_tier="default",
            ),
        ]
    )
    assert events == [
        Started("resp_1", "up", 5, {"responses": {"response": {"instructions": "Be brief."}}}),
        ItemStarted(
            0, "message", 0, "msg_1", extra={"responses": {"item": {"phase": "final_answer"}}}
        ),
        PartStarted(0, 0, "text"),
        PartDelta(0, 0, "Hi", [entry]),
        PartDelta(0, 0, "!"),
        Annotated(0, 0, "citation", citation),
        PartEnded(0, 0),
        ItemEnded(0, extra={"responses": {"item": {"phase": "final_answer"}}}),
        Finished(0, "stop"),
        UsageReported(
            Usage(
                input_tokens=3,
                output_tokens=2,
                total_tokens=5,
                cached_tokens=1,
                reasoning_tokens=0,
            ),
            {"responses": {"usage": {"cost": 1}}},
        ),
        Ended({"responses": {"response": {"service_tier": "default"}}}),
    ]


def test_reasoning_refusals_and_tools() -> None:
    """Summaries, raw thoughts, sealed reasoning, refusals and calls are told apart."""
    summary = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
    thought = {"item_id": "rs_1", "output_index": 0, "content_index": 0}
    refused = {"item_id": "msg_1", "output_index": 1, "content_index": 0}
    custom = {"type": "custom_tool_call", "id": "ctc_1", "call_id": "c", "name": "run"}
    second = {"type": "summary_text", "text": ""}
    reply = good(
        [
            created(),
            added(reasoning(encrypted_content="early")),
            {**part_added(second, **summary), "type": "response.reasoning_summary_part.added"},
            delta("reasoning_summary_text", "Thinking.", **summary),
            text_done("reasoning_summary_text", "text", "Thinking.", **summary),
            {
                **part_done({"type": "summary_text", "text": "Thinking."}, **summary),
                "type": "response.reasoning_summary_part.done",
            },
            delta("reasoning_text", "hm", **thought),
            text_done("reasoning_text", "text", "hmm", **thought),
            delta("reasoning", "", **thought),
            done(reasoning(encrypted_content="gAAA")),
            added(message(), 1),
            part_added({"type": "refusal", "refusal": ""}, **refused),
            delta("refusal", "I can", **refused),
            text_done("refusal", "refusal", "I cannot.", **refused),
            done({**message(), "content": [{"type": "refusal", "refusal": "I cannot."}]}, 1),
            added(call(namespace="n"), 2),
            delta("function_call_arguments", '{"a"', item_id="fc_1", output_index=2),
            added({**custom, "input": ""}, 3),
            delta("custom_tool_call_input", "x = 1", item_id="ctc_1", output_index=3),
            delta("function_call_arguments", ":1}", item_id="fc_1", output_index=2),
            text_done("function_call_arguments", "arguments", '{"a":1}', item_id="fc_1"),
            text_done("custom_tool_call_input", "input", "x = 1", item_id="ctc_1"),
            done(call('{"a":1}'), 2),
            done({**custom, "input": "x = 1"}, 3),
            completed(),
        ]
    )
    assert shown(reply) == [
        ("reasoning", "rs_1", "Thinking.hmm"),
        ("message", "msg_1", "I cannot."),
        ("tool_call", "f", '{"a":1}'),
        ("tool_call", "run", "x = 1"),
    ]
    kinds = [[part.kind for part in item.parts.values()] for item in reply.items.values()]
    assert kinds == [["summary", "thought"], ["refusal"], ["arguments"], ["input"]]
    assert reply.items[0].sealed == "gAAA"
    assert [item.id for item in reply.tool_calls] == ["call_fc_1", "c"]
    assert reply.items[2].notes[0] == {"responses": {"item": {"id": "fc_1", "namespace": "n"}}}
    assert reply.reasons == {0: "tool_calls"}


# Odd servers: each row is one oddity, and what the reply says all the same.

HI = [("message", "msg_1", "Hi")]
NO_INDEX = {"item_id": "msg_1"}
ODD: dict[str, tuple[list[Json], list[tuple[str, str, str]]]] = {
    "no indexes (llama-server)": (
        [
            added(message(), None),
            part_added(TEXT, **NO_INDEX),
            delta("output_text", "Hi", **NO_INDEX),
            part_done({**TEXT, "text": "Hi"}, **NO_INDEX),
            done(message("Hi"), None),
            completed([message("Hi")]),
        ],
        HI,
    ),
    "neither ids nor indexes": (
        [
            added({"type": "message"}, None),
            delta("output_text", "Hi"),
            done({"type": "message", "content": [{**TEXT, "text": "Hi"}]}, None),
            completed(),
        ],
        [("message", "", "Hi")],
    ),
    "another id in every event (GitHub Copilot)": (
        [
            added(message(own_id="a")),
            delta("output_text", "Hi", item_id="b", output_index=0),
            done(message("Hi", own_id="c")),
            completed([message("Hi", own_id="d")]),
        ],
        [("message", "a", "Hi")],
    ),
    "no output_item.added, no content_part.added": (
        [delta("output_text", "H", **AT), delta("output_text", "i", **AT), completed()],
        HI,
    ),
    "no part events, reasoning": (
        [
            delta("reasoning_text", "hm", item_id="rs_1"),
            done(reasoning(content=[{"type": "reasoning_text", "text": "hm"}]), None),
            completed(),
        ],
        [("reasoning", "rs_1", "hm")],
    ),
    "a part event is the first of its item": (
        [part_added(TEXT, **AT), delta("output_text", "Hi", **AT), completed()],
        HI,
    ),
    "a part of reasoning called output_text (vLLM)": (
        [
            added(reasoning()),
            part_added(TEXT, item_id="rs_1", content_index=0),
            delta("reasoning_text", "hm", item_id="rs_1", content_index=0),
            completed(),
        ],
        [("reasoning", "rs_1", "hm")],
    ),
    "arguments in the added item, then only done (transformers)": (
        [
            added(call("{}", status="completed"), 1),
            text_done("function_call_arguments", "arguments", "{}", item_id="fc_1", output_index=1),
            done(call("{}", status="completed"), 1),
            completed([call("{}")]),
        ],
        [("tool_call", "f", "{}")],
    ),
    "arguments in the added item only": (
        [added(call("{}")), completed()],
        [("tool_call", "f", "{}")],
    ),
    "arguments in the done item only": (
        [added(call()), done(call("{}")), completed()],
        [("tool_call", "f", "{}")],
    ),
    "arguments in the final object only": (
        [added(call()), completed([call("{}")])],
        [("tool_call", "f", "{}")],
    ),
    "arguments as an object": (
        [added(call()), done(call(arguments={"a": 1})), completed()],  # type: ignore[arg-type]  # that is the oddity
        [("tool_call", "f", '{"a":1}')],
    ),
    "the same arguments with other white space": (
        [
            added(call()),
            delta("function_call_arguments", '{"a":1}', item_id="fc_1"),
            done(call('{"a": 1}')),
            completed([call('{ "a": 1 }')]),
        ],
        [("tool_call", "f", '{"a":1}')],
    ),
    "an empty whole text says nothing": (
        [
            added(message()),
            delta("output_text", "Hi", **AT),
            text_done("output_text", "text", "", **AT),
            part_done(TEXT, **AT),
            done(message("")),
            completed([message("")]),
        ],
        HI,
    ),
    "a final text without its last newline": (
        [added(message()), delta("output_text", "Hi\n", **AT), completed([message("Hi")])],
        [("message", "msg_1", "Hi\n")],
    ),
    "a missing tail": (
        [added(message()), delta("output_text", "H", **AT), done(message("Hi")), completed()],
        HI,
    ),
    "text in the final object only": (
        [
            added(message()),
            part_added(TEXT, **AT),
            part_done(TEXT, **AT),
            done(message("")),
            completed([message("Hi")]),
        ],
        HI,
    ),
    "an item in the final object only": (
        [completed([message("Hi"), call("{}")])],
        [*HI, ("tool_call", "f", "{}")],
    ),
    "content as a string": (
        [completed([{"type": "message", "id": "msg_1", "content": "Hi"}])],
        HI,
    ),
    "a summary as a string": (
        [completed([reasoning(summary="S.")])],
        [("reasoning", "rs_1", "S.")],
    ),
    "an empty message at the end (transformers)": (
        [
            added(call("{}"), 1),
            done(call("{}"), 1),
            added(message(), 1),
            part_added(TEXT, item_id="msg_1", output_index=1, content_index=0),
            text_done("output_text", "text", "", item_id="msg_1", output_index=1),
            done(message(""), 1),
            completed([message(""), call("{}")]),
        ],
        [("tool_call", "f", "{}"), ("message", "msg_1", "")],
    ),
    "a message closed twice (transformers)": (
        [
            added(message()),
            delta("output_text", "Hi", **AT),
            done(message("Hi")),
            added(call("{}"), 1),
            done(call("{}"), 1),
            added(message(), 1),
            part_added(TEXT, **{**AT, "output_index": 1}),
            delta("output_text", "Hi", **{**AT, "output_index": 1}),
            {"type": "response.some.progress", "item_id": "msg_1"},
            done(message("Hi"), 1),
            completed([message("Hi"), call("{}")]),
        ],
        [*HI, ("tool_call", "f", "{}")],
    ),
    "a message closed twice, cut the second time": (
        [
            added(message()),
            delta("output_text", "Hi", **AT),
            done(message("Hi")),
            added(message(), 1),
            completed(),
        ],
        HI,
    ),
    "one id, two messages": (
        [
            added(message()),
            delta("output_text", "Hi", **AT),
            done(message("Hi")),
            added(message(), 1),
            delta("output_text", "Ho", **{**AT, "output_index": 1}),
            done(message("Ho"), 1),
            completed(),
        ],
        [*HI, ("message", "msg_1_1", "Ho")],
    ),
    "an item announced twice": (
        [added(message()), added(message()), delta("output_text", "Hi", **AT), completed()],
        HI,
    ),
    "an item that is done twice": (
        [added(message()), done(message("Hi")), done(message("Hi")), completed()],
        HI,
    ),
    "done without added": ([done(message("Hi")), completed()], HI),
    "a call that learns its name late": (
        [
            added(call(name="")),
            delta("function_call_arguments", "{}", item_id="fc_1"),
            done(call("{}")),
            completed(),
        ],
        [("tool_call", "f", "{}")],
    ),
    "a call without any id": (
        [done({"type": "function_call", "name": "f", "arguments": "{}"}), completed()],
        [("tool_call", "f", "{}")],
    ),
    "null deltas, null items, null annotations": (
        [
            added(message()),
            delta("output_text", None, **AT),
            delta("output_text", "Hi", **AT),
            {"type": "response.output_item.added", "item": None},
            {"type": "response.output_item.done", "item": None},
            {"type": "response.output_text.annotation.added", "annotation": None},
            text_done("output_text", "text", None, **AT),
            completed(),
        ],
        HI,
    ),
    "a done text of an item that nobody opened": (
        [text_done("function_call_arguments", "arguments", "", item_id="x"), *[completed()]],
        [],
    ),
    "the final object in another order": (
        [
            added(call("{}")),
            done(call("{}")),
            added(message(), 1),
            done(message("Hi"), 1),
            completed([message("Hi"), call("{}")]),
        ],
        [("tool_call", "f", "{}"), *HI],
    ),
    "an item that the final object lacks": (
        [added(message()), delta("output_text", "Hi", **AT), done(message("Hi")), completed([])],
        HI,
    ),
    "two open items without names": (
        [
            added({"type": "message"}, None),
            added(call("{}", own_id="")),
            delta("output_text", "Hi"),
            completed([call("", own_id=""), {"type": "message"}]),
        ],
        [("message", "", "Hi"), ("tool_call", "f", "{}")],
    ),
    "final arguments that say nothing": (
        [added(call()), done(call("{}")), completed([call("", own_id="other")])],
        [("tool_call", "f", "{}")],
    ),
    "no response in the last event": (
        [done(message("Hi")), {"type": "response.completed"}],
        HI,
    ),
    "logprobs and annotations only in the end": (
        [
            added(message()),
            delta("output_text", "Hi", **AT),
            done(
                {
                    **message(),
                    "content": [
                        {
                            "type": "output_text",
                            "text": "Hi",
                            "annotations": [{"type": "file_path", "file_id": "x", "index": 0}],
                            "logprobs": [{"token": "Hi", "logprob": -1}],
                        }
                    ],
                }
            ),
            completed(),
        ],
        HI,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_server_is_understood(name: str) -> None:
    """Each oddity of a real server is a legal reply that says what was meant, once."""
    events, expected = ODD[name]
    reply = good([created(), *events])
    assert shown(reply) == expected
    assert all(item.status == "completed" for item in reply.items.values())


def test_a_call_without_any_id_gets_a_stable_one() -> None:
    """The id is made from the reply's id and the item's number."""
    nameless = {"type": "function_call", "name": "f", "arguments": "{}"}
    reply = good([created(), done(nameless), completed()])
    assert reply.tool_calls[0].id == "call_resp_1_0"


def test_logprobs_and_annotations_only_in_the_end() -> None:
    """They are supplied before their part ends."""
    events, _ = ODD["logprobs and annotations only in the end"]
    [part] = good([created(), *events]).items[0].parts.values()
    assert part.logprobs == [{"token": "Hi", "logprob": -1, "bytes": None, "top_logprobs": []}]
    assert part.citations == [{"type": "file_path", "file_id": "x", "index": 0}]


def test_log_probabilities_and_citations_pass_one_gate() -> None:
    """Entries that are none say nothing; a citation of a page gets the members it lacks."""
    page = {"type": "url_citation", "url": "u", "title": None}
    file = {"type": "file_citation", "file_id": "f"}
    note = {"type": "response.output_text.annotation.added", **AT}
    odd: list[Any] = [page, {"type": {}}, {"type": None}, 5, file]
    events = [
        added(message()),
        delta("output_text", "Hi", logprobs=[3, {"token": "Hi", "logprob": -1}], **AT),
        delta("output_text", "!", logprobs=["x"], **AT),
        *({**note, "annotation": one} for one in odd),
    ]
    [item] = good([created(), *events, completed()]).items.values()
    [part] = item.parts.values()
    assert part.logprobs == [{"token": "Hi", "logprob": -1, "bytes": None, "top_logprobs": []}]
    assert part.citations == [{**page, "title": "", "start_index": 0, "end_index": 0}, file]


def test_afterthoughts_of_the_final_object() -> None:
    """What the final object adds to items that have ended is said about them, once."""
    page = {"type": "url_citation", "url": "u", "title": "t", "start_index": 0, "end_index": 1}
    search = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    thought = reasoning(summary=[{"type": "summary_text", "text": "S"}])
    final = message("Hi", phase="final_answer")
    final["content"][0] |= {"annotations": [page], "y": 1}
    output = [
        {**search, "sources": ["s"]},
        {**thought, "encrypted_content": "E"},
        {**final, "id": "msg_1"},
        call("{}"),
    ]
    ends = [done(search, 0), done(thought, 1), done(message("Hi"), 2), done(call("{}"), 3)]
    decoded = read([created(), *ends, completed(output)])
    late = decoded[decoded.index(next(e for e in decoded if isinstance(e, Annotated))) :]
    assert late[:-2] == [
        Annotated(0, -1, "wire", {}, {"responses": {"item": output[0]}}),
        Annotated(1, -1, "wire", {}, {"responses": {"item": {"encrypted_content": "E"}}}),
        Annotated(2, -1, "wire", {}, {"responses": {"item": {"phase": "final_answer"}}}),
        Annotated(2, 0, "citation", page),
        Annotated(2, 0, "wire", {}, {"responses": {"part": {"y": 1}}}),
    ]


# What is kept without an event.


def held(*events: Any) -> int:
    """How many bytes a decoder keeps to itself after these events."""
    dialect = ResponsesDialect(ASKED)
    out: list[Event] = []
    for event in events:
        dialect.on_frame(b"", json.dumps(event).encode(), out)
    return dialect.held


def test_what_is_read_aside_is_counted() -> None:
    """Text that no event carries yet counts until it is carried or dropped."""
    words = "\u00e4" * 5_000
    grows = delta("function_call_arguments", words, item_id="fc_1")
    nameless = [created(), added(call(name="")), grows, grows]
    assert 20_000 < held(*nameless) < 22_000
    assert held(*nameless, done(call(words * 2))) == 0
    again = [created(), done(message("Hi")), added(message()), delta("output_text", words, **AT)]
    assert 10_000 < held(*again) < 12_000
    assert held(*again, done(message(words))) == 0
    early = {"type": "response.mood", "x": words}
    assert 80_000 < held(early) == held({"type": "response.in_progress"}, early)
    assert held(early, created()) == 0
    late = {**part_done(TEXT, **AT), "x": words}
    assert held(created(), added(message()), late) > 80_000


def test_a_nameless_call_keeps_what_was_streamed() -> None:
    """The `done` that tells the name need not repeat the arguments."""
    grows = delta("function_call_arguments", '{"a":1}', item_id="fc_1")
    reply = good([created(), added(call(name="")), grows, done(call()), completed()])
    assert shown(reply) == [("tool_call", "f", '{"a":1}')]


def test_every_item_has_an_id_of_its_own() -> None:
    """A second item of the same id gets another one; a call keeps the id that it opened with."""
    twice = [message("a"), message("b"), {"type": "x", "id": "msg_1"}, call("{}"), call("{}")]
    items = good([created(), completed(twice)]).items.values()
    own = [(item.id, (item.notes[0]["responses"]["item"]).get("id")) for item in items]
    assert own == [
        ("msg_1", None),
        ("msg_1_1", None),
        ("msg_1_2", "msg_1_2"),
        ("call_fc_1", "fc_1"),
        ("call_fc_1", "fc_1_4"),
    ]
    renamed = done(call("{}", "fc_9", call_id="call_fc_1"))  # GitHub Copilot
    [only] = good([created(), added(call()), renamed, completed()]).tool_calls
    assert only.notes == [{"responses": {"item": {"id": "fc_1"}}}]
    final = [message("Hi"), message("Ho", "msg_2")]
    odd = [done(message("Hi")), added(message()), done(message("Ho")), completed(final)]
    assert shown(good([created(), *odd]))[0] == ("message", "msg_1", "Hi")


def test_summaries_without_an_index_are_counted_apart() -> None:
    """A summary part that says no index is the next summary, whatever else the item has."""
    summary = {"type": "summary_text", "text": ""}
    opens = {"type": "response.reasoning_summary_part.added", "part": summary, "item_id": "rs_1"}
    grows = delta("reasoning_text", "t", item_id="rs_1")
    says = delta("reasoning_summary_text", "s", item_id="rs_1")
    events = [added(reasoning()), grows, opens, says, opens, says, completed()]
    [item] = good([created(), *events]).items.values()
    assert [(part.kind, part.text) for part in item.parts.values()] == [
        ("thought", "t"),
        ("summary", "s"),
        ("summary", "s"),
    ]


def test_a_repetition_may_have_empty_parts() -> None:
    """An item that is read aside leaves with the parts that say something."""
    two = [{**TEXT, "text": "Ho"}, TEXT]
    events = [
        done(message("Hi")),
        added(message()),
        part_added(TEXT, **{**AT, "content_index": 1}),
        done({**message(), "content": two}),
        delta("reasoning_text", "t"),  # finds no open message on its way
        delta("output_text", "x"),
        completed(),
    ]
    assert [words for _, _, words in shown(good([created(), *events]))] == ["Hi", "Ho", "t", "x"]


def test_many_parts_and_items_cost_what_they_weigh() -> None:
    """Parts without an index, and items of another kind, are found without a search."""

    def steps(count: int) -> int:
        data = sse(
            [
                created(),
                added(reasoning(), 0),
                *(added(message(own_id=f"m{number}"), number + 1) for number in range(count)),
                *(part_added(TEXT, item_id="m0") for _ in range(count)),
                *(delta("reasoning_text", "a") for _ in range(count)),
            ]
        )
        decoder = RESPONSES.decoder(ASKED, DEFAULT_LIMITS)
        taken = 0

        def count_steps(frame: FrameType, event: str, arg: Any) -> Any:
            nonlocal taken
            frame.f_trace_opcodes = True
            taken += event == "opcode"
            return count_steps

        old = sys.gettrace()
        sys.settrace(count_steps)
        try:
            decoder.feed(data)
        finally:
            sys.settrace(old)
        return taken

    assert steps(80) < 2.2 * steps(40)


# What is no reply.

BROKEN: dict[str, list[Any]] = {
    "another whole text": [
        added(message()),
        delta("output_text", "Hi", **AT),
        done(message("Ho")),
        completed(),
    ],
    "more in the final object than in an ended item": [
        added(message()),
        done(message("Hi")),
        completed([message("Hi there")]),
    ],
    "a further part in the final object": [
        added(message()),
        done(message("Hi")),
        completed([{**message(), "content": [{**TEXT, "text": "Hi"}, {**TEXT, "text": "x"}]}]),
    ],
    "other arguments": [
        added(call()),
        delta("function_call_arguments", '{"a":1}', item_id="fc_1"),
        done(call('{"a":2}')),
    ],
    "arguments that are no JSON, otherwise": [
        added(call()),
        delta("function_call_arguments", "{", item_id="fc_1"),
        done(call("x")),
    ],
    "a delta after its part": [
        added(message()),
        delta("output_text", "Hi", **AT),
        part_done({**TEXT, "text": "Hi"}, **AT),
        delta("output_text", "!", **AT),
    ],
    "an annotation after its part": [
        added(message()),
        delta("output_text", "Hi", **AT),
        part_done({**TEXT, "text": "Hi"}, **AT),
        {"type": "response.output_text.annotation.added", "annotation": {}, **AT},
    ],
    "arguments of a call that was never opened": [
        delta("function_call_arguments", "{}", item_id="x")
    ],
    "custom input for a function": [
        added(call()),
        delta("custom_tool_call_input", "x", item_id="fc_1"),
    ],
    "the whole of a custom input for a function": [
        added(call()),
        text_done("custom_tool_call_input", "input", "x", item_id="fc_1"),
    ],
    "text for a call": [added(call()), delta("output_text", "Hi", item_id="fc_1")],
    "a call without a name": [done(call(name=None))],
    "a call that never learns its name": [added(call(name="")), completed()],
    "a delta that is no string": [delta("output_text", 5)],
    "content that is no list": [done({"type": "message", "content": 5})],
    "content with a part that has no type": [done({"type": "message", "content": [{}]})],
    "an item without a type": [{"type": "response.output_item.added", "item": {}}],
    "a part without a type": [part_added({})],
    "an event that is no object": [5],
}


@pytest.mark.fault(30, "V")
@pytest.mark.fault(31, "V")
@pytest.mark.parametrize("name", BROKEN)
def test_a_contradiction_is_the_upstreams_error(name: str) -> None:
    """What cannot be meant is `upstream_protocol_error`, never a guess."""
    data = b"".join(
        b"data: " + json.dumps(event).encode() + b"\n\n" for event in [created(), *BROKEN[name]]
    )
    last = decode(data)[-1]
    assert isinstance(last, Failed)
    assert last.error.code == "upstream_protocol_error", last.error


@pytest.mark.fault(14, "V")
@pytest.mark.parametrize("tail", [b"", b"data: [DONE]\n\n", b'data: {"type": "resp'])
def test_a_stream_without_its_terminal_event_was_cut(tail: bytes) -> None:
    """The end of the stream, or `[DONE]`, before the terminal event is `upstream_truncated`."""
    [*_, last] = decode(sse([created(), added(message())]) + tail)
    assert isinstance(last, Failed)
    assert last.error.code == "upstream_truncated"


@pytest.mark.fault(16, "V")
def test_done_after_the_end_is_nothing() -> None:
    """LiteLLM's `[DONE]` after the terminal event changes nothing."""
    events = [created(), done(message("Hi")), completed()]
    assert decode(sse(events, done=True)) == decode(sse(events))


# Names of events.


def test_the_type_may_stand_in_the_json_or_on_the_event_line() -> None:
    """No event lines, both, and a type only on the event line read the same."""
    events = [created(), added(message()), delta("output_text", "Hi", **AT), completed()]
    bare = b"".join(
        f"event: {event['type']}\ndata: ".encode()
        + json.dumps({key: event[key] for key in event if key != "type"}).encode()
        + b"\n\n"
        for event in events
    )
    assert decode(sse(events)) == decode(sse(events, named=True)) == decode(bare)


def test_the_type_in_the_json_wins() -> None:
    """A server that writes `event: message` over everything loses neither an error nor a beat."""

    def under(*events: Any) -> list[Event]:
        frames = (b"event: message\n" + sse([event]) for event in events)
        return decode(b"".join(frames))

    limit = {"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None}
    last = under(created(), limit)[-1]
    assert isinstance(last, Failed)
    assert (last.error.status, last.error.message) == (429, "slow")
    assert under({"type": "keepalive"}, created(), completed()) == read([created(), completed()])
    progress = {"type": "response.mood", "mood": "fine"}
    assert wire(under(created(), progress, completed())) == [(-1, progress)]


@pytest.mark.fault(36, "V")
@pytest.mark.fault(29, "V")
@pytest.mark.parametrize(
    "kind", ["response.x\n\ndata: {}\n\nevent: y", "x\ry", "a b", "\u00e4", "x" * 129, "x\x00"]
)
def test_a_type_that_would_break_the_frame_is_not_carried(kind: str) -> None:
    """What becomes an `event:` line has the form of a name; other unknown events are dropped."""
    assert read([created(), {"type": kind}, completed()]) == read([created(), completed()])
    given = {"type": "acme:trace_event", "x": 1}  # an extension of Open Responses
    assert wire(read([created(), given, completed()])) == [(-1, given)]


@pytest.mark.parametrize("event", [{}, {"type": ""}, {"type": 5}, {"type": None, "delta": "x"}])
def test_an_event_without_a_type_is_dropped(event: Json) -> None:
    """It says nothing, and costs nothing, before the reply has begun or after."""
    events = [created(), done(message("Hi")), completed()]
    assert read([event, created(), event, *events[1:]]) == read(events)


@pytest.mark.parametrize("beat", ["keepalive", "response.keep_alive", "response.heartbeat", "ping"])
def test_beats_are_dropped(beat: str) -> None:
    """A beat says nothing, not even that the reply has begun."""
    assert read([{"type": beat}, created(), completed()]) == read([created(), completed()])


def test_a_reply_may_begin_with_any_event() -> None:
    """in_progress, queued or a delta begin a reply as well; created after it is nothing."""
    first = {"type": "response.in_progress", "response": created()["response"]}
    assert read([first, created(), completed()]) == read([created(), completed()])
    bare = {"type": "response.in_progress"}
    assert read([bare, created(), completed()]) == read([created(), completed()])
    [start, *_] = read([bare, delta("output_text", "Hi"), completed()])
    assert start == Started("", "", 0, {"responses": {"response": {}}})


def test_unknown_events_wait_for_the_start() -> None:
    """An unknown event before `created` does not cost the client the reply's id."""
    limits = {"type": "codex.rate_limits", "x": 1}
    events = read([limits, created(), completed()])
    [start, *_] = read([created(), completed()])
    assert events[0] == start
    assert wire(events) == [(-1, limits)]
    own = {"type": "response.mood", "response": created()["response"]}
    assert read([own, created(), completed()])[0] == start


@pytest.mark.parametrize(
    ("given", "expected"), [(1.9, 1), (-1, 0), ("x", 0), (None, 0), (True, 0), (1e300, 0)]
)
def test_created_at(given: Any, expected: int) -> None:
    """A fraction is cut off (transformers), nonsense is 0."""
    assert read([created(created_at=given)])[0] == Started(
        "resp_1", "up", expected, {"responses": {"response": {}}}
    )


# Ends.

ENDS: list[tuple[Json, str, str | None]] = [
    (
        {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
        "length",
        None,
    ),
    (
        {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
        "content_filter",
        None,
    ),
    ({"status": "incomplete", "incomplete_details": {"reason": "tired"}}, "length", "tired"),
    ({"status": "incomplete", "incomplete_details": None}, "length", None),
    ({"status": "in_progress"}, "stop", None),
    ({"status": ["?"]}, "stop", None),
]


@pytest.mark.parametrize(("fields", "reason", "raw"), ENDS)
def test_reasons(fields: Json, reason: str, raw: str | None) -> None:
    """The status of the final object decides, and a word that we do not know is kept."""
    events = read([created(), completed(**fields)])
    finished = next(event for event in events if isinstance(event, Finished))
    assert finished.reason == reason
    assert finished.extra == ({"responses": {"reason": raw}} if raw else None)


@pytest.mark.parametrize("status", [None, "completed", "incomplete", "failed", "cancelled"])
def test_done_is_a_terminal_event(status: str | None) -> None:
    """Codex's backend ends with `response.done`; its response object says how."""
    begun, response = [created(), done(message("Hi"))], {"id": "resp_1", "status": status}
    assert read([*begun, {"type": "response.done", "response": response}]) == read(
        [*begun, {"type": f"response.{status or 'completed'}", "response": response}]
    )


def test_a_part_opens_with_its_beginning() -> None:
    """The text of `added` counts: of a message, of a summary, and of a part that ends with it."""
    opened = {**TEXT, "text": "Hel"}
    head = [created(), added(message()), part_added(opened, **AT)]
    whole = [done(message("Hello")), completed([message("Hello")])]
    reply = good([*head, delta("output_text", "lo", **AT), *whole])
    assert reply.items[0].text("text") == "Hello"
    assert good([*head, *whole]).items[0].text("text") == "Hello"
    again = part_added(opened, **AT)
    reply = good([*head, delta("output_text", "lo", **AT), again, *whole])
    assert reply.items[0].text("text") == "Hello"
    refusal = {"type": "refusal", "refusal": "N"}
    more = delta("refusal", "o", **AT)
    reply = good([created(), added(message()), part_added(refusal, **AT), more, completed()])
    assert reply.items[0].text("refusal") == "No"


def test_incomplete_by_the_event_alone() -> None:
    """`response.incomplete` counts without a status; the item that grew last is incomplete."""
    reply = good(
        [
            created(),
            added(message()),
            delta("output_text", "Hi", **AT),
            {"type": "response.incomplete", "response": {}},
        ]
    )
    assert reply.reasons == {0: "length"}
    assert reply.items[0].status == "incomplete"


def test_statuses_of_items() -> None:
    """An item's own status is kept."""
    reply = good(
        [
            created(),
            done(message("Hi", status="incomplete")),
            done(call("{}", status=3), 1),
            done({"type": "mcp_call", "id": "m", "status": "failed"}, 2),
            completed(),
        ]
    )
    assert [item.status for item in reply.items.values()] == ["incomplete", "completed", "failed"]


FAILURES: list[tuple[Json, int, str | None, str]] = [
    (
        {"type": "response.failed", "response": {"error": {"code": "x", "message": "m"}}},
        502,
        "x",
        "m",
    ),
    (
        {"type": "response.failed", "response": {"error": None}},
        502,
        None,
        "the upstream's response was failed",
    ),
    (
        {"type": "response.cancelled", "response": {}},
        502,
        None,
        "the upstream's response was cancelled",
    ),
    (
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow", "param": None},
        429,
        "rate_limit_exceeded",
        "slow",
    ),
    (
        {"type": "error", "error": {"type": "invalid_request_error", "message": "bad"}},
        400,
        None,
        "bad",
    ),
    ({"error": {"message": "boom", "code": "500"}}, 500, "500", "boom"),
    ({"error": "boom"}, 502, None, "boom"),
]


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(("event", "status", "code", "words"), FAILURES)
def test_an_error_inside_the_stream(
    event: Json, status: int, code: str | None, words: str, begun: bool
) -> None:
    """Every form of an error is a `Failed` with a true status, first event or not."""
    last = read([*([created()] if begun else []), event])[-1]
    assert isinstance(last, Failed)
    error = last.error
    assert (error.status, error.code, error.message) == (status, code, words)
    assert error.fault == "upstream"


def test_a_failed_response_still_counts_its_tokens() -> None:
    """The usage of a failed response is reported before the failure."""
    usage = {"input_tokens": 3, "output_tokens": True}
    events = read(
        [created(), {"type": "response.failed", "response": {"usage": usage}, "timings": {"a": 1}}]
    )
    assert [type(event) for event in events] == [Started, UsageReported, Failed]
    assert events[1].usage == Usage(input_tokens=3)  # type: ignore[union-attr]  # told above
    assert events[2].extra == {"responses": {"event": {"timings": {"a": 1}}}}


# What only this format knows.


def wire(events: list[Event]) -> list[tuple[int, Json]]:
    return [
        (event.item, (event.extra or {})["responses"]["event"])
        for event in events
        if isinstance(event, Annotated) and event.kind == "wire"
    ]


def test_hosted_items_and_their_progress_are_kept_whole() -> None:
    """A hosted item is opaque, and every event about it is kept but for its number."""
    search = {"type": "web_search_call", "id": "ws_1", "status": "in_progress"}
    over = {**search, "status": "completed", "action": {"type": "search", "query": "q"}}
    place = {"item_id": "ws_1", "output_index": 0}
    odd = [
        {"type": "response.web_search_call.searching", **place, "sequence_number": 4},
        {"type": "response.output_text.delta", "delta": "?", **place},
        {"type": "response.output_text.done", "text": "?", **place},
        {"type": "response.output_text.annotation.added", "annotation": {}, **place},
        part_added(TEXT, **place),
        part_done({**TEXT, "text": "x"}, **place),
    ]
    events = read([created(), added(search), *odd, done(over), completed([over])])
    assert isinstance(events[-1], Ended)
    assert events[1] == ItemStarted(
        0, "opaque", 0, "ws_1", "web_search_call", extra={"responses": {"item": search}}
    )
    assert wire(events) == [
        (0, {key: event[key] for key in event if key != "sequence_number"}) for event in odd
    ]
    assert ItemEnded(0, extra={"responses": {"item": over}}) in events
    again = read([created(), done(over), added(over), completed()])
    assert sum(isinstance(event, ItemStarted) for event in again) == 2


@pytest.mark.fault(29, "V")
def test_unknown_events_and_fields_are_kept() -> None:
    """What we do not know is kept: on the reply, on the event, on the part, on the item."""
    strange = {"type": "response.mood", "mood": "fine"}
    lost = {"type": "response.x.progress", "item_id": "nobody"}
    beside = {"model": "up"}
    events = read(
        [
            {**created(), "timings": 1},
            strange,
            lost,
            {"type": "codex.rate_limits", "error": None},
            {**added(message(x=1)), **beside},
            {**part_added({**TEXT, "y": 2}, **AT), **beside},
            {**delta("output_text", "Hi", **AT), **beside},
            {**text_done("output_text", "text", "Hi", **AT), **beside},
            {**part_done({**TEXT, "text": "Hi", "y": 3}, **AT), "z": 1},
            {**done(message("Hi", x=1)), **beside},
            {**completed(), **beside},
        ]
    )
    assert wire(events) == [
        (-1, strange),
        (-1, lost),
        (-1, {"type": "codex.rate_limits", "error": None}),
    ]
    extras = {
        type(event).__name__: (event.extra or {}).get("responses")
        for event in events
        if not isinstance(event, Annotated)
    }
    assert extras == {
        "Started": {"response": {}, "event": {"timings": 1}},
        "ItemStarted": {"item": {"x": 1}, "event": beside},
        "PartStarted": {"part": {"y": 2}, "event": beside},
        "PartDelta": {"event": beside},
        "PartEnded": {"part": {"y": 3}, "event": beside, "closing": {"z": 1}},
        "ItemEnded": {"item": {"x": 1}, "event": beside},
        "Finished": None,
        "Ended": {"event": beside},
    }


def test_a_part_that_nobody_knows_is_kept() -> None:
    """A message with a part of an unknown type keeps its whole content list."""
    audio = {"type": "output_audio", "data": "AA"}
    whole = {**message(), "content": [audio, {**TEXT, "text": "Hi"}]}
    second = {**AT, "content_index": 1}
    events = read(
        [
            created(),
            added(message()),
            part_added(audio, **AT),
            part_done(audio, **AT),
            part_added(TEXT, item_id="msg_1"),
            delta("output_text", "Hi", **second),
            done(whole),
            completed([whole]),
        ]
    )
    assert isinstance(events[-1], Ended)
    assert [event["type"] for _, event in wire(events)] == [
        "response.content_part.added",
        "response.content_part.done",
    ]
    ended = next(event for event in events if isinstance(event, ItemEnded))
    assert ended.extra == {"responses": {"item": {"content": whole["content"]}}}
    alone = {**message(), "content": [audio]}
    assert ItemEnded(0, extra={"responses": {"item": {"content": [audio]}}}) in read(
        [created(), done(alone), completed()]
    )
    assert wire(read([created(), part_added(audio, item_id="x")]))[0][0] == -1


def test_obfuscation_passes_only_if_it_was_asked_for() -> None:
    """Padding against traffic analysis is kept for the client that wants it."""
    padded = delta("output_text", "Hi", **AT, obfuscation="abc")
    strange = {"type": "response.mood", "obfuscation": "abc"}
    asked = Request(model="m", items=[], format="responses", include_obfuscation=True)
    for request, kept in ((ASKED, {}), (asked, {"obfuscation": "abc"})):
        events = read([created(), padded, strange, completed()], request)
        grown = next(event for event in events if isinstance(event, PartDelta))
        assert grown.extra == ({"responses": {"event": kept}} if kept else None)
        assert wire(events) == [(-1, {"type": "response.mood", **kept})]


# Whole bodies.


def whole(**fields: Any) -> bytes:
    body = {**created()["response"], "status": "completed", "output": [], **fields}
    return json.dumps(body).encode()


def test_a_whole_reply_is_the_events_of_its_stream() -> None:
    """A JSON body becomes what a stream would: one delta per part."""
    output = [message("Hi"), call("{}")]
    streamed = read([created(), completed(output)])
    assert decode(whole(output=output)) == streamed


@pytest.mark.fault(7, "V")
@pytest.mark.parametrize(
    ("body", "code"),
    [
        (whole(status="in_progress"), "upstream_protocol_error"),
        (whole(status="queued"), "upstream_protocol_error"),
        (b"[]", "upstream_protocol_error"),
        (b'{"choices": []}', "upstream_protocol_error"),
        (b'{"error": {"message": "m", "code": "c"}}', "c"),
        (b'{"error": "m", "output": []}', None),
        (b'{"detail": "m"}', None),
        (whole(status="failed", error={"code": "server_error", "message": "m"}), "server_error"),
        (whole(status="cancelled"), None),
    ],
)
def test_a_whole_body_that_is_no_good_reply(body: bytes, code: str | None) -> None:
    """Errors with status 200, unfinished replies and other JSON are failures."""
    last = decode(body)[-1]
    assert isinstance(last, Failed)
    assert last.error.code == code


def test_a_whole_incomplete_reply() -> None:
    """A whole reply that was cut by its limit ends well, and says so."""
    body = whole(status="incomplete", incomplete_details={"reason": "max_output_tokens"})
    assert Finished(0, "length") in decode(body)


def test_a_background_reply_may_be_unfinished() -> None:
    """A client that asked for a background reply gets the queued one as it is."""
    request = Request(model="m", items=[], format="responses", extra={"background": True})
    events = decode(whole(status="queued", background=True), request)
    assert events[1:] == [
        Finished(0, "stop", {"responses": {"status": "queued"}}),
        Ended({"responses": {"response": {"background": True}}}),
    ]


# Recordings, cuts, and nonsense.


@pytest.mark.parametrize(
    "name", [one.name for one in recordings() if one.api == "responses" and one.status < 400]
)
def test_recordings(name: str) -> None:
    """Every recording of a real server is a legal reply that says all it said, cut anywhere."""
    one = recording(name)
    request = RESPONSES.parse_request(one.body)
    events = decode(one.data, request)
    decoder = RESPONSES.decoder(request, DEFAULT_LIMITS)
    cut: list[Event] = []
    for at in range(len(one.data)):
        cut += decoder.feed(one.data[at : at + 1])
    assert cut + decoder.close() == events
    reply = fold(events)
    if isinstance(events[-1], Failed):
        assert one.case == "transformers-responses-stream"
        assert events[-1].error.code == "server_error"
        return
    assert isinstance(events[-1], Ended)
    assert said(one)[0] == Said(
        text="".join(item.text("text") for item in reply.of_choice(0)),
        thought="".join(item.text("thought") for item in reply.of_choice(0)),
        calls=tuple((item.name, item.text("arguments")) for item in reply.tool_calls),
    )


WORDS = st.sampled_from(["msg_1", "fc_1", "", "Hi", "H", "{}", "completed", "failed", "x"])
ATOMS: st.SearchStrategy[Any] = st.none() | st.booleans() | st.integers(-1, 2) | WORDS
TYPES = st.sampled_from(["message", "reasoning", "function_call", "custom_tool_call", "web_search"])
PART_TYPES = st.sampled_from(["output_text", "refusal", "reasoning_text", "summary_text", "audio"])
PARTS = st.fixed_dictionaries(
    {},
    optional={
        "type": PART_TYPES | ATOMS,
        "text": ATOMS,
        "refusal": ATOMS,
        "annotations": st.lists(ATOMS | st.just({"type": "url_citation"}), max_size=2) | ATOMS,
        "logprobs": ATOMS | st.just([{"token": "x", "logprob": 0}]),
    },
)
ITEMS = st.fixed_dictionaries(
    {"type": TYPES | ATOMS},
    optional={
        "id": ATOMS,
        "call_id": ATOMS,
        "name": ATOMS,
        "arguments": ATOMS,
        "input": ATOMS,
        "status": ATOMS | st.just([]),
        "content": st.lists(PARTS | ATOMS, max_size=2) | ATOMS,
        "summary": st.lists(PARTS | ATOMS, max_size=2) | ATOMS,
        "encrypted_content": ATOMS,
    },
)
EVENTS: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            [
                "response.created",
                "response.output_item.added",
                "response.output_item.done",
                "response.content_part.added",
                "response.content_part.done",
                "response.output_text.delta",
                "response.output_text.done",
                "response.output_text.annotation.added",
                "response.reasoning_text.delta",
                "response.function_call_arguments.delta",
                "response.function_call_arguments.done",
                "response.web_search_call.searching",
                "response.completed",
                "error",
            ]
        )
        | ATOMS
        | st.just([])
    },
    optional={
        "item": ITEMS | ATOMS,
        "part": PARTS | ATOMS,
        "item_id": ATOMS | st.just({}),
        "output_index": ATOMS | st.just([]),
        "content_index": ATOMS,
        "delta": ATOMS,
        "text": ATOMS,
        "arguments": ATOMS,
        "annotation": ATOMS | st.just({"type": "url_citation"}),
        "error": ATOMS,
        "response": ATOMS
        | st.fixed_dictionaries(
            {},
            optional={
                "id": ATOMS,
                "model": ATOMS,
                "created_at": ATOMS | st.just(1.5),
                "status": ATOMS | st.just([]),
                "output": st.lists(ITEMS | ATOMS, max_size=2) | ATOMS,
                "usage": ATOMS | st.just({"input_tokens": "x", "input_tokens_details": 1}),
                "incomplete_details": ATOMS | st.just({"reason": []}),
            },
        ),
    },
)


@pytest.mark.fault(29, "V")
@pytest.mark.fault(30, "V")
@settings(deadline=None)  # a loaded machine is no failure
@given(st.lists(EVENTS | ATOMS, max_size=8), st.booleans())
def test_nonsense_never_crashes(events: list[Any], as_body: bool) -> None:
    """Whatever JSON comes, the decoder raises nothing, ends once, and its good ends are legal."""
    if as_body:
        data = json.dumps(
            events[0].get("response", {}) if events and isinstance(events[0], dict) else events
        ).encode()
    else:
        data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    decoded = decode(data)
    assert sum(isinstance(event, Ended | Failed) for event in decoded) == 1
    assert isinstance(decoded[-1], Ended | Failed)
    Grammar().check(decoded)
