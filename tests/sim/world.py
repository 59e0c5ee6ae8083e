"""`World(seed)`: the whole gateway between drawn clients and drawn upstreams, in virtual time."""

from __future__ import annotations

import random
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from unittest import mock

import msgspec
import structlog
import trio
from trio.testing import MockClock

from nursling.engine.errors import ConnectFailed
from nursling.engine.formats.base import Identity
from nursling.engine.limits import KIB
from nursling.transports.background import beside
from nursling.transports.config import Config, Model, Provider
from nursling.transports.engine import Engine
from nursling.transports.http.app import create_app
from nursling.transports.http.gateway import Record
from nursling.transports.http.server import serve_on
from nursling.transports.secret import Secret
from nursling.transports.upstream.client import HttpClient
from nursling.transports.upstream.pool import Origin
from nursling.transports.wire import StreamWire, Wire
from support.network import stock_on
from support.scripted import APIS

from .client import Client
from .draw import Deal, Guest, deal
from .judge import judge
from .net import Chance, End, EndWire, Listener, connection
from .upstream import Fate, Upstream


NOTHING: Mapping[str, float] = MappingProxyType({})

PATIENCE = 10_000.0
"""Virtual seconds after which a world is stuck."""

SETTLE = 6.0
"""Virtual seconds after the last client in which all connections must be closed: longer than idle
ones are kept, and than a closing may take."""


