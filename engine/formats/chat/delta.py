"""What one delta (or one message) says, under whatever names its server says it.

Content may be a text, or a list of parts (Mistral). Reasoning comes as `reasoning_content`
(DeepSeek, llama-server, vLLM), `reasoning` (mlx_lm, OpenRouter) or `reasoning_details`
(OpenRouter), often the same words under two of the names: they are read once.

Members that are not known here, and those of a type that nobody expects, are kept as they are.
"""

from __future__ import annotations

from typing import Any

from ...events import PartKind
from ..shapes import read_logprobs
from .words import read_citation, without_nulls


KNOWN = frozenset(
    {
        "role",
        "content",
        "refusal",
        "tool_calls",
        "function_call",
        "reasoning_content",
        "reasoning",
        "reasoning_details",
        "annotations",
    }
)
REASONING = frozenset({"reasoning_content", "reasoning", "reasoning_details"})
_ODD = REASONING | {"annotations"}


class Thought:
    """What a delta says of reasoning."""

    __slots__ = ("kind", "patch", "sealed", "text")

    def __init__(self) -> None:
        self.text = ""
        self.kind: PartKind = "thought"
        self.patch: dict[str, Any] | None = None
        self.sealed: list[dict[str, Any]] = []


class Parts:
    """Content that came as a list of parts: its words, by kind.

    `others` are the parts that have none, and of each that has some what it says beside them.
    """

    def __init__(self, content: Any) -> None:
        self.text = self.thought = self.refusal = ""
        self.others: list[Any] = []
        for part in content if isinstance(content, list) else [content]:
            match part:
                case str(text):
                    self.text += text
                case {"type": "text" | "output_text", "text": str(text), **rest}:
                    self.text += text
                    self._leave(part["type"], rest)
                case {"type": "refusal", "refusal": str(text), **rest}:
                    self.refusal += text
                    self._leave("refusal", rest)
                case {"type": "thinking", "thinking": str(text), **rest}:
                    self.thought += text
                    self._leave("thinking", rest)
                case {"type": "thinking", "thinking": [*inner], **rest}:  # Mistral
                    words = Parts(inner)
                    self.thought += words.text
                    self.others += words.others
                    self._leave("thinking", rest)
                case _:
                    self.others.append(part)

    def _leave(self, kind: str, rest: dict[Any, Any]) -> None:
        if rest := {name: value for name, value in rest.items() if value not in (None, [], {})}:
            self.others.append({"type": kind, **rest})


def thought_of(delta: dict[str, Any]) -> Thought:
    """Read the reasoning of a delta once, although servers say it under two or three names."""
    thought = Thought()
    names = [delta.get(name) for name in ("reasoning_content", "reasoning")]
    thought.text = "".join(dict.fromkeys(text for text in names if isinstance(text, str)))
    if thought.text and thought.text == delta.get("reasoning"):
        thought.patch = {"reasoning": True}
    spoken = bool(thought.text)
    for detail in listed(delta.get("reasoning_details")):
        match detail:
            case {"type": "reasoning.encrypted", "data": str()}:
                thought.sealed.append(detail)
            case {"type": "reasoning.text", "text": str(text)} if not spoken:
                thought.text += text
            case {"type": "reasoning.summary", "summary": str(text)} if not spoken:
                thought.text += text
                thought.kind = "summary"
            case _:
                pass
    return thought


def patch_of_delta(delta: dict[str, Any]) -> dict[str, Any]:
    """Keep what a delta says beyond the normal form."""
    patch: dict[str, Any] = {}
    if not delta.keys() <= KNOWN:
        patch = without_nulls({key: delta[key] for key in delta.keys() - KNOWN})
    if delta.keys() & _ODD:
        details = delta.get("reasoning_details")
        open_details = [
            one for one in listed(details) if isinstance(one, dict) and not _is_sealed(one)
        ]
        if open_details:
            patch["reasoning_details"] = open_details
        notes = [
            one
            for one in listed(delta.get("annotations"))
            if isinstance(one, dict) and read_citation(one) is None
        ]
        if notes:
            patch["annotations"] = notes
        for name in ("reasoning_content", "reasoning"):
            if delta.get(name) and not isinstance(delta[name], str):
                patch[name] = delta[name]
    content = delta.get("content")
    if content and not isinstance(content, str) and (others := Parts(content).others):
        patch["content_parts"] = others
    return patch


def loose_logprobs(raw: Any) -> dict[str, Any] | None:
    """What `logprobs` of a choice says, or what is left of it; None if that is nothing."""
    if not isinstance(raw, dict):
        return None
    loose = without_nulls(raw)
    for field in loose.keys() & {"content", "refusal"}:
        loose[field] = read_logprobs(loose[field])
    return loose if any(loose.values()) else None


def _is_sealed(detail: Any) -> bool:
    match detail:
        case {"type": "reasoning.encrypted", "data": str()}:
            return True
        case _:
            return False


def listed(value: Any) -> list[Any]:
    """Take a list, or nothing."""
    return value if isinstance(value, list) else []
