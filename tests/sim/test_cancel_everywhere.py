"""A request is cancelled at every step that it takes, and nothing of it is left.

Twelve requests, each played again and again: at the k-th step of the scheduler its client resets
the connection, the program that embeds the engine cancels it, or the gateway's drain is over, for
every k from the first step to the last. After each there is no task, no slot, no connection; what
was admitted is recorded, and who is still there to listen has heard an honest end.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import trio

from nursling.engine.errors import NurslingError
from nursling.engine.limits import KIB, Limits
from sim.content import Content
from sim.draw import Ask, Deal, Guest, Script, Upset, progress
from sim.net import Chance
from sim.world import World
from support.scripted import Api, ChatReply, Json, ResponsesReply


CHAT = ChatReply(({"content": "One, two, three."},), piece=6)
RESPONSES = ResponsesReply(
    (
        {
            "type": "message",
            "id": "msg_up",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "One, two.", "annotations": [], "logprobs": []}
            ],
        },
    ),
    piece=5,
)
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "look_up", "arguments": '{"of": "x"}'},
}
TOOL = ChatReply(({"content": "", "tool_calls": [CALL]},), finish="tool_calls")
TWO = ChatReply(({"content": "Heads."}, {"content": "Tails."}))
REFUSAL: tuple[int, bytes, dict[str, str]] = (
    500,
    b'{"error":{"message":"overheated","code":"hot"}}',
    {},
)


@dataclass
class TwoChoices(Ask):
    """A request for n = 2."""

    def body(self) -> Json:
        return {**super().body(), "n": 2}


def ask(
    api: Api,
    upstream: Api,
    *,
    stream: bool = True,
    reply: ChatReply | ResponsesReply | None = None,
    upset: Upset = "",
    kind: type[Ask] = Ask,
) -> Ask:
    """Write a request down."""
    reply = reply or (CHAT if upstream == "chat" else RESPONSES)
    frames = [frame + b"\n\n" for frame in reply.stream().split(b"\n\n") if frame]
    script = Script(
        api=upstream,
        frames=frames,
        contents=progress(upstream, frames)
        if reply is not TWO
        else [Content()] * (len(frames) + 1),
        whole=reply.whole(),
        burst=2,
        waits=[0.0],
        upset=upset,
        place=0.5,
        status=REFUSAL,
        framing="chunked",
        other_way=False,
        keep_alive=True,
    )
    return kind(
        tag="t",
        api=api,
        model=upstream,
        stream=stream,
        script=script,
        manner="aborts",
        wait=0.0,
        leave_after=1000.0,
        stuck_after=0,
        says_close=False,
    )


REQUESTS: dict[str, Ask] = {
    f"{api} to {upstream}, {'streamed' if stream else 'whole'}": ask(api, upstream, stream=stream)
    for api in ("chat", "responses")
    for upstream in ("chat", "responses")
    for stream in (True, False)
} | {
    "a streamed tool call": ask("responses", "chat", reply=TOOL),
    "two choices": ask("chat", "chat", reply=TWO, kind=TwoChoices),
    "an error before the first byte": ask("chat", "responses", upset="status"),
    "a failure in mid-stream": ask("responses", "chat", upset="fin"),
}


class Calm(Chance):
    """No jitter: the steps that are counted are the request's own."""

    async def jitter(self) -> None:
        return


def world_of(request: Ask, kind: type[World] = World) -> World:
    guest = Guest(0, start=0.0, latency=0.0, capacity=16 * KIB, slice=65536, pause=0.1)
    guest.asks.append(request)
    plan = Deal(
        seed=0,
        limits=Limits(),
        caps={"chat": 0, "responses": 0},
        capacity=16 * KIB,
        latency=0.0,
        guests=[guest],
        stop_at=None,
    )
    world = kind(0, plan=plan)
    world.chance = Calm(random.Random(0))  # noqa: S311 - never drawn from
    return world


class Axe(trio.abc.Instrument):
    """Counts the scheduler's steps while the request lives, and strikes at one of them."""

    def __init__(self, world: World, at: int | None) -> None:
        self._world = world
        self._at = at
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        fate = self._world.fates["t"]
        client = getattr(self._world, "client", None)
        if client is None or client.end.closed_at is not None or fate.whole:
            return
        if self.steps == self._at:
            self.strike()
        self.steps += 1

    def strike(self) -> None:
        self._world.client.end.reset()


