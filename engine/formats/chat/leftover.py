"""What has a place in the normal form of a chat request, as a table; see `..leftover`.

An object of a type that is none of ours is one opaque thing, which is named as a whole elsewhere.
The place of a call or a detail among its neighbours (`index`) is what the list says anyway.
"""

from __future__ import annotations

from ..checks import JSON
from ..leftover import Kinds, Shape, leftover, members


_TEXT = members("type", "text")
_PICTURE = Shape(
    {"type": None, "image_url": members("url", "detail"), "detail": None},
    twins=(("detail", "image_url.detail"),),
)
_PART = Kinds(
    {
        "text": _TEXT,
        "input_text": _TEXT,
        "output_text": _TEXT,
        "refusal": members("type", "refusal"),
        "image_url": _PICTURE,
        "input_image": _PICTURE,
        "input_audio": members("type", input_audio=members("data", "format")),
        "file": members("type", file=members("file_id", "filename", "file_data")),
    }
)
_CALLED = members("name", "arguments")
_CALL = Kinds(
    {
        "function": members("type", "id", "index", function=_CALLED),
        "custom": members("type", "id", "index", custom=members("name", "input")),
    },
    default="function",
)
_DETAIL = Kinds(
    {
        "reasoning.encrypted": members("type", "index", data=str, id=str),
        "reasoning.summary": members("type", "index", summary=str),
        "reasoning.text": members("type", "index", text=str),
    },
    lost=True,
)
_HEARD = members("role", "name", content=_PART)
_ASSISTANT = Shape(
    {
        "role": None,
        "content": _PART,
        "name": None,
        "refusal": None,
        "audio": None,
        "tool_calls": _CALL,
        "function_call": _CALLED,
        "reasoning_content": None,
        "reasoning": None,
        "reasoning_details": _DETAIL,
    },
    twins=(("function_call", "tool_calls"),),
)
_MESSAGE = Kinds(
    {
        "system": _HEARD,
        "developer": _HEARD,
        "user": _HEARD,
        "assistant": _ASSISTANT,
        "tool": members("role", "tool_call_id", content=_PART),
        "function": _HEARD,
    },
    tag="role",
)

_FUNCTION = members("name", "description", "parameters", "strict")
_GRAMMAR = Kinds({"grammar": members("type", grammar=members("definition", "syntax"))})
_TOOL = Kinds(
    {
        "function": members("type", function=_FUNCTION),
        "custom": members("type", custom=members("name", "description", format=_GRAMMAR)),
    }
)
_NAMED = {
    "function": members("type", function=members("name")),
    "custom": members("type", custom=members("name")),
}
_CHOICE = Kinds(
    {
        **_NAMED,
        "allowed_tools": members("type", allowed_tools=members("mode", tools=Kinds(_NAMED))),
    }
)
_SCHEMA = members("name", "description", "schema", "strict")
_FORMAT = Kinds(
    {
        "text": members("type"),
        "json_object": members("type"),
        "json_schema": members("type", json_schema=_SCHEMA),
    }
)

_BODY = Shape(
    {
        "messages": _MESSAGE,
        "tools": _TOOL,
        "functions": _FUNCTION,
        "function_call": members("name"),
        "tool_choice": _CHOICE,
        "response_format": _FORMAT,
    },
    twins=(
        ("max_tokens", "max_completion_tokens"),
        ("reasoning.effort", "reasoning_effort"),
        ("function_call", "tool_choice"),
        ("parallel_tool_calls", "functions"),
    ),
)


def places(body: JSON) -> list[str]:
    """Name the members, below the top level, that the normal form does not hold."""
    return leftover(body, _BODY)
