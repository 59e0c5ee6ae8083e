"""Lines that a thread writes: in their order, counted where some are missing, and nobody waits."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import Iterator

import pytest
import structlog

from nursling.transports import log_writer, logs
from nursling.transports.log_writer import ROOM


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    structlog.reset_defaults()


class Held(io.StringIO):
    """A file whose reader has stopped, until it goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.free = threading.Event()

    def write(self, text: str) -> int:
        self.entered.set()
        assert self.free.wait(20)
        return super().write(text)


def lines(file: io.StringIO) -> list[tuple[str, int]]:
    said = [json.loads(line) for line in file.getvalue().splitlines()]
    return [(line["event"], line.get("number", line.get("count"))) for line in said]


def test_lines_stand_in_their_order_and_the_last_ones_too() -> None:
    """What was said before the block's end is written when it has ended."""
    file = io.StringIO()
    with logs.written_aside(file=file):
        for number in range(ROOM // 2):
            structlog.get_logger().info("line", number=number)
    assert lines(file) == [("line", number) for number in range(ROOM // 2)]


def test_nobody_waits_for_a_reader_that_has_stopped() -> None:
    """Lines past the room are dropped; their number stands where they would have stood."""
    file = Held()
    with logs.written_aside("error", file=file):
        log = structlog.get_logger()
        log.error("line", number=-1)
        assert file.entered.wait(20)
        for number in range(ROOM + 70):
            log.error("line", number=number)
        file.free.set()
    written = [("line", number) for number in range(-1, ROOM)]
    assert lines(file) == [*written, ("log lines dropped", 70)]


def test_a_flood_is_counted_once() -> None:
    """While half of the room is taken no line gets in between: then one count, then lines again."""
    file = Held()
    with logs.written_aside(file=file):
        log = structlog.get_logger()
        log.info("line", number=-1)
        assert file.entered.wait(20)
        for number in range(ROOM + 1):
            log.info("line", number=number)
        file.free.set()
        while ("line", ROOM // 2) not in lines(file):
            pass
        log.info("again", number=0)
    assert lines(file)[-3:] == [("line", ROOM - 1), ("log lines dropped", 1), ("again", 0)]


def test_the_end_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that never goes on costs the last lines, and no more than the time for them."""
    monkeypatch.setattr(log_writer, "LAST_WORDS", 0.01)
    file = Held()
    with logs.written_aside(file=file):
        structlog.get_logger().info("line", number=0)
    assert lines(file) == []
    file.free.set()


def test_a_line_that_fails_costs_itself_only() -> None:
    """A full disk, then room on it again: the thread has not died of it."""
    full = iter([True, False])

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            if next(full):
                raise OSError("no space")
            return super().write(text)

    file = Full()
    with logs.written_aside(file=file):
        structlog.get_logger().info("line", number=0)
        structlog.get_logger().info("line", number=1)
    assert lines(file) == [("line", 1)]


def test_a_real_file_is_written_past_its_buffer() -> None:
    """Through a pipe of the kernel, in its file's own encoding; and the file's buffer is empty."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w", encoding="ascii") as file:
        log_writer.write_through(file, "Ü\n")
        assert os.read(reading, 100) == b"\\xdc\n"
    assert os.read(reading, 100) == b""
    os.close(reading)
