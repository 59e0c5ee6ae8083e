"""The lulls of a soak: times in which no client is lazy, so that memory can be compared.

The law of this file: what a stream holds while it lives is no growth. 58 streams of which each
holds up to some megabytes until its client reads, or is cut, are between 2 and 140 MiB from one
moment to the next: a line through that says nothing of 2 MiB/h. So the lazy clients begin nothing
new from time to time, until the last of them has ended; what the gateway holds then, with all the
other streams running on, it must hold the next time too, and no more. Whatever a lazy stream has
left behind is still there in a lull, and adds up over the lulls.

Behind the first lull, which is no more than warm-up, they all begin at the same moment: the heap is
as large as its worst moment has made it, and if that comes late it looks like growth (measured: a
step of 1.5 MiB after a quarter of an hour). Behind the others each begins at a time of its own.

For the same reason a reading counts only while those other streams are there. A gateway that has to
share its processor lags behind with the requests, and has fewer of them at a time; when it has the
processor to itself again that looks like growth (measured: 156 MiB with 760,000 objects, 185 MiB
with 1,050,000).
"""

from __future__ import annotations


BUSY = 75.0
"""Seconds between two lulls in which lazy clients begin streams."""
SETTLE = 5.0
"""Seconds from their last end until a lull counts: an unused connection is kept for four."""
CALM = 12.0
"""Seconds that a lull counts."""
FULL = 0.97
"""Share of the other streams that the gateway must have for a reading to count. Between two streams
of a client there is a tenth of a second, so an idle machine has 99.7 % of them."""


class Lulls:
    """When lazy clients may begin a stream. Times are in seconds, from any zero."""

    def __init__(self, now: float) -> None:
        self._count = 0
        self._closes = now + BUSY
        self._calm: float | None = None
        """When this lull counts, once the last lazy stream has ended."""

    def open(self, now: float) -> bool:
        """Whether a lazy client may begin."""
        return now < self._closes

    @property
    def crowd(self) -> bool:
        """Whether those who have waited for the end of this lull begin all at once."""
        return self._count == 1

    def look(self, now: float, lazy: int) -> int:
        """Say in which lull we are, from 1 on; 0 = in none that counts. `lazy`: streams at work."""
        if self.open(now):
            return 0
        if self._calm is None:
            if not lazy:
                self._calm = now + SETTLE
                self._count += 1
            return 0
        if now >= self._calm + CALM:
            self._calm, self._closes = None, now + BUSY
            return 0
        return self._count if now >= self._calm else 0
