"""The gateway as a process: engine, keys, app and server, until a signal ends it.

The law of this file: it wires and decides nothing. The first SIGTERM or SIGINT starts the drain,
the second ends it at once. A changed configuration file that is valid is put in force for the
requests to come (models, providers, keys, limits); one that is not is logged, and the old one
stays. What was fixed when the process started (`FIXED`) is logged by name if it changes.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import trio
import watchfiles

from .config import Config, ConfigError, is_loopback, with_address
from .engine import Engine, open_engine
from .http.app import create_app
from .http.server import serve
from .keys import Keys


WATCH_TIMEOUT = 1000
"""Milliseconds that the watching thread sleeps at most before it looks whether it must end."""

FIXED = {
    "server": ("host", "port", "cors_origins", "tls_cert", "tls_key"),
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


async def run_gateway(
    config: Config,
    *,
    load: Load | None = None,
    on_listening: Callable[[list[str]], None] | None = None,
) -> None:
    """Serve until a signal; return after the drain.

    `load` is called when the file of the configuration changes. `on_listening` gets the URLs.
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
        )
        failure: OSError | None = None
        async with trio.open_nursery() as nursery:

            async def listen(task_status: trio.TaskStatus[list[str]]) -> None:
                await serve(
                    app,
                    host=server.host,
                    port=server.port,
                    limits=config.limits,
                    tls_cert=server.tls_cert,
                    tls_key=server.tls_key,
                    stop=stop,
                    now=now,
                    on_drain=app.drain,
                    on_drained=app.end_streams,
                    task_status=task_status,
                )
                nursery.cancel_scope.cancel()

            await nursery.start(_heed_signals, stop, now)
            try:
                urls = await nursery.start(listen)
            except OSError as error:  # ssl.SSLError is one
                failure = error
                nursery.cancel_scope.cancel()
            else:
                if load is not None and config.path is not None:
                    again = partial(reload, load, engine, engine.keys, config)
                    nursery.start_soon(_watch, Path(config.path), again, stop)
                if on_listening is not None:
                    on_listening(urls)
        if failure is not None:
            where = f"{server.host}:{server.port}"
            raise ConfigError(f"cannot listen on {where}: {failure.strerror or failure}")


async def _heed_signals(
    stop: trio.Event, now: trio.Event, *, task_status: trio.TaskStatus[None]
) -> None:
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
