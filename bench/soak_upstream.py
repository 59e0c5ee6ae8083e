"""The upstream of a soak: it tells every client another tale. `python -m bench.soak_upstream`.

The law of this file: it says what the prompt asks for and nothing else, event by event as the time
comes, so thousands of different streams need no memory. The loop is that of `upstream.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .plan import PATHS, Api
from .processes import announce
from .script import frames
from .soak_plan import Tale, parse_tale
from .upstream import Loop, Streamed


def answer(path: str, body: bytes) -> Streamed | None:
    """Tell the tale that the request asks for; None: it asks for none."""
    try:
        request: Any = json.loads(body)
        api: Api = "chat" if path == PATHS["chat"] else "responses"
        asked = request["messages" if api == "chat" else "input"]
        prompt = asked if isinstance(asked, str) else asked[-1]["content"]
        tale = parse_tale(prompt if isinstance(prompt, str) else prompt[0]["text"])
        usage = (request.get("stream_options") or {}).get("include_usage") is True
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    if tale is None or path != PATHS[api] or request.get("stream") is not True:
        return None
    interval = 1 / tale.rate if tale.rate else 0.0
    return writes(tale, api, request["model"], usage=usage), interval


def writes(tale: Tale, api: Api, model: str, *, usage: bool) -> Iterator[bytes]:
    """The body, an HTTP chunk for every event; what stands around the tokens has a write each."""
    before, deltas, after = frames(api, model, tale.events, tale.tokens, usage=usage)
    yield b"".join(map(_chunk, before))
    yield from map(_chunk, deltas)
    yield b"".join(map(_chunk, after())) + b"0\r\n\r\n"


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def main() -> None:
    """Announce the port, and serve."""
    loop = Loop(answer)
    announce(loop.listen())
    loop.run()


if __name__ == "__main__":
    main()
