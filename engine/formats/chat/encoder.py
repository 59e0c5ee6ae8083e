"""Events -> the stream that a chat client reads.

The law of this file: role first, in a chunk of its own; id, created and model on each chunk, the
same all along; one finish reason for each choice and nothing of that choice behind it; usage last,
with empty choices, only if it was asked for; then `[DONE]`. A reply that broke ends with an error
and without `[DONE]`, so that nobody takes it for whole.

The content beside the role is null before a call, as with OpenAI, and empty text before everything
else. So the role waits for the first thing that its choice says; where a beat comes earlier, it
goes with the beat. The role of choice 0 is the first of all: OpenAI's own client needs it there.

What chat has no place for: several messages of one choice are one text, with a blank line between
them, and so are several parts of reasoning. Opaque items of other formats are not shown.

Members of a chunk that only this format knows (`words.py`) leave on the next chunk of the same
choice; where the upstream says one anew before there is such a chunk, on one of their own. Servers
say some behind the finish reason (Azure its filter's results, llama-server its timings beside the
usage), where no chunk may follow: so the chunks with the finish reasons wait for the end of the
stream, and carry them. Those that came behind go with the usage if it is sent.

A delta of plain text is the hot path: what stands before and behind the text is made once for each
part, and only the text is encoded.
"""

from __future__ import annotations

from typing import Any

