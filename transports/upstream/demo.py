"""The demo model: an upstream inside this process, so that the first command needs no key.

It is no language model. It echoes the question, streams word by word, thinks when asked with
`reasoning_effort`, calls the tools it is offered when the question is about one, answers in JSON
when a schema is asked for, and counts words as tokens. The same request always gets the same words.
It speaks Chat Completions, as bytes: the way through the gateway is that of any other model.

How to make it call a tool: say `tool`, the tool's name, or all the longer words of it (`weather`
for get_weather); `both` or `two` make it two calls.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import trio

from nursling.engine import jsontext

from .example import example


MODEL = "demo"

GREETING = """\
Hello! I am the demo model of nursling. You said: “{question}”

I only pretend to think: my words are made on this machine, one by one, so that you can watch a \
stream before you have a key. Offer me a tool and name it, and I will call it; ask with a \
reasoning effort, and I will show you some reasoning.

To talk to a real model, write nursling.toml:

[providers.local]
base_url = "http://127.0.0.1:11434/v1"
wildcard = true

and start nursling again. Any client of Chat Completions or of Responses may then ask for \
any model that this server has."""

THOUGHT = "The user wants to see some reasoning. I count their words ({count}) and say hello."

QUOTED = 500
"""Characters of a question, or of a tool's answer, that are echoed."""


class DemoUpstream:
    """An `Upstream` of the engine. `delay` is the pause before each word, in seconds."""

    def __init__(self, delay: float = 0.02, clock: Callable[[], float] = time.time) -> None:
        self._delay = delay
        self._clock = clock
        self._numbers = itertools.count(1)

    @asynccontextmanager
    async def open(
        self, body: dict[str, Any], *, path: str, stream: bool
    ) -> AsyncGenerator[DemoSource, None]:
        """Answer a chat request. See `Upstream.open`."""
        if path != "/chat/completions":
            raise ValueError(f"the demo model speaks chat completions, not {path}")
        number = next(self._numbers)
        digest = hashlib.sha256(b"%d " % number + jsontext.dumps(body)).hexdigest()
        head = {
            "id": f"chatcmpl-demo{digest[:24]}",
            "created": int(self._clock()),
            "model": str(body.get("model") or MODEL),
        }
        answers = [_Answer(body, digest, index) for index in range(_count(body))]
        if stream:
            yield DemoSource(_frames(head, answers, body), "text/event-stream", self._delay)
        else:
            yield DemoSource(iter([_whole(head, answers)]), "application/json", self._delay)


class DemoSource:
    """The answer: a `Source` of the engine."""

    status = 200

    def __init__(self, pieces: Iterator[bytes], content_type: str, delay: float) -> None:
        self.headers = {"content-type": content_type}
        self._pieces = pieces
        self._delay = delay

    async def read_some(self) -> bytes:
        """Return the next word's frame, after the pause."""
        piece = next(self._pieces, b"")
        await trio.sleep(self._delay if piece else 0)
        return piece


class _Call(NamedTuple):
    """A tool call that the answer makes."""

    id: str
    name: str
    arguments: str

    def rendered(self, arguments: str) -> dict[str, Any]:
        """Write it with these arguments, all or none of its own."""
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function}


class _Answer:
    """What one choice says: reasoning, then either calls or text."""

    def __init__(self, body: dict[str, Any], digest: str, index: int) -> None:
        self.index = index
        messages = _dicts(body.get("messages"))
        question = next((_text(m) for m in reversed(messages) if m.get("role") == "user"), "")
        self.asked = sum(len(_text(message).split()) for message in messages)
        self.thought = ""
        if body.get("reasoning_effort") not in {None, "none"}:
            self.thought = THOUGHT.format(count=len(question.split()))
        answered = bool(messages) and messages[-1].get("role") == "tool"
        self.calls = [
            _Call(
                id=f"call_{digest[32 + index : 44 + index]}{number}",
                name=tool["name"],
                arguments=_json(example(tool.get("parameters"), _word(question)) or {}),
            )
            for number, tool in enumerate(_wanted_tools(body, question, answered=answered))
        ]
        text = "" if self.calls else _words(body, question, messages, answered=answered)
        self.pieces = re.findall(r"\s*\S+\s*\Z|\s*\S+", text)
        self.reason = "tool_calls" if self.calls else "stop"
        budget = body.get("max_completion_tokens") or body.get("max_tokens")
        if isinstance(budget, int) and not self.calls and len(self.pieces) > budget > 0:
            self.pieces, self.reason = self.pieces[:budget], "length"

    @property
    def said(self) -> int:
        """Words of the answer, reasoning included."""
        called = sum(len(call.arguments.split()) + 1 for call in self.calls)
        return len(self.pieces) + called + len(self.thought.split())

    def deltas(self) -> Iterator[dict[str, Any]]:
        """Say the answer bit by bit."""
        yield {"role": "assistant", "content": None if self.calls else ""}
        for word in re.findall(r"\s*\S+", self.thought):
            yield {"reasoning_content": word}
        for number, call in enumerate(self.calls):
            yield {"tool_calls": [{"index": number, **call.rendered("")}]}
            for at in range(0, len(call.arguments), 8):
                piece = {"index": number, "function": {"arguments": call.arguments[at : at + 8]}}
                yield {"tool_calls": [piece]}
        for piece in self.pieces:
            yield {"content": piece}

    def message(self) -> dict[str, Any]:
        """Say the answer at once."""
        text = None if self.calls else "".join(self.pieces)
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if self.thought:
            message["reasoning_content"] = self.thought
        if self.calls:
            message["tool_calls"] = [call.rendered(call.arguments) for call in self.calls]
        return message


