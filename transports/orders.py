"""What a worker is told when it starts, and what its share of the whole is.

The law of this file: `[limits]` and the caps of providers are those of the whole gateway, however
many processes it is. So each worker gets a part of every count and of the memory for replies, and
the parts add up to the whole (but nobody gets less than one). The clocks and the sizes of single
things are not divided.

A worker reads the configuration file itself: no secret is in its arguments, nor in what it is told.
It may start late, in the place of one that died, when the file says something else than before.
Then everything is as in a process that lived through the change: what was fixed at the start
(`gateway.FIXED`) is told, and stays.
"""

from __future__ import annotations

from typing import Any

import msgspec

from .config import Config, default_config, load_config, with_address
from .gateway import FIXED


COUNTS = ("max_streams", "max_connections", "max_refused", "max_idle", "max_recall_bytes")
"""Of `Limits`: what is divided among the workers."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line says beside the file. None = as the file says."""

    host: str | None = None
    port: int | None = None
    workers: int | None = None

    def over(self, config: Config) -> Config:
        """Put this over a configuration. Raises `ConfigError`."""
        return with_address(config, self.host, self.port, self.workers)


class Orders(msgspec.Struct, frozen=True, kw_only=True):
    """What one worker is told."""

    worker: int
    """Its number, from 0."""
    workers: int
    """How many there are."""
    path: str | None
    """The configuration file; None = there is none."""
    options: Options
    fixed: dict[str, dict[str, Any]]
    log_level: str

    def load(self) -> Config:
        """Read what the file says now, for this worker. Raises `ConfigError`."""
        return self._share(self._read())

    def start(self) -> Config:
        """Read what the file says now, but for what is fixed. Raises `ConfigError`."""
        config = self._read()
        tables = {
            name: msgspec.convert({**msgspec.to_builtins(getattr(config, name)), **values}, kind)
            for name, values in self.fixed.items()
            for kind in [type(getattr(config, name))]
        }
        # Whether keys are needed is asked of the address that is in force.
        config = with_address(msgspec.structs.replace(config, **tables), None, None)
        return self._share(config)

    def _read(self) -> Config:
        found = load_config(self.path) if self.path is not None else default_config()
        return self.options.over(found)

    def _share(self, config: Config) -> Config:
        return share(config, self.worker, self.workers)


def fixed_of(config: Config) -> dict[str, dict[str, Any]]:
    """Say what stays until a restart. No secret is among it."""
    return {
        table: {name: getattr(getattr(config, table), name) for name in names}
        for table, names in FIXED.items()
    }


def share(config: Config, worker: int, workers: int) -> Config:
    """Give one worker its part of what the configuration allows to all of them together."""

    def part(whole: int) -> int:
        return max((whole + worker) // workers, min(whole, 1))  # 0 stays 0: no cap, or none

    limits = {name: part(getattr(config.limits, name)) for name in COUNTS}
    providers = {
        name: msgspec.structs.replace(provider, max_streams=part(provider.max_streams))
        for name, provider in config.providers.items()
    }
    return msgspec.structs.replace(
        config,
        limits=msgspec.structs.replace(config.limits, **limits),
        providers=providers,
    )
