"""The pipeline in virtual time: every clock, every end, and nothing left behind."""

from __future__ import annotations

import math

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nursling.engine.blame import came_second
from nursling.engine.errors import (
    ConnectFailed,
    ErrorInfo,
    FirstEventTimeout,
    IdleTimeout,
    InternalError,
    LocalProtocolError,
    NurslingError,
    RemoteProtocolError,
    ReplyTooLarge,
    TotalTimeout,
    Truncated,
    UpstreamRefused,
    WholeTimeout,
)
from nursling.engine.events import (
    Ended,
    Event,
    Failed,
    Finished,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Reply, Target, open_reply
from nursling.engine.request import Request
from support.toy import HELLO, REQUEST, Script, Step, ToyFormat, line, opening, words


WHOLE = Request(model="m", items=[], stream=False)


def target(upstream: Script, *, fold: bool = False, **numbers: float) -> Target:
    limits = Limits(**numbers)  # type: ignore[arg-type]  # counts are given as ints
    return Target(upstream=upstream, format=ToyFormat(), model="there", limits=limits, fold=fold)


async def events_of(reply: Reply) -> list[Event]:
    got: list[Event] = []
    while batch := await reply.receive():
        got += batch
    return got


async def read(upstream: Script, request: Request = REQUEST, **numbers: float) -> list[Event]:
    async with open_reply(request, target(upstream, fold=False, **numbers)) as reply:
        got = await events_of(reply)
    assert upstream.open_now == 0
    return got


async def failure_of(
    upstream: Script, request: Request = REQUEST, **numbers: float
) -> NurslingError:
    async with open_reply(request, target(upstream, fold=False, **numbers)) as reply:
        with pytest.raises(NurslingError) as caught:
            async for _ in reply:
                pass
    assert upstream.open_now == 0
    return caught.value


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, PartDelta))


async def test_a_good_stream_arrives_whole(autojump_clock: MockClock) -> None:
    """A stream that ends well brings its events, its message, and its upstream is closed."""
    upstream = Script(HELLO)
    async with open_reply(REQUEST, target(upstream)) as reply:
        got = await events_of(reply)
        assert await reply.receive() == []
        assert reply.over
    assert text_of(got) == "hello"
    assert isinstance(got[-1], Ended)
    assert reply.message.text == "hello"
    assert reply.message.complete
    assert reply.dropped == ["seed"]
    assert upstream.asked == [{"model": "there", "stream": True}]
    assert upstream.open_now == 0


async def test_event_by_event(autojump_clock: MockClock) -> None:
    """Iterating gives single events and stops after the last one."""
    async with open_reply(REQUEST, target(Script(HELLO))) as reply:
        kinds = [type(event).__name__ async for event in reply]
    assert kinds[0] == "Started"
    assert kinds[-1] == "Ended"


async def test_one_read_is_one_batch(autojump_clock: MockClock) -> None:
    """What one read brings travels together; what comes later comes as a later batch."""
    upstream = Script(
        line(*opening(), *words("a", "b")), 1.0, line(*words("c"), Finished(0, "stop"), Ended())
    )
    async with open_reply(REQUEST, target(upstream)) as reply:
        assert text_of(await reply.receive()) == "ab"
        assert text_of(await reply.receive()) == "c"


async def test_fold_asks_for_a_stream(autojump_clock: MockClock) -> None:
    """`fold` asks the upstream for a stream although the client wants a whole reply."""
    upstream = Script(HELLO)
    async with open_reply(WHOLE, target(upstream, fold=True)) as reply:
        await events_of(reply)
    assert upstream.asked[0]["stream"] is True
    assert reply.message.text == "hello"


# Hold-back.


async def test_commit_waits_for_news(autojump_clock: MockClock) -> None:
    """The handshake alone does not commit: the first delta does, and nothing held is lost."""
    upstream = Script(
        line(*opening()), 5.0, line(*words("x")), 5.0, line(Finished(0, "stop"), Ended())
    )
    async with open_reply(REQUEST, target(upstream)) as reply:
        held = await reply.commit()
        assert trio.current_time() == pytest.approx(5.0)
        assert isinstance(held[0], Started)
        assert text_of(held) == "x"