HOOKED = 0.2
"""Share of the worlds in which an embedder has put a hook before the gateway's requests."""
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Nobody is spoken to by TLS here; the system's certificates would take half of a world's time."""


@dataclass
class World:
    """One seed's world. `run` plays it; then `failures` says what was wrong with it."""

    seed: int
    strict: bool = False
    """Hold every answer to the finer laws of its API, too."""
    sabotage: Mapping[str, float] = field(default_factory=dict)
    """Limits that the gateway is given in place of those that the laws go by."""
    plan: Deal | None = None
    """A world that was not drawn."""
    failures: list[str] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    """How the requests ended: what the world was made of."""

    def __post_init__(self) -> None:
        self.deal: Deal = self.plan or deal(self.seed)
        self.chance = Chance(random.Random(f"run {self.seed}"))  # noqa: S311 - as in `draw.py`
        self.fates = {ask.tag: Fate(ask) for ask in self.deal.asks}
        self.records: list[Record] = []
        self._lines: list[End] = []
        """The gateway's ends of all connections: to clients and to upstreams."""
        self._live: list[Fate] = []
        self._listener = Listener()
        self.stopped_at: float | None = None

    def run(self, *instruments: trio.abc.Instrument) -> World:
        """Play the world; the same for the same seed."""
        scheduler = trio._core._run  # the only way to seed it
        scheduler._r.seed(self.seed)
        clock = MockClock(autojump_threshold=0)  # keeps the real `perf_counter` to itself
        with (
            mock.patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
            _virtual_time(),
            mock.patch("nursling.transports.http.server.wire_of", self._wire_of),
            structlog.testing.capture_logs() as log,
        ):
            try:
                trio.run(self._play, clock=clock, instruments=instruments)
            except trio.TooSlowError:
                self.failures.append(f"the world was not over after {PATIENCE:g} s")
        self.failures += [f"log: {line}" for line in log if line["log_level"] == "error"]
        self.failures += [f"bug: {record.bug}" for record in self.records if record.bug]
        self.give_verdicts()
        return self

    def give_verdicts(self) -> None:
        """Judge every request."""
        for fate in self.fates.values():
            judge(self, fate)

    # What happens is told here.

    def note(self, what: str) -> None:
        """Write a line of the trace."""
        self.trace.append(f"{trio.current_time():9.3f} {what}")

    def broken(self, fate: Fate, law: str) -> None:
        """Say that a law was broken."""
        self.failures.append(f"{fate.ask.tag}: {law}")

    def began(self, fate: Fate) -> None:
        """An upstream has a request: count those that are at work."""
        self._live = [one for one in self._live if not one.done and _open(one.line)]
        if not _open(fate.line):
            return  # it was given up before it arrived
        self._live.append(fate)
        if len(self._live) > self.deal.limits.max_streams:
            self.broken(fate, f"{len(self._live)} requests are in flight at once")
        api = fate.ask.script.api
        cap = self.deal.caps[api]
        if cap and sum(one.ask.script.api == api for one in self._live) > cap:
            self.broken(fate, f"more than {cap} requests are in flight at {api}")

    def look_at_the_stuck(self, fate: Fate, end: End) -> None:
        """A client has not read for long: it must have been cut, and must not have been filled."""
        if end.incoming.longest_block > self.deal.limits.write_timeout + 1 or (
            fate.line is not None
            and fate.ask.stream
            and not fate.done
            and _open(fate.line)
            and fate.ask.script.upset == ""
            and fate.ask.script.long
        ):
            self.broken(fate, "a client that does not read is not cut")
        ahead = fate.out - end.incoming.sent
        event = self.deal.limits.max_event_bytes if fate.ask.script.upset == "giant" else 0
        bound = 13 * self.deal.capacity + 64 * KIB + event
        if fate.streamed and fate.ask.stream and ahead > bound:
            self.broken(fate, f"{ahead} bytes were read ahead of a client that does not read")

    # The world itself.

    async def _play(self) -> None:
        tasks = trio.lowlevel.current_statistics().tasks_living
        with trio.fail_after(PATIENCE):
            async with self._gateway() as (engine, client), trio.open_nursery() as upstreams:
                self._upstreams = upstreams
                async with self._serving(engine), trio.open_nursery() as guests:
                    for guest in self.deal.guests:
                        guests.start_soon(self._visit, guest)
                await trio.sleep(SETTLE)
                self._look_behind(engine, client)
                upstreams.cancel_scope.cancel()
        left = trio.lowlevel.current_statistics().tasks_living - tasks
        if left:
            self.failures.append(f"{left} tasks are left")

    @asynccontextmanager
    async def _gateway(self) -> AsyncGenerator[tuple[Engine, HttpClient]]:
        limits = msgspec.structs.replace(self.deal.limits, **self.sabotage)
        providers = {
            f"{api}{trouble}": Provider(
                base_url=f"http://{api}{trouble}.sim/v1",
                api="openai-completions" if api == "chat" else "openai-responses",
                max_streams=self.deal.caps[api],
                proxy=Secret(f"http://{api}{trouble}.sim:3128") if self.deal.proxied else None,
            )
            for api in APIS
            for trouble in ("", "-refused", "-hang")
        }
        models = [
            *(Model(id=name, provider=name, upstream_model="m") for name in providers),
            *(Model(id=f"{api}-fold", provider=api, upstream_model="m", fold=True) for api in APIS),
        ]
        config = Config(providers=providers, models=tuple(models), limits=limits)
        made = HttpClient(self._dial_wire, limits, stock=stock_on(self._connect), tls=NO_TLS)
        async with made as client, beside(client.sweep):
            self.engine = Engine(config, client, {})
            yield self.engine, client

    @asynccontextmanager
    async def _serving(self, engine: Engine) -> AsyncGenerator[None]:
        counter = iter(range(1, 1 << 30))
        app = create_app(
            engine,
            log=self.records.append,
            new_identity=lambda: Identity(f"{next(counter):032x}", 1),
            hosts=(),
        )
        if random.Random(f"hooks {self.seed}").random() < HOOKED:  # noqa: S311 - no secret
            app.before_request(_look)
        limits = engine.limits
        stop, now = trio.Event(), trio.Event()
        async with trio.open_nursery() as nursery:

            async def serve() -> None:
                await serve_on(
                    app,
                    [self._listener],
                    stop=stop,
                    now=now,
                    limits=limits,
                    on_drain=app.drain,
                    on_drained=app.end_streams,
                )
                took = trio.current_time() - (self.stopped_at or 0.0)
                if took > limits.drain_timeout + 5:
                    self.failures.append(f"the server took {took:g} s to stop")

            async def stop_early(at: float) -> None:
                await trio.sleep(at)
                tell_to_stop()

            def tell_to_stop() -> None:
                if self.stopped_at is None:
                    self.stopped_at = trio.current_time()
                    self.note("the server is told to stop")
                    stop.set()

            nursery.start_soon(serve)
            if self.deal.stop_at is not None:
                nursery.start_soon(stop_early, self.deal.stop_at)
            yield
            tell_to_stop()

    async def _visit(self, guest: Guest) -> None:
        await trio.sleep(guest.start)
        ours, theirs = connection(self.chance, capacity=guest.capacity, latency=guest.latency)
        self._lines.append(theirs)
        try:
            self._listener.connect(theirs)
        except OSError:
            await theirs.aclose()
            return
        self.client = Client(self, guest, ours)
        await self.client.run()

    def _wire_of(self, end: End) -> Wire:
        """Make the server's side of a connection: mostly like a socket, or like TLS."""
        return (EndWire if self.chance.random.random() < 0.75 else StreamWire)(end)

    async def _dial_wire(self, origin: Origin) -> Wire:
        return EndWire(await self._dial(origin[1]))

    async def _connect(self, host: str) -> tuple[End, Wire]:
        """Connect to a proxy, which is its upstream."""
        end = await self._dial(host)
        return end, EndWire(end)

    async def _dial(self, host: str) -> End:
        """Connect to an upstream, unless its host is one of those that cannot be reached."""
        self.note(f"{host} is dialled")
        await trio.lowlevel.checkpoint()
        await self.chance.jitter()
        if host.endswith("-refused.sim"):
            raise ConnectFailed("no connection to the upstream", detail="refused")
        if host.endswith("-hang.sim"):
            await self._hang()
        ours, theirs = connection(
            self.chance, capacity=self.deal.capacity, latency=self.deal.latency
        )
        self._lines.append(ours)
        self._upstreams.start_soon(Upstream(self, theirs, ours).serve)
        return ours

    async def _hang(self) -> None:
        since = trio.current_time()
        try:
            await trio.sleep_forever()
        finally:
            took = trio.current_time() - since
            if took > self.deal.limits.connect_timeout + 0.1:
                self.failures.append(f"dialling was given up after {took:g} s only")

    def _look_behind(self, engine: Engine, client: HttpClient) -> None:
        """Everybody has left: nothing may be left of them."""
        if engine.gate.open:
            self.failures.append(f"{engine.gate.open} slots are taken")
        for name, limiter in client._limiters.items():
            if limiter.borrowed_tokens:
                self.failures.append(f"{limiter.borrowed_tokens} tokens of {name} are borrowed")
        left = sum(_open(line) for line in self._lines)
        if left:
            self.failures.append(f"{left} connections are open")


async def _look() -> None:
    """Be an embedder's hook: everything goes through Quart then.

    One that is not async would be a thread's work there, which knows no virtual time.
    """


def _open(line: End | None) -> bool:
    return line is not None and line.closed_at is None


@contextmanager
def _virtual_time() -> Generator[None]:
    """Let the program's clocks of real time show virtual time too."""
    with (
        mock.patch("time.perf_counter", trio.current_time),
        mock.patch("time.monotonic", trio.current_time),  # httpcore's
        mock.patch("time.time", return_value=1_790_000_000.0),
    ):
        yield


def play(seed: int, *, strict: bool = False, sabotage: Mapping[str, float] = NOTHING) -> World:
    """Play the world of a seed."""
    return World(seed, strict, sabotage).run()
