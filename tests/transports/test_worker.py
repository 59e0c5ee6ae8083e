"""A worker's post by itself: connections, orders and metrics that come over its line."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from prometheus_client.parser import text_string_to_metric_families

from nursling.transports import worker
from nursling.transports.http.metrics import Metrics, merged
from nursling.transports.line import (
    ASK,
    CLOSED,
    CONNECTION,
    DRAINING,
    LEAVING,
    NOW,
    READY,
    REPORT,
    STOP,
    TAKEN,
    Line,
)
from nursling.transports.worker import WHOLE, WorkerPost


class Posted:
    def __init__(self, post: WorkerPost, parent: Line) -> None:
        self.post = post
        self.parent = parent
        self.stop = trio.Event()
        self.now = trio.Event()

    async def hear(self, count: int = 1) -> bytes:
        """What it says to its parent."""
        said = b""
        while len(said) < count:
            more, _ = await self.parent.receive(count - len(said))
            assert more
            said += more
        return said


@asynccontextmanager
async def posted(number: int = 1) -> AsyncGenerator[Posted, None]:
    ours, theirs = socket.socketpair()
    with trio.fail_after(20), Line(ours) as parent, Line(theirs) as line:
        made = Posted(WorkerPost(line, number), parent)
        async with trio.open_nursery() as nursery:
            await nursery.start(made.post.heed, made.stop, made.now)
            yield made
            nursery.cancel_scope.cancel()


def client_of(made: Posted) -> socket.socket:
    """The far end of a connection that the worker is given."""
    ours, theirs = socket.socketpair()
    with theirs:
        made.parent.send_now(CONNECTION, [theirs.fileno()])
    ours.settimeout(10)
    return ours


async def test_a_connection_is_taken_and_its_end_is_told() -> None:
    """It comes from the listener; the parent hears that it is taken, then that it is over."""
    async with posted() as made, made.post.accepting() as listener:
        made.post.ready()
        with client_of(made) as client:
            async with await listener.accept() as stream:
                await stream.send_all(b"hello")
                assert client.recv(5) == b"hello"
            made.post.closed()
            assert await made.hear(3) == READY + TAKEN + CLOSED


async def test_a_connection_that_has_no_room_is_over() -> None:
    """Without a descriptor (none were left) it is taken and closed, so that the counts hold."""
    async with posted() as made:
        made.parent.send_now(CONNECTION)
        assert await made.hear(2) == TAKEN + CLOSED


async def test_a_connection_behind_the_last_is_left_to_the_parent() -> None:
    """Where the server accepts no more, it is not taken, nor said to be closed."""
    async with posted() as made:
        async with made.post.accepting():
            pass
        assert await made.hear() == LEAVING
        with client_of(made):
            made.parent.send_now(STOP)
            await made.stop.wait()
            with trio.move_on_after(0.05) as silence:
                await made.hear()
            assert silence.cancelled_caught


@pytest.mark.parametrize(
    ("orders", "stop", "now"), [(STOP, True, False), (NOW, True, True), (STOP + NOW, True, True)]
)
async def test_orders_are_obeyed(orders: bytes, stop: bool, now: bool) -> None:
    """STOP is the first signal, NOW the second, also if it comes alone."""
    async with posted() as made:
        made.parent.send_now(orders)
        await (made.now if now else made.stop).wait()
        assert (made.stop.is_set(), made.now.is_set()) == (stop, now)


async def test_sigterm_is_told_once() -> None:
    """It drains this worker, so that the parent gives it nothing more; twice is the same."""
    async with posted() as made:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await made.stop.wait()
        await trio.testing.wait_all_tasks_blocked()
        made.post.closed()
        assert await made.hear(2) == DRAINING + CLOSED
        assert not made.now.is_set()


async def test_the_end_of_the_parent_is_a_stop() -> None:
    """What is said after it is said to nobody, and no harm done; metrics are our own."""
    async with posted() as made:
        made.parent.close()
        await made.stop.wait()
        made.post.closed()
        text = await made.post.metrics.of_all()
        assert b'nursling_streams_in_flight{worker="1"} 0.0\n' in text


async def test_words_that_find_no_room_are_said_later() -> None:
    """A line that is full for a while loses no count."""
    async with posted() as made:
        said = 0
        while not made.post._unsaid:
            made.post.closed()
            said += 1
        made.post.closed()
        await made.hear(said - 1)
        made.post.closed()
        assert await made.hear(3) == CLOSED * 3


async def test_metrics_are_written_to_who_asks() -> None:
    """A report is whole, and ends with the mark that says so; a reader that has gone is nothing."""
    async with posted() as made:
        for leave in (True, False):
            end, pipe = os.pipe()
            made.parent.send_now(REPORT, [pipe])
            os.close(pipe)
            if leave:
                os.close(end)
        async with trio.lowlevel.FdStream(end) as stream:
            text = b"".join([piece async for piece in stream])
        assert text == made.post.metrics.text() + WHOLE


async def test_metrics_of_the_others_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that answer are in the answer; who is cut, or late, is left out."""
    monkeypatch.setattr(worker, "REPORT_TIMEOUT", 0.3)
    texts: list[bytes] = []
    async with posted(0) as made, trio.open_nursery() as nursery:

        async def ask() -> None:
            texts.append(await made.post.metrics.of_all())

        nursery.start_soon(ask)
        message, (asker,) = await made.parent.receive()
        assert message == ASK
        pipes = [os.pipe() for _ in range(3)]
        with Line(socket.socket(fileno=asker)) as answer:
            answer.send_now(REPORT, [end for end, _ in pipes])
        for (end, pipe), number in zip(pipes, (1, 2, 3), strict=True):
            os.close(end)
            os.write(pipe, Metrics(number).text() + (WHOLE if number != 2 else b""))
            if number != 3:
                os.close(pipe)
    os.close(pipes[2][1])
    assert b'worker="0"' in texts[0]
    assert b'worker="1"' in texts[0]
    assert b'worker="2"' not in texts[0]
    assert b'worker="3"' not in texts[0]


def test_merged_metrics_are_one_text() -> None:
    """Prometheus's own parser reads it: each metric once, with the samples of every worker."""
    several = [Metrics(number) for number in range(3)]
    for number, metrics in enumerate(several):
        metrics.requests.labels("chat", "200").inc(number + 1)
        metrics.first_token.labels("chat").observe(0.3)
    text = merged([metrics.text() for metrics in several]).decode()
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len({*names})
    assert {"nursling_requests", "nursling_time_to_first_token_seconds"} <= {*names}
    samples = [sample for family in families for sample in family.samples]
    assert all("worker" in sample.labels for sample in samples)
    counts = {
        sample.labels["worker"]: sample.value
        for sample in samples
        if sample.name == "nursling_requests_total"
    }
    assert counts == {"0": 1.0, "1": 2.0, "2": 3.0}


def test_a_single_process_has_no_label() -> None:
    """Whoever has one process sees what was always there."""
    metrics = Metrics()
    metrics.requests.labels("chat", "200").inc()
    assert b'nursling_requests_total{route="chat",status="200"} 1.0\n' in metrics.text()
