"""The gateway as a process: engine, keys, app and server, until a signal ends it.

The law of this file: it wires and decides nothing. The first SIGTERM or SIGINT starts the drain,
the second ends it at once. A changed configuration file that is valid is put in force for the
requests to come (models, providers, keys, limits); one that is not is logged, and the old one
stays. What was fixed when the process started (`FIXED`) is logged by name if it changes.
"""

from __future__ import annotations

import signal
import ssl
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Protocol

import structlog
import trio
import watchfiles

from nursling.engine.limits import Limits

from .config import Config, ConfigError, Server, is_loopback, with_address
from .engine import Engine, open_engine
from .http.app import create_app
from .http.listening import listen, secured, tls_context, url_of
from .http.metrics import Metrics
from .http.server import serve_on
from .keys import Keys


WATCH_TIMEOUT = 1000
"""Milliseconds that the watching thread sleeps at most before it looks whether it must end."""

FIXED = {
    "server": ("host", "port", "workers", "cors_origins", "tls_cert", "tls_key"),
    "limits": (
        "backlog",
        "close_timeout",
        "drain_timeout",
        "head_timeout",
        "keep_alive",
        "max_connections",
        "max_head_bytes",
        "max_headers",
        "max_idle",
        "max_refused",
        "max_requests",
        "write_timeout",
    ),
}
"""What the listening server and the pool of connections keep until a restart."""

Load = Callable[[], Config]
"""Reads the configuration anew. Raises `ConfigError`."""


class Post(Protocol):
    """What a worker has in the place of a socket and signals of its own (`worker.py`)."""

    metrics: Metrics

    def accepting(self) -> trio.abc.Listener[trio.SocketStream]:
        """Give the listener that its connections come from."""
        ...

    def closed(self) -> None:
        """Take note that one of these connections is over."""
        ...

    async def heed(
        self, stop: trio.Event, now: trio.Event, *, task_status: trio.TaskStatus[None]
    ) -> None:
        """Set the events when it is time, until cancelled."""
        ...


async def run_gateway(
    config: Config,
    *,
    load: Load | None = None,
    on_listening: Callable[[list[str]], None] | None = None,
    post: Post | None = None,
) -> None:
    """Serve until a signal; return after the drain.

    `load` is called when the file of the configuration changes. `on_listening` gets the URLs.
    With a `post` there are none: who listens is the parent of this worker.
    Raises `ConfigError` if the address, the certificate or an entry is of no use.
    """
    server = config.server
    stop, now = trio.Event(), trio.Event()
    _warn(config)
    async with open_engine(config) as engine:
        app = create_app(
            engine,
            cors_origins=server.cors_origins,
            hosts=() if is_loopback(server.host) else None,
            metrics=None if post is None else post.metrics,
        )
        tls = secure(server)
        sockets = [] if post is not None else await bind(server, config.limits)
        urls = urls_of(server, sockets)
        listeners = [post.accepting()] if post is not None else sockets
        async with trio.open_nursery() as nursery:
            await nursery.start(heed_signals if post is None else post.heed, stop, now)
            if load is not None and config.path is not None:
                again = partial(reload, load, engine, engine.keys, config)
                nursery.start_soon(_watch, Path(config.path), again, stop)
            await serve_on(
                app,
                secured(listeners, tls),
                stop=stop,
                now=now,
                limits=config.limits,
                tls=tls is not None,
                on_drain=app.drain,
                on_drained=app.end_streams,
                on_serving=lambda: None if on_listening is None else on_listening(urls),
                on_closed=lambda: None if post is None else post.closed(),
            )
            nursery.cancel_scope.cancel()


async def bind(server: Server, limits: Limits) -> list[trio.SocketListener]:
    """Listen where the configuration says. Raises `ConfigError` if that is not possible."""
    try:
        return await listen(server.host, server.port, limits)
    except OSError as error:
        raise _useless(server, error) from None


def secure(server: Server) -> ssl.SSLContext | None:
    """Load the certificate, if there is one. Raises `ConfigError` if it is of no use."""
    if server.tls_cert is None:
        return None
    try:
        return tls_context(server.tls_cert, server.tls_key)
    except OSError as error:  # ssl.SSLError is one
        raise _useless(server, error) from None


def urls_of(server: Server, sockets: Iterable[trio.SocketListener]) -> list[str]:
    """Say where we listen."""
    scheme = "http" if server.tls_cert is None else "https"
    return [url_of(listener, scheme) for listener in sockets]


def _useless(server: Server, error: OSError) -> ConfigError:
    where = f"{server.host}:{server.port}"
    return ConfigError(f"cannot listen on {where}: {error.strerror or error}")


async def heed_signals(
    stop: trio.Event, now: trio.Event, *, task_status: trio.TaskStatus[None]
) -> None:
    """Set `stop` at the first SIGTERM or SIGINT, and `now` at the next."""
    log = structlog.get_logger("nursling")
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name, at_once=stop.is_set())
            (now if stop.is_set() else stop).set()


async def _watch(file: Path, again: Callable[[], None], stop: trio.Event) -> None:
    """Call `again` when the file changes. Its folder is watched: editors put new files in place."""

    def ours(_: watchfiles.Change, path: str) -> bool:
        return Path(path).name == file.name

    changes = watchfiles.awatch(
        file.parent,
        watch_filter=ours,
        recursive=False,
        stop_event=stop,
        rust_timeout=WATCH_TIMEOUT,
    )
    try:
        async for _ in changes:
            again()
    except (OSError, RuntimeError) as error:  # no more inotify watches, for one
        structlog.get_logger("nursling").warning("configuration not watched", error=str(error))


def reload(load: Load, engine: Engine, keys: Keys, started: Config) -> None:
    """Put the file's new content in force, or log why it stays out.

    Models, providers, keys and the limits of requests change. Where we listen, and the limits of
    connections, are those that we `started` with: so whether keys are needed is asked of the
    address that we have, whatever the file says of it now.
    """
    log = structlog.get_logger("nursling")
    try:
        wanted = load()
        config = with_address(wanted, started.server.host, started.server.port)
        engine.reload(config)
    except ConfigError as error:
        log.warning("configuration not reloaded", error=str(error))
        return
    keys.replace(config.keys)
    _warn(config)
    log.info("configuration reloaded", models=len(config.models), keys=len(config.keys))
    if changed := _fixed(started, wanted):
        log.warning("configuration needs a restart", settings=changed)


def _fixed(started: Config, wanted: Config) -> list[str]:
    """Name the settings that are not in force, as `table.key`."""
    return [
        f"{table}.{name}"
        for table, names in FIXED.items()
        for name in names
        if getattr(getattr(started, table), name) != getattr(getattr(wanted, table), name)
    ]


def _warn(config: Config) -> None:
    for warning in config.warnings:
        structlog.get_logger("nursling").warning("configuration not wise", why=warning)