async def test_commit_raises_a_failure_before_news(autojump_clock: MockClock) -> None:
    """A reply that fails before any news fails with its true status."""
    upstream = Script(line(*opening()), Truncated("cut"))
    async with open_reply(REQUEST, target(upstream)) as reply:
        with pytest.raises(Truncated):
            await reply.commit()


async def test_commit_hands_over_news_before_a_failure(autojump_clock: MockClock) -> None:
    """News and failure in one batch: the news counts, the failure is said in the stream."""
    upstream = Script(line(*opening(), *words("x"), Failed(ErrorInfo(message="no"))))
    async with open_reply(REQUEST, target(upstream)) as reply:
        held = await reply.commit()
    assert text_of(held) == "x"
    assert isinstance(held[-1], Failed)


async def test_commit_gives_up_holding_at_its_time(autojump_clock: MockClock) -> None:
    """At heartbeat time commit returns the handshake, or nothing; the stream goes on after it."""
    upstream = Script(20.0, line(*opening()), 20.0, line(*words("x"), Finished(0, "stop"), Ended()))
    async with open_reply(REQUEST, target(upstream)) as reply:
        assert await reply.commit(15) == []
        assert [type(event) for event in await reply.commit(15)] == [
            Started,
            ItemStarted,
            PartStarted,
        ]
        assert text_of(await reply.commit(15)) == "x"


# Clocks.


async def test_first_event_clock(autojump_clock: MockClock) -> None:
    """An upstream that never says anything fails with the first-event clock's own error."""
    upstream = Script(line(*opening()), math.inf)
    error = await failure_of(upstream, first_event_timeout=120)
    assert isinstance(error, FirstEventTimeout)
    assert error.status == 504
    assert upstream.closed_at == pytest.approx(120.0)


@pytest.mark.fault(8, "S")
async def test_first_event_clock_counts_the_head(autojump_clock: MockClock) -> None:
    """The wait for the head of the answer uses up the same patience."""
    upstream = Script(60.0, b"beat\n", 60.0, HELLO, before=[59.0])
    assert isinstance(await failure_of(upstream), FirstEventTimeout)
    assert upstream.closed_at == pytest.approx(120.0)


@pytest.mark.fault(10, "S")
@pytest.mark.fault(12, "S")
async def test_beats_do_not_renew_the_idle_clock(autojump_clock: MockClock) -> None:
    """A stalled generation kept alive by beats still ends at the idle clock (opencode#43519)."""
    beats = [step for _ in range(100) for step in (10.0, b"beat\n")]
    upstream = Script(line(*opening(), *words("x")), *beats)
    error = await failure_of(upstream, idle_timeout=120)
    assert isinstance(error, IdleTimeout)
    assert error.status == 504
    assert upstream.closed_at == pytest.approx(120.0)


@pytest.mark.fault(11, "S")
async def test_a_healthy_long_stream_is_not_cut(autojump_clock: MockClock) -> None:
    """Half an hour with news every 100 s passes: only two minutes without news cut."""
    steps = [step for _ in range(18) for step in (100.0, line(*words("x")))]
    got = await read(Script(line(*opening()), *steps, line(Finished(0, "stop"), Ended())))
    assert text_of(got) == "x" * 18


async def test_a_clock_can_be_off(autojump_clock: MockClock) -> None:
    """A clock of 0 never fires."""
    steps = (1e6, line(*opening(), *words("x")), 1e6, line(Finished(0, "stop"), Ended()))
    got = await read(Script(*steps), first_event_timeout=0, idle_timeout=0)
    assert text_of(got) == "x"


async def test_our_readers_slowness_does_not_count(autojump_clock: MockClock) -> None:
    """A client that holds us back for an hour does not make the upstream's idle clock fire."""
    many = [line(*words("x")) for _ in range(50)]
    upstream = Script(line(*opening()), *many, line(Finished(0, "stop"), Ended()))
    async with open_reply(REQUEST, target(upstream)) as reply:
        await reply.commit()
        await trio.sleep(3600)
        got = await events_of(reply)
    assert isinstance(got[-1], Ended)
    assert reply.message.text == "x" * 50


