"""Charts as SVG, by hand: no library, no font and no script from elsewhere.

The law of this file: the picture is legible on any page. It brings its own background, light or
dark as the reader's system is, and no colour stands for something that is not also written: each
bar has its number, each series its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

import msgspec


WIDTH = 900
LEFT = 290
"""Of the bars; the labels stand left of it, and end before."""
RIGHT = 110
"""Room for the number behind the longest bar."""
BAR = 16
GAP = 14
"""Between two groups."""

SERIES = (
    ("#2a78d6", "#3987e5"),
    ("#eb6834", "#d95926"),
    ("#1baa7a", "#199e70"),
    ("#9a5bd0", "#a872dc"),
)
"""Colours on light and on dark, in the order in which series appear."""
MUTED = ("#8a8881", "#a3a19a")
"""Of what the others are held against."""


class Bar(msgspec.Struct, frozen=True):
    """One figure."""

    series: str
    value: float
    low: float
    high: float
    text: str
    """What is written behind it."""


class Group(msgspec.Struct, frozen=True):
    """Bars that are compared with one another."""

    label: str
    bars: list[Bar]


class Chart(msgspec.Struct, frozen=True):
    """The picture. Bars begin at 0; a line marks 1 if `unit` is a ratio's."""

    title: str
    subtitle: str
    groups: list[Group]
    line: float | None = None
    """A value that is marked with a line, such as the floor's."""
    line_label: str = ""
    muted: str = "floor"
    """A series that is only there to compare with."""


STYLE = """
.card{fill:#fcfcfb;stroke:#dddcd8}text{fill:#52514e;font:12px system-ui,sans-serif}
.title{fill:#0b0b0b;font-weight:600;font-size:15px}.number{fill:#0b0b0b}
.line{stroke:#898781;stroke-dasharray:3 3}.whisker{stroke:#0b0b0b;stroke-width:1.5}
.curve{fill:none;stroke:#2a78d6;stroke-width:1.5}
"""
DARK = """
.card{fill:#1a1a19;stroke:#3a3a38}text{fill:#c3c2b7}.title,.number{fill:#fff}
.line{stroke:#898781}.whisker{stroke:#fff}.curve{stroke:#3987e5}
"""


def draw(chart: Chart) -> str:
    """The SVG document."""
    names = list(dict.fromkeys(bar.series for group in chart.groups for bar in group.bars))
    most = max((bar.high for group in chart.groups for bar in group.bars), default=1.0) or 1.0
    scale = (WIDTH - LEFT - RIGHT) / most
    top = 64 + (22 if len(names) > 1 else 0)
    body: list[str] = []
    y = top
    for group in chart.groups:
        body += _group(group, y, scale, names)
        y += BAR * len(group.bars) + GAP
    height = y + (24 if chart.line is not None else 6)
    if chart.line is not None:
        x = round(LEFT + chart.line * scale, 1)
        body.append(f'<line class="line" x1="{x}" x2="{x}" y1="{top - 6}" y2="{y - 6}"/>')
        body.append(_text(x, y + 10, chart.line_label, anchor="middle"))
    if len(names) > 1:
        body += _legend(names)
    return _document(chart.title, chart.subtitle, _style(names, chart.muted), height, body)


class Curve(msgspec.Struct, frozen=True):
    """How a figure went in the course of time: minutes and values, from 0 on."""

    title: str
    subtitle: str
    unit: str
    points: list[tuple[float, float]]


def draw_curve(curve: Curve) -> str:
    """The SVG document: at most one point for each pixel."""
    left, top, right, bottom = 70, 70, WIDTH - 30, 270
    step = len(curve.points) // (right - left) + 1
    points = curve.points[::step]
    last = max((at for at, _ in points), default=1.0) or 1.0
    most = max((value for _, value in points), default=1.0) or 1.0
    path = " ".join(
        f"{left + (right - left) * at / last:.1f},{bottom - (bottom - top) * value / most:.1f}"
        for at, value in points
    )
    body = [
        f'<line class="line" x1="{left}" x2="{right}" y1="{top}" y2="{top}"/>',
        f'<line class="line" x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}"/>',
        f'<polyline class="curve" points="{path}"/>',
        _text(left - 8, top + 4, f"{most:.0f} {curve.unit}", anchor="end"),
        _text(left - 8, bottom + 4, "0", anchor="end"),
        _text(left, bottom + 22, "0"),
        _text(right, bottom + 22, f"{last:.1f} min", anchor="end"),
    ]
    return _document(curve.title, curve.subtitle, _style([], ""), bottom + 40, body)


def _document(title: str, subtitle: str, style: str, height: int, body: list[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    card = f'x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}"'
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{style}</style>",
        f'<rect class="card" {card} rx="8"/>',
        _text(20, 28, title, kind="title"),
        _text(20, 48, subtitle),
    ]
    return "\n".join([*head, *body, "</svg>", ""])


def _text(x: float, y: float, said: str, *, kind: str = "", anchor: str = "start") -> str:
    shown = f' class="{kind}"' if kind else ""
    return f'<text{shown} x="{x}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>'


def _style(names: Sequence[str], muted: str) -> str:
    colours = [
        MUTED if name == muted else SERIES[place % len(SERIES)] for place, name in enumerate(names)
    ]
    light = "".join(f".s{place}{{fill:{one[0]}}}" for place, one in enumerate(colours))
    dark = "".join(f".s{place}{{fill:{one[1]}}}" for place, one in enumerate(colours))
    return f"{STYLE}{light}\n@media(prefers-color-scheme:dark){{{DARK}{dark}}}"


def _group(group: Group, y: int, scale: float, names: Sequence[str]) -> list[str]:
    middle = y + BAR * len(group.bars) / 2 + 4
    made = [_text(LEFT - 10, middle, group.label, anchor="end")]
    for bar in group.bars:
        width, low, high = (round(max(one, 0) * scale, 1) for one in (bar.value, bar.low, bar.high))
        centre, place = y + BAR / 2, names.index(bar.series)
        made.append(
            f'<rect class="s{place}" x="{LEFT}" y="{y + 1}" width="{max(width, 1)}" '
            f'height="{BAR - 2}" rx="2"/>'
        )
        made.append(
            f'<line class="whisker" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" '
            f'y1="{centre}" y2="{centre}"/>'
        )
        behind = round(LEFT + max(high, width) + 8, 1)
        made.append(_text(behind, centre + 4, bar.text, kind="number"))
        y += BAR
    return made


def _legend(names: Sequence[str]) -> list[str]:
    made: list[str] = []
    x = LEFT
    for place, name in enumerate(names):
        made.append(f'<rect class="s{place}" x="{x}" y="60" width="12" height="12" rx="2"/>')
        made.append(_text(x + 18, 70, name))
        x += 40 + 8 * len(name)
    return made
