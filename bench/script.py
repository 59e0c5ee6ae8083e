"""What the upstream says: whole streams of either API, as bytes that are made once.

The law of this file: the streams are good ones by the public schemas (the tests hold this), and
of the size that real ones have, 200 to 300 bytes per chunk of Chat Completions. Nothing is made
while a stream runs; a stamp (`Dress`) is put in its place when the event leaves.
"""

from __future__ import annotations

import functools
import json
import random
import string
from collections.abc import Callable, Iterator
from typing import Any

from .order import NO_STAMP, token
from .plan import Api, Dress, Plan


CREATED = 1_700_000_000
USAGE_INPUT = 16
PADDING = 16
"""Characters of the longest `obfuscation`, with which the service hides the length of its words."""

CHAT_ID = "chatcmpl-bench0000000000000000000000"
ITEM_ID = "msg_bench00000000000000000000000000000000000000"

Json = dict[str, Any]

Tokens = Callable[[], Iterator[str]]
"""The texts of the deltas, from the first one, as often as they are asked for."""

Frames = tuple[list[bytes], Iterator[bytes], Callable[[], list[bytes]]]
"""The events before the first token; those of the tokens; what makes those after the last."""


@functools.cache
def writes(plan: Plan, usage: bool) -> tuple[bytes, ...]:
    """The body of one answer, cut into the pieces that leave in one write each.

    Every event is an HTTP chunk. What comes before the first token is one write, what comes after
    the last another; in between every write carries `plan.per_write` events. A paced stream says
    its first tokens at once.
    """
    before, deltas, after = events(plan, usage)
    step = plan.per_write
    middle = [deltas[at : at + step] for at in range(0, len(deltas), step)]
    if plan.pause:
        before = [*before, *middle.pop(0)]
    groups = [before, *middle, after]
    pieces = [b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in group) for group in groups]
    pieces[-1] += b"0\r\n\r\n"
    return tuple(pieces)


def events(plan: Plan, usage: bool) -> tuple[list[bytes], list[bytes], list[bytes]]:
    """The server-sent events: before the first token, the tokens, after the last.

    `usage`: the client asked for it (Chat Completions only; Responses always has it).
    """
    stamp = NO_STAMP.decode() if plan.dress == "stamped" else ""

    def tokens() -> Iterator[str]:
        return (token(number) + stamp for number in range(plan.events))

    before, deltas, after = frames(
        plan.api, plan.model, plan.events, tokens, usage=usage, dress=plan.dress
    )
    return before, list(deltas), after()


def frames(
    api: Api, model: str, count: int, tokens: Tokens, *, usage: bool, dress: Dress = "plain"
) -> Frames:
    """The same, made one by one: for streams that are all different. `count`: of the tokens."""
    if api == "chat":
        return _chat(model, count, tokens, usage=usage, dress=dress)
    return _responses(model, count, tokens, dress=dress)


def whole(plan: Plan) -> bytes:
    """The reply of a plan as one body."""
    said = "".join(map(token, range(plan.events)))
    if plan.api == "chat":
        message = {"role": "assistant", "content": said, "refusal": None}
        body: Json = {
            "id": CHAT_ID,
            "object": "chat.completion",
            "created": CREATED,
            "model": plan.model,
            "choices": [
                {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
            ],
            "usage": _chat_usage(plan.events),
        }
    else:
        part = {"type": "output_text", "text": said, "annotations": [], "logprobs": []}
        item = {"id": ITEM_ID, "type": "message", "role": "assistant", "status": "completed"}
        body = _response(plan.model, plan.events, "completed", [{**item, "content": [part]}])
    return json.dumps(body, separators=(",", ":")).encode()


def logprob_entry(said: str) -> Json:
    """The log probability of one token, as both APIs write it."""
    return {"token": said, "logprob": -0.0123, "bytes": list(said.encode()), "top_logprobs": []}


def _paddings(dress: Dress) -> Iterator[Json]:
    """What goes at the end of each event, time after time."""
    draw = random.Random(1)
    while True:
        length = draw.randint(1, PADDING)
        letters = "".join(draw.choices(string.ascii_letters + string.digits, k=length))
        yield {"obfuscation": letters} if dress in {"openai", "logprobs"} else {}


def _frame(data: Json | str, name: str = "") -> bytes:
    line = data if isinstance(data, str) else json.dumps(data, separators=(",", ":"))
    return (f"event: {name}\ndata: {line}\n\n" if name else f"data: {line}\n\n").encode()


def _chat(model: str, count: int, tokens: Tokens, *, usage: bool, dress: Dress) -> Frames:
    ours = dress in {"openai", "logprobs"}
    tier = {"service_tier": "default", "system_fingerprint": "fp_bench000000"} if ours else {}
    paddings = _paddings(dress)

    def chunk(choices: list[Json], report: Json | None = None) -> bytes:
        return _frame(
            {
                "id": CHAT_ID,
                "object": "chat.completion.chunk",
                "created": CREATED,
                "model": model,
                **tier,
                "choices": choices,
                **({"usage": report} if usage else {}),
                **next(paddings),
            }
        )

    def choice(delta: Json, reason: str | None = None, said: str = "") -> list[Json]:
        entries = {"content": [logprob_entry(said)], "refusal": None}
        logprobs = entries if said and dress == "logprobs" else None
        return [{"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": reason}]

    def after() -> list[bytes]:
        events = [chunk(choice({}, "stop"))]
        if usage:
            events.append(chunk([], _chat_usage(count)))
        return [*events, _frame("[DONE]")]

    return (
        [chunk(choice({"role": "assistant", "content": ""}))],
        (chunk(choice({"content": said}, said=said)) for said in tokens()),
        after,
    )


def _chat_usage(count: int) -> Json:
    return {
        "prompt_tokens": USAGE_INPUT,
        "completion_tokens": count,
        "total_tokens": USAGE_INPUT + count,
    }


def _responses(model: str, count: int, tokens: Tokens, *, dress: Dress) -> Frames:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    item = {"id": ITEM_ID, "type": "message", "role": "assistant"}
    place = {"item_id": ITEM_ID, "output_index": 0, "content_index": 0}
    numbers = iter(range(count + 16))
    paddings = _paddings(dress)

    def event(name: str, **fields: Any) -> bytes:
        head = {"type": f"response.{name}", "sequence_number": next(numbers)}
        return _frame({**head, **fields}, f"response.{name}")

    def entries(said: Iterator[str]) -> list[Json]:
        return [logprob_entry(one) for one in said] if dress == "logprobs" else []

    def delta(said: str) -> bytes:
        body = {**place, "delta": said, "logprobs": entries(iter([said]))}
        return event("output_text.delta", **body, **next(paddings))

    def after() -> list[bytes]:
        whole = {**part, "text": "".join(tokens()), "logprobs": entries(tokens())}
        ended = {**item, "status": "completed", "content": [whole]}
        return [
            event("output_text.done", **place, text=whole["text"], logprobs=whole["logprobs"]),
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
    return before, map(delta, tokens()), after


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
