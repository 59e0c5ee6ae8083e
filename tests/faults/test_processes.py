"""Faults of a whole process: `nursling serve`, started, starved and stopped, on real sockets.

Bounds are wide: what is proved is what happens, and that it happens by itself.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from support.chat import chunk
from support.fake_upstream import FakeUpstream, Send, Stall, Step, Wait, fake_upstream, stream
from support.gateway import post, read_to_end, read_until, until


PATIENCE = 30
CHAT = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
GET = "GET {} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
ENDLESS: list[Step] = stream(chunk({"content": "hel"}), Stall(), end=False)
FLOOD: list[Step] = stream(*[chunk({"content": "y" * 60_000})] * 2000, Stall(), end=False)

pytestmark = pytest.mark.slow


class Process:
    """A running `nursling serve`."""

    def __init__(self, process: trio.Process, port: int) -> None:
        self.process = process
        self.port = port
        self.log = b""

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream("127.0.0.1", self.port)

    async def get(self, path: str) -> int:
        async with await self.connect() as client:
            await client.send_all(GET.format(path).encode())
            return int((await read_to_end(client))[9:12])

    async def listen(self) -> None:
        assert self.process.stderr is not None
        async for piece in self.process.stderr:
            self.log += piece

    @property
    def lines(self) -> list[dict[str, Any]]:
        """The log. Every line of it is one of ours."""
        return [json.loads(line) for line in self.log.splitlines()]


@asynccontextmanager
async def process(
    folder: Path, upstream: FakeUpstream, *, limits: str = "", before: str = ""
) -> AsyncGenerator[Process, None]:
    """Run the gateway as a process; leaving kills it if it is there still."""
    file = folder / "nursling.toml"
    file.write_text(
        f'[providers.up]\nbase_url = "{upstream.base_url}"\n[limits]\n{limits}\n'
        '[[models]]\nid = "m"\nprovider = "up"\n'
    )
    program = f"{before}\nfrom nursling.transports.cli import main\nmain()"
    command = [sys.executable, "-c", program, "serve", "--port", "0", "--config", str(file)]
    with trio.fail_after(4 * PATIENCE):
        async with trio.open_nursery() as nursery:
            running = await trio.lowlevel.open_process(
                command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
            )
            try:
                assert running.stdout is not None
                said = await read_until(running.stdout, b"/chat/completions")
                found = re.search(rb"http://127\.0\.0\.1:(\d+)", said)
                assert found
                made = Process(running, int(found[1]))
                nursery.start_soon(made.listen)
                yield made
            finally:
                running.kill()
                with trio.CancelScope(shield=True):
                    await running.wait()


@pytest.mark.fault(40, "R")
async def test_sigterm_with_a_stream_open(tmp_path: Path) -> None:
    """The first signal: not ready, a drain, then an error that the client can read, and exit 0."""
    async with (
        fake_upstream(ENDLESS) as upstream,
        process(tmp_path, upstream, limits="drain_timeout = 1") as gateway,
    ):
        client = await gateway.connect()
        await client.send_all(post(CHAT))
        await read_until(client, b"hel")
        assert await gateway.get("/readyz") == 200
        began = trio.current_time()
        gateway.process.send_signal(signal.SIGTERM)
        while await gateway.get("/readyz") != 503:
            pass
        rest = await read_to_end(client)
        assert b'"code":"draining"' in rest
        assert b"[DONE]" not in rest
        assert await gateway.process.wait() == 0
        assert 0.9 < trio.current_time() - began < 1 + 5
        await client.aclose()
        await upstream.wait_closed()
    assert [line["event"] for line in gateway.lines] == ["stopping", "request"]
    assert gateway.lines[1]["outcome"] == "draining"


@pytest.mark.fault(41, "R")
async def test_a_second_sigterm_with_a_stuck_client(tmp_path: Path) -> None:
    """A client that reads nothing cannot hold the process: it is gone 5 s after the second one."""
    async with (
        fake_upstream(FLOOD) as upstream,
        process(tmp_path, upstream, limits="drain_timeout = 600\nwrite_timeout = 600") as gateway,
    ):
        client = await gateway.connect()
        await client.send_all(post(CHAT))
        await until(lambda: bool(upstream.requests))
        await trio.sleep(0.5)
        gateway.process.send_signal(signal.SIGTERM)
        while await gateway.get("/readyz") != 503:
            pass
        await trio.sleep(0.5)
        assert gateway.process.poll() is None
        began = trio.current_time()
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.process.wait() == 0
        assert trio.current_time() - began < 5
        await client.aclose()


STARVED = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
"""


@pytest.mark.fault(45, "R")
async def test_without_descriptors(tmp_path: Path) -> None:
    """Accepting waits, says so in one line, and goes on; what was open is not hurt."""
    more = trio.Event()
    told = chunk({"content": "lo"}, finish="stop")
    script = [*ENDLESS[:-1], Wait(more), Send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(told), told))]
    async with (
        fake_upstream(script) as upstream,
        process(tmp_path, upstream, before=STARVED) as gateway,
    ):
        client = await gateway.connect()
        await client.send_all(post(CHAT))
        await read_until(client, b"hel")
        crowd = [await gateway.connect() for _ in range(80)]
        await until(lambda: b"EMFILE" in gateway.log)
        await trio.sleep(1)  # ten more attempts to accept
        more.set()
        assert b"[DONE]" in await read_until(client, b"0\r\n\r\n")
        for one in [*crowd, client]:
            await one.aclose()
        assert await gateway.get("/livez") == 200
        gateway.process.send_signal(signal.SIGTERM)
        assert await gateway.process.wait() == 0
    events = [line["event"] for line in gateway.lines]
    assert events[0] == "descriptors missing"
    assert events.count("library") == 1
    assert len(gateway.log) < 3000


REFUSED = {
    "configuration": '[server]\nhots = "x"\n',
    "key file": '[server]\ntls_cert = "cert.pem"\ntls_key = "no-key.pem"\n',
    "port": "[server]\nport = {port}\n",
}


@pytest.mark.fault(43, "R")
@pytest.mark.parametrize("case", REFUSED)
async def test_it_refuses_to_start(case: str, tmp_path: Path) -> None:
    """What is wrong before the start is one line, without traceback, and exit code 2."""
    async with fake_upstream(ENDLESS) as busy:
        (tmp_path / "nursling.toml").write_text(REFUSED[case].format(port=busy.port))
        (tmp_path / "cert.pem").write_text("")
        with trio.fail_after(PATIENCE):
            done = await trio.run_process(
                [sys.executable, "-m", "nursling.transports", "serve"],
                cwd=tmp_path,
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
    assert done.returncode == 2
    assert done.stdout == b""
    [said] = done.stderr.decode().splitlines()
    assert said.startswith("Error: ")
    expected = {"configuration": "hots", "key file": "no-key.pem", "port": str(busy.port)}
    assert expected[case] in said
