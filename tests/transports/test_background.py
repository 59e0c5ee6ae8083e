"""A task beside a block: whose exception leaves, and that nothing outlives the block."""

from __future__ import annotations

import pytest
import trio

from nursling.transports.background import beside


class Endless:
    """A task without an end; it knows how it was left."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.gone = False

    async def __call__(self) -> None:
        self.started.set()
        try:
            await trio.sleep_forever()
        finally:
            self.gone = True


async def test_the_task_ends_with_the_block() -> None:
    """The end of the block cancels the task and waits for it."""
    task = Endless()
    async with beside(task):
        await task.started.wait()
        assert not task.gone
    assert task.gone


@pytest.mark.parametrize(
    "error",
    [KeyError("x"), ExceptionGroup("g", [KeyError("x")]), KeyboardInterrupt(), SystemExit()],
)
async def test_the_exception_of_the_block_leaves_as_it_is(error: BaseException) -> None:
    """The very object comes out: an error, a group of the block's own nursery, an interrupt."""
    task = Endless()

    async def block() -> None:
        async with beside(task):
            await task.started.wait()
            raise error

    with pytest.raises(type(error)) as caught:
        await block()
    assert caught.value is error
    assert task.gone


async def test_a_cancellation_passes_through() -> None:
    """A scope around the block ends it, and nothing is caught on the way."""
    task = Endless()
    with trio.CancelScope() as scope:
        async with beside(task):
            await task.started.wait()
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    assert task.gone


async def test_a_task_that_fails_ends_the_block() -> None:
    """A bug of the task is raised as it is, and the block does not go on without it."""
    bug = ValueError("bug")

    async def broken() -> None:
        raise bug

    block = Endless()

    async def beside_it() -> None:
        async with beside(broken):
            await block()

    with pytest.raises(ValueError, match="bug") as caught:
        await beside_it()
    assert caught.value is bug
    assert block.gone


async def test_a_task_may_end_first() -> None:
    """The block goes on when its task is done."""

    async def short() -> None:
        await trio.lowlevel.checkpoint()

    async with beside(short):
        for _ in range(5):
            await trio.lowlevel.checkpoint()
