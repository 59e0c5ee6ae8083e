"""The ASGI app without sockets: routes, refusals, headers, health, metrics."""

from __future__ import annotations

from typing import Any, Never

import msgspec
import pytest
import structlog
import trio
from trio.testing import MockClock
from werkzeug.exceptions import ImATeapot

from nursling.engine.events import Usage
from nursling.engine.limits import Limits
from nursling.transports.http.app import log_request
from nursling.transports.http.connection import safe_value
from nursling.transports.http.exchange import printable
from nursling.transports.http.gateway import Record
from support.gateway import OneKey, World
from support.toy import HELLO, Script


CHAT = "/v1/chat/completions"


@pytest.mark.parametrize("path", [CHAT, "/chat/completions", "/v1/responses", "/responses"])
async def test_each_api_is_served_with_and_without_prefix(path: str) -> None:
    """Both formats answer under /v1 and without it."""
    call = await World().ask("POST", path, {"model": "m"})
    assert (call.status, call.json) == (200, {"id": "r1", "text": "hello"})


CASES: dict[str, tuple[str, str, Any, dict[str, str], int, str | None]] = {
    "unknown path": ("GET", "/v1/nothing", None, {}, 404, "not_found"),
    "wrong method": ("GET", CHAT, None, {}, 405, "method_not_allowed"),
    "wrong type": (
        "POST",
        CHAT,
        b"a=b",
        {"content-type": "text/plain"},
        415,
        "unsupported_media_type",
    ),
    "compressed": (
        "POST",
        CHAT,
        {"model": "m"},
        {"content-encoding": "gzip"},
        415,
        "unsupported_media_type",
    ),
    "no json": ("POST", CHAT, b"{", {"content-type": "application/json"}, 400, None),
    "empty": ("POST", CHAT, b"", {}, 400, None),
    "no object": ("POST", CHAT, b"[1]", {"content-type": "application/json"}, 400, None),
    "key twice": ("POST", CHAT, b'{"model":"m","model":"m"}', {}, 400, None),
    "too deep": ("POST", CHAT, b'{"model":' + b"[" * 99 + b"]" * 99 + b"}", {}, 400, None),
    "nan": ("POST", CHAT, b'{"model":NaN}', {}, 400, None),
    "format's own word": ("POST", CHAT, {"model": 3}, {}, 400, None),
    "unknown model": ("POST", CHAT, {"model": "zzz"}, {}, 404, "model_not_found"),
    "unknown model, asked for": ("GET", "/v1/models/zzz", None, {}, 404, "model_not_found"),
    "declared too long": (
        "POST",
        CHAT,
        b"{}",
        {"content-length": "99999999999"},
        413,
        "request_too_large",
    ),
    "foreign origin": (
        "POST",
        CHAT,
        {"model": "m"},
        {"origin": "https://evil.example"},
        403,
        "forbidden",
    ),
    "upgrade": (
        "GET",
        "/v1/responses",
        None,
        {"upgrade": "WebSocket"},
        426,
        "websocket_unsupported",
    ),
}


@pytest.mark.parametrize("name", CASES)
async def test_refusals(name: str) -> None:
    """What is refused is refused with its status, in the one error shape, and stamped."""
    method, path, body, headers, status, code = CASES[name]
    call = await World().ask(method, path, body, headers)
    assert call.status == status
    assert set(call.error) == {"message", "type", "param", "code"}
    assert call.error["code"] == code
    assert call.error["message"]
    assert call.headers["content-type"] == "application/json"
    assert call.headers["x-request-id"].startswith("req_")
    assert float(call.headers["x-nursling-overhead-ms"]) >= 0


async def test_refusals_say_what_would_do() -> None:
    """405 has Allow, 426 has Upgrade, a refused field is named."""
    world = World()
    assert (await world.ask("GET", CHAT)).headers["allow"] == "OPTIONS, POST"
    assert (await world.ask("PUT", "/v1/models")).headers["allow"] == "GET, HEAD, OPTIONS"
    upgrade = await world.ask("GET", "/anything", None, {"upgrade": "websocket"})
    assert upgrade.headers["upgrade"] == "HTTP/1.1"
    assert (await world.ask("POST", CHAT, {"model": 3})).error["param"] == "model"


