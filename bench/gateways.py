"""Who is measured: each gateway is a command that anybody could type, and the files it reads.

The law of this file: a gateway learns of the upstream from its configuration only, and every one
runs as it comes: no database, one process, and what it logs by itself. In a
command `{port}` is where it has to listen on 127.0.0.1, `{upstream}` the upstream's port, and
`{NAME}` the path of a file in `FILES`.
"""

from __future__ import annotations

import importlib.util
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import msgspec

from .load import KEY
from .plan import Api, Plan


NURSLING = (
    f"{shlex.quote(sys.executable)} -c 'from nursling.transports.cli import main; main()'"
    " serve --config {config}"
)
LITELLM = "--config {litellm} --host 127.0.0.1 --port {port} --num_workers 1 --telemetry False"
LITELLM_HINT = (
    "LiteLLM is not installed, so it is left out: `pip install 'litellm[proxy]'` in a virtual "
    "environment, then --litellm PATH/bin/litellm"
)
ROOM = 5000
"""Streams at once that a gateway is to allow."""


class Gateway(msgspec.Struct, frozen=True):
    """Something to measure."""

    name: str
    command: str
    environ: dict[str, str] = {}
    """Beside our own environment."""
    patience: float = 20.0
    """Seconds until it must listen."""
    version: str = ""
    """Where we can tell it; that of nursling is in what is told of the machine."""

    def arguments(self, places: dict[str, str]) -> list[str]:
        """The command with its places filled in. Raises `ValueError`: it has a place too many."""
        try:
            return shlex.split(self.command.format(**places))
        except (KeyError, IndexError, ValueError) as error:
            known = " ".join(f"{{{name}}}" for name in places)
            raise ValueError(f"{self.name}: {error} in the command; it may have {known}") from None


def nursling(command: str = NURSLING) -> Gateway:
    """The gateway of this checkout."""
    return Gateway("nursling", command)


def litellm(command: str | None = None) -> Gateway | None:
    """LiteLLM's proxy: this command, or the one that is installed; None: it is not."""
    if command is None:
        found = shutil.which("litellm")
        if found is not None:
            command = shlex.quote(found)
        elif importlib.util.find_spec("litellm") is not None:
            run = "from litellm import run_server; run_server()"
            command = f"{shlex.quote(sys.executable)} -c {shlex.quote(run)}"
        else:
            return None
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches one
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "DISABLE_ADMIN_UI": "True",
    }
    full = command if "{port}" in command else f"{command} {LITELLM}"
    return Gateway("litellm", full, environ, patience=180.0, version=_litellm_version(full))


def _litellm_version(command: str) -> str:
    """The version that is installed beside a command; empty if it cannot be told."""
    program = shutil.which(shlex.split(command)[0]) or ""
    root = Path(program).parent.parent
    for found in sorted(root.glob("lib/python*/site-packages/litellm-*.dist-info")):
        return found.name.removeprefix("litellm-").removesuffix(".dist-info")
    return ""


def nursling_file(plans: Iterable[Plan], port: int, upstream: int) -> str:
    """The configuration of nursling: both APIs of the upstream, and a model for every plan."""
    apis: dict[Api, str] = {"chat": "openai-completions", "responses": "openai-responses"}
    lines = [
        "[server]",
        'host = "127.0.0.1"',
        f"port = {port}",
        "[limits]",
        f"max_streams = {ROOM}",
        f"max_connections = {2 * ROOM}",
        "heartbeat = 0",  # where streams are silent on purpose, nothing else may be heard
    ]
    for name, api in apis.items():
        lines += [
            f"[providers.{name}]",
            f'api = "{api}"',
            f'base_url = "http://127.0.0.1:{upstream}/v1"',
            'api_key = "bench"',
        ]
    for plan in plans:
        lines += ["[[models]]", f'id = "{plan.model}"', f'provider = "{plan.api}"']
    return "\n".join([*lines, ""])


def litellm_file(plans: Iterable[Plan], port: int, upstream: int) -> str:
    """The configuration of LiteLLM, which is YAML, of which JSON is a part."""
    del port
    prefixes: dict[Api, str] = {"chat": "openai/", "responses": "openai/responses/"}
    models = [
        {
            "model_name": plan.model,
            "litellm_params": {
                "model": prefixes[plan.api] + plan.model,
                "api_base": f"http://127.0.0.1:{upstream}/v1",
                "api_key": "bench",
            },
        }
        for plan in plans
    ]
    settings = {"telemetry": False, "set_verbose": False}
    general = {"master_key": KEY}  # without one it does not start
    whole = {"model_list": models, "litellm_settings": settings, "general_settings": general}
    return json.dumps(whole, indent=1)


FILES: dict[str, tuple[str, Callable[[Iterable[Plan], int, int], str]]] = {
    "config": ("bench.toml", nursling_file),
    "litellm": ("litellm.yaml", litellm_file),
}
"""Place in a command -> the file's name, and what writes it: plans, own port, upstream's port."""


def write_files(plans: Iterable[Plan], port: int, upstream: int, folder: Path) -> dict[str, str]:
    """Write all files of a gateway; return what is to be filled into its command."""
    places = {"port": str(port), "upstream": str(upstream)}
    named = sorted(set(plans), key=lambda plan: plan.model)
    for place, (name, write) in FILES.items():
        path = folder / f"{port}-{name}"
        path.write_text(write(named, port, upstream), encoding="utf-8")
        places[place] = str(path)
    return places
