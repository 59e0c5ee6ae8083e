"""The command line, as people and service managers use it."""

from __future__ import annotations

import fcntl
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result

from nursling.transports import cli, engine
from nursling.transports.upstream.demo import DemoUpstream
from support.fake_upstream import Send, whole


CANARY = "sk-canary-4711"


@pytest.fixture(autouse=True)
def empty_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A directory, a home and an environment without any configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    yield
    structlog.reset_defaults()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.main, arguments, env={"COLUMNS": "200"})


def test_the_version() -> None:
    """--version says name and version."""
    result = run("--version")
    assert result.exit_code == 0
    assert result.output.startswith("nursling, version ")


@pytest.mark.parametrize(
    "arguments",
    [["serve"], ["check"], ["models"], ["ask", "demo", "Hi"]],
    ids=lambda arguments: arguments[0],
)
def test_a_bad_configuration_is_one_line_and_exit_code_2(arguments: list[str]) -> None:
    """Every command refuses a bad file in the same way, before it does anything."""
    Path("nursling.toml").write_text('[server]\nhots = "x"\n')
    result = run(*arguments)
    assert result.exit_code == 2
    expected = "Error: nursling.toml:2: unknown key 'hots' in [server]; did you mean 'host'?\n"
    assert result.stderr == expected
    assert result.stdout == ""


@pytest.mark.parametrize("arguments", [["serve"], ["check"], ["ask", "m", "Hi"]])
def test_an_entry_that_leads_nowhere_is_refused(arguments: list[str]) -> None:
    """What only the catalogue can see is told like the rest."""
    Path("nursling.toml").write_text('[[models]]\nid = "m"\nprovider = "gone"\n')
    result = run(*arguments)
    assert result.exit_code == 2
    message = "nursling.toml:3: the model 'm': no provider is named 'gone'"
    assert result.stderr == f"Error: {message}\n"


def test_serve_refuses_an_open_door() -> None:
    """--host with a public address needs a key."""
    result = run("serve", "--host", "0.0.0.0")  # noqa: S104 - it is the case
    assert result.exit_code == 2
    assert "configure at least one [[keys]] entry" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.fault(43, "R")
