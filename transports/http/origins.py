"""Which web pages may talk to us.

Two separate questions. *CORS*: which pages may read our answers; those of `cors_origins`.
*Rebinding*: a page of any origin can make a browser send us requests, by a DNS name that it points
to 127.0.0.1 (the `Host` then is that name), or by a request simple enough to need no preflight
(the `Origin` then is the page's). On loopback, where nobody needs a key, both would let a page use
the gateway of whoever looks at it: so foreign hosts and foreign origins are refused.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from nursling.engine.errors import Forbidden


LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})
EXPOSED = "x-request-id, x-nursling-overhead-ms, x-nursling-dropped, retry-after, x-ratelimit-*"
PREFLIGHT_SECONDS = 600

_HOST = re.compile(r"(?:\[(?P<six>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::\d+)?")
_HEADER_LIST = re.compile(r"[A-Za-z0-9\-_, ]{0,1000}")


class Origins:
    """The rules of one app. `hosts` None = any; `"*"` in `allowed` = every origin may read."""

    def __init__(self, allowed: Collection[str], hosts: Collection[str] | None) -> None:
        self._any = "*" in allowed
        self._allowed = {origin.rstrip("/").lower() for origin in allowed}
        self._hosts = None if hosts is None else {host.lower() for host in hosts} | LOOPBACK_HOSTS

    def check(self, host: str | None, origin: str | None, scheme: str) -> None:
        """Refuse a request that a foreign page made. Raises `Forbidden`.

        A request without the header was not made by a page: browsers always send them.
        """
        if host and self._hosts is not None:
            match = _HOST.fullmatch(host.strip().lower())
            name = (match["six"] or match["name"] or "") if match else ""
            if name not in self._hosts and not name.endswith(".localhost"):
                raise Forbidden("this Host is not one of the gateway's names")
        if origin is not None and not self.allows(origin):
            ours = f"{scheme}://{host or ''}".lower()
            if origin.lower() != ours:
                raise Forbidden("this Origin is not among the gateway's cors_origins")

    def allows(self, origin: str) -> bool:
        """Whether pages of this origin may read our answers."""
        return self._any or origin.rstrip("/").lower() in self._allowed

    def headers(self, origin: str | None) -> list[tuple[str, str]]:
        """Return the headers that let a page of this origin read the answer."""
        if not self._allowed:
            return []
        vary = [("vary", "Origin")]
        if origin is None or not self.allows(origin):
            return vary
        return [
            ("access-control-allow-origin", "*" if self._any else origin),
            ("access-control-expose-headers", EXPOSED),
            *vary,
        ]

    def preflight(self, wanted: str | None) -> list[tuple[str, str]]:
        """Return what the answer to a preflight says besides."""
        asked = wanted if wanted and _HEADER_LIST.fullmatch(wanted) else ""
        return [
            ("access-control-allow-methods", "GET, POST, OPTIONS"),
            ("access-control-allow-headers", asked or "authorization, content-type"),
            ("access-control-max-age", str(PREFLIGHT_SECONDS)),
        ]
