"""nursling's transports: everything that touches a socket, a file or the environment.

from nursling.transports import load_config, open_engine

async with open_engine(load_config()) as engine:
    async with engine.stream({"model": "demo", "messages": [...]}) as reply:
        async for event in reply:
            ...
"""

from __future__ import annotations

from .config import Config, ConfigError, config_from_dict, load_config
from .engine import Engine, open_engine
from .secret import Secret


__all__ = [
    "Config",
    "ConfigError",
    "Engine",
    "Secret",
    "config_from_dict",
    "load_config",
    "open_engine",
]
