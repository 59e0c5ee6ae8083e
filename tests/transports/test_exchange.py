"""One exchange, in virtual time and without sockets: status, stream, beats, failures, records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nursling.engine.errors import ConnectFailed, ErrorInfo, Truncated
from nursling.engine.events import (
    Ended,
    Event,
    Failed,
    Finished,
    ItemStarted,
    PartDelta,
    Started,
    Usage,
    UsageReported,
)
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Reply
from nursling.transports.http.connection import safe_value
from nursling.transports.http.exchange import grouped
from support.gateway import BEAT, Call, PlainEncoder, World
from support.toy import HELLO, Script, Step, line, opening, words


CHAT = "/v1/chat/completions"
CANARY = "canary-completion"
REFUSED = ErrorInfo(
    message="no", type="rate_limit_error", code="slow", status=429, fault="upstream"
)

_decode = msgspec.json.Decoder(Event).decode


def events_of(body: bytes) -> list[Event]:
    return [
        _decode(frame.removeprefix(b"data: "))
        for frame in body.split(b"\n\n")
        if frame.startswith(b"data: ")
    ]


async def ask(world: World, *, stream: bool, **more: Any) -> Call:
    return await world.ask("POST", CHAT, {"model": "m", "stream": stream, **more})


def outcome(world: World) -> str:
    (record,) = world.records
    return record.outcome


async def test_a_stream() -> None:
    """A stream has its headers, its events one by one, and an end."""
    world = World()
    call = await ask(world, stream=True)
    assert (call.status, call.ended) == (200, True)
    assert call.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert call.headers["cache-control"] == "no-cache, no-transform"
    assert call.headers["x-accel-buffering"] == "no"
    assert "content-length" not in call.headers
    events = events_of(call.body)
    assert isinstance(events[0], Started)
    assert events[0].id == "r1"
    assert isinstance(events[-1], Ended)
    assert outcome(world) == "ok"


async def test_a_whole_reply() -> None:
    """A whole reply is the fold, with its length."""
    world = World()
    call = await ask(world, stream=False)
    assert call.json == {"id": "r1", "text": "hello"}
    assert call.headers["content-type"] == "application/json"
    assert int(call.headers["content-length"]) == len(call.body)
    assert outcome(world) == "ok"


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_in_the_last_write(stream: bool) -> None:
    """What the connection took while its client was leaving is delivered, as far as one can know.

    Many clients close as soon as they have read the last event, before we are back from its write.
    """

    class Leaving(Call):
        async def _take(self, message: Any) -> None:
            await super()._take(message)
            last = b"Ended" if stream else b"hello"
            if last in message.get("body", b""):
                self.leave()

    world = World()
    call = Leaving("POST", CHAT, {"content-type": "application/json"}, "http", {})
    call.send(msgspec.json.encode({"model": "m", "stream": stream}))
    await call.run(world.app)
    assert outcome(world) == "ok"
    world.assert_clean()


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_before_the_last_write(stream: bool) -> None:
    """Gone when the last words come, it gets none of them, and is recorded as gone."""
    world = World()
    call = Call("POST", CHAT, {"content-type": "application/json"}, "http", {})

    class Leaving(Script):
        async def _play(self, steps: Sequence[Step]) -> None:
            await super()._play(steps)
            call.leave()

    world.engine.scripts["m"] = Leaving(HELLO)
    call.send(msgspec.json.encode({"model": "m", "stream": stream}))
    await call.run(world.app)
    assert not call.pieces
    assert outcome(world) == "client_gone"
    world.assert_clean()


async def test_a_client_that_leaves_before_its_only_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also where the first batch is the whole stream, a client that has gone gets none of it."""
    world = World()
    call = Call("POST", CHAT, {"content-type": "application/json"}, "http", {})

    commit = Reply.commit

    async def committed(reply: Reply, timeout: float) -> list[Event]:  # noqa: ASYNC109 - as there
        batch = await commit(reply, timeout)
        call.leave()
        return batch

    monkeypatch.setattr(Reply, "commit", committed)
    call.send(msgspec.json.encode({"model": "m", "stream": True}))
    await call.run(world.app)
    assert not call.started.is_set()
    assert not call.pieces
    assert outcome(world) == "client_gone"
    world.assert_clean()


