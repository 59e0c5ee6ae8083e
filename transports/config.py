"""The configuration: a TOML file and the environment, made into one frozen object.

The law of this file: nobody else reads the configuration file or the environment, and whatever is
wrong with them is said here, before anything starts, as one `ConfigError` of one line that names
the file, the line and the key.

`${NAME}` in any string is replaced by that environment variable, `$${` stands for a plain `${`.
The replacement happens after parsing, so a value cannot change the structure of the file.
Unknown keys are errors: a misspelt limit that is silently not in force is worse than no start.
"""

from __future__ import annotations

import difflib
import hashlib
import ipaddress
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import msgspec

from nursling.engine.limits import DEFAULT_LIMITS, Limits

from . import checks, toml_lines
from .secret import Secret


Api = Literal["openai-completions", "openai-responses", "openai-codex-responses"]
"""The wire format of an upstream. `openai-codex-responses` is spoken as `openai-responses`: the
body rules that the Codex service has beyond it are a format of their own, not of this release."""

Overrides = dict[str, int | float]
"""Limits of a provider or a model: a selection of the fields of `Limits`."""

PROCESS_LIMITS = frozenset(
    {
        "head_timeout",
        "body_timeout",
        "drain_timeout",
        "max_body_bytes",
        "max_json_depth",
        "max_json_nodes",
        "max_recall_bytes",
        "max_head_bytes",
        "max_streams",
        "max_connections",
        "max_refused",
        "max_headers",
        "max_requests",
        "max_idle",
        "keep_alive",
        "backlog",
    }
)
"""Limits that are in force before a request has a provider: only `[limits]` can set them."""

MAY_BE_NONE = frozenset({"max_recall_bytes"})
"""Sizes that may be 0."""

MOST = 1_000_000
"""Of a count, and seconds of a clock (11 days): what is more is a slip, and systems take no number
without bound (the kernel's are of 32 bits)."""
MOST_BYTES = 1 << 40
"""Of a size: a terabyte."""

DEMO = "demo"
"""The built-in provider, and the one model that it has."""

FILE_NAME = "nursling.toml"

NO_LINES = toml_lines.Lines()
"""Of a configuration that is no file."""


class ConfigError(Exception):
    """The configuration is wrong; the message is one line for its author."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """`[server]`: where we listen."""

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8787
    """0 = any free one."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose web pages may call us; `*` = all."""
    tls_cert: str | None = None
    tls_key: str | None = None
    workers: Annotated[int, msgspec.Meta(ge=1, le=128)] = 1
    """Processes that serve, a core each; the caps of `[limits]` are those of all of them."""
    fallback_provider: str | None = None
    """Gets the configured models whose provider has no table, under the name `provider/model`."""


