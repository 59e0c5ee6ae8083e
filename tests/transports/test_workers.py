"""Several workers, as real processes: spread, drain, death, reload, and what they share."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trustme

from nursling.transports.config import load_config
from nursling.transports.descriptors import needed
from nursling.transports.orders import share


PATIENCE = 40.0
"""Seconds after which a test is lost: a loaded machine is slow."""

FEW = 200
"""The soft limit of descriptors that everything starts with."""

STREAM = json.dumps(
    {
        "model": "demo",
        "stream": True,
        "messages": [{"role": "user", "content": "word " * 20}],
    }
).encode()
"""A stream of about two seconds."""
LONG = STREAM.replace(b'"stream"', b'"n": 8, "stream"').replace(b"word ", b"word word word ")
"""A stream that outlasts every test."""


class Crew:
    """A `nursling serve --workers` at work, in a process group of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.log: list[dict[str, Any]] = []
        self.url = ""
        self.over = threading.Event()
        """Every process that could write a log has ended."""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(json.loads(line))  # also: no line is torn by another process's
        self.over.set()

    def close(self) -> None:
        with_group(self.process, signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def events(self, name: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["event"] == name]

    def pid_of(self, worker: int) -> int:
        """The process that has this number now."""
        ready = [line["pid"] for line in self.events("worker ready") if line["worker"] == worker]
        return int(ready[-1])

    def wait(self) -> int:
        """The exit status of the parent."""
        return self.process.wait(PATIENCE)

    def metrics(self, name: str, labels: str = "") -> dict[int, float]:
        """A figure of each worker, as one scrape shows it."""
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=PATIENCE) as answer:  # noqa: S310
            text = answer.read().decode()
        assert len(re.findall(rf"^# TYPE {name} ", text, re.MULTILINE)) == 1
        found = re.findall(rf'^{name}{{{labels}worker="(\d+)"}} (\S+)$', text, re.MULTILINE)
        return {int(worker): float(value) for worker, value in found}


def with_group(process: subprocess.Popen[str], number: int) -> None:
    """Send a signal as a terminal does: to the parent and the workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


@contextmanager
def crew(workers: int, *arguments: str, scheme: str = "http") -> Iterator[Crew]:
    command = [sys.executable, "-m", "nursling.transports", "serve", "--port", "0"]
    few = ["sh", "-c", f'ulimit -Sn {FEW}; exec "$@"', "sh"]
    process = subprocess.Popen(
        [*few, *command, "--workers", str(workers), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    made = Crew(process)
    try:
        assert process.stdout is not None
        said = ""
        while "-d '" not in said:
            line = process.stdout.readline()
            assert line, made.log
            said += line
        found = re.search(rf"{scheme}://[\d.:]+", said)
        assert found
        made.url = found[0]
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.01)


def answered_until(url: str, condition: Callable[[], object]) -> None:
    """Wait for something, while every request is answered well."""

    def good() -> object:
        assert get(url) == 200
        return condition()

    until(good)


def get(url: str, **headers: str) -> int:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - ours
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - ours
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


@contextmanager
def asking(port: int, body: bytes = STREAM) -> Iterator[socket.socket]:
    """A connection on which a stream was asked for."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        client.sendall(head.encode() + body)
        yield client


@contextmanager
def streams(port: int, count: int, body: bytes = LONG) -> Iterator[list[socket.socket]]:
    """Streams that have begun."""
    if not count:
        yield []
        return
    with asking(port, body) as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        with streams(port, count - 1, body) as others:
            yield [client, *others]


def rest_of(client: socket.socket) -> bytes:
    data = b""
    while piece := client.recv(65536):
        data += piece
    return data


def test_the_spread_is_even_and_one_scrape_shows_it() -> None:
    """Long streams differ by one at most between workers, short requests by little.

    Whichever worker answers a scrape shows the figures of all, each with its number.
    """
    with crew(3) as made:
        for _ in range(90):
            assert get(f"{made.url}/livez") == 200
        short = made.metrics("nursling_requests_total", 'route="livez",status="200",')
        assert sum(short.values()) == 90
        assert sorted(short) == [0, 1, 2]
        assert min(short.values()) >= 24
        with streams(made.port, 18):
            for _ in range(3):  # each of them is asked
                long = made.metrics("nursling_streams_in_flight")
                assert sorted(long) == [0, 1, 2]
                assert sum(long.values()) == 18
                assert max(long.values()) - min(long.values()) <= 1
        with_group(made.process, signal.SIGINT)
        assert made.wait() == 0
        until(made.over.is_set)
    # A terminal's Ctrl-C, which reaches everybody, is one signal.
    assert [line["at_once"] for line in made.events("stopping")] == [False]
    assert {line["worker"] for line in made.events("request")} == {0, 1, 2}


def test_a_drain_lets_streams_end_and_says_503() -> None:
    """After SIGTERM, also to each worker, streams go on to their end; `/readyz` says no; exit 0."""
    with crew(2) as made, asking(made.port) as client:
        assert client.recv(12) == b"HTTP/1.1 200"
        with_group(made.process, signal.SIGTERM)
        until(lambda: get(f"{made.url}/readyz") == 503)
        assert made.process.poll() is None
        assert rest_of(client).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert made.wait() == 0
        until(made.over.is_set)
        assert not made.events("worker ended")


@pytest.mark.fault(41, "R")
def test_a_second_signal_ends_everything_at_once() -> None:
    """With streams at work in each worker the second SIGINT ends the drain, with 0."""
    with crew(2) as made, streams(made.port, 4):
        began = time.monotonic()
        with_group(made.process, signal.SIGINT)
        until(lambda: get(f"{made.url}/readyz") == 503)
        assert made.process.poll() is None
        with_group(made.process, signal.SIGINT)
        assert made.wait() == 0
        assert time.monotonic() - began < 10  # the streams alone would last longer
        until(made.over.is_set)
    assert [line["at_once"] for line in made.events("stopping")] == [False, True]


