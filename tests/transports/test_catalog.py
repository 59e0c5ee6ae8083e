"""Which upstream answers to which model name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from nursling.engine.errors import ModelNotFound
from nursling.engine.formats.base import Format
from nursling.engine.pipeline import Upstream
from nursling.transports.catalog import FORMAT_OF, Catalog
from nursling.transports.config import ConfigError, config_from_dict, load_config
from nursling.transports.secret import Secret
from nursling.transports.upstream.client import Endpoint
from support.toy import Script, ToyFormat


CHAT, RESPONSES = ToyFormat(), ToyFormat()
FORMATS: dict[str, Format] = {"chat": CHAT, "responses": RESPONSES}


class Asked(Script):
    """An upstream that remembers what it was made of."""

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__()
        self.endpoint = endpoint


def catalog(
    tables: dict[str, Any], upstreams: Mapping[str, Upstream] | None = None, **environ: str
) -> Catalog:
    config = config_from_dict(tables, environ=environ)
    return Catalog(config, formats=FORMATS, connect=Asked, upstreams=upstreams)


def endpoint_of(found: Catalog, name: str) -> Endpoint:
    upstream = found.resolve(name).upstream
    assert isinstance(upstream, Asked)
    return upstream.endpoint


ONE = {
    "providers": {
        "wild": {
            "base_url": "http://wild/v1",
            "api": "openai-responses",
            "api_key": "k",
            "headers": {"X": "h"},
            "wildcard": True,
            "fold": True,
            "include_usage": False,
            "max_streams": 3,
            "limits": {"idle_timeout": 7},
        },
        "tame": {"base_url": "http://tame/v1"},
    },
    "models": [
        {"id": "org/a", "provider": "tame"},
        {"id": "b", "provider": "wild", "upstream_model": "real-b", "fold": False},
        {"id": "codex", "provider": "tame", "api": "openai-codex-responses", "api_key": "own"},
        {
            "id": "direct",
            "provider": "wild",
            "base_url": "http://direct/v1",
            "description": "A model.",
            "describe": True,
            "limits": {"heartbeat": 1},
        },
        {"id": "alone", "base_url": "http://alone/v1", "api_key": "a", "description": "quiet"},
    ],
}


@pytest.mark.parametrize(
    ("asked", "provider", "model", "base_url"),
    [
        ("org/a", "tame", "org/a", "http://tame/v1"),
        ("b", "wild", "real-b", "http://wild/v1"),
        ("wild/x", "wild", "x", "http://wild/v1"),
        ("wild/x/y", "wild", "x/y", "http://wild/v1"),
        ("wild/b", "wild", "b", "http://wild/v1"),
        ("anything", "wild", "anything", "http://wild/v1"),
        ("tame/x", "wild", "tame/x", "http://wild/v1"),
        ("wild/", "wild", "wild/", "http://wild/v1"),
        ("direct", "wild", "direct", "http://direct/v1"),
        ("alone", "alone", "alone", "http://alone/v1"),
    ],
)
def test_a_name_leads_to_a_target(asked: str, provider: str, model: str, base_url: str) -> None:
    """Exact id, then `provider/model`, then the lone wildcard provider."""
    target = catalog(ONE).resolve(asked)
    assert (target.provider, target.model) == (provider, model)
    assert isinstance(target.upstream, Asked)
    assert target.upstream.endpoint.base_url == base_url


def test_switches_come_from_the_nearest() -> None:
    """A model's own api, key, limits and switches win over its provider's, and those over ours."""
    found = catalog(ONE | {"limits": {"connect_timeout": 3}})
    wild, b, codex = found.resolve("wild/x"), found.resolve("b"), found.resolve("codex")
    assert wild.format is RESPONSES
    assert (wild.fold, wild.include_usage, wild.limits.idle_timeout) == (True, False, 7)
    assert (b.fold, b.include_usage) == (False, False)
    assert wild.limits.connect_timeout == 3
    assert endpoint_of(found, "b").api_key == Secret("k")
    assert endpoint_of(found, "b").headers == {"X": Secret("h")}
    assert endpoint_of(found, "b").max_streams == 3
    assert endpoint_of(found, "b").limits.idle_timeout == 7
    assert codex.format is RESPONSES
    assert endpoint_of(found, "codex").api_key == Secret("own")
    assert found.resolve("org/a").format is CHAT


def test_no_secret_travels_to_another_address() -> None:
    """A model with an address of its own gets none of its provider's keys, headers and caps."""
    found = catalog(ONE)
    direct = endpoint_of(found, "direct")
    assert (direct.api_key, direct.headers, direct.max_streams) == (None, {}, 0)
    assert endpoint_of(found, "alone").api_key == Secret("a")
    target = found.resolve("direct")
    assert target.format is RESPONSES  # the api is no secret: `model.api ?? provider.api`
    assert (target.limits.heartbeat, target.limits.idle_timeout) == (1, 7)


