"""One reply, as a pipeline that one nursery owns.

    source ──bytes──▶ decode ══▶ normalize ══▶ whoever asked

The law of this file: everything that a request starts ends with its nursery, and what leaves the
nursery is one event list or one exception, never a group. `══` are lanes: memory channels of a few
batches; a batch is what one read of the upstream brought. So a slow reader at the end stops the
reads at the beginning, and memory stays flat. A batch that meets no other on its way is carried
through the stages by hand (`Lane.step`): waking a task costs more than all the work on a token.

Clocks (`limits.py` has the numbers, `patience.py` the rules). One cancel scope around the
conversation with the upstream carries them all; its deadline moves. `connect` belongs to the
upstream object.

Failures. A stage never raises: what goes wrong is a `Failed` behind the events that were good, and
the upstream is released before it is passed on. Which error wins: the upstream's own words, then
ours about the upstream, then a bug of ours (`InternalError`, with the bug as its cause). Of two
stages that fail, the one whose failure stands first in the stream; the other is in its context.
An exception or a cancellation of the program around us passes through as it is.

This is the one file of the engine that knows Trio.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

import msgspec
import trio

from .accumulate import Accumulator, FinishedReply
from .blame import came_second, concealed, the_one
from .errors import (
    ErrorInfo,
    LocalProtocolError,
    NurslingError,
    UpstreamRefused,
    concerning,
    error_from,
)
from .events import Ended, Event, Failed, is_meaningful
from .formats.base import Call, Format
from .grammar import Grammar
from .limits import DEFAULT_LIMITS, Limits
from .patience import Patience
from .request import Request
from .stops import Scissors


BATCHES = 2
"""Batches that a channel holds. Enough to let the stages overlap; the cost per hop does not depend
on it (measured), memory does."""


class Source(Protocol):
    """One answer of an upstream, from its status on."""

    @property
    def status(self) -> int:
        """The HTTP status, or its equivalent."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers, names in lower case."""
        ...

    async def read_some(self) -> bytes:
        """Return what one read brings; `b""` at the clean end.

        Raises `Truncated` if the connection broke or the body is shorter than it said.
        """
        ...


class Upstream(Protocol):
    """Something that answers requests."""

    def open(
        self, body: dict[str, Any], *, path: str, stream: bool
    ) -> AbstractAsyncContextManager[Source]:
        """Send a request; enter with the head of the answer, whatever its status.

        `path` is that of the format (`/chat/completions`). Leaving closes the connection, or
        gives it back if the answer was read to its end; shielded, with a deadline.
        Raises `ConnectFailed` or `ConnectTimeout`; `Truncated`, `RemoteProtocolError` or another
        `UpstreamError` if there is no answer, or none that could be read.
        """
        ...


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request goes, and how that place wants to be asked."""

    upstream: Upstream
    format: Format
    model: str
    """The model's name there."""
    provider: str = ""
    """For logs and headers."""
    limits: Limits = DEFAULT_LIMITS
    fold: bool = False
    """Ask for a stream even if the client wants a whole reply (long silent answers)."""
    include_usage: bool = True
    preface: str | None = None
    """Words to the model before everything else, such as `[Model: what it is]`."""
    conceal: Callable[[str], str] = str
    """Hides this target's secrets in what its upstream says of an error: some quote the key."""


