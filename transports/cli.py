"""The command line.

The law of this file: what is wrong before the work begins (configuration, address) is one line on
stderr and exit code 2; what goes wrong in a request is one line and exit code 1.
"""

from __future__ import annotations

import sys
from functools import partial
from urllib.parse import urlsplit

import click
import structlog
import trio
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from nursling.engine.errors import NurslingError
from nursling.engine.events import PartDelta, PartStarted
from nursling.engine.request import Message, Request, Text

from . import descriptors, heap, logs
from .config import Config, ConfigError, load_config
from .engine import open_engine
from .gateway import run_gateway
from .orders import Options
from .upstream.client import HttpUpstream
from .version import VERSION
from .workers import run_workers


CURL = """\
curl -N {url}/v1/chat/completions -H 'content-type: application/json'{key} \\
  -d '{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello!"}}]}}'
"""

_config_option = click.option(
    "--config",
    "file",
    type=click.Path(dir_okay=False),
    help="The configuration file; else ./nursling.toml, else ~/.config/nursling/nursling.toml.",
)


class ConfigFailure(click.ClickException):
    """A `ConfigError` on its way to the terminal."""

    exit_code = 2


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, prog_name="nursling")
def main() -> None:
    """Join LLM clients and LLM servers by live, bounded, cancellable streams."""
    logs.have_stderr()


@main.command()
@_config_option
@click.option("--host", help="Where to listen, instead of the configured address.")
@click.option("--port", type=click.IntRange(0, 65535), help="0 = any free one.")
@click.option("--workers", type=click.IntRange(1, 128), help="Processes that share the work.")
@click.option("--log-level", type=click.Choice(logs.LEVELS), default="info", show_default=True)
def serve(
    file: str | None, host: str | None, port: int | None, workers: int | None, log_level: str
) -> None:
    """Run the gateway."""

    def load() -> Config:
        # The file that was found first is the one to read again.
        return options.over(load_config(found.path))

    found = _load(file)
    options = Options(host=host, port=port, workers=workers)
    try:
        config = options.over(found)
        with logs.written_aside(log_level):
            if config.server.workers > 1:
                run = partial(run_workers, config, options, log_level=log_level)
                trio.run(partial(run, on_listening=partial(_say, config)))
                return
            heap.keep_large_blocks_out()
            if missing := descriptors.make_room(config.limits):
                log = structlog.get_logger("nursling")
                log.warning("descriptors missing", count=missing, why="the hard limit (ulimit -Hn)")
            run = partial(run_gateway, config, load=load, on_listening=partial(_say, config))
            trio.run(run)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None


def _say(config: Config, urls: list[str]) -> None:
    """Tell whoever started us where we are, and what to try."""
    model = config.models[0].id if config.models else "MODEL"
    key = ' -H "authorization: Bearer $NURSLING_KEY"' if config.keys else ""
    click.echo(f"nursling {VERSION} listens on {' and '.join(urls)}\n\nTry it:\n")
    click.echo(CURL.format(url=urls[0], model=model, key=key))


@main.command()
@_config_option
@click.option("--probe", is_flag=True, help="Also ask each upstream for its models.")
def check(file: str | None, probe: bool) -> None:
    """Check the configuration, and show what it says (without secrets)."""
    config = _load(file)
    try:
        answers = trio.run(_check, config, probe)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None
    for warning in config.warnings:
        click.echo(f"warning: {warning}", err=True)
    console = Console()
    console.print(_providers(config))
    console.print(_models(config))
    keys = ", ".join(escape(key.name) for key in config.keys) or "none: open to this machine"
    console.print(f"Keys: {keys}")
    workers = config.server.workers
    console.print(f"Workers: {workers}" + (f" (each has 1/{workers} of the caps)" * (workers > 1)))
    for name, (good, answer) in answers.items():
        console.print(f"{escape(name)}: [{'green' if good else 'red'}]{escape(answer)}")
    console.print(f"[green]good:[/] {escape(config.path or 'the built-in configuration')}")
    if not all(good for good, _ in answers.values()):
        sys.exit(1)


