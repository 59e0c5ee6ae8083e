"""Instances of a JSON schema: every branch of every union, and every optional member, once.

The law of this file: an object comes as often as its most varied member needs, with all of its
members each time; so the number of instances grows with the schema, and not with the product of
its unions.
"""

from __future__ import annotations

from typing import Any


Schema = dict[str, Any]
TEXT = "some text"


def instances(
    schema: Schema, definitions: dict[str, Schema], inside: tuple[str, ...] = ()
) -> list[Any]:
    """All the instances of a schema; none where it is inside itself."""
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        if name in inside:
            return []
        return instances(definitions[name], definitions, (*inside, name))
    for union in ("oneOf", "anyOf"):
        if union in schema and "properties" not in schema:
            return [
                one for branch in schema[union] for one in instances(branch, definitions, inside)
            ]
    if "allOf" in schema:
        return _together([instances(part, definitions, inside) for part in schema["allOf"]])
    if "enum" in schema:
        return [value for value in schema["enum"] if value is not None]
    kinds = schema.get("type", "object" if "properties" in schema else "any")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    return [one for kind in kinds for one in _of_kind(kind, schema, definitions, inside)]


def _of_kind(
    kind: str, schema: Schema, definitions: dict[str, Schema], inside: tuple[str, ...]
) -> list[Any]:
    match kind:
        case "object":
            return _objects(schema, definitions, inside)
        case "array":
            return [[one] for one in instances(schema.get("items", {}), definitions, inside)]
        case "string":
            return [TEXT]
        case "integer" | "number":
            return [schema.get("minimum", 1) if schema.get("maximum", 2) < 2 else 1]
        case "boolean":
            return [True, False]
        case "null":
            return []
        case _:
            return [{"member": TEXT}]


def _objects(schema: Schema, definitions: dict[str, Schema], inside: tuple[str, ...]) -> list[Any]:
    given = {
        name: found
        for name, inner in schema.get("properties", {}).items()
        if (found := instances(inner, definitions, inside))
    }
    if not set(schema.get("required", ())) <= given.keys():
        return []  # what it needs is inside itself
    if not given:
        more = schema.get("additionalProperties", True)
        values = instances(more, definitions, inside) if isinstance(more, dict) else [TEXT]
        return [{"7": value} for value in values]
    return [
        {name: found[number % len(found)] for name, found in given.items()}
        for number in range(max(map(len, given.values())))
    ]


def _together(parts: list[list[Any]]) -> list[Any]:
    """Objects that are each described by several schemas."""
    objects = [part for part in parts if part and isinstance(part[0], dict)]
    if not objects:
        return [one for part in parts for one in part]
    made: list[Any] = []
    for number in range(max(map(len, objects))):
        made.append({})
        for part in objects:
            made[-1].update(part[number % len(part)])
    return made
