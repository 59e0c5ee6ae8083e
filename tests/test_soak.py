"""A soak notices what it is there to notice; a short one runs against the real gateway.

What needs no process is tested without one.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from bench import soak, soak_report
from bench.measure import descriptors, resident
from bench.plan import PATHS, Api
from bench.processes import ROOT, Failed
from bench.report import Machine
from bench.soak_check import TaleCheck
from bench.soak_load import Client, Clients, Order, Progress, request_bytes
from bench.soak_lulls import BUSY, CALM, SETTLE, Lulls
from bench.soak_memory import Growth, Reading, growth, least_squares
from bench.soak_plan import MODELS, Lane, Load, Patience, Tale, parse_tale
from bench.soak_report import End, Soak
from bench.soak_upstream import answer, writes
from nursling.transports.config import config_from_dict


APIS: list[Api] = ["chat", "responses"]
TALE = Tale(7, 12, 0, 20)


def body(tale: Tale, api: Api) -> bytes:
    """A tale as the upstream tells it, without its HTTP chunks."""
    data, found = b"".join(writes(tale, api, MODELS[api], usage=False)), b""
    while data:
        size, _, data = data.partition(b"\r\n")
        found, data = found + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return found


def checked(api: Api, data: bytes, tale: Tale = TALE) -> TaleCheck:
    check = TaleCheck(tale, api)
    check.feed(data)
    return check


# Tales.


def test_a_tale_is_said_by_its_name() -> None:
    """The prompt is all that the upstream needs; what is no tale's name is none."""
    assert parse_tale(TALE.name) == TALE
    assert [*TALE.tokens()][3] == "000007.000003~~~~~~~"
    for name in ("", "soak-1-2-3", "soak-1-0-1-14", "soak-1-1-1-13", "bench-chat-1-1-1"):
        assert parse_tale(name) is None


@pytest.mark.parametrize("api", APIS)
def test_the_upstream_tells_what_it_is_asked(api: Api) -> None:
    """Each client gets the tale of its own prompt, in either API; others get nothing."""
    asked = request_bytes(Lane(api, api, 1), Tale(3, 4, 20).name).partition(b"\r\n\r\n")[2]
    found = answer(PATHS[api], asked)
    assert found is not None
    assert found[1] == 0.05
    assert b"000003.000003" in b"".join(found[0])
    assert answer("/v1/models", asked) is None
    assert answer(PATHS[api], b"{}") is None


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("size", [1, 7, 10**6])
def test_a_whole_tale_passes_however_it_is_cut(api: Api, size: int) -> None:
    """A good stream has no fault, cut at any byte."""
    data = body(TALE, api)
    check = TaleCheck(TALE, api)
    for at in range(0, len(data), size):
        check.feed(data[at : at + size])
    assert (check.tokens, check.fault()) == (12, None)


def token(place: int, number: int = 7) -> bytes:
    return f"{number:06d}.{place:06d}".ljust(20, "~").encode()


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (token(5), token(5, number=8), "tokens of another stream"),
        (token(5), token(6), "tokens repeated"),
        (token(5), token(5)[:-1] + b"-", "text is not as it was said"),
        (token(5), b"", "tokens lost"),
        (token(11), b"", "cut short"),
        (token(11), token(12), "tokens too many"),
    ],
)
def test_a_changed_tale_is_noticed(api: Api, old: bytes, new: bytes, fault: str) -> None:
    """Loss, repetition, another stream's words and a changed letter are faults by name."""
    assert checked(api, body(TALE, api).replace(old, new)).fault() == fault


@pytest.mark.parametrize("api", APIS)
def test_a_swap_is_noticed(api: Api) -> None:
    """Two tokens in the wrong order are one, also where nothing is missing."""
    data = body(TALE, api).replace(token(5), b"?").replace(token(6), token(5))
    assert checked(api, data.replace(b"?", token(6))).fault() == "tokens out of order"


@pytest.mark.parametrize("api", APIS)
def test_a_tale_must_end(api: Api) -> None:
    """All tokens are not enough; as far as it came it was good."""
    data = body(TALE, api)
    cut = checked(api, data[: data.rindex(b"data:")])
    assert (cut.fault(), cut.fault_so_far()) == ("not ended", None)
    assert checked(api, data + b'data: {"type":"error"}\n\n').fault() == "more after the end"
    assert checked(api, b"data: nonsense\n\n").fault() == "not an event of its API"


