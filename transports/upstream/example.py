"""A value that fits a JSON schema: what the demo model calls tools with.

Knows the parts of JSON Schema that tools use: types, enum, const, default, examples, properties,
items, anyOf/oneOf/allOf, local `$ref`, minimum and minItems. Whatever else a schema says is not
looked at; nothing in a schema makes this fail.
"""

from __future__ import annotations

from typing import Any


DEPTH = 8
"""Schemas may refer to themselves; below this many levels everything is null."""


def example(schema: Any, word: str) -> Any:
    """Make a value for a schema; `word` is what strings say."""
    return _example(schema, word, schema if isinstance(schema, dict) else {}, DEPTH)


def _example(schema: Any, word: str, root: dict[str, Any], depth: int) -> Any:
    if not isinstance(schema, dict) or depth == 0:
        return None
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    if isinstance(schema.get("$ref"), str):
        return _example(_referred(schema["$ref"], root), word, root, depth - 1)
    for key in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(key), list) and schema[key]:
            return _example(schema[key][0], word, root, depth - 1)
    match _type(schema):
        case "object":
            properties = schema.get("properties")
            properties = properties if isinstance(properties, dict) else {}
            required = schema.get("required")
            wanted = required if isinstance(required, list) and required else properties
            return {
                name: _example(properties[name], word, root, depth - 1)
                for name in wanted
                if isinstance(name, str) and name in properties
            }
        case "array":
            least = schema.get("minItems")
            count = min(least, DEPTH) if isinstance(least, int) and least > 0 else 1
            return [_example(schema.get("items"), word, root, depth - 1)] * count
        case "integer" | "number":
            least = schema.get("minimum")
            return least if isinstance(least, int | float) else 1
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return word


def _type(schema: dict[str, Any]) -> Any:
    kind = schema.get("type", "object" if "properties" in schema else "string")
    if isinstance(kind, list):
        return next((one for one in kind if one != "null"), "null")
    return kind


def _referred(ref: str, root: dict[str, Any]) -> Any:
    node: Any = root
    for key in ref.removeprefix("#").split("/")[1:]:
        node = node.get(key) if isinstance(node, dict) else None
    return node
