"""Tool calls of one choice, put together from what chat servers stream.

The law of this file: a fragment belongs to the call with its id; without an id, to the call under
its index; without an index, to the last one. A name is a name: it comes whole, and saying it
again adds nothing (llama_cpp.server and LiteLLM repeat it with each fragment). Only a fragment
with a name can begin a call, and no two calls that are told have one id.

What is mended, each because a server does it:

* a new id under an old index is a new call (all calls under index 0: old Ollama, gcli2api#406),
  if it has a name; without one it goes on with the call of that index (an id for each fragment);
* an old id under a new index is a new call, and so is a second named entry of one list;
* another name is another call, and so is the same name once the arguments before are whole JSON;
* no id ever, or one that an earlier call has: one is made of the reply's id and the item's number;
* an object as `arguments` is written as JSON text;
* `function_call` beside `tool_calls` says the same thing twice: it counts only where it is alone
  (llama_cpp.server);
* a placeholder without a name and without arguments is none.
"""

from __future__ import annotations

import re
from typing import Any

from ... import jsontext
from ...accumulate import WEIGHT, Pieces, size_of
from ...errors import RemoteProtocolError
from ...events import Event, ItemStarted, PartDelta, PartStarted
from .names import Names
from .unwrap import Unwrapper
from .words import patched, tagged, without_nulls


MAX_CALLS = 128
"""Tool calls of one choice. OpenAI's API knows no more tools than that."""

_KNOWN = frozenset({"index", "id", "type", "function", "custom"})
_SPOKEN = frozenset({"name", "arguments", "input"})


class _Object:
    """Follows the text of a JSON object as it grows, to know when it is whole; keeps none of it."""

    __slots__ = ("_depth", "_escaped", "_quoted", "whole")

    _outside = re.compile(r'["{}\[\]]')
    _inside = re.compile(r'["\\]')

    def __init__(self) -> None:
        self.whole = False
        self._depth = 0
        self._quoted = False
        self._escaped = False

    def feed(self, text: str) -> None:
        """Take some more of the text."""
        at = int(self._escaped)
        self._escaped = False
        while match := (self._inside if self._quoted else self._outside).search(text, at):
            at = match.end()
            match match.group():
                case '"':
                    self._quoted = not self._quoted
                case "\\":
                    self._escaped = at == len(text)
                    at += 1
                case "{" | "[":
                    self._depth += 1
                case _:
                    self._depth -= 1
                    self.whole = self.whole or self._depth == 0


class _Call:
    """One call. `item` is negative until its name is known: only then can it be told."""

    __slots__ = (
        "arguments",
        "custom",
        "held",
        "id",
        "index",
        "item",
        "name",
        "patch",
        "unwrapper",
        "waiting",
    )

    def __init__(self, index: int | None) -> None:
        self.item = -1
        self.index = index
        self.id = ""
        self.name = ""
        self.custom = False
        self.unwrapper: Unwrapper | None = None
        self.arguments = _Object()
        self.held = 0  # bytes of memory that came before the name, and wait for it
        self.waiting = Pieces()  # the arguments among them
        self.patch: dict[str, Any] = {}


class Tally:
    """What all choices of a reply count together.

    It knows none of them: tied, they and what they hold would wait for the garbage collector.
    """

    def __init__(self) -> None:
        self.held = 0
        """Bytes of memory that are kept, and that no event has carried yet."""
        self.token = ""
        """What the ids that we make up are made of."""
        self._items = 0

    def next_item(self) -> int:
        """Number a new item."""
        self._items += 1
        return self._items - 1

    def make_id(self, item: int) -> str:
        """Name a call that has no id, by its item."""
        return f"call_{self.token}_{item}"


