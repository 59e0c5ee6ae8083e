"""Listening sockets.

No TCP_USER_TIMEOUT is set on them: with a receive window that is nearly always shut, as a slow
reader's is, the kernel counts the age of its window probes, not progress, and resets a client that
reads all the time. The clock of a write is `wire.py`'s, and counts what was taken.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import trio

from nursling.engine.limits import Limits


async def listen(host: str, port: int, limits: Limits) -> list[trio.SocketListener]:
    """Bind; port 0 = any free one. Raises `OSError` if it cannot."""
    return await trio.open_tcp_listeners(port, host=host, backlog=limits.backlog)


def secured(
    listeners: Iterable[trio.abc.Listener[trio.SocketStream]], tls: ssl.SSLContext | None
) -> list[trio.abc.Listener[Any]]:
    """Put TLS over listeners, if there is a context for it. The handshake is the server's."""
    if tls is None:
        return list(listeners)
    return [trio.SSLListener(listener, tls, https_compatible=True) for listener in listeners]


def url_of(listener: trio.SocketListener, scheme: str) -> str:
    """Say where a listener is bound."""
    host, port = listener.socket.getsockname()[:2]
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def tls_context(cert: Path | str, key: Path | str | None) -> ssl.SSLContext:
    """Load a certificate. HTTP/1.1 is all that ALPN offers. Raises `OSError`, `ssl.SSLError`."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    context.set_alpn_protocols(["http/1.1"])
    return context