@pytest.mark.parametrize(
    "kind", ["", "application/json; charset=utf-8", "application/vnd.x+json", "Application/JSON"]
)
async def test_content_types_that_are_json(kind: str) -> None:
    """Parameters, suffixes, and no content type at all are fine if the body parses."""
    headers = {"content-type": kind} if kind else {}
    call = await World().ask("POST", CHAT, b'{"model":"m"}', headers)
    assert call.status == 200


async def test_body_over_the_limit_in_chunks() -> None:
    """Without a declared length the bytes themselves are counted."""
    async with World(Limits(max_body_bytes=1000)).call("POST", CHAT) as call:
        for _ in range(11):
            call.send(b"x" * 100, more=True)
        await call.over.wait()
    assert (call.status, call.error["code"]) == (413, "request_too_large")


async def test_body_over_the_limit_in_one_piece() -> None:
    """Quart's own limit, met before ours, says the same."""
    call = await World(Limits(max_body_bytes=1000)).ask("POST", CHAT, b"x" * 1001)
    assert (call.status, call.error["code"]) == (413, "request_too_large")


async def test_body_of_exactly_the_limit() -> None:
    """The limit is the largest body that is read."""
    body = b'{"model":"m"}'
    text = body + b" " * (1000 - len(body))
    call = await World(Limits(max_body_bytes=1000)).ask("POST", CHAT, text)
    assert call.status == 200


@pytest.mark.parametrize("most", [1000, 100_000_000])
async def test_a_bodys_limit_may_change(most: int) -> None:
    """After a reload the new limit counts, Quart's own with it."""
    world = World(Limits(max_body_bytes=1 if most > 1000 else 10_000))
    world.engine.limits = Limits(max_body_bytes=most)
    call = await world.ask("POST", CHAT, {"model": "m" * 2000})
    assert call.status == (404 if most > 1000 else 413)


@pytest.mark.fault(20, "S")
async def test_body_that_stops(autojump_clock: MockClock) -> None:
    """A body without a byte for `body_timeout` is a 408; a slow one is read."""
    async with World(Limits(body_timeout=30)).call("POST", CHAT) as call:
        for piece in (b'{"model":', b" " * 20_000, b'"m"' + b" " * 20_000):
            call.send(piece, more=True)
            await trio.sleep(29)
        assert not call.over.is_set()
        await call.over.wait()
    assert trio.current_time() == pytest.approx(29 * 2 + 30)
    assert (call.status, call.error["code"]) == (408, "request_timeout")


@pytest.mark.fault(20, "S")
@pytest.mark.fault(35, "S")
async def test_a_body_that_trickles(autojump_clock: MockClock) -> None:
    """A byte now and then does not hold a place for ever: 30 s, and what its bytes are worth."""
    async with World(Limits(body_timeout=30)).call("POST", CHAT) as call:
        for pause in (12, 12, 0):
            call.send(b" " * 500, more=True)
            await trio.sleep(pause)
        await call.over.wait()
    assert trio.current_time() == pytest.approx(30 + 3)
    assert (call.status, call.error["code"]) == (408, "request_timeout")
    assert "too slowly" in call.error["message"]


async def test_request_id_is_the_clients_if_sane() -> None:
    """A sane id is kept; another is replaced."""
    world = World()
    for theirs in ("abc.DEF_1-2", "x" * 128):
        call = await world.ask("GET", "/livez", None, {"x-request-id": theirs})
        assert call.headers["x-request-id"] == theirs
    for theirs in ("", "x" * 129, "a b", "a\x7f", "<b>"):
        call = await world.ask("GET", "/livez", None, {"x-request-id": theirs})
        assert call.headers["x-request-id"].startswith("req_")


async def test_models_are_listed_and_found() -> None:
    """The list is the engine's; an id may contain slashes."""
    world = World(Limits(), **{"m": Script(HELLO), "vendor/big/model": Script(HELLO)})
    listed = await world.ask("GET", "/v1/models")
    assert [entry["id"] for entry in listed.json["data"]] == ["m", "vendor/big/model"]
    for path in ("/v1/models/vendor/big/model", "/models/vendor/big/model"):
        assert (await world.ask("GET", path)).json["id"] == "vendor/big/model"


