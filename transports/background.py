"""A task beside a block: it begins with the block and never outlives it.

The law of this file: a nursery is an implementation detail. Trio rebuilds every exception that
passes one as a group; whoever uses a context manager of ours wrote no nursery, so the exception of
their block leaves as it is, and a cancellation passes through.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager

import trio

from nursling.engine.pipeline import Witness


@asynccontextmanager
async def beside(task: Callable[[], Awaitable[object]]) -> AsyncGenerator[None, None]:
    """Run `task` while the block runs, and cancel it at the block's end.

    A task that ends earlier is fine. One that raises cancels the block and is raised itself, unless
    the block has an exception of its own.
    """
    block = Witness()
    outcome: BaseException | None = None
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(task)
            with block:
                yield
            nursery.cancel_scope.cancel()
    except BaseExceptionGroup as group:
        outcome = block.error
        if outcome is None or isinstance(outcome, trio.Cancelled):
            outcome = _bug_of(group) or outcome or group
    if outcome is not None:
        raise outcome


def _bug_of(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Find what the task raised: what is left of the group without the cancellations."""
    _, rest = group.split(trio.Cancelled)
    return None if rest is None else rest.exceptions[0]
