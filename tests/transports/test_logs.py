"""Log lines: one per event, and nobody can forge one."""

from __future__ import annotations

import errno
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
    root = logging.getLogger()
    for handler in [one for one in root.handlers if type(one) is logs.FromLibraries]:
        root.removeHandler(handler)


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


def test_each_line_says_whose_it_is() -> None:
    """Where there are several workers, every line of one has its number, a library's too."""
    out = io.StringIO()
    with logs.written_aside(file=out, worker=3):
        structlog.get_logger().info("request")
        logging.getLogger("watchfiles").warning("no")
    assert [json.loads(line)["worker"] for line in out.getvalue().splitlines()] == [3, 3]


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


@pytest.mark.fault(45, "V")
def test_what_libraries_warn_of_is_a_line_of_ours() -> None:
    """One line of our form, without traceback, and not the same one again for a while."""
    out = io.StringIO()
    logs.configure(file=out)
    [handler] = [one for one in logging.getLogger().handlers if type(one) is logs.FromLibraries]
    now = 0.0
    handler._clock = lambda: now
    library = logging.getLogger("trio.serve_listeners")
    for step in range(200):  # 20 s without a descriptor
        now = step * 0.1
        library.error("accept returned %s", f"EMFILE\n{step}", exc_info=OSError("x"))
    library.warning("another")
    library.info("quiet")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [(line["says"], line["level"], line.get("untold")) for line in lines] == [
        ("accept returned EMFILE\\n0", "error", None),
        ("accept returned EMFILE\\n100", "error", 99),
        ("another", "warning", None),
    ]
    assert {line["library"] for line in lines} == {"trio.serve_listeners"}


def test_kinds_of_warnings_are_bounded() -> None:
    """A library that puts numbers into its messages fills neither the log nor our memory."""
    out = io.StringIO()
    logs.configure(file=out)
    [handler] = [one for one in logging.getLogger().handlers if type(one) is logs.FromLibraries]
    now = 0.0
    handler._clock = lambda: now
    for number in range(1000):
        logging.getLogger("chatty").warning(f"odd number {number}")  # noqa: G004 - it is the case
        logging.getLogger(f"{number}").warning("many loggers")
    assert len(handler._kinds) <= logs.KINDS
    assert len(handler._libraries) <= logs.KINDS
    now = logs.PAUSE
    for _ in range(2):
        logging.getLogger("steady").warning("the same")
    logging.getLogger("steady").warning("another")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    chatty = [line for line in lines if line["library"] == "chatty"]
    assert len(chatty) <= 1000 / logs.KINDS * logs.MOST * 2
    assert [line["says"] for line in lines[-2:]] == ["the same", "another"]


def test_a_library_has_so_many_lines() -> None:
    """Past them its warnings are counted, of whatever kind; the next line of it tells how many."""
    out = io.StringIO()
    logs.configure(file=out)
    [handler] = [one for one in logging.getLogger().handlers if type(one) is logs.FromLibraries]
    now = 0.0
    handler._clock = lambda: now
    chatty = logging.getLogger("chatty")
    for number in range(logs.MOST + 7):
        chatty.warning(f"odd number {number}")
        chatty.warning(f"odd number {number}")
    logging.getLogger("other").warning("heard")
    now = logs.PAUSE
    chatty.warning("on it goes")
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["library"] for line in lines] == ["chatty"] * logs.MOST + ["other", "chatty"]
    assert lines[-1]["untold"] == 7


class Full(io.StringIO):
    """A file on a full disk, or a pipe that nobody reads any more."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "no space")


def test_a_line_that_cannot_be_written_is_nobodys_failure() -> None:
    """A log that takes nothing costs its lines: it once ended the server with its first request."""
    file = Full()
    logs.configure("debug", file=file)
    log = structlog.get_logger()
    for closed in (False, True):
        for say in (log.debug, log.info, log.warning, log.error):
            say("request")
        logging.getLogger("hypercorn.error").warning("no descriptors, %s", closed)
        file.close()


def test_a_warning_whose_arguments_do_not_fit_is_said_all_the_same() -> None:
    """A library's slip in a warning does not raise where it warns."""
    out = io.StringIO()
    logs.configure(file=out)
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, "%d of them", ("many",), None)
    logs.FromLibraries().handle(record)  # the root's other handlers here are pytest's
    assert json.loads(out.getvalue())["says"] == "%d of them"


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


def test_a_line_of_anything() -> None:
    """What JSON does not know is written as Python shows it, half a surrogate pair escaped."""
    file = io.StringIO()
    logs.configure("info", file)
    structlog.get_logger("t").info("odd", value={1, 2}, exception="\ud83d", name="Zürich")
    line = json.loads(file.getvalue())
    assert (line["value"], line["exception"], line["name"]) == ("{1, 2}", "\ud83d", "Zürich")
