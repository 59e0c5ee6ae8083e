"""What a reply says, read from the bytes of either API: the measure of every world.

`Content` is the meaning without the frames, so an upstream's script and a client's bytes can be
compared whatever API each of them speaks. Frames are read strictly (`support.laws.frames`); the
finer laws of each API are held by `support.laws` on a share of the worlds, because they cost more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Literal

from support.laws import LawBroken, frames
from support.scripted import Api


Json = dict[str, Any]


@dataclass
class Content:
    """What has been said so far."""

    text: str = ""
    reasoning: str = ""
    calls: list[list[str]] = field(default_factory=list)
    """Id, name and arguments of each tool call."""
    finish: str = ""
    usage: tuple[int, int] | None = None
    end: Literal["", "good", "failed"] = ""
    code: str = ""
    """The code of the failure."""

    @property
    def meaningful(self) -> bool:
        """Whether anything of it is news to a client."""
        return bool(self.text or self.reasoning or self.calls or self.finish or self.end)

    def copy(self) -> Content:
        return Content(
            self.text,
            self.reasoning,
            [[*call] for call in self.calls],
            self.finish,
            self.usage,
            self.end,
            self.code,
        )

    def begins(self, whole: Content) -> bool:
        """Whether this is how `whole` begins."""
        calls = self.calls
        return (
            whole.text.startswith(self.text)
            and whole.reasoning.startswith(self.reasoning)
            and len(calls) <= len(whole.calls)
            and all(
                mine[:2] == theirs[:2] and theirs[2].startswith(mine[2])
                for mine, theirs in zip(calls, whole.calls, strict=False)
            )
        )

    def says(self, other: Content) -> bool:
        """Whether both say the same."""
        return (self.text, self.reasoning, self.calls) == (
            other.text,
            other.reasoning,
            other.calls,
        )


class Reader:
    """Reads one reply."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.content = Content()
        self._sequence = 0
        self._calls: dict[int, list[str]] = {}

    def stream(self, data: bytes) -> Content:
        """Read the body of a stream, or whole frames of it."""
        for name, text in frames(data):
            if self.content.end == "good":
                raise LawBroken(f"something follows the end: {text[:80]}")
            if self.api == "chat":
                self._chat(text)
            else:
                self._event(name, json.loads(text))
        return self.content

    def whole(self, data: bytes) -> Content:
        """Read a whole reply."""
        body = json.loads(data)
        if self.api == "chat":
            choice = body["choices"][0]
            self._delta(choice["message"])
            self.content.finish = choice["finish_reason"]
            self._chat_usage(body)
        else:
            for item in body["output"]:
                self._item(item)
            self._close(body)
        self.content.end = "good"
        return self.content

    def _chat(self, text: str) -> None:
        content = self.content
        if text == "[DONE]":
            if content.end or not content.finish:
                raise LawBroken(f"[DONE] behind {content.end or 'nothing finished'}")
            content.end = "good"
            return
        chunk = json.loads(text)
        if "error" in chunk:
            content.end, content.code = "failed", str(chunk["error"].get("code"))
            return
        self._chat_usage(chunk)
        for choice in chunk["choices"]:
            self._delta(choice["delta"])
            content.finish = choice["finish_reason"] or content.finish

    def _chat_usage(self, body: Json) -> None:
        if usage := body.get("usage"):
            self.content.usage = usage["prompt_tokens"], usage["completion_tokens"]

    def _delta(self, delta: Json) -> None:
        self.content.text += delta.get("content") or ""
        self.content.reasoning += delta.get("reasoning_content") or ""
        for number, call in enumerate(delta.get("tool_calls") or ()):
            index = call.get("index", number)
            if index not in self._calls:
                self._calls[index] = [call["id"], call["function"]["name"], ""]
                self.content.calls.append(self._calls[index])
            self._calls[index][2] += call["function"].get("arguments") or ""

    def _event(self, name: str, event: Json) -> None:
        if (name, self._sequence) != (event["type"], event["sequence_number"]):
            raise LawBroken(f"{name} number {event['sequence_number']}, not {self._sequence}")
        self._sequence += 1
        match name.removeprefix("response."):
            case "output_text.delta":
                self.content.text += event["delta"]
            case "reasoning_text.delta":
                self.content.reasoning += event["delta"]
            case "output_item.added" if event["item"]["type"] == "function_call":
                item = event["item"]
                self._calls[event["output_index"]] = [item["call_id"], item["name"], ""]
                self.content.calls.append(self._calls[event["output_index"]])
            case "function_call_arguments.delta":
                self._calls[event["output_index"]][2] += event["delta"]
            case "completed" | "incomplete":
                said = Reader("responses")
                for item in event["response"]["output"]:
                    said._item(item)
                if not said.content.says(self.content):
                    raise LawBroken(f"the end says {said.content}, the stream {self.content}")
                self._close(event["response"])
                self.content.end = "good"
            case "failed":
                self.content.end = "failed"
                self.content.code = event["response"]["error"]["code"]
            case _:
                pass

    def _item(self, item: Json) -> None:
        match item["type"]:
            case "message":
                self.content.text += "".join(part["text"] for part in item["content"])
            case "reasoning":
                self.content.reasoning += "".join(
                    part["text"] for part in item.get("content") or ()
                )
            case _:
                self.content.calls.append([item["call_id"], item["name"], item["arguments"]])

    def _close(self, response: Json) -> None:
        incomplete = response["status"] == "incomplete"
        self.content.finish = (
            "length" if incomplete else "tool_calls" if self.content.calls else "stop"
        )
        usage = response["usage"]
        self.content.usage = usage["input_tokens"], usage["output_tokens"]