def test_serve_says_that_the_port_is_busy() -> None:
    """A busy port is one line and exit code 2."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = run("serve", "--port", str(port))
    assert result.exit_code == 2
    assert f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n" in result.stderr


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_bad_certificate_is_refused(command: str) -> None:
    """A certificate that is none is one line with its place, and exit code 2."""
    Path("x.pem").write_text("no certificate")
    Path("nursling.toml").write_text('[server]\nport = 0\ntls_cert = "x.pem"\ntls_key = "x.pem"\n')
    result = run(command)
    assert result.exit_code == 2
    words = "Error: nursling.toml:3: x.pem and x.pem are no certificate and its key: "
    assert result.stderr.startswith(words)
    assert result.stderr.count("\n") == 1


CONFIG = f"""\
[[keys]]
name = "laptop"
secret = "{CANARY}"
[providers.local]
base_url = "http://127.0.0.1:1/v1?key={CANARY}"
api_key = "{CANARY}"
headers = {{ X = "{CANARY}" }}
wildcard = true
max_streams = 3
[[models]]
id = "big"
provider = "local"
upstream_model = "big-1"
description = "The [bold]big[/] one."
"""


def test_check_shows_everything_but_secrets() -> None:
    """`check` shows providers, models and names of keys, and that all is good."""
    Path("nursling.toml").write_text(CONFIG)
    result = run("check")
    assert result.exit_code == 0, result.output
    for word in ("local", "http://127.0.0.1:1/v1", "any model", "big-1", "[bold]big[/]", "laptop"):
        assert word in result.output
    assert "Workers: 1\n" in result.output
    assert "good:" in result.output
    assert CANARY not in result.output


@pytest.mark.parametrize(("mode", "lines"), [(0o644, 1), (0o600, 0)])
def test_check_warns_of_a_file_that_others_can_read(mode: int, lines: int) -> None:
    """One line on stderr, and all is good nevertheless."""
    Path("nursling.toml").write_text(CONFIG)
    Path("nursling.toml").chmod(mode)
    result = run("check")
    assert result.exit_code == 0
    assert result.stderr.count("\n") == lines
    assert result.stderr.count("warning: nursling.toml:3: a secret in a file") == lines


def test_check_counts_the_workers() -> None:
    """`check` shows how many processes there will be, and of what each has a part."""
    Path("nursling.toml").write_text("[server]\nworkers = 4\n")
    result = run("check")
    assert result.exit_code == 0
    assert "Workers: 4 (each has 1/4 of the caps)\n" in result.output


def test_check_without_a_file() -> None:
    """The built-in configuration is good, and says that the door is open."""
    result = run("check")
    assert result.exit_code == 0
    assert "none: open to this machine" in result.output
    assert "the built-in configuration" in result.output


def test_check_probes_upstreams() -> None:
    """--probe asks every upstream, says what is wrong, and makes the exit code tell."""
    Path("nursling.toml").write_text(CONFIG)
    result = run("check", "--probe")
    assert result.exit_code == 1
    assert "local: cannot connect to 127.0.0.1:1: Connection refused" in result.output
    assert CANARY not in result.output


@contextmanager
def answering(body: dict[str, Any]) -> Iterator[int]:
    """An upstream in a thread that answers one request; the port."""

    def answer(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(65536)
            for step in whole(body):
                assert isinstance(step, Send)
                connection.sendall(step.data)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=answer, args=[server])
        thread.start()
        yield server.getsockname()[1]
        thread.join()


def test_check_counts_the_models_of_an_upstream() -> None:
    """--probe with an upstream that answers says how many models it has, and exits with 0."""
    with answering({"data": [{"id": "a"}, {"id": "b"}]}) as port:
        Path("nursling.toml").write_text(CONFIG.replace("127.0.0.1:1/", f"127.0.0.1:{port}/"))
        result = run("check", "--probe")
    assert result.exit_code == 0, result.output
    assert "local: 2 models" in result.output


def test_models_are_listed() -> None:
    """`models` lists what clients may ask for."""
    result = run("models")
    assert result.exit_code == 0
    assert "demo" in result.output


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "DemoUpstream", lambda: DemoUpstream(0))


@pytest.mark.parametrize("more", [[], ["--no-stream"], ["--system", "Be brief."]])
def test_ask_prints_the_answer(more: list[str], no_delay: None) -> None:
    """`ask` prints the text of the reply, streamed or whole, and a newline."""
    result = run("ask", *more, "demo", "How are you?")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("Hello! I am the demo model of nursling. You said: “How are")
    assert result.stdout.endswith("that this server has.\n")


def test_ask_takes_the_power_out_of_the_answer(no_delay: None) -> None:
    """Control characters of a reply do not reach the terminal."""
    result = run("ask", "demo", "\x1b[2J\x07hi")
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert "“[2Jhi”" in result.stdout


@pytest.mark.parametrize("terminal", [True, False])
def test_ask_shows_reasoning_and_calls(terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply's tool calls are printed; its reasoning goes to stderr, on a terminal only."""
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    message = {
        "role": "assistant",
        "content": "Look:",
        "reasoning_content": "Hm [a].",
        "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
        ],
    }
    body = {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "big",
        "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}],
    }
    with answering(body) as port:
        Path("nursling.toml").write_text(CONFIG.replace("127.0.0.1:1/", f"127.0.0.1:{port}/"))
        result = run("ask", "--no-stream", "big", "Hi")
    assert result.exit_code == 0, result.output
    assert result.stdout == 'Look:\nf({"x":1})\n'
    assert ("Hm [a]." in result.stderr) is terminal


BEGINNING = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    b'data: {"choices": [{"index": 0, "delta": {"content": "Hello"}}]}\n\n'
)


LISTENING = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from nursling.transports.cli import main
main()
"""
"""The command, deaf to nothing: a shell's background job, as CI may be, ignores SIGINT."""


