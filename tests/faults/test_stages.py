"""Faults of our own: a stage that raises what nobody expected, and two that fail at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock

from nursling.engine.accumulate import Accumulator
from nursling.engine.errors import InternalError, RemoteProtocolError, Truncated
from nursling.engine.events import Ended, Event, Failed, Finished, PartDelta
from nursling.engine.grammar import Grammar
from nursling.engine.pipeline import Target, open_reply
from support.gateway import Call, PlainEncoder, PlainFormat, ScriptedEngine, World
from support.toy import HELLO, REQUEST, Script, Step, ToyDecoder, ToyFormat, line, opening, words


CHAT = "/v1/chat/completions"
BOOM = "BOOM"
"""What makes a stage fail."""

CANARY = "canary-of-a-bug"
"""What the bug says, and no client and no log may."""


def explodes(value: Any) -> bool:
    match value:
        case bytes():
            return BOOM.encode() in value
        case list():
            return any(explodes(entry) for entry in value)
        case PartDelta():
            return BOOM in value.text
        case _:
            return BOOM in str(value)


def breaking(real: Callable[..., Any]) -> Callable[..., Any]:
    """A method that fails at `BOOM`, and is its old self otherwise."""

    def broken(self: Any, value: Any, *more: Any) -> Any:
        if explodes(value):
            raise KeyError(CANARY)
        return real(self, value, *more)

    return broken


STAGES = {
    "decode": (ToyDecoder, "feed"),
    "normalize": (Grammar, "take"),
    "accumulate": (Accumulator, "add"),
    "encode": (PlainEncoder, "encode"),
    "render": (PlainFormat, "render_reply"),
    "parse": (PlainFormat, "parse_request"),
    "resolve": (ScriptedEngine, "resolve"),
}


@pytest.mark.fault(37, "S")
@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
@pytest.mark.parametrize("late", [True, False], ids=["late", "early"])
@pytest.mark.parametrize("stage", STAGES)
async def test_a_bug_in_a_stage(
    stage: str,
    late: bool,
    stream: bool,
    monkeypatch: pytest.MonkeyPatch,
    autojump_clock: MockClock,
) -> None:
    """One request fails, with a 500 or inside its stream; the one beside it ends well; one log."""
    home, name = STAGES[stage]
    monkeypatch.setattr(home, name, breaking(getattr(home, name)))
    steps: list[Step] = [line(*opening(), *words("x"))] if late else []
    bad = words(BOOM) if late else [*opening(), *words(BOOM)]
    if stage in {"parse", "resolve"}:
        bad = words("y") if late else [*opening(), *words("y")]
    steps += [1.0, line(*bad, Finished(0, "stop"), Ended())]
    script = Script(*steps)
    world = World(bad=script, BOOM=script, good=Script(HELLO, before=[2.0]))
    failed: list[Call] = []

    async def ask() -> None:
        model = BOOM if stage in {"parse", "resolve"} else "bad"
        async with world.call(
            "POST", CHAT, {"content-type": "application/json"}, beside=True
        ) as it:
            it.send(msgspec.json.encode({"model": model, "stream": stream}))
            await it.over.wait()
        failed.append(it)

    never = (stage == "encode" and not stream) or (stage == "render" and stream)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        other = await world.ask("POST", CHAT, {"model": "good"}, beside=True)
    assert other.json["text"] == "hello"
    (call,) = failed
    if never:
        assert call.status == 200
        return
    told = late or stage == "accumulate"  # which fails behind the words that it could not take
    committed = stream and told and stage not in {"parse", "resolve"}
    assert call.status == (200 if committed else 500)
    assert b"internal_error" in call.body
    assert CANARY.encode() not in call.body
    bugs = [record for record in world.records if record.bug]
    assert [record.outcome for record in bugs] == ["internal_error"]
    assert (bugs[0].bug or "").startswith("KeyError\n")
    assert CANARY not in str(world.records)
    world.assert_clean()


@pytest.mark.fault(38, "S")
@pytest.mark.parametrize("bug", [True, False], ids=["our bug", "a breach"])
async def test_two_stages_fail_at_once(
    bug: bool, monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    """What stands first in the stream is told; what fails behind it is in its context."""
    if bug:
        monkeypatch.setattr(Grammar, "take", breaking(Grammar.take))
    second = Truncated("the connection broke")
    first = words(BOOM) if bug else [PartDelta(7, 0, "no such item")]
    script = Script(line(*opening(), *words("x"), *first), 1.0, second, stubborn=True)
    async with open_reply(REQUEST, Target(upstream=script, format=ToyFormat(), model="m")) as reply:
        got: list[Event] = []
        while batch := await reply.receive():
            got += batch
        await trio.sleep(5)
    assert [type(event) for event in got if isinstance(event, Ended | Failed)] == [Failed]
    assert isinstance(reply.error, InternalError if bug else RemoteProtocolError)
    assert script.open_now == 0
    contexts: list[BaseException] = []
    error: BaseException | None = reply.error
    while error is not None and (error := error.__context__) is not None:
        contexts.append(error)
    assert second in contexts


@pytest.mark.fault(38, "S")
async def test_the_upstream_fails_before_a_stage_has_come_to_it(
    autojump_clock: MockClock,
) -> None:
    """A breach that waits in the channel is told, though the connection broke in the meantime."""
    second = Truncated("the connection broke")
    full = [line(*words("y"))] * 3
    script = Script(line(*opening(), *words("x")), *full, line(PartDelta(7, 0, "no")), second)
    async with open_reply(REQUEST, Target(upstream=script, format=ToyFormat(), model="m")) as reply:
        await trio.sleep(5)
        got: list[Event] = []
        while batch := await reply.receive():
            got += batch
    assert [type(event) for event in got if isinstance(event, Ended | Failed)] == [Failed]
    assert isinstance(reply.error, RemoteProtocolError)
    assert reply.error.__context__ is second
