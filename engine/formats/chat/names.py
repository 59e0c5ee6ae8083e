"""What tools are called towards a chat server, which knows no namespaces.

The law of this file: every tool that a request offers has one name, no two of them have the same
one, and the same request gives the same names. So a reply is understood by nothing but the request,
and a tool is called the same in each turn that offers the same tools.

A tool in a namespace is called by both names together, `mcp__weather__get_weather`, as Codex
called it before it knew namespaces: models have seen such names. A tool without one keeps its name,
whatever that is. What is too long, or called like another tool, ends with some digits of a hash of
what it stands for.

Old calls of tools that are offered no longer are named in the same way. They are for reading only:
one of a tool without a namespace keeps its name even where an offered tool is called so.
"""

from __future__ import annotations

import re
from hashlib import sha256

from ...request import CustomTool, FunctionTool, NamedTool, Request
from .words import NAME


MAX_NAME = 64
"""Characters of a function's name in OpenAI's API."""
DIGITS = 8
"""Hexadecimal digits of a hash."""
GLUE = "__"
"""What stands between the names. Codex's namespaces have ended with it, at times."""

_NOT_FOR_NAMES = re.compile(r"[^a-zA-Z0-9_-]")

Key = tuple[str, str]
"""Namespace and name."""


class Names:
    """The names of one request's tools."""

    def __init__(self, request: Request) -> None:
        tools = [tool for tool in request.tools if isinstance(tool, FunctionTool | CustomTool)]
        self._names: dict[Key, str] = {}
        self._keys: dict[str, Key] = {}
        for tool in sorted(tools, key=lambda tool: bool(tool.namespace)):  # stable: plain first
            self.of(tool.namespace, tool.name)
        self._offered = dict(self._keys)
        self.wrapped = frozenset(
            self.of(tool.namespace, tool.name)
            for tool in tools
            if isinstance(tool, CustomTool) and request.format != NAME
        )
        """The names of those custom tools that are said as functions (`unwrap.py`)."""

    def of(self, namespace: str, name: str) -> str:
        """What a tool is called, be it offered or in an old call only."""
        key = namespace, name
        if key not in self._names:
            self._names[key] = said = self._new(key) if namespace else name
            self._keys[said] = key
        return self._names[key]

    def meant(self, name: str) -> Key:
        """Which of the tools that were offered a server calls, as namespace and name."""
        return self._offered.get(name, ("", name))

    def chosen(self, choice: NamedTool) -> str:
        """What the tool is called that a client chose.

        OpenAI's schema of a choice has no `namespace`: the name alone means the plain tool of that
        name, or else the only one in a namespace.
        """
        if choice.namespace or choice.name in self._offered:
            return self.of(choice.namespace, choice.name)
        found = [said for said, (_, name) in self._offered.items() if name == choice.name]
        return found[0] if len(found) == 1 else choice.name

    def misses(self, choice: NamedTool) -> bool:
        """Whether a choice fits none or several of the tools, where namespaces are in play.

        Without namespaces the upstream is asked as the client asked: it may know more tools.
        """
        spaced = choice.namespace or any(namespace for namespace, _ in self._offered.values())
        return bool(spaced) and self.chosen(choice) not in self._offered

    def _new(self, key: Key) -> str:
        namespace, name = key
        glue = "" if namespace.endswith(GLUE) else GLUE
        said = joined = _NOT_FOR_NAMES.sub("_", f"{namespace}{glue}{name}")
        count = 0
        while len(said) > MAX_NAME or said in self._keys:
            digest = sha256(repr((*key, count)).encode()).hexdigest()[:DIGITS]
            said = f"{joined[: MAX_NAME - DIGITS - 1]}_{digest}"
            count += 1
        return said