@pytest.mark.fault(12, "S")
async def test_total_clock(autojump_clock: MockClock) -> None:
    """The total clock cuts even a lively stream, with its own error."""
    steps = [step for _ in range(100) for step in (1.0, line(*words("x")))]
    upstream = Script(line(*opening()), *steps)
    error = await failure_of(upstream, total_timeout=30)
    assert isinstance(error, TotalTimeout)
    assert upstream.closed_at == pytest.approx(30.0)


async def test_total_clock_while_the_client_does_not_read(autojump_clock: MockClock) -> None:
    """The total clock releases the upstream even while the client holds us back."""
    upstream = Script(line(*opening()), *[line(*words("x"))] * 50, math.inf)
    async with open_reply(REQUEST, target(upstream, total_timeout=30)) as reply:
        await trio.sleep(100)
        assert upstream.closed_at == pytest.approx(30.0)
        got = await events_of(reply)
    assert isinstance(got[-1], Failed)
    assert got[-1].error.code == "total_timeout"


async def test_whole_clock(autojump_clock: MockClock) -> None:
    """A reply asked whole fails with its own clock's error."""
    upstream = Script(b"beat\n", math.inf)
    error = await failure_of(upstream, WHOLE, whole_timeout=120)
    assert isinstance(error, WholeTimeout)
    assert upstream.closed_at == pytest.approx(120.0)


@pytest.mark.fault(14, "S")
async def test_grace_after_the_finish_reason(autojump_clock: MockClock) -> None:
    """Without a terminator a finished stream ends well after the grace, usage included."""
    usage = UsageReported(Usage(input_tokens=1))
    upstream = Script(
        line(*opening(), *words("x"), Finished(0, "stop")), 1.0, line(usage), math.inf
    )
    got = await read(upstream, finish_grace=2)
    assert isinstance(got[-1], Ended)
    assert usage in got
    assert upstream.closed_at == pytest.approx(2.0)


async def test_beats_do_not_renew_the_grace(autojump_clock: MockClock) -> None:
    """Heartbeats after the finish reason do not hold the end back (bifrost#5504)."""
    beats = [step for _ in range(50) for step in (0.5, b"beat\n")]
    upstream = Script(line(*opening(), *words("x"), Finished(0, "stop")), *beats)
    got = await read(upstream, finish_grace=2)
    assert isinstance(got[-1], Ended)
    assert upstream.closed_at == pytest.approx(2.0)


async def test_a_late_choice_ends_the_grace(autojump_clock: MockClock) -> None:
    """A second choice that begins after the first has finished is waited for."""
    late: list[Event] = [ItemStarted(1, "message", choice=1), PartStarted(1, 0, "text")]
    upstream = Script(
        line(*opening(), *words("x"), Finished(0, "stop")),
        1.0,
        line(*late),
        50.0,
        line(PartDelta(1, 0, "y"), Finished(1, "stop")),
    )
    got = await read(upstream)
    assert text_of(got) == "xy"
    assert isinstance(got[-1], Ended)


# Ends.


async def test_the_connection_is_read_to_its_end(autojump_clock: MockClock) -> None:
    """After the last event the body is read to its end, so that the connection can be reused."""
    upstream = Script(HELLO, 0.01, b"beyond the end\n")
    await read(upstream)
    assert upstream.read_to_end


@pytest.mark.parametrize("tail", [(math.inf,), (Truncated("cut"),)])
async def test_a_body_without_end_does_not_hold_a_good_reply(
    autojump_clock: MockClock, tail: tuple[float | Exception]
) -> None:
    """A body that does not end after its last event costs the connection, not the reply."""
    upstream = Script(HELLO, *tail)
    assert isinstance((await read(upstream))[-1], Ended)
    assert upstream.closed_at is not None
    assert upstream.closed_at <= 0.05


