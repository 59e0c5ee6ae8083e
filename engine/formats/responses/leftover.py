"""What has a place in the normal form of a Responses request, as a table; see `..leftover`.

Items and tools of other types are opaque, and named as a whole where they are dropped. Ids and
statuses of earlier output are not named: they are the old server's, and mean nothing to another
one.
"""

from __future__ import annotations

from ..checks import JSON
from ..leftover import Kinds, Known, Shape, leftover, members


_TEXT = members("type", "text")
_PICTURE = Shape(
    {"type": None, "image_url": members("url", "detail"), "file_id": None, "detail": None},
    twins=(
        ("image_url.detail", "detail"),
        ("file_id", "image_url"),  # a server takes the one or the other
    ),
)
_PART = Kinds(
    {
        "input_text": _TEXT,
        "output_text": _TEXT,
        "text": _TEXT,
        "refusal": members("type", "refusal"),
        "input_image": _PICTURE,
        "image_url": _PICTURE,
        "input_file": members("type", "file_id", "filename", "file_data", "file_url"),
        "input_audio": members("type", input_audio=members("data", "format")),
    }
)


def _item(*names: str, **inner: Known) -> Shape:
    return members("type", "id", "status", *names, **inner)


def _words(word: str) -> Shape:
    return members("text", type=frozenset({word, "text"}))


_REASONING = _item(
    "encrypted_content", summary=_words("summary_text"), content=_words("reasoning_text")
)
_ITEM = Kinds(
    {
        "message": _item("role", content=_PART),
        "function_call": _item("call_id", "name", "arguments", "namespace"),
        "custom_tool_call": _item("call_id", "name", "input", "namespace"),
        "function_call_output": _item("call_id", output=_PART),
        "custom_tool_call_output": _item("call_id", output=_PART),
        "reasoning": _REASONING,
    },
    default="message",
)

_FUNCTION = members("type", "name", "description", "parameters", "strict")
_GRAMMAR = Kinds(
    {"grammar": members("type", "definition", "syntax"), "text": members("type")}, lost=True
)
_PLAIN_TOOLS = {
    "function": _FUNCTION,
    "custom": members("type", "name", "description", format=_GRAMMAR),
}
_TOOL = Kinds(
    {
        **_PLAIN_TOOLS,
        "namespace": members("type", "name", "description", tools=Kinds(_PLAIN_TOOLS)),
    }
)
_NAME = members("type", "name", "namespace")
_NAMED = {"function": _NAME, "custom": _NAME}
_CHOICE = Kinds({**_NAMED, "allowed_tools": members("type", "mode", tools=Kinds(_NAMED))})
_FORMAT = Kinds(
    {
        "text": members("type"),
        "json_object": members("type"),
        "json_schema": members("type", "name", "description", "schema", "strict"),
    }
)

_BODY = Shape(
    {
        "input": _ITEM,
        "tools": _TOOL,
        "tool_choice": _CHOICE,
        "text.format": _FORMAT,
    },
    twins=(("reasoning.generate_summary", "reasoning.summary"),),
)


def places(body: JSON) -> list[str]:
    """Name the members, below the top level, that the normal form does not hold."""
    return leftover(body, _BODY)
