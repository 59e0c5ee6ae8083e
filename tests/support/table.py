"""README's table of combinations and content kinds, written by what the tests find.

uv run python tests/support/table.py        # writes it between the markers in README.md
"""

from __future__ import annotations

import sys
from pathlib import Path


if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).parent.parent))

from support.conformance import Verdict, carry
from support.kinds import KINDS
from support.scripted import APIS, Api


README = Path(__file__).parent.parent.parent / "README.md"
BEGIN = "<!-- conformance:begin -->"
END = "<!-- conformance:end -->"

SIGNS: dict[Verdict, str] = {
    "whole": "✓",
    "rest": "○",
    "refused": "501",
    "unsayable": "\N{EN DASH}",
    "unaskable": "\N{EN DASH}",
}
LEGEND = (
    "✓ arrives whole, valid by the schemas. ○ the client's API has no words for it: everything "
    "else arrives. \N{EN DASH} one of the two APIs cannot say it, or ask for it. "
    "501 refused by name."
)
NAMES = {"chat": "Chat", "responses": "Responses"}


def render() -> str:
    """The table, with a newline at both ends."""
    combinations: list[tuple[Api, Api, bool]] = [
        (client, upstream, stream)
        for client in APIS
        for upstream in APIS
        for stream in (True, False)
    ]
    heads = [
        f"{NAMES[client]} ← {NAMES[upstream]}, {'streamed' if stream else 'whole'}"
        for client, upstream, stream in combinations
    ]
    lines = [
        "| client ← upstream | " + " | ".join(heads) + " |",
        "|---|" + ":-:|" * len(heads),
    ]
    for kind in KINDS:
        cells = [
            SIGNS[carry(kind, client, upstream, stream=stream)]
            for client, upstream, stream in combinations
        ]
        lines.append(f"| {kind.name} | " + " | ".join(cells) + " |")
    return "\n".join(["", *lines, "", LEGEND, ""])


def between_markers(text: str) -> str:
    """What stands between the markers."""
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


def main() -> None:
    """Write the table into README.md."""
    text = README.read_text()
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(head + render() + tail)


if __name__ == "__main__":
    main()
