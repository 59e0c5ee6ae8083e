"""The line between the parent and a worker: messages, descriptors, and its end."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing

from nursling.transports.line import CLOSED, CONNECTION, READY, STOP, Line


@contextmanager
def lines() -> Iterator[tuple[Line, Line]]:
    one, other = socket.socketpair()
    with Line(one) as ours, Line(other) as theirs:
        yield ours, theirs


async def test_messages_come_in_order_and_one_by_one_if_wanted() -> None:
    """A worker reads each order by itself; a parent reads what there is."""
    with trio.fail_after(10), lines() as (ours, theirs):
        assert ours.send_now(READY) == 1
        await ours.send(STOP)
        assert await theirs.receive() == (READY, [])
        assert await theirs.receive() == (STOP, [])
        assert ours.send_now(CLOSED * 3) == 3
        assert await theirs.receive(100) == (CLOSED * 3, [])


async def test_a_descriptor_comes_with_its_own_message() -> None:
    """Between plain messages it arrives with the one that it was sent with, and does not leak."""
    with trio.fail_after(10), lines() as (ours, theirs):
        end, written = os.pipe()
        ours.send_now(READY)
        ours.send_now(CONNECTION, [written])
        ours.send_now(STOP)
        os.close(written)
        assert await theirs.receive() == (READY, [])
        message, (came,) = await theirs.receive()
        assert message == CONNECTION
        os.write(came, b"hello")
        os.close(came)
        assert os.read(end, 10) == b"hello"
        assert os.read(end, 10) == b""  # no other copy is left
        os.close(end)
        assert await theirs.receive() == (STOP, [])


async def test_descriptors_are_those_of_the_last_message_of_a_read() -> None:
    """Plain messages before it are read with it, what is behind it is not."""
    with trio.fail_after(10), lines() as (ours, theirs):
        ours.send_now(CLOSED)
        ours.send_now(CONNECTION, [0])
        ours.send_now(STOP)
        read = b""
        while CONNECTION not in read:
            more, came = await theirs.receive(100)
            read += more
        assert read == CLOSED + CONNECTION
        assert len(came) == 1
        os.close(came[0])
        assert await theirs.receive(100) == (STOP, [])


async def test_who_reads_waits_and_hears_of_the_end() -> None:
    """A reader that waits gets what comes later, then `b""`, also when it left messages unread."""
    with trio.fail_after(10), lines() as (ours, theirs):
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                assert await theirs.receive() == (STOP, [])
                assert await theirs.receive() == (b"", [])

            nursery.start_soon(read)
            await trio.testing.wait_all_tasks_blocked()
            ours.send_now(STOP)
            await trio.testing.wait_all_tasks_blocked()
            theirs.send_now(READY)
            ours.close()
        with pytest.raises(OSError, match="Broken pipe"):
            theirs.send_now(READY)


async def test_a_full_line_says_so_and_has_room_again() -> None:
    """Nothing blocks: who sends now is told that there is no room; who can wait, waits."""
    with trio.fail_after(10), lines() as (ours, theirs):
        sent = 0
        while ours.send_now(CONNECTION, [0]):
            sent += 1
        assert sent > 50
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.send, STOP)
            await trio.testing.wait_all_tasks_blocked()
            for _ in range(sent):
                message, came = await theirs.receive()
                assert message == CONNECTION
                os.close(came[0])
            assert await theirs.receive() == (STOP, [])
