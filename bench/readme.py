"""README's part: a table and a chart that a command has measured, and how it was called.

The law of this file: between the two marks of a command stands what that command wrote, whole, and
nothing that a person wrote. The chart is a file of its own, beside the results.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from .chart import Chart, draw
from .processes import ROOT
from .report import Report


README = ROOT / "README.md"


class Block(msgspec.Struct, frozen=True):
    """What a command says in README."""

    table: str
    """In Markdown."""
    chart: Chart
    notes: str
    """What one has to know to read them; one paragraph."""


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; the first column is text, the others are numbers."""
    lines = [headings, ["---", *["--:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def render(block: Block, found: Report[Any], image: str) -> str:
    """What stands between the marks. `image`: the chart's path, as README names it."""
    machine, repeat = found.machine, found.repeat
    cores = f"{machine.cores} core{'s' * (machine.cores > 1)}"
    rounds = f"Medians of {repeat} rounds" if repeat > 1 else "One round"
    told = f"--repeat {repeat}"
    if found.timing.seconds:  # a command without processes has no window
        told += f" --seconds {found.timing.seconds:g}"
    how = f"`uv run python -m bench {found.command} {told} --readme`"
    where = f"{machine.processor}, {cores}, {machine.python}"
    notes = f"{block.notes} {rounds} of {how} on {found.started[:10]}: {where}."
    return "\n\n".join([block.table, f"![{block.chart.title}]({image})", notes])


def replace(text: str, name: str, body: str) -> str:
    """Put a body between the marks of a command. Raises `LookupError` if README has no such."""
    begin, end = f"<!-- bench {name}: begin -->", f"<!-- bench {name}: end -->"
    pattern = re.compile(rf"{re.escape(begin)}\n.*?{re.escape(end)}", re.DOTALL)
    if len(pattern.findall(text)) != 1:
        raise LookupError(f"README has no block `{begin}` … `{end}`, or several")
    return pattern.sub(lambda _: f"{begin}\n{body}\n{end}", text)


def put(block: Block, found: Report[Any], folder: Path, path: Path = README) -> None:
    """Write the chart into the folder, and the block into README. Raises `LookupError`."""
    image = folder / f"{found.command}.svg"
    body = render(block, found, image.relative_to(path.parent).as_posix())
    text = replace(path.read_text(encoding="utf-8"), found.command, body)
    folder.mkdir(parents=True, exist_ok=True)
    image.write_text(draw(block.chart), encoding="utf-8")
    path.write_text(text, encoding="utf-8")
