"""The places in a chat request of members that have no place in the normal form.

The law of this file: it names what another format would lose (`messages[0].cache_control`), and
judges nothing. An object whose `type` is none of ours is one opaque thing, which is named as a
whole elsewhere, and so are the fields of the body itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..checks import join


MAX_PLACES = 64
"""Places that are named. They go into a header and a log line; who needs more knows by then."""

_Known = dict[str, Any]
"""Member -> what is known inside it: the same for an object or a list of such, None = no matter."""

_NAME: _Known = {"name": None}
_DETAIL: _Known = dict.fromkeys(("type", "text", "summary", "data", "id", "index", "format"))
_PART: _Known = {
    "type": {"text", "input_text", "output_text", "refusal", "image_url", "input_image",
             "input_audio", "file"},
    "text": None,
    "refusal": None,
    "detail": None,
    "image_url": {"url": None, "detail": None},
    "input_audio": {"data": None, "format": None},
    "file": {"file_id": None, "filename": None, "file_data": None},
}  # fmt: skip
_CALL: _Known = {
    "type": None,
    "id": None,
    "index": None,
    "function": {"name": None, "arguments": None},
    "custom": {"name": None, "input": None},
}
_MESSAGE: _Known = {
    "role": None,
    "content": _PART,
    "name": None,
    "refusal": None,
    "audio": None,
    "tool_call_id": None,
    "tool_calls": _CALL,
    "function_call": {"name": None, "arguments": None},
    "reasoning_content": None,
    "reasoning": None,
    "reasoning_details": _DETAIL,
}
_FUNCTION: _Known = dict.fromkeys(("name", "description", "parameters", "strict"))
_GRAMMAR: _Known = {"type": None, "grammar": {"definition": None, "syntax": None}}
_CHOICE: _Known = {
    "type": {"function", "custom"},
    "function": _NAME,
    "custom": _NAME,
}
_BODY: _Known = {
    "messages": _MESSAGE,
    "tools": {
        "type": {"function", "custom"},
        "function": _FUNCTION,
        "custom": {"name": None, "description": None, "format": _GRAMMAR},
    },
    "functions": _FUNCTION,
    "function_call": _NAME,
    "tool_choice": {
        **_CHOICE,
        "type": {"function", "custom", "allowed_tools"},
        "allowed_tools": {"mode": None, "tools": _CHOICE},
    },
    "response_format": {
        "type": {"text", "json_object", "json_schema"},
        "json_schema": {"name": None, "description": None, "schema": None, "strict": None},
    },
}


def leftover(body: dict[str, Any]) -> list[str]:
    """Name the members, below the top level, that the normal form does not hold."""
    places = (
        place for name, known in _BODY.items() for place in _unknown(body.get(name), known, name)
    )
    return list(islice(places, MAX_PLACES))


def _unknown(value: Any, known: _Known, where: str) -> Iterator[str]:
    if isinstance(value, list):
        for number, element in enumerate(value):
            yield from _unknown(element, known, f"{where}[{number}]")
    elif isinstance(value, dict):
        types = known.get("type")
        if types is not None and value.get("type") not in types:
            return
        for name, member in value.items():
            if member is None:
                continue
            if name not in known:
                yield join(where, name)
            elif name != "type" and known[name] is not None:
                yield from _unknown(member, known[name], join(where, name))
