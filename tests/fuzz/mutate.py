"""A reply, broken a little: as bytes, as frames, or as the JSON inside a frame.

Blind changes of bytes mostly break the JSON and go no further, so most changes here keep the form
and break the meaning: members that are missing, doubled, renamed or of another type; events that
come twice, too late, or never.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any


ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 127, 128, 2**31, 2**53, 2**63, 10**30, 1.5, 1e300),
    *("", " ", "\n", "x", "\ud83d", "\U0001f40e", "\u2028", "0", "stop", "length", "error"),
    *(
        "message",
        "reasoning",
        "function_call",
        "custom_tool_call",
        "web_search_call",
        "output_text",
    ),
    *("refusal", "reasoning_text", "summary_text", "failed", "incomplete", "call_tokyo", "run"),
    *([], [[]], [None], [0], ["x"], [{}], {}, {"": {}}, {"type": "x"}, {"text": 0}),
    *({"type": "text", "text": "t"}, {"error": {"message": "e"}}, {"token": "t", "logprob": 0}),
)
"""Values that stand where another one is expected."""

KEYS = (
    *("id", "type", "index", "error", "choices", "delta", "message", "content", "finish_reason"),
    *("role", "refusal", "tool_calls", "function", "arguments", "name", "custom", "input", "usage"),
    *("function_call", "reasoning_content", "reasoning", "reasoning_details", "annotations"),
    *("logprobs", "output_index", "content_index", "summary_index", "item_id", "item", "part"),
    *("output", "status", "summary", "text", "response", "encrypted_content", "call_id", "created"),
    *("", "x", "a b", "event", "data", "sequence_number", "object", "model", "service_tier"),
)

BYTES = (
    *(b"\n", b"\r", b"\r\n", b"\n\n", b"data: ", b"data:", b"event: x\n", b": beat\n\n", b"\x00"),
    *(
        b"data: [DONE]\n\n",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\xf0\x9f",
        b"{",
        b"}",
        b'"',
        b"\\",
        b"[",
        b"]",
    ),
    *(b"null", b"1e999", b"\\ud83d", b"<html>", b",", b":", b" "),
)

_END = re.compile(rb"(?<=\n\n)")


def mutant(data: bytes, rng: random.Random) -> bytes:
    """The data after one to four changes."""
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        data = rng.choice(_CHANGES)(data, rng)
    return data


def _change_bytes(data: bytes, rng: random.Random) -> bytes:
    at = rng.randint(0, len(data))
    end = min(len(data), at + rng.choice((0, 1, 1, 2, 8, 64)))
    match rng.randrange(4):
        case 0:
            return data[:at] + data[end:]
        case 1:
            return data[:end] + data[at:]
        case 2:
            return data[:at] + rng.choice(BYTES) + data[at:]
        case _:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]


def _change_frames(data: bytes, rng: random.Random) -> bytes:
    frames = [frame for frame in _END.split(data) if frame]
    if len(frames) < 2:
        return _change_bytes(data, rng)
    one, other = rng.randrange(len(frames)), rng.randrange(len(frames))
    match rng.randrange(6):
        case 0:
            del frames[one]
        case 1:
            frames.insert(other, frames[one])
        case 2:
            frames[one], frames[other] = frames[other], frames[one]
        case 3:
            frames.insert(other, frames.pop(one))
        case 4:
            del frames[one:]
        case _:
            del frames[min(one, other) : max(one, other)]
    return b"".join(frames)


def _change_json(data: bytes, rng: random.Random) -> bytes:
    """Change one value, key or list inside the JSON of a whole body, or of one frame."""
    starts = [match.start() for match in re.finditer(rb"(?<=data: )\{", data)] or [0]
    at = rng.choice(starts)
    end = data.find(b"\n", at) if len(starts) > 1 or data[:1] != b"{" else len(data)
    try:
        value = json.loads(data[at : end if end >= 0 else len(data)])
    except ValueError:
        return _change_bytes(data, rng)
    text = json.dumps(changed(value, rng)).encode("utf-8", "replace")
    return data[:at] + text + (data[end:] if end >= 0 else b"")


def changed(value: Any, rng: random.Random) -> Any:
    """A copy of a JSON value with one change, somewhere inside it."""
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    copy = [json.loads(json.dumps(value))]
    walk(copy)
    node, key = rng.choice(places)
    donor, donated = rng.choice(places)
    match rng.randrange(7):
        case 0 | 1:
            node[key] = rng.choice(ODD)
        case 2:
            node[key] = json.loads(json.dumps(donor[donated]))
        case 3 if node is not copy:
            del node[key]
        case 4 if isinstance(node, dict):
            node[rng.choice(KEYS)] = node[key] if rng.random() < 0.5 else node.pop(key)
        case 5 if isinstance(node, dict):
            node[rng.choice(KEYS)] = rng.choice(ODD)
        case _ if isinstance(node, list) and node is not copy:
            node.insert(rng.randint(0, len(node)), json.loads(json.dumps(node[key])))
        case _:
            node[key] = [node[key]] if rng.random() < 0.5 else str(node[key])
    return copy[0]


_CHANGES: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    _change_bytes,
    _change_frames,
    _change_frames,
    _change_json,
    _change_json,
    _change_json,
    _change_json,
)
