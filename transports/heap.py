"""Large blocks of memory: each on pages of its own, given back to the system when it is freed.

The law of this file: what is freed is gone. glibc maps a block from 128 KiB on by itself, but only
until the first of them is freed: from then on it takes blocks of up to that size (at last 32 MiB)
from the heap. A gateway's large blocks are the texts of long replies that somebody takes long to
read; between them stand small blocks that stay, so each leaves a hole that no larger one fits.
Measured with Responses clients, twenty at a time, that stop reading near the end of 896 KiB: a heap
of 135 MiB, and one of 37 with the bound held where it is at the start. So held, that of 1,100
streams and 58 such clients stays between 87 and 95 MiB (20 min). What it costs is new pages for
each large block, half a millisecond per MiB on a small virtual machine, where the heap has no room.

The whole process is concerned, so only `serve` does this, for processes of its own. Where an
operator has set glibc's variables (`MALLOC_MMAP_THRESHOLD_` and its like, or `GLIBC_TUNABLES`),
they count; where the C library is another (musl, macOS) there is nothing to do.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping


LARGE = 128 * 1024
"""Bytes of a block from which on it has pages of its own: where glibc has it at the start."""

THEIRS = ("mmap_threshold", "trim_threshold", "top_pad", "mmap_max")
"""What an operator may set; any of them ends the sliding, as ours does."""

# Parameters of mallopt(3), as <malloc.h> has them.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def keep_large_blocks_out(environ: Mapping[str, str] = os.environ) -> bool:
    """Keep blocks of `LARGE` bytes and more out of this process's heap; return whether we do."""
    if sys.platform != "linux" or _is_set(environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    # Either of them ends the sliding. The second one: freed memory at the heap's end goes back.
    return bool(mallopt(M_MMAP_THRESHOLD, LARGE) and mallopt(M_TRIM_THRESHOLD, LARGE))


def _is_set(environ: Mapping[str, str]) -> bool:
    """Whether an operator has said what goes into the heap and what stays there."""
    tunables = environ.get("GLIBC_TUNABLES", "")
    return any(
        f"MALLOC_{name.upper()}_" in environ or f"glibc.malloc.{name}=" in tunables
        for name in THEIRS
    )