async def test_keys_guard_the_api_and_not_the_probes() -> None:
    """Without the key: 401 everywhere but on the probes."""
    world = World(keys=OneKey())
    right = {"Authorization": "Bearer right"}
    for method, path in (("GET", "/v1/models"), ("GET", "/metrics"), ("POST", CHAT)):
        body = {"model": "m"} if method == "POST" else None
        refused = await world.ask(method, path, body)
        assert (refused.status, refused.error["code"]) == (401, "invalid_api_key")
        assert refused.headers["www-authenticate"] == "Bearer"
        assert (await world.ask(method, path, body, right)).status == 200
    for path in ("/livez", "/readyz"):
        assert (await world.ask("GET", path)).status == 200
    assert [record.key for record in world.records] == ["", "laptop"]


@pytest.mark.fault(40, "S")
async def test_draining_shows_and_refuses() -> None:
    """While draining /readyz is 503, /livez is 200, and new work is refused."""
    world = World()
    assert (await world.ask("GET", "/readyz")).status == 200
    world.app.drain()
    assert (await world.ask("GET", "/readyz")).status == 503
    assert (await world.ask("GET", "/livez")).status == 200
    refused = await world.ask("POST", CHAT, {"model": "m"})
    assert (refused.status, refused.error["code"]) == (503, "draining")
    assert refused.headers["retry-after"] == "1"


async def test_admission_refuses_at_once(autojump_clock: MockClock) -> None:
    """Past `max_streams` it is 503 with retry-after, without waiting; then there is room again."""
    world = World(Limits(max_streams=1), m=Script(HELLO, before=[10.0]), n=Script(HELLO))
    async with world.call("POST", CHAT) as first:
        first.send(b'{"model":"m"}')
        await trio.testing.wait_all_tasks_blocked()
        call = await world.ask("POST", CHAT, {"model": "n"}, beside=True)
        assert (call.status, call.error["code"]) == (503, "overloaded")
        assert call.headers["retry-after"] == "1"
        assert trio.current_time() == 0
        await first.over.wait()
    assert (await world.ask("POST", CHAT, {"model": "n"})).status == 200


async def test_head_and_options() -> None:
    """HEAD is GET's head; OPTIONS names the methods."""
    world = World()
    assert (await world.ask("HEAD", "/livez")).status == 200
    options = await world.ask("OPTIONS", CHAT)
    assert options.status == 200
    assert set(options.headers["allow"].split(", ")) == {"OPTIONS", "POST"}


# Web pages.


PAGE = "https://page.example"


async def test_cors_for_an_allowed_page() -> None:
    """Preflight, answers, streams and errors carry the headers for an allowed origin only."""
    world = World(app={"cors_origins": [PAGE]})
    preflight = await world.ask(
        "OPTIONS",
        CHAT,
        None,
        {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "authorization,x-stainless-os",
        },
    )
    assert preflight.status == 204
    assert preflight.headers["access-control-allow-headers"] == "authorization,x-stainless-os"
    for body in ({"model": "m"}, {"model": "m", "stream": True}, {"model": "zzz"}):
        call = await world.ask("POST", CHAT, body, {"origin": PAGE})
        assert call.headers["access-control-allow-origin"] == PAGE
        assert call.headers["vary"] == "Origin"
        assert "x-request-id" in call.headers["access-control-expose-headers"]
    foreign = await world.ask("POST", CHAT, {"model": "m"}, {"origin": "https://evil.example"})
    assert foreign.status == 403
    assert "access-control-allow-origin" not in foreign.headers


async def test_cors_for_all_and_for_none() -> None:
    """`*` lets every origin read; without cors_origins no header speaks of CORS."""
    world = World(app={"cors_origins": ["*"]})
    call = await world.ask("POST", CHAT, {"model": "m"}, {"origin": PAGE})
    assert (call.status, call.headers["access-control-allow-origin"]) == (200, "*")
    plain = await World().ask("POST", CHAT, {"model": "m"})
    assert not [name for name in plain.headers if name.startswith("access-control")]