async def test_a_server_that_says_the_client_is_gone() -> None:
    """An `OSError` of the server (ASGI 2.4), even at the formal end, is `client_gone`, no bug."""

    class Broken(Call):
        async def _take(self, message: Any) -> None:
            await super()._take(message)
            if self.ended:
                raise ConnectionResetError

    world = World()
    call = Broken("POST", CHAT, {"content-type": "application/json"}, "http", {})
    call.send(msgspec.json.encode({"model": "m"}))
    await call.run(world.app)
    assert outcome(world) == "client_gone"
    assert world.records[0].bug is None
    world.assert_clean()


@pytest.mark.fault(36, "V")
@pytest.mark.parametrize("stream", [True, False])
async def test_headers_of_the_upstream_that_concern_the_caller(stream: bool) -> None:
    """Rate limits pass, cookies and the rest do not; what was dropped is listed."""
    headers = {
        "x-ratelimit-remaining-requests": "7",
        "set-cookie": "a=b",
        "openai-organization": "secret",
        "x-ratelimit-bad": "a\r\nset-cookie: x=y",
    }
    call = await ask(World(m=Script(HELLO, headers=headers)), stream=stream)
    assert call.headers["x-ratelimit-remaining-requests"] == "7"
    assert call.headers["x-ratelimit-bad"] == r"a\r\nset-cookie: x=y"
    assert call.headers["x-nursling-dropped"] == "seed"
    assert not {"set-cookie", "openai-organization"} & set(call.headers)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("script", "status", "code", "reason"),
    [
        (Script(b"slow down", status=429, headers={"retry-after": "9"}), 429, "c",
         "upstream_error"),
        (Script(Truncated("cut")), 502, "upstream_truncated", "upstream_truncated"),
        (Script(line(*opening(), Failed(REFUSED))), 429, "slow", "upstream_error"),
        (Script(line(*opening())), 502, "upstream_truncated", "upstream_truncated"),
        (RuntimeError("canary-prompt"), 500, "internal_error", "internal_error"),
        (Script(ValueError("canary-prompt")), 500, "internal_error", "internal_error"),
        (Script(500.0), 504, None, None),
    ],
)  # fmt: skip
async def test_failures_before_the_commit_are_statuses(  # noqa: PLR0917 - a table's columns
    script: Script | Exception,
    status: int,
    code: str | None,
    reason: str | None,
    stream: bool,
    autojump_clock: MockClock,
) -> None:
    """Whatever fails before the first meaningful event has its true status, streamed or whole."""
    world = World(Limits(heartbeat=0), m=script)
    call = await ask(world, stream=stream)
    assert call.status == status
    assert call.headers["content-type"] == "application/json"
    if code is not None:
        assert call.error["code"] == code
        assert outcome(world) == reason
    else:
        assert call.error["type"] == "timeout_error"
    assert b"canary" not in call.body
    assert b"canary" not in msgspec.json.encode(world.records)
    if isinstance(script, Script) and script.headers:
        assert call.headers["retry-after"] == "9"


async def test_failure_after_the_commit_is_in_the_stream() -> None:
    """A stream that breaks ends with the error in the client's format, after what was good."""
    world = World(m=Script(line(*opening(), *words("hel")), Truncated("cut")))
    call = await ask(world, stream=True)
    assert (call.status, call.ended) == (200, True)
    last = events_of(call.body)[-1]
    assert isinstance(last, Failed)
    assert last.error.code == "upstream_truncated"
    assert outcome(world) == "upstream_truncated"


async def test_failure_of_a_whole_reply_late_is_a_status() -> None:
    """A whole reply that breaks half-way has its status too."""
    world = World(m=Script(line(*opening(), *words("hel")), Truncated("cut")))
    call = await ask(world, stream=False)
    assert (call.status, call.error["code"]) == (502, "upstream_truncated")


