"""The verdict on one request: its client got the whole truth, or an honest failure.

The laws, whatever was drawn:

* a good end means that the upstream said everything that the client has, and that it ended well;
* a failure has a cause that was drawn, and is true up to it: nothing lost before, nothing invented;
* what is neither is a connection that was cut, and only clients who are at fault have such;
* status 200 waits for the first thing that is said, or for the heartbeat;
* a request is asked of the upstream once at most;
* a client that is gone frees its upstream at once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from support.laws import (
    LawBroken,
    check_chat_stream,
    check_failed_stream,
    check_responses_stream,
)
from support.schemas import check_error

from .content import Content, Reader


if TYPE_CHECKING:
    from .upstream import Fate
    from .world import World


PROMPT = 0.2
"""Virtual seconds in which a client that is gone must have freed its upstream."""

STREAM_ONLY = {"no end", "error", "giant"}
"""What goes wrong in streams only."""

TIMEOUTS = {
    "upstream_first_event_timeout": 120.0,
    "upstream_idle_timeout": 120.0,
    "upstream_whole_timeout": 120.0,
}
"""Clocks that may run out although nothing is wrong, and what they need for it."""

AT_FAULT = {"stuck", "leaves", "aborts", "half-closes", "junk"}
REFUSED = {"slow head", "slow body", "garbage"}


def judge(world: World, fate: Fate) -> None:
    """Note what is wrong with one request's fate in `world.failures`."""
    try:
        ending = _verdict(world, fate)
    except (LawBroken, AssertionError, ValueError, KeyError, TypeError) as broken:
        world.broken(fate, f"{type(broken).__name__}: {broken}")
        ending = "broken"
    world.ends[ending] += 1


def _must(holds: object, law: str) -> None:
    if not holds:
        raise LawBroken(law)


def _verdict(world: World, fate: Fate) -> str:
    ask = fate.ask
    if fate.sent_at is None:
        return "not sent"
    _must(fate.asked <= 1, f"the upstream was asked {fate.asked} times")
    _check_release(world, fate)
    if ask.manner in REFUSED:
        _must(not fate.asked, "an upstream was asked for what is no request")
        _must(fate.closed or fate.status >= 400, f"{ask.manner}: {fate.status}, not closed")
        return "refused"
    if not fate.status:
        excused = ask.manner in AT_FAULT or _was_turned_away(world, fate)
        _must(excused, "no answer at all")
        return "no answer"
    if fate.status != 200:
        return _failed_before(world, fate)
    _must(ask.stream or fate.whole or ask.manner in AT_FAULT or _aborted(world), "cut short")
    return _streamed(world, fate) if ask.stream else _whole(world, fate)


def _failed_before(world: World, fate: Fate) -> str:
    """A failure as a status."""
    said = ""
    if fate.whole:
        error = check_error(json.loads(fate.body))["error"]
        said = error["code"]
        _must(error["code"] != "internal_error", "an internal error")
        _must(_excuse(world, fate, error["code"]), f"{fate.status} {error} without a cause")
    drained = _drained(world, said)
    if fate.ask.script.upset == "status" and fate.asked and not fate.poisoned and not drained:
        code, _, headers = fate.ask.script.status
        _must(fate.status == code, f"status {fate.status}, the upstream said {code}")
        for name, value in headers.items():
            if name == "retry-after":
                _must(fate.headers.get(name) == value, "retry-after is lost")
    under_way = fate.ask.script.upset == "reset" or drained
    if fate.ask.stream and fate.streamed and not under_way:
        _must(not fate.said.meaningful, f"a failure without what was said: {fate.said}")
    return "status"