async def test_preflight_does_not_echo_nonsense() -> None:
    """Asked-for headers are echoed only if they look like header names."""
    call = await World(app={"cors_origins": ["*"]}).ask(
        "OPTIONS",
        CHAT,
        None,
        {
            "origin": PAGE,
            "access-control-request-method": "POST",
            "access-control-request-headers": "<script>",
        },
    )
    assert call.headers["access-control-allow-headers"] == "authorization, content-type"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("LOCALHOST:8787", 200), ("127.0.0.1:1", 200), ("[::1]:8787", 200),
        ("desk.localhost", 200), ("desk.lan:8787", 200), ("evil.example", 403),
        ("127.0.0.1.evil.example", 403), ("localhost@evil", 403), ("[::1", 403), ("", 200),
    ],
)  # fmt: skip
async def test_dns_rebinding(host: str, status: int) -> None:
    """On loopback a page cannot reach us by a name of its own."""
    world = World(app={"hosts": ["desk.lan"]})
    call = await world.ask("GET", "/v1/models", None, {"host": host} if host else {})
    assert call.status == status


async def test_own_origin_is_no_foreign_one() -> None:
    """The console's pages come from ourselves."""
    headers = {"host": "localhost:8787", "origin": "http://localhost:8787"}
    call = await World(app={"hosts": []}).ask("POST", CHAT, {"model": "m"}, headers)
    assert call.status == 200


# Upgrades under a server that hands us websockets.


async def test_websocket_scope_is_refused_with_426() -> None:
    """Where the server can carry an HTTP answer to a handshake, it is a true 426."""
    world = World()
    async with world.call(
        "GET", "/v1/responses", kind="websocket", extensions={"websocket.http.response": {}}
    ) as call:
        await call.over.wait()
    assert (call.status, call.error["code"]) == (426, "websocket_unsupported")
    assert call.headers["upgrade"] == "HTTP/1.1"


async def test_websocket_scope_is_closed_elsewhere() -> None:
    """Where it cannot, the handshake is closed (the server says 403)."""
    async with World().call("GET", "/v1/responses", kind="websocket") as call:
        await trio.testing.wait_all_tasks_blocked()
    assert call.ended


# Metrics and bugs.


async def test_metrics_count_by_closed_sets() -> None:
    """Routes, statuses and reasons are labels; what a client writes is not."""
    world = World(m=Script(HELLO), bad=Script(b"no", status=418))
    await world.ask("POST", CHAT, {"model": "m", "stream": True})
    await world.ask("POST", CHAT, {"model": "bad"})
    await world.ask("GET", "/surprise-" + "x" * 50)
    call = await world.ask("GET", "/metrics")
    lines = call.body.decode().splitlines()
    assert call.headers["content-type"].startswith("text/plain")
    for line in (
        'nursling_requests_total{route="chat",status="200"} 1.0',
        'nursling_requests_total{route="chat",status="418"} 1.0',
        'nursling_requests_total{route="other",status="404"} 1.0',
        'nursling_stream_ends_total{reason="ok"} 1.0',
        'nursling_stream_ends_total{reason="upstream_error"} 1.0',
        "nursling_streams_in_flight 0.0",
        'nursling_time_to_first_token_seconds_count{route="chat"} 1.0',
    ):
        assert line in lines
    assert "surprise" not in call.body.decode()


