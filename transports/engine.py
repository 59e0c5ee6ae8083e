"""The composition root for embedders and for the gateway: a configuration, made to run.

    async with open_engine(config) as engine:
        async with engine.stream(request) as reply:
            async for event in reply:
                ...

The law of this file: everything an engine holds is closed when its block ends, and nothing is
global: two engines in one process know nothing of each other.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any

from nursling.engine.errors import BadRequest, Draining, LocalProtocolError
from nursling.engine.formats.base import Format
from nursling.engine.formats.responses.recall import Recall
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Reply, Target, Upstream, open_reply
from nursling.engine.request import Request

from .background import beside
from .catalog import Catalog
from .config import DEMO, Config, Provider
from .formats import FORMATS
from .gate import Gate
from .keys import Keys
from .upstream.client import HttpClient
from .upstream.demo import DemoUpstream


class Engine:
    """A running configuration. Made by `open_engine`."""

    def __init__(
        self, config: Config, client: HttpClient, upstreams: Mapping[str, Upstream]
    ) -> None:
        self.formats: Mapping[str, Format] = MappingProxyType(dict(FORMATS))
        """The wire formats, by name."""
        self.keys = Keys(config.keys)
        """Who may ask by HTTP. The embedding program itself needs no key."""
        self.gate = Gate(config.limits.max_streams)
        """Who is let in, and how everyone leaves."""
        self.recall = Recall(config.limits)
        """Items that clients by HTTP may name. A program reads events, which have no such ids: what
        it says itself (`stream`), it says whole."""
        self._client = client
        self._demo = DemoUpstream()
        self._upstreams = {DEMO: self._demo, **upstreams}
        self._config, self._catalog = self._load(config)
        self._closed = False

    def close(self) -> None:
        """Serve nobody any more: the connections are gone."""
        self._closed = True

    @property
    def config(self) -> Config:
        """The configuration that is in force."""
        return self._config

    @property
    def limits(self) -> Limits:
        """The limits of the process; those of one model are in its `Target`."""
        return self._config.limits

    def resolve(self, model: str) -> Target:
        """Say where requests for a model go. Raises `ModelNotFound`."""
        return self._catalog.resolve(model)

    def models(self) -> list[dict[str, Any]]:
        """List the configured models, as `GET /v1/models` does."""
        return self._catalog.models()

    @property
    def endpoints(self) -> Mapping[str, Upstream]:
        """Everything that is asked over HTTP, by a name for people."""
        return self._catalog.endpoints

    def reload(self, config: Config) -> None:
        """Put another configuration in force, at once or (`ConfigError`) not at all.

        Requests at work keep the target that they have.
        """
        self._config, self._catalog = self._load(config)
        self.keys.replace(config.keys)
        self.gate.max_streams = config.limits.max_streams
        self.recall.use(config.limits)

    @asynccontextmanager
    async def stream(self, request: Request | Mapping[str, Any]) -> AsyncGenerator[Reply, None]:
        """Ask a model; enter at once, and read the reply as it comes.

        `request` is a `Request`, or the body of a Chat Completions request (it has `messages`) or
        of a Responses request (it has `input`); a body is streamed unless it says otherwise.
        Raises `BadRequest`, `ModelNotFound`, `NotSupported`; `Overloaded` past `max_streams`,
        `Draining`, and `LocalProtocolError` outside the `async with` of the engine. What goes
        wrong later is raised by reading the reply.
        """
        if self._closed:
            raise LocalProtocolError("this engine is closed")
        asked = request if isinstance(request, Request) else self._parse(request)
        target = self.resolve(asked.model)
        with self.gate.admit() as scope:
            async with open_reply(asked, target) as reply:
                yield reply
        if scope.cancelled_caught:
            raise Draining("the gateway is stopping")

    def _parse(self, body: Mapping[str, Any]) -> Request:
        name = "chat" if "messages" in body else "responses" if "input" in body else None
        if name is None:
            raise BadRequest("a request has either 'messages' (chat) or 'input' (responses)")
        return self.formats[name].parse_request({"stream": True, **body})

    def _load(self, config: Config) -> tuple[Config, Catalog]:
        upstreams = self._upstreams
        if config.providers.get(DEMO, Provider()).base_url:
            upstreams = {name: one for name, one in upstreams.items() if one is not self._demo}
        catalog = Catalog(
            config, formats=self.formats, connect=self._client.upstream, upstreams=upstreams
        )
        return config, catalog


@asynccontextmanager
async def open_engine(
    config: Config, *, upstreams: Mapping[str, Upstream] | None = None
) -> AsyncGenerator[Engine, None]:
    """Open the upstreams of a configuration. Raises `ConfigError` for an entry that leads nowhere.

    `upstreams` are objects of yours, by provider name: anything with the `open` method of
    `nursling.engine.pipeline.Upstream`. The provider `demo` is there without a table, unless
    the configuration has another address under this name.
    """
    async with HttpClient(limits=config.limits) as client, beside(client.sweep):
        engine = Engine(config, client, upstreams or {})
        try:
            yield engine
        finally:
            engine.close()