def _streamed(world: World, fate: Fate) -> str:
    ask, script = fate.ask, fate.ask.script
    waited = fate.status_at - (fate.sent_at or 0.0)
    spoke = fate.spoke_at is not None and fate.spoke_at <= fate.status_at
    beat = world.deal.limits.heartbeat
    _must(spoke or waited >= beat - 1, f"200 after {waited:g} s, before anything was said")
    text = fate.body
    if not fate.whole:
        text = text[: text.rfind(b"\n\n") + 2] if b"\n\n" in text else b""
    heard = Reader(ask.api).stream(text)
    if _undetectable(fate):
        return heard.end or "left"
    _must(heard.begins(script.final), f"heard {heard}, said {script.final}")
    if heard.end == "good":
        _good(fate, heard)
    elif heard.end == "failed":
        _must(_excuse(world, fate, heard.code), f"failed with {heard.code} without a cause")
        # Without an upset it was a clock that ran out, perhaps with words still on their way.
        told = script.upset not in {"", "reset"} and not _drained(world, heard.code)
        if fate.streamed and told:
            _must(fate.said.begins(heard), f"heard {heard}, was told {fate.said}")
    else:
        _must(not fate.whole, "the body ends without an end")
        _must(ask.manner in AT_FAULT or _aborted(world), "cut short")
    if world.strict and fate.whole:
        _hold_to_laws(ask.api, text, heard)
    return heard.end or "left"


def _hold_to_laws(api: str, text: bytes, heard: Content) -> None:
    if heard.end == "failed":
        check_failed_stream(text, api)
    elif api == "chat":
        check_chat_stream(text, usage=None)
    else:
        check_responses_stream(text, status=None)


def _whole(world: World, fate: Fate) -> str:
    if not fate.whole:
        return "left"
    heard = Reader(fate.ask.api).whole(fate.body)
    if not _undetectable(fate):
        _good(fate, heard)
    return "good"


def _good(fate: Fate, heard: Content) -> None:
    """A good end: everything was said, and its end too."""
    script = fate.ask.script
    _must(heard.says(script.final), f"a good end with {heard}, of {script.final}")
    _must(heard.finish == script.final.finish, f"finish {heard.finish}, not {script.final.finish}")
    if script.upset == "garbage":
        return  # a lucky place: all else has arrived around it
    said = fate.said
    _must(said.end == "good" or (script.api == "chat" and said.finish), f"good end of {said}")
    if said.end == "good" and (script.api == "responses" or script.final.usage == said.usage):
        _must(heard.usage == script.final.usage, f"usage {heard.usage}")


def _undetectable(fate: Fate) -> bool:
    """Whether garbage may have eaten a frame without a trace.

    It may inside the name of a field, as SSE ignores fields that it does not know, where no HTTP
    chunk has a length to hold against it.
    """
    return fate.ask.script.upset == "garbage" and fate.framing == "close"


def _excuse(world: World, fate: Fate, code: str) -> bool:
    """Whether a failure was to be expected."""
    script, deal = fate.ask.script, world.deal
    if script.upset and not (script.upset in STREAM_ONLY and not fate.streamed):
        return True
    if _drained(world, code) or fate.poisoned:
        return True
    if not fate.asked and code in {*TIMEOUTS, "server_error"}:
        return True  # a kept connection, whose upstream does not listen any more
    if not fate.asked and code == "upstream_truncated":
        return fate.unheard or deal.proxied  # closed with it: nobody can know what it had read
    if code == "server_error":  # of the few codes that a failed Response may have
        return any(_excuse(world, fate, one) for one in TIMEOUTS)
    if code == "overloaded":
        return deal.limits.max_streams < 1000 or deal.limits.max_connections < 1000
    if code == "upstream_connect_timeout":
        return bool(deal.caps[script.api])
    return code in TIMEOUTS and max(script.waits) * len(script.frames) > TIMEOUTS[code]


def _drained(world: World, code: str) -> bool:
    return world.deal.stop_at is not None and code in {"draining", "server_error"}


def _aborted(world: World) -> bool:
    """Whether the server was told to stop: what is open a while later is cut."""
    return world.deal.stop_at is not None


def _was_turned_away(world: World, fate: Fate) -> bool:
    return _aborted(world) or world.deal.limits.max_connections < 1000


def _check_release(world: World, fate: Fate) -> None:
    """A client that is gone frees its upstream at once; with unread bytes, by a clock."""
    if fate.left_at is None or fate.line is None or fate.ask.manner == "junk":
        return
    latency = next(guest.latency for guest in world.deal.guests if fate.ask in guest.asks)
    soon = fate.left_at + latency + PROMPT
    if fate.whole or (fate.released_at is not None and fate.released_at <= soon):
        return
    if fate.framing == "length" and fate.frames_out:
        return  # it was whole with its last byte: the connection may be kept
    closed = fate.line.closed_at
    _must(
        closed is not None and closed <= soon,
        f"the client left at {fate.left_at:g}, the upstream's connection was closed at {closed}",
    )
