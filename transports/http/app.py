"""The gateway as an ASGI app: routes, and the errors of everything that is no exchange.

It runs under our own server (`server.py`) or mounted in any Trio ASGI server. All errors are
`{"error": {message, type, param, code}}`. No global state: two apps in one process share nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, cast

import structlog
from quart import Response, request
from quart.globals import app_ctx, request_ctx
from quart.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import MethodNotAllowed as WrongMethod
from werkzeug.exceptions import NotFound as NoSuchPath

from nursling.engine import jsontext
from nursling.engine.errors import (
    BadRequest,
    ErrorInfo,
    InternalError,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NurslingError,
)
from nursling.engine.formats.base import Format, Identity
from nursling.engine.formats.openai_errors import render_error

from .asgi import folded
from .connection import (
    Answer,
    HTTPConnection,
    WebSocketConnection,
    header_pairs,
)
from .exchange import Exchange
from .gateway import Engine, Gateway, Keys, Log, Record
from .incoming import QuartIncoming
from .metrics import CONTENT_TYPE, Metrics
from .origins import Origins


PREFIXES = ("/v1", "")


class _App(Gateway):
    """The gateway, and what serves its connections."""

    asgi_http_class = HTTPConnection
    asgi_websocket_class = WebSocketConnection


def fresh_identity() -> Identity:
    """Make what is random about one reply."""
    return Identity(secrets.token_hex(16), int(time.time()))


def log_request(record: Record) -> None:
    """Log a finished request by structlog, one line; a bug of ours as an error."""
    logger = structlog.get_logger("nursling.request")
    fields = {name: getattr(record, name) for name in record.__struct_fields__}
    usage = fields.pop("usage")
    if usage is not None:
        fields |= {name: getattr(usage, name) for name in usage.__struct_fields__}
    told = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in fields.items()
        if value is not None
    }
    (logger.error if record.bug else logger.info)("request", **told)


def create_app(
    engine: Engine,
    *,
    keys: Keys | None = None,
    cors_origins: Collection[str] = (),
    hosts: Collection[str] | None = None,
    log: Log = log_request,
    new_identity: Callable[[], Identity] = fresh_identity,
    metrics: Metrics | None = None,
) -> Gateway:
    """Make the ASGI app of an engine. Any ASGI server may serve it.

    `keys`: who may ask; the engine's own keys if not given.
    `hosts`: the names by which it may be asked beside the loopback's own, or None for any. Give a
    collection (perhaps empty) when it listens on loopback: it is the guard against DNS rebinding.
    `cors_origins`: web origins whose pages may use it; `"*"` for all.
    """
    app = _App("nursling.transports.http", static_folder=None)
    app.engine, app.log, app.new_identity = engine, log, new_identity
    app.keys = engine.keys if keys is None else keys
    app.metrics = Metrics() if metrics is None else metrics
    app.origins = Origins(cors_origins, hosts)
    # Explicitly: Quart's defaults (60 s, 60 s, and 16 MB, see `connection.py`) cut in silence.
    app.config.update(
        RESPONSE_TIMEOUT=None,
        BODY_TIMEOUT=None,  # `body.py` has the clock: of progress, not of the whole
    )
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False
    app.before_request(_screen)
    app.own_hooks = {None: [_screen]}
    app.runners = {
        prefix + form.path: partial(Exchange, app, form)
        for prefix in PREFIXES
        for form in engine.formats.values()
    }
    app.register_error_handler(Exception, _on_error)
    _add_routes(app)
    app.own_views = dict(app.view_functions)
    return app


def _add_routes(app: Gateway) -> None:
    async def livez() -> ResponseReturnValue:
        return Response(b"ok\n", content_type="text/plain; charset=utf-8")

    async def readyz() -> ResponseReturnValue:
        draining = app.engine.gate.draining
        return Response(
            b"draining\n" if draining else b"ok\n",
            503 if draining else 200,
            content_type="text/plain; charset=utf-8",
        )

    async def metrics() -> ResponseReturnValue:
        _authorise(app)
        return Response(await app.metrics.of_all(), content_type=CONTENT_TYPE)

    async def models() -> ResponseReturnValue:
        _authorise(app)
        return _json({"object": "list", "data": app.engine.models()})

    async def model(name: str) -> ResponseReturnValue:
        _authorise(app)
        found = next((entry for entry in app.engine.models() if entry.get("id") == name), None)
        if found is None:
            raise ModelNotFound(f"the model {name!r} does not exist", param="model")
        return _json(found)

    def exchange(form: Format) -> Callable[[], Awaitable[ResponseReturnValue]]:
        async def answer() -> ResponseReturnValue:
            # The request itself, not Quart's proxy: it is read after the context of this view.
            return Answer(Exchange(app, form, QuartIncoming(request_ctx.request)))

        return answer

    app.add_url_rule("/livez", "livez", livez)
    app.add_url_rule("/readyz", "readyz", readyz)
    app.add_url_rule("/metrics", "metrics", metrics)
    for prefix in PREFIXES:
        app.add_url_rule(f"{prefix}/models", f"{prefix}models", models)
        app.add_url_rule(f"{prefix}/models/<path:name>", f"{prefix}model", model)
        for name, form in app.engine.formats.items():
            app.add_url_rule(prefix + form.path, prefix + name, exchange(form), methods=["POST"])


async def _screen() -> ResponseReturnValue | None:
    """Look at every request before it is routed."""
    app, headers = _app(), request.headers
    app.screen(folded(headers), request.scheme)
    if request.method == "OPTIONS" and "access-control-request-method" in headers:
        wanted = headers.get("access-control-request-headers")
        return Response(b"", 204, dict(app.origins.preflight(wanted)))
    return None


async def _on_error(error: Exception) -> ResponseReturnValue:
    """Answer for everything that was raised outside an exchange."""
    match error:
        case NurslingError():
            info = error.info()
        case NoSuchPath():
            info = NotFound(f"there is no {request.path[:256]!r} here").info()
        case WrongMethod():
            allowed = ", ".join(sorted(error.valid_methods or ()))
            message = f"the method {request.method} is not allowed here"
            info = MethodNotAllowed(message, headers={"allow": allowed}).info()
        case HTTPException():
            info = BadRequest(error.name).info()
            info.status = error.code or info.status
        case _:
            structlog.get_logger("nursling.http").error("bug", bug=type(error).__qualname__)
            info = InternalError("an internal error of the gateway").info()
    return _json(render_error(info), info)


def _app() -> Gateway:
    return cast("Gateway", app_ctx.app)


def _authorise(app: Gateway) -> None:
    app.keys.check(folded(request.headers))


def _json(body: dict[str, Any], error: ErrorInfo | None = None) -> Response:
    response = Response(jsontext.dumps(body), content_type="application/json")
    if error is not None:
        response.status_code = error.status
        for name, value in header_pairs(error.headers):
            response.headers[name.decode()] = value.decode()
    return response