def even(made: Crew) -> bool:
    """Whether four new streams are two for each of two workers."""
    with streams(made.port, 4):
        return made.metrics("nursling_streams_in_flight") == {0: 2, 1: 2}


def test_a_worker_that_is_killed_is_replaced_and_hurts_nobody_else() -> None:
    """Its own stream breaks; the other's goes on; every new request is answered meanwhile."""
    with crew(2) as made, streams(made.port, 2, STREAM) as [first, second]:
        killed = {number: made.pid_of(number) for number in (0, 1)}
        os.kill(killed[0], signal.SIGKILL)
        answered_until(f"{made.url}/livez", lambda: made.pid_of(0) != killed[0])
        answers = []
        for client in (first, second):
            try:
                answers.append(rest_of(client).endswith(b"\r\n0\r\n\r\n"))
            except ConnectionResetError:
                answers.append(False)
        assert sorted(answers) == [False, True]
        assert made.pid_of(1) == killed[1]
        until(partial(even, made))  # the parent hears of an end when its worker says so
        [ended] = made.events("worker ended")
        assert (ended["worker"], ended["status"], ended["level"]) == (0, -9, "error")
        # One that is asked to go is replaced too, and not by an error.
        os.kill(killed[1], signal.SIGTERM)
        answered_until(f"{made.url}/livez", lambda: made.pid_of(1) != killed[1])
        assert made.events("worker ended")[-1]["level"] == "info"


def test_no_orphans() -> None:
    """When the parent is killed the workers let their streams end, and end themselves."""
    with crew(2) as made, streams(made.port, 2, STREAM) as clients:
        made.process.kill()
        assert made.wait() == -signal.SIGKILL
        with pytest.raises(ConnectionRefusedError), asking(made.port):
            pass
        for client in clients:
            assert rest_of(client).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        until(made.over.is_set)
        assert {line["worker"] for line in made.events("stopping")} == {0, 1}


CONFIG = """
[[keys]]
name = "k"
secret = "%s"
[[models]]
id = "demo"
provider = "demo"
[limits]
max_streams = %d
"""


def test_a_changed_file_is_in_force_in_every_worker(tmp_path: Path) -> None:
    """Keys and caps of a new file count in all workers, and in one that starts later.

    The cap is that of all together. A file that is broken stops no worker, nor lets in anybody.
    """
    file = tmp_path / "live.toml"
    file.write_text(CONFIG % ("canary-old", 4))
    old, new = "Bearer canary-old", "Bearer canary-new"
    with crew(2, "--config", str(file)) as made:
        url = f"{made.url}/v1/models"
        assert [get(url, authorization=old) for _ in range(4)] == [200] * 4
        other = tmp_path / "other"
        other.write_text(CONFIG % ("canary-new", 2))
        other.rename(file)
        until(lambda: len(made.events("configuration reloaded")) == 2)
        assert [get(url, authorization=old) for _ in range(4)] == [401] * 4
        pid = made.pid_of(0)
        os.kill(pid, signal.SIGKILL)
        until(lambda: made.pid_of(0) != pid)
        assert [get(url, authorization=new) for _ in range(4)] == [200] * 4
        assert [get(url, authorization=old) for _ in range(4)] == [401] * 4

        file.write_text("[sever]\n")
        until(lambda: len(made.events("configuration not reloaded")) >= 2)
        pid = made.pid_of(0)
        os.kill(pid, signal.SIGKILL)
        until(lambda: any("sever" in line["why"] for line in made.events("worker ended")))
        assert [get(url, authorization=new) for _ in range(4)] == [200] * 4
        file.write_text(CONFIG % ("canary-new", 2))
        until(lambda: made.pid_of(0) != pid)
        assert [get(url, authorization=new) for _ in range(4)] == [200] * 4
        made.process.terminate()
        assert made.wait() == 0
        until(made.over.is_set)
        assert "canary" not in str(made.log)


def test_the_caps_are_those_of_all_workers(tmp_path: Path) -> None:
    """Of two streams for two workers each gets one; the third is refused, whoever is asked.

    And each worker makes room for the descriptors of its own part.
    """
    file = tmp_path / "small.toml"
    file.write_text('[[models]]\nid = "demo"\nprovider = "demo"\n[limits]\nmax_streams = 2\n')
    with crew(2, "--config", str(file)) as made, streams(made.port, 2):
        assert made.metrics("nursling_streams_in_flight") == {0: 1, 1: 1}
        if sys.platform == "linux":
            for worker in (0, 1):
                part = share(load_config(str(file)), worker, 2)
                soft, _ = resource.prlimit(made.pid_of(worker), resource.RLIMIT_NOFILE)
                assert soft == needed(part.limits) > FEW
        for _ in range(2):
            with asking(made.port) as third:
                assert third.recv(12) == b"HTTP/1.1 503"


@pytest.mark.slow
def test_tls_is_the_workers_business(tmp_path: Path) -> None:
    """With a certificate the workers speak HTTPS on the connections that they are given."""
    authority = trustme.CA()
    pem = tmp_path / "pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    file = tmp_path / "tls.toml"
    file.write_text(f'[server]\nworkers = 2\ntls_cert = "{pem}"\ntls_key = "{pem}"\n')
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with crew(2, "--config", str(file), scheme="https") as made:
        served: Counter[int] = Counter()
        for _ in range(4):
            with urllib.request.urlopen(  # noqa: S310 - ours
                f"{made.url}/livez", timeout=PATIENCE, context=context
            ) as answer:
                served[answer.status] += 1
        assert served == {200: 4}
