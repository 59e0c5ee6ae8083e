"""What a worker is told: its part of the caps, and what stays fixed whatever the file says."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from nursling.transports.config import Config, ConfigError, config_from_dict, load_config
from nursling.transports.orders import COUNTS, Options, Orders, fixed_of, share


def limited(**limits: int) -> Config:
    return config_from_dict({"limits": limits}, environ={})


@pytest.mark.parametrize("whole", [4, 5, 7, 1000])
@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("name", COUNTS)
def test_the_parts_add_up_to_the_whole(name: str, workers: int, whole: int) -> None:
    """What all workers may do together is what is written, and no part is larger by two."""
    config = limited(**{name: whole})
    parts = [getattr(share(config, at, workers).limits, name) for at in range(workers)]
    assert sum(parts) == whole
    assert max(parts) - min(parts) <= 1


def test_nobody_gets_nothing_of_something() -> None:
    """A cap below the number of workers is one for each; where there is no cap there is none."""
    config = config_from_dict(
        {
            "limits": {"max_streams": 1, "max_recall_bytes": 0},
            "providers": {
                name: {"base_url": "http://127.0.0.1:1", "max_streams": cap}
                for name, cap in [("none", 0), ("few", 2), ("some", 7)]
            },
        },
        environ={},
    )
    parts = [share(config, at, 3) for at in range(3)]
    assert [part.limits.max_streams for part in parts] == [1, 1, 1]
    assert [part.limits.max_recall_bytes for part in parts] == [0, 0, 0]
    caps = {name: [part.providers[name].max_streams for part in parts] for name in config.providers}
    assert caps == {"none": [0, 0, 0], "few": [1, 1, 1], "some": [2, 2, 3]}


def test_clocks_and_sizes_are_not_divided() -> None:
    """Only counts, and the memory for replies, are of all workers together."""
    config = config_from_dict({}, environ={})
    part = share(config, 0, 4).limits
    differ = {
        name
        for name in part.__struct_fields__
        if getattr(part, name) != getattr(config.limits, name)
    }
    assert differ == {*COUNTS}


FIRST = """
[server]
port = 4000
cors_origins = ["https://a.example"]
[[keys]]
name = "k"
secret = "canary-1"
[limits]
max_connections = 10
drain_timeout = 3
"""
THEN = """
[server]
port = 5000
cors_origins = ["https://b.example"]
workers = 7
[[keys]]
name = "n"
secret = "canary-2"
[limits]
max_connections = 100
max_streams = 50
"""


def orders(file: Path, options: Options | None = None) -> Orders:
    """Those of the second of two workers, over the wire."""
    options = options or Options(workers=2)
    config = options.over(load_config(str(file), environ={}))
    sent = msgspec.json.encode(
        Orders(
            worker=1,
            workers=2,
            path=config.path,
            options=options,
            fixed=fixed_of(config),
            log_level="info",
        )
    )
    assert b"canary" not in sent
    return msgspec.json.decode(sent, type=Orders)


def test_a_late_worker_is_as_one_that_was_there_from_the_first(tmp_path: Path) -> None:
    """What was fixed at the start is fixed; keys and other limits are those of the file now."""
    file = tmp_path / "n.toml"
    file.write_text(FIRST)
    told = orders(file)
    file.write_text(THEN)
    late = told.start()
    assert (late.server.port, late.server.workers) == (4000, 2)
    assert late.server.cors_origins == ("https://a.example",)
    assert (late.limits.max_connections, late.limits.drain_timeout) == (5, 3)
    assert (late.limits.max_streams, [key.name for key in late.keys]) == (25, ["n"])
    read = told.load()
    assert (read.server.port, read.server.workers, read.limits.max_connections) == (5000, 2, 50)


def test_a_late_worker_does_not_open_the_door(tmp_path: Path) -> None:
    """The file has lost its keys and its host: where others reach us, that is an error still."""
    file = tmp_path / "n.toml"
    file.write_text(FIRST.replace("port = 4000", 'host = "0.0.0.0"'))
    told = orders(file)
    file.write_text("")
    with pytest.raises(ConfigError, match="lets others in"):
        told.start()


def test_without_a_file_a_worker_looks_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that has come to be since the start concerns nobody."""
    monkeypatch.chdir(tmp_path)
    Path("nursling.toml").write_text("[sever]")
    options = Options(port=0, workers=2)
    config = options.over(config_from_dict({}, environ={}))
    told = Orders(
        worker=0, workers=2, path=None, options=options, fixed=fixed_of(config), log_level="info"
    )
    assert [model.id for model in told.start().models] == ["demo"]
