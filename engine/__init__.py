"""nursling's engine: replies of LLM APIs as bounded, cancellable streams of events.

Pure but for `pipeline.py`: no I/O, no clock, no globals. Needs nothing but Trio (and msgspec).

    async with open_reply(request, target) as reply:
        async for event in reply: ...
        message = reply.message

`request` is a `Request`, made by hand or by a format's `parse_request`; `target` says which
`Upstream` (any object with one method, `open`) is asked in which `Format`.
"""

from __future__ import annotations

from .accumulate import FinishedItem, FinishedPart, FinishedReply
from .errors import ErrorInfo, NurslingError
from .events import (
    Annotated,
    Ended,
    Event,
    Failed,
    Finished,
    ItemEnded,
    ItemStarted,
    PartDelta,
    PartEnded,
    PartStarted,
    Started,
    Usage,
    UsageReported,
)
from .formats.base import Format, Identity
from .formats.chat import CHAT
from .formats.responses import RESPONSES
from .limits import Limits
from .pipeline import Reply, Source, Target, Upstream, open_reply
from .request import Message, Request, Text


__all__ = [
    "CHAT",
    "RESPONSES",
    "Annotated",
    "Ended",
    "ErrorInfo",
    "Event",
    "Failed",
    "Finished",
    "FinishedItem",
    "FinishedPart",
    "FinishedReply",
    "Format",
    "Identity",
    "ItemEnded",
    "ItemStarted",
    "Limits",
    "Message",
    "NurslingError",
    "PartDelta",
    "PartEnded",
    "PartStarted",
    "Reply",
    "Request",
    "Source",
    "Started",
    "Target",
    "Text",
    "Upstream",
    "Usage",
    "UsageReported",
    "open_reply",
]