@pytest.mark.fault(14, "S")
async def test_eof_without_an_end_is_a_failure(autojump_clock: MockClock) -> None:
    """A stream that just stops never ends like a good one, and what came is delivered."""
    got = await read(Script(line(*opening(), *words("x"))))
    assert text_of(got) == "x"
    assert isinstance(got[-1], Failed)
    assert got[-1].error.code == "upstream_truncated"


async def test_a_failure_of_the_decoder_is_raised(autojump_clock: MockClock) -> None:
    """Iterating raises the very kind of error that the decoder named."""
    assert isinstance(await failure_of(Script(line(*opening()))), Truncated)


@pytest.mark.fault(13, "S")
async def test_a_broken_connection_is_a_failure(autojump_clock: MockClock) -> None:
    """A reset in mid-stream delivers what came, then fails."""
    got = await read(Script(line(*opening(), *words("x")), Truncated("reset")))
    assert text_of(got) == "x"
    assert isinstance(got[-1], Failed)


async def test_connect_failure(autojump_clock: MockClock) -> None:
    """What the upstream object raises while connecting is the failure."""
    assert isinstance(await failure_of(Script(before=[ConnectFailed("refused")])), ConnectFailed)


@pytest.mark.fault(5, "S")
async def test_an_error_status(autojump_clock: MockClock) -> None:
    """An error answer becomes the upstream's own words, status and headers."""
    headers = {"retry-after": "7", "x-ratelimit-limit-requests": "9", "set-cookie": "no"}
    error = await failure_of(Script(b"slow ", b"down", status=429, headers=headers))
    assert isinstance(error, UpstreamRefused)
    assert (error.status, error.message) == (429, "slow down")
    assert error.headers == {"retry-after": "7", "x-ratelimit-limit-requests": "9"}


async def test_a_quoted_key_is_hidden(autojump_clock: MockClock) -> None:
    """A secret that the upstream quotes in an error does not reach the caller."""

    def conceal(text: str) -> str:
        return text.replace("KEY", "***")

    info = ErrorInfo(message="bad KEY", raw={"message": "bad KEY"}, raw_format="toy")
    for upstream in (Script(b"bad KEY", status=401), Script(line(*opening(), Failed(info)))):
        aim = msgspec.structs.replace(target(upstream), conceal=conceal)
        async with open_reply(REQUEST, aim) as reply:
            with pytest.raises(NurslingError) as caught:
                await reply.commit()
        assert caught.value.message == "bad ***"
        assert "KEY" not in repr(caught.value.info())


async def test_an_endless_error_body(autojump_clock: MockClock) -> None:
    """An endless error body is cut by bytes (litellm#27310)."""
    error = await failure_of(Script(*[b"x" * 1000] * 1000, status=500), max_error_bytes=4096)
    assert len(error.message) == 4096


@pytest.mark.parametrize("tail", [math.inf, Truncated("cut")])
async def test_an_error_body_that_stalls_or_breaks(
    autojump_clock: MockClock, tail: float | Exception
) -> None:
    """An error body that never ends, or breaks, is quoted as far as it came."""
    error = await failure_of(Script(b"bad", tail, status=400))
    assert (error.status, error.message) == (400, "bad")
    assert trio.current_time() <= 10


async def test_a_breach_of_the_grammar(autojump_clock: MockClock) -> None:
    """What the grammar refuses fails behind the good events, and frees the upstream at once."""
    behind: list[Step] = [1.0, line(*words("z"))]
    upstream = Script(line(*opening(), *words("x"), PartDelta(7, 0, "y")), *behind * 99)
    async with open_reply(REQUEST, target(upstream)) as reply:
        await trio.sleep(10)
        assert upstream.closed_at is not None
        assert upstream.closed_at < 2
        got = await events_of(reply)
    assert text_of(got) == "x"
    assert isinstance(got[-1], Failed)
    assert isinstance(reply.error, RemoteProtocolError)
    assert reply.message.error == got[-1].error