class Reply:
    """A live reply. Made by `open_reply`, of use inside its `async with` only.

    Read it either event by event (`async for event in reply`, which raises what went wrong) or by
    batches (`commit`, then `receive`, where a failure is the last event).
    """

    def __init__(self, request: Request, target: Target) -> None:
        self.request = request
        self.target = target
        self.streamed = request.stream or target.fold
        """Whether the upstream is asked for a stream."""
        rendered = target.format.render_request(
            request,
            Call(
                model=target.model,
                stream=self.streamed,
                include_usage=target.include_usage,
                preface=target.preface,
            ),
        )
        self.dropped = rendered.dropped
        """Fields of the request that the upstream's format cannot say, by their wire names."""
        self.headers: dict[str, str] = {}
        """Headers of the upstream's answer that concern the caller. Empty until it answered."""
        self.error: NurslingError | None = None
        """What went wrong, once it has."""
        self._body = rendered.body
        self._scissors = Scissors(rendered.stop) if rendered.stop else None
        self._accumulator = Accumulator(target.limits.max_reply_bytes)
        self._conversation = trio.CancelScope()
        self._ready: deque[Event] = deque()
        self._settled = False  # the second stage has had the last word
        self._over = False
        self._lane = Lane()

    @property
    def message(self) -> FinishedReply:
        """What has come so far; the finished message at the end."""
        return self._accumulator.reply

    @property
    def over(self) -> bool:
        """Whether the last event has been received."""
        return self._over

    async def commit(
        self,
        timeout: float = math.inf,  # noqa: ASYNC109 - at its end this returns what has come
    ) -> list[Event]:
        """Hold back until there is something to say: return the first events, news among them.

        After `timeout` seconds without news, returns the handshake events that have come, perhaps
        none: the caller commits itself then. Raises the failure if the reply fails before any
        news, so that it can still become a true HTTP status.
        """
        held: list[Event] = []
        with trio.move_on_after(timeout):
            while True:
                batch = await self.receive()
                held += batch
                if any(is_meaningful(event) for event in batch):
                    break
        first_news = next((event for event in held if is_meaningful(event)), None)
        if isinstance(first_news, Failed):
            raise self._failure(first_news)
        return held

    async def receive(self) -> list[Event]:
        """Return the next batch. The last one ends with `Ended` or `Failed`; after it, `[]`.

        Cancelling loses nothing. Raises `LocalProtocolError` outside the `async with`.
        """
        if self._over:
            return []
        try:
            batch = await self._lane.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise LocalProtocolError("this reply is closed") from None
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            while True:
                batch += self._lane.receiving.receive_nowait()
        self._over = bool(batch) and isinstance(batch[-1], Ended | Failed)
        return batch

    def hand_to(self, taker: Callable[[list[Event]], list[Event] | None]) -> None:
        """Let `taker` have batches without waking the task that waits in `receive`.

        It is called instead, by a stage of the pipeline, with every batch but the last. It must not
        raise, and cannot wait. It returns None if all is done, else what `receive` is to return:
        the batch, if it did nothing with it, or `[]` if only the waiting is left to do.
        """

        def step(batch: list[Event]) -> list[Event] | None:
            return batch if isinstance(batch[-1], Ended | Failed) else taker(batch)

        self._lane.step = step

    def close(self) -> None:
        """Let go of the lane: from now on `receive` raises."""
        self._lane.close()

    def __aiter__(self) -> Reply:
        return self

    async def __anext__(self) -> Event:
        """Return the next event; raise what went wrong instead of a `Failed`."""
        while not self._ready:
            batch = await self.receive()
            if not batch:
                raise StopAsyncIteration
            self._ready.extend(batch)
        event = self._ready.popleft()
        if isinstance(event, Failed):
            raise self._failure(event)
        return event

    def _failure(self, event: Failed) -> NurslingError:
        if self.error is None:
            self.error = error_from(event.error)
        return self.error

    def start(self, nursery: trio.Nursery) -> None:
        """Start the stages."""
        lane = Lane()
        nursery.start_soon(self._decode, lane)
        nursery.start_soon(self._normalize, lane, self._lane)

    # The stages.

    async def _decode(self, out: Lane) -> None:
        """First stage: talk to the upstream; pass on a batch of events per read."""
        last: list[Event]
        with out.sending:
            try:
                last = await self._converse(out)
            except Exception as error:  # noqa: BLE001 - a bug here is this reply's failure only
                if self._settled:
                    came_second(self.error, error)
                    return
                self.error = the_one(error)
                last = [Failed(self.error.info())]
            if last:
                await out.send(last)

    async def _converse(self, out: Lane) -> list[Event]:
        """Hold the conversation; return the events that end it, unless they were sent already."""
        limits = self.target.limits
        decoder = self.target.format.decoder(self.request, limits)
        now = trio.current_time()
        patience = Patience(limits, streamed=self.streamed, now=now)
        scope = self._conversation
        scope.deadline = patience.due(now)
        with scope:
            async with self.target.upstream.open(
                self._body, path=self.target.format.path, stream=self.streamed
            ) as source:
                self.headers = concerning(source.headers)
                if not 200 <= source.status < 300:
                    raise UpstreamRefused(await self._read_error(source))
                began, now = now, trio.current_time()
                patience.waited(now - began)
                while True:
                    due = patience.due(now, scope.deadline)
                    if due != scope.deadline:
                        scope.deadline = due
                    data = await source.read_some()
                    began, now = now, trio.current_time()
                    patience.waited(now - began)
                    events = decoder.feed(data) if data else decoder.close()
                    patience.finished(decoder.finished)
                    if not events:
                        continue
                    if any(is_meaningful(event) for event in events):
                        patience.heard()
                    if isinstance(events[-1], Failed):
                        return events
                    if not out.pass_on(events):
                        scope.deadline = patience.end  # it is our reader that we wait for
                        await out.send(events)
                        now = trio.current_time()
                    if isinstance(events[-1], Ended):
                        return await self._read_to_end(source)
        if self._settled:
            return []
        error = patience.error(trio.current_time())
        if error is not None:
            raise error
        return decoder.close()

    def _settle(self) -> None:
        """The reply is decided: whatever the upstream still says does not matter."""
        self._settled = True
        self._conversation.cancel()

    async def _read_error(self, source: Source) -> ErrorInfo:
        """Read an error answer, bounded in bytes and time (an endless one: litellm#27310)."""
        limits = self.target.limits
        text = b""
        with trio.move_on_after(limits.connect_timeout):
            try:
                while len(text) < limits.max_error_bytes:
                    data = await source.read_some()
                    if not data:
                        break
                    text += data
            except NurslingError:
                pass  # the status is the news; a cut body is still worth quoting
        text = text[: limits.max_error_bytes]
        info = self.target.format.read_error(source.status, source.headers, text)
        info.headers = self.headers | info.headers
        return concealed(info, self.target.conceal)

    async def _read_to_end(self, source: Source) -> list[Event]:
        """Let the HTTP body end, so that its connection can be used again."""
        with trio.move_on_after(self.target.limits.reuse_grace):
            try:
                while await source.read_some():
                    pass
            except NurslingError:
                pass  # the reply is whole; only its connection is lost
        return []

    async def _normalize(self, source: Lane, out: Lane) -> None:
        """Second stage: hold events to the grammar and fold them."""
        grammar = Grammar()

        def step(batch: list[Event]) -> list[Event] | None:
            if not out.free:
                return batch
            legal = self._hold_to(grammar, batch)
            if legal:
                out.pass_on(legal)
            return None

        source.step = step
        with source.receiving, out.sending, suppress(trio.EndOfChannel):
            while True:
                legal = self._hold_to(grammar, await source.receive())
                if legal and not out.pass_on(legal):
                    await out.send(legal)

    def _hold_to(self, grammar: Grammar, batch: list[Event]) -> list[Event]:
        """Return what the grammar makes of a batch, folded; a failure of ours ends it."""
        if self._settled:
            return []  # until the first stage has noticed
        legal: list[Event] = []
        failure: NurslingError | None = None
        try:
            if self._scissors is not None:
                batch = self._scissors.cut(batch)
            if batch and isinstance(batch[-1], Failed):
                batch[-1].error = concealed(batch[-1].error, self.target.conceal)
            for event in batch:
                grammar.take(event, legal)
        except Exception as error:  # noqa: BLE001 - a bug here is this reply's failure only
            failure = the_one(error)
        try:
            self._accumulator.add(legal)
        except Exception as error:  # noqa: BLE001 - as above
            failure = failure or the_one(error)
        if failure is not None:
            came_second(failure, self.error)
            self.error = failure
            legal = [event for event in legal if not isinstance(event, Ended | Failed)]
            legal.append(Failed(failure.info()))
            self.message.error = failure.info()
            self._settle()
        if self._scissors is not None and self._scissors.over:
            self._settle()
        return legal


