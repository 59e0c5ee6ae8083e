"""One request of the API, from its body to the last byte of its answer.

The law of this file: nothing is sent before the commit. Up to there every failure, ours, the
client's or the upstream's, is an HTTP status with a JSON body; after it, an error inside the
stream, in the client's format. A bug is this request's failure and nothing else's. However it
ends, the end is recorded once, also when the client has left (`finally`), and never with a word of
a prompt or a completion.
"""

from __future__ import annotations

import re
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import trio

from nursling.engine.errors import Draining, ErrorInfo, InternalError, NurslingError, error_from
from nursling.engine.events import Event, Failed, ItemStarted, Started, is_meaningful
from nursling.engine.formats.base import Encoder, Format
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.limits import clock
from nursling.engine.pipeline import Reply, open_reply
from nursling.engine.request import Request

from .asgi import Incoming, Send
from .body import read_json
from .connection import Stamp
from .gateway import Gateway, Record
from .metrics import reason_of
from .out import Out


MAX_LOST = 32
"""Names of lost fields that a log line has."""

MAX_NAME = 64
"""Characters of such a name: an upstream chose it."""

MAX_DROPPED = 900
"""Characters of the header that lists dropped fields, before the rest is only counted."""

_PLACE = re.compile(r"\[\d+\]")
_PLAIN = "".join(map(chr, range(0x20, 0x7F))).translate({ord("%"): None, ord(","): None})
"""What stands for itself there: ASCII that is seen, but for the separator and the escape."""

STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache, no-transform",  # no-transform: compressing proxies would buffer
    "x-accel-buffering": "no",  # nginx
}


def printable(text: str) -> str:
    """Make a client's word fit for one line of a log: bounded, without control characters."""
    text = text[:256]
    return text if text.isprintable() else repr(text)


