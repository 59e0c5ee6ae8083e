"""What all requests of one app share, and what they need to know of everything else.

The law of this file: it looks at nothing that handles a request. Connections and exchanges look
here, and `app.py`, which puts all of them together, looks at them: imports point one way.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import msgspec
from quart_trio import QuartTrio

from nursling.engine.errors import UpgradeRefused
from nursling.engine.events import Usage
from nursling.engine.formats.base import Format, Identity
from nursling.engine.formats.responses.recall import Recall
from nursling.engine.limits import Limits
from nursling.engine.pipeline import Target

from ..gate import Gate
from .asgi import Incoming
from .metrics import Metrics
from .origins import Origins


UPGRADE_REFUSED = "WebSocket is not spoken here; ask by plain HTTP"
REFUSAL_HEADERS = {"upgrade": "HTTP/1.1", "connection": "upgrade, close"}
"""RFC 9110 §15.5.22: a 426 names what it wants instead."""

ROUTES = {
    "/chat/completions": "chat",
    "/responses": "responses",
    "/models": "models",
    "/livez": "livez",
    "/readyz": "readyz",
    "/metrics": "metrics",
}
"""Path below a prefix -> the route's name in metrics."""


class Engine(Protocol):
    """What the HTTP side needs to know of the composed engine."""

    @property
    def limits(self) -> Limits:
        """The server's own limits."""
        ...

    @property
    def formats(self) -> Mapping[str, Format]:
        """The formats that clients may speak, by name."""
        ...

    @property
    def gate(self) -> Gate:
        """Who is let in, and how everyone leaves."""
        ...

    @property
    def keys(self) -> Keys:
        """Who may ask."""
        ...

    @property
    def recall(self) -> Recall:
        """What clients may name by id."""
        ...

    def resolve(self, model: str) -> Target:
        """Find where a model lives. Raises `ModelNotFound`."""
        ...

    def models(self) -> list[dict[str, Any]]:
        """List the models, as `/v1/models` shows them."""
        ...


class Keys(Protocol):
    """Who may call."""

    def check(self, headers: Mapping[str, str]) -> str:
        """Return the name of the caller's key. `headers` in lower case. Raises `Unauthorized`."""
        ...


class Record(msgspec.Struct, kw_only=True):
    """One finished request: what its log line says. Sizes in bytes, times in seconds."""

    request_id: str
    route: str
    outcome: str
    """`ok`, `client_gone`, or the reason of the failure."""
    status: int = 0
    """0 = the client left before there was one."""
    key: str = ""
    model: str = ""
    provider: str = ""
    upstream_format: str = ""
    stream: bool = False
    bytes_out: int = 0
    events: int = 0
    first_token: float | None = None
    duration: float = 0.0
    usage: Usage | None = None
    lost: list[str] | None = None
    """What the upstream's format said and the client's cannot: names, without their values."""
    detail: str | None = None
    """More about the failure than the client was told: where no connection came from, and why."""
    bug: str | None = None
    """Type and stack of an exception that should not have been; without its message."""


Log = Callable[[Record], None]
MakeRunner = Callable[[Incoming], object]
"""Makes a `Runner` for a request (`connection.py`)."""


class Gateway(QuartTrio):
    """The app, and what its requests share."""

    engine: Engine
    keys: Keys
    metrics: Metrics
    origins: Origins
    log: Log
    new_identity: Callable[[], Identity]
    runners: dict[str, MakeRunner]
    """Path -> what answers a POST to it."""
    own_hooks: dict[object, list[object]]
    """What `create_app` has put before Quart's views."""
    own_views: dict[str, object]
    """These views."""

    def runner_at(self, scope: Mapping[str, Any]) -> MakeRunner | None:
        """Find what answers a request without Quart; None where Quart is needed.

        It is for everything but the API's own requests, and for hooks and views that an embedder
        has put around those: they may be what asks for a password.
        """
        if scope["method"] != "POST" or scope.get("root_path"):
            return None
        # Empty lists stand there too: Quart's dicts make them when they are asked.
        behind = (*self.after_request_funcs.values(), *self.teardown_request_funcs.values())
        if any(behind) or self.before_request_funcs != self.own_hooks:
            return None
        if not self.own_views.items() <= self.view_functions.items():
            return None
        return self.runners.get(scope["path"])

    def screen(self, headers: Mapping[str, str], scheme: str) -> None:
        """Look at a request before anything else. `headers` in lower case.

        Raises `UpgradeRefused` or `Forbidden`.
        """
        if headers.get("upgrade", "").strip().lower() == "websocket":
            raise UpgradeRefused(UPGRADE_REFUSED, headers=REFUSAL_HEADERS)
        self.origins.check(headers.get("host"), headers.get("origin"), scheme)

    def drain(self) -> None:
        """Refuse new requests from now on; `/readyz` says 503."""
        self.engine.gate.drain()

    def end_streams(self) -> None:
        """End what is still open, with an error that its client can read."""
        self.engine.gate.end_streams()

    def route_of(self, path: str) -> str:
        """Name the route of a path, in one word of a closed set."""
        path = path.removeprefix("/v1")
        return "models" if path.startswith("/models/") else ROUTES.get(path, "other")