@asynccontextmanager
async def open_reply(request: Request, target: Target) -> AsyncGenerator[Reply, None]:
    """Ask `target`, and hold the reply open for the body of the `async with`.

    Leaving closes the upstream: at once if the reply is not over, else as soon as its connection
    is fit for use again (`reuse_grace`).
    Raises `BadRequest` or `NotSupported` at once if the target's format cannot say the request.
    An exception of the body passes through as it is, and so does a cancellation from outside.
    """
    reply = Reply(request, target)
    body = Witness()
    outcome: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            reply.start(nursery)
            with body:
                yield reply
            if not reply.over:
                nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        # The stages raise nothing, so beside cancellations this is the body's one exception.
        outcome = body.error or group.exceptions[0]
    finally:
        reply.close()
    if outcome is not None:
        raise outcome


class Lane:
    """What joins two stages: a memory channel of batches, and a short cut past it.

    A batch that finds its receiver waiting has nothing before it. It is given to `step`, the
    receiver's own work, here and now instead of at the scheduler's next pass; what `step` returns
    is what the receiver is woken with, unless it is None.
    """

    def __init__(self) -> None:
        self.sending, self.receiving = trio.open_memory_channel[list[Event]](BATCHES)
        self.step: Callable[[list[Event]], list[Event] | None] | None = None
        self.free = False
        """Whether the receiver waits: `pass_on` will find room."""

    def pass_on(self, batch: list[Event]) -> bool:
        """Send without waiting; False if there is no room."""
        if self.free and self.step is not None:
            rest = self.step(batch)
            if rest is None:
                return True
            batch = rest
        try:
            self.sending.send_nowait(batch)
        except trio.WouldBlock:
            return False
        self.free = False
        return True

    async def send(self, batch: list[Event]) -> None:
        """Send, when there is room."""
        self.free = False
        await self.sending.send(batch)

    async def receive(self) -> list[Event]:
        """Return the next batch. Raises `trio.EndOfChannel` behind the last one."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            batch = self.receiving.receive_nowait()
        except trio.WouldBlock:
            self.free = True  # from here to the sender's call no other task runs
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return batch
        try:
            return await self.receiving.receive()
        finally:
            self.free = False

    def close(self) -> None:
        """Let go of both ends, and of whoever has made the step: it may well know us."""
        self.sending.close()
        self.receiving.close()
        self.step = None


class Witness:
    """Remembers with which exception a block was left: Trio rebuilds groups that pass a nursery."""

    def __init__(self) -> None:
        self.error: BaseException | None = None

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.error = error
