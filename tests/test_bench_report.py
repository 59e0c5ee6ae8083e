"""What the benchmark shows: charts, README's blocks, and the figures in them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench import latency, memory, peers, readme, throughput
from bench.chart import Bar, Chart, Curve, Group, draw, draw_curve
from bench.compare import Row, summarize
from bench.decode import Cost, Decode, Held
from bench.decode import block as decode_block
from bench.load import Result
from bench.measure import Quantiles, Spread
from bench.options import RESULTS
from bench.plan import Timing
from bench.processes import Cores
from bench.report import Machine, R, Report, figure, short
from support.svg import SVG, parsed


MACHINE = Machine("CPython 3.11.7", "Linux 6.1", "A processor", 2, {"trio": "0.35.0"})
TIMES = Quantiles(9, 100.0, 200.0, 300.0)


def result(tokens: int, cpu_us: float) -> Result:
    return Result(2.0, tokens, 4, cpu_us, 0, 1e6, 8, {}, TIMES, TIMES, TIMES)


def rows(*names: str) -> list[Row]:
    """Two rounds of every scenario of `peers`."""
    return [
        summarize(
            scenario,
            [
                {"floor": result(100, 100), **{name: result(100, cost) for name in names}}
                for cost in (1000, 3000)
            ],
        )
        for scenario in peers.scenarios(Timing())
    ]


def report(command: str, found: list[R]) -> Report[R]:
    return Report(
        command, "2026-11-21T10:00:00+00:00", 1.0, {}, Timing(), 2, Cores(), MACHINE, found
    )


# Charts.


def test_a_chart_is_drawn() -> None:
    """Each bar has its length, its spread, its number and its label; text is escaped."""
    bars = [Bar("a", 2.0, 1.0, 4.0, "2x"), Bar("b", 4.0, 4.0, 4.0, "4x")]
    drawn = draw(Chart("A & B", "<less>", [Group("first", bars)], line=1.0, line_label="floor"))
    root = parsed(drawn)
    said = [one.text for one in root.iter(f"{SVG}text")]
    assert said == ["A & B", "<less>", "first", "2x", "4x", "floor", "a", "b"]
    lengths = [
        float(one.attrib["width"])
        for one in root.iter(f"{SVG}rect")
        if one.attrib["class"].startswith("s") and one.attrib["width"] != "12"
    ]
    assert lengths[1] == pytest.approx(2 * lengths[0])
    whisker = next(one for one in root.iter(f"{SVG}line") if one.attrib["class"] == "whisker")
    assert float(whisker.attrib["x2"]) - float(whisker.attrib["x1"]) == pytest.approx(
        1.5 * lengths[0], abs=0.2
    )


def test_a_chart_is_legible_anywhere() -> None:
    """It brings its background, for light and for dark, and takes nothing from elsewhere."""
    drawn = draw(Chart("t", "s", [Group("g", [Bar("a", 1, 1, 1, "1")])]))
    assert drawn.count(".card{fill:") == 2
    assert "prefers-color-scheme:dark" in drawn
    assert not re.search(r"url\(|href|@import|<image|<script", drawn)


def test_an_empty_chart() -> None:
    """Nothing to show is shown as nothing."""
    assert len(parsed(draw(Chart("t", "s", [])))) == 5


def test_a_curve_is_drawn() -> None:
    """It begins at the left, ends at the right, and its greatest value is at the top."""
    drawn = draw_curve(Curve("t", "s", "MiB", [(0.0, 0.0), (1.0, 50.0), (2.0, 25.0)]))
    [line] = parsed(drawn).iter(f"{SVG}polyline")
    assert line.attrib["points"] == "70.0,270.0 470.0,70.0 870.0,170.0"
    many = draw_curve(Curve("t", "s", "MiB", [(float(at), 1.0) for at in range(10_000)]))
    [line] = parsed(many).iter(f"{SVG}polyline")
    assert len(line.attrib["points"].split()) < 800
    parsed(draw_curve(Curve("t", "s", "MiB", [])))


# README.


def test_a_block_is_replaced() -> None:
    """What stood between the marks is gone, what stands around them stays."""
    text = "a\n<!-- bench x: begin -->\nold\nolder\n<!-- bench x: end -->\nb\n"
    made = readme.replace(text, "x", r"new \1")
    assert made == "a\n<!-- bench x: begin -->\nnew \\1\n<!-- bench x: end -->\nb\n"
    assert readme.replace(made, "x", r"new \1") == made
    for other in ("y", "x.*"):
        with pytest.raises(LookupError, match="no block"):
            readme.replace(text, other, "")
    with pytest.raises(LookupError, match="or several"):
        readme.replace(text * 2, "x", "")


def test_a_block_is_written(tmp_path: Path) -> None:
    """README gets the table and the picture, which lies where README says."""
    path = tmp_path / "README.md"
    path.write_text("<!-- bench peers: begin -->\n<!-- bench peers: end -->\n")
    found = report("peers", rows("nursling", "other"))
    readme.put(peers.block(found), found, tmp_path / "results", path)
    text = path.read_text()
    assert "(results/peers.svg)" in text
    assert (tmp_path / "results" / "peers.svg").read_text().startswith("<svg")
    command = "uv run python -m bench peers --repeat 2 --seconds 1 --readme"
    assert f"Medians of 2 rounds of `{command}` on 2026-11-21" in text
    assert "A processor, 2 cores, CPython 3.11.7." in text


@pytest.mark.parametrize("name", ["throughput", "latency", "memory", "peers"])
def test_the_blocks_of_readme(name: str) -> None:
    """Each has a table whose rows are as long as its head, its picture, and its command."""
    text = readme.README.read_text()
    found = re.findall(
        rf"<!-- bench {name}: begin -->\n(.*?)<!-- bench {name}: end -->", text, re.DOTALL
    )
    assert len(found) == 1
    lines = [line for line in found[0].splitlines() if line.startswith("|")]
    assert len(lines) > 2
    assert len({line.count(" | ") for line in lines}) == 1
    assert f"(bench/results/{name}.svg)" in found[0]
    assert re.search(rf"python -m bench {name} --repeat \d+ --seconds [\d.]+ --readme`", found[0])
    parsed((RESULTS / f"{name}.svg").read_text())
    assert not re.search(r"\b(inf|nan|None)\b", found[0])


# Figures.


@pytest.mark.parametrize(
    ("value", "written"), [(1234.5, "1,234"), (99.96, "100.0"), (12.34, "12.3"), (1.234, "1.23")]
)
def test_numbers_have_three_digits(value: float, written: str) -> None:
    """Digits that do not count are not shown."""
    assert short(value) == written


def test_a_figure_has_its_spread() -> None:
    """Median, and below it least and greatest, if there was more than one."""
    assert figure(Spread(2.0, 1.0, 3.0)) == "2.00\n[dim]1.00-3.00[/dim]"
    assert figure(Spread(2000.0, 2000.0, 2000.0), 1000) == "2.00"
    assert figure(None) == "-"


def test_what_throughput_says() -> None:
    """One line and one bar for each scenario, with the ratio's median."""
    scenario = throughput.scenarios(Timing(), 16)[0]
    found = [summarize(scenario, rows("nursling")[0].rounds)]
    block = throughput.block(report("throughput", found))
    assert block.table.splitlines()[-1] == (
        "| chat ← chat | saturated | 20.0 | 1.00 | 20.0 (10.0-30.0) | 50 |"
    )
    assert [bar.value for group in block.chart.groups for bar in group.bars] == [20.0]


