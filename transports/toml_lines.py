"""Where in a TOML text a key stands.

`tomllib` gives values without their lines; an error message needs the line. This scan knows only
what it must: table headers, `key =` at the start of a line, and multi-line strings, which it skips.
A key inside an inline table is found at the line of the table.
"""

from __future__ import annotations

import re
import tomllib
from typing import Any


Path = tuple[str | int, ...]
"""Keys from the top of the document; a number is the place in an array of tables."""

_PART = r"""(?:"[^"]*"|'[^']*'|[A-Za-z0-9_-]+)"""
_KEY = re.compile(rf"\s*({_PART}(?:\s*\.\s*{_PART})*)\s*=")
_HEADER = re.compile(r"\s*(\[\[?)(.+?)\]\]?\s*(?:#.*)?$")


class Lines:
    """The places of all keys of one TOML text (one that `tomllib` has accepted).

    `name` is what people call the text; without one it is a dict of the program around us.
    """

    def __init__(self, text: str = "", name: str = "config") -> None:
        self._name = name
        self._places: dict[Path, int] = {}
        table: Path = ()
        counts: dict[Path, int] = {}
        fence: str | None = None
        for number, line in enumerate(text.splitlines(), 1):
            if fence is not None:
                fence = None if fence in line else fence
                continue
            if header := _HEADER.match(line):
                table = _inside(_parts(header[2]), counts)
                self._places.setdefault(table, number)
                if header[1] == "[[":
                    counts[table] = counts.get(table, -1) + 1
                    table = (*table, counts[table])
                self._places.setdefault(table, number)
            elif key := _KEY.match(line):
                path = table
                for part in _parts(key[1]):
                    path = (*path, part)
                    self._places.setdefault(path, number)
            for mark in ('"""', "'''"):
                if line.count(mark) % 2:
                    fence = mark

    def of(self, path: Path) -> int | None:
        """Line of a key, counted from 1; of what it stands in, if itself it is not found."""
        for end in range(len(path), 0, -1):
            if (line := self._places.get(path[:end])) is not None:
                return line
        return None

    def where(self, path: Path) -> str:
        """Say the place of a key: `nursling.toml:3`, or the name alone if it has no line."""
        line = self.of(path)
        return self._name if line is None else f"{self._name}:{line}"


def _parts(key: str) -> Path:
    """Split a dotted key; TOML's own parser knows the quoting."""
    node: Any = tomllib.loads(f"{key} = 0")
    parts: list[str] = []
    while isinstance(node, dict):
        ((part, node),) = node.items()
        parts.append(part)
    return tuple(parts)


def _inside(parts: Path, counts: dict[Path, int]) -> Path:
    """Make `[models.limits]` mean the last of `[[models]]`, as TOML does."""
    path: Path = ()
    for index, part in enumerate(parts):
        path = (*path, part)
        if path in counts and index < len(parts) - 1:
            path = (*path, counts[path])
    return path
