"""What the upstream says: whole streams of either API, as bytes that are made once.

The law of this file: the streams are good ones by the public schemas (the tests hold this), and
of the size that real ones have, about 300 bytes per chunk of Chat Completions. Nothing is made
while a stream runs.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from .order import token
from .plan import Api, Plan


CREATED = 1_700_000_000
USAGE_INPUT = 16

Json = dict[str, Any]

Tokens = Callable[[], Iterator[str]]
"""The texts of the deltas, from the first one, as often as they are asked for."""

Frames = tuple[list[bytes], Iterator[bytes], Callable[[], list[bytes]]]
"""The events before the first token; those of the tokens; what makes those after the last."""


@functools.cache
def writes(plan: Plan, usage: bool) -> tuple[bytes, ...]:
    """The body of one answer, cut into the pieces that leave in one write each.

    Every event is an HTTP chunk. What comes before the first token is one write, what comes after
    the last another; in between every write carries `plan.per_write` events.
    """
    before, deltas, after = events(plan, usage)
    step = plan.per_write
    middle = [deltas[at : at + step] for at in range(0, len(deltas), step)]
    groups = [before, *middle, after]
    pieces = [b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in group) for group in groups]
    pieces[-1] += b"0\r\n\r\n"
    return tuple(pieces)


def events(plan: Plan, usage: bool) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The server-sent events: before the first token, the tokens, after the last.

    `usage`: the client asked for it (Chat Completions only; Responses always has it).
    """
    before, deltas, after = frames(
        plan.api, plan.model, plan.events, lambda: map(token, range(plan.events)), usage=usage
    )
    return before, list(deltas), after()


def frames(api: Api, model: str, count: int, tokens: Tokens, *, usage: bool) -> Frames:
    """The same, made one by one: for streams that are all different. `count`: of the tokens."""
    if api == "chat":
        return _chat(model, count, tokens, usage=usage)
    return _responses(model, count, tokens)


def _frame(data: Json | str, name: str = "") -> bytes:
    line = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return (f"event: {name}\ndata: {line}\n\n" if name else f"data: {line}\n\n").encode()


def _chat(model: str, count: int, tokens: Tokens, *, usage: bool) -> Frames:
    def chunk(choices: list[Json], report: Json | None = None) -> bytes:
        return _frame(
            {
                "id": "chatcmpl-bench0000000000000000000000",
                "object": "chat.completion.chunk",
                "created": CREATED,
                "model": model,
                "service_tier": "default",
                "system_fingerprint": "fp_bench000000",
                "choices": choices,
                **({"usage": report} if usage else {}),
            }
        )

    def choice(delta: Json, reason: str | None = None) -> list[Json]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    def after() -> list[bytes]:
        events = [chunk(choice({}, "stop"))]
        if usage:
            report = {
                "prompt_tokens": USAGE_INPUT,
                "completion_tokens": count,
                "total_tokens": USAGE_INPUT + count,
            }
            events.append(chunk([], report))
        return [*events, _frame("[DONE]")]

    return (
        [chunk(choice({"role": "assistant", "content": ""}))],
        (chunk(choice({"content": said})) for said in tokens()),
        after,
    )


def _responses(model: str, count: int, tokens: Tokens) -> Frames:
    item_id = "msg_bench00000000000000000000000000000000000000"
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"id": item_id, "type": "message", "role": "assistant"}
    place = {"item_id": item_id, "output_index": 0, "content_index": 0}
    numbers = iter(range(count + 16))

    def event(name: str, **fields: Any) -> bytes:
        head = {"type": f"response.{name}", "sequence_number": next(numbers)}
        return _frame({**head, **fields}, f"response.{name}")

    def after() -> list[bytes]:
        whole = {**part, "text": "".join(tokens())}
        ended = {**item, "status": "completed", "content": [whole]}
        return [
            event("output_text.done", **place, text=whole["text"], logprobs=[]),
            event("content_part.done", **place, part=whole),
            event("output_item.done", output_index=0, item=ended),
            event("completed", response=_response(model, count, "completed", [ended])),
        ]

    begun = _response(model, count, "in_progress", [])
    before = [
        event("created", response=begun),
        event("in_progress", response=begun),
        event(
            "output_item.added",
            output_index=0,
            item={**item, "status": "in_progress", "content": []},
        ),
        event("content_part.added", **place, part=part),
    ]
    deltas = (event("output_text.delta", **place, delta=said, logprobs=[]) for said in tokens())
    return before, deltas, after


def _response(model: str, count: int, status: str, output: list[Json]) -> Json:
    """The Response object, with every field that the schemas ask for."""
    done = status == "completed"
    usage = {
        "input_tokens": USAGE_INPUT,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": count,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": USAGE_INPUT + count,
    }
    return {
        "id": "resp_bench0000000000000000000000000000000000000",
        "object": "response",
        "created_at": CREATED,
        "completed_at": CREATED + 1 if done else None,
        "status": status,
        "background": False,
        "error": None,
        "frequency_penalty": 0.0,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "max_tool_calls": None,
        "metadata": {},
        "model": model,
        "output": output,
        "parallel_tool_calls": True,
        "presence_penalty": 0.0,
        "previous_response_id": None,
        "prompt_cache_key": None,
        "reasoning": None,
        "safety_identifier": None,
        "service_tier": "default",
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_logprobs": 0,
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": usage if done else None,
    }