def test_the_way_out_leads_through_the_provider_s_proxy() -> None:
    """Also to a model's own address; the proxy's password is hidden in what an upstream says."""
    tables = {
        "providers": {
            "a": {"base_url": "http://a/v1", "proxy": "http://u:${WORD}@h:3128"},
            "b": {"base_url": "http://b/v1"},
        },
        "models": [
            {"id": "m", "provider": "a"},
            {"id": "own", "provider": "a", "base_url": "http://own/v1"},
            {"id": "n", "provider": "b"},
        ],
    }
    found = catalog(tables, WORD="CANARY%2FWORD")
    way = Secret("http://u:CANARY%2FWORD@h:3128")
    assert [endpoint_of(found, name).proxy for name in ("m", "own", "n")] == [way, way, None]
    conceal = found.resolve("m").conceal
    assert conceal("CANARY/WORD, CANARY%2FWORD") == "***, ***"
    assert "CANARY" not in repr(endpoint_of(found, "m"))


def test_a_description_is_told_to_the_model_on_request_only() -> None:
    """`describe` is the switch; a description alone is for people."""
    found = catalog(ONE)
    assert found.resolve("direct").preface == "[Model: A model.]"
    assert found.resolve("alone").preface is None


def test_the_fallback_gets_the_provider_in_the_name() -> None:
    """A model of an unconfigured provider goes to the fallback, as `provider/model`."""
    tables = {
        "server": {"fallback_provider": "gate"},
        "providers": {"gate": {"base_url": "http://gate/v1"}},
        "models": [
            {"id": "m", "provider": "acme", "upstream_model": "real"},
            {"id": "n"},
            {"id": "o", "provider": "acme", "base_url": "http://own"},
        ],
    }
    found = catalog(tables)
    assert (found.resolve("m").provider, found.resolve("m").model) == ("gate", "acme/real")
    assert (found.resolve("n").provider, found.resolve("n").model) == ("gate", "n")
    assert endpoint_of(found, "o").base_url == "http://own"
    assert found.resolve("o").model == "o"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("org/A", "no model is named 'org/A'; the nearest: org/a"),
        ("zzz", "no model is named 'zzz'; there are: org/a, other"),
        ("", "no model is named ''; there are: org/a, other"),
        ("a\nb", r"no model is named 'a\nb'; there are: org/a, other"),
    ],
)
def test_an_unknown_name_is_404(name: str, message: str) -> None:
    """The error names the nearest ids, or some, and repeats the name escaped."""
    tables = {
        "models": [{"id": "org/a", "base_url": "http://h"}, {"id": "other", "base_url": "http://h"}]
    }
    with pytest.raises(ModelNotFound) as caught:
        catalog(tables).resolve(name)
    assert caught.value.message == message
    assert (caught.value.status, caught.value.param) == (404, "model")


def test_a_flood_is_not_repeated() -> None:
    """An endless model name is cut in the error, and an empty catalogue says so."""
    with pytest.raises(ModelNotFound) as caught:
        catalog({}).resolve("x" * 100_000)
    assert len(caught.value.message) < 300
    assert caught.value.message.endswith("': the configuration names no models")


def test_two_wildcards_need_their_name() -> None:
    """With two wildcard providers an unqualified name leads nowhere; the error says what would."""
    tables = {
        "providers": {
            "p": {"base_url": "http://p", "wildcard": True},
            "q": {"base_url": "http://q", "wildcard": True},
        }
    }
    assert catalog(tables).resolve("q/m").model == "m"
    with pytest.raises(ModelNotFound, match=r"there are: p/…, q/…"):
        catalog(tables).resolve("m")


def test_the_first_of_a_group_serves() -> None:
    """Several entries of one id: the lowest order, then the order of the file; listed once."""
    tables = {
        "models": [
            {"id": "m", "base_url": "http://second", "order": 1},
            {"id": "m", "base_url": "http://first"},
            {"id": "m", "base_url": "http://third", "order": 1},
        ]
    }
    found = catalog(tables)
    assert endpoint_of(found, "m").base_url == "http://first"
    assert [entry["id"] for entry in found.models()] == ["m"]


