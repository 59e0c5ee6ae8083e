"""Log lines: one per event, and nobody can forge one."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from nursling.transports import logs


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_json_lines() -> None:
    """Away from a terminal each event is one JSON object with time and level."""
    out = io.StringIO()
    logs.configure(file=out)
    structlog.get_logger().info("request", model="m\nforged", count=3)
    line = json.loads(out.getvalue())
    assert (line["event"], line["level"], line["count"]) == ("request", "info", 3)
    assert line["model"] == "m\\nforged"
    assert "timestamp" in line


def test_a_terminal_gets_words_that_cannot_colour_it() -> None:
    """On a terminal a hostile value arrives escaped, on one line."""
    out = Terminal()
    logs.configure(file=out)
    structlog.get_logger().warning("request", model="\x1b[2J\r\nINFO forged \u202e")
    assert out.getvalue().count("\n") == 1
    assert "\x1b[2J" not in out.getvalue()
    assert "INFO forged" in out.getvalue()
    assert "\u202e" not in out.getvalue()


def test_the_level_is_a_threshold() -> None:
    """Events below the level are not written."""
    out = io.StringIO()
    logs.configure("warning", file=out)
    structlog.get_logger().info("quiet")
    structlog.get_logger().error("loud")
    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["loud"]


def test_libraries_are_quiet() -> None:
    """Loggers that would write URLs or one line per request are at WARNING."""
    logs.configure(file=io.StringIO())
    for name in ("httpx", "httpcore", "hypercorn.access"):
        assert not logging.getLogger(name).isEnabledFor(logging.INFO)


def test_exceptions_have_a_traceback() -> None:
    """A bug is logged with its place."""
    out = io.StringIO()
    logs.configure(file=out)
    try:
        int("x")
    except ValueError:
        structlog.get_logger().exception("bug")
    assert "test_exceptions_have_a_traceback" in json.loads(out.getvalue())["exception"]


@pytest.mark.parametrize(
    ("value", "said"),
    [("plain é 漢", "plain é 漢"), ("a\tb", "a\\tb"), ("x" * 1000, "x" * 300 + "…")],
)
def test_what_is_said_of_a_value(value: str, said: str) -> None:
    """Letters of all languages stay; controls are escaped; floods are cut."""
    assert logs.plain(value) == said
