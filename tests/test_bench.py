"""The benchmark measures what it says: its streams are good, and a bad one does not pass.

What needs no process is tested without one; test_bench_commands.py runs the commands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from bench import measure, order, script
from bench.compare import Round, summarize
from bench.gateways import litellm_file, nursling_file
from bench.load import Result, request_body, request_bytes
from bench.plan import PATHS, Api, Dress, Plan, Scenario, Timing, parse_plan
from bench.processes import Cores, choose_cores
from bench.throughput import scenarios, select
from bench.upstream import answer
from nursling.transports.config import config_from_dict
from support.laws import check_chat_stream, check_responses_stream


APIS: list[Api] = ["chat", "responses"]


def body(plan: Plan, *, usage: bool = False) -> bytes:
    return b"".join(one for group in script.events(plan, usage) for one in group)


def fault(api: Api, events: int, *pieces: bytes) -> str | None:
    check = order.StreamCheck(api, events)
    for piece in pieces:
        check.feed(piece)
    return check.fault()


def without_chunks(data: bytes) -> list[bytes]:
    """The HTTP chunks of a body."""
    found: list[bytes] = []
    while data:
        size, _, data = data.partition(b"\r\n")
        length = int(size, 16)
        found.append(data[:length])
        assert data[length : length + 2] == b"\r\n"
        data = data[length + 2 :]
    return found


# The upstream's streams.


@pytest.mark.parametrize("usage", [False, True])
@pytest.mark.parametrize("dress", ["plain", "openai", "logprobs"])
def test_chat_script_is_a_good_stream(usage: bool, dress: Dress) -> None:
    """What the upstream says as Chat Completions passes the schema and the laws of a stream."""
    data = body(Plan("chat", 5, dress=dress), usage=usage)
    chunks = check_chat_stream(data, usage=usage)
    said = "".join(one["delta"].get("content", "") for it in chunks for one in it["choices"])
    assert said == order.text(5)
    assert data.count(b'"obfuscation"') == (0 if dress == "plain" else len(chunks))
    assert data.count(b'"logprob"') == (5 if dress == "logprobs" else 0)


@pytest.mark.parametrize("dress", ["plain", "openai", "logprobs"])
def test_responses_script_is_a_good_stream(dress: Dress) -> None:
    """What the upstream says as Responses passes both schemas and the laws of a stream."""
    data = body(Plan("responses", 5, dress=dress))
    events = check_responses_stream(data)
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == order.text(5)
    assert data.count(b'"obfuscation"') == (0 if dress == "plain" else 5)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("dress", ["plain", "openai"])
def test_events_have_the_size_of_real_ones(api: Api, dress: Dress) -> None:
    """A delta is about as long as those of the service, which costs depend on."""
    _, deltas, _ = script.events(Plan(api, 4, dress=dress), usage=False)
    assert all(200 <= len(one) <= 350 for one in deltas)


@pytest.mark.parametrize("api", APIS)
def test_a_whole_reply_has_the_whole_text(api: Api) -> None:
    """Who asks for no stream gets one body, which its check takes, and no other."""
    plan = Plan(api, 5)
    asked = request_bytes(Scenario("", api, plan, 1, whole=True), 80).partition(b"\r\n\r\n")[2]
    found = answer(PATHS[api], asked)
    assert found == script.whole(plan)
    for data, fault in ((found, None), (found[:-9], "not a reply"), (b"{}", "not a reply")):
        check = order.WholeCheck(api, 5)
        check.feed(data)
        assert check.fault() == fault
    other = order.WholeCheck(api, 6)
    other.feed(found)
    assert other.fault() == "text is not as it was said"


def test_a_stamp_is_the_time_at_which_an_event_leaves() -> None:
    """Stamps are put in when the pieces are taken, one by one, and are read off the tokens."""
    asked = json.dumps(request_body("chat", Plan("chat", 2, pause=1, dress="stamped").model))
    found = answer(PATHS["chat"], asked.encode())
    assert isinstance(found, tuple)
    before = time.monotonic_ns()
    data = b"".join(found[0])
    stamps = order.StreamCheck.stamps(data)
    assert len(stamps) == 2
    assert before // 1000 <= stamps[0] <= stamps[1] <= time.monotonic_ns() // 1000
    check = order.StreamCheck("chat", 2)
    assert check.feed(data) == 2


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(("per_write", "sizes"), [(1, [1] * 10), (4, [4, 4, 2]), (16, [10])])
def test_each_event_is_a_chunk_and_bursts_share_a_write(
    api: Api, per_write: int, sizes: list[int]
) -> None:
    """Writes carry as many events as the plan says, each an HTTP chunk of its own."""
    plan = Plan(api, 10, per_write)
    pieces = script.writes(plan, usage=False)
    before, deltas, after = script.events(plan, usage=False)
    chunks = [without_chunks(one) for one in pieces]
    assert [len(one) for one in chunks[1:-1]] == sizes
    assert [event for one in chunks for event in one] == [*before, *deltas, *after, b""]


@pytest.mark.parametrize("api", APIS)
def test_a_request_is_answered_by_the_plan_in_its_model(api: Api) -> None:
    """The plan travels as the model's name, whoever forwards the request."""
    plan = Plan(api, 6, 2, 200)
    pieces = answer(PATHS[api], json.dumps(request_body(api, plan.model)).encode())
    assert pieces == (script.writes(plan, api == "chat"), 0.2)


