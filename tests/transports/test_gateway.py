"""The wiring of the process: signals, reload, and what cannot start."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio
import watchfiles

from nursling.engine.errors import Unauthorized
from nursling.transports import gateway, logs
from nursling.transports.config import Config, ConfigError, config_from_dict, load_config
from nursling.transports.engine import open_engine
from nursling.transports.keys import Keys


KEYED = '[server]\nport = 0\n[[keys]]\nname = "k"\nsecret = "%s"\n'


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    out = io.StringIO()
    logs.configure(file=out)
    yield out
    structlog.reset_defaults()


def events(log: io.StringIO) -> list[str]:
    return [json.loads(line)["event"] for line in log.getvalue().splitlines()]


@asynccontextmanager
async def running(config: Config, load: gateway.Load | None) -> AsyncGenerator[str, None]:
    """A gateway in this process; leaving sends it a SIGTERM and waits for its end."""
    send, receive = trio.open_memory_channel[list[str]](1)
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            await gateway.run_gateway(config, load=load, on_listening=send.send_nowait)

        nursery.start_soon(run)
        with trio.fail_after(10):
            (url,) = await receive.receive()
        yield url
        os.kill(os.getpid(), signal.SIGTERM)


async def status_of(url: str, key: str) -> int:
    host, port = url.removeprefix("http://").split(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        lines = f"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n\r\n"
        await stream.send_all(lines.encode())
        return int((await stream.receive_some()).split()[1])


async def test_a_signal_ends_it(log: io.StringIO) -> None:
    """It listens, answers, and returns after SIGTERM; without a file there is nothing to watch."""
    config = config_from_dict({"server": {"port": 0}}, environ={})
    with trio.fail_after(20):
        async with running(config, lambda: config) as url:
            assert await status_of(url, "") == 200
    assert events(log)[-1] == "stopping"


async def test_a_changed_file_is_heard_of(tmp_path: Path, log: io.StringIO) -> None:
    """A file put in the place of the old one is read, and its keys count at once."""
    file = tmp_path / "n.toml"
    file.write_text(KEYED % "old")
    file.chmod(0o644)
    config = load_config(str(file), environ={})
    with trio.fail_after(30):
        async with running(config, lambda: load_config(str(file), environ={})) as url:
            assert await status_of(url, "old") == 200
            assert await status_of(url, "new") == 401
            (tmp_path / "other").write_text(KEYED % "new")
            while await status_of(url, "new") != 200:
                (tmp_path / "other").write_text(KEYED % "new")
                (tmp_path / "other").rename(file)
            assert await status_of(url, "old") == 401
    assert "configuration reloaded" in events(log)
    assert events(log)[0] == "configuration not wise"  # the secret is in a file of mode 0644


async def test_a_reload_takes_all_or_nothing(log: io.StringIO) -> None:
    """A file that is wrong, in itself or for the catalogue, leaves engine and keys as they were."""
    good = config_from_dict({"keys": [{"name": "k", "secret": "s"}]}, environ={})
    keys = Keys(good.keys)

    def broken() -> Config:
        raise ConfigError("n.toml:1: no")

    def nowhere() -> Config:
        return config_from_dict({"models": [{"id": "x"}]}, environ={})

    async with open_engine(good) as engine:
        for load in (broken, nowhere):
            gateway.reload(load, engine, keys, good)
            assert keys.check({"x-api-key": "s"}) == "k"
        gateway.reload(
            lambda: config_from_dict({"keys": [{"name": "n", "secret": "t"}]}), engine, keys, good
        )
        with pytest.raises(Unauthorized):
            keys.check({"x-api-key": "s"})
    assert events(log) == [
        "configuration not reloaded",
        "configuration not reloaded",
        "configuration reloaded",
    ]


async def test_a_reload_names_what_needs_a_restart(log: io.StringIO) -> None:
    """Limits of requests are in force at once; what is not is named, each time that it differs."""
    start = config_from_dict({}, environ={})
    server = {"port": 1, "cors_origins": ["*"], "fallback_provider": "demo"}
    limits = {"max_connections": 7, "max_streams": 1, "heartbeat": 3, "max_recall_bytes": 0}
    tables: dict[str, Any] = {"server": server, "limits": limits}
    async with open_engine(start) as engine:
        for again in (tables, tables, {"limits": {"max_streams": 2}}):
            gateway.reload(partial(config_from_dict, again), engine, engine.keys, start)
        assert engine.gate.max_streams == 2
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    settings = ["server.port", "server.cors_origins", "limits.max_connections"]
    assert [line.get("settings") for line in lines] == [None, settings, None, settings, None]


def test_what_is_fixed_is_a_setting() -> None:
    """The names in `FIXED` are settings: one that was renamed would raise in a reload."""
    config = config_from_dict({}, environ={})
    for table, names in gateway.FIXED.items():
        assert {*names} <= {*getattr(config, table).__struct_fields__}


@pytest.mark.parametrize("between", [[], [{"name": "b", "secret": "t"}]])
async def test_a_reload_cannot_open_the_door(
    log: io.StringIO, between: list[dict[str, str]]
) -> None:
    """A file that has lost its host and its keys does not let all in where others reach us.

    Also not in two steps: a reload that is taken does not move what we know of our address.
    """
    outside = {"host": "0.0.0.0"}  # noqa: S104 - it is the case
    start = config_from_dict({"server": outside, "keys": [{"name": "k", "secret": "s"}]})
    keys = Keys(start.keys)
    async with open_engine(start) as engine:
        if between:
            gateway.reload(lambda: config_from_dict({"keys": between}), engine, keys, start)
        gateway.reload(lambda: config_from_dict({}), engine, keys, start)
        assert not keys.open
        assert keys.check({"x-api-key": "t" if between else "s"})
    assert events(log)[-1] == "configuration not reloaded"
    assert "lets others in" in log.getvalue()


async def test_a_machine_that_cannot_watch(
    tmp_path: Path, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without file notifications the gateway runs all the same, and says so."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no watches left")

    monkeypatch.setattr(watchfiles.main, "RustNotify", refuse)
    file = tmp_path / "n.toml"
    file.write_text(KEYED % "s")
    with trio.fail_after(20):
        async with running(load_config(str(file), environ={}), lambda: config_from_dict({})) as url:
            assert await status_of(url, "s") == 200
    assert "configuration not watched" in events(log)