from ...accumulate import merge_usage
from ...events import (
    Annotated,
    Ended,
    Event,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from ...jsontext import dumps
from ...request import Request
from ...sse import COMMENT_BEAT, encode_frame
from ..base import Identity
from ..openai_errors import in_stream, render_error
from ..wire import DONE
from .words import (
    FIELDS,
    GAP,
    NAME,
    STICKY,
    distinct_id,
    is_legacy,
    native_reason,
    patch_of,
    patched,
    write_call,
    write_citation,
    write_finish,
    write_logprobs,
    write_sealed,
    write_usage,
)


_END = encode_frame(DONE)


class _Choice:
    """One choice of the stream."""

    __slots__ = ("begun", "call_ids", "calls", "finish", "legacy", "pending", "said", "sealed")

    def __init__(self) -> None:
        self.begun = False
        self.finish: str | None = None
        self.calls = 0
        self.call_ids: set[str] = set()
        self.legacy = False  # has told its `function_call`
        self.said: set[str] = set()  # the members that have had text
        self.sealed = 0
        self.pending: dict[str, dict[str, Any]] = {"choice": {}, "delta": {}}


class _Item:
    """One item. `place` is its index among `tool_calls`; None = it is told as `function_call`."""

    __slots__ = ("choice", "continued", "fields", "place", "start")

    def __init__(self, start: ItemStarted) -> None:
        self.start = start
        self.choice = start.choice
        self.continued = bool((patch_of(start) or {}).get("continued"))
        self.fields: set[str] = set()
        self.place: int | None = None


class _Part:
    """One part: how its text is wrapped up. `around` is empty until its first text is out."""

    __slots__ = ("around", "custom", "field", "item", "spoke", "twice")

    def __init__(self, item: _Item) -> None:
        self.item = item
        self.field = ""  # empty for a tool call
        self.custom = False
        self.twice = False  # written as `reasoning` too
        self.spoke = False
        self.around: tuple[bytes, bytes] | None = None

    def delta(self, text: str) -> dict[str, Any]:
        """Wrap up some text."""
        if self.field:
            return {"reasoning": text, self.field: text} if self.twice else {self.field: text}
        if self.item.place is None:
            return {"function_call": {"arguments": text}}
        body = {"custom": {"input": text}} if self.custom else {"function": {"arguments": text}}
        return {"tool_calls": [{"index": self.item.place, **body}]}


class ChatEncoder:
    """The `Encoder` of Chat Completions."""

    def __init__(self, request: Request, identity: Identity) -> None:
        self._identity = identity
        self._model = request.model
        self._include_usage = request.include_usage
        self._legacy = is_legacy(request)
        self._choices: dict[int, _Choice] = {}
        self._items: dict[int, _Item] = {}
        self._parts: dict[tuple[int, int], _Part] = {}
        self._head: dict[str, Any] = {}
        self._sticky: dict[str, Any] = {}
        self._framed: list[_Part] = []  # those whose wrapping is made
        self._pending: dict[str, Any] = {}  # members for the next chunk
        self._owing: set[int] = set()  # the choices that have such members
        self._endings: dict[int, dict[str, Any]] = {}  # finished choices; members for the chunk
        self._waiting = False  # whether anything at all waits for a chunk
        self._usage: Usage | None = None
        self._raw_usage: dict[str, Any] = {}

    def encode(self, events: list[Event]) -> bytes:
        """See `Encoder.encode`."""
        out: list[bytes] = []
        for event in events:
            if (
                type(event) is PartDelta
                and (around := self._parts[event.item, event.part].around) is not None
                and event.extra is None
                and event.logprobs is None
                and not self._waiting
            ):
                if event.text:
                    out += around[0], dumps(event.text), around[1]
            else:
                self._encode(event, out)
        return b"".join(out)

    def beat(self) -> bytes:
        """See `Encoder.beat`. A comment: chat clients know no event without meaning."""
        out: list[bytes] = []
        self._begin(0, {}, out)
        return b"".join(out) + COMMENT_BEAT

    def _encode(self, event: Event, out: list[bytes]) -> None:
        patch = patch_of(event)
        if patch:
            self._absorb(patch, out)
        match event:
            case PartDelta():
                self._grow(event, patch, out)
            case Started():
                self._start(event)
            case ItemStarted():
                self._items[event.item] = _Item(event)
            case PartStarted():
                self._open(event, patch or {}, out)
            case Annotated():
                self._annotate(event, patch, out)
            case PartEnded():
                pass
            case ItemEnded():
                self._end_item(event, patch or {}, out)
            case Finished():
                choice = self._choice(event.choice)
                choice.pending["choice"] = native_reason(patch) | choice.pending["choice"]
                choice.finish = write_finish(event.reason, legacy=choice.legacy)
                self._endings[event.choice], self._pending = self._pending, {}
            case UsageReported():
                self._usage = merge_usage(self._usage, event.usage)
                self._raw_usage |= (patch or {}).get("usage", {})
            case Ended():
                self._end(out)
            case _:
                self._finish(out)
                out.append(encode_frame(dumps(render_error(in_stream(event.error), NAME))))

    # The stream.

    def _start(self, event: Started) -> None:
        if self._head:
            return  # we have begun already, before the upstream spoke
        own_id = event.id if event.extra and NAME in event.extra else ""
        self._head = {
            "id": own_id or f"chatcmpl-{self._identity.token}",
            "object": "chat.completion.chunk",
            "created": event.created or self._identity.created,
            "model": event.model or self._model,
        }

    def _finish(self, out: list[bytes]) -> None:
        """Write the chunks with the finish reasons, each with what its choice still has to say."""
        late, self._pending = self._pending, {}
        for index, members in self._endings.items():
            self._pending = members
            if index == next(reversed(self._endings)) and not self._reports:
                if _clash(members, late):
                    self._write(index, {}, out)
                self._pending |= late
            self._write(index, {}, out, finish=self._choice(index).finish)
        self._pending = late

    @property
    def _reports(self) -> bool:
        """Whether a chunk with the usage will follow."""
        return self._include_usage and self._usage is not None

    def _end(self, out: list[bytes]) -> None:
        self._finish(out)
        if self._include_usage and self._usage is not None:
            usage = write_usage(self._usage, self._raw_usage)
            chunk = {**self._head, **self._sticky, **self._pending, "choices": [], "usage": usage}
            out.append(encode_frame(dumps(chunk)))
        out.append(_END)

    def _absorb(self, patch: dict[str, Any], out: list[bytes]) -> None:
        """Keep what a patch says until there is a chunk that it can leave on."""
        self._make_room(patch, out)
        self._waiting = True
        for name, value in patch.get("chunk", {}).items():
            if name in STICKY:
                self._sticky[name] = value
                for part in self._framed:
                    part.around = None
                self._framed.clear()
            else:
                self._pending[name] = value
        if "index" in patch:
            self._owing.add(patch["index"])
            pending = self._choice(patch["index"]).pending
            for place in ("choice", "delta"):
                pending[place] |= patch.get(place, {})

    def _make_room(self, patch: dict[str, Any], out: list[bytes]) -> None:
        """Write what waits, if the patch says it anew."""
        index = patch.get("index", 0)
        waiting = {"chunk": self._pending, **self._choice(index).pending}
        if not any(_clash(members, patch.get(place, {})) for place, members in waiting.items()):
            return
        self._begin(index, {}, out)
        if self._pending or any(self._choice(index).pending.values()):
            self._write(index, {}, out)

    def _choice(self, index: int) -> _Choice:
        choice = self._choices.get(index)
        if choice is None:
            choice = self._choices[index] = _Choice()
        return choice

    def _begin(self, index: int, delta: dict[str, Any], out: list[bytes]) -> None:
        """Write the role, if it is not out yet; `delta` is what comes behind it."""
        choice = self._choice(index)
        if not choice.begun:
            choice.begun = True
            if index:
                self._begin(0, {}, out)
            content = None if delta.keys() & {"tool_calls", "function_call"} else ""
            role = {"role": "assistant", "content": content}
            record = {"index": index, "delta": role, "finish_reason": None}
            out.append(self._frame(record, self._pending))
            self._pending = {}

    def _write(
        self,
        index: int,
        delta: dict[str, Any],
        out: list[bytes],
        *,
        logprobs: dict[str, list[dict[str, Any]]] | None = None,
        finish: str | None = None,
    ) -> None:
        """Write one chunk of a choice, with everything that waits for one."""
        self._begin(index, delta, out)
        choice = self._choice(index)
        more, more_delta = choice.pending["choice"], choice.pending["delta"]
        choice.pending = {"choice": {}, "delta": {}}
        delta = {**more_delta, **delta}
        record = {"index": index, "delta": delta, "finish_reason": finish, **more}
        if logprobs or "logprobs" in more:
            record["logprobs"] = write_logprobs(logprobs or {}, more.get("logprobs"))
        out.append(self._frame(record, self._pending))
        self._pending = {}
        self._owing.discard(index)
        self._waiting = bool(self._owing)

    def _frame(self, record: dict[str, Any], members: dict[str, Any]) -> bytes:
        chunk = {**self._head, **self._sticky, **members, "choices": [record]}
        if self._include_usage:
            chunk["usage"] = None
        return encode_frame(dumps(chunk))

    # Items and parts.

    def _place(self, item: _Item) -> None:
        choice = self._choice(item.choice)
        if self._legacy and not choice.legacy:
            choice.legacy = True
        else:
            item.place = choice.calls
            choice.calls += 1

    def _tell(self, item: _Item, *, custom: bool, out: list[bytes]) -> None:
        """Write the first delta of a tool call: the only one with id, type and name."""
        start = item.start
        if item.place is None:
            delta: dict[str, Any] = {"function_call": {"name": start.name, "arguments": ""}}
        else:
            more = (patch_of(start) or {}).get("call", {})
            taken = self._choice(item.choice).call_ids
            call_id = distinct_id(start.id, taken, self._identity.token, start.item)
            call = write_call(call_id, start.name, "", custom=custom)
            delta = {"tool_calls": [patched({"index": item.place, **call}, more)]}
        self._write(item.choice, delta, out)

    def _open(self, event: PartStarted, patch: dict[str, Any], out: list[bytes]) -> None:
        item = self._items[event.item]
        part = self._parts[event.item, event.part] = _Part(item)
        if item.start.kind == "tool_call":
            self._place(item)  # not before: clients count the calls as they are told
            part.custom = event.kind == "input"
            self._tell(item, custom=part.custom, out=out)
            return
        part.field = FIELDS[event.kind]
        part.twice = bool(patch.get("reasoning"))

    def _grow(self, event: PartDelta, patch: dict[str, Any] | None, out: list[bytes]) -> None:
        part = self._parts[event.item, event.part]
        item, text = part.item, event.text
        if text and part.field and not part.spoke:
            part.spoke = True
            text = self._lead(part) + text
        delta = part.delta(text)
        if patch and "call" in patch and item.place is not None:
            delta["tool_calls"][0] = patched(delta["tool_calls"][0], patch["call"])
        elif not (text or event.logprobs or patch):
            return
        logprobs = {part.field: event.logprobs} if event.logprobs else None
        self._write(item.choice, delta, out, logprobs=logprobs)
        if text and not part.twice:
            record = {"index": item.choice, "delta": part.delta("\0"), "finish_reason": None}
            before, _, behind = self._frame(record, {}).rpartition(b'"\\u0000"')
            part.around = before, behind
            self._framed.append(part)

    def _lead(self, part: _Part) -> str:
        """What stands before the first text of a part: a gap, if its member has had text before."""
        said, item = self._choice(part.item.choice).said, part.item
        joined = item.start.kind == "message" if part.field in item.fields else item.continued
        lead = GAP if part.field in said and not joined else ""
        said.add(part.field)
        item.fields.add(part.field)
        return lead

    def _annotate(self, event: Annotated, patch: dict[str, Any] | None, out: list[bytes]) -> None:
        if event.kind == "citation":
            if (citation := write_citation(event.data, patch)) is not None:
                self._write(self._items[event.item].choice, {"annotations": [citation]}, out)
        elif patch and "index" in patch and self._choice(patch["index"]).finish is None:
            self._write(patch["index"], {}, out)

    def _end_item(self, event: ItemEnded, patch: dict[str, Any], out: list[bytes]) -> None:
        item = self._items[event.item]
        if event.sealed is not None:
            choice = self._choice(item.choice)
            sealed = write_sealed(event.sealed, item.start.id, choice.sealed, patch)
            choice.sealed += 1
            self._write(item.choice, {"reasoning_details": [sealed]}, out)


def _clash(waiting: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether something that waits would be lost to another word for it."""
    return any(
        name in waiting and waiting[name] != new[name] and name != "obfuscation" for name in new
    )
