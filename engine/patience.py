"""How long a reply is waited for: all its clocks, as one deadline.

The law of this file: it knows no clock, it is told the time. *First event* and *idle* (for a whole
reply: *whole*) are patience: time spent waiting for the upstream uses it up, news gives it back,
and time in which our own reader held us back is not counted. *Total* counts everything. After the
last finish reason only the *grace* is left.

Whoever moves a deadline pays for it, with each token. So the idle clock runs a little long, by
`SLACK` of itself at most, and is moved when that is used up; it never runs short.
"""

from __future__ import annotations

from .errors import FirstEventTimeout, IdleTimeout, NurslingError, TotalTimeout, WholeTimeout
from .limits import Limits, clock


SLACK = 1 / 64
"""Two seconds of two minutes."""


class Patience:
    """The clocks of one reply. Times are seconds, by any clock that only goes forward."""

    def __init__(self, limits: Limits, *, streamed: bool, now: float) -> None:
        self.end = now + clock(limits.total_timeout)
        """When it has to be over, whatever happens."""
        self._limits = limits
        self._streamed = streamed
        self._left = clock(limits.first_event_timeout if streamed else limits.whole_timeout)
        self._slack = 0.0
        self._news = False
        self._graced = False

    def waited(self, seconds: float) -> None:
        """Time has gone by in waiting for the upstream."""
        self._left -= seconds

    def heard(self) -> None:
        """There was news."""
        if not self._graced:
            self._news = True
            self._renew()

    def finished(self, now: bool) -> None:
        """Whether every choice has its finish reason: it may be taken back, by a late choice."""
        if now == self._graced:
            return
        self._graced = now
        if now:
            self._left, self._slack = self._limits.finish_grace, 0.0
        else:
            self._renew()

    def _renew(self) -> None:
        self._left = clock(self._limits.idle_timeout)
        self._slack = self._left * SLACK

    def due(self, now: float, current: float = -1.0) -> float:
        """Return the deadline. It is the `current` one, if that will do."""
        wanted = min(now + self._left, self.end)
        if wanted <= current <= wanted + self._slack:
            return current
        return min(wanted + self._slack, self.end)

    def error(self, now: float) -> NurslingError | None:
        """Say which clock has run out; None if it was the grace, whose end is a good end."""
        limits = self._limits
        if self._graced:
            return None
        if now >= self.end:
            return TotalTimeout(f"the reply was not at its end after {limits.total_timeout:g} s")
        if not self._streamed:
            return WholeTimeout(f"the reply did not come within {limits.whole_timeout:g} s")
        if not self._news:
            return FirstEventTimeout(
                f"the upstream said nothing within {limits.first_event_timeout:g} s"
            )
        return IdleTimeout(f"the upstream was silent for {limits.idle_timeout:g} s")
