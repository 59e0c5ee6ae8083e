"""Which of several failures a reply is said to have failed of, and in which words.

The law of this file: one failure is told, and none is forgotten: the others stand in its context.
The upstream's fault comes before ours, and a secret in an upstream's words is hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from . import jsontext
from .errors import ErrorInfo, InternalError, NurslingError


def the_one(error: Exception) -> NurslingError:
    """Choose what a failed stage is said to have failed of.

    Of a group, the upstream's fault comes before ours; the group stays reachable as the context.
    """
    if isinstance(error, NurslingError):
        return error
    if isinstance(error, ExceptionGroup):
        leaves = [the_one(leaf) for leaf in error.exceptions]
        leaves.sort(key=lambda leaf: leaf.fault != "upstream")
        leaves[0].__context__ = error
        return leaves[0]
    bug = InternalError("an internal error of the gateway")
    bug.__cause__ = error
    return bug


def came_second(told: BaseException | None, other: BaseException | None) -> None:
    """Keep an error that stands behind the one that is told: at the end of its contexts."""
    if told is None or other is None:
        return
    while told.__context__ is not None:
        told = told.__context__
    if told is not other:
        told.__context__ = other


def concealed(info: ErrorInfo, conceal: Callable[[str], str]) -> ErrorInfo:
    """Hide secrets in all words of an error, the upstream's own object included."""
    raw = info.raw
    if raw is not None:
        raw = jsontext.loads(conceal(jsontext.dumps(raw).decode()).encode())
    return msgspec.structs.replace(info, message=conceal(info.message), raw=raw)
