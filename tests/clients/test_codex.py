"""Codex CLI against the running gateway: it runs the command that the model calls, and ends.

Codex speaks Responses as no SDK does: client metadata, namespaces of tools, web search, sealed
reasoning, prompt cache keys. A Responses upstream has to get all of it untouched; over a chat
upstream the program works just the same.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from support import mcp_server
from support.fake_upstream import Close, stream, whole
from support.live import KEY, MODEL, Done, answered, live, run
from support.npm import Npm
from support.scripted import APIS, Api, ChatReply, Json, ResponsesReply


pytestmark = pytest.mark.slow

README = Path(__file__).parents[2] / "README.md"
COMMAND = "echo nursling-was-here"
SAID = "The command has spoken."
CONFIG = f"""
model = "{MODEL}"
model_provider = "nursling"
approval_policy = "never"
sandbox_mode = "danger-full-access"

[model_providers.nursling]
name = "nursling"
base_url = "%s"
env_key = "NURSLING_KEY"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
"""

SERVER = f"""
[mcp_servers.weather]
command = {json.dumps(sys.executable)}
args = [{json.dumps(mcp_server.__file__)}]
default_tools_approval_mode = "approve"
"""

each_upstream = pytest.mark.parametrize("upstream", APIS, ids=lambda api: f"over-{api}")


def called(api: Api) -> ChatReply | ResponsesReply:
    """The model calls Codex's tool for commands."""
    arguments = json.dumps({"cmd": COMMAND})
    if api == "chat":
        function = {"name": "exec_command", "arguments": arguments}
        call = {"id": "call_echo", "type": "function", "function": function}
        return ChatReply(({"content": None, "tool_calls": [call]},), finish="tool_calls")
    item = {
        "type": "function_call",
        "id": "fc_echo",
        "call_id": "call_echo",
        "name": "exec_command",
        "arguments": arguments,
        "status": "completed",
    }
    return ResponsesReply((item,))


def weather_called(api: Api) -> ChatReply | ResponsesReply:
    """The model calls the tool of the MCP server."""
    arguments = json.dumps({"city": "Rome"})
    if api == "chat":
        function = {"name": "mcp__weather__get_weather", "arguments": arguments}
        call = {"id": "call_rain", "type": "function", "function": function}
        return ChatReply(({"content": None, "tool_calls": [call]},), finish="tool_calls")
    item = {
        "type": "function_call",
        "id": "fc_rain",
        "call_id": "call_rain",
        "namespace": "mcp__weather",
        "name": "get_weather",
        "arguments": arguments,
        "status": "completed",
    }
    return ResponsesReply((item,))