def check(world: World, *, admitted: bool) -> None:
    assert not world.failures, world.failures
    assert len(world.records) <= 1
    if admitted:
        assert len(world.records) == 1, "what an upstream was asked is not recorded"


@pytest.mark.slow
@pytest.mark.fault(39, "S")
@pytest.mark.parametrize("name", REQUESTS)
def test_a_client_leaves_at_every_step(name: str) -> None:
    """Whenever its client resets the connection, a request leaves nothing behind."""
    undisturbed = world_of(REQUESTS[name])
    count = Axe(undisturbed, None)
    undisturbed.run(count)
    assert undisturbed.fates["t"].whole
    assert count.steps > 30
    for step in range(count.steps):
        world = world_of(REQUESTS[name])
        world.give_verdicts = lambda: None  # type: ignore[method-assign]  # only what is left counts
        world.run(Axe(world, step))
        check(world, admitted=world.fates["t"].asked > 0)


class End(Axe):
    """Ends the drain: whatever is still open is told so."""

    def strike(self) -> None:
        self._world.engine.gate.end_streams()


def check_drained(name: str, steps: Iterable[int] | None = None) -> None:
    """Play a request once for each step, or those given; the judge hears what its client heard."""
    undisturbed = world_of(REQUESTS[name])
    count = End(undisturbed, None)
    undisturbed.run(count)
    for step in range(count.steps) if steps is None else steps:
        world = world_of(REQUESTS[name])
        world.deal.stop_at = 100.0  # it may be told that the gateway is stopping
        if name == "two choices":  # the judge follows the first one only
            world.give_verdicts = lambda: None  # type: ignore[method-assign]  # as above
        world.run(End(world, step))
        check(world, admitted=world.fates["t"].asked > 0)


@pytest.mark.slow
@pytest.mark.fault(40, "S")
@pytest.mark.parametrize("name", REQUESTS)
def test_the_drain_ends_at_every_step(name: str) -> None:
    """Whenever the drain is over, the client hears so in a sound stream, and nothing is left."""
    check_drained(name)


def test_the_drain_ends_at_the_last_words() -> None:
    """Words that the end of the drain overtakes leave no hole in the numbers of the events."""
    check_drained("responses to chat, streamed", range(60, 150))


class Embedded(World):
    """A world whose guests are no clients, but blocks of a program that embeds the engine."""

    def give_verdicts(self) -> None:
        return

    async def _visit(self, guest: Guest) -> None:
        self.scope = trio.CancelScope()
        self.over = False
        self.outcome: object = None
        with self.scope:
            try:
                async with self.engine.stream(guest.asks[0].body()) as reply:
                    async for _ in reply:
                        pass
                self.outcome = reply.message
            except NurslingError as error:
                self.outcome = error
        self.over = True


class Hook(Axe):
    """Cancels the embedding block."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        world: Any = self._world
        if not hasattr(world, "scope") or world.over:
            return
        if self.steps == self._at:
            world.scope.cancel()
        self.steps += 1


@pytest.mark.slow
@pytest.mark.fault(39, "S")
@pytest.mark.parametrize("name", REQUESTS)
def test_an_embedder_cancels_at_every_step(name: str) -> None:
    """Whenever the program around it cancels, a request leaves nothing behind."""
    undisturbed: Any = world_of(REQUESTS[name], Embedded)
    count = Hook(undisturbed, None)
    undisturbed.run(count)
    assert undisturbed.outcome is not None
    cancelled = 0
    for step in range(count.steps):
        world: Any = world_of(REQUESTS[name], Embedded)
        world.run(Hook(world, step))
        check(world, admitted=False)
        cancelled += world.scope.cancelled_caught
    assert cancelled >= 20


def test_one_in_seven() -> None:
    """A share of the same in the daily run: every seventh step of a streamed reply."""
    request = replace(REQUESTS["responses to chat, streamed"])
    for step in range(0, 150, 7):
        world = world_of(request)
        world.give_verdicts = lambda: None  # type: ignore[method-assign]  # as above
        world.run(Axe(world, step))
        check(world, admitted=world.fates["t"].asked > 0)