async def test_heartbeat_before_the_upstream_speaks(autojump_clock: MockClock) -> None:
    """At heartbeat time the stream commits under our own start, and beats go on."""
    world = World(m=Script(HELLO, before=[40.0]))
    async with world.call("POST", CHAT) as call:
        call.send(b'{"model":"m","stream":true}')
        await call.started.wait()
        assert trio.current_time() == pytest.approx(15)
        await call.over.wait()
    assert trio.current_time() == pytest.approx(40)
    own, *rest = events_of(call.body)
    assert own == Started("", "", 0)
    assert isinstance(rest[-1], Ended)
    assert call.body.count(BEAT) == 2
    assert call.pieces[0].endswith(BEAT)
    assert world.records[0].first_token is not None


async def test_heartbeat_between_events(autojump_clock: MockClock) -> None:
    """Silence of the upstream is filled with beats, between batches and never inside one."""
    script = Script(line(*opening(), *words("hel")), 35.0, line(*words("lo")),
                    line(Finished(0, "stop"), Ended()))  # fmt: skip
    call = await ask(World(m=script), stream=True)
    assert call.pieces.count(BEAT) == 2
    assert all(BEAT not in piece for piece in call.pieces if piece != BEAT)
    assert call.times[2:4] == pytest.approx([15, 30])


async def test_heartbeat_with_a_handshake_held(autojump_clock: MockClock) -> None:
    """If the upstream's own start has come, the commit uses it."""
    script = Script(line(*opening()), 20.0, line(*words("x"), Finished(0, "stop"), Ended()))
    call = await ask(World(m=script), stream=True)
    starts = [event for event in events_of(call.body) if isinstance(event, Started)]
    assert [start.id for start in starts] == ["r1"]


async def test_failure_after_an_early_commit(autojump_clock: MockClock) -> None:
    """After a commit by heartbeat a failure is in-stream, whatever its status would have been."""
    call = await ask(World(m=Script(b"no", status=429, before=[20.0])), stream=True)
    assert call.status == 200
    last = events_of(call.body)[-1]
    assert isinstance(last, Failed)
    assert last.error.status == 429


async def test_no_beats_for_a_whole_reply(autojump_clock: MockClock) -> None:
    """A whole reply is silent until it is there."""
    call = await ask(World(m=Script(HELLO, before=[100.0])), stream=False)
    assert call.json["text"] == "hello"
    assert call.times[0] == pytest.approx(100)


@pytest.mark.fault(9, "S")
@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("steps", [[500.0], [line(*opening(), *words("x")), 500.0]])
async def test_client_leaves(stream: bool, steps: list[Step], autojump_clock: MockClock) -> None:
    """A client that leaves takes the upstream along at once, before the first token too."""
    script = Script(*steps)
    world = World(Limits(heartbeat=0), m=script)
    async with world.call("POST", CHAT) as call:
        call.send(msgspec.json.encode({"model": "m", "stream": stream}))
        await trio.sleep(1)
        assert script.open_now == 1
        call.leave()
        await trio.testing.wait_all_tasks_blocked()
        assert script.closed_at == trio.current_time() == 1
        assert world.app.engine.gate.open == 0
    assert not call.ended
    assert outcome(world) == "client_gone"


async def test_client_leaves_behind_the_last_event(autojump_clock: MockClock) -> None:
    """A client that closes when it has read the last event, as Codex does, got everything: ok."""
    world = World(m=Script(HELLO, 500.0))  # the upstream's body stays open for a while
    async with world.call("POST", CHAT) as call:
        call.send(msgspec.json.encode({"model": "m", "stream": True}))
        await trio.sleep(0.01)
        assert isinstance(events_of(call.body)[-1], Ended)
        assert not call.ended
        call.leave()
        await trio.testing.wait_all_tasks_blocked()
    assert outcome(world) == "ok"


async def test_client_leaves_inside_its_body() -> None:
    """A client that leaves before its body is whole is recorded, without a status."""
    world = World()
    async with world.call("POST", CHAT) as call:
        call.send(b'{"mod', more=True)
        await trio.testing.wait_all_tasks_blocked()
    (record,) = world.records
    assert (record.outcome, record.status) == ("client_gone", 0)


