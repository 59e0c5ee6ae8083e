"""The one who writes log lines, so that nobody else waits for whoever reads them.

The law of this file: handing a line over takes no longer than appending it to a queue. A pipe that
nobody reads, or a terminal that is held (Ctrl-S), once stopped the process with its next line, and
no signal ended it. So lines wait here for one thread, in their order and bounded in number. What
does not fit is dropped and counted, and the count is a line of the log itself, where the others
would have stood. The thread is a daemon: a write that never returns does not hold up the end.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Self, TextIO


ROOM = 1000
"""Lines that may wait: some 400 bytes each, so half a megabyte."""
LAST_WORDS = 1.0
"""Seconds that the end waits for the lines that are left."""


class LogWriter:
    """A thread that writes lines. A context manager: at the block's end it writes what is left."""

    def __init__(self, file: TextIO, tell: Callable[[int], object]) -> None:
        """`tell` logs a count of lines that were dropped; it may log right here."""
        self._file = file
        self._tell = tell
        self._changed = threading.Condition()  # over an RLock: `tell` comes back to `write`
        self._lines: deque[str] = deque()
        self._dropped = 0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="nursling log", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join(LAST_WORDS)

    def write(self, text: str) -> None:
        """Have a line written, or drop it.

        Once one was dropped, so are those behind it until half of the room is free: the count is
        told once per flood, and not between every two lines of it.
        """
        with self._changed:
            if self._dropped or len(self._lines) >= ROOM:
                self._dropped += 1
                return
            self._lines.append(text)
            self._changed.notify()

    def _run(self) -> None:
        while (text := self._next()) is not None:
            with suppress(OSError, ValueError):  # a ValueError: the file is closed
                write_through(self._file, text)

    def _next(self) -> str | None:
        """Wait for a line. None = there will be none."""
        with self._changed:
            while not self._lines:
                if self._closed:
                    return None
                self._changed.wait()
            text = self._lines.popleft()
            if self._dropped and len(self._lines) <= ROOM // 2:
                count, self._dropped = self._dropped, 0
                self._tell(count)
            return text


def write_through(file: TextIO, text: str) -> None:
    """Write to the descriptor of a file, if it has one, past its buffer.

    A thread that is stuck in the buffer's own write holds the buffer's lock, and Python's end,
    which flushes stderr, aborts the process over it.
    """
    try:
        number = file.fileno()
    except (OSError, ValueError):  # a file in memory has none
        file.write(text)
        file.flush()
        return
    data = text.encode(file.encoding, "backslashreplace")
    while data:
        data = data[os.write(number, data) :]
