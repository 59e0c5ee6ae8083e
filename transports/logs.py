"""Logs: one line per thing that happened, on stderr.

The law of this file: a line has an event's name and values that are about the request, never of
it: no prompt, no completion, no key. Values that others chose (a model's name, a header) are
escaped, so that nobody can forge a line or colour a terminal. For people on a terminal; JSON
otherwise. What libraries warn of by the standard library's logging is a line of ours too, without
traceback, and not the same one again and again. Who writes a line goes on, whatever becomes of it:
nobody may be left to read it, or the disk be full; and in the gateway nobody waits for a reader.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Generator, Hashable, MutableMapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import msgspec
import structlog

from .log_writer import LogWriter


LEVELS = ("debug", "info", "warning", "error")
_LIBRARIES = ("httpx", "httpcore", "hypercorn.access", "hypercorn.error", "quart", "watchfiles")
LONGEST = 300
"""Characters of one value; what is longer was not meant for a log."""
PAUSE = 10.0
"""Seconds in which a library's warning is not said again: Trio has one each 0.1 s while there are
no descriptors to accept with."""
MOST = 10
"""Lines of one library in that time: some put numbers into each of their messages."""
KINDS = 100
"""Kinds of such warnings that are remembered, and libraries."""


def have_stderr() -> None:
    """Closed by whoever started us (`2>&-`), it is opened: nobody listens, no harm done."""
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - for good


@contextmanager
def written_aside(
    level: str = "info", file: TextIO | None = None, worker: int | None = None
) -> Generator[None]:
    """Set up the logs of a server: a thread writes the lines, and no request waits for it.

    At the block's end it has a second for the last ones. See `configure` for `worker`.
    """
    out = sys.stderr if file is None else file

    def tell(count: int) -> None:
        # An error: who wants to see errors only wants to know that some are missing.
        structlog.get_logger("nursling").error("log lines dropped", count=count)

    with LogWriter(out, tell) as writer:
        configure(level, out, write=writer.write, worker=worker)
        yield


def configure(
    level: str = "info",
    file: TextIO | None = None,
    write: Callable[[str], object] | None = None,
    worker: int | None = None,
) -> None:
    """Set up the process's logs. For programs; an embedder has logs of its own.

    `write` takes the lines in the place of the file, which says then only whether it is a terminal.
    `worker` is the number of this process, if there are several; it is in each of its lines.
    """
    out: TextIO = sys.stderr if file is None else file
    lines = Lines(out, write)
    number = getattr(logging, level.upper())
    for_people = out.isatty()
    numbered: list[structlog.typing.Processor] = []
    if worker is not None:
        numbered = [partial(_number, worker)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            *numbered,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if for_people else "iso", utc=False),
            structlog.processors.format_exc_info,
            escape,
            structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
            if for_people
            else structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: lines,
        cache_logger_on_first_use=False,
    )
    for name in _LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING)
    root = logging.getLogger()
    for handler in [*root.handlers]:
        if isinstance(handler, FromLibraries):
            root.removeHandler(handler)
    root.addHandler(FromLibraries())


class Lines:
    """Writes lines for as long as somebody takes them (structlog's form of a logger).

    A full disk, or a reader that has gone, costs the line: not the request, nor the server.
    """

    def __init__(self, file: TextIO, write: Callable[[str], object] | None = None) -> None:
        self._file = file
        self._write = write or self._directly

    def msg(self, message: str) -> None:
        """Write a line, if that is possible."""
        self._write(message + "\n")

    debug = info = warning = error = critical = msg

    def _directly(self, text: str) -> None:
        with suppress(OSError, ValueError):  # a ValueError: the file is closed
            self._file.write(text)
            self._file.flush()


class FromLibraries(logging.Handler):
    """Writes what libraries warn of as lines of ours.

    In each `PAUSE` that is one per kind of warning, and `MOST` per library (its logger's name).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(logging.WARNING)
        self._clock = clock
        self._kinds = Quota(1)
        self._libraries = Quota(MOST)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or count one that is not written."""
        kind = (record.name, str(record.msg))
        now = self._clock()
        before = self._kinds.take(kind, now)
        if before is None:
            return
        more = self._libraries.take(record.name, now, 1 + before)
        if more is None:
            return
        untold = {"untold": before + more} if before + more else {}
        try:
            said = record.getMessage()
        except (TypeError, ValueError):  # its arguments do not fit: a bug, but it works on
            said = kind[1]
        log = structlog.get_logger(record.name)
        say = log.error if record.levelno >= logging.ERROR else log.warning
        say("library", library=record.name, says=said, **untold)


class Quota:
    """How often something is said in a `PAUSE`, and how often it was not."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._seen: dict[Hashable, tuple[float, int, int]] = {}
        """Of each thing: until when we count, how often it was said, and how often not."""

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, thing: Hashable, now: float, count: int = 1) -> int | None:
        """Say how often it was not said before this; None = now neither, which counts `count`."""
        until, said, untold = self._seen.get(thing, (now, 0, 0))
        if now >= until:
            until, said = now + PAUSE, 0
        if said >= self._most:
            self._seen[thing] = (until, said, untold + count)
            return None
        if len(self._seen) >= KINDS:
            self._seen.clear()
        self._seen[thing] = (until, said + 1, 0)
        return untold


def _json(line: Any, **_: Any) -> str:
    """Write a line as JSON: several times faster than the standard library, which knows more."""
    try:
        return msgspec.json.encode(line, enc_hook=repr).decode()
    except UnicodeEncodeError:  # half a surrogate pair, in a traceback say
        return json.dumps(line, default=repr)


def _number(
    worker: int, _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    event["worker"] = worker
    return event


def escape(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape what is not printable in every value, and cut what is too long (structlog's form)."""
    for key, value in event.items():
        if isinstance(value, str) and key != "exception":
            event[key] = plain(value)
    return event


def plain(value: str) -> str:
    """Make a string safe to print: no control character, no bidirectional trick, no flood."""
    if len(value) > LONGEST:
        value = value[:LONGEST] + "…"
    if value.isprintable():
        return value
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in value)
