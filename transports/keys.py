"""Who may call.

The law of this file: only hashes are kept, all of them are compared in constant time, and the
comparison never stops early, so the time of an answer tells nothing about any key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping

from nursling.engine.errors import Unauthorized

from .config import KeyEntry


BLANK = " \t"
"""What HTTP calls white space. `str.strip` would eat bytes of UTF-8 that look like U+00A0."""


class Keys:
    """The configured keys. Without any, everyone is let in (on loopback only: `config.py`)."""

    def __init__(self, entries: Iterable[KeyEntry] = ()) -> None:
        self._digests: tuple[tuple[str, bytes], ...] = ()
        self.replace(entries)

    def replace(self, entries: Iterable[KeyEntry]) -> None:
        """Let other keys be the valid ones, from the next request on."""
        self._digests = tuple((entry.name, entry.digest) for entry in entries)

    @property
    def open(self) -> bool:
        """Whether no key is asked for."""
        return not self._digests

    def check(self, headers: Mapping[str, str]) -> str:
        """Return the name of the caller's key; "" if none is needed. Raises `Unauthorized`.

        `headers` are looked up in lower case: `authorization: Bearer …`, else `x-api-key`.
        """
        digests = self._digests
        if not digests:
            return ""
        presented = _presented(headers)
        digest = hashlib.sha256(_sent(presented)).digest()
        found: str | None = None
        for name, known in digests:
            if hmac.compare_digest(digest, known):
                found = name
        if not presented:
            raise Unauthorized("no API key: send it as 'Authorization: Bearer KEY' or 'x-api-key'")
        if found is None:
            raise Unauthorized("this API key is not valid here")
        return found


def _presented(headers: Mapping[str, str]) -> str:
    scheme, _, token = headers.get("authorization", "").strip(BLANK).partition(" ")
    if scheme.lower() == "bearer" and token.strip(BLANK):
        return token.strip(BLANK)
    return headers.get("x-api-key", "").strip(BLANK)


def _sent(presented: str) -> bytes:
    """Make the bytes that the client has sent: a header is read as Latin-1, whatever is in it.

    So a key that is not ASCII is known by its UTF-8 bytes, like the one in the configuration.
    """
    try:
        return presented.encode("latin-1")
    except UnicodeEncodeError:  # a text that was no header
        return presented.encode("utf-8", "surrogateescape")
