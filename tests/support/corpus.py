"""The recordings of real model servers in `tests/corpus`, one by one.

`said` is an independent, naive reading of what a recording says: it exists to find out whether the
engine loses anything, so it shares no code with it.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal


FOLDER = Path(__file__).parent.parent / "corpus"
Api = Literal["chat", "responses", "other"]


@dataclass(frozen=True)
class Recording:
    """One HTTP exchange, as it was on the wire."""

    server: str
    case: str
    method: str
    path: str
    body: Any
    """The request's body; a string where it was not JSON."""
    status: int
    headers: tuple[tuple[str, str], ...]
    data: bytes
    """The answer's body, without HTTP chunk framing."""
    chunks: tuple[int, ...] | None
    """How the server cut it; None without chunked encoding."""
    last_chunk_seen: bool
    connection_end: str

    @property
    def name(self) -> str:
        return f"{self.server}/{self.case}"

    @property
    def api(self) -> Api:
        if self.method == "POST" and self.path.endswith("/chat/completions"):
            return "chat"
        if self.method == "POST" and self.path.endswith("/responses"):
            return "responses"
        return "other"

    @property
    def asked_stream(self) -> bool:
        return isinstance(self.body, dict) and self.body.get("stream") is True

    @property
    def streamed(self) -> bool:
        """Whether the answer is an event stream, whatever was asked."""
        return "event-stream" in dict(self.lower_headers).get("content-type", "")

    @property
    def lower_headers(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers}

    @property
    def cut(self) -> bool:
        """Whether HTTP itself shows that the body is not whole."""
        chunked = "chunked" in self.lower_headers.get("transfer-encoding", "").lower()
        length = int(self.lower_headers.get("content-length", len(self.data)))
        return (chunked and not self.last_chunk_seen) or length > len(self.data)


def _load(meta_path: Path) -> Recording:
    meta = json.loads(meta_path.read_bytes())
    request = meta["request"]
    return Recording(
        server=meta_path.parent.name,
        case=meta_path.name.removesuffix(".meta.json"),
        method=request["method"],
        path=request["path"],
        body=request.get("body"),
        status=int(meta["status"].split()[1]),
        headers=tuple((name, value) for name, value in meta["headers"]),
        data=(meta_path.parent / meta["file"]).read_bytes(),
        chunks=tuple(meta["http_chunks"]) if meta["http_chunks"] is not None else None,
        last_chunk_seen=meta["http_last_chunk_seen"],
        connection_end=meta["connection_end"],
    )


@functools.cache
def recordings() -> tuple[Recording, ...]:
    """All of them, in order of name."""
    return tuple(_load(path) for path in sorted(FOLDER.glob("*/*.meta.json")))


def recording(name: str) -> Recording:
    """The one called `server/case`; the server's version may be left out."""
    server, _, case = name.partition("/")
    [found] = [one for one in recordings() if one.server.startswith(server) and one.case == case]
    return found


# What a recording says.


@dataclass
class Said:
    """The words of one choice of a reply: nothing of how it was framed."""

    text: str = ""
    thought: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    """(name, arguments), in order of appearance."""


def payloads(data: bytes) -> list[Any]:
    """The JSON of every `data:` line, naively: these servers send one line per event, with LF."""
    texts = re.findall(rb"^data: ?(.*?)\r?$", data, re.MULTILINE)
    return [json.loads(text) for text in texts if text != b"[DONE]"]


def said(one: Recording) -> dict[int, Said]:
    """Choice -> what it says."""
    if one.api == "chat":
        return _said_in_chat(one)
    return {0: _said_in_responses(one)}


def _said_in_chat(one: Recording) -> dict[int, Said]:
    answers = payloads(one.data) if one.streamed else [json.loads(one.data)]
    found: dict[int, Said] = {}
    calls: dict[int, dict[int, list[str]]] = {}
    for answer in answers:
        for choice in answer.get("choices", ()):
            index = choice["index"]
            words = choice.get("delta") or choice.get("message") or {}
            here = found.setdefault(index, Said())
            here.text += words.get("content") or ""
            here.thought += words.get("reasoning_content") or words.get("reasoning") or ""
            for place, call in enumerate(words.get("tool_calls") or ()):
                number = call.get("index", place)
                function = call["function"]
                entry = calls.setdefault(index, {}).setdefault(number, [""] * 2)
                # llama_cpp.server repeats the name with every fragment.
                entry[0] = entry[0] or function.get("name") or ""
                entry[1] += function.get("arguments") or ""
    for index, by_number in calls.items():
        found[index].calls = tuple((name, text) for name, text in by_number.values())
    return found


def _said_in_responses(one: Recording) -> Said:
    if not one.streamed:
        return said_in_output(json.loads(one.data)["output"])
    events = payloads(one.data)
    here = Said()
    calls: dict[str, list[str]] = {}
    for event in events:
        match event["type"]:
            case "response.output_text.delta":
                here.text += event["delta"]
            case "response.reasoning_text.delta":
                here.thought += event["delta"]
            case "response.output_item.done" if event["item"]["type"] == "function_call":
                item = event["item"]
                calls[item["call_id"]] = [item["name"], item["arguments"]]
            case _:
                pass
    here.calls = tuple((name, text) for name, text in calls.values())
    return here


def said_in_output(output: list[dict[str, Any]]) -> Said:
    """What a list of output items says."""
    here = Said()
    calls: list[tuple[str, str]] = []
    for item in output:
        match item["type"]:
            case "message":
                here.text += "".join(part.get("text", "") for part in item["content"])
            case "reasoning":
                parts = item.get("content") or ()
                here.thought += "".join(part["text"] for part in parts)
            case "function_call":
                calls.append((item["name"], item["arguments"]))
            case _:
                pass
    here.calls = tuple(calls)
    return here