class Exchange:
    """One request and its answer. The `Runner` of an `Answer`."""

    def __init__(self, app: Gateway, form: Format, incoming: Incoming) -> None:
        self._app = app
        self._form = form
        self._incoming = incoming
        self._identity = app.new_identity()
        self._request: Request | None = None
        self._reply: Reply | None = None
        self._encoder: Encoder | None = None
        self._bug: Exception | None = None  # of `_tell_now`
        self._lost: set[str] = set()

    async def run(self, send: Send, stamp: Stamp) -> None:
        """Answer. A cancellation (the client has left) passes through, recorded."""
        self._stamp = stamp
        self._out = out = Out(send, stamp)
        self._record = Record(
            request_id=stamp.request_id, route=self._form.name, outcome="client_gone"
        )
        self._app.metrics.in_flight.inc()
        try:
            failure = await self._attempt()
            self._incoming.watch()  # also where the body was not wanted
            if failure is not None:
                self._record.outcome = reason_of(failure)
                await self._fail(failure)
            await out.end()
            if stamp.undelivered:
                self._record.outcome = "client_gone"
        finally:
            self._app.metrics.in_flight.dec()
            self._finish()

    async def _attempt(self) -> ErrorInfo | None:
        """Serve the request; return what went wrong and has not been told to the client."""
        try:
            # First, as everywhere: a foreign page learns nothing else, not even that we are full.
            self._app.screen(self._incoming.headers, self._incoming.scheme)
            with self._app.engine.gate.admit() as scope:
                await self._serve()
            if scope.cancelled_caught and self._record.outcome == "client_gone":
                return Draining("the gateway is stopping", headers={"retry-after": "1"}).info()
        except NurslingError as error:
            self._note_bug(error.__cause__)
            return error.info()
        except Exception as bug:  # noqa: BLE001 - a bug is this request's 500 and nothing else's
            self._note_bug(bug)
            return InternalError("an internal error of the gateway").info()
        return None

    async def _serve(self) -> None:
        app, record = self._app, self._record
        incoming = self._incoming
        record.key = app.keys.check(incoming.headers)
        with self._stamp.waiting():
            body = await read_json(incoming, app.engine.limits)
        incoming.watch()
        if self._form is RESPONSES:
            body = app.engine.recall.resolve(record.key, body)
        request = self._request = self._form.parse_request(body)
        record.model, record.stream = printable(request.model), request.stream
        target = app.engine.resolve(request.model)
        record.provider, record.upstream_format = target.provider, target.format.name
        async with open_reply(request, target) as reply:
            self._reply = reply
            await (self._stream if request.stream else self._whole)(request, reply)

    async def _stream(self, request: Request, reply: Reply) -> None:
        out = self._out
        beat = clock(self._app.engine.limits.heartbeat)
        with self._stamp.waiting():
            batch = await reply.commit(beat)
        await self._notice_leaving(reply)
        self._note(batch)
        encoder = self._encoder = self._form.encoder(request, self._identity)
        if not any(isinstance(event, Started) for event in batch):
            batch.insert(0, Started("", "", 0))  # we begin before the upstream does: under our id
        data = encoder.encode(batch)  # before the status: should it fail, there is a true one
        self._keep(reply)
        if not data or not any(is_meaningful(event) for event in batch):
            data += encoder.beat()  # a server may hold the headers until the body begins
        await out.start(200, STREAM_HEADERS | self._headers(reply))
        await out.write(data)
        if self._stamp.express is not None:
            reply.hand_to(self._tell_now)
        while not reply.over:
            with trio.CancelScope(deadline=out.spoke + beat) as silence:
                batch = await reply.receive()
            if self._bug is not None:
                raise self._bug
            if silence.cancelled_caught:
                if trio.current_time() >= out.spoke + beat:  # else `_tell_now` has spoken since
                    await out.write(encoder.beat())
            elif batch:
                await self._notice_leaving(reply)
                self._note(batch)
                data = encoder.encode(batch)
                self._keep(reply)
                await out.write(data)
            else:
                await out.flush()
        self._settle(reply, batch[-1])

    def _tell_now(self, batch: list[Event]) -> list[Event] | None:
        """Tell the client what needs no waiting, without waking the task that waits for a batch.

        See `Reply.hand_to`. A bug is left to that task: the pipeline is not at fault.
        """
        out, encoder = self._out, self._encoder
        if encoder is None or not out.free:
            return batch
        try:
            self._note(batch)
            data = encoder.encode(batch)
        except Exception as bug:  # noqa: BLE001 - raised where it belongs
            self._bug = bug
            return []
        return None if not data or out.write_now(data) else []

    async def _whole(self, request: Request, reply: Reply) -> None:
        with self._stamp.waiting():
            batch = await reply.commit()
            self._note(batch)
            while not reply.over:
                batch = await reply.receive()
                self._note(batch)
        if isinstance(batch[-1], Failed):
            raise reply.error or error_from(batch[-1].error)
        await self._notice_leaving(reply)
        body = self._form.render_reply(reply.message, request, self._identity)
        self._keep(reply, body)
        await self._out.json(200, body, self._headers(reply))
        self._settle(reply, batch[-1])

    def _keep(self, reply: Reply, body: dict[str, Any] | None = None) -> None:
        """Remember the items of a reply that has ended well, if it is we who gave them their ids.

        `body` is the reply as it leaves, if it leaves whole. A client that wants nothing stored
        (`store: false`) names nothing later.
        """
        recall, request = self._app.engine.recall, reply.request
        if not reply.over or not reply.message.complete or recall.off or request.store is False:
            return
        if self._form is RESPONSES and reply.target.format is not RESPONSES:
            whole = body or self._form.render_reply(reply.message, request, self._identity)
            recall.keep(self._record.key, whole)

    def _headers(self, reply: Reply) -> dict[str, str]:
        """Choose what the answer says beside its content."""
        if not reply.dropped:
            return reply.headers
        return reply.headers | {"x-nursling-dropped": grouped(reply.dropped)}

    async def _fail(self, failure: ErrorInfo) -> None:
        """Tell the client, in the way that is still open."""
        out = self._out
        if not out.started:
            await out.json(failure.status, self._form.render_error(failure), failure.headers)
        elif self._encoder is not None:
            try:
                words = self._encoder.encode([Failed(failure)])
            except Exception as bug:  # noqa: BLE001 - the encoder may be what is broken
                self._note_bug(bug)
                raise InternalError("a stream was cut: its encoder failed") from None
            await out.write(words)

    def _note(self, batch: list[Event]) -> None:
        record = self._record
        record.events += len(batch)
        if record.upstream_format != record.route:
            for event in batch:
                self._note_loss(event)
        if record.first_token is None and any(is_meaningful(event) for event in batch):
            record.first_token = self._stamp.elapsed

    def _note_loss(self, event: Event) -> None:
        """Remember by name what cannot leave in the client's format."""
        if len(self._lost) < MAX_LOST:
            self._lost.update(name[:MAX_NAME] for name in lost_of(event, self._form.name))

    async def _notice_leaving(self, reply: Reply) -> None:
        """Let a client that has left cancel us, if it is the last words that are to be written.

        Asked before the words are encoded: what has been encoded is written, as an encoder counts
        its events (the end of a drain cancels here too, and goes on to say so).
        """
        if not reply.over:
            return
        await trio.lowlevel.checkpoint()
        if self._stamp.express is None:  # in the first one the watcher takes `http.disconnect`
            await trio.lowlevel.checkpoint()

    def _settle(self, reply: Reply, last: Event) -> None:
        """Record the end that the client was told, good or bad: its words have been written.

        A client that leaves behind them has got everything, and many leave as soon as they have
        read the last event. What the connection did not take is `Stamp.undelivered`.
        """
        if reply.error is not None:
            self._note_bug(reply.error.__cause__)
        self._record.outcome = reason_of(last.error) if isinstance(last, Failed) else "ok"

    def _note_bug(self, bug: BaseException | None) -> None:
        """Keep where a bug was, not its message: that may quote what people wrote."""
        if bug is not None and self._record.bug is None:
            stack = "".join(traceback.format_tb(bug.__traceback__))
            self._record.bug = f"{type(bug).__qualname__}\n{stack}"

    def _finish(self) -> None:
        record, metrics, reply = self._record, self._app.metrics, self._reply
        record.status = self._stamp.status
        record.bytes_out = self._out.size
        record.duration = self._stamp.elapsed
        record.lost = sorted(self._lost)[:MAX_LOST] or None
        record.usage = reply.message.usage if reply is not None else None
        if reply is not None and reply.error is not None:
            record.detail = reply.error.detail or None
        metrics.ends.labels(record.outcome).inc()
        metrics.duration.labels(record.route).observe(record.duration)
        if record.first_token is not None:
            metrics.first_token.labels(record.route).observe(record.first_token)
        self._app.log(record)