def test_an_error_in_a_stream_is_named() -> None:
    """What the gateway says went wrong is what the report says."""
    assert checked("chat", b'data: {"error":{"code":"x"}}\n\n').fault() == "error x"
    assert checked("responses", b'data: {"type":"error"}\n\n').fault() == "error"


# The load.


def test_the_lanes_of_the_load() -> None:
    """1,000 and 100 streams over four routes evenly, and one client in twenty that stops."""
    lanes = Load().lanes()
    routes = Counter((lane.client, lane.upstream) for lane in lanes if lane.rate)
    assert set(routes.values()) == {275}
    assert Counter(lane.rate for lane in lanes) == {1: 1000, 20: 100, 0: 58}
    assert Counter(lane.manner for lane in lanes) == {"reads": 1100, "naps": 29, "is stuck": 29}


def test_tales_end_before_the_run_does() -> None:
    """Near the end streams are shorter, so that they arrive whole."""
    draw = random.Random(1)  # noqa: S311 - a test draws
    tales = [Load().tale(Lane("chat", "chat", 20), number, 9.0, draw) for number in range(50)]
    assert {tale.events for tale in tales} == {180}


def test_a_lull_waits_for_the_last_lazy_stream() -> None:
    """Nobody lazy begins until the last has ended, things have settled, and the lull is over."""
    lulls = Lulls(100.0)
    closes = 100 + BUSY
    assert lulls.open(closes - 1)
    assert lulls.look(closes - 1, 0) == 0  # by chance nobody is at work
    assert not lulls.open(closes)
    assert [lulls.look(closes + second, 58 - second) for second in range(58)] == [0] * 58
    calm = closes + 58 + SETTLE
    assert lulls.look(calm - SETTLE, 0) == lulls.look(calm - 1, 0) == 0
    assert lulls.look(calm, 0) == lulls.look(calm + CALM - 1, 0) == 1
    assert not lulls.open(calm + CALM - 1)
    assert lulls.look(calm + CALM, 0) == 0
    assert lulls.crowd  # the worst moment, while nobody judges yet
    assert lulls.open(calm + CALM)
    over = calm + CALM + BUSY
    assert (lulls.look(over, 0), lulls.look(over + SETTLE, 0)) == (0, 2)
    assert not lulls.crowd