async def test_a_breach_keeps_what_was_good_in_its_batch(autojump_clock: MockClock) -> None:
    """Words and usage that came in the very batch that breaks are in the message."""
    usage = UsageReported(Usage(output_tokens=1))
    upstream = Script(line(*opening(), *words("hello"), usage, PartDelta(7, 0, "y")))
    async with open_reply(REQUEST, target(upstream)) as reply:
        assert text_of(await events_of(reply)) == "hello"
        assert reply.message.text == "hello"
        assert reply.message.usage == Usage(output_tokens=1)


async def test_a_breach_while_the_upstream_floods(autojump_clock: MockClock) -> None:
    """The decoder that is blocked in its channel when the reply is refused goes away quietly."""
    upstream = Script(line(*opening(), PartDelta(7, 0, "y")), *[line(*words("z"))] * 99)
    got = await read(upstream)
    assert isinstance(got[-1], Failed)


async def test_a_reply_that_is_too_large(autojump_clock: MockClock) -> None:
    """Text past `max_reply_bytes` fails the reply with the guard's own error."""
    error = await failure_of(
        Script(line(*opening()), *[line(*words("x" * 100))] * 99), max_reply_bytes=1000
    )
    assert isinstance(error, ReplyTooLarge)


async def test_too_large_at_the_very_end(autojump_clock: MockClock) -> None:
    """A reply that is too large in its last batch does not end well first."""
    got = await read(
        Script(line(*opening(), *words("x" * 999), Finished(0, "stop"), Ended())),
        max_reply_bytes=500,
    )
    assert [type(event) for event in got if isinstance(event, Ended | Failed)] == [Failed]


@pytest.mark.fault(37, "S")
async def test_a_bug_is_one_internal_error(autojump_clock: MockClock) -> None:
    """A bug in an upstream object is this reply's internal error, with the bug as its cause."""
    bug = KeyError("oops")
    error = await failure_of(Script(line(*opening()), bug))
    assert isinstance(error, InternalError)
    assert error.status == 500
    assert error.__cause__ is bug
    assert "oops" not in error.message


@pytest.mark.fault(38, "S")
async def test_a_group_becomes_one_error(autojump_clock: MockClock) -> None:
    """Of several errors at once the upstream's wins; the group stays as the context."""
    group = ExceptionGroup("two", [ValueError("ours"), Truncated("theirs")])
    error = await failure_of(Script(line(*opening()), group))
    assert isinstance(error, Truncated)
    assert error.__context__ is group


# The program around us.


async def test_leaving_closes_the_upstream_at_once(autojump_clock: MockClock) -> None:
    """Leaving the block before the end cancels the stages and closes the upstream."""
    upstream = Script(line(*opening(), *words("x")), math.inf)
    async with open_reply(REQUEST, target(upstream)) as reply:
        await reply.commit()
    assert upstream.closed_at == pytest.approx(0.0)
    assert upstream.open_now == 0


@pytest.mark.fault(59, "S")
async def test_the_bodys_exception_passes_unchanged(autojump_clock: MockClock) -> None:
    """An embedder's own exception comes out as the same object, in no group."""
    mine = RuntimeError("mine")
    upstream = Script(math.inf)
    with pytest.raises(RuntimeError) as caught:
        async with open_reply(REQUEST, target(upstream)):
            raise mine
    assert caught.value is mine
    assert upstream.open_now == 0


@pytest.mark.fault(59, "S")
async def test_the_bodys_own_group_passes_unchanged(autojump_clock: MockClock) -> None:
    """An embedder's own exception group is not opened."""
    mine = ExceptionGroup("mine", [ValueError(), KeyError()])
    with pytest.raises(ExceptionGroup) as caught:
        async with open_reply(REQUEST, target(Script(math.inf))):
            raise mine
    assert caught.value is mine


@pytest.mark.fault(59, "S")
async def test_an_outer_cancellation_passes(autojump_clock: MockClock) -> None:
    """An embedder's deadline ends the reply without an exception and without a group."""
    upstream = Script(math.inf)
    with trio.move_on_after(3) as scope:
        async with open_reply(REQUEST, target(upstream)) as reply:
            await reply.commit()
    assert scope.cancelled_caught
    assert upstream.closed_at == pytest.approx(3.0)


