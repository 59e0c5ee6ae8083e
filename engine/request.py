"""The normal form of a request: what a client asks, whatever API it asked by.

A format's `parse_request` makes one, and any format's `render_request` writes it for an upstream.
`raw` is the client's own body: towards an upstream of the same format it is sent as it came (with
the model's name and the stream switches replaced), so nothing that we do not know is lost.
Towards another format the fields below are translated, and `extra` names what is left over.

`None` always means "the client did not say".
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec


# What a message is made of.


class Text(msgspec.Struct, tag_field="part", tag=True):
    """Words."""

    text: str


class Image(msgspec.Struct, tag_field="part", tag=True, kw_only=True):
    """A picture: by URL (also `data:`), or by the id of an uploaded file."""

    url: str | None = None
    file_id: str | None = None
    detail: str | None = None


class File(msgspec.Struct, tag_field="part", tag=True, kw_only=True):
    """A document: by uploaded id, inline (`data` as the wire has it: base64 or data URL) or URL."""

    file_id: str | None = None
    filename: str | None = None
    data: str | None = None
    url: str | None = None


class Audio(msgspec.Struct, tag_field="part", tag=True):
    """Recorded sound, base64, and its format (`wav`, `mp3`)."""

    data: str
    format: str


class Refusal(msgspec.Struct, tag_field="part", tag=True):
    """Words by which an assistant refused earlier."""

    text: str


Content = Text | Image | File | Audio | Refusal


# What a conversation is made of.


class Message(msgspec.Struct, tag_field="item", tag=True, kw_only=True):
    """A turn of someone."""

    role: Literal["system", "developer", "user", "assistant"]
    content: list[Content]
    name: str | None = None


class ToolCall(msgspec.Struct, tag_field="item", tag=True, kw_only=True):
    """A call that an assistant made. `arguments` is JSON text, or a custom tool's free input."""

    call_id: str
    name: str
    arguments: str
    custom: bool = False
    namespace: str = ""


class ToolResult(msgspec.Struct, tag_field="item", tag=True, kw_only=True):
    """What a tool answered."""

    call_id: str
    content: list[Content]
    custom: bool = False


class Reasoning(msgspec.Struct, tag_field="item", tag=True, kw_only=True):
    """An assistant's earlier reasoning: summaries, raw thoughts, or sealed text."""

    id: str = ""
    summary: list[str] = []
    thought: list[str] = []
    encrypted: str | None = None


class OpaqueItem(msgspec.Struct, tag_field="item", tag=True):
    """An item that only its own format knows; `where` is its place in the client's body."""

    type: str
    where: str


Item = Message | ToolCall | ToolResult | Reasoning | OpaqueItem


# What the model may call. Tools may stand in a namespace, in which their names are unique; Codex
# groups the tools of each MCP server so. `""` is no namespace.


class FunctionTool(msgspec.Struct, tag_field="tool", tag=True, kw_only=True):
    """A tool with JSON arguments. `parameters` is a JSON schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    namespace: str = ""


class CustomTool(msgspec.Struct, tag_field="tool", tag=True, kw_only=True):
    """A tool with free text as input. `grammar` is its `format` object, in Responses form."""

    name: str
    description: str | None = None
    grammar: dict[str, Any] | None = None
    namespace: str = ""


class OpaqueTool(msgspec.Struct, tag_field="tool", tag=True):
    """A hosted tool that only its own format knows; `where` is its place in the client's body."""

    type: str
    where: str


Tool = FunctionTool | CustomTool | OpaqueTool


class NamedTool(msgspec.Struct, tag_field="choice", tag=True):
    """This tool and no other."""

    kind: Literal["function", "custom"]
    name: str
    namespace: str = ""


class AllowedTools(msgspec.Struct, tag_field="choice", tag=True):
    """Any of these, freely (`auto`) or at least one (`required`)."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool]


class OpaqueChoice(msgspec.Struct, tag_field="choice", tag=True):
    """A choice of a hosted tool, which only its own format knows."""

    type: str


ToolChoice = Literal["auto", "none", "required"] | NamedTool | AllowedTools | OpaqueChoice


class OutputFormat(msgspec.Struct, kw_only=True):
    """The shape of the answer: `response_format` of chat, `text.format` of Responses."""

    kind: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class Request(msgspec.Struct, kw_only=True, frozen=True):
    """One question to one model."""

    model: str
    items: list[Item]
    stream: bool = False
    format: str = ""
    """The client's format; empty = made by a program, rendered from the fields alone."""

    tools: list[Tool] = []
    namespaces: dict[str, str] = {}
    """The namespaces of the tools, and what each is for."""
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None

    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    seed: int | None = None
    stop: list[str] = []
    logit_bias: dict[str, float] | None = None
    logprobs: bool = False
    top_logprobs: int | None = None

    output: OutputFormat | None = None
    verbosity: str | None = None
    reasoning_effort: str | None = None
    reasoning_summary: str | None = None
    encrypted_reasoning: bool = False
    """The client asked for sealed reasoning, to send back later."""

    metadata: dict[str, Any] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    previous_response_id: str | None = None

    include_usage: bool = False
    """A streaming chat client asked for the usage chunk. Other formats always report."""
    include_obfuscation: bool | None = None

    extra: dict[str, Any] = {}
    """Top-level fields without a place above, by their wire name in the client's format."""
    leftover: list[str] = []
    """Places in the body of nested members that only the client's format knows, as far as another
    format would lose them: `messages[0].content[1].cache_control`."""
    raw: dict[str, Any] | None = None
    """The client's body as parsed. Whoever changes a field above sets this to None."""