@pytest.mark.fault(40, "S")
@pytest.mark.parametrize(
    ("steps", "stream"),
    [([500.0], True), ([500.0], False), ([line(*opening(), *words("x")), 500.0], True)],
)
async def test_end_of_the_drain(steps: list[Step], stream: bool, autojump_clock: MockClock) -> None:
    """At the end of the drain what is open ends with an error that its client can read."""
    script = Script(*steps)
    world = World(Limits(heartbeat=0), m=script)
    async with world.call("POST", CHAT) as call:
        call.send(msgspec.json.encode({"model": "m", "stream": stream}))
        await trio.sleep(1)
        world.app.end_streams()
        await call.over.wait()
        assert script.open_now == 0
    assert call.ended
    assert outcome(world) == "draining"
    if len(steps) == 1:
        assert (call.status, call.error["code"]) == (503, "draining")
    else:
        last = events_of(call.body)[-1]
        assert isinstance(last, Failed)
        assert last.error.code == "draining"


async def test_drain_after_the_answer_is_no_failure(autojump_clock: MockClock) -> None:
    """An answer that is out already stays a success when the drain ends."""
    world = World(Limits(reuse_grace=5), m=Script(HELLO, 100.0))
    async with world.call("POST", CHAT) as call:
        call.send(b'{"model":"m","stream":true}')
        await trio.sleep(1)
        world.app.end_streams()
        await call.over.wait()
    assert isinstance(events_of(call.body)[-1], Ended)
    assert outcome(world) == "ok"


