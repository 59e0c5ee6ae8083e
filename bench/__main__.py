"""The command line: one subcommand per question that is asked of the gateway.

A further subcommand is a module with a click command in it, added to `COMMANDS`.
"""

from __future__ import annotations

import click

from .soak import soak
from .throughput import throughput


COMMANDS = (throughput, soak)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the gateway on this machine. Loopback only; every command stops by itself."""


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m bench")