def said(api: Api) -> ChatReply | ResponsesReply:
    """The model has the last word."""
    if api == "chat":
        return ChatReply(({"content": SAID},))
    part = {"type": "output_text", "text": SAID, "annotations": [], "logprobs": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    return ResponsesReply(({**message, "content": [part]},))


async def codex(npm: Npm, config: str, home: Path, question: str) -> tuple[Done, list[Json]]:
    """One `codex exec` with this configuration, and the events that it printed."""
    desk = home / "desk"
    desk.mkdir()
    (home / "config.toml").write_text(config)
    done = await run(
        [*npm.binary("codex"), "exec", "--json", "--skip-git-repo-check", question],
        cwd=desk,
        env={"CODEX_HOME": str(home), "HOME": str(home), "NURSLING_KEY": KEY},
    )
    return done, [json.loads(line) for line in done.out.splitlines()]


def items(events: list[Json], kind: str) -> list[Json]:
    """The finished items of this kind."""
    ended = [event["item"] for event in events if event["type"] == "item.completed"]
    return [item for item in ended if item["type"] == kind]


@each_upstream
async def test_it_runs_a_command(npm: Npm, upstream: Api, tmp_path: Path) -> None:
    """The call reaches Codex, its output reaches the model, and the last words end the turn."""
    scripts = [stream(reply(upstream).stream()) for reply in (called, said)]
    async with live(upstream, *scripts, seconds=60) as at:
        done, events = await codex(npm, CONFIG % at.url, tmp_path, "Please run the command.")
    assert done.status == 0, done
    [command] = items(events, "command_execution")
    assert (command["exit_code"], command["aggregated_output"]) == (0, "nursling-was-here\n")
    assert [message["text"] for message in items(events, "agent_message")] == [SAID]
    assert events[-1]["type"] == "turn.completed"
    assert (events[-1]["usage"]["input_tokens"], events[-1]["usage"]["output_tokens"]) == (6, 10)
    turns = [asked.json() for asked in at.upstream.requests]
    assert len(turns) == 2
    assert "Please run the command." in json.dumps(turns[0])
    assert "nursling-was-here\n" in answered(turns[1])["call_echo"]


@each_upstream
async def test_it_calls_a_tool_of_an_mcp_server(npm: Npm, upstream: Api, tmp_path: Path) -> None:
    """Its namespace reaches the model, and the call reaches the server, over chat too."""
    scripts = [stream(reply(upstream).stream()) for reply in (weather_called, said)]
    async with live(upstream, *scripts, seconds=60) as at:
        done, events = await codex(npm, CONFIG % at.url + SERVER, tmp_path, "The weather?")
    assert done.status == 0, done
    [call] = items(events, "mcp_tool_call")
    assert (call["server"], call["tool"], call["status"]) == ("weather", "get_weather", "completed")
    assert "mcp__weather" in [tool.get("name") for tool in at.asked[0]["tools"]]
    [again] = [item for item in at.asked[1]["input"] if item["type"] == "function_call"]
    assert (again["namespace"], again["name"]) == ("mcp__weather", "get_weather")
    second = at.upstream.requests[1].json()
    assert "It rains in Rome." in answered(second)["call_rain"]
    if upstream == "chat":
        [call] = [call for turn in second["messages"] for call in turn.get("tool_calls", ())]
        assert call["function"]["name"] == "mcp__weather__get_weather"
        assert "mcp__weather__get_weather" in [t["function"]["name"] for t in second["tools"]]


async def test_a_responses_upstream_gets_it_untouched(npm: Npm, tmp_path: Path) -> None:
    """Every field of every turn arrives as Codex sent it, whether we know it or not."""
    scripts = [stream(reply("responses").stream()) for reply in (called, said)]
    async with live("responses", *scripts, seconds=60) as at:
        await codex(npm, CONFIG % at.url, tmp_path, "Please run the command.")
    assert len(at.asked) == 2
    assert [asked.json() for asked in at.upstream.requests] == at.asked
    first = at.asked[0]
    # What makes it worth the test: if Codex no longer sends these, find another client that does.
    assert first["client_metadata"]
    assert first["prompt_cache_key"]
    assert first["include"] == ["reasoning.encrypted_content"]
    assert {"function", "namespace", "web_search"} <= {tool["type"] for tool in first["tools"]}


@each_upstream
async def test_a_broken_stream_is_a_failed_turn(npm: Npm, upstream: Api, tmp_path: Path) -> None:
    """Codex says that the turn failed, and why: half an answer does not look whole."""
    data = said(upstream).stream()
    broken = [*stream(data[: -len(data) // 2], end=False), Close()]
    async with live(upstream, broken, seconds=60) as at:
        done, events = await codex(npm, CONFIG % at.url, tmp_path, "Say something.")
    assert done.status != 0
    assert events[-1]["type"] == "turn.failed"
    assert "the upstream closed the connection" in events[-1]["error"]["message"]


@each_upstream
async def test_an_error_is_told(npm: Npm, upstream: Api, tmp_path: Path) -> None:
    """The upstream's own words reach whoever sits before Codex."""
    error = {"message": "This model is asleep.", "type": "invalid_request_error", "code": "asleep"}
    async with live(upstream, whole({"error": error}, 400), seconds=60) as at:
        done, events = await codex(npm, CONFIG % at.url, tmp_path, "Say something.")
    assert done.status != 0
    assert "This model is asleep." in events[-1]["error"]["message"]


async def test_the_configuration_in_the_readme(npm: Npm, tmp_path: Path) -> None:
    """README's lines for Codex work as they stand, but for the port: the demo model answers."""
    blocks = re.findall(r"```toml\n(.*?)```", README.read_text(), re.DOTALL)
    [config] = [block for block in blocks if "wire_api" in block]
    async with live("chat", whole(b""), key=None, seconds=60) as at:
        assert "http://127.0.0.1:8787/v1" in config
        config = config.replace("http://127.0.0.1:8787/v1", at.url)
        done, events = await codex(npm, config, tmp_path, "Hello!")
    assert done.status == 0, done
    [message] = items(events, "agent_message")
    assert "You said: “Hello!”" in message["text"]