@pytest.mark.parametrize(
    ("path", "request_text"),
    [
        ("/v1/responses", json.dumps(request_body("chat", Plan("chat", 5).model))),
        ("/v1/chat/completions", json.dumps(request_body("chat", "gpt-5"))),
        ("/v1/chat/completions", json.dumps({"model": 5, "stream": True})),
        ("/v1/chat/completions", "[]"),
        ("/v1/chat/completions", ""),
    ],
)
def test_other_requests_are_refused(path: str, request_text: str) -> None:
    """The wrong path, another model, no JSON: none of it gets an answer."""
    assert answer(path, request_text.encode()) is None


@pytest.mark.parametrize(
    "model",
    [
        "",
        "bench-chat-0-1-0-plain",
        "bench-chat-5-0-0-plain",
        "bench-x-5-1-0-plain",
        "bench-chat-5-1-0-fancy",
        "bench-responses-5-1-0-stamped",
    ],
)
def test_what_is_no_plan(model: str) -> None:
    """A name that is no plan's is none, and neither is a plan without events."""
    assert parse_plan(model) is None


# The order checker.


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("size", [1, 7, 100, 10**6])
def test_whole_streams_pass_however_they_are_cut(api: Api, size: int) -> None:
    """A good stream has no fault, and all its tokens are counted, cut at any byte."""
    data = body(Plan(api, 40), usage=True)
    check = order.StreamCheck(api, 40)
    counted = sum(check.feed(data[at : at + size]) for at in range(0, len(data), size))
    assert (counted, check.fault()) == (40, None)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("lose 3", "tokens lost"),
        ("lose the last", "cut short"),
        ("repeat 3", "tokens repeated"),
        ("swap 3 and 4", "tokens out of order"),
        ("repeat all", "tokens repeated"),
        ("lose all", "cut short"),
        ("one too many", "tokens too many"),
    ],
)
def test_broken_order_is_noticed(api: Api, change: str, expected: str) -> None:
    """Loss, repetition and swaps are faults, each by its name."""
    before, deltas, after = script.events(Plan(api, 10), usage=True)
    changed = {
        "lose 3": deltas[:3] + deltas[4:],
        "lose the last": deltas[:-1],
        "repeat 3": [*deltas[:4], *deltas[3:]],
        "swap 3 and 4": [*deltas[:3], deltas[4], deltas[3], *deltas[5:]],
        "repeat all": deltas * 2,
        "lose all": [],
        "one too many": script.events(Plan(api, 11), usage=True)[1],
    }[change]
    assert fault(api, 10, b"".join([*before, *changed, *after])) == expected


@pytest.mark.parametrize("api", APIS)
def test_a_stream_without_its_end_is_noticed(api: Api) -> None:
    """All tokens are not enough: the stream must end as its API ends."""
    before, deltas, after = script.events(Plan(api, 10), usage=True)
    begun = b"".join([*before, *deltas])
    for kept in range(len(after)):
        assert fault(api, 10, begun, *after[:kept]) == "not ended"
    assert fault(api, 10, begun, after[-1][:-30]) == "not ended"
    assert fault(api, 10, begun, *after) is None


