"""README does what it says: its commands, its programs and its configuration are run as written.

Only the address changes: the gateway under test listens on a free port.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Generator
from pathlib import Path

import click
import pytest

from nursling.engine.limits import Limits
from nursling.transports import config_from_dict
from nursling.transports.cli import main


README = Path(__file__).parent.parent / "README.md"
ADDRESS = "http://127.0.0.1:8787"


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A gateway without configuration, started by the command that README gives."""
    command = [sys.executable, "-m", "nursling.transports", "serve", "--port", "0"]
    with subprocess.Popen(
        command,
        cwd=tmp_path_factory.mktemp("empty"),
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path_factory.mktemp("home"))},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            line = next(line for line in process.stdout if "listens on" in line)
            yield line.split()[-1]
        finally:
            process.terminate()
            assert process.wait(40) == 0


def run(command: list[str]) -> str:
    """Run a command to its end; return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_first_command_starts_the_gateway() -> None:
    """README's first command is the one that these tests start, and `serve` is a command."""
    assert blocks("sh")[0] == "pip install uv && uv run nursling serve\n"
    assert isinstance(main, click.Group)
    assert "serve" in main.commands


@pytest.mark.parametrize("number", [1, 2])
def test_the_curl_lines_stream(address: str, number: int) -> None:
    """Each curl line of README streams an answer of the demo model to its end."""
    line = blocks("sh")[number]
    assert line.startswith("curl -N")
    assert shutil.which("curl") is not None, "README's commands need curl"
    got = run(["sh", "-c", line.replace(ADDRESS, address).replace("curl -N", "curl -sSN")])
    assert got.count("data: ") > 20
    assert got.rstrip().endswith("data: [DONE]") or "event: response.completed" in got


def test_the_client_program_prints_the_answer(address: str) -> None:
    """README's program with the OpenAI SDK prints the streamed text."""
    program = blocks("python")[0]
    assert "Hello!" in run([sys.executable, "-c", program.replace(ADDRESS, address)])


def test_the_embedding_program_runs() -> None:
    """README's Trio program streams events and prints the finished message."""
    got = run([sys.executable, "-c", blocks("python")[1]])
    assert got.startswith("Started\n")
    assert "\nEnded\n" in got
    assert "Hello!" in got.rsplit("Ended", 1)[1]


def test_the_configuration_is_valid() -> None:
    """README's nursling.toml loads."""
    text = next(block for block in blocks("toml") if "[providers." in block)
    config = config_from_dict(tomllib.loads(text), environ={"OPENAI_API_KEY": "sk-x"})
    assert [model.id for model in config.models if model.provider == "openai"] == ["smart"]
    assert set(config.providers) >= {"local", "openai"}


def test_the_codex_configuration_is_toml() -> None:
    """README's lines for Codex are TOML, and point at the gateway."""
    codex = tomllib.loads(next(block for block in blocks("toml") if "model_provider" in block))
    assert codex["model_providers"]["nursling"]["base_url"] == f"{ADDRESS}/v1"


def test_every_command_is_told() -> None:
    """The table of commands has each command of the program, and no other."""
    assert isinstance(main, click.Group)
    told = set(re.findall(r"^\| `nursling (\w+)", README.read_text(), re.MULTILINE))
    assert told == set(main.commands)


def test_the_numbers_are_the_limits() -> None:
    """The numbers that README promises are those of the code."""
    text, limits = README.read_text(), Limits()
    assert f"at most {limits.max_event_bytes // 2**20} MiB, bodies are at most" in text
    assert f"at most {limits.max_body_bytes // 2**20} MiB" in text
    assert f"at most {limits.max_streams:,} requests" in " ".join(text.split())
    assert f"is cut after {limits.write_timeout:g} s" in " ".join(text.split())


def test_the_developers_commands_run() -> None:
    """Each script that README's last table names does its work, on a small scale."""
    told = re.findall(
        r"^\| `uv run (?:--with \w+ )?python (\S+)(.*?)` ", README.read_text(), re.MULTILINE
    )
    scripts = {script: rest.split() for script, rest in told}
    assert set(scripts) == {"tests/simulate.py", "tests/support/faults.py", "tests/fuzz"}
    got = run([sys.executable, str(README.parent / "tests/simulate.py"), "--worlds", "4"])
    assert got.startswith("4 worlds, 0 bad")
    assert "cancelled at every checkpoint" in run(
        [sys.executable, str(README.parent / "tests/support/faults.py")]
    )
    assert scripts["tests/fuzz"] == ["sse"]