def _frames(head: dict[str, Any], answers: list[_Answer], body: dict[str, Any]) -> Iterator[bytes]:
    def frame(choices: list[dict[str, Any]], **more: Any) -> bytes:
        chunk = {"object": "chat.completion.chunk", **head, "choices": choices, **more}
        return b"data: " + jsontext.dumps(chunk) + b"\n\n"

    def choice(answer: _Answer, delta: dict[str, Any], reason: str | None) -> dict[str, Any]:
        return {"index": answer.index, "delta": delta, "logprobs": None, "finish_reason": reason}

    for answer in answers:
        for delta in answer.deltas():
            yield frame([choice(answer, delta, None)])
        yield frame([choice(answer, {}, answer.reason)])
    options = body.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage"):
        yield frame([], usage=_usage(answers))
    yield b"data: [DONE]\n\n"


def _whole(head: dict[str, Any], answers: list[_Answer]) -> bytes:
    choices = [
        {
            "index": answer.index,
            "message": answer.message(),
            "logprobs": None,
            "finish_reason": answer.reason,
        }
        for answer in answers
    ]
    return jsontext.dumps(
        {"object": "chat.completion", **head, "choices": choices, "usage": _usage(answers)}
    )


def _usage(answers: list[_Answer]) -> dict[str, Any]:
    asked, said = answers[0].asked, sum(answer.said for answer in answers)
    thought = sum(len(answer.thought.split()) for answer in answers)
    return {
        "prompt_tokens": asked,
        "completion_tokens": said,
        "total_tokens": asked + said,
        "prompt_tokens_details": {"cached_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": thought},
    }


def _wanted_tools(body: dict[str, Any], question: str, *, answered: bool) -> list[dict[str, Any]]:
    """Choose what to call: what is forced, else what the question names."""
    offered = [
        tool["function"]
        for tool in _dicts(body.get("tools"))
        if isinstance(tool.get("function"), dict) and isinstance(tool["function"].get("name"), str)
    ]
    choice = body.get("tool_choice")
    if not offered or choice == "none":
        return []
    if isinstance(choice, dict) and isinstance(choice.get("function"), dict):
        return [tool for tool in offered if tool["name"] == choice["function"].get("name")][:1]
    if answered:
        return []
    asked = question.lower()
    named = [tool for tool in offered if _names(asked, tool["name"])]
    if not named and not re.search(r"\btools?\b", asked) and choice != "required":
        return []
    if body.get("parallel_tool_calls") is not False and re.search(r"\b(both|two)\b", asked):
        others = [tool for tool in offered if tool not in named]
        return (named + others + offered)[:2]
    return (named or offered)[:1]


def _names(asked: str, tool: str) -> bool:
    """Tell whether a question, in lower case, has a tool's name in it, or its longer words.

    Words of three letters do not count: get, set and run are in too many names.
    """
    if tool.lower() in asked:
        return True
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", tool)
    longer = {part.lower() for part in parts if len(part) > 3}
    return bool(longer) and longer <= set(re.findall(r"[a-z]+", asked))


def _words(
    body: dict[str, Any], question: str, messages: list[dict[str, Any]], *, answered: bool
) -> str:
    form = body.get("response_format")
    if isinstance(form, dict) and form.get("type") == "json_schema":
        wanted = form.get("json_schema")
        schema = wanted.get("schema") if isinstance(wanted, dict) else None
        return _json(example(schema, _word(question)))
    if isinstance(form, dict) and form.get("type") == "json_object":
        return _json({"question": question[:QUOTED]})
    if answered:
        results = [
            _text(message)[:QUOTED]
            for message in itertools.takewhile(
                lambda message: message.get("role") == "tool", reversed(messages)
            )
        ]
        return "The tool says: " + " And: ".join(reversed(results))
    return GREETING.format(question=question[:QUOTED] or "nothing")


def _word(question: str) -> str:
    """Find a word worth passing to a tool: what is quoted, else the last name."""
    if quoted := re.search(r"[\"“']([^\"”']+)[\"”']", question):
        return quoted[1]
    names = re.findall(r"(?<=\s)[A-Z]\w+(?: [A-Z]\w+)*", question)
    return names[-1] if names else "example"


def _json(value: Any) -> str:
    return jsontext.dumps(value).decode()


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in _dicts(content)]
    return "".join(text for text in texts if isinstance(text, str))


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _count(body: dict[str, Any]) -> int:
    n = body.get("n")
    return min(n, 8) if isinstance(n, int) and n > 0 else 1
