"""Tool calls of one choice, put together from what chat servers stream.

The law of this file: a fragment belongs to the call with its id; without an id, to the call under
its index; without an index, to the last one. A name is a name: it comes whole, and saying it
again adds nothing (llama_cpp.server and LiteLLM repeat it with each fragment).

What is mended, each because a server does it:

* a new id under an old index is a new call (all calls under index 0: old Ollama, gcli2api#406);
* no index and no id: another name is another call, and so is the same name once the arguments
  before are whole JSON;
* no id ever: one is made of the reply's id and the item's number;
* an object as `arguments` is written as JSON text;
* `function_call` beside `tool_calls` says the same thing twice: it counts only where it is alone
  (llama_cpp.server);
* a placeholder without a name and without arguments is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import jsontext
from ...errors import RemoteProtocolError
from ...events import Event, ItemStarted, PartDelta, PartStarted
from .unwrap import Unwrapper
from .words import tagged, without_nulls


_KNOWN = frozenset({"index", "id", "type", "function", "custom"})


class _Call:
    """One call. `item` is negative until its name is known: only then can it be told."""

    __slots__ = ("custom", "id", "item", "name", "patch", "said", "unwrapper", "waiting")

    def __init__(self) -> None:
        self.item = -1
        self.id = ""
        self.name = ""
        self.custom = False
        self.unwrapper: Unwrapper | None = None
        self.said: list[str] = []  # the arguments, kept only while the wire has given no id
        self.waiting = ""  # arguments that came before the name
        self.patch: dict[str, Any] = {}

    def is_whole(self) -> bool:
        try:
            jsontext.loads("".join(self.said).encode("utf-8", "replace"))
        except ValueError:
            return False
        return True


class Calls:
    """The tool calls of one choice. Appends events to the `out` that each method is given."""

    def __init__(
        self,
        choice: int,
        wrapped: frozenset[str],
        next_item: Callable[[], int],
        make_id: Callable[[int], str],
    ) -> None:
        self._choice = choice
        self._wrapped = wrapped
        self._next_item = next_item
        self._make_id = make_id
        self._calls: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._current: _Call | None = None
        self._modern = False

    @property
    def told(self) -> bool:
        """Whether any call has become an event."""
        return any(call.item >= 0 for call in self._calls)

    def take(self, raw: Any, out: list[Event]) -> None:
        """Read the `tool_calls` of a delta."""
        last: _Call | None = None
        for entry in raw if isinstance(raw, list) else [raw]:
            if isinstance(entry, dict):
                self._modern = True
                last = self._take_entry(entry, last, out)

    def take_legacy(self, raw: dict[str, Any], out: list[Event]) -> None:
        """Read the `function_call` of a delta that has no `tool_calls`."""
        if self._modern:
            return
        call = self._current
        if call is None:
            call = self._begin(None)
        self._grow(call, {}, raw, out)

    def finish(self, out: list[Event]) -> None:
        """The choice is over."""
        for call in self._calls:
            if call.item < 0:
                if call.waiting:
                    raise RemoteProtocolError("a tool call of the upstream has no name")
            elif call.unwrapper is not None and (rest := call.unwrapper.close()):
                out.append(PartDelta(call.item, 0, rest))

    def _take_entry(self, entry: dict[str, Any], last: _Call | None, out: list[Event]) -> _Call:
        body = entry.get("custom")
        custom = isinstance(body, dict)
        if not isinstance(body, dict):
            body = entry.get("function")
        if not isinstance(body, dict):
            body = {}
        index, call_id = entry.get("index"), entry.get("id")
        call = self._find(
            index if type(index) is int else None,
            call_id if isinstance(call_id, str) else "",
            body,
            last,
        )
        call.custom = call.custom or custom or entry.get("type") == "custom"
        self._current = call
        patch = {} if entry.keys() <= _KNOWN else without_nulls(entry)
        self._grow(call, {k: v for k, v in patch.items() if k not in _KNOWN}, body, out)
        return call

    def _find(
        self, index: int | None, call_id: str, body: dict[str, Any], last: _Call | None
    ) -> _Call:
        call = self._by_id.get(call_id) if call_id else None
        if call is None:
            if index is not None:
                call = self._by_index.get(index)
            elif last is None or not body.get("name"):
                call = self._current  # entries of one list are never one call
            if call is None or _is_another(call, call_id, body):
                call = self._begin(index)
        if call_id:
            call.id = call_id
            self._by_id[call_id] = call
        return call

    def _begin(self, index: int | None) -> _Call:
        call = _Call()
        self._calls.append(call)
        self._current = call
        if index is not None:
            self._by_index[index] = call
        return call

    def _grow(
        self, call: _Call, patch: dict[str, Any], body: dict[str, Any], out: list[Event]
    ) -> None:
        name = body.get("name")
        if not call.name and isinstance(name, str):
            call.name = name
        native = call.custom and call.unwrapper is None
        text = _text(body.get("input" if native else "arguments"))
        if text and not call.id:
            call.said.append(text)
        if call.item < 0:
            call.waiting += text
            call.patch |= patch
            if not call.name:
                return
            self._start(call, out)
            text, patch = call.waiting, {}
        if call.unwrapper is not None:
            text = call.unwrapper.feed(text)
        if text or patch:
            extra = tagged({"index": self._choice, "call": patch}) if patch else None
            out.append(PartDelta(call.item, 0, text, None, extra))

    def _start(self, call: _Call, out: list[Event]) -> None:
        call.item = self._next_item()
        if not call.custom and call.name in self._wrapped:
            call.custom, call.unwrapper = True, Unwrapper()
        extra = tagged({"index": self._choice, "call": call.patch}) if call.patch else None
        out.append(
            ItemStarted(
                call.item,
                "tool_call",
                self._choice,
                call.id or self._make_id(call.item),
                call.name,
                extra,
            )
        )
        out.append(PartStarted(call.item, 0, "input" if call.custom else "arguments"))


def _is_another(call: _Call, call_id: str, body: dict[str, Any]) -> bool:
    """Whether a fragment, under the index of a call that it does not name by id, is a new call."""
    if call_id and call.id:
        return True
    name = body.get("name")
    if not name or not call.name:
        return False
    return name != call.name or (not call.id and bool(body.get("arguments")) and call.is_whole())


def _text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else jsontext.dumps(arguments).decode()