async def _check(config: Config, probe: bool) -> dict[str, tuple[bool, str]]:
    """Build the engine, which finds entries that lead nowhere; ask the upstreams if wanted."""
    answers: dict[str, tuple[bool, str]] = {}

    async def ask(name: str, upstream: HttpUpstream) -> None:
        try:
            models = await upstream.models()
        except NurslingError as error:
            answers[name] = (False, error.detail or error.message)
        else:
            answers[name] = (True, f"{len(models)} models")

    async with open_engine(config) as engine, trio.open_nursery() as nursery:
        for name, upstream in engine.endpoints.items():
            if probe and isinstance(upstream, HttpUpstream):
                nursery.start_soon(ask, name, upstream)
    return dict(sorted(answers.items()))


@main.command()
@_config_option
def models(file: str | None) -> None:
    """List the configured models."""
    Console().print(_models(_load(file)))


@main.command()
@_config_option
@click.option("--system", help="Instructions to the model.")
@click.option("--no-stream", is_flag=True, help="Ask for a whole reply.")
@click.argument("model")
@click.argument("text")
def ask(file: str | None, system: str | None, no_stream: bool, model: str, text: str) -> None:
    """Ask MODEL something and print its answer as it comes."""
    items = [Message(role="system", content=[Text(system)])] if system else []
    items.append(Message(role="user", content=[Text(text)]))
    request = Request(model=model, items=list(items), stream=not no_stream)
    try:
        trio.run(_ask, _load(file), request)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None
    except NurslingError as error:
        words = logs.plain(f"{error.detail or error.message} ({error.code})")
        raise click.ClickException(words) from None
    except KeyboardInterrupt:
        sys.exit(130)


async def _ask(config: Config, request: Request) -> None:
    """Print text on stdout, reasoning on stderr (dim, on a terminal only)."""
    thinking = Console(stderr=True, highlight=False, soft_wrap=True)
    visible: dict[tuple[int, int], bool] = {}
    thought = False
    async with open_engine(config) as engine, engine.stream(request) as reply:
        async for event in reply:
            match event:
                case PartStarted():
                    visible[event.item, event.part] = event.kind in {"text", "refusal"}
                case PartDelta() if visible.get((event.item, event.part)):
                    if thought:
                        thinking.print()
                        thought = False
                    click.echo(_harmless(event.text), nl=False)
                case PartDelta() if thinking.is_terminal:
                    thinking.print(f"[dim]{escape(_harmless(event.text))}[/]", end="")
                    thought = True
                case _:
                    pass
        for call in reply.message.tool_calls:
            click.echo(_harmless(f"\n{call.name}({call.text('arguments', 'input')})"), nl=False)
    click.echo()


def _harmless(text: str) -> str:
    """Take the power over a terminal out of a text: no control characters but newline and tab."""
    return "".join(char for char in text if char in "\n\t" or (char >= " " and char != "\x7f"))


def _load(file: str | None) -> Config:
    try:
        return load_config(file)
    except ConfigError as error:
        raise ConfigFailure(str(error)) from None


def _providers(config: Config) -> Table:
    table = Table("provider", "api", "base_url", "key", "takes", "at once", title="Providers")
    for name, provider in config.providers.items():
        table.add_row(
            escape(name),
            provider.api,
            escape(urlsplit(provider.base_url)._replace(query="", fragment="").geturl()),
            "yes" if provider.api_key else "no",
            "any model" if provider.wildcard else "its models",
            str(provider.max_streams or "any"),
        )
    return table


def _models(config: Config) -> Table:
    table = Table("model", "provider", "asked as", "description", title="Models")
    for model in config.models:
        table.add_row(
            escape(model.id),
            escape(model.provider or "-"),
            escape(model.upstream_model or model.id),
            escape(model.description or ""),
        )
    return table