@pytest.mark.fault(60, "V")
async def test_use_after_the_end_is_refused(autojump_clock: MockClock) -> None:
    """A reply is of no use outside its block, and says so."""
    async with open_reply(REQUEST, target(Script(math.inf))) as reply:
        pass
    with pytest.raises(LocalProtocolError):
        await reply.receive()


@pytest.mark.fault(60, "V")
async def test_two_replies_of_one_target(autojump_clock: MockClock) -> None:
    """Replies that share a target are independent: one breaks, the other ends well."""
    good, bad = Script(HELLO), Script(line(*opening()), Truncated("cut"))
    async with open_reply(REQUEST, target(good)) as one, open_reply(REQUEST, target(bad)) as two:
        with pytest.raises(Truncated):
            await two.commit()
        assert isinstance((await events_of(one))[-1], Ended)


@pytest.mark.fault(17, "S")
async def test_backpressure_reaches_the_upstream(autojump_clock: MockClock) -> None:
    """Nobody reads the reply, so the upstream is read a few batches far and no further."""
    upstream = Script(
        line(*opening()), *[line(*words("x"))] * 1000, line(Finished(0, "stop"), Ended())
    )
    async with open_reply(REQUEST, target(upstream)) as reply:
        await trio.sleep(60)
        assert upstream.reads < 12
        assert len(await events_of(reply)) > 1000


async def test_a_refused_upstream_that_goes_on(autojump_clock: MockClock) -> None:
    """What an uninterruptible upstream says after it was refused changes nothing any more."""
    upstream = Script(
        line(*opening(), PartDelta(7, 0, "y")),
        1.0,
        line(*words("z")),
        1.0,
        Truncated("late"),
        stubborn=True,
    )
    async with open_reply(REQUEST, target(upstream)) as reply:
        await trio.sleep(5)
        got = await events_of(reply)
    assert text_of(got) == ""
    assert [type(event) for event in got if isinstance(event, Failed)] == [Failed]
    assert isinstance(reply.error, RemoteProtocolError)


async def test_a_batch_that_is_mended_away(autojump_clock: MockClock) -> None:
    """A batch of which nothing is left after the mends is no batch: the reader goes on waiting."""
    late = Finished(0, "stop")
    upstream = Script(
        line(*opening(), *words("x"), Finished(0, "stop")), 0.5, line(late), 0.5, line(Ended())
    )
    got = await read(upstream)
    assert [type(event) for event in got[-2:]] == [Finished, Ended]


async def test_a_stop_sequence_ends_the_reply_and_the_bill(autojump_clock: MockClock) -> None:
    """A stop sequence that the upstream could not be told ends the reply well, and closes it."""
    upstream = Script(line(*opening(), *words("one ST", "OP two")), math.inf)
    request = Request(model="m", items=[], stream=True, stop=["STOP"])
    async with open_reply(request, target(upstream)) as reply:
        got = await events_of(reply)
        await trio.sleep(1)
        assert upstream.closed_at == pytest.approx(0.0)
    assert text_of(got) == "one "
    assert [type(event) for event in got[-2:]] == [Finished, Ended]
    assert reply.message.text == "one "
    assert reply.error is None


async def test_parts_left_open_are_closed(autojump_clock: MockClock) -> None:
    """The normal form that leaves the pipeline has passed the grammar's mends."""
    got = await read(Script(HELLO))
    assert any(isinstance(event, PartEnded) for event in got)


def test_what_came_second_stands_last() -> None:
    """A second failure is kept behind the contexts that the first one has, and once."""
    told, first, second = Truncated("told"), ValueError("first"), ValueError("second")
    told.__context__ = first
    came_second(told, second)
    came_second(told, second)
    assert first.__context__ is second
    assert second.__context__ is None
    came_second(None, second)
    came_second(told, None)
    assert second.__context__ is None
