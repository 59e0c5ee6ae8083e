"""What every answer carries, whoever wrote it: the request's id and our own time on it."""

from __future__ import annotations

import re
from collections.abc import Iterable


Headers = list[tuple[bytes, bytes]]

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


def stamps(request_id: str, overhead: float) -> Headers:
    """Write the two headers. `overhead` in seconds: our own time, without that of others."""
    return [
        (b"x-request-id", request_id.encode()),
        (b"x-nursling-overhead-ms", b"%.1f" % (overhead * 1000)),
    ]


def own_request_id(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """Return the id that the client has given its request, if it is sane."""
    theirs = next((value for name, value in headers if name.lower() == b"x-request-id"), b"")
    return theirs.decode() if _REQUEST_ID.fullmatch(theirs) else None


def new_request_id(token: str) -> str:
    """Name a request whose client has not."""
    return f"req_{token}"