def test_a_chat_stream_needs_its_finish_reason() -> None:
    """`[DONE]` after nothing but tokens is no good end."""
    before, deltas, after = script.events(Plan("chat", 4), usage=False)
    assert fault("chat", 4, b"".join([*before, *deltas, after[-1]])) == "not ended"


def test_an_error_after_the_end_is_noticed() -> None:
    """Whatever follows the last event of the API is a fault."""
    for api in APIS:
        data = body(Plan(api, 4))
        assert fault(api, 4, data + b'data: {"error":{"message":"no"}}\n\n') == "not ended"


def test_the_final_response_must_hold_the_whole_text() -> None:
    """A completed Response whose text differs from the deltas is a fault."""
    before, deltas, after = script.events(Plan("responses", 4), usage=False)
    final = after[-1].replace(order.token(2).encode(), b"")
    assert fault("responses", 4, b"".join([*before, *deltas, *after[:-1], final])) == "not ended"


# Statistics and CPU time.


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([3.0, 1.0, 2.0], measure.Spread(2.0, 1.0, 3.0)),
        ([4.0, 1.0, 2.0, 3.0], measure.Spread(2.5, 1.0, 4.0)),
        ([7.0], measure.Spread(7.0, 7.0, 7.0)),
    ],
)
def test_spread(values: list[float], expected: measure.Spread) -> None:
    """Median between least and greatest, whatever the order of the runs."""
    assert measure.spread(values) == expected


def test_no_figure_without_runs() -> None:
    """The spread of nothing is an error, not a zero."""
    with pytest.raises(ValueError, match="no values"):
        measure.spread([])


def result(tokens: int, cpu_us: float, **faults: int) -> Result:
    return Result(2.0, tokens, 4, cpu_us, 1e5, 1e6, 8, faults)


def both(floor: Result, gateway: Result) -> Round:
    return {"floor": floor, "nursling": gateway}


def test_summary_of_the_rounds() -> None:
    """The ratio is taken within each round, then its median; faults of all runs add up."""
    scenario = scenarios(Timing(), 16)[0]
    row = summarize(
        scenario,
        [
            both(result(100, 100), result(100, 1000)),
            both(result(100, 200), result(200, 8000, lost=2)),
            both(result(100, 400, lost=1), result(100, 12000)),
        ],
    )
    ours, floor = row.figures["nursling"], row.figures["floor"]
    assert ours.cost == measure.Spread(40.0, 10.0, 120.0)
    assert floor.cost == measure.Spread(2.0, 1.0, 4.0)
    assert (ours.ratio, floor.ratio) == (measure.Spread(20.0, 10.0, 30.0), None)
    assert ours.rate == measure.Spread(50.0, 50.0, 100.0)
    assert ours.busy == measure.Spread(0.004, 0.0005, 0.006)
    assert (row.streams, row.faults) == (48, {"lost": 3})


def test_summary_of_a_run_without_events() -> None:
    """A gateway through which nothing came has no finite cost."""
    row = summarize(scenarios(Timing(), 16)[0], [both(result(10, 10), result(0, 5))])
    assert row.figures["nursling"].cost == measure.Spread(*[float("inf")] * 3)


def test_the_cost_of_whole_replies_is_by_request() -> None:
    """Where no events come, what is divided by is requests."""
    scenario = Scenario("whole", "chat", Plan("chat", 5), 1, whole=True)
    row = summarize(scenario, [both(result(0, 40), result(0, 400))])
    assert row.figures["nursling"].cost == measure.Spread(*[100.0] * 3)
    assert row.figures["nursling"].rate == measure.Spread(*[2.0] * 3)


def test_quantiles() -> None:
    """Nearest ranks; nothing of nothing."""
    assert measure.quantiles(range(101)) == measure.Quantiles(101, 50, 90, 99)
    assert measure.quantiles([7.0]) == measure.Quantiles(1, 7, 7, 7)
    assert measure.quantiles([]) is None