class KeyEntry(msgspec.Struct, frozen=True, kw_only=True):
    """`[[keys]]`: who may call. Of the secret only its SHA-256 is kept."""

    name: str
    secret: Secret | None = None
    sha256: str | None = None

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the secret."""
        return bytes.fromhex(self.sha256 or "")


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """`[providers.NAME]`: an API that answers for many models."""

    base_url: str = ""
    """Up to the format's path (`https://api.openai.com/v1`); a query is kept (Azure). May be empty
    for a provider whose upstream is an object of the embedding program."""
    api: Api = "openai-completions"
    api_key: Secret | None = None
    headers: dict[str, Secret] = {}
    """Sent with every request, beside ours."""
    proxy: Secret | None = None
    """The way to it leads through here: `http://user:password@host:3128`, or `https://…`. Only this
    key says so: proxies of the environment are not used."""
    wildcard: bool = False
    """Whether it takes models that no `[[models]]` entry names."""
    fold: bool = False
    include_usage: bool = True
    max_streams: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Requests at once; further ones wait, within the connect clock. 0 = no cap."""
    limits: Overrides = {}


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """`[[models]]`: a model that clients may ask for."""

    id: str
    provider: str | None = None
    upstream_model: str | None = None
    """Its name at the provider; by default `id`."""
    description: str | None = None
    describe: bool = False
    """Tell the model its own description, before everything else."""
    context_window: int | None = None
    max_tokens: int | None = None
    reasoning: bool | None = None
    input: tuple[str, ...] | None = None
    cost: dict[str, Any] | None = None
    compat: dict[str, Any] | None = None
    base_url: str | None = None
    api: Api | None = None
    api_key: Secret | None = None
    fold: bool | None = None
    include_usage: bool | None = None
    order: int = 0
    weight: Annotated[float, msgspec.Meta(gt=0)] = 1.0
    limits: Overrides = {}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is configured, checked.

    Several models of one id form a group. Its first member (lowest `order`, then order of the
    file) serves every request: `weight` and the others wait for failover between upstreams.
    """

    server: Server = Server()
    keys: tuple[KeyEntry, ...] = ()
    providers: dict[str, Provider] = {}
    models: tuple[Model, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    node: bool = False
    """Whether it is a node of the peer mesh."""
    path: str | None = None
    """The file that it was read from."""
    lines: toml_lines.Lines = NO_LINES
    """Where its keys stand there."""
    warnings: tuple[str, ...] = ()
    """What is allowed and not wise: a line each."""

    def error(self, path: toml_lines.Path, message: str) -> ConfigError:
        """Make the error of what only shows when everything is put together (`catalog.py`)."""
        return ConfigError(f"{self.lines.where(path)}: {message}")


def load_config(
    path: str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> Config:
    """Read the configuration. Raises `ConfigError`.

    From `path` if it is given; else from the first that exists of `nursling.toml` in `directory`
    (by default the current one) and the one under `~/.config`; else the default.
    """
    environ = os.environ if environ is None else environ
    if path is not None:
        return _read_file(Path(path), environ)
    home = Path(environ["HOME"]) if environ.get("HOME") else None
    places = [(directory or Path()) / FILE_NAME]
    if home is not None:
        places.append(home / ".config" / "nursling" / FILE_NAME)
    for place in places:
        if place.is_file():
            return _read_file(place, environ)
    return default_config(environ)


def default_config(environ: Mapping[str, str] | None = None) -> Config:
    """What runs without a file: the demo model, and OpenAI if the environment has a key for it."""
    environ = os.environ if environ is None else environ
    tables: dict[str, Any] = {"models": [{"id": DEMO, "provider": DEMO}]}
    if environ.get("OPENAI_API_KEY"):
        tables["providers"] = {
            "openai": {
                "api": "openai-responses",
                "base_url": environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1",
                "api_key": environ["OPENAI_API_KEY"].replace("${", "$${"),
                "wildcard": True,
            }
        }
    return config_from_dict(tables, environ=environ)


def config_from_dict(
    tables: Mapping[str, Any], *, environ: Mapping[str, str] | None = None
) -> Config:
    """Make a configuration from the tables of the file, given as a dict. Raises `ConfigError`."""
    reader = _Reader(NO_LINES, os.environ if environ is None else environ)
    return reader.read(dict(tables))


def with_address(
    config: Config, host: str | None, port: int | None, workers: int | None = None
) -> Config:
    """Let the command line override where, and with how many, we listen. Raises `ConfigError`."""
    said = {"host": host, "port": port, "workers": workers}
    given = {name: value for name, value in said.items() if value is not None}
    server = msgspec.structs.replace(config.server, **given)
    if problem := _exposed(server.host, config.keys) or _crowded(server.workers, config.node):
        raise ConfigError(problem)
    return msgspec.structs.replace(config, server=server)


def limits_with(base: Limits, *overrides: Overrides) -> Limits:
    """Apply the limits of a provider, then of a model."""
    for override in overrides:
        if override:
            base = msgspec.structs.replace(base, **override)
    return base


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _exposed(host: str, keys: tuple[KeyEntry, ...]) -> str | None:
    if keys or is_loopback(host):
        return None
    return f"listening on {host!r} lets others in: configure at least one [[keys]] entry first"


def _crowded(workers: int, node: bool) -> str | None:
    if workers == 1 or not node:
        return None
    return f"workers = {workers} and [node] do not go together: a node's links live in one process"


def _read_file(path: Path, environ: Mapping[str, str]) -> Config:
    try:
        text = path.read_text(encoding="utf-8-sig")  # some editors begin a file with a BOM
        tables = tomllib.loads(text)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(_broken(path, str(error))) from None
    lines = toml_lines.Lines(text, str(path))
    config = _Reader(lines, environ).read(tables)
    warnings: tuple[str, ...] = ()
    if (place := checks.shown_secret(tables)) and (mode := checks.mode_for_others(path)):
        why = f"a secret in a file that others may read (mode {mode:o})"
        warnings = (f"{lines.where(place)}: {why}: chmod 600, or write ${{NAME}}",)
    return msgspec.structs.replace(config, path=str(path.absolute()), warnings=warnings)


def _broken(path: Path, why: str) -> str:
    """Say why a text is no TOML as all else is said: the place first. `tomllib` says it last."""
    place = re.search(r" \(at line (\d+), column \d+\)\Z", why)
    return f"{path}:{place[1]}: {why[: place.start()]}" if place else f"{path}: {why}"


_T = TypeVar("_T", bound=msgspec.Struct)
_VARIABLE = re.compile(r"\$\$\{|\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_PLACE = re.compile(r" - at `(?:key in )?\$(.*)`\Z")


class _Reader:
    """Reads the tables of one file, and knows where they stand."""

    def __init__(self, lines: toml_lines.Lines, environ: Mapping[str, str]) -> None:
        self._lines = lines
        self._environ = environ

    def read(self, tables: dict[str, Any]) -> Config:
        for mesh in ("node", "peers"):
            if mesh in tables:
                raise self._error((mesh,), "the peer mesh is not in this release")
        known = ("server", "keys", "providers", "models", "limits")
        self._known_keys(tables, known, (), "the file")
        tables = self._expand(tables, ())
        server = self._struct(Server, self._table(tables, "server"), ("server",))
        self._certificate(server.tls_cert, server.tls_key)
        keys = tuple(
            self._key(table, ("keys", index)) for index, table in self._array(tables, "keys")
        )
        if len({key.name for key in keys}) != len(keys):
            raise self._error(("keys",), "two keys have the same name")
        self._must(("server", "host"), _exposed(server.host, keys))
        self._must(("server", "workers"), _crowded(server.workers, "node" in tables))
        return Config(
            server=server,
            keys=keys,
            providers={
                name: self._provider(name, table)
                for name, table in self._table(tables, "providers").items()
            },
            models=tuple(
                self._model(table, ("models", index))
                for index, table in self._array(tables, "models")
            ),
            limits=self._limits(self._table(tables, "limits"), ("limits",), whole=True),
            node="node" in tables,
            lines=self._lines,
        )

    # The kinds of tables.

    def _certificate(self, cert: str | None, key: str | None) -> None:
        if (cert is None) != (key is None):
            raise self._error(("server",), "tls_cert and tls_key go together")
        if cert is not None and key is not None:
            self._must(("server", "tls_cert"), checks.readable(cert))
            self._must(("server", "tls_key"), checks.readable(key))
            self._must(("server", "tls_cert"), checks.certificate(cert, key))

    def _key(self, table: Any, path: toml_lines.Path) -> KeyEntry:
        key = self._struct(KeyEntry, table, path)
        if not key.name.strip():
            raise self._error((*path, "name"), "the name is empty")
        if (key.secret is None) == (key.sha256 is None):
            raise self._error(path, "a key has either a secret or a sha256")
        if key.secret is not None:
            if not key.secret:
                raise self._error((*path, "secret"), "the secret is empty")
            text = key.secret.reveal()
            self._must((*path, "secret"), checks.header_value(text, ascii_only=False))
            digest = hashlib.sha256(text.encode()).hexdigest()
            return KeyEntry(name=key.name, sha256=digest)
        if not re.fullmatch(r"[0-9a-fA-F]{64}", key.sha256 or ""):
            raise self._error((*path, "sha256"), "sha256 is 64 hexadecimal digits")
        return key

    def _provider(self, name: str, table: Any) -> Provider:
        path: toml_lines.Path = ("providers", name)
        if "/" in name or not name:
            raise self._error(path, "a provider's name is not empty and has no '/'")
        provider = self._struct(Provider, table, path)
        self._check_url(provider.base_url, (*path, "base_url"))
        for header, value in provider.headers.items():
            self._must((*path, "headers"), checks.header_name(header))
            self._check_header_value(value, (*path, "headers", header))
        self._check_header_value(provider.api_key, (*path, "api_key"))
        if provider.proxy is not None:
            self._must((*path, "proxy"), checks.proxy(provider.proxy.reveal()))
        self._limits(provider.limits, (*path, "limits"), whole=False)
        return provider

    def _model(self, table: Any, path: toml_lines.Path) -> Model:
        if isinstance(table, dict) and "node" in table:
            raise self._error((*path, "node"), "the peer mesh is not in this release")
        model = self._struct(Model, table, path)
        if not model.id:
            raise self._error((*path, "id"), "the id is empty")
        if model.describe and not model.description:
            raise self._error((*path, "describe"), "describe needs a description")
        self._check_url(model.base_url or "", (*path, "base_url"))
        self._check_header_value(model.api_key, (*path, "api_key"))
        self._limits(model.limits, (*path, "limits"), whole=False)
        return model

    def _limits(self, table: dict[str, Any], path: toml_lines.Path, *, whole: bool) -> Limits:
        for name, value in table.items():
            if not whole and name in PROCESS_LIMITS:
                raise self._error((*path, name), f"{name} is of the whole process: see [limits]")
            least = 1 if name.startswith("max_") and name not in MAY_BE_NONE else 0
            if isinstance(value, int | float) and not least <= value < math.inf:
                raise self._error((*path, name), f"{name} is a number from {least} up")
            most = MOST_BYTES if name.endswith("_bytes") else MOST
            if isinstance(value, int | float) and value > most:
                raise self._error((*path, name), f"{name} is {most} at most")
        return self._struct(Limits, table, path)

    def _check_url(self, url: str, path: toml_lines.Path) -> None:
        self._must(path, checks.url(url) if url else None)

    def _check_header_value(self, value: Secret | None, path: toml_lines.Path) -> None:
        self._must(path, None if value is None else checks.header_value(value.reveal()))

    # The machinery.

    def _struct(self, type_: type[_T], table: Any, path: toml_lines.Path) -> _T:
        """Turn a table into its struct; name unknown keys and wrong types."""
        if isinstance(table, dict):
            fields = msgspec.structs.fields(type_)
            self._known_keys(table, [field.name for field in fields], path, _said(path))
        try:
            return msgspec.convert(table, type_, dec_hook=_decode)
        except msgspec.ValidationError as error:
            text = str(error)
            if place := _PLACE.search(text):
                text = text[: place.start()]
                path = (*path, *place[1].lstrip(".").split(".")) if place[1] else path
            if text.startswith("Invalid enum value"):  # `api` is the one key of fixed words
                text += f"; known: {', '.join(get_args(Api))}"
            raise self._error(path, f"{_said(path)}: {text[:1].lower()}{text[1:]}") from None

    def _known_keys(
        self, table: dict[str, Any], known: Any, path: toml_lines.Path, where: str
    ) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, 1, 0.5)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(known)}"
                raise self._error((*path, key), f"unknown key {key!r} in {where}{hint}")

    def _table(self, tables: dict[str, Any], name: str) -> dict[str, Any]:
        table = tables.get(name, {})
        if not isinstance(table, dict):
            raise self._error((name,), f"{name} is a table: [{name}]")
        return table

    def _array(self, tables: dict[str, Any], name: str) -> list[tuple[int, Any]]:
        array = tables.get(name, [])
        if not isinstance(array, list | tuple):
            raise self._error((name,), f"{name} is an array of tables: [[{name}]]")
        return list(enumerate(array))

    def _expand(self, value: Any, path: toml_lines.Path) -> Any:
        match value:
            case str():
                return _VARIABLE.sub(lambda found: self._variable(found, path), value)
            case dict():
                return {key: self._expand(element, (*path, key)) for key, element in value.items()}
            case list() | tuple():
                return [self._expand(element, (*path, at)) for at, element in enumerate(value)]
            case _:
                return value

    def _variable(self, found: re.Match[str], path: toml_lines.Path) -> str:
        if found[0] == "$${":
            return "${"
        if not found[0].endswith("}") or not _NAME.match(found[1]):
            raise self._error(path, f"{_said(path)}: a variable is written ${{NAME}}")
        if found[1] not in self._environ:
            message = f"{_said(path)}: the environment variable {found[1]} is not set"
            raise self._error(path, message)
        return self._environ[found[1]]

    def _error(self, path: toml_lines.Path, message: str) -> ConfigError:
        return ConfigError(f"{self._lines.where(path)}: {message}")

    def _must(self, path: toml_lines.Path, problem: str | None) -> None:
        if problem is not None:
            raise self._error(path, problem)


def _decode(type_: type[Any], value: Any) -> Any:
    if type_ is Secret and isinstance(value, str | Secret):
        return Secret(value) if isinstance(value, str) else value
    raise TypeError(f"Expected `str`, got `{type(value).__name__}`")


def _said(path: toml_lines.Path) -> str:
    """Write a path the way the file's author would: `[[models]] 2, api_key`."""
    match path:
        case (str(name), int(at), *rest):
            return ", ".join([f"[[{name}]] {at + 1}", *(str(part) for part in rest)])
        case ("providers", str(name), *rest):
            return ", ".join([f"[providers.{name}]", *(str(part) for part in rest)])
        case (str(name), *rest):
            return ", ".join([f"[{name}]", *(str(part) for part in rest)])
        case _:
            return "the file"