async def test_a_bug_outside_an_exchange_is_a_500(monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that raises answers 500 in the one shape, without the exception's words."""
    world = World()

    def broken() -> Never:
        raise RuntimeError("canary-prompt")

    monkeypatch.setattr(world.engine, "models", broken)
    call = await world.ask("GET", "/v1/models")
    assert (call.status, call.error["code"]) == (500, "internal_error")
    assert b"canary" not in call.body


async def test_an_http_exception_of_the_framework_keeps_its_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What Quart itself raises is said in the one shape, under its own status."""
    world = World()

    def teapot() -> Never:
        raise ImATeapot

    monkeypatch.setattr(world.engine, "models", teapot)
    call = await world.ask("GET", "/v1/models")
    assert (call.status, call.error["message"]) == (418, "I'm a teapot")


def test_the_log_line() -> None:
    """A request is one line of facts; a bug is an error; what is unknown is left out."""
    record = Record(
        request_id="r", route="chat", outcome="ok", duration=1.23456789, usage=Usage(input_tokens=3)
    )
    with structlog.testing.capture_logs() as lines:
        log_request(record)
        log_request(Record(request_id="r", route="chat", outcome="internal_error", bug="KeyError"))
    assert [line["log_level"] for line in lines] == ["info", "error"]
    assert (lines[0]["duration"], lines[0]["input_tokens"]) == (1.2346, 3)
    assert not {"usage", "first_token", "output_tokens", "bug"} & set(lines[0])


@pytest.mark.fault(36, "V")
def test_a_clients_word_in_a_log_is_one_line() -> None:
    """Control characters of a model's name are escaped, and it is bounded."""
    assert printable("gpt-5.4/é") == "gpt-5.4/é"
    assert printable("a\nlevel=error\x1b[31m") == r"'a\nlevel=error\x1b[31m'"
    assert len(printable("x" * 5000)) == 256


@pytest.mark.fault(36, "V")
def test_header_values_are_safe() -> None:
    """Whatever text is made a header is one bounded line of ASCII."""
    assert safe_value("tools[2] (web_search)") == b"tools[2] (web_search)"
    assert safe_value("a\r\nset-cookie: x") == rb"a\r\nset-cookie: x"
    assert safe_value("é\ud83d") == rb"\xe9\ud83d"
    assert len(safe_value("é" * 5000)) <= 1024


async def test_two_apps_share_nothing() -> None:
    """Metrics and keys are an app's own, and the gate its engine's."""
    first, second = World(), World()
    await first.ask("POST", CHAT, {"model": "m"})
    first.app.drain()
    assert (await second.ask("GET", "/readyz")).status == 200
    assert b'route="chat"' not in (await second.ask("GET", "/metrics")).body
    assert msgspec.json.encode(second.records) == b"[]"


# Hooks of an embedder: they stand before everything, the API's own requests too.


@pytest.mark.parametrize("stream", [True, False])
async def test_hooks_of_an_embedder_are_run(stream: bool) -> None:
    """What an embedder puts before, behind or around requests is never gone round."""
    seen: list[str] = []
    world = World()

    def behind(response: Any) -> Any:
        seen.append("after")
        return response

    world.app.before_request(lambda: seen.append("before"))
    world.app.after_request(behind)
    world.app.teardown_request(lambda _error: seen.append("teardown"))
    call = await world.ask("POST", "/v1/chat/completions", {"model": "m", "stream": stream})
    assert call.status == 200
    assert sorted(seen) == ["after", "before", "teardown"]
    assert world.records[-1].outcome == "ok"


async def test_a_hook_may_refuse() -> None:
    """A hook that asks for a password keeps everyone out who has none."""
    world = World()

    async def guard() -> Any:
        return "no", 403

    world.app.before_request(guard)
    call = await world.ask("POST", "/v1/chat/completions", {"model": "m"})
    assert (call.status, call.body) == (403, b"no")
    assert not world.records


async def test_a_view_may_be_wrapped() -> None:
    """An embedder that puts a view of their own in the place of ours is asked, as Quart has it."""
    world = World()

    async def guarded() -> Any:
        return "no", 401

    world.app.view_functions["/v1chat"] = guarded
    call = await world.ask("POST", "/v1/chat/completions", {"model": "m"})
    assert (call.status, call.body) == (401, b"no")
    assert not world.records


async def test_a_body_that_is_too_large_behind_quart() -> None:
    """With hooks a request comes through Quart, and its bounds hold as well."""
    world = World(Limits(max_body_bytes=100))
    world.app.before_request(lambda: None)
    for headers in ({}, {"content-length": "5000"}):
        call = await world.ask(
            "POST", "/v1/chat/completions", {"model": "m", "say": "x" * 200}, headers
        )
        assert (call.status, call.error["code"]) == (413, "request_too_large")


async def test_the_direct_way_stays_open() -> None:
    """A request that went through Quart leaves traces in its lists, and they are no hooks."""
    world = World()
    scope = {"method": "POST", "path": "/v1/chat/completions", "root_path": ""}
    assert (await world.ask("GET", "/livez")).status == 200
    world.app.add_url_rule("/more", "more", lambda: "a route beside ours is in nobody's way")
    assert world.app.runner_at(scope) is not None
    assert world.app.runner_at({**scope, "root_path": "/llm"}) is None
    assert world.app.runner_at({**scope, "path": "/v1/chat/completions/"}) is None
    world.app.before_request(lambda: None)
    assert world.app.runner_at(scope) is None