def test_what_peers_says() -> None:
    """One column for everybody, floor and ours first; times below the costs."""
    block = peers.block(report("peers", rows("other", "nursling")))
    lines = block.table.splitlines()
    assert lines[0].endswith("| floor | nursling | other |")
    assert lines[2] == "| saturated, per event | 1.00 | 20.0 (20.0x) | 20.0 (20.0x) |"
    assert lines[-1] == "| time of a whole reply | 100 | 100 | 100 |"


def test_what_latency_says() -> None:
    """Times are what is added to the direct way; a cost is beside that of a request beside none."""
    found = [
        summarize(
            scenario,
            [{"direct": result(1, 1), "floor": result(100, 100), "nursling": result(100, 1000)}],
        )
        for scenario in latency.scenarios(Timing())
    ]
    more = [
        latency.More(0, {"nursling": [100.0, 200.0], "floor": [10.0, 10.0]}, {}),
        latency.More(500, {"nursling": [150.0, 200.0], "floor": [10.0, 10.0]}, {}),
        latency.More(900, {}, {}),
    ]
    lines = latency.lines(found, more)
    assert [line.name for line in lines[-3:]] == ["whole reply, CPU", "beside 0", "beside 500"]
    assert lines[-1].told == Spread(1.25, 1.0, 1.5)
    assert (lines[0].name, lines[0].told) == ("first token, p50", Spread(0.0, 0.0, 0.0))
    rows_of = latency.Latency(lines, found, more)
    assert latency.block(report("latency", [rows_of])).table.splitlines()[-1].endswith("| 1.25x |")


def test_what_memory_says() -> None:
    """Bytes by stream, beyond what the process has at rest."""
    row = memory.Row("nursling", 512, [memory.Reading(50.0, 80.0, 60.0)])
    assert (row.each.median, row.kept.median) == (60.0, 20.0)
    table = memory.block(report("memory", [row])).table
    assert table.splitlines()[-1] == "| nursling | 512 | 50.0 | 60.0 | 20.0 |"


def test_what_decode_says() -> None:
    """One line for each piece, one bar for each guard."""
    cost = Cost("grammar", {1: Spread(1.0, 1.0, 1.0), 16: Spread(0.5, 0.5, 0.5)})
    held = Held("stencil", "µs/event", 1.0, 2.0, 2.0, 1.3)
    block = decode_block(report("decode", [Decode([cost], [held])]))
    assert block.table.splitlines()[-1] == "| grammar | 1.00 | 0.50 |"
    assert [group.label for group in block.chart.groups] == ["stencil"]
