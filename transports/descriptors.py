"""File descriptors: as many as our caps promise.

The law of this file: `max_connections` means what it says. Shells start programs with a soft limit
of 1,024 descriptors as a rule, which is there for the sake of programs that use `select`; who
does not may raise it up to the hard limit, as Go's runtime does for all its programs.
"""

from __future__ import annotations

import resource

from nursling.engine.limits import Limits


OTHERS = 128
"""Standard streams, listeners, the event loop, the watched file, libraries' own."""


def needed(limits: Limits) -> int:
    """Count what the caps of a process come to, and the idle connections of one upstream."""
    clients = limits.max_connections + limits.max_refused
    return clients + limits.max_streams + limits.max_idle + OTHERS


def make_room(limits: Limits) -> int:
    """Raise this process's soft limit as far as needed; return how many are missing, 0 if none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = needed(limits)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        except (OSError, ValueError):  # some systems have a lower bound beside the hard limit
            soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 0 if soft == resource.RLIM_INFINITY else max(wanted - soft, 0)
