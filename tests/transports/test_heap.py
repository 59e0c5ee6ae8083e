"""The heap: what was freed of large blocks is gone, though small ones that stay lie between."""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from nursling.transports import heap
from nursling.transports.cli import main


PROGRAM = """
import ctypes
import os
from nursling.transports.heap import keep_large_blocks_out

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)

kept = keep_large_blocks_out()
libc = ctypes.CDLL(None)
libc.malloc.restype = libc.memset.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free(libc.malloc(16 << 20))  # the one that raises glibc's bound
before = resident()
large = []
for _ in range(64):
    large.append(libc.malloc(1 << 20))
    libc.memset(large[-1], 1, 1 << 20)
    libc.memset(libc.malloc(64 << 10), 1, 1)  # stays, and finds no room below
held = resident() - before
for block in large:
    libc.free(block)
print(kept, round(held), round(resident() - before))
"""

OURS = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"
}


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
@pytest.mark.parametrize(
    ("environ", "kept", "left"),
    [
        ({}, True, 0),
        ({"MALLOC_ARENA_MAX": "2"}, True, 0),  # about something else
        ({"MALLOC_MMAP_THRESHOLD_": "33554432"}, False, 64),
        ({"GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=33554432"}, False, 64),
    ],
)
def test_large_blocks_leave_no_holes(environ: dict[str, str], kept: bool, left: int) -> None:
    """64 MiB with small blocks between are gone once freed; an operator's own word counts more."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=OURS | environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said, held, stayed = done.stdout.split()
    assert said == str(kept)
    assert int(held) == pytest.approx(64, abs=2)
    assert int(stayed) == pytest.approx(left, abs=2)


@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_another_c_library_is_let_alone(monkeypatch: pytest.MonkeyPatch, system: str) -> None:
    """Where there is no `mallopt` nothing happens, and nobody hears of it."""
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace())
    assert heap.keep_large_blocks_out({}) is False


def test_serve_does_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`nursling serve` asks for it before it listens (here in vain: the port is taken)."""
    asked: list[bool] = []
    monkeypatch.setattr(heap, "keep_large_blocks_out", lambda: asked.append(True))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = tmp_path / "nursling.toml"
        config.write_text(f"[server]\nport = {taken.getsockname()[1]}\n", encoding="utf-8")
        result = CliRunner().invoke(main, ["serve", "--config", str(config)])
    assert (result.exit_code, asked) == (2, [True])
