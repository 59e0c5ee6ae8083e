"""The formats under test, by the name that requests and upstreams call them."""

from __future__ import annotations

from nursling.engine.accumulate import Accumulator
from nursling.engine.errors import NurslingError, error_from
from nursling.engine.events import Event, Failed
from nursling.engine.formats.base import Decoder, Format, Identity
from nursling.engine.formats.chat import CHAT
from nursling.engine.formats.responses import RESPONSES
from nursling.engine.grammar import Grammar
from nursling.engine.jsontext import dumps
from nursling.engine.limits import DEFAULT_LIMITS
from nursling.engine.request import Request


FORMATS: dict[str, Format] = {"chat": CHAT, "responses": RESPONSES}
IDENTITY = Identity("0123456789abcdef" * 2, 1_790_000_123)


def through(decoder: Decoder, chunks: list[bytes]) -> list[list[Event]]:
    """Decode and check, batch by batch: what an encoder would be handed."""
    grammar = Grammar()
    batches: list[list[Event]] = []
    for chunk in [*chunks, None]:
        events = decoder.close() if chunk is None else decoder.feed(chunk)
        legal: list[Event] = []
        try:
            for event in events:
                grammar.take(event, legal)
        except NurslingError as error:
            legal.append(Failed(error.info()))
            batches.append(legal)
            break
        batches.append(legal)
        if grammar.over:
            break
    return [batch for batch in batches if batch]


def stream_to(client: str, request: Request, batches: list[list[Event]]) -> bytes:
    """The bytes of the stream that the client gets."""
    encoder = FORMATS[client].encoder(request, IDENTITY)
    return b"".join(encoder.encode(batch) for batch in batches)


def whole_to(client: str, request: Request, batches: list[list[Event]]) -> bytes:
    """The whole body that the client gets. Raises the failure that the reply ended with."""
    fold = Accumulator(DEFAULT_LIMITS.max_reply_bytes)
    for batch in batches:
        fold.add(batch)
    if fold.reply.error is not None:
        raise error_from(fold.reply.error)
    assert fold.reply.complete
    return dumps(FORMATS[client].render_reply(fold.reply, request, IDENTITY))
