"""Which upstream answers to which model name.

The law of this file: a name means, in this order,

1. the `[[models]]` entry with exactly this id (it may contain `/`);
2. `provider/model`, if `provider` is a configured one with `wildcard`;
3. that very name at the one wildcard provider, if there is just one;
4. nothing: `ModelNotFound`, which names the nearest ids.

And an entry is asked at its own `base_url` (with its own `api_key` only: no provider's key travels
to another address; but the way there leads through the provider's proxy), else at its provider's,
else at the fallback provider, which gets `provider/model` as the model's name.

A catalog is immutable. A reload makes a new one; requests keep the `Target` they were given.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from nursling.engine.errors import ModelNotFound
from nursling.engine.formats.base import Format
from nursling.engine.pipeline import Target, Upstream

from .config import Api, Config, Model, Provider, limits_with
from .secret import Secret, concealer, passwords_in
from .toml_lines import Path
from .upstream.client import Endpoint


FORMAT_OF: dict[Api, str] = {
    "openai-completions": "chat",
    "openai-responses": "responses",
    "openai-codex-responses": "responses",
}

LONGEST_NAME = 200
"""Characters of an unknown model's name that an error quotes."""


class Catalog:
    """The models of one configuration.

    `connect` makes the upstream of an HTTP endpoint. `upstreams` are objects of the program
    around us, by provider name; they need no `[providers]` table, and use its switches if there
    is one. Raises `ConfigError` for an entry that leads nowhere.
    """

    def __init__(
        self,
        config: Config,
        *,
        formats: Mapping[str, Format],
        connect: Callable[[Endpoint], Upstream],
        upstreams: Mapping[str, Upstream] | None = None,
    ) -> None:
        self._config = config
        self._formats = formats
        self._connect = connect
        self._upstreams = upstreams or {}
        self._entries: dict[str, tuple[Model, Target]] = {}
        self.endpoints: dict[str, Upstream] = {}
        """Everything that is asked over HTTP, by a name for people."""
        fallback = config.server.fallback_provider
        if fallback is not None and not self._has(fallback):
            message = f"fallback_provider: no provider is named {fallback!r}"
            raise config.error(("server", "fallback_provider"), message)
        # All of them, wildcard or not: a provider that leads nowhere is told before it is needed.
        targets = {name: self._at(name, provider) for name, provider in config.providers.items()}
        self._wildcards = {
            name: target for name, target in targets.items() if config.providers[name].wildcard
        }
        for index, model in sorted(enumerate(config.models), key=lambda entry: entry[1].order):
            target = self._target_of(model, ("models", index))
            self._entries.setdefault(model.id, (model, target))

    def resolve(self, name: str) -> Target:
        """Say where requests for this model go. Raises `ModelNotFound`."""
        if entry := self._entries.get(name):
            return entry[1]
        provider, _, rest = name.partition("/")
        if rest and (target := self._wildcards.get(provider)):
            return _named(target, rest)
        if len(self._wildcards) == 1 and name:
            (target,) = self._wildcards.values()
            return _named(target, name)
        raise ModelNotFound(self._unknown(name), param="model")

    def models(self) -> list[dict[str, Any]]:
        """List the configured models, as entries of `GET /v1/models`.

        Beside OpenAI's four fields: what the configuration says of the model (`description`,
        `context_window`, `max_tokens`, `reasoning`, `input`, `api`, `cost`, `compat`, only if
        said), and `reachable`. `created` is 0: nobody knows.
        """
        listed: list[dict[str, Any]] = []
        for model, _ in self._entries.values():
            entry: dict[str, Any] = {
                "id": model.id,
                "object": "model",
                "created": 0,
                "owned_by": model.provider or "unknown",
            }
            extended = {
                "description": model.description,
                "context_window": model.context_window,
                "max_tokens": model.max_tokens,
                "reasoning": model.reasoning,
                "input": None if model.input is None else list(model.input),
                "api": model.api,
                "cost": model.cost,
                "compat": model.compat,
            }
            entry |= {key: value for key, value in extended.items() if value is not None}
            entry["reachable"] = True
            listed.append(entry)
        return listed

    def _target_of(self, model: Model, place: Path) -> Target:
        known = model.provider is not None and self._has(model.provider)
        fallback = self._config.server.fallback_provider
        name = model.upstream_model or model.id
        if model.base_url:
            provider = self._config.providers.get(model.provider or "", Provider())
            at = model.provider or model.id
            target = self._at(at, provider, model)
        elif known and model.provider is not None:
            provider = self._config.providers.get(model.provider, Provider())
            target = self._at(model.provider, provider, model)
        elif fallback is not None:
            provider = self._config.providers.get(fallback, Provider())
            target = self._at(fallback, provider, model)
            name = f"{model.provider}/{name}" if model.provider else name
        elif model.provider is None:
            message = f"the model {model.id!r} needs a provider, or a base_url of its own"
            raise self._config.error(place, message)
        else:
            names = [*self._config.providers, *self._upstreams]
            near = difflib.get_close_matches(model.provider, names, 1, 0.5)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            message = f"the model {model.id!r}: no provider is named {model.provider!r}{hint}"
            raise self._config.error((*place, "provider"), message)
        return _named(target, name)

    def _at(self, name: str, provider: Provider, model: Model | None = None) -> Target:
        """Make the target of a provider, or of one model of it; the model's name comes later."""
        own = model or Model(id="")
        limits = limits_with(self._config.limits, provider.limits, own.limits)
        upstream = None if own.base_url else self._upstreams.get(name)
        secrets: list[Secret] = []
        if upstream is None:
            base_url = own.base_url or provider.base_url
            if not base_url:
                message = f"the provider {name!r} needs a base_url"
                raise self._config.error(("providers", name), message)
            # An address of its own has a cap of its own, and none of the provider's secrets.
            apart = bool(own.base_url)
            endpoint = Endpoint(
                provider=f"{name} ({own.id})" if apart else name,
                base_url=base_url,
                api_key=own.api_key or (None if apart else provider.api_key),
                headers={} if apart else provider.headers,
                max_streams=0 if apart else provider.max_streams,
                proxy=provider.proxy,
                limits=limits,
            )
            upstream = self._connect(endpoint)
            secrets = [
                *endpoint.headers.values(),
                *filter(None, [endpoint.api_key, endpoint.proxy]),
                *passwords_in(endpoint.proxy),
            ]
            self.endpoints.setdefault(endpoint.provider, upstream)
        return Target(
            upstream=upstream,
            format=self._formats[FORMAT_OF[own.api or provider.api]],
            model="",
            provider=name,
            limits=limits,
            fold=provider.fold if own.fold is None else own.fold,
            include_usage=(
                provider.include_usage if own.include_usage is None else own.include_usage
            ),
            preface=f"[Model: {own.description}]" if own.describe and own.description else None,
            conceal=concealer(secrets),
        )

    def _has(self, provider: str) -> bool:
        return provider in self._config.providers or provider in self._upstreams

    def _unknown(self, name: str) -> str:
        message = f"no model is named {name[:LONGEST_NAME]!r}"
        ids = list(self._entries)
        near = difflib.get_close_matches(name[:LONGEST_NAME], ids, 3, 0.5)
        if near:
            return f"{message}; the nearest: {', '.join(near)}"
        wild = [f"{provider}/…" for provider in self._wildcards]
        some = ids[:5] + (["…"] if len(ids) > 5 else []) + wild
        none = "the configuration names no models"
        return f"{message}; there are: {', '.join(some)}" if some else f"{message}: {none}"


def _named(target: Target, model: str) -> Target:
    return msgspec.structs.replace(target, model=model)
