"""Custom tools (free text as input) on a wire that knows only functions with JSON arguments.

A custom tool is offered to a chat upstream as a function of one string, `{"input": "..."}`. What
the model answers is unwrapped again as it grows, character by character, so that a client sees
the input stream as it would from a server that knows custom tools.

The law of this file: the input is the string inside the wrapper; arguments that are no such
wrapper are the input themselves, unchanged. A string that never ends was cut, and half a patch is
none: who asks for the end has to look at `cut`.
"""

from __future__ import annotations

import re
from typing import Any

from ... import jsontext
from ...request import CustomTool


_HEAD = re.compile(r'\s*\{\s*"input"\s*:\s*"')
_HEAD_SO_FAR = re.compile(r'\s*(\{\s*("(i(n(p(u(t("\s*(:\s*)?)?)?)?)?)?)?)?)?')
_HEAD_SIZE = 256
"""No wrapper begins with more white space than this, so that undecided text stays bounded."""
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", '"': '"', "\\": "\\", "/": "/"}
_SPECIAL = re.compile(r'["\\]')
_LOW_SURROGATE = re.compile(r"\\u[dD][c-fC-F]")


def wrap_tool(tool: CustomTool) -> dict[str, Any]:
    """Say a custom tool as a function. A grammar, which chat servers cannot hold, is quoted."""
    told = [tool.description] if tool.description else []
    wanted = "The whole input of the tool, as plain text."
    if tool.grammar and "definition" in tool.grammar:  # and not "any text"
        syntax, definition = tool.grammar.get("syntax", ""), tool.grammar.get("definition", "")
        told.append(f"The input must follow this {syntax} grammar:\n{definition}")
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": "\n\n".join([*told, "Put the input into the one argument `input`."]),
            "parameters": {
                "type": "object",
                "properties": {"input": {"type": "string", "description": wanted}},
                "required": ["input"],
                "additionalProperties": False,
            },
        },
    }


def wrap_input(text: str) -> str:
    """Write the arguments of a wrapped tool's earlier call."""
    return jsontext.dumps({"input": text}).decode()


class Unwrapper:
    """Arguments in, input out, for one call."""

    def __init__(self) -> None:
        self._kept = ""  # text that is not decided yet: the wrapper's head, or half an escape
        self._state = "head"

    def feed(self, text: str) -> str:
        """Take some of the arguments; return the input that they certainly hold."""
        self._kept += text
        if self._state == "head":
            self._read_head()
        if self._state == "string":
            return self._read_string()
        if self._state == "plain":
            text, self._kept = self._kept, ""
            return text
        return ""

    @property
    def cut(self) -> bool:
        """Whether the arguments, if they are over now, broke off inside the input."""
        return self._state == "string"

    def close(self) -> str:
        """The arguments are over: return the rest of the input."""
        text, self._kept = self._kept, ""
        if self._state == "head":
            return "" if _is_empty_object(text) else text
        return text if self._state == "plain" else ""

    def _read_head(self) -> None:
        match = _HEAD.match(self._kept)
        if match:
            self._state, self._kept = "string", self._kept[match.end() :]
        elif len(self._kept) > _HEAD_SIZE or not (
            _HEAD_SO_FAR.fullmatch(self._kept) or _is_empty_object(self._kept)
        ):
            self._state = "plain"

    def _read_string(self) -> str:
        kept, at, read = self._kept, 0, []
        while match := _SPECIAL.search(kept, at):
            read.append(kept[at : match.start()])
            at = match.start()
            if kept[at] == '"':
                # What follows the string is the wrapper's end.
                self._state, self._kept = "after", ""
                return "".join(read)
            size = _escape_size(kept, at)
            if at + size > len(kept):
                break
            read.append(_unescape(kept[at : at + size]))
            at += size
        else:
            read.append(kept[at:])
            at = len(kept)
        self._kept = kept[at:]
        return "".join(read)


def _escape_size(text: str, at: int) -> int:
    """How many characters the escape at `at` has, as far as they tell."""
    if text[at + 1 : at + 2] != "u":
        return 2
    high = text[at + 2 : at + 4].lower()
    if len(high) < 2 or high[0] != "d" or high[1] not in "89ab":
        return 6
    # The first half of a pair: it may need the second one, if that is what follows.
    rest = text[at + 6 : at + 10]
    pair = len(rest) < 4 or bool(_LOW_SURROGATE.match(rest))
    return 12 if pair and r"\u"[: len(rest)] == rest[:2] else 6


def _unescape(escape: str) -> str:
    if escape[1] != "u":
        return _ESCAPES.get(escape[1], escape)
    try:
        value = jsontext.loads(b'"' + escape.encode() + b'"')
    except ValueError:
        return escape
    return str(value)


def _is_empty_object(text: str) -> bool:
    return text.replace(" ", "") == "{}"
