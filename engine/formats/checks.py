"""Taking a field out of a client's JSON: it has the right type, or the client is told which.

The law of this file: a field that is absent or null was not said (`None`); a field of a wrong type
is a `BadRequest` whose `param` is its path, `messages[3].content[0].image_url`. Words and codes
are those of OpenAI's service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import BadRequest
from ..request import Content, Item, OpaqueItem, Text


JSON = dict[str, Any]
T = TypeVar("T", str, bool, int, list[Any], JSON)

NAMES: dict[type, str] = {
    str: "a string",
    bool: "a boolean",
    int: "an integer",
    list: "an array",
    dict: "an object",
}


def wrong(what: str, path: str) -> BadRequest:
    """A field is there, and is not what it should be."""
    return BadRequest(f"Invalid '{path}': expected {what}.", param=path, code="invalid_type")


def unknown(value: str, path: str, allowed: str) -> BadRequest:
    """A field is a word that nobody knows."""
    return BadRequest(
        f"Invalid value: '{value}' in '{path}'. Supported values are: {allowed}.",
        param=path,
        code="invalid_value",
    )


def missing(path: str) -> BadRequest:
    """A field is not there, and has to be."""
    return BadRequest(
        f"Missing required parameter: '{path}'.", param=path, code="missing_required_parameter"
    )


def take(value: JSON, key: str, kind: type[T], where: str = "") -> T | None:
    """Take a field that may be left out. `where` is the path of `value` itself, `""` = the body."""
    found = value.get(key)
    if found is None:
        return None
    if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
        raise wrong(NAMES[kind], join(where, key))
    return found


def need(value: JSON, key: str, kind: type[T], where: str = "") -> T:
    """Take a field that has to be there."""
    found = take(value, key, kind, where)
    if found is None:
        raise missing(join(where, key))
    return found


def take_number(value: JSON, key: str, where: str = "") -> float | None:
    """Take a number that may be left out."""
    found = value.get(key)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float):
        raise wrong("a number", join(where, key))
    return found


def take_strings(value: JSON, key: str, where: str = "") -> dict[str, str] | None:
    """Take an object with strings as its values that may be left out, as `metadata` is."""
    found = take(value, key, dict, where)
    for name, member in (found or {}).items():
        if not isinstance(member, str):
            raise wrong(NAMES[str], join(join(where, key), name))
    return found


def take_detail(value: JSON, where: str) -> str | None:
    """Take how closely a picture is looked at. `original` is newer than chat's schema."""
    detail = take(value, "detail", str, where)
    if detail not in {None, "auto", "low", "high", "original"}:
        raise unknown(str(detail), join(where, "detail"), "'auto', 'low', 'high', 'original'")
    return detail


FOREIGN_OUTPUTS = frozenset({"grammar", "regex", "structural_tag"})
"""Shapes of an answer that OpenAI's service does not know and others do: Fireworks, Together,
vLLM and SGLang."""


def foreign_output(form: JSON, where: str) -> JSON:
    """A shape of the answer that only some servers know is theirs to read; others are mistakes."""
    kind = need(form, "type", str, where)
    if kind not in FOREIGN_OUTPUTS:
        raise unknown(kind, join(where, "type"), "'text', 'json_object', 'json_schema'")
    return form


def objects(values: list[Any], where: str) -> list[tuple[str, JSON]]:
    """The elements of an array of objects, each with its path."""
    found: list[tuple[str, JSON]] = []
    for number, value in enumerate(values):
        path = f"{where}[{number}]"
        if not isinstance(value, dict):
            raise wrong(NAMES[dict], path)
        found.append((path, value))
    return found


def join(where: str, key: str) -> str:
    """The path of a field."""
    return f"{where}.{key}" if where else key


def read_content(
    value: Any, path: str, read_part: Callable[[JSON, str, str], Content | None]
) -> tuple[list[Content], list[Item]]:
    """Read what a message consists of: a text, or parts by `read_part(part, type, path)`.

    A part of a type that nobody knows stands behind its message as an opaque item, so that another
    format names it, and does not lose it in silence.
    """
    if isinstance(value, str):
        return [Text(value)], []
    if not isinstance(value, list):
        raise wrong("a string or an array", path)
    content: list[Content] = []
    foreign: list[Item] = []
    for place, part in objects(value, path):
        kind = need(part, "type", str, place)
        read = read_part(part, kind, place)
        if read is None:
            foreign.append(OpaqueItem(kind, place))
        else:
            content.append(read)
    return content, foreign
