"""The public schemas, compiled: they say whether an object is what its API describes.

The law of this file: an object is checked as the documents stand, but for `EXCEPTIONS`, the one
table of the places where the documents and the live services, or the two documents, disagree.

Every `check_*` returns its argument, or raises `SchemaError` with the path of what is wrong.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import ValidationError, best_match


FOLDER = Path(__file__).parent.parent / "schemas"
Document = Literal["openai", "open-responses"]
FILES: dict[Document, str] = {
    "openai": "openai-chat-responses.schema.json",
    "open-responses": "open-responses.schema.json",
}


class SchemaError(AssertionError):
    """An object is not what the schema says."""


class Allowance(NamedTuple):
    """One place where we allow more than the document says."""

    document: Document
    definition: str
    how: Literal[
        "null for optional fields",
        "not required",
        "foreign types",
        "any object",
        "any of",
        "live codes",
    ]
    where: tuple[str, ...]
    reason: str


EXCEPTIONS: list[Allowance] = [
    *(
        Allowance(
            "openai",
            definition,
            "null for optional fields",
            where,
            "the service sends null for what a Response does not have (user, usage while it is "
            "in progress, ...)",
        )
        for definition, where in [
            ("ModelResponseProperties", ()),
            ("ResponseProperties", ()),
            ("Response", ("allOf", "2")),
        ]
    ),
    Allowance(
        "openai",
        "ResponseUsage",
        "not required",
        ("properties", "input_tokens_details", "required", "cache_write_tokens"),
        "newer than most servers",
    ),
    Allowance(
        "openai",
        "InputItem",
        "any of",
        ("oneOf",),
        "the branches overlap: a message with its type is right by two of them",
    ),
    Allowance(
        "openai",
        "ChatCompletionMessageToolCallChunk",
        "foreign types",
        ("properties", "type"),
        "the document has no way to stream a call of a custom tool, which a whole reply has",
    ),
    Allowance(
        "openai",
        "ResponseErrorCode",
        "live codes",
        ("enum",),
        "the live service says two words more, and Codex acts upon them: it compacts its history",
    ),
    *(
        Allowance(
            "open-responses",
            definition,
            "foreign types",
            where,
            "Open Responses describes a core and lets servers extend it; a type that it does not "
            "describe is held to OpenAI's document alone",
        )
        for definition, where in [
            ("ItemField", ("oneOf",)),
            ("Tool", ("oneOf",)),
            ("Annotation", ("oneOf",)),
            ("ResponseResource", ("properties", "tool_choice", "oneOf")),
            ("AllowedToolChoice", ("properties", "tools", "items", "oneOf")),
        ]
    ),
    Allowance(
        "open-responses",
        "ResponseResource",
        "any object",
        ("properties", "instructions"),
        "OpenAI's document lets instructions be a list of items, and we echo what the client said",
    ),
    Allowance(
        "open-responses",
        "Reasoning",
        "not required",
        ("required", "summary"),
        "OpenAI's service leaves it out where the client did",
    ),
]


# Making the validators.


def _branch_types(branch: dict[str, Any], definitions: dict[str, Any]) -> frozenset[str] | None:
    """The values of `type` that this branch of a union allows; None = it does not say."""
    while "$ref" in branch:
        branch = definitions[branch["$ref"].removeprefix("#/$defs/")]
    enum = branch.get("properties", {}).get("type", {}).get("enum")
    required = "type" in branch.get("required", ())
    return frozenset(enum) if enum is not None and required else None


def _by_type(keyword: str, definitions: dict[str, Any]) -> Callable[..., Iterator[ValidationError]]:
    """A union that first drops the branches whose `type` cannot match.

    It decides what `anyOf` and `oneOf` decide, many times faster, and its errors speak of the one
    branch that was meant.
    """
    stock = Draft202012Validator.VALIDATORS[keyword]
    known: dict[int, list[frozenset[str] | None]] = {}

    def check(
        validator: Any, branches: list[dict[str, Any]], instance: Any, schema: Any
    ) -> Iterator[ValidationError]:
        tag = instance.get("type") if isinstance(instance, dict) else None
        if not isinstance(tag, str):
            yield from stock(validator, branches, instance, schema)
            return
        if id(branches) not in known:
            known[id(branches)] = [_branch_types(branch, definitions) for branch in branches]
        possible = [
            branch
            for branch, types in zip(branches, known[id(branches)], strict=True)
            if types is None or tag in types
        ]
        if not possible:
            yield ValidationError(f"{tag!r} is no type of this union")
        elif len(possible) == 1:
            yield from validator.descend(instance, possible[0])
        else:
            yield from stock(validator, possible, instance, schema)

    return check


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


def _apply(allowance: Allowance, definitions: dict[str, Any]) -> None:
    """Loosen one place of a document. A place that is not there is an error: the table is stale."""
    parent: Any = None
    node: Any = definitions[allowance.definition]
    for step in allowance.where[: -1 if allowance.how == "not required" else None]:
        parent, node = node, node[int(step) if isinstance(node, list) else step]
    last = allowance.where[-1] if allowance.where else ""
    match allowance.how:
        case "null for optional fields":
            required = definitions["Response"]["allOf"][2]["required"]
            for name, schema in node["properties"].items():
                if name not in required:
                    node["properties"][name] = _nullable(schema)
        case "not required":
            node.remove(last)
        case "any of":
            parent["anyOf"] = parent.pop(last)
        case "any object":
            parent[last] = {}
        case "live codes":
            node += ["context_length_exceeded", "insufficient_quota"]
        case "foreign types" if last == "oneOf":
            types = [_branch_types(branch, definitions) for branch in node]
            described = sorted(set[str]().union(*(known for known in types if known)))
            other = {"type": "object", "properties": {"type": {"not": {"enum": described}}}}
            node.append({**other, "required": ["type"]})
        case "foreign types":
            parent[last] = {"type": "string"}


@functools.cache
def definitions_of(document: Document) -> dict[str, Any]:
    """The `$defs` of a document, with the exceptions applied."""
    definitions: dict[str, Any] = json.loads((FOLDER / FILES[document]).read_bytes())["$defs"]
    for allowance in EXCEPTIONS:
        if allowance.document == document:
            _apply(allowance, definitions)
    return definitions


@functools.cache
def _validator(document: Document, definition: str) -> Any:
    definitions = definitions_of(document)
    unions = {keyword: _by_type(keyword, definitions) for keyword in ("anyOf", "oneOf")}
    extend: Any = validators.extend  # untyped in its stubs
    kind = extend(Draft202012Validator, unions)
    return kind({"$ref": f"#/$defs/{definition}", "$defs": definitions})


@functools.cache
def event_types(document: Document) -> dict[str, str]:
    """The `type` of every streaming event -> the name of its definition."""
    definitions = definitions_of(document)
    if document == "openai":
        names = [
            branch["$ref"].removeprefix("#/$defs/")
            for branch in definitions["ResponseStreamEvent"]["anyOf"]
        ]
    else:
        names = [name for name in definitions if name.endswith("StreamingEvent")]
    return {tag: name for name in names for tag in definitions[name]["properties"]["type"]["enum"]}


def wrong_with(document: Document, definition: str, value: Any) -> ValidationError | None:
    """What is wrong with a value, if anything: the error that says most."""
    found: ValidationError | None = best_match(_validator(document, definition).iter_errors(value))
    return found


def check(document: Document, definition: str, value: Any) -> Any:
    """Hold a value to one definition of a document."""
    error = wrong_with(document, definition, value)
    if error is not None:
        shown = json.dumps(value, ensure_ascii=False)[:600]
        raise SchemaError(
            f"{document} {definition} {error.json_path}: {error.message[:300]}\nin {shown}"
        )
    return value


# What the tests ask.


def check_chat_chunk(value: Any) -> Any:
    """One event of a chat stream."""
    return check("openai", "CreateChatCompletionStreamResponse", value)


def check_chat_completion(value: Any) -> Any:
    """A whole chat completion."""
    return check("openai", "CreateChatCompletionResponse", value)


def check_responses_event(
    value: Any, documents: Iterable[Document] = ("openai", "open-responses")
) -> Any:
    """One event of a Responses stream, by both documents.

    Which definition is meant is read off `type`. A type that Open Responses does not describe is
    held to OpenAI's document alone, and the reverse; one that neither knows is wrong.
    """
    tag = value.get("type") if isinstance(value, dict) else None
    described: list[Document] = [one for one in documents if tag in event_types(one)]
    if not described:
        raise SchemaError(f"no event of a Responses stream has the type {tag!r}")
    for document in described:
        check(document, event_types(document)[str(tag)], value)
    return value


def check_response(value: Any) -> Any:
    """A Response object, by both documents."""
    check("openai", "Response", value)
    return check("open-responses", "ResponseResource", value)


def check_error(value: Any) -> Any:
    """An error body."""
    return check("openai", "ErrorResponse", value)


def check_chat_request(value: Any) -> Any:
    """A body for a chat upstream."""
    return check("openai", "CreateChatCompletionRequest", value)


def check_responses_request(value: Any) -> Any:
    """A body for a Responses upstream."""
    return check("openai", "CreateResponse", value)