async def test_slow_client_is_not_beaten_inside_a_write(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a write waits for the client no beat is written into it."""
    world = World(m=Script(line(*opening(), *words("x")), line(Finished(0, "stop"), Ended())))
    async with world.call("POST", CHAT) as call:
        take = call._take

        async def slowly(message: Any) -> None:
            await trio.sleep(40)
            await take(message)

        monkeypatch.setattr(call, "_take", slowly)
        call.send(b'{"model":"m","stream":true}')
        await call.over.wait()
    assert BEAT not in call.body


@pytest.mark.parametrize("stream", [True, False])
async def test_what_the_operator_alone_is_told(stream: bool) -> None:
    """The address of an upstream is in the record, and nowhere in what the client gets."""
    failure = ConnectFailed("no connection to 'p'", detail="cannot connect to 10.0.0.7:1: refused")
    world = World(m=Script(failure))
    call = await ask(world, stream=stream)
    assert call.status == 502
    assert b"no connection to 'p'" in call.body
    assert b"10.0.0.7" not in call.body
    (record,) = world.records
    assert record.detail == failure.detail
    assert record.bug is None


@pytest.mark.fault(37, "S")
async def test_a_broken_encoder_cuts_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """If not even the error can be encoded, the stream is cut, not ended like a good one."""
    world = World(m=Script(line(*opening(), *words("x")), 0.01, line(*words("y"))))
    real = PlainEncoder.encode

    def broken(self: PlainEncoder, events: list[Event]) -> bytes:
        if any(isinstance(event, Started) for event in events):
            return real(self, events)
        raise KeyError(CANARY)

    monkeypatch.setattr(PlainEncoder, "encode", broken)
    with pytest.raises(BaseExceptionGroup) as caught:
        await ask(world, stream=True)
    assert caught.group_contains(Exception, match="encoder failed")
    (record,) = world.records
    assert record.bug is not None
    assert record.bug.startswith("KeyError\n")
    assert "broken" in record.bug
    assert "canary" not in record.bug
    world.assert_clean()


@pytest.mark.fault(37, "S")
async def test_a_broken_renderer_is_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug after the reply and before the answer is a 500."""
    world = World()
    monkeypatch.setattr("support.gateway.PlainFormat.render_reply", None)
    call = await ask(world, stream=False)
    assert (call.status, call.error["code"]) == (500, "internal_error")
    assert (world.records[0].bug or "").startswith("TypeError")


async def test_the_record() -> None:
    """One record per request: who, what, where, how much; never a word of the conversation."""
    usage = UsageReported(Usage(input_tokens=3, output_tokens=2))
    script = Script(line(*opening(), *words(CANARY), Finished(0, "stop"), usage, Ended()))
    world = World(m=script)
    call = await ask(world, stream=True, say="canary-prompt")
    (record,) = world.records
    assert record.request_id == call.headers["x-request-id"]
    assert (record.route, record.upstream_format, record.provider) == ("chat", "toy", "scripted")
    assert (record.model, record.key, record.stream) == ("m", "anyone", True)
    assert (record.status, record.outcome) == (200, "ok")
    assert record.bytes_out == len(call.body)
    assert record.events >= 6
    assert record.usage == usage.usage
    assert record.first_token is not None
    assert 0 <= record.first_token <= record.duration
    assert b"canary" not in msgspec.json.encode(record)


@pytest.mark.fault(9, "S")
async def test_usage_is_recorded_when_the_client_leaves(autojump_clock: MockClock) -> None:
    """What the upstream reported before the client left is not lost."""
    usage = UsageReported(Usage(input_tokens=3))
    world = World(m=Script(line(*opening(), usage, *words("x")), 500.0))
    async with world.call("POST", CHAT) as call:
        call.send(b'{"model":"m","stream":true}')
        await trio.sleep(1)
    (record,) = world.records
    assert (record.outcome, record.usage) == ("client_gone", Usage(input_tokens=3))


async def test_what_the_client_cannot_hear_is_logged(autojump_clock: MockClock) -> None:
    """What only the upstream's format can say is in the record, by name and without its value."""
    upstream = Script(
        line(
            *opening(),
            PartDelta(
                0,
                0,
                "x",
                extra={
                    "toy": {"signature": "canary", "place": 3, "usage": {"x": "canary"}},
                    "chat": {"ours": 1},
                },
            ),
            ItemStarted(1, "opaque", name="web_search_call"),
            Finished(0, "stop"),
            Ended(),
        )
    )
    world = World(m=upstream)
    await ask(world, stream=True)
    assert world.records[0].lost == ["signature", "usage.x", "web_search_call"]
    assert b"canary" not in msgspec.json.encode(world.records)


def test_dropped_fields_are_grouped() -> None:
    """Names that differ in their place only stand once, with their number."""
    names = [
        "seed",
        "tools[3] (web_search)",
        "input[1] (computer_call)",
        "input[7] (computer_call)",
    ]
    assert grouped(names) == "seed, tools[3] (web_search), input[] (computer_call) x2"
    many = grouped([f"field_{number}_{'x' * 20}" for number in range(100)])
    assert len(many) < 1000
    assert many.endswith("more")
    shown = many.count("field_")
    assert many.endswith(f"and {100 - shown} more")


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("a\r\nset-cookie: x=y", "a%0D%0Aset-cookie: x=y"),
        ("tools[0].größe", "tools[0].gr%C3%B6%C3%9Fe"),
        ("\N{PILE OF POO}\ud800", r"%F0%9F%92%A9\ud800"),
        ("a, 100%\x7f\0", "a%2C 100%25%7F%00"),
        ("x" * 5000, "x" * 64 + "%E2%80%A6"),
        ("\N{SNOWMAN}" * 300, "%E2%98%83" * 64 + "%E2%80%A6"),
        ("", '""'),
        ("  ", "%20%20"),
        (" a b  ", "%20a b%20%20"),
    ],
    ids=[
        "a second header",
        "latin",
        "astral",
        "separators",
        "long",
        "long when written",
        "empty",
        "spaces",
        "outer spaces",
    ],
)
def test_dropped_fields_are_a_header(name: str, written: str) -> None:
    """A client's names are percent-encoded, in one bounded line: it is not cut behind our back."""
    assert grouped([name]) == written
    assert grouped(["seed", name]) == f"seed, {written}"
    header = grouped([f"field_{number}" for number in range(30)] + [name] * 40)
    assert safe_value(header) == header.encode()