def lost_of(event: Event, client: str) -> Iterator[str]:
    """Name what of an event cannot leave in the client's format, whose name is given."""
    if isinstance(event, ItemStarted) and event.kind == "opaque":
        yield event.name
    for name, fields in (event.extra or {}).items():
        if name != client:
            yield from names_in(fields)


def names_in(fields: dict[str, Any]) -> Iterator[str]:
    """Name what an extra holds, one level deep; numbers are places in the wire, and no words.

    What says nothing (null, a count of nothing, an empty list or object) is not named.
    """
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from (f"{name}.{inner}" for inner in value if _says(value[inner]))
        elif not isinstance(value, int):
            yield name


def _says(value: Any) -> bool:
    """Whether there is anything in a value. Nested as deep as its JSON may be, and no deeper."""
    if isinstance(value, dict):
        return any(map(_says, value.values()))
    return any(map(_says, value)) if isinstance(value, list) else bool(value)


def grouped(names: list[str]) -> str:
    """Write names of fields in one line: those that differ in their place only stand once.

    `tools[3] (web_search)`, or `input[] (web_search_call) x40`: a header has room for all. What a
    header cannot hold of a name, since its client chose it, is percent-encoded.
    """
    counts: Counter[str] = Counter(_PLACE.sub("[]", name) for name in names)
    alone = {_PLACE.sub("[]", name): name for name in names}
    words: list[str] = []
    size = 0
    for kind, count in counts.items():
        name = _written(alone[kind] if count == 1 else kind)
        words.append(name if count == 1 else f"{name} x{count}")
        size += len(words[-1]) + 2
        if size > MAX_DROPPED:
            words[-1] = f"and {len(counts) - len(words) + 1} more"
            break
    return ", ".join(words)


def _written(name: str) -> str:
    """Write one name for a header: cut, so that it hides no other one, and never empty.

    A server strips spaces at the ends of a value, so those of a name are percent-encoded.
    """
    if len(name) > MAX_NAME:
        name = name[:MAX_NAME] + "…"
    if not name:
        return '""'
    inner = name.strip(" ")
    start = name.index(inner) if inner else len(name)
    end = len(name) - start - len(inner)
    written = quote(inner, safe=_PLAIN, errors="backslashreplace")
    return "%20" * start + written + "%20" * end
