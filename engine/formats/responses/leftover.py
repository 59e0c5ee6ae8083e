"""What another format would lose of a client's Responses request, by its place in the body.

The law of this file: every member that an item, a content part, a tool or the shape of the answer
may have and `request.py` has no place for is named, so that nothing is dropped in silence; what
says nothing (null, an empty list or object) is not. Items and tools of other types are opaque,
and named as a whole where they are dropped; the fields of the body itself are `Request.extra`.

Ids and statuses of earlier output are not named: they are the old server's, and mean nothing to
another one. A reasoning item that has nothing but its id is all of it lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..checks import JSON


MAX_NAMES = 64
"""Places that are named of one request: they go to a header and a log line."""

OWN = frozenset({"type", "id", "status"})

ITEMS: dict[str, frozenset[str]] = {
    "message": OWN | {"role", "content"},
    "function_call": OWN | {"call_id", "name", "arguments", "namespace"},
    "custom_tool_call": OWN | {"call_id", "name", "input", "namespace"},
    "function_call_output": OWN | {"call_id", "output"},
    "custom_tool_call_output": OWN | {"call_id", "output"},
    "reasoning": OWN | {"summary", "content", "encrypted_content"},
}
"""Type of an item -> the members that have a place."""

LISTS: dict[str, str] = {
    "message": "content",
    "function_call_output": "output",
    "custom_tool_call_output": "output",
}
"""Type of an item -> the member with its content parts."""

PARTS: dict[str, frozenset[str]] = {
    "input_text": frozenset({"type", "text"}),
    "output_text": frozenset({"type", "text"}),
    "text": frozenset({"type", "text"}),
    "refusal": frozenset({"type", "refusal"}),
    "input_image": frozenset({"type", "image_url", "file_id", "detail"}),
    "image_url": frozenset({"type", "image_url", "file_id", "detail"}),
    "input_file": frozenset({"type", "file_id", "filename", "file_data", "file_url"}),
    "input_audio": frozenset({"type", "input_audio"}),
}
"""Type of a content part -> the members that have a place."""

TOOLS: dict[str, frozenset[str]] = {
    "function": frozenset({"type", "name", "description", "parameters", "strict"}),
    "custom": frozenset({"type", "name", "description", "format"}),
    "namespace": frozenset({"type", "name", "description", "tools"}),
}
"""Type of a tool -> the members that have a place."""

SCHEMA = frozenset({"type", "name", "description", "schema", "strict"})
"""The members of `text.format` of type json_schema that have a place."""


def leftover(body: JSON) -> list[str]:
    """Name the places, `input[3].content[0].annotations`, at most `MAX_NAMES` of them.

    `body` has passed `parse_request`: what is read here has the right type.
    """
    return list(islice(_places(body), MAX_NAMES))


def _places(body: JSON) -> Iterator[str]:
    given = body.get("input")
    for number, item in enumerate(given if isinstance(given, list) else ()):
        yield from _of_item(item, f"input[{number}]")
    for number, tool in enumerate(body.get("tools") or ()):
        yield from _of_tool(tool, f"tools[{number}]")
    form = (body.get("text") or {}).get("format") or {}
    if form.get("type") == "json_schema":
        yield from _beyond(form, SCHEMA, "text.format")


def _of_item(item: JSON, where: str) -> Iterator[str]:
    kind = item.get("type") or ("message" if "role" in item else "item_reference")
    yield from _beyond(item, ITEMS.get(kind), where)
    if kind == "reasoning" and not any(
        item.get(member) for member in ("summary", "content", "encrypted_content")
    ):
        yield f"{where}.id"
    parts = item.get(LISTS.get(kind, ""))
    for number, part in enumerate(parts if isinstance(parts, list) else ()):
        place = f"{where}.{LISTS[kind]}[{number}]"
        yield from _beyond(part, PARTS.get(part["type"]), place)


def _of_tool(tool: JSON, where: str) -> Iterator[str]:
    yield from _beyond(tool, TOOLS.get(tool["type"]), where)
    if tool["type"] == "namespace":
        for number, member in enumerate(tool.get("tools") or ()):
            yield from _beyond(member, TOOLS.get(member["type"]), f"{where}.tools[{number}]")


def _beyond(value: JSON, known: frozenset[str] | None, where: str) -> Iterator[str]:
    for key in value:
        if known is not None and key not in known and not _is_nothing(value[key]):
            yield f"{where}.{key}"


def _is_nothing(value: Any) -> bool:
    return value is None or value in ([], {})