def test_the_list_of_models() -> None:
    """OpenAI's four fields always; extended ones only if set; no secret, no address."""
    tables = {
        "providers": {"p": {"base_url": "http://p", "api_key": "sk-canary"}},
        "models": [
            {"id": "bare", "provider": "p"},
            {
                "id": "full",
                "provider": "p",
                "description": "d",
                "context_window": 1,
                "max_tokens": 2,
                "reasoning": False,
                "input": ["text"],
                "api": "openai-responses",
                "cost": {"input": 1},
                "compat": {"x": True},
            },
            {"id": "own", "base_url": "http://own"},
        ],
    }
    bare, full, own = catalog(tables).models()
    assert bare == {
        "id": "bare",
        "object": "model",
        "created": 0,
        "owned_by": "p",
        "reachable": True,
    }
    assert own["owned_by"] == "unknown"
    assert full == bare | {
        "id": "full",
        "description": "d",
        "context_window": 1,
        "max_tokens": 2,
        "reasoning": False,
        "input": ["text"],
        "api": "openai-responses",
        "cost": {"input": 1},
        "compat": {"x": True},
    }


def test_upstreams_of_the_program() -> None:
    """An object of the embedding program is used by provider name, with the table's switches."""
    mine = Script()
    tables = {
        "providers": {"mine": {"api": "openai-responses", "wildcard": True}},
        "models": [{"id": "m", "provider": "other"}],
    }
    found = catalog(tables, {"mine": mine, "other": mine})
    assert found.resolve("mine/x").upstream is mine
    assert found.resolve("mine/x").format is RESPONSES
    assert found.resolve("m").upstream is mine
    assert found.endpoints == {}


def test_http_endpoints_have_names() -> None:
    """What is asked over HTTP is listed: each provider once, and each address of a model's own."""
    assert list(catalog(ONE).endpoints) == ["wild", "tame", "wild (direct)", "alone (alone)"]


NOWHERE: dict[str, tuple[dict[str, Any], str]] = {
    "a provider without address": (
        {"providers": {"p": {}}},
        "config: the provider 'p' needs a base_url",
    ),
    "an unknown provider": (
        {
            "providers": {"openai": {"base_url": "http://h"}},
            "models": [{"id": "m", "provider": "opnai"}],
        },
        "config: the model 'm': no provider is named 'opnai'; did you mean 'openai'?",
    ),
    "a far unknown provider": (
        {"models": [{"id": "m", "provider": "zzz"}]},
        "config: the model 'm': no provider is named 'zzz'",
    ),
    "neither": (
        {"models": [{"id": "m"}]},
        "config: the model 'm' needs a provider, or a base_url of its own",
    ),
    "an unknown fallback": (
        {"server": {"fallback_provider": "x"}},
        "config: fallback_provider: no provider is named 'x'",
    ),
}


@pytest.mark.parametrize("case", NOWHERE)
def test_entries_that_lead_nowhere_are_refused_at_start(case: str) -> None:
    """A model or provider that could never answer is a configuration error, not a 500 later."""
    tables, message = NOWHERE[case]
    with pytest.raises(ConfigError) as caught:
        catalog(tables)
    assert str(caught.value) == message


def test_entries_that_lead_nowhere_have_their_line(tmp_path: Path) -> None:
    """What only shows when all is put together names file and line like the rest."""
    file = tmp_path / "n.toml"
    good = '[providers.p]\nbase_url = "http://h"\n'
    cases = {
        '[server]\n\nfallback_provider = "x"': "3: fallback_provider: no provider is named 'x'",
        "# p\n[providers.p]": "2: the provider 'p' needs a base_url",
        f'{good}[[models]]\nid = "a"\nprovider = "p"\n[[models]]\nid = "m"': (
            "6: the model 'm' needs a provider, or a base_url of its own"
        ),
        f'{good}[[models]]\nid = "a"\norder = 9\nprovider = "q"\n[[models]]\nid = "m"\n'
        'provider = "p"': "6: the model 'a': no provider is named 'q'",
    }
    for text, message in cases.items():
        file.write_text(text)
        config = load_config(str(file), environ={})
        with pytest.raises(ConfigError) as caught:
            Catalog(config, formats=FORMATS, connect=Asked)
        assert str(caught.value) == f"{file}:{message}"


def test_each_api_has_its_format() -> None:
    """Codex' API is spoken as Responses."""
    assert FORMAT_OF == {
        "openai-completions": "chat",
        "openai-responses": "responses",
        "openai-codex-responses": "responses",
    }


def test_secrets_of_an_endpoint_are_concealed() -> None:
    """A target hides its own key and headers in the words of its upstream, and placeholders not."""
    tables = {
        "providers": {
            "a": {
                "base_url": "http://a/v1",
                "api_key": "CANARYKEY",
                "headers": {"x-org": "CANARYORG", "x-v": "1"},
            }
        },
        "models": [{"id": "m", "provider": "a"}],
    }
    conceal = catalog(tables).resolve("m").conceal
    assert conceal("1: no key CANARYKEY of CANARYORG") == "1: no key *** of ***"
