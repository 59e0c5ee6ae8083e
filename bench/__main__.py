"""The command line: one subcommand per question that is asked of the gateway.

The law of this file: a further subcommand is a module with a click command in it, added to
`COMMANDS`. However a command is told to stop, it ends what it has started first.
"""

from __future__ import annotations

import signal
import sys

import click

from .decode import decode
from .latency import latency
from .memory import memory
from .peers import peers
from .soak import soak
from .throughput import throughput


COMMANDS = (throughput, latency, memory, decode, peers, soak)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Measure the gateway on this machine. Loopback only; every command stops by itself."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="python -m bench")