def test_lazy_clients_wait_for_the_end_of_a_lull(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a lull they ask for nothing; behind the first all begin at once, later each by itself."""
    monkeypatch.setattr("bench.soak_load.say", lambda _: None)
    everyone = Clients(Order(1, Load(), Patience(10.0), 1800.0, 1))
    lazy = [Client(everyone, Lane("chat", "chat", 0, "naps")) for _ in range(20)]
    monkeypatch.setattr(everyone.lulls, "open", lambda _: False)
    for client in lazy:
        client.next()
    begun: list[float] = []
    monkeypatch.setattr(everyone, "at", lambda when, _: begun.append(when - everyone.began))
    everyone._tell()
    assert (everyone.open, len(begun)) == (0, 1)  # it tells again, a second later
    monkeypatch.setattr(everyone.lulls, "open", lambda _: True)
    everyone._tell()
    assert len(set(begun[2:])) == 1
    everyone.waiting = lazy
    begun.clear()
    monkeypatch.setattr(Lulls, "crowd", False)
    everyone._tell()
    assert len({round(when, 1) for when in begun[1:]}) > 15
    assert max(begun) - min(begun) > Patience(10.0).stuck / 2


@pytest.mark.parametrize(
    ("streams", "comparable"), [(1067, True), (1158, True), (1066, False), (None, False)]
)
def test_a_gateway_that_lags_is_not_compared(
    monkeypatch: pytest.MonkeyPatch, streams: int | None, comparable: bool
) -> None:
    """It has fewer of the 1,100 streams that are read than it should, or does not even answer."""

    def in_flight(_port: int, patience: float) -> int:
        if streams is None:
            raise Failed(f"nothing in {patience} s")
        return streams

    monkeypatch.setattr(soak, "in_flight", in_flight)
    assert soak.full(1, Load()) is comparable


def test_the_gateway_is_configured() -> None:
    """The configuration is one that the gateway takes, with room for every client."""
    text = soak.configuration(Load(), Patience(10.0), 8000, 9000)
    config = config_from_dict(tomllib.loads(text), environ={})
    assert {one.id for one in config.models} == set(MODELS.values())
    assert config.limits.write_timeout == 10
    assert config.limits.max_streams > 1158
    assert config.limits.max_connections > 2316


# Memory.


def readings(per_hour: float, noise: float = 0.0, count: int = 600) -> list[Reading]:
    return [
        Reading(float(at), 100 + per_hour * at / 3600 + noise * (at * 7919 % 13 - 6) / 6)
        for at in range(count)
    ]


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (readings(0), "flat"),
        (readings(1.9), "flat"),
        (readings(2.1), "grows"),
        (readings(60, noise=1), "grows"),
        (readings(-50), "flat"),
        (readings(60, count=30), "cannot tell"),
        ([*readings(0)[:300], *(one._replace(mib=109) for one in readings(0)[300:])], "grows"),
        ([], "cannot tell"),
    ],
)
def test_growth(seen: list[Reading], verdict: str) -> None:
    """A slope beyond the limit is growth, below it is none; too little to go by is neither."""
    assert growth(seen, since=0, limit=2).verdict == verdict


def test_growth_that_is_drowned_in_noise() -> None:
    """Where the error is larger than the limit nothing is concluded."""
    rng = random.Random(3)  # noqa: S311 - a test draws
    seen = [(at, mib + rng.gauss(0, 1) * (at // 50 % 3)) for at, mib, _ in readings(1)]
    waves = [Reading(at, mib + 5 * (at // 50 % 3)) for at, mib in seen]
    assert growth(waves, since=0, limit=2).verdict == "cannot tell"


def lazy_readings(per_hour: float, *, minutes: int = 20, noise: float = 0.1) -> list[Reading]:
    """Of streams that hold up to 140 MiB for a while, and lulls of 12 s every 100 s."""
    rng = random.Random(5)  # noqa: S311 - a test draws
    seen: list[Reading] = []
    for at in range(minutes * 60):
        lull = at // 100 + 1 if at % 100 >= 88 else 0
        held = 0.0 if lull else rng.uniform(2, 140)
        seen.append(Reading(at, 220 + per_hour * at / 3600 + held + rng.gauss(0, noise), lull))
    return seen


@pytest.mark.parametrize(
    ("seen", "verdict"),
    [
        (lazy_readings(0), "flat"),
        (lazy_readings(1.5), "flat"),
        (lazy_readings(4), "grows"),
        (lazy_readings(0, noise=3), "cannot tell"),
        (lazy_readings(60, minutes=5), "cannot tell"),  # three lulls
        (lazy_readings(-20), "flat"),
    ],
)
def test_growth_from_lull_to_lull(seen: list[Reading], verdict: str) -> None:
    """A leak shows though the waves of what streams hold are thirty times larger."""
    found = growth(seen, since=0, limit=2, lulls=True)
    assert found.verdict == verdict
    assert found.lulls == len(seen) // 100
    assert found.high < 260 < found.peak
    assert growth(seen, since=0, limit=2).verdict == "cannot tell"  # what the line was before


def test_what_a_lull_finds_left_behind_is_growth() -> None:
    """A stream that leaves 10 KiB, a few thousand times: each lull stands higher."""
    seen = [
        Reading(
            float(at), 220 + 140 * (at % 100 < 88) + at // 100 * 0.5, (at % 100 >= 88) * at // 100
        )
        for at in range(100, 1300)
    ]
    found = growth(seen, since=0, limit=2, lulls=True)
    assert found.verdict == "grows"
    assert found.per_hour == pytest.approx(18)


def test_a_lull_of_few_readings_is_left_out() -> None:
    """The run ended in its midst: it is no point of the line."""
    seen = [*lazy_readings(0), *(Reading(1200 + at, 999.0, 99) for at in range(4))]
    assert growth(seen, since=0, limit=2, lulls=True).lulls == 12


def test_least_squares() -> None:
    """The slope is per hour, with the textbook's error of it."""
    points = [Reading(0, 1), Reading(3600, 3), Reading(7200, 2), Reading(10800, 4)]
    slope, error = least_squares(points)
    assert slope == pytest.approx(0.8)
    assert error == pytest.approx(0.4242640687)


@pytest.mark.skipif(not Path("/proc").exists(), reason="read from /proc")
def test_readings_of_a_process() -> None:
    """Memory in MiB and descriptors are those of the process."""
    with subprocess.Popen(
        [sys.executable, "-c", "x = b'x' * (1 << 27); print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 128 < resident(process.pid) < 160
        assert descriptors(process.pid) >= 3
        process.communicate(b"\n")


# The laws.


def result(end: End, memory: Growth, **faults: int) -> Soak:
    seen = Progress(60.0, 0, 1000, 10, 2, 1, 1, faults, over=True)
    return Soak(
        started="", gateway_command="", duration=60.0, seed=1, load=Load(), patience=Patience(10.0),
        machine=Machine("", "", "", 2, {}), progress=seen, memory=memory, limit=2.0, end=end,
        readings=[],
    )  # fmt: skip


FLAT = Growth("flat", 0.1, 0.1, 10.0, 50.0, 99.0, 100.0)
CLEAN = End(0, 0, 0, 100.0, status=0)


@pytest.mark.parametrize(
    ("seen", "broken"),
    [
        (result(CLEAN, FLAT), None),
        (result(CLEAN, FLAT, lost=1), "nothing lost"),
        (result(msgspec.structs.replace(CLEAN, in_flight=1), FLAT), "everything"),
        (result(msgspec.structs.replace(CLEAN, gateway_descriptors=1), FLAT), "everything"),
        (result(msgspec.structs.replace(CLEAN, upstream_connections=1), FLAT), "everything"),
        (result(msgspec.structs.replace(CLEAN, bugs=1), FLAT), "no bug"),
        (result(msgspec.structs.replace(CLEAN, status=None), FLAT), "SIGTERM"),
        (result(CLEAN, msgspec.structs.replace(FLAT, verdict="grows")), "memory"),
    ],
)
def test_each_law_can_be_broken(seen: Soak, broken: str | None) -> None:
    """Each law is broken by what it is about, and by nothing else."""
    names = [law.name for law in soak_report.laws(seen) if law.kept is False]
    assert len(names) == (broken is not None)
    assert not broken or names[0].startswith(broken)


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        (growth([], since=9, limit=2, lulls=True), "up to 0.0 MiB; nothing to compare"),
        (
            growth([Reading(1, 99)], since=0, limit=2, lulls=True),
            "up to 99.0 MiB; nothing to compare",
        ),
        (FLAT, "+0.1 ± 0.1 MiB/h; 99.0 to 100.0 MiB in 0.8 min after 0.2 min"),
        (growth(lazy_readings(0, minutes=5), since=0, limit=2, lulls=True), "too short to tell"),
        (
            growth(lazy_readings(0), since=0, limit=2, lulls=True),
            "in 12 lulls, when nobody was lazy",
        ),
    ],
)
def test_what_is_said_of_memory(memory: Growth, said: str) -> None:
    """The line stands with its error, the lulls and the peak; without a line none is made up."""
    shown = soak_report.laws(result(CLEAN, memory))[3].seen
    assert said in shown
    assert ("±" in said or "lulls" in said) == ("±" in shown)


# The command.


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_short_soak(tmp_path: Path) -> None:
    """Twenty seconds against the real gateway: no law is broken, and each manner was seen."""
    path = tmp_path / "result.json"
    command = [sys.executable, "-m", "bench", "soak", "--duration=20", "--streams=100",
               "--quick=10", "--write-timeout=2", f"--json={path}"]  # fmt: skip
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = msgspec.json.decode(path.read_bytes(), type=Soak)
    seen = found.progress
    assert seen.faults == {}
    assert min(seen.whole, seen.left, seen.napped, seen.cut) > 0
    assert found.end.clean
