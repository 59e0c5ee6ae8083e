"""A batch that meets no other is carried through the stages by hand, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from nursling.engine.errors import InternalError
from nursling.engine.events import Ended, Event, Failed, Finished, PartDelta
from nursling.engine.pipeline import BATCHES, Lane, Target, open_reply
from support.toy import REQUEST, Script, ToyFormat, line, opening, words


END = line(Finished(0, "stop"), Ended())


class Awake(trio.abc.Instrument):
    """Counts how often a task runs."""

    def __init__(self) -> None:
        self.task = trio.lowlevel.current_task()
        self.steps = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.steps += task is self.task


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, PartDelta))


async def told(
    upstream: Script, answer: Callable[[list[Event]], list[Event] | None]
) -> tuple[str, str, int]:
    """What a taker was given, what `receive` brought, and how often its task ran meanwhile."""
    taken: list[Event] = []
    got: list[Event] = []

    def take(batch: list[Event]) -> list[Event] | None:
        taken.extend(batch)
        return answer(batch)

    async with open_reply(
        REQUEST, Target(upstream=upstream, format=ToyFormat(), model="m")
    ) as reply:
        got += await reply.commit()
        reply.hand_to(take)
        awake = Awake()
        trio.lowlevel.add_instrument(awake)
        while not reply.over:
            got += await reply.receive()
        trio.lowlevel.remove_instrument(awake)
        assert reply.message.text == "abcd"
    assert upstream.open_now == 0
    return text_of(taken), text_of(got), awake.steps


def paced() -> Script:
    """Four words, a second apart, and an end."""
    steps = [step for word in "bcd" for step in (1.0, line(*words(word)))]
    return Script(line(*opening(), *words("a")), *steps, 1.0, END)


async def test_a_taker_has_what_comes_while_receive_waits(autojump_clock: MockClock) -> None:
    """Batches reach the taker in order, `receive` returns the last one; its task wakes once."""
    assert await told(paced(), lambda _batch: None) == ("bcd", "a", 1)


async def test_what_a_taker_gives_back_wakes_the_task(autojump_clock: MockClock) -> None:
    """A batch that is given back is received; `[]` stands for waiting that is left to do."""
    assert await told(paced(), lambda batch: batch) == ("bcd", "abcd", 4)
    assert await told(paced(), lambda _batch: []) == ("bcd", "a", 4)


async def test_a_taker_never_has_the_last_batch(autojump_clock: MockClock) -> None:
    """The end is received, also a bad one that comes with words in one read."""
    upstream = Script(line(*opening(), *words("a")), 1.0, line(*words("bcd")), b"{")
    taken: list[Event] = []
    async with open_reply(
        REQUEST, Target(upstream=upstream, format=ToyFormat(), model="m")
    ) as reply:
        await reply.commit()
        reply.hand_to(taken.extend)
        last = await reply.receive()
    assert isinstance(last[-1], Failed)
    assert not any(isinstance(event, Failed) for event in taken)


async def test_a_busy_reader_is_not_overtaken(autojump_clock: MockClock) -> None:
    """What comes while the reader does something else waits for it, in order, and bounded."""
    upstream = Script(
        line(*opening(), *words("a")), *[line(*words(char)) for char in "bcdefghij"], END
    )
    order = ""
    async with open_reply(
        REQUEST, Target(upstream=upstream, format=ToyFormat(), model="m")
    ) as reply:

        def take(batch: list[Event]) -> None:
            nonlocal order
            order += text_of(batch)

        order += text_of(await reply.commit())
        reply.hand_to(take)
        while not reply.over:
            await trio.sleep(1)
            order += text_of(await reply.receive())
    assert order == "abcdefghij"


async def test_a_bug_in_a_taker_is_this_replys_failure(autojump_clock: MockClock) -> None:
    """A taker that breaks its promise and raises ends the reply, and nothing else."""

    def take(_batch: list[Event]) -> None:
        raise RuntimeError

    upstream = paced()
    async with open_reply(
        REQUEST, Target(upstream=upstream, format=ToyFormat(), model="m")
    ) as reply:
        await reply.commit()
        reply.hand_to(take)
        assert isinstance((await reply.receive())[-1], Failed)
        assert isinstance(reply.error, InternalError)
    assert upstream.open_now == 0


async def test_a_lane_is_a_fair_bounded_channel(autojump_clock: MockClock) -> None:
    """Without a step it holds a few batches, makes senders wait, and lets others run."""
    lane = Lane()
    for _ in range(BATCHES):
        assert lane.pass_on(words("x"))
    assert not lane.pass_on(words("y"))
    with trio.testing.assert_checkpoints():
        await lane.receive()
    with trio.move_on_after(0) as scope:
        await lane.receive()
    assert scope.cancelled_caught
    assert len(await lane.receive()) == 1  # the cancelled one has taken nothing


@pytest.mark.parametrize("offered", [True, False])
async def test_a_lane_that_is_not_waited_for_calls_no_step(
    offered: bool, autojump_clock: MockClock
) -> None:
    """The step is the receiver's: it is called while that waits, and never beside it."""
    lane = Lane()
    calls: list[list[Event]] = []
    lane.step = calls.append
    if offered:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lane.receive)
            await trio.testing.wait_all_tasks_blocked()
            assert lane.pass_on(words("x"))
            assert lane.free
            nursery.cancel_scope.cancel()
    else:
        assert lane.pass_on(words("x"))
    assert bool(calls) is offered
    assert not lane.free