def test_ask_can_be_interrupted(tmp_path: Path) -> None:
    """Ctrl-C in the middle of an answer ends the command with 130 and no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as upstream:
        upstream.settimeout(30)
        file = tmp_path / "nursling.toml"
        file.write_text(
            f'[providers.up]\nbase_url = "http://127.0.0.1:{upstream.getsockname()[1]}/v1"\n'
            '[[models]]\nid = "m"\nprovider = "up"\n'
        )
        command = [sys.executable, "-c", LISTENING, "ask", "--config", str(file)]
        with subprocess.Popen(
            [*command, "m", "Hi"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            connection, _ = upstream.accept()
            with connection:
                connection.sendall(BEGINNING)
                assert process.stdout is not None
                assert process.stdout.read(5) == "Hello"
                process.send_signal(signal.SIGINT)
                _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert said == ""


def test_ask_says_why_there_is_no_connection() -> None:
    """Whoever runs `ask` is the operator, and gets address and reason."""
    Path("nursling.toml").write_text(CONFIG)
    result = run("ask", "big", "Hi")
    assert result.exit_code == 1
    words = "Error: cannot connect to 127.0.0.1:1: Connection refused (upstream_unreachable)\n"
    assert result.stderr == words


def test_ask_for_an_unknown_model() -> None:
    """A request that fails is one line and exit code 1."""
    result = run("ask", "dem", "Hi")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: no model is named 'dem'; the nearest: demo (model_not_found)\n"
    )


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str, str]]:
    """A real `nursling serve`: the process, its URL, and what it printed on the way."""
    command = [sys.executable, "-m", "nursling.transports", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = ""
        while "-d '" not in said:
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            said += line
        found = re.search(r"http://[\d.:]+", said)
        assert found
        yield process, found[0], said
    finally:
        process.kill()
        process.communicate()


def get(url: str, **headers: str) -> int:
    return status_of(urllib.request.Request(url, headers=headers))  # noqa: S310 - ours


def post(url: str, body: dict[str, Any]) -> int:
    headers = {"content-type": "application/json"}
    data = json.dumps(body).encode()
    return status_of(urllib.request.Request(url, data, headers))  # noqa: S310 - ours


def status_of(request: urllib.request.Request) -> int:
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - ours
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return int(error.code)


def test_serve_serves_and_drains() -> None:
    """The printed curl line's request streams; SIGTERM ends the process with 0, and says so."""
    with serving() as (process, url, said):
        sent = said.partition("-d '")[2].rpartition("'")[0]
        request = urllib.request.Request(  # noqa: S310 - ours
            f"{url}/v1/chat/completions",
            data=sent.encode(),
            headers={"content-type": "application/json"},
        )
        assert f"curl -N {url}/v1/chat/completions" in said
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - ours
            lines = answer.read().decode().split("\n\n")
        assert json.loads(lines[1].removeprefix("data: "))["choices"]
        assert lines[-2:] == ["data: [DONE]", ""]
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=20)
        assert process.returncode == 0
        events = [json.loads(line) for line in log.splitlines()]
        assert [event["event"] for event in events] == ["request", "stopping"]
        assert "Hello!" not in log


def test_a_log_that_nobody_reads_holds_up_nothing() -> None:
    """With stderr a full pipe requests are answered and SIGTERM ends the process with 0.

    It once froze with the first line that the pipe did not take, and heeded no signal.
    """
    with serving() as (process, url, _):
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        for _ in range(50):  # a line of some 400 bytes each
            assert post(f"{url}/v1/responses", {"model": "none", "input": "Hi"}) == 404
        assert get(f"{url}/livez") == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


@pytest.mark.fault(41, "R")
def test_a_second_signal_ends_the_drain() -> None:
    """With a stream at work the first SIGINT drains, and the second ends it at once, with 0."""
    with serving() as (process, url, _):
        request = urllib.request.Request(  # noqa: S310 - ours
            f"{url}/v1/chat/completions",
            data=json.dumps(
                {
                    "model": "demo",
                    "stream": True,
                    "n": 8,
                    "messages": [{"role": "user", "content": "word " * 90}],
                }
            ).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310 - ours
            answer.readline()
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            while get(f"{url}/readyz") != 503:
                pass
            assert process.poll() is None
            process.send_signal(signal.SIGINT)
            _, log = process.communicate(timeout=20)
            assert time.monotonic() - began < 10  # the stream alone would last longer
        assert process.returncode == 0
        assert '"at_once":true' in log


def test_a_changed_file_is_put_in_force(tmp_path: Path) -> None:
    """New keys count without a restart; a broken file is logged and changes nothing."""
    file = tmp_path / "live.toml"
    text = '[[keys]]\nname = "a"\nsecret = "%s"\n[[models]]\nid = "demo"\nprovider = "demo"\n'
    file.write_text(text % "old")
    with serving("--config", str(file)) as (process, url, said):
        assert '"authorization: Bearer $NURSLING_KEY"' in said
        assert get(f"{url}/v1/models", authorization="Bearer old") == 200
        new = tmp_path / "new"
        new.write_text(text % "new")
        deadline = time.monotonic() + 20
        new.rename(file)
        while get(f"{url}/v1/models", authorization="Bearer new") != 200:
            assert time.monotonic() < deadline
        assert get(f"{url}/v1/models", authorization="Bearer old") == 401
        file.write_text("[sever]\n")
        assert process.stderr is not None
        while "not reloaded" not in (line := process.stderr.readline()):
            assert line
        assert "unknown key 'sever'" in line
        assert get(f"{url}/v1/models", authorization="Bearer new") == 200
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
        assert process.returncode == 0


def test_no_stderr_at_all() -> None:
    """Started with stderr closed, it serves, and has no log."""
    program = f"exec {sys.executable} -m nursling.transports serve --port 0 2>&-"
    with subprocess.Popen(["sh", "-c", program], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = next(line for line in process.stdout if "listens on" in line).split()[-1]
            assert get(f"{url}/livez") == 200
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