@pytest.mark.skipif(not measure.PROC.exists(), reason="CPU time is read from /proc")
def test_cpu_time_counts_the_descendants() -> None:
    """A process is charged for what its children burn."""
    burn = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    before = measure.times(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert len(measure.descendants(process.pid)) == 1
        assert measure.times(process.pid).cpu >= 200_000_000
        assert measure.times(os.getpid()).since(before).cpu >= 200_000_000
        process.communicate(b"\n")


def test_cpu_time_is_of_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running and waiting are added up over the threads of a process, in nanoseconds."""
    for thread, schedstat in [("77", "1000 20 3"), ("78", "500 7 1")]:
        (tmp_path / "77" / "task" / thread).mkdir(parents=True)
        (tmp_path / "77" / "task" / thread / "schedstat").write_text(f"{schedstat}\n")
    monkeypatch.setattr(measure, "PROC", tmp_path)
    assert measure.times(77) == measure.Times(1500, 27)


def test_cpu_time_without_scheduler_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the kernel has no schedstat, the ticks of stat are used; without both it is said."""
    fields = ["R", "1", *["0"] * 9, "120", "30", *["0"] * 30]
    (tmp_path / "77" / "task" / "77").mkdir(parents=True)
    (tmp_path / "77" / "stat").write_text(f"77 (a ) b) {' '.join(fields)}\n")
    monkeypatch.setattr(measure, "PROC", tmp_path)
    assert measure.times(77) == (150 * 1_000_000_000 // os.sysconf("SC_CLK_TCK"), 0)
    with pytest.raises(measure.Unmeasurable):
        measure.times(78)


# What is run.


@pytest.mark.parametrize(
    ("available", "pinned", "expected"),
    [
        ([], True, Cores()),
        ([3], True, Cores()),
        ([5, 2], True, Cores(frozenset({2}), frozenset({5}))),
        ([5, 2], False, Cores()),
    ],
)
def test_cores(available: list[int], pinned: bool, expected: Cores) -> None:
    """Gateway and load are on different cores, where there are two."""
    assert choose_cores(available, pinned=pinned) == expected


def test_scenarios_cover_every_route() -> None:
    """Both client APIs meet both upstream APIs, saturated and paced."""
    names = {one.name for one in scenarios(Timing(), 16)}
    routes = [f"{client}-{upstream}" for client in APIS for upstream in APIS]
    assert {f"{one}-{load}" for one in routes for load in ("saturated", "paced")} < names
    assert {"chat-chat-bursts", "chat-chat-crowd", "chat-chat-slow"} < names
    assert {"chat-chat-openai-paced", "responses-responses-openai-paced"} < names


def test_paced_streams_outlast_the_window() -> None:
    """No paced stream ends before the window does, or the load would sag."""
    timing = Timing(seconds=2.0)
    for one in scenarios(timing, 16):
        if one.plan.pause:
            lasting = one.plan.events * one.plan.interval
            assert lasting >= one.ramp + timing.warm_up + timing.seconds


@pytest.mark.parametrize(
    ("patterns", "count"),
    [((), 16), (("chat-chat-*",), 8), (("*-paced", "chat-chat-bursts"), 7), (("nothing",), 0)],
)
def test_selection(patterns: tuple[str, ...], count: int) -> None:
    """Patterns choose scenarios by name; without any, all are run."""
    assert len(select(scenarios(Timing(), 16), patterns)) == count


def test_the_gateway_is_told_every_plan() -> None:
    """The configuration is one that the gateway takes, with each plan at its upstream."""
    plans = {one.plan for one in scenarios(Timing(), 16)}
    config = config_from_dict(tomllib.loads(nursling_file(plans, 8000, 9000)), environ={})
    assert {(one.id, one.provider) for one in config.models} == {
        (plan.model, plan.api) for plan in plans
    }
    assert config.server.port == 8000
    assert config.limits.max_streams > max(one.streams for one in scenarios(Timing(), 16))
    assert {one.api for one in config.providers.values()} == {
        "openai-completions",
        "openai-responses",
    }


def test_litellm_is_told_every_plan() -> None:
    """Its file names each model, and how to ask the upstream for it."""
    plans = [Plan("chat", 5), Plan("responses", 5)]
    models = json.loads(litellm_file(plans, 8000, 9000))["model_list"]
    assert [one["model_name"] for one in models] == [plan.model for plan in plans]
    assert models[0]["litellm_params"]["model"] == f"openai/{plans[0].model}"
    assert models[1]["litellm_params"]["api_base"] == "http://127.0.0.1:9000/v1"