class Calls:
    """The tool calls of one choice. Appends events to the `out` that each method is given."""

    def __init__(self, choice: int, names: Names, tally: Tally) -> None:
        self._choice = choice
        self._names = names
        self._tally = tally
        self.told = False
        """Whether any call has become an event."""
        self._calls: list[_Call] = []
        self._ids: set[str] = set()  # of the calls that are told
        self._by_id: dict[str, _Call] = {}
        self._by_index: dict[int, _Call] = {}
        self._current: _Call | None = None
        self._modern = False

    def take(self, raw: Any, out: list[Event]) -> None:
        """Read the `tool_calls` of a delta."""
        before: set[_Call] = set()
        for entry in raw if isinstance(raw, list) else [raw]:
            if isinstance(entry, dict):
                self._modern = True
                before.add(self._take_entry(entry, before, out))

    def take_legacy(self, raw: dict[str, Any], out: list[Event]) -> None:
        """Read the `function_call` of a delta that has no `tool_calls`."""
        if self._modern:
            return
        call = self._current
        if call is None:
            call = self._begin(None)
        self._grow(call, {}, raw, out)

    def finish(self, out: list[Event], *, whole: bool) -> None:
        """The choice is over. `whole` = by its reason, nothing of it was cut.

        An input that breaks off all the same is refused: a client would act upon half of it.
        """
        for call in self._calls:
            if call.item < 0:
                if any(call.waiting):
                    raise RemoteProtocolError("a tool call of the upstream has no name")
            elif call.unwrapper is not None:
                if whole and call.unwrapper.cut:
                    raise RemoteProtocolError("the input of the tool call was cut")
                if rest := call.unwrapper.close():
                    out.append(PartDelta(call.item, 0, rest))

    def _take_entry(self, entry: dict[str, Any], before: set[_Call], out: list[Event]) -> _Call:
        """Read one entry; `before` are the calls of the entries before it in the same list."""
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
            before,
        )
        call.custom = call.custom or custom or entry.get("type") == "custom"
        self._current = call
        patch = _beyond(entry, _KNOWN)
        if inner := _beyond(body, _SPOKEN):
            patch["custom" if custom else "function"] = inner
        self._grow(call, patch, body, out)
        return call

    def _find(
        self, index: int | None, call_id: str, body: dict[str, Any], before: set[_Call]
    ) -> _Call:
        name = body.get("name")
        known = self._by_id.get(call_id)
        call = None if index is None else self._by_index.get(index)
        if known is not None and (
            index is None or known.index in {None, index} or (call is None and not name)
        ):
            call = known
        elif index is None and not (before and name):
            call = self._current
        if call is None or _is_another(call, call_id, body, before):
            call = self._begin(index)
        if call_id and not call.id:
            call.id = call_id
            self._by_id[call_id] = call
            if call.item < 0:
                self._keep(call, len(call_id))
        return call

    def _begin(self, index: int | None) -> _Call:
        if len(self._calls) == MAX_CALLS:
            raise RemoteProtocolError(f"the upstream makes over {MAX_CALLS} tool calls at once")
        call = _Call(index)
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
        if text and not native:
            call.arguments.feed(text)
        if call.item < 0:
            call.waiting.add(text)
            call.patch = patched(call.patch, patch)
            if not call.name:
                weight = WEIGHT * len(jsontext.dumps(patch)) if patch else 0
                self._keep(call, size_of(text) + weight)
                return
            text, patch = "".join(call.waiting), {}
            call.waiting.clear()
            self._keep(call, -call.held)
            self._start(call, out)
        if call.unwrapper is not None:
            text = call.unwrapper.feed(text)
        if text or patch:
            extra = tagged({"index": self._choice, "call": patch}) if patch else None
            out.append(PartDelta(call.item, 0, text, None, extra))

    def _keep(self, call: _Call, size: int) -> None:
        call.held += size
        self._tally.held += size

    def _start(self, call: _Call, out: list[Event]) -> None:
        call.item = self._tally.next_item()
        self.told = True
        call_id = call.id
        if not call_id or call_id in self._ids:
            call_id = self._tally.make_id(call.item)
        self._ids.add(call_id)
        if not call.custom and call.name in self._names.wrapped:
            call.custom, call.unwrapper = True, Unwrapper()
        extra = tagged({"index": self._choice, "call": call.patch}) if call.patch else None
        namespace, name = self._names.meant(call.name)
        out.append(
            ItemStarted(
                call.item,
                "tool_call",
                self._choice,
                call_id,
                name,
                namespace,
                extra,
            )
        )
        out.append(PartStarted(call.item, 0, "input" if call.custom else "arguments"))


def _is_another(call: _Call, call_id: str, body: dict[str, Any], before: set[_Call]) -> bool:
    """Whether a fragment that seems to belong to a call begins a new one."""
    name = body.get("name")
    if not name:
        return False
    if call in before or (call_id and call.id and call_id != call.id):
        return True
    if not call.name:
        return False
    more = _text(body.get("arguments"))
    return name != call.name or (call.arguments.whole and bool(more) and not more.isspace())


def _beyond(value: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """The members that are not known, and say something."""
    if value.keys() <= known:
        return {}
    return without_nulls({name: value[name] for name in value if name not in known})


def _text(arguments: Any) -> str:
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else jsontext.dumps(arguments).decode()
