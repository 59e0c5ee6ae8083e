"""What a client finds in the bytes it got, read with the official SDK's own types.

Each function first holds the bytes to the laws of their API, then lets the SDK parse and fold
them, and says the result as `Said`. Nothing of our code takes part.
"""

from __future__ import annotations

import json
from typing import Any

from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from .kinds import Call, Said
from .laws import check_chat_stream, check_responses_stream
from .schemas import check_chat_completion, check_response
from .scripted import Json


_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


# Chat.


def chat_stream(data: bytes, *, n: int = 1, usage: bool | None = True) -> tuple[list[Said], Json]:
    """Read a good chat stream: what each choice says, and the completion as the SDK folds it."""
    chunks = check_chat_stream(data, n=n, usage=usage)
    state = ChatCompletionStreamState()
    for chunk in chunks:
        # The SDK's own accumulator has no place for a custom call: it parses, and we fold it.
        state.handle_chunk(ChatCompletionChunk.model_validate(_as_sdk_streams(chunk)))
    folded = state.current_completion_snapshot.model_dump(exclude_unset=True)
    for number, choice in enumerate(folded["choices"]):
        customs = _custom_calls(chunks, number)
        for index, call in enumerate(choice["message"].get("tool_calls") or ()):
            if index in customs:
                choice["message"]["tool_calls"][index] = customs[index]
            call.pop("index", None)
            (call.get("function") or {}).pop("parsed_arguments", None)
    return [_chat_said(choice, folded.get("usage")) for choice in folded["choices"]], folded


def _as_sdk_streams(chunk: Json) -> Json:
    """The chunk with custom calls as empty functions, since the SDK streams nothing else."""
    copy = json.loads(json.dumps(chunk))
    for choice in copy["choices"]:
        for call in choice["delta"].get("tool_calls", ()):
            if (custom := call.pop("custom", None)) is not None:
                call["function"] = {"arguments": ""}
                if "type" in call:
                    call["type"] = "function"
                    call["function"]["name"] = custom["name"]
    return dict(copy)


def _custom_calls(chunks: list[Json], number: int) -> dict[int, Json]:
    found: dict[int, Json] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            for call in choice["delta"].get("tool_calls", ()) if choice["index"] == number else ():
                if custom := call.get("custom"):
                    first = {"id": call.get("id"), "type": "custom", "custom": dict(custom)}
                    if call["index"] not in found:
                        found[call["index"]] = first
                    else:
                        found[call["index"]]["custom"]["input"] += custom.get("input", "")
    return found


def chat_whole(data: bytes, *, n: int = 1) -> tuple[list[Said], Json]:
    """Read a whole chat completion."""
    body = check_chat_completion(json.loads(data))
    assert [choice["index"] for choice in body["choices"]] == list(range(n))
    ChatCompletion.model_validate(body)
    return [_chat_said(choice, body.get("usage")) for choice in body["choices"]], body


def _chat_said(choice: Json, usage: Json | None) -> Said:
    message = choice["message"]
    details = message.get("reasoning_details") or []
    calls = [
        Call(call["id"], call["custom"]["name"], call["custom"]["input"], custom=True)
        if call["type"] == "custom"
        else Call(call["id"], call["function"]["name"], call["function"]["arguments"])
        for call in message.get("tool_calls") or ()
    ]
    entries = (choice.get("logprobs") or {}).get("content") or []
    return Said(
        texts=(message["content"],) if message.get("content") else (),
        refusal=message.get("refusal") or "",
        thought=message.get("reasoning_content") or "",
        sealed=tuple(one["data"] for one in details if one["type"] == "reasoning.encrypted"),
        calls=tuple(calls),
        citations=tuple(
            {"type": "url_citation", **one["url_citation"]}
            for one in message.get("annotations") or ()
        ),
        logprobs=tuple((entry["token"], entry["logprob"]) for entry in entries),
        finish=choice["finish_reason"],
        usage=_usage(usage, "prompt", "completion"),
    )


def _usage(usage: Json | None, given: str, made: str) -> tuple[int, int, int, int]:
    usage = usage or {}
    return (
        usage.get(f"{given}_tokens", 0),
        usage.get(f"{made}_tokens", 0),
        (usage.get(f"{given}_tokens_details") or {}).get("cached_tokens") or 0,
        (usage.get(f"{made}_tokens_details") or {}).get("reasoning_tokens") or 0,
    )


# Responses.


def responses_stream(data: bytes, status: str | None = None) -> tuple[Said, Json]:
    """Read a good Responses stream: what it says, and its final Response."""
    events = check_responses_stream(data, status=status)
    for event in events:
        _EVENT.validate_python(event)
    last = events[-1]["response"]
    # The laws say that the final output is what was streamed; so one reading is enough.
    return responses_said(last), last


def responses_whole(data: bytes) -> tuple[Said, Json]:
    """Read a whole Response."""
    body = check_response(json.loads(data))
    Response.model_validate(body)
    return responses_said(body), body


def responses_said(response: Json) -> Said:
    texts: list[str] = []
    refusal, thought = "", ""
    summaries: list[str] = []
    sealed: list[str] = []
    calls: list[Call] = []
    citations: list[Json] = []
    logprobs: list[tuple[str, float]] = []
    for item in response["output"]:
        match item["type"]:
            case "message":
                parts = item["content"]
                texts.append("".join(part.get("text", "") for part in parts))
                refusal += "".join(part.get("refusal", "") for part in parts)
                for part in parts:
                    citations += part.get("annotations", ())
                    entries = part.get("logprobs") or ()
                    logprobs += [(entry["token"], entry["logprob"]) for entry in entries]
            case "reasoning":
                thought += "".join(part["text"] for part in item.get("content") or ())
                summaries += [part["text"] for part in item["summary"]]
                if item.get("encrypted_content"):
                    sealed.append(item["encrypted_content"])
            case "function_call":
                calls.append(
                    Call(
                        item["call_id"],
                        item["name"],
                        item["arguments"],
                        namespace=item.get("namespace") or "",
                    )
                )
            case "custom_tool_call":
                calls.append(Call(item["call_id"], item["name"], item["input"], custom=True))
            case _:
                pass
    if response["status"] == "completed":
        finish = "tool_calls" if calls else "stop"
    else:
        reason = response["incomplete_details"]["reason"]
        finish = "length" if reason == "max_output_tokens" else str(reason)
    return Said(
        texts=tuple(texts),
        refusal=refusal,
        thought=thought,
        summaries=tuple(summaries),
        sealed=tuple(sealed),
        calls=tuple(calls),
        citations=tuple(citations),
        logprobs=tuple(logprobs),
        finish=finish,
        usage=_usage(response["usage"], "input", "output"),
    )
